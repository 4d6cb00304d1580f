"""The SDK ``anthropic`` through the Router: its own objects, helpers and errors, served by another provider."""

from __future__ import annotations

import base64
import gc
import inspect
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import attrs
import pytest
from bifrost_plugins.budgets import Budget, BudgetPlugin
from bifrost_plugins.guardrails import GuardrailPlugin, Literals
from bifrost_plugins.virtual_keys import VirtualKeyPlugin

from bifrost_core import (
    Call,
    CallRecord,
    ChatResponse,
    Choice,
    Mistral,
    RefusedError,
    Request,
    Response,
    RetryPolicy,
    Router,
    Secret,
    SyncRouter,
    hookimpl,
)
from bifrost_core.testing import Fault, Latency, SimulatedKey, SimulatedMistral

sdk = pytest.importorskip("anthropic")
httpx2 = pytest.importorskip("httpx2")
pydantic = pytest.importorskip("pydantic")

Json: TypeAlias = dict[str, Any]

MODEL = "mistral/mistral-small-latest"
SECRET = "sk-simulated-0123456789"
VIRTUAL_KEY = "sk-bf-tests-0123456789abcdef"
HELLO: list[Json] = [{"role": "user", "content": "Name the bridge."}]
HELD: Json = {"city": "Oslo", "degrees": 7}
WEATHER: Json = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
PDF = base64.b64encode(b"%PDF-1.7").decode()


class Ledger:
    """Keeps the record of every call, refuses the model ``ministral-3b-latest``, and answers what begins with ``CACHED``."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.calls: list[Call] = []

    @hookimpl
    def bifrost_authorize(self, request: Request, call: Call) -> None:
        self.calls.append(call)
        if request.model.endswith("ministral-3b-latest"):
            raise RefusedError("this model is not for you")

    @hookimpl
    def bifrost_cached_response(self, request: Request) -> Response | None:
        if request.body["messages"][-1]["content"] == "CACHED":
            return ChatResponse(model="kept", choices=[Choice(text="Kept words.", finish_reason="stop")])
        return None

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


def answer(body: Json) -> Json | str:
    """What the simulated model says: it calls every tool until it has a result, and fills in any schema."""
    messages: list[Json] = body["messages"]
    if messages[-1]["role"] == "tool":
        return "It is 7 degrees in Oslo."
    if tools := body.get("tools"):
        calls = [
            {"id": f"a1B2c3D4{at}", "name": tool["function"]["name"], "arguments": json.dumps({"city": "Oslo"})}
            for at, tool in enumerate(tools)
        ]
        return {"content": "I look.", "tool_calls": calls, "finish_reason": "tool_calls"}
    if (body.get("response_format") or {}).get("type") == "json_schema":
        return json.dumps(HELD)
    if body.get("reasoning_effort") == "high":
        return {"thinking": "Norse myth.", "content": "The bridge is Bifrost."}
    return "The bridge is Bifrost."


@attrs.define(eq=False)
class World:
    """What a test has: the provider, a Router in front of it, and its SDK's client, awaited or not."""

    server: SimulatedMistral
    ledger: Ledger
    client: Any
    waits: bool

    async def __call__(self, create: Any, **arguments: Any) -> Any:
        made = create(**arguments)
        return await made if self.waits else made

    async def every(self, things: Any) -> list[Any]:
        return [thing async for thing in things] if self.waits else list(things)

    async def helper(self, **arguments: Any) -> tuple[list[Any], Any]:
        """Events and final message of the SDK's streaming helper."""
        manager = self.client.messages.stream(**arguments)
        if self.waits:
            async with manager as stream:
                return [event async for event in stream], await stream.get_final_message()
        with manager as stream:
            return list(stream), stream.get_final_message()

    async def failure(self, **arguments: Any) -> Any:
        with pytest.raises(sdk.APIError) as caught:
            await self(
                self.client.messages.create, **{"model": MODEL, "max_tokens": 64, "messages": HELLO, **arguments}
            )
        return caught.value

    def bodies(self) -> list[Json]:
        return [json.loads(request.body or b"{}") for request in self.server.requests]


