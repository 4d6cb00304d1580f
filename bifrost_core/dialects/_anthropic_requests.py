"""Requests for messages as chat requests: Anthropic's members in the shape that all providers read.

What others have no equal for keeps its name, so that Anthropic's own servers get the request as it was written, and
other providers say which member they do not take.

Source:
    https://platform.claude.com/docs/en/api/messages/create,
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls (results come before the rest of
    a turn) and https://platform.claude.com/docs/en/build-with-claude/structured-outputs.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import re
from collections.abc import Mapping
from typing import Any, Final

from bifrost_core.types import JsonObject, message_text

from ._anthropic_blocks import block_at, is_text, part_of, parts_of
from ._bodies import encode, invalid, unsupported

__all__ = ["chat_body", "prefill_of"]

_TURN: Final = frozenset({"role", "content"})
_RESULT: Final = frozenset({"type", "tool_use_id", "content", "is_error"})
_CALL: Final = frozenset({"type", "id", "name", "input"})
_CUSTOM: Final = frozenset({"type", "name", "description", "input_schema", "strict"})
_CHOICES: Final[Mapping[str, str]] = {"auto": "auto", "any": "required", "none": "none"}
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")
# They choose among the workspaces and users of the caller's own account; the accounts here are the Router's.
_ACCOUNT: Final = ("anthropic-workspace-id", "anthropic-user-profile-id")


def chat_body(given: JsonObject, headers: Mapping[str, str]) -> JsonObject:
    """The body of a chat request.

    Args:
        given: Members of the body, without those that are the Router's.
        headers: Names in lower case; ``anthropic-beta`` becomes the member ``betas``.

    Raises:
        CallError: A member has a form that Anthropic does not know; names it.
    """
    for name in _ACCOUNT:
        if headers.get(name):
            raise unsupported(name, "the Router's own keys say whose account it is; leave the header out")
    body: JsonObject = {}
    for name, value in given.items():
        if value is None or name == "system":  # null and absent mean the same
            continue
        if write := _WRITERS.get(name):
            write(body, value)
        else:
            body[name] = value
    body["messages"] = [*_system(given.get("system")), *_conversation(given.get("messages"))]
    if betas := _betas(headers.get("anthropic-beta", ""), given.get("betas")):
        body["betas"] = betas
    return body


def prefill_of(body: Mapping[str, Any]) -> str:
    """The text that the answer goes on from without repeating it; ``""``: none."""
    last = body["messages"][-1]
    return message_text(last["content"]) if last.get("prefix") else ""


def _betas(header: str, given: Any) -> list[str]:
    """Names of betas, each once.

    Source:
        https://platform.claude.com/docs/en/api/beta-headers
    """
    names = [name.strip() for name in header.split(",")]
    if given is not None:
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            raise invalid("'betas' is no list of names")
        names += given
    return list(dict.fromkeys(name for name in names if name))


# --- the conversation


def _system(system: Any) -> list[JsonObject]:
    if system is None or system in ("", []):
        return []
    return [{"role": "system", "content": parts_of("system", system)}]


def _conversation(messages: Any) -> list[JsonObject]:
    if not isinstance(messages, list) or not messages:
        raise invalid("'messages' is no list of messages; write at least one")
    written: list[JsonObject] = []
    for place, message in enumerate(messages):
        path = f"messages[{place}]"
        if not isinstance(message, dict):
            raise invalid(f"{path} is no object")
        role = message.get("role")
        if role == "user":
            written += _user(path, message)
        elif role == "assistant":
            written.append(_assistant(path, message))
        elif role == "system":  # between turns, with members of its own
            written.append({**message, "content": parts_of(f"{path}.content", message.get("content"))})
        else:
            raise invalid(f"{path}.role is user, assistant or system")
    last = written[-1]
    if last["role"] == "assistant" and "tool_calls" not in last and last["content"] and is_text(last["content"]):
        last["prefix"] = True  # Anthropic goes on from the words that an assistant ends on; so Mistral names it
    return written


def _content(path: str, message: JsonObject) -> Any:
    for name, value in message.items():
        if name not in _TURN and value is not None:
            raise unsupported(f"{path}.{name}", "a message has role and content")
    return message.get("content")


def _user(path: str, message: JsonObject) -> list[JsonObject]:
    """A user's turn: results of tools, each a message of its own, then what else there is."""
    content = _content(path, message)
    if not isinstance(content, list):
        return [{"role": "user", "content": parts_of(f"{path}.content", content)}]
    results: list[JsonObject] = []
    parts: list[JsonObject] = []
    for at, block in enumerate(content):
        place = f"{path}.content[{at}]"
        if block_at(place, block)["type"] == "tool_result":
            results.append(_result(place, block))
        else:
            parts.append(part_of(block))
    return results if results and not parts else [*results, {"role": "user", "content": parts}]


