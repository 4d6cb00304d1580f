"""OpenAI's own SDK on top of a Router: it must not be able to tell."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import operator
import socket
import threading
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import attrs
import pytest
from bifrost_plugins.budgets import Budget, BudgetPlugin
from bifrost_plugins.guardrails import GuardrailPlugin, Literals, Regex
from bifrost_plugins.request_log import RequestLogPlugin
from bifrost_plugins.response_cache import ResponseCachePlugin
from bifrost_plugins.virtual_keys import VirtualKeyPlugin

from bifrost_core import (
    Call,
    CallError,
    CallRecord,
    ConfigError,
    Key,
    Mistral,
    RefusedError,
    RetryPolicy,
    Router,
    SyncRouter,
    hookimpl,
)
from bifrost_core.errors import (
    BadRequestError,
    GuardrailError,
    ModelNotFoundError,
    RateLimitError,
    VirtualKeyError,
)
from bifrost_core.testing import Fault, Latency, SimulatedKey, SimulatedMistral

openai: Any = pytest.importorskip("openai", reason="the SDK of OpenAI is not installed: pip install openai")
pydantic: Any = pytest.importorskip("pydantic")

PROVIDER_KEY = "sk-canary-of-the-provider"  # no vendor's SDK may see it
QUICK = RetryPolicy(backoff=0, max_wait=0)
FLAVOUR = "httpx2" if int(openai.__version__.partition(".")[0]) >= 3 else "httpx"  # what the SDK is built on
MODEL = "mistral/mistral-small-latest"
THINKER = "mistral/magistral-small-latest"
USER = [{"role": "user", "content": "hi"}]
SAID = "one two three four five six seven eight"
VIRTUAL_KEY = "sk-bf-the-callers-own-0001"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": PARAMETERS}}
CALLS = [
    {"name": "weather", "arguments": {"city": "Rome"}, "id": "abcdefgh1"},
    {"name": "weather", "arguments": {"city": "Oslo"}, "id": "abcdefgh2"},
]

Connect: TypeAlias = Callable[..., Awaitable[Any]]


@pytest.fixture
def anyio_backend() -> str:
    """The SDK is written for asyncio."""
    return "asyncio"


class Records:
    """Remembers how calls ended."""

    def __init__(self) -> None:
        self.all: list[CallRecord] = []

    @property
    def outcomes(self) -> list[str]:
        return [record.outcome for record in self.all]

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.all.append(record)


@attrs.define(eq=False)
class Caller:
    """The SDK's client, asynchronous or blocking, behind one face.

    Attributes:
        sdk: The client itself.
        server: The provider, on loopback.
        router: The Router between them; of a blocking client the one inside its ``SyncRouter``.
        records: How calls ended.
        is_async: Which of the two.
    """

    sdk: Any
    server: SimulatedMistral
    router: Router
    records: Records
    is_async: bool

    async def call(self, path: str, /, *arguments: Any, **named: Any) -> Any:
        """Call a method by its path (``chat.completions.create``); a blocking one in another thread."""
        method = operator.attrgetter(path)(self.sdk)
        if self.is_async:
            return await method(*arguments, **named)
        return await anyio.to_thread.run_sync(lambda: method(*arguments, **named))

    async def read(self, path: str, /, *arguments: Any, **named: Any) -> list[Any]:
        """All that a stream brings, which a method returns."""
        stream = await self.call(path, *arguments, **named)
        if self.is_async:
            return [each async for each in stream]
        return await anyio.to_thread.run_sync(lambda: list(stream))

    async def within(self, path: str, look: Callable[[Any], Any], /, **named: Any) -> tuple[list[Any], Any]:
        """All that a stream brings, which a method returns as a context manager, and what ``look`` finds at its end."""
        manager = operator.attrgetter(path)(self.sdk)(**named)
        if self.is_async:
            async with manager as stream:
                return [each async for each in stream], await look(stream)

        def run() -> tuple[list[Any], Any]:
            with manager as stream:
                return list(stream), look(stream)

        return await anyio.to_thread.run_sync(run)

    async def settled(self) -> None:
        """Wait until nothing is under way any more, and see that nothing is held."""
        with anyio.fail_after(10):
            while self.router._running or not await anyio.to_thread.run_sync(self.server.wait_idle):
                await anyio.sleep(0.005)
        assert all(route.in_flight == 0 for route in self.router.health())
        assert self.router._sender.in_flight == 0


@pytest.fixture(params=["async", "blocking"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Every test runs with the asynchronous and with the blocking client."""
    return bool(request.param == "async")


