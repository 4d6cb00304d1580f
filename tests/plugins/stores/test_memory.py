"""Bounds of the store in memory, and threads."""

from __future__ import annotations

import threading

import anyio
import pytest
from bifrost_plugins.stores import Claim, Granted, Hold, LedgerConflictError, MemoryStore, StoreError, base, memory

from bifrost_core.testing import FakeClock


def counter(name: str, **more: float) -> Claim:
    return Claim.counter(name, 1, limit=10, **more)  # type: ignore[arg-type]


async def test_buckets_beyond_the_bound_are_refused_until_others_are_over() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    store._tables.max_buckets = 3
    claims = [counter("a", rolling=60), Claim.window("b", 1, limit=9, seconds=60), counter("c")]
    await store.reserve(Hold("1", claims))
    with pytest.raises(StoreError, match="takes no new one"):
        await store.reserve(Hold("2", [counter("c"), counter("d")]))
    assert await store.read([counter("c")]) == [base.BucketState("c", 0, 1)]  # all or nothing
    assert isinstance(await store.reserve(Hold("3", claims)), Granted)
    await store.release("1")
    await store.release("3")
    clock.advance(61)
    assert isinstance(await store.reserve(Hold("2", [counter("d"), counter("e")])), Granted)
    with pytest.raises(StoreError):
        await store.reserve(Hold("4", [counter("f")]))  # what never turns and what is held stays


async def test_results_are_remembered_a_day_and_up_to_the_bound() -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    store._tables.max_results = 3
    for number in range(5):
        await store.reserve(Hold(str(number), [counter("a")]))
        await store.settle(str(number), [1])
    with pytest.raises(LedgerConflictError, match="is not known"):
        await store.settle("1", [1])
    assert (await store.settle("2", [1])).repeated is True
    clock.advance(86_401)
    await store.reserve(Hold("later", [counter("b")]))
    await store.settle("later", [1])
    assert list(store._tables.done) == ["later"]


async def test_keys_beyond_the_bound_are_refused_until_others_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_KEYS", 2)
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    await store.put("a", b"1", ttl=10)
    await store.put("b", b"1")
    with pytest.raises(StoreError, match="takes no new one"):
        await store.put("c", b"1")
    assert await store.put("b", b"2") is True
    clock.advance(10)
    assert await store.put("c", b"1") is True


async def test_corrections_and_hours_of_usage_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_CORRECTIONS", 2)
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    for name in "abc":
        await store.correct(counter("x"), correction_id=name, reason="", delta=1)
    assert [each.id for each in await store.corrections()] == ["c", "b"]
    assert not store._tables.is_corrected("a")
    await store.reserve(Hold("1", [counter("x")]))
    await store.settle("1", [1], {"calls": 1})
    clock.advance(base.USAGE_HOURS * 3600)
    await store.reserve(Hold("2", [counter("x")]))
    await store.settle("2", [1], {"calls": 1})
    assert len(store._tables.cells) == 1


def test_threads_share_a_store() -> None:
    store = MemoryStore()
    claim = Claim.counter("b", 1, limit=1000)
    granted = list[str]()

    async def take(name: str) -> None:
        for number in range(400):
            if isinstance(await store.reserve(Hold(f"{name}-{number}", [claim])), Granted):
                granted.append(name)

    threads = [threading.Thread(target=anyio.run, args=(take, str(each))) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 1000
