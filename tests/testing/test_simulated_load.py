"""``Simulated``: slots, shared upstreams, prompt caches, a pace that changes, paired draws and outlooks."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import httpx
import pytest
from trio.testing import MockClock

from bifrost_core import Router, Timeout
from bifrost_core.errors import ProviderTimeoutError
from bifrost_core.testing import (
    FakeClock,
    Fault,
    Latency,
    LoopClock,
    Outlook,
    Simulated,
    SimulatedKey,
    SimulatedMistral,
)

T = TypeVar("T")
FAST = Latency(1.0)


def virtual(main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` on trio with a clock that jumps over every wait."""
    return anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def make(provider: Simulated, timeout: Timeout | float = 60.0) -> Router:
    return Router([provider], clock=LoopClock(), timeout=timeout)


async def at_once(router: Router, count: int, **params: Any) -> list[float]:
    """Seconds that each of some calls at one time takes, shortest first."""
    took: list[float] = []

    async def one() -> None:
        took.append(round((await router.chat("simulated/m", "hi", **params)).latency, 6))

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
    return sorted(took)


# -- slots ---------------------------------------------------------------------------------------------------------


def test_requests_beyond_the_slots_wait_for_one() -> None:
    async def main() -> list[float]:
        async with make(Simulated([SimulatedKey("one", latency=FAST, slots=2)])) as router:
            return await at_once(router, 5)

    assert virtual(main) == [1.0, 1.0, 2.0, 2.0, 3.0]


@pytest.mark.parametrize("stream", [False, True])
def test_a_slot_is_kept_until_the_last_token(stream: bool) -> None:
    law = Latency(1.0, tokens_per_second=10)
    key = SimulatedKey("one", latency=law, output_tokens=(10, 10), slots=1)

    async def main() -> float:
        async with make(Simulated([key])) as router:

            async def first() -> None:
                if not stream:
                    await router.chat("simulated/m", "hi")
                    return
                async with router.stream("simulated/m", "hi") as chunks:
                    async for _ in chunks:
                        continue

            async with anyio.create_task_group() as group:
                group.start_soon(first)
                await anyio.sleep(0.5)
                took = round((await router.chat("simulated/m", "hi")).latency, 6)
        return took

    assert virtual(main) == 1.5 + 2.0


def test_keys_of_one_upstream_share_its_slots_and_the_first_says_how_many() -> None:
    keys = [
        SimulatedKey("one", latency=FAST, slots=1, upstream="server"),
        SimulatedKey("two", latency=FAST, upstream="server"),
        SimulatedKey("three", latency=FAST, slots=1),
    ]

    async def main() -> dict[str, list[float]]:
        took: dict[str, list[float]] = {}
        async with make(Simulated(keys)) as router:

            async def one() -> None:
                reply = await router.chat("simulated/m", "hi")
                took.setdefault(reply.attempts[-1].route.key_id, []).append(round(reply.latency, 6))

            async with anyio.create_task_group() as group:
                for key_id in ("one", "two", "three"):
                    for other in ("one", "two", "three"):
                        if other != key_id:
                            router.remove_key("simulated", other)
                    group.start_soon(one)
                    await anyio.sleep(0.001)
                    for key in provider_keys:
                        if key.id != key_id:
                            router.add_key("simulated", key)
        return took

    provider_keys = Simulated(keys).keys
    took = virtual(main)
    assert took == {"one": [1.0], "two": [1.999], "three": [1.0]}


def test_who_waits_too_long_for_a_slot_has_a_timeout_and_leaves_no_slot_taken() -> None:
    provider = Simulated([SimulatedKey("one", latency=Latency(10.0), slots=1)])

    async def main() -> tuple[float, float]:
        async with make(provider) as router, anyio.create_task_group() as group:
            group.start_soon(router.chat, "simulated/m", "hi")
            await anyio.sleep(1.0)
            began = anyio.current_time()
            with pytest.raises(ProviderTimeoutError):
                await router.chat("simulated/m", "hi", timeout=Timeout(total=5.0, attempt=2.0))
            waited = anyio.current_time() - began
            await anyio.sleep_until(10.0)
            after = (await router.chat("simulated/m", "hi")).latency
        return round(waited, 3), round(after, 3)

    waited, after = virtual(main)
    assert 2.0 <= waited <= 5.0
    assert after == 10.0


