"""OpenAI's manners: headers, ids and the words of its refusals.

Source:
    https://platform.openai.com/docs/api-reference/debugging-requests (headers),
    https://platform.openai.com/docs/guides/rate-limits (limits and how their reset is written).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import msgspec

from bifrost_core.testing.serving._errors import ApiError, status_error
from bifrost_core.testing.serving._vendors import Headers, Vendor
from bifrost_core.testing.serving.laws import Fault
from bifrost_core.testing.serving.quotas import Bucket, LimitName, Quota

from ._errors import OpenAIError, error_body, usual_error

__all__ = ["OpenAIVendor", "limit_headers"]

_NAMES: dict[LimitName, tuple[str, str]] = {
    "req": ("requests", "requests per min (RPM)"),
    "tokens": ("tokens", "tokens per min (TPM)"),
}
_HINT = "You can find your API key at https://platform.openai.com/account/api-keys."


class OpenAIVendor(Vendor):
    """See ``Vendor``."""

    name: ClassVar[str] = "openai"

    def request_id(self, now: float, rng: random.Random) -> str:  # noqa: ARG002  # no time in it
        """32 hexadecimal digits after a prefix."""
        return f"req_{rng.getrandbits(128):032x}"

    def headers(self, request_id: str, milliseconds: int) -> Headers:
        """Those of every reply."""
        return [
            ("openai-organization", "org-simulated"),
            ("openai-processing-ms", str(milliseconds)),
            ("openai-version", "2020-10-01"),
            ("x-request-id", request_id),
        ]

    def no_route(self, method: str, path: str, new_id: Callable[[], str]) -> ApiError:  # noqa: ARG002  # has none
        """404."""
        return OpenAIError.of(404, f"Invalid URL ({method} {path})")

    def no_key(self, new_id: Callable[[], str]) -> ApiError:  # noqa: ARG002  # has none
        """401."""
        words = "You didn't provide an API key. Use the Authorization header with the Bearer scheme."
        return OpenAIError.of(401, f"{words} {_HINT}")

    def wrong_key(self, secret: str) -> ApiError:
        """401, with both ends of the key, as the real one shows them."""
        shown = f"{secret[:3]}{'*' * (len(secret) - 7)}{secret[-4:]}" if len(secret) > 16 else "*" * len(secret)
        return OpenAIError.of(401, f"Incorrect API key provided: {shown}. {_HINT}", code="invalid_api_key")

    def no_model(self, name: str) -> ApiError:
        """404."""
        words = f"The model `{name}` does not exist or you do not have access to it."
        return OpenAIError.of(404, words, code="model_not_found")

    def exhausted(self, quota: Quota, name: LimitName, now: float) -> ApiError:  # noqa: ARG002  # resets are durations
        """429 with all limits in its headers."""
        kind, words = _NAMES.get(name, (name, name))
        bucket = quota.buckets[name]
        seconds = _duration(max(0.0, 1 - bucket.level) * 60 / bucket.limit) if bucket.limit else "24h0m0s"
        message = (
            f"Rate limit reached for the model in organization org-simulated on {words}: Limit {bucket.limit}, "
            f"Used {bucket.limit - bucket.remaining}, Requested 1. Please try again in {seconds}. "
            "Visit https://platform.openai.com/account/rate-limits to learn more."
        )
        return OpenAIError.of(429, message, kind=kind, code="rate_limit_exceeded", headers=limit_headers(quota))

    def malformed(self, what: Literal["json", "object", "form"], why: str) -> ApiError:
        """400."""
        if what == "form":
            return OpenAIError.of(400, f"Could not parse multipart form: {why}")
        return OpenAIError.of(400, f"We could not parse the JSON body of your request: {why}.")

    def bad_http(self, status: int, message: str) -> dict[str, Any]:  # noqa: ARG002  # one type for all
        """The error object."""
        return error_body(message, "invalid_request_error", None, None)

    def failed(self) -> ApiError:
        """500."""
        return OpenAIError(500, msgspec.json.encode(usual_error(500, None, None, None)))

    def error_object(self, status: int, fault: Fault) -> dict[str, Any]:
        """OpenAI's error object."""
        return usual_error(status, fault.error_type, fault.code, fault.message)

    def error_event(self, fault: Fault, like: bytes) -> bytes:
        """An error object; in the streams of responses an event of the type ``error``.

        Source:
            https://platform.openai.com/docs/api-reference/responses-streaming/error.
        """
        if not like.startswith(b"event: response."):
            return super().error_event(fault, like)
        error = self.error_object(fault.status or 500, fault)["error"]
        code = error["code"] or error["type"]
        members = {"type": "error", "code": code, "message": error["message"], "param": None, "sequence_number": 0}
        return b"event: error\ndata: " + msgspec.json.encode(members) + b"\n\n"

    def fault_error(self, fault: Fault, request_id: str) -> ApiError:
        """The error reply of a fault."""
        error = self.error_object(fault.status or 503, fault)
        return status_error(fault, error, error["error"]["message"], request_id)


def limit_headers(quota: Quota) -> Headers:
    """The limits of requests and tokens, those that there are."""
    found: list[tuple[str, Bucket]] = [
        (words, quota.buckets[name]) for name, (words, _) in _NAMES.items() if name in quota.buckets
    ]
    return [
        *((f"x-ratelimit-limit-{name}", str(bucket.limit)) for name, bucket in found),
        *((f"x-ratelimit-remaining-{name}", str(bucket.remaining)) for name, bucket in found),
        *((f"x-ratelimit-reset-{name}", _duration(_refill(bucket))) for name, bucket in found),
    ]


def _refill(bucket: Bucket) -> float:
    """Seconds until the bucket is full again."""
    return max(0.0, bucket.limit - bucket.level) * 60 / bucket.limit if bucket.limit else 86_400.0


def _duration(seconds: float) -> str:
    """A duration such as ``6m0s``, ``1.5s`` or ``17ms``, in whole milliseconds.

    Source:
        https://platform.openai.com/docs/guides/rate-limits (``6m0s``), which is how Go writes them:
        https://pkg.go.dev/time#Duration.String.
    """
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