@pytest.fixture
def anyio_backend() -> str:
    """The SDK is written for asyncio."""
    return "asyncio"


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[SimulatedMistral]:
    key = SimulatedKey(SECRET, faults=getattr(request, "param", ()))
    with SimulatedMistral([key], answer=answer, keep_bodies=True) as running:
        yield running


def with_fault(fault: Fault) -> pytest.MarkDecorator:
    """The provider's key does something wrong."""
    return pytest.mark.parametrize("server", [pytest.param((fault,), id=fault.kind)], indirect=True)


def gate() -> VirtualKeyPlugin:
    return VirtualKeyPlugin(keys=[{"id": "vk_tests", "name": "tests", "secret": Secret(VIRTUAL_KEY)}])


def asynchronous(router: Router, key: str = VIRTUAL_KEY, **options: Any) -> Any:
    return sdk.AsyncAnthropic(
        api_key=key, base_url="http://bifrost/anthropic", http_client=router.http_client(), **options
    )


@pytest.fixture(params=["asynchronous", "blocking"])
async def world(request: pytest.FixtureRequest, server: SimulatedMistral) -> AsyncIterator[World]:
    ledger = Ledger()
    provider = Mistral([SECRET], base_url=server.base_url)
    options: Json = {"plugins": [gate(), ledger], "retry": RetryPolicy(max_attempts=2, max_attempts_per_deployment=1)}
    if request.param == "asynchronous":
        async with Router([provider], **options) as router:
            yield World(server, ledger, asynchronous(router), True)
    else:
        with SyncRouter([provider], **options) as blocking:
            client = sdk.Anthropic(
                api_key=VIRTUAL_KEY, base_url="http://bifrost/anthropic", http_client=blocking.http_client()
            )
            yield World(server, ledger, client, False)


# --- messages


async def test_a_message(world: World) -> None:
    message = await world(
        world.client.messages.create,
        model=MODEL,
        max_tokens=64,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=HELLO,
        stop_sequences=["END"],
        extra_body={"top_k": 3},
        metadata={"user_id": "u"},
        thinking={"type": "disabled"},
    )
    assert isinstance(message, sdk.types.Message)
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "The bridge is Bifrost."}]
    assert (message.role, message.stop_reason, message.stop_sequence) == ("assistant", "end_turn", None)
    record = world.ledger.records[-1]
    assert message.usage.input_tokens == record.usage.input_tokens > 0
    assert message.usage.output_tokens == record.usage.output_tokens > 0
    assert message._request_id == record.call_id
    assert world.bodies() == [
        {
            "model": "mistral-small-latest",
            "max_tokens": 64,
            "messages": [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *HELLO],
            "stop": ["END"],
            "top_k": 3,
            "metadata": {"user_id": "u"},
        }
    ]


async def test_a_streamed_message(world: World) -> None:
    stream = await world(world.client.messages.create, model=MODEL, max_tokens=64, messages=HELLO, stream=True)
    events = await world.every(stream)
    kinds = [event.type for event in events]
    assert (kinds[:2], kinds[-3:]) == (
        ["message_start", "content_block_start"],
        ["content_block_stop", "message_delta", "message_stop"],
    )
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert "".join(event.delta.text for event in events[2:-3]) == "The bridge is Bifrost."
    assert events[-2].usage.input_tokens == world.ledger.records[-1].usage.input_tokens
    assert stream.response.headers["x-bf-call-id"] == world.ledger.records[-1].call_id


async def test_the_streaming_helper(world: World) -> None:
    events, message = await world.helper(model=MODEL, max_tokens=64, messages=HELLO)
    assert "".join(event.text for event in events if event.type == "text") == "The bridge is Bifrost."
    assert message.content[0].text == "The bridge is Bifrost."
    assert message.usage.output_tokens == world.ledger.records[-1].usage.output_tokens


