"""What ends a task or the process, and what only looks like it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bifrost_core.calls import Call
from bifrost_core.hooks import compile_hooks
from bifrost_core.hookspecs import hookimpl
from bifrost_core.interruptions import ends_process, is_interruption
from bifrost_core.types import Operation, Request


class OddError(BaseException):
    """Neither an ``Exception`` nor anything that Python knows."""


def caught(error: BaseException) -> BaseException:
    """The error as it is after somebody has raised it."""

    def fails() -> None:
        raise error

    try:
        fails()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


ERRORS: dict[str, tuple[Callable[[], BaseException], bool, bool]] = {
    "ValueError": (ValueError, False, False),
    "any BaseException": (OddError, False, False),
    "GeneratorExit": (GeneratorExit, False, False),
    "KeyboardInterrupt": (KeyboardInterrupt, True, True),
    "SystemExit": (SystemExit, True, True),
    "a group with one": (lambda: BaseExceptionGroup("", [ValueError(), KeyboardInterrupt()]), True, True),
    "a group in a group": (
        lambda: BaseExceptionGroup("", [BaseExceptionGroup("", [SystemExit()]), ValueError()]),
        True,
        True,
    ),
    "a group of failures": (lambda: BaseExceptionGroup("", [ValueError(), OddError()]), False, False),
}


@pytest.mark.parametrize("name", list(ERRORS))
async def test_only_the_end_of_the_process_is_one_while_nobody_cancels(name: str) -> None:
    make, interrupts, ends = ERRORS[name]
    error = caught(make())
    assert (is_interruption(error), ends_process(error)) == (interrupts, ends)


@pytest.mark.parametrize("name", list(ERRORS))
def test_so_it_is_without_an_event_loop(name: str) -> None:
    make, interrupts, ends = ERRORS[name]
    error = caught(make())
    assert (is_interruption(error), ends_process(error)) == (interrupts, ends)
    assert not ends_process(None)


async def test_a_cancellation_is_one() -> None:
    seen: list[bool] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException as exc:
            seen += [is_interruption(exc), is_interruption(BaseExceptionGroup("", [exc])), ends_process(exc)]
            raise
    assert seen == [True, True, False]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_cancellation_of_another_task_is_none(anyio_backend: Any) -> None:
    assert not is_interruption(caught(anyio.get_cancelled_exc_class()()))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_a_cancelled_task_raises_by_itself_is_one(anyio_backend: Any) -> None:
    seen: list[bool] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.lowlevel.checkpoint()
        except BaseException:
            seen.append(is_interruption(caught(anyio.get_cancelled_exc_class()())))  # as it cleans up
            raise
    assert seen == [True]


class Never:
    """Waits for what does not come."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def test_a_call_that_is_thrown_away_in_a_hook_is_no_failure_of_the_hook() -> None:
    cleaned: list[str] = []

    class Waits:
        @hookimpl
        async def bifrost_authorize(self) -> None:
            try:
                await Never()
            finally:
                cleaned.append("up")

    hooks = compile_hooks([Waits(), Waits()])
    assert hooks.authorize is not None
    request = Request(Operation.CHAT, "mistral/small")
    running: Any = hooks.authorize(request, Call("call-1", Operation.CHAT, request))
    running.send(None)
    running.close()
    assert cleaned == ["up"], "the second one is not asked any more"
    assert hooks.failures() == {}
