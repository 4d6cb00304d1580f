"""A plugin's hooks, driven one by one with what a Router really hands out; every mistake is told in words.

A ``Router`` over ``Simulated`` providers makes three calls: one that is answered, one that is streamed and one that
fails. A probe stands in it and hands everything that it is given to the plugin. Whatever the plugin does with it, the
calls go on as if it had done nothing, so that every hook is reached and all mistakes are found at once.
"""

from __future__ import annotations

import copy
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from inspect import isawaitable
from pathlib import PurePath
from types import coroutine
from typing import Any, ClassVar, Final

import anyio
import attrs
from attrs.exceptions import FrozenInstanceError

from bifrost_core.attempts import Attempt
from bifrost_core.calls import Call, CallRecord, Principal
from bifrost_core.errors import CallError, PluginError
from bifrost_core.hooks import FilterChain, HookOptions
from bifrost_core.hooks.chains import async_chain, collect_chain, pick_chain
from bifrost_core.hooks.implementations import Implementation
from bifrost_core.hookspecs import HOOKS, Rule, StreamFilter, hookimpl
from bifrost_core.prices import Price, PriceBook
from bifrost_core.responses import Response
from bifrost_core.retries import RetryPolicy
from bifrost_core.router import Router
from bifrost_core.types import Chunk, Request, Route

from .serving.laws import Fault, SimulatedKey
from .simulated import Simulated

__all__ = ["Driver"]

_BLOCKS: Final = 0.1  # seconds on the event loop that are a mistake, not a hiccup of the machine
_TRIES: Final = 3  # so often it has to take that long
_LONGEST: Final = 5.0  # seconds for a hook whose only cap is the call's deadline
_CALL_SECONDS: Final = 300.0
_PRINCIPAL: Final = Principal(
    id="sample", tenant="sample-tenant", team="sample-team", customer="sample-customer", virtual_key_id="sample-key"
)
_VIRTUAL_KEY: Final = "sk-bf-sample-key-of-check-plugin"
_REFERENCE: Final = "vault:sample/key"
_QUESTION: Final = "Name the rainbow bridge of Norse myth."
_PRICE: Final = Price(input="0.1", output="0.3")
_MAY_SET: Final[Mapping[str, frozenset[str]]] = {  # of the call, beside ``state`` and ``metadata``
    "bifrost_authenticate": frozenset({"request", "fallbacks"}),
    "bifrost_authorize": frozenset({"fallbacks"}),
    "bifrost_guard_request": frozenset({"fallbacks"}),
}
_COPIES: Final[Mapping[type, str]] = {
    Request: "request.with_body(…)",
    Response: "response.with_text(…)",
    Chunk: "chunk.with_text(…)",
}


