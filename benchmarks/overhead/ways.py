"""The ways to ask: plain clients, the Router on each engine, and, where they are installed, SDKs and LiteLLM.

Every way sends the same conversation to the same server and reads the answer as its users do: JSON parsed
on a plain answer, each event parsed on a stream. A way is opened once and used by all rounds.
"""

from __future__ import annotations

import importlib
import itertools
import json
import tempfile
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bifrost_plugins.allow_list import AllowListPlugin, Grant
from bifrost_plugins.request_log import RequestLogPlugin
from bifrost_plugins.virtual_keys import VirtualKeyPlugin

from benchmarks.canned import MESSAGES, MODEL
from benchmarks.plugins import full_set
from bifrost_core import Mistral, Router, Timeout

from .sdks import mistralai_way, openai_way, straight
from .targets import PLAIN_TOKENS, SECONDS, Target, Way, WayEntry, chosen

__all__ = ["installed_ways"]

_VIRTUAL_KEY: Final = "sk-bf-benchmark-0123456789abcdef"


def _body(*, stream: bool, tokens: int) -> dict[str, Any]:
    return {"model": MODEL, "messages": MESSAGES, "max_tokens": tokens, "stream": stream}


def _client(library: str, **options: Any) -> Callable[[Target], AbstractAsyncContextManager[Way]]:
    """The plain client of httpx or httpx2, used as its documentation shows."""

    @asynccontextmanager
    async def opened(target: Target) -> AsyncGenerator[Way]:
        http = importlib.import_module(library)
        url = f"{target.base_url}/v1/chat/completions"
        headers = {"authorization": f"Bearer {target.secrets[0]}"}
        limits = {name: http.Limits(**value) for name, value in options.items()}
        async with http.AsyncClient(timeout=SECONDS, **limits) as client:

            async def plain() -> str:
                response = await client.post(url, json=_body(stream=False, tokens=PLAIN_TOKENS), headers=headers)
                response.raise_for_status()
                text: str = response.json()["choices"][0]["message"]["content"]
                return text

            async def stream(tokens: int) -> str:
                pieces: list[str] = []
                body = _body(stream=True, tokens=tokens)
                async with client.stream("POST", url, json=body, headers=headers) as response:
                    response.raise_for_status()
                    async for line in response.aiter_lines():
                        if line.startswith("data: ") and line != "data: [DONE]":
                            pieces.append(  # noqa: PERF401 # as users write it
                                json.loads(line[6:])["choices"][0]["delta"]["content"]
                            )
                return "".join(pieces)

            yield Way(plain, stream)

    return opened


def _aiohttp() -> Callable[[Target], AbstractAsyncContextManager[Way]]:
    """The plain session of aiohttp, used as its documentation shows."""

    @asynccontextmanager
    async def opened(target: Target) -> AsyncGenerator[Way]:
        aiohttp: Any = importlib.import_module("aiohttp")
        url = f"{target.base_url}/v1/chat/completions"
        headers = {"authorization": f"Bearer {target.secrets[0]}"}
        timeout, connector = aiohttp.ClientTimeout(total=SECONDS), aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

            async def plain() -> str:
                body = _body(stream=False, tokens=PLAIN_TOKENS)
                async with session.post(url, json=body, headers=headers, raise_for_status=True) as response:
                    text: str = (await response.json())["choices"][0]["message"]["content"]
                return text

            async def stream(tokens: int) -> str:
                pieces: list[str] = []
                body = _body(stream=True, tokens=tokens)
                async with session.post(url, json=body, headers=headers, raise_for_status=True) as response:
                    async for line in response.content:
                        if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                            pieces.append(  # noqa: PERF401 # as users write it
                                json.loads(line[6:])["choices"][0]["delta"]["content"]
                            )
                return "".join(pieces)

            yield Way(plain, stream)

    return opened


def _full() -> Callable[[Target], AbstractAsyncContextManager[Way]]:
    """The Router on httpx with six plugins as a service configures them; no question twice, so that the cache misses."""

    @asynccontextmanager
    async def opened(target: Target) -> AsyncGenerator[Way]:
        numbers = itertools.count()
        provider = Mistral(list(target.secrets), base_url=target.base_url)
        with tempfile.TemporaryDirectory() as folder:
            plugins = full_set(Path(folder))
            limits = Timeout(total=SECONDS, connect=SECONDS)
            async with Router([provider], engine="httpx", plugins=plugins, timeout=limits) as router:
                (keys,) = [plugin for plugin in plugins if isinstance(plugin, VirtualKeyPlugin)]
                key = (await keys.issue("benchmark", team="search")).secret

                def asked() -> list[dict[str, str]]:
                    return [{"role": "user", "content": f"{next(numbers)} {MESSAGES[-1]['content']}"}]

                async def plain() -> str:
                    model = f"mistral/{MODEL}"
                    answer = await router.chat(model, asked(), max_tokens=PLAIN_TOKENS, virtual_key=key)
                    return answer.text

                async def stream(tokens: int) -> str:
                    pieces: list[str] = []
                    chunks = router.stream(f"mistral/{MODEL}", asked(), max_tokens=tokens, virtual_key=key)
                    async with chunks:
                        async for chunk in chunks:
                            pieces.append(chunk.text)  # noqa: PERF401 # as users write it
                    return "".join(pieces)

                yield Way(plain, stream)

    return opened


