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
        seconds: How long the cache keeps the beginning that ends here, from its last use on; None: not at all.
    """

    data: bytes
    tokens: int
    seconds: float | None = None


class PromptCache:
    """Beginnings of prompts, each with the time at which it is forgotten; the least recently used go first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, float]] = OrderedDict()  # when it is forgotten, and its seconds

    def read(self, scope: tuple[str, str], prefixes: Sequence[Prefix], now: float) -> int:
        """Look a prompt up, and keep it.

        Args:
            scope: Whose prompt it is, and for which model.
            prefixes: Its pieces, in order.
            now: Seconds on any clock.

        Returns:
            Tokens of the longest beginning that was known.
        """
        digest = hashlib.sha256("\0".join(scope).encode())
        known = 0
        for prefix in prefixes:
            digest.update(b"%d:%b" % (len(prefix.data), prefix.data))
            name = digest.hexdigest()
            until, seconds = self._kept.get(name, (now, 0.0))
            if until > now:
                known = prefix.tokens
            else:
                seconds = 0.0
            if seconds or prefix.seconds is not None:
                seconds = max(seconds, prefix.seconds or 0.0)
                self._kept[name] = (now + seconds, seconds)
                self._kept.move_to_end(name)
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        return known

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
