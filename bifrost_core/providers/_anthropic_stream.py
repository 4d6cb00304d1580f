"""Anthropic's streamed messages: bytes into ``Chunk``s, one for each event, and one answer at the end.

Source:
    https://platform.claude.com/docs/en/build-with-claude/streaming (events and deltas; new types of events may come,
    and are handed on), WHATWG HTML "Server-sent events".
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from typing import Any, Final

from bifrost_core.blocks import Block
from bifrost_core.errors import CallError
from bifrost_core.kinds import Kind
from bifrost_core.response_events import responses_of
from bifrost_core.responses import ChatResponse, ResponsesResponse
from bifrost_core.types import Chunk, JsonObject, Request, ToolCall, Usage

from ._anthropic_answers import chat_of, read_finish_reason, read_usage
from ._chat import MalformedError, read_arguments
from ._json import JsonError, decode
from ._opening import Opening
from ._reporter import Reporter
from ._sse import MAX_TOTAL, SseParser

__all__ = ["MessageStreamDecoder", "ResponsesStreamDecoder"]

_MAX_BLOCKS: Final = 10_000


def _most_events(request: Request) -> int | None:
    """How many events an answer may have at most, by the output limit that was asked for; None without one."""
    body = request.body
    limit = body.get("max_tokens")
    if limit is None:
        limit = body.get("max_completion_tokens")
    if type(limit) is not int or limit < 0 or body.get("extra_body"):  # which may say otherwise
        return None
    return 2 * limit + 256


class MessageStreamDecoder:
    """Decodes one streamed message (``StreamDecoder``): every event becomes a chunk, whether it says something or not.

    A call is on the chunk of the event that ends its block. Usage is on the event that begins the message and on
    those that change it, each time as much as has been counted until then.

    Attributes:
        done: ``message_stop`` has been read.
        error: What is wrong with the stream, once something is.
    """

    __slots__ = (
        "_blocks",
        "_delivered",
        "_events",
        "_head",
        "_max_events",
        "_opening",
        "_reporter",
        "_request",
        "_sse",
        "_usage",
        "done",
        "error",
    )

    def __init__(self, request: Request, reporter: Reporter) -> None:
        self.done = False
        self.error: CallError | None = None
        self._request = request
        self._reporter = reporter
        self._sse = SseParser()
        self._opening = Opening()
        self._head: JsonObject | None = None  # the message without its blocks
        self._usage: JsonObject | None = None
        self._blocks: dict[int, Block] = {}
        self._delivered = False
        self._events = 0
        self._max_events = _most_events(request)

    def feed(self, data: bytes) -> list[Chunk]:
        """Take the next bytes; return the chunks that they complete."""
        chunks: list[Chunk] = []
        if self.done or self.error is not None:
            return chunks
        if not self._opening.is_events:
            data = self._opening.look(data)
            if self._opening.is_json:
                return self._plain(data)
            if self._opening.is_html:
                self._break(Kind.BAD_RESPONSE, "is a page of HTML")
            if not self._opening.is_events:
                return chunks
        for name, payload in self._sse.feed(data):
            self._event(name, payload, chunks)
            if self.done or self.error is not None:
                return chunks
        if self._sse.overflow:
            self._break(Kind.RESPONSE_TOO_LARGE, f"has {self._sse.overflow}")
        return chunks

    def finish(self) -> ChatResponse:
        """The assembled answer, after the last byte.

        Raises:
            CallError: The stream was cut short (``StreamBrokenError``), or ``error``.
        """
        if self.error is None and not self.done:
            self._last_words()
        if self.error is None and not self._is_complete():
            self._break(Kind.STREAM_TRUNCATED, "ended before its answer did")
        if self.error is not None:
            raise self.error
        return self._assemble()

    def partial(self) -> ChatResponse | None:
        """What has arrived so far, assembled; None when nothing has."""
        return self._assemble() if self._delivered else None

    # --- events

    def _event(self, name: bytes, payload: bytes, chunks: list[Chunk]) -> None:
        self._events += 1
        if self._max_events is not None and self._events > self._max_events:
            self._break(Kind.RESPONSE_TOO_LARGE, f"has more than {self._max_events} events")
            return
        problem = ""
        try:
            event = decode(payload)
            if not isinstance(event, dict):
                problem = "an event that is no object"
            elif name == b"error" or event.get("type") == "error":
                self.error = self._reporter.stream_error(event, self.partial(), model=self._request.model)
            else:
                chunks.append(self._take(event))
        except JsonError as exc:
            if name == b"error":
                self.error = self._reporter.stream_error(
                    {"message": payload[:4096].decode("utf-8", "replace")}, self.partial(), model=self._request.model
                )
            else:
                problem = f"an event that can not be read: {exc}"
        except MalformedError as exc:
            problem = f"an event that can not be used: {exc}"
        if problem:
            self._break(Kind.STREAM_MALFORMED, f"holds {problem}")

    def _take(self, event: JsonObject) -> Chunk:
        match event.get("type"):
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

    # --- a plain answer to a stream request

    def _plain(self, data: bytes) -> list[Chunk]:
        whole = self._opening.collect(data)
        if whole is None:
            if self._opening.is_too_large:
                self._break(Kind.RESPONSE_TOO_LARGE, f"has more than {MAX_TOTAL} bytes")
            return []
        problem = ""
        chunk: Chunk | None = None
        try:
            answer = decode(whole)
            if not isinstance(answer, dict):
                problem = "a JSON answer that is no object"
            elif answer.get("type") == "error" or answer.get("error"):
                self.error = self._reporter.stream_error(answer, None, model=self._request.model)
            else:
                chunk = self._take_whole(answer)
        except JsonError as exc:
            problem = f"a JSON answer that can not be read: {exc}"
        except MalformedError as exc:
            problem = f"an answer that can not be used: {exc}"
        if problem:
            self._break(Kind.BAD_RESPONSE, f"holds {problem}")
        if chunk is None or self.error is not None:
            return []
        self.done = True
        if not self._is_complete():
            self._break(Kind.STREAM_TRUNCATED, "ended before its answer did")
        return [chunk]

    def _take_whole(self, message: JsonObject) -> Chunk:
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

    # --- the end

    def _last_words(self) -> None:
        """An event that lacks its empty line at the end counts when it only says how the answer ended."""
        if self._opening.is_json:
            self._break(Kind.BAD_RESPONSE, "holds a JSON answer that is cut off")
            return
        pending = self._sse.flush()
        if pending is None:
            return
        try:
            event = decode(pending[1])
            if isinstance(event, dict) and event.get("type") in ("message_delta", "message_stop"):
                self._take(event)
        except (JsonError, MalformedError):
            return

    def _is_complete(self) -> bool:
        """The message has said why it ended, and every block has."""
        ended = self._head is not None and self._head.get("stop_reason") is not None
        return ended and all(block.is_over for block in self._blocks.values())

    def _break(self, kind: Kind, why: str) -> None:
        self.error = self._reporter.broken(kind, why, self.partial())

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


class ResponsesStreamDecoder:
    """Decodes a streamed message (``StreamDecoder``); the chunks are the message's, the whole is a Responses answer.

    Attributes:
        done: The terminal event has been read.
        error: What is wrong with the stream, once something is.
    """

    __slots__ = ("_chat", "done", "error")

    def __init__(self, request: Request, reporter: Reporter) -> None:
        self.done = False
        self.error: CallError | None = None
        self._chat = MessageStreamDecoder(request, reporter)

    def feed(self, data: bytes) -> list[Chunk]:
        """Take the next bytes; return the chunks that they complete."""
        chunks = self._chat.feed(data)
        self.done, self.error = self._chat.done, self._chat.error
        return chunks

    def finish(self) -> ResponsesResponse:
        """The assembled answer, after the last byte.

        Raises:
            StreamBrokenError: The stream was cut short, or ``error``.
        """
        return responses_of(self._chat.finish())

    def partial(self) -> ChatResponse | None:
        """What has arrived so far, as chat; None when nothing has."""
        return self._chat.partial()
