"""A small HTTP/1.1 server side: requests in, bytes out, and knowing when the client has left.

One task per connection and no buffers between it and the socket, so that what a test asks for (half a
head, a reset, one write per event) is what goes out.
"""

from __future__ import annotations

import math
import socket
import struct
from http import HTTPStatus

import anyio
import attrs

__all__ = ["BadHttpError", "ClientLeftError", "Connection", "HttpRequest", "response_head"]

_READ = 64 * 1024
_MAX_HEAD = 64 * 1024
_MAX_CHUNK_LINE = 1024
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class ClientLeftError(Exception):
    """The client closed the connection, or its sending half, before the exchange was over."""


class BadHttpError(Exception):
    """The bytes that came are no request this server can answer.

    Attributes:
        status: HTTP status to answer with before closing.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@attrs.define(eq=False)
class HttpRequest:
    """One request, read to its end.

    Attributes:
        method: Upper case.
        path: Without the query.
        query: What follows the ``?``, or nothing.
        headers: Names in lower case; of repeated ones the last.
        body: Decoded from chunks, never decompressed.
        keep_alive: Whether the client allows another exchange on the connection.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


def response_head(status: int, headers: list[tuple[str, str]]) -> bytes:
    """The status line and the header lines, with the blank line after them."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _parse_head(head: bytes) -> tuple[str, str, bool, dict[str, str]]:
    """Method, target, keep-alive and headers of a request head without its blank line."""
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1.") or not parts[0].isalpha():
        raise BadHttpError(400, "bad request line")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name.strip() != name:
            raise BadHttpError(400, "bad header line")
        headers[name.lower()] = value.strip()
    wish = headers.get("connection", "").lower()
    keep_alive = wish != "close" and (parts[2] != "HTTP/1.0" or wish == "keep-alive")
    return parts[0].upper(), parts[1], keep_alive, headers


class Connection:
    """The server's side of one connection.

    Args:
        sock: An accepted, non-blocking socket; this object owns and closes it.
        max_body: Most bytes of a request body.
        idle: Seconds to wait for the first byte of a request before closing.
    """

    def __init__(self, sock: socket.socket, *, max_body: int, idle: float = math.inf) -> None:
        self._sock = sock
        self._max_body = max_body
        self._idle = idle
        self._buffer = bytearray()

    async def _fill(self) -> None:
        """Read what is there, waiting for it."""
        while True:
            try:
                data = self._sock.recv(_READ)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
            except OSError as exc:
                raise ClientLeftError from exc
            else:
                if not data:
                    raise ClientLeftError
                self._buffer += data
                return

    async def _take(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        buffer = self._buffer
        while len(buffer) < size:
            await self._fill()
        data = bytes(buffer[:size])
        del buffer[:size]
        return data

    async def _take_until(self, mark: bytes, limit: int, status: int) -> bytes:
        """The bytes before ``mark``, which is dropped."""
        buffer = self._buffer
        searched = 0
        while (end := buffer.find(mark, searched)) < 0:
            if len(buffer) > limit:
                raise BadHttpError(status, "header section too large")
            searched = max(0, len(buffer) - len(mark) + 1)
            await self._fill()
        data = bytes(buffer[:end])
        del buffer[: end + len(mark)]
        return data

    async def receive(self) -> HttpRequest | None:
        """The next request.

        Returns:
            The request, or None when the client closed the connection, or was idle for too long,
            between two requests.

        Raises:
            ClientLeftError: The client left inside a request.
            BadHttpError: What came is no request.
        """
        if not self._buffer and not await self._wait_for_request():
            return None
        head = await self._take_until(b"\r\n\r\n", _MAX_HEAD, 431)
        method, target, keep_alive, headers = _parse_head(head.lstrip(b"\r\n"))
        if headers.get("expect", "").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = b""
        if "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
                raise BadHttpError(400, "unsupported transfer-encoding")
            body = await self._take_chunks()
        elif (stated := headers.get("content-length")) is not None:
            if not (stated.isascii() and stated.isdigit() and len(stated) < 16):
                raise BadHttpError(400, "bad content-length")
            if int(stated) > self._max_body:
                raise BadHttpError(413, "request body too large")
            body = await self._take(int(stated))
        path, _, query = target.partition("?")
        return HttpRequest(method, path, query, headers, body, keep_alive)

    async def _wait_for_request(self) -> bool:
        """Whether the first bytes of a request came in time."""
        try:
            if self._idle == math.inf:
                await self._fill()
                return True
            with anyio.move_on_after(self._idle):
                await self._fill()
        except ClientLeftError:
            return False
        return bool(self._buffer)

    async def _take_chunks(self) -> bytes:
        """A chunked body, decoded; trailers are dropped."""
        body = bytearray()
        while True:
            line = await self._take_until(b"\r\n", _MAX_CHUNK_LINE, 400)
            try:
                size = int(line.partition(b";")[0].strip() or b"x", 16)
            except ValueError:
                raise BadHttpError(400, "bad chunk size") from None
            if size < 0 or len(body) + size > self._max_body:
                raise BadHttpError(413, "request body too large")
            if size == 0:
                while await self._take_until(b"\r\n", _MAX_CHUNK_LINE, 400):
                    pass
                return bytes(body)
            body += await self._take(size)
            if await self._take(2) != b"\r\n":
                raise BadHttpError(400, "bad chunk end")

    async def send(self, data: bytes) -> None:
        """Write all of ``data``.

        Raises:
            ClientLeftError: The client is gone.
        """
        view = memoryview(data)
        while view:
            try:
                sent = self._sock.send(view)
            except BlockingIOError:
                await anyio.wait_writable(self._sock)
            except OSError as exc:
                raise ClientLeftError from exc
            else:
                view = view[sent:]

    async def pause(self, seconds: float, scope: anyio.CancelScope | None = None) -> None:
        """Wait, watching for the client to leave.

        A client that closes only its sending half counts as gone, as it does for most proxies.

        Args:
            seconds: How long; may be infinite.
            scope: Ends the wait when cancelled, in place of the time.

        Raises:
            ClientLeftError: The client is gone.
        """
        with scope or anyio.move_on_after(seconds):
            while len(self._buffer) <= _READ:  # a request sent ahead of its turn is kept, up to a bound
                await self._fill()
            await anyio.sleep_forever()

    def set_reset(self) -> None:
        """Make the coming ``close`` a reset (RST) instead of an orderly end (FIN)."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def linger(self, seconds: float) -> None:
        """End the sending half and read on for a while, so that unread input does not reset the reply.

        Args:
            seconds: At most so long.
        """
        try:
            self._sock.shutdown(socket.SHUT_WR)
            with anyio.move_on_after(seconds):
                while True:
                    self._buffer.clear()
                    await self._fill()
        except (OSError, ClientLeftError):
            return

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
