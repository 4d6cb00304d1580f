"""Bounds in whole pico-USD are the same as those of the prices in decimals."""

from __future__ import annotations

from decimal import Decimal

import attrs
from bifrost_plugins.budgets.bounds import affordable, upper_bound
from bifrost_plugins.budgets.money import pico_of
from bifrost_plugins.budgets.overrides import Overrides
from bifrost_plugins.budgets.plans import Plans
from bifrost_plugins.stores import MemoryStore
from hypothesis import given
from hypothesis import strategies as st

from bifrost_core import Attempt, Price, RouteRef
from bifrost_core.estimates import greatest_cost

PARTS = st.none() | st.decimals(0, 1_000, places=6)
PRICES = st.builds(
    Price,
    input=PARTS,
    output=PARTS,
    cached_input=PARTS,
    cache_write_input=PARTS,
    long_cache_write_input=PARTS,
    per_request=PARTS,
    per_page=PARTS,
)
TOKENS = st.integers(1, 1_000_000)


def attempt(input_upper: int | None, output_upper: int | None, choices: int = 1) -> Attempt:
    return Attempt("a", RouteRef("p", "m", "k"), input_upper=input_upper, output_upper=output_upper, choices=choices)


@given(PRICES, st.none() | TOKENS, st.none() | st.integers(0, 1_000_000))
def test_the_bound_is_the_greatest_cost(price: Price, prompt: int | None, output: int | None) -> None:
    cost = greatest_cost(price, prompt, output)
    assert upper_bound(price, attempt(prompt, output)) == (None if cost is None else pico_of(cost))


@given(
    st.builds(
        Price,
        input=PARTS,
        output=PARTS,
        cached_input=PARTS,
        cache_write_input=PARTS,
        long_cache_write_input=PARTS,
    ),
    TOKENS,
    st.integers(0, 10**15),
    st.integers(1, 5),
)
def test_what_is_affordable_fits_and_one_token_more_does_not(
    price: Price, prompt: int, room: int, choices: int
) -> None:
    made = attempt(prompt, None, choices)
    tokens = affordable(price, made, room)
    if tokens is None:
        assert not price.output or upper_bound(price, attempt(prompt, 0)) is None
        return
    least = upper_bound(price, attempt(prompt, 0))
    at, above = (upper_bound(price, attempt(prompt, count * choices)) for count in (tokens, tokens + 1))
    assert least is not None
    assert at is not None
    assert above is not None
    assert above > room
    assert at <= max(room, least)


def test_a_price_has_the_same_bound_in_any_context() -> None:
    price = Price(input="0.123456", output=Decimal("9.999999"))
    assert upper_bound(price, attempt(999_999, 777_777)) == 999_999 * 123_456 + 777_777 * 9_999_999


FAR = Price(input="1", output="2", long_context_from=100, long_context=Price(input="3", output="4"))


def test_a_prompt_that_may_be_long_is_bounded_by_the_price_of_a_long_one() -> None:
    assert upper_bound(FAR, attempt(100, 10)) == 100 * 1_000_000 + 10 * 2_000_000
    assert upper_bound(FAR, attempt(101, 10)) == 101 * 3_000_000 + 10 * 4_000_000
    assert affordable(FAR, attempt(101, None), 400_000_000) == (400 - 303) // 4


@given(PRICES, PRICES, st.integers(0, 1_000_000), TOKENS, st.integers(0, 1_000_000))
def test_the_bound_holds_for_a_long_context_too(near: Price, far: Price, start: int, prompt: int, output: int) -> None:
    price = attrs.evolve(near, long_context=far, long_context_from=start)
    bound, cost = upper_bound(price, attempt(prompt, output)), greatest_cost(price, prompt, output)
    assert bound is None or cost is None or bound >= pico_of(cost)
    assert bound is None or cost is not None


@given(PRICES, st.none() | PRICES, st.integers(0, 1_000_000), st.none() | TOKENS, st.none() | st.integers(0, 1_000_000))
def test_a_plan_knows_the_same_bound(
    near: Price, far: Price | None, start: int, prompt: int | None, output: int | None
) -> None:
    price = near if far is None else attrs.evolve(near, long_context=far, long_context_from=start)
    plan = Plans([], Overrides(MemoryStore())).find(None, RouteRef("p", "m", "k"), 0.0)
    assert plan.bound(price, attempt(prompt, output)) == upper_bound(price, attempt(prompt, output))
    assert plan.bound(None, attempt(prompt, output)) is None
