"""Anthropic's message and the events of its stream as plain JSON: what may stay of them when their words are replaced.

Source:
    https://platform.claude.com/docs/en/api/messages/create and
    https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

__all__ = ["Block", "blocks_of", "event_saying", "folded", "is_event", "is_message", "message_saying"]

JsonObject = dict[str, Any]

_EVENTS: Final = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"}
    | {"message_stop", "ping"}
)
_WORDLESS_DELTA: Final = ("stop_reason", "stop_sequence")
_PING: Final = "ping"  # an event that says nothing
_CALLS: Final = "tool_use"  # what blocks end with whose input comes in pieces: tool_use, server_tool_use, mcp_tool_use
_PIECES: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def is_message(raw: Mapping[str, Any]) -> bool:
    """Whether this is a whole message of Anthropic's."""
    return raw.get("type") == "message" and isinstance(raw.get("content"), list) and "choices" not in raw


def is_event(raw: Mapping[str, Any]) -> bool:
    """Whether this is an event of Anthropic's stream, of a type that is known."""
    kind = raw.get("type")
    return isinstance(kind, str) and kind in _EVENTS


class Block:
    """A block of a streamed message on its way.

    Attributes:
        start: As it began; it has a type.
        pieces: Of its text, its thought or its input.
        beside: Other members that deltas have brought.
        citations: That deltas have brought.
        is_over: Nothing more comes.
    """

    __slots__ = ("beside", "citations", "is_over", "pieces", "start")

    def __init__(self, start: JsonObject) -> None:
        self.start = start
        self.pieces: list[str] = []
        self.beside: JsonObject = {}
        self.citations: list[Any] = []
        self.is_over = False

    @property
    def kind(self) -> str:
        """Its type."""
        kind: str = self.start["type"]
        return kind

    def take(self, delta: Mapping[str, Any]) -> str | None:
        """Take a delta of any type; returns the piece of text that it brings, None where it should and does not."""
        kind = delta.get("type")
        member = _PIECES.get(kind) if isinstance(kind, str) else None
        if member is not None:
            piece = delta.get(member)
            if not isinstance(piece, str):
                return None
            self.pieces.append(piece)
            return piece
        if kind == "citations_delta":
            self.citations.append(delta.get("citation"))
        else:  # signature_delta, compaction_delta: they bring members whole
            self.beside.update((name, value) for name, value in delta.items() if name != "type")
        return ""

    def whole(self) -> tuple[JsonObject, str | None]:
        """The block as a plain answer has it, and its input as it came where that is no JSON (cut off)."""
        told = "".join(self.pieces)
        block: JsonObject = {**self.start, **self.beside}
        broken: str | None = None
        if self.kind in ("text", "thinking"):
            begun: Any = self.start.get(self.kind)
            block[self.kind] = (begun if isinstance(begun, str) else "") + told
        elif self.kind.endswith(_CALLS) and told:
            try:
                block["input"] = msgspec.json.decode(told.encode("utf-8", "surrogatepass"))
            except (ValueError, RecursionError):
                broken = told
        if self.citations:
            block["citations"] = [*(self.start.get("citations") or ()), *self.citations]
        return block, broken


def folded(events: Iterable[Mapping[str, Any]]) -> list[JsonObject]:
    """The blocks that these events tell, as far as they do."""
    blocks: dict[int, Block] = {}
    for event in events:
        index: Any = event.get("index")
        if event.get("type") == "content_block_start":
            blocks[index] = Block(_object(event.get("content_block")))
        elif event.get("type") == "content_block_delta" and index in blocks:
            blocks[index].take(_object(event.get("delta")))
    return [block.whole()[0] for block in blocks.values()]


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


def message_saying(message: JsonObject, text: str) -> JsonObject:
    """A message that says ``text``: its calls stay; thoughts, quotations and results of searches go with the words."""
    calls = [block for block in _objects(message["content"]) if block.get("type") == "tool_use"]
    return {**message, "content": [*blocks_of(text, None, ()), *calls]}


def event_saying(event: JsonObject, text: str) -> JsonObject:
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
