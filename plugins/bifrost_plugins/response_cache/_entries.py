"""Answers as bytes and back: what the cache keeps. Lossless, versioned, and never the same object twice."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal, cast

import attrs
import msgspec

from bifrost_core import (
    ChatResponse,
    Choice,
    EmbeddingResponse,
    ModelInfo,
    ModerationResponse,
    OcrResponse,
    Request,
    Response,
    ResponsesResponse,
    RouteRef,
    ToolCall,
    Transcription,
    Usage,
)
from bifrost_core.responses import (
    ClassificationResponse,
    ModelList,
    ModerationResult,
    OcrPage,
    Segment,
    SpeechResponse,
)
from bifrost_core.structured import parser_of

__all__ = ["Entry", "from_bytes", "is_whole", "to_bytes"]

_HEAD: Final = b"bifrost-response/2\n"
"""What every entry begins with. One of another version is a miss."""

_WHOLE: Final = frozenset({"stop", "tool_calls"})
"""Reasons with which a model ends by itself; with any other (``length``, ``content_filter``) the answer is cut."""

_PASSING: Final = ("ratelimit", "retry-after", "set-cookie")
"""Headers with these in their names speak about the moment or the connection, not about the answer."""

_ArrayCode = Literal["b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "f", "d"]


@attrs.frozen
class Entry:
    """A kept answer.

    Attributes:
        response: A copy that belongs to the one who asked.
        cost: USD that the provider took for it; None: unknown.
        stored_at: Seconds since 1970, UTC.
    """

    response: Response
    cost: Decimal | None
    stored_at: float


class _Choice(msgspec.Struct, array_like=True):
    index: int
    text: str | None  # None: the message's ``content``
    reasoning: str | None
    tool_calls: list[tuple[str, str, str]]
    finish_reason: str | None
    message: dict[str, Any] | None  # None: it stands in ``raw``, at the same place


class _Vector(msgspec.Struct, array_like=True):
    """A vector that came packed: ``code`` is an ``array``'s type code."""

    code: str
    data: bytes


class _Kept(msgspec.Struct, kw_only=True, tag_field="kind"):
    """What an answer of any kind has. What belongs to a call (id, attempts, times) is not kept."""

    at: float
    cost: str | None
    model: str
    usage: Usage
    route: tuple[str, str, str]
    raw: dict[str, Any]
    headers: dict[str, str]


class _Chat(_Kept, kw_only=True, tag="chat"):
    choices: list[_Choice]


class _Items(_Kept, kw_only=True, tag="responses"):
    id: str
    status: str
    output: list[dict[str, Any]]


class _Embeddings(_Kept, kw_only=True, tag="embeddings"):
    vectors: list[_Vector | None]  # None: it stands in ``raw``, at the same place
    plain: list[list[int | float]]  # what is in neither form; all or nothing


class _Transcription(_Kept, kw_only=True, tag="transcription"):
    text: str
    language: str | None
    segments: list[Segment]


class _Ocr(_Kept, kw_only=True, tag="ocr"):
    pages: list[OcrPage]
    annotation: Any


class _Moderation(_Kept, kw_only=True, tag="moderation"):
    results: list[ModerationResult]


class _Classification(_Kept, kw_only=True, tag="classification"):
    results: list[dict[str, dict[str, float]]]


class _Speech(_Kept, kw_only=True, tag="speech"):
    audio: bytes
    format: str


class _Models(_Kept, kw_only=True, tag="models"):
    models: list[ModelInfo]


_Any = _Chat | _Items | _Embeddings | _Transcription | _Ocr | _Moderation | _Classification | _Speech | _Models
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Any).decode


def is_whole(response: Response) -> bool:
    """Whether an answer is complete: not cut off, not filtered, and the words of one attempt."""
    if isinstance(response, ChatResponse):
        ends = {choice.finish_reason for choice in response.choices}
        return bool(ends) and ends <= _WHOLE and not response.resumed
    if isinstance(response, ResponsesResponse):
        return response.status == "completed" and response.incomplete_reason is None and not response.resumed
    return True


def to_bytes(response: Response, *, at: float) -> bytes | None:
    """An answer as bytes; None where it is of a kind, or holds a value, that would not come back the same.

    Args:
        response: As it was handed out.
        at: Seconds since 1970, UTC.
    """
    try:
        kept = _kept(response, at)
        return None if kept is None else _HEAD + _encode(kept)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def from_bytes(data: bytes, request: Request) -> Entry | None:
    """A fresh answer from its bytes; None where they are of another version, or broken.

    Args:
        data: What ``to_bytes`` gave.
        request: Who asks now: a class in it (``document_annotation_format``) reads the answer.
    """
    if not data.startswith(_HEAD):
        return None
    try:
        kept = _decode(memoryview(data)[len(_HEAD) :])
        return Entry(_response(kept, request), None if kept.cost is None else Decimal(kept.cost), kept.at)
    except (ValueError, ArithmeticError, LookupError, TypeError, RecursionError):
        return None


