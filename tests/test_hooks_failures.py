"""What a plugin's failure does, hook by hook: the matrix, time caps, and what is switched off.

Hangs happen in virtual time: under trio its clock jumps, under asyncio the cap is a hundredth of a second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import anyio
import pytest
import trio.testing

from bifrost_core.calls import Call
from bifrost_core.errors import CallError, DeadlineExceededError, GuardrailError, PluginError, RefusedError
from bifrost_core.hooks import FilterChain, HookOptions, Hooks, compile_hooks
from bifrost_core.hookspecs import HOOKS, hookimpl
from bifrost_core.kinds import Kind
from bifrost_core.responses import ChatResponse
from bifrost_core.testing.clocks import FakeClock
from bifrost_core.types import Chunk, Operation, Request, Route

REQUEST = Request(Operation.CHAT, "mistral/small", {"messages": []})
ROUTES = (Route("mistral", "small", "a"),)
ANSWER = ChatResponse()
PROMPT = "my secret prompt"

# What the matrix says: closed or open, and what else a plugin may set.
MATRIX: dict[str, tuple[str, bool]] = {
    "bifrost_providers": ("closed", False),
    "bifrost_lifespan": ("closed", False),
    "bifrost_resolve_secret": ("closed", False),
    "bifrost_authenticate": ("closed", False),
    "bifrost_authorize": ("closed", False),
    "bifrost_guard_request": ("closed", True),  # a checking one
    "bifrost_cached_response": ("open", True),
    "bifrost_reserve": ("closed", True),
    "bifrost_select_routes": ("open", True),
    "bifrost_pick_route": ("open", True),
    "bifrost_attempt_finished": ("open", False),
    "bifrost_stream_filter": ("closed", True),
    "bifrost_guard_response": ("closed", True),
    "bifrost_recover": ("open", False),
    "bifrost_call_finished": ("open", False),
}
SUBJECTS: dict[str, Any] = {
    "bifrost_authorize": REQUEST,
    "bifrost_guard_request": REQUEST,
    "bifrost_cached_response": REQUEST,
    "bifrost_select_routes": ROUTES,
    "bifrost_pick_route": ROUTES,
    "bifrost_guard_response": ANSWER,
    "bifrost_resolve_secret": "vault:x",
}
UNTOUCHED: dict[str, Any] = {
    "bifrost_guard_request": REQUEST,
    "bifrost_select_routes": ROUTES,
    "bifrost_guard_response": ANSWER,
}


class OddError(BaseException):
    """What a library should not raise, and some do."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio"


@pytest.fixture
def cap(anyio_backend: Any) -> float:
    """Seconds that a hanging hook gets: real ones on asyncio."""
    return 0.01 if anyio_backend == "asyncio" else 0.5


def call_until(deadline: float = float("inf")) -> Call:
    return Call("call-1", Operation.CHAT, REQUEST, deadline=deadline)


async def drive(hooks: Hooks, hook: str, call: Call | None = None) -> Any:
    call = call or call_until()
    run = getattr(hooks, HOOKS[hook].field)
    arguments: tuple[Any, ...] = (SUBJECTS.get(hook, "anything"), call)[: len(HOOKS[hook].arguments)]
    result = run(*((call,) if HOOKS[hook].arguments == ("call",) else arguments))
    return await result if HOOKS[hook].is_async else result


def fail_raise() -> Any:
    raise ValueError(PROMPT)


def fail_base() -> Any:
    raise OddError(PROMPT)


def fail_type() -> Any:
    return {"wrong": PROMPT}


FAILURES: dict[str, Callable[[], Any]] = {"raise": fail_raise, "BaseException": fail_base, "wrong type": fail_type}


def made(hook: str, implementation: Callable[..., Any], options: HookOptions | None = None, **marks: Any) -> Any:
    members: dict[str, Any] = {hook: hookimpl(implementation, **marks)}
    if options is not None:
        members["hook_options"] = {hook: options}
    return type("Faulty", (), members)()


def shaped(shape: str, failure: Callable[[], Any]) -> Callable[..., Any]:
    """The failure as a plain function, as a coroutine function (one that waits, one that does not) or behind an awaitable."""

    def plain(self: object) -> Any:
        return failure()

    async def direct(self: object) -> Any:
        return failure()

    async def waits(self: object) -> Any:
        await anyio.lowlevel.checkpoint()
        return failure()

    def awaitable(self: object) -> Any:
        return waits(self)

    return {"plain": plain, "async": direct, "waits": waits, "awaitable": awaitable}[shape]


