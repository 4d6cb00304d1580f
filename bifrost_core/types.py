"""The values that go in and come out: operations, messages, requests, chunks, usage, routes.

Frozen, without I/O and without a clock. Wire names are the adapters' affair; here are the library's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, cast

import attrs
import msgspec

from ._errors import ConfigError
from .blocks import blocks_of, event_saying, is_event, is_message, message_saying
from .bodies import Content, Source, source_of
from .response_objects import is_response_event, said_event, with_output_text

__all__ = [
    "Choice",
    "Chunk",
    "File",
    "Message",
    "Operation",
    "Request",
    "Route",
    "RouteRef",
    "ToolCall",
    "Usage",
    "message_text",
]

JsonObject = dict[str, Any]


class Operation(StrEnum):
    """What a call asks for; equal to its string."""

    CHAT = "chat"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    TRANSCRIPTION = "transcription"
    OCR = "ocr"
    FIM = "fim"
    MODERATION = "moderation"
    MODELS = "models"
    CLASSIFICATION = "classification"
    SPEECH = "speech"


@attrs.frozen
class RouteRef:
    """Where an attempt went: names only, safe to log.

    Attributes:
        provider: Name of the provider (``"mistral"``).
        model: Name of the model at that provider.
        key_id: ``Key.id`` of the credential.
    """

    provider: str
    model: str
    key_id: str

    @property
    def deployment(self) -> str:
        """``"provider/model"``."""
        return f"{self.provider}/{self.model}"


@attrs.frozen
class Route(RouteRef):
    """A provider, a model and a key that an attempt may be sent on.

    Attributes:
        weight: Share among routes that perform alike; 0: used only when no other is left.
        quota_group: The routes of one group share a quota at the provider.
    """

    weight: float = 1.0
    quota_group: str | None = None

    @property
    def ref(self) -> RouteRef:
        """The same names without weight and group."""
        return RouteRef(self.provider, self.model, self.key_id)


@attrs.frozen(kw_only=True)
class Usage:
    """What a provider counted.

    Attributes:
        input_tokens: Tokens of the prompt, those included that were read from a cache or written to one.
        output_tokens: Tokens of the answer, reasoning included.
        cached_tokens: The part of ``input_tokens`` that came from the provider's prompt cache.
        cache_write_tokens: The part of ``input_tokens`` that was written to that cache, where the provider
            says; no token is both read from it and written.
        long_cache_write_tokens: The part of ``cache_write_tokens`` that was written for longer than is usual, at a
            higher price: with Anthropic, for an hour and not for five minutes.
        reasoning_tokens: The part of ``output_tokens`` that was reasoning, where the provider says.
        audio_seconds: Seconds of audio read.
        pages: Pages read.
        annotated_pages: The part of ``pages`` that was annotated too (OCR), which some providers charge more for.
        characters: Characters read (speech).
        requests: Requests that were answered.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    audio_seconds: float = 0.0
    pages: int = 0
    characters: int = 0
    requests: int = 0
    annotated_pages: int = 0
    cache_write_tokens: int = 0
    long_cache_write_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """``input_tokens + output_tokens``."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """Both together, field by field."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            long_cache_write_tokens=self.long_cache_write_tokens + other.long_cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            audio_seconds=self.audio_seconds + other.audio_seconds,
            pages=self.pages + other.pages,
            annotated_pages=self.annotated_pages + other.annotated_pages,
            characters=self.characters + other.characters,
            requests=self.requests + other.requests,
        )