async def test_thoughts(world: World) -> None:
    asked: Json = {
        "model": MODEL,
        "max_tokens": 4096,
        "messages": HELLO,
        "thinking": {"type": "enabled", "budget_tokens": 2048},
    }
    message = await world(world.client.messages.create, **asked)
    told = [
        {"type": "thinking", "thinking": "Norse myth.", "signature": ""},
        {"type": "text", "text": "The bridge is Bifrost."},
    ]
    assert [block.to_dict() for block in message.content] == told
    events, streamed = await world.helper(**asked)
    assert "".join(event.thinking for event in events if event.type == "thinking") == "Norse myth."
    assert [block.to_dict() for block in streamed.content] == told
    answered = [*HELLO, {"role": "assistant", "content": message.content}, *HELLO]
    await world(world.client.messages.create, model=MODEL, max_tokens=64, messages=answered)
    assert world.bodies()[-1]["messages"][1]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Norse myth."}]},
        {"type": "text", "text": "The bridge is Bifrost."},
    ]


async def test_tools_there_and_back(world: World) -> None:
    tools = [WEATHER, {**WEATHER, "name": "climate", "cache_control": {"type": "ephemeral"}}]
    asked: Json = {"model": MODEL, "max_tokens": 64, "tools": tools, "tool_choice": {"type": "any"}}
    message = await world(world.client.messages.create, messages=HELLO, **asked)
    assert message.stop_reason == "tool_use"
    calls = [block for block in message.content if block.type == "tool_use"]
    assert [(call.id, call.name, call.input) for call in calls] == [
        ("a1B2c3D40", "weather", {"city": "Oslo"}),
        ("a1B2c3D41", "climate", {"city": "Oslo"}),
    ]
    results: list[Json] = [
        {"type": "tool_result", "tool_use_id": calls[0].id, "content": "7 degrees"},
        {"type": "tool_result", "tool_use_id": calls[1].id, "content": "unknown", "is_error": True},
        {"type": "text", "text": "Go on."},
    ]
    turns = [*HELLO, {"role": "assistant", "content": message.content}, {"role": "user", "content": results[:2]}]
    last = await world(world.client.messages.create, messages=turns, **asked)
    assert (last.content[0].text, last.stop_reason) == ("It is 7 degrees in Oslo.", "end_turn")
    sent = world.bodies()[-1]
    assert sent["tool_choice"] == "required"
    assert sent["tools"][0]["function"]["parameters"] == WEATHER["input_schema"]
    assert [entry["role"] for entry in sent["messages"]] == ["user", "assistant", "tool", "tool"]
    assert [entry["tool_call_id"] for entry in sent["messages"][2:]] == ["a1B2c3D40", "a1B2c3D41"]


async def test_streamed_calls(world: World) -> None:
    events, message = await world.helper(model=MODEL, max_tokens=64, messages=HELLO, tools=[WEATHER])
    assert [event.snapshot for event in events if event.type == "input_json"] == [{"city": "Oslo"}]
    assert message.stop_reason == "tool_use"
    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert message.content[1].input == {"city": "Oslo"}


async def test_structured_output(world: World) -> None:
    class Weather(pydantic.BaseModel):  # type: ignore[misc, name-defined] # of an optional library
        city: str
        degrees: int

    parsed = await world(world.client.messages.parse, model=MODEL, max_tokens=64, messages=HELLO, output_format=Weather)
    assert parsed.parsed_output == Weather(**HELD)
    _, streamed = await world.helper(model=MODEL, max_tokens=64, messages=HELLO, output_format=Weather)
    assert streamed.parsed_output == Weather(**HELD)
    beta = await world(
        world.client.beta.messages.parse,
        model=MODEL,
        max_tokens=64,
        messages=HELLO,
        output_format=Weather,
        betas=["structured-outputs-2025-11-13"],
    )
    assert beta.parsed_output == Weather(**HELD)
    schema = world.bodies()[0]["response_format"]["json_schema"]
    assert (schema["name"], schema["strict"], schema["schema"]["required"]) == ("Weather", True, ["city", "degrees"])


