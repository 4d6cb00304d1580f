"""One request and its reply."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.lowlevel
import attrs

from . import _validation as validation
from ._answers import Json, make_answer
from ._bodies import Event, Generation, chat_body, chat_events, embeddings_body, moderations_body
from ._errors import ApiError, status_error
from ._http import ClientLeftError, Connection, HttpRequest, response_head
from ._service import KeyState, Service
from .journal import ServedRequest
from .laws import Fault

__all__ = ["END", "Exchange", "Reply", "chunk"]

logger = logging.getLogger(__name__)

END = b"0\r\n\r\n"  # of a chunked body
_JSON = "application/json"
_SSE = "text/event-stream; charset=utf-8"
_SHORT = 0.001  # waits below this are left out; the next one makes up for them
_BURST = 16  # events without a wait before others get their turn

_POST = {
    "/v1/chat/completions": ("completion_chat", validation.check_chat),
    "/v1/fim/completions": ("completion_fim", validation.check_fim),
    "/v1/embeddings": ("", validation.check_embeddings),
    "/v1/moderations": ("moderation", validation.check_moderations),
}


def chunk(data: bytes) -> bytes:
    """Data framed for chunked transfer encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@attrs.define(eq=False, kw_only=True)
class Reply:
    """A successful reply, ready to send.

    Attributes:
        content_type: Of the body.
        headers: Beside the usual ones.
        body: Of a plain reply.
        events: Of a streamed one; empty for a plain one.
        first_token: Seconds until the first token.
        tokens_per_second: Output speed.
        prompt_tokens: To bill.
        completion_tokens: To bill when all of it is generated.
    """

    content_type: str = _JSON
    headers: list[tuple[str, str]]
    body: bytes = b""
    events: list[Event] = attrs.field(factory=list[Event])
    first_token: float = 0.0
    tokens_per_second: float = math.inf
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def due(self, tokens: int) -> float:
        """Seconds until so many tokens are generated."""
        return self.first_token + tokens / self.tokens_per_second

    def generated(self, seconds: float) -> int:
        """Tokens generated after so many seconds."""
        if seconds < self.first_token:
            return 0
        if seconds >= self.due(self.completion_tokens):
            return self.completion_tokens
        return int((seconds - self.first_token) * self.tokens_per_second)


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
        play: How faults are played.
    """

    rng: random.Random  # set before anything is answered

    def __init__(self, service: Service, conn: Connection, request: HttpRequest, play: Play) -> None:
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
        self._play = play
        self._state: KeyState | None = None
        self._body: Json = {}
        self._factor = 1.0
        self._first_token = 0.0

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
            self._state = self.service.authenticate(self.request.headers.get("authorization"))
        except ApiError as exc:
            unauthorized = exc
        state, record = self._state, self.record
        if state is not None:
            record.key_id = state.id
        if self.service.keep_bodies:
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
        self.request_id = _request_id(self.service.clock.time(), self.rng)
        handler = self._handler()
        if unauthorized is not None:
            raise unauthorized
        if state is None:
            raise ApiError.detail(401, "Invalid API Key")
        self._first_token = state.key.latency.draw(self.rng)
        malformed: ApiError | None = None
        if request.method == "POST":
            try:
                self._body = validation.parse_body(request.body)
            except ApiError as exc:
                malformed = exc
            record.stream = self._body.get("stream") is True
            model = self._body.get("model")
            record.model = model if isinstance(model, str) else None
        fault, self._factor = self.service.pick_fault(state, record.number, record.stream)

        def make_reply() -> Reply:
            if malformed is not None:
                raise malformed
            self.reply = reply = handler(state)
            reply.first_token *= self._factor
            reply.tokens_per_second /= self._factor or 1.0
            return reply

        if fault is None:
            if self._factor != 1.0:
                record.fault = "slow"
            await self.send(make_reply())
            return request.keep_alive
        record.fault = fault.kind
        return await self._play(self, fault, make_reply) and request.keep_alive

    def _handler(self) -> Callable[[KeyState], Reply]:
        """What answers this method and path.

        Raises:
            ApiError: 404 in the gateway's shape.
        """
        method, path = self.request.method, self.request.path
        if method == "POST" and path in _POST:
            return self._completion if path.endswith("completions") else self._numbers
        if method == "GET" and (path == "/v1/models" or path.startswith("/v1/models/")):
            return self._models
        raise ApiError.gateway(404, "no Route matched with those values", f"{self.rng.getrandbits(128):032x}")

    # -- replies -------------------------------------------------------------------------------------------------

    def _completion(self, state: KeyState) -> Reply:
        """Chat and FIM."""
        body, rng, key = self._body, self.rng, state.key
        capability, check = _POST[self.request.path]
        check(body)
        model = self.service.model(body["model"], capability)
        quota = self.service.admit(state, model)
        count = body.get("n") or 1
        try:
            answers = tuple(make_answer(body, rng, key.output_tokens, self.service.answer) for _ in range(count))
        except Exception:
            logger.exception("the answer function of the simulated service failed")
            raise ApiError.object(500, "internal_server_error", "1000", "Service unavailable.") from None
        generation = Generation(
            id=f"{rng.getrandbits(128):032x}",
            created=int(self.service.clock.time()),
            model=body["model"],
            prompt_tokens=_estimate(self.request.body),
            answers=answers,
        )
        completion_tokens = generation.completion_tokens
        cost = generation.prompt_tokens + completion_tokens
        quota.charge(cost)
        reply = Reply(
            headers=[("x-max-retry-attempts-reached", "false")],
            first_token=self._first_token,
            tokens_per_second=key.latency.tokens_per_second,
            prompt_tokens=generation.prompt_tokens,
            completion_tokens=completion_tokens,
        )
        if self.record.stream:
            reply.content_type = _SSE
            reply.events = chat_events(generation, rng)
        else:
            reply.headers += [*quota.headers(), ("x-ratelimit-tokens-query-cost", str(cost))]
            reply.body = chat_body(generation)
        return reply

    def _numbers(self, state: KeyState) -> Reply:
        """Embeddings and moderations."""
        body, service = self._body, self.service
        capability, check = _POST[self.request.path]
        check(body)
        model = service.model(body["model"], capability)
        quota = service.admit(state, model)
        texts: list[str] = [body["input"]] if isinstance(body["input"], str) else body["input"]
        tokens = sum(1 + len(text.encode()) // 4 for text in texts)
        quota.charge(tokens)
        reply_id = f"{self.rng.getrandbits(128):032x}"
        headers = [pair for pair in quota.headers() if "tokens" not in pair[0]]
        headers.append(("x-ratelimit-tokens-query-cost", str(tokens)))
        if capability:
            content = moderations_body(reply_id, body["model"], model.name, texts, tokens)
        else:
            dimensions = 1536 if model.name.startswith("codestral") else 1024
            wanted: int = body.get("output_dimension") or dimensions
            if wanted > (3072 if dimensions == 1536 else 1024):
                raise ApiError.object(400, "invalid_request_invalid_args", "3051", "output_dimension is too large.")
            content = embeddings_body(reply_id, body["model"], body, wanted, tokens, service.seed)
        return Reply(headers=headers, body=content, first_token=self._first_token, prompt_tokens=tokens)

    def _models(self, _state: KeyState) -> Reply:
        """The list of models, or one of them."""
        models = self.service.models
        wanted = self.request.path.removeprefix("/v1/models").lstrip("/")
        if not wanted:
            listed = [model.entry(name) for name, model in models.items()]
            return Reply(headers=[], body=validation.encode({"object": "list", "data": listed}))
        if wanted not in models:
            raise ApiError.gateway(404, f"Model {wanted} was not found.", None)
        return Reply(headers=[], body=validation.encode(models[wanted].entry(wanted)))

    # -- sending -------------------------------------------------------------------------------------------------

    def head(self, status: int, content_type: str | None, headers: list[tuple[str, str]]) -> bytes:
        """A response head with the usual headers, and the record's note of it."""
        self.record.status = status
        waited = str(int(self.elapsed * 1000))
        return response_head(
            status,
            [
                ("date", self.service.date()),
                *([("content-type", content_type)] if content_type else ()),
                ("mistral-correlation-id", self.request_id),
                ("x-kong-request-id", self.request_id),
                ("x-envoy-upstream-service-time", waited),
                ("x-kong-upstream-latency", waited),
                ("x-kong-proxy-latency", "1"),
                *headers,
                ("connection", "keep-alive" if self.request.keep_alive else "close"),
            ],
        )

    async def send(self, reply: Reply) -> None:
        """Send a reply as Mistral would.

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
        headers = [*error.headers, ("content-length", str(len(error.body)))]
        if error.from_gateway:
            headers.append(("x-kong-response-latency", "1"))
        state = self._state
        if error.status == 429 and state is not None and state.key.retry_after is not None:
            headers.append(("retry-after", f"{state.key.retry_after:g}"))
        try:
            await self.finish(self.head(error.status, error.content_type, headers) + error.body)
        except ClientLeftError:
            self._left()

    def fault_error(self, fault: Fault) -> ApiError:
        """The error that a ``status`` fault stands for."""
        return status_error(
            fault.status or 503,
            fault.shape,
            kind=fault.error_type,
            code=fault.code,
            message=fault.message,
            request_id=f"{self.rng.getrandbits(128):032x}",
            headers=list(fault.headers.items()),
        )

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
            record.prompt_tokens = reply.prompt_tokens
            record.completion_tokens = reply.generated(self.elapsed) if self._sent is None else self._sent
        record.ended_after = self.elapsed
        self.service.end(record, self._state)

    def _left(self) -> None:
        """Note that the client left before the end."""
        self.record.left_after = self.elapsed
        if self.record.ended_after is not None:
            self.service.left_late(self._state)


def _estimate(body: bytes) -> int:
    """Input tokens of a request: about one in four bytes of its JSON, which real ones stay close to."""
    return max(1, len(body) // 4)


def _request_id(now: float, rng: random.Random) -> str:
    """A UUID of version 7.

    Args:
        now: Seconds since 1970-01-01 UTC.
        rng: Source of the random bits.

    Source:
        RFC 9562, section 5.7.
    """
    bits = rng.getrandbits(74)
    time_bits = int(now * 1000) & (1 << 48) - 1
    text = f"{time_bits:012x}7{bits >> 62:03x}{8 | (bits >> 60) & 3:x}{bits & (1 << 60) - 1:015x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
