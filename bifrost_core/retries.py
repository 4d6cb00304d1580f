"""Where a call goes after an attempt failed: one owner of retries, as a pure decision.

Nothing here sleeps, sends or looks at a clock. The router tells a ``Plan`` how an attempt ended and what
is usable now, and is told one of: the same deployment after a pause, another key, another quota group,
the same route on a new connection, the next deployment, or nothing: the error goes to the caller.

A loop over it, where two keys serve ``mistral/small`` and one serves ``openai/mini``::

    plan = Plan(policy, budget, rng)
    for routes in chain:                                 # the deployments of the call, in order
        awake = plan.candidates(health.usable(routes))
        if not awake or not plan.enter(awake[0].deployment):
            continue
        while awake:
            ticket = health.begin(route := balancer.pick(awake))
            ...                                          # send; on success return
            kind = health.end(ticket, kind, status=status, retry_after=retry_after)
            move = plan.next(
                Failure(route, kind, status=status, retry_after=retry_after),
                usable=health.usable(routes),
                more=later_deployments_with_something_usable(),
                time_left=deadline - now,
            )
            if move.step is None:
                raise error                              # every attempt is on it
            if move.step is Step.DEPLOYMENT:
                break
            await sleep(move.delay)                      # 0 but for Step.SAME
            awake = move.routes                          # Step.FRESH: one route, on a new connection

What happens when ``small`` answers 401 to key A, 503 to key B, and ``mini`` answers well: after A,
``next`` says KEY with B alone (a rejected key is not asked again in this call, and the move counts for
nothing). After B it says SAME with B after up to 0.25 s: the second counted attempt there, paid with one
token of the deployment's retry budget. B answers 503 again: two attempts on one deployment are the limit,
so it says DEPLOYMENT. Without ``mini`` it would say None, and the caller gets the 503 with all three attempts.

When everything rests, ``Plan.wait`` says whether waiting for the first route to open is worth it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import attrs

from ._errors import ConfigError
from .hedging import Hedge
from .kinds import FACTS, Cooling, Kind, Scope, Step, steps_of
from .types import Route

__all__ = ["MIN_ATTEMPT", "Failure", "Move", "Plan", "RetryBudget", "RetryPolicy"]

MIN_ATTEMPT: Final = 0.25
"""No attempt starts with less than this left before the call's deadline, in seconds."""

Effects: TypeAlias = Literal["none", "possible"]
Name: TypeAlias = tuple[str, ...]

_NO_TIME: Final = 0.05  # seconds; an attempt that sent nothing and took no longer does not count as one
_AFTER_THROTTLING: Final = 1.0  # seconds: least base of the backoff after a refusal for want of capacity
_TIMEOUTS: Final = frozenset({Kind.SERVER_TIMEOUT, Kind.READ_TIMEOUT})


def _whole(least: int) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{field.name} is a whole number of at least {least}, not {value!r}", field=field.name)

    return check