def cells() -> Iterator[Any]:
    for hook, (default, may_change) in MATRIX.items():
        shapes = ["plain", "async", "waits", "awaitable"] if HOOKS[hook].is_async else ["plain"]
        other = "open" if default == "closed" else "closed"
        for setting in [default, other] if may_change else [default]:
            for shape in shapes:
                for failure in FAILURES:
                    # An answer of the wrong type from a plugin that brings providers is in its own test.
                    yield pytest.param(
                        hook, None if setting == default else setting, setting, shape, failure,
                        id=f"{hook}-{setting}-{shape}-{failure}",
                    )  # fmt: skip


@pytest.mark.parametrize(("hook", "set_to", "effect", "shape", "failure"), list(cells()))
async def test_a_failure_does_what_the_matrix_says(
    hook: str, set_to: Any, effect: str, shape: str, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = HookOptions(on_error=set_to, checks=hook == "bifrost_guard_request" and set_to == "open")
    hooks = compile_hooks([made(hook, shaped(shape, FAILURES[failure]), options)])
    await expect(hooks, hook, effect, caplog)


async def expect(hooks: Hooks, hook: str, effect: str, caplog: pytest.LogCaptureFixture) -> None:
    if effect == "closed":
        with pytest.raises(PluginError) as caught:
            await drive(hooks, hook)
        error = caught.value
        assert (error.plugin, error.hook) == ("Faulty", hook)
        assert error.kind is (Kind.GUARDRAIL_BLOCKED if hook == "bifrost_stream_filter" else Kind.PLUGIN_ERROR)
        assert "Faulty" in error.message
        assert hook in error.message
        assert PROMPT not in error.message
        assert error.__cause__ is not None
        assert caplog.text == ""
    else:
        assert await drive(hooks, hook) == UNTOUCHED.get(hook)
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "Faulty" in caplog.text
        assert hook in caplog.text
        assert PROMPT not in caplog.text
    assert hooks.failures() == {("Faulty", hook): 1}


# -- hanging ----------------------------------------------------------------------------------------


async def hang() -> Any:
    await anyio.sleep_forever()


def waiting_cells() -> Iterator[Any]:
    for hook, (default, may_change) in MATRIX.items():
        if not HOOKS[hook].is_async:
            continue
        other = "open" if default == "closed" else "closed"
        for setting in [default, other] if may_change else [default]:
            yield pytest.param(hook, None if setting == default else setting, setting, id=f"{hook}-{setting}")


@pytest.mark.parametrize(("hook", "set_to", "effect"), list(waiting_cells()))
@pytest.mark.parametrize("shape", ["async", "awaitable"])
async def test_a_hanging_hook_does_what_the_matrix_says(
    hook: str, set_to: Any, effect: str, shape: str, cap: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def waits(self: object) -> None:
        await hang()

    def awaitable(self: object) -> Any:
        return hang()

    checks = hook == "bifrost_guard_request" and set_to == "open"
    options = HookOptions(timeout=cap, on_error=set_to, checks=checks)
    hooks = compile_hooks([made(hook, waits if shape == "async" else awaitable, options)])
    await expect(hooks, hook, effect, caplog)


@pytest.mark.parametrize(
    ("hook", "seconds"),
    [
        pytest.param("bifrost_authorize", 0.5, id="most hooks"),
        pytest.param("bifrost_guard_request", 5.0, id="guardrails in"),
        pytest.param("bifrost_guard_response", 5.0, id="guardrails out"),
        pytest.param("bifrost_attempt_finished", 2.0, id="settling"),
    ],
)
def test_every_hook_has_its_own_time_cap(hook: str, seconds: float, caplog: pytest.LogCaptureFixture) -> None:
    hooks = compile_hooks([made(hook, lambda self: hang())])
    said: list[str] = []

    async def measure() -> float:
        began = anyio.current_time()
        try:
            await drive(hooks, hook)
        except PluginError as error:
            said.append(error.message)
        return anyio.current_time() - began

    assert trio.run(measure, clock=trio.testing.MockClock(autojump_threshold=0)) == pytest.approx(seconds)
    assert f"longer than {seconds:g} s" in "".join(said) + caplog.text


async def test_a_late_answer_does_not_count() -> None:
    async def late(self: object) -> Any:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.02)
        return ANSWER

    hooks = compile_hooks([made("bifrost_cached_response", late, HookOptions(timeout=0.01))])
    assert await drive(hooks, "bifrost_cached_response") is None
    assert hooks.failures() == {("Faulty", "bifrost_cached_response"): 1}


async def test_a_blocking_hook_in_a_thread_is_given_up_when_its_time_is_over() -> None:
    release = threading.Event()

    def blocks(self: object) -> None:
        release.wait(30)

    hooks = compile_hooks([made("bifrost_authorize", blocks, HookOptions(thread=True, timeout=0.01))])
    try:
        with pytest.raises(PluginError, match="took longer"):
            await drive(hooks, "bifrost_authorize")
    finally:
        release.set()


async def test_a_thread_may_hand_back_an_awaitable() -> None:
    async def later() -> None:
        raise RefusedError("later")

    options = HookOptions(thread=True, timeout=None)  # virtual time jumps over whatever a thread takes
    hooks = compile_hooks([made("bifrost_authorize", lambda self: later(), options)])
    with pytest.raises(RefusedError, match="later"):
        await drive(hooks, "bifrost_authorize")


@pytest.mark.parametrize("hook", ["bifrost_authorize", "bifrost_cached_response", "bifrost_guard_response"])
@pytest.mark.parametrize("limit", ["default", None], ids=["capped", "not capped"])
async def test_the_calls_deadline_ends_a_hook_as_the_calls_own_error(hook: str, limit: Any) -> None:
    hooks = compile_hooks([made(hook, lambda self: hang(), HookOptions(timeout=limit))])
    with pytest.raises(DeadlineExceededError) as caught:
        await drive(hooks, hook, call_until(anyio.current_time() + 0.01))
    assert caught.value.phase == f"hook:{hook}"
    assert hooks.failures() == {}


async def test_without_time_left_recovering_leaves_the_error_and_is_no_failure() -> None:
    hooks = compile_hooks([made("bifrost_recover", lambda self: hang())])
    assert await drive(hooks, "bifrost_recover", call_until(anyio.current_time() - 1)) is None
    assert hooks.failures() == {}


@pytest.mark.parametrize("limit", ["default", None], ids=["capped", "not capped"])
async def test_settling_has_time_of_its_own_after_the_deadline(limit: Any) -> None:
    settled: list[bool] = []

    async def settle(self: object) -> None:
        await anyio.sleep(0.01)
        settled.append(True)

    hooks = compile_hooks([made("bifrost_attempt_finished", settle, HookOptions(timeout=limit))])
    await drive(hooks, "bifrost_attempt_finished", call_until(anyio.current_time() - 1))
    assert settled == [True]


@pytest.mark.parametrize("hook", ["bifrost_attempt_finished", "bifrost_call_finished"])
@pytest.mark.parametrize("failure", ["raise", "BaseException", "wrong type", "hang"])
async def test_one_failure_keeps_nobody_else_from_being_told(hook: str, failure: str, cap: float) -> None:
    told: list[str] = []
    bad: Callable[[], Any] = FAILURES.get(failure, hang)
    hooks = compile_hooks(
        [
            made(hook, lambda self: told.append("outer")),
            made(hook, lambda self: bad(), HookOptions(timeout=cap)),
            made(hook, lambda self: told.append("inner")),
        ]
    )
    await drive(hooks, hook)
    assert told == ["inner", "outer"]


# -- what is not a failure ------------------------------------------------------------------------


@pytest.mark.parametrize("hook", [hook for hook, (effect, _) in MATRIX.items() if HOOKS[hook].is_async])
async def test_a_cancellation_goes_through_every_hook(hook: str) -> None:
    reached: list[bool] = []

    async def waits(self: object) -> None:
        try:
            with anyio.CancelScope(shield=False):
                await anyio.sleep(3600 if HOOKS[hook].rule != "notify" else 0.001)
        finally:
            reached.append(True)

    hooks = compile_hooks([made(hook, waits, HookOptions(timeout=7200))])
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drive, hooks, hook)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert reached == [True]
    assert hooks.failures() == {}


