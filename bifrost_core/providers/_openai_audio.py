"""Sound at OpenAI: transcription as a form, whole or in events; speech as the sound itself.

Source:
    https://platform.openai.com/docs/api-reference/audio, https://platform.openai.com/docs/guides/speech-to-text.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from bifrost_core.bodies import Part
from bifrost_core.responses import SpeechResponse, Transcription
from bifrost_core.types import JsonObject, Request, Usage
from bifrost_core.wire import HttpReply

from ._adapter import Payload
from ._chat import read_object, read_usage
from ._embeddings import sent_value
from ._members import Writer, leave_out, model_name, refuse, rename, same, stream_flag, write_members, writer_of
from ._openai_responses import read_token_usage
from ._reporter import Reporter
from ._transcription import (
    EventNames,
    TranscriptionStreamDecoder,
    form_fields,
    read_transcription,
    transcription_of,
)

__all__ = [
    "OpenAITranscriptionDecoder",
    "read_openai_speech",
    "read_openai_transcription",
    "write_open_speech",
    "write_open_transcription",
    "write_openai_speech",
    "write_openai_transcription",
]

_GRANULARITIES: Final = "timestamp_granularities"
_TEXT_FORMATS: Final = frozenset({"text", "srt", "vtt"})


# --- transcription: the request


def _refuse(why: str) -> Writer:
    def write(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
        raise reporter.unsupported(name, why)

    return write


def _terms(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Mistral's ``context_bias`` is a list of terms, or one text with commas between them."""
    terms = [term.strip() for term in value.split(",")] if isinstance(value, str) else value
    rename("keywords")(members, name, terms, reporter)


