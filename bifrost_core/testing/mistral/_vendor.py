"""Mistral's manners: the gateway's headers and the words of its refusals."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import attrs

from bifrost_core.testing.serving._errors import ApiError, status_error
from bifrost_core.testing.serving._vendors import Headers, Vendor
from bifrost_core.testing.serving.laws import Fault
from bifrost_core.testing.serving.quotas import Bucket, LimitName, Quota

from ._errors import MistralError, detail_item, usual_error, usual_words

__all__ = ["MistralVendor", "limit_headers"]


class MistralVendor(Vendor):
    """See ``Vendor``."""

    name: ClassVar[str] = "mistral"

    def request_id(self, now: float, rng: random.Random) -> str:
        """A UUID of version 7.

        Source:
            RFC 9562, section 5.7.
        """
        bits = rng.getrandbits(74)
        time_bits = int(now * 1000) & (1 << 48) - 1
        text = f"{time_bits:012x}7{bits >> 62:03x}{8 | (bits >> 60) & 3:x}{bits & (1 << 60) - 1:015x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def headers(self, request_id: str, milliseconds: int) -> Headers:
        """Those of the gateway."""
        waited = str(milliseconds)
        return [
            ("mistral-correlation-id", request_id),
            ("x-kong-request-id", request_id),
            ("x-envoy-upstream-service-time", waited),
            ("x-kong-upstream-latency", waited),
            ("x-kong-proxy-latency", "1"),
        ]

    def no_route(self, method: str, path: str, new_id: Callable[[], str]) -> ApiError:  # noqa: ARG002  # unlike others
        """404 in the gateway's shape."""
        return MistralError.gateway(404, "no Route matched with those values", new_id())

    def no_key(self, new_id: Callable[[], str]) -> ApiError:
        """401 in the gateway's shape."""
        return MistralError.gateway(401, "Unauthorized", new_id())

    def wrong_key(self, secret: str) -> ApiError:  # noqa: ARG002  # never repeated
        """401."""
        return MistralError.detail(401, "Invalid API Key")

    def no_model(self, name: str) -> ApiError:
        """400."""
        return MistralError.object(400, "invalid_model", "1500", f"Invalid model: {name}")

    def exhausted(self, quota: Quota, name: LimitName, now: float) -> ApiError:  # noqa: ARG002  # states no times
        """429 with the exhausted pair of headers."""
        headers = limit_headers(quota, name)
        return MistralError.object(429, "rate_limited", "1300", "Rate limit exceeded", headers)

    def malformed(self, what: Literal["json", "object", "form"], why: str) -> ApiError:
        """422 with one finding."""
        findings: dict[str, dict[str, Any]] = {
            "json": detail_item("json_invalid", [0], "JSON decode error", {}),
            "object": detail_item("model_attributes_type", [], "Input should be an object", None),
            "form": detail_item("value_error", [], f"Value error, {why}", None),
        }
        return MistralError.detail(422, [findings[what]])

    def failed(self) -> ApiError:
        """500."""
        return MistralError.object(500, "internal_server_error", "1000", "Service unavailable.")

    def error_object(self, status: int, fault: Fault) -> dict[str, Any]:
        """Mistral's error object."""
        return usual_error(status, fault.error_type, fault.code, fault.message)

    def fault_error(self, fault: Fault, request_id: str) -> ApiError:
        """The error reply; shape D is the gateway's."""
        status = fault.status or 503
        words = fault.message or usual_words(status)
        if fault.shape == "D":
            error = MistralError.gateway(status, words, request_id)
            return attrs.evolve(error, headers=[*error.headers, *fault.headers.items()])
        return status_error(fault, self.error_object(status, fault), words, request_id)


def limit_headers(quota: Quota, *names: LimitName) -> Headers:
    """The pairs of headers of some limits, as a plain reply carries them.

    Source:
        Observed header names of 2026; https://docs.mistral.ai/deployment/ai-studio/tier for what the limits
        mean.
    """
    return [pair for name in names if name in quota.buckets for pair in _pair(name, quota.buckets[name])]


def _pair(name: LimitName, bucket: Bucket) -> Headers:
    return [
        (f"x-ratelimit-limit-{name}-minute", str(bucket.limit)),
        (f"x-ratelimit-remaining-{name}-minute", str(bucket.remaining)),
    ]
