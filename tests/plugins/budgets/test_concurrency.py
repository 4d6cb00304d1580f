"""Hundreds of calls at once on one budget: in one process and in four, on every store."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from bifrost_plugins.budgets import Budget, BudgetAlert, BudgetPlugin
from bifrost_plugins.budgets.money import pico_of, usd_of
from bifrost_plugins.stores import MemoryStore, RedisStore, SqliteStore, Store

from bifrost_core import BudgetExceededError, CallError, Kind, Price, PriceBook, Router, Usage
from bifrost_core.testing import Fault, Latency, Simulated, SimulatedKey

PRICE = Price(input="1", output="2")
MODEL = "simulated/small"
ZERO = Decimal(0)
ASK: dict[str, Any] = {"max_tokens": 100}
SCOPES: tuple[Any, ...] = ("router", "provider", "model", ("provider", "model"), "provider:simulated")
WORKER = Path(__file__).with_name("worker.py")


def simulated(*faults: Fault) -> Simulated:
    return Simulated([SimulatedKey("one", faults=faults)], prices={"small": PRICE}, journal_size=2_000)


def budgets(limit: Decimal, count: int) -> list[Budget]:
    return [Budget(limit, scope=scope) for scope in SCOPES[:count]]


def a_call() -> Decimal:
    """The upper bound of one call."""
    sim = simulated()
    bound = Router([sim], prices=PriceBook(sim.prices)).estimate(MODEL, "hello", **ASK).greatest
    assert bound is not None
    return bound


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
async def test_of_500_calls_at_once_exactly_100_are_admitted(count: int, make_store: Callable[[], Store]) -> None:
    sim = simulated(Fault("hold"))
    plugin = BudgetPlugin(make_store(), budgets(a_call() * 100, count))
    refused: list[Kind] = []
    cost = Decimal(0)

    async def one() -> None:
        nonlocal cost
        try:
            answer = await router.chat(MODEL, "hello", **ASK)
            cost += answer.cost or 0
        except BudgetExceededError as exc:
            refused.append(exc.kind)

    async with Router([sim], plugins=[plugin], prices=PriceBook(sim.prices)) as router:
        async with anyio.create_task_group() as tasks:
            for _ in range(500):
                tasks.start_soon(one)
            with anyio.fail_after(60):
                while len(sim.journal) + len(refused) < 500:
                    await anyio.sleep(0.01)
            states = await plugin.read("router", *(["provider:simulated"] if count > 1 else []))
            assert {(state.spent, state.left) for state in states} == {(ZERO, ZERO)}
            sim.heal()
        assert (len(sim.journal), refused) == (100, [Kind.BUDGET_EXCEEDED] * 400)
        states = await plugin.read("router", *(["provider:simulated"] if count > 1 else []))
        assert {(state.spent, state.held) for state in states} == {(cost, ZERO)}
        (row,) = await plugin.usage()
        assert (row.cost, row.calls) == (cost, 100)


@pytest.mark.parametrize("seed", range(12))
async def test_a_hard_budget_is_never_exceeded_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    faults = [
        Fault("status", status=500, probability=0.1),
        Fault("reset", probability=0.1),
        Fault("half_body", probability=0.1, stream=False),
        Fault("truncate", probability=0.1, stream=True),
    ]
    key = SimulatedKey("one", latency=Latency(0.002, tokens_per_second=5_000), faults=faults)
    sim = Simulated([key], prices={"small": PRICE}, seed=seed)
    limit = a_call() * rng.randrange(3, 9)
    alerts: list[tuple[str, float]] = []

    def note(alert: BudgetAlert) -> None:
        alerts.append((alert.scope, alert.threshold))

    made = [Budget(limit, scope=scope, clamp=rng.random() < 0.3) for scope in SCOPES[: rng.randrange(1, 6)]]
    plugin = BudgetPlugin(MemoryStore(), made, on_threshold=note)
    names = ["router", "provider:simulated", "model:simulated/small"]
    names = names[: min(len(made), 3)]

    async def one() -> None:
        with anyio.move_on_after(rng.choice([0.001, 0.01, 5])):
            try:
                if rng.random() < 0.5:
                    await router.chat(MODEL, "hello", **ASK)
                else:
                    async with router.stream(MODEL, "hello", **ASK) as stream:
                        async for _ in stream:
                            if rng.random() < 0.05:
                                break
            except CallError:
                pass

    async def watch() -> None:
        while True:
            for state in await plugin.read(*names):
                assert state.spent >= 0
                assert state.held >= 0
                assert state.spent + state.held <= limit
            await anyio.lowlevel.checkpoint()

    async with Router([sim], plugins=[plugin], prices=PriceBook(sim.prices)) as router:
        async with anyio.create_task_group() as watching:
            watching.start_soon(watch)
            async with anyio.create_task_group() as tasks:
                for _ in range(60):
                    tasks.start_soon(one)
            watching.cancel_scope.cancel()
        states = await plugin.read(*names)
        assert all(state.held == 0 for state in states)
        assert len({state.spent for state in states}) == 1
        billed = Decimal(sum(each.prompt_tokens + 2 * each.completion_tokens for each in sim.journal)) / 1_000_000
        assert billed <= states[0].spent <= limit
        (row,) = await plugin.usage(by=())
        assert row.cost == states[0].spent
    for (scope, _), times in Counter(alerts).items():
        # Of five budgets two are that provider's: every provider's own, and that of this one.
        assert times <= (2 if scope == "provider:simulated" and len(made) == len(SCOPES) else 1)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_of_500_calls_at_once_in_four_processes_exactly_100_are_admitted(
    kind: str, count: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = str(tmp_path / "shared.db") if kind == "sqlite" else request.getfixturevalue("valkey")
    prefix = tmp_path.name
    arguments = [sys.executable, str(WORKER), kind, address, prefix, str(a_call() * 100), str(count)]
    workers = [subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        admitted = [int(line(worker)) for worker in workers]  # all refused by now, or in flight
        assert sum(admitted) == 100
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        costs = [Decimal(line(worker)) for worker in workers]
        assert [worker.wait(30) for worker in workers] == [0] * 4
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()

    async def look() -> None:
        store: Store = SqliteStore(address) if kind == "sqlite" else RedisStore(address, prefix=prefix)
        plugin = BudgetPlugin(store, budgets(a_call() * 100, count))
        (state, *_) = await plugin.read("router")
        assert (state.spent, state.held) == (sum(costs, ZERO), ZERO)
        (row,) = await plugin.usage()
        assert (row.cost, row.calls) == (sum(costs), 100)

    anyio.run(look)


def line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    text = worker.stdout.readline().strip()
    assert text, "a worker ended early"
    return text


def test_a_million_charges_add_up_exactly() -> None:
    rng = random.Random(1)
    tokens = [rng.randrange(1, 10_000) for _ in range(1_000_000)]
    price = Price(input="0.123457")
    sample = tokens[:2_000]
    costs = [price.cost(Usage(input_tokens=count)) for count in sample]
    assert sum(pico_of(cost) for cost in costs if cost is not None) == sum(sample) * 123_457
    whole = sum(count * 123_457 for count in tokens)
    assert Fraction(usd_of(whole)) == Fraction(sum(tokens)) * Fraction("0.123457") / 1_000_000
    assert usd_of(pico_of(usd_of(whole))) == usd_of(whole)
