"""Completions of a text, OpenAI's endpoint before chat: what stands between ``prompt`` and ``suffix``.

It is asked for as fill in the middle, which providers serve that have such models.

Source:
    https://platform.openai.com/docs/api-reference/completions/create and
    https://platform.openai.com/docs/api-reference/completions/object.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Mapping
from typing import Final

from bifrost_core.types import JsonObject, Operation, Request

from ._bodies import check_types, invalid, members_of, unsupported
from ._openai_chat import ChatRenderer
from .base import Inbound, Order

__all__ = ["read_completion"]

_TYPES: Final[Mapping[str, type]] = {
    "best_of": int,
    "echo": bool,
    "frequency_penalty": float,
    "logit_bias": dict,
    "logprobs": int,
    "max_tokens": int,
    "n": int,
    "presence_penalty": float,
    "seed": int,
    "stream_options": dict,
    "suffix": str,
    "temperature": float,
    "top_p": float,
    "user": str,
}


def read_completion(inbound: Inbound, now: int) -> Order:
    """An order for the completion of one text.

    Raises:
        CallError: The body makes no sense, or has several prompts; names the field.
    """
    members = members_of(inbound)
    check_types(members.body, _TYPES)
    match members.body.get("prompt"):
        case str() as prompt:
            pass
        case [str() as prompt]:
            pass
        case list():
            raise unsupported("prompt", "it is one text here, neither several nor tokens")
        case _:
            raise invalid("'prompt' is no text", "prompt")
    options: JsonObject = members.body.get("stream_options") or {}
    request = Request(Operation.FIM, members.model, {**members.body, "prompt": prompt}, stream=members.stream)
    renderer = _CompletionRenderer(now, wants_usage=options.get("include_usage") is True)
    return Order(request, renderer, members.fallbacks)


class _CompletionRenderer(ChatRenderer):
    """Writes completions of a text, made of what a chat completion says."""

    def _told(self, event: JsonObject, member: str) -> JsonObject:
        choices = [_choice(choice, member) for choice in event["choices"]]
        return {**event, "object": "text_completion", "choices": choices}


def _choice(choice: JsonObject, member: str) -> JsonObject:
    said: JsonObject = choice.get(member) or {}
    return {
        "text": choice["text"] if "text" in choice else said.get("content") or "",  # of a provider's own completion
        "index": choice.get("index", 0),
        "logprobs": choice.get("logprobs"),
        "finish_reason": choice.get("finish_reason"),
    }
