"""Messages in Mistral's shape: roles, parts of a content, tool calls and the ids that tie results to them.

Each of these objects is closed at Mistral: a member that it does not know is answered with 422. So every
member is sent, rewritten, left out where it says nothing to the model (noted once), or refused by its path.

Source:
    https://docs.mistral.ai/api/endpoint/chat; the OpenAI forms are those of
    https://platform.openai.com/docs/api-reference/chat/create; what real servers refuse (422
    ``extra_forbidden``, 400 codes 3230 and 3280) is quoted in public reports.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.types import JsonObject, ToolCall

from ._chat import call_id, real_id
from ._reporter import Reporter

__all__ = ["write_messages"]

_CALL_ID: Final = re.compile(r"[a-zA-Z0-9]{9}")
_PLAIN_ROLES: Final = frozenset({"system", "user"})
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "system": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset({"role", "content", "tool_calls", "prefix"}),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
}
_PARTS: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset({"type", "text"}),
    "image_url": frozenset({"type", "image_url"}),
    "document_url": frozenset({"type", "document_url", "document_name"}),
    "file": frozenset({"type", "file_id"}),
    "input_audio": frozenset({"type", "input_audio"}),
    "reference": frozenset({"type", "reference_ids"}),
    "thinking": frozenset({"type", "thinking", "signature", "closed"}),
}
_OPEN_PARTS: Final = frozenset({"resource", "resource_link", "tool_reference"})  # known to Mistral's client alone
_DETAILS: Final = frozenset({"low", "auto", "high"})
_BESIDE: Final = frozenset({"reasoning_content", "reasoning", "refusal"})  # of an assistant, as others write it
# Members that say nothing to the model.
# (``is_error``: what went wrong is told by the result's content.)
_SILENT_MEMBERS: Final = frozenset(
    {"name", "metadata", "annotations", "provider_specific_fields", "cache_control", "is_error"}
)
_SILENT_PART_MEMBERS: Final = frozenset({"cache_control", "annotations", "citations", "provider_specific_fields"})
_SILENT_CALL_MEMBERS: Final = frozenset({"extra_content", "provider_specific_fields", "cache_control"})
_DIRECT: Final = {"type": "direct"}  # Anthropic's word for a call that the model itself has made


def write_messages(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Write a conversation as Mistral takes it (a ``Writer``); what is given is left as it is.

    Raises:
        BadRequestError: It is no list of messages; ``UnsupportedParameterError`` where one has a form or a
            member that Mistral does not take, by its path (``messages[2].content[0].type``).
    """
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise reporter.invalid(f"the field {name!r} is no list")
    written: list[Any] = []
    waiting: list[str] = []  # ids that were made for calls without one, until a result takes them
    for place, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise reporter.invalid(f"messages[{place}] is no object")
        role = message.get("role")
        if len(message) == 2 and role in _PLAIN_ROLES and isinstance(message.get("content"), str):
            written.append(message)
        else:
            written.append(_message(f"messages[{place}]", message, waiting, reporter))
    members[name] = written


def _message(path: str, message: Mapping[str, Any], waiting: list[str], reporter: Reporter) -> JsonObject:
    role = message.get("role")
    if role == "developer":
        role = "system"
    allowed = _MEMBERS.get(role) if isinstance(role, str) else None
    if allowed is None:
        raise reporter.unsupported(f"{path}.role", "it is system, developer, user, assistant or tool")
    written: JsonObject = {"role": role}
    told: dict[str, str] = {}  # what stands beside the content and belongs into it
    for name, value in message.items():
        if name == "role":
            continue
        if name == "content":
            written[name] = _content(path, _without_calls(message) if message.get("tool_calls") else value, reporter)
        elif value is None:
            continue
        elif name not in allowed:
            if role == "assistant" and name in _BESIDE and isinstance(value, str):
                told[name] = value
            else:
                _leave_out(f"{path}.{name}", name, value, _SILENT_MEMBERS, reporter)
        elif name == "tool_calls":
            if value:
                written[name] = _tool_calls(f"{path}.{name}", value, waiting, reporter)
        elif name == "tool_call_id":
            written[name] = _answered(f"{path}.{name}", value, waiting, reporter)
        else:
            written[name] = value
    if told.get("refusal") and not written.get("content"):
        written["content"] = told["refusal"]
    if reasoning := told.get("reasoning_content") or told.get("reasoning"):
        written["content"] = _with_thinking(written.get("content"), reasoning)
    return written


def _without_calls(message: Mapping[str, Any]) -> Any:
    """The content without calls in Anthropic's form, which stand among its parts as well as beside it."""
    content = message.get("content")
    if isinstance(content, str) or not isinstance(content, Sequence):
        return content
    return [part for part in content if not (isinstance(part, Mapping) and part.get("type") == "tool_use")]


def _leave_out(path: str, name: str, value: Any, silent: frozenset[str], reporter: Reporter) -> None:
    """Note a member that says nothing to the model; refuse any other."""
    if name not in silent and value not in ([], {}, ""):
        raise reporter.unsupported(path, "Mistral has no such member there")
    reporter.note(f"the member {name!r} in messages, which Mistral refuses, is left out")


