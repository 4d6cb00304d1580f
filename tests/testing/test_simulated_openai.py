"""The simulated OpenAI service, seen by a plain HTTP client."""

from __future__ import annotations

import array
import base64
import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import httpx
import pytest

from bifrost_core.testing import FakeClock, Fault, SimulatedKey, SimulatedModel, SimulatedOpenAI
from bifrost_core.testing.openai.__main__ import main

Json: TypeAlias = dict[str, Any]
Serve: TypeAlias = Callable[..., tuple[SimulatedOpenAI, httpx.Client]]

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SECRET = "sk-test-0123456789"
HI: Json = {"role": "user", "content": "Hello"}
HELLO: Json = {"model": "gpt-4o-mini", "messages": [HI]}
ASK: Json = {"model": "gpt-4o-mini", "input": "Hello"}
WEATHER: Json = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo"]}},
        "required": ["city"],
    },
}
TOOLS: list[Json] = [{"type": "function", "function": WEATHER}]
SCHEMA: Json = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 3}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server with one key (``SimulatedKey`` arguments in ``key``) and a client that uses it."""
    with contextlib.ExitStack() as stack:

        def start(*faults: Fault, key: Json | None = None, **options: Any) -> tuple[SimulatedOpenAI, httpx.Client]:
            simulated = SimulatedKey(SECRET, id="a", faults=faults, **(key or {}))
            server = stack.enter_context(SimulatedOpenAI([simulated], **options))
            client = httpx.Client(base_url=server.base_url, headers={"authorization": f"Bearer {SECRET}"}, timeout=5)
            return server, stack.enter_context(client)

        yield start


def frames(text: str) -> list[tuple[str | None, Json]]:
    """Names and JSON of a stream's events; ``[DONE]`` is checked to be last and left out."""
    found: list[tuple[str | None, Json]] = []
    parts = text.split("\n\n")
    assert parts.pop() == ""
    if parts[-1] == "data: [DONE]":
        parts.pop()
    for part in parts:
        lines = dict(line.split(": ", 1) for line in part.split("\n"))
        found.append((lines.get("event"), json.loads(lines["data"])))
    return found


def refusal(reply: httpx.Response) -> tuple[int, str, str | None, str | None]:
    """Status, type, param and code of a refusal, whose shape is checked on the way."""
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return reply.status_code, error["type"], error["param"], error["code"]


# -- chat completions ----------------------------------------------------------------------------------------------


def test_a_plain_chat_reply_has_openais_shape_and_headers(serve: Serve) -> None:
    limits = {"requests_per_minute": 60, "tokens_per_minute": 6_000}
    _, client = serve(clock=FakeClock(wall=1_780_000_000), answer="Bifrost, of course.", key=limits)
    reply = client.post(CHAT, json=HELLO)
    body = reply.json()
    assert re.fullmatch(r"chatcmpl-[A-Za-z0-9]{29}", body.pop("id"))
    prompt = len(reply.request.content) // 4
    assert body == {
        "object": "chat.completion",
        "created": 1_780_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Bifrost, of course.",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": 5,
            "total_tokens": prompt + 5,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }
    headers = dict(reply.headers)
    assert re.fullmatch(r"req_[0-9a-f]{32}", headers.pop("x-request-id"))
    assert headers.pop("openai-processing-ms").isdigit()
    assert headers == {
        "date": "Thu, 28 May 2026 20:26:40 GMT",
        "content-type": "application/json",
        "openai-organization": "org-simulated",
        "openai-version": "2020-10-01",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-remaining-tokens": str(6_000 - prompt - 5),
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": f"{(prompt + 5) * 10}ms",
        "content-length": str(len(reply.content)),
        "connection": "keep-alive",
    }


def test_a_stream_tells_the_same_and_ends_with_usage_and_done(serve: Serve) -> None:
    _, client = serve(answer="Over the rainbow bridge.")
    options = {"include_usage": True, "include_obfuscation": False}
    reply = client.post(CHAT, json={**HELLO, "stream": True, "stream_options": options})
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.text.endswith("data: [DONE]\n\n")
    chunks = [chunk for _, chunk in frames(reply.text)]
    first, *middle, last, usage = chunks
    head = {"object": "chat.completion.chunk", "model": "gpt-4o-mini-2024-07-18", "service_tier": "default"}
    assert all({name: chunk[name] for name in head} == head and chunk["id"] == first["id"] for chunk in chunks)
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in middle) == "Over the rainbow bridge."
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert [chunk["usage"] for chunk in (first, last)] == [None, None]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 6)


def test_a_stream_without_options_has_padding_and_no_usage(serve: Serve) -> None:
    _, client = serve()
    chunks = [chunk for _, chunk in frames(client.post(CHAT, json={**HELLO, "stream": True}).text)]
    assert [("usage" in chunk, "obfuscation" in chunk) for chunk in chunks] == [(False, True)] * len(chunks)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_demanded_call_is_made_with_arguments_that_fit(serve: Serve, stream: bool) -> None:
    _, client = serve()
    reply = client.post(CHAT, json={**HELLO, "tools": TOOLS, "tool_choice": "required", "stream": stream})
    if stream:
        deltas = [chunk["choices"][0] for _, chunk in frames(reply.text)]
        calls = [call for choice in deltas for call in choice["delta"].get("tool_calls", ())]
        assert {name: calls[0][name] for name in ("index", "type")} == {"index": 0, "type": "function"}
        assert calls[0]["function"] == {"name": "weather", "arguments": ""}
        assert [set(call) for call in calls[1:]] == [{"index", "function"}] * len(calls[1:])
        made = calls[0]["id"], "".join(call["function"]["arguments"] for call in calls)
        reason = deltas[-1]["finish_reason"]
    else:
        choice = reply.json()["choices"][0]
        (call,) = choice["message"]["tool_calls"]
        assert choice["message"]["content"] is None
        made, reason = (call["id"], call["function"]["arguments"]), choice["finish_reason"]
    assert re.fullmatch(r"call_[A-Za-z0-9]{24}", made[0])
    assert (json.loads(made[1]), reason) == ({"city": "Oslo"}, "tool_calls")


