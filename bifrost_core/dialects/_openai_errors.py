"""Errors as OpenAI tells them.

Source:
    https://platform.openai.com/docs/guides/error-codes; the SDK chooses its exception by the status:
    https://github.com/openai/openai-python#handling-errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bifrost_core.errors import BifrostError, CallError, ConfigError

__all__ = ["problem_of", "status_of"]

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
    446: "guardrail_error",
}


def status_of(error: BifrostError) -> int:
    """The HTTP status that an error answers with."""
    if isinstance(error, CallError):
        return error.http_status
    # What a caller wrote is named by its field; anything else (a closed Router) is not the caller's mistake.
    return 400 if isinstance(error, ConfigError) and error.field else 500


def problem_of(error: BifrostError) -> dict[str, Any]:
    """The body of an error: ``code`` is our kind, ``param`` the field at fault."""
    status = status_of(error)
    kind = str(error.kind) if isinstance(error, CallError) else "invalid_request" if status < 500 else "server_error"
    named = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    param = getattr(error, "parameter", None) or getattr(error, "field", None)
    return {"error": {"message": error.message, "type": named, "param": param or None, "code": kind}}
