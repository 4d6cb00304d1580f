"""Where the attempts of a call go: the model, its fallbacks, and on each the route that plugins and balancer choose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import anyio
import attrs

from .calls import Call
from .contexts import context_length
from .deployments import Deployment, PickRequest
from .errors import (
    BadRequestError,
    CallError,
    DeadlineExceededError,
    NoKeyAvailableError,
    ProviderAuthError,
    ProviderError,
    RefusedError,
)
from .flights import Flights, Machinery
from .hedging import Contender, race
from .kinds import Kind, Step
from .responses import Response
from .retries import MIN_ATTEMPT, Failure, Move, Plan
from .timeouts import Timeout
from .types import Route, RouteRef

__all__ = ["Routing"]


class Routing(Flights):
    """Takes one call over its chain of deployments until one answers."""

    __slots__ = ("_left_out", "_outgrown", "_passed_over", "_ways")

    def __init__(self, machinery: Machinery, call: Call, timeout: Timeout) -> None:
        super().__init__(machinery, call, timeout)
        self._ways: list[tuple[Route, ...]] = []  # the routes of each deployment of the call's chain
        self._left_out: set[tuple[str, str, str]] = set()  # by phase 5: no use to wait for them, or to count on them
        self._passed_over: set[str] = set()  # fallbacks that phase 2 refused or that can not carry the request
        self._outgrown = 0  # tokens of the longest context, of those that are known, for which the prompt was too long

    async def _attempts(self) -> Response:
        """Phases 5 to 7 and the attempts, over the request's model and its fallbacks."""
        machinery, call = self.machinery, self.call
        plan = Plan(machinery.retry, machinery.budget, machinery.rng, effects=call.options.get("effects") or "none")
        chain = self._chain()
        while True:
            self._ways = routes = [deployment.routes for deployment in chain]
            panic = machinery.health.panic(routes)
            order = self._in_panic(chain, routes) if panic else self._in_slow_start(chain)
            for position, deployment in enumerate(order):
                if not self._has_room(deployment):
                    continue
                if deployment is not chain[0] and not (self._carries(deployment) and await self._admits(deployment)):
                    self._passed_over.add(deployment.name)
                    continue
                outcome = await self._on_deployment(deployment, order[position + 1 :], plan, panic=panic)
                if isinstance(outcome, Response):
                    return outcome
                if outcome is False:
                    break
            left = [
                route
                for deployment in chain
                if plan.may_enter(deployment.name)
                and deployment.name not in self._passed_over
                and self._has_room(deployment)
                for route in plan.candidates(self._open_to_call(deployment))
            ]
            # Worth waiting for only when every way that is left rests.
            opens_in = None if left and machinery.health.usable(left) else machinery.health.earliest(left)
            pause = plan.wait(opens_in, self._time_left())
            if pause is None:
                raise self._last_error or self._no_route(chain, opens_in)
            self._phase = "total"
            await anyio.sleep(pause)

    def _chain(self) -> list[Deployment]:
        machinery, call = self.machinery, self.call
        names = dict.fromkeys([call.request.model, *call.fallbacks])
        chain: list[Deployment] = []
        for name in names:
            provider, model = self._resolved(name)
            deployment = machinery.deployments.find(provider, model)
            if deployment not in chain:
                chain.append(deployment)
        return chain

    def _in_panic(self, chain: list[Deployment], routes: list[tuple[Route, ...]]) -> list[Deployment]:
        by_routes = {id(ways): deployment for ways, deployment in zip(routes, chain, strict=True)}
        return [by_routes[id(ways)] for ways in self.machinery.health.least_bad(routes)]

    def _in_slow_start(self, chain: list[Deployment]) -> list[Deployment]:
        """The chain, with deployments that have just come back behind the next for part of the calls."""
        if len(chain) == 1:
            return chain
        health, rng = self.machinery.health, self.machinery.rng
        order: list[Deployment] = []
        later: list[Deployment] = []
        for deployment in chain:
            share = health.share(deployment.routes[0]) if deployment.routes else 1.0
            (later if share < 1.0 and rng.random() >= share else order).append(deployment)
        return order + later

    def _has_room(self, deployment: Deployment) -> bool:
        """Whether a prompt that was too long for others may fit: not where the context is known to be no longer."""
        if not self._outgrown:
            return True
        length = context_length(deployment.provider.name, deployment.model)
        return length is None or length > self._outgrown

    def _carries(self, deployment: Deployment) -> bool:
        """Whether a fallback's provider can be asked the same: what its shape has no place for is not dropped."""
        if self.call.operation not in deployment.provider.operations:
            return True  # told as such when its turn comes
        try:
            self._encode(deployment, None)
        except BadRequestError:
            return False
        return True

    async def _admits(self, deployment: Deployment) -> bool:
        """Whether the principal may use a fallback: it passes phase 2 again with its own model."""
        hooks, call = self.machinery.hooks, self.call
        if hooks.authorize is None:
            return True
        self._phase = "hook:bifrost_authorize"
        try:
            await hooks.authorize(attrs.evolve(call.request, model=deployment.name), call)
        except RefusedError:
            return False
        return True

    async def _on_deployment(
        self, deployment: Deployment, later: Sequence[Deployment], plan: Plan, *, panic: bool
    ) -> Response | bool:
        """Try one deployment; the answer, True to go on to the next, False when nothing further is to be tried."""
        health = self.machinery.health
        awake = plan.candidates(health.usable(deployment.routes, ignore_breakers=panic))
        if deployment.routes and deployment.provider.operations.isdisjoint((self.call.operation,)):
            self._last_error = self._unsupported(deployment)
            return True
        if not self._suits(deployment):
            return True
        candidates = await self._selected(awake, panic=panic) if awake else awake
        if not candidates or not plan.enter(deployment.name):
            return True
        fresh = False
        while True:
            if self._time_left() < MIN_ATTEMPT and self.call.attempts:
                raise self._last_error or self._cut_short()
            more = self._any_usable(later, plan, panic=panic)
            if self.machinery.retry.hedge is None or fresh:
                outcome = await self._attempt(deployment, self._picked(deployment, candidates), fresh=fresh, more=more)
            else:
                outcome = await self._hedged(deployment, candidates, plan, panic=panic, more=more)
            if isinstance(outcome, Response):
                return outcome
            panic = panic or health.panic(self._ways)  # this failure may have been the one that shut the last way
            move = await self._next(outcome, deployment, later, plan, panic=panic)
            if move.step is None:
                if move.deadline_limited and isinstance(self._last_error, ProviderError):
                    self._last_error.deadline_limited = True
                return False
            if move.step is Step.DEPLOYMENT:
                return True
            fresh, candidates = move.step is Step.FRESH, move.routes

    async def _next(
        self, failure: Failure, deployment: Deployment, later: Sequence[Deployment], plan: Plan, *, panic: bool
    ) -> Move:
        """Where to go after a failed attempt: the plan's next step for which a route is left when it is due.

        Plugins may drop the routes of a step, and what others see fail meanwhile may shut them: then it is taken back.
        """
        health = self.machinery.health
        if failure.kind is Kind.CONTEXT_TOO_LONG:
            self._outgrown = max(self._outgrown, context_length(deployment.provider.name, deployment.model) or 0)
        usable = health.usable(deployment.routes, ignore_breakers=panic)
        later = [other for other in later if other.name not in self._passed_over and self._carries(other)]
        while True:
            more = self._any_usable(later, plan, panic=panic)
            move = plan.next(failure, usable=usable, more=more, time_left=self._time_left())
            if move.step is None or move.step is Step.DEPLOYMENT:
                return move
            routes = await self._selected(move.routes, panic=panic)
            if routes and move.delay:
                self._phase = "total"
                await anyio.sleep(move.delay)
                panic = panic or health.panic(self._ways)
                awake = plan.candidates(health.usable(deployment.routes, ignore_breakers=panic))
                routes = await self._selected(awake, panic=panic) if awake else awake
            if routes:
                return attrs.evolve(move, routes=tuple(routes))
            plan.withdraw(deployment.name)
            dropped = {route.ref for route in move.routes}
            usable = [route for route in usable if route.ref not in dropped]

    async def _hedged(
        self, deployment: Deployment, candidates: Sequence[Route], plan: Plan, *, panic: bool, more: bool
    ) -> Response | Failure:
        """An attempt, and a second one beside it on another route when the first is slow to answer."""
        hedge, times = self.machinery.retry.hedge, deployment.answer_times
        assert hedge is not None  # noqa: S101 # asked before
        if self.call.request.stream:
            times = deployment.first_token_times
        first = self._picked(deployment, candidates)
        after = hedge.seconds(times)
        if after is None or after + MIN_ATTEMPT > self._time_left():
            return await self._attempt(deployment, first, fresh=False, more=more)

        def attempt(route: Route) -> Callable[[Contender[Response | Failure]], Awaitable[Response | Failure]]:
            return lambda place: self._attempt(deployment, route, fresh=False, more=more, contender=place)

        async def challenge() -> Callable[[Contender[Response | Failure]], Awaitable[Response | Failure]] | None:
            awake = self.machinery.health.usable(deployment.routes, ignore_breakers=panic)
            others: Sequence[Route] = [route for route in plan.candidates(awake) if route.key_id != first.key_id]
            try:
                others = await self._selected(others, panic=panic) if others else others
            except CallError:  # a plugin that closes leaves no second route; the first attempt goes on
                return None
            if not others or self._time_left() < MIN_ATTEMPT or not plan.hedge(deployment.name):
                return None
            return attempt(self._picked(deployment, others))

        *lost, outcome = await race(attempt(first), challenge, after)
        for failure in lost:
            if isinstance(failure, Failure):
                plan.note(failure)
        return outcome

    def _any_usable(self, deployments: Sequence[Deployment], plan: Plan, *, panic: bool) -> bool:
        health = self.machinery.health
        return any(
            plan.may_enter(other.name)
            and self._has_room(other)
            and health.usable(plan.candidates(other.routes), ignore_breakers=panic)
            for other in deployments
        )

    async def _selected(self, routes: Sequence[Route], *, panic: bool) -> Sequence[Route]:
        """Phase 5: what plugins leave of the candidates; nothing that was no candidate comes in.

        Plugins may take their time, so that what they leave has to be usable still.
        """
        select = self.machinery.hooks.select_routes
        if select is None:
            return routes
        self._phase = "hook:bifrost_select_routes"
        given = tuple(routes)
        left = await select(given, self.call)
        if left is given:  # as they were: most plugins look at them and say nothing
            return self.machinery.health.usable(given, ignore_breakers=panic)
        known = set(map(_name, routes))
        self._left_out |= known.difference(map(_name, left))
        known_left = [route for route in left if _name(route) in known]
        return self.machinery.health.usable(known_left, ignore_breakers=panic)

    def _open_to_call(self, deployment: Deployment) -> Sequence[Route]:
        """The routes of a deployment but those that phase 5 has left out."""
        left_out = self._left_out
        return [route for route in deployment.routes if _name(route) not in left_out] if left_out else deployment.routes

    def _picked(self, deployment: Deployment, routes: Sequence[Route]) -> Route:
        """Phase 6: a plugin's choice, else the balancer's."""
        pick = self.machinery.hooks.pick_route
        if pick is not None:
            chosen = pick(tuple(routes), self.call)
            if chosen is not None:
                return chosen
        if len(routes) == 1 and len(deployment.routes) == 1:
            self._tell_arrival(deployment, routes)
            return routes[0]
        key_id = self._tell_arrival(deployment, routes)
        is_own = routes is deployment.routes or self.machinery.hooks.select_routes is None
        if is_own and key_id in deployment.by_key:
            return deployment.by_key[key_id]  # no plugin has put another in its place
        return next(route for route in routes if route.key_id == key_id)

    def _tell_arrival(self, deployment: Deployment, routes: Sequence[Route]) -> str:
        call = self.call
        about = PickRequest(
            session=call.options.get("session") or call.request.body.get("prompt_cache_key"),
            input_tokens=self._encode(deployment, None).text_length // 4,
            attempt=len(call.attempts),
        )
        if routes is deployment.routes:
            return deployment.balancer.pick(deployment.key_ids, about)
        configured = deployment.keys
        if self.machinery.hooks.select_routes is None or all(
            route.weight == configured[route.key_id].weight for route in routes if route.key_id in configured
        ):
            return deployment.balancer.pick([route.key_id for route in routes], about)
        return deployment.balancer.pick({route.key_id: route.weight for route in routes}, about)

    def _unsupported(self, deployment: Deployment) -> CallError:
        can = ", ".join(sorted(deployment.provider.operations))
        return BadRequestError(
            f"provider {deployment.provider.name!r} does not do {self.call.operation}; it does {can}",
            provider=deployment.provider.name,
        )

    def _no_route(self, chain: Sequence[Deployment], opens_in: float | None) -> CallError:
        """Why no attempt was possible at all."""
        health = self.machinery.health
        routes = [route for deployment in chain for route in self._open_to_call(deployment)]
        when = "" if opens_in is None else f"; the first opens in {opens_in:.1f} s"
        if routes and health.only_rejected(routes):
            return ProviderAuthError(
                f"every key for {chain[0].name} is rejected by the provider; replace them",
                kind=Kind.NO_CREDENTIALS,
                provider=chain[0].provider.name,
                retry_after=opens_in,
            )
        limited = bool(routes) and health.only_rate_limits(routes)
        what = "has no key" if not routes else "rests on every key"
        if not routes and self._left_out:
            what = "has no key that the plugins leave to this call (bifrost_select_routes)"
        return NoKeyAvailableError(
            f"{chain[0].name} {what}{when}",
            retry_after=opens_in,
            http_status=429 if limited else 503,
        )

    def _opens_in(self) -> float | None:
        """Seconds until the first of the call's routes opens, where all of them rest."""
        try:
            chain = self._chain()
        except CallError:
            return None
        routes = [route for deployment in chain for route in self._open_to_call(deployment)]
        if not routes or self.machinery.health.usable(routes):
            return None
        return self.machinery.health.earliest(routes)

    def _resolved(self, name: str) -> tuple[str, str]:
        """The provider and the model that ``name`` means: to help none, as a model's balancer learns from work alone."""
        return self.machinery.catalog.resolve(name, of_no_model=self._is_helper)

    def _cut_short(self) -> CallError:
        """Why the scope was cancelled: stopped by the Router or the stream's reader, or out of time."""
        if self._stopped:
            return CallError("the call was ended before its answer was complete", kind=Kind.CANCELLED)
        return DeadlineExceededError(
            f"the call's time ran out ({self._phase}); give it a longer timeout or a faster model", phase=self._phase
        )


def _name(route: RouteRef) -> tuple[str, str, str]:
    """What makes a route the same though a plugin has changed its weight; ``route.ref`` takes thrice as long."""
    return route.provider, route.model, route.key_id
