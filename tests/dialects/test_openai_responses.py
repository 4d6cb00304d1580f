"""The Responses API in OpenAI's dialect, byte by byte, without an SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bifrost_plugins.guardrails import GuardrailPlugin, Regex

from bifrost_core import ChatResponse, hookimpl
from bifrost_core.testing import Fault

MODEL = "mistral/mistral-small-latest"
PATH = "/openai/v1/responses"
LONG = "one two three four five six seven eight nine ten eleven twelve"


class Answers:
    """Answers every call itself, as a plugin may."""

    @hookimpl
    def bifrost_cached_response(self) -> Any:
        return ChatResponse()


def law(**how: Any) -> dict[str, Any]:
    return {"answer": lambda _body: how}


async def test_an_answer_has_the_shape_of_openais_object(opened: Any) -> None:
    body = {"model": MODEL, "input": "hi", "instructions": "be kind", "temperature": 0.5, "metadata": {"a": "b"}}
    async with opened(**law(content="hello")) as (client, provider, _):
        reply = await client.post(PATH, json=body)
        assert reply.status_code == 200
        wire = json.loads(provider.journal[-1].body)
    assert [message["role"] for message in wire["messages"]] == ["system", "user"]
    told = reply.json()
    assert (told["object"], told["status"], told["model"]) == ("response", "completed", "mistral-small-latest")
    assert told["id"].startswith("resp_")
    assert (told["instructions"], told["temperature"], told["metadata"]) == ("be kind", 0.5, {"a": "b"})
    assert told["created_at"] > 1_700_000_000
    assert told["output"][0]["content"] == [{"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}]


async def test_events_come_under_their_names_and_in_their_order(opened: Any, events: Any) -> None:
    async with opened(**law(content="one two three")) as (client, _, _):
        reply = await client.post(PATH, json={"model": MODEL, "input": "hi", "stream": True})
    told = events(reply.text)
    assert told[0]["type"] == "response.created"
    assert told[-1]["type"] == "response.completed"
    names = [line.removeprefix("event: ") for line in reply.text.split("\n") if line.startswith("event: ")]
    assert names == [event["type"] for event in told]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert "".join(event["delta"] for event in told if event["type"].endswith("output_text.delta")) == "one two three"
    assert told[-1]["response"]["output"][0]["content"][0]["text"] == "one two three"
    assert "[DONE]" not in reply.text  # which this API has not


async def test_calls_are_items(opened: Any) -> None:
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    how = law(tool_calls=[{"name": "weather", "arguments": {"city": "Rome"}, "id": "abcdefghi"}])
    async with opened(**how) as (client, _, _):
        told = (await client.post(PATH, json={"model": MODEL, "input": "hi", "tools": [tool]})).json()
    (call,) = told["output"]
    assert {name: call[name] for name in ("type", "call_id", "name", "arguments")} == {
        "type": "function_call",
        "call_id": "abcdefghi",
        "name": "weather",
        "arguments": '{"city":"Rome"}',
    }
    assert told["tools"] == [tool]


async def test_an_error_in_mid_stream_is_an_event_of_that_name(opened: Any, events: Any) -> None:
    async with opened(Fault("error_event", after=4), **law(content=LONG)) as (client, _, _):
        reply = await client.post(PATH, json={"model": MODEL, "input": "hi", "stream": True})
    *told, last = events(reply.text)
    assert "\nevent: error\n" in reply.text
    assert (last["type"], last["code"], last["param"]) == ("error", "stream_error", None)
    assert last["sequence_number"] == told[-1]["sequence_number"] + 1
    assert last["error"]["message"] == last["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_words_that_a_guardrail_took_out_are_nowhere(opened: Any, stream: bool) -> None:
    guard = GuardrailPlugin([Regex("secret-[0-9]{2}", side="output", action="redact")])
    body = {"model": "mistral/magistral-small-latest", "input": "hi", "stream": stream}
    async with opened(plugins=[guard], **law(content="it is secret-42, yes", thinking="secret-42 it is")) as (
        client,
        _,
        _,
    ):
        reply = await client.post(PATH, json=body)
    assert reply.status_code == 200
    assert "yes" in reply.text
    assert "secret-42" not in reply.text


@pytest.mark.parametrize(
    ("more", "param"),
    [
        pytest.param({"input": 3}, "input", id="input is a number"),
        pytest.param({"input": []}, "input", id="no item"),
        pytest.param({"input": ["x"]}, "input[0]", id="item is text"),
        pytest.param({"input": "hi", "tools": 3}, "tools", id="tools is a number"),
        pytest.param({"input": "hi", "text": "x"}, "text", id="text is text"),
        pytest.param({"input": "hi", "previous_response_id": "resp_1"}, "previous_response_id", id="nothing is kept"),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused_by_the_name_of_its_field(
    opened: Any, more: dict[str, Any], param: str
) -> None:
    async with opened() as (client, provider, _):
        reply = await client.post(PATH, json={"model": MODEL, **more})
        assert not provider.journal
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_an_answer_of_the_wrong_kind_is_the_plugins_fault(opened: Any, events: Any, stream: bool) -> None:
    async with opened(plugins=[Answers()]) as (client, _, _):
        reply = await client.post(PATH, json={"model": MODEL, "input": "hi", "stream": stream})
    error = events(reply.text)[-1]["error"] if stream else reply.json()["error"]
    assert error["code"] == "plugin_error"
