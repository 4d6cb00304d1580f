"""A call cancelled at its k-th checkpoint, for every k until it is too late: nothing is left, whatever the way.

On the simulation, whose answers wait for nothing, so that every await of a call is a checkpoint and no more.
"""

from __future__ import annotations

import random

import anyio
import attrs
import pytest

from bifrost_core import Hedge, RetryPolicy, Router
from bifrost_core.testing import Fault, Simulated, SimulatedKey
from tests.conftest import Books

WAYS = ("plain", "stream", "hedged", "hedged stream", "resumed", "retried")
MOST = 400  # checkpoints of a call, far from reached


def world(way: str, books: Books) -> tuple[Simulated, Router]:
    fault = {"resumed": Fault("truncate", after=4), "retried": Fault("status", status=503)}.get(way)
    keys = [SimulatedKey(name, output_tokens=(6, 6)) for name in ("a", "b", "c")]
    if fault is not None:
        keys[0] = attrs.evolve(keys[0], faults=(fault,))
    provider = Simulated(keys)
    # Hedged at once: the two attempts race from their first checkpoint on.
    policy = RetryPolicy(hedge=Hedge(1e-9) if "hedged" in way else None, backoff=0, budget=1_000)
    return provider, Router([provider], plugins=[books], retry=policy, rng=random.Random(4))


async def call(router: Router, way: str) -> None:
    if way in ("plain", "hedged", "retried"):
        await router.chat("simulated/any", "hi")
        return
    async with router.stream("simulated/any", "hi", resume=way == "resumed") as reading:
        async for _ in reading:
            continue


def check(provider: Simulated, router: Router, books: Books, calls: int) -> None:
    assert all(row.in_flight == 0 for row in router.health())
    assert router._sender.in_flight == 0
    assert not router._running
    assert sum(counters.in_flight for counters in provider.counters.values()) == 0
    assert set(books.settled.values()) <= {1}
    assert books.begun.keys() <= books.settled.keys()
    assert set(books.finished.values()) == {1}
    assert len(books.finished) == calls


@pytest.mark.parametrize("way", WAYS)
async def test_a_scope_cancelled_at_any_checkpoint_leaves_nothing(way: str, books: Books) -> None:
    provider, router = world(way, books)
    async with router:
        await call(router, way)
        for checkpoints in range(MOST):
            done = anyio.Event()
            scope = anyio.CancelScope()

            async def run(scope: anyio.CancelScope = scope, done: anyio.Event = done) -> None:
                with scope:
                    await call(router, way)
                done.set()

            async with anyio.create_task_group() as group:
                group.start_soon(run)
                for _ in range(checkpoints):
                    await anyio.lowlevel.checkpoint()
                late = done.is_set()
                scope.cancel()
            check(provider, router, books, sum(books.finished.values()))
            if late:
                break
        assert late, "the call was let finish in the end"
        assert books.outcomes["ok"] >= 2
        assert books.outcomes["cancelled"] >= 3
        assert books.outcomes.keys() == {"ok", "cancelled"}


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)
async def test_a_task_cancelled_at_any_checkpoint_leaves_nothing(
    way: str, twice: bool, anyio_backend: str, books: Books
) -> None:
    import asyncio  # noqa: PLC0415, TID251 # native cancellation is what is tested

    provider, router = world(way, books)
    async with router:
        await call(router, way)
        before = len(asyncio.all_tasks())
        for checkpoints in range(MOST):
            task = asyncio.create_task(call(router, way))
            for _ in range(checkpoints):
                await asyncio.sleep(0)
            late = task.done()
            task.cancel()
            if twice:
                await asyncio.sleep(0)
                task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            assert all(each is None or isinstance(each, asyncio.CancelledError) for each in results)
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == before
            check(provider, router, books, sum(books.finished.values()))
            if late:
                break
        assert late, "the call was let finish in the end"
        assert books.outcomes["cancelled"] >= 3
        assert books.outcomes.keys() == {"ok", "cancelled"}
