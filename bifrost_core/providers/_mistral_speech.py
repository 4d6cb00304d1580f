"""Speech on Mistral's wire: text in, sound out, as base64 in JSON.

Whole answers only: the events of a streamed one carry sound, for which a ``Chunk`` has no place.

Source:
    https://docs.mistral.ai/api/endpoint/audio/speech.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from bifrost_core.responses import SpeechResponse
from bifrost_core.types import JsonObject, Request, Usage
from bifrost_core.wire import HttpReply

from ._adapter import Payload
from ._chat import read_object
from ._embeddings import sent_value
from ._members import Writer, leave_out, model_name, refuse, stream_flag, write_members
from ._reporter import Reporter

__all__ = ["read_speech", "write_speech"]

_COST_HEADER: Final = "x-ratelimit-input-characters-query-cost"
_COUNT: Final = re.compile(r"[0-9]{1,15}")


def _text(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not isinstance(value, str):
        raise reporter.invalid(f"the field {name!r} is no text")
    members[name] = value


def _speed(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    refuse(1.0)(members, name, float(value) if type(value) is int and value == 1 else value, reporter)


_SPEECH: Final[Mapping[str, Writer | None]] = {
    "conversation_history": None,
    "expressiveness": None,
    "input": _text,
    "instructions": refuse(""),
    "metadata": None,
    "model": model_name,
    "phoneme_hints": None,
    "prompt_cache_key": None,
    "ref_audio": None,  # bytes are written as base64
    "response_format": None,
    "speed": _speed,
    "stream": stream_flag,
    "stream_format": refuse("audio"),
    "user": leave_out,
    "voice": None,  # OpenAI's name; this endpoint takes it
    "voice_id": None,
}


def write_speech(request: Request, max_output: int | None, reporter: Reporter) -> Payload:  # noqa: ARG001 # sound has no tokens
    """A request for speech. Of real exchanges one has been seen, with ``input`` and ``voice``; the rest is the document's.

    Raises:
        BadRequestError: It can not be put into Mistral's shape; names the field.
    """
    members, extra = write_members(_SPEECH, "input", request, reporter)
    members.update(extra)
    return Payload(members, 0)


def read_speech(request: Request, reply: HttpReply, reporter: Reporter) -> SpeechResponse:
    """Read the sound. The answer has no usage: the characters are those that a header says were counted, else the text's.

    Raises:
        ProviderServerError: It can not be used (``bad_response``): there is no sound in it.
    """
    data = read_object(reply, reporter)
    audio = b""
    said = data.get("audio_data")
    if isinstance(said, str):
        try:
            audio = binascii.a2b_base64(said, strict_mode=True)
        except ValueError:
            audio = b""
    if not audio:
        raise reporter.unusable(reply, "there is no sound in it that can be read as base64")
    model = data.get("model")
    counted = reply.headers.get(_COST_HEADER, "")
    text = sent_value(request, "input")
    characters = int(counted) if _COUNT.fullmatch(counted) else len(text) if isinstance(text, str) else 0
    form = sent_value(request, "response_format")
    return SpeechResponse(
        model=model if isinstance(model, str) else request.model,
        usage=Usage(characters=characters, requests=1),
        raw=data,
        headers=reply.headers,
        audio=audio,
        format=form if isinstance(form, str) else "mp3",
    )
