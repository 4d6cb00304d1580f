"""``BudgetPlugin``: what it admits, refuses, clamps and books, on a real Router."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import anyio
import pytest
from bifrost_plugins.budgets import Budget, BudgetAlert, BudgetPlugin
from bifrost_plugins.stores import Denied, Granted, Hold, MemoryStore, StoreError
from bifrost_plugins.virtual_keys import VirtualKeyPlugin

from bifrost_core import (
    Attempt,
    BudgetExceededError,
    Call,
    CallError,
    Kind,
    Price,
    PriceBook,
    RefusedError,
    Router,
    hookimpl,
)
from bifrost_core.testing import FakeClock, Fault, Simulated, SimulatedKey, check_plugin

PRICES = {"small": Price(input="1", output="2"), "large": Price(input="10", output="20")}
MODEL = "simulated/small"


def service(*keys: SimulatedKey | str, **options: Any) -> Simulated:
    return Simulated(keys or ["one"], prices=options.pop("prices", PRICES), **options)


def routed(sim: Simulated, *plugins: object, **options: Any) -> Router:
    return Router([sim], plugins=plugins, prices=options.pop("prices", PriceBook(sim.prices)), **options)


async def spent(plugin: BudgetPlugin, *scopes: Any) -> list[tuple[Any, Any]]:  # Decimals, compared with ints too
    return [(state.spent, state.held) for state in await plugin.read(*scopes)]


def test_it_has_the_hooks_it_needs() -> None:
    assert check_plugin(BudgetPlugin()) == [
        "bifrost_reserve",
        "bifrost_attempt_finished",
        "bifrost_call_finished",
        "bifrost_lifespan",
    ]


# Admitting and booking.


async def test_a_call_is_booked_at_what_it_cost_and_nothing_stays_held() -> None:
    sim, plugin = service(), BudgetPlugin(budgets=[Budget("1.00")])
    async with routed(sim, plugin) as router:
        response = await router.chat(MODEL, "hello", max_tokens=100)
        assert await spent(plugin) == [(response.cost, 0)]
    (request,) = sim.journal
    assert response.cost == (request.prompt_tokens * 1 + request.completion_tokens * 2) / Decimal(1_000_000)


async def test_while_a_call_runs_its_upper_bound_is_held() -> None:
    sim, plugin = service(SimulatedKey("one", faults=Fault("hold"))), BudgetPlugin(budgets=[Budget("1.00")])
    async with routed(sim, plugin) as router:
        bound = router.estimate(MODEL, "hello", max_tokens=100).greatest
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: router.chat(MODEL, "hello", max_tokens=100))
            while not sim.journal:
                await anyio.sleep(0.01)
            assert await spent(plugin) == [(0, bound)]
            sim.heal()
        ((_, held),) = await spent(plugin)
        assert held == 0


async def test_too_little_left_is_refused_and_says_which_budget_and_when_it_turns() -> None:
    clock = FakeClock()  # 2026-01-01 00:00 UTC
    sim = service()
    plugin = BudgetPlugin(
        MemoryStore(clock=clock),
        [Budget("1.00"), Budget("0.0002", period="1d", calendar=True, time_zone="Asia/Tokyo", scope="model")],
        clock=clock,
    )
    async with routed(sim, plugin) as router:
        with pytest.raises(BudgetExceededError) as caught:
            await router.chat(MODEL, "hello", max_tokens=100)
        error = caught.value
        assert (error.kind, error.http_status) == (Kind.BUDGET_EXCEEDED, 402)
        assert (error.scope, error.spent, error.held, error.limit) == (
            "model:simulated/small",
            Decimal(0),
            Decimal(0),
            Decimal("0.0002"),
        )
        assert error.resets_in == error.retry_after == 15 * 3600  # midnight in Tokyo is 15:00 UTC
        assert "resets in 54000 s" in error.message
        assert error.attempts[0].outcome == "refused"
        assert sim.journal == ()
        assert await spent(plugin, "router", "model:simulated/small") == [(0, 0), (0, 0)]
        assert router.health()[0].state == "closed"


async def test_a_budget_that_turns_gives_its_amount_again() -> None:
    clock = FakeClock()
    plugin = BudgetPlugin(MemoryStore(clock=clock), [Budget("0.0003", period="1h", calendar=True)], clock=clock)
    async with routed(service(), plugin) as router:
        await router.chat(MODEL, "hello", max_tokens=100)
        with pytest.raises(BudgetExceededError):
            for _ in range(10):
                await router.chat(MODEL, "hello", max_tokens=100)
        clock.advance(3600)
        await router.chat(MODEL, "hello", max_tokens=100)


async def test_a_wall_clock_that_goes_back_enters_no_period_again() -> None:
    clock = FakeClock(wall=1_767_225_600.0 + 3_600)
    plugin = BudgetPlugin(MemoryStore(clock=clock), [Budget("1", period="1h", calendar=True)], clock=clock)
    async with routed(service(), plugin) as router:
        response = await router.chat(MODEL, "hello", max_tokens=100)
        clock.wall -= 1_800
        (state,) = await plugin.read()
        assert (state.spent, state.resets_at) == (response.cost, datetime(2026, 1, 1, 2, tzinfo=UTC))


async def test_every_caller_team_and_model_has_its_own(callers: object) -> None:
    sim = service()
    scopes = ["virtual_key", "team", "customer", ("team", "model"), "team:search", "provider"]
    plugin = BudgetPlugin(budgets=[Budget("1.00", scope=scope) for scope in scopes])
    async with routed(sim, callers, plugin) as router:
        costs: dict[str, Decimal] = {}
        for key, model in [("search-1", "small"), ("search-2", "large"), ("adverts-1", "small")]:
            response = await router.chat(f"simulated/{model}", "hello", max_tokens=100, virtual_key=key)
            assert response.cost is not None
            costs[key] = response.cost
        search = costs["search-1"] + costs["search-2"]
        everything = search + costs["adverts-1"]
        assert await spent(plugin, "virtual_key:search-1", "virtual_key:adverts-1") == [
            (costs["search-1"], 0),
            (costs["adverts-1"], 0),
        ]
        assert await spent(plugin, "team:search") == [(search, 0), (search, 0)]  # every team's, and this one's
        assert await spent(plugin, "customer:acme", "provider:simulated") == [(everything, 0), (everything, 0)]
        assert await spent(plugin, ("team:search", "model:simulated/large")) == [(costs["search-2"], 0)]


async def test_issued_keys_of_a_team_share_its_budget() -> None:
    store = MemoryStore()
    keys = VirtualKeyPlugin(store)
    await keys.add_customer("acme")
    await keys.add_team("search", customer="acme")
    ann, bob = [await keys.issue(name, team="search") for name in ("ann", "bob")]
    plugin = BudgetPlugin(store, [Budget("0.0006", scope=scope) for scope in ("virtual_key", "team", "customer")])
    async with routed(service(), keys, plugin) as router:
        first = await router.chat(MODEL, "hello", max_tokens=80, virtual_key=ann.secret)
        with pytest.raises(BudgetExceededError) as caught:
            for _ in range(10):
                await router.chat(MODEL, "hello", max_tokens=80, virtual_key=bob.secret)
        assert caught.value.scope in {"team:search", "customer:acme"}
        team, customer, own = await plugin.read("team:search", "customer:acme", f"virtual_key:{ann.id}")
        assert team.spent == customer.spent > own.spent == first.cost
        rows = await plugin.usage(by=("virtual_key",))
        assert sum(row.cost for row in rows) == team.spent
        assert len(rows) == 2


async def test_a_call_that_belongs_to_no_team_is_not_counted_for_one() -> None:
    plugin = BudgetPlugin(budgets=[Budget("0", scope="team"), Budget("1")])
    async with routed(service(), plugin) as router:
        response = await router.chat(MODEL, "hello", max_tokens=100)
        assert await spent(plugin) == [(response.cost, 0)]


async def test_one_budget_that_refuses_leaves_the_others_untouched(callers: object) -> None:
    plugin = BudgetPlugin(budgets=[Budget("1"), Budget("0.000001", scope="team"), Budget("1", scope="virtual_key")])
    async with routed(service(), callers, plugin) as router:
        with pytest.raises(BudgetExceededError) as caught:
            await router.chat(MODEL, "hello", max_tokens=100, virtual_key="search-1")
        assert caught.value.scope == "team:search"
        assert await spent(plugin, "router", "team:search", "virtual_key:search-1") == [(0, 0)] * 3


async def test_a_soft_budget_counts_and_refuses_nothing() -> None:
    alerts: list[BudgetAlert] = []
    plugin = BudgetPlugin(budgets=[Budget("0.00001", hard=False)], on_threshold=alerts.append)
    async with routed(service(prices={}), plugin, prices=PriceBook({MODEL: PRICES["small"]})) as router:
        costs = [(await router.chat(MODEL, "hello")).cost for _ in range(3)]  # without max_tokens
        assert await spent(plugin) == [(sum(cost for cost in costs if cost), 0)]
    assert [alert.threshold for alert in alerts] == [0.8, 1.0]


@pytest.mark.parametrize("scope", ["model", "provider", ("team", "model")], ids=str)
async def test_a_budget_of_a_model_sends_the_call_to_its_fallback(scope: Any, callers: object) -> None:
    first = Simulated(["one"], name="first", prices=PRICES)
    second = Simulated(["two"], name="second", prices=PRICES)
    named = {"model": "model:first/large", "provider": "provider:first"}.get(
        scope, ("team:search", "model:first/large")
    )
    plugin = BudgetPlugin(budgets=[Budget("0.0001", scope=named), Budget("1", scope=scope)])
    prices = PriceBook({**first.prices, **second.prices})
    async with Router([first, second], plugins=[callers, plugin], prices=prices) as router:
        response = await router.chat(
            "first/large", "hello", max_tokens=100, fallbacks=["second/small"], virtual_key="search-1"
        )
        assert response.route.provider == "second"
        assert [attempt.outcome for attempt in response.attempts] == ["refused", "ok"]


async def test_a_budget_of_the_caller_does_not_fall_back() -> None:
    first, second = Simulated(["one"], name="first", prices=PRICES), Simulated(["two"], name="second", prices=PRICES)
    plugin = BudgetPlugin(budgets=[Budget("0.0001")])
    async with Router([first, second], plugins=[plugin], prices=PriceBook({**first.prices, **second.prices})) as router:
        with pytest.raises(BudgetExceededError):
            await router.chat("first/large", "hello", max_tokens=100, fallbacks=["second/small"])
    assert first.journal == second.journal == ()


# Bounds: nothing goes out under a hard budget that could not be held to it.


async def test_without_an_output_limit_a_hard_budget_refuses_and_says_what_to_do() -> None:
    sim, plugin = service(), BudgetPlugin(budgets=[Budget("1.00")])
    async with routed(sim, plugin) as router:
        with pytest.raises(BudgetExceededError, match="set max_tokens"):
            await router.chat(MODEL, "hello")
    assert sim.journal == ()


async def test_a_configured_limit_is_sent_where_the_request_sets_none() -> None:
    sim = service(keep_bodies=True)
    plugin = BudgetPlugin(budgets=[Budget("1.00")], max_output=20)
    async with routed(sim, plugin) as router:
        await router.chat(MODEL, "hello")
        await router.chat(MODEL, "hello", max_tokens=30)
    assert [b'"max_tokens":20' in (r.body or b"") for r in sim.journal] == [True, False]
    assert sim.journal[0].completion_tokens <= 20


async def test_an_unknown_price_is_refused_unless_there_is_a_ceiling() -> None:
    sim = service(prices={})
    async with routed(sim, BudgetPlugin(budgets=[Budget("1.00")])) as router:
        with pytest.raises(BudgetExceededError, match="price of simulated/small is unknown"):
            await router.chat(MODEL, "hello", max_tokens=100)
    plugin = BudgetPlugin(budgets=[Budget("1.00")], ceiling=Price(input="10", output="30"))
    async with routed(sim, plugin) as router:
        response = await router.chat(MODEL, "hello", max_tokens=100)
        usage = response.usage
        assert await spent(plugin) == [(Decimal(usage.input_tokens * 10 + usage.output_tokens * 30) / 1_000_000, 0)]


async def test_a_price_without_its_output_part_bounds_nothing() -> None:
    plugin = BudgetPlugin(budgets=[Budget("1.00")])
    async with routed(service(prices={"small": Price(input="1")}), plugin) as router:
        with pytest.raises(BudgetExceededError, match="lacks a part"):
            await router.chat(MODEL, "hello", max_tokens=100)


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": "https://example.org/cat.png"}]}]


async def test_media_are_refused_or_held_at_what_is_configured() -> None:
    sim = service()
    async with routed(sim, BudgetPlugin(budgets=[Budget("1.00")])) as router:
        with pytest.raises(BudgetExceededError, match="unbounded"):
            await router.chat(MODEL, IMAGE, max_tokens=100)
    plugin = BudgetPlugin(budgets=[Budget("1.00")], unbounded="0.60")
    sim = service(SimulatedKey("one", faults=Fault("hold")))
    async with routed(sim, plugin) as router:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: router.chat(MODEL, IMAGE, max_tokens=100))
            while not sim.journal:
                await anyio.sleep(0.01)
            assert await spent(plugin) == [(0, Decimal("0.6"))]
            with pytest.raises(BudgetExceededError):
                await router.chat(MODEL, IMAGE, max_tokens=100)
            sim.heal()
        ((booked, held),) = await spent(plugin)
        assert (0 < booked < Decimal("0.01"), held) == (True, 0)


async def test_vectors_have_no_output_that_would_need_a_limit() -> None:
    plugin = BudgetPlugin(budgets=[Budget("0.001")], max_output=50)
    async with routed(service(prices={"vectors": Price(input="1")}), plugin) as router:
        response = await router.embed("simulated/vectors", ["one", "two"])
        assert await spent(plugin) == [(Decimal(response.usage.input_tokens) / 1_000_000, 0)]
        with pytest.raises(BudgetExceededError, match=r"has 0\.000"):
            await router.embed("simulated/vectors", ["one" * 400])


async def test_a_list_of_models_costs_nothing_and_is_not_counted() -> None:
    plugin = BudgetPlugin(budgets=[Budget("0")])
    async with routed(service(), plugin) as router:
        await router.models()
        assert await plugin.usage() == []


# Clamping.


@pytest.mark.parametrize("n", [1, 3])
async def test_what_is_left_decides_how_long_the_answer_may_be(n: int) -> None:
    sim = service(SimulatedKey("one", output_tokens=(5_000, 5_000)), keep_bodies=True)
    async with routed(sim) as router:
        prompt = router.estimate(MODEL, "hello", max_tokens=9_999, n=n).greatest
        assert prompt is not None
        limit = prompt - Decimal(9_999 * n * 2) / 1_000_000 + Decimal(50 * n * 2 + 1) / 1_000_000  # 50 tokens each
    plugin = BudgetPlugin(budgets=[Budget(limit, clamp=True)])
    async with routed(sim, plugin) as router:
        response = await router.chat(MODEL, "hello", max_tokens=9_999, n=n)
        (attempt,) = response.attempts
        assert (attempt.output_upper, response.usage.output_tokens) == (50 * n, 50 * n)
        ((booked, held),) = await spent(plugin)
        assert booked == response.cost
        assert (booked <= limit, held) == (True, 0)
    assert b'"max_tokens":50' in (sim.journal[-1].body or b"")


async def test_fewer_than_sixteen_tokens_are_not_worth_sending_for() -> None:
    sim = service()
    async with routed(sim) as router:
        exact = router.estimate(MODEL, "hello", max_tokens=16).greatest
        assert exact is not None
    for limit, is_sent in [(exact, True), (exact - Decimal("0.000001"), False)]:
        # A body with a longer number has more bytes, so the limit is asked for as it will be sent.
        plugin = BudgetPlugin(budgets=[Budget(limit, clamp=True)])
        async with routed(sim, plugin) as router:
            if is_sent:
                assert (await router.chat(MODEL, "hello", max_tokens=99)).attempts[0].output_upper == 16
            else:
                with pytest.raises(BudgetExceededError):
                    await router.chat(MODEL, "hello", max_tokens=99)


async def test_without_a_limit_a_clamping_budget_lends_what_the_tightest_has_left() -> None:
    sim = service(SimulatedKey("one", output_tokens=(5_000, 5_000)))
    plugin = BudgetPlugin(budgets=[Budget("1.00"), Budget("0.001", scope="model", clamp=True)])
    async with routed(sim, plugin) as router:
        first = await router.chat(MODEL, "hello")
        with pytest.raises(BudgetExceededError) as caught:
            for _ in range(20):
                await router.chat(MODEL, "hello")
        assert caught.value.scope == "model:simulated/small"
        ((booked, held),) = await spent(plugin, "model:simulated/small")
        assert first.usage.output_tokens > 400
        assert (booked <= Decimal("0.001"), held) == (True, 0)


async def test_a_budget_that_does_not_clamp_refuses_beside_one_that_does() -> None:
    plugin = BudgetPlugin(budgets=[Budget("0.0001"), Budget("1.00", scope="model", clamp=True)])
    async with routed(service(), plugin) as router:
        with pytest.raises(BudgetExceededError) as caught:
            await router.chat(MODEL, "hello", max_tokens=5_000)
        assert caught.value.scope == "router"


# Thresholds.


async def test_a_threshold_is_told_once_a_period() -> None:
    clock = FakeClock()
    alerts: list[tuple[str, float, datetime | None]] = []
    plugin = BudgetPlugin(
        MemoryStore(clock=clock),
        [Budget("0.0004", period="1h", calendar=True, hard=False, thresholds=(0.5, 1.0, 2.0))],
        on_threshold=lambda alert: alerts.append((alert.scope, alert.threshold, alert.since)),
        clock=clock,
    )
    async with routed(service(), plugin) as router:
        for _ in range(40):
            await router.chat(MODEL, "hello")
        hour = datetime(2026, 1, 1, tzinfo=UTC)
        assert alerts == [("router", part, hour) for part in (0.5, 1.0, 2.0)]
        clock.advance(3600)
        for _ in range(40):
            await router.chat(MODEL, "hello")
        assert alerts[3:] == [("router", part, hour + timedelta(hours=1)) for part in (0.5, 1.0, 2.0)]


async def test_a_callback_that_fails_harms_no_call(caplog: pytest.LogCaptureFixture) -> None:
    def fail(alert: BudgetAlert) -> None:
        raise RuntimeError(alert.scope)

    plugin = BudgetPlugin(budgets=[Budget("0.00001", hard=False)], on_threshold=fail)
    async with routed(service(), plugin) as router:
        assert (await router.chat(MODEL, "hello")).text
    assert "on_threshold failed" in caplog.text


# By hand.


async def test_an_override_holds_until_its_end_for_everybody_who_shares_the_store() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    here, there = (BudgetPlugin(store, [Budget("0.0001")], clock=clock) for _ in range(2))
    async with routed(service(), there) as router:
        with pytest.raises(BudgetExceededError):
            await router.chat(MODEL, "hello", max_tokens=100)
        await here.override("router", "1.00", clock.time() + 600)
        clock.advance(1)
        await router.chat(MODEL, "hello", max_tokens=100)
        assert (await there.read())[0].limit == 1
        clock.advance(600)
        with pytest.raises(BudgetExceededError):
            await router.chat(MODEL, "hello", max_tokens=100)
        await here.override("router", "2.00", datetime.fromtimestamp(clock.time() + 60, UTC))
        await here.override("router", None, clock.time())
        assert (await here.read())[0].limit == Decimal("0.0001")


async def test_a_correction_is_booked_with_its_reason_once() -> None:
    plugin = BudgetPlugin(budgets=[Budget("0.01")])
    async with routed(service(), plugin) as router:
        cost = (await router.chat(MODEL, "hello", max_tokens=100)).cost
        assert cost is not None
        for _ in range(2):
            await plugin.correct("router", delta="0.005", reason="invoice 12, ann", correction_id="inv-12")
        assert await spent(plugin) == [(cost + Decimal("0.005"), 0)]
        await plugin.correct("router", delta="-0.005", reason="invoice 12 was wrong, ann")
        await plugin.correct("router", to="0", reason="goodwill, ann")
        assert await spent(plugin) == [(0, 0)]
        reasons = [entry.reason for entry in await plugin.corrections()]
        assert reasons == ["goodwill, ann", "invoice 12 was wrong, ann", "invoice 12, ann"]


async def test_an_attempt_is_adjusted_to_the_bill_in_all_of_its_budgets() -> None:
    plugin = BudgetPlugin(budgets=[Budget("1"), Budget("1", scope="model"), Budget("1", scope="team")])
    async with routed(service(), plugin) as router:
        response = await router.chat(MODEL, "hello", max_tokens=100)
        await plugin.adjust(response.attempts[0].id, "0.25", reason="bill of May")
        assert await spent(plugin, "router", "model:simulated/small") == [(Decimal("0.25"), 0)] * 2
        assert len(await plugin.corrections()) == 2


async def test_changing_limit_zone_and_period_keeps_what_was_spent() -> None:
    store = MemoryStore()
    cost = Decimal(0)
    for budget in [
        Budget("1", period="1M", calendar=True),
        Budget("2", period="1M", calendar=True, time_zone="Asia/Tokyo"),
        Budget("2", period="1Q", calendar=True, fiscal_start=2),
        Budget("2"),
    ]:
        plugin = BudgetPlugin(store, [budget])
        async with routed(service(), plugin) as router:
            cost += (await router.chat(MODEL, "hello", max_tokens=100)).cost or 0
            assert await spent(plugin) == [(cost, 0)]


async def test_several_budgets_of_one_scope_are_told_apart_by_period_or_name() -> None:
    budgets = [Budget("5", period="1M"), Budget("1", period="1d"), Budget("4", period="1M"), Budget("3", name="x")]
    plugin = BudgetPlugin(budgets=budgets)
    async with routed(service(), plugin) as router:
        cost = (await router.chat(MODEL, "hello", max_tokens=100)).cost
        assert [(state.name, state.spent) for state in await plugin.read()] == [
            ("1M", cost),
            ("1d", cost),
            ("1M-2", cost),
            ("x", cost),
        ]
        await plugin.override("router", "9", 4e9, name="1d")
        assert [state.limit for state in await plugin.read()] == [5, 9, 4, 3]


# The store fails.


class Failing(MemoryStore):
    """A real store, of which a test may say that it can not be reached."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.reserving = self.ending = False
        self.forgets_answers = False

    async def reserve(self, hold: Hold) -> Granted | Denied:
        answer = await super().reserve(hold) if not self.reserving or self.forgets_answers else None
        if self.reserving or answer is None:
            raise StoreError("the disk is full")
        return answer

    async def settle(self, *arguments: Any) -> Any:
        ended = await super().settle(*arguments) if not self.ending or self.forgets_answers else None
        if self.ending:
            raise StoreError("the disk is full")
        return ended

    async def release(self, hold_id: str) -> Any:
        if self.ending:
            raise StoreError("the disk is full")
        return await super().release(hold_id)


