"""What it costs an SDK to go through the Router: each beside itself, straight to the same server.

The first rows have no SDK: the Router's own call, the same bytes through the transport that lies in an SDK's client,
and through that client. What lies between the first two is the seam: the transport, the door and the dialect.

Of Anthropic's SDK the two rows differ by more: straight it is answered in its own shape, through the Router a model
of Mistral answers, and everything is translated both ways.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.canned import MESSAGES, MODEL
from bifrost_core import Mistral, Router, Timeout

from .rounds import Figure
from .sdks import anthropic_way, mistralai_way, openai_way, straight, through
from .targets import PLAIN_TOKENS, SECONDS, Target, Way, WayEntry, chosen

__all__ = ["installed_dialects", "table"]

_OWN = "Router"
_TRANSPORT = "Router's transport"
_CLIENT = "Router's HTTP client"
_PATH = "/mistral/v1/chat/completions"


def _router(target: Target) -> Router:
    provider = Mistral(list(target.secrets), base_url=target.base_url)
    return Router([provider], timeout=Timeout(total=SECONDS, connect=SECONDS))


@asynccontextmanager
async def _own(target: Target) -> AsyncGenerator[Way]:
    """``router.chat`` and ``router.stream``, with the same answer read."""
    async with _router(target) as router:

        async def plain() -> str:
            return (await router.chat(f"mistral/{MODEL}", MESSAGES, max_tokens=PLAIN_TOKENS)).text

        async def stream(tokens: int) -> str:
            async with router.stream(f"mistral/{MODEL}", MESSAGES, max_tokens=tokens) as chunks:
                return "".join([text async for text in chunks.text()])

        yield Way(plain, stream)


@asynccontextmanager
async def _transport(target: Target) -> AsyncGenerator[Way]:
    """A request that is ready, and the body of its answer as it comes: what an SDK's client adds is left out."""
    async with _router(target) as router:
        client = router.http_client()
        transport = client._transport  # noqa: SLF001 # what lies below the client is what is measured

        def request(tokens: int, *, stream: bool) -> Any:
            body = {"model": f"mistral/{MODEL}", "messages": MESSAGES, "max_tokens": tokens, "stream": stream}
            return client.build_request("POST", _PATH, json=body)

        @functools.cache
        def streamed(tokens: int) -> Any:
            return request(tokens, stream=True)

        asked = request(PLAIN_TOKENS, stream=False)

        async def plain() -> str:
            response = await transport.handle_async_request(asked)
            text: str = json.loads(b"".join([piece async for piece in response.stream]))["choices"][0]["message"][
                "content"
            ]
            return text

        async def stream(tokens: int) -> str:
            response = await transport.handle_async_request(streamed(tokens))
            lines = b"".join([piece async for piece in response.stream]).split(b"\n\n")
            events = [json.loads(line[6:]) for line in lines if line and line != b"data: [DONE]"]
            return "".join([event["choices"][0]["delta"]["content"] for event in events])

        yield Way(plain, stream)


@asynccontextmanager
async def _client(target: Target) -> AsyncGenerator[Way]:
    """The client's ``post`` and ``stream``, as plain code would use them."""
    async with _router(target) as router:
        client = router.http_client()
        body = {"model": f"mistral/{MODEL}", "messages": MESSAGES}

        async def plain() -> str:
            response = await client.post(_PATH, json={**body, "max_tokens": PLAIN_TOKENS})
            response.raise_for_status()
            text: str = response.json()["choices"][0]["message"]["content"]
            return text

        async def stream(tokens: int) -> str:
            pieces: list[str] = []
            asked = {**body, "max_tokens": tokens, "stream": True}
            async with client.stream("POST", _PATH, json=asked) as response:
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if line.startswith("data: ") and line != "data: [DONE]":
                        pieces.append(  # noqa: PERF401 # as users write it
                            json.loads(line[6:])["choices"][0]["delta"]["content"]
                        )
            return "".join(pieces)

        yield Way(plain, stream)


def installed_dialects(only: Sequence[str] = ()) -> list[WayEntry]:
    """The pairs whose SDK is here, each second one against the first; ``only`` as of ``chosen``."""
    entries = [
        WayEntry(_OWN, _OWN, (), _own),
        WayEntry(_TRANSPORT, _OWN, (), _transport),
        WayEntry(_CLIENT, _OWN, (), _client),
    ]
    for way in (mistralai_way, openai_way, anthropic_way):
        name = way.__name__.removesuffix("_way")
        entries += [
            WayEntry(name, name, (name,), straight(way)),
            WayEntry(f"{name}, through the Router", name, (name,), through(way)),
        ]
    return chosen(entries, only)


def table(figures: Sequence[Figure]) -> str:
    """One row per pair: CPU and median latency of both, their ratios, and what is more in CPU (by the ratio) and Python calls."""
    lines = [
        "CPU in us and p50 in ms of a call (of a stream: for all of it); ratio of CPU = median (quartiles) over the rounds.",
        "",
        "| mode | in flight | straight | CPU | through the Router | CPU | more | ratio | p50 straight | p50 through | ratio "
        "| Python calls more |",
        "|---|---:|---|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    found = {(figure.mode, figure.in_flight, figure.way): figure for figure in figures}
    for figure in figures:
        base = found.get((figure.mode, figure.in_flight, figure.base))
        if base is None or base is figure:
            continue
        ratio = figure.cpu_ratio
        lines.append(
            f"| {figure.mode} | {figure.in_flight} | {base.way} | {base.cpu.median:.0f} | {figure.way} "
            f"| {figure.cpu.median:.0f} | {(ratio.median - 1) * base.cpu.median:+.0f} "
            f"| {ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f}) "
            f"| {base.p50:.2f} | {figure.p50:.2f} | {figure.p50 / base.p50:.2f} "
            f"| {figure.python_calls - base.python_calls:+.0f} |"
        )
    return "\n".join(lines)
