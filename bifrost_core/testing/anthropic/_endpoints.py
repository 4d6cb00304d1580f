"""What is served where."""

from __future__ import annotations

import re
from typing import Final

from bifrost_core.testing.serving._endpoints import Endpoint

from ._messages import answer_count, answer_messages
from ._models import answer_model, answer_models

__all__ = ["find_endpoint"]

_PATHS: Final[dict[tuple[str, str], Endpoint]] = {
    ("POST", "/v1/messages"): Endpoint(answer=answer_messages),
    ("POST", "/v1/messages/count_tokens"): Endpoint(answer=answer_count),
    ("GET", "/v1/models"): Endpoint(answer=answer_models, has_body=False),
}
_MODEL: Final = re.compile(r"/v1/models/(.+)")


def find_endpoint(method: str, path: str) -> tuple[Endpoint, str] | None:
    """What answers a method and a path, and the id in the path; None: nothing does."""
    found = _PATHS.get((method, path))
    if found is not None:
        return found, ""
    match = _MODEL.fullmatch(path) if method == "GET" else None
    return None if match is None else (Endpoint(answer=answer_model, has_body=False), match[1])
