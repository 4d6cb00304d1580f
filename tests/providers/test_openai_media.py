"""Sound, vectors, verdicts and lists of models at OpenAI and at servers like it."""

from __future__ import annotations

import array
import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import (
    CallError,
    Chunk,
    EmbeddingResponse,
    File,
    ModelList,
    ModerationResponse,
    OpenAI,
    OpenAICompatible,
    Operation,
    Request,
    Segment,
    SpeechResponse,
    StreamBrokenError,
    Transcription,
    UnsupportedParameterError,
    Usage,
)
from bifrost_core.errors import BadRequestError, ProviderServerError
from bifrost_core.providers.base import StreamDecoder
from bifrost_core.wire import HttpReply

KEY = "sk-openai-media-0123456789"
PROVIDER = OpenAI(KEY)
SOUND = File("file", "a.mp3", b"ID3sound", "audio/mpeg")


def reply(body: Any, status: int = 200) -> HttpReply:
    return HttpReply(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


# -- transcription -------------------------------------------------------------------------------------------------


def ask(*, stream: bool = False, files: tuple[File, ...] = (SOUND,), **body: Any) -> Request:
    return Request(Operation.TRANSCRIPTION, "gpt-4o-transcribe", body, files, stream)


def form(request: Request, provider: OpenAI | OpenAICompatible = PROVIDER) -> list[tuple[str, Any]]:
    call = provider.encode(request)
    assert call.form is not None
    assert dict(call.headers)[b"content-type"].startswith(b"multipart/form-data; boundary=")
    data = b"".join(segment for segment in call.form.segments if isinstance(segment, bytes)).decode()
    fields: list[tuple[str, Any]] = []
    for part in data.split(f"--{call.form.boundary}")[1:-1]:
        head, _, text = part.strip("\r\n").partition("\r\n\r\n")
        names = re.findall(r'name="([^"]*)"', head)
        told = re.search(r"content-type: (\S+)", head, re.IGNORECASE)
        fields.append((names[0], text if told is None else (names[1], told[1])))
    return fields


def test_every_field_of_a_transcription_is_a_field_of_the_form() -> None:
    # https://platform.openai.com/docs/api-reference/audio/createTranscription
    fields = form(
        ask(
            stream=True,
            chunking_strategy={"type": "server_vad", "threshold": 0.5},
            include=["logprobs"],
            keywords=["Bifröst"],
            known_speaker_names=["a", "b"],
            language="de",
            prompt="p",
            response_format="json",
            temperature=0.2,
            timestamp_granularities=["word", "segment"],
        )
    )
    assert fields == [
        ("model", "gpt-4o-transcribe"),
        ("chunking_strategy[type]", "server_vad"),
        ("chunking_strategy[threshold]", "0.5"),
        ("include[]", "logprobs"),
        ("keywords[]", "Bifröst"),
        ("known_speaker_names[]", "a"),
        ("known_speaker_names[]", "b"),
        ("language", "de"),
        ("prompt", "p"),
        ("response_format", "json"),
        ("temperature", "0.2"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("stream", "true"),
        ("file", ("a.mp3", "audio/mpeg")),
    ]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        pytest.param({"context_bias": "a, b"}, [("keywords[]", "a"), ("keywords[]", "b")], id="mistrals-terms"),
        pytest.param({"diarize": False}, [], id="asks-for-nothing"),
        pytest.param(
            {"timestamp_granularities[]": ["word"]},
            [("timestamp_granularities[]", "word"), ("response_format", "verbose_json")],
            id="times-have-their-format",
        ),
        pytest.param({"extra_body": {"new": 1}}, [("new", "1")], id="extra"),
    ],
)
def test_words_of_others_are_rewritten(body: dict[str, Any], fields: list[tuple[str, str]]) -> None:
    assert form(ask(**body))[1:-1] == fields


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        pytest.param({"diarize": True}, "diarize", id="speakers"),
        pytest.param({"file_url": "https://x.y/a.mp3"}, "file_url", id="url"),
        pytest.param({"languge": "de"}, "languge", id="unknown"),
    ],
)
def test_what_has_no_equal_is_refused_by_its_name(body: dict[str, Any], parameter: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        form(ask(**body))
    assert caught.value.parameter == parameter


def test_a_transcription_has_one_file() -> None:
    with pytest.raises(BadRequestError, match="0 files"):
        form(ask(files=()))
    with pytest.raises(UnsupportedParameterError):
        form(ask(files=(SOUND, File("other", "b", b"x"))))


def test_a_server_of_its_own_kind_takes_fields_of_its_own() -> None:
    groq = OpenAICompatible("groq", KEY, base_url="https://api.groq.com/openai")
    assert form(ask(files=(), url="https://x.y/a.mp3", diarize=True), groq) == [
        ("model", "gpt-4o-transcribe"),
        ("url", "https://x.y/a.mp3"),
        ("diarize", "true"),
    ]


def transcribed(body: Any, **request: Any) -> Transcription:
    response = PROVIDER.decode(ask(**request), reply(body))
    assert isinstance(response, Transcription)
    return response


TOKENS = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
DIARIZED = {"id": "seg_1", "type": "transcript.text.segment", "start": 0, "end": 1.5, "text": "Hi.", "speaker": "A"}


@pytest.mark.parametrize(
    ("body", "language", "segments", "usage"),
    [
        pytest.param(
            {"text": "Hi.", "usage": TOKENS}, None, (), Usage(input_tokens=14, output_tokens=45, requests=1), id="json"
        ),
        pytest.param(
            {"text": "Hi.", "usage": {"type": "duration", "seconds": 3}},
            None,
            (),
            Usage(audio_seconds=3.0, requests=1),
            id="whisper",
        ),
        pytest.param(
            {
                "task": "transcribe",
                "language": "english",
                "duration": 8.5,
                "text": "Hi.",
                "segments": [{"id": 0, "seek": 0, "start": 0.0, "end": 3.3, "text": " Hi."}],
            },
            "english",
            (Segment(text=" Hi.", start=0.0, end=3.3),),
            Usage(audio_seconds=8.5, requests=1),
            id="verbose",
        ),
        pytest.param(
            {"task": "transcribe", "duration": 1.5, "text": "Hi.", "segments": [DIARIZED], "usage": TOKENS},
            None,
            (Segment(text="Hi.", start=0.0, end=1.5, speaker="A"),),
            Usage(input_tokens=14, output_tokens=45, requests=1),
            id="diarized",
        ),
        pytest.param({"text": "Hi."}, None, (), Usage(requests=1), id="nothing-counted"),
    ],
)
def test_a_transcription_is_read(
    body: dict[str, Any], language: str | None, segments: tuple[Segment, ...], usage: Usage
) -> None:
    response = transcribed(body)
    assert (response.text, response.language, response.segments, response.usage) == ("Hi.", language, segments, usage)
    assert response.raw == body


@pytest.mark.parametrize(
    ("form_", "body", "text"),
    [
        ("text", b"Hi.\n", "Hi."),
        ("srt", b"1\n00:00:00,000 --> 00:00:01,500\nHi.\n", "1\n00:00:00,000 --> 00:00:01,500\nHi.\n"),
        ("vtt", b"WEBVTT\n\n00:00.000 --> 00:01.500\nHi.\n", "WEBVTT\n\n00:00.000 --> 00:01.500\nHi.\n"),
    ],
)
def test_formats_that_are_text_are_the_text(form_: str, body: bytes, text: str) -> None:
    assert transcribed(body, response_format=form_).text == text


@pytest.mark.parametrize(
    ("body", "form_"), [(b"", "text"), (b"\xff", "srt"), (b"<html>", "vtt"), (b"{}", "json"), (b'{"text":1}', "json")]
)
def test_no_text_is_no_transcription(body: bytes, form_: str) -> None:
    with pytest.raises(ProviderServerError):
        transcribed(body, response_format=form_)


# https://platform.openai.com/docs/api-reference/audio/transcript-text-delta-event
EVENTS: list[dict[str, Any]] = [
    {"type": "transcript.text.delta", "delta": "I see", "logprobs": []},
    {"type": "transcript.text.delta", "delta": " skies"},
    DIARIZED,
    {"type": "transcript.text.done", "text": "I see skies", "usage": TOKENS},
]
STREAM = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS)


