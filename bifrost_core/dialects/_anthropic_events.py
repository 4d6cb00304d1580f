"""The events of a streamed message, made of the chunks of any provider.

Anthropic's own events go on as they came. What others say, and what plugins say in between, becomes blocks of its
own, or more of the block that is being told: every block begins, goes on and ends before the next one begins, and the
numbers of those behind it move on. Why the answer ended is told last, when nothing more can come.

Source:
    https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import os
from collections.abc import Iterable
from typing import Any, Final

import attrs

from bifrost_core.responses import ChatResponse, Response
from bifrost_core.resuming import Seam
from bifrost_core.types import Chunk, JsonObject, ToolCall, Usage

from ._anthropic_answers import arguments_of, stop_reason_of, usage_of
from ._bodies import encode

__all__ = ["MessageEvents"]

_EMPTY: Final[dict[str, JsonObject]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


@attrs.define
class _Block:
    """The block that is being told.

    Attributes:
        place: Its number in what is told.
        kind: Its type.
        theirs: Whether Anthropic's events tell it, so that only they know where it ends.
        has_ended: They have said so; of text the end is not told before something else begins, as a plugin may
            still hold back some of it.
        has_input: Arguments have been told.
        unsaid: The event that begins it and pings behind it, until it says something: of text whose words a plugin
            holds back, or has taken out, nothing is told, as an empty text could not go back to Anthropic.
    """

    place: int
    kind: str
    theirs: bool = False
    has_ended: bool = False
    has_input: bool = False
    unsaid: list[JsonObject] = attrs.field(factory=list[JsonObject])


def _replayed(chunk: Chunk) -> list[JsonObject]:
    """Anthropic's blocks in a chunk that repeats a whole answer, as one from a cache does.

    None where there are words alone, or where they say something else than the chunk. They go as they are: signed thoughts have to come back so, and nobody else can tell what its servers found.
    """
    choices: Any = chunk.raw.get("choices")
    delta: Any = choices[0].get("delta") if isinstance(choices, list) and choices else None
    parts: Any = delta.get("content") if isinstance(delta, dict) else None
    if not isinstance(parts, list):
        return []
    said = {"text": "", "thinking": ""}
    has_more = False
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in said:
            if not isinstance(part.get(kind), str):  # Mistral's thoughts are lists
                return []
            said[kind] += part[kind]
            has_more = has_more or len(part) > 2
        elif kind == "redacted_thinking" or (isinstance(kind, str) and kind.endswith(("tool_use", "tool_result"))):
            has_more = True
        else:
            return []
    told = (said["text"], said["thinking"]) == (chunk.text, chunk.reasoning or "")
    return parts if has_more and told else []


class MessageEvents:
    """Tells one streamed message.

    Args:
        model: Its name, until a chunk tells it.
        prefill: Text that the answer goes on from, and that some providers repeat.
    """

    __slots__ = (
        "_begun",
        "_called",
        "_count",
        "_ends",
        "_events",
        "_finish_reason",
        "_goes_on",
        "_model",
        "_open",
        "_places",
        "_seam",
        "_waiting",
    )

    def __init__(self, model: str, prefill: str = "") -> None:
        self._model = model
        self._seam = Seam(prefill)
        self._events: list[JsonObject] = []
        self._begun = False
        self._goes_on = False  # another attempt goes on with the same message
        self._count = 0
        self._open: _Block | None = None
        self._places: dict[Any, int] = {}  # of Anthropic's blocks, by the numbers that its events have
        self._waiting: list[Chunk] = []  # what was said in between, until Anthropic's block ends
        self._called: set[str] = set()
        self._ends: list[JsonObject] = []
        self._finish_reason: str | None = None

    def feed(self, chunks: Iterable[Chunk]) -> bytes:
        """The events that tell these chunks; ``b""`` where they say nothing yet."""
        for chunk in chunks:
            if chunk.index:  # the shape has one answer
                continue
            kind = chunk.raw.get("type")
            if isinstance(kind, str) and "choices" not in chunk.raw:
                self._pass_on(kind, chunk)
            else:
                self._begin(chunk.raw)
                self._tell(self._seam.feed([chunk])[0])
            self._finish_reason = chunk.finish_reason or self._finish_reason
        return self._written()

    def finish(self, response: Response) -> bytes:
        """The last events, after the last chunk.

        Args:
            response: The answer that the chunks told. A call that was cut off is in it and in no chunk.
        """
        self._begin(response.raw, response.model)
        self._end_theirs()
        has_calls = bool(self._called)
        if isinstance(response, ChatResponse):
            for call in response.tool_calls:
                if call.id not in self._called:
                    self._call(call, call.arguments)
                    has_calls = True
            self._finish_reason = self._finish_reason or response.finish_reason
        self._close()
        self._events += self._ends or [self._end(response.usage, has_calls=has_calls)]
        self._events.append({"type": "message_stop"})
        return self._written()

    def _end(self, usage: Usage, *, has_calls: bool) -> JsonObject:
        reason = stop_reason_of(self._finish_reason, has_calls=has_calls) or "end_turn"
        return {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": usage_of(usage),
        }

    def _written(self) -> bytes:
        events, self._events = self._events, []
        return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), encode(event)) for event in events)

    # --- the message and its blocks

    def _begin(self, raw: JsonObject, model: str = "") -> None:
        if self._begun:
            return
        self._begun = True
        known, named = raw.get("id"), raw.get("model")
        message: JsonObject = {
            "id": known if isinstance(known, str) and known else f"msg_{os.urandom(12).hex()}",
            "type": "message",
            "role": "assistant",
            "model": named if isinstance(named, str) and named else model or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of(Usage()),
        }
        self._events.append({"type": "message_start", "message": message})

    def _start(self, kind: str, block: JsonObject, *, theirs: bool = False) -> _Block:
        self._close()
        begun = self._open = _Block(self._count, kind, theirs)
        self._count += 1
        event: JsonObject = {"type": "content_block_start", "index": begun.place, "content_block": block}
        if kind == "text" and not block.get("text"):
            begun.unsaid.append(event)
        else:
            self._events.append(event)
        return begun

    def _delta(self, block: _Block, delta: JsonObject) -> None:
        if block.unsaid:
            if delta.get("text") == "":
                return
            self._events += block.unsaid
            block.unsaid.clear()
        self._events.append({"type": "content_block_delta", "index": block.place, "delta": delta})

    def _close(self) -> None:
        block, self._open = self._open, None
        if block is not None and block.unsaid:
            self._events += block.unsaid[1:]
            self._count -= 1
        elif block is not None:
            self._events.append({"type": "content_block_stop", "index": block.place})

    # --- what is said in fields

    def _tell(self, chunk: Chunk) -> None:
        """Tell what a chunk says, unless it has to wait until Anthropic's block ends."""
        block = self._open
        if block is not None and block.theirs and not block.has_ended:
            kinds = {kind for kind, said in (("text", chunk.text), ("thinking", chunk.reasoning)) if said}
            if chunk.tool_calls or kinds - {block.kind}:
                self._waiting.append(chunk)
                return
        if blocks := _replayed(chunk):
            for each in blocks:
                self._replay(each)
        else:
            if chunk.reasoning:
                self._say("thinking", chunk.reasoning)
            if chunk.text:
                self._say("text", chunk.text)
        for call in chunk.tool_calls:
            if call.id not in self._called:
                self._call(call)

    def _replay(self, block: JsonObject) -> None:
        """Tell a whole block at once."""
        kind = block["type"]
        if kind == "tool_use":
            self._called.add(str(block.get("id")))
        begun = self._start(kind, {**block, **_EMPTY.get(kind, {})})
        if words := block.get(kind):
            self._delta(begun, {"type": f"{kind}_delta", kind: words})
        if kind == "thinking" and block.get("signature"):
            self._delta(begun, {"type": "signature_delta", "signature": block["signature"]})
        self._close()

    def _say(self, kind: str, words: str) -> None:
        block = self._open
        if block is None or block.kind != kind:
            block = self._start(kind, _EMPTY[kind])
        self._delta(block, {"type": f"{kind}_delta", kind: words})

    def _call(self, call: ToolCall, cut_off: str | None = None) -> None:
        block = self._start("tool_use", {"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
        self._called.add(call.id)
        self._input(block, call, cut_off)
        self._close()

    def _input(self, block: _Block, call: ToolCall, cut_off: str | None = None) -> None:
        """A call's arguments, as the model wrote them; what is no object is told in one."""
        written = cut_off
        if written is None:
            arguments = arguments_of(call)
            written = call.arguments if "INVALID_JSON" not in arguments else encode(arguments).decode()
        if written not in ("", "{}"):
            self._delta(block, {"type": "input_json_delta", "partial_json": written})

    def _end_theirs(self) -> None:
        """Anthropic's block has ended: what was said in between follows."""
        if self._open is not None:
            self._open.has_ended = True
        waiting, self._waiting = self._waiting, []
        for chunk in waiting:
            self._tell(chunk)

    # --- Anthropic's own events

    def _pass_on(self, kind: str, chunk: Chunk) -> None:
        event = chunk.raw
        if kind == "message_start":
            self._pass_start(event)
        elif kind == "content_block_start":
            self._begin({})
            self._pass_block_start(event)
        elif kind == "content_block_delta":
            self._begin({})
            self._pass_delta(event, chunk)
        elif kind == "content_block_stop":
            self._begin({})
            self._pass_block_stop(event, chunk)
        else:
            self._pass_other(kind, event, chunk)

    def _pass_other(self, kind: str, event: JsonObject, chunk: Chunk) -> None:
        """An event about the whole message, or one that is newer than this list: the documentation wants room for it."""
        if chunk.has_content:  # a plugin has put words on an event that had none
            self._begin({})
            self._tell(chunk)
        if kind == "message_delta":
            self._ends.append(event)
        elif kind != "message_stop" and not chunk.has_content:
            unsaid = None if self._open is None else self._open.unsaid
            (unsaid or self._events).append(event)

    def _pass_start(self, event: JsonObject) -> None:
        if self._begun:
            self._goes_on = True
            self._places.clear()
            self._ends.clear()
            self._end_theirs()
            return
        self._begun = True
        self._events.append(event)

    def _pass_block_start(self, event: JsonObject) -> None:
        block: Any = event.get("content_block")
        block = block if isinstance(block, dict) else _EMPTY["text"]
        kind = str(block.get("type"))
        index = event.get("index")
        if self._goes_on and kind == "text" and self._open is not None and self._open.kind == "text":
            self._places[index] = self._open.place
            self._open.theirs, self._open.has_ended = True, False
        else:
            if kind == "tool_use":
                self._called.add(str(block.get("id")))
            self._places[index] = self._start(kind, block, theirs=True).place
        self._goes_on = False

    def _pass_delta(self, event: JsonObject, chunk: Chunk) -> None:
        block, delta = self._open, event.get("delta")
        place = self._places.get(event.get("index"))
        if block is None or place != block.place or not isinstance(delta, dict):
            self._tell(chunk)  # its block has ended: a plugin held it back
            return
        kind = delta.get("type")
        if kind == "text_delta" and block.kind != "text":
            self._tell(chunk)
            return
        if kind == "text_delta" and delta.get("text") != chunk.text:
            delta = {**delta, "text": chunk.text}  # what the chunk says counts
        elif kind == "input_json_delta" and delta.get("partial_json"):
            block.has_input = True
        self._delta(block, delta)

    def _pass_block_stop(self, event: JsonObject, chunk: Chunk) -> None:
        block = self._open
        place = self._places.pop(event.get("index"), None)
        if block is None or place != block.place:
            self._tell(chunk)  # its block has ended for something that a plugin said
            return
        calls = chunk.tool_calls
        if block.kind == "tool_use" and calls:
            if not block.has_input:  # a plugin has kept the pieces and tells the whole
                self._input(block, calls[0])
            calls = calls[1:]
        if block.kind != "text":
            self._close()
        self._end_theirs()
        self._tell(attrs.evolve(chunk, tool_calls=calls))
