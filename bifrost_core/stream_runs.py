"""One streamed call: what an attempt brings is handed out while it arrives.

The run fails over freely until the first content has gone out (or into a stream filter, which keeps
what it saw). After that the stream is one attempt's words or an error with what there was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import anyio
import attrs

from .attempts import Attempt
from .calls import Call, CallRecord
from .deployments import Deployment
from .errors import CallError, ProviderTimeoutError, StreamBrokenError
from .flights import Flight, Machinery
from .handover import Handover, ReaderLeftError
from .hooks import FilterChain
from .kinds import Kind
from .providers.base import Continues, StreamDecoder
from .replay import as_delivered, chat_as_delivered, chunks_of
from .response_events import responses_of
from .responses import ChatResponse, Response
from .resuming import Seam, joined
from .retries import Failure
from .runs import Run
from .sender import ReplyStream, SendError, SendLimits
from .timeouts import Timeout
from .types import Chunk, Operation, Request, Route
from .wire import HttpCall

__all__ = ["StreamRun"]

_BUFFER: Final = 8  # reads from the provider that wait for the caller
_TIMER_SLACK: Final = 0.05
_NO_CONTENT: Final = 204  # a success that can hold no stream (RFC 9110 section 15.3.5)
_LATE_KINDS: Final = {  # what a transport's failure is once content has come; all others cut the stream short
    Kind.READ_TIMEOUT: Kind.STREAM_STALLED,
    Kind.STREAM_MALFORMED: Kind.STREAM_MALFORMED,
}
_DRAIN_SECONDS: Final = 10.0  # in which what was used has to come
_MOST_DRAINS: Final = 32  # of one Router at once
_PREAMBLE_EVENTS: Final = 64
_PREAMBLE_BYTES: Final = 256 * 1024


@attrs.define(eq=False)
class _Reading:
    """What one attempt has brought and not yet handed out."""

    decoder: StreamDecoder
    seam: Seam
    preamble: list[Chunk] = attrs.field(factory=list[Chunk])  # before the first content: another may still answer
    size: int = 0  # bytes of the preamble
    tail: list[Chunk] = attrs.field(factory=list[Chunk])  # the last chunks, kept until the attempt is settled


class StreamRun(Run):
    """One streamed call; ``ResponseStream`` is its reader's side."""

    __slots__ = (
        "_broken",
        "_broken_attempts",
        "_delivered",
        "_drains",
        "_filters",
        "_handover",
        "_held",
        "_is_out",
        "_pieces",
        "_reading",
        "_said",
        "committed",
        "on_finished",
        "opened",
    )

    def __init__(self, machinery: Machinery, call: Call, timeout: Timeout) -> None:
        super().__init__(machinery, call, timeout)
        self.opened = anyio.Event()
        self.committed = False
        self.on_finished: Callable[[StreamRun], None] | None = None
        self._filters: FilterChain | None = None
        self._delivered: list[Chunk] | None = None  # kept only where a filter may have changed something
        self._held: list[Chunk] | None = None  # kept only where a guardrail judges the whole answer first
        self._reading: _Reading | None = None  # of the attempt that answers
        self._broken: StreamBrokenError | None = None  # what the answer broke off with, while it is being resumed
        self._broken_attempts: list[Attempt] = []
        self._said = Seam()  # what they brought
        self._is_out = False  # whether the reader has been given anything
        self._drains = False  # the reader has left, and it is read on for what was used
        self._pieces = 0  # of content, in how many it came
        self._handover = Handover(_BUFFER)

    # -- the reader's side ----------------------------------------------------------------------

    async def next_batch(self) -> list[Chunk] | None:
        """The next chunks; None at the end."""
        return await self._handover.take()

    def stop(self) -> None:
        """End the call now; nothing more is read."""
        super().stop()
        self._handover.leave()

    def leave(self) -> bool:
        """The reader has gone. The call ends now, or with the option ``drain`` once it is known what was used.

        Returns:
            Whether it is read on, in its own task, for at most 10 s: who left need not wait.
        """
        if self._drains:
            return not self.is_finished
        machinery = self.machinery
        if (
            not self.call.options.get("drain")
            or self.is_finished
            or self._stopped
            or not self._is_out
            or machinery.draining >= _MOST_DRAINS
        ):
            self.stop()
            return False
        self._drains = self._stopped = True  # to the caller it is over
        self._scope.deadline = min(self._scope.deadline, machinery.now() + _DRAIN_SECONDS)
        machinery.draining += 1
        self._handover.leave()
        return True

    @property
    def is_filtered(self) -> bool:
        """Whether a stream filter sees the chunks, and may have changed them."""
        return self._filters is not None

    # -- the call's side ------------------------------------------------------------------------

    async def main(self) -> None:
        """Run the call to its end; chunks go out on the way."""
        try:
            await super().main()
        finally:
            self.machinery.draining -= self._drains
            self._handover.end()
            self.opened.set()
            if self.on_finished is not None:
                self.on_finished(self)

    async def _guarded_cached(self, response: Response) -> Response:
        hooks = self.machinery.hooks
        response = await super()._guarded(response)
        filters = hooks.stream_filter(self.call) if hooks.stream_filter is not None else None
        return await self._replay(response, filters)

    async def _guarded(self, response: Response) -> Response:
        """Phases 8 and 9, as far as they are not done while chunks arrive."""
        if self._drains:
            return response
        hooks = self.machinery.hooks
        if self._held is not None and hooks.guard_stream is not None:
            # The filters first, then the whole answer, and only then a word of it to the reader.
            response = await self._end(response)
            self._phase = "hook:bifrost_guard_response"
            guarded = self._seen(response, await hooks.guard_stream(response, self.call))
            held, self._held = self._held, None
            await self._hand_out(held if guarded is response else chunks_of(guarded))
            return guarded
        return await self._end(response)

    async def _end(self, response: Response) -> Response:
        """Hand out the last chunks, and what the filters still hold."""
        chunks = [] if self._reading is None else self._reading.tail
        self._reading = None
        if self._filters is not None:
            chunks = [out for chunk in chunks for out in self._filters.feed(chunk)] + self._filters.finish()
        await self._hand_out(chunks)
        return response if self._delivered is None else self._seen(response, as_delivered(response, self._delivered))

    async def _replay(self, response: Response, filters: FilterChain | None) -> Response:
        chunks = chunks_of(response)
        if filters is not None:
            chunks = [out for chunk in chunks for out in filters.feed(chunk)] + filters.finish()
            response = self._seen(response, as_delivered(response, chunks))
        await self._hand_out(chunks)
        return response

    async def _recovered(self, response: Response) -> None:
        self._held = None  # what a guardrail was to judge is not delivered; this is not judged
        await self._hand_out(chunks_of(response))

    def _is_committed(self) -> bool:
        return self.committed

    def _has_delivered(self) -> bool:
        return self._is_out

    async def _exchange(self, flight: Flight, encoded: HttpCall, *, fresh: bool, more: bool) -> Response:  # noqa: ARG002 # a stream's limits do not depend on it
        deployment, sender = flight.deployment, self.machinery.sender
        limits = SendLimits(
            connect=self.timeout.connect,
            first_byte=self.timeout.first_token,
            idle=max(self.timeout.first_token, self.timeout.idle),
            pool=self.timeout.pool,
        )
        self._phase = "first_byte"
        self._make_filters()
        key = deployment.keys[flight.route.key_id]
        reading = _Reading(deployment.provider.decoder(self._request_for(deployment)), self._next_seam())
        response: Response | None = None
        broken: SendError | None = None
        with anyio.CancelScope(deadline=anyio.current_time() + self.timeout.first_token) as silence:
            stream = await sender.open_stream(
                deployment.provider, key, encoded, limits=limits, fresh=fresh, on_sent=flight.note_sent
            )
            try:
                flight.status, flight.received = stream.status, True
                self._note_quotas(flight, stream.headers)
                if not stream.is_success or stream.status == _NO_CONTENT:
                    return deployment.provider.decode(self._request_for(deployment), await stream.reply())
                response = await self._read(flight, stream, reading, silence)
                await stream.finish()
            except SendError as exc:
                broken = exc
            finally:
                await stream.aclose()
        if broken is not None:
            raise self._break(flight, broken, reading)
        if response is None:
            raise self._silent(flight, reading)
        return response

    def _make_filters(self) -> None:
        """Ask for the call's filters, once, and before anything is sent."""
        hooks = self.machinery.hooks
        if self._filters is None and hooks.stream_filter is not None:
            self._filters = hooks.stream_filter(self.call)
            self._delivered = None if self._filters is None else []

    async def _begin_answer(self, flight: Flight, reading: _Reading) -> None:
        """This attempt answers. What an earlier one said is forgotten where nothing of it has gone out."""
        if flight.contender is not None:
            await flight.contender.claim()
        self._reading = reading
        self._held = None if self.machinery.hooks.guard_stream is None else []

    async def _read(
        self, flight: Flight, stream: ReplyStream, reading: _Reading, silence: anyio.CancelScope
    ) -> Response:
        """Read, decode and hand out until the answer is whole."""
        clock, idle, decoder = self.machinery.clock, self.timeout.idle, reading.decoder
        async for data in stream:
            if flight.first_token is None and not reading.size:
                flight.html = data[:1] == b"<"
            chunks = reading.seam.feed(decoder.feed(data))
            if heard := sum(chunk.has_content for chunk in chunks):
                flight.heard += heard
                self._pieces += heard
                flight.heard_bytes += sum(map(_size, chunks))
                if flight.first_token is None:
                    await self._begin_answer(flight, reading)
                    flight.first_token = clock() - flight.started
                    if self.first_token_at is None or not self.committed:  # else it goes on with what one before began
                        self.first_token_at = flight.started + flight.first_token
                    flight.deployment.balancer.first_token(flight.token)
                    self._phase = "idle"
                # Only content counts, and only now and then is the scope's timer moved: it costs a timer.
                until = anyio.current_time() + idle
                if abs(until - silence.deadline) > idle * _TIMER_SLACK:
                    silence.deadline = until
            elif any(map(_brings_piece, chunks)):  # of a call, which is content once it is whole
                silence.deadline = max(silence.deadline, anyio.current_time() + idle)
            if decoder.error is not None or decoder.done:
                reading.tail = chunks
                break
            await self._take(flight, chunks, len(data), reading, silence)
        if decoder.error is not None:
            await self._take(flight, reading.tail, 0, reading, silence)
            raise self._retold(decoder.error, reading)
        response = _end_of(decoder)
        if isinstance(response, CallError):
            raise self._retold(response, reading)
        if self._reading is not reading:  # an answer without content
            await self._begin_answer(flight, reading)
        reading.tail = [*reading.preamble, *reading.tail]
        reading.preamble = []
        return response

    async def _take(
        self, flight: Flight, chunks: list[Chunk], size: int, reading: _Reading, silence: anyio.CancelScope
    ) -> None:
        """Hand chunks on; before the first content they are held back, so that another route may still answer."""
        if flight.first_token is None:
            reading.preamble += chunks
            reading.size += size
            if len(reading.preamble) <= _PREAMBLE_EVENTS and reading.size <= _PREAMBLE_BYTES:
                return
            chunks = []
            if self._reading is not reading:
                await self._begin_answer(flight, reading)
        if reading.preamble:
            chunks, reading.preamble = [*reading.preamble, *chunks], []
        if not chunks or self._drains:
            return
        if self._filters is not None:
            self.committed = True  # a filter remembers what it has seen: another attempt can not start over
            passed: list[Chunk] = []
            try:
                for chunk in chunks:
                    passed += self._filters.feed(chunk)
            except CallError:  # what has passed is the reader's, however many chunks came in one read
                if any(chunk.has_content for chunk in passed):
                    await self._hand_out(passed, flight, silence)
                raise
            chunks = passed
        await self._hand_out(chunks, flight, silence)

    async def _hand_out(
        self, chunks: list[Chunk], flight: Flight | None = None, silence: anyio.CancelScope | None = None
    ) -> None:
        """Give chunks to the reader; while it does not read, the provider's silence does not count."""
        if not chunks or self._drains:
            return
        if self._held is not None:
            self._held += chunks
            if self._delivered is not None:
                self._delivered += chunks
            return
        if self._delivered is not None:
            self._delivered += chunks
        self.committed = self._is_out = True
        self.opened.set()
        try:
            if not self._handover.put(chunks):
                await self._wait_for_reader(chunks, flight, silence)
        except ReaderLeftError:
            if not self._drains:  # then ``stop`` cancels this task at its next await
                await anyio.sleep_forever()

    async def _wait_for_reader(
        self, chunks: list[Chunk], flight: Flight | None, silence: anyio.CancelScope | None
    ) -> None:
        clock = self.machinery.clock
        before = clock()
        if silence is not None:
            silence.deadline = math.inf
        await self._handover.put_when_read(chunks)
        if silence is not None:
            silence.deadline = anyio.current_time() + self.timeout.idle
        if flight is not None:
            flight.reader_seconds += clock() - before

    def _record(self, *, cancelled: bool) -> CallRecord:
        record = super()._record(cancelled=cancelled)
        return attrs.evolve(record, response=None) if self._drains else record  # the caller has not got it

    # -- going on where an answer broke off -------------------------------------------------------

    async def _attempts(self) -> Response:
        response = await super()._attempts()
        if self._broken is None or not isinstance(response, ChatResponse) or self._reading is None:
            return response
        whole = joined(self._reading.seam.whole(response.text), self._broken_attempts, response)
        # The rest was asked for as chat, which alone can go on from a text.
        return responses_of(whole) if self.call.operation is Operation.RESPONSES else whole

    async def _attempt(self, deployment: Deployment, route: Route, **how: Any) -> Response | Failure:
        outcome = await super()._attempt(deployment, route, **how)
        if isinstance(outcome, Failure) and outcome.resumable:
            self._keep_said()
        return outcome

    def _keep_said(self) -> None:
        """Remember what was said until now: the next attempt goes on from there."""
        error = self._last_error
        if isinstance(error, StreamBrokenError):
            text = self._text_so_far(self._reading)
            if error.partial is not None:
                self._broken = error
            self._broken_attempts += [attempt for attempt in self.call.attempts if attempt.error is error]
            self._said = Seam(text)
            self._encoded.clear()
        # An attempt to go on that failed before it said anything is on the error that the caller gets.
        self._last_error = self._broken

    def _text_so_far(self, reading: _Reading | None) -> str:
        partial = None if reading is None else _chat(reading.decoder.partial())
        return self._said.said if reading is None or partial is None else reading.seam.whole(partial.text)

    def _next_seam(self) -> Seam:
        return Seam(self._said.said)

    def _is_resumable(self, error: CallError, deployment: Deployment) -> bool:
        if not self.call.options.get("resume") or not self.committed or self._held is not None or self._drains:
            return False
        if not isinstance(error, StreamBrokenError):
            return self._broken is not None
        partial = None if self._reading is None else _chat(self._reading.decoder.partial())
        if partial is not None and (partial.reasoning or partial.tool_calls):
            return False
        return self._continued(deployment, self._text_so_far(self._reading)) is not None

    def _suits(self, deployment: Deployment) -> bool:
        return self._broken is None or self._continued(deployment, self._said.said) is not None

    def _request_for(self, deployment: Deployment) -> Request:
        request = super()._request_for(deployment)
        if self._broken is None:
            return request
        return self._continued(deployment, self._said.said) or request

    def _continued(self, deployment: Deployment, text: str) -> Request | None:
        """The request for the rest of the answer; None where the deployment can not go on from ``text``."""
        provider = deployment.provider
        if not text or not isinstance(provider, Continues):
            return None
        return provider.continued(super()._request_for(deployment), text, self._pieces)

    # -- what breaks ----------------------------------------------------------------------------

    def _break(self, flight: Flight, broken: SendError, reading: _Reading) -> Exception:
        """What the transport failed with, as the failure of a stream once content had come."""
        if flight.first_token is None:
            return broken
        error = broken.error
        if error.kind is Kind.RESPONSE_TOO_LARGE:
            return broken
        kind = _LATE_KINDS.get(error.kind, Kind.STREAM_TRUNCATED)
        return self._retold(
            StreamBrokenError(error.message, kind=kind, partial=_chat(reading.decoder.partial())), reading
        )

    def _silent(self, flight: Flight, reading: _Reading) -> CallError:
        route = flight.route
        if flight.first_token is None:
            return ProviderTimeoutError(
                f"{route.provider} sent no content within {self.timeout.first_token:g} s (first_token)",
                phase="first_byte",
            )
        return self._retold(
            StreamBrokenError(
                f"{route.provider} fell silent for {self.timeout.idle:g} s (idle) before its answer was complete",
                kind=Kind.STREAM_STALLED,
                partial=_chat(reading.decoder.partial()),
            ),
            reading,
        )

    def _retold(self, error: CallError, reading: _Reading) -> CallError:
        """The error with the part of the answer that the reader got, and no more."""
        if isinstance(error, StreamBrokenError) and error.partial is not None:
            if self._broken is not None:
                error.partial = joined(reading.seam.whole(error.partial.text), self._broken_attempts, error.partial)
            if self._held is not None:
                error.partial = None
            elif self._delivered is not None:
                error.partial = chat_as_delivered(error.partial, self._delivered)
        return error


def _end_of(decoder: StreamDecoder) -> Response | CallError:
    """The assembled answer, or what is wrong with its end."""
    try:
        return decoder.finish()
    except CallError as exc:
        return exc


def _brings_piece(chunk: Chunk) -> bool:
    """Whether an event without content has a piece of a tool call's arguments."""
    delta: Any = chunk.raw.get("delta")
    if isinstance(delta, dict):
        return bool(cast("dict[str, Any]", delta).get("partial_json"))
    choices: Any = chunk.raw.get("choices")
    if not isinstance(choices, list) or not choices:
        return False
    choice: Any = cast("Sequence[object]", choices)[0]
    told: Any = cast("dict[str, Any]", choice).get("delta") if isinstance(choice, dict) else None
    return isinstance(told, dict) and bool(cast("dict[str, Any]", told).get("tool_calls"))


def _size(chunk: Chunk) -> int:
    """Bytes of what a piece says, wherever."""
    calls = sum(len(call.name) + len(call.arguments.encode()) for call in chunk.tool_calls)
    return len(chunk.text.encode()) + len((chunk.reasoning or "").encode()) + calls


def _chat(response: Response | None) -> ChatResponse | None:
    return response if isinstance(response, ChatResponse) else None
