"""What a caller holds of a streamed call: an async context manager that iterates chunks."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Protocol, Self

import anyio

from .calls import Call
from .errors import ConfigError, PluginError
from .interruptions import ends_process
from .response_events import ResponseEvents
from .response_objects import begins
from .responses import ChatResponse, Response, ResponsesResponse, Transcription
from .responses_bodies import echo_of
from .roots import poster, spawn_root_task, wait_out
from .types import Chunk, Request

__all__ = ["ChatStream", "ResponseStream", "ResponsesStream", "TranscriptionStream"]


class StreamSource(Protocol):
    """The running call behind a stream; everything happens in its ``main``, in a task of its own."""

    opened: anyio.Event
    is_finished: bool
    committed: bool
    call: Call
    asked: Request
    failure: BaseException | None
    response: Response | None

    @property
    def is_filtered(self) -> bool:
        """Whether a stream filter sees the chunks, and may have changed them."""
        ...

    @property
    def finished(self) -> anyio.Event:
        """Set when the call is over."""
        ...

    async def main(self) -> None:
        """Run the call to its end. Raises nothing but a cancellation from outside."""
        ...

    async def next_batch(self) -> list[Chunk] | None:
        """The next chunks; None at the end."""
        ...

    def stop(self) -> None:
        """End the call now: the provider hears of it, what was used is settled."""
        ...

    def leave(self) -> bool:
        """The reader has gone: the call ends now, or soon and by itself (then True)."""
        ...


class ResponseStream:
    """A streamed answer: ``async with router.send_stream(request) as stream: async for chunk in stream``.

    Entering waits for the first content, so whatever fails before it is raised there. Leaving ends the
    call: upstream is told, money is settled, and ``bifrost_call_finished`` has run.

    Args:
        begin: Makes the call; awaited once, on entering.
        parse: What makes ``parsed`` of the whole answer's text, where a class was asked for.
    """

    def __init__(self, begin: Callable[[], Awaitable[StreamSource]], parse: Callable[[str], Any] | None = None) -> None:
        self._begin: Callable[[], Awaitable[StreamSource]] | None = begin
        self._parse = parse
        self._source: StreamSource | None = None
        self._batch: Iterator[Chunk] = iter(())
        self._ended = False
        self._is_closed = False
        self._is_inside = False
        self._post: Callable[[Callable[[], object]], object] | None = None

    async def _begun(self) -> StreamSource:
        if self._begin is None:
            raise ConfigError("a stream is entered once; ask the Router for another")
        begin, self._begin = self._begin, None
        return await begin()

    async def open(self, *, limit: float | None = None) -> Self:
        """Enter without a block, for a reader that can not hold one: the call runs in a task of its own.

        ``aclose`` ends it; so does dropping the stream.

        Args:
            limit: Seconds to wait for the first content.

        Raises:
            TimeoutError: There was none within ``limit``; the call has been ended.
        """
        return await self._enter(limit)

    async def _enter(self, limit: float | None = None) -> Self:
        source = await self._begun()
        spawn_root_task(source.main, "bifrost stream")
        try:
            if limit is None:
                await source.opened.wait()
            else:
                with anyio.fail_after(limit):
                    await source.opened.wait()
        except BaseException:
            await self._end(source)
            raise
        if source.failure is not None and not source.committed:
            await self._end(source)
            raise source.failure
        self._source, self._post = source, poster()
        return self

    async def _end(self, source: StreamSource) -> None:
        """End the call and wait until it is settled, whatever is being cancelled; one that drains settles by itself."""
        if not source.leave():
            await wait_out(source.finished)

    async def __aenter__(self) -> Self:
        await self._enter()
        self._is_inside = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_inside = False
        source = self._source
        if source is None:
            return
        await self._end(source)
        failure = source.failure
        if failure is not None and failure is not exc and ends_process(failure):
            raise failure

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        for chunk in self._batch:
            return chunk
        self._batch = iter(await self.take())
        for chunk in self._batch:
            return chunk
        raise StopAsyncIteration

    async def take(self) -> list[Chunk]:
        """All chunks that have come since, at least one; none at the end. Beside iteration: one way or the other."""
        source = self._source
        if source is None:
            raise ConfigError("a stream is read inside its 'async with' block")
        while not self._ended:
            batch = await source.next_batch()
            if batch is None:
                self._ended = True
                if source.failure is not None and not self._is_closed:
                    raise source.failure
                if source.response is None:
                    return []
                batch = self._last(source)
            else:
                batch = self._told(source, batch)
            if batch:
                return batch
        return []

    def _told(self, source: StreamSource, batch: list[Chunk]) -> list[Chunk]:  # noqa: ARG002 # for subclasses
        """What the reader gets for chunks that have come."""
        return batch

    def _last(self, source: StreamSource) -> list[Chunk]:  # noqa: ARG002 # for subclasses
        """What the reader gets after the last chunk, the call being over."""
        return []

    async def text(self) -> AsyncIterator[str]:
        """The text alone, piece by piece."""
        async for chunk in self:
            if chunk.text:
                yield chunk.text

    @property
    def response(self) -> Response:
        """The assembled answer, after the end of the stream.

        Raises:
            ConfigError: The stream has not ended, or was left before its end.
        """
        response = None if self._source is None else self._source.response
        if response is None or not self._ended:
            raise ConfigError("the stream has not been read to its end; its response is not complete")
        return response

    @property
    def call_id(self) -> str:
        """The call's id, once the stream is entered."""
        return "" if self._source is None else self._source.call.id

    async def aclose(self) -> None:
        """End the call now, from any task; safe to repeat. Who reads meanwhile is at the end.

        The ``async with`` block still leaves as usual.
        """
        source = self._source
        if source is None:
            return
        self._is_closed = True
        await self._end(source)

    def __del__(self) -> None:
        if self._source is None or self._post is None or self._source.is_finished:
            return
        # Dropped without being left (an outer generator was): free the connection and settle. Whoever drops the last
        # reference may be another thread's garbage collector.
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and the call with it
            self._post(self._source.leave)
        if self._is_inside:
            warnings.warn("a stream was dropped without leaving its 'async with' block", ResourceWarning, stacklevel=2)


