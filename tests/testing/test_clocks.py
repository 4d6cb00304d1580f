"""The clock that tests move."""

from __future__ import annotations

import math

import pytest

from bifrost_core.testing.clocks import FakeClock


def test_it_stands_still_until_it_is_moved() -> None:
    clock = FakeClock(now=5, wall=1_000)
    assert (clock(), clock(), clock.time()) == (5.0, 5.0, 1_000.0)


def test_advancing_moves_both_clocks_by_the_same_time() -> None:
    clock = FakeClock(now=5, wall=1_000)
    assert clock.advance(0.25) == 5.25
    assert (clock(), clock.time()) == (5.25, 1_000.25)
    assert clock.advance(0) == 5.25


def test_it_starts_at_a_plausible_date() -> None:
    assert FakeClock()() == 0.0
    assert FakeClock().time() == 1_767_225_600.0


@pytest.mark.parametrize("seconds", [-1e-9, -60, math.inf, math.nan], ids=str)
def test_it_never_goes_backwards_nor_to_infinity(seconds: float) -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="only moves forwards"):
        clock.advance(seconds)
    assert clock() == 0.0


def test_two_clocks_are_not_equal_because_they_show_the_same_time() -> None:
    assert FakeClock() != FakeClock()
