"""Error replies in the shapes Mistral and its gateway use.

Source:
    https://docs.mistral.ai/resources/error-glossary and error bodies quoted in public reports.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from .laws import ErrorShape

__all__ = ["ApiError", "detail_item", "error_object", "status_error", "usual_error"]

_JSON = "application/json"
_GATEWAY_JSON = "application/json; charset=utf-8"

# status -> type, code, message of the error object
_USUAL: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_invalid_args", "3051", "Invalid arguments."),
    401: ("unauthorized", None, "Invalid API Key"),
    402: ("payment_required", None, "Payment required."),
    403: ("tier_not_allowed", "1910", "This model is not available in your subscription tier"),
    404: ("not_found", None, "Not Found"),
    422: ("invalid_request_error", None, "Unprocessable request."),
    429: ("rate_limited", "1300", "Rate limit exceeded"),
    500: ("internal_server_error", "1000", "Service unavailable."),
    503: ("unreachable_backend", "1100", "Service unavailable."),
}
_OTHER: tuple[str, str | None, str] = ("internal_server_error", "1000", "Service unavailable.")


@attrs.frozen(eq=False)
class ApiError(Exception):
    """A request is refused: the reply to send.

    Attributes:
        status: HTTP status.
        body: The whole body.
        content_type: Its type, or None for a reply without body.
        headers: Beside the usual ones.
        from_gateway: Whether the gateway answered, so that nothing behind it was asked.
    """

    status: int
    body: bytes
    content_type: str | None = _JSON
    headers: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]], kw_only=True)
    from_gateway: bool = attrs.field(default=False, kw_only=True)

    @classmethod
    def object(
        cls, status: int, kind: str, code: str | None, message: str, headers: list[tuple[str, str]] | None = None
    ) -> ApiError:
        """Shape A: Mistral's error object."""
        return cls(status, msgspec.json.encode(error_object(status, kind, code, message)), headers=headers or [])

    @classmethod
    def detail(cls, status: int, detail: str | list[dict[str, Any]]) -> ApiError:
        """Shapes B (a text) and C (a list)."""
        return cls(status, msgspec.json.encode({"detail": detail}))

    @classmethod
    def gateway(cls, status: int, message: str, request_id: str | None) -> ApiError:
        """Shape D: the gateway's message, with a request id or without."""
        body = {"message": message} if request_id is None else {"message": message, "request_id": request_id}
        return cls(status, msgspec.json.encode(body), _GATEWAY_JSON, from_gateway=True)


def error_object(status: int, kind: str, code: str | None, message: str) -> dict[str, object]:
    """The members of an error object."""
    return {
        "object": "error",
        "message": message,
        "type": kind,
        "param": None,
        "code": code,
        "raw_status_code": status,
    }


def detail_item(kind: str, loc: list[str | int], message: str, value: object) -> dict[str, Any]:
    """One finding of the body's validation, for shape C."""
    return {"type": kind, "loc": ["body", *loc], "msg": message, "input": value}


def usual_error(status: int, kind: str | None, code: str | None, message: str | None) -> dict[str, object]:
    """An error object with the usual type, code and message of its status where none are given."""
    usual = _USUAL.get(status, _OTHER)
    # a type of one's own has no code unless one is given with it
    return error_object(status, kind or usual[0], code or (None if kind else usual[1]), message or usual[2])


def status_error(
    status: int,
    shape: ErrorShape,
    *,
    kind: str | None,
    code: str | None,
    message: str | None,
    request_id: str,
    headers: list[tuple[str, str]],
) -> ApiError:
    """An error of any status in any of the five shapes; see ``Fault``."""
    text = message or _USUAL.get(status, _OTHER)[2]
    if shape == "A":
        error = ApiError(status, msgspec.json.encode(usual_error(status, kind, code, message)))
    elif shape == "B":
        error = ApiError.detail(status, text)
    elif shape == "C":
        error = ApiError.detail(status, [detail_item(kind or "value_error", ["messages"], text, None)])
    elif shape == "D":
        error = ApiError.gateway(status, text, request_id)
    else:
        error = ApiError(status, (message or "").encode(), "text/plain" if message else None)
    error.headers.extend(headers)
    return error
