"""Refusals in OpenAI's shape.

Source:
    https://platform.openai.com/docs/guides/error-codes and error bodies quoted in public reports, such as
    https://github.com/openai/openai-python/issues.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from bifrost_core.testing.serving._errors import ApiError

__all__ = ["OpenAIError", "error_body", "usual_error"]

_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this "
    "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
# status -> type, code, message
_USUAL: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "Invalid request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: (
        "request_forbidden",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
_CODES = {
    "insufficient_quota": ("insufficient_quota", _QUOTA),
    "context_length_exceeded": ("invalid_request_error", "The input is longer than the context of the model."),
}


@attrs.frozen(eq=False)
class OpenAIError(ApiError):
    """A refusal in the one shape that OpenAI has."""

    @classmethod
    def of(
        cls,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: list[tuple[str, str]] | None = None,
    ) -> OpenAIError:
        """The error object with these members."""
        return cls(status, msgspec.json.encode(error_body(message, kind, param, code)), headers=headers or [])


def error_body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    """The members of an error reply."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def usual_error(status: int, kind: str | None, code: str | None, message: str | None) -> dict[str, Any]:
    """An error with the usual type, code and message of its status where none are given.

    A code or type of ``insufficient_quota`` or ``context_length_exceeded`` brings the others along.
    """
    usual = _USUAL.get(status, _USUAL[500])
    name = code or kind or ""
    if name in _CODES:
        known, words = _CODES[name]
        return error_body(message or words, kind if kind and kind != name else known, None, code or name)
    return error_body(message or usual[2], kind or usual[0], None, code or (None if kind else usual[1]))
