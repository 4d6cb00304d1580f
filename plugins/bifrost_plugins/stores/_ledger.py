"""The rules of the ledger in plain Python, over tables that a store provides.

``MemoryStore`` keeps the tables in dicts and ``SqliteStore`` in a file; both run these rules inside
one lock or one transaction. ``RedisStore`` has the same rules as a script of the server; one suite of
tests holds all three to them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import attrs

from bifrost_core import ConfigError

from .base import (
    HOUR,
    MAX_AMOUNT,
    MAX_HOLDS,
    BucketState,
    Claim,
    ClaimKind,
    Correction,
    Crossing,
    Denied,
    Ended,
    Granted,
    Hold,
    HoldState,
    LedgerConflictError,
    OpenHold,
    StoreError,
    UsageCell,
    check_amounts,
    check_text,
)

__all__ = ["HoldRow", "Ledger", "Period", "Tables", "Take", "period_of", "sum_usage", "wait_of"]


TAKEN_BACK: Final = "taken back after a correction had lowered it already"
"""Reason of the entry that keeps spending from becoming negative."""


@attrs.frozen
class Period:
    """An epoch of a counter and its end (UTC seconds; None: none)."""

    epoch: int
    ends_at: float | None


@attrs.define
class Take:
    """A claim as it was granted: with the epoch that the store chose. Never changed; not frozen, which costs."""

    kind: ClaimKind
    bucket: str
    amount: int
    epoch: int = 0
    thresholds: tuple[int, ...] = ()


@attrs.define(eq=False)
class HoldRow:
    """A hold and what became of it; ``state`` None while it is open."""

    id: str
    takes: tuple[Take, ...]
    estimate: tuple[int, ...]
    usage: Mapping[str, int]
    labels: Mapping[str, str]
    call_id: str
    note: str
    reserved_at: float
    expires_at: float
    dispatched: bool
    state: HoldState | None = None
    amounts: tuple[int, ...] = ()
    crossings: tuple[Crossing, ...] = ()
    ended_at: float = 0.0
    usage_hour: int = 0

    def ended(self, *, repeated: bool) -> Ended:
        """What its end looks like to callers."""
        assert self.state is not None  # noqa: S101 - only asked of rows that have ended
        return Ended(
            id=self.id,
            state=self.state,
            amounts=self.amounts,
            dispatched=self.dispatched,
            crossings=self.crossings,
            repeated=repeated,
            call_id=self.call_id,
            labels=self.labels,
        )

    def as_open(self) -> OpenHold:
        """What it looks like to callers while it is open."""
        return OpenHold(
            id=self.id,
            call_id=self.call_id,
            amounts=tuple(take.amount for take in self.takes),
            buckets=tuple(take.bucket for take in self.takes),
            dispatched=self.dispatched,
            expires_at=self.expires_at,
            labels=self.labels,
            note=self.note,
        )


class Tables(Protocol):
    """Where the rules keep their rows. Nothing here awaits; a failure undoes the whole operation."""

    def hold(self, hold_id: str) -> HoldRow | None:
        """The row of a hold, open or ended."""
        ...

    def add_hold(self, row: HoldRow) -> None:
        """Keep a new row."""
        ...

    def save_hold(self, row: HoldRow) -> None:
        """Keep what has changed in a row that is still open."""
        ...

    def end_hold(self, row: HoldRow) -> None:
        """Keep what has changed in a row that has ended, just now or before."""
        ...

    def open_holds(self) -> int:
        """How many holds are open."""
        ...

    def due(self, now: float, limit: int) -> list[HoldRow]:
        """Open holds that end until ``now``, the earliest first."""
        ...

    def make_room(self, claims: Sequence[Claim], now: float) -> None:
        """Refuse buckets that do not exist yet when there are too many, before anything is changed.

        Raises:
            StoreError: There is no room.
        """
        ...

    def period(self, bucket: str) -> Period | None:
        """The latest epoch of a counter."""
        ...

    def set_period(self, bucket: str, period: Period) -> None:
        """Make an epoch the latest one; the same one may get another end."""
        ...

    def totals(self, bucket: str, epoch: int) -> tuple[int, int] | None:
        """Spent and held of a counter's epoch; None when it is not kept."""
        ...

    def set_totals(self, bucket: str, epoch: int, spent: int, held: int) -> None:
        """Keep them."""
        ...

    def announce(self, bucket: str, epoch: int, threshold: int) -> bool:
        """Whether this threshold had not been announced; now it has."""
        ...

    def places(self, bucket: str) -> int:
        """Places taken."""
        ...

    def set_places(self, bucket: str, held: int) -> None:
        """Keep them."""
        ...

    def window(self, bucket: str, after: float) -> int:
        """Sum of a window's entries later than ``after``."""
        ...

    def window_entries(self, bucket: str, after: float) -> Iterable[tuple[float, int]]:
        """A window's entries later than ``after``: time and amount, the oldest first."""
        ...

    def add_entry(self, bucket: str, hold_id: str, at: float, amount: int, seconds: float) -> None:
        """Add an entry to a window of that length; older ones may go."""
        ...

    def set_entry(self, bucket: str, hold_id: str, at: float, amount: int) -> None:
        """Change an entry's amount, if it is still there."""
        ...

    def is_corrected(self, correction_id: str) -> bool:
        """Whether there is a correction of this id."""
        ...

    def add_correction(self, entry: Correction) -> None:
        """Keep one."""
        ...

    def add_usage(self, hour: int, labels: Mapping[str, str], values: Mapping[str, int]) -> None:
        """Add to a cell of usage."""
        ...


