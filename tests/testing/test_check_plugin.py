"""``check_plugin`` tells every mistake in one plain sentence; a plugin without any gives its hooks."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from types import FunctionType, ModuleType
from typing import Any, ClassVar

import anyio
import attrs
import pytest

from bifrost_core import Call, CallRecord, ChatResponse, Chunk, Principal, RefusedError, Request, Route
from bifrost_core.attempts import Attempt
from bifrost_core.errors import CallError, GuardrailError, PluginError
from bifrost_core.hooks import HookOptions
from bifrost_core.hookspecs import HOOKS, hookimpl
from bifrost_core.testing import check_plugin

FEWER = ", or fewer"


def told(plugin: object, **how: Any) -> str:
    with pytest.raises(PluginError) as caught:
        check_plugin(plugin, **how)
    return caught.value.message


def made(hook: str, implementation: Callable[..., Any], options: Any = None, **marks: Any) -> Any:
    """A plugin called ``Made`` of one hook."""
    if implementation.__closure__ is None:  # several tests may mark it, each in its own way
        implementation = FunctionType(implementation.__code__, globals(), hook)
    members: dict[str, Any] = {hook: hookimpl(implementation, **marks)}
    if options is not None:
        members["hook_options"] = {hook: options}
    return type("Made", (), members)()


# -- nothing wrong ------------------------------------------------------------------------------------


class Budgets:
    """A plugin of the usual kind; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @hookimpl
    async def bifrost_attempt_finished(self, attempt: Attempt) -> None:
        self.asked.append(f"finished {attempt.outcome}")

    @hookimpl
    def bifrost_reserve(self, attempt: Attempt, call: Call) -> None:
        self.asked.append("reserve")
        attempt.limit_output(16)
        call.state[self] = attempt.id

    @hookimpl
    def bifrost_authorize(self, request: Request, call: Call) -> None:
        call.metadata = {**call.metadata, "tenant": call.principal.tenant if call.principal else None}
        if request.model.startswith("failing"):
            raise RefusedError("a decision is no mistake")


def test_a_plugin_without_mistakes_gives_its_hooks_in_the_order_of_a_call() -> None:
    assert check_plugin(Budgets()) == ["bifrost_authorize", "bifrost_reserve", "bifrost_attempt_finished"]


def test_a_copy_is_driven_and_the_plugin_stays_as_it_was() -> None:
    budgets = Budgets()
    assert check_plugin(budgets) == check_plugin(budgets)
    assert budgets.asked == []


def test_a_plugin_that_can_not_be_copied_is_driven_itself() -> None:
    class Locked(Budgets):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    locked = Locked()
    check_plugin(locked)
    answered, streamed, failed = ["reserve", "finished ok"], ["reserve", "finished ok"], ["reserve", "finished failed"]
    assert locked.asked == [*answered, *streamed, *failed]
    locked.asked.clear()
    check_plugin(locked, drive=False)
    assert locked.asked == []


