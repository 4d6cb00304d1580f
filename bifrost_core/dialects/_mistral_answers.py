"""Answers of Mistral's other operations as it writes them: its own unchanged, all others built anew.

Mistral's SDK checks what it gets: members that it takes for required are always there.

Source:
    https://docs.mistral.ai/api.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON of providers: its members are untyped until this module has read them)
import base64
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from bifrost_core.errors import BifrostError, ModelNotFoundError
from bifrost_core.responses import (
    ClassificationResponse,
    EmbeddingResponse,
    ModelInfo,
    ModelList,
    ModerationResponse,
    OcrResponse,
    Response,
    SpeechResponse,
    Transcription,
)
from bifrost_core.types import Chunk, JsonObject

from ._bodies import answer_of, encode
from ._mistral_chat import is_own, json_reply, usage_of
from .base import LastWords, Reply

__all__ = [
    "ModelRenderer",
    "TranscriptionRenderer",
    "WholeRenderer",
    "classes",
    "documents",
    "model_list",
    "sound",
    "vectors",
    "verdicts",
]

Problem = Callable[[BifrostError], JsonObject]


@attrs.frozen
class WholeRenderer:
    """Writes the answers of operations that have no streams.

    Attributes:
        write: Makes the object.
        problem: Tells an error as an object.
    """

    write: Callable[[Response], JsonObject]
    problem: Problem

    def whole(self, response: Response) -> Reply:
        """The object as JSON."""
        return json_reply(self.write(response))

    def feed(self, chunks: Sequence[Chunk]) -> bytes:
        """What a stream would tell: the events as they are."""
        return b"".join([b"data: " + encode(chunk.raw) + b"\n\n" for chunk in chunks])

    def finish(self, response: Response) -> bytes:
        """What a stream would end with: the whole object."""
        return b"data: " + encode(self.write(response)) + b"\n\n"

    def fail(self, error: BifrostError) -> LastWords:
        """An error, after which the connection breaks."""
        return LastWords(b"data: " + encode(self.problem(error)) + b"\n\n")


def vectors(response: Response) -> JsonObject:
    """Embeddings. The SDK takes lists of numbers alone, and wants an id."""
    told = answer_of(EmbeddingResponse, response)
    if is_own(told.raw):
        return told.raw
    return {
        "id": told.raw.get("id") or told.call_id,
        "object": "list",
        "model": told.model,
        "usage": usage_of(told.usage),
        "data": [
            {"object": "embedding", "index": index, "embedding": list(vector)}
            for index, vector in enumerate(told.embeddings)
        ],
    }


def verdicts(response: Response) -> JsonObject:
    """Moderation."""
    told = answer_of(ModerationResponse, response)
    if is_own(told.raw):
        return told.raw
    return {
        **_named(told),
        "usage": usage_of(told.usage),
        "results": [{"categories": result.categories, "category_scores": result.scores} for result in told.results],
    }


def classes(response: Response) -> JsonObject:
    """Classification."""
    told = answer_of(ClassificationResponse, response)
    if is_own(told.raw):
        return told.raw
    results = [{target: {"scores": scores} for target, scores in result.items()} for result in told.results]
    return {**_named(told), "results": results}


def _named(response: Response) -> JsonObject:
    return {"id": response.raw.get("id") or response.call_id, "model": response.model}


def documents(response: Response) -> JsonObject:
    """OCR."""
    told = answer_of(OcrResponse, response)
    if isinstance(told.raw.get("pages"), list) and isinstance(told.raw.get("usage_info"), dict):
        return told.raw
    annotation: Any = told.raw.get("document_annotation")
    return {
        "pages": [
            {
                "index": page.index,
                "markdown": page.markdown,
                "images": list(page.images),
                "tables": list(page.tables),
                "dimensions": page.dimensions,
            }
            for page in told.pages
        ],
        "model": told.model,
        "document_annotation": annotation if isinstance(annotation, str) else None,
        "usage_info": {"pages_processed": told.usage.pages, "doc_size_bytes": None},
    }


def sound(response: Response) -> JsonObject:
    """Speech."""
    told = answer_of(SpeechResponse, response)
    if isinstance(told.raw.get("audio_data"), str):
        return told.raw
    return {"audio_data": base64.b64encode(told.audio).decode()}


# --- models


def model_list(response: Response) -> JsonObject:
    """All that can be called, by the names by which it can."""
    told = answer_of(ModelList, response)
    return {"object": "list", "data": [_card(model) for model in told.models]}


def _card(model: ModelInfo) -> JsonObject:
    aliases = [f"{model.provider}/{alias}" for alias in model.aliases]
    if isinstance(model.raw.get("capabilities"), dict) and isinstance(model.raw.get("type"), str):  # Mistral's entry
        return {**model.raw, "id": model.id, "aliases": aliases}
    card: JsonObject = {
        "id": model.id,
        "object": "model",
        "created": model.raw["created"] if type(model.raw.get("created")) is int else 0,
        "owned_by": model.provider,
        "name": model.name,
        "aliases": aliases,
        "capabilities": dict.fromkeys(sorted(model.capabilities), True),
        "deprecation": model.deprecation,
        "deprecation_replacement_model": model.replacement,
        "type": "base",
    }
    if model.context_length is not None:
        card["max_context_length"] = model.context_length
    return card


@attrs.frozen
class ModelRenderer(WholeRenderer):
    """Writes one model of all, by its name, with or without the provider's.

    Attributes:
        wanted: The name.
    """

    wanted: str = ""

    def whole(self, response: Response) -> Reply:
        """Its entry.

        Raises:
            ModelNotFoundError: There is none, or a bare name that several providers have.
        """
        models = answer_of(ModelList, response).models
        found = [model for model in models if model.id == self.wanted]
        if not found:
            found = [model for model in models if model.id.partition("/")[2] == self.wanted]
        if len(found) != 1:
            raise ModelNotFoundError(
                f"there is no model {self.wanted[:100]!r}; the list of models names all"
                if not found
                else f"several providers have {self.wanted[:100]!r}; write provider/model",
                model=self.wanted,
                candidates=tuple(model.id for model in found),
            )
        return json_reply(_card(found[0]))


# --- transcription


class TranscriptionRenderer:
    """Writes transcriptions: whole, or as named events of which the last has all of it once more.

    Args:
        problem: Tells an error as an object.

    Source:
        https://docs.mistral.ai/capabilities/audio_transcription (streaming).
    """

    __slots__ = ("_problem",)

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def whole(self, response: Response) -> Reply:
        """A transcription."""
        return json_reply(_transcription(answer_of(Transcription, response)))

    def feed(self, chunks: Sequence[Chunk]) -> bytes:
        """Mistral's events as they are but for the last, which ``finish`` tells; of others' those with text."""
        told: list[bytes] = []
        for chunk in chunks:
            kind = chunk.raw.get("type")
            if isinstance(kind, str) and kind.startswith("transcription."):
                if kind != "transcription.done":
                    told.append(_event(kind, chunk.raw))
            elif chunk.text:
                told.append(_event("transcription.text.delta", {"text": chunk.text}))
        return b"".join(told)

    def finish(self, response: Response) -> bytes:
        """The last event."""
        return _event("transcription.done", _transcription(answer_of(Transcription, response)))

    def fail(self, error: BifrostError) -> LastWords:
        """An error, after which the connection breaks. It has no name: the SDK passes on any event that has one."""
        return LastWords(b"data: " + encode(self._problem(error)) + b"\n\n")


def _event(kind: str, members: JsonObject) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + encode({**members, "type": kind}) + b"\n\n"


def _transcription(told: Transcription) -> JsonObject:
    raw = told.raw
    if (
        isinstance(raw.get("usage"), dict)
        and {"model", "text", "language"} <= raw.keys()
        and "prompt_tokens" in raw["usage"]
    ):
        return raw
    return {
        "model": told.model,
        "text": told.text,
        "language": told.language,
        "segments": [
            {
                "type": "transcription_segment",
                "text": segment.text,
                "start": segment.start,
                "end": segment.end,
                "speaker_id": segment.speaker,
            }
            for segment in told.segments
        ],
        "usage": usage_of(told.usage),
    }