@pytest.mark.parametrize("control", [KeyboardInterrupt, SystemExit], ids=lambda each: each.__name__)
@pytest.mark.parametrize("hook", [hook for hook in MATRIX if hook not in {"bifrost_lifespan", "bifrost_providers"}])
def test_the_end_of_the_process_goes_through_every_hook(hook: str, control: type[BaseException]) -> None:
    def ends(self: object) -> None:
        raise control

    hooks = compile_hooks([made(hook, ends)])
    with pytest.raises(control):
        drive(hooks, hook).send(None)
    assert hooks.failures() == {}


async def test_a_group_that_holds_the_end_of_the_process_goes_through() -> None:
    def ends(self: object) -> None:
        raise BaseExceptionGroup("both", [ValueError(), KeyboardInterrupt()])

    with pytest.raises(BaseExceptionGroup):
        await drive(compile_hooks([made("bifrost_cached_response", ends)]), "bifrost_cached_response")


DECIDING = [
    "bifrost_authenticate", "bifrost_authorize", "bifrost_guard_request", "bifrost_select_routes", "bifrost_reserve",
    "bifrost_stream_filter", "bifrost_guard_response",
]  # fmt: skip


@pytest.mark.parametrize("hook", DECIDING)
async def test_a_call_error_is_a_decision_and_no_failure(hook: str) -> None:
    decision = RefusedError("no")

    def decides(self: object) -> None:
        raise decision

    hooks = compile_hooks([made(hook, decides)])
    with pytest.raises(RefusedError) as caught:
        await drive(hooks, hook)
    assert caught.value is decision
    assert hooks.failures() == {}


