"""What an attempt is charged by how it ended, and that the ledger covers what the provider bills."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest
import trio
import trio.testing
from bifrost_plugins.budgets import Budget, BudgetPlugin
from bifrost_plugins.budgets.charges import CHARGES, Basis, basis_of, is_counted
from bifrost_plugins.stores import MemoryStore

from bifrost_core import (
    Attempt,
    Call,
    CallError,
    ChatResponse,
    Kind,
    Mistral,
    Price,
    PriceBook,
    Request,
    Response,
    RetryPolicy,
    Router,
    RouteRef,
    Timeout,
    Usage,
    hookimpl,
)
from bifrost_core.kinds import FACTS
from bifrost_core.testing import FakeClock, Fault, Latency, Simulated, SimulatedKey, SimulatedMistral

PRICE = Price(input="1", output="2")
MODEL = "simulated/small"
ROUTE = RouteRef("simulated", "small", "one")


def billed(sim: Simulated | SimulatedMistral) -> Decimal:
    requests = sim.journal if isinstance(sim, Simulated) else sim.requests
    return Decimal(sum(each.prompt_tokens + 2 * each.completion_tokens for each in requests)) / 1_000_000


@asynccontextmanager
async def world(
    *keys: SimulatedKey, hard: bool = True, **options: Any
) -> AsyncIterator[tuple[Simulated, BudgetPlugin, Router]]:
    sim = Simulated(keys or ["one"], prices={"small": PRICE, "other": PRICE})
    plugin = BudgetPlugin(budgets=[Budget("10", hard=hard)])
    options.setdefault("retry", RetryPolicy(max_attempts=1))
    async with Router(
        [sim], plugins=[*options.pop("plugins", ()), plugin], prices=PriceBook(sim.prices), **options
    ) as router:
        yield sim, plugin, router


async def ledger(plugin: BudgetPlugin) -> tuple[Any, Any]:
    (state,) = await plugin.read()
    return state.spent, state.held


# The table.


def test_every_kind_of_failure_has_its_charge() -> None:
    assert set(CHARGES) == set(Kind)
    for kind, basis in CHARGES.items():
        if FACTS[kind].billed == "none" and kind not in (
            Kind.MODEL_OVERLOADED,
            Kind.GUARDRAIL_BLOCKED,
            Kind.PLUGIN_ERROR,
        ):
            assert basis is Basis.NOTHING, kind
        if FACTS[kind].billed in ("partial", "full"):
            assert basis in (Basis.PARTIAL, Basis.UNCERTAIN, Basis.ESTIMATED), kind


def ended(**how: Any) -> Attempt:
    return Attempt("a", ROUTE, **{"sent": True, "outcome": "failed", **how})


@pytest.mark.parametrize(
    ("attempt", "basis"),
    [
        (ended(outcome="refused"), Basis.NOTHING),
        (ended(outcome="cancelled", kind=Kind.CANCELLED, sent=False), Basis.NOTHING),
        (ended(outcome="cancelled", kind=Kind.CANCELLED), Basis.UNCERTAIN),
        (ended(outcome="cancelled", kind=Kind.CANCELLED, usage=Usage(input_tokens=3, output_tokens=1)), Basis.PARTIAL),
        (ended(outcome="ok", usage=Usage(input_tokens=3, output_tokens=1)), Basis.EXACT),
        (ended(outcome="ok", usage=Usage(pages=1)), Basis.EXACT),
        (ended(outcome="ok", usage=Usage(requests=1)), Basis.ESTIMATED),
        (ended(kind=Kind.RATE_LIMITED, status=429), Basis.NOTHING),
        (ended(kind=Kind.RATE_LIMITED, status=200), Basis.PARTIAL),
        (ended(kind=Kind.SERVER_ERROR, status=500), Basis.UNBILLED),
        (ended(kind=Kind.MODEL_OVERLOADED, status=503), Basis.UNBILLED),
        (ended(kind=Kind.SERVER_TIMEOUT, status=408), Basis.UNBILLED),
        (ended(kind=Kind.CONNECTION_LOST), Basis.UNCERTAIN),
        (ended(kind=Kind.CONNECT_ERROR, sent=False), Basis.NOTHING),
        (ended(kind=Kind.STREAM_TRUNCATED), Basis.PARTIAL),
        (ended(kind=None), Basis.UNCERTAIN),
    ],
    ids=str,
)
def test_the_basis_of_a_charge(attempt: Attempt, basis: Basis) -> None:
    assert basis_of(attempt) is basis


def test_what_was_counted_is_told_from_what_was_not() -> None:
    assert [is_counted(usage) for usage in (None, Usage(), Usage(requests=1), Usage(characters=2))] == [
        False,
        False,
        False,
        True,
    ]


# Faults of the wire. Under a hard budget what may have been billed is held on to.

WHOLE, ZERO = "whole hold", "nothing"


@pytest.mark.parametrize(
    ("fault", "charge"),
    [
        (Fault("status", status=400), ZERO),
        (Fault("status", status=401), ZERO),
        (Fault("status", status=429), ZERO),
        (Fault("status", status=500), ZERO),
        (Fault("status", status=503), ZERO),
        (Fault("reset"), WHOLE),
        (Fault("close"), WHOLE),
        (Fault("half_head"), WHOLE),
        (Fault("half_body"), WHOLE),
        (Fault("hang"), WHOLE),
        (Fault("garbage"), WHOLE),
        (Fault("html"), WHOLE),
        (Fault("empty"), WHOLE),
        (Fault("not_json"), WHOLE),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else str(value),
)
async def test_a_plain_call_that_fails_is_charged_by_what_may_have_been_billed(fault: Fault, charge: str) -> None:
    async with world(SimulatedKey("one", faults=fault)) as (sim, plugin, router):
        bound = router.estimate(MODEL, "hello", max_tokens=50).greatest
        with pytest.raises(CallError):
            await router.chat(MODEL, "hello", max_tokens=50, timeout=0.3)
        assert await ledger(plugin) == (bound if charge == WHOLE else 0, 0)
        assert billed(sim) <= (await ledger(plugin))[0]


async def test_under_a_soft_budget_alone_what_is_uncertain_is_estimated() -> None:
    async with world(SimulatedKey("one", faults=Fault("hang", first=2)), hard=False) as (_, plugin, router):
        await router.chat(MODEL, "hello", max_tokens=5_000)
        before, _ = await ledger(plugin)
        with pytest.raises(CallError):
            await router.chat(MODEL, "hello", max_tokens=5_000, timeout=0.2)
        after, held = await ledger(plugin)
        assert held == 0
        assert before / 2 < after - before < before * 3  # an average answer, not five thousand tokens
        (row,) = await plugin.usage()
        assert (row.cost, row.uncertain) == (after, after - before)


async def test_a_cancelled_call_is_charged_its_hold() -> None:
    async with world(SimulatedKey("one", latency=5.0)) as (_, plugin, router):
        bound = router.estimate(MODEL, "hello", max_tokens=50).greatest
        with anyio.move_on_after(0.1):
            await router.chat(MODEL, "hello", max_tokens=50)
        assert await ledger(plugin) == (bound, 0)


class NeverConnects:
    """An engine of a user's own that waits for a connection."""

    async def open(self, exchange: Any) -> Any:
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


