"""Chat requests in OpenAI's shape: for OpenAI, which refuses what it does not know, and for servers like it.

Source:
    https://platform.openai.com/docs/api-reference/chat/create; fields of Mistral and of Anthropic are those of
    https://docs.mistral.ai/api/endpoint/chat and https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.errors import ConfigError
from bifrost_core.structured import response_format_of
from bifrost_core.tools import tool_of
from bifrost_core.types import JsonObject, Request

from ._adapter import Payload
from ._members import Writer, leave_out, model_name, refuse, rename, same, stream_flag, write_members
from ._openai_families import is_reasoning
from ._openai_messages import write_messages, write_open_messages
from ._reporter import Reporter
from ._responses import chat_request

__all__ = ["CHAT", "response_format", "tool_choice", "write_chat", "write_open_chat", "write_open_responses"]

_LIMIT: Final = "max_completion_tokens"
_OLD_LIMIT: Final = "max_tokens"
_FUNCTION: Final = frozenset({"name", "description", "parameters", "strict"})
_SILENT_TOOL: Final = frozenset({"cache_control"})


# --- members of the body


def response_format(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """An object as it is; a class as its schema."""
    problem = ""
    if not isinstance(value, Mapping):
        try:
            value = response_format_of(value)
        except ConfigError as exc:
            problem = exc.message
    if problem:
        raise reporter.invalid(problem)
    members[name] = value


def _described(tool: Any, path: str, reporter: Reporter) -> Any:
    """A tool as an object; Python functions are described."""
    problem = ""
    try:
        tool = tool_of(tool, path)
    except ConfigError as exc:
        problem = exc.message
    if problem:
        raise reporter.invalid(problem)
    return tool


def _listed(name: str, value: Any, reporter: Reporter) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise reporter.invalid(f"the field {name!r} is no list")
    return value


def _tools(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    members[name] = [
        _tool(f"{name}[{place}]", tool, reporter) for place, tool in enumerate(_listed(name, value, reporter))
    ]


def _tool(path: str, tool: Any, reporter: Reporter) -> Any:
    tool = _described(tool, path, reporter)
    kind = tool.get("type", "function")
    if kind == "custom":
        return tool
    if kind != "function":
        raise reporter.unsupported(
            f"{path}.type",
            "OpenAI's chat takes function and custom tools; those that it runs itself go with responses()",
        )
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise reporter.invalid(f"{path}.function is no object")
    for name, value in tool.items():
        if name in {"type", "function"} or value is None:
            continue
        if name not in _SILENT_TOOL:
            raise reporter.unsupported(f"{path}.{name}", "OpenAI has no such member there")
        reporter.note(f"the member {name!r} of a tool, which OpenAI does not take, is left out")
    for name, value in function.items():
        if name not in _FUNCTION and value is not None:
            raise reporter.unsupported(f"{path}.function.{name}", "OpenAI has no such member there")
    return {"type": "function", "function": function}


def _open_tools(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    members[name] = [
        _described(tool, f"{name}[{place}]", reporter) for place, tool in enumerate(_listed(name, value, reporter))
    ]


def tool_choice(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    """As it is, but for Mistral's word ``any``, which is ``required`` here."""
    members[name] = "required" if value == "any" else value


