"""A process of its own that uses a shared store; started by the tests, which may kill it.

``python worker.py admit ENGINE WHERE PREFIX NUMBER BUDGETS ID``: when told on standard input, reserves at
once and prints how many were granted. ``python worker.py churn ENGINE WHERE PREFIX ID SECONDS``: reserves
and settles until it is killed and prints each step as it is acknowledged.
"""

from __future__ import annotations

import itertools
import sys

import anyio
import anyio.to_thread
from bifrost_plugins.stores import Claim, Granted, Hold, RedisStore, SqliteStore, Store

ESTIMATE = 7


def open_store(engine: str, where: str, prefix: str) -> Store:
    if engine == "sqlite":
        return SqliteStore(where, busy_timeout=30)
    return RedisStore(where, prefix=prefix, timeout=10)


def amount_of(number: int) -> int:
    """What the hold of this number settles with: whoever knows the id knows the amount."""
    return 10 + number % 13


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def admit(store: Store, number: int, budgets: int, name: str) -> None:
    """Reserve ``number`` times at once, each 1/100 of every budget."""
    granted = 0
    claims = [Claim.counter(f"budget {each}", 10**16, limit=10**18) for each in range(budgets)]

    async def one(each: int) -> None:
        nonlocal granted
        if isinstance(await store.reserve(Hold(f"{name}-{each}", claims)), Granted):
            granted += 1

    async with store:
        say("ready")
        await anyio.to_thread.run_sync(sys.stdin.readline)
        async with anyio.create_task_group() as tasks:
            for each in range(number):
                tasks.start_soon(one, each)
        say(granted)


async def churn(store: Store, name: str, expires_in: float) -> None:
    """Reserve and settle until killed."""
    async with store:
        say("ready")
        for number in itertools.count():
            hold_id = f"{name}-{number}"
            claims = [Claim.counter("money", 30, limit=None), Claim.places("places", limit=None)]
            hold = Hold(hold_id, claims, estimate=(ESTIMATE, 0), expires_in=expires_in, dispatched=number % 3 != 0)
            say("reserving", hold_id)
            await store.reserve(hold)
            say("reserved", hold_id)
            if number % 5:
                await store.settle(hold_id, [amount_of(number), 0], {"pico_usd": amount_of(number)})
                say("settled", hold_id)


def main(mode: str, engine: str, where: str, prefix: str, *rest: str) -> None:
    store = open_store(engine, where, prefix)
    if mode == "admit":
        anyio.run(admit, store, int(rest[0]), int(rest[1]), rest[2])
    else:
        anyio.run(churn, store, rest[0], float(rest[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
