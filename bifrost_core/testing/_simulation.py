"""The simulation behind ``Simulated``: an engine that answers by each key's script instead of a network."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import msgspec

from bifrost_core.engines.base import Exchange, HttpStream, TransportError
from bifrost_core.kinds import Kind

from ._plans import Plan, Step, plan_fault, plan_whole, strikes_early
from .mistral import _validation as validation
from .mistral._answers import make_answer
from .mistral._bodies import Generation, chat_body, chat_events, embeddings_body, moderations_body
from .mistral._errors import ApiError
from .mistral._exchange import Reply
from .mistral._service import KeyState, Service
from .mistral.catalogue import SimulatedModel
from .mistral.journal import ServedRequest

__all__ = ["SimulatedEngine"]

_SSE: Final = "text/event-stream; charset=utf-8"
_DIMENSIONS: Final = 1024  # of a made-up embedding


class SimulatedEngine:
    """The simulation as an engine: what goes out as bytes comes back as bytes. See ``HttpEngine``."""

    def __init__(self, service: Service, models: frozenset[str] | None) -> None:
        self._service = service
        self._models = models

    async def open(self, exchange: Exchange) -> HttpStream:
        """Answer one request.

        Raises:
            TransportError: The key's fault says so, or the answer takes longer than ``exchange.read``.
        """
        if exchange.on_sent is not None:
            exchange.on_sent()
        served = _Served(self._service, self._models, exchange)
        try:
            return await served.head()
        except BaseException as exc:
            served.leave(by_client=not isinstance(exc, TransportError) or exc.kind is Kind.READ_TIMEOUT)
            raise

    async def aclose(self) -> None:
        """Nothing is open."""
        await anyio.lowlevel.checkpoint()


class _Served:
    """One request and its answer. See ``HttpStream``."""

    def __init__(self, service: Service, models: frozenset[str] | None, exchange: Exchange) -> None:
        self.status = 0
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self._service = service
        self._models = models
        self._exchange = exchange
        self._arrived = anyio.current_time()
        self._heard = 0.0  # when the last bytes came, in seconds after arrival
        self._plan = Plan()
        self._reply: Reply | None = None
        self._bills = True
        self._tokens: int | None = None
        self._next: Step | None = None
        path = urlsplit(exchange.url).path
        self._record = ServedRequest(
            key_id=None, number=0, method=exchange.method, path=path, at=service.clock() - service.started
        )
        credential = next((value for name, value in exchange.headers if name == b"authorization"), b"")
        self._state = _find(service, credential)
        if self._state is not None:
            self._record.key_id = self._state.id
        if service.keep_bodies:
            self._record.body = exchange.body
        service.begin(self._record, self._state)
        self._rng = _rng(service, self._state, self._record.number)
        self._request_id = f"{self._rng.getrandbits(128):032x}"

    @property
    def _elapsed(self) -> float:
        return anyio.current_time() - self._arrived

    async def head(self) -> _Served:
        """Wait for the head.

        Raises:
            TransportError: None comes.
        """
        try:
            self._plan = plan = await self._make_plan()
        except ApiError as error:
            self._plan = plan = self._refusal(error)
        await self._wait_until(plan.head_at)
        if plan.failure is not None:
            self._fail(plan.failure, received=plan.partly)
        self._heard = self._elapsed
        self._record.status = self.status = plan.status
        headers = [*plan.headers, ("mistral-correlation-id", self._request_id)]
        self.headers = [(name.lower().encode(), value.encode()) for name, value in headers]
        self._tokens = 0
        self._next = next(plan.steps, None)
        if self._next is None and plan.ending == "whole":
            self._settle()
        return self

    def __aiter__(self) -> _Served:
        return self

    async def __anext__(self) -> bytes:
        step = self._next
        if step is None or self._record.left_after is not None:
            if self._plan.ending == "whole" or self._record.left_after is not None:
                raise StopAsyncIteration
            if self._plan.ending == "hang":
                await self._wait_until(math.inf)
            self._settle()
            self._fail(Kind.BAD_RESPONSE, received=True)
        due, data, tokens = step
        await self._wait_until(due)
        self._heard = self._elapsed
        self._tokens = tokens
        self._next = next(self._plan.steps, None)
        if self._next is None and self._plan.ending == "whole":
            self._settle()  # before the last bytes go, so that whoever has them finds the journal complete
        return data

    async def aclose(self) -> None:
        """End the exchange."""
        self.leave(by_client=True)

    def leave(self, *, by_client: bool) -> None:
        """Close the record, if it is not closed; note a client that did not wait for the end."""
        if self._record.ended_after is None:
            self._record.left_after = self._elapsed if by_client else None
            self._settle()

    # -- time --------------------------------------------------------------------------------------------------

    async def _wait_until(self, seconds: float) -> None:
        """Wait until so many seconds after arrival.

        Raises:
            TransportError: No byte would come for longer than the client waits.
        """
        exchange = self._exchange
        patience = exchange.idle if self.status and exchange.idle is not None else exchange.read
        latest = self._heard + patience
        left = min(seconds, latest) - self._elapsed
        if math.isinf(left):
            await anyio.sleep_forever()
        elif left > 0:
            await anyio.sleep(left)
        else:
            await anyio.lowlevel.checkpoint()
        if seconds > latest:
            self._fail(Kind.READ_TIMEOUT, received=self._plan.partly)

    async def _hold(self, state: KeyState) -> None:
        """Wait until the key is healed."""
        with anyio.CancelScope() as scope:
            state.held.add(scope)
            try:
                await self._wait_until(math.inf)
            finally:
                state.held.discard(scope)

    def _fail(self, kind: Kind, *, received: bool) -> NoReturn:
        inside = bool(self.status)
        raise TransportError(
            kind,
            f"simulated: {kind}",
            phase="idle" if inside else "first_byte",
            sent=True,
            received=inside or received,
        )

    def _settle(self) -> None:
        """Close the record, once: what would be billed is the input and the output generated until now."""
        record, reply = self._record, self._reply
        if record.ended_after is not None:
            return
        if reply is not None and self._bills:
            record.prompt_tokens = reply.prompt_tokens
            streamed = self._tokens is not None and bool(reply.events)
            record.completion_tokens = self._tokens or 0 if streamed else reply.generated(self._elapsed)
        record.ended_after = self._elapsed
        self._service.end(record, self._state)

    # -- what is answered --------------------------------------------------------------------------------------

    async def _make_plan(self) -> Plan:
        """Decide how the request is answered.

        Raises:
            ApiError: It is refused.
        """
        service, state, record, exchange = self._service, self._state, self._record, self._exchange
        if state is None:
            raise ApiError.detail(401, "Invalid API Key")
        first_token = state.key.latency.draw(self._rng)
        body: dict[str, Any] = validation.parse_body(exchange.body) if exchange.method == "POST" else {}
        record.stream = body.get("stream") is True
        model = body.get("model")
        record.model = model if isinstance(model, str) else None
        fault, factor = service.pick_fault(state, record.number, record.stream)
        record.fault = fault.kind if fault is not None else "slow" if factor != 1.0 else None

        def make_reply() -> Reply:
            reply = self._answer(state, body, first_token)
            reply.first_token *= factor
            reply.tokens_per_second /= factor or 1.0
            self._reply = reply
            return reply

        if fault is None:
            return plan_whole(make_reply())
        reply = None if strikes_early(fault) and not fault.bills else make_reply()
        self._bills = fault.bills is not False
        if fault.delay:
            await self._wait_until(fault.delay)
        if fault.kind == "hold":
            await self._hold(state)
        return plan_fault(fault, reply, self._rng, stream=record.stream, request_id=self._request_id)

    def _answer(self, state: KeyState, body: dict[str, Any], first_token: float) -> Reply:
        """The reply to a request that nothing is wrong with.

        Raises:
            ApiError: Something is.
        """
        service, record = self._service, self._record
        if record.path == "/v1/models":
            listed = [model.entry(name) for name, model in service.models.items()]
            return Reply(headers=[], body=msgspec.json.encode({"object": "list", "data": listed}))
        check = _CHECKS.get(record.path)
        if check is None:
            raise ApiError.gateway(404, "no Route matched with those values", self._request_id)
        check(body)
        name: str = body["model"]
        if self._models is not None and name not in self._models:
            raise ApiError.object(400, "invalid_model", "1500", f"Invalid model: {name}")
        quota = service.admit(state, SimulatedModel(name))
        reply_id = f"{self._rng.getrandbits(128):032x}"
        reply = Reply(headers=[], first_token=first_token, tokens_per_second=state.key.latency.tokens_per_second)
        if record.path.endswith("completions"):
            answers = [
                make_answer(body, self._rng, state.key.output_tokens, service.answer) for _ in range(body.get("n") or 1)
            ]
            generation = Generation(
                id=reply_id,
                created=int(service.clock.time()),
                model=name,
                prompt_tokens=max(1, len(self._exchange.body) // 4),
                answers=tuple(answers),
            )
            reply.prompt_tokens = generation.prompt_tokens
            reply.completion_tokens = generation.completion_tokens
            if record.stream:
                reply.content_type = _SSE
                reply.events = chat_events(generation, self._rng)
            else:
                reply.body = chat_body(generation)
        else:
            texts: list[str] = [body["input"]] if isinstance(body["input"], str) else body["input"]
            reply.prompt_tokens = sum(1 + len(text.encode()) // 4 for text in texts)
            if record.path.endswith("embeddings"):
                size: int = body.get("output_dimension") or _DIMENSIONS
                reply.body = embeddings_body(reply_id, name, body, size, reply.prompt_tokens, service.seed)
            else:
                reply.body = moderations_body(reply_id, name, name, texts, reply.prompt_tokens)
        quota.charge(reply.prompt_tokens + reply.completion_tokens)
        if not record.stream:
            reply.headers = [*quota.headers()]
        return reply

    def _refusal(self, error: ApiError) -> Plan:
        headers = [("content-type", error.content_type)] if error.content_type else []
        headers += error.headers
        state = self._state
        if error.status == 429 and state is not None and state.key.retry_after is not None:
            headers.append(("retry-after", f"{state.key.retry_after:g}"))
        return Plan(status=error.status, headers=headers, steps=[(0.0, error.body, 0)] if error.body else [])


def _find(service: Service, credential: bytes) -> KeyState | None:
    try:
        return service.authenticate(credential.decode())
    except (ApiError, UnicodeDecodeError):
        return None


def _rng(service: Service, state: KeyState | None, number: int) -> random.Random:
    """The random numbers of one request: nothing else that happens changes them."""
    return random.Random(f"{service.seed}/{state.id}/{number}") if state is not None else service.stranger()


_CHECKS: Final[dict[str, Callable[[dict[str, Any]], None]]] = {
    "/v1/chat/completions": validation.check_chat,
    "/v1/fim/completions": validation.check_fim,
    "/v1/embeddings": validation.check_embeddings,
    "/v1/moderations": validation.check_moderations,
}
