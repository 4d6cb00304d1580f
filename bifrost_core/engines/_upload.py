"""The bytes of a body for one attempt, piece by piece; files are read in a worker thread."""

from __future__ import annotations

from collections import deque
from typing import IO, Final, cast

import anyio.to_thread

from bifrost_core.bodies import Multipart, Source
from bifrost_core.kinds import Kind

from .base import TransportError

__all__ = ["Upload"]

_PIECE: Final = 256 * 1024  # bytes read at once


class Upload:
    """Iterates over a body, once, and ends with as many bytes as the body has. Close it.

    An iterator and no generator: one that a cancellation leaves behind needs nobody to finish it.

    Args:
        body: Of ``Exchange.body``.
    """

    def __init__(self, body: bytes | Multipart) -> None:
        self._segments: deque[bytes | Source] = deque((body,) if isinstance(body, bytes) else body.segments)
        self._at = 0
        self._file: IO[bytes] | None = None
        self._owns_file = False

    def __aiter__(self) -> Upload:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes.

        Raises:
            TransportError: A file can not be read, or has become shorter (``invalid_request``).
        """
        while self._segments:
            segment = self._segments[0]
            length = len(segment) if isinstance(segment, bytes) else segment.length
            if self._at >= length:
                self._segments.popleft()
                self._at = 0
                self.close()
                continue
            size = min(_PIECE, length - self._at)
            if isinstance(segment, bytes):
                piece = segment if size == length else segment[self._at : self._at + size]
            else:
                piece = await self._read(segment, size)
            self._at += len(piece)
            return piece
        raise StopAsyncIteration

    async def _read(self, source: Source, size: int) -> bytes:
        problem = ""
        piece: bytes | None = b""  # None: what a file of the caller's own gave is not bytes
        try:
            piece = await anyio.to_thread.run_sync(self._read_now, source, size)
        except (OSError, ValueError) as exc:
            problem = (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__
        if not problem and piece is None:
            problem = "it gives no bytes"
        if not problem and not piece:
            problem = "it has become shorter"
        if problem or piece is None:
            raise TransportError(Kind.INVALID_REQUEST, f"a file can not be read: {problem}")
        return piece

    def _read_now(self, source: Source, size: int) -> bytes | None:
        """In a worker thread."""
        if self._file is None:
            self._file, self._owns_file = source.open(), source.lock is None
        data = cast("object", source.read(self._file, self._at, size))  # a file of the caller's own may give anything
        return data if isinstance(data, bytes) else None

    def close(self) -> None:
        """Close the file that was opened for this; one that the caller had open stays so. Safe to repeat."""
        file, self._file = self._file, None
        if file is not None and self._owns_file:
            file.close()

    async def whole(self) -> bytes:
        """All of it at once, for an engine that moves no pieces; closes.

        Raises:
            TransportError: As for ``__anext__``.
        """
        try:
            return b"".join([piece async for piece in self])
        finally:
            self.close()
