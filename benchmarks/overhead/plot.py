"""The figures as one picture: CPU of a call and throughput, as multiples of the plain client's."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .rounds import Figure

__all__ = ["draw"]

# Okabe and Ito, "Color Universal Design": told apart with every kind of colour vision.
_COLOURS: Final = ("#0072B2", "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#F0E442")
_GREY: Final = "#555555"
_MEASURES: Final = {"cpu_ratio": "CPU of a call, less is better", "rate_ratio": "calls per second, more is better"}
_MODES: Final = {"plain": "plain", "stream": "streaming"}
_TICKS: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Write the picture as PNG.

    A column per mode, a row per measure, a group of bars per concurrency, a bar per way. A bar begins at the
    plain client of the same HTTP library, which is 1, and goes up or down on a scale of ratios; whiskers are
    the quartiles over the rounds. Variants of a way (a name with a comma) are left to the tables.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'bifrost-core[bench]'") from None
    matplotlib.use("Agg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    shown = [figure for figure in figures if figure.way != figure.base and "," not in figure.way]
    modes = [mode for mode in _MODES if any(figure.mode == mode for figure in shown)]
    colours = dict(zip(dict.fromkeys(figure.way for figure in shown), itertools.cycle(_COLOURS)))  # endless
    size = (5.2 * len(modes), 3.1 * len(_MEASURES))
    picture, axes = plt.subplots(len(_MEASURES), len(modes), figsize=size, squeeze=False, layout="constrained")
    for row, (measure, title) in enumerate(_MEASURES.items()):
        for column, mode in enumerate(modes):
            _panel(axes[row][column], [figure for figure in shown if figure.mode == mode], measure, colours)
            axes[row][column].set_title(f"{_MODES[mode]}: {title}", fontsize=9, loc="left")
        axes[row][0].set_ylabel("plain client = 1", fontsize=8)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()]
    picture.legend(handles, list(colours), loc="outside lower center", ncols=len(colours), frameon=False, fontsize=8)
    picture.savefig(path, dpi=110)
    plt.close(picture)


def _panel(axes: Any, figures: Sequence[Figure], measure: str, colours: dict[str, str]) -> None:
    levels = list(dict.fromkeys(figure.in_flight for figure in figures))
    ways = [way for way in colours if any(figure.way == way for figure in figures)]
    width = 0.8 / len(ways)
    axes.set_yscale("log")
    for figure in figures:
        spread = getattr(figure, measure)
        place = levels.index(figure.in_flight) + (ways.index(figure.way) - (len(ways) - 1) / 2) * width
        axes.bar(place, spread.median - 1, width * 0.92, bottom=1, color=colours[figure.way])
        axes.vlines(place, spread.low, spread.high, color=_GREY, lw=0.9)
    axes.axhline(1.0, color=_GREY, lw=1)
    axes.set_xticks(range(len(levels)), [f"{level} in flight" for level in levels])
    axes.set_xlim(-0.5, len(levels) - 0.5)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in _TICKS if low <= tick <= high], minor=False)
    axes.set_yticklabels([f"{tick:g} x" for tick in _TICKS if low <= tick <= high])
    axes.minorticks_off()
    axes.grid(axis="y", lw=0.3, color=_GREY)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