def decode(stream: bytes, *cuts: int) -> tuple[list[Chunk], StreamDecoder]:
    made = PROVIDER.decoder(ask(stream=True))
    chunks: list[Chunk] = []
    for start, end in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        chunks += made.feed(stream[start:end])
    return chunks, made


def test_a_streamed_transcription() -> None:
    chunks, made = decode(STREAM)
    assert [chunk.raw for chunk in chunks] == EVENTS
    assert [chunk.text for chunk in chunks] == ["I see", " skies", "", ""]
    response = made.finish()
    assert isinstance(response, Transcription)
    assert (response.text, response.usage) == ("I see skies", Usage(input_tokens=14, output_tokens=45, requests=1))
    assert response.segments == (Segment(text="Hi.", start=0.0, end=1.5, speaker="A"),)
    assert response.raw == {"text": "I see skies", "usage": TOKENS}


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, len(STREAM) - 1), max_size=30))
def test_any_splits_give_the_same_chunks(cuts: set[int]) -> None:
    assert decode(STREAM, *sorted(cuts))[0] == decode(STREAM)[0]


def test_a_cut_transcription_is_none_and_keeps_what_came() -> None:
    chunks, made = decode(STREAM[: STREAM.index(b"transcript.text.done") - 16])
    assert len(chunks) == 3
    with pytest.raises(StreamBrokenError):
        made.finish()
    partial = made.partial()
    assert isinstance(partial, Transcription)
    assert partial.text == "I see skies"


