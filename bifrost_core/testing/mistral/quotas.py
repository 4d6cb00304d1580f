"""Limits per minute: buckets that refill continuously."""

from __future__ import annotations

import attrs

__all__ = ["Bucket", "Quota"]


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
        requests: Requests per minute, or None.
        tokens: Tokens per minute, or None.
    """

    requests: Bucket | None
    tokens: Bucket | None

    @classmethod
    def of(cls, requests: int | None, tokens: int | None, now: float) -> Quota:
        """Full buckets for these limits per minute (None: no limit)."""
        return cls(
            None if requests is None else Bucket(requests, float(requests), now),
            None if tokens is None else Bucket(tokens, float(tokens), now),
        )

    def admit(self, now: float) -> tuple[str, Bucket] | None:
        """Let one request in, if the limits allow it.

        Args:
            now: Seconds on the server's clock.

        Returns:
            None when it was let in, and one request taken; else the header name of the exhausted
            limit (``req`` or ``tokens``) and its bucket.
        """
        requests, tokens = self.requests, self.tokens
        if requests is not None:
            requests.refill(now)
            if requests.remaining < 1:
                return "req", requests
        if tokens is not None:
            tokens.refill(now)
            if tokens.remaining < 1:
                return "tokens", tokens
        if requests is not None:
            requests.level -= 1
        return None

    def charge(self, tokens: int) -> None:
        """Take the tokens of an admitted request."""
        if self.tokens is not None:
            self.tokens.level -= tokens

    def headers(self) -> list[tuple[str, str]]:
        """Both pairs of headers, as a plain chat reply carries them.

        Source:
            Observed header names of 2026; https://docs.mistral.ai/deployment/ai-studio/tier for what
            the limits mean.
        """
        found: list[tuple[str, str]] = []
        for name, bucket in (("req", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                found += exhausted_headers(name, bucket)
        return found


def exhausted_headers(name: str, bucket: Bucket) -> list[tuple[str, str]]:
    """The pair of headers of one limit.

    Args:
        name: ``req`` or ``tokens``.
        bucket: Its state.
    """
    return [
        (f"x-ratelimit-limit-{name}-minute", str(bucket.limit)),
        (f"x-ratelimit-remaining-{name}-minute", str(bucket.remaining)),
    ]
