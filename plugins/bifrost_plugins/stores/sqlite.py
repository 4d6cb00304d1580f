"""A store in a file of SQLite: shared by the processes of one machine, and surviving their crashes."""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
import anyio.to_thread
import msgspec
from anyio.lowlevel import RunVar

from bifrost_core import BifrostError, Clock, ConfigError, SystemClock

from ._ledger import Ledger, sum_usage
from ._sqlite_tables import (
    APPLICATION,
    SCHEMA,
    SCHEMA_VERSION,
    SqliteTables,
    decode_amounts,
    decode_labels,
    value_of,
)
from .base import (
    HOUR,
    MAX_HOLDS,
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

__all__ = ["SqliteStore"]

_T = TypeVar("_T")

_SLOW_SECONDS: Final = 0.01  # operations that hold up the loop this long, several in a row (one may be mere
_SLOW_IN_A_ROW: Final = 3  # preemption), send the next ones to a thread …
_ASIDE_SECONDS: Final = 5.0  # … for this long
_TIDY_SECONDS: Final = 60.0  # between two rounds


class _BusyError(Exception):
    """Another thread, process or transaction is writing."""


class SqliteStore:
    """Keeps everything in one file, for all processes of one machine.

    The database is in WAL mode. What was acknowledged survives ``kill -9`` of any process; with
    ``full=False`` (``synchronous=NORMAL``) the last commits may be lost when the *machine* loses its
    power, never the file's consistency (https://www.sqlite.org/pragma.html#pragma_synchronous).
    ``full=True`` waits for the disk at each operation: milliseconds instead of about 100 microseconds
    (measured on two shared cores), so it always works in a thread.

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
        self._tables: SqliteTables | None = None
        self._of_parents: list[SqliteTables] = []

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

    def _opened(self) -> SqliteTables:
        if self._tables is None:
            if not Path(self._path).exists():  # SQLite would make it readable by others
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            db = self._connect()
            try:
                self._prepare(db)
            except BaseException:
                db.close()
                raise
            self._tables = SqliteTables(db)
        return self._tables

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
        )

    def _prepare(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application != APPLICATION:
            raise StoreError(f"{self._path} is a database of something else; give the store a file of its own")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer version of this library (schema {version}, known is"
                f" {SCHEMA_VERSION}); update it, or use another file"
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
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
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

    def _once(self, operation: Callable[[Ledger, SqliteTables, float], _T], wait: float = 0.0) -> _T:
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

    async def _aside(self, operation: Callable[[Ledger, SqliteTables, float], _T]) -> _T:
        """One try in a thread; one at a time, so that the others wait in order and not in turns of trying."""
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(1)
            self._limiter.set(limiter)
        return await anyio.to_thread.run_sync(self._once, operation, self._busy_timeout, limiter=limiter)

    async def _run(self, operation: Callable[[Ledger, SqliteTables, float], _T]) -> _T:
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

        def expire(ledger: Ledger, tables: SqliteTables, now: float) -> list[Ended]:
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
                    cells = ((hour, decode_labels(labels), decode_amounts(amounts)) for hour, labels, amounts in rows)
                    return sum_usage(cells, by=by, where=where)
            except sqlite3.Error as exc:
                raise self._failed(exc) from exc

        return await anyio.to_thread.run_sync(add_up)

    # Keys and values.

    async def get(self, key: str) -> bytes | None:
        """See ``Store``."""
        return await self._run(lambda _, tables, now: value_of(tables.db, key, now))

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

        def put(_ledger: Ledger, tables: SqliteTables, now: float) -> bool:
            if if_absent or expect is not None:
                current = value_of(tables.db, key, now)
                if (if_absent and current is not None) or (expect is not None and current != expect):
                    return False
            row = (check_text(key, "key"), bytes(value), None if ttl is None else now + ttl)
            tables.db.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?, ?)", row)
            return True

        return await self._run(put)

    async def delete(self, key: str, *, expect: bytes | None = None) -> bool:
        """See ``Store``."""

        def delete(_ledger: Ledger, tables: SqliteTables, now: float) -> bool:
            current = value_of(tables.db, key, now)
            if current is None or (expect is not None and current != expect):
                return False
            tables.db.execute("DELETE FROM pairs WHERE key = ?", (key,))
            return True

        return await self._run(delete)

    async def items(self, prefix: str = "") -> list[tuple[str, bytes]]:
        """See ``Store``."""
        check_text(prefix, "prefix")
        alive = "SELECT key, value FROM pairs WHERE key >= ? AND (ends_at IS NULL OR ends_at > ?) ORDER BY key"

        def items(_ledger: Ledger, tables: SqliteTables, now: float) -> list[tuple[str, bytes]]:
            found = tables.db.execute(alive, (prefix, now))
            return list(itertools.takewhile(lambda row: row[0].startswith(prefix), found))

        return await self._run(items)
