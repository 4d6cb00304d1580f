"""How implementations of one hook are ordered and combined, and what each chain gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import attrs
import pytest

from bifrost_core.attempts import Attempt
from bifrost_core.calls import Call, CallRecord, Principal
from bifrost_core.errors import ConfigError, GuardrailError, PluginError, RefusedError
from bifrost_core.hooks import HookOptions, Hooks, compile_hooks
from bifrost_core.hookspecs import HOOKS, hookimpl
from bifrost_core.responses import ChatResponse, Response
from bifrost_core.testing.clocks import FakeClock
from bifrost_core.types import Choice, Chunk, Operation, Request, Route, RouteRef, Usage

REQUEST = Request(Operation.CHAT, "mistral/small", {"messages": []})
CALL = Call("call-1", Operation.CHAT, REQUEST)
ROUTES = tuple(Route("mistral", "small", key) for key in ("a", "b", "c"))
ATTEMPT = Attempt("attempt-1", RouteRef("mistral", "small", "a"))
ANSWER = ChatResponse(choices=(Choice(text="answer"),))
RECORD = CallRecord(
    call_id="call-1",
    operation=Operation.CHAT,
    model="mistral/small",
    principal=None,
    outcome="ok",
    kind=None,
    response=None,
    error=None,
    attempts=(),
    usage=Usage(),
    cost=None,
    cached=False,
    started_at=0.0,
    latency=0.0,
    time_to_first_token=None,
    metadata={},
)
SUBJECTS: dict[str, Any] = {
    "bifrost_authenticate": CALL,
    "bifrost_authorize": REQUEST,
    "bifrost_guard_request": REQUEST,
    "bifrost_cached_response": REQUEST,
    "bifrost_select_routes": ROUTES,
    "bifrost_pick_route": ROUTES,
    "bifrost_reserve": ATTEMPT,
    "bifrost_attempt_finished": ATTEMPT,
    "bifrost_stream_filter": CALL,
    "bifrost_guard_response": ANSWER,
    "bifrost_recover": RefusedError("no"),
    "bifrost_call_finished": RECORD,
    "bifrost_lifespan": "the router",
    "bifrost_providers": "the router",
    "bifrost_resolve_secret": "vault:a/b",
}


async def drive(hooks: Hooks, hook: str, call: Call = CALL) -> Any:
    """Run a hook as the Router does."""
    run = getattr(hooks, HOOKS[hook].field)
    arguments = (SUBJECTS[hook], call)[: len(HOOKS[hook].arguments)]
    result = run(*((call,) if HOOKS[hook].arguments == ("call",) else arguments))
    return await result if HOOKS[hook].is_async else result


def plugin(hook: str, function: Callable[..., Any], *, name: str = "Made", **marks: Any) -> Any:
    """A plugin with one hook, which takes no argument but the plugin."""

    def implementation(self: object) -> Any:
        return function()

    return type(name, (), {hook: hookimpl(implementation, **marks)})()


PER_CALL = [hook for hook in HOOKS if hook not in {"bifrost_lifespan", "bifrost_providers", "bifrost_resolve_secret"}]
OUTWARD = {
    "bifrost_attempt_finished",
    "bifrost_stream_filter",
    "bifrost_guard_response",
    "bifrost_recover",
    "bifrost_call_finished",
}

# -- who comes first ------------------------------------------------------------------------------


def test_a_hook_that_nobody_implements_is_none() -> None:
    hooks = compile_hooks()
    for hook in PER_CALL:
        assert getattr(hooks, HOOKS[hook].field) is None
    assert hooks.resolve_secret is None
    assert hooks.guard_stream is None
    assert hooks.describe() == {}


def test_without_plugins_a_router_gets_no_lifespans_and_no_providers() -> None:
    hooks = compile_hooks()
    assert hooks.lifespan("the router") == ()
    assert hooks.providers("the router") == ()


@pytest.mark.parametrize("hook", PER_CALL)
async def test_the_first_plugin_is_first_on_the_way_in_and_last_on_the_way_out(hook: str) -> None:
    ran: list[str] = []
    plugins = [
        plugin(hook, lambda: ran.append("last"), name="Last", trylast=True),
        plugin(hook, lambda: ran.append("one"), name="One"),
        plugin(hook, lambda: ran.append("two"), name="Two"),
        plugin(hook, lambda: ran.append("first"), name="First", tryfirst=True),
    ]
    hooks = compile_hooks(plugins)
    await drive(hooks, hook)
    middle = ["two", "one"] if hook in OUTWARD else ["one", "two"]
    assert ran == ["first", *middle, "last"]
    assert [name.lower() for name in hooks.describe()[hook]] == ran


@pytest.mark.parametrize(
    ("hook", "order"),
    [
        pytest.param("bifrost_authorize", ["A", "B"], id="in"),
        pytest.param("bifrost_call_finished", ["B", "A"], id="out"),
    ],
)
@pytest.mark.parametrize("mark", ["tryfirst", "trylast"])
def test_plugins_with_the_same_mark_keep_their_order(hook: str, order: list[str], mark: str) -> None:
    plugins = [plugin(hook, lambda: None, name=name, **{mark: True}) for name in "AB"]
    assert list(compile_hooks(plugins).describe()[hook]) == order


@pytest.mark.parametrize("order", ["in", "out"])
async def test_wrappers_stand_around_all_others(order: str) -> None:
    hook = "bifrost_guard_request" if order == "in" else "bifrost_guard_response"
    ran: list[str] = []

    def wrapper(name: str, **marks: Any) -> Any:
        def implementation(self: object) -> Generator[None, Any, Any]:
            ran.append(f"{name} in")
            result = yield
            ran.append(f"{name} out")
            return result

        return type(name, (), {hook: hookimpl(implementation, wrapper=True, **marks)})()

    plugins = [plugin(hook, lambda: ran.append("plain"), tryfirst=True), wrapper("A"), wrapper("B")]
    await drive(compile_hooks([*plugins, wrapper("Inmost", trylast=True)]), hook)
    one, two = ("A", "B") if order == "in" else ("B", "A")
    outer = [f"{one} in", f"{two} in", "Inmost in"]
    assert ran == [*outer, "plain", "Inmost out", f"{two} out", f"{one} out"]


def test_describe_lists_hooks_in_the_order_of_a_call() -> None:
    class Both:
        @hookimpl
        def bifrost_call_finished(self) -> None: ...

        @hookimpl
        def bifrost_authorize(self) -> None: ...

    assert compile_hooks([Both()]).describe() == {
        "bifrost_authorize": ("Both",),
        "bifrost_call_finished": ("Both",),
    }


# -- arguments and colours ------------------------------------------------------------------------


class Taker:
    """Takes its arguments in every way that Python has, and keeps them."""

    def __init__(self) -> None:
        self.got: Any = None


class TakesBoth(Taker):
    @hookimpl
    def bifrost_reserve(self, attempt: Attempt, call: Call) -> None:
        self.got = (attempt, call)


class TakesBothTurnedRound(Taker):
    @hookimpl
    def bifrost_reserve(self, call: Call, attempt: Attempt) -> None:
        self.got = (attempt, call)


class TakesThemByKeyword(Taker):
    @hookimpl
    def bifrost_reserve(self, *, call: Call, attempt: Attempt) -> None:
        self.got = (attempt, call)


class TakesThemWithDefaults(Taker):
    @hookimpl
    def bifrost_reserve(self, limit: int = 3, attempt: Any = None, call: Any = None) -> None:
        assert limit == 3
        self.got = (attempt, call)


class TakesTheSubject(Taker):
    @hookimpl
    def bifrost_reserve(self, attempt: Attempt) -> None:
        self.got = (attempt, CALL)


class TakesTheCall(Taker):
    @hookimpl
    def bifrost_reserve(self, call: Call) -> None:
        self.got = (ATTEMPT, call)


class TakesNothing(Taker):
    @hookimpl
    def bifrost_reserve(self) -> None:
        self.got = (ATTEMPT, CALL)


class IsAsync(Taker):
    @hookimpl
    async def bifrost_reserve(self, attempt: Attempt, call: Call) -> None:
        self.got = (attempt, call)


class AwaitsSomething(Taker):
    @hookimpl
    async def bifrost_reserve(self, attempt: Attempt, call: Call) -> None:
        await anyio.lowlevel.checkpoint()
        self.got = (attempt, call)


class ReturnsAnAwaitable(Taker):
    @hookimpl
    def bifrost_reserve(self, attempt: Attempt, call: Call) -> Any:
        async def later() -> None:
            await anyio.lowlevel.checkpoint()
            self.got = (attempt, call)

        return later()


class WorksInAThread(Taker):
    hook_options: ClassVar[Mapping[str, HookOptions]] = {"bifrost_reserve": HookOptions(thread=True)}

    @hookimpl
    def bifrost_reserve(self, attempt: Attempt, call: Call) -> None:
        anyio.from_thread.run_sync(setattr, self, "got", (attempt, call))  # works in a worker thread only


class HasAnotherName(Taker):
    @hookimpl(specname="bifrost_reserve")
    def hold(self, attempt: Attempt, call: Call) -> None:
        self.got = (attempt, call)


TAKERS: list[type[Taker]] = [
    TakesBoth,
    TakesBothTurnedRound,
    TakesThemByKeyword,
    TakesThemWithDefaults,
    TakesTheSubject,
    TakesTheCall,
    TakesNothing,
    IsAsync,
    AwaitsSomething,
    ReturnsAnAwaitable,
    WorksInAThread,
    HasAnotherName,
]


@pytest.mark.parametrize("taker", TAKERS, ids=lambda each: each.__name__)
async def test_an_implementation_gets_the_arguments_that_it_names(taker: type[Taker]) -> None:
    made = taker()
    await drive(compile_hooks([made]), "bifrost_reserve")
    assert made.got == (ATTEMPT, CALL)


async def test_static_and_class_methods_are_implementations_too() -> None:
    ran: list[object] = []

    class Methods:
        @hookimpl
        @staticmethod
        def bifrost_authorize(call: Call) -> None:
            ran.append(call)

        @hookimpl
        @classmethod
        def bifrost_reserve(cls, call: Call) -> None:
            ran.append(cls)

    hooks = compile_hooks([Methods()])
    await drive(hooks, "bifrost_authorize")
    await drive(hooks, "bifrost_reserve")
    assert ran == [CALL, Methods]


# -- gates ----------------------------------------------------------------------------------------


async def test_a_refusal_reaches_the_caller_as_it_is_and_ends_the_gate() -> None:
    ran: list[str] = []
    refusal = GuardrailError("no", rule="r")

    def refuse() -> None:
        raise refusal

    hooks = compile_hooks([plugin("bifrost_authorize", refuse), plugin("bifrost_authorize", lambda: ran.append("2"))])
    with pytest.raises(GuardrailError) as caught:
        await drive(hooks, "bifrost_authorize")
    assert caught.value is refusal
    assert ran == []


async def test_the_error_of_another_call_that_a_plugin_made_is_a_failure_not_a_decision() -> None:
    def moderate() -> None:
        raise RefusedError("the moderation was refused", call_id="call-2")

    with pytest.raises(PluginError) as caught:
        await drive(compile_hooks([plugin("bifrost_guard_request", moderate)]), "bifrost_guard_request")
    assert caught.value.hook == "bifrost_guard_request"


# -- pipes ----------------------------------------------------------------------------------------


class Appends:
    def __init__(self, word: str | None) -> None:
        self.word = word

    @hookimpl
    def bifrost_guard_request(self, request: Request) -> Request | None:
        return None if self.word is None else request.with_body(seen=[*request.body.get("seen", ()), self.word])

    @hookimpl
    async def bifrost_guard_response(self, response: ChatResponse) -> Response | None:
        return None if self.word is None else response.with_text(response.text + self.word)


async def test_each_plugin_of_a_pipe_gets_what_the_one_before_left() -> None:
    hooks = compile_hooks([Appends("a"), Appends(None), Appends("b")])
    assert (await drive(hooks, "bifrost_guard_request")).body["seen"] == ["a", "b"]
    assert (await drive(hooks, "bifrost_guard_response")).text == "answerba"


async def test_a_pipe_that_changes_nothing_gives_back_its_subject() -> None:
    hooks = compile_hooks([Appends(None)])
    assert await drive(hooks, "bifrost_guard_request") is REQUEST
    assert await drive(hooks, "bifrost_guard_response") is ANSWER


async def test_a_plugin_that_only_checks_may_return_what_it_got() -> None:
    class Checks:
        hook_options: ClassVar[Mapping[str, HookOptions]] = {"bifrost_guard_request": HookOptions(checks=True)}

        @hookimpl
        def bifrost_guard_request(self, request: Request) -> Request:
            return attrs.evolve(request)

    assert await drive(compile_hooks([Checks()]), "bifrost_guard_request") is REQUEST


async def test_a_plugin_that_only_checks_may_not_change_anything() -> None:
    class Checks:
        hook_options: ClassVar[Mapping[str, HookOptions]] = {"bifrost_guard_request": HookOptions(checks=True)}

        @hookimpl
        def bifrost_guard_request(self, request: Request) -> Request:
            return request.with_body(temperature=0)

    with pytest.raises(PluginError, match="only checks"):
        await drive(compile_hooks([Checks()]), "bifrost_guard_request")


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        pytest.param(lambda: [ROUTES[1]], (ROUTES[1],), id="a list"),
        pytest.param(lambda: (), (), id="none left"),
        pytest.param(lambda: ROUTES[::-1], ROUTES[::-1], id="another order"),
        pytest.param(
            lambda: (attrs.evolve(ROUTES[0], weight=3.0),), (attrs.evolve(ROUTES[0], weight=3.0),), id="weight"
        ),
        pytest.param(lambda: None, ROUTES, id="unchanged"),
        pytest.param(lambda: "abc", ROUTES, id="a string"),
        pytest.param(lambda: ["a"], ROUTES, id="not of routes"),
        pytest.param(lambda: [Route("mistral", "small", "z")], ROUTES, id="a route of its own"),
        pytest.param(lambda: [ROUTES[0], ROUTES[0]], ROUTES, id="twice the same"),
    ],
)
async def test_selected_routes_are_some_of_those_given_as_a_tuple(
    answer: Callable[[], Any], left: tuple[Route, ...]
) -> None:
    assert await drive(compile_hooks([plugin("bifrost_select_routes", answer)]), "bifrost_select_routes") == left


# -- firsts ---------------------------------------------------------------------------------------


async def test_the_first_answer_that_is_not_none_wins() -> None:
    ran: list[int] = []

    def answer(number: int, value: Any) -> Any:
        ran.append(number)
        return value

    one, two = Principal(id="one"), Principal(id="two")
    plugins = [
        plugin("bifrost_authenticate", lambda each=each: answer(*each)) for each in [(0, None), (1, one), (2, two)]
    ]
    assert await drive(compile_hooks(plugins), "bifrost_authenticate") is one
    assert ran == [0, 1]


async def test_a_coroutine_that_answers_none_does_not_win() -> None:
    class Async:
        def __init__(self, answer: Response | None) -> None:
            self.answer = answer

        @hookimpl
        async def bifrost_cached_response(self) -> Response | None:
            return self.answer

    assert await drive(compile_hooks([Async(None), Async(ANSWER)]), "bifrost_cached_response") is ANSWER
    assert await drive(compile_hooks([Async(None)]), "bifrost_cached_response") is None


@pytest.mark.parametrize(
    ("answer", "picked"),
    [
        pytest.param(lambda: attrs.evolve(ROUTES[1], weight=9.0), ROUTES[1], id="one of them"),
        pytest.param(lambda: Route("mistral", "small", "z"), None, id="another one"),
        pytest.param(lambda: "a", None, id="a key id"),
        pytest.param(lambda: None, None, id="nobody"),
    ],
)
async def test_a_picked_route_is_one_of_those_given(answer: Callable[[], Any], picked: Route | None) -> None:
    assert await drive(compile_hooks([plugin("bifrost_pick_route", answer)]), "bifrost_pick_route") is picked


async def test_a_secret_is_resolved_by_the_plugin_that_knows_its_reference() -> None:
    class Vault:
        def __init__(self, scheme: str) -> None:
            self.scheme = scheme

        @hookimpl
        async def bifrost_resolve_secret(self, reference: str) -> str | None:
            return f"from {self.scheme}" if reference.startswith(self.scheme) else None

    assert await drive(compile_hooks([Vault("aws"), Vault("vault")]), "bifrost_resolve_secret") == "from vault"


# -- wrappers -------------------------------------------------------------------------------------


class Wraps:
    """Does in its second half what the test says."""

    def __init__(self, second_half: Callable[[Any], Any]) -> None:
        self.second_half = second_half
        self.seen: Any = "nothing"

    def _wrap(self) -> Generator[None, Any, Any]:
        try:
            self.seen = yield
        except BaseException as exc:
            self.seen = exc
            raise
        return self.second_half(self.seen)

    @hookimpl(wrapper=True)
    def bifrost_guard_request(self) -> Generator[None, Any, Any]:
        return (yield from self._wrap())

    @hookimpl(wrapper=True)
    def bifrost_pick_route(self) -> Generator[None, Any, Any]:
        return (yield from self._wrap())

    @hookimpl(wrapper=True)
    def bifrost_cached_response(self) -> Generator[None, Any, Any]:
        return (yield from self._wrap())

    @hookimpl(wrapper=True)
    def bifrost_authorize(self) -> Generator[None, Any, Any]:
        return (yield from self._wrap())


async def test_a_wrapper_sees_the_result_and_may_change_it() -> None:
    wraps = Wraps(lambda request: request.with_body(wrapped=True))
    result = await drive(compile_hooks([wraps, Appends("a")]), "bifrost_guard_request")
    assert dict(result.body) == {"messages": [], "seen": ["a"], "wrapped": True}


async def test_a_wrapper_of_a_pipe_that_returns_none_leaves_it_unchanged() -> None:
    result = await drive(compile_hooks([Wraps(lambda _: None), Appends("a")]), "bifrost_guard_request")
    assert result.body["seen"] == ["a"]


async def test_a_wrapper_of_a_first_may_take_the_answer_away() -> None:
    hooks = compile_hooks([Wraps(lambda _: None), plugin("bifrost_cached_response", lambda: ANSWER)])
    assert await drive(hooks, "bifrost_cached_response") is None


async def test_a_wrapper_alone_sees_an_empty_hook() -> None:
    wraps = Wraps(lambda value: value)
    hooks = compile_hooks([wraps])
    assert await drive(hooks, "bifrost_guard_request") is REQUEST
    assert await drive(hooks, "bifrost_cached_response") is None
    assert await drive(hooks, "bifrost_pick_route") is None
    assert await drive(hooks, "bifrost_authorize") is None


async def test_a_wrapper_of_a_hook_that_never_waits_works_the_same() -> None:
    hooks = compile_hooks([Wraps(lambda _: ROUTES[2]), plugin("bifrost_pick_route", lambda: ROUTES[0])])
    assert await drive(hooks, "bifrost_pick_route") is ROUTES[2]


async def test_a_wrapper_sees_a_refusal_and_may_raise_another() -> None:
    refusal = RefusedError("no")

    def refuse() -> None:
        raise refusal

    class Explains:
        @hookimpl(wrapper=True)
        def bifrost_authorize(self) -> Generator[None, Any, Any]:
            try:
                yield
            except RefusedError as exc:
                raise RefusedError("no, because") from exc

    wraps = Wraps(lambda value: value)
    hooks = compile_hooks([Explains(), wraps, plugin("bifrost_authorize", refuse)])
    with pytest.raises(RefusedError, match="because"):
        await drive(hooks, "bifrost_authorize")
    assert wraps.seen is refusal


@pytest.mark.parametrize("hook", ["bifrost_authorize", "bifrost_guard_request", "bifrost_cached_response"])
async def test_a_wrapper_may_turn_an_error_into_a_result(hook: str) -> None:
    class Forgives:
        def _wrap(self) -> Generator[None, Any, Any]:
            try:
                yield
            except (RefusedError, PluginError):
                return None

        bifrost_authorize = hookimpl(lambda self: (yield from self._wrap()), wrapper=True)
        bifrost_guard_request = hookimpl(lambda self: (yield from self._wrap()), wrapper=True)
        bifrost_cached_response = hookimpl(lambda self: (yield from self._wrap()), wrapper=True)

    def refuse() -> None:
        raise RefusedError("no")

    refuses = plugin(hook, refuse)
    refuses.hook_options = {hook: HookOptions(on_error="closed")}
    result = await drive(compile_hooks([Forgives(), refuses]), hook)
    assert result is (REQUEST if hook == "bifrost_guard_request" else None)


async def test_wrappers_clean_up_when_the_call_is_cancelled() -> None:
    ended: list[str] = []

    class Swallows:
        @hookimpl(wrapper=True)
        def bifrost_authorize(self) -> Generator[None, Any, Any]:
            try:
                yield
            except BaseException as exc:  # even one that forgets to raise it again
                ended.append(type(exc).__name__)

    class Goes:
        @hookimpl(wrapper=True)
        def bifrost_authorize(self) -> Generator[None, Any, Any]:
            try:
                yield
            except BaseException:
                yield  # as if nothing had happened

    class Breaks:
        @hookimpl(wrapper=True)
        def bifrost_authorize(self) -> Generator[None, Any, Any]:
            try:
                yield
            finally:
                ended.append("broken")
                raise ValueError

    class Waits:
        @hookimpl
        async def bifrost_authorize(self) -> None:
            await anyio.sleep_forever()

    hooks = compile_hooks([Breaks(), Goes(), Swallows(), Waits()])
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drive, hooks, "bifrost_authorize")
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert ended == [anyio.get_cancelled_exc_class().__name__, "broken"]
    assert hooks.failures() == {("Breaks", "bifrost_authorize"): 1}


# -- what everybody is told -----------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["bifrost_attempt_finished", "bifrost_call_finished"])
async def test_everybody_is_told_although_the_call_is_being_cancelled(hook: str) -> None:
    told: list[str] = []

    async def settle(name: str) -> None:
        await anyio.sleep(0.001)
        told.append(name)

    hooks = compile_hooks([plugin(hook, lambda name=name: settle(name)) for name in ("one", "two")])
    with anyio.CancelScope() as scope:
        scope.cancel()
        await drive(hooks, hook)
    assert told == ["two", "one"]


async def test_a_cancellation_that_gets_through_is_raised_after_everybody_was_told() -> None:
    told: list[str] = []

    def cancelled() -> None:
        raise KeyboardInterrupt

    hooks = compile_hooks(
        [plugin("bifrost_call_finished", lambda: told.append("first")), plugin("bifrost_call_finished", cancelled)]
    )
    with pytest.raises(KeyboardInterrupt):
        await drive(hooks, "bifrost_call_finished")
    assert told == ["first"]


async def test_a_chain_that_is_thrown_away_does_not_wait_for_the_rest() -> None:
    told: list[str] = []

    class Once:
        def __await__(self) -> Generator[None, None, None]:
            yield

    hooks = compile_hooks(
        [plugin("bifrost_call_finished", lambda: told.append("never")), plugin("bifrost_call_finished", Once)]
    )
    running: Any = drive(hooks, "bifrost_call_finished")
    running.send(None)
    running.close()
    assert told == []


# -- streams --------------------------------------------------------------------------------------


class Holds:
    """A filter that holds each chunk back until the next one, and marks what it saw."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.held: list[Chunk] = []

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        released, self.held = self.held, [chunk.with_text(chunk.text + self.mark)]
        yield from released

    def finish(self) -> list[Chunk]:
        return self.held