def _result(path: str, block: JsonObject) -> JsonObject:
    call = block.get("tool_use_id")
    if not isinstance(call, str):
        raise invalid(f"{path}.tool_use_id is no text")
    content = block.get("content")
    written: JsonObject = {"role": "tool", "tool_call_id": call}
    written["content"] = "" if content is None else parts_of(f"{path}.content", content)
    if block.get("is_error"):
        written["is_error"] = True
    return {**written, **_others(block, _RESULT)}


def _assistant(path: str, message: JsonObject) -> JsonObject:
    """An assistant's turn: its calls beside its words.

    Where something follows a call, the calls keep their places among the parts too, as Anthropic wants thoughts back
    exactly where they were.
    """
    content = _content(path, message)
    if not isinstance(content, list):
        return {"role": "assistant", "content": parts_of(f"{path}.content", content)}
    calls: list[JsonObject] = []
    parts: list[JsonObject] = []
    words = 0
    for at, block in enumerate(content):
        place = f"{path}.content[{at}]"
        if block_at(place, block)["type"] == "tool_use":
            calls.append(_call(place, block))
        else:
            parts.append(part_of(block))
            words = at + 1
    if not calls:
        return {"role": "assistant", "content": parts}
    if words > len(parts):  # a call stands before the last of them
        parts = [part_of(block) for block in content]
    return {"role": "assistant", "content": parts or None, "tool_calls": calls}


def _call(path: str, block: JsonObject) -> JsonObject:
    known, name, given = block.get("id"), block.get("name"), block.get("input")
    if not isinstance(known, str) or not isinstance(name, str):
        raise invalid(f"{path} has no id or no name")
    if given is not None and not isinstance(given, dict):
        raise invalid(f"{path}.input is no object")
    function = {"name": name, "arguments": encode(given or {}).decode()}
    return {"id": known, "type": "function", "function": function, **_others(block, _CALL)}


def _others(given: JsonObject, known: frozenset[str]) -> JsonObject:
    return {name: value for name, value in given.items() if value is not None and name not in known}


# --- other members


def _messages(body: JsonObject, value: Any) -> None:
    body["messages"] = value  # keeps its place; ``chat_body`` writes it


def _stop(body: JsonObject, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise invalid("'stop_sequences' is no list of texts")
    if value:
        body["stop"] = value


def _tools(body: JsonObject, value: Any) -> None:
    if not isinstance(value, list):
        raise invalid("'tools' is no list")
    if value:
        body["tools"] = [_tool(f"tools[{place}]", tool) for place, tool in enumerate(value)]


def _tool(path: str, tool: Any) -> JsonObject:
    """A caller's own tool as a function; one of Anthropic's, which has a type with a date, as it is."""
    if not isinstance(tool, dict):
        raise invalid(f"{path} is no object")
    if tool.get("type") not in (None, "custom"):
        return tool
    if not isinstance(tool.get("name"), str):
        raise invalid(f"{path}.name is no text")
    function: JsonObject = {"name": tool["name"]}
    for name, to in (("description", "description"), ("input_schema", "parameters"), ("strict", "strict")):
        if tool.get(name) is not None:
            function[to] = tool[name]
    return {"type": "function", "function": function, **_others(tool, _CUSTOM)}


def _tool_choice(body: JsonObject, value: Any) -> None:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "tool" and isinstance(value.get("name"), str):
        body["tool_choice"] = {"type": "function", "function": {"name": value["name"]}}
    elif isinstance(kind, str) and kind in _CHOICES:
        body["tool_choice"] = _CHOICES[kind]
    else:
        raise invalid("'tool_choice.type' is auto, any, none, or tool with a 'name'")
    if value.get("disable_parallel_tool_use"):
        body["parallel_tool_calls"] = False
    for name in _others(value, frozenset({"type", "name", "disable_parallel_tool_use"})):
        raise unsupported(f"tool_choice.{name}", "it has no such member")


def _output_config(body: JsonObject, value: Any) -> None:
    if not isinstance(value, dict):
        raise invalid("'output_config' is no object")
    if value.get("format") is not None:
        _output_format(body, value["format"])
    if others := _others(value, frozenset({"format"})):
        body["output_config"] = others


def _output_format(body: JsonObject, value: Any) -> None:
    """A format, in ``output_config`` or by itself, as it was written before; answers keep to it strictly."""
    if not isinstance(value, dict) or value.get("type") != "json_schema" or not isinstance(value.get("schema"), dict):
        raise invalid('\'output_config.format\' is {"type": "json_schema", "schema": …}')
    for name in _others(value, frozenset({"type", "schema"})):
        raise unsupported(f"output_config.format.{name}", "it has no such member")
    schema: JsonObject = value["schema"]
    name = _NOT_IN_NAMES.sub("_", str(schema.get("title") or ""))[:64] or "answer"
    body["response_format"] = {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": schema, "strict": True},
    }


_WRITERS: Final = {
    "messages": _messages,
    "output_config": _output_config,
    "output_format": _output_format,
    "stop_sequences": _stop,
    "tool_choice": _tool_choice,
    "tools": _tools,
}
