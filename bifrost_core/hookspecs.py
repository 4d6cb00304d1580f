"""Every hook: its rule, colour, signature and meaning, for those who write plugins and for the compiler.

A plugin is any object with methods (or a module with functions) named after hooks and marked::

    from bifrost_core import RefusedError, hookimpl

    class Curfew:
        @hookimpl
        def bifrost_authorize(self, request, call):
            if request.model.endswith("-large"):
                raise RefusedError("large models are for the day; use a small one")

*Rule*: how the results of several implementations combine (``Rule``). *Colour*: a hook written
``async def`` here takes plain and ``async def`` implementations, and a plain one may return an awaitable
when it has to wait; a hook written ``def`` takes plain ones only. An implementation may leave out
arguments that it does not need. The order of the phases is the Router's; within a phase ``tryfirst``
comes first, then the plugins in the order in which the Router was given them (on the way out: the
reverse), then ``trylast``.

Raising a ``CallError`` in a gate, a pipe or ``bifrost_authenticate`` is a decision and reaches the caller
as it is. Any other exception is a failure: the hook then *closes* (``PluginError``) or stays *open*
(logged, and as if the plugin were not there), as each hook says below and ``HookOptions`` may change.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

import attrs
import pluggy

from .attempts import Attempt
from .calls import Call, CallRecord, Principal
from .errors import CallError
from .responses import Response
from .types import Chunk, Request, Route

__all__ = ["HOOKS", "PROJECT", "Hook", "Rule", "StreamFilter", "hookimpl"]

PROJECT: Final = "bifrost"
"""pluggy's project name, the prefix of every hook and the group of entry points."""

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function as the implementation of a hook: pluggy's own marker, with its options
``tryfirst``, ``trylast``, ``specname``, ``optionalhook`` and, on gates, pipes and firsts, ``wrapper``."""

_hookspec = pluggy.HookspecMarker(PROJECT)


class Rule(StrEnum):
    """How the results of a hook's implementations combine."""

    COLLECT = "collect"  # all results that are not None
    GATE = "gate"  # all run; raising refuses; nothing is returned
    PIPE = "pipe"  # each gets the previous result; None leaves it as it is
    FIRST = "first"  # the first result that is not None
    NOTIFY = "notify"  # all run, whatever happens; nothing is returned


@attrs.frozen
class Hook:
    """What the compiler knows about a hook.

    Attributes:
        name: With the prefix (``"bifrost_authorize"``).
        rule: How results combine.
        is_async: Whether implementations may wait.
        arguments: Names of its arguments, the subject first.
        is_outward: On the way out: the plugins run in reverse order.
    """

    name: str
    rule: Rule
    is_async: bool
    arguments: tuple[str, ...]
    is_outward: bool

    @property
    def field(self) -> str:
        """The name without its prefix."""
        return self.name.removeprefix(f"{PROJECT}_")


@runtime_checkable
class StreamFilter(Protocol):
    """What one plugin does to the chunks of one streamed answer. Belongs to one call; never waits."""

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        """Take a chunk; return what may be delivered now: nothing, it, changed copies, or what was held back.

        Raises:
            GuardrailError: The rest of the answer is not delivered.
        """
        ...

    def finish(self) -> Iterable[Chunk]:
        """Return what is still held back, after the last chunk.

        Raises:
            GuardrailError: It is not delivered.
        """
        ...


_F = TypeVar("_F", bound=Callable[..., object])
_hooks: dict[str, Hook] = {}
_OUTWARD: Final = frozenset(
    {
        "bifrost_attempt_finished",
        "bifrost_stream_filter",
        "bifrost_guard_response",
        "bifrost_recover",
        "bifrost_call_finished",
    }
)


def _declare(rule: Rule, function: _F) -> _F:
    name = function.__name__
    _hooks[name] = Hook(
        name=name,
        rule=rule,
        is_async=inspect.iscoroutinefunction(function),
        arguments=tuple(inspect.signature(function).parameters),
        is_outward=name in _OUTWARD,
    )
    return _hookspec(function, firstresult=rule is Rule.FIRST)


def gate(function: _F) -> _F:
    """All implementations run; raising refuses."""
    return _declare(Rule.GATE, function)


def pipe(function: _F) -> _F:
    """Each implementation gets the previous one's result."""
    return _declare(Rule.PIPE, function)


def first(function: _F) -> _F:
    """The first answer wins."""
    return _declare(Rule.FIRST, function)


def notify(function: _F) -> _F:
    """Everybody is told."""
    return _declare(Rule.NOTIFY, function)


def collect(function: _F) -> _F:
    """All answers count."""
    return _declare(Rule.COLLECT, function)


# In the order of a call.


@first
async def bifrost_authenticate(call: Call) -> Principal | None:
    """Find out who calls, from ``call.virtual_key`` and ``call.headers``.

    Phase 1, once a call, before anything else. The first principal wins; None: somebody else may know.
    Raise ``VirtualKeyError`` for a credential that is wrong. Where the caller's bare model name may mean
    several (``call.choices``), this is where it can be decided. A failure closes.
    """


