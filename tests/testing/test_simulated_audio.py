"""Transcription and speech of the simulated service, seen by a plain HTTP client."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import httpx
import pytest

from bifrost_core.testing import Fault, Latency, ServedPart, Simulated, SimulatedKey, SimulatedMistral

Json: TypeAlias = dict[str, Any]
Serve: TypeAlias = Callable[..., tuple[SimulatedMistral, httpx.Client]]
Send: TypeAlias = Callable[..., Awaitable[tuple[int, dict[str, str], bytes]]]

HEAR = "/v1/audio/transcriptions"
SPEAK = "/v1/audio/speech"
MODEL = {"model": "voxtral-mini-latest"}


def sound(seconds: float, rate: int = 8_000, level: int = 0) -> bytes:
    """A WAVE file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(level.to_bytes(2, "little") * int(seconds * rate))
    return file.getvalue()


def upload(data: bytes, name: str = "talk.wav", kind: str = "audio/wav") -> Json:
    return {"file": (name, data, kind)}


def named_events(text: str) -> list[tuple[str, Json]]:
    """Names and data of a stream's events, whose framing is checked on the way."""
    *frames, last = text.split("\n\n")
    assert last == ""
    found: list[tuple[str, Json]] = []
    for frame in frames:
        event, data = frame.split("\n")
        found.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
        assert found[-1][0] == found[-1][1]["type"]
    return found


# -- transcription -------------------------------------------------------------------------------------------------


