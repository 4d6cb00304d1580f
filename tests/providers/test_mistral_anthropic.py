"""Anthropic-shaped chat requests on Mistral's wire: mapped, left out where they say nothing, or refused by name."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from bifrost_core.errors import BadRequestError, UnsupportedParameterError
from bifrost_core.providers import Mistral
from bifrost_core.types import Request

KEY = "sk-requests-0123456789"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
FUNCTION = {"name": "f", "parameters": {"type": "object", "properties": {}}}
TOOL: dict[str, Any] = {"type": "function", "function": FUNCTION}


def sent(body: dict[str, Any], model: str = "mistral-small-latest") -> dict[str, Any]:
    call = Mistral(KEY).encode(Request("chat", model, {"messages": HELLO, **body}))
    written: dict[str, Any] = json.loads(call.body)
    return {name: value for name, value in written.items() if name not in ("model", "messages")}


@pytest.mark.parametrize(
    ("body", "written"),
    [
        pytest.param(
            {"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"reasoning_effort": "high"}, id="thinks"
        ),
        pytest.param({"thinking": {"type": "disabled"}}, {}, id="does-not-think"),
        pytest.param({"thinking": {"type": "adaptive", "display": "summarized"}}, {}, id="thinks-as-it-likes"),
        pytest.param({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}, id="effort"),
        pytest.param(
            {"thinking": {"type": "enabled", "budget_tokens": 2048}, "output_config": {"effort": "medium"}},
            {"reasoning_effort": "medium"},
            id="effort-counts-more",
        ),
        pytest.param({"output_config": {"effort": None}}, {}, id="no-effort"),
        pytest.param({"metadata": {"user_id": "u"}}, {"metadata": {"user_id": "u"}}, id="user"),
        pytest.param({"top_k": 5}, {"top_k": 5}, id="top-k"),
        pytest.param({"cache_control": {"type": "ephemeral"}, "diagnostics": {}}, {}, id="bookkeeping"),
        pytest.param({"betas": []}, {}, id="no-betas"),
        pytest.param(
            {"betas": ["structured-outputs-2025-11-13", "prompt-caching-2024-07-31"]}, {}, id="wordless-betas"
        ),
        pytest.param({"speed": "standard", "mcp_servers": [], "context_management": {}}, {}, id="asks-for-nothing"),
        pytest.param(
            {"tools": [{**TOOL, "cache_control": {"type": "ephemeral"}, "allowed_callers": ["direct"]}]},
            {"tools": [TOOL]},
            id="tool",
        ),
        pytest.param(
            {"tools": [{**TOOL, "defer_loading": True, "eager_input_streaming": True, "input_examples": []}]},
            {"tools": [TOOL]},
            id="tool-that-is-loaded-late",
        ),
    ],
)
def test_what_says_nothing_or_has_an_equal_is_carried_over(body: dict[str, Any], written: dict[str, Any]) -> None:
    assert sent(body) == written


def test_models_that_always_think_are_not_told_to() -> None:
    assert sent({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "magistral-medium-latest") == {}


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        pytest.param({"thinking": {"type": "else"}}, "thinking.type", id="thinking"),
        pytest.param({"thinking": True}, "thinking.type", id="thinking-that-is-no-object"),
        pytest.param({"output_config": {"task_budget": {}}}, "output_config.task_budget", id="output-config"),
        pytest.param({"betas": ["files-api-2025-04-14"]}, "betas", id="beta"),
        pytest.param({"betas": ["structured-outputs-2025-11-13", "skills-2025-10-02"]}, "betas", id="one-of-the-betas"),
        pytest.param({"container": "c"}, "container", id="container"),
        pytest.param({"context_management": {"edits": [{"type": "x"}]}}, "context_management", id="context"),
        pytest.param({"inference_geo": "us"}, "inference_geo", id="place"),
        pytest.param({"mcp_servers": [{"type": "url"}]}, "mcp_servers", id="mcp"),
        pytest.param({"speed": "fast"}, "speed", id="speed"),
        pytest.param({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type", id="served"),
        pytest.param({"tools": [{**TOOL, "input_examples": [{"a": 1}]}]}, "tools[0].input_examples", id="examples"),
        pytest.param(
            {"tools": [{**TOOL, "allowed_callers": ["code_execution_20250825"]}]},
            "tools[0].allowed_callers",
            id="callers",
        ),
        pytest.param({"tools": [{**TOOL, "else": False}]}, "tools[0].else", id="unknown-beside-a-tool"),
    ],
)
def test_what_says_something_is_refused_by_name(body: dict[str, Any], parameter: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        sent(body)
    assert caught.value.parameter == parameter


def test_an_agents_conversation_is_carried_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    call = {
        "id": "toolu_01",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "caller": {"type": "direct"},
    }
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "First this.", "signature": "c2ln"},
                {"type": "thinking", "thinking": "", "signature": "aGlkZGVu"},
                {"type": "tool_use", "id": "toolu_01", "name": "f", "input": {}},
                {"type": "text", "text": "Done.", "citations": [{"type": "char_location"}]},
            ],
            "tool_calls": [call],
        },
        {"role": "tool", "tool_call_id": "toolu_01", "content": "no such file", "is_error": True},
    ]
    call_ = Mistral(KEY).encode(Request("chat", "mistral-small-latest", {"messages": messages}))
    written = json.loads(call_.body)["messages"]
    known = written[3]["tool_call_id"]
    assert written == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "go"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "First this."}]},
                {"type": "text", "text": "Done."},
            ],
            "tool_calls": [{"id": known, "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": known, "content": "no such file"},
    ]
    said = caplog.text
    assert all(name in said for name in ("'cache_control'", "'citations'", "'is_error'"))


def test_a_configuration_that_is_no_object_is_refused() -> None:
    with pytest.raises(BadRequestError, match="output_config"):
        sent({"output_config": "high"})


def test_a_call_by_a_program_is_refused() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f"}, "caller": {"type": "code_execution_20250825"}}
    with pytest.raises(UnsupportedParameterError) as caught:
        sent({"messages": [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}]})
    assert caught.value.parameter == "messages[1].tool_calls[0].caller"
