"""A conversation in OpenAI's shape as Anthropic's: the system's words, and turns of users and assistants.

What one side says in a row is one turn: results of tools and the user's words after them, an assistant's
thoughts, words and calls. System messages go in front, unless the model takes them where they stand.

Source:
    https://platform.claude.com/docs/en/api/messages/create,
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls (results come first in the turn
    that follows the calls, all of them in one) and
    https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages (where system messages may
    stand); what servers refuse (ids and empty texts) is quoted in public reports.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bifrost_core.types import JsonObject, ToolCall

from ._anthropic_families import Family
from ._anthropic_parts import text_blocks, write_content, write_members_of
from ._chat import call_id, real_id
from ._json import JsonError, decode
from ._reporter import Reporter

__all__ = ["write_conversation"]

_CALL_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SYSTEM_ROLES: Final = frozenset({"system", "developer"})
_ROLES: Final = "it is system, developer, user, assistant or tool"
# Members that say nothing to the model; an assistant's thoughts in others' forms have no signature.
_SILENT: Final = frozenset({"name", "metadata", "annotations", "provider_specific_fields", "extra_content", "prefix"})
_UNSIGNED: Final = frozenset({"reasoning_content", "reasoning", "reasoning_details", "thinking_blocks"})
_USER: Final = frozenset({"role", "content"})
_LATE_SYSTEM: Final = frozenset({"role", "content", "output_config", "clear_at"})
_ASSISTANT: Final = frozenset({"role", "content", "tool_calls", "refusal"})
_RESULT: Final = frozenset({"role", "content", "tool_call_id", "is_error", "cache_control", "toolset_name"})
_CALL: Final = frozenset({"id", "type", "function", "index", "cache_control", "caller", "toolset_name"})
_BESIDE_CALL: Final = ("cache_control", "caller", "toolset_name")


def write_conversation(messages: Any, system: Any, family: Family, reporter: Reporter) -> tuple[Any, list[JsonObject]]:
    """The system's words (None: none) and the turns; what is given is left as it is.

    Args:
        messages: The messages of a chat request.
        system: Words in Anthropic's own member ``system``, which go before those of system messages.
        family: Of the model.
        reporter: Of the provider.

    Raises:
        BadRequestError: It is no list of messages; ``UnsupportedParameterError`` where one has a form or a
            member that Anthropic does not take, by its path (``messages[2].content[0].type``).
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise reporter.invalid("the field 'messages' is no list")
    written = _Conversation(family, reporter)
    if system is not None:
        written.collect("system", system)
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise reporter.invalid(f"messages[{place}] is no object")
        written.take(f"messages[{place}]", message, itertools.islice(messages, place + 1, None))
    return written.system(), written.turns


