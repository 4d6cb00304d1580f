"""The context managers that plugins open for as long as a Router lives."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio

from .errors import BifrostError, PluginError
from .roots import spawn_root_task

__all__ = ["Lifespans"]

_log = logging.getLogger(__name__)
_EXIT_SECONDS: Final = 10.0


class Lifespans:
    """Enters context managers in order and leaves them in reverse, all in one task of its own.

    One task, so that a context manager may hold a task group, also when the first call of a Router
    starts it and another task closes it.

    Args:
        managers: Plugin name and context manager.
    """

    def __init__(self, managers: Sequence[tuple[str, AbstractAsyncContextManager[object]]]) -> None:
        self._managers = managers
        self._entered = anyio.Event()
        self._leave = anyio.Event()
        self._left = anyio.Event()
        self._failure: BifrostError | None = None

    async def start(self) -> None:
        """Enter all of them.

        Raises:
            PluginError: One did not start; those before it have been left again.
        """
        if not self._managers:
            self._left.set()
            return
        spawn_root_task(self._main, "bifrost lifespans")
        try:
            await self._entered.wait()
        except BaseException:
            self._leave.set()
            raise
        if self._failure is not None:
            await self._left.wait()
            raise self._failure

    async def stop(self) -> None:
        """Leave all of them; what one raises is logged and the others still leave."""
        self._leave.set()
        with anyio.move_on_after(_EXIT_SECONDS):
            await self._left.wait()

    async def _main(self) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                for plugin, manager in self._managers:
                    try:
                        await manager.__aenter__()
                    except Exception as exc:  # whatever a plugin raises: the Router does not start
                        self._failure = PluginError(
                            f"plugin {plugin}: bifrost_lifespan failed to start ({type(exc).__name__}); "
                            "the Router does not start",
                            plugin=plugin,
                            hook="bifrost_lifespan",
                        )
                        self._failure.__cause__ = exc
                        return
                    stack.push_async_exit(_Quiet(plugin, manager))
                self._entered.set()
                await self._leave.wait()
        finally:
            self._entered.set()
            self._left.set()


class _Quiet:
    """Leaves a context manager and logs what it raises, so that the others still leave."""

    def __init__(self, plugin: str, manager: AbstractAsyncContextManager[object]) -> None:
        self._plugin = plugin
        self._manager = manager

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            await self._manager.__aexit__(None, None, None)
        except Exception:
            _log.exception("plugin %s: bifrost_lifespan failed to stop", self._plugin)