def test_a_transcript_has_mistrals_shape_and_bills_the_sound(serve: Serve) -> None:
    server, client = serve(key={"requests_per_minute": 60, "audio_seconds_per_minute": 7_200})
    reply = client.post(HEAR, data=MODEL, files=upload(sound(3.7)))
    body = reply.json()
    words = body["text"].split()
    assert reply.status_code == 200
    assert body == {
        "model": "voxtral-mini-latest",
        "text": " ".join(words),
        "language": None,
        "segments": [],
        "usage": {
            "prompt_audio_seconds": 3,
            "prompt_tokens": 3,
            "total_tokens": 3 + len(words) + 1 + 375,
            "completion_tokens": len(words) + 1,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 375},
            "service_tier": "standard",
        },
        "finish_reason": None,
    }
    assert len(words) == round(3.7 * 2.5)
    assert {name: value for name, value in reply.headers.items() if "ratelimit" in name} == {
        "x-ratelimit-limit-req-minute": "60",
        "x-ratelimit-remaining-req-minute": "59",
        "x-ratelimit-limit-audio-seconds-minute": "7200",
        "x-ratelimit-remaining-audio-seconds-minute": "7197",
        "x-ratelimit-audio-seconds-query-cost": "3",
    }
    counters = server.counters["a"]
    assert (counters.audio_seconds, counters.prompt_tokens, counters.completion_tokens) == (3, 3, len(words) + 1)


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        pytest.param(sound(1.0), 1, id="wave"),
        pytest.param(sound(61.0, rate=44_100), 61, id="long-wave"),
        pytest.param(sound(0.2), 1, id="short-wave"),
        pytest.param(sound(9.0)[: 44 + 4 * 16_000], 4, id="wave-cut-off"),
        pytest.param(b"ID3" + bytes(80_000), 5, id="other"),
        pytest.param(b"RIFF\0\0\0\0WAVE", 1, id="wave-without-sound"),
        pytest.param(sound(1.0).replace(b"\x10\0\0\0", b"\x10\0\0\x7f", 1), 1, id="wave-with-wrong-sizes"),
        pytest.param(sound(1.0).replace(b"\x40\x1f\0\0", b"\0\0\0\0", 1), 1, id="wave-without-rate"),
    ],
)
def test_seconds_are_those_of_the_file(serve: Serve, data: bytes, seconds: int) -> None:
    _, client = serve()
    usage = client.post(HEAR, data=MODEL, files=upload(data)).json()["usage"]
    assert usage["prompt_audio_seconds"] == seconds
    assert usage["prompt_tokens_details"]["audio_tokens"] == 375 * -(-seconds // 30)


def test_equal_sounds_have_equal_transcripts(serve: Serve) -> None:
    _, client = serve()
    texts = [
        client.post(HEAR, data=MODEL, files=upload(data, name)).json()["text"]
        for data, name in ((sound(4), "a.wav"), (sound(4), "b.wav"), (sound(4, level=7), "a.wav"))
    ]
    assert texts[0] == texts[1] != texts[2]
    assert serve(seed=1)[1].post(HEAR, data=MODEL, files=upload(sound(4))).json()["text"] != texts[0]


def test_an_address_is_taken_for_ten_seconds_and_never_asked(serve: Serve) -> None:
    _, client = serve()
    form = {**MODEL, "file_url": "https://nowhere.invalid/talk.mp3", "language": "fr"}
    usage = client.post(HEAR, files={name: (None, value) for name, value in form.items()}).json()["usage"]
    assert (usage["prompt_audio_seconds"], usage["prompt_tokens"]) == (10, 5)


@pytest.mark.parametrize("name", ["timestamp_granularities", "timestamp_granularities[]"])
def test_segments_cover_the_sound_and_repeat_the_text(serve: Serve, name: str) -> None:
    _, client = serve()
    form = {**MODEL, name: ["segment"], "diarize": "true"}
    body = client.post(HEAR, data=form, files=upload(sound(8))).json()
    segments = body["segments"]
    assert "".join(segment["text"] for segment in segments) == body["text"]
    assert [segment["start"] for segment in segments] == [0.0, *(segment["end"] for segment in segments[:-1])]
    assert segments[-1]["end"] == 8.0
    assert [segment["speaker_id"] for segment in segments] == ["speaker_1", "speaker_2", "speaker_1"]
    assert {(segment["type"], segment["score"]) for segment in segments} == {("transcription_segment", None)}


def test_words_have_times_of_their_own(serve: Serve) -> None:
    _, client = serve()
    form = {**MODEL, "timestamp_granularities": "word"}
    body = client.post(HEAR, data=form, files=upload(sound(4))).json()
    assert [segment["text"].strip() for segment in body["segments"]] == body["text"].split()
    assert {segment["speaker_id"] for segment in body["segments"]} == {None}


def test_a_streamed_transcript_has_named_events_and_no_done_mark(serve: Serve) -> None:
    server, client = serve(key={"requests_per_minute": 60})
    plain = client.post(HEAR, data={**MODEL, "diarize": "1"}, files=upload(sound(5))).json()
    reply = client.post(HEAR, data={**MODEL, "diarize": "1", "stream": "true"}, files=upload(sound(5)))
    events = named_events(reply.text)
    deltas = [data["text"] for name, data in events if name == "transcription.text.delta"]
    segments = [data for name, data in events if name == "transcription.segment"]
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert not [name for name in reply.headers if "ratelimit" in name]
    assert events[0] == ("transcription.language", {"type": "transcription.language", "audio_language": "en"})
    assert len(deltas) > 1
    assert "".join(deltas) == plain["text"]
    assert [segment["text"] for segment in segments] == [segment["text"] for segment in plain["segments"]]
    assert events[-1] == ("transcription.done", {**plain, "type": "transcription.done"})
    first, second = server.requests
    assert (first.stream, second.stream) == (False, True)
    assert (first.audio_seconds, first.completion_tokens) == (second.audio_seconds, second.completion_tokens)


def test_a_streamed_transcript_takes_the_keys_time(serve: Serve) -> None:
    _, client = serve(key={"latency": Latency(0.02, tokens_per_second=200)})
    words = round(8 * 2.5) + 1
    reply = client.post(HEAR, data={**MODEL, "stream": "true"}, files=upload(sound(8)))
    assert reply.elapsed.total_seconds() >= 0.02 + words / 200 - 0.005


def test_the_test_can_write_the_transcript(serve: Serve) -> None:
    seen: list[Json] = []

    def transcript(form: Json) -> str:
        seen.append(form)
        return f"You sent {form['file'].filename}."

    _, client = serve(transcript=transcript)
    assert client.post(HEAR, data=MODEL, files=upload(sound(1))).json()["text"] == "You sent talk.wav."
    assert seen[0]["file"].data == sound(1)
    assert (seen[0]["model"], seen[0]["file"].content_type) == ("voxtral-mini-latest", "audio/wav")


def test_a_failing_transcript_function_is_a_500(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    _, client = serve(transcript=lambda _: 5)
    assert client.post(HEAR, data=MODEL, files=upload(sound(1))).json()["code"] == "1000"
    assert "answer function" in caplog.text


@pytest.mark.parametrize(
    ("form", "kind", "loc"),
    [
        pytest.param({"model": None}, "missing", ["model"], id="no-model"),
        pytest.param({"prompt": "x"}, "extra_forbidden", ["prompt"], id="prompt"),
        pytest.param({"response_format": "json"}, "extra_forbidden", ["response_format"], id="response_format"),
        pytest.param({"language": "english"}, "string_pattern_mismatch", ["language"], id="language"),
        pytest.param({"temperature": "warm"}, "float_type", ["temperature"], id="temperature"),
        pytest.param({"temperature": "nan"}, "float_type", ["temperature"], id="temperature-nan"),
        pytest.param({"stream": "perhaps"}, "bool_type", ["stream"], id="stream"),
        pytest.param({"diarize": "2"}, "bool_type", ["diarize"], id="diarize"),
        pytest.param({"file_url": "https://a.invalid"}, "value_error", [], id="two-sources"),
        pytest.param({"context_bias": ["a", "b c"]}, "string_pattern_mismatch", ["context_bias", 1], id="bias"),
        pytest.param({"context_bias": ["a"] * 101}, "too_long", ["context_bias"], id="too-much-bias"),
        pytest.param(
            {"timestamp_granularities": "line"}, "enum", ["timestamp_granularities", 0], id="granularity"
        ),
    ],
)  # fmt: skip
def test_a_bad_form_is_a_422(serve: Serve, form: Json, kind: str, loc: list[object]) -> None:
    server, client = serve()
    parts = {name: value for name, value in {**MODEL, **form}.items() if value is not None}
    reply = client.post(HEAR, data=parts, files=upload(sound(1)))
    (finding,) = reply.json()["detail"]
    assert (reply.status_code, finding["type"], finding["loc"]) == (422, kind, ["body", *loc])
    assert server.counters["a"].audio_seconds == 0


def test_a_file_that_is_text_and_no_file_at_all_are_a_422(serve: Serve) -> None:
    _, client = serve()
    reply = client.post(HEAR, files={"model": (None, "voxtral-mini-latest"), "file": (None, "talk")})
    assert [each["loc"] for each in reply.json()["detail"]] == [["body", "file"]]
    reply = client.post(HEAR, files={"model": (None, "voxtral-mini-latest")})
    assert (reply.status_code, reply.json()["detail"][0]["type"]) == (422, "value_error")


@pytest.mark.parametrize(
    ("form", "data", "code"),
    [
        pytest.param({"model": "mistral-small-latest"}, sound(1), "1500", id="model"),
        pytest.param({"language": "en", "timestamp_granularities": "segment"}, sound(1), "3051", id="two-wishes"),
        pytest.param({}, b"", "3310", id="empty-file"),
    ],
)
def test_what_cannot_be_transcribed_is_a_400(serve: Serve, form: Json, data: bytes, code: str) -> None:
    _, client = serve()
    reply = client.post(HEAR, data={**MODEL, **form}, files=upload(data))
    assert (reply.status_code, reply.json()["code"]) == (400, code)


@pytest.mark.parametrize("url", ["ftp://a.invalid/x", "talk.mp3", "https://", "data:audio/wav;base64,@@", "http://["])
def test_an_address_that_is_none_is_a_400(serve: Serve, url: str) -> None:
    _, client = serve()
    reply = client.post(HEAR, files={"model": (None, "voxtral-mini-latest"), "file_url": (None, url)})
    assert (reply.status_code, reply.json()["code"]) == (400, "3310")


def test_the_sound_limit_refuses(serve: Serve) -> None:
    _, client = serve(key={"audio_seconds_per_minute": 5})
    assert client.post(HEAR, data=MODEL, files=upload(sound(9))).status_code == 200
    reply = client.post(HEAR, data=MODEL, files=upload(sound(1)))
    assert (reply.status_code, reply.json()["code"]) == (429, "1300")
    assert reply.headers["x-ratelimit-limit-audio-seconds-minute"] == "5"
    assert "x-ratelimit-limit-req-minute" not in reply.headers


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "billed"),
    [
        pytest.param(Fault("status", status=503), 0, id="status"),
        pytest.param(Fault("empty"), 0, id="empty"),
        pytest.param(Fault("not_json"), 2, id="not_json"),
        pytest.param(Fault("truncate"), 2, id="truncate"),
        pytest.param(Fault("status", bills=True), 2, id="billed-status"),
    ],
)
def test_faults_meet_plain_transcriptions(serve: Serve, fault: Fault, billed: int) -> None:
    server, client = serve(fault)
    reply = client.post(HEAR, data=MODEL, files=upload(sound(2)))
    assert reply.status_code == (503 if fault.kind == "status" else 200)
    with pytest.raises((json.JSONDecodeError, KeyError)):
        json.loads(reply.content)["text"]
    assert server.requests[0].fault == fault.kind
    assert server.counters["a"].audio_seconds == billed


