"""Transcription and speech in OpenAI's dialect, byte by byte, without an SDK."""

from __future__ import annotations

import io
import json
import wave
from typing import Any

import httpx
import pytest
from bifrost_plugins.guardrails import GuardrailPlugin, Regex

from bifrost_core import Segment, Transcription, Usage, hookimpl
from bifrost_core.testing import Fault

MODEL = "mistral/voxtral-mini-latest"
PATH = "/openai/v1/audio/transcriptions"
SAID = "one two three four five six seven eight nine ten"


def sound(seconds: int = 4) -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 8000 * seconds)
    return data.getvalue()


WAV = sound()


class Answers:
    """Answers every call itself, as a plugin may."""

    def __init__(self, response: Any) -> None:
        self.response = response

    @hookimpl
    def bifrost_cached_response(self) -> Any:
        return self.response


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post(PATH, data={"model": MODEL, **fields}, files={"file": ("a.wav", WAV, "audio/wav")})


@pytest.mark.parametrize("form", [None, "json"], ids=["unsaid", "json"])
async def test_json_has_the_text_and_what_was_counted(opened: Any, form: str | None) -> None:
    async with opened(transcript=lambda _parts: SAID) as (client, provider, _):
        reply = await ask(client, **({} if form is None else {"response_format": form}))
        parts = {part.name for part in provider.journal[-1].parts}
    assert reply.status_code == 200
    assert reply.json()["text"] == SAID
    assert reply.json()["usage"]["type"] == "tokens"
    assert parts == {"model", "file"}


async def test_text_is_text(opened: Any) -> None:
    async with opened(transcript=lambda _parts: SAID) as (client, _, _):
        reply = await ask(client, response_format="text")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.text == SAID + "\n"


@pytest.mark.parametrize("granularity", ["segment", "word"])
async def test_verbose_json_has_times(opened: Any, granularity: str) -> None:
    async with opened(transcript=lambda _parts: SAID) as (client, _, _):
        fields = {"response_format": "verbose_json", "timestamp_granularities[]": granularity, "temperature": "0.2"}
        reply = await ask(client, **fields)
        unsaid = await ask(client, response_format="verbose_json")
    told = reply.json()
    assert (told["task"], told["duration"], told["text"]) == ("transcribe", 4.0, SAID)
    assert "segments" in unsaid.json()
    pieces = told["words" if granularity == "word" else "segments"]
    assert pieces[0]["start"] == 0.0
    assert pieces[-1]["end"] == pytest.approx(4.0)
    assert " ".join(piece["word" if granularity == "word" else "text"].strip() for piece in pieces) == SAID


SEGMENTS = [Segment(text=" Hello\nthere", start=0.0, end=1.25), Segment(text=" you", start=3661.0, end=3661.9995)]


@pytest.mark.parametrize(
    ("form", "told"),
    [
        pytest.param(
            "srt",
            "1\n00:00:00,000 --> 00:00:01,250\nHello there\n\n2\n01:01:01,000 --> 01:01:02,000\nyou\n",
            id="srt",
        ),
        pytest.param(
            "vtt",
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nHello there\n\n01:01:01.000 --> 01:01:02.000\nyou\n",
            id="vtt",
        ),
    ],
)
async def test_subtitles_are_made_of_the_segments(opened: Any, form: str, told: str) -> None:
    made = Transcription(text="Hello there you", segments=SEGMENTS)
    async with opened(plugins=[Answers(made)]) as (client, _, _):
        reply = await ask(client, response_format=form)
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.text == told


async def test_segments_are_asked_for_where_subtitles_are_wanted(opened: Any) -> None:
    async with opened(transcript=lambda _parts: SAID) as (client, provider, _):
        reply = await ask(client, response_format="srt")
        parts = {part.name for part in provider.journal[-1].parts}
    assert reply.status_code == 200
    assert reply.text.startswith("1\n00:00:00,000 --> ")
    assert parts == {"model", "file", "timestamp_granularities"}


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(Transcription(text="x"), id="no segments"),
        pytest.param(Transcription(text="x", segments=[Segment(text="x")]), id="no times"),
    ],
)
async def test_subtitles_without_times_are_refused(opened: Any, made: Transcription) -> None:
    async with opened(plugins=[Answers(made)]) as (client, _, _):
        reply = await ask(client, response_format="srt")
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "response_format"


@pytest.mark.parametrize("form", ["json", "verbose_json"])
async def test_what_openai_says_is_written_on_unchanged(opened: Any, form: str) -> None:
    raw = {"text": "x", "logprobs": [], "usage": {"type": "duration", "seconds": 3}}
    async with opened(plugins=[Answers(Transcription(text="x", raw=raw))]) as (client, _, _):
        assert (await ask(client, response_format=form)).json() == raw