def test_a_request_that_fails_at_once_needs_no_slot() -> None:
    fault = Fault("status", status=400, first=2, last=2)

    async def main() -> int | None:
        provider = Simulated([SimulatedKey("one", latency=FAST, slots=1, faults=[fault])])
        async with make(provider) as router, anyio.create_task_group() as group:
            group.start_soon(router.chat, "simulated/m", "hi")
            await anyio.sleep(0.5)
            with pytest.raises(Exception, match="400"):
                await router.chat("simulated/m", "hi")
        return provider.journal[1].status

    assert virtual(main) == 400


# -- pace and prompt caches ------------------------------------------------------------------------------------------


def test_a_pace_changes_the_whole_law_over_time() -> None:
    law = Latency(1.0, tokens_per_second=10, pace=lambda seconds: 1.0 if seconds < 100 else 3.0)
    key = SimulatedKey("one", latency=law, output_tokens=(10, 10))

    async def main() -> list[float]:
        async with make(Simulated([key], clock=LoopClock())) as router:
            early = await at_once(router, 1)
            await anyio.sleep_until(200.0)
            return early + await at_once(router, 1)

    assert virtual(main) == [2.0, 6.0]


def test_a_law_without_a_pace_is_the_same_at_any_time() -> None:
    law = Latency(1.0, sigma=0.5, tokens_per_second=20)
    assert law.at(1e6) is law
    assert law.at(0.0, first_token=0.5) == Latency(0.5, sigma=0.5, tokens_per_second=20)
    assert law.mean(40) == pytest.approx(math.exp(0.125) + 2.0)


def test_a_prompt_is_warm_on_the_key_that_answered_it_for_ten_minutes() -> None:
    key = SimulatedKey("one", latency=FAST, warm=0.25)

    async def main() -> list[float]:
        async with make(Simulated([key], clock=LoopClock())) as router:
            took = await at_once(router, 1, prompt_cache_key="a")
            took += await at_once(router, 1, prompt_cache_key="a")
            took += await at_once(router, 1, prompt_cache_key="b")
            took += await at_once(router, 1)
            await anyio.sleep(601.0)
            return took + await at_once(router, 1, prompt_cache_key="a")

    assert virtual(main) == [1.0, 0.25, 1.0, 1.0, 1.0]


def test_the_real_server_keeps_pace_too() -> None:
    clock = FakeClock()
    law = Latency(0.02, pace=lambda seconds: 1.0 + seconds)
    with SimulatedMistral([SimulatedKey("sk-one", latency=law)], clock=clock) as server:
        body = {"model": "mistral-small-latest", "messages": [{"role": "user", "content": "hi"}]}
        for _ in range(2):
            headers = {"authorization": "Bearer sk-one"}
            httpx.post(f"{server.base_url}/v1/chat/completions", json=body, headers=headers).raise_for_status()
            clock.advance(5.0)
        took = [request.ended_after or 0.0 for request in server.requests]
    assert took[0] >= 0.019
    assert took[1] >= 0.119


# -- paired draws ----------------------------------------------------------------------------------------------------


def answers(*keys: str, paired: bool, seeds: tuple[int, ...]) -> list[tuple[float, str]]:
    """Latency and text of calls one after the other over some keys, by the calls' seeds."""
    law = Latency(1.0, sigma=0.5)

    async def main() -> list[tuple[float, str]]:
        found: dict[int, tuple[float, str]] = {}
        async with make(Simulated([SimulatedKey(key, latency=law) for key in keys], paired=paired)) as router:
            for seed in seeds:
                reply = await router.chat("simulated/m", "hi", random_seed=seed)
                found[seed] = (round(reply.latency, 9), reply.text)
        return [found[seed] for seed in sorted(found)]

    return virtual(main)


def test_paired_draws_go_by_the_requests_own_seed() -> None:
    first = answers("one", paired=True, seeds=(1, 2, 3))
    assert first == answers("two", paired=True, seeds=(3, 1, 2))
    assert len(set(first)) == 3
    assert first != answers("one", paired=False, seeds=(1, 2, 3))