class Driver:
    """Drives the hooks of one plugin.

    Args:
        implementations: By hook name, as compiled.

    Attributes:
        mistakes: Hook name and the words that follow it, in the order in which they were found.
        since: Which hook has the event loop, and since when by ``time.perf_counter``; None while none has.
    """

    def __init__(self, implementations: Mapping[str, Sequence[Implementation]]) -> None:
        self.mistakes: list[tuple[str, str]] = []
        self.since: tuple[str, float] | None = None
        self._longest = 0.0
        self._given = ""
        self._runs = {hook: [self._prepared(each) for each in found] for hook, found in implementations.items()}

    def _prepared(self, implementation: Implementation) -> tuple[Implementation, bool]:
        """The implementation with every failure told and every step measured; and whether it is closed by itself."""
        invoke, hook = implementation.invoke, implementation.hook

        def measured(subject: Any, call: Any) -> Any:
            with self._step(hook.name):
                result = invoke(subject, call)
            return self._timed(result, hook.name) if hook.is_async and isawaitable(result) else result

        return (
            attrs.evolve(
                implementation,
                invoke=measured,
                closed=True,
                may_rest=False,
                timeout=_LONGEST if implementation.timeout is None else implementation.timeout,
            ),
            implementation.closed,
        )

    async def run(self) -> None:
        """Drive everything that the plugin implements."""
        faults = [Fault("status", status=503)]
        providers = [
            Simulated(["sample"], prices={"model": _PRICE}),
            Simulated([SimulatedKey("sample", faults=faults)], name="failing", prices={"model": _PRICE}),
        ]
        prices = PriceBook({name: price for each in providers for name, price in each.prices.items()})
        probe = _Probe(self)
        async with Router(
            providers, plugins=[probe], prices=prices, retry=RetryPolicy(max_attempts=1), timeout=_CALL_SECONDS
        ) as router:
            self._given = "when a Router is built"
            self.collect("bifrost_providers", router, None)
            self._given = f"with {_REFERENCE!r}"
            await self.drive("bifrost_resolve_secret", _REFERENCE, None)
            self._given = "when a Router starts"
            managers = self.collect("bifrost_lifespan", router, None)
            await self._live(managers, lambda: self._calls(router, probe))

    async def _calls(self, router: Router, probe: _Probe) -> None:
        how: dict[str, Any] = {"max_tokens": 64, "virtual_key": _VIRTUAL_KEY, "metadata": probe.metadata}
        self._given = "in a call that is answered"
        await router.chat("simulated/model", _QUESTION, **how)
        self._given = "in a call that is streamed"
        async with router.stream("simulated/model", _QUESTION, **how) as stream:
            async for _ in stream:
                continue
        self._given = "in a call that fails"
        try:
            await router.chat("failing/model", _QUESTION, **how)
        except CallError:
            return

    # -- one hook -------------------------------------------------------------------------------------

    async def drive(self, hook: str, subject: Any, call: Call | None) -> None:
        """Run the plugin's implementations of a hook that may wait."""
        for implementation, closes in self._runs.get(hook, ()):
            rule = implementation.hook.rule
            plain, wrappers = ((), (implementation,)) if implementation.is_wrapper else ((implementation,), ())
            chain = async_chain(rule, plain, wrappers)
            for _ in range(_TRIES):
                if self._is_told(hook):
                    break
                with self._watched(implementation, subject, call, closes=closes):
                    await chain(subject, call)
                if self._longest <= _BLOCKS:
                    break
            else:
                self._note_block(implementation)

    def drive_plain(self, hook: str, subject: Any, call: Call) -> None:
        """Run the plugin's implementations of a first that never waits."""
        for implementation, closes in self._runs.get(hook, ()):
            plain, wrappers = ((), (implementation,)) if implementation.is_wrapper else ((implementation,), ())
            chain = pick_chain(plain, wrappers)
            for _ in range(_TRIES):
                if self._is_told(hook):
                    break
                with self._watched(implementation, subject, call, closes=closes):
                    chain(subject, call)
                if self._longest <= _BLOCKS:
                    break
            else:
                self._note_block(implementation)

    def collect(self, hook: str, subject: Any, call: Call | None) -> list[tuple[Implementation, Any]]:
        """What the plugin's implementations of a collect answer."""
        found: list[tuple[Implementation, Any]] = []
        for implementation, closes in self._runs.get(hook, ()):
            if not self._is_told(hook):
                with self._watched(implementation, subject, call, closes=closes):
                    found += collect_chain([implementation])(subject, call)
        return found

    def feed(self, filters: list[tuple[Implementation, Any]], call: Call, chunk: Chunk | None) -> None:
        """Hand a chunk to the plugin's stream filters; None: the stream has ended."""
        for implementation, stream_filter in filters:
            hook = implementation.hook.name
            if not self._is_told(hook):
                with self._watched(implementation, chunk, call, closes=True), self._step(hook):
                    chain = FilterChain.build([(implementation, stream_filter)], call)
                    chain.finish() if chunk is None else chain.feed(chunk)
                if self._longest > _BLOCKS:
                    self._note_block(implementation)

    def _is_told(self, hook: str) -> bool:
        return any(told == hook for told, _ in self.mistakes)

    @contextmanager
    def _watched(
        self, implementation: Implementation, subject: Any, call: Call | None, *, closes: bool
    ) -> Generator[None]:
        """Note what is wrong with a run: what it raises, and what it changes that is not its own."""
        hook = implementation.hook.name
        before, fields = _picture(subject), {} if call is None else _fields(call)
        self._longest = 0.0
        try:
            yield
        except PluginError as exc:
            if exc.__cause__ is not None:
                self.mistakes.append((hook, self._told(implementation, exc.__cause__)))
        except CallError as exc:
            self._check_decision(implementation, exc, closes=closes)
        finally:
            self._check_changes(hook, subject, before)
            if call is not None:
                self._check_call(hook, call, fields)

    def _told(self, implementation: Implementation, error: BaseException) -> str:
        """What a failure is called here, where nothing in its text is secret."""
        fault = implementation.fault(error)
        if not fault.startswith("failed with"):
            return fault
        *_, (frame, line) = (
            (frame, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if not frame.f_globals.get("__name__", "").startswith("attr.")  # which says that a class is frozen
        )
        place = f"{PurePath(frame.f_code.co_filename).name}:{line}"
        if isinstance(error, FrozenInstanceError) or (isinstance(error, TypeError) and "support item" in str(error)):
            return f"tries to change in place what is frozen ({place}); return a changed copy or None"
        text = f": {error}" if str(error) else ""
        return f"{fault}{text} ({place}) {self._given}"

    def _check_decision(self, implementation: Implementation, error: CallError, *, closes: bool) -> None:
        hook, name = implementation.hook, type(error).__name__
        if hook.rule is Rule.NOTIFY:
            self.mistakes.append((hook.name, f"raises {name}, but all is over by then; refuse in an earlier hook"))
        elif hook.name == "bifrost_recover":
            self.mistakes.append((hook.name, f"raises {name}, which is dropped; return None to leave the error"))
        elif hook.rule is Rule.FIRST and not closes:
            self.mistakes.append(
                (hook.name, f'raises {name}, which counts as a failure of an open hook; set on_error="closed"')
            )

    def _check_changes(self, hook: str, subject: Any, before: Any) -> None:
        after = _picture(subject)
        if after == before or self._is_told(hook):
            return
        if isinstance(subject, Attempt):
            names = [f"attempt.{name}" for name in before if before[name] != after[name]]
            self.mistakes.append((hook, f"sets {' and '.join(names)}, which the Router keeps; only read what it says"))
            return
        what = subject.response if isinstance(subject, CallRecord) else subject
        kind = next(kind for kind in _COPIES if isinstance(what, kind))
        instead = (
            f"return {_COPIES[kind]} instead" if HOOKS[hook].rule is Rule.PIPE or kind is Chunk else "only read it"
        )
        self.mistakes.append((hook, f"changes the {kind.__name__.lower()} in place; {instead}"))

    def _check_call(self, hook: str, call: Call, before: Mapping[str, Any]) -> None:
        """What the plugin set on the call is told and taken back, as the call goes on without it."""
        after = _fields(call)
        if after["metadata"] is before["metadata"] and before["metadata copy"] != call.metadata:
            if not self._is_told(hook):
                text = "changes call.metadata in place, which is the caller's; say call.metadata = {**call.metadata, …}"
                self.mistakes.append((hook, text))
            before["metadata"].clear()
        may = _MAY_SET.get(hook, frozenset()) | {"state", "metadata", "metadata copy"}
        changed = [name for name in before if name not in may and after[name] is not before[name]]
        if changed and not self._is_told(hook):
            names = " and ".join(f"call.{name}" for name in changed)
            self.mistakes.append((hook, f"sets {names}, which the Router keeps; only read what it says"))
        for name, value in before.items():
            if name != "metadata copy":
                setattr(call, name, value)

    # -- time -----------------------------------------------------------------------------------------

    def _note_block(self, implementation: Implementation) -> None:
        hook = implementation.hook
        if not self._is_told(hook.name):
            instead = (
                "make it async or say HookOptions(thread=True)" if hook.is_async else "keep what is slow elsewhere"
            )
            self.mistakes.append((hook.name, f"keeps the event loop for more than {_BLOCKS * 1000:.0f} ms; {instead}"))

    @contextmanager
    def _step(self, hook: str) -> Generator[None]:
        """A piece of the plugin's own work, in which nothing else runs."""
        began = time.perf_counter()
        self.since = hook, began
        try:
            yield
        finally:
            self.since = None
            self._longest = max(self._longest, time.perf_counter() - began)

    @coroutine
    def _timed(self, awaitable: Awaitable[Any], hook: str) -> Generator[Any, Any, Any]:
        """Await, with each step between two waits measured."""
        steps: Any = awaitable.__await__()
        go_on, value = steps.send, None
        while True:
            try:
                with self._step(hook):
                    waits_for = go_on(value)
            except StopIteration as stop:
                return stop.value
            try:
                value = yield waits_for
                go_on = steps.send
            except BaseException as exc:  # a cancellation: the plugin's to clean up after
                go_on, value = steps.throw, exc

    async def _live(self, managers: list[tuple[Implementation, Any]], inside: Callable[[], Awaitable[None]]) -> None:
        """Enter the lifespans, do what is inside, leave them in reverse."""
        if not managers:
            await inside()
            return
        (implementation, manager), *rest = managers
        hook, seconds = "bifrost_lifespan", implementation.timeout or _LONGEST
        what = "start"
        with anyio.CancelScope(deadline=anyio.current_time() + seconds) as scope:
            if not await self._is_passed(implementation, manager.__aenter__()):
                return
            what, scope.deadline = "stop", math.inf
            await self._live(rest, inside)
            self._given, scope.deadline = "when a Router closes", anyio.current_time() + seconds
            await self._is_passed(implementation, manager.__aexit__(None, None, None))
        if scope.cancelled_caught:
            self.mistakes.append(
                (hook, f"takes longer than {seconds:g} s to {what} (HookOptions(timeout=…) changes that)")
            )

    async def _is_passed(self, implementation: Implementation, half: Awaitable[Any]) -> bool:
        """Enter or leave a lifespan; False when that fails."""
        self._longest = 0.0
        try:
            await self._timed(half, implementation.hook.name)
        except Exception as exc:  # a plugin's, whatever it is
            self.mistakes.append((implementation.hook.name, self._told(implementation, exc)))
            return False
        if self._longest > _BLOCKS:
            self._note_block(implementation)
        return True


def _picture(value: Any) -> Any:
    """A copy of what can be changed in place of something that a hook is given."""
    if isinstance(value, Request):
        return copy.deepcopy(dict(value.body))
    if isinstance(value, (Response, Chunk)):
        return copy.deepcopy(value.raw)
    if isinstance(value, CallRecord):
        return _picture(value.response)
    if isinstance(value, Attempt):
        names = [field.name for field in attrs.fields(Attempt) if not field.name.startswith("_")]
        return {name: getattr(value, name) for name in names if name != "output_upper"}  # limit_output lowers it
    return None


def _fields(call: Call) -> dict[str, Any]:
    fields = {field.name: getattr(call, field.name) for field in attrs.fields(Call)}
    return {**fields, "metadata copy": copy.deepcopy(dict(call.metadata))}


class _ProbeFilter:
    """Hands every chunk to the plugin's filters and lets it through as it was."""

    def __init__(self, driver: Driver, filters: list[tuple[Implementation, Any]], call: Call) -> None:
        self._driver, self._filters, self._call = driver, filters, call

    def feed(self, chunk: Chunk) -> list[Chunk]:
        self._driver.feed(self._filters, self._call, chunk)
        return [chunk]

    def finish(self) -> list[Chunk]:
        self._driver.feed(self._filters, self._call, None)
        return []


class _Probe:
    """Hands what the Router hands out to the plugin, in the driver's own calls; those that the plugin makes go past."""

    hook_options: ClassVar[Mapping[str, HookOptions]] = {
        name: HookOptions(timeout=None)
        for name, hook in HOOKS.items()
        if hook.is_async and name != "bifrost_resolve_secret"
    }

    def __init__(self, driver: Driver) -> None:
        self.metadata: dict[str, Any] = {}
        self._driver = driver

    async def _drive(self, hook: str, subject: Any, call: Call) -> None:
        if call.metadata is self.metadata:
            await self._driver.drive(hook, subject, call)

    @hookimpl
    async def bifrost_authenticate(self, call: Call) -> Principal:
        await self._drive("bifrost_authenticate", call, call)
        return _PRINCIPAL

    @hookimpl
    async def bifrost_authorize(self, request: Request, call: Call) -> None:
        await self._drive("bifrost_authorize", request, call)

    @hookimpl
    async def bifrost_guard_request(self, request: Request, call: Call) -> None:
        await self._drive("bifrost_guard_request", request, call)

    @hookimpl
    async def bifrost_cached_response(self, request: Request, call: Call) -> None:
        await self._drive("bifrost_cached_response", request, call)

    @hookimpl
    async def bifrost_select_routes(self, routes: tuple[Route, ...], call: Call) -> None:
        await self._drive("bifrost_select_routes", routes, call)

    @hookimpl
    def bifrost_pick_route(self, routes: tuple[Route, ...], call: Call) -> None:
        if call.metadata is self.metadata:
            self._driver.drive_plain("bifrost_pick_route", routes, call)

    @hookimpl
    async def bifrost_reserve(self, attempt: Attempt, call: Call) -> None:
        await self._drive("bifrost_reserve", attempt, call)

    @hookimpl
    async def bifrost_attempt_finished(self, attempt: Attempt, call: Call) -> None:
        await self._drive("bifrost_attempt_finished", attempt, call)

    @hookimpl
    def bifrost_stream_filter(self, call: Call) -> StreamFilter | None:
        if call.metadata is not self.metadata:
            return None
        return _ProbeFilter(self._driver, self._driver.collect("bifrost_stream_filter", call, call), call)

    @hookimpl
    async def bifrost_guard_response(self, response: Response, call: Call) -> None:
        await self._drive("bifrost_guard_response", response, call)

    @hookimpl
    async def bifrost_recover(self, error: CallError, call: Call) -> None:
        await self._drive("bifrost_recover", error, call)

    @hookimpl
    async def bifrost_call_finished(self, record: CallRecord, call: Call) -> None:
        await self._drive("bifrost_call_finished", record, call)
