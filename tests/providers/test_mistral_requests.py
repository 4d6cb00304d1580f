"""Requests on Mistral's wire: every field is sent, renamed, left out where it says nothing, or refused by name."""

from __future__ import annotations

import json
import logging
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.errors import BadRequestError, UnsupportedParameterError
from bifrost_core.providers import Mistral
from bifrost_core.responses import ChatResponse
from bifrost_core.types import Request, ToolCall
from bifrost_core.wire import HttpReply

KEY = "sk-requests-0123456789"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]


def sent(body: dict[str, Any], *, max_output: int | None = None, stream: bool = False) -> dict[str, Any]:
    call = Mistral(KEY).encode(Request("chat", "mistral-small-latest", body, stream=stream), max_output)
    decoded: dict[str, Any] = json.loads(call.body)
    return decoded


def sent_messages(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = sent({"messages": list(messages)})["messages"]
    return written


def test_a_plain_request_is_what_the_api_documents() -> None:
    call = Mistral(KEY).encode(Request("chat", "mistral-small-latest", {"messages": HELLO, "temperature": 0.2}))
    assert (call.method, call.url, call.stream, call.output_upper) == (
        "POST",
        "https://api.mistral.ai/v1/chat/completions",
        False,
        None,
    )
    assert json.loads(call.body) == {"model": "mistral-small-latest", "messages": HELLO, "temperature": 0.2}
    headers = dict(call.headers)
    assert headers.pop(b"user-agent").startswith(b"bifrost-core/")
    assert headers == {
        b"content-type": b"application/json",
        b"accept": b"application/json",
        b"accept-encoding": b"identity",
    }
    assert KEY.encode() not in call.body + repr(call).encode()


def test_a_streamed_request_says_so() -> None:
    call = Mistral(KEY).encode(Request("chat", "m", {"messages": HELLO}, stream=True))
    assert json.loads(call.body)["stream"] is True
    assert call.stream
    assert dict(call.headers)[b"accept"] == b"text/event-stream"


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        pytest.param({"seed": 7}, {"random_seed": 7}, id="seed"),
        pytest.param({"max_completion_tokens": 7}, {"max_tokens": 7}, id="max_completion_tokens"),
        pytest.param({"max_completion_tokens": 7, "max_tokens": 7}, {"max_tokens": 7}, id="both-names-agree"),
        pytest.param({"max_tokens": 1}, {"max_tokens": 1}, id="a-small-limit"),
        pytest.param({"reasoning_effort": "xhigh"}, {"reasoning_effort": "xhigh"}, id="an-effort-stays-distinct"),
        pytest.param(
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            id="a-named-tool-choice-stays-named",
        ),
        pytest.param({"temperature": None, "stop": None}, {}, id="null-is-absent"),
        pytest.param({"user": "u", "store": True, "stream_options": {"include_usage": True}}, {}, id="without-effect"),
        pytest.param({"modalities": ["text"], "logit_bias": {}, "functions": []}, {}, id="asks-for-nothing"),
        pytest.param({"service_tier": "default"}, {"service_tier": "standard_only"}, id="the-default-tier"),
        pytest.param({"service_tier": "auto"}, {"service_tier": "auto"}, id="another-tier"),
        pytest.param({"logprobs": True, "top_k": 3}, {"logprobs": True, "top_k": 3}, id="fields-of-the-client"),
        pytest.param(
            {
                "prediction": {
                    "type": "content",
                    "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                }
            },
            {"prediction": {"type": "content", "content": "ab"}},
            id="a-prediction-in-parts",
        ),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {}}},
                    }
                ]
            },
            id="a-function-without-arguments",
        ),
        pytest.param({"tools": [{"type": "web_search"}]}, {"tools": [{"type": "web_search"}]}, id="a-built-in-tool"),
        pytest.param({"extra_body": {"brand_new": None, "top_k": 2}}, {"brand_new": None, "top_k": 2}, id="extra_body"),
        pytest.param(
            {"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}, id="format"
        ),
        pytest.param({"metadata": {"a": 1}}, {"metadata": {"a": 1}}, id="metadata"),
        pytest.param({"tool_choice": "required"}, {"tool_choice": "required"}, id="a-required-tool"),
        pytest.param({"tool_choice": "any"}, {"tool_choice": "any"}, id="any-tool"),
        pytest.param({"stop": ("a", "b")}, {"stop": ["a", "b"]}, id="stop-as-a-tuple"),
        pytest.param({"stop": "a", "n": 2}, {"stop": "a", "n": 2}, id="stop-as-text"),
        pytest.param(
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": None}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
            id="a-schema-without-strict",
        ),
        pytest.param(
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}}},
            id="a-strict-schema",
        ),
        pytest.param({"response_format": {"type": "text"}}, {"response_format": {"type": "text"}}, id="text-as-format"),
        pytest.param(
            {"tools": [{"function": {"name": "f", "description": None, "parameters": {}}}]},
            {"tools": [{"function": {"name": "f", "parameters": {}}}]},
            id="a-tool-without-type",
        ),
        pytest.param(
            {"safe_prompt": True, "parallel_tool_calls": False, "prompt_cache_key": "k", "guardrails": [{}]},
            {"safe_prompt": True, "parallel_tool_calls": False, "prompt_cache_key": "k", "guardrails": [{}]},
            id="mistrals-own",
        ),
        pytest.param({"temperature": 0.1, "extra_body": {"temperature": 0.9}}, {"temperature": 0.9}, id="extra-wins"),
    ],
)
def test_fields_are_sent_in_mistrals_words(given_: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sent({"messages": HELLO, **given_}) == {"model": "mistral-small-latest", "messages": HELLO, **wanted}


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        pytest.param({"logit_bias": {"50256": -100}}, "logit_bias", id="logit_bias"),
        pytest.param({"functions": [{"name": "f"}]}, "functions", id="functions"),
        pytest.param({"function_call": {"name": "f"}}, "function_call", id="function_call"),
        pytest.param({"audio": {"voice": "x"}}, "audio", id="audio"),
        pytest.param({"modalities": ["text", "audio"]}, "modalities", id="modalities"),
        pytest.param({"web_search_options": {}}, "web_search_options", id="web_search_options"),
        pytest.param({"seed": 1, "random_seed": 2}, "random_seed", id="seeds-that-differ"),
        pytest.param({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens", id="limits-that-differ"),
        pytest.param({"max_completion_tokens": 2, "max_tokens": 1}, "max_tokens", id="limits-that-differ-turned-round"),
        pytest.param({"prediction": {"content": [{"type": "image_url"}]}}, "prediction", id="no-text-predicted"),
        pytest.param({"prediction": {"content": "x", "more": 1}}, "prediction.more", id="prediction-with-more"),
        pytest.param({"verbosity": "low"}, "verbosity", id="verbosity"),
        pytest.param({"service_tier": "flex"}, "service_tier", id="a-tier-of-openai"),
        pytest.param({"tool_choice": "sometimes"}, "tool_choice", id="choice-as-another-word"),
        pytest.param(
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}},
            "tool_choice",
            id="allowed_tools",
        ),
        pytest.param({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice", id="custom-choice"),
        pytest.param({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type", id="custom-tool"),
        pytest.param({"tools": [{"function": {"name": "f", "x": 1}}]}, "tools[0].function.x", id="function-with-more"),
        pytest.param({"tools": [{"function": {"name": "f"}, "x": 1}]}, "tools[0].x", id="tool-with-more"),
        pytest.param({"response_format": {"type": "grammar"}}, "response_format.type", id="another-format"),
        pytest.param({"response_format": {"type": "text", "x": 1}}, "response_format.x", id="format-with-more"),
        pytest.param(
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "x": 1}}},
            "response_format.json_schema.x",
            id="schema-with-more",
        ),
    ],
)
def test_a_field_that_would_change_the_answer_is_refused_by_name(body: dict[str, Any], parameter: str) -> None:
    with pytest.raises(UnsupportedParameterError, match=re.escape(parameter)) as caught:
        sent({"messages": HELLO, **body})
    assert (caught.value.parameter, caught.value.provider, caught.value.http_status) == (parameter, "mistral", 400)


