"""Documents and images as text on Mistral.

Source:
    https://docs.mistral.ai/api/endpoint/ocr, https://docs.mistral.ai/capabilities/document_ai/basic_ocr and
    https://docs.mistral.ai/capabilities/document_ai/annotations.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import logging
from collections.abc import Mapping
from typing import Any, Final

from bifrost_core.errors import ConfigError
from bifrost_core.responses import OcrPage, OcrResponse
from bifrost_core.structured import parser_of, response_format_of
from bifrost_core.types import JsonObject, Request, Usage
from bifrost_core.wire import HttpReply

from ._adapter import Payload
from ._chat import MalformedError, read_object
from ._json import JsonError, decode
from ._members import Writer, model_name, stream_flag, write_members
from ._reporter import Reporter

__all__ = ["read_ocr", "write_ocr"]

_MAX_COUNT: Final = 1 << 53


def _document(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not isinstance(value, Mapping):
        raise reporter.invalid(f"the field {name!r} is no object")
    members[name] = value


def _pages(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    members[name] = list(value) if isinstance(value, range) else value


def _format(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """The API's own object, or a class whose JSON schema is sent."""
    problem = ""
    if isinstance(value, Mapping):
        members[name] = value
        return
    try:
        members[name] = response_format_of(value)
    except ConfigError as exc:
        problem = exc.message.replace("response_format", name, 1)
    if problem:
        raise reporter.invalid(problem)


OCR: Final[Mapping[str, Writer | None]] = {
    "bbox_annotation_format": _format,
    "confidence_scores_granularity": None,
    "document": _document,
    "document_annotation_format": _format,
    "document_annotation_prompt": None,
    "extract_footer": None,
    "extract_header": None,
    "image_limit": None,
    "image_min_size": None,
    "include_blocks": None,
    "include_image_base64": None,
    "model": model_name,
    "pages": _pages,
    "stream": stream_flag,
    "table_format": None,
}


def write_ocr(request: Request, max_output: int | None, reporter: Reporter) -> Payload:  # noqa: ARG001 # it has no limit
    """An OCR request.

    Raises:
        BadRequestError: It can not be put into Mistral's shape; names the field.
    """
    members, extra = write_members(OCR, "document", request, reporter)
    members.update(extra)
    return Payload(members)


def read_ocr(request: Request, reply: HttpReply, reporter: Reporter) -> OcrResponse:
    """Read an OCR answer.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    data = read_object(reply, reporter)
    why = ""
    pages: tuple[OcrPage, ...] = ()
    try:
        pages = _read_pages(data.get("pages"))
    except MalformedError as exc:
        why = str(exc)
    if why:
        raise reporter.unusable(reply, why)
    model = data.get("model")
    wanted = request.body.get("document_annotation_format")
    parse = None if wanted is None or isinstance(wanted, Mapping) else parser_of(wanted)
    annotation = data.get("document_annotation")
    return OcrResponse(
        model=model if isinstance(model, str) else request.model,
        usage=_usage(data.get("usage_info"), reporter),
        raw=data,
        headers=reply.headers,
        pages=pages,
        annotation=annotation if parse is not None else _parsed(annotation),
        parse=parse,
    )


def _read_pages(pages: Any) -> tuple[OcrPage, ...]:
    if not isinstance(pages, list):
        raise MalformedError("there are no pages in it")
    read: list[OcrPage] = []
    for place, page in enumerate(pages):
        if not isinstance(page, dict) or not isinstance(markdown := page.get("markdown"), str):
            raise MalformedError(f"pages[{place}] has no markdown")
        index = page.get("index", place)
        if type(index) is not int:
            raise MalformedError(f"pages[{place}].index is no number")
        dimensions = page.get("dimensions")
        read.append(
            OcrPage(
                index=index,
                markdown=markdown,
                images=_objects(page.get("images"), f"pages[{place}].images"),
                tables=_objects(page.get("tables"), f"pages[{place}].tables"),
                dimensions=dimensions if isinstance(dimensions, dict) else None,
            )
        )
    return tuple(read)


def _objects(value: Any, path: str) -> tuple[JsonObject, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(member, dict) for member in value):
        raise MalformedError(f"{path} is no list of objects")
    return tuple(value)


def _parsed(annotation: Any) -> Any:
    """The annotation, which is JSON in a string; one that is not stays as it is."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return decode(annotation.encode("utf-8", "surrogatepass"))
    except JsonError:
        return annotation


def _usage(usage: Any, reporter: Reporter) -> Usage:
    """Pages read; there is no other count in such an answer."""
    pages = usage.get("pages_processed") if isinstance(usage, dict) else None
    if type(pages) is not int or not 0 <= pages < _MAX_COUNT:
        reporter.note("bad_usage: an answer has no usable usage", logging.WARNING)
        return Usage(requests=1)
    return Usage(pages=pages, requests=1)
