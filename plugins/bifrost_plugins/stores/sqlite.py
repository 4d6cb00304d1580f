"""A store in a file of SQLite: shared by the processes of one machine, and surviving their crashes."""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.to_thread
import attrs
import msgspec
from anyio.lowlevel import RunVar

from bifrost_core import BifrostError, Clock, ConfigError, SystemClock

from ._ledger import HoldRow, Ledger, Period, Take, sum_usage
from .base import (
    HOUR,
    MAX_CORRECTIONS,
    MAX_HOLDS,
    MAX_RESULTS,
    MAX_SERIES,
    PAST_EPOCHS,
    RESULT_SECONDS,
    USAGE_HOURS,
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
    OpenHold,
    StoreError,
    UsageCell,
    check_text,
)

__all__ = ["SqliteStore"]

_T = TypeVar("_T")

_APPLICATION: Final = 0x62667374  # "bfst": PRAGMA application_id, so that no other database is taken for a store
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
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

_SLOW_SECONDS: Final = 0.01  # operations that hold up the loop this long, several in a row (one may be mere
_SLOW_IN_A_ROW: Final = 3  # preemption), send the next ones to a thread …
_ASIDE_SECONDS: Final = 5.0  # … for this long
_TIDY_ROWS: Final = 1_000  # rows of each kind that one round of tidying takes away
_TIDY_SECONDS: Final = 60.0  # between two rounds


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
_amounts = msgspec.json.Decoder(dict[str, int]).decode
_label_map = msgspec.json.Decoder(dict[str, str]).decode

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
class _SqliteTables:
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
        cell = _amounts(found[0]) if found is not None else {}
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


class _BusyError(Exception):
    """Another thread, process or transaction is writing."""


