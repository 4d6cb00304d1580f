"""The socket below one HTTP/1.1 connection: it bounds and counts what httpcore reads and writes.

httpcore's public connection classes take any object with the methods of its ``AsyncNetworkStream``.
This one knows what no HTTP library tells: how many bytes of an answer had come before it broke.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from bifrost_core.kinds import Kind

from .base import TransportError

__all__ = ["MAX_HEAD", "Wire", "connect", "describe"]

MAX_HEAD: Final = 64 * 1024  # bytes of a header section
_PIECE: Final = 64 * 1024  # bytes written at once; a larger body is watched for an early answer
_PEEK: Final = 0.001  # seconds to find out whether what TLS has received is of the answer
_PAUSE: Final = 0.005  # seconds after the first piece, in which a peer that refuses by the head alone can say so
_CLOSE: Final = 2.0  # seconds that closing may take, whatever is being cancelled meanwhile
_TEXT: Final = 200  # characters of a library's own words that are kept

_Stream = TypeVar("_Stream", bound=ByteStream)

# What anyio's streams raise when the peer or the network is at fault; ssl.SSLError is an OSError.
_BROKEN: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


def describe(exc: BaseException) -> str:
    """Class name and text of an exception, short and on one line."""
    inner = exc.__cause__ if isinstance(exc.__cause__, OSError) else exc
    text = " ".join(str(inner).split())
    printable = "".join(c if c.isprintable() else "?" for c in text[:_TEXT])
    return f"{type(inner).__name__}: {printable}" if printable else type(inner).__name__


def _is_readable(sock: socket.socket) -> bool:
    """Whether a read would return at once; on an idle connection that means the peer has closed it."""
    fd = sock.fileno()
    if fd < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([fd], [], [], 0)[0])  # Windows has no poll


class Wire:
    """One TCP or TLS stream, in the shape of httpcore's ``AsyncNetworkStream``.

    Writes are kept until the next read or until there are more than 64 KiB of them, so that head and body
    leave in one packet where they fit, and a larger body leaves while it is read.

    Attributes:
        received: Bytes of the answer that have arrived in the running exchange.
        sent: Whether any byte of the request may have gone out.
        head_done: Set by the engine when the head of the answer has been read.
        is_closed: Nothing more is read or written.
        is_spoilt: Only a part of the request went out, so another one can not follow it.
        on_sent: Called once before the first byte of the request goes out.
        on_secured: Called with the TLS stream that takes this one's place.
    """

    __slots__ = (
        "_early",
        "_has_paused",
        "_is_tls",
        "_kept",
        "_out",
        "_raw",
        "_stream",
        "head_done",
        "is_closed",
        "is_spoilt",
        "on_secured",
        "on_sent",
        "received",
        "sent",
    )

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._raw: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 # anyio's, not a database's
        self._is_tls = isinstance(stream, TLSStream)
        self._out: list[bytes] = []
        self._kept = 0  # bytes of `_out`
        self._early = b""  # of an answer that came while the body was on its way
        self.is_closed = False
        self.is_spoilt = False
        self.on_secured: Callable[[Wire], None] | None = None
        self.begin(None)

    def begin(self, on_sent: Callable[[], None] | None) -> None:
        """Start counting for a new exchange."""
        self.received = 0
        self.sent = self._has_paused = False
        self.head_done = False
        self.on_sent = on_sent

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 # httpcore's signature
        """Keep ``buffer`` for the next read; send what is kept once it is much.

        Args:
            buffer: Bytes; dropped after the peer has stopped taking them (``is_spoilt``).
            timeout: Seconds in which the peer takes nothing; None: for ever.

        Raises:
            TransportError: Silence.
        """
        if not buffer or self.is_spoilt or self.is_closed:
            return
        self._out.append(buffer)
        self._kept += len(buffer)
        if self._kept > _PIECE:
            await self._send_large(self._taken(), timeout)

    def _taken(self) -> bytes:
        """What is kept, which then is no more."""
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._kept = 0
        return out

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 # httpcore's signature
        """Send what is kept, then wait for bytes.

        Args:
            max_bytes: Bytes to return at most.
            timeout: Seconds of silence; None: for ever.

        Returns:
            Bytes; ``b""`` when the peer has closed the connection after at least one byte of its answer.

        Raises:
            TransportError: Silence, a break, or a header section that is too long.
        """
        if not self.head_done and self.received >= MAX_HEAD:
            raise self._failure(Kind.PROTOCOL_ERROR, f"the header section is longer than {MAX_HEAD} bytes")
        if self.is_closed:
            raise self._ended("closed on our side")
        out = self._taken()
        if self._early:
            data, self._early = self._early, b""
            self.received += len(data)
            return data
        data = b""
        problem: str | None = None
        with anyio.move_on_after(timeout):
            if out:
                await self._send(out)
            try:
                data = await self._stream.receive(max_bytes)
            except anyio.EndOfStream:
                problem = ""
            except _BROKEN as exc:
                problem = describe(exc)
        if data:
            self.received += len(data)
            return data
        if problem is None:
            raise self._failure(Kind.READ_TIMEOUT, f"no byte came for {timeout:g} s")
        if problem or not self.head_done:
            raise self._ended(problem or "closed by the peer")
        return b""  # the right end of some bodies; httpcore knows which

    def _ended(self, how: str) -> TransportError:
        """The error for a connection that is gone, by how much of the answer was there."""
        if self.head_done:
            return self._failure(Kind.BAD_RESPONSE, f"the connection ended inside the body ({how})")
        if self.received:
            return self._failure(Kind.PROTOCOL_ERROR, f"the connection ended inside the head ({how})")
        return self._failure(Kind.CONNECTION_LOST, f"the connection ended before any byte of the answer ({how})")

    def _failure(self, kind: Kind, message: str) -> TransportError:
        return TransportError(
            kind,
            message,
            phase="idle" if self.head_done else "first_byte",
            sent=self.sent,
            received=self.received > 0,
        )

    def _going_out(self) -> None:
        if not self.sent:
            self.sent = True
            if self.on_sent is not None:
                self.on_sent()

    async def _send(self, data: bytes) -> bool:
        """Write; False when the peer takes no more. It may have answered all the same, so nothing is raised."""
        self._going_out()
        try:
            await self._stream.send(data)
        except _BROKEN:
            self.is_spoilt = True
            return False
        return True

    async def _send_large(self, data: bytes, silence: float | None) -> None:
        """Write piece by piece until all is out, the peer takes no more, or it answers early (a 413 does)."""
        for start in range(0, len(data), _PIECE):
            if self.sent and not self._has_paused:
                self._has_paused = True
                await anyio.sleep(_PAUSE)
            if self.sent and await self._is_answered():
                self.is_spoilt = True
                return
            with anyio.move_on_after(silence) as scope:
                if not await self._send(data[start : start + _PIECE]):
                    return
            if scope.cancelled_caught:
                self.is_spoilt = True
                if not _is_readable(self._raw):
                    raise self._failure(Kind.READ_TIMEOUT, f"the peer took no byte for {silence:g} s")
                return

    async def _is_answered(self) -> bool:
        """Whether the peer answers, or has gone, before it has all of the request.

        What a TLS connection receives may be its own affair: session tickets come unasked after the handshake
        (RFC 8446, section 4.6.1). It has to be read to be known.
        """
        if not _is_readable(self._raw):
            return False
        if not self._is_tls:
            return True
        with anyio.move_on_after(_PEEK):
            try:
                self._early = await self._stream.receive()
            except (*_BROKEN, anyio.EndOfStream):
                return True  # the next read finds it again
        return bool(self._early)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 # httpcore's signature
    ) -> Wire:
        """Wrap the stream in TLS (behind a proxy; a direct connection gets it from ``connect``)."""
        wire = Wire(await _in_time(_wrap(self._stream, ssl_context, server_hostname), timeout))
        if self.on_secured is not None:
            self.on_secured(wire)
        return wire

    def get_extra_info(self, info: str) -> Any:
        """What httpcore asks for: ``is_readable``; ``ssl_object`` only to tell HTTP/2, which is never offered."""
        return _is_readable(self._raw) if info == "is_readable" else None

    async def aclose(self) -> None:
        """Close the socket, whatever is being cancelled. Safe to repeat."""
        if self.is_closed:
            return
        self.is_closed = True
        self._out.clear()
        self._kept = 0
        with anyio.move_on_after(_CLOSE, shield=True):
            await anyio.aclose_forcefully(self._stream)


async def _wrap(stream: ByteStream, context: ssl.SSLContext, host: str | None) -> TLSStream:
    try:
        return await TLSStream.wrap(
            stream, server_side=False, hostname=host, ssl_context=context, standard_compatible=False
        )
    except BaseException:  # a cancellation too: nobody else knows the socket
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(stream)
        raise


async def _open(host: str, port: int, context: ssl.SSLContext | None) -> ByteStream:
    stream = await anyio.connect_tcp(host, port)
    return stream if context is None else await _wrap(stream, context, host)


async def _in_time(opening: Coroutine[Any, Any, _Stream], seconds: float | None) -> _Stream:
    """Await the opening of a stream; every way to fail becomes a ``TransportError``.

    Raises:
        TransportError: ``connect_error``; nothing was sent.
    """
    stream: _Stream | None = None
    problem: str | None = None
    insecure = False
    with anyio.move_on_after(seconds):
        try:
            stream = await opening
        except (*_BROKEN, anyio.EndOfStream, UnicodeError, ValueError) as exc:
            problem = describe(exc)
            insecure = isinstance(exc, ssl.SSLCertVerificationError)
    if stream is not None:
        return stream
    if problem is None:
        problem = f"no connection within {seconds:g} s"
    raise TransportError(Kind.CONNECT_ERROR, problem, phase="connect", sent=False, insecure=insecure)


async def connect(host: str, port: int, context: ssl.SSLContext | None, seconds: float | None) -> Wire:
    """Open a TCP connection, with TLS where ``context`` is given.

    Args:
        host: Name or address, without brackets.
        port: TCP port.
        context: For TLS; the certificate has to be for ``host``.
        seconds: Limit for all of it: names, TCP and TLS.

    Raises:
        TransportError: ``connect_error``; ``insecure`` where the certificate is at fault.
    """
    return Wire(await _in_time(_open(host, port, context), seconds))
