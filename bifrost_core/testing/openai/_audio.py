"""Transcription and speech; what is said and spoken is made up as in ``serving._sounds``.

Source:
    https://platform.openai.com/docs/api-reference/audio (members, formats, events),
    https://platform.openai.com/docs/guides/speech-to-text (which model has which formats; ``whisper-1`` pays no
    heed to ``stream``) and https://platform.openai.com/docs/guides/text-to-speech.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bifrost_core.forms import Field, Upload
from bifrost_core.testing.serving._answers import Json, count_tokens, tokenize
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import SSE, TEXT, Event, Reply
from bifrost_core.testing.serving._sounds import FORMATS, seconds_of, silence, spoken_words

from ._generations import logprobs_of
from ._members import Check, anything, boolean, check_members, choice, list_of, mapping, number, refused, text
from ._vendor import limit_headers

__all__ = ["answer_speech", "answer_transcription", "check_speech", "check_transcription", "fold_transcription"]

_LISTS: Final = frozenset(
    {
        "include",
        "keywords",
        "known_speaker_names",
        "known_speaker_references",
        "languages",
        "timestamp_granularities",
    }
)
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}
_TOKENS_PER_SECOND: Final = 10  # of sound that comes in
_SEGMENT: Final = 8  # words
_MOST_SAID: Final = 4096  # characters
_DELTA: Final = 16 * 1024  # bytes of sound in one event
_TYPES: Final = {"mp3": "audio/mpeg", "wav": "audio/wav", "pcm": "audio/pcm"}

_encode = msgspec.json.Encoder().encode


# -- transcription -----------------------------------------------------------------------------------------------


def fold_transcription(fields: Sequence[Field]) -> Json:
    """The form as an object: repeated parts as lists, booleans and numbers read where they are spelled right."""
    body: Json = {}
    for spelled, value in fields:
        name = spelled.removesuffix("[]")
        if name in _LISTS:
            body.setdefault(name, []).append(value)
        elif name == "stream" and isinstance(value, str):
            body[name] = _TRUTH.get(value.lower(), value)
        elif name == "temperature" and isinstance(value, str):
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


def _file(path: str, value: object) -> None:
    if not isinstance(value, Upload):
        raise refused(f"Invalid type for '{path}': expected a file.", path, "invalid_type")


_MEMBERS: Final[dict[str, Check]] = {
    "chunking_strategy": anything,
    "file": _file,
    "include": list_of(choice("logprobs")),
    "keywords": list_of(text),
    "known_speaker_names": list_of(text),
    "known_speaker_references": anything,
    "language": text,
    "languages": list_of(text),
    "model": text,
    "prompt": text,
    "response_format": choice("json", "text", "srt", "verbose_json", "vtt", "diarized_json"),
    "stream": boolean,
    "temperature": number(0, 1),
    "timestamp_granularities": list_of(choice("word", "segment")),
}


def check_transcription(body: Json) -> None:
    """Refuse what transcription refuses.

    Raises:
        OpenAIError: 400 for the first finding, and for formats that the model does not have.
    """
    check_members(body, _MEMBERS, ("file", "model"))
    form: str = body.get("response_format") or "json"
    whisper = "whisper" in body["model"]
    if form == "diarized_json" or (form not in {"json", "text"} and not whisper):
        message = (
            f"response_format '{form}' is not compatible with model '{body['model']}'. Use 'json' or 'text' instead."
        )
        raise refused(message, "response_format", "unsupported_value")
    if "timestamp_granularities" in body and form != "verbose_json":
        message = "timestamp_granularities is only supported with response_format 'verbose_json'."
        raise refused(message, "timestamp_granularities", "invalid_value")


def answer_transcription(question: Question) -> Reply:
    """What is said in the sound, plain or streamed.

    Raises:
        ApiError: The model or a limit refuses, or there is nothing in the file.
    """
    body = question.body
    quota = question.admit("audio_transcription", "req", "tokens", "audio-seconds").quota
    upload: Upload = body["file"]
    if not upload.data:
        raise refused("Audio file might be corrupted or unsupported", "file", "invalid_value")
    duration = seconds_of(upload.data)
    seconds = max(1, math.ceil(duration))
    law = question.service.transcript
    made = spoken_words(upload.data, duration, question.service.seed)
    words = made if law is None else question.ask(lambda: tokenize(law(body)))
    sound, heard = seconds * _TOKENS_PER_SECOND, count_tokens(body.get("prompt") or "") - 1
    quota.charge("audio-seconds", seconds)
    quota.charge("tokens", sound + heard + len(words))
    reply = question.reply()
    reply.headers = limit_headers(quota)
    reply.prompt_tokens, reply.completion_tokens, reply.audio_seconds = sound + heard, len(words), seconds
    if "whisper" in body["model"]:
        usage: Json = {"type": "duration", "seconds": seconds}
    else:
        usage = {
            "type": "tokens",
            "input_tokens": sound + heard,
            "input_token_details": {"text_tokens": heard, "audio_tokens": sound},
            "output_tokens": len(words),
            "total_tokens": sound + heard + len(words),
        }
    said = "".join(words)
    logprobs = logprobs_of(words, 0, question.rng) if "logprobs" in body.get("include", ()) else None
    if question.streams and "whisper" not in body["model"]:
        reply.content_type = SSE
        reply.events = _spoken_events(words, usage, logprobs)
        reply.tail = 1
        return reply
    form: str = body.get("response_format") or "json"
    if form == "json":
        extra = {} if logprobs is None else {"logprobs": [_bare(each) for each in logprobs]}
        reply.body = _encode({"text": said, **extra, "usage": usage})
    elif form == "verbose_json":
        reply.body = _encode(_verbose(words, duration, body, usage))
    else:
        reply.content_type = TEXT
        reply.body = _subtitles(words, duration, form).encode()
    return reply


def _bare(entry: Json) -> Json:
    """A token and how likely it was, without others."""
    return {name: entry[name] for name in ("token", "logprob", "bytes")}


def _spoken_events(words: tuple[str, ...], usage: Json, logprobs: list[Json] | None) -> list[Event]:
    """The events of a streamed transcript; no ``[DONE]`` follows."""
    events: list[Event] = []
    for at, word in enumerate(words):
        extra = {} if logprobs is None else {"logprobs": [_bare(logprobs[at])]}
        data = _encode({"type": "transcript.text.delta", "delta": word, **extra})
        events.append(Event(at + 1, b"data: " + data + b"\n\n"))
    extra = {} if logprobs is None else {"logprobs": [_bare(each) for each in logprobs]}
    data = _encode({"type": "transcript.text.done", "text": "".join(words), **extra, "usage": usage})
    return [*events, Event(len(words), b"data: " + data + b"\n\n")]


def _segments(words: tuple[str, ...], duration: float) -> list[tuple[float, float, str]]:
    """Start, end and text of each group of words."""
    pace = duration / max(1, len(words))
    return [
        (round(at * pace, 2), round(min(at + _SEGMENT, len(words)) * pace, 2), "".join(words[at : at + _SEGMENT]))
        for at in range(0, len(words), _SEGMENT)
    ]


def _verbose(words: tuple[str, ...], duration: float, body: Json, usage: Json) -> Json:
    wanted: list[str] = body.get("timestamp_granularities") or ["segment"]
    found: Json = {
        "task": "transcribe",
        "language": body.get("language") or "english",
        "duration": round(duration, 2),
        "text": "".join(words),
    }
    if "word" in wanted:
        pace = duration / max(1, len(words))
        found["words"] = [
            {"word": word.strip(), "start": round(at * pace, 2), "end": round((at + 1) * pace, 2)}
            for at, word in enumerate(words)
        ]
    if "segment" in wanted:
        found["segments"] = [
            {
                "id": index,
                "seek": 0,
                "start": start,
                "end": end,
                "text": said,
                "tokens": list(range(index * _SEGMENT, index * _SEGMENT + len(said.split()))),
                "temperature": body.get("temperature") or 0.0,
                "avg_logprob": -0.25,
                "compression_ratio": 1.2,
                "no_speech_prob": 0.01,
            }
            for index, (start, end, said) in enumerate(_segments(words, duration))
        ]
    return {**found, "usage": usage}


def _subtitles(words: tuple[str, ...], duration: float, form: str) -> str:
    """Plain text, SubRip or WebVTT."""
    if form == "text":
        return "".join(words) + "\n"
    mark = "," if form == "srt" else "."

    def clock(seconds: float) -> str:
        minutes, rest = divmod(round(seconds * 1000), 60_000)
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"

    blocks = [
        (f"{number}\n" if form == "srt" else "") + f"{clock(start)} --> {clock(end)}\n{said.strip()}\n"
        for number, (start, end, said) in enumerate(_segments(words, duration), 1)
    ]
    return ("" if form == "srt" else "WEBVTT\n\n") + "\n".join(blocks) + "\n"


# -- speech ------------------------------------------------------------------------------------------------------


def _said(path: str, value: object) -> None:
    text(path, value)
    if isinstance(value, str) and len(value) > _MOST_SAID:
        message = f"Invalid '{path}': string too long. Expected a string with maximum length {_MOST_SAID}"
        raise refused(f"{message}, but got a string with length {len(value)} instead.", path, "string_above_max_length")


def _voice(path: str, value: object) -> None:
    if not isinstance(value, str):
        mapping(path, value)


_SPEECH: Final[dict[str, Check]] = {
    "input": _said,
    "instructions": text,
    "model": text,
    "response_format": choice("mp3", "opus", "aac", "flac", "wav", "pcm"),
    "speed": number(0.25, 4),
    "stream_format": choice("audio", "sse"),
    "voice": _voice,
}


def check_speech(body: Json) -> None:
    """Refuse what speech refuses, and the formats that this service cannot make.

    Raises:
        OpenAIError: 400 for the first finding.
    """
    check_members(body, _SPEECH, ("model", "input", "voice"))
    form: str = body.get("response_format") or "mp3"
    if form not in FORMATS:
        message = f"The simulated service speaks {', '.join(FORMATS)} only."
        raise refused(message, "response_format", "unsupported_value")
    if body.get("stream_format") == "sse" and str(body["model"]).startswith("tts-1"):
        message = f"'sse' is not supported with model '{body['model']}'."
        raise refused(message, "stream_format", "unsupported_value")


def answer_speech(question: Question) -> Reply:
    """Silence in the format asked for, as bytes or as events.

    Raises:
        ApiError: The model or a limit refuses.
    """
    body = question.body
    said: str = body["input"]
    quota = question.admit("audio_speech", "req", "input-characters").quota
    quota.charge("input-characters", len(said))
    form: str = body.get("response_format") or "mp3"
    sound, tokens = silence(said, form)
    reply = question.reply()
    reply.headers = limit_headers(quota)
    reply.characters, reply.completion_tokens = len(said), tokens
    if body.get("stream_format") == "sse":
        reply.content_type = SSE
        reply.events = _speech_events(sound, count_tokens(said), tokens)
        reply.tail = 1
    else:
        reply.content_type, reply.body = _TYPES[form], sound
    return reply


def _speech_events(sound: bytes, prompt: int, completion: int) -> list[Event]:
    parts = [sound[at : at + _DELTA] for at in range(0, len(sound), _DELTA)]
    rows: list[tuple[int, dict[str, Any]]] = [
        (
            completion * number // len(parts),
            {"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()},
        )
        for number, part in enumerate(parts, 1)
    ]
    usage = {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion}
    rows.append((completion, {"type": "speech.audio.done", "usage": usage}))
    return [Event(tokens, b"data: " + _encode(members) + b"\n\n") for tokens, members in rows]