def test_an_error_in_the_stream_is_one() -> None:
    _, made = decode(b'event: error\ndata: {"error":{"message":"no","type":"server_error","code":null}}\n\n')
    assert isinstance(made.error, ProviderServerError)


# -- speech --------------------------------------------------------------------------------------------------------


def speak(**body: Any) -> Request:
    return Request(Operation.SPEECH, "gpt-4o-mini-tts", {"input": "Good day.", "voice": "alloy", **body})


def test_speech_is_asked_for_and_is_the_body() -> None:
    call = PROVIDER.encode(speak(instructions="softly", speed=1.5, response_format="wav", stream_format="audio"))
    assert call.url == "https://api.openai.com/v1/audio/speech"
    assert dict(call.headers)[b"accept"] == b"*/*"
    assert json.loads(call.body) == {
        "model": "gpt-4o-mini-tts",
        "input": "Good day.",
        "voice": "alloy",
        "instructions": "softly",
        "speed": 1.5,
        "response_format": "wav",
    }
    response = PROVIDER.decode(speak(response_format="wav"), reply(b"RIFF\x00\x01"))
    assert isinstance(response, SpeechResponse)
    assert (response.audio, response.format, response.usage) == (
        b"RIFF\x00\x01",
        "wav",
        Usage(characters=9, requests=1),
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"what":1}'])
def test_what_is_no_sound_is_told(body: bytes) -> None:
    with pytest.raises(ProviderServerError):
        PROVIDER.decode(speak(), reply(body))


def test_events_of_sound_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        PROVIDER.encode(speak(stream_format="sse"))
    assert caught.value.parameter == "stream_format"


# -- embeddings ----------------------------------------------------------------------------------------------------


def embed(given_: Any = "x", **body: Any) -> Request:
    return Request(Operation.EMBEDDINGS, "text-embedding-3-small", {"input": given_, **body})


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        pytest.param({"dimensions": 4, "user": "u", "encoding_format": "base64"}, None, id="own"),
        pytest.param({"output_dimension": 4, "output_dtype": "float"}, {"dimensions": 4}, id="mistrals"),
    ],
)
def test_an_embeddings_request(body: dict[str, Any], wanted: dict[str, Any] | None) -> None:
    members = json.loads(PROVIDER.encode(embed(["a", "b"], **body)).body)
    assert members == {"model": "text-embedding-3-small", "input": ["a", "b"], **(wanted or body)}


def vectors(given_: Any, data: list[Any]) -> tuple[Any, ...]:
    items = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(data)]
    body = {"object": "list", "data": items, "model": "m", "usage": {"prompt_tokens": 5, "total_tokens": 5}}
    response = PROVIDER.decode(embed(given_), reply(body))
    assert isinstance(response, EmbeddingResponse)
    assert response.usage == Usage(input_tokens=5, requests=1)
    return response.embeddings


def test_vectors_as_numbers_and_as_base64() -> None:
    packed = base64.b64encode(array.array("f", [0.5, -2.0]).tobytes()).decode()
    assert vectors(["a", "b"], [[0.1, 0.2], [0.3, 0.4]]) == ([0.1, 0.2], [0.3, 0.4])
    assert [list(vector) for vector in vectors("a", [packed])] == [[0.5, -2.0]]


@pytest.mark.parametrize(
    ("given_", "count"), [pytest.param([1, 2, 3], 1, id="tokens"), pytest.param([[1, 2], [3]], 2, id="lists-of-tokens")]
)
def test_tokens_are_texts_too(given_: Any, count: int) -> None:
    assert len(vectors(given_, [[0.1]] * count)) == count


# -- moderation ----------------------------------------------------------------------------------------------------


