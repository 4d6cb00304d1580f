"""What chat and FIM of the simulated service refuse, and in which words.

Source:
    https://docs.mistral.ai/api (members and ranges), https://docs.mistral.ai/resources/error-glossary,
    and refusals quoted in public reports.
"""

from __future__ import annotations

import math
import re
from typing import Any, cast

from bifrost_core.testing.serving._answers import Json

from ._errors import MistralError, detail_item
from ._members import Findings, refuse

__all__ = ["check_chat", "check_fim"]

_SAMPLING = frozenset({"temperature", "top_p", "max_tokens", "min_tokens", "stream", "stop", "random_seed", "metadata"})
_CHAT = _SAMPLING | {
    "model",
    "messages",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "presence_penalty",
    "frequency_penalty",
    "n",
    "prediction",
    "reasoning_effort",
    "prompt_mode",
    "guardrails",
    "prompt_cache_key",
    "service_tier",
    "safe_prompt",
    "top_k",
    "repetition_penalty",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "top_prompt_logprobs",
}
_FIM = _SAMPLING | {"model", "prompt", "suffix", "prompt_cache_key"}
_MESSAGE = {
    "system": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset({"role", "content", "tool_calls", "prefix"}),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
}
_RANGES = {
    "temperature": (0.0, 1.5),
    "top_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
_LEAST = {"max_tokens": 0, "min_tokens": 0, "random_seed": 0}
_MOST_CHOICES = 128  # a bound of this server's own
_EFFORTS = (None, "none", "minimal", "low", "medium", "high", "xhigh", "max")
_CHOICES = ("auto", "none", "any", "required")
_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}\Z")
_MISMATCH = "Not the same number of function calls and responses"


def _check_members(body: Json, known: frozenset[str], required: tuple[str, ...]) -> Findings:
    """Missing and unknown members, and the ranges of numbers."""
    found: Findings = [detail_item("missing", [name], "Field required", body) for name in required if name not in body]
    if not body.keys() <= known:
        found += [
            detail_item("extra_forbidden", [name], "Extra inputs are not permitted", value)
            for name, value in body.items()
            if name not in known
        ]
    for name, value in body.items():
        if value is not None and (name in _RANGES or name in _LEAST or name == "n"):
            found += _check_number(name, value)
    model = body.get("model", "")
    if not isinstance(model, str):
        found.append(detail_item("string_type", ["model"], "Input should be a valid string", model))
    if not _is_texts(body.get("stop") or ""):
        found.append(detail_item("string_type", ["stop"], "Input should be a valid string", body["stop"]))
    if not isinstance(body.get("stream") or False, bool):
        found.append(detail_item("bool_type", ["stream"], "Input should be a valid boolean", body["stream"]))
    return found


def _is_texts(value: object) -> bool:
    """Whether it is a text or a list of texts."""
    if isinstance(value, list):
        return all(isinstance(text, str) for text in cast("list[object]", value))
    return isinstance(value, str)


def _check_number(name: str, value: object) -> Findings:
    """The type and the range of a number."""
    is_float = name in _RANGES
    if isinstance(value, bool) or not isinstance(value, int | float if is_float else int):
        what = "number" if is_float else "integer"
        return [detail_item("float_type" if is_float else "int_type", [name], f"Input should be a valid {what}", value)]
    low, high = _RANGES[name] if is_float else (_LEAST.get(name, 1), math.inf if name in _LEAST else _MOST_CHOICES)
    if value < low or (name == "top_p" and value == 0):
        return [detail_item("greater_than_equal", [name], f"Input should be greater than or equal to {low:g}", value)]
    if value > high:
        return [detail_item("less_than_equal", [name], f"Input should be less than or equal to {high:g}", value)]
    return []


def check_chat(body: Json) -> None:
    """Refuse what chat completions refuse.

    Raises:
        MistralError: 422 for members, 400 for the order of messages and for arguments.
    """
    found = _check_members(body, _CHAT, ("model", "messages"))
    messages: Any = body.get("messages", [])
    if not isinstance(messages, list):
        found.append(detail_item("list_type", ["messages"], "Input should be a valid list", messages))
        messages = []
    turns = cast("list[object]", messages)
    for index, message in enumerate(turns):
        found += _check_message(index, message)
    found += _check_tools(body)
    form: Any = body.get("response_format")
    if form is not None and not _is_response_format(form):
        found.append(detail_item("literal_error", ["response_format", "type"], "Input should be a known format", form))
    if body.get("reasoning_effort") not in _EFFORTS:
        text = "Input should be a known effort"
        found.append(detail_item("literal_error", ["reasoning_effort"], text, body["reasoning_effort"]))
    refuse(found)
    if body.get("logprobs"):
        raise MistralError.object(
            400, "invalid_request_invalid_args", "3051", "Logprobs are not enabled for this model"
        )
    _check_order(cast("list[Json]", turns))


