"""What Mistral's failures become: every status, code and body shape that its servers are known to send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from bifrost_core.providers.mistral import Mistral
from bifrost_core.types import Operation, Request
from bifrost_core.wire import HttpReply

KEY = "sk-simulated-0001"
NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
REQUEST = Request(Operation.CHAT, "mistral-small-latest", {"messages": [{"role": "user", "content": "Hi"}]})


def fail(status: int, body: bytes, headers: dict[str, str] | None = None, provider: Mistral | None = None) -> Any:
    adapter = Mistral([KEY]) if provider is None else provider
    with pytest.raises(CallError) as caught:
        adapter.decode(REQUEST, HttpReply(status, headers or {}, body, NOW))
    return caught.value


def shape_a(message: Any, type_: str | None, code: Any, status: int | None = None) -> bytes:
    body = {"object": "error", "message": message, "type": type_, "param": None, "code": code}
    if status is not None:
        body["raw_status_code"] = status
    return json.dumps(body).encode()


def shape_b(detail: str) -> bytes:
    return json.dumps({"detail": detail}).encode()


def shape_d(message: str, request_id: str | None = None) -> bytes:
    return json.dumps({"message": message} | ({"request_id": request_id} if request_id else {})).encode()


ENTRIES = [
    {"type": "extra_forbidden", "loc": ["body", "colour"], "msg": "Not permitted here", "input": "prompt-text"},
    {"type": "missing", "loc": ["body", "messages", 0, "role"], "msg": "Needed", "input": {}},
]

ROWS = [
    pytest.param(400, shape_a("Invalid model: x-1", "invalid_model", "1500", 400), ModelNotFoundError, Kind.MODEL_NOT_FOUND, "1500", id="400-1500-unknown-model"),
    pytest.param(400, shape_a("Unexpected role 'user'", "invalid_request_message_order", "3230"), BadRequestError, Kind.INVALID_REQUEST, "3230", id="400-3230-order"),
    pytest.param(400, shape_a("Either content or calls", "invalid_request_error", None), BadRequestError, Kind.INVALID_REQUEST, "invalid_request_error", id="400-no-code"),
    pytest.param(400, shape_a("No logprobs here", "invalid_request_invalid_args", "3051"), BadRequestError, Kind.INVALID_REQUEST, "3051", id="400-3051-arguments"),
    pytest.param(400, shape_a("Prompt is 40000 tokens, too large for model with 32768 maximum context length", "invalid_request_invalid_args", "3051"), ContextLengthError, Kind.CONTEXT_TOO_LONG, "3051", id="400-3051-too-long"),
    pytest.param(400, shape_a("Too many inputs", "invalid_request_prompt", "3210"), BadRequestError, Kind.INVALID_REQUEST, "3210", id="400-3210-batch"),
    pytest.param(400, shape_a("Bad call id", "invalid_function_call", "3280"), BadRequestError, Kind.INVALID_REQUEST, "3280", id="400-3280-call-id"),
    pytest.param(400, shape_a("No such file", "invalid_request_file", "3310"), BadRequestError, Kind.INVALID_REQUEST, "3310", id="400-3310-file"),
    pytest.param(400, shape_a("No PDF", "document_parser_invalid_file", 3740), BadRequestError, Kind.INVALID_REQUEST, "3740", id="400-3740-integer-code"),
    pytest.param(401, shape_b("Invalid API Key"), ProviderAuthError, Kind.AUTH, None, id="401-detail"),
    pytest.param(401, shape_b("Unauthorized"), ProviderAuthError, Kind.AUTH, None, id="401-unauthorized"),
    pytest.param(401, shape_d("Unauthorized", "req-401"), ProviderAuthError, Kind.AUTH, None, id="401-gateway"),
    pytest.param(402, b"", ProviderAuthError, Kind.PAYMENT, None, id="402"),
    pytest.param(403, shape_a("Not in your tier", "tier_not_allowed", "1910"), ProviderAuthError, Kind.PERMISSION, "1910", id="403-1910-tier"),
    pytest.param(403, shape_a("Preview", "labs_not_enabled", "1913"), ProviderAuthError, Kind.PERMISSION, "1913", id="403-1913-labs"),
    pytest.param(403, json.dumps({"error": {"message": "No.", "status": 403}, "guardrails": {"results": {}}}).encode(), BadRequestError, Kind.CONTENT_FILTERED, None, id="403-guardrail-verdict"),
    pytest.param(403, shape_a("Content blocked by guardrail", "forbidden", None), BadRequestError, Kind.CONTENT_FILTERED, "forbidden", id="403-guardrail-by-text"),
    pytest.param(403, b"denied", ProviderAuthError, Kind.PERMISSION, None, id="403-plain-text"),
    pytest.param(404, shape_b("Not Found"), ModelNotFoundError, Kind.MODEL_NOT_FOUND, None, id="404-detail"),
    pytest.param(404, shape_d("no Route matched", "req-404"), ModelNotFoundError, Kind.MODEL_NOT_FOUND, None, id="404-gateway"),
    pytest.param(404, shape_d("Model x-1 was not found."), ModelNotFoundError, Kind.MODEL_NOT_FOUND, None, id="404-model"),
    pytest.param(422, json.dumps({"detail": ENTRIES}).encode(), BadRequestError, Kind.INVALID_REQUEST, "extra_forbidden", id="422-list"),
    pytest.param(422, shape_a({"detail": ENTRIES}, "invalid_request_error", None), BadRequestError, Kind.INVALID_REQUEST, "invalid_request_error", id="422-nested"),
    pytest.param(422, shape_a(json.dumps({"detail": ENTRIES}), "internal_error_proxy", "1000"), BadRequestError, Kind.INVALID_REQUEST, "1000", id="422-json-in-string"),
    pytest.param(429, shape_a("Rate limit exceeded", "rate_limited", "1300", 429), ProviderRateLimitError, Kind.RATE_LIMITED, "1300", id="429-1300"),
    pytest.param(429, shape_a("Capacity", "service_tier_capacity_exceeded", "3505"), ProviderServerError, Kind.MODEL_OVERLOADED, "3505", id="429-3505"),
    pytest.param(429, shape_a("Service tier capacity exceeded for it.", "invalid_request_error", None), ProviderServerError, Kind.MODEL_OVERLOADED, "invalid_request_error", id="429-capacity-by-text"),
    pytest.param(429, shape_a("?", None, "3810"), ProviderRateLimitError, Kind.RATE_LIMITED, "3810", id="429-3810"),
    pytest.param(429, shape_d("Requests rate limit exceeded"), ProviderRateLimitError, Kind.RATE_LIMITED, None, id="429-gateway"),
    pytest.param(500, shape_a("Service unavailable.", "internal_server_error", "1000"), ProviderServerError, Kind.SERVER_ERROR, "1000", id="500-1000"),
    pytest.param(500, shape_b("Internal Server Error"), ProviderServerError, Kind.SERVER_ERROR, None, id="500-detail"),
    pytest.param(503, shape_a("gone", "unreachable_backend", "1100"), ProviderServerError, Kind.SERVER_ERROR, "1100", id="503-1100"),
    pytest.param(503, shape_a("gone", "internal_server_error", "3800"), ProviderServerError, Kind.SERVER_ERROR, "3800", id="503-3800"),
    pytest.param(503, shape_a("full", "service_tier_capacity_exceeded", "3505"), ProviderServerError, Kind.MODEL_OVERLOADED, "3505", id="503-3505"),
    pytest.param(504, b"", ProviderTimeoutError, Kind.SERVER_TIMEOUT, None, id="504-empty"),
    pytest.param(520, b"<html><body>edge</body></html>", ProviderServerError, Kind.SERVER_ERROR, None, id="520-html"),
    pytest.param(307, b"", ProviderServerError, Kind.REDIRECT, None, id="307-redirect"),
    pytest.param(413, b"too big", BadRequestError, Kind.REQUEST_TOO_LARGE, None, id="413-plain-text"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "cls", "kind", "code"), ROWS)
def test_every_known_failure_has_its_class_kind_and_code(
    status: int, body: bytes, cls: type[Any], kind: Kind, code: str | None
) -> None:
    error = fail(status, body, {"mistral-correlation-id": "corr-1"})
    assert type(error) is cls
    assert (error.kind, error.code, error.status, error.request_id) == (kind, code, status, "corr-1")
    assert error.provider == "mistral"
    assert error.retry_after is None
    assert f"answered {status}" in error.message


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        pytest.param(400, shape_a("Plain words", "t", "1"), "Plain words", id="A-string"),
        pytest.param(
            422,
            shape_a({"detail": ENTRIES}, "t", None),
            "body.colour: Not permitted here; body.messages.0.role: Needed",
            id="A-nested-list",
        ),
        pytest.param(422, shape_a({"detail": "one line"}, "t", None), "one line", id="A-nested-string"),
        pytest.param(
            422,
            shape_a(json.dumps({"detail": ENTRIES[:1]}), "t", None),
            "body.colour: Not permitted here",
            id="A-json-in-string",
        ),
        pytest.param(422, shape_a("{not JSON", "t", None), "{not JSON", id="A-looks-like-json"),
        pytest.param(401, shape_b("Key?"), "Key?", id="B"),
        pytest.param(
            422, json.dumps({"detail": ENTRIES[1:]}).encode(), "body.messages.0.role: Needed", id="C"
        ),
        pytest.param(404, shape_d("No route", "r"), "No route", id="D"),
        pytest.param(502, b"upstream fell over", "upstream fell over", id="E-text"),
        pytest.param(502, b"\xef\xbb\xbf" + shape_b("marked"), "marked", id="B-with-mark"),
        pytest.param(502, b"[1, 2]", "[1, 2]", id="E-json-list"),
        pytest.param(504, b"", None, id="E-empty"),
    ],
)  # fmt: skip
def test_the_words_are_found_in_every_body_shape(status: int, body: bytes, said: str | None) -> None:
    error = fail(status, body)
    assert error.excerpt == said
    assert said is None or said[:40] in error.message


def test_a_refused_body_is_not_quoted_back() -> None:
    error = fail(422, json.dumps({"detail": ENTRIES}).encode())
    assert "prompt-text" not in f"{error!r} {error.excerpt}"


def test_a_page_of_html_is_named_and_not_shown_in_the_message() -> None:
    error = fail(520, b"<html><title>edge</title></html>")
    assert "a page of HTML" in error.message
    assert "<html>" not in error.message


@pytest.mark.parametrize(
    ("headers", "body_id", "found"),
    [
        pytest.param({"mistral-correlation-id": "a", "x-kong-request-id": "b"}, "c", "a", id="correlation-first"),
        pytest.param({"x-kong-request-id": "b"}, "c", "b", id="gateway-header"),
        pytest.param({"x-request-id": "x"}, None, "x", id="common-header"),
        pytest.param({}, "c", "c", id="body"),
        pytest.param({}, None, None, id="nowhere"),
        pytest.param({"mistral-correlation-id": "a\x1b[31m"}, None, "a\\x1b[31m", id="escaped"),
    ],
)
def test_the_request_id_comes_from_headers_then_body(
    headers: dict[str, str], body_id: str | None, found: str | None
) -> None:
    assert fail(401, shape_d("Unauthorized", body_id), headers).request_id == found


WAITS = [
    pytest.param({"retry-after": "7"}, 7.0, id="seconds"),
    pytest.param({"retry-after": " 7 "}, 7.0, id="blanks"),
    pytest.param({"retry-after": "1.5"}, 1.5, id="fraction"),
    pytest.param({"retry-after": "0"}, None, id="zero-is-no-wait"),
    pytest.param({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0, id="imf-date"),
    pytest.param({"retry-after": "Tuesday, 14-Nov-23 22:13:50 GMT"}, 30.0, id="rfc850-date"),
    pytest.param({"retry-after": "Tue Nov 14 22:13:50 2023"}, 30.0, id="asctime-date"),
    pytest.param({"retry-after": "Tue, 14 Nov 2023 22:13:00 GMT"}, None, id="date-in-the-past"),
    pytest.param({"retry-after": "999999999"}, 86_400.0, id="capped-at-a-day"),
    pytest.param({"retry-after": "3, 3"}, 3.0, id="repeated-and-equal"),
    pytest.param({"retry-after": "3, 4"}, None, id="repeated-and-different"),
    pytest.param({"retry-after-ms": "250", "retry-after": "9"}, 0.25, id="milliseconds-first"),
    pytest.param({"retry-after-ms": "x", "retry-after": "9"}, 9.0, id="bad-milliseconds"),
    *(
        pytest.param({"retry-after": junk}, None, id=f"junk-{number}")
        for number, junk in enumerate(
            ["", "-1", "+1", "1e3", "nan", "inf", "soon", "0x10", "1_000", "٣", "9" * 200,
             "Tue, 31 Feb 2023 22:13:50 GMT", "Tue, 14 Nix 2023 22:13:50 GMT", "Tue, 14 Nov 2023 25:13:50 GMT", ",", "5,"]
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "wait"), WAITS)
def test_retry_after_is_read_in_every_form_and_junk_is_ignored(headers: dict[str, str], wait: float | None) -> None:
    assert fail(503, b"", headers).retry_after == wait


@pytest.mark.parametrize(
    ("status", "wait"),
    [(400, None), (401, None), (403, None), (422, None), (307, None), (408, 5.0), (429, 5.0), (500, 5.0), (529, 5.0)],
)
def test_a_wait_counts_only_where_waiting_can_help(status: int, wait: float | None) -> None:
    assert fail(status, b"{}", {"retry-after": "5"}).retry_after == wait


@pytest.mark.parametrize(
    ("body", "cls", "kind", "status"),
    [
        pytest.param(shape_a("m", "rate_limited", "1300"), ProviderRateLimitError, Kind.RATE_LIMITED, 429, id="rate"),
        pytest.param(shape_a("m", None, "3505"), ProviderServerError, Kind.MODEL_OVERLOADED, 429, id="capacity"),
        pytest.param(shape_a("m", None, "1500"), ModelNotFoundError, Kind.MODEL_NOT_FOUND, 400, id="model"),
        pytest.param(shape_a("m", None, None, 401), ProviderAuthError, Kind.AUTH, 401, id="its-own-status"),
        pytest.param(b'{"error": {"message": "m"}}', ProviderServerError, Kind.BAD_RESPONSE, 200, id="no-code"),
        pytest.param(b'{"error": "m"}', ProviderServerError, Kind.BAD_RESPONSE, 200, id="text"),
    ],
)
def test_an_error_under_a_status_of_success_is_taken_for_what_it_says(
    body: bytes, cls: type[Any], kind: Kind, status: int
) -> None:
    error = fail(200, body, {"mistral-correlation-id": "corr-1"})
    assert type(error) is cls
    assert (error.kind, error.status, error.request_id, error.excerpt) == (kind, status, "corr-1", "m")
    assert "answered 200, but with an error: m" in error.message


def test_a_rejected_key_may_also_be_one_whose_budget_is_spent() -> None:
    assert "budget is not used up" in fail(401, shape_b("Unauthorized")).message


LIMITED = shape_a("Rate limit exceeded", "rate_limited", "1300")


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        pytest.param(
            {"x-ratelimit-limit-req-minute": "0", "x-ratelimit-remaining-req-minute": "0"},
            Kind.QUOTA_EXHAUSTED,
            id="limit-0-is-not-in-the-plan",
        ),
        pytest.param(
            {"x-ratelimit-limit-req-minute": "60", "x-ratelimit-remaining-req-minute": "0"},
            Kind.RATE_LIMITED,
            id="a-minute-passes",
        ),
        pytest.param({"x-ratelimit-remaining-tokens-month": "0"}, Kind.QUOTA_EXHAUSTED, id="the-month-is-spent"),
        pytest.param(
            {"x-ratelimitbysize-remaining-month": "0"}, Kind.QUOTA_EXHAUSTED, id="the-month-by-its-older-name"
        ),
        pytest.param({"retry-after": "7200"}, Kind.QUOTA_EXHAUSTED, id="a-wait-of-hours"),
        pytest.param({}, Kind.RATE_LIMITED, id="no-headers"),
    ],
)
def test_limits_that_waiting_does_not_clear_are_told_apart(headers: dict[str, str], kind: Kind) -> None:
    error = fail(429, LIMITED, headers)
    assert error.kind is kind
    assert type(error) is ProviderRateLimitError


def test_a_limit_of_0_does_not_hide_that_mistral_is_full() -> None:
    body = shape_a("full", "service_tier_capacity_exceeded", "3505")
    assert fail(429, body, {"x-ratelimit-limit-req-minute": "0"}).kind is Kind.MODEL_OVERLOADED


def test_our_key_is_masked_and_control_characters_are_escaped() -> None:
    error = fail(401, shape_b(f"Key {KEY} is bad\nsecond\u2028third"))
    assert KEY not in f"{error!r} {error.excerpt} {error.message}"
    assert "\n" not in error.message
    assert "\u2028" not in error.message


def test_a_long_text_is_cut_to_size() -> None:
    error = fail(500, ("word " * 5000).encode())
    assert error.excerpt is not None
    assert len(error.excerpt) <= 500
    assert error.excerpt.endswith("…")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["object", "message", "detail", "type", "code", "error", "request_id", "loc", "msg"]), inner
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    status=st.integers(300, 599),
    body=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60),
    wait=st.text(max_size=40),
)
def test_no_error_body_makes_the_adapter_raise_anything_else(status: int, body: bytes, wait: str) -> None:
    error = fail(status, body, {"retry-after": wait})
    assert error.message
    assert error.retry_after is None or 0 < error.retry_after <= 86_400


def test_deeply_nested_errors_are_survived() -> None:
    assert fail(500, b'{"detail":' + b"[" * 5000 + b"]" * 5000 + b"}").kind is Kind.SERVER_ERROR
