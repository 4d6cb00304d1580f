"""The SDK ``anthropic`` in front of Anthropic: what it gives through the Router is what it gives straight."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

import pytest
from bifrost_plugins.guardrails import GuardrailPlugin, Literals
from bifrost_plugins.response_cache import ResponseCachePlugin

from bifrost_core import Anthropic, Router
from bifrost_core.testing import SimulatedAnthropic

sdk = pytest.importorskip("anthropic")
httpx2 = pytest.importorskip("httpx2")

Json: TypeAlias = dict[str, Any]

SECRET = "sk-ant-simulated-0123456789"
MODEL = "claude-opus-4-8"
WEATHER: Json = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
ASKED: Json = {
    "max_tokens": 4096,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "Name the bridge."}],
    "thinking": {"type": "adaptive"},
    "tools": [WEATHER],
}


def answer(body: Json) -> Json:
    """What the simulated model says."""
    calls = [{"id": "toolu_01", "name": "weather", "arguments": '{"city": "Oslo"}'}]
    return {"thinking": "Norse myth.", "content": "I look.", "tool_calls": calls, "finish_reason": "tool_use"}


@pytest.fixture
def anyio_backend() -> str:
    """The SDK is written for asyncio."""
    return "asyncio"


@pytest.fixture
def server() -> Iterator[SimulatedAnthropic]:
    with SimulatedAnthropic([SECRET], answer=answer, keep_bodies=True) as running:
        yield running


@pytest.fixture
async def straight(server: SimulatedAnthropic) -> AsyncIterator[Any]:
    async with sdk.AsyncAnthropic(api_key=SECRET, base_url=server.base_url) as client:
        yield client


def through(router: Router) -> Any:
    return sdk.AsyncAnthropic(
        api_key="sk-bf-0123456789", base_url="http://b/anthropic", http_client=router.http_client()
    )


def router_on(server: SimulatedAnthropic, *plugins: object) -> Router:
    return Router([Anthropic([SECRET], base_url=server.base_url)], plugins=plugins)


def told(thing: Any) -> Any:
    """An SDK's object without what is drawn anew for each answer."""
    written = thing.to_dict()
    for holder in (written, written.get("message") or {}):
        holder.pop("id", None)
    for block in [*written.get("content", ()), written.get("content_block") or {}]:
        block.pop("signature", None)
    if isinstance(delta := written.get("delta"), dict):
        delta.pop("signature", None)
    return written


async def streamed(client: Any, model: str) -> tuple[list[Any], Any]:
    async with client.messages.stream(model=model, **ASKED) as stream:
        return [event async for event in stream], await stream.get_final_message()


async def test_a_message_and_its_request_are_those_without_a_router(server: SimulatedAnthropic, straight: Any) -> None:
    async with router_on(server) as router:
        there = await through(router).messages.create(model=f"anthropic/{MODEL}", **ASKED)
    here = await straight.messages.create(model=MODEL, **ASKED)
    assert told(there) | {"usage": None} == told(here) | {"usage": None}
    first, second = (json.loads(request.body or b"") for request in server.requests)
    assert first == second


async def test_a_stream_is_the_one_without_a_router(server: SimulatedAnthropic, straight: Any) -> None:
    async with router_on(server) as router:
        events, message = await streamed(through(router), f"anthropic/{MODEL}")
    _, wanted = await streamed(straight, MODEL)
    assert told(message) | {"usage": None} == told(wanted) | {"usage": None}
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[0].signature
    assert message.content[2].input == {"city": "Oslo"}
    assert [event.type for event in events].count("message_stop") == 1
    first, second = (json.loads(request.body or b"") for request in server.requests)
    assert first == second


async def test_an_answer_goes_back_as_it_came(server: SimulatedAnthropic) -> None:
    async with router_on(server) as router:
        client = through(router)
        _, message = await streamed(client, f"anthropic/{MODEL}")
        result = {"type": "tool_result", "tool_use_id": message.content[2].id, "content": "7 degrees"}
        turns = [
            *ASKED["messages"],
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [result]},
        ]
        await client.messages.create(model=f"anthropic/{MODEL}", **{**ASKED, "messages": turns})
    sent = json.loads(server.requests[-1].body or b"")["messages"]
    assert sent[2]["content"] == [result]
    assert sent[1]["content"][0] == message.content[0].to_dict()  # with its signature
    assert [block["type"] for block in sent[1]["content"]] == ["thinking", "text", "tool_use"]


async def test_a_kept_answer_is_streamed_with_its_signature(server: SimulatedAnthropic) -> None:
    async with router_on(server, ResponseCachePlugin(ttl=60)) as router:
        client = through(router)
        _, first = await streamed(client, f"anthropic/{MODEL}")
        _, second = await streamed(client, f"anthropic/{MODEL}")
    assert len(server.requests) == 1
    assert [block.to_dict() for block in second.content] == [block.to_dict() for block in first.content]
    assert second.stop_reason == first.stop_reason == "tool_use"
    assert second.usage.input_tokens == first.usage.input_tokens


async def test_what_a_guardrail_removes_is_in_no_event(server: SimulatedAnthropic) -> None:
    rule = Literals(["look", "myth", "Oslo"], name="words", action="redact", side="output")
    async with router_on(server, GuardrailPlugin([rule])) as router:
        client = through(router)
        events, streamed_message = await streamed(client, f"anthropic/{MODEL}")
        message = await client.messages.create(model=f"anthropic/{MODEL}", **ASKED)
    said = message.to_json() + streamed_message.to_json() + "".join(event.to_json() for event in events)
    assert not [word for word in ("look", "myth", "Oslo") if word in said]
    calls = [block for block in streamed_message.content if block.type == "tool_use"]
    assert [(call.id, call.name) for call in calls] == [("toolu_01", "weather")]
