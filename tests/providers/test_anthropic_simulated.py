"""Anthropic behind a Router against the simulated service, which checks what it is sent as the real one does."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import attrs
import pytest
from bifrost_plugins.budgets import Budget, BudgetPlugin

from bifrost_core import Anthropic, BadRequestError, ChatResponse, Key, Kind, ModelNotFoundError, RetryPolicy, Router
from bifrost_core.testing import Fault, SimulatedAnthropic, SimulatedKey

A, B = "sk-ant-canary-aaaaaaaaaaaa", "sk-ant-canary-bbbbbbbbbbbb"
CACHED: list[Any] = [
    {"role": "system", "content": [{"type": "text", "text": "word " * 6_000, "cache_control": {"type": "ephemeral"}}]},
    {"role": "user", "content": "hi"},
]


def weather(city: str) -> str:
    """Weather of a city."""
    return f"rain in {city}"


@attrs.frozen
class Answer:
    a: int


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedAnthropic]:
    with SimulatedAnthropic([SimulatedKey(A, id="a"), SimulatedKey(B, id="b")]) as running:
        yield running


def router(server: SimulatedAnthropic, **options: Any) -> Router:
    keys = [Key(A, id="a"), Key(B, id="b")]
    return Router([Anthropic(keys, base_url=server.base_url, **options)], retry=RetryPolicy(backoff=0.001))


async def asked(
    asking: Router, stream: bool, model: str, messages: list[Any], **fields: Any
) -> ChatResponse:  # a parameter of the tests
    if not stream:
        return await asking.chat(f"anthropic/{model}", messages, **fields)
    async with asking.stream(f"anthropic/{model}", messages, **fields) as answer:
        calls = [call async for chunk in answer for call in chunk.tool_calls]
    assert isinstance(answer.response, ChatResponse)
    assert tuple(calls) == answer.response.tool_calls
    return answer.response


THINKING = [
    pytest.param("claude-haiku-4-5", {"thinking": {"type": "enabled", "budget_tokens": 2_000}}, id="budget"),
    pytest.param("claude-opus-4-8", {"reasoning_effort": "high"}, id="adaptive-on-request"),
    pytest.param("claude-sonnet-5-5", {"reasoning_effort": "low"}, id="adaptive"),
    pytest.param("claude-opus-5-5", {}, id="always"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize(("model", "fields"), THINKING)
async def test_signed_thoughts_are_taken_back_in_the_next_turn(
    server: SimulatedAnthropic, model: str, fields: dict[str, Any], *, stream: bool
) -> None:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    async with router(server) as asking:
        first = await asked(asking, stream, model, messages, max_tokens=3_000, **fields)
        assert first.usage.reasoning_tokens > 0
        assert [part["type"] for part in first.message["content"]] == ["thinking", "text"]
        messages += [first.message, {"role": "user", "content": "and?"}]
        second = await asked(asking, stream, model, messages, max_tokens=3_000, **fields)
    assert (second.finish_reason, bool(second.text)) == ("stop", True)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_forged_thought_is_refused_by_the_server(server: SimulatedAnthropic, *, stream: bool) -> None:
    """So that the test above can fail."""
    forged = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "x", "signature": "EqQB"}, {"type": "text", "text": "y"}],
    }
    messages = [{"role": "user", "content": "hi"}, forged, {"role": "user", "content": "and?"}]
    async with router(server) as asking:
        with pytest.raises(BadRequestError, match="signature"):
            await asked(asking, stream, "claude-opus-4-8", messages, max_tokens=3_000, reasoning_effort="low")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-opus-4-8"])
async def test_a_call_is_made_and_its_result_taken(server: SimulatedAnthropic, model: str, *, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "weather?"}]
    fields: dict[str, Any] = {"tools": [weather], "max_tokens": 500, "parallel_tool_calls": False}
    async with router(server) as asking:
        first = await asked(asking, stream, model, messages, tool_choice="required", **fields)
        (call,) = first.tool_calls
        assert (first.finish_reason, call.name, set(call.parsed())) == ("tool_calls", "weather", {"city"})
        messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": weather(**call.parsed())}]
        second = await asked(asking, stream, model, messages, **fields)
    assert second.text


async def test_a_class_comes_back_as_an_instance(server: SimulatedAnthropic) -> None:
    async with router(server) as asking:
        reply = await asking.chat("anthropic/claude-opus-5-5", "count", response_format=Answer, max_tokens=500)
    assert isinstance(reply.parsed, Answer)


async def test_the_cache_is_written_and_read() -> None:
    with SimulatedAnthropic([SimulatedKey(A, id="a")]) as empty:
        async with Router([Anthropic(A, base_url=empty.base_url)]) as asking:
            first = await asking.chat("anthropic/claude-haiku-4-5", CACHED, max_tokens=20)
            second = await asking.chat("anthropic/claude-haiku-4-5", CACHED, max_tokens=20)
    assert (first.usage.cached_tokens, second.usage.cache_write_tokens) == (0, 0)
    assert first.usage.cache_write_tokens == second.usage.cached_tokens > 5_000
    assert first.usage.input_tokens == second.usage.input_tokens > first.usage.cache_write_tokens


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_what_is_cached_for_an_hour_is_charged_as_such_and_is_within_a_hard_budget(*, stream: bool) -> None:
    head, question = "anthropic/claude-haiku-4-5", CACHED[1]
    hour = {"type": "text", "text": "word " * 6_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    messages = [{"role": "system", "content": [hour]}, question]
    budgets = BudgetPlugin(budgets=[Budget("1")])
    with SimulatedAnthropic([SimulatedKey(A, id="a")]) as empty:
        async with Router([Anthropic(A, base_url=empty.base_url)], plugins=[budgets]) as asking:
            found = asking.estimate(head, messages, max_tokens=20)
            reply = await asked(asking, stream, "claude-haiku-4-5", messages, max_tokens=20)
            (row,) = await budgets.usage(by=())
    usage = reply.usage
    assert usage.long_cache_write_tokens == usage.cache_write_tokens > 5_000
    past = usage.input_tokens - usage.cache_write_tokens
    # USD per million tokens: 1 of input, 2 of what is kept for an hour, 5 of output.
    assert reply.cost == row.cost == Decimal(past + 2 * usage.cache_write_tokens + 5 * usage.output_tokens) / 10**6
    assert row.long_cache_write_tokens == usage.long_cache_write_tokens
    assert found.input_upper is not None
    assert found.greatest == Decimal(2 * found.input_upper + 5 * 20) / 10**6
    assert reply.cost <= found.greatest


@pytest.mark.parametrize("model", ["claude-opus-4-8", "claude-haiku-5-5", "claude-sonnet-5-5", "claude-haiku-4-5"])
async def test_an_effort_of_none_is_no_thought(server: SimulatedAnthropic, model: str) -> None:
    async with router(server) as asking:
        reply = await asking.chat(f"anthropic/{model}", "hi", reasoning_effort="none", max_tokens=200)
    assert (reply.usage.reasoning_tokens, reply.reasoning) == (0, None)


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
async def test_every_version_of_the_api_is_spoken(server: SimulatedAnthropic, version: str) -> None:
    late = [{"role": "user", "content": "hi"}, {"role": "system", "content": "In French."}]
    async with router(server, version=version) as asking:
        assert (await asking.chat("anthropic/claude-opus-5-5", late, max_tokens=100)).finish_reason == "stop"
        assert (await asking.responses("anthropic/claude-haiku-5-5", "hi", max_output_tokens=200)).output_text


async def test_models_and_their_absence(server: SimulatedAnthropic) -> None:
    async with router(server) as asking:
        listed = {model.id: model for model in await asking.models("anthropic")}
        with pytest.raises(ModelNotFoundError) as caught:
            await asking.chat("anthropic/claude-none-such", "hi", max_tokens=5)
    assert listed["anthropic/claude-opus-5-5"].context_length == 1_000_000
    assert caught.value.kind is Kind.MODEL_NOT_FOUND


async def test_faults_of_a_key_are_seen_by_no_caller() -> None:
    faults = [
        Fault("status", status=401),
        Fault("split"),
    ]
    keys = [SimulatedKey(A, id="a"), SimulatedKey(B, id="b", faults=faults)]
    with SimulatedAnthropic(keys) as failing:
        async with router(failing) as asking:
            replies = [
                await asked(asking, True, "claude-haiku-4-5", [{"role": "user", "content": "hi"}], max_tokens=30)
                for _ in range(12)
            ]
    assert all(reply.text and reply.usage.output_tokens for reply in replies)
