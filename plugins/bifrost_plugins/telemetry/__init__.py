"""Spans and metrics of calls and attempts through OpenTelemetry, in its conventions for generative AI.

Only OpenTelemetry's API is needed here; what is recorded goes wherever the application's SDK sends it
(OTLP, Prometheus, a console), and nowhere, at next to no cost, where there is none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Literal, TypeAlias

import attrs

from bifrost_core import Attempt, Call, CallError, CallRecord, Clock, ConfigError, RouteHealth, SystemClock, hookimpl

try:
    from opentelemetry import context as contexts
    from opentelemetry import metrics, trace
except ImportError as exc:
    raise ImportError("telemetry needs OpenTelemetry's API: pip install 'bifrost-core[telemetry]'") from exc

from . import conventions as names
from ._labels import Names
from ._metrics import Metrics
from ._spans import (
    Attributes,
    Server,
    attempt_attributes,
    end_attributes,
    first_attributes,
    request_attributes,
    server_of,
)

__all__ = ["Label", "TelemetryPlugin", "plugin"]

Label: TypeAlias = Literal["principal", "tenant", "virtual_key", "team", "customer"]

_SCOPE: Final = "bifrost_core"
_HEALTH_SECONDS: Final = 1.0  # how often the routes are looked at, at most
_MIN_SERIES: Final = 8
_FAILED: Final = trace.Status(trace.StatusCode.ERROR)


@attrs.define(eq=False)
class _CallState:
    """A call under way: its span, and a context in which that is the current one."""

    span: trace.Span
    context: contexts.Context


class TelemetryPlugin:
    """One span per call, one below it per attempt, and metrics.

    A call's span (``chat mistral-small-latest``, kind CLIENT) is a child of the span that is current where
    the Router is called, and is itself current in the hooks and below them. It ends when the call does: a
    stream's when it is left. Metrics are ``gen_ai.client.operation.duration``,
    ``gen_ai.client.operation.time_to_first_chunk``, ``gen_ai.client.token.usage``, and
    ``bifrost.client.`` ``calls``, ``calls.in_flight``, ``retries``, ``cost`` (USD), ``attempt.duration`` and
    ``key.health``. Prompts, answers and texts of errors are in none of them; a model's name is a label only
    when it is known to exist.

    Args:
        tracer_provider: Where spans go; None: the application's own.
        meter_provider: Where metrics go; None: the application's own.
        labels: What of the principal becomes a label of the metrics of calls.
        max_series: How many combinations of labels one metric may have, at least 8; what is beyond is ``other``.
        legacy_names: Whether spans name ``gen_ai.system``, too, for what does not know ``gen_ai.provider.name``.
        clock: What the beginning and end of attempts' spans are counted by.

    Raises:
        ConfigError: An argument is wrong.

    Source:
        https://opentelemetry.io/docs/specs/semconv/gen-ai/
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        labels: Collection[Label] = (),
        max_series: int = 1000,
        legacy_names: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(labels, str):
            raise ConfigError(f"labels is a list, such as [{labels!r}]", field="labels")
        if unknown := sorted(set(labels) - set(names.PRINCIPAL)):
            raise ConfigError(f"no label is {unknown[0]!r}; there are {', '.join(names.PRINCIPAL)}", field="labels")
        if max_series < _MIN_SERIES:
            raise ConfigError(f"a metric has at least {_MIN_SERIES} series, not {max_series}", field="max_series")
        self._clock: Clock = SystemClock() if clock is None else clock
        self._legacy = legacy_names
        self._servers: dict[str, Server | None] = {}
        self._health: dict[Any, tuple[float, list[RouteHealth]]] = {}
        self._max_series = max_series
        self._models = Names(max_series)
        self._starts: dict[tuple[str, str], tuple[str, Attributes]] = {}  # of spans of models that are known
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._metrics = Metrics(meter, self._models, list(dict.fromkeys(labels)), max_series, self._routes)

    @hookimpl
    def bifrost_lifespan(self, router: Any) -> AbstractAsyncContextManager[object]:
        """Know the providers' addresses, and the Router's routes as long as it lives."""
        return self._lifespan(router)

    @asynccontextmanager
    async def _lifespan(self, router: Any) -> AsyncGenerator[None]:
        for name, provider in router.providers.items():
            self._servers[name] = server_of(provider)
        try:
            yield
        finally:
            self._health.pop(router, None)

    @hookimpl(tryfirst=True)
    def bifrost_authenticate(self, call: Call) -> None:
        """Begin the call's span, before anything else happens in it."""
        self._metrics.begin(call)
        span = self._begin(call, None)
        context = trace.set_span_in_context(span)
        call.state[self] = _CallState(span, context)
        # Not detached: a call runs in a task of its own, and the task's context ends with it.
        contexts.attach(context)

    @hookimpl(trylast=True)
    def bifrost_attempt_finished(self, attempt: Attempt, call: Call) -> None:
        """Record an attempt, with a span that has the attempt's own times."""
        self._models.learn(attempt)
        self._metrics.attempt_finished(attempt)
        state: _CallState | None = call.state.get(self)
        if state is None or not state.span.is_recording():
            return
        end = self._now()
        span = self._tracer.start_span(
            names.ATTEMPT_SPAN,
            context=state.context,
            kind=trace.SpanKind.CLIENT,
            attributes=attempt_attributes(attempt, call, self._servers.get(attempt.route.provider)),
            start_time=end - int((attempt.latency or 0.0) * 1e9),
        )
        if attempt.outcome in {"failed", "refused"}:
            span.set_status(_FAILED)
        span.end(end)

    @hookimpl(trylast=True)
    def bifrost_call_finished(self, record: CallRecord, call: Call) -> None:
        """Record a call and end its span."""
        state: _CallState | None = call.state.pop(self, None)
        if state is not None:
            self._metrics.end(call)
        answering = record.response.route.provider if record.response is not None else ""
        asked, _, name = record.model.partition("/")
        provider = self._provider(answering or asked)
        model = self._models.model(asked, name)
        error = _error_type(record)
        self._metrics.call_finished(record, provider, model, error)
        self._look_at(call.router)
        # Refused before the first hook: the span is as long as the call was.
        span = self._begin(call, self._now() - int(record.latency * 1e9)) if state is None else state.span
        if span.is_recording():
            span.update_name(_span_name(call, model))
            span.set_attributes(end_attributes(record, call, provider, error, legacy=self._legacy))
            if record.outcome in {"failed", "refused"}:
                span.set_status(_FAILED)
        span.end()

    def _begin(self, call: Call, start: int | None) -> trace.Span:
        name = (call.operation, call.request.model)
        begin = self._starts.get(name)
        if begin is None:
            asked, _, model = call.request.model.partition("/")
            label = self._models.model(asked, model)
            begin = _span_name(call, label), first_attributes(call, self._provider(asked))
            if label != names.OTHER and len(self._starts) < self._max_series:
                self._starts[name] = begin
        span = self._tracer.start_span(begin[0], kind=trace.SpanKind.CLIENT, attributes=begin[1], start_time=start)
        if span.is_recording():
            span.set_attributes(request_attributes(call, self._servers.get(call.request.model.partition("/")[0])))
        return span

    def _provider(self, name: str) -> str:
        """A provider's name as a label: what is before the slash of a model may be a text of anybody's."""
        return names.provider_name(name) if name in self._servers else names.OTHER

    def _now(self) -> int:
        return int(self._clock.time() * 1e9)

    def _look_at(self, router: Any) -> None:
        """Keep how the routes stand, for the thread that collects: the Router itself lives in one event loop."""
        now = self._clock()
        seen = self._health.get(router)
        if router is not None and (seen is None or now - seen[0] >= _HEALTH_SECONDS):
            self._health[router] = now, router.health()

    def _routes(self) -> list[RouteHealth]:
        return [route for _, routes in list(self._health.values()) for route in routes]


def _span_name(call: Call, model: str) -> str:
    operation = names.operation_name(call.operation)
    return operation if model == names.OTHER else f"{operation} {model}"


def _error_type(record: CallRecord) -> str | None:
    """The kind of an error, or the name of its class."""
    if record.outcome == "ok":
        return None
    if record.kind is not None:
        return str(record.kind)
    return "error" if isinstance(record.error, CallError) or record.error is None else type(record.error).__name__


def plugin(*, labels: Collection[Label] = (), max_series: int = 1000, legacy_names: bool = False) -> TelemetryPlugin:
    """The plugin as ``load_plugins("telemetry")`` makes it: to the application's own providers."""
    return TelemetryPlugin(labels=labels, max_series=max_series, legacy_names=legacy_names)
