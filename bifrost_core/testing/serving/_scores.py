"""Scores of categories that depend on the words of a text alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

__all__ = ["scores_of"]

_HIGH: Final = 0.97
_WORD: Final = re.compile(r"\w+")
_PART: Final = re.compile(r"[^\W_]+")
_FILLERS: Final = frozenset({"and", "content"})


def scores_of(words: str, names: Sequence[str]) -> dict[str, float]:
    """A score for each category.

    It is 0.97 where the text holds one of the words that the category's name is made of, as a whole word in any
    case (``and`` and ``content`` aside); else it is nearly nothing.
    """
    said = {word.lower() for word in _WORD.findall(words)}
    noise = hashlib.sha256(words.encode()).digest()
    return {
        name: _HIGH if said & (set(_PART.findall(name.lower())) - _FILLERS) else (noise[at % len(noise)] + 1) / 1e5
        for at, name in enumerate(names)
    }
