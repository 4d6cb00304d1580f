"""One span per call and one below it per attempt, whatever comes of them."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest
from bifrost_plugins.telemetry import TelemetryPlugin
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from bifrost_core import (
    BifrostError,
    Call,
    CallError,
    ChatResponse,
    Choice,
    ConfigError,
    Mistral,
    Principal,
    RefusedError,
    Request,
    Response,
    Router,
    SyncRouter,
    Usage,
    hookimpl,
    load_plugins,
)
from bifrost_core.testing import Fault, SimulatedKey, SimulatedMistral
from bifrost_core.testing.simulated import Simulated
from bifrost_core.wire import HttpReply

MODEL = "mistral/mistral-small-latest"
CANARY = "sk-bf-canary-0123456789abcdef"


class Cache:
    """Answers everything."""

    @hookimpl
    def bifrost_cached_response(self) -> ChatResponse:
        return ChatResponse(choices=(Choice(text="kept", finish_reason="stop"),), model="small")


class Counting(Simulated):
    """Says that each request used what it is told to say."""

    def __init__(self, keys: list[str], usage: Usage) -> None:
        super().__init__(keys)
        self.usage = usage

    def decode(self, request: Request, reply: HttpReply) -> Response:
        return attrs.evolve(super().decode(request, reply), usage=self.usage)


class Guard:
    """Knows the caller, and refuses when told to."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses

    @hookimpl
    def bifrost_authenticate(self) -> Principal:
        return Principal(id="alice", tenant="acme")

    @hookimpl
    def bifrost_authorize(self) -> None:
        if self.refuses:
            raise RefusedError("not today")


def only(spans: list[ReadableSpan], name: str) -> ReadableSpan:
    (span,) = [span for span in spans if span.name == name]
    return span


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_call_is_a_span_below_the_callers_and_above_its_attempts(seen: Any) -> None:
    keys = [
        SimulatedKey("sk-simulated-1", id="bad", faults=Fault("status", status=401)),
        SimulatedKey("sk-simulated-2"),
    ]
    tracer = seen.tracers.get_tracer("application")
    async with SimulatedMistral(keys) as server:
        base_url = server.base_url
        provider = Mistral(["sk-simulated-1", "sk-simulated-2"], base_url=base_url)
        plugin = TelemetryPlugin(**seen.providers, legacy_names=True)
        async with Router([provider], plugins=[plugin, Guard()]) as router:
            for _ in range(500):  # until the bad key is tried
                seen.exporter.clear()
                with tracer.start_as_current_span("request") as outer:
                    reply = await router.chat(MODEL, "hello", temperature=0.5, max_tokens=20, random_seed=7)
                if len(reply.attempts) == 2:
                    break
    failed, answered, call = seen.spans[:3]
    assert call.name == "chat mistral-small-latest"
    assert call.kind is SpanKind.CLIENT
    assert parent_of(call) == outer.get_span_context().span_id
    assert [parent_of(span) for span in (failed, answered)] == [id_of(call)] * 2
    assert call.status.status_code is StatusCode.UNSET
    address = {"server.address": "127.0.0.1", "server.port": int(base_url.rpartition(":")[2])}
    assert said(call) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mistral_ai",
        "gen_ai.system": "mistral_ai",
        "gen_ai.request.model": "mistral-small-latest",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.seed": 7,
        "gen_ai.response.model": reply.model,
        "gen_ai.response.id": reply.raw["id"],
        "gen_ai.response.finish_reasons": (reply.finish_reason,),
        "gen_ai.usage.input_tokens": reply.usage.input_tokens,
        "gen_ai.usage.output_tokens": reply.usage.output_tokens,
        "bifrost.call.id": reply.call_id,
        "bifrost.outcome": "ok",
        "bifrost.attempts": 2,
        "bifrost.cost": float(reply.cost or 0),
        "bifrost.principal": "alice",
        "bifrost.tenant": "acme",
        **address,
    }
    first, second = reply.attempts
    route = {"bifrost.route.provider": "mistral", "bifrost.route.model": "mistral-small-latest", **address}
    assert said(failed) == {
        "bifrost.attempt.id": first.id,
        "bifrost.attempt.number": 1,
        "bifrost.route.key_id": first.route.key_id,
        "bifrost.outcome": "failed",
        "error.type": "auth",
        "http.response.status_code": 401,
        **route,
    }
    assert failed.status.status_code is StatusCode.ERROR
    assert said(answered) == {
        "bifrost.attempt.id": second.id,
        "bifrost.attempt.number": 2,
        "bifrost.route.key_id": second.route.key_id,
        "bifrost.outcome": "ok",
        "http.response.status_code": 200,
        "bifrost.cost": float(second.cost or 0),
        "bifrost.attempt.input_tokens": reply.usage.input_tokens,
        "bifrost.attempt.output_tokens": reply.usage.output_tokens,
        **route,
    }
    assert (answered.end_time or 0) - (answered.start_time or 0) == int((second.latency or 0) * 1e9)
    assert (call.start_time or 0) <= (failed.start_time or 0)
    assert (answered.end_time or 0) <= (call.end_time or 0)


