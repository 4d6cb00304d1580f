"""One streamed call: what an attempt brings is handed out while it arrives.

The run fails over freely until the first content has gone out (or into a stream filter, which keeps
what it saw). After that the stream is one attempt's words or an error with what there was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import anyio

from .calls import Call
from .errors import CallError, ProviderTimeoutError, StreamBrokenError
from .hooks import FilterChain
from .kinds import Kind
from .providers.base import StreamDecoder
from .replay import as_delivered, chunks_of
from .responses import ChatResponse, Response
from .runs import Flight, Machinery, Run
from .sender import ReplyStream, SendError, SendLimits
from .timeouts import Timeout
from .types import Chunk
from .wire import HttpCall

__all__ = ["StreamRun"]

_BUFFER: Final = 8  # reads from the provider that wait for the caller
_TIMER_SLACK: Final = 0.05
_PREAMBLE_EVENTS: Final = 64
_PREAMBLE_BYTES: Final = 256 * 1024


class StreamRun(Run):
    """One streamed call; ``ResponseStream`` is its reader's side."""

    def __init__(self, machinery: Machinery, call: Call, timeout: Timeout) -> None:
        super().__init__(machinery, call, timeout)
        self.opened = anyio.Event()
        self.committed = False
        self.on_finished: Callable[[StreamRun], None] | None = None
        self._filters: FilterChain | None = None
        self._delivered: list[Chunk] | None = None  # kept only where a filter may have changed something
        self._held: list[Chunk] | None = None  # kept only where a guardrail judges the whole answer first
        self._preamble: list[Chunk] = []
        self._preamble_bytes = 0
        self._tail: list[Chunk] = []  # the last chunks, kept until the attempt is settled
        self._send, self._receive = anyio.create_memory_object_stream[list[Chunk]](_BUFFER)

    # -- the reader's side ----------------------------------------------------------------------

    async def next_batch(self) -> list[Chunk] | None:
        """The next chunks; None at the end."""
        try:
            return self._receive.receive_nowait()
        except anyio.WouldBlock:
            try:
                return await self._receive.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                return None
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return None

    def stop(self) -> None:
        """End the call now; nothing more is read."""
        super().stop()
        self._receive.close()

    # -- the call's side ------------------------------------------------------------------------

    async def main(self) -> None:
        """Run the call to its end; chunks go out on the way."""
        try:
            await super().main()
        finally:
            self._send.close()
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
        hooks = self.machinery.hooks
        if self._held is not None and hooks.guard_stream is not None:
            # The filters first, then the whole answer, and only then a word of it to the reader.
            response = await self._end(response)
            self._phase = "hook:bifrost_guard_response"
            guarded = await hooks.guard_stream(response, self.call)
            held, self._held = self._held, None
            await self._hand_out(held if guarded is response else chunks_of(guarded))
            return guarded
        return await self._end(response)

    async def _end(self, response: Response) -> Response:
        """Hand out the last chunks, and what the filters still hold."""
        chunks, self._tail = self._tail, []
        if self._filters is not None:
            chunks = [out for chunk in chunks for out in self._filters.feed(chunk)] + self._filters.finish()
        await self._hand_out(chunks)
        if self._delivered is not None and isinstance(response, ChatResponse):
            return as_delivered(response, self._delivered)
        return response

    async def _replay(self, response: Response, filters: FilterChain | None) -> Response:
        chunks = chunks_of(response)
        if filters is not None:
            chunks = [out for chunk in chunks for out in filters.feed(chunk)] + filters.finish()
            if isinstance(response, ChatResponse):
                response = as_delivered(response, chunks)
        await self._hand_out(chunks)
        return response

    async def _recovered(self, response: Response) -> None:
        await self._hand_out(chunks_of(response))

    def _is_committed(self) -> bool:
        return self.committed

    async def _exchange(self, flight: Flight, encoded: HttpCall, *, fresh: bool, more: bool) -> Response:  # noqa: ARG002 # a stream's limits do not depend on it
        deployment, sender = flight.deployment, self.machinery.sender
        limits = SendLimits(
            connect=self.timeout.connect,
            first_byte=self.timeout.first_token,
            idle=max(self.timeout.first_token, self.timeout.idle),
            pool=self.timeout.pool,
        )
        self._phase = "first_byte"
        self._begin_answer()
        key = deployment.keys[flight.route.key_id]
        decoder = deployment.provider.decoder(self._request_for(deployment))
        response: Response | None = None
        broken: SendError | None = None
        with anyio.CancelScope(deadline=anyio.current_time() + self.timeout.first_token) as silence:
            stream = await sender.open_stream(deployment.provider, key, encoded, limits=limits, fresh=fresh)
            try:
                flight.status, flight.received = stream.status, True
                self._note_quotas(flight, stream.headers)
                if not stream.is_success:
                    return deployment.provider.decode(self._request_for(deployment), await stream.reply())
                response = await self._read(flight, stream, decoder, silence)
                await stream.finish()
            except SendError as exc:
                broken = exc
            finally:
                await stream.aclose()
        if broken is not None:
            raise self._break(flight, broken, decoder)
        if response is None:
            raise self._silent(flight, decoder)
        return response

    def _begin_answer(self) -> None:
        """Forget what an earlier attempt said; nothing of it has gone out."""
        hooks = self.machinery.hooks
        self._preamble, self._preamble_bytes = [], 0
        self._tail = []
        self._held = None if hooks.guard_stream is None else []
        if self._filters is None and hooks.stream_filter is not None:
            self._filters = hooks.stream_filter(self.call)
            self._delivered = None if self._filters is None else []

    async def _read(
        self, flight: Flight, stream: ReplyStream, decoder: StreamDecoder, silence: anyio.CancelScope
    ) -> Response:
        """Read, decode and hand out until the answer is whole."""
        clock, idle = self.machinery.clock, self.timeout.idle
        async for data in stream:
            chunks = decoder.feed(data)
            if any(chunk.has_content for chunk in chunks):
                if flight.first_token is None:
                    flight.first_token = clock() - flight.started
                    flight.deployment.balancer.first_token(flight.token)
                    self._phase = "idle"
                # Only content counts, and only now and then is the scope's timer moved: it costs a timer.
                until = anyio.current_time() + idle
                if abs(until - silence.deadline) > idle * _TIMER_SLACK:
                    silence.deadline = until
            if decoder.error is not None or decoder.done:
                self._tail = chunks
                break
            await self._take(flight, chunks, len(data), silence)
        if decoder.error is not None:
            await self._take(flight, self._tail, 0, silence)
            raise self._retold(decoder.error)
        response = decoder.finish()
        self._tail = [*self._preamble, *self._tail]
        self._preamble = []
        return response

    async def _take(self, flight: Flight, chunks: list[Chunk], size: int, silence: anyio.CancelScope) -> None:
        """Hand chunks on; before the first content they are held back, so that another route may still answer."""
        if flight.first_token is None:
            self._preamble += chunks
            self._preamble_bytes += size
            if len(self._preamble) <= _PREAMBLE_EVENTS and self._preamble_bytes <= _PREAMBLE_BYTES:
                return
            chunks = []
        if self._preamble:
            chunks, self._preamble = [*self._preamble, *chunks], []
        if not chunks:
            return
        if self.first_token_at is None and flight.first_token is not None:
            self.first_token_at = flight.started + flight.first_token
        if self._filters is not None:
            self.committed = True  # a filter remembers what it has seen: another attempt can not start over
            chunks = [out for chunk in chunks for out in self._filters.feed(chunk)]
        await self._hand_out(chunks, flight, silence)

    async def _hand_out(
        self, chunks: list[Chunk], flight: Flight | None = None, silence: anyio.CancelScope | None = None
    ) -> None:
        """Give chunks to the reader; while it does not read, the provider's silence does not count."""
        if not chunks:
            return
        if self._held is not None:
            self._held += chunks
            if self._delivered is not None:
                self._delivered += chunks
            return
        if self._delivered is not None:
            self._delivered += chunks
        self.committed = True
        self.opened.set()
        try:
            try:
                self._send.send_nowait(chunks)
            except anyio.WouldBlock:
                await self._wait_for_reader(chunks, flight, silence)
        except anyio.BrokenResourceError:
            # The reader has left; its ``stop`` cancels this task at its next await.
            await anyio.sleep_forever()

    async def _wait_for_reader(
        self, chunks: list[Chunk], flight: Flight | None, silence: anyio.CancelScope | None
    ) -> None:
        clock = self.machinery.clock
        before = clock()
        if silence is not None:
            silence.deadline = math.inf
        await self._send.send(chunks)
        if silence is not None:
            silence.deadline = anyio.current_time() + self.timeout.idle
        if flight is not None:
            flight.reader_seconds += clock() - before

    # -- what breaks ----------------------------------------------------------------------------

    def _break(self, flight: Flight, broken: SendError, decoder: StreamDecoder) -> Exception:
        """What the transport failed with, as the failure of a stream once content had come."""
        if flight.first_token is None:
            return broken
        error = broken.error
        stalled = error.kind is Kind.READ_TIMEOUT
        return self._retold(
            StreamBrokenError(
                error.message,
                kind=Kind.STREAM_STALLED if stalled else Kind.STREAM_TRUNCATED,
                partial=_chat(decoder.partial()),
            )
        )

    def _silent(self, flight: Flight, decoder: StreamDecoder) -> CallError:
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
                partial=_chat(decoder.partial()),
            )
        )

    def _retold(self, error: CallError) -> CallError:
        """The error with the part of the answer that the reader got, and no more."""
        if isinstance(error, StreamBrokenError) and error.partial is not None:
            if self._held is not None:
                error.partial = None
            elif self._delivered is not None:
                error.partial = as_delivered(error.partial, self._delivered)
        return error


def _chat(response: Response | None) -> ChatResponse | None:
    return response if isinstance(response, ChatResponse) else None
