"""Tasks and time of the event loop itself, where anyio's common ground is too narrow or too dear.

A task that belongs to nobody: what a Router holds between its calls (plugins' lifespans) lives in one, as
anyio has task groups only, and a Router that starts at its first call has none to live in. And a task
beside the caller's, which a task group costs five times as much. So this is the one room that knows which
event loop runs.
"""

from __future__ import annotations

import contextvars
import functools
import importlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, cast

import anyio
import anyio.lowlevel
import sniffio

__all__ = ["Home", "poster", "run_beside", "spawn_root_task", "wait_out"]

_held: Final[set[Any]] = set()  # asyncio keeps weak references to its tasks only


def spawn_root_task(main: Callable[[], Awaitable[None]], name: str) -> None:
    """Start ``main`` in a task of its own on the running event loop, with the caller's context variables.

    Args:
        main: Must raise nothing but a cancellation; ends by itself or with the event loop.
        name: Shown by debuggers.
    """
    if sniffio.current_async_library() == "trio":
        trio = importlib.import_module("trio")
        trio.lowlevel.spawn_system_task(main, name=name, context=contextvars.copy_context())
        return
    asyncio = importlib.import_module("asyncio")
    task = asyncio.get_running_loop().create_task(main(), name=name)
    _held.add(task)
    task.add_done_callback(_held.discard)


def poster() -> Callable[[Callable[[], object]], object]:
    """A function that has another called soon on the event loop that runs now, from any thread, without waiting.

    For what the garbage collector ends: it runs in whichever thread it likes.

    Raises:
        RuntimeError: By the function: the event loop has ended.
    """
    if sniffio.current_async_library() == "trio":
        token = importlib.import_module("trio").lowlevel.current_trio_token()
        return cast("Callable[[Callable[[], object]], object]", token.run_sync_soon)
    loop = importlib.import_module("asyncio").get_running_loop()
    return cast("Callable[[Callable[[], object]], object]", loop.call_soon_threadsafe)


class Home:
    """The event loop that runs when this is made, and its clock.

    Attributes:
        token: As anyio knows it, for calls from other threads.
        time: Its time in seconds; at a tenth of what ``anyio.current_time`` takes.
    """

    __slots__ = ("_loop", "_running", "time", "token")

    def __init__(self) -> None:
        self.token = anyio.lowlevel.current_token()
        self._running: Callable[[], object]
        self.time: Callable[[], float]
        if sniffio.current_async_library() == "trio":
            self._running = importlib.import_module("trio").lowlevel.current_trio_token
            self.time = anyio.current_time
        else:
            self._running = importlib.import_module("asyncio").get_running_loop
            self.time = cast("Any", self._running()).time
        self._loop = self._running()

    def is_here(self) -> bool:
        """Whether it is the one that runs now, in this thread."""
        try:
            return self._running() is self._loop
        except RuntimeError:
            return False


async def run_beside(main: Callable[[], Coroutine[Any, Any, None]], stop: Callable[[], None]) -> None:
    """Run ``main`` in a task of its own and wait for its end, also while this one is being cancelled.

    A cancellation of this task, by a scope or the event loop's own, is not passed on as such: ``stop`` is
    called, once, and ends ``main`` in its own way, shields respected. Then the cancellation goes on its way.

    Args:
        main: Raises nothing but a cancellation.
        stop: Makes ``main`` end soon.
    """
    if sniffio.current_async_library() == "trio":
        async with anyio.create_task_group() as group:
            group.start_soon(main)
        return
    asyncio = importlib.import_module("asyncio")
    loop = asyncio.get_running_loop()
    task = loop.create_task(main(), name="bifrost call")
    ended = [loop.create_future()]
    task.add_done_callback(functools.partial(_wake, ended))
    cancelled: BaseException | None = None
    while True:
        try:
            await ended[0]
        except asyncio.CancelledError as exc:
            # A scope says it again at every turn of the event loop, until it is left.
            if cancelled is None:
                cancelled = exc
                stop()
            if not task.done():
                ended[0] = loop.create_future()
                continue
        break
    if cancelled is not None:
        raise cancelled
    task.result()


async def wait_out(event: anyio.Event) -> None:
    """Wait for what is sure to happen soon, also while this task is being cancelled; then the cancellation goes on."""
    if sniffio.current_async_library() == "trio":
        with anyio.CancelScope(shield=True):
            await event.wait()
        return
    cancelled: BaseException | None = None
    error: type[BaseException] = importlib.import_module("asyncio").CancelledError
    while not event.is_set():
        try:
            await event.wait()
        except error as exc:
            cancelled = cancelled or exc
    if cancelled is not None:
        raise cancelled


def _wake(ended: list[Any], _: Any) -> None:
    if not ended[0].done():
        ended[0].set_result(None)
