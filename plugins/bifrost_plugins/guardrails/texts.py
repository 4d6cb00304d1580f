"""Every text in a request and in an answer, and the way to put another in its place.

One walk serves both: ``visit`` is shown each text and returns what is to stand there. What stays as it is
is returned as the very object that came in.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (bodies are JSON: their members are untyped until this module has read them)
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import attrs
import msgspec

from bifrost_core import (
    ChatResponse,
    Choice,
    Message,
    OcrPage,
    OcrResponse,
    Request,
    Response,
    ResponsesResponse,
    ToolCall,
    Transcription,
)
from bifrost_core.blocks import is_message
from bifrost_core.types import rebuilt_raw

__all__ = ["Leaf", "UnknownPartError", "Walker", "message_of"]

JsonObject = dict[str, Any]

_TEXTS: Final = frozenset({"text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text"})
_PARTS: Final = _TEXTS | {
    "image_url", "input_image", "document_url", "document", "file", "input_file", "input_audio", "audio_url", "thinking",
    "redacted_thinking", "reference", "tool_reference", "tool_use", "tool_result", "image", "message", "reasoning",
    "function_call", "function_call_output", "item_reference", "web_search_call", "file_search_call",
    "code_interpreter_call", "computer_call", "computer_call_output", "image_generation_call", "mcp_call",
    "mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "custom_tool_call", "custom_tool_call_output",
    "local_shell_call", "local_shell_call_output", "video_url",
    # Anthropic's server tools: https://platform.claude.com/docs/en/api/messages/create
    "server_tool_use", "mcp_tool_use", "mcp_tool_result", "web_search_tool_result", "web_search_result",
    "web_fetch_tool_result", "web_fetch_result", "code_execution_tool_result", "code_execution_result",
    "code_execution_output", "bash_code_execution_tool_result", "bash_code_execution_result",
    "bash_code_execution_output", "text_editor_code_execution_tool_result", "tool_search_tool_result",
    "search_result", "container_upload", "compaction",
}  # fmt: skip
# Members that hold names of the protocol, and ids; judged all the same when they hold anything else.
_STRUCTURE: Final = frozenset(
    {"role", "type", "id", "tool_call_id", "call_id", "item_id", "response_id", "previous_response_id", "file_id"}
    | {"status", "detail", "object", "model", "encoding_format", "reasoning_effort", "effort", "tool_choice", "format"}
    | {"finish_reason", "prompt_mode", "service_tier", "language", "response_format", "truncation", "container_id"}
)
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{0,96}")
# What models wrote for themselves, sealed by the provider: nothing in it can be read or may be changed.
_SEALED: Final = frozenset(
    {"signature", "encrypted_content", "encrypted_index", "encrypted_stdout", "thought_signature"}
    | {"logprobs", "top_logprobs"}
)
_BINARY: Final = frozenset({"data", "file_data", "input_audio", "audio", "b64_json", "image_base64", "file"})
_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_DATA_URL: Final = re.compile(
    r"data:(?:image|audio|video|application/(?:pdf|octet-stream))[^,]{0,100};base64,", re.IGNORECASE
)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_=\r\n-]{256}")
_LISTS: Final = frozenset({"content", "input", "thinking", "summary", "output"})
_KNOWN: Final = frozenset({"content", "tool_calls", "role", "reasoning_content", "reasoning", "prefix"})
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([/\"\\]))")


class UnknownPartError(Exception):
    """A part of a type that is not known, so that nobody can say what the provider reads in it."""


@attrs.define
class Leaf:
    """Where a text stands. Never changed; not frozen, which costs.

    Attributes:
        group: Texts of one group, one after the other, are read as one.
        kind: ``"text"`` of what people and models say, ``"argument"`` in tool calls, ``"copy"`` of what is shown as
            other leaves too, else ``"other"``.
    """

    group: int
    kind: Literal["text", "reasoning", "argument", "copy", "other"]


Visit = Callable[[str, Leaf], str]


class Walker:
    """Shows texts to ``visit`` and puts what it returns in their place.

    Args:
        visit: Takes a text and where it stands.
        unknown: What is done about parts of unknown type: ``"block"`` raises ``UnknownPartError``.
    """

    def __init__(self, visit: Visit, *, unknown: Literal["block", "skip"] = "block") -> None:
        self._visit = visit
        self._unknown = unknown
        self._group = 0
        self._kind: Literal["text", "reasoning", "argument", "copy", "other"] = "other"

    # --- requests and JSON values

    def request(self, request: Request) -> Request:
        """The request with its texts as ``visit`` would have them.

        Raises:
            UnknownPartError: A part of it can not be read.
        """
        changes: JsonObject = {}
        for name, old in request.body.items():
            new = self.value(old, name)
            if new is not old:
                changes[name] = new
        files = tuple([self._file(file) for file in request.files]) if request.files else ()
        if not changes and all(new is old for new, old in zip(files, request.files, strict=True)):
            return request
        return attrs.evolve(request, body={**request.body, **changes}, files=files)

    def _file(self, file: Any) -> Any:
        name = self._leaf(file.filename, "other")
        return file if name is file.filename else attrs.evolve(file, filename=name)

    def value(self, value: Any, name: str = "") -> Any:
        """A JSON value that is the member ``name`` of something."""
        kind = type(value)  # what JSON is made of comes first: asking abstract classes takes long
        if kind is dict:
            if len(value) == 2 and self._kind == "other":
                role, content = value.get("role"), value.get("content")
                is_text = type(role) is str and role in _ROLES and type(content) is str
                if is_text and content[:5].lower() != "data:":
                    told = self._leaf(content, "text")  # a message of text alone, as most are
                    return value if told is content else {**value, "content": told}
            return self._mapping(value)
        if kind is list:
            return self._list(value, name)
        if isinstance(value, str):
            return self._string(value, name)
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int):
            return self._number(value) if self._kind == "argument" else value
        if isinstance(value, Message):
            value = value.to_dict()
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            return self._list(value, name)
        return self._strange(value, type(value).__name__)

    def _strange(self, value: Any, kind: str) -> Any:
        if self._unknown == "block":
            raise UnknownPartError(kind)
        return value

    def _leaf(self, text: str, kind: Literal["text", "reasoning", "argument", "copy", "other"]) -> str:
        self._group += 1
        return self._visit(text, Leaf(self._group, kind))

    def _number(self, value: int) -> Any:
        """Numbers that a model wrote may be somebody's: an account, a card."""
        digits = str(value) if abs(value) < 10**40 else ""
        told = self._leaf(digits, "argument") if len(digits) > 8 else digits
        return value if told == digits else told

    def _string(self, value: str, name: str) -> str:
        if name in _STRUCTURE and _NAME.fullmatch(value):
            return value
        if name in _SEALED or _DATA_URL.match(value) or (name in _BINARY and _BASE64.match(value)):
            return value
        if name == "arguments":
            return self.arguments(value)
        if self._kind == "argument":
            return self._leaf(value, "argument")
        is_text = name in {"content", "text", "input", "prompt", "suffix", "output"}
        return self._leaf(value, "text" if is_text else "other")

    def _mapping(self, value: Mapping[str, Any]) -> Any:
        changed: JsonObject = {}
        is_changed = False
        for name, old in value.items():
            # The names of a protocol are not looked at; those that a model or a user made up are.
            told = self._leaf(name, "argument") if self._kind == "argument" else name
            new = old if name in _SEALED else self.value(old, name if self._kind != "argument" else "")
            is_changed = is_changed or new is not old or told is not name
            changed[told] = new
        return changed if is_changed else value

    def _list(self, value: Sequence[Any], name: str) -> Any:
        if name in {"input", "prompt"} and any(type(each) is int for each in _flat(value)):
            return self._strange(value, "token ids")
        parts = name in _LISTS
        together = 0
        new: list[Any] = []
        for each in value:
            if parts and (type(each) is dict or isinstance(each, Mapping)) and "type" in each and "role" not in each:
                kind = each["type"]
                if kind not in _PARTS:
                    new.append(self._strange(each, str(kind)[:40] if isinstance(kind, str) else "no name"))
                    continue
                text = each.get("text")
                if kind in _TEXTS and isinstance(text, str):
                    if not together:
                        self._group += 1
                        together = self._group
                    told = self._visit(text, Leaf(together, "reasoning" if name == "thinking" else "text"))
                    rest = {member: other for member, other in each.items() if member != "text"}
                    walked = self._mapping(rest)
                    new.append(each if told is text and walked is rest else {**walked, "text": told})
                    continue
            elif parts and name == "content" and isinstance(each, str):
                if not together:
                    self._group += 1
                    together = self._group
                new.append(self._visit(each, Leaf(together, "text")))
                continue
            new.append(self.value(each, name if isinstance(each, (str, list, tuple)) else ""))
        for before, after in zip(value, new, strict=True):
            if before is not after:
                return new
        return value

    def arguments(self, text: str) -> str:
        """A tool call's arguments: JSON as text, whose strings may be written with escapes."""
        before, self._kind = self._kind, "argument"
        try:
            told = self._leaf(text, "copy")
            try:
                value: Any = msgspec.json.decode(text)
            except (ValueError, RecursionError):  # cut off, or the model's mistake
                plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else match[2], text)
                if plain == text:
                    return told
                bare = self._leaf(plain, "copy")
                return told if bare is plain else bare
            new = self.value(value)
            return told if new is value else msgspec.json.encode(new).decode()
        finally:
            self._kind = before

    def call(self, call: ToolCall) -> ToolCall:
        """A tool call: its name and its arguments."""
        name, arguments = self._leaf(call.name, "other"), self.arguments(call.arguments)
        return call if name is call.name and arguments is call.arguments else ToolCall(call.id, name, arguments)

    # --- answers

    def response(self, response: Response) -> Response:
        """The answer with its texts as ``visit`` would have them, in all its forms."""
        if isinstance(response, ChatResponse):
            return self._chat(response)
        if isinstance(response, ResponsesResponse):
            return self._items(response)
        if isinstance(response, Transcription):
            text = self._leaf(response.text, "text")
            for segment in response.segments:
                if self._leaf(segment.text, "copy") is not segment.text:
                    return response.with_text(text)  # the segments go
            return response if text is response.text else response.with_text(text)
        if isinstance(response, OcrResponse):
            return self._pages(response)
        return response  # numbers and names

    def _chat(self, response: ChatResponse) -> ChatResponse:
        choices: list[Choice] = []
        is_changed = False
        for old in response.choices:
            new = self._choice(old)
            is_changed = is_changed or new is not old
            choices.append(new)
        if not is_changed:
            return response
        return attrs.evolve(response, choices=tuple(choices), raw=rebuilt_raw(response.raw, choices))

    def _choice(self, choice: Choice) -> Choice:
        text = self._leaf(choice.text, "text") if choice.text else choice.text
        reasoning = self._leaf(choice.reasoning, "reasoning") if choice.reasoning else choice.reasoning
        calls = choice.tool_calls
        same = True
        if calls:
            calls = tuple([self.call(each) for each in calls])
            same = all(new is old for new, old in zip(calls, choice.tool_calls, strict=True))
        if text is choice.text and reasoning is choice.reasoning and same and self._is_same_beside(choice):
            return choice
        return Choice(
            index=choice.index,
            text=text,
            reasoning=reasoning,
            tool_calls=calls,
            finish_reason=choice.finish_reason,
            message=message_of(text, reasoning, calls),
        )

    def _is_same_beside(self, choice: Choice) -> bool:
        """What a message holds beside its text, reasoning and calls: quotations, links, transcripts."""
        others = {name: value for name, value in choice.message.items() if name not in _KNOWN}
        content = choice.message.get("content")
        if not others and not isinstance(content, list):
            return True
        if isinstance(content, list):
            others["content"] = [
                part
                for part in content
                if not isinstance(part, str)
                and not (isinstance(part, Mapping) and part.get("type") in {"text", "thinking"} and len(part) == 2)
            ]
        return self.value(others) is others

    def _items(self, response: ResponsesResponse) -> ResponsesResponse:
        output = self.value(list(response.output), "output")
        if all(new is old for new, old in zip(output, response.output, strict=True)):
            return response
        told = attrs.evolve(response, output=tuple(output))
        if is_message(response.raw):
            said = Choice(text=told.output_text, reasoning=told.reasoning, tool_calls=told.tool_calls)
            return attrs.evolve(told, raw=rebuilt_raw(response.raw, [said]))
        raw: JsonObject = {name: value for name, value in response.raw.items() if name not in {"choices", "output"}}
        raw.pop("output_text", None)
        if response.raw.get("choices"):
            reason = response.raw["choices"][0].get("finish_reason")
            message = message_of(told.output_text, told.reasoning, told.tool_calls)
            raw["choices"] = [{"index": 0, "message": message, "finish_reason": reason}]
        elif response.raw:
            raw["output"] = list(output)
        return attrs.evolve(told, raw=raw)

    def _pages(self, response: OcrResponse) -> OcrResponse:
        pages: list[OcrPage] = []
        for page in response.pages:
            markdown = self._leaf(page.markdown, "text")
            images, tables = self.value(list(page.images)), self.value(list(page.tables))
            pages.append(attrs.evolve(page, markdown=markdown, images=tuple(images), tables=tuple(tables)))
        note = response.raw.get("document_annotation")
        said = self.arguments(note) if isinstance(note, str) else self.value(note)
        if said is note and tuple(pages) == response.pages:
            return response
        raw: JsonObject = {name: value for name, value in response.raw.items() if name in {"model", "usage_info"}}
        if response.raw:
            raw["document_annotation"] = said
            raw["pages"] = [
                {
                    "index": page.index,
                    "markdown": page.markdown,
                    "images": list(page.images),
                    "tables": list(page.tables),
                    "dimensions": page.dimensions,
                }
                for page in pages
            ]
        return attrs.evolve(response, pages=tuple(pages), annotation=said, raw=raw)


def message_of(text: str, reasoning: str | None, calls: Sequence[ToolCall]) -> JsonObject:
    """An assistant message that says this and nothing else."""
    content: Any = text
    if reasoning:
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}
        content = [thought, {"type": "text", "text": text}]
    message: JsonObject = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [call.to_openai() for call in calls]
    return message


def _flat(value: Sequence[Any]) -> Sequence[Any]:
    """The first members of a list of lists, and of a list itself: ids come by the thousand."""
    return [inner for each in value[:8] for inner in (each[:8] if isinstance(each, (list, tuple)) else [each])]
