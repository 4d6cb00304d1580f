"""Chat and fill-in-the-middle requests in Mistral's shape.

Mistral refuses members that it does not know with 422, so every member of the OpenAI shape is sent,
renamed, left out where that changes nothing (noted once), or refused here by its name.

Source:
    https://docs.mistral.ai/api/endpoint/chat, https://docs.mistral.ai/api/endpoint/fim; what real
    servers refuse is quoted in public reports (422 ``extra_forbidden``).
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.errors import ConfigError
from bifrost_core.structured import response_format_of
from bifrost_core.tools import tool_of
from bifrost_core.types import JsonObject, Request, message_text

from ._adapter import Payload
from ._members import Writer, leave_out, model_name, refuse, rename, same, stream_flag, write_members
from ._mistral_anthropic import BESIDE_CHAT, is_served_tool, plain_tool
from ._mistral_messages import write_messages
from ._reporter import Reporter
from ._responses import chat_request

__all__ = ["continued_chat", "continued_responses", "write_chat", "write_fim", "write_responses"]

_FUNCTION: Final = frozenset({"name", "description", "strict", "parameters"})
_JSON_SCHEMA: Final = frozenset({"name", "description", "strict", "schema"})
_FORMATS: Final = frozenset({"text", "json_object", "json_schema"})
_CHOICES: Final = frozenset({"auto", "none", "any", "required"})
_TIERS: Final = frozenset({"auto", "standard_only"})

# --- members of the body


def _closed(path: str, given: Any, allowed: frozenset[str], reporter: Reporter) -> JsonObject:
    """The members that are set of an object that has no others at Mistral."""
    if not isinstance(given, Mapping):
        raise reporter.invalid(f"{path} is no object")
    for name, value in given.items():
        if value is not None and name not in allowed:
            raise reporter.unsupported(f"{path}.{name}", "it has no such member")
    return {name: value for name, value in given.items() if value is not None}


def _response_format(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    problem = ""
    if not isinstance(value, Mapping):
        try:
            members[name] = response_format_of(value)
        except ConfigError as exc:
            problem = exc.message
        if problem:
            raise reporter.invalid(problem)
        return
    written = _closed(name, value, frozenset({"type", "json_schema"}), reporter)
    if written.get("type", "text") not in _FORMATS:
        raise reporter.unsupported(f"{name}.type", "it is text, json_object or json_schema")
    if "json_schema" in written:
        written["json_schema"] = _closed(f"{name}.json_schema", written["json_schema"], _JSON_SCHEMA, reporter)
    members[name] = written


def _tools(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise reporter.invalid(f"the field {name!r} is no list")
    members[name] = [_tool(f"{name}[{place}]", tool, reporter) for place, tool in enumerate(value)]


def _tool(path: str, tool: Any, reporter: Reporter) -> Any:
    """A function as Mistral takes it: without arguments it gets the empty schema, as ``parameters`` is required."""
    problem = ""
    if not isinstance(tool, Mapping):
        try:
            tool = tool_of(tool, path)
        except ConfigError as exc:
            problem = exc.message
    if problem:
        raise reporter.invalid(problem)
    if tool.get("type", "function") != "function":
        if tool["type"] == "custom":
            raise reporter.unsupported(f"{path}.type", "tools are functions; Mistral has none with free-form input")
        if is_served_tool(tool):
            raise reporter.unsupported(f"{path}.type", "only Anthropic's servers have this tool")
        return tool  # Mistral's own: web_search, code_interpreter …
    tool = _closed(path, plain_tool(path, tool, reporter), frozenset({"type", "function"}), reporter)
    function = _closed(f"{path}.function", tool.get("function"), _FUNCTION, reporter)
    function.setdefault("parameters", {"type": "object", "properties": {}})
    return {**tool, "function": function}


def _tool_choice(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """A word, or one function by its name. OpenAI's ``allowed_tools`` and ``custom`` have no equal here."""
    if isinstance(value, str) and value in _CHOICES:
        members[name] = value
        return
    function = value.get("function") if isinstance(value, Mapping) and value.get("type") == "function" else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise reporter.unsupported(
            name, 'it is auto, none, any, required, or {"type": "function", "function": {"name": …}}'
        )
    members[name] = {"type": "function", "function": {"name": function["name"]}}


