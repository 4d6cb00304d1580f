"""Prices and costs: exact decimals, unknown is None."""

from __future__ import annotations

import decimal
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import Attempt, ConfigError, Price, PriceBook, RouteRef, Usage
from bifrost_core.prices import built_in_table

SMALL = Price(input="0.15", output="0.6", cached_input="0.015")
CACHING = Price(input=3, output=15, cached_input="0.3", cache_write_input="3.75")
LONG = attrs.evolve(CACHING, long_cache_write_input=6)


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
        pytest.param(CACHING, Usage(input_tokens=100, cache_write_tokens=40), "0.00033", id="cache-writes-once"),
        pytest.param(Price(input="1"), Usage(input_tokens=9, cache_write_tokens=9), "0.000009", id="no-write-price"),
        pytest.param(
            CACHING, Usage(input_tokens=100, cached_tokens=30, cache_write_tokens=20), "0.000234", id="read-and-written"
        ),
        pytest.param(
            CACHING, Usage(input_tokens=10, cached_tokens=8, cache_write_tokens=8), "0.0000099", id="more-than-input"
        ),
        pytest.param(
            LONG,
            Usage(input_tokens=100, cached_tokens=30, cache_write_tokens=20, long_cache_write_tokens=5),
            "0.00024525",
            id="written-for-long-and-not",
        ),
        pytest.param(
            LONG,
            Usage(input_tokens=9, cache_write_tokens=4, long_cache_write_tokens=9),
            "0.000039",
            id="more-for-long-than-written",
        ),
        pytest.param(
            CACHING,
            Usage(input_tokens=100, cache_write_tokens=40, long_cache_write_tokens=40),
            "0.00033",
            id="no-price-for-long",
        ),
        pytest.param(
            Price(input="1"),
            Usage(input_tokens=9, cache_write_tokens=9, long_cache_write_tokens=9),
            "0.000009",
            id="no-write-price-at-all",
        ),
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
        pytest.param(
            Price(per_page="0.004", per_annotated_page="0.005"),
            Usage(pages=5, annotated_pages=2),
            "0.022",
            id="annotated-pages-once",
        ),
        pytest.param(
            Price(per_page="0.004", per_annotated_page="0.005"), Usage(pages=1, annotated_pages=4), "0.005", id="more"
        ),
        pytest.param(Price(per_page="0.004"), Usage(pages=1, input_tokens=900), "0.004", id="tokens-of-ocr-are-free"),
        pytest.param(Price(per_million_characters=16), Usage(characters=500), "0.008", id="characters"),
        pytest.param(SMALL, Usage(output_tokens=10, reasoning_tokens=7), "0.000006", id="reasoning-is-in-the-output"),
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
        pytest.param(Price(per_page=1), Usage(pages=1, annotated_pages=1), id="no-price-of-annotations"),
        pytest.param(Price(per_audio_minute=1), Usage(input_tokens=3, output_tokens=1), id="tokens-without-audio"),
        pytest.param(Price(output=1, per_audio_minute=1), Usage(audio_seconds=1, input_tokens=3), id="half-a-price"),
        pytest.param(SMALL, Usage(requests=1), id="answered-but-nothing-counted"),
        pytest.param(Price(cache_write_input=1, per_page=1), Usage(pages=1, input_tokens=3), id="writes-alone-priced"),
        pytest.param(Price(long_cache_write_input=1, per_page=1), Usage(pages=1, input_tokens=3), id="long-ones-alone"),
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
    book = PriceBook({"mistral/mistral-small-latest": Price(input=9), "mine/model": Price(input=1)})
    assert book.find("mistral", "mistral-small-latest") == Price(input=9)
    assert book.find("mine", "model") == Price(input=1)
    assert book.find("mistral", "mistral-large-latest") == built_in("mistral-large-latest")
    assert set(book.names()) == {*PriceBook().names(), "mine/model"}
    assert list(book.names()) == sorted(book.names())
    assert book.find("mistral", "unheard-of") is None
    assert book.find("openai", "mistral-small-latest") is None


GUESTS = ("deepseek-", "zai-")  # models of other makers have cached prices of their own
ONE_UNIT = {
    "input": Usage(input_tokens=1),
    "cached_input": Usage(input_tokens=1, cached_tokens=1),
    "cache_write_input": Usage(input_tokens=1, cache_write_tokens=1),
    "long_cache_write_input": Usage(input_tokens=1, cache_write_tokens=1, long_cache_write_tokens=1),
    "output": Usage(output_tokens=1),
    "per_page": Usage(pages=1),
    "per_annotated_page": Usage(pages=1, annotated_pages=1),
    "per_audio_minute": Usage(audio_seconds=60),
    "per_million_characters": Usage(characters=1),
    "per_request": Usage(requests=1),
}


