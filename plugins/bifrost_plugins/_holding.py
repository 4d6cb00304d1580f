"""How plugins take holds from a store and end them: bounded waits, an outbox, and time for long streams."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import anyio

from bifrost_core import Call, ConfigError
from bifrost_core.roots import Home

from .stores import (
    Denied,
    Ended,
    Granted,
    Hold,
    LedgerConflictError,
    Outbox,
    Store,
    StoreError,
)

__all__ = ["Holder"]

PATIENCE: Final = 5.0
"""Seconds that a store may take for a reservation; then it counts as failed."""
_MARGIN: Final = 60.0  # seconds that a hold outlives the call's deadline
_LEAST: Final = 600.0  # seconds of a hold without a deadline, until it is extended
_EXTEND_EVERY: Final = 120.0

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class Holder:
    """The holds of one plugin. Works for one Router at a time.

    Args:
        store: Where they are.
        on_ended: Told of every end that nobody waits for.
    """

    def __init__(self, store: Store, *, on_ended: Callable[[Ended], object] | None = None) -> None:
        self.store = store
        self.outbox = Outbox(store, on_ended=on_ended)
        self._waits = not getattr(store, "never_waits", False)
        self._open = dict[str, bool]()  # holds without a deadline, which are to be extended
        self._is_running = False
        self._time: Callable[[], float] = anyio.current_time

    @property
    def open(self) -> int:
        """Holds of calls without a deadline, which are extended as long as they run."""
        return len(self._open)

    def drive(self, steps: Coroutine[Any, Any, _T]) -> _T | Coroutine[Any, Any, _T]:
        """Do what a hook has to do: at once with a store that never waits, which saves a limit of time.

        Returns:
            What it comes to, or the coroutine to be waited for.

        Raises:
            RuntimeError: A store that says that it never waits did.
        """
        if self._waits:
            return steps
        try:
            steps.send(None)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        steps.close()
        raise RuntimeError(f"{self.store!r} says that it never waits, and did; let never_waits be False")

    def seconds(self, call: Call) -> float:
        """How long a hold of this call lasts by itself."""
        deadline = call.deadline
        return _LEAST if deadline == math.inf else max(deadline - self._time(), 0.0) + _MARGIN

    async def reserve(self, hold: Hold, call: Call) -> Granted | Denied:
        """Take a hold.

        Raises:
            StoreError: The store failed, did not answer in time, or has so many ends to catch up on that
                nothing new may be begun. The hold may have been taken: end it all the same.
        """
        if self.outbox.waiting and self.outbox.is_full:
            raise StoreError(f"{self.outbox.waiting} ends of holds wait for the store; it takes no new ones meanwhile")
        answer = await (self.ask(self.store.reserve(hold)) if self._waits else self.store.reserve(hold))
        if call.deadline == math.inf and isinstance(answer, Granted):
            self._open[hold.id] = True
        return answer

    async def ask(self, operation: Awaitable[_T]) -> _T:
        """Wait for an operation of the store, but not for ever.

        Raises:
            StoreError: It failed, or did not answer in time.
        """
        if not self._waits:
            return await operation
        with anyio.move_on_after(PATIENCE):
            return await operation
        raise StoreError(f"the store did not answer within {PATIENCE:g} s")

    async def settle(
        self, hold_id: str, amounts: Sequence[int], usage: Mapping[str, int] | None = None
    ) -> Ended | None:
        """End a hold with what was used, now or later; None: later, or the ledger knows better."""
        self._open.pop(hold_id, None)
        try:
            return await self.outbox.settle(hold_id, amounts, usage)
        except LedgerConflictError as exc:
            _log.error("the end of a hold was refused: %s", exc)
            return None

    async def release(self, hold_id: str) -> Ended | None:
        """End a hold with nothing, now or later."""
        self._open.pop(hold_id, None)
        try:
            return await self.outbox.release(hold_id)
        except LedgerConflictError as exc:
            _log.error("the release of a hold was refused: %s", exc)
            return None

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Keep the store open, the outbox moving and long holds alive, as long as a Router runs.

        Raises:
            ConfigError: Another Router uses the plugin.
        """
        if self._is_running:
            raise ConfigError("a plugin that holds belongs to one Router; give each its own, and both one store")
        self._is_running = True
        self._time = Home().time
        try:
            async with self.outbox, anyio.create_task_group() as tasks:
                tasks.start_soon(self._extend, name="bifrost holds")
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            self._is_running = False
            self._time = anyio.current_time

    async def _extend(self) -> None:
        while True:
            await anyio.sleep(_EXTEND_EVERY)
            for hold_id in list(self._open):
                try:
                    if not await self.store.extend(hold_id, _LEAST):
                        self._open.pop(hold_id, None)
                except StoreError as exc:
                    _log.warning("holds of long calls could not be extended: %s", exc)
                    break
