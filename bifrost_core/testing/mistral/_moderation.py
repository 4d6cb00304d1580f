"""Moderation and classification: scores that depend on the words of the text alone.

A category scores 0.97 when the text holds one of the words its name is made of, as a whole word in any
case (``and`` and ``content`` aside: ``violence`` and ``threats`` both stand for ``violence_and_threats``);
else it scores nearly nothing. Labels of classifiers are found in the same way.

Source:
    https://docs.mistral.ai/capabilities/guardrailing (categories), https://docs.mistral.ai/api/endpoint/classifiers
    (members), and replies as they come since 2026 (usage, which the documentation leaves out).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bifrost_core.testing.serving._answers import Json, count_tokens
from bifrost_core.testing.serving._questions import Admission, Question
from bifrost_core.testing.serving._replies import Reply
from bifrost_core.testing.serving._scores import scores_of

from ._embeddings import flat_usage
from ._errors import detail_item
from ._members import (
    Check,
    Findings,
    Loc,
    check_members,
    is_list,
    is_object,
    list_of,
    mapping,
    optional,
    refuse,
    text,
    texts,
)
from ._vendor import limit_headers

__all__ = [
    "answer_chat_classifications",
    "answer_chat_moderations",
    "answer_classifications",
    "answer_moderations",
    "check_chat_classifications",
    "check_chat_moderations",
    "check_texts",
]

_CATEGORIES: Final = (
    "sexual",
    "hate_and_discrimination",
    "violence_and_threats",
    "selfharm",
    "health",
    "financial",
    "law",
    "pii",
)
_HIDDEN_2411: Final = 91  # tokens of the instructions that nobody sees, observed
_HIDDEN: Final = 61
_ROLES: Final = frozenset({"system", "user", "assistant", "tool"})

_encode = msgspec.json.Encoder().encode


# -- what is refused ---------------------------------------------------------------------------------------------


def check_texts(body: Json) -> None:
    """Refuse what moderations and classifications of texts refuse.

    Raises:
        MistralError: 422.
    """
    members: dict[str, Check] = {"model": text, "input": texts, "metadata": optional(mapping)}
    refuse(check_members(body, members, ("model", "input")))


def check_chat_moderations(body: Json) -> None:
    """Refuse what moderations of chats refuse: anything but a list of messages, or of such lists.

    Raises:
        MistralError: 422.
    """
    refuse(check_members(body, {"model": text, "input": _chats}, ("model", "input")))


def check_chat_classifications(body: Json) -> None:
    """Refuse what classifications of chats refuse: anything but ``{"messages": […]}``, or a list of them.

    Raises:
        MistralError: 422.
    """

    def instructions(loc: Loc, value: object) -> Findings:
        if is_list(value):
            return list_of(instruction)(loc, value)
        return instruction(loc, value)

    def instruction(loc: Loc, value: object) -> Findings:
        if not is_object(value):
            return mapping(loc, value)
        return check_members(value, {"messages": list_of(_message)}, ("messages",), loc=loc)

    refuse(check_members(body, {"model": text, "input": instructions}, ("model", "input")))


def _chats(loc: Loc, value: object) -> Findings:
    """A list of messages, or a list of such lists."""
    if is_list(value) and value and is_list(value[0]):
        return list_of(list_of(_message))(loc, value)
    return list_of(_message)(loc, value)


def _message(loc: Loc, value: object) -> Findings:
    """A message, as far as its role and the form of its content."""
    role: object = value.get("role") if is_object(value) else None
    if not is_object(value) or not isinstance(role, str) or role not in _ROLES:
        return [detail_item("union_tag_invalid", loc, "Input tag found using 'role' is not an expected tag", value)]
    content: object = value.get("content")
    if content is None or isinstance(content, str):
        return []
    return list_of(mapping)([*loc, role, "content"], content)


# -- what is answered --------------------------------------------------------------------------------------------


def answer_moderations(question: Question) -> Reply:
    """Moderation of each text.

    Raises:
        MistralError: The model or a limit refuses.
    """
    return _moderate(question, _as_list(question.body["input"]))


def answer_chat_moderations(question: Question) -> Reply:
    """Moderation of each chat.

    Raises:
        MistralError: The model or a limit refuses.
    """
    given: list[Any] = question.body["input"]
    chats: list[list[Json]] = given if given and is_list(given[0]) else [given]
    return _moderate(question, [_chat_text(chat) for chat in chats])


def answer_classifications(question: Question) -> Reply:
    """Classification of each text.

    Raises:
        MistralError: The model or a limit refuses.
    """
    return _classify(question, _as_list(question.body["input"]))


def answer_chat_classifications(question: Question) -> Reply:
    """Classification of each chat.

    Raises:
        MistralError: The model or a limit refuses.
    """
    given: Any = question.body["input"]
    chats: list[Json] = [given] if is_object(given) else given
    return _classify(question, [_chat_text(chat["messages"]) for chat in chats])


def _moderate(question: Question, inputs: list[str]) -> Reply:
    admission = question.admit("moderation", "req", "tokens")
    names = _categories(admission.model.name)
    results: list[Json] = []
    for each in inputs:
        scores = scores_of(each, names)
        results.append({"categories": {name: score > 0.5 for name, score in scores.items()}, "category_scores": scores})
    return _reply(question, admission, inputs, results)


def _classify(question: Question, inputs: list[str]) -> Reply:
    admission = question.admit("classification", "req", "tokens")
    targets = admission.model.targets or {"category": _categories(admission.model.name)}
    results: list[Json] = [
        {name: {"scores": _shares(each, labels)} for name, labels in targets.items()} for each in inputs
    ]
    return _reply(question, admission, inputs, results)


def _reply(question: Question, admission: Admission, inputs: list[str], results: list[Json]) -> Reply:
    model = admission.model.name
    tokens = sum(map(count_tokens, inputs))
    admission.quota.charge("tokens", tokens)
    hidden = _HIDDEN_2411 if model.endswith("2411") else _HIDDEN
    body = {
        "id": question.new_id(),
        "usage": flat_usage(tokens, tokens + hidden),
        "model": question.body["model"],
        "results": results,
    }
    reply = question.reply(_encode(body))
    reply.headers = [*limit_headers(admission.quota, "req"), ("x-ratelimit-tokens-query-cost", str(tokens))]
    reply.prompt_tokens = tokens
    return reply


def _categories(model: str) -> tuple[str, ...]:
    """The categories of a model, by its canonical name."""
    if model.endswith("2411"):
        return (*_CATEGORIES, "dangerous_and_criminal_content")
    return (*_CATEGORIES, "dangerous", "criminal", "jailbreaking")


def _shares(words: str, labels: Sequence[str]) -> dict[str, float]:
    """Scores that add up to one."""
    scores = scores_of(words, labels)
    total = sum(scores.values())
    return {label: score / total for label, score in scores.items()}


def _as_list(given: str | list[str]) -> list[str]:
    return [given] if isinstance(given, str) else given


def _chat_text(messages: list[Json]) -> str:
    """All that is said in a chat."""
    said: list[str] = []
    for message in messages:
        content: Any = message.get("content") or ""
        parts: list[object] = [{"text": content}] if isinstance(content, str) else content
        said += [str(part.get("text", "")) for part in parts if is_object(part)]
    return "\n".join(said)
