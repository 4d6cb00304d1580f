"""A bound on what is in flight at once: fair, with a short queue, safe to cancel at any await."""

from __future__ import annotations

from collections import deque
from typing import Final

import anyio
import attrs

__all__ = ["Limiter", "QueueFullError"]

MAX_WAITERS: Final = 1_000


class QueueFullError(Exception):
    """No place in time, or too many wait already."""


@attrs.define(eq=False)
class _Waiter:
    event: anyio.Event = attrs.field(factory=anyio.Event)
    has_place: bool = False


@attrs.define(eq=False)
class Limiter:
    """Places for what is in flight; whoever came first gets the next one.

    Belongs to one event loop and takes no lock: everything that changes the counters happens between
    two awaits.

    Attributes:
        limit: Places, at least 1.
        max_waiters: How many may wait at once.
        in_flight: Places taken, the ones just handed to a waiter included.
    """

    limit: int = attrs.field(validator=attrs.validators.ge(1))
    max_waiters: int = attrs.field(default=MAX_WAITERS, kw_only=True)
    in_flight: int = attrs.field(default=0, init=False)
    _waiters: deque[_Waiter] = attrs.field(factory=deque[_Waiter], init=False)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiters)

    @property
    def is_unused(self) -> bool:
        """Nothing is in flight and nobody waits."""
        return not self.in_flight and not self._waiters

    def try_acquire(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self.in_flight < self.limit and not self._waiters:
            self.in_flight += 1
            return True
        return False

    async def acquire(self, patience: float) -> None:
        """Take a place; wait for one in the order of arrival.

        Args:
            patience: Seconds to wait at most.

        Raises:
            QueueFullError: ``patience`` is over, or ``max_waiters`` wait already.
        """
        if self.try_acquire():
            return
        if len(self._waiters) >= self.max_waiters:
            raise QueueFullError(f"{len(self._waiters)} already wait")
        waiter = _Waiter()
        self._waiters.append(waiter)
        try:
            with anyio.move_on_after(patience):
                await waiter.event.wait()
        except BaseException:
            # Cancelled. A place that was handed over in the same instant goes to the next in line.
            self._leave(waiter)
            raise
        if not waiter.has_place:
            self._waiters.remove(waiter)
            raise QueueFullError(f"no place within {patience:g} s")

    def release(self) -> None:
        """Give a place back: to the first who waits, if anybody does."""
        if self._waiters:
            waiter = self._waiters.popleft()
            waiter.has_place = True  # the place changes hands; ``in_flight`` stays
            waiter.event.set()
        else:
            self.in_flight -= 1

    def _leave(self, waiter: _Waiter) -> None:
        if waiter.has_place:
            self.release()
        else:
            self._waiters.remove(waiter)