@pytest.mark.parametrize("hook", ["bifrost_cached_response", "bifrost_pick_route"])
async def test_of_a_first_it_is_one_where_the_plugin_closes(hook: str) -> None:
    def decides(self: object) -> None:
        raise RefusedError("no")

    assert await drive(compile_hooks([made(hook, decides)]), hook) is None
    with pytest.raises(RefusedError):
        await drive(compile_hooks([made(hook, decides, HookOptions(on_error="closed"))]), hook)


@pytest.mark.parametrize("hook", ["bifrost_recover", "bifrost_attempt_finished", "bifrost_call_finished"])
async def test_an_error_in_a_hook_about_errors_is_dropped(hook: str) -> None:
    def decides(self: object) -> None:
        raise CallError("again")

    assert await drive(compile_hooks([made(hook, decides)]), hook) is None


async def test_an_answer_that_comes_as_a_coroutine_where_nothing_waits_is_closed() -> None:
    hooks = compile_hooks([made("bifrost_pick_route", lambda self: hang(), HookOptions(on_error="closed"))])
    with pytest.raises(PluginError, match="may not wait"):
        await drive(hooks, "bifrost_pick_route")


@pytest.mark.parametrize("answer", ["mistral", 3, [object()], {"a": 1}], ids=["text", "number", "list", "mapping"])
def test_providers_that_are_none_are_refused(answer: Any) -> None:
    hooks = compile_hooks([made("bifrost_providers", lambda self: answer)])
    with pytest.raises(PluginError, match="providers"):
        hooks.providers("the router")


