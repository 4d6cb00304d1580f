"""Chat and fill-in-the-middle answers as Mistral writes them: its own unchanged, all others built anew.

Source:
    https://docs.mistral.ai/api/endpoint/chat, https://docs.mistral.ai/capabilities/completion/usage (streaming).
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON of providers: its members are untyped until this module has read them)
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from bifrost_core.errors import BifrostError
from bifrost_core.responses import ChatResponse, Response
from bifrost_core.types import Choice, Chunk, JsonObject, ToolCall, Usage

from ._bodies import answer_of, encode
from .base import JSON, LastWords, Reply

__all__ = ["ChatRenderer", "created_of", "is_own", "json_reply", "usage_of"]

_OWN_ID: Final = re.compile(r"[0-9a-f]{32}")
_DONE: Final = b"data: [DONE]\n\n"


def is_own(raw: JsonObject) -> bool:
    """Whether an answer or event is Mistral's: its ids are 32 hexadecimal digits, those of others have a prefix."""
    known = raw.get("id")
    return isinstance(known, str) and _OWN_ID.fullmatch(known) is not None


def json_reply(value: JsonObject) -> Reply:
    """An object as a whole answer."""
    return Reply(200, {"content-type": JSON}, encode(value))


def created_of(response: Response) -> int:
    """Seconds since 1970: as the provider says, else when it was asked; 0 where nobody was."""
    stated: Any = response.raw.get("created")
    if type(stated) is int:
        return stated
    return int(response.attempts[-1].started_at) if response.attempts else 0


def usage_of(usage: Usage) -> JsonObject:
    """The counts in Mistral's words."""
    told: JsonObject = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if usage.audio_seconds:
        told["prompt_audio_seconds"] = round(usage.audio_seconds)
    return told


class ChatRenderer:
    """Writes one answer, whole or in events.

    Events of other providers are told as Mistral has them: a tool call whole in one event, thoughts as parts, and
    the end with the usage on the last event, none without choices. Whoever reads Mistral's streams relies on that.

    Args:
        model: As the caller named it, for events that name none.
        problem: Tells an error as an object.
    """

    __slots__ = ("_begun", "_calls", "_created", "_ended", "_id", "_model", "_own", "_problem")

    def __init__(self, model: str, problem: Callable[[BifrostError], JsonObject]) -> None:
        self._model = model
        self._problem = problem
        self._id = ""
        self._own = ""  # the id of Mistral's own events, once one has come
        self._created: int | None = None
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._calls: dict[int, int] = {}

    def whole(self, response: Response) -> Reply:
        """A chat completion."""
        told = answer_of(ChatResponse, response)
        raw = told.raw
        if is_own(raw) and isinstance(raw.get("usage"), dict) and type(raw.get("created")) is int:
            return json_reply(raw)
        return json_reply(
            {
                "id": raw.get("id") or told.call_id,
                "object": "chat.completion",
                "created": created_of(told),
                "model": told.model,
                "choices": [_choice(choice) for choice in told.choices],
                "usage": usage_of(told.usage),
            }
        )

    def feed(self, chunks: Sequence[Chunk]) -> bytes:
        """Their events; of other providers' those that say something."""
        return b"".join([self._event(chunk) for chunk in chunks])

    def _event(self, chunk: Chunk) -> bytes:
        raw = chunk.raw
        known: Any = raw.get("id")
        if (known and known == self._own) or is_own(raw):
            self._own = known
            if chunk.finish_reason is not None:
                self._ended.add(chunk.index)
            return b"data: " + encode(_with_names(raw) if chunk.tool_calls or _has_pieces(raw) else raw) + b"\n\n"
        self._look(raw)
        content = _delta_content(chunk)
        if not content and not chunk.tool_calls:
            return b""
        delta: JsonObject = {"content": content}
        if chunk.index not in self._begun:
            self._begun.add(chunk.index)
            delta = {"role": "assistant", **delta}
        if chunk.tool_calls:
            first = self._calls.get(chunk.index, 0)
            delta["tool_calls"] = [_call(call, first + at) for at, call in enumerate(chunk.tool_calls)]
            self._calls[chunk.index] = first + len(chunk.tool_calls)
        return self._written(chunk.index, delta, None)

    def finish(self, response: Response) -> bytes:
        """How each choice ended that has not said it yet, the usage on the last, and Mistral's mark of the end."""
        told = answer_of(ChatResponse, response)
        left = [choice for choice in told.choices if choice.index not in self._ended]
        if not left:
            return _DONE
        self._look(told.raw)
        self._id = self._id or told.call_id
        usage = usage_of(told.usage)
        events = [
            self._written(choice.index, {"content": ""}, _finish_reason(choice), usage if choice is left[-1] else None)
            for choice in left
        ]
        return b"".join([*events, _DONE])

    def fail(self, error: BifrostError) -> LastWords:
        """An error, after which the connection breaks.

        Mistral documents none inside a stream. The object is what its SDK can not take for an event, so that it
        raises its own class with our words in it; readers that skip what they do not know see the connection break.
        """
        return LastWords(b"data: " + encode(self._problem(error)) + b"\n\n")

    def _look(self, raw: JsonObject) -> None:
        """Note what names the answer, which some providers say in one event only."""
        if not self._id:
            named: Any = raw if "id" in raw else raw.get("message") or raw.get("response")
            known = named.get("id") if isinstance(named, dict) else None
            if isinstance(known, str):
                self._id = known
        if type(created := raw.get("created")) is int:
            self._created = created
        if isinstance(model := raw.get("model"), str):
            self._model = model

    def _written(
        self, index: int, delta: JsonObject, finish_reason: str | None, usage: JsonObject | None = None
    ) -> bytes:
        if not self._id:
            self._id = os.urandom(16).hex()
        event: JsonObject = {"id": self._id, "object": "chat.completion.chunk"}
        if self._created is not None:
            event["created"] = self._created
        event["model"] = self._model
        event["choices"] = [{"index": index, "delta": delta, "finish_reason": finish_reason}]
        if usage is not None:
            event["usage"] = usage
        return b"data: " + encode(event) + b"\n\n"


