"""Chat completions and their chunks in OpenAI's shape: the provider's own where it is of that family, else made anew.

What comes from a provider of the family goes on unchanged, the very same object. Changed is what OpenAI's
clients can not read: content that is a list (Mistral's thinking), calls without a type or with arguments
that are no text, a whole answer in place of a chunk.

Source:
    https://platform.openai.com/docs/api-reference/chat/object,
    https://platform.openai.com/docs/api-reference/chat-streaming and
    https://docs.mistral.ai/capabilities/reasoning (thinking chunks). ``reasoning_content`` is the member that
    vLLM, DeepSeek and others have for it: https://api-docs.deepseek.com/guides/reasoning_model.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from bifrost_core.responses import ChatResponse
from bifrost_core.types import Choice, Chunk, JsonObject, ToolCall, Usage, message_text

__all__ = ["ChunkShaper", "completion_of", "usage_of"]

_NO_IDS: Final = frozenset({"", "null"})  # what providers of the family write where a call has none


def usage_of(usage: Usage) -> JsonObject:
    """What was counted, as a chat completion has it."""
    counted: JsonObject = ChatResponse(usage=usage).to_openai()["usage"]
    return counted


def completion_of(response: ChatResponse, now: int) -> JsonObject:
    """An answer as an OpenAI chat completion.

    Args:
        response: The answer.
        now: Unix time in seconds, for answers that do not say when they were made.
    """
    raw = response.raw
    choices = raw.get("choices")
    if not isinstance(choices, list):
        made = response.to_openai()
        return made if made["created"] else {**made, "created": now}
    told = {choice.index: choice for choice in response.choices}
    shaped = [_choice(choice, place, told) for place, choice in enumerate(choices)]
    if raw.get("object") == "chat.completion" and all(new is old for new, old in zip(shaped, choices, strict=True)):
        return raw
    return {**raw, "object": "chat.completion", "choices": shaped}


def _choice(choice: Any, place: int, told: Mapping[int, Choice]) -> Any:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return choice
    read = told.get(choice.get("index", place))
    shaped = _plain_content(message)
    calls = message.get("tool_calls")
    if read is not None and isinstance(calls, list) and not all(map(_is_proper, calls)):
        if len(calls) == len(read.tool_calls):
            whole = [_whole_call(*pair) for pair in zip(calls, read.tool_calls, strict=True)]
        else:
            whole = [call.to_openai() for call in read.tool_calls]
        shaped = {**shaped, "tool_calls": whole}
    reason = choice.get("finish_reason")
    ours = reason if read is None or reason is None else read.finish_reason
    if shaped is message and ours == reason:
        return choice
    return {**choice, "message": shaped, "finish_reason": ours}


def _plain_content(message: JsonObject) -> JsonObject:
    """A message or delta whose content is text; the very same where it was."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    shaped = {**message, "content": message_text(content)}
    if thought := "".join(_thought(part.get("thinking")) for part in content if isinstance(part, dict)):
        shaped["reasoning_content"] = thought
    return shaped


def _thought(thinking: Any) -> str:
    """Text of a thinking part: a string, or a list of parts."""
    return thinking if isinstance(thinking, str) else message_text(thinking)


def _is_proper(call: Any) -> bool:
    """Whether OpenAI's clients can read a call of a whole message."""
    if not isinstance(call, dict) or not _is_id(call.get("id")):
        return False
    if call.get("type") != "function":
        return isinstance(call.get("type"), str)
    function = call.get("function")
    return isinstance(function, dict) and isinstance(function.get("arguments"), str)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and value not in _NO_IDS


def _whole_call(raw: JsonObject, call: ToolCall) -> JsonObject:
    """A raw call with what it lacks, further members kept."""
    function = raw.get("function")
    made = call.to_openai()
    return {**raw, **made, "function": {**function, **made["function"]} if isinstance(function, dict) else made}


class _Calls:
    """The calls of one choice on their way: which of the provider's is which of ours."""

    __slots__ = ("count", "ids", "places")

    def __init__(self) -> None:
        self.count = 0
        self.places: dict[int, int] = {}  # the provider's index: ours
        self.ids: dict[int, str] = {}  # the provider's index: id of the call that it means now

    def take(self, piece: JsonObject, place: int, whole: Sequence[ToolCall]) -> JsonObject:
        """A piece of a call with our index, and where it is the first with an id and a type."""
        given = piece.get("index")
        index = given if type(given) is int else place
        known = piece.get("id") if _is_id(piece.get("id")) else None
        is_new = index not in self.places or (known is not None and known != self.ids[index])
        shaped = piece
        function = piece.get("function")
        if isinstance(function, dict) and not isinstance(arguments := function.get("arguments", ""), str):
            text = "" if arguments is None else msgspec.json.encode(arguments).decode()
            shaped = {**shaped, "function": {**function, "arguments": text}}
        if is_new:
            self.places[index] = self.count
            self.count += 1
            self.ids[index] = known or _id_among(whole, function, self.ids.values())
            if not isinstance(piece.get("type"), str):
                shaped = {**shaped, "type": "function"}
            if known is None:
                shaped = {**shaped, "id": self.ids[index]}
        if given != self.places[index]:
            shaped = {**shaped, "index": self.places[index]}
        return shaped

    def add(self, call: ToolCall) -> JsonObject:
        """A whole call with its index."""
        self.places[self.count] = self.count
        self.ids[self.count] = call.id
        self.count += 1
        return {"index": self.count - 1, **call.to_openai()}