async def test_pictures_and_documents(world: World) -> None:
    blocks: list[Json] = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}, "title": "a"},
        {"type": "document", "source": {"type": "url", "url": "https://x.test/a.pdf"}},
        {"type": "text", "text": "What is it?"},
    ]
    await world(
        world.client.messages.create, model=MODEL, max_tokens=64, messages=[{"role": "user", "content": blocks}]
    )
    assert world.bodies()[0]["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "document_url", "document_url": f"data:application/pdf;base64,{PDF}", "document_name": "a"},
        {"type": "document_url", "document_url": "https://x.test/a.pdf"},
        {"type": "text", "text": "What is it?"},
    ]


async def test_an_answer_goes_on_from_a_prefill(world: World) -> None:
    turns = [*HELLO, {"role": "assistant", "content": "It is: "}]
    message = await world(world.client.messages.create, model=MODEL, max_tokens=64, messages=turns)
    _, streamed = await world.helper(model=MODEL, max_tokens=64, messages=turns)
    assert world.bodies()[0]["messages"][-1]["prefix"] is True
    assert [message.content[0].text, streamed.content[0].text] == ["The bridge is Bifrost."] * 2


# --- models, raw responses, options


async def test_models(world: World) -> None:
    listed = await world.every(await world(world.client.models.list, limit=5))  # the SDK turns the pages
    assert MODEL in [model.id for model in listed]
    assert len({model.id for model in listed}) == len(listed) > 5
    model = await world(world.client.models.retrieve, model_id=MODEL)
    assert (model.id, model.type) == (MODEL, "model")
    assert model.display_name.startswith("mistral-small-")
    with pytest.raises(sdk.NotFoundError):
        await world(world.client.models.retrieve, model_id="mistral/none")


async def test_what_the_router_knows_is_in_the_headers(world: World) -> None:
    raw = await world(
        world.client.messages.with_raw_response.create,
        model=MODEL,
        max_tokens=64,
        messages=HELLO,
        extra_headers={"x-bf-session": "s", "x-bf-metadata": '{"job": "tests"}'},
    )
    parsed = raw.parse()
    message = await parsed if inspect.isawaitable(parsed) else parsed
    record = world.ledger.records[-1]
    assert message.content[0].text == "The bridge is Bifrost."
    assert (raw.headers["request-id"], raw.headers["x-bf-provider"]) == (record.call_id, "mistral")
    assert record.metadata == {"job": "tests"}
    assert record.principal is not None
    assert record.principal.virtual_key_id == "vk_tests"
    assert world.ledger.calls[-1].headers["anthropic-version"] == raw.http_request.headers["anthropic-version"]
    assert VIRTUAL_KEY not in str(world.ledger.calls[-1].headers)


async def test_no_key_of_the_caller_reaches_a_provider(world: World) -> None:
    await world(world.client.messages.create, model=MODEL, max_tokens=64, messages=HELLO)
    assert VIRTUAL_KEY.encode() not in b"".join(request.body or b"" for request in world.server.requests)
    assert [request.key_id for request in world.server.requests] == ["key-1"]  # the Router's own


@with_fault(Fault("status", status=500, last=1))
async def test_fallbacks_of_the_body(world: World) -> None:
    message = await world(
        world.client.messages.create,
        model="mistral/mistral-medium-latest",
        max_tokens=64,
        messages=HELLO,
        extra_body={"fallbacks": [{"model": MODEL}]},
    )
    assert message.content[0].text == "The bridge is Bifrost."
    assert [request.model for request in world.server.requests] == ["mistral-medium-latest", "mistral-small-latest"]