def filtering(name: str, make: Callable[[], Any]) -> Any:
    return plugin("bifrost_stream_filter", make, name=name)


def test_the_output_of_one_filter_is_the_input_of_the_next_one_outwards() -> None:
    hooks = compile_hooks([filtering("A", lambda: Holds("a")), filtering("B", lambda: Holds("b"))])
    assert hooks.stream_filter is not None
    chain = hooks.stream_filter(CALL)
    assert chain is not None
    out = [chunk.text for word in ("1", "2", "3") for chunk in chain.feed(Chunk(text=word))]
    assert out == ["1ba"]
    assert [chunk.text for chunk in chain.finish()] == ["2ba", "3ba"]


def test_a_call_that_no_plugin_filters_has_no_filter() -> None:
    hooks = compile_hooks([filtering("A", lambda: None)])
    assert hooks.stream_filter is not None
    assert hooks.stream_filter(CALL) is None


async def test_a_live_stream_is_held_back_only_for_plugins_that_can_not_filter_it() -> None:
    class Whole:
        @hookimpl
        def bifrost_guard_response(self, response: ChatResponse) -> Response:
            return response.with_text(response.text + " whole")

    class Off(Whole):
        hook_options: ClassVar[Mapping[str, HookOptions]] = {"bifrost_guard_response": HookOptions(stream="off")}

        @hookimpl
        def bifrost_guard_response(self, response: ChatResponse) -> Response:
            return response.with_text(response.text + " off")

    class Filters:
        @hookimpl
        def bifrost_stream_filter(self) -> None: ...

        @hookimpl
        def bifrost_guard_response(self, response: ChatResponse) -> Response:
            return response.with_text(response.text + " filters")

    hooks = compile_hooks([Whole(), Off(), Filters()])
    assert hooks.guard_response is not None
    assert hooks.guard_stream is not None
    plain: Any = await hooks.guard_response(ANSWER, CALL)
    streamed: Any = await hooks.guard_stream(ANSWER, CALL)
    assert plain.text == "answer filters off whole"
    assert streamed.text == "answer whole"
    assert compile_hooks([Off(), Filters()]).guard_stream is None