async def test_a_cancelled_wait_for_a_connection_costs_nothing() -> None:
    plugin = BudgetPlugin(budgets=[Budget("1")])
    async with Router([Mistral(["sk-simulated-1"])], plugins=[plugin], engine=NeverConnects()) as router:
        with anyio.move_on_after(0.1):
            await router.chat("mistral/mistral-small-latest", "hello", max_tokens=50)
        assert await ledger(plugin) == (0, 0)


async def test_an_answer_without_a_count_is_charged_within_its_hold() -> None:
    sim = Simulated(["one"], prices={"small": PRICE})
    decode = sim.decode

    def uncounted(request: Request, reply: Any) -> Response:
        response = decode(request, reply)
        assert isinstance(response, ChatResponse)
        return attrs.evolve(response, usage=Usage(requests=1))

    sim.decode = uncounted  # type: ignore[method-assign] # an answer whose usage is lost
    plugin = BudgetPlugin(budgets=[Budget("1")])
    async with Router([sim], plugins=[plugin], prices=PriceBook(sim.prices)) as router:
        bound = router.estimate(MODEL, "hello", max_tokens=50).greatest
        assert (await router.chat(MODEL, "hello", max_tokens=50)).text
        assert await ledger(plugin) == (bound, 0)
    assert billed(sim) <= (bound or 0)


