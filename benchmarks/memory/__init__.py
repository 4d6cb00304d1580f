"""What the library keeps in memory; see ``__main__``."""