@gate
async def bifrost_authorize(request: Request, call: Call) -> None:
    """Admit the call or raise ``RefusedError``.

    Phase 2, before cached answers are looked up: may this principal use this operation, provider and
    model? Runs again for a model that phase 3 changed and for each fallback with its own model; a
    fallback that is refused is skipped. A failure closes.
    """


@pipe
async def bifrost_guard_request(request: Request, call: Call) -> Request | None:
    """Check the request or change it.

    Phase 3. Return a changed copy (``request.with_body(…)``), or None to leave it as it is; raise
    ``GuardrailError`` to block it. May change the model, which then passes phase 2 again. A failure
    closes; a plugin that only checks (``HookOptions(checks=True)``) may set it to open.
    """


@first
async def bifrost_cached_response(request: Request, call: Call) -> Response | None:
    """Answer without a provider.

    Phase 4. The first response wins and goes on to phase 8, on a stream as chunks; None is a miss. A
    failure is a miss too (open), unless the plugin sets it to closed.
    """


@pipe
async def bifrost_select_routes(routes: tuple[Route, ...], call: Call) -> Sequence[Route] | None:
    """Narrow down the routes that an attempt may take.

    Phase 5, before each attempt. Return some of ``routes``, in the order in which they should be tried,
    with other weights if need be (``attrs.evolve(route, weight=…)``); None leaves them as they are. A
    failure leaves them too (open); a plugin that restricts sets it to closed.
    """


@first
def bifrost_pick_route(routes: tuple[Route, ...], call: Call) -> Route | None:
    """Choose the route of an attempt.

    Phase 6, before each attempt. Return one of ``routes``; None lets the next plugin, in the end the
    balancer, choose. So does a failure (open), unless the plugin sets it to closed.
    """


@gate
async def bifrost_reserve(attempt: Attempt, call: Call) -> None:
    """Set aside what the attempt may use up, or raise ``BudgetExceededError`` or ``RateLimitError``.

    Phase 7, before each attempt, once ``attempt.route`` and ``attempt.price`` are known and before
    anything is sent. ``attempt.limit_output(tokens)`` lowers the output limit that will be sent. Once
    this has begun for an attempt, ``bifrost_attempt_finished`` follows for it on every plugin. A
    failure closes, unless the plugin (a soft budget) sets it to open.
    """


@notify
async def bifrost_attempt_finished(attempt: Attempt, call: Call) -> None:
    """Settle or release what ``bifrost_reserve`` set aside, and measure.

    After each attempt, whatever came of it: ``attempt.outcome`` is ``ok``, ``failed``, ``refused`` or
    ``cancelled``. Every plugin is reached, in cancelled calls too. A failure is logged.
    """


@collect
def bifrost_stream_filter(call: Call) -> StreamFilter | None:
    """Make the object that checks or changes the chunks of this call's streamed answer.

    Phase 8, once a call, streams only; None: this call needs none. The output of one plugin's filter
    is the input of the next. A failure, of ``feed`` and ``finish`` too, ends the stream (closed, kind
    ``guardrail_blocked``), unless the plugin sets it to open.
    """


@pipe
async def bifrost_guard_response(response: Response, call: Call) -> Response | None:
    """Check the answer or change it.

    Phase 9, for cached answers too. Return a changed copy (``response.with_text(…)``), or None to leave
    it as it is; raise ``GuardrailError`` to block it. A plugin without a stream filter gets streamed
    answers here, assembled, before any of it is delivered, unless it says
    ``HookOptions(stream="off")``. A failure closes, unless the plugin sets it to open.
    """


@first
async def bifrost_recover(error: CallError, call: Call) -> Response | None:
    """Turn an error into an answer.

    Phase 10, on every ``CallError``, refusals included, as long as no chunk is out. The first response
    wins and is not guarded again; None, and a failure too, leave the error as it is.
    """


@notify
async def bifrost_call_finished(record: CallRecord, call: Call) -> None:
    """Observe how the call ended.

    Phase 11, exactly once for every call, refused and cancelled ones included, before the call returns
    (a stream: when it is left): log, store, alert. What is slow belongs into a queue. A failure is logged.
    """


# Around the Router's life.


@collect
def bifrost_lifespan(router: Any) -> AbstractAsyncContextManager[object] | None:
    """Return an async context manager that is entered when the Router starts and left when it closes.

    Entered in the order of the plugins, left in reverse, both in one task of the Router's own, so that
    it may hold a task group. ``router`` is the ``Router``. Each may take 10 s to enter, and 10 s to leave. A
    failure at the start keeps the Router from starting; one at the end is logged.
    """


@collect
def bifrost_providers(router: Any) -> Iterable[Any] | None:
    """Return further providers (``providers.base.Provider``) for the Router.

    Once, when the Router is built; ``router`` is the ``Router``. A failure keeps it from being built.
    """


@first
async def bifrost_resolve_secret(reference: str) -> str | None:
    """Return the credential that a key's reference (``vault:…``) stands for; None: not one of mine.

    When the Router starts, and when a secret is refreshed. A failure makes the key unusable.
    """


HOOKS: Final[Mapping[str, Hook]] = MappingProxyType(_hooks)
"""Every hook by its name, in the order of a call."""
