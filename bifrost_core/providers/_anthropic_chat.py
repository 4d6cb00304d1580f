"""Chat requests as Anthropic's messages: every member sent, renamed, left out where it says nothing, or refused by name.

Source:
    https://platform.claude.com/docs/en/api/messages/create (members),
    https://platform.claude.com/docs/en/api/versioning (what API version 2026-10-21 has taken out),
    https://platform.claude.com/docs/en/build-with-claude/structured-outputs,
    https://platform.claude.com/docs/en/build-with-claude/effort and
    https://platform.claude.com/docs/en/build-with-claude/thinking.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bifrost_core.errors import ConfigError
from bifrost_core.structured import response_format_of
from bifrost_core.tools import tool_of
from bifrost_core.types import JsonObject, Request

from ._adapter import Payload
from ._anthropic_families import DEFAULT_OUTPUT, Family, family_of
from ._anthropic_messages import write_conversation
from ._members import Writer, leave_out, model_name, refuse, rename, same, stream_flag, write_members
from ._reporter import Reporter
from ._responses import chat_request

__all__ = ["beta_names", "continued_chat", "continued_responses", "write_chat", "write_responses"]

_LEAST_BUDGET: Final = 1_024
_HIDDEN_TOKENS: Final = 1_024
"""Tokens by which the instructions for tools and formats, which the provider adds unseen and charges, may outweigh the
JSON around them: https://platform.claude.com/docs/en/about-claude/pricing names at most 804 for tools."""

_EFFORTS: Final = frozenset({"low", "medium", "high", "xhigh", "max"})
_BETA: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TIERS: Final = frozenset({"auto", "standard_only"})
_FUNCTION: Final = frozenset({"name", "description", "parameters", "strict"})
_BESIDE_FUNCTION: Final = (
    "cache_control",
    "defer_loading",
    "input_examples",
    "allowed_callers",
    "eager_input_streaming",
)
_JSON_SCHEMA: Final = frozenset({"type", "name", "description", "strict", "schema"})  # it is always strict
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any", "any": "any"}

# --- members of the body


