"""One structured record per call, to a JSONL file, a callable or stdlib logging; never in the caller's time.

A call leaves a small snapshot in a bounded queue; a background thread turns it into an event and
hands events to the sink in batches. Content (prompts and answers) stays out unless it is asked for.
"""

from __future__ import annotations

import atexit
import json
import logging
import math
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread
import attrs

from bifrost_core.calls import Call, CallRecord, Principal
from bifrost_core.errors import ConfigError
from bifrost_core.hookspecs import hookimpl
from bifrost_core.keys import Secret
from bifrost_core.types import RouteRef, Usage, message_text

__all__ = ["Event", "JsonlSink", "RequestLogPlugin", "Sink", "plugin", "to_line"]

Event = dict[str, Any]

QUEUE_SIZE = 10_000
"""Events that may wait for the sink; when it is full, the oldest goes."""
FLUSH_SECONDS = 2.0
"""How long closing waits for the sink, in seconds."""
MAX_TEXT = 65_536
"""Characters kept of any one text in an event."""

_BATCH_SECONDS = 0.1  # the writer lets events gather: it wakes ten times a second at most
_MAX_DEPTH = 8
_MAX_MEMBERS = 256

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where events go. Called from one background thread, so it may block."""

    def write_events(self, events: Sequence[Event]) -> None:
        """Write events, oldest first; they belong to the sink. What it raises is logged and counted."""
        ...


def to_line(event: Mapping[str, Any]) -> str:
    """An event as one line of JSON, without the line break.

    ASCII only: control characters, U+2028, U+2029 and direction marks appear as escapes, so that no
    text can begin a line of its own or turn one around.
    """
    line = json.dumps(event, separators=(",", ":"), allow_nan=False)
    return line.replace("\x7f", "\\u007f")


@attrs.define(eq=False)
class JsonlSink:
    """Appends events to a file, one line of JSON each.

    The file is opened for each batch, so that it may be renamed or removed at any time (log
    rotation). A new file is readable by its owner only. A line that a crash cut off is ended first.

    Attributes:
        path: Path of the file; its directory exists.
    """

    path: str = attrs.field(converter=os.fspath)

    def write_events(self, events: Sequence[Event]) -> None:
        """Append all of ``events`` with one write.

        Raises:
            OSError: The file can not be opened or written.
        """
        data = "".join(f"{to_line(event)}\n" for event in events).encode("ascii")
        binary: int = getattr(os, "O_BINARY", 0)  # Windows alone has it
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | binary, 0o600)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            if end:
                os.lseek(descriptor, end - 1, os.SEEK_SET)
                if os.read(descriptor, 1) != b"\n":
                    data = b"\n" + data
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)


@attrs.define(eq=False)
class _LoggerSink:
    """Events as log records of level INFO: the line as message, the event as the attribute ``event``."""

    logger: logging.Logger

    def write_events(self, events: Sequence[Event]) -> None:
        if self.logger.isEnabledFor(logging.INFO):
            for event in events:
                self.logger.info("%s", to_line(event), extra={"event": event})


@attrs.define(eq=False)
class _CallableSink:
    """Events to a function, one call each; what it raises costs that event only."""

    function: Callable[[Event], object]

    def write_events(self, events: Sequence[Event]) -> None:
        failed = 0
        for event in events:
            try:
                self.function(event)
            except Exception as exc:
                failed += 1
                last = exc
        if failed:
            raise _SinkError(failed, last)


class _SinkError(Exception):
    """Some events of a batch did not reach the sink: how many, and the last reason."""

    def __init__(self, events: int, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.events = events
        self.cause = cause


def _as_sink(sink: object) -> Sink:
    if isinstance(sink, logging.Logger):
        return _LoggerSink(sink)
    if callable(getattr(sink, "write_events", None)):
        return cast("Sink", sink)
    if callable(sink):
        return _CallableSink(sink)
    raise ConfigError(f"a sink is a JsonlSink, a callable or a logging.Logger, not {type(sink).__name__}", field="sink")


_AttemptRow = tuple[
    RouteRef, str | None, str | None, int | None, float | None, float | None, Usage | None, Decimal | None
]


@attrs.define(eq=False)
class _Snapshot:
    """What a call leaves behind, taken when it ends.

    Values only: an answer or the traceback of an error would be kept alive by the queue.
    """

    call_id: str
    operation: str
    model: str
    principal: Principal | None
    outcome: str
    kind: str | None
    started_at: float
    latency: float | None
    time_to_first_token: float | None
    cached: bool
    usage: Usage
    cost: Decimal | None
    attempts: list[_AttemptRow]
    metadata: dict[str, Any]
    virtual_key: Secret | None
    prompt: Mapping[str, Any] | None
    answer: str | None
    content: bool


@attrs.define(eq=False)
class _Writer:
    """The queue and the thread that empties it."""

    sink: Sink
    written: int = 0
    dropped: int = 0
    failed: int = 0
    _queue: deque[_Snapshot] = attrs.field(factory=deque[_Snapshot], init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _wake: threading.Event = attrs.field(factory=threading.Event, init=False)
    _stopping: threading.Event = attrs.field(factory=threading.Event, init=False)
    _thread: threading.Thread | None = attrs.field(default=None, init=False)
    _idle: bool = attrs.field(default=True, init=False)

    def put(self, snapshot: _Snapshot) -> None:
        """Queue a snapshot; never waits for the sink."""
        with self._lock:
            if len(self._queue) >= QUEUE_SIZE:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(snapshot)
            idle, self._idle = self._idle, False
        thread = self._thread
        if idle or thread is None or not thread.is_alive():  # once per batch: waking a thread costs more than queueing
            self._start()
            self._wake.set()

    def _start(self) -> None:
        """Start the thread unless it runs (it does not in the child of a fork)."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stopping.clear()
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
            return
        with self._lock:
            left = len(self._queue)
            self._queue.clear()
            self.dropped += left
        _log.warning("request log: the sink did not finish in %.0f s; %d records were dropped", FLUSH_SECONDS, left)

    def _run(self) -> None:
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
                return

    def _take(self) -> list[_Snapshot]:
        with self._lock:
            batch = list(self._queue)
            self._queue.clear()
            self._idle = not batch
        return batch

    def _write(self, batch: list[_Snapshot]) -> None:
        failed, events = 0, list[Event]()
        for snapshot in batch:
            try:
                events.append(_event(snapshot))
            except Exception as exc:
                failed += 1
                _log.warning("request log: a record could not be put into words (%s)", type(exc).__name__)
        try:
            self.sink.write_events(events)
        except _SinkError as exc:
            failed += exc.events
            _log.warning("request log: the sink failed for %d records (%s)", exc.events, exc)
        except Exception as exc:
            failed += len(events)
            _log.warning("request log: the sink failed for %d records (%s)", len(events), type(exc).__name__)
        self.failed += failed
        self.written += len(batch) - failed