def test_a_conversation_goes_on_behind_the_results_of_its_calls(serve: Serve) -> None:
    _, client = serve()
    forced = {"type": "function", "function": {"name": "weather"}}
    first = client.post(CHAT, json={**HELLO, "tools": TOOLS, "tool_choice": forced}).json()["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "rain"}
    reply = client.post(CHAT, json={**HELLO, "messages": [HI, first, result], "tools": TOOLS})
    assert reply.json()["choices"][0]["finish_reason"] == "stop"


def test_json_fits_the_schema(serve: Serve) -> None:
    _, client = serve()
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
    content = client.post(CHAT, json={**HELLO, "response_format": form}).json()["choices"][0]["message"]["content"]
    assert json.loads(content) == {"n": 3}


def test_several_choices_take_turns_in_a_stream(serve: Serve) -> None:
    _, client = serve()
    plain = client.post(CHAT, json={**HELLO, "n": 2}).json()["choices"]
    assert plain[0]["message"]["content"] != plain[1]["message"]["content"]
    indices = [
        chunk["choices"][0]["index"]
        for _, chunk in frames(client.post(CHAT, json={**HELLO, "n": 2, "stream": True}).text)
    ]
    assert indices[:4] == [0, 1, 0, 1]


def test_logprobs_cover_the_text_token_by_token(serve: Serve) -> None:
    _, client = serve(answer="Odin rides")
    body = {**HELLO, "logprobs": True, "top_logprobs": 2}
    content = client.post(CHAT, json=body).json()["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in content] == ["Odin", " rides"]
    assert all(entry["bytes"] == list(entry["token"].encode()) and entry["logprob"] < 0 for entry in content)
    assert [[top["token"] for top in entry["top_logprobs"]] for entry in content] == [
        ["Odin", "Odin1"],
        [" rides", " rides1"],
    ]
    streamed = [
        chunk["choices"][0]["logprobs"] for _, chunk in frames(client.post(CHAT, json={**body, "stream": True}).text)
    ]
    assert [entry["token"] for each in streamed if each for entry in each["content"]] == ["Odin", " rides"]


def test_reasoning_is_counted_not_shown_and_can_be_left_out(serve: Serve) -> None:
    _, client = serve()
    body = {**HELLO, "model": "gpt-5-mini"}
    usages = [client.post(CHAT, json={**body, **more}).json()["usage"] for more in ({}, {"reasoning_effort": "none"})]
    reasoning = [usage["completion_tokens_details"]["reasoning_tokens"] for usage in usages]
    assert (reasoning[0] > 0, reasoning[1]) == (True, 0)
    cut = client.post(CHAT, json={**body, "max_completion_tokens": 3}).json()
    assert (cut["choices"][0]["message"]["content"], cut["choices"][0]["finish_reason"]) == ("", "length")


def test_a_law_gives_refusals_calls_and_reasons(serve: Serve) -> None:
    said: list[Json] = [
        {"refusal": "I cannot.", "finish_reason": "stop"},
        {"content": "", "finish_reason": "content_filter"},
    ]
    _, client = serve(answer=lambda body: said[len(body["messages"]) - 1])
    first = client.post(CHAT, json=HELLO).json()["choices"][0]
    assert (first["message"]["content"], first["message"]["refusal"]) == (None, "I cannot.")
    assert (
        client.post(CHAT, json={**HELLO, "messages": [HI, HI]}).json()["choices"][0]["finish_reason"]
        == "content_filter"
    )


def test_a_long_prompt_that_came_before_is_read_from_the_cache_in_whole_steps(serve: Serve) -> None:
    clock = FakeClock()
    _, client = serve(clock=clock)
    long = {"role": "system", "content": "word " * 1_200}
    cached: list[int] = []
    for question in ("a", "b"):
        body = {**HELLO, "messages": [long, {"role": "user", "content": question}]}
        cached.append(client.post(CHAT, json=body).json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    clock.advance(601)
    cached.append(client.post(CHAT, json=body).json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert (cached[0], cached[1] % 128, 1_024 <= cached[1] < 1_536, cached[2]) == (0, 0, True, 0)


BAD = "invalid_request_error"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"foo": 1}, (400, BAD, "foo", "unknown_parameter")),
        ({"messages": None}, (400, BAD, "messages", "invalid_type")),
        ({"messages": []}, (400, BAD, "messages", "empty_array")),
        ({"messages": [{"content": "x"}]}, (400, BAD, "messages[0].role", "missing_required_parameter")),
        ({"messages": [{"role": "usr", "content": "x"}]}, (400, BAD, "messages[0].role", "invalid_value")),
        ({"messages": [{**HI, "cache_control": {}}]}, (400, BAD, "messages[0].cache_control", "unknown_parameter")),
        (
            {"messages": [{"role": "user", "content": [{"type": "thinking"}]}]},
            (400, BAD, "messages[0].content[0].type", "invalid_value"),
        ),
        ({"messages": [HI, {"role": "assistant"}]}, (400, BAD, "messages.[1].content", None)),
        (
            {"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "x"}]},
            (400, BAD, "messages.[0].role", None),
        ),
        ({"temperature": 2.5}, (400, BAD, "temperature", "decimal_above_max_value")),
        ({"temperature": "hot"}, (400, BAD, "temperature", "invalid_type")),
        ({"n": 0}, (400, BAD, "n", "integer_below_min_value")),
        ({"stop": ["a", "b", "c", "d", "e"]}, (400, BAD, "stop", "array_above_max_length")),
        ({"stream_options": {"include_usage": True}}, (400, BAD, "stream_options", None)),
        ({"tool_choice": "auto"}, (400, BAD, "tool_choice", None)),
        ({"top_logprobs": 1}, (400, BAD, "top_logprobs", None)),
        ({"response_format": {"type": "json_object"}}, (400, BAD, "messages", None)),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "schema": {"type": "object", "properties": {}}},
                }
            },
            (400, BAD, "response_format", None),
        ),
        (
            {"tools": [{"type": "function", "function": {**WEATHER, "strict": True}}]},
            (400, BAD, "tools[0].function.parameters", "invalid_function_parameters"),
        ),
        ({"metadata": {"a": 1}}, (400, BAD, "metadata.a", "invalid_type")),
        ({"metadata": {str(n): "x" for n in range(17)}}, (400, BAD, "metadata", "object_above_max_properties")),
        ({"stop": 7}, (400, BAD, "stop", "invalid_type")),
        ({"n": 1.5}, (400, BAD, "n", "invalid_type")),
        ({"stream": "yes"}, (400, BAD, "stream", "invalid_type")),
        ({"stream_options": 1, "stream": True}, (400, BAD, "stream_options", "invalid_type")),
        ({"messages": [{"role": "user", "content": None}]}, (400, BAD, "messages[0].content", "invalid_type")),
        ({"messages": [{"role": "user", "content": []}]}, (400, BAD, "messages[0].content", "empty_array")),
        ({"messages": [7]}, (400, BAD, "messages[0]", "invalid_type")),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            (400, BAD, "messages[0].content[0].image_url.url", "missing_required_parameter"),
        ),
        (
            {"messages": [HI, {"role": "assistant", "tool_calls": []}]},
            (400, BAD, "messages[1].tool_calls", "empty_array"),
        ),
        ({"tools": []}, (400, BAD, "tools", "empty_array")),
        ({"tools": [{"type": "function"}]}, (400, BAD, "tools[0].function", "missing_required_parameter")),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            (400, BAD, "tools[0].function.name", "invalid_value"),
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            (400, BAD, "tool_choice", None),
        ),
        ({"parallel_tool_calls": False}, (400, BAD, "parallel_tool_calls", None)),
        ({"max_tokens": 5, "max_completion_tokens": 5}, (400, BAD, "max_tokens", None)),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": []}}}},
            (400, BAD, "response_format", None),
        ),
        ({"model": "gpt-x"}, (404, BAD, None, "model_not_found")),
        ({"model": "text-embedding-3-small"}, (404, BAD, None, "model_not_found")),
        ({"model": "gpt-5", "max_tokens": 10}, (400, BAD, "max_tokens", "unsupported_parameter")),
    ],
    ids=lambda value: str(value)[:150] if isinstance(value, dict) else str(value[3]),
)
def test_chat_refuses_what_openai_refuses(serve: Serve, change: Json, expected: object) -> None:
    server, client = serve()
    assert refusal(client.post(CHAT, json={**HELLO, **change})) == expected
    assert server.requests[0].completion_tokens == 0


