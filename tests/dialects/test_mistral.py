"""Mistral's dialect, seen from its bytes: what it takes requests for, and how it tells answers that others have written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import pytest

from bifrost_core import (
    BifrostError,
    CallError,
    ChatResponse,
    Choice,
    Chunk,
    ConfigError,
    Operation,
    Router,
    StreamBrokenError,
    ToolCall,
    Transcription,
    UnsupportedParameterError,
    Usage,
)
from bifrost_core.dialects import Door, Inbound, Reply, StreamedReply
from bifrost_core.dialects._mistral_answers import ModelRenderer, TranscriptionRenderer, model_list
from bifrost_core.dialects._mistral_chat import ChatRenderer
from bifrost_core.dialects.base import LastWords
from bifrost_core.dialects.mistral import MistralDialect
from bifrost_core.errors import ModelNotFoundError
from bifrost_core.responses import ModelInfo, ModelList
from bifrost_core.testing import Fault, Simulated, SimulatedKey

Json: TypeAlias = dict[str, Any]

OWN = "0123456789abcdef0123456789abcdef"
MODEL = "simulated/any-model"
HELLO: list[Json] = [{"role": "user", "content": "hi"}]


def post(path: str, body: Any, content_type: str = "application/json") -> Inbound:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Inbound("POST", path, {"content-type": content_type}, sent)


def form(*parts: tuple[str, str]) -> bytes:
    """A form of texts with ``b`` as its boundary."""
    lines = [f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in parts]
    return "".join([*lines, "--b--\r\n"]).encode()


FORM = "multipart/form-data; boundary=b"


def events(data: bytes) -> list[Any]:
    """The JSON of a stream's events; of the mark of its end the word."""
    frames = [frame.rpartition("data: ")[2] for frame in data.decode().split("\n\n") if frame]
    return [frame if frame == "[DONE]" else json.loads(frame) for frame in frames]


def told(error: BifrostError) -> Json:
    body: Json = json.loads(MistralDialect().refusal(error, "call_1").body)
    return body


# -- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "operation", "body"),
    [
        ("chat/completions", Operation.CHAT, {"messages": HELLO, "random_seed": 7, "safe_prompt": False}),
        ("fim/completions", Operation.FIM, {"prompt": "a", "suffix": "b"}),
        ("embeddings", Operation.EMBEDDINGS, {"input": ["a"], "output_dimension": 8}),
        ("moderations", Operation.MODERATION, {"input": "a"}),
        ("chat/moderations", Operation.MODERATION, {"input": HELLO}),
        ("classifications", Operation.CLASSIFICATION, {"input": "a"}),
        ("chat/classifications", Operation.CLASSIFICATION, {"input": [{"messages": HELLO}]}),
        ("ocr", Operation.OCR, {"document": {"type": "file", "file_id": "x"}}),
        ("audio/speech", Operation.SPEECH, {"input": "a", "voice_id": "v"}),
        ("audio/transcriptions", Operation.TRANSCRIPTION, {"file_id": "x"}),
    ],
)
def test_a_body_becomes_a_request_as_it_is(path: str, operation: Operation, body: Json) -> None:
    order = MistralDialect().parse(post(path, {"model": "mistral/m", "fallbacks": ["mistral/n"], **body}))
    request = order.request
    assert (request.operation, request.model, dict(request.body), request.stream) == (
        operation,
        "mistral/m",
        body,
        False,
    )
    assert order.fallbacks == ("mistral/n",)


@pytest.mark.parametrize("path", ["chat/completions", "fim/completions", "audio/transcriptions"])
def test_what_can_stream_says_so(path: str) -> None:
    assert MistralDialect().parse(post(path, {"model": "m", "stream": True})).request.stream


def test_the_texts_of_a_form_become_what_they_stand_for() -> None:
    fields = [
        ("model", "mistral/voxtral"),
        ("stream", "true"),
        ("diarize", "False"),
        ("temperature", "0.5"),
        ("language", "en"),
        ("context_bias", "Bifrost"),
        ("context_bias", "Heimdall"),
        ("timestamp_granularities[]", "segment"),
        ("fallbacks", "mistral/other"),
    ]
    order = MistralDialect().parse(post("audio/transcriptions", form(*fields), FORM))
    assert order.request.stream
    assert order.fallbacks == ("mistral/other",)
    assert dict(order.request.body) == {
        "diarize": False,
        "temperature": 0.5,
        "language": "en",
        "context_bias": ["Bifrost", "Heimdall"],
        "timestamp_granularities": ["segment"],
    }


