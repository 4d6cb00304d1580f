"""What is counted and measured, and that its labels stay few."""

from __future__ import annotations

import time
from contextlib import suppress
from decimal import Decimal
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from bifrost_plugins.telemetry import TelemetryPlugin
from bifrost_plugins.telemetry._labels import Series
from bifrost_plugins.telemetry.conventions import OTHER
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest

from bifrost_core import (
    Attempt,
    Call,
    CallRecord,
    Kind,
    Mistral,
    ModelNotFoundError,
    Operation,
    Price,
    PriceBook,
    Principal,
    Request,
    Router,
    RouteRef,
    Usage,
    hookimpl,
)
from bifrost_core.testing import Fault, SimulatedKey, SimulatedMistral
from bifrost_core.testing.simulated import Simulated

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "simulated", "gen_ai.request.model": "small"}
ANSWERED = {**CHAT, "gen_ai.response.model": "small"}


class Known:
    @hookimpl
    def bifrost_authenticate(self) -> Principal:
        return Principal(id="alice", tenant="acme", team="search")


async def test_a_call_is_measured_in_the_conventions(seen: Any) -> None:
    plugin = TelemetryPlugin(**seen.providers, labels=["tenant", "team"])
    provider = Simulated(["k"], prices={"small": Price(input="1", output="2")})
    async with Router([provider], plugins=[plugin, Known()], prices=PriceBook(provider.prices)) as router:
        reply = await router.chat("simulated/small", "hello")
        async with router.stream("simulated/small", "hello") as stream:
            async for _ in stream:
                pass
        points = seen.points
    streamed = stream.response
    who = {"bifrost.tenant": "acme", "bifrost.team": "search"}
    usage, cost = reply.usage + streamed.usage, (reply.cost or Decimal(0)) + (streamed.cost or Decimal(0))
    assert [labels for labels, _ in points["gen_ai.client.operation.duration"]] == [{**ANSWERED, **who}]
    assert [labels for labels, _ in points["gen_ai.client.operation.time_to_first_chunk"]] == [{**ANSWERED, **who}]
    assert points["gen_ai.client.token.usage"] == [
        ({**ANSWERED, "gen_ai.token.type": "input", **who}, usage.input_tokens),
        ({**ANSWERED, "gen_ai.token.type": "output", **who}, usage.output_tokens),
    ]
    assert points["bifrost.client.calls"] == [({**CHAT, "bifrost.outcome": "ok", "bifrost.cached": False, **who}, 2)]
    assert points["bifrost.client.cost"] == [({**CHAT, **who}, pytest.approx(float(cost)))]
    assert points["bifrost.client.calls.in_flight"] == [({"gen_ai.operation.name": "chat"}, 0)]
    assert "bifrost.client.retries" not in points


async def test_attempts_retries_and_the_health_of_keys_are_measured(seen: Any) -> None:
    keys = [
        SimulatedKey("sk-simulated-1", id="bad", faults=Fault("status", status=401)),
        SimulatedKey("sk-simulated-2"),
    ]
    async with SimulatedMistral(keys) as server:
        provider = Mistral([key.secret for key in keys], base_url=server.base_url)
        clock = Ticking()
        async with Router([provider], plugins=[TelemetryPlugin(**seen.providers, clock=clock)]) as router:
            replies = [await router.chat("mistral/mistral-small-latest", "hello")]
            while len(replies) < 500 and all(len(reply.attempts) == 1 for reply in replies[-2:]):  # both are tried
                replies.append(await router.chat("mistral/mistral-small-latest", "hello"))
            replies.append(await router.chat("mistral/mistral-small-latest", "hello"))
            health = {each.route.key_id: each.state for each in router.health()}
            points = seen.points
    attempts = [attempt for reply in replies for attempt in reply.attempts]
    (bad,) = [attempt.route.key_id for attempt in attempts if attempt.kind is Kind.AUTH]
    route = {"bifrost.route.provider": "mistral", "bifrost.route.model": "mistral-small-latest"}
    labels = [labels for labels, _ in points["bifrost.client.attempt.duration"]]
    assert {**route, "bifrost.route.key_id": bad, "bifrost.outcome": "failed", "error.type": "auth"} in labels
    assert len(labels) == 2
    assert [value for _, value in points["bifrost.client.retries"]] == [1]
    assert {labels["bifrost.route.key_id"]: value for labels, value in points["bifrost.client.key.health"]} == {
        key: 0.0 if state == "open" else 1.0 for key, state in health.items()
    }
    assert health[bad] == "open"


class Ticking:
    """A clock on which every reading is ten seconds later."""

    def __init__(self) -> None:
        self.now = 1_767_225_600.0

    def __call__(self) -> float:
        self.now += 10
        return self.now

    def time(self) -> float:
        return self()


