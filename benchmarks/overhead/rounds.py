"""Rounds that take turns: every way makes some calls, then the next, then all of them again.

What slows a machine down for a while hits neighbours in time alike, so a way is compared with the plain
client of the same HTTP library *in the same round*, and the figure is the median of those ratios.
"""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import math
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import FrameType
from typing import Final

import anyio
import attrs

from benchmarks.canned import TEXT, stream_text

from .targets import Target, Way, WayEntry

__all__ = ["Figure", "Plan", "Spread", "Turn", "compared", "measure", "percentile"]

_log = logging.getLogger(__name__)

_FEW_TOKENS: Final = 20  # of the short stream that the cost per chunk is told from
_COUNTED: Final = 20  # calls in which Python calls are counted
_LONGEST: Final = 6  # times `Plan.seconds` that one call of every worker may take

Ask = Callable[[], Awaitable[str]]


@attrs.frozen
class Spread:
    """A figure over the rounds: the median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@attrs.frozen
class Figure:
    """One way at one concurrency.

    Attributes:
        mode: ``plain`` or ``stream``.
        in_flight: Calls in flight.
        way: Its name.
        base: The way that the ratios are against.
        cpu: Microseconds of this process's CPU per call (of a stream: for all of it).
        rate: Calls per second of wall time.
        cpu_ratio: ``cpu`` over that of the base in the same round.
        rate_ratio: The same for ``rate``.
        p50: Median latency in milliseconds, over all rounds.
        p99: 99th percentile of the latency in milliseconds, over all rounds.
        python_calls: Python functions entered per call, one call in flight; coroutines count each time they go on.
        per_chunk: The same per chunk of a stream: what further chunks add.
    """

    mode: str
    in_flight: int
    way: str
    base: str
    cpu: Spread
    rate: Spread
    cpu_ratio: Spread
    rate_ratio: Spread
    p50: float
    p99: float
    python_calls: float
    per_chunk: float | None


@attrs.frozen(kw_only=True)
class Plan:
    """How much is measured.

    Attributes:
        calls: Plain calls of a way in one round; at least as many as there are in flight.
        streams: The same for streams.
        tokens: Chunks of a stream that hold a word.
        rounds: How often each way has its turn.
        in_flight: Concurrencies.
        seconds: A way's turn ends after so long, when every worker has made a call. A way whose workers
            would take six times as long for one call each is left out there.
    """

    calls: int
    streams: int
    tokens: int
    rounds: int
    in_flight: Sequence[int]
    seconds: float


@attrs.frozen
class _Count:
    """What is known of a way before its first turn.

    Attributes:
        python_calls: See ``Figure``.
        per_chunk: See ``Figure``.
        seconds: CPU of one call.
    """

    python_calls: float
    per_chunk: float | None
    seconds: float


@attrs.frozen
class Turn:
    """What one way did in one round.

    Attributes:
        cpu: Microseconds of CPU per call.
        rate: Calls per second.
        latencies: Seconds, one per call.
    """

    cpu: float
    rate: float
    latencies: Sequence[float]


async def _turn(ask: Ask, in_flight: int, calls: int, seconds: float) -> Turn:
    latencies: list[float] = []
    left = itertools.count(calls - in_flight, -1)

    async def worker() -> None:
        while True:
            asked = time.perf_counter()
            await ask()
            now = time.perf_counter()
            latencies.append(now - asked)
            if next(left) <= 0 or now > end:
                return

    cpu, wall = time.process_time(), time.perf_counter()
    end = wall + seconds
    async with anyio.create_task_group() as group:
        for _ in range(in_flight):
            group.start_soon(worker)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Turn(cpu / len(latencies) * 1e6, len(latencies) / wall, latencies)


async def _entered(ask: Ask, times: int) -> float:
    """Python functions entered per call."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        if event == "call":
            count += 1

    sys.setprofile(profile)
    try:
        for _ in range(times):
            await ask()
    finally:
        sys.setprofile(None)
    return count / times


async def _counted(way: Way, mode: str, tokens: int, times: int) -> _Count:
    """See that the way reads what was sent, let it open its connections, then count Python calls.

    Raises:
        ValueError: It reads something else.
    """
    ask = _ask(way, mode, tokens)
    began = time.process_time()
    for _ in range(times):
        began = time.process_time()
        if await ask() != (TEXT if mode == "plain" else stream_text(tokens)):
            raise ValueError("an answer does not say what was sent; the figures would mean nothing")
    seconds = time.process_time() - began
    entered = await _entered(ask, min(_COUNTED, times))
    if mode == "plain" or tokens <= _FEW_TOKENS:
        return _Count(entered, None, seconds)
    few = await _entered(_ask(way, mode, _FEW_TOKENS), min(_COUNTED, times))
    return _Count(entered, (entered - few) / (tokens - _FEW_TOKENS), seconds)


