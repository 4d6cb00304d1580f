"""The engine on aiohttp, for many calls at once on asyncio: the extra ``fast``.

aiohttp parses in C and has no pool that looks at every connection. It runs on asyncio alone.

Source:
    https://docs.aiohttp.org/en/stable/client_reference.html and …/tracing_reference.html.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
import yarl
from aiohttp.client_proto import ResponseHandler

from bifrost_core.kinds import Kind
from bifrost_core.wire import Network

from ._upload import Upload
from ._wire import MAX_HEAD, describe
from .base import Exchange, TransportError

__all__ = ["AiohttpEngine"]

_KEEP_ALIVE: Final = 30.0  # seconds that an idle connection is kept
_MAX_URLS: Final = 256
_PIECE: Final = 64 * 1024  # bytes that are read at once; a larger body goes out in pieces, too
_AUTO: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # headers that are ours to set


class _Progress:
    """What aiohttp tells of one exchange while it goes on."""

    __slots__ = ("exchange", "received", "reused", "sent")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.received = False
        self.reused = False
        self.sent = False

    def connected(self, *, reused: bool) -> None:
        """There is a connection; next the request goes out."""
        self.reused = reused
        self.sent = True
        if self.exchange.on_sent is not None:
            self.exchange.on_sent()


_running: ContextVar[_Progress] = ContextVar("_running")


class _Handler(ResponseHandler):
    """aiohttp's side of one connection, which also tells whether any byte of an answer has come."""

    progress: _Progress | None = None

    def set_response_params(self, **params: Any) -> None:
        """The next exchange begins."""
        self.progress = _running.get(None)
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self.progress is not None:
            self.progress.received = True
        super().data_received(data)