def _kept(response: Response, at: float) -> _Any | None:
    common: dict[str, Any] = {
        "at": at,
        "cost": None if response.cost is None else str(response.cost),
        "model": response.model,
        "usage": response.usage,
        "route": (response.route.provider, response.route.model, response.route.key_id),
        "raw": response.raw,
        "headers": {name: value for name, value in response.headers.items() if _stays(name)},
    }
    if type(response) is ChatResponse:
        return _Chat(
            **common, choices=[_choice(choice, response, place) for place, choice in enumerate(response.choices)]
        )
    if type(response) is ResponsesResponse:
        return _Items(**common, id=response.id, status=response.status, output=list(response.output))
    if type(response) is EmbeddingResponse:
        return _vectors(response, common)
    if type(response) is Transcription:
        segments = list(response.segments)
        return _Transcription(**common, text=response.text, language=response.language, segments=segments)
    if type(response) is OcrResponse:
        parsed = attrs.evolve(response, parse=None).annotation  # as the provider sent it, not as a caller's class
        return _Ocr(**common, pages=list(response.pages), annotation=parsed)
    if type(response) is ModerationResponse:
        return _Moderation(**common, results=list(response.results))
    if type(response) is ClassificationResponse:
        return _Classification(**common, results=list(response.results))
    if type(response) is SpeechResponse:
        return _Speech(**common, audio=response.audio, format=response.format)
    if type(response) is ModelList:
        return _Models(**common, models=list(response.models))
    return None


@lru_cache(maxsize=1_024)
def _stays(header: str) -> bool:
    return not any(word in header for word in _PASSING)


def _choice(choice: Choice, response: ChatResponse, place: int) -> _Choice:
    """A choice whose words are kept once: most are, as the very same objects, in ``raw``."""
    calls = [(call.id, call.name, call.arguments) for call in choice.tool_calls]
    text = None if choice.message.get("content") is choice.text else choice.text
    message = None if _message_in(response.raw, place) is choice.message else choice.message
    return _Choice(choice.index, text, choice.reasoning, calls, choice.finish_reason, message)


def _message_in(raw: Mapping[str, Any], place: int) -> Any:
    try:
        return raw["choices"][place]["message"]
    except (LookupError, TypeError):
        return None


def _chosen(kept: _Choice, raw: Mapping[str, Any], place: int) -> Choice:
    message = raw["choices"][place]["message"] if kept.message is None else kept.message
    return Choice(
        index=kept.index,
        text=message["content"] if kept.text is None else kept.text,
        reasoning=kept.reasoning,
        tool_calls=[ToolCall(*call) for call in kept.tool_calls] if kept.tool_calls else (),
        finish_reason=kept.finish_reason,
        message=message,
    )


def _vectors(response: EmbeddingResponse, common: Mapping[str, Any]) -> _Embeddings:
    """Each vector once: those that came as JSON stand in ``raw`` already."""
    packed: list[_Vector | None] = []
    for place, vector in enumerate(response.embeddings):
        if _in_raw(response.raw, place) is vector:
            packed.append(None)
        elif isinstance(vector, array):
            packed.append(_Vector(vector.typecode, vector.tobytes()))
        else:
            return _Embeddings(**common, vectors=[], plain=[list(each) for each in response.embeddings])
    return _Embeddings(**common, vectors=packed, plain=[])


def _in_raw(raw: Mapping[str, Any], place: int) -> Any:
    try:
        return raw["data"][place]["embedding"]
    except (LookupError, TypeError):
        return None


def _response(kept: _Any, request: Request) -> Response:
    common: dict[str, Any] = {
        "model": kept.model,
        "usage": kept.usage,
        "route": RouteRef(*kept.route),
        "raw": kept.raw,
        "headers": kept.headers,
    }
    match kept:
        case _Chat():
            chosen = [_chosen(each, kept.raw, place) for place, each in enumerate(kept.choices)]
            return ChatResponse(**common, choices=chosen)
        case _Items():
            return ResponsesResponse(**common, id=kept.id, status=kept.status, output=kept.output)
        case _Embeddings():
            return EmbeddingResponse(**common, embeddings=_unpacked(kept))
        case _Transcription():
            return Transcription(**common, text=kept.text, language=kept.language, segments=kept.segments)
        case _Ocr():
            wanted = request.body.get("document_annotation_format")
            parse = None if wanted is None or isinstance(wanted, Mapping) else parser_of(wanted)
            return OcrResponse(**common, pages=kept.pages, annotation=kept.annotation, parse=parse)
        case _Moderation():
            return ModerationResponse(**common, results=kept.results)
        case _Classification():
            return ClassificationResponse(**common, results=kept.results)
        case _Speech():
            return SpeechResponse(**common, audio=kept.audio, format=kept.format)
        case _Models():
            return ModelList(**common, models=kept.models)


def _unpacked(kept: _Embeddings) -> list[Sequence[float]]:
    if kept.plain:
        return list(kept.plain)
    vectors: list[Sequence[float]] = []
    for place, packed in enumerate(kept.vectors):
        if packed is None:
            vectors.append(kept.raw["data"][place]["embedding"])
        else:
            vectors.append(array(cast("_ArrayCode", packed.code), packed.data))
    return vectors
