"""A stream that is left early: it ends at once, or with ``drain`` is read on until it is known what was used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from trio.testing import MockClock

from bifrost_core import CallRecord, Router, hookimpl
from bifrost_core.testing import Latency, Simulated, SimulatedKey

MODEL = "simulated/small"
RATE = 20.0  # tokens per second


def talks(_body: Any) -> str:
    """More than anybody lets it say."""
    return "word " * 2000


class Watch:
    """Keeps the records of calls."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


def virtual(main: Callable[[], Awaitable[None]]) -> None:
    """Run in virtual time, in which only waiting takes any."""
    anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


async def leave_early(router: Router, tokens: int, **options: Any) -> float:
    """Leave a stream after its first words; returns how long leaving took."""
    async with router.stream(MODEL, "hi", max_tokens=tokens, **options) as stream:
        async for chunk in stream:
            if chunk.text:
                break
        before = anyio.current_time()
    return anyio.current_time() - before


def routed(watch: Watch) -> Router:
    key = SimulatedKey("k1", latency=Latency(0.1, tokens_per_second=RATE))
    return Router([Simulated([key], answer=talks)], plugins=[watch])


@pytest.mark.parametrize("drain", [True, False], ids=["drained", "cut"])
def test_what_was_used_is_the_providers_count_or_an_estimate(drain: bool) -> None:
    watch = Watch()

    async def main() -> None:
        async with routed(watch) as router:
            assert await leave_early(router, 100, drain=drain) == 0.0
            assert bool(watch.records) is not drain  # a drained call is settled later, by itself
            assert router._machinery.draining == drain
            await anyio.sleep(100 / RATE)
            assert router._machinery.draining == 0
            assert [route.in_flight for route in router.health()] == [0]

    virtual(main)
    (record,) = watch.records
    (attempt,) = record.attempts
    assert (record.outcome, record.kind, record.response) == ("cancelled", "cancelled", None)
    assert record.usage == attempt.usage
    if drain:
        assert (attempt.outcome, record.usage.output_tokens) == ("ok", 100)
    else:
        assert attempt.outcome == "cancelled"
        assert record.usage.output_tokens < 100


def test_it_is_read_on_for_ten_seconds_at_most() -> None:
    watch = Watch()

    async def main() -> None:
        async with routed(watch) as router:
            assert await leave_early(router, 1000, drain=True) == 0.0
            await anyio.sleep(9.9)
            assert watch.records == []
            await anyio.sleep(0.2)
            assert [route.in_flight for route in router.health()] == [0]

    virtual(main)
    (record,) = watch.records
    assert (record.outcome, record.attempts[0].outcome) == ("cancelled", "cancelled")
    assert 150 < record.usage.output_tokens < 1000


def test_no_more_than_thirty_two_are_read_on_at_once() -> None:
    watch = Watch()

    async def main() -> None:
        async with routed(watch) as router:

            async def drained() -> None:
                await leave_early(router, 100, drain=True)

            async with anyio.create_task_group() as group:
                for _ in range(40):
                    group.start_soon(drained)
            assert router._machinery.draining == 32
            assert len(watch.records) == 8  # these ended at once

    virtual(main)
    assert len(watch.records) == 40
    assert sum(record.attempts[0].outcome == "ok" for record in watch.records) == 32


def test_closing_the_router_waits_for_what_is_read_on() -> None:
    watch = Watch()

    async def main() -> None:
        async with routed(watch) as router:
            await leave_early(router, 60, drain=True)
        assert [record.attempts[0].outcome for record in watch.records] == ["ok"]

    virtual(main)


def test_a_stream_that_was_read_to_its_end_has_nothing_to_drain() -> None:
    watch = Watch()

    async def main() -> None:
        async with routed(watch) as router:
            async with router.stream(MODEL, "hi", max_tokens=20, drain=True) as stream:
                assert [chunk async for chunk in stream]
                assert stream.response.usage.output_tokens == 20
            assert [record.outcome for record in watch.records] == ["ok"]

    virtual(main)


async def test_a_cancelled_reader_leaves_one_that_is_read_on() -> None:
    watch = Watch()
    key = SimulatedKey("k1", latency=Latency(0.0, tokens_per_second=400.0))
    async with Router([Simulated([key], answer=talks)], plugins=[watch]) as router:
        with anyio.CancelScope() as scope:
            async with router.stream(MODEL, "hi", max_tokens=40, drain=True) as stream:
                await anext(stream)
                scope.cancel()
                await anyio.sleep(30)
        assert scope.cancelled_caught
    (record,) = watch.records
    assert (record.outcome, record.usage.output_tokens) == ("cancelled", 40)
