"""What was logged, read again: from a database or from files of JSON lines, filtered, once or as it grows."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import attrs

from bifrost_core import ConfigError

from ._events import Event
from ._jsonl import files_of
from ._sqlite import check_version

__all__ = ["Query", "follow", "is_database", "read_events"]

_MAGIC: Final = b"SQLite format 3\x00"  # https://sqlite.org/fileformat2.html#magic_header_string
_NESTED: Final = ("usage", "attempts", "verdicts", "metadata", "prompt")
_EXACT: Final = ("tenant", "outcome", "kind", "call_id")
_BATCH: Final = 1_000


@attrs.frozen(kw_only=True)
class Query:
    """Which events are wanted; None leaves a question open.

    Attributes:
        since: Begun at this instant or later, seconds since 1970, UTC.
        until: Begun before this instant.
        model: Name of the model; each ``*`` in it stands for any characters.
        tenant: Name of the tenant.
        outcome: ``ok``, ``failed``, ``refused`` or ``cancelled``.
        kind: Why the call did not succeed.
        call_id: Id of the call.
        limit: The last so many, at least 1.
        content: Whether prompts and answers come along, where they were recorded.

    Raises:
        ConfigError: ``limit`` is less than 1.
    """

    since: float | None = None
    until: float | None = None
    model: str | None = None
    tenant: str | None = None
    outcome: str | None = None
    kind: str | None = None
    call_id: str | None = None
    limit: int | None = None
    content: bool = False

    def __attrs_post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is at least 1 event, not {self.limit}", field="limit")

    def matches(self, event: Mapping[str, Any]) -> bool:
        """Whether an event is wanted; ``limit`` and ``content`` aside."""
        if self.since is not None or self.until is not None:
            began = datetime.fromisoformat(event["started_at"]).timestamp()
            if (self.since is not None and began < self.since) or (self.until is not None and began >= self.until):
                return False
        for name in _EXACT:
            wanted = getattr(self, name)
            if wanted is not None and event.get(name) != wanted:
                return False
        return self.model is None or _is_like(self.model, str(event.get("model")))

    def where(self) -> tuple[str, list[Any]]:
        """The same as a condition of SQL, and its values."""
        conditions: dict[str, Any] = {}
        if self.since is not None:
            conditions["started_at >= ?"] = self.since
        if self.until is not None:
            conditions["started_at < ?"] = self.until
        for name in _EXACT:
            if (wanted := getattr(self, name)) is not None:
                conditions[f"{name} = ?"] = wanted
        if self.model is not None and "*" in self.model:
            conditions["model GLOB ?"] = re.sub(r"([?\[])", r"[\1]", self.model)
        elif self.model is not None:
            conditions["model = ?"] = self.model
        return " AND ".join(conditions) or "1", [*conditions.values()]


def _is_like(pattern: str, name: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None


def is_database(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a database of SQLite.

    Raises:
        ConfigError: The file can not be read.
    """
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError as exc:
        raise ConfigError(f"{os.fspath(path)} can not be read: {exc.strerror}; name a log that is there") from exc


def read_events(source: str | os.PathLike[str], query: Query = Query()) -> Iterator[Event]:
    """The events of a log that a query wants, in the order in which they were written.

    Args:
        source: Path of a ``SqliteSink`` or a ``JsonlSink``, whose moved files are read too. Lines that
            are no events (a crash cut one off) are left out.
        query: Which.

    Raises:
        ConfigError: The file can not be read, or is not such a log.
    """
    path = os.fspath(source)
    if is_database(path):
        return _rows(path, query)
    found: Iterator[Event] = (event for name in files_of(path) for event in _lines(name) if query.matches(event))
    if query.limit is not None:
        found = iter(deque(found, query.limit))
    return (_without_content(event, query) for event in found)


def follow(source: str | os.PathLike[str], query: Query, wait: Callable[[], bool]) -> Iterator[Event]:
    """The events of ``read_events``, then those that are written from now on.

    Args:
        source: As of ``read_events``.
        query: Which; ``limit`` counts for those that are there already.
        wait: Called when nothing new is there; waits, and says whether to go on.

    Raises:
        ConfigError: As ``read_events``.
    """
    path = os.fspath(source)
    if is_database(path):
        return _follow_rows(path, query, wait)
    return _follow_lines(path, query, wait)


# -- databases -----------------------------------------------------------------------------------------------------


def _connected(path: str) -> sqlite3.Connection:
    """A connection that only reads."""
    try:
        database = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            check_version(database, path)
            known = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchone()
        except BaseException:
            database.close()
            raise
    except sqlite3.Error as exc:
        raise ConfigError(f"{path} can not be read as a request log ({exc})") from exc
    if known is None:
        database.close()
        raise ConfigError(f"{path} is a database without a request log; name one that a SqliteSink wrote")
    database.row_factory = sqlite3.Row
    return database