async def test_it_may_be_called_where_an_event_loop_runs() -> None:
    assert check_plugin(Budgets()) == ["bifrost_authorize", "bifrost_reserve", "bifrost_attempt_finished"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_event_loop_can_be_chosen(backend: str) -> None:
    loops: list[str] = []

    async def bifrost_authorize(self: object) -> None:
        loops.append(anyio.get_cancelled_exc_class().__module__)

    check_plugin(made("bifrost_authorize", bifrost_authorize), backend=backend)
    assert {loop.partition(".")[0] for loop in loops} == {backend}


def test_a_module_is_driven_too() -> None:
    module = ModuleType("house_rules")
    asked: list[str] = []
    module.bifrost_authorize = hookimpl(lambda request: asked.append(request.model))  # type: ignore[attr-defined]
    assert check_plugin(module) == ["bifrost_authorize"]
    assert asked == ["simulated/model", "simulated/model", "failing/model"]


def test_every_hook_is_driven_with_what_a_router_hands_out() -> None:
    given: dict[str, list[str]] = {}

    class Everything:
        lock = threading.Lock()  # the instance itself is to be driven

        def __init__(self) -> None:
            self.own = threading.Lock()

    def noting(hook: str) -> Any:
        def note(subject: Any) -> Any:
            given.setdefault(hook, []).append(type(subject).__name__)
            return Life(given) if hook == "bifrost_lifespan" else Passing() if hook == "bifrost_stream_filter" else None

        scope: dict[str, Any] = {"note": note}
        argument = HOOKS[hook].arguments[0]
        exec(f"def {hook}(self, {argument}): return note({argument})", scope)
        return hookimpl(scope[hook])

    for hook in HOOKS:
        setattr(Everything, hook, noting(hook))
    assert check_plugin(Everything()) == list(HOOKS)
    twice, thrice = 2, 3
    assert given == {
        "bifrost_providers": ["Router"],
        "bifrost_resolve_secret": ["str"],
        "bifrost_lifespan": ["Router", "in", "out"],
        "bifrost_authenticate": ["Call"] * thrice,
        "bifrost_authorize": ["Request"] * thrice,
        "bifrost_guard_request": ["Request"] * thrice,
        "bifrost_cached_response": ["Request"] * thrice,
        "bifrost_select_routes": ["tuple"] * thrice,
        "bifrost_pick_route": ["tuple"] * thrice,
        "bifrost_reserve": ["Attempt"] * thrice,
        "bifrost_stream_filter": ["Call"],
        "bifrost_guard_response": ["ChatResponse"] * (twice - 1),
        "bifrost_attempt_finished": ["Attempt"] * thrice,
        "bifrost_recover": ["ProviderServerError"],
        "bifrost_call_finished": ["CallRecord"] * thrice,
    }


class Life(AbstractAsyncContextManager[None]):
    def __init__(self, given: dict[str, list[str]]) -> None:
        self.given = given

    async def __aenter__(self) -> None:
        self.given["bifrost_lifespan"].append("in")

    async def __aexit__(self, *exc_info: object) -> None:
        self.given["bifrost_lifespan"].append("out")


class Passing:
    def feed(self, chunk: Chunk) -> list[Chunk]:
        return [chunk]

    def finish(self) -> list[Chunk]:
        return []


def test_a_plugin_that_asks_the_router_itself_is_not_driven_by_its_own_calls() -> None:
    answers: list[str] = []

    async def bifrost_guard_response(self: object, call: Call) -> None:
        answers.append((await call.router.chat("simulated/model", "is this polite?")).text)

    check_plugin(made("bifrost_guard_response", bifrost_guard_response))
    assert len(answers) == 1


# -- what a Router refuses ----------------------------------------------------------------------------


def fine(self: object) -> None:
    return None


async def waits(self: object) -> None:
    await anyio.lowlevel.checkpoint()


async def generates(self: object) -> AsyncIterator[None]:
    yield


def yields(self: object) -> Iterator[None]:
    yield


def unknown(self: object, query: str) -> None: ...


def everything(self: object, *arguments: object) -> None: ...


A, P, R = "bifrost_authorize", "bifrost_pick_route", "bifrost_reserve"
STATIC: dict[str, tuple[Any, str]] = {
    "misspelt": (
        made("bifrost_authorise", fine),
        "bifrost_authorise is no hook; did you mean bifrost_authorize?",
    ),
    "without the prefix": (
        made("guard_request", fine),
        "guard_request is no hook; did you mean bifrost_guard_request?",
    ),
    "nothing like a hook": (
        made("bifrost_before_lunch", fine),
        f"bifrost_before_lunch is no hook; the hooks are {', '.join(HOOKS)}",
    ),
    "not marked": (
        type("Made", (), {A: lambda self: None})(),
        "bifrost_authorize is not marked and would never run; put @hookimpl on it",
    ),
    "neither marked nor spelt": (
        type("Made", (), {"bifrost_authorise": lambda self: None})(),
        "bifrost_authorise is not marked and would never run; put @hookimpl on it and call it bifrost_authorize",
    ),
    "async where nothing waits": (
        made(P, waits),
        "bifrost_pick_route never waits, so its implementations are plain functions; write def, not async def",
    ),
    "async generator": (made(A, generates), "bifrost_authorize is an async generator; return a value"),
    "async generator of a lifespan": (
        made("bifrost_lifespan", generates),
        "bifrost_lifespan is an async generator; put @contextlib.asynccontextmanager under @hookimpl",
    ),
    "generator": (made(A, yields), "bifrost_authorize is a generator; mark it wrapper=True or return a value"),
    "wrapper of what is not wrapped": (
        made("bifrost_call_finished", yields, wrapper=True),
        "bifrost_call_finished can not be wrapped (notify hook); leave wrapper=True out",
    ),
    "wrapper without a yield": (
        made(A, fine, wrapper=True),
        "bifrost_authorize is marked as a wrapper but is not a generator; write a plain def with one yield",
    ),
    "both ends": (
        made(A, fine, tryfirst=True, trylast=True),
        "bifrost_authorize is marked both tryfirst and trylast; choose one",
    ),
    "unknown argument": (
        made(A, unknown),
        f"bifrost_authorize has an argument 'query' that is unknown; it takes request and call{FEWER}",
    ),
    "arguments without names": (
        made(A, everything),
        f"bifrost_authorize must name its arguments instead of *arguments; it takes request and call{FEWER}",
    ),
    "no hook": (
        type("Made", (), {})(),
        "it implements no hook; mark methods such as bifrost_authorize with @hookimpl",
    ),
    "options of a hook that is not there": (
        type("Made", (), {A: hookimpl(lambda self: None), "hook_options": {R: HookOptions()}})(),
        "bifrost_reserve has hook_options but is not implemented; leave one out or add the other",
    ),
    "options of a misspelt hook": (
        type("Made", (), {A: hookimpl(lambda self: None), "hook_options": {"bifrost_authorise": HookOptions()}})(),
        "bifrost_authorise in hook_options is no hook; did you mean bifrost_authorize?",
    ),
    "options under a misspelt name": (
        type("Made", (), {A: hookimpl(lambda self: None), "hooks_options": {A: HookOptions(timeout=3)}})(),
        "hooks_options is never looked at; call it hook_options",
    ),
    "options that are none": (
        made(A, fine, {"timeout": 3}),
        "bifrost_authorize has dict as its hook_options; pass HookOptions(…)",
    ),
    "open where it must be closed": (
        made(A, fine, HookOptions(on_error="open")),
        "bifrost_authorize can not be set to on_error='open'; leave it out or say 'closed'",
    ),
    "open while it rewrites": (
        made("bifrost_guard_request", fine, HookOptions(on_error="open")),
        'bifrost_guard_request can be on_error="open" only where it just checks; add checks=True or leave on_error out',
    ),
    "a cap that is no time": (
        made(A, fine, HookOptions(timeout=0)),
        "bifrost_authorize has timeout=0; seconds are finite and more than 0; None: as long as the call's deadline",
    ),
    "a cap where nothing waits": (
        made(P, fine, HookOptions(timeout=3)),
        "bifrost_pick_route never waits and can not be interrupted; leave timeout out",
    ),
    "a thread for what waits": (
        made(A, waits, HookOptions(thread=True)),
        "bifrost_authorize says thread=True but is async or a wrapper; only a plain function blocks",
    ),
    "a class": (Budgets, "this is the class; pass an instance, Budgets(…)"),
    "a name": ("budgets", "a name is not a plugin; pass *load_plugins('budgets')"),
}


@pytest.mark.parametrize("mistake", list(STATIC))
def test_what_a_router_refuses_is_told(mistake: str) -> None:
    plugin, said = STATIC[mistake]
    name = {"a class": "Budgets", "a name": "str"}.get(mistake, "Made")
    assert told(plugin) == f"plugin {name}: {said}"


def test_all_mistakes_are_told_at_once() -> None:
    class Broken:
        hook_options: ClassVar[Mapping[str, HookOptions]] = {A: HookOptions(on_error="open")}

        @hookimpl
        async def bifrost_pick_route(self) -> None: ...

        @hookimpl
        def bifrost_recover(self, mistake: Any) -> None: ...

        @hookimpl
        def bifrost_authorize(self) -> None: ...

    assert told(Broken()) == (
        "plugin Broken: "
        "bifrost_pick_route never waits, so its implementations are plain functions; write def, not async def; "
        "bifrost_recover has an argument 'mistake' that is unknown; it takes error and call, or fewer; "
        "bifrost_authorize can not be set to on_error='open'; leave it out or say 'closed'"
    )


# -- wrong answers ------------------------------------------------------------------------------------


async def later() -> None:
    return None


class Bare:
    """A filter whose chunks are what they are told to be."""

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks

    def feed(self, chunk: Chunk) -> Any:
        return self.chunks

    def finish(self) -> Any:
        return []


STRANGE = Route("elsewhere", "model", "key")
WRONG: dict[str, tuple[str, Callable[..., Any], str]] = {
    "authenticate": ("bifrost_authenticate", lambda self: "ann", "returned a str; return a Principal or None"),
    "authorize": (A, lambda self: False, "returned a bool; return nothing; to refuse, raise RefusedError"),
    "guard_request": ("bifrost_guard_request", lambda self: {}, "returned a dict; return a Request or None"),
    "cached_response": ("bifrost_cached_response", lambda self: "hit", "returned a str; return a Response or None"),
    "select_routes": (
        "bifrost_select_routes",
        lambda self, routes: {route.key_id: route for route in routes},
        "returned a dict; return a sequence of Route or None",
    ),
    "select_routes, names": (
        "bifrost_select_routes",
        lambda self, routes: [route.key_id for route in routes],
        "returned a list with a str in it; return a sequence of Route or None",
    ),
    "select_routes, generator": (
        "bifrost_select_routes",
        lambda self, routes: (route for route in routes),
        "returned a generator; return a sequence of Route or None",
    ),
    "select_routes, others": (
        "bifrost_select_routes",
        lambda self: [STRANGE],
        "returned a route twice, or one that it was not given; return some of those, each once",
    ),
    "pick_route": (P, lambda self: 0, "returned an int; return one of the routes or None"),
    "pick_route, another": (
        P,
        lambda self: STRANGE,
        "returned a route that it was not given; return one of those or None",
    ),
    "pick_route, later": (
        P,
        lambda self: later(),
        "returned an awaitable (coroutine) but may not wait; return one of the routes or None",
    ),
    "reserve": (
        R,
        lambda self: True,
        "returned a bool; return nothing; to refuse, raise BudgetExceededError or RateLimitError",
    ),
    "attempt_finished": ("bifrost_attempt_finished", lambda self: 1, "returned an int; return nothing"),
    "stream_filter": (
        "bifrost_stream_filter",
        lambda self: [],
        "returned a list; return an object with feed and finish, or None",
    ),
    "stream_filter, text": (
        "bifrost_stream_filter",
        lambda self: Bare("text"),
        "has a stream filter that returned a str; return a list of Chunk",
    ),
    "stream_filter, one chunk": (
        "bifrost_stream_filter",
        lambda self: Bare(Chunk(text="one")),
        "has a stream filter that returned a Chunk; return a list of Chunk",
    ),
    "stream_filter, texts": (
        "bifrost_stream_filter",
        lambda self: Bare(["text"]),
        "has a stream filter that returned a str among its chunks; return a list of Chunk",
    ),
    "guard_response": (
        "bifrost_guard_response",
        lambda self, response: response.text,
        "returned a str; return a Response or None",
    ),
    "recover": ("bifrost_recover", lambda self: "sorry", "returned a str; return a Response or None"),
    "call_finished": ("bifrost_call_finished", lambda self: [], "returned a list; return nothing"),
    "lifespan": ("bifrost_lifespan", lambda self: None or object(), "returned an object; return an async context manager"),
    "providers": ("bifrost_providers", lambda self: "mistral", "returned a str; return an iterable of providers"),
    "providers, keys": (
        "bifrost_providers",
        lambda self: [1],
        "returned an int among its providers, which has no name; return providers",
    ),
    "resolve_secret": ("bifrost_resolve_secret", lambda self: b"sk", "returned a bytes; return a str or None"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(WRONG))
def test_an_answer_of_the_wrong_type_is_told(mistake: str) -> None:
    hook, implementation, said = WRONG[mistake]
    assert told(made(hook, implementation)) == f"plugin Made: {hook} {said}"


def test_of_every_hook_an_answer_of_the_wrong_type_is_told() -> None:
    assert {hook for hook, _, _ in WRONG.values()} == set(HOOKS)


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if HOOKS[hook].is_async])
def test_so_it_is_of_a_coroutine(hook: str) -> None:
    async def answers(self: object) -> object:
        await anyio.lowlevel.checkpoint()
        return object()

    said = told(made(hook, answers))
    assert said.startswith(f"plugin Made: {hook} returned an object; return ")