@attrs.frozen
class ToolCall:
    """A function that the model wants the caller to run. The library never runs one.

    Attributes:
        id: The provider's id of the call, to be named by the tool message that answers it.
        name: Name of the function.
        arguments: JSON text as the model wrote it; may be cut off when ``finish_reason`` is ``length``.
    """

    id: str
    name: str
    arguments: str

    def parsed(self) -> Any:
        """The arguments as Python values.

        Raises:
            ValueError: ``arguments`` is not JSON (cut off, or the model's mistake).
        """
        try:
            return msgspec.json.decode(self.arguments or "{}")
        except (ValueError, RecursionError):  # not JSON, no valid text, or nested without end
            raise ValueError(f"the arguments of tool call {self.name!r} are not valid JSON") from None

    def to_openai(self) -> JsonObject:
        """The call as a member of an assistant message's ``tool_calls``."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


def _tool_calls(calls: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(calls)  # a function of its own: attrs gives the field its type, and ``tuple[…]`` is slow to call


@attrs.frozen
class Message:
    """One message of a conversation.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: Text, or a list of content parts as dicts, or None.
        name: Name of the author or of the tool.
        tool_calls: Calls of an assistant message.
        tool_call_id: The call that a tool message answers.
        prefix: Of a last assistant message: the answer goes on from its text (Mistral).
    """

    role: str
    content: str | Sequence[Mapping[str, Any]] | None = None
    name: str | None = attrs.field(default=None, kw_only=True)
    tool_calls: tuple[ToolCall, ...] = attrs.field(default=(), converter=_tool_calls, kw_only=True)
    tool_call_id: str | None = attrs.field(default=None, kw_only=True)
    prefix: bool = attrs.field(default=False, kw_only=True)

    def to_dict(self) -> JsonObject:
        """The message in the OpenAI and Mistral shape, without the members that say nothing."""
        content: Any = self.content
        if content is not None and not isinstance(content, str):
            content = [dict(part) for part in content]
        message: JsonObject = {"role": self.role, "content": content}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_calls:
            message["tool_calls"] = [call.to_openai() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.prefix:
            message["prefix"] = True
        return message


Messages = str | Sequence[Mapping[str, Any] | Message]
Input = str | Sequence[Mapping[str, Any] | Message]


def message_dicts(messages: Any) -> list[JsonObject]:
    """Bring every accepted form of ``messages`` into one: a fresh list of dicts.

    Raises:
        ConfigError: A member is neither a mapping nor a ``Message``, or has no ``role``.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, (Message, Mapping)):
        messages = [messages]
    if not isinstance(messages, Iterable):
        raise ConfigError(
            f"messages is {type(messages).__name__}; pass a string or a list of messages", field="messages"
        )
    shaped: list[JsonObject] = []
    for index, message in enumerate(cast("Iterable[object]", messages)):
        if isinstance(message, Message):
            shaped.append(message.to_dict())
        elif isinstance(message, Mapping):
            members = cast("Mapping[str, Any]", message)
            if "role" not in members:
                raise ConfigError(f"messages[{index}] has no role", field=f"messages[{index}].role")
            shaped.append(dict(members))
        else:
            raise ConfigError(
                f"messages[{index}] is {type(message).__name__}; pass a dict or a Message",
                field=f"messages[{index}]",
            )
    if not shaped:
        raise ConfigError("messages is empty; pass at least one message", field="messages")
    return shaped


def input_items(given: Any) -> list[JsonObject]:
    """Bring every accepted form of a Responses ``input`` into one: a fresh list of dicts.

    Items of an earlier answer may be objects that dump themselves (the models of OpenAI's SDK).

    Raises:
        ConfigError: An item is neither a mapping nor a ``Message`` nor such an object, or there is none.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if isinstance(given, (Message, Mapping)):
        given = [given]
    if not isinstance(given, Iterable) or isinstance(given, (bytes, bytearray)):
        raise ConfigError(f"input is {type(given).__name__}; pass a string or a list of items", field="input")
    shaped: list[JsonObject] = []
    for index, item in enumerate(cast("Iterable[object]", given)):
        if isinstance(item, Message):
            shaped.append(item.to_dict())
        elif isinstance(item, Mapping):
            shaped.append(dict(cast("Mapping[str, Any]", item)))
        elif callable(dump := getattr(item, "model_dump", None)):
            shaped.append(cast("JsonObject", dump(mode="json", exclude_none=True)))
        else:
            raise ConfigError(
                f"input[{index}] is {type(item).__name__}; pass items as dicts or Messages", field=f"input[{index}]"
            )
    if not shaped:
        raise ConfigError("input is empty; pass a string or at least one item", field="input")
    return shaped


def message_text(content: Any) -> str:
    """The text of a message's content: a string, a list of parts (their texts joined) or None."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts: list[str] = []
        for part in cast("Sequence[object]", content):
            if isinstance(part, str):
                parts.append(part)
            elif isinstance(part, Mapping):
                members = cast("Mapping[str, Any]", part)
                text = members.get("text")
                if members.get("type", "text") == "text" and isinstance(text, str):
                    parts.append(text)
        return "".join(parts)
    return ""