def test_a_missing_result_is_named(serve: Serve) -> None:
    _, client = serve()
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    reply = client.post(CHAT, json={**HELLO, "messages": [HI, {"role": "assistant", "tool_calls": [call]}, HI]})
    assert refusal(reply) == (400, BAD, "messages.[2].role", None)
    assert reply.json()["error"]["message"].endswith("did not have response messages: call_1")


def test_a_conversation_may_not_end_with_calls_alone(serve: Serve) -> None:
    _, client = serve()
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    reply = client.post(CHAT, json={**HELLO, "messages": [HI, {"role": "assistant", "tool_calls": [call]}]})
    assert refusal(reply) == (400, BAD, "messages.[2].role", None)


def test_a_strict_schema_requires_all_that_it_names_in_its_branches_too(serve: Serve) -> None:
    _, client = serve()
    inner = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False, "required": []}
    schema = {**SCHEMA, "properties": {"n": {"anyOf": [{"type": "null"}, inner]}}}
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    message = client.post(CHAT, json={**HELLO, "response_format": form}).json()["error"]["message"]
    assert message == (
        "Invalid schema for response_format 'n': In context=('properties', 'n', 'anyOf', '1'), 'required' is required to "
        "be supplied and to be an array including every key in properties. Missing 'a'."
    )


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_refusals_of_the_model_have_places_of_their_own(serve: Serve, stream: bool) -> None:
    _, client = serve(answer=lambda _: {"refusal": "I cannot do that."})
    chat = client.post(CHAT, json={**HELLO, "stream": stream})
    response = client.post(RESPONSES, json={**ASK, "stream": stream})
    if stream:
        said = "".join(chunk["choices"][0]["delta"].get("refusal") or "" for _, chunk in frames(chat.text))
        events = frames(response.text)
        names = {name for name, _ in events}
        assert {"response.refusal.delta", "response.refusal.done"} < names
        whole = events[-1][1]["response"]
    else:
        said, whole = chat.json()["choices"][0]["message"]["refusal"], response.json()
    assert said == "I cannot do that."
    assert whole["output"][0]["content"] == [{"type": "refusal", "refusal": "I cannot do that."}]


