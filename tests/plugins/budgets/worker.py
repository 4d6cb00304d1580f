"""One of several processes on one budget: makes calls at once, says how many are in flight, ends when told."""

from __future__ import annotations

import functools
import sys
from decimal import Decimal

import anyio
import anyio.to_thread
from bifrost_plugins.budgets import Budget, BudgetPlugin
from bifrost_plugins.stores import RedisStore, SqliteStore, Store

from bifrost_core import BudgetExceededError, Price, PriceBook, Router
from bifrost_core.testing import Fault, Simulated, SimulatedKey

CALLS = 125
SCOPES = ("router", "provider", "model", ("provider", "model"), "provider:simulated")


async def main(kind: str, address: str, prefix: str, limit: str, count: str) -> None:
    store: Store = SqliteStore(address, busy_timeout=20) if kind == "sqlite" else RedisStore(address, prefix=prefix)
    sim = Simulated([SimulatedKey("one", faults=Fault("hold"))], prices={"small": Price(input="1", output="2")})
    plugin = BudgetPlugin(store, [Budget(limit, scope=scope) for scope in SCOPES[: int(count)]])
    cost, refused = Decimal(0), 0

    async def one() -> None:
        nonlocal cost, refused
        try:
            answer = await router.chat("simulated/small", "hello", max_tokens=100)
            cost += answer.cost or 0
        except BudgetExceededError as exc:
            if exc.kind != "budget_exceeded":
                raise
            refused += 1

    async with Router([sim], plugins=[plugin], prices=PriceBook(sim.prices)) as router:
        async with anyio.create_task_group() as tasks:
            for _ in range(CALLS):
                tasks.start_soon(one)
            while len(sim.journal) + refused < CALLS:
                await anyio.sleep(0.01)
            sys.stdout.write(f"{len(sim.journal)}\n")
            sys.stdout.flush()
            await anyio.to_thread.run_sync(sys.stdin.readline)
            sim.heal()
    sys.stdout.write(f"{cost}\n")
    sys.stdout.flush()


anyio.run(functools.partial(main, *sys.argv[1:]))