def _max_tokens(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """The older name of the limit stays, but for models that think, which refuse it."""
    to = _LIMIT if is_reasoning(members["model"]) or _LIMIT in members else name
    if members.setdefault(to, value) != value:
        raise reporter.unsupported(name, f"it is another name of {_LIMIT!r}, which has another value; give one of them")


def _max_completion_tokens(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if members.pop(_OLD_LIMIT, value) != value or members.setdefault(name, value) != value:
        raise reporter.unsupported(
            name, f"{_OLD_LIMIT!r} is another name of it and has another value; give one of them"
        )


def _service_tier(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    members[name] = "default" if value == "standard_only" else value  # Mistral's and Anthropic's word for the same


def _thinking(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Anthropic's switch: off asks for nothing."""
    if not (isinstance(value, Mapping) and value.get("type") == "disabled"):
        raise reporter.unsupported(name, "OpenAI has no such field; how much a model thinks is reasoning_effort here")
    leave_out(members, name, value, reporter)


_SENT: Final = (
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "metadata",
    "modalities",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "stop",
    "store",
    "stream_options",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
)
CHAT: Final[Mapping[str, Writer | None]] = {
    **dict.fromkeys(_SENT),
    "cache_control": leave_out,
    "guardrails": refuse([]),
    _LIMIT: _max_completion_tokens,
    _OLD_LIMIT: _max_tokens,
    "messages": write_messages,
    "min_tokens": refuse(),
    "model": model_name,
    "prompt_mode": refuse(),
    "random_seed": rename("seed"),
    "repetition_penalty": refuse(1.0),
    "response_format": response_format,
    "safe_prompt": refuse(False),  # the value that asks for nothing
    "seed": same,
    "service_tier": _service_tier,
    "stream": stream_flag,
    "thinking": _thinking,
    "tool_choice": tool_choice,
    "tools": _tools,
    "top_k": refuse(),
}
_OPEN_CHAT: Final[Mapping[str, Writer | None]] = {
    "messages": write_open_messages,
    "model": model_name,
    "random_seed": rename("seed"),
    "response_format": response_format,
    "seed": same,
    "stream": stream_flag,
    "tool_choice": tool_choice,
    "tools": _open_tools,
}


# --- the requests


def _limited(members: JsonObject, extra: Mapping[str, Any], max_output: int | None, unnamed: str) -> Payload:
    """Merge the extra fields and hold the output limit, over them too; ``unnamed`` is where none is stated."""
    members.update(extra)
    limits = {name: limit for name in (_LIMIT, _OLD_LIMIT) if type(limit := members.get(name)) is int}
    limit = min(limits.values(), default=None)
    if max_output is not None and (limit is None or limit > max_output):
        limit = max_output
        members.update(dict.fromkeys(limits or (unnamed,), max_output))
    choices: Any = members.get("n") or 1
    return Payload(members, limit * choices if limit is not None and type(choices) is int else None)


def _ask_for_usage(members: JsonObject) -> None:
    """Without its last chunk, which carries it, nobody would know what a streamed answer cost.

    Source:
        https://platform.openai.com/docs/api-reference/chat/create (``stream_options``)
    """
    given: Any = members.get("stream_options")
    members["stream_options"] = {**(given if isinstance(given, Mapping) else {}), "include_usage": True}


def write_chat(request: Request, max_output: int | None, reporter: Reporter) -> Payload:
    """A chat request to OpenAI.

    Raises:
        BadRequestError: It can not be put into OpenAI's shape; names the field.
    """
    members, extra = write_members(CHAT, "messages", request, reporter)
    payload = _limited(members, extra, max_output, _LIMIT)
    if request.stream:
        _ask_for_usage(members)
    return payload


def write_open_chat(
    request: Request, max_output: int | None, reporter: Reporter, *, stream_usage: bool = True
) -> Payload:
    """A chat request to a server that speaks like OpenAI and has fields of its own: unknown ones are sent.

    Args:
        request: The request.
        max_output: The limit to hold.
        reporter: Of the provider.
        stream_usage: Ask for the usage of streams, which a few old servers refuse.

    Raises:
        BadRequestError: It can not be written; names the field.
    """
    members, extra = write_members(_OPEN_CHAT, "messages", request, reporter, is_open=True)
    payload = _limited(members, extra, max_output, _OLD_LIMIT)
    if request.stream and stream_usage:
        _ask_for_usage(members)
    return payload


def write_open_responses(
    request: Request, max_output: int | None, reporter: Reporter, *, stream_usage: bool = True
) -> Payload:
    """A Responses request as chat, for servers that have no other; arguments as of ``write_open_chat``.

    Raises:
        BadRequestError: It can not be put into the chat shape; names the field.
    """
    own = {*CHAT, *request.body} - {"input", "instructions"}
    return write_open_chat(chat_request(request, own, reporter), max_output, reporter, stream_usage=stream_usage)
