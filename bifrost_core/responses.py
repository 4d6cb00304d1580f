"""Answers, one class per kind of operation. Frozen; ``raw`` is what the provider said, lossless."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Self, cast

import attrs

from .attempts import Attempt
from .blocks import is_message
from .response_objects import with_output_text
from .types import Choice, JsonObject, RouteRef, ToolCall, Usage, retold_message, retold_raw

__all__ = [
    "ChatResponse",
    "ClassificationResponse",
    "EmbeddingResponse",
    "ModelInfo",
    "ModelList",
    "ModerationResponse",
    "ModerationResult",
    "OcrPage",
    "OcrResponse",
    "Response",
    "ResponsesResponse",
    "Segment",
    "SpeechResponse",
    "Transcription",
]

_NO_ROUTE = RouteRef("", "", "")
_NO_USAGE = Usage()


@attrs.frozen(kw_only=True)
class Response:
    """What every answer holds.

    Attributes:
        model: The model that answered, as the provider names it.
        usage: Tokens, pages or seconds of the attempts whose words this holds.
        cost: USD of ``usage``; None where the price is unknown.
        route: Provider, model and key id that answered.
        attempts: Every attempt of the call, failed ones included, in order.
        latency: Seconds from the call's start to its end.
        time_to_first_token: Seconds from the call's start to the first content; streams only.
        cached: Whether the answer came from a cache, without a provider.
        raw: The provider's JSON, lossless.
        headers: Response headers, names in lower case.
        call_id: The call's id.
    """

    model: str = ""
    usage: Usage = _NO_USAGE
    cost: Decimal | None = None
    route: RouteRef = _NO_ROUTE
    attempts: tuple[Attempt, ...] = attrs.field(default=(), repr=False)
    latency: float = 0.0
    time_to_first_token: float | None = None
    cached: bool = False
    raw: JsonObject = attrs.field(factory=dict[str, Any], repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    call_id: str = ""

    def with_text(self, text: str) -> Self:  # noqa: ARG002 # those that have text replace it
        """A copy that says ``text`` instead, ``raw`` included.

        Raises:
            TypeError: An answer of this kind has no text.
        """
        raise TypeError(f"{type(self).__name__} has no text that could be replaced")


def _choices(choices: Iterable[Choice]) -> tuple[Choice, ...]:
    return tuple(choices)


@attrs.frozen(kw_only=True)
class ChatResponse(Response):
    """The answer to a chat or fill-in-the-middle request.

    Attributes:
        choices: The answers, by index; one unless ``n`` asked for more.
        resumed: Another attempt went on where the stream of the first had broken off; ``usage`` and ``cost`` are
            those of both, those of the first estimated where the provider did not say.
    """

    choices: tuple[Choice, ...] = attrs.field(default=(), converter=_choices)
    resumed: bool = False
    _parse: Callable[[str], Any] | None = attrs.field(default=None, alias="parse", repr=False, eq=False)

    @property
    def text(self) -> str:
        """Text of the first choice; ``""`` where there is none."""
        return self.choices[0].text if self.choices else ""

    @property
    def reasoning(self) -> str | None:
        """What the model thought before the first choice, where the provider shows it."""
        return self.choices[0].reasoning if self.choices else None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Tool calls of the first choice."""
        return self.choices[0].tool_calls if self.choices else ()

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None

    @property
    def message(self) -> JsonObject:
        """The first choice's assistant message, ready for the next request's messages."""
        return self.choices[0].message if self.choices else {"role": "assistant", "content": ""}

    @property
    def parsed(self) -> Any:
        """The text as an instance of the class given as ``response_format``; None without one.

        Raises:
            StructuredOutputError: The text does not fit the class; ``text`` still has it.
        """
        return None if self._parse is None else self._parse(self.text)

    def with_parser(self, parse: Callable[[str], Any]) -> Self:
        """A copy whose ``parsed`` is what ``parse`` makes of the text."""
        return attrs.evolve(self, parse=parse)

    def with_text(self, text: str) -> Self:
        """A copy whose first choice says ``text``, in ``message`` and ``raw`` too."""
        if not self.choices:
            return attrs.evolve(self, choices=(Choice(text=text),))  # pyright: ignore[reportCallIssue] # `message` has a default
        first = self.choices[0]
        changed = attrs.evolve(first, text=text, message=retold_message(first.message, text))
        return attrs.evolve(
            self,
            choices=(changed, *self.choices[1:]),
            raw=retold_raw(self.raw, text, first.index),
        )

    def to_openai(self) -> JsonObject:
        """The answer as an OpenAI chat completion."""
        choices: list[JsonObject] = []
        for choice in self.choices:
            message: JsonObject = {"role": "assistant", "content": choice.text or None}
            if choice.message.get("refusal") and choice.message["refusal"] == choice.text:
                message |= {"content": None, "refusal": choice.text}
            elif not choice.tool_calls:
                message["content"] = choice.text
            if choice.reasoning:
                message["reasoning_content"] = choice.reasoning
            if choice.tool_calls:
                message["tool_calls"] = [call.to_openai() for call in choice.tool_calls]
            choices.append(
                {"index": choice.index, "message": message, "finish_reason": choice.finish_reason, "logprobs": None}
            )
        read: JsonObject = {"cached_tokens": self.usage.cached_tokens}
        if self.usage.cache_write_tokens:
            read["cache_write_tokens"] = self.usage.cache_write_tokens
        return {
            "id": self.raw.get("id") or self.call_id,
            "object": "chat.completion",
            "created": self.raw.get("created") or 0,
            "model": self.model,
            "choices": choices,
            "usage": {
                "prompt_tokens": self.usage.input_tokens,
                "completion_tokens": self.usage.output_tokens,
                "total_tokens": self.usage.total_tokens,
                "prompt_tokens_details": read,
                "completion_tokens_details": {"reasoning_tokens": self.usage.reasoning_tokens},
            },
        }


