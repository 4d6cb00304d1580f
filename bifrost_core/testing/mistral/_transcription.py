"""Transcription: made-up words, as many as the sound is long, or the test's own.

Equal sounds have equal transcripts. Seconds are those of a RIFF/WAVE file's header; other files count as
one second per 16,000 bytes (128 kbit/s), and an address, which is never asked, as ten seconds.

Source:
    https://docs.mistral.ai/api/endpoint/audio/transcriptions (fields, events),
    https://docs.mistral.ai/capabilities/audio/speech_to_text (bounds), and replies as they come since 2025:
    ``finish_reason``, 375 tokens of sound per 30 seconds begun, ``language`` null in most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from bifrost_core.forms import Field, Upload
from bifrost_core.testing.serving._answers import Json, tokenize
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import SSE, Event, Reply, named_event
from bifrost_core.testing.serving._sounds import seconds_of, spoken_words

from ._errors import MistralError, detail_item
from ._members import (
    Check,
    anything,
    boolean,
    check_members,
    choice,
    list_of,
    number,
    pattern,
    refuse,
    text,
)
from ._sources import Source, from_address, from_file, from_file_id
from ._vendor import limit_headers

__all__ = ["answer_transcription", "check_transcription", "fold_transcription"]

_LISTS: Final = frozenset({"context_bias", "timestamp_granularities", "speaker_references"})
_SPELLINGS: Final = {"timestamp_granularities[]": "timestamp_granularities"}  # OpenAI's, which works too
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}
_SOURCES: Final = ("file", "file_url", "file_id")
_MAX_BIAS: Final = 100
_SECONDS_UNKNOWN: Final = 10.0
_WINDOW: Final = 30.0  # seconds of sound that cost
_WINDOW_TOKENS: Final = 375
_SEGMENT: Final = 8  # words
_DELTA: Final = 3  # words

_encode = msgspec.json.Encoder().encode


# -- the form ----------------------------------------------------------------------------------------------------


def fold_transcription(fields: Sequence[Field]) -> Json:
    """The form as an object: repeated parts as lists, booleans and numbers read where they are spelled right."""
    body: Json = {}
    for spelled, value in fields:
        name = _SPELLINGS.get(spelled, spelled)
        if name in _LISTS:
            body.setdefault(name, []).append(value)
        elif isinstance(value, str) and name in {"stream", "diarize"}:
            body[name] = _TRUTH.get(value.lower(), value)
        elif isinstance(value, str) and name == "temperature":
            body[name] = _to_number(value)
        else:
            body[name] = value
    return body


def _to_number(value: str) -> float | str:
    try:
        found = float(value)
    except ValueError:
        return value
    return found if math.isfinite(found) else value


def _file(loc: list[str | int], value: object) -> list[dict[str, Any]]:
    """A part with a file."""
    if isinstance(value, Upload):
        return []
    return [detail_item("value_error", loc, "Value error, Expected UploadFile, received: <class 'str'>", value)]


_MEMBERS: Final[dict[str, Check]] = {
    "model": text,
    "file": _file,
    "file_url": pattern(r"\S{1,2083}"),
    "file_id": text,
    "language": pattern(r"\w{2}"),
    "temperature": number,
    "stream": boolean,
    "diarize": boolean,
    "context_bias": list_of(pattern(r"[^,\s]+")),
    "timestamp_granularities": list_of(choice("segment", "word")),
    "speaker_references": anything,
}


def check_transcription(body: Json) -> None:
    """Refuse what transcription refuses.

    Raises:
        MistralError: 422 for the parts of the form; 400 for ``language`` beside ``timestamp_granularities``, which
            the documentation forbids (how the refusal looks is documented nowhere).
    """
    found = check_members(body, _MEMBERS, ("model",))
    given = [name for name in _SOURCES if name in body]
    if len(given) != 1:
        words = "Value error, Exactly one of file, file_url and file_id must be provided"
        found.append(detail_item("value_error", [], words, body))
    if len(body.get("context_bias", [])) > _MAX_BIAS:
        words = f"List should have at most {_MAX_BIAS} items after validation, not {len(body['context_bias'])}"
        found.append(detail_item("too_long", ["context_bias"], words, len(body["context_bias"])))
    refuse(found)
    if "language" in body and "timestamp_granularities" in body:
        words = "timestamp_granularities cannot be combined with language."
        raise MistralError.object(400, "invalid_request_invalid_args", "3051", words)


# -- the answer --------------------------------------------------------------------------------------------------


def answer_transcription(question: Question) -> Reply:
    """What is said in the sound, plain or streamed.

    Raises:
        MistralError: The model or a limit refuses, or there is no such file.
    """
    body = question.body
    quota = question.admit("audio_transcription", "req", "audio-seconds").quota
    source = _source(question)
    duration = _duration(source)
    seconds = max(1, int(duration))
    quota.charge("audio-seconds", seconds)
    law = question.service.transcript
    made = spoken_words(source.identity, duration, question.service.seed)
    words = made if law is None else question.ask(lambda: tokenize(law(body)))
    segments = _segments(words, duration, body)
    prompt = 3 + 2 * ("language" in body)
    sound = _WINDOW_TOKENS * math.ceil(seconds / _WINDOW)
    completion = len(words) + 1
    usage = {
        "prompt_audio_seconds": seconds,
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion + sound,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": sound},
        "service_tier": "standard",
    }
    whole: Json = {
        "model": body["model"],
        "text": "".join(words),
        "language": None,
        "segments": segments,
        "usage": usage,
        "finish_reason": None,
    }
    reply = question.reply()
    reply.prompt_tokens, reply.completion_tokens, reply.audio_seconds = prompt, completion, seconds
    if question.streams:
        reply.content_type = SSE
        reply.events = list(_events(words, whole, body.get("language", "en")))
    else:
        reply.headers = [
            ("x-max-retry-attempts-reached", "false"),
            *limit_headers(quota, "req", "audio-seconds"),
            ("x-ratelimit-audio-seconds-query-cost", str(seconds)),
        ]
        reply.body = _encode(whole)
    return reply


def _source(question: Question) -> Source:
    body = question.body
    if "file" in body:
        upload: Upload = body["file"]
        return from_file(upload.data, upload.content_type)
    if "file_id" in body:
        return from_file_id(question, body["file_id"])
    return from_address(question, body["file_url"])


def _duration(source: Source) -> float:
    """Seconds of sound.

    Raises:
        MistralError: 400: there is nothing in the file.
    """
    if source.data is None:
        return _SECONDS_UNKNOWN
    if not source.data:
        raise MistralError.object(400, "invalid_request_file", "3310", "Audio input could not be decoded.")
    return seconds_of(source.data)


def _segments(words: tuple[str, ...], duration: float, body: Json) -> list[Json]:
    """The words with their times, if they were asked for; speakers take turns."""
    wanted: list[str] = body.get("timestamp_granularities") or (["segment"] if body.get("diarize") else [])
    if not wanted:
        return []
    size = 1 if "word" in wanted else _SEGMENT
    pace = duration / max(1, len(words))
    return [
        {
            "type": "transcription_segment",
            "text": "".join(words[at : at + size]),
            "start": round(at * pace, 3),
            "end": round(min(at + size, len(words)) * pace, 3),
            "score": None,
            "speaker_id": f"speaker_{1 + at // _SEGMENT % 2}" if body.get("diarize") else None,
        }
        for at in range(0, len(words), size)
    ]


def _events(words: tuple[str, ...], whole: Json, language: str) -> Iterator[Event]:
    """The events of a streamed transcript; no ``[DONE]`` follows.

    Of these only ``transcription.done`` has been observed; the others are as documented.
    """

    def event(tokens: int, name: str, members: Json) -> Event:
        return named_event(tokens, name, _encode({**members, "type": name}))

    yield event(0, "transcription.language", {"audio_language": language})
    for at in range(0, len(words), _DELTA):
        piece = words[at : at + _DELTA]
        yield event(at + len(piece), "transcription.text.delta", {"text": "".join(piece)})
    for segment in whole["segments"]:
        members = {name: segment[name] for name in ("text", "start", "end", "speaker_id")}
        yield event(len(words), "transcription.segment", members)
    yield event(len(words) + 1, "transcription.done", whole)
