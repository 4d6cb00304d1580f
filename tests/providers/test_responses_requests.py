"""Responses requests as chat: every item and field is put into the chat shape, left out, or refused by its name."""

from __future__ import annotations

import json
import logging
from typing import Any

import attrs
import pytest

from bifrost_core.errors import BadRequestError, UnsupportedParameterError
from bifrost_core.keys import Key
from bifrost_core.providers import Mistral
from bifrost_core.providers._reporter import Reporter
from bifrost_core.providers._responses import chat_request
from bifrost_core.types import Operation, Request, ToolCall

KEY = "sk-requests-0123456789"
HELLO = [{"role": "user", "content": "hello"}]
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}
CLOCK = {"type": "function", "name": "clock", "parameters": None, "strict": None}
NESTED_WEATHER = {
    "type": "function",
    "function": {name: WEATHER[name] for name in ("name", "description", "parameters", "strict")},
}
NESTED_CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@attrs.frozen
class Number:
    n: int


def ask(body: dict[str, Any], *, stream: bool = False) -> Request:
    return Request(Operation.RESPONSES, "mistral-small-latest", {"input": "hello", **body}, stream=stream)


def sent(body: dict[str, Any], *, max_output: int | None = None, stream: bool = False) -> dict[str, Any]:
    """What goes to Mistral."""
    decoded: dict[str, Any] = json.loads(Mistral(KEY).encode(ask(body, stream=stream), max_output).body)
    return decoded


def messages(*items: Any, **body: Any) -> list[dict[str, Any]]:
    """The messages in the chat shape, before a provider's own writer has seen them."""
    request = chat_request(ask({"input": list(items), **body}), (), Reporter("any", ()))
    assert request.operation is Operation.CHAT
    written: list[dict[str, Any]] = request.body["messages"]
    return written


def test_a_plain_request_is_a_chat_request() -> None:
    call = Mistral(KEY).encode(ask({"instructions": "Be brief.", "max_output_tokens": 5}))
    assert (call.method, call.url, call.output_upper) == ("POST", "https://api.mistral.ai/v1/chat/completions", 5)
    assert json.loads(call.body) == {
        "model": "mistral-small-latest",
        "messages": [{"role": "system", "content": "Be brief."}, *HELLO],
        "max_tokens": 5,
    }
    assert sent({}, stream=True) == {"model": "mistral-small-latest", "messages": HELLO, "stream": True}


def test_a_plugins_limit_wins_over_a_higher_one() -> None:
    assert sent({"max_output_tokens": 50}, max_output=7)["max_tokens"] == 7


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param({"temperature": 0.3, "top_p": 0.9}, {"temperature": 0.3, "top_p": 0.9}, id="same-names"),
        pytest.param({"metadata": {"a": "b"}}, {"metadata": {"a": "b"}}, id="metadata-of-the-body"),
        pytest.param({"extra_body": {"metadata": {"a": "b"}}}, {"metadata": {"a": "b"}}, id="metadata-as-extra"),
        pytest.param({"extra_body": {"n": 1}}, {"n": 1}, id="one-answer"),
        pytest.param({"parallel_tool_calls": False}, {"parallel_tool_calls": False}, id="parallel_tool_calls"),
        pytest.param({"prompt_cache_key": "k"}, {"prompt_cache_key": "k"}, id="prompt_cache_key"),
        pytest.param({"service_tier": "default"}, {"service_tier": "standard_only"}, id="service_tier"),
        pytest.param({"seed": 3, "stop": ["x"]}, {"random_seed": 3, "stop": ["x"]}, id="fields-of-chat"),
        pytest.param({"safe_prompt": True, "top_k": 4}, {"safe_prompt": True, "top_k": 4}, id="the-providers-own"),
        pytest.param({"reasoning": {"effort": "high"}}, {"reasoning_effort": "high"}, id="effort"),
        pytest.param({"reasoning": {"effort": "xhigh"}}, {"reasoning_effort": "xhigh"}, id="another-effort"),
        pytest.param(
            {"reasoning": {"effort": None, "summary": "auto", "mode": "standard", "context": "auto"}},
            {},
            id="what-asks-for-nothing-of-reasoning",
        ),
        pytest.param({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}, id="top_logprobs"),
        pytest.param({"top_logprobs": 0}, {}, id="no-logprobs"),
        pytest.param({"include": ["message.output_text.logprobs"]}, {"logprobs": True}, id="logprobs-included"),
        pytest.param({"include": ["reasoning.encrypted_content"], "store": False}, {}, id="nothing-to-include"),
        pytest.param({"text": {"format": {"type": "text"}, "verbosity": "medium"}}, {}, id="plain-text"),
        pytest.param(
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": {"type": "json_object"}},
            id="json-object",
        ),
        pytest.param(
            {"text": {"format": {"type": "json_schema", "name": "s", "schema": SCHEMA, "description": None}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}},
            id="json-schema",
        ),
        pytest.param(
            {"tools": [WEATHER, CLOCK], "tool_choice": "required"},
            {"tools": [NESTED_WEATHER, NESTED_CLOCK], "tool_choice": "required"},
            id="flat-tools",
        ),
        pytest.param({"tools": [NESTED_WEATHER]}, {"tools": [NESTED_WEATHER]}, id="tools-as-chat-has-them"),
        pytest.param(
            {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}},
            {"tools": [NESTED_WEATHER], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
            id="a-named-choice-stays-named",
        ),
        pytest.param(
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "clock"}],
                },
                "tools": [WEATHER, CLOCK],
            },
            {"tools": [NESTED_CLOCK], "tool_choice": "required"},
            id="allowed-tools-are-those-that-are-offered",
        ),
        pytest.param(
            {
                "user": "u",
                "safety_identifier": "s",
                "max_tool_calls": 3,
                "stream_options": {"include_obfuscation": False},
            },
            {},
            id="without-effect",
        ),
        pytest.param({"background": False, "store": False, "truncation": "disabled"}, {}, id="asks-for-nothing"),
        pytest.param(
            dict.fromkeys(("conversation", "previous_response_id", "prompt", "temperature", "nonsense")),
            {},
            id="null-is-absent",
        ),
    ],
)
def test_a_field_has_its_place_in_chat(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sent(given) == {"model": "mistral-small-latest", "messages": HELLO, **wanted}


@pytest.mark.parametrize("body", [{"text_format": Number}, {"text": {"format": Number}}], ids=["text_format", "text"])
def test_a_class_is_sent_as_its_schema(body: dict[str, Any]) -> None:
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "Number", "schema": {"title": "Number", **SCHEMA}, "strict": True},
    }
    assert sent(body)["response_format"] == wanted


