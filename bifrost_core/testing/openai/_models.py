"""The model list.

Source:
    https://platform.openai.com/docs/api-reference/models.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import Reply

__all__ = ["answer_model", "answer_models"]

_CREATED: Final = 1_715_367_049  # seconds since 1970-01-01 UTC, of all models

_encode = msgspec.json.Encoder().encode


def answer_models(question: Question) -> Reply:
    """All models, one entry for each of their names."""
    return Reply(body=_encode({"object": "list", "data": [_entry(name) for name in question.service.models]}))


def answer_model(question: Question) -> Reply:
    """One entry.

    Raises:
        OpenAIError: 404: no model has that name.
    """
    if question.path_id not in question.service.models:
        raise question.service.vendor.no_model(question.path_id)
    return Reply(body=_encode(_entry(question.path_id)))


def _entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "system"}