# -- around the Router's life ---------------------------------------------------------------------


async def test_lifespans_come_with_their_plugins_names_in_the_order_to_enter() -> None:
    ran: list[str] = []

    class Lives:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        @asynccontextmanager
        async def bifrost_lifespan(self, router: object) -> AsyncIterator[None]:
            ran.append(f"{self.name} {router}")
            yield

    hooks = compile_hooks([Lives("a"), Lives("b"), plugin("bifrost_lifespan", lambda: None)])
    lifespans = hooks.lifespan("router")
    assert [(each.plugin, each.timeout) for each in lifespans] == [("a", 10.0), ("b", 10.0)]
    for each in lifespans:
        async with each.manager:
            ran.append("inside")
    assert ran == ["a router", "inside", "b router", "inside"]


def test_providers_of_all_plugins_come_in_one_tuple() -> None:
    @attrs.frozen
    class Brought:
        name: str

    class Generates:
        @hookimpl
        def bifrost_providers(self, router: object) -> Iterable[Brought]:
            yield Brought(f"{router} 1")
            yield Brought(f"{router} 2")

    hooks = compile_hooks([Generates(), plugin("bifrost_providers", lambda: [Brought("3")])])
    assert hooks.providers("r") == (Brought("r 1"), Brought("r 2"), Brought("3"))


