"""Many calls that have nothing in common, and what of them stays in memory.

Every call has a model, a session, a virtual key, metadata and now and then a provider's key of its own; three in a
hundred fail and one in a hundred is cancelled. Nothing is sent: the engine answers at once.
"""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import attrs

from benchmarks.null_engine import NullEngine
from bifrost_core import CallError, Key, Mistral, RetryPolicy, Router
from bifrost_core.engines import Exchange
from bifrost_core.engines.base import HttpStream, TransportError
from bifrost_core.kinds import Kind

__all__ = ["Grown", "soak"]

_PAGE = resource.getpagesize()
_KEY_EVERY = 1_000  # calls; a key is put into every deployment that there is


@attrs.frozen
class Grown:
    """What a soak left.

    Attributes:
        calls: After the warm-up.
        rss: Bytes of resident memory more than after it.
        objects: Objects that the collector tracks, more than after it.
        tasks: Tasks more than before.
        descriptors: File descriptors more than before.
    """

    calls: int
    rss: int
    objects: int
    tasks: int
    descriptors: int


class _Failing(NullEngine):
    """Fails three exchanges in a hundred."""

    def __init__(self) -> None:
        super().__init__(tokens=2)
        self._number = 0

    async def open(self, exchange: Exchange) -> HttpStream:  # type: ignore[override] # an answer is a stream
        self._number += 1
        if self._number % 33 == 0:
            raise TransportError(Kind.READ_TIMEOUT, "simulated")
        await anyio.lowlevel.checkpoint()
        return await super().open(exchange)


def _rss() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def soak(
    calls: int, *, warm_up: int, distinct: int = 100_000, look: Callable[[Router], None] | None = None
) -> Grown:
    """Make the calls.

    Args:
        calls: How many are measured.
        warm_up: How many come before, so that every map has reached its size.
        distinct: Of models; sessions, virtual keys and metadata are another for each call.
        look: Called with the Router at the end.
    """
    provider = Mistral([Key(f"sk-simulated-{n}", id=f"k{n}") for n in range(3)])
    tasks, descriptors = len(anyio.get_running_tasks()), _descriptors()
    async with Router([provider], engine=_Failing(), retry=RetryPolicy(max_attempts=1, max_wait=0)) as router:

        async def one(number: int) -> None:
            model, own = f"mistral/m{number % distinct}", f"caller-{number}"
            with anyio.CancelScope() as scope, suppress(CallError):
                if number % 100 == 0:
                    scope.cancel()
                more: dict[str, Any] = {"session": own, "virtual_key": f"sk-bf-{own}", "metadata": {"user": own}}
                if number % 10:
                    await router.chat(model, own, **more)
                    return
                async with router.stream(model, own, **more) as reading:
                    async for _ in reading:
                        continue

        async def some(begin: int, end: int) -> None:
            for number in range(begin, end):
                await one(number)
                if number % _KEY_EVERY == 0:
                    router.add_key("mistral", Key(f"sk-simulated-new-{number}", id=f"n{number}"))
                if number % _KEY_EVERY == _KEY_EVERY - 1:
                    router.remove_key("mistral", f"n{number - _KEY_EVERY + 1}")

        await some(0, warm_up)
        gc.collect()
        rss, objects = _rss(), len(gc.get_objects())
        await some(warm_up, warm_up + calls)
        gc.collect()
        grown = (_rss() - rss, len(gc.get_objects()) - objects)
        if look is not None:
            look(router)
        gone = len(anyio.get_running_tasks()) - tasks, _descriptors() - descriptors
    return Grown(calls, *grown, *gone)
