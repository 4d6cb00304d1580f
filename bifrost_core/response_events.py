"""The OpenAI Responses shape told from chunks: the output items of an answer, and the events of its stream.

The chunks are those of a chat answer, or of a Responses stream that a filter may have changed.

One maker serves both: a streamed answer and a whole one have the same items, because both are told
chunk by chunk. What it says is what its chunks say: a stream filter that has changed them has
changed the events, the accumulating ones at the end included.

Source:
    https://platform.openai.com/docs/api-reference/responses/object and
    https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import attrs

from .response_objects import is_silent_item, item_of
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


class _Voice(NamedTuple):
    """How one sort of words is told.

    Attributes:
        item: Type of the item that holds them.
        place: Member of the item that is the list of its parts.
        part: Type of the part.
        member: Member of the part, and of the event that ends it, that has the words.
        events: What the events with pieces of them begin with.
        part_events: What the events around them begin with.
        place_name: Member of those events that names the place of the part.
    """

    item: str
    place: str
    part: str
    member: str
    events: str
    part_events: str = "response.content_part"
    place_name: str = "content_index"


_VOICES: Final[Mapping[str, _Voice]] = {
    "text": _Voice("message", "content", "output_text", "text", "response.output_text"),
    "refusal": _Voice("message", "content", "refusal", "refusal", "response.refusal"),
    "reasoning": _Voice("reasoning", "content", "reasoning_text", "text", "response.reasoning_text"),
    "summary": _Voice(
        "reasoning",
        "summary",
        "summary_text",
        "text",
        "response.reasoning_summary_text",
        "response.reasoning_summary_part",
        "summary_index",
    ),
}
_KEPT: Final = ("phase", "encrypted_content")  # members of a provider's item that are no words


@attrs.define
class _OpenItem:
    """The message or the reasoning that is being told; ``index`` is its place in the output."""

    id: str
    index: int
    voice: _Voice
    pieces: list[str] = attrs.field(factory=list[str])
    logprobs: list[JsonObject] = attrs.field(factory=list[JsonObject])
    shell: JsonObject = attrs.field(factory=dict[str, Any])

    def place(self) -> JsonObject:
        return {"item_id": self.id, "output_index": self.index, self.voice.place_name: 0}

    def part(self) -> JsonObject:
        told: JsonObject = {"type": self.voice.part, self.voice.member: "".join(self.pieces)}
        if self.voice.part == "output_text":
            told |= {"annotations": [], "logprobs": self.logprobs}
        return told

    def item(self, status: str, parts: list[JsonObject]) -> JsonObject:
        item: JsonObject = {"id": self.id, "type": self.voice.item, "status": status}
        if self.voice.item == "reasoning":
            item["summary"] = []
        else:
            item["role"] = "assistant"
        if self.voice.place not in item or parts:
            item[self.voice.place] = parts
        if self.voice.item == "reasoning":
            item.setdefault("content", [])
        return item | {name: self.shell[name] for name in _KEPT if self.shell.get(name) is not None}


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
        "_places",
        "_sequence",
        "_shells",
        "response",
    )

    def __init__(self, *, call_id: str = "", model: str = "", echo: JsonObject | None = None) -> None:
        self.response: ResponsesResponse | None = None
        self._id = ""
        self._called = call_id.removeprefix("call_") or "0"
        self._model = model
        self._echo: JsonObject = {} if echo is None else echo
        self._items: dict[int, JsonObject] = {}  # by their places
        self._open: _OpenItem | None = None
        self._sequence = 0
        # What a provider says of its items beside their words: places by the items' ids, messages and reasoning
        # that no chunk has filled yet by their type, and calls by the calls' ids.
        self._places: dict[str, int] = {}
        self._shells: dict[str, JsonObject] = {}
        self._finish_reason: str | None = None

    @property
    def output(self) -> tuple[JsonObject, ...]:
        """The items that are complete, by their places: words that were held back may be told after later items."""
        return tuple(self._items[index] for index in sorted(self._items))

    def feed(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """The events that tell these chunks."""
        events: list[Chunk] = []
        for chunk in chunks:
            if chunk.index:  # the shape has one answer
                continue
            if not self._id:
                name = _id_of(chunk.raw)
                if not (name or chunk.has_content or chunk.finish_reason or item_of(chunk.raw)):
                    continue
                self._begin(name or self._called, _message_in(chunk.raw), events)
            if (item := item_of(chunk.raw)) is not None:
                self._take_item(item, chunk.raw, events)
            if chunk.reasoning:
                self._say(_thinking_voice(chunk.raw), chunk.reasoning, [], events)
            if chunk.text:
                self._say(_speaking_voice(chunk), chunk.text, _logprobs_of(chunk), events)
            for call in chunk.tool_calls:
                if self._shells.get(call.id, {}).get("type") == "custom_tool_call":
                    self._tell_custom(call, events)
                    continue
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
        voice, part = told.voice, told.part()
        place = told.place()
        end: JsonObject = {**place, voice.member: part[voice.member]}
        if voice.part == "output_text":
            end["logprobs"] = told.logprobs
        self._emit(events, f"{voice.events}.done", end)
        self._emit(events, f"{voice.part_events}.done", {**place, "part": part})
        self._item_done(told.index, told.item(status, [part]), events)
        return events

    def finish(self, response: ResponsesResponse) -> list[Chunk]:
        """The last events, after the last chunk; ``self.response`` is then the answer as it was told.

        Args:
            response: The answer that the chunks told. Calls that were cut off are in it and in no chunk.
        """
        events: list[Chunk] = []
        if not self._id:
            self._begin(response.id.removeprefix("resp_") or self._called, response.raw, events)
        cut = {item.get("call_id") for item in self.output if item.get("status") == "incomplete"}
        for call in _cut_calls(response):
            if call.id not in cut:
                self._tell_call(call, "incomplete", events)
        events += self.close("incomplete" if response.status == "incomplete" else "completed")
        if (sealed := self._shells.pop("reasoning", None)) is not None:  # a filter has left none of its words
            self._keep(_without_words(sealed), events)
        name = f"resp_{self._id}"
        if response.id != name or response.output != self.output:
            response = attrs.evolve(response, id=name, output=self.output, raw=_retold(response.raw, self.output))
        self.response = response
        status = response.status if response.status in _TERMINAL else "completed"
        end: JsonObject = {"response": response.to_openai()}
        self._emit(events, f"response.{status}", end, finish_reason=self._finish_reason, usage=response.usage)
        return events

    def _begin(self, name: str, raw: JsonObject, events: list[Chunk]) -> None:
        self._id = name.removeprefix("resp_").removeprefix("call_")
        response: Any = raw.get("response")
        if isinstance(response, dict):  # the provider's own
            raw = {**cast("JsonObject", response), "output": []}
        else:
            raw = {"created": raw.get("created"), "model": raw.get("model")}
        model: Any = raw.get("model")
        begun = ResponsesResponse(
            id=f"resp_{self._id}",
            status="in_progress",
            model=model if isinstance(model, str) else self._model,
            raw=raw,
            echo=self._echo,
        )
        for event in ("response.created", "response.in_progress"):
            self._emit(events, event, {"response": begun.to_openai()})

    def _place_of(self, known: str, raw: JsonObject | None = None) -> int:
        """The place of an item: the provider's own, where it says one that is free, else the next."""
        index = self._places.get(known) if known else None
        if index is None:
            taken = {*self._items, *self._places.values(), *([self._open.index] if self._open else [])}
            stated: Any = None if raw is None else raw.get("output_index")
            is_free = type(stated) is int and stated >= 0 and stated not in taken
            index = stated if is_free else max(taken, default=-1) + 1
            if known:
                self._places[known] = index
        return index

    def _take_item(self, item: JsonObject, raw: JsonObject, events: list[Chunk]) -> None:
        """An item that a provider begins or ends: its names are kept, its words are told by other chunks.

        What has no words is told as it is, once it is complete.
        """
        kind, known = str(item.get("type")), _string(item.get("id"))
        is_done = raw.get("type") == "response.output_item.done"
        self._place_of(known, raw)
        if isinstance(call := item.get("call_id"), str) and kind in {"function_call", "custom_tool_call"}:
            self._shells[call] = item
        elif is_silent_item(item):
            if is_done:
                self._keep(item, events)
        elif self._open is not None and self._open.id == known:
            self._open.shell = item
        elif is_done and kind == "reasoning" and not (item.get("summary") or item.get("content")):
            self._shells.pop(kind, None)
            if self._places[known] not in self._items:  # it has no words, but a seal
                self._keep(_without_words(item), events)
        elif not is_done or self._shells.get(kind, {}).get("id") == known:
            self._shells[kind] = item

    def _keep(self, item: JsonObject, events: list[Chunk]) -> None:
        events += self.close("completed")
        index = self._place_of(_string(item.get("id")))
        self._emit(events, "response.output_item.added", {"output_index": index, "item": item})
        self._item_done(index, item, events)

    def _say(self, kind: str, text: str, logprobs: list[JsonObject], events: list[Chunk]) -> None:
        if kind == "reasoning" and self._shells.get("reasoning", {}).get("summary"):
            kind = "summary"  # a filter that held it back has given it in another event
        told, voice = self._open, _VOICES[kind]
        if told is None or told.voice is not voice or voice.item in self._shells:
            events += self.close("completed")
            shell = self._shells.pop(voice.item, {})
            name = _string(shell.get("id"))
            index = self._place_of(name)
            if not name:
                name = f"{'rs' if voice.item == 'reasoning' else 'msg'}_{self._id}_{index}"
            told = self._open = _OpenItem(name, index, voice, shell=shell)
            added: JsonObject = {"output_index": index, "item": told.item("in_progress", [])}
            self._emit(events, "response.output_item.added", added)
            self._emit(events, f"{voice.part_events}.added", {**told.place(), "part": told.part()})
        told.pieces.append(text)
        told.logprobs = [*told.logprobs, *logprobs]
        delta: JsonObject = {**told.place(), "delta": text}
        if voice.item == "reasoning":
            self._emit(events, f"{voice.events}.delta", delta, reasoning=text)
        else:
            if voice.part == "output_text":
                delta["logprobs"] = logprobs
            self._emit(events, f"{voice.events}.delta", delta, text=text)

    def _tell_call(self, call: ToolCall, status: str, events: list[Chunk]) -> None:
        events += self.close("completed")
        known = _string(self._shells.get(call.id, {}).get("id"))
        index = self._place_of(known)
        whole = status == "completed"
        arguments = call.arguments or ("{}" if whole else "")
        item: JsonObject = {
            "id": known or f"fc_{self._id}_{index}",
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
        self._item_done(index, {**item, "status": status, "arguments": arguments}, events)

    def _tell_custom(self, call: ToolCall, events: list[Chunk]) -> None:
        """A call of a custom tool, whose input is any text."""
        events += self.close("completed")
        known = _string(self._shells[call.id].get("id"))
        index = self._place_of(known)
        item: JsonObject = {"id": known, "type": "custom_tool_call", "call_id": call.id, "name": call.name}
        place: JsonObject = {"item_id": known, "output_index": index}
        self._emit(events, "response.output_item.added", {"output_index": index, "item": {**item, "input": ""}})
        self._emit(events, "response.custom_tool_call_input.delta", {**place, "delta": call.arguments})
        told = {**place, "input": call.arguments}
        self._emit(events, "response.custom_tool_call_input.done", told, tool_calls=(call,))
        self._item_done(index, {**item, "input": call.arguments}, events)

    def _item_done(self, index: int, item: JsonObject, events: list[Chunk]) -> None:
        self._emit(events, "response.output_item.done", {"output_index": index, "item": item})
        self._items[index] = item

    def _emit(self, events: list[Chunk], kind: str, members: JsonObject, **brings: Any) -> None:
        raw: JsonObject = {"type": kind, "sequence_number": self._sequence, **members}
        self._sequence += 1
        events.append(Chunk(raw=raw, **brings))


def _id_of(raw: JsonObject) -> str:
    """The id of the answer that a provider's event belongs to; ``""`` where it does not tell."""
    response: Any = raw.get("response")
    return _string((cast("JsonObject", response) if isinstance(response, dict) else _message_in(raw)).get("id"))


def _message_in(raw: JsonObject) -> JsonObject:
    """What names the answer: the event itself, or the message that it begins (Anthropic)."""
    message: Any = raw.get("message")
    return cast("JsonObject", message) if raw.get("type") == "message_start" and isinstance(message, dict) else raw


def _without_words(item: JsonObject) -> JsonObject:
    """A reasoning item that shows nothing of what was thought; its seal stays."""
    return {**item, "summary": [], **({"content": []} if "content" in item else {})}


def _thinking_voice(raw: JsonObject) -> str:
    return "summary" if raw.get("type") == "response.reasoning_summary_text.delta" else "reasoning"


def _speaking_voice(chunk: Chunk) -> str:
    """Whether the text of a chunk is a refusal: its event says so of these very words."""
    if chunk.raw.get("type") == "response.refusal.delta":
        return "refusal"
    delta: Any = _first_choice(chunk.raw).get("delta")
    refusal: Any = cast("JsonObject", delta).get("refusal") if isinstance(delta, dict) else None
    return "refusal" if refusal and refusal == chunk.text else "text"


def _retold(raw: JsonObject, output: Sequence[JsonObject]) -> JsonObject:
    """A provider's own response object with other output items; what is no such object is left as it is."""
    if not isinstance(raw.get("output"), list):
        return raw
    return {name: value for name, value in raw.items() if name != "output_text"} | {"output": list(output)}


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
