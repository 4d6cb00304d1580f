"""Embeddings, moderation and the list of models as OpenAI's SDKs ask for them.

Source:
    https://platform.openai.com/docs/api-reference/embeddings, …/moderations and …/models. The SDK asks for
    vectors as base64 unless it is told otherwise, little-endian float32 each:
    https://github.com/openai/openai-python/blob/main/src/openai/resources/embeddings.py.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import array
import binascii
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.errors import ModelNotFoundError
from bifrost_core.responses import (
    EmbeddingResponse,
    ModelInfo,
    ModelList,
    ModerationResponse,
    ModerationResult,
    Response,
)
from bifrost_core.types import JsonObject, Operation, Request

from ._bodies import answer_of, check_types, encode, invalid, members_of
from ._whole import WholeRenderer
from .base import JSON, Inbound, Order, Reply

__all__ = ["read_embeddings", "read_models", "read_moderation"]

_EMBEDDING_TYPES: Final[Mapping[str, type]] = {"dimensions": int, "encoding_format": str, "user": str}
_FLOATS: Final = (None, "float", "base64")


# --- embeddings


def read_embeddings(inbound: Inbound, now: int) -> Order:  # noqa: ARG001 # its answer has no date
    """An order for vectors.

    Raises:
        CallError: The body makes no sense; names the field.
    """
    members = members_of(inbound)
    _no_stream(members.stream)
    check_types(members.body, _EMBEDDING_TYPES)
    if not isinstance(members.body.get("input"), (str, list)):
        raise invalid("'input' is neither text nor a list of texts", "input")
    request = Request(Operation.EMBEDDINGS, members.model, members.body)
    dtype = members.body.get("output_dtype")
    form = members.body.get("encoding_format") if dtype in (None, "float") else "as it is"
    return Order(request, _EmbeddingRenderer(form), members.fallbacks)


class _EmbeddingRenderer(WholeRenderer):
    """Writes vectors in the form that was asked for, whichever the provider has sent."""

    def __init__(self, form: Any) -> None:
        self._form = form

    def whole(self, response: Response) -> Reply:
        """A list of vectors.

        Raises:
            PluginError: The answer is none.
        """
        answer = answer_of(EmbeddingResponse, response)
        raw = answer.raw
        items = raw.get("data")
        if not isinstance(items, list):
            items = [{"object": "embedding", "index": index} for index in range(len(answer.embeddings))]
            counted = {"prompt_tokens": answer.usage.input_tokens, "total_tokens": answer.usage.total_tokens}
            raw = {"object": "list", "data": items, "model": answer.model, "usage": counted}
        told = [self._item(item, place, answer) for place, item in enumerate(items)]
        if any(new is not old for new, old in zip(told, items, strict=True)):
            raw = {**raw, "data": told}
        return Reply(200, {"content-type": JSON}, encode(raw))

    def _item(self, item: JsonObject, place: int, answer: EmbeddingResponse) -> JsonObject:
        sent = item.get("embedding")
        if self._form not in _FLOATS and sent is not None:
            return item
        is_text = self._form == "base64"
        if sent is not None and isinstance(sent, str) == is_text:
            return item
        vector = answer.embeddings[item.get("index", place)]
        return {**item, "embedding": _as_base64(vector) if is_text else list(vector)}


def _as_base64(vector: Sequence[float]) -> str:
    """Little-endian float32, as OpenAI writes it."""
    numbers = array.array("f", vector)
    if sys.byteorder == "big":  # pragma: no cover # no such machine tests this
        numbers.byteswap()
    return binascii.b2a_base64(numbers.tobytes(), newline=False).decode()


# --- moderation


def read_moderation(inbound: Inbound, now: int) -> Order:  # noqa: ARG001 # its answer has no date
    """An order for verdicts. One text part is the text that it holds.

    Raises:
        CallError: The body makes no sense; names the field.
    """
    members = members_of(inbound)
    _no_stream(members.stream)
    given = members.body.get("input")
    if not isinstance(given, (str, list)):
        raise invalid("'input' is neither text nor a list", "input")
    body = members.body
    match given:
        case [{"type": "text", "text": str(text)}]:
            body = {**body, "input": text}
        case _:
            pass
    return Order(Request(Operation.MODERATION, members.model, body), _ModerationRenderer(), members.fallbacks)


class _ModerationRenderer(WholeRenderer):
    """Writes verdicts."""

    def whole(self, response: Response) -> Reply:
        """A moderation object.

        Raises:
            PluginError: The answer is none.
        """
        answer = answer_of(ModerationResponse, response)
        raw = answer.raw
        results = raw.get("results")
        if not isinstance(results, list) or not all(isinstance(one, dict) and "flagged" in one for one in results):
            whole = [_verdict(result) for result in answer.results]
            head = {"id": f"modr-{answer.call_id.removeprefix('call_')}", "model": answer.model}
            raw = {**head, **raw, "results": whole}
        return Reply(200, {"content-type": JSON}, encode(raw))


def _verdict(result: ModerationResult) -> JsonObject:
    return {"flagged": result.flagged, "categories": result.categories, "category_scores": result.scores}


def _no_stream(stream: bool) -> None:
    if stream:
        raise invalid("'stream' is for answers that come in pieces, which this one does not", "stream")


# --- models


def read_models(inbound: Inbound, now: int) -> Order:  # noqa: ARG001 # models have dates of their own
    """An order for all models, or for the one that the path names as provider/model."""
    return Order(Request(Operation.MODELS, ""), _ModelsRenderer(inbound.path.removeprefix("models").strip("/")))


class _ModelsRenderer(WholeRenderer):
    """Writes models."""

    def __init__(self, name: str) -> None:
        self._name = name

    def whole(self, response: Response) -> Reply:
        """The list, or one model.

        Raises:
            ModelNotFoundError: There is no such model among them.
        """
        models = answer_of(ModelList, response).models
        if not self._name:
            told: JsonObject = {"object": "list", "data": [_model(model) for model in models]}
        else:
            found = next((model for model in models if model.id == self._name), None)
            if found is None:
                raise ModelNotFoundError(
                    f"there is no model {self._name[:200]!r}; GET /models lists those that are", model=self._name[:200]
                )
            told = _model(found)
        return Reply(200, {"content-type": JSON}, encode(told))


def _model(model: ModelInfo) -> JsonObject:
    """A model as OpenAI lists it, with what else the provider says; its id is what a call takes."""
    created = model.raw.get("created")
    owner = model.raw.get("owned_by")
    return {
        **model.raw,
        "id": model.id,
        "object": "model",
        "created": created if type(created) is int else 0,
        "owned_by": owner if isinstance(owner, str) else model.provider,
    }