def test_what_is_left_out_is_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    mistral = Mistral(KEY)
    with caplog.at_level(logging.DEBUG, "bifrost_core.providers"):
        for _ in range(2):
            mistral.encode(ask({"store": False, "max_tool_calls": 1, "reasoning": {"summary": "auto"}}))
    assert sorted(record.getMessage().split(": ", 1)[1].split(" (said")[0] for record in caplog.records) == [
        "reasoning.summary is left out: what a provider shows of its reasoning comes whole",
        "the field 'max_tool_calls' of a Responses request, which does not change the answer, is left out",
        "the field 'store' of a Responses request, which does not change the answer, is left out",
    ]


@pytest.mark.parametrize(
    ("body", "parameter", "says"),
    [
        pytest.param({"previous_response_id": "resp_1"}, "previous_response_id", "pass the whole conversation", id="a"),
        pytest.param({"conversation": "conv_1"}, "conversation", "pass the whole conversation", id="conversation"),
        pytest.param({"prompt": {"id": "p"}}, "prompt", "templates are stored at OpenAI", id="prompt"),
        pytest.param({"background": True}, "background", "waited for", id="background"),
        pytest.param({"store": True}, "store", "nothing is stored", id="store"),
        pytest.param({"truncation": "auto"}, "truncation", "whole or not at all", id="truncation"),
        pytest.param({"moderation": {"model": "m"}}, "moderation", "the answer would be another", id="moderation"),
        pytest.param({"context_management": []}, "context_management", "the answer would be another", id="context"),
        pytest.param({"text": {"verbosity": "low"}}, "verbosity", "the answer would be another", id="verbosity"),
        pytest.param({"text": {"formt": {}}}, "text.formt", "text has format, verbosity", id="member-of-text"),
        pytest.param(
            {"text_format": Number, "text": {"format": {"type": "json_object"}}}, "text_format", "one of them", id="two"
        ),
        pytest.param({"reasoning": {"mode": "pro"}}, "reasoning.mode", "'standard' here", id="reasoning-mode"),
        pytest.param({"reasoning": {"depth": 3}}, "reasoning.depth", "reasoning has", id="member-of-reasoning"),
        pytest.param({"include": ["everything"]}, "include", "'everything' is nothing", id="include"),
        pytest.param({"tools": [{"type": "web_search"}]}, "tools[0].type", "only function tools", id="built-in-tool"),
        pytest.param(
            {"tools": [{**WEATHER, "defer_loading": True}]}, "tools[0].defer_loading", "no such", id="deferred"
        ),
        pytest.param({"tool_choice": {"type": "mcp"}}, "tool_choice.type", "only function tools", id="built-in-choice"),
        pytest.param(
            {"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "tools": [{"type": "mcp"}]}},
            "tool_choice.tools[0]",
            "only function tools",
            id="built-in-allowed",
        ),
        pytest.param({"messages": []}, "messages", "it is input here", id="messages"),
        pytest.param({"max_tokens": 3}, "max_tokens", "it is max_output_tokens here", id="max_tokens"),
        pytest.param({"response_format": Number}, "response_format", "text_format", id="response_format"),
        pytest.param({"reasoning_effort": "high"}, "reasoning_effort", "effort", id="reasoning_effort"),
        pytest.param({"n": 2}, "n", "is one answer", id="n"),
        pytest.param({"extra_body": {"n": 2}}, "n", "is one answer", id="n-as-extra"),
        pytest.param(
            {"max_outputtokens": 3}, "max_outputtokens", "did you mean max_output_tokens", id="a-near-match-of-ours"
        ),
        pytest.param(
            {"safe_promt": True}, "safe_promt", "did you mean safe_prompt", id="a-near-match-of-the-providers"
        ),
    ],
)
def test_what_can_not_be_served_is_refused_by_name(body: dict[str, Any], parameter: str, says: str) -> None:
    with pytest.raises(UnsupportedParameterError, match=says) as caught:
        sent(body)
    assert caught.value.parameter == parameter
    assert f"'{parameter}'" in caught.value.message


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param({"input": None}, "the field 'input' is missing", id="no-input"),
        pytest.param({"input": 3}, "input is int", id="a-number"),
        pytest.param({"input": []}, "input is empty", id="no-items"),
        pytest.param({"input": [3]}, r"input\[0\] is int", id="an-item-that-is-none"),
        pytest.param({"instructions": ["x"]}, "'instructions' is no text", id="instructions"),
        pytest.param({"input": [{"role": "user", "content": 3}]}, r"input\[0\]\.content is neither", id="content"),
        pytest.param({"input": [{"role": "user", "content": [3]}]}, r"content\[0\] is neither text nor", id="part"),
        pytest.param(
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, r"content\[0\]\.text is", id="no-text"
        ),
        pytest.param(
            {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, r"call_id is missing", id="call_id"
        ),
        pytest.param({"input": [{"type": "function_call", "call_id": "c"}]}, r"\[0\]\.name is missing", id="name"),
        pytest.param(
            {"input": [{"type": "function_call_output", "call_id": "c"}]}, r"\[0\]\.output is neither", id="output"
        ),
        pytest.param({"input": [{"type": "reasoning", "content": "x"}]}, "content is no list", id="reasoning"),
        pytest.param({"text": "json"}, "'text' is no object", id="text"),
        pytest.param({"include": "all"}, "'include' is no list", id="include"),
        pytest.param({"tools": "all"}, "'tools' is no list", id="tools"),
        pytest.param({"tools": [{"type": "function"}]}, r"tools\[0\]\.name is missing", id="tool-name"),
        pytest.param({"tool_choice": {"type": "function"}}, r"tool_choice\.name is missing", id="choice-name"),
        pytest.param({"tool_choice": {"type": "allowed_tools"}}, r"tool_choice\.tools is no list", id="allowed"),
        pytest.param(
            {"tools": [CLOCK], "tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "x"}]}},
            "'x', which is not among the tools",
            id="allowed-but-not-offered",
        ),
    ],
)
def test_what_is_no_request_is_not_sent(body: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        sent(body)


# --- items


def test_a_conversation_with_tools_becomes_messages() -> None:
    assert messages(
        {"role": "user", "content": "Weather in Oslo and Bergen?"},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Two calls."}],
        },
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "One moment.", "annotations": []}],
        },
        {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "aaaaaaaaa",
            "name": "weather",
            "arguments": '{"city":"Oslo"}',
        },
        {"type": "function_call", "call_id": "bbbbbbbbb", "name": "weather", "arguments": '{"city":"Bergen"}'},
        {"type": "function_call_output", "call_id": "aaaaaaaaa", "output": "rain"},
        {
            "type": "function_call_output",
            "call_id": "bbbbbbbbb",
            "output": [{"type": "input_text", "text": "more rain"}],
            "status": "completed",
        },
        {"role": "assistant", "content": "Rain, and more rain."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Thanks."}]},
        instructions="Be brief.",
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in Oslo and Bergen?"},
        {
            "role": "assistant",
            "content": "One moment.",
            "reasoning_content": "Two calls.",
            "tool_calls": [
                ToolCall("aaaaaaaaa", "weather", '{"city":"Oslo"}').to_openai(),
                ToolCall("bbbbbbbbb", "weather", '{"city":"Bergen"}').to_openai(),
            ],
        },
        {"role": "tool", "tool_call_id": "aaaaaaaaa", "content": "rain"},
        {"role": "tool", "tool_call_id": "bbbbbbbbb", "content": [{"type": "text", "text": "more rain"}]},
        {"role": "assistant", "content": "Rain, and more rain."},
        {"role": "user", "content": [{"type": "text", "text": "Thanks."}]},
    ]