def test_a_prompt_beyond_the_context_is_refused(serve: Serve) -> None:
    _, client = serve(models=[SimulatedModel("small", context=20)])
    reply = client.post(CHAT, json={**HELLO, "model": "small", "messages": [{"role": "user", "content": "x" * 200}]})
    assert refusal(reply) == (400, BAD, "messages", "context_length_exceeded")


# -- keys, limits and faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({}, None),
        ({"authorization": "Basic x"}, None),
        ({"authorization": "Bearer sk-wrong-0123456789abcdef"}, "invalid_api_key"),
    ],
    ids=["none", "scheme", "unknown"],
)
def test_a_request_without_a_known_key_is_refused(header: dict[str, str], code: str | None) -> None:
    with SimulatedOpenAI() as server:
        reply = httpx.get(f"{server.base_url}/v1/models", headers=header)
        assert refusal(reply) == (401, BAD, None, code)
        assert "0123456789" not in reply.text
        assert server.requests[0].key_id is None


def test_a_used_up_limit_says_when_to_come_again(serve: Serve) -> None:
    clock = FakeClock()
    _, client = serve(clock=clock, key={"requests_per_minute": 2})
    assert [client.post(CHAT, json=HELLO).status_code for _ in range(2)] == [200, 200]
    reply = client.post(CHAT, json=HELLO)
    assert refusal(reply) == (429, "requests", None, "rate_limit_exceeded")
    assert "Please try again in 30s." in reply.json()["error"]["message"]
    assert (reply.headers["x-ratelimit-remaining-requests"], reply.headers["x-ratelimit-reset-requests"]) == (
        "0",
        "1m0s",
    )
    clock.advance(30)
    assert client.post(CHAT, json=HELLO).status_code == 200


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("status"), (503, "server_error", None, None)),
        (Fault("status", status=500), (500, "server_error", None, None)),
        (Fault("status", status=429), (429, "requests", None, "rate_limit_exceeded")),
        (
            Fault("status", status=429, code="insufficient_quota"),
            (429, "insufficient_quota", None, "insufficient_quota"),
        ),
        (Fault("status", status=400, code="context_length_exceeded"), (400, BAD, None, "context_length_exceeded")),
        (Fault("status", status=401), (401, BAD, None, "invalid_api_key")),
    ],
    ids=["503", "500", "429", "quota", "context", "401"],
)
def test_faults_speak_openais_errors(serve: Serve, fault: Fault, expected: object) -> None:
    _, client = serve(fault)
    assert refusal(client.post(CHAT, json=HELLO)) == expected


def test_an_error_inside_a_stream_has_the_shape_of_the_stream(serve: Serve) -> None:
    _, client = serve(Fault("error_event", after=1, message="Gone."))
    chat = frames(client.post(CHAT, json={**HELLO, "stream": True}).text)
    assert chat[-1] == (None, {"error": {"message": "Gone.", "type": "server_error", "param": None, "code": None}})
    name, event = frames(client.post(RESPONSES, json={**ASK, "stream": True}).text)[-1]
    assert (name, event["type"], event["message"], event["code"]) == ("error", "error", "Gone.", "server_error")


def test_a_stream_may_lack_its_done_and_a_truncated_one_its_reason(serve: Serve) -> None:
    _, client = serve(Fault("no_done", last=1), Fault("truncate", after=99))
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    whole = client.post(CHAT, json=body).text
    assert ("[DONE]" in whole, '"total_tokens"' in whole) == (False, True)
    cut = client.post(CHAT, json=body).text
    assert ('"finish_reason":"stop"' in cut, '"total_tokens"' in cut) == (False, False)


