"""A request log as a table: CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import importlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias, cast, get_args

from bifrost_core import ConfigError

from ._events import Event
from ._sinks import to_line
from .queries import Query, read_events

__all__ = ["COLUMNS", "Format", "export"]

Format: TypeAlias = Literal["csv", "jsonl", "parquet"]

COLUMNS: Final = (
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
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "long_cache_write_tokens",
    "reasoning_tokens",
    "cost",
    "provider",
    "key_id",
    "attempt_count",
    "attempts",
    "verdicts",
    "metadata",
)
"""The columns of a table; ``provider`` and ``key_id`` are those of the last attempt, ``attempts``, ``verdicts``
and ``metadata`` are JSON. With content, ``prompt`` (JSON) and ``answer`` follow."""

_CONTENT: Final = ("prompt", "answer")
_COUNTS: Final = (
    *("input_tokens", "output_tokens", "cached_tokens"),
    *("cache_write_tokens", "long_cache_write_tokens", "reasoning_tokens"),
)
_NUMBERS: Final = ("latency", "time_to_first_token")
_NESTED: Final = ("attempts", "verdicts", "metadata", "prompt")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_GROUP: Final = 10_000  # rows of Parquet that are in memory together
_COST_DIGITS: Final = (38, 18)  # precision and scale: a millionth of a pico-USD


def export(
    source: str | os.PathLike[str] | Iterable[Event],
    target: str | os.PathLike[str],
    *,
    format: Format | None = None,  # noqa: A002 # the word for it
    query: Query = Query(),  # noqa: B008 # frozen
) -> int:
    """Write the events of a log to a file; returns how many.

    The file appears when it is complete, in place of one that was there; only its owner can read it. In
    CSV, a text that a spreadsheet would take for a formula begins with an apostrophe.

    Args:
        source: Path of a ``SqliteSink`` or a ``JsonlSink``, or events.
        target: Path of the file; its directory exists.
        format: ``csv``, ``jsonl`` or ``parquet`` (which needs ``pip install 'bifrost-core[parquet]'``);
            None: as the target's name ends.
        query: Which events, and whether with what was said.

    Raises:
        ConfigError: The source can not be read, the format is none of these, or Parquet is not installed.
        OSError: The target can not be written.

    Source:
        https://owasp.org/www-community/attacks/CSV_Injection
    """
    path = Path(target)
    kind = path.suffix.removeprefix(".").lower() if format is None else format
    if kind not in get_args(Format):
        raise ConfigError(f"{kind!r} is no format of an export; take csv, jsonl or parquet", field="format")
    writers: dict[str, Callable[[IO[bytes], Iterator[Event], tuple[str, ...]], int]] = {
        "csv": _write_csv,
        "jsonl": _write_lines,
        "parquet": _write_parquet,
    }
    events = read_events(source, query) if isinstance(source, (str, os.PathLike)) else _chosen(source, query)
    columns = (*COLUMNS, *_CONTENT) if query.content else COLUMNS
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # readable by its owner only
    try:
        with os.fdopen(descriptor, "wb") as file:
            count = writers[kind](file, events, columns)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    return count


def _chosen(events: Iterable[Event], query: Query) -> Iterator[Event]:
    found = [event for event in events if query.matches(event)]
    for event in found if query.limit is None else found[-query.limit :]:
        yield event if query.content else {name: event[name] for name in event if name not in _CONTENT}


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event, flat."""
    usage: Mapping[str, Any] = event.get("usage") or {}
    attempts: list[Mapping[str, Any]] = event.get("attempts") or []
    last: Mapping[str, Any] = attempts[-1] if attempts else {}
    row: dict[str, Any] = {name: event.get(name) for name in (*COLUMNS, *_CONTENT)}
    row |= {name: usage.get(name, 0) for name in _COUNTS}
    row |= {"provider": last.get("provider"), "key_id": last.get("key_id"), "attempt_count": len(attempts)}
    row |= {name: to_line(value) for name in _NESTED if (value := event.get(name)) is not None}
    return row


def _write_csv(file: IO[bytes], events: Iterator[Event], columns: tuple[str, ...]) -> int:
    count = 0
    text = TextIOWrapper(cast("Any", file), encoding="utf-8", errors="replace", newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for count, event in enumerate(events, 1):  # noqa: B007 # counted
        row = _row(event)
        writer.writerow([_cell(row[name]) for name in columns])
    text.flush()
    text.detach()
    return count


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return value


def _write_lines(file: IO[bytes], events: Iterator[Event], columns: tuple[str, ...]) -> int:  # noqa: ARG001 # whole events
    count = 0
    for count, event in enumerate(events, 1):  # noqa: B007 # counted
        file.write(f"{to_line(event)}\n".encode("ascii"))
    return count


def _write_parquet(file: IO[bytes], events: Iterator[Event], columns: tuple[str, ...]) -> int:
    try:
        pa: Any = importlib.import_module("pyarrow")  # an extra, and without types
        pq: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ConfigError(
            "Parquet needs pyarrow: pip install 'bifrost-core[parquet]'; csv and jsonl need nothing", field="format"
        ) from None
    types: dict[str, Any] = dict.fromkeys(columns, pa.string())
    types |= dict.fromkeys(_COUNTS, pa.int64()) | dict.fromkeys(_NUMBERS, pa.float64())
    types |= {"attempt_count": pa.int32(), "cached": pa.bool_(), "cost": pa.decimal128(*_COST_DIGITS)}
    types["started_at"] = pa.timestamp("ms", tz="UTC")
    schema = pa.schema([(name, types[name]) for name in columns])
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while rows := [_typed(_row(event)) for event in islice(events, _GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            count += len(rows)
    return count


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose time and cost are such, and whose texts can be encoded."""
    row = {
        name: value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
        for name, value in row.items()
    }
    row["started_at"] = datetime.fromisoformat(row["started_at"])
    if row["cost"] is not None:
        row["cost"] = round(Decimal(row["cost"]), _COST_DIGITS[1])
    return row