def _id_among(whole: Sequence[ToolCall], function: Any, taken: Any) -> str:
    """The id that a call without one has been given where this piece is all of it, else a new one."""
    name = function.get("name") if isinstance(function, dict) else None
    used = set(taken)
    found = next((call.id for call in whole if call.name == name and call.id not in used), None)
    return found or os.urandom(5).hex()[:9]  # as long as Mistral takes them


class ChunkShaper:
    """Brings the chunks of one streamed answer into the shape of OpenAI's ``chat.completion.chunk``.

    Args:
        now: Unix time in seconds, for answers that do not say when they were made.
    """

    __slots__ = ("_begun", "_calls", "head")

    def __init__(self, now: int) -> None:
        self.head: JsonObject = {"id": "", "object": "chat.completion.chunk", "created": now, "model": ""}
        self._begun: set[int] = set()
        self._calls: dict[int, _Calls] = {}

    def shape(self, chunk: Chunk) -> JsonObject | None:
        """The event that tells a chunk; None where it says nothing in this shape (a ping).

        ``usage`` is on it where the chunk has it.
        """
        raw = chunk.raw
        self._learn(raw)
        choices = raw.get("choices")
        if not isinstance(choices, list):
            return self._made(chunk)
        shaped = [self._choice(choice, chunk) for choice in choices]
        changes: JsonObject = {}
        if any(new is not old for new, old in zip(shaped, choices, strict=True)):
            changes["choices"] = shaped
        changes |= {name: value for name, value in self.head.items() if not raw.get(name)}
        if raw.get("object") != self.head["object"]:
            changes["object"] = self.head["object"]
        return {**raw, **changes} if changes else raw

    def finish(self, model: str, name: str) -> None:
        """Complete ``head`` where no chunk has told it.

        Args:
            model: Name of the model that answered.
            name: The call's id.
        """
        self.head["model"] = self.head["model"] or model
        self.head["id"] = self.head["id"] or name or _made_id()

    def _learn(self, raw: JsonObject) -> None:
        """Which answer the chunks belong to, where one says it; Anthropic's first event has it inside."""
        inside = raw.get("message")
        for told in (raw, inside if isinstance(inside, dict) else raw):
            for name, kind in (("id", str), ("model", str)):
                if not self.head[name] and isinstance(value := told.get(name), kind):
                    self.head[name] = value
            if type(created := told.get("created")) is int and created:
                self.head["created"] = created
        self.head["id"] = self.head["id"] or _made_id()

    def _choice(self, choice: Any, chunk: Chunk) -> Any:
        if not isinstance(choice, dict):
            return choice
        changes: JsonObject = {}
        given = choice.get("delta")
        if not isinstance(given, dict):  # a whole answer where chunks were asked for
            given = choice.get("message")
            given = given if isinstance(given, dict) else {}
            changes["delta"] = given
        delta = _plain_content(given)
        if isinstance(pieces := given.get("tool_calls"), list):
            calls = self._calls_of(chunk.index)
            shaped = [
                calls.take(piece, place, chunk.tool_calls) if isinstance(piece, dict) else piece
                for place, piece in enumerate(pieces)
            ]
            if any(new is not old for new, old in zip(shaped, pieces, strict=True)):
                delta = {**delta, "tool_calls": shaped}
        if chunk.index not in self._begun:
            self._begun.add(chunk.index)
            if not delta.get("role"):
                delta = {"role": "assistant", **delta}
        if delta is not given:
            changes["delta"] = delta
        if chunk.finish_reason is not None and choice.get("finish_reason") not in (None, chunk.finish_reason):
            changes["finish_reason"] = chunk.finish_reason
        if not changes:
            return choice
        return {name: value for name, value in choice.items() if name != "message"} | changes

    def _made(self, chunk: Chunk) -> JsonObject | None:
        """An event made of the chunk's fields."""
        delta: JsonObject = {}
        if chunk.text:
            delta["content"] = chunk.text
        if chunk.reasoning:
            delta["reasoning_content"] = chunk.reasoning
        if chunk.tool_calls:
            calls = self._calls_of(chunk.index)
            delta["tool_calls"] = [calls.add(call) for call in chunk.tool_calls]
        if not delta and chunk.finish_reason is None:
            return None if chunk.usage is None else {**self.head, "choices": [], "usage": usage_of(chunk.usage)}
        if chunk.index not in self._begun:
            self._begun.add(chunk.index)
            delta = {"role": "assistant", "content": None if chunk.tool_calls else "", **delta}
        choice = {"index": chunk.index, "delta": delta, "logprobs": None, "finish_reason": chunk.finish_reason}
        event = {**self.head, "choices": [choice]}
        return event if chunk.usage is None else {**event, "usage": usage_of(chunk.usage)}

    def _calls_of(self, index: int) -> _Calls:
        return self._calls.setdefault(index, _Calls())


def _made_id() -> str:
    return "chatcmpl-" + os.urandom(12).hex()
