"""Plugins that do nothing, in every phase of a call: what they cost is what being asked costs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import FunctionType
from typing import Any, Final, Literal

from bifrost_core import hookimpl
from bifrost_core.hookspecs import HOOKS, Hook, Rule

__all__ = ["KINDS", "PHASES", "Kind", "watcher"]

Kind = Literal["sync", "async", "waiting", "wrapper"]

KINDS: Final[tuple[Kind, ...]] = ("sync", "async", "waiting", "wrapper")
"""``waiting`` is an ``async def`` that awaits something, if only for no time: it gets a time cap."""

PHASES: Final = tuple(hook for hook in HOOKS.values() if "call" in hook.arguments)
"""The hooks of a call, in its order."""

_WRAPPED: Final = frozenset({Rule.GATE, Rule.PIPE, Rule.FIRST})


async def _no_time() -> None:
    """Waits for nothing."""


def _sync(self: object, subject: object, call: object) -> None:
    """Nothing."""


async def _async(self: object, subject: object, call: object) -> None:
    """Nothing."""


async def _waiting(self: object, subject: object, call: object) -> None:
    await _no_time()


def _wrapper(self: object, subject: object, call: object) -> Generator[None, Any, Any]:
    return (yield)


def _sync_of_call(self: object, call: object) -> None:
    """Nothing."""


async def _async_of_call(self: object, call: object) -> None:
    """Nothing."""


async def _waiting_of_call(self: object, call: object) -> None:
    await _no_time()


def _wrapper_of_call(self: object, call: object) -> Generator[None, Any, Any]:
    return (yield)


_BODIES: Final[dict[str, tuple[Callable[..., Any], Callable[..., Any]]]] = {
    "sync": (_sync, _sync_of_call),
    "async": (_async, _async_of_call),
    "waiting": (_waiting, _waiting_of_call),
    "wrapper": (_wrapper, _wrapper_of_call),
}


def _implementation(hook: Hook, kind: Kind) -> Callable[..., Any]:
    """A method with the hook's own argument names, which is how an implementation says what it takes."""
    if not hook.is_async and kind != "wrapper":
        kind = "sync"
    if kind == "wrapper" and hook.rule not in _WRAPPED:
        kind = "sync"
    body = _BODIES[kind][len(hook.arguments) == 1]
    assert isinstance(body, FunctionType)  # noqa: S101 # one of the functions above; for the type checker
    names = ("self", *hook.arguments)
    made = FunctionType(body.__code__.replace(co_varnames=names, co_name=hook.name), body.__globals__, hook.name)
    return hookimpl(made, wrapper=kind == "wrapper")


def watcher(kind: Kind = "sync") -> object:
    """A plugin that implements every phase and changes nothing.

    Args:
        kind: How, where the hook allows it; otherwise with a plain function.
    """
    methods = {hook.name: _implementation(hook, kind) for hook in PHASES}
    made: object = type(f"{kind.title()}Watcher", (), methods)()
    return made
