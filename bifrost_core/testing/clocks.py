"""Clocks for tests: one that stands still until it is moved, one that shows the event loop's time."""

from __future__ import annotations

import math

import anyio
import attrs
from attrs import validators

__all__ = ["FakeClock", "LoopClock"]

_WALL = 1_767_225_600.0  # 2026-01-01 00:00:00 UTC


@attrs.define(eq=False)
class FakeClock:
    """Time that moves only when told, for everything that takes a ``clock``.

    Calling it gives monotonic seconds and ``time()`` the wall clock; both move together, as nothing
    here steps the wall clock on its own. Reading is safe from any thread; only one thread at a time
    may move it.

    Attributes:
        now: Monotonic seconds at the start.
        wall: Seconds since 1970-01-01 UTC at the start. The default is 2026-01-01 00:00:00 UTC.
    """

    now: float = attrs.field(default=0.0, converter=float)
    wall: float = attrs.field(default=_WALL, converter=float, validator=validators.ge(0))

    def __call__(self) -> float:
        """Monotonic seconds; only differences mean anything."""
        return self.now

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self.wall

    def advance(self, seconds: float) -> float:
        """Move both clocks forwards.

        Args:
            seconds: How far, in seconds; finite and not negative.

        Returns:
            The new monotonic time in seconds.

        Raises:
            ValueError: ``seconds`` is negative or not finite; the clock has not moved.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            msg = f"a clock only moves forwards, by a finite number of seconds: {seconds!r}"
            raise ValueError(msg)
        self.now += seconds
        self.wall += seconds
        return self.now


@attrs.frozen
class LoopClock:
    """The event loop's time, virtual where the loop's is.

    Give it to a ``Router`` that runs under trio's ``MockClock(autojump_threshold=0)``, so that health, limits
    and latencies are in the same time as every sleep: an hour of traffic over ``Simulated`` takes seconds.
    It can be read inside an event loop only.

    Attributes:
        wall: Seconds since 1970-01-01 UTC at the loop's time 0. The default is 2026-01-01 00:00:00 UTC.
    """

    wall: float = attrs.field(default=_WALL, converter=float, validator=validators.ge(0))

    def __call__(self) -> float:
        """Monotonic seconds on the event loop's clock."""
        return anyio.current_time()

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self.wall + anyio.current_time()
