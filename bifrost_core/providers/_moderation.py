"""Verdicts in the shape that OpenAI and Mistral share: one per input, categories and scores.

Source:
    https://platform.openai.com/docs/api-reference/moderations and https://docs.mistral.ai/api/endpoint/classifiers.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Callable
from typing import Any, TypeVar

from bifrost_core.responses import ModerationResult
from bifrost_core.types import JsonObject, Request
from bifrost_core.wire import HttpReply

from ._chat import MalformedError, read_object, read_usage
from ._reporter import Reporter

__all__ = ["facts_of", "read_results", "read_scores", "read_verdict"]

_T = TypeVar("_T")


def facts_of(request: Request, reply: HttpReply, reporter: Reporter, data: JsonObject) -> dict[str, Any]:
    """What an answer says beside its verdicts."""
    model = data.get("model")
    return {
        "model": model if isinstance(model, str) else request.model,
        "usage": read_usage(data.get("usage"), reporter),
        "raw": data,
        "headers": reply.headers,
    }


def read_results(
    reply: HttpReply, reporter: Reporter, count: int, read: Callable[[Any, str], _T]
) -> tuple[JsonObject, tuple[_T, ...]]:
    """The answer's JSON and what ``read`` makes of each result.

    Raises:
        ProviderServerError: It can not be used (``bad_response``): not ``count`` results, or one that can not be read.
    """
    data = read_object(reply, reporter)
    results = data.get("results")
    why = ""
    made: tuple[_T, ...] = ()
    if not isinstance(results, list) or len(results) != count:
        held = len(results) if isinstance(results, list) else "no"
        why = f"there are {held} results in it for {count} inputs"
    else:
        try:
            made = tuple(read(result, f"results[{place}]") for place, result in enumerate(results))
        except MalformedError as exc:
            why = str(exc)
    if why:
        raise reporter.unusable(reply, why)
    return data, made


def read_verdict(result: Any, path: str) -> ModerationResult:
    """One verdict. A category that a model does not judge is null at OpenAI: there is no verdict on it.

    Raises:
        MalformedError: It can not be read.
    """
    categories = _judged(result.get("categories")) if isinstance(result, dict) else None
    if categories is None or not set(map(type, categories.values())) <= {bool}:
        raise MalformedError(f"{path}.categories does not say of each whether it applies")
    return ModerationResult(categories=categories, scores=read_scores(_judged(result.get("category_scores")), path))


def _judged(given: Any) -> dict[str, Any] | None:
    return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else None


def read_scores(scores: Any, path: str) -> dict[str, float]:
    """Scores by name.

    Raises:
        MalformedError: They are no numbers.
    """
    made: dict[str, float] | None = None
    if isinstance(scores, dict) and set(map(type, scores.values())) <= {int, float}:
        try:
            made = {name: float(score) for name, score in scores.items()}
        except OverflowError:  # a whole number with hundreds of digits
            made = None
    if made is None:
        raise MalformedError(f"the scores of {path} are no numbers")
    return made
