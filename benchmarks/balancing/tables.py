"""The figures as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from .choosers import ALL_KNOWING
from .scores import Figures, ratio, score

__all__ = ["Cell", "Goal", "details", "goals", "summary"]

Cell = tuple[str, str]
"""Situation and chooser."""

_RATE_TO_LEAVE: Final = 1.0  # requests a second below which nobody can tell within seconds


@attrs.frozen
class Goal:
    """One goal and how a chooser does on it.

    Attributes:
        name: What it is about.
        limit: The most that is good enough.
        value: What was reached; None: no situation measures it.
        where: The situation that decided it; empty for a mean.
        digits: Places after the point.
        unit: Of both.
    """

    name: str
    limit: float
    value: float | None
    where: str = ""
    digits: int = 2
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Whether the goal is reached."""
        return self.value is None or self.value <= self.limit

    def show(self) -> str:
        """The value."""
        return _number(self.value, self.digits) + (self.unit if self.value is not None else "")


def details(figures: Mapping[Cell, Figures]) -> str:
    """A row per situation and chooser."""
    lines = [
        "| situation | balancer | score | p50 s | p95 s | p99 s | errors | leave s | return s | fairness |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (situation, chooser), got in figures.items():
        worth = score(got, figures[situation, ALL_KNOWING])
        lines.append(
            f"| {situation} | {chooser} | {worth:.2f} | {got.p50:.2f} | {got.p95:.2f} | {got.p99:.2f} "
            f"| {got.errors:.2%} | {_number(got.leave, 1)} | {_number(got.come_back, 1)} | {_number(got.fairness, 2)} |"
        )
    return "\n".join(lines)


def goals(figures: Mapping[Cell, Figures], chooser: str, rates: Mapping[str, float]) -> list[Goal]:
    """The goals, and how a chooser does over all situations.

    Args:
        figures: Of every situation, the all-knowing choice included.
        chooser: Whose.
        rates: Requests per second of each situation: times to leave and to return count from one a second on.
    """
    own = {situation: got for (situation, name), got in figures.items() if name == chooser}
    best = {situation: figures[situation, ALL_KNOWING] for situation in own}
    scores = {situation: score(got, best[situation]) for situation, got in own.items()}
    tails = {situation: ratio(got.p99, best[situation].p99) for situation, got in own.items()}
    busy = {situation: got for situation, got in own.items() if rates[situation] >= _RATE_TO_LEAVE}
    mean = math.exp(sum(map(math.log, scores.values())) / len(scores))
    lost = sum(got.errors * got.requests for got in own.values()) / sum(got.requests for got in own.values())
    return [
        _worst("worst score", 1.20, scores),
        Goal("geometric mean of scores", 1.10, mean),
        _worst("p99 over the all-knowing", 1.30, tails),
        Goal("errors seen, of all requests", 0.10, lost * 100, digits=3, unit=" %"),
        _worst("leave a bad key", 12.0, _known(busy, lambda got: got.leave), digits=1, unit=" s"),
        _worst("return to a good one", 60.0, _known(busy, lambda got: got.come_back), digits=1, unit=" s"),
        _worst("fairness", 1.40, _known(own, lambda got: got.fairness)),
    ]


def summary(figures: Mapping[Cell, Figures], choosers: Sequence[str], rates: Mapping[str, float]) -> str:
    """A row per goal, a column per chooser; where a goal is missed, the situation that is worst."""
    columns = {chooser: goals(figures, chooser, rates) for chooser in choosers}
    lines = [
        "| goal | at most | " + " | ".join(choosers) + " |",
        "|---|---:|" + "---|" * len(choosers),
    ]
    for row in zip(*columns.values(), strict=True):
        first = row[0]
        shown = [goal.show() + (" ok" if goal.holds else f" **missed**, {goal.where}".rstrip(", ")) for goal in row]
        lines.append(f"| {first.name} | {first.limit:.{first.digits}f}{first.unit} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _worst(name: str, limit: float, values: Mapping[str, float], *, digits: int = 2, unit: str = "") -> Goal:
    where = max(values, key=lambda situation: values[situation], default=None)
    return Goal(name, limit, None if where is None else values[where], where or "", digits, unit)


def _known(figures: Mapping[str, Figures], read: Callable[[Figures], float | None]) -> dict[str, float]:
    return {name: value for name, got in figures.items() if (value := read(got)) is not None}


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return "-"
    return "never" if math.isinf(value) else f"{value:.{digits}f}"
