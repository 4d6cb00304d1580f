"""The figures as one picture: CPU of a call and throughput, as multiples of the plain client's."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .rounds import Figure

__all__ = ["draw"]

# Okabe and Ito, "Color Universal Design": told apart with every kind of colour vision.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
_GREY: Final = "#555555"
_LINES: Final = {
    "cpu_ratio": "CPU of a call (plain client = 1; less is better)",
    "rate_ratio": "Calls per second (plain client = 1; more is better)",
}
_MODES: Final = {"plain": "plain", "stream": "streaming"}


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Write the picture as PNG.

    A column per mode, a row per measure, a group of bars per concurrency, a bar per way. Plain clients are
    the line at 1. Whiskers are the quartiles over the rounds. The scale is logarithmic where a bar is more
    than ten times another.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'bifrost-core[bench]'") from None
    matplotlib.use("Agg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    shown = [figure for figure in figures if figure.way != figure.base]
    modes = [mode for mode in _MODES if any(figure.mode == mode for figure in shown)]
    ways = list(dict.fromkeys(figure.way for figure in shown))
    colours = {way: _COLOURS[place % len(_COLOURS)] for place, way in enumerate(ways)}
    picture, axes = plt.subplots(
        len(_LINES), len(modes), figsize=(5.2 * len(modes), 6.4), squeeze=False, layout="constrained"
    )
    for row, (measure, title) in enumerate(_LINES.items()):
        for column, mode in enumerate(modes):
            _panel(axes[row][column], [f for f in shown if f.mode == mode], measure, colours)
            axes[row][column].set_title(
                f"{title}\n{_MODES[mode]}" if column == 0 else f"\n{_MODES[mode]}", fontsize=9, loc="left"
            )
    handles = [plt.Rectangle((0, 0), 1, 1, color=colours[way]) for way in ways]
    picture.legend(handles, ways, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    picture.savefig(path, dpi=110)
    plt.close(picture)


def _panel(axes: Any, figures: Sequence[Figure], measure: str, colours: dict[str, str]) -> None:
    levels = list(dict.fromkeys(figure.in_flight for figure in figures))
    ways = [way for way in colours if any(figure.way == way for figure in figures)]
    width = 0.8 / len(ways)
    heights: list[float] = []
    for figure in figures:
        spread = getattr(figure, measure)
        place = levels.index(figure.in_flight) + (ways.index(figure.way) - (len(ways) - 1) / 2) * width
        error = [[spread.median - spread.low], [spread.high - spread.median]]
        axes.bar(
            place,
            spread.median,
            width * 0.92,
            color=colours[figure.way],
            yerr=error,
            error_kw={"lw": 0.8, "ecolor": _GREY},
        )
        heights.append(spread.median)
    axes.axhline(1.0, color=_GREY, lw=1, ls="--")
    axes.set_xticks(range(len(levels)), [f"{level} in flight" for level in levels])
    if max(heights) > 10 * min(heights):
        axes.set_yscale("log")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
