"""Responses at OpenAI itself: requests in its own shape, answers as they come.

Source:
    https://platform.openai.com/docs/api-reference/responses and
    https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.errors import ConfigError
from bifrost_core.responses import ChatResponse, ResponsesResponse
from bifrost_core.structured import response_format_of
from bifrost_core.tools import flat_tools_of
from bifrost_core.types import Choice, Chunk, JsonObject, Request, ToolCall, Usage
from bifrost_core.wire import HttpReply

from ._adapter import Payload
from ._chat import MalformedError, read_object
from ._events import EventDecoder, event_type
from ._members import Writer, model_name, stream_flag, write_members
from ._openai_chat import tool_choice
from ._reporter import Reporter
from ._responses import OTHERWISE

__all__ = ["NativeResponsesDecoder", "read_native_responses", "read_token_usage", "write_native_responses"]

_MAX_EVENT: Final = 32 * 1024 * 1024  # an event may carry a whole image, and the last one all of them
_MAX_COUNT: Final = 1 << 53


# --- the request


def _otherwise(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    raise reporter.unsupported(name, OTHERWISE[name])


def _tools(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    problem = ""
    try:
        value = flat_tools_of(value)
    except ConfigError as exc:
        problem = exc.message
    if problem or not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise reporter.invalid(problem or f"the field {name!r} is no list")
    members[name] = [_flat(tool) for tool in value]


def _flat(tool: Any) -> Any:
    """Chat's nested form of a function as the flat one; any other tool as it is."""
    if not isinstance(tool, Mapping) or not isinstance(function := tool.get("function"), Mapping):
        return tool
    return {**{name: value for name, value in tool.items() if name != "function"}, "type": "function", **function}


