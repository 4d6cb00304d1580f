"""One request and its reply."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.lowlevel

from ._endpoints import Asked, Find
from ._errors import ApiError
from ._http import ClientLeftError, Connection, HttpRequest, response_head
from ._replies import Event, Reply
from ._service import KeyState, Service
from .journal import ServedRequest
from .laws import Fault

__all__ = ["END", "Exchange", "chunk"]

END = b"0\r\n\r\n"  # of a chunked body
_SHORT = 0.001  # waits below this are left out; the next one makes up for them
_BURST = 16  # events without a wait before others get their turn


def chunk(data: bytes) -> bytes:
    """Data framed for chunked transfer encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Play(Protocol):
    """How faults are played."""

    async def __call__(self, exchange: Exchange, fault: Fault, make_reply: Callable[[], Reply]) -> bool:
        """Play one fault; says whether the connection can go on."""
        ...


class Exchange:
    """Serves one request.

    Args:
        service: What it is served from.
        conn: Where it came from.
        request: The request.
        find: What answers which path.
        play: How faults are played.
    """

    rng: random.Random  # set before anything is answered

    def __init__(self, service: Service, conn: Connection, request: HttpRequest, find: Find, play: Play) -> None:
        self.service = service
        self.conn = conn
        self.request = request
        self.record = ServedRequest(
            key_id=None, number=0, method=request.method, path=request.path, at=service.clock() - service.started
        )
        self.arrived = time.monotonic()
        self.request_id = ""
        self.reply: Reply | None = None
        self.bills = True
        self._sent: int | None = None
        self._find = find
        self._play = play
        self._state: KeyState | None = None

    @property
    def elapsed(self) -> float:
        """Real seconds since the request had arrived."""
        return time.monotonic() - self.arrived

    async def run(self) -> bool:
        """Serve the request.

        Returns:
            Whether the connection can carry another one.
        """
        unauthorized: ApiError | None = None
        try:
            self._state = self.service.authenticate(self.request.headers)
        except ApiError as exc:
            unauthorized = exc
        state, record = self._state, self.record
        if state is not None:
            record.key_id = state.id
        if self.service.keep_bodies and "multipart/" not in self.request.headers.get("content-type", ""):
            record.body = self.request.body
        self.service.begin(record, state)
        try:
            return await self._respond(unauthorized)
        except ApiError as error:
            await self.send_error(error)
            return self.request.keep_alive
        except ClientLeftError:
            self._left()
            return False
        finally:
            self._settle()

    async def _respond(self, unauthorized: ApiError | None) -> bool:
        """Find the reply and send it.

        Raises:
            ApiError: The request is refused.
            ClientLeftError: The client left.
        """
        state, request, record = self._state, self.request, self.record
        self.rng = (
            random.Random(f"{self.service.seed}/{state.id}/{record.number}") if state else self.service.stranger()
        )
        vendor = self.service.vendor
        self.request_id = vendor.request_id(self.service.clock.time(), self.rng)
        found = self._find(request.method, request.path)
        if found is None:
            raise vendor.no_route(request.method, request.path, lambda: f"{self.rng.getrandbits(128):032x}")
        if unauthorized is not None or state is None:
            raise unauthorized or vendor.wrong_key("")
        refusal = vendor.refuse_headers(request.headers)
        if refusal is not None:
            raise refusal
        asked = Asked(
            service=self.service,
            state=state,
            record=record,
            rng=self.rng,
            endpoint=found[0],
            path_id=found[1],
            query=request.query,
            base_url=f"http://{request.headers.get('host', 'localhost')}",
            content_type=request.headers.get("content-type", ""),
            content=request.body,
            headers=request.headers,
        )
        asked.read()
        fault, factor = self.service.pick_fault(state, record.number, record.stream)

        def make_reply() -> Reply:
            self.reply = reply = asked.answer()
            reply.slow_down(factor)
            return reply

        if fault is None:
            if factor != 1.0:
                record.fault = "slow"
            await self.send(make_reply())
            return request.keep_alive
        record.fault = fault.kind
        return await self._play(self, fault, make_reply) and request.keep_alive

    # -- sending -------------------------------------------------------------------------------------------------

    def head(self, status: int, content_type: str | None, headers: list[tuple[str, str]]) -> bytes:
        """A response head with the usual headers, and the record's note of it."""
        self.record.status = status
        return response_head(
            status,
            [
                ("date", self.service.date()),
                *([("content-type", content_type)] if content_type else ()),
                *self.service.vendor.headers(self.request_id, int(self.elapsed * 1000)),
                *headers,
                ("connection", "keep-alive" if self.request.keep_alive else "close"),
            ],
        )

    async def send(self, reply: Reply) -> None:
        """Send a reply as the vendor would.

        Raises:
            ClientLeftError: The client left.
        """
        if reply.events:
            await self.send_events(reply, reply.events, end=END)
        else:
            await self.send_plain(reply, ("content-length", str(len(reply.body))), reply.body, last=True)

    async def send_plain(self, reply: Reply, framing: tuple[str, str], body: bytes, *, last: bool) -> None:
        """Wait for the last token, then send the head of a plain reply and these bytes.

        Args:
            reply: Whose headers are sent.
            framing: The header that states the length.
            body: What follows at once.
            last: Whether nothing follows after that.

        Raises:
            ClientLeftError: The client left.
        """
        await self.wait_until(reply.due(reply.completion_tokens))
        self._sent = reply.completion_tokens
        data = self.head(200, reply.content_type, [*reply.headers, framing]) + body
        await (self.finish(data) if last else self.conn.send(data))

    async def send_events(
        self,
        reply: Reply,
        events: list[Event],
        *,
        frame: Callable[[bytes], list[bytes]] | None = None,
        end: bytes = b"",
    ) -> None:
        """Send the head and some events of a stream, each at its time and with a write of its own.

        Args:
            reply: Whose events they are.
            events: What to send.
            frame: Turns an event's bytes into the writes to make, chunk framing included.
            end: Goes out with the last event and ends the exchange; without it the end of the chunked
                body is left to the caller.

        Raises:
            ClientLeftError: The client left.
        """
        await self.wait_until(reply.first_token)
        self._sent = 0
        data = self.head(200, reply.content_type, [*reply.headers, ("transfer-encoding", "chunked")])
        for number, event in enumerate(events, 1):
            if number > 1:
                await self.conn.send(data)
                data = b""
            if not await self.wait_until(reply.due(event.tokens)) and number % _BURST == 0:
                await anyio.lowlevel.checkpoint()
            self._sent = event.tokens
            if frame is None:
                data += chunk(event.data)
                continue
            for piece in frame(event.data):
                if data:
                    await self.conn.send(data)
                data = piece
        await (self.finish(data + end) if end else self.conn.send(data))

    async def finish(self, data: bytes) -> None:
        """Close the record and make the last write.

        Raises:
            ClientLeftError: The client left.
        """
        self._settle()
        await self.conn.send(data)

    async def wait_until(self, seconds: float) -> bool:
        """Wait until so many seconds after the request's arrival.

        Returns:
            Whether there was anything to wait for.

        Raises:
            ClientLeftError: The client left.
        """
        if seconds <= 0 or (left := seconds - self.elapsed) < _SHORT:
            return False
        await self.conn.pause(left)
        return True

    async def send_error(self, error: ApiError) -> None:
        """Send a refusal; a client that is gone by now is noted."""
        error = self.service.vendor.signed(error, self.request_id)
        headers = [*error.headers, ("content-length", str(len(error.body)))]
        state = self._state
        if error.status == 429 and state is not None and state.key.retry_after is not None:
            headers = [header for header in headers if header[0] != "retry-after"]
            headers.append(("retry-after", f"{state.key.retry_after:g}"))
        try:
            await self.finish(self.head(error.status, error.content_type, headers) + error.body)
        except ClientLeftError:
            self._left()

    def fault_error(self, fault: Fault) -> ApiError:
        """The error that a ``status`` fault stands for."""
        return self.service.vendor.fault_error(fault, f"{self.rng.getrandbits(128):032x}")

    def bill_all(self, reply: Reply) -> None:
        """Bill the whole reply, whatever of it is sent."""
        self._sent = reply.completion_tokens

    async def hold(self) -> None:
        """Wait until the key is healed.

        Raises:
            ClientLeftError: The client left.
        """
        state = self._state
        if state is None:
            return
        scope = anyio.CancelScope()
        state.held.add(scope)
        try:
            await self.conn.pause(math.inf, scope)
        finally:
            state.held.discard(scope)

    def _settle(self) -> None:
        """Close the record, once: what would be billed is the input and the output generated until now.

        Done before the last write, so that whoever has the reply finds the journal complete.
        """
        record, reply = self.record, self.reply
        if record.ended_after is not None:
            return
        if reply is not None and self.bills:
            reply.bill(record, reply.generated(self.elapsed) if self._sent is None else self._sent)
        record.ended_after = self.elapsed
        self.service.end(record, self._state)

    def _left(self) -> None:
        """Note that the client left before the end."""
        self.record.left_after = self.elapsed
        if self.record.ended_after is not None:
            self.service.left_late(self._state)
