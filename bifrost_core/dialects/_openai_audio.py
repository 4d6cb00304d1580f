"""Sound as OpenAI's SDKs ask for it: transcriptions (a form in, one of several formats out) and speech.

Source:
    https://platform.openai.com/docs/api-reference/audio/createTranscription,
    https://platform.openai.com/docs/api-reference/audio/transcript-text-delta-event (streams) and
    https://platform.openai.com/docs/api-reference/audio/createSpeech. Subtitles: the SubRip format as
    https://en.wikipedia.org/wiki/SubRip describes it, and https://www.w3.org/TR/webvtt1/.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import re
from collections.abc import Mapping, Sequence
from typing import Final

from bifrost_core.errors import BifrostError
from bifrost_core.responses import Response, Segment, SpeechResponse, Transcription
from bifrost_core.types import Chunk, JsonObject, Operation, Request, Usage

from ._bodies import Members, answer_of, check_types, encode, form_of, invalid, members_of, unsupported
from ._openai_errors import problem_of
from ._whole import WholeRenderer
from .base import JSON, Inbound, Order, Reply

__all__ = ["TranscriptionRenderer", "read_speech", "read_transcription"]

_TEXT: Final = "text/plain; charset=utf-8"
_SUBTITLES: Final = ("srt", "vtt")
_STREAMED: Final = ("json", "text")
_GRANULARITIES: Final = "timestamp_granularities"
_LISTS: Final = frozenset({_GRANULARITIES, "include", "known_speaker_names", "known_speaker_references", "fallbacks"})
_BOOLEANS: Final = frozenset({"stream", "diarize"})
_NESTED: Final = re.compile(r"(\w+)\[(\w+)\]")
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "aac": "audio/aac",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "pcm": "audio/pcm",
    "wav": "audio/wav",
}


# --- transcription: the request


def read_transcription(inbound: Inbound, now: int) -> Order:  # noqa: ARG001 # its answer has no date
    """An order for a transcription.

    ``text`` is written here and asked of no provider; so are subtitles, of the times of segments.

    Raises:
        CallError: The form makes no sense; names the field.
    """
    texts, files = form_of(inbound)
    members = Members(_fields(texts))
    if not members.model:
        raise invalid("'model' is missing; name one as provider/model", "model")
    if not any(file.name == "file" for file in files):
        raise invalid("'file' is missing; send the sound as a part with a file name", "file")
    body = members.body
    form = body.get("response_format", "json")
    if members.stream and form not in _STREAMED:
        raise unsupported("response_format", f"a streamed transcription has no {form[:32]!r}; it is json or text")
    if form in _STREAMED:
        body = {name: value for name, value in body.items() if name != "response_format"}
    elif form in _SUBTITLES:
        if body.get(_GRANULARITIES, ["segment"]) != ["segment"]:
            raise unsupported(_GRANULARITIES, "subtitles are made of segments")
        body = {**body, "response_format": "verbose_json", _GRANULARITIES: ["segment"]}
    elif form == "verbose_json":
        body = {_GRANULARITIES: ["segment"], **body}  # what it has unless something else was asked for
    request = Request(Operation.TRANSCRIPTION, members.model, body, files, stream=members.stream)
    return Order(request, TranscriptionRenderer(form, body.get(_GRANULARITIES, ())), members.fallbacks)


def _fields(texts: Mapping[str, list[str]]) -> JsonObject:
    """The texts of a form as what they stand for."""
    body: JsonObject = {}
    for name, values in texts.items():
        nested = _NESTED.fullmatch(name)
        if name in _LISTS:
            body[name] = values
        elif len(values) > 1:
            raise invalid(f"{name!r} was given {len(values)} times; once is enough", name)
        elif nested is not None:
            inside: JsonObject = body.setdefault(nested[1], {})
            inside[nested[2]] = values[0]
        elif name in _BOOLEANS:
            body[name] = _boolean(name, values[0])
        elif name == "temperature":
            body[name] = _number(name, values[0])
        else:
            body[name] = values[0]
    return body


def _boolean(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise invalid(f"{name!r} is neither true nor false", name)
    return text == "true"


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    raise invalid(f"{name!r} is no number", name)


# --- transcription: the answer


class TranscriptionRenderer:
    """Writes a transcription in the format that was asked for.

    Args:
        form: ``response_format``.
        granularities: What times were asked for: of ``segment``, ``word``, or both.
    """

    def __init__(self, form: str, granularities: Sequence[str] = ()) -> None:
        self._form = form
        self._granularities = granularities
        self._segments = 0

    def whole(self, response: Response) -> Reply:
        """The transcription.

        Raises:
            PluginError: The answer is none.
            UnsupportedParameterError: Subtitles were asked for, and the provider tells no times.
        """
        answer = answer_of(Transcription, response)
        if self._form == "text":
            return Reply(200, {"content-type": _TEXT}, f"{answer.text}\n".encode())
        if self._form in _SUBTITLES:
            return Reply(200, {"content-type": _TEXT}, self._subtitles(answer).encode())
        told = answer.raw
        if not _is_openai(told):
            told = self._verbose(answer) if self._form == "verbose_json" else _plain(answer)
        return Reply(200, {"content-type": JSON}, encode(told))

    def _verbose(self, answer: Transcription) -> JsonObject:
        """With times. What providers do not tell of a segment (tokens, probabilities) is not there."""
        ends = [segment.end for segment in answer.segments if segment.end is not None]
        told: JsonObject = {
            "task": "transcribe",
            "language": answer.language,
            "duration": answer.usage.audio_seconds or max(ends, default=0.0),
            "text": answer.text,
        }
        stretches = [_stretch(number, segment) for number, segment in enumerate(answer.segments)]
        if "word" in self._granularities:
            told["words"] = [{"word": each["text"], "start": each["start"], "end": each["end"]} for each in stretches]
        else:
            told["segments"] = stretches
        if answer.usage.audio_seconds:
            told["usage"] = {"type": "duration", "seconds": answer.usage.audio_seconds}
        return told

    def _subtitles(self, answer: Transcription) -> str:
        blocks: list[str] = []
        mark = "," if self._form == "srt" else "."
        for number, segment in enumerate(answer.segments, 1):
            if segment.start is None or segment.end is None:
                raise unsupported("response_format", "the provider tells no times of the segments")
            times = f"{_time(segment.start, mark)} --> {_time(segment.end, mark)}"
            text = " ".join(segment.text.split())
            blocks.append(f"{number}\n{times}\n{text}\n" if self._form == "srt" else f"{times}\n{text}\n")
        if answer.text and not blocks:
            raise unsupported("response_format", "the provider tells no segments")
        return "\n".join(blocks if self._form == "srt" else ["WEBVTT\n", *blocks])

    def feed(self, chunks: Sequence[Chunk]) -> bytes:
        """Events that tell these chunks."""
        return b"".join(_event(event) for chunk in chunks for event in self._events(chunk))

    def _events(self, chunk: Chunk) -> list[JsonObject]:
        raw = chunk.raw
        kind = raw.get("type")
        if isinstance(kind, str) and kind.startswith("transcript."):  # OpenAI's own
            return [] if kind == "transcript.text.done" else [raw]  # the end is told once all of it is known
        if kind == "transcription.segment" and raw.get("text"):
            told: JsonObject = {"type": "transcript.text.segment", "id": f"seg_{self._segments:03d}"}
            self._segments += 1
            named: JsonObject = {name: raw[name] for name in ("start", "end", "text") if name in raw}
            speaker = raw.get("speaker_id", raw.get("speaker"))
            return [{**told, **named, "speaker": "" if speaker is None else str(speaker)}]
        return [{"type": "transcript.text.delta", "delta": chunk.text}] if chunk.text else []

    def finish(self, response: Response) -> bytes:
        """The last event, with all of the text."""
        answer = answer_of(Transcription, response)
        told: JsonObject = {"type": "transcript.text.done", "text": answer.text}
        raw = answer.raw if _is_openai(answer.raw) else _plain(answer)
        return _event({**told, **{name: value for name, value in raw.items() if name not in told}})

    def fail(self, error: BifrostError) -> bytes:
        """An event that OpenAI's SDKs raise as an error."""
        return _event(problem_of(error))


