"""The SDK ``mistralai`` through the Router: what it gives is what it gives straight, and its errors are its own."""

from __future__ import annotations

import http.server
import json
import operator
import threading
from collections.abc import Iterator
from typing import Any, TypeAlias

import anyio
import attrs
import pytest

from bifrost_core import (
    Anthropic,
    Call,
    ChatResponse,
    Choice,
    ConfigError,
    EmbeddingResponse,
    Mistral,
    ModerationResponse,
    OcrResponse,
    Request,
    Response,
    Router,
    SyncRouter,
    ToolCall,
    Transcription,
    Usage,
    hookimpl,
    sdks,
)
from bifrost_core.responses import ModerationResult, OcrPage, Segment
from bifrost_core.testing import Fault, SimulatedAnthropic, SimulatedMistral

sdk = pytest.importorskip("mistralai.client")
errors = pytest.importorskip("mistralai.client.errors")
httpx2 = pytest.importorskip("httpx2")
pydantic = pytest.importorskip("pydantic")

Json: TypeAlias = dict[str, Any]
World: TypeAlias = Any

MODEL = "mistral/mistral-small-latest"
HELLO: list[Json] = [{"role": "user", "content": "Name the bridge."}]
WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@attrs.frozen(eq=False)
class Caller:
    """The SDK's methods by their plain names, awaited or not."""

    client: Any
    waits: bool

    async def __call__(self, name: str, **arguments: Any) -> Any:
        if self.waits:
            return await operator.attrgetter(f"{name}_async")(self.client)(**arguments)
        return operator.attrgetter(name)(self.client)(**arguments)

    async def events(self, name: str, **arguments: Any) -> list[Any]:
        stream = await self(name, **arguments)
        return [event.data async for event in stream] if self.waits else [event.data for event in stream]


@pytest.fixture(params=["asynchronous", "blocking"])
def mistral(request: pytest.FixtureRequest, world: World) -> Caller:
    waits = request.param == "asynchronous"
    router = world.router if waits else world.blocking
    return Caller(sdks.mistral(router, virtual_key=world.virtual_key), waits)


def plain(value: Any) -> Json:
    """An SDK's object as JSON, without what it has not been told."""
    dumped: Json = value.model_dump(mode="json", by_alias=True)
    return dumped


# -- plain answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "arguments"),
    [
        pytest.param("chat.complete", "ChatCompletionResponse", {"model": MODEL, "messages": HELLO}, id="chat"),
        pytest.param(
            "chat.complete", "ChatCompletionResponse", {"model": MODEL, "messages": HELLO, "n": 2}, id="choices"
        ),
        pytest.param(
            "chat.complete",
            "ChatCompletionResponse",
            {"model": MODEL, "messages": HELLO, "tools": [WEATHER]},
            id="tools",
        ),
        pytest.param(
            "fim.complete",
            "FIMCompletionResponse",
            {"model": "mistral/codestral-latest", "prompt": "def add(", "suffix": "return a + b"},
            id="fim",
        ),
        pytest.param(
            "embeddings.create",
            "EmbeddingResponse",
            {"model": "mistral/mistral-embed", "inputs": ["red", "green"]},
            id="embeddings",
        ),
        pytest.param(
            "classifiers.moderate",
            "ModerationResponse",
            {"model": "mistral/mistral-moderation-latest", "inputs": ["a line", "violence"]},
            id="moderation",
        ),
        pytest.param(
            "classifiers.moderate_chat",
            "ModerationResponse",
            {"model": "mistral/mistral-moderation-latest", "inputs": HELLO},
            id="moderation-of-a-chat",
        ),
        pytest.param(
            "classifiers.classify",
            "ClassificationResponse",
            {"model": "mistral/mistral-moderation-latest", "inputs": ["a line"]},
            id="classification",
        ),
        pytest.param(
            "classifiers.classify_chat",
            "ClassificationResponse",
            {"model": "mistral/mistral-moderation-latest", "input": [{"messages": HELLO}]},
            id="classification-of-a-chat",
        ),
        pytest.param(
            "ocr.process",
            "OCRResponse",
            {
                "model": "mistral/mistral-ocr-latest",
                "document": {"type": "document_url", "document_url": "https://example.com/saga.pdf"},
                "pages": [0],
            },
            id="ocr",
        ),
        pytest.param(
            "audio.transcriptions.complete",
            "TranscriptionResponse",
            {
                "model": "mistral/voxtral-mini-latest",
                "file": {"file_name": "talk.wav", "content": b"RIFF" * 8_000},
                "timestamp_granularities": ["segment"],
                "context_bias": ["Bifrost", "Heimdall"],
                "temperature": 0.1,
                "diarize": True,
            },
            id="transcription-of-a-file",
        ),
        pytest.param(
            "audio.transcriptions.complete",
            "TranscriptionResponse",
            {"model": "mistral/voxtral-mini-latest", "file_url": "https://example.com/talk.mp3", "language": "en"},
            id="transcription-of-an-address",
        ),
        pytest.param(
            "audio.speech.complete",
            "SpeechResponse",
            {"model": "mistral/voxtral-mini-tts-latest", "input": "Good evening.", "voice_id": "any"},
            id="speech",
        ),
    ],
)
async def test_an_answer_is_the_providers_own(
    mistral: Caller, world: World, name: str, kind: str, arguments: Json
) -> None:
    reply = await mistral(name, **arguments)
    assert reply == getattr(sdk.models, kind).model_validate(world.raw)
    assert world.ledger.records[-1].principal.virtual_key_id == "vk_tests"
    (request,) = world.server.requests
    assert request.model == arguments["model"].partition("/")[2]


