"""Errors: Retry-After, bodies of every shape, statuses and codes into kinds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.providers._http import (
    Problem,
    escape,
    kind_of,
    kind_of_status,
    read_problem,
    request_id,
    retry_after,
    wait_of,
)

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the instant of RFC 9110's examples


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"retry-after": "120"}, 120.0, id="seconds"),
        pytest.param({"retry-after": "0.25"}, 0.25, id="fraction"),
        pytest.param({"retry-after": " \t7 "}, 7.0, id="blanks-around"),
        pytest.param({"retry-after": "0"}, 0.0, id="zero"),
        pytest.param({"retry-after": "999999999"}, 86_400.0, id="capped-at-a-day"),
        pytest.param({"retry-after": "Sun, 06 Nov 1994 08:50:37 GMT"}, 60.0, id="imf-fixdate"),
        pytest.param({"retry-after": "Sunday, 06-Nov-94 08:50:37 GMT"}, 60.0, id="rfc-850"),
        pytest.param({"retry-after": "Sun Nov  6 08:50:37 1994"}, 60.0, id="asctime"),
        pytest.param({"retry-after": "Sun, 06 Nov 1994 08:49:60 GMT"}, 23.0, id="leap-second"),
        pytest.param({"retry-after": "Sun, 06 Nov 1994 07:49:37 GMT"}, 0.0, id="past-date"),
        pytest.param({"retry-after": "Sunday, 06-Nov-45 08:49:37 GMT"}, 0.0, id="two-digits-over-50-years-are-past"),
        pytest.param({"retry-after": "Thu, 01 Jan 2099 00:00:00 GMT"}, 86_400.0, id="far-date-is-capped"),
        pytest.param({"retry-after-ms": "1500"}, 1.5, id="milliseconds"),
        pytest.param({"x-ms-retry-after-ms": "250"}, 0.25, id="milliseconds-of-azure"),
        pytest.param({"retry-after-ms": "100", "x-ms-retry-after-ms": "200", "retry-after": "9"}, 0.1, id="order"),
        pytest.param({"retry-after-ms": "soon", "retry-after": "9"}, 9.0, id="junk-milliseconds-are-absent"),
        pytest.param({"retry-after": "5, 5"}, 5.0, id="two-that-agree"),
        pytest.param(
            {"retry-after": "Sun, 06 Nov 1994 08:50:37 GMT, Sun, 06 Nov 1994 08:50:37 GMT"}, 60.0, id="two-equal-dates"
        ),
        pytest.param({"retry-after": "5, 7"}, None, id="two-that-disagree"),
        pytest.param({"retry-after": "60, Sun, 06 Nov 1994 08:55:37 GMT"}, None, id="number-and-date-disagree"),
        pytest.param({"retry-after": "nan"}, None, id="nan"),
        pytest.param({"retry-after": "inf"}, None, id="inf"),
        pytest.param({"retry-after": "-5"}, None, id="negative"),
        pytest.param({"retry-after": "+5"}, None, id="signed"),
        pytest.param({"retry-after": "1e9"}, None, id="exponent"),
        pytest.param({"retry-after": "soon"}, None, id="word"),
        pytest.param({"retry-after": ""}, None, id="empty"),
        pytest.param({"retry-after": "\u0665"}, None, id="arabic-digits"),
        pytest.param({"retry-after": "9" * 400}, None, id="400-digits"),
        pytest.param({"retry-after": "1.1234567"}, None, id="too-fine"),
        pytest.param({"retry-after": "5\n"}, None, id="line-break"),
        pytest.param({"retry-after": "Sun, 31 Feb 1994 08:49:37 GMT"}, None, id="no-such-day"),
        pytest.param({"retry-after": "Sun, 06 Nov 1994 25:49:37 GMT"}, None, id="no-such-hour"),
        pytest.param({"retry-after": "Sun, 06 Nov 1994 08:49:37 CET"}, None, id="other-zone"),
        pytest.param({"retry-after-ms": "5, 6"}, None, id="milliseconds-that-disagree"),
        pytest.param({}, None, id="none"),
    ],
)
def test_waiting_times_are_read_and_junk_is_not(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60), now=st.floats())
def test_no_header_and_no_clock_makes_it_raise(text: str, now: float) -> None:
    for name in ("retry-after", "retry-after-ms", "x-ms-retry-after-ms"):
        seconds = retry_after({name: text}, now)
        assert seconds is None or 0 <= seconds <= 86_400


@pytest.mark.parametrize(
    ("status", "wait"),
    [(429, 5.0), (503, 5.0), (408, 5.0), (409, 5.0), (425, 5.0), (400, None), (401, None), (404, None), (422, None)],
    ids=str,
)
def test_a_wait_counts_only_where_waiting_helps(status: int, wait: float | None) -> None:
    assert wait_of(status, {"retry-after": "5"}, NOW) == wait


def test_a_wait_of_zero_is_no_wait() -> None:
    assert wait_of(429, {"retry-after": "0"}, NOW) is None


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        pytest.param(
            b'{"object":"error","message":"Invalid model: x","type":"invalid_model","param":null,"code":"1500",'
            b'"raw_status_code":400}',
            Problem("Invalid model: x", code="1500", type="invalid_model", status=400),
            id="object-error",
        ),
        pytest.param(
            b'{"object":"error","message":"m","type":"t","code":1300}',
            Problem("m", code="1300", type="t"),
            id="integer-code",
        ),
        pytest.param(b'{"detail":"Invalid API Key"}', Problem("Invalid API Key"), id="detail-string"),
        pytest.param(
            b'{"detail":[{"type":"extra_forbidden","loc":["body","user"],"msg":"not permitted","input":"SECRET"},'
            b'{"type":"missing","loc":["body","messages",0],"msg":"required"}]}',
            Problem(
                "body.user: not permitted; body.messages.0: required",
                type="extra_forbidden",
                param="body.user",
                details=(
                    ("body.user", "not permitted", "extra_forbidden"),
                    ("body.messages.0", "required", "missing"),
                ),
            ),
            id="detail-list",
        ),
        pytest.param(
            b'{"object":"error","message":{"detail":[{"type":"t","loc":["body","p"],"msg":"no","input":1}]},'
            b'"type":"invalid_request_error","code":null}',
            Problem("body.p: no", type="invalid_request_error", details=(("body.p", "no", "t"),)),
            id="list-in-the-message",
        ),
        pytest.param(
            b'{"object":"error","message":"{\\"detail\\":[{\\"type\\":\\"t\\",\\"loc\\":[\\"p\\"],\\"msg\\":\\"no\\"}]}",'
            b'"type":"internal_error_proxy","code":"1000"}',
            Problem("p: no", code="1000", type="internal_error_proxy", details=(("p", "no", "t"),)),
            id="json-in-the-message",
        ),
        pytest.param(
            b'{"message":"Unauthorized","request_id":"r1"}', Problem("Unauthorized", request_id="r1"), id="gateway"
        ),
        pytest.param(b'{"message":"slow down"}', Problem("slow down"), id="gateway-without-id"),
        pytest.param(
            b'{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota","param":"p"}}',
            Problem("m", code="insufficient_quota", type="insufficient_quota", param="p"),
            id="openai",
        ),
        pytest.param(
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r2"}',
            Problem("Overloaded", type="overloaded_error", request_id="r2"),
            id="anthropic",
        ),
        pytest.param(b'{"error":"nope"}', Problem("nope"), id="error-string"),
        pytest.param(b"", Problem(), id="empty"),
        pytest.param(b"upstream timed out\n", Problem("upstream timed out"), id="plain-text"),
        pytest.param(b"<html>520</html>", Problem("<html>520</html>"), id="html"),
        pytest.param(b"[1, 2]", Problem("[1, 2]"), id="json-array"),
        pytest.param(b"\xff\xfe", Problem("\ufffd\ufffd"), id="no-utf-8"),
    ],
)
def test_every_shape_of_body_is_read(body: bytes, problem: Problem) -> None:
    assert read_problem(body) == problem


ROWS: list[Any] = [
    (400, b'{"object":"error","message":"Invalid model: x","type":"invalid_model","code":"1500"}', "model_not_found"),
    (
        400,
        b'{"object":"error","message":"order","type":"invalid_request_message_order","code":"3230"}',
        "invalid_request",
    ),
    (400, b'{"object":"error","message":"both","type":"invalid_request_error","code":null}', "invalid_request"),
    (
        400,
        b'{"object":"error","message":"Logprobs","type":"invalid_request_invalid_args","code":"3051"}',
        "invalid_request",
    ),
    (
        400,
        b'{"object":"error","message":"Prompt contains 40000 tokens, too large for model with 32768 maximum context '
        b'length","type":"invalid_request_invalid_args","code":"3051"}',
        "context_too_long",
    ),
    (
        400,
        b'{"object":"error","message":"Too many inputs","type":"invalid_request_prompt","code":"3210"}',
        "invalid_request",
    ),
    (400, b'{"object":"error","message":"id","type":"invalid_function_call","code":"3280"}', "invalid_request"),
    (400, b'{"object":"error","message":"file","type":"invalid_request_file","code":"3310"}', "invalid_request"),
    (400, b'{"object":"error","message":"pdf","type":"document_parser_invalid_file","code":"3740"}', "invalid_request"),
    (401, b'{"detail":"Invalid API Key"}', "auth"),
    (401, b'{"message":"Unauthorized","request_id":"r"}', "auth"),
    (402, b"", "payment"),
    (403, b'{"object":"error","message":"tier","type":"tier_not_allowed","code":"1910"}', "permission"),
    (403, b'{"object":"error","message":"labs","type":"labs_not_enabled","code":"1913"}', "permission"),
    (403, b'{"error":{"code":"content_filter","message":"no"}}', "content_filtered"),
    (403, b'{"error":{"code":"billing_not_active","message":"no"}}', "payment"),
    (404, b'{"detail":"Not Found"}', "model_not_found"),
    (404, b'{"message":"no Route matched with those values","request_id":"r"}', "model_not_found"),
    (405, b"", "invalid_request"),
    (408, b"", "server_timeout"),
    (409, b"", "conflict"),
    (413, b"", "request_too_large"),
    (418, b"", "invalid_request"),
    (422, b'{"detail":[{"type":"extra_forbidden","loc":["body","store"],"msg":"no"}]}', "invalid_request"),
    (422, b'{"object":"error","message":"Extra","type":"internal_error_proxy","code":"1000"}', "invalid_request"),
    (425, b"", "server_error"),
    (429, b'{"object":"error","message":"Rate limit exceeded","type":"rate_limited","code":"1300"}', "rate_limited"),
    (429, b'{"object":"error","message":"?","code":"3810"}', "rate_limited"),
    (
        429,
        b'{"object":"error","message":"full","type":"service_tier_capacity_exceeded","code":"3505"}',
        "model_overloaded",
    ),
    (
        429,
        b'{"object":"error","message":"Service tier capacity exceeded for this model.","type":"invalid_request_error"}',
        "model_overloaded",
    ),
    (429, b'{"message":"Requests rate limit exceeded"}', "rate_limited"),
    (429, b'{"error":{"code":"insufficient_quota","message":"no"}}', "quota_exhausted"),
    (
        500,
        b'{"object":"error","message":"Service unavailable.","type":"internal_server_error","code":"1000"}',
        "server_error",
    ),
    (500, b'{"detail":"Internal Server Error"}', "server_error"),
    (501, b"", "invalid_request"),
    (502, b"", "server_error"),
    (503, b'{"object":"error","message":"x","type":"unreachable_backend","code":"1100"}', "server_error"),
    (503, b'{"object":"error","message":"full","code":"3505"}', "model_overloaded"),
    (503, b'{"message":"Model Mistral-Small is not ready"}', "model_overloaded"),
    (504, b"", "server_timeout"),
    (520, b"<html>", "server_error"),
    (529, b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', "model_overloaded"),
    (302, b"", "redirect"),
    (304, b"", "redirect"),
]


@pytest.mark.parametrize(
    ("status", "body", "kind"), ROWS, ids=[f"{row[0]}-{row[2]}-{at}" for at, row in enumerate(ROWS)]
)
def test_status_code_and_text_name_the_kind(status: int, body: bytes, kind: str) -> None:
    assert kind_of(status, read_problem(body), headers={}, model="mistral-small") == kind


@pytest.mark.parametrize(
    ("headers", "wait", "kind"),
    [
        pytest.param({"x-ratelimit-limit-req-minute": "0"}, None, "quota_exhausted", id="not-in-the-plan"),
        pytest.param({"x-ratelimit-limit-tokens-minute": "0"}, None, "quota_exhausted", id="no-tokens-in-the-plan"),
        pytest.param({"x-ratelimit-remaining-tokens-month": "0"}, None, "quota_exhausted", id="month-is-used-up"),
        pytest.param({}, 3601.0, "quota_exhausted", id="wait-over-an-hour"),
        pytest.param({}, 3600.0, "rate_limited", id="wait-of-an-hour"),
        pytest.param(
            {"x-ratelimit-limit-req-minute": "60", "x-ratelimit-remaining-req-minute": "0"},
            None,
            "rate_limited",
            id="minute",
        ),
    ],
)
def test_a_429_that_no_wait_clears_is_another_kind(headers: dict[str, str], wait: float | None, kind: str) -> None:
    problem = Problem("Rate limit exceeded", code="1300", type="rate_limited")
    assert kind_of(429, problem, headers=headers, wait=wait) == kind


@settings(max_examples=300, deadline=None)
@given(
    status=st.sampled_from([401, 402, 405, 406, 409, 411, 415, 418, 500, 502, 504]),
    text=st.sampled_from(
        ["tier capacity exceeded", "maximum context length", "Rate limit exceeded", "try again later"]
    ),
)
def test_a_phrase_under_another_status_changes_nothing(status: int, text: str) -> None:
    assert kind_of(status, Problem(text), headers={}) == kind_of_status(status)


def test_the_request_id_is_the_correlation_id_before_all_others() -> None:
    headers = {"x-kong-request-id": "k", "mistral-correlation-id": "m"}
    assert request_id(headers, Problem(request_id="b")) == "m"
    assert request_id({"x-kong-request-id": "k"}, Problem(request_id="b")) == "k"
    assert request_id({}, Problem(request_id="b")) == "b"
    assert request_id({}, Problem()) is None


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        pytest.param("a\r\nb", "a\\r\\nb", id="line-breaks"),
        pytest.param("a\x1b[31mb\x00", "a\\x1b[31mb\\x00", id="escapes"),
        pytest.param("a\u2028b\u202ec\u200b", "a\\u2028b\\u202ec\\u200b", id="separators-and-bidi"),
        pytest.param("Grüße 東京 🌈", "Grüße 東京 🌈", id="words"),
    ],
)
def test_provider_text_becomes_one_harmless_line(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.text(alphabet="abcdefgh", min_size=1, max_size=40), max_size=60))
def test_text_is_never_cut_inside_a_word(words: list[str]) -> None:
    kept = escape(" ".join(words), 200)
    assert len(kept) <= 200
    assert set(kept.removesuffix("…").split()) <= set(words)
