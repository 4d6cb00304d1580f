"""The metrics: what is recorded when a call begins, when an attempt ends and when a call ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from bifrost_core import Attempt, Call, CallRecord, Principal, RouteHealth

from . import conventions as names
from ._labels import Labels, Names, Series, name

__all__ = ["Metrics"]

_OPEN = frozenset(
    {
        names.PROVIDER_NAME,
        names.REQUEST_MODEL,
        names.RESPONSE_MODEL,
        names.ROUTE_PROVIDER,
        names.ROUTE_MODEL,
        names.ROUTE_KEY_ID,
        *names.PRINCIPAL.values(),
    }
)
_FIELDS = {"principal": "id", "virtual_key": "virtual_key_id"}
_HEALTH = {"closed": 1.0, "half_open": 0.5, "open": 0.0}


@attrs.frozen(eq=False)
class _CallLabels:
    """The labels of one kind of call, by metric: a call looks up one of these in place of seven."""

    duration: Labels
    calls: Labels
    first: Labels
    input: Labels
    output: Labels
    cost: Labels
    retries: Labels


class Metrics:
    """Every instrument, each with the series that it has been given.

    Args:
        meter: Makes the instruments.
        known: The models that are labels.
        labels: Of the principal: what becomes a label of the metrics of calls.
        limit: Series of one metric.
        health: Gives the routes as they stand; called by whatever thread collects.
    """

    def __init__(
        self,
        meter: Meter,
        known: Names,
        labels: Sequence[str],
        limit: int,
        health: Callable[[], Iterable[RouteHealth]],
    ) -> None:
        self._known = known
        self._principal = tuple(labels)
        self._nobody: tuple[str | None, ...] = (None,) * len(self._principal)
        self._limit = limit
        self._call_labels: dict[tuple[Any, ...], _CallLabels] = {}
        self._health = health
        of_principal = [names.PRINCIPAL[label] for label in labels]
        operation = [names.OPERATION_NAME, names.PROVIDER_NAME, names.REQUEST_MODEL]
        answered = [*operation, names.RESPONSE_MODEL]

        def series(*of: str) -> Series:
            return Series(of, _OPEN, limit)

        self._duration = meter.create_histogram(
            names.OPERATION_DURATION,
            unit="s",
            description="How long calls took.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        self._duration_series = series(*answered, names.ERROR_TYPE, *of_principal)
        self._first = meter.create_histogram(
            names.TIME_TO_FIRST_CHUNK,
            unit="s",
            description="How long streams took to their first content.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        self._first_series = series(*answered, *of_principal)
        self._tokens = meter.create_histogram(
            names.TOKEN_USAGE,
            unit="{token}",
            description="Tokens that calls used, over all their attempts.",
            explicit_bucket_boundaries_advisory=names.TOKENS,
        )
        self._token_series = series(*answered, names.TOKEN_TYPE, *of_principal)
        self._calls = meter.create_counter(names.CALLS, unit="{call}", description="Calls that ended.")
        self._call_series = series(*operation, names.OUTCOME, names.CACHED, *of_principal)
        self._cost = meter.create_counter(names.TOTAL_COST, unit="{USD}", description="What calls cost.")
        self._cost_series = series(*operation, *of_principal)
        self._retries = meter.create_counter(
            names.RETRIES, unit="{attempt}", description="Attempts beyond the first of a call."
        )
        self._retry_series = series(*operation, *of_principal)
        self._in_flight = meter.create_up_down_counter(
            names.IN_FLIGHT, unit="{call}", description="Calls that have begun and not ended."
        )
        self._in_flight_series = series(names.OPERATION_NAME)
        self._attempts = meter.create_histogram(
            names.ATTEMPT_DURATION,
            unit="s",
            description="How long attempts took.",
            explicit_bucket_boundaries_advisory=names.SECONDS,
        )
        route = [names.ROUTE_PROVIDER, names.ROUTE_MODEL, names.ROUTE_KEY_ID]
        self._attempt_series = series(*route, names.OUTCOME, names.ERROR_TYPE)
        self._health_series = series(*route)
        meter.create_observable_gauge(
            names.KEY_HEALTH,
            callbacks=[self._observe],
            description="1: the route is usable; 0.5: one attempt may try it; 0: it rests.",
        )

    def begin(self, call: Call) -> None:
        """A call begins."""
        self._in_flight.add(1, self._in_flight_series.labels(names.operation_name(call.operation)))

    def end(self, call: Call) -> None:
        """A call that began ends."""
        self._in_flight.add(-1, self._in_flight_series.labels(names.operation_name(call.operation)))

    def attempt_finished(self, attempt: Attempt) -> None:
        """An attempt has ended."""
        route = attempt.route
        labels = self._attempt_series.labels(
            route.provider,
            self._known.model(route.provider, route.model),
            route.key_id,
            attempt.outcome,
            None if attempt.kind is None else str(attempt.kind),
        )
        self._attempts.record(attempt.latency or 0.0, labels)

    def call_finished(self, record: CallRecord, provider: str, model: str, error: str | None) -> None:
        """A call has ended.

        Args:
            record: How.
            provider: Its provider's name as a label.
            model: Its model's name as a label.
            error: What failed, as a label.
        """
        principal = record.principal
        who = tuple([_of(principal, label) for label in self._principal]) if principal else self._nobody
        answering = self._known.answering(record)
        key = (record.operation, provider, model, answering, error, record.outcome, record.cached, who)
        labels = self._call_labels.get(key)
        if labels is None:
            labels = self._labels_of(record, provider, model, answering, error, who)
            if len(self._call_labels) < self._limit:
                self._call_labels[key] = labels
        self._duration.record(record.latency, labels.duration)
        self._calls.add(1, labels.calls)
        usage = record.usage
        if record.time_to_first_token is not None:
            self._first.record(record.time_to_first_token, labels.first)
        if usage.input_tokens:
            self._tokens.record(usage.input_tokens, labels.input)
        if usage.output_tokens:
            self._tokens.record(usage.output_tokens, labels.output)
        if record.cost:
            self._cost.add(float(record.cost), labels.cost)
        if len(record.attempts) > 1:
            self._retries.add(len(record.attempts) - 1, labels.retries)

    def _labels_of(
        self,
        record: CallRecord,
        provider: str,
        model: str,
        answering: str | None,
        error: str | None,
        who: tuple[str | None, ...],
    ) -> _CallLabels:
        asked = (names.operation_name(record.operation), provider, model)
        answered = (*asked, answering)
        return _CallLabels(
            duration=self._duration_series.labels(*answered, error, *who),
            calls=self._call_series.labels(*asked, record.outcome, bool(record.cached), *who),
            first=self._first_series.labels(*answered, *who),
            input=self._token_series.labels(*answered, "input", *who),
            output=self._token_series.labels(*answered, "output", *who),
            cost=self._cost_series.labels(*asked, *who),
            retries=self._retry_series.labels(*asked, *who),
        )

    def _observe(self, options: CallbackOptions) -> Iterable[Observation]:  # noqa: ARG002 # given to every callback
        worst: dict[int, tuple[Labels, float]] = {}
        for each in self._health():
            route = each.route
            model = self._known.model(route.provider, route.model)
            labels = self._health_series.labels(route.provider, model, route.key_id)
            _, before = worst.get(id(labels), (labels, 1.0))
            worst[id(labels)] = labels, min(before, _HEALTH[each.state])
        return [Observation(value, labels) for labels, value in worst.values()]


def _of(principal: Principal, label: str) -> str | None:
    """What of the principal a label says."""
    value: str | None = getattr(principal, _FIELDS.get(label, label))
    return None if value is None else name(value)