@pytest.mark.parametrize("taken", [False, True], ids=["not-taken", "taken"])
async def test_a_failing_store_refuses_under_a_hard_budget_and_leaves_nothing_held(taken: bool) -> None:
    store = Failing()
    sim, plugin = service(), BudgetPlugin(store, [Budget("1"), Budget("1", scope="model", hard=False)])
    async with routed(sim, plugin) as router:
        store.reserving, store.forgets_answers = True, taken
        with pytest.raises(BudgetExceededError) as caught:
            await router.chat(MODEL, "hello", max_tokens=100)
        assert (caught.value.kind, caught.value.http_status) == (Kind.BUDGET_UNAVAILABLE, 503)
        assert sim.journal == ()
        store.reserving = False
        assert await store.holds() == []
        assert await spent(plugin) == [(0, 0)]


@pytest.mark.parametrize("taken", [False, True], ids=["not-taken", "taken"])
async def test_a_failing_store_admits_under_soft_budgets_counts_and_books_later(taken: bool) -> None:
    store = Failing()
    plugin = BudgetPlugin(store, [Budget("1", hard=False)])

    class Heals:
        @hookimpl
        def bifrost_attempt_finished(self) -> None:
            store.reserving = False

    async with routed(service(), plugin, Heals()) as router:
        store.reserving, store.forgets_answers = True, taken
        response = await router.chat(MODEL, "hello", max_tokens=100)
        assert plugin.unreserved == 1
        assert await spent(plugin) == [(response.cost, 0)]


