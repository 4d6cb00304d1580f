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
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.errors import ConfigError
from bifrost_core.structured import response_format_of
from bifrost_core.types import JsonObject, Request, ToolCall, message_text

from ._adapter import Payload
from ._chat import call_id, real_id
from ._mistral_members import Writer, leave_out, model_name, refuse, rename, same, stream_flag, write_members
from ._reporter import Reporter

__all__ = ["continued_chat", "write_chat", "write_fim", "write_messages"]

_CALL_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")
_PLAIN_ROLES: Final = frozenset({"system", "user"})
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "system": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset({"role", "content", "tool_calls", "prefix"}),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
}
# Members of a message that say nothing to the model.
_SILENT_MEMBERS: Final = frozenset({"name", "metadata", "annotations"})


# --- members of the body


def _response_format(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if isinstance(value, Mapping):
        members[name] = value
        return
    problem = ""
    try:
        members[name] = response_format_of(value)
    except ConfigError as exc:
        problem = exc.message
    if problem:
        raise reporter.invalid(problem)


def _tools(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Functions without arguments get the empty schema: ``parameters`` is required."""
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise reporter.invalid(f"the field {name!r} is no list")
    tools: list[Any] = []
    for tool in value:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping) and function.get("parameters") is None:
            tool = {**tool, "function": {**function, "parameters": {"type": "object", "properties": {}}}}  # noqa: PLW2901 # the same tool, completed
        tools.append(tool)
    members[name] = tools


def _prediction(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """OpenAI also takes a list of text parts; Mistral takes text alone."""
    if isinstance(value, Mapping) and isinstance(parts := value.get("content"), (list, tuple)):
        if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
            raise reporter.unsupported(name, "its content is text")
        value = {**value, "content": message_text(parts)}
    members[name] = value


def _service_tier(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    members[name] = "standard_only" if value == "default" else value  # OpenAI's word for the same


# --- messages


def write_messages(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Write a conversation: roles and parts in Mistral's words, ids of tool calls in its form.

    Raises:
        BadRequestError: A message can not be sent; names it.
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise reporter.invalid(f"the field {name!r} is no list")
    written: list[Any] = []
    waiting: list[str] = []  # ids that were made for calls without one, until a result takes them
    for place, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise reporter.invalid(f"messages[{place}] is no object")
        if len(message) == 2 and message.get("role") in _PLAIN_ROLES and isinstance(message.get("content"), str):
            written.append(message)
        else:
            written.append(_message(place, message, waiting, reporter))
    members[name] = written


def _message(  # noqa: C901, PLR0912 # one branch per member and role, in the order of the table
    place: int, message: Mapping[str, Any], waiting: list[str], reporter: Reporter
) -> JsonObject:
    role = message.get("role")
    if role == "developer":
        role = "system"
    allowed = _MEMBERS.get(role) if isinstance(role, str) else None
    if allowed is None:
        raise reporter.unsupported(f"messages[{place}].role", "it is system, developer, user, assistant or tool")
    written: JsonObject = {"role": role}
    reasoning = refusal = ""
    for name, value in message.items():
        if name == "role":
            continue
        if name == "content":
            written[name] = _content(place, value, reporter)
        elif name == "tool_calls" and name in allowed:
            if value:
                written[name] = _tool_calls(place, value, waiting, reporter)
        elif name == "tool_call_id" and name in allowed:
            if value is not None:
                written[name] = _answered(value, waiting, f"messages[{place}].tool_call_id", reporter)
        elif value is None:
            continue
        elif name in allowed:
            written[name] = value
        elif name in _SILENT_MEMBERS or value in ([], {}, ""):
            reporter.note(f"the member {name!r} of messages, which Mistral refuses, is left out")
        elif role == "assistant" and name in {"reasoning_content", "reasoning"} and isinstance(value, str):
            reasoning = value
        elif role == "assistant" and name == "refusal" and isinstance(value, str):
            refusal = value
        else:
            raise reporter.unsupported(f"messages[{place}].{name}", "a message has no such member")
    if refusal and not written.get("content"):
        written["content"] = refusal
    if reasoning:
        written["content"] = _with_thinking(written.get("content"), reasoning)
    return written


def _with_thinking(content: Any, reasoning: str) -> Any:
    """The content with what the model thought in front, as Mistral writes it; unless it is there already."""
    parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
    if any(isinstance(part, Mapping) and part.get("type") == "thinking" for part in parts):
        return content
    if parts and isinstance(parts[0], Mapping) and parts[0].get("text") == "":
        parts = parts[1:]
    return [{"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}, *parts]


def _content(place: int, content: Any, reporter: Reporter) -> Any:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise reporter.invalid(f"messages[{place}].content is neither text nor a list of parts")
    return [_part(f"messages[{place}].content[{at}]", part, reporter) for at, part in enumerate(content)]


def _part(path: str, part: Any, reporter: Reporter) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise reporter.invalid(f"{path} is neither text nor an object")
    kind = part.get("type")
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal") or ""}
    if kind != "file" or not isinstance(file := part.get("file"), Mapping):
        return part
    # OpenAI's files: by id, or as a data URL with a name.
    if file.get("file_id"):
        return {"type": "file", "file_id": file["file_id"]}
    if not file.get("file_data"):
        raise reporter.unsupported(f"{path}.file", "it has neither file_id nor file_data")
    document: JsonObject = {"type": "document_url", "document_url": file["file_data"]}
    if file.get("filename"):
        document["document_name"] = file["filename"]
    return document


def _wire_id(known: str) -> str:
    """The id in Mistral's form: as it is where it has that form, else one made of it, always the same."""
    return known if _CALL_ID.fullmatch(known) else call_id(known)


def _tool_calls(place: int, calls: Any, waiting: list[str], reporter: Reporter) -> list[Any]:
    path = f"messages[{place}].tool_calls"
    if not isinstance(calls, Sequence) or isinstance(calls, (str, bytes)):
        raise reporter.invalid(f"{path} is no list")
    written: list[Any] = []
    for at, given in enumerate(calls):
        call = given.to_openai() if isinstance(given, ToolCall) else given
        if not isinstance(call, Mapping):
            raise reporter.invalid(f"{path}[{at}] is no object")
        known = real_id(call.get("id"))
        if known is None:
            made = call_id(f"{place}/{at}")
            waiting.append(made)
        else:
            made = _wire_id(known)
        written.append(call if made == known else {**call, "id": made})
    return written


def _answered(value: Any, waiting: list[str], path: str, reporter: Reporter) -> str:
    if not isinstance(value, str):
        raise reporter.invalid(f"{path} is no text")
    known = real_id(value)
    if known is not None:
        return _wire_id(known)
    return waiting.pop(0) if waiting else call_id(path)


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
    "tool_choice": None,
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
    if any(body.get(name) for name in ("tools", "logprobs", "top_logprobs", "prompt_logprobs", "prompt_mode")):
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
