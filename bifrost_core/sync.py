"""``SyncRouter``: the same calls from blocking code, over one event loop in a thread of its own."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from .errors import ConfigError
from .health import RouteHealth
from .keys import Key, Secret, presented
from .responses import ChatResponse, Response
from .router import Router
from .streams import ResponseStream
from .timeouts import Timeout
from .types import Chunk, Messages, Request

__all__ = ["SyncChatStream", "SyncResponseStream", "SyncRouter"]

_T = TypeVar("_T")
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

    def __init__(self, router: SyncRouter, make: Callable[[], ResponseStream]) -> None:
        self._router = router
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
        portal = self._router.portal()
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


class SyncRouter:
    """A ``Router`` for blocking code; takes the same arguments and may be used from any thread.

    Its event loop starts with the first call, in a daemon thread. ``close`` it, or use ``with``.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._adopt(Router(*args, **options))

    def _adopt(self, router: Router) -> None:
        self._router = router
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._context: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None
        self._thread: int | None = None
        self._closed = False

    @classmethod
    def of(cls, router: Router) -> Self:
        """The blocking face of a Router that no event loop has used yet."""
        made = cls.__new__(cls)
        made._adopt(router)  # noqa: SLF001 # its own constructor
        return made

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """As ``Router.from_env``."""
        return cls.of(Router.from_env(**options))

    @classmethod
    def from_config(cls, source: str | os.PathLike[str] | Mapping[str, Any], **options: Any) -> Self:
        """As ``Router.from_config``."""
        return cls.of(Router.from_config(source, **options))

    def portal(self) -> BlockingPortal:
        """The way onto the event loop; starts it at first.

        Raises:
            ConfigError: Closed, used after a fork, or called on its own event loop.
        """
        if os.getpid() != self._pid:
            raise ConfigError("a SyncRouter does not survive a fork; make one in the new process")
        with self._lock:
            if self._closed:
                raise ConfigError("the SyncRouter is closed; make another")
            if self._portal is None:
                self._context = start_blocking_portal("asyncio", name="bifrost")
                self._portal = self._context.__enter__()
                self._thread = self._portal.call(threading.get_ident)
            if self._thread == threading.get_ident():
                raise ConfigError("a SyncRouter blocks its own event loop here; use call.router in a plugin")
            return self._portal

    def _call(self, function: Callable[..., Coroutine[Any, Any, _T]], *args: Any, **options: Any) -> _T:
        future: Future[_T] = self.portal().start_task_soon(partial(function, *args, **options))
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt of this thread ends the call; no effect on one that ended
            raise

    def chat(
        self,
        model: str,
        messages: Messages,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> ChatResponse:
        """As ``Router.chat``."""
        virtual_key = presented(virtual_key)
        return self._call(
            self._router.chat,
            model,
            messages,
            virtual_key=virtual_key,
            fallbacks=fallbacks,
            timeout=timeout,
            metadata=metadata,
            **params,
        )

    def stream(
        self,
        model: str,
        messages: Messages,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> SyncChatStream:
        """As ``Router.stream``: ``with router.stream(…) as stream: for chunk in stream``."""
        virtual_key = presented(virtual_key)
        return SyncChatStream(
            self,
            partial(
                self._router.stream,
                model,
                messages,
                virtual_key=virtual_key,
                fallbacks=fallbacks,
                timeout=timeout,
                metadata=metadata,
                **params,
            ),
        )

    def send(self, request: Request, **options: Any) -> Response:
        """As ``Router.send``."""
        return self._call(self._router.send, request, **options)

    def send_stream(self, request: Request, **options: Any) -> SyncResponseStream:
        """As ``Router.send_stream``."""
        return SyncResponseStream(self, partial(self._router.send_stream, request, **options))

    def add_key(self, provider: str, key: Key) -> None:
        """As ``Router.add_key``."""
        self.portal().call(self._router.add_key, provider, key)

    def remove_key(self, provider: str, key_id: str) -> None:
        """As ``Router.remove_key``."""
        self.portal().call(self._router.remove_key, provider, key_id)

    def health(self) -> list[RouteHealth]:
        """As ``Router.health``."""
        return self.portal().call(self._router.health)

    def describe(self) -> str:
        """As ``Router.describe``."""
        return self._router.describe()

    def close(self) -> None:
        """As ``Router.aclose``; ends the event loop and its thread. Safe to repeat."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            context, portal = self._context, self._portal
        if portal is not None and context is not None and os.getpid() == self._pid:
            try:
                portal.call(self._router.aclose)
            finally:
                context.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