def test_an_error_event_ends_a_streamed_transcript(serve: Serve) -> None:
    _, client = serve(Fault("error_event", status=503, after=1))
    text = client.post(HEAR, data={**MODEL, "stream": "true"}, files=upload(sound(2))).text
    first, error, last = text.split("\n\n")
    assert first.startswith("event: transcription.language\n")
    assert json.loads(error.removeprefix("data: "))["object"] == "error"
    assert last == ""


@pytest.mark.parametrize("kind", ["close", "half_body"])
def test_a_streamed_transcript_can_be_cut(serve: Serve, kind: Any) -> None:
    server, client = serve(Fault(kind, after=2))
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(HEAR, data={**MODEL, "stream": "true"}, files=upload(sound(2)))
    assert server.wait_idle()
    assert server.counters["a"].audio_seconds == 2


def test_a_truncated_transcript_lacks_its_last_event(serve: Serve) -> None:
    _, client = serve(Fault("truncate"))
    events = named_events(client.post(HEAR, data={**MODEL, "stream": "true"}, files=upload(sound(2))).text)
    assert [name for name, _ in events] == ["transcription.language", "transcription.text.delta"]


def test_a_stream_without_a_done_mark_cannot_lose_it(serve: Serve) -> None:
    _, client = serve(Fault("no_done"))
    events = named_events(client.post(HEAR, data={**MODEL, "stream": "true"}, files=upload(sound(2))).text)
    assert events[-1][0] == "transcription.done"


