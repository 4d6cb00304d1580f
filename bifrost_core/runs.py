"""One call from its first hook to its last: admit, choose, attempt, fall back, settle.

A run lives in a task of its own inside the caller's task group, so that even a native cancellation of
the caller arrives as one that respects shields: connections are closed, holds settled and
``bifrost_call_finished`` called before the caller's task goes on its way. ``StreamRun`` differs in one
step only: what an attempt brings is handed out while it arrives.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import anyio
import attrs

from .attempts import Attempt
from .cache_options import CacheMode, cache_option
from .calls import Call, CallRecord
from .catalog import Catalog
from .clocks import Clock
from .deployments import Deployment, Deployments, PickRequest
from .errors import (
    BadRequestError,
    BudgetExceededError,
    CallError,
    DeadlineExceededError,
    ModelNotFoundError,
    NoKeyAvailableError,
    ProviderAuthError,
    ProviderError,
    ProviderRateLimitError,
    ProviderTimeoutError,
    RateLimitError,
    RefusedError,
    StreamBrokenError,
)
from .estimates import choices_of, input_bound, text_bytes
from .health import Health, Ticket
from .hedging import Contender, race
from .hooks import Hooks
from .kinds import Kind, Scope, Step, outcome_of
from .prices import Price, PriceBook
from .responses import Response, ResponsesResponse
from .responses_bodies import answer_to, shaped_body
from .retries import MIN_ATTEMPT, Failure, Move, Plan, RetryBudget, RetryPolicy
from .sender import Sender, SendError, SendLimits
from .timeouts import Timeout
from .types import Operation, Request, Route, RouteRef, Usage, message_dicts
from .wire import HttpCall, HttpReply, request_id

__all__ = ["Flight", "Machinery", "Run"]

_LONGEST_SILENCE: Final = 3600.0  # where nobody sets a limit
_FREE: Final = Price(per_request=0)
_SCOPE_GRACE: Final = 0.1  # for a cancellation that is due to arrive
SETTLE_SECONDS: Final = 2.0  # what settling may take beyond the deadline or after a cancellation


@attrs.frozen(eq=False)
class Machinery:
    """What the calls of one Router share."""

    hooks: Hooks
    sender: Sender
    health: Health
    deployments: Deployments
    catalog: Catalog
    retry: RetryPolicy
    budget: RetryBudget
    prices: PriceBook
    clock: Clock
    rng: random.Random
    fallbacks: Mapping[str, tuple[str, ...]]
    timeout: Timeout  # the Router's own


@attrs.define(eq=False)
class Flight:
    """An attempt under way: what it has taken and must give back, and what is seen of it.

    Attributes:
        started: Seconds on the Router's clock.
        sending: Whether the reservation is past.
        sent: Whether any byte may have reached the provider.
        received: Whether any byte of the answer has arrived.
        reused: Whether the connection had been used before.
        insecure: The provider's certificate is not trusted.
        html: The body is a web page.
        status: HTTP status of the answer.
        headers: Headers of the answer, names in lower case.
        first_token: Seconds from sending to the first content of a stream.
        reader_seconds: Time in which a stream waited for its reader, which is not the provider's.
        contender: Its place in a race with another attempt of the call; None when it runs alone.
        text_bytes: Bytes of the body that are text: what the prompt's tokens are estimated by.
        heard: Pieces of content that a stream has brought.
        heard_bytes: Bytes of them: what their tokens are estimated by, as far as nobody says better.
    """

    deployment: Deployment
    route: Route
    attempt: Attempt
    ticket: Ticket
    token: Any
    started: float
    sending: bool = False
    sent: bool = False
    received: bool = False
    reused: bool = False
    insecure: bool = False
    html: bool = False
    status: int | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    first_token: float | None = None
    reader_seconds: float = 0.0
    contender: Contender[Response | Failure] | None = None
    heard: int = 0
    heard_bytes: int = 0
    text_bytes: int = 0

    def note_sent(self) -> None:
        """The first byte is about to go out."""
        self.attempt.sent = True


class Run:
    """One plain call.

    Args:
        machinery: Of the Router.
        call: Fresh; its request as the caller wrote it.
        timeout: Limits in force.

    Attributes:
        asked: The request as the caller wrote it.
    """

    def __init__(self, machinery: Machinery, call: Call, timeout: Timeout) -> None:
        self.machinery = machinery
        self.call = call
        self.timeout = timeout
        self.failure: Exception | None = None
        self.response: Response | None = None
        self.finished = anyio.Event()
        self.first_token_at: float | None = None
        self.asked = call.request
        # No work but help for it: costs nothing, and says nothing about the health of routes.
        self._is_helper = call.operation is Operation.MODELS
        self._last_error: CallError | None = None
        self._rewritten: set[str] = set()  # what plugins changed, see ``CallRecord``
        # The call's own time only: a scope of the caller's that ends earlier ends the call as a scope does.
        total = timeout.total_for(stream=call.request.stream)
        self._own_deadline = math.inf if total is None else anyio.current_time() + total
        self._scope = anyio.CancelScope(deadline=self._own_deadline)
        self._allowed = call.deadline - anyio.current_time()
        self._stopped = False
        self._ways: list[tuple[Route, ...]] = []  # the routes of each deployment of the call's chain
        self._phase = "total"
        self._started = machinery.clock()
        self._started_at = machinery.clock.time()
        self._encoded: dict[tuple[str, int | None], HttpCall] = {}
        self._left_out: set[RouteRef] = set()  # by phase 5: no use to wait for them, or to count on them

    # -- life -----------------------------------------------------------------------------------

    async def main(self) -> None:
        """Run the call to its end; ``response`` or ``failure`` has the result. Raises cancellation only."""
        cancelled = False
        try:
            await self._run()
        except anyio.get_cancelled_exc_class():
            cancelled = True
            raise
        finally:
            if cancelled or self.failure is not None or self.machinery.hooks.call_finished is not None:
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + SETTLE_SECONDS):
                    await self._finish(cancelled=cancelled or self._stopped)
            self.finished.set()

    async def _run(self) -> None:
        try:
            with self._scope:
                self.response = self._echoed(await self._answer())
            if self.response is None:
                self.failure = self._cut_short()
        except Exception as exc:
            self.failure = exc
            now = anyio.current_time()
            if isinstance(exc, DeadlineExceededError) and self.call.deadline <= now < self._own_deadline:
                # The time of a scope of the caller's is up, not the call's: let that scope have its way.
                await anyio.sleep(_SCOPE_GRACE)

    def stop(self) -> None:
        """End the call now."""
        if not self.finished.is_set():
            self._stopped = True
            self._scope.cancel()

    def result(self) -> Response:
        """The answer; raises what the call failed with."""
        if self.failure is not None:
            raise self.failure
        assert self.response is not None  # noqa: S101 # main sets one of the two
        return self.response

    def _cut_short(self) -> CallError:
        """Why the scope was cancelled: stopped by the Router or the stream's reader, or out of time."""
        if self._stopped:
            return CallError("the call was ended before its answer was complete", kind=Kind.CANCELLED)
        return DeadlineExceededError(
            f"the call's time ran out ({self._phase}); give it a longer timeout or a faster model", phase=self._phase
        )

    # -- phases ---------------------------------------------------------------------------------

    async def _answer(self) -> Response:
        hooks, call = self.machinery.hooks, self.call
        if hooks.authenticate is None:
            call.request = self._shaped(call.request)
            call.fallbacks = call.fallbacks or self._standing_fallbacks()
        else:
            await self._authenticate()
        if hooks.authorize is not None:
            self._phase = "hook:bifrost_authorize"
            await hooks.authorize(call.request, call)
        if hooks.guard_request is not None:
            self._phase = "hook:bifrost_guard_request"
            await self._guard_request()
        if hooks.cached_response is not None:
            self._phase = "hook:bifrost_cached_response"
            cached = await hooks.cached_response(call.request, call)
            if cached is not None:
                cached = attrs.evolve(
                    cached,
                    cached=True,
                    cost=Decimal(0),
                    attempts=(),
                    latency=self.machinery.clock() - self._started,
                    time_to_first_token=None,
                    call_id=call.id,
                )
                return await self._guarded_cached(cached)
        if call.options and cache_option(call.options.get("cache")).mode is CacheMode.ONLY:
            # Here and not in a plugin, so that it holds without a cache and when the cache fails, too. 504 as in HTTP:
            # https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.7 (only-if-cached)
            raise RefusedError(
                'no cached answer, and cache="only" asks no provider; leave it out to ask one', http_status=504
            )
        return await self._guarded(await self._attempts())

    async def _authenticate(self) -> None:
        """Phase 1, in which a plugin may decide what a bare model name means that several providers serve."""
        hooks, call = self.machinery.hooks, self.call
        assert hooks.authenticate is not None  # noqa: S101 # asked before
        call.choices = () if self._is_helper else self.machinery.catalog.choices(call.request.model)
        call.request = self._shaped(call.request, named=not call.choices)
        self._phase = "hook:bifrost_authenticate"
        if not call.choices:
            call.fallbacks = call.fallbacks or self._standing_fallbacks()
            call.principal = await hooks.authenticate(call)
            return
        asked_for = call.fallbacks
        call.principal = await hooks.authenticate(call)
        call.request = self._shaped(call.request)
        if not asked_for:
            call.fallbacks = (*call.fallbacks, *self._standing_fallbacks())

    def _shaped(self, request: Request, *, named: bool = True) -> Request:
        """The request with its model's full name, where it is certain, and its messages or input items as a list of dicts."""
        name = "/".join(self._resolved(request.model)) if named else request.model
        body = request.body
        if "messages" in body:
            body = {**body, "messages": message_dicts(body["messages"])}
        if request.operation is Operation.RESPONSES:
            body = shaped_body(body)
        return attrs.evolve(request, model=name, body=body)

    def _resolved(self, name: str) -> tuple[str, str]:
        """The provider and the model that ``name`` means: to help none, as a model's balancer learns from work alone."""
        return self.machinery.catalog.resolve(name, of_no_model=self._is_helper)

    def _standing_fallbacks(self) -> tuple[str, ...]:
        return self.machinery.fallbacks.get(self.call.request.model, ())

    async def _guard_request(self) -> None:
        hooks, call = self.machinery.hooks, self.call
        assert hooks.guard_request is not None  # noqa: S101 # asked before
        before = call.request
        after = await hooks.guard_request(before, call)
        if after is before:
            return
        self._rewritten.add("request")
        call.request = self._shaped(after)
        if call.request.model != before.model and hooks.authorize is not None:
            await hooks.authorize(call.request, call)

    async def _guarded_cached(self, response: Response) -> Response:
        """Phase 9 of an answer from a cache."""
        return await self._guarded(response)

    async def _guarded(self, response: Response) -> Response:
        """Phase 9."""
        guard = self.machinery.hooks.guard_response
        if guard is None:
            return response
        self._phase = "hook:bifrost_guard_response"
        return self._seen(response, await guard(response, self.call))

    def _seen(self, before: Response, after: Response) -> Response:
        """The answer that plugins gave back; notes whether they changed it."""
        if after is not before:
            self._rewritten.add("response")
        return after

    # -- the chain of deployments ---------------------------------------------------------------

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
                if deployment is not chain[0] and not await self._admits(deployment):
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
        usable = health.usable(deployment.routes, ignore_breakers=panic)
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
            plan.may_enter(other.name) and health.usable(plan.candidates(other.routes), ignore_breakers=panic)
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
        left = await select(tuple(routes), self.call)
        known = {route.ref for route in routes}
        self._left_out |= known.difference(route.ref for route in left)
        known_left = [route for route in left if route.ref in known]
        return self.machinery.health.usable(known_left, ignore_breakers=panic)

    def _open_to_call(self, deployment: Deployment) -> Sequence[Route]:
        """The routes of a deployment but those that phase 5 has left out."""
        left_out = self._left_out
        return [route for route in deployment.routes if route.ref not in left_out] if left_out else deployment.routes

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
        return next(route for route in routes if route.key_id == key_id)

    def _tell_arrival(self, deployment: Deployment, routes: Sequence[Route]) -> str:
        call = self.call
        about = PickRequest(
            session=call.options.get("session") or call.request.body.get("prompt_cache_key"),
            input_tokens=self._encode(deployment, None).text_length // 4,
            attempt=len(call.attempts),
        )
        configured = deployment.keys
        if all(route.weight == configured[route.key_id].weight for route in routes if route.key_id in configured):
            return deployment.balancer.pick([route.key_id for route in routes], about)
        return deployment.balancer.pick({route.key_id: route.weight for route in routes}, about)

    # -- one attempt ----------------------------------------------------------------------------

    def _encode(self, deployment: Deployment, limit: int | None) -> HttpCall:
        name = (deployment.name, limit)
        encoded = self._encoded.get(name)
        if encoded is None:
            encoded = self._encoded[name] = deployment.provider.encode(self._request_for(deployment), limit)
        return encoded

    def _request_for(self, deployment: Deployment) -> Request:
        """The request as the adapter gets it: the model by its name at the provider."""
        return attrs.evolve(self.call.request, model=deployment.model)

    async def _attempt(
        self,
        deployment: Deployment,
        route: Route,
        *,
        fresh: bool,
        more: bool,
        contender: Contender[Response | Failure] | None = None,
    ) -> Response | Failure:
        """One attempt, from its reservation to its settling. A failure is told, with ``_last_error`` set."""
        machinery, call = self.machinery, self.call
        clock, hooks = machinery.clock, machinery.hooks
        attempt = Attempt(
            f"{call.id}-{len(call.attempts) + 1}",
            route.ref,
            _FREE if self._is_helper else machinery.prices.find(route.provider, route.model),
            started_at=clock.time(),
        )
        # Taken together, without an await in between; given back together in ``_settle``.
        call.attempts = (*call.attempts, attempt)
        ticket = machinery.health.begin(route, helper=self._is_helper)
        token = deployment.begin(route.key_id, stream=call.request.stream)
        flight = Flight(deployment, route, attempt, ticket, token, clock(), contender=contender)
        response: Response | None = None
        error: Exception | None = None
        try:
            encoded = self._encode(deployment, None)
            bound = attempt.input_upper = input_bound(call.request, encoded)
            flight.text_bytes = text_bytes(call.request, encoded) if bound is None else bound
            attempt.output_upper, attempt.choices = encoded.output_upper, choices_of(call.request)
            if hooks.reserve is not None:
                encoded = await self._reserve(deployment, attempt, encoded)
            flight.started = clock()
            flight.sending = flight.sent = True
            response = await self._exchange(flight, encoded, fresh=fresh, more=more)
        except anyio.get_cancelled_exc_class():
            attempt.outcome, attempt.kind = self._interruption()
            raise
        except SendError as exc:
            error = exc.error
            attempt.sent = flight.sent = exc.sent
            flight.received, flight.reused = exc.received, exc.reused
            flight.insecure = exc.insecure
        except Exception as exc:  # settled first, then told or raised
            error = exc
        finally:
            kind = self._settle(flight, response, error)
            if hooks.attempt_finished is not None:
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + SETTLE_SECONDS):
                    await hooks.attempt_finished(attempt, call)
        if response is not None:
            headers = response.headers or flight.headers  # a stream's decoder sees bytes alone
            return self._stamped(attrs.evolve(response, route=route.ref, cost=attempt.cost, headers=headers))
        if not isinstance(error, CallError) or kind is None:
            assert error is not None  # noqa: S101 # one of the two is always there
            raise error
        self._last_error = error
        return Failure(
            route,
            kind,
            status=attempt.status,
            retry_after=error.retry_after,
            sent=flight.sent,
            received=flight.received,
            reused=flight.reused,
            delivered=self._is_committed(),
            resumable=self._is_resumable(error, deployment),
            elapsed=attempt.latency or 0.0,
            limit=_limit_of(error),
        )

    async def _reserve(self, deployment: Deployment, attempt: Attempt, encoded: HttpCall) -> HttpCall:
        """Phase 7; the body again with a lower output limit, where a plugin asked for one."""
        reserve = self.machinery.hooks.reserve
        assert reserve is not None  # noqa: S101 # asked before
        self._phase = "hook:bifrost_reserve"
        limit: int | None = None
        attempt.open_reservation()
        try:
            await reserve(attempt, self.call)
        finally:
            limit = attempt.close_reservation()
        return encoded if limit is None else self._encode(deployment, limit)

    async def _exchange(self, flight: Flight, encoded: HttpCall, *, fresh: bool, more: bool) -> Response:
        """Send, wait for the whole answer, decode."""
        deployment = flight.deployment
        limit = self._attempt_seconds(more=more)
        silence = _LONGEST_SILENCE if limit is None else limit
        limits = SendLimits(connect=self.timeout.connect, first_byte=silence, idle=silence, pool=self.timeout.pool)
        self._phase = "first_byte"
        key = deployment.keys[flight.route.key_id]
        sending = self.machinery.sender.send(
            deployment.provider, key, encoded, limits=limits, fresh=fresh, on_sent=flight.note_sent
        )
        reply: HttpReply | None = None
        if limit is None or limit >= self._time_left():
            reply = await sending
        else:
            with anyio.move_on_after(limit):
                reply = await sending
            if reply is None:
                raise _too_slow(flight.route, limit)
        flight.status = reply.status
        flight.received = True
        flight.html = reply.body[:1] == b"<"
        self._note_quotas(flight, reply.headers)
        response = deployment.provider.decode(self._request_for(deployment), reply)
        if flight.contender is not None:
            await flight.contender.claim()
        return response

    def _attempt_seconds(self, *, more: bool) -> float | None:
        """How long a plain attempt may take: half of what remains while another deployment is left to try."""
        if self.timeout.attempt is not None:
            return self.timeout.attempt
        left = max(self._time_left(), MIN_ATTEMPT)  # what is less ends with the call, by its own scope
        return None if left == math.inf else left / 2 if more else left

    def _note_quotas(self, flight: Flight, headers: Mapping[str, str]) -> None:
        """Let what the provider says is left steer before a refusal has to."""
        flight.headers = headers
        for quota in flight.deployment.provider.quotas(headers):
            flight.deployment.balancer.quota(flight.token, quota.kind, quota.remaining, quota.limit, quota.reset)
            if quota.rest and flight.status == 200:  # a refusal says itself how its group rests
                self.machinery.health.open(flight.route, quota.rest, scope=Scope.QUOTA_GROUP, reason=Kind.RATE_LIMITED)

    def _interruption(self) -> tuple[str, Kind]:
        if self._scope.cancel_called and not self._stopped:
            return "failed", Kind.DEADLINE_EXCEEDED
        return "cancelled", Kind.CANCELLED

    def _settle(self, flight: Flight, response: Response | None, error: Exception | None) -> Kind | None:
        """Give back what the attempt took and note how it ended. Synchronous: nothing comes in between.

        Returns:
            The kind of failure to act on; None for an answer, and for errors of our own.
        """
        machinery, attempt, deployment = self.machinery, flight.attempt, flight.deployment
        attempt.latency = machinery.clock() - flight.started
        attempt.time_to_first_token = flight.first_token
        attempt.status = flight.status
        usage = None if response is None else response.usage
        kind: Kind | None = attempt.kind
        retry_after = None
        if response is not None:
            attempt.outcome, attempt.usage = "ok", usage
            attempt.cost = self._cost(attempt, response)
            if attempt.input_upper is not None:  # tokens of images would be taken for tokens of the text
                deployment.learn_prompt(attempt.input_upper, response.usage.input_tokens)
            if flight.heard:
                deployment.learn_output(flight.heard_bytes, response.usage.output_tokens)
        elif isinstance(error, CallError):
            self._complete(error, flight)
            kind, retry_after = error.kind, error.retry_after
            attempt.outcome = "refused" if isinstance(error, RefusedError) and not flight.sending else "failed"
            if isinstance(error, (ProviderError, ModelNotFoundError)):
                attempt.status = error.status if error.status is not None else flight.status
        elif error is not None:
            attempt.outcome = "failed"
        if response is None and (flight.heard or _broke_off(flight, error)):
            attempt.usage = spent = self._spent(flight, error)
            attempt.cost = None if attempt.price is None else attempt.price.cost(spent)
        if machinery.retry.hedge is not None:
            _note_times(flight, stream=self.call.request.stream)
        # What breaks a stream says by its code what is at fault; to the caller it is a broken stream.
        judged = (error.inner or kind) if isinstance(error, StreamBrokenError) else kind
        if kind in (Kind.READ_TIMEOUT, Kind.STREAM_STALLED) and self._is_hurried():
            judged = Kind.CANCELLED
        outcome = outcome_of(judged, attempt.status, retry_after)
        if error is not None and kind is None:
            outcome = "client"
        deployment.balancer.end(
            flight.token,
            outcome,
            max(0.0, attempt.latency - flight.reader_seconds),
            ttft=flight.first_token,
            output_tokens=usage.output_tokens if usage is not None and usage.output_tokens else None,
            retry_after=retry_after,
        )
        effective = machinery.health.end(
            flight.ticket,
            Kind.CANCELLED if error is not None and kind is None else judged,
            status=attempt.status,
            retry_after=retry_after,
            insecure=flight.insecure,
            html=flight.html,
            every_model=isinstance(error, ProviderRateLimitError) and error.every_model,
        )
        if judged is not kind:
            effective = kind
        attempt.error = error
        attempt.kind = effective
        if isinstance(error, CallError) and effective is not None:
            error.kind = effective
            return effective
        return kind

    def _is_hurried(self) -> bool:
        """Whether the caller gave less time than the Router does: too slow for that says nothing to others."""
        own, usual = self.timeout, self.machinery.timeout
        if self.call.request.stream:
            return own.first_token < usual.first_token or own.idle < usual.idle
        if own.attempt is not None:
            return usual.attempt is None or own.attempt < usual.attempt
        total = usual.total_for(stream=False)
        return self._allowed < (math.inf if total is None else total) - MIN_ATTEMPT

    def _spent(self, flight: Flight, error: Exception | None) -> Usage:
        """What an answer that came in part was counted as: the provider's last word, else an estimate."""
        partial = error.partial if isinstance(error, StreamBrokenError) else None
        if partial is not None and partial.usage.input_tokens:
            return partial.usage
        prompt = flight.deployment.prompt_tokens(flight.text_bytes)
        output = flight.deployment.output_tokens(flight.heard_bytes, flight.heard)
        return Usage(input_tokens=prompt, output_tokens=output, requests=1)

    def _cost(self, attempt: Attempt, response: Response) -> Decimal | None:
        """USD of an answer, at the price of the model that gave it where that is another one."""
        price = attempt.price
        if response.model and response.model != attempt.route.model:
            price = self.machinery.prices.find(attempt.route.provider, response.model) or price
        return None if price is None else price.cost(response.usage)

    def _complete(self, error: CallError, flight: Flight) -> None:
        """Fill in what only the Router knows, and take secrets out of what a provider said."""
        route = flight.route
        if isinstance(error, (ProviderError, ModelNotFoundError)):
            error.provider = error.provider or route.provider
            error.key_id = error.key_id or route.key_id
            error.request_id = error.request_id or request_id(flight.headers)
            error.status = flight.status if error.status is None else error.status
        secrets = [key.secret for key in flight.deployment.keys.values()]
        secrets.append(self.call.virtual_key)
        for secret in secrets:
            if secret is not None:
                error.message = secret.mask(error.message)
                if isinstance(error, (ProviderError, ModelNotFoundError)) and error.excerpt is not None:
                    error.excerpt = secret.mask(error.excerpt)
        error.args = (error.message,)

    def _is_committed(self) -> bool:
        """Whether the caller has been given content."""
        return False

    def _is_resumable(self, error: CallError, deployment: Deployment) -> bool:  # noqa: ARG002 # streams ask
        """Whether another attempt may go on where this one broke off."""
        return False

    def _suits(self, deployment: Deployment) -> bool:  # noqa: ARG002 # streams ask
        """Whether a deployment can do what is left to do."""
        return True

    # -- the end --------------------------------------------------------------------------------

    def _time_left(self) -> float:
        deadline = self.call.deadline
        return math.inf if deadline == math.inf else deadline - anyio.current_time()

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

    async def _finish(self, *, cancelled: bool) -> None:
        """Phases 10 and 11."""
        hooks, call = self.machinery.hooks, self.call
        error = self.failure
        if isinstance(error, CallError):
            self._stamp(error)
            if hooks.recover is not None and not cancelled and not self._is_committed():
                recovered = await hooks.recover(error, call)
                if recovered is not None:
                    self.failure = None
                    self._rewritten.add("recovered")
                    self.response = self._echoed(self._stamped(recovered))
                    await self._recovered(self.response)
        if hooks.call_finished is not None:
            await hooks.call_finished(self._record(cancelled=cancelled), call)

    async def _recovered(self, response: Response) -> None:
        """Hand out an answer that a plugin made of an error; a plain call returns it."""

    def _stamp(self, error: CallError) -> None:
        call = self.call
        error.call_id = error.call_id or call.id
        error.model = error.model or call.request.model
        error.attempts = call.attempts
        if error.retry_after is None and call.attempts:
            error.retry_after = self._opens_in()

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

    def _echoed(self, response: Response) -> Response:
        """The answer with what the Responses shape owes to the request: this caller's own, a cached answer too."""
        if not isinstance(response, ResponsesResponse):
            return response
        return answer_to(self.asked.body, response)

    def _stamped(self, response: Response) -> Response:
        """The answer with what only the Router knows."""
        call = self.call
        first = self.first_token_at
        return attrs.evolve(
            response,
            call_id=call.id,
            attempts=call.attempts,
            latency=self.machinery.clock() - self._started,
            time_to_first_token=None if first is None else first - self._started,
        )

    def _record(self, *, cancelled: bool) -> CallRecord:
        call, error, response = self.call, self.failure, self.response
        kind = error.kind if isinstance(error, CallError) else None
        if cancelled:
            outcome, kind = "cancelled", Kind.CANCELLED
        elif error is None:
            outcome = "ok"
        else:
            outcome = "refused" if isinstance(error, RefusedError) else "failed"
        usage, cost = _sum(call.attempts)
        first = self.first_token_at
        return CallRecord(
            call_id=call.id,
            operation=call.operation,
            model=call.request.model if "/" in call.request.model else self.asked.model,
            principal=call.principal,
            outcome=outcome,
            kind=kind,
            response=response,
            error=error,
            attempts=call.attempts,
            usage=usage,
            cost=cost,
            cached=response is not None and response.cached,
            started_at=self._started_at,
            latency=self.machinery.clock() - self._started,
            time_to_first_token=None if first is None else first - self._started,
            metadata=call.metadata,
            rewritten=frozenset(self._rewritten),
        )


