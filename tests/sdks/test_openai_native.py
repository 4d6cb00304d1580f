"""The SDK ``openai`` in front of OpenAI: what it gives through the Router is what it gives straight."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import pytest

from bifrost_core import OpenAI, Router
from bifrost_core.testing import SimulatedOpenAI

sdk = pytest.importorskip("openai", reason="the SDK of OpenAI is not installed: pip install openai")
httpx = pytest.importorskip("httpx2" if sdk.__version__.split(".")[0] >= "3" else "httpx")

Json: TypeAlias = dict[str, Any]

SECRET = "sk-simulated-0123456789"
MODEL = "gpt-4.1-mini"
CITY: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASKED: Json = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How is the weather?"}],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": CITY}}],
    "max_tokens": 200,
    "seed": 3,
}
INPUT: Json = {
    "instructions": "Be brief.",
    "input": [{"role": "user", "content": "How is the weather?"}],  # as hooks see it
    "tools": [{"type": "function", "name": "weather", "parameters": CITY, "strict": False}],
    "max_output_tokens": 200,
}
DRAWN = {"id", "created", "created_at", "completed_at", "item_id", "obfuscation", "call_id", "system_fingerprint"}


def answer(body: Json) -> Json:
    """What the simulated model says."""
    return {"content": "I look.", "tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}


@pytest.fixture
def anyio_backend() -> str:
    """The SDK is written for asyncio."""
    return "asyncio"


@pytest.fixture
def server() -> Iterator[SimulatedOpenAI]:
    with SimulatedOpenAI([SECRET], answer=answer, keep_bodies=True) as running:
        yield running


@pytest.fixture
async def straight(server: SimulatedOpenAI) -> AsyncIterator[Any]:
    async with sdk.AsyncOpenAI(api_key=SECRET, base_url=f"{server.base_url}/v1", max_retries=0) as client:
        yield client


def through(router: Router) -> Any:
    return sdk.AsyncOpenAI(
        api_key="sk-bf-0123456789",
        base_url="http://b/openai",
        max_retries=0,
        http_client=router.http_client(flavour=httpx.__name__),
    )


def told(thing: Any) -> Any:
    """An SDK's object without what is drawn anew for each answer."""
    if isinstance(thing, dict):
        return {name: told(value) for name, value in thing.items() if name not in DRAWN}
    return [told(each) for each in thing] if isinstance(thing, list) else thing


async def chat(client: Any, model: str) -> Any:
    return (await client.chat.completions.create(model=model, **ASKED)).to_dict()


async def chat_stream(client: Any, model: str) -> Any:
    options = {"include_usage": True}
    stream = await client.chat.completions.create(model=model, stream=True, stream_options=options, **ASKED)
    return [chunk.to_dict() async for chunk in stream]


async def responses(client: Any, model: str) -> Any:
    return (await client.responses.create(model=model, **INPUT)).to_dict()


async def responses_stream(client: Any, model: str) -> Any:
    stream = await client.responses.create(model=model, stream=True, **INPUT)
    return [event.to_dict() async for event in stream]


async def embeddings(client: Any, model: str) -> Any:
    prefix = model.rpartition("/")
    name = f"{prefix[0]}{prefix[1]}text-embedding-3-small"
    return (await client.embeddings.create(model=name, input=["one", "two"], dimensions=8)).to_dict()


async def moderations(client: Any, model: str) -> Any:
    prefix = model.rpartition("/")
    return (
        await client.moderations.create(model=f"{prefix[0]}{prefix[1]}omni-moderation-latest", input="hate")
    ).to_dict()


Asking: TypeAlias = Callable[[Any, str], Any]
EVERY = [chat, chat_stream, responses, responses_stream, embeddings, moderations]


@pytest.mark.parametrize("ask", EVERY, ids=lambda ask: ask.__name__)
async def test_an_answer_and_its_request_are_those_without_a_router(
    ask: Asking, server: SimulatedOpenAI, straight: Any
) -> None:
    here = await ask(straight, MODEL)
    (sent,) = server.requests
    server.reset()  # the same key's first request draws the same answer
    async with Router([OpenAI([SECRET], base_url=server.base_url)]) as router:
        there = await ask(through(router), f"openai/{MODEL}")
    assert told(there) == told(here)
    (request,) = server.requests
    asked = json.loads(request.body or b"")
    if asked.pop("max_completion_tokens", None):  # the newer word of the two that OpenAI has for it
        asked["max_tokens"] = ASKED["max_tokens"]
    assert asked == json.loads(sent.body or b"")
