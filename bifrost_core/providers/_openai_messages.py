"""Messages in OpenAI's shape: what other vendors write differently is rewritten, what has no place is refused by path.

Source:
    https://platform.openai.com/docs/api-reference/chat/create (``messages``); the other forms are those of
    https://docs.mistral.ai/api/endpoint/chat and https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.types import JsonObject, ToolCall

from ._chat import call_id, read_arguments, read_content, real_id
from ._reporter import Reporter

__all__ = ["write_messages", "write_open_messages"]

_MAX_CALL_ID: Final = 40  # "string too long. Expected a string with maximum length 40": public reports
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "developer": frozenset({"role", "content", "name"}),
    "system": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "refusal", "audio", "tool_calls", "function_call"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "function": frozenset({"role", "content", "name"}),
}
_CACHE: Final = "prompt_cache_breakpoint"
_PARTS: Final[Mapping[str, frozenset[str]]] = {
    "text": frozenset({"type", "text", _CACHE}),
    "image_url": frozenset({"type", "image_url", _CACHE}),
    "input_audio": frozenset({"type", "input_audio", _CACHE}),
    "file": frozenset({"type", "file", _CACHE}),
    "refusal": frozenset({"type", "refusal"}),
}
# Members that say nothing to the model, or nothing that their message does not say itself.
_SILENT: Final[Mapping[str, frozenset[str]]] = {
    "assistant": frozenset({"annotations", "metadata", "provider_specific_fields"}),
    "tool": frozenset({"name", "is_error", "metadata"}),
}
_SILENT_PART: Final = frozenset({"cache_control", "annotations", "provider_specific_fields"})
_SILENT_CALL: Final = frozenset({"index", "extra_content", "provider_specific_fields", "cache_control"})
_THOUGHTS: Final = frozenset({"reasoning_content", "reasoning", "reasoning_details"})
_NO_THOUGHTS: Final = (
    "OpenAI's chat has no place for what a model thought; leave it out of the history, or call responses()"
)
_AUDIO: Final = re.compile(r"data:audio/(wav|x-wav|wave|mpeg|mp3);base64,(.+)", re.DOTALL)
_DATA_URL: Final = re.compile(r"data:[^,]*,", re.IGNORECASE)


def _listed(name: str, value: Any, reporter: Reporter) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise reporter.invalid(f"the field {name!r} is no list")
    for place, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise reporter.invalid(f"{name}[{place}] is no object")
    return value


def write_messages(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Write a conversation as OpenAI takes it (a ``Writer``); what is given is left as it is.

    Raises:
        BadRequestError: It is no list of messages; ``UnsupportedParameterError`` where one has a form or a
            member that OpenAI does not take, by its path (``messages[2].content[0].type``).
    """
    ids = _CallIds()
    members[name] = [
        _message(f"{name}[{place}]", message, ids, reporter)
        for place, message in enumerate(_listed(name, value, reporter))
    ]


