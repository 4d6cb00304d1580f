"""One structured record per call, to a JSONL file, a callable or stdlib logging; never in the caller's time.

A call leaves a small snapshot in a bounded queue; a background thread turns it into an event and
hands events to the sink in batches. Content (prompts and answers) stays out unless it is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.to_thread

from bifrost_core import Call, CallRecord, hookimpl

from ._events import Event, Snapshot, answer_text
from ._sinks import JsonlSink, Sink, as_sink, to_line
from ._writer import Writer

__all__ = ["Event", "JsonlSink", "RequestLogPlugin", "Sink", "plugin", "to_line"]


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
        self._writer = Writer(as_sink(sink))
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
            Snapshot(
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
                answer_text(record.response) if content else None,
                content,
            )
        )

    @hookimpl
    def bifrost_lifespan(self) -> AbstractAsyncContextManager[object]:
        """Write what is left when the Router closes."""
        return self._lifespan()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):  # bounded by FLUSH_SECONDS
                await anyio.to_thread.run_sync(self._writer.stop, limiter=anyio.CapacityLimiter(1))


def plugin() -> RequestLogPlugin:
    """The plugin as ``load_plugins("request_log")`` makes it: to the logger ``bifrost.requests``."""
    return RequestLogPlugin(logging.getLogger("bifrost.requests"))
