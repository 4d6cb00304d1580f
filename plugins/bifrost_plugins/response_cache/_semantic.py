"""The second layer: an answer to a similar question, asked in the same surroundings by the same party."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast

import anyio
import attrs

from bifrost_core import Call, ConfigError, EmbeddingResponse, Operation, Request

__all__ = ["Place", "Question", "Semantic", "Vectors", "embedded", "question_of", "vectors_for"]

_FIELDS: Final = {Operation.CHAT: "messages", Operation.RESPONSES: "input"}
_TEXT_TYPES: Final = frozenset({"text", "input_text"})


def _share(instance: object, attribute: attrs.Attribute[float], value: object) -> None:  # noqa: ARG001 # attrs' signature
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ConfigError(f"threshold is a cosine > 0, at most 1, not {value!r}", field="threshold")


def _count(instance: object, attribute: attrs.Attribute[int], value: object) -> None:  # noqa: ARG001 # attrs' signature
    if type(value) is not int or value < 1:
        raise ConfigError(f"{attribute.name} is a whole number > 0, not {value!r}", field=attribute.name)


def _seconds(instance: object, attribute: attrs.Attribute[float], value: object) -> None:  # noqa: ARG001 # attrs' signature
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{attribute.name} is a finite number of seconds > 0, not {value!r}", field=attribute.name)


@attrs.frozen
class Semantic:
    """Answers from similar questions.

    Only the text of the last user message is compared. Everything else has to be the same, and is compared before any
    vector is looked at: whose call it is, the model, all parameters and tools, the system prompt and the whole
    conversation before that message. What has no such text (images, tool results at the end) takes no part.

    The text is embedded by a call of its own through the same Router, with the caller's virtual key: it is
    authenticated, reserved, recorded and paid like any other call, and passes the cache by.

    Vectors are in memory, ``4.1 * dimensions`` bytes each (1,024 dimensions: 4.2 kB), also where answers are in a store.

    Attributes:
        embed_model: ``"provider/model"`` or an alias.
        threshold: Least cosine of the angle between two texts that mean the same, over 0 up to 1. It depends on the
            embedding model: measure it on texts of your own.
        max_vectors: Over all partitions.
        partition_vectors: In each partition; at most ``max_vectors``.
        max_characters: Longer texts are not embedded: what is long differs in details that a vector does not show.
        timeout: Seconds that embedding may take; then the call goes on without.

    Raises:
        ConfigError: A number is out of range, or numpy is not installed (extra ``semantic``).
    """

    embed_model: str
    threshold: float = attrs.field(default=0.95, validator=_share)
    max_vectors: int = attrs.field(default=10_000, validator=_count)
    partition_vectors: int = attrs.field(default=1_000, validator=_count, kw_only=True)
    max_characters: int = attrs.field(default=8_192, validator=_count, kw_only=True)
    timeout: float = attrs.field(default=2.0, validator=_seconds, kw_only=True)

    def __attrs_post_init__(self) -> None:
        vectors_for(self)


class Vectors(Protocol):
    """See ``_vectors.Vectors``, which needs numpy and is imported where it is used."""

    count: int

    def nearest(self, partition: bytes, vector: Sequence[float]) -> tuple[str, float] | None:
        """The most similar one of a partition."""
        ...

    def add(self, partition: bytes, vector: Sequence[float], key: str) -> None:
        """Remember one."""
        ...

    def remove(self, partition: bytes, key: str) -> None:
        """Forget one."""
        ...


@attrs.frozen
class Question:
    """A request as the text that is compared, and the body without it."""

    text: str = attrs.field(repr=False)
    body: Mapping[str, Any] = attrs.field(repr=False)


@attrs.frozen
class Place:
    """Where the vector of a question belongs."""

    partition: bytes
    vector: Sequence[float] = attrs.field(repr=False)


def vectors_for(semantic: Semantic) -> Vectors:
    """An empty index.

    Raises:
        ConfigError: numpy is not installed.
    """
    try:
        module = importlib.import_module("._vectors", __package__)
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] != "numpy":
            raise
        raise ConfigError(
            "a semantic cache needs numpy; pip install 'bifrost-core[semantic]'", field="semantic"
        ) from None
    return cast("Vectors", module.Vectors(semantic.max_vectors, min(semantic.partition_vectors, semantic.max_vectors)))


def question_of(request: Request, most: int) -> Question | None:
    """The text of the last user message, which has to be the last of all; None where there is none to compare.

    Args:
        request: As it stands behind the guardrails.
        most: Characters.
    """
    field = _FIELDS.get(request.operation)
    items: Any = None if field is None else request.body.get(field)
    if field is None or not isinstance(items, list) or not items:
        return None
    messages = cast("list[object]", items)
    last = messages[-1]
    if not isinstance(last, Mapping) or (message := cast("Mapping[str, Any]", last)).get("role") != "user":
        return None
    text = _text(message.get("content"))
    if text is None or not text.strip() or len(text) > most:
        return None
    return Question(text, {**request.body, field: [*messages[:-1], {**message, "content": None}]})


def _text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and len(parts := cast("list[object]", content)) == 1 and isinstance(parts[0], Mapping):
        part = cast("Mapping[str, Any]", parts[0])
        text = part.get("text")
        if part.get("type") in _TEXT_TYPES and set(part) == {"type", "text"} and isinstance(text, str):
            return text
    return None


async def embedded(semantic: Semantic, text: str, call: Call) -> EmbeddingResponse | None:
    """The answer with the vector of a text; None when its time is up.

    Raises:
        CallError: It failed, or the caller may not use the embedding model.
    """
    with anyio.move_on_after(semantic.timeout):
        answer: EmbeddingResponse = await call.router.embed(
            semantic.embed_model,
            [text],
            virtual_key=call.virtual_key,
            timeout=semantic.timeout,
            metadata={"response_cache": call.id},
            cache="bypass",
        )
        return answer
    return None
