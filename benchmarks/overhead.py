"""What routing costs: ``Router.chat`` beside plain ``AsyncClient.post`` of the same HTTP library.

Both send the same JSON to one simulated Mistral in a process of its own and read the answer as JSON, in
rounds that take turns. CPU is that of this process per call, in microseconds; throughput is calls per
second of wall time. Read the ratios: the machine's speed cancels out of them.

    python -m benchmarks.overhead [--calls 400] [--rounds 5] [--concurrency 1 32 256] [--keys 10]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import anyio
import attrs
import httpx

from bifrost_core import Mistral, Router

__all__ = ["Figure", "main", "measure", "table"]

_SERVER: Final = """
import sys
from bifrost_core.testing import SimulatedKey, SimulatedMistral
keys = [SimulatedKey(secret) for secret in sys.argv[1:]]
with SimulatedMistral(keys, journal_size=10) as server:
    print(server.base_url, flush=True)
    sys.stdin.read()
"""
_MODEL: Final = "mistral-small-latest"
_MESSAGES: Final = [{"role": "user", "content": "word " * 160}]

Work = Callable[[int], Coroutine[Any, Any, None]]


@attrs.frozen
class Figure:
    """One way of calling at one concurrency: medians of the rounds.

    Attributes:
        name: Which way.
        concurrency: Calls in flight.
        cpu: Microseconds of CPU per call.
        rate: Calls per second.
    """

    name: str
    concurrency: int
    cpu: float
    rate: float


@contextmanager
def _server(secrets: Sequence[str]) -> Iterator[str]:
    """A simulated Mistral in a process of its own; gives its base URL."""
    with subprocess.Popen(  # noqa: S603 # this interpreter and a program from this file
        [sys.executable, "-c", _SERVER, *secrets], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101 # asked for above
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def _round(work: Work, concurrency: int, each: int) -> tuple[float, float]:
    """CPU microseconds per call and calls per second of one round."""
    cpu, wall = time.process_time(), time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(concurrency):
            group.start_soon(work, each)
    calls = concurrency * each
    return (time.process_time() - cpu) / calls * 1e6, calls / (time.perf_counter() - wall)


async def measure(*, calls: int, rounds: int, concurrency: Sequence[int], keys: int) -> list[Figure]:
    """Run the rounds; ``calls`` is the least number of calls in each."""
    secrets = [f"sk-simulated-{number:04d}" for number in range(keys)]
    figures: list[Figure] = []
    with _server(secrets) as base:
        url, headers = f"{base}/v1/chat/completions", {"authorization": f"Bearer {secrets[0]}"}
        body = {"model": _MODEL, "messages": _MESSAGES, "max_tokens": 20}
        async with httpx.AsyncClient(timeout=60) as client, Router([Mistral(secrets, base_url=base)]) as router:

            async def plain(times: int) -> None:
                for _ in range(times):
                    (await client.post(url, json=body, headers=headers)).json()

            async def routed(times: int) -> None:
                for _ in range(times):
                    await router.chat(f"mistral/{_MODEL}", _MESSAGES, max_tokens=20)

            ways: dict[str, Work] = {"httpx.AsyncClient.post": plain, "Router.chat": routed}
            for work in ways.values():
                await work(2 * keys)
            for level in concurrency:
                seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
                for _ in range(rounds):
                    for name, work in ways.items():
                        seen[name].append(await _round(work, level, max(1, calls // level)))
                figures.extend(
                    Figure(
                        name,
                        level,
                        statistics.median(cpu for cpu, _ in pairs),
                        statistics.median(rate for _, rate in pairs),
                    )
                    for name, pairs in seen.items()
                )
    return figures


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table; ratios are against the first way at the same concurrency."""
    lines = [
        "| in flight | way | CPU us a call | ratio | calls/s | ratio |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    base: dict[int, Figure] = {}
    for figure in figures:
        first = base.setdefault(figure.concurrency, figure)
        lines.append(
            f"| {figure.concurrency} | {figure.name} | {figure.cpu:.0f} | {figure.cpu / first.cpu:.2f} "
            f"| {figure.rate:.0f} | {figure.rate / first.rate:.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=400, help="calls in each round, at least")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--keys", type=int, default=10)
    options = parser.parse_args(arguments)

    async def run() -> list[Figure]:
        return await measure(
            calls=options.calls, rounds=options.rounds, concurrency=options.concurrency, keys=options.keys
        )

    print(table(anyio.run(run)))


if __name__ == "__main__":
    main()
