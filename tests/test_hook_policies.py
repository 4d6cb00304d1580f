"""What a plugin's failure does to a call: every hook, every way to fail, through a Router, plain and streamed.

The faulty plugin stands between two witnesses that implement every hook, behind a ledger that holds a place for each
attempt. It fails once: the call after that has to be answered as if nothing had happened. Hangs happen in virtual
time: under trio its clock jumps, under asyncio the cap is a hundredth of a second.

``test_hooks_failures.py`` has the same matrix hook by hook, without a Router and with more ways to be written.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest
import trio.testing

from bifrost_core.attempts import Attempt
from bifrost_core.calls import CallRecord, Principal
from bifrost_core.errors import (
    BadRequestError,
    CallError,
    ConfigError,
    DeadlineExceededError,
    GuardrailError,
    PluginError,
)
from bifrost_core.hooks import HookOptions
from bifrost_core.hookspecs import HOOKS, Rule, hookimpl
from bifrost_core.keys import Key
from bifrost_core.kinds import Kind
from bifrost_core.providers.mistral import Mistral
from bifrost_core.responses import ChatResponse
from bifrost_core.retries import RetryPolicy
from bifrost_core.router import Router
from bifrost_core.testing import Fault, Simulated, SimulatedKey
from bifrost_core.types import Chunk, Request

MODEL = "simulated/model"
WORDS = "the bridge is called Bifrost"
PER_CALL = [hook for hook in HOOKS if hook not in {"bifrost_lifespan", "bifrost_providers", "bifrost_resolve_secret"}]
CHANGEABLE = {
    "bifrost_guard_request", "bifrost_cached_response", "bifrost_select_routes", "bifrost_pick_route",
    "bifrost_reserve", "bifrost_stream_filter", "bifrost_guard_response",
}  # fmt: skip
HOWS = ["plain", "streamed"]


class OddError(BaseException):
    """What a library should not raise, and some do."""


def backend(name: str) -> Any:
    return (name, {"clock": trio.testing.MockClock(autojump_threshold=0)}) if name == "trio" else name


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return backend(str(request.param))


@pytest.fixture
def cap(anyio_backend: Any) -> float:
    """Seconds that a hanging hook gets: real ones on asyncio."""
    return 0.01 if anyio_backend == "asyncio" else 0.5


# -- the matrix -------------------------------------------------------------------------------------


@attrs.frozen
class Row:
    """What a hook's failure does to a call.

    Attributes:
        default: Whether it is closed or open.
        error: What the caller gets of a closed one (of an open one in ``bifrost_recover``: what stands).
        kind: Its kind.
        status: The status that a gateway would answer with.
        attempts: Outcomes of the attempts then.
        sent: Requests that have reached the provider by then.
    """

    default: str
    error: type[CallError] = PluginError
    kind: Kind = Kind.PLUGIN_ERROR
    status: int = 503
    attempts: tuple[str, ...] = ()
    sent: int = 0


MATRIX: dict[str, Row] = {
    "bifrost_authenticate": Row("closed"),
    "bifrost_authorize": Row("closed"),
    "bifrost_guard_request": Row("closed"),
    "bifrost_cached_response": Row("open"),
    "bifrost_select_routes": Row("open"),
    "bifrost_pick_route": Row("open"),
    "bifrost_reserve": Row("closed", attempts=("failed",)),
    "bifrost_attempt_finished": Row("open"),
    "bifrost_stream_filter": Row("closed", kind=Kind.GUARDRAIL_BLOCKED, status=446, attempts=("failed",)),
    "bifrost_guard_response": Row("closed", attempts=("ok",), sent=1),
    "bifrost_recover": Row("open", BadRequestError, Kind.INVALID_REQUEST, 400, ("failed",), 1),
    "bifrost_call_finished": Row("open"),
}
ENDED = Row("", attempts=())


# -- who takes part ---------------------------------------------------------------------------------


class Witness:
    """Implements every hook of a call, answers nothing and notes what it is asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[str] = []
        self.records: list[CallRecord] = []
        self.attempts: list[str | None] = []

    @hookimpl
    def bifrost_attempt_finished(self, attempt: Attempt) -> None:
        self.seen.append("bifrost_attempt_finished")
        self.attempts.append(attempt.outcome)

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.seen.append("bifrost_call_finished")
        self.records.append(record)