# -- required hooks, slow hooks -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("require", "said"),
    [
        pytest.param({"bifrost_reserve"}, "no plugin implements bifrost_reserve", id="nobody has it"),
        pytest.param("bifrost_reserve", "no plugin implements bifrost_reserve", id="one name"),
        pytest.param(["bifrost_guard_request"], "no plugin implements", id="a wrapper alone does nothing"),
        pytest.param(["reserve"], "'reserve' is no hook", id="no such hook"),
    ],
)
def test_a_hook_that_is_required_must_be_implemented(require: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        compile_hooks([Wraps(lambda value: value)], require=require)
    assert caught.value.field == "require"


def test_a_hook_that_is_required_and_implemented_is_fine() -> None:
    compile_hooks([plugin("bifrost_reserve", lambda: None)], require=["bifrost_reserve"])


async def test_a_hook_that_keeps_the_event_loop_is_named_in_the_log_when_measured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    quick = plugin("bifrost_authorize", lambda: clock.advance(0.01) and None, name="Quick")
    slow = plugin("bifrost_authorize", lambda: clock.advance(0.02) and None, name="Slow")
    await drive(compile_hooks([quick, slow], clock=clock, measure=True), "bifrost_authorize")
    assert [record.getMessage() for record in caplog.records] == [
        "plugin Slow: bifrost_authorize kept the event loop for 20 ms; make it async or say thread=True"
    ]
