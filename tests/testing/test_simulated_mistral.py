"""The simulated Mistral service, seen by a plain HTTP client."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import anyio
import httpx
import pytest

from bifrost_core.testing import FakeClock, Fault, Latency, SimulatedKey, SimulatedMistral, SimulatedModel
from bifrost_core.testing.mistral.__main__ import main

Json: TypeAlias = dict[str, Any]
CHAT = "/v1/chat/completions"
SECRET = "sk-test-0123456789"
HELLO: Json = {"model": "mistral-small-latest", "messages": [{"role": "user", "content": "Hello"}]}
STREAM: Json = {**HELLO, "stream": True}


Serve: TypeAlias = Callable[..., tuple[SimulatedMistral, httpx.Client]]


def events(text: str) -> list[Json]:
    """The JSON of a stream's events, whose framing is checked on the way."""
    frames = text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


# -- plain replies -------------------------------------------------------------------------------------------------


def test_a_plain_chat_reply_has_mistrals_shape(serve: Serve) -> None:
    _, client = serve(clock=FakeClock(wall=1_780_000_000), key={"requests_per_minute": 60, "tokens_per_minute": 9_000})
    reply = client.post(CHAT, json=HELLO)
    body = reply.json()
    prompt, completion = body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]
    content = body["choices"][0]["message"]["content"]
    assert reply.status_code == 200
    assert re.fullmatch(r"[0-9a-f]{32}", body.pop("id"))
    assert body == {
        "created": 1_780_000_000,
        "model": "mistral-small-latest",
        "usage": {
            "prompt_tokens": len(reply.request.content) // 4,
            "total_tokens": prompt + completion,
            "completion_tokens": len(content.split()),
            "prompt_tokens_details": {"cached_tokens": 0},
            "service_tier": "standard",
        },
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "tool_calls": None, "content": content},
            }
        ],
    }
    headers = dict(reply.headers)
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", headers["x-kong-request-id"]
    )
    assert headers["mistral-correlation-id"] == headers.pop("x-kong-request-id")
    del headers["mistral-correlation-id"], headers["x-envoy-upstream-service-time"], headers["x-kong-upstream-latency"]
    assert headers == {
        "date": "Thu, 28 May 2026 20:26:40 GMT",
        "content-type": "application/json",
        "x-kong-proxy-latency": "1",
        "x-max-retry-attempts-reached": "false",
        "x-ratelimit-limit-req-minute": "60",
        "x-ratelimit-remaining-req-minute": "59",
        "x-ratelimit-limit-tokens-minute": "9000",
        "x-ratelimit-remaining-tokens-minute": str(9_000 - prompt - completion),
        "x-ratelimit-tokens-query-cost": str(prompt + completion),
        "content-length": str(len(reply.content)),
        "connection": "keep-alive",
    }


def test_max_tokens_cuts_with_reason_length(serve: Serve) -> None:
    _, client = serve()
    body = client.post(CHAT, json={**HELLO, "max_tokens": 3}).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == len(body["choices"][0]["message"]["content"].split()) == 3
    assert client.post(CHAT, json={**HELLO, "max_tokens": 0}).json()["choices"][0]["message"]["content"] == ""


def test_several_choices_differ_and_bill_the_prompt_once(serve: Serve) -> None:
    _, client = serve()
    one, two = client.post(CHAT, json=HELLO).json(), client.post(CHAT, json={**HELLO, "n": 2}).json()
    first, second = (choice["message"]["content"] for choice in two["choices"])
    assert first != second
    assert two["usage"]["completion_tokens"] == len(first.split()) + len(second.split())
    assert two["usage"]["prompt_tokens"] - one["usage"]["prompt_tokens"] == len(',"n":2') // 4 + 1


@pytest.mark.parametrize("stop", ["fox", ["nothing", "fox"]], ids=["text", "list"])
def test_the_text_ends_before_a_stop_word(serve: Serve, stop: object) -> None:
    _, client = serve(answer=lambda _: "a quick brown fox jumps")
    choice = client.post(CHAT, json={**HELLO, "stop": stop}).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("a quick brown ", "stop")


def test_a_prefix_is_repeated_and_not_counted(serve: Serve) -> None:
    _, client = serve()
    messages = [*HELLO["messages"], {"role": "assistant", "content": "Dear friend,", "prefix": True}]
    plain = client.post(CHAT, json={**HELLO, "messages": messages, "max_tokens": 2}).json()
    assert re.fullmatch(r"Dear friend,\w+ \w+", plain["choices"][0]["message"]["content"])
    assert plain["usage"]["completion_tokens"] == 2
    streamed = events(client.post(CHAT, json={**STREAM, "messages": messages}).text)
    assert streamed[1]["choices"][0]["delta"] == {"content": "Dear friend,"}


TOOLS = [
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "minLength": 3},
                    "days": {"type": "integer", "minimum": 1, "maximum": 7},
                    "unit": {"enum": ["C", "F"]},
                    "note": {"type": "string"},
                },
                "required": ["city", "days", "unit"],
            },
        },
    },
]


@pytest.mark.parametrize(
    ("choice", "name"),
    [("any", "now"), ("required", "now"), ({"type": "function", "function": {"name": "weather"}}, "weather")],
    ids=["any", "required", "named"],
)
def test_a_forced_tool_choice_makes_a_call(serve: Serve, choice: object, name: str) -> None:
    _, client = serve()
    wanted = {"tools": TOOLS, "tool_choice": choice}
    body = client.post(CHAT, json={**HELLO, **wanted}).json()
    (call,) = body["choices"][0]["message"]["tool_calls"]
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert body["choices"][0]["message"]["content"] == ""
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", call.pop("id"))
    arguments = json.loads(call["function"].pop("arguments"))
    assert call == {"type": "function", "function": {"name": name}, "index": 0}
    assert set(arguments) == ({"city", "days", "unit"} if name == "weather" else set())
    assert name == "now" or (len(arguments["city"]) >= 3 and arguments["days"] == 1 and arguments["unit"] == "C")
    last = events(client.post(CHAT, json={**STREAM, **wanted}).text)[-1]
    (whole,) = last["choices"][0]["delta"]["tool_calls"]
    assert (whole["function"]["name"], last["choices"][0]["finish_reason"]) == (name, "tool_calls")


@pytest.mark.parametrize("choice", ["auto", "none", None], ids=str)
def test_tools_that_are_not_forced_are_answered_with_words(serve: Serve, choice: object) -> None:
    _, client = serve()
    message = client.post(CHAT, json={**HELLO, "tools": TOOLS, "tool_choice": choice}).json()["choices"][0]["message"]
    assert message["tool_calls"] is None
    assert message["content"]