def _operation(value: Operation | str) -> Operation:
    if type(value) is Operation:
        return value
    try:
        return Operation(value)
    except ValueError:
        raise ConfigError(f"{value!r} is no operation; known are {', '.join(Operation)}", field="operation") from None


def _read_only(body: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(body, MappingProxyType):
        return body
    return MappingProxyType(dict(body))


def _measured(file: File) -> Source:
    return source_of(file.content)


@attrs.frozen
class File:
    """A file that goes with a request. Its content is not read before it is sent.

    Attributes:
        name: The form field that carries it (``file``).
        filename: What the provider is told it is called.
        content: The bytes, a path as ``os.PathLike``, or a file open for reading bytes, which has to be seekable:
            every attempt reads it from where it stood when this was made.
        content_type: Its media type.
        source: The content, measured.

    Raises:
        ConfigError: The content is none of these, or can not be read.
    """

    name: str
    filename: str
    content: Content = attrs.field(repr=False)
    content_type: str = "application/octet-stream"
    source: Source = attrs.field(init=False, eq=False, repr=False, default=attrs.Factory(_measured, takes_self=True))


def _files(files: Iterable[File]) -> tuple[File, ...]:
    return cast("tuple[File, ...]", files) if type(files) is tuple else tuple(files)


@attrs.frozen
class Request:
    """One operation on one model, before any provider has been chosen. Equal by value.

    Attributes:
        operation: What is asked for.
        model: ``"provider/model"`` (an alias or a bare name until the call begins).
        body: Read-only JSON members in the OpenAI shape, without ``model`` and ``stream``.
        files: Files that go with it.
        stream: Whether the answer comes in chunks.
    """

    operation: Operation = attrs.field(converter=_operation)
    model: str
    body: Mapping[str, Any] = attrs.field(factory=dict[str, Any], converter=_read_only, repr=False)
    files: tuple[File, ...] = attrs.field(default=(), converter=_files)
    stream: bool = False

    def with_body(self, **changes: Any) -> Request:
        """A copy with members of the body set anew; a value of ``None`` is kept as null."""
        return attrs.evolve(self, body={**self.body, **changes})


def _plain_message(choice: Choice) -> JsonObject:
    """The message of a choice that was made by hand and not read from a provider."""
    message: JsonObject = {"role": "assistant", "content": choice.text}
    if choice.tool_calls:
        message["tool_calls"] = [call.to_openai() for call in choice.tool_calls]
    return message


@attrs.frozen(kw_only=True)
class Choice:
    """One of the answers to a chat request.

    Attributes:
        index: Its place, from 0.
        text: The answer's text, or the words with which the model refused (``message["refusal"]`` has them then);
            ``""`` where there is none.
        reasoning: What the model thought, where the provider shows it.
        tool_calls: Calls that the model wants run.
        finish_reason: ``stop``, ``length``, ``tool_calls``, ``content_filter`` or the provider's own word.
        message: The assistant message as a dict, ready to be put into the next request's messages.
    """

    index: int = 0
    text: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = attrs.field(default=(), converter=_tool_calls)
    finish_reason: str | None = None
    message: JsonObject = attrs.field(default=attrs.Factory(_plain_message, takes_self=True), repr=False)


@attrs.frozen(kw_only=True)
class Chunk:
    """One piece of a streamed answer.

    Attributes:
        text: New text; ``""`` where the piece holds none.
        reasoning: New reasoning, where the provider shows it.
        tool_calls: Calls whose arguments are complete with this piece.
        finish_reason: Set on the last piece of a choice.
        usage: Set on the piece that carries it, mostly the last.
        index: The choice it belongs to.
        raw: The provider's event as JSON, lossless.
    """

    text: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    index: int = 0
    raw: JsonObject = attrs.field(factory=dict[str, Any], repr=False)

    @property
    def has_content(self) -> bool:
        """Whether it holds anything that a caller waits for: text, reasoning or a tool call."""
        return bool(self.text or self.reasoning or self.tool_calls)

    def as_said(self) -> Chunk:
        """The chunk without what its event repeats of others, for stream filters, which may have changed those.

        Of a Responses stream the events that accumulate keep what names and counts. Any other event without
        choices that has another text than the chunk (the last one of a transcription has all
        of it) keeps in ``raw`` only the members that name and count.
        """
        raw = self.raw
        if is_response_event(raw):
            said = said_event(raw, self.text)
            if said is None:
                return self.with_text(self.text)
            return self if said is raw else attrs.evolve(self, raw=said)
        if "choices" in raw or is_event(raw) or is_message(raw):
            return self
        if self.text == (raw.get("text") or raw.get("delta") or ""):
            return self
        return self.with_text(self.text)

    def with_text(self, text: str) -> Chunk:
        """A copy that says ``text`` instead, in ``raw`` too: the old words are nowhere behind it."""
        return attrs.evolve(self, text=text, raw=retold_raw(self.raw, text, self.index))


_WORDLESS = frozenset(
    {
        "type",
        "event",
        "id",
        "object",
        "created",
        "model",
        "usage",
        "language",
        "item_id",
        "response_id",
        "output_index",
        "content_index",
        "sequence_number",
    }
)  # members of a raw answer or event that hold nothing of what was said


def _retell(choice: JsonObject, text: str, index: int) -> JsonObject:
    """A raw choice (``message`` or ``delta``) whose words are replaced; log probabilities go, as they quote."""
    if choice.get("index", 0) != index:
        return choice
    changed = {name: value for name, value in choice.items() if name != "logprobs"}
    for member in ("message", "delta"):
        old: Any = choice.get(member)
        if isinstance(old, dict):
            changed[member] = retold_message(cast("JsonObject", old), text)
    return changed


def retold_message(message: JsonObject, text: str) -> JsonObject:
    """A message or a delta that says ``text``: its refusal, its sound and what quotes the old words go."""
    told = {name: value for name, value in message.items() if name not in {"audio", "annotations"}}
    if told.get("refusal") is not None:
        told["refusal"] = None
    return {**told, "content": retold_content(message.get("content"), text)}


def retold_content(content: Any, text: str) -> Any:
    """A message's content with its words replaced by ``text``; reasoning parts stay where they are, sealed ones too."""
    if not isinstance(content, list):
        return text
    members = cast("Sequence[object]", content)
    parts = [cast("JsonObject", part) for part in members if isinstance(part, dict)]
    kept = [part for part in parts if part.get("type") in ("thinking", "redacted_thinking")]
    return [*kept, {"type": "text", "text": text}] if kept else text


def retold_raw(raw: JsonObject, text: str, index: int) -> JsonObject:
    """A provider's JSON that says ``text``: in choice ``index`` where it has choices, else as a message or an event.

    Of events without choices only the members that name and count are kept, as others may repeat words.
    """
    if raw.get("choices"):
        return {**raw, "choices": [_retell(choice, text, index) for choice in raw["choices"]]}
    if is_message(raw):
        return message_saying(raw, text)
    if is_event(raw):
        return event_saying(raw, text)
    if isinstance(output := raw.get("output"), list) and raw.get("object") == "response":
        told = with_output_text(cast("list[JsonObject]", output), text, f"msg_{raw.get('id')}")
        return {name: value for name, value in raw.items() if name != "output_text"} | {"output": told}
    kept = {name: value for name, value in raw.items() if name in _WORDLESS}
    kept.update((name, text) for name in ("text", "delta") if isinstance(raw.get(name), str))
    if is_response_event(raw) and "logprobs" in raw:  # a list, which readers count on
        kept["logprobs"] = []
    return kept


def rebuilt_raw(raw: JsonObject, choices: Sequence[Choice]) -> JsonObject:
    """A provider's JSON whose answers are ``choices`` and nothing else; ``{}`` where there was none.

    Args:
        raw: Of an answer to a chat request, in OpenAI's shape or in Anthropic's.
        choices: At least one; a message of Anthropic's has no more.
    """
    if is_message(raw):
        first = choices[0]
        return {
            **raw,
            "content": blocks_of(first.text, first.reasoning, [call.to_openai() for call in first.tool_calls]),
        }
    kept: JsonObject = {name: value for name, value in raw.items() if name != "choices"}
    if raw:
        kept["choices"] = [
            {"index": each.index, "message": each.message, "finish_reason": each.finish_reason} for each in choices
        ]
    return kept