class _Connector(aiohttp.TCPConnector):
    """Makes connections that tell of their first byte."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType] # of a socket factory
        # There is no public way to be told of it, and on it hangs whether a request may be sent again.
        self._factory = partial(_Handler, loop=self._loop)  # type: ignore[assignment] # pyright: ignore[reportAttributeAccessIssue]


async def _created(_session: Any, context: Any, _: Any) -> None:
    context.trace_request_ctx.connected(reused=False)


async def _reused(_session: Any, context: Any, _: Any) -> None:
    context.trace_request_ctx.connected(reused=True)


def _trace() -> aiohttp.TraceConfig:
    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(_created)
    trace.on_connection_reuseconn.append(_reused)
    return trace


class _Answer:
    """An answer whose head has arrived. See ``HttpStream``."""

    __slots__ = ("_is_whole", "_progress", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, progress: _Progress) -> None:
        self.status: int = response.status
        self.headers: Sequence[tuple[bytes, bytes]] = response.raw_headers
        self._response: aiohttp.ClientResponse | None = response
        self._progress = progress
        self._is_whole = False

    def __aiter__(self) -> _Answer:
        return self

    async def __anext__(self) -> bytes:
        failure: TransportError
        if self._response is None or self._is_whole:
            raise StopAsyncIteration
        try:
            data = await self._response.content.read(_PIECE)
        except Exception as exc:
            failure = _in_body(exc)
        else:
            if data:
                return data
            self._is_whole = True
            raise StopAsyncIteration
        failure.reused = self._progress.reused
        raise failure.with_traceback(None)

    async def aclose(self) -> None:
        response, self._response = self._response, None
        if response is None:
            return
        if self._is_whole:
            response.release()
        else:
            response.close()


class AiohttpEngine:
    """Sends exchanges over aiohttp's connections. See ``HttpEngine``.

    No redirects, no cookies, no environment variables. SOCKS proxies are not in aiohttp's power.

    Attributes:
        event_loop: The only event loop on which it runs.
    """

    event_loop: Final = "asyncio"

    def __init__(self) -> None:
        self._sessions: dict[tuple[Network, bool], aiohttp.ClientSession] = {}
        self._urls: dict[str, yarl.URL] = {}
        self._open: set[_Progress] = set()
        self._is_closed = False

    async def open(self, exchange: Exchange) -> _Answer:
        """See ``HttpEngine.open``."""
        progress = _Progress(exchange)
        upload = Upload(exchange.body) if len(exchange.body) > _PIECE else None
        failure: TransportError
        try:
            session = self._session(exchange.network, fresh=exchange.fresh)
            _running.set(progress)
            response = await session.request(
                exchange.method,
                self._url(exchange.url),
                headers=_headers(exchange),
                data=_pieces(upload) if upload is not None else exchange.body or None,
                allow_redirects=False,
                proxy=_proxy(exchange.network),
                timeout=aiohttp.ClientTimeout(total=None, connect=exchange.connect, sock_read=exchange.read),
                trace_request_ctx=progress,
            )
            size = sum(len(name) + len(value) + 4 for name, value in response.raw_headers)
            if size <= MAX_HEAD:
                connection = response.connection
                if exchange.idle is not None and connection is not None and connection.protocol is not None:
                    connection.protocol.read_timeout = exchange.idle
                return _Answer(response, progress)
            response.close()
            failure = TransportError(Kind.PROTOCOL_ERROR, f"the header section has {size} bytes", received=True)
        except TransportError as exc:
            failure = exc
        except Exception as exc:
            failure = _before_head(exc, progress)
        finally:
            if upload is not None:
                upload.close()
        failure.reused = progress.reused and failure.kind is not Kind.CONNECT_ERROR
        raise failure.with_traceback(None)

    def _url(self, url: str) -> yarl.URL:
        found = self._urls.get(url)
        if found is None:
            if len(self._urls) >= _MAX_URLS:
                self._urls.clear()
            found = self._urls[url] = yarl.URL(url, encoded=True)
        return found

    def _session(self, network: Network, *, fresh: bool) -> aiohttp.ClientSession:
        """The pool of a network; another one, whose connections serve once, for exchanges that want a new one."""
        if self._is_closed:
            raise TransportError(Kind.CONNECT_ERROR, "the engine is closed", phase="connect", sent=False)
        session = self._sessions.get((network, fresh))
        if session is None:
            context = _context(network)
            if fresh:
                connector = _Connector(limit=0, ssl=context, force_close=True)
            else:
                connector = _Connector(limit=0, ssl=context, keepalive_timeout=_KEEP_ALIVE)
            session = self._sessions[network, fresh] = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                max_field_size=MAX_HEAD,
                max_line_size=MAX_HEAD,
                skip_auto_headers=_AUTO,
                trace_configs=[_trace()],
                trust_env=False,
            )
        return session

    async def aclose(self) -> None:
        """Close every connection, used ones included. Safe to repeat."""
        self._is_closed = True
        sessions = [*self._sessions.values()]
        self._sessions.clear()
        for session in sessions:
            with suppress(Exception):
                await session.close()


def _headers(exchange: Exchange) -> list[tuple[str, str]]:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in exchange.headers]
    length = len(exchange.body)
    if length or exchange.method != "GET":
        headers.append(("content-length", str(length)))
    return headers


async def _pieces(upload: Upload) -> Any:
    async for piece in upload:
        yield piece


def _proxy(network: Network) -> str | None:
    proxy = network.proxy
    if proxy is not None and proxy.startswith("socks"):
        raise TransportError(
            Kind.CONNECT_ERROR,
            'aiohttp has no SOCKS proxies; use engine="httpx"',
            phase="connect",
            sent=False,
        )
    return proxy


def _context(network: Network) -> ssl.SSLContext:
    verify = network.verify
    if isinstance(verify, ssl.SSLContext):
        return verify
    if isinstance(verify, (str, os.PathLike)):
        path = Path(os.fspath(verify))
        is_folder = path.is_dir()
        return ssl.create_default_context(
            cafile=None if is_folder else str(path), capath=str(path) if is_folder else None
        )
    import httpx  # noqa: PLC0415 # slow to import; the same certificates as with the other engines

    return httpx.create_ssl_context(verify=True, trust_env=False)


def _in_body(exc: Exception) -> TransportError:
    """What went wrong behind the head of an answer."""
    if isinstance(exc, TimeoutError):
        return TransportError(Kind.READ_TIMEOUT, describe(exc), phase="idle", received=True)
    return TransportError(Kind.BAD_RESPONSE, type(exc).__name__, phase="idle", received=True)


def _before_head(exc: Exception, progress: _Progress) -> TransportError:
    """What went wrong before it, by the class of what aiohttp raised: its texts may quote the request."""
    name = type(exc).__name__
    if isinstance(exc.__cause__, TransportError):  # of ours: a file can not be read
        return exc.__cause__
    if isinstance(exc, (aiohttp.ClientConnectorError, aiohttp.ClientConnectorCertificateError)):
        insecure = isinstance(exc, aiohttp.ClientConnectorCertificateError)
        return TransportError(Kind.CONNECT_ERROR, name, phase="connect", sent=False, insecure=insecure)
    if isinstance(exc, (aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)) or not progress.sent:
        if isinstance(exc, (aiohttp.InvalidURL, ValueError)):
            return TransportError(Kind.INVALID_REQUEST, name, phase="connect", sent=False)
        return TransportError(Kind.CONNECT_ERROR, name, phase="connect", sent=False)
    if isinstance(exc, TimeoutError):
        return TransportError(Kind.READ_TIMEOUT, name, received=progress.received)
    if isinstance(exc, (aiohttp.ServerDisconnectedError, OSError)) and not progress.received:
        return TransportError(Kind.CONNECTION_LOST, name)
    return TransportError(Kind.PROTOCOL_ERROR, name, received=progress.received)
