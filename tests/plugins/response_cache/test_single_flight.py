"""Of identical calls at one time one asks the provider."""

from __future__ import annotations

import random
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio.testing
from bifrost_plugins.response_cache import ResponseCachePlugin
from bifrost_plugins.response_cache._flights import Flights, Ticket, Turn

from bifrost_core import (
    CallError,
    ChatResponse,
    DeadlineExceededError,
    PriceBook,
    ProviderServerError,
    RefusedError,
    Response,
    RetryPolicy,
    Router,
    hookimpl,
)
from bifrost_core.cache_options import CacheMode, CacheOption
from bifrost_core.providers import Mistral
from bifrost_core.testing import Fault, Latency, Simulated, SimulatedKey, SimulatedMistral

from .conftest import MODEL, PRICES, slow_provider, until

ONCE = RetryPolicy(max_attempts=1)


def router_of(provider: Simulated, cache: ResponseCachePlugin, *others: object, **options: Any) -> Router:
    return Router([provider], plugins=[cache, *others], prices=PriceBook(provider.prices), **options)


async def test_a_stampede_of_1000_identical_calls_is_one_provider_request() -> None:
    provider, cache = slow_provider(1.0), ResponseCachePlugin()
    answers: list[ChatResponse] = []
    async with router_of(provider, cache) as router:

        async def ask() -> None:
            answers.append(await router.chat(MODEL, "hi"))

        async with anyio.create_task_group() as group:
            for _ in range(1_000):
                group.start_soon(ask)
    assert len(provider.journal) == 1
    assert len({answer.text for answer in answers}) == 1
    assert sorted(answer.cached for answer in answers) == [False] + [True] * 999
    assert len({id(answer.raw) for answer in answers}) == 1_000
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.stored, stats.waiting) == (999, 1, 1, 0)
    assert stats.waited > 0  # on a slow machine the last ones may come after the answer


async def test_a_stampede_on_a_real_server_is_one_request_too() -> None:
    with SimulatedMistral([SimulatedKey("sk-simulated-1", latency=1.0)]) as server:
        provider = Mistral(["sk-simulated-1"], base_url=server.base_url)
        async with Router([provider], plugins=[ResponseCachePlugin()]) as router, anyio.create_task_group() as group:
            for _ in range(1_000):
                group.start_soon(router.chat, "mistral/mistral-small-latest", "hi")
        assert len(server.requests) == 1


async def test_calls_that_differ_do_not_wait_for_each_other() -> None:
    provider, cache = slow_provider(), ResponseCachePlugin()
    async with router_of(provider, cache) as router, anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(router.chat, MODEL, str(number % 5))
    assert len(provider.journal) == 5
    assert cache.stats().waited == 15


async def test_a_leader_that_is_cancelled_hands_over_and_nobody_else_fails() -> None:
    provider, cache = slow_provider(1.0), ResponseCachePlugin()
    texts: list[str] = []
    async with router_of(provider, cache) as router:

        async def ask(scope: anyio.CancelScope) -> None:
            with scope:
                texts.append((await router.chat(MODEL, "hi")).text)

        scopes = [anyio.CancelScope() for _ in range(20)]
        async with anyio.create_task_group() as group:
            group.start_soon(ask, scopes[0])
            await until(lambda: len(provider.journal) == 1)
            for scope in scopes[1:]:
                group.start_soon(ask, scope)
            await until(lambda: cache.stats().waiting == 19)
            led = cache._flights.find(next(iter(cache._flights._by_key)))
            scopes[0].cancel()
            await until(lambda: len(provider.journal) == 2)
            assert cache._flights.find(next(iter(cache._flights._by_key))) is led
    assert len(texts) == 19
    assert len(set(texts)) == 1
    assert len(provider.journal) == 2
    assert (cache.stats().waiting, cache._flights._by_key) == (0, {})


async def test_a_follower_that_is_cancelled_leaves_the_others_waiting() -> None:
    provider, cache = slow_provider(0.2), ResponseCachePlugin()
    async with router_of(provider, cache) as router, anyio.create_task_group() as group:
        group.start_soon(router.chat, MODEL, "hi")
        await until(lambda: len(provider.journal) == 1)
        with anyio.move_on_after(0.02):
            await router.chat(MODEL, "hi")
        assert cache.stats().waiting == 0
        assert (await router.chat(MODEL, "hi")).cached
    assert len(provider.journal) == 1