CALL = {"type": "function_call", "call_id": "aaaaaaaaa", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "aaaaaaaaa", "output": "1"}
CALLED = [ToolCall("aaaaaaaaa", "f", "{}").to_openai()]


def thought(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]}


@pytest.mark.parametrize(
    ("items", "wanted"),
    [
        pytest.param(
            [CALL, {"role": "assistant", "content": "Said beside the call."}, thought("x"), RESULT],
            [
                {
                    "role": "assistant",
                    "content": "Said beside the call.",
                    "reasoning_content": "x",
                    "tool_calls": CALLED,
                },
                {"role": "tool", "tool_call_id": "aaaaaaaaa", "content": "1"},
            ],
            id="nothing-comes-between-a-call-and-its-result",
        ),
        pytest.param(
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
            id="two-messages-stay-two",
        ),
        pytest.param(
            [thought("x"), {"role": "assistant", "content": "a"}, thought("y"), {"role": "assistant", "content": "b"}],
            [
                {"role": "assistant", "content": "a", "reasoning_content": "x"},
                {"role": "assistant", "content": "b", "reasoning_content": "y"},
            ],
            id="each-thought-with-its-words",
        ),
        pytest.param(
            [thought("x"), {"role": "user", "content": "go on"}],
            [{"role": "assistant", "content": "", "reasoning_content": "x"}, {"role": "user", "content": "go on"}],
            id="a-thought-that-was-cut-off",
        ),
        pytest.param(
            [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "short"}]}, CALL],
            [{"role": "assistant", "content": None, "reasoning_content": "short", "tool_calls": CALLED}],
            id="a-summary-where-there-is-no-more",
        ),
        pytest.param(
            [{"type": "reasoning", "summary": []}, {"role": "assistant", "content": []}, *HELLO],
            HELLO,
            id="what-says-nothing-is-no-message",
        ),
        pytest.param(
            [CALL, RESULT, {**CALL, "call_id": "bbbbbbbbb"}],
            [
                {"role": "assistant", "content": None, "tool_calls": CALLED},
                {"role": "tool", "tool_call_id": "aaaaaaaaa", "content": "1"},
                {"role": "assistant", "content": None, "tool_calls": [ToolCall("bbbbbbbbb", "f", "{}").to_openai()]},
            ],
            id="one-call-after-the-other",
        ),
        pytest.param(
            [{"role": "developer", "content": "d"}, {"role": "system", "content": "s"}],
            [{"role": "developer", "content": "d"}, {"role": "system", "content": "s"}],
            id="other-roles",
        ),
        pytest.param(
            [
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}],
                }
            ],
            [
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}],
                }
            ],
            id="a-refusal",
        ),
        pytest.param(
            [{**CALL, "parsed_arguments": {}, "caller": {"type": "direct"}, "async": False, "namespace": None}, RESULT],
            [
                {"role": "assistant", "content": None, "tool_calls": CALLED},
                {"role": "tool", "tool_call_id": "aaaaaaaaa", "content": "1"},
            ],
            id="a-call-as-the-sdk-holds-it",
        ),
        pytest.param(
            [{**CALL, "arguments": {"x": 1}}],
            [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [ToolCall("aaaaaaaaa", "f", '{"x":1}').to_openai()],
                }
            ],
            id="arguments-as-an-object",
        ),
    ],
)
def test_what_the_assistant_said_and_did_is_one_message(
    items: list[dict[str, Any]], wanted: list[dict[str, Any]]
) -> None:
    assert messages(*items) == wanted


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        pytest.param("plain", {"type": "text", "text": "plain"}, id="a-string"),
        pytest.param(
            {"type": "input_text", "text": "t", "prompt_cache_breakpoint": {"mode": "explicit"}},
            {"type": "text", "text": "t"},
            id="text",
        ),
        pytest.param(
            {"type": "input_image", "image_url": "https://x/i.png", "detail": "auto"},
            {"type": "image_url", "image_url": {"url": "https://x/i.png"}},
            id="image",
        ),
        pytest.param(
            {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "high"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "high"}},
            id="image-in-detail",
        ),
        pytest.param(
            {"type": "input_image", "file_id": "file-1", "detail": "auto"},
            {"type": "file", "file_id": "file-1"},
            id="image-by-id",
        ),
        pytest.param(
            {"type": "input_file", "file_id": "file-1"}, {"type": "file", "file_id": "file-1"}, id="file-by-id"
        ),
        pytest.param(
            {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
            {
                "type": "document_url",
                "document_url": "data:application/pdf;base64,AA==",
                "document_name": "a.pdf",
            },
            id="file-as-data",
        ),
        pytest.param(
            {"type": "input_file", "file_url": "https://x/a.pdf", "filename": "a.pdf"},
            {"type": "document_url", "document_url": "https://x/a.pdf", "document_name": "a.pdf"},
            id="file-by-url",
        ),
        pytest.param(
            {"type": "input_file", "file_url": "https://x/a.pdf"},
            {"type": "document_url", "document_url": "https://x/a.pdf"},
            id="file-without-a-name",
        ),
        pytest.param(
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            id="audio",
        ),
    ],
)
def test_a_part_arrives_as_mistral_takes_it(part: Any, wanted: dict[str, Any]) -> None:
    body = {"input": [{"role": "user", "content": [part]}]}
    assert sent(body)["messages"] == [{"role": "user", "content": [wanted]}]