# -- the journal ---------------------------------------------------------------------------------------------------


def test_the_journal_keeps_names_and_sizes_of_a_forms_parts(serve: Serve) -> None:
    server, client = serve(keep_bodies=True)
    data = sound(1)
    client.post(HEAR, data={**MODEL, "language": "de"}, files=upload(data))
    (record,) = server.requests
    assert (record.model, record.body) == ("voxtral-mini-latest", None)
    assert record.parts == (
        ServedPart("model", 19),
        ServedPart("language", 2),
        ServedPart("file", len(data), "talk.wav", "audio/wav"),
    )


def test_nothing_of_a_form_is_kept_unasked(serve: Serve) -> None:
    server, client = serve()
    client.post(HEAR, data=MODEL, files=upload(sound(1)))
    assert (server.requests[0].parts, server.requests[0].body) == ((), None)


# -- speech --------------------------------------------------------------------------------------------------------


def test_speech_is_json_with_sound_in_it(serve: Serve) -> None:
    server, client = serve(key={"characters_per_minute": 24_000, "requests_per_minute": 1})
    said = "Grüße aus dem Norden"
    asked = {"model": "voxtral-mini-tts-latest", "input": said, "response_format": "wav", "voice": "anybody"}
    reply = client.post(SPEAK, json=asked)
    assert list(reply.json()) == ["audio_data"]
    with wave.open(io.BytesIO(base64.b64decode(reply.json()["audio_data"]))) as heard:
        assert heard.getnframes() / heard.getframerate() == pytest.approx(len(said) * 0.06)
    assert {name: value for name, value in reply.headers.items() if "ratelimit" in name} == {
        "x-ratelimit-limit-input-characters-minute": "24000",
        "x-ratelimit-remaining-input-characters-minute": str(24_000 - len(said)),
        "x-ratelimit-input-characters-query-cost": str(len(said)),
    }
    assert server.counters["a"].characters == len(said)
    assert client.post(SPEAK, json=asked).status_code == 200  # requests are not what is limited