def write_open_messages(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Write a conversation for a server that has members of its own (a ``Writer``): unknown ones go on as they are.

    Rewritten are Mistral's and Anthropic's parts that have an equal, and thoughts, which such servers take beside
    the content as ``reasoning_content``.

    Raises:
        BadRequestError: It is no list of messages.

    Source:
        https://docs.vllm.ai/en/latest/features/reasoning_outputs.html, https://api-docs.deepseek.com/guides/reasoning_model
    """
    members[name] = [_open_message(message, reporter) for message in _listed(name, value, reporter)]


# --- ids of tool calls


class _CallIds:
    """Ids that tie results to calls: as they are where OpenAI takes them, else others, the same on both ends."""

    def __init__(self) -> None:
        self._waiting: list[str] = []  # made for calls without one, until a result takes them

    def of_call(self, given: Any, path: str) -> str:
        known = real_id(given)
        if known is None:
            known = f"call_{call_id(path)}"
            self._waiting.append(known)
        return _short(known)

    def of_result(self, given: Any, path: str) -> str:
        known = real_id(given)
        if known is None:
            known = self._waiting.pop(0) if self._waiting else f"call_{call_id(path)}"
        return _short(known)


def _short(known: str) -> str:
    if len(known) <= _MAX_CALL_ID:
        return known
    return f"call_{hashlib.blake2b(known.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


# --- messages


def _message(path: str, message: Mapping[str, Any], ids: _CallIds, reporter: Reporter) -> Any:
    role = message.get("role")
    allowed = _MEMBERS.get(role) if isinstance(role, str) else None
    if allowed is None or not isinstance(role, str):
        raise reporter.unsupported(f"{path}.role", f"it is {', '.join(_MEMBERS)}")
    written: JsonObject = {"role": role}
    for name, value in message.items():
        if name == "role":
            continue
        if name == "content":
            written[name] = _content(path, role, value, reporter)
        elif value is None or (name not in allowed and value in ([], {}, "", False)):
            continue
        elif name not in allowed:
            _leave_out(path, name, _SILENT.get(role, frozenset()), reporter)
        elif name == "tool_calls":
            if value:
                written[name] = _tool_calls(f"{path}.{name}", value, ids, reporter)
        elif name == "tool_call_id":
            written[name] = ids.of_result(value, f"{path}.{name}")
        elif name == "audio" and isinstance(value, Mapping):  # an answer's has its sound too, a request's the id alone
            written[name] = {"id": value.get("id")}
        else:
            written[name] = value
    if role == "tool" and "tool_call_id" not in written:
        written["tool_call_id"] = ids.of_result(None, path)
    return written


def _leave_out(path: str, name: str, silent: frozenset[str], reporter: Reporter) -> None:
    """Note a member that says nothing to the model; refuse any other."""
    if name in _THOUGHTS:
        raise reporter.unsupported(f"{path}.{name}", _NO_THOUGHTS)
    if name not in silent:
        raise reporter.unsupported(f"{path}.{name}", "OpenAI has no such member there")
    reporter.note(f"the member {name!r} in messages, which OpenAI does not take, is left out")


def _content(path: str, role: str, content: Any, reporter: Reporter) -> Any:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise reporter.invalid(f"{path}.content is neither text nor a list of parts")
    written: list[Any] = []
    for at, part in enumerate(content):
        made = _part(f"{path}.content[{at}]", role, part, reporter)
        if made is not None:
            written.append(made)
    if not written and role == "assistant":  # it held sealed thoughts alone
        return None
    return written


def _part(path: str, role: str, part: Any, reporter: Reporter) -> Any:
    """One part as OpenAI takes it; None where it holds nothing that it could read."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise reporter.invalid(f"{path} is neither text nor an object")
    kind = part.get("type", "text" if "text" in part else None)
    if kind == "redacted_thinking":  # sealed by the provider that wrote it: nobody else can read it
        reporter.note("sealed thoughts of another provider are left out")
        return None
    if kind == "thinking":
        raise reporter.unsupported(path, _NO_THOUGHTS)
    part = _equal_part(path, {"type": kind, **part}, reporter)
    allowed = _PARTS.get(part["type"]) if isinstance(part["type"], str) else None
    if allowed is None or (part["type"] == "refusal" and role != "assistant"):
        raise reporter.unsupported(f"{path}.type", f"it is {', '.join(_PARTS)} (a refusal of the assistant alone)")
    if part.keys() <= allowed:
        return part
    written: JsonObject = {}
    for name, value in part.items():
        if value is None:
            continue
        if name in allowed:
            written[name] = value
        elif name in _SILENT_PART:
            reporter.note(f"the member {name!r} of a part, which OpenAI does not take, is left out")
        else:
            raise reporter.unsupported(f"{path}.{name}", "OpenAI has no such member there")
    return written


def _equal_part(path: str, part: JsonObject, reporter: Reporter | None) -> JsonObject:
    """A part of another vendor in OpenAI's form, where there is an equal one; any other as it is.

    Args:
        path: Where it stands.
        part: The part.
        reporter: Refuses what has no equal; None: that stays as it is.
    """
    kind = part.get("type")
    if kind == "image_url" and isinstance(url := part.get("image_url"), str):
        return {**part, "image_url": {"url": url}}
    if kind == "input_audio" and isinstance(sound := part.get("input_audio"), str):
        found = _AUDIO.fullmatch(sound)
        if found is not None:
            form = "mp3" if found[1] in {"mpeg", "mp3"} else "wav"
            return {**part, "input_audio": {"data": found[2], "format": form}}
        if reporter is not None:
            raise reporter.unsupported(
                f"{path}.input_audio", 'it is {"data": …, "format": "wav" or "mp3"}, or a data URL of one of these'
            )
    elif kind == "document_url":
        return _file(path, part, reporter)
    elif kind == "file" and "file" not in part and part.get("file_id"):  # Mistral's form
        return {"type": "file", "file": {"file_id": part["file_id"]}}
    return part


def _file(path: str, part: JsonObject, reporter: Reporter | None) -> JsonObject:
    """A document that is a data URL, as a file."""
    url = part.get("document_url")
    if isinstance(url, str) and _DATA_URL.match(url) is not None:
        rest = {name: value for name, value in part.items() if name not in {"type", "document_url", "document_name"}}
        name = part.get("document_name") or "document.pdf"
        return {"type": "file", "file": {"filename": name, "file_data": url}, **rest}
    if reporter is not None:
        raise reporter.unsupported(
            f"{path}.document_url", "OpenAI's chat reads no documents by URL; pass a data URL, or call responses()"
        )
    return part


# --- tool calls


def _tool_calls(path: str, calls: Any, ids: _CallIds, reporter: Reporter) -> list[Any]:
    if not isinstance(calls, Sequence) or isinstance(calls, (str, bytes)):
        raise reporter.invalid(f"{path} is no list")
    return [_tool_call(f"{path}[{at}]", call, ids, reporter) for at, call in enumerate(calls)]


def _tool_call(path: str, given: Any, ids: _CallIds, reporter: Reporter) -> JsonObject:
    call = given.to_openai() if isinstance(given, ToolCall) else given
    if not isinstance(call, Mapping):
        raise reporter.invalid(f"{path} is no object")
    kind = call.get("type") or "function"
    said = call.get(kind) if kind in {"function", "custom"} else None
    if not isinstance(said, Mapping) or not isinstance(said.get("name"), str):
        raise reporter.invalid(f"{path} has no function with a name")
    for name, value in call.items():
        if name in {"id", "type", kind} or value is None:
            continue
        if name not in _SILENT_CALL:
            raise reporter.unsupported(f"{path}.{name}", "OpenAI has no such member there")
    told = "arguments" if kind == "function" else "input"
    arguments = read_arguments(said.get(told))
    if not arguments and kind == "function":
        arguments = "{}"
    return {"id": ids.of_call(call.get("id"), path), "type": kind, kind: {"name": said["name"], told: arguments}}


# --- servers with members of their own


def _open_message(message: Mapping[str, Any], reporter: Reporter) -> Any:
    written: JsonObject = {}
    for name, value in message.items():
        if name == "tool_calls" and isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            written[name] = [call.to_openai() if isinstance(call, ToolCall) else call for call in value]
        else:
            written[name] = value
    content = message.get("content")
    if not isinstance(content, Sequence) or isinstance(content, (str, bytes)):
        return written
    parts: list[Any] = []
    thoughts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "thinking":
            thoughts.append(read_content([part])[1])
        elif kind == "redacted_thinking":
            reporter.note("sealed thoughts of another provider are left out")
        else:
            parts.append(_equal_part("", dict(part), None) if isinstance(part, Mapping) else part)
    written["content"] = parts
    if len(parts) < len(content):
        if len(parts) == 1 and isinstance(parts[0], Mapping) and set(parts[0]) == {"type", "text"}:
            written["content"] = parts[0]["text"]  # many servers take text alone of the assistant
        elif not parts:
            written["content"] = None
        if thoughts and not written.get("reasoning_content"):
            written["reasoning_content"] = "".join(thoughts)
    return written