class SqliteStore:
    """Keeps everything in one file, for all processes of one machine.

    The database is in WAL mode. What was acknowledged survives ``kill -9`` of any process; with
    ``full=False`` (``synchronous=NORMAL``) the last commits may be lost when the *machine* loses its
    power, never the file's consistency (https://www.sqlite.org/pragma.html#pragma_synchronous).
    ``full=True`` waits for the disk at each operation: hundreds of microseconds to milliseconds
    instead of tens of microseconds, so it always works in a thread.

    Operations run on the event loop itself, as they cost less than a change of thread. When another
    process writes, the loop is not held up: the operation sleeps and tries again. When three in a
    row took more than 10 ms (a slow disk), the next ones run in a thread for some seconds.

    WAL needs a local disk: no NFS. The database is opened at first use, also again in the child of a
    fork. A new file is readable by its owner only.

    Args:
        path: Path of the file; its directory exists.
        clock: Where the time comes from; ``time()`` is read, and never goes back in any process.
        busy_timeout: Seconds to go on trying while others write.
        full: Whether an acknowledged operation survives the loss of power.
        max_holds: Holds that may be open at once; more are refused with ``StoreError``.
        rng: Spreads the tries of several processes.

    Raises:
        ConfigError: ``path`` is empty or ``:memory:``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        busy_timeout: float = 2.0,
        full: bool = False,
        max_holds: int = MAX_HOLDS,
        rng: random.Random | None = None,
    ) -> None:
        self._path = os.fspath(path)
        if self._path in {"", ":memory:"}:
            raise ConfigError("a store of SQLite is a file; use MemoryStore for one in memory", field="path")
        self._clock: Clock = SystemClock() if clock is None else clock
        self._busy_timeout = busy_timeout
        self._full = full
        self._max_holds = max_holds
        self._rng = random.Random() if rng is None else rng
        self._aside_until = float("inf") if full else float("-inf")
        self._slow = 0
        self._tidy_at = 0.0
        self._limiter: RunVar[anyio.CapacityLimiter] = RunVar("bifrost sqlite store")
        self._starts = 0
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._tables: _SqliteTables | None = None
        self._of_parents: list[_SqliteTables] = []

    def __repr__(self) -> str:
        return f"SqliteStore({self._path!r})"

    # Opening and closing.

    async def start(self) -> None:
        """Open the file, or make it.

        Raises:
            StoreError: It can not be opened, is damaged, is no store, or one of a newer version.
        """
        await self._run(lambda _ledger, _tables, _now: None)
        self._starts += 1

    async def aclose(self) -> None:
        """Close the file when everybody who started it has closed it."""
        self._starts = max(0, self._starts - 1)
        if self._starts == 0:
            await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        with self._lock:
            tables, self._tables = self._tables, None
            if tables is not None and self._pid == os.getpid():
                with suppress(sqlite3.Error):
                    tables.db.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _opened(self) -> _SqliteTables:
        if self._tables is None:
            if not Path(self._path).exists():  # SQLite would make it readable by others
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            db = self._connect()
            try:
                self._prepare(db)
            except BaseException:
                db.close()
                raise
            self._tables = _SqliteTables(db)
        return self._tables

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
        )

    def _prepare(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application != _APPLICATION:
            raise StoreError(f"{self._path} is a database of something else; give the store a file of its own")
        if version > _SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer version of this library (schema {version}, known is"
                f" {_SCHEMA_VERSION}); update it, or use another file"
            )
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{self._path} is on a disk where SQLite has no WAL; use a local one")
        db.execute(f"PRAGMA synchronous = {'FULL' if self._full else 'NORMAL'}")
        if tables:
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:  # nobody was faster
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    # Running operations.

    def _check_process(self) -> None:
        """After a fork: leave the parent's connection alone and open one of our own.

        Not even closing it is allowed (https://www.sqlite.org/howtocorrupt.html, 2.6), so it is kept.
        """
        pid = os.getpid()
        if pid != self._pid:
            self._pid = pid
            self._lock = threading.Lock()
            if self._tables is not None:
                self._of_parents.append(self._tables)
                self._tables = None

    def _once(self, operation: Callable[[Ledger, _SqliteTables, float], _T], wait: float = 0.0) -> _T:
        """One try of an operation in a transaction of its own; waits for other threads for ``wait`` seconds."""
        self._check_process()
        if not self._lock.acquire(timeout=wait):
            raise _BusyError
        try:
            tables = self._opened()
            db = tables.db
            db.execute("BEGIN IMMEDIATE")
            try:
                now = tables.begin(self._clock.time())
                result = operation(Ledger(tables, self._max_holds), tables, now)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                raise _BusyError from exc
            raise self._failed(exc) from exc
        except (OverflowError, msgspec.DecodeError) as exc:
            raise self._failed(exc) from exc
        except OSError as exc:
            raise StoreError(f"{self._path} can not be opened ({exc.strerror}); check the path and its rights") from exc
        finally:
            self._lock.release()
        return result

    def _failed(self, exc: Exception) -> BifrostError:
        name = getattr(exc, "sqlite_errorname", type(exc).__name__)
        if name in {"SQLITE_CORRUPT", "SQLITE_NOTADB"}:
            return StoreError(f"{self._path} is damaged or no database ({name}); restore it, or use another file")
        return StoreError(f"SQLite failed on {self._path} ({name})")

    def _judge(self, began: float, ended: float) -> None:
        """Move to a thread for a while when the disk is slow."""
        self._slow = self._slow + 1 if ended - began > _SLOW_SECONDS else 0
        if self._slow >= _SLOW_IN_A_ROW:
            self._slow = 0
            self._aside_until = ended + _ASIDE_SECONDS

    async def _aside(self, operation: Callable[[Ledger, _SqliteTables, float], _T]) -> _T:
        """One try in a thread; one at a time, so that the others wait in order and not in turns of trying."""
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(1)
            self._limiter.set(limiter)
        return await anyio.to_thread.run_sync(self._once, operation, self._busy_timeout, limiter=limiter)

    async def _run(self, operation: Callable[[Ledger, _SqliteTables, float], _T]) -> _T:
        """Run an operation, waiting between tries while others write.

        Raises:
            StoreError: Others wrote all the time, or SQLite failed.
        """
        deadline: float | None = None
        pause = 0.0002
        while True:
            began = self._clock()
            try:
                if began < self._aside_until:
                    result = await self._aside(operation)
                else:
                    result = self._once(operation)
                    self._judge(began, self._clock())
            except _BusyError:
                if deadline is None:
                    deadline = anyio.current_time() + self._busy_timeout
                elif anyio.current_time() > deadline:
                    raise StoreError(
                        f"{self._path} was busy for {self._busy_timeout:g} s; are there transactions that do not end?"
                    ) from None
            else:
                return result
            await anyio.sleep(pause * (0.5 + self._rng.random()))
            pause = min(2 * pause, 0.02)

    # The ledger.

    async def reserve(self, hold: Hold) -> Granted | Denied:
        """See ``Store``."""
        return await self._run(lambda ledger, _, now: ledger.reserve(hold, now))

    async def dispatch(self, hold_id: str) -> None:
        """See ``Store``."""
        await self._run(lambda ledger, _tables, _now: ledger.dispatch(hold_id))

    async def extend(self, hold_id: str, expires_in: float) -> bool:
        """See ``Store``."""
        return await self._run(lambda ledger, _, now: ledger.extend(hold_id, expires_in, now))

    async def settle(self, hold_id: str, amounts: Sequence[int], usage: Mapping[str, int] | None = None) -> Ended:
        """See ``Store``."""
        return await self._run(lambda ledger, _, now: ledger.settle(hold_id, amounts, usage, now))

    async def release(self, hold_id: str) -> Ended:
        """See ``Store``."""
        return await self._run(lambda ledger, _, now: ledger.release(hold_id, now))

    async def adjust(
        self, hold_id: str, amounts: Sequence[int], *, reason: str, usage: Mapping[str, int] | None = None
    ) -> Ended:
        """See ``Store``."""
        return await self._run(lambda ledger, _, now: ledger.adjust(hold_id, amounts, usage, reason, now))

    async def expire_due(self, limit: int = 1_000) -> list[Ended]:
        """See ``Store``; also tidies up what is too old to matter."""

        def expire(ledger: Ledger, tables: _SqliteTables, now: float) -> list[Ended]:
            ended = ledger.expire_due(now, limit)
            if now >= self._tidy_at:
                self._tidy_at = now + _TIDY_SECONDS
                tables.tidy(now)
            return ended

        return await self._run(expire)

    async def read(self, claims: Sequence[Claim]) -> list[BucketState]:
        """See ``Store``."""
        return await self._run(lambda ledger, _, now: ledger.read(claims, now))

    async def correct(
        self, claim: Claim, *, correction_id: str, reason: str, delta: int | None = None, to: int | None = None
    ) -> BucketState:
        """See ``Store``."""
        return await self._run(lambda ledger, _, now: ledger.correct(claim, correction_id, reason, delta, to, now))

    async def holds(self, limit: int = 1_000) -> list[OpenHold]:
        """See ``Store``."""
        rows = await self._run(lambda _ledger, tables, _now: tables.due(float("inf"), limit))
        return [row.as_open() for row in rows]

    async def corrections(self, limit: int = 1_000) -> list[Correction]:
        """See ``Store``."""
        latest = "SELECT id, bucket, epoch, delta, reason, at FROM corrections ORDER BY number DESC LIMIT ?"
        rows = await self._run(lambda _ledger, tables, _now: tables.db.execute(latest, (limit,)).fetchall())
        return [Correction(*row) for row in rows]

    # Usage.

    async def usage(
        self, since: float, until: float, *, by: Sequence[str] = (), where: Mapping[str, str] | None = None
    ) -> list[UsageCell]:
        """See ``Store``; reads in a thread, on a connection of its own."""
        await self._run(lambda _ledger, _tables, _now: None)  # the file exists and is ours

        def add_up() -> list[UsageCell]:
            try:
                with closing(self._connect()) as db:
                    rows = db.execute(
                        "SELECT hour, labels, amounts FROM usage WHERE hour >= ? AND hour < ?",
                        (int(since // HOUR) * HOUR, until),
                    )
                    cells = ((hour, _label_map(labels), _amounts(amounts)) for hour, labels, amounts in rows)
                    return sum_usage(cells, by=by, where=where)
            except sqlite3.Error as exc:
                raise self._failed(exc) from exc

        return await anyio.to_thread.run_sync(add_up)

    # Keys and values.

    async def get(self, key: str) -> bytes | None:
        """See ``Store``."""
        return await self._run(lambda _, tables, now: _value(tables.db, key, now))

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

        def put(_ledger: Ledger, tables: _SqliteTables, now: float) -> bool:
            if if_absent or expect is not None:
                current = _value(tables.db, key, now)
                if (if_absent and current is not None) or (expect is not None and current != expect):
                    return False
            row = (check_text(key, "key"), bytes(value), None if ttl is None else now + ttl)
            tables.db.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?, ?)", row)
            return True

        return await self._run(put)

    async def delete(self, key: str, *, expect: bytes | None = None) -> bool:
        """See ``Store``."""

        def delete(_ledger: Ledger, tables: _SqliteTables, now: float) -> bool:
            current = _value(tables.db, key, now)
            if current is None or (expect is not None and current != expect):
                return False
            tables.db.execute("DELETE FROM pairs WHERE key = ?", (key,))
            return True

        return await self._run(delete)

    async def items(self, prefix: str = "") -> list[tuple[str, bytes]]:
        """See ``Store``."""
        check_text(prefix, "prefix")
        alive = "SELECT key, value FROM pairs WHERE key >= ? AND (ends_at IS NULL OR ends_at > ?) ORDER BY key"

        def items(_ledger: Ledger, tables: _SqliteTables, now: float) -> list[tuple[str, bytes]]:
            found = tables.db.execute(alive, (prefix, now))
            return list(itertools.takewhile(lambda row: row[0].startswith(prefix), found))

        return await self._run(items)


def _value(db: sqlite3.Connection, key: str, now: float) -> bytes | None:
    check_text(key, "key")
    found = db.execute(
        "SELECT value FROM pairs WHERE key = ? AND (ends_at IS NULL OR ends_at > ?)", (key, now)
    ).fetchone()
    return bytes(found[0]) if found is not None else None
