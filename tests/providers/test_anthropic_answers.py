"""Whole messages into answers: blocks, reasons, usage, and what can not be used.

Facts: https://platform.claude.com/docs/en/api/messages/create.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from bifrost_core.errors import ProviderServerError
from bifrost_core.kinds import Kind
from bifrost_core.providers import Anthropic
from bifrost_core.responses import ChatResponse, ResponsesResponse
from bifrost_core.types import Request, ToolCall, Usage
from bifrost_core.wire import HttpReply

ANTHROPIC = Anthropic("sk-ant-answers-0123456789")
ASK = Request("chat", "claude-opus-4-8", {"messages": [{"role": "user", "content": "x"}]})
TEXT = {"type": "text", "text": "Hello"}


def message(*blocks: Any, **members: Any) -> dict[str, Any]:
    return {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-4-8",
        "content": list(blocks),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 4},
        **members,
    }


def read(body: Any, *, status: int = 200, ask: Request = ASK) -> ChatResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = ANTHROPIC.decode(ask, HttpReply(status, {"request-id": "req_1"}, data))
    assert isinstance(response, ChatResponse)
    return response


def test_a_text_is_an_answer_and_nothing_of_the_message_is_lost() -> None:
    body = message(TEXT, container=None, new_member={"a": [1]})
    response = read(body)
    assert (response.text, response.reasoning, response.tool_calls, response.finish_reason) == (
        "Hello",
        None,
        (),
        "stop",
    )
    assert (response.model, response.raw, response.headers) == ("claude-opus-4-8", body, {"request-id": "req_1"})
    assert response.message == {"role": "assistant", "content": "Hello"}
    assert response.usage == Usage(input_tokens=10, output_tokens=4, requests=1)
    assert response.to_openai()["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "Hello"},
        "finish_reason": "stop",
        "logprobs": None,
    }


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
        ("compaction", "compaction"),
        (None, None),
    ],
)
def test_the_reason_is_the_librarys_word(reason: str | None, word: str | None) -> None:
    assert read(message(TEXT, stop_reason=reason)).finish_reason == word


@pytest.mark.parametrize(
    ("blocks", "content"),
    [
        pytest.param([], "", id="nothing"),
        pytest.param([{**TEXT, "citations": None}], "Hello", id="no-citations"),
        pytest.param([TEXT, TEXT], [TEXT, TEXT], id="two-texts"),
        pytest.param([{**TEXT, "citations": [{"cited_text": "q"}]}], [{**TEXT, "citations": [{"cited_text": "q"}]}], id="citations"),
        pytest.param([{"type": "thinking", "thinking": "Hm", "signature": "E"}, TEXT], [{"type": "thinking", "thinking": "Hm", "signature": "E"}, TEXT], id="thoughts"),
        pytest.param([{"type": "redacted_thinking", "data": "E"}], [{"type": "redacted_thinking", "data": "E"}], id="sealed"),
        pytest.param([{"type": "of_tomorrow", "x": 1}], [{"type": "of_tomorrow", "x": 1}], id="unknown"),
    ],
)  # fmt: skip
def test_the_message_for_the_next_request_has_every_block(blocks: list[Any], content: Any) -> None:
    assert read(message(*blocks)).message == {"role": "assistant", "content": content}


def test_calls_are_in_order_with_what_has_to_go_back_with_them() -> None:
    first = {
        "type": "tool_use",
        "id": "toolu_1",
        "name": "f",
        "input": {"z": 1, "a": "ä"},
        "caller": {"type": "direct"},
    }
    second = {
        "type": "tool_use",
        "id": "toolu_2",
        "name": "g",
        "input": {},
        "toolset_name": "browser",
        "caller": {"type": "x"},
    }
    response = read(message(TEXT, first, second, stop_reason="tool_use"))
    calls = (ToolCall("toolu_1", "f", '{"z":1,"a":"ä"}'), ToolCall("toolu_2", "g", "{}"))
    assert (response.tool_calls, response.finish_reason) == (calls, "tool_calls")
    assert response.message == {
        "role": "assistant",
        "content": "Hello",
        "tool_calls": [
            calls[0].to_openai(),
            {**calls[1].to_openai(), "toolset_name": "browser", "caller": {"type": "x"}},
        ],
    }


def test_what_follows_a_call_keeps_the_calls_in_their_places() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    thought = {"type": "thinking", "thinking": "then", "signature": "E"}
    response = read(message(TEXT, call, thought, {**call, "id": "toolu_2"}, TEXT))
    assert response.message["content"] == [TEXT, call, thought, {**call, "id": "toolu_2"}, TEXT]
    assert [sent["id"] for sent in response.message["tool_calls"]] == ["toolu_1", "toolu_2"]
    assert (response.text, response.reasoning) == ("HelloHello", "then")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param(
            {"input_tokens": 5, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 40, "output_tokens": 7,
             "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0},
             "output_tokens_details": {"thinking_tokens": 3}, "server_tool_use": {"web_search_requests": 1}},
            Usage(input_tokens=145, output_tokens=7, cached_tokens=40, cache_write_tokens=100, reasoning_tokens=3, requests=1),
            id="cache",
        ),
        pytest.param(
            {"input_tokens": 5, "cache_creation_input_tokens": 100, "output_tokens": 7,
             "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70}},
            Usage(input_tokens=105, output_tokens=7, cache_write_tokens=100, long_cache_write_tokens=70, requests=1),
            id="an-hour",
        ),
        pytest.param(
            {"input_tokens": 5, "cache_creation_input_tokens": 3, "output_tokens": 7, "cache_creation": {"ephemeral_1h_input_tokens": 9}},
            Usage(input_tokens=8, output_tokens=7, cache_write_tokens=3, long_cache_write_tokens=3, requests=1),
            id="more-for-an-hour-than-in-all",
        ),
        pytest.param(
            {"input_tokens": 5, "cache_creation_input_tokens": 3, "output_tokens": 7, "cache_creation": {"ephemeral_1h_input_tokens": "3"}},
            Usage(input_tokens=8, output_tokens=7, cache_write_tokens=3, requests=1),
            id="a-word-for-an-hour",
        ),
        pytest.param(
            {"input_tokens": 5, "output_tokens": 7, "cache_creation": None},
            Usage(input_tokens=5, output_tokens=7, requests=1),
            id="no-lifetimes",
        ),
        pytest.param({"input_tokens": 5, "output_tokens": 0, "cache_read_input_tokens": None}, Usage(input_tokens=5, requests=1), id="nulls"),
        pytest.param({"input_tokens": -1, "output_tokens": 0}, Usage(requests=1), id="less-than-nothing"),
        pytest.param({"input_tokens": 5, "output_tokens": True}, Usage(requests=1), id="no-number"),
        pytest.param({"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": "4"}, Usage(requests=1), id="a-word"),
        pytest.param({"output_tokens": 2}, Usage(requests=1), id="half"),
        pytest.param(None, Usage(requests=1), id="none"),
    ],
)  # fmt: skip
def test_the_input_is_what_was_read_past_the_cache_from_it_and_into_it(usage: Any, expected: Usage) -> None:
    assert read(message(TEXT, usage=usage)).usage == expected


@pytest.mark.parametrize(
    ("body", "why"),
    [
        pytest.param(b"", "no body", id="empty"),
        pytest.param(b"<html>", "HTML", id="html"),
        pytest.param(b"event: ping", "event stream", id="events"),
        pytest.param(b"[]", "array", id="array"),
        pytest.param(b'{"a":', "can not be read", id="cut"),
        pytest.param({"type": "message"}, "no content", id="no-content"),
        pytest.param(message("x"), r"content\[0\]", id="no-block"),
        pytest.param(message({"type": 3}), r"content\[0\]", id="no-type"),
        pytest.param(message({"type": "text"}), r"content\[0\]\.text", id="no-text"),
        pytest.param(message({"type": "thinking", "thinking": None}), r"content\[0\]\.thinking", id="no-thought"),
        pytest.param(message({"type": "tool_use", "name": "f", "input": {}}), "id", id="no-id"),
        pytest.param(message(TEXT, stop_reason=3), "stop_reason", id="no-reason"),
        pytest.param(
            message({"type": "tool_use", "id": "t", "name": "f"}, "x"), r"content\[1\]", id="no-block-after-a-call"
        ),
    ],
)
def test_a_success_that_can_not_be_used_says_why(body: Any, why: str) -> None:
    with pytest.raises(ProviderServerError, match=why) as caught:
        read(body)
    assert (caught.value.kind, caught.value.request_id) == (Kind.BAD_RESPONSE, "req_1")


def test_an_error_under_a_status_of_success_is_one() -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_2"}
    with pytest.raises(ProviderServerError) as caught:
        read(body)
    assert (caught.value.kind, caught.value.status) == (Kind.MODEL_OVERLOADED, 529)


def test_a_responses_answer_has_the_thoughts_the_words_and_the_calls() -> None:
    ask = Request("responses", "claude-opus-4-8", {"input": [{"role": "user", "content": "x"}]})
    body = message(
        {"type": "thinking", "thinking": "Hm", "signature": "E"},
        TEXT,
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        stop_reason="max_tokens",
    )
    response = ANTHROPIC.decode(ask, HttpReply(200, {}, json.dumps(body).encode()))
    assert isinstance(response, ResponsesResponse)
    assert [item["type"] for item in response.output] == ["reasoning", "message", "function_call"]
    assert (response.id, response.output_text, response.reasoning) == ("resp_msg_01", "Hello", "Hm")
    assert (response.status, response.incomplete_reason) == ("incomplete", "max_output_tokens")
    assert response.tool_calls == (ToolCall("toolu_1", "f", '{"a":1}'),)
    assert response.raw == body
