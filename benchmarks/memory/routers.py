"""Routers as their users make them, which then do nothing."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any, Final

from bifrost_plugins.budgets import Budget, BudgetPlugin
from bifrost_plugins.guardrails import GuardrailPlugin, Literals, Pii
from bifrost_plugins.request_log import RequestLogPlugin
from bifrost_plugins.response_cache import ResponseCachePlugin
from bifrost_plugins.virtual_keys import VirtualKeyPlugin

from benchmarks.canned import MODEL
from benchmarks.null_engine import NullEngine
from bifrost_core import Key, Mistral, Router

from .weighing import in_use

__all__ = ["KINDS", "weigh"]

KINDS: Final = {
    "built": "an idle Router of 10 keys, with its real engine",
    "used": "the same after 50 calls and streams (no network)",
    "plugins": "the same with five plugins, after 50 calls and streams",
}
_KEYS: Final = 10
_CALLS: Final = 50


def _forget(event: object) -> None:
    """A sink that keeps nothing."""


def _plugins() -> list[object]:
    return [
        VirtualKeyPlugin(),
        BudgetPlugin(budgets=[Budget(limit="1000000")], max_output=1_000),
        ResponseCachePlugin(),
        GuardrailPlugin(rules=[Literals(["ragnarok"]), Pii(["email"])]),
        RequestLogPlugin(_forget),
    ]


async def weigh(kind: str, count: int) -> float:
    """Bytes of each of so many Routers; what a process has once, whatever their number, is not in it."""
    async with AsyncExitStack() as stack:
        await _made(stack, kind, 0)
        base = in_use()
        for number in range(count):
            await _made(stack, kind, 1 + number)
        return (in_use() - base) / count


async def _made(stack: AsyncExitStack, kind: str, number: int) -> None:
    keys = [Key(f"sk-simulated-{number:04}-{key:04}", id=f"k{key}") for key in range(_KEYS)]
    options: dict[str, Any] = {} if kind == "built" else {"engine": NullEngine(tokens=2)}
    more: dict[str, Any] = {}
    plugins = _plugins() if kind == "plugins" else []
    router = await stack.enter_async_context(Router([Mistral(keys)], plugins=plugins, **options))
    if plugins:
        keeper = plugins[0]
        assert isinstance(keeper, VirtualKeyPlugin)  # noqa: S101 # for the type checker
        more["virtual_key"] = (await keeper.issue("benchmark")).secret
    if kind == "built":
        return
    for call in range(_CALLS):
        text = f"Name a bridge of Norse myth, number {call}."
        if call % 2:
            await router.chat(f"mistral/{MODEL}", text, **more)
        else:
            async with router.stream(f"mistral/{MODEL}", text, **more) as reading:
                async for _ in reading:
                    continue
