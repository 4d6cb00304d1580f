"""Chat completions as OpenAI's SDKs ask for them.

Source:
    https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.errors import BifrostError
from bifrost_core.responses import ChatResponse, Response
from bifrost_core.types import Chunk, JsonObject, Operation, Request

from ._bodies import answer_of, check_types, encode, invalid, members_of
from ._openai_errors import problem_of
from ._openai_shapes import ChunkShaper, completion_of, usage_of
from .base import JSON, Inbound, Order, Reply

__all__ = ["ChatRenderer", "read_chat"]

_TYPES: Final[Mapping[str, type]] = {
    "audio": dict,
    "frequency_penalty": float,
    "functions": list,
    "logit_bias": dict,
    "logprobs": bool,
    "max_completion_tokens": int,
    "max_tokens": int,
    "messages": list,
    "metadata": dict,
    "modalities": list,
    "n": int,
    "parallel_tool_calls": bool,
    "prediction": dict,
    "presence_penalty": float,
    "reasoning_effort": str,
    "response_format": dict,
    "seed": int,
    "service_tier": str,
    "store": bool,
    "stream_options": dict,
    "temperature": float,
    "tools": list,
    "top_logprobs": int,
    "top_p": float,
    "user": str,
}


# --- the request


def read_chat(inbound: Inbound, now: int) -> Order:
    """An order for a chat completion. Functions, as OpenAI had them before tools, are asked for and told as such.

    Raises:
        CallError: The body makes no sense; names the field.
    """
    members = members_of(inbound)
    body = members.body
    check_types(body, _TYPES)
    if body.get("messages") is None:
        raise invalid("'messages' is missing", "messages")
    options: JsonObject = body.get("stream_options") or {}
    has_functions = body.get("functions") is not None
    body = {**body, "messages": _without_functions(body["messages"])}
    if has_functions or body.get("function_call") is not None:
        body = _tools_for_functions(body)
    request = Request(Operation.CHAT, members.model, body, stream=members.stream)
    renderer = ChatRenderer(now, wants_usage=options.get("include_usage") is True, has_functions=has_functions)
    return Order(request, renderer, members.fallbacks)


def _tools_for_functions(body: JsonObject) -> JsonObject:
    """The fields that tools have replaced, as these.

    Source:
        https://platform.openai.com/docs/api-reference/chat/create (``functions`` and ``function_call``, deprecated).
    """
    for name, successor in (("functions", "tools"), ("function_call", "tool_choice")):
        if body.get(name) is not None and body.get(successor) is not None:
            raise invalid(f"{name!r} and {successor!r} were both given; give {successor!r} alone", name)
    shaped = {name: value for name, value in body.items() if name not in {"functions", "function_call"}}
    functions: list[Any] = body.get("functions") or []
    for place, function in enumerate(functions):
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise invalid(f"functions[{place}] has no name", f"functions[{place}].name")
    if functions:
        shaped["tools"] = [{"type": "function", "function": function} for function in functions]
        shaped["parallel_tool_calls"] = False  # an answer has a place for one
    choice = body.get("function_call")
    if isinstance(choice, dict) and isinstance(choice.get("name"), str):
        shaped["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif choice in ("auto", "none"):
        shaped["tool_choice"] = choice
    elif choice is not None:
        raise invalid("'function_call' is neither auto nor none nor an object with a name", "function_call")
    return shaped


def _without_functions(messages: list[Any]) -> list[Any]:
    """The messages with calls and answers of functions as those of tools; each answer is to the call before it."""
    if not any(isinstance(message, dict) and _is_of_function(message) for message in messages):
        return messages
    shaped: list[Any] = []
    count = 0
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not _is_of_function(message):
            shaped.append(message)
        elif message.get("role") == "function":
            if not count:
                raise invalid(f"messages[{place}] answers no function_call before it", f"messages[{place}]")
            shaped.append({**message, "role": "tool", "tool_call_id": _call_id(count)})
        else:
            count += 1
            call = {"id": _call_id(count), "type": "function", "function": message["function_call"]}
            rest = {name: value for name, value in message.items() if name != "function_call"}
            shaped.append({**rest, "tool_calls": [call]})
    return shaped


def _is_of_function(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "function" or message.get("function_call") is not None


def _call_id(number: int) -> str:
    """An id for a call that has none; as long as Mistral takes them."""
    return f"call{number:05d}"


# --- the answer


class ChatRenderer:
    """Writes chat completions.

    Args:
        now: Unix time in seconds, for answers that do not say when they were made.
        wants_usage: A stream tells what was counted on a last chunk of its own, and nowhere else.
        has_functions: Calls are told as ``function_call``.
    """

    def __init__(self, now: int, *, wants_usage: bool = False, has_functions: bool = False) -> None:
        self._now = now
        self._wants_usage = wants_usage
        self._has_functions = has_functions
        self._shaper = ChunkShaper(now)
        self._usage: Any = None
        self._last: JsonObject | None = None

    def whole(self, response: Response) -> Reply:
        """A chat completion.

        Raises:
            PluginError: The answer is none.
        """
        told = self._told(completion_of(answer_of(ChatResponse, response), self._now), "message")
        return Reply(200, {"content-type": JSON}, encode(told))

    def _told(self, event: JsonObject, member: str) -> JsonObject:
        """A completion or chunk in the caller's words; ``member`` holds what each choice says."""
        return _with_function_calls(event, member) if self._has_functions else event

    def feed(self, chunks: Sequence[Chunk]) -> bytes:
        """Events that tell these chunks."""
        pieces: list[bytes] = []
        for chunk in chunks:
            event = self._shaper.shape(chunk)
            if event is not None and self._wants_usage:
                event = self._keep_usage(event, chunk)
            # An event without choices is OpenAI's for usage, which clients that did not ask for it do not expect.
            if event is None or not event["choices"]:
                continue
            pieces += [_event(each) for each in _apart(self._told(event, "delta"))]
        return b"".join(pieces)

    def _keep_usage(self, event: JsonObject, chunk: Chunk) -> JsonObject | None:
        """The event without what was counted, which is told at the end."""
        if event.get("usage") is None:
            return event
        if "choices" in chunk.raw:  # else it was made of the fields, of which the whole answer has the best
            self._usage = event["usage"]
        if not event["choices"]:
            self._last = event if "choices" in chunk.raw else None
            return None
        return {name: value for name, value in event.items() if name != "usage"}

    def finish(self, response: Response) -> bytes:
        """The last chunk, where one with usage was asked for, and the end."""
        end = b"data: [DONE]\n\n"
        if not self._wants_usage:
            return end
        self._shaper.finish(response.model, response.call_id)
        last = self._last or {**self._shaper.head, "choices": []}
        usage = usage_of(response.usage) if self._usage is None else self._usage
        return _event(self._told({**last, "usage": usage}, "delta")) + end

    def fail(self, error: BifrostError) -> bytes:
        """An event that OpenAI's SDKs raise as an error."""
        return _event(problem_of(error))


