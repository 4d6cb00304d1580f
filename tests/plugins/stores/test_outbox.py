"""Ends of holds that a failing store does not take at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import anyio
import pytest
from bifrost_plugins.stores import (
    BucketState,
    Claim,
    Ended,
    Hold,
    HoldState,
    LedgerConflictError,
    MemoryStore,
    Outbox,
    StoreError,
)

from bifrost_core.testing import FakeClock

CLAIM = Claim.counter("b", 10, limit=100)


class Flaky(MemoryStore):
    """A store in memory that fails or hangs when told, before or after it has done its work."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        super().__init__(clock=self.clock)
        self.fails = 0
        self.after = False
        self.hangs = False
        self.asked = 0
        self.closed = 0

    async def settle(self, hold_id: str, amounts: Sequence[int], usage: Mapping[str, int] | None = None) -> Ended:
        self.asked += 1
        if self.hangs:
            await anyio.sleep_forever()
        fails, self.fails = self.fails > 0, max(0, self.fails - 1)
        if fails and not self.after:
            raise StoreError("away")
        ended = await super().settle(hold_id, amounts, usage)
        if fails:
            raise StoreError("the acknowledgement was lost")
        return ended

    async def aclose(self) -> None:
        self.closed += 1


async def reserve(store: MemoryStore, *names: str) -> None:
    for name in names:
        await store.reserve(Hold(name, [CLAIM], dispatched=True, estimate=(4,), expires_in=60))


async def test_a_store_that_works_is_asked_once() -> None:
    store = Flaky()
    await reserve(store, "a", "b")
    outbox = Outbox(store)
    assert await outbox.settle("a", [7], {"calls": 1}) == Ended("a", HoldState.SETTLED, (7,), dispatched=True)
    assert await outbox.release("b") == Ended("b", HoldState.RELEASED, (0,), dispatched=True)
    assert (outbox.waiting, store.asked) == (0, 1)
    with pytest.raises(LedgerConflictError):
        await outbox.settle("a", [8])


@pytest.mark.parametrize("after", [False, True], ids=["before the work", "after the work"])
async def test_what_the_store_did_not_take_is_tried_again_until_it_does(after: bool) -> None:
    store = Flaky()
    told = list[Ended]()
    done = anyio.Event()

    def tell(ended: Ended) -> None:
        told.append(ended)
        if len(told) == 2:
            done.set()

    await reserve(store, "a", "b")
    async with Outbox(store, on_ended=tell, first_wait=0.001) as outbox:
        store.fails, store.after = 4, after
        assert await outbox.settle("a", [7]) is None
        assert await outbox.settle("b", [8]) is None
        if not after:
            assert await store.read([CLAIM]) == [BucketState("b", 0, 20)]  # still held
        with anyio.fail_after(10):
            await done.wait()
        assert outbox.waiting == 0
    assert [(each.id, each.amounts) for each in told] == [("a", (7,)), ("b", (8,))]
    assert await store.read([CLAIM]) == [BucketState("b", 15, 0)]
    assert store.closed == 1


async def test_an_end_that_is_cancelled_is_not_forgotten() -> None:
    store = Flaky()
    await reserve(store, "a")
    outbox = Outbox(store)
    store.hangs = True
    with anyio.move_on_after(0.01):
        await outbox.settle("a", [7])
    assert outbox.waiting == 1
    store.hangs = False
    assert await outbox.flush(10) == 0
    assert await store.read([CLAIM]) == [BucketState("b", 7, 0)]


async def test_it_says_when_new_calls_are_to_be_refused() -> None:
    store = Flaky()
    await reserve(store, "a", "b", "c")
    outbox = Outbox(store, size=2)
    store.fails = 3
    await outbox.settle("a", [1])
    assert outbox.is_full is False
    await outbox.settle("b", [1])
    assert outbox.is_full is True
    await outbox.settle("c", [1])  # an end is never dropped: so many calls were open already
    assert outbox.waiting == 3
    assert await outbox.flush(10) == 0
    assert outbox.is_full is False


async def test_closing_tries_on_and_says_what_did_not_arrive(caplog: pytest.LogCaptureFixture) -> None:
    store = Flaky()
    await reserve(store, "a")
    with caplog.at_level(logging.WARNING, "bifrost_plugins.stores"):
        async with Outbox(store, flush_seconds=0.02, first_wait=0.005) as outbox:
            store.fails = 10**6
            await outbox.settle("a", [7])
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "1 ends of holds did not reach the store" in caplog.text
    assert outbox.waiting == 1
    store.clock.advance(60)
    assert [each.amounts for each in await store.expire_due()] == [(4,)]  # the estimate takes its place


async def test_a_refused_end_is_dropped_and_does_not_hold_up_others(caplog: pytest.LogCaptureFixture) -> None:
    store = Flaky()
    await reserve(store, "a", "b")
    outbox = Outbox(store)
    store.fails = 2
    await outbox.settle("a", [7])
    await outbox.settle("b", [8])
    await store.release("a")
    assert await outbox.flush(10) == 0
    assert "was refused and is dropped" in caplog.text
    assert await store.read([CLAIM]) == [BucketState("b", 8, 0)]


async def test_a_store_that_can_not_expire_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    done = anyio.Event()

    class Away(Flaky):
        async def expire_due(self, limit: int = 1_000) -> list[Ended]:
            self.asked += 1
            if self.asked == 2:
                done.set()
            raise StoreError("away")

    async with Outbox(Away(), expire_every=0.001):
        with anyio.fail_after(10):
            await done.wait()
    assert "could not be ended: away" in caplog.text


async def test_it_ends_holds_whose_time_has_run_out_and_tells_of_them(caplog: pytest.LogCaptureFixture) -> None:
    store = Flaky()
    told = list[str]()
    done = anyio.Event()

    def tell(ended: Ended) -> None:
        told.append(ended.id)
        done.set()
        raise ValueError("a listener's mistake is logged, not more")

    await reserve(store, "a")
    store.clock.advance(60)
    async with Outbox(store, on_ended=tell, expire_every=0.001):
        with anyio.fail_after(10):
            await done.wait()
    assert told == ["a"]
    assert await store.read([CLAIM]) == [BucketState("b", 4, 0)]
    assert "what was to be told" in caplog.text
