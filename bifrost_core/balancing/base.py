"""What every balancer has in common: the protocol, its vocabulary and a read-only view of a key."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol, TypeAlias, cast, runtime_checkable

import attrs

__all__ = ["Balancer", "BlockReason", "Candidates", "KeySnapshot", "Outcome", "checked_weight", "unpack"]

Outcome: TypeAlias = Literal["ok", "rate_limit", "auth", "error", "client"]
"""How an attempt ended.

``ok``: a complete answer. ``rate_limit``: the provider refused for lack of quota (429, or 503/529 with a stated wait).
``auth``: the credential is rejected or unpaid. ``error``: the provider or the way to it failed. ``client``: the
caller's own doing (a bad request, a cancelled call) or a fault of the model as such; it says nothing about the key.
"""

Candidates: TypeAlias = Collection[str] | Mapping[str, float]
"""Key ids, or key id -> weight; such weights stand in for the configured ones during one pick."""

BlockReason: TypeAlias = Literal["refused", "dry", "capped", "failing", "trial", "credentials"]
"""Why a key is not open: told to wait, quota used up by our own count, as many in flight as a young key may have,
failing, its one trial is under way, credentials rejected."""

MAX_WEIGHT = 1e12


@runtime_checkable
class Balancer(Protocol):
    """Chooses the key for an attempt and learns from how attempts end.

    One instance serves one pool of interchangeable keys. Calls are synchronous, quick and do no I/O. An instance is not
    locked: share it between threads only with a lock around each call.

    These seven members are all a balancer needs. A caller uses the following ones too where an instance has them:

    - ``rest(key_id) -> float``: seconds until the key is open, 0 when it is.
    - ``set_weight(key_id, weight)``: without it, ``add`` is called again for the same id.
    - ``snapshot() -> dict[str, KeySnapshot]``: what to show about each key.
    - ``begin(key_id, *, stream=False)``: ``stream=True`` announces that ``first_token`` will be called when the first
      content arrives, so that its absence means something. A ``begin`` without the keyword is called without it.
    """

    def add(self, key_id: str, weight: float = 1.0) -> None:
        """Make a key known, or change the weight of a known one.

        Args:
            key_id: Any string that is unique within the pool.
            weight: Share of traffic relative to the other keys, >= 0. 0 means reserve.
        """
        ...

    def remove(self, key_id: str) -> None:
        """Forget a key. Its attempts in flight may still be ended; unknown ids are fine."""
        ...

    def pick(self, candidates: Candidates, request: object = None) -> str:
        """Choose one of ``candidates``.

        Args:
            candidates: The keys that may be used and have not failed for this request; not empty.
            request: None, or any object. ``session`` (default None), ``input_tokens`` (default 0) and ``attempt``
                (default 0, the first of its request) are read where present.

        Returns:
            One of ``candidates``.

        Raises:
            ValueError: There are no candidates.
        """
        ...

    # ``Any``: the attempt is the balancer's own type, handed back to it untouched.
    def begin(self, key_id: str) -> Any:
        """Note that an attempt starts now; call it right after ``pick``.

        Returns:
            An opaque token for ``first_token``, ``quota`` and ``end``.
        """
        ...

    def first_token(self, attempt: Any) -> None:
        """Note that the first content of a streamed answer has arrived."""
        ...

    def quota(self, attempt: Any, kind: str, remaining: float, limit: float, reset_s: float) -> None:
        """Note what the answer's headers say about a quota; before ``end``.

        Args:
            attempt: The attempt whose answer carried the headers.
            kind: A name with the word ``token`` for a quota counted in tokens; any other (``"requests"``,
                ``"ocr-pages"``, ``"audio-seconds"``) is counted in attempts, each of which takes at least one.
            remaining: What is left, in units of ``kind``.
            limit: What there is when nothing is used.
            reset_s: Seconds until the quota is full again; 0 when unknown.
        """
        ...

    def end(
        self,
        attempt: Any,
        outcome: Outcome,
        latency: float,
        ttft: float | None = None,
        output_tokens: float | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Note how an attempt ended; exactly once for each, cancelled ones included.

        Args:
            attempt: What ``begin`` returned.
            outcome: See ``Outcome``.
            latency: Seconds from ``begin`` to the last byte, without the time a slow reader took.
            ttft: Seconds from ``begin`` to the first content; streams only.
            output_tokens: As billed, or the number of chunks; None when unknown.
            retry_after: Seconds the provider asked us to wait, with ``rate_limit``.
        """
        ...


@attrs.frozen(kw_only=True)
class KeySnapshot:
    """What a balancer knows about one key at one moment. None: it does not keep, or does not yet know, the figure.

    Attributes:
        key_id: The key.
        weight: Its configured weight.
        in_flight: Attempts that have begun and not ended.
        share: Part of the pool's last 1000 picks that went to it, 0-1.
        is_trial: It failed and has to succeed once before it gets its full share.
        rest: Seconds until it opens; 0 when it is open, or waits only for one of its own attempts to end.
        reason: Why it is not open; None when it is.
        rho: Seconds it takes relative to the pool for the same answer; 1 is average.
        observations: Number of answers that ``rho`` still rests on, after forgetting; 0-25.
        error_rate: Recent part of its attempts that failed, 0-1, refusals excluded.
        cost: What the next attempt would cost on it, in mean latencies of the pool.
        latency: Expected seconds for an answer of mean length.
        time_to_first_token: Expected seconds until a stream's first content.
    """

    key_id: str
    weight: float
    in_flight: int
    share: float
    is_trial: bool = False
    rest: float = 0.0
    reason: BlockReason | None = None
    rho: float | None = None
    observations: float | None = None
    error_rate: float | None = None
    cost: float | None = None
    latency: float | None = None
    time_to_first_token: float | None = None


def checked_weight(weight: float) -> float:
    """Return ``weight`` as a float of at most 1e12.

    Raises:
        ValueError: It is negative or not a finite number.
    """
    if not 0.0 <= weight < math.inf:
        raise ValueError(f"a weight is a finite number >= 0, not {weight!r}")
    return min(float(weight), MAX_WEIGHT)


def unpack(candidates: Candidates) -> tuple[Collection[str], Mapping[str, float] | None]:
    """Return the ids in an order that does not depend on hashing, and the weights given with them.

    Raises:
        ValueError: There are no candidates, or they are a single string.
    """
    if isinstance(candidates, str):
        raise ValueError(f"candidates are a collection of key ids, not the string {candidates!r}")  # noqa: TRY004  one error for all
    if not candidates:
        raise ValueError("there are no candidates to pick from")
    if isinstance(candidates, (list, tuple)):  # the usual types first: asking an ABC takes longer
        return candidates, None
    if isinstance(candidates, (dict, Mapping)):
        weights = cast("Mapping[str, float]", candidates)
        return weights, weights
    if isinstance(candidates, (set, frozenset)):
        return sorted(candidates), None
    return candidates, None