async def test_the_parts_of_a_form_reach_the_provider(mistral: Caller, world: World) -> None:
    await mistral(
        "audio.transcriptions.complete",
        model="mistral/voxtral-mini-latest",
        file={"file_name": "talk.wav", "content": b"RIFF" * 100},
        context_bias=["Bifrost", "Heimdall"],
        timestamp_granularities=["segment"],
        diarize=True,
    )
    (request,) = world.server.requests
    assert sorted((part.name, part.filename, part.size) for part in request.parts) == [
        ("context_bias", None, len("Bifrost")),
        ("context_bias", None, len("Heimdall")),
        ("diarize", None, len("true")),
        ("file", "talk.wav", 400),
        ("model", None, len("voxtral-mini-latest")),
        ("timestamp_granularities", None, len("segment")),
    ]


async def test_a_file_that_was_uploaded_is_named_by_its_id(mistral: Caller, world: World) -> None:
    with pytest.raises(errors.SDKError) as caught:  # the simulated service holds no such file
        await mistral(
            "audio.transcriptions.complete",
            model="mistral/voxtral-mini-latest",
            file_id="0f1e2d3c-0000-4000-8000-000000000000",
        )
    assert caught.value.status_code in {400, 404}
    (request,) = world.server.requests
    assert {part.name for part in request.parts} == {"model", "file_id", "diarize"}


async def test_structured_output_is_an_instance_of_the_class(mistral: Caller) -> None:
    city = pydantic.create_model("City", city=(str, ...), degrees=(int, ...))
    reply = await mistral("chat.parse", model=MODEL, messages=HELLO, response_format=city)
    assert reply.choices[0].message.parsed == city(city="Oslo", degrees=7)