@pytest.mark.parametrize("path", [CHAT, RESPONSES], ids=["chat", "responses"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_usage_may_be_nonsense(serve: Serve, path: str, stream: bool) -> None:
    _, client = serve(Fault("bad_usage"))
    more: Json = {"stream": True} if stream else {}
    if stream and path == CHAT:
        more["stream_options"] = {"include_usage": True}
    text = client.post(path, json={**(HELLO if path == CHAT else ASK), **more}).text
    assert ('"prompt_tokens":-7' if path == CHAT else '"input_tokens":-7') in text


HARMLESS = [
    Fault("crlf"),
    Fault("bom"),
    Fault("split"),
    Fault("gzip"),
    Fault("slow_drip", size=64, pause=0.0),
    Fault("oversized", size=20_000),
    Fault("gzip_bomb", size=20_000),
]


@pytest.mark.parametrize("fault", HARMLESS, ids=lambda fault: fault.kind)
@pytest.mark.parametrize("path", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_faults_of_form_change_the_bytes_and_not_what_is_said(serve: Serve, fault: Fault, path: str) -> None:
    _, client = serve(fault, answer="Smörgås over the bridge")
    asked = HELLO if path == CHAT else ASK
    body = client.post(path, json={**asked, "stream": True}).content.decode("utf-8-sig").replace("\r\n", "\n")
    lines = [line.removeprefix("data: ") for line in body.split("\n") if line.startswith("data: ")]
    data = [json.loads(line) for line in lines if line != "[DONE]"]
    if path == CHAT:
        said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in data)
    else:
        said = "".join(event["delta"] for event in data if event["type"] == "response.output_text.delta")
    assert said == "Smörgås over the bridge"


@pytest.mark.parametrize("kind", ["reset", "close", "half_head", "half_body", "garbage"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_faults_of_the_connection_cut_it(serve: Serve, kind: str, stream: bool) -> None:
    server, client = serve(Fault(kind, after=2 if stream and kind != "garbage" else None))  # type: ignore[arg-type]
    with pytest.raises(httpx.TransportError):
        client.post(CHAT, json={**HELLO, "stream": stream})
    assert server.wait_idle()
    assert server.counters["a"].faults == {kind: 1}


def test_a_failing_law_is_a_500_and_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    _, client = serve(answer=lambda body: body["nothing"])
    assert refusal(client.post(CHAT, json=HELLO)) == (500, "server_error", None, None)
    assert "KeyError" in caplog.text


def test_equal_seeds_give_equal_answers(serve: Serve) -> None:
    texts = [serve(seed=seed)[1].post(CHAT, json={**HELLO, "stream": True}).text for seed in (1, 1, 2)]
    without_time = [re.sub(r'"created":\d+', "", text) for text in texts]
    assert without_time[0] == without_time[1] != without_time[2]


def test_the_journal_counts_as_the_usage_does(serve: Serve) -> None:
    server, client = serve(keep_bodies=True)
    usage = client.post(CHAT, json=HELLO).json()["usage"]
    (record,) = server.requests
    assert (record.key_id, record.model, record.status, record.stream) == ("a", "gpt-4o-mini", 200, False)
    assert (record.prompt_tokens, record.completion_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert json.loads(record.body or b"") == HELLO


# -- responses -----------------------------------------------------------------------------------------------------


def test_a_response_has_openais_shape(serve: Serve) -> None:
    _, client = serve(answer="Heimdall.", clock=FakeClock(wall=1_780_000_000))
    body = client.post(RESPONSES, json={**ASK, "metadata": {"a": "b"}}).json()
    assert re.fullmatch(r"resp_[0-9a-f]{48}", body["id"])
    (item,) = body["output"]
    assert re.fullmatch(r"msg_[0-9a-f]{48}", item.pop("id"))
    assert item == {
        "type": "message",
        "status": "completed",
        "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Heimdall."}],
        "role": "assistant",
    }
    assert body["usage"]["output_tokens"] == 2
    expected = {
        "object": "response",
        "created_at": 1_780_000_000,
        "status": "completed",
        "model": "gpt-4o-mini-2024-07-18",
        "metadata": {"a": "b"},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "service_tier": "default",
        "store": True,
    }
    assert {name: body[name] for name in expected} == expected


def test_the_events_of_a_response_come_in_order_and_build_it_up(serve: Serve) -> None:
    _, client = serve(answer="Over the rainbow bridge.")
    events = frames(client.post(RESPONSES, json={**ASK, "stream": True}).text)
    names = [name for name, _ in events]
    deltas = names.count("response.output_text.delta")
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    data = [event for _, event in events]
    assert [event["type"] for event in data] == names
    assert [event["sequence_number"] for event in data] == list(range(len(data)))
    assert data[0]["response"]["status"] == data[1]["response"]["status"] == "in_progress"
    assert (
        "".join(event["delta"] for event in data if event["type"].endswith("text.delta")) == "Over the rainbow bridge."
    )
    assert data[-1]["response"]["output"] == [data[-2]["item"]]
    assert data[-2]["item"]["content"] == [data[-3]["part"]]


def test_a_call_and_a_summary_of_reasoning_are_streamed_piece_by_piece(serve: Serve) -> None:
    _, client = serve(
        answer=lambda _: {"thinking": "Look it up.", "tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}
    )
    body = {
        "model": "gpt-5",
        "input": "x",
        "reasoning": {"summary": "auto"},
        "tools": [{"type": "function", **WEATHER}],
    }
    events = [event for _, event in frames(client.post(RESPONSES, json={**body, "stream": True}).text)]
    kinds = list(dict.fromkeys(event["type"].removeprefix("response.") for event in events))
    assert kinds == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "completed",
    ]
    arguments = "".join(event["delta"] for event in events if event["type"].endswith("arguments.delta"))
    reasoning, call = events[-1]["response"]["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Look it up."}]
    assert (call["name"], call["arguments"], arguments) == ("weather", '{"city":"Oslo"}', '{"city":"Oslo"}')
    assert events[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] == 3


def test_a_cut_response_is_incomplete(serve: Serve) -> None:
    _, client = serve(answer="word " * 40)
    body = {**ASK, "max_output_tokens": 16}
    plain = client.post(RESPONSES, json=body).json()
    assert (plain["status"], plain["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert frames(client.post(RESPONSES, json={**body, "stream": True}).text)[-1][0] == "response.incomplete"


def test_a_response_follows_another_and_answers_its_calls(serve: Serve) -> None:
    _, client = serve()
    tools = [{"type": "function", **WEATHER}]
    first = client.post(RESPONSES, json={**ASK, "tools": tools, "tool_choice": "required"}).json()
    call_id = first["output"][0]["call_id"]
    result = [{"type": "function_call_output", "call_id": call_id, "output": "rain"}]
    second = client.post(RESPONSES, json={**ASK, "input": result, "previous_response_id": first["id"]})
    assert second.json()["previous_response_id"] == first["id"]
    unanswered = client.post(RESPONSES, json={**ASK, "previous_response_id": first["id"]})
    assert unanswered.json()["error"]["message"] == f"No tool output found for function call {call_id}."
    assert refusal(client.post(RESPONSES, json={**ASK, "input": result})) == (400, BAD, "input", None)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"messages": []}, (400, BAD, "messages", "unknown_parameter")),
        ({"input": 7}, (400, BAD, "input", "invalid_type")),
        (
            {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            (400, BAD, "input[0].content[0].type", "invalid_value"),
        ),
        ({"max_output_tokens": 1}, (400, BAD, "max_output_tokens", "integer_below_min_value")),
        ({"previous_response_id": "resp_0"}, (400, BAD, "previous_response_id", "previous_response_not_found")),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "strict": True, "schema": {"type": "array"}}}},
            (400, BAD, "text.format.schema", "invalid_json_schema"),
        ),
        (
            {"previous_response_id": "resp_0", "conversation": "conv_0"},
            (400, BAD, "conversation", "mutually_exclusive_parameters"),
        ),
        ({"text": {"format": {"type": "json_object"}}}, (400, BAD, "input", None)),
        (
            {"tools": [{"type": "function", **WEATHER, "strict": True}]},
            (400, BAD, "tools[0].parameters", "invalid_function_parameters"),
        ),
        (
            {"tools": [{"type": "web_search"}], "tool_choice": {"type": "function", "name": "x"}},
            (400, BAD, "tool_choice", None),
        ),
        (
            {"input": ["x"]},
            (400, BAD, "input[0]", "invalid_type"),
        ),
    ],
    ids=["unknown", "type", "part", "least", "previous", "schema", "both", "json", "tool", "choice", "call"],
)
def test_responses_refuse_what_openai_refuses(serve: Serve, change: Json, expected: object) -> None:
    _, client = serve()
    assert refusal(client.post(RESPONSES, json={**ASK, **change})) == expected


