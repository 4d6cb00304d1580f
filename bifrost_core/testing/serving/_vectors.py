"""Embeddings that depend on a seed alone."""

from __future__ import annotations

import array
import base64
import math
import random
import sys
from collections.abc import Sequence

__all__ = ["draws", "pack", "unit"]


def draws(seed: str, dimensions: int) -> list[float]:
    """Numbers between -1 and 1."""
    rng = random.Random(seed)
    return [rng.uniform(-1, 1) for _ in range(dimensions)]


def unit(raw: Sequence[float]) -> array.array[float]:
    """The same direction with length one, in 32 bits."""
    length = math.sqrt(sum(value * value for value in raw)) or 1.0
    return array.array("f", (value / length for value in raw))


def pack(vector: array.array[float] | array.array[int]) -> str:
    """The numbers one behind the other, floats with the least byte first, in base64.

    Source:
        https://github.com/openai/openai-python/blob/main/src/openai/resources/embeddings.py, which reads them
        so. What Mistral packs is documented nowhere.
    """
    if sys.byteorder == "big":
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
