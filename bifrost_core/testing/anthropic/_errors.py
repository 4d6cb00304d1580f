"""Refusals in Anthropic's shape.

Source:
    https://platform.claude.com/docs/en/api/errors and error bodies quoted in public reports, such as
    https://github.com/anthropics/claude-code/issues/8210.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from bifrost_core.testing.serving._errors import ApiError

__all__ = ["AnthropicError", "error_body", "usual_error"]

# status -> type, message
_USUAL: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "Invalid request."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the Anthropic API."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not Found"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "The request timed out while processing."),
    529: ("overloaded_error", "Overloaded"),
}


@attrs.frozen(eq=False)
class AnthropicError(ApiError):
    """A refusal in the one shape that Anthropic has."""

    @classmethod
    def of(
        cls, status: int, message: str, *, kind: str | None = None, headers: list[tuple[str, str]] | None = None
    ) -> AnthropicError:
        """The error object with these members; the type is that of the status where none is given."""
        body = error_body(kind or _USUAL.get(status, _USUAL[500])[0], message)
        return cls(status, msgspec.json.encode(body), headers=headers or [])

    @classmethod
    def bad(cls, message: str) -> AnthropicError:
        """400 with these words."""
        return cls.of(400, message)


def error_body(kind: str, message: str) -> dict[str, Any]:
    """The members of an error, without the request's id, which comes in when it is sent."""
    return {"type": "error", "error": {"type": kind, "message": message}}


def usual_error(status: int, kind: str | None, message: str | None) -> dict[str, Any]:
    """An error with the usual type and message of its status where none are given."""
    usual = _USUAL.get(status, _USUAL[500])
    words = next((words for name, words in _USUAL.values() if name == kind), usual[1])
    return error_body(kind or usual[0], message or words)
