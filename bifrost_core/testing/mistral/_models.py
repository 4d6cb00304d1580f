"""The model list."""

from __future__ import annotations

import msgspec

from ._errors import ApiError
from ._questions import Question
from ._replies import Reply

__all__ = ["answer_model", "answer_models"]

_encode = msgspec.json.Encoder().encode


def answer_models(question: Question) -> Reply:
    """All models, one entry for each of their names.

    Source:
        https://docs.mistral.ai/api/endpoint/models, and lists as they come since 2026.
    """
    listed = [model.entry(name) for name, model in question.service.models.items()]
    return Reply(body=_encode({"object": "list", "data": listed}))


def answer_model(question: Question) -> Reply:
    """One entry.

    Raises:
        ApiError: 404 in the gateway's shape: no model has that name.
    """
    model = question.service.models.get(question.path_id)
    if model is None:
        raise ApiError.gateway(404, f"Model {question.path_id} was not found.", None)
    return Reply(body=_encode(model.entry(question.path_id)))