class _Conversation:
    """A conversation on its way; see ``write_conversation``."""

    def __init__(self, family: Family, reporter: Reporter) -> None:
        self.turns: list[JsonObject] = []
        self._family = family
        self._reporter = reporter
        self._system: list[Any] = []
        self._waiting: list[str] = []  # ids that were made for calls without one, until a result takes them

    def system(self) -> Any:
        """Text, where it is one text; else blocks."""
        if len(self._system) < 2:
            return self._system[0] if self._system else None
        return [block for content in self._system for block in text_blocks(content)]

    def collect(self, path: str, content: Any) -> None:
        """Words of the system, for the front."""
        written = write_content(path, content, self._reporter)
        if not isinstance(written, str):
            for at, block in enumerate(written):
                if block.get("type") != "text":
                    raise self._reporter.unsupported(f"{path}.content[{at}].type", "the system speaks text alone")
        if written:
            self._system.append(written)

    def take(self, path: str, message: Mapping[str, Any], rest: Iterable[Any]) -> None:
        """One message; ``rest`` are those after it."""
        role = message.get("role")
        if role == "user":
            members = write_members_of(path, message, _USER, _SILENT, self._reporter)
            self._add("user", write_content(path, members.get("content"), self._reporter))
        elif role == "assistant":
            self._add("assistant", self._assistant(path, message))
        elif role == "tool":
            self._add("user", [self._result(path, message)])
        elif isinstance(role, str) and role in _SYSTEM_ROLES:
            self._take_system(path, message, rest)
        else:
            raise self._reporter.unsupported(f"{path}.role", _ROLES)

    def _take_system(self, path: str, message: Mapping[str, Any], rest: Iterable[Any]) -> None:
        members = write_members_of(path, message, _LATE_SYSTEM, _SILENT, self._reporter)
        beside = {name: value for name, value in members.items() if name not in _USER}
        if self.turns and self._may_stand(rest):
            turn: JsonObject = {"role": "system", **beside}
            turn["content"] = write_content(path, members.get("content"), self._reporter)
            if turn["content"] or beside:
                self.turns.append(turn)
            return
        for name in beside:
            raise self._reporter.unsupported(f"{path}.{name}", "it has its place in a system message between turns")
        if self.turns:
            self._reporter.note("system messages inside a conversation, which the model does not take, go in front")
        self.collect(path, members.get("content"))

    def _may_stand(self, rest: Iterable[Any]) -> bool:
        """Whether a system message may stand here: after the user's turn, before the assistant's or at the end."""
        if not self._family.late_system or self.turns[-1]["role"] == "assistant":
            return False
        roles = (each.get("role") if isinstance(each, Mapping) else None for each in rest)
        after = next((role for role in roles if role not in _SYSTEM_ROLES), None)
        return after in (None, "assistant")

    def _add(self, role: str, content: Any) -> None:
        """What a side says goes on, or begins."""
        if not content:
            self._reporter.note("messages that say nothing, which Anthropic refuses, are left out")
        elif self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] = [*text_blocks(self.turns[-1]["content"]), *text_blocks(content)]
        else:
            self.turns.append({"role": role, "content": content})

    # --- assistants and their calls

    def _assistant(self, path: str, message: Mapping[str, Any]) -> Any:
        members = write_members_of(path, message, _ASSISTANT, _SILENT | _UNSIGNED, self._reporter)
        content = write_content(path, members.get("content"), self._reporter)
        if not content and isinstance(members.get("refusal"), str):
            content = members["refusal"]
        calls = members.get("tool_calls")
        if not calls:
            return content
        if not isinstance(calls, Sequence) or isinstance(calls, (str, bytes)):
            raise self._reporter.invalid(f"{path}.tool_calls is no list")
        blocks = text_blocks(content) if content else []
        # An answer in which something follows a call has its calls in their places.
        placed = {block.get("id") for block in blocks if block.get("type") == "tool_use"}
        for at, call in enumerate(calls):
            block = self._call(f"{path}.tool_calls[{at}]", call)
            if block["id"] not in placed:
                blocks.append(block)
        return blocks

    def _call(self, path: str, given: Any) -> JsonObject:
        call = given.to_openai() if isinstance(given, ToolCall) else given
        if not isinstance(call, Mapping):
            raise self._reporter.invalid(f"{path} is no object")
        if call.get("type") not in (None, "function"):
            raise self._reporter.unsupported(f"{path}.type", "calls are of functions")
        function = call.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise self._reporter.invalid(f"{path} has no function with a name")
        members = write_members_of(path, call, _CALL, _SILENT, self._reporter)
        write_members_of(f"{path}.function", function, frozenset({"name", "arguments"}), _SILENT, self._reporter)
        known = real_id(call.get("id"))
        if known is None:
            made = f"toolu_{call_id(path)}"
            self._waiting.append(made)
        else:
            made = _wire_id(known)
        block: JsonObject = {"type": "tool_use", "id": made, "name": function["name"]}
        block["input"] = self._input(f"{path}.function.arguments", function.get("arguments"))
        block.update((name, members[name]) for name in _BESIDE_CALL if name in members)
        return block

    def _input(self, path: str, arguments: Any) -> Mapping[str, Any]:
        """The arguments as an object; a call without any has the empty one."""
        value: Any = arguments
        if value is None or value == "":
            return {}
        if isinstance(value, str):
            try:
                value = decode(value.encode("utf-8", "surrogatepass"))
            except JsonError:
                value = None
        if not isinstance(value, Mapping):
            raise self._reporter.invalid(f"{path} is no JSON object, and Anthropic takes no other arguments")
        return value

    def _result(self, path: str, message: Mapping[str, Any]) -> JsonObject:
        members = write_members_of(path, message, _RESULT, _SILENT, self._reporter)
        block: JsonObject = {"type": "tool_result", "tool_use_id": self._answered(f"{path}.tool_call_id", members)}
        content = message.get("content")
        if content is not None:
            block["content"] = content if isinstance(content, str) else write_content(path, content, self._reporter)
        if members.get("is_error"):
            block["is_error"] = True
        block.update((name, members[name]) for name in ("cache_control", "toolset_name") if name in members)
        return block

    def _answered(self, path: str, members: Mapping[str, Any]) -> str:
        known = real_id(members.get("tool_call_id"))
        if known is not None:
            return _wire_id(known)
        if not self._waiting:
            raise self._reporter.invalid(f"{path} is missing, and no call before it is without an answer")
        return self._waiting.pop(0)


def _wire_id(known: str) -> str:
    """The id in Anthropic's form: as it is where it has that form, else one made of it, always the same."""
    return known if _CALL_ID.fullmatch(known) else f"toolu_{call_id(known)}"