def test_max_tokens_cuts_a_tool_call_too(serve: Serve) -> None:
    _, client = serve()
    wanted = {"tools": TOOLS[1:], "tool_choice": "any", "max_tokens": 6}
    body = client.post(CHAT, json={**HELLO, **wanted}).json()
    assert (body["choices"][0]["finish_reason"], body["usage"]["completion_tokens"]) == ("length", 6)
    with pytest.raises(json.JSONDecodeError):
        json.loads(body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])


SCHEMA = {
    "type": "object",
    "$defs": {"size": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}},
    "properties": {
        "size": {"$ref": "#/$defs/size"},
        "low": {"type": "integer", "maximum": -5, "multipleOf": 2},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
        "kind": {"const": "x"},
        "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "both": {"allOf": [{"properties": {"a": {"type": ["integer", "null"]}}, "required": ["a"]}]},
        "unused": {"type": "string"},
    },
    "required": ["size", "low", "tags", "kind", "maybe", "both"],
}


def test_a_json_schema_is_satisfied_with_the_least(serve: Serve) -> None:
    _, client = serve()
    wanted = {"response_format": {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}}
    text = client.post(CHAT, json={**HELLO, **wanted}).json()["choices"][0]["message"]["content"]
    assert json.loads(text) == {
        "size": 0.5, "low": -6, "tags": [True, True], "kind": "x", "maybe": None, "both": {"a": 0}
    }  # fmt: skip
    chunks = events(client.post(CHAT, json={**STREAM, **wanted}).text)
    streamed = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert json.loads(streamed) == json.loads(text)


def test_a_json_object_is_one(serve: Serve) -> None:
    _, client = serve()
    reply = client.post(CHAT, json={**HELLO, "response_format": {"type": "json_object"}})
    assert list(json.loads(reply.json()["choices"][0]["message"]["content"])) == ["answer"]


@pytest.mark.parametrize(
    "wanted", [{"model": "magistral-small-latest"}, {"reasoning_effort": "high"}], ids=["model", "effort"]
)
def test_reasoning_comes_as_chunks_before_the_text(serve: Serve, wanted: Json) -> None:
    _, client = serve()
    content = client.post(CHAT, json={**HELLO, **wanted}).json()["choices"][0]["message"]["content"]
    assert [part["type"] for part in content] == ["thinking", "text"]
    assert [part["type"] for part in content[0]["thinking"]] == ["text"]
    assert content[0]["closed"] is True
    chunks = events(client.post(CHAT, json={**STREAM, **wanted}).text)
    kinds = [type(chunk["choices"][0]["delta"]["content"]) for chunk in chunks]
    thoughts = kinds.count(list)
    assert thoughts > 1
    assert kinds == [str, *[list] * thoughts, *[str] * (len(kinds) - 1 - thoughts)]
    thought = "".join(
        chunk["choices"][0]["delta"]["content"][0]["thinking"][0]["text"] for chunk in chunks[1:][:thoughts]
    )
    said = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks[1 + thoughts :])
    assert chunks[-1]["usage"]["completion_tokens"] == len(thought.split()) + len(said.split())


def test_an_answer_function_decides_what_is_said(serve: Serve) -> None:
    seen: list[Json] = []

    def answer(body: Json) -> Json:
        seen.append(body)
        return {
            "content": "Let me look.",
            "thinking": "hm",
            "tool_calls": [
                {"name": "look", "arguments": {"at": 1}},
                {"name": "go", "arguments": "{", "id": "ABCDEFGH1"},
            ],
        }

    _, client = serve(answer=answer)
    choice = client.post(CHAT, json=HELLO).json()["choices"][0]
    assert seen == [HELLO]
    assert choice["finish_reason"] == "tool_calls"
    assert [part["type"] for part in choice["message"]["content"]] == ["thinking", "text"]
    first, second = choice["message"]["tool_calls"]
    assert (first["function"], second["function"]) == (
        {"name": "look", "arguments": '{"at":1}'},
        {"name": "go", "arguments": "{"},
    )
    assert second == {"id": "ABCDEFGH1", "type": "function", "function": second["function"], "index": 1}


def test_words_and_calls_are_streamed_and_cut_together(serve: Serve) -> None:
    said = {"content": "one two", "tool_calls": [{"name": "f", "arguments": {"a": 1}}, {"name": "g"}]}
    _, client = serve(answer=lambda _: said)
    chunks = events(client.post(CHAT, json=STREAM).text)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "one two"
    assert [call["function"]["name"] for call in deltas[-1]["tool_calls"]] == ["f", "g"]
    whole = chunks[-1]["usage"]["completion_tokens"]
    cut = client.post(CHAT, json={**HELLO, "max_tokens": whole - 2}).json()["choices"][0]
    assert (cut["finish_reason"], len(cut["message"]["tool_calls"])) == ("length", 1)
    assert client.post(CHAT, json={**HELLO, "max_tokens": whole}).json()["choices"][0]["finish_reason"] == "tool_calls"


