"""Where a document or a recording comes from: the request itself, a file that was uploaded, or an address."""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

import attrs

from bifrost_core.testing.serving._questions import Question

from ._errors import MistralError
from ._filestore import StoredFile
from ._service import files_of

__all__ = ["Source", "from_address", "from_file", "from_file_id"]

_SHOWN: Final = 200  # characters of an address in a message


@attrs.frozen
class Source:
    """What there is to read.

    Attributes:
        identity: Equal for equal sources; what is made up for one depends on it.
        data: The bytes; None behind an address elsewhere, which this service never asks.
        content_type: As stated, in lower case, or nothing.
    """

    identity: bytes
    data: bytes | None = attrs.field(default=None, repr=False)
    content_type: str = ""


def from_file(data: bytes, content_type: str) -> Source:
    """What was sent, or uploaded before."""
    return Source(data, data, content_type.lower())


def from_file_id(question: Question, file_id: str) -> Source:
    """A file that was uploaded.

    Raises:
        MistralError: 404: the key's organisation has no such file.
    """
    return _stored(files_of(question).get(file_id, question.owner, question.now))


def from_address(question: Question, url: str) -> Source:
    """What is behind an address: ``data:``, ``http:`` or ``https:``. Nothing is fetched.

    Addresses that ``GET /v1/files/{id}/url`` gave are known and stand for their file.

    Raises:
        MistralError: 400: it is no such address, or its data cannot be decoded.
    """
    if url[:5].lower() == "data:":
        return _from_data(url)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise _unreachable(url)
    stored = files_of(question).behind(url, question.now)
    return Source(url.encode()) if stored is None else _stored(stored)


def _stored(file: StoredFile) -> Source:
    return from_file(file.data, file.mimetype)


def _from_data(url: str) -> Source:
    """What a ``data:`` URL holds.

    Source:
        RFC 2397.
    """
    head, comma, content = url[5:].partition(",")
    kind, *options = head.lower().split(";")
    try:
        data = base64.b64decode(content, validate=True) if "base64" in options else unquote_to_bytes(content)
    except (binascii.Error, ValueError):
        raise _unreachable(url) from None
    if not comma:
        raise _unreachable(url)
    return from_file(data, kind)


def _unreachable(url: str) -> MistralError:
    shown = url if len(url) <= _SHOWN else f"{url[:_SHOWN]}…"
    return MistralError.object(400, "invalid_request_file", "3310", f"File could not be fetched from url '{shown}'")