async def test_a_failure_is_not_shared_and_the_provider_meets_no_herd() -> None:
    fault = Fault("status", status=500, last=2, delay=0.02)
    provider = Simulated([SimulatedKey("one", faults=fault, latency=0.02)], prices=PRICES)
    cache = ResponseCachePlugin()
    failed: list[CallError] = []
    answers: list[ChatResponse] = []
    most = 0

    class Watch:
        now = 0

        @hookimpl
        def bifrost_reserve(self) -> None:
            nonlocal most
            self.now += 1
            most = max(most, self.now)

        @hookimpl
        def bifrost_attempt_finished(self) -> None:
            self.now -= 1

    async with router_of(provider, cache, Watch(), retry=ONCE) as router:

        async def ask() -> None:
            try:
                answers.append(await router.chat(MODEL, "hi"))
            except ProviderServerError as exc:
                failed.append(exc)

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(ask)
    assert (len(failed), len(answers), len(provider.journal), most) == (2, 28, 3, 1)
    assert cache._flights._by_key == {}


async def test_an_answer_that_may_not_be_kept_lets_all_go_on_by_themselves() -> None:
    provider = slow_provider(0.05, answer=lambda body: {"content": "cut", "finish_reason": "length"})
    cache = ResponseCachePlugin()
    answers: list[ChatResponse] = []
    async with router_of(provider, cache) as router:

        async def ask() -> None:
            answers.append(await router.chat(MODEL, "hi"))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(ask)
    assert [answer.cached for answer in answers] == [False] * 20
    assert len(provider.journal) == 20
    assert cache.stats().stored == 0


async def test_a_follower_waits_no_longer_than_its_own_deadline() -> None:
    provider, cache = slow_provider(60), ResponseCachePlugin()
    async with router_of(provider, cache) as router, anyio.create_task_group() as group:
        group.start_soon(router.chat, MODEL, "hi")
        await until(lambda: len(provider.journal) == 1)
        with pytest.raises(DeadlineExceededError) as caught:
            await router.chat(MODEL, "hi", timeout=0.05)
        assert caught.value.attempts == ()
        group.cancel_scope.cancel()
    assert len(provider.journal) == 1


async def test_only_waits_for_a_call_in_flight_and_never_leads() -> None:
    provider = Simulated([SimulatedKey("one", latency=0.1, faults=Fault("status", status=500, first=2, delay=0.1))])
    cache = ResponseCachePlugin()
    got: list[Response | Exception] = []
    async with router_of(provider, cache, retry=ONCE) as router:

        async def ask(text: str, mode: str) -> None:
            try:
                got.append(await router.chat(MODEL, text, cache=mode))
            except CallError as exc:
                got.append(exc)

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "hi", "use")
            await until(lambda: len(provider.journal) == 1)
            group.start_soon(ask, "hi", "only")
        assert [each.cached for each in got if isinstance(each, Response)] == [False, True]
        got.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(ask, "ho", "use")
            await until(lambda: len(provider.journal) == 2)
            group.start_soon(ask, "ho", "only")
        assert [type(each) for each in got] == [ProviderServerError, RefusedError]
    assert len(provider.journal) == 2


async def test_there_is_a_bound_to_waiting() -> None:
    provider, cache = slow_provider(1.0), ResponseCachePlugin(max_waiting=3)
    async with router_of(provider, cache) as router, anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(router.chat, MODEL, "hi")
    assert len(provider.journal) == 1 + 6
    assert cache.stats().waited == 3


async def test_refresh_leads_and_others_get_its_answer() -> None:
    provider, cache = slow_provider(0.1), ResponseCachePlugin()
    async with router_of(provider, cache) as router, anyio.create_task_group() as group:
        group.start_soon(lambda: router.chat(MODEL, "hi", cache="refresh"))
        await until(lambda: len(provider.journal) == 1)
        assert (await router.chat(MODEL, "hi")).cached
        assert not (await router.chat(MODEL, "hi", cache="refresh")).cached
    assert len(provider.journal) == 2


# -- streams ------------------------------------------------------------------------------------