def test_whether_a_fault_strikes_a_paired_request_depends_on_key_and_seed() -> None:
    fault = Fault("status", status=400, probability=0.5)

    def struck(key: str, seeds: list[int]) -> set[int]:
        async def main() -> set[int]:
            failed: set[int] = set()
            async with make(Simulated([SimulatedKey(key, faults=[fault])], paired=True)) as router:
                for seed in seeds:
                    try:
                        await router.chat("simulated/m", "hi", random_seed=seed)
                    except Exception:
                        failed.add(seed)
            return failed

        return virtual(main)

    seeds = list(range(40))
    assert struck("one", seeds) == struck("one", seeds[::-1])
    assert struck("one", seeds) != struck("two", seeds)
    assert 10 < len(struck("one", seeds)) < 30


# -- outlooks --------------------------------------------------------------------------------------------------------


def test_an_outlook_is_the_law_and_the_faults_that_hold_now() -> None:
    faults = [
        Fault("slow", factor=3.0, start=10.0, end=20.0),
        Fault("status", status=503, delay=0.5, probability=0.25, start=30.0, end=40.0),
        Fault("hang", start=50.0),
    ]
    clock = FakeClock()
    key = SimulatedKey("one", latency=Latency(1.0, tokens_per_second=100), faults=faults)
    provider = Simulated([key], clock=clock)

    def look() -> Outlook:
        return provider.outlook("one", "m", output_tokens=100)

    healthy = Outlook(seconds=2.0, failure=0.0, failure_seconds=0.0, refused_for=0.0, in_flight=0)
    assert look() == healthy
    clock.advance(15.0)
    assert look().seconds == 6.0
    clock.advance(20.0)
    assert (look().failure, look().failure_seconds, look().seconds) == (0.25, 0.5, 2.0)
    clock.advance(20.0)
    assert (look().failure, look().failure_seconds) == (1.0, math.inf)
    provider.heal()
    assert look() == healthy
    with pytest.raises(KeyError):
        provider.outlook("two", "m")


def test_an_outlook_knows_the_queue_the_limits_and_the_cache() -> None:
    keys = [
        SimulatedKey("one", latency=Latency(4.0), slots=1, warm=0.5),
        SimulatedKey("two", latency=FAST, requests_per_minute=1),
    ]

    async def main() -> tuple[Outlook, Outlook, Outlook]:
        provider = Simulated(keys, clock=LoopClock())
        async with make(provider) as router, anyio.create_task_group() as group:
            router.remove_key("simulated", "two")
            for _ in range(2):
                group.start_soon(router.chat, "simulated/m", "hi")
                await anyio.sleep(0.5)
            queued = provider.outlook("one", "m")
            router.add_key("simulated", provider.keys[1])
            router.remove_key("simulated", "one")
            await router.chat("simulated/m", "hi")
            limited = provider.outlook("two", "m")
            router.add_key("simulated", provider.keys[0])
            router.remove_key("simulated", "two")
            await router.chat("simulated/m", "hi", prompt_cache_key="a")
            warm = provider.outlook("one", "m", prompt_cache_key="a")
        return queued, limited, warm

    queued, limited, warm = virtual(main)
    # One second in: the first is done in 3 s, the second takes 4 s from then on, and so does the next.
    assert queued == Outlook(seconds=11.0, failure=0.0, failure_seconds=0.0, refused_for=0.0, in_flight=2)
    assert limited.refused_for == pytest.approx(59.0)
    assert warm.seconds == 2.0


# -- the loop's clock ------------------------------------------------------------------------------------------------


def test_a_loop_clock_shows_the_event_loops_time() -> None:
    async def main() -> tuple[float, float]:
        clock = LoopClock(wall=1000.0)
        began = clock()
        await anyio.sleep(3600.0)
        return clock() - began, clock.time()

    passed, wall = virtual(main)
    assert (passed, wall) == (3600.0, 4600.0)


def test_a_loop_clock_starts_after_1970() -> None:
    with pytest.raises(ValueError, match="wall"):
        LoopClock(wall=-1.0)