def period_of(running: Period | None, claim: Claim, now: float) -> Period:
    """Which epoch a claim on a counter belongs to.

    Time never goes back to an earlier epoch; a caller whose clock is ahead books into the running
    one; and an epoch whose period or zone was changed while it ran goes on to its new end.

    Args:
        running: The latest epoch; None where there is none yet.
        claim: The claim; its epoch is what the caller's clock and calendar say.
        now: UTC seconds on the store's clock.
    """
    if claim.seconds is not None:
        start = math.floor(now)
        if running is None or (running.ends_at is not None and now >= running.ends_at):
            return Period(start, start + claim.seconds)
        return running if running.ends_at is not None else Period(running.epoch, start + claim.seconds)
    if running is not None and running.epoch == claim.epoch and running.ends_at == claim.ends_at:
        return running
    named = Period(claim.epoch, claim.ends_at)
    if running is None or running.epoch == claim.epoch:
        return named
    if claim.ends_at is None:
        return Period(running.epoch, None)
    if running.ends_at is not None and now >= running.ends_at:
        return named if claim.epoch > running.epoch else running
    if claim.epoch <= now < claim.ends_at:
        return Period(running.epoch, claim.ends_at)
    return running


def wait_of(entries: Iterable[tuple[float, int]], claim: Claim, wanted: int, total: int, now: float) -> float | None:
    """Seconds until a window has room for a claim, if nothing else comes; None when it never has.

    Args:
        entries: What counts now, the oldest first.
        claim: A claim on a window, with a limit.
        wanted: What is to be taken.
        total: Sum of ``entries``.
        now: UTC seconds on the store's clock.
    """
    assert claim.limit is not None  # noqa: S101 - only asked of claims that were refused
    assert claim.seconds is not None  # noqa: S101
    for at, amount in entries:
        total -= amount
        if total + wanted <= claim.limit:
            return at + claim.seconds - now
    return None


