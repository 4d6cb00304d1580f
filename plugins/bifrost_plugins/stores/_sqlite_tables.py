"""The tables of the ledger in a database of SQLite: schema, rows and statements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec

from ._ledger import HoldRow, Period, Take
from .base import (
    HOUR,
    MAX_CORRECTIONS,
    MAX_RESULTS,
    MAX_SERIES,
    PAST_EPOCHS,
    RESULT_SECONDS,
    USAGE_HOURS,
    Claim,
    ClaimKind,
    Correction,
    Crossing,
    HoldState,
    check_text,
)

__all__ = ["APPLICATION", "SCHEMA", "SCHEMA_VERSION", "SqliteTables", "decode_amounts", "decode_labels", "value_of"]

APPLICATION: Final = 0x62667374  # "bfst": PRAGMA application_id, so that no other database is taken for a store
SCHEMA_VERSION: Final = 1
SCHEMA: Final = """
CREATE TABLE clock (seen REAL NOT NULL, open INTEGER NOT NULL) STRICT;
INSERT INTO clock VALUES (0, 0);
CREATE TABLE holds (
    id TEXT PRIMARY KEY, body BLOB NOT NULL, reserved_at REAL NOT NULL, expires_at REAL NOT NULL,
    dispatched INTEGER NOT NULL, state TEXT, end BLOB, ended_at REAL
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_open ON holds (expires_at) WHERE state IS NULL;
CREATE INDEX holds_ended ON holds (ended_at) WHERE state IS NOT NULL;
CREATE TABLE periods (bucket TEXT PRIMARY KEY, epoch INTEGER NOT NULL, ends_at REAL) STRICT, WITHOUT ROWID;
CREATE INDEX periods_end ON periods (ends_at) WHERE ends_at IS NOT NULL;
CREATE TABLE counters (
    bucket TEXT NOT NULL, epoch INTEGER NOT NULL, spent INTEGER NOT NULL, held INTEGER NOT NULL,
    PRIMARY KEY (bucket, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE announced (
    bucket TEXT NOT NULL, epoch INTEGER NOT NULL, threshold INTEGER NOT NULL,
    PRIMARY KEY (bucket, epoch, threshold)
) STRICT, WITHOUT ROWID;
CREATE TABLE places (bucket TEXT PRIMARY KEY, held INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE windows (
    bucket TEXT PRIMARY KEY, total INTEGER NOT NULL, idle_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE entries (
    bucket TEXT NOT NULL, at REAL NOT NULL, hold TEXT NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (bucket, at, hold)
) STRICT, WITHOUT ROWID;
CREATE TABLE corrections (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, bucket TEXT NOT NULL, epoch INTEGER NOT NULL,
    delta INTEGER NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL
) STRICT;
CREATE INDEX corrections_id ON corrections (id);
CREATE TABLE usage (
    hour INTEGER NOT NULL, labels TEXT NOT NULL, amounts BLOB NOT NULL, PRIMARY KEY (hour, labels)
) STRICT, WITHOUT ROWID;
CREATE TABLE pairs (key TEXT PRIMARY KEY, value BLOB NOT NULL, ends_at REAL) STRICT, WITHOUT ROWID;
CREATE INDEX pairs_end ON pairs (ends_at) WHERE ends_at IS NOT NULL;
"""

_TIDY_ROWS: Final = 1_000  # rows of each kind that one round of tidying takes away


class _TakeRow(msgspec.Struct, array_like=True):
    kind: str
    bucket: str
    amount: int
    epoch: int
    thresholds: tuple[int, ...]


class _Body(msgspec.Struct, array_like=True):
    call_id: str
    note: str
    labels: dict[str, str]
    estimate: tuple[int, ...]
    takes: tuple[_TakeRow, ...]
    usage: dict[str, int]


class _End(msgspec.Struct, array_like=True):
    amounts: tuple[int, ...]
    crossings: tuple[tuple[str, int, int, int], ...]
    usage: dict[str, int]
    usage_hour: int


_encode = msgspec.json.Encoder().encode
_body = msgspec.json.Decoder(_Body).decode
_end = msgspec.json.Decoder(_End).decode
decode_amounts = msgspec.json.Decoder(dict[str, int]).decode
decode_labels = msgspec.json.Decoder(dict[str, str]).decode

_HOLD = "SELECT id, body, reserved_at, expires_at, dispatched, state, end, ended_at FROM holds "


def _row(
    hold_id: str,
    body: bytes,
    reserved_at: float,
    expires_at: float,
    dispatched: int,
    state: str | None,
    end: bytes | None,
    ended_at: float | None,
) -> HoldRow:
    kept = _body(body)
    row = HoldRow(
        id=hold_id,
        takes=tuple(Take(ClaimKind(t.kind), t.bucket, t.amount, t.epoch, t.thresholds) for t in kept.takes),
        estimate=kept.estimate,
        usage=kept.usage,
        labels=kept.labels,
        call_id=kept.call_id,
        note=kept.note,
        reserved_at=reserved_at,
        expires_at=expires_at,
        dispatched=bool(dispatched),
    )
    if state is not None and end is not None:
        result = _end(end)
        row.state = HoldState(state)
        row.amounts = result.amounts
        row.crossings = tuple(Crossing(*each) for each in result.crossings)
        row.usage = result.usage
        row.usage_hour = result.usage_hour
        row.ended_at = ended_at or 0.0
    return row


@attrs.define(eq=False)
class SqliteTables:
    """The tables of the ledger in a database; used inside a transaction only."""

    db: sqlite3.Connection
    open: int = 0
    # What this transaction has read or written already: nobody else writes meanwhile.
    _periods: dict[str, Period | None] = attrs.field(factory=dict[str, Period | None])
    _totals: dict[tuple[str, int], tuple[int, int] | None] = attrs.field(
        factory=dict[tuple[str, int], tuple[int, int] | None]
    )

    def _one(self, statement: str, *values: Any) -> Any:
        return self.db.execute(statement, values).fetchone()

    def begin(self, wall: float) -> float:
        """Read what every operation needs; the time, which never goes back."""
        self._periods.clear()
        self._totals.clear()
        seen, self.open = self._one("SELECT seen, open FROM clock")
        return max(float(seen), wall)

    def hold(self, hold_id: str) -> HoldRow | None:
        found = self._one(_HOLD + "WHERE id = ?", hold_id)
        return _row(*found) if found is not None else None

    def add_hold(self, row: HoldRow) -> None:
        takes = tuple(_TakeRow(t.kind, t.bucket, t.amount, t.epoch, t.thresholds) for t in row.takes)
        body = _Body(row.call_id, row.note, dict(row.labels), row.estimate, takes, dict(row.usage))
        values = (row.id, _encode(body), row.reserved_at, row.expires_at, row.dispatched)
        self.db.execute("INSERT INTO holds VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL)", values)
        self.db.execute("UPDATE clock SET open = open + 1, seen = max(seen, ?)", (row.reserved_at,))
        if row.state is not None:
            self.end_hold(row)

    def save_hold(self, row: HoldRow) -> None:
        self.db.execute(
            "UPDATE holds SET expires_at = ?, dispatched = ? WHERE id = ?", (row.expires_at, row.dispatched, row.id)
        )

    def end_hold(self, row: HoldRow) -> None:
        crossings = tuple((each.bucket, each.epoch, each.threshold, each.spent) for each in row.crossings)
        end = _encode(_End(row.amounts, crossings, dict(row.usage), row.usage_hour))
        first = self.db.execute(
            "UPDATE holds SET state = ?, end = ?, ended_at = ? WHERE id = ? AND state IS NULL",
            (row.state, end, row.ended_at, row.id),
        )
        if first.rowcount:
            self.db.execute("UPDATE clock SET open = open - 1, seen = max(seen, ?)", (row.ended_at,))
        else:
            self.db.execute(
                "UPDATE holds SET state = ?, end = ?, ended_at = ? WHERE id = ?", (row.state, end, row.ended_at, row.id)
            )

    def open_holds(self) -> int:
        return self.open

    def due(self, now: float, limit: int) -> list[HoldRow]:
        due = _HOLD + "WHERE state IS NULL AND expires_at <= ? ORDER BY expires_at, id LIMIT ?"
        return [_row(*found) for found in self.db.execute(due, (now, limit)).fetchall()]

    def make_room(self, claims: Sequence[Claim], now: float) -> None:
        """The disk is the bound; what counts nothing any more is tidied away."""

    def period(self, bucket: str) -> Period | None:
        if bucket not in self._periods:
            found = self._one("SELECT epoch, ends_at FROM periods WHERE bucket = ?", bucket)
            self._periods[bucket] = Period(*found) if found is not None else None
        return self._periods[bucket]

    def set_period(self, bucket: str, period: Period) -> None:
        running = self.period(bucket)
        if running == period:
            return
        self._periods[bucket] = period
        self.db.execute("INSERT OR REPLACE INTO periods VALUES (?, ?, ?)", (bucket, period.epoch, period.ends_at))
        if running is not None and running.epoch != period.epoch:
            self.db.execute(
                "DELETE FROM counters WHERE bucket = ?1 AND held = 0 AND epoch < (SELECT min(epoch) FROM"
                " (SELECT epoch FROM counters WHERE bucket = ?1 ORDER BY epoch DESC LIMIT ?2))",
                (bucket, PAST_EPOCHS),
            )
            self.db.execute(
                "DELETE FROM announced WHERE bucket = ?1 AND epoch <"
                " (SELECT min(epoch) FROM counters WHERE bucket = ?1)",
                (bucket,),
            )

    def totals(self, bucket: str, epoch: int) -> tuple[int, int] | None:
        key = (bucket, epoch)
        if key not in self._totals:
            self._totals[key] = self._one("SELECT spent, held FROM counters WHERE bucket = ? AND epoch = ?", *key)
        return self._totals[key]

    def set_totals(self, bucket: str, epoch: int, spent: int, held: int) -> None:
        self._totals[bucket, epoch] = (spent, held)
        self.db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?)", (bucket, epoch, spent, held))

    def announce(self, bucket: str, epoch: int, threshold: int) -> bool:
        added = self.db.execute("INSERT OR IGNORE INTO announced VALUES (?, ?, ?)", (bucket, epoch, threshold))
        return added.rowcount == 1

    def places(self, bucket: str) -> int:
        found = self._one("SELECT held FROM places WHERE bucket = ?", bucket)
        return int(found[0]) if found is not None else 0

    def set_places(self, bucket: str, held: int) -> None:
        if held:
            self.db.execute("INSERT OR REPLACE INTO places VALUES (?, ?)", (bucket, held))
        else:
            self.db.execute("DELETE FROM places WHERE bucket = ?", (bucket,))

    def window(self, bucket: str, after: float) -> int:
        # The sum of all entries less those too old: few, as adding an entry takes them away.
        found = self._one("SELECT total FROM windows WHERE bucket = ?", bucket)
        return int(found[0]) - self._too_old(bucket, after) if found is not None else 0

    def _too_old(self, bucket: str, after: float) -> int:
        found = self._one("SELECT sum(amount) FROM entries WHERE bucket = ? AND at <= ?", bucket, after)
        return int(found[0] or 0)

    def window_entries(self, bucket: str, after: float) -> Iterable[tuple[float, int]]:
        return self.db.execute(
            "SELECT at, amount FROM entries WHERE bucket = ? AND at > ? ORDER BY at, hold", (bucket, after)
        )

    def add_entry(self, bucket: str, hold_id: str, at: float, amount: int, seconds: float) -> None:
        gone = self._too_old(bucket, at - seconds)
        self.db.execute("DELETE FROM entries WHERE bucket = ? AND at <= ?", (bucket, at - seconds))
        self.db.execute(
            "INSERT INTO windows VALUES (?1, ?2, ?4) ON CONFLICT DO UPDATE SET total = total - ?3 + ?2, idle_at = ?4",
            (bucket, amount, gone, at + seconds),
        )
        self.db.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (bucket, at, hold_id, amount))

    def set_entry(self, bucket: str, hold_id: str, at: float, amount: int) -> None:
        found = self._one("SELECT amount FROM entries WHERE bucket = ? AND at = ? AND hold = ?", bucket, at, hold_id)
        if found is not None and found[0] != amount:
            self.db.execute(
                "UPDATE entries SET amount = ? WHERE bucket = ? AND at = ? AND hold = ?", (amount, bucket, at, hold_id)
            )
            self.db.execute("UPDATE windows SET total = total + ? WHERE bucket = ?", (amount - found[0], bucket))

    def is_corrected(self, correction_id: str) -> bool:
        return self._one("SELECT 1 FROM corrections WHERE id = ?", correction_id) is not None

    def add_correction(self, entry: Correction) -> None:
        values = (entry.id, entry.bucket, entry.epoch, entry.delta, entry.reason, entry.at)
        added = self.db.execute("INSERT INTO corrections VALUES (NULL, ?, ?, ?, ?, ?, ?)", values)
        self.db.execute("DELETE FROM corrections WHERE number <= ?", ((added.lastrowid or 0) - MAX_CORRECTIONS,))

    def add_usage(self, hour: int, labels: Mapping[str, str], values: Mapping[str, int]) -> None:
        key = _encode(dict(labels)).decode()
        found = self._one("SELECT amounts FROM usage WHERE hour = ? AND labels = ?", hour, key)
        if found is None and self._one("SELECT count(*) FROM usage WHERE hour = ?", hour)[0] >= MAX_SERIES:
            key = _encode(dict.fromkeys(labels, "other")).decode()
            found = self._one("SELECT amounts FROM usage WHERE hour = ? AND labels = ?", hour, key)
        cell = decode_amounts(found[0]) if found is not None else {}
        for name, value in values.items():
            cell[name] = cell.get(name, 0) + value
        self.db.execute("INSERT OR REPLACE INTO usage VALUES (?, ?, ?)", (hour, key, _encode(cell)))

    def tidy(self, now: float) -> None:
        """Let go of what counts nothing any more, a bounded part of it."""
        old = now - RESULT_SECONDS
        beyond = self._one("SELECT count(*) FROM holds WHERE state IS NOT NULL")[0] - MAX_RESULTS
        some = "DELETE FROM holds WHERE id IN (SELECT id FROM holds WHERE state IS NOT NULL"
        self.db.execute(f"{some} AND ended_at < ? ORDER BY ended_at LIMIT ?)", (old, _TIDY_ROWS))
        if beyond > 0:
            self.db.execute(f"{some} ORDER BY ended_at LIMIT ?)", (min(beyond, _TIDY_ROWS),))
        idle = self.db.execute("SELECT bucket FROM windows WHERE idle_at <= ? LIMIT ?", (now, _TIDY_ROWS)).fetchall()
        self.db.executemany("DELETE FROM entries WHERE bucket = ?", idle)
        self.db.executemany("DELETE FROM windows WHERE bucket = ?", idle)
        over = self.db.execute(
            "SELECT bucket FROM periods WHERE ends_at <= ? AND NOT EXISTS (SELECT 1 FROM counters"
            " WHERE counters.bucket = periods.bucket AND held > 0) LIMIT ?",
            (old, _TIDY_ROWS),
        ).fetchall()
        for table in ("counters", "announced", "periods"):
            self.db.executemany(f"DELETE FROM {table} WHERE bucket = ?", over)  # noqa: S608 - names from above
        self.db.execute("DELETE FROM usage WHERE hour < ?", (now - USAGE_HOURS * HOUR,))
        self.db.execute("DELETE FROM pairs WHERE ends_at <= ?", (now,))


def value_of(db: sqlite3.Connection, key: str, now: float) -> bytes | None:
    check_text(key, "key")
    found = db.execute(
        "SELECT value FROM pairs WHERE key = ? AND (ends_at IS NULL OR ends_at > ?)", (key, now)
    ).fetchone()
    return bytes(found[0]) if found is not None else None
