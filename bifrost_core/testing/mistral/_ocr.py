"""OCR: made-up pages, or the test's own, as many as the document has.

A PDF has as many pages as it has objects of type ``/Page`` (at least one; those inside compressed object
streams are not seen), an image and any other file has one, and a document behind an address, which is never
asked, has two. Equal documents have equal pages: a title, a paragraph, a table and a picture each.

Source:
    https://docs.mistral.ai/api/endpoint/ocr (members), https://docs.mistral.ai/capabilities/document_ai/annotations
    (annotations are JSON texts), and replies as they come since 2026 (``usage_info``, ``blocks``).
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
import struct
import zlib
from typing import Any, Final, cast
from uuid import UUID

import attrs
import msgspec

from bifrost_core.testing.serving._answers import Json, make_text
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import Reply

from ._answers import fitting
from ._errors import MistralError, detail_item
from ._members import (
    Check,
    Findings,
    Loc,
    boolean,
    check_members,
    choice,
    integer,
    list_of,
    mapping,
    optional,
    refuse,
    schema_format,
    text,
)
from ._service import page_law
from ._sources import Source, from_address, from_file_id
from ._vendor import limit_headers

__all__ = ["answer_ocr", "check_ocr"]

_PAGE_OBJECT: Final = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_RANGES: Final = re.compile(r"\s*\d{1,6}(-\d{1,6})?\s*(,\s*\d{1,6}(-\d{1,6})?\s*)*")
_PAGES_ELSEWHERE: Final = 2
_MAX_PAGES: Final = 1_000
_MAX_INDEX: Final = 100_000  # of a range in ``pages``
_SIZE: Final = {"dpi": 200, "height": 2200, "width": 1700}
_PICTURE: Final = (240, 160)  # width and height, in pixels
_DOCUMENTS: Final = {"document_url": "document_url", "image_url": "image_url", "file": "file_id"}

_encode = msgspec.json.Encoder().encode


# -- what is refused ---------------------------------------------------------------------------------------------


def _uuid(loc: Loc, value: object) -> Findings:
    """A UUID."""
    try:
        UUID(value if isinstance(value, str) else "")
    except ValueError:
        return [detail_item("uuid_parsing", loc, "Input should be a valid UUID", value)]
    return []


def _image_url(loc: Loc, value: object) -> Findings:
    """An address, or an object with one."""
    if isinstance(value, dict):
        return check_members(cast("Json", value), {"url": text, "detail": optional(text)}, ("url",), loc=loc)
    return text(loc, value)


_DOCUMENT: Final[dict[str, Check]] = {
    "document_url": text,
    "document_name": optional(text),
    "image_url": _image_url,
    "file_id": _uuid,
}


def _document(loc: Loc, value: object) -> Findings:
    """One of the three kinds of documents."""
    if not isinstance(value, dict):
        return mapping(loc, value)
    document = cast("Json", value)
    named = [name for name in _DOCUMENTS.values() if name in document]
    kind: object = document.get("type", next((kind for kind, name in _DOCUMENTS.items() if [name] == named), None))
    if not isinstance(kind, str) or kind not in _DOCUMENTS:
        words = "Input tag found using 'type' is not an expected tag"
        return [detail_item("union_tag_invalid", loc, words, document)]
    member = _DOCUMENTS[kind]
    members: dict[str, Check] = {"type": text, member: _DOCUMENT[member]}
    if kind == "document_url":
        members["document_name"] = _DOCUMENT["document_name"]
    return check_members(document, members, (member,), loc=[*loc, kind])


def _pages(loc: Loc, value: object) -> Findings:
    """A list of page numbers from 0 on, or a text such as ``0,2-4``."""
    if isinstance(value, str):
        if _RANGES.fullmatch(value) is None:
            return [detail_item("value_error", loc, "Value error, Invalid page specification", value)]
        return []
    return list_of(integer(0))(loc, value)


_MEMBERS: Final[dict[str, Check]] = {
    "model": optional(text),
    "id": optional(text),
    "document": _document,
    "pages": optional(_pages),
    "include_image_base64": optional(boolean),
    "image_limit": optional(integer(0)),
    "image_min_size": optional(integer(0)),
    "bbox_annotation_format": optional(schema_format),
    "document_annotation_format": optional(schema_format),
    "document_annotation_prompt": optional(text),
    "table_format": optional(choice("markdown", "html", kind="literal_error")),
    "extract_header": boolean,
    "extract_footer": boolean,
    "include_blocks": boolean,
    "confidence_scores_granularity": optional(choice("word", "page", "block", kind="literal_error")),
}


def check_ocr(body: Json) -> None:
    """Refuse what OCR refuses.

    Raises:
        MistralError: 422.
    """
    refuse(check_members(body, _MEMBERS, ("model", "document")))
    body["model"] = body["model"] or "mistral-ocr-latest"


# -- what is answered --------------------------------------------------------------------------------------------


def answer_ocr(question: Question) -> Reply:
    """The pages that were asked for; those that the document does not have are left out.

    Raises:
        MistralError: The model or a limit refuses, or the document cannot be read.
    """
    body = question.body
    quota = question.admit("ocr", "ocr-pages").quota
    source = _source(question)
    wanted = _wanted(body.get("pages"), _count_pages(source))
    seed = f"{question.service.seed}/{hashlib.sha256(source.identity).hexdigest()}"
    reader = _Reader(question, seed)
    pages = [reader.page(index) for index in wanted]
    quota.charge("ocr-pages", len(pages))
    form: Json | None = body.get("document_annotation_format")
    reply = question.reply(
        _encode(
            {
                "pages": pages,
                "model": body["model"],
                "document_annotation": None if form is None else _annotation(form, seed),
                "usage_info": {
                    "pages_processed": len(pages),
                    "doc_size_bytes": None if source.data is None else len(source.data),
                },
            }
        )
    )
    reply.pages = len(pages)
    reply.headers = [*limit_headers(quota, "ocr-pages"), ("x-ratelimit-ocr-pages-query-cost", str(len(pages)))]
    return reply


def _source(question: Question) -> Source:
    document: Json = question.body["document"]
    if "file_id" in document:
        return from_file_id(question, document["file_id"])
    url: Any = document["document_url"] if "document_url" in document else document["image_url"]
    return from_address(question, url if isinstance(url, str) else url["url"])


def _count_pages(source: Source) -> int:
    """How many pages a document has.

    Raises:
        MistralError: 400: it says that it is a PDF, and is none.
    """
    if source.data is None:
        return _PAGES_ELSEWHERE
    is_pdf = source.data.lstrip()[:5] == b"%PDF-"
    if source.content_type == "application/pdf" and not is_pdf:
        raise MistralError.object(400, "document_parser_invalid_file", "3740", "Document is not a valid PDF.")
    return min(_MAX_PAGES, max(1, len(_PAGE_OBJECT.findall(source.data)))) if is_pdf else 1


def _wanted(pages: str | list[int] | None, count: int) -> list[int]:
    """The pages to read, in order and each once."""
    if pages is None:
        return list(range(count))
    if isinstance(pages, list):
        return [index for index in range(count) if index in set(pages)]
    found: set[int] = set()
    for part in pages.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), min(_MAX_INDEX, int(last or first)) + 1))
    return [index for index in range(count) if index in found]


def _annotation(form: Json, seed: str) -> str:
    """The least JSON that fits the format's schema."""
    return fitting(form["json_schema"]["schema"], random.Random(seed))