def test_an_unknown_field_is_refused_with_what_is_near() -> None:
    with pytest.raises(UnsupportedParameterError, match="temperature") as caught:
        sent({"messages": HELLO, "temprature": 0.1})
    assert caught.value.parameter == "temprature"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param({}, "'messages' is missing", id="no-messages"),
        pytest.param({"messages": "hello"}, "'messages'", id="messages-as-text"),
        pytest.param({"messages": ["hello"]}, r"messages\[0\]", id="a-message-as-text"),
        pytest.param(
            {"messages": [{"role": "user", "content": 7}]}, r"messages\[0\].content", id="content-as-a-number"
        ),
        pytest.param({"messages": [{"role": "user", "content": [7]}]}, r"content\[0\]", id="a-part-as-a-number"),
        pytest.param({"messages": HELLO, "temperature": math.nan}, "'temperature'.*NaN", id="nan"),
        pytest.param({"messages": HELLO, "metadata": {"a": [math.inf]}}, "'metadata'.*NaN", id="infinity-deep-inside"),
        pytest.param({"messages": HELLO, "metadata": {"a": object()}}, "'metadata'", id="an-object"),
        pytest.param({"messages": HELLO, "stop": "\ud800"}, "'stop'.*surrogate", id="half-a-character"),
        pytest.param({"messages": HELLO, "tools": "f"}, "'tools'", id="tools-as-text"),
        pytest.param({"messages": HELLO, "stream": True}, "stream", id="stream-in-the-body"),
        pytest.param({"messages": HELLO, "stream": "yes"}, "stream", id="stream-as-a-word"),
        pytest.param({"messages": HELLO, "model": "other"}, "model", id="model-in-the-body"),
        pytest.param({"messages": HELLO, "extra_body": {"model": "other"}}, "model", id="model-in-extra_body"),
        pytest.param({"messages": HELLO, "extra_body": 7}, "extra_body", id="extra_body-as-a-number"),
        pytest.param({"messages": HELLO, "response_format": 7}, "response_format", id="format-as-a-number"),
        pytest.param({"messages": HELLO, "tools": ["f"]}, r"tools\[0\] is str", id="a-tool-as-text"),
        pytest.param({"messages": HELLO, "tools": [{"type": "function"}]}, r"tools\[0\].function", id="no-function"),
        pytest.param({"messages": HELLO, "prediction": "x"}, "prediction", id="prediction-as-text"),
        pytest.param(
            {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": 7}},
            "json_schema",
            id="schema-as-a-number",
        ),
        pytest.param(
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]},
            r"messages\[0\].tool_calls\[0\]",
            id="a-call-of-nothing",
        ),
        pytest.param(
            {"messages": [{"role": "assistant", "tool_calls": [7]}]},
            r"messages\[0\].tool_calls\[0\]",
            id="a-call-as-a-number",
        ),
        pytest.param({"messages": [{"role": "assistant", "tool_calls": 7}]}, "tool_calls", id="calls-as-a-number"),
        pytest.param({"messages": [{"role": "tool", "tool_call_id": 7}]}, "tool_call_id", id="id-as-a-number"),
    ],
)
def test_what_can_not_be_written_is_refused_naming_the_field(body: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        sent(body)


def test_a_body_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(BadRequestError, match="'metadata'"):
        sent({"messages": HELLO, "metadata": loop})


def test_a_value_is_not_quoted_when_its_field_is_refused() -> None:
    with pytest.raises(BadRequestError) as caught:
        sent({"messages": [{"role": "user", "content": "private words \ud800"}]})
    assert "messages" in str(caught.value)
    assert "private" not in str(caught.value)


def test_the_word_null_in_a_prompt_is_only_a_word() -> None:
    assert sent_messages({"role": "user", "content": "null, NaN"}) == [{"role": "user", "content": "null, NaN"}]


def test_too_large_a_body_is_refused_before_it_is_sent() -> None:
    with pytest.raises(BadRequestError) as caught:
        sent({"messages": [{"role": "user", "content": "x" * 20_000_001}]})
    assert (caught.value.kind, caught.value.http_status) == ("request_too_large", 413)


@pytest.mark.parametrize(
    ("body", "max_output", "max_tokens", "output_upper"),
    [
        pytest.param({}, None, None, None, id="no-limit"),
        pytest.param({"max_tokens": 10}, None, 10, 10, id="its-own"),
        pytest.param({"max_tokens": 10}, 5, 5, 5, id="lowered"),
        pytest.param({"max_tokens": 10}, 50, 10, 10, id="never-raised"),
        pytest.param({}, 50, 50, 50, id="set"),
        pytest.param({"max_tokens": 10, "n": 3}, None, 10, 30, id="over-all-choices"),
        pytest.param({"max_completion_tokens": 10}, 5, 5, 5, id="under-the-other-name"),
        pytest.param({"max_tokens": 10, "extra_body": {"max_tokens": 99}}, 20, 20, 20, id="over-extra_body-too"),
        pytest.param({"max_tokens": 10, "extra_body": {"max_tokens": 99}}, None, 99, 99, id="extra_body-counts"),
    ],
)
def test_an_output_limit_is_held(
    body: dict[str, Any], max_output: int | None, max_tokens: int | None, output_upper: int | None
) -> None:
    call = Mistral(KEY).encode(Request("chat", "m", {"messages": HELLO, **body}), max_output)
    assert json.loads(call.body).get("max_tokens") == max_tokens
    assert call.output_upper == output_upper


def test_what_is_left_out_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    provider = Mistral(KEY)
    with caplog.at_level(logging.DEBUG, "bifrost_core"):
        for _ in range(3):
            provider.encode(Request("chat", "m", {"messages": HELLO, "user": "somebody"}))
    assert len([record for record in caplog.records if "'user'" in record.getMessage()]) == 1
    assert "somebody" not in caplog.text
    assert sum(provider.reporter.counts.values()) == 3


# --- messages


@pytest.mark.parametrize(
    ("message", "written"),
    [
        pytest.param({"role": "developer", "content": "x"}, {"role": "system", "content": "x"}, id="developer"),
        pytest.param({"role": "user", "content": "x", "name": "ann"}, {"role": "user", "content": "x"}, id="name"),
        pytest.param(
            {
                "role": "assistant",
                "content": "x",
                "refusal": None,
                "audio": None,
                "annotations": [],
                "tool_calls": None,
            },
            {"role": "assistant", "content": "x"},
            id="an-answer-of-openai",
        ),
        pytest.param(
            {"role": "assistant", "content": "x", "prefix": True},
            {"role": "assistant", "content": "x", "prefix": True},
            id="prefix",
        ),
        pytest.param(
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "assistant", "content": "No."},
            id="refusal",
        ),
        pytest.param(
            {"role": "assistant", "content": "4.", "reasoning_content": "2 + 2"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]},
                    {"type": "text", "text": "4."},
                ],
            },
            id="reasoning",
        ),
        pytest.param(
            {
                "role": "assistant",
                "reasoning_content": "2 + 2",
                "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]}],
            },
            {"role": "assistant", "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]}]},
            id="reasoning-that-is-there-already",
        ),
        pytest.param(
            {"role": "user", "content": ["a", {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                ],
            },
            id="parts",
        ),
        pytest.param(
            {
                "role": "user",
                "content": [
                    {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}}
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "document_url", "document_url": "data:application/pdf;base64,AA", "document_name": "a.pdf"}
                ],
            },
            id="a-file-in-openais-shape",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "f1"}}]},
            {"role": "user", "content": [{"type": "file", "file_id": "f1"}]},
            id="a-file-by-id",
        ),
        *(
            pytest.param(
                {"role": "user", "content": [part]}, {"role": "user", "content": [part]}, id=f"unchanged-{name}"
            )
            for name, part in {
                "image": {"type": "image_url", "image_url": "https://x/y.png"},
                "image-detail": {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                "audio": {"type": "input_audio", "input_audio": "AAAA"},
                "audio-of-openai": {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                "document": {"type": "document_url", "document_url": "https://x/y.pdf", "document_name": "y"},
                "file": {"type": "file", "file_id": "f1"},
                "reference": {"type": "reference", "reference_ids": [1, "b"]},
                "resource": {"type": "resource", "resource": {"uri": "x"}},
            }.items()
        ),
        pytest.param(
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}, "annotations": []},
                    {"text": "b"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": None}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "text", "text": "b"},
                    {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
                ],
            },
            id="members-of-parts-that-say-nothing",
        ),
        pytest.param(
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "2 + 2", "signature": "theirs"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "refusal", "refusal": "No."},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]},
                    {"type": "text", "text": "No."},
                ],
            },
            id="parts-of-other-providers",
        ),
        pytest.param(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "D681PevKs",
                        "type": "function",
                        "index": 0,
                        "extra_content": {"google": {}},
                        "function": {"name": "f", "arguments": None},
                    }
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "D681PevKs", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            id="a-call-with-members-of-others",
        ),
        pytest.param(
            {"role": "tool", "content": [{"type": "text", "text": "x"}], "tool_call_id": "D681PevKs", "name": "f"},
            {"role": "tool", "content": [{"type": "text", "text": "x"}], "tool_call_id": "D681PevKs", "name": "f"},
            id="a-result-in-parts",
        ),
    ],
)
def test_messages_are_sent_in_mistrals_shape(message: dict[str, Any], written: dict[str, Any]) -> None:
    before = json.dumps(message)
    assert sent_messages(message) == [written]
    assert json.dumps(message) == before