def _noting(hook: str) -> Any:
    def note(self: Witness) -> None:
        self.seen.append(hook)

    return hookimpl(note)


for _hook in PER_CALL:
    if not hasattr(Witness, _hook):
        setattr(Witness, _hook, _noting(_hook))


class Ledger:
    """Holds a place for each attempt, as a budget does; both ends wait."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.settled: list[str] = []

    @hookimpl
    async def bifrost_reserve(self, attempt: Attempt) -> None:
        self.held.add(attempt.id)
        await anyio.lowlevel.checkpoint()

    @hookimpl
    async def bifrost_attempt_finished(self, attempt: Attempt) -> None:
        await anyio.lowlevel.checkpoint()
        self.held.remove(attempt.id)
        self.settled.append(attempt.id)


def plugin(hook: str, failure: Callable[[Any], Any], *, waits: bool = False, **options: Any) -> Any:
    """A plugin of one hook that does ``failure`` with its subject, the first time, and nothing from then on.

    ``waits``: it is an ``async def`` that awaits what ``failure`` returns.
    """
    is_over = False

    def plain(subject: Any) -> Any:
        nonlocal is_over
        before, is_over = is_over, True
        return None if before else failure(subject)

    async def waiting(subject: Any) -> Any:
        made = plain(subject)
        return None if made is None else await made

    subject = HOOKS[hook].arguments[0]
    source = "async def {0}(self, {1}): return await body({1})" if waits else "def {0}(self, {1}): return body({1})"
    scope: dict[str, Any] = {"body": waiting if waits else plain}
    exec(source.format(hook, subject), scope)  # the only way to a function whose argument is named as the hook's
    members: dict[str, Any] = {hook: hookimpl(scope[hook])}
    if options:
        members["hook_options"] = {hook: HookOptions(**options)}
    return type("Faulty", (), members)()


@attrs.define(eq=False)
class World:
    """A Router with witnesses around one faulty plugin."""

    provider: Simulated
    router: Router
    outer: Witness
    inner: Witness
    ledger: Ledger

    async def ask(self, how: str, timeout: float | None = None) -> str:  # noqa: ASYNC109 # the call's own
        """The answer's text."""
        if how == "plain":
            return (await self.router.chat(MODEL, "hi", timeout=timeout)).text
        async with self.router.stream(MODEL, "hi", timeout=timeout) as stream:
            return "".join([chunk.text async for chunk in stream])

    @property
    def sent(self) -> int:
        """Requests that have reached the provider."""
        return len(self.provider.journal)

    def check(self, outcome: str, kind: Kind | None, attempts: tuple[str, ...], calls: int = 1) -> None:
        """What the last call came to, for everybody alike; and that nothing is left of it."""
        for witness in (self.outer, self.inner):
            assert len(witness.records) == calls, "bifrost_call_finished exactly once a call"
            record = witness.records[-1]
            assert (record.outcome, record.kind) == (outcome, kind)
            assert tuple(attempt.outcome for attempt in record.attempts) == attempts
            assert witness.attempts[len(witness.attempts) - len(attempts) :] == list(attempts)
        assert self.ledger.held == set()
        assert len(self.ledger.settled) == len(set(self.ledger.settled)), "settled once"
        assert all(health.in_flight == 0 for health in self.router.health())
        assert all(health.state == "closed" for health in self.router.health()), "no fault of the provider's"


