"""Chat answers in the shape that OpenAI and Mistral share: whole ones into ``ChatResponse``.

Source:
    https://docs.mistral.ai/api/endpoint/chat and https://platform.openai.com/docs/api-reference/chat/object.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import hashlib
import logging
from collections.abc import Mapping
from typing import Any, Final, cast

from bifrost_core.responses import ChatResponse
from bifrost_core.structured import parser_of
from bifrost_core.types import Choice, JsonObject, Request, ToolCall, Usage
from bifrost_core.wire import HttpReply

from ._json import JsonError, decode, encode
from ._reporter import Reporter

__all__ = [
    "MalformedError",
    "call_id",
    "called_function",
    "read_arguments",
    "read_chat",
    "read_choices",
    "read_content",
    "read_object",
    "read_usage",
    "response_parser",
]

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MAX_COUNT: Final = 1 << 53
_NO_IDS: Final = frozenset({"", "null"})  # replies of 2024 had the four letters where an id was missing


class MalformedError(Exception):
    """A member of an answer that has a shape which nobody documents. Says which, without quoting."""


def read_object(reply: HttpReply, reporter: Reporter, model: str = "") -> JsonObject:
    """The JSON object that a success holds.

    Raises:
        CallError: The body is an error all the same, and is taken for what its code says.
        ProviderServerError: The body is anything else (``bad_response``).
    """
    body = reply.body
    data: Any = None
    why = ""
    head = body[:256].removeprefix(b"\xef\xbb\xbf").lstrip()
    if reply.status == 204 or not head:
        why = "there is no body"
    elif head.startswith(b"<"):
        why = "the body is HTML, not JSON"
    elif head.startswith((b"data:", b"event:", b":")):
        why = "the body is an event stream, which was not asked for"
    else:
        try:
            data = decode(body)
        except JsonError as exc:
            why = f"the body can not be read: {exc}"
        else:
            if not isinstance(data, dict):
                why = f"the body is a JSON {'array' if isinstance(data, list) else 'value'}, not an object"
    if why:
        raise reporter.unusable(reply, why, quote=head.startswith(b"<"))
    answer = cast("JsonObject", data)
    if answer.get("object") == "error" or answer.get("error"):
        raise reporter.denied(reply, answer, model)
    return answer


def read_chat(request: Request, reply: HttpReply, reporter: Reporter) -> ChatResponse:
    """Read a whole chat completion.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    data = read_object(reply, reporter, request.model)
    why = ""
    choices: tuple[Choice, ...] = ()
    try:
        choices = read_choices(data)
    except MalformedError as exc:
        why = str(exc)
    if why:
        raise reporter.unusable(reply, why)
    model = data.get("model")
    return ChatResponse(
        model=model if isinstance(model, str) else request.model,
        usage=read_usage(data.get("usage"), reporter),
        raw=data,
        headers=reply.headers,
        choices=choices,
        parse=response_parser(request),
    )


def response_parser(request: Request) -> Any:
    """What turns the text into an instance of the class given as ``response_format``; None without one."""
    wanted = request.body.get("response_format")
    return None if wanted is None or isinstance(wanted, Mapping) else parser_of(wanted)


def read_choices(data: JsonObject) -> tuple[Choice, ...]:
    """The choices of a chat completion.

    Raises:
        MalformedError: There are none, or one has an unknown shape or says that generation failed.
    """
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        raise MalformedError("there are no choices in it")
    return tuple(_read_choice(choice, place, data) for place, choice in enumerate(choices))


def _read_choice(choice: Any, place: int, data: JsonObject) -> Choice:
    if not isinstance(choice, dict) or not isinstance(message := choice.get("message"), dict):
        raise MalformedError(f"choices[{place}] has no message")
    index = choice.get("index", place)
    if type(index) is not int:
        raise MalformedError(f"choices[{place}].index is no number")
    text, reasoning = read_content(message.get("content"))
    if not text and isinstance(refusal := message.get("refusal"), str):
        text = refusal
    if not reasoning:
        told = message.get("reasoning_content") or message.get("reasoning")
        reasoning = told if isinstance(told, str) else ""
    calls: tuple[ToolCall, ...] = ()
    raw_calls = message.get("tool_calls")
    if raw_calls:
        calls, sent = _read_calls(raw_calls, f"{data.get('id')}/{index}")
        if sent is not raw_calls:
            message = {**message, "tool_calls": sent}
    if "role" not in message:
        message = {"role": "assistant", **message}
    return Choice(
        index=index,
        text=text,
        reasoning=reasoning or None,
        tool_calls=calls,
        finish_reason=read_finish_reason(choice.get("finish_reason")),
        message=message,
    )


def read_finish_reason(reason: Any) -> str | None:
    """The library's word for why a choice ended.

    A ``stop`` beside tool calls stays what it is: whether there are calls is seen by the calls.

    Raises:
        MalformedError: It is no word, or says that generation failed.
    """
    if reason is None:
        return None
    if reason == "stop":
        return "stop"
    if reason == "model_length":  # the context window ended (Mistral)
        return "length"
    if not isinstance(reason, str):
        raise MalformedError("a finish_reason is no word")
    if reason == "error":
        raise MalformedError("the provider says that generation failed")
    return reason