async def test_calls_in_flight_are_counted_until_they_are_cancelled(seen: Any) -> None:
    provider = Simulated([SimulatedKey("slow", faults=Fault("hang"))])
    async with (
        Router([provider], plugins=[TelemetryPlugin(**seen.providers)]) as router,
        anyio.create_task_group() as group,
    ):
        for _ in range(3):
            group.start_soon(router.chat, "simulated/small", "hello")
        while len(provider.journal) < 3:
            await anyio.lowlevel.checkpoint()
        during = seen.points["bifrost.client.calls.in_flight"]
        group.cancel_scope.cancel()
    assert during == [({"gen_ai.operation.name": "chat"}, 3)]
    assert seen.points["bifrost.client.calls.in_flight"] == [({"gen_ai.operation.name": "chat"}, 0)]
    assert [labels["bifrost.outcome"] for labels, _ in seen.points["bifrost.client.calls"]] == ["cancelled"]


async def test_a_model_is_a_label_once_it_is_known_to_exist(seen: Any) -> None:
    provider = Simulated(["k"], models=["small"])
    async with Router([provider], plugins=[TelemetryPlugin(**seen.providers)]) as router:
        for model in ("simulated/my-secret-plan", "simulated/small", "my other plan/x"):
            with suppress(ModelNotFoundError):
                await router.chat(model, "hello")
    told = str(seen.points)
    assert "plan" not in told
    calls = {labels["gen_ai.request.model"]: value for labels, value in seen.points["bifrost.client.calls"]}
    assert calls["small"] == 1
    assert set(calls) == {"small", OTHER}


# -- few labels ----------------------------------------------------------------------------------------------------


def a_call(model: str) -> Call:
    return Call("c1", Operation.CHAT, Request(Operation.CHAT, model, {"messages": []}))


def a_record(model: str, **changes: Any) -> CallRecord:
    fields: dict[str, Any] = {
        "call_id": "c1",
        "operation": Operation.CHAT,
        "model": model,
        "principal": None,
        "outcome": "ok",
        "kind": None,
        "response": None,
        "error": None,
        "attempts": (),
        "usage": Usage(input_tokens=3, output_tokens=5),
        "cost": Decimal(1),
        "cached": False,
        "started_at": time.time(),
        "latency": 0.5,
        "time_to_first_token": 0.1,
        "metadata": {},
    }
    return CallRecord(**{**fields, **changes})


def use(plugin: TelemetryPlugin, count: int) -> None:
    """So many calls, each of another user on another model with another key."""
    plugin._servers["simulated"] = None
    for number in range(count):
        route = RouteRef("simulated", f"model-{number}", f"key-{number}")
        attempt = Attempt(f"a{number}", route, outcome="ok", latency=0.1)
        call = a_call(f"simulated/model-{number}")
        plugin.bifrost_attempt_finished(attempt, call)
        who = Principal(id=f"user-{number}", tenant=f"tenant-{number % 7}")
        outcome, kind = ("ok", None) if number % 2 else ("failed", Kind.SERVER_ERROR)
        attempts = (attempt, attempt)
        record = a_record(call.model, principal=who, attempts=attempts, outcome=outcome, kind=kind)
        plugin.bifrost_call_finished(record, call)


def test_a_hundred_thousand_models_and_users_are_a_thousand_series() -> None:
    plugin = TelemetryPlugin(labels=["principal", "tenant"])
    use(plugin, 100_000)
    kept = {name: len(value) for name, value in vars(plugin._metrics).items() if isinstance(value, Series)}
    assert len(kept) == 9
    assert {name: count for name, count in kept.items() if count > 1000} == {}
    assert len(plugin._models._models) == 1000


def test_what_reaches_the_sdk_is_bounded_and_complete(seen: Any) -> None:
    use(TelemetryPlugin(meter_provider=seen.meters, labels=["principal", "tenant"], max_series=100), 1_000)
    points = seen.points
    assert {name: len(series) for name, series in points.items() if len(series) > 100} == {}
    assert sum(value for _, value in points["bifrost.client.calls"]) == 1_000
    full = [labels for labels, _ in points["bifrost.client.calls"] if labels.get("bifrost.principal") == OTHER]
    assert {labels["bifrost.outcome"] for labels in full} == {"ok", "failed"}  # errors can still be told from answers


def test_what_a_full_metric_has_no_room_for_is_other() -> None:
    series = Series(["model", "outcome"], {"model"}, 8)
    given = [series.labels(f"m{number}", outcome) for number in range(50) for outcome in ("ok", f"kind-{number}")]
    assert len(series) <= 8
    assert {"model": "m0", "outcome": "ok"} in given
    assert series.labels("m49", "ok") == {"model": OTHER, "outcome": "ok"}
    assert series.labels("m49", "kind-49") == {"model": OTHER, "outcome": OTHER}


# -- Prometheus ----------------------------------------------------------------------------------------------------


async def test_prometheus_reads_the_same_metrics() -> None:
    reader = PrometheusMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    try:
        async with Router([Simulated(["k"])], plugins=[TelemetryPlugin(meter_provider=meters)]) as router:
            await router.chat("simulated/small", "hello")
            page = generate_latest(REGISTRY).decode()
    finally:
        meters.shutdown()
    lines = [line for line in page.splitlines() if line.startswith("bifrost_client_calls_total{")]
    assert len(lines) == 1
    assert 'gen_ai_request_model="small"' in lines[0]
    assert lines[0].endswith(" 1.0")
    assert "gen_ai_client_operation_duration_seconds_bucket{" in page
    assert "bifrost_client_key_health{" in page