@attrs.frozen(kw_only=True)
class EmbeddingResponse(Response):
    """Vectors.

    Attributes:
        embeddings: One per input, in input order. A vector that came as JSON is the very list in ``raw`` (nothing is
            rounded, and nothing is held twice: change a copy); one that came as base64 is an ``array``. Of
            whole-number formats (``int8`` and its like) the numbers are ``int``.
    """

    embeddings: tuple[Sequence[float], ...] = attrs.field(default=(), converter=tuple[Sequence[float], ...], repr=False)


@attrs.frozen(kw_only=True)
class Segment:
    """A stretch of transcribed speech: ``start`` and ``end`` in seconds, ``speaker`` where told apart."""

    text: str
    start: float | None = None
    end: float | None = None
    speaker: str | None = None


@attrs.frozen(kw_only=True)
class Transcription(Response):
    """Speech as text.

    Attributes:
        text: The whole text.
        language: Two-letter code, where the provider tells it.
        segments: Stretches with times, where they were asked for.
    """

    text: str = ""
    language: str | None = None
    segments: tuple[Segment, ...] = attrs.field(default=(), converter=tuple[Segment, ...])

    def with_text(self, text: str) -> Self:
        """A copy that says ``text``; the segments, which hold the old words, go."""
        return attrs.evolve(self, text=text, segments=(), raw=retold_raw(self.raw, text, 0))


@attrs.frozen(kw_only=True)
class OcrPage:
    """One page: its ``index`` from 0, text as Markdown, images, tables and dimensions as the provider has them."""

    index: int
    markdown: str
    images: tuple[JsonObject, ...] = attrs.field(default=(), converter=tuple[JsonObject, ...], repr=False)
    tables: tuple[JsonObject, ...] = attrs.field(default=(), converter=tuple[JsonObject, ...], repr=False)
    dimensions: JsonObject | None = None