def _event(event: JsonObject) -> bytes:
    return b"data: " + encode(event) + b"\n\n"


def _apart(event: JsonObject) -> list[JsonObject]:
    """The event, as two where it has a call and the end in one: OpenAI's helpers expect the end behind the calls.

    Source:
        https://github.com/openai/openai-python/blob/main/src/openai/lib/streaming/chat/_completions.py (the event
        ``tool_calls.function.arguments.done`` of the last call is made when a later chunk has the end).
    """
    choices: list[JsonObject] = event["choices"]
    if not any(choice.get("finish_reason") and choice.get("delta", {}).get("tool_calls") for choice in choices):
        return [event]
    first = {name: value for name, value in event.items() if name != "usage"}
    begun = [{**choice, "finish_reason": None} for choice in choices]
    ended = [{**choice, "delta": {}} for choice in choices if choice.get("finish_reason")]
    return [{**first, "choices": begun}, {**event, "choices": ended}]


def _with_function_calls(told: JsonObject, member: str) -> JsonObject:
    """A completion or chunk whose calls are told as the one ``function_call`` that a message had before tools."""
    return {**told, "choices": [_with_function_call(choice, member) for choice in told["choices"]]}


def _with_function_call(choice: JsonObject, member: str) -> JsonObject:
    message: JsonObject = choice[member]
    calls = message.get("tool_calls") or ()
    shaped = {name: value for name, value in message.items() if name != "tool_calls"}
    for place, call in enumerate(calls):
        if not call.get("index", place):
            function = call.get("function") or {}
            shaped["function_call"] = {
                name: function[name] for name in ("name", "arguments") if function.get(name) is not None
            }
    reason = choice.get("finish_reason")
    return {**choice, member: shaped, "finish_reason": "function_call" if reason == "tool_calls" else reason}
