"""A call beside few that wait for their provider, and beside many."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import Final

import anyio
import anyio.abc

from benchmarks.canned import MESSAGES, MODEL
from benchmarks.holding_engine import HoldingEngine
from bifrost_core import Key, Mistral, Router

from .curves import Curve

__all__ = ["measure"]

_MODEL: Final = f"mistral/{MODEL}"
_KEYS: Final = 10


async def measure(sizes: Sequence[int], *, calls: int, rounds: int) -> list[Curve]:
    """Measure; sizes take turns, and each figure is the best of the rounds.

    Args:
        sizes: Numbers of calls in flight, the one that is measured among them.
        calls: Calls made beside those that wait, in each round.
        rounds: How often.
    """
    beside: dict[int, float] = {}
    whole: dict[int, float] = {}
    for _ in range(rounds):
        for size in sizes:
            one, each = await _turn(size, calls)
            beside[size] = min(one, beside.get(size, one))
            whole[size] = min(each, whole.get(size, each))
    return [
        Curve("calls in flight", "one more call", "us", {size: beside[size] * 1e6 for size in sizes}),
        Curve("calls in flight", "each of them, begin to end", "us", {size: whole[size] * 1e6 for size in sizes}),
    ]


async def _turn(size: int, calls: int) -> tuple[float, float]:
    """Seconds of CPU of one more call beside ``size - 1``, and of each of as many as are begun, held and answered.

    Of few, so many groups take turns that there are as many in all as ``calls``.
    """
    engine = HoldingEngine()
    keys = [Key(f"sk-simulated-{number:06}", id=f"k{number}") for number in range(_KEYS)]
    async with Router([Mistral(keys)], engine=engine) as router:
        await router.chat(_MODEL, MESSAGES)
        gc.collect()
        one = each = 0.0
        groups = max(1, calls // size)
        for _ in range(groups):
            begun = time.process_time()
            async with anyio.create_task_group() as tasks:
                await _begin(router, engine, size - 1, tasks)
                middle = time.process_time()
                for _ in range(calls // groups):
                    await router.chat(_MODEL, MESSAGES)
                since = time.process_time()
                engine.release()
            one += since - middle
            each += time.process_time() - begun - (since - middle)
    return one / (calls // groups * groups), (each / groups + one / calls) / size


async def _begin(router: Router, engine: HoldingEngine, count: int, tasks: anyio.abc.TaskGroup) -> None:
    """Begin calls that wait for an answer; those after them are answered at once."""
    engine.is_holding = True
    for _ in range(count):
        tasks.start_soon(router.chat, _MODEL, MESSAGES)
    await engine.until_held(count)
    engine.is_holding = False
