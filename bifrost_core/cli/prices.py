"""``bifrost prices``: the prices that ship with this version, and the command that makes their file."""

from __future__ import annotations

import datetime
import sys
from decimal import Decimal
from pathlib import Path
from typing import Final

import click
from rich import box
from rich.console import Console
from rich.table import Table

from bifrost_core.prices import Price, built_in_table

from .context_source import contexts_text, make_contexts
from .price_corrections import CACHED_SHARES, CONTEXT_ALIASES, CORRECTIONS
from .price_source import file_text, installed, make

__all__ = ["refresh", "show"]

_COLUMNS: Final = {
    "input": "input",
    "cached_input": "cached",
    "cache_write_input": "cache write",
    "long_cache_write_input": "for long",
    "output": "output",
    "per_page": "page",
    "per_annotated_page": "annotated",
    "per_audio_minute": "audio min",
    "per_million_characters": "M chars",
    "per_request": "request",
}
_WIDTH: Final = 152  # of a table that goes into a file or a pipe


def show(text: str) -> int:
    """Print the built-in prices whose model's name has ``text`` in it; 1 when there is none."""
    table = built_in_table()
    found = {name: price for name, price in sorted(table.prices.items()) if text.lower() in name}
    if not found:
        sys.stderr.write(f"bifrost prices: no model with {text!r} in its name has a built-in price\n")
        return 1
    used = [field for field in _COLUMNS if any(getattr(price, field) is not None for price in found.values())]
    grid = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else box.ASCII)
    grid.add_column("model", no_wrap=True)
    for field in used:
        grid.add_column(_COLUMNS[field], justify="right", no_wrap=True)
    for name, price in found.items():
        grid.add_row(name, *(_shown(price, field) for field in used))
    console = Console(file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDTH)
    console.print(grid)
    click.echo(
        f"{len(found)} of {len(table.prices)} models; USD, tokens by the million; prices of {table.date} "
        f"({table.version}), from {table.source} with corrections. A PriceBook of your own goes before them."
    )
    return 0


def _shown(price: Price, field: str) -> str:
    value: Decimal | None = getattr(price, field)
    return "-" if value is None else f"{value:f}"


def refresh(out: Path, contexts: Path | None, day: datetime.date, providers: tuple[str, ...]) -> None:
    """Write the file of built-in prices as they are on ``day``, and that of the lengths of contexts where it is named.

    What is left out is told on standard error.
    """
    source, library = installed(providers)
    corrections = [each for each in CORRECTIONS if each.model.partition("/")[0] in providers]
    made = make(library, day, corrections, CACHED_SHARES)
    out.write_text(file_text(made.prices, made.rules, day=day, source=source), encoding="utf-8", newline="\n")
    for note in made.notes:
        sys.stderr.write(f"{note}\n")
    click.echo(f"{len(made.prices)} prices of {day} from {source} written to {out}")
    if contexts is None:
        return
    known = make_contexts(library, made.prices, (*corrections, *CONTEXT_ALIASES))
    contexts.write_text(contexts_text(known, day=day, source=source), encoding="utf-8", newline="\n")
    for note in known.notes:
        sys.stderr.write(f"{note}\n")
    click.echo(f"{len(known.lengths)} lengths of contexts from {source} written to {contexts}")