@pytest.mark.parametrize(
    ("message", "parameter"),
    [
        pytest.param({"role": "function", "content": "x"}, "messages[1].role", id="role"),
        pytest.param({"role": "user", "content": "x", "weight": 1}, "messages[1].weight", id="member"),
        pytest.param({"role": "user", "content": "x", "tool_calls": [{}]}, "messages[1].tool_calls", id="wrong-role"),
        pytest.param(
            {"role": "user", "content": [{"type": "file", "file": {}}]}, "messages[1].content[0].file", id="empty-file"
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "video_url", "video_url": "x"}]},
            "messages[1].content[0].type",
            id="an-unknown-part",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "text", "text": "x", "weight": 1}]},
            "messages[1].content[0].weight",
            id="an-unknown-member-of-a-part",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x", "detail": "original"}}]},
            "messages[1].content[0].image_url.detail",
            id="an-unknown-detail",
        ),
        pytest.param(
            {"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": "{}"}},
            "messages[1].function_call",
            id="a-legacy-call",
        ),
        pytest.param(
            {"role": "assistant", "content": "x", "audio": {"id": "a1"}}, "messages[1].audio", id="spoken-words"
        ),
        pytest.param(
            {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "f"}}]},
            "messages[1].tool_calls[0].type",
            id="a-custom-call",
        ),
        pytest.param(
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "", "x": 1}}]},
            "messages[1].tool_calls[0].function.x",
            id="an-unknown-member-of-a-call",
        ),
    ],
)
def test_a_message_that_mistral_would_refuse_is_refused_by_name(message: dict[str, Any], parameter: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        sent_messages({"role": "user", "content": "x"}, message)
    assert caught.value.parameter == parameter


def _calls(*ids: str | None) -> list[dict[str, Any]]:
    return [{"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids]


def test_call_ids_of_mistral_stay_as_they_are() -> None:
    assistant = {"role": "assistant", "content": "", "tool_calls": _calls("D681PevKs")}
    result = {"role": "tool", "content": "x", "tool_call_id": "D681PevKs", "name": "f"}
    assert sent_messages(assistant, result) == [assistant, result]


def test_call_ids_of_others_become_nine_letters_the_same_in_call_and_result() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": _calls("call_abc", "chatcmpl-tool-1")},
        {"role": "tool", "content": "1", "tool_call_id": "chatcmpl-tool-1"},
        {"role": "tool", "content": "2", "tool_call_id": "call_abc"},
    ]
    assistant, first, second = sent_messages(*messages)
    a, b = (call["id"] for call in assistant["tool_calls"])
    assert a != b
    assert all(len(one) == 9 and one.isascii() and one.isalnum() for one in (a, b))
    assert (first["tool_call_id"], second["tool_call_id"]) == (b, a)
    assert sent_messages(*messages) == [assistant, first, second]


@pytest.mark.parametrize("missing", [None, "", "null"], ids=["null", "empty", "four-letters"])
def test_calls_without_an_id_are_matched_to_their_results_in_order(missing: str | None) -> None:
    assistant, first, second = sent_messages(
        {"role": "assistant", "content": "", "tool_calls": _calls(missing, missing)},
        {"role": "tool", "content": "1", "tool_call_id": "null"},
        {"role": "tool", "content": "2", "tool_call_id": ""},
    )
    a, b = (call["id"] for call in assistant["tool_calls"])
    assert a != b
    assert (first["tool_call_id"], second["tool_call_id"]) == (a, b)


def test_a_tool_call_may_be_given_as_a_value() -> None:
    (assistant,) = sent_messages({"role": "assistant", "content": "", "tool_calls": [ToolCall("D681PevKs", "f", "{}")]})
    assert assistant["tool_calls"] == _calls("D681PevKs")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True},
                                  {"type": "text", "text": "4"}]}, id="thoughts"),
        pytest.param({"content": "", "tool_calls": _calls("D681PevKs")}, id="calls"),
        pytest.param({"content": "", "tool_calls": _calls("call_abc", "null")}, id="calls-of-other-makers"),
        pytest.param({"content": "4", "reasoning_content": "hm"}, id="thoughts-beside-the-text"),
        pytest.param({"content": None, "tool_calls": None, "prefix": False}, id="nothing"),
        pytest.param({"content": [{"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [0]}]}, id="references"),
    ],
)  # fmt: skip
def test_an_answers_message_goes_back_as_it_came(message: dict[str, Any]) -> None:
    body = {"choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}]}
    ask = Request("chat", "m", {"messages": HELLO})
    answer = Mistral(KEY).decode(ask, HttpReply(200, {}, json.dumps(body).encode()))
    assert isinstance(answer, ChatResponse)
    (written,) = sent_messages(answer.message)
    again = Mistral(KEY).decode(ask, HttpReply(200, {}, json.dumps({"choices": [{"message": written}]}).encode()))
    assert isinstance(again, ChatResponse)
    assert (again.text, again.reasoning) == (answer.text, answer.reasoning)
    assert [(call.name, call.arguments) for call in again.tool_calls] == [("f", "{}")] * len(answer.tool_calls)
    results = [{"role": "tool", "content": "x", "tool_call_id": call.id} for call in answer.tool_calls]
    _, *told = sent_messages(answer.message, *results)
    assert [one["tool_call_id"] for one in told] == [call.id for call in again.tool_calls]
    assert all(re.fullmatch("[a-zA-Z0-9]{9}", call.id) for call in again.tool_calls)


# --- every field


UNCHANGED = [
    *("temperature", "top_p", "max_tokens", "stop", "random_seed", "metadata", "parallel_tool_calls"),
    *("presence_penalty", "frequency_penalty", "n", "reasoning_effort", "prompt_mode", "guardrails", "top_logprobs"),
    *("prompt_cache_key", "safe_prompt", "min_tokens", "top_k", "repetition_penalty", "logprobs", "prompt_logprobs"),
    "top_prompt_logprobs",
]
RENAMED = {"seed": "random_seed", "max_completion_tokens": "max_tokens"}
SHAPED = ["tool_choice", "tools", "response_format", "prediction", "service_tier"]
LEFT_OUT = {"user", "store", "stream_options", "safety_identifier", "prompt_cache_retention"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    return [without_nulls(member) for member in value] if isinstance(value, list) else value


@settings(max_examples=300, deadline=None)
@given(
    name=st.one_of(
        st.sampled_from([*UNCHANGED, *RENAMED, *LEFT_OUT, *SHAPED, "logit_bias", "audio", "functions", "verbosity"]),
        st.text(min_size=1, max_size=12),
    ),
    value=JSON,
)
def test_any_field_is_on_the_wire_or_renamed_or_refused_by_its_name(name: str, value: Any) -> None:
    provider = Mistral(KEY)
    refusal: BadRequestError | None = None
    body: dict[str, Any] = {}
    try:
        body = json.loads(provider.encode(Request("chat", "m", {"messages": HELLO, name: value})).body)
    except BadRequestError as error:
        refusal = error
    if refusal is not None:
        assert repr(name) in str(refusal) or name in str(refusal)
        return
    if value is None or name in {"messages", "model", "stream", "extra_body"}:
        return
    target = RENAMED.get(name, name)
    if target in body and name in SHAPED:
        assert without_nulls(body[target]) == without_nulls(value)
    elif target in body:
        assert body[target] == value
    else:
        assert any(name in noted for noted in provider.reporter.counts)