def judge(given_: Any) -> Request:
    return Request(Operation.MODERATION, "omni-moderation-latest", {"input": given_})


VERDICT = {
    "flagged": True,
    "categories": {"violence": True, "self-harm": False, "illicit": None},
    "category_scores": {"violence": 0.9, "self-harm": 0.01, "illicit": None},
    "category_applied_input_types": {"violence": ["text"]},
}


@pytest.mark.parametrize(
    ("given_", "count"),
    [
        pytest.param("x", 1, id="text"),
        pytest.param(["x", "y"], 2, id="texts"),
        pytest.param([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "u"}}], 1, id="parts"),
    ],
)
def test_verdicts_one_per_input(given_: Any, count: int) -> None:
    assert json.loads(PROVIDER.encode(judge(given_)).body) == {"model": "omni-moderation-latest", "input": given_}
    body = {"id": "modr-1", "model": "omni-moderation-2024-09-26", "results": [VERDICT] * count}
    response = PROVIDER.decode(judge(given_), reply(body))
    assert isinstance(response, ModerationResponse)
    assert len(response.results) == count
    assert response.results[0].categories == {"violence": True, "self-harm": False}
    assert response.results[0].scores == {"violence": 0.9, "self-harm": 0.01}
    assert (response.raw, response.usage) == (body, Usage(requests=1))


@pytest.mark.parametrize("given_", [[{"role": "user", "content": "x"}], [[{"role": "user", "content": "x"}]]])
def test_a_conversation_is_refused_by_name(given_: Any) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        PROVIDER.encode(judge(given_))
    assert caught.value.parameter == "input"


# -- models --------------------------------------------------------------------------------------------------------


def listed(entries: Any, provider: OpenAI | OpenAICompatible = PROVIDER) -> ModelList:
    request = Request(Operation.MODELS, "*")
    call = provider.encode(request)
    assert (call.method, call.body) == ("GET", b"")
    body = {"object": "list", "data": entries} if isinstance(entries, list) else entries
    response = provider.decode(request, reply(body))
    assert isinstance(response, ModelList)
    return response


@pytest.mark.parametrize(
    ("name", "capabilities"),
    [
        ("gpt-4o", {"chat", "responses"}),
        ("o3-pro", {"responses"}),
        ("gpt-5.1-codex", {"responses"}),
        ("gpt-4o-audio-preview", {"chat"}),
        ("text-embedding-3-large", {"embeddings"}),
        ("omni-moderation-latest", {"moderation"}),
        ("whisper-1", {"transcription"}),
        ("gpt-4o-transcribe-diarize", {"transcription"}),
        ("gpt-4o-mini-tts", {"speech"}),
        ("dall-e-3", set()),
        ("gpt-realtime", set()),
        ("something-else", set()),
    ],
)
def test_capabilities_are_told_by_the_name(name: str, capabilities: set[str]) -> None:
    entry = {"id": name, "object": "model", "created": 1, "owned_by": "openai", "shutdown_date": "2027-01-01"}
    (info,) = listed([entry]).models
    assert (info.id, info.capabilities, info.deprecation) == (f"openai/{name}", frozenset(capabilities), "2027-01-01")
    assert info.raw == entry


@pytest.mark.parametrize(
    ("entry", "length"),
    [
        pytest.param({"id": "m", "max_model_len": 4096}, 4096, id="vllm"),
        pytest.param({"id": "m", "context_window": 131072}, 131072, id="groq"),
        pytest.param({"id": "m", "context_length": 8192}, 8192, id="together"),
        pytest.param({"id": "m"}, None, id="ollama"),
    ],
)
def test_a_context_length_has_many_names(entry: Mapping[str, Any], length: int | None) -> None:
    local = OpenAICompatible("local", base_url="http://127.0.0.1:8000")
    (info,) = listed([entry], local).models
    assert (info.id, info.context_length, info.capabilities) == ("local/m", length, frozenset())


def test_a_list_without_an_object_around_it_is_read() -> None:
    together = OpenAICompatible("together", KEY, base_url="https://api.together.xyz/v1")
    response = together.decode(Request(Operation.MODELS, "*"), reply(b' [{"id":"a/b"}]'))
    assert isinstance(response, ModelList)
    assert [info.id for info in response.models] == ["together/a/b"]


@pytest.mark.parametrize("body", [{"data": None}, {"data": [{}]}])
def test_no_list_is_told(body: Any) -> None:
    with pytest.raises(CallError):
        listed(body)
