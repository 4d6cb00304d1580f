"""The tables of the ledger in dicts, and its rules where they are met most often: counters that run."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from ._ledger import HoldRow, Ledger, Period, Take
from .base import (
    HOUR,
    MAX_AMOUNT,
    MAX_BUCKETS,
    MAX_CORRECTIONS,
    MAX_RESULTS,
    MAX_SERIES,
    PAST_EPOCHS,
    RESULT_SECONDS,
    USAGE_HOURS,
    Claim,
    ClaimKind,
    Correction,
    Denied,
    Ended,
    Granted,
    Hold,
    HoldState,
    StoreError,
)

__all__ = ["MemoryLedger", "MemoryTables", "first_to_end"]

_NOTHING: Final = (0, 0)


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
class MemoryTables:
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
        return sorted(rows, key=first_to_end)[:limit]

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


def first_to_end(row: HoldRow) -> tuple[float, str]:
    return row.expires_at, row.id


class MemoryLedger(Ledger):
    """The rules over tables in memory.

    Nearly every hold takes from counters whose epoch runs, from windows that have entries and from places, and has
    room in all of them. For those everything is looked at and changed in one go, without a function for each step;
    whatever else comes, the rules of ``Ledger`` say. Both have to come to the same:
    tests/plugins/stores/test_memory.py.
    """

    def __init__(self, tables: MemoryTables, max_holds: int) -> None:
        super().__init__(tables, max_holds)
        self._memory = tables

    def reserve(self, hold: Hold, now: float) -> Granted | Denied:
        """See ``Store.reserve``."""
        tables = self._memory
        if hold.id in tables.open or hold.id in tables.done or len(tables.open) >= self.max_holds:
            return super().reserve(hold, now)
        found = list[tuple[_Counter | _Window | None, int, int]]()
        for claim, amount in zip(hold.claims, hold.amounts, strict=True):
            kind, bucket = claim.kind, claim.bucket
            spent = 0
            if kind is ClaimKind.COUNTER:
                counter = tables.counters.get(bucket)
                if counter is None or not _runs(counter.period, claim, now):
                    return super().reserve(hold, now)
                spent, held = counter.totals.get(counter.period.epoch, _NOTHING)
                found.append((counter, spent, held + amount))
            elif kind is ClaimKind.PLACES:
                if bucket not in tables.taken:
                    return super().reserve(hold, now)
                held = tables.taken[bucket]
                found.append((None, 0, held + amount))
            else:
                window = tables.windows.get(bucket)
                if window is None:
                    return super().reserve(hold, now)
                window.forget(now - (claim.seconds or 0.0))
                held = window.total
                found.append((window, 0, 0))
            after = spent + held + amount
            if after > MAX_AMOUNT or (claim.limit is not None and after > claim.limit):
                return super().reserve(hold, now)
        takes = list[Take]()
        for (place, spent, held), claim, amount in zip(found, hold.claims, hold.amounts, strict=True):
            epoch = 0
            if isinstance(place, _Counter):
                epoch = place.period.epoch
                place.totals[epoch] = spent, held
            elif place is None:
                tables.set_places(claim.bucket, held)
            else:
                place.entries[hold.id] = now, amount
                place.total += amount
                place.seconds = claim.seconds or 0.0
            takes.append(Take(claim.kind, claim.bucket, amount, epoch, claim.thresholds))
        expires_at = now + hold.expires_in
        tables.open[hold.id] = HoldRow(
            hold.id,
            tuple(takes),
            hold.estimate,
            hold.usage,
            hold.labels,
            hold.call_id,
            hold.note,
            now,
            expires_at,
            hold.dispatched,
        )
        return Granted(expires_at)

    def _end(
        self, row: HoldRow, state: HoldState, amounts: tuple[int, ...], usage: Mapping[str, int] | None, now: float
    ) -> Ended:
        if row.state is not None:
            return super()._end(row, state, amounts, usage, now)
        tables = self._memory
        changes = list[tuple[dict[int, tuple[int, int]] | None, int, int]]()
        for take, amount in zip(row.takes, amounts, strict=True):
            if take.kind is not ClaimKind.COUNTER:
                changes.append((None, 0, 0))
                continue
            counter = tables.counters.get(take.bucket)
            before = None if counter is None else counter.totals.get(take.epoch)
            if counter is None or before is None:
                return super()._end(row, state, amounts, usage, now)
            spent = before[0] + amount
            if spent > MAX_AMOUNT or (take.thresholds and spent >= take.thresholds[0]):
                return super()._end(row, state, amounts, usage, now)
            changes.append((counter.totals, spent, before[1] - take.amount))
        for (totals, spent, held), take, amount in zip(changes, row.takes, amounts, strict=True):
            if totals is not None:
                totals[take.epoch] = spent, held
            elif take.kind is ClaimKind.PLACES:
                tables.set_places(take.bucket, tables.taken.get(take.bucket, 0) - take.amount)
            else:
                tables.set_entry(take.bucket, row.id, row.reserved_at, amount)
        if usage is not None:
            self._count(row, usage, now, was_open=True)
        row.state, row.amounts, row.ended_at = state, amounts, now
        tables.end_hold(row)
        return row.ended(repeated=False)


def _runs(period: Period, claim: Claim, now: float) -> bool:
    """Whether a claim on a counter belongs to the epoch that runs, as it stands."""
    if claim.seconds is not None:
        return period.ends_at is not None and now < period.ends_at
    return period.epoch == claim.epoch and period.ends_at == claim.ends_at