async def test_a_streams_span_ends_when_the_stream_is_left(seen: Any) -> None:
    key = SimulatedKey("sk-simulated-1", faults=Fault("hang", after=3, last=1))
    async with SimulatedMistral([key]) as server:
        provider = Mistral(["sk-simulated-1"], base_url=server.base_url)
        async with Router([provider], plugins=[TelemetryPlugin(**seen.providers)]) as router:
            async with router.stream(MODEL, "hello") as stream:
                async for _ in stream:
                    assert not [span for span in seen.spans if span.name.startswith("chat")]
                    break
            call = only(seen.spans, "chat mistral-small-latest")
            assert said(call)["gen_ai.request.stream"] is True
            async with router.stream(MODEL, "hello") as stream:
                async for _ in stream:
                    pass
    read, whole = [span for span in seen.spans if span.name.startswith("chat")]
    assert (said(read)["bifrost.outcome"], said(whole)["bifrost.outcome"]) == ("cancelled", "ok")
    assert said(whole)["gen_ai.response.time_to_first_chunk"] > 0
    assert said(whole)["gen_ai.response.finish_reasons"] == ("stop",)


async def test_a_cancelled_call_ends_its_spans_and_is_no_error(seen: Any) -> None:
    provider = Simulated([SimulatedKey("slow", faults=Fault("hang"))])
    router = Router([provider], plugins=[TelemetryPlugin(**seen.providers)])
    async with router, anyio.create_task_group() as group:
        group.start_soon(router.chat, "simulated/small", "hello")
        while not provider.journal:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    attempt, call = seen.spans
    assert [said(span)["error.type"] for span in (attempt, call)] == ["cancelled"] * 2
    assert [span.status.status_code for span in (attempt, call)] == [StatusCode.UNSET] * 2
    assert parent_of(attempt) == id_of(call)


async def test_a_span_tells_what_of_a_prompt_was_read_from_a_cache_and_written_to_it(seen: Any) -> None:
    usage = Usage(input_tokens=9, cached_tokens=4, cache_write_tokens=3, long_cache_write_tokens=2, requests=1)
    async with Router([Counting(["one"], usage)], plugins=[TelemetryPlugin(**seen.providers)]) as router:
        await router.chat("simulated/small", "hello")
    told = said(only(seen.spans, "chat small"))
    assert {name: count for name, count in told.items() if "usage" in name} == {
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.cache_creation.input_tokens": 3,
        "bifrost.usage.long_cache_write_tokens": 2,
    }


async def test_a_cached_answer_is_a_call_without_attempts(seen: Any) -> None:
    plugins = [TelemetryPlugin(**seen.providers), Cache()]
    async with Router([Simulated(["k"])], plugins=plugins) as router:
        await router.chat("simulated/small", "hello")
    (call,) = seen.spans
    assert call.name == "chat"  # nothing says yet that there is such a model
    assert said(call)["bifrost.cached"] is True
    assert said(call)["bifrost.attempts"] == 0


@pytest.mark.parametrize("guard_first", [False, True], ids=["telemetry first", "telemetry last"])
async def test_a_refused_call_is_an_error_without_attempts(seen: Any, *, guard_first: bool) -> None:
    plugins: list[object] = [TelemetryPlugin(**seen.providers), Guard(refuses=True)]
    if guard_first:
        plugins.reverse()
    async with Router([Simulated(["k"])], plugins=plugins) as router:
        with pytest.raises(RefusedError):
            await router.chat("simulated/small", "hello")
    (call,) = seen.spans
    assert (said(call)["bifrost.outcome"], said(call)["error.type"]) == ("refused", "refused")
    assert said(call)["bifrost.tenant"] == "acme"
    assert call.status.status_code is StatusCode.ERROR
    assert call.status.description is None
    assert call.events == ()


