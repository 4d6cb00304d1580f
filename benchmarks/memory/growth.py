"""What a service keeps of its calls: nothing, however many there have been.

Four models, a hundred callers with a session each, plain calls and streams in turn. Three in a hundred fail, one in
a hundred is cancelled under way, one in a hundred streams is left early. (Callers that have nothing in common with
one another are ``python -m benchmarks.faults --soak``.)
"""

from __future__ import annotations

import gc
import statistics
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from itertools import combinations
from typing import Final

import anyio
import anyio.lowlevel
import attrs

from benchmarks.null_engine import NullEngine
from bifrost_core import CallError, Key, Mistral, RetryPolicy, Router
from bifrost_core.engines import Exchange
from bifrost_core.engines.base import HttpStream, TransportError
from bifrost_core.kinds import Kind

from .weighing import resident

__all__ = ["Sample", "slope", "soak"]

_MODELS, _CALLERS = 4, 100
_WARM_UP: Final = 5_000  # until every caller has been there, and each of four balancers remembers its thousand picks
_SAMPLES: Final = 12


@attrs.frozen
class Sample:
    """What there was after so many calls.

    Attributes:
        calls: So many.
        objects: That Python's garbage collector tracks.
        blocks: Of memory that Python has given out, texts and numbers included.
        resident: Bytes.
    """

    calls: int
    objects: int
    blocks: int
    resident: int


class _Moody(NullEngine):
    """Answers after a moment, but for three exchanges in a hundred."""

    def __init__(self) -> None:
        super().__init__(tokens=4)
        self._number = 0

    async def open(self, exchange: Exchange) -> HttpStream:  # type: ignore[override] # an answer is a stream
        self._number += 1
        await anyio.lowlevel.checkpoint()
        if self._number % 33 == 0:
            raise TransportError(Kind.READ_TIMEOUT, "simulated")
        return await super().open(exchange)


async def soak(calls: int) -> list[Sample]:
    """Make the calls, after some more to warm up, and look twelve times on the way."""
    provider = Mistral([Key(f"sk-simulated-{number}", id=f"k{number}") for number in range(3)])
    seen = array("q", bytes(8 * 3 * _SAMPLES))  # made before: what is noted must not be growth itself
    async with Router([provider], engine=_Moody(), retry=RetryPolicy(max_attempts=1, max_wait=0)) as router:
        for number in range(_WARM_UP):
            await _one(router, number)
        done = 0
        for place in range(_SAMPLES):
            until = calls * place // (_SAMPLES - 1)
            for number in range(done, until):
                await _one(router, number)
            done = until
            gc.collect()
            seen[3 * place] = len(gc.get_objects())
            seen[3 * place + 1] = sys.getallocatedblocks()
            seen[3 * place + 2] = resident()
    return [Sample(calls * place // (_SAMPLES - 1), *seen[3 * place : 3 * place + 3]) for place in range(_SAMPLES)]


async def _one(router: Router, number: int) -> None:
    model, caller = f"mistral/model-{number % _MODELS}", f"caller-{number % _CALLERS}"
    text = f"question {number}"
    with suppress(CallError):
        if number % 100 == 7:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_quietly, router, model, text)
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        elif number % 2:
            await router.chat(model, text, session=caller, metadata={"user": caller})
        else:
            async with router.stream(model, text, session=caller) as reading:
                async for _ in reading:
                    if number % 200 == 8:
                        break


async def _quietly(router: Router, model: str, text: str) -> None:
    with suppress(CallError):
        await router.chat(model, text)


def slope(samples: Sequence[Sample], what: str) -> float:
    """By how much ``what`` grows in a million calls: the median over all pairs of samples, which no single step moves.

    Source:
        P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63, 1968.
    """
    rises: list[float] = [
        (getattr(later, what) - getattr(sooner, what)) / (later.calls - sooner.calls)
        for sooner, later in combinations(samples, 2)
        if later.calls > sooner.calls
    ]
    return 1e6 * statistics.median(rises)
