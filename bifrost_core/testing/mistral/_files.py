"""Files: uploads, lists of them, what is in them.

Source:
    https://docs.mistral.ai/api/endpoint/files. How an unknown id is refused is documented nowhere; here it is a
    404 with a ``detail`` text, as unknown paths behind the gateway are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from bifrost_core.forms import Field, Upload
from bifrost_core.testing.serving._answers import Json
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import Reply

from ._errors import MistralError, detail_item
from ._filestore import StoredFile, new_id
from ._members import Check, Findings, Loc, check_members, choice, integer, refuse
from ._service import files_of

__all__ = [
    "answer_content",
    "answer_delete",
    "answer_list",
    "answer_retrieve",
    "answer_upload",
    "answer_url",
    "check_upload",
    "fold_upload",
]

_JSON: Final = "application/json; charset=utf-8"
_PAGE: Final = 100
_HOURS: Final = 24  # that a signed address lives by default
_HOUR: Final = 3600  # seconds
_LEAST: Final = {"page": 0, "page_size": 1, "expiry": 1}

_encode = msgspec.json.Encoder().encode


def fold_upload(fields: Sequence[Field]) -> Json:
    """The form as an object, numbers read where they are spelled right."""
    return {
        name: int(value) if name == "expiry" and isinstance(value, str) and _is_number(value) else value
        for name, value in fields
    }


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 10


def _file(loc: Loc, value: object) -> Findings:
    """A part with a file."""
    if isinstance(value, Upload):
        return []
    return [detail_item("value_error", loc, "Value error, Expected UploadFile, received: <class 'str'>", value)]


_MEMBERS: Final[dict[str, Check]] = {
    "file": _file,
    "purpose": choice("fine-tune", "batch", "ocr"),
    "expiry": integer(1),
    "visibility": choice("workspace", "user"),
}


def check_upload(body: Json) -> None:
    """Refuse what uploads refuse.

    Raises:
        MistralError: 422.
    """
    refuse(check_members(body, _MEMBERS, ("file",)))


def answer_upload(question: Question) -> Reply:
    """Keep a file.

    Raises:
        MistralError: 400: there is no room left.
    """
    body, now = question.body, int(question.now)
    upload: Upload = body["file"]
    hours: int | None = body.get("expiry")
    file = StoredFile(
        id=new_id(question.rng),
        owner=question.owner,
        filename=upload.filename,
        mimetype=upload.content_type,
        data=upload.data,
        purpose=body.get("purpose", "fine-tune"),
        visibility=body.get("visibility", "workspace"),
        created_at=now,
        expires_at=None if hours is None else now + hours * _HOUR,
    )
    files_of(question).add(file)
    return _reply(question, file.entry())


def answer_list(question: Question) -> Reply:
    """The files of the key's organisation, the latest first; by ``purpose`` and ``search``, in pages.

    Raises:
        MistralError: 422: a parameter is no number.
    """
    query = question.query
    page, size = _number(question, "page", 0), _number(question, "page_size", _PAGE)
    files = [
        file
        for file in files_of(question).of(question.owner, question.now)
        if query.get("purpose", file.purpose) == file.purpose and query.get("search", "") in file.filename
    ]
    shown = files[page * size : (page + 1) * size]
    return _reply(question, {"data": [file.entry() for file in shown], "object": "list", "total": len(files)})


def answer_retrieve(question: Question) -> Reply:
    """One file's entry.

    Raises:
        MistralError: 404: there is no such file; 422: the id is none.
    """
    return _reply(question, {**_find(question).entry(), "deleted": False})


def answer_delete(question: Question) -> Reply:
    """Forget a file.

    Raises:
        MistralError: As for one file's entry.
    """
    file = _find(question)
    files_of(question).remove(file)
    return _reply(question, {"id": file.id, "object": "file", "deleted": True})


def answer_content(question: Question) -> Reply:
    """What is in a file.

    Raises:
        MistralError: As for one file's entry.
    """
    file = _find(question)
    reply = question.reply(file.data)
    reply.content_type = "application/octet-stream"
    return reply


def answer_url(question: Question) -> Reply:
    """An address that OCR and transcription take for the file for ``expiry`` hours.

    Mistral's needs no key to be read; this one is read like the content, with a key.

    Raises:
        MistralError: As for one file's entry.
    """
    file = _find(question)
    expires = int(question.now) + _number(question, "expiry", _HOURS) * _HOUR
    return _reply(question, {"url": files_of(question).sign(file, question.base_url, expires)})


def _reply(question: Question, content: Json) -> Reply:
    reply = question.reply(_encode(content))
    reply.content_type = _JSON
    return reply


def _find(question: Question) -> StoredFile:
    """The file in the path."""
    try:
        UUID(question.path_id)
    except ValueError:
        finding = detail_item("uuid_parsing", [], "Input should be a valid UUID", question.path_id)
        raise MistralError.detail(422, [{**finding, "loc": ["path", "file_id"]}]) from None
    return files_of(question).get(question.path_id, question.owner, question.now)


def _number(question: Question, name: str, default: int) -> int:
    """A parameter that is a number."""
    value = question.query.get(name)
    if value is None:
        return default
    if not _is_number(value) or int(value) < _LEAST[name]:
        finding = detail_item("int_parsing", [], "Input should be a valid integer", value)
        raise MistralError.detail(422, [{**finding, "loc": ["query", name]}])
    return int(value)
