"""The engine on httpx's own HTTP/1.1 layer: httpcore, or httpcore2 below httpx2.

One connection is one slot, and the exchange that uses it owns it. A connection pool that a cancellation
hits in its queue can stay blocked for good (encode/httpcore#1093, #1099); here there is no queue, and a
connection whose exchange did not end cleanly is closed, so nothing broken is ever handed out again. It
costs less, too: a shared pool looks at every connection it has on each request.
"""

from __future__ import annotations

import importlib
import os
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import attrs

from bifrost_core.kinds import Kind
from bifrost_core.wire import Network

from ._upload import Upload
from ._wire import MAX_HEAD, Wire, connect, describe
from .base import Exchange, TransportError

__all__ = ["HttpxEngine"]

_KEEP_ALIVE: Final = 30.0  # seconds that an idle connection is kept
_MAX_IDLE: Final = 256  # idle connections per origin
_MAX_TARGETS: Final = 256  # parsed URLs per network
_CLOSE: Final = 2.0  # seconds that closing may take
_LAYERS: Final = {"httpx": "httpcore", "httpx2": "httpcore2"}
_PORTS: Final = {"http": 80, "https": 443}


@attrs.define(eq=False)
class _Target:
    """A parsed URL, and the idle connections to its origin: the one used last comes first."""

    url: Any
    host: str
    port: int
    header: bytes
    is_tls: bool
    idle: deque[_Line]


class _Line:
    """One connection, the socket below it, and what the running exchange did to it."""

    __slots__ = ("connected", "connection", "idle", "is_proxied", "on_sent", "pending_tls", "wire")

    def __init__(self, idle: deque[_Line], *, is_proxied: bool) -> None:
        self.idle = idle
        self.is_proxied = is_proxied
        self.connection: Any = None
        self.wire: Wire | None = None
        self.connected = False  # in the running exchange: the connection was not used before
        self.pending_tls = 0  # TLS layers that a proxy still has to let through; no request before
        self.on_sent: Callable[[], None] | None = None

    def begin(self, on_sent: Callable[[], None] | None) -> None:
        self.connected = False
        self.on_sent = on_sent
        if self.wire is not None:
            self.wire.begin(on_sent)

    def attach(self, wire: Wire, pending_tls: int = 0) -> None:
        """Take a socket that was opened for the running exchange."""
        self.connected = True
        self.pending_tls = pending_tls
        self.wire = wire
        if pending_tls:
            wire.on_secured = self._secured
        else:
            wire.on_sent = self.on_sent

    def _secured(self, wire: Wire) -> None:
        self.attach(wire, self.pending_tls - 1)

    def is_usable(self) -> bool:
        """Whether another exchange can go over it."""
        if self.wire is None or self.wire.is_closed or self.wire.is_spoilt:
            return False
        if self.is_proxied:
            return True  # httpcore's proxy object reconnects by itself
        return bool(self.connection.is_available() and not self.connection.has_expired())

    async def aclose(self) -> None:
        """Close the socket, whatever state the connection is in and whatever is being cancelled."""
        with anyio.move_on_after(_CLOSE, shield=True), suppress(Exception):
            if self.wire is not None:
                await self.wire.aclose()
            if self.connection is not None:
                await self.connection.aclose()


class _ProxyBackend:
    """Opens the sockets of httpcore's proxy objects, in the shape of its ``AsyncNetworkBackend``."""

    __slots__ = ("_layers", "_line")

    def __init__(self, line: _Line, layers: int) -> None:
        self._line = line
        self._layers = layers

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 # httpcore's signature
        local_address: str | None = None,  # noqa: ARG002 # httpcore's signature
        socket_options: object = None,  # noqa: ARG002 # httpcore's signature
    ) -> Wire:
        wire = await connect(host, port, None, timeout)
        self._line.attach(wire, self._layers)
        return wire