@pytest.mark.parametrize("answered", [False, True], ids=["lost", "done-but-unanswered"])
async def test_what_could_not_be_settled_is_settled_later_and_stays_held_meanwhile(answered: bool) -> None:
    store = Failing()
    plugin = BudgetPlugin(store, [Budget("0.001")])
    async with routed(service(), plugin) as router:
        store.ending, store.forgets_answers = True, answered
        costs = [(await router.chat(MODEL, "hello", max_tokens=100)).cost]
        assert plugin.waiting == 1
        ((booked, held),) = await spent(plugin)
        assert (booked, held > 0) == ((costs[0], False) if answered else (0, True))
        store.ending = False
        with anyio.fail_after(5):
            while plugin.waiting:
                await anyio.sleep(0.02)
        assert await spent(plugin) == [(sum(cost for cost in costs if cost), 0)]


async def test_a_store_that_hangs_is_a_store_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(MemoryStore):
        async def reserve(self, hold: Hold) -> Granted | Denied:
            await anyio.sleep_forever()
            raise AssertionError

    monkeypatch.setattr("bifrost_plugins._holding.PATIENCE", 0.05)
    plugin = BudgetPlugin(Hanging(), [Budget("1")])
    async with routed(service(), plugin) as router:
        with pytest.raises(BudgetExceededError) as caught:
            await router.chat(MODEL, "hello", max_tokens=100)
        assert caught.value.kind is Kind.BUDGET_UNAVAILABLE