def _diarize(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    if value is not False:
        raise reporter.unsupported(name, "speakers are told apart with response_format='diarized_json' here")
    reporter.note(f"the field {name!r}, which asks for nothing, is left out")


_NO_URL: Final = "OpenAI takes the file itself; pass bytes, a path or an open file"
_LISTS: Final = ("include", "known_speaker_names", "known_speaker_references", "languages", _GRANULARITIES)
_TRANSCRIPTION: Final[Mapping[str, Writer | None]] = {
    **dict.fromkeys(_LISTS),
    **{f"{name}[]": rename(name) for name in (*_LISTS, "keywords")},
    "chunking_strategy": None,
    "context_bias": _terms,
    "diarize": _diarize,
    "file_id": _refuse(_NO_URL),
    "file_url": _refuse(_NO_URL),
    "keywords": same,
    "language": None,
    "model": model_name,
    "prompt": None,
    "response_format": None,
    "stream": stream_flag,
    "temperature": None,
}
_OPEN_TRANSCRIPTION: Final[Mapping[str, Writer | None]] = {"model": model_name, "stream": stream_flag}


def write_openai_transcription(request: Request, max_output: int | None, reporter: Reporter) -> Payload:  # noqa: ARG001 # it has no limit
    """A transcription request: a form with the file.

    Times that are asked for come in the format ``verbose_json`` alone, which is stated where no other is.

    Raises:
        BadRequestError: It can not be put into OpenAI's shape; names the field.
    """
    return _form(request, reporter, *write_members(_TRANSCRIPTION, "model", request, reporter))


def write_open_transcription(request: Request, max_output: int | None, reporter: Reporter) -> Payload:  # noqa: ARG001 # it has no limit
    """As ``write_openai_transcription``, for a server that has fields of its own.

    Raises:
        BadRequestError: It can not be written; names the field.
    """
    return _form(
        request, reporter, *write_members(_OPEN_TRANSCRIPTION, "model", request, reporter, is_open=True), is_open=True
    )


def _form(
    request: Request, reporter: Reporter, members: JsonObject, extra: Mapping[str, Any], *, is_open: bool = False
) -> Payload:
    members.update(extra)
    if _GRANULARITIES in members:
        members.setdefault("response_format", "verbose_json")
    files = [file for file in request.files if file.name == "file"]
    if len(files) != len(request.files):
        raise reporter.unsupported(
            next(file.name for file in request.files if file.name != "file"), "a transcription takes one file, 'file'"
        )
    if len(files) != 1 and not (is_open and not files):  # some servers take a URL, as Groq does
        raise reporter.invalid(f"it has {len(files)} files; give exactly one")
    parts: list[Part] = []
    for name, value in members.items():
        if isinstance(value, Mapping):  # the SDK's way: chunking_strategy[type]
            for member, told in value.items():
                parts += form_fields(f"{name}[{member}]", told, reporter)
        elif isinstance(value, (list, tuple, set, frozenset)):
            parts += form_fields(f"{name}[]", value, reporter)
        else:
            parts += form_fields(name, value, reporter)
    parts += [Part("file", file.source, file.filename, file.content_type) for file in files]
    return Payload(None, form=tuple(parts))


# --- transcription: the answer


def _seconds(value: Any) -> float:
    try:
        seconds = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return seconds if math.isfinite(seconds) and 0 <= seconds < 1 << 53 else 0.0


def _usage_of(data: JsonObject, reporter: Reporter) -> Usage:
    """Tokens or seconds, whichever the model is paid by; older answers tell the seconds beside the text.

    Source:
        https://platform.openai.com/docs/api-reference/audio/json-object (``usage``)
    """
    usage = data.get("usage")
    if isinstance(usage, dict):
        if "seconds" in usage:
            return Usage(audio_seconds=_seconds(usage["seconds"]), requests=1)
        return read_usage(usage, reporter) if "prompt_tokens" in usage else read_token_usage(usage, reporter)
    if seconds := _seconds(data.get("duration")):
        return Usage(audio_seconds=seconds, requests=1)
    return read_token_usage(usage, reporter)


def read_openai_transcription(request: Request, reply: HttpReply, reporter: Reporter) -> Transcription:
    """Read a whole transcription; of the formats that are text (``text``, ``srt``, ``vtt``) the body is the text.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    form = sent_value(request, "response_format")
    if not isinstance(form, str) or form not in _TEXT_FORMATS:
        return read_transcription(request, reply, reporter, _usage_of)
    try:
        text = reply.body.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or text.startswith("<"):
        raise reporter.unusable(reply, "there is no text in it", quote=text.startswith("<"))
    if form == "text":
        text = text.removesuffix("\n")
    reporter.note(f"the format {form!r} says nothing of what was used")
    return transcription_of({"text": text}, request, Usage(requests=1), headers=reply.headers)


class OpenAITranscriptionDecoder(TranscriptionStreamDecoder):
    """Decodes one streamed transcription: ``transcript.text.delta`` and ``.segment``, at last ``.done``.

    Source:
        https://platform.openai.com/docs/api-reference/audio/transcript-text-delta-event
    """

    __slots__ = ()

    names: ClassVar[EventNames] = EventNames(
        known="transcript.",
        delta="transcript.text.delta",
        delta_text="delta",
        segment="transcript.text.segment",
        language="",
        done="transcript.text.done",
    )

    def usage_of(self, data: JsonObject) -> Usage:
        """What the last event says was used: tokens, or seconds."""
        return _usage_of(data, self._reporter)

    def segment_in_answer(self, segment: JsonObject) -> JsonObject:
        """A segment as a whole answer lists it."""
        return {"type": "transcript.text.segment", **segment}


# --- speech


def _text(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not isinstance(value, str):
        raise reporter.invalid(f"the field {name!r} is no text")
    members[name] = value


_NO_EVENTS: Final = refuse("audio")  # events of sound have no place in a chunk

_SPEECH: Final[Mapping[str, Writer | None]] = {
    "input": _text,
    "instructions": None,
    "model": model_name,
    "response_format": None,
    "speed": None,
    "stream": stream_flag,
    "stream_format": _NO_EVENTS,
    "user": leave_out,
    "voice": same,
    "voice_id": rename("voice"),  # Mistral's name
}
_OPEN_SPEECH: Final[Mapping[str, Writer | None]] = {
    "input": _text,
    "model": model_name,
    "stream": stream_flag,
    "stream_format": _NO_EVENTS,
}


write_openai_speech = writer_of(_SPEECH, "input")
"""A request for speech."""


write_open_speech = writer_of(_OPEN_SPEECH, "input", is_open=True)
"""As ``write_openai_speech``, for a server that has fields of its own."""


def read_openai_speech(request: Request, reply: HttpReply, reporter: Reporter) -> SpeechResponse:
    """Read the sound, which is the whole body. Nothing tells what was used: the characters are those of the text.

    Raises:
        ProviderServerError: It can not be used (``bad_response``): there is no sound in it.
    """
    body = reply.body
    if body[:1] == b"{":
        read_object(reply, reporter, request.model)  # raises what an error object says
    if not body or body[:1] in {b"{", b"<"}:
        raise reporter.unusable(reply, "there is no sound in it", quote=body[:1] == b"<")
    text, form = sent_value(request, "input"), sent_value(request, "response_format")
    return SpeechResponse(
        model=request.model,
        usage=Usage(characters=len(text) if isinstance(text, str) else 0, requests=1),
        headers=reply.headers,
        audio=body,
        format=form if isinstance(form, str) else "mp3",
    )