def test_a_failing_answer_function_is_a_500(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    _, client = serve(answer=lambda body: body["no such member"])
    reply = client.post(CHAT, json=HELLO)
    assert (reply.status_code, reply.json()["code"]) == (500, "1000")
    assert "answer function" in caplog.text


# -- streams -------------------------------------------------------------------------------------------------------


def test_a_stream_has_mistrals_frames(serve: Serve) -> None:
    _, client = serve(clock=FakeClock(wall=1_780_000_000), key={"requests_per_minute": 60})
    reply = client.post(CHAT, json=STREAM)
    chunks = events(reply.text)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["transfer-encoding"] == "chunked"
    assert not [name for name in reply.headers if "ratelimit" in name]
    assert chunks[0] == {
        "id": chunks[0]["id"],
        "object": "chat.completion.chunk",
        "created": 1_780_000_000,
        "model": "mistral-small-latest",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
    }
    words = 0
    for at, chunk in enumerate(chunks[1:], 2):
        last = at == len(chunks)
        assert chunk.keys() == chunks[0].keys() | {"p"} | ({"usage"} if last else set())
        assert re.fullmatch(r"[a-z0-9]+", chunk["p"])
        (choice,) = chunk["choices"]
        assert choice["finish_reason"] == ("stop" if last else None)
        words += len(choice["delta"]["content"].split())
    assert chunks[-1]["usage"] == {
        "prompt_tokens": len(reply.request.content) // 4,
        "total_tokens": len(reply.request.content) // 4 + words,
        "completion_tokens": words,
        "prompt_tokens_details": {"cached_tokens": 0},
        "service_tier": "standard",
    }


def test_streamed_choices_take_turns_and_usage_comes_once_at_the_end(serve: Serve) -> None:
    _, client = serve()
    chunks = events(client.post(CHAT, json={**STREAM, "n": 3}).text)
    assert [chunk["choices"][0]["index"] for chunk in chunks[:6]] == [0, 1, 2, 0, 1, 2]
    assert sorted(c["choices"][0]["index"] for c in chunks if c["choices"][0]["finish_reason"]) == [0, 1, 2]
    assert [at for at, chunk in enumerate(chunks) if "usage" in chunk] == [len(chunks) - 1]


def test_every_event_is_a_write_of_its_own_at_its_time(serve: Serve) -> None:
    key = {"latency": Latency(0.05, tokens_per_second=200), "output_tokens": (20, 20)}
    _, client = serve(key=key)
    started = time.monotonic()
    with client.stream("POST", CHAT, json=STREAM) as reply:
        arrivals = [(time.monotonic() - started, piece) for piece in reply.iter_raw() if piece]
    assert 0.05 <= arrivals[0][0] < arrivals[-1][0]
    assert arrivals[-1][0] >= 0.05 + 20 / 200 - 0.002
    assert len(arrivals) > 5
    assert all(piece.startswith(b"data: ") and piece.endswith(b"\n\n") for _, piece in arrivals)


def test_a_plain_reply_takes_the_first_token_and_the_others(serve: Serve) -> None:
    _, client = serve(key={"latency": Latency(0.03, tokens_per_second=500), "output_tokens": (30, 30)})
    assert client.post(CHAT, json=HELLO).elapsed.total_seconds() >= 0.088


# -- other endpoints -----------------------------------------------------------------------------------------------


def test_the_model_list_has_one_entry_per_name(serve: Serve) -> None:
    _, client = serve(models=[SimulatedModel("big-1", ["big"], context=1_000), "tiny"])
    body = client.get("/v1/models").json()
    assert [(each["id"], each["name"], each["aliases"]) for each in body["data"]] == [
        ("big-1", "big-1", ["big"]),
        ("big", "big-1", ["big-1"]),
        ("tiny", "tiny", []),
    ]
    assert body["object"] == "list"
    assert client.get("/v1/models/big").json() == body["data"][1]
    assert client.get("/v1/models/gone").json() == {"message": "Model gone was not found."}
    assert client.get("/v1/models/gone").status_code == 404
    assert client.post(CHAT, json={**HELLO, "model": "tiny"}).status_code == 200


def test_embeddings_are_unit_vectors_that_depend_on_the_text(serve: Serve) -> None:
    _, client = serve(key={"requests_per_minute": 10, "tokens_per_minute": 1_000})
    reply = client.post("/v1/embeddings", json={"model": "mistral-embed", "input": ["one", "two", "one"]})
    body = reply.json()
    vectors = [each["embedding"] for each in body["data"]]
    assert [each["index"] for each in body["data"]] == [0, 1, 2]
    assert vectors[0] == vectors[2] != vectors[1]
    assert [len(vector) for vector in vectors] == [1024] * 3
    assert sum(value * value for value in vectors[0]) == pytest.approx(1, abs=1e-4)
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] == 3
    assert {name: value for name, value in reply.headers.items() if "ratelimit" in name} == {
        "x-ratelimit-limit-req-minute": "10",
        "x-ratelimit-remaining-req-minute": "9",
        "x-ratelimit-tokens-query-cost": "3",
    }


def test_embeddings_come_in_the_form_asked_for(serve: Serve) -> None:
    _, client = serve()
    wanted = {"model": "codestral-embed", "input": "one", "output_dimension": 16}

    def vector(**more: str) -> Any:
        return client.post("/v1/embeddings", json={**wanted, **more}).json()["data"][0]["embedding"]

    floats = vector()
    packed = base64.b64decode(vector(encoding_format="base64"))
    assert list(struct.unpack("<16f", packed)) == pytest.approx(floats)
    assert all(-127 <= value <= 127 and isinstance(value, int) for value in vector(output_dtype="int8"))
    signs = "".join("1" if value >= 0 else "0" for value in floats)
    assert vector(output_dtype="ubinary") == [int(signs[:8], 2), int(signs[8:], 2)]
    assert vector(output_dtype="binary") == [int(signs[:8], 2) - 128, int(signs[8:], 2) - 128]


def test_too_many_inputs_are_refused(serve: Serve) -> None:
    _, client = serve()
    reply = client.post("/v1/embeddings", json={"model": "mistral-embed", "input": ["x"] * 257})
    assert (reply.status_code, reply.json()["code"]) == (400, "3210")
    reply = client.post("/v1/embeddings", json={"model": "mistral-embed", "input": "x", "output_dimension": 1025})
    assert (reply.status_code, reply.json()["code"]) == (400, "3051")


def test_moderations_flag_texts_that_name_a_category(serve: Serve) -> None:
    _, client = serve()
    body = client.post("/v1/moderations", json={"model": "mistral-moderation-2603", "input": ["hi", "some PII"]}).json()
    assert [[name for name, flag in each["categories"].items() if flag] for each in body["results"]] == [[], ["pii"]]
    assert "jailbreaking" in body["results"][0]["category_scores"]
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 61
    old = client.post("/v1/moderations", json={"model": "mistral-moderation-2411", "input": "hi"}).json()
    assert "dangerous_and_criminal_content" in old["results"][0]["categories"]


def test_fim_answers_like_chat(serve: Serve) -> None:
    _, client = serve()
    body = {"model": "codestral-latest", "prompt": "def f():", "suffix": "return x"}
    assert client.post("/v1/fim/completions", json=body).json()["object"] == "chat.completion"
    assert events(client.post("/v1/fim/completions", json={**body, "stream": True}).text)[-1]["usage"]
    assert client.post("/v1/fim/completions", json={**body, "prompt": 5}).status_code == 422


# -- refusals ------------------------------------------------------------------------------------------------------


