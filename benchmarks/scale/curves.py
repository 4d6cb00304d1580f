"""Costs over sizes: what was measured, as a table, and whether it grows more than it may."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

__all__ = ["GOAL", "Curve", "goals", "table", "times_per_tenfold"]

GOAL: Final = 1.5
"""Times as much, at most, for ten times the size. Flat is 1, linear is 10; a logarithm stays below this."""


@attrs.frozen
class Curve:
    """One cost over sizes.

    Attributes:
        subject: What there is more of (``"keys"``).
        name: What is done.
        unit: Of the costs.
        costs: By size, in rising order.
        is_judged: Whether the goal is set for it; a cost of the start is shown, not judged.
    """

    subject: str
    name: str
    unit: str
    costs: Mapping[int, float]
    is_judged: bool = True


def times_per_tenfold(costs: Mapping[int, float]) -> float:
    """By what a cost multiplies, on average, each time the size does by ten; NaN of less than two sizes."""
    sizes = sorted(costs)
    if len(sizes) < 2:
        return math.nan
    decades = math.log10(sizes[-1] / sizes[0])
    return math.exp(math.log(costs[sizes[-1]] / costs[sizes[0]]) / decades)


def table(curves: Sequence[Curve]) -> str:
    """A table for each subject: sizes down, costs across, and below what ten times the size multiplies them by."""
    parts: list[str] = []
    for subject in dict.fromkeys(curve.subject for curve in curves):
        shown = [curve for curve in curves if curve.subject == subject]
        parts.append(f"| {subject} | " + " | ".join(f"{curve.name}, {curve.unit}" for curve in shown) + " |")
        parts.append("|---:|" + "---:|" * len(shown))
        sizes = sorted({size for curve in shown for size in curve.costs})
        parts += [_row(f"{size:,}", [_number(curve.costs.get(size)) for curve in shown]) for size in sizes]
        parts += [_row("times as much for ten times as many", [f"{_growth(curve):.2f}" for curve in shown]), ""]
    return "\n".join(parts)


def goals(curves: Sequence[Curve]) -> str:
    """Whether each cost is flat or logarithmic, line by line."""
    lines: list[str] = []
    for curve in curves:
        growth = _growth(curve)
        if curve.is_judged and not math.isnan(growth):
            word = "kept" if growth <= GOAL else "MISSED"
            lines.append(f"{curve.subject}, {curve.name}: {growth:.2f} x for ten times as many, at most {GOAL}: {word}")
    return "\n".join(lines)


def _growth(curve: Curve) -> float:
    return times_per_tenfold(curve.costs)


def _row(head: str, cells: Sequence[str]) -> str:
    return "| " + " | ".join((head, *cells)) + " |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
