"""What messages and the counting of their tokens refuse, and in which words.

Source:
    https://platform.claude.com/docs/en/api/messages/create (members and ranges), the parameter types of the package
    ``anthropic`` 2.14, and refusals quoted in public reports. Members of beta features are let through where the
    request has an ``anthropic-beta`` header.
"""

from __future__ import annotations

from typing import Any, Final

from bifrost_core.testing.serving._answers import Json, inner

from ._blocks import CACHE, blocks_of, check_messages, check_system
from ._errors import AnthropicError
from ._members import (
    Check,
    anything,
    boolean,
    check_members,
    choice,
    is_list,
    is_object,
    list_of,
    mapping,
    members,
    number,
    optional,
    pattern,
    text,
)
from .catalogue import Traits, traits_of

__all__ = ["check_body"]

_LEAST_BUDGET: Final = 1024
_MOST_BREAKPOINTS: Final = 4
_NEWER: Final = "2026-10-21"  # https://platform.claude.com/docs/en/api/migration-2026-10-21
_SAMPLING: Final = ("temperature", "top_p", "top_k")
_NAME: Final = pattern("[a-zA-Z0-9_-]{1,128}")


# -- tools and formats -------------------------------------------------------------------------------------------


def _schema(path: str, value: object) -> None:
    mapping(path, value)
    if is_object(value) and "type" not in value:
        raise AnthropicError.bad(f"{path}.type: Field required")
    if is_object(value) and value["type"] != "object":
        raise AnthropicError.bad(f"{path}.type: Input should be 'object'")


_CUSTOM: Final = members(
    {
        "type": optional(choice("custom")),
        "name": _NAME,
        "description": text,
        "input_schema": _schema,
        "strict": boolean,
        "defer_loading": boolean,
        "allowed_callers": anything,
        "eager_input_streaming": optional(boolean),
        "input_examples": list_of(mapping),
        **CACHE,
    },
    "name",
    "input_schema",
)


def _tools(path: str, value: object) -> None:
    list_of(mapping)(path, value)
    names: list[object] = []
    for index, tool in enumerate(value if is_list(value) else ()):
        if not is_object(tool):
            continue
        optional(text)(f"{path}.{index}.type", tool.get("type"))
        if tool.get("type") in {None, "custom"}:
            _CUSTOM(f"{path}.{index}.custom", tool)
            if tool.get("strict"):
                _check_closed(f"{path}.{index}.custom", tool["input_schema"])
        names.append(tool.get("name"))
    if len({str(name) for name in names}) < len(names):
        raise AnthropicError.bad("tools: Tool names must be unique.")


