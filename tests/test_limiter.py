"""Places for what is in flight: never more than there are, in the order of arrival, none lost to a cancellation.

``BIFROST_ACQUIRES`` sets how often each of the 100 tasks takes a place.
"""

from __future__ import annotations

import itertools
import os
import random
from typing import Any

import anyio
import pytest

from bifrost_core import CallError, RetryPolicy, Router, Timeout, hookimpl
from bifrost_core.limiter import Limiter, QueueFullError
from bifrost_core.providers.mistral import Mistral
from bifrost_core.testing import Fault, SimulatedKey, SimulatedMistral

ACQUIRES = int(os.environ.get("BIFROST_ACQUIRES", "60"))
TASKS = 100


@pytest.mark.parametrize("limit", [1, 7])
async def test_a_hundred_tasks_never_hold_more_places_than_there_are(limit: int) -> None:
    limiter = Limiter(limit)
    rng = random.Random(limit)
    holding = most = cancelled = 0

    async def work() -> None:
        nonlocal holding, most, cancelled
        for _ in range(ACQUIRES):
            with anyio.CancelScope() as scope:
                if rng.random() < 0.3:
                    scope.deadline = anyio.current_time() + rng.choice([0.0, 0.0, 0.0005])
                await limiter.acquire(60)
                holding += 1
                most = max(most, holding)
                try:
                    await anyio.lowlevel.checkpoint()
                finally:
                    holding -= 1
                    limiter.release()
            cancelled += scope.cancelled_caught

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(TASKS):
                group.start_soon(work)
    assert most == limit
    assert (limiter.in_flight, limiter.waiting, limiter.is_unused) == (0, 0, True)
    assert cancelled > TASKS * ACQUIRES // 20


async def test_who_came_first_is_served_first() -> None:
    limiter = Limiter(1)
    await limiter.acquire(1)
    order: list[int] = []

    async def wait(number: int) -> None:
        await limiter.acquire(5)
        order.append(number)
        assert not limiter.try_acquire()
        limiter.release()

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
        assert limiter.waiting == 20
        limiter.release()
    assert order == list(range(20))
    assert limiter.is_unused


async def test_a_full_queue_refuses_at_once_and_says_so() -> None:
    limiter = Limiter(1, max_waiters=2)
    await limiter.acquire(0)
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(limiter.acquire, 5)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(QueueFullError, match="2 already wait"):
            await limiter.acquire(5)
        with pytest.raises(QueueFullError, match="2 already wait"):
            await limiter.acquire(0)
        for _ in range(3):
            limiter.release()
    assert limiter.is_unused


class Turns:
    """Sends calls on the keys in turn."""

    def __init__(self) -> None:
        self._number = 0

    @hookimpl
    def bifrost_pick_route(self, routes: Any, call: Any) -> Any:
        self._number += 1
        return sorted(routes, key=lambda route: route.key_id)[self._number % len(routes)]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("limits", [{"max_in_flight": 2}, {"max_in_flight_per_key": 1}], ids=["provider", "key"])
async def test_a_limit_of_a_provider_holds_and_who_waits_too_long_is_told(limits: dict[str, Any], stream: bool) -> None:
    secrets = ["sk-simulated-one", "sk-simulated-two"]
    with SimulatedMistral([SimulatedKey(secret, id=secret, latency=0.1) for secret in secrets]) as server:
        provider = Mistral(secrets, base_url=server.base_url, **limits)
        errors: list[CallError] = []

        async def ask(router: Router) -> None:
            try:
                if not stream:
                    await router.chat("mistral/mistral-small-latest", "hi", timeout=Timeout(pool=60))
                    return
                async with router.stream("mistral/mistral-small-latest", "hi", timeout=Timeout(pool=60)) as reading:
                    async for _ in reading:
                        continue
            except CallError as exc:
                errors.append(exc)

        async with Router([provider], plugins=[Turns()], retry=RetryPolicy(max_wait=0)) as router:
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(ask, router)
            assert errors == []
            ends = [(request.at, 1) for request in server.requests]
            ends += [(request.at + (request.ended_after or 0.0), -1) for request in server.requests]
            assert max(itertools.accumulate(step for _, step in sorted(ends))) <= 2
            if "max_in_flight_per_key" in limits:
                assert {counters.most_in_flight for counters in server.counters.values()} == {1}
            for secret in secrets:
                server.fail(secret, Fault("hold"))
            async with anyio.create_task_group() as group:
                for _ in range(2):
                    group.start_soon(ask, router)
                with anyio.fail_after(10):
                    while sum(counters.in_flight for counters in server.counters.values()) < 2:
                        await anyio.sleep(0.01)
                with pytest.raises(CallError) as caught:
                    await router.chat("mistral/mistral-small-latest", "hi", timeout=Timeout(pool=0.05))
                for secret in secrets:
                    server.heal(secret)
            error = caught.value
            assert (error.kind, error.http_status, type(error).__name__) == ("rate_exceeded", 429, "RateLimitError")
            assert "no place within 0.05 s" in error.message
            assert [row.state for row in router.health()] == ["closed", "closed"]
            assert router._sender.in_flight == 0
