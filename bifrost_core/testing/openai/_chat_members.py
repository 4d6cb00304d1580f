"""What chat completions refuse, and in which words.

Source:
    https://platform.openai.com/docs/api-reference/chat/create (members and ranges), the parameter types of the
    package ``openai`` 3.57, and refusals quoted in public reports.
"""

from __future__ import annotations

from typing import Any, Final

from bifrost_core.testing.serving._answers import Json

from ._members import (
    Check,
    anything,
    boolean,
    check_members,
    choice,
    integer,
    is_list,
    is_object,
    list_of,
    mapping,
    members,
    number,
    refused,
    text,
    texts,
)
from ._schemas import SCHEMA_FORMAT, check_strict, function_name

__all__ = ["EFFORTS", "TIERS", "check_chat", "metadata"]

EFFORTS: Final = choice("none", "minimal", "low", "medium", "high", "xhigh", "max")
TIERS: Final = choice("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
_MOST_STOPS: Final = 4
_MOST_METADATA: Final = 16


def metadata(path: str, value: object) -> None:
    """At most 16 pairs of texts."""
    mapping(path, value)
    if not is_object(value):
        return
    for name, each in value.items():
        text(f"{path}.{name}", each)
    if len(value) > _MOST_METADATA:
        message = f"Invalid '{path}': too many properties. Expected an object with at most {_MOST_METADATA} properties"
        raise refused(f"{message}, but got an object with {len(value)} instead.", path, "object_above_max_properties")


def _empty(path: str) -> Exception:
    message = f"Invalid '{path}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    return refused(message, path, "empty_array")


def _stop(path: str, value: object) -> None:
    texts(path, value)
    if is_list(value) and len(value) > _MOST_STOPS:
        message = f"Invalid '{path}': array too long. Expected an array with maximum length {_MOST_STOPS}"
        raise refused(f"{message}, but got an array with length {len(value)} instead.", path, "array_above_max_length")


# -- messages ----------------------------------------------------------------------------------------------------

_CACHE: Final[dict[str, Check]] = {"prompt_cache_breakpoint": mapping}
_PARTS: Final[dict[str, Check]] = {
    "text": members({"type": text, "text": text, **_CACHE}, "text"),
    "image_url": members(
        {
            "type": text,
            "image_url": members({"url": text, "detail": choice("auto", "low", "high", "original")}, "url"),
            **_CACHE,
        },
        "image_url",
    ),
    "input_audio": members(
        {
            "type": text,
            "input_audio": members({"data": text, "format": choice("wav", "mp3")}, "data", "format"),
            **_CACHE,
        },
        "input_audio",
    ),
    "file": members(
        {"type": text, "file": members({"file_data": text, "file_id": text, "filename": text}), **_CACHE}, "file"
    ),
    "refusal": members({"type": text, "refusal": text}, "refusal"),
}


def _content(*kinds: str) -> Check:
    """A text, or parts of these kinds."""

    def part(path: str, value: object) -> None:
        mapping(path, value)
        if is_object(value):
            check_members(
                {"type": value.get("type")} if "type" in value else {}, {"type": choice(*kinds)}, ("type",), path=path
            )
            _PARTS[value["type"]](path, value)

    def check(path: str, value: object) -> None:
        if is_list(value):
            list_of(part)(path, value)
            if not value:
                raise _empty(path)
        elif not isinstance(value, str):
            message = f"Invalid type for '{path}': expected one of a string or array of objects"
            given = "null" if value is None else "something else"
            raise refused(f"{message}, but got {given} instead.", path, "invalid_type")

    return check


def _calls(path: str, value: object) -> None:
    function = members({"name": function_name, "arguments": text, "parsed_arguments": anything}, "name", "arguments")
    custom = members({"name": text, "input": text}, "name", "input")
    # the index of a stream's call, and what the vendor's own package has read, come back with the message
    known: dict[str, Check] = {
        "id": text,
        "type": choice("function", "custom"),
        "function": function,
        "custom": custom,
        "index": anything,
    }
    list_of(members(known, "id", "type"))(path, value)
    if is_list(value) and not value:
        raise _empty(path)


_ROLES: Final[dict[str, tuple[dict[str, Check], tuple[str, ...]]]] = {
    "developer": ({"content": _content("text"), "name": text}, ("content",)),
    "system": ({"content": _content("text"), "name": text}, ("content",)),
    "user": ({"content": _content("text", "image_url", "input_audio", "file"), "name": text}, ("content",)),
    "assistant": (
        {
            "content": _content("text", "refusal"),
            "name": text,
            "refusal": text,
            "audio": mapping,
            "tool_calls": _calls,
            "function_call": mapping,
            "annotations": anything,
            "parsed": anything,  # what the vendor's own package has read
        },
        (),
    ),
    "tool": ({"content": _content("text"), "tool_call_id": text, "name": text}, ("content", "tool_call_id")),
    "function": ({"content": text, "name": text}, ("name",)),
}


def _messages(path: str, value: object) -> None:
    list_of(mapping)(path, value)
    if not is_list(value):
        return
    if not value:
        raise _empty(path)
    for index, message in enumerate(value):
        if not is_object(message):
            continue
        where = f"{path}[{index}]"
        check_members(
            {name: message[name] for name in ("role",) if name in message},
            {"role": choice(*_ROLES)},
            ("role",),
            path=where,
        )
        known, required = _ROLES[message["role"]]
        check_members(message, {"role": text, **known}, required, path=where)
        said = any(
            message.get(name) is not None for name in ("content", "tool_calls", "function_call", "refusal", "audio")
        )
        if message["role"] == "assistant" and not said:
            raise refused("Invalid value for 'content': expected a string, got null.", f"messages.[{index}].content")


def _check_order(messages: list[Json]) -> None:
    """Every call has its result, right after it, and every result its call."""
    owed: list[str] = []
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            if not owed or message["tool_call_id"] not in owed:
                words = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                raise refused(f"Invalid parameter: {words}", f"messages.[{index}].role")
            owed.remove(message["tool_call_id"])
            continue
        if owed:
            raise _unanswered(owed, index)
        owed = [call["id"] for call in message.get("tool_calls") or ()]
    if owed:
        raise _unanswered(owed, len(messages))


def _unanswered(owed: list[str], index: int) -> Exception:
    words = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
        "'tool_call_id'. The following tool_call_ids did not have response messages: "
    )
    return refused(words + ", ".join(owed), f"messages.[{index}].role")