def _with_thinking(content: Any, reasoning: str) -> Any:
    """The content with what the model thought in front, as Mistral writes it; unless it is there already."""
    parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
    if any(part.get("type") == "thinking" for part in parts):
        return content
    if parts and parts[0].get("text") == "":
        parts = parts[1:]
    return [{"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}, *parts]


# --- parts of a content


def _content(path: str, content: Any, reporter: Reporter) -> Any:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise reporter.invalid(f"{path}.content is neither text nor a list of parts")
    written: list[Any] = []
    for at, part in enumerate(content):
        made = _part(f"{path}.content[{at}]", part, reporter)
        if made is not None:
            written.append(made)
    return written


def _part(path: str, part: Any, reporter: Reporter) -> Any:
    """One part as Mistral takes it; None where it holds nothing that could be sent."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise reporter.invalid(f"{path} is neither text nor an object")
    kind = part.get("type", "text" if "text" in part else None)
    if not isinstance(kind, str):
        raise reporter.invalid(f"{path}.type is no text")
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal") or ""}
    if kind == "redacted_thinking":  # sealed by the provider that wrote it: nobody else can read it
        reporter.note("sealed thoughts of another provider are left out")
        return None
    if kind in _OPEN_PARTS:
        return part
    if kind == "file" and isinstance(file := part.get("file"), Mapping):
        part = _file(f"{path}.file", file, reporter)
        kind = part["type"]
    allowed = _PARTS.get(kind)
    if allowed is None:
        raise reporter.unsupported(f"{path}.type", f"it is {', '.join(_PARTS)}, or one of OpenAI's refusal and file")
    if part.keys() != allowed:
        part = _members(path, {"type": kind, **part}, allowed, _SILENT_PART_MEMBERS, reporter)
    if kind == "image_url" and isinstance(image := part.get("image_url"), Mapping):
        return {**part, "image_url": _image(f"{path}.image_url", image, reporter)}
    if kind == "thinking" and isinstance(thought := part.get("thinking"), str):
        # Anthropic's form. Its signature proves the thought to its own server only, which alone can read a hidden one.
        if not thought:
            reporter.note("sealed thoughts of another provider are left out")
            return None
        return {"type": "thinking", "thinking": [{"type": "text", "text": thought}]}
    return part


def _members(
    path: str, given: Mapping[str, Any], allowed: frozenset[str], silent: frozenset[str], reporter: Reporter
) -> JsonObject:
    """The members that are set and allowed; others are left out where they are silent, else refused."""
    written: JsonObject = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in allowed:
            written[name] = value
        else:
            _leave_out(f"{path}.{name}", name, value, silent, reporter)
    return written


def _image(path: str, image: Mapping[str, Any], reporter: Reporter) -> JsonObject:
    written = _members(path, image, frozenset({"url", "detail"}), frozenset(), reporter)
    if written.get("detail", "auto") not in _DETAILS:
        raise reporter.unsupported(f"{path}.detail", "it is low, auto or high")
    return written


def _file(path: str, file: Mapping[str, Any], reporter: Reporter) -> JsonObject:
    """OpenAI's files: by id, or as a data URL with a name."""
    if file.get("file_id"):
        return {"type": "file", "file_id": file["file_id"]}
    if not file.get("file_data"):
        raise reporter.unsupported(path, "it has neither file_id nor file_data")
    document: JsonObject = {"type": "document_url", "document_url": file["file_data"]}
    if file.get("filename"):
        document["document_name"] = file["filename"]
    return document


# --- tool calls


def _wire_id(known: str) -> str:
    """The id in Mistral's form: as it is where it has that form, else one made of it, always the same."""
    return known if _CALL_ID.fullmatch(known) else call_id(known)


def _tool_calls(path: str, calls: Any, waiting: list[str], reporter: Reporter) -> list[Any]:
    if not isinstance(calls, Sequence) or isinstance(calls, (str, bytes)):
        raise reporter.invalid(f"{path} is no list")
    written: list[Any] = []
    for at, given in enumerate(calls):
        call = given.to_openai() if isinstance(given, ToolCall) else given
        if not isinstance(call, Mapping):
            raise reporter.invalid(f"{path}[{at}] is no object")
        known = real_id(call.get("id"))
        if known is None:
            made = call_id(f"{path}/{at}")
            waiting.append(made)
        else:
            made = _wire_id(known)
        written.append(_tool_call(f"{path}[{at}]", call, made, reporter))
    return written


def _tool_call(path: str, call: Mapping[str, Any], made: str, reporter: Reporter) -> JsonObject:
    if call.get("type") not in (None, "function"):
        raise reporter.unsupported(f"{path}.type", "calls are of functions")
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise reporter.invalid(f"{path} has no function with a name")
    if call.get("caller") == _DIRECT:
        call = {name: value for name, value in call.items() if name != "caller"}
    whole = {**function, "arguments": "{}" if function.get("arguments") is None else function["arguments"]}
    return {
        **_members(path, call, frozenset({"id", "type", "function", "index"}), _SILENT_CALL_MEMBERS, reporter),
        "id": made,
        "function": _members(
            f"{path}.function", whole, frozenset({"name", "arguments"}), _SILENT_CALL_MEMBERS, reporter
        ),
    }


def _answered(path: str, value: Any, waiting: list[str], reporter: Reporter) -> str:
    if not isinstance(value, str):
        raise reporter.invalid(f"{path} is no text")
    known = real_id(value)
    if known is not None:
        return _wire_id(known)
    return waiting.pop(0) if waiting else call_id(path)