def world(hook: str, failure: Callable[[Any], Any], **how: Any) -> World:
    """A Router whose one plugin fails in ``hook``; in ``bifrost_recover`` the provider does, too."""
    faults = [Fault("status", status=400, last=1)] if hook == "bifrost_recover" else []
    provider = Simulated([SimulatedKey("key", faults=faults)], answer=lambda body: WORDS)
    outer, inner, ledger = Witness("outer"), Witness("inner"), Ledger()
    plugins = [outer, ledger, plugin(hook, failure, **how), inner]
    return World(provider, Router([provider], plugins=plugins, retry=RetryPolicy(max_attempts=1)), outer, inner, ledger)


def is_asked(hook: str, how: str) -> bool:
    """Whether a call comes to the hook at all."""
    return hook != "bifrost_stream_filter" or how == "streamed"


def cells(hooks: list[str] = PER_CALL) -> Iterator[Any]:
    """Hook, setting (None: nothing is set), effect and way of asking."""
    for hook in hooks:
        default = MATRIX[hook].default
        other = "open" if default == "closed" else "closed"
        for setting in [default, other] if hook in CHANGEABLE else [default]:
            for how in HOWS:
                if is_asked(hook, how):
                    stated = None if setting == default else setting
                    yield pytest.param(hook, stated, setting, how, id=f"{hook}-{setting}-{how}")


def options_for(hook: str, stated: str | None, **more: Any) -> dict[str, Any]:
    if stated is not None:
        more["on_error"] = stated
        if hook == "bifrost_guard_request":
            more["checks"] = True  # only a guard that checks may be open
    return more


