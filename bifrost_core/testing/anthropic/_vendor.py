"""Anthropic's manners: headers, ids and the words of its refusals.

Source:
    https://platform.claude.com/docs/en/api/overview (headers), https://platform.claude.com/docs/en/api/versioning,
    https://platform.claude.com/docs/en/api/rate-limits (limits and their headers).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal

import attrs
import msgspec

from bifrost_core.testing.serving._errors import ApiError, status_error
from bifrost_core.testing.serving._vendors import Headers, Vendor, bearer
from bifrost_core.testing.serving.laws import Fault
from bifrost_core.testing.serving.quotas import Bucket, LimitName, Quota

from ._errors import AnthropicError, usual_error

__all__ = ["AnthropicVendor", "limit_headers", "random_id"]

_VERSIONS: Final = frozenset({"2023-01-01", "2023-06-01", "2026-10-21"})
_NAMES: Final[dict[LimitName, str]] = {"req": "requests", "tokens": "tokens"}
_LETTERS: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_NEVER: Final = 86_400.0  # seconds that are stated for a limit of zero


class AnthropicVendor(Vendor):
    """See ``Vendor``."""

    name: ClassVar[str] = "anthropic"

    def secret(self, headers: Mapping[str, str]) -> str | None:
        """The ``x-api-key``, or the token that stands in its place."""
        return headers.get("x-api-key") or bearer(headers)

    def refuse_headers(self, headers: Mapping[str, str]) -> ApiError | None:
        """A version has to be stated."""
        version = headers.get("anthropic-version")
        if version is None:
            return AnthropicError.bad("anthropic-version: header is required")
        if version not in _VERSIONS:
            return AnthropicError.bad(f'anthropic-version: "{version}" is not a valid version')
        return None

    def request_id(self, now: float, rng: random.Random) -> str:  # noqa: ARG002  # no time in it
        """Letters and digits after a prefix."""
        return f"req_{random_id(rng)}"

    def headers(self, request_id: str, milliseconds: int) -> Headers:  # noqa: ARG002  # tells no times
        """Those of every reply."""
        return [("request-id", request_id), ("anthropic-organization-id", "00000000-0000-4000-8000-000000000000")]

    def no_route(self, method: str, path: str, new_id: Callable[[], str]) -> ApiError:  # noqa: ARG002  # never repeated
        """404."""
        return AnthropicError.of(404, "Not Found")

    def no_key(self, new_id: Callable[[], str]) -> ApiError:  # noqa: ARG002  # has its own ids
        """401."""
        return AnthropicError.of(401, "x-api-key header is required")

    def wrong_key(self, secret: str) -> ApiError:  # noqa: ARG002  # never repeated
        """401."""
        return AnthropicError.of(401, "invalid x-api-key")

    def no_model(self, name: str) -> ApiError:
        """404."""
        return AnthropicError.of(404, f"model: {name}")

    def exhausted(self, quota: Quota, name: LimitName, now: float) -> ApiError:
        """429 with all limits, and when to come again."""
        bucket = quota.buckets[name]
        wait = max(0.0, 1 - bucket.level) * 60 / bucket.limit if bucket.limit else _NEVER
        what = _NAMES.get(name, name)
        message = f"This request would exceed your organization's rate limit of {bucket.limit} {what} per minute."
        headers = [*limit_headers(quota, now), ("retry-after", str(math.ceil(wait)))]
        return AnthropicError.of(429, message, headers=headers)

    def malformed(self, what: Literal["json", "object", "form"], why: str) -> ApiError:
        """400."""
        if what == "object":
            return AnthropicError.bad("Input should be a valid dictionary")
        return AnthropicError.bad(f"The request body is not valid JSON: {why}")

    def bad_http(self, status: int, message: str) -> dict[str, Any]:
        """The error object; for a body that is too large ``request_too_large``."""
        kind = None if status == 413 else "invalid_request_error"
        return usual_error(status, kind, message)

    def failed(self) -> ApiError:
        """500."""
        return AnthropicError(500, msgspec.json.encode(usual_error(500, None, None)))

    def signed(self, error: ApiError, request_id: str) -> ApiError:
        """Error objects hold the request's id too."""
        try:
            body = msgspec.json.decode(error.body, type=dict[str, Any])
        except msgspec.DecodeError:
            return error
        if body.get("type") != "error":
            return error
        return attrs.evolve(error, body=msgspec.json.encode({**body, "request_id": request_id}))

    def error_object(self, status: int, fault: Fault) -> dict[str, Any]:
        """Anthropic's error object, which has no code."""
        return usual_error(status, fault.error_type, fault.message)

    def fault_error(self, fault: Fault, request_id: str) -> ApiError:
        """The error reply of a fault."""
        error = self.error_object(fault.status or 503, fault)
        return status_error(fault, error, error["error"]["message"], request_id)

    def error_event(self, fault: Fault, like: bytes) -> bytes:  # noqa: ARG002  # there is one kind of stream
        """An event of the type ``error``.

        Source:
            https://platform.claude.com/docs/en/build-with-claude/streaming#error-events.
        """
        error = self.error_object(fault.status or 529, fault)
        return b"event: error\ndata: " + msgspec.json.encode(error) + b"\n\n"

    def is_end(self, data: bytes) -> bool:
        """The end is an event of its own."""
        return data.startswith(b"event: message_stop\n")


def random_id(rng: random.Random) -> str:
    """24 letters and digits that begin as the vendor's do."""
    return "01" + "".join(rng.choices(_LETTERS, k=22))


def limit_headers(quota: Quota, now: float) -> Headers:
    """The limits of requests and tokens, those that there are.

    Args:
        quota: What is left of them.
        now: Seconds since 1970-01-01 UTC.
    """
    found: list[tuple[str, Bucket]] = [
        (words, quota.buckets[name]) for name, words in _NAMES.items() if name in quota.buckets
    ]
    rows = [
        (name, (("limit", str(bucket.limit)), ("remaining", str(bucket.remaining)), ("reset", _reset(bucket, now))))
        for name, bucket in found
    ]
    return [(f"anthropic-ratelimit-{name}-{part}", value) for name, parts in rows for part, value in parts]


def _reset(bucket: Bucket, now: float) -> str:
    """When the bucket will be full again, as RFC 3339 writes it."""
    wait = max(0.0, bucket.limit - bucket.level) * 60 / bucket.limit if bucket.limit else _NEVER
    return datetime.fromtimestamp(math.ceil(now + wait), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
