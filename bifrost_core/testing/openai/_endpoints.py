"""What is served where."""

from __future__ import annotations

import re
from typing import Final

from bifrost_core.testing.serving._endpoints import Endpoint

from ._chat import answer_chat
from ._chat_members import check_chat
from ._models import answer_model, answer_models

__all__ = ["find_endpoint"]

_POST: Final[dict[str, Endpoint]] = {
    "/v1/chat/completions": Endpoint(answer=answer_chat, check=check_chat),
}
_MODEL: Final = re.compile(r"/v1/models/(.+)")


def find_endpoint(method: str, path: str) -> tuple[Endpoint, str] | None:
    """What answers a method and a path, and the id in the path; None: nothing does."""
    if method == "POST":
        found = _POST.get(path)
        return None if found is None else (found, "")
    if method != "GET":
        return None
    if path == "/v1/models":
        return Endpoint(answer=answer_models, has_body=False), ""
    match = _MODEL.fullmatch(path)
    return None if match is None else (Endpoint(answer=answer_model, has_body=False), match[1])
