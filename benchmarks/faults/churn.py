"""Calls that are cancelled at random moments, and what they leave behind.

A provider with ten places and one slow key of three, twenty workers, every way of calling in turn: plain, streamed,
hedged, resumed. Each call is cancelled after 0 to 400 ms, by a scope or by the task's own ``cancel``; then ten
calls at once have to succeed.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 # a native cancellation is what is measured
import gc
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import anyio
import attrs

from bifrost_core import Hedge, Mistral, RetryPolicy, Router, Timeout
from bifrost_core.errors import CallError
from bifrost_core.testing import Fault, Latency, SimulatedKey, SimulatedMistral

__all__ = ["Left", "churn"]

WAYS: Final = ("plain", "stream", "hedged", "resumed")
_MODEL: Final = "mistral/mistral-small-latest"
_AFTER: Final = (0.0, 0.0005, 0.002, 0.005, 0.02, 0.05, 0.1, 0.4)  # seconds
_PLACES, _WORKERS = 10, 20
_NUMBER: Final = re.compile(rb"call (\d+)")


@attrs.frozen
class Left:
    """What was left behind.

    Attributes:
        calls: Calls that were made.
        outcomes: How many were cancelled, answered, or failed, by name.
        in_flight: Attempts that are counted as under way by health, the sender and the service.
        places: Of ten calls at once afterwards, how many were answered.
        tasks: Tasks more than before.
        descriptors: File descriptors more than before.
        closings: Seconds from each cancel to when the service saw the connection close, ascending.
        unseen: Requests under way at a cancel whose end the service has not seen.
    """

    calls: int
    outcomes: dict[str, int]
    in_flight: tuple[int, int, int]
    places: int
    tasks: int
    descriptors: int
    closings: tuple[float, ...]
    unseen: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing is."""
        return (
            self.in_flight == (0, 0, 0)
            and self.places == _PLACES
            and self.tasks <= 0
            and self.descriptors <= 0
            and self.unseen == 0
        )


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _call(routers: dict[str, Router], way: str, number: int) -> None:
    router, text = routers[way], f"call {number}"
    if way == "plain" or (way == "hedged" and number % 2):
        await router.chat(_MODEL, text, max_tokens=8)
        return
    async with router.stream(_MODEL, text, max_tokens=8, resume=way == "resumed") as reading:
        async for _ in reading:
            continue


async def churn(calls: int, *, native: bool, seed: int = 1) -> Left:
    """Make and cancel so many calls. Belongs on asyncio where the cancellation is native.

    Args:
        calls: How many.
        native: Cancel the task itself instead of a scope around the call.
        seed: Of everything random.
    """
    latency = Latency(0.03, sigma=0.5, tokens_per_second=500)
    keys = [SimulatedKey(f"sk-simulated-{name}", latency=latency) for name in ("one", "two", "three")]
    keys[0] = attrs.evolve(keys[0], latency=Latency(0.1), faults=(Fault("truncate", after=4, probability=0.3),))
    with SimulatedMistral(keys, keep_bodies=True, journal_size=4 * calls + 1_000, seed=seed) as server:
        policies = {way: RetryPolicy(hedge=Hedge(0.02) if way == "hedged" else None, max_wait=1) for way in WAYS}
        provided = {
            way: Mistral([key.secret for key in keys], base_url=server.base_url, max_in_flight=_PLACES) for way in WAYS
        }
        routers = {way: Router([provided[way]], retry=policies[way], rng=random.Random(seed)) for way in WAYS}
        limits = Timeout(total=20, pool=20)
        try:
            for way in WAYS:
                await routers[way].chat(_MODEL, "warm", timeout=limits)
            gc.collect()
            return await _churned(server, routers, calls, native=native, rng=random.Random(seed))
        finally:
            for router in routers.values():
                await router.aclose()


async def _churned(
    server: SimulatedMistral, routers: dict[str, Router], calls: int, *, native: bool, rng: random.Random
) -> Left:
    outcomes: Counter[str] = Counter()
    cancelled: dict[int, float] = {}
    tasks, descriptors = anyio.get_running_tasks(), _descriptors()
    origin = time.monotonic()
    server.reset()

    async def one(number: int) -> None:
        try:
            await _call(routers, WAYS[number % len(WAYS)], number)
            outcomes["ok"] += 1
        except CallError as exc:
            outcomes[str(exc.kind)] += 1

    async def by_scope(number: int, after: float) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def strike() -> None:
                    await anyio.sleep(after)
                    cancelled[number] = time.monotonic() - origin
                    scope.cancel()

                group.start_soon(strike)
                await one(number)
                cancelled.pop(number, None)
                group.cancel_scope.cancel()

    async def by_task(number: int, after: float) -> None:
        task = asyncio.ensure_future(one(number))
        await asyncio.wait([task], timeout=after)
        if not task.done():
            cancelled[number] = time.monotonic() - origin
            task.cancel()
            await asyncio.wait([task])

    left = iter(range(calls))

    async def work() -> None:
        for number in left:
            await (by_task if native else by_scope)(number, rng.choice(_AFTER))

    async with anyio.create_task_group() as group:
        for _ in range(_WORKERS):
            group.start_soon(work)
    outcomes["cancelled"] = calls - sum(outcomes.values())
    await anyio.to_thread.run_sync(server.wait_idle)
    closings, unseen = _closings(server, cancelled)
    places = await _places(routers["plain"])
    in_flight = (
        sum(row.in_flight for router in routers.values() for row in router.health()),
        sum(router._sender.in_flight for router in routers.values()),  # noqa: SLF001 # nothing public counts it
        sum(counters.in_flight for counters in server.counters.values()),
    )
    gc.collect()
    idle = sum(router._sender.engine.idle for router in routers.values())  # type: ignore[attr-defined]  # noqa: SLF001 # of our engines alone
    more = [task for task in anyio.get_running_tasks() if task not in tasks]
    return Left(
        calls=calls,
        outcomes=dict(outcomes),
        in_flight=in_flight,
        places=places,
        tasks=len(more),
        descriptors=_descriptors() - descriptors - 2 * max(0, idle - len(routers)),  # both ends are in this process
        closings=tuple(sorted(closings)),
        unseen=unseen,
    )


async def _places(router: Router) -> int:
    """How many of as many calls as there are places are answered, all at once."""
    answered: list[Any] = []

    async def ask() -> None:
        answered.append(await router.chat(_MODEL, "after", timeout=20))

    async with anyio.create_task_group() as group:
        for _ in range(_PLACES):
            group.start_soon(ask)
    return len(answered)


def _closings(server: SimulatedMistral, cancelled: dict[int, float]) -> tuple[list[float], int]:
    """How late the service saw the end of the requests that were under way when their calls were cancelled."""
    late: list[float] = []
    unseen = 0
    for request in server.requests:
        found = _NUMBER.search(request.body or b"")
        at = None if found is None else cancelled.get(int(found[1]))
        if at is None:
            continue
        if request.ended_after is None:
            unseen += 1
        elif request.left_after is not None and request.at + request.left_after >= at:
            late.append(request.at + request.left_after - at)
    return late, unseen