async def test_a_tool_is_called_and_its_result_answered(mistral: Caller) -> None:
    first = await mistral("chat.complete", model=MODEL, messages=HELLO, tools=[WEATHER])
    (call,) = first.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    told = {"role": "tool", "name": "weather", "content": "7", "tool_call_id": call.id}
    messages = [*HELLO, first.choices[0].message, told]
    second = await mistral("chat.complete", model=MODEL, messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == "It is 7 degrees in Oslo."


async def test_responses_are_in_openais_shape(mistral: Caller) -> None:
    reply = await mistral("responses.create", model=MODEL, input="Name the bridge.")
    assert [part.text for item in reply.output for part in item.content] == ["The bridge is Bifrost."]
    events = await mistral.events("responses.create", model=MODEL, input="Name the bridge.", stream=True)
    assert [event.type for event in events][-1] == "response.completed"
    with pytest.raises(errors.SDKError) as caught:
        await mistral("responses.create", model="mistral/nothing", input="x")
    assert json.loads(caught.value.body)["type"] == "invalid_model"


async def test_all_models_can_be_listed_and_each_asked_for(mistral: Caller) -> None:
    listed = (await mistral("models.list")).data
    one = next(model for model in listed if model.id == MODEL)
    assert one == await mistral("models.retrieve", model_id=MODEL)
    assert one == await mistral("models.retrieve", model_id="mistral-small-latest")
    assert "mistral/mistral-small-2603" in one.aliases
    assert {model.id.partition("/")[0] for model in listed} == {"mistral"}


# -- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("chat.stream", {"messages": HELLO}, id="chat"),
        pytest.param("chat.stream", {"messages": HELLO, "tools": [WEATHER]}, id="tools"),
        pytest.param("fim.stream", {"model": "codestral-latest", "prompt": "def add("}, id="fim"),
        pytest.param(
            "audio.transcriptions.stream",
            {"model": "voxtral-mini-latest", "file": {"file_name": "talk.wav", "content": b"RIFF" * 8_000}},
            id="transcription",
        ),
    ],
)
async def test_events_are_the_providers_own(
    mistral: Caller, world: World, name: str, arguments: Json, server: SimulatedMistral
) -> None:
    arguments = {"model": "mistral-small-latest", **arguments}
    straight = Caller(sdk.Mistral(api_key="sk-simulated-0123456789", server_url=server.base_url), waits=False)
    expected = [plain(event) for event in await straight.events(name, **arguments)]
    server.reset()
    events = [
        plain(event) for event in await mistral.events(name, **arguments | {"model": f"mistral/{arguments['model']}"})
    ]
    for event in [*expected, *events]:  # times, and the size of the request, which was written anew
        event.pop("created", None)
        event.pop("usage", None)
    assert len(events) > 1
    assert events == expected


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        pytest.param({"temperature": 9}, ["body"], id="found-by-the-provider"),
        pytest.param({"messages": []}, ["body", "messages"], id="no-message"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "extra": "audio"},
            ["body", "audio"],
            id="found-here",
        ),
    ],
)
@pytest.mark.parametrize("name", ["chat.complete", "chat.stream"])
async def test_what_is_wrong_with_a_request_is_a_validation_error(
    mistral: Caller, name: str, changes: Json, where: list[str]
) -> None:
    arguments: Json = {"model": MODEL, "messages": HELLO, **changes}
    if extra := arguments.pop("extra", None):
        client = mistral.client.sdk_configuration.async_client if mistral.waits else None
        client = client or mistral.client.sdk_configuration.client
        sent = client.post("http://bifrost.invalid/mistral/v1/chat/completions", json={**arguments, extra: {}})
        reply = await sent if mistral.waits else sent
        assert (reply.status_code, reply.json()["detail"][0]["loc"]) == (422, where)
        return
    with pytest.raises(errors.HTTPValidationError) as caught:
        await mistral(name, **arguments)
    (found,) = caught.value.data.detail
    assert (caught.value.status_code, found.loc) == (422, where)


@pytest.mark.parametrize(
    ("fault", "status", "kind", "code"),
    [
        pytest.param(Fault("status", status=429), 429, "rate_limited", "1300", id="rate-limited"),
        pytest.param(Fault("status", status=500), 502, "server_error", "1000", id="server-error"),
        pytest.param(Fault("status", status=401), 502, "auth", "unauthorized", id="our-key-is-refused"),
        pytest.param(Fault("html"), 502, "bad_response", None, id="no-json"),
    ],
)
@pytest.mark.parametrize("name", ["chat.complete", "chat.stream"])
async def test_a_failure_of_the_provider_is_the_sdks_error(
    mistral: Caller, world: World, name: str, fault: Fault, status: int, kind: str, code: str | None
) -> None:
    world.server.fail("key-1", fault)
    with pytest.raises(errors.SDKError) as caught:
        await mistral(name, model=MODEL, messages=HELLO)
    body = json.loads(caught.value.body)
    record = world.ledger.records[-1]
    assert body == {
        "object": "error",
        "message": record.error.message,
        "type": kind,
        "param": None,
        "code": code,
        "raw_status_code": status,
    }
    assert caught.value.status_code == status
    assert caught.value.headers["x-bf-call-id"] == record.call_id
    assert len(world.server.requests) == 1  # neither asks again


