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
- An exception that is no ``CallError`` is the ``__cause__`` of a ``PluginError``; hooks that would be open are set to
  closed, and where they can not be (``bifrost_recover``) nothing raises.

That is the first test, whose plugins are plain functions. The second has every hook and every colour: plain
functions, coroutine functions that wait and that do not, functions that return awaitables, on both event loops. pluggy
awaits nothing, so there it is given plain twins that do nothing but say when they are called: that is the order. What
comes of it is folded by hand, one line for each rule, over that order.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pluggy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bifrost_core.attempts import Attempt
from bifrost_core.calls import Call, Principal
from bifrost_core.errors import CallError, PluginError, RefusedError
from bifrost_core.hooks import HookOptions, compile_hooks
from bifrost_core.hooks.options import POLICIES
from bifrost_core.hookspecs import HOOKS, PROJECT, Rule, hookimpl
from bifrost_core.responses import Response
from bifrost_core.types import Chunk, Operation, Request, Route

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


# -- every hook, every colour -------------------------------------------------------------------------

SUBJECTS: dict[str, Any] = {
    "bifrost_authenticate": CALL,
    "bifrost_authorize": REQUEST,
    "bifrost_guard_request": REQUEST,
    "bifrost_cached_response": REQUEST,
    "bifrost_select_routes": ROUTES,
    "bifrost_pick_route": ROUTES,
    "bifrost_reserve": Attempt("attempt-1", ROUTES[0].ref),
    "bifrost_attempt_finished": Attempt("attempt-1", ROUTES[0].ref),
    "bifrost_stream_filter": CALL,
    "bifrost_guard_response": Response(model="subject"),
    "bifrost_recover": CallError("subject"),
    "bifrost_call_finished": "the record",
    "bifrost_lifespan": "the router",
    "bifrost_providers": "the router",
    "bifrost_resolve_secret": "vault:subject",
}
COLOURS = ["plain", "async", "waits", "awaitable"]


@attrs.frozen(eq=False)
class Named:
    """A provider, a lifespan and a stream filter at once, known by its number."""

    name: str

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def feed(self, chunk: Chunk) -> list[Chunk]:
        return [Chunk(text=chunk.text + self.name)]

    def finish(self) -> list[Chunk]:
        return []


AbstractAsyncContextManager.register(Named)


def answer_of(hook: str, number: int) -> Any:
    """What the plugin of this number answers, told apart from all others."""
    answers: dict[str, Callable[[], Any]] = {
        "bifrost_authenticate": lambda: Principal(id=str(number)),
        "bifrost_guard_request": lambda: Request(Operation.CHAT, f"mistral/{number}"),
        "bifrost_select_routes": lambda: [attrs.evolve(route, weight=number + 2.0) for route in ROUTES],
        "bifrost_pick_route": lambda: ROUTES[number],
        "bifrost_stream_filter": lambda: Named(str(number)),
        "bifrost_lifespan": lambda: Named(str(number)),
        "bifrost_providers": lambda: [Named(str(number))],
        "bifrost_resolve_secret": lambda: f"secret-{number}",
    }
    return answers[hook]() if hook in answers else Response(model=str(number))


@attrs.frozen
class Member:
    """One plugin of a set: where it stands, how it is written, what it does."""

    number: int
    mark: str
    colour: str
    does: str


@st.composite
def coloured_sets(draw: st.DrawFn) -> tuple[str, str, list[Member]]:
    """A hook, whether its plugins are open or closed, and the plugins."""
    hook = draw(st.sampled_from(list(SUBJECTS)))
    rule, policy = HOOKS[hook].rule, POLICIES[hook]
    may = [on_error for on_error in policy.may if (hook, on_error) != ("bifrost_guard_request", "open")]
    on_error = draw(st.sampled_from(may))
    does = ["nothing", "nothing", "raise", "raise"]
    if rule in {Rule.FIRST, Rule.PIPE, Rule.COLLECT}:
        does += ["answer", "answer"]
    if rule in {Rule.GATE, Rule.PIPE} or (
        rule is Rule.FIRST and on_error == "closed" and hook != "bifrost_resolve_secret"
    ):
        does += ["refuse"]
    members: list[Member] = []
    for number in range(draw(st.integers(0, 6))):
        mark = draw(st.sampled_from(["", "", "tryfirst", "trylast"]))
        if mark == "trylast" and any(member.mark == "trylast" for member in members):
            mark = ""  # see above
        colour = draw(st.sampled_from(COLOURS if HOOKS[hook].is_async else ["plain"]))
        members.append(Member(number, mark, colour, draw(st.sampled_from(does))))
    return hook, on_error, members