async def test_one_plugin_serves_one_router_at_a_time() -> None:
    plugin = BudgetPlugin(budgets=[Budget("1")])
    async with routed(service(), plugin):
        with pytest.raises(CallError, match="bifrost_lifespan failed"):
            async with routed(service(), plugin):
                pass
    async with routed(service(), plugin) as router:
        assert (await router.chat(MODEL, "hello", max_tokens=100)).text


# Attempts that never left, and plugins beside it.


class Refuses:
    @hookimpl
    def bifrost_reserve(self, attempt: Attempt) -> None:
        raise RefusedError("not on a Sunday")


async def test_a_later_gate_that_refuses_gives_everything_back() -> None:
    plugin = BudgetPlugin(budgets=[Budget("1")])
    async with routed(service(), plugin, Refuses()) as router:
        with pytest.raises(RefusedError):
            await router.chat(MODEL, "hello", max_tokens=100)
        assert await spent(plugin) == [(0, 0)]
        assert await plugin.usage() == []


async def test_a_call_cancelled_in_a_later_gate_was_not_sent_and_costs_nothing() -> None:
    class Waits:
        @hookimpl
        async def bifrost_reserve(self, call: Call) -> None:
            with anyio.CancelScope():
                await anyio.sleep(0.2)

    plugin = BudgetPlugin(budgets=[Budget("1")])
    async with routed(service(), plugin, Waits()) as router:
        with anyio.move_on_after(0.05):
            await router.chat(MODEL, "hello", max_tokens=100)
        assert await spent(plugin) == [(0, 0)]


async def test_the_clock_going_far_ahead_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    plugin = BudgetPlugin(budgets=[Budget("1")], clock=clock)
    await plugin.read()
    clock.wall += 7_200
    await plugin.read()
    assert "went forward by 7200 s" in caplog.text
