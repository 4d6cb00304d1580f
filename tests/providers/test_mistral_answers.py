"""Whole answers: what is read, what is kept, what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import attrs
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
    StructuredOutputError,
)
from bifrost_core.providers import Mistral
from bifrost_core.responses import ChatResponse
from bifrost_core.types import Request, ToolCall, Usage
from bifrost_core.wire import HttpReply

KEY = "sk-answers-0123456789abcd"
FIXTURES = Path(__file__).parent.parent / "fixtures" / "mistral"
ASK = Request("chat", "mistral-small-latest", {"messages": [{"role": "user", "content": "x"}]})


def fixture(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))["body"]


def reply(body: Any, status: int = 200, **headers: str) -> HttpReply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(status, {name.replace("_", "-"): value for name, value in headers.items()}, data, 784_111_777.0)


def read(body: Any, request: Request = ASK) -> ChatResponse:
    response = Mistral(KEY).decode(request, reply(body))
    assert isinstance(response, ChatResponse)
    return response


def with_message(**members: Any) -> dict[str, Any]:
    body: dict[str, Any] = fixture("chat")
    body["choices"][0]["message"].update(members)
    return body


def test_an_answer_is_read() -> None:
    body = fixture("chat")
    response = Mistral(KEY).decode(ASK, reply(body, mistral_correlation_id="c1"))
    assert isinstance(response, ChatResponse)
    assert (response.text, response.reasoning, response.tool_calls, response.finish_reason) == (
        "Bifröst.",
        None,
        (),
        "stop",
    )
    assert response.usage == Usage(input_tokens=40, output_tokens=5, cached_tokens=32, requests=1)
    assert response.model == "mistral-small-latest"
    assert response.raw == body
    assert response.headers == {"mistral-correlation-id": "c1"}
    assert response.message == body["choices"][0]["message"]
    assert response.parsed is None


def test_reasoning_is_told_apart_and_goes_back_unchanged() -> None:
    body = fixture("chat_reasoning")
    response = read(body)
    assert (response.text, response.reasoning) == ("It is 4.", "Two and two. Four.")
    assert response.message == body["choices"][0]["message"]
    call = Mistral(KEY).encode(ASK.with_body(messages=[response.message, {"role": "user", "content": "and?"}]))
    assert json.loads(call.body)["messages"][0] == body["choices"][0]["message"]


def test_tool_calls_are_read_in_every_spelling() -> None:
    first, second = read(fixture("chat_tool_calls")).tool_calls
    assert first == ToolCall("D681PevKs", "weather", '{"city": "Oslo"}')
    assert (second.name, second.parsed()) == ("clock", {"zone": "CET"})
    assert len(second.id) == 9
    assert second.id.isalnum()


def test_a_made_id_is_the_same_in_the_message_for_the_next_turn() -> None:
    response = read(fixture("chat_tool_calls"))
    assert [call["id"] for call in response.message["tool_calls"]] == [call.id for call in response.tool_calls]
    assert read(fixture("chat_tool_calls")).tool_calls == response.tool_calls


@pytest.mark.parametrize(
    ("reason", "read_as"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("model_length", "length"),
        ("tool_calls", "tool_calls"),
        ("new", "new"),
        (None, None),
    ],
    ids=str,
)
def test_the_reason_for_the_end_is_the_librarys_word(reason: str | None, read_as: str | None) -> None:
    body = fixture("chat")
    body["choices"][0]["finish_reason"] = reason
    assert read(body).finish_reason == read_as


def test_calls_are_there_whatever_the_reason_says() -> None:
    body = fixture("chat_tool_calls")
    body["choices"][0]["finish_reason"] = "stop"
    assert (read(body).finish_reason, len(read(body).tool_calls)) == ("stop", 2)


def test_cut_arguments_do_not_lose_the_answer() -> None:
    body = fixture("chat_tool_calls")
    body["choices"][0]["finish_reason"] = "length"
    body["choices"][0]["message"]["tool_calls"] = [
        {"id": "D681PevKs", "function": {"name": "f", "arguments": '{"a": '}}
    ]
    (call,) = read(body).tool_calls
    assert call.arguments == '{"a": '
    with pytest.raises(ValueError, match="'f'"):
        call.parsed()


@pytest.mark.parametrize("content", [None, "", [], [{"type": "reference", "reference_ids": [1]}]], ids=str)
def test_an_answer_without_text_has_an_empty_one(content: Any) -> None:
    assert read(with_message(content=content)).text == ""


def test_several_choices_keep_their_indices() -> None:
    body = fixture("chat")
    other = {"index": 1, "message": {"role": "assistant", "content": "Rainbow."}, "finish_reason": "length"}
    body["choices"].append(other)
    assert [(one.index, one.text, one.finish_reason) for one in read(body).choices] == [
        (0, "Bifröst.", "stop"),
        (1, "Rainbow.", "length"),
    ]


@pytest.mark.parametrize(
    ("usage", "read_as"),
    [
        pytest.param(
            {"prompt_tokens": 1, "completion_tokens": 2}, Usage(input_tokens=1, output_tokens=2, requests=1), id="least"
        ),
        pytest.param(
            {"prompt_tokens": 9, "completion_tokens": 2, "num_cached_tokens": 5},
            Usage(input_tokens=9, output_tokens=2, cached_tokens=5, requests=1),
            id="older-spelling",
        ),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 379, "prompt_audio_seconds": 30},
            Usage(input_tokens=3, output_tokens=1, audio_seconds=30.0, requests=1),
            id="audio-is-never-derived",
        ),
        pytest.param(
            {"prompt_tokens": 3, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}},
            Usage(input_tokens=3, output_tokens=9, reasoning_tokens=4, requests=1),
            id="reasoning",
        ),
        pytest.param({"prompt_tokens": 4}, Usage(input_tokens=4, requests=1), id="no-completion"),
        pytest.param(
            {
                "prompt_tokens": 4,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": -1},
                "prompt_audio_seconds": {},
            },
            Usage(input_tokens=4, output_tokens=1, requests=1),
            id="unusable-details",
        ),
    ],
)
def test_usage_is_taken_as_it_is_given(usage: Any, read_as: Usage) -> None:
    assert read({**fixture("chat"), "usage": usage}).usage == read_as


@pytest.mark.parametrize(
    "usage",
    [
        None,
        7,
        {},
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": 1.5, "completion_tokens": 2},
        {"prompt_tokens": True, "completion_tokens": 2},
        {"prompt_tokens": 1, "completion_tokens": "2"},
        {"prompt_tokens": 10**30, "completion_tokens": 2},
    ],
    ids=str,
)
def test_unusable_usage_is_no_reason_to_lose_an_answer(usage: Any, caplog: pytest.LogCaptureFixture) -> None:
    provider = Mistral(KEY)
    with caplog.at_level(logging.DEBUG, "bifrost_core"):
        for _ in range(2):
            response = provider.decode(ASK, reply({**fixture("chat"), "usage": usage}))
    assert isinstance(response, ChatResponse)
    assert (response.text, response.usage) == ("Bifröst.", Usage(requests=1))
    assert len([record for record in caplog.records if "bad_usage" in record.getMessage()]) == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="blank"),
        pytest.param(b"<!DOCTYPE html><html>", id="html"),
        pytest.param(b"Service is fine", id="text"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"7", id="number"),
        pytest.param(b"{}", id="no-choices"),
        pytest.param(b'{"choices": []}', id="empty-choices"),
        pytest.param(b'{"choices": null}', id="null-choices"),
        pytest.param(b'{"choices": [7]}', id="a-choice-as-a-number"),
        pytest.param(b'{"choices": [{"index": 0}]}', id="a-choice-without-message"),
        pytest.param(b'{"choices": [{"message": {"content": 7}}]}', id="content-as-a-number"),
        pytest.param(b'{"choices": [{"message": {"content": "x"}, "finish_reason": "error"}]}', id="generation-failed"),
        pytest.param(b'{"choices": [{"message": {"content": NaN}}]}', id="nan"),
        pytest.param(b'{"choices": [{"message": {"content": "\xff"}}]}', id="no-utf-8"),
        pytest.param(b'{"choices": [{"message": {"content": "x"', id="cut"),
        pytest.param(b'{"choices": [{"message": {"content": "x"}}]} {}', id="more-than-one-value"),
        pytest.param(b'{"choices": ' + b"[" * 300 + b"]" * 300 + b"}", id="too-deep"),
        pytest.param(b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="far-too-deep"),
        pytest.param(b'data: {"choices": []}\n\n', id="event-stream"),
    ],
)
def test_a_success_that_can_not_be_used_is_a_bad_response(body: bytes) -> None:
    with pytest.raises(ProviderServerError) as caught:
        Mistral(KEY).decode(ASK, reply(body, mistral_correlation_id="c1"))
    error = caught.value
    assert (error.kind, error.status, error.http_status, error.provider, error.request_id) == (
        "bad_response",
        200,
        502,
        "mistral",
        "c1",
    )


def test_no_content_is_a_bad_response() -> None:
    with pytest.raises(ProviderServerError, match="204") as caught:
        Mistral(KEY).decode(ASK, reply(b"", 204))
    assert caught.value.kind == "bad_response"


def test_many_flat_brackets_are_not_deep() -> None:
    body = with_message(content="[" * 500)
    body["more"] = [[], {}] * 500
    assert read(body).text == "[" * 500


# --- anything anywhere


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        found += places(member, (*path, name))
    return found


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@pytest.mark.parametrize("name", ["chat", "chat_reasoning", "chat_tool_calls"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_junk_in_any_place_gives_an_answer_or_a_call_error(name: str, data: st.DataObject) -> None:
    body = fixture(name)
    changed = replaced(body, data.draw(st.sampled_from(places(body))), data.draw(JUNK))
    try:
        response = read(changed)
    except CallError as error:
        problem: CallError | None = error
    else:
        problem = None
        assert response.raw == changed
        assert isinstance(response.text, str)
        response.to_openai()
    assert problem is None or problem.kind == "bad_response"  # both ends are fine


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=60), status=st.sampled_from([200, 204, 302, 400, 401, 422, 429, 500, 503]))
def test_any_bytes_under_any_status_give_a_call_error(body: bytes, status: int) -> None:
    with pytest.raises(CallError) as caught:
        Mistral(KEY).decode(ASK, reply(body, status))
    assert len(caught.value.message) < 600


# --- errors


def failure(status: int, body: Any, **headers: str) -> CallError:
    with pytest.raises(CallError) as caught:
        Mistral(KEY, name="eu").decode(ASK, reply(body, status, **headers))
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "cls", "http_status"),
    [
        pytest.param(400, {"object": "error", "message": "m", "code": "3230"}, BadRequestError, 400, id="bad-request"),
        pytest.param(422, {"detail": []}, BadRequestError, 422, id="validation"),
        pytest.param(400, {"object": "error", "message": "m", "code": "1500"}, ModelNotFoundError, 404, id="model"),
        pytest.param(
            400,
            {"message": "too large for model with 32768 maximum context length"},
            ContextLengthError,
            400,
            id="length",
        ),
        pytest.param(401, {"detail": "Invalid API Key"}, ProviderAuthError, 502, id="key"),
        pytest.param(403, {"object": "error", "message": "m", "code": "1910"}, ProviderAuthError, 502, id="tier"),
        pytest.param(429, {"message": "slow down"}, ProviderRateLimitError, 429, id="rate"),
        pytest.param(503, b"", ProviderServerError, 502, id="server"),
        pytest.param(504, b"", ProviderTimeoutError, 504, id="timeout"),
        pytest.param(302, b"", ProviderServerError, 502, id="redirect"),
    ],
)
def test_a_failure_is_raised_as_its_class(status: int, body: Any, cls: type[CallError], http_status: int) -> None:
    error = failure(status, body)
    assert type(error) is cls
    assert error.http_status == http_status


def test_a_failure_carries_what_the_provider_said() -> None:
    error = failure(
        429,
        {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
        retry_after="Sun, 06 Nov 1994 08:50:07 GMT",
        x_kong_request_id="k1",
    )
    assert isinstance(error, ProviderRateLimitError)
    assert (error.provider, error.status, error.code, error.retry_after, error.request_id, error.excerpt) == (
        "eu",
        429,
        "1300",
        30.0,
        "k1",
        "Rate limit exceeded",
    )
    assert str(error).startswith("eu answered 429: Rate limit exceeded (")


def test_what_was_sent_is_not_quoted_from_a_validation_error() -> None:
    entry = {"type": "extra_forbidden", "loc": ["body", "user"], "msg": "not permitted", "input": "private words"}
    for body in ({"detail": [entry]}, {"object": "error", "message": {"detail": [entry]}}):
        error = failure(422, body)
        assert "body.user: not permitted" in str(error)
        assert "private" not in str(error) + repr(vars(error))


@pytest.mark.parametrize(
    "around", ["{}", "key {} is wrong " * 3, "x" * 230 + " {}", "y " * 246 + "{}", "z" * 490 + "{}"]
)
def test_an_echoed_key_is_masked_wherever_it_stands(around: str) -> None:
    for body in ({"message": around.replace("{}", KEY), "code": KEY, "type": KEY}, around.replace("{}", KEY).encode()):
        error = failure(401, body)
        shown = str(error) + repr(vars(error))
        assert KEY not in shown
        assert KEY[:12] not in shown


def test_html_is_named_and_not_quoted_in_the_message() -> None:
    error = failure(520, b"<!DOCTYPE html>\n<html><body>" + b"x " * 5000)
    assert "a page of HTML" in str(error)
    assert isinstance(error, ProviderServerError)
    assert error.excerpt is not None
    assert len(error.excerpt) <= 500
    assert "\n" not in error.excerpt


# --- structured output


@attrs.frozen
class Bridge:
    name: str
    colours: int


def test_an_answer_becomes_an_instance_of_the_class_that_was_asked_for() -> None:
    request = ASK.with_body(response_format=Bridge)
    asked = json.loads(Mistral(KEY).encode(request).body)["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["name"] == "Bridge"
    assert asked["json_schema"]["strict"] is True
    response = read(with_message(content='{"name": "Bifröst", "colours": 3}'), request)
    assert response.parsed == Bridge("Bifröst", 3)


def test_an_answer_that_does_not_fit_keeps_its_text() -> None:
    response = read(
        with_message(content='{"name": "private", "colours": "three"}'), ASK.with_body(response_format=Bridge)
    )
    with pytest.raises(StructuredOutputError, match=r"Bridge at \$\.colours") as caught:
        _ = response.parsed
    assert caught.value.text == response.text == '{"name": "private", "colours": "three"}'
    assert "private" not in str(caught.value)
