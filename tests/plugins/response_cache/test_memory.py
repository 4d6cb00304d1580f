"""Bounds of the memory: entries, bytes, time."""

from __future__ import annotations

from bifrost_plugins.response_cache._memory import Memory
from hypothesis import given
from hypothesis import strategies as st

from bifrost_core.testing import FakeClock


def test_the_least_recently_used_entry_goes_first() -> None:
    memory = Memory(2, 10_000, FakeClock())
    memory.put("a", b"1", 60)
    memory.put("b", b"2", 60)
    assert memory.find("a") == b"1"
    memory.put("c", b"3", 60)
    assert (memory.find("a"), memory.find("b"), memory.find("c")) == (b"1", None, b"3")
    assert memory.evicted == 1


def test_each_entry_has_a_lifetime_of_its_own() -> None:
    clock = FakeClock()
    memory = Memory(10, 10_000, clock)
    memory.put("long", b"1", 60)
    memory.put("short", b"2", 10)
    clock.advance(10)
    assert (memory.find("long"), memory.find("short")) == (b"1", None)
    assert memory.evicted == 0  # its time was up
    clock.advance(50)
    assert memory.find("long") is None
    assert (len(memory), memory.currsize) == (0, 0)


def test_what_is_greater_than_everything_is_not_kept_and_drives_nothing_out() -> None:
    memory = Memory(10, 1_000, FakeClock())
    assert memory.put("a", b"1", 60)
    assert not memory.put("b", b"x" * 1_000, 60)
    assert memory.find("a") == b"1"


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 400), st.integers(1, 30), st.integers(0, 5)), max_size=80))
def test_the_bounds_hold_whatever_is_put(steps: list[tuple[int, int, int, int]]) -> None:
    clock = FakeClock()
    memory = Memory(5, 2_000, clock)
    ends: dict[str, tuple[bytes, float]] = {}
    for key, size, ttl, pause in steps:
        clock.advance(pause)
        data = bytes([key]) * size
        memory.put(str(key), data, ttl)
        ends[str(key)] = (data, clock() + ttl)
        assert len(memory) <= 5
        assert memory.currsize <= 2_000
        for name, (kept, until) in ends.items():
            found = memory.find(name)
            assert found is None or (found == kept and clock() < until)