def member_of(hook: str, on_error: str | None, member: Member, seen: list[tuple[int, Any]]) -> Any:
    """A plugin as it is given to the library; with ``on_error`` None the plain twin for pluggy, which does nothing."""

    def act(subject: Any) -> Any:
        seen.append((member.number, subject))
        if on_error is None or member.does == "nothing":
            return None
        if member.does == "answer":
            return answer_of(hook, member.number)
        raise RefusedError(str(member.number)) if member.does == "refuse" else FailureError(str(member.number))

    async def waits(subject: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return act(subject)

    colour = "plain" if on_error is None else member.colour
    start = {"async": "async def", "waits": "async def"}.get(colour, "def")
    end = {"plain": "return act(subject)", "async": "return act(subject)", "waits": "return await waits(subject)"}
    subject = HOOKS[hook].arguments[0]
    source = f"{start} {hook}(self, {subject}): subject = {subject}; {end.get(colour, 'return waits(subject)')}"
    scope: dict[str, Any] = {"act": act, "waits": waits}
    exec(source, scope)
    marks: dict[str, Any] = {member.mark: True} if member.mark else {}
    members: dict[str, Any] = {hook: hookimpl(scope[hook], **marks)}
    if on_error is not None:
        stated: Any = None if on_error == POLICIES[hook].on_error else on_error
        members["hook_options"] = {hook: HookOptions(on_error=stated)}
    return type(f"P{member.number}", (), members)()


def order_by_pluggy(hook: str, members: list[Member]) -> list[Member]:
    seen: list[tuple[int, Any]] = []
    arguments = ", ".join(HOOKS[hook].arguments)
    scope: dict[str, Any] = {}
    exec(f"def {hook}({arguments}): ...", scope)
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(type("Spec", (), {hook: staticmethod(pluggy.HookspecMarker(PROJECT)(scope[hook]))}))
    for member in members if HOOKS[hook].is_outward else reversed(members):
        manager.register(member_of(hook, None, member, seen))
    getattr(manager.hook, hook)(**dict.fromkeys(HOOKS[hook].arguments))
    return [members[number] for number, _ in seen]


def folded(hook: str, on_error: str, order: list[Member]) -> tuple[list[tuple[int, Any]], tuple[str, Any]]:
    """Who is asked with what, and what comes of it."""
    rule = HOOKS[hook].rule
    value, seen, collected = SUBJECTS[hook], [], []
    for member in order:
        seen.append((member.number, value))
        if member.does == "refuse" or (member.does == "raise" and on_error == "closed"):
            return seen, ("raised", str(member.number))
        if member.does == "answer":
            answer = answer_of(hook, member.number)
            if rule is Rule.FIRST:
                return seen, ("returned", answer)
            collected.append(str(member.number))
            value = tuple(answer) if hook == "bifrost_select_routes" else answer if rule is Rule.PIPE else value
    result = {Rule.PIPE: value, Rule.COLLECT: collected}.get(rule)
    return seen, ("returned", result)


async def through_chain(
    hook: str, on_error: str, members: list[Member]
) -> tuple[list[tuple[int, Any]], tuple[str, Any]]:
    seen: list[tuple[int, Any]] = []
    hooks = compile_hooks([member_of(hook, on_error, member, seen) for member in members])
    run, subject = getattr(hooks, HOOKS[hook].field), SUBJECTS[hook]
    if run is None:
        nothing = {Rule.PIPE: subject, Rule.COLLECT: []}.get(HOOKS[hook].rule)
        return seen, ("returned", nothing)
    one = len(HOOKS[hook].arguments) == 1
    try:
        made = run(subject) if one else run(subject, CALL)
        result = await made if HOOKS[hook].is_async else made
    except (PluginError, RefusedError) as exc:
        return seen, ("raised", number_of(exc))
    if hook == "bifrost_stream_filter":
        result = [] if result is None else list(result.feed(Chunk(text=""))[0].text)
    elif hook in {"bifrost_lifespan", "bifrost_providers"}:
        result = [getattr(each, "manager", each).name for each in result]
    return seen, ("returned", result)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_every_colour_runs_in_pluggys_order_and_its_results_combine_by_the_rule(backend: str) -> None:
    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(coloured_sets())
    def agree(drawn: tuple[str, str, list[Member]]) -> None:
        hook, on_error, members = drawn
        ours = anyio.run(through_chain, hook, on_error, members, backend=backend)
        assert ours == folded(hook, on_error, order_by_pluggy(hook, members))

    agree()


@settings(max_examples=100, deadline=None)
@given(coloured_sets(), st.integers(0, 6))
def test_a_wrapper_where_nothing_is_wrapped_is_refused_in_any_company(
    drawn: tuple[str, str, list[Member]], place: int
) -> None:
    hook, on_error, members = drawn

    def wraps(self: object) -> Generator[None, Any, Any]:
        return (yield)

    plugins = [member_of(hook, on_error, member, []) for member in members]
    plugins.insert(place, type("Wrapper", (), {hook: hookimpl(wraps, wrapper=True)})())
    if HOOKS[hook].rule in {Rule.NOTIFY, Rule.COLLECT}:
        with pytest.raises(PluginError) as caught:
            compile_hooks(plugins)
        assert (caught.value.plugin, caught.value.hook) == ("Wrapper", hook)
    else:
        assert compile_hooks(plugins).describe()[hook][0] == "Wrapper", "wrappers are outermost"


def test_the_comparison_can_tell_an_order_from_its_reverse() -> None:
    parts = [Part(0, (), "", "nothing"), Part(1, (), "", "nothing")]
    forwards, _ = through_pluggy("bifrost_authorize", parts, REQUEST)
    backwards, _ = through_pluggy("bifrost_authorize", parts[::-1], REQUEST)
    assert forwards == backwards[::-1] == [(0, ()), (1, ())]