def _prediction(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """OpenAI also takes a list of text parts; Mistral takes text alone."""
    if isinstance(value, Mapping) and isinstance(parts := value.get("content"), (list, tuple)):
        if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
            raise reporter.unsupported(name, "its content is text")
        value = {**value, "content": message_text(parts)}
    members[name] = _closed(name, value, frozenset({"type", "content"}), reporter)


def _service_tier(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if value == "default":  # OpenAI's word for the same
        value = "standard_only"
    if not isinstance(value, str) or value not in _TIERS:
        raise reporter.unsupported(name, "it is auto, standard_only or default")
    members[name] = value


# --- the two requests

_NEITHER: Final[Mapping[str, Writer]] = {
    "audio": refuse(),
    "function_call": refuse("auto"),
    "functions": refuse([]),
    "logit_bias": refuse({}),
    "modalities": refuse(["text"]),
    "verbosity": refuse("medium"),
    "web_search_options": refuse(),
}
_WITHOUT_EFFECT: Final = (
    "prompt_cache_retention",
    "safety_identifier",
    "store",
    "stream_options",
    "user",
)
_BOTH: Final[Mapping[str, Writer | None]] = {
    "max_completion_tokens": rename("max_tokens"),
    "max_tokens": same,
    "metadata": None,
    "min_tokens": None,
    "model": model_name,
    "prompt_cache_key": None,
    "random_seed": same,
    "seed": rename("random_seed"),
    "stop": None,
    "stream": stream_flag,
    "temperature": None,
    "top_p": None,
    **dict.fromkeys(_WITHOUT_EFFECT, leave_out),
}
CHAT: Final[Mapping[str, Writer | None]] = {
    **_BOTH,
    **_NEITHER,
    **BESIDE_CHAT,
    "frequency_penalty": None,
    "guardrails": None,
    "logprobs": None,
    "messages": write_messages,
    "n": None,
    "parallel_tool_calls": None,
    "prediction": _prediction,
    "presence_penalty": None,
    "prompt_logprobs": None,
    "prompt_mode": None,
    "reasoning_effort": None,
    "repetition_penalty": None,
    "response_format": _response_format,
    "safe_prompt": None,
    "service_tier": _service_tier,
    "tool_choice": _tool_choice,
    "tools": _tools,
    "top_k": None,
    "top_logprobs": None,
    "top_prompt_logprobs": None,
}
FIM: Final[Mapping[str, Writer | None]] = {**_BOTH, "prompt": None, "suffix": None}


def _limited(members: JsonObject, extra: Mapping[str, Any], max_output: int | None) -> Payload:
    """Merge the extra fields and hold the output limit, over them too."""
    if extra:
        members.update(extra)
    stated: Any = members.get("max_tokens")
    limit: int | None = stated if type(stated) is int else None
    if max_output is not None and (limit is None or limit > max_output):
        members["max_tokens"] = limit = max_output
    choices: Any = members.get("n", 1)
    return Payload(members, limit * choices if limit is not None and type(choices) is int else None)


def write_chat(request: Request, max_output: int | None, reporter: Reporter) -> Payload:
    """A chat request.

    Raises:
        BadRequestError: It can not be put into Mistral's shape; names the field.
    """
    members, extra = write_members(CHAT, "messages", request, reporter)
    return _limited(members, extra, max_output)


def write_fim(request: Request, max_output: int | None, reporter: Reporter) -> Payload:
    """A fill-in-the-middle request.

    Raises:
        BadRequestError: It can not be put into Mistral's shape; names the field.
    """
    members, extra = write_members(FIM, "prompt", request, reporter)
    return _limited(members, extra, max_output)


_LIMITS: Final = ("max_tokens", "max_completion_tokens")


def continued_chat(request: Request, text: str, tokens: int) -> Request | None:
    """The request that asks for the rest of an answer: the same conversation, and the text as a prefix to go on from.

    None where the text alone does not say how to go on (tools, JSON, log probabilities, several choices, reasoning),
    and where the caller has given a prefix of their own.

    Source:
        https://docs.mistral.ai/capabilities/completion/prefix
    """
    body = request.body
    if request.model.startswith("magistral") or body.get("extra_body"):
        return None
    if any(
        body.get(name)
        for name in ("tools", "logprobs", "top_logprobs", "prompt_logprobs", "prompt_mode", "thinking", "output_config")
    ):
        return None
    if body.get("n") not in (None, 1) or body.get("reasoning_effort") not in (None, "none"):
        return None
    wanted = body.get("response_format")
    if wanted is not None and not (isinstance(wanted, Mapping) and wanted.get("type") == "text"):
        return None
    messages = body.get("messages")
    if not isinstance(messages, Sequence) or not messages:
        return None
    last = messages[-1]
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        return None
    limits = {name: max(1, limit - tokens) for name in _LIMITS if type(limit := body.get(name)) is int}
    return request.with_body(messages=[*messages, {"role": "assistant", "content": text, "prefix": True}], **limits)


def continued_responses(request: Request, text: str, tokens: int, reporter: Reporter) -> Request | None:
    """As ``continued_chat``, of a Responses request: the rest is asked for as chat."""
    return continued_chat(chat_request(request, CHAT.keys(), reporter), text, tokens)


def write_responses(request: Request, max_output: int | None, reporter: Reporter) -> Payload:
    """A Responses request, as chat: Mistral documents no Responses endpoint.

    Raises:
        BadRequestError: It can not be put into Mistral's shape; names the field.

    Source:
        https://docs.mistral.ai/api lists the endpoints.
    """
    return write_chat(chat_request(request, CHAT.keys(), reporter), max_output, reporter)