def built_in(model: str) -> Price:
    price = PriceBook().find("mistral", model)
    assert price is not None
    return price


@pytest.mark.parametrize("name", PriceBook().names())
def test_a_built_in_price_is_whole_in_pico_usd_and_every_part_of_it_is_charged(name: str) -> None:
    provider, _, model = name.partition("/")
    price = PriceBook().find(provider, model)
    assert price is not None
    parts = {field: value for field, value in attrs.asdict(price).items() if value is not None}
    assert parts != {}
    far, start = parts.pop("long_context", None), parts.pop("long_context_from", None)
    assert far is None or (start >= 100_000 and {field for field in far if far[field] is not None} == parts.keys())
    for field, value in parts.items():
        unit = 1 if field.startswith("per_") and field != "per_million_characters" else 10**6
        cost = price.cost(ONE_UNIT[field])
        assert cost is not None
        assert Fraction(cost) == Fraction(value) / unit
        assert (Fraction(cost) * 10**12).denominator == 1
    if price.input is not None and provider == "mistral":
        assert price.cached_input is not None
        assert price.cached_input * 10 == price.input or model.startswith(GUESTS)
    assert price.cached_input is None or price.input is None or price.cached_input <= price.input
    assert price.output is None or price.input is not None


def test_anthropics_writes_for_an_hour_cost_twice_the_input_and_those_for_minutes_less() -> None:
    table = built_in_table()
    prices = [price for name, price in table.prices.items() if name.startswith("anthropic/")]
    prices += [rule.price for rule in table.rules["anthropic"] if rule.price is not None]
    prices += [price.long_context for price in prices if price.long_context is not None]
    caching = [price for price in prices if price.cached_input is not None]
    assert len(caching) > 80
    for price in caching:
        assert price.input is not None
        assert price.cache_write_input is not None
        assert price.long_cache_write_input == 2 * price.input > price.cache_write_input > price.input


@pytest.mark.parametrize(
    ("model", "usage", "cost"),
    [
        pytest.param("mistral-large-latest", Usage(input_tokens=1000, output_tokens=100), "0.00065", id="chat"),
        pytest.param("mistral-small-latest", Usage(input_tokens=1000, cached_tokens=640), "0.0000636", id="cached"),
        pytest.param(
            "magistral-small-latest",
            Usage(input_tokens=20, output_tokens=300, reasoning_tokens=250),
            "0.000183",
            id="r",
        ),
        pytest.param("codestral-latest", Usage(input_tokens=50, output_tokens=20), "0.000033", id="fim"),
        pytest.param("mistral-embed", Usage(input_tokens=4000), "0.0004", id="embeddings"),
        pytest.param("mistral-ocr-latest", Usage(pages=12), "0.048", id="ocr"),
        pytest.param("mistral-ocr-latest", Usage(pages=12, annotated_pages=12), "0.06", id="ocr-annotated"),
        pytest.param(
            "voxtral-mini-latest",
            Usage(audio_seconds=203, input_tokens=4, output_tokens=635),
            "0.01015",
            id="transcription",
        ),
        pytest.param(
            "voxtral-small-latest",
            Usage(audio_seconds=30, input_tokens=3, output_tokens=1),
            "0.0020007",
            id="chat-with-audio",
        ),
        pytest.param("voxtral-small-latest", Usage(input_tokens=3, output_tokens=1), "0.0000007", id="chat-without"),
        pytest.param("voxtral-mini-tts-latest", Usage(characters=250), "0.004", id="speech"),
    ],
)
def test_what_an_operation_costs_at_the_built_in_price(model: str, usage: Usage, cost: str) -> None:
    assert built_in(model).cost(attrs.evolve(usage, requests=1)) == Decimal(cost)


def test_moderation_has_no_published_price_and_so_no_cost() -> None:
    assert PriceBook().find("mistral", "mistral-moderation-2603") is None


