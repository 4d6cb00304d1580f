"""The loops that run a hook's implementations, each a closure of subject and call, and what goes around them.

What an implementation takes, whether it waits and what it may return is settled when the chain is made;
a call pays for a loop, a call and a comparison with None. A result that is not None is looked at:
waited for if it is a coroutine, then checked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from inspect import isawaitable
from typing import Any

from bifrost_core.calls import Call
from bifrost_core.errors import PluginError
from bifrost_core.hookspecs import Rule
from bifrost_core.interruptions import is_interruption

from .implementations import Implementation

__all__ = ["async_chain", "collect_chain", "pick_chain"]

Chain = Callable[[Any, Any], Awaitable[Any]]
SyncChain = Callable[[Any, Any], Any]
Teardown = Generator[object, Any, Any]


def async_chain(  # noqa: C901 # counts the closure's branches, see there
    rule: Rule, implementations: Sequence[Implementation], wrappers: Sequence[Implementation]
) -> Chain:
    """The loop of every rule but collect.

    One loop, because the rules differ only once a result is not None or an implementation has raised: a
    gate and a notify take no result, a first ends with it, a pipe hands it to the next.
    """
    steps = _steps(implementations)
    is_first, is_pipe, is_notify = rule is Rule.FIRST, rule is Rule.PIPE, rule is Rule.NOTIFY

    async def chain(subject: Any, call: Any) -> Any:  # noqa: C901 # helpers in this loop would double its cost
        held: BaseException | None = None
        value = subject
        for implementation, invoke, never_waits in steps:
            if implementation.streak and implementation.is_off():
                continue
            try:
                result = invoke(value, call)
                if result is not None:
                    if never_waits:
                        result = await result
                    elif isawaitable(result):
                        result = await implementation.wait(result, call)
                    if result is not None:
                        result = implementation.accept(result, value)
            except BaseException as exc:
                if not implementation.must_raise(exc, call):
                    continue
                # Everybody is told that a call is over, also while it is being cancelled. A coroutine that
                # is itself thrown away (GeneratorExit) can await nothing more.
                if not is_notify or isinstance(exc, GeneratorExit):
                    raise
                held = exc
            else:
                if implementation.streak:
                    implementation.streak = 0
                if result is not None:
                    if is_first:
                        return result
                    value = result
        if held is not None:
            try:
                raise held
            finally:
                del held  # no cycle of frame and traceback
        return value if is_pipe else None

    return _wrapped(chain, wrappers, keeps=is_pipe)


def pick_chain(implementations: Sequence[Implementation], wrappers: Sequence[Implementation]) -> SyncChain:
    """The loop of a first that never waits."""
    steps = _steps(implementations)

    def chain(subject: Any, call: Any) -> Any:
        for implementation, invoke, _ in steps:
            if implementation.streak and implementation.is_off():
                continue
            try:
                result = invoke(subject, call)
                if result is not None:
                    result = implementation.accept(result, subject)
            except BaseException as exc:
                if implementation.must_raise(exc, call):
                    raise
            else:
                if implementation.streak:
                    implementation.streak = 0
                if result is not None:
                    return result
        return None

    return _sync_wrapped(chain, wrappers)


def collect_chain(
    implementations: Sequence[Implementation],
) -> Callable[[Any, Call | None], list[tuple[Implementation, Any]]]:
    """All results that are not None, each with its implementation."""

    def chain(subject: Any, call: Call | None) -> list[tuple[Implementation, Any]]:
        results: list[tuple[Implementation, Any]] = []
        for implementation in implementations:
            if implementation.streak and implementation.is_off():
                continue
            try:
                result = implementation.invoke(subject, call)
                if result is not None:
                    results.append((implementation, implementation.accept(result, subject)))
            except BaseException as exc:
                if implementation.must_raise(exc, call):
                    raise
        return results

    return chain


def _steps(
    implementations: Sequence[Implementation],
) -> tuple[tuple[Implementation, Callable[[Any, Any], Any], bool], ...]:
    return tuple((each, each.invoke, each.never_waits) for each in implementations)


# Wrappers: plain generators with one yield, as pluggy has them. They see what the chain inside returns or
# raises, and what they return or raise takes its place.


def _wrapped(inner: Chain, wrappers: Sequence[Implementation], *, keeps: bool) -> Chain:
    if not wrappers:
        return inner

    async def chain(subject: Any, call: Any) -> Any:
        entered: list[tuple[Implementation, Teardown]] = []
        result: Any = None
        error: BaseException | None = None
        try:
            for wrapper in wrappers:
                _enter(wrapper, subject, call, entered)
            result = await inner(subject, call)
        except BaseException as exc:
            error = exc
        return _leave_all(entered, subject, call, result, error, keeps=keeps)

    return chain


def _sync_wrapped(inner: SyncChain, wrappers: Sequence[Implementation]) -> SyncChain:
    if not wrappers:
        return inner

    def chain(subject: Any, call: Any) -> Any:
        entered: list[tuple[Implementation, Teardown]] = []
        result: Any = None
        error: BaseException | None = None
        try:
            for wrapper in wrappers:
                _enter(wrapper, subject, call, entered)
            result = inner(subject, call)
        except BaseException as exc:
            error = exc
        return _leave_all(entered, subject, call, result, error, keeps=False)

    return chain


def _enter(wrapper: Implementation, subject: Any, call: Any, entered: list[tuple[Implementation, Teardown]]) -> None:
    """Run a wrapper up to its yield. One that fails and is open is left out."""
    if wrapper.streak and wrapper.is_off():
        return
    try:
        teardown = wrapper.invoke(subject, call)
        try:
            next(teardown)
        except StopIteration:
            raise RuntimeError("the wrapper did not yield") from None
    except BaseException as exc:
        if wrapper.must_raise(exc, call):
            raise
    else:
        entered.append((wrapper, teardown))


def _leave_all(
    entered: list[tuple[Implementation, Teardown]],
    subject: Any,
    call: Any,
    result: Any,
    error: BaseException | None,
    *,
    keeps: bool,
) -> Any:
    """Run what stands behind the wrappers' yields, the innermost first."""
    judged, is_end = error, error is not None and is_interruption(error)
    for wrapper, teardown in reversed(entered):
        if error is not judged:
            judged, is_end = error, error is not None and is_interruption(error)
        if error is not None and is_end:
            _tear_down(wrapper, teardown, error)
        else:
            result, error = _leave(wrapper, teardown, subject, call, result, error, keeps=keeps)
    if error is None:
        return result
    try:
        raise error
    finally:
        del error  # no cycle of frame and traceback


