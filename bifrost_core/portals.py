"""The way from blocking code onto an event loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from .errors import ConfigError

__all__ = ["LoopThread"]

_T = TypeVar("_T")


class LoopThread:
    """An event loop in a daemon thread, started when it is first needed; used from any other thread.

    Args:
        owner: What its errors call the object that holds it.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._lock = threading.RLock()  # what the garbage collector ends meanwhile may want it in the same thread
        self._pid = os.getpid()
        self._context: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None
        self._thread: int | None = None
        self._closed = False

    def portal(self) -> BlockingPortal:
        """The way onto the event loop; starts it at first.

        Raises:
            ConfigError: Closed, used after a fork, or called on its own event loop.
        """
        if os.getpid() != self._pid:
            raise ConfigError(f"a {self._owner} does not survive a fork; make one in the new process")
        with self._lock:
            if self._closed:
                raise ConfigError(f"the {self._owner} is closed; make another")
            if self._portal is None:
                self._context = start_blocking_portal("asyncio", name="bifrost")
                self._portal = self._context.__enter__()
                self._thread = self._portal.call(threading.get_ident)
            if self._thread == threading.get_ident():
                raise ConfigError(f"a {self._owner} blocks its own event loop here; use call.router in a plugin")
            return self._portal

    def call(self, function: Callable[..., Coroutine[Any, Any, _T]], *args: Any, **options: Any) -> _T:
        """Run ``function`` on the event loop and wait for it; an interrupt of this thread cancels it."""
        future: Future[_T] = self.portal().start_task_soon(partial(function, *args, **options))
        try:
            return future.result()
        except BaseException:
            future.cancel()  # no effect on one that ended
            raise

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run ``last`` on the event loop if that runs, then end it and its thread. Safe to repeat."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            context, portal = self._context, self._portal
        if portal is not None and context is not None and os.getpid() == self._pid:
            try:
                portal.call(last)
            finally:
                context.__exit__(None, None, None)
