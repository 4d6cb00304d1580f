"""A refusal: the reply that is sent in place of an answer."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from .laws import Fault

__all__ = ["ApiError", "status_error"]

_JSON = "application/json"


@attrs.frozen(eq=False)
class ApiError(Exception):
    """A request is refused: the reply to send.

    Attributes:
        status: HTTP status.
        body: The whole body.
        content_type: Its type, or None for a reply without body.
        headers: Beside the usual ones.
    """

    status: int
    body: bytes
    content_type: str | None = _JSON
    headers: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]], kw_only=True)


def status_error(fault: Fault, error: dict[str, Any], message: str, request_id: str) -> ApiError:
    """The error reply that a ``status`` fault stands for, in any of its shapes; see ``Fault``.

    Args:
        fault: The fault.
        error: The vendor's own error object, for shape A.
        message: Its words, for the others.
        request_id: The request's id, for shape D.
    """
    status = fault.status or 503
    headers = list(fault.headers.items())
    if fault.shape == "E":
        text = fault.message or ""
        return ApiError(status, text.encode(), "text/plain" if text else None, headers=headers)
    bodies: dict[str, dict[str, Any]] = {
        "A": error,
        "B": {"detail": message},
        "C": {
            "detail": [
                {
                    "type": fault.error_type or "value_error",
                    "loc": ["body", "messages"],
                    "msg": message,
                    "input": None,
                }
            ]
        },
        "D": {"message": message, "request_id": request_id},
    }
    return ApiError(status, msgspec.json.encode(bodies[fault.shape]), headers=headers)