def test_a_guard_that_says_that_it_only_checks_and_changes_is_told() -> None:
    plugin = made("bifrost_guard_response", lambda self, response: response.with_text("x"), HookOptions(checks=True))
    assert told(plugin) == (
        "plugin Made: bifrost_guard_response returned a changed value but says that it only checks; "
        "return None or drop checks=True"
    )


# -- what a hook changes ------------------------------------------------------------------------------


def says_more(self: object, request: Request) -> None:
    request.body["messages"].append({"role": "system", "content": "be brief"})


def says_another(self: object, request: Request) -> None:
    request.body["messages"][0]["content"] = "be brief"


def sets_model(self: object, request: Request) -> None:
    request.model = "another"  # type: ignore[misc] # the mistake


def sets_member(self: object, request: Request) -> None:
    request.body["temperature"] = 0  # type: ignore[index] # the mistake


def blanks(self: object, response: ChatResponse) -> None:
    response.raw["choices"] = []


def shortens(self: object, routes: tuple[Route, ...]) -> None:
    del routes[0]  # type: ignore[attr-defined] # the mistake


def prices(self: object, attempt: Attempt) -> None:
    attempt.cost, attempt.price = Decimal(0), None


def promotes(self: object, call: Call) -> None:
    call.principal = Principal(id="root")