@pytest.mark.parametrize(
    ("item", "parameter", "says"),
    [
        pytest.param(
            {"type": "item_reference", "id": "msg_1"}, "input[1].type", "pass the item itself", id="reference"
        ),
        pytest.param({"id": "msg_1"}, "input[1].type", "pass the item itself", id="a-bare-reference"),
        pytest.param({"type": "web_search_call"}, "input[1].type", "chat has no such items", id="built-in-call"),
        pytest.param({"type": 3}, "input[1].type", "chat has no such items", id="no-word"),
        pytest.param({}, "input[1].type", "chat has no such items", id="nothing"),
        pytest.param(
            {"role": "tool", "content": "x"}, "input[1].role", "items of type function_call_output", id="a-chat-result"
        ),
        pytest.param(
            {"role": "assistant", "content": "", "tool_calls": [{}]},
            "input[1].tool_calls",
            "items of type function_call",
            id="chat-calls",
        ),
        pytest.param({**CALL, "namespace": "n"}, "input[1].namespace", "no such member", id="unknown-member"),
        pytest.param(
            {"type": "reasoning", "summary": [], "encrypted_content": "x"},
            "input[1].encrypted_content",
            "only the provider that made it",
            id="encrypted",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "input_video"}]},
            "input[1].content[0].type",
            "it is input_text",
            id="part",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "input_image"}]}, "input[1].content[0]", "image_url", id="image"
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "input_file"}]}, "input[1].content[0]", "file_id", id="file"
        ),
    ],
)
def test_an_item_that_chat_does_not_know_is_refused_by_its_place(
    item: dict[str, Any], parameter: str, says: str
) -> None:
    with pytest.raises(UnsupportedParameterError, match=says) as caught:
        sent({"input": [*HELLO, item]})
    assert caught.value.parameter == parameter


