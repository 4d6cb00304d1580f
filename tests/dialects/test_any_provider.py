"""Every dialect on every provider: a turn with a tool, its result and a picture, plain and streamed, there and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import attrs
import httpx
import pytest

from bifrost_core import Anthropic, Key, Mistral, OpenAI, OpenAICompatible, Provider, RetryPolicy, Router
from bifrost_core.testing import Fault, SimulatedAnthropic, SimulatedKey, SimulatedMistral, SimulatedOpenAI

Json: TypeAlias = dict[str, Any]

SECRET = "sk-canary-aaaaaaaaaaaaaaaa"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
MODELS = {
    "mistral": "mistral-small-latest",
    "openai": "gpt-4.1-mini",
    "anthropic": "claude-haiku-4-5",
    "compatible": "gpt-4.1-mini",
}
ALL = pytest.mark.parametrize("provider", MODELS)
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


def answer(body: Json) -> str | Json:
    """Asks for the weather, and tells it once it is known."""
    if "21 degrees" in json.dumps(body):
        return "It is warm."
    return {"content": "Let me see.", "tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}


@attrs.frozen
class World:
    """A Router on one server of each vendor."""

    router: Router
    servers: dict[str, Any]


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        servers: dict[str, Any] = {
            name: stack.enter_context(kind([SimulatedKey(SECRET, id="a")], answer=answer, keep_bodies=True))
            for name, kind in {
                "mistral": SimulatedMistral,
                "openai": SimulatedOpenAI,
                "anthropic": SimulatedAnthropic,
                "compatible": SimulatedOpenAI,
            }.items()
        }
        keys = [Key(SECRET, id="a")]
        providers: list[Provider] = [
            Mistral(keys, base_url=servers["mistral"].base_url),
            OpenAI(keys, base_url=servers["openai"].base_url),
            Anthropic(keys, base_url=servers["anthropic"].base_url),
            OpenAICompatible("compatible", keys, base_url=servers["compatible"].base_url),
        ]
        yield World(Router(providers, retry=RetryPolicy(backoff=0, max_wait=0)), servers)


# -- what the three vendors' clients say and hear ---------------------------------------------------------------------


def openai_ask(history: list[Json]) -> Json:
    tool = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": CITY}}
    messages = [
        {"role": "system", "content": "Be short."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "How is the weather here?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
            ],
        },
        *history,
    ]
    return {"messages": messages, "tools": [tool], "max_tokens": 200}


def openai_turn(heard: Heard) -> list[Json]:
    call = {"id": heard.call, "type": "function", "function": {"name": "weather", "arguments": heard.arguments}}
    return [
        {"role": "assistant", "content": heard.text, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": heard.call, "content": "21 degrees"},
    ]


def mistral_turn(heard: Heard) -> list[Json]:
    said, result = openai_turn(heard)
    return [said, {**result, "name": "weather"}]


def anthropic_ask(history: list[Json]) -> Json:
    tool = {"name": "weather", "description": "Tells it.", "input_schema": CITY}
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    content = [{"type": "text", "text": "How is the weather here?"}, {"type": "image", "source": source}]
    return {
        "system": "Be short.",
        "messages": [{"role": "user", "content": content}, *history],
        "tools": [tool],
        "max_tokens": 200,
    }


def anthropic_turn(heard: Heard) -> list[Json]:
    call = {"type": "tool_use", "id": heard.call, "name": "weather", "input": json.loads(heard.arguments)}
    result = {"type": "tool_result", "tool_use_id": heard.call, "content": "21 degrees"}
    return [
        {"role": "assistant", "content": [{"type": "text", "text": heard.text}, call]},
        {"role": "user", "content": [result]},
    ]


@attrs.define
class Heard:
    """What a client makes of an answer."""

    text: str = ""
    call: str = ""
    arguments: str = ""
    reason: str | None = None
    tokens: tuple[int, int] = (0, 0)


def events(body: str) -> list[Json]:
    lines = [line.removeprefix("data: ") for line in body.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def openai_hear(body: str, stream: bool) -> Heard:
    heard = Heard()
    for event in events(body) if stream else [json.loads(body)]:
        if usage := event.get("usage"):
            heard.tokens = (usage["prompt_tokens"], usage["completion_tokens"])
        for choice in event["choices"]:
            said = choice["delta" if stream else "message"]
            heard.text += said.get("content") or ""
            heard.reason = choice.get("finish_reason") or heard.reason
            for call in said.get("tool_calls") or ():
                heard.call = call.get("id") or heard.call
                heard.arguments += call["function"].get("arguments") or ""
    return heard


def anthropic_hear(body: str, stream: bool) -> Heard:
    heard = Heard()
    if not stream:
        message = json.loads(body)
        for block in message["content"]:
            if block["type"] == "text":
                heard.text += block["text"]
            else:
                heard.call, heard.arguments = block["id"], json.dumps(block["input"])
        heard.reason = message["stop_reason"]
        heard.tokens = (message["usage"]["input_tokens"], message["usage"]["output_tokens"])
        return heard
    kinds = [event["type"] for event in events(body) if event["type"] != "ping"]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    for event in events(body):
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            heard.call = event["content_block"]["id"]
        if event["type"] == "content_block_delta":
            heard.text += event["delta"].get("text", "")
            heard.arguments += event["delta"].get("partial_json", "")
        if event["type"] == "message_delta":
            heard.reason = event["delta"]["stop_reason"]
            heard.tokens = (event["usage"].get("input_tokens") or 0, event["usage"]["output_tokens"])
        if event["type"] == "message_start" and not heard.tokens[0]:
            heard.tokens = (event["message"]["usage"]["input_tokens"], 0)
    return heard


@attrs.frozen
class Tongue:
    """How one vendor's client asks, hears and goes on."""

    path: str
    ask: Callable[[list[Json]], Json]
    hear: Callable[[str, bool], Heard]
    turn: Callable[[Heard], list[Json]]
    reasons: tuple[str, str]  # of a call, and of an end