def tags(self: object, call: Call) -> None:
    call.metadata["team"] = "search"  # type: ignore[index] # the mistake


def forgets(self: object, record: CallRecord) -> None:
    if record.response is not None:
        record.response.raw.clear()


class Whitener:
    def feed(self, chunk: Chunk) -> list[Chunk]:
        chunk.raw["choices"] = []
        return [chunk]

    def finish(self) -> list[Chunk]:
        return []


def here(function: Callable[..., Any]) -> str:
    return f"test_check_plugin.py:{function.__code__.co_firstlineno + 1}"


CHANGES: dict[str, tuple[str, Callable[..., Any], str]] = {
    "messages": ("bifrost_guard_request", says_more, "changes the request in place; return request.with_body(…) instead"),
    "a message": ("bifrost_guard_request", says_another, "changes the request in place; return request.with_body(…) instead"),
    "messages, in a gate": (A, says_more, "changes the request in place; only read it"),
    "the model": (A, sets_model, f"tries to change in place what is frozen ({here(sets_model)}); return a changed copy or None"),
    "a member": (
        "bifrost_guard_request", sets_member,
        f"tries to change in place what is frozen ({here(sets_member)}); return a changed copy or None",
    ),
    "routes": (
        "bifrost_select_routes", shortens,
        f"tries to change in place what is frozen ({here(shortens)}); return a changed copy or None",
    ),
    "the answer": ("bifrost_guard_response", blanks, "changes the response in place; return response.with_text(…) instead"),
    "a chunk": ("bifrost_stream_filter", lambda self: Whitener(), "changes the chunk in place; return chunk.with_text(…) instead"),
    "the attempt": (R, prices, "sets attempt.price and attempt.cost, which the Router keeps; only read what it says"),
    "the principal": (A, promotes, "sets call.principal, which the Router keeps; only read what it says"),
    "metadata": (A, tags, "changes call.metadata in place, which is the caller's; say call.metadata = {**call.metadata, …}"),
    "the record": ("bifrost_call_finished", forgets, "changes the response in place; only read it"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(CHANGES))
def test_a_change_of_what_was_given_is_told(mistake: str) -> None:
    hook, implementation, said = CHANGES[mistake]
    assert told(made(hook, implementation)) == f"plugin Made: {hook} {said}"


# -- what a hook raises -------------------------------------------------------------------------------


def divides(self: object) -> None:
    raise ZeroDivisionError("division by zero")


def misses(self: object, record: CallRecord) -> None:
    assert record.response.text  # type: ignore[union-attr] # the mistake


def adds(self: object, attempt: Attempt) -> None:
    Decimal(0) + attempt.cost  # type: ignore[operator] # the mistake


def refuses(self: object) -> None:
    raise RefusedError("no")


RAISES: dict[str, tuple[str, Callable[..., Any], str]] = {
    "any": (A, divides, f"failed with ZeroDivisionError: division by zero ({here(divides)}) in a call that is answered"),
    "an answer that is not there": (
        "bifrost_call_finished", misses,
        f"failed with AttributeError: 'NoneType' object has no attribute 'text' ({here(misses)}) in a call that fails",
    ),
    "a cost that is not there": (
        "bifrost_attempt_finished", adds,
        "failed with TypeError: unsupported operand type(s) for +: 'decimal.Decimal' and 'NoneType' "
        f"({here(adds)}) in a call that fails",
    ),
    "a secret": (
        "bifrost_resolve_secret", divides,
        f"failed with ZeroDivisionError: division by zero ({here(divides)}) with 'vault:sample/key'",
    ),
    "providers": (
        "bifrost_providers", divides,
        f"failed with ZeroDivisionError: division by zero ({here(divides)}) when a Router is built",
    ),
    "a refusal afterwards": (
        "bifrost_call_finished", refuses, "raises RefusedError, but all is over by then; refuse in an earlier hook",
    ),
    "a refusal of an attempt that is over": (
        "bifrost_attempt_finished", refuses, "raises RefusedError, but all is over by then; refuse in an earlier hook",
    ),
    "a refusal of an error": (
        "bifrost_recover", refuses, "raises RefusedError, which is dropped; return None to leave the error",
    ),
    "a refusal in an open hook": (
        "bifrost_cached_response", refuses,
        'raises RefusedError, which counts as a failure of an open hook; set on_error="closed"',
    ),
    "a refusal of a secret": (
        "bifrost_resolve_secret", refuses, f"failed with RefusedError: no ({here(refuses)}) with 'vault:sample/key'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(RAISES))
def test_what_a_hook_fails_with_is_told(mistake: str) -> None:
    hook, implementation, said = RAISES[mistake]
    assert told(made(hook, implementation)) == f"plugin Made: {hook} {said}"


@pytest.mark.parametrize("hook", ["bifrost_authenticate", A, "bifrost_guard_request", R, "bifrost_guard_response"])
def test_a_decision_is_no_mistake(hook: str) -> None:
    assert check_plugin(made(hook, refuses)) == [hook]


def test_so_it_is_in_a_closed_first_and_in_a_filter() -> None:
    class Blocks(Passing):
        def feed(self, chunk: Chunk) -> list[Chunk]:
            raise GuardrailError("no")

    assert check_plugin(made(P, refuses, HookOptions(on_error="closed"))) == [P]
    assert check_plugin(made("bifrost_stream_filter", lambda self: Blocks())) == ["bifrost_stream_filter"]


# -- what a hook holds up -----------------------------------------------------------------------------


async def hangs(self: object) -> None:
    await anyio.sleep_forever()


async def cleans_up(self: object) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        CLEANED.append("up")


CLEANED: list[str] = []


def test_a_hook_that_hangs_beyond_its_cap_is_told_and_may_clean_up() -> None:
    CLEANED.clear()
    assert told(made(A, cleans_up, HookOptions(timeout=0.05))) == (
        "plugin Made: bifrost_authorize took longer than 0.05 s (HookOptions(timeout=…) changes that)"
    )
    assert CLEANED == ["up"]


def test_a_blocked_thread_is_told_as_a_hang() -> None:
    release = threading.Event()
    blocked = made(A, lambda self: release.wait(30) and None, HookOptions(thread=True, timeout=0.05))
    try:
        assert told(blocked) == (
            "plugin Made: bifrost_authorize took longer than 0.05 s (HookOptions(timeout=…) changes that)"
        )
    finally:
        release.set()


async def blocks_between(self: object) -> None:
    await anyio.lowlevel.checkpoint()
    time.sleep(0.12)  # noqa: ASYNC251 # the mistake


class Slow(Passing):
    def feed(self, chunk: Chunk) -> list[Chunk]:
        time.sleep(0.12)
        return [chunk]


BLOCKS: dict[str, tuple[str, Callable[..., Any], str]] = {
    "plain": (A, lambda self: time.sleep(0.12), "make it async or say HookOptions(thread=True)"),
    "async": (A, blocks_between, "make it async or say HookOptions(thread=True)"),
    "never waits": (P, lambda self: time.sleep(0.12), "keep what is slow elsewhere"),
    "filter": ("bifrost_stream_filter", lambda self: Slow(), "keep what is slow elsewhere"),
}


@pytest.mark.parametrize("mistake", list(BLOCKS))
def test_a_hook_that_keeps_the_event_loop_is_told(mistake: str) -> None:
    hook, implementation, instead = BLOCKS[mistake]
    assert (
        told(made(hook, implementation)) == f"plugin Made: {hook} keeps the event loop for more than 100 ms; {instead}"
    )


def test_what_is_slow_once_only_is_no_mistake() -> None:
    began: list[bool] = []

    def warms_up(self: object) -> None:
        if not began:
            began.append(True)
            time.sleep(0.12)

    assert check_plugin(made(A, warms_up)) == [A]


def test_a_hook_that_never_gives_the_event_loop_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bifrost_core.testing.plugins._STUCK", 0.3)
    release = threading.Event()
    try:
        assert told(made(A, lambda self: release.wait(30) and None)) == (
            "plugin Made: bifrost_authorize keeps the event loop and has not come back for 0.3 s"
        )
    finally:
        release.set()


# -- lifespans and wrappers -----------------------------------------------------------------------------


def life(enter: Callable[[], Any] = later, leave: Callable[[], Any] = later) -> Any:
    @asynccontextmanager
    async def bifrost_lifespan(self: object) -> AsyncIterator[None]:
        await enter()
        yield
        await leave()

    return made("bifrost_lifespan", bifrost_lifespan, HookOptions(timeout=0.05))


async def breaks() -> None:
    raise OSError("no disk")


LIVES: dict[str, tuple[Any, str]] = {
    "enter": (life(enter=breaks), f"failed with OSError: no disk ({here(breaks)}) when a Router starts"),
    "leave": (life(leave=breaks), f"failed with OSError: no disk ({here(breaks)}) when a Router closes"),
    "hangs": (life(enter=anyio.sleep_forever), "takes longer than 0.05 s to start (HookOptions(timeout=…) changes that)"),
    "stays": (life(leave=anyio.sleep_forever), "takes longer than 0.05 s to stop (HookOptions(timeout=…) changes that)"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(LIVES))
def test_a_lifespan_that_does_not_start_or_stop_is_told(mistake: str) -> None:
    plugin, said = LIVES[mistake]
    assert told(plugin) == f"plugin Made: bifrost_lifespan {said}"


def test_hooks_run_inside_of_the_plugins_own_lifespan() -> None:
    class Works:
        def __init__(self) -> None:
            self.group: Any = None

        @hookimpl
        @asynccontextmanager
        async def bifrost_lifespan(self) -> AsyncIterator[None]:
            async with anyio.create_task_group() as self.group:
                yield
                self.group.cancel_scope.cancel()

        @hookimpl
        def bifrost_call_finished(self) -> None:
            self.group.start_soon(anyio.sleep_forever)

    assert check_plugin(Works()) == ["bifrost_call_finished", "bifrost_lifespan"]


def wraps(self: object) -> Iterator[None]:
    result = yield
    return result


def wraps_twice(self: object) -> Iterator[None]:
    yield
    yield


def test_wrappers_are_driven_too() -> None:
    assert check_plugin(made("bifrost_cached_response", wraps, wrapper=True)) == ["bifrost_cached_response"]
    assert told(made("bifrost_cached_response", wraps_twice, wrapper=True)).startswith(
        "plugin Made: bifrost_cached_response failed with RuntimeError: the wrapper has a second yield ("
    )


def test_several_hooks_several_mistakes_one_message() -> None:
    class Broken:
        @hookimpl
        def bifrost_authorize(self) -> bool:
            return True

        @hookimpl
        def bifrost_select_routes(self, routes: tuple[Route, ...]) -> object:
            return {attrs.asdict(routes[0])["provider"]: routes}

        @hookimpl
        async def bifrost_recover(self, error: CallError) -> str:
            return error.message

    assert told(Broken()) == (
        "plugin Broken: "
        "bifrost_authorize returned a bool; return nothing; to refuse, raise RefusedError; "
        "bifrost_select_routes returned a dict; return a sequence of Route or None; "
        "bifrost_recover returned a str; return a Response or None"
    )