def error_object(status: int, kind: str, code: str, message: str) -> Json:
    """Shape A."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code, "raw_status_code": status}


def test_keys_are_checked(serve: Serve) -> None:
    server, client = serve()
    bad = client.post(CHAT, json=HELLO, headers={"authorization": "Bearer sk-wrong"})
    assert (bad.status_code, bad.json()) == (401, {"detail": "Invalid API Key"})
    missing = client.post(CHAT, json=HELLO, headers={"authorization": ""})
    assert missing.status_code == 401
    assert missing.json() == {"message": "Unauthorized", "request_id": missing.json()["request_id"]}
    assert "x-kong-response-latency" in missing.headers
    assert [(record.key_id, record.number, record.status) for record in server.requests] == [(None, 0, 401)] * 2


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/completions"), ("GET", CHAT), ("GET", "/")], ids=["path", "method", "root"]
)
def test_unknown_routes_are_the_gateways(serve: Serve, method: str, path: str) -> None:
    _, client = serve()
    reply = client.request(method, path)
    assert reply.status_code == 404
    assert reply.json() == {"message": "no Route matched with those values", "request_id": reply.json()["request_id"]}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_an_unknown_model_is_a_400(serve: Serve, stream: bool) -> None:
    _, client = serve()
    for model in ("nope", "mistral-embed"):
        reply = client.post(CHAT, json={**HELLO, "model": model, "stream": stream})
        assert (reply.status_code, reply.headers["content-type"]) == (400, "application/json")
        assert reply.json() == error_object(400, "invalid_model", "1500", f"Invalid model: {model}")


@pytest.mark.parametrize(
    ("change", "kind", "loc"),
    [
        ({"user": "me"}, "extra_forbidden", ["user"]),
        ({"stream_options": {"include_usage": True}}, "extra_forbidden", ["stream_options"]),
        (
            {"messages": [{"role": "user", "content": "x", "name": "n"}]},
            "extra_forbidden",
            ["messages", 0, "user", "name"],
        ),
        ({"messages": [{"role": "developer", "content": "x"}]}, "union_tag_invalid", ["messages", 0]),
        ({"messages": [{"role": "user"}]}, "missing", ["messages", 0, "user", "content"]),
        ({"messages": [{"role": "user", "content": 5}]}, "string_type", ["messages", 0, "content"]),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "model_attributes_type", ["messages", 0, "content"]),
        ({"messages": [{"role": "system", "content": None}]}, "string_type", ["messages", 0, "content"]),
        ({"messages": ["x"]}, "model_attributes_type", ["messages", 0]),
        ({"messages": "x"}, "list_type", ["messages"]),
        ({"model": 5}, "string_type", ["model"]),
        ({"temperature": 1.6}, "less_than_equal", ["temperature"]),
        ({"temperature": "hot"}, "float_type", ["temperature"]),
        ({"top_p": 0}, "greater_than_equal", ["top_p"]),
        ({"max_tokens": -1}, "greater_than_equal", ["max_tokens"]),
        ({"max_tokens": True}, "int_type", ["max_tokens"]),
        ({"n": 0}, "greater_than_equal", ["n"]),
        ({"stop": 5}, "string_type", ["stop"]),
        ({"stream": "yes"}, "bool_type", ["stream"]),
        ({"tool_choice": "maybe"}, "enum", ["tool_choice"]),
        ({"tool_choice": {"type": "function"}}, "missing", ["tool_choice", "function", "name"]),
        ({"tools": {}}, "list_type", ["tools"]),
        ({"tools": [{"function": {"name": "f"}}]}, "missing", ["tools", 0, "function", "parameters"]),
        ({"reasoning_effort": "utmost"}, "literal_error", ["reasoning_effort"]),
        ({"response_format": {"type": "xml"}}, "literal_error", ["response_format", "type"]),
        ({"response_format": {"type": ["text"]}}, "literal_error", ["response_format", "type"]),
        ({"tools": [{"function": {"name": 5, "parameters": {}}}]}, "string_type", ["tools", 0, "function", "name"]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_bad_members_are_a_422(serve: Serve, change: Json, kind: str, loc: list[object]) -> None:
    _, client = serve()
    reply = client.post(CHAT, json={**HELLO, **change})
    (finding,) = reply.json()["detail"]
    assert (reply.status_code, finding["type"], finding["loc"]) == (422, kind, ["body", *loc])
    assert finding.keys() == {"type", "loc", "msg", "input"}


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"], ids=["cut", "list", "binary"])
def test_a_body_that_is_no_object_is_a_422(serve: Serve, content: bytes) -> None:
    _, client = serve()
    assert client.post(CHAT, content=content).status_code == 422


def test_missing_members_are_a_422(serve: Serve) -> None:
    _, client = serve()
    assert [each["loc"][-1] for each in client.post(CHAT, json={}).json()["detail"]] == ["model", "messages"]
    for path, body in (
        ("/v1/embeddings", {"model": "x", "input": [1]}),
        ("/v1/moderations", {"model": "x", "input": {}}),
    ):
        assert client.post(path, json=body).json()["detail"][0]["loc"] == ["body", "input"]
    reply = client.post(
        "/v1/embeddings", json={"model": "x", "input": "x", "encoding_format": "y", "output_dtype": "z"}
    )
    assert [each["loc"][-1] for each in reply.json()["detail"]] == ["output_dtype", "encoding_format"]


def call(call_id: str = "AbCdEfGh1") -> Json:
    """An assistant message with one tool call."""
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }


USER: Json = {"role": "user", "content": "x"}
RESULT: Json = {"role": "tool", "content": "x", "tool_call_id": "AbCdEfGh1"}
MISMATCH = "Not the same number of function calls and responses"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "Conversation must have at least one message"),
        ([USER, call(), RESULT, USER], "Unexpected role 'user' after role 'tool'"),
        ([USER, RESULT], "Unexpected role 'tool' after role 'user'"),
        ([USER, call(), USER], MISMATCH),
        ([USER, call()], MISMATCH),
        ([USER, call(), RESULT, RESULT], MISMATCH),
        (
            [USER, {"role": "assistant", "content": "x"}],
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
        ),
    ],
    ids=["none", "user-after-tool", "tool-after-user", "unanswered", "cut", "too-many", "assistant-last"],
)
def test_messages_in_a_wrong_order_are_a_400(serve: Serve, messages: list[Json], message: str) -> None:
    _, client = serve()
    reply = client.post(CHAT, json={**HELLO, "messages": messages})
    assert reply.json() == error_object(400, "invalid_request_message_order", "3230", message)


def test_messages_in_a_right_order_are_answered(serve: Serve) -> None:
    _, client = serve()
    messages = [{"role": "system", "content": "x"}, USER, call(), RESULT, {"role": "assistant", "content": "x"}, USER]
    for history in (messages, [USER, call(), RESULT], [USER, call("null"), RESULT]):
        assert client.post(CHAT, json={**HELLO, "messages": history}).status_code == 200


def test_foreign_call_ids_and_logprobs_are_refused(serve: Serve) -> None:
    _, client = serve()
    reply = client.post(CHAT, json={**HELLO, "messages": [USER, call("call_0123456789"), RESULT]})
    assert (reply.status_code, reply.json()["code"]) == (400, "3280")
    reply = client.post(CHAT, json={**HELLO, "logprobs": True})
    assert (reply.status_code, reply.json()["code"]) == (400, "3051")


# -- limits --------------------------------------------------------------------------------------------------------


def test_the_request_limit_refuses_and_comes_back_evenly(serve: Serve) -> None:
    clock = FakeClock()
    _, client = serve(clock=clock, key={"requests_per_minute": 2, "tokens_per_minute": 100_000})
    assert [client.post(CHAT, json=HELLO).status_code for _ in range(3)] == [200, 200, 429]
    refused = client.post(CHAT, json=STREAM)
    assert refused.json() == error_object(429, "rate_limited", "1300", "Rate limit exceeded")
    assert {name: value for name, value in refused.headers.items() if "ratelimit" in name or "retry" in name} == {
        "x-ratelimit-limit-req-minute": "2",
        "x-ratelimit-remaining-req-minute": "0",
    }
    assert client.post(CHAT, json={**HELLO, "model": "mistral-large-latest"}).status_code == 200
    assert client.post(CHAT, json={**HELLO, "model": "mistral-small-2603"}).status_code == 429
    clock.advance(29)
    assert client.post(CHAT, json=HELLO).status_code == 429
    clock.advance(1)
    assert [client.post(CHAT, json=HELLO).status_code for _ in range(2)] == [200, 429]


def test_the_token_limit_refuses_until_the_debt_is_paid(serve: Serve) -> None:
    clock = FakeClock()
    _, client = serve(clock=clock, key={"tokens_per_minute": 60, "output_tokens": (90, 90)})
    cost = client.post(CHAT, json=HELLO).json()["usage"]["total_tokens"]
    refused = client.post(CHAT, json=HELLO)
    assert refused.headers["x-ratelimit-limit-tokens-minute"] == "60"
    assert refused.headers["x-ratelimit-remaining-tokens-minute"] == "0"
    assert "x-ratelimit-limit-req-minute" not in refused.headers
    clock.advance(cost - 60)
    assert client.post(CHAT, json=HELLO).status_code == 429
    clock.advance(1)
    assert client.post(CHAT, json=HELLO).status_code == 200


def test_a_limit_of_nothing_never_clears(serve: Serve) -> None:
    clock = FakeClock()
    _, client = serve(clock=clock, key={"requests_per_minute": 0, "retry_after": 2.5})
    clock.advance(3_600)
    refused = client.post(CHAT, json=HELLO)
    assert (refused.status_code, refused.headers["x-ratelimit-limit-req-minute"]) == (429, "0")
    assert refused.headers["retry-after"] == "2.5"


def test_keys_of_one_group_share_the_limits_of_the_first() -> None:
    keys = [
        SimulatedKey("one", quota_group="org", requests_per_minute=2),
        SimulatedKey("two", quota_group="org"),
        SimulatedKey("three"),
    ]
    with SimulatedMistral(keys) as server, httpx.Client(base_url=server.base_url) as client:
        statuses = [
            client.post(CHAT, json=HELLO, headers={"authorization": f"Bearer {secret}"}).status_code
            for secret in ("one", "two", "one", "two", "three")
        ]
    assert statuses == [200, 200, 429, 429, 200]


# -- determinism ---------------------------------------------------------------------------------------------------


def test_the_nth_answer_of_a_key_depends_on_nothing_else() -> None:
    def answers(order: str, seed: int = 7) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {"a": [], "b": []}
        faults = [Fault("status", probability=0.4)]
        keys = [SimulatedKey(f"sk-{name}", id=name, faults=faults) for name in "ab"]
        with (
            SimulatedMistral(keys, seed=seed, clock=FakeClock()) as server,
            httpx.Client(base_url=server.base_url) as client,
        ):
            for name in order:
                found[name].append(client.post(CHAT, json=STREAM, headers={"authorization": f"Bearer sk-{name}"}).text)
        return found

    first = answers("aaaaaabbbbbb")
    assert first == answers("abbaababbaba")
    assert first != answers("aaaaaabbbbbb", seed=8)
    assert first["a"] != first["b"]
    assert {text.startswith("data:") for text in first["a"] + first["b"]} == {True, False}


def test_latency_draws_repeat_with_the_seed_and_have_the_stated_median() -> None:
    law = Latency(0.2, sigma=0.5)
    draws = sorted(law.draw(random.Random(seed)) for seed in range(2_001))
    assert draws[1_000] == pytest.approx(0.2, rel=0.1)
    assert draws[1_900] == pytest.approx(0.2 * 2.276, rel=0.15)
    assert law.draw(random.Random(3)) == law.draw(random.Random(3))
    assert Latency(0.2).draw(random.Random(3)) == 0.2


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("fault", "content"),
    [
        (Fault("status"), error_object(503, "unreachable_backend", "1100", "Service unavailable.")),
        (
            Fault("status", status=429, error_type="service_tier_capacity_exceeded", code="3505", message="Full."),
            error_object(429, "service_tier_capacity_exceeded", "3505", "Full."),
        ),
        (Fault("status", status=500, shape="B", message="Oh"), {"detail": "Oh"}),
        (Fault("status", status=422, shape="C", message="Oh"),
         {"detail": [{"type": "value_error", "loc": ["body", "messages"], "msg": "Oh", "input": None}]}),
    ],
    ids=["A", "A-capacity", "B", "C"],
)  # fmt: skip
def test_a_status_fault_is_an_error_reply(serve: Serve, fault: Fault, content: Json, body: Json) -> None:
    server, client = serve(fault)
    reply = client.post(CHAT, json=body)
    assert (reply.status_code, reply.json()) == (fault.status or 503, content)
    assert reply.headers["content-type"] == "application/json"
    (record,) = server.requests
    assert (record.status, record.fault, record.prompt_tokens) == (fault.status or 503, "status", 0)


def test_status_faults_in_the_gateways_and_in_no_shape(serve: Serve) -> None:
    _, client = serve(
        Fault("status", status=404, shape="D", message="gone", last=1),
        Fault("status", status=504, shape="E", last=2),
        Fault("status", status=520, shape="E", message="edge", headers={"retry-after": "3"}),
    )
    gateway, empty, text = (client.post(CHAT, json=HELLO) for _ in range(3))
    assert gateway.json() == {"message": "gone", "request_id": gateway.json()["request_id"]}
    assert (empty.status_code, empty.content, "content-type" in empty.headers) == (504, b"", False)
    assert (text.status_code, text.text, text.headers["retry-after"]) == (520, "edge", "3")


def test_faults_are_chosen_by_number_time_count_and_kind_of_request(serve: Serve) -> None:
    clock = FakeClock()
    server, client = serve(
        Fault("status", status=500, first=2, last=3),
        Fault("status", status=502, start=10, end=20, count=1),
        Fault("status", status=504, stream=True, start=20),
        Fault("status", status=501, probability=0),
        clock=clock,
    )
    statuses = [client.post(CHAT, json=HELLO).status_code for _ in range(4)]
    clock.advance(10)
    statuses += [client.post(CHAT, json=HELLO).status_code for _ in range(2)]
    clock.advance(10)
    statuses += [client.post(CHAT, json=body).status_code for body in (HELLO, STREAM)]
    assert statuses == [200, 500, 500, 200, 502, 200, 200, 504]
    assert server.counters["a"].statuses == {200: 4, 500: 2, 502: 1, 504: 1}
    server.reset()
    assert [client.post(CHAT, json=HELLO).status_code for _ in range(2)] == [200, 500]
    assert [record.number for record in server.requests] == [1, 2]


def test_faults_change_while_the_server_runs(serve: Serve) -> None:
    server, client = serve()
    server.fail("a", Fault("status", status=500))
    server.fail("a", Fault("status", status=502, count=1))
    assert [client.post(CHAT, json=HELLO).status_code for _ in range(2)] == [502, 500]
    server.heal("a")
    assert client.post(CHAT, json=HELLO).status_code == 200
    with pytest.raises(KeyError):
        server.fail("b", Fault("hang"))
    with pytest.raises(ValueError, match="kind"):
        Fault("explode")  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("hang"), httpx.ReadTimeout),
        (Fault("hang", after=1), httpx.ReadTimeout),
        (Fault("reset"), httpx.ReadError),
        (Fault("reset", after=1), httpx.ReadError),
        (Fault("close"), httpx.RemoteProtocolError),
        (Fault("close", after=1), httpx.RemoteProtocolError),
        (Fault("close", delay=0.01, after=2), httpx.RemoteProtocolError),
        (Fault("half_head"), httpx.RemoteProtocolError),
        (Fault("half_head", then="hang"), httpx.ReadTimeout),
        (Fault("half_body"), httpx.RemoteProtocolError),
        (Fault("half_body", then="reset"), httpx.ReadError),
        (Fault("half_body", then="hang"), httpx.ReadTimeout),
        (Fault("garbage"), httpx.RemoteProtocolError),
        (Fault("wrong_length"), httpx.RemoteProtocolError),
    ],
    ids=lambda value: f"{value.kind}-{value.after}-{value.then}" if isinstance(value, Fault) else "",
)
def test_faults_that_the_client_notices(serve: Serve, fault: Fault, error: type[Exception], body: Json) -> None:
    server, client = serve(fault)
    with pytest.raises(error) as caught:
        client.post(CHAT, json=body, timeout=httpx.Timeout(5, read=0.1))
    assert type(caught.value) is error
    assert server.wait_idle()
    (record,) = server.requests
    assert record.fault == fault.kind
    assert (record.left_after is not None) is (error is httpx.ReadTimeout)
    server.heal("a")
    assert client.post(CHAT, json=body).status_code == 200


@pytest.mark.parametrize(
    ("after", "bills", "output"),
    [(None, None, None), (None, True, 500), (None, False, None), (0, None, 0), (0, False, None)],
    ids=["early", "early-billed", "early-free", "late", "late-free"],
)
def test_what_a_lost_connection_bills(serve: Serve, after: int | None, bills: bool | None, output: int | None) -> None:
    key = {"output_tokens": (500, 500), "latency": Latency(tokens_per_second=10)}
    server, client = serve(Fault("close", after=after, bills=bills), key=key)
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(CHAT, json=STREAM)
    assert server.wait_idle()
    (record,) = server.requests
    prompt = 0 if output is None else record.prompt_tokens or -1
    assert (record.prompt_tokens, record.completion_tokens) == (prompt, output or 0)


def test_a_truncated_stream_ends_in_good_order(serve: Serve) -> None:
    server, client = serve(Fault("truncate"))
    frames = client.post(CHAT, json=STREAM).text.split("\n\n")
    assert len(frames) == 3
    assert not any("stop" in frame or "DONE" in frame for frame in frames)
    text = json.loads(frames[1].removeprefix("data: "))["choices"][0]["delta"]["content"]
    (record,) = server.requests
    assert record.completion_tokens == len(text.split())
    with pytest.raises(json.JSONDecodeError):
        client.post(CHAT, json=HELLO).json()


def test_no_done_leaves_out_only_the_last_frame(serve: Serve) -> None:
    _, client = serve(Fault("no_done"))
    text = client.post(CHAT, json=STREAM).text
    assert "DONE" not in text
    assert events(text + "data: [DONE]\n\n")[-1]["usage"]


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["plain", "stream"])
def test_a_page_an_empty_body_and_broken_json(serve: Serve, body: Json) -> None:
    _, client = serve(
        Fault("html", last=1), Fault("html", status=502, body=b"<p>", last=2), Fault("empty", last=3),
        Fault("empty", status=204, last=4), Fault("not_json"),
    )  # fmt: skip
    page, other, empty, nothing, broken = (client.post(CHAT, json=body) for _ in range(5))
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=UTF-8")
    assert (other.status_code, other.text) == (502, "<p>")
    assert (empty.status_code, empty.content) == (200, b"")
    assert (nothing.status_code, nothing.content) == (204, b"")
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken.text.split("\n\n")[2].removeprefix("data: ") if body is STREAM else broken.text)


def test_an_error_event_ends_the_stream(serve: Serve) -> None:
    _, client = serve(Fault("error_event", after=1, status=429))
    reply = client.post(CHAT, json=STREAM)
    frames = reply.text.split("\n\n")
    assert (reply.status_code, len(frames)) == (200, 3)
    assert json.loads(frames[1].removeprefix("data: ")) == error_object(
        429, "rate_limited", "1300", "Rate limit exceeded"
    )


def test_slow_multiplies_and_joins_another_fault(serve: Serve) -> None:
    faults = (Fault("slow", factor=3), Fault("slow", factor=2), Fault("no_done"))
    _, client = serve(*faults, key={"latency": 0.01})
    assert client.post(CHAT, json=HELLO).elapsed.total_seconds() >= 0.059
    assert "DONE" not in client.post(CHAT, json=STREAM).text


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["plain", "stream"])
def test_a_slow_drip_arrives_whole(serve: Serve, body: Json) -> None:
    _, client = serve(Fault("slow_drip", size=200, pause=0.005, count=1))
    with client.stream("POST", CHAT, json=body) as reply:
        pieces = list(reply.iter_raw())
    assert len(pieces) > 2
    text = b"".join(pieces).decode()
    assert events(text) if body is STREAM else json.loads(text)


def test_a_length_that_is_too_small_leaves_bytes_behind(serve: Serve) -> None:
    _, client = serve(Fault("wrong_length", size=-5))
    assert not client.post(CHAT, json=HELLO).text.endswith("}")
    _, client = serve(Fault("wrong_length", size=-5))
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(CHAT, json=STREAM)


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["plain", "stream"])
def test_compressed_replies(serve: Serve, body: Json) -> None:
    _, client = serve(Fault("gzip", last=1), Fault("gzip_bomb", size=3_000_000))
    small = client.post(CHAT, json=body)
    assert small.headers["content-encoding"] == "gzip"
    assert events(small.text) if body is STREAM else small.json()
    with client.stream("POST", CHAT, json=body) as reply:
        raw = b"".join(reply.iter_raw())
    assert len(raw) < 10_000
    whole = gzip.decompress(raw)
    assert len(whole) == 3_000_000
    assert events(whole.decode()) if body is STREAM else json.loads(whole)


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["plain", "stream"])
def test_an_oversized_reply_is_still_well_formed(serve: Serve, body: Json) -> None:
    _, client = serve(Fault("oversized", size=1_000_000))
    reply = client.post(CHAT, json=body)
    assert len(reply.content) == 1_000_000
    assert events(reply.text) if body is STREAM else reply.json()


def test_a_stream_of_comments_never_ends(serve: Serve) -> None:
    server, client = serve(Fault("comments_only", after=1, pause=0.005))
    with client.stream("POST", CHAT, json=STREAM) as reply:
        lines = reply.iter_lines()
        seen = [next(lines) for _ in range(8)]
    assert seen[0].startswith("data: ")
    assert set(seen[2::2]) == {": still here"}
    assert server.wait_idle()
    assert server.requests[0].left_after is not None


def test_legal_oddities_of_event_streams(serve: Serve) -> None:
    faults = [Fault(kind, last=at) for at, kind in enumerate(("crlf", "bom", "split"), 1)]  # type: ignore[arg-type]
    _, client = serve(*faults, answer=lambda _: "naïve 雪 " * 5)
    crlf, bom, split = (client.post(CHAT, json=STREAM) for _ in range(3))
    assert b"\r\n\r\n" in crlf.content
    assert events(crlf.text.replace("\r\n", "\n"))
    assert bom.content.startswith(b"\xef\xbb\xbfdata: ")
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in events(split.text)) == "naïve 雪 " * 5
    with client.stream("POST", CHAT, json={**STREAM}) as reply:
        assert len(list(reply.iter_raw())) > 3


def test_faults_of_streams_pass_over_plain_requests(serve: Serve) -> None:
    _, client = serve(Fault("no_done"), Fault("status", status=500))
    assert client.post(CHAT, json=HELLO).status_code == 500


def test_held_requests_go_on_together_when_the_key_is_healed(serve: Serve) -> None:
    server, client = serve(Fault("hold"))
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(client.post(CHAT, json=HELLO).status_code)) for _ in "abc"
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 5
    while server.counters["a"].in_flight < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert (statuses, server.counters["a"].in_flight) == ([], 3)
    server.heal("a")
    for thread in threads:
        thread.join(5)
    assert statuses == [200, 200, 200]
    assert server.counters["a"].most_in_flight == 3


# -- journal -------------------------------------------------------------------------------------------------------


def test_the_journal_tells_what_happened(serve: Serve) -> None:
    clock = FakeClock()
    server, client = serve(clock=clock, keep_bodies=True)
    clock.advance(2)
    usage = client.post(CHAT, json=HELLO).json()["usage"]
    (record,) = server.requests
    assert record.ended_after is not None
    assert 0 <= record.ended_after < 1
    assert json.loads(record.body or b"") == HELLO
    assert (record.key_id, record.number, record.method, record.path) == ("a", 1, "POST", CHAT)
    assert (record.model, record.at, record.stream) == ("mistral-small-latest", 2.0, False)
    assert (record.status, record.fault, record.left_after) == (200, None, None)
    assert (record.prompt_tokens, record.completion_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    counters = server.counters["a"]
    assert (counters.requests, counters.in_flight, counters.completion_tokens) == (1, 0, usage["completion_tokens"])


def test_the_journal_is_bounded_and_the_counters_are_not(serve: Serve) -> None:
    server, client = serve(journal_size=3)
    for _ in range(5):
        client.get("/v1/models")
    assert [record.number for record in server.requests] == [3, 4, 5]
    assert server.counters["a"].requests == 5


def test_no_secret_is_in_the_journal_or_in_any_repr(serve: Serve) -> None:
    server, client = serve()
    client.post(CHAT, json=HELLO)
    assert server.keys[0].secret == SECRET
    assert SECRET not in repr((server, server.keys, server.requests, server.counters))


def test_a_client_that_leaves_while_waiting_is_noticed(serve: Serve) -> None:
    server, client = serve(key={"latency": 10})
    with pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json=HELLO, timeout=0.05)
    assert server.wait_idle(1)
    (record,) = server.requests
    assert record.left_after is not None
    assert 0.03 < record.left_after < 1
    assert (record.status, record.completion_tokens, record.prompt_tokens > 0) == (None, 0, True)
    assert server.counters["a"].left == 1


def test_a_client_that_leaves_a_stream_pays_for_what_it_got(serve: Serve) -> None:
    server, client = serve(key={"latency": Latency(tokens_per_second=100), "output_tokens": (1_000, 1_000)})
    with client.stream("POST", CHAT, json=STREAM) as reply:
        lines = reply.iter_lines()
        for _ in range(5):
            next(lines)
    assert server.wait_idle(1)
    (record,) = server.requests
    assert record.left_after is not None
    assert 1 <= record.completion_tokens < 100


def test_a_client_that_leaves_a_plain_reply_pays_for_what_was_generated(serve: Serve) -> None:
    server, client = serve(key={"latency": Latency(tokens_per_second=100), "output_tokens": (1_000, 1_000)})
    with pytest.raises(httpx.ReadTimeout):
        client.post(CHAT, json=HELLO, timeout=0.1)
    assert server.wait_idle(1)
    (record,) = server.requests
    assert 5 <= record.completion_tokens < 100


def test_a_client_that_does_not_read_does_not_hold_up_others(serve: Serve) -> None:
    server, client = serve(Fault("oversized", size=32_000_000, last=1))
    with client.stream("POST", CHAT, json=HELLO):
        assert client.post(CHAT, json=HELLO).status_code == 200
    assert server.wait_idle(2)
    assert server.requests[0].left_after is not None


# -- HTTP ----------------------------------------------------------------------------------------------------------


def raw(server: SimulatedMistral, data: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    host, port = server.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(data)
        found = b""
        while piece := sock.recv(65_536):
            found += piece
    return found


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 3000\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfff\r\n", 413),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431),
    ],
    ids=["line", "header", "length", "large", "encoding", "chunk-size", "large-chunk", "chunk-end", "head"],
)
def test_malformed_requests_are_refused_and_the_connection_closed(serve: Serve, data: bytes, status: int) -> None:
    server, _ = serve(max_body=2_000)
    host, port = server.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        found = b""
        while piece := sock.recv(65_536):
            found += piece
    assert found.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in found


def test_requests_in_chunks_one_behind_the_other_and_closed(serve: Serve) -> None:
    server, _ = serve()
    body = json.dumps(HELLO).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nAuthorization: bearer {SECRET}\r\n".encode()
    chunked = b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    pieces = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in (body[:7], body[7:]))
    first = head + chunked + pieces + b"0\r\nTrailer: x\r\n\r\n"
    second = head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body
    found = raw(server, first + second)
    assert found.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert found.count(b"HTTP/1.1 200 OK") == 2
    assert found.count(b"connection: close") == 1
    assert [record.status for record in server.requests] == [200, 200]


def test_idle_connections_are_closed(serve: Serve) -> None:
    server, _ = serve(idle=0.02)
    assert raw(server, b"") == b""


def test_a_client_that_leaves_inside_a_request_is_no_request(serve: Serve) -> None:
    server, client = serve()
    host, port = server.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc")
    assert client.get("/v1/models").status_code == 200
    assert len(server.requests) == 1


# -- life ----------------------------------------------------------------------------------------------------------


def test_it_stops_with_connections_open_and_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    server = SimulatedMistral(["sk-one"], journal_size=10)
    server.fail("key-1", Fault("hang"))
    server.start()
    with pytest.raises(RuntimeError, match="already running"):
        server.start()
    host, port = server.base_url.removeprefix("http://").split(":")
    with httpx.Client(headers={"authorization": "Bearer sk-one"}) as client:
        idle = socket.create_connection((host, int(port)))
        with pytest.raises(httpx.ReadTimeout):
            client.post(server.base_url + CHAT, json=HELLO, timeout=0.02)
        sock = socket.create_connection((host, int(port)))
        sock.sendall(b"GET /v1/models HTTP/1.1\r\nauthorization: Bearer sk-one\r\n\r\n")
        while server.counters["key-1"].requests < 2:
            time.sleep(0.002)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 1
        server.stop()
        assert (idle.recv(1), sock.recv(1)) == (b"", b"")
        idle.close()
        sock.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.base_url
    server.heal("key-1")
    with server, httpx.Client(base_url=server.base_url, headers={"authorization": "Bearer sk-one"}) as client:
        assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_serves_a_running_loop(backend: str) -> None:
    async def main() -> list[int]:
        statuses: list[int] = []
        async with SimulatedMistral(2, seed=1) as server:
            headers = {"authorization": f"Bearer {server.keys[1].secret}"}
            async with httpx.AsyncClient(base_url=server.base_url, headers=headers) as client:

                async def post() -> None:
                    statuses.append((await client.post(CHAT, json=STREAM)).status_code)

                async with anyio.create_task_group() as tasks:
                    for _ in range(20):
                        tasks.start_soon(post)
            assert [key.id for key in server.keys] == ["key-1", "key-2"]
            assert server.counters["key-2"].requests == 20
        return statuses

    assert anyio.run(main, backend=backend) == [200] * 20


def test_a_taken_port_is_an_error_and_leaves_nothing_behind() -> None:
    with SimulatedMistral() as server:
        port = int(server.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            SimulatedMistral(port=port).start()


def test_configuration_that_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="same id or the same secret"):
        SimulatedMistral(["sk-same", "sk-same"])
    with pytest.raises(ValueError, match="output_tokens"):
        SimulatedKey("sk", output_tokens=(5, 2))
    with pytest.raises(ValueError, match="first_token"):
        Latency(-1)


def test_the_command_line_serves_until_it_is_told_to_stop() -> None:
    command = [sys.executable, "-m", "bifrost_core.testing.mistral", "--seed", "7", "--key", "sk-cli"]
    options = ["--fault", "status:1:502", "--rpm", "5"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url, key = process.stdout.readline().strip(), process.stdout.readline().strip()
            reply = httpx.post(base_url + CHAT, json=HELLO, headers={"authorization": "Bearer sk-cli"})
            assert (key, reply.status_code) == ("key sk-cli", 502)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("arguments", [["--fault", "explode"], ["--latency", "-1"]], ids=["fault", "latency"])
def test_the_command_line_refuses_nonsense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_command_line_says_when_the_port_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with SimulatedMistral() as server:
        assert main(["--port", server.base_url.rpartition(":")[2]]) == 1
    assert "cannot listen" in capsys.readouterr().err


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["plain", "stream"])
def test_a_right_answer_may_state_a_wrong_type(serve: Serve, body: Json) -> None:
    _, client = serve(Fault("wrong_type", last=1))
    wrong, right = (client.post(CHAT, json=body) for _ in range(2))
    assert wrong.headers["content-type"] == "text/plain; charset=utf-8"
    assert ("data: " in wrong.text, len(wrong.text) > 100) == ("data: " in right.text, True)


def test_a_plain_reply_may_come_as_events_and_a_stream_is_left_alone(serve: Serve) -> None:
    server, client = serve(Fault("sse"))
    reply = client.post(CHAT, json=HELLO)
    assert reply.headers["content-type"].startswith("text/event-stream")
    event, done, rest = reply.text.split("\n\n")
    assert json.loads(event.removeprefix("data: "))["object"] == "chat.completion"
    assert (done, rest) == ("data: [DONE]", "")
    assert client.post(CHAT, json=STREAM).text.count("data: ") > 2
    assert [record.fault for record in server.requests] == ["sse", None]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_usage_may_be_nonsense(serve: Serve, stream: bool) -> None:
    _, client = serve(Fault("bad_usage", last=1), Fault("bad_usage", body=b'{"total_tokens":NaN}'))
    below, odd = (client.post(CHAT, json=STREAM if stream else HELLO).text for _ in range(2))
    assert '"usage":{"prompt_tokens":-7,"completion_tokens":-1,"total_tokens":-8}' in below
    assert '"usage":{"total_tokens":NaN}' in odd
    assert odd.endswith("data: [DONE]\n\n") == stream