@attrs.frozen(kw_only=True)
class OcrResponse(Response):
    """A document as text.

    Attributes:
        pages: In order.
    """

    pages: tuple[OcrPage, ...] = attrs.field(default=(), converter=tuple[OcrPage, ...])
    _annotation: Any = attrs.field(default=None, alias="annotation", repr=False)
    _parse: Callable[[str], Any] | None = attrs.field(default=None, alias="parse", repr=False, eq=False)

    @property
    def annotation(self) -> Any:
        """The document annotation, where one was asked for.

        An instance of the class given as ``document_annotation_format``, else what its JSON holds; text that is no
        JSON stays text.

        Raises:
            StructuredOutputError: It does not fit the class; its text is kept in the error and in ``raw``.
        """
        if self._parse is None or not isinstance(self._annotation, str):
            return self._annotation
        return self._parse(self._annotation)

    @property
    def text(self) -> str:
        """Markdown of all pages, a blank line between them."""
        return "\n\n".join(page.markdown for page in self.pages)

    def with_text(self, text: str) -> Self:
        """A copy whose first page says ``text``; what else holds the old words goes.

        That are the other pages' texts, all images and tables (text may be seen in them), and the annotation.
        """
        pages = [OcrPage(index=page.index, markdown="", dimensions=page.dimensions) for page in self.pages]
        first = attrs.evolve(pages[0], markdown=text) if pages else OcrPage(index=0, markdown=text)
        told = (first, *pages[1:])
        raw: JsonObject = {name: value for name, value in self.raw.items() if name in {"model", "usage_info"}}
        if self.raw:
            raw["pages"] = [
                {"index": page.index, "markdown": page.markdown, "images": [], "dimensions": page.dimensions}
                for page in told
            ]
        return attrs.evolve(self, pages=told, annotation=None, parse=None, raw=raw)


@attrs.frozen(kw_only=True)
class ModerationResult:
    """The verdict on one input: by category whether it applies, and how sure (0 to 1)."""

    categories: dict[str, bool]
    scores: dict[str, float]

    @property
    def flagged(self) -> bool:
        """Whether any category applies."""
        return any(self.categories.values())


@attrs.frozen(kw_only=True)
class ModerationResponse(Response):
    """Verdicts, one per input, in input order."""

    results: tuple[ModerationResult, ...] = attrs.field(default=(), converter=tuple[ModerationResult, ...])


@attrs.frozen(kw_only=True)
class ClassificationResponse(Response):
    """What a classifier says.

    Attributes:
        results: One per input, in input order: of each target (``"intent"``) the score of each of its labels.
    """

    results: tuple[dict[str, dict[str, float]], ...] = attrs.field(
        default=(), converter=tuple[dict[str, dict[str, float]], ...]
    )


@attrs.frozen(kw_only=True)
class SpeechResponse(Response):
    """Text as sound.

    Attributes:
        audio: The sound file.
        format: What sort of file: ``mp3``, ``wav``, ``flac``, ``opus``, or ``pcm`` (samples alone).
    """

    audio: bytes = attrs.field(default=b"", repr=False)
    format: str = "mp3"