@attrs.define(eq=False)
class _Reader:
    """Makes the pages of one document up.

    Attributes:
        question: The request.
        seed: Of everything on the pages.
        pictures: How many there were until now.
    """

    question: Question
    seed: str
    pictures: int = 0

    def page(self, index: int) -> Json:
        """One page."""
        body, law = self.question.body, page_law(self.question)
        rng = random.Random(f"{self.seed}/{index}")
        table_format: str | None = body.get("table_format")
        table, table_id = _table(rng, index, table_format)
        if law is not None:
            picture, parts = None, [("text", self.question.ask(law, body, index))]
        else:
            picture = self._picture(rng, f"{self.seed}/{index}")
            parts = [
                ("title", "# " + "".join(make_text(rng, 2, 4)).rstrip(".")),
                ("text", "".join(make_text(rng, 20, 40))),
                ("table", table if table_format is None else f"[{table_id}]({table_id})"),
            ]
            if picture is not None:
                parts.append(("image", f"![{picture['id']}]({picture['id']})"))
        has_tables = table_format is not None and law is None
        granularity: str | None = body.get("confidence_scores_granularity")
        blocks = [
            {
                "top_left_x": 100,
                "top_left_y": 100 + 500 * row,
                "bottom_right_x": 1600,
                "bottom_right_y": 500 + 500 * row,
                "content": content,
                "confidence_scores": _block_confidence(rng) if granularity == "block" else None,
                "type": kind,
                **({"image_id": picture["id"]} if kind == "image" and picture is not None else {}),
                **({"table_id": None if table_format is None else table_id} if kind == "table" else {}),
            }
            for row, (kind, content) in enumerate(parts)
        ]
        markdown = "\n\n".join(content for _, content in parts)
        return {
            "index": index,
            "markdown": markdown,
            "images": [] if picture is None else [picture],
            "tables": [{"id": table_id, "content": table, "format": table_format}] if has_tables else [],
            "hyperlinks": [],
            "header": f"Header of page {index}" if body.get("extract_header") else None,
            "footer": f"Footer of page {index}" if body.get("extract_footer") else None,
            "dimensions": _SIZE,
            "confidence_scores": None if granularity is None else _page_confidence(rng, markdown, granularity),
            "blocks": blocks if body.get("include_blocks", True) else None,
        }

    def _picture(self, rng: random.Random, seed: str) -> Json | None:
        """The page's picture, unless there are enough of them or it is too small."""
        body = self.question.body
        limit: int | None = body.get("image_limit")
        width, height = _PICTURE
        grey = rng.randint(0, 255)
        if (limit is not None and self.pictures >= limit) or min(width, height) < (body.get("image_min_size") or 0):
            return None
        number, self.pictures = self.pictures, self.pictures + 1
        form: Json | None = body.get("bbox_annotation_format")
        content = base64.b64encode(_png(width, height, grey)).decode() if body.get("include_image_base64") else None
        return {
            "id": f"img-{number}.png",
            "top_left_x": 100,
            "top_left_y": 1600,
            "bottom_right_x": 100 + width,
            "bottom_right_y": 1600 + height,
            "image_base64": None if content is None else f"data:image/png;base64,{content}",
            "image_annotation": None if form is None else _annotation(form, seed),
        }