TONGUES = {
    "openai": Tongue("/openai/v1/chat/completions", openai_ask, openai_hear, openai_turn, ("tool_calls", "stop")),
    "anthropic": Tongue(
        "/anthropic/v1/messages", anthropic_ask, anthropic_hear, anthropic_turn, ("tool_use", "end_turn")
    ),
    "mistral": Tongue("/mistral/v1/chat/completions", openai_ask, openai_hear, mistral_turn, ("tool_calls", "stop")),
}
IN_ALL = pytest.mark.parametrize("tongue", TONGUES.values(), ids=TONGUES)


async def ask(client: httpx.AsyncClient, tongue: Tongue, body: Json, stream: bool) -> Heard:
    if stream:
        body = {**body, "stream": True}
        if tongue is TONGUES["openai"]:  # which alone has to be asked for what was used
            body["stream_options"] = {"include_usage": True}
    reply = await client.post(tongue.path, json=body)
    assert reply.status_code == 200, reply.text
    return tongue.hear(reply.text, stream)


@IN_ALL
@ALL
@BOTH
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_tool_is_asked_for_and_answered(
    world: World, tongue: Tongue, provider: str, stream: bool, anyio_backend: str
) -> None:
    model = f"{provider}/{MODELS[provider]}"
    async with world.router as router, router.http_client(flavour="httpx") as client:
        first = await ask(client, tongue, {"model": model, **tongue.ask([])}, stream)
        assert (first.text, json.loads(first.arguments)) == ("Let me see.", {"city": "Oslo"})
        assert first.call
        assert first.reason == tongue.reasons[0]
        then = await ask(client, tongue, {"model": model, **tongue.ask(tongue.turn(first))}, stream)
    assert (then.text, then.call, then.reason) == ("It is warm.", "", tongue.reasons[1])
    assert min(*first.tokens, *then.tokens) > 0
    served = [request.body.decode() for request in world.servers[provider].requests]
    assert len(served) == 2
    assert all(PIXEL in body and "Be short." in body for body in served)
    assert "21 degrees" in served[1]


@IN_ALL
@ALL
@BOTH
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_conversation_goes_on_with_another_vendor(
    world: World, tongue: Tongue, provider: str, stream: bool, anyio_backend: str
) -> None:
    """The request is converted afresh for each: what one vendor has said, the next reads, named in the body alone."""
    others = [f"{name}/{model}" for name, model in MODELS.items() if name != provider]
    async with world.router as router, router.http_client(flavour="httpx") as client:
        body = {"model": f"{provider}/{MODELS[provider]}", "fallbacks": others}
        first = await ask(client, tongue, {**body, **tongue.ask([])}, stream)
        world.servers[provider].fail("a", Fault("status", status=529))
        then = await ask(client, tongue, {**body, **tongue.ask(tongue.turn(first))}, stream)
    assert then.text == "It is warm."
    next_in_line = others[0].partition("/")[0]
    assert len(world.servers[next_in_line].requests) == 1
