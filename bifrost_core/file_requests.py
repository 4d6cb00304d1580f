"""What callers give as files, as a ``Request`` and the options of the call: sound and documents."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import IO, Any, Final

import anyio.to_thread

from .bodies import MAX_JSON, Content, Source, source_of
from .errors import BadRequestError, ConfigError
from .kinds import Kind
from .media import HEAD, extension_of, is_image, is_url, is_uuid, media_type_of, named_type
from .requests import Made, made
from .types import File, Operation, Request

__all__ = ["Document", "Sound", "ocr", "transcribe"]

Sound = str | bytes | bytearray | memoryview | os.PathLike[str] | IO[bytes]
Document = Sound | Mapping[str, Any]

_MAX_DOCUMENT: Final = (MAX_JSON - 256 * 1024) // 4 * 3  # bytes that fit into a JSON body as base64


def transcribe(model: str, file: Sound, params: Mapping[str, Any], *, stream: bool) -> Made:
    """Sound to be written down.

    Raises:
        ConfigError: ``file`` has none of the accepted forms, can not be read, or is empty.
    """
    form, content = _given(file, "file")
    if form != "file":
        assert isinstance(content, bytes)  # noqa: S101 # of a URL or an id; for the type checker
        return made(Operation.TRANSCRIPTION, model, {f"file_{form}": content.decode()}, params, stream=stream)
    source = _measured(content, "file")
    filename = _name_of(content)
    media_type = media_type_of(source.head(HEAD)) or named_type(filename) or "application/octet-stream"
    sound = File("file", filename or f"audio{extension_of(media_type)}", source.content, media_type)
    request, options = made(Operation.TRANSCRIPTION, model, {}, params, stream=stream)
    return Request(request.operation, model, request.body, (sound,), stream), options


async def ocr(model: str, document: Document, params: Mapping[str, Any]) -> Made:
    """A document or an image to be read; what is a file here goes into the request as a data URL.

    Raises:
        ConfigError: ``document`` has none of the accepted forms, can not be read, or is of an unknown type.
        BadRequestError: The file is too large for a JSON body.
    """
    if isinstance(document, Mapping):
        return made(Operation.OCR, model, {"document": dict(document)}, params)
    form, content = _given(document, "document")
    if form == "file":
        source = _measured(content, "document")
        if source.length > _MAX_DOCUMENT:
            raise BadRequestError(
                f"the document has {source.length} bytes, more than the {_MAX_DOCUMENT} that fit into a request; "
                "pass its URL or the id of an uploaded file",
                kind=Kind.REQUEST_TOO_LARGE,
            )
        described = await anyio.to_thread.run_sync(_inlined, source, _name_of(content))
    else:
        assert isinstance(content, bytes)  # noqa: S101 # of a URL or an id; for the type checker
        told = content.decode()
        described = {"type": "file", "file_id": told} if form == "id" else _linked(told)
    return made(Operation.OCR, model, {"document": described}, params)


def _given(value: object, field: str) -> tuple[str, Content]:
    """What a caller gave as a file: ``url``, ``id`` or ``file``, and the URL, the id or the content.

    Raises:
        ConfigError: It is none of them.
    """
    if isinstance(value, str):
        if is_url(value) or (field == "document" and value[:5].lower() == "data:"):
            return "url", value.encode()
        if is_uuid(value):
            return "id", value.encode()
        if not _exists(value):
            raise ConfigError(
                f"{field} is a string, but no http(s) URL, no file id (a UUID) and no path that exists; "
                "pass one of these, bytes, or a file open for reading bytes",
                field=field,
            )
        return "file", Path(value)
    return "file", value  # type: ignore[return-value] # measured next, which refuses what it is not


def _exists(path: str) -> bool:
    try:
        return bool(path) and Path(path).exists()
    except (OSError, ValueError):  # no name of a file at all: too long, or with a zero byte
        return False


def _measured(content: Content, field: str) -> Source:
    problem: ConfigError | None = None
    source: Source | None = None
    try:
        source = source_of(content)
        if not source.length:
            problem = ConfigError(f"{field} is empty", field=field)
    except ConfigError as exc:
        problem = ConfigError(f"{field}: {exc.message}", field=field)
    if problem is not None or source is None:
        assert problem is not None  # noqa: S101 # one of the two is always there; for the type checker
        raise problem
    return source


def _name_of(content: Content) -> str:
    """The last part of a file's name; ``""`` where it has none."""
    name: object = os.fspath(content) if isinstance(content, os.PathLike) else getattr(content, "name", "")
    return PurePath(os.fsdecode(name)).name if isinstance(name, (str, bytes)) else ""


def _linked(url: str, name: str = "") -> dict[str, Any]:
    """The API's object for a URL, ``data:`` ones among them.

    Source:
        https://docs.mistral.ai/api/endpoint/ocr (``document``)
    """
    if is_image(url):
        return {"type": "image_url", "image_url": url}
    described = {"type": "document_url", "document_url": url}
    return {**described, "document_name": name} if name else described


def _inlined(source: Source, name: str) -> dict[str, Any]:
    """The API's object for a file, with its bytes in it; blocks.

    Raises:
        ConfigError: It can not be read, or nothing tells what it is.
    """
    problem = ""
    data = b""
    try:
        data = source.whole()
    except (OSError, ValueError) as exc:
        problem = f"the document can not be read: {type(exc).__name__}"
    media_type = media_type_of(data) or named_type(name)
    if not problem and (media_type is None or media_type.startswith(("audio/", "video/"))):
        problem = (
            "the document is neither PDF, DOCX, PPTX nor an image, as far as its first bytes and its name tell; "
            "pass the API's dict with a data: URL to say what it is"
        )
    if problem:
        raise ConfigError(problem, field="document")
    return _linked(f"data:{media_type};base64,{base64.b64encode(data).decode()}", name)