@pytest.mark.parametrize(
    ("alias", "model"),
    [
        ("mistral-large-latest", "mistral-large-2512"),
        ("mistral-medium-latest", "mistral-medium-3-5"),
        ("mistral-small-latest", "mistral-small-2603"),
        ("ministral-3b-latest", "ministral-3b-2512"),
        ("ministral-8b-latest", "ministral-8b-2512"),
        ("ministral-14b-latest", "ministral-14b-2512"),
        ("codestral-latest", "codestral-2508"),
        ("devstral-latest", "devstral-2512"),
        ("magistral-small-latest", "mistral-small-2603"),
        ("mistral-ocr-latest", "mistral-ocr-4-1"),
        ("voxtral-mini-latest", "voxtral-mini-2602"),
        ("voxtral-small-latest", "voxtral-small-2507"),
    ],
)
def test_an_alias_costs_what_its_model_costs(alias: str, model: str) -> None:
    assert built_in(alias) == built_in(model)


def test_the_version_of_the_built_in_prices_is_the_same_whatever_the_user_adds() -> None:
    table = built_in_table()
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}\.[0-9a-f]{8}", table.version)
    assert table.version.startswith(table.date)
    assert table.source.startswith("genai-prices ")
    assert PriceBook().version == PriceBook({"a/b": Price(input=1)}).version == table.version


COUNT = st.integers(0, 10**7)
PART = st.one_of(st.none(), st.integers(0, 10**8).map(lambda micro: Decimal(micro).scaleb(-6)))


@settings(max_examples=300)
@given(
    st.builds(Price, **{field.name: PART for field in attrs.fields(Price) if "long_context" not in field.name}),
    st.builds(Usage, **{field.name: COUNT for field in attrs.fields(Usage)}),
)
def test_a_cost_is_the_sum_of_its_parts_or_unknown(price: Price, usage: Usage) -> None:
    cached, annotated = min(usage.cached_tokens, usage.input_tokens), min(usage.annotated_pages, usage.pages)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    kept_long = min(usage.long_cache_write_tokens, written)
    of_writes = price.input if price.cache_write_input is None else price.cache_write_input
    media = [
        (usage.pages - annotated, price.per_page, 1),
        (annotated, price.per_annotated_page, 1),
        (usage.audio_seconds, price.per_audio_minute, 60),
        (usage.characters, price.per_million_characters, 10**6),
    ]
    tokens = [
        (usage.input_tokens - cached - written, price.input, 10**6),
        (cached, price.input if price.cached_input is None else price.cached_input, 10**6),
        (written - kept_long, of_writes, 10**6),
        (kept_long, of_writes if price.long_cache_write_input is None else price.long_cache_write_input, 10**6),
        (usage.output_tokens, price.output, 10**6),
    ]
    used = [part for part in media if part[0]]
    of_tokens = (
        *(price.input, price.output, price.cached_input),
        *(price.cache_write_input, price.long_cache_write_input),
    )
    if not used or any(part is not None for part in of_tokens):
        used += [part for part in tokens if part[0]]
    cost = price.cost(usage)
    nothing = usage.requests > 0 and price.per_request is None and not any(part[0] for part in media + tokens)
    if nothing or any(part[1] is None for part in used):
        assert cost is None
        return
    exact = sum(
        (Fraction(count) * Fraction(each) / unit for count, each, unit in used if each is not None),
        Fraction(price.per_request or 0) * usage.requests,
    )
    assert cost is not None
    assert Fraction(0) <= Fraction(cost) - exact < Fraction(1, 10**12)
    if not usage.audio_seconds:
        assert Fraction(cost) == exact


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        ("0.5", Price(input="0.075", output="0.3", cached_input="0.0075")),
        ("1.1", Price(input="0.165", output="0.66", cached_input="0.0165")),
        (Decimal("1.75"), Price(input="0.2625", output="1.05", cached_input="0.02625")),
        (0, Price(input=0, output=0, cached_input=0)),
    ],
    ids=["batch", "region", "priority", "free"],
)
def test_a_price_is_scaled_in_all_its_parts(factor: Any, expected: Price) -> None:
    assert SMALL.scaled(factor) == expected


@pytest.mark.parametrize("factor", [0.5, "-1", "x", "0.0000001", None], ids=["float", "less", "word", "fine", "none"])
def test_a_factor_that_is_not_exact_is_refused(factor: Any) -> None:
    with pytest.raises(ConfigError, match="factor"):
        SMALL.scaled(factor)


def test_a_scaled_price_that_is_no_whole_pico_usd_is_refused() -> None:
    with pytest.raises(ConfigError, match="6 decimals"):
        Price(input="0.000001").scaled("0.5")


