"""The one place that does I/O for all providers: credential on, exchange out, bounded bytes in.

An adapter says what to send and reads what came; an engine moves bytes. Between them the sender puts the
key on the request, keeps the limits of concurrency, caps and decompresses answers, and turns what fails
below HTTP into errors that hold neither a request nor an exception of an HTTP library (both hold the key).

It opens no task group: to survive a native ``task.cancel()`` its methods run in a task of the Router's own.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self, overload

import anyio
import attrs
import sniffio

from ._errors import ConfigError
from .clocks import Clock, SystemClock
from .decompression import BodyError, Decompressor
from .engines import make_engine
from .engines.base import Exchange, HttpEngine, HttpStream, TransportError
from .errors import CallError, ProviderError, ProviderTimeoutError, RateLimitError, error_class
from .keys import Key, Secret
from .kinds import Kind
from .limiter import Limiter, QueueFullError
from .providers.base import Provider
from .wire import Auth, HttpCall, HttpReply, Network

__all__ = ["ReplyStream", "SendError", "SendLimits", "Sender"]

_log = logging.getLogger(__name__)

MAX_BODY: Final = 64 * 1024 * 1024  # bytes of a decoded answer
MAX_ERROR_BODY: Final = 64 * 1024  # bytes that are read of an answer that is no success
_ERROR_PATIENCE: Final = 5.0  # seconds for the body of such an answer; its status is known already
_END_PATIENCE: Final = 0.01  # seconds to wait for the end of a stream that has said all it had to
_MAX_CREDENTIALS: Final = 1_024

_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2, token
_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")  # RFC 9110 section 5.5, without CR, LF, NUL and other controls
_RESERVED: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_PROXIES: Final = ("http://", "https://", "socks5://", "socks5h://")

# What the body of a *stream* fails as, where that differs from a whole answer.
_STREAM_KINDS: Final = {Kind.BAD_RESPONSE: Kind.STREAM_TRUNCATED, Kind.PROTOCOL_ERROR: Kind.STREAM_TRUNCATED}


@attrs.frozen
class SendLimits:
    """How long the parts of one exchange may take, in seconds. The whole is bounded by who calls.

    Attributes:
        connect: TCP and TLS together.
        first_byte: Silence before the head of the answer; of a plain answer also inside its body.
        idle: Silence inside the body of a stream.
        pool: Waiting for a place under the provider's own limits of concurrency.
    """

    connect: float = 2.0
    first_byte: float = 60.0
    idle: float = 30.0
    pool: float = 1.0


class SendError(Exception):
    """An exchange did not bring an answer. Caught by the Router, never shown to users.

    Args:
        error: What to raise: ``raise exc.error`` belongs outside of the ``except`` block.
        sent: Whether any byte of the request may have reached the provider.
        received: Whether any byte of the answer had arrived.
        reused: Whether the connection had been used before.
        insecure: The provider's certificate is not trusted, or names another host.
    """

    def __init__(
        self,
        error: CallError,
        *,
        sent: bool = False,
        received: bool = False,
        reused: bool = False,
        insecure: bool = False,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.sent = sent
        self.received = received
        self.reused = reused
        self.insecure = insecure


class _Headers(Sequence[tuple[bytes, bytes]]):
    """Headers with the credential among them, as they are sent. Shows their number, not their values."""

    __slots__ = ("_items",)

    def __init__(self, *parts: Sequence[tuple[bytes, bytes]]) -> None:
        self._items = tuple(item for part in parts for item in part)

    @overload
    def __getitem__(self, index: int) -> tuple[bytes, bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[bytes, bytes]]: ...
    def __getitem__(self, index: int | slice) -> tuple[bytes, bytes] | Sequence[tuple[bytes, bytes]]:
        return self._items[index]

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<{len(self._items)} headers>"


class _Credential:
    """The header that carries one key."""

    __slots__ = ("_all", "_own", "_plain", "auth", "secret")

    def __init__(self, auth: Auth, secret: Secret) -> None:
        self.auth = auth
        self.secret = secret
        # The one place that reveals a key.
        self._own = _Headers([(auth.header, auth.prefix + secret.reveal().encode("ascii"))])
        self._plain: Sequence[tuple[bytes, bytes]] = ()
        self._all = self._own

    def put_on(self, plain: Sequence[tuple[bytes, bytes]]) -> _Headers:
        """``plain`` and the credential. Adapters mostly give the same tuple each time: the last one is kept."""
        if plain is not self._plain:
            self._plain, self._all = plain, _Headers(plain, self._own)
        return self._all


class _Lane:
    """What is kept for one provider's network: checked headers, credentials, limits."""

    def __init__(self, provider: str, network: Network, auth: Auth) -> None:
        self.provider = provider
        self.extra = _extra_headers(provider, network, auth)
        self.names = frozenset(name for name, _ in self.extra)
        self.credentials: dict[int, _Credential] = {}
        self.total = None if network.max_in_flight is None else Limiter(network.max_in_flight)
        self.per_key = network.max_in_flight_per_key
        self.keys: dict[str, Limiter] = {}
        self.is_limited = self.total is not None or self.per_key is not None

    def headers(self, call: HttpCall, auth: Auth, secret: Secret | None) -> _Headers:
        """All headers of one exchange; what the user configured goes before what the adapter says."""
        plain: Sequence[tuple[bytes, bytes]] = call.headers
        if self.extra:
            plain = [*(header for header in plain if header[0] not in self.names), *self.extra]
        if secret is None:
            return _Headers(plain)
        credential = self.credentials.get(id(secret))
        if credential is None or credential.secret is not secret or credential.auth != auth:
            if len(self.credentials) >= _MAX_CREDENTIALS:
                self.credentials.clear()
            credential = self.credentials[id(secret)] = _Credential(auth, secret)
        return credential.put_on(plain)

    async def enter(self, key: str, patience: float) -> None:
        """Take the places that the limits ask for: the key's first, so that nobody waits with the provider's taken.

        Raises:
            QueueFullError: None is free in time.
        """
        limiter = None
        if self.per_key is not None:
            limiter = self.keys.get(key)
            if limiter is None:
                limiter = self.keys[key] = Limiter(self.per_key)
            await limiter.acquire(patience)
        if self.total is not None:
            try:
                await self.total.acquire(patience)
            except BaseException:
                self._leave_key(key, limiter)
                raise

    def leave(self, key: str) -> None:
        """Give the places back."""
        if self.total is not None:
            self.total.release()
        self._leave_key(key, self.keys.get(key))

    def _leave_key(self, key: str, limiter: Limiter | None) -> None:
        if limiter is not None:
            limiter.release()
            if limiter.is_unused:  # keys come and go; their limiters go with them
                self.keys.pop(key, None)


