"""Anthropic's messages as answers: whole ones into ``ChatResponse``, and the pieces that the streamed ones share.

Source:
    https://platform.claude.com/docs/en/api/messages/create (the message, its blocks and its usage) and
    https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.response_events import responses_of
from bifrost_core.responses import ChatResponse, ResponsesResponse
from bifrost_core.types import Choice, JsonObject, Request, ToolCall, Usage
from bifrost_core.wire import HttpReply

from ._chat import MalformedError, read_arguments, read_object, response_parser
from ._reporter import Reporter

__all__ = ["chat_of", "read_chat", "read_finish_reason", "read_responses", "read_usage"]

_MAX_COUNT: Final = 1 << 53
_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_BESIDE_CALL: Final = ("caller", "toolset_name")
_DIRECT: Final = {"type": "direct"}  # what `caller` says of every call that no server tool made


def read_chat(request: Request, reply: HttpReply, reporter: Reporter) -> ChatResponse:
    """Read a whole message.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    data = read_object(reply, reporter, request.model)
    why = ""
    response: ChatResponse | None = None
    try:
        response = chat_of(data, request, reporter, headers=reply.headers)
    except MalformedError as exc:
        why = str(exc)
    if response is None:
        raise reporter.unusable(reply, why)
    return response


def read_responses(request: Request, reply: HttpReply, reporter: Reporter) -> ResponsesResponse:
    """Read a whole message as a Responses answer.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    return responses_of(read_chat(request, reply, reporter))


def chat_of(
    data: JsonObject,
    request: Request,
    reporter: Reporter,
    *,
    headers: Mapping[str, str] | None = None,
    arguments: Mapping[int, str] | None = None,
) -> ChatResponse:
    """The answer that a message is.

    Args:
        data: The message.
        request: That it answers.
        reporter: Of the provider.
        headers: Of the answer.
        arguments: By the place of a call among the blocks, its arguments as they came, where they are no JSON.

    Raises:
        MalformedError: It has no list of blocks, or a block has an unknown shape.
    """
    blocks = data.get("content")
    if not isinstance(blocks, list):
        raise MalformedError("there is no content in it")
    model = data.get("model")
    return ChatResponse(
        model=model if isinstance(model, str) else request.model,
        usage=read_usage(data.get("usage"), reporter),
        raw=data,
        headers={} if headers is None else headers,
        choices=(_choice(blocks, data.get("stop_reason"), arguments or {}),),
        parse=response_parser(request),
    )


def _choice(blocks: Sequence[Any], reason: Any, arguments: Mapping[int, str]) -> Choice:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    sent: list[JsonObject] = []
    parts: list[JsonObject] = []
    is_mixed = False
    for place, block in enumerate(blocks):
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str):
            raise MalformedError(f"content[{place}] is no block")
        if kind == "tool_use":
            calls.append(_call(place, block, arguments.get(place)))
            sent.append(_sent(calls[-1], block))
        else:
            is_mixed = is_mixed or bool(calls)
            if kind == "text":
                texts.append(_words(block, "text", place))
            elif kind == "thinking":
                thoughts.append(_words(block, "thinking", place))
        parts.append(_part(block))
    if not is_mixed:  # else the calls keep their places among the parts too, so that the answer goes back as it came
        parts = [part for part in parts if part["type"] != "tool_use"]
    return Choice(
        text="".join(texts),
        reasoning="".join(thoughts) or None,
        tool_calls=tuple(calls),
        finish_reason=read_finish_reason(reason),
        message=_message(parts, sent),
    )


def _words(block: JsonObject, member: str, place: int) -> str:
    words = block.get(member)
    if not isinstance(words, str):
        raise MalformedError(f"content[{place}].{member} is no text")
    return words


def _call(place: int, block: JsonObject, arguments: str | None) -> ToolCall:
    known, name = block.get("id"), block.get("name")
    if not isinstance(known, str) or not isinstance(name, str):
        raise MalformedError(f"content[{place}] is a call without an id or a name")
    return ToolCall(known, name, read_arguments(block.get("input")) if arguments is None else arguments)


def _sent(call: ToolCall, block: JsonObject) -> JsonObject:
    """The call as a member of an assistant's message, with what has to go back with it."""
    beside = {name: block[name] for name in _BESIDE_CALL if block.get(name) not in (None, _DIRECT)}
    return {**call.to_openai(), **beside}


def _part(block: JsonObject) -> JsonObject:
    """A block as a part: as it is, but for citations that there are not."""
    if block.get("type") == "text" and "citations" in block and not block["citations"]:
        return {name: value for name, value in block.items() if name != "citations"}
    return block


def _message(parts: Sequence[JsonObject], calls: Sequence[JsonObject]) -> JsonObject:
    content: Any = list(parts)
    if not parts:
        content = ""
    elif len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        content = parts[0]["text"]
    message: JsonObject = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = list(calls)
    return message


def read_finish_reason(reason: Any) -> str | None:
    """The library's word for why an answer ended; others (``pause_turn``) stay what they are.

    Raises:
        MalformedError: It is no word.
    """
    if reason is None:
        return None
    if not isinstance(reason, str):
        raise MalformedError("stop_reason is no word")
    return _REASONS.get(reason, reason)


def read_usage(usage: Any, reporter: Reporter) -> Usage:
    """What the provider counted. Unusable counts are 0, and noted.

    Source:
        https://platform.claude.com/docs/en/build-with-claude/prompt-caching: the input is the sum of what was read
        past the cache, from it and into it; ``cache_creation`` tells what of the last is kept for an hour.
    """
    counts: dict[str, int | None] = {}
    if isinstance(usage, dict):
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            given = usage.get(name)
            counts[name] = 0 if given is None and name.startswith("cache") else _count(given)
    past, answered = counts.get("input_tokens"), counts.get("output_tokens")
    read, written = counts.get("cache_read_input_tokens"), counts.get("cache_creation_input_tokens")
    if past is None or answered is None or read is None or written is None:
        reporter.note("bad_usage: an answer has no usable usage", logging.WARNING)
        return Usage(requests=1)
    lifetimes: Any = usage.get("cache_creation")
    kept_long = _count(lifetimes.get("ephemeral_1h_input_tokens")) if isinstance(lifetimes, dict) else None
    details: Any = usage.get("output_tokens_details")
    thought = _count(details.get("thinking_tokens")) if isinstance(details, dict) else None
    return Usage(
        input_tokens=past + read + written,
        output_tokens=answered,
        cached_tokens=read,
        cache_write_tokens=written,
        long_cache_write_tokens=min(kept_long or 0, written),
        reasoning_tokens=thought or 0,
        requests=1,
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_COUNT else None
