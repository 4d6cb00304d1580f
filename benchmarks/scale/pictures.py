"""The curves as one picture: a panel per subject, both axes in powers of ten, with a line that would be linear."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .curves import Curve

__all__ = ["draw"]

# Okabe and Ito, "Color Universal Design", 2008: told apart with every kind of colour vision.
_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_MARKERS: Final = "osD^vP"
_GREY: Final = "#777777"


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Write the picture as PNG.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'bifrost-core[bench]'") from None
    matplotlib.use("Agg")
    plt: Any = importlib.import_module("matplotlib.pyplot")
    judged = [curve for curve in curves if curve.is_judged]
    subjects = list(dict.fromkeys(curve.subject for curve in judged))
    picture, axes = plt.subplots(
        1, len(subjects), figsize=(4.2 * len(subjects), 4.2), squeeze=False, layout="constrained"
    )
    for place, subject in enumerate(subjects):
        _panel(axes[0][place], [curve for curve in judged if curve.subject == subject])
    axes[0][0].set_ylabel("CPU, us", fontsize=9)
    picture.savefig(path, dpi=100)
    plt.close(picture)


def _panel(axes: Any, curves: Sequence[Curve]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for place, curve in enumerate(curves):
        look = place % len(_COLOURS)
        axes.plot(
            list(curve.costs),
            list(curve.costs.values()),
            color=_COLOURS[look],
            marker=_MARKERS[look],
            markersize=5,
            linewidth=1.6,
            label=curve.name,
        )
    sizes = sorted({size for curve in curves for size in curve.costs})
    costs = [cost for curve in curves for cost in curve.costs.values()]
    low, high = min(costs) / 2, max(costs) * 6
    start = min(curves[0].costs.values())
    axes.plot(sizes, [start * size / sizes[0] for size in sizes], "--", color=_GREY, linewidth=1, label="linear")
    axes.set_ylim(low, high)
    axes.set_xlim(sizes[0] / 1.3, sizes[-1] * 1.3)
    axes.set_xlabel(curves[0].subject, fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else "")
    axes.grid(color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8, which="both")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, frameon=False, fontsize=8)