async def test_a_stream_is_kept_when_it_is_complete_and_replayed_as_chunks_and_as_a_whole() -> None:
    provider, cache = slow_provider(0.0), ResponseCachePlugin()
    async with router_of(provider, cache) as router:

        async def streamed() -> tuple[str, Any]:
            async with router.stream(MODEL, "hi") as stream:
                text = "".join([chunk.text async for chunk in stream])
            return text, stream.response

        first, second = await streamed(), await streamed()
        plain = await router.chat(MODEL, "hi")
        await router.chat(MODEL, "ho")
        _, replayed = await streamed_of(router, "ho")
    assert first[0] == second[0] == plain.text == second[1].text
    assert (first[1].cached, second[1].cached, plain.cached, replayed.cached) == (False, True, True, True)
    assert (second[1].cost, second[1].usage, second[1].finish_reason) == (0, first[1].usage, "stop")
    assert len(provider.journal) == 2


async def streamed_of(router: Router, text: str) -> tuple[str, Any]:
    async with router.stream(MODEL, text) as stream:
        said = "".join([chunk.text async for chunk in stream])
    return said, stream.response


async def test_streams_at_one_time_are_one_request_and_a_plain_call_waits_with_them() -> None:
    provider = slow_provider(0.1)
    got: list[str] = []
    async with router_of(provider, ResponseCachePlugin()) as router:

        async def stream() -> None:
            got.append((await streamed_of(router, "hi"))[0])

        async def plain() -> None:
            got.append((await router.chat(MODEL, "hi")).text)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(stream)
                group.start_soon(plain)
    assert len(provider.journal) == 1
    assert (len(got), len(set(got))) == (20, 1)


def test_nobody_waits_for_ever_for_a_stream_whose_reader_has_stopped() -> None:
    async def main() -> tuple[float, bool, int]:
        latency = Latency(0.1, tokens_per_second=50)
        provider = Simulated([SimulatedKey("one", latency=latency, output_tokens=(40, 40))], prices=PRICES)
        async with router_of(provider, ResponseCachePlugin(patience=3)) as router:
            async with router.stream(MODEL, "hi") as stream:
                await stream.__anext__()
                began = anyio.current_time()
                answer = await router.chat(MODEL, "hi")  # meanwhile nothing is read
                return anyio.current_time() - began, answer.cached, len(provider.journal)

    seconds, cached, requests = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert (cached, requests) == (False, 2)
    assert 3 <= seconds < 5


# -- the mechanism alone ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
async def test_no_wake_up_is_lost_and_one_alone_leads_whatever_happens(seed: int) -> None:
    """Random leaders that succeed, fail, may not be kept or are cancelled: nobody waits for ever."""
    rng = random.Random(seed)
    flights = Flights(1_000, patience=60)
    leading, most = 0, 0

    async def ask(scope: anyio.CancelScope, ticket: Ticket, fate: float) -> None:
        nonlocal leading, most
        with scope:
            try:
                flight = flights.find("k")
                if flight is not None:
                    turn = await flights.follow(flight, ticket)
                    assert turn is not Turn.LEAD or ticket.leads is flight
                elif ticket.may_lead:
                    flights.lead(ticket)
                if ticket.leads is not None:
                    leading += 1
                    most = max(most, leading)
                    try:
                        for _ in range(rng.randrange(4)):
                            await anyio.lowlevel.checkpoint()
                    finally:
                        leading -= 1
            finally:
                flight, ticket.leads = ticket.leads, None
                if flight is not None:
                    assert ticket.may_lead
                    if scope.cancel_called or fate < 0.5:
                        flights.hand_over(flight)
                    elif fate < 0.8:
                        flights.land(flight, b"answer")
                    else:
                        flights.scatter(flight)

    scopes = [anyio.CancelScope() for _ in range(12)]
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for scope in scopes:
                mode = CacheMode.ONLY if rng.random() < 0.2 else CacheMode.USE
                ticket = Ticket("k", "m", CacheOption(mode), may_lead=mode is not CacheMode.ONLY)
                group.start_soon(ask, scope, ticket, rng.random())
                for _ in range(rng.randrange(3)):
                    await anyio.lowlevel.checkpoint()
                if rng.random() < 0.4:
                    rng.choice(scopes).cancel()
    assert most == 1
    assert (flights.waiting, flights.find("k")) == (0, None)
