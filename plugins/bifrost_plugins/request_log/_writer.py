"""The queue between the calls and the sink, and the thread that empties it."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque

import attrs

from ._events import Event, Snapshot, to_event
from ._sinks import Sink, SinkError

__all__ = ["Writer"]

QUEUE_SIZE = 10_000
"""Events that may wait for the sink; when it is full, the oldest goes."""
FLUSH_SECONDS = 2.0
"""How long closing waits for the sink, in seconds."""

_BATCH_SECONDS = 0.1  # the writer lets events gather: it wakes ten times a second at most

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class Writer:
    """The queue and the thread that empties it."""

    sink: Sink
    written: int = 0
    dropped: int = 0
    failed: int = 0
    _queue: deque[Snapshot] = attrs.field(factory=deque[Snapshot], init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _wake: threading.Event = attrs.field(factory=threading.Event, init=False)
    _stopping: threading.Event = attrs.field(factory=threading.Event, init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _idle: bool = attrs.field(default=True, init=False)
    _runs: bool = attrs.field(default=False, init=False)
    _pid: int = attrs.field(default=0, init=False)

    def put(self, snapshot: Snapshot) -> None:
        """Queue a snapshot; never waits for the sink."""
        with self._lock:
            if len(self._queue) >= QUEUE_SIZE:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(snapshot)
            idle, self._idle = self._idle, False
        # Once per batch, as waking a thread costs more than queueing; and in the child of a fork, which has no thread.
        if idle or not self._runs or os.getpid() != self._pid:
            self._start()
            self._wake.set()

    def _start(self) -> None:
        """Start the thread unless it runs (it does not in the child of a fork)."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stopping.clear()
        self._runs, self._pid = True, os.getpid()
        self._thread = threading.Thread(target=self._run, name="bifrost-request-log", daemon=True)
        self._thread.start()
        atexit.register(self.stop)  # for a Router that nobody closed

    def stop(self) -> None:
        """Write what is queued and end the thread; waits at most ``FLUSH_SECONDS``."""
        atexit.unregister(self.stop)
        thread = self._thread
        if thread is None:
            return
        self._stopping.set()
        self._wake.set()
        thread.join(FLUSH_SECONDS)
        if not thread.is_alive():
            self._thread = None
            if batch := self._take():  # queued while the thread was ending
                self._write(batch)
                self._close()
            return
        with self._lock:
            left = len(self._queue)
            self._queue.clear()
            self.dropped += left
        _log.warning("request log: the sink did not finish in %.0f s; %d records were dropped", FLUSH_SECONDS, left)

    def _run(self) -> None:
        try:
            self._write_all()
        finally:
            self._runs = False

    def _write_all(self) -> None:
        reported = self.dropped
        while True:
            self._wake.wait()
            self._stopping.wait(_BATCH_SECONDS)
            self._wake.clear()
            stopping = self._stopping.is_set()
            while batch := self._take():
                self._write(batch)
            if self.dropped > reported:
                _log.warning("request log: %d records were dropped, the sink is too slow", self.dropped - reported)
                reported = self.dropped
            if stopping:
                self._close()
                return

    def _take(self) -> list[Snapshot]:
        with self._lock:
            batch = list(self._queue)
            self._queue.clear()
            self._idle = not batch
        return batch

    def _write(self, batch: list[Snapshot]) -> None:
        failed, events = 0, list[Event]()
        for snapshot in batch:
            try:
                events.append(to_event(snapshot))
            except Exception as exc:
                failed += 1
                _log.warning("request log: a record could not be put into words (%s)", type(exc).__name__)
        try:
            self.sink.write_events(events)
        except SinkError as exc:
            failed += exc.events
            _log.warning("request log: the sink failed for %d records (%s)", exc.events, exc)
        except Exception as exc:
            failed += len(events)
            _log.warning("request log: the sink failed for %d records (%s)", len(events), type(exc).__name__)
        self.failed += failed
        self.written += len(batch) - failed

    def _close(self) -> None:
        """Close the sink, where it has something to close."""
        close = getattr(self.sink, "close", None)
        if callable(close):
            try:
                close()
            except Exception as exc:
                _log.warning("request log: the sink was not closed (%s)", type(exc).__name__)