# -- tools and formats -------------------------------------------------------------------------------------------

_FUNCTION: Final = members(
    {"name": function_name, "description": text, "parameters": mapping, "strict": boolean}, "name"
)
_TOOL: Final = members({"type": choice("function", "custom"), "function": _FUNCTION, "custom": mapping}, "type")


def _tools(path: str, value: object) -> None:
    list_of(_TOOL)(path, value)
    if not is_list(value):
        return
    if not value:
        raise _empty(path)
    for index, tool in enumerate(value):
        function: Any = tool.get("function") if is_object(tool) else None
        if is_object(tool) and tool["type"] == "function":
            if function is None:
                where = f"{path}[{index}].function"
                raise refused(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
            if function.get("strict"):
                where = f"{path}[{index}].function.parameters"
                check_strict(
                    function.get("parameters"), f"function '{function['name']}'", where, "invalid_function_parameters"
                )


def _tool_choice(path: str, value: object) -> None:
    if isinstance(value, str):
        choice("none", "auto", "required")(path, value)
        return
    named = members({"name": text}, "name")
    allowed = members({"mode": choice("auto", "required"), "tools": list_of(mapping)}, "mode", "tools")
    kinds: dict[str, Check] = {"function": named, "custom": named, "allowed_tools": allowed}
    members({"type": choice(*kinds), **kinds}, "type")(path, value)
    if is_object(value):
        kind = value["type"]
        check_members(value, {"type": text, kind: kinds[kind]}, (kind,), path=path)


def _response_format(path: str, value: object) -> None:
    known: dict[str, Check] = {
        "type": choice("text", "json_object", "json_schema"),
        "json_schema": members(SCHEMA_FORMAT, "name"),
    }
    members(known, "type")(path, value)
    if is_object(value) and value["type"] == "json_schema":
        check_members(value, known, ("type", "json_schema"), path=path)
        inner: Json = value["json_schema"]
        if inner.get("strict"):
            check_strict(inner.get("schema"), f"response_format '{inner['name']}'", path)


_MEMBERS: Final[dict[str, Check]] = {
    "audio": mapping,
    "frequency_penalty": number(-2, 2),
    "function_call": anything,
    "functions": list_of(mapping),
    "logit_bias": mapping,
    "logprobs": boolean,
    "max_completion_tokens": integer(1),
    "max_tokens": integer(1),
    "messages": _messages,
    "metadata": metadata,
    "modalities": list_of(choice("text", "audio")),
    "model": text,
    "moderation": mapping,
    "n": integer(1, 128),
    "parallel_tool_calls": boolean,
    "prediction": mapping,
    "presence_penalty": number(-2, 2),
    "prompt_cache_key": text,
    "prompt_cache_options": mapping,
    "prompt_cache_retention": choice("in_memory", "in-memory", "24h"),
    "reasoning_effort": EFFORTS,
    "response_format": _response_format,
    "safety_identifier": text,
    "seed": integer(-(2**63), 2**63),
    "service_tier": TIERS,
    "stop": _stop,
    "store": boolean,
    "stream": boolean,
    "stream_options": members({"include_usage": boolean, "include_obfuscation": boolean}),
    "temperature": number(0, 2),
    "tool_choice": _tool_choice,
    "tools": _tools,
    "top_logprobs": integer(0, 20),
    "top_p": number(0, 1),
    "user": text,
    "verbosity": choice("low", "medium", "high"),
    "web_search_options": mapping,
}


def check_chat(body: Json) -> None:
    """Refuse what chat completions refuse.

    Raises:
        OpenAIError: 400 for the first finding.
    """
    check_members(body, _MEMBERS, ("model", "messages"))
    messages: list[Json] = body["messages"]
    _check_order(messages)
    if body.get("stream_options") is not None and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise refused(message, "stream_options")
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise refused("top_logprobs is only allowed when logprobs is enabled.", "top_logprobs")
    if body.get("tool_choice") is not None and not body.get("tools"):
        raise refused("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if body.get("parallel_tool_calls") is not None and not body.get("tools"):
        raise refused("'parallel_tool_calls' is only allowed when 'tools' are specified.", "parallel_tool_calls")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise refused(message, "max_tokens")
    form: Json = body.get("response_format") or {}
    if (
        form.get("type") == "json_object"
        and "json" not in str([message.get("content") for message in messages]).lower()
    ):
        message = (
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        )
        raise refused(message, "messages")