def _event(event: JsonObject) -> bytes:
    return b"data: " + encode(event) + b"\n\n"


def _is_openai(raw: JsonObject) -> bool:
    """Whether an answer is in OpenAI's shape: its usage says of what type it is."""
    usage = raw.get("usage")
    return isinstance(usage, dict) and usage.get("type") in ("tokens", "duration") and isinstance(raw.get("text"), str)


def _plain(answer: Transcription) -> JsonObject:
    told: JsonObject = {"text": answer.text}
    if (counted := _usage(answer.usage)) is not None:
        told["usage"] = counted
    return told


def _usage(usage: Usage) -> JsonObject | None:
    if usage.total_tokens:
        counted = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        return {"type": "tokens", **counted, "total_tokens": usage.total_tokens}
    return {"type": "duration", "seconds": usage.audio_seconds} if usage.audio_seconds else None


def _stretch(number: int, segment: Segment) -> JsonObject:
    told: JsonObject = {"id": number, "start": segment.start, "end": segment.end, "text": segment.text}
    return told if segment.speaker is None else {**told, "speaker": segment.speaker}


def _time(seconds: float, mark: str) -> str:
    """``hh:mm:ss``, ``mark``, milliseconds."""
    whole = round(seconds * 1000)
    minutes, rest = divmod(whole, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"


# --- speech

_SPEECH_TYPES: Final[Mapping[str, type]] = {
    "input": str,
    "instructions": str,
    "response_format": str,
    "speed": float,
    "stream_format": str,
}


def read_speech(inbound: Inbound, now: int) -> Order:  # noqa: ARG001 # sound has no date
    """An order for speech, which comes whole.

    Raises:
        CallError: The body makes no sense; names the field.
    """
    members = members_of(inbound)
    check_types(members.body, _SPEECH_TYPES)
    if members.stream:
        raise unsupported("stream", "speech comes whole")
    if members.body.get("stream_format") == "sse":
        raise unsupported("stream_format", "speech comes whole, as sound; it is audio")
    return Order(Request(Operation.SPEECH, members.model, members.body), _SpeechRenderer(), members.fallbacks)


class _SpeechRenderer(WholeRenderer):
    """Writes sound."""

    def whole(self, response: Response) -> Reply:
        """The sound file.

        Raises:
            PluginError: The answer is none.
        """
        answer = answer_of(SpeechResponse, response)
        media_type = _MEDIA_TYPES.get(answer.format, "application/octet-stream")
        return Reply(200, {"content-type": media_type}, answer.audio)