def _money(cost: Decimal | None) -> str | None:
    return None if cost is None else format(cost, "f")


def _usage(usage: Usage | None) -> dict[str, int | float] | None:
    """The counts that are not zero, by name."""
    if usage is None:
        return None
    counts: dict[str, int | float] = attrs.asdict(usage)
    return {name: count for name, count in counts.items() if count}


def _name(value: str | None) -> str | None:
    """The plain string of an enumeration's member."""
    return None if value is None else str(value)


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plain(value: object, mask: Callable[[str], str], depth: int = 0) -> object:
    """A value of the caller's as JSON: bounded in depth, width and length, secrets masked."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= 64 else "<int>"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        members = list(cast("Mapping[object, object]", value).items())[:_MAX_MEMBERS]
        return {mask(str(name))[:MAX_TEXT]: _plain(member, mask, depth + 1) for name, member in members}
    if isinstance(value, (list, tuple, set, frozenset)) and depth < _MAX_DEPTH:
        return [_plain(member, mask, depth + 1) for member in list(cast("Sequence[object]", value))[:_MAX_MEMBERS]]
    # what has no JSON shape is named by its type: its repr could hold anything
    text = str(value) if isinstance(value, (str, Decimal, Secret)) else f"<{type(value).__name__}>"
    return mask(text)[:MAX_TEXT]


def _attempt(row: _AttemptRow) -> Event:
    route, outcome, kind, status, latency, first, usage, cost = row
    return {
        "provider": route.provider,
        "model": route.model,
        "key_id": route.key_id,
        "outcome": outcome,
        "kind": _name(kind),
        "status": status,
        "latency": _number(latency),
        "time_to_first_token": _number(first),
        "usage": _usage(usage),
        "cost": _money(cost),
    }


def _prompt(body: Mapping[str, Any]) -> Event:
    """The words of a request: its messages as role and text, its other texts by their names."""
    words: Event = {name: body[name] for name in ("input", "prompt", "suffix") if name in body}
    if "messages" in body:
        words["messages"] = [
            {"role": message.get("role"), "content": message_text(message.get("content"))}
            for message in body["messages"]
        ]
    return words


def _event(snapshot: _Snapshot) -> Event:
    mask = str if snapshot.virtual_key is None else snapshot.virtual_key.mask
    principal = snapshot.principal
    event: Event = {
        "call_id": snapshot.call_id,
        "operation": _name(snapshot.operation),
        "model": mask(snapshot.model)[:MAX_TEXT],
        "principal": None if principal is None else principal.id,
        "tenant": None if principal is None else principal.tenant,
        "outcome": snapshot.outcome,
        "kind": _name(snapshot.kind),
        "started_at": datetime.fromtimestamp(snapshot.started_at, UTC).isoformat(timespec="milliseconds"),
        "latency": _number(snapshot.latency),
        "time_to_first_token": _number(snapshot.time_to_first_token),
        "cached": snapshot.cached,
        "usage": _usage(snapshot.usage),
        "cost": _money(snapshot.cost),
        "attempts": [_attempt(row) for row in snapshot.attempts],
        "metadata": _plain(snapshot.metadata, mask),
    }
    if snapshot.content:
        event["prompt"] = None if snapshot.prompt is None else _plain(_prompt(snapshot.prompt), mask)
        event["answer"] = None if snapshot.answer is None else mask(snapshot.answer)[:MAX_TEXT]
    return event


def _answer(response: object) -> str | None:
    """The text of an answer of any kind; None where it has none."""
    for name in ("text", "output_text"):
        text = getattr(response, name, None)
        if isinstance(text, str):
            return text
    return None


class RequestLogPlugin:
    """Writes one structured record per call, refused and cancelled ones included.

    An event is a dict with ``call_id, operation, model, principal, tenant, outcome, kind,
    started_at`` (ISO 8601, UTC), ``latency, time_to_first_token`` (seconds), ``cached, usage`` (the
    counts that are not zero), ``cost`` (USD as a decimal string, None where unknown), ``attempts``
    (each with ``provider, model, key_id, outcome, kind, status, latency, time_to_first_token, usage,
    cost``) and ``metadata``; with ``content`` also ``prompt`` (the texts of the request) and
    ``answer`` (the text of the first choice), as they stand behind the guardrails. Of each text at most 65,536 characters are kept.

    At most 10,000 events wait for a slow sink: then the oldest are dropped, counted and reported.
    Closing the Router waits up to 2 s for the rest.

    Args:
        sink: A ``JsonlSink``; a callable that takes an event; a ``logging.Logger`` (level INFO, the
            event as one line of JSON); or any object with ``write_events(events)``. Called from a
            background thread; what it raises is logged and counted.
        content: Whether prompts and answers are recorded.

    Raises:
        ConfigError: ``sink`` is none of these.
    """

    def __init__(self, sink: Sink | Callable[[Event], object] | logging.Logger, *, content: bool = False) -> None:
        self._writer = _Writer(_as_sink(sink))
        self._content = content

    @property
    def written(self) -> int:
        """Events that the sink has taken."""
        return self._writer.written

    @property
    def dropped(self) -> int:
        """Events that were dropped because the sink is too slow."""
        return self._writer.dropped

    @property
    def failed(self) -> int:
        """Events that the sink refused."""
        return self._writer.failed

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord, call: Call) -> None:
        """Queue the record of a call."""
        content = self._content
        self._writer.put(
            _Snapshot(
                record.call_id,
                record.operation,
                record.model,
                record.principal,
                record.outcome,
                record.kind,
                record.started_at,
                record.latency,
                record.time_to_first_token,
                record.cached,
                record.usage,
                record.cost,
                [
                    (a.route, a.outcome, a.kind, a.status, a.latency, a.time_to_first_token, a.usage, a.cost)
                    for a in record.attempts
                ],
                dict(record.metadata),
                call.virtual_key,
                call.request.body if content else None,
                _answer(record.response) if content else None,
                content,
            )
        )

    @hookimpl
    def bifrost_lifespan(self) -> AbstractAsyncContextManager[object]:
        """Write what is left when the Router closes."""
        return self._lifespan()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):  # bounded by FLUSH_SECONDS
                await anyio.to_thread.run_sync(self._writer.stop, limiter=anyio.CapacityLimiter(1))


def plugin() -> RequestLogPlugin:
    """The plugin as ``load_plugins("request_log")`` makes it: to the logger ``bifrost.requests``."""
    return RequestLogPlugin(logging.getLogger("bifrost.requests"))
