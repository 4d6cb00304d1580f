"""An engine that keeps its answers back until it is told to give them: calls stay in flight meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from benchmarks.null_engine import NullEngine
from bifrost_core.engines import Exchange
from bifrost_core.engines.base import HttpStream

__all__ = ["HoldingEngine"]


class _Begun:
    """An answer that stops after its first piece until it is let go."""

    def __init__(self, answer: HttpStream, engine: HoldingEngine) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._answer = answer
        self._engine = engine

    async def __aiter__(self) -> AsyncIterator[bytes]:
        is_first = True
        async for piece in self._answer:
            yield piece
            if is_first:
                is_first = False
                await self._engine.wait()

    async def aclose(self) -> None:
        await self._answer.aclose()


class HoldingEngine(NullEngine):
    """Answers at once, or later. See ``HttpEngine``.

    Args:
        begins: Whether the first piece of an answer comes before it is held back; else nothing does.

    Attributes:
        is_holding: Whether exchanges that are opened now are held. They are not at first.
        held: How many have been held since the last release.
    """

    def __init__(self, *, begins: bool = False) -> None:
        super().__init__(tokens=2)
        self.is_holding = False
        self.held = 0
        self._begins = begins
        self._release = anyio.Event()
        self._awaited = 0
        self._enough = anyio.Event()

    async def open(self, exchange: Exchange) -> HttpStream:  # type: ignore[override] # an answer is a stream
        """See ``HttpEngine.open``."""
        answer = await super().open(exchange)
        if not self.is_holding:
            return answer
        if self._begins:
            return _Begun(answer, self)
        await self.wait()
        return answer

    async def wait(self) -> None:
        """Until the release."""
        self.held += 1
        if self.held == self._awaited:
            self._enough.set()
        await self._release.wait()

    async def until_held(self, count: int) -> None:
        """Until so many are held."""
        self._awaited = count
        if self.held < count:
            self._enough = anyio.Event()
            await self._enough.wait()

    def release(self) -> None:
        """Let all that are held go, and hold no more."""
        self.is_holding = False
        self.held = self._awaited = 0
        self._release.set()
        self._release = anyio.Event()
