"""A provider that costs next to nothing: canned answers in a process of its own.

It stands in for the provider so that the client is what is measured. ``SimulatedMistral`` checks requests,
counts tokens and keeps a journal, which costs it more than a good client costs here: at 32 calls in flight
it would be the bottleneck, and every client would look the same. This one is a plain ``select`` loop over
non-blocking sockets: no event loop, no HTTP library, no JSON. It reads a head, as many bytes as its
``content-length`` says, and writes bytes that were made before.

A stream has one event per token of ``max_tokens``, each an HTTP chunk of its own as providers send them,
in one burst or paced.

The program ends when its standard input does, so it can not outlive who started it, not even by ``kill -9``.

    python -m benchmarks.overhead.server [--pace 0.001]

Source:
    RFC 9112 sections 6.2 (content-length) and 7.1 (chunked coding).
"""

from __future__ import annotations

import argparse
import functools
import heapq
import itertools
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.canned import ANTHROPIC_PLAIN, HEADERS, PLAIN, anthropic_events, stream_events

__all__ = ["canned_server", "main"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TOKENS: Final = re.compile(rb'"max_tokens": ?(\d+)')
_STREAM: Final = re.compile(rb'"stream": ?true')
_HEAD_END: Final = b"\r\n\r\n"
_ANTHROPIC: Final = b"POST /v1/messages"
_READ: Final = 256 * 1024
_ENDING: Final = 5.0  # seconds that the process may take to end by itself


def _head(content_type: bytes, framing: bytes) -> bytes:
    lines = [b"content-type: " + content_type, framing, *(b"%s: %s" % header for header in HEADERS)]
    return b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _whole(body: bytes) -> bytes:
    return _head(b"application/json", b"content-length: %d" % len(body)) + body


_PLAIN: Final = _whole(PLAIN)
_ANTHROPIC_PLAIN: Final = _whole(ANTHROPIC_PLAIN)


@functools.cache
def _stream(tokens: int, *, anthropic: bool = False) -> tuple[bytes, ...]:
    """What is written for a stream, in pieces to be paced."""
    events = anthropic_events(tokens) if anthropic else stream_events(tokens)
    first, *rest = (b"%x\r\n%s\r\n" % (len(event), event) for event in events)
    *words, usage, done = rest
    head = _head(b"text/event-stream; charset=utf-8", b"transfer-encoding: chunked")
    return (head + first, *words, usage + done + b"0\r\n\r\n")


class _Connection:
    """One client: what it has sent so far, and what it has not taken yet."""

    __slots__ = ("out", "received", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.received = b""
        self.out = b""


class _Server:
    """The loop. ``pace`` is in seconds between two events of a stream; 0: all at once."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, _Connection, Iterator[bytes]]] = []
        self._number = itertools.count()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]

    def serve(self) -> None:
        """Answer until standard input ends."""
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(sys.stdin, selectors.EVENT_READ, None)
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for key, events in self._selector.select(wait):
                if key.data is None:
                    return
                if isinstance(key.data, _Connection):
                    self._attend(key.data, events)
                else:
                    self._accept()
            while self._due and self._due[0][0] <= time.monotonic():
                due, _, connection, pieces = heapq.heappop(self._due)
                self._next_piece(due, connection, pieces)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, _Connection(sock))

    def _attend(self, connection: _Connection, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._write(connection, b"")
        if not events & selectors.EVENT_READ:
            return
        try:
            data = connection.socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.received += data
        while (request := self._take_request(connection)) is not None:
            self._answer(connection, *request)

    def _take_request(self, connection: _Connection) -> tuple[bytes, bool] | None:
        """The body of the next request, once all of it is there, and whether it is in Anthropic's shape."""
        head, found, rest = connection.received.partition(_HEAD_END)
        if not found:
            return None
        length = _LENGTH.search(head)
        size = 0 if length is None else int(length[1])
        if len(rest) < size:
            return None
        connection.received = rest[size:]
        return rest[:size], head.startswith(_ANTHROPIC)

    def _answer(self, connection: _Connection, body: bytes, anthropic: bool) -> None:
        if _STREAM.search(body) is None:
            self._write(connection, _ANTHROPIC_PLAIN if anthropic else _PLAIN)
            return
        tokens = _TOKENS.search(body)
        pieces = _stream(20 if tokens is None else int(tokens[1]), anthropic=anthropic)
        if self._pace:
            self._next_piece(time.monotonic(), connection, iter(pieces))
        else:
            self._write(connection, b"".join(pieces))

    def _next_piece(self, due: float, connection: _Connection, pieces: Iterator[bytes]) -> None:
        piece = next(pieces, None)
        if piece is None or connection.socket.fileno() < 0:
            return
        self._write(connection, piece)
        heapq.heappush(self._due, (due + self._pace, next(self._number), connection, pieces))

    def _write(self, connection: _Connection, data: bytes) -> None:
        """Write what can be written; the rest when the client has read on."""
        data = connection.out + data
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        if connection.out or sent < len(data):
            connection.out = data[sent:]
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.out else 0)
            self._selector.modify(connection.socket, wanted, connection)

    def _close(self, connection: _Connection) -> None:
        if connection.socket.fileno() >= 0:
            self._selector.unregister(connection.socket)
            connection.socket.close()


@contextmanager
def canned_server(*, pace: float = 0.0) -> Iterator[str]:
    """Run the server in a process of its own; gives its base URL.

    Args:
        pace: Seconds between two events of a stream; 0: all of them at once.
    """
    command = [sys.executable, "-m", "benchmarks.overhead.server", "--pace", str(pace)]
    with subprocess.Popen(  # noqa: S603 # this interpreter and this module
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None  # noqa: S101 # asked for above
        assert process.stdout is not None  # noqa: S101 # asked for above
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            try:
                process.wait(_ENDING)
            except subprocess.TimeoutExpired:
                process.kill()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the port, then serve until standard input ends."""
    parser = argparse.ArgumentParser(description="Canned answers on loopback; see the module's docstring.")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two events of a stream")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the benchmark closes our standard input
    server = _Server(options.pace)
    print(server.port, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
