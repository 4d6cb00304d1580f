"""Requests on Anthropic's wire: every field is sent, renamed, left out where it says nothing, or refused by name.

Facts: https://platform.claude.com/docs/en/api/messages/create.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.errors import BadRequestError, UnsupportedParameterError
from bifrost_core.providers import Anthropic, Mistral
from bifrost_core.responses import ChatResponse
from bifrost_core.types import Request, ToolCall
from bifrost_core.wire import HttpCall, HttpReply

KEY = "sk-ant-requests-0123456789"
MODEL = "claude-opus-4-8"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0xLjQ="


def encoded(
    body: dict[str, Any], *, model: str = MODEL, max_output: int | None = None, version: str = "2023-06-01"
) -> HttpCall:
    return Anthropic(KEY, version=version).encode(Request("chat", model, body), max_output)


def sent(body: dict[str, Any], **how: Any) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(encoded(body, **how).body)
    return written


def asked(**fields: Any) -> dict[str, Any]:
    """What a request with these fields is sent with, beside the model, the messages and the output limit."""
    written = sent({"messages": HELLO, **fields})
    return {name: value for name, value in written.items() if name not in ("model", "messages", "max_tokens")}


def turns(*messages: Any, model: str = MODEL) -> list[Any]:
    written: list[Any] = sent({"messages": list(messages)}, model=model)["messages"]
    return written


def refused(body: dict[str, Any], **how: Any) -> str:
    with pytest.raises(UnsupportedParameterError) as caught:
        encoded(body, **how)
    assert caught.value.parameter is not None
    return caught.value.parameter


def test_a_plain_request_is_what_the_api_documents() -> None:
    call = encoded({"messages": HELLO, "max_tokens": 100, "temperature": 0.2})
    assert (call.method, call.url, call.stream, call.output_upper) == (
        "POST",
        "https://api.anthropic.com/v1/messages",
        False,
        100,
    )
    assert json.loads(call.body) == {"model": MODEL, "messages": HELLO, "max_tokens": 100, "temperature": 0.2}
    headers = dict(call.headers)
    assert headers.pop(b"user-agent").startswith(b"bifrost-core/")
    assert headers == {
        b"content-type": b"application/json",
        b"accept": b"application/json",
        b"accept-encoding": b"identity",
        b"anthropic-version": b"2023-06-01",
    }
    assert KEY.encode() not in call.body + repr(call).encode()


def test_a_streamed_request_says_so() -> None:
    call = Anthropic(KEY).encode(Request("chat", MODEL, {"messages": HELLO}, stream=True))
    assert json.loads(call.body)["stream"] is True
    assert (call.stream, dict(call.headers)[b"accept"]) == (True, b"text/event-stream")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"stop": "END"}, {"stop_sequences": ["END"]}, id="stop"),
        pytest.param({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}, id="stops"),
        pytest.param({"stop_sequences": ["a"], "stop": "a"}, {"stop_sequences": ["a"]}, id="both-names"),
        pytest.param({"user": "u1"}, {"metadata": {"user_id": "u1"}}, id="user"),
        pytest.param({"safety_identifier": "u1", "user": "u2"}, {"metadata": {"user_id": "u1"}}, id="two-users"),
        pytest.param({"metadata": {"user_id": "u1", "tag": "x"}}, {"metadata": {"user_id": "u1"}}, id="metadata"),
        pytest.param({"metadata": {"tag": "x"}}, {}, id="labels-alone"),
        pytest.param({"service_tier": "default"}, {"service_tier": "standard_only"}, id="tier"),
        pytest.param({"service_tier": "auto"}, {"service_tier": "auto"}, id="own-tier"),
        pytest.param({"top_p": 0.9, "top_k": 5}, {"top_p": 0.9, "top_k": 5}, id="sampling"),
        pytest.param({"n": 1, "logprobs": False, "frequency_penalty": 0.0, "presence_penalty": 0}, {}, id="harmless"),
        pytest.param({"store": True, "stream_options": {"include_usage": True}, "prompt_cache_key": "k"}, {}, id="silent"),
        pytest.param({"response_format": {"type": "text"}}, {}, id="text"),
        pytest.param({"seed": None, "tools": []}, {}, id="null-is-absent"),
        pytest.param({"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}, id="choice-alone"),
        pytest.param({"parallel_tool_calls": False}, {}, id="no-calls-anyway"),
        pytest.param(
            {"thinking": {"type": "adaptive", "display": "summarized"}, "cache_control": {"type": "ephemeral"},
             "inference_geo": "us", "speed": "fast", "container": "c1", "context_management": {"edits": []},
             "mcp_servers": [{"type": "url", "url": "https://example.org", "name": "m"}], "diagnostics": {}},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "cache_control": {"type": "ephemeral"},
             "inference_geo": "us", "speed": "fast", "container": "c1", "context_management": {"edits": []},
             "mcp_servers": [{"type": "url", "url": "https://example.org", "name": "m"}], "diagnostics": {}},
            id="own-fields",
        ),
    ],
)  # fmt: skip
def test_a_field_keeps_its_name_or_gets_anthropics(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert asked(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"n": 2}, "n"),
        ({"seed": 7}, "seed"),
        ({"random_seed": 7}, "random_seed"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"frequency_penalty": True}, "frequency_penalty"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"verbosity": "low"}, "verbosity"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"temperature": 1.5}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"stop": "a", "stop_sequences": ["b"]}, "stop_sequences"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"reasoning_effort": "minimal"}, "reasoning_effort"),
        ({"reasoning_effort": "low", "output_config": {"effort": "high"}}, "output_config.effort"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f", "colour": 1}}]}, "tools[0].function.colour"),
        ({"tools": [{"type": "function", "function": {"name": "f"}, "colour": 1}]}, "tools[0].colour"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "x": 1}}},
            "response_format.json_schema.x",
        ),
        ({"tempratur": 1}, "tempratur"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_would_change_the_answer_or_be_lost_is_refused_by_name(fields: dict[str, Any], parameter: str) -> None:
    assert refused({"messages": HELLO, **fields}) == parameter


def test_an_unknown_field_is_refused_with_what_it_may_have_meant() -> None:
    with pytest.raises(UnsupportedParameterError, match="did you mean temperature"):
        encoded({"messages": HELLO, "tempratur": 1})


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": "x"}, {"thinking": "adaptive"}, {"output_config": 3}, {"tools": "f"}, {"parallel_tool_calls": 1},
        {"tools": [{"type": "function"}]}, {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"tools": [3]}, {"response_format": int}, {"stream": "yes"}, {"model": "other"}, {"extra_body": {"model": "x"}},
        {"messages": "x"}, {"messages": [3]},
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_known_form_is_no_request(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        encoded({"messages": HELLO, **fields})


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k"])
def test_the_newer_version_of_the_api_has_no_sampling(field: str) -> None:
    assert refused({"messages": HELLO, field: 1}, version="2026-10-21") == field
    assert sent({"messages": HELLO, field: 1})[field] == 1
    responses = Request("responses", MODEL, {"input": [{"role": "user", "content": "x"}], field: 1})
    with pytest.raises(UnsupportedParameterError):
        Anthropic(KEY, version="2026-10-21").encode(responses)
    assert json.loads(Anthropic(KEY).encode(responses).body)[field] == 1


def test_extra_body_is_merged_last_and_wins() -> None:
    written = sent({"messages": HELLO, "metadata": {"user_id": "a"}, "extra_body": {"metadata": {"user_id": "b"}, "fallbacks": "default"}})  # fmt: skip
    assert (written["metadata"], written["fallbacks"]) == ({"user_id": "b"}, "default")


def test_messages_in_extra_body_go_as_they_are() -> None:
    assert sent({"extra_body": {"messages": [{"role": "user", "content": "x"}]}})["messages"] == [
        {"role": "user", "content": "x"}
    ]
    with pytest.raises(BadRequestError, match="'messages' is missing"):
        encoded({"temperature": 1})


def test_what_is_left_out_is_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    adapter = Anthropic(KEY)
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            adapter.encode(Request("chat", MODEL, {"messages": HELLO, "store": True}))
    assert [record.message for record in caplog.records] == [
        "provider anthropic: the field 'store', which it does not take and which does not change the answer, is left out"
        " (said once, counted from here on)"
    ]


# --- the output limit


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("claude-opus-5-5", 128_000), ("claude-haiku-5-5", 128_000), ("claude-fable-5-1", 128_000),
        ("claude-opus-4-8", 128_000), ("claude-sonnet-4-6", 128_000), ("claude-sonnet-4-5-20250929", 64_000),
        ("claude-haiku-4-5", 64_000), ("claude-opus-4-1-20250805", 32_000), ("claude-opus-4-20250514", 32_000),
        ("claude-3-5-haiku-20241022", 8_192), ("claude-3-haiku-20240307", 4_096), ("claude-nobody-knows", 4_096),
    ],
)  # fmt: skip
def test_without_a_limit_the_models_greatest_is_sent(model: str, limit: int) -> None:
    call = encoded({"messages": HELLO}, model=model)
    assert (json.loads(call.body)["max_tokens"], call.output_upper) == (limit, limit)


@pytest.mark.parametrize(
    ("fields", "max_output", "limit", "thinking"),
    [
        pytest.param({"max_tokens": 50}, 8, 8, None, id="lowered"),
        pytest.param({"max_completion_tokens": 50}, 80, 50, None, id="low-enough"),
        pytest.param({}, 500, 500, None, id="of-the-default"),
        pytest.param({"extra_body": {"max_tokens": 90}}, 60, 60, None, id="of-extra-body"),
        pytest.param({"max_tokens": 9_000, "thinking": {"type": "enabled", "budget_tokens": 8_000}}, 5_000, 5_000, 4_999, id="budget"),
        pytest.param({"max_tokens": 9_000, "thinking": {"type": "enabled", "budget_tokens": 2_000}}, 5_000, 5_000, 2_000, id="small-budget"),
        pytest.param({"thinking": {"type": "enabled", "budget_tokens": 8_000}}, None, 12_096, 8_000, id="beside-a-budget"),
    ],
)  # fmt: skip
def test_the_limit_holds_whoever_states_it(
    fields: dict[str, Any], max_output: int | None, limit: int, thinking: int | None
) -> None:
    call = encoded({"messages": HELLO, **fields}, max_output=max_output, model="claude-nobody-knows")
    body = json.loads(call.body)
    assert (body["max_tokens"], call.output_upper) == (limit, limit)
    assert body.get("thinking", {}).get("budget_tokens") == thinking


def test_a_limit_below_the_least_budget_of_thoughts_is_refused() -> None:
    fields = {"thinking": {"type": "enabled", "budget_tokens": 2_000}}
    with pytest.raises(BadRequestError, match=r"thinking\.budget_tokens"):
        encoded({"messages": HELLO, **fields}, max_output=1_024)


def test_tools_and_formats_bring_tokens_that_are_not_in_the_body() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert encoded({"messages": HELLO}).hidden_tokens == 0
    assert encoded({"messages": HELLO, "tools": [tool]}).hidden_tokens > 800
    assert encoded({"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}).hidden_tokens > 0  # fmt: skip


# --- how hard a model thinks


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        pytest.param("claude-opus-4-8", "high", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, id="off-by-default"),
        pytest.param("claude-sonnet-4-6", "max", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, id="4.6"),
        pytest.param("claude-opus-5", "xhigh", {"output_config": {"effort": "xhigh"}}, id="on-by-default"),
        pytest.param("claude-opus-5-5", "low", {"output_config": {"effort": "low"}}, id="always"),
        pytest.param("claude-opus-4-5-20251101", "medium", {"output_config": {"effort": "medium"}}, id="effort-without-thinking"),
        pytest.param("claude-newest-9", "low", {"output_config": {"effort": "low"}}, id="unknown"),
        pytest.param("claude-opus-4-8", "none", {}, id="none-where-off"),
        pytest.param("claude-haiku-4-5", "none", {}, id="none-where-budget"),
        pytest.param("claude-opus-5", "none", {"thinking": {"type": "disabled"}}, id="none-where-on"),
        pytest.param("claude-haiku-5-5", "none", {"thinking": {"type": "disabled"}}, id="none-at-haiku"),
        pytest.param("claude-sonnet-5-5", "none", {"thinking": {"type": "between_tools"}}, id="none-between-tools"),
    ],
)  # fmt: skip
def test_an_effort_is_said_as_the_model_takes_it(model: str, effort: str, expected: dict[str, Any]) -> None:
    written = sent({"messages": HELLO, "reasoning_effort": effort}, model=model)
    assert {name: written[name] for name in ("thinking", "output_config") if name in written} == expected


@pytest.mark.parametrize(("model", "effort"), [("claude-fable-5-1", "none"), ("claude-opus-5-5", "none"), ("claude-haiku-4-5", "low")])  # fmt: skip
def test_an_effort_that_a_model_can_not_have_is_refused(model: str, effort: str) -> None:
    assert refused({"messages": HELLO, "reasoning_effort": effort}, model=model) == "reasoning_effort"


@pytest.mark.parametrize("order", [1, -1])
def test_own_words_for_thinking_go_before_what_an_effort_brings(order: int) -> None:
    fields = {"reasoning_effort": "low", "thinking": {"type": "adaptive", "display": "omitted"}}
    written = asked(**dict(list(fields.items())[::order]))
    assert written == {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "low"}}


# --- formats


@attrs.define
class Weather:
    city: str
    degrees: float


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        pytest.param({"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}, SCHEMA, id="openai"),
        pytest.param({"type": "json_schema", "json_schema": {"name": "x", "description": "D", "schema": SCHEMA}}, {"description": "D", **SCHEMA}, id="described"),
        pytest.param({"type": "json_schema", "schema": SCHEMA}, SCHEMA, id="own"),
    ],
)  # fmt: skip
def test_a_schema_is_the_format_of_the_output(form: Any, schema: Any) -> None:
    expected = {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    assert asked(response_format=form, output_config={"effort": "low"}) == {"output_config": expected}


def test_a_class_is_its_schema_and_the_answer_an_instance() -> None:
    form = asked(response_format=Weather)["output_config"]["format"]
    assert (form["schema"]["required"], form["schema"]["additionalProperties"]) == (["city", "degrees"], False)
    request = Request("chat", MODEL, {"messages": HELLO, "response_format": Weather})
    reply = {
        "type": "message",
        "content": [{"type": "text", "text": '{"city":"Oslo","degrees":3.5}'}],
        "stop_reason": "end_turn",
    }
    response = Anthropic(KEY).decode(request, HttpReply(200, {}, json.dumps(reply).encode()))
    assert isinstance(response, ChatResponse)
    assert response.parsed == Weather("Oslo", 3.5)


# --- tools


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        pytest.param(
            {"type": "function", "function": {"name": "f", "description": "D", "parameters": SCHEMA, "strict": True},
             "cache_control": {"type": "ephemeral"}, "input_examples": [{"a": 1}], "defer_loading": True},
            {"name": "f", "description": "D", "input_schema": SCHEMA, "strict": True,
             "cache_control": {"type": "ephemeral"}, "input_examples": [{"a": 1}], "defer_loading": True},
            id="function",
        ),
        pytest.param({"name": "f"}, {"name": "f", "input_schema": {"type": "object", "properties": {}}}, id="bare"),
        pytest.param({"name": "f", "input_schema": SCHEMA}, {"name": "f", "input_schema": SCHEMA}, id="own"),
        pytest.param({"type": "custom", "name": "f", "input_schema": SCHEMA}, {"type": "custom", "name": "f", "input_schema": SCHEMA}, id="own-with-type"),
        pytest.param({"type": "web_search_20260318", "name": "web_search"}, {"type": "web_search_20260318", "name": "web_search"}, id="server"),
        pytest.param(
            add,
            {"name": "add", "description": "Add two numbers.", "strict": True, "input_schema": {
                "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"], "additionalProperties": False}},
            id="python",
        ),
    ],
)  # fmt: skip
def test_a_tool_is_written_as_anthropic_takes_it(tool: Any, expected: dict[str, Any]) -> None:
    assert asked(tools=[tool]) == {"tools": [expected]}


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": "any"}, {"type": "any"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"type": "tool", "name": "f"}),
        ({"tool_choice": {"type": "tool", "name": "f"}}, {"type": "tool", "name": "f"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False, "tool_choice": "required"}, {"type": "any", "disable_parallel_tool_use": True}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
    ],
    ids=str,
)
def test_a_choice_of_tools_stays_what_it_is(fields: dict[str, Any], choice: dict[str, Any] | None) -> None:
    assert asked(tools=[{"name": "f"}], **fields).get("tool_choice") == choice


# --- messages


def test_systems_go_in_front() -> None:
    assert sent({"messages": [{"role": "system", "content": "S"}, *HELLO]})["system"] == "S"
    parts = [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}]
    assert sent({"messages": [{"role": "developer", "content": parts}, *HELLO]})["system"] == parts
    both = sent(
        {
            "system": "A",
            "messages": [{"role": "system", "content": "B"}, {"role": "developer", "content": parts}, *HELLO],
        }
    )
    assert both["system"] == [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}, *parts]
    assert both["messages"] == HELLO
    assert "system" not in sent({"messages": [{"role": "system", "content": ""}, *HELLO]})
    assert (
        refused({"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": PNG}]}]})
        == "messages[0].content[0].type"
    )


def test_a_system_message_between_turns_stays_where_the_model_takes_it() -> None:
    late = [*HELLO, {"role": "system", "content": "Now in French."}]
    after = [*late, {"role": "assistant", "content": "Bonjour"}, {"role": "user", "content": "x"}]
    for messages in (late, after):
        kept = sent({"messages": messages}, model="claude-opus-5-5")
        assert (kept["messages"], "system" in kept) == (messages, False)
        moved = sent({"messages": messages}, model="claude-haiku-4-5")
        assert (moved["messages"], moved["system"]) == (
            [each for each in messages if each["role"] != "system"],
            "Now in French.",
        )
    elsewhere = [*HELLO, {"role": "system", "content": "S"}, {"role": "user", "content": "x"}]
    assert sent({"messages": elsewhere}, model="claude-opus-5-5")["system"] == "S"
    steered = [*HELLO, {"role": "system", "content": [], "output_config": {"effort": "low"}}]
    assert turns(*steered, model="claude-opus-5-5") == steered
    assert refused({"messages": steered}, model="claude-haiku-4-5") == "messages[1].output_config"


CALLS: list[dict[str, Any]] = [
    {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"b": 1, "a": [2.0, null]}'}},
    {"id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": ""}},
]


def test_results_and_the_words_after_them_are_one_turn_in_order() -> None:
    assert turns(
        *HELLO,
        {"role": "assistant", "content": "Let me look.", "tool_calls": CALLS, "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "toolu_1", "name": "f", "content": "42"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": [{"type": "text", "text": "late"}, {"type": "image_url", "image_url": {"url": PNG}}], "is_error": True},
        {"role": "user", "content": "And?"},
        {"role": "user", "content": [{"type": "text", "text": "Well?"}]},
    ) == [
        HELLO[0],
        {"role": "assistant", "content": [
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": 1, "a": [2.0, None]}},
            {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "42"},
            {"type": "tool_result", "tool_use_id": "toolu_2", "is_error": True, "content": [
                {"type": "text", "text": "late"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            ]},
            {"type": "text", "text": "And?"},
            {"type": "text", "text": "Well?"},
        ]},
    ]  # fmt: skip


def test_the_order_of_arguments_is_kept() -> None:
    body = encoded({"messages": [*HELLO, {"role": "assistant", "tool_calls": CALLS[:1]}]}).body
    assert b'"input":{"b":1,"a":[2.0,null]}' in body


def test_ids_of_other_providers_are_made_to_fit_the_same_way_in_call_and_result() -> None:
    call = ToolCall("call:1/ä", "f", "{}")
    _, calling, result = turns(
        *HELLO,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call:1/ä", "content": "x"},
    )
    made = calling["content"][0]["id"]
    assert made.startswith("toolu_")
    assert result["content"][0]["tool_use_id"] == made
    unnamed = {"type": "function", "function": {"name": "f"}}
    _, calling, result = turns(
        *HELLO,
        {"role": "assistant", "tool_calls": [unnamed, unnamed]},
        {"role": "tool", "content": "x"},
        {"role": "tool", "content": "y"},
    )
    assert [block["id"] for block in calling["content"]] == [block["tool_use_id"] for block in result["content"]]
    with pytest.raises(BadRequestError, match="no call before it"):
        turns(*HELLO, {"role": "tool", "content": "x"})


def test_signed_thoughts_go_back_and_others_stay_here() -> None:
    signed = [
        {"type": "thinking", "thinking": "", "signature": "Eq"},
        {"type": "redacted_thinking", "data": "Em"},
        {"type": "text", "text": "Yes", "citations": [{"type": "char_location", "cited_text": "y"}]},
    ]
    foreign = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "thinking", "thinking": "hm", "signature": ""},
    ]
    _, answer = turns(*HELLO, {"role": "assistant", "content": [*foreign, *signed]})
    assert answer["content"] == signed


def test_calls_in_their_places_are_not_written_twice() -> None:
    placed = [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": 1}}, {"type": "text", "text": "and"}]
    _, answer = turns(*HELLO, {"role": "assistant", "content": placed, "tool_calls": CALLS})
    assert answer["content"] == [*placed, {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}}]


def test_what_goes_with_a_call_and_a_result_stays_beside_them() -> None:
    beside = {
        "caller": {"type": "code_execution_20260120", "tool_id": "s"},
        "toolset_name": "browser",
        "cache_control": {"type": "ephemeral"},
    }
    _, calling, result = turns(
        *HELLO,
        {"role": "assistant", "tool_calls": [{**CALLS[1], **beside}]},
        {"role": "tool", "tool_call_id": "toolu_2", "cache_control": {"type": "ephemeral"}},
    )
    assert calling["content"] == [{"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}, **beside}]
    assert result["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_2", "cache_control": {"type": "ephemeral"}}
    ]


def test_what_says_nothing_is_left_out() -> None:
    assert turns(
        {"role": "user", "content": [{"type": "text", "text": ""}, "hello", "\n"]},
        {"role": "assistant", "content": " "},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": None},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}], "prefix": True},
    ) == [
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "No."}, {"type": "text", "text": "Never."}]},
    ]


def text_url(text: str) -> str:
    return f"data:text/plain;base64,{base64.b64encode(text.encode()).decode()}"


CACHE = {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("part", "block"),
    [
        pytest.param({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}, id="image-data"),
        pytest.param({"type": "image_url", "image_url": "data:image/jpg;base64,/9j/"}, {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}}, id="image-jpg"),
        pytest.param({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}, "cache_control": CACHE}, {"type": "image", "cache_control": CACHE, "source": {"type": "url", "url": "https://example.org/a.png"}}, id="image-url"),
        pytest.param({"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}, {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQ="}, "title": "a.pdf"}, id="pdf"),
        pytest.param({"type": "file", "file": {"file_data": "JVBERi0xLjQ="}}, {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQ="}}, id="bare-pdf"),
        pytest.param({"type": "file", "file": {"file_data": text_url("Grüße")}, "cache_control": CACHE}, {"type": "document", "cache_control": CACHE, "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}}, id="text"),
        pytest.param({"type": "file", "file": {"file_data": "data:text/csv;charset=utf-8,a%2Cb", "filename": "t.csv"}}, {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a,b"}, "title": "t.csv"}, id="percent-encoded"),
        pytest.param({"type": "file", "file": {"file_data": PNG}}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}, id="image-file"),
        pytest.param({"type": "file", "file": {"file_id": "file_1"}}, {"type": "document", "source": {"type": "file", "file_id": "file_1"}}, id="file-id"),
        pytest.param({"type": "file", "file_id": "file_1"}, {"type": "document", "source": {"type": "file", "file_id": "file_1"}}, id="mistral-file"),
        pytest.param({"type": "document_url", "document_url": "https://example.org/a.pdf", "document_name": "A"}, {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}, "title": "A"}, id="document-url"),
        pytest.param({"type": "document_url", "document_url": PDF}, {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQ="}}, id="document-data"),
        pytest.param({"type": "text", "text": "x", "cache_control": CACHE, "annotations": [1]}, {"type": "text", "text": "x", "cache_control": CACHE}, id="text-part"),
        pytest.param({"type": "search_result", "source": "s", "title": "t", "content": []}, {"type": "search_result", "source": "s", "title": "t", "content": []}, id="search-result"),
        pytest.param({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "citations": {"enabled": True}}, {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "citations": {"enabled": True}}, id="own-document"),
        pytest.param({"type": "mcp_tool_result", "tool_use_id": "m", "content": []}, {"type": "mcp_tool_result", "tool_use_id": "m", "content": []}, id="own-result"),
    ],
)  # fmt: skip
def test_a_part_becomes_its_block(part: dict[str, Any], block: dict[str, Any]) -> None:
    assert turns({"role": "user", "content": [part]}) == [{"role": "user", "content": [block]}]


@pytest.mark.parametrize(
    ("part", "parameter"),
    [
        ({"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}, "messages[0].content[0].type"),
        ({"type": "reference", "reference_ids": [1]}, "messages[0].content[0].type"),
        ({"type": "image_url", "image_url": "data:image/bmp;base64,Qk0="}, "messages[0].content[0].image_url"),
        ({"type": "image_url", "image_url": {"url": PNG, "size": 3}}, "messages[0].content[0].image_url.size"),
        ({"type": "file", "file": {"file_data": "data:application/zip;base64,UEs="}}, "messages[0].content[0].file.file_data"),
        ({"type": "file", "file": {"filename": "a"}}, "messages[0].content[0].file"),
        ({"type": "text", "text": "x", "colour": "red"}, "messages[0].content[0].colour"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_a_part_that_anthropic_can_not_read_is_refused_by_its_path(part: dict[str, Any], parameter: str) -> None:
    assert refused({"messages": [{"role": "user", "content": [part]}]}) == parameter


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": 3},
        {"role": "user", "content": [3]},
        {"role": "user", "content": [{"type": 3}]},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "user", "content": [{"type": "image_url"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": "file:///etc/passwd"}]},
        {"role": "user", "content": [{"type": "document_url"}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": 3}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}]},
        {"role": "user", "content": [{"type": "redacted_thinking"}]},
        {"role": "assistant", "tool_calls": "f"},
        {"role": "assistant", "tool_calls": [3]},
        {"role": "assistant", "tool_calls": [{"function": {}}]},
        {"role": "assistant", "tool_calls": [{"type": "custom", "function": {"name": "f"}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"cut": '}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
        {"role": "user", "content": "x", "colour": 1},
        {"role": "robot", "content": "x"},
        {"content": "x"},
    ],
    ids=str,
)
def test_a_message_that_can_not_be_put_into_the_shape_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        encoded({"messages": [message]})
    assert "messages[0]" in str(caught.value)
    assert "passwd" not in str(caught.value)


# --- from Anthropic's shape into the canonical one and back

ANTHROPIC_BODY: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": 4_000,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": CACHE}],
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "Read these."},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}, "cache_control": CACHE},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQ="}, "title": "a.pdf"},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Plain."}},
            {"type": "document", "source": {"type": "url", "url": "https://example.org/b.pdf"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "C"}, "citations": {"enabled": True}},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
            {"type": "redacted_thinking", "data": "EmwK"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": 1, "a": 2}},
            {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "42"},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "no"}], "is_error": True},
            {"type": "text", "text": "And?"},
        ]},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "Go on."},
    ],
    "tools": [
        {"name": "f", "description": "F", "input_schema": SCHEMA, "strict": True, "cache_control": CACHE},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
    ],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "stop_sequences": ["END"],
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}},
    "metadata": {"user_id": "u1"},
}  # fmt: skip
CANONICAL: dict[str, Any] = {
    "max_tokens": 4_000,
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": CACHE}]},
        {"role": "user", "content": [
            {"type": "text", "text": "Read these."},
            {"type": "image_url", "image_url": {"url": PNG}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}, "cache_control": CACHE},
            {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
            {"type": "file", "file": {"file_data": text_url("Plain.")}},
            {"type": "document_url", "document_url": "https://example.org/b.pdf"},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "C"}, "citations": {"enabled": True}},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
            {"type": "redacted_thinking", "data": "EmwK"},
            {"type": "text", "text": "I look."},
        ], "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}},
            {"id": "toolu_2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "42"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": [{"type": "text", "text": "no"}], "is_error": True},
        {"role": "user", "content": [{"type": "text", "text": "And?"}]},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "Go on."},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "F", "parameters": SCHEMA, "strict": True}, "cache_control": CACHE},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2},
    ],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "stop": ["END"],
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high"},
    "response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": SCHEMA}},
    "metadata": {"user_id": "u1"},
}  # fmt: skip


def test_what_came_in_anthropics_shape_goes_out_as_it_came() -> None:
    assert sent(CANONICAL) == ANTHROPIC_BODY


def test_an_answer_goes_back_with_all_its_blocks() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
        {"type": "text", "text": "I look.", "citations": [{"type": "char_location", "cited_text": "y"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": 1.0, "a": None}, "caller": {"type": "code_execution_20260120", "tool_id": "srvtoolu_1"}},
        {"type": "thinking", "thinking": "", "signature": "EqQC"},
        {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
    ]  # fmt: skip
    for content in (blocks, blocks[:4], blocks[:5], blocks[3:5], blocks[4:5]):
        reply = {
            "type": "message",
            "content": content,
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
        request = Request("chat", MODEL, {"messages": HELLO})
        response = Anthropic(KEY).decode(request, HttpReply(200, {}, json.dumps(reply).encode()))
        assert isinstance(response, ChatResponse)
        assert turns(*HELLO, response.message)[1] == {"role": "assistant", "content": content}


def test_an_answer_of_claude_is_taken_by_mistral_in_the_next_turn() -> None:
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "EmwK"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "toolu_01Abc", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}},
    ]
    reply = {
        "type": "message",
        "content": content,
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    response = Anthropic(KEY).decode(
        Request("chat", MODEL, {"messages": HELLO}), HttpReply(200, {}, json.dumps(reply).encode())
    )
    assert isinstance(response, ChatResponse)
    turns_after = [*HELLO, response.message, {"role": "tool", "tool_call_id": "toolu_01Abc", "content": "x"}]
    _, answer, result = json.loads(Mistral(KEY).encode(Request("chat", "m", {"messages": turns_after})).body)[
        "messages"
    ]
    assert answer["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "I look."},
    ]
    assert answer["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}
    assert answer["tool_calls"][0]["id"] == result["tool_call_id"]


def test_one_request_is_written_for_mistral_and_for_anthropic() -> None:
    body = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": PNG}}]},
            {"role": "assistant", "content": "", "tool_calls": CALLS},
            {"role": "tool", "tool_call_id": "toolu_1", "content": "1"},
            {"role": "tool", "tool_call_id": "toolu_2", "content": "2"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
        "tool_choice": "required",
        "max_tokens": 100,
        "temperature": 0.3,
    }  # fmt: skip
    mistral = json.loads(Mistral(KEY).encode(Request("chat", "mistral-small-latest", body)).body)
    anthropic = sent(body)
    assert [message["role"] for message in mistral["messages"]] == ["system", "user", "assistant", "tool", "tool"]
    assert [message["role"] for message in anthropic["messages"]] == ["user", "assistant", "user"]
    assert mistral["tools"][0]["function"]["parameters"] == anthropic["tools"][0]["input_schema"]
    assert (mistral["tool_choice"], anthropic["tool_choice"]) == ("required", {"type": "any"})


def test_a_responses_request_goes_through_chat() -> None:
    body = {
        "input": [{"role": "user", "content": "hi"}],
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "reasoning": {"effort": "low"},
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
    }
    written = json.loads(Anthropic(KEY).encode(Request("responses", MODEL, body)).body)
    assert written == {
        "model": MODEL,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 50,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "low"},
        "tools": [{"name": "f", "input_schema": SCHEMA}],
    }


# --- whatever is asked, it is written or refused, and never changed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["text", "auto", "user", "tool", "", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "role", "content", "function", "name", "url", "text", "id"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FIELDS = st.sampled_from(["messages", "tools", "tool_choice", "response_format", "stop", "metadata", "thinking", "output_config", "reasoning_effort", "temperature", "max_tokens", "user", "extra_body", "system"])  # fmt: skip


@settings(max_examples=300)
@given(st.dictionaries(FIELDS, VALUES, max_size=5))
def test_a_strange_request_is_written_or_refused_and_left_as_it_is(body: dict[str, Any]) -> None:
    before = json.dumps(body)
    with contextlib.suppress(BadRequestError):
        json.loads(encoded(body).body)
    assert json.dumps(body) == before
