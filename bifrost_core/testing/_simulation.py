"""The simulation behind ``Simulated``: an engine that answers by each key's script instead of a network."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Final, NoReturn, cast
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel

from bifrost_core.bodies import Multipart
from bifrost_core.engines import Upload
from bifrost_core.engines.base import Exchange, HttpStream, TransportError
from bifrost_core.kinds import Kind
from bifrost_core.limiter import QueueFullError

from ._plans import Plan, Step, plan_fault, plan_whole, strikes_early
from .mistral._endpoints import find_endpoint
from .mistral._errors import MistralError
from .serving._endpoints import Asked
from .serving._errors import ApiError
from .serving._replies import Reply
from .serving._service import KeyState, Service
from .serving.journal import ServedRequest

__all__ = ["SimulatedEngine"]

_MAX_BODY: Final = 32 * 2**20  # bytes, as many as the server on loopback takes by default
_HAIR: Final = 1e-6  # seconds


class SimulatedEngine:
    """The simulation as an engine: what goes out as bytes comes back as bytes. See ``HttpEngine``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def open(self, exchange: Exchange) -> HttpStream:
        """Answer one request.

        Raises:
            TransportError: The key's fault says so, or the answer takes longer than ``exchange.read``.
        """
        if exchange.on_sent is not None:
            exchange.on_sent()
        served = _Served(self._service, exchange)
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

    def __init__(self, service: Service, exchange: Exchange) -> None:
        self.status = 0
        self.headers: Sequence[tuple[bytes, bytes]] = ()
        self._service = service
        self._exchange = exchange
        self._arrived = anyio.current_time()
        self._heard = 0.0  # when the last bytes came, in seconds after arrival
        self._plan = Plan()
        self._reply: Reply | None = None
        self._bills = True
        self._tokens: int | None = None
        self._next: Step | None = None
        self._has_slot = False
        self._waited = 0.0  # seconds until it had one
        path = urlsplit(exchange.url).path
        self._record = ServedRequest(
            key_id=None, number=0, method=exchange.method, path=path, at=service.clock() - service.started
        )
        credential = next((value for name, value in exchange.headers if name == b"authorization"), b"")
        self._state = _find(service, credential)
        if self._state is not None:
            self._record.key_id = self._state.id
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
        # A hair longer: a limit of the caller's own that is as long always comes first, so that runs repeat.
        latest = self._heard + patience + _HAIR
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
            streamed = self._tokens is not None and bool(reply.events)
            reply.bill(record, self._tokens or 0 if streamed else reply.generated(self._elapsed))
        record.ended_after = self._elapsed
        if self._has_slot and self._state is not None and self._state.upstream is not None:
            self._state.upstream.leave(record)
        self._service.end(record, self._state)

    # -- what is answered --------------------------------------------------------------------------------------

    async def _make_plan(self) -> Plan:
        """Decide how the request is answered.

        Raises:
            ApiError: It is refused.
        """
        service, state, record, exchange = self._service, self._state, self._record, self._exchange
        content_type = _header(exchange, b"content-type")
        content = await _read_body(exchange.body)
        if service.keep_bodies and "multipart/" not in content_type:
            record.body = content
        found = find_endpoint(exchange.method, record.path)
        if found is None:
            raise service.vendor.no_route(exchange.method, record.path, lambda: self._request_id)
        if state is None:
            raise service.vendor.wrong_key("")
        url = urlsplit(exchange.url)
        asked = Asked(
            service=service,
            state=state,
            record=record,
            rng=self._rng,
            endpoint=found[0],
            path_id=found[1],
            query=url.query,
            base_url=f"{url.scheme}://{url.netloc}",
            content_type=content_type,
            content=content,
        )
        asked.read()
        self._rng = asked.rng
        fault, factor = service.pick_fault(state, record.number, record.stream, draw=asked.draw)
        record.fault = fault.kind if fault is not None else "slow" if factor != 1.0 else None

        def make_reply() -> Reply:
            self._reply = reply = asked.answer()
            reply.slow_down(factor)
            if self._has_slot and state.upstream is not None:
                state.upstream.ends[record] = service.clock() + reply.due(reply.completion_tokens)
                reply.first_token += self._waited
            return reply

        if fault is None:
            await self._take_slot(state)
            return plan_whole(make_reply())
        if not strikes_early(fault):
            await self._take_slot(state)
        reply = None if strikes_early(fault) and not fault.bills else make_reply()
        self._bills = fault.bills is not False
        if fault.delay:
            await self._wait_until(fault.delay)
        if fault.kind == "hold":
            await self._hold(state)
        return plan_fault(service.vendor, fault, reply, self._rng, stream=record.stream, request_id=self._request_id)

    async def _take_slot(self, state: KeyState) -> None:
        """Wait until the key's upstream has room.

        Raises:
            TransportError: That takes longer than the client waits.
        """
        if state.upstream is None:
            return
        try:
            await state.upstream.places.acquire(self._exchange.read - self._elapsed)
        except QueueFullError:
            self._fail(Kind.READ_TIMEOUT, received=False)
        self._has_slot, self._waited = True, self._elapsed

    def _refusal(self, error: ApiError) -> Plan:
        headers = [("content-type", error.content_type)] if error.content_type else []
        headers += error.headers
        state = self._state
        if error.status == 429 and state is not None and state.key.retry_after is not None:
            headers.append(("retry-after", f"{state.key.retry_after:g}"))
        return Plan(status=error.status, headers=headers, steps=[(0.0, error.body, 0)] if error.body else [])


def _find(service: Service, credential: bytes) -> KeyState | None:
    try:
        return service.authenticate({"authorization": credential.decode()})
    except (ApiError, UnicodeDecodeError):
        return None


def _rng(service: Service, state: KeyState | None, number: int) -> random.Random:
    """The random numbers of one request: nothing else that happens changes them."""
    return random.Random(f"{service.seed}/{state.id}/{number}") if state is not None else service.stranger()


def _header(exchange: Exchange, wanted: bytes) -> str:
    """The value of one header, or nothing."""
    return next((value.decode("latin-1") for name, value in exchange.headers if name == wanted), "")


async def _read_body(body: object) -> bytes:
    """What a request carries: bytes, a form with files, or pieces that an iterator of either kind gives.

    Raises:
        ApiError: 413: it is larger than the service takes.
        TransportError: A file can not be read.
        TypeError: It is something else.
    """
    if isinstance(body, bytes):
        return _bounded(body)
    if isinstance(body, Multipart):
        _check_size(len(body))
        return await Upload(body).whole()
    whole = bytearray()
    if isinstance(body, AsyncIterable):
        async for piece in cast("AsyncIterable[bytes]", body):
            whole += _bounded(piece, len(whole))
    elif isinstance(body, Iterable):
        for piece in cast("Iterable[bytes]", body):
            whole += _bounded(piece, len(whole))
    else:
        msg = f"a body is bytes or gives pieces of bytes, not {type(body).__name__}"
        raise TypeError(msg)
    return bytes(whole)


def _bounded(piece: bytes, before: int = 0) -> bytes:
    _check_size(before + len(piece))
    return piece


def _check_size(size: int) -> None:
    if size > _MAX_BODY:
        raise MistralError.gateway(413, "request body too large", None)
