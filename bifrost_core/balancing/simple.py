"""Plain balancers, to compare the default one with and for those who want no more than this.

They keep no health: whoever calls ``pick`` leaves out the keys that should rest. A key of weight 0 is reserve: it is
chosen only from candidates that all have weight 0.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Mapping, Sequence

import attrs

from .base import MAX_WEIGHT, Candidates, KeySnapshot, Outcome, checked_weight, unpack

__all__ = ["LeastBusy", "LowestLatency", "RoundRobin", "WeightedRandom"]


@attrs.define(eq=False)
class _Key:
    id: str
    weight: float
    in_flight: int = 0
    credit: float = 0.0  # RoundRobin: turns it is owed
    latencies: deque[float] = attrs.field(factory=lambda: deque[float](maxlen=10))  # LowestLatency


@attrs.define(eq=False)
class _Attempt:
    key: _Key
    is_over: bool = False


class _Simple:
    """Counts what is in flight and leaves the choice to ``_choose``."""

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}
        self._picks: deque[str] = deque(maxlen=1000)

    def _choose(self, keys: Sequence[_Key], weights: Sequence[float]) -> _Key:
        """Return one of ``keys``; there are at least two, and either all weights are positive or all are 1."""
        raise NotImplementedError  # each rule has its own

    def add(self, key_id: str, weight: float = 1.0) -> None:
        """Make a key known, or change the weight of a known one.

        Raises:
            ValueError: ``weight`` is negative or not a finite number.
        """
        self._key(key_id).weight = checked_weight(weight)

    def remove(self, key_id: str) -> None:
        """Forget a key; unknown ids are fine, and so is ending its attempts later."""
        self._keys.pop(key_id, None)

    def set_weight(self, key_id: str, weight: float) -> None:
        """Change the weight of a known key.

        Raises:
            ValueError: The key is unknown, or ``weight`` is negative or not a finite number.
        """
        if key_id not in self._keys:
            raise ValueError(f"there is no key {key_id!r}; add it first")
        self._keys[key_id].weight = checked_weight(weight)

    def _key(self, key_id: str) -> _Key:
        key = self._keys.get(key_id)
        if key is None:
            key = self._keys[key_id] = _Key(key_id, 1.0)
        return key

    def pick(self, candidates: Candidates, request: object = None) -> str:  # noqa: ARG002  part of the protocol
        """Choose one of ``candidates``: ids, or a mapping id -> weight for this pick. ``request`` plays no part.

        Raises:
            ValueError: There are no candidates, or a weight is negative or not a finite number.
        """
        ids, given = unpack(candidates)
        keys = [self._key(key_id) for key_id in ids]
        weights = [key.weight for key in keys] if given is None else _given_weights(given)
        if any(weights):
            keys = [key for key, weight in zip(keys, weights, strict=True) if weight > 0.0]
            weights = [weight for weight in weights if weight > 0.0]
        else:
            weights = [1.0] * len(keys)
        key = keys[0] if len(keys) == 1 else self._choose(keys, weights)
        self._picks.append(key.id)
        return key.id

    def rest(self, key_id: str) -> float:  # noqa: ARG002  same signature everywhere
        """Return 0: every key is always open."""
        return 0.0

    def begin(self, key_id: str) -> _Attempt:
        """Note that an attempt starts now. An unknown key is added with weight 1."""
        key = self._key(key_id)
        key.in_flight += 1
        return _Attempt(key)

    def first_token(self, attempt: _Attempt) -> None:
        """Do nothing."""

    def quota(self, attempt: _Attempt, kind: str, remaining: float, limit: float, reset_s: float) -> None:
        """Do nothing."""

    def end(
        self,
        attempt: _Attempt,
        outcome: Outcome,
        latency: float,
        ttft: float | None = None,  # noqa: ARG002  part of the protocol
        output_tokens: float | None = None,  # noqa: ARG002
        retry_after: float | None = None,  # noqa: ARG002
    ) -> None:
        """Note that an attempt ended. A second end of the same one is ignored."""
        if attempt.is_over:
            return
        attempt.is_over = True
        attempt.key.in_flight -= 1
        if outcome == "ok" and 0.0 <= latency < math.inf:
            attempt.key.latencies.append(latency)

    def snapshot(self) -> dict[str, KeySnapshot]:
        """Return what is known about each key, in the order in which they were added."""
        picked = Counter(self._picks)
        return {
            key.id: KeySnapshot(
                key_id=key.id,
                weight=key.weight,
                in_flight=key.in_flight,
                share=picked[key.id] / max(1, len(self._picks)),
                latency=_mean(key.latencies) if key.latencies else None,
            )
            for key in self._keys.values()
        }


class _Random(_Simple):
    """A simple balancer that draws."""

    def __init__(self, *, rng: random.Random | None = None) -> None:
        """Make an empty pool.

        Args:
            rng: Source of the draws. A seeded one makes picks repeatable.
        """
        super().__init__()
        self._rng = random.Random() if rng is None else rng

    def _draw(self, keys: Sequence[_Key], weights: Sequence[float]) -> _Key:
        total = 0.0
        sums = [total := total + weight for weight in weights]
        return keys[bisect_right(sums, self._rng.random() * total)]

    def _draw_least(self, keys: Sequence[_Key], weights: Sequence[float], costs: Sequence[float]) -> _Key:
        """Draw among the keys of the least cost."""
        least = min(costs)
        best = [index for index, cost in enumerate(costs) if cost == least]
        return self._draw([keys[index] for index in best], [weights[index] for index in best])


class RoundRobin(_Simple):
    """In turn, by weight, without runs; nothing is random.

    Every pick gives each candidate its weight as credit; the one with the most is chosen and pays the sum.

    Source:
        Smooth weighted round-robin of nginx (ngx_http_upstream_round_robin.c).
    """

    def _choose(self, keys: Sequence[_Key], weights: Sequence[float]) -> _Key:
        for key, weight in zip(keys, weights, strict=True):
            key.credit += weight
        chosen = max(keys, key=lambda key: key.credit)
        chosen.credit -= sum(weights)
        return chosen


class WeightedRandom(_Random):
    """A draw by weight."""

    def _choose(self, keys: Sequence[_Key], weights: Sequence[float]) -> _Key:
        return self._draw(keys, weights)


class LeastBusy(_Random):
    """The key with the fewest attempts in flight; a draw by weight among equals."""

    def _choose(self, keys: Sequence[_Key], weights: Sequence[float]) -> _Key:
        return self._draw_least(keys, weights, [key.in_flight for key in keys])


class LowestLatency(_Random):
    """The key with the lowest mean of its last ten latencies; one without any comes first.

    Failures are not counted. It is here because many routers do this; its weakness is that a key once slow is never
    asked again.
    """

    def _choose(self, keys: Sequence[_Key], weights: Sequence[float]) -> _Key:
        return self._draw_least(keys, weights, [_mean(key.latencies) for key in keys])


def _mean(latencies: deque[float]) -> float:
    return sum(latencies) / len(latencies) if latencies else 0.0


def _given_weights(given: Mapping[str, float]) -> list[float]:
    return [weight if 0.0 <= weight <= MAX_WEIGHT else checked_weight(weight) for weight in given.values()]
