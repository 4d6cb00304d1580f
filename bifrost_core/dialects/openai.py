"""OpenAI's wire shape, as its SDKs speak it to us.

Source:
    https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import attrs

from bifrost_core.errors import BifrostError, CallError
from bifrost_core.responses import ChatResponse, Response
from bifrost_core.types import Chunk, Operation, Request

from ._bodies import encode, members_of, no_endpoint
from .base import JSON, Inbound, Order, Reply

__all__ = ["OpenAIDialect"]

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class OpenAIDialect:
    """Chat completions."""

    name: ClassVar[str] = "openai"

    def parse(self, inbound: Inbound) -> Order:
        """What the bytes ask for.

        Raises:
            CallError: They make no sense in this dialect; names the field.
        """
        read = _ENDPOINTS.get((inbound.method, inbound.path))
        if read is None:
            raise no_endpoint(self.name, inbound)
        return read(inbound)

    def refusal(self, error: BifrostError, request_id: str) -> Reply:  # noqa: ARG002 # the body has no place for it
        """An error as OpenAI tells it."""
        status = error.http_status if isinstance(error, CallError) else 400
        return Reply(status, {"content-type": JSON}, encode(_problem(error, status)))


def _problem(error: BifrostError, status: int) -> dict[str, Any]:
    kind = str(error.kind) if isinstance(error, CallError) else "invalid_request"
    named = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    param = getattr(error, "parameter", None) or getattr(error, "field", None)
    return {"error": {"message": error.message, "type": named, "param": param, "code": kind}}


@attrs.frozen
class _ChatRenderer:
    """Writes chat completions."""

    def whole(self, response: Response) -> Reply:
        assert isinstance(response, ChatResponse)  # noqa: S101 # the Router's answer to chat
        return Reply(200, {"content-type": JSON}, encode(response.raw or response.to_openai()))

    def feed(self, chunks: Sequence[Chunk]) -> bytes:
        return b"".join(b"data: " + encode(chunk.raw) + b"\n\n" for chunk in chunks)

    def finish(self, response: Response) -> bytes:  # noqa: ARG002 # the chunks have said it
        return b"data: [DONE]\n\n"

    def fail(self, error: BifrostError) -> bytes:
        return b"data: " + encode(_problem(error, 502)) + b"\n\n"


def _chat(inbound: Inbound) -> Order:
    members = members_of(inbound)
    request = Request(Operation.CHAT, members.model, members.body, stream=members.stream)
    return Order(request, _ChatRenderer(), members.fallbacks)


_ENDPOINTS: Final[Mapping[tuple[str, str], Callable[[Inbound], Order]]] = {("POST", "chat/completions"): _chat}