class _Lane:
    """What is kept for one network: its TLS context, parsed URLs, idle connections."""

    def __init__(self, network: Network, modules: _Modules) -> None:
        self._network = network
        self._modules = modules
        self._context: ssl.SSLContext | None = None
        self._proxy: Any = None
        self._targets: dict[str, _Target] = {}
        self.idle: dict[tuple[str, str, int], deque[_Line]] = {}

    def target(self, url: str) -> _Target:
        """The parsed form of ``url``.

        Raises:
            ValueError: It is no URL that can be asked.
        """
        target = self._targets.get(url)
        if target is None:
            parts = urlsplit(url)
            if parts.scheme not in _PORTS or not parts.hostname:
                raise ValueError("not an absolute http or https URL")
            host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
            header = f"[{host}]" if ":" in host else host
            if port != _PORTS[parts.scheme]:
                header = f"{header}:{port}"
            path = parts.path or "/"
            target = _Target(
                url=self._modules.core.URL(
                    scheme=parts.scheme.encode("ascii"),
                    host=host.encode("ascii"),
                    port=port,
                    target=(f"{path}?{parts.query}" if parts.query else path).encode("ascii"),
                ),
                host=host,
                port=port,
                header=header.encode("ascii"),
                is_tls=parts.scheme == "https",
                idle=self.idle.setdefault((parts.scheme, host, port), deque()),
            )
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            self._targets[url] = target
        return target

    def context(self) -> ssl.SSLContext:
        """The TLS context, made at the first connection that needs it.

        Raises:
            OSError: The CA bundle can not be read.
        """
        if self._context is None:
            verify = self._network.verify
            if isinstance(verify, ssl.SSLContext):
                context = verify
            elif isinstance(verify, (str, os.PathLike)):
                path = Path(os.fspath(verify))
                is_folder = path.is_dir()
                context = ssl.create_default_context(
                    cafile=None if is_folder else str(path), capath=str(path) if is_folder else None
                )
            else:
                context = self._modules.client().create_ssl_context(verify=True, trust_env=False)
            context.set_alpn_protocols(["http/1.1"])
            self._context = context
            return context
        return self._context

    async def line(self, target: _Target, exchange: Exchange) -> _Line:
        """A new connection to ``target``.

        Raises:
            TransportError: There is none.
        """
        if self._network.proxy is not None:
            return self._proxied(target, self._network.proxy, exchange)
        line = _Line(target.idle, is_proxied=False)
        line.begin(exchange.on_sent)
        context = self.context() if target.is_tls else None
        wire = await connect(target.host, target.port, context, exchange.connect)
        line.attach(wire)
        line.connection = self._modules.core.AsyncHTTP11Connection(
            origin=target.url.origin, stream=wire, keepalive_expiry=_KEEP_ALIVE
        )
        self._modules.join_pieces(line.connection)
        return line

    def _proxied(self, target: _Target, proxy: str, exchange: Exchange) -> _Line:
        """A connection that httpcore opens through the proxy when it is used."""
        core = self._modules.core
        if self._proxy is None:
            self._proxy = self._modules.client().Proxy(proxy)
        url = self._proxy.url
        socks = url.scheme.startswith("socks")
        layers = int(target.is_tls) + int(url.scheme == "https")
        line = _Line(target.idle, is_proxied=True)
        line.begin(exchange.on_sent)
        options: dict[str, Any] = {
            "proxy_url": core.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            "proxy_auth": self._proxy.raw_auth,
            "ssl_context": self.context() if layers else None,
            "max_connections": 1,
            "max_keepalive_connections": 1,
            "keepalive_expiry": _KEEP_ALIVE,
            "network_backend": _ProxyBackend(line, layers),
        }
        if url.scheme == "https":
            options["proxy_ssl_context"] = self.context()
        line.connection = (core.AsyncSOCKSProxy if socks else core.AsyncHTTPProxy)(**options)
        return line


@attrs.define(eq=False)
class _Modules:
    """httpx or httpx2, and the layer below; the first is three times as slow to import, and seldom needed."""

    name: str
    core: ModuleType

    def client(self) -> ModuleType:
        return importlib.import_module(self.name)

    def join_pieces(self, connection: Any) -> None:
        from ._h11 import join_pieces  # noqa: PLC0415 # h11 comes with httpcore, so not before it

        join_pieces(connection)