def test_reasoning_goes_back_as_mistrals_own_part() -> None:
    assert sent({"input": [*HELLO, thought("hm"), {"role": "assistant", "content": "yes"}, *HELLO]})["messages"][1] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
            {"type": "text", "text": "yes"},
        ],
    }


def test_ids_of_other_providers_are_made_mistrals_the_same_in_call_and_result() -> None:
    call, result = {**CALL, "call_id": "call_0123456789abcdef"}, {**RESULT, "call_id": "call_0123456789abcdef"}
    _, said, answered = sent({"input": [*HELLO, call, result]})["messages"]
    assert said["tool_calls"][0]["id"] == answered["tool_call_id"]
    assert len(answered["tool_call_id"]) == 9


def test_what_is_no_object_among_the_tools_goes_on_to_who_describes_it() -> None:
    def weather(city: str) -> str:
        """Weather of a city."""
        return city

    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]}
    request = chat_request(ask({"tools": [weather, CLOCK], "tool_choice": choice}), (), Reporter("any", ()))
    assert dict(request.body) == {"messages": HELLO, "tools": [weather], "tool_choice": "auto"}


def test_a_refusal_shows_no_word_of_the_conversation_and_no_key() -> None:
    with pytest.raises(BadRequestError) as caught:
        Mistral([Key(KEY)]).encode(ask({"input": [{"role": "user", "content": [{"type": "secret words"}]}]}))
    assert "secret words" not in str(caught.value)
    assert KEY not in str(caught.value)
