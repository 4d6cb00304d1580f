"""Where the library reads the time: one protocol, one real clock."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Time for health, limits, caches and budgets.

    Sleeps and deadlines are not read from here: they belong to the event loop, whose own clock may
    be virtual (trio's ``MockClock``).
    """

    def __call__(self) -> float:
        """Monotonic seconds; only differences mean anything."""
        ...

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def __call__(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()