class ChatStream(ResponseStream):
    """A streamed chat answer."""

    @property
    def response(self) -> ChatResponse:
        """The assembled answer, after the end of the stream.

        Raises:
            ConfigError: The stream has not ended, or was left before its end.
        """
        response = super().response
        assert isinstance(response, ChatResponse)  # noqa: S101 # chat requests give chat responses
        return response if self._parse is None else response.with_parser(self._parse)


class ResponsesStream(ResponseStream):
    """A streamed answer in the OpenAI Responses shape: one ``Chunk`` per event, ``raw`` the event as a dict.

    The events of a provider that has this shape itself are handed on as they came. Where the answer came as chat, or
    a stream filter is in the way, they are told anew and tell what the call delivers: a filter that has changed the
    chunks has changed them all.

    Args:
        begin: Makes the call; awaited once, on entering.
        parse: What makes ``parsed`` of the whole answer's text, where a class was asked for.

    Source:
        https://platform.openai.com/docs/api-reference/responses-streaming
    """

    def __init__(self, begin: Callable[[], Awaitable[StreamSource]], parse: Callable[[str], Any] | None = None) -> None:
        super().__init__(begin, parse)
        self._events: ResponseEvents | None = None
        self._passes: bool | None = None  # the provider's own events go on; known with the first of them
        self._whole: ResponsesResponse | None = None

    def _maker(self, source: StreamSource) -> ResponseEvents:
        if self._events is None:
            model = source.call.request.model.rpartition("/")[2]
            self._events = ResponseEvents(call_id=source.call.id, model=model, echo=echo_of(source.asked.body))
        return self._events

    def _told(self, source: StreamSource, batch: list[Chunk]) -> list[Chunk]:
        if self._passes is None and batch:
            self._passes = not source.is_filtered and begins(batch[0].raw)
        return batch if self._passes else self._maker(source).feed(batch)

    def _last(self, source: StreamSource) -> list[Chunk]:
        response = source.response
        if not isinstance(response, ResponsesResponse):
            # A plugin has made it: an adapter's answers are of their operation's kind.
            raise PluginError(
                f"a plugin answered responses with {type(response).__name__}; return a ResponsesResponse",
                call_id=source.call.id,
            )
        if self._passes:
            self._whole = response
            return []
        return self._maker(source).finish(response)

    @property
    def response(self) -> ResponsesResponse:
        """The assembled answer, after the end of the stream.

        Raises:
            ConfigError: The stream has not ended, or was left before its end.
        """
        told = self._whole if self._events is None else self._events.response
        if told is None or not self._ended:
            raise ConfigError("the stream has not been read to its end; its response is not complete")
        return told


class TranscriptionStream(ResponseStream):
    """A streamed transcription: chunks with text, and others whose ``raw`` alone tells of language or segments."""

    @property
    def response(self) -> Transcription:
        """The whole transcription, after the end of the stream.

        Raises:
            ConfigError: The stream has not ended, or was left before its end.
        """
        response = super().response
        assert isinstance(response, Transcription)  # noqa: S101 # such requests give transcriptions
        return response