async def test_speakers_are_told_where_the_provider_tells_them_apart(opened: Any) -> None:
    made = Transcription(
        text="a", segments=[Segment(text="a", start=0, end=1, speaker="s1")], usage=Usage(audio_seconds=2.0)
    )
    async with opened(plugins=[Answers(made)]) as (client, _, _):
        told = (await ask(client, response_format="verbose_json", diarize="true")).json()
    assert told["segments"] == [{"id": 0, "start": 0, "end": 1, "text": "a", "speaker": "s1"}]
    assert told["usage"] == {"type": "duration", "seconds": 2.0}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"model": ""}, "model", id="no model"),
        pytest.param({"stream": "yes"}, "stream", id="stream"),
        pytest.param({"temperature": "warm"}, "temperature", id="temperature"),
        pytest.param({"language": ["de", "fr"]}, "language", id="twice"),
        pytest.param({"stream": "true", "response_format": "srt"}, "response_format", id="subtitles in pieces"),
        pytest.param(
            {"response_format": "srt", "timestamp_granularities[]": "word"}, "timestamp_granularities", id="words"
        ),
        pytest.param({"response_format": "diarized_json"}, "response_format", id="no such format there"),
        pytest.param({"prompt": "x"}, "prompt", id="no such field there"),
        pytest.param({"chunking_strategy[type]": "server_vad"}, "chunking_strategy", id="nested"),
        pytest.param({"include[]": "logprobs"}, "include", id="list"),
    ],
)
async def test_what_can_not_be_given_is_refused_by_name(opened: Any, fields: dict[str, Any], param: str) -> None:
    async with opened() as (client, provider, _):
        reply = await ask(client, **fields)
        assert not provider.journal
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


async def test_a_form_without_a_file_and_a_body_that_is_no_form_are_refused(opened: Any) -> None:
    async with opened() as (client, _, _):
        missing = await client.post(PATH, files={"model": (None, MODEL)})
        wrong = await client.post(PATH, json={"model": MODEL})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "file")
    assert wrong.status_code == 400
    assert "form" in wrong.json()["error"]["message"]


# --- streams


async def test_a_streamed_transcription_has_deltas_and_all_of_it_at_the_end(opened: Any, events: Any) -> None:
    async with opened(transcript=lambda _parts: SAID) as (client, _, _):
        reply = await ask(client, stream="true")
    assert reply.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events(reply.text)
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 1
    assert "".join(event["delta"] for event in deltas) == SAID
    assert (done["type"], done["text"]) == ("transcript.text.done", SAID)
    assert done["usage"]["total_tokens"] > 0


async def test_segments_of_a_stream_are_events(opened: Any, events: Any) -> None:
    async with opened(transcript=lambda _parts: SAID) as (client, _, _):
        reply = await ask(client, stream="true", **{"timestamp_granularities[]": "segment"})
    segments = [event for event in events(reply.text) if event["type"] == "transcript.text.segment"]
    assert " ".join(event["text"].strip() for event in segments) == SAID
    assert [event["id"] for event in segments] == [f"seg_{number:03d}" for number in range(len(segments))]


async def test_words_that_a_guardrail_took_out_of_a_stream_are_nowhere(opened: Any, events: Any) -> None:
    guard = GuardrailPlugin([Regex("secret-[0-9]{2}", side="output", action="redact")])
    async with opened(plugins=[guard], transcript=lambda _parts: "it is secret-42, yes, he said") as (client, _, _):
        reply = await ask(client, stream="true", **{"timestamp_granularities[]": "segment"})
    assert "yes, he said" in events(reply.text)[-1]["text"]
    assert "42" not in reply.text


async def test_an_error_in_mid_stream_is_an_event(opened: Any, events: Any) -> None:
    async with opened(Fault("error_event", after=2), transcript=lambda _parts: SAID) as (client, _, _):
        reply = await ask(client, stream="true")
    *told, last = events(reply.text)
    assert told
    assert last["error"]["code"] == "stream_error"


# --- speech


async def test_speech_is_the_sound_itself(opened: Any) -> None:
    body = {"model": "mistral/voxtral-mini-tts-latest", "input": "hello", "voice": "alloy", "response_format": "wav"}
    async with opened() as (client, provider, _):
        reply = await client.post("/openai/v1/audio/speech", json=body)
        assert reply.status_code == 200
        wire = json.loads(provider.journal[-1].body)
    assert (wire["input"], wire["voice"], wire["response_format"]) == ("hello", "alloy", "wav")
    assert reply.headers["content-type"] == "audio/wav"
    assert reply.content[:4] == b"RIFF"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        pytest.param({"stream_format": "sse"}, "stream_format", id="events"),
        pytest.param({"stream": True}, "stream", id="stream"),
        pytest.param({"speed": "fast"}, "speed", id="speed"),
        pytest.param({"input": 3}, "input", id="input"),
    ],
)
async def test_speech_that_can_not_be_given_is_refused_by_name(opened: Any, more: dict[str, Any], param: str) -> None:
    async with opened() as (client, _, _):
        body = {"model": "mistral/voxtral-mini-tts-latest", "input": "hello", "voice": "alloy", **more}
        reply = await client.post("/openai/v1/audio/speech", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
