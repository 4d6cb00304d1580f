"""How plugins take holds from a store and end them: bounded waits, an outbox, and time for long streams."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio

from bifrost_core import Call, ConfigError

from .stores import (
    Denied,
    Ended,
    Granted,
    Hold,
    LedgerConflictError,
    MemoryStore,
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
        self._waits = not isinstance(store, MemoryStore)
        self._open = dict[str, bool]()  # holds without a deadline, which are to be extended
        self._is_running = False

    @property
    def open(self) -> int:
        """Holds of calls without a deadline, which are extended as long as they run."""
        return len(self._open)

    def seconds(self, call: Call) -> float:
        """How long a hold of this call lasts by itself."""
        if call.deadline == math.inf:
            return _LEAST
        return max(call.deadline - anyio.current_time(), 0.0) + _MARGIN

    async def reserve(self, hold: Hold, call: Call) -> Granted | Denied:
        """Take a hold.

        Raises:
            StoreError: The store failed, did not answer in time, or has so many ends to catch up on that
                nothing new may be begun. The hold may have been taken: end it all the same.
        """
        if self.outbox.is_full:
            raise StoreError(f"{self.outbox.waiting} ends of holds wait for the store; it takes no new ones meanwhile")
        answer = await self.ask(self.store.reserve(hold))
        if isinstance(answer, Granted) and call.deadline == math.inf:
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
        try:
            async with self.outbox, anyio.create_task_group() as tasks:
                tasks.start_soon(self._extend, name="bifrost holds")
                try:
                    yield
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            self._is_running = False

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
