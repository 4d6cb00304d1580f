"""Moderation: scores that depend on the words of the text alone; see ``scores_of``.

Source:
    https://platform.openai.com/docs/api-reference/moderations and .../guides/moderation (categories, and which of
    them look at images).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bifrost_core.testing.serving._answers import Json, count_tokens
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import Reply
from bifrost_core.testing.serving._scores import scores_of

from ._members import Check, check_members, is_list, is_object, list_of, members, refused, text
from ._vendor import limit_headers

__all__ = ["answer_moderations", "check_moderations"]

_DEFAULT_MODEL: Final = "omni-moderation-latest"
_CATEGORIES: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_SEEN: Final = frozenset(
    {"self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "violence", "violence/graphic"}
)

_encode = msgspec.json.Encoder().encode


def _input(path: str, value: object) -> None:
    """A text, a list of texts, or a list of parts."""
    if isinstance(value, str):
        return
    parts = members({"type": text, "text": text, "image_url": members({"url": text}, "url")}, "type")
    if is_list(value) and value and all(isinstance(each, str) for each in value):
        return
    if not is_list(value) or not value:
        raise refused(f"Invalid type for '{path}': expected a string or an array.", path, "invalid_type")
    list_of(parts)(path, value)


_MEMBERS: Final[dict[str, Check]] = {"model": text, "input": _input}


def check_moderations(body: Json) -> None:
    """Refuse what moderations refuse, and fill in the model.

    Raises:
        OpenAIError: 400 for the first finding.
    """
    check_members(body, _MEMBERS, ("input",))
    body["model"] = body.get("model") or _DEFAULT_MODEL


def answer_moderations(question: Question) -> Reply:
    """One result for each text, or one for all parts.

    Raises:
        ApiError: The model or a limit refuses.
    """
    body = question.body
    admission = question.admit("moderation", "req", "tokens")
    given: list[Any] = [body["input"]] if isinstance(body["input"], str) else body["input"]
    parts = [part for part in given if is_object(part)]
    images = any(part["type"] == "image_url" for part in parts)
    texts = ["\n".join(str(part.get("text") or "") for part in parts)] if parts else [str(each) for each in given]
    tokens = sum(map(count_tokens, texts))
    admission.quota.charge("tokens", tokens)
    results = [_result(each, images=images) for each in texts]
    reply = question.reply(
        _encode({"id": f"modr-{question.new_id()}", "model": admission.model.name, "results": results})
    )
    reply.headers = limit_headers(admission.quota)
    reply.prompt_tokens = tokens
    return reply


def _result(words: str, *, images: bool) -> Json:
    scores = scores_of(words, _CATEGORIES)
    categories = {name: score > 0.5 for name, score in scores.items()}
    kinds = {name: ["text", "image"] if images and name in _SEEN else ["text"] for name in _CATEGORIES}
    return {
        "flagged": any(categories.values()),
        "categories": categories,
        "category_scores": scores,
        "category_applied_input_types": kinds,
    }