async def test_an_answer_without_a_provider(world: World) -> None:
    asked: Json = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "CACHED"}]}
    message = await world(world.client.messages.create, **asked)
    _, streamed = await world.helper(**asked)
    assert [message.content[0].text, streamed.content[0].text] == ["Kept words."] * 2
    assert [message.model, streamed.model] == ["kept"] * 2
    assert not world.server.requests


# --- errors


@with_fault(Fault("status", status=429, headers={"retry-after": "3"}))
async def test_errors_are_the_sdks_own_and_are_not_retried(world: World) -> None:
    world.client = world.client.with_options(max_retries=5)
    limited = await world.failure()
    assert isinstance(limited, sdk.RateLimitError)
    assert (limited.type, limited.response.headers["retry-after"]) == ("rate_limit_error", "3")
    assert limited.response.headers["x-should-retry"] == "false"
    assert limited.request_id == world.ledger.records[-1].call_id
    assert limited.body["request_id"] == limited.request_id
    assert len(world.server.requests) == 1


@pytest.mark.parametrize(
    ("arguments", "name", "kind", "said"),
    [
        pytest.param({"model": "nobody/none"}, "NotFoundError", "not_found_error", "nobody", id="model"),
        pytest.param({"model": "mistral/ministral-3b-latest"}, "PermissionDeniedError", "permission_error", "", id="refused"),
        pytest.param({"extra_headers": {"x-bf-vk": "sk-bf-unknown-key"}}, "AuthenticationError", "authentication_error", "", id="key"),
        pytest.param({"messages": [{"role": "nobody", "content": "x"}]}, "BadRequestError", "invalid_request_error", "messages[0].role", id="role"),
        pytest.param({"extra_body": {"else": 1}}, "BadRequestError", "invalid_request_error", "'else'", id="member"),
        pytest.param({"extra_headers": {"anthropic-beta": "skills-2025-10-02"}}, "BadRequestError", "invalid_request_error", "'betas'", id="beta"),
    ],
)  # fmt: skip
async def test_a_refused_request(world: World, arguments: Json, name: str, kind: str, said: str) -> None:
    error = await world.failure(**arguments)
    assert (type(error).__name__, error.type) == (name, kind)
    assert said in error.api_message
    assert not world.server.requests


@pytest.mark.parametrize(
    ("server", "name", "kind"),
    [
        pytest.param((Fault("status", status=500),), "InternalServerError", "api_error", id="500"),
        pytest.param((Fault("status", status=401),), "InternalServerError", "api_error", id="our-key"),
        pytest.param((Fault("status", status=422),), "UnprocessableEntityError", "invalid_request_error", id="422"),
        pytest.param((Fault("reset"),), "InternalServerError", "api_error", id="connection"),
    ],
    indirect=["server"],
)
async def test_a_failing_provider(world: World, name: str, kind: str) -> None:
    world.client = world.client.with_options(max_retries=5)
    error = await world.failure()
    assert (type(error).__name__, error.type) == (name, kind)
    assert len(world.server.requests) <= 2  # what the Router itself tries


async def test_counting_tokens_is_refused(world: World) -> None:
    with pytest.raises(sdk.NotFoundError) as caught:
        await world(world.client.messages.count_tokens, model=MODEL, messages=HELLO)
    assert caught.value.type == "not_found_error"


@with_fault(Fault("truncate", after=2))
async def test_a_stream_that_breaks_off_raises_the_sdks_error(world: World) -> None:
    seen: list[Any] = []
    with pytest.raises(sdk.APIStatusError) as caught:
        stream = await world(world.client.messages.create, model=MODEL, max_tokens=64, messages=HELLO, stream=True)
        if world.waits:
            async for event in stream:
                seen.append(event.type)
        else:
            for event in stream:
                seen.append(event.type)
    assert (caught.value.type, "message_stop" in seen) == ("api_error", False)
    assert seen[0] == "message_start"


# --- waiting and leaving


@pytest.fixture
def slow() -> Iterator[SimulatedMistral]:
    latency = Latency(0.2, sigma=0.0, tokens_per_second=40)
    with SimulatedMistral([SimulatedKey(SECRET, latency=latency)]) as running:
        yield running


