"""A store in this process's memory: the default, exact, and gone with the process."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Self

from bifrost_core import Clock, SystemClock

from ._ledger import sum_usage
from ._memory_tables import MemoryLedger, MemoryTables, first_to_end
from .base import (
    HOUR,
    MAX_HOLDS,
    MAX_KEYS,
    BucketState,
    Claim,
    Correction,
    Denied,
    Ended,
    Granted,
    Hold,
    OpenHold,
    StoreError,
    UsageCell,
    check_text,
)

__all__ = ["MemoryStore"]


class MemoryStore:
    """Keeps everything in memory, for one process; nothing survives it.

    Every operation runs under one lock and never awaits in between, so that it is one step for tasks
    and threads alike. The store belongs to no event loop.

    Args:
        clock: Where the time comes from; ``time()`` is read, and never goes back.
        max_holds: Holds that may be open at once; more are refused with ``StoreError``.

    Attributes:
        never_waits: Of a subclass False where that does not say otherwise: its operations may wait.
    """

    never_waits: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "never_waits" not in cls.__dict__:
            cls.never_waits = False

    def __init__(self, *, clock: Clock | None = None, max_holds: int = MAX_HOLDS) -> None:
        self._clock: Clock = SystemClock() if clock is None else clock
        self._lock = threading.Lock()
        self._seen = 0.0
        self._tables = MemoryTables()
        self._ledger = MemoryLedger(self._tables, max_holds)
        self._values: dict[str, tuple[bytes, float | None]] = {}

    def __repr__(self) -> str:
        return "MemoryStore()"

    def _now(self) -> float:
        now = self._clock.time()
        self._seen = max(self._seen, now)
        return self._seen

    async def start(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close; the content stays as long as the object."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def reserve(self, hold: Hold) -> Granted | Denied:
        """See ``Store``."""
        with self._lock:
            return self._ledger.reserve(hold, self._now())

    async def dispatch(self, hold_id: str) -> None:
        """See ``Store``."""
        with self._lock:
            self._ledger.dispatch(hold_id)

    async def extend(self, hold_id: str, expires_in: float) -> bool:
        """See ``Store``."""
        with self._lock:
            return self._ledger.extend(hold_id, expires_in, self._now())

    async def settle(self, hold_id: str, amounts: Sequence[int], usage: Mapping[str, int] | None = None) -> Ended:
        """See ``Store``."""
        with self._lock:
            return self._ledger.settle(hold_id, amounts, usage, self._now())

    async def release(self, hold_id: str) -> Ended:
        """See ``Store``."""
        with self._lock:
            return self._ledger.release(hold_id, self._now())

    async def adjust(
        self, hold_id: str, amounts: Sequence[int], *, reason: str, usage: Mapping[str, int] | None = None
    ) -> Ended:
        """See ``Store``."""
        with self._lock:
            return self._ledger.adjust(hold_id, amounts, usage, reason, self._now())

    async def expire_due(self, limit: int = 1_000) -> list[Ended]:
        """See ``Store``."""
        with self._lock:
            return self._ledger.expire_due(self._now(), limit)

    async def read(self, claims: Sequence[Claim]) -> list[BucketState]:
        """See ``Store``."""
        with self._lock:
            return self._ledger.read(claims, self._now())

    async def correct(
        self, claim: Claim, *, correction_id: str, reason: str, delta: int | None = None, to: int | None = None
    ) -> BucketState:
        """See ``Store``."""
        with self._lock:
            return self._ledger.correct(claim, correction_id, reason, delta, to, self._now())

    async def holds(self, limit: int = 1_000) -> list[OpenHold]:
        """See ``Store``."""
        with self._lock:
            rows = sorted(self._tables.open.values(), key=first_to_end)[:limit]
            return [row.as_open() for row in rows]

    async def corrections(self, limit: int = 1_000) -> list[Correction]:
        """See ``Store``."""
        with self._lock:
            return list(self._tables.corrections)[:limit]

    async def usage(
        self, since: float, until: float, *, by: Sequence[str] = (), where: Mapping[str, str] | None = None
    ) -> list[UsageCell]:
        """See ``Store``."""
        first = int(since // HOUR) * HOUR
        with self._lock:
            cells = [
                (hour, dict(labels), dict(values))
                for hour, cells in self._tables.cells.items()
                if first <= hour < until
                for labels, values in cells.items()
            ]
        return sum_usage(cells, by=by, where=where)

    def _value(self, key: str, now: float) -> bytes | None:
        check_text(key, "key")
        found = self._values.get(key)
        if found is None:
            return None
        if found[1] is not None and found[1] <= now:
            del self._values[key]
            return None
        return found[0]

    async def get(self, key: str) -> bytes | None:
        """See ``Store``."""
        with self._lock:
            return self._value(key, self._now())

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl: float | None = None,
        if_absent: bool = False,
        expect: bytes | None = None,
    ) -> bool:
        """See ``Store``."""
        with self._lock:
            now = self._now()
            current = self._value(key, now)
            if (if_absent and current is not None) or (expect is not None and current != expect):
                return False
            if current is None and len(self._values) >= MAX_KEYS:
                self._purge(now)
            self._values[key] = bytes(value), None if ttl is None else now + ttl
            return True

    def _purge(self, now: float) -> None:
        for key in [key for key, (_, end) in self._values.items() if end is not None and end <= now]:
            del self._values[key]
        if len(self._values) >= MAX_KEYS:
            raise StoreError(f"the store keeps {MAX_KEYS} keys and takes no new one; delete some or give them a ttl")

    async def delete(self, key: str, *, expect: bytes | None = None) -> bool:
        """See ``Store``."""
        with self._lock:
            current = self._value(key, self._now())
            if current is None or (expect is not None and current != expect):
                return False
            del self._values[key]
            return True

    async def items(self, prefix: str = "") -> list[tuple[str, bytes]]:
        """See ``Store``."""
        check_text(prefix, "prefix")
        with self._lock:
            now = self._now()
            keys = sorted(key for key in self._values if key.startswith(prefix))
            found = [(key, self._value(key, now)) for key in keys]
            return [(key, value) for key, value in found if value is not None]
