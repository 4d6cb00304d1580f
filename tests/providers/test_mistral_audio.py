"""Transcription with bytes alone: the form's fields, whole answers, and named events in any split."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.errors import (
    BadRequestError,
    BifrostError,
    CallError,
    ProviderRateLimitError,
    ProviderServerError,
    StreamBrokenError,
    UnsupportedParameterError,
)
from bifrost_core.kinds import Kind
from bifrost_core.providers import Mistral
from bifrost_core.providers.base import StreamDecoder
from bifrost_core.responses import Segment, Transcription
from bifrost_core.types import Chunk, File, Request, Usage
from bifrost_core.wire import HttpCall, HttpReply

KEY = "sk-audio-0123456789abcdef"
SOUND = File("file", "a.wav", b"RIFF....WAVE", "audio/wav")
# https://docs.mistral.ai/api/endpoint/audio/transcriptions: the members of an answer and of the events.
SEGMENTS: list[dict[str, Any]] = [
    {"type": "transcription_segment", "text": "Grüße, ", "start": 0, "end": 0.8, "score": 0.9, "speaker_id": "s1"},
    {"type": "transcription_segment", "text": "東京 🌈!", "start": 0.8, "end": 1.5, "speaker_id": None},
]
WHOLE: dict[str, Any] = {
    "model": "voxtral-mini-2602",
    "text": "Grüße, 東京 🌈!",
    "language": "de",
    "segments": SEGMENTS,
    "usage": {
        "prompt_audio_seconds": 2,
        "prompt_tokens": 4,
        "completion_tokens": 9,
        "total_tokens": 388,
        "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 375},
    },
    "finish_reason": None,
}
ANSWER = Transcription(
    model="voxtral-mini-2602",
    usage=Usage(input_tokens=4, output_tokens=9, cached_tokens=1, audio_seconds=2.0, requests=1),
    raw=WHOLE,
    text="Grüße, 東京 🌈!",
    language="de",
    segments=[
        Segment(text="Grüße, ", start=0.0, end=0.8, speaker="s1"),
        Segment(text="東京 🌈!", start=0.8, end=1.5),
    ],
)


def ask(*, stream: bool = False, files: tuple[File, ...] = (SOUND,), **body: Any) -> Request:
    return Request("transcription", "voxtral-mini-latest", body, files, stream)


def written(call: HttpCall) -> list[tuple[str, str]]:
    """The text fields of a form, in their order, and the file as its name."""
    assert (call.body, call.content) == (b"", call.form)
    assert call.form is not None
    data = b"".join(segment for segment in call.form.segments if isinstance(segment, bytes))
    fields: list[tuple[str, str]] = []
    for part in data.split(b"--" + call.form.boundary.encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        filename = head.partition(b'filename="')[2].partition(b'"')[0].decode()
        fields.append((name, filename or content.removesuffix(b"\r\n").decode()))
    return fields


def encode(**body: Any) -> list[tuple[str, str]]:
    return written(Mistral(KEY).encode(ask(**body)))


def decode(value: Any) -> Transcription:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    response = Mistral(KEY).decode(ask(), HttpReply(200, {}, body))
    assert isinstance(response, Transcription)
    return response


# -- the request ---------------------------------------------------------------------------------------------------


def test_a_form_holds_every_field_under_its_name() -> None:
    call = Mistral(KEY).encode(
        ask(
            language="de",
            temperature=0.2,
            diarize=True,
            context_bias=["Bifröst", "Heimdall"],
            timestamp_granularities=["segment", "word"],
        )
    )
    assert (call.method, call.url) == ("POST", "https://api.mistral.ai/v1/audio/transcriptions")
    assert call.form is not None
    assert dict(call.headers)[b"content-type"] == f"multipart/form-data; boundary={call.form.boundary}".encode()
    assert dict(call.headers)[b"accept"] == b"application/json"
    assert written(call) == [
        ("model", "voxtral-mini-latest"),
        ("language", "de"),
        ("temperature", "0.2"),
        ("diarize", "true"),
        ("context_bias", "Bifröst"),
        ("context_bias", "Heimdall"),
        ("timestamp_granularities", "segment"),
        ("timestamp_granularities", "word"),
        ("file", "a.wav"),
    ]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        pytest.param({"timestamp_granularities": "word"}, [("timestamp_granularities", "word")], id="one word"),
        pytest.param(
            {"timestamp_granularities[]": ["word"]}, [("timestamp_granularities", "word")], id="OpenAI's spelling"
        ),
        pytest.param(
            {"timestamp_granularities[]": ["word"], "timestamp_granularities": ["word"]},
            [("timestamp_granularities", "word")],
            id="both spellings with one value",
        ),
        pytest.param(
            {"context_bias": "Asgard, Midgard"},
            [("context_bias", "Asgard"), ("context_bias", "Midgard")],
            id="terms with commas between",
        ),
        pytest.param({"temperature": 0}, [("temperature", "0")], id="a whole number"),
        pytest.param({"diarize": False}, [("diarize", "false")], id="a no"),
        pytest.param({"response_format": "json"}, [], id="the format that is so anyway"),
        pytest.param(
            {"response_format": "verbose_json", "timestamp_granularities": ["segment"]},
            [("timestamp_granularities", "segment")],
            id="OpenAI's word for times beside the times themselves",
        ),
        pytest.param({"language": None}, [], id="null"),
        pytest.param(
            {"extra_body": {"beam": {"size": 2}, "tags": [1, True]}},
            [("beam", '{"size":2}'), ("tags", "1"), ("tags", "true")],
            id="fields that this version does not know",
        ),
    ],
)
def test_a_field_is_written_as_a_form_has_it(body: dict[str, Any], fields: list[tuple[str, str]]) -> None:
    assert encode(**body) == [("model", "voxtral-mini-latest"), *fields, ("file", "a.wav")]


def test_a_stream_is_asked_for_in_the_form() -> None:
    call = Mistral(KEY).encode(ask(stream=True))
    assert ("stream", "true") in written(call)
    assert dict(call.headers)[b"accept"] == b"text/event-stream"


@pytest.mark.parametrize("source", ["file_url", "file_id"])
def test_a_file_elsewhere_is_named_and_not_sent(source: str) -> None:
    place: dict[str, Any] = {source: "x"}
    call = Mistral(KEY).encode(ask(files=(), **place))
    assert written(call) == [("model", "voxtral-mini-latest"), (source, "x")]


@pytest.mark.parametrize(
    "name",
    [
        "prompt",
        "chunking_strategy",
        "include",
        "known_speaker_names",
        "known_speaker_references",
        "response_format",
        "timestamp_granularity",
    ],
)
def test_a_field_that_is_none_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        encode(**{name: "x"})
    assert caught.value.parameter == name


def test_refusals_say_what_to_do_instead() -> None:
    with pytest.raises(UnsupportedParameterError, match="did you mean timestamp_granularities"):
        encode(timestamp_granularity="word")
    with pytest.raises(UnsupportedParameterError, match=r"pass timestamp_granularities=\['segment'\]"):
        encode(response_format="verbose_json")
    with pytest.raises(UnsupportedParameterError, match="go in context_bias"):
        encode(prompt="x")
    with pytest.raises(UnsupportedParameterError, match="has another value; give one of them"):
        encode(**{"timestamp_granularities": ["word"], "timestamp_granularities[]": ["segment"]})


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        pytest.param(ask(files=()), "it has 0 of file, file_url, file_id; give exactly one", id="nothing"),
        pytest.param(ask(file_id="x"), "it has 2 of file, file_url, file_id", id="a file and an id"),
        pytest.param(ask(files=(SOUND, SOUND)), "it has 2 of", id="two files"),
        pytest.param(ask(files=(File("other", "a", b"x"),)), "a transcription takes one file", id="another field"),
        pytest.param(ask(temperature=float("nan")), "'temperature' holds NaN", id="no number"),
        pytest.param(ask(language="\ud800"), "half a surrogate pair", id="no text"),
        pytest.param(ask(context_bias=[{1, 2}, object()]), "'context_bias' holds a value", id="no JSON"),
        pytest.param(ask(model="other"), "names another model than the call", id="another model"),
    ],
)
def test_what_can_not_be_sent_is_the_callers_mistake(request_: Request, problem: str) -> None:
    with pytest.raises(BadRequestError, match=problem) as caught:
        Mistral(KEY).encode(request_)
    assert caught.value.__context__ is None


# -- a whole answer ------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_typed_and_lossless() -> None:
    assert decode(WHOLE) == ANSWER


def test_numbers_are_taken_as_they_are() -> None:
    answer = decode({"text": "", "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 9999}})
    assert answer.usage == Usage(input_tokens=3, output_tokens=1, requests=1)
    assert (answer.text, answer.language, answer.segments) == ("", None, ())


def test_a_speaker_is_text_and_an_odd_time_is_none() -> None:
    segments = [{"text": "a", "start": "0", "end": True, "speaker_id": 7}]
    assert decode({"text": "a", "segments": segments}).segments == (Segment(text="a", speaker="7"),)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        pytest.param({}, "there is no text in it", id="no text"),
        pytest.param({"text": None}, "there is no text in it", id="null for text"),
        pytest.param({"text": "a", "segments": {}}, "segments is no list", id="segments that are none"),
        pytest.param({"text": "a", "segments": [{"text": 1}]}, "a segment has no text", id="a segment without text"),
        pytest.param([], "the body is a JSON array", id="a list"),
        pytest.param(b"event: transcription.done\ndata: {}\n\n", "an event stream", id="events"),
    ],
)
def test_an_answer_that_is_none_is_the_providers_fault(value: Any, why: str) -> None:
    with pytest.raises(ProviderServerError, match=why) as caught:
        decode(value)
    assert caught.value.kind is Kind.BAD_RESPONSE


MEMBERS = st.sampled_from(
    [
        "text",
        "segments",
        "language",
        "usage",
        "model",
        "start",
        "end",
        "speaker_id",
        "type",
        "object",
        "error",
        "audio_language",
        "prompt_tokens",
        "completion_tokens",
        "prompt_audio_seconds",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(MEMBERS | st.text(max_size=3), inner, max_size=6),
    max_leaves=10,
)
TYPES = st.sampled_from(
    ["transcription.text.delta", "transcription.segment", "transcription.language", "transcription.done", "other"]
)


@given(value=JSON)
def test_any_json_is_an_answer_or_an_error_of_ours(value: Any) -> None:
    body = json.dumps(value).encode()
    try:
        assert isinstance(decode(body).text, str)
    except BifrostError as exc:
        assert exc.message  # noqa: PT017 # either way is right


# -- a stream ------------------------------------------------------------------------------------------------------


def event(kind: str, *, named: bool = True, **members: Any) -> bytes:
    head = f"event: {kind}\n" if named else ""
    return f"{head}data: {json.dumps({'type': kind, **members}, ensure_ascii=False)}\n\n".encode()


def delta(text: str) -> bytes:
    return event("transcription.text.delta", text=text)


DONE = event("transcription.done", **WHOLE)
STREAM = (
    event("transcription.language", audio_language="de")
    + delta("Grüße, ")
    + event("transcription.segment", text="Grüße, ", start=0, end=0.8, speaker_id="s1")
    + delta("東京 ")
    + delta("🌈!")
    + DONE
)


def decoder() -> StreamDecoder:
    return Mistral(KEY).decoder(ask(stream=True))


def read(stream: bytes, size: int = 1 << 20) -> tuple[list[Chunk], StreamDecoder]:
    made = decoder()
    return [chunk for at in range(0, len(stream), size) for chunk in made.feed(stream[at : at + size])], made


def test_events_are_chunks_and_the_last_one_is_the_whole_answer() -> None:
    chunks, made = read(STREAM)
    assert [chunk.text for chunk in chunks] == ["", "Grüße, ", "", "東京 ", "🌈!", ""]
    assert [chunk.raw["type"].removeprefix("transcription.") for chunk in chunks] == [
        "language",
        "text.delta",
        "segment",
        "text.delta",
        "text.delta",
        "done",
    ]
    assert [chunk.usage for chunk in chunks] == [*[None] * 5, ANSWER.usage]
    assert chunks[2].raw == {
        "type": "transcription.segment",
        "text": "Grüße, ",
        "start": 0,
        "end": 0.8,
        "speaker_id": "s1",
    }
    assert made.done
    assert made.finish() == ANSWER


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=12))
@settings(max_examples=200)
def test_any_split_of_the_bytes_gives_the_same_chunks(cuts: list[int]) -> None:
    made = decoder()
    ends = sorted({*cuts, len(STREAM)})
    chunks = [chunk for start, end in zip([0, *ends], ends, strict=False) for chunk in made.feed(STREAM[start:end])]
    assert chunks == read(STREAM)[0]
    assert made.finish() == ANSWER


def test_silence_is_an_answer_of_one_event() -> None:
    chunks, made = read(event("transcription.done", **{**WHOLE, "text": "", "segments": []}))
    assert [chunk.text for chunk in chunks] == [""]
    response = made.finish()
    assert isinstance(response, Transcription)
    assert (response.text, response.segments) == ("", ())


def test_text_that_no_delta_brought_comes_with_the_end() -> None:
    assert [chunk.text for chunk in read(DONE)[0]] == ["Grüße, 東京 🌈!"]
    assert [chunk.text for chunk in read(delta("Grüße, ") + DONE)[0]] == ["Grüße, ", "東京 🌈!"]
    assert [chunk.text for chunk in read(delta("Other") + DONE)[0]] == ["Other", ""]


def test_what_the_last_event_leaves_open_the_others_have_told() -> None:
    segment = event("transcription.segment", text="Hi", start=0, end=1)
    language = event("transcription.language", audio_language="en")
    _, made = read(language + delta("Hi") + segment + event("transcription.done", model="m", usage=None))
    response = made.finish()
    assert isinstance(response, Transcription)
    assert (response.text, response.language) == ("Hi", "en")
    assert response.segments == (Segment(text="Hi", start=0.0, end=1.0),)


def test_events_are_told_by_name_where_their_type_is_missing_and_new_ones_are_handed_on() -> None:
    nameless = delta("Hi").replace(b"event: transcription.text.delta\n", b"")
    typeless = b'event: transcription.text.delta\ndata: {"text": "!"}\n\n'
    chunks, _ = read(nameless + typeless + event("transcription.word", word="Hi") + DONE)
    assert [chunk.text for chunk in chunks[:3]] == ["Hi", "!", ""]
    assert chunks[2].raw == {"type": "transcription.word", "word": "Hi"}


@pytest.mark.parametrize("stream", [STREAM.removesuffix(DONE), delta("Gr"), b"", STREAM[:-9]], ids=range(4))
def test_a_stream_that_is_cut_is_broken(stream: bytes) -> None:
    chunks, made = read(stream)
    assert not made.done
    with pytest.raises(StreamBrokenError) as caught:
        made.finish()
    assert (caught.value.kind, caught.value.partial) == (Kind.STREAM_TRUNCATED, None)
    partial = made.partial()
    text = "".join(chunk.text for chunk in chunks)
    assert (partial.text if isinstance(partial, Transcription) else "") == text


def test_only_the_empty_line_may_be_missing_at_the_end() -> None:
    _, made = read(STREAM.removesuffix(b"\n"))
    assert made.finish() == ANSWER
    _, made = read(delta("Grüße, ") + DONE.removesuffix(b"\n\n"))
    with pytest.raises(StreamBrokenError):  # more text would be in the answer than was handed out
        made.finish()


@pytest.mark.parametrize(
    "failure",
    [
        b'data: {"object":"error","message":"slow down","type":"rate_limited","code":"1300"}\n\n',
        b'event: error\ndata: {"message":"slow down","code":"1300"}\n\n',
        b'data: {"error":{"message":"slow down","code":"1300"}}\n\n',
        event("error", message="slow down", code="1300"),
        b'{"object":"error","message":"slow down","type":"rate_limited","code":"1300"}',
    ],
    ids=["an error object", "an event named error", "an error member", "a type that is none", "JSON"],
)
def test_an_error_in_the_stream_has_its_own_kind_before_text_and_breaks_it_after(failure: bytes) -> None:
    _, made = read(failure)
    assert isinstance(made.error, CallError)
    assert "slow down" in made.error.message
    if b"1300" in failure and b"rate_limited" in failure:
        assert isinstance(made.error, ProviderRateLimitError)
    if failure.startswith(b"{"):
        return
    _, made = read(delta("Hi") + failure)
    assert isinstance(made.error, StreamBrokenError)
    assert (made.error.kind, made.error.partial) == (Kind.STREAM_ERROR, None)
    with pytest.raises(StreamBrokenError):
        made.finish()


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        pytest.param(b"data: {oops\n\n", Kind.STREAM_MALFORMED, id="no JSON"),
        pytest.param(b"data: [1]\n\n", Kind.STREAM_MALFORMED, id="no object"),
        pytest.param(event("transcription.text.delta", text=1), Kind.STREAM_MALFORMED, id="a delta without text"),
        pytest.param(event("transcription.segment"), Kind.STREAM_MALFORMED, id="a segment without text"),
        pytest.param(b"<html>", Kind.BAD_RESPONSE, id="HTML"),
        pytest.param(b"[1]", Kind.BAD_RESPONSE, id="a JSON list"),
        pytest.param(b'{"text": 1}', Kind.BAD_RESPONSE, id="JSON that is no answer"),
        pytest.param(b"data: " + b"x" * (1 << 21), Kind.RESPONSE_TOO_LARGE, id="an endless event"),
    ],
)
def test_a_stream_that_is_none_says_why(stream: bytes, kind: Kind) -> None:
    _, made = read(stream)
    assert made.error is not None
    assert made.error.kind is kind
    assert made.feed(DONE) == []


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_whole_answer_to_a_request_for_a_stream_is_read_as_one(size: int) -> None:
    chunks, made = read(b"\xef\xbb\xbf " + json.dumps(WHOLE).encode(), size)
    assert [chunk.text for chunk in chunks] == ["Grüße, 東京 🌈!"]
    assert made.finish() == ANSWER


@given(events=st.lists(st.tuples(TYPES, JSON), max_size=6), size=st.integers(1, 50))
def test_any_events_are_chunks_or_an_error_of_ours(events: list[tuple[str, Any]], size: int) -> None:
    lines: list[bytes] = []
    for kind, value in events:
        members = {**value, "type": kind} if isinstance(value, dict) else value
        lines.append(b"data: " + json.dumps(members).encode() + b"\n\n")
    chunks, made = read(b"".join(lines), size)
    assert all(isinstance(chunk.text, str) for chunk in chunks)
    made.partial()
    try:
        response = made.finish()
    except BifrostError as exc:
        assert exc.message  # noqa: PT017 # either way is right
    else:
        assert isinstance(response, Transcription)