def read_content(content: Any) -> tuple[str, str]:
    """Text and reasoning of a message's or delta's content: a string, a list of parts, or nothing.

    Raises:
        MalformedError: It is anything else.
    """
    if type(content) is str:
        return content, ""
    if content is None:
        return "", ""
    if not isinstance(content, list):
        raise MalformedError("a content is neither text nor a list")
    text: list[str] = []
    reasoning: list[str] = []
    for part in content:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, dict):
            kind = part.get("type")
            if kind == "text":
                if isinstance(said := part.get("text"), str):
                    text.append(said)
            elif kind == "thinking":
                reasoning.append(_thinking(part.get("thinking")))
        else:
            raise MalformedError("a part of a content is neither text nor an object")
    return "".join(text), "".join(reasoning)


def _thinking(thinking: Any) -> str:
    """Text of a thinking part, whose own content is a list of parts (references among them) or a string."""
    if isinstance(thinking, str):
        return thinking
    if not isinstance(thinking, list):
        return ""
    return "".join(
        part["text"]
        for part in thinking
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def real_id(value: Any) -> str | None:
    """The id of a tool call, or None where there is none."""
    return value if isinstance(value, str) and value not in _NO_IDS else None


def call_id(seed: str) -> str:
    """A tool call id in Mistral's form, nine letters and digits; the same for the same ``seed``."""
    number = int.from_bytes(hashlib.blake2b(seed.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    letters: list[str] = []
    for _ in range(9):
        number, digit = divmod(number, 62)
        letters.append(_BASE62[digit])
    return "".join(letters)


def read_arguments(arguments: Any) -> str:
    """Arguments as JSON text: they come as a string, or as an object."""
    if isinstance(arguments, str):
        return arguments
    if arguments is None:
        return ""
    written = encode({"arguments": arguments})
    return "" if written is None else written[len(b'{"arguments":') : -1].decode()


def called_function(call: JsonObject) -> JsonObject | None:
    """What a raw tool call says of its function; of a custom tool the free-form input stands for the arguments.

    Source:
        https://platform.openai.com/docs/guides/function-calling#custom-tools
    """
    function = call.get("function")
    if isinstance(function, dict):
        return function
    custom = call.get("custom")
    if not isinstance(custom, dict):
        return None
    return {"name": custom.get("name"), "arguments": custom.get("input")}


def _read_calls(raw_calls: Any, seed: str) -> tuple[tuple[ToolCall, ...], list[Any]]:
    """The tool calls, and the list for the next request's messages: with an id made for those that have none."""
    if not isinstance(raw_calls, list):
        raise MalformedError("tool_calls is no list")
    calls: list[ToolCall] = []
    sent: list[Any] = raw_calls
    for place, raw in enumerate(raw_calls):
        function = called_function(raw) if isinstance(raw, dict) else None
        if function is None:
            raise MalformedError(f"tool_calls[{place}] has no function")
        name = function.get("name")
        if not isinstance(name, str):
            raise MalformedError(f"tool_calls[{place}] has no name")
        known = real_id(raw.get("id"))
        if known is None:
            known = call_id(f"{seed}/{place}")
            if sent is raw_calls:
                sent = list(raw_calls)
            sent[place] = {**raw, "id": known}
        calls.append(ToolCall(known, name, read_arguments(function.get("arguments"))))
    return tuple(calls), sent


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_COUNT else None


def _detail(usage: Mapping[str, Any], group: str, member: str) -> int:
    details = usage.get(group)
    return (_count(details.get(member)) or 0) if isinstance(details, dict) else 0


def read_usage(usage: Any, reporter: Reporter) -> Usage:
    """What the provider counted; no number is derived from another. Unusable counts are 0, and noted.

    Source:
        https://docs.mistral.ai/api/endpoint/chat (``usage``; real answers carry more members than it lists),
        https://platform.openai.com/docs/api-reference/chat/object, https://api-docs.deepseek.com/guides/kv_cache
        (``prompt_cache_hit_tokens``).
    """
    if not isinstance(usage, dict):
        reporter.note("bad_usage: an answer has no usable usage", logging.WARNING)
        return Usage(requests=1)
    prompt = _count(usage.get("prompt_tokens"))
    completion = usage.get("completion_tokens")
    answered = 0 if completion is None else _count(completion)
    if prompt is None or answered is None:
        reporter.note("bad_usage: an answer has no usable usage", logging.WARNING)
        return Usage(requests=1)
    seconds: Any = usage.get("prompt_audio_seconds")
    is_time = type(seconds) in (int, float) and 0 <= seconds < _MAX_COUNT
    return Usage(
        input_tokens=prompt,
        output_tokens=answered,
        cached_tokens=_detail(usage, "prompt_tokens_details", "cached_tokens")
        or _count(usage.get("num_cached_tokens"))
        or _count(usage.get("prompt_cache_hit_tokens"))
        or 0,
        cache_write_tokens=_detail(usage, "prompt_tokens_details", "cache_write_tokens"),
        reasoning_tokens=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
        audio_seconds=float(seconds) if is_time else 0.0,
        requests=1,
    )
