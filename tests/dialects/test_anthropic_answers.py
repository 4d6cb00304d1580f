"""Whole answers, models and errors as Anthropic writes them.

Forms: https://platform.claude.com/docs/en/api/messages/create, …/api/models/list and …/api/errors.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import pytest

from bifrost_core.dialects import Inbound, Reply
from bifrost_core.dialects._anthropic_answers import message_of, models_page
from bifrost_core.dialects.anthropic import AnthropicDialect
from bifrost_core.errors import (
    BadRequestError,
    BifrostError,
    BudgetExceededError,
    CallError,
    ConfigError,
    DeadlineExceededError,
    GuardrailError,
    ModelNotFoundError,
    NoKeyAvailableError,
    PluginError,
    ProviderAuthError,
    ProviderRateLimitError,
    ProviderServerError,
    RateLimitError,
    RefusedError,
    VirtualKeyError,
)
from bifrost_core.kinds import Kind
from bifrost_core.responses import ChatResponse, ModelInfo, ModelList
from bifrost_core.types import Choice, ToolCall, Usage

Json: TypeAlias = dict[str, Any]

DIALECT = AnthropicDialect()
COUNTS = {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}


def test_a_chat_answer_becomes_a_message() -> None:
    content = [
        {
            "type": "thinking",
            "thinking": [{"type": "text", "text": "hm "}, {"type": "reference", "reference_ids": [1]}],
        },
        {"type": "text", "text": "Look."},
    ]
    call = ToolCall("a", "f", '{"x": 1}')
    response = ChatResponse(
        model="mistral-small-latest",
        raw={"id": "cmpl-1", "choices": []},
        usage=Usage(input_tokens=30, cached_tokens=12, cache_write_tokens=3, output_tokens=5),
        choices=[
            Choice(
                text="Look.",
                reasoning="hm ",
                tool_calls=[call],
                finish_reason="tool_calls",
                message={"role": "assistant", "content": content},
            )
        ],
    )
    assert message_of(response) == {
        "id": "cmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "mistral-small-latest",
        "content": [
            {"type": "thinking", "thinking": "hm ", "signature": ""},
            {"type": "text", "text": "Look."},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 15,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 12,
            "output_tokens": 5,
        },
    }


def test_what_was_cached_for_an_hour_is_told_beside_the_rest() -> None:
    usage = Usage(input_tokens=30, cached_tokens=12, cache_write_tokens=8, long_cache_write_tokens=5, output_tokens=5)
    assert message_of(ChatResponse(usage=usage, choices=[Choice(text="x")]))["usage"] == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 8,
        "cache_read_input_tokens": 12,
        "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 5},
        "output_tokens": 5,
    }


def test_a_message_of_anthropics_is_not_touched() -> None:
    raw = {"type": "message", "id": "msg_1", "content": [{"type": "text", "text": "x"}], "else": {"kept": [1]}}
    assert message_of(ChatResponse(raw=raw, choices=[Choice(text="x")])) is raw


def test_an_answer_made_by_hand_is_told_by_its_fields() -> None:
    message = message_of(ChatResponse(model="m", call_id="call_1", choices=[Choice(text="No.", reasoning="why")]))
    assert message == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "thinking", "thinking": "why", "signature": ""}, {"type": "text", "text": "No."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": COUNTS,
    }
    assert message_of(ChatResponse())["content"] == []


def test_fields_count_where_the_message_says_something_else() -> None:
    old = {"role": "assistant", "content": [{"type": "text", "text": "secret"}]}
    assert message_of(ChatResponse(choices=[Choice(text="gone", message=old)]))["content"] == [
        {"type": "text", "text": "gone"}
    ]


def test_signed_and_sealed_thoughts_keep_what_they_were_given() -> None:
    parts = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "c2VhbGVk"},
        {"type": "text", "text": "x"},
    ]
    choice = Choice(text="x", reasoning="hm", message={"role": "assistant", "content": parts})
    assert message_of(ChatResponse(choices=[choice]))["content"] == parts


def test_a_prefill_that_a_provider_repeats_is_taken_off() -> None:
    response = ChatResponse(choices=[Choice(text="The answer is (B)")])
    assert message_of(response, "The answer is (")["content"] == [{"type": "text", "text": "B)"}]
    assert message_of(response, "The answer is [")["content"] == [{"type": "text", "text": "The answer is (B)"}]


def test_a_call_that_can_not_be_read_keeps_its_words() -> None:
    response = ChatResponse(choices=[Choice(tool_calls=[ToolCall("a", "f", '{"x": ')], finish_reason="length")])
    message = message_of(response)
    assert message["content"] == [{"type": "tool_use", "id": "a", "name": "f", "input": {"INVALID_JSON": '{"x": '}}]
    assert message["stop_reason"] == "max_tokens"


# --- models


def listed(*names: str) -> list[ModelInfo]:
    return [ModelInfo(id=f"p/{name}", provider="p", name=name) for name in names]


def test_a_model_is_listed_under_the_name_by_which_it_can_be_called() -> None:
    info = ModelInfo(
        id="mistral/a",
        provider="mistral",
        name="a",
        context_length=32_000,
        deprecation="2027-01-01T00:00:00Z",
        raw={"created": 1_700_000_000},
    )
    own = ModelInfo(id="anthropic/c", provider="anthropic", name="c", raw={"type": "model", "id": "c", "line": "opus"})
    page = models_page([info, own, *listed("b")], {})
    assert page == {
        "data": [
            {
                "type": "model",
                "id": "mistral/a",
                "display_name": "a",
                "created_at": "2023-11-14T22:13:20Z",
                "lifecycle": "deprecated",
                "retires_at": "2027-01-01T00:00:00Z",
                "max_input_tokens": 32_000,
            },
            {"type": "model", "id": "anthropic/c", "line": "opus"},
            {
                "type": "model",
                "id": "p/b",
                "display_name": "b",
                "created_at": "1970-01-01T00:00:00Z",
                "lifecycle": "active",
                "retires_at": None,
                "max_input_tokens": None,
            },
        ],
        "has_more": False,
        "first_id": "mistral/a",
        "last_id": "p/b",
    }


@pytest.mark.parametrize(
    ("query", "ids", "has_more"),
    [
        pytest.param({"limit": "2"}, ["a", "b"], True, id="first"),
        pytest.param({"limit": "2", "after_id": "p/b"}, ["c", "d"], False, id="after"),
        pytest.param({"limit": "2", "before_id": "p/d"}, ["b", "c"], True, id="before"),
        pytest.param({"after_id": "p/d"}, [], False, id="behind-the-last"),
    ],
)
def test_pages_of_models(query: dict[str, str], ids: list[str], has_more: bool) -> None:
    page = models_page(listed("a", "b", "c", "d"), query)
    assert [model["id"] for model in page["data"]] == [f"p/{name}" for name in ids]
    assert page["has_more"] is has_more
    assert (page["first_id"], page["last_id"]) == ((f"p/{ids[0]}", f"p/{ids[-1]}") if ids else (None, None))


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "-1"}, {"limit": "1001"}, {"limit": "x"}, {"after_id": "e"}]
)
def test_a_page_that_there_is_not_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(CallError) as caught:
        models_page(listed("a"), query)
    assert next(iter(query)) in caught.value.message


def asked(path: str, **query: str) -> Reply:
    order = DIALECT.parse(Inbound("GET", path, {}, query=query))
    return order.renderer.whole(ModelList(models=tuple(listed("a", "b"))))


def test_an_answer_of_another_kind_is_a_plugins_mistake() -> None:
    body = b'{"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}'
    renderer = DIALECT.parse(Inbound("POST", "messages", {}, body)).renderer
    with pytest.raises(PluginError, match="return a ChatResponse"):
        renderer.whole(ModelList())


def test_one_model_by_its_name() -> None:
    assert json.loads(asked("models/p/b").body)["id"] == "p/b"
    assert [model["id"] for model in json.loads(asked("models").body)["data"]] == ["p/a", "p/b"]
    with pytest.raises(ModelNotFoundError, match="'p/c'"):
        asked("models/p/c")
    with pytest.raises(CallError, match="lifecycle"):
        asked("models", **{"lifecycle[]": "retired"})


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        pytest.param("POST", "messages/count_tokens", "Router.estimate()", id="count-tokens"),
        pytest.param("POST", "messages/batches", "'messages/batches'", id="batches"),
        pytest.param("POST", "chat/completions", "'chat/completions'", id="another-dialects"),
        pytest.param("DELETE", "messages", "DELETE", id="method"),
    ],
)
def test_what_is_not_served_is_not_found(method: str, path: str, said: str) -> None:
    with pytest.raises(CallError) as caught:
        DIALECT.parse(Inbound(method, path, {}, b"{}"))
    assert (caught.value.http_status, said in caught.value.message) == (404, True)


# --- errors


@pytest.mark.parametrize(
    ("error", "status", "named"),
    [
        pytest.param(BadRequestError("no"), 400, "invalid_request_error", id="request"),
        pytest.param(BadRequestError("no", status=422), 422, "invalid_request_error", id="the-providers-own"),
        pytest.param(ConfigError("no", field="model"), 400, "invalid_request_error", id="arguments"),
        pytest.param(ConfigError("closed"), 500, "api_error", id="not-the-callers"),
        pytest.param(VirtualKeyError("no"), 401, "authentication_error", id="virtual-key"),
        pytest.param(BudgetExceededError("no"), 402, "billing_error", id="budget"),
        pytest.param(RefusedError("no"), 403, "permission_error", id="refused"),
        pytest.param(ModelNotFoundError("no"), 404, "not_found_error", id="model"),
        pytest.param(BadRequestError("no", kind=Kind.CONFLICT, status=409), 409, "conflict_error", id="conflict"),
        pytest.param(BadRequestError("no", kind=Kind.REQUEST_TOO_LARGE), 413, "request_too_large", id="too-large"),
        pytest.param(RateLimitError("no"), 429, "rate_limit_error", id="our-limit"),
        pytest.param(ProviderRateLimitError("no", status=429), 429, "rate_limit_error", id="their-limit"),
        pytest.param(GuardrailError("no"), 446, "invalid_request_error", id="guardrail"),
        pytest.param(ProviderAuthError("no", status=401), 502, "api_error", id="our-key"),
        pytest.param(ProviderServerError("no", status=500), 502, "api_error", id="server"),
        pytest.param(NoKeyAvailableError("no"), 503, "overloaded_error", id="no-route"),
        pytest.param(
            ProviderServerError("no", kind=Kind.MODEL_OVERLOADED, status=529), 529, "overloaded_error", id="overloaded"
        ),
        pytest.param(DeadlineExceededError("no"), 504, "timeout_error", id="deadline"),
    ],
)
def test_an_error_is_told_in_anthropics_words(error: BifrostError, status: int, named: str) -> None:
    reply = DIALECT.refusal(error, "call_1")
    assert (reply.status, dict(reply.headers)) == (status, {"content-type": "application/json"})
    assert json.loads(reply.body) == {
        "type": "error",
        "error": {"type": named, "message": error.message},
        "request_id": "call_1",
    }


def test_an_error_inside_a_stream_is_an_event() -> None:
    body = b'{"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "stream": true}'
    renderer = DIALECT.parse(Inbound("POST", "messages", {}, body)).renderer
    assert renderer.fail(ProviderServerError("it broke", call_id="call_1")) == (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"it broke"},"request_id":"call_1"}\n\n'
    )
