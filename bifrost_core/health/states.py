"""One scope's state: closed, open until some time, half-open; and what moves it from one to the next.

Two things keep a scope open, side by side. A *breaker* counts faults that may be chance and opens after
several. Everything else (a stated wait, a refused key, a model that is not there) is *firm*: when every
way is shut, breakers may be ignored and firm closings may not. The scope is open until the later of the
two; then it is half-open, admits one attempt, and closes when that attempt succeeds.

An attempt that began before the scope opened learnt nothing new: fifty calls in flight when a provider
dies are one outage, not ten, and fifty refusals of one second are one refusal. Such late news extend a
stated wait, and count nothing.

Source:
    Envoy, outlier detection (consecutive errors, ejection time times the number of ejections, cap
    300 s); AWS, "Exponential Backoff and Jitter"; RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import math
import random
from typing import Final

import attrs

from bifrost_core.kinds import Scope

from .scopes import Reason, ScopeId

__all__ = ["LONGEST_WAIT", "NEVER", "PROBE_WAIT", "ScopeState", "Traffic", "Window"]

NEVER: Final = -math.inf
PROBE_WAIT: Final = 1.0  # seconds that others are told to wait while the half-open attempt is under way
LONGEST_WAIT: Final = 86_400.0  # no stated wait is taken for longer than a day
WINDOW: Final = 10  # seconds over which attempts and failures are counted

_TICK: Final = 1e-6  # a clock that was moved by just the rest must find it over, whatever floats make of the sum
_ROW: Final = 5  # failures in a row that open a breaker
_LEAST: Final = 10  # attempts in the window before their failure rate counts
_RATE: Final = 0.5
_STEP, _LONGEST = 5.0, 300.0  # seconds open per time opened, and at most
_REJECTED_LONGEST: Final = 3600.0
_RAMPED: Final = (Scope.DEPLOYMENT, Scope.PROVIDER)
_RAMP, _RAMP_START = 15.0, 0.1  # seconds until a scope that came back has its full share, and its share at first


class Window:
    """A count of what happened in the last ten seconds, to one second."""

    __slots__ = ("_counts", "_second", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * WINDOW
        self._second = 0
        self._sum = 0

    def add(self, now: float) -> None:
        """One more, at ``now``."""
        second = int(now)
        if second != self._second:
            self._turn(second)
        self._counts[second % WINDOW] += 1
        self._sum += 1

    def count(self, now: float) -> int:
        """How many in the ten seconds before ``now``."""
        second = int(now)
        if second != self._second:
            self._turn(second)
        return self._sum

    def clear(self) -> None:
        """Forget everything."""
        self._counts = [0] * WINDOW
        self._sum = 0

    def _turn(self, second: int) -> None:
        if second - self._second >= WINDOW:
            self.clear()
        else:
            for passed in range(self._second + 1, second + 1):
                self._sum -= self._counts[passed % WINDOW]
                self._counts[passed % WINDOW] = 0
        self._second = second


class Traffic:
    """Attempts and faults of one deployment in the last ten seconds."""

    __slots__ = ("attempts", "faults")

    def __init__(self) -> None:
        self.attempts = Window()
        self.faults = Window()


@attrs.define(eq=False)
class ScopeState:
    """The state of one scope instance. All times are seconds on one monotonic clock.

    Attributes:
        id: Which scope.
        firm: End of what is not a breaker's; ``NEVER`` when there is nothing.
        firm_reason: Why.
        breaker: End of what the breaker opened; ``NEVER`` when it is closed.
        breaker_reason: The failure that opened it.
        opened_at: When it was last opened; older attempts learnt nothing new.
        closed_at: When it was last closed.
        probe: The attempt that holds the half-open place.
        row: Failures in a row, towards the breaker.
        times: How often the breaker has opened, less what time has forgotten.
        refusals: Refusals in a row that stated no time.
        rejections: Rejections of the credential in a row.
        rate: Failure rate when the breaker last opened, 0 to 1.
        failures: Failures of the last ten seconds.
    """

    id: ScopeId
    firm: float = NEVER
    firm_reason: Reason | None = None
    breaker: float = NEVER
    breaker_reason: Reason | None = None
    opened_at: float = NEVER
    closed_at: float = NEVER
    probe: object | None = attrs.field(default=None, repr=False)
    row: int = 0
    times: int = 0
    refusals: int = 0
    rejections: int = 0
    rate: float = 0.0
    failures: Window = attrs.field(factory=Window, repr=False)
    _length: float = _STEP
    _forget_from: float = NEVER

    @property
    def is_open(self) -> bool:
        """Open or half-open: something other than a success is needed to close it."""
        return self.firm != NEVER or self.breaker != NEVER

    @property
    def until(self) -> float:
        """When it becomes half-open; ``NEVER`` when it is closed."""
        return max(self.firm, self.breaker)

    @property
    def reason(self) -> Reason | None:
        """What keeps it open the longest."""
        return self.firm_reason if self.firm >= self.breaker else self.breaker_reason

    def rest(self, now: float, *, ignore_breakers: bool = False) -> float:
        """Seconds until an attempt may go through; 0: now."""
        until = self.firm if ignore_breakers else self.until
        if until == NEVER:
            return 0.0
        if until - now > _TICK:
            return until - now
        return 0.0 if self.probe is None else PROBE_WAIT

    def is_half_open(self, now: float) -> bool:
        """Whether its time is over and it waits for a success."""
        return self.is_open and self.until - now <= _TICK

    def is_broken(self, now: float) -> bool:
        """Whether the breaker lets nothing through."""
        return self.breaker != NEVER and (self.breaker - now > _TICK or self.probe is not None)

    def share(self, now: float) -> float:
        """Part of the calls that it gets again since it closed, 0.1 to 1; below 1 for deployments and providers only.

        Source:
            Envoy, slow start (linear: aggression 1, window 15 s, at least 10 %).
        """
        passed = now - self.closed_at
        if passed >= _RAMP or self.id[0] not in _RAMPED:
            return 1.0
        return max(_RAMP_START, passed / _RAMP)

    def is_news(self, started: float) -> bool:
        """Whether a failure that began at ``started`` says more than what the scope is already open for."""
        return not self.is_open or started >= self.opened_at

    def fail(self, reason: Reason, now: float, *, probing: bool, attempts: int, rng: random.Random) -> None:
        """Count a fault towards the breaker.

        Args:
            reason: The failure's kind.
            now: The time.
            probing: The attempt held the half-open place.
            attempts: Attempts of the last ten seconds in this scope, this one included.
            rng: For the jitter.
        """
        self.failures.add(now)
        failed = self.failures.count(now)
        self.rate = min(1.0, failed / attempts) if attempts else 1.0
        if probing or (self.breaker != NEVER and self.breaker - now <= _TICK):
            self._trip(reason, now, rng)
        elif self.breaker == NEVER:
            self.row += 1
            if self.row >= _ROW or (attempts >= _LEAST and failed >= attempts * _RATE):
                self._trip(reason, now, rng)

    def shut(self, reason: Reason, now: float, seconds: float) -> None:
        """Open for ``seconds``, or for as long as it already is when that is longer."""
        until = now + seconds
        if until > self.firm:
            self.firm = until
            self.firm_reason = reason
        self._opened(now)

    def wait(self, reason: Reason, now: float, seconds: float, rng: random.Random) -> None:
        """Open for as long as the provider asked, in seconds: at most a day, up to 250 ms longer, never shorter."""
        seconds = min(seconds, LONGEST_WAIT)
        self.refusals = 0
        self.shut(reason, now, seconds + rng.uniform(0.0, min(seconds * 0.1, 0.25)))

    def refuse(self, started: float, *, first: float, longest: float) -> float:
        """Count a refusal that stated no time, and say how long it closes: ``first``, doubling to ``longest``.

        Source:
            AWS, "Exponential Backoff and Jitter".
        """
        if self.is_news(started) or not self.refusals:
            self.refusals += 1
        return min(longest, first * 2.0 ** min(self.refusals - 1, 30))

    def reject(self, reason: Reason, now: float, started: float, *, first: float) -> None:
        """Close because the credential is refused: ``first`` seconds, doubling to an hour."""
        if self.rejections and not self.is_news(started):
            return
        self.rejections += 1
        self.shut(reason, now, min(_REJECTED_LONGEST, first * 2.0 ** min(self.rejections - 1, 30)))

    def succeed(self, now: float, started: float, *, probing: bool) -> bool:
        """Note a good answer.

        An answer to an attempt that began before the scope opened closes nothing. One that began later without the
        half-open place was let through past a breaker, and closes that.

        Returns:
            Whether the scope closed.
        """
        self.row = 0
        if not self.is_open:
            return False
        if probing or (self.firm == NEVER and started > self.opened_at):
            self.close(now)
            return True
        return False

    def close(self, now: float) -> None:
        """Let everything through again, and forget what led to the closing but not how often it happened."""
        self.firm = self.breaker = NEVER
        self.firm_reason = self.breaker_reason = None
        self.probe = None
        self.row = self.refusals = self.rejections = 0
        self.failures.clear()
        self.closed_at = now

    def forget(self, now: float) -> None:
        """Take one step off ``times`` for each further interval, as long as the last one, without an opening."""
        if self.times and now > self._forget_from:
            passed = int((now - self._forget_from) / self._length)
            self.times = max(0, self.times - passed)
            self._forget_from += passed * self._length

    def is_blank(self, now: float) -> bool:
        """Whether it says no more than a new one would."""
        if self.is_open or self.row or self.share(now) < 1.0 or self.failures.count(now):
            return False
        self.forget(now)
        return not self.times

    def _trip(self, reason: Reason, now: float, rng: random.Random) -> None:
        self.forget(now)
        self.times += 1
        self._length = min(_LONGEST, _STEP * self.times)
        # Upwards only: nothing comes back before its time.
        self.breaker = max(self.breaker, now + min(_LONGEST, self._length * rng.uniform(1.0, 1.1)))
        self.breaker_reason = reason
        self._forget_from = self.breaker
        self.row = 0
        self._opened(now)

    def _opened(self, now: float) -> None:
        self.opened_at = now
        self.probe = None