def _not_negative(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigError(f"{field.name} is a finite number >= 0, not {value!r}", field=field.name)


def _a_hedge(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, Hedge):
        raise ConfigError(f"hedge is None or a Hedge, not {value!r}", field=field.name)


@attrs.frozen
class RetryPolicy:
    """How often, and how patiently, a call tries.

    Attributes:
        max_attempts: Counted attempts of a call, all deployments together. Asking another key after one was
            rejected, and one resend on a new connection, are not counted.
        max_attempts_per_deployment: Counted attempts on one deployment; a move to another quota group is not.
        max_wait: Seconds that a call waits for the first of its routes to open when all rest; 0: it never waits.
        backoff: Seconds; before the n-th repeat on a deployment a call pauses for a random time up to
            ``backoff * 2 ** (n - 1)``.
        backoff_max: Longest such pause in seconds.
        budget: Repeats on one deployment that may be made in a row, by all calls together, when each fails.
        budget_ratio: Repeats that each further call to the deployment earns.
        hedge: When a slow call gets a second attempt beside the first; None: never.

    Raises:
        ConfigError: A value makes no sense; ``field`` names it.

    Source:
        AWS, "Exponential Backoff and Jitter" (full jitter); Envoy ``circuit_breaker.proto`` and gRPC
        proposal A6 (retry budgets).
    """

    max_attempts: int = attrs.field(default=4, validator=_whole(1))
    max_attempts_per_deployment: int = attrs.field(default=2, validator=_whole(1))
    max_wait: float = attrs.field(default=10, validator=_not_negative)
    backoff: float = attrs.field(default=0.25, validator=_not_negative)
    backoff_max: float = attrs.field(default=8, validator=_not_negative)
    budget: float = attrs.field(default=10, validator=_not_negative)
    budget_ratio: float = attrs.field(default=0.2, validator=_not_negative)
    hedge: Hedge | None = attrs.field(default=None, validator=_a_hedge)


class RetryBudget:
    """What is left for repeats on each deployment; one per Router, shared by all its calls.

    Every deployment starts with ``policy.budget`` tokens and has at most as many. Nothing is kept for a deployment
    whose budget is whole.

    Args:
        policy: Cap and ratio.
        limit: How many deployments are remembered at most.
    """

    def __init__(self, policy: RetryPolicy, *, limit: int = 10_000) -> None:
        self._cap = float(policy.budget)
        self._ratio = float(policy.budget_ratio)
        self._limit = limit
        self._spent: dict[str, float] = {}

    def left(self, deployment: str) -> float:
        """Tokens left."""
        return self._cap - self._spent.get(deployment, 0.0)

    def put(self, deployment: str, tokens: float | None = None) -> None:
        """Put ``tokens`` in, by default what a call's first attempt at the deployment earns."""
        spent = self._spent.get(deployment)
        if spent is None:
            return
        spent -= self._ratio if tokens is None else tokens
        if spent > 1e-9:  # sums of 0.2 are not exact
            self._spent[deployment] = spent
        else:
            del self._spent[deployment]

    def take(self, deployment: str, tokens: float) -> bool:
        """Take ``tokens`` out if there are as many."""
        spent = self._spent.get(deployment, 0.0) + tokens
        if spent > self._cap + 1e-9:
            return False
        if deployment not in self._spent and len(self._spent) >= self._limit:
            del self._spent[next(iter(self._spent))]
        self._spent[deployment] = spent
        return True


@attrs.frozen
class Failure:
    """How an attempt failed, as far as it decides where the call goes next.

    Attributes:
        route: What it was sent on.
        kind: The failure, as ``Health.end`` gave it back. Of a stream's error event the kind of the code inside.
        status: HTTP status of the answer.
        retry_after: Seconds that the provider asked to wait.
        sent: Whether any byte of the request may have reached the provider.
        received: Whether any byte of the answer had arrived.
        reused: Whether the connection had been used before.
        delivered: Whether the caller has been given content of the answer.
        resumable: Whether another attempt can go on where what was delivered ends.
        elapsed: Seconds that the attempt took.
        limit: Of ``budget_exceeded`` and ``rate_exceeded``: what the budget or limit belongs to; None: the caller.
    """

    route: Route
    kind: Kind
    status: int | None = attrs.field(default=None, kw_only=True)
    retry_after: float | None = attrs.field(default=None, kw_only=True)
    sent: bool = attrs.field(default=True, kw_only=True)
    received: bool = attrs.field(default=False, kw_only=True)
    reused: bool = attrs.field(default=False, kw_only=True)
    delivered: bool = attrs.field(default=False, kw_only=True)
    resumable: bool = attrs.field(default=False, kw_only=True)
    elapsed: float = attrs.field(default=math.inf, kw_only=True)
    limit: Scope | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Move:
    """What comes next.

    Attributes:
        step: Where to; None: nowhere, the error goes to the caller.
        routes: What the next attempt may be sent on; empty for the next deployment and for nowhere.
        delay: Seconds to pause first; more than 0 for ``Step.SAME`` only.
        deadline_limited: A further attempt was possible but for the time left.
    """

    step: Step | None
    routes: tuple[Route, ...] = ()
    delay: float = 0.0
    deadline_limited: bool = False


_STOP: Final = Move(None)
_LATE: Final = Move(None, deadline_limited=True)


@attrs.frozen
class _Offer:
    """A step that could be taken, and how the attempt it leads to counts."""

    routes: tuple[Route, ...] = ()
    delay: float = 0.0
    total: int = 0  # towards the attempts of the call
    here: int = 0  # towards those of the deployment


@attrs.define(eq=False)
class _History:
    """What a call remembers from its first failure on."""

    failed: set[Name] = attrs.field(factory=set[Name])  # routes
    refused: set[Name] = attrs.field(factory=set[Name])  # quota groups, with the model
    rejected: set[Name] = attrs.field(factory=set[Name])  # keys, routes and quota groups that can not be used
    repeats: dict[str, int] = attrs.field(factory=dict[str, int])  # backoffs on each deployment
    same: dict[tuple[str, Kind], int] = attrs.field(factory=dict[tuple[str, Kind], int])
    is_resent: bool = False  # after an answer that was made and charged
    is_fresh_used: bool = False
    is_final: bool = False  # the last failure goes to the caller
    last: Failure | None = None


class Plan:
    """The tries of one call: what it has used up, and where it may still go.

    Args:
        policy: The limits.
        budget: The Router's, made for the same policy.
        rng: For the backoff.
        effects: ``"possible"`` when a second execution may do harm: then nothing is repeated that the provider may
            have carried out.
    """

    __slots__ = ("_attempts", "_budget", "_cost", "_counts", "_effects", "_here", "_history", "_policy", "_rng")

    def __init__(
        self, policy: RetryPolicy, budget: RetryBudget, rng: random.Random, *, effects: Effects = "none"
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._rng = rng
        self._effects = effects
        self._attempts = 0  # counted ones, of all deployments
        self._here: dict[str, int] = {}  # counted ones on each deployment that was visited
        self._counts = (0, 0)  # what the attempt under way added to the two
        self._cost = 0.0  # and took from the budget
        self._history: _History | None = None

    @property
    def attempts(self) -> int:
        """Counted attempts so far, the one under way included."""
        return self._attempts

    def candidates(self, routes: Sequence[Route]) -> Sequence[Route]:
        """Those of ``routes`` that this call may still be sent on.

        Keys that a provider rejected are never asked again in a call; those that failed otherwise only when no
        untried one is left.
        """
        history = self._history
        if history is None:
            return routes
        left = _not_rejected(history, routes)
        return _not_failed(history, left) or left

    def may_enter(self, deployment: str) -> bool:
        """Whether ``enter`` would say yes now."""
        if self._attempts >= self._policy.max_attempts:
            return False
        if deployment not in self._here:
            return True
        return self._may_repeat(deployment)

    def enter(self, deployment: str) -> bool:
        """Ask for a counted attempt at ``deployment``: the call's first there, or one more after waiting.

        Call it before the first attempt, after ``Step.DEPLOYMENT`` and after a wait; the attempts that other steps
        lead to are granted by ``next``.

        Returns:
            Whether the attempt may be made. It is then taken as made, until ``next`` is told how it ended.
        """
        if not self.may_enter(deployment):
            return False
        if deployment in self._here:
            self._start(deployment, total=1, here=1)
        else:
            self._budget.put(deployment)
            self._attempts += 1
            self._here[deployment] = 1
            self._counts, self._cost = (1, 1), 0.0
        return True

    def hedge(self, deployment: str) -> bool:
        """Ask for a counted attempt at ``deployment`` beside the one that runs there.

        Returns:
            Whether it may be made. It is then counted and paid as a repeat there.
        """
        if self._effects != "none" or self._attempts >= self._policy.max_attempts or not self._may_repeat(deployment):
            return False
        self._start(deployment, total=1, here=1)
        return True

    def withdraw(self, deployment: str) -> None:
        """Take back the attempt at ``deployment`` that ``next`` granted last: it can not be made any more."""
        total, here = self._counts
        self._attempts -= total
        self._here[deployment] = self._here.get(deployment, 0) - here
        self._budget.put(deployment, self._cost)
        self._counts, self._cost = (0, 0), 0.0

    def note(self, failure: Failure) -> None:
        """Remember a failed attempt beside which another still ran; ``next`` is told of that one's failure."""
        self._remember(failure)

    def wait(self, opens_in: float | None, time_left: float = math.inf) -> float | None:
        """How long to wait when everything that the call may still use rests; ask only then.

        Args:
            opens_in: Seconds until the first route opens, of the deployments that the call ``may_enter``; None when
                none of them will.
            time_left: Seconds until the call's deadline.

        Returns:
            Seconds to wait, then look again; None: do not wait, fail now.
        """
        if self._history is not None and self._history.is_final:
            return None
        if opens_in is None or self._attempts >= self._policy.max_attempts:
            return None
        if self._policy.max_wait == 0 or opens_in > self._policy.max_wait:
            return None
        return opens_in if opens_in + MIN_ATTEMPT <= time_left else None

    def next(self, failure: Failure, *, usable: Sequence[Route], more: bool, time_left: float = math.inf) -> Move:
        """Where to go after an attempt failed. What it grants is counted and paid.

        Args:
            failure: How the attempt ended.
            usable: The routes of the same deployment that may be used now, the failed one included if it may.
            more: Whether another deployment of the chain that the call ``may_enter`` has a usable route.
            time_left: Seconds until the call's deadline. A pause for which it is too short is not made: the next
                step is looked at, and if that leads nowhere the call fails as ``deadline_limited``.
        """
        history = self._note(failure)
        steps = () if self._is_final(history, failure) else _steps(failure)
        history.is_final = not steps
        is_late = False
        for step in steps:
            offer = self._offer(step, history, failure, usable, more)
            if offer is None:
                continue
            if offer.delay + MIN_ATTEMPT > time_left:
                is_late = True
                continue
            self._take(step, history, failure, offer)
            return Move(step, offer.routes, offer.delay)
        return _LATE if is_late else _STOP

    def _offer(
        self, step: Step, history: _History, failure: Failure, usable: Sequence[Route], more: bool
    ) -> _Offer | None:
        if step is Step.DEPLOYMENT:
            return _Offer() if more and self._attempts < self._policy.max_attempts else None
        if step is Step.KEY:
            routes = _untried(history, usable)
            return _Offer(routes) if routes else None
        if step is Step.GROUP:
            return self._another_group(history, failure, usable)
        if step is Step.FRESH:
            return _again_fresh(history, failure, usable)
        return self._same_deployment(history, failure, usable)

    def _another_group(self, history: _History, failure: Failure, usable: Sequence[Route]) -> _Offer | None:
        routes = tuple(route for route in _untried(history, usable) if _quota_name(route) not in history.refused)
        if not routes:
            return None
        if failure.kind is Kind.PAYMENT:  # a key that can not be used, as after 401 and 403
            return _Offer(routes)
        deployment = failure.route.deployment
        if self._attempts >= self._policy.max_attempts or self._budget.left(deployment) < self._price(deployment):
            return None
        return _Offer(routes, total=1)

    def _same_deployment(self, history: _History, failure: Failure, usable: Sequence[Route]) -> _Offer | None:
        deployment = failure.route.deployment
        routes = tuple(self.candidates(usable))
        facts = FACTS[failure.kind]
        if not routes or history.same.get((deployment, failure.kind), 0) >= facts.repeats:
            return None
        if self._attempts >= self._policy.max_attempts or not self._may_repeat(deployment):
            return None
        base = self._policy.backoff
        is_throttled = facts.cooling is Cooling.THROTTLE or (failure.retry_after or 0.0) > 0.0
        if base and is_throttled:
            base = max(base, _AFTER_THROTTLING)
        longest = min(self._policy.backoff_max, base * 2.0 ** min(history.repeats.get(deployment, 0), 30))
        return _Offer(routes, self._rng.uniform(0.0, longest), total=1, here=1)

    def _take(self, step: Step, history: _History, failure: Failure, offer: _Offer) -> None:
        deployment = failure.route.deployment
        history.is_resent = history.is_resent or FACTS[failure.kind].resent_once
        if step is Step.DEPLOYMENT:
            return  # counted when it is entered
        if step is Step.FRESH:
            history.is_fresh_used = True
        elif step is Step.SAME:
            history.repeats[deployment] = history.repeats.get(deployment, 0) + 1
            history.same[deployment, failure.kind] = history.same.get((deployment, failure.kind), 0) + 1
        self._start(deployment, total=offer.total, here=offer.here)

    def _start(self, deployment: str, *, total: int, here: int) -> None:
        """Count an attempt at a deployment that was visited before, and pay for it if it counts."""
        self._cost = self._price(deployment) if total else 0.0
        if total:
            self._budget.take(deployment, self._cost)
        self._attempts += total
        self._here[deployment] = self._here.get(deployment, 0) + here
        self._counts = (total, here)

    def _note(self, failure: Failure) -> _History:
        history = self._remember(failure)
        if not failure.sent and failure.elapsed < _NO_TIME:  # it was no attempt
            self.withdraw(failure.route.deployment)
        self._counts, self._cost = (0, 0), 0.0
        history.last = failure
        return history

    def _remember(self, failure: Failure) -> _History:
        history = self._history
        if history is None:
            history = self._history = _History()
        route = failure.route
        history.failed.add(_route_name(route))
        if failure.kind is Kind.AUTH:
            history.rejected.add(_key_name(route))
        elif failure.kind is Kind.PERMISSION:
            history.rejected.add(_route_name(route))
        elif failure.kind is Kind.PAYMENT:
            history.rejected.add(_group_name(route))
        elif FACTS[failure.kind].scope is Scope.QUOTA_GROUP:
            history.refused.add(_quota_name(route))
        return history

    def _is_final(self, history: _History, failure: Failure) -> bool:
        facts = FACTS[failure.kind]
        if failure.delivered and not failure.resumable:
            return True
        if facts.resent_once and history.is_resent:
            return True
        return self._effects != "none" and failure.sent and facts.processed != "no"

    def _may_repeat(self, deployment: str) -> bool:
        if self._here.get(deployment, 0) >= self._policy.max_attempts_per_deployment:
            return False
        return self._budget.left(deployment) >= self._price(deployment)

    def _price(self, deployment: str) -> float:
        """Tokens for a counted repeat: 1, or 2 when it follows a timeout there."""
        last = self._history.last if self._history is not None else None
        return 2.0 if last is not None and last.route.deployment == deployment and last.kind in _TIMEOUTS else 1.0


def _steps(failure: Failure) -> tuple[Step, ...]:
    """Where to go; an answer that fell silent can be continued where one that was cut can."""
    stalled = failure.resumable and failure.kind is Kind.STREAM_STALLED
    return steps_of(Kind.STREAM_TRUNCATED if stalled else failure.kind, failure.limit)


def _again_fresh(history: _History, failure: Failure, usable: Sequence[Route]) -> _Offer | None:
    if history.is_fresh_used or not failure.reused or failure.received:
        return None
    routes = tuple(route for route in usable if _route_name(route) == _route_name(failure.route))
    return _Offer(routes) if routes else None


def _untried(history: _History, usable: Sequence[Route]) -> tuple[Route, ...]:
    return _not_rejected(history, _not_failed(history, usable))


# Of a thousand routes a few have failed: whatever could be one of them is looked at, the others cost one look each.


def _not_failed(history: _History, routes: Sequence[Route]) -> tuple[Route, ...]:
    failed = history.failed
    keys = {name[-1] for name in failed}
    return tuple([route for route in routes if route.key_id not in keys or _route_name(route) not in failed])


def _not_rejected(history: _History, routes: Sequence[Route]) -> tuple[Route, ...]:
    if not history.rejected:
        return tuple(routes)
    keys = {name[-1] for name in history.rejected}
    groups = {name[2] for name in history.rejected}  # and more, which does no harm
    return tuple(
        [
            route
            for route in routes
            if (route.key_id not in keys and route.quota_group not in groups) or not _is_rejected(history, route)
        ]
    )


def _is_rejected(history: _History, route: Route) -> bool:
    return not history.rejected.isdisjoint((_key_name(route), _route_name(route), _group_name(route)))


def _key_name(route: Route) -> Name:
    return "key", route.provider, route.key_id


def _route_name(route: Route) -> Name:
    return "route", route.provider, route.model, route.key_id


def _group_name(route: Route) -> Name:
    alone = route.key_id if route.quota_group is None else ""
    return "group", route.provider, route.quota_group or "", alone


def _quota_name(route: Route) -> Name:
    return (*_group_name(route), route.model)