def _check_closed(path: str, schema: object) -> None:
    """Refuse schemas with objects that are open, which grammars cannot be made of.

    Source:
        https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations.
    """
    if is_list(schema):
        for each in schema:
            _check_closed(path, each)
    if not is_object(schema):
        return
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        raise AnthropicError.bad(f"{path}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    for name in ("properties", "$defs", "definitions"):
        for each in inner(schema, name).values():
            _check_closed(path, each)
    for name in ("items", "anyOf", "allOf"):
        _check_closed(path, schema.get(name))


def _format(path: str, value: object) -> None:
    members({"type": choice("json_schema"), "schema": mapping}, "type", "schema")(path, value)
    if is_object(value):
        _check_closed(f"{path}.schema", value["schema"])


_TOOL_CHOICE: Final = members(
    {"type": choice("auto", "any", "tool", "none"), "name": text, "disable_parallel_tool_use": boolean}, "type"
)
_THINKING: Final = members(
    {
        "type": choice("enabled", "disabled", "adaptive", "between_tools"),
        "budget_tokens": number(_LEAST_BUDGET, whole=True),
        "display": optional(choice("summarized", "omitted")),
    },
    "type",
)
_PROMPT: Final[dict[str, Check]] = {
    **CACHE,
    "messages": check_messages,
    "model": text,
    "output_config": members(
        {"effort": optional(choice("low", "medium", "high", "xhigh", "max")), "format": optional(_format)}
    ),
    "speed": optional(choice("standard", "fast")),
    "system": check_system,
    "thinking": _THINKING,
    "tool_choice": _TOOL_CHOICE,
    "tools": _tools,
    "user_profile_id": optional(text),
    "workspace_id": optional(text),
}
_MESSAGES: Final[dict[str, Check]] = {
    **_PROMPT,
    "container": anything,
    "diagnostics": anything,
    "inference_geo": optional(text),
    "max_tokens": number(1, whole=True),
    "metadata": members({"user_id": optional(text)}),
    "service_tier": choice("auto", "standard_only"),
    "stop_sequences": list_of(text),
    "stream": boolean,
    "temperature": number(0, 1),
    "top_k": number(0, whole=True),
    "top_p": number(0, 1),
}
_BETA: Final = (
    "billing_policy",
    "compaction",
    "context_management",
    "fallback_credit_token",
    "fallbacks",
    "mcp_servers",
    "output_format",
)
_THREAD: Final = members({"type": choice("create", "continue"), "previous_message_id": text}, "type")


def check_body(body: Json, *, counts: bool, beta: bool, version: str) -> None:
    """Refuse what messages, or the counting of their tokens, refuse.

    Args:
        body: The request.
        counts: Whether its tokens are only counted.
        beta: Whether members of beta features are let through.
        version: Of the API, as the request states it.

    Raises:
        AnthropicError: 400 for the first finding.
    """
    known = _PROMPT if counts else _MESSAGES
    if version >= _NEWER:
        known = {name: check for name, check in known.items() if name not in _SAMPLING}
    if beta:
        known = {**known, **dict.fromkeys(_BETA, anything), "thread": _THREAD}
    check_members(body, known, ("model", "messages") if counts else ("model", "max_tokens", "messages"))
    _check_choice(body)
    traits = traits_of(body["model"])
    _check_thinking(body, traits, counts=counts)
    _check_sampling(body, traits)
    if not counts and body["max_tokens"] > traits.output:
        raise AnthropicError.bad(
            f"max_tokens: {body['max_tokens']} > {traits.output}, which is the maximum allowed number of output tokens "
            f"for {body['model']}"
        )
    if version >= _NEWER:
        _check_newer(body["messages"])
    marks = _breakpoints(body.get("tools")) + _breakpoints(body.get("system")) + _breakpoints(body["messages"])
    marks += body.get("cache_control") is not None
    if marks > _MOST_BREAKPOINTS:
        raise AnthropicError.bad(
            f"A maximum of {_MOST_BREAKPOINTS} blocks with cache_control may be provided. Found {marks}."
        )


def _check_choice(body: Json) -> None:
    choice_made = inner(body, "tool_choice")
    kind = choice_made.get("type")
    if kind is None:
        return
    tools: list[Json] = body.get("tools") or []
    if kind != "none" and not tools:
        raise AnthropicError.bad("tool_choice may only be specified while providing tools.")
    if kind == "tool":
        if "name" not in choice_made:
            raise AnthropicError.bad("tool_choice.tool.name: Field required")
        if all(tool.get("name") != choice_made["name"] for tool in tools):
            raise AnthropicError.bad(f"Tool '{choice_made['name']}' not found in provided tools")


def _check_newer(messages: list[Json]) -> None:
    """What version 2026-10-21 refuses beside sampling: documents of the assistant, citations of the user."""
    for index, message in enumerate(messages):
        for at, block in enumerate(blocks_of(message["content"])):
            where = f"messages.{index}.content.{at}"
            if message["role"] == "assistant" and block["type"] == "document":
                raise AnthropicError.bad(f"{where}: `document` blocks are not allowed in `assistant` messages")
            texts = blocks_of(block["content"]) if block["type"] == "search_result" else [block]
            if message["role"] == "user" and any(
                is_list(each.get("citations")) and each["citations"] for each in texts
            ):
                raise AnthropicError.bad(f"{where}: `citations` are not allowed on `text` blocks in `user` messages")


def _check_sampling(body: Json, traits: Traits) -> None:
    """Newer models take the defaults only."""
    if traits.sampling:
        return
    for name in _SAMPLING:
        if body.get(name) is not None and (name == "top_k" or body[name] != 1):
            raise AnthropicError.bad(f"`{name}` is deprecated for this model.")


def _check_thinking(body: Json, traits: Traits, *, counts: bool) -> None:
    thinking = inner(body, "thinking")
    kind = thinking.get("type")
    if kind == "adaptive" and not traits.adaptive:
        raise AnthropicError.bad("adaptive thinking is not supported on this model")
    if kind == "enabled" and not traits.budget:
        raise AnthropicError.bad(
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and '
            '"output_config.effort" to control thinking behavior.'
        )
    if kind == "enabled":
        if "budget_tokens" not in thinking:
            raise AnthropicError.bad("thinking.enabled.budget_tokens: Field required")
        if not counts and thinking["budget_tokens"] >= body["max_tokens"]:
            raise AnthropicError.bad(
                "`max_tokens` must be greater than `thinking.budget_tokens`. Please consult our documentation at "
                "https://platform.claude.com/docs/en/build-with-claude/extended-thinking#max-tokens-and-context-window-size"
            )
    if kind not in {"enabled", "adaptive"}:
        return
    if inner(body, "tool_choice").get("type") in {"any", "tool"}:
        raise AnthropicError.bad("Thinking may not be enabled when tool_choice forces tool use.")
    if body.get("temperature", 1) != 1:
        raise AnthropicError.bad("`temperature` may only be set to 1 when thinking is enabled.")


def _breakpoints(value: Any) -> int:
    """How many blocks have a ``cache_control``, those inside others included; inputs of tools are none."""
    if is_list(value):
        return sum(_breakpoints(each) for each in value)
    if not is_object(value):
        return 0
    own = value.get("cache_control") is not None
    return own + _breakpoints(value.get("content"))