# Streams.

SLOW = Latency(0.01, tokens_per_second=200)


@pytest.mark.parametrize("after", [1, 3, 10])
async def test_a_stream_left_early_is_charged_for_what_had_arrived(after: int) -> None:
    async with world(SimulatedKey("one", latency=SLOW, output_tokens=(40, 40))) as (sim, plugin, router):
        bound = router.estimate(MODEL, "hello", max_tokens=500).greatest
        async with router.stream(MODEL, "hello", max_tokens=500) as stream:
            heard = 0
            async for _ in stream:
                heard += 1
                if heard == after:
                    break
        charged, held = await ledger(plugin)
        assert bound is not None
        assert held == 0
        assert billed(sim) <= charged < bound / 2
        (row,) = await plugin.usage()
        assert (row.calls, row.cost, row.uncertain) == (1, charged, charged)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("truncate", after=4),
        Fault("error_event", after=4),
        Fault("not_json", after=4),
        Fault("reset", after=4),
        Fault("hang", after=4),
        Fault("error_event", after=0),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.after}",
)
async def test_a_broken_stream_is_charged_for_what_had_arrived(fault: Fault) -> None:
    key = SimulatedKey("one", latency=SLOW, output_tokens=(40, 40), faults=fault)
    async with world(key, timeout=Timeout(first_token=0.5, idle=0.3)) as (sim, plugin, router):
        bound = router.estimate(MODEL, "hello", max_tokens=500).greatest
        assert bound is not None
        with pytest.raises(CallError):
            async with router.stream(MODEL, "hello", max_tokens=500) as stream:
                async for _ in stream:
                    continue
        charged, held = await ledger(plugin)
        assert held == 0
        assert billed(sim) <= charged < bound / 2


async def test_a_stream_that_is_read_to_its_end_is_charged_to_the_token() -> None:
    async with world() as (sim, plugin, router):
        async with router.stream(MODEL, "hello", max_tokens=500) as stream:
            async for _ in stream:
                continue
        assert await ledger(plugin) == (billed(sim), 0)


class LoopClock:
    """Seconds of the event loop, which may be virtual, as both clocks."""

    def __call__(self) -> float:
        return anyio.current_time()

    def time(self) -> float:
        return 1_767_225_600.0 + anyio.current_time()


def test_a_stream_of_an_hour_keeps_its_hold_and_is_settled_exactly() -> None:
    async def main() -> None:
        slow = SimulatedKey("one", latency=Latency(1.0, tokens_per_second=0.02), output_tokens=(72, 72))
        sim, clock = Simulated([slow], prices={"small": PRICE}), LoopClock()
        store = MemoryStore(clock=clock)
        plugin = BudgetPlugin(store, [Budget("1")], clock=clock)
        async with Router(
            [sim],
            plugins=[plugin],
            prices=PriceBook(sim.prices),
            timeout=Timeout(first_token=300, idle=300),
            clock=clock,
        ) as router:
            begun = anyio.current_time()
            async with router.stream(MODEL, "hello", max_tokens=500) as stream:
                async for chunk in stream:
                    if chunk.usage is None:
                        (hold,) = await store.holds()
                        assert hold.expires_at > clock.time()
            assert anyio.current_time() - begun > 3_000
            assert plugin._holder.open == 0
            assert await ledger(plugin) == (billed(sim), 0)
            (row,) = await plugin.usage()
            assert row.uncertain == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_hold_whose_process_died_is_charged_by_its_estimate_once() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    sim = Simulated([SimulatedKey("one", faults=Fault("hang"))], prices={"small": PRICE})
    dead = BudgetPlugin(store, [Budget("1", hard=True), Budget("1", scope="model", hard=False)], clock=clock)
    alerts: list[str] = []
    alive = BudgetPlugin(store, [Budget("1")], clock=clock, on_threshold=lambda alert: alerts.append(alert.scope))
    async with Router([sim], plugins=[dead], prices=PriceBook(sim.prices)) as router:
        bound = router.estimate(MODEL, "hello", max_tokens=50).greatest
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: router.chat(MODEL, "hello", max_tokens=50))
            while not sim.journal:
                await anyio.sleep(0.01)
            dead._holder.settle = dead._holder.release = _vanish  # type: ignore[method-assign,assignment] # a process that is gone
            tasks.cancel_scope.cancel()
    clock.advance(3_600)
    assert [ended.uncertain for ended in await store.expire_due()] == [True]
    hard, soft = await dead.read("router", "model:simulated/small")
    assert (hard.spent, hard.held, soft.held) == (bound, Decimal(0), Decimal(0))
    assert 0 < soft.spent <= hard.spent
    (row,) = await alive.usage()
    assert (row.cost, row.uncertain, row.calls) == (bound, bound, 1)


