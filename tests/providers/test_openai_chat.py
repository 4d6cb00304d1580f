"""Chat requests on OpenAI's wire: sent as they are, rewritten where another vendor's word has an equal, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bifrost_core.errors import BadRequestError, ConfigError, UnsupportedParameterError
from bifrost_core.providers import OpenAI
from bifrost_core.types import Request, ToolCall
from bifrost_core.wire import HttpCall

KEY = "sk-openai-requests-0123456789"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]


def encoded(
    body: dict[str, Any], *, model: str = "gpt-4o", max_output: int | None = None, stream: bool = False
) -> HttpCall:
    return OpenAI(KEY).encode(Request("chat", model, body, stream=stream), max_output)


def sent(body: dict[str, Any], **how: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(encoded(body, **how).body)
    return decoded


def sent_message(message: dict[str, Any]) -> dict[str, Any]:
    (written,) = sent({"messages": [message]})["messages"]
    assert isinstance(written, dict)
    return written


# -- the whole ---------------------------------------------------------------------------------------------------


def test_a_plain_request_is_what_the_api_documents() -> None:
    call = encoded({"messages": HELLO, "temperature": 0.2})
    assert (call.method, call.url, call.stream, call.output_upper) == (
        "POST",
        "https://api.openai.com/v1/chat/completions",
        False,
        None,
    )
    assert json.loads(call.body) == {"model": "gpt-4o", "messages": HELLO, "temperature": 0.2}
    headers = dict(call.headers)
    assert headers.pop(b"user-agent").startswith(b"bifrost-core/")
    assert headers == {
        b"content-type": b"application/json",
        b"accept": b"application/json",
        b"accept-encoding": b"identity",
    }
    assert KEY.encode() not in call.body + repr(call).encode()


# Every field of https://platform.openai.com/docs/api-reference/chat/create, with a value that asks for something.
GOLDEN: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "mp3"},
    "frequency_penalty": 0.5,
    "function_call": "auto",
    "functions": [{"name": "f", "parameters": {"type": "object", "properties": {}}}],
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "max_completion_tokens": 20,
    "metadata": {"a": "b"},
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni-moderation-latest"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]},
    "presence_penalty": -0.5,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "minimal",
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
    "safety_identifier": "s",
    "seed": 7,
    "service_tier": "flex",
    "stop": ["a", "b"],
    "store": True,
    "temperature": 1.5,
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}, "strict": True}},
        {"type": "custom", "custom": {"name": "c", "format": {"type": "text"}}},
    ],
    "top_logprobs": 3,
    "top_p": 0.9,
    "user": "u",
    "verbosity": "low",
    "web_search_options": {"search_context_size": "low"},
}


def test_every_documented_field_is_sent_as_it_is() -> None:
    assert sent({"messages": HELLO, **GOLDEN}) == {"model": "gpt-4o", "messages": HELLO, **GOLDEN}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param({"random_seed": 7}, {"seed": 7}, id="random_seed"),
        pytest.param({"random_seed": 7, "seed": 7}, {"seed": 7}, id="both-names-agree"),
        pytest.param({"tool_choice": "any"}, {"tool_choice": "required"}, id="any"),
        pytest.param({"tool_choice": "none"}, {"tool_choice": "none"}, id="none"),
        pytest.param({"service_tier": "standard_only"}, {"service_tier": "default"}, id="the-default-tier"),
        pytest.param({"temperature": None}, {}, id="null-is-absent"),
        pytest.param({"safe_prompt": False, "guardrails": []}, {}, id="mistral-asks-for-nothing"),
        pytest.param({"thinking": {"type": "disabled"}}, {}, id="anthropic-asks-for-nothing"),
        pytest.param({"extra_body": {"seed": 9, "new": 1}, "seed": 7}, {"seed": 9, "new": 1}, id="extra-wins"),
        pytest.param({"max_tokens": 5}, {"max_tokens": 5}, id="the-older-limit-stays"),
        pytest.param({"max_tokens": 5, "max_completion_tokens": 5}, {"max_completion_tokens": 5}, id="both-limits"),
        pytest.param({"max_completion_tokens": 5, "max_tokens": 5}, {"max_completion_tokens": 5}, id="other-order"),
    ],
)
def test_a_word_with_an_equal_is_rewritten(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sent({"messages": HELLO, **given}) == {"model": "gpt-4o", "messages": HELLO, **wanted}


@pytest.mark.parametrize(
    "model", ["o1", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5.1-codex", "gpt-6-sol", "codex-mini-latest"]
)
def test_a_model_that_thinks_takes_the_limit_by_its_newer_name(model: str) -> None:
    assert sent({"messages": HELLO, "max_tokens": 9}, model=model)["max_completion_tokens"] == 9
    assert "max_tokens" not in sent({"messages": HELLO, "max_tokens": 9}, model=model)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-mini", "gpt-3.5-turbo", "chatgpt-4o-latest", "ft:gpt-4o:org::x"])
def test_any_other_model_takes_it_by_the_name_that_was_given(model: str) -> None:
    assert sent({"messages": HELLO, "max_tokens": 9}, model=model)["max_tokens"] == 9


def test_a_fine_tuned_model_thinks_as_its_base_does() -> None:
    assert sent({"messages": HELLO, "max_tokens": 9}, model="ft:o4-mini:org::x")["max_completion_tokens"] == 9


@pytest.mark.parametrize(
    ("body", "max_output", "limit", "upper"),
    [
        pytest.param({}, None, {}, None, id="none"),
        pytest.param({}, 50, {"max_completion_tokens": 50}, 50, id="held"),
        pytest.param({"max_tokens": 80}, 50, {"max_tokens": 50}, 50, id="lowered"),
        pytest.param({"max_tokens": 8}, 50, {"max_tokens": 8}, 8, id="low-enough"),
        pytest.param({"max_completion_tokens": 80, "n": 3}, 50, {"max_completion_tokens": 50}, 150, id="choices"),
        pytest.param({"extra_body": {"max_tokens": 80}}, 50, {"max_tokens": 50}, 50, id="over-extra"),
    ],
)
def test_an_output_limit_is_held(
    body: dict[str, Any], max_output: int | None, limit: dict[str, int], upper: int | None
) -> None:
    call = encoded({"messages": HELLO, **body}, max_output=max_output)
    members = json.loads(call.body)
    assert {name: members[name] for name in ("max_tokens", "max_completion_tokens") if name in members} == limit
    assert call.output_upper == upper


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        pytest.param({}, {"include_usage": True}, id="nothing"),
        pytest.param({"stream_options": {"include_usage": False}}, {"include_usage": True}, id="unwanted"),
        pytest.param(
            {"stream_options": {"include_obfuscation": False}},
            {"include_obfuscation": False, "include_usage": True},
            id="beside-another",
        ),
        pytest.param({"extra_body": {"stream_options": {}}}, {"include_usage": True}, id="over-extra"),
    ],
)
def test_a_stream_is_always_asked_for_its_usage(options: dict[str, Any], wanted: dict[str, Any]) -> None:
    members = sent({"messages": HELLO, **options}, stream=True)
    assert (members["stream"], members["stream_options"]) == (True, wanted)


def test_python_functions_and_classes_are_described() -> None:
    def area(radius: float) -> float:
        """The area of a circle."""
        return radius

    from attrs import frozen  # noqa: PLC0415 # of this test alone

    @frozen
    class Size:
        width: int

    members = sent({"messages": HELLO, "tools": [area], "response_format": Size})
    assert members["tools"][0]["function"]["name"] == "area"
    assert members["response_format"]["json_schema"]["schema"]["required"] == ["width"]


def test_organization_and_project_are_headers() -> None:
    provider = OpenAI(KEY, organization="org-1", project="proj-2", headers={"x-own": "3"})
    assert provider.network.headers == {"x-own": "3", "openai-organization": "org-1", "openai-project": "proj-2"}
    with pytest.raises(ConfigError, match="openai-project"):
        OpenAI(KEY, project="ü")


# -- what is refused by its name -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        pytest.param({"top_k": 3}, "top_k", id="top_k"),
        pytest.param({"safe_prompt": True}, "safe_prompt", id="safe_prompt"),
        pytest.param({"prompt_mode": "reasoning"}, "prompt_mode", id="prompt_mode"),
        pytest.param({"thinking": {"type": "enabled", "budget_tokens": 9}}, "thinking", id="thinking"),
        pytest.param({"output_config": {"effort": "low"}}, "output_config", id="output_config"),
        pytest.param({"random_seed": 1, "seed": 2}, "seed", id="two-seeds"),
        pytest.param({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens", id="two-limits"),
        pytest.param({"tools": [{"type": "web_search_20250305"}]}, "tools[0].type", id="a-tool-of-anothers"),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": "f"}, "defer_loading": True}]},
            "tools[0].defer_loading",
            id="a-member-of-a-tool",
        ),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": "f", "returns": {}}}]},
            "tools[0].function.returns",
            id="a-member-of-a-function",
        ),
    ],
)
def test_what_has_no_equal_is_refused_by_its_name(body: dict[str, Any], parameter: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        sent({"messages": HELLO, **body})
    assert caught.value.parameter == parameter


def test_an_unknown_field_is_refused_with_near_matches() -> None:
    with pytest.raises(UnsupportedParameterError, match="did you mean temperature") as caught:
        sent({"messages": HELLO, "temprature": 1})
    assert caught.value.parameter == "temprature"


@pytest.mark.parametrize("body", [{}, {"messages": "x"}, {"messages": ["x"]}, {"messages": HELLO, "tools": "f"}])
def test_a_body_without_the_shape_is_not_sent(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError, match="was not sent"):
        sent(body)


# -- messages ------------------------------------------------------------------------------------------------------

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"role": "system", "content": "s"}, id="system"),
        pytest.param({"role": "developer", "content": "d", "name": "n"}, id="developer"),
        pytest.param({"role": "user", "content": [{"type": "text", "text": "x"}], "name": "n"}, id="user"),
        pytest.param({"role": "assistant", "content": None, "tool_calls": [CALL]}, id="calls"),
        pytest.param({"role": "assistant", "content": None, "refusal": "no"}, id="refusal"),
        pytest.param({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, id="refusal-part"),
        pytest.param(
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "c", "input": "free text"}}],
            },
            id="custom-call",
        ),
        pytest.param({"role": "tool", "tool_call_id": "call_1", "content": "42"}, id="tool"),
        pytest.param({"role": "function", "name": "f", "content": "42"}, id="function"),
        pytest.param(
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "https://x.y/z.png", "detail": "high"}},
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}},
                    {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}},
                ],
            },
            id="parts",
        ),
    ],
)
def test_a_message_in_openais_shape_stays_as_it_is(message: dict[str, Any]) -> None:
    assert sent_message(message) == message


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        pytest.param("words", {"type": "text", "text": "words"}, id="bare-text"),
        pytest.param(
            {"type": "image_url", "image_url": "https://x.y/z.png"},
            {"type": "image_url", "image_url": {"url": "https://x.y/z.png"}},
            id="image-as-text",
        ),
        pytest.param(
            {"type": "document_url", "document_url": "data:application/pdf;base64,AA==", "document_name": "a.pdf"},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
            id="document",
        ),
        pytest.param(
            {"type": "file", "file_id": "file-1"}, {"type": "file", "file": {"file_id": "file-1"}}, id="mistral-file"
        ),
        pytest.param(
            {"type": "input_audio", "input_audio": "data:audio/mpeg;base64,AA=="},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
            id="sound",
        ),
        pytest.param(
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "x"},
            id="cache_control",
        ),
    ],
)
def test_a_part_with_an_equal_is_rewritten(part: Any, wanted: dict[str, Any]) -> None:
    assert sent_message({"role": "user", "content": [part]})["content"] == [wanted]


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        pytest.param(
            {"role": "assistant", "content": "x", "audio": {"id": "audio_1", "data": "AA==", "transcript": "x"}},
            {"role": "assistant", "content": "x", "audio": {"id": "audio_1"}},
            id="sound-of-an-answer",
        ),
        pytest.param(
            {"role": "assistant", "content": "x", "refusal": None, "annotations": [{"type": "url_citation"}]},
            {"role": "assistant", "content": "x"},
            id="annotations",
        ),
        pytest.param(
            {"role": "tool", "tool_call_id": "c", "content": "x", "name": "f", "is_error": True},
            {"role": "tool", "tool_call_id": "c", "content": "x"},
            id="a-result",
        ),
        pytest.param(
            {"role": "assistant", "content": None, "tool_calls": [{**CALL, "index": 0}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            id="index-of-a-call",
        ),
        pytest.param(
            {"role": "assistant", "content": None, "tool_calls": [ToolCall("call_1", "f", '{"b":1,"a":2}')]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            id="call-object",
        ),
        pytest.param(
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}], "tool_calls": [CALL]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            id="sealed-thoughts",
        ),
        pytest.param(
            {"role": "assistant", "content": "x", "prefix": False}, {"role": "assistant", "content": "x"}, id="n"
        ),
    ],
)
def test_what_says_nothing_to_the_model_is_left_out(message: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sent_message(message) == wanted


@pytest.mark.parametrize(
    ("message", "parameter"),
    [
        pytest.param({"role": "robot", "content": "x"}, "messages[0].role", id="role"),
        pytest.param({"role": "assistant", "content": "x", "prefix": True}, "messages[0].prefix", id="prefix"),
        pytest.param(
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "x"}]},
            "messages[0].content[0]",
            id="thoughts",
        ),
        pytest.param(
            {"role": "assistant", "content": "x", "reasoning_content": "t"},
            "messages[0].reasoning_content",
            id="thoughts-beside",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "document_url", "document_url": "https://x.y/a.pdf"}]},
            "messages[0].content[0].document_url",
            id="a-document-by-url",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "input_audio", "input_audio": "https://x.y/a.mp3"}]},
            "messages[0].content[0].input_audio",
            id="sound-by-url",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "search_result", "source": "x"}]},
            "messages[0].content[0].type",
            id="an-anthropic-block",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "refusal", "refusal": "x"}]},
            "messages[0].content[0].type",
            id="a-users-refusal",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "text", "text": "x", "citations": [1]}]},
            "messages[0].content[0].citations",
            id="a-member-of-a-part",
        ),
        pytest.param({"role": "user", "content": "x", "weight": 1}, "messages[0].weight", id="a-member"),
        pytest.param(
            {"role": "assistant", "content": None, "tool_calls": [{**CALL, "status": "x"}]},
            "messages[0].tool_calls[0].status",
            id="a-member-of-a-call",
        ),
    ],
)
def test_what_has_no_place_in_a_message_is_refused_by_its_path(message: dict[str, Any], parameter: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        sent_message(message)
    assert caught.value.parameter == parameter


def test_ids_of_calls_are_kept_up_to_the_length_that_is_taken_and_agree_at_both_ends() -> None:
    long = "toolu_" + "x" * 60
    for known in ("call_1", "x" * 40, long):
        calls = [{**CALL, "id": known}]
        made = sent(
            {
                "messages": [
                    {"role": "assistant", "content": None, "tool_calls": calls},
                    {"role": "tool", "tool_call_id": known, "content": "x"},
                ]
            }
        )["messages"]
        wire = made[0]["tool_calls"][0]["id"]
        assert wire == made[1]["tool_call_id"]
        assert (wire == known) is (len(known) <= 40)
        assert len(wire) <= 40


def test_calls_without_an_id_and_their_results_are_tied_in_order() -> None:
    bare = [{"function": {"name": name, "arguments": {"a": 1}}} for name in "fg"]
    made = sent(
        {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": bare},
                {"role": "tool", "content": "1"},
                {"role": "tool", "tool_call_id": "", "content": "2"},
            ]
        }
    )["messages"]
    ids = [call["id"] for call in made[0]["tool_calls"]]
    assert ids == [made[1]["tool_call_id"], made[2]["tool_call_id"]]
    assert len(set(ids)) == 2
    assert [call["function"]["arguments"] for call in made[0]["tool_calls"]] == ['{"a":1}', '{"a":1}']


def test_what_was_given_is_left_as_it_is() -> None:
    body = {"messages": [{"role": "assistant", "content": None, "tool_calls": [{**CALL, "index": 0}]}], "seed": 1}
    before = json.dumps(body)
    sent(body, stream=True)
    assert json.dumps(body) == before


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4o",
        "gpt-4.1-nano-2025-04-14",
        "gpt-3.5-turbo",
        "gpt-6-luna",
        "o1",
        "o3-pro",
        "o4-mini-deep-research",
        "chatgpt-4o-latest",
        "text-embedding-3-small",
        "whisper-1",
        "tts-1-hd",
        "omni-moderation-latest",
        "codex-mini-latest",
        "gpt-5.1-codex",
        "gpt-4o-mini-tts",
        "gpt-4o-transcribe",
        "gpt-transcribe",
        "ft:gpt-4o-mini-2024-07-18:acme::abc",
    ],
)
def test_a_model_is_known_by_its_name(model: str) -> None:
    assert OpenAI(KEY).knows(model)


@pytest.mark.parametrize("model", ["mistral-small", "claude-opus-5", "gpt-oss-120b", "gpt", "o", "openai/gpt-4o", ""])
def test_any_other_is_not(model: str) -> None:
    assert not OpenAI(KEY).knows(model)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.openai.com/v1/", "https://api.openai.com/v1/chat/completions"),
        ("https://eu.api.openai.com", "https://eu.api.openai.com/v1/chat/completions"),
        ("https://gate.example/openai/v1", "https://gate.example/openai/v1/chat/completions"),
    ],
)
def test_a_base_url_works_with_and_without_v1(base_url: str, url: str) -> None:
    assert OpenAI(KEY, base_url=base_url).encode(Request("chat", "m", {"messages": HELLO})).url == url


def test_it_needs_a_key_and_shows_none() -> None:
    with pytest.raises(ConfigError, match="no keys"):
        OpenAI([])
    assert KEY not in repr(OpenAI(KEY))
