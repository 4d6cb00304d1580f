"""Bounds of the store in memory, and threads."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import attrs
import pytest
from bifrost_plugins.stores import (
    Claim,
    Granted,
    Hold,
    LedgerConflictError,
    MemoryStore,
    StoreError,
    _memory_tables,
    base,
    memory,
)
from bifrost_plugins.stores._ledger import Ledger
from bifrost_plugins.stores._memory_tables import MemoryLedger, MemoryTables
from hypothesis import given, settings
from hypothesis import strategies as st

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
    monkeypatch.setattr(_memory_tables, "MAX_CORRECTIONS", 2)
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


NAMES = st.sampled_from(["a", "b", "c"])
CLAIMS = st.lists(
    st.one_of(
        st.builds(
            lambda name, limit, marks: Claim.counter(name, 1, limit=limit, thresholds=marks),
            NAMES,
            st.sampled_from([None, 5, 40, 2**63 - 1]),
            st.sampled_from([(), (4, 8), (20,)]),
        ),
        st.builds(lambda name, limit: Claim.counter(f"r{name}", 1, limit=limit, rolling=60), NAMES, st.integers(0, 40)),
        st.builds(
            lambda name, day: Claim.counter(f"d{name}", 1, limit=30, epoch=day * 100 + 1, ends_at=day * 100 + 101.0),
            NAMES,
            st.integers(0, 3),
        ),
        st.builds(lambda name: Claim.window(name, 1, limit=9, seconds=50), NAMES),
        st.builds(lambda name: Claim.places(name, limit=3), NAMES),
    ),
    max_size=4,
    unique_by=lambda claim: (claim.kind, claim.bucket),
)
AMOUNTS = st.sampled_from([0, 1, 3, 9, 2**63 - 1])
STEPS: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.just("reserve"), st.integers(0, 5), CLAIMS, st.lists(AMOUNTS, min_size=4, max_size=4)),
    st.tuples(st.just("settle"), st.integers(0, 5), st.just([]), st.lists(AMOUNTS, min_size=4, max_size=4)),
    st.tuples(st.sampled_from(["release", "wait", "expire"]), st.integers(0, 5), st.just([]), st.just([])),
)


@settings(max_examples=300)
@given(steps=st.lists(STEPS, max_size=24))
def test_the_ledger_in_memory_comes_to_what_the_rules_come_to(
    steps: list[tuple[str, int, list[Claim], list[int]]],
) -> None:
    plain, quick = MemoryTables(), MemoryTables()
    ledgers = Ledger(plain, 4), MemoryLedger(quick, 4)
    now = 10.0
    sizes = dict[int, int]()

    def outcome(ledger: Ledger, step: tuple[str, int, list[Claim], list[int]]) -> object:
        what, number, claims, amounts = step
        try:
            if what == "reserve":
                taken = tuple(amounts[: len(claims)])
                return ledger.reserve(
                    Hold(str(number), claims, amounts=taken, labels={"team": "x"}, expires_in=70), now
                )
            if what == "settle":
                return ledger.settle(str(number), amounts[: sizes.get(number, 0)], {"attempts": number}, now)
            return ledger.release(str(number), now) if what == "release" else ledger.expire_due(now, 10)
        except (StoreError, LedgerConflictError) as exc:
            return type(exc), str(exc)

    for step in steps:
        if step[0] == "wait":
            now += 20.0 * step[1]
            continue
        before, after = (outcome(ledger, step) for ledger in ledgers)
        assert before == after
        if step[0] == "reserve" and isinstance(before, Granted):
            sizes[step[1]] = len(step[2])
    assert attrs.asdict(plain) == attrs.asdict(quick)