def _is_response_format(form: object) -> bool:
    """Whether it is one of the three formats, with a schema where one is due."""
    if not isinstance(form, dict):
        return False
    members = cast("Json", form)
    if members.get("type") == "json_schema":
        schema = members.get("json_schema")
        return isinstance(schema, dict) and "name" in schema and "schema" in schema
    return members.get("type") in ("text", "json_object")  # a list is a type here too, and not hashable


def _check_message(index: int, message: object) -> Findings:
    """One message: its role and its members."""
    loc: list[str | int] = ["messages", index]
    if not isinstance(message, dict):
        return [detail_item("model_attributes_type", loc, "Input should be an object", message)]
    members = cast("Json", message)
    role = members.get("role")
    allowed = _MESSAGE.get(role) if isinstance(role, str) else None
    if allowed is None:
        return [detail_item("union_tag_invalid", loc, "Input tag found using 'role' is not an expected tag", members)]
    found: Findings = [
        detail_item("extra_forbidden", [*loc, str(role), name], "Extra inputs are not permitted", value)
        for name, value in members.items()
        if name not in allowed
    ]
    if role != "assistant" and "content" not in members:
        found.append(detail_item("missing", [*loc, str(role), "content"], "Field required", members))
    content: Any = members.get("content")
    if isinstance(content, list):
        parts = cast("list[object]", content)
        if not all(isinstance(part, dict) for part in parts):
            found.append(detail_item("model_attributes_type", [*loc, "content"], "Input should be an object", parts))
    elif content is not None and not isinstance(content, str):
        found.append(detail_item("string_type", [*loc, "content"], "Input should be a valid string", content))
    elif content is None and role == "system":
        found.append(detail_item("string_type", [*loc, "content"], "Input should be a valid string", None))
    return found


def _check_tools(body: Json) -> Findings:
    """The tools and the choice among them."""
    found: Findings = []
    tools: Any = body.get("tools")
    if tools is not None and not isinstance(tools, list):
        return [detail_item("list_type", ["tools"], "Input should be a valid list", tools)]
    for index, tool in enumerate(cast("list[object]", tools or [])):
        function: Any = cast("Json", tool).get("function") if isinstance(tool, dict) else None
        for name in ("name", "parameters"):
            if not isinstance(function, dict) or name not in function:
                found.append(detail_item("missing", ["tools", index, "function", name], "Field required", None))
        named: object = cast("Json", function).get("name", "") if isinstance(function, dict) else ""
        if not isinstance(named, str):
            loc: list[str | int] = ["tools", index, "function", "name"]
            found.append(detail_item("string_type", loc, "Input should be a valid string", named))
    choice: Any = body.get("tool_choice")
    if isinstance(choice, dict):
        function = cast("Json", choice).get("function")
        if not isinstance(function, dict) or "name" not in function:
            found.append(detail_item("missing", ["tool_choice", "function", "name"], "Field required", None))
    elif choice is not None and choice not in _CHOICES:
        found.append(detail_item("enum", ["tool_choice"], "Input should be a known choice", choice))
    return found


def _order_error(message: str) -> MistralError:
    """The 400 for messages in a wrong order."""
    return MistralError.object(400, "invalid_request_message_order", "3230", message)


def _check_order(messages: list[Json]) -> None:
    """The rules on which message may follow which.

    Raises:
        MistralError: 400.
    """
    if not messages:
        raise _order_error("Conversation must have at least one message")
    owed = 0  # results of calls still to come
    before: str | None = None
    for message in messages:
        role: str = message["role"]
        if role == "tool" and before not in {"assistant", "tool"}:
            raise _order_error(f"Unexpected role 'tool' after role '{before}'")
        if role in {"user", "system"} and before == "tool":
            raise _order_error(f"Unexpected role '{role}' after role 'tool'")
        if (owed == 0) is (role == "tool"):
            raise _order_error(_MISMATCH)
        if role == "tool":
            owed -= 1
        elif role == "assistant":
            owed = _count_calls(message)
        before = role
    if owed:
        raise _order_error(_MISMATCH)
    if before not in {"user", "tool"} and not messages[-1].get("prefix"):
        text = "Expected last role User or Tool (or Assistant with prefix True) for serving but got "
        raise _order_error(text + str(before))


def _count_calls(message: Json) -> int:
    """How many results an assistant message asks for, its calls' ids checked."""
    calls: list[Json] = message.get("tool_calls") or []
    for call in calls:
        _check_call_id(str(call.get("id")))
    return len(calls)


def _check_call_id(call_id: str) -> None:
    """Refuse ids that Mistral would not have made; ``"null"`` stands for none."""
    if call_id not in {"null", "None"} and _CALL_ID.match(call_id) is None:
        text = f"Tool call id was {call_id} but must be a-z, A-Z, 0-9, with a length of 9."
        raise MistralError.object(400, "invalid_function_call", "3280", text)


def check_fim(body: Json) -> None:
    """Refuse what FIM completions refuse.

    Raises:
        MistralError: 422.
    """
    found = _check_members(body, _FIM, ("model", "prompt"))
    for name in ("prompt", "suffix"):
        if not isinstance(body.get(name) or "", str):
            found.append(detail_item("string_type", [name], "Input should be a valid string", body[name]))
    refuse(found)