def test_a_form_without_files_may_be_url_encoded() -> None:
    body = b"model=mistral%2Fvoxtral&file_url=https%3A%2F%2Fexample.com%2Ftalk.mp3&diarize=true"
    order = MistralDialect().parse(post("audio/transcriptions", body, "application/x-www-form-urlencoded"))
    assert order.request.model == "mistral/voxtral"
    assert dict(order.request.body) == {"file_url": "https://example.com/talk.mp3", "diarize": True}


@pytest.mark.parametrize(
    ("inbound", "status", "words"),
    [
        pytest.param(post("files", {}), 404, "there is no POST 'files'", id="no-such-path"),
        pytest.param(Inbound("DELETE", "models/m", {}), 404, "there is no DELETE", id="no-such-method"),
        pytest.param(post("chat/completions", b"[]"), 422, "no JSON object", id="a-list"),
        pytest.param(post("chat/completions", {"messages": HELLO}), 422, "'model' is missing", id="no-model"),
        pytest.param(post("chat/completions", {"model": 7}), 422, "'model' is no string", id="a-number-as-model"),
        pytest.param(post("chat/completions", {"model": "m", "extra_body": {}}), 422, "extra_body", id="our-option"),
        pytest.param(post("embeddings", {"model": "m", "stream": True}), 422, "answers whole", id="no-such-stream"),
        pytest.param(
            post("audio/transcriptions", form(("language", "en")), FORM), 422, "'model' is missing", id="form-no-model"
        ),
        pytest.param(
            post("audio/transcriptions", form(("model", "m"), ("diarize", "yes")), FORM),
            422,
            "'diarize' is no boolean",
            id="no-boolean",
        ),
        pytest.param(
            post("audio/transcriptions", form(("model", "m"), ("temperature", "warm")), FORM),
            422,
            "'temperature' is no number",
            id="no-number",
        ),
        pytest.param(post("audio/transcriptions", b"x", FORM), 422, "read as a form", id="no-form"),
        pytest.param(
            post("audio/transcriptions", b"\xff=1", "application/x-www-form-urlencoded"), 422, "UTF-8", id="no-text"
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(inbound: Inbound, status: int, words: str) -> None:
    with pytest.raises(CallError) as caught:
        MistralDialect().parse(inbound)
    assert words in caught.value.message
    assert MistralDialect().refusal(caught.value, "call_1").status == status


def test_a_field_at_fault_is_told_by_its_path() -> None:
    error = UnsupportedParameterError("no", parameter="messages[2].content[0].type")
    assert told(error) == {
        "object": "error",
        "message": "no",
        "type": "invalid_request_error",
        "param": "messages[2].content[0].type",
        "code": None,
        "raw_status_code": 422,
        "detail": [
            {"type": "invalid_request_error", "loc": ["body", "messages", 2, "content", 0, "type"], "msg": "no"}
        ],
    }
    assert told(ConfigError("no messages", field="messages"))["detail"][0]["loc"] == ["body", "messages"]


# -- chat ------------------------------------------------------------------------------------------------------------


def renderer() -> ChatRenderer:
    return ChatRenderer(MODEL, lambda error: {"object": "error", "message": error.message})


def own(delta: Json, reason: str | None = None) -> Chunk:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    raw = {"id": OWN, "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], "p": "abc"}
    return Chunk(text=delta.get("content") or "", finish_reason=reason, raw=raw)


def other(text: str = "", *, delta: Json | None = None, **members: Any) -> Chunk:
    """A chunk as of OpenAI's."""
    raw = {"id": "chatcmpl-1", "created": 5, "model": "gpt", "choices": [{"index": 0, "delta": delta or {}}]}
    return Chunk(text=text, raw=raw, **members)


def told_by(chunks: Sequence[Chunk], response: ChatResponse) -> list[Any]:
    writer = renderer()
    return events(writer.feed(chunks) + writer.finish(response))


def test_mistrals_own_events_are_handed_on() -> None:
    chunks = [own({"role": "assistant", "content": ""}), own({"content": "hi"}), own({"content": ""}, "stop")]
    response = ChatResponse(choices=[Choice(text="hi", finish_reason="stop")])
    assert told_by(chunks, response) == [*(chunk.raw for chunk in chunks), "[DONE]"]


def test_pieces_of_calls_that_models_of_others_stream_at_mistral_have_names() -> None:
    first = {"id": "chatcmpl-tool-1", "index": 0, "function": {"name": "weather", "arguments": ""}}
    nameless = {"index": 0, "function": {"arguments": "{}"}}
    chunks = [own({"tool_calls": [first]}), own({"tool_calls": [nameless, {"index": 0}]}, "tool_calls")]
    response = ChatResponse(choices=[Choice(finish_reason="tool_calls")])
    one, two, _ = told_by(chunks, response)
    assert one == chunks[0].raw
    assert [piece["function"] for piece in two["choices"][0]["delta"]["tool_calls"]] == [
        {"name": "", "arguments": "{}"},
        {"name": "", "arguments": ""},
    ]


def test_a_call_that_comes_in_pieces_elsewhere_is_told_whole_and_the_end_with_its_usage() -> None:
    weather = ToolCall("call_1", "weather", '{"city":"Oslo"}')
    clock = ToolCall("call_2", "clock", "{}")
    chunks = [
        other(delta={"role": "assistant", "content": ""}),
        other("Let me see."),
        other(delta={"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": ""}}]}),
        other(delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"city":"Oslo"}'}}]}),
        other(tool_calls=(weather,)),
        other(tool_calls=(clock,), finish_reason="tool_calls"),
        Chunk(usage=Usage(input_tokens=3, output_tokens=4), raw={"id": "chatcmpl-1", "choices": []}),
    ]
    response = ChatResponse(
        choices=[Choice(finish_reason="tool_calls", tool_calls=(weather, clock))],
        usage=Usage(input_tokens=3, output_tokens=4),
    )
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "gpt"}

    def event(delta: Json, reason: str | None = None, **more: Any) -> Json:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}

    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert told_by(chunks, response) == [
        event({"role": "assistant", "content": "Let me see."}),
        event({"content": "", "tool_calls": [{**weather.to_openai(), "index": 0}]}),
        event({"content": "", "tool_calls": [{**clock.to_openai(), "index": 1}]}),
        event({"content": ""}, "tool_calls", usage=usage),
        "[DONE]",
    ]


