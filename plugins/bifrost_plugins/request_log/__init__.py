"""One structured record per call, to SQLite, a JSONL file, a callable or stdlib logging; never in the caller's time.

A call leaves a small snapshot in a bounded queue; a background thread turns it into an event and
hands events to the sink in batches. Content (prompts and answers) stays out unless it is asked for.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.to_thread

from bifrost_core import Call, CallRecord, ConfigError, hookimpl

from ._events import Event, Snapshot, answer_text, verdicts_of
from ._jsonl import JsonlSink
from ._sinks import Sink, as_sink, to_line
from ._sqlite import SqliteSink
from ._writer import Writer
from .exports import export
from .queries import Query, read_events

__all__ = [
    "Event",
    "JsonlSink",
    "Query",
    "RequestLogPlugin",
    "Sink",
    "SqliteSink",
    "export",
    "plugin",
    "read_events",
    "to_line",
]

_log = logging.getLogger(__name__)


class RequestLogPlugin:
    """Writes one structured record per call, refused and cancelled ones included.

    An event is a dict with ``call_id, operation, model, principal, tenant, virtual_key`` (its id),
    ``outcome, kind, started_at`` (ISO 8601, UTC), ``latency, time_to_first_token`` (seconds), ``cached,
    usage`` (the counts that are not zero), ``cost`` (USD as a decimal string, None where unknown),
    ``attempts`` (each with ``id, provider, model, key_id, outcome, kind, status, latency,
    time_to_first_token, usage, cost``), ``verdicts`` (what guardrails found: ``plugin, rule, side, action, label, count``) and
    ``metadata``; with ``content`` also ``prompt`` (the texts of the request) and ``answer`` (the text of
    the first choice), as they stand behind the guardrails. What looks like a credential is masked, and
    of each text at most 65,536 characters are kept.

    At most 10,000 events wait for a slow sink: then the oldest are dropped, counted and reported.
    Closing the Router waits up to 2 s for the rest.

    Args:
        sink: A ``SqliteSink`` or a ``JsonlSink``; a callable that takes an event; a ``logging.Logger``
            (level INFO, the event as one line of JSON); or any object with ``write_events(events)``.
            Called from a background thread; what it raises is logged and counted.
        content: Whether prompts and answers are recorded: of all calls, by tenant (``{"acme": True}``;
            not of tenants that are not named), or as a function of the call says.

    Raises:
        ConfigError: ``sink`` is none of these.
    """

    def __init__(
        self,
        sink: Sink | Callable[[Event], object] | logging.Logger,
        *,
        content: bool | Mapping[str, bool] | Callable[[Call], bool] = False,
    ) -> None:
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
        content = self._is_wanted(call)
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
                    (a.id, a.route, a.outcome, a.kind, a.status, a.latency, a.time_to_first_token, a.usage, a.cost)
                    for a in record.attempts
                ],
                dict(record.metadata),
                call.virtual_key,
                verdicts_of(call),
                call.request.body if content else None,
                answer_text(record.response) if content else None,
                content,
            )
        )

    def _is_wanted(self, call: Call) -> bool:
        """Whether what was said in a call is recorded; where the caller's function fails, it is not."""
        content = self._content
        if isinstance(content, bool):
            return content
        try:
            if callable(content):
                return content(call) is True
            tenant = None if call.principal is None else call.principal.tenant
            return tenant is not None and content.get(tenant) is True
        except Exception as exc:
            _log.warning("request log: content= failed (%s); the call is logged without", type(exc).__name__)
            return False

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


def plugin(
    *,
    db: str | os.PathLike[str] | None = None,
    file: str | os.PathLike[str] | None = None,
    content: bool | Mapping[str, bool] = False,
) -> RequestLogPlugin:
    """The plugin as ``load_plugins("request_log")`` makes it: to the logger ``bifrost.requests``.

    Args:
        db: Path of a database for ``SqliteSink``, instead.
        file: Path of a file for ``JsonlSink``, instead.
        content: As of ``RequestLogPlugin``.

    Raises:
        ConfigError: Both paths are given.
    """
    if db is not None and file is not None:
        raise ConfigError("a request log is in one place: db or file; use two plugins for two", field="db")
    sink = SqliteSink(db) if db is not None else JsonlSink(file) if file is not None else None
    return RequestLogPlugin(logging.getLogger("bifrost.requests") if sink is None else sink, content=content)
