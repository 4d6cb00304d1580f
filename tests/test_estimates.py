"""What a call may cost before it is sent: ``Router.estimate``, and the bounds of an attempt."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import (
    Attempt,
    BadRequestError,
    Call,
    ConfigError,
    Estimate,
    File,
    Key,
    Mistral,
    ModelNotFoundError,
    Operation,
    Price,
    PriceBook,
    Request,
    Response,
    Router,
    SyncRouter,
    UnsupportedParameterError,
    Usage,
    hookimpl,
)
from bifrost_core.estimates import estimated, greatest_cost, input_bound, least_cost
from bifrost_core.testing import Simulated
from bifrost_core.wire import HttpCall, HttpReply

MODEL = "mistral/mistral-small-latest"
SMALL = Price(input="0.15", output="0.6", cached_input="0.015")
TEXT = "Name the rainbow bridge of Norse myth."
IMAGE = {"type": "image_url", "image_url": "https://example.org/bridge.png"}
AUDIO = {"type": "input_audio", "input_audio": "UklGRg=="}


def router(**options: Any) -> Router:
    return Router([Mistral([Key("sk-simulated-estimates", id="k1")])], **options)


def asked(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": TEXT}, *parts]}]


def body_of(messages: Any, **fields: Any) -> int:
    members = {"model": "mistral-small-latest", "messages": messages, **fields}
    return len(json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode())


# -- the Router ----------------------------------------------------------------------------------------------------


def test_an_estimate_has_every_bound_of_the_body_that_would_be_sent() -> None:
    size = body_of([{"role": "user", "content": TEXT}], max_tokens=100, n=2)
    tokens = -(-size * 35 // 100)
    assert router(prices=PriceBook({MODEL: SMALL})).estimate(MODEL, TEXT, max_tokens=100, n=2) == Estimate(
        model=MODEL,
        input_tokens=tokens,
        input_upper=size,
        output_upper=200,
        least=tokens * Decimal("0.000000015"),
        greatest=size * Decimal("0.00000015") + 200 * Decimal("0.0000006"),
        price=SMALL,
    )


def test_without_an_output_limit_the_greatest_cost_is_unknown_and_the_least_is_not() -> None:
    found = router().estimate(MODEL, TEXT)
    assert (found.output_upper, found.greatest) == (None, None)
    assert found.least is not None
    assert found.least > 0


def test_a_model_without_a_price_has_bounds_and_no_cost() -> None:
    found = router().estimate("mistral/mistral-unheard-of", TEXT, max_tokens=5)
    assert (found.price, found.least, found.greatest) == (None, None, None)
    assert found.input_upper is not None
    assert found.output_upper == 5


def test_a_price_without_output_has_a_least_cost_only() -> None:
    book = PriceBook({MODEL: Price(input=1)})
    found = router(prices=book).estimate(MODEL, TEXT, max_tokens=5)
    assert (found.least, found.greatest) == (Decimal(found.input_tokens) / 10**6, None)


@pytest.mark.parametrize("name", ["fast", "mistral-small-latest", MODEL], ids=["alias", "bare", "full"])
def test_the_model_is_found_as_in_a_call(name: str) -> None:
    assert router(aliases={"fast": MODEL}).estimate(name, TEXT).model == MODEL


def test_options_of_a_call_do_not_change_an_estimate() -> None:
    plain = router().estimate(MODEL, TEXT, max_tokens=5)
    options = {
        "virtual_key": "sk-bf-someone",
        "timeout": 3,
        "metadata": {"team": "search"},
        "fallbacks": ["mistral/mistral-large-latest"],
        "session": "s",
        "cache": "bypass",
        "effects": "possible",
    }
    assert router().estimate(MODEL, TEXT, max_tokens=5, **options) == plain


def test_extra_fields_count_and_may_bring_the_limit() -> None:
    found = router().estimate(MODEL, TEXT, extra_body={"max_tokens": 7})
    assert (found.output_upper, found.input_upper) == (
        7,
        body_of([{"role": "user", "content": TEXT}], max_tokens=7),
    )


@pytest.mark.parametrize(
    ("model", "messages", "fields", "error", "match"),
    [
        pytest.param(MODEL, [], {}, ConfigError, "messages is empty", id="no-messages"),
        pytest.param(MODEL, [{"content": "x"}], {}, ConfigError, "no role", id="no-role"),
        pytest.param("mistral/", TEXT, {}, ModelNotFoundError, "model", id="no-model"),
        pytest.param("openai/gpt", TEXT, {}, ModelNotFoundError, "openai/gpt", id="no-provider"),
        pytest.param(MODEL, TEXT, {"max_token": 5}, UnsupportedParameterError, "max_tokens", id="misspelt"),
        pytest.param(MODEL, TEXT, {"temperature": object()}, BadRequestError, "temperature", id="no-json"),
        pytest.param(MODEL, TEXT, {"extra_body": 5}, ConfigError, "extra_body", id="extra"),
        pytest.param(MODEL, TEXT, {"stream": True}, ConfigError, "stream", id="stream"),
    ],
)
async def test_what_a_call_refuses_an_estimate_refuses_with_the_same_error(
    model: str, messages: Any, fields: dict[str, Any], error: type[Exception], match: str
) -> None:
    async with Router([Simulated(["k1"], name="mistral")]) as asking:
        with pytest.raises(error, match=match) as estimating:
            asking.estimate(model, messages, **fields)
        with pytest.raises(error) as calling:
            await asking.chat(model, messages, **fields)
    assert type(estimating.value) is type(calling.value)
    assert str(estimating.value) == str(calling.value)
    assert getattr(estimating.value, "model", None) == getattr(calling.value, "model", None)


def test_nothing_is_sent_and_no_hook_runs() -> None:
    simulated = Simulated(["k1"])

    class Strict:
        @hookimpl
        async def bifrost_authorize(self, request: Request, call: Call) -> None:
            pytest.fail("an estimate is no call")

    asking = Router([simulated], plugins=[Strict()])
    assert asking.estimate("simulated/any", TEXT, max_tokens=1).output_upper == 1
    assert simulated.journal == ()
    assert asking.health() == []


def test_blocking_code_gets_the_same_estimate_without_an_event_loop() -> None:
    with SyncRouter([Mistral([Key("sk-simulated-estimates", id="k1")])]) as asking:
        assert asking.estimate(MODEL, TEXT, max_tokens=9, virtual_key="sk-bf-x") == router().estimate(
            MODEL, TEXT, max_tokens=9
        )


# -- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        pytest.param(asked(IMAGE), {}, id="image"),
        pytest.param(asked({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}), {}, id="inline"),
        pytest.param(asked(AUDIO), {}, id="audio"),
        pytest.param(asked({"type": "document_url", "document_url": "https://example.org/a.pdf"}), {}, id="document"),
        pytest.param(asked({"type": "file", "file_id": "f1"}), {}, id="file"),
        pytest.param(asked(), {"extra_body": {"messages": asked({"type": "of_next_year"})}}, id="unknown-part"),
        pytest.param(asked(), {"extra_body": {"messages": asked({"type": ["text"]})}}, id="type-that-is-none"),
        pytest.param(asked(), {"tools": [{"type": {}}]}, id="tool-type-that-is-none"),
        pytest.param(asked(), {"extra_body": {"messages": asked(IMAGE)}}, id="image-in-extra-fields"),
        pytest.param(asked(), {"tools": [{"type": "web_search"}]}, id="tool-of-the-provider"),
    ],
)
def test_what_bytes_do_not_bound_has_no_greatest_cost(messages: Any, fields: dict[str, Any]) -> None:
    found = router().estimate(MODEL, messages, max_tokens=5, **fields)
    assert (found.input_upper, found.greatest, found.output_upper) == (None, None, 5)
    assert found.least is not None


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        pytest.param(asked(), {}, id="parts"),
        pytest.param(
            [*asked(), {"role": "assistant", "content": [{"type": "thinking", "thinking": []}], "prefix": True}],
            {},
            id="thinking",
        ),
        pytest.param([{"role": "user", "content": ["plain", "strings"]}], {}, id="strings"),
        pytest.param(asked(), {"tools": [{"type": "function", "function": {"name": "f"}}]}, id="function"),
        pytest.param(asked(), {"tools": [{"function": {"name": "f"}}]}, id="function-untyped"),
    ],
)
def test_text_is_bounded_by_the_bytes_of_the_body(messages: Any, fields: dict[str, Any]) -> None:
    found = router().estimate(MODEL, messages, max_tokens=5, **fields)
    assert found.greatest is not None
    assert found.input_upper is not None
    assert 1 <= found.input_tokens <= found.input_upper


def test_media_are_not_counted_as_text() -> None:
    inline = {"type": "image_url", "image_url": "data:image/png;base64," + "A" * 100_000}
    assert router().estimate(MODEL, asked(inline)).input_tokens < 100


def test_audio_in_a_chat_has_no_bound_and_text_to_the_same_model_has() -> None:
    model = "mistral/voxtral-small-latest"
    assert router().estimate(model, asked(AUDIO), max_tokens=5).greatest is None
    assert router().estimate(model, asked(), max_tokens=5).greatest is not None


@pytest.mark.parametrize("operation", [Operation.OCR, Operation.TRANSCRIPTION])
def test_documents_and_recordings_have_no_bound(operation: Operation) -> None:
    request = Request(operation, "m", {"document": {"type": "document_url", "document_url": "https://example.org/a"}})
    assert input_bound(request, HttpCall("POST", "https://example.org", (), b"{}")) is None


@pytest.mark.parametrize(
    ("body", "is_bounded"),
    [
        pytest.param({"input": "x"}, True, id="text"),
        pytest.param({"input": "x", "tools": [{"type": "custom", "name": "c"}]}, True, id="a-tool-of-free-text"),
        pytest.param({"input": [{"type": "custom_tool_call_output", "output": "x"}]}, True, id="its-result"),
        pytest.param({"input": "x", "previous_response_id": "resp_1"}, False, id="an-answer-that-is-stored"),
        pytest.param({"input": "x", "conversation": "conv_1"}, False, id="a-conversation-that-is-stored"),
        pytest.param({"prompt": {"id": "pmpt_1"}}, False, id="a-template-that-is-stored"),
        pytest.param({"input": [{"type": "item_reference", "id": "x"}]}, False, id="an-item-that-is-stored"),
        pytest.param({"prompt": "def f(", "suffix": ")"}, True, id="a-gap-to-fill"),
        pytest.param(
            {"messages": [{"role": "user", "content": "x"}], "web_search_options": {"a": 1}}, False, id="search"
        ),
        pytest.param({"input": "x", "extra_body": {"conversation": "conv_1"}}, False, id="in-extra-fields"),
    ],
)
def test_what_the_provider_keeps_has_no_bound(body: dict[str, Any], is_bounded: bool) -> None:
    call = HttpCall("POST", "https://example.org", (), b"{}")
    assert (input_bound(Request(Operation.RESPONSES, "m", body), call) is not None) is is_bounded


def test_a_file_has_no_bound() -> None:
    request = Request(Operation.CHAT, "m", files=[File("file", "a.txt", b"words")])
    assert input_bound(request, HttpCall("POST", "https://example.org", (), b"{}")) is None


def test_an_empty_body_is_one_token_at_least() -> None:
    found = estimated("mistral/m", Request(Operation.CHAT, "m"), HttpCall("GET", "https://example.org", ()), SMALL)
    assert (found.input_tokens, found.input_upper) == (1, 0)


PART = st.one_of(st.none(), st.integers(0, 10**8).map(lambda micro: Decimal(micro).scaleb(-6)))
FLAT = {field.name: PART for field in attrs.fields(Price) if "long_context" not in field.name}
PRICES = st.one_of(
    st.builds(Price, **FLAT),
    st.builds(Price, **FLAT, long_context_from=st.integers(0, 10**7), long_context=st.builds(Price, **FLAT)),
)


@settings(max_examples=200)
@given(
    PRICES,
    st.integers(1, 10**7),
    st.integers(0, 10**6),
    st.data(),
)
def test_no_usage_within_the_bounds_costs_more_than_the_greatest(
    price: Price, input_upper: int, output_upper: int, data: st.DataObject
) -> None:
    greatest = greatest_cost(price, input_upper, output_upper)
    tokens = data.draw(st.integers(1, input_upper))
    usage = {
        "input_tokens": tokens,
        "cached_tokens": data.draw(st.integers(0, tokens)),
        "cache_write_tokens": data.draw(st.integers(0, tokens)),
        "long_cache_write_tokens": data.draw(st.integers(0, tokens)),
        "output_tokens": data.draw(st.integers(0, output_upper)),
        "requests": 1,
    }
    cost = price.cost(Usage(**usage))
    least = least_cost(price, tokens)
    if greatest is not None:
        assert cost is not None
        assert least is not None
        assert least <= cost <= greatest


# -- one rule for estimates and attempts ---------------------------------------------------------------------------


class Bounds:
    """Remembers what attempts were reserved with."""

    def __init__(self) -> None:
        self.seen: list[tuple[int | None, int | None, Decimal | None]] = []

    @hookimpl
    async def bifrost_reserve(self, attempt: Attempt, call: Call) -> None:
        self.seen.append((attempt.input_upper, attempt.output_upper, attempt.cost_upper))


@pytest.mark.parametrize("messages", [TEXT, asked(), asked(IMAGE)], ids=["string", "parts", "image"])
async def test_an_attempt_is_reserved_with_the_bounds_of_the_estimate_and_stays_within(messages: Any) -> None:
    bounds = Bounds()
    async with Router([Simulated(["k1"], name="mistral")], plugins=[bounds]) as asking:
        found = asking.estimate(MODEL, messages, max_tokens=20)
        reply = await asking.chat(MODEL, messages, max_tokens=20)
    assert bounds.seen == [(found.input_upper, found.output_upper, found.greatest)]
    assert reply.cost is not None
    if found.greatest is not None:
        assert reply.cost <= found.greatest


async def test_the_tokens_of_an_image_do_not_teach_what_a_byte_of_text_is_worth() -> None:
    async with Router([Simulated(["k1"], name="mistral")]) as asking:
        await asking.chat(MODEL, asked(IMAGE), max_tokens=5)
        (deployment,) = asking._deployments.live()
        before = deployment.prompt_ratio
        await asking.chat(MODEL, TEXT, max_tokens=5)
    assert before == 0.35
    assert deployment.prompt_ratio != before


class Redirected(Simulated):
    """Answers for a retired model with another one, as Mistral does."""

    def decode(self, request: Request, reply: HttpReply) -> Response:
        return attrs.evolve(super().decode(request, reply), model="ministral-14b-latest")


async def test_an_answer_of_another_model_is_charged_at_its_price() -> None:
    book = PriceBook({"mistral/pixtral-12b": Price(input=100, output=100)})
    async with Router([Redirected(["k1"], name="mistral")], prices=book) as asking:
        reply = await asking.chat("mistral/pixtral-12b", TEXT, max_tokens=5)
    actual = book.find("mistral", "ministral-14b-latest")
    assert actual is not None
    assert reply.cost == actual.cost(reply.usage)
    assert reply.attempts[0].price == Price(input=100, output=100)
