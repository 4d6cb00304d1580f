"""Answers as Anthropic writes them: messages, lists of models, and errors.

Source:
    https://platform.claude.com/docs/en/api/messages/create, https://platform.claude.com/docs/en/api/models/list and
    https://platform.claude.com/docs/en/api/errors.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from bifrost_core.blocks import is_message
from bifrost_core.errors import BifrostError, CallError, ConfigError
from bifrost_core.responses import ChatResponse, ModelInfo
from bifrost_core.types import Choice, JsonObject, ToolCall, Usage

from ._bodies import invalid

__all__ = [
    "arguments_of",
    "error_of",
    "message_of",
    "model_of",
    "models_page",
    "status_of",
    "stop_reason_of",
    "usage_of",
]

_STOP_REASONS: Final[Mapping[str, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_ERRORS: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OVERLOADED: Final = 529
_UNKNOWN_TIME: Final = "1970-01-01T00:00:00Z"  # what Anthropic writes where it does not know when a model came out
_MAX_PAGE: Final = 1_000


# --- messages


def message_of(response: ChatResponse, prefill: str = "") -> JsonObject:
    """A whole answer as a message; one of Anthropic's own as it came.

    Args:
        response: The answer; of several choices the first, as the shape has one.
        prefill: Text that the answer went on from, and that some providers repeat.
    """
    if is_message(response.raw):
        return response.raw
    choice = response.choices[0] if response.choices else Choice()
    content = _blocks(choice, prefill)
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_of(call)}
        for call in choice.tool_calls
    ]
    known = response.raw.get("id")
    return {
        "id": known if isinstance(known, str) and known else f"msg_{response.call_id.removeprefix('call_')}",
        "type": "message",
        "role": "assistant",
        "model": response.model,
        "content": content,
        "stop_reason": stop_reason_of(choice.finish_reason, has_calls=bool(choice.tool_calls)) or "end_turn",
        "stop_sequence": None,
        "usage": usage_of(response.usage),
    }


def _blocks(choice: Choice, prefill: str) -> list[JsonObject]:
    """What was thought and said, in the order of the message's parts where they say the same."""
    content: Any = choice.message.get("content")
    parts: Sequence[Any] = content if isinstance(content, list) else ()
    told = [block for part in parts if isinstance(part, dict) and (block := _block(part)) is not None]
    if (_said(told, "text"), _said(told, "thinking")) != (choice.text, choice.reasoning or ""):
        told = [{"type": "thinking", "thinking": choice.reasoning, "signature": ""}] if choice.reasoning else []
        told.append({"type": "text", "text": choice.text})
    if prefill and choice.text.startswith(prefill):
        told = [block for block in told if block["type"] != "text"]
        told.append({"type": "text", "text": choice.text[len(prefill) :]})
    return [block for block in told if block.get("text", block) != ""]


def _block(part: JsonObject) -> JsonObject | None:
    """A part of a message as a block; None where Anthropic has none for it."""
    kind = part.get("type")
    if kind == "text":
        return {"type": "text", "text": part.get("text") or ""}
    if kind == "thinking":
        thought = part.get("thinking")
        if isinstance(thought, list):  # Mistral's, whose signature Anthropic would refuse
            words = "".join(str(each.get("text", "")) for each in thought if isinstance(each, dict))
            return {"type": "thinking", "thinking": words, "signature": ""}
        return {"type": "thinking", "thinking": thought or "", "signature": part.get("signature") or ""}
    return part if kind == "redacted_thinking" else None


def _said(blocks: Sequence[JsonObject], kind: str) -> str:
    return "".join(str(block[kind]) for block in blocks if block["type"] == kind)


def arguments_of(call: ToolCall) -> JsonObject:
    """A call's arguments as an object; what is none, as it was cut off or is the model's mistake, is told in one.

    Source:
        https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming (invalid JSON in
        tool responses)
    """
    value: Any = None
    try:
        value = call.parsed()
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": call.arguments}


def stop_reason_of(reason: str | None, *, has_calls: bool) -> str | None:
    """Anthropic's word for why an answer ended; others stay what they are."""
    if has_calls and reason in (None, "stop"):  # some providers say no more than that it ended
        return "tool_use"
    return reason if reason is None else _STOP_REASONS.get(reason, reason)


def usage_of(usage: Usage) -> JsonObject:
    """Counts; the input is what was read past the cache and not written to it.

    Source:
        https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    """
    counts: JsonObject = {
        "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.long_cache_write_tokens:
        counts["cache_creation"] = {
            "ephemeral_5m_input_tokens": max(0, usage.cache_write_tokens - usage.long_cache_write_tokens),
            "ephemeral_1h_input_tokens": usage.long_cache_write_tokens,
        }
    if usage.reasoning_tokens:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return counts


# --- models


def model_of(info: ModelInfo) -> JsonObject:
    """A model as Anthropic lists it, under the name by which it can be called here."""
    if info.raw.get("type") == "model":
        return {**info.raw, "id": info.id}
    created: Any = info.raw.get("created")
    is_time = type(created) is int and 0 < created < 1 << 37  # the year 6000
    return {
        "type": "model",
        "id": info.id,
        "display_name": info.name,
        "created_at": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if is_time else _UNKNOWN_TIME,
        "lifecycle": "active" if info.deprecation is None else "deprecated",
        "retires_at": info.deprecation,
        "max_input_tokens": info.context_length,
    }


def models_page(models: Sequence[ModelInfo], query: Mapping[str, str]) -> JsonObject:
    """One page of a list of models; without ``limit`` it holds all.

    Raises:
        CallError: ``limit`` is out of range, or a cursor names no model.
    """
    names = [model.id for model in models]
    start, end = 0, len(names)
    if after := query.get("after_id"):
        start = _place(names, after, "after_id") + 1
    if before := query.get("before_id"):
        end = _place(names, before, "before_id")
    stated = query.get("limit")
    limit = len(names) if stated is None else int(stated) if stated.isdecimal() and len(stated) < 5 else 0
    if stated is not None and not 1 <= limit <= _MAX_PAGE:
        raise invalid(f"'limit' is from 1 to {_MAX_PAGE}")
    wanted = range(start, end)
    shown = wanted[-limit:] if before and not after and limit else wanted[:limit]
    page = [model_of(models[place]) for place in shown]
    return {
        "data": page,
        "has_more": len(shown) < len(wanted),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }


def _place(names: Sequence[str], name: str, parameter: str) -> int:
    if name not in names:
        raise invalid(f"{parameter!r} names no model of the list")
    return names.index(name)


# --- errors


def status_of(error: BifrostError) -> int:
    """The HTTP status that an error answers with; 529 where it was the provider's own."""
    if isinstance(error, CallError):
        return _OVERLOADED if getattr(error, "status", None) == _OVERLOADED else error.http_status
    # What a caller wrote is named by its field; anything else (a closed Router) is not the caller's mistake.
    return 400 if isinstance(error, ConfigError) and error.field else 500


def error_of(error: BifrostError, request_id: str | None = None) -> JsonObject:
    """The body of an error, and an error inside a stream."""
    status = status_of(error)
    named = _ERRORS.get(status, "invalid_request_error" if status < 500 else "api_error")
    told = getattr(error, "call_id", "") if request_id is None else request_id
    return {"type": "error", "error": {"type": named, "message": error.message}, "request_id": told or None}
