"""A database of SQLite: one row per call, found by time, tenant, model, outcome and id."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import attrs

from bifrost_core import Clock, ConfigError, SystemClock

from ._events import Event
from ._jsonl import to_path

__all__ = ["SqliteSink", "check_version"]

# The version of a database stands in its ``user_version``; each entry leads from one version to the next.
_MIGRATIONS: Final = (
    """
    CREATE TABLE calls (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        call_id TEXT NOT NULL UNIQUE,
        started_at REAL NOT NULL,
        operation TEXT NOT NULL,
        model TEXT NOT NULL,
        principal TEXT,
        tenant TEXT,
        virtual_key TEXT,
        outcome TEXT NOT NULL,
        kind TEXT,
        latency REAL,
        time_to_first_token REAL,
        cached INTEGER NOT NULL,
        cost TEXT,
        usage TEXT,
        attempts TEXT NOT NULL,
        verdicts TEXT NOT NULL,
        metadata TEXT NOT NULL
    );
    CREATE INDEX calls_by_time ON calls (started_at);
    CREATE INDEX calls_by_tenant ON calls (tenant, started_at);
    CREATE INDEX calls_by_model ON calls (model, started_at);
    CREATE INDEX calls_by_outcome ON calls (outcome, started_at);
    """,
)
_CONTENTS: Final = """
    CREATE TABLE IF NOT EXISTS contents (
        id INTEGER PRIMARY KEY REFERENCES calls (id) ON DELETE CASCADE,
        prompt TEXT,
        answer TEXT
    )
"""
_COLUMNS: Final = (
    "call_id",
    "started_at",
    "operation",
    "model",
    "principal",
    "tenant",
    "virtual_key",
    "outcome",
    "kind",
    "latency",
    "time_to_first_token",
    "cached",
    "cost",
    "usage",
    "attempts",
    "verdicts",
    "metadata",
)
_NESTED: Final = frozenset({"usage", "attempts", "verdicts", "metadata"})
# A call that is written twice stays one row.
_INSERT: Final = f"INSERT OR IGNORE INTO calls ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 # our own names
_WAIT: Final = 1.5  # seconds for another process's write; less than closing waits
_TIDY_SECONDS: Final = 60.0
_TIDY_ROWS: Final = 5_000  # at a time, so that a write is never kept waiting long
_DAY: Final = 86_400.0


@attrs.define(eq=False)
class SqliteSink:
    """Writes events to a database of SQLite, each batch in one transaction.

    In WAL mode: others read while it writes, several processes may write, and a process that is killed
    loses at most the batch that it was writing. A new file is readable by its owner only. Prompts and
    answers have a table of their own, which is made when the first of them arrives.

    Attributes:
        path: Path of the database; its directory exists.
        retention_days: Older records are deleted; None: age deletes nothing.
        max_rows: When there are more records, the oldest are deleted; None: any number stays.
        clock: What age is measured by.

    Raises:
        ConfigError: A limit is no positive number.

    Source:
        https://sqlite.org/wal.html
    """

    path: str = attrs.field(converter=to_path)
    retention_days: float | None = attrs.field(default=None, kw_only=True)
    max_rows: int | None = attrs.field(default=None, kw_only=True)
    clock: Clock = attrs.field(factory=SystemClock, kw_only=True)
    _database: sqlite3.Connection | None = attrs.field(default=None, init=False, repr=False)
    _tidied_at: float | None = attrs.field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for name in ("retention_days", "max_rows"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ConfigError(f"{name} is more than 0, not {limit}", field=name)

    def write_events(self, events: Sequence[Event]) -> None:
        """Insert ``events`` in one transaction, and delete what is past its time once a minute.

        Raises:
            sqlite3.Error: The database can not be opened or written.
            ConfigError: It is of a newer version.
        """
        database = self._opened()
        with database:
            database.execute("BEGIN IMMEDIATE")
            if any("prompt" in event for event in events):
                database.execute(_CONTENTS)
            for event in events:
                _insert(database, event)
        now = self.clock()
        if self._tidied_at is None or now - self._tidied_at >= _TIDY_SECONDS:
            self._tidied_at = now
            self.tidy()

    def tidy(self) -> int:
        """Delete what is past its time or too much, and give free pages back; returns the number of records.

        Raises:
            sqlite3.Error: The database can not be opened or written.
            ConfigError: It is of a newer version.
        """
        database, deleted = self._opened(), 0
        wheres: list[tuple[str, float]] = []
        if self.retention_days is not None:
            oldest = self.clock.time() - self.retention_days * _DAY
            wheres.append(("WHERE started_at < ? ORDER BY started_at", oldest))
        if self.max_rows is not None:
            # By order of writing: the newest ``max_rows`` stay, however many were deleted before.
            wheres.append(("WHERE id <= (SELECT id FROM calls ORDER BY id DESC LIMIT 1 OFFSET ?)", self.max_rows))
        for where, limit in wheres:
            while True:
                doomed = f"DELETE FROM calls WHERE id IN (SELECT id FROM calls {where} LIMIT {_TIDY_ROWS})"  # noqa: S608
                with database:
                    count = database.execute(doomed, (limit,)).rowcount
                deleted += count
                if count < _TIDY_ROWS:
                    break
        if deleted:
            # A step gives one page back, and `execute` takes one step of what has no columns.
            database.executescript("PRAGMA incremental_vacuum")
        return deleted

    def close(self) -> None:
        """Close the database; the next event opens it again."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            if not Path(self.path).exists():
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            # One thread at a time: the writer's, and the closing one after the writer's has ended.
            database = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(database)
            except BaseException:
                database.close()
                raise
            self._database = database
        return self._database

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts for a new database only
        database.execute("PRAGMA journal_mode = WAL").fetchone()
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("PRAGMA secure_delete = ON").fetchone()  # what is deleted is not left in the file
        with database:
            database.execute("BEGIN IMMEDIATE")  # two processes may find it new at the same time
            version = check_version(database, self.path)
            for number, script in enumerate(_MIGRATIONS[version:], version + 1):
                for statement in filter(str.strip, script.split(";")):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {number}")


def _insert(database: sqlite3.Connection, event: Mapping[str, Any]) -> None:
    cursor = database.execute(_INSERT, [_cell(event, column) for column in _COLUMNS])
    if cursor.rowcount and "prompt" in event:
        words = (cursor.lastrowid, _json(event["prompt"]), _text(event["answer"]))
        database.execute("INSERT INTO contents (id, prompt, answer) VALUES (?, ?, ?)", words)


def check_version(database: sqlite3.Connection, path: str) -> int:
    """The version of a database; 0: it is new.

    Raises:
        ConfigError: It is newer than this.
    """
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > len(_MIGRATIONS):
        raise ConfigError(
            f"{path} is of version {version}, newer than the {len(_MIGRATIONS)} known here; upgrade bifrost-core",
            field="path",
        )
    return version


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"))


def _cell(event: Mapping[str, Any], column: str) -> Any:
    value = event[column]
    if column in _NESTED:
        return _json(value)
    if column == "started_at":
        return datetime.fromisoformat(value).timestamp()
    if column == "cached":
        return int(value)
    return _text(value)


def _text(value: Any) -> Any:
    """A value whose lone surrogates, which SQLite refuses, are question marks."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