def _rows(path: str, query: Query) -> Iterator[Event]:
    database = _connected(path)
    try:
        for _, event in _selected(database, query):
            yield event
    finally:
        database.close()


def _follow_rows(path: str, query: Query, wait: Callable[[], bool]) -> Iterator[Event]:
    database = _connected(path)
    try:
        # What is written from here on is newer, whatever of the older is wanted.
        last = int(database.execute("SELECT coalesce(max(id), 0) FROM calls").fetchone()[0])
        for number, event in _selected(database, query):
            last = max(last, number)
            yield event
        later = attrs.evolve(query, limit=None)
        while wait():
            for number, event in _selected(database, later, last):
                last = number
                yield event
    finally:
        database.close()


def _selected(database: sqlite3.Connection, query: Query, after: int = 0) -> Iterator[tuple[int, Event]]:
    """Row ids and events, oldest first."""
    where, values = query.where()
    columns, table = "calls.*", "calls"
    if query.content and database.execute("SELECT 1 FROM sqlite_master WHERE name = 'contents'").fetchone():
        columns += ", contents.id AS has_content, prompt, answer"
        table += " LEFT JOIN contents USING (id)"
    statement = f"SELECT {columns} FROM {table} WHERE calls.id > ? AND {where}"  # noqa: S608 # our own names
    values = [after, *values]
    if query.limit is None:
        statement += " ORDER BY calls.id"
    else:
        statement = f"SELECT * FROM ({statement} ORDER BY calls.id DESC LIMIT ?) ORDER BY id"  # noqa: S608
        values.append(query.limit)
    cursor = database.execute(statement, values)
    while rows := cursor.fetchmany(_BATCH):
        for row in rows:
            yield int(row["id"]), _event(row)


def _event(row: sqlite3.Row) -> Event:
    event: Event = {name: row[name] for name in row.keys()}  # noqa: SIM118 # a row iterates over its values
    del event["id"]
    if event.pop("has_content", True) is None:
        del event["prompt"], event["answer"]
    event["started_at"] = datetime.fromtimestamp(event["started_at"], UTC).isoformat(timespec="milliseconds")
    event["cached"] = bool(event["cached"])
    for name in _NESTED:
        if event.get(name) is not None:
            event[name] = json.loads(event[name])
    return event


# -- files of lines ------------------------------------------------------------------------------------------------


def _lines(path: str) -> Iterator[Event]:
    with Path(path).open("rb") as file:
        yield from _events(file)


def _events(lines: Iterable[bytes]) -> Iterator[Event]:
    """The lines that are events."""
    for line in lines:
        try:
            made: object = json.loads(line)
        except ValueError:  # cut off by a crash, or written by somebody else
            continue
        if isinstance(made, dict) and {"call_id", "started_at", "outcome"} <= cast("dict[str, Any]", made).keys():
            yield cast("Event", made)


def _without_content(event: Event, query: Query) -> Event:
    return event if query.content else {name: event[name] for name in event if name not in {"prompt", "answer"}}


def _follow_lines(path: str, query: Query, wait: Callable[[], bool]) -> Iterator[Event]:
    file = Path(path).open("rb")  # noqa: SIM115 # another one takes its place when this one is moved
    try:
        rest = b""

        def so_far() -> Iterator[bytes]:
            nonlocal rest
            for name in files_of(path):
                if name != path and not os.path.samestat(os.stat(name), os.fstat(file.fileno())):  # noqa: PTH116
                    with Path(name).open("rb") as older:
                        yield from older
            for line in file:
                if line.endswith(b"\n"):
                    yield line
                else:
                    rest = line  # it is being written

        there = filter(query.matches, _events(so_far()))
        for event in there if query.limit is None else deque(there, query.limit):
            yield _without_content(event, query)
        while True:
            moved = _has_another(path, file.fileno(), file.tell())  # asked first: then all of the old one is read
            *lines, rest = (rest + file.read()).split(b"\n")
            for event in filter(query.matches, _events(lines)):
                yield _without_content(event, query)
            if lines:
                continue
            if moved:
                file.close()
                file, rest = Path(path).open("rb"), b""  # noqa: SIM115
            elif not wait():
                return
    finally:
        file.close()


def _has_another(path: str, descriptor: int, position: int) -> bool:
    """Whether another file stands at the path, or the same one was emptied."""
    try:
        now = os.stat(path)  # noqa: PTH116 # beside fstat
    except FileNotFoundError:
        return False
    return not os.path.samestat(now, os.fstat(descriptor)) or now.st_size < position
