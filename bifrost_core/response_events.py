"""The OpenAI Responses shape of an answer that came as chat: its output items, and the events of its stream.

One maker serves both: a streamed answer and a whole one have the same items, because both are told
chunk by chunk. What it says is what its chunks say: a stream filter that has changed them has
changed the events, the accumulating ones at the end included.

Source:
    https://platform.openai.com/docs/api-reference/responses/object and
    https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import attrs

from .responses import ChatResponse, Response, ResponsesResponse
from .types import Choice, Chunk, JsonObject, ToolCall

__all__ = ["ResponseEvents", "responses_of"]

_INCOMPLETE: Final[Mapping[str | None, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
_SHARED: Final = tuple(attrs.fields_dict(Response))
_TERMINAL: Final = frozenset({"completed", "incomplete", "failed"})


# --- the whole answer


def responses_of(chat: ChatResponse) -> ResponsesResponse:
    """The first choice of a chat answer in the Responses shape; ``raw`` stays the chat completion."""
    known = chat.raw.get("id")
    seed = known if isinstance(known, str) else ""
    reason = _INCOMPLETE.get(chat.finish_reason)
    status = "completed" if reason is None else "incomplete"
    events = ResponseEvents(call_id=seed)
    if chat.choices:
        events.feed(_pieces(chat.choices[0], chat.raw))
    events.close(status)
    shared: dict[str, Any] = {name: getattr(chat, name) for name in _SHARED}
    return ResponsesResponse(
        id=f"resp_{seed}" if seed else "",
        status=status,
        incomplete_reason=reason,
        output=events.output,
        resumed=chat.resumed,
        **shared,
    )


def _pieces(choice: Choice, raw: JsonObject) -> list[Chunk]:
    """A whole choice as chunks, in the order in which the model said it."""
    event: JsonObject = {"choices": [_first_choice(raw)]}
    content: Any = choice.message.get("content")
    pieces: list[Chunk] = []
    if isinstance(content, list):
        for part in cast("Sequence[object]", content):
            if isinstance(part, str):
                pieces.append(Chunk(text=part, raw=event))
            elif isinstance(part, Mapping):
                told = cast("Mapping[str, Any]", part)
                if told.get("type") == "text":
                    pieces.append(Chunk(text=_string(told.get("text")), raw=event))
                elif told.get("type") == "thinking":
                    pieces.append(Chunk(reasoning=_thought(told.get("thinking"))))
    said = "".join(piece.text for piece in pieces), "".join(piece.reasoning or "" for piece in pieces)
    if said != (choice.text, choice.reasoning or ""):
        pieces = [Chunk(reasoning=choice.reasoning), Chunk(text=choice.text, raw=event)]
    return [*pieces, Chunk(tool_calls=choice.tool_calls, finish_reason=choice.finish_reason)]


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _thought(thinking: Any) -> str:
    if isinstance(thinking, list):
        parts = cast("Sequence[object]", thinking)
        return "".join(_string(cast("JsonObject", part).get("text")) for part in parts if isinstance(part, dict))
    return _string(thinking)


# --- the events


@attrs.define
class _OpenItem:
    """The message or the reasoning that is being told."""

    id: str
    kind: str
    pieces: list[str] = attrs.field(factory=list[str])
    logprobs: list[JsonObject] = attrs.field(factory=list[JsonObject])

    def part(self) -> JsonObject:
        text = "".join(self.pieces)
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs}

    def item(self, status: str, content: list[JsonObject]) -> JsonObject:
        head: JsonObject = {"id": self.id, "type": self.kind, "status": status}
        if self.kind == "reasoning":
            return {**head, "summary": [], "content": content}
        return {**head, "role": "assistant", "content": content}


class ResponseEvents:
    """Makes the events of a Responses stream out of the chunks of a chat stream.

    An event is a ``Chunk``: ``raw`` is the event as a dict, and the other members hold what it brings
    (text on ``response.output_text.delta`` alone, a tool call on
    ``response.function_call_arguments.done``, finish reason and usage on the last).

    Args:
        call_id: Names the answer where its chunks do not.
        model: Name of the model, until a chunk tells it.
        echo: What the answer repeats of the request (``echo_of``).
    """

    __slots__ = (
        "_called",
        "_echo",
        "_finish_reason",
        "_id",
        "_items",
        "_model",
        "_open",
        "_sequence",
        "response",
    )

    def __init__(self, *, call_id: str = "", model: str = "", echo: JsonObject | None = None) -> None:
        self.response: ResponsesResponse | None = None
        self._id = ""
        self._called = call_id.removeprefix("call_") or "0"
        self._model = model
        self._echo: JsonObject = {} if echo is None else echo
        self._items: list[JsonObject] = []
        self._open: _OpenItem | None = None
        self._sequence = 0
        self._finish_reason: str | None = None

    @property
    def output(self) -> tuple[JsonObject, ...]:
        """The items that are complete."""
        return tuple(self._items)

    def feed(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """The events that tell these chunks."""
        events: list[Chunk] = []
        for chunk in chunks:
            if chunk.index:  # the shape has one answer
                continue
            if not self._id:
                name = _id_of(chunk.raw)
                if not name and not chunk.has_content and chunk.finish_reason is None:
                    continue
                self._begin(name or self._called, _message_in(chunk.raw), events)
            if chunk.reasoning:
                self._say("reasoning", chunk.reasoning, [], events)
            if chunk.text:
                self._say("message", chunk.text, _logprobs_of(chunk), events)
            for call in chunk.tool_calls:
                cut = not _is_json(call) or (not call.arguments and chunk.finish_reason == "length")
                self._tell_call(call, "incomplete" if cut else "completed", events)
            self._finish_reason = chunk.finish_reason or self._finish_reason
        return events

    def close(self, status: str) -> list[Chunk]:
        """The events that end the item being told, with its status; none where no item is open."""
        events: list[Chunk] = []
        told, self._open = self._open, None
        if told is None:
            return events
        part = told.part()
        done = "response.reasoning_text.done" if told.kind == "reasoning" else "response.output_text.done"
        place: JsonObject = {"item_id": told.id, "output_index": len(self._items), "content_index": 0}
        end: JsonObject = {**place, "text": part["text"]}
        if told.kind == "message":
            end["logprobs"] = told.logprobs
        self._emit(events, done, end)
        self._emit(events, "response.content_part.done", {**place, "part": part})
        self._item_done(told.item(status, [part]), events)
        return events

    def finish(self, response: ResponsesResponse) -> list[Chunk]:
        """The last events, after the last chunk; ``self.response`` is then the answer as it was told.

        Args:
            response: The answer that the chunks told. Calls that were cut off are in it and in no chunk.
        """
        events: list[Chunk] = []
        if not self._id:
            self._begin(response.id.removeprefix("resp_") or self._called, response.raw, events)
        cut = {item.get("call_id") for item in self._items if item.get("status") == "incomplete"}
        for call in _cut_calls(response):
            if call.id not in cut:
                self._tell_call(call, "incomplete", events)
        events += self.close("incomplete" if response.status == "incomplete" else "completed")
        name = f"resp_{self._id}"
        if response.id != name or response.output != self.output:
            response = attrs.evolve(response, id=name, output=self.output)
        self.response = response
        status = response.status if response.status in _TERMINAL else "completed"
        end: JsonObject = {"response": response.to_openai()}
        self._emit(events, f"response.{status}", end, finish_reason=self._finish_reason, usage=response.usage)
        return events

    def _begin(self, name: str, raw: JsonObject, events: list[Chunk]) -> None:
        self._id = name.removeprefix("resp_").removeprefix("call_")
        model: Any = raw.get("model")
        begun = ResponsesResponse(
            id=f"resp_{self._id}",
            status="in_progress",
            model=model if isinstance(model, str) else self._model,
            raw={"created": raw.get("created")},
            echo=self._echo,
        )
        for event in ("response.created", "response.in_progress"):
            self._emit(events, event, {"response": begun.to_openai()})

    def _say(self, kind: str, text: str, logprobs: list[JsonObject], events: list[Chunk]) -> None:
        told = self._open
        if told is None or told.kind != kind:
            events += self.close("completed")
            prefix = "rs" if kind == "reasoning" else "msg"
            told = self._open = _OpenItem(f"{prefix}_{self._id}_{len(self._items)}", kind)
            index = len(self._items)
            added: JsonObject = {"output_index": index, "item": told.item("in_progress", [])}
            self._emit(events, "response.output_item.added", added)
            place: JsonObject = {"item_id": told.id, "output_index": index, "content_index": 0}
            self._emit(events, "response.content_part.added", {**place, "part": told.part()})
        told.pieces.append(text)
        told.logprobs = [*told.logprobs, *logprobs]
        delta: JsonObject = {"item_id": told.id, "output_index": len(self._items), "content_index": 0, "delta": text}
        if kind == "reasoning":
            self._emit(events, "response.reasoning_text.delta", delta, reasoning=text)
        else:
            self._emit(events, "response.output_text.delta", {**delta, "logprobs": logprobs}, text=text)

    def _tell_call(self, call: ToolCall, status: str, events: list[Chunk]) -> None:
        events += self.close("completed")
        index = len(self._items)
        whole = status == "completed"
        arguments = call.arguments or ("{}" if whole else "")
        item: JsonObject = {
            "id": f"fc_{self._id}_{index}",
            "type": "function_call",
            "status": "in_progress",
            "call_id": call.id,
            "name": call.name,
            "arguments": "",
        }
        self._emit(events, "response.output_item.added", {"output_index": index, "item": item})
        place: JsonObject = {"item_id": item["id"], "output_index": index}
        if arguments:
            self._emit(events, "response.function_call_arguments.delta", {**place, "delta": arguments})
        self._emit(
            events,
            "response.function_call_arguments.done",
            {**place, "name": call.name, "arguments": arguments},
            tool_calls=(call,) if whole else (),
        )
        self._item_done({**item, "status": status, "arguments": arguments}, events)

    def _item_done(self, item: JsonObject, events: list[Chunk]) -> None:
        self._emit(events, "response.output_item.done", {"output_index": len(self._items), "item": item})
        self._items.append(item)

    def _emit(self, events: list[Chunk], kind: str, members: JsonObject, **brings: Any) -> None:
        raw: JsonObject = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        events.append(Chunk(raw=raw, **brings))


def _id_of(raw: JsonObject) -> str:
    """The id of the answer that a provider's event belongs to; ``""`` where it does not tell."""
    return _string(_message_in(raw).get("id"))