# --- Mistral's own


def _has_pieces(raw: JsonObject) -> bool:
    return any(
        isinstance(choice, dict) and isinstance(delta := choice.get("delta"), dict) and delta.get("tool_calls")
        for choice in raw.get("choices") or ()
    )


def _with_names(raw: JsonObject) -> JsonObject:
    """An event whose pieces of tool calls all have a name, if an empty one: the SDK takes none without."""
    choices: list[Any] = []
    for choice in raw.get("choices") or ():
        delta: Any = choice.get("delta") if isinstance(choice, dict) else None
        pieces: Any = delta.get("tool_calls") if isinstance(delta, dict) else None
        if pieces and any(_is_nameless(piece) for piece in pieces):
            named = [_named(piece) if _is_nameless(piece) else piece for piece in pieces]
            choices.append({**choice, "delta": {**delta, "tool_calls": named}})
        else:
            choices.append(choice)
    return {**raw, "choices": choices}


def _is_nameless(piece: Any) -> bool:
    function = piece.get("function") if isinstance(piece, dict) else None
    return not isinstance(function, dict) or not isinstance(function.get("name"), str)


def _named(piece: Any) -> JsonObject:
    given: JsonObject = piece if isinstance(piece, dict) else {}
    function: Any = given.get("function") or {}
    return {**given, "function": {"arguments": "", **function, "name": ""}}


# --- others'


def _choice(choice: Choice) -> JsonObject:
    calls = [_call(call, at) for at, call in enumerate(choice.tool_calls)]
    message: JsonObject = {"role": "assistant", "content": _content(choice), "tool_calls": calls or None}
    return {"index": choice.index, "message": message, "finish_reason": _finish_reason(choice)}


def _finish_reason(choice: Choice) -> str:
    return choice.finish_reason or ("tool_calls" if choice.tool_calls else "stop")


def _call(call: ToolCall, index: int) -> JsonObject:
    return {**call.to_openai(), "index": index}


def _content(choice: Choice) -> Any:
    """The content in Mistral's parts, with what the model thought in front."""
    content: Any = choice.message.get("content")
    if content is None:
        content = choice.message.get("refusal") or choice.text
    if isinstance(content, list):
        content = [_part(part) for part in content]
    if not choice.reasoning or (isinstance(content, list) and any(_is_thought(part) for part in content)):
        return content
    said = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    return [_thought(choice.reasoning), *said]


def _part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "refusal":
        return {"type": "text", "text": part.get("refusal") or ""}
    if part.get("type") == "thinking" and isinstance(thought := part.get("thinking"), str):  # Anthropic's form
        rest = {name: value for name, value in part.items() if name == "signature"}
        return {**_thought(thought), **rest}
    return part


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "thinking"


def _thought(text: str) -> JsonObject:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def _delta_content(chunk: Chunk) -> Any:
    """New text, or parts where there are new thoughts, or the seal of those before."""
    parts: list[JsonObject] = []
    if chunk.reasoning:
        parts.append(_thought(chunk.reasoning))
    delta: Any = chunk.raw.get("delta")
    if isinstance(delta, dict) and isinstance(seal := delta.get("signature"), str):  # Anthropic's signature_delta
        parts.append({"type": "thinking", "thinking": [], "signature": seal})
    if parts and chunk.text:
        parts.append({"type": "text", "text": chunk.text})
    return parts or chunk.text
