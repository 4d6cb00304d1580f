"""An engine without a network: canned answers at once, so that what is left is the Router's own work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from benchmarks.canned import HEADERS, PLAIN, stream_events
from bifrost_core.engines import Exchange

__all__ = ["NullEngine"]

_TOKENS: Final = 200


class _Answer:
    """An answer that is all there. See ``HttpStream``."""

    __slots__ = ("_pieces", "headers", "status")

    def __init__(self, content_type: bytes, pieces: Sequence[bytes]) -> None:
        self.status = 200
        self.headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", content_type), *HEADERS)
        self._pieces = iter(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Nothing is held."""


class NullEngine:
    """Answers each exchange without sending it. See ``HttpEngine``.

    Args:
        tokens: Words of a stream; each comes as a piece of its own, as from a provider that is slower than we.
    """

    def __init__(self, tokens: int = _TOKENS) -> None:
        self._events = stream_events(tokens)

    async def open(self, exchange: Exchange) -> _Answer:
        """See ``HttpEngine.open``."""
        if isinstance(exchange.body, bytes) and b'"stream":true' in exchange.body:
            return _Answer(b"text/event-stream", self._events)
        return _Answer(b"application/json", (PLAIN,))

    async def aclose(self) -> None:
        """Nothing is open."""
