"""Transcription in the shape that OpenAI and Mistral share: a form out, text and segments in; whole, or in events.

Source:
    https://platform.openai.com/docs/api-reference/audio, https://docs.mistral.ai/api/endpoint/audio/transcriptions,
    https://docs.mistral.ai/capabilities/audio_transcription.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import math
from collections.abc import Callable
from typing import Any, ClassVar, Final

import attrs

from bifrost_core.bodies import Part
from bifrost_core.kinds import Kind
from bifrost_core.responses import Segment, Transcription
from bifrost_core.types import Chunk, JsonObject, Request, Usage
from bifrost_core.wire import HttpReply

from ._chat import MalformedError, read_object, read_usage
from ._events import EventDecoder, event_type
from ._json import encode, unusable_member
from ._reporter import Reporter

__all__ = ["EventNames", "TranscriptionStreamDecoder", "form_fields", "read_transcription", "transcription_of"]

UsageReader = Callable[[JsonObject, Reporter], Usage]


@attrs.frozen
class EventNames:
    """What a provider calls the events of a streamed transcription.

    Attributes:
        known: What all of them begin with.
        delta: New text.
        delta_text: The member of a delta that has it.
        segment: A stretch with times.
        language: The language, in its member ``audio_language``; ``""`` where no event tells it.
        done: The whole answer, once more.
    """

    known: str
    delta: str
    delta_text: str
    segment: str
    language: str
    done: str


MISTRAL_EVENTS: Final = EventNames(
    known="transcription.",
    delta="transcription.text.delta",
    delta_text="text",
    segment="transcription.segment",
    language="transcription.language",
    done="transcription.done",
)


# --- the request


def form_fields(name: str, value: Any, reporter: Reporter) -> list[Part]:
    """A member as fields of the form: of a list one field per element, all with the same name."""
    if value is None:
        return []
    if isinstance(value, (list, tuple, set, frozenset)):
        return [Part(name, _text(name, element, reporter)) for element in value]
    return [Part(name, _text(name, value, reporter))]


def _text(name: str, value: Any, reporter: Reporter) -> str:
    """A value as the text of a field: words as they are, all else as JSON has it."""
    if isinstance(value, str):
        return value
    written = encode({"value": value})
    if written is None:
        raise reporter.invalid(f"the field {name!r} {unusable_member({name: value})[1]}")
    return written[len(b'{"value":') : -1].decode()


# --- a whole answer


def _token_usage(data: JsonObject, reporter: Reporter) -> Usage:
    return read_usage(data.get("usage"), reporter)


def read_transcription(
    request: Request, reply: HttpReply, reporter: Reporter, usage_of: UsageReader = _token_usage
) -> Transcription:
    """Read a whole transcription.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    data = read_object(reply, reporter, request.model)
    why = ""
    response: Transcription | None = None
    try:
        response = transcription_of(data, request, usage_of(data, reporter), headers=reply.headers)
    except MalformedError as exc:
        why = str(exc)
    if response is None:
        raise reporter.unusable(reply, why)
    return response


def transcription_of(data: JsonObject, request: Request, usage: Usage, **more: Any) -> Transcription:
    """The transcription that an answer's JSON tells.

    Raises:
        MalformedError: It has no text, or a segment without.
    """
    text = data.get("text")
    if not isinstance(text, str):
        raise MalformedError("there is no text in it")
    segments = data.get("segments")
    if segments is not None and not isinstance(segments, list):
        raise MalformedError("segments is no list")
    language, model = data.get("language"), data.get("model")
    return Transcription(
        model=model if isinstance(model, str) else request.model,
        usage=usage,
        raw=data,
        text=text,
        language=language if isinstance(language, str) else None,
        segments=tuple(_segment(segment) for segment in segments or ()),
        **more,
    )


def _segment(segment: Any) -> Segment:
    if not isinstance(segment, dict) or not isinstance(text := segment.get("text"), str):
        raise MalformedError("a segment has no text")
    speaker = segment.get("speaker_id")
    if speaker is None:
        speaker = segment.get("speaker")
    return Segment(
        text=text,
        start=_seconds(segment.get("start")),
        end=_seconds(segment.get("end")),
        speaker=str(speaker) if isinstance(speaker, str) or type(speaker) is int else None,
    )