async def expect(made: World, hook: str, effect: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """One call that meets the failure and one that does not."""
    row = MATRIX[hook]
    async with made.router:
        if effect == "open" and hook != "bifrost_recover":
            assert await made.ask(how) == WORDS
            made.check("ok", None, ("ok",))
            assert made.sent == 1
        else:
            with pytest.raises(row.error) as caught:
                await made.ask(how)
            error = caught.value
            assert (type(error), error.kind, error.http_status) == (row.error, row.kind, row.status)
            assert error.call_id == made.outer.records[0].call_id
            assert made.outer.records[0].error is error
            made.check("failed", row.kind, row.attempts)
            assert made.sent == row.sent
            if isinstance(error, PluginError):
                assert (error.plugin, error.hook) == ("Faulty", hook)
        assert [record.levelno for record in caplog.records if "Faulty" in record.getMessage()] == (
            [logging.WARNING] if effect == "open" else []
        )
        first, second = (made.inner, made.outer) if HOOKS[hook].is_outward else (made.outer, made.inner)
        if hook == "bifrost_guard_response" and how == "streamed":
            assert hook not in first.seen + second.seen, "they see streams through their filters"
        else:
            assert first.seen.count(hook) == 1, "who stands before the plugin is asked"
            assert second.seen.count(hook) == (1 if effect == "open" else 0), "who stands behind it, when it is open"
        assert await made.ask(how) == WORDS
        made.check("ok", None, ("ok",), calls=2)


# -- raise, BaseException, wrong type, mutate ---------------------------------------------------------


def raises(error: type[BaseException]) -> Callable[[Any], Any]:
    def fail(subject: Any) -> Any:
        raise error

    return fail


def returns_a_dict(subject: Any) -> Any:
    return {"wrong": "type"}


def mutates(subject: Any) -> Any:
    """Changes in place what it was given; all that is given is frozen, but for the call and the attempt."""
    if isinstance(subject, Request):
        subject.body["model"] = "another"  # type: ignore[index] # the mistake
    elif isinstance(subject, tuple):
        del subject[0]  # type: ignore[attr-defined] # the mistake
    else:
        subject.text = "another"


FAILURES: dict[str, Callable[[Any], Any]] = {
    "raise": raises(ValueError),
    "BaseException": raises(OddError),
    "GeneratorExit": raises(GeneratorExit),
    "wrong type": returns_a_dict,
}
FROZEN = [
    "bifrost_authorize", "bifrost_guard_request", "bifrost_cached_response", "bifrost_select_routes",
    "bifrost_pick_route", "bifrost_guard_response", "bifrost_call_finished",
]  # fmt: skip


@pytest.mark.parametrize(("hook", "stated", "effect", "how"), list(cells()))
@pytest.mark.parametrize("failure", list(FAILURES))
async def test_a_failure_does_what_the_matrix_says(
    hook: str, stated: str | None, effect: str, how: str, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    await expect(world(hook, FAILURES[failure], **options_for(hook, stated)), hook, effect, how, caplog)


@pytest.mark.parametrize(("hook", "stated", "effect", "how"), list(cells(FROZEN)))
async def test_what_a_hook_is_given_is_frozen_and_changing_it_is_a_failure(
    hook: str, stated: str | None, effect: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    await expect(world(hook, mutates, **options_for(hook, stated)), hook, effect, how, caplog)


WAITING = [hook for hook in PER_CALL if HOOKS[hook].is_async]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio's is never raised by hand
@pytest.mark.parametrize(("hook", "stated", "effect", "how"), list(cells()))
async def test_the_cancellation_of_something_else_is_a_failure_and_none_of_the_call(
    hook: str, stated: str | None, effect: str, how: str, caplog: pytest.LogCaptureFixture, anyio_backend: Any
) -> None:
    stray = raises(anyio.get_cancelled_exc_class())
    await expect(world(hook, stray, **options_for(hook, stated)), hook, effect, how, caplog)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("hook", "stated", "effect", "how"), list(cells(WAITING)))
async def test_so_is_one_that_comes_out_of_something_that_the_hook_waited_for(
    hook: str, stated: str | None, effect: str, how: str, caplog: pytest.LogCaptureFixture, anyio_backend: Any
) -> None:
    async def waits_for_what_is_cancelled() -> None:
        await anyio.lowlevel.checkpoint()
        raise anyio.get_cancelled_exc_class()

    made = world(hook, lambda subject: waits_for_what_is_cancelled(), waits=True, **options_for(hook, stated))
    await expect(made, hook, effect, how, caplog)


class FaultyFilter:
    """Lets chunks through until it fails, the first time that it is asked ``where``."""

    def __init__(self, where: str, failure: Callable[[Any], Any]) -> None:
        self._where, self._failure = where, failure

    def feed(self, chunk: Chunk) -> Any:
        if self._where == "feed" and chunk.text:
            self._where = ""
            return self._failure(chunk)
        return [chunk]

    def finish(self) -> Any:
        return self._failure(Chunk()) if self._where == "finish" else []


@pytest.mark.parametrize("effect", ["closed", "open"])
@pytest.mark.parametrize("failure", [*FAILURES, "mutate"])
@pytest.mark.parametrize("where", ["feed", "finish"])
async def test_a_filter_that_fails_ends_the_stream_or_steps_aside(
    where: str, failure: str, effect: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = FAILURES.get(failure, mutates)
    stated = None if effect == "closed" else "open"
    made = world("bifrost_stream_filter", lambda call: FaultyFilter(where, bad), on_error=stated)
    got: list[str] = []
    async with made.router:
        if effect == "open":
            assert await made.ask("streamed") == WORDS
            made.check("ok", None, ("ok",))
        else:
            with pytest.raises(PluginError) as caught:
                async with made.router.stream(MODEL, "hi") as stream:
                    async for chunk in stream:
                        got.append(chunk.text)
            error = caught.value
            assert (error.kind, error.http_status, error.hook) == (
                Kind.GUARDRAIL_BLOCKED, 446, "bifrost_stream_filter",
            )  # fmt: skip
            assert WORDS.startswith("".join(got)), "nothing that the filter has not passed"
            assert where == "finish" or got == [], "nothing without content either"
            assert len(made.outer.records) == len(made.inner.records) == 1
            assert made.outer.records[0].kind == Kind.GUARDRAIL_BLOCKED
            assert made.ledger.held == set()
        assert [record.levelno for record in caplog.records if "Faulty" in record.getMessage()] == (
            [logging.WARNING] if effect == "open" else []
        )
        assert await made.ask("streamed") == WORDS


# -- recovering from plugins ------------------------------------------------------------------------------


class Recovers:
    """Makes an answer of every error."""

    @hookimpl
    def bifrost_recover(self, error: CallError) -> ChatResponse:
        return ChatResponse().with_text(f"instead of {error.kind}")


class Blocks:
    """Blocks the first words of a stream, or the whole answer."""

    def __init__(self, where: str) -> None:
        self.where = where

    def feed(self, chunk: Chunk) -> list[Chunk]:
        if self.where == "feed" and chunk.text:
            raise GuardrailError("no")
        return []

    def finish(self) -> list[Chunk]:
        raise GuardrailError("no")


@pytest.mark.parametrize("where", ["feed", "finish", "the whole answer"])
async def test_a_stream_of_which_nothing_is_out_can_be_recovered_from_a_guardrail(where: str) -> None:
    def blocks(response: object) -> None:
        raise GuardrailError("no")

    if where == "the whole answer":
        guard = plugin("bifrost_guard_response", blocks)
    else:
        guard = plugin("bifrost_stream_filter", lambda call: Blocks(where))
    async with Router([Simulated(["key"])], plugins=[guard, Recovers()]) as router:
        async with router.stream(MODEL, "hi") as stream:
            assert "".join([chunk.text async for chunk in stream]) == "instead of guardrail_blocked"
        assert stream.response.text == "instead of guardrail_blocked"


# -- hang -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hook", "stated", "effect", "how"), list(cells(WAITING)))
@pytest.mark.parametrize("waits", [True, False], ids=["async", "awaitable"])
async def test_a_hook_that_hangs_is_ended_by_its_cap_and_has_failed(
    hook: str, stated: str | None, effect: str, how: str, waits: bool, cap: float, caplog: pytest.LogCaptureFixture
) -> None:
    made = world(
        hook, lambda subject: anyio.sleep_forever(), waits=waits, **options_for(hook, stated, timeout=cap)
    )  # fmt: skip
    await expect(made, hook, effect, how, caplog)


# -- late -------------------------------------------------------------------------------------------

NOTIFIES = [hook for hook in PER_CALL if HOOKS[hook].rule is Rule.NOTIFY]
HELD_UP = [hook for hook in WAITING if hook not in {*NOTIFIES, "bifrost_recover"}]
ANSWERS: dict[str, Any] = {
    "bifrost_authenticate": Principal(id="late"),
    "bifrost_cached_response": ChatResponse(),
}
BEHIND = {"bifrost_reserve": ("failed",), "bifrost_guard_response": ("ok",)}  # attempts by then


def late(hook: str, seconds: float, begun: anyio.Event) -> Callable[[Any], Any]:
    """Answers what would be right, after ``seconds`` in which nothing can end it."""

    async def answer(subject: Any) -> Any:
        begun.set()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(seconds)
        return ANSWERS.get(hook, subject if HOOKS[hook].rule is Rule.PIPE else None)

    return answer


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("hook", HELD_UP)
async def test_an_answer_that_comes_after_the_call_was_cancelled_does_not_count(hook: str, how: str) -> None:
    begun = anyio.Event()
    made = world(hook, late(hook, 0.05, begun), waits=True, timeout=30)
    got: list[str] = []

    async def ask() -> None:
        got.append(await made.ask(how))

    async with made.router:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await begun.wait()
            group.cancel_scope.cancel()
        assert got == []
        attempts = ("cancelled",) if hook == "bifrost_reserve" else BEHIND.get(hook, ())
        made.check("cancelled", Kind.CANCELLED, attempts)
        assert made.sent == (1 if hook == "bifrost_guard_response" else 0), "nothing is sent after that"
        assert await made.ask(how) == WORDS
        made.check("ok", None, ("ok",), calls=2)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("hook", NOTIFIES)
async def test_what_settles_and_what_is_told_of_the_end_finishes_in_a_cancelled_call_too(hook: str, how: str) -> None:
    begun, finished = anyio.Event(), anyio.Event()

    async def settles(subject: Any) -> None:
        begun.set()
        await anyio.sleep(0.05)
        finished.set()

    made = world(hook, settles, waits=True, **({"timeout": 0.4} if hook == "bifrost_call_finished" else {}))

    async def ask() -> None:
        await made.ask(how)

    async with made.router:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await begun.wait()
            group.cancel_scope.cancel()
        assert finished.is_set()
        assert [witness.attempts for witness in (made.inner, made.outer)] == [["ok"], ["ok"]]
        assert [len(witness.records) for witness in (made.inner, made.outer)] == [1, 1]
        assert made.ledger.held == set()
        assert await made.ask(how) == WORDS
        made.check("ok", None, ("ok",), calls=2)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("hook", HELD_UP)
async def test_an_answer_that_comes_after_the_calls_deadline_does_not_count(hook: str, how: str) -> None:
    made = world(hook, late(hook, 0.2, anyio.Event()), waits=True, timeout=30)
    async with made.router:
        with pytest.raises(DeadlineExceededError) as caught:
            await made.ask(how, timeout=0.1)
        assert caught.value.phase == f"hook:{hook}"
        assert caught.value.http_status == 504
        made.check("failed", Kind.DEADLINE_EXCEEDED, BEHIND.get(hook, ()))
        assert made.sent == (1 if hook == "bifrost_guard_response" else 0), "nothing is sent after that"
        assert await made.ask(how) == WORDS
        made.check("ok", None, ("ok",), calls=2)


@pytest.mark.parametrize("how", HOWS)
async def test_recovering_after_the_deadline_leaves_the_error(how: str) -> None:
    made = world("bifrost_recover", late("bifrost_recover", 0.2, anyio.Event()), waits=True)
    async with made.router:
        with pytest.raises(BadRequestError):
            await made.ask(how, timeout=0.1)
        made.check("failed", Kind.INVALID_REQUEST, ("failed",))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("hook", NOTIFIES)
async def test_what_settles_has_time_of_its_own_beyond_the_deadline(hook: str, how: str) -> None:
    finished: list[bool] = []

    async def settles(subject: Any) -> None:
        await anyio.sleep(0.15)
        finished.append(True)

    made = world(hook, settles, waits=True)
    async with made.router:
        assert await made.ask(how, timeout=0.1) == WORDS, "it was whole in time"
        assert finished == [True]
        made.check("ok", None, ("ok",))


# -- the end of the process ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["asyncio", "trio"])
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit], ids=["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("hook", PER_CALL)
def test_the_end_of_the_process_goes_through_and_leaves_a_settled_call(
    hook: str, end: type[BaseException], how: str, name: str
) -> None:
    if not is_asked(hook, how):
        how = "streamed"
    made = world(hook, raises(end))

    async def main() -> None:
        await made.ask(how)

    options = {} if name == "asyncio" else backend(name)[1]
    with pytest.raises(end):
        anyio.run(main, backend=name, backend_options=options)
    assert made.ledger.held == set()
    assert all(health.in_flight == 0 for health in made.router.health())
    for witness in (made.outer, made.inner):
        (record,) = witness.records
        assert len(witness.attempts) == len(record.attempts)
        if hook not in {"bifrost_recover", "bifrost_call_finished"}:  # by then the call was over
            assert (record.outcome, record.kind, record.error) == ("cancelled", Kind.CANCELLED, None)


@pytest.mark.parametrize("name", ["asyncio", "trio"])
@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit], ids=["KeyboardInterrupt", "SystemExit"])
def test_the_end_of_the_process_while_a_stream_is_left_early_is_not_lost(end: type[BaseException], name: str) -> None:
    made = world("bifrost_call_finished", raises(end))

    async def main() -> None:
        async with made.router.stream(MODEL, "hi") as stream:
            async for _ in stream:
                break

    with pytest.raises(end):
        anyio.run(main, backend=name, backend_options={} if name == "asyncio" else backend(name)[1])
    assert [witness.records[0].outcome for witness in (made.outer, made.inner)] == ["cancelled", "cancelled"]
    assert made.ledger.held == set()


# -- recovering takes the time that it may ------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", [backend("trio")], ids=["trio"])  # seconds of virtual time
@pytest.mark.parametrize("how", HOWS)
async def test_who_recovers_for_longer_than_settling_may_take_is_waited_for(how: str, anyio_backend: Any) -> None:
    async def asks_elsewhere(error: CallError) -> ChatResponse:
        await anyio.sleep(7)
        return ChatResponse().with_text("from elsewhere")

    made = world("bifrost_recover", asks_elsewhere, waits=True, timeout=30)
    async with made.router:
        assert await made.ask(how) == "from elsewhere"
        made.check("ok", None, ("failed",))
        assert made.outer.records[0].rewritten == {"recovered"}


@pytest.mark.parametrize("how", HOWS)
async def test_a_call_that_is_cancelled_while_somebody_recovers_it_is_a_cancelled_one(how: str) -> None:
    begun = anyio.Event()

    async def waits_for_ever(error: CallError) -> None:
        begun.set()
        await anyio.sleep_forever()

    made = world("bifrost_recover", waits_for_ever, waits=True, timeout=None)
    async with made.router:
        async with anyio.create_task_group() as group:
            group.start_soon(made.ask, how)
            await begun.wait()
            group.cancel_scope.cancel()
        made.check("cancelled", Kind.CANCELLED, ("failed",))


# -- around the Router's life -----------------------------------------------------------------------


def starting(hook: str, failure: Callable[[Any], Any], **how: Any) -> Router:
    """A Router with a key that a plugin resolves, whose plugin fails at the start."""
    return Router([Mistral([Key("vault:mistral", id="kept")])], plugins=[plugin(hook, failure, **how)])


async def start(router: Router, how: str) -> None:
    """By a first call, or by entering."""
    if how == "entered":
        await router.__aenter__()
    elif how == "plain":
        await router.chat(router_model(router), "hi")
    else:
        await router.stream(router_model(router), "hi").__aenter__()


def router_model(router: Router) -> str:
    return f"{next(iter(router.providers))}/model"


STARTS = [*HOWS, "entered"]


@pytest.mark.parametrize("failure", list(FAILURES))
def test_without_a_plugins_providers_there_is_no_router(failure: str) -> None:
    with pytest.raises(PluginError) as caught:
        starting("bifrost_providers", FAILURES[failure])
    error = caught.value
    assert (error.plugin, error.hook, error.kind, error.call_id) == (
        "Faulty", "bifrost_providers", Kind.PLUGIN_ERROR, "",
    )  # fmt: skip


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("failure", [*FAILURES, "hang"])
async def test_a_secret_that_is_not_resolved_is_a_mistake_of_the_configuration(
    failure: str, how: str, cap: float
) -> None:
    bad = FAILURES.get(failure, lambda reference: anyio.sleep_forever())
    router = starting("bifrost_resolve_secret", bad, timeout=cap)
    with pytest.raises(ConfigError) as caught:
        await start(router, how)
    assert caught.value.field == "kept"
    assert caught.value.message.startswith("key kept: plugin Faulty: bifrost_resolve_secret ")
    assert isinstance(caught.value.__cause__, PluginError)
    await router.aclose()


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit], ids=["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_the_end_of_the_process_goes_through_the_start(end: type[BaseException], name: str) -> None:
    with pytest.raises(end):
        anyio.run(start, starting("bifrost_resolve_secret", raises(end)), "plain", backend=name)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit], ids=["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("name", ["asyncio", "trio"])
@pytest.mark.parametrize("when", ["enter", "leave"])
def test_the_end_of_the_process_goes_through_lifespans_and_the_others_still_leave(
    when: str, end: type[BaseException], name: str
) -> None:
    log: list[str] = []

    async def main() -> None:
        async with lives(log, 10, **{when: raises(end)}) as router:
            await router.chat(MODEL, "hi")

    with pytest.raises((end, BaseExceptionGroup)) as caught:
        anyio.run(main, backend=name)
    if isinstance(caught.value, BaseExceptionGroup):  # the lifespan holds a task group
        assert caught.value.subgroup(end) is not None
    assert log[-1] == "first out"


class Life(AbstractAsyncContextManager[None]):
    """Holds a task group, as a plugin with a task of its own does; notes when it is entered and left."""

    def __init__(
        self,
        log: list[str],
        name: str,
        enter: Callable[[Any], Any] = lambda _: None,
        leave: Callable[[Any], Any] = lambda _: None,
    ) -> None:
        self.log, self.name = log, name
        self._enter, self._leave = enter, leave
        self._inside = self._run()

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            waited = self._enter(None)
            if waited is not None:
                await waited
            self.log.append(f"{self.name} in")
            yield
            group.cancel_scope.cancel()
        waited = self._leave(None)
        if waited is not None:
            await waited
        self.log.append(f"{self.name} out")

    async def __aenter__(self) -> None:
        await self._inside.__aenter__()

    async def __aexit__(self, *exc_info: object) -> None:
        await self._inside.__aexit__(None, None, None)


async def hangs(_: Any) -> None:
    await anyio.sleep_forever()


def lives(log: list[str], cap: float, **faults: Callable[[Any], Any]) -> Router:
    """A Router with three lifespans, the middle one with faults."""

    def one(name: str, **how: Any) -> Any:
        return plugin("bifrost_lifespan", lambda router: Life(log, name, **how), timeout=cap)

    return Router([Simulated(["key"])], plugins=[one("first"), one("middle", **faults), one("last")])


LIFE_FAILURES: dict[str, Callable[[Any], Any]] = {
    "raise": raises(ValueError),
    "BaseException": raises(OddError),
    "hang": hangs,
}


@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("failure", list(LIFE_FAILURES))
async def test_a_lifespan_that_does_not_start_keeps_the_router_from_starting_and_those_before_it_are_left(
    failure: str, how: str, cap: float
) -> None:
    log: list[str] = []
    router = lives(log, cap, enter=LIFE_FAILURES[failure])
    with pytest.raises(PluginError) as caught:
        await start(router, how)
    error = caught.value
    assert (error.plugin, error.hook, error.kind) == ("Faulty#2", "bifrost_lifespan", Kind.PLUGIN_ERROR)
    assert (
        error.message
        == {
            "raise": "plugin Faulty#2: bifrost_lifespan failed to start (ExceptionGroup); the Router does not start",
            "BaseException": "plugin Faulty#2: bifrost_lifespan failed to start (BaseExceptionGroup); the Router does not start",
            "hang": f"plugin Faulty#2: bifrost_lifespan took longer than {cap:g} s to start; the Router does not start",
        }[failure]
    )
    assert log == ["first in", "first out"]
    await router.aclose()


@pytest.mark.parametrize("how", STARTS)
async def test_a_lifespan_that_is_no_context_manager_keeps_the_router_from_starting(how: str) -> None:
    router = Router([Simulated(["key"])], plugins=[plugin("bifrost_lifespan", returns_a_dict)])
    with pytest.raises(PluginError, match="bifrost_lifespan returned"):
        await start(router, how)
    await router.aclose()


@pytest.mark.parametrize("failure", list(LIFE_FAILURES))
async def test_a_lifespan_that_does_not_stop_is_logged_and_the_others_still_leave(
    failure: str, cap: float, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    router = lives(log, cap, leave=LIFE_FAILURES[failure])
    async with router:
        assert (await router.chat(MODEL, "hi")).text
    assert log == ["first in", "middle in", "last in", "last out", "first out"]
    assert [record.getMessage() for record in caplog.records] == [
        f"plugin Faulty#2: bifrost_lifespan took longer than {cap:g} s to stop"
        if failure == "hang"
        else "plugin Faulty#2: bifrost_lifespan failed to stop"
    ]
