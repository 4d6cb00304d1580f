"""A store in this process's memory: the default, exact, and gone with the process."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Self

import attrs

from bifrost_core import Clock, SystemClock

from ._ledger import HoldRow, Ledger, Period, sum_usage
from .base import (
    HOUR,
    MAX_BUCKETS,
    MAX_CORRECTIONS,
    MAX_HOLDS,
    MAX_KEYS,
    MAX_RESULTS,
    MAX_SERIES,
    PAST_EPOCHS,
    RESULT_SECONDS,
    USAGE_HOURS,
    BucketState,
    Claim,
    ClaimKind,
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


@attrs.define(eq=False)
class _Counter:
    period: Period
    totals: dict[int, tuple[int, int]] = attrs.field(factory=dict[int, tuple[int, int]])
    announced: set[tuple[int, int]] = attrs.field(factory=set[tuple[int, int]])


@attrs.define(eq=False)
class _Window:
    """An exact log: entries in the order of their time, and the sum of all of them."""

    seconds: float
    entries: OrderedDict[str, tuple[float, int]] = attrs.field(factory=OrderedDict[str, tuple[float, int]])
    total: int = 0

    def forget(self, after: float) -> None:
        while self.entries:
            at, amount = next(iter(self.entries.values()))
            if at > after:
                return
            self.entries.popitem(last=False)
            self.total -= amount


@attrs.define(eq=False)
class _MemoryTables:
    """The tables of the ledger in dicts."""

    open: dict[str, HoldRow] = attrs.field(factory=dict[str, HoldRow])
    done: OrderedDict[str, HoldRow] = attrs.field(factory=OrderedDict[str, HoldRow])
    counters: dict[str, _Counter] = attrs.field(factory=dict[str, _Counter])
    taken: dict[str, int] = attrs.field(factory=dict[str, int])
    windows: dict[str, _Window] = attrs.field(factory=dict[str, _Window])
    corrections: deque[Correction] = attrs.field(factory=deque[Correction])
    corrected: Counter[str] = attrs.field(factory=Counter[str])
    cells: dict[int, dict[tuple[tuple[str, str], ...], dict[str, int]]] = attrs.field(
        factory=dict[int, dict[tuple[tuple[str, str], ...], dict[str, int]]]
    )
    max_results: int = MAX_RESULTS
    max_buckets: int = MAX_BUCKETS
    tidy_at: float = 0.0

    def hold(self, hold_id: str) -> HoldRow | None:
        return self.open.get(hold_id) or self.done.get(hold_id)

    def add_hold(self, row: HoldRow) -> None:
        if row.state is None:
            self.open[row.id] = row
        else:
            self.end_hold(row)

    def save_hold(self, row: HoldRow) -> None:
        self.open[row.id] = row

    def end_hold(self, row: HoldRow) -> None:
        self.open.pop(row.id, None)
        self.done[row.id] = row
        self.done.move_to_end(row.id)
        while len(self.done) > self.max_results or (
            next(iter(self.done.values())).ended_at < row.ended_at - RESULT_SECONDS
        ):
            self.done.popitem(last=False)

    def open_holds(self) -> int:
        return len(self.open)

    def due(self, now: float, limit: int) -> list[HoldRow]:
        rows = [row for row in self.open.values() if row.expires_at <= now]
        return sorted(rows, key=_first_to_end)[:limit]

    def period(self, bucket: str) -> Period | None:
        counter = self.counters.get(bucket)
        return counter.period if counter is not None else None

    def set_period(self, bucket: str, period: Period) -> None:
        counter = self.counters.get(bucket)
        if counter is None:
            self.counters[bucket] = _Counter(period)
        elif counter.period is not period and counter.period != period:
            turned = counter.period.epoch != period.epoch
            counter.period = period
            if turned and len(counter.totals) > PAST_EPOCHS:
                past = [epoch for epoch, (_, held) in counter.totals.items() if not held and epoch != period.epoch]
                for epoch in sorted(past)[: len(counter.totals) - PAST_EPOCHS]:
                    del counter.totals[epoch]
                counter.announced = {mark for mark in counter.announced if mark[0] in counter.totals}

    def make_room(self, claims: Sequence[Claim], now: float) -> None:
        new = 0
        for claim in claims:
            kind = claim.kind
            room: Mapping[str, object] = (
                self.counters if kind is ClaimKind.COUNTER else self.windows if kind is ClaimKind.WINDOW else self.taken
            )
            new += claim.bucket not in room
        if not new or self._buckets() + new <= self.max_buckets:
            return
        if now >= self.tidy_at:  # looking at all of them is slow: once a second at most
            self.tidy_at = now + 1.0
            self._tidy(now)
        if self._buckets() + new > self.max_buckets:
            raise StoreError(f"the store keeps {self.max_buckets} buckets and takes no new one; use fewer names")

    def _buckets(self) -> int:
        return len(self.counters) + len(self.windows) + len(self.taken)

    def _tidy(self, now: float) -> None:
        """Let go of buckets that count nothing any more; no limit is lost by it."""
        for name, counter in list(self.counters.items()):
            over = counter.period.ends_at is not None and counter.period.ends_at <= now
            if over and not any(held for _, held in counter.totals.values()):
                del self.counters[name]
        for name, window in list(self.windows.items()):
            window.forget(now - window.seconds)
            if not window.entries:
                del self.windows[name]

    def totals(self, bucket: str, epoch: int) -> tuple[int, int] | None:
        counter = self.counters.get(bucket)
        return counter.totals.get(epoch) if counter is not None else None

    def set_totals(self, bucket: str, epoch: int, spent: int, held: int) -> None:
        self.counters[bucket].totals[epoch] = (spent, held)

    def announce(self, bucket: str, epoch: int, threshold: int) -> bool:
        announced = self.counters[bucket].announced
        if (epoch, threshold) in announced:
            return False
        announced.add((epoch, threshold))
        return True

    def places(self, bucket: str) -> int:
        return self.taken.get(bucket, 0)

    def set_places(self, bucket: str, held: int) -> None:
        if held:
            self.taken[bucket] = held
        else:
            self.taken.pop(bucket, None)

    def window(self, bucket: str, after: float) -> int:
        window = self.windows.get(bucket)
        if window is None:
            return 0
        window.forget(after)
        if not window.entries:
            del self.windows[bucket]
        return window.total

    def window_entries(self, bucket: str, after: float) -> Iterable[tuple[float, int]]:
        window = self.windows.get(bucket)
        return [entry for entry in window.entries.values() if entry[0] > after] if window is not None else []

    def add_entry(self, bucket: str, hold_id: str, at: float, amount: int, seconds: float) -> None:
        window = self.windows.get(bucket)
        if window is None:
            window = self.windows[bucket] = _Window(seconds)
        window.entries[hold_id] = (at, amount)
        window.total += amount
        window.seconds = seconds

    def set_entry(self, bucket: str, hold_id: str, at: float, amount: int) -> None:
        window = self.windows.get(bucket)
        if window is not None and hold_id in window.entries:
            _, before = window.entries[hold_id]
            window.entries[hold_id] = (at, amount)
            window.total += amount - before

    def is_corrected(self, correction_id: str) -> bool:
        return correction_id in self.corrected

    def add_correction(self, entry: Correction) -> None:
        self.corrections.appendleft(entry)
        self.corrected[entry.id] += 1
        if len(self.corrections) > MAX_CORRECTIONS:
            gone = self.corrections.pop()
            self.corrected[gone.id] -= 1
            if not self.corrected[gone.id]:
                del self.corrected[gone.id]

    def add_usage(self, hour: int, labels: Mapping[str, str], values: Mapping[str, int]) -> None:
        cells = self.cells.get(hour)
        if cells is None:
            cells = self.cells[hour] = {}
            for old in [each for each in self.cells if each <= hour - USAGE_HOURS * HOUR]:
                del self.cells[old]
        key = tuple(labels.items())
        if key not in cells and len(cells) >= MAX_SERIES:
            key = tuple((name, "other") for name in labels)
        cell = cells.setdefault(key, {})
        for name, value in values.items():
            cell[name] = cell.get(name, 0) + value


def _first_to_end(row: HoldRow) -> tuple[float, str]:
    return row.expires_at, row.id


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
        self._tables = _MemoryTables()
        self._ledger = Ledger(self._tables, max_holds)
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
            rows = sorted(self._tables.open.values(), key=_first_to_end)[:limit]
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
