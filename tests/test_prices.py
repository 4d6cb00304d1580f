"""Prices and costs: exact decimals, unknown is None."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import Attempt, ConfigError, Price, PriceBook, RouteRef, Usage

SMALL = Price(input="0.15", output="0.6", cached_input="0.015")


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        pytest.param(SMALL, Usage(), "0", id="nothing"),
        pytest.param(SMALL, Usage(input_tokens=1), "0.00000015", id="one-token"),
        pytest.param(SMALL, Usage(input_tokens=1_000_000, output_tokens=1_000_000), "0.75", id="millions"),
        pytest.param(SMALL, Usage(input_tokens=100, cached_tokens=40), "0.0000096", id="cached-tokens-once"),
        pytest.param(Price(input="1"), Usage(input_tokens=10, cached_tokens=10), "0.00001", id="no-cached-price"),
        pytest.param(SMALL, Usage(input_tokens=5, cached_tokens=9), "0.000000075", id="more-cached-than-input"),
        pytest.param(Price(input=1, cached_input=0), Usage(input_tokens=9, cached_tokens=9), "0", id="free-is-0"),
        pytest.param(Price(per_page="0.004"), Usage(pages=3), "0.012", id="pages"),
        pytest.param(Price(per_audio_minute="0.003"), Usage(audio_seconds=90), "0.0045", id="audio"),
        pytest.param(
            Price(per_audio_minute="0.003"),
            Usage(audio_seconds=60, input_tokens=30, output_tokens=200),
            "0.003",
            id="tokens-of-a-transcription-are-free",
        ),
        pytest.param(
            Price(input="0.1", output="0.4", per_audio_minute="0.004"),
            Usage(audio_seconds=60, input_tokens=10, output_tokens=10),
            "0.004005",
            id="audio-in-chat-costs-both",
        ),
        pytest.param(Price(per_million_characters=16), Usage(characters=500), "0.008", id="characters"),
        pytest.param(Price(per_request="0.01"), Usage(requests=2), "0.02", id="requests"),
        pytest.param(Price(input="0.1"), Usage(input_tokens=7, requests=1), "0.0000007", id="embeddings"),
    ],
)
def test_what_usage_costs(price: Price, usage: Usage, cost: str) -> None:
    assert price.cost(usage) == Decimal(cost)


@pytest.mark.parametrize(
    ("price", "usage"),
    [
        pytest.param(Price(), Usage(input_tokens=1), id="no-price"),
        pytest.param(Price(input=1), Usage(output_tokens=1), id="no-output-price"),
        pytest.param(Price(output=1), Usage(input_tokens=1), id="no-input-price"),
        pytest.param(SMALL, Usage(pages=1), id="no-page-price"),
        pytest.param(SMALL, Usage(audio_seconds=1), id="no-audio-price"),
        pytest.param(SMALL, Usage(characters=1), id="no-character-price"),
    ],
)
def test_an_unknown_cost_is_none_and_never_0(price: Price, usage: Usage) -> None:
    assert price.cost(usage) is None


@settings(max_examples=200)
@given(
    st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**8), st.integers(0, 10**8), st.integers(0, 10**8)
)
def test_costs_are_exact(price_in: int, price_out: int, tokens_in: int, tokens_out: int, cached: int) -> None:
    price = Price(input=Decimal(price_in).scaleb(-6), output=Decimal(price_out).scaleb(-6), cached_input="0.123456")
    usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out, cached_tokens=cached)
    read = min(cached, tokens_in)
    expected = (
        Fraction(price_in, 10**6) * (tokens_in - read)
        + Fraction(price_out, 10**6) * tokens_out
        + Fraction("0.123456") * read
    ) / 10**6
    cost = price.cost(usage)
    assert cost is not None
    assert Fraction(cost) == expected


def test_a_million_costs_add_up() -> None:
    price = Price(input="0.1", output="0.3")
    one = price.cost(Usage(input_tokens=7, output_tokens=3))
    many = price.cost(Usage(input_tokens=7 * 10**6, output_tokens=3 * 10**6))
    assert one is not None
    assert many == one * 10**6


def test_the_hosts_decimal_context_does_not_change_a_cost() -> None:
    usage = Usage(input_tokens=123_456_789, output_tokens=987_654_321)
    with decimal.localcontext(decimal.Context(prec=3, traps=[])):
        cost = Price(input="0.123456", output="7.654321").cost(usage)
    assert cost == Decimal(123456789) * Decimal("0.000000123456") + Decimal(987654321) * Decimal("0.000007654321")


def test_an_odd_second_is_rounded_up_to_a_pico_dollar() -> None:
    assert Price(per_audio_minute="0.004").cost(Usage(audio_seconds=1)) == Decimal("0.000066666667")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(0.1, id="float"),
        pytest.param("-1", id="negative"),
        pytest.param("NaN", id="nan"),
        pytest.param("Infinity", id="infinite"),
        pytest.param("cheap", id="word"),
        pytest.param("0.0000001", id="seven-decimals"),
        pytest.param("1e30", id="absurd"),
        pytest.param([], id="list"),
    ],
)
def test_a_price_that_is_not_exact_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="price"):
        Price(input=value)


@pytest.mark.parametrize("value", ["0.4", Decimal("0.4")], ids=["str", "Decimal"])
def test_a_price_may_be_written_in_several_ways(value: Any) -> None:
    assert Price(input=value) == Price(input=Decimal("0.4"))
    assert Price(input=2) == Price(input="2")


# -- the book ------------------------------------------------------------------------------------------------------


def test_prices_of_ones_own_win_over_the_built_in_ones() -> None:
    built_in = PriceBook()
    book = PriceBook({"mistral/mistral-small-latest": Price(input=9), "mine/model": Price(input=1)})
    assert book.find("mistral", "mistral-small-latest") == Price(input=9)
    assert book.find("mine", "model") == Price(input=1)
    assert book.find("mistral", "mistral-large-latest") == built_in.find("mistral", "mistral-large-latest") is not None
    assert book.find("mistral", "unheard-of") is None
    assert book.find("openai", "mistral-small-latest") is None


def test_every_built_in_price_has_its_parts_and_cached_input_is_a_tenth() -> None:
    book = PriceBook()
    assert list(book.names()) == sorted(set(book.names()))
    assert len(book.names()) >= 15
    for name in book.names():
        provider, _, model = name.partition("/")
        price = book.find(provider, model)
        assert price is not None
        assert price != Price()
        if price.cached_input is not None:
            assert price.input is not None
            assert price.cached_input * 10 == price.input
        if price.output is not None:
            assert price.input is not None


@pytest.mark.parametrize(
    "prices",
    [{"small": Price(input=1)}, {"mistral/small": "0.4"}, {"mistral/small": {"input": "0.4"}}],
    ids=["no-provider", "text", "dict"],
)
def test_a_wrong_entry_is_refused_by_name(prices: Any) -> None:
    with pytest.raises(ConfigError, match="small"):
        PriceBook(prices)


# -- bounds --------------------------------------------------------------------------------------------------------


def attempt(price: Price | None, output_upper: int | None = 10) -> Attempt:
    return Attempt("a1", RouteRef("mistral", "small", "k1"), price=price, input_upper=100, output_upper=output_upper)


@pytest.mark.parametrize(
    ("made", "upper"),
    [
        pytest.param(attempt(SMALL), Decimal("0.000021"), id="known"),
        pytest.param(attempt(Price(input=1, output=0, per_request="0.5")), Decimal("0.5001"), id="with-a-fee"),
        pytest.param(attempt(None), None, id="no-price"),
        pytest.param(attempt(SMALL, None), None, id="no-limit"),
        pytest.param(attempt(Price(input=1)), None, id="no-output-price"),
        pytest.param(attempt(Price(input=1), 0), Decimal("0.0001"), id="no-output"),
        pytest.param(attempt(Price(per_page=1)), None, id="pages-have-no-bound"),
        pytest.param(attempt(Price(input=1, output=1, per_audio_minute=1)), None, id="audio-has-no-bound"),
    ],
)
def test_the_upper_bound_of_an_attempt(made: Attempt, upper: Decimal | None) -> None:
    assert made.cost_upper == upper


def test_the_smallest_output_limit_wins_and_only_while_reserving() -> None:
    made = attempt(SMALL, None)
    with pytest.raises(ConfigError, match="bifrost_reserve"):
        made.limit_output(5)
    made._reserving = True
    made.limit_output(50)
    made.limit_output(20)
    made.limit_output(30)
    assert (made.output_upper, made._limit) == (20, 20)
    with pytest.raises(ConfigError, match="at least 1"):
        made.limit_output(0)
