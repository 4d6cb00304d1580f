"""Answers in the process's memory: bounded by number and bytes, each with its own lifetime."""

from __future__ import annotations

from typing import Final

import attrs
from cachetools import TLRUCache

from bifrost_core import Clock

__all__ = ["Memory"]

_OVERHEAD: Final = 430
"""Bytes that an entry takes beside its own: its key, its places in the orders of use and of lifetimes (CPython 3.11)."""


@attrs.frozen
class _Item:
    data: bytes
    ttl: float


def _end_of(key: str, item: _Item, now: float) -> float:  # noqa: ARG001 # cachetools' signature
    return now + item.ttl


def _size_of(item: _Item) -> int:
    return len(item.data) + _OVERHEAD


class Memory(TLRUCache[str, _Item]):
    """Entries by key; the least recently used goes first.

    Belongs to one event loop, in which nothing comes between two lines: there is no lock.

    Args:
        max_entries: How many there may be.
        max_bytes: How many bytes they may take together, with what keeping one takes.
        clock: Measures lifetimes.

    Attributes:
        evicted: Entries that had to go before their time was up.
    """

    def __init__(self, max_entries: int, max_bytes: int, clock: Clock) -> None:
        super().__init__(max_bytes, _end_of, timer=clock, getsizeof=_size_of)
        self._max_entries = max_entries
        self.evicted = 0

    def popitem(self) -> tuple[str, _Item]:
        """Make room: the least recently used entry goes."""
        item = super().popitem()
        self.evicted += 1
        return item

    def put(self, key: str, data: bytes, ttl: float) -> bool:
        """Keep ``data`` for ``ttl`` seconds; False where it is greater than all that may be kept."""
        item = _Item(data, ttl)
        if _size_of(item) > self.maxsize:
            return False
        if key not in self:
            while len(self) >= self._max_entries:
                self.popitem()
        self[key] = item
        return True

    def find(self, key: str) -> bytes | None:
        """What is kept under ``key``."""
        item = self.get(key)
        return None if item is None else item.data