def _router(engine: str, *, plugins: bool = False) -> Callable[[Target], AbstractAsyncContextManager[Way]]:
    """The Router; with plugins, those that ship with it and watch every call."""

    @asynccontextmanager
    async def opened(target: Target) -> AsyncGenerator[Way]:
        found: list[object] = []
        options: dict[str, Any] = {}
        if plugins:
            grant = Grant("benchmark", keys=_VIRTUAL_KEY, models="mistral/*")
            found = [AllowListPlugin([grant]), RequestLogPlugin(_forget)]
            options = {"virtual_key": _VIRTUAL_KEY, "metadata": {"team": "benchmarks"}}
        provider = Mistral(list(target.secrets), base_url=target.base_url)
        async with Router(
            [provider], engine=engine, plugins=found, timeout=Timeout(total=SECONDS, connect=SECONDS)
        ) as router:

            async def plain() -> str:
                answer = await router.chat(f"mistral/{MODEL}", MESSAGES, max_tokens=PLAIN_TOKENS, **options)
                return answer.text

            async def stream(tokens: int) -> str:
                pieces: list[str] = []
                async with router.stream(f"mistral/{MODEL}", MESSAGES, max_tokens=tokens, **options) as chunks:
                    async for chunk in chunks:
                        pieces.append(chunk.text)  # noqa: PERF401 # as users write it
                return "".join(pieces)

            yield Way(plain, stream)

    return opened


def _forget(event: object) -> None:
    """A sink that costs nothing: what is measured is the log, not a disk."""


def _litellm(*, router: bool) -> Callable[[Target], AbstractAsyncContextManager[Way]]:
    """LiteLLM's function, or its Router over as many deployments as there are keys."""

    @asynccontextmanager
    async def opened(target: Target) -> AsyncGenerator[Way]:
        sdk: Any = importlib.import_module("litellm")
        sdk.suppress_debug_info = True
        asked = [
            {"model": f"mistral/{MODEL}", "api_key": secret, "api_base": f"{target.base_url}/v1", "timeout": SECONDS}
            for secret in target.secrets
        ]
        if router:
            models = [{"model_name": MODEL, "litellm_params": params} for params in asked]
            complete: Any = sdk.Router(model_list=models, num_retries=0).acompletion
            fixed: dict[str, Any] = {"model": MODEL}
        else:
            complete, fixed = sdk.acompletion, asked[0]

        async def plain() -> str:
            answer = await complete(**fixed, messages=MESSAGES, max_tokens=PLAIN_TOKENS)
            text: str = answer.choices[0].message.content
            return text

        async def stream(tokens: int) -> str:
            events = await complete(**fixed, messages=MESSAGES, max_tokens=tokens, stream=True)
            return "".join([event.choices[0].delta.content or "" async for event in events])

        yield Way(plain, stream)

    return opened


def installed_ways(only: Sequence[str] = ()) -> list[WayEntry]:
    """What can be measured here; ``only`` as of ``chosen``."""
    entries: list[WayEntry] = []
    unbounded = {"limits": {"max_connections": None, "max_keepalive_connections": None}}
    for library in ("httpx", "httpx2"):
        base = f"{library}.AsyncClient"
        entries += [
            WayEntry(base, base, (library,), _client(library)),
            WayEntry(f"{base}, no limits", base, (library,), _client(library, **unbounded)),
            WayEntry(f"Router on {library}", base, (library,), _router(library)),
            WayEntry(f"Router on {library}, 2 plugins", base, (library,), _router(library, plugins=True)),
        ]
    entries += [
        WayEntry("Router on httpx, 6 plugins", "httpx.AsyncClient", ("httpx",), _full()),
        WayEntry("aiohttp.ClientSession", "aiohttp.ClientSession", ("aiohttp",), _aiohttp()),
        WayEntry("Router on aiohttp", "aiohttp.ClientSession", ("aiohttp",), _router("aiohttp")),
        WayEntry("mistralai", "httpx2.AsyncClient", ("mistralai", "httpx2"), straight(mistralai_way)),
        WayEntry("openai", "httpx2.AsyncClient", ("openai", "httpx2"), straight(openai_way)),
        WayEntry("litellm.acompletion", "httpx.AsyncClient", ("litellm",), _litellm(router=False)),
        WayEntry("litellm.Router", "httpx.AsyncClient", ("litellm",), _litellm(router=True)),
    ]
    return chosen(entries, only)
