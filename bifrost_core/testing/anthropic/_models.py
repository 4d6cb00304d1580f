"""The model list, page by page.

Source:
    https://platform.claude.com/docs/en/api/models/list.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import Reply
from bifrost_core.testing.serving.catalogue import SimulatedModel

from ._errors import AnthropicError
from .catalogue import traits_of

__all__ = ["answer_model", "answer_models"]

_PAGE: Final = 20
_MOST: Final = 1000

_encode = msgspec.json.Encoder().encode


def answer_models(question: Question) -> Reply:
    """A page of the models under their canonical names.

    Raises:
        AnthropicError: 400: ``limit`` is no number from 1 to 1,000.
    """
    query = question.query
    stated = query.get("limit", str(_PAGE))
    if not (stated.isascii() and stated.isdigit() and 1 <= int(stated) <= _MOST):
        raise AnthropicError.bad(f"limit: Input should be a number from 1 to {_MOST}")
    limit = int(stated)
    entries = [_entry(model) for name, model in question.service.models.items() if name == model.name]
    names = [entry["id"] for entry in entries]
    if "before_id" in query:
        before = names.index(query["before_id"]) if query["before_id"] in names else 0
        start, end = max(0, before - limit), before
        more = start > 0
    else:
        start = names.index(query["after_id"]) + 1 if query.get("after_id") in names else 0
        end = start + limit
        more = end < len(entries)
    page = entries[start:end]
    body = {
        "data": page,
        "has_more": more,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }
    return Reply(body=_encode(body))


def answer_model(question: Question) -> Reply:
    """One entry.

    Raises:
        AnthropicError: 404: no model has that name.
    """
    model = question.service.models.get(question.path_id)
    if model is None:
        raise question.service.vendor.no_model(question.path_id)
    return Reply(body=_encode(_entry(model)))


def _entry(model: SimulatedModel) -> dict[str, Any]:
    line = model.name.split("-")[1] if model.name.count("-") else None
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name.replace("-", " ").title(),
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active" if model.deprecation is None else "deprecated",
        "line": line if line in {"haiku", "sonnet", "opus", "fable", "mythos"} else None,
        "max_input_tokens": model.context,
        "max_tokens": traits_of(model.name).output,
        "capabilities": None,
        "deprecated_at": None,
        "retires_at": model.deprecation,
    }
