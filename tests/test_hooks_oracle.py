"""Random plugin sets through ``Hooks`` and through pluggy itself: the same order, result and exception.

What can be compared, and how:

- pluggy calls the plugin that was registered last first. Hooks on the way out are compared with plugins
  registered in the order of the list, hooks on the way in with plugins registered in reverse. Of several
  plugins marked ``trylast`` pluggy calls the one registered first first, which would turn them round;
  the library keeps the list's order there, so a set has at most one such plugin and one such wrapper.
- A *first* is pluggy's ``firstresult``: order, result and exception are the same. A *gate* is a
  ``firstresult`` whose implementations all return None. A *pipe* and a *notify* have no equivalent in
  how results combine: here their implementations return None (and those of a notify do not raise, as the
  library logs that and pluggy stops), and order and exception are the same.
- Wrappers run, replace results and exceptions, swallow and raise in both alike. What a wrapper of a gate
  may not return is left out; a wrapper that returns None takes a first's answer away in both, but leaves a
  pipe as it is, so results of pipes are not compared.
- Plugins are plain functions: pluggy does not await. An exception that is no ``CallError`` is the
  ``__cause__`` of a ``PluginError``; hooks that would be open are set to closed, and where they can
  not be (``bifrost_recover``) nothing raises.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator
from typing import Any

import attrs
import pluggy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bifrost_core.calls import Call
from bifrost_core.errors import PluginError, RefusedError
from bifrost_core.hooks import HookOptions, compile_hooks
from bifrost_core.hookspecs import HOOKS, PROJECT, Rule, hookimpl
from bifrost_core.responses import Response
from bifrost_core.types import Operation, Request, Route

REQUEST = Request(Operation.CHAT, "mistral/small")
CALL = Call("call-1", Operation.CHAT, REQUEST)
ROUTES = tuple(Route("mistral", "small", str(number)) for number in range(8))
HOOK_NAMES = [
    "bifrost_authorize",
    "bifrost_reserve",
    "bifrost_cached_response",
    "bifrost_pick_route",
    "bifrost_guard_request",
    "bifrost_guard_response",
    "bifrost_recover",
    "bifrost_call_finished",
]
MAY_NOT_RAISE = {"bifrost_recover", "bifrost_call_finished"}
RESULT_COUNTS = {Rule.FIRST}


@attrs.frozen
class Part:
    """One implementation: where it stands and what it does."""

    number: int
    takes: tuple[str, ...]
    mark: str
    does: str  # of a wrapper: what it does with what comes back

    @property
    def is_wrapper(self) -> bool:
        return self.does.startswith("wrap")


class FailureError(Exception):
    """A failure, told apart by its number."""


def error_of(part: Part) -> Exception:
    return RefusedError(str(part.number)) if "refuse" in part.does else FailureError(str(part.number))


@st.composite
def sets(draw: st.DrawFn) -> tuple[str, list[Part]]:
    hook = draw(st.sampled_from(HOOK_NAMES))
    rule = HOOKS[hook].rule
    does = ["nothing"]
    if hook not in MAY_NOT_RAISE:
        does += ["raise", "refuse"]
    if rule is Rule.FIRST:
        does += ["answer"]
    if rule is not Rule.NOTIFY:
        does += ["wrap and pass on", "wrap and return none"]
        if hook not in MAY_NOT_RAISE:
            does += ["wrap and swallow", "wrap, raise before", "wrap, refuse before", "wrap, raise after"]
            does += ["wrap and swap", "wrap and swap, refuse"]
        if rule is Rule.FIRST:
            does += ["wrap and replace"]
    parts: list[Part] = []
    last: set[bool] = set()
    for number in range(draw(st.integers(0, 6))):
        part = Part(
            number,
            draw(st.sampled_from([(), ("subject",), ("call",), ("subject", "call"), ("call", "subject")])),
            draw(st.sampled_from(["", "", "tryfirst", "trylast"])),
            draw(st.sampled_from(does)),
        )
        if part.mark == "trylast":
            if part.is_wrapper in last:
                part = attrs.evolve(part, mark="")
            last.add(part.is_wrapper)
        parts.append(part)
    return hook, parts


def value_of(hook: str, number: int) -> Any:
    return ROUTES[number] if hook == "bifrost_pick_route" else RESPONSES[number]


RESPONSES = [Response(model=str(number)) for number in range(8)]


def body_of(hook: str, part: Part, trace: list[Any]) -> Callable[..., Any]:
    def plain(*got: object) -> Any:
        trace.append((part.number, got))
        if part.does in {"raise", "refuse"}:
            raise error_of(part)
        return value_of(hook, part.number) if part.does == "answer" else None

    def wrapper(*got: object) -> Generator[None, Any, Any]:
        trace.append((part.number, got))
        if "before" in part.does:
            raise error_of(part)
        try:
            result = yield
        except Exception as exc:
            trace.append((part.number, "out", number_of(exc)))
            if "swap" in part.does:
                raise error_of(part) from exc
            if "swallow" in part.does:
                return None
            raise
        trace.append((part.number, "out", result if HOOKS[hook].rule is Rule.FIRST else None))
        if "after" in part.does:
            raise error_of(part)
        if "replace" in part.does:
            return value_of(hook, part.number)
        return result if part.does == "wrap and pass on" and HOOKS[hook].rule is Rule.FIRST else None

    return wrapper if part.is_wrapper else plain


def plugin_of(hook: str, part: Part, trace: list[Any]) -> Any:
    """A plugin whose method names just the arguments that the part takes."""
    body = body_of(hook, part, trace)
    subject = HOOKS[hook].arguments[0]
    names = [subject if name == "subject" else name for name in part.takes]
    start = "return (yield from body({0}))" if part.is_wrapper else "return body({0})"
    source = f"def {hook}({', '.join(['self', *names])}): {start.format(', '.join(names))}"
    scope: dict[str, Any] = {"body": body}
    exec(source, scope)  # the only way to a function with arguments of any name
    method = hookimpl(
        scope[hook],
        wrapper=part.is_wrapper,
        tryfirst=part.mark == "tryfirst",
        trylast=part.mark == "trylast",
    )
    members: dict[str, Any] = {hook: method}
    if hook in {"bifrost_cached_response", "bifrost_pick_route"}:
        members["hook_options"] = {hook: HookOptions(on_error="closed")}
    return type(f"P{part.number}", (), members)()


def number_of(error: BaseException) -> str:
    """Whose error it is."""
    if isinstance(error, PluginError):
        assert error.__cause__ is not None
        return str(error.__cause__)
    return str(error)


def outcome(run: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "returned", run()
    except (FailureError, RefusedError, PluginError) as exc:
        return "raised", number_of(exc)


def through_hooks(hook: str, parts: list[Part], subject: Any) -> tuple[list[Any], Any]:
    trace: list[Any] = []
    run = getattr(compile_hooks([plugin_of(hook, part, trace) for part in parts]), HOOKS[hook].field)

    def drive() -> Any:
        if run is None:
            return None
        made = run(subject, CALL)
        if not isinstance(made, types.CoroutineType):
            return made
        try:
            made.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("a plain function made the chain wait")

    return trace, outcome(drive)


def through_pluggy(hook: str, parts: list[Part], subject: Any) -> tuple[list[Any], Any]:
    trace: list[Any] = []
    first = HOOKS[hook].arguments[0]
    scope: dict[str, Any] = {}
    exec(f"def {hook}({first}, call): ...", scope)
    spec = pluggy.HookspecMarker(PROJECT)(scope[hook], firstresult=True)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(type("Spec", (), {hook: staticmethod(spec)}))
    for part in parts if HOOKS[hook].is_outward else reversed(parts):
        manager.register(plugin_of(hook, part, trace))
    return trace, outcome(lambda: getattr(manager.hook, hook)(**{first: subject, "call": CALL}))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sets())
def test_hooks_and_pluggy_agree(drawn: tuple[str, list[Part]]) -> None:
    hook, parts = drawn
    subject = ROUTES if hook == "bifrost_pick_route" else REQUEST
    our_trace, (our_end, our_value) = through_hooks(hook, parts, subject)
    trace, (end, value) = through_pluggy(hook, parts, subject)
    assert our_trace == trace
    assert our_end == end
    if end == "raised" or HOOKS[hook].rule in RESULT_COUNTS:
        assert our_value == value


def test_the_comparison_can_tell_an_order_from_its_reverse() -> None:
    parts = [Part(0, (), "", "nothing"), Part(1, (), "", "nothing")]
    forwards, _ = through_pluggy("bifrost_authorize", parts, REQUEST)
    backwards, _ = through_pluggy("bifrost_authorize", parts[::-1], REQUEST)
    assert forwards == backwards[::-1] == [(0, ()), (1, ())]
