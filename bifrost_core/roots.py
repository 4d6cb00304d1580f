"""A task that belongs to nobody: what a Router holds between its calls (plugins' lifespans) lives in one.

anyio has task groups only, and a Router that starts at its first call has none to live in: so this is
the one room that knows which event loop runs.
"""

from __future__ import annotations

import contextvars
import importlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import sniffio

__all__ = ["spawn_root_task"]

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
