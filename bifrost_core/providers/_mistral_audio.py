"""Transcription on Mistral: a form with the sound out, text and segments in; whole, or in named events.

Source:
    https://docs.mistral.ai/api/endpoint/audio/transcriptions, https://docs.mistral.ai/capabilities/audio_transcription.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import math
from collections.abc import Mapping
from typing import Any, Final

import attrs

from bifrost_core.bodies import Part
from bifrost_core.errors import CallError
from bifrost_core.kinds import Kind
from bifrost_core.responses import Segment, Transcription
from bifrost_core.types import Chunk, JsonObject, Request
from bifrost_core.wire import HttpReply

from ._adapter import Payload
from ._chat import MalformedError, read_object, read_usage
from ._json import JsonError, decode, encode, unusable_member
from ._mistral_members import Writer, model_name, stream_flag, write_members
from ._opening import Opening
from ._reporter import Reporter
from ._sse import MAX_TOTAL, SseParser

__all__ = ["TranscriptionStreamDecoder", "read_transcription", "write_transcription"]

_SOURCES: Final = ("file", "file_url", "file_id")
_GRANULARITIES: Final = "timestamp_granularities"
_DONE: Final = "transcription.done"
_DELTA: Final = "transcription.text.delta"


# --- the request


def _refuse(why: str) -> Writer:
    def write(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
        raise reporter.unsupported(name, why)

    return write


def _granularities(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """A list, or one word; under OpenAI's name for the part of the form too."""
    wanted = [value] if isinstance(value, str) else value
    if members.setdefault(_GRANULARITIES, wanted) != wanted:
        raise reporter.unsupported(name, f"it is {_GRANULARITIES!r} here, which has another value; give one of them")