# -- failing again and again ----------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["bifrost_cached_response", "bifrost_pick_route"])
async def test_an_open_hook_that_keeps_failing_is_switched_off_for_a_minute(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    ran: list[bool] = []
    works = False

    def fails(self: object) -> None:
        ran.append(True)
        if not works:
            raise ValueError

    hooks = compile_hooks([made(hook, fails)], clock=clock)

    async def calls(number: int) -> int:
        before = len(ran)
        for _ in range(number):
            await drive(hooks, hook)
        return len(ran) - before

    assert await calls(25) == 20
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert f"plugin Faulty: {hook} failed 20 times in a row and is switched off for 60 s" in caplog.text
    clock.advance(59.9)
    assert await calls(1) == 0
    clock.advance(0.1)
    assert await calls(2) == 1, "one try, which fails: off again"
    works = True
    clock.advance(60)
    assert await calls(3) == 3
    works = False
    assert await calls(30) == 20, "a success starts the count anew"


async def test_a_success_in_between_starts_the_count_anew() -> None:
    ran: list[bool] = []

    def fails_mostly(self: object) -> None:
        ran.append(True)
        if len(ran) % 20:
            raise ValueError

    hooks = compile_hooks([made("bifrost_cached_response", fails_mostly)], clock=FakeClock())
    for _ in range(60):
        await drive(hooks, "bifrost_cached_response")
    assert len(ran) == 60


@pytest.mark.parametrize("hook", ["bifrost_authorize", "bifrost_attempt_finished"])
async def test_closed_hooks_and_settling_are_never_switched_off(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[bool] = []

    def fails(self: object) -> None:
        ran.append(True)
        raise ValueError

    hooks = compile_hooks([made(hook, fails)], clock=FakeClock())
    for _ in range(25):
        try:
            await drive(hooks, hook)
        except PluginError:
            assert hook == "bifrost_authorize"
    assert len(ran) == 25
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert hooks.failures() == {("Faulty", hook): 25}


# -- wrappers -------------------------------------------------------------------------------------


def breaks_before(self: object) -> Generator[None, Any, Any]:
    raise ValueError(PROMPT)
    yield


def never_yields(self: object) -> Generator[None, Any, Any]:
    yield from ()


def breaks_after(self: object) -> Generator[None, Any, Any]:
    yield
    raise ValueError(PROMPT)


def yields_twice(self: object) -> Generator[None, Any, Any]:
    yield
    yield


def returns_nonsense(self: object) -> Generator[None, Any, Any]:
    yield
    return object()


@pytest.mark.parametrize("wrapper", [breaks_before, never_yields, breaks_after, yields_twice, returns_nonsense])
@pytest.mark.parametrize("hook", ["bifrost_guard_response", "bifrost_cached_response", "bifrost_pick_route"])
@pytest.mark.parametrize("on_error", ["closed", "open"])
async def test_a_failing_wrapper_closes_or_is_left_out(hook: str, wrapper: Any, on_error: Any) -> None:
    inner: Any = ROUTES[0] if hook == "bifrost_pick_route" else ANSWER
    hooks = compile_hooks(
        [
            made(hook, wrapper, HookOptions(on_error=on_error), wrapper=True),
            type("Works", (), {hook: hookimpl(lambda self: inner)})(),
        ]
    )
    if on_error == "open":
        assert await drive(hooks, hook) is inner
    else:
        with pytest.raises(PluginError) as caught:
            await drive(hooks, hook)
        assert caught.value.plugin == "Faulty"
        assert PROMPT not in caught.value.message
    assert hooks.failures() == {("Faulty", hook): 1}


async def test_an_open_wrapper_that_keeps_failing_is_switched_off_too() -> None:
    hooks = compile_hooks([made("bifrost_cached_response", breaks_after, wrapper=True)], clock=FakeClock())
    for _ in range(25):
        await drive(hooks, "bifrost_cached_response")
    assert hooks.failures() == {("Faulty", "bifrost_cached_response"): 20}


# -- stream filters -------------------------------------------------------------------------------


class Filter:
    """Passes chunks on until told otherwise; holds the first one back."""

    def __init__(self, feed: Callable[[], Any], finish: Callable[[], Any]) -> None:
        self._feed, self._finish = feed, finish
        self.held: list[Chunk] = []

    def feed(self, chunk: Chunk) -> Any:
        if chunk.text == "1":
            self.held = [chunk]
            return []
        return self._feed() or [chunk]

    def finish(self) -> Any:
        return self._finish() or self.held


def nothing() -> None:
    return None


def chain_of(each: Filter, on_error: Any = None) -> tuple[FilterChain, Hooks]:
    hooks = compile_hooks([made("bifrost_stream_filter", lambda self: each, HookOptions(on_error=on_error))])
    assert hooks.stream_filter is not None
    chain = hooks.stream_filter(call_until())
    assert chain is not None
    return chain, hooks


async def later() -> list[Chunk]:
    return []


WRONG: dict[str, Callable[[], Any]] = {
    "raise": fail_raise, "BaseException": fail_base, "string": lambda: "text", "number": lambda: 3,
    "chunk": lambda: Chunk(text="bare"), "texts": lambda: ["text"], "coroutine": later,
}  # fmt: skip


@pytest.mark.parametrize("failure", list(WRONG))
@pytest.mark.parametrize("where", ["feed", "finish"])
def test_a_failing_filter_ends_the_stream(where: str, failure: str) -> None:
    bad = WRONG[failure]
    chain, _ = chain_of(Filter(bad, nothing) if where == "feed" else Filter(nothing, bad))
    chain.feed(Chunk(text="1"))
    fails: Callable[[], object] = (lambda: chain.feed(Chunk(text="2"))) if where == "feed" else chain.finish
    with pytest.raises(PluginError) as caught:
        fails()
    assert caught.value.kind is Kind.GUARDRAIL_BLOCKED
    assert (caught.value.plugin, caught.value.hook) == ("Faulty", "bifrost_stream_filter")
    assert PROMPT not in caught.value.message
    repeats: list[Callable[[], object]] = [lambda: chain.feed(Chunk(text="3")), chain.finish]
    for again in repeats:
        with pytest.raises(PluginError) as once_more:
            again()
        assert once_more.value is caught.value


@pytest.mark.parametrize("failure", list(WRONG))
def test_an_open_filter_that_fails_gives_back_what_it_holds_and_steps_aside(failure: str) -> None:
    chain, hooks = chain_of(Filter(WRONG[failure], nothing), "open")
    out = [chunk.text for word in ("1", "2", "3") for chunk in chain.feed(Chunk(text=word))]
    assert out == ["1", "2", "3"]
    assert chain.finish() == []
    assert hooks.failures() == {("Faulty", "bifrost_stream_filter"): 1}


@pytest.mark.parametrize("failure", list(WRONG))
def test_an_open_filter_that_fails_at_the_end_ends_the_stream_without_its_rest(failure: str) -> None:
    chain, hooks = chain_of(Filter(nothing, WRONG[failure]), "open")
    assert [chunk.text for word in ("1", "2") for chunk in chain.feed(Chunk(text=word))] == ["2"]
    assert chain.finish() == []
    assert hooks.failures() == {("Faulty", "bifrost_stream_filter"): 1}


def test_an_open_filter_that_fails_twice_is_passed_by() -> None:
    chain, _ = chain_of(Filter(fail_raise, fail_raise), "open")
    assert [chunk.text for word in ("1", "2", "3") for chunk in chain.feed(Chunk(text=word))] == ["2", "3"]


@pytest.mark.parametrize("on_error", ["closed", "open"])
def test_a_filter_that_blocks_ends_the_stream_with_its_own_error(on_error: Any) -> None:
    blocked = GuardrailError("no", rule="r")

    def block() -> None:
        raise blocked

    chain, hooks = chain_of(Filter(block, nothing), on_error)
    with pytest.raises(GuardrailError) as caught:
        chain.feed(Chunk(text="2"))
    assert caught.value is blocked
    chain, _ = chain_of(Filter(nothing, block), on_error)
    with pytest.raises(GuardrailError) as caught:
        chain.finish()
    assert caught.value is blocked
    assert hooks.failures() == {}


def test_an_open_filter_that_keeps_failing_is_not_asked_for_a_minute() -> None:
    clock = FakeClock()
    hooks = compile_hooks(
        [made("bifrost_stream_filter", lambda self: Filter(fail_raise, nothing), HookOptions(on_error="open"))],
        clock=clock,
    )
    assert hooks.stream_filter is not None
    for _ in range(20):
        chain = hooks.stream_filter(call_until())
        assert chain is not None
        chain.feed(Chunk(text="2"))
        chain.finish()
    assert hooks.stream_filter(call_until()) is None
    clock.advance(60)
    assert hooks.stream_filter(call_until()) is not None


def test_a_filter_that_works_again_starts_the_count_anew() -> None:
    works = False

    def maybe() -> None:
        if not works:
            raise ValueError

    hooks = compile_hooks(
        [made("bifrost_stream_filter", lambda self: Filter(maybe, nothing), HookOptions(on_error="open"))]
    )
    assert hooks.stream_filter is not None
    for number in range(60):
        works = number % 15 == 14
        chain = hooks.stream_filter(call_until())
        assert chain is not None, "never 20 in a row"
        chain.feed(Chunk(text="2"))
        chain.finish()
