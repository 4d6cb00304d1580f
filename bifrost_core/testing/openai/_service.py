"""The simulated OpenAI service: what it keeps beside what every service keeps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._service import Service
from bifrost_core.testing.serving.catalogue import SimulatedModel
from bifrost_core.testing.serving.laws import SimulatedKey

from ._members import refused
from ._vendor import OpenAIVendor

__all__ = ["OpenAIService", "calls_before", "remember"]

_MOST: Final = 10_000  # responses whose ids are kept


class OpenAIService(Service):
    """A service that knows which responses it made, for those that follow them.

    Args:
        keys: Those that are accepted.
        models: Those that are listed.
        options: As for every service.
    """

    def __init__(self, keys: Iterable[SimulatedKey], models: Iterable[SimulatedModel], **options: Any) -> None:
        self.responses: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()
        super().__init__(OpenAIVendor(), keys, models, **options)

    def reset(self) -> None:
        """Begin anew, without responses."""
        super().reset()
        self.responses.clear()


def _service(question: Question) -> OpenAIService:
    """The service, which is OpenAI's wherever OpenAI's endpoints are served."""
    service = question.service
    if not isinstance(service, OpenAIService):
        msg = f"responses are kept by a simulated OpenAI, not by {type(service).__name__}"
        raise TypeError(msg)
    return service


def calls_before(question: Question) -> frozenset[str]:
    """The ids of the calls that the response before made.

    Raises:
        OpenAIError: 400: the organisation has no such response.
    """
    name: str | None = question.body.get("previous_response_id")
    if name is None:
        return frozenset()
    found = _service(question).responses.get((question.owner, name))
    if found is None:
        message = f"Previous response with id '{name}' not found."
        raise refused(message, "previous_response_id", "previous_response_not_found")
    return found


def remember(question: Question, response_id: str, calls: Iterable[str]) -> None:
    """Keep the ids of a response and of its calls, unless ``store`` says not to."""
    if question.body.get("store") is False:
        return
    responses = _service(question).responses
    responses[question.owner, response_id] = frozenset(calls)
    if len(responses) > _MOST:
        responses.popitem(last=False)
