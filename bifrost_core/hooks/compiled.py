"""Plugins in, one callable per hook out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from inspect import isawaitable
from types import MappingProxyType
from typing import Any, Final

import attrs
from anyio import to_thread

from bifrost_core._errors import ConfigError
from bifrost_core.attempts import Attempt
from bifrost_core.calls import Call, CallRecord, Principal
from bifrost_core.clocks import Clock, SystemClock
from bifrost_core.errors import CallError
from bifrost_core.hookspecs import HOOKS, Rule
from bifrost_core.lifespans import Lifespan
from bifrost_core.responses import Response
from bifrost_core.types import Request, Route

from .accepting import acceptance
from .chains import async_chain, collect_chain, pick_chain
from .filters import FilterChain
from .implementations import Implementation
from .options import POLICIES
from .registry import Registered, register

__all__ = ["Hooks", "compile_hooks"]

_SLOW: Final = 0.010  # seconds on the event loop that are worth a line in the log
_logger = logging.getLogger(__name__)


def _nothing(router: object) -> tuple[()]:  # noqa: ARG001 # stands where a hook takes the Router
    return ()


@attrs.frozen(eq=False, kw_only=True)
class Hooks:
    """Every hook as one callable, or None where nobody implements it.

    ``lifespan`` and ``providers``, which run once, are always there.

    Way-in and way-out hooks raise what a plugin decided (any ``CallError``, whose fields the Router
    fills in), ``PluginError`` for a failure that closes, and ``DeadlineExceededError`` when the call's time
    ends in one.

    Attributes:
        authenticate: Takes the call; gives the principal, None when nobody knows.
        authorize: Takes request and call.
        guard_request: Takes request and call; gives the request to go on with.
        cached_response: Takes request and call; gives a response or None.
        select_routes: Takes routes and call; gives the routes to go on with.
        pick_route: Takes routes and call; gives one of the routes or None. Not async.
        reserve: Takes attempt and call.
        attempt_finished: Takes attempt and call; reaches every plugin. Raises nothing but a cancellation,
            when all have run.
        stream_filter: Takes the call; gives all its filters as one, or None. Not async.
        guard_response: Takes response and call; gives the response to go on with. For plain answers, and
            for cached ones that are streamed (before they are cut into chunks).
        guard_stream: The same for the assembled answer of a live stream: only plugins without a stream
            filter that do not say ``stream="off"``. None: no stream needs to be held back.
        recover: Takes error and call; gives a response or None.
        call_finished: Takes record and call; as ``attempt_finished``.
        lifespan: Takes the Router; gives each plugin's context manager, in the order to enter.
        providers: Takes the Router; gives the plugins' providers.
        resolve_secret: Takes a reference; gives the credential or None.
        plugins: The plugins by name, in the order given.
        implementations: What runs, by hook name, in call order, wrappers first.
    """

    authenticate: Callable[[Call], Awaitable[Principal | None]] | None = None
    authorize: Callable[[Request, Call], Awaitable[None]] | None = None
    guard_request: Callable[[Request, Call], Awaitable[Request]] | None = None
    cached_response: Callable[[Request, Call], Awaitable[Response | None]] | None = None
    select_routes: Callable[[tuple[Route, ...], Call], Awaitable[tuple[Route, ...]]] | None = None
    pick_route: Callable[[tuple[Route, ...], Call], Route | None] | None = None
    reserve: Callable[[Attempt, Call], Awaitable[None]] | None = None
    attempt_finished: Callable[[Attempt, Call], Awaitable[None]] | None = None
    stream_filter: Callable[[Call], FilterChain | None] | None = None
    guard_response: Callable[[Response, Call], Awaitable[Response]] | None = None
    guard_stream: Callable[[Response, Call], Awaitable[Response]] | None = None
    recover: Callable[[CallError, Call], Awaitable[Response | None]] | None = None
    call_finished: Callable[[CallRecord, Call], Awaitable[None]] | None = None
    lifespan: Callable[[Any], tuple[Lifespan, ...]] = _nothing
    providers: Callable[[Any], tuple[Any, ...]] = _nothing
    resolve_secret: Callable[[str], Awaitable[str | None]] | None = None
    plugins: Mapping[str, object] = attrs.field(factory=dict[str, object])
    implementations: Mapping[str, tuple[Implementation, ...]] = attrs.field(
        factory=dict[str, tuple[Implementation, ...]], repr=False
    )

    def describe(self) -> dict[str, tuple[str, ...]]:
        """Plugin names in call order by hook name; hooks that nobody implements are left out."""
        return {
            hook: tuple(each.plugin for each in implementations)
            for hook, implementations in self.implementations.items()
        }

    def failures(self) -> dict[tuple[str, str], int]:
        """How often each plugin has failed in each hook so far, by plugin name and hook name; without zeros."""
        counts: dict[tuple[str, str], int] = {}
        for hook, implementations in self.implementations.items():
            for each in implementations:
                if each.failures:
                    counts[each.plugin, hook] = counts.get((each.plugin, hook), 0) + each.failures
        return counts


def compile_hooks(
    plugins: Iterable[object] = (),
    *,
    require: Iterable[str] = (),
    clock: Clock | None = None,
    measure: bool = False,
) -> Hooks:
    """Check plugins, put them in order and compile each hook to one callable.

    Args:
        plugins: Instances or modules; the first is outermost.
        require: Names of hooks that at least one plugin must implement.
        clock: Measures how long a failing plugin stays switched off.
        measure: Log every plain implementation that keeps the event loop for more than 10 ms.

    Raises:
        PluginError: A plugin is not usable; names it, the hook and what to do.
        ConfigError: A required hook does not exist, or nobody implements it.
    """
    clock = SystemClock() if clock is None else clock
    named, registered = register(plugins)
    _check_required((require,) if isinstance(require, str) else require, registered)
    made = {
        hook: [(each, _implementation(each, clock, measure=measure)) for each in found]
        for hook, found in registered.items()
    }
    fields: dict[str, Any] = {
        HOOKS[hook].field: _compile(hook, [each for _, each in found]) for hook, found in made.items()
    }
    filtering = {each.plugin for each in registered.get("bifrost_stream_filter", ())}
    holding = [
        (each, implementation)
        for each, implementation in made.get("bifrost_guard_response", ())
        if each.plugin not in filtering and each.options.stream != "off"
    ]
    if holding:
        fields["guard_stream"] = _compile("bifrost_guard_response", [each for _, each in holding])
    return Hooks(
        **fields,
        plugins=MappingProxyType(named),
        implementations=MappingProxyType({hook: tuple(each for _, each in found) for hook, found in made.items()}),
    )


def _check_required(require: Iterable[str], registered: Mapping[str, Sequence[Registered]]) -> None:
    for hook in require:
        if hook not in HOOKS:
            raise ConfigError(f"require: {hook!r} is no hook; the hooks are {', '.join(HOOKS)}", field="require")
        if all(each.is_wrapper for each in registered.get(hook, ())):
            raise ConfigError(f"require: no plugin implements {hook}; add one or leave it out", field="require")


def _implementation(each: Registered, clock: Clock, *, measure: bool) -> Implementation:
    invoke = each.invoke
    if each.options.thread:
        invoke = _in_thread(invoke)
    elif measure and not each.is_wrapper:
        invoke = _measured(invoke, each, clock)
    return Implementation.build(
        each.plugin,
        each.hook,
        invoke,
        accept=acceptance(each.hook.name, checks=each.options.checks),
        never_waits=each.never_waits,
        options=each.options,
        policy=POLICIES[each.hook.name],
        clock=clock,
        is_wrapper=each.is_wrapper,
    )


def _in_thread(invoke: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    async def run(subject: Any, call: Any) -> Any:
        # Given up when its time is over: the thread ends by itself, and nobody looks at what it returns.
        # In a tuple, as trio refuses functions that return coroutines.
        (result,) = await to_thread.run_sync(lambda: (invoke(subject, call),), abandon_on_cancel=True)
        return await result if isawaitable(result) else result

    return run


def _measured(invoke: Callable[[Any, Any], Any], each: Registered, clock: Clock) -> Callable[[Any, Any], Any]:
    def run(subject: Any, call: Any) -> Any:
        began = clock()
        try:
            return invoke(subject, call)
        finally:
            took = clock() - began
            if took > _SLOW:
                _logger.warning(
                    "plugin %s: %s kept the event loop for %.0f ms; make it async or say thread=True",
                    each.plugin,
                    each.hook.name,
                    took * 1000,
                )

    return run


def _compile(hook_name: str, found: Sequence[Implementation]) -> Callable[..., Any]:
    hook = HOOKS[hook_name]
    plain = [each for each in found if not each.is_wrapper]
    wrappers = [each for each in found if each.is_wrapper]
    if hook.rule is Rule.COLLECT:
        return _collector(hook_name, plain)
    if not hook.is_async:
        return pick_chain(plain, wrappers)
    chain = async_chain(hook.rule, plain, wrappers)

    def of_call(call: Call) -> Awaitable[Any]:
        return chain(call, call)

    def of_subject(subject: object) -> Awaitable[Any]:
        return chain(subject, None)

    if len(hook.arguments) == 2:
        return chain
    return of_call if hook.arguments == ("call",) else of_subject


def _collector(hook_name: str, found: Sequence[Implementation]) -> Callable[[Any], Any]:
    chain = collect_chain(found)

    def stream_filter(call: Call) -> FilterChain | None:
        filters = chain(call, call)
        return FilterChain.build(filters, call) if filters else None

    def lifespan(router: Any) -> tuple[Lifespan, ...]:
        return tuple(Lifespan(each.plugin, manager, each.timeout) for each, manager in chain(router, None))

    def providers(router: Any) -> tuple[Any, ...]:
        return tuple(provider for _, brought in chain(router, None) for provider in brought)

    return {
        "bifrost_stream_filter": stream_filter,
        "bifrost_lifespan": lifespan,
        "bifrost_providers": providers,
    }[hook_name]
