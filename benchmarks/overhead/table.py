"""The figures as Markdown, and what they say about the goals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .rounds import Figure, Spread

__all__ = ["goals", "tables"]

CPU_GOAL: Final = 0.85  # at most, one plain call in flight
PLUGINS_GOAL: Final = 1.0  # the same with plugins
AIOHTTP_GOAL: Final = 1.5  # the same of the engine on aiohttp, beside aiohttp
STREAM_GOAL: Final = 1.15  # the same of streams
RATE_GOAL: Final = 1.0  # more than, from 32 calls in flight
HTTPX_RATES: Final = {32: 3.0, 256: 8.0}  # the same of plain calls on httpx without plugins, by calls in flight
_TITLES: Final = {"plain": "Plain calls", "stream": "Streams"}


def _ratio(spread: Spread) -> str:
    return f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"


def tables(figures: Sequence[Figure]) -> str:
    """One table per mode; ratios are against the plain client of the same HTTP library at the same concurrency."""
    parts: list[str] = []
    for mode in dict.fromkeys(figure.mode for figure in figures):
        is_stream = mode == "stream"
        parts += [
            f"{_TITLES[mode]}: CPU in us, latency in ms, ratio = median (quartiles) over the rounds.",
            "",
            "| in flight | way | CPU | ratio | calls/s | ratio | p50 | p99 | Python calls |"
            + (" per chunk |" if is_stream else ""),
            "|---:|---|---:|---:|---:|---:|---:|---:|---:|" + ("---:|" if is_stream else ""),
        ]
        for figure in figures:
            if figure.mode != mode:
                continue
            row = (
                f"| {figure.in_flight} | {figure.way} | {figure.cpu.median:.0f} | {_ratio(figure.cpu_ratio)} "
                f"| {figure.rate.median:.0f} | {_ratio(figure.rate_ratio)} "
                f"| {figure.p50:.2f} | {figure.p99:.2f} | {figure.python_calls:.0f} |"
            )
            if is_stream:
                row += " - |" if figure.per_chunk is None else f" {figure.per_chunk:.1f} |"
            parts.append(row)
        parts.append("")
    return "\n".join(parts)


def goals(figures: Sequence[Figure]) -> str:
    """Whether the Router keeps what it promises, line by line; nothing where the figures have no Router."""
    lines: list[str] = []
    for figure in figures:
        if not figure.way.startswith("Router"):
            continue
        what = f"{figure.way}, {figure.mode}, {figure.in_flight} in flight:"
        if figure.in_flight == 1:
            most = _cpu_goal(figure)
            kept = figure.cpu_ratio.median <= most
            lines.append(f"{what} CPU {_ratio(figure.cpu_ratio)} x, at most {most}: {_word(kept)}")
        elif figure.in_flight >= 32 and "aiohttp" not in figure.way:
            least = _rate_goal(figure)
            kept = figure.rate_ratio.median > least
            lines.append(f"{what} throughput {_ratio(figure.rate_ratio)} x, more than {least}: {_word(kept)}")
    return "\n".join(lines)


def _cpu_goal(figure: Figure) -> float:
    if "aiohttp" in figure.way:
        return AIOHTTP_GOAL
    if figure.mode == "stream":
        return STREAM_GOAL
    return PLUGINS_GOAL if "plugins" in figure.way else CPU_GOAL


def _rate_goal(figure: Figure) -> float:
    if figure.mode == "plain" and figure.way == "Router on httpx":
        return HTTPX_RATES.get(figure.in_flight, RATE_GOAL)
    return RATE_GOAL


def _word(kept: bool) -> str:
    return "kept" if kept else "MISSED"
