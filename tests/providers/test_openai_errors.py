"""What OpenAI's failures mean: status, code and words into kinds; limits and durations in headers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bifrost_core.errors import CallError
from bifrost_core.kinds import Kind
from bifrost_core.providers import OpenAI, OpenAICompatible
from bifrost_core.providers.base import Quota
from bifrost_core.providers.openai import duration_of
from bifrost_core.types import Request
from bifrost_core.wire import HttpReply

KEY = "sk-openai-errors-0123456789"
PROVIDER = OpenAI(KEY)
ASK = Request("chat", "gpt-4o", {"messages": [{"role": "user", "content": "x"}]})


def failed(status: int, error: Any, **headers: str) -> CallError:
    body = error if isinstance(error, bytes) else json.dumps({"error": error}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(CallError) as caught:
        PROVIDER.decode(ASK, HttpReply(status, named, body))
    return caught.value


def error(code: str | None = None, kind: str = "invalid_request_error", message: str = "why") -> dict[str, Any]:
    return {"message": message, "type": kind, "param": None, "code": code}


# https://platform.openai.com/docs/guides/error-codes
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        pytest.param(401, error("invalid_api_key"), Kind.AUTH, id="401"),
        pytest.param(401, error(None, "invalid_request_error"), Kind.AUTH, id="401-organization"),
        pytest.param(403, error("unsupported_country_region_territory"), Kind.PERMISSION, id="403"),
        pytest.param(403, error("model_not_found"), Kind.MODEL_NOT_FOUND, id="403-model"),
        pytest.param(404, error("model_not_found"), Kind.MODEL_NOT_FOUND, id="404"),
        pytest.param(400, error("context_length_exceeded"), Kind.CONTEXT_TOO_LONG, id="400-length"),
        pytest.param(400, error("content_filter"), Kind.CONTENT_FILTERED, id="400-filter"),
        pytest.param(400, error("content_policy_violation"), Kind.CONTENT_FILTERED, id="400-policy"),
        pytest.param(400, error("invalid_value"), Kind.INVALID_REQUEST, id="400"),
        pytest.param(400, error("unknown_parameter"), Kind.INVALID_REQUEST, id="400-parameter"),
        pytest.param(409, error(), Kind.CONFLICT, id="409"),
        pytest.param(413, error(), Kind.REQUEST_TOO_LARGE, id="413"),
        pytest.param(422, error(), Kind.INVALID_REQUEST, id="422"),
        pytest.param(429, error("rate_limit_exceeded", "requests"), Kind.RATE_LIMITED, id="429-requests"),
        pytest.param(429, error("rate_limit_exceeded", "tokens"), Kind.RATE_LIMITED, id="429-tokens"),
        pytest.param(429, error("insufficient_quota", "insufficient_quota"), Kind.QUOTA_EXHAUSTED, id="429-quota"),
        pytest.param(429, error("billing_hard_limit_reached"), Kind.QUOTA_EXHAUSTED, id="429-billing"),
        pytest.param(498, error("capacity_exceeded"), Kind.MODEL_OVERLOADED, id="498-groq"),
        pytest.param(500, error(None, "server_error"), Kind.SERVER_ERROR, id="500"),
        pytest.param(502, b"<html>bad gateway</html>", Kind.SERVER_ERROR, id="502"),
        pytest.param(503, error(None, "server_error"), Kind.SERVER_ERROR, id="503"),
        pytest.param(503, error(None, "server_error", "gpt-4o is overloaded"), Kind.MODEL_OVERLOADED, id="503-model"),
        pytest.param(504, b"", Kind.SERVER_TIMEOUT, id="504"),
        pytest.param(
            400,
            {"code": 400, "message": "too many tokens", "type": "exceed_context_size_error"},
            Kind.CONTEXT_TOO_LONG,
            id="llama.cpp",
        ),
    ],
)
def test_a_failure_has_its_kind(status: int, body: Any, kind: Kind) -> None:
    assert failed(status, body).kind is kind


@pytest.mark.parametrize("status", [*range(300, 309), *range(400, 452), *range(500, 512), 520, 529])
def test_every_status_is_an_error_of_its_own(status: int) -> None:
    caught = failed(status, error())
    assert getattr(caught, "status", status) == status
    assert "why" in caught.message


def test_an_error_tells_code_field_id_and_wait_and_no_key() -> None:
    told = {**error("invalid_value", message=f"bad key {KEY}"), "param": "messages[0].content"}
    caught: Any = failed(429, told, x_request_id="req_1", retry_after_ms="1500")
    assert (caught.code, caught.request_id, caught.retry_after) == ("invalid_value", "req_1", 1.5)
    assert KEY not in f"{caught} {caught!r} {caught.excerpt}"


def test_a_quota_that_is_used_up_is_the_accounts() -> None:
    assert getattr(failed(429, error("insufficient_quota")), "every_model", None) is True


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("insufficient_quota", Kind.QUOTA_EXHAUSTED),
        ("context_length_exceeded", Kind.CONTEXT_TOO_LONG),
        ("content_filter", Kind.CONTENT_FILTERED),
        ("invalid_api_key", Kind.AUTH),
        ("model_not_found", Kind.MODEL_NOT_FOUND),
        ("rate_limit_exceeded", Kind.RATE_LIMITED),
        ("never_heard_of", Kind.INVALID_REQUEST),  # its type says so
    ],
)
def test_an_error_inside_a_stream_means_the_same(code: str, kind: Kind) -> None:
    made = PROVIDER.decoder(ASK)
    made.feed(b"data: " + json.dumps({"error": error(code)}).encode() + b"\n\n")
    assert made.error is not None
    assert made.error.kind is kind


# -- limits --------------------------------------------------------------------------------------------------------

# https://platform.openai.com/docs/guides/rate-limits
HEADERS = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6m0s",
}


def test_the_limits_of_an_answer() -> None:
    assert PROVIDER.quotas(HEADERS) == (
        Quota("requests", 59, 60, 1.0, 0.0),
        Quota("tokens", 0, 150_000, 360.0, 360.0),
    )
    assert OpenAICompatible("groq", KEY, base_url="https://api.groq.com/openai").quotas(HEADERS) == PROVIDER.quotas(
        HEADERS
    )


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"x-ratelimit-remaining-requests": "-1"}, id="azure-says-minus-one"),
        pytest.param({"x-ratelimit-limit-requests": "0"}, id="no-limit"),
        pytest.param({"x-ratelimit-limit-requests": "many"}, id="no-number"),
        pytest.param({"x-ratelimit-remaining-requests": "1" * 40}, id="too-long"),
    ],
)
def test_a_limit_that_can_not_be_read_is_left_out(changed: dict[str, str]) -> None:
    assert [quota.kind for quota in PROVIDER.quotas({**HEADERS, **changed})] == ["tokens"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("8.64s", 8.64),
        ("1d", 86_400.0),
        ("150µs", 0.00015),
        ("12", 12.0),
        (" 7.66s ", 7.66),
        ("0s", 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-1s", 0.0),
        ("1s!", 0.0),
        ("1s 2s", 0.0),
        ("\u0661s", 0.0),
        ("9" * 100 + "s", 0.0),
        ("999999999d", 2_678_400.0),
    ],
)
def test_a_duration(text: str, seconds: float) -> None:
    assert duration_of(text) == pytest.approx(seconds)


@given(st.text(max_size=80))
def test_no_text_is_a_duration_without_end(text: str) -> None:
    assert 0 <= duration_of(text) <= 2_678_400
