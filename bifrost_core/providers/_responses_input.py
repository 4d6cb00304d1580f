"""The input of a Responses request as the messages of a chat.

Source:
    https://platform.openai.com/docs/api-reference/responses/create#responses_create-input and
    https://platform.openai.com/docs/api-reference/chat/create#chat_create-messages.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from bifrost_core.errors import ConfigError
from bifrost_core.types import JsonObject, input_items

from ._chat import read_arguments
from ._reporter import Reporter

__all__ = ["is_list", "read_input"]

_ROLES: Final = frozenset({"user", "system", "developer"})
# Members of an item that say nothing to the model, and values that ask for nothing.
_SILENT: Final = frozenset({"type", "id", "status", "phase", "parsed_arguments"})  # the last is the SDK's own
_NOTHING: Final[tuple[Any, ...]] = (None, False, [], {}, {"type": "direct"})


def is_list(value: Any) -> bool:
    """Whether it is a list, a tuple or the like, and no text."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


@attrs.define
class _Turn:
    """What the assistant said and did between two items of others: one message of a chat."""

    thoughts: list[str] = attrs.field(factory=list[str])
    parts: list[JsonObject] = attrs.field(factory=list[JsonObject])
    calls: list[JsonObject] = attrs.field(factory=list[JsonObject])

    def message(self) -> JsonObject:
        content: Any = self.parts
        if not self.parts:
            content = None if self.calls else ""
        elif len(self.parts) == 1 and self.parts[0]["type"] == "text":
            content = self.parts[0]["text"]
        message: JsonObject = {"role": "assistant", "content": content}
        if self.thoughts:
            message["reasoning_content"] = "".join(self.thoughts)
        if self.calls:
            message["tool_calls"] = self.calls
        return message


