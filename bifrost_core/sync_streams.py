"""What blocking code holds of a streamed call: chunks pumped from the event loop into the reading thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.from_thread import BlockingPortal

from .errors import ConfigError
from .responses import ChatResponse, Response, ResponsesResponse, Transcription
from .streams import ResponseStream
from .types import Chunk

__all__ = ["SyncChatStream", "SyncResponseStream", "SyncResponsesStream", "SyncTranscriptionStream"]

_BUFFER: Final = 64  # chunks between the event loop and the reading thread


class _Pipe:
    """Chunks from an event loop to one reading thread; bounded, without a hop of the loop per chunk."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._items: deque[Chunk] = deque()
        self._changed = threading.Condition()
        self._room: anyio.Event | None = None
        self._opened = False
        self._closed = False
        self._failure: BaseException | None = None

    async def put(self, chunk: Chunk) -> None:
        """Called on the event loop."""
        with self._changed:
            self._items.append(chunk)
            self._changed.notify()
            if len(self._items) < _BUFFER:
                return
            self._room = room = anyio.Event()
        await room.wait()

    def open(self) -> None:
        """The stream has been entered."""
        with self._changed:
            self._opened = True
            self._changed.notify()

    def close(self, failure: BaseException | None) -> None:
        """Nothing more comes."""
        with self._changed:
            self._closed = True
            self._failure = failure
            self._changed.notify()

    def wait_opened(self) -> None:
        """Called in the reading thread; raises what entering the stream raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._closed)
            if not self._opened and self._failure is not None:
                raise self._failure

    def get(self) -> Chunk | None:
        """Called in the reading thread; None at the end, and raises what the stream raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            if self._items:
                chunk = self._items.popleft()
                room = self._room
                if room is None or len(self._items) > _BUFFER // 2:
                    return chunk
                self._room = None
            else:
                failure, self._failure = self._failure, None
                if failure is not None:
                    raise failure
                return None
        self._portal.start_task_soon(room.set)
        return chunk


class SyncResponseStream:
    """A streamed answer in blocking code: ``with router.send_stream(request) as stream: for chunk in stream``."""

    def __init__(self, portal: Callable[[], BlockingPortal], make: Callable[[], ResponseStream]) -> None:
        self._portal = portal
        self._make: Callable[[], ResponseStream] | None = make
        self._pipe: _Pipe | None = None
        self._pump: Future[None] | None = None
        self._left = threading.Event()
        self._stream: ResponseStream | None = None
        self._ended = False

    def __enter__(self) -> Self:
        if self._make is None:
            raise ConfigError("a stream is entered once; ask the Router for another")
        make, self._make = self._make, None
        portal = self._portal()
        self._pipe = pipe = _Pipe(portal)
        self._pump = portal.start_task_soon(self._run, make, pipe)
        try:
            pipe.wait_opened()
        except BaseException:
            self.close()
            raise
        return self

    async def _run(self, make: Callable[[], ResponseStream], pipe: _Pipe) -> None:
        failure: BaseException | None = None
        try:
            async with make() as stream:
                self._stream = stream
                pipe.open()
                async for chunk in stream:
                    await pipe.put(chunk)
        except Exception as exc:  # carried to the reading thread, which raises it
            failure = exc
        finally:
            pipe.close(failure)
            self._left.set()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the call now; safe to repeat."""
        if self._pump is not None:
            self._pump.cancel()
            self._left.wait()

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        if self._pipe is None:
            raise ConfigError("a stream is read inside its 'with' block")
        chunk = None if self._ended else self._pipe.get()
        if chunk is None:
            self._ended = True
            raise StopIteration
        return chunk

    def text(self) -> Iterator[str]:
        """The text alone, piece by piece."""
        for chunk in self:
            if chunk.text:
                yield chunk.text

    @property
    def response(self) -> Response:
        """The assembled answer, after the end of the stream.

        Raises:
            ConfigError: The stream has not ended, or was left before its end.
        """
        if self._stream is None or not self._ended:
            raise ConfigError("the stream has not been read to its end; its response is not complete")
        return self._stream.response


class SyncChatStream(SyncResponseStream):
    """A streamed chat answer in blocking code."""

    @property
    def response(self) -> ChatResponse:
        """The assembled answer, after the end of the stream.

        Raises:
            ConfigError: The stream has not ended, or was left before its end.
        """
        response = super().response
        assert isinstance(response, ChatResponse)  # noqa: S101 # chat requests give chat responses
        return response


class SyncResponsesStream(SyncResponseStream):
    """A streamed answer in the OpenAI Responses shape in blocking code: one ``Chunk`` per event."""

    @property
    def response(self) -> ResponsesResponse:
        """The assembled answer, after the end of the stream.

        Raises:
            ConfigError: The stream has not ended, or was left before its end.
        """
        response = super().response
        assert isinstance(response, ResponsesResponse)  # noqa: S101 # its stream has seen to it
        return response


class SyncTranscriptionStream(SyncResponseStream):
    """A streamed transcription in blocking code."""

    @property
    def response(self) -> Transcription:
        """The whole transcription, after the end of the stream.

        Raises:
            ConfigError: The stream has not ended, or was left before its end.
        """
        response = super().response
        assert isinstance(response, Transcription)  # noqa: S101 # such requests give transcriptions
        return response