async def test_an_unknown_model_is_told_with_mistrals_code(mistral: Caller) -> None:
    with pytest.raises(errors.SDKError) as caught:
        await mistral("chat.complete", model="mistral/nothing", messages=HELLO)
    body = json.loads(caught.value.body)
    assert (body["type"], body["code"], body["raw_status_code"]) == ("invalid_model", "1500", 404)
    with pytest.raises(errors.SDKError) as caught:
        await mistral("models.retrieve", model_id="mistral/nothing")
    assert caught.value.status_code == 404


async def test_nobody_gets_through_without_a_virtual_key(world: World) -> None:
    client = sdks.mistral(world.router)
    with pytest.raises(errors.SDKError) as caught:
        await client.chat.complete_async(model=MODEL, messages=HELLO)
    assert caught.value.status_code == 401
    told = sdks.mistral(world.router, api_key=world.virtual_key)
    assert (await told.chat.complete_async(model=MODEL, messages=HELLO)).choices[0].message.content
    assert "authorization" not in str(world.ledger.records[-1])


@pytest.mark.parametrize("name", ["chat.stream", "audio.transcriptions.stream"])
async def test_a_stream_that_breaks_off_raises(mistral: Caller, world: World, name: str) -> None:
    arguments: Json = {"model": MODEL, "messages": HELLO}
    if name == "audio.transcriptions.stream":
        arguments = {"model": "mistral/voxtral-mini-latest", "file_url": "https://example.com/talk.mp3"}
    world.server.fail("key-1", Fault("close", after=3))
    with pytest.raises(errors.ResponseValidationError) as caught:
        await mistral.events(name, **arguments)
    told = json.loads(caught.value.body)["data"]
    assert (told["object"], told["type"], told["raw_status_code"]) == ("error", "stream_truncated", 502)


async def test_a_stream_that_is_not_read_by_events_breaks_after_the_error(world: World) -> None:
    world.server.fail("key-1", Fault("close", after=3))
    client = world.router.http_client(virtual_key=world.virtual_key, flavour="httpx2")
    body = {"model": MODEL, "messages": HELLO, "stream": True}
    lines: list[str] = []
    with pytest.raises(httpx2.RemoteProtocolError):
        async with client.stream("POST", "/mistral/v1/chat/completions", json=body) as reply:
            async for line in reply.aiter_lines():
                lines.append(line)
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert [event["object"] for event in told] == [*["chat.completion.chunk"] * (len(told) - 1), "error"]


async def test_what_the_dialect_has_not_is_not_found(world: World) -> None:
    client = sdks.mistral(world.router, virtual_key=world.virtual_key)
    with pytest.raises(errors.SDKError) as caught:
        await client.files.list_async()
    assert caught.value.status_code == 404


# -- answers that no Mistral has written -----------------------------------------------------------------------------


class Answering:
    """Answers in place of a provider, with what another vendor would have said."""

    def __init__(self, *answers: Response) -> None:
        self._answers = iter(answers)

    @hookimpl
    def bifrost_cached_response(self, request: Request, call: Call) -> Response:
        return next(self._answers)


@attrs.frozen(eq=False)
class Other:
    """An SDK whose Router gives prepared answers."""

    server: SimulatedMistral

    async def __call__(self, answer: Response, name: str, **arguments: Any) -> Any:
        providers = [Mistral(["sk-simulated-0123456789"], base_url=self.server.base_url)]
        async with Router(providers, plugins=[Answering(answer)]) as router:
            caller = Caller(sdks.mistral(router), waits=True)
            if name.endswith(".stream"):
                return await caller.events(name, **arguments)
            return await caller(name, **arguments)


THOUGHT = ChatResponse(
    model="claude",
    choices=(
        Choice(
            text="Bifrost.",
            reasoning="Norse.",
            finish_reason="tool_calls",
            tool_calls=(ToolCall("toolu_1", "weather", '{"city":"Oslo"}'),),
            message={
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Norse.", "signature": "c2VhbA=="},
                    {"type": "text", "text": "Bifrost."},
                ],
            },
        ),
    ),
    usage=Usage(input_tokens=11, output_tokens=5, cached_tokens=2),
    raw={"id": "msg_1", "type": "message", "content": []},
)


