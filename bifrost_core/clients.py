"""HTTP clients that no network lies behind: what a vendor's SDK sends through one, the Router answers in process.

The transports exist once for httpx and once for httpx2, whose classes are not each other's: SDKs check.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, ClassVar, Final, Protocol

import anyio
import anyio.from_thread

from .dialects import Door, Reply, StreamedReply
from .errors import BifrostError, ConfigError
from .portals import LoopThread
from .roots import Home

__all__ = ["BASE_URL", "Blocking", "Door", "LoopElsewhere", "async_client", "sync_client"]

BASE_URL: Final = "http://bifrost.invalid"
"""Where clients of ours point: a name that never resolves (RFC 6761, section 6.4), so that a mistake fails loudly."""

_FLAVOURS: Final = ("httpx", "httpx2")


class Blocking(Protocol):
    """Runs a coroutine function on the Router's event loop, from another thread."""

    def __call__(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **options: Any) -> Any:
        """What it returns, or raises."""
        ...


class LoopElsewhere:
    """Runs coroutine functions on the event loop that a Router belongs to; where it has none, on one of its own.

    Args:
        home: Tells the event loop of the Router's calls; None until the first.
    """

    def __init__(self, home: Callable[[], Home | None]) -> None:
        self._home = home
        self._own: LoopThread | None = None

    def __call__(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **options: Any) -> Any:
        """Run ``function`` there and wait; an interrupt of this thread cancels it.

        Raises:
            ConfigError: Called on the Router's own event loop, which it would block.
        """
        home = self._home()
        if self._own is None and home is None:
            self._own = LoopThread("Router's blocking client")
        if self._own is not None:
            return self._own.call(function, *args, **options)
        assert home is not None  # noqa: S101 # else there is one of its own; for the type checker
        if home.is_here():
            raise ConfigError("a blocking client would block the Router's own event loop; use http_client() here")
        scopes: list[anyio.CancelScope] = []

        async def main() -> Any:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                return await function(*args, **options)

        try:
            return anyio.from_thread.run(main, token=home.token)
        except Exception:
            raise
        except BaseException:
            for scope in scopes:
                with suppress(RuntimeError):  # the event loop is gone
                    anyio.from_thread.run_sync(scope.cancel, token=home.token)
            raise


def async_client(door: Door, flavour: str | None) -> Any:
    """An ``AsyncClient`` whose transport is the door.

    Raises:
        ConfigError: There is no such flavour, or it is not installed.
    """
    library, transport, _ = _made(_chosen(flavour))
    return library.AsyncClient(transport=transport(door), base_url=BASE_URL, timeout=None)


def sync_client(door: Door, blocking: Blocking, flavour: str | None) -> Any:
    """A ``Client`` whose transport is the door, for use from any thread but the event loop's.

    Raises:
        ConfigError: There is no such flavour, or it is not installed.
    """
    library, _, transport = _made(_chosen(flavour))
    return library.Client(transport=transport(door, blocking), base_url=BASE_URL, timeout=None)


def _chosen(flavour: str | None) -> str:
    if flavour is None:
        return "httpx2" if find_spec("httpx2") else "httpx"
    if flavour not in _FLAVOURS:
        raise ConfigError(f"flavour is {flavour!r}; there are {' and '.join(_FLAVOURS)}", field="flavour")
    if find_spec(flavour) is None:
        raise ConfigError(f"{flavour} is not installed; run: pip install {flavour}", field="flavour")
    return flavour


def _arguments(request: Any) -> tuple[str, str, dict[str, str]]:
    # Of a name that comes twice the values are joined, as RFC 9110, section 5.3, has it; `items()` costs three times that.
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers.raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return request.method, request.url.raw_path.decode("ascii"), headers


def _limit(request: Any) -> float | None:
    """How long the SDK waits for the next bytes."""
    limits: dict[str, float | None] = request.extensions.get("timeout", {})
    return limits.get("read")


async def _next(reply: StreamedReply) -> bytes:
    """The next piece; ``b""`` at the end."""
    async for piece in reply.pieces:
        return piece
    return b""


async def _end(reply: StreamedReply) -> None:
    await reply.aclose()


