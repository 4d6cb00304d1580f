"""Speech with bytes alone: text to sound, by the document and the one exchange that was seen.

Facts: https://docs.mistral.ai/api/endpoint/audio/speech.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import (
    BadRequestError,
    Kind,
    Mistral,
    ProviderServerError,
    Request,
    SpeechResponse,
    UnsupportedParameterError,
    Usage,
)
from bifrost_core.errors import CallError
from bifrost_core.wire import HttpReply

MISTRAL = Mistral(["sk-canary-aaaaaaaaaaaaaaaa"])
MODEL = "voxtral-mini-tts-latest"
SOUND = b"ID3\x04\x00sound"


def asked(**body: Any) -> Request:
    return Request("speech", MODEL, {"input": "Good evening.", **body})


def read(body: Any, request: Request | None = None, **headers: str) -> SpeechResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = HttpReply(200, named, json.dumps(body).encode(), 0.0)
    response = MISTRAL.decode(asked() if request is None else request, reply)
    assert isinstance(response, SpeechResponse)
    return response


@pytest.mark.parametrize(
    ("body", "wire"),
    [
        pytest.param({"voice": "en_paul_neutral"}, {"voice": "en_paul_neutral"}, id="OpenAI's voice"),
        pytest.param(
            {"voice_id": "v", "response_format": "wav"}, {"voice_id": "v", "response_format": "wav"}, id="own"
        ),
        pytest.param({"ref_audio": b"abc"}, {"ref_audio": "YWJj"}, id="a sample as bytes"),
        pytest.param({"speed": 1, "instructions": "", "user": "ann"}, {}, id="asks for nothing"),
        pytest.param({"speed": 1.0, "stream_format": "audio"}, {}, id="asks for nothing either"),
    ],
)
def test_fields_are_sent_by_their_names(body: dict[str, Any], wire: dict[str, Any]) -> None:
    call = MISTRAL.encode(asked(**body))
    assert (call.url, call.output_upper) == ("https://api.mistral.ai/v1/audio/speech", 0)
    assert json.loads(call.body) == {"model": MODEL, "input": "Good evening.", **wire}


@pytest.mark.parametrize(
    ("name", "value"),
    [("speed", 2), ("speed", True), ("instructions", "whisper"), ("stream_format", "sse"), ("voices", "x")],
)
def test_a_field_that_would_be_lost_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        MISTRAL.encode(asked(**{name: value}))
    assert caught.value.parameter == name


def test_speech_is_of_one_text_and_whole() -> None:
    with pytest.raises(BadRequestError, match="'input' is no text"):
        MISTRAL.encode(asked(input=["a"]))
    with pytest.raises(UnsupportedParameterError, match="speech is not streamed"):
        MISTRAL.encode(Request("speech", MODEL, {"input": "a"}, stream=True))


def test_the_sound_comes_as_bytes_and_stays_base64_in_raw() -> None:
    body = {"audio_data": base64.b64encode(SOUND).decode()}
    reply = read(body, asked(response_format="flac"), x_ratelimit_input_characters_query_cost="14")
    assert (reply.audio, reply.format, reply.model, reply.raw) == (SOUND, "flac", MODEL, body)
    assert reply.usage == Usage(characters=14, requests=1)


@pytest.mark.parametrize("counted", ["", "-1", "many", "1.5"])
def test_without_a_count_the_characters_are_the_texts(counted: str) -> None:
    reply = read({"audio_data": "AAAA"}, x_ratelimit_input_characters_query_cost=counted)
    assert (reply.usage, reply.format) == (Usage(characters=len("Good evening."), requests=1), "mp3")


@pytest.mark.parametrize(
    "body",
    [{}, {"audio_data": ""}, {"audio_data": "?"}, {"audio_data": "AAA"}, {"audio_data": 7}, {"audio_data": "é"}],
    ids=["nothing", "empty", "no base64", "cut", "a number", "not ASCII"],
)
def test_an_answer_without_sound_is_none(body: Any) -> None:
    with pytest.raises(ProviderServerError) as caught:
        read(body)
    assert caught.value.kind is Kind.BAD_RESPONSE


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_no_json_raises_anything_but_a_call_error(data: Any) -> None:
    for body in (data, {"audio_data": data}, {"audio_data": "AAAA", "model": data}):
        try:
            reply = read(body)
        except CallError:
            continue
        assert reply.raw == body
