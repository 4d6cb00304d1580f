"""Calls in one situation, and what came of them."""

from __future__ import annotations

import math
import time
from typing import Any

import anyio
import attrs

from bifrost_core.testing import SimulatedMistral

from .clients import CLIENTS
from .situations import TEXT, Situation

__all__ = ["Outcome", "head", "row", "run"]


@attrs.frozen
class Outcome:
    """What came of a client's calls in a situation.

    Attributes:
        situation: Its name.
        stream: Whether streams were asked for.
        client: Who called.
        calls: How many calls.
        right: How many brought the whole answer.
        unnoticed: How many brought less and said nothing.
        requests: Requests that the service saw.
        times: Seconds of each call, ascending.
    """

    situation: str
    stream: bool
    client: str
    calls: int
    right: int
    unnoticed: int
    requests: int
    times: tuple[float, ...]

    def percentile(self, percent: float) -> float:
        """Seconds, by nearest rank."""
        return self.times[max(0, math.ceil(len(self.times) * percent / 100) - 1)]


async def run(situation: Situation, client: str, *, calls: int, in_flight: int, share: float | None) -> Outcome:
    """Make the calls against a simulated Mistral on loopback, by so many workers."""
    texts: list[str | None] = []
    times: list[float] = []

    def answer(body: dict[str, Any]) -> str:
        last = body["messages"][-1]
        said = last["content"] if last["role"] == "assistant" else ""
        return TEXT[len(said) :]

    healthy = [attrs.evolve(key, faults=()) for key in situation.keys(share)]
    with SimulatedMistral(healthy, answer=answer, journal_size=10 * calls) as server:
        async with CLIENTS[client](server.base_url) as ask:
            left = iter(range(calls))

            async def warm() -> None:
                await ask(situation.stream)

            async def work() -> None:
                for _ in left:
                    began = time.monotonic()
                    try:
                        texts.append(await ask(situation.stream))
                    except Exception:  # any failure of either client counts the same
                        texts.append(None)
                    times.append(time.monotonic() - began)

            async with anyio.create_task_group() as group:
                for _ in range(in_flight):
                    group.start_soon(warm)
            server.reset()
            for key in situation.keys(share):
                for fault in key.faults:
                    server.fail(str(key.id), fault)
            async with anyio.create_task_group() as group:
                for _ in range(in_flight):
                    group.start_soon(work)
        requests = sum(counters.requests for counters in server.counters.values())
    return Outcome(
        situation.name,
        situation.stream,
        client,
        calls,
        texts.count(TEXT),
        sum(text is not None and text != TEXT for text in texts),
        requests,
        tuple(sorted(times)),
    )


def head() -> str:
    """The first lines of the table, in Markdown."""
    return (
        "| fault | client | right | cut, unnoticed | p50 + ms | p99 + ms | requests a call |\n"
        "|---|---|---:|---:|---:|---:|---:|"
    )


def row(outcome: Outcome, calm: Outcome) -> str:
    """An outcome as a line of the table; latencies beyond those of ``calm``, when nothing fails."""
    extra = [(outcome.percentile(percent) - calm.percentile(percent)) * 1000 for percent in (50, 99)]
    return (
        f"| {outcome.situation} | {outcome.client} | {outcome.right / outcome.calls:.1%} "
        f"| {outcome.unnoticed / outcome.calls:.1%} | {extra[0]:.0f} | {extra[1]:.0f} "
        f"| {outcome.requests / outcome.calls:.2f} |"
    )
