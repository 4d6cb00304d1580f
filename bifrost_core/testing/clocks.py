"""A clock that stands still until a test moves it."""

from __future__ import annotations

import math

import attrs
from attrs import validators

__all__ = ["FakeClock"]


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
    wall: float = attrs.field(default=1_767_225_600.0, converter=float, validator=validators.ge(0))

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
