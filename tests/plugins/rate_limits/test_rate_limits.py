"""``RateLimitPlugin``: sliding windows that hold, with an exact time to wait."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest
from bifrost_plugins.rate_limits import RateLimit, RateLimitPlugin, plugin
from bifrost_plugins.rate_limits.limit import window_seconds
from bifrost_plugins.stores import Denied, Granted, Hold, MemoryStore, Store, StoreError
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import (
    Attempt,
    CallError,
    ConfigError,
    Kind,
    PluginError,
    RateLimitError,
    RefusedError,
    Request,
    Response,
    RetryPolicy,
    Router,
    hookimpl,
)
from bifrost_core.testing import FakeClock, Fault, Latency, Simulated, SimulatedKey, check_plugin

MODEL = "simulated/small"
TICK = 1 / 1024  # seconds that a float holds exactly, also since 1970


def limited(clock: FakeClock, *limits: RateLimit) -> RateLimitPlugin:
    return RateLimitPlugin(MemoryStore(clock=clock), limits)


def routed(*plugins: object, sim: Simulated | None = None, **options: Any) -> Router:
    return Router([sim or Simulated(["one"])], plugins=plugins, **options)


async def refusal(router: Router, **options: Any) -> RateLimitError:
    with pytest.raises(RateLimitError) as caught:
        await router.chat(options.pop("model", MODEL), "hello", **options)
    return caught.value


def test_it_has_the_hooks_it_needs() -> None:
    assert check_plugin(RateLimitPlugin()) == ["bifrost_reserve", "bifrost_attempt_finished", "bifrost_lifespan"]


async def test_the_window_slides_and_the_wait_is_exact() -> None:
    clock = FakeClock()
    async with routed(limited(clock, RateLimit(requests=3, per="1m"))) as router:
        for wait in (0, 10, 15):
            clock.advance(wait)
            await router.chat(MODEL, "hello")
        error = await refusal(router)
        assert (error.scope, error.kind, error.http_status, error.retry_after) == (
            "router",
            Kind.RATE_EXCEEDED,
            429,
            35.0,
        )
        assert "room in 35.000 s" in error.message
        clock.advance(35 - TICK)
        assert (await refusal(router)).retry_after == TICK
        clock.advance(TICK)
        await router.chat(MODEL, "hello")
        assert (await refusal(router)).retry_after == 10.0
        assert router.health()[0].state == "closed"


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), min_size=5, max_size=60), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_admission_is_that_of_an_exact_log(arrivals: list[tuple[int, int]], most: int) -> None:
    clock = FakeClock()

    async def main() -> None:
        log: list[float] = []
        async with routed(limited(clock, RateLimit(requests=most, per=30))) as router:
            for pause, times in arrivals:
                clock.advance(pause)
                for _ in range(times):
                    now = clock.time()
                    running = [at for at in log if at > now - 30]
                    if len(running) < most:
                        await router.chat(MODEL, "hello")
                        log.append(now)
                    else:
                        assert (await refusal(router)).retry_after == running[-most] + 30 - now

    anyio.run(main)


async def test_of_several_limits_the_longest_wait_is_told_and_it_is_enough() -> None:
    clock = FakeClock()
    limits = [
        RateLimit(requests=2, per="10s"),
        RateLimit(requests=3, per="1m"),
        RateLimit(requests=4, per="1h", scope="model"),
    ]
    async with routed(limited(clock, *limits)) as router:
        sent = [0.0]
        await router.chat(MODEL, "hello")
        for _ in range(12):
            try:
                await router.chat(MODEL, "hello")
            except RateLimitError as exc:
                clock.advance((exc.retry_after or 0) - TICK)
                assert (await refusal(router)).retry_after == TICK
                clock.advance(TICK)
                await router.chat(MODEL, "hello")  # exactly then it fits every one of them
            sent.append(clock.now)
        for per, most in ((10, 2), (60, 3), (3600, 4)):
            assert all(later - earlier >= per - 1e-6 for earlier, later in zip(sent, sent[most:], strict=False))


async def test_tokens_are_held_at_their_bound_and_settled_at_what_was_used() -> None:
    clock = FakeClock()
    sim = Simulated([SimulatedKey("one", output_tokens=(20, 20), faults=Fault("hold", last=1))])
    made = limited(clock, RateLimit(tokens=500, per="1m"))
    async with routed(made, sim=sim) as router:
        estimate = router.estimate(MODEL, "hello", max_tokens=300)
        assert estimate.input_upper is not None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: router.chat(MODEL, "hello", max_tokens=300))
            while not sim.journal:
                await anyio.sleep(0.01)
            error = await refusal(router, max_tokens=300)
            assert f"({estimate.input_upper + 300} used or held)" in error.message
            sim.heal()
        used = sim.journal[0].prompt_tokens + 20
        error = await refusal(router, max_tokens=500 - estimate.input_upper)
        assert f"({used} used or held)" in error.message
        assert error.retry_after == 60.0
        await router.chat(MODEL, "hello", max_tokens=300)


async def test_more_tokens_than_the_limit_itself_never_fit() -> None:
    async with routed(limited(FakeClock(), RateLimit(tokens=100))) as router:
        error = await refusal(router, max_tokens=300)
        assert error.retry_after is None
        assert "more than all of the limit" in error.message


async def test_without_an_output_limit_an_average_answer_is_held() -> None:
    clock = FakeClock()
    sim = Simulated([SimulatedKey("one", output_tokens=(20, 20))])
    async with routed(limited(clock, RateLimit(tokens=1_300)), sim=sim) as router:
        await router.chat(MODEL, "hello")  # 1,024 tokens as long as nothing is known
        for _ in range(8):
            await router.chat(MODEL, "hello")
        assert sum(each.prompt_tokens + each.completion_tokens for each in sim.journal) < 1_300


async def test_places_are_given_back_however_an_attempt_ends() -> None:
    key = SimulatedKey(
        "one", latency=0.05, faults=[Fault("status", status=500, first=2, last=2), Fault("hold", first=4)]
    )
    sim = Simulated([key])
    made = RateLimitPlugin(limits=[RateLimit(concurrency=1)])
    async with routed(made, sim=sim, retry=RetryPolicy(max_attempts=1)) as router:
        await router.chat(MODEL, "hello")
        with pytest.raises(CallError):
            await router.chat(MODEL, "hello")
        with anyio.move_on_after(0.01):
            await router.chat(MODEL, "hello")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: router.chat(MODEL, "hello"))
            while len(sim.journal) < 4:
                await anyio.sleep(0.01)
            error = await refusal(router)
            assert (error.message, error.retry_after) == (
                "router has 1 of 1 attempts in flight; wait for one to end",
                None,
            )
            sim.heal()
        await router.chat(MODEL, "hello")


async def test_a_stream_has_its_place_until_it_is_left() -> None:
    key = SimulatedKey("one", latency=Latency(0.01, tokens_per_second=50))
    async with routed(RateLimitPlugin(limits=[RateLimit(concurrency=1)]), sim=Simulated([key])) as router:
        async with router.stream(MODEL, "hello") as stream:
            async for _ in stream:
                await refusal(router)
                break
        await router.chat(MODEL, "hello")


async def test_a_call_counts_once_however_often_it_is_tried() -> None:
    clock = FakeClock()
    first = Simulated([SimulatedKey("one", faults=Fault("status", status=500))], name="first")
    second = Simulated(["two"], name="second")
    made = limited(
        clock, RateLimit(requests=2), RateLimit(requests=2, scope="provider"), RateLimit(requests=9, scope="model")
    )
    async with Router([first, second], plugins=[made], retry=RetryPolicy(backoff=0.001)) as router:
        for _ in range(2):
            response = await router.chat("first/small", "hello", fallbacks=["second/small"])
            assert [attempt.route.provider for attempt in response.attempts] == ["first", "first", "second"]
        error = await refusal(router, model="first/small", fallbacks=["second/small"])
        assert error.scope == "router"


async def test_a_limit_of_a_provider_sends_the_call_to_its_fallback() -> None:
    first, second = (Simulated(["one"], name=name) for name in ("first", "second"))
    made = RateLimitPlugin(limits=[RateLimit(requests=1, scope="provider")])
    async with Router([first, second], plugins=[made]) as router:
        providers = [
            (await router.chat("first/small", "hello", fallbacks=["second/small"])).route.provider for _ in range(2)
        ]
        assert providers == ["first", "second"]


async def test_every_caller_and_team_has_its_own(callers: object) -> None:
    made = RateLimitPlugin(
        limits=[
            RateLimit(requests=2, scope="team"),
            RateLimit(requests=1, scope="virtual_key"),
            RateLimit(requests=9, scope="team:search"),
        ]
    )
    async with routed(callers, made) as router:
        await router.chat(MODEL, "hello", virtual_key="search-1")
        assert (await refusal(router, virtual_key="search-1")).scope == "virtual_key:search-1"
        await router.chat(MODEL, "hello", virtual_key="search-2")
        assert (await refusal(router, virtual_key="search-3")).scope == "team:search"
        await router.chat(MODEL, "hello", virtual_key="adverts-1")
        await router.chat(MODEL, "hello")  # nobody's


class Caches:
    def __init__(self) -> None:
        self.answer: Response | None = None

    @hookimpl
    def bifrost_cached_response(self, request: Request) -> Response | None:
        return self.answer

    @hookimpl
    def bifrost_call_finished(self, record: Any) -> None:
        self.answer = record.response


async def test_what_a_cache_answers_takes_nothing() -> None:
    async with routed(Caches(), RateLimitPlugin(limits=[RateLimit(requests=1, tokens=5_000)])) as router:
        for _ in range(5):
            await router.chat(MODEL, "hello")


async def test_what_a_later_gate_refuses_takes_nothing() -> None:
    class Closed:
        shut = True

        @hookimpl
        def bifrost_reserve(self, attempt: Attempt) -> None:
            if self.shut:
                raise RefusedError("closed")

    gate = Closed()
    async with routed(RateLimitPlugin(limits=[RateLimit(requests=1, tokens=5_000, concurrency=1)]), gate) as router:
        for _ in range(3):
            with pytest.raises(RefusedError, match="closed"):
                await router.chat(MODEL, "hello")
        gate.shut = False
        await router.chat(MODEL, "hello")


async def test_a_failing_store_closes_and_leaves_nothing_behind() -> None:
    class Failing(MemoryStore):
        fails = True

        async def reserve(self, hold: Hold) -> Granted | Denied:
            answer = await super().reserve(hold)
            if self.fails:
                raise StoreError("the answer was lost")
            return answer

    store = Failing()
    async with routed(RateLimitPlugin(store, [RateLimit(requests=1, concurrency=1)])) as router:
        with pytest.raises(PluginError):
            await router.chat(MODEL, "hello")
        store.fails = False
        await router.chat(MODEL, "hello")
        assert await store.holds() == []


@pytest.mark.parametrize(
    "limit",
    [RateLimit(requests=100), RateLimit(concurrency=100), RateLimit(tokens=20_000, per="1h")],
    ids=["requests", "concurrency", "tokens"],
)
async def test_of_500_calls_at_once_exactly_so_many_are_admitted(
    limit: RateLimit, make_store: Callable[[], Store]
) -> None:
    sim = Simulated([SimulatedKey("one", faults=Fault("hold"))])
    made = RateLimitPlugin(make_store(), [limit])
    refused = 0

    async with routed(made, sim=sim) as router:
        bound = router.estimate(MODEL, "hello", max_tokens=100).input_upper
        assert bound is not None
        words = "x" * (200 - 100 - bound + len("hello"))  # 200 tokens at most

        async def one() -> None:
            nonlocal refused
            try:
                await router.chat(MODEL, words, max_tokens=100)
            except RateLimitError:
                refused += 1

        async with anyio.create_task_group() as tasks:
            for _ in range(500):
                tasks.start_soon(one)
            with anyio.fail_after(60):
                while len(sim.journal) + refused < 500:
                    await anyio.sleep(0.01)
            sim.heal()
        assert (len(sim.journal), refused) == (100, 400)


async def test_cancelled_anywhere_no_place_stays_taken() -> None:
    rng = random.Random(3)
    sim = Simulated([SimulatedKey("one", latency=Latency(0.002, tokens_per_second=5_000))])
    store = MemoryStore()
    async with routed(RateLimitPlugin(store, [RateLimit(concurrency=3, tokens=10**9)]), sim=sim) as router:

        async def one() -> None:
            with anyio.move_on_after(rng.choice([0, 0.001, 0.003, 1])):
                with suppress(RateLimitError):
                    await router.chat(MODEL, "hello")

        for _ in range(20):
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(one)
        assert await store.holds() == []
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(lambda: router.chat(MODEL, "hello"))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "requests"),
        ({"requests": -1}, "requests"),
        ({"tokens": 1.5}, "tokens"),
        ({"requests": 1, "per": "1M"}, "per"),
        ({"requests": 1, "per": "0s"}, "per"),
        ({"requests": 1, "per": 0}, "per"),
        ({"requests": 1, "per": True}, "per"),
        ({"requests": 1, "scope": "somebody"}, "scope"),
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RateLimit(**options)
    assert caught.value.field == field


def test_windows_are_written_as_times_or_seconds() -> None:
    assert [window_seconds(per) for per in ("10s", "1m", "2h", "1d", 0.5)] == [10, 60, 7_200, 86_400, 0.5]


def test_configuration_makes_the_plugin() -> None:
    made = plugin(limits=[{"requests": 5, "per": "10s", "scope": "team"}])
    assert repr(made) == "RateLimitPlugin(MemoryStore(), ['team: requests'])"
    with pytest.raises(ConfigError, match=r"limits\[0\]"):
        plugin(limits=[{"request": 5}])
