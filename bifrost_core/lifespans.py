"""The context managers that plugins open for as long as a Router lives."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import anyio
import attrs

from .errors import PluginError
from .interruptions import ends_process, is_interruption
from .roots import spawn_root_task

__all__ = ["Lifespan", "Lifespans"]

_log = logging.getLogger(__name__)


@attrs.frozen
class Lifespan:
    """One plugin's.

    Attributes:
        plugin: Name of the plugin.
        manager: What it returned.
        timeout: Seconds that entering may take, and leaving again; None: as long as it takes.
    """

    plugin: str
    manager: AbstractAsyncContextManager[object]
    timeout: float | None = None


class Lifespans:
    """Enters context managers in order and leaves them in reverse, all in one task of its own.

    One task, so that a context manager may hold a task group, also when the first call of a Router
    starts it and another task closes it.

    Args:
        lifespans: In the order to enter.
    """

    def __init__(self, lifespans: Sequence[Lifespan]) -> None:
        self._lifespans = lifespans
        self._entered = anyio.Event()
        self._leave = anyio.Event()
        self._left = anyio.Event()
        self._failure: BaseException | None = None

    async def start(self) -> None:
        """Enter all of them.

        Raises:
            PluginError: One did not start, or not in time; those before it have been left again.
        """
        if not self._lifespans:
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
        """Leave all of them; what one raises, or takes too long for, is logged and the others still leave."""
        self._leave.set()
        await self._left.wait()
        if self._failure is not None:  # the end of the process
            raise self._failure

    async def _main(self) -> None:
        try:
            await self._live(0)
        finally:
            self._entered.set()
            self._left.set()

    async def _live(self, index: int) -> None:
        """Enter the lifespans from ``index`` on, wait for the end, leave them in reverse."""
        if index == len(self._lifespans):
            self._entered.set()
            await self._leave.wait()
            return
        lifespan = self._lifespans[index]
        has_started = False
        # Its own scope goes around each, so that what hangs is ended while task groups inside it stay whole.
        with anyio.CancelScope(deadline=_until(lifespan.timeout)) as scope:
            if not await self._enter(lifespan):
                return
            has_started = True
            scope.deadline = math.inf
            try:
                await self._live(index + 1)
            finally:
                scope.deadline = _until(lifespan.timeout)
                await self._exit(lifespan)
        if not scope.cancelled_caught:
            return
        if has_started:
            _log.error("plugin %s: bifrost_lifespan took longer than %g s to stop", lifespan.plugin, lifespan.timeout)
        else:
            self._failure = _failure(lifespan, f"took longer than {lifespan.timeout:g} s to start")

    async def _enter(self, lifespan: Lifespan) -> bool:
        """Whether it has started; ``_failure`` says why not."""
        try:
            await lifespan.manager.__aenter__()
        except BaseException as exc:  # whatever a plugin raises: the Router does not start
            if ends_process(exc):
                self._failure = exc  # for whoever starts the Router: above this task there is nobody
                return False
            if is_interruption(exc):
                raise
            self._failure = _failure(lifespan, f"failed to start ({type(exc).__name__})")
            self._failure.__cause__ = exc
            return False
        return True

    async def _exit(self, lifespan: Lifespan) -> None:
        """Leave one; what it raises is logged, so that the others still leave."""
        try:
            await lifespan.manager.__aexit__(None, None, None)
        except BaseException as exc:
            if ends_process(exc):
                self._failure = exc
                return
            if is_interruption(exc):
                raise
            _log.exception("plugin %s: bifrost_lifespan failed to stop", lifespan.plugin)


def _until(timeout: float | None) -> float:
    return math.inf if timeout is None else anyio.current_time() + timeout


def _failure(lifespan: Lifespan, what: str) -> PluginError:
    return PluginError(
        f"plugin {lifespan.plugin}: bifrost_lifespan {what}; the Router does not start",
        plugin=lifespan.plugin,
        hook="bifrost_lifespan",
    )