class _Library:
    """httpx or httpx2, and its exceptions for what the door raises."""

    def __init__(self, flavour: str) -> None:
        self.module: Any = importlib.import_module(flavour)

    def failure(self, error: Exception, request: Any) -> Exception:
        """What this library raises where a network would have failed so."""
        if isinstance(error, TimeoutError):
            late: Exception = self.module.ReadTimeout("nothing came within the client's time-out", request=request)
            return late
        broken: Exception = self.module.RemoteProtocolError(str(error), request=request)
        return broken

    def response(self, reply: Reply | StreamedReply, stream: type[Any], request: Any, *more: Any) -> Any:
        """A reply as this library's response; a whole one as a stream of one piece, which is cheaper than content."""
        body = stream.whole(reply.body) if isinstance(reply, Reply) else stream(self, reply, request, *more)
        headers = [
            (name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in reply.headers.items()
        ]
        return self.module.Response(reply.status, headers=headers, stream=body, request=request)


class _AsyncWhole:
    """A whole answer."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body


class _Whole:
    """A whole answer in blocking code."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body


class _AsyncStream:
    """A streamed answer."""

    def __init__(self, library: _Library, reply: StreamedReply, request: Any) -> None:
        self._library = library
        self._reply = reply
        self._request = request

    def __aiter__(self) -> _AsyncStream:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._reply.pieces)
        except (TimeoutError, BifrostError) as exc:
            raise self._library.failure(exc, self._request) from exc

    async def aclose(self) -> None:
        await self._reply.aclose()


class _Stream:
    """A streamed answer in blocking code."""

    def __init__(self, library: _Library, reply: StreamedReply, request: Any, blocking: Blocking) -> None:
        self._library = library
        self._reply = reply
        self._request = request
        self._blocking = blocking
        self._is_over = False

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> bytes:
        try:
            piece: bytes = self._blocking(_next, self._reply)
        except (TimeoutError, BifrostError) as exc:
            self._is_over = True
            raise self._library.failure(exc, self._request) from exc
        if not piece:
            self._is_over = True
            raise StopIteration
        return piece

    def close(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        # Nothing can be waited for where the Router has been closed, or where the garbage collector closes this on the
        # Router's own event loop: then the call ends as the reply is dropped.
        with suppress(ConfigError, anyio.RunFinishedError):
            self._blocking(_end, self._reply)


class _AsyncTransport:
    """The Router as an asynchronous transport."""

    library: ClassVar[_Library]
    stream: ClassVar[type[Any]]

    def __init__(self, door: Door) -> None:
        self._door = door

    async def handle_async_request(self, request: Any) -> Any:
        body = await request.aread()
        try:
            reply = await self._door.answer(*_arguments(request), body, limit=_limit(request))
        except TimeoutError as exc:
            raise self.library.failure(exc, request) from exc
        return self.library.response(reply, self.stream, request)


class _Transport:
    """The Router as a blocking transport."""

    library: ClassVar[_Library]
    stream: ClassVar[type[Any]]

    def __init__(self, door: Door, blocking: Blocking) -> None:
        self._door = door
        self._blocking = blocking

    def handle_request(self, request: Any) -> Any:
        body = request.read()
        try:
            reply = self._blocking(self._door.answer, *_arguments(request), body, limit=_limit(request))
        except TimeoutError as exc:
            raise self.library.failure(exc, request) from exc
        return self.library.response(reply, self.stream, request, self._blocking)


@functools.cache
def _made(flavour: str) -> tuple[Any, type[Any], type[Any]]:
    """The library, and its asynchronous and its blocking transport."""
    library = _Library(flavour)
    module = library.module
    whole = type("Whole", (_AsyncWhole, module.AsyncByteStream), {})
    stream = type("Stream", (_AsyncStream, module.AsyncByteStream), {"whole": whole})
    asynchronous = type(
        "RouterTransport", (_AsyncTransport, module.AsyncBaseTransport), {"library": library, "stream": stream}
    )
    whole = type("Whole", (_Whole, module.SyncByteStream), {})
    stream = type("Stream", (_Stream, module.SyncByteStream), {"whole": whole})
    blocking = type("RouterTransport", (_Transport, module.BaseTransport), {"library": library, "stream": stream})
    return module, asynchronous, blocking
