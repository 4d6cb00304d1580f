"""Error replies in the shapes Mistral and its gateway use.

Source:
    https://docs.mistral.ai/resources/error-glossary and error bodies quoted in public reports.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from bifrost_core.testing.serving._errors import ApiError

__all__ = ["MistralError", "detail_item", "error_object", "usual_error", "usual_words"]

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
class MistralError(ApiError):
    """A refusal in one of the shapes of Mistral."""

    @classmethod
    def object(
        cls, status: int, kind: str, code: str | None, message: str, headers: list[tuple[str, str]] | None = None
    ) -> MistralError:
        """Shape A: Mistral's error object."""
        return cls(status, msgspec.json.encode(error_object(status, kind, code, message)), headers=headers or [])

    @classmethod
    def detail(cls, status: int, detail: str | list[dict[str, Any]]) -> MistralError:
        """Shapes B (a text) and C (a list)."""
        return cls(status, msgspec.json.encode({"detail": detail}))

    @classmethod
    def gateway(cls, status: int, message: str, request_id: str | None) -> MistralError:
        """Shape D: the gateway's message, with a request id or without; nothing behind it was asked."""
        body = {"message": message} if request_id is None else {"message": message, "request_id": request_id}
        return cls(status, msgspec.json.encode(body), _GATEWAY_JSON, headers=[("x-kong-response-latency", "1")])


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


def usual_words(status: int) -> str:
    """The usual message of a status."""
    return _USUAL.get(status, _OTHER)[2]


def usual_error(status: int, kind: str | None, code: str | None, message: str | None) -> dict[str, object]:
    """An error object with the usual type, code and message of its status where none are given."""
    usual = _USUAL.get(status, _OTHER)
    # a type of one's own has no code unless one is given with it
    return error_object(status, kind or usual[0], code or (None if kind else usual[1]), message or usual[2])
