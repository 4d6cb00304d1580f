"""The cache of prompts: which beginnings of a prompt were sent before."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import attrs

__all__ = ["Prefix", "PromptCache"]

_MOST: Final = 10_000  # beginnings that are kept


@attrs.frozen
class Prefix:
    """A piece of a prompt, and how many tokens there are up to its end.

    Attributes:
        data: The piece.
        tokens: Of all pieces up to this one, itself included.
        keeps: Whether the cache keeps the beginning that ends here, and looks for it.
        seconds: For how long, where it differs from the others.
    """

    data: bytes
    tokens: int
    keeps: bool = True
    seconds: float | None = None


class PromptCache:
    """Beginnings of prompts, each with the time at which it is forgotten; the least recently used go first."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()

    def read(self, scope: tuple[str, str], prefixes: Sequence[Prefix], now: float, *, seconds: float) -> int:
        """Look a prompt up, and keep it.

        Args:
            scope: Whose prompt it is, and for which model.
            prefixes: Its pieces, in order.
            now: Seconds on any clock.
            seconds: How long a beginning lives after its last use.

        Returns:
            Tokens of the longest beginning that was known.
        """
        digest = hashlib.sha256("\0".join(scope).encode())
        known = 0
        for prefix in prefixes:
            digest.update(b"%d:%b" % (len(prefix.data), prefix.data))
            if not prefix.keeps:
                continue
            name = digest.hexdigest()
            if self._until.get(name, now) > now:
                known = prefix.tokens
            self._until[name] = now + (seconds if prefix.seconds is None else prefix.seconds)
            self._until.move_to_end(name)
        while len(self._until) > _MOST:
            self._until.popitem(last=False)
        return known

    def clear(self) -> None:
        """Forget all."""
        self._until.clear()
