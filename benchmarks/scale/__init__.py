"""What a call costs as keys, calls in flight and virtual keys become many; see ``__main__``."""
