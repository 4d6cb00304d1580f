"""``bifrost usage``: who spent what on which model, from the store that Routers share."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import click

from bifrost_core import ConfigError
from bifrost_plugins.stores.urls import open_store

from .desk import BudgetDesk
from .usage import LABELS, UsageRow

__all__ = ["usage"]

_COUNTS: Final = ("calls", "attempts", "cached_calls", "unpriced", "input_tokens", "output_tokens")
_AMOUNTS: Final = ("cost", "uncertain")
_TITLES: Final = {
    "cached_calls": "cached",
    "input_tokens": "input",
    "output_tokens": "output",
    "cost": "cost USD",
    "uncertain": "of it uncertain",
}
_CONTROLS: Final = dict.fromkeys((*range(32), *range(127, 160), 8232, 8233), "?")


def _time(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    """A date or a time; without a zone it is UTC."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no date; write such as 2026-05-01 or 2026-05-01T12:00+02:00") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@click.command()
@click.option(
    "--store",
    envvar="BIFROST_STORE",
    required=True,
    show_envvar=True,
    metavar="ADDRESS",
    help="Where usage is kept: sqlite:PATH or redis://HOST:PORT/NUMBER.",
)
@click.option(
    "--by",
    multiple=True,
    default=["model"],
    show_default=True,
    type=click.Choice(LABELS),
    help="What to tell apart; may be repeated.",
)
@click.option(
    "--scope", "scopes", multiple=True, metavar="KIND:NAME", help="Only this, such as team:search; may be repeated."
)
@click.option("--since", callback=_time, metavar="TIME", help="ISO 8601.  [default: the first of this month, UTC]")
@click.option("--until", callback=_time, metavar="TIME", help="Not included.  [default: now]")
@click.option("--json", "as_json", is_flag=True, help="As JSON, amounts as strings.")
def usage(
    store: str,
    by: Sequence[str],
    scopes: Sequence[str],
    since: datetime | None,
    until: datetime | None,
    *,
    as_json: bool,
) -> None:
    """Show who spent what on which model.

    Costs are exact and add up. What is uncertain was sent and then cancelled or cut off, so that nobody has
    said what it really cost.
    """
    if store == "memory":
        raise click.UsageError("what is in memory ends with its process; name sqlite:PATH or redis://…")
    scheme, _, path = store.partition(":")
    if scheme == "sqlite" and path and not Path(path).exists():
        raise ConfigError(f"there is no file {path}", field="store")
    labels = list(dict.fromkeys(by))

    async def read() -> list[UsageRow]:
        desk = BudgetDesk(open_store(store))
        return await desk.usage(scope=tuple(scopes) or None, since=since, until=until, by=labels)

    rows = anyio.run(read)
    if as_json:
        click.echo(json.dumps([_plain(row) for row in rows], indent=2))
    elif rows:
        _print_table(rows, labels)
    else:
        click.echo("nothing was used in this time")


def _plain(row: UsageRow) -> dict[str, Any]:
    values = attrs.asdict(row, recurse=False)
    labels = dict(values.pop("labels"))
    return labels | {name: f"{each:f}" if isinstance(each, Decimal) else each for name, each in values.items()}


def _print_table(rows: Sequence[UsageRow], labels: Sequence[str]) -> None:
    """Columns for what occurs, and the sum of all rows."""
    columns = [
        name for name in (*_COUNTS, *_AMOUNTS) if name in ("calls", "cost") or any(getattr(row, name) for row in rows)
    ]
    table = [[*labels, *(_TITLES.get(name, name) for name in columns)]]
    table += [
        [
            *(row.labels[label].translate(_CONTROLS) or "-" for label in labels),
            *(_shown(getattr(row, name)) for name in columns),
        ]
        for row in rows
    ]
    table.append(["sum", *[""] * (len(labels) - 1), *(_shown(_sum(rows, name)) for name in columns)])
    widths = [max(len(line[place]) for line in table) for place in range(len(table[0]))]
    for line in table:
        cells = [
            cell.ljust(width) if place < len(labels) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        click.echo(re.sub(r" +$", "", "  ".join(cells)))


def _sum(rows: Sequence[UsageRow], name: str) -> Decimal | int:
    values: list[Decimal | int] = [getattr(row, name) for row in rows]
    return sum(values, start=0)


def _shown(value: Decimal | int) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