async def _vanish(*_: Any) -> None:
    """What a process does that is gone."""
    return await anyio.lowlevel.checkpoint()


# Retries, fallbacks, caches.


async def test_every_attempt_is_charged_on_its_own() -> None:
    broken = SimulatedKey("one", faults=Fault("half_body", last=1))
    sim = Simulated([broken], prices={"small": PRICE, "other": PRICE})
    plugin = BudgetPlugin(budgets=[Budget("10"), Budget("10", scope="model")])
    async with Router([sim], plugins=[plugin], prices=PriceBook(sim.prices), retry=RetryPolicy(backoff=0.01)) as router:
        bound = router.estimate(MODEL, "hello", max_tokens=50).greatest
        assert bound is not None
        response = await router.chat(MODEL, "hello", max_tokens=50, fallbacks=["simulated/other"])
        assert [attempt.outcome for attempt in response.attempts] == ["failed", "ok"]
        assert response.cost is not None
        both = bound + response.cost
        states = await plugin.read("router", "model:simulated/small", "model:simulated/other")
        second = response.route.model
        expected = {"small": (bound + response.cost, 0), "other": (bound, response.cost)}[second]
        assert [state.spent for state in states] == [both, *expected]
        rows = await plugin.usage(by=())
        assert [(row.calls, row.attempts, row.cost, row.uncertain) for row in rows] == [(1, 2, both, bound)]


class Remembers:
    """Answers the second call of its kind itself."""

    def __init__(self) -> None:
        self.answer: Response | None = None

    @hookimpl
    def bifrost_cached_response(self, request: Request) -> Response | None:
        return self.answer

    @hookimpl
    def bifrost_call_finished(self, record: Any) -> None:
        self.answer = record.response


async def test_an_answer_from_a_cache_takes_nothing() -> None:
    async with world(plugins=[Remembers()]) as (sim, plugin, router):
        await router.chat(MODEL, "hello", max_tokens=50)
        cached = await router.chat(MODEL, "hello", max_tokens=50)
        assert cached.cached
        assert await ledger(plugin) == (billed(sim), 0)
        (row,) = await plugin.usage()
        assert (row.calls, row.cached_calls, row.cost) == (1, 1, billed(sim))


async def test_a_retry_may_be_refused_by_the_budget() -> None:
    sim = Simulated([SimulatedKey("one", faults=Fault("reset"))], prices={"small": PRICE})
    async with Router([sim], prices=PriceBook(sim.prices)) as router:
        bound = router.estimate(MODEL, "hello", max_tokens=50).greatest
        assert bound is not None
    plugin = BudgetPlugin(budgets=[Budget(bound)])
    async with Router([sim], plugins=[plugin], prices=PriceBook(sim.prices), retry=RetryPolicy(backoff=0.01)) as router:
        with pytest.raises(CallError) as caught:
            await router.chat(MODEL, "hello", max_tokens=50)
        assert [attempt.kind for attempt in caught.value.attempts][-1] is Kind.BUDGET_EXCEEDED
        assert await ledger(plugin) == (bound, 0)


