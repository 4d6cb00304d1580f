"""What Anthropic's failures become: every status and type of https://platform.claude.com/docs/en/api/errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bifrost_core.errors import (
    BadRequestError,
    CallError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderAuthError,
    ProviderRateLimitError,
    ProviderServerError,
    ProviderTimeoutError,
)
from bifrost_core.kinds import Kind
from bifrost_core.providers import Anthropic
from bifrost_core.types import Request
from bifrost_core.wire import HttpReply

KEY = "sk-ant-errors-0123456789"
NOW = 1_700_000_000.0
ASK = Request("chat", "claude-opus-4-8", {"messages": [{"role": "user", "content": "x"}]})


def body(type_: str, message: str, code: str | None = None) -> bytes:
    error: dict[str, Any] = {"type": type_, "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    return json.dumps({"type": "error", "error": error, "request_id": "req_body"}).encode()


def fail(status: int, data: bytes, headers: dict[str, str] | None = None) -> Any:
    with pytest.raises(CallError) as caught:
        Anthropic(KEY).decode(ASK, HttpReply(status, headers or {}, data, NOW))
    return caught.value


INVALID = "invalid_request_error"
ROWS = [
    pytest.param(400, body(INVALID, "max_tokens: Field required"), BadRequestError, Kind.INVALID_REQUEST, id="400"),
    pytest.param(400, body(INVALID, "prompt is too long: 210000 tokens > 200000 maximum"), ContextLengthError, Kind.CONTEXT_TOO_LONG, id="400-too-long"),
    pytest.param(400, body(INVALID, "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"), ContextLengthError, Kind.CONTEXT_TOO_LONG, id="400-too-long-with-output"),
    pytest.param(400, body(INVALID, "You have reached your specified API usage limits. You will regain access on 2026-12-01."), ProviderAuthError, Kind.PAYMENT, id="400-own-limit"),
    pytest.param(400, body(INVALID, "You have reached your specified workspace API usage limits."), ProviderAuthError, Kind.PAYMENT, id="400-workspace-limit"),
    pytest.param(400, body(INVALID, "Your credit balance is too low to access the Anthropic API."), ProviderAuthError, Kind.PAYMENT, id="400-credit"),
    pytest.param(400, body(INVALID, "On hold", "organization_on_hold"), ProviderAuthError, Kind.PERMISSION, id="400-on-hold"),
    pytest.param(401, body("authentication_error", "invalid x-api-key"), ProviderAuthError, Kind.AUTH, id="401"),
    pytest.param(402, body("billing_error", "Check your payment details"), ProviderAuthError, Kind.PAYMENT, id="402"),
    pytest.param(403, body("permission_error", "Not for this key"), ProviderAuthError, Kind.PERMISSION, id="403"),
    pytest.param(404, body("not_found_error", "model: claude-x"), ModelNotFoundError, Kind.MODEL_NOT_FOUND, id="404"),
    pytest.param(409, body("conflict_error", "Changed meanwhile"), BadRequestError, Kind.CONFLICT, id="409"),
    pytest.param(413, body("request_too_large", "Request exceeds the maximum size"), BadRequestError, Kind.REQUEST_TOO_LARGE, id="413"),
    pytest.param(413, b"<html>413 Request Entity Too Large</html>", BadRequestError, Kind.REQUEST_TOO_LARGE, id="413-of-the-edge"),
    pytest.param(429, body("rate_limit_error", "Too many tokens per minute"), ProviderRateLimitError, Kind.RATE_LIMITED, id="429"),
    pytest.param(429, body("rate_limit_error", "Monthly threshold", "enforced_spend_limit_reached"), ProviderRateLimitError, Kind.QUOTA_EXHAUSTED, id="429-spent"),
    pytest.param(429, body("rate_limit_error", "Contract", "contract_spend_limit_reached"), ProviderRateLimitError, Kind.QUOTA_EXHAUSTED, id="429-contract"),
    pytest.param(500, body("api_error", "Internal server error"), ProviderServerError, Kind.SERVER_ERROR, id="500"),
    pytest.param(503, body("api_error", "Unavailable"), ProviderServerError, Kind.SERVER_ERROR, id="503"),
    pytest.param(504, body("timeout_error", "Timed out"), ProviderTimeoutError, Kind.SERVER_TIMEOUT, id="504"),
    pytest.param(529, body("overloaded_error", "Overloaded"), ProviderServerError, Kind.MODEL_OVERLOADED, id="529"),
    pytest.param(529, b"", ProviderServerError, Kind.MODEL_OVERLOADED, id="529-without-words"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "data", "cls", "kind"), ROWS)
def test_a_failure_is_what_its_status_and_type_say(status: int, data: bytes, cls: type[CallError], kind: Kind) -> None:
    error = fail(status, data)
    assert (type(error), error.kind, error.status) == (cls, kind, status)


def test_the_id_is_that_of_the_header_or_of_the_body() -> None:
    assert fail(500, body("api_error", "x"), {"request-id": "req_head"}).request_id == "req_head"
    assert fail(500, body("api_error", "x")).request_id == "req_body"


def test_the_code_is_the_stable_one_where_there_is_one() -> None:
    assert fail(429, body("rate_limit_error", "x", "ramp_limit_exceeded")).code == "ramp_limit_exceeded"
    assert fail(429, body("rate_limit_error", "x")).code == "rate_limit_error"


@pytest.mark.parametrize(("status", "wait"), [(429, 7.0), (529, 7.0), (400, None)])
def test_a_wait_counts_where_it_can_help(status: int, wait: float | None) -> None:
    assert fail(status, body("x", "y"), {"retry-after": "7"}).retry_after == wait


def test_a_spent_quota_is_the_accounts_for_every_model() -> None:
    spent = fail(429, body("rate_limit_error", "x", "enforced_spend_limit_reached"))
    assert spent.every_model is True


def test_a_key_that_the_provider_quotes_is_masked() -> None:
    error = fail(401, body("authentication_error", f"invalid x-api-key {KEY}"))
    assert KEY not in str(error) + repr(error) + str(error.excerpt)