def _sum(attempts: Sequence[Attempt]) -> tuple[Usage, Decimal | None]:
    """Usage and cost over all attempts; the cost of one unknown, the sum unknown."""
    usage, cost = Usage(), Decimal(0)
    known = True
    for attempt in attempts:
        if attempt.usage is None:
            continue
        usage = usage + attempt.usage if usage != Usage() else attempt.usage
        if attempt.cost is None:
            known = False
        else:
            cost += attempt.cost
    return usage, cost if known else None


def _broke_off(flight: Flight, error: Exception | None) -> bool:
    """Whether an answer that had begun well ended with an error that names another status."""
    begun = flight.status is not None and 200 <= flight.status < 300
    return begun and isinstance(error, ProviderError) and error.status not in (None, flight.status)


def _note_times(flight: Flight, *, stream: bool) -> None:
    """Remember how long an answer took, for when to hedge the next.

    Of an attempt that lost its race the time until then counts: without the slow ones the percentile would sink.
    """
    attempt, deployment = flight.attempt, flight.deployment
    has_lost = flight.contender is not None and flight.contender.has_lost
    if (attempt.outcome == "ok" or has_lost) and attempt.latency is not None:
        if stream:
            deployment.first_token_times.add(attempt.latency if flight.first_token is None else flight.first_token)
        else:
            deployment.answer_times.add(attempt.latency)


def _too_slow(route: Route, seconds: float) -> ProviderTimeoutError:
    return ProviderTimeoutError(
        f"{route.provider} did not answer within {seconds:g} s (attempt limit)",
        provider=route.provider,
        key_id=route.key_id,
        phase="first_byte",
    )


def _limit_of(error: CallError) -> Scope | None:
    """Whose a budget or limit is that refused: the route's, the deployment's, the provider's; None: the caller's."""
    if not isinstance(error, (RateLimitError, BudgetExceededError)):
        return None
    if error.scope == "queue":
        return Scope.ROUTE
    name = error.scope.partition(":")[0]
    return {"provider": Scope.PROVIDER, "model": Scope.DEPLOYMENT}.get(name)
