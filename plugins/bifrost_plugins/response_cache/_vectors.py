"""Vectors by partition, searched by cosine similarity. Needs numpy."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Vectors"]

_RESCORED: Final = 64
"""Candidates that the sign bits leave for the exact comparison."""

_FIRST_ROWS: Final = 8

Floats = npt.NDArray[np.float32]


class Vectors:
    """Unit vectors in partitions, each with the key of an answer.

    A search looks at one partition and at nothing else. Of many vectors it takes the 64 whose signs differ from those
    of the query in the fewest places, and compares these exactly: signs of random projections keep angles, and those
    of embeddings do well enough for that.

    Args:
        max_vectors: In all partitions together; the least recently used of the least recently used partition goes.
        partition_vectors: In one partition; its least recently used goes.

    Source:
        M. Charikar, "Similarity Estimation Techniques from Rounding Algorithms", STOC 2002 (section 3).
    """

    def __init__(self, max_vectors: int, partition_vectors: int) -> None:
        self._max = max_vectors
        self._partition_max = partition_vectors
        self._partitions: OrderedDict[bytes, _Partition] = OrderedDict()
        self.count = 0

    def nearest(self, partition: bytes, vector: Sequence[float]) -> tuple[str, float] | None:
        """The key of the most similar vector of a partition, and the cosine of the angle to it."""
        rows, unit = self._partitions.get(partition), _unit(vector)
        if rows is None or unit is None:
            return None
        self._partitions.move_to_end(partition)
        return rows.nearest(unit)

    def add(self, partition: bytes, vector: Sequence[float], key: str) -> None:
        """Remember a vector; a key that is there gets the new one. What has no direction is not taken."""
        unit = _unit(vector)
        if unit is None:
            return
        rows = self._partitions.get(partition)
        if rows is None or rows.dimensions != len(
            unit
        ):  # another embedding model: what there was compares with nothing
            self._drop(partition)
            rows = self._partitions[partition] = _Partition(len(unit), self._partition_max)
        self._partitions.move_to_end(partition)
        self.count += rows.add(unit, key)
        while self.count > self._max:
            oldest, others = next(iter(self._partitions.items()))
            others.remove_oldest()
            self.count -= 1
            if not others.keys:
                del self._partitions[oldest]

    def remove(self, partition: bytes, key: str) -> None:
        """Forget the vector of a key, whose answer is gone."""
        rows = self._partitions.get(partition)
        if rows is None or not rows.remove(key):
            return
        self.count -= 1
        if not rows.keys:
            del self._partitions[partition]

    def _drop(self, partition: bytes) -> None:
        rows = self._partitions.pop(partition, None)
        if rows is not None:
            self.count -= len(rows.keys)


class _Partition:
    """Rows without gaps: the last one moves to where one is removed."""

    def __init__(self, dimensions: int, most: int) -> None:
        self.dimensions = dimensions
        self.keys: list[str] = []
        self._most = most
        self._units: Floats = np.empty((min(_FIRST_ROWS, most), dimensions), np.float32)
        self._signs: npt.NDArray[np.uint64] = np.empty((len(self._units), -(-dimensions // 64)), np.uint64)
        self._used: npt.NDArray[np.int64] = np.empty(len(self._units), np.int64)
        self._tick = 0

    def nearest(self, unit: Floats) -> tuple[str, float] | None:
        count = len(self.keys)
        if not count or len(unit) != self.dimensions:
            return None
        rows: npt.NDArray[Any] | slice = slice(count)
        if count > _RESCORED:
            apart = np.bitwise_count(self._signs[:count] ^ _signs(unit)).sum(axis=1, dtype=np.int64)
            rows = np.argpartition(apart, _RESCORED)[:_RESCORED]
        cosines = self._units[rows] @ unit
        best = int(np.argmax(cosines))
        row = best if isinstance(rows, slice) else int(rows[best])
        self._touch(row)
        return self.keys[row], float(cosines[best])

    def add(self, unit: Floats, key: str) -> int:
        """Returns how many more there are."""
        more = 0
        if key in self.keys:
            row = self.keys.index(key)
        elif len(self.keys) >= self._most:
            row = int(np.argmin(self._used[: len(self.keys)]))
            self.keys[row] = key
        else:
            row, more = len(self.keys), 1
            self.keys.append(key)
            if row >= len(self._units):
                self._grow()
        self._units[row] = unit
        self._signs[row] = _signs(unit)
        self._touch(row)
        return more

    def remove(self, key: str) -> bool:
        if key not in self.keys:
            return False
        self._remove(self.keys.index(key))
        return True

    def remove_oldest(self) -> None:
        self._remove(int(np.argmin(self._used[: len(self.keys)])))

    def _remove(self, row: int) -> None:
        last = len(self.keys) - 1
        for table in (self._units, self._signs, self._used):
            table[row] = table[last]
        self.keys[row] = self.keys[last]
        self.keys.pop()

    def _grow(self) -> None:
        more = min(2 * len(self._units), self._most) - len(self._units)
        self._units = np.concatenate([self._units, np.empty((more, self.dimensions), np.float32)])
        self._signs = np.concatenate([self._signs, np.empty((more, self._signs.shape[1]), np.uint64)])
        self._used = np.concatenate([self._used, np.empty(more, np.int64)])

    def _touch(self, row: int) -> None:
        self._tick += 1
        self._used[row] = self._tick


def _unit(vector: Sequence[float]) -> Floats | None:
    """The vector with length 1; None where it has no direction."""
    values = np.asarray(vector, np.float32)
    length = float(np.linalg.norm(values))
    return values / np.float32(length) if np.isfinite(length) and length > 0 else None


def _signs(unit: Floats) -> npt.NDArray[np.uint64]:
    packed = np.packbits(unit > 0)
    padded = np.zeros(-(-len(packed) // 8) * 8, np.uint8)
    padded[: len(packed)] = packed
    return padded.view(np.uint64)