@attrs.frozen(kw_only=True)
class ResponsesResponse(Response):
    """An answer in the OpenAI Responses shape.

    Where the provider has no such shape itself, ``raw`` is the chat completion that it sent.

    Attributes:
        id: ``resp_…``, made of the chat completion's id; ``""`` where that has none.
        status: ``completed``, ``incomplete`` or ``in_progress``.
        incomplete_reason: ``max_output_tokens`` or ``content_filter`` where ``status`` is ``incomplete``.
        output: Output items as dicts, ready to be put into the next request's ``input``.
        echo: Members of the caller's request that the OpenAI shape repeats.
        resumed: As of a ``ChatResponse``.

    Source:
        https://platform.openai.com/docs/api-reference/responses/object
    """

    id: str = ""
    status: str = "completed"
    incomplete_reason: str | None = None
    output: tuple[JsonObject, ...] = attrs.field(default=(), converter=tuple[JsonObject, ...])
    echo: JsonObject = attrs.field(factory=dict[str, Any], repr=False)
    resumed: bool = False
    _parse: Callable[[str], Any] | None = attrs.field(default=None, alias="parse", repr=False, eq=False)

    @property
    def output_text(self) -> str:
        """The text of every message item."""
        return "".join(
            str(part.get("text", ""))
            for item in self.output
            if item.get("type") == "message"
            for part in item.get("content", ())
            if part.get("type") == "output_text"
        )

    @property
    def reasoning(self) -> str | None:
        """What the model thought, where the provider shows it."""
        thoughts = [
            str(part.get("text", ""))
            for item in self.output
            if item.get("type") == "reasoning"
            for part in item.get("content") or item.get("summary") or ()
        ]
        return "".join(thoughts) or None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The function calls; ``id`` is their ``call_id``, which ``function_call_output`` items name."""
        return tuple(
            ToolCall(str(item.get("call_id", "")), str(item.get("name", "")), str(item.get("arguments", "")))
            for item in self.output
            if item.get("type") == "function_call"
        )

    @property
    def parsed(self) -> Any:
        """The text as an instance of the class given as ``text_format``; None without one.

        Raises:
            StructuredOutputError: The text does not fit the class; ``output_text`` still has it.
        """
        return None if self._parse is None else self._parse(self.output_text)

    def with_parser(self, parse: Callable[[str], Any]) -> Self:
        """A copy whose ``parsed`` is what ``parse`` makes of the text."""
        return attrs.evolve(self, parse=parse)

    def with_text(self, text: str) -> Self:
        """A copy whose first text part says ``text``, in ``raw`` too; the other text parts and refusals go."""
        name = f"msg_{self.id.removeprefix('resp_') or '0'}_{len(self.output)}"
        output = with_output_text(self.output, text, name)
        raw = self.raw
        if raw.get("choices") or is_message(raw):
            raw = retold_raw(raw, text, 0)
        elif raw:
            raw = {name: value for name, value in raw.items() if name != "output_text"}
            raw["output"] = output
        return attrs.evolve(self, output=tuple(output), raw=raw)

    def to_openai(self) -> JsonObject:
        """The answer as an OpenAI response object."""
        if isinstance(self.raw.get("output"), list):  # the provider's own shape
            return {**self.raw, "output": list(self.output)}
        reason = self.incomplete_reason
        return {
            "background": False,
            "instructions": None,
            "max_output_tokens": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": None,
            "temperature": None,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "truncation": "disabled",
            **self.echo,
            "id": self.id or f"resp_{self.call_id.removeprefix('call_')}",
            "object": "response",
            "created_at": self.raw.get("created") or 0,
            "status": self.status,
            "error": None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "model": self.model,
            "output": list(self.output),
            "usage": None if self.status == "in_progress" else self._usage(),
        }

    def _usage(self) -> JsonObject:
        counted: Any = self.raw.get("usage")
        total: Any = cast("JsonObject", counted).get("total_tokens") if isinstance(counted, dict) else None
        return {
            "input_tokens": self.usage.input_tokens,
            "input_tokens_details": {
                "cached_tokens": self.usage.cached_tokens,
                "cache_write_tokens": self.usage.cache_write_tokens,
            },
            "output_tokens": self.usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.usage.reasoning_tokens},
            # As counted: with audio it is more than the sum of the two.
            "total_tokens": total if type(total) is int else self.usage.total_tokens,
        }


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@attrs.frozen(kw_only=True)
class ModelInfo:
    """A model that a provider offers, under one of its names: whatever can be called has one.

    Attributes:
        id: ``"provider/model"``, ready for a call; unique in a list.
        provider: Name of the provider.
        name: Name at the provider: the model's own, the same under each of its aliases.
        aliases: Other names of the same model.
        capabilities: What it can do, in the provider's words; nothing where it does not say (Mistral's
            embedding models say nothing).
        context_length: Tokens of prompt and answer together.
        deprecation: ISO time from which on it is gone.
        replacement: The model that replaces it.
        raw: The provider's entry, lossless.
    """

    id: str
    provider: str
    name: str
    aliases: tuple[str, ...] = attrs.field(default=(), converter=tuple[str, ...])
    capabilities: frozenset[str] = attrs.field(default=frozenset(), converter=_names)
    context_length: int | None = None
    deprecation: str | None = None
    replacement: str | None = None
    raw: JsonObject = attrs.field(factory=dict[str, Any], repr=False)


@attrs.frozen(kw_only=True)
class ModelList(Response):
    """The models of one provider, in its order; an ``id`` occurs once."""

    models: tuple[ModelInfo, ...] = attrs.field(default=(), converter=tuple[ModelInfo, ...])