async def test_another_vendors_answer_is_told_in_mistrals_shape(server: SimulatedMistral) -> None:
    reply = plain(await Other(server)(THOUGHT, "chat.complete", model=MODEL, messages=HELLO))
    usage = reply.pop("usage")
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (11, 5, 16)
    assert reply == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 0,
        "model": "claude",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "prefix": False,
                    "content": [
                        {
                            "type": "thinking",
                            "thinking": [{"type": "text", "text": "Norse."}],
                            "signature": "c2VhbA==",
                        },
                        {"type": "text", "text": "Bifrost."},
                    ],
                    "tool_calls": [
                        {
                            "id": "toolu_1",
                            "type": "function",
                            "index": 0,
                            "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
                        }
                    ],
                },
            }
        ],
    }


async def test_another_vendors_stream_is_told_in_mistrals_shape(server: SimulatedMistral) -> None:
    events = await Other(server)(THOUGHT, "chat.stream", model=MODEL, messages=HELLO)
    *said, last = (event.choices[0] for event in events)
    assert events[-1].usage.total_tokens == 16
    assert (last.finish_reason, last.delta.content, last.index) == ("tool_calls", "", 0)
    assert [choice.finish_reason for choice in said] == [None] * len(said)
    assert {event.id for event in events} == {"msg_1"}
    (call,) = [call for choice in said for call in choice.delta.tool_calls or ()]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Oslo"}')


@pytest.mark.parametrize(
    ("answer", "name", "arguments", "expected"),
    [
        pytest.param(
            EmbeddingResponse(model="e", embeddings=[[0.5, 0.25]], usage=Usage(input_tokens=2), raw={"object": "list"}),
            "embeddings.create",
            {"inputs": ["red"]},
            {"object": "list", "model": "e", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]},
            id="embeddings",
        ),
        pytest.param(
            ModerationResponse(model="m", results=[ModerationResult(categories={"hate": True}, scores={"hate": 0.75})]),
            "classifiers.moderate",
            {"inputs": ["a line"]},
            {"model": "m", "results": [{"categories": {"hate": True}, "category_scores": {"hate": 0.75}}]},
            id="moderation",
        ),
        pytest.param(
            OcrResponse(model="o", pages=[OcrPage(index=0, markdown="# Saga")], usage=Usage(pages=1)),
            "ocr.process",
            {"document": {"type": "document_url", "document_url": "https://example.com/saga.pdf"}},
            {
                "model": "o",
                "pages": [{"index": 0, "markdown": "# Saga", "images": [], "tables": [], "dimensions": None}],
                "document_annotation": None,
                "usage_info": {"pages_processed": 1, "doc_size_bytes": None},
            },
            id="ocr",
        ),
        pytest.param(
            Transcription(model="w", text="Hello", segments=[Segment(text="Hello", start=0.0, end=1.5)]),
            "audio.transcriptions.complete",
            {"file_url": "https://example.com/talk.mp3"},
            {
                "model": "w",
                "text": "Hello",
                "language": None,
                "segments": [
                    {"type": "transcription_segment", "text": "Hello", "start": 0.0, "end": 1.5, "speaker_id": None}
                ],
            },
            id="transcription",
        ),
    ],
)
async def test_another_vendors_answer_fits_the_sdks_types(
    server: SimulatedMistral, answer: Response, name: str, arguments: Json, expected: Json
) -> None:
    reply = plain(await Other(server)(answer, name, model=MODEL, **arguments))
    assert {member: value for member, value in reply.items() if member in expected} == expected


async def test_another_vendors_transcription_streams(server: SimulatedMistral) -> None:
    answer = Transcription(model="w", text="Hello", usage=Usage(audio_seconds=2.0))
    delta, done = await Other(server)(
        answer, "audio.transcriptions.stream", model=MODEL, file_url="https://example.com/talk.mp3"
    )
    assert (delta.type, delta.text) == ("transcription.text.delta", "Hello")
    assert (done.type, done.text, done.usage.prompt_audio_seconds) == ("transcription.done", "Hello", 2)


