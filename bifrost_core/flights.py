"""One attempt of a call, from its reservation to its settling.

What is taken together is given back together: the place on the route, the balancer's token and the
holds of the plugins, whatever came in between.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import anyio
import attrs

from .attempts import Attempt
from .calls import Call
from .catalog import Catalog
from .clocks import Clock
from .copies import changed
from .deployments import Deployment, Deployments
from .errors import (
    BudgetExceededError,
    CallError,
    ModelNotFoundError,
    ProviderError,
    ProviderRateLimitError,
    ProviderTimeoutError,
    RateLimitError,
    RefusedError,
    StreamBrokenError,
)
from .estimates import choices_of, input_bound, text_bytes
from .health import Health, Ticket
from .hedging import Contender
from .hooks import Hooks
from .kinds import Kind, Scope, outcome_of
from .prices import Price, PriceBook
from .responses import Response
from .retries import MIN_ATTEMPT, Failure, RetryBudget, RetryPolicy
from .sender import Sender, SendError, SendLimits
from .timeouts import Timeout
from .types import Operation, Request, Route, Usage
from .wire import HttpCall, HttpReply, request_id

__all__ = ["SETTLE_SECONDS", "Flight", "Flights", "Machinery"]

_LONGEST_SILENCE: Final = 3600.0  # where nobody sets a limit
_FREE: Final = Price(per_request=0)
SETTLE_SECONDS: Final = 2.0  # what settling may take beyond the deadline or after a cancellation


@attrs.define(eq=False)
class Machinery:
    """What the calls of one Router share.

    Attributes:
        timeout: The Router's own.
        now: The event loop's time, once it is known which.
        draining: Streams whose readers have left and that are read on for what was used.
    """

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
    timeout: Timeout
    now: Callable[[], float] = anyio.current_time
    draining: int = 0


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


class Flights:
    """What one call needs for each of its attempts; ``Routing`` says where they go.

    Args:
        machinery: Of the Router.
        call: Fresh; its request as the caller wrote it.
        timeout: Limits in force.
    """

    # A call in flight is what there are thousands of: without slots it would take half a kilobyte more, a stream two.
    __slots__ = (
        "_allowed",
        "_encoded",
        "_is_helper",
        "_last_error",
        "_own_deadline",
        "_phase",
        "_scope",
        "_started",
        "_stopped",
        "call",
        "first_token_at",
        "machinery",
        "timeout",
    )

    def __init__(self, machinery: Machinery, call: Call, timeout: Timeout) -> None:
        self.machinery = machinery
        self.call = call
        self.timeout = timeout
        self.first_token_at: float | None = None
        # No work but help for it: costs nothing, and says nothing about the health of routes.
        self._is_helper = call.operation is Operation.MODELS
        self._last_error: CallError | None = None
        # The call's own time only: a scope of the caller's that ends earlier ends the call as a scope does.
        total = timeout.total_for(stream=call.request.stream)
        now = machinery.now()
        self._own_deadline = math.inf if total is None else now + total
        self._scope = anyio.CancelScope(deadline=self._own_deadline)
        self._allowed = call.deadline - now
        self._stopped = False
        self._phase = "total"
        self._started = machinery.clock()
        self._encoded: dict[tuple[str, int | None], HttpCall] = {}

    def _encode(self, deployment: Deployment, limit: int | None) -> HttpCall:
        name = (deployment.name, limit)
        encoded = self._encoded.get(name)
        if encoded is None:
            encoded = self._encoded[name] = deployment.provider.encode(self._request_for(deployment), limit)
        return encoded

    def _request_for(self, deployment: Deployment) -> Request:
        """The request as the adapter gets it: the model by its name at the provider."""
        request = self.call.request
        return Request(request.operation, deployment.model, request.body, request.files, request.stream)

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
        except SendError as exc:
            error = exc.error
            attempt.sent = flight.sent = exc.sent
            flight.received, flight.reused = exc.received, exc.reused
            flight.insecure = exc.insecure
        except Exception as exc:  # settled first, then told or raised
            error = exc
        except BaseException:  # a cancellation, or the end of the process
            attempt.outcome, attempt.kind = self._interruption()
            raise
        finally:
            kind = self._settle(flight, response, error)
            if hooks.attempt_finished is not None:
                # Implementations that wait have a shielded scope of their own each; one around them would cost all others.
                await hooks.attempt_finished(attempt, call)
        if response is not None:
            headers = response.headers or flight.headers  # a stream's decoder sees bytes alone
            return self._stamped(response, route=route.ref, cost=attempt.cost, headers=headers)
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
        counted = None if partial is None or not partial.usage.input_tokens else partial.usage
        if counted is not None and partial is not None and partial.finish_reason is not None:
            return counted
        output = flight.deployment.output_tokens(flight.heard_bytes, flight.heard)
        if counted is not None:  # as the answer began: what came since is not in it
            return attrs.evolve(counted, output_tokens=max(counted.output_tokens, output))
        prompt = flight.deployment.prompt_tokens(flight.text_bytes)
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
        error.message = self._masked(error.message, flight)
        if isinstance(error, (ProviderError, ModelNotFoundError)) and error.excerpt is not None:
            error.excerpt = self._masked(error.excerpt, flight)
        error.args = (error.message,)

    def _masked(self, text: str, flight: Flight) -> str:
        text = flight.deployment.masks.mask(text)
        virtual_key = self.call.virtual_key
        return text if virtual_key is None else virtual_key.mask(text)

    def _is_committed(self) -> bool:
        """Whether the caller has been given content."""
        return False

    def _is_resumable(self, error: CallError, deployment: Deployment) -> bool:  # noqa: ARG002 # streams ask
        """Whether another attempt may go on where this one broke off."""
        return False

    def _suits(self, deployment: Deployment) -> bool:  # noqa: ARG002 # streams ask
        """Whether a deployment can do what is left to do."""
        return True

    def _time_left(self) -> float:
        deadline = self.call.deadline
        return math.inf if deadline == math.inf else deadline - self.machinery.now()

    def _stamped(self, response: Response, **known: Any) -> Response:
        """The answer with what only the Router knows."""
        call = self.call
        first = self.first_token_at
        return changed(
            response,
            **known,
            call_id=call.id,
            attempts=call.attempts,
            latency=self.machinery.clock() - self._started,
            time_to_first_token=None if first is None else first - self._started,
        )


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
