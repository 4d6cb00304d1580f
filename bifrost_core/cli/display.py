"""How the demo looks: a live table, lines for logs and pipes, totals, and what happened in words."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .scoreboard import KeyScore, Scoreboard, percentile

__all__ = ["show_lines", "show_table", "story", "totals"]

_PLAIN_WIDTH: Final = 132


def totals(board: Scoreboard, *, plain: bool) -> None:
    """Print what it all came to."""
    console = _console(plain=plain)
    console.print(_table(board, plain=plain, final=True))
    for line in (*_sums(board), story(board)):
        console.print(line, soft_wrap=True)


@contextmanager
def show_table(calls: int) -> Generator[Callable[[Scoreboard], None]]:
    """A table that stays in its place while the numbers in it change; gone at the end."""
    with Live(console=_console(plain=False), auto_refresh=False, transient=True) as live:

        def show(board: Scoreboard) -> None:
            live.update(_table(board, plain=False, final=False, title=_progress(board, calls)), refresh=True)

        yield show


@contextmanager
def show_lines(calls: int) -> Generator[Callable[[Scoreboard], None]]:
    """One line each time, without control characters."""

    def show(board: Scoreboard) -> None:
        keys = "; ".join(_brief(score, board) for score in board.keys.values())
        sys.stdout.write(f"{_progress(board, calls)}; {keys}\n")
        sys.stdout.flush()

    yield show


def _console(*, plain: bool) -> Console:
    if not plain:
        return Console(highlight=False, markup=False, emoji=False)
    return Console(
        file=sys.stdout,
        width=_PLAIN_WIDTH,
        force_terminal=False,
        color_system=None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def _progress(board: Scoreboard, calls: int) -> str:
    return f"{board.elapsed:5.1f} s  {board.calls:>{len(str(calls))}} of {calls} calls, {board.failed} failed"


def _brief(score: KeyScore, board: Scoreboard) -> str:
    recent = sum(each.recent(board.elapsed) for each in board.keys.values())
    text = f"{score.key_id} {_part(score.recent(board.elapsed), recent)}"
    if score.rest is not None:
        text += f" rests {score.rest.seconds:.1f} s ({score.rest.reason})"
    return text


# The table.


def _table(board: Scoreboard, *, plain: bool, final: bool, title: str | None = None) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.ASCII if plain else box.SIMPLE_HEAD,
        padding=(0, 1) if plain else 0,
        pad_edge=plain,  # all of it fits into 80 columns
        header_style="" if plain else "bold",
    )
    table.add_column("key", no_wrap=True)
    for name in ("share", "answers") if final else ("share", "last\n5 s", "in\nflight"):
        table.add_column(name, justify="right", min_width=4)
    for name in ("p50 s", "p95 s", "first token" if plain else "first\ntoken"):
        table.add_column(name, justify="right", min_width=5)
    table.add_column("errors", min_width=15)  # room from the start: the columns stay where they are
    table.add_column("rests", min_width=16)
    recent = sum(score.recent(board.elapsed) for score in board.keys.values())
    for score in board.keys.values():
        share = _part(score.answers, board.answers)
        counts = [share, str(score.answers)]
        if not final:
            counts = [share, _part(score.recent(board.elapsed), recent), str(score.in_flight)]
        rests = _counted(score.rests) if final else _resting(score)
        table.add_row(
            Text(score.key_id),
            *counts,
            _seconds(percentile(score.latencies, 0.5)),
            _seconds(percentile(score.latencies, 0.95)),
            _seconds(percentile(score.first_tokens, 0.5)),
            _counted(score.errors) or "-",
            rests or "-",
            style="dim" if score.rest is not None and not final and not plain else None,
        )
    return table


def _resting(score: KeyScore) -> str:
    return "" if score.rest is None else f"{score.rest.reason} {math.ceil(score.rest.seconds)} s"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number}x {name}" for name, number in counts.items())


def _part(number: int, whole: int) -> str:
    return f"{number / whole:.0%}" if whole else "-"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


# Words.


def _sums(board: Scoreboard) -> Iterator[str]:
    calls, elapsed = board.calls, board.elapsed
    cancelled = f", {board.outcomes['cancelled']} cancelled" if board.outcomes["cancelled"] else ""
    attempts = board.answers + board.errors.total()
    yield (
        f"{calls} calls in {elapsed:.1f} s ({calls / max(elapsed, 1e-9):.1f} per second): "
        f"{board.outcomes['ok']} answered, {board.failed} failed{_among(board.failures)}{cancelled}; "
        f"{attempts} attempts, of which failed {board.errors.total()}{_among(board.errors)}."
    )
    unknown = f"; of {board.unpriced} calls unknown" if board.unpriced else ""
    yield (
        f"{board.usage.input_tokens} input and {board.usage.output_tokens} output tokens; "
        f"cost {board.cost:f} USD{unknown}."
    )


def _among(counts: Mapping[str, int]) -> str:
    return f" ({_counted(counts)})" if counts else ""


def story(board: Scoreboard) -> str:
    """What happened, in one sentence."""
    scores = list(board.keys.values())
    busiest = max(scores, key=lambda score: score.answers, default=None)
    if busiest is None or not busiest.answers:
        return "No key gave an answer."
    parts = [f"{busiest.key_id} gave {_part(busiest.answers, board.answers)} of the answers"]
    idlest = min(scores, key=lambda score: score.answers)
    if idlest is not busiest and not idlest.worst:
        parts.append(f"{idlest.key_id} gave {_part(idlest.answers, board.answers)}")
    parts.extend(_outages(scores))
    for score in scores:
        refused = score.errors["rate_limited"]
        if refused or score.rests["rate_limited"]:
            parts.append(f"{score.key_id} ran into its rate limit and was spared meanwhile (refusals: {refused})")
    told = f"{board.failed} of {board.calls} calls failed" if board.failed else "no caller saw an error"
    return f"{'; '.join(parts)}; {told}."


def _outages(scores: Iterable[KeyScore]) -> Iterator[str]:
    for score in scores:
        outage = score.worst
        if outage is None:
            continue
        back = "had not come back at the end" if outage.ended is None else f"was back at {outage.ended:.1f} s"
        yield (
            f"{score.key_id} broke at {outage.began:.1f} s ({outage.kind}), "
            f"failed {outage.failures} attempts and {back}"
        )