@attrs.define(eq=False)
class Ledger:
    """The rules, over tables. Call its methods inside one lock or transaction.

    Attributes:
        tables: Where the rows are.
        max_holds: Holds that may be open at once.
    """

    tables: Tables
    max_holds: int = MAX_HOLDS

    def reserve(self, hold: Hold, now: float) -> Granted | Denied:
        """See ``Store.reserve``."""
        tables = self.tables
        row = tables.hold(hold.id)
        if row is not None:
            return self._again(row, hold)
        if tables.open_holds() >= self.max_holds:
            raise StoreError(f"the ledger holds {self.max_holds} open holds and takes no more; settle or expire some")
        takes = list[Take]()
        changes = list[tuple[Period | None, int, int]]()
        for index, claim in enumerate(hold.claims):
            amount, kind = hold.amounts[index], claim.kind
            spent = held = epoch = 0
            period = None
            if kind is ClaimKind.COUNTER:
                period = period_of(tables.period(claim.bucket), claim, now)
                epoch = period.epoch
                spent, held = tables.totals(claim.bucket, epoch) or (0, 0)
            elif kind is ClaimKind.PLACES:
                held = tables.places(claim.bucket)
            else:
                assert claim.seconds is not None  # noqa: S101 - Claim.window sets it
                spent = tables.window(claim.bucket, now - claim.seconds)
            after = spent + held + amount
            if claim.limit is not None and after > claim.limit:
                return self._denied(index, claim, amount, spent, held, period, now)
            if after > MAX_AMOUNT:
                _check_sum(after, claim.bucket)
            takes.append(Take(kind, claim.bucket, amount, epoch, claim.thresholds))
            changes.append((period, spent, held + amount))
        tables.make_room(hold.claims, now)
        for take, claim, (period, spent, held) in zip(takes, hold.claims, changes, strict=True):
            if period is not None:
                tables.set_period(take.bucket, period)
                tables.set_totals(take.bucket, take.epoch, spent, held)
            elif take.kind is ClaimKind.PLACES:
                tables.set_places(take.bucket, held)
            else:
                tables.add_entry(take.bucket, hold.id, now, take.amount, claim.seconds or 0.0)
        expires_at = now + hold.expires_in
        tables.add_hold(
            HoldRow(
                id=hold.id,
                takes=tuple(takes),
                estimate=hold.estimate,
                usage=hold.usage,
                labels=hold.labels,
                call_id=hold.call_id,
                note=hold.note,
                reserved_at=now,
                expires_at=expires_at,
                dispatched=hold.dispatched,
            )
        )
        return Granted(expires_at)

    def _again(self, row: HoldRow, hold: Hold) -> Granted:
        if row.state is not None:
            raise LedgerConflictError(f"hold {hold.id!r} has ended ({row.state}); reserve with an id of its own")
        took = [(take.kind, take.bucket, take.amount) for take in row.takes]
        asked = [(each.kind, each.bucket, amount) for each, amount in zip(hold.claims, hold.amounts, strict=True)]
        if took != asked:
            raise LedgerConflictError(f"hold {hold.id!r} is open with other claims; reserve with an id of its own")
        return Granted(row.expires_at, repeated=True)

    def _denied(
        self, index: int, claim: Claim, wanted: int, spent: int, held: int, period: Period | None, now: float
    ) -> Denied:
        assert claim.limit is not None  # noqa: S101 - without a limit nothing is denied
        resets_at = wait = None
        if period is not None and period.ends_at is not None:
            resets_at = period.ends_at
            wait = max(0.0, resets_at - now)
        elif claim.kind is ClaimKind.WINDOW:
            assert claim.seconds is not None  # noqa: S101 - Claim.window sets it
            entries = self.tables.window_entries(claim.bucket, now - claim.seconds)
            wait = wait_of(entries, claim, wanted, spent, now)
        return Denied(index, claim.bucket, claim.limit, spent, held, resets_at, wait)

    def dispatch(self, hold_id: str) -> None:
        """See ``Store.dispatch``."""
        row = self.tables.hold(hold_id)
        if row is None or row.state is not None:
            what = "is not known" if row is None else f"has ended ({row.state})"
            raise LedgerConflictError(f"hold {hold_id!r} {what}; reserve before sending")
        if not row.dispatched:
            row.dispatched = True
            self.tables.save_hold(row)

    def extend(self, hold_id: str, expires_in: float, now: float) -> bool:
        """See ``Store.extend``."""
        row = self.tables.hold(hold_id)
        if row is None or row.state is not None:
            return False
        if now + expires_in > row.expires_at:
            row.expires_at = now + expires_in
            self.tables.save_hold(row)
        return True

    def settle(self, hold_id: str, amounts: Sequence[int], usage: Mapping[str, int] | None, now: float) -> Ended:
        """See ``Store.settle``."""
        row = self._known(hold_id)
        booked = _booked(row, check_amounts(amounts, len(row.takes)))
        if row.state is None:
            return self._end(row, HoldState.SETTLED, booked, usage, now)
        if row.state is HoldState.EXPIRED:
            return self._end(row, HoldState.ADJUSTED, booked, usage, now)
        return self._first_result(row, booked)

    def release(self, hold_id: str, now: float) -> Ended:
        """See ``Store.release``."""
        row = self.tables.hold(hold_id)
        if row is None:
            row = HoldRow(hold_id, (), (), {}, {}, "", "", now, now, False, HoldState.RELEASED, ended_at=now)
            self.tables.add_hold(row)
            return row.ended(repeated=False)
        nothing = (0,) * len(row.takes)
        if row.state is None:
            return self._end(row, HoldState.RELEASED, nothing, None, now)
        if row.state is HoldState.EXPIRED:
            return self._end(row, HoldState.ADJUSTED, nothing, {}, now)
        return self._first_result(row, nothing)

    def adjust(
        self, hold_id: str, amounts: Sequence[int], usage: Mapping[str, int] | None, reason: str, now: float
    ) -> Ended:
        """See ``Store.adjust``."""
        check_text(reason, "reason")
        row = self._known(hold_id)
        if row.state is None:
            raise LedgerConflictError(f"hold {hold_id!r} is open; settle it")
        booked = _booked(row, check_amounts(amounts, len(row.takes)))
        if booked == row.amounts and (usage is None or dict(usage) == dict(row.usage)):
            return row.ended(repeated=True)
        before = row.amounts
        ended = self._end(row, HoldState.ADJUSTED, booked, usage, now)
        for take, old, new in zip(row.takes, before, booked, strict=True):
            if take.kind is ClaimKind.COUNTER and old != new:
                self.tables.add_correction(Correction(row.id, take.bucket, take.epoch, new - old, reason, now))
        return ended

    def expire_due(self, now: float, limit: int) -> list[Ended]:
        """See ``Store.expire_due``."""
        ended = list[Ended]()
        for row in self.tables.due(now, limit):
            booked = _booked(row, row.estimate) if row.dispatched else (0,) * len(row.takes)
            usage = row.usage if row.dispatched else None
            ended.append(self._end(row, HoldState.EXPIRED, booked, usage or None, now))
        return ended

    def _known(self, hold_id: str) -> HoldRow:
        row = self.tables.hold(hold_id)
        if row is None:
            raise LedgerConflictError(f"hold {hold_id!r} is not known; it never was, or ended too long ago")
        return row

    def _first_result(self, row: HoldRow, amounts: tuple[int, ...]) -> Ended:
        if amounts != row.amounts:
            raise LedgerConflictError(
                f"hold {row.id!r} has ended ({row.state}) with {list(row.amounts)}, not {list(amounts)}; "
                "the first result stands; use adjust to correct it"
            )
        return row.ended(repeated=True)

    def _end(
        self, row: HoldRow, state: HoldState, amounts: tuple[int, ...], usage: Mapping[str, int] | None, now: float
    ) -> Ended:
        """Book ``amounts`` in place of what the hold held or had booked."""
        tables = self.tables
        was_open = row.state is None
        before = (0,) * len(row.takes) if was_open else row.amounts
        crossings = list[Crossing]()
        for take, old, new in zip(row.takes, before, amounts, strict=True):  # all or nothing: look before changing
            if take.kind is ClaimKind.COUNTER and new > old:
                spent, _ = tables.totals(take.bucket, take.epoch) or (0, 0)
                _check_sum(spent + new - old, take.bucket)
        for take, old, new in zip(row.takes, before, amounts, strict=True):
            if take.kind is ClaimKind.COUNTER:
                self._book(row, take, new - old, take.amount if was_open else 0, now, crossings)
            elif take.kind is ClaimKind.PLACES:
                if was_open:
                    tables.set_places(take.bucket, tables.places(take.bucket) - take.amount)
            else:
                tables.set_entry(take.bucket, row.id, row.reserved_at, new)
        if usage is not None:
            self._count(row, usage, now, was_open=was_open)
        row.state = state
        row.amounts = amounts
        row.crossings = tuple(crossings)
        row.ended_at = now
        tables.end_hold(row)
        return row.ended(repeated=False)

    def _book(self, row: HoldRow, take: Take, delta: int, held: int, now: float, crossings: list[Crossing]) -> None:
        totals = self.tables.totals(take.bucket, take.epoch)
        if totals is None:  # an epoch long past, no longer kept
            return
        spent = totals[0] + delta
        if spent < 0:  # a reset had taken off already what is now taken back: spending ends at 0, by an entry
            self.tables.add_correction(Correction(row.id, take.bucket, take.epoch, -spent, TAKEN_BACK, now))
            spent = 0
        self.tables.set_totals(take.bucket, take.epoch, spent, totals[1] - held)
        if take.thresholds and spent >= take.thresholds[0]:
            crossings += [
                Crossing(take.bucket, take.epoch, threshold, spent)
                for threshold in take.thresholds
                if spent >= threshold and self.tables.announce(take.bucket, take.epoch, threshold)
            ]

    def _count(self, row: HoldRow, usage: Mapping[str, int], now: float, *, was_open: bool) -> None:
        """Count usage in the hour of the hold's first end; what it had counted before is taken off."""
        values = dict(usage)
        if was_open or not row.usage_hour:
            row.usage_hour = int(now // HOUR) * HOUR
        else:
            for name, value in row.usage.items():
                values[name] = values.get(name, 0) - value
        row.usage = dict(usage)
        values = {name: value for name, value in values.items() if value}
        if values:
            self.tables.add_usage(row.usage_hour, row.labels, values)

    def read(self, claims: Sequence[Claim], now: float) -> list[BucketState]:
        """See ``Store.read``."""
        states = list[BucketState]()
        for claim in claims:
            if claim.kind is ClaimKind.COUNTER:
                period = period_of(self.tables.period(claim.bucket), claim, now)
                spent, held = self.tables.totals(claim.bucket, period.epoch) or (0, 0)
                states.append(BucketState(claim.bucket, spent, held, period.epoch, period.ends_at))
            elif claim.kind is ClaimKind.PLACES:
                states.append(BucketState(claim.bucket, 0, self.tables.places(claim.bucket)))
            else:
                spent = self.tables.window(claim.bucket, now - (claim.seconds or 0.0))
                states.append(BucketState(claim.bucket, spent, 0))
        return states

    def correct(
        self, claim: Claim, correction_id: str, reason: str, delta: int | None, to: int | None, now: float
    ) -> BucketState:
        """See ``Store.correct``."""
        check_text(reason, "reason")
        check_text(correction_id, "correction_id")
        if claim.kind is not ClaimKind.COUNTER:
            raise ConfigError("only what a counter has spent can be corrected", field="claim")
        if (delta is None) == (to is None):
            raise ConfigError("give either delta or to", field="delta")
        if not self.tables.is_corrected(correction_id):
            period = period_of(self.tables.period(claim.bucket), claim, now)
            spent, held = self.tables.totals(claim.bucket, period.epoch) or (0, 0)
            after = spent + delta if delta is not None else to or 0
            if after < 0:
                raise LedgerConflictError(f"{claim.bucket!r} has spent {spent}; {delta} more would be negative")
            _check_sum(after, claim.bucket)
            self.tables.make_room([claim], now)
            self.tables.set_period(claim.bucket, period)
            self.tables.set_totals(claim.bucket, period.epoch, after, held)
            entry = Correction(correction_id, claim.bucket, period.epoch, after - spent, reason, now)
            self.tables.add_correction(entry)
        return self.read([claim], now)[0]


def _check_sum(total: int, bucket: str) -> int:
    if total > MAX_AMOUNT:
        raise StoreError(f"{bucket!r} would count beyond 2**63 - 1; use a greater unit or a shorter period")
    return total


def _booked(row: HoldRow, amounts: tuple[int, ...]) -> tuple[int, ...]:
    """What a settlement books: nothing for places, which are given back."""
    for take in row.takes:
        if take.kind is ClaimKind.PLACES:
            break
    else:
        return amounts
    return tuple(
        0 if take.kind is ClaimKind.PLACES else amount for take, amount in zip(row.takes, amounts, strict=True)
    )


def sum_usage(
    cells: Iterable[tuple[int, Mapping[str, str], Mapping[str, int]]],
    *,
    by: Sequence[str],
    where: Mapping[str, str] | None,
) -> list[UsageCell]:
    """Add cells up.

    Args:
        cells: Hour, labels and values of each.
        by: Labels to keep apart, ``hour`` among them.
        where: Labels that a cell must have.
    """
    sums = dict[tuple[str, ...], dict[str, int]]()
    for hour, labels, values in cells:
        if where and any(labels.get(name) != value for name, value in where.items()):
            continue
        key = tuple(str(hour) if name == "hour" else labels.get(name, "") for name in by)
        total = sums.setdefault(key, {})
        for name, value in values.items():
            total[name] = total.get(name, 0) + value
    return [UsageCell(dict(zip(by, key, strict=True)), sums[key]) for key in sorted(sums)]