def test_thoughts_of_others_are_parts_and_keep_their_seal() -> None:
    chunks = [
        Chunk(raw={"type": "message_start", "message": {"id": "msg_1", "model": "claude"}}),
        Chunk(reasoning="Hm.", raw={"type": "content_block_delta", "delta": {"type": "thinking_delta"}}),
        Chunk(raw={"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "c2VhbA=="}}),
        Chunk(reasoning="So.", text="Yes.", raw={"type": "content_block_delta"}),
        Chunk(raw={"type": "ping"}),
    ]
    *said, end, _ = told_by(chunks, ChatResponse(choices=[Choice(text="Yes.", finish_reason="stop")]))
    assert [event["choices"][0]["delta"]["content"] for event in said] == [
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}],
        [{"type": "thinking", "thinking": [], "signature": "c2VhbA=="}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "So."}]}, {"type": "text", "text": "Yes."}],
    ]
    assert {event["id"] for event in [*said, end]} == {"msg_1"}


def test_an_answer_made_by_hand_streams_under_an_id() -> None:
    response = ChatResponse(choices=[Choice(index=0, text="a"), Choice(index=1, text="b")], call_id="call_1")
    chunks = [Chunk(text="a"), Chunk(text="b", index=1)]
    first, second, end, last, _ = told_by(chunks, response)
    assert len({event["id"] for event in (first, second, end, last)}) == 1
    assert {event["model"] for event in (first, second)} == {MODEL}
    assert [event["choices"][0]["index"] for event in (end, last)] == [0, 1]
    assert ("usage" in end, "usage" in last) == (False, True)