class _Outgoing:
    """A body on its way over one connection."""

    __slots__ = ("_line", "_stop", "_upload")

    def __init__(self, upload: Upload, line: _Line, stop: type[Exception]) -> None:
        self._upload = upload
        self._line = line
        self._stop = stop

    def __aiter__(self) -> _Outgoing:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes; none that nobody takes any more: httpcore goes on to the answer after its ``WriteError``."""
        wire = self._line.wire
        if wire is not None and wire.is_spoilt:
            raise self._stop
        return await self._upload.__anext__()


class _Answer:
    """An answer whose head has arrived. See ``HttpStream``."""

    __slots__ = ("_body", "_engine", "_is_whole", "_line", "_response", "_reused", "headers", "status")

    def __init__(self, engine: HttpxEngine, line: _Line, response: Any) -> None:
        self.status: int = response.status
        self.headers: list[tuple[bytes, bytes]] = response.headers
        self._engine = engine
        self._line: _Line | None = line
        self._response = response
        self._reused = not line.connected
        self._body = response.aiter_stream()
        self._is_whole = False

    def __aiter__(self) -> _Answer:
        return self

    async def __anext__(self) -> bytes:
        failure: TransportError
        try:
            data: bytes = await self._body.__anext__()
        except StopAsyncIteration:
            self._is_whole = True
            raise
        except TransportError as exc:
            failure = exc
        except Exception as exc:  # h11's words on a body that is cut or wrongly framed
            failure = TransportError(Kind.BAD_RESPONSE, describe(exc), phase="idle", received=True)
        else:
            return data
        failure.reused = self._reused
        raise failure.with_traceback(None)

    async def aclose(self) -> None:
        line, self._line = self._line, None
        if line is None:
            return
        if self._is_whole:
            try:
                await self._response.aclose()
            except BaseException:  # cancelled on the last step: the line's state is not known
                await self._engine.drop(line)
                raise
            await self._engine.give_back(line)
            return
        with anyio.move_on_after(_CLOSE, shield=True), suppress(Exception):
            await line.wire.aclose()  # type: ignore[union-attr] # an answer came over it
            # httpcore's generators end by themselves when they read on over a closed socket; left
            # suspended they would be finished by the collector, in another task.
            while True:
                await self._body.__anext__()
        await self._engine.drop(line)


class HttpxEngine:
    """Sends exchanges over HTTP/1.1 connections of its own. See ``HttpEngine``.

    No redirects, no retries, no cookies, no environment variables; a proxy or another CA comes by
    ``Network``. The number of connections is that of the exchanges in flight: who wants a bound sets
    ``Network.max_in_flight``.

    Args:
        flavour: ``"httpx"`` or ``"httpx2"``; imported by the first exchange.
    """

    def __init__(self, flavour: str = "httpx") -> None:
        self.flavour = flavour
        self._modules: _Modules | None = None
        self._lanes: dict[Network, _Lane] = {}
        self._busy: set[_Line] = set()
        self._is_closed = False

    @property
    def in_flight(self) -> int:
        """Exchanges whose connection has not been given back."""
        return len(self._busy)

    @property
    def idle(self) -> int:
        """Connections that are open and unused."""
        return sum(len(idle) for lane in self._lanes.values() for idle in lane.idle.values())

    async def open(self, exchange: Exchange) -> _Answer:
        """See ``HttpEngine.open``."""
        line: _Line | None = None
        upload = None if isinstance(exchange.body, bytes) else Upload(exchange.body)
        failure: TransportError
        try:
            lane = self._lane(exchange.network)
            target = lane.target(exchange.url)
            if not exchange.fresh:
                line = await self._take(target.idle, exchange)
            if line is None:
                line = await lane.line(target, exchange)
                self._busy.add(line)
            request = self._request(exchange, target, line, upload)
            response = await line.connection.handle_async_request(request)
            if exchange.idle is not None:  # httpcore reads it anew when the body begins
                request.extensions["timeout"]["read"] = exchange.idle
            if line.wire is not None:
                line.wire.head_done = True
            size = sum(len(name) + len(value) + 4 for name, value in response.headers)
            if response.status >= 200 and size <= MAX_HEAD:
                return _Answer(self, line, response)
            text = f"the header section has {size} bytes" if size > MAX_HEAD else f"status {response.status}"
            failure = TransportError(Kind.PROTOCOL_ERROR, text, received=True)
        except TransportError as exc:
            failure = exc
        except Exception as exc:
            failure = self._translate(exc, line)
        except BaseException:  # a cancellation; raised again as it is
            if line is not None:
                await self.drop(line)
            raise
        finally:
            if upload is not None:
                upload.close()
        if line is not None:
            failure.reused = not line.connected and failure.kind is not Kind.CONNECT_ERROR
            if line.pending_tls:  # the proxy failed, or what it led to: the request has not left
                failure.kind, failure.phase, failure.sent, failure.received = (
                    Kind.CONNECT_ERROR,
                    "connect",
                    False,
                    False,
                )
            await self.drop(line)
        raise failure.with_traceback(None)

    def _lane(self, network: Network) -> _Lane:
        if self._is_closed:
            raise TransportError(Kind.CONNECT_ERROR, "the engine is closed", phase="connect", sent=False)
        lane = self._lanes.get(network)
        if lane is None:
            if self._modules is None:
                self._modules = _Modules(self.flavour, importlib.import_module(_LAYERS[self.flavour]))
            lane = self._lanes[network] = _Lane(network, self._modules)
        return lane

    async def _take(self, idle: deque[_Line], exchange: Exchange) -> _Line | None:
        """The connection that was used last, if one is still good."""
        while idle:
            line = idle.pop()
            self._busy.add(line)
            if line.is_usable():
                line.begin(exchange.on_sent)
                return line
            await self.drop(line)
        return None

    def _request(self, exchange: Exchange, target: _Target, line: _Line, upload: Upload | None) -> Any:
        assert self._modules is not None  # noqa: S101 # set with the first lane; for the type checker
        length = len(exchange.body)
        content: Any = exchange.body
        if upload is not None:
            content = _Outgoing(upload, line, self._modules.core.WriteError)
        return self._modules.core.Request(
            exchange.method,
            target.url,
            headers=[
                (b"host", target.header),
                *exchange.headers,
                *([(b"content-length", b"%d" % length)] if length or exchange.method != "GET" else ()),
            ],
            content=content,
            extensions={
                "timeout": {"connect": exchange.connect, "read": exchange.read, "write": exchange.read, "pool": 1.0}
            },
        )

    def _translate(self, exc: Exception, line: _Line | None) -> TransportError:
        """A failure that httpcore worded. Its texts about *our* request may hold the key: they are dropped."""
        wire = None if line is None else line.wire
        sent = wire is not None and wire.sent
        received = wire is not None and wire.received > 0
        name = type(exc).__name__
        if name == "RemoteProtocolError":
            return TransportError(Kind.PROTOCOL_ERROR, describe(exc), sent=sent, received=received)
        if isinstance(exc, (OSError, ImportError)) or name == "ProxyError":  # a CA bundle, the proxy
            return TransportError(Kind.CONNECT_ERROR, describe(exc), phase="connect", sent=False)
        text = f"{name}: the request can not be written as HTTP; a header or the URL holds a forbidden character"
        kind = Kind.PROTOCOL_ERROR if sent else Kind.INVALID_REQUEST
        return TransportError(kind, text, sent=sent, received=received)

    async def give_back(self, line: _Line) -> None:
        """Take a connection whose exchange ended well; close it if it can not be used again."""
        if self._is_closed or not line.is_usable():
            await self.drop(line)
            return
        idle = line.idle
        self._busy.discard(line)
        idle.append(line)
        # The one that waits longest goes when its time is up, one at a time.
        if len(idle) > 1 and (len(idle) > _MAX_IDLE or not idle[0].is_usable()):
            await idle.popleft().aclose()

    async def drop(self, line: _Line) -> None:
        """Close a connection for good."""
        self._busy.discard(line)
        await line.aclose()

    async def aclose(self) -> None:
        """Close every connection, used ones included. Safe to repeat."""
        self._is_closed = True
        lines = [*self._busy, *(line for lane in self._lanes.values() for idle in lane.idle.values() for line in idle)]
        self._busy.clear()
        self._lanes.clear()
        for line in lines:
            await line.aclose()
