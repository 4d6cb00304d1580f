"""Cancellation leaves nothing behind, whichever way it comes and wherever it strikes."""

from __future__ import annotations

import gc
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from bifrost_core import Mistral, Router
from bifrost_core.testing import Latency, SimulatedKey, SimulatedMistral
from tests.conftest import Books

MODEL = "mistral/mistral-small-latest"
SECRETS = [f"sk-canary-{letter * 16}" for letter in "abcd"]
CALLS = 1_000


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedMistral]:
    latency = Latency(0.01, sigma=0.5, tokens_per_second=2_000)
    with SimulatedMistral([SimulatedKey(secret, latency=latency) for secret in SECRETS]) as running:
        yield running


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _one(router: Router, number: int) -> None:
    if number % 2:
        await router.chat(MODEL, "hi", max_tokens=8)
        return
    async with router.stream(MODEL, "hi", max_tokens=8) as stream:
        async for _ in stream:
            continue


async def _check(router: Router, books: Books, server: SimulatedMistral) -> None:
    """Everything is given back, and the Router works as if nothing had happened."""
    assert all(state.in_flight == 0 for state in router.health())
    assert router._sender.in_flight == 0
    assert not router._running
    assert books.settled == books.begun or not books.begun - books.settled
    assert set(books.finished.values()) == {1}
    assert set(books.settled.values()) == {1}
    async with anyio.create_task_group() as group:
        for number in range(64):
            group.start_soon(_one, router, number)
    with anyio.fail_after(5):
        while sum(counters.in_flight for counters in server.counters.values()):
            await anyio.sleep(0.01)


async def test_a_thousand_calls_cancelled_by_scopes_leave_nothing_behind(
    server: SimulatedMistral, books: Books
) -> None:
    rng = random.Random(1)
    before = _descriptors()

    async def work(number: int, limiter: anyio.CapacityLimiter) -> None:
        async with limiter:
            with anyio.move_on_after(rng.choice([0, 0.001, 0.005, 0.01, 0.02, 0.05])):
                await _one(router, number)

    router = Router([Mistral(SECRETS, base_url=server.base_url)], plugins=[books], rng=random.Random(2))
    async with router:
        limiter = anyio.CapacityLimiter(100)
        async with anyio.create_task_group() as group:
            for number in range(CALLS):
                group.start_soon(work, number, limiter)
        await _check(router, books, server)
    assert books.outcomes["cancelled"] > CALLS // 20
    assert books.outcomes["ok"] > CALLS // 20
    assert books.outcomes["failed"] == 0
    gc.collect()
    with anyio.fail_after(5):
        while _descriptors() > before + 4:  # the event loop and the server keep a few of their own
            await anyio.sleep(0.01)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)
async def test_a_thousand_calls_cancelled_natively_leave_nothing_behind(
    server: SimulatedMistral, anyio_backend: str, books: Books
) -> None:
    import asyncio  # noqa: PLC0415, TID251 # native cancellation is what is tested

    rng = random.Random(3)
    router = Router([Mistral(SECRETS, base_url=server.base_url)], plugins=[books], rng=random.Random(4))
    gate = asyncio.Semaphore(100)

    async def work(number: int) -> None:
        async with gate:
            await _one(router, number)

    async def strike(task: asyncio.Task[None]) -> None:
        await asyncio.sleep(rng.choice([0, 0.001, 0.005, 0.02, 0.05, 0.2, 0.5]))
        task.cancel()
        if rng.random() < 0.3:
            await asyncio.sleep(0)
            task.cancel()

    async with router:
        await router.chat(MODEL, "hi", max_tokens=2)
        tasks = [asyncio.create_task(work(number)) for number in range(CALLS)]
        strikes = [asyncio.create_task(strike(task)) for task in tasks]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*strikes)
        unexpected = [
            result for result in results if result is not None and not isinstance(result, asyncio.CancelledError)
        ]
        assert unexpected == []
        await _check(router, books, server)
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert len(others) <= 1  # the test runner's own
    assert books.outcomes["cancelled"] > CALLS // 20
    assert books.outcomes["failed"] == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_cancelling_at_every_checkpoint_settles_exactly_once(
    server: SimulatedMistral, stream: bool, books: Books
) -> None:
    async with Router([Mistral(SECRETS[:1], base_url=server.base_url)], plugins=[books]) as router:
        await _one(router, 0)
        for checkpoint in range(40):
            done = anyio.Event()

            async def call(scope: anyio.CancelScope, done: anyio.Event = done) -> None:
                with scope:
                    await _one(router, 0 if stream else 1)
                done.set()

            async with anyio.create_task_group() as group:
                scope = anyio.CancelScope()
                group.start_soon(call, scope)
                for _ in range(checkpoint):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()
                with anyio.fail_after(5):
                    await done.wait()
        await _check(router, books, server)


def test_threads_and_processes_are_left_alone() -> None:
    assert threading.active_count() < 8
    assert os.getpid() > 0