def _ask(way: Way, mode: str, tokens: int) -> Ask:
    return way.plain if mode == "plain" else functools.partial(way.stream, tokens)


async def measure(
    entries: Sequence[WayEntry],
    target: Target,
    plan: Plan,
    modes: Sequence[str],
    progress: Callable[[str], None],
) -> list[Figure]:
    """Open every way, let them take turns, compare.

    Args:
        entries: The ways; the base of each is among them.
        target: A running server.
        plan: How much.
        modes: ``plain``, ``stream``.
        progress: Is told what comes next.
    """
    figures: list[Figure] = []
    async with AsyncExitStack() as stack:
        ways = {entry: await stack.enter_async_context(entry.open(target)) for entry in entries}
        for mode in modes:
            calls = plan.calls if mode == "plain" else plan.streams
            counted: dict[WayEntry, _Count] = {}
            for entry, way in ways.items():
                progress(f"{mode}: counting, {entry.name}")
                counted[entry] = await _counted(way, mode, plan.tokens, min(calls, 2 * len(target.secrets)))
            for level in plan.in_flight:
                longest = _LONGEST * plan.seconds / level
                quick = {entry: way for entry, way in ways.items() if counted[entry].seconds <= longest}
                turns = await _take_turns(quick, mode, level, calls, plan, progress)
                for entry in quick:
                    if entry.name not in turns:
                        continue
                    count = counted[entry]
                    figures.append(
                        compared(mode, level, entry, turns, python_calls=count.python_calls, per_chunk=count.per_chunk)
                    )
    return figures


async def _take_turns(
    ways: Mapping[WayEntry, Way], mode: str, level: int, calls: int, plan: Plan, progress: Callable[[str], None]
) -> dict[str, list[Turn]]:
    """The turns of every way by its name; a way that fails is left out, so that it does not cost the others theirs.

    Raises:
        Exception: What a base failed with: without it there is nothing to compare with.
    """
    turns: dict[str, list[Turn]] = {entry.name: [] for entry in ways}
    order = list(ways)
    bases = {entry.base for entry in ways}
    for number in range(plan.rounds):
        progress(f"{mode}: {level} in flight, round {number + 1} of {plan.rounds}")
        gc.collect()
        for entry in list(order):
            way = ways[entry]
            ask = _ask(way, mode, plan.tokens)
            try:
                # What was closed while the others had their turns is opened before the clock starts.
                await _turn(way.plain, level, level, plan.seconds)
                turns[entry.name].append(await _turn(ask, level, max(calls, level), plan.seconds))
            except Exception as exc:
                if entry.name in bases:
                    raise
                causes = exc.exceptions if isinstance(exc, ExceptionGroup) else (exc,)
                _log.warning("%s, %s, %d in flight: left out, %s", entry.name, mode, level, type(causes[0]).__name__)
                order.remove(entry)
                del turns[entry.name]
        order = [*order[1:], *order[:1]]  # nobody always comes after the same neighbour
    return turns


def compared(
    mode: str,
    level: int,
    entry: WayEntry,
    turns: Mapping[str, Sequence[Turn]],
    *,
    python_calls: float,
    per_chunk: float | None,
) -> Figure:
    """The turns of one way beside those of its base, round by round.

    Args:
        mode: For the figure, as are ``level``, ``python_calls`` and ``per_chunk``.
        level: Calls in flight.
        entry: The way.
        turns: By name of way, in the order of the rounds.
        python_calls: Per call.
        per_chunk: Per chunk.
    """
    own, base = turns[entry.name], turns[entry.base]
    latencies = sorted(seconds for turn in own for seconds in turn.latencies)
    return Figure(
        mode=mode,
        in_flight=level,
        way=entry.name,
        base=entry.base,
        cpu=Spread.of([turn.cpu for turn in own]),
        rate=Spread.of([turn.rate for turn in own]),
        cpu_ratio=Spread.of([mine.cpu / other.cpu for mine, other in zip(own, base, strict=True)]),
        rate_ratio=Spread.of([mine.rate / other.rate for mine, other in zip(own, base, strict=True)]),
        p50=percentile(latencies, 0.50) * 1e3,
        p99=percentile(latencies, 0.99) * 1e3,
        python_calls=python_calls,
        per_chunk=per_chunk,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values in order: one that was seen, none in between."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