def test_items_of_earlier_responses_go_in_again_and_reasoning_may_come_encrypted(serve: Serve) -> None:
    _, client = serve()
    tools = [{"type": "function", **WEATHER}, {"type": "web_search"}]
    body = {"model": "gpt-5", "input": [HI], "tools": tools, "tool_choice": {"type": "function", "name": "weather"}}
    body["include"] = ["reasoning.encrypted_content"]
    first = client.post(RESPONSES, json={**body, "store": False}).json()
    reasoning, call = first["output"]
    assert (reasoning["summary"], bool(reasoning["encrypted_content"])) == ([], True)
    assert first["tools"] == [
        {"description": None, "strict": True, "type": "function", **WEATHER},
        {"type": "web_search"},
    ]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"}
    again = {**body, "input": [HI, reasoning, call, result], "tool_choice": "auto"}
    assert client.post(RESPONSES, json=again).json()["status"] == "completed"
    forgotten = {**ASK, "previous_response_id": first["id"]}
    assert refusal(client.post(RESPONSES, json=forgotten))[3] == "previous_response_not_found"


def test_the_text_of_a_response_fits_its_format(serve: Serve) -> None:
    _, client = serve()
    form = {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}
    body = client.post(RESPONSES, json={**ASK, "text": {"format": form}}).json()
    assert json.loads(body["output"][0]["content"][0]["text"]) == {"n": 3}
    assert body["text"]["format"] == form


# -- embeddings, moderations, sound, models ------------------------------------------------------------------------


def test_embeddings_are_the_same_numbers_in_both_formats(serve: Serve) -> None:
    _, client = serve()
    body = {"model": "text-embedding-3-small", "input": ["one", "two", "one"], "dimensions": 16}
    floats = client.post("/v1/embeddings", json=body).json()
    packed = client.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    vectors = [entry["embedding"] for entry in floats["data"]]
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(value * value for value in vectors[0]) == pytest.approx(1)
    assert [array.array("f", base64.b64decode(entry["embedding"])).tolist() for entry in packed["data"]] == vectors
    assert (floats["object"], floats["model"], floats["usage"]) == (
        "list",
        "text-embedding-3-small",
        {"prompt_tokens": 3, "total_tokens": 3},
    )


@pytest.mark.parametrize(
    ("model", "size"),
    [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072), ("text-embedding-ada-002", 1536)],
    ids=["small", "large", "ada"],
)
def test_embeddings_of_tokens_have_the_models_length(serve: Serve, model: str, size: int) -> None:
    _, client = serve()
    body = client.post("/v1/embeddings", json={"model": model, "input": [[1, 2, 3], [4]]}).json()
    assert ([len(entry["embedding"]) for entry in body["data"]], body["usage"]["prompt_tokens"]) == ([size, size], 4)


