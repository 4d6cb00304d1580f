"""Bodies of Responses requests: brought into one shape, and what the answers repeat of them.

Source:
    https://platform.openai.com/docs/api-reference/responses/create and
    https://platform.openai.com/docs/api-reference/responses/object.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import attrs

from .errors import ConfigError
from .responses import ResponsesResponse
from .structured import parser_of, response_format_of
from .types import JsonObject, input_items

__all__ = ["answer_to", "echo_of", "shaped_body"]

_ECHOED: Final = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "temperature",
    "tool_choice",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)


def shaped_body(body: Mapping[str, Any]) -> JsonObject:
    """The body of a Responses request in its one shape: the input as items, ``text_format`` as ``text.format``.

    A class is its JSON schema then, so that hooks, caches and logs see plain values, equal where they say the same.

    Raises:
        ConfigError: The input has none of the accepted forms, no schema can be made of the class, or the format
            is given twice.
    """
    shaped: JsonObject = {name: value for name, value in body.items() if name != "text_format"}
    if "input" in body:
        shaped["input"] = input_items(body["input"])
    form, given = _format_in(body), body.get("text")
    if form is None:
        return shaped
    text: JsonObject = dict(cast("Mapping[str, Any]", given)) if isinstance(given, Mapping) else {}
    if body.get("text_format") is not None and text.get("format") is not None:
        raise ConfigError("text_format and text.format were both given; give one of them", field="text_format")
    shaped["text"] = {**text, "format": _plain_format(form)}
    return shaped


def answer_to(body: Mapping[str, Any], response: ResponsesResponse) -> ResponsesResponse:
    """The answer with what it owes to the request: what it repeats of it, and how ``parsed`` is read.

    Args:
        body: As this caller wrote it; the answer to another's equal request may come from a cache.
        response: The answer.
    """
    form = _format_in(body)
    response = attrs.evolve(response, echo=echo_of(body))
    return response if form is None or isinstance(form, Mapping) else response.with_parser(parser_of(form))


def _format_in(body: Mapping[str, Any]) -> Any:
    """The format that is asked for: a mapping, a class, or None."""
    form, text = body.get("text_format"), body.get("text")
    if form is None and isinstance(text, Mapping):
        form = cast("Mapping[str, Any]", text).get("format")
    return form


def _plain_format(form: Any) -> Any:
    if isinstance(form, Mapping):
        return cast("Mapping[str, Any]", form)
    return {"type": "json_schema", **response_format_of(form, "text_format")["json_schema"]}


def echo_of(body: Mapping[str, Any]) -> JsonObject:
    """The members of a request that its answer repeats, in the API's own shape.

    Args:
        body: As the caller wrote it; what is in no shape that can be repeated is left out.
    """
    echo: JsonObject = {name: body[name] for name in _ECHOED if body.get(name) is not None}
    extra: Any = body.get("extra_body")
    if isinstance(extra, Mapping) and isinstance(told := cast("JsonObject", extra).get("metadata"), Mapping):
        echo["metadata"] = told  # given there, as the name is also an option of the call
    tools: Any = body.get("tools")
    if isinstance(tools, (list, tuple)):
        echo["tools"] = [_flat_tool(tool) for tool in cast("Sequence[object]", tools)]
    choice: Any = echo.get("tool_choice")
    if choice == "any":  # Mistral's word
        echo["tool_choice"] = "required"
    elif isinstance(choice, Mapping):
        echo["tool_choice"] = _flat_tool(cast("object", choice))
    given: Any = body.get("text")
    text: JsonObject = dict(cast("Mapping[str, Any]", given)) if isinstance(given, Mapping) else {}
    form: Any = {"type": "text"}
    with contextlib.suppress(ConfigError):  # no class that a schema could be made of
        form = _plain_format(_format_in(body) or form)
    echo["text"] = {**text, "format": form}
    return echo


def _flat_tool(tool: object) -> JsonObject:
    """A tool as the Responses shape has it: the members of its function beside its type."""
    if not isinstance(tool, Mapping):
        return {"type": "function", "name": str(getattr(tool, "__name__", "function")), "parameters": None}
    members = dict(cast("Mapping[str, Any]", tool))
    function: Any = members.pop("function", None)
    return {**members, **cast("Mapping[str, Any]", function)} if isinstance(function, Mapping) else members