def _user(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """OpenAI's two names for whoever asks; Anthropic has one place for both."""
    metadata = members.setdefault("metadata", {})
    if metadata.setdefault("user_id", value) != value:
        reporter.note(f"the field {name!r} is left out, as another names the user")


def _metadata(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Anthropic's own has the user alone; OpenAI's holds labels, which say nothing to the model."""
    if not isinstance(value, Mapping):
        raise reporter.invalid(f"the field {name!r} is no object")
    for label in value:
        if label != "user_id":
            reporter.note("labels in metadata, which Anthropic refuses, are left out")
    if value.get("user_id") is not None:
        members[name] = {**members.get(name, {}), "user_id": value["user_id"]}


def _stop(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    rename("stop_sequences")(members, name, [value] if isinstance(value, str) else value, reporter)


def _zero(harmless: float) -> Writer:
    """A writer for a number that Anthropic has no field for; ``harmless`` asks for nothing."""
    refused = refuse()

    def write(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
        is_harmless = type(value) in (int, float) and value == harmless
        refused(members, name, None if is_harmless else value, reporter)

    return write


def _temperature(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if type(value) in (int, float) and not 0 <= value <= 1:
        raise reporter.unsupported(name, "it is from 0 to 1 here")
    members[name] = value


def _effort(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """How hard the model thinks, and whether at all; the family decides how that is said."""
    family = family_of(members["model"])
    if value == "none":
        if family.thinking == "always":
            raise reporter.unsupported(name, "this model always thinks; 'low' is the least effort")
        if family.thinking == "on":
            members.setdefault("thinking", {"type": family.quiet})
        return
    if not isinstance(value, str) or value not in _EFFORTS:
        raise reporter.unsupported(name, "it is none, low, medium, high, xhigh or max")
    if not family.effort:
        raise reporter.unsupported(
            name, 'this model takes no effort; pass thinking={"type": "enabled", "budget_tokens": …} (1024 or more)'
        )
    if family.thinking == "off":
        members.setdefault("thinking", {"type": "adaptive"})
    _configure(members, "effort", value, name, reporter)


def _configure(members: JsonObject, member: str, value: Any, name: str, reporter: Reporter) -> None:
    """A member of ``output_config``, which may be given by itself too, if it says the same."""
    config = members.get("output_config", {})
    if config.get(member, value) != value:
        raise reporter.unsupported(
            name, f"it is output_config.{member} here, which has another value; give one of them"
        )
    members["output_config"] = {**config, member: value}


def _output_config(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not isinstance(value, Mapping):
        raise reporter.invalid(f"the field {name!r} is no object")
    for member, given in value.items():
        if given is not None:
            _configure(members, member, given, f"{name}.{member}", reporter)


def _thinking(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not isinstance(value, Mapping):
        raise reporter.invalid(f"the field {name!r} is no object")
    members[name] = dict(value)


def _response_format(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    problem = ""
    if not isinstance(value, Mapping):
        try:
            value = response_format_of(value)
        except ConfigError as exc:
            problem = exc.message
    if problem:
        raise reporter.invalid(problem)
    kind = value.get("type", "text")
    if kind == "text":
        return
    if kind != "json_schema":
        raise reporter.unsupported(f"{name}.type", "Anthropic writes JSON to a schema alone; pass one (json_schema)")
    given = value.get("json_schema", value)  # Anthropic's own form has the schema beside the type
    schema = given.get("schema") if isinstance(given, Mapping) else None
    if not isinstance(schema, Mapping):
        raise reporter.invalid(f"{name}.json_schema.schema is no object")
    for member, what in given.items():
        if what is not None and member not in _JSON_SCHEMA:
            raise reporter.unsupported(f"{name}.json_schema.{member}", "it has no such member")
    if given.get("description") is not None:
        schema = {"description": given["description"], **schema}
    _configure(members, "format", {"type": "json_schema", "schema": schema}, name, reporter)


def _betas(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    """Names of beta features for this request: they go into a header."""
    if beta_names(value) is None:
        raise reporter.invalid(f"the field {name!r} is no list of names of beta features")


def beta_names(given: Any) -> tuple[str, ...] | None:
    """The names in a list of beta features, or None where it is none."""
    if isinstance(given, str):
        given = (given,)
    if not isinstance(given, Iterable) or isinstance(given, (bytes, Mapping)):
        return None
    names = tuple(given)
    return names if all(isinstance(name, str) and _BETA.fullmatch(name) for name in names) else None


def _service_tier(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if value == "default":  # OpenAI's word for the same
        value = "standard_only"
    if not isinstance(value, str) or value not in _TIERS:
        raise reporter.unsupported(name, "it is auto, standard_only or default")
    members[name] = value


# --- tools


def _tools(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise reporter.invalid(f"the field {name!r} is no list")
    if value:
        members[name] = [_tool(f"{name}[{place}]", tool, reporter) for place, tool in enumerate(value)]


def _tool(path: str, tool: Any, reporter: Reporter) -> Any:
    """A function as Anthropic takes it; its own tools, with a schema or run by its servers, go as they are."""
    problem = ""
    if isinstance(tool, Mapping) and (
        "input_schema" in tool or (tool.get("type") or "function") not in ("function", "custom")
    ):
        return tool
    if not isinstance(tool, Mapping) or "function" not in tool:
        try:
            tool = tool_of(tool, path)
        except ConfigError as exc:
            problem = exc.message
    if problem:
        raise reporter.invalid(problem)
    function = tool.get("function")
    if (tool.get("type") or "function") != "function":
        raise reporter.unsupported(f"{path}.type", "tools have a schema; Anthropic has none with free-form input")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise reporter.invalid(f"{path} has no function with a name")
    for member, given in function.items():
        if given is not None and member not in _FUNCTION:
            raise reporter.unsupported(f"{path}.function.{member}", "it has no such member")
    written: JsonObject = {"name": function["name"]}
    if function.get("description") is not None:
        written["description"] = function["description"]
    written["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
    if function.get("strict") is not None:
        written["strict"] = function["strict"]
    for member, given in tool.items():
        if given is None or member in ("type", "function"):
            continue
        if member not in _BESIDE_FUNCTION:
            raise reporter.unsupported(f"{path}.{member}", "it has no such member")
        written[member] = given
    return written


def _tool_choice(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """A word, or one function by its name; Anthropic's own form as it is. ``allowed_tools`` has no equal here."""
    choice: JsonObject | None = None
    if isinstance(value, str) and value in _CHOICES:
        choice = {"type": _CHOICES[value]}
    elif isinstance(value, Mapping):
        function = value.get("function")
        if value.get("type") in ("auto", "any", "tool", "none"):
            choice = dict(value)
        elif (
            value.get("type") == "function" and isinstance(function, Mapping) and isinstance(function.get("name"), str)
        ):
            choice = {"type": "tool", "name": function["name"]}
    if choice is None:
        raise reporter.unsupported(
            name, 'it is auto, none, required, any, or {"type": "function", "function": {"name": …}}'
        )
    members[name] = {**members.get(name, {}), **choice}


def _parallel(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not isinstance(value, bool):
        raise reporter.invalid(f"the field {name!r} is a boolean")
    if not value:
        members["tool_choice"] = {**members.get("tool_choice", {}), "disable_parallel_tool_use": True}


def _chosen(members: JsonObject) -> None:
    """The choice of tools in its last form: it has a type, and says nothing of parallel calls where there are none."""
    choice = members.get("tool_choice")
    if choice is None:
        return
    if len(choice) == 1 and "type" not in choice and not members.get("tools"):
        del members["tool_choice"]  # nothing is called anyway
        return
    choice = {"type": "auto", **choice}
    if choice["type"] == "none":
        choice.pop("disable_parallel_tool_use", None)
    members["tool_choice"] = choice


# --- the request

_REFUSED: Final[Mapping[str, Writer]] = {
    "audio": refuse(),
    "frequency_penalty": _zero(0),
    "function_call": refuse("auto"),
    "functions": refuse([]),
    "logit_bias": refuse({}),
    "logprobs": refuse(False),
    "min_tokens": refuse(0),
    "modalities": refuse(["text"]),
    "moderation": refuse(),
    "n": refuse(1),
    "prediction": refuse(),
    "presence_penalty": _zero(0),
    "prompt_mode": refuse(),
    "random_seed": refuse(),
    "repetition_penalty": _zero(1),
    "safe_prompt": refuse(False),
    "seed": refuse(),
    "top_logprobs": refuse(0),
    "verbosity": refuse("medium"),
    "web_search_options": refuse(),
}
_SAMPLING: Final = ("temperature", "top_k", "top_p")
_WITHOUT_EFFECT: Final = (
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "store",
    "stream_options",
)
_NATIVE: Final = (
    "billing_policy",
    "cache_control",
    "compaction",
    "container",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "inference_geo",
    "mcp_servers",
    "messages",
    "speed",
    "system",
    "thread",
)
CHAT: Final[Mapping[str, Writer | None]] = {
    **_REFUSED,
    **dict.fromkeys(_NATIVE),
    **dict.fromkeys(_WITHOUT_EFFECT, leave_out),
    "betas": _betas,
    "max_completion_tokens": rename("max_tokens"),
    "max_tokens": same,
    "metadata": _metadata,
    "model": model_name,
    "output_config": _output_config,
    "parallel_tool_calls": _parallel,
    "reasoning_effort": _effort,
    "response_format": _response_format,
    "safety_identifier": _user,
    "service_tier": _service_tier,
    "stop": _stop,
    "stop_sequences": same,
    "stream": stream_flag,
    "temperature": _temperature,
    "thinking": _thinking,
    "tool_choice": _tool_choice,
    "tools": _tools,
    "top_k": None,
    "top_p": None,
    "user": _user,
}
_WITHOUT_SAMPLING: Final[Mapping[str, Writer | None]] = {**CHAT, **dict.fromkeys(_SAMPLING, refuse())}


def write_chat(
    request: Request, max_output: int | None, reporter: Reporter, *, samples: bool = True, beta: tuple[str, ...] = ()
) -> Payload:
    """A chat request.

    Args:
        request: In OpenAI's shape, with Anthropic's own members where that has none.
        max_output: Output limit in tokens to send instead of a higher one.
        reporter: Of the provider.
        samples: Whether the version of the API has ``temperature``, ``top_p`` and ``top_k``.
        beta: Names of the beta features that are on for every request.

    Raises:
        BadRequestError: It can not be put into Anthropic's shape; names the field.
    """
    members, extra = write_members(CHAT if samples else _WITHOUT_SAMPLING, "messages", request, reporter)
    family = family_of(request.model)
    _chosen(members)
    if "messages" in members:
        system, members["messages"] = write_conversation(
            members["messages"], members.pop("system", None), family, reporter
        )
        if system is not None:
            members = {"model": members.pop("model"), "system": system, **members}
    members.update(extra)
    output = _limit(members, family, max_output, reporter)
    config: Any = members.get("output_config")
    is_instructed = members.get("tools") or (isinstance(config, Mapping) and config.get("format"))
    betas = dict.fromkeys([*beta, *(beta_names(request.body.get("betas") or ()) or ())])
    return Payload(
        members,
        output,
        hidden_tokens=_HIDDEN_TOKENS if is_instructed else 0,
        headers=((b"anthropic-beta", ",".join(betas).encode()),) if len(betas) > len(beta) else (),
    )


def _limit(members: JsonObject, family: Family, max_output: int | None, reporter: Reporter) -> int | None:
    """Hold the output limit, which Anthropic requires, over ``extra_body`` too; returns what is sent.

    Without one it is the greatest that the model has, 4,096 where that is not known, and thinking within a
    stated budget comes on top. A lowered limit lowers such a budget, which has to be less.
    """
    thinking: Any = members.get("thinking")
    budget: Any = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    stated: Any = members.get("max_tokens")
    if stated is None:
        stated = family.output or DEFAULT_OUTPUT + (budget if type(budget) is int else 0)
        members["max_tokens"] = stated
    if type(stated) is not int:
        return None  # the server says what is wrong with it
    if max_output is None or stated <= max_output:
        return stated
    members["max_tokens"] = max_output
    if type(budget) is int and budget >= max_output:
        if max_output <= _LEAST_BUDGET:
            raise reporter.invalid(
                f"thinking.budget_tokens is at least {_LEAST_BUDGET} and less than the output limit, "
                f"which is {max_output} for this call"
            )
        members["thinking"] = {**thinking, "budget_tokens": max_output - 1}
    return max_output


# --- an answer that broke off

_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_MORE_THAN_TEXT: Final = ("compaction", "context_management", "extra_body", "mcp_servers", "thread", "tools")


def continued_chat(request: Request, text: str, tokens: int) -> Request | None:
    """The request that asks for the rest of an answer: the same conversation, and the text as the assistant's last turn.

    None on models that take no such turn, which are all since Claude 4.6; where the text alone does not say how to
    go on (tools, JSON, thinking); where it ends in white space, with which that turn may not end; and where the
    caller has given such a turn of their own.

    Source:
        https://platform.claude.com/docs/en/api/errors (prefill is not supported).
    """
    body = request.body
    if not family_of(request.model).prefill or text != text.rstrip() or any(body.get(name) for name in _MORE_THAN_TEXT):
        return None
    thinking, config = body.get("thinking"), body.get("output_config")
    if thinking is not None and not (isinstance(thinking, Mapping) and thinking.get("type") == "disabled"):
        return None
    if config or body.get("reasoning_effort") not in (None, "none"):
        return None
    wanted = body.get("response_format")
    if wanted is not None and not (isinstance(wanted, Mapping) and wanted.get("type") == "text"):
        return None
    messages = body.get("messages")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return None
    last = messages[-1]
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        return None
    limits = {name: max(1, limit - tokens) for name in _LIMITS if type(limit := body.get(name)) is int}
    return request.with_body(messages=[*messages, {"role": "assistant", "content": text}], **limits)


def continued_responses(request: Request, text: str, tokens: int, reporter: Reporter) -> Request | None:
    """As ``continued_chat``, of a Responses request: the rest is asked for as chat."""
    return continued_chat(chat_request(request, CHAT.keys(), reporter), text, tokens)


def write_responses(
    request: Request, max_output: int | None, reporter: Reporter, *, samples: bool = True, beta: tuple[str, ...] = ()
) -> Payload:
    """A Responses request, as chat: Anthropic has no Responses endpoint.

    Raises:
        BadRequestError: It can not be put into Anthropic's shape; names the field.
    """
    chat = chat_request(request, CHAT.keys(), reporter)
    return write_chat(chat, max_output, reporter, samples=samples, beta=beta)
