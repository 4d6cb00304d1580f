"""The two that are compared: a plain client with three retries, and the Router."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeAlias

import anyio
import httpx

from bifrost_core import Mistral, Router, Timeout

from .situations import KEYS

__all__ = ["CLIENTS", "Ask"]

Ask: TypeAlias = Callable[[bool], Awaitable[str]]
"""Asks once, for a stream or not; the answer's text. Raises where the call fails."""

_MODEL: Final = "mistral-small-latest"
_MESSAGES: Final = [{"role": "user", "content": "hello"}]
_RETRIES: Final = 3
_FIRST, _LONGEST = 0.5, 8.0  # seconds of pause, doubling
_LONGEST_WAIT: Final = 60.0  # seconds of a stated wait that are kept
_PATIENCE: Final = 2.0  # seconds of silence, for both


class _PassingError(Exception):
    """A status that is worth another try."""

    def __init__(self, status: int, wait: float | None) -> None:
        super().__init__(f"status {status}")
        self.wait = wait


@asynccontextmanager
async def plain(base: str) -> AsyncIterator[Ask]:
    """Httpx with the retries that the SDKs of model providers make.

    Three of them, after a pause of 0.5 s that doubles up to 8 s, shortened by up to a quarter at random, or of what
    ``retry-after`` says where that is at most 60 s; after 408, 409, 429, 5xx and failures to connect or to read. The
    key is the next of the list for every request.

    Source:
        https://github.com/openai/openai-python and https://github.com/anthropics/anthropic-sdk-python,
        ``_base_client.py`` (there with two retries by default).
    """
    keys, rng = itertools.cycle(KEYS), random.Random(1)
    async with httpx.AsyncClient(base_url=base, timeout=_PATIENCE) as client:

        async def once(stream: bool) -> str:
            headers = {"authorization": f"Bearer {next(keys)}"}
            body = {"model": _MODEL, "messages": _MESSAGES, "stream": stream}
            if not stream:
                reply = await client.post("/v1/chat/completions", json=body, headers=headers)
                _check(reply)
                return str(reply.json()["choices"][0]["message"]["content"])
            pieces: list[str] = []
            async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
                _check(answer)
                async for line in answer.aiter_lines():
                    if line == "data: [DONE]":
                        break
                    if line.startswith("data: "):
                        pieces.append(json.loads(line[6:])["choices"][0]["delta"].get("content") or "")
            return "".join(pieces)

        async def ask(stream: bool) -> str:
            for number in itertools.count():
                wait: float | None = None
                try:
                    return await once(stream)
                except _PassingError as exc:
                    if number == _RETRIES:
                        raise
                    wait = exc.wait
                except httpx.TransportError:
                    if number == _RETRIES:
                        raise
                pause = min(_LONGEST, _FIRST * 2.0**number) * (1 - rng.random() / 4)
                await anyio.sleep(pause if wait is None else wait)
            raise AssertionError  # the loop has no end but these

        yield ask


def _check(reply: httpx.Response) -> None:
    if reply.status_code in (408, 409, 429) or reply.status_code >= 500:
        stated = reply.headers.get("retry-after", "")
        wait = float(stated) if stated.isascii() and stated.isdigit() else None
        raise _PassingError(reply.status_code, None if wait is None or wait > _LONGEST_WAIT else wait)
    reply.raise_for_status()


@asynccontextmanager
async def routed(base: str) -> AsyncIterator[Ask]:
    """The Router over the same keys, as it comes but for the same patience with silence."""
    limits = Timeout(attempt=_PATIENCE, first_token=_PATIENCE, idle=_PATIENCE)
    async with Router([Mistral(KEYS, base_url=base)], timeout=limits, rng=random.Random(1)) as router:

        async def ask(stream: bool) -> str:
            if not stream:
                return (await router.chat(f"mistral/{_MODEL}", _MESSAGES)).text
            async with router.stream(f"mistral/{_MODEL}", _MESSAGES, resume=True) as reading:
                return "".join([piece async for piece in reading.text()])

        yield ask


CLIENTS: Final[dict[str, Callable[[str], AbstractAsyncContextManager[Ask]]]] = {
    "httpx, 3 retries": plain,
    "Router": routed,
}