class _Conversation:
    """Items on their way into messages."""

    def __init__(self, reporter: Reporter) -> None:
        self.messages: list[JsonObject] = []
        self._reporter = reporter
        self._turn: _Turn | None = None

    def add(self, path: str, item: Mapping[str, Any]) -> None:
        """Take the next item.

        Raises:
            BadRequestError: It is of no kind that chat knows, or misses a member; names its place.
        """
        kind = item.get("type") or ("message" if "role" in item else "item_reference" if "id" in item else None)
        take = _ITEMS.get(kind) if isinstance(kind, str) else None
        if take is None:
            why = "chat has no such items; there are message, reasoning, function_call and function_call_output"
            if kind == "item_reference":
                why = "nothing is stored between calls; pass the item itself"
            raise self._reporter.unsupported(f"{path}.type", f"{str(kind)[:64]!r}: {why}")
        members, read = take
        for name, value in item.items():
            if name not in members and name not in _SILENT and value not in _NOTHING:
                hint = "; calls are items of type function_call" if name == "tool_calls" else ""
                raise self._reporter.unsupported(f"{path}.{name}", f"an item of type {kind} has no such member{hint}")
        read(self, path, item)

    def end(self) -> list[JsonObject]:
        """The messages."""
        if self._turn is not None:
            self.messages.append(self._turn.message())
            self._turn = None
        return self.messages

    def _assistant(self) -> _Turn:
        """The turn that thoughts and words belong to: what follows words opens another, unless calls are open.

        Calls are answered before anything else is said, so what stands beside them is said with them.
        """
        if self._turn is not None and self._turn.parts and not self._turn.calls:
            self.end()
        if self._turn is None:
            self._turn = _Turn()
        return self._turn

    def message(self, path: str, item: Mapping[str, Any]) -> None:
        role, content = item.get("role"), item.get("content")
        if role == "assistant":
            parts = self._parts(f"{path}.content", [content] if isinstance(content, str) else content)
            if parts:
                self._assistant().parts += parts
            return
        if role not in _ROLES:
            hint = "; results of functions are items of type function_call_output" if role == "tool" else ""
            raise self._reporter.unsupported(f"{path}.role", f"it is user, assistant, system or developer{hint}")
        if not isinstance(content, str):
            content = self._parts(f"{path}.content", content)
        self.end()
        self.messages.append({"role": role, "content": content})

    def reasoning(self, path: str, item: Mapping[str, Any]) -> None:
        told: Any = item.get("content") or item.get("summary") or ()
        if not is_list(told):
            raise self._reporter.invalid(f"{path}.content is no list of parts")
        thoughts = [self._said(f"{path}.content[{at}]", part) for at, part in enumerate(told)]
        if not thoughts and item.get("encrypted_content"):
            raise self._reporter.unsupported(f"{path}.encrypted_content", "only the provider that made it can read it")
        if thoughts:
            self._assistant().thoughts += thoughts

    def function_call(self, path: str, item: Mapping[str, Any]) -> None:
        call, name = self._word(path, item, "call_id"), self._word(path, item, "name")
        if self._turn is None:
            self._turn = _Turn()
        function = {"name": name, "arguments": read_arguments(item.get("arguments"))}
        self._turn.calls.append({"id": call, "type": "function", "function": function})

    def function_call_output(self, path: str, item: Mapping[str, Any]) -> None:
        output: Any = item.get("output")
        if not isinstance(output, str):
            output = self._parts(f"{path}.output", output)
        message: JsonObject = {"role": "tool", "tool_call_id": self._word(path, item, "call_id"), "content": output}
        if item.get("name"):
            message["name"] = item["name"]
        self.end()
        self.messages.append(message)

    def _word(self, path: str, item: Mapping[str, Any], name: str) -> str:
        value = item.get(name)
        if not isinstance(value, str) or not value:
            raise self._reporter.invalid(f"{path}.{name} is missing")
        return value

    def _said(self, path: str, part: Any) -> str:
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            raise self._reporter.invalid(f"{path}.text is missing")
        return text

    def _parts(self, path: str, content: Any) -> list[JsonObject]:
        if not is_list(content):
            raise self._reporter.invalid(f"{path} is neither text nor a list of parts")
        return [self._part(f"{path}[{at}]", part) for at, part in enumerate(content)]

    def _part(self, path: str, part: Any) -> JsonObject:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        if not isinstance(part, Mapping):
            raise self._reporter.invalid(f"{path} is neither text nor an object")
        kind = part.get("type")
        if kind in {"input_text", "output_text", "text", "summary_text"}:
            return {"type": "text", "text": self._said(path, part)}
        if kind == "refusal":
            return {"type": "refusal", "refusal": part.get("refusal") or ""}
        if kind == "input_image":
            return self._image(path, part)
        if kind == "input_file":
            return self._file(path, part)
        if kind == "input_audio" and part.get("input_audio"):
            return {"type": "input_audio", "input_audio": part["input_audio"]}
        raise self._reporter.unsupported(
            f"{path}.type", "it is input_text, input_image, input_file, input_audio, output_text or refusal"
        )

    def _image(self, path: str, part: Mapping[str, Any]) -> JsonObject:
        if part.get("file_id"):
            return {"type": "file", "file": {"file_id": part["file_id"]}}
        url = part.get("image_url")
        if not isinstance(url, str) or not url:
            raise self._reporter.unsupported(path, "an image has image_url or file_id")
        image: JsonObject = {"url": url}
        if part.get("detail") not in (None, "auto"):
            image["detail"] = part["detail"]
        return {"type": "image_url", "image_url": image}

    def _file(self, path: str, part: Mapping[str, Any]) -> JsonObject:
        if part.get("file_url"):  # Mistral's word: OpenAI's chat takes no URLs of files
            document: JsonObject = {"type": "document_url", "document_url": part["file_url"]}
            if part.get("filename"):
                document["document_name"] = part["filename"]
            return document
        file = {name: part[name] for name in ("file_id", "file_data", "filename") if part.get(name)}
        if not file.keys() & {"file_id", "file_data"}:
            raise self._reporter.unsupported(path, "a file has file_id, file_data or file_url")
        return {"type": "file", "file": file}


_Reader = Callable[[_Conversation, str, Mapping[str, Any]], None]
_ITEMS: Final[Mapping[str, tuple[frozenset[str], _Reader]]] = {
    "message": (frozenset({"role", "content"}), _Conversation.message),
    "reasoning": (frozenset({"content", "summary", "encrypted_content"}), _Conversation.reasoning),
    "function_call": (frozenset({"call_id", "name", "arguments"}), _Conversation.function_call),
    "function_call_output": (frozenset({"call_id", "output", "name"}), _Conversation.function_call_output),
}


def read_input(body: Mapping[str, Any], reporter: Reporter) -> list[JsonObject]:
    """The messages of a conversation, the instructions in front as a system message.

    What the assistant thought, said and called between two items of others is one message.

    Raises:
        BadRequestError: An item or a part is of no kind that chat knows; names its place.
    """
    given = body.get("input")
    if given is None:
        raise reporter.invalid("the field 'input' is missing")
    problem = ""
    items: list[JsonObject] = []
    try:
        items = input_items(given)
    except ConfigError as exc:
        problem = exc.message
    if problem:
        raise reporter.invalid(problem)
    conversation = _Conversation(reporter)
    instructions = body.get("instructions")
    if instructions is not None:
        if not isinstance(instructions, str):
            raise reporter.invalid("the field 'instructions' is no text")
        conversation.messages.append({"role": "system", "content": instructions})
    for place, item in enumerate(items):
        conversation.add(f"input[{place}]", item)
    return conversation.end()
