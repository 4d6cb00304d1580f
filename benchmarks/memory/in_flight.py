"""Calls that wait for a provider which does not answer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

import anyio
import httpx

from benchmarks.canned import MODEL
from benchmarks.holding_engine import HoldingEngine
from bifrost_core import Attempt, Key, Mistral, Router, Timeout, hookimpl

from .weighing import in_use

__all__ = ["KINDS", "UNJUDGED", "weigh"]

KINDS: Final = {
    "task": "for comparison: a task that waits and does nothing",
    "plain": "a plain call in flight (no network)",
    "stream": "a stream that has not begun (no network)",
    "begun": "a stream after its first piece (no network)",
    "socket": "a plain call in flight, with its connection (httpx)",
    "client": "for comparison: a post of httpx.AsyncClient in flight, with its connection",
}
UNJUDGED: Final = frozenset({"task", "client"})
"""What stands there for comparison."""

_PROMPT: Final = [{"role": "user", "content": "Name the bridge of Norse myth."}]
_LONG: Final = 3_600.0


async def weigh(kind: str, count: int) -> float:
    """Bytes of each of so many calls in flight, the task that made it included."""
    if kind == "socket":
        return await _on_sockets(count)
    if kind == "client":
        return await _of_client(count)
    engine = HoldingEngine(begins=kind == "begun")
    async with _router(engine=engine) as router:
        one: Callable[[], Coroutine[Any, Any, None]] = engine.wait
        if kind != "task":
            one = _plain(router) if kind == "plain" else _stream(router)
            await one()
        engine.is_holding = True
        async with anyio.create_task_group() as tasks:
            base = in_use()
            for _ in range(count):
                tasks.start_soon(one)
            await engine.until_held(count)
            weight = (in_use() - base) / count
            engine.release()
    return weight


def _router(**options: Any) -> Router:
    base_url = options.pop("base_url", "https://api.mistral.ai")
    keys = [Key(f"sk-simulated-{number}", id=f"k{number}") for number in range(10)]
    return Router(
        [Mistral(keys, base_url=base_url)], timeout=Timeout(total=_LONG, connect=_LONG, pool=_LONG), **options
    )


def _plain(router: Router) -> Callable[[], Coroutine[Any, Any, None]]:
    async def one() -> None:
        await router.chat(f"mistral/{MODEL}", _PROMPT)

    return one


def _stream(router: Router) -> Callable[[], Coroutine[Any, Any, None]]:
    async def one() -> None:
        async with router.stream(f"mistral/{MODEL}", _PROMPT) as reading:
            async for _ in reading:
                continue

    return one


class _Attempts:
    """A plugin that sees every attempt, so that it can be told when their requests are on their way."""

    def __init__(self) -> None:
        self.begun: list[Attempt] = []

    @hookimpl
    def bifrost_reserve(self, attempt: Attempt) -> None:
        self.begun.append(attempt)

    async def until_sent(self, count: int) -> None:
        while len(self.begun) < count or not all(attempt.sent for attempt in self.begun):  # noqa: ASYNC110 # nobody tells when
            await anyio.sleep(0.005)
        await anyio.sleep(0.1)  # the first byte was about to go; now the rest has gone, too


async def _on_sockets(count: int) -> float:
    """The same over connections that the system has taken and nobody reads; what the kernel keeps of them is its own."""
    attempts = _Attempts()
    with socket.create_server(("127.0.0.1", 0), backlog=count + 16) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with _router(base_url=url, engine="httpx", plugins=[attempts]) as router:
            one = _plain(router)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one)
                await attempts.until_sent(1)
                base = in_use()
                for _ in range(count):
                    tasks.start_soon(one)
                await attempts.until_sent(count + 1)
                weight = (in_use() - base) / count
                tasks.cancel_scope.cancel()
    return weight


async def _of_client(count: int) -> float:
    """The same without a Router, through the client of httpx as its documentation shows it."""
    sent = 0

    async def trace(event: str, _: object) -> None:
        nonlocal sent
        sent += event == "http11.receive_response_headers.started"

    with socket.create_server(("127.0.0.1", 0), backlog=count + 16) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/chat/completions"
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(timeout=None, limits=limits) as client:  # noqa: S113 # held on purpose

            async def one() -> None:
                body = {"model": MODEL, "messages": _PROMPT}
                await client.post(url, json=body, extensions={"trace": trace})

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one)
                base = 0
                for number in (1, count + 1):
                    while sent < number:  # noqa: ASYNC110 # the trace may come before the wait
                        await anyio.sleep(0.005)
                    if number == 1:
                        base = in_use()
                        for _ in range(count):
                            tasks.start_soon(one)
                weight = (in_use() - base) / count
                tasks.cancel_scope.cancel()
    return weight
