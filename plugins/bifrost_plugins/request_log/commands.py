"""``bifrost logs``: find calls in a request log, watch it, or export it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast, get_args

import click

from bifrost_core import SystemClock

from ._events import Event
from ._sinks import to_line
from .exports import Format, export
from .queries import Query, follow, is_database, read_events

__all__ = ["logs"]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_POLL: Final = 0.5  # seconds
_COLUMNS: Final = (
    ("started_at", 23),
    ("outcome", 9),
    ("model", 34),
    ("tenant", 12),
    ("latency", 9),
    ("tokens", 13),
    ("cost", 12),
    ("tries", 5),
    ("kind", 18),
    ("call_id", 0),
)


def _instant(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """``2h`` ago, or an instant of ISO 8601 (UTC where it does not say), as seconds since 1970."""
    if value is None:
        return None
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", value):
        return SystemClock().time() - float(found[1]) * _UNITS[found[2]]
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time; write such as 2h (ago) or 2026-01-31T08:00") from None
    return (instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)).timestamp()


@click.command()
@click.option("--db", envvar="BIFROST_LOG_DB", show_envvar=True, metavar="PATH", help="A database of SqliteSink.")
@click.option("--file", "file", metavar="PATH", help="A file of JsonlSink; those that were moved aside are read too.")
@click.option("--since", callback=_instant, metavar="TIME", help="Begun since: 2h (ago) or 2026-01-31T08:00 (UTC).")
@click.option("--until", callback=_instant, metavar="TIME", help="Begun before.")
@click.option("--model", help="Provider and model; * stands for anything.")
@click.option("--tenant", help="Of one tenant.")
@click.option("--outcome", type=click.Choice(["ok", "failed", "refused", "cancelled"]), help="How it ended.")
@click.option("--kind", help="Why it did not succeed, such as rate_limited.")
@click.option("--call-id", metavar="ID", help="One call.")
@click.option("--limit", type=click.IntRange(min=1), help="The last so many; 50 unless everything is exported.")
@click.option("--follow", "-f", "following", is_flag=True, help="Go on with calls as they end.")
@click.option("--json", "as_json", is_flag=True, help="Everything of each call, one line of JSON.")
@click.option("--content", is_flag=True, help="With prompts and answers, where they were recorded (--json, --export).")
@click.option("--export", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file instead.")
@click.option("--format", "kind_of_file", type=click.Choice(get_args(Format)), help="Of the file; else as it is named.")
def logs(
    db: str | None,
    file: str | None,
    limit: int | None,
    target: Path | None,
    kind_of_file: str | None,
    *,
    following: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Show calls of a request log, the latest last."""
    if file is not None and db is not None and _is_given("db"):
        raise click.UsageError("a log is in one place: --db PATH or --file PATH")
    source = db if file is None else file
    if source is None:
        raise click.UsageError("where is the log? --db PATH (of SqliteSink) or --file PATH (of JsonlSink)")
    if is_database(source) and file is not None:
        raise click.UsageError(f"{source} is a database; name it with --db")
    if following and target is not None:
        raise click.UsageError("an export ends; leave out --follow")
    if target is not None:
        query = Query(limit=limit, **filters)
        count = export(source, target, format=cast("Format | None", kind_of_file), query=query)
        click.echo(f"{count} calls written to {target}")
        return
    query = Query(limit=limit or 50, **filters)
    events = follow(source, query, _wait) if following else read_events(source, query)
    _show(events, as_json=as_json)


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _wait() -> bool:
    threading.Event().wait(_POLL)
    return True


def _show(events: Iterator[Event], *, as_json: bool) -> None:
    if not as_json:
        click.echo("  ".join(name.ljust(width) for name, width in _COLUMNS))
    for event in events:
        click.echo(to_line(event) if as_json else _line(event))


def _line(event: Event) -> str:
    """An event in one line; nothing in it can move the cursor or begin another line."""
    cells = {name: event.get(name) for name, _ in _COLUMNS}
    usage: dict[str, int] = event.get("usage") or {}
    latency, cost = event.get("latency"), event.get("cost")
    cells["started_at"] = str(event["started_at"])[:23]
    cells["latency"] = None if latency is None else f"{latency:.3f} s"
    cells["tokens"] = f"{usage.get('input_tokens', 0)}+{usage.get('output_tokens', 0)}"
    cells["cost"] = "cached" if event.get("cached") else None if cost is None else f"${_money(cost)}"
    cells["tries"] = str(len(event.get("attempts") or ()))
    return "  ".join(_cell(cells[name]).ljust(width) for name, width in _COLUMNS).rstrip()


def _money(cost: str) -> str:
    return format(round(Decimal(cost), 8).normalize(), "f")


def _cell(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if text.isprintable() else to_line({"": text})[5:-2]