def _context_bias(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    """A list of terms, or one text with commas between them: a term itself has none."""
    members[name] = [term.strip() for term in value.split(",")] if isinstance(value, str) else value


def _response_format(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    """The answer is always JSON.

    What ``verbose_json`` adds elsewhere has a field of its own here, beside which the word says nothing more. It can
    not be combined with ``language``: sent unasked it would spoil requests that are fine, so the word alone is refused
    and not translated.
    """
    if value == "json":
        reporter.note(f"the field {name!r} with the value 'json', which says what is so anyway, is left out")
    elif value == "verbose_json":
        raise reporter.unsupported(
            name, "the answer is always JSON; for segments with times pass timestamp_granularities=['segment']"
        )
    else:
        raise reporter.unsupported(name, "the answer is always JSON; take the text from the response")


_NO_FIELD: Final = "Mistral has no such field, and without it the answer would be another"

TRANSCRIPTION: Final[Mapping[str, Writer | None]] = {
    "chunking_strategy": _refuse(_NO_FIELD),
    "context_bias": _context_bias,
    "diarize": None,
    "file_id": None,
    "file_url": None,
    "include": _refuse(_NO_FIELD),
    "known_speaker_names": _refuse(_NO_FIELD),
    "known_speaker_references": _refuse(_NO_FIELD),
    "language": None,
    "model": model_name,
    "prompt": _refuse("Mistral has no such field; names and terms to expect go in context_bias"),
    "response_format": _response_format,
    "stream": stream_flag,
    "temperature": None,
    _GRANULARITIES: _granularities,
    f"{_GRANULARITIES}[]": _granularities,
}


def write_transcription(request: Request, max_output: int | None, reporter: Reporter) -> Payload:  # noqa: ARG001 # it has no limit
    """A transcription request: a form with exactly one of a file, the URL of one and the id of one.

    Raises:
        BadRequestError: It can not be put into Mistral's shape; names the field.
    """
    timed = request.body.get(_GRANULARITIES) or request.body.get(f"{_GRANULARITIES}[]")
    if timed and request.body.get("response_format") == "verbose_json":
        request = request.with_body(response_format=None)
    members, extra = write_members(TRANSCRIPTION, "model", request, reporter)
    members.update(extra)
    files = [file for file in request.files if file.name == "file"]
    if len(files) != len(request.files):
        raise reporter.unsupported(
            next(file.name for file in request.files if file.name != "file"), "a transcription takes one file, 'file'"
        )
    given = len(files) + sum(members.get(name) is not None for name in _SOURCES)
    if given != 1:
        raise reporter.invalid(f"it has {given} of {', '.join(_SOURCES)}; give exactly one")
    parts = [part for name, value in members.items() for part in _fields(name, value, reporter)]
    parts += [Part("file", file.source, file.filename, file.content_type) for file in files]
    return Payload(None, form=tuple(parts))


def _fields(name: str, value: Any, reporter: Reporter) -> list[Part]:
    """A member as fields of the form: of a list one field per element, all with the plain name."""
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


def read_transcription(request: Request, reply: HttpReply, reporter: Reporter) -> Transcription:
    """Read a whole transcription.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    data = read_object(reply, reporter)
    why = ""
    response: Transcription | None = None
    try:
        response = _transcription(data, request, reporter, headers=reply.headers)
    except MalformedError as exc:
        why = str(exc)
    if response is None:
        raise reporter.unusable(reply, why)
    return response


def _transcription(data: JsonObject, request: Request, reporter: Reporter, **more: Any) -> Transcription:
    text = data.get("text")
    if not isinstance(text, str):
        raise MalformedError("there is no text in it")
    segments = data.get("segments")
    if segments is not None and not isinstance(segments, list):
        raise MalformedError("segments is no list")
    language, model = data.get("language"), data.get("model")
    return Transcription(
        model=model if isinstance(model, str) else request.model,
        usage=read_usage(data.get("usage"), reporter),
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


class TranscriptionStreamDecoder:
    """Decodes one streamed transcription (``StreamDecoder``): named events, the last one ``transcription.done``.

    Every event becomes a chunk with ``raw``; those of type ``transcription.text.delta`` have text. Where the last
    one has more text than the deltas brought, its chunk brings the rest.

    Attributes:
        done: ``transcription.done`` has been read.
        error: What is wrong with the stream, once something is.
    """

    __slots__ = (
        "_language",
        "_opening",
        "_reporter",
        "_request",
        "_response",
        "_segments",
        "_sse",
        "_texts",
        "done",
        "error",
    )

    def __init__(self, request: Request, reporter: Reporter) -> None:
        self.done = False
        self.error: CallError | None = None
        self._request = request
        self._reporter = reporter
        self._sse = SseParser()
        self._opening = Opening()
        self._texts: list[str] = []
        self._segments: list[JsonObject] = []
        self._language: str | None = None
        self._response: Transcription | None = None

    def feed(self, data: bytes) -> list[Chunk]:
        """Take the next bytes; return the chunks that they complete."""
        chunks: list[Chunk] = []
        if self.done or self.error is not None:
            return chunks
        data = self._opening.look(data)
        if self._opening.is_json:
            self._plain(data, chunks)
        elif self._opening.is_html:
            self._break(Kind.BAD_RESPONSE, "is a page of HTML")
        elif self._opening.is_events:
            for name, payload in self._sse.feed(data):
                self._event(name, payload, chunks)
                if self.done or self.error is not None:
                    return chunks
            if self._sse.overflow:
                self._break(Kind.RESPONSE_TOO_LARGE, f"has {self._sse.overflow}")
        return chunks

    def finish(self) -> Transcription:
        """The assembled answer, after the last byte.

        Raises:
            CallError: The stream was cut short (``StreamBrokenError``), or ``error``.
        """
        if self.error is None and not self.done:
            self._last_words()
        if self.error is None and self._response is None:
            self._break(Kind.STREAM_TRUNCATED, "ended before its answer did")
        if self.error is not None or self._response is None:
            raise self.error or self._reporter.broken(Kind.STREAM_TRUNCATED, "has no answer", None)
        return self._response

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

    def _plain(self, data: bytes, chunks: list[Chunk]) -> None:
        """A whole answer to a request for a stream."""
        whole = self._opening.collect(data)
        if whole is not None:
            self._event(_DONE.encode(), whole, chunks)
            if not self.done and self.error is None:
                self._break(Kind.BAD_RESPONSE, "holds a JSON answer that is none")
        elif self._opening.is_too_large:
            self._break(Kind.RESPONSE_TOO_LARGE, f"has more than {MAX_TOTAL} bytes")

    def _event(self, name: bytes, payload: bytes, chunks: list[Chunk]) -> None:
        if payload[:6] == b"[DONE]":  # Mistral sends none; a proxy may
            return
        problem = ""
        try:
            event = decode(payload)
            if not isinstance(event, dict):
                problem = "an event that is no object"
            else:
                kind = event.get("type")
                kind = kind if isinstance(kind, str) else name.decode("utf-8", "replace")
                if event.get("object") == "error" or event.get("error") or name == b"error" or not _is_known(kind):
                    self.error = self._reporter.stream_error(
                        event, None, model=self._request.model, has_begun=bool(self._texts)
                    )
                else:
                    chunks.append(self._take(kind, event))
        except JsonError as exc:
            problem = f"an event that can not be read: {exc}"
        except MalformedError as exc:
            problem = f"an event that can not be used: {exc}"
        if problem:
            self._break(Kind.BAD_RESPONSE if self._opening.is_json else Kind.STREAM_MALFORMED, f"holds {problem}")

    def _take(self, kind: str, event: JsonObject) -> Chunk:
        if kind == _DONE:
            return self._take_end(event)
        text = event.get("text")
        if kind == _DELTA:
            if not isinstance(text, str):
                raise MalformedError("a delta has no text")
            if text:
                self._texts.append(text)
            return Chunk(text=text, raw=event)
        if kind == "transcription.segment":
            segment = {name: value for name, value in event.items() if name != "type"}
            _segment(segment)
            self._segments.append({"type": "transcription_segment", **segment})
        elif kind == "transcription.language" and isinstance(language := event.get("audio_language"), str):
            self._language = language
        return Chunk(raw=event)

    def _take_end(self, event: JsonObject) -> Chunk:
        """The whole answer, once more, as a plain one has it; a member that it lacks the events before have told."""
        said = "".join(self._texts)
        whole = {name: value for name, value in event.items() if name != "type"}
        told = {"text": said, "language": self._language, "segments": self._segments}
        read = _transcription({**told, **whole}, self._request, self._reporter)
        self._response = response = attrs.evolve(read, raw=whole)
        self.done = True
        rest = response.text.removeprefix(said) if response.text.startswith(said) else ""
        return Chunk(text=rest, finish_reason="stop", usage=response.usage, raw=event)

    def _last_words(self) -> None:
        """The last event counts without its empty line: it is whole JSON, and says itself that it is the last."""
        if self._opening.is_json:
            self._break(Kind.BAD_RESPONSE, "holds a JSON answer that is cut off")
            return
        pending = self._sse.flush()
        if pending is None:
            return
        try:
            event = decode(pending[1])
            if isinstance(event, dict) and (event.get("type") or pending[0].decode("utf-8", "replace")) == _DONE:
                chunk = self._take(_DONE, event)
                if chunk.text:  # nobody would be handed it any more
                    self._response = None
        except (JsonError, MalformedError):
            return

    def _break(self, kind: Kind, why: str) -> None:
        self.error = self._reporter.broken(kind, why, None)


def _is_known(kind: str) -> bool:
    return kind.startswith("transcription.") and kind != "transcription.error"