@pytest.mark.parametrize(("form", "size"), [("pcm", 2 * 24_000 * 0.6), ("mp3", 96 * 25), (None, 96 * 25)], ids=str)
def test_speech_comes_in_the_form_asked_for(serve: Serve, form: str | None, size: float) -> None:
    _, client = serve()
    asked = {"input": "ten chars.", **({} if form is None else {"response_format": form})}
    heard = base64.b64decode(client.post(SPEAK, json=asked).json()["audio_data"])
    assert len(heard) == size
    assert form == "pcm" or [heard[at : at + 2] for at in range(0, len(heard), 96)] == [b"\xff\xf3"] * 25


def test_streamed_speech_gives_the_same_sound_in_pieces(serve: Serve) -> None:
    _, client = serve()
    asked = {"model": "voxtral-mini-tts-2603", "input": "Hello there, how do you do?", "response_format": "pcm"}
    plain = base64.b64decode(client.post(SPEAK, json=asked).json()["audio_data"])
    *deltas, (last, done) = named_events(client.post(SPEAK, json={**asked, "stream": True}).text)
    assert {name for name, _ in deltas} == {"speech.audio.delta"}
    assert len(deltas) > 1
    assert b"".join(base64.b64decode(data["audio_data"]) for _, data in deltas) == plain
    usage = done["usage"]
    assert last == "speech.audio.done"
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        pytest.param({"input": None}, 422, "string_type", id="input"),
        pytest.param({"response_format": "ogg"}, 422, "enum", id="format"),
        pytest.param({"response_format": "opus"}, 400, "pcm, wav, mp3", id="format-not-made"),
        pytest.param({"stream": "true"}, 422, "bool_type", id="stream"),
        pytest.param({"model": "voxtral-mini-latest"}, 400, "invalid_model", id="model"),
    ],
)
def test_what_cannot_be_spoken_is_refused(serve: Serve, change: Json, status: int, said: str) -> None:
    _, client = serve()
    reply = client.post(SPEAK, json={"input": "x", **change})
    assert reply.status_code == status
    assert said in reply.text


# -- without a network ---------------------------------------------------------------------------------------------


def as_pieces(data: bytes) -> Iterator[bytes]:
    yield from (data[at : at + 1_000] for at in range(0, len(data), 1_000))


async def as_async_pieces(data: bytes) -> AsyncIterator[bytes]:
    for piece in as_pieces(data):
        yield piece


@pytest.mark.parametrize("body", [None, as_pieces, as_async_pieces], ids=["bytes", "pieces", "async-pieces"])
async def test_without_a_network_it_answers_the_same(serve: Serve, exchange: Send, body: Any) -> None:
    provider = Simulated([SimulatedKey("one")], keep_bodies=True)
    form: Json = {"data": {"model": "any-model"}, "files": upload(sound(3))}
    status, headers, data = await exchange(provider, "POST", HEAR, body=body, **form)
    _, client = serve(models=["any-model"])
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(data)["usage"]["prompt_audio_seconds"] == 3
    assert provider.counters["one"].audio_seconds == 3
    assert [part.name for part in provider.journal[0].parts] == ["model", "file"]
    assert client.post(HEAR, **form).json()["code"] == "1500"  # a model that only chats, where models are checked


async def test_without_a_network_a_transcript_streams(exchange: Send) -> None:
    provider = Simulated([SimulatedKey("one", latency=Latency(0.01))], transcript=lambda _: "Hear, hear!")
    form: Json = {"data": {"model": "m", "stream": "true"}, "files": upload(sound(3))}
    _, headers, data = await exchange(provider, "POST", HEAR, **form)
    events = named_events(data.decode())
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "".join(data["text"] for name, data in events if name.endswith("delta")) == "Hear, hear!"
    assert provider.journal[0].stream


async def test_without_a_network_a_body_has_a_bound(exchange: Send) -> None:
    provider = Simulated(["one"])
    status, _, data = await exchange(
        provider, "POST", HEAR, body=lambda _: (bytes(2**20) for _ in range(40)), data=MODEL
    )
    assert (status, json.loads(data)) == (413, {"message": "request body too large"})