@pytest.mark.parametrize(
    ("choice", "content"),
    [
        pytest.param(Choice(message={"role": "assistant", "refusal": "No."}), "No.", id="a-refusal-beside"),
        pytest.param(
            Choice(message={"content": [{"type": "refusal", "refusal": "No."}, "text"]}),
            [{"type": "text", "text": "No."}, "text"],
            id="a-refusal-as-a-part",
        ),
        pytest.param(
            Choice(text="Yes.", reasoning="Hm."),
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "text", "text": "Yes."},
            ],
            id="thoughts-beside",
        ),
        pytest.param(
            Choice(reasoning="Hm.", message={"content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}]}),
            [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}], "signature": "s"}],
            id="thoughts-as-a-part",
        ),
    ],
)
def test_a_whole_answer_of_others_has_mistrals_content(choice: Choice, content: Any) -> None:
    reply = json.loads(renderer().whole(ChatResponse(choices=[choice], raw={"id": "x"})).body)
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": content, "tool_calls": None}
    assert reply["choices"][0]["finish_reason"] == "stop"


# -- transcription and models ----------------------------------------------------------------------------------------


def test_the_last_event_of_a_transcription_has_what_was_delivered() -> None:
    writer = TranscriptionRenderer(lambda error: {})
    done = {"type": "transcription.done", "text": "the old words", "model": "m", "language": None}
    chunks = [
        Chunk(raw={"type": "transcription.language", "audio_language": "en"}),
        Chunk(text="new", raw={"type": "transcription.text.delta", "text": "new"}),
        Chunk(text="er", raw={"type": "transcript.text.delta", "delta": "er"}),
        Chunk(raw=done),
    ]
    response = Transcription(model="m", text="newer", usage=Usage(audio_seconds=1.6))
    language, one, two, last = events(writer.feed(chunks) + writer.finish(response))
    assert (language["audio_language"], one["text"], two) == ("en", "new", {"text": "er", "type": one["type"]})
    assert (last["type"], last["text"], last["usage"]["prompt_audio_seconds"]) == ("transcription.done", "newer", 2)


def test_a_name_that_two_providers_have_names_no_model() -> None:
    models = ModelList(models=[ModelInfo(id=f"{name}/m", provider=name, name="m") for name in ("a", "b")])
    with pytest.raises(ModelNotFoundError) as caught:
        ModelRenderer(model_list, told, "m").whole(models)
    assert caught.value.candidates == ("a/m", "b/m")
    assert json.loads(ModelRenderer(model_list, told, "a/m").whole(models).body) == {
        "id": "a/m",
        "object": "model",
        "created": 0,
        "owned_by": "a",
        "name": "m",
        "aliases": [],
        "capabilities": {},
        "deprecation": None,
        "deprecation_replacement_model": None,
        "type": "base",
    }


# -- through the door ------------------------------------------------------------------------------------------------


async def asked(router: Router, body: Json, path: str = "/mistral/v1/chat/completions") -> Reply | StreamedReply:
    return await Door(router).answer("POST", path, {}, json.dumps(body).encode())


async def test_a_providers_answer_goes_out_unchanged() -> None:
    async with Router([Simulated(["a"])]) as router:
        reply = await asked(router, {"model": MODEL, "messages": HELLO})
        assert isinstance(reply, Reply)
        assert (reply.status, json.loads(reply.body)["object"]) == (200, "chat.completion")
        told_by_path = await asked(router, {"model": MODEL, "prompt": "def"}, "/v1/fim/completions")
        assert told_by_path.status == 200
        listed = await Door(router).answer("GET", "/mistral/v1/models", {}, b"")
        assert isinstance(listed, Reply)
        assert json.loads(listed.body)["object"] == "list"


async def test_a_stream_breaks_behind_its_last_words() -> None:
    key = SimulatedKey("a", faults=[Fault("close", after=3)])
    async with Router([Simulated([key])]) as router:
        reply = await asked(router, {"model": MODEL, "messages": HELLO, "stream": True})
        assert isinstance(reply, StreamedReply)
        pieces: list[bytes] = []
        with pytest.raises(StreamBrokenError):
            async for piece in reply.pieces:
                pieces.append(piece)
        assert isinstance(pieces[-1], LastWords)
        (error,) = events(pieces[-1])
        assert (error["object"], error["raw_status_code"]) == ("error", 502)
