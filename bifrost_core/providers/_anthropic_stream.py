"""Anthropic's streamed messages: bytes into ``Chunk``s, one for each event, and one answer at the end.

Source:
    https://platform.claude.com/docs/en/build-with-claude/streaming (events and deltas; new types of events may come,
    and are handed on), WHATWG HTML "Server-sent events".
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from typing import Any, ClassVar, Final

from bifrost_core.blocks import Block
from bifrost_core.responses import ChatResponse
from bifrost_core.types import Chunk, JsonObject, Request, ToolCall, Usage

from ._anthropic_answers import chat_of, read_finish_reason, read_usage
from ._chat import MalformedError, read_arguments
from ._events import EventDecoder, most_events
from ._reporter import Reporter
from ._responses import ResponsesStreamDecoder

__all__ = ["MessageStreamDecoder", "responses_decoder"]

_MAX_BLOCKS: Final = 10_000


class MessageStreamDecoder(EventDecoder[ChatResponse]):
    """Decodes one streamed message (``StreamDecoder``): every event becomes a chunk, whether it says something or not.

    A call is on the chunk of the event that ends its block. Usage is on the event that begins the message and on
    those that change it, each time as much as has been counted until then.

    Attributes:
        done: ``message_stop`` has been read.
        error: What is wrong with the stream, once something is.
    """

    text_errors: ClassVar[bool] = True

    __slots__ = ("_blocks", "_delivered", "_head", "_usage")

    def __init__(self, request: Request, reporter: Reporter) -> None:
        super().__init__(request, reporter, most=most_events(request))
        self._head: JsonObject | None = None  # the message without its blocks
        self._usage: JsonObject | None = None
        self._blocks: dict[int, Block] = {}
        self._delivered = False

    def partial(self) -> ChatResponse | None:
        """What has arrived so far, assembled; None when nothing has."""
        return self._assemble() if self._delivered else None

    # --- events

    def _take_mark(self) -> bool:
        return False  # message_stop is the mark; and behind that nothing is read

    def _take(self, name: bytes, event: JsonObject, chunks: list[Chunk]) -> None:
        kind = event.get("type")
        if name == b"error" or kind == "error":
            self._fail(event)
        else:
            chunks.append(self._chunk(kind, event))

    def _chunk(self, kind: Any, event: JsonObject) -> Chunk:
        match kind:
            case "content_block_delta":
                chunk = self._take_delta(event)
            case "message_start":
                chunk = self._take_start(event)
            case "content_block_start":
                chunk = self._take_block(event)
            case "content_block_stop":
                chunk = self._take_block_end(event)
            case "message_delta":
                chunk = self._take_change(event)
            case "message_stop":
                chunk = self._take_end(event)
            case _:  # ping, and what is newer than this list
                return Chunk(raw=event)
        if chunk.has_content:
            self._delivered = True
        return chunk

    def _take_start(self, event: JsonObject) -> Chunk:
        message = event.get("message")
        if not isinstance(message, dict) or self._head is not None:
            raise MalformedError("message_start has no message, or came twice")
        self._head = {name: value for name, value in message.items() if name != "content"}
        for index, block in enumerate(message.get("content") or ()):
            self._begin(index, block)
        return Chunk(usage=self._count(message.get("usage")), raw=event)

    def _take_block(self, event: JsonObject) -> Chunk:
        block = self._begin(event.get("index"), event.get("content_block"))
        words = block.start.get(block.kind)
        if not isinstance(words, str) or block.kind not in ("text", "thinking"):
            return Chunk(raw=event)
        return Chunk(text=words, raw=event) if block.kind == "text" else Chunk(reasoning=words or None, raw=event)

    def _begin(self, index: Any, block: Any) -> Block:
        if self._head is None:
            raise MalformedError("a block came before the message")
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise MalformedError("a block has no type")
        if type(index) is not int or index in self._blocks or len(self._blocks) >= _MAX_BLOCKS:
            raise MalformedError("the index of a block is no number, was there before, or is one too many")
        made = self._blocks[index] = Block(block)
        return made

    def _block(self, event: JsonObject) -> Block:
        index = event.get("index")
        block = self._blocks.get(index) if type(index) is int else None
        if block is None or block.is_over:
            raise MalformedError("it is of no block that has begun and not ended")
        return block

    def _take_delta(self, event: JsonObject) -> Chunk:
        block, delta = self._block(event), event.get("delta")
        if not isinstance(delta, dict):
            raise MalformedError("a delta is no object")
        piece = block.take(delta)
        if piece is None:
            raise MalformedError("a delta has none of the text that its type promises")
        kind = delta.get("type")
        if kind == "text_delta":
            return Chunk(text=piece, raw=event)
        return Chunk(reasoning=piece or None, raw=event) if kind == "thinking_delta" else Chunk(raw=event)

    def _take_block_end(self, event: JsonObject) -> Chunk:
        block = self._block(event)
        block.is_over = True
        if block.kind != "tool_use":
            return Chunk(raw=event)
        whole, broken = block.whole()
        known, name = whole.get("id"), whole.get("name")
        if not isinstance(known, str) or not isinstance(name, str):
            raise MalformedError("a call has no id or no name")
        if broken is not None:
            return Chunk(raw=event)
        return Chunk(tool_calls=(ToolCall(known, name, read_arguments(whole.get("input"))),), raw=event)

    def _take_change(self, event: JsonObject) -> Chunk:
        if self._head is None:
            raise MalformedError("message_delta came before the message")
        delta = event.get("delta")
        if not isinstance(delta, dict):
            raise MalformedError("a delta is no object")
        reason = read_finish_reason(delta.get("stop_reason"))
        changes = {name: value for name, value in event.items() if name not in ("type", "delta", "usage")}
        for name, value in {**delta, **changes}.items():
            if value is not None or name not in self._head:
                self._head[name] = value
        return Chunk(finish_reason=reason, usage=self._count(event.get("usage")), raw=event)

    def _take_end(self, event: JsonObject) -> Chunk:
        if not self._is_complete():
            raise MalformedError("message_stop came before the message had ended")
        self.done = True
        return Chunk(raw=event)

    def _count(self, usage: Any) -> Usage | None:
        """What has been counted until now: counts are totals, and those that are left out stay what they were."""
        if not isinstance(usage, dict):
            return None
        told = {name: value for name, value in usage.items() if value is not None}
        self._usage = usage if self._usage is None else {**self._usage, **told}
        return read_usage(self._usage, self._reporter)

    # --- the ends

    def _take_whole(self, answer: JsonObject, chunks: list[Chunk]) -> None:
        if answer.get("type") == "error" or answer.get("error"):
            self._fail(answer)
        else:
            chunks.append(self._chunk_of_whole(answer))

    def _chunk_of_whole(self, message: JsonObject) -> Chunk:
        response = chat_of(message, self._request, self._reporter)
        self._head = {name: value for name, value in message.items() if name != "content"}
        self._usage = message.get("usage")
        for index, block in enumerate(message["content"]):
            self._begin(index, block).is_over = True
        self._delivered = True
        return Chunk(
            text=response.text,
            reasoning=response.reasoning,
            tool_calls=response.tool_calls,
            finish_reason=response.finish_reason,
            usage=response.usage,
            raw=message,
        )

    def _take_last(self, name: bytes, event: JsonObject) -> None:  # noqa: ARG002 # the type is in it as well
        kind = event.get("type")
        if kind in ("message_delta", "message_stop"):
            self._chunk(kind, event)

    def _answer(self) -> ChatResponse | None:
        return self._assemble() if self._is_complete() else None

    def _is_complete(self) -> bool:
        """The message has said why it ended, and every block has."""
        ended = self._head is not None and self._head.get("stop_reason") is not None
        return ended and all(block.is_over for block in self._blocks.values())

    def _assemble(self) -> ChatResponse:
        head = self._head or {}
        blocks: list[JsonObject] = []
        arguments: dict[int, str] = {}
        for index in sorted(self._blocks):
            block, broken = self._blocks[index].whole()
            if broken is not None:
                arguments[len(blocks)] = broken
            blocks.append(block)
        # In the order of a plain answer's members: the content stands where it stood.
        raw: JsonObject = {}
        for name, value in head.items():
            raw[name] = value
            if name == "role":
                raw["content"] = blocks
        raw["content"] = blocks
        if self._usage is not None:
            raw["usage"] = self._usage
        return chat_of(raw, self._request, self._reporter, arguments=arguments)


def responses_decoder(request: Request, reporter: Reporter) -> ResponsesStreamDecoder:
    """Decodes a streamed message as a Responses answer."""
    return ResponsesStreamDecoder(MessageStreamDecoder(request, reporter))
