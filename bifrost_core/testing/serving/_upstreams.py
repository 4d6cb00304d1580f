"""What keys share behind them: a bounded number of requests that are worked on at once."""

from __future__ import annotations

import heapq

import attrs

from bifrost_core.limiter import Limiter

__all__ = ["Upstream"]

_WAITERS = 1_000_000  # as good as any number may wait


@attrs.define(eq=False)
class Upstream:
    """The slots of one server: first come, first served.

    Attributes:
        places: Who has one and who waits.
        ends: Seconds on the service's clock at which each request that is worked on will be done.
    """

    places: Limiter
    ends: dict[object, float] = attrs.field(factory=dict[object, float])

    @classmethod
    def of(cls, slots: int) -> Upstream:
        """An idle server."""
        return cls(Limiter(slots, max_waiters=_WAITERS))

    def leave(self, request: object) -> None:
        """Give a slot back."""
        self.ends.pop(request, None)
        self.places.release()

    def wait(self, now: float, each: float) -> float:
        """Expected seconds until a request that came now would be worked on.

        Args:
            now: Seconds on the service's clock.
            each: Seconds that those who wait already are expected to take.
        """
        if self.places.in_flight < self.places.limit:
            return 0.0
        ends = [max(now, end) for end in self.ends.values()]
        ends += [now + each] * (self.places.limit - len(ends))
        heapq.heapify(ends)
        for _ in range(self.places.waiting):
            heapq.heapreplace(ends, ends[0] + each)
        return ends[0] - now