def _tear_down(wrapper: Implementation, teardown: Teardown, error: BaseException) -> None:
    """Let a wrapper clean up after a cancellation, which goes on whatever the wrapper makes of it."""
    try:
        teardown.throw(error)
        teardown.close()
    except StopIteration:
        return
    except BaseException as exc:
        if exc is not error and not is_interruption(exc):
            wrapper.note(exc)


def _leave(
    wrapper: Implementation,
    teardown: Teardown,
    subject: Any,
    call: Any,
    result: Any,
    error: BaseException | None,
    *,
    keeps: bool,
) -> tuple[Any, BaseException | None]:
    """Run one wrapper's second half; return what now stands, a result or an error."""
    before = subject if keeps and error is not None else result
    try:
        try:
            if error is None:
                teardown.send(result)
            else:
                teardown.throw(error)
        except StopIteration as stop:
            value = stop.value
        else:
            teardown.close()
            raise RuntimeError("the wrapper has a second yield")
        if value is None:
            value = before if keeps else None
        elif value is not before or not keeps:
            value = wrapper.accept(value, before if keeps else subject)
    except BaseException as exc:
        if exc is error:
            return None, error
        try:
            return (None, exc) if wrapper.must_raise(exc, call) else (result, error)
        except PluginError as broken:
            return None, broken
    wrapper.streak = 0
    return value, None
