"""Limits per minute: buckets that refill continuously."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

__all__ = ["Bucket", "LimitName", "Quota"]

LimitName: TypeAlias = Literal["req", "tokens", "ocr-pages", "audio-seconds", "input-characters"]
"""What a limit counts, as the names of Mistral's headers have it."""


@attrs.define(eq=False)
class Bucket:
    """An allowance per minute that comes back evenly.

    A full bucket allows a burst of a whole minute's worth. Taking may leave it in debt, as the cost
    of an answer is known only once it is written; until the debt is paid nothing is allowed.

    Attributes:
        limit: Allowance per minute.
        level: What is left, at ``at``.
        at: Seconds on the server's clock.
    """

    limit: int
    level: float
    at: float

    def refill(self, now: float) -> None:
        """Add what came back until ``now`` (seconds on the server's clock)."""
        self.level = min(float(self.limit), self.level + max(0.0, now - self.at) * self.limit / 60)
        self.at = now

    @property
    def remaining(self) -> int:
        """What is left, in whole units and never negative."""
        return max(0, int(self.level + 1e-9))


@attrs.define(eq=False)
class Quota:
    """The limits of one model in one quota group.

    Attributes:
        buckets: One per limit that there is.
    """

    buckets: dict[LimitName, Bucket]

    @classmethod
    def of(cls, limits: Mapping[LimitName, int | None], now: float) -> Quota:
        """Full buckets for these limits per minute (None: no limit)."""
        return cls(
            {name: Bucket(limit, float(limit), now) for name, limit in limits.items() if limit is not None},
        )

    def admit(self, now: float, *names: LimitName) -> tuple[LimitName, Bucket] | None:
        """Let one request in, if the limits allow it.

        Args:
            now: Seconds on the server's clock.
            names: The limits that hold for the endpoint, in the order in which they are looked at.

        Returns:
            None when it was let in, and one request taken where requests are limited; else the
            exhausted limit and its bucket.
        """
        found: list[tuple[LimitName, Bucket]] = [(name, self.buckets[name]) for name in names if name in self.buckets]
        for name, bucket in found:
            bucket.refill(now)
            if bucket.remaining < 1:
                return name, bucket
        for name, bucket in found:
            if name == "req":
                bucket.level -= 1
        return None

    def opens_in(self, now: float) -> float:
        """Seconds until any request would be let in, if nothing else comes; 0: now, infinite: never."""
        longest = 0.0
        for bucket in self.buckets.values():
            bucket.refill(now)
            if bucket.remaining < 1:
                missing = 1 - bucket.level
                longest = max(longest, missing * 60 / bucket.limit if bucket.limit else math.inf)
        return longest

    def charge(self, name: LimitName, amount: int) -> None:
        """Take what an admitted request costs beside itself."""
        bucket = self.buckets.get(name)
        if bucket is not None:
            bucket.level -= amount
