"""Answers in the process's memory: bounded by number and bytes, each with its own lifetime."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

import attrs

from bifrost_core import Clock

__all__ = ["Memory"]

_OVERHEAD: Final = 430
"""Bytes that an entry takes beside its own: its key, its places in the orders of use and of lifetimes (CPython 3.11)."""


@attrs.define(eq=False)
class _Item:
    data: bytes
    ends_at: float


class Memory:
    """Entries by key; the least recently used goes first.

    Belongs to one event loop, in which nothing comes between two lines: there is no lock. A library's cache with
    lifetimes (``cachetools.TLRUCache``) does the same, at ten functions for each look.

    Args:
        max_entries: How many there may be.
        max_bytes: How many bytes they may take together, with what keeping one takes.
        clock: Measures lifetimes.

    Attributes:
        evicted: Entries that had to go before their time was up.
    """

    def __init__(self, max_entries: int, max_bytes: int, clock: Clock) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._items: OrderedDict[str, _Item] = OrderedDict()  # the least recently used first
        self._ends: list[tuple[float, str]] = []  # a heap; entries that were replaced stay until their time
        self._bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        """Entries whose time is not up."""
        self._expire(self._clock())
        return len(self._items)

    def __iter__(self) -> Iterator[bytes]:
        """What is kept, the least recently used first."""
        self._expire(self._clock())
        return iter([item.data for item in self._items.values()])

    @property
    def currsize(self) -> int:
        """Bytes that they take."""
        self._expire(self._clock())
        return self._bytes

    def put(self, key: str, data: bytes, ttl: float) -> bool:
        """Keep ``data`` for ``ttl`` seconds; False where it is greater than all that may be kept."""
        size = len(data) + _OVERHEAD
        if size > self._max_bytes:
            return False
        now = self._clock()
        self._expire(now)
        self._drop(key)
        while len(self._items) >= self._max_entries or self._bytes + size > self._max_bytes:
            self._drop(next(iter(self._items)))
            self.evicted += 1
        self._items[key] = _Item(data, now + ttl)
        self._bytes += size
        heappush(self._ends, (now + ttl, key))
        if len(self._ends) > 2 * len(self._items) + 64:  # mostly of entries that are gone
            self._ends = [(item.ends_at, name) for name, item in self._items.items()]
            heapify(self._ends)
        return True

    def find(self, key: str) -> bytes | None:
        """What is kept under ``key``."""
        item = self._items.get(key)
        if item is None or item.ends_at <= self._clock():
            return None
        self._items.move_to_end(key)
        return item.data

    def _expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, key = heappop(self._ends)
            item = self._items.get(key)
            if item is not None and item.ends_at <= now:
                self._drop(key)

    def _drop(self, key: str) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self._bytes -= len(item.data) + _OVERHEAD