def _seconds(value: Any) -> float | None:
    if type(value) is float:
        return value if math.isfinite(value) else None
    return float(value) if type(value) is int and abs(value) < 1 << 53 else None


# --- a streamed answer


class TranscriptionStreamDecoder(EventDecoder[Transcription]):
    """Decodes one streamed transcription (``StreamDecoder``): named events, the last one with the whole answer.

    Every event becomes a chunk with ``raw``; deltas have text. Where the last event has more text than the deltas
    brought, its chunk brings the rest. The names are Mistral's; a subclass has those of another provider.

    Attributes:
        done: The last event has been read.
        error: What is wrong with the stream, once something is.
    """

    names: ClassVar[EventNames] = MISTRAL_EVENTS

    __slots__ = ("_language", "_response", "_segments", "_texts")

    def __init__(self, request: Request, reporter: Reporter) -> None:
        super().__init__(request, reporter)
        self._texts: list[str] = []
        self._segments: list[JsonObject] = []
        self._language: str | None = None
        self._response: Transcription | None = None

    def partial(self) -> Transcription | None:
        """What has arrived so far, assembled; None when nothing has."""
        text = "".join(self._texts)
        if self._response is not None or not text:
            return self._response
        raw: JsonObject = {"model": self._request.model, "text": text, "language": self._language}
        return Transcription(
            model=self._request.model,
            raw={**raw, "segments": self._segments},
            text=text,
            language=self._language,
            segments=tuple(_segment(segment) for segment in self._segments),
        )

    # --- events

    def _take(self, name: bytes, event: JsonObject, chunks: list[Chunk]) -> None:
        kind = event_type(name, event)
        if event.get("object") == "error" or event.get("error") or name == b"error" or not self._is_known(kind):
            self._fail(event)
        else:
            chunks.append(self._chunk(kind, event))

    def _chunk(self, kind: str, event: JsonObject) -> Chunk:
        names = self.names
        if kind == names.done:
            return self._take_end(event)
        if kind == names.delta:
            text = event.get(names.delta_text)
            if not isinstance(text, str):
                raise MalformedError("a delta has no text")
            if text:
                self._texts.append(text)
            return Chunk(text=text, raw=event)
        if kind == names.segment:
            segment = {name: value for name, value in event.items() if name != "type"}
            _segment(segment)
            self._segments.append(self.segment_in_answer(segment))
        elif kind == names.language and isinstance(language := event.get("audio_language"), str):
            self._language = language
        return Chunk(raw=event)

    def _take_end(self, event: JsonObject) -> Chunk:
        """The whole answer, once more, as a plain one has it; a member that it lacks the events before have told."""
        said = "".join(self._texts)
        whole = {name: value for name, value in event.items() if name != "type"}
        told = {"text": said, "language": self._language, "segments": self._segments}
        read = transcription_of({**told, **whole}, self._request, self.usage_of(whole))
        self._response = response = attrs.evolve(read, raw=whole)
        self.done = True
        rest = response.text.removeprefix(said) if response.text.startswith(said) else ""
        return Chunk(text=rest, finish_reason="stop", usage=response.usage, raw=event)

    def _take_whole(self, answer: JsonObject, chunks: list[Chunk]) -> None:
        """As the last event, which needs no type here."""
        self._take(self.names.done.encode(), answer, chunks)
        if not self.done and self.error is None:
            self._break(Kind.BAD_RESPONSE, "holds a JSON answer that is none")

    def _take_last(self, name: bytes, event: JsonObject) -> None:
        """It is whole JSON, and says itself that it is the last."""
        done = self.names.done
        # Further text nobody would be handed any more.
        if (event.get("type") or name.decode("utf-8", "replace")) == done and self._chunk(done, event).text:
            self._response = None

    def _answer(self) -> Transcription | None:
        return self._response

    def _is_known(self, kind: str) -> bool:
        return kind.startswith(self.names.known) and kind != f"{self.names.known}error"

    # --- what differs between providers

    def usage_of(self, data: JsonObject) -> Usage:
        """What the last event says was used."""
        return _token_usage(data, self._reporter)

    def segment_in_answer(self, segment: JsonObject) -> JsonObject:
        """A segment's event, without its type, as a whole answer lists it."""
        return {"type": "transcription_segment", **segment}