async def test_a_model_of_anthropic_answers_calls_tools_and_streams() -> None:
    def answer(body: Json) -> Json | str:
        told = body["messages"][-1]["content"]
        if body.get("tools") and isinstance(told, str):
            return {"content": "Let me see.", "tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}
        return "The bridge is Bifrost."

    model = "anthropic/claude-haiku-4-5"
    secret = "sk-ant-simulated-0123456789"
    with SimulatedAnthropic([secret], answer=answer) as anthropic:
        async with Router([Anthropic([secret], base_url=anthropic.base_url)]) as router:
            mistral = Caller(sdks.mistral(router), waits=True)
            reply = await mistral("chat.complete", model=model, messages=HELLO, max_tokens=64)
            assert reply.choices[0].message.content == "The bridge is Bifrost."
            assert reply.created > 0
            events = await mistral.events("chat.stream", model=model, messages=HELLO, max_tokens=64)
            assert "".join(event.choices[0].delta.content for event in events) == "The bridge is Bifrost."
            assert events[-1].usage.total_tokens == events[-1].usage.prompt_tokens + events[-1].usage.completion_tokens
            asked: Json = {"model": model, "max_tokens": 64, "tools": [WEATHER]}
            events = await mistral.events("chat.stream", messages=HELLO, **asked)
            (streamed,) = [call for event in events for call in event.choices[0].delta.tool_calls or ()]
            assert json.loads(streamed.function.arguments) == {"city": "Oslo"}
            first = (await mistral("chat.complete", messages=HELLO, **asked)).choices[0]
            assert (first.finish_reason, first.message.content) == ("tool_calls", "Let me see.")
            told = {"role": "tool", "name": "weather", "content": "7", "tool_call_id": first.message.tool_calls[0].id}
            second = await mistral("chat.complete", messages=[*HELLO, first.message, told], **asked)
            assert second.choices[0].message.content == "The bridge is Bifrost."
            with pytest.raises(errors.HTTPValidationError) as caught:
                await mistral("chat.complete", messages=HELLO, safe_prompt=True, **asked)
            assert caught.value.data.detail[0].loc == ["body", "safe_prompt"]


async def test_an_answer_of_another_kind_is_the_plugins_fault(server: SimulatedMistral) -> None:
    with pytest.raises(errors.SDKError) as caught:
        await Other(server)(Transcription(text="x"), "chat.complete", model=MODEL, messages=HELLO)
    assert (caught.value.status_code, json.loads(caught.value.body)["type"]) == (503, "plugin_error")


# -- when pieces come ------------------------------------------------------------------------------------------------

EVENT = (
    'data: {"id":"0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1,"model":"m",'
    '"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":%s}]%s}\n\n'
)
USAGE = ',"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'


class Held(http.server.BaseHTTPRequestHandler):
    """Sends one event, and the others only when somebody has read the first."""

    protocol_version = "HTTP/1.1"
    read = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._piece(EVENT % ("one", "null", ""))
        assert self.read.wait(20), "the first event was held back until the others would be there"
        self._piece(EVENT % ("two", '"stop"', USAGE) + "data: [DONE]\n\n")
        self._piece("")

    def _piece(self, text: str) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text.encode()))
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the base's name
        """Tests are quiet."""


@pytest.fixture
def held() -> Iterator[str]:
    Held.read = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Held) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        Held.read.set()
        running.shutdown()
        thread.join()


async def test_an_event_is_handed_out_before_the_next_one_is_sent(held: str) -> None:
    async with Router([Mistral(["sk-simulated-0123456789"], base_url=held)]) as router:
        texts: list[str] = []
        with anyio.fail_after(20):
            async for event in await sdks.mistral(router).chat.stream_async(model="mistral/m", messages=HELLO):
                texts.append(event.data.choices[0].delta.content)
                Held.read.set()
    assert texts == ["one", "two"]


def test_an_event_is_handed_out_before_the_next_one_is_sent_to_blocking_code(held: str) -> None:
    with SyncRouter([Mistral(["sk-simulated-0123456789"], base_url=held)]) as router:
        texts: list[str] = []
        for event in sdks.mistral(router).chat.stream(model="mistral/m", messages=HELLO):
            texts.append(event.data.choices[0].delta.content)
            Held.read.set()
    assert texts == ["one", "two"]


# -- the helper ------------------------------------------------------------------------------------------------------


async def test_a_blocking_router_gives_no_asynchronous_client(world: World) -> None:
    for make in (sdks.async_openai, sdks.async_anthropic):
        with pytest.raises(ConfigError) as caught:
            make(world.blocking)
        assert caught.value.field in {"router", "openai", "anthropic"}


async def test_what_goes_around_the_client_leads_nowhere(world: World) -> None:
    client = sdks.mistral(world.router)
    assert client.sdk_configuration.get_server_details()[0] == "http://bifrost.invalid/mistral"
    assert client.sdk_configuration.retry_config is None
