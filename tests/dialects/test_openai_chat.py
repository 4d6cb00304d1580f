"""Chat completions in OpenAI's dialect, byte by byte, without an SDK."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from bifrost_plugins.guardrails import GuardrailPlugin, Literals, Regex
from bifrost_plugins.response_cache import ResponseCachePlugin

from bifrost_core import Call, CallRecord, ChatResponse, Choice, ModerationResponse, Request, Usage, hookimpl
from bifrost_core.testing import Fault

MODEL = "mistral/mistral-small-latest"
PATH = "/openai/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def said(**how: Any) -> Callable[[Mapping[str, Any]], Any]:
    """A provider's law: the same answer to everything."""
    return lambda _body: how


def sent(provider: Any) -> Any:
    """The body of the last request that came to the provider."""
    return json.loads(provider.journal[-1].body)


class Seen:
    """Remembers what hooks saw."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.calls: list[Call] = []
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_guard_request(self, request: Request, call: Call) -> None:
        self.requests.append(request)
        self.calls.append(call)

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


class Answers:
    """Answers every call itself, as a plugin may."""

    def __init__(self, response: Any) -> None:
        self.response = response

    @hookimpl
    def bifrost_cached_response(self) -> Any:
        return self.response


async def test_what_a_provider_of_the_family_says_goes_out_unchanged(opened: Any) -> None:
    seen = Seen()
    async with opened(plugins=[seen], answer=said(content="hello")) as (client, _, _):
        reply = await client.post(PATH, json={"model": MODEL, "messages": [USER]})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    response = seen.records[0].response
    assert response is not None
    assert reply.json() == response.raw
    assert reply.json()["choices"][0]["message"]["content"] == "hello"
    assert reply.headers["x-request-id"] == seen.records[0].call_id == reply.headers["x-bf-call-id"]


async def test_every_event_of_a_stream_goes_out_as_the_provider_has_it(opened: Any, events: Any) -> None:
    async with opened(answer=said(content="one two three four five six seven eight")) as (client, _, router):
        reply = await client.post(PATH, json={"model": MODEL, "messages": [USER], "stream": True})
        async with router.stream(MODEL, [USER]) as stream:
            shapes = [set(chunk.raw) async for chunk in stream]
    assert reply.headers["content-type"].startswith("text/event-stream")
    *told, end = events(reply.text)
    assert end == "[DONE]"
    assert {name for event in told for name in event} == {name for shape in shapes for name in shape}
    assert "".join(event["choices"][0]["delta"]["content"] for event in told) == (
        "one two three four five six seven eight"
    )
    assert [event["choices"][0]["delta"].get("role") for event in told] == ["assistant"] + [None] * (len(told) - 1)
    assert told[-1]["choices"][0]["finish_reason"] == "stop"
    assert told[-1]["usage"]["completion_tokens"] == 8  # stays where the provider has it


async def test_usage_that_is_asked_for_comes_on_a_chunk_of_its_own_and_nowhere_else(opened: Any, events: Any) -> None:
    body = {"model": MODEL, "messages": [USER], "stream": True, "stream_options": {"include_usage": True}}
    async with opened(answer=said(content="one two three")) as (client, _, _):
        reply = await client.post(PATH, json=body)
    *told, last, end = events(reply.text)
    assert end == "[DONE]"
    assert not any("usage" in event for event in told)
    assert last == {
        "id": told[0]["id"],
        "object": "chat.completion.chunk",
        "created": told[0]["created"],
        "model": "mistral-small-latest",
        "choices": [],
        "usage": last["usage"],
    }
    assert last["usage"]["completion_tokens"] == 3


async def test_thinking_is_told_as_reasoning_content(opened: Any, events: Any) -> None:
    body: dict[str, Any] = {"model": "mistral/magistral-small-latest", "messages": [USER]}
    async with opened(answer=said(content="four", thinking="two and two")) as (client, _, _):
        plain = (await client.post(PATH, json=body)).json()
        streamed = await client.post(PATH, json={**body, "stream": True})
    message = plain["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("four", "two and two")
    deltas = [event["choices"][0]["delta"] for event in events(streamed.text)[:-1]]
    assert all(isinstance(delta.get("content", ""), str) for delta in deltas)
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "two and two"
    assert "".join(delta.get("content", "") for delta in deltas) == "four"


async def test_fields_of_the_body_are_the_providers_and_headers_give_the_options(opened: Any) -> None:
    seen = Seen()
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [USER],
        "metadata": {"team": "theirs"},
        "temperature": 0.5,
        "n": 2,
        "stop": ["END"],
        "seed": 7,
        "max_completion_tokens": 5,
        "prediction": {"type": "content", "content": "x"},
        "reasoning_effort": "high",
        "parallel_tool_calls": False,
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    }
    headers = {"x-bf-metadata": '{"team": "ours"}', "x-bf-session": "s1", "x-bf-cache": "bypass"}
    async with opened(plugins=[seen]) as (client, provider, _):
        reply = await client.post(PATH, json=body, headers=headers)
        assert reply.status_code == 200
        wire = sent(provider)
    assert wire["metadata"] == {"team": "theirs"}
    assert (wire["random_seed"], wire["max_tokens"], wire["n"]) == (7, 5, 2)
    same = set(body) - {"model", "seed", "max_completion_tokens", "tools", "messages"}
    assert {name: wire[name] for name in same} == {name: body[name] for name in same}
    assert dict(seen.calls[0].metadata) == {"team": "ours"}
    assert seen.calls[0].options == {"session": "s1", "cache": "bypass"}
    assert len(reply.json()["choices"]) == 2


async def test_fallbacks_of_the_body_are_tried_and_are_not_sent(opened: Any) -> None:
    body = {"model": "mistral/gone", "messages": [USER], "fallbacks": [{"model": MODEL}, "mistral/other"]}
    async with opened(models=["mistral-small-latest"]) as (client, provider, _):
        reply = await client.post(PATH, json=body)
        assert reply.status_code == 200
        assert "fallbacks" not in sent(provider)
    assert reply.headers["x-bf-model"] == reply.json()["model"] == "mistral-small-latest"


async def test_images_and_sound_go_through(opened: Any) -> None:
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ]
    async with opened() as (client, provider, _):
        await client.post(PATH, json={"model": MODEL, "messages": [{"role": "user", "content": parts}]})
        content = sent(provider)["messages"][0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "input_audio"]
    assert content[1]["image_url"] == parts[1]["image_url"]


# --- functions, as they were before tools


async def test_functions_are_asked_for_as_tools_and_told_as_functions(opened: Any, events: Any) -> None:
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [
            USER,
            {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
            {"role": "function", "name": "weather", "content": "sunny"},
        ],
        "functions": [TOOL["function"]],
        "function_call": {"name": "weather"},
    }
    law = said(tool_calls=[{"name": "weather", "arguments": {"city": "Rome"}, "id": "abcdefghi"}])
    async with opened(answer=law) as (client, provider, _):
        plain = (await client.post(PATH, json=body)).json()["choices"][0]
        wire = sent(provider)
        streamed = events((await client.post(PATH, json={**body, "stream": True})).text)[:-1]
    assert wire["tools"] == [TOOL]
    assert wire["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert wire["parallel_tool_calls"] is False
    _, asked, answered = wire["messages"]
    assert asked["tool_calls"][0]["id"] == answered["tool_call_id"]
    assert (answered["role"], answered["content"]) == ("tool", "sunny")
    call = {"name": "weather", "arguments": '{"city":"Rome"}'}
    assert plain["message"]["function_call"] == call
    assert "tool_calls" not in plain["message"]
    assert plain["finish_reason"] == "function_call"
    told = [event["choices"][0]["delta"]["function_call"] for event in streamed if "function_call" in str(event)]
    assert told == [call]
    assert streamed[-1]["choices"][0]["finish_reason"] == "function_call"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        pytest.param({"functions": [], "tools": []}, "functions", id="functions beside tools"),
        pytest.param({"function_call": "auto", "tool_choice": "auto"}, "function_call", id="call beside choice"),
        pytest.param({"functions": [{}]}, "functions[0].name", id="without a name"),
        pytest.param({"functions": [TOOL["function"]], "function_call": 3}, "function_call", id="call is a number"),
        pytest.param(
            {"messages": [{"role": "function", "name": "f", "content": ""}]}, "messages[0]", id="answers nothing"
        ),
    ],
)
async def test_functions_that_make_no_sense_are_refused_by_name(opened: Any, more: dict[str, Any], param: str) -> None:
    async with opened() as (client, provider, _):
        reply = await client.post(PATH, json={"model": MODEL, "messages": [USER], **more})
        assert not provider.journal
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


# --- what can not be read


@pytest.mark.parametrize(
    ("body", "param"),
    [
        pytest.param(b"", None, id="nothing"),
        pytest.param(b"{", None, id="no JSON"),
        pytest.param(b"[]", None, id="a list"),
        pytest.param(b"[" * 100_000, None, id="nested without end"),
        pytest.param({}, "model", id="no model"),
        pytest.param({"model": 3}, "model", id="model is a number"),
        pytest.param({"model": MODEL}, "messages", id="no messages"),
        pytest.param({"model": MODEL, "messages": "hi"}, "messages", id="messages is text"),
        pytest.param({"model": MODEL, "messages": []}, "messages", id="no message"),
        pytest.param({"model": MODEL, "messages": ["hi"]}, "messages[0]", id="message is text"),
        pytest.param({"model": MODEL, "messages": [{"content": "x"}]}, "messages[0].role", id="no role"),
        pytest.param({"model": MODEL, "messages": [USER], "stream": "yes"}, "stream", id="stream is text"),
        pytest.param({"model": MODEL, "messages": [USER], "temperature": True}, "temperature", id="boolean number"),
        pytest.param({"model": MODEL, "messages": [USER], "n": 1.5}, "n", id="half a choice"),
        pytest.param({"model": MODEL, "messages": [USER], "tools": {}}, "tools", id="tools is an object"),
        pytest.param({"model": MODEL, "messages": [USER], "fallbacks": "x"}, "fallbacks", id="fallbacks is text"),
        pytest.param({"model": MODEL, "messages": [USER], "fallbacks": ["x"] * 17}, "fallbacks", id="too many"),
        pytest.param({"model": MODEL, "messages": [USER], "frobnicate": 1}, "frobnicate", id="unknown field"),
        pytest.param({"model": MODEL, "messages": [USER], "logit_bias": {"1": 2}}, "logit_bias", id="no such field"),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused_by_the_name_of_its_field(
    opened: Any, body: Any, param: str | None
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with opened() as (client, provider, _):
        reply = await client.post(PATH, content=content)
        assert not provider.journal
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_request", param)
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-request-id"].startswith("call_")


async def test_null_says_what_absence_does(opened: Any) -> None:
    body = {"model": MODEL, "messages": [USER], "stream": None, "temperature": None, "tools": None, "fallbacks": None}
    async with opened() as (client, provider, _):
        assert (await client.post(PATH, json=body)).status_code == 200
        assert set(sent(provider)) == {"model", "messages"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("POST", "/openai/v1/threads", 404, id="no such endpoint"),
        pytest.param("GET", "/openai/v1/", 404, id="no path"),
        pytest.param("GET", PATH, 405, id="wrong method"),
        pytest.param("DELETE", "/openai/v1/models/x", 405, id="models can not be deleted"),
    ],
)
async def test_what_does_not_exist_is_told_in_shape(opened: Any, method: str, path: str, status: int) -> None:
    async with opened() as (client, _, _):
        reply = await client.request(method, path)
    assert reply.status_code == status
    assert reply.json()["error"]["code"] == "invalid_request"
    assert method in reply.json()["error"]["message"]


# --- what plugins do to it


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_words_that_a_guardrail_took_out_are_nowhere(opened: Any, stream: bool) -> None:
    guard = GuardrailPlugin([Regex("secret-[0-9]{2}", side="output", action="redact")])
    law = said(content="it is secret-42, yes", thinking="I know secret-42 well")
    body = {"model": "mistral/magistral-small-latest", "messages": [USER], "stream": stream}
    async with opened(plugins=[guard], answer=law) as (client, _, _):
        reply = await client.post(PATH, json=body)
    assert reply.status_code == 200
    assert "yes" in reply.text
    assert "42" not in reply.text


async def test_a_cached_answer_is_streamed_as_chunks(opened: Any, events: Any) -> None:
    body = {"model": "mistral/magistral-small-latest", "messages": [USER]}
    cache = ResponseCachePlugin(ttl=600)
    async with opened(plugins=[cache], answer=said(content="four", thinking="hm")) as (client, provider, _):
        first = await client.post(PATH, json=body)
        again = await client.post(PATH, json=body)
        streamed = await client.post(PATH, json={**body, "stream": True})
        count = len(provider.journal)
    assert count == 1
    assert (first.headers["x-bf-cached"], again.headers["x-bf-cached"]) == ("false", "true")
    assert first.json() == again.json()
    *told, _ = events(streamed.text)
    assert [event["choices"][0]["delta"] for event in told] == [
        {"role": "assistant", "content": "four", "reasoning_content": "hm"},
        {},
    ]
    assert told[-1]["usage"]["completion_tokens"] == first.json()["usage"]["completion_tokens"]
    assert {event["id"] for event in told} == {first.json()["id"]}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_an_answer_that_a_plugin_made_by_hand_is_built(opened: Any, events: Any, stream: bool) -> None:
    made = ChatResponse(
        model="by-hand",
        choices=[Choice(text="hello", reasoning="hm", finish_reason="stop")],
        usage=Usage(input_tokens=2, output_tokens=1),
    )
    async with opened(plugins=[Answers(made)]) as (client, _, _):
        reply = await client.post(PATH, json={"model": MODEL, "messages": [USER], "stream": stream})
    told = events(reply.text)[:-1] if stream else [reply.json()]
    assert told[0]["object"] == ("chat.completion.chunk" if stream else "chat.completion")
    assert told[0]["model"] == "by-hand"
    assert told[0]["created"] > 1_700_000_000
    said_ = told[0]["choices"][0]["delta" if stream else "message"]
    assert (said_["role"], said_["content"]) == ("assistant", "hello")
    assert told[-1]["usage"]["total_tokens"] == 3


async def test_an_answer_of_the_wrong_kind_is_the_plugins_fault(opened: Any) -> None:
    async with opened(plugins=[Answers(ModerationResponse())]) as (client, _, _):
        reply = await client.post(PATH, json={"model": MODEL, "messages": [USER]})
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "plugin_error"


async def test_a_refusal_of_policy_has_its_own_status(opened: Any) -> None:
    guard = GuardrailPlugin([Literals(["forbidden"], side="input")])
    async with opened(plugins=[guard]) as (client, _, _):
        reply = await client.post(
            PATH, json={"model": MODEL, "messages": [{"role": "user", "content": "the forbidden word"}]}
        )
    assert reply.status_code == 446
    assert reply.json()["error"]["code"] == "guardrail_blocked"
    assert "forbidden" not in reply.json()["error"]["message"]


async def test_an_error_in_mid_stream_is_an_event(opened: Any, events: Any) -> None:
    seen = Seen()
    law = said(content="one two three four five six seven eight nine ten eleven twelve")
    async with opened(Fault("error_event", after=3), plugins=[seen], answer=law) as (client, _, _):
        reply = await client.post(PATH, json={"model": MODEL, "messages": [USER], "stream": True})
    assert reply.status_code == 200
    *told, last = events(reply.text)
    assert told[0]["choices"]
    assert last["error"]["code"] == "stream_error"
    assert last["error"]["type"] == "server_error"
    assert [record.outcome for record in seen.records] == ["failed"]


async def test_an_error_before_the_first_content_has_its_status(opened: Any) -> None:
    async with opened(Fault("status", status=503)) as (client, _, _):
        reply = await client.post(PATH, json={"model": MODEL, "messages": [USER], "stream": True})
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "server_error"
