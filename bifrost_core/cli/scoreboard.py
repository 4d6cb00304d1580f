"""What the demo counts, and a plugin that counts it."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Final

import attrs

from bifrost_core.attempts import Attempt
from bifrost_core.balancing import KeySnapshot
from bifrost_core.calls import CallRecord
from bifrost_core.health import RouteHealth
from bifrost_core.hookspecs import hookimpl
from bifrost_core.kinds import FACTS, Kind
from bifrost_core.types import Usage

__all__ = ["KeyScore", "Outage", "Rest", "Scoreboard", "percentile"]

RECENT_SECONDS: Final = 5.0
"""What counts as recent in a key's share."""

_OUTAGE_FAILURES: Final = 3
_FAULTS: Final = frozenset({"error", "auth"})
_WAITS: Final = frozenset({"refused", "dry"})  # the balancer's words for a key whose quota is used up


def percentile(values: Sequence[float], part: float) -> float | None:
    """The nearest-rank percentile of ``values``; ``part`` from 0 to 1; None without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else None


@attrs.define(eq=False)
class Outage:
    """Failures of a key without a good answer between them.

    Attributes:
        began: First failure, seconds since the start.
        last: Last failure so far.
        failures: How many.
        kind: Of the first.
        ended: When the first good answer began that was asked for later; None: not yet.
    """

    began: float
    last: float
    kind: str
    failures: int = 1
    ended: float | None = None


@attrs.frozen
class Rest:
    """A time in which a key is not chosen: seconds left, and why."""

    seconds: float
    reason: str


@attrs.define(eq=False)
class KeyScore:
    """One key's part. Times are seconds, instants seconds since the start.

    Attributes:
        key_id: The key.
        answers: Attempts that brought an answer.
        errors: Attempts that did not, by kind.
        latencies: Of the answers.
        first_tokens: Times to the first token of the streamed answers.
        rests: How often it began to rest, by reason.
        outages: Where it failed by no fault of the caller's, oldest first.
        in_flight: Attempts under way.
        rest: The rest that it has now.
    """

    key_id: str
    answers: int = 0
    errors: Counter[str] = attrs.field(factory=Counter[str])
    latencies: list[float] = attrs.field(factory=list[float])
    first_tokens: list[float] = attrs.field(factory=list[float])
    rests: Counter[str] = attrs.field(factory=Counter[str])
    outages: list[Outage] = attrs.field(factory=list[Outage])
    in_flight: int = 0
    rest: Rest | None = None
    _recent: deque[float] = attrs.field(factory=deque[float], init=False)

    def answered(self, attempt: Attempt, now: float) -> None:
        """Count an answer that came at ``now``."""
        self.answers += 1
        self._recent.append(now)
        latency = attempt.latency or 0.0
        self.latencies.append(latency)
        if attempt.time_to_first_token is not None:
            self.first_tokens.append(attempt.time_to_first_token)
        if self.outages and self.outages[-1].ended is None and now - latency > self.outages[-1].last:
            self.outages[-1].ended = now - latency

    def failed(self, kind: Kind, now: float) -> None:
        """Count a failure that came at ``now``."""
        self.errors[kind] += 1
        if FACTS[kind].balancer not in _FAULTS:
            return
        if self.outages and self.outages[-1].ended is None:
            self.outages[-1].failures += 1
            self.outages[-1].last = now
        else:
            self.outages.append(Outage(now, now, kind))

    def recent(self, now: float) -> int:
        """Answers of the last five seconds."""
        while self._recent and self._recent[0] < now - RECENT_SECONDS:
            self._recent.popleft()
        return len(self._recent)

    def see(self, rest: Rest | None, in_flight: int) -> None:
        """Note how the key stands now."""
        if rest is not None and (self.rest is None or self.rest.reason != rest.reason):
            self.rests[rest.reason] += 1
        self.rest, self.in_flight = rest, in_flight

    @property
    def worst(self) -> Outage | None:
        """The outage with the most failures; None when nothing amounts to one."""
        grave = [outage for outage in self.outages if outage.failures >= _OUTAGE_FAILURES]
        return max(grave, key=lambda outage: outage.failures, default=None)


class Scoreboard:
    """Counts what every attempt and every call came to: a plugin with two hooks.

    Args:
        key_ids: The keys, in the order in which they are shown.
        clock: Monotonic seconds.
    """

    def __init__(self, key_ids: Iterable[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.keys: dict[str, KeyScore] = {key_id: KeyScore(key_id) for key_id in key_ids}
        self.outcomes: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.usage = Usage()
        self.cost = Decimal(0)
        self.unpriced = 0
        self._clock = clock
        self._started = clock()
        self._ended: float | None = None

    @hookimpl
    def bifrost_attempt_finished(self, attempt: Attempt) -> None:
        """Count an attempt for its key."""
        score = self.keys.setdefault(attempt.route.key_id, KeyScore(attempt.route.key_id))
        if attempt.outcome == "ok":
            score.answered(attempt, self.elapsed)
        elif attempt.outcome == "failed" and attempt.kind is not None:
            score.failed(attempt.kind, self.elapsed)

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        """Count a call, with its tokens and its cost over all attempts."""
        self.outcomes[record.outcome] += 1
        if record.outcome == "failed" and record.kind is not None:
            self.failures[record.kind] += 1
        self.usage += record.usage
        if record.cost is None:
            self.unpriced += 1
        else:
            self.cost += record.cost

    @property
    def elapsed(self) -> float:
        """Seconds since the start; stands still after ``stop``."""
        return (self._clock() if self._ended is None else self._ended) - self._started

    def stop(self) -> None:
        """The run is over."""
        if self._ended is None:
            self._ended = self._clock()

    @property
    def calls(self) -> int:
        """Calls that ended."""
        return self.outcomes.total()

    @property
    def failed(self) -> int:
        """Calls that ended with an error; a cancelled one did not."""
        return self.calls - self.outcomes["ok"] - self.outcomes["cancelled"]

    @property
    def answers(self) -> int:
        """Attempts that brought an answer, on any key."""
        return sum(score.answers for score in self.keys.values())

    @property
    def errors(self) -> Counter[str]:
        """Attempts that brought none, by kind, on any key."""
        total: Counter[str] = Counter()
        for score in self.keys.values():
            total += score.errors
        return total

    def watch(self, health: Iterable[RouteHealth], balanced: Iterable[KeySnapshot]) -> None:
        """Note how the keys stand now: what the Router keeps closed, and what its balancer avoids."""
        avoided = {snapshot.key_id: snapshot for snapshot in balanced}
        for entry in health:
            score = self.keys.get(entry.route.key_id)
            if score is None:
                continue
            rest = None
            if entry.state == "open":
                rest = Rest(entry.until, str(entry.reason))
            elif (snapshot := avoided.get(score.key_id)) is not None and snapshot.rest > 0:
                rest = Rest(snapshot.rest, _reason(snapshot, score))
            score.see(rest, entry.in_flight)


def _reason(snapshot: KeySnapshot, score: KeyScore) -> str:
    """Why the balancer avoids a key, as the kind of failure behind it."""
    if snapshot.reason in _WAITS:
        return Kind.RATE_LIMITED
    return score.outages[-1].kind if score.outages else str(snapshot.reason)
