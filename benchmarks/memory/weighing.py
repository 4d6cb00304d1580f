"""How much memory this process has in use: as the system sees it, and as Python's own allocator does."""

from __future__ import annotations

import gc
import resource
import tracemalloc
from pathlib import Path
from typing import Final

__all__ = ["in_use", "resident"]

_PAGE: Final = resource.getpagesize()


def resident() -> int:
    """Bytes of resident memory, which have grains of a page, and of 256 KiB where Python asks the system for more.

    Source:
        https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html
    """
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def in_use() -> int:
    """Bytes in use after a collection: those of Python's objects while tracemalloc runs, else resident ones."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else resident()
