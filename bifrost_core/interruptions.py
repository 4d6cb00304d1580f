"""What is no failure of whoever raised it: a cancellation, and the end of the process.

Nothing may hold these up. What only looks like one (the ``CancelledError`` of some other task that a plugin
has waited for, a ``GeneratorExit`` that somebody raised) is a failure like any other.
"""

from __future__ import annotations

import importlib

import anyio
import sniffio

__all__ = ["ends_process", "is_interruption"]


def is_interruption(error: BaseException) -> bool:
    """Whether ``error`` ends this task or the process.

    Call it where ``error`` was caught, in the frame that awaited what raised it.

    Args:
        error: Anything; a group is an interruption when one of its members is.
    """
    if isinstance(error, Exception):
        return False
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(_is_one) is not None  # pyright: ignore[reportUnknownMemberType] # a group of anything
    return _is_one(error)


def ends_process(error: BaseException | None) -> bool:
    """Whether ``error`` is a ``KeyboardInterrupt`` or a ``SystemExit``, or a group that holds one."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup((KeyboardInterrupt, SystemExit)) is not None  # pyright: ignore[reportUnknownMemberType] # as above
    return isinstance(error, (KeyboardInterrupt, SystemExit))


def _is_one(error: BaseException) -> bool:
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        return True
    if isinstance(error, GeneratorExit):
        # A coroutine that is thrown away has this raised at its own await, whatever it awaits being closed first
        # (https://docs.python.org/3.11/reference/datamodel.html#coroutine.close): there is no frame below.
        return error.__traceback__ is None or error.__traceback__.tb_next is None
    try:
        cancelled = anyio.get_cancelled_exc_class()
    except anyio.NoEventLoopError:
        return False
    return isinstance(error, cancelled) and _is_being_cancelled()


def _is_being_cancelled() -> bool:
    """Whether anybody has cancelled this task; trio's own exception is never raised otherwise.

    Source:
        https://docs.python.org/3.11/library/asyncio-task.html#asyncio.Task.cancelling
    """
    if sniffio.current_async_library() != "asyncio":
        return True
    task = importlib.import_module("asyncio").current_task()
    return task is None or task.cancelling() > 0
