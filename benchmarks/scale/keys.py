"""A call with few keys and with many: nothing happens, some rest, plugins are on, the provider says no."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from bifrost_plugins.virtual_keys import VirtualKeyPlugin

from benchmarks.canned import MESSAGES, MODEL
from benchmarks.null_engine import NullEngine
from bifrost_core import BadRequestError, Key, Mistral, Router, RouteRef
from bifrost_core.engines import Exchange
from bifrost_core.engines.base import HttpStream

from .curves import Curve

__all__ = ["SITUATIONS", "measure"]

_MODEL: Final = f"mistral/{MODEL}"
_RESTING: Final = 10  # one key in so many

SITUATIONS: Final = ("all keys awake", "one in ten rests", "virtual keys on", "refused (400)")
_FIRST: Final = "first call"


class _Refusal:
    """An answer that says no to the request. See ``HttpStream``."""

    def __init__(self) -> None:
        self.status = 400
        self.headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"object":"error","message":"temperature is too high","type":"invalid_request_error"}'

    async def aclose(self) -> None:
        """Nothing is held."""


class _Refusing(NullEngine):
    """Refuses every request as a mistake of the caller's: the way of an error, after which no key rests."""

    async def open(self, exchange: Exchange) -> HttpStream:  # type: ignore[override] # noqa: ARG002 # an answer is a stream, and every request gets the same
        return _Refusal()


async def _opened(stack: AsyncExitStack, situation: str, keys: int) -> tuple[Callable[[], Awaitable[Any]], float]:
    """A way to make one call, and the seconds of CPU that the first one took."""
    options: dict[str, Any] = {"engine": NullEngine()}
    more: dict[str, Any] = {}
    plugin: VirtualKeyPlugin | None = None
    if situation == "virtual keys on":
        plugin = VirtualKeyPlugin()
        options["plugins"] = [plugin]
    elif situation == "refused (400)":
        options["engine"] = _Refusing()
    provider = Mistral([Key(f"sk-simulated-{number:06}", id=f"k{number}") for number in range(keys)])
    router = await stack.enter_async_context(Router([provider], **options))
    if plugin is not None:
        more["virtual_key"] = (await plugin.issue("benchmark")).secret

    async def call() -> None:
        with suppress(BadRequestError):
            await router.chat(_MODEL, MESSAGES, **more)

    gc.collect()
    begun = time.process_time()
    await call()
    first = time.process_time() - begun
    if situation == "one in ten rests":
        for number in range(0, keys - 1, _RESTING):
            router.open_route(RouteRef("mistral", MODEL, f"k{number}"), scope="key")
    return call, first


async def measure(sizes: Sequence[int], *, calls: int, rounds: int) -> list[Curve]:
    """Measure; situations and sizes take turns, and each figure is the best of the rounds.

    Args:
        sizes: Numbers of keys.
        calls: Calls of each in a round.
        rounds: How often.
    """
    best: dict[tuple[str, int], float] = {}
    first: dict[int, float] = {}
    async with AsyncExitStack() as stack:
        ways: dict[tuple[str, int], Callable[[], Awaitable[Any]]] = {}
        for situation in SITUATIONS:
            for size in sizes:
                ways[situation, size], took = await _opened(stack, situation, size)
                if situation == SITUATIONS[0]:
                    first[size] = took
        gc.collect()
        for number in range(rounds + 1):  # the first round warms up
            for name, call in ways.items():
                begun = time.process_time()
                for _ in range(calls):
                    await call()
                if number:
                    took = (time.process_time() - begun) / calls
                    best[name] = min(took, best.get(name, took))
    curves = [
        Curve("keys", situation, "us", {size: best[situation, size] * 1e6 for size in sizes})
        for situation in SITUATIONS
    ]
    return [*curves, Curve("keys", _FIRST, "us", {size: first[size] * 1e6 for size in sizes}, is_judged=False)]
