"""The vendors' SDKs as ways to ask: straight to the server, or through a Router in front of it."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

from benchmarks.canned import MESSAGES, MODEL
from bifrost_core import Mistral, Router, Timeout, sdks

from .targets import PLAIN_TOKENS, SECONDS, Target, Way

__all__ = ["anthropic_way", "mistralai_way", "openai_way", "straight", "through"]

Opened: TypeAlias = Callable[[Target], AbstractAsyncContextManager[Way]]


def mistralai_way(client: Any, model: str) -> Way:
    """``mistralai``, used as its documentation shows."""

    async def plain() -> str:
        answer = await client.chat.complete_async(model=model, messages=MESSAGES, max_tokens=PLAIN_TOKENS)
        text: str = answer.choices[0].message.content
        return text

    async def stream(tokens: int) -> str:
        pieces: list[str] = []
        events = await client.chat.stream_async(model=model, messages=MESSAGES, max_tokens=tokens)
        async with events:
            async for event in events:
                pieces.append(event.data.choices[0].delta.content)  # noqa: PERF401 # as users write it
        return "".join(pieces)

    return Way(plain, stream)


def openai_way(client: Any, model: str) -> Way:
    """The same for ``openai``."""
    create = client.chat.completions.create

    async def plain() -> str:
        answer = await create(model=model, messages=MESSAGES, max_tokens=PLAIN_TOKENS)
        text: str = answer.choices[0].message.content
        return text

    async def stream(tokens: int) -> str:
        events = await create(model=model, messages=MESSAGES, max_tokens=tokens, stream=True)
        return "".join([event.choices[0].delta.content or "" async for event in events])

    return Way(plain, stream)


def anthropic_way(client: Any, model: str) -> Way:
    """The same for ``anthropic``."""
    create = client.messages.create

    async def plain() -> str:
        answer = await create(model=model, messages=MESSAGES, max_tokens=PLAIN_TOKENS)
        text: str = answer.content[0].text
        return text

    async def stream(tokens: int) -> str:
        events = await create(model=model, messages=MESSAGES, max_tokens=tokens, stream=True)
        return "".join([event.delta.text async for event in events if event.type == "content_block_delta"])

    return Way(plain, stream)


def _client(name: str, target: Target) -> Any:
    """The SDK's own client, with its own HTTP client."""
    sdk = importlib.import_module("mistralai.client" if name == "mistralai" else name)
    key, url = target.secrets[0], target.base_url
    if name == "mistralai":
        return sdk.Mistral(api_key=key, server_url=url, timeout_ms=SECONDS * 1000)
    if name == "openai":
        return sdk.AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, timeout=SECONDS)
    return sdk.AsyncAnthropic(api_key=key, base_url=url, max_retries=0, timeout=SECONDS)


def straight(way: Callable[[Any, str], Way]) -> Opened:
    """The SDK speaks to the server itself.

    Args:
        way: Uses the client of the SDK that it is named after.
    """
    name = way.__name__.removesuffix("_way")

    @asynccontextmanager
    async def opened(target: Target) -> AsyncGenerator[Way]:
        async with _client(name, target) as client:
            yield way(client, MODEL)

    return opened


def through(way: Callable[[Any, str], Way]) -> Opened:
    """The SDK speaks to a Router, which speaks to the server.

    Args:
        way: As of ``straight``.
    """
    make = {"mistralai_way": sdks.mistral, "openai_way": sdks.async_openai, "anthropic_way": sdks.async_anthropic}

    @asynccontextmanager
    async def opened(target: Target) -> AsyncGenerator[Way]:
        provider = Mistral(list(target.secrets), base_url=target.base_url)
        async with Router([provider], timeout=Timeout(total=SECONDS, connect=SECONDS)) as router:
            yield way(make[way.__name__](router), f"mistral/{MODEL}")

    return opened
