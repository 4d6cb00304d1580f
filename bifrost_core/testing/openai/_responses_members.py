"""What responses refuse, and in which words.

Source:
    https://platform.openai.com/docs/api-reference/responses/create (members), the parameter types of the package
    ``openai`` 3.57, and refusals quoted in public reports. Items and tools other than messages, reasoning and
    functions are let through as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bifrost_core.testing.serving._answers import Json, inner

from ._chat_members import EFFORTS, TIERS, metadata
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
)
from ._schemas import SCHEMA_FORMAT, check_strict, function_name

__all__ = ["check_pairs", "check_responses"]

_ROLES: Final = choice("assistant", "system", "developer", "user")
_STATUS: Final = choice("in_progress", "completed", "incomplete")
_CACHE: Final[dict[str, Check]] = {"prompt_cache_breakpoint": mapping}
_PARTS: Final[dict[str, Check]] = {
    "input_text": members({"type": text, "text": text, **_CACHE}, "text"),
    "input_image": members(
        {
            "type": text,
            "image_url": text,
            "file_id": text,
            "detail": choice("auto", "low", "high", "original"),
            **_CACHE,
        }
    ),
    "input_file": members(
        {
            "type": text,
            "file_id": text,
            "file_url": text,
            "file_data": text,
            "filename": text,
            "detail": text,
            **_CACHE,
        }
    ),
    "output_text": members({"type": text, "text": text, "annotations": anything, "logprobs": anything}, "text"),
    "refusal": members({"type": text, "refusal": text}, "refusal"),
}


def _parts(path: str, value: object) -> None:
    """A text, or a list of parts."""
    if isinstance(value, str):
        return
    list_of(_typed(_PARTS))(path, value)


def _typed(kinds: Mapping[str, Check], *, others: bool = False) -> Check:
    """An object whose ``type`` says which check holds.

    Args:
        kinds: The checks.
        others: Other types are let through.
    """

    def check(path: str, value: object) -> None:
        members({"type": text} if others else {"type": choice(*kinds)}, "type")(path, _only(value, "type"))
        if is_object(value):
            kinds.get(value["type"], anything)(path, value)

    return check


def _only(value: object, *names: str) -> object:
    """The named members of an object; anything else as it is."""
    return {name: value[name] for name in names if name in value} if is_object(value) else value


_MESSAGE: Final = members(
    {"type": text, "id": text, "role": _ROLES, "content": _parts, "status": _STATUS, "phase": text},
    "role",
    "content",
)
_CALL: Final = members(
    {
        "type": text,
        "id": text,
        "call_id": text,
        "name": text,
        "arguments": text,
        "status": _STATUS,
        "namespace": text,
        "caller": mapping,
        "async": boolean,
    },
    "call_id",
    "name",
    "arguments",
)
_OUTPUT: Final = members(
    {
        "type": text,
        "id": text,
        "call_id": text,
        "output": _parts,
        "status": _STATUS,
        "name": text,
        "namespace": text,
        "caller": mapping,
    },
    "call_id",
    "output",
)
_REASONING: Final = members(
    {
        "type": text,
        "id": text,
        "summary": list_of(mapping),
        "content": anything,
        "encrypted_content": text,
        "status": _STATUS,
    },
    "summary",
)
_ITEMS: Final[dict[str, Check]] = {
    "message": _MESSAGE,
    "function_call": _CALL,
    "function_call_output": _OUTPUT,
    "reasoning": _REASONING,
}


def _input(path: str, value: object) -> None:
    """A text, or a list of items; one without a type is a message."""
    if isinstance(value, str):
        return

    def item(where: str, each: object) -> None:
        if is_object(each) and each.get("type") is None:
            _MESSAGE(where, each)
        else:
            _typed(_ITEMS, others=True)(where, each)

    list_of(item)(path, value)


_FUNCTION: Final = members(
    {
        "type": text,
        "name": function_name,
        "description": text,
        "parameters": mapping,
        "strict": boolean,
        "defer_loading": boolean,
        "output_schema": mapping,
        "allowed_callers": anything,
        "async": boolean,
    },
    "name",
)


def _tools(path: str, value: object) -> None:
    list_of(_typed({"function": _FUNCTION}, others=True))(path, value)
    for index, tool in enumerate(value if is_list(value) else ()):
        if is_object(tool) and tool["type"] == "function" and tool.get("strict") and tool.get("parameters"):
            where = f"{path}[{index}].parameters"
            check_strict(tool["parameters"], f"function '{tool['name']}'", where, "invalid_function_parameters")


def _tool_choice(path: str, value: object) -> None:
    if isinstance(value, str):
        choice("none", "auto", "required")(path, value)
    else:
        _typed({"function": members({"type": text, "name": text}, "name")}, others=True)(path, value)


def _format(path: str, value: object) -> None:
    plain = members({"type": text})
    schema = members({"type": text, **SCHEMA_FORMAT}, "name", "schema")
    _typed({"text": plain, "json_object": plain, "json_schema": schema})(path, value)
    if is_object(value) and value["type"] == "json_schema" and value.get("strict"):
        check_strict(value["schema"], f"response_format '{value['name']}'", f"{path}.schema", "invalid_json_schema")


_MEMBERS: Final[dict[str, Check]] = {
    "access_programs": anything,
    "background": boolean,
    "background_options": mapping,
    "context_management": anything,
    "conversation": anything,
    "image": mapping,
    "include": list_of(text),
    "input": _input,
    "instructions": text,
    "max_output_tokens": integer(16),
    "max_tool_calls": integer(1),
    "metadata": metadata,
    "model": text,
    "moderation": mapping,
    "parallel_tool_calls": boolean,
    "previous_response_id": text,
    "prompt": mapping,
    "prompt_cache_key": text,
    "prompt_cache_options": mapping,
    "prompt_cache_retention": choice("in_memory", "in-memory", "24h"),
    "reasoning": members(
        {
            "effort": EFFORTS,
            "summary": choice("auto", "concise", "detailed"),
            "generate_summary": choice("auto", "concise", "detailed"),
            "context": text,
            "mode": text,
        }
    ),
    "safety_identifier": text,
    "service_tier": TIERS,
    "store": boolean,
    "stream": boolean,
    "stream_options": members({"include_obfuscation": boolean}),
    "temperature": number(0, 2),
    "text": members({"format": _format, "verbosity": choice("low", "medium", "high")}),
    "tool_choice": _tool_choice,
    "tools": _tools,
    "top_logprobs": integer(0, 20),
    "top_p": number(0, 1),
    "truncation": choice("auto", "disabled"),
    "user": text,
}


def check_responses(body: Json) -> None:
    """Refuse what responses refuse.

    Raises:
        OpenAIError: 400 for the first finding.
    """
    check_members(body, _MEMBERS, ("model", "input"))
    if body.get("previous_response_id") and body.get("conversation"):
        message = "Mutually exclusive parameters: 'previous_response_id' and 'conversation' cannot be used together."
        raise refused(message, "conversation", "mutually_exclusive_parameters")
    form: Json = inner(body, "text", "format")
    if form.get("type") == "json_object" and "json" not in str(body["input"]).lower():
        message = (
            "Response input messages must contain the word 'json' in some form to use 'text.format' of type "
            "'json_object'."
        )
        raise refused(message, "input")


def check_pairs(items: Any, called: frozenset[str]) -> None:
    """Refuse results of calls that were not made, and calls without a result.

    Args:
        items: The ``input``.
        called: Ids of the calls of the response before.

    Raises:
        OpenAIError: 400.
    """
    calls, results = set(called), set[str]()
    for item in items if is_list(items) else ():
        if not is_object(item):
            continue
        if item.get("type") == "function_call":
            calls.add(item["call_id"])
        elif item.get("type") == "function_call_output":
            if item["call_id"] not in calls:
                raise refused(f"No tool call found for function call output with call_id {item['call_id']}.", "input")
            results.add(item["call_id"])
    missing = sorted(calls - results)
    if missing:
        raise refused(f"No tool output found for function call {missing[0]}.", "input")