def _message_in(raw: JsonObject) -> JsonObject:
    """What names the answer: the event itself, or the message that it begins (Anthropic)."""
    message: Any = raw.get("message")
    return cast("JsonObject", message) if raw.get("type") == "message_start" and isinstance(message, dict) else raw


def _first_choice(raw: JsonObject) -> JsonObject:
    choices: Any = raw.get("choices")
    if not isinstance(choices, list) or not choices:
        return {}
    first = cast("Sequence[object]", choices)[0]
    return cast("JsonObject", first) if isinstance(first, dict) else {}


def _cut_calls(response: ResponsesResponse) -> list[ToolCall]:
    """The calls whose arguments are cut off."""
    items = [item for item in response.output if item.get("type") == "function_call"]
    return [call for item, call in zip(items, response.tool_calls, strict=True) if item.get("status") == "incomplete"]


def _is_json(call: ToolCall) -> bool:
    try:
        call.parsed()
    except ValueError:
        return False
    return True


def _logprobs_of(chunk: Chunk) -> list[JsonObject]:
    """Log probabilities of the chunk's text, if its event has them for these very words: they quote."""
    logprobs: Any = _first_choice(chunk.raw).get("logprobs")
    content: Any = cast("JsonObject", logprobs).get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return []
    entries = [cast("JsonObject", entry) for entry in cast("Sequence[object]", content) if isinstance(entry, dict)]
    if "".join(_string(entry.get("token")) for entry in entries) != chunk.text:
        return []
    return [_logprob(entry, [_logprob(other) for other in entry.get("top_logprobs") or ()]) for entry in entries]


def _logprob(entry: JsonObject, top: list[JsonObject] | None = None) -> JsonObject:
    token = _string(entry.get("token"))
    told: JsonObject = {
        "token": token,
        "logprob": entry.get("logprob", 0.0),
        "bytes": entry.get("bytes") or list(token.encode("utf-8", "surrogatepass")),
    }
    return told if top is None else {**told, "top_logprobs": top}
