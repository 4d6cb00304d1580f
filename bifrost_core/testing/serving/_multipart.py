"""Bodies of type ``multipart/form-data``, read strictly."""

from __future__ import annotations

from email import message_from_string, policy
from email.errors import MessageError
from email.message import EmailMessage
from typing import Final, TypeAlias, cast

import attrs

__all__ = ["Field", "FormError", "Upload", "describe", "read_form"]

_MAX_PARTS: Final = 1_000
_MAX_HEAD: Final = 16 * 1024  # bytes of the header lines of one part
_MAX_TEXT: Final = 1024 * 1024  # bytes of a part that is no file


class FormError(ValueError):
    """The bytes are no form. The message says what is wrong with them."""


@attrs.frozen
class Upload:
    """A part with a file in it.

    Attributes:
        filename: As the client names it; never used as a path.
        content_type: Of the part; ``application/octet-stream`` where it states none.
        data: The bytes.
    """

    filename: str
    content_type: str
    data: bytes = attrs.field(repr=False)


Field: TypeAlias = tuple[str, str | Upload]
"""The name of a part and what it holds: text, or a file where the part has a file name."""


def describe(value: object) -> object:
    """A value as a refusal repeats it: of a file the name only, in objects too."""
    if isinstance(value, Upload):
        return value.filename
    if isinstance(value, dict):
        return {name: describe(each) for name, each in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [describe(each) for each in cast("list[object]", value)]
    return value


def read_form(content_type: str, body: bytes) -> list[Field]:
    """Take a form apart.

    Args:
        content_type: The request's header, boundary included.
        body: The whole body; its size is the caller's to bound.

    Returns:
        The parts, in the order in which they came; a name may come again.

    Raises:
        FormError: There is no boundary, a part is not closed, its header lines make no sense, or there
            are more parts or larger texts than a form has.

    Source:
        RFC 2046, section 5.1 (boundaries) and RFC 7578 (names and file names of parts).
    """
    boundary = _boundary(content_type)
    mark = b"--" + boundary
    if body.startswith(mark):
        at = len(mark)
    else:
        at = body.find(b"\r\n" + mark)  # a preamble is allowed and means nothing
        if at < 0:
            raise FormError("the boundary that the content type names is not in the body")
        at += len(mark) + 2
    fields: list[Field] = []
    while True:
        line_end = body.find(b"\r\n", at)
        rest = body[at : at + 2 if line_end < 0 else line_end]
        if rest.startswith(b"--"):
            return fields
        if line_end < 0 or rest.strip(b" \t"):
            raise FormError("a boundary is followed by something else than a line end")
        if len(fields) == _MAX_PARTS:
            raise FormError(f"the form has more than {_MAX_PARTS} parts")
        # the line end before a boundary belongs to it; that of an empty head may be the one just read
        end = body.find(b"\r\n" + mark, line_end)
        if end < 0:
            raise FormError("the last part is not closed by a boundary")
        fields.append(_read_part(body, line_end + 2, end))
        at = end + len(mark) + 2


def _boundary(content_type: str) -> bytes:
    """The boundary that a content type names.

    Raises:
        FormError: It is no form, or names none.
    """
    head = _headers(f"content-type: {content_type}\r\n\r\n".encode())
    boundary = head.get_param("boundary")
    if head.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise FormError("the content type is not multipart/form-data with a boundary")
    if not 1 <= len(boundary) <= 70:
        raise FormError("a boundary has 1 to 70 characters")
    return boundary.encode("ascii", "replace")


def _headers(head: bytes) -> EmailMessage:
    """Header lines as the standard library reads them."""
    try:
        return message_from_string(head.decode("utf-8", "replace"), policy=policy.HTTP)
    except (MessageError, ValueError, IndexError):
        raise FormError("the header lines of a part cannot be read") from None


def _read_part(body: bytes, start: int, end: int) -> Field:
    """One part: its header lines, a blank line and what it holds."""
    split = body.find(b"\r\n\r\n", start, end)
    if split < 0 or split - start > _MAX_HEAD:
        raise FormError("a part has no end of its header lines")
    head = _headers(body[start : split + 4])
    name = head.get_param("name", header="content-disposition")
    if head.get_content_disposition() != "form-data" or not isinstance(name, str) or not name:
        raise FormError("a part has no name")
    filename = head.get_filename()
    if filename is not None:
        stated = head.get_content_type() if "content-type" in head else "application/octet-stream"
        return name, Upload(filename, stated, body[split + 4 : end])
    if end - split - 4 > _MAX_TEXT:
        raise FormError(f"a part without a file name has more than {_MAX_TEXT} bytes")
    try:
        return name, body[split + 4 : end].decode()
    except UnicodeDecodeError:
        raise FormError("a part without a file name is no UTF-8") from None
