"""Mistral's wire shape, as its SDK speaks it to us.

Source:
    https://docs.mistral.ai/api. Errors: https://docs.mistral.ai/api (``HTTPValidationError``) and the bodies that
    public reports quote (``object``, ``message``, ``type``, ``param``, ``code``, ``raw_status_code``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from bifrost_core.errors import BifrostError, CallError
from bifrost_core.kinds import Kind
from bifrost_core.responses import Response
from bifrost_core.types import File, JsonObject, Operation, Request

from ._bodies import Members, encode, form_of, invalid, members_of, no_endpoint, object_of, unsupported
from ._mistral_answers import (
    ModelRenderer,
    TranscriptionRenderer,
    WholeRenderer,
    classes,
    documents,
    model_list,
    sound,
    vectors,
    verdicts,
)
from ._mistral_chat import ChatRenderer
from .base import JSON, Inbound, Order, Renderer, Reply
from .openai import OpenAIDialect

__all__ = ["MistralDialect"]

# Mistral's own words and codes for what it refuses, where it has them: https://docs.mistral.ai/resources/error-glossary
# and public reports.
_TYPES: Final[Mapping[Kind, tuple[str, str | None]]] = {
    Kind.MODEL_NOT_FOUND: ("invalid_model", "1500"),
    Kind.RATE_LIMITED: ("rate_limited", "1300"),
    Kind.INVALID_REQUEST: ("invalid_request_error", None),
    Kind.CONTEXT_TOO_LONG: ("invalid_request_invalid_args", "3051"),
}
_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_MODEL_PATH: Final = "models/"


class MistralDialect:
    """Chat, FIM, embeddings, moderation, classification, OCR, transcription, speech and models.

    ``responses``, which Mistral's SDK has too, is in OpenAI's shape there: that dialect reads and writes it.
    """

    name: ClassVar[str] = "mistral"

    def parse(self, inbound: Inbound) -> Order:
        """What the bytes ask for.

        Raises:
            CallError: They make no sense in this dialect; names the field.
        """
        if inbound.method == "GET" and inbound.path.startswith(_MODEL_PATH):
            wanted = inbound.path.removeprefix(_MODEL_PATH)
            return Order(Request(Operation.MODELS, ""), ModelRenderer(model_list, _problem, wanted))
        read = _ENDPOINTS.get((inbound.method, inbound.path))
        if read is None:
            raise no_endpoint(self.name, inbound)
        return read(inbound)

    def refusal(self, error: BifrostError, request_id: str) -> Reply:  # noqa: ARG002 # the body has no place for it
        """An error as Mistral tells it: what is wrong with the request itself as 422, by its path."""
        problem = _problem(error)
        status = problem["raw_status_code"]
        if status == 422:
            problem["detail"] = [{"type": problem["type"], "loc": _path(problem["param"]), "msg": error.message}]
        return Reply(status, {"content-type": JSON}, encode(problem))


# --- errors


def _problem(error: BifrostError) -> JsonObject:
    kind = error.kind if isinstance(error, CallError) else Kind.INVALID_REQUEST
    named, code = _TYPES.get(kind, (str(kind), None))
    stated = getattr(error, "code", None)
    return {
        "object": "error",
        "message": error.message,
        "type": named,
        "param": getattr(error, "parameter", None) or getattr(error, "field", None),
        "code": stated if isinstance(stated, str) else code,
        "raw_status_code": _status(error),
    }


def _status(error: BifrostError) -> int:
    """The status; 422 for what was found wrong before a provider was asked, as Mistral has it."""
    if not isinstance(error, CallError):
        return 422
    if error.kind is Kind.INVALID_REQUEST and error.http_status == 400 and getattr(error, "status", None) is None:
        return 422
    return error.http_status


def _path(parameter: Any) -> list[str | int]:
    """Where a field stands: ``messages[0].content`` as a list of names and places."""
    if not isinstance(parameter, str):
        return ["body"]
    return ["body", *(name or int(place) for name, place in _STEP.findall(parameter))]


# --- what is asked for


def _order(operation: Operation, members: Members, renderer: Renderer, **files: Any) -> Order:
    request = Request(operation, members.model, members.body, stream=members.stream, **files)
    return Order(request, renderer, members.fallbacks)


def _talk(operation: Operation) -> Callable[[Inbound], Order]:
    def read(inbound: Inbound) -> Order:
        members = members_of(inbound)
        return _order(operation, members, ChatRenderer(members.model, _problem))

    return read


def _plain(operation: Operation, write: Callable[[Response], JsonObject]) -> Callable[[Inbound], Order]:
    def read(inbound: Inbound) -> Order:
        members = members_of(inbound)
        if members.stream:
            raise unsupported("stream", "this operation answers whole")
        return _order(operation, members, WholeRenderer(write, _problem))

    return read


def _models(inbound: Inbound) -> Order:  # noqa: ARG001 # the list is the same for all
    return Order(Request(Operation.MODELS, ""), WholeRenderer(model_list, _problem))


# --- forms


def _transcription(inbound: Inbound) -> Order:
    """A form, or JSON where the sound is named by its address or id."""
    files: tuple[File, ...] = ()
    if inbound.headers.get("content-type", "").startswith(JSON):
        given = object_of(inbound)
    else:
        texts, files = form_of(inbound)
        given = {name: _FORM.get(name, _last)(name, values) for name, values in texts.items()}
    members = Members(given)
    if not members.model:
        raise invalid("'model' is missing; name one as provider/model", "model")
    return _order(Operation.TRANSCRIPTION, members, TranscriptionRenderer(_problem), files=files)


def _last(name: str, values: list[str]) -> str:  # noqa: ARG001 # as the others
    return values[-1]


def _all(name: str, values: list[str]) -> list[str]:  # noqa: ARG001 # as the others
    return values


def _truth(name: str, values: list[str]) -> bool:
    said = values[-1].lower()
    if said not in {"true", "false"}:
        raise invalid(f"{name!r} is no boolean", name)
    return said == "true"


def _number(name: str, values: list[str]) -> float:
    try:
        return float(values[-1])
    except ValueError:
        raise invalid(f"{name!r} is no number", name) from None


_FORM: Final[Mapping[str, Callable[[str, list[str]], Any]]] = {
    "context_bias": _all,
    "diarize": _truth,
    "fallbacks": _all,
    "stream": _truth,
    "temperature": _number,
    "timestamp_granularities": _all,
}
_ENDPOINTS: Final[Mapping[tuple[str, str], Callable[[Inbound], Order]]] = {
    ("POST", "chat/completions"): _talk(Operation.CHAT),
    ("POST", "fim/completions"): _talk(Operation.FIM),
    ("POST", "embeddings"): _plain(Operation.EMBEDDINGS, vectors),
    ("POST", "moderations"): _plain(Operation.MODERATION, verdicts),
    ("POST", "chat/moderations"): _plain(Operation.MODERATION, verdicts),
    ("POST", "classifications"): _plain(Operation.CLASSIFICATION, classes),
    ("POST", "chat/classifications"): _plain(Operation.CLASSIFICATION, classes),
    ("POST", "ocr"): _plain(Operation.OCR, documents),
    ("POST", "audio/transcriptions"): _transcription,
    ("POST", "audio/speech"): _plain(Operation.SPEECH, sound),
    ("POST", "responses"): OpenAIDialect().parse,
    ("GET", "models"): _models,
}
