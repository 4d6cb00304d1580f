"""Ends of holds that a failing store has not taken yet, kept and tried again until it does."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import anyio
import attrs
from anyio.abc import TaskGroup

from .base import Ended, LedgerConflictError, Store, StoreError

__all__ = ["Outbox"]

OUTBOX_SIZE: Final = 10_000
"""Ends of holds that may wait before new calls are to be refused."""

_log = logging.getLogger(__name__)


@attrs.frozen
class _End:
    """A settlement, or with ``amounts`` None a release."""

    hold_id: str
    amounts: tuple[int, ...] | None
    usage: Mapping[str, int] | None


class Outbox:
    """Settles and releases holds, and keeps what the store does not take.

    For plugins: ``async with outbox`` in ``bifrost_lifespan``, ``settle`` and ``release`` at the end of
    an attempt, and no new call while ``is_full``. A hold whose end waits here stays held, so no limit is
    exceeded meanwhile; when the process is lost with it, the hold's own end by time books its estimate.
    While open it also ends holds whose time has run out, its own and those of processes that died.

    Args:
        store: Where the holds are.
        on_ended: Told of every end that nobody waits for: those taken later and those by time. May
            raise, which is logged.
        size: Ends that may wait until ``is_full``.
        first_wait: Seconds before the first new try; doubled with each failure in a row.
        longest_wait: Seconds between tries at most.
        expire_every: Seconds between looks at holds whose time has run out.
        flush_seconds: How long closing tries on, in seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_ended: Callable[[Ended], object] | None = None,
        size: int = OUTBOX_SIZE,
        first_wait: float = 0.1,
        longest_wait: float = 10.0,
        expire_every: float = 5.0,
        flush_seconds: float = 2.0,
    ) -> None:
        self._store = store
        self._on_ended = on_ended
        self._size = size
        self._first_wait = first_wait
        self._longest_wait = longest_wait
        self._expire_every = expire_every
        self._flush_seconds = flush_seconds
        self._waiting: OrderedDict[str, _End] = OrderedDict()
        self._wake = anyio.Event()
        self._tasks: TaskGroup | None = None

    @property
    def waiting(self) -> int:
        """Ends that the store has not taken yet."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether so many wait that new calls are to be refused."""
        return len(self._waiting) >= self._size

    async def settle(
        self, hold_id: str, amounts: Sequence[int], usage: Mapping[str, int] | None = None
    ) -> Ended | None:
        """Settle a hold now or, when the store fails or the caller is cancelled, later.

        Returns:
            How it ended; None when that is left for later.

        Raises:
            LedgerConflictError: It ended before with other amounts.
        """
        try:
            return await self._store.settle(hold_id, amounts, usage)
        except StoreError as exc:
            self._keep_failed(_End(hold_id, tuple(amounts), usage), exc)
            return None
        except anyio.get_cancelled_exc_class():
            self._keep(_End(hold_id, tuple(amounts), usage))  # what became of it is unknown; a second time does no harm
            raise

    async def release(self, hold_id: str) -> Ended | None:
        """Release a hold now or later, like ``settle``.

        Raises:
            LedgerConflictError: It was settled before.
        """
        try:
            return await self._store.release(hold_id)
        except StoreError as exc:
            self._keep_failed(_End(hold_id, None, None), exc)
            return None
        except anyio.get_cancelled_exc_class():
            self._keep(_End(hold_id, None, None))
            raise

    def _keep_failed(self, end: _End, error: StoreError) -> None:
        if not self._waiting:
            _log.warning("the store failed at the end of a hold; it is kept and tried again (%s)", error)
        self._keep(end)

    def _keep(self, end: _End) -> None:
        self._waiting.setdefault(end.hold_id, end)  # the first end of a hold is the one that counts
        self._wake.set()

    async def _send(self, end: _End) -> Ended:
        if end.amounts is None:
            return await self._store.release(end.hold_id)
        return await self._store.settle(end.hold_id, end.amounts, end.usage)

    async def flush(self, timeout: float) -> int:  # noqa: ASYNC109 - a plain number of seconds, as at closing
        """Try what waits, for at most ``timeout`` seconds.

        Returns:
            How many still wait.
        """
        with anyio.move_on_after(timeout):
            wait = self._first_wait
            while not await self._drain():
                await anyio.sleep(wait)
                wait = min(2 * wait, self._longest_wait)
        return self.waiting

    async def _drain(self) -> bool:
        """Send what waits, the oldest first, until the store fails; whether all of it went."""
        while self._waiting:
            end = next(iter(self._waiting.values()))
            try:
                ended = await self._send(end)
            except StoreError:
                return False
            except LedgerConflictError as exc:
                _log.error("an end of a hold was refused and is dropped: %s", exc)
            else:
                self._tell(ended)
            if self._waiting.get(end.hold_id) is end:
                del self._waiting[end.hold_id]
        return True

    def _tell(self, ended: Ended) -> None:
        if self._on_ended is not None:
            try:
                self._on_ended(ended)
            except Exception:
                _log.exception("what was to be told of the end of a hold failed")

    async def _expire(self) -> None:
        try:
            for ended in await self._store.expire_due():
                self._tell(ended)
        except StoreError as exc:
            _log.warning("holds whose time has run out could not be ended: %s", exc)

    async def _run(self) -> None:
        wait = self._first_wait
        expire_at = anyio.current_time() + self._expire_every
        while True:
            pause = expire_at - anyio.current_time()
            if self._waiting:
                await anyio.sleep(min(wait, max(0.0, pause)))
            else:
                self._wake = anyio.Event()
                with anyio.move_on_after(pause):
                    await self._wake.wait()
                    await anyio.sleep(min(self._first_wait, max(0.0, pause)))
            if self._waiting:
                wait = self._first_wait if await self._drain() else min(2 * wait, self._longest_wait)
            if anyio.current_time() >= expire_at:
                await self._expire()
                expire_at = anyio.current_time() + self._expire_every

    async def __aenter__(self) -> Self:
        await self._store.start()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._run, name="bifrost outbox")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        assert tasks is not None  # noqa: S101 - entered
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(exc_type, exc, traceback)
        with anyio.CancelScope(shield=True):
            if left := await self.flush(self._flush_seconds):
                _log.error("%d ends of holds did not reach the store; their holds end by time, with estimates", left)
            await self._store.aclose()