@pytest.mark.parametrize(
    "prices",
    [{"small": Price(input=1)}, {"mistral/small": "0.4"}, {"mistral/small": {"input": "0.4"}}],
    ids=["no-provider", "text", "dict"],
)
def test_a_wrong_entry_is_refused_by_name(prices: Any) -> None:
    with pytest.raises(ConfigError, match="small"):
        PriceBook(prices)


# -- bounds --------------------------------------------------------------------------------------------------------


def attempt(price: Price | None, output_upper: int | None = 10, input_upper: int | None = 100) -> Attempt:
    route = RouteRef("mistral", "small", "k1")
    return Attempt("a1", route, price=price, input_upper=input_upper, output_upper=output_upper)


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
        pytest.param(attempt(Price(input=1, output=1, per_audio_minute=1), input_upper=None), None, id="audio-neither"),
        pytest.param(
            attempt(Price(input=1, output=1, per_audio_minute=1)), Decimal("0.00011"), id="text-without-audio"
        ),
        pytest.param(attempt(Price(input=1, output=1, cached_input=2)), Decimal("0.00021"), id="dearer-cache"),
        pytest.param(attempt(CACHING), Decimal("0.000525"), id="all-written-to-a-cache"),
        pytest.param(attempt(LONG), Decimal("0.00075"), id="all-written-for-long"),
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


# -- long contexts -------------------------------------------------------------------------------------------------

FAR = Price(input="1", output="2", long_context_from=100, long_context={"input": "10", "output": "20"})


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        pytest.param(Usage(input_tokens=100, output_tokens=10), "0.00012", id="as-long-as-may-be"),
        pytest.param(Usage(input_tokens=101, output_tokens=10), "0.00121", id="longer"),
        pytest.param(Usage(input_tokens=101, cached_tokens=101), "0.00101", id="cached-tokens-count"),
    ],
)
def test_beyond_a_long_context_the_whole_request_has_its_price(usage: Usage, cost: str) -> None:
    assert FAR.cost(usage) == Decimal(cost)


def test_a_long_context_is_scaled_with_the_rest() -> None:
    scaled = FAR.scaled("0.5")
    assert scaled == Price(input="0.5", output="1", long_context_from=100, long_context=Price(input="5", output="10"))


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param({"long_context_from": 5}, id="no-price"),
        pytest.param({"long_context": Price(input=1)}, id="no-start"),
        pytest.param({"long_context": Price(input=1), "long_context_from": -1}, id="negative"),
        pytest.param({"long_context": Price(input=1), "long_context_from": True}, id="no-number"),
        pytest.param({"long_context": "1", "long_context_from": 1}, id="no-price-but-text"),
        pytest.param({"long_context": FAR, "long_context_from": 1}, id="nested"),
    ],
)
def test_half_a_long_context_is_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="long_context"):
        Price(input="1", **parts)


# -- names by rules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "same"),
    [
        pytest.param("anthropic/claude-haiku-4-5-20251001", "anthropic/claude-haiku-4-5", id="dated"),
        pytest.param("anthropic/claude-opus-4-1-20250805", "anthropic/claude-opus-4-1", id="another"),
        pytest.param("openai/computer-use-preview-2025-03-11", "openai/computer-use", id="prefix"),
        pytest.param("openai/gpt-6-luna-2026-11-01", "openai/gpt-6-luna", id="regex"),
        pytest.param("openai/gpt-4o-2024-05-13-x", None, id="no-rule-matches"),
        pytest.param("openai/gpt-4o-audio-preview-2024-12-17", None, id="of-a-model-without-a-price"),
        pytest.param("openai/gpt-4o-transcribe", None, id="listed-without-a-price"),
        pytest.param("mistral/mistral-small-latest-x", None, id="no-rules-of-mistral"),
        pytest.param("groq/claude-haiku-4-5-20251001", None, id="of-another-provider"),
    ],
)
def test_a_name_that_is_not_listed_may_mean_a_model_by_a_rule(name: str, same: str | None) -> None:
    book = PriceBook()
    found = book.find(*name.split("/"))
    assert found == (None if same is None else book.find(*same.split("/")))
    assert (found is None) is (same is None)


def test_a_name_that_is_listed_needs_no_rule() -> None:
    assert PriceBook().find("openai", "gpt-4o-2024-05-13") == Price(input="5", output="15")
    own = PriceBook({"openai/computer-use-x": Price(input=1)})
    assert own.find("openai", "computer-use-x") == Price(input=1)


def test_moderation_at_openai_is_known_to_be_free() -> None:
    price = PriceBook().find("openai", "omni-moderation-latest")
    assert price is not None
    assert price.cost(Usage(requests=1)) == 0
