"""The Responses API as OpenAI's SDKs speak it.

Source:
    https://platform.openai.com/docs/api-reference/responses/create and
    https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.errors import BifrostError
from bifrost_core.responses import Response, ResponsesResponse
from bifrost_core.types import Chunk, JsonObject, Operation, Request

from ._bodies import answer_of, check_types, encode, invalid, members_of
from ._openai_errors import problem_of
from .base import JSON, Inbound, Order, Reply

__all__ = ["ResponsesRenderer", "read_responses"]

_TYPES: Final[Mapping[str, type]] = {
    "background": bool,
    "include": list,
    "instructions": str,
    "max_output_tokens": int,
    "max_tool_calls": int,
    "metadata": dict,
    "parallel_tool_calls": bool,
    "previous_response_id": str,
    "reasoning": dict,
    "store": bool,
    "temperature": float,
    "text": dict,
    "tools": list,
    "top_logprobs": int,
    "top_p": float,
    "truncation": str,
    "user": str,
}


def read_responses(inbound: Inbound, now: int) -> Order:
    """An order for an answer in the Responses shape.

    Raises:
        CallError: The body makes no sense; names the field.
    """
    members = members_of(inbound)
    check_types(members.body, _TYPES)
    if not isinstance(members.body.get("input", ""), (str, list)):
        raise invalid("'input' is neither text nor a list of items", "input")
    request = Request(Operation.RESPONSES, members.model, members.body, stream=members.stream)
    return Order(request, ResponsesRenderer(now), members.fallbacks)


class ResponsesRenderer:
    """Writes answers in the Responses shape.

    Args:
        now: Unix time in seconds, for answers that do not say when they were made.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._sequence = 0

    def whole(self, response: Response) -> Reply:
        """A response object.

        Raises:
            PluginError: The answer is none.
        """
        told = answer_of(ResponsesResponse, response).to_openai()
        return Reply(200, {"content-type": JSON}, encode(self._dated(told)))

    def feed(self, chunks: Sequence[Chunk]) -> bytes:
        """The events, each under its name."""
        return b"".join(self._event(chunk.raw) for chunk in chunks)

    def finish(self, response: Response) -> bytes:  # noqa: ARG002 # the last event has said it
        """Nothing: this API has no mark at the end."""
        return b""

    def fail(self, error: BifrostError) -> bytes:
        """An event of type ``error``, with the member that OpenAI's SDKs raise on."""
        problem = problem_of(error)
        told: JsonObject = problem["error"]
        facts = {name: told[name] for name in ("code", "message", "param")}
        return self._event({"type": "error", "sequence_number": self._sequence, **facts, **problem})

    def _event(self, event: JsonObject) -> bytes:
        if type(number := event.get("sequence_number")) is int:
            self._sequence = number + 1
        if isinstance(inside := event.get("response"), dict):
            event = {**event, "response": self._dated(inside)}
        return b"event: " + str(event.get("type")).encode() + b"\ndata: " + encode(event) + b"\n\n"

    def _dated(self, told: Any) -> JsonObject:
        dated: JsonObject = told if told.get("created_at") else {**told, "created_at": self._now}
        return dated
