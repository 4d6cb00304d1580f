"""The public API as users write it: checked by mypy and pyright, never run."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, assert_type

import httpx
from bifrost_plugins.allow_list import AllowListPlugin, Grant
from bifrost_plugins.request_log import Event, JsonlSink, RequestLogPlugin

import bifrost_core.testing as simulation
from bifrost_core import (
    Anthropic,
    Attempt,
    Balancer,
    BudgetExceededError,
    Call,
    CallError,
    CallRecord,
    ChatResponse,
    ChatStream,
    Choice,
    Chunk,
    ClassificationResponse,
    Clock,
    EmbeddingResponse,
    File,
    HookOptions,
    Key,
    Kind,
    LatencyWeighted,
    LeastBusy,
    Message,
    Mistral,
    ModelInfo,
    ModelList,
    ModerationResponse,
    ModerationResult,
    OcrPage,
    OcrResponse,
    OpenAI,
    OpenAICompatible,
    Operation,
    Price,
    PriceBook,
    Principal,
    Provider,
    ProviderRateLimitError,
    RefusedError,
    Request,
    Response,
    ResponsesResponse,
    ResponseStream,
    RetryPolicy,
    Route,
    RouteHealth,
    Router,
    RouteRef,
    Secret,
    Segment,
    SpeechResponse,
    StreamBrokenError,
    SyncRouter,
    SystemClock,
    Timeout,
    ToolCall,
    Transcription,
    TranscriptionStream,
    Usage,
    hookimpl,
    load_plugins,
)

# -- making a Router -----------------------------------------------------------------------------------------------


def keys() -> list[Key]:
    return [
        Key("sk-plain-text-key"),
        Key(Secret("sk-plain-text-key"), id="first", weight=2, models=["mistral-*"], exclude_models="*-large"),
        Key("vault:llm/mistral", quota_group="org", enabled=False),
        Key.from_env("MISTRAL_API_KEY", id="env"),
    ]


def routers() -> None:
    Router([Mistral("sk-plain-text-key"), Anthropic(keys(), version="2026-10-21", beta=["one"], max_in_flight=3)])
    Router([OpenAI("sk-plain-text-key", organization="org-1"), OpenAICompatible("local", base_url="http://localhost")])
    Router([OpenAICompatible("groq", keys(), base_url="https://api.groq.com/openai", stream_usage=False, proxy=None)])
    Router([Mistral(["sk-one-text-key", Key("sk-two-text-key")], base_url="https://api.eu.mistral.ai", proxy=None)])
    Router(
        (Mistral(keys(), name="eu"),),
        plugins=[RequestLogPlugin(JsonlSink("calls.jsonl")), Curfew(), *load_plugins("request_log")],
        balancer=LatencyWeighted,
        retry=RetryPolicy(max_attempts=3, max_wait=0),
        timeout=Timeout(total=30, connect=1.5),
        fallbacks={"eu/large": ["eu/small"]},
        aliases={"fast": "eu/small"},
        prices=PriceBook({"eu/small": Price(input="0.4", output=2, cached_input=Decimal("0.04"))}),
        engine="httpx",
        clock=SystemClock(),
        rng=random.Random(7),
        require={"bifrost_authenticate"},
    )
    Router([Mistral("sk-plain-text-key")], balancer=LeastBusy, timeout=10)
    Router([Mistral("sk-plain-text-key")], balancer=lambda: LatencyWeighted(band=0.2), engine=httpx.AsyncClient())
    assert_type(Router.from_env(), Router)
    assert_type(Router.from_config(Path("router.toml"), timeout=5), Router)
    assert_type(Router.from_config({"providers": {"mistral": {"keys": ["env:MISTRAL_API_KEY"]}}}), Router)


def protocols(clock: simulation.FakeClock, balancer: LatencyWeighted) -> tuple[Provider, Clock, Balancer]:
    return Mistral("sk-plain-text-key"), clock, balancer


# -- calls ---------------------------------------------------------------------------------------------------------


async def chats(router: Router) -> None:
    reply = await router.chat("mistral/mistral-small-latest", "Name the rainbow bridge of Norse myth.")
    assert_type(reply, ChatResponse)
    assert_type(reply.text, str)
    assert_type(reply.reasoning, str | None)
    assert_type(reply.tool_calls, tuple[ToolCall, ...])
    assert_type(reply.choices, tuple[Choice, ...])
    assert_type(reply.usage, Usage)
    assert_type(reply.cost, Decimal | None)
    assert_type(reply.route, RouteRef)
    assert_type(reply.attempts, tuple[Attempt, ...])
    assert_type(reply.time_to_first_token, float | None)
    assert_type(reply.raw, dict[str, Any])
    assert_type(reply.to_openai(), dict[str, Any])
    assert_type(reply.with_text("masked"), ChatResponse)

    conversation: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    await router.chat("fast", conversation, temperature=0.2, max_tokens=100, tools=[], response_format=dict[str, int])
    await router.chat("fast", [Message("system", "be brief"), Message("user", "hi")], virtual_key="sk-bf-…")
    await router.chat("fast", [{"role": "user", "content": "hi"}, reply.message], fallbacks=["eu/large"], timeout=5)
    await router.chat("fast", "hi", timeout=Timeout(total=3), metadata={"feature": "search"}, session="s1")

    request = Request(Operation.CHAT, "fast", {"messages": conversation}, files=[File("file", "a.txt", b"content")])
    assert_type(await router.send(request, virtual_key="sk-bf-…", timeout=3), Response)


async def other_operations(router: Router) -> None:
    vectors = await router.embed("eu/mistral-embed", ["one", "two"], dimensions=256, timeout=5)
    assert_type(vectors, EmbeddingResponse)
    assert_type(vectors.embeddings, tuple[Sequence[float], ...])
    await router.embed("eu/mistral-embed", (line for line in ("one", "two")), virtual_key="sk-bf-…")

    verdicts = await router.moderate("eu/mistral-moderation-latest", "hi")
    assert_type(verdicts, ModerationResponse)
    assert_type(verdicts.results, tuple[ModerationResult, ...])
    assert_type(verdicts.results[0].flagged, bool)
    conversation: list[Message | dict[str, Any]] = [Message("user", "hi"), {"role": "assistant", "content": "ho"}]
    await router.moderate("eu/mistral-moderation-latest", conversation, fallbacks=["eu/other"])
    await router.moderate("eu/mistral-moderation-latest", [conversation, conversation])
    await router.moderate("eu/mistral-moderation-latest", [[Message("user", "hi")], [Message("user", "ho")]])

    assert_type(await router.models(), list[ModelInfo])
    assert_type(await router.models("eu", virtual_key="sk-bf-…", timeout=3), list[ModelInfo])
    for request in (Request(Operation.CLASSIFICATION, "eu/m"), Request("speech", "eu/m"), Request("models", "eu/*")):
        answer = await router.send(request)
        if isinstance(answer, ClassificationResponse):
            assert_type(answer.results, tuple[dict[str, dict[str, float]], ...])
        elif isinstance(answer, SpeechResponse):
            assert_type(answer.audio, bytes)
        elif isinstance(answer, ModelList):
            assert_type(answer.models, tuple[ModelInfo, ...])


async def recordings_and_documents(router: Router, opened: BinaryIO) -> None:
    heard = await router.transcribe("mistral/voxtral-mini-latest", Path("talk.mp3"), language="de")
    assert_type(heard, Transcription)
    assert_type(heard.segments, tuple[Segment, ...])
    await router.transcribe("mistral/voxtral-mini-latest", opened, context_bias=["Bifröst"], timeout=600)
    await router.transcribe("mistral/voxtral-mini-latest", b"RIFF")
    async with router.stream_transcribe("mistral/voxtral-mini-latest", "https://example.com/talk.mp3") as stream:
        assert_type(stream, TranscriptionStream)
        async for chunk in stream:
            assert_type(chunk, Chunk)
    assert_type(stream.response, Transcription)
    read = await router.ocr("mistral/mistral-ocr-latest", "scan.png", pages=range(3))
    assert_type(read, OcrResponse)
    assert_type(read.pages, tuple[OcrPage, ...])
    assert_type(read.text, str)
    await router.ocr("mistral/mistral-ocr-latest", {"type": "file", "file_id": "…"})


async def streams(router: Router) -> None:
    async with router.stream("fast", "hi", resume=True, max_tokens=10) as stream:
        assert_type(stream, ChatStream)
        async for chunk in stream:
            assert_type(chunk, Chunk)
            assert_type(chunk.text, str)
            assert_type(chunk.usage, Usage | None)
    assert_type(stream.response, ChatResponse)

    async with router.stream("fast", "hi") as stream:
        async for text in stream.text():
            assert_type(text, str)

    async with router.send_stream(Request(Operation.CHAT, "fast", stream=True)) as anything:
        assert_type(anything, ResponseStream)
        assert_type(anything.response, Response)


async def responses(router: Router) -> None:
    reply = await router.responses("fast", "hi", instructions="be brief", max_output_tokens=10, metadata={"a": 1})
    assert_type(reply, ResponsesResponse)
    assert_type(reply.output, tuple[dict[str, Any], ...])
    assert_type(reply.output_text, str)
    assert_type(reply.tool_calls, tuple[ToolCall, ...])
    assert_type(reply.to_openai(), dict[str, Any])
    assert_type(reply.with_text("masked"), ResponsesResponse)
    result = {"type": "function_call_output", "call_id": "abc", "output": "rain"}
    await router.responses("fast", [Message("user", "hi"), *reply.output, result], virtual_key="sk-bf-…", timeout=5)
    async with router.stream_responses("fast", [{"role": "user", "content": "hi"}]) as stream:
        async for event in stream:
            assert_type(event, Chunk)
    assert_type(stream.response, ResponsesResponse)


async def life(router: Router) -> None:
    async with router as same:
        assert_type(same, Router)
        assert_type(router.health(), list[RouteHealth])
        assert_type(router.estimate("eu/small", "hi", max_tokens=5).greatest, Decimal | None)
        assert_type(router.describe(), str)
        router.add_key("mistral", Key("sk-another-text-key"))
        router.remove_key("mistral", "first")
    await router.aclose()


def blocking() -> None:
    with SyncRouter([Mistral("sk-plain-text-key")], timeout=5) as router:
        assert_type(router.chat("fast", "hi", temperature=0), ChatResponse)
        assert_type(router.responses("fast", "hi"), ResponsesResponse)
        with router.stream_responses("fast", "hi") as events:
            assert_type(events.response, ResponsesResponse)
        with router.stream("fast", "hi") as stream:
            for chunk in stream:
                assert_type(chunk, Chunk)
        assert_type(stream.response, ChatResponse)
        assert_type(router.embed("eu/mistral-embed", "hi"), EmbeddingResponse)
        assert_type(router.moderate("eu/mistral-moderation-latest", ["hi"]), ModerationResponse)
        assert_type(router.models("eu"), list[ModelInfo])
        assert_type(router.health(), list[RouteHealth])
        assert_type(router.estimate("eu/small", "hi", max_tokens=5).greatest, Decimal | None)


# -- errors --------------------------------------------------------------------------------------------------------


async def errors(router: Router) -> float | None:
    try:
        await router.chat("fast", "hi")
    except BudgetExceededError as error:
        assert_type(error.limit, Decimal | None)
        assert_type(error.http_status, int)
    except ProviderRateLimitError as error:
        assert_type(error.key_id, str)
        assert_type(error.retry_after, float | None)
        return error.retry_after
    except StreamBrokenError as error:
        assert_type(error.partial, ChatResponse | None)
    except CallError as error:
        assert_type(error.kind, Kind)
        assert_type(error.attempts, tuple[Attempt, ...])
        for attempt in error.attempts:
            assert_type(attempt.error, Exception | None)
            assert_type(attempt.cost_upper, Decimal | None)
    return None


# -- plugins -------------------------------------------------------------------------------------------------------


class Curfew:
    """Every hook, as a plugin may write it."""

    hook_options: ClassVar[Mapping[str, HookOptions]] = {
        "bifrost_guard_request": HookOptions(timeout=2.0, on_error="open", checks=True),
        "bifrost_cached_response": HookOptions(timeout=None),
    }

    @hookimpl
    async def bifrost_authenticate(self, call: Call) -> Principal | None:
        assert_type(call.virtual_key, Secret | None)
        return None if call.virtual_key is None else Principal(id="somebody", roles=["reader"])

    @hookimpl(tryfirst=True)
    def bifrost_authorize(self, request: Request, call: Call) -> None:
        if request.model.endswith("-large") and call.principal is None:
            raise RefusedError("large models are for the day; use a small one")

    @hookimpl
    def bifrost_guard_request(self, request: Request) -> Request | None:
        return request.with_body(temperature=0) if request.operation is Operation.CHAT else None

    @hookimpl
    async def bifrost_cached_response(self, request: Request) -> Response | None:
        return ChatResponse(choices=[Choice(text="cached")]) if request.body.get("seed") == 0 else None

    @hookimpl
    def bifrost_select_routes(self, routes: tuple[Route, ...]) -> Sequence[Route]:
        return [route for route in routes if route.weight > 0]

    @hookimpl
    def bifrost_pick_route(self, routes: tuple[Route, ...]) -> Route | None:
        return routes[0] if len(routes) == 1 else None

    @hookimpl
    def bifrost_reserve(self, attempt: Attempt, call: Call) -> None:
        if attempt.cost_upper is None:
            attempt.limit_output(100)
        call.state[self] = attempt.id

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        assert_type(record.principal, Principal | None)
        assert_type(record.cost, Decimal | None)

    @hookimpl
    def bifrost_lifespan(self, router: Router) -> AbstractAsyncContextManager[object]:
        return self._open(router)

    @asynccontextmanager
    async def _open(self, router: Router) -> AsyncGenerator[None]:
        router.describe()
        yield


def plugins(events: list[Event]) -> Iterable[object]:
    yield RequestLogPlugin(JsonlSink(Path("calls.jsonl")), content=True)
    yield RequestLogPlugin(events.append)
    yield RequestLogPlugin(logging.getLogger("calls"))
    yield AllowListPlugin([Grant("team", keys="sk-bf-0123456789abcdefghij", models="*")], required=False)
    yield AllowListPlugin([Grant(Principal(id="team"), models=["mistral/*"], operations=["chat"])])


# -- users' own tests ----------------------------------------------------------------------------------------------


def simulations() -> Iterable[Provider]:
    latency = simulation.Latency(0.2, sigma=0.3, tokens_per_second=80)
    fault = simulation.Fault("status", status=503, probability=0.1)
    fast = simulation.SimulatedKey("fast", latency=latency, faults=[fault])
    provider = simulation.Simulated([fast, "slow"], seed=7, clock=simulation.FakeClock(), prices={"m": Price(input=1)})
    assert_type(provider.counters, dict[str, simulation.KeyCounters])
    assert_type(provider.journal, tuple[simulation.ServedRequest, ...])
    provider.add_fault("slow", simulation.Fault("hang"))
    provider.heal()
    PriceBook(provider.prices)
    yield provider
    with simulation.SimulatedMistral([fast]) as server:
        yield Mistral("fast-secret", base_url=server.base_url, allow_http=True)
