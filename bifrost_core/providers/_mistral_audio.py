"""Transcription requests on Mistral's wire: a form with the sound.

Source:
    https://docs.mistral.ai/api/endpoint/audio/transcriptions, https://docs.mistral.ai/capabilities/audio_transcription.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bifrost_core.bodies import Part
from bifrost_core.types import JsonObject, Request

from ._adapter import Payload
from ._members import Writer, model_name, stream_flag, write_members
from ._reporter import Reporter
from ._transcription import form_fields

__all__ = ["write_transcription"]

_SOURCES: Final = ("file", "file_url", "file_id")
_GRANULARITIES: Final = "timestamp_granularities"


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
    parts = [part for name, value in members.items() for part in form_fields(name, value, reporter)]
    parts += [Part("file", file.source, file.filename, file.content_type) for file in files]
    return Payload(None, form=tuple(parts))