def _choice(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    tool_choice(members, name, _flat(value), reporter)


def _text(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if isinstance(value, Mapping) and name in members:  # text_format was read before it
        if value.get("format") is not None:
            raise reporter.invalid("text_format and text.format were both given; give one of them")
        value = {**value, **members[name]}
    members[name] = value


def _text_format(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """The library's short way of writing ``text.format``; a class is its schema."""
    problem = ""
    if not isinstance(value, Mapping):
        try:
            value = {"type": "json_schema", **response_format_of(value, name)["json_schema"]}
        except ConfigError as exc:
            problem = exc.message
    text = members.get("text") or {}
    if isinstance(text, Mapping) and text.get("format") is not None:
        problem = "text_format and text.format were both given; give one of them"
    if problem:
        raise reporter.invalid(problem)
    members["text"] = {**text, "format": value}


_SENT: Final = (
    "access_programs",
    "background",
    "background_options",
    "context_management",
    "conversation",
    "image",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "moderation",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream_options",
    "temperature",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)
_FIELDS: Final[Mapping[str, Writer | None]] = {
    **dict.fromkeys(_SENT),
    **dict.fromkeys(OTHERWISE, _otherwise),
    "model": model_name,
    "stream": stream_flag,
    "text": _text,
    "text_format": _text_format,
    "tool_choice": _choice,
    "tools": _tools,
}


def write_native_responses(request: Request, max_output: int | None, reporter: Reporter) -> Payload:
    """A Responses request, as it is.

    Raises:
        BadRequestError: It can not be sent; names the field.
    """
    members, extra = write_members(_FIELDS, "model", request, reporter)
    members.update(extra)
    if not {"input", "prompt", "previous_response_id", "conversation"} & members.keys():
        raise reporter.invalid("the field 'input' is missing")
    stated: Any = members.get("max_output_tokens")
    limit = stated if type(stated) is int else None
    if max_output is not None and (limit is None or limit > max_output):
        members["max_output_tokens"] = limit = max_output
    return Payload(members, limit)


# --- a whole answer


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < _MAX_COUNT else 0


def read_token_usage(usage: Any, reporter: Reporter) -> Usage:
    """What OpenAI counted, in the words of its newer endpoints. Without usable counts all are 0, and that is noted.

    Source:
        https://platform.openai.com/docs/api-reference/responses/object (``usage``)
    """
    if not isinstance(usage, dict) or type(usage.get("input_tokens")) is not int:
        reporter.note("bad_usage: an answer has no usable usage", logging.WARNING)
        return Usage(requests=1)
    read, told = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    read, told = read if isinstance(read, dict) else {}, told if isinstance(told, dict) else {}
    return Usage(
        input_tokens=_count(usage["input_tokens"]),
        output_tokens=_count(usage.get("output_tokens")),
        cached_tokens=_count(read.get("cached_tokens")),
        cache_write_tokens=_count(read.get("cache_write_tokens")),
        reasoning_tokens=_count(told.get("reasoning_tokens")),
        requests=1,
    )


def _response_of(data: JsonObject, request: Request, reporter: Reporter, **more: Any) -> ResponsesResponse:
    """A response object.

    Raises:
        MalformedError: It has no list of items.
    """
    output = data.get("output")
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        raise MalformedError("there is no list of output items in it")
    model, status, known = data.get("model"), data.get("status"), data.get("id")
    details = data.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    usage = data.get("usage")
    waits = usage is None and status in {"queued", "in_progress"}  # of background: nothing is counted yet
    return ResponsesResponse(
        id=known if isinstance(known, str) else "",
        status=status if isinstance(status, str) else "completed",
        incomplete_reason=reason if isinstance(reason, str) else None,
        output=output,
        model=model if isinstance(model, str) else request.model,
        usage=Usage(requests=1) if waits else read_token_usage(usage, reporter),
        raw=data,
        **more,
    )


def read_native_responses(request: Request, reply: HttpReply, reporter: Reporter) -> ResponsesResponse:
    """Read a whole response object.

    Raises:
        CallError: It says that it failed, or can not be used (``bad_response``).
    """
    data = read_object(reply, reporter, request.model)
    why = ""
    response: ResponsesResponse | None = None
    try:
        response = _response_of(data, request, reporter, headers=reply.headers)
    except MalformedError as exc:
        why = str(exc)
    if response is None:
        raise reporter.unusable(reply, why)
    return response


# --- a streamed answer

_TERMINAL: Final = frozenset({"response.completed", "response.incomplete"})
_TEXT: Final = frozenset({"response.output_text.delta", "response.refusal.delta"})
_REASONING: Final = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_ENDS: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}


class NativeResponsesDecoder(EventDecoder[ResponsesResponse]):
    """Decodes one streamed response (``StreamDecoder``): a chunk per event, ``raw`` the event as it came.

    Text is on ``response.output_text.delta`` and ``response.refusal.delta``, reasoning on its own deltas, a tool
    call on the event that completes its arguments, finish reason and usage on the last one.

    Attributes:
        done: The terminal event has been read.
        error: What is wrong with the stream, once something is.
    """

    __slots__ = ("_calls", "_items", "_model", "_out", "_response", "_texts", "_thoughts")

    def __init__(self, request: Request, reporter: Reporter) -> None:
        super().__init__(request, reporter, max_event=_MAX_EVENT)
        self._items: dict[Any, JsonObject] = {}  # calls that have begun, by their place in the output
        self._out: set[Any] = set()  # places of those that have been handed on
        self._calls: list[ToolCall] = []
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._model: str | None = None
        self._response: ResponsesResponse | None = None

    def partial(self) -> ChatResponse | None:
        """What has arrived so far, as chat; None when nothing has."""
        if not (self._texts or self._thoughts or self._calls):
            return None
        text, reasoning = "".join(self._texts), "".join(self._thoughts) or None
        calls = tuple(self._calls)
        message: JsonObject = {"role": "assistant", "content": text}
        if reasoning:
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = [call.to_openai() for call in calls]
        choice = Choice(text=text, reasoning=reasoning, tool_calls=calls, message=message)
        return ChatResponse(model=self._model or self._request.model, usage=Usage(requests=1), choices=(choice,))

    # --- events

    def _take(self, name: bytes, event: JsonObject, chunks: list[Chunk]) -> None:
        kind = event_type(name, event)
        response = event.get("response")
        if kind in _TERMINAL:
            if not isinstance(response, dict):
                raise MalformedError("the last event has no response")
            chunks.append(self._end(response, event))
        elif kind == "response.failed":
            told = response.get("error") if isinstance(response, dict) else None
            self._fail({"error": told} if isinstance(told, dict) else {"message": "the response failed"})
        elif not kind.startswith("response."):
            self._fail(event)
        else:
            if isinstance(response, dict) and isinstance(model := response.get("model"), str):
                self._model = model
            chunks.append(self._piece(kind, event))

    def _piece(self, kind: str, event: JsonObject) -> Chunk:
        delta = event.get("delta")
        if kind in _TEXT:
            if not isinstance(delta, str):
                raise MalformedError("a delta has no text")
            self._texts.append(delta)
            return Chunk(text=delta, raw=event)
        if kind in _REASONING:
            if not isinstance(delta, str):
                raise MalformedError("a delta has no text")
            self._thoughts.append(delta)
            return Chunk(reasoning=delta or None, raw=event)
        if kind == "response.output_item.added":
            item = event.get("item")
            if isinstance(item, dict):
                self._items[event.get("output_index")] = item
        elif kind in {"response.function_call_arguments.done", "response.output_item.done"}:
            return Chunk(tool_calls=self._completed(kind, event), raw=event)
        return Chunk(raw=event)

    def _completed(self, kind: str, event: JsonObject) -> tuple[ToolCall, ...]:
        """The call that is complete with this event, unless an event before has handed it on."""
        place = event.get("output_index")
        item = event.get("item") if kind == "response.output_item.done" else self._items.get(place)
        if not isinstance(item, dict) or place in self._out:
            return ()
        told = item.get("arguments")
        if kind == "response.function_call_arguments.done":
            told = event.get("arguments")
        elif item.get("type") == "custom_tool_call":
            told = item.get("input")
        elif item.get("type") != "function_call" or item.get("status") == "incomplete":
            return ()
        name, known = item.get("name"), item.get("call_id")
        if not isinstance(name, str) or not isinstance(known, str) or not isinstance(told, str):
            return ()
        self._out.add(place)
        call = ToolCall(known, name, told)
        self._calls.append(call)
        return (call,)

    def _end(self, response: JsonObject, event: JsonObject) -> Chunk:
        self._response = whole = _response_of(response, self._request, self._reporter)
        self.done = True
        reason = "tool_calls" if self._calls else "stop"
        if whole.status == "incomplete":
            reason = _ENDS.get(whole.incomplete_reason or "", whole.incomplete_reason or "length")
        return Chunk(finish_reason=reason, usage=whole.usage, raw=event)

    # --- the ends

    def _take_whole(self, answer: JsonObject, chunks: list[Chunk]) -> None:
        """Told as its last event."""
        if answer.get("error") or not isinstance(answer.get("output"), list):
            self._fail(answer)
            return
        made = _response_of(answer, self._request, self._reporter)
        self._texts = [made.output_text] if made.output_text else []
        self._calls = list(made.tool_calls)
        end = self._end(answer, {"type": f"response.{made.status}", "sequence_number": 0, "response": answer})
        said = Chunk(text=made.output_text, reasoning=made.reasoning, tool_calls=made.tool_calls)
        chunks += [said, end] if said.has_content else [end]

    def _take_last(self, name: bytes, event: JsonObject) -> None:  # noqa: ARG002 # only its type says what it is
        """It is whole JSON, and says itself that it is the last."""
        if event.get("type") in _TERMINAL and isinstance(event.get("response"), dict):
            self._end(event["response"], event)

    def _answer(self) -> ResponsesResponse | None:
        return self._response