def _table(rng: random.Random, index: int, table_format: str | None) -> tuple[str, str]:
    """A table of two columns, as HTML or Markdown, and its id."""
    rows = [[rng.randint(1, 99) for _ in range(2)] for _ in range(2)]
    if table_format == "html":
        cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><tr><th>a</th><th>b</th></tr>{cells}</table>", f"tbl-{index}.html"
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(["| a | b |", "| --- | --- |", *lines]), f"tbl-{index}.md"


def _confidence(rng: random.Random) -> float:
    return round(rng.uniform(0.9, 1.0), 4)


def _block_confidence(rng: random.Random) -> Json:
    least, average = sorted((_confidence(rng), _confidence(rng)))
    return {
        "average_content_confidence_score": average,
        "minimum_content_confidence_score": least,
        "block_type_confidence_score": _confidence(rng),
    }


def _page_confidence(rng: random.Random, markdown: str, granularity: str) -> Json:
    """How sure the words of a page are; each of them for ``word``."""
    words = [(found[0], _confidence(rng), found.start()) for found in re.finditer(r"\S+", markdown)]
    scores = [score for _, score, _ in words]
    each = [{"text": word, "confidence": score, "start_index": at} for word, score, at in words]
    return {
        "word_confidence_scores": each if granularity == "word" else [],
        "average_page_confidence_score": round(sum(scores) / len(scores), 4) if scores else 1.0,
        "minimum_page_confidence_score": min(scores, default=1.0),
    }


def _png(width: int, height: int, grey: int) -> bytes:
    """A picture of one grey.

    Source:
        W3C, Portable Network Graphics (PNG) Specification (Third Edition), sections 5 and 11.2.
    """

    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\0" + bytes([grey]) * width) * height
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + piece(b"IDAT", zlib.compress(rows)) + piece(b"IEND", b"")
