"""What a balancer did, drawn: shares, latency and load per key over time, with what happened to the keys."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .runs import Served, Try
from .scenarios import Event, Scenario
from .scores import percentile

__all__ = ["draw", "place_names"]

# Okabe and Ito, "Color Universal Design", 2008: told apart with any colour vision. Black is for events.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_STYLES: Final = ("-", "--", ":", "-.")  # past eight keys
_WINDOWS: Final = 60
_LEAST_REQUESTS: Final = 30  # of a window, on average: fewer say nothing
_GRID: Final = "#DDDDDD"


def draw(scenario: Scenario, rows: Sequence[Served], *, title: str, path: Path) -> None:
    """Draw a run.

    Args:
        scenario: What was played.
        rows: What came of it.
        title: Above the picture.
        path: File to write; its ending says which format.
    """
    tries = sorted((each for row in rows for each in row.tries), key=lambda each: each.at)
    keys = [key.id or key.secret for key in scenario.script.keys]
    looks = {
        key: {"color": _COLOURS[place % len(_COLOURS)], "linestyle": _STYLES[place // len(_COLOURS) % len(_STYLES)]}
        for place, key in enumerate(keys)
    }
    width = scenario.seconds / max(8, min(_WINDOWS, len(tries) // _LEAST_REQUESTS))
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 9.5), layout="constrained")
        figure.suptitle(title, fontsize=14, fontweight="bold")
        top, middle, low = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
        _shares(top, keys, tries, width, scenario.seconds, looks)
        _latencies(middle, keys, tries, width, scenario.seconds, looks)
        _loads(low, keys, tries, scenario.seconds, looks)
        for axes in (top, middle, low):
            axes.set_xlim(0, scenario.seconds)
            axes.grid(color=_GRID, linewidth=0.6)
            axes.set_axisbelow(True)
            for event in scenario.script.events:
                axes.axvline(event.at, color="black", linewidth=1.1, linestyle=(0, (4, 3)))
        _name_events(top, scenario.script.events, scenario.seconds)
        top.set_title(scenario.about, loc="left", fontsize=10.5, pad=12 + 13 * _rows_of_names(scenario))
        low.set_xlabel("virtual time, s")
        figure.legend(
            *top.get_legend_handles_labels(), loc="outside lower center", ncols=min(10, len(keys)), frameon=False
        )
        figure.savefig(path, dpi=130)


def _windows(tries: Sequence[Try], width: float, seconds: float) -> list[tuple[float, list[Try]]]:
    """The middle of each window and the attempts that began in it."""
    times = [each.at for each in tries]
    count = max(1, round(seconds / width))
    found: list[tuple[float, list[Try]]] = []
    for number in range(count):
        start, end = number * width, (number + 1) * width
        found.append(((start + end) / 2, list(tries[bisect_left(times, start) : bisect_left(times, end)])))
    return found


def _shares(axes: Axes, keys: Sequence[str], tries: Sequence[Try], width: float, seconds: float, looks: Any) -> None:
    windows = [(at, part) for at, part in _windows(tries, width, seconds) if part]
    shares = [[100 * sum(each.key == key for each in part) / len(part) for _, part in windows] for key in keys]
    middles = [at for at, _ in windows]
    areas = axes.stackplot(
        [0.0, *middles, seconds],
        [[share[0], *share, share[-1]] for share in shares],
        colors=[looks[key]["color"] for key in keys],
        labels=keys,
        edgecolor="white",
        linewidth=0.6,
    )
    for place, area in enumerate(areas):
        if place >= len(_COLOURS):
            area.set_hatch("//")
    axes.set_ylim(0, 100)
    axes.set_ylabel(f"share of attempts, %\n(windows of {width:.2g} s)")


def _latencies(axes: Axes, keys: Sequence[str], tries: Sequence[Try], width: float, seconds: float, looks: Any) -> None:
    for key in keys:
        own = [each for each in tries if each.key == key]
        middles: list[float] = []
        half: list[float] = []
        most: list[float] = []
        for at, part in _windows(own, width, seconds):
            good = sorted(each.seconds for each in part if each.outcome == "ok")
            middles.append(at)
            half.append(percentile(good, 0.5) if good else math.nan)  # a gap in the line
            most.append(percentile(good, 0.95) if good else math.nan)
        axes.plot(middles, half, linewidth=1.9, marker="o", markersize=3, **looks[key])
        axes.plot(middles, most, linewidth=0.9, alpha=0.55, **looks[key])
    axes.set_yscale("log")
    axes.set_ylabel("latency of answers, s\n(thick: p50, thin: p95)")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if value >= low else "")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if value >= low and f"{value:g}"[-1] in "25" else "")
    failed = [each for each in tries if each.outcome != "ok"]
    if failed:
        # A strip below the curves, a line per key that ever failed.
        ids = [key for key in keys if any(each.key == key for each in failed)]
        span = (high / low) ** 0.055
        for place, key in enumerate(ids, 1):
            times = [each.at for each in failed if each.key == key]
            axes.plot(
                times, [low / span**place] * len(times), "x", color=looks[key]["color"], markersize=5, clip_on=False
            )
        axes.axhline(low / span**0.4, color=_GRID, linewidth=0.9)
        middle = low / span ** ((len(ids) + 1) / 2)
        axes.text(-0.008, middle, "failed", transform=axes.get_yaxis_transform(), ha="right", va="center")
        axes.set_ylim(low / span ** (len(ids) + 1), high)


def _loads(axes: Axes, keys: Sequence[str], tries: Sequence[Try], seconds: float, looks: Any) -> None:
    for key in keys:
        changes = [(0.0, 0)]
        changes += [(each.at, 1) for each in tries if each.key == key]
        changes += [(each.at + each.seconds, -1) for each in tries if each.key == key]
        changes.sort()
        level, at, levels = 0, list[float](), list[int]()
        for moment, change in changes:
            level += change
            at.append(moment)
            levels.append(level)
        axes.step([*at, seconds], [*levels, level], where="post", linewidth=1.2, **looks[key])
    axes.set_ylim(bottom=0)
    axes.set_ylabel("attempts in flight")


def place_names(events: Sequence[Event], seconds: float) -> list[tuple[Event, int]]:
    """Events with the line of text that each stands on, so that no two overlap."""
    ends: list[float] = []
    placed: list[tuple[Event, int]] = []
    for event in events:
        length = seconds * 0.0085 * (len(_words(event)) + 2)
        line = next((number for number, end in enumerate(ends) if end <= event.at), len(ends))
        if line == len(ends):
            ends.append(0.0)
        ends[line] = event.at + length
        placed.append((event, line))
    return placed


def _rows_of_names(scenario: Scenario) -> int:
    return max((line + 1 for _, line in place_names(scenario.script.events, scenario.seconds)), default=0)


def _words(event: Event) -> str:
    return f"{event.key}: {event.what}"


def _name_events(axes: Axes, events: Sequence[Event], seconds: float) -> None:
    for event, line in place_names(events, seconds):
        axes.annotate(
            _words(event),
            (event.at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4 + 13 * line),
            textcoords="offset points",
            fontsize=9,
            ha="left",
        )
