"""What each kind of failure costs a call, and what a cancelled call leaves behind; ``python -m benchmarks.faults``."""