async def test_a_call_that_ends_before_the_first_hook_has_a_span_as_long_as_it(seen: Any) -> None:
    tracer = seen.tracers.get_tracer("application")
    async with Router([Simulated(["k"])], plugins=[TelemetryPlugin(**seen.providers)]) as router:
        with tracer.start_as_current_span("request") as outer, pytest.raises(CallError):
            await router.chat("nowhere/small", "hello")
    call, _ = seen.spans
    assert call.name == "chat"
    assert parent_of(call) == outer.get_span_context().span_id
    assert said(call)["error.type"] == "model_not_found"
    assert said(call)["gen_ai.provider.name"] == "other"
    assert (call.start_time or 0) <= (call.end_time or 0)


async def test_the_calls_span_is_current_in_hooks_and_not_in_the_callers_task(seen: Any) -> None:
    found: list[trace.SpanContext] = []

    class Inside:
        @hookimpl
        async def bifrost_guard_request(self, request: Request, call: Call) -> None:
            found.append(trace.get_current_span().get_span_context())

    async with Router([Simulated(["k"])], plugins=[TelemetryPlugin(**seen.providers), Inside()]) as router:
        await router.chat("simulated/small", "hello")
    assert not trace.get_current_span().get_span_context().is_valid
    assert found == [only(seen.spans, "chat small").context]


async def test_calls_side_by_side_keep_their_spans_apart(seen: Any) -> None:
    tracer = seen.tracers.get_tracer("application")
    async with Router([Simulated(["k1", "k2"])], plugins=[TelemetryPlugin(**seen.providers)]) as router:

        async def ask(number: int) -> None:
            with tracer.start_as_current_span(f"request {number}"):
                await router.chat("simulated/small", "hello")

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(ask, number)
    by_id = {id_of(span): span for span in seen.spans}
    attempts = [span for span in seen.spans if span.name == "bifrost.attempt"]
    above = [by_id[parent_of(by_id[parent_of(span) or 0]) or 0].name for span in attempts]
    assert sorted(above) == sorted(f"request {number}" for number in range(20))


def test_calls_from_blocking_code_are_below_its_span(seen: Any) -> None:
    tracer = seen.tracers.get_tracer("application")
    with SyncRouter([Simulated(["k"])], plugins=[TelemetryPlugin(**seen.providers)]) as router:
        with tracer.start_as_current_span("request") as outer:
            router.chat("simulated/small", "hello")
            with router.stream("simulated/small", "hello") as stream:
                list(stream)
    calls = [span for span in seen.spans if span.name.startswith("chat")]
    assert [parent_of(call) for call in calls] == [outer.get_span_context().span_id] * 2


async def test_neither_words_nor_keys_are_in_spans(seen: Any) -> None:
    provider = Simulated([SimulatedKey("k", faults=Fault("status", status=400, message="said: the question", first=2))])
    async with Router([provider], plugins=[TelemetryPlugin(**seen.providers)]) as router:
        reply = await router.chat("simulated/small", "the question", virtual_key=CANARY, metadata={"note": "a note"})
        with pytest.raises(BifrostError):
            await router.chat(f"simulated/{CANARY}", "the question", virtual_key=CANARY)
    told = "".join(span.to_json() for span in seen.spans)
    assert len(seen.spans) == 4
    for word in (CANARY, "the question", "a note", reply.text):
        assert word not in told


async def test_without_an_sdk_nothing_is_recorded_and_calls_are_answered() -> None:
    (plugin,) = load_plugins("telemetry")
    assert isinstance(plugin, TelemetryPlugin)
    async with Router([Simulated(["k"])], plugins=[plugin]) as router:
        assert (await router.chat("simulated/small", "hello")).text


@pytest.mark.parametrize(
    ("options", "field"),
    [({"labels": "tenant"}, "labels"), ({"labels": ["user"]}, "labels"), ({"max_series": 3}, "max_series")],
    ids=["a string", "an unknown label", "few series"],
)
def test_a_wrong_argument_is_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TelemetryPlugin(**options)
    assert caught.value.field == field
