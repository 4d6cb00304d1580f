"""The health of all routes of a Router: who may be used, who comes back when, and what each attempt's end changes.

Lazy throughout: no tasks, no timers. What never failed has no state, and asking costs one look at an
empty dict. The router asks and tells, in this order::

    routes = health.usable(routes)          # drop what rests
    ticket = health.begin(route)            # takes the half-open place, where there is one
    kind = health.end(ticket, kind, status=503, retry_after=2.0)      # exactly once, also when cancelled
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

from bifrost_core.kinds import FACTS, Cooling, Kind, Scope, scope_of
from bifrost_core.types import Route, RouteRef

from .openings import Closing, Openings
from .records import RouteHealth, RouteState, Ticket
from .scopes import Reason, ScopeId, scope_id, scope_ids
from .states import LONGEST_WAIT, ScopeState, Traffic

__all__ = ["Health"]

_HOUR: Final = 3600.0
_REFUSED, _REFUSED_LONGEST = 1.0, 60.0  # seconds after a 429 without a time, doubling
_OVERLOADED, _OVERLOADED_LONGEST = 5.0, 300.0  # the same after a model was overloaded
_HOPELESS: Final = 5  # 429s in a row without any time: not a rate, a quota
_RATE_LIMITS: Final = frozenset({Kind.RATE_LIMITED, Kind.QUOTA_EXHAUSTED})


class Health:
    """Health states of all scopes, shared by all calls of one Router.

    A route is usable when its key, itself, its quota group, its deployment and its provider all are.

    Args:
        clock: Monotonic seconds.
        rng: For jitter.
        limit: How many states are kept at most; past it the one idle for longest goes, open ones last.
    """

    def __init__(self, clock: Callable[[], float], rng: random.Random, *, limit: int = 10_000) -> None:
        self._clock = clock
        self._rng = rng
        self._limit = limit
        self._states: dict[ScopeId, ScopeState] = {}  # in the order of their last failure
        self._open = Openings()  # those of them that are not closed
        self._traffic: dict[tuple[str, str], Traffic] = {}

    # asking

    def usable(self, routes: Sequence[Route], *, ignore_breakers: bool = False) -> Sequence[Route]:
        """The routes that an attempt may be sent on now, in their order; ``routes`` itself when all are.

        Args:
            routes: Any routes; those of one deployment stand together.
            ignore_breakers: See ``panic``.
        """
        if not self._open or not routes:
            return routes
        now = self._clock()
        if _deployment_of(routes[0]) == _deployment_of(routes[-1]):
            return self._open.awake(routes, now, ignore_breakers=ignore_breakers)
        awake: list[Route] = []
        for _, group in groupby(routes, _deployment_of):
            awake += self.usable(tuple(group), ignore_breakers=ignore_breakers)
        return routes if len(awake) == len(routes) else awake

    def opens_in(self, route: Route, *, ignore_breakers: bool = False) -> float:
        """Seconds until ``route`` is usable: 0 now; 1 while another attempt holds its half-open place."""
        if not self._open:
            return 0.0
        return self._rest(route, self._clock(), ignore_breakers)

    def earliest(self, routes: Iterable[Route], *, ignore_breakers: bool = False) -> float | None:
        """Seconds until the first of those ``routes`` that rest is usable again; None when none rests."""
        if not self._open:
            return None
        now = self._clock()
        rests = (
            closing.rest(route, now, ignore_breakers=ignore_breakers)
            for route, closing in self._with_closing(routes)
            if closing is not None
        )
        return min((rest for rest in rests if rest > 0.0), default=None)

    def reason(self, route: Route) -> Reason | None:
        """What keeps ``route`` closed the longest; None when nothing does."""
        worst = max(self._shut(route), key=lambda state: state.until, default=None)
        return None if worst is None else worst.reason

    def only_rate_limits(self, routes: Iterable[Route]) -> bool:
        """Whether every one of ``routes`` is closed, and by the provider's rate limits and quotas alone."""
        return self._all_closed_by(routes, _RATE_LIMITS)

    def only_rejected(self, routes: Iterable[Route]) -> bool:
        """Whether every one of ``routes`` is closed because the provider rejected its key."""
        return self._all_closed_by(routes, frozenset({Kind.AUTH}))

    def share(self, route: RouteRef) -> float:
        """Part of the calls that ``route``'s deployment gets now, 0.1 to 1.

        A deployment or provider that came back gets max(0.1, t / 15 s) of what it is due, t since it closed; the
        rest goes on to the next deployment of the chain, where there is one.
        """
        if not self._states:
            return 1.0
        now = self._clock()
        states = (self._states.get(scope_id(route, scope)) for scope in (Scope.DEPLOYMENT, Scope.PROVIDER))
        return min((state.share(now) for state in states if state is not None), default=1.0)

    def panic(self, chain: Iterable[Sequence[Route]]) -> bool:
        """Whether breakers are to be ignored: more than half of the deployments of a call are open by breaker.

        A breaker guards against one bad way among good ones. When most ways look bad, trying the least bad (see
        ``least_bad``) beats refusing; stated waits and rejected keys still count.

        Args:
            chain: The routes of each deployment that the call may use.

        Source:
            Envoy, panic threshold (50 %).
        """
        if not self._open:
            return False
        now = self._clock()
        deployments = [routes for routes in chain if routes]
        broken = sum(self._is_broken(routes, now) for routes in deployments)
        return broken * 2 > len(deployments)

    def least_bad(self, chain: Iterable[Sequence[Route]]) -> list[Sequence[Route]]:
        """The deployments of ``chain`` in the order to try them in a panic: lowest failure rate, then earliest end."""
        now = self._clock()

        def badness(routes: Sequence[Route]) -> tuple[float, float]:
            rests = (
                0.0 if closing is None else closing.rest(route, now) for route, closing in self._with_closing(routes)
            )
            return self.failure_rate(routes[0]) if routes else 1.0, min(rests, default=math.inf)

        return sorted(chain, key=badness)

    def failure_rate(self, route: RouteRef) -> float:
        """Part of the last ten seconds' attempts at the deployment that failed, 0 to 1.

        Without any attempt: the rate at which its breaker opened, while it is open.
        """
        now = self._clock()
        traffic = self._traffic.get((route.provider, route.model))
        attempts = 0 if traffic is None else traffic.attempts.count(now)
        if traffic is not None and attempts:
            return traffic.faults.count(now) / attempts
        return max((state.rate for state in self._open.wide(route)), default=0.0)

    def describe(
        self,
        route: Route,
        *,
        latency: float | None = None,
        time_to_first_token: float | None = None,
        in_flight: int = 0,
        share: float = 0.0,
    ) -> RouteHealth:
        """How ``route`` stands; the figures are the balancer's."""
        worst = max(self._open.of(route), key=lambda state: state.until, default=None)
        name: RouteState = "closed"
        if worst is not None:
            name = "half_open" if worst.is_half_open(self._clock()) else "open"
        return RouteHealth(
            route.ref,
            name,
            self.opens_in(route),
            None if worst is None else worst.reason,
            latency,
            time_to_first_token,
            in_flight,
            share,
        )

    # telling

    def begin(self, route: Route, *, helper: bool = False) -> Ticket:
        """Note that an attempt starts; it takes the half-open places that are free.

        Args:
            route: Where it is sent.
            helper: It is no work but help for it, such as a list of models: it takes no half-open place, and its end
                changes nothing, neither for the better nor for the worse.

        Returns:
            What ``end`` wants back, once.
        """
        now = self._clock()
        if helper or not self._open:
            return Ticket(route, now, is_helper=helper)
        places = tuple(state for state in self._open.of(route) if state.probe is None and state.rest(now) == 0.0)
        ticket = Ticket(route, now, places)
        for state in places:
            state.probe = ticket
        return ticket

    def end(
        self,
        ticket: Ticket,
        kind: Kind | None,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        insecure: bool = False,
        html: bool = False,
        every_model: bool = False,
    ) -> Kind | None:
        """Note how an attempt ended. A second time for the same ticket changes nothing.

        Args:
            ticket: From ``begin``.
            kind: The failure, None for a good answer. Of a stream's error event the kind of the code inside it.
                ``cancelled``, ``deadline_exceeded`` and refusals of our own only give the half-open place back.
            status: HTTP status of the answer.
            retry_after: Seconds that the provider asked to wait; 0, None and nonsense state no wait.
            insecure: The certificate is not trusted or names another host: the provider is off like a rejected key.
            html: The body was a web page.
            every_model: Of ``quota_exhausted``: it is the account's limit (spend, month), not the model's.

        Returns:
            The failure to act on: ``kind``, or ``quota_exhausted`` for a 429 that asks for more than an hour or is
            the fifth in a row without a time.
        """
        if ticket.is_ended:
            return ticket.kind
        held = ticket.leave()
        if ticket.is_helper:
            ticket.kind = kind
            return kind
        if kind is None or kind is Kind.BAD_USAGE:
            self._succeed(ticket, held)
        elif FACTS[kind].cooling is not Cooling.NOTHING:
            stated = retry_after if retry_after is not None and 0.0 < retry_after < math.inf else None
            kind = self._fail(ticket, held, kind, status, stated, insecure, html, every_model)
        ticket.kind = kind
        return kind

    # by hand

    def open(
        self,
        route: RouteRef,
        seconds: float = math.inf,
        *,
        scope: Scope = Scope.ROUTE,
        reason: Reason = "manual",
        every_model: bool = False,
    ) -> None:
        """Let nothing through for some time, or for longer where it already rests.

        Also for what headers say before a refusal does: no request left, so the quota group rests until the reset.

        Args:
            route: A route in the scope.
            seconds: How long; without it until ``close`` is called.
            scope: What to close: the route, its key, its quota group, its deployment or its provider.
            reason: What ``reason`` and ``describe`` say.
            every_model: Of a quota group: for all models.
        """
        state = self._state(scope_id(route, scope, every_model=every_model))
        state.shut(reason, self._clock(), seconds)
        self._sort(state)

    def close(self, route: Route, *, scope: Scope | None = None) -> None:
        """Let attempts through again and forget past openings.

        Args:
            route: A route in the scope.
            scope: What to close; None: everything that keeps ``route`` from being used.
        """
        now = self._clock()
        for name in scope_ids(route):
            state = self._states.get(name)
            if state is not None and (scope is None or name[0] == scope):
                state.close(now)
                state.times = 0
                self._sort(state)

    def forget_key(self, provider: str, key_id: str) -> None:
        """Drop what is known about a key: it was removed, or its credential changed."""
        for name in [name for name in self._states if name[1] == provider and _is_of_key(name, key_id)]:
            self._drop(name)

    # inside

    def _rest(self, route: Route, now: float, ignore_breakers: bool) -> float:
        longest = 0.0
        for state in self._open.of(route):
            longest = max(longest, state.rest(now, ignore_breakers=ignore_breakers))
        return longest

    def _shut(self, route: Route) -> list[ScopeState]:
        now = self._clock()
        return [state for state in self._open.of(route) if state.rest(now) > 0.0]

    def _all_closed_by(self, routes: Iterable[Route], reasons: frozenset[Kind]) -> bool:
        found, now = False, self._clock()
        for route, closing in self._with_closing(routes):
            found = True
            states = [] if closing is None else [state for state in closing.of(route) if state.rest(now) > 0.0]
            if not states or any(state.reason not in reasons for state in states):
                return False
        return found

    def _with_closing(self, routes: Iterable[Route]) -> Iterator[tuple[Route, Closing | None]]:
        """Each route with what is not closed of its deployment, which is looked up once for all of them."""
        for _, group in groupby(routes, _deployment_of):
            ways = tuple(group)
            closing = self._open.closing(ways[0])
            for route in ways:
                yield route, closing

    def _is_broken(self, routes: Sequence[Route], now: float) -> bool:
        return any(state.is_broken(now) for state in self._open.wide(routes[0]))

    def _count(self, route: Route, now: float) -> Traffic:
        name = (route.provider, route.model)
        traffic = self._traffic.get(name)
        if traffic is None:
            if len(self._traffic) >= self._limit:
                idle = (other for other, counted in self._traffic.items() if not counted.attempts.count(now))
                del self._traffic[next(idle, next(iter(self._traffic)))]
            traffic = self._traffic[name] = Traffic()
        traffic.attempts.add(now)
        return traffic

    def _succeed(self, ticket: Ticket, held: tuple[ScopeState, ...]) -> None:
        now = self._clock()
        self._count(ticket.route, now)
        if not self._states:
            return
        for name in scope_ids(ticket.route):
            state = self._states.get(name)
            if state is None:
                continue
            if state.succeed(now, ticket.started, probing=state in held):
                self._sort(state)
                self._clear_traffic(name)
            if state.is_blank(now):
                self._drop(name)

    def _clear_traffic(self, name: ScopeId) -> None:
        """Judge what came back by what it does from now on."""
        if name[0] not in (Scope.DEPLOYMENT, Scope.PROVIDER):
            return
        for (provider, model), traffic in self._traffic.items():
            if provider == name[1] and (len(name) == 2 or model == name[2]):
                traffic.attempts.clear()
                traffic.faults.clear()

    def _fail(
        self,
        ticket: Ticket,
        held: tuple[ScopeState, ...],
        kind: Kind,
        status: int | None,
        stated: float | None,
        insecure: bool,
        html: bool,
        every_model: bool,
    ) -> Kind:
        facts = FACTS[kind]
        now = self._clock()
        scope = scope_of(kind, status, html=html)
        assert scope is not None  # noqa: S101 # every kind that closes something says what; for the type checker
        if kind is Kind.RATE_LIMITED or kind is Kind.QUOTA_EXHAUSTED:
            return self._refused(ticket, kind, now, stated, every_model)
        state = self._state(scope_id(ticket.route, scope, every_model=kind is Kind.PAYMENT))
        if facts.cooling is Cooling.BREAKER:
            self._fault(state, ticket, kind, now, probing=state in held)
            if insecure:
                state.reject(kind, now, ticket.started, first=FACTS[Kind.AUTH].seconds)
            elif stated is not None and status in (503, 529):
                state.wait(kind, now, stated, self._rng)
        elif facts.cooling is Cooling.REJECTED:
            state.reject(kind, now, ticket.started, first=facts.seconds)
        elif facts.cooling is Cooling.FIXED:
            state.shut(kind, now, max(facts.seconds, min(stated or 0.0, LONGEST_WAIT)))
        elif stated is not None:
            state.wait(kind, now, stated, self._rng)
        else:
            state.shut(kind, now, state.refuse(ticket.started, first=_OVERLOADED, longest=_OVERLOADED_LONGEST))
        self._sort(state)
        return kind

    def _refused(self, ticket: Ticket, kind: Kind, now: float, stated: float | None, every_model: bool) -> Kind:
        state = self._state(scope_id(ticket.route, Scope.QUOTA_GROUP, every_model=every_model))
        if stated is not None:
            if stated > _HOUR:
                kind = Kind.QUOTA_EXHAUSTED
            state.wait(kind, now, stated, self._rng)
        else:
            seconds = state.refuse(ticket.started, first=_REFUSED, longest=_REFUSED_LONGEST)
            seconds = min(_REFUSED_LONGEST, seconds * self._rng.uniform(0.8, 1.2))
            if kind is Kind.QUOTA_EXHAUSTED or state.refusals >= _HOPELESS:
                kind, seconds = Kind.QUOTA_EXHAUSTED, FACTS[Kind.QUOTA_EXHAUSTED].seconds
            state.shut(kind, now, seconds)
        self._sort(state)
        return kind

    def _fault(self, state: ScopeState, ticket: Ticket, kind: Kind, now: float, *, probing: bool) -> None:
        traffic = self._count(ticket.route, now)
        traffic.faults.add(now)
        if ticket.started < state.opened_at:
            return  # the tail of an outage that is already counted
        attempts = traffic.attempts.count(now)
        if len(state.id) == 2:  # a provider's: over all its deployments
            attempts = sum(
                other.attempts.count(now) for (provider, _), other in self._traffic.items() if provider == state.id[1]
            )
        state.fail(kind, now, probing=probing, attempts=attempts, rng=self._rng)

    def _state(self, name: ScopeId) -> ScopeState:
        state = self._states.pop(name, None)
        if state is None:
            state = ScopeState(name)
            if len(self._states) >= self._limit:
                self._evict()
        self._states[name] = state  # last in the order: failed last
        return state

    def _evict(self) -> None:
        oldest = next(iter(self._states))
        if len(self._open) < len(self._states):
            oldest = next(name for name, state in self._states.items() if not state.is_open)
        self._drop(oldest)

    def _drop(self, name: ScopeId) -> None:
        state = self._states.pop(name)
        if state.is_open:
            self._open.drop(state)

    def _sort(self, state: ScopeState) -> None:
        """Keep ``_open`` right after a change."""
        if state.is_open:
            self._open.put(state)
        else:
            self._open.drop(state)


def _deployment_of(route: Route) -> tuple[str, str]:
    return route.provider, route.model


def _is_of_key(name: ScopeId, key_id: str) -> bool:
    if name[0] == Scope.QUOTA_GROUP:
        return name[3] == key_id
    return name[0] in (Scope.KEY, Scope.ROUTE) and name[-1] == key_id