@pytest.fixture
async def connect(is_async: bool) -> AsyncIterator[Callable[..., Any]]:
    """Connects the SDK to a Router: ``await connect(build, …)`` gives a ``Caller``.

    Options: faults of the provider's one key, ``plugins``, ``latency``, ``output_tokens``, ``client`` (of
    ``http_client``), and those of ``SimulatedMistral``.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def make(
            build: Callable[[Any, bool], Any],
            *faults: Fault,
            plugins: Iterable[object] = (),
            latency: Latency | float = 0.0,
            output_tokens: tuple[int, int] = (8, 64),
            client: dict[str, Any] | None = None,
            **options: Any,
        ) -> Caller:
            key = SimulatedKey(PROVIDER_KEY, id="a", faults=faults, latency=latency, output_tokens=output_tokens)
            server = await stack.enter_async_context(SimulatedMistral([key], keep_bodies=True, **options))
            records = Records()
            provider = Mistral([Key(PROVIDER_KEY, id="a")], base_url=server.base_url)
            listed = [*plugins, records]
            if is_async:
                router = await stack.enter_async_context(Router([provider], plugins=listed, retry=QUICK))
                http = await stack.enter_async_context(router.http_client(**{"flavour": FLAVOUR, **(client or {})}))
                return Caller(build(http, True), server, router, records, True)
            blocking = SyncRouter([provider], plugins=listed, retry=QUICK)
            stack.push_async_callback(anyio.to_thread.run_sync, blocking.close)
            http = stack.enter_context(blocking.http_client(**{"flavour": FLAVOUR, **(client or {})}))
            return Caller(build(http, False), server, blocking._router, records, False)

        yield make


class City(pydantic.BaseModel):  # type: ignore[misc] # Any, where the SDK is not installed
    """What is asked for as structured output."""

    name: str
    people: int


def build(http: Any, is_async: bool, **options: Any) -> Any:
    kind = openai.AsyncOpenAI if is_async else openai.OpenAI
    return kind(api_key=VIRTUAL_KEY, base_url="http://bifrost/openai", http_client=http, **options)


def law(**how: Any) -> Callable[[Any], Any]:
    return lambda _body: how


def wav() -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 8000 * 4)
    return data.getvalue()


# --- chat


async def test_an_answer_through_the_router_equals_one_straight_from_the_provider(connect: Connect) -> None:
    caller = await connect(build, answer=law(content=SAID))
    through = await caller.call("chat.completions.create", model=MODEL, messages=USER)
    base_url = f"{caller.server.base_url}/v1"
    async with openai.AsyncOpenAI(api_key=PROVIDER_KEY, base_url=base_url) as straight:
        same = await straight.chat.completions.create(model="mistral-small-latest", messages=USER)
        assert type(through) is type(same)
        told, expected = through.to_dict(), same.to_dict()
        assert told.keys() == expected.keys()
        for member in told.keys() - {"id", "created"}:
            assert told[member] == expected[member]
    assert through.choices[0].message.content == SAID
    assert through._request_id == caller.records.all[0].call_id


async def test_a_stream_is_chunks_of_the_sdks_own(connect: Connect) -> None:
    caller = await connect(build, answer=law(content=SAID))
    chunks = await caller.read("chat.completions.create", model=MODEL, messages=USER, stream=True)
    assert {type(chunk).__name__ for chunk in chunks} == {"ChatCompletionChunk"}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    with_usage = await caller.read(
        "chat.completions.create", model=MODEL, messages=USER, stream=True, stream_options={"include_usage": True}
    )
    assert [bool(chunk.usage) for chunk in with_usage] == [False] * (len(with_usage) - 1) + [True]
    assert with_usage[-1].choices == []
    await caller.settled()
    assert caller.records.outcomes == ["ok", "ok"]


async def test_the_stream_helper_assembles_the_answer(connect: Connect) -> None:
    caller = await connect(build, answer=law(content='{"name":"Rome","people":3}'))
    events, final = await caller.within(
        "chat.completions.stream",
        lambda stream: stream.get_final_completion(),
        model=MODEL,
        messages=USER,
        response_format=City,
        stream_options={"include_usage": True},
    )
    assert {event.type for event in events} == {"chunk", "content.delta", "content.done"}
    assert final.choices[0].message.parsed == City(name="Rome", people=3)
    assert final.usage.completion_tokens > 0


async def test_structured_output_is_parsed(connect: Connect) -> None:
    caller = await connect(build, answer=law(content='{"name":"Rome","people":3}'))
    reply = await caller.call("chat.completions.parse", model=MODEL, messages=USER, response_format=City)
    assert reply.choices[0].message.parsed == City(name="Rome", people=3)
    wire = json.loads(caller.server.requests[-1].body)
    assert wire["response_format"]["json_schema"]["name"] == "City"
    assert wire["response_format"]["json_schema"]["strict"] is True


async def test_parallel_tools_are_called_and_answered(connect: Connect) -> None:
    def answer(body: Any) -> Any:
        return SAID if body["messages"][-1]["role"] == "tool" else {"tool_calls": CALLS}

    caller = await connect(build, answer=answer)
    reply = await caller.call("chat.completions.create", model=MODEL, messages=USER, tools=[TOOL])
    message = reply.choices[0].message
    assert [(call.id, call.type, call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("abcdefgh1", "function", "weather", '{"city":"Rome"}'),
        ("abcdefgh2", "function", "weather", '{"city":"Oslo"}'),
    ]
    assert reply.choices[0].finish_reason == "tool_calls"
    answers = [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
    again = await caller.call("chat.completions.create", model=MODEL, messages=[*USER, message, *answers], tools=[TOOL])
    assert again.choices[0].message.content == SAID


async def test_streamed_tools_are_assembled_and_parsed(connect: Connect) -> None:
    caller = await connect(build, answer=law(tool_calls=CALLS))
    events, final = await caller.within(
        "chat.completions.stream",
        lambda stream: stream.get_final_completion(),
        model=MODEL,
        messages=USER,
        tools=[TOOL],
    )
    kinds = [event.type for event in events]
    assert kinds.count("tool_calls.function.arguments.done") == 2
    calls = final.choices[0].message.tool_calls
    assert [call.function.parsed_arguments for call in calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    parsed = await caller.call("chat.completions.parse", model=MODEL, messages=USER, tools=[TOOL])
    assert parsed.choices[0].message.tool_calls[1].function.parsed_arguments == {"city": "Oslo"}


async def test_reasoning_is_beside_the_text(connect: Connect) -> None:
    caller = await connect(build, answer=law(content="four", thinking="two and two"))
    reply = await caller.call("chat.completions.create", model=THINKER, messages=USER)
    assert reply.choices[0].message.content == "four"
    assert reply.choices[0].message.reasoning_content == "two and two"
    chunks = await caller.read("chat.completions.create", model=THINKER, messages=USER, stream=True)
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "two and two"
    assert "".join(delta.content or "" for delta in deltas) == "four"


async def test_images_sound_and_every_plain_field_reach_the_provider(connect: Connect) -> None:
    caller = await connect(build)
    parts = [
        {"type": "text", "text": "what is it"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]
    reply = await caller.call(
        "chat.completions.create",
        model=MODEL,
        messages=[{"role": "user", "content": parts}],
        n=2,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop=["END"],
        max_completion_tokens=4,
        presence_penalty=0.1,
        frequency_penalty=0.1,
        metadata={"a": "b"},
        extra_query={"trace": "1"},
    )
    assert [choice.index for choice in reply.choices] == [0, 1]
    wire = json.loads(caller.server.requests[-1].body)
    assert [part["type"] for part in wire["messages"][0]["content"]] == ["text", "image_url", "input_audio"]
    assert (wire["n"], wire["random_seed"], wire["max_tokens"], wire["metadata"]) == (2, 3, 4, {"a": "b"})


# --- Responses


async def test_responses_answer_parse_and_call(connect: Connect) -> None:
    caller = await connect(build, answer=law(content='{"name":"Rome","people":3}'))
    plain = await caller.call("responses.create", model=MODEL, input="hi")
    assert plain.output_text == '{"name":"Rome","people":3}'
    assert plain.usage.total_tokens > 0
    parsed = await caller.call("responses.parse", model=MODEL, input="hi", text_format=City)
    assert parsed.output_parsed == City(name="Rome", people=3)
    events = await caller.read("responses.create", model=MODEL, input="hi", stream=True)
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == plain.output_text


async def test_the_responses_helper_assembles_text_and_calls(connect: Connect) -> None:
    def answer(body: Any) -> Any:
        return {"tool_calls": CALLS} if body.get("tools") else '{"name":"Rome","people":3}'

    caller = await connect(build, answer=answer)
    _, final = await caller.within(
        "responses.stream", lambda stream: stream.get_final_response(), model=MODEL, input="hi", text_format=City
    )
    assert final.output_parsed == City(name="Rome", people=3)
    tool = {"type": "function", "name": "weather", "strict": True, "parameters": PARAMETERS}
    events, final = await caller.within(
        "responses.stream", lambda stream: stream.get_final_response(), model=MODEL, input="hi", tools=[tool]
    )
    assert [item.parsed_arguments for item in final.output] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert "response.function_call_arguments.done" in {event.type for event in events}
    answered = [*final.output, {"type": "function_call_output", "call_id": "abcdefgh1", "output": "sunny"}]
    answered.append({"type": "function_call_output", "call_id": "abcdefgh2", "output": "rainy"})
    again = await caller.call("responses.create", model=MODEL, input=answered)
    assert again.status == "completed"


# --- vectors, sound, verdicts, models


@pytest.mark.parametrize("form", [None, "float", "base64"])
async def test_vectors_are_numbers(connect: Connect, form: str | None) -> None:
    caller = await connect(build)
    more = {} if form is None else {"encoding_format": form}
    reply = await caller.call("embeddings.create", model="mistral/mistral-embed", input=["a", "b"], **more)
    assert json.loads(caller.server.requests[-1].body)["encoding_format"] == (form or "base64")
    assert [item.index for item in reply.data] == [0, 1]
    if form == "base64":
        assert all(isinstance(item.embedding, str) for item in reply.data)
    else:
        assert {len(item.embedding) for item in reply.data} == {1024}
        assert all(isinstance(number, float) for item in reply.data for number in item.embedding)


async def test_sound_is_written_down(connect: Connect) -> None:
    caller = await connect(build, transcript=lambda _parts: SAID)
    model, file = "mistral/voxtral-mini-latest", ("a.wav", wav())
    create = "audio.transcriptions.create"
    assert (await caller.call(create, model=model, file=file)).text == SAID
    assert (await caller.call(create, model=model, file=file, response_format="text")).strip() == SAID
    verbose = await caller.call(
        create, model=model, file=file, response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert verbose.duration == 4.0
    assert " ".join(segment.text.strip() for segment in verbose.segments) == SAID
    subtitles = await caller.call(create, model=model, file=file, response_format="srt")
    assert subtitles.startswith("1\n00:00:00,000 --> ")
    with pytest.raises(openai.BadRequestError) as caught:
        await caller.call(create, model=model, file=file, response_format="diarized_json")
    assert caught.value.param == "response_format"
    events = await caller.read(create, model=model, file=file, stream=True)
    assert [event.type for event in events][-1] == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == SAID
    assert caller.server.requests[-1].stream


async def test_speech_is_read_whole_and_in_pieces(connect: Connect) -> None:
    caller = await connect(build)
    given = {"model": "mistral/voxtral-mini-tts-latest", "input": "hello", "voice": "alloy", "response_format": "wav"}
    reply = await caller.call("audio.speech.create", **given)
    assert reply.content[:4] == b"RIFF"


async def test_a_gap_in_a_text_is_filled(connect: Connect) -> None:
    caller = await connect(build, answer=law(content=SAID))
    given = {"model": "mistral/codestral-latest", "prompt": "def", "suffix": "end"}
    assert (await caller.call("completions.create", **given)).choices[0].text == SAID
    chunks = await caller.read("completions.create", stream=True, **given)
    assert "".join(chunk.choices[0].text for chunk in chunks) == SAID


async def test_texts_are_judged(connect: Connect) -> None:
    caller = await connect(build)
    reply = await caller.call("moderations.create", model="mistral/mistral-moderation-latest", input=["a", "b"])
    assert [result.flagged for result in reply.results] == [False, False]


async def test_models_are_listed_and_found(connect: Connect) -> None:
    caller = await connect(build)
    page = await caller.call("models.list")
    assert MODEL in {model.id for model in page.data}
    assert (await caller.call("models.retrieve", MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError):
        await caller.call("models.retrieve", "mistral/no-such")


# --- ways of asking


async def test_raw_and_streaming_responses_and_options(connect: Connect) -> None:
    caller = await connect(build, answer=law(content=SAID))
    raw = await caller.call(
        "chat.completions.with_raw_response.create",
        model=MODEL,
        messages=USER,
        extra_headers={"x-bf-metadata": '{"job": "nightly"}', "x-bf-session": "s1"},
        extra_body={"fallbacks": ["mistral/mistral-medium-latest"]},
    )
    assert raw.parse().choices[0].message.content == SAID
    assert raw.headers["x-bf-provider"] == "mistral"
    assert raw.headers["x-request-id"] == raw.request_id == caller.records.all[0].call_id
    assert dict(caller.records.all[0].metadata) == {"job": "nightly"}
    assert "fallbacks" not in json.loads(caller.server.requests[-1].body)
    manager = caller.sdk.chat.completions.with_streaming_response.create(model=MODEL, messages=USER)
    if caller.is_async:
        async with manager as response:
            body = await response.json()
    else:

        def run() -> Any:
            with manager as response:
                return response.json()

        body = await anyio.to_thread.run_sync(run)
    assert body["choices"][0]["message"]["content"] == SAID


@pytest.mark.parametrize("flavour", ["httpx2", "httpx"])
async def test_either_library_of_http_carries_it(connect: Connect, flavour: str) -> None:
    pytest.importorskip(flavour)
    caller = await connect(lambda http, is_async: (http, is_async), client={"flavour": flavour})
    http, is_async = caller.sdk
    try:
        sdk = build(http, is_async)
    except TypeError:
        pytest.skip(f"this version of the SDK does not take a client of {flavour}")
    caller.sdk = sdk
    chunks = await caller.read("chat.completions.create", model=MODEL, messages=USER, stream=True)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_time_out_of_the_sdks_ends_the_call(connect: Connect) -> None:
    caller = await connect(build, Fault("hang"))
    caller.sdk = caller.sdk.with_options(timeout=0.2, max_retries=0)
    with pytest.raises(openai.APITimeoutError):
        await caller.call("chat.completions.create", model=MODEL, messages=USER)
    with pytest.raises(openai.APITimeoutError):
        await caller.call("chat.completions.create", model=MODEL, messages=USER, stream=True)
    await caller.settled()
    assert caller.records.outcomes == ["cancelled", "cancelled"]


async def test_a_blocking_client_on_the_routers_loop_elsewhere(connect: Connect, is_async: bool) -> None:
    if not is_async:
        pytest.skip("of a Router that lives in an event loop")
    caller = await connect(build, answer=law(content=SAID))
    await caller.call("chat.completions.create", model=MODEL, messages=USER)
    with caller.router.sync_http_client(flavour=FLAVOUR) as http:
        sdk = build(http, False, max_retries=0)

        def run() -> tuple[str, str]:
            plain = sdk.chat.completions.create(model=MODEL, messages=USER)
            stream = sdk.chat.completions.create(model=MODEL, messages=USER, stream=True)
            return plain.choices[0].message.content, "".join(each.choices[0].delta.content or "" for each in stream)

        assert await anyio.to_thread.run_sync(run) == (SAID, SAID)
        # Here it would block the loop that has to answer; what is no error of httpx's, some versions wrap.
        with pytest.raises((ConfigError, openai.APIConnectionError)):
            sdk.chat.completions.create(model=MODEL, messages=USER)


# --- errors


class Refuses:
    """Refuses every call with one kind of error."""

    def __init__(self, make: Callable[[], CallError]) -> None:
        self.make = make

    @hookimpl
    def bifrost_authorize(self, call: Call) -> None:  # a gate
        raise self.make()


@pytest.mark.parametrize(
    ("make", "name", "status", "code"),
    [
        pytest.param(lambda: BadRequestError("x"), "BadRequestError", 400, "invalid_request", id="400"),
        pytest.param(lambda: VirtualKeyError("x"), "AuthenticationError", 401, "unauthenticated", id="401"),
        pytest.param(lambda: RefusedError("x"), "PermissionDeniedError", 403, "refused", id="403"),
        pytest.param(lambda: ModelNotFoundError("x"), "NotFoundError", 404, "model_not_found", id="404"),
        pytest.param(
            lambda: BadRequestError("x", kind="conflict", status=409), "ConflictError", 409, "conflict", id="409"
        ),
        pytest.param(
            lambda: BadRequestError("x", status=422), "UnprocessableEntityError", 422, "invalid_request", id="422"
        ),
        pytest.param(lambda: RateLimitError("x", retry_after=7), "RateLimitError", 429, "rate_exceeded", id="429"),
        pytest.param(lambda: GuardrailError("x"), "APIStatusError", 446, "guardrail_blocked", id="446"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_the_sdk_raises_its_own_exceptions(
    connect: Connect, make: Callable[[], CallError], name: str, status: int, code: str, stream: bool
) -> None:
    caller = await connect(build, plugins=[Refuses(make)])
    with pytest.raises(openai.APIStatusError) as caught:
        await caller.call("chat.completions.create", model=MODEL, messages=USER, stream=stream)
    error = caught.value
    assert type(error) is getattr(openai, name)
    assert (error.status_code, error.code, error.request_id) == (status, code, caller.records.all[0].call_id)
    assert error.body["message"] == "x"
    assert error.response.headers.get("retry-after") == ("7" if status == 429 else None)
    assert len(caller.records.all) == 1  # the SDK has not tried again


@pytest.mark.parametrize(
    ("fault", "name", "status"),
    [
        pytest.param(Fault("status", status=400), "BadRequestError", 400, id="the caller's mistake"),
        pytest.param(Fault("status", status=401), "InternalServerError", 502, id="our key"),
        pytest.param(Fault("status", status=429), "RateLimitError", 429, id="their limit"),
        pytest.param(Fault("status", status=500), "InternalServerError", 502, id="their fault"),
        pytest.param(Fault("reset"), "InternalServerError", 502, id="connection lost"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_the_sdks_own_retries_do_not_multiply_ours(
    connect: Connect, fault: Fault, name: str, status: int, stream: bool
) -> None:
    caller = await connect(lambda http, is_async: build(http, is_async, max_retries=5), fault)
    with pytest.raises(openai.APIStatusError) as caught:
        await caller.call("chat.completions.create", model=MODEL, messages=USER, stream=stream)
    assert (type(caught.value).__name__, caught.value.status_code) == (name, status)
    assert len(caller.records.all) == 1
    assert len(caller.server.requests) == len(caller.records.all[0].attempts) <= 2
    assert "canary" not in str(caught.value) + str(caught.value.response.headers) + str(caught.value.body)


@pytest.mark.parametrize(
    ("path", "given"),
    [
        pytest.param("chat.completions.create", {"messages": USER}, id="chat"),
        pytest.param("responses.create", {"input": "hi"}, id="responses"),
    ],
)
async def test_an_error_in_mid_stream_is_raised_by_the_iterator(
    connect: Connect, path: str, given: dict[str, Any]
) -> None:
    caller = await connect(build, Fault("error_event", after=4), answer=law(content=" ".join([SAID] * 4)))
    with pytest.raises(openai.APIError) as caught:
        await caller.read(path, model=MODEL, stream=True, **given)
    assert caught.value.code == "stream_error"
    assert not isinstance(caught.value, openai.APIStatusError)
    await caller.settled()
    assert caller.records.outcomes == ["failed"]


async def test_a_transcription_that_breaks_off_is_raised_by_the_iterator(connect: Connect) -> None:
    caller = await connect(build, Fault("error_event", after=2), transcript=lambda _parts: SAID)
    with pytest.raises(openai.APIError):
        await caller.read(
            "audio.transcriptions.create", model="mistral/voxtral-mini-latest", file=("a.wav", wav()), stream=True
        )


# --- ending early

SLOW = Latency(0.01, tokens_per_second=40)


async def test_closing_a_stream_early_ends_the_call(connect: Connect) -> None:
    caller = await connect(build, latency=SLOW, answer=law(content=" ".join([SAID] * 100)))
    stream = await caller.call("chat.completions.create", model=MODEL, messages=USER, stream=True)
    if caller.is_async:
        await anext(aiter(stream))
        await stream.close()
    else:
        await anyio.to_thread.run_sync(next, iter(stream))
        await anyio.to_thread.run_sync(stream.close)
    await caller.settled()
    assert caller.records.outcomes == ["cancelled"]
    assert caller.server.requests[0].left_after is not None


async def test_leaving_the_loop_over_a_stream_ends_the_call(connect: Connect, is_async: bool) -> None:
    if not is_async:
        pytest.skip("a blocking stream is left as a file is: by closing it, or by dropping it")
    caller = await connect(build, latency=SLOW, answer=law(content=" ".join([SAID] * 100)))
    async with await caller.call("chat.completions.create", model=MODEL, messages=USER, stream=True) as stream:
        async for _ in stream:
            break
    await caller.settled()
    assert caller.records.outcomes == ["cancelled"]


async def test_dropping_a_stream_ends_the_call(connect: Connect) -> None:
    caller = await connect(build, latency=SLOW, answer=law(content=" ".join([SAID] * 100)))
    await caller.call("chat.completions.create", model=MODEL, messages=USER, stream=True)
    await anyio.to_thread.run_sync(gc.collect)  # the thread of a blocking client held the last reference until now
    await caller.settled()
    assert caller.records.outcomes == ["cancelled"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_cancelling_a_task_leaves_nothing_behind(connect: Connect, is_async: bool, stream: bool) -> None:
    if not is_async:
        pytest.skip("threads are not cancelled")
    import asyncio  # noqa: PLC0415, TID251 # native cancellation is what is tested

    caller = await connect(build, latency=SLOW, answer=law(content=" ".join([SAID] * 100)))
    began = anyio.Event()

    async def ask() -> None:
        if not stream:
            began.set()
            await caller.call("chat.completions.create", model=MODEL, messages=USER)
            return
        chunks = await caller.call("chat.completions.create", model=MODEL, messages=USER, stream=True)
        async for _ in chunks:
            began.set()

    task = asyncio.create_task(ask())
    with anyio.fail_after(10):
        await began.wait()
        while not caller.server.counters["a"].in_flight:
            await anyio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await caller.settled()
    assert caller.records.outcomes == ["cancelled"]
    caller.server.reset()
    assert (await caller.call("models.list")).data  # and the Router goes on


# --- every piece when it comes


class Gated:
    """A provider on loopback that sends each event of a stream only once it is told to."""

    def __init__(self, count: int) -> None:
        self.gates = [threading.Event() for _ in range(count)]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener:
            try:
                peer, _ = self._listener.accept()
            except TimeoutError:  # nobody came
                return
        with peer:
            while b'"stream":true' not in peer.recv(65536):
                continue
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            for number, gate in enumerate(self.gates):
                if not gate.wait(10):
                    return
                last = number == len(self.gates) - 1
                choice = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": "stop" if last else None}
                event: dict[str, Any] = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
                event["choices"] = [choice]
                if last:
                    event["usage"] = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                peer.sendall(b"data: " + json.dumps(event).encode() + b"\n\n" + b"data: [DONE]\n\n" * last)

    def close(self) -> None:
        for gate in self.gates:
            gate.set()
        self._thread.join()


@pytest.fixture
def gated() -> Iterator[Gated]:
    made = Gated(5)
    yield made
    made.close()


async def test_each_chunk_reaches_the_reader_before_the_next_is_sent(gated: Gated) -> None:
    """The provider waits for a sign of the reader, and the reader for the provider: held back, neither would go on."""
    order: list[str] = []
    async with Router([Mistral([Key("sk-of-the-gated", id="a")], base_url=gated.base_url)]) as router:
        gated.gates[0].set()
        with anyio.fail_after(30):
            sdk = build(router.http_client(flavour=FLAVOUR), True)
            stream = await sdk.chat.completions.create(model=MODEL, messages=USER, stream=True)
            async for chunk in stream:
                order.append(chunk.choices[0].delta.content.strip())
                if len(order) < len(gated.gates):
                    gated.gates[len(order)].set()
    assert order == ["0", "1", "2", "3", "4"]


async def test_each_chunk_reaches_a_blocking_reader_before_the_next_is_sent(gated: Gated) -> None:
    def read() -> list[str]:
        order: list[str] = []
        with SyncRouter([Mistral([Key("sk-of-the-gated", id="a")], base_url=gated.base_url)]) as router:
            gated.gates[0].set()
            sdk = build(router.http_client(flavour=FLAVOUR), False)
            for chunk in sdk.chat.completions.create(model=MODEL, messages=USER, stream=True):
                order.append(chunk.choices[0].delta.content.strip())
                if len(order) < len(gated.gates):
                    gated.gates[len(order)].set()
        return order

    assert await anyio.to_thread.run_sync(read) == ["0", "1", "2", "3", "4"]


# --- plugins


async def test_the_sdks_key_is_a_virtual_key_and_no_provider_sees_it(connect: Connect) -> None:
    seen: list[Any] = []

    class Sees:
        @hookimpl
        def bifrost_authenticate(self, call: Call) -> None:
            seen.append(None if call.virtual_key is None else call.virtual_key.reveal())

    caller = await connect(build, plugins=[Sees()])
    await caller.call("chat.completions.create", model=MODEL, messages=USER)
    caller.sdk = caller.sdk.with_options(api_key="sk-proj-a-key-of-openais")
    await caller.call("chat.completions.create", model=MODEL, messages=USER)
    assert seen == [VIRTUAL_KEY, None]
    for served in caller.server.requests:
        assert served.key_id == "a"  # it came with the provider's own key
        assert VIRTUAL_KEY.encode() not in served.body


async def test_virtual_keys_are_checked(connect: Connect) -> None:
    plugin = VirtualKeyPlugin()
    issued = await plugin.issue("mine", models=["mistral/mistral-small-latest"])
    caller = await connect(build, plugins=[plugin])
    with pytest.raises(openai.AuthenticationError):
        await caller.call("chat.completions.create", model=MODEL, messages=USER)
    caller.sdk = caller.sdk.with_options(api_key=issued.secret.reveal())
    await caller.call("chat.completions.create", model=MODEL, messages=USER)
    with pytest.raises(openai.PermissionDeniedError):
        await caller.call("chat.completions.create", model=THINKER, messages=USER)
    assert len(caller.server.requests) == 1


async def test_budgets_hold(connect: Connect) -> None:
    caller = await connect(build, plugins=[BudgetPlugin(budgets=[Budget("0.0001")], max_output=64)])

    async def spend() -> None:
        for _ in range(200):
            await caller.call("chat.completions.create", model=MODEL, messages=USER, max_tokens=64)

    with pytest.raises(openai.APIStatusError) as caught:
        await spend()
    assert (caught.value.status_code, caught.value.code) == (402, "budget_exceeded")
    assert caller.server.requests


async def test_answers_are_cached(connect: Connect) -> None:
    caller = await connect(build, plugins=[ResponseCachePlugin(ttl=600)])
    first = await caller.call("chat.completions.create", model=MODEL, messages=USER)
    again = await caller.call("chat.completions.with_raw_response.create", model=MODEL, messages=USER)
    chunks = await caller.read("chat.completions.create", model=MODEL, messages=USER, stream=True)
    assert len(caller.server.requests) == 1
    assert again.headers["x-bf-cached"] == "true"
    assert again.parse() == first
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == first.choices[0].message.content


async def test_guardrails_block_and_redact(connect: Connect) -> None:
    rules = [Literals(["forbidden"], side="input"), Regex("secret-[0-9]{2}", side="output", action="redact")]
    caller = await connect(build, plugins=[GuardrailPlugin(rules)], answer=law(content="it is secret-42, yes"))
    with pytest.raises(openai.APIStatusError) as caught:
        await caller.call(
            "chat.completions.create", model=MODEL, messages=[{"role": "user", "content": "the forbidden word"}]
        )
    assert (caught.value.status_code, caught.value.code) == (446, "guardrail_blocked")
    reply = await caller.call("chat.completions.create", model=MODEL, messages=USER)
    chunks = await caller.read("chat.completions.create", model=MODEL, messages=USER, stream=True)
    told = reply.to_json() + "".join(chunk.to_json() for chunk in chunks)
    assert "yes" in told
    assert "42" not in told


async def test_calls_are_logged(connect: Connect) -> None:
    events: list[Any] = []
    log = RequestLogPlugin(events.append)
    caller = await connect(build, plugins=[log])
    await caller.call("chat.completions.create", model=MODEL, messages=USER)
    await caller.read("responses.create", model=MODEL, input="hi", stream=True)
    with anyio.fail_after(10):
        while len(events) < 2:
            await anyio.sleep(0.005)
    assert [(event["operation"], event["outcome"], event["model"]) for event in events] == [
        ("chat", "ok", MODEL),
        ("responses", "ok", MODEL),
    ]