def _extra_headers(provider: str, network: Network, auth: Auth) -> tuple[tuple[bytes, bytes], ...]:
    """Check what the user configured for a provider's network; return its headers as they are sent.

    Raises:
        ConfigError: A header, the proxy or ``verify`` can not be used. Quotes no value.
    """
    items: list[tuple[bytes, bytes]] = []
    for name, value in network.headers.items():
        lower = name.lower()
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise ConfigError(f"{provider}: header {name!r} can not be sent: a forbidden character", field="headers")
        if lower in _RESERVED or lower.encode() == auth.header:
            raise ConfigError(
                f"{provider}: header {name!r} is set by the library; give credentials as a Key", field="headers"
            )
        items.append((lower.encode(), value.strip().encode("latin-1")))
    if network.proxy is not None and not network.proxy.startswith(_PROXIES):
        raise ConfigError(f"{provider}: a proxy is a URL with one of {', '.join(_PROXIES)}", field="proxy")
    if network.verify is not True and not isinstance(network.verify, (str, os.PathLike, ssl.SSLContext)):
        raise ConfigError(
            f"{provider}: verify is True, a path or an ssl.SSLContext, not {network.verify!r}", field="verify"
        )
    return tuple(items)


def _lower(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _coding(headers: dict[str, str]) -> str:
    """The content coding that has to be undone; ``""`` for none."""
    coding = headers.get("content-encoding", "").strip().lower()
    return "" if coding == "identity" else coding


_OPENING: Final = {
    Kind.CONNECT_ERROR: "can not be reached",
    Kind.CONNECTION_LOST: "closed the connection",
    Kind.READ_TIMEOUT: "did not answer in time",
    Kind.PROTOCOL_ERROR: "did not answer in HTTP",
    Kind.INVALID_REQUEST: "was not asked",
    Kind.RATE_EXCEEDED: "has its limit of requests in flight",
    Kind.RESPONSE_TOO_LARGE: "sent too much",
}


class _Once:
    """Passes the news that a request goes out, once."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[], None] | None) -> None:
        self._tell = tell

    def __call__(self) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()


@attrs.define(eq=False)
class _Exchanging:
    """One exchange between its start and the release of what it holds."""

    provider: Provider
    key: Key | None
    lane: _Lane
    stream: HttpStream | None = None
    has_place: bool = False
    is_counted: bool = False

    @property
    def key_id(self) -> str:
        return "" if self.key is None else self.key.id

    def failed(self, failure: TransportError | BodyError, kind: Kind | None = None, phase: str = "") -> SendError:
        """The failure as the Router sees it: words only, secrets masked."""
        kind = failure.kind if kind is None else kind
        text = failure.message
        if self.key is not None and self.key.secret is not None:
            text = self.key.secret.mask(text)
        message = f"{self.provider.name} {_OPENING.get(kind, 'sent an unusable answer')}: {text}"
        cls = error_class(kind)
        fields: dict[str, Any] = {"kind": kind}
        if issubclass(cls, ProviderError):
            fields |= {"provider": self.provider.name, "key_id": self.key_id}
        if issubclass(cls, ProviderTimeoutError):
            fields["phase"] = phase or getattr(failure, "phase", "first_byte")
        if issubclass(cls, RateLimitError):
            fields["scope"] = "queue"
        if self.stream is not None:
            fields |= {"status": self.stream.status} if issubclass(cls, ProviderError) else {}
        error = cls(message, **fields)
        if isinstance(failure, TransportError):
            return SendError(
                error,
                sent=failure.sent,
                received=failure.received,
                reused=failure.reused,
                insecure=failure.insecure,
            )
        return SendError(error, sent=True, received=True)


class ReplyStream:
    """An answer whose head has arrived; iterating gives its decompressed bytes.

    Leave it by ``async with`` or ``aclose()``, in the task that opened it.

    Attributes:
        status: HTTP status; anything from 100 up. Not 2xx: read ``reply()`` instead of iterating.
        headers: Names in lower case, repeated ones joined.
        received_at: When the head arrived, in seconds since 1970, UTC.
    """

    def __init__(self, sender: Sender, run: _Exchanging, stream: HttpStream, received_at: float, cap: int) -> None:
        self.status = stream.status
        self.headers = _lower(stream.headers)
        self.received_at = received_at
        self._sender = sender
        self._run = run
        self._cap = cap
        self._size = 0
        self._body: AsyncIterator[bytes] = stream.__aiter__()
        self._decoder: Decompressor | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._is_closed = False

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    def __aiter__(self) -> ReplyStream:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes.

        Raises:
            SendError: The stream broke (``stream_truncated``), fell silent (``read_timeout``, phase
                ``idle``), is badly compressed (``stream_malformed``) or too large.
        """
        try:
            if self._decoder is None:
                data = await self._body.__anext__()
            else:
                data = await self._decoded(self._decoder)
            self._size += len(data)
            if self._size <= self._cap:
                return data
            failure = self._run.failed(_too_large(self._cap))
        except StopAsyncIteration:
            raise
        except TransportError as exc:
            failure = self._run.failed(exc, _STREAM_KINDS.get(exc.kind), "idle")
        except BodyError as exc:
            failure = self._run.failed(exc, Kind.STREAM_MALFORMED)
        except Exception as exc:
            failure = self._run.failed(_unknown(exc), Kind.STREAM_TRUNCATED)
        raise failure.with_traceback(None)

    async def _decoded(self, decoder: Decompressor) -> bytes:
        while True:
            piece = next(self._pieces, None)
            if piece is not None:
                return piece
            try:
                self._pieces = decoder.feed(await self._body.__anext__())
            except StopAsyncIteration:
                break
        try:
            decoder.finish()
        except BodyError as exc:
            failure = TransportError(Kind.STREAM_TRUNCATED, exc.message, phase="idle", received=True)
        else:
            raise StopAsyncIteration
        raise failure

    def start(self) -> None:
        """Look at the content coding of a 2xx answer.

        Raises:
            BodyError: It can not be undone.
        """
        coding = _coding(self.headers)
        if coding and self.is_success:
            self._decoder = Decompressor(coding)

    async def reply(self) -> HttpReply:
        """Read what is left, at most 64 KiB and 5 s, and close: for an answer that is no success.

        A body that breaks is given as far as it came: the status says enough.
        """
        try:
            body = await _read_error(self._body, _coding(self.headers))
        finally:
            await self.aclose()
        return HttpReply(self.status, self.headers, body, self.received_at)

    async def finish(self) -> None:
        """Close after the last event was read; waits 10 ms for the end of the body, so that the connection is kept."""
        with anyio.move_on_after(_END_PATIENCE):
            try:
                async for _ in self._body:
                    continue
            except Exception:  # noqa: S110 # nothing that breaks now matters: all of the answer is here
                pass
        await self.aclose()

    async def aclose(self) -> None:
        """Give the connection back, or close it when the body was not read to its end. Safe to repeat."""
        if not self._is_closed:
            self._is_closed = True
            await self._sender.end(self._run)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _too_large(cap: int) -> BodyError:
    return BodyError(Kind.RESPONSE_TOO_LARGE, f"the answer has more than {cap} bytes")


def _unknown(exc: Exception) -> TransportError:
    """What an engine should not have raised. Its text is not ours to trust: the class name has to do."""
    return TransportError(Kind.PROTOCOL_ERROR, f"the engine raised {type(exc).__name__}")


async def _read_all(body: AsyncIterator[bytes], headers: dict[str, str], cap: int) -> bytes:
    """The whole body of a success, decompressed.

    Raises:
        BodyError: More than ``cap`` bytes, or badly compressed.
        TransportError: The connection failed.
    """
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > cap:
        raise _too_large(cap)
    coding = _coding(headers)
    decoder = Decompressor(coding) if coding else None
    parts: list[bytes] = []
    size = 0
    async for data in body:
        for piece in (data,) if decoder is None else decoder.feed(data):
            size += len(piece)
            if size > cap:
                raise _too_large(cap)
            parts.append(piece)
    if decoder is not None:
        decoder.finish()
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _read_error(body: AsyncIterator[bytes], coding: str) -> bytes:
    """What can be had of the body of an answer that is no success; never raises for what is wrong with it."""
    parts: list[bytes] = []
    size = 0
    with anyio.move_on_after(_ERROR_PATIENCE):
        try:
            decoder = Decompressor(coding) if coding else None
            async for data in body:
                for piece in (data,) if decoder is None else decoder.feed(data):
                    parts.append(piece)
                    size += len(piece)
                    if size >= MAX_ERROR_BODY:
                        break
                if size >= MAX_ERROR_BODY:
                    break
        except Exception:  # noqa: S110 # see above
            pass
    return b"".join(parts)[:MAX_ERROR_BODY]


class Sender:
    """Sends exchanges for every provider of one Router. Belongs to one event loop.

    Args:
        engine: As for ``make_engine``. What the user brought stays the user's to close.
        clock: For ``received_at``.
        max_body: Bytes that a decoded answer may have.

    Raises:
        ConfigError: ``engine`` is none.
    """

    def __init__(self, engine: object = "auto", *, clock: Clock | None = None, max_body: int = MAX_BODY) -> None:
        self.engine: HttpEngine = make_engine(engine)
        self.in_flight = 0
        self._owns_engine = self.engine is not engine
        self._clock = SystemClock() if clock is None else clock
        self._max_body = max_body
        self._lanes: dict[Network, _Lane] = {}

    def prepare(self, provider: Provider) -> None:
        """Check a provider's network settings before the first call.

        Raises:
            ConfigError: A header, the proxy or ``verify`` can not be used.
        """
        self._lane(provider)

    def check_event_loop(self) -> None:
        """See whether the engine runs on the event loop that runs now.

        Raises:
            ConfigError: It does not.
        """
        needed = getattr(self.engine, "event_loop", None)
        running = sniffio.current_async_library()
        if needed is not None and needed != running:
            raise ConfigError(f'this engine runs on {needed} alone, not on {running}; use "httpx"', field="engine")

    def waiting(self, provider: Provider) -> int:
        """How many exchanges wait for a place under the provider's limits."""
        lane = self._lane(provider)
        limiters = [*lane.keys.values(), *([lane.total] if lane.total is not None else [])]
        return sum(limiter.waiting for limiter in limiters)

    def _lane(self, provider: Provider) -> _Lane:
        network = provider.network
        lane = self._lanes.get(network)
        if lane is None:
            lane = self._lanes[network] = _Lane(provider.name, network, provider.auth)
        return lane

    async def send(
        self,
        provider: Provider,
        key: Key | None,
        call: HttpCall,
        *,
        limits: SendLimits,
        fresh: bool = False,
        on_sent: Callable[[], None] | None = None,
    ) -> HttpReply:
        """Send one request and read the whole answer, whatever its status.

        Args:
            provider: Whose network, credential header and engine are used.
            key: The credential; None for a server that wants none.
            call: What the adapter encoded.
            limits: In seconds.
            fresh: On a connection that was not used before.
            on_sent: Called once, right before the first byte goes out.

        Returns:
            The reply, decompressed. Of a status that is no success the body has at most 64 KiB.

        Raises:
            SendError: There is no reply.
        """
        run = _Exchanging(provider, key, self._lane(provider))
        failure: SendError
        try:
            stream = await self._open(run, call, limits, limits.first_byte, None, fresh, on_sent)
            received_at = self._clock.time()
            headers = _lower(stream.headers)
            body = stream.__aiter__()
            if 200 <= stream.status < 300:
                data = await _read_all(body, headers, self._max_body)
            else:
                data = await _read_error(body, _coding(headers))
            return HttpReply(stream.status, headers, data, received_at)
        except TransportError as exc:
            failure = run.failed(exc, phase="connect" if exc.phase == "connect" else "first_byte")
        except BodyError as exc:
            failure = run.failed(exc)
        except Exception as exc:
            failure = run.failed(_unknown(exc))
        finally:
            await self.end(run)
        raise failure.with_traceback(None)

    async def open_stream(
        self,
        provider: Provider,
        key: Key | None,
        call: HttpCall,
        *,
        limits: SendLimits,
        fresh: bool = False,
        on_sent: Callable[[], None] | None = None,
    ) -> ReplyStream:
        """Send one request and wait for the head of the answer; arguments as for ``send``.

        Returns:
            The open stream; close it.

        Raises:
            SendError: There is no answer.
        """
        run = _Exchanging(provider, key, self._lane(provider))
        failure: SendError
        try:
            stream = await self._open(run, call, limits, limits.first_byte, limits.idle, fresh, on_sent)
            reply = ReplyStream(self, run, stream, self._clock.time(), self._max_body)
            reply.start()
            return reply  # noqa: TRY300 # every way out stands in one place
        except TransportError as exc:
            failure = run.failed(exc)
        except BodyError as exc:
            failure = run.failed(exc)
        except Exception as exc:
            failure = run.failed(_unknown(exc))
        except BaseException:
            await self.end(run)
            raise
        await self.end(run)
        raise failure.with_traceback(None)

    async def _open(
        self,
        run: _Exchanging,
        call: HttpCall,
        limits: SendLimits,
        read: float,
        idle: float | None,
        fresh: bool,  # private, passed through
        on_sent: Callable[[], None] | None,
    ) -> HttpStream:
        """Take a place, put the key on, send.

        Raises:
            TransportError: No answer.
        """
        provider, key, lane = run.provider, run.key, run.lane
        secret = None
        if key is not None:
            secret = key.secret
            if secret is None and not key.is_anonymous:
                text = f"key {key.id} has no credential: its reference was not resolved"
                raise TransportError(Kind.NO_CREDENTIALS, text, sent=False)
        if lane.is_limited:
            await self._enter(run, limits.pool)
        run.is_counted = True
        self.in_flight += 1
        once = None if on_sent is None else _Once(on_sent)
        exchange = Exchange(
            method=call.method,
            url=call.url,
            headers=lane.headers(call, provider.auth, secret),
            body=call.content,
            network=provider.network,
            connect=limits.connect,
            read=read,
            fresh=fresh,
            idle=idle,
            on_sent=once,
        )
        engine = provider.engine or self.engine
        run.stream = stream = await engine.open(exchange)
        if once is not None:
            once()  # an engine of the user's own may not say it
        return stream

    async def _enter(self, run: _Exchanging, patience: float) -> None:
        problem = ""
        try:
            await run.lane.enter(run.key_id, patience)
            run.has_place = True
        except QueueFullError as exc:
            problem = str(exc)
        if problem:
            raise TransportError(Kind.RATE_EXCEEDED, f"queue: {problem}", phase="queue", sent=False)

    async def end(self, run: _Exchanging) -> None:
        """Give back what an exchange holds. Safe to repeat; for ``ReplyStream``."""
        stream, run.stream = run.stream, None
        try:
            if stream is not None:
                await stream.aclose()
        except Exception as exc:
            _log.warning("%s: closing an answer failed: %s", run.provider.name, type(exc).__name__)
        finally:
            if run.is_counted:
                run.is_counted = False
                self.in_flight -= 1
            if run.has_place:
                run.has_place = False
                run.lane.leave(run.key_id)

    async def aclose(self) -> None:
        """Close the connections of the Router's own engine. Safe to repeat."""
        if self._owns_engine:
            await self.engine.aclose()