# Cancellation at every point.


def at_checkpoint(number: int, do: Callable[[], None]) -> Any:
    """A plugin whose hooks wait, and that counts the waits."""

    class Counts:
        def __init__(self) -> None:
            self.seen = 0

        async def wait(self) -> None:
            self.seen += 1
            if self.seen == number:
                do()
            await anyio.lowlevel.checkpoint()

        @hookimpl
        async def bifrost_reserve(self) -> None:
            await self.wait()

        @hookimpl
        async def bifrost_attempt_finished(self) -> None:
            await self.wait()

        @hookimpl
        async def bifrost_call_finished(self) -> None:
            await self.wait()

    return Counts()


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_cancelled_anywhere_nothing_stays_held(stream: bool) -> None:
    key = SimulatedKey("one", latency=Latency(0.002, tokens_per_second=2_000), output_tokens=(10, 10))
    sim = Simulated([key], prices={"small": PRICE})
    plugin = BudgetPlugin(budgets=[Budget("10"), Budget("10", scope="model")])
    outcomes = set[str]()

    class Watches:
        @hookimpl
        def bifrost_call_finished(self, record: Any, call: Call) -> None:
            outcomes.add(record.outcome)

    async with Router([sim], plugins=[Watches(), plugin], prices=PriceBook(sim.prices)) as router:
        for number in range(120):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:

                    async def cut(steps: int = number) -> None:
                        for _ in range(steps):
                            await anyio.lowlevel.checkpoint()
                        scope.cancel()

                    tasks.start_soon(cut)
                    if stream:
                        async with router.stream(MODEL, "hello", max_tokens=50) as chunks:
                            async for _ in chunks:
                                continue
                    else:
                        await router.chat(MODEL, "hello", max_tokens=50)
                    scope.cancel()
        states = await plugin.read("router", "model:simulated/small")
        assert [state.held for state in states] == [0, 0]
        assert plugin.waiting == 0
        assert billed(sim) <= states[0].spent == states[1].spent
        (row,) = await plugin.usage()
        assert row.cost == states[0].spent
    assert "cancelled" in outcomes


# Against what a real server bills.


async def test_the_ledger_covers_what_the_server_bills_over_mixed_calls() -> None:
    rng = random.Random(5)
    faults = [
        Fault("status", status=503, probability=0.1),
        Fault("half_body", probability=0.1, stream=False),
        Fault("reset", probability=0.1, after=3, stream=True),
        Fault("truncate", probability=0.1, stream=True),
    ]
    keys = [
        SimulatedKey(f"sk-simulated-{number}", latency=Latency(0.002, tokens_per_second=3_000), faults=faults)
        for number in (1, 2)
    ]
    exact = Decimal(0)
    async with SimulatedMistral(keys, seed=5) as server:
        provider = Mistral([key.secret for key in keys], base_url=server.base_url)
        plugin = BudgetPlugin(budgets=[Budget("100"), Budget("100", scope="provider")])
        prices = PriceBook({"mistral/mistral-small-latest": PRICE})
        async with Router([provider], plugins=[plugin], prices=prices, retry=RetryPolicy(backoff=0.001)) as router:

            async def one(number: int) -> None:
                nonlocal exact
                how = rng.random()
                words = "word " * rng.randrange(1, 60)
                try:
                    if how < 0.4:
                        response = await router.chat("mistral/mistral-small-latest", words, max_tokens=200)
                        exact += response.cost or 0
                    else:
                        async with router.stream("mistral/mistral-small-latest", words, max_tokens=200) as stream:
                            count = 0
                            async for _ in stream:
                                count += 1
                                if how > 0.8 and count == 5:
                                    break
                except CallError:
                    pass

            for batch in range(20):
                async with anyio.create_task_group() as tasks:
                    for number in range(10):
                        tasks.start_soon(one, batch * 10 + number)
            charged, held = await ledger(plugin)
            (row,) = await plugin.usage()
        assert held == 0
        assert billed(server) <= charged
        assert row.cost == charged
        assert charged - row.uncertain <= billed(server)  # what is certain was billed, and no more
        assert row.uncertain > 0
        assert exact > 0