@pytest.mark.parametrize("given", ["", [], [""], [1, "a"], {"a": 1}], ids=["text", "list", "item", "mixed", "object"])
def test_embeddings_refuse_inputs_that_are_none(serve: Serve, given: object) -> None:
    _, client = serve()
    assert refusal(client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": given}))[:2] == (
        400,
        BAD,
    )


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        ("text-embedding-ada-002", {"dimensions": 8}, "does not support specifying dimensions"),
        ("text-embedding-3-small", {"dimensions": 2_000}, "Must be less than or equal to 1536"),
        ("text-embedding-3-small", {"input": list(range(9_000))}, "maximum context length is 8192 tokens"),
        ("text-embedding-3-small", {"input": ["x"] * 2_049}, "array too long"),
    ],
    ids=["ada", "dimensions", "context", "inputs"],
)
def test_embeddings_refuse_what_their_model_cannot_do(serve: Serve, model: str, change: Json, words: str) -> None:
    _, client = serve()
    reply = client.post("/v1/embeddings", json={"model": model, "input": "x", **change})
    assert (reply.status_code, words in reply.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize("given", [7, [], [7]], ids=["number", "empty", "item"])
def test_moderation_refuses_inputs_that_are_none(serve: Serve, given: object) -> None:
    _, client = serve()
    assert refusal(client.post("/v1/moderations", json={"input": given}))[3] == "invalid_type"


def test_moderation_flags_by_the_words_of_its_categories(serve: Serve) -> None:
    _, client = serve()
    body = client.post("/v1/moderations", json={"input": ["graphic violence", "a nice day"]}).json()
    bad, good = body["results"]
    assert body["model"] == "omni-moderation-2024-09-26"
    assert [name for name, is_flagged in bad["categories"].items() if is_flagged] == ["violence", "violence/graphic"]
    assert (bad["flagged"], good["flagged"], set(bad["category_scores"]) == set(good["categories"])) == (
        True,
        False,
        True,
    )


def test_moderation_of_parts_has_one_result_that_says_what_was_looked_at(serve: Serve) -> None:
    _, client = serve()
    parts = [{"type": "text", "text": "hate"}, {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    (result,) = client.post("/v1/moderations", json={"input": parts}).json()["results"]
    kinds = result["category_applied_input_types"]
    assert (result["flagged"], kinds["violence"], kinds["hate"]) == (True, ["text", "image"], ["text"])


def sound(seconds: int) -> bytes:
    """A WAVE file of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8_000)
        out.writeframes(bytes(16_000 * seconds))
    return file.getvalue()


def test_a_transcript_comes_as_json_with_its_usage(serve: Serve) -> None:
    server, client = serve(
        transcript=lambda parts: f"{parts['file'].filename} in {parts['language']}", keep_bodies=True
    )
    form = {"model": "gpt-4o-transcribe", "language": "en"}
    reply = client.post("/v1/audio/transcriptions", data=form, files={"file": ("a.wav", sound(4), "audio/wav")})
    assert reply.json() == {
        "text": "a.wav in en",
        "usage": {
            "type": "tokens",
            "input_tokens": 40,
            "input_token_details": {"text_tokens": 0, "audio_tokens": 40},
            "output_tokens": 3,
            "total_tokens": 43,
        },
    }
    (record,) = server.requests
    assert (record.audio_seconds, [part.name for part in record.parts]) == (4, ["model", "language", "file"])


def test_a_transcript_may_be_streamed_but_not_by_whisper(serve: Serve) -> None:
    _, client = serve(transcript=lambda _: "one two")
    files = {"file": ("a.wav", sound(1), "audio/wav")}
    streamed = client.post(
        "/v1/audio/transcriptions", data={"model": "gpt-4o-transcribe", "stream": "true"}, files=files
    )
    events = [event for _, event in frames(streamed.text)]
    assert [(event["type"], event.get("delta"), event.get("text")) for event in events] == [
        ("transcript.text.delta", "one", None),
        ("transcript.text.delta", " two", None),
        ("transcript.text.done", None, "one two"),
    ]
    plain = client.post("/v1/audio/transcriptions", data={"model": "whisper-1", "stream": "true"}, files=files)
    assert plain.json() == {"text": "one two", "usage": {"type": "duration", "seconds": 1}}


@pytest.mark.parametrize(
    ("form", "start"),
    [
        ("text", "one two three\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,000\none two three\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\none two three\n"),
    ],
)
def test_whisper_writes_text_and_subtitles(serve: Serve, form: str, start: str) -> None:
    _, client = serve(transcript=lambda _: "one two three")
    files = {"file": ("a.wav", sound(2), "audio/wav")}
    reply = client.post("/v1/audio/transcriptions", data={"model": "whisper-1", "response_format": form}, files=files)
    assert reply.text.startswith(start)


def test_whisper_tells_words_and_segments(serve: Serve) -> None:
    _, client = serve(transcript=lambda _: "one two")
    form = {"model": "whisper-1", "response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    body = client.post("/v1/audio/transcriptions", data=form, files={"file": ("a.wav", sound(2), "audio/wav")}).json()
    assert (body["task"], body["duration"], body["text"]) == ("transcribe", 2.0, "one two")
    assert body["words"] == [{"word": "one", "start": 0.0, "end": 1.0}, {"word": "two", "start": 1.0, "end": 2.0}]
    assert [(each["start"], each["end"], each["text"]) for each in body["segments"]] == [(0.0, 2.0, "one two")]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"model": "gpt-4o-transcribe", "response_format": "srt"}, (400, BAD, "response_format", "unsupported_value")),
        ({"model": "gpt-4o-transcribe", "foo": "1"}, (400, BAD, "foo", "unknown_parameter")),
        ({"model": "gpt-4o"}, (404, BAD, None, "model_not_found")),
        ({"model": "whisper-1", "temperature": "2"}, (400, BAD, "temperature", "decimal_above_max_value")),
        ({"model": "whisper-1", "temperature": "hot"}, (400, BAD, "temperature", "invalid_type")),
        (
            {"model": "whisper-1", "timestamp_granularities[]": "word"},
            (400, BAD, "timestamp_granularities", "invalid_value"),
        ),
        ({}, (400, BAD, "model", "missing_required_parameter")),
    ],
    ids=["format", "unknown", "model", "range", "number", "granularities", "missing"],
)
def test_transcription_refuses(serve: Serve, form: dict[str, str], expected: object) -> None:
    _, client = serve()
    files = {"file": ("a.wav", sound(1), "audio/wav")}
    assert refusal(client.post("/v1/audio/transcriptions", data=form, files=files)) == expected


def test_a_transcription_needs_a_file_with_something_in_it(serve: Serve) -> None:
    _, client = serve()
    form = {"model": "whisper-1"}
    empty = client.post("/v1/audio/transcriptions", data=form, files={"file": ("a.wav", b"")})
    assert refusal(empty) == (400, BAD, "file", "invalid_value")
    no_file = client.post("/v1/audio/transcriptions", files={"model": (None, "whisper-1"), "file": (None, "text")})
    assert refusal(no_file) == (400, BAD, "file", "invalid_type")
    assert refusal(client.post("/v1/audio/transcriptions", content=b"{}")) == (400, BAD, None, None)


def test_a_transcript_tells_how_likely_its_tokens_were(serve: Serve) -> None:
    _, client = serve(transcript=lambda _: "one two")
    form = {"model": "gpt-4o-transcribe", "include[]": "logprobs"}
    body = client.post("/v1/audio/transcriptions", data=form, files={"file": ("a.wav", sound(1))}).json()
    assert [(set(entry), entry["token"]) for entry in body["logprobs"]] == [
        ({"token", "logprob", "bytes"}, "one"),
        ({"token", "logprob", "bytes"}, " two"),
    ]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"response_format": "opus"}, "response_format"),
        ({"model": "tts-1", "stream_format": "sse"}, "stream_format"),
        ({"input": "x" * 4_097}, "input"),
        ({"voice": 7}, "voice"),
    ],
    ids=["format", "events", "length", "voice"],
)
def test_speech_refuses(serve: Serve, change: Json, param: str) -> None:
    _, client = serve()
    body = {"model": "gpt-4o-mini-tts", "input": "Hello", "voice": "alloy", **change}
    assert refusal(client.post("/v1/audio/speech", json=body))[:3] == (400, BAD, param)


def test_speech_is_silence_in_the_format_asked_for(serve: Serve) -> None:
    server, client = serve()
    body = {"model": "gpt-4o-mini-tts", "input": "Hello there", "voice": "alloy"}
    reply = client.post("/v1/audio/speech", json={**body, "response_format": "wav"})
    with wave.open(io.BytesIO(reply.content)) as file:
        assert (file.getframerate(), file.getnframes()) == (24_000, int(11 * 0.06 * 24_000))
    assert (reply.headers["content-type"], server.requests[0].characters) == ("audio/wav", 11)
    events = [
        event
        for _, event in frames(
            client.post("/v1/audio/speech", json={**body, "response_format": "pcm", "stream_format": "sse"}).text
        )
    ]
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == bytes(2 * int(11 * 0.06 * 24_000))
    assert events[-1]["type"] == "speech.audio.done"
    assert refusal(client.post("/v1/audio/speech", json={**body, "voice": None})) == (400, BAD, "voice", "invalid_type")


def test_models_are_listed_and_found_by_all_their_names(serve: Serve) -> None:
    _, client = serve(models=[SimulatedModel("gpt-4o-2024-08-06", ["gpt-4o"]), "my-embedder"])
    listed = client.get("/v1/models").json()
    assert (listed["object"], [entry["id"] for entry in listed["data"]]) == (
        "list",
        ["gpt-4o-2024-08-06", "gpt-4o", "my-embedder"],
    )
    assert client.get("/v1/models/gpt-4o").json()["object"] == "model"
    assert refusal(client.get("/v1/models/gpt-9")) == (404, BAD, None, "model_not_found")
    assert client.post("/v1/embeddings", json={"model": "my-embedder", "input": "x"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/engines", b"{}", 404),
        ("POST", CHAT, b"{", 400),
        ("POST", CHAT, b"[]", 400),
        ("PUT", CHAT, b"", 404),
    ],
    ids=["path", "json", "object", "method"],
)
def test_what_is_no_request_is_refused(serve: Serve, method: str, path: str, content: bytes, status: int) -> None:
    _, client = serve()
    assert refusal(client.request(method, path, content=content)) == (status, BAD, None, None)


def test_a_body_that_is_too_large_is_refused(serve: Serve) -> None:
    _, client = serve(max_body=100)
    assert refusal(client.post(CHAT, content=b"x" * 101)) == (413, BAD, None, None)


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_line_serves_until_it_is_told_to_stop() -> None:
    command = [sys.executable, "-m", "bifrost_core.testing.openai", "--seed", "7", "--key", "sk-cli"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url, key = process.stdout.readline().strip(), process.stdout.readline().strip()
            reply = httpx.post(base_url + CHAT, json=HELLO, headers={"authorization": "Bearer sk-cli"})
            assert (key, reply.status_code, reply.json()["object"]) == ("key sk-cli", 200, "chat.completion")
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
        finally:
            process.kill()


def test_the_command_line_names_its_own_module(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "python -m bifrost_core.testing.openai" in capsys.readouterr().out
