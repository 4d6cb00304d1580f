"""Undo gzip and deflate with a bound on what comes out, for answers that are compressed though nobody asked.

194 kB of gzip can hold 200 MB, so no single step may return more than a piece, and all of them together no
more than the caller's cap.

Source:
    RFC 9110 section 8.4.1 (codings; "deflate" is the zlib format), RFC 1952 (gzip members).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from .kinds import Kind

__all__ = ["BodyError", "Decompressor"]

_PIECE: Final = 256 * 1024  # bytes that one step returns at most
_WINDOWS: Final = {
    "gzip": zlib.MAX_WBITS | 16,
    "x-gzip": zlib.MAX_WBITS | 16,
    "deflate": zlib.MAX_WBITS,
}


class BodyError(Exception):
    """A body can not be decoded.

    Args:
        kind: ``bad_response`` or ``response_too_large``.
        message: Why.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Decompressor:
    """Decodes one body.

    Args:
        coding: Value of ``content-encoding``; one coding.

    Raises:
        BodyError: The coding is neither gzip nor deflate.
    """

    def __init__(self, coding: str) -> None:
        window = _WINDOWS.get(coding.strip().lower())
        if window is None:
            raise BodyError(Kind.BAD_RESPONSE, f"content-encoding {coding[:40]!r} was not asked for and is not known")
        self._window = window
        self._decoder = zlib.decompressobj(window)
        self._has_started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes, in pieces of at most 256 KiB; nothing is decoded before it is asked for.

        Raises:
            BodyError: The bytes are corrupt.
        """
        is_full = False
        while data or is_full:
            if self._decoder.eof:  # another member follows (gzip allows it); else it is garbage
                self._decoder = zlib.decompressobj(self._window)
            try:
                piece = self._decoder.decompress(data, _PIECE)
            except zlib.error:
                if self._has_started or self._window != zlib.MAX_WBITS:
                    break
                # Some servers send "deflate" without the zlib header.
                self._window = -zlib.MAX_WBITS
                self._decoder = zlib.decompressobj(self._window)
                continue
            self._has_started = True
            data = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
            is_full = len(piece) == _PIECE and not self._decoder.eof  # more may wait inside, without input
            if piece:
                yield piece
        else:
            return
        raise BodyError(Kind.BAD_RESPONSE, "the compressed body is corrupt")

    def finish(self) -> None:
        """Check that the body came to its end.

        Raises:
            BodyError: It was cut.
        """
        if self._has_started and not self._decoder.eof:
            raise BodyError(Kind.BAD_RESPONSE, "the compressed body was cut")
