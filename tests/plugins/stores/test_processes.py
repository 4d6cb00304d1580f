"""Many calls at once, in one process and in four, and processes that are killed.

STORE_TEST_SCALE multiplies the number of processes that are killed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from bifrost_plugins.stores import (
    BucketState,
    Claim,
    Granted,
    Hold,
    HoldState,
    LedgerConflictError,
    MemoryStore,
    SqliteStore,
    Store,
)

from .conftest import Stores
from .worker import ESTIMATE, amount_of

SCALE = int(os.environ.get("STORE_TEST_SCALE", "1"))
SHARED = pytest.mark.parametrize("stores", ["sqlite", "redis"], indirect=True)
ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@contextmanager
def workers(number: int, *arguments: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have opened their store; gone at the end."""
    script = Path(__file__).with_name("worker.py")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", str(script), *arguments[each % len(arguments)]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for each in range(number)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


@pytest.mark.parametrize("budgets", [1, 2, 3, 4, 5])
async def test_of_500_calls_at_once_exactly_100_are_admitted(stores: Stores, budgets: int) -> None:
    granted = list[str]()
    claims = [Claim.counter(f"budget {each}", 10**16, limit=10**18) for each in range(budgets)]

    async def call(store: Store, name: str) -> None:
        if isinstance(await store.reserve(Hold(name, claims)), Granted):
            granted.append(name)

    async with stores() as store:
        async with anyio.create_task_group() as tasks:
            for number in range(500):
                tasks.start_soon(call, store, str(number))
        assert len(granted) == 100
        assert {(each.spent, each.held) for each in await store.read(claims)} == {(0, 10**18)}


@SHARED
@ON_ASYNCIO
@pytest.mark.parametrize("budgets", [1, 5])
async def test_four_processes_together_admit_exactly_100(stores: Stores, budgets: int) -> None:
    where, prefix = stores.shared("four")
    commands = [["admit", stores.engine, where, prefix, "125", str(budgets), f"p{each}"] for each in range(4)]
    with workers(4, *commands) as processes:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        granted = [int(process.stdout.readline()) for process in processes if process.stdout is not None]
    assert sum(granted) == 100
    async with stores("four") as store:
        claims = [Claim.counter(f"budget {each}", 0, limit=None) for each in range(budgets)]
        assert {(each.spent, each.held) for each in await store.read(claims)} == {(0, 10**18)}


@SHARED
@ON_ASYNCIO
async def test_killed_processes_lose_nothing_acknowledged_and_leave_no_hold(stores: Stores) -> None:
    """Kills 10 processes (times STORE_TEST_SCALE) of five at a time, at random moments."""
    rng = random.Random(7)
    said = list[str]()
    where, prefix = stores.shared("killed")
    for batch in range(2 * SCALE):
        commands = [["churn", stores.engine, where, prefix, f"p{batch}.{each}", "0.2"] for each in range(5)]
        with workers(5, *commands) as processes:
            for process in processes:
                await anyio.sleep(rng.uniform(0.0, 0.06))
                process.kill()
                assert process.stdout is not None
                said += process.stdout.readlines()
    steps = {kind: {line.split()[1] for line in said if line.startswith(kind + " ") and line.endswith("\n")}
             for kind in ("reserving", "reserved", "settled")}  # fmt: skip
    assert len(steps["settled"]) > 5 * SCALE  # they did work

    async with stores("killed") as store:
        expired = {}
        with anyio.fail_after(20):
            while await store.holds():
                for ended in await store.expire_due():
                    expired[ended.id] = ended
                await anyio.sleep(0.02)
        total = 0
        for hold_id in steps["reserving"]:
            amount = amount_of(int(hold_id.partition("-")[2]))
            if hold_id in expired:
                assert hold_id not in steps["settled"]
                ended = expired[hold_id]
                assert ended.amounts == ((ESTIMATE, 0) if ended.dispatched else (0, 0))
                total += ended.amounts[0]
                continue
            try:
                again = await store.settle(hold_id, [amount, 0])
            except LedgerConflictError:  # killed before the reservation took place, so nobody was told of it
                assert hold_id not in steps["reserved"]
            else:
                assert (again.state, again.repeated) == (HoldState.SETTLED, True)
                total += amount
        claims = [Claim.counter("money", 0, limit=None), Claim.places("places", limit=None)]
        assert await store.read(claims) == [BucketState("money", total, 0), BucketState("places", 0, 0)]


@SHARED
async def test_two_stores_on_the_same_data_see_each_other(stores: Stores) -> None:
    claim = Claim.counter("b", 60, limit=100)
    async with stores("pair") as one, stores("pair") as other:
        assert isinstance(await one.reserve(Hold("a", [claim])), Granted)
        assert not isinstance(await other.reserve(Hold("b", [claim])), Granted)
        await other.settle("a", [10])
        assert (await one.settle("a", [10])).repeated is True
        assert isinstance(await one.reserve(Hold("b", [claim])), Granted)


@SHARED
@ON_ASYNCIO
async def test_what_was_written_is_there_after_closing(stores: Stores) -> None:
    claim = Claim.counter("b", 60, limit=100)
    async with stores("again") as store:
        await store.reserve(Hold("a", [claim], labels={"model": "m"}))
        await store.put("k", b"v")
    async with stores("again") as store:
        assert (await store.settle("a", [10])).labels == {"model": "m"}
        assert await store.get("k") == b"v"


async def test_a_budget_is_spent_to_the_last_unit_by_updates_that_compete(stores: Stores) -> None:
    """Compare-and-set under contention: 40 tasks add 1 each to one value, and none is lost."""

    async def add(store: Store) -> None:
        while True:
            current = await store.get("n")
            if current is None:
                done = await store.put("n", b"1", if_absent=True)
            else:
                done = await store.put("n", str(int(current) + 1).encode(), expect=current)
            if done:
                return
            await anyio.lowlevel.checkpoint()

    async with stores() as store:
        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(add, store)
        assert await store.get("n") == b"40"


@pytest.mark.parametrize("stores", ["sqlite"], indirect=True)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@ON_ASYNCIO
async def test_the_child_of_a_fork_opens_a_connection_of_its_own(stores: Stores, tmp_path: Path) -> None:
    path = tmp_path / "forked.db"
    script = f"""
import anyio, os, sys
from bifrost_plugins.stores import Claim, Granted, Hold, SqliteStore
store = SqliteStore({str(path)!r})
claim = Claim.counter("b", 1, limit=4)
async def take(name):
    return isinstance(await store.reserve(Hold(name, [claim])), Granted)
assert anyio.run(take, "parent")
children = []
for number in range(5):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if anyio.run(take, f"child {{number}}") else 1)
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
assert sorted(codes) == [0, 0, 0, 1, 1], codes
assert not anyio.run(take, "parent again")
"""
    result = await anyio.run_process([sys.executable, "-W", "error", "-c", script], check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    async with SqliteStore(path) as store:
        assert await store.read([Claim.counter("b", 0, limit=None)]) == [BucketState("b", 0, 4)]


@ON_ASYNCIO
async def test_sums_are_exact_over_a_hundred_thousand_operations() -> None:
    rng = random.Random(3)
    total = 0
    claim = Claim.counter("b", 2**62, limit=None)
    async with MemoryStore() as store:
        for number in range(50_000):
            amount = rng.randrange(10**13)
            total += amount
            await store.reserve(Hold(str(number), [claim], dispatched=True))
            await store.settle(str(number), [amount])
        assert await store.read([claim]) == [BucketState("b", total, 0)]
