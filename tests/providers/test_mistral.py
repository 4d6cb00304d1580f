"""The Mistral adapter with bytes alone: what it writes, what it reads, what each failure means.

Facts: https://docs.mistral.ai/api (requests, answers, streams) and the error glossary of the public documentation.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import (
    BadRequestError,
    CallError,
    ChatResponse,
    Chunk,
    ContextLengthError,
    Kind,
    Mistral,
    ModelNotFoundError,
    ProviderAuthError,
    ProviderRateLimitError,
    ProviderServerError,
    ProviderTimeoutError,
    Request,
    StreamBrokenError,
    StructuredOutputError,
    UnsupportedParameterError,
)
from bifrost_core.wire import HttpReply

MISTRAL = Mistral(["sk-canary-aaaaaaaaaaaaaaaa"])
MESSAGES = [{"role": "user", "content": "hi"}]


def request(*, stream: bool = False, **body: Any) -> Request:
    return Request("chat", "mistral-small-latest", {"messages": MESSAGES, **body}, stream=stream)


def sent(*, max_output: int | None = None, stream: bool = False, **body: Any) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(MISTRAL.encode(request(stream=stream, **body), max_output).body)
    return written


def answer(**message: Any) -> dict[str, Any]:
    return {
        "id": "0123456789abcdef0123456789abcdef",
        "object": "chat.completion",
        "created": 1,
        "model": "mistral-small-latest",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 4,
            "total_tokens": 13,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    }


def read(body: Any, *, status: int = 200, headers: dict[str, str] | None = None, **wanted: Any) -> ChatResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = MISTRAL.decode(request(**wanted), HttpReply(status, headers or {}, data, 0.0))
    assert isinstance(response, ChatResponse)
    return response


# -- what is sent -------------------------------------------------------------------------------


def test_fields_keep_their_names_or_get_mistrals() -> None:
    body = sent(seed=7, max_completion_tokens=20, temperature=0.5, safe_prompt=True, stream=True, user="ann")
    assert body == {
        "model": "mistral-small-latest",
        "messages": MESSAGES,
        "random_seed": 7,
        "max_tokens": 20,
        "temperature": 0.5,
        "safe_prompt": True,
        "stream": True,
    }


@pytest.mark.parametrize("field", ["logit_bias", "functions", "tempratur"])
def test_a_field_that_would_be_lost_is_refused_by_name(field: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        MISTRAL.encode(request().with_body(**{field: {"x": 1}}))
    assert caught.value.parameter == field


def test_extra_body_is_merged_as_it_is_and_a_lower_limit_wins() -> None:
    assert sent(extra_body={"metadata": {"a": 1}})["metadata"] == {"a": 1}
    assert sent(max_tokens=50, max_output=8)["max_tokens"] == 8
    assert sent(max_tokens=5, max_output=8)["max_tokens"] == 5
    assert MISTRAL.encode(request(max_tokens=5, n=3)).output_upper == 15
    assert MISTRAL.encode(request()).output_upper is None


@pytest.mark.parametrize(
    "base", ["http://localhost:1/", "http://localhost:1/v1", "http://localhost:1/v1/", "http://localhost:1"]
)
def test_a_base_url_works_with_and_without_its_version(base: str) -> None:
    adapter = Mistral(["sk-canary-aaaaaaaaaaaaaaaa"], base_url=base)
    assert adapter.encode(request()).url == "http://localhost:1/v1/chat/completions"


# -- what is read -------------------------------------------------------------------------------


def test_a_plain_answer_is_read_whole() -> None:
    reply = read(answer(content="hello"))
    assert (reply.text, reply.reasoning, reply.tool_calls, reply.finish_reason) == ("hello", None, (), "stop")
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_tokens) == (9, 4, 3)
    assert reply.raw == answer(content="hello")


def test_thinking_comes_out_as_reasoning_and_stays_in_the_message() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True},
        {"type": "text", "text": "yes"},
    ]
    reply = read(answer(content=content))
    assert (reply.text, reply.reasoning) == ("yes", "hm")
    assert reply.message["content"] == content


def test_tool_calls_are_read_with_arguments_as_text() -> None:
    function = {"name": "f", "arguments": {"x": 1}}
    reply = read(answer(content="", tool_calls=[{"id": "abcdefghi", "function": function}]))
    assert [(call.id, call.name, call.parsed()) for call in reply.tool_calls] == [("abcdefghi", "f", {"x": 1})]


def test_a_class_as_response_format_is_parsed_and_a_mismatch_keeps_the_text() -> None:
    @attrs.frozen
    class City:
        name: str
        people: int

    schema = sent(response_format=City)["response_format"]
    assert schema["type"] == "json_schema"
    assert set(schema["json_schema"]["schema"]["properties"]) == {"name", "people"}
    assert read(answer(content='{"name":"Oslo","people":7}'), response_format=City).parsed == City("Oslo", 7)
    with pytest.raises(StructuredOutputError) as caught:
        _ = read(answer(content='{"name":"Oslo"}'), response_format=City).parsed
    assert caught.value.text == '{"name":"Oslo"}'


def shape_a(kind: str, code: str | None, message: str = "no", status: int = 400) -> dict[str, Any]:
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code, "raw_status_code": status}


ERRORS: list[tuple[int, Any, dict[str, str], type[CallError], Kind]] = [
    (400, shape_a("invalid_model", "1500"), {}, ModelNotFoundError, Kind.MODEL_NOT_FOUND),
    (400, shape_a("invalid_request_message_order", "3230"), {}, BadRequestError, Kind.INVALID_REQUEST),
    (400, shape_a("invalid_request_invalid_args", "3051"), {}, BadRequestError, Kind.INVALID_REQUEST),
    (
        400,
        shape_a(
            "invalid_request_invalid_args",
            "3051",
            "Prompt contains 9 tokens, too large for model with 8 maximum context length",
        ),
        {},
        ContextLengthError,
        Kind.CONTEXT_TOO_LONG,
    ),
    (401, {"detail": "Invalid API Key"}, {}, ProviderAuthError, Kind.AUTH),
    (401, {"message": "Unauthorized", "request_id": "r"}, {}, ProviderAuthError, Kind.AUTH),
    (402, b"", {}, ProviderAuthError, Kind.PAYMENT),
    (403, shape_a("tier_not_allowed", "1910"), {}, ProviderAuthError, Kind.PERMISSION),
    (404, {"message": "no Route matched with those values"}, {}, ModelNotFoundError, Kind.MODEL_NOT_FOUND),
    (422, {"detail": [{"type": "missing", "loc": ["body"], "msg": "m"}]}, {}, BadRequestError, Kind.INVALID_REQUEST),
    (429, shape_a("rate_limited", "1300"), {}, ProviderRateLimitError, Kind.RATE_LIMITED),
    (
        429,
        shape_a("rate_limited", "1300"),
        {"x-ratelimit-limit-req-minute": "0"},
        ProviderRateLimitError,
        Kind.QUOTA_EXHAUSTED,
    ),
    (429, shape_a("service_tier_capacity_exceeded", "3505"), {}, ProviderServerError, Kind.MODEL_OVERLOADED),
    (500, {"detail": "Internal Server Error"}, {}, ProviderServerError, Kind.SERVER_ERROR),
    (503, shape_a("unreachable_backend", "1100"), {}, ProviderServerError, Kind.SERVER_ERROR),
    (504, b"", {}, ProviderTimeoutError, Kind.SERVER_TIMEOUT),
    (520, b"<html>", {}, ProviderServerError, Kind.SERVER_ERROR),
    (302, b"", {"location": "https://elsewhere.invalid"}, ProviderServerError, Kind.REDIRECT),
]


@pytest.mark.parametrize(
    ("status", "body", "headers", "cls", "kind"), ERRORS, ids=[f"{row[0]} {row[4]} {i}" for i, row in enumerate(ERRORS)]
)
def test_each_refusal_is_known_for_what_it_is(
    status: int, body: Any, headers: dict[str, str], cls: type[CallError], kind: Kind
) -> None:
    with pytest.raises(CallError) as caught:
        read(body, status=status, headers={"mistral-correlation-id": "id-1", **headers})
    error: Any = caught.value
    assert (type(error), error.kind, error.status, error.request_id) == (cls, kind, status, "id-1")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}, 30.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "1, 2"}, None),
        ({}, None),
    ],
    ids=["seconds", "spaces", "milliseconds first", "date", "word", "negative", "inf", "Arabic", "two", "none"],
)
def test_a_wait_is_taken_from_every_valid_form_and_no_other(headers: dict[str, str], seconds: float | None) -> None:
    with pytest.raises(ProviderRateLimitError) as caught:
        read(shape_a("rate_limited", "1300"), status=429, headers=headers)
    assert caught.value.retry_after == seconds


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
    )
)
def test_no_json_at_all_raises_anything_but_a_call_error(data: Any) -> None:
    for body in (data, {"choices": data}, {"choices": [{"message": data}]}, {**answer(content="x"), "usage": data}):
        for status in (200, 429):
            try:
                read(body, status=status)
            except CallError:
                continue


# -- streams ------------------------------------------------------------------------------------


def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = {"id": "i", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


USAGE = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
PIECES = [
    {"index": 0, "id": "abcdefghi", "function": {"name": "f", "arguments": ""}},
    {"index": 0, "id": "", "function": {"name": "", "arguments": '{"x":'}},
    {"index": 0, "function": {"name": "", "arguments": "1}"}},
]
STREAM = (
    event({"role": "assistant", "content": ""})
    + event({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}, p="abc")
    + event({"content": "Zü\u2028rich "})
    + event({"content": [{"type": "text", "text": "é🙂"}]})
    + "".join(event({"tool_calls": [piece]}) for piece in PIECES)
    + event({"content": "!"}, "stop", usage=USAGE)
    + "data: [DONE]\n\n"
)


def decoded(data: bytes, cuts: list[int]) -> tuple[list[Chunk], ChatResponse]:
    decoder = MISTRAL.decoder(request(stream=True))
    chunks: list[Chunk] = []
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        chunks += decoder.feed(data[start:end])
    assert decoder.error is None
    response = decoder.finish()
    assert isinstance(response, ChatResponse)
    return chunks, response


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_split_and_any_legal_spelling_gives_the_same_chunks(data: st.DataObject) -> None:
    whole, reply = decoded(STREAM.encode(), [])
    text = STREAM
    if data.draw(st.booleans()):
        text = "\ufeff" + text
    if data.draw(st.booleans()):
        text = text.replace("data: [", ": a comment\n\nevent: x\ndata: [")
    line = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    raw = text.replace("\n", line).encode()
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=40))
    chunks, again = decoded(raw, cuts)
    assert chunks == whole
    assert again == reply
    assert (reply.text, reply.reasoning) == ("Zü\u2028rich é🙂!", "hm")
    assert [(call.id, call.parsed()) for call in reply.tool_calls] == [("abcdefghi", {"x": 1})]
    assert reply.usage.output_tokens == 3


@pytest.mark.parametrize("kept", [0, 1, 3, 7], ids=str)
def test_a_stream_without_a_finish_reason_is_cut_whatever_ends_it(kept: int) -> None:
    events = STREAM.split("\n\n")[:kept]
    data = "".join(f"{each}\n\n" for each in events) + "data: [DONE]\n\n"
    decoder = MISTRAL.decoder(request(stream=True))
    decoder.feed(data.encode())
    with pytest.raises(StreamBrokenError) as caught:
        decoder.finish()
    assert caught.value.kind == Kind.STREAM_TRUNCATED


def test_a_finish_reason_without_done_is_complete() -> None:
    _, reply = decoded(STREAM.replace("data: [DONE]\n\n", "").encode(), [])
    assert reply.finish_reason == "stop"


@pytest.mark.parametrize(
    "bad",
    ['{"object":"error","message":"no","code":"1000"}', '{"error":{"message":"no"}}', "{not json", '{"x":1}'],
    ids=["error object", "error member", "no JSON", "unknown"],
)
def test_an_error_inside_a_stream_is_seen_after_the_chunks_before_it(bad: str) -> None:
    decoder = MISTRAL.decoder(request(stream=True))
    chunks = decoder.feed((event({"content": "a"}) + f"data: {bad}\n\n").encode())
    assert [chunk.text for chunk in chunks] == ["a"]
    assert isinstance(decoder.error, CallError)