async def left(server: SimulatedMistral) -> None:
    with anyio.fail_after(5):
        while not any(request.left_after is not None for request in server.requests):
            await anyio.sleep(0.01)


async def test_a_timeout_of_the_sdk(slow: SimulatedMistral) -> None:
    async with Router([Mistral([SECRET], base_url=slow.base_url)]) as router:
        client = asynchronous(router, max_retries=0)
        with pytest.raises(sdk.APITimeoutError):
            await client.with_options(timeout=0.05).messages.create(model=MODEL, max_tokens=64, messages=HELLO)
        await left(slow)


async def test_leaving_a_stream_ends_the_call(slow: SimulatedMistral) -> None:
    ledger = Ledger()
    async with Router([Mistral([SECRET], base_url=slow.base_url)], plugins=[ledger]) as router:
        client = asynchronous(router)
        async with client.messages.stream(model=MODEL, max_tokens=64, messages=HELLO) as stream:
            async for _ in stream.text_stream:
                break
        assert [record.outcome for record in ledger.records] == ["cancelled"]
        await left(slow)


async def test_leaving_a_blocking_stream_ends_the_call(slow: SimulatedMistral) -> None:
    def read() -> str:
        client = sdk.Anthropic(api_key=VIRTUAL_KEY, base_url="http://b/anthropic", http_client=router.http_client())
        with client.messages.stream(model=MODEL, max_tokens=64, messages=HELLO) as stream:
            first: str = next(iter(stream.text_stream))
            return first

    with SyncRouter([Mistral([SECRET], base_url=slow.base_url)]) as router:
        assert await anyio.to_thread.run_sync(read)
        await left(slow)


async def test_dropping_a_stream_ends_the_call(slow: SimulatedMistral) -> None:
    async with Router([Mistral([SECRET], base_url=slow.base_url)]) as router:
        client = asynchronous(router)
        stream = await client.messages.create(model=MODEL, max_tokens=64, messages=HELLO, stream=True)
        del stream
        gc.collect()
        await left(slow)


async def test_cancelling_a_task_ends_the_call(slow: SimulatedMistral) -> None:
    ledger = Ledger()
    async with Router([Mistral([SECRET], base_url=slow.base_url)], plugins=[ledger]) as router:
        client = asynchronous(router)
        with anyio.move_on_after(0.05) as scope:
            await client.messages.create(model=MODEL, max_tokens=64, messages=HELLO)
        assert scope.cancelled_caught
        await left(slow)
        assert [record.outcome for record in ledger.records] == ["cancelled"]


# --- plugins


async def test_a_spent_budget_is_a_payment_error(server: SimulatedMistral) -> None:
    budget = BudgetPlugin(budgets=[Budget(limit="0.000000001")])
    async with Router([Mistral([SECRET], base_url=server.base_url)], plugins=[budget]) as router:
        with pytest.raises(sdk.APIStatusError) as caught:
            await asynchronous(router).messages.create(model=MODEL, max_tokens=64, messages=HELLO)
    assert (caught.value.status_code, caught.value.type) == (402, "billing_error")
    assert not server.requests


async def test_what_a_guardrail_removes_is_in_no_event(server: SimulatedMistral) -> None:
    rules = [Literals(["Bifrost"], name="names", action="redact", side="output")]
    async with Router([Mistral([SECRET], base_url=server.base_url)], plugins=[GuardrailPlugin(rules=rules)]) as router:
        client = asynchronous(router)
        asked: Json = {"model": MODEL, "max_tokens": 64, "messages": HELLO}
        message = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            events = [event async for event in stream]
            streamed = await stream.get_final_message()
    assert message.content[0].text == streamed.content[0].text
    assert message.content[0].text.startswith("The bridge is ")
    assert "Bifrost" not in message.to_json() + "".join(event.to_json() for event in events)
