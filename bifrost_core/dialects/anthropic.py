"""Anthropic's wire shape, as its SDK speaks it to us.

Source:
    https://platform.claude.com/docs/en/api/overview.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

import attrs

from bifrost_core.errors import BifrostError, ModelNotFoundError
from bifrost_core.responses import ChatResponse, ModelList, Response
from bifrost_core.types import Chunk, Operation, Request

from ._anthropic_answers import error_of, message_of, model_of, models_page, status_of
from ._anthropic_events import MessageEvents
from ._anthropic_requests import chat_body, prefill_of
from ._bodies import answer_of, encode, invalid, members_of, no_endpoint
from ._whole import WholeRenderer
from .base import JSON, Inbound, Order, Reply

__all__ = ["AnthropicDialect"]

_HEADERS: Final = {"content-type": JSON}
_MODEL_PATH: Final = "models/"


class AnthropicDialect:
    """Messages and models."""

    name: ClassVar[str] = "anthropic"

    def parse(self, inbound: Inbound) -> Order:
        """What the bytes ask for.

        Raises:
            CallError: They make no sense in this dialect; names the field.
        """
        if inbound.method == "GET" and inbound.path.startswith(_MODEL_PATH):
            wanted = inbound.path.removeprefix(_MODEL_PATH)
            return Order(Request(Operation.MODELS, wanted), _ModelRenderer(wanted))
        read = _ENDPOINTS.get((inbound.method, inbound.path))
        if read is None:
            raise no_endpoint(self.name, inbound)
        return read(inbound)

    def refusal(self, error: BifrostError, request_id: str) -> Reply:
        """An error as Anthropic tells it."""
        return Reply(status_of(error), _HEADERS, encode(error_of(error, request_id)))


class _MessageRenderer:
    """Writes a message, whole or as events."""

    def __init__(self, model: str, prefill: str) -> None:
        self._prefill = prefill
        self._events = MessageEvents(model, prefill)

    def whole(self, response: Response) -> Reply:
        return Reply(200, _HEADERS, encode(message_of(answer_of(ChatResponse, response), self._prefill)))

    def feed(self, chunks: Sequence[Chunk]) -> bytes:
        return self._events.feed(chunks)

    def finish(self, response: Response) -> bytes:
        return self._events.finish(response)

    def fail(self, error: BifrostError) -> bytes:
        return _error_event(error)


class _ModelsRenderer(WholeRenderer):
    """Writes one page of the list of all models that can be called."""

    def __init__(self, query: Mapping[str, str]) -> None:
        self._query = query

    def whole(self, response: Response) -> Reply:
        return Reply(200, _HEADERS, encode(models_page(answer_of(ModelList, response).models, self._query)))


@attrs.frozen
class _ModelRenderer(WholeRenderer):
    """Writes one model of that list."""

    wanted: str

    def whole(self, response: Response) -> Reply:
        for model in answer_of(ModelList, response).models:
            if model.id == self.wanted:
                return Reply(200, _HEADERS, encode(model_of(model)))
        raise ModelNotFoundError(f"no model {self.wanted[:100]!r} can be called here; list the models for their names")


def _error_event(error: BifrostError) -> bytes:
    """An error inside a stream.

    Source:
        https://platform.claude.com/docs/en/build-with-claude/streaming (error events)
    """
    return b"event: error\ndata: %b\n\n" % encode(error_of(error))


def _messages(inbound: Inbound) -> Order:
    members = members_of(inbound)
    body = chat_body(members.body, inbound.headers)
    request = Request(Operation.CHAT, members.model, body, stream=members.stream)
    renderer = _MessageRenderer(members.model.rpartition("/")[2], prefill_of(body))
    return Order(request, renderer, members.fallbacks)


def _count_tokens(inbound: Inbound) -> Order:  # noqa: ARG001 # whatever it holds
    raise invalid(
        "messages/count_tokens is not served: only the provider's own tokenizer counts exactly, and which provider "
        "answers is not known before the call; Router.estimate() gives an upper bound",
        http_status=404,
    )


def _models(inbound: Inbound) -> Order:
    if any(name.startswith("lifecycle") for name in inbound.query):
        raise invalid("'lifecycle' is not known here: the list has every model that can be called")
    return Order(Request(Operation.MODELS, "*"), _ModelsRenderer(inbound.query))


_ENDPOINTS: Final[Mapping[tuple[str, str], Callable[[Inbound], Order]]] = {
    ("POST", "messages"): _messages,
    ("POST", "messages/count_tokens"): _count_tokens,
    ("GET", "models"): _models,
}
