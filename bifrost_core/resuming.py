"""Going on where a stream broke off: what was said, and the seam to what the next attempt writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import attrs

from .attempts import Attempt
from .responses import ChatResponse
from .types import Chunk

__all__ = ["Seam", "joined"]


class Seam:
    """Takes out what a continuing attempt repeats of the text that it continues.

    A provider that goes on from an assistant message may begin its answer with that message's text, or with what
    follows it. The first characters that differ tell which; until then the text is held back.

    Args:
        said: The text that is continued; ``""``: nothing is, and everything passes.

    Source:
        https://docs.mistral.ai/capabilities/completion/prefix (the answer begins with the prefix)
    """

    __slots__ = ("_held", "_is_settled", "_repeats", "said")

    def __init__(self, said: str = "") -> None:
        self.said = said
        self._held = ""
        self._is_settled = not said
        self._repeats = False

    def feed(self, chunks: list[Chunk]) -> list[Chunk]:
        """The chunks, as many as came, with only what is new in them."""
        return chunks if self._is_settled else [self._one(chunk) for chunk in chunks]

    def whole(self, text: str) -> str:
        """What was said and what is new, from what has come of the continuing answer; without what is held back."""
        if not self._is_settled:
            return self.said
        return text if self._repeats else self.said + text

    def _one(self, chunk: Chunk) -> Chunk:
        if self._is_settled or (not chunk.text and chunk.finish_reason is None):
            return chunk
        self._held += chunk.text
        said, held = self.said, self._held
        if held.startswith(said):
            self._is_settled = self._repeats = True
            return chunk.with_text(held[len(said) :])
        if said.startswith(held) and chunk.finish_reason is None:
            return chunk.with_text("")
        self._is_settled = True
        return chunk if held == chunk.text else chunk.with_text(held)


def joined(text: str, broken: Sequence[Attempt], rest: ChatResponse) -> ChatResponse:
    """One answer of several attempts.

    Args:
        text: What they said together.
        broken: The attempts that broke off.
        rest: The answer of the last one.

    Returns:
        ``rest`` with the whole text; its usage and cost are those of all of them.
    """
    spent = [attempt.usage for attempt in broken if attempt.usage is not None]
    usage = sum(spent, rest.usage)
    cost = _total([*(attempt.cost for attempt in broken if attempt.usage is not None), rest.cost])
    return attrs.evolve(rest.with_text(text), usage=attrs.evolve(usage, requests=1), cost=cost, resumed=True)


def _total(costs: Iterable[Decimal | None]) -> Decimal | None:
    total = Decimal(0)
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total
