"""Anthropic's message and the events of its stream as plain JSON: what may stay of them when their words are replaced.

Source:
    https://platform.claude.com/docs/en/api/messages/create and
    https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

__all__ = ["blocks_of", "is_event", "is_message", "retold_event", "retold_message"]

JsonObject = dict[str, Any]

_EVENTS: Final = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"}
    | {"message_stop", "ping"}
)
_WORDLESS_DELTA: Final = ("stop_reason", "stop_sequence")
_PING: Final = "ping"  # an event that says nothing


def is_message(raw: Mapping[str, Any]) -> bool:
    """Whether this is a whole message of Anthropic's."""
    return raw.get("type") == "message" and isinstance(raw.get("content"), list) and "choices" not in raw


def is_event(raw: Mapping[str, Any]) -> bool:
    """Whether this is an event of Anthropic's stream, of a type that is known."""
    kind = raw.get("type")
    return isinstance(kind, str) and kind in _EVENTS


def blocks_of(text: str, reasoning: str | None, calls: Sequence[Mapping[str, Any]]) -> list[JsonObject]:
    """The blocks of a message that says this and nothing else.

    Args:
        text: The answer's text.
        reasoning: What was thought; nobody has signed it, so that it can not go back.
        calls: As an assistant message of OpenAI's shape has them; arguments that are no JSON object are left out.
    """
    blocks: list[JsonObject] = []
    if reasoning:
        blocks.append({"type": "thinking", "thinking": reasoning, "signature": ""})
    if text:
        blocks.append({"type": "text", "text": text})
    for call in calls:
        function: Mapping[str, Any] = call["function"]
        given: Any = None
        with contextlib.suppress(ValueError, RecursionError):  # cut off
            given = msgspec.json.decode(function["arguments"] or "{}")
        arguments = cast("JsonObject", given) if isinstance(given, dict) else {}
        blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments})
    return blocks


def retold_message(message: JsonObject, text: str) -> JsonObject:
    """A message that says ``text``: its calls stay; thoughts, quotations and results of searches go with the words."""
    calls = [block for block in _objects(message["content"]) if block.get("type") == "tool_use"]
    return {**message, "content": [*blocks_of(text, None, ()), *calls]}


def retold_event(event: JsonObject, text: str) -> JsonObject:
    """An event that brings ``text`` where it brought something; else only what names and counts stays of it."""
    kind, index = event["type"], event.get("index")
    if kind == "content_block_delta":
        old = _object(event.get("delta"))
        if not text and old.get("type") != "text_delta":
            return {"type": _PING}
        return {"type": kind, "index": index, "delta": {"type": "text_delta", "text": text}}
    if kind == "content_block_start":
        block = _object(event.get("content_block"))
        if text or block.get("type") != "tool_use":
            return {"type": kind, "index": index, "content_block": {"type": "text", "text": text}}
        named = {name: block.get(name) for name in ("type", "id", "name")}
        return {"type": kind, "index": index, "content_block": {**named, "input": {}}}
    if kind == "message_start":
        return {"type": kind, "message": {**_object(event.get("message")), "content": []}}
    if kind == "message_delta":
        delta = _object(event.get("delta"))
        told: JsonObject = {"type": kind, "delta": {name: delta[name] for name in _WORDLESS_DELTA if name in delta}}
        return told if "usage" not in event else {**told, "usage": event["usage"]}
    return {"type": kind} if index is None else {"type": kind, "index": index}


def _object(value: Any) -> JsonObject:
    return cast("JsonObject", value) if isinstance(value, dict) else {}


def _objects(value: Any) -> list[JsonObject]:
    return [cast("JsonObject", each) for each in cast("Sequence[object]", value) if isinstance(each, dict)]
