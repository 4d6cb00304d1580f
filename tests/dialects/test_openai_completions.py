"""Completions of a text in OpenAI's dialect: fill in the middle, byte by byte, without an SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bifrost_core import ChatResponse, Choice, hookimpl

MODEL = "mistral/codestral-latest"
PATH = "/openai/v1/completions"
CODE = "return a + b"


class Answers:
    """Answers every call itself, as a plugin may."""

    def __init__(self, response: Any) -> None:
        self.response = response

    @hookimpl
    def bifrost_cached_response(self) -> Any:
        return self.response


@pytest.mark.parametrize("prompt", ["def add(a, b):", ["def add(a, b):"]], ids=["text", "list of one"])
async def test_a_gap_is_filled(opened: Any, prompt: Any) -> None:
    body = {"model": MODEL, "prompt": prompt, "suffix": "\n\nprint(add(1, 2))", "max_tokens": 50}
    async with opened(answer=lambda _: CODE) as (client, provider, _):
        told = (await client.post(PATH, json=body)).json()
        served = provider.journal[-1]
    assert served.path == "/v1/fim/completions"
    wire = json.loads(served.body)
    assert (wire["prompt"], wire["suffix"]) == ("def add(a, b):", "\n\nprint(add(1, 2))")
    assert told["object"] == "text_completion"
    assert told["choices"] == [{"text": CODE, "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert told["usage"]["completion_tokens"] > 0


async def test_a_streamed_completion_is_chunks_of_text(opened: Any, events: Any) -> None:
    body = {"model": MODEL, "prompt": "def", "stream": True, "stream_options": {"include_usage": True}}
    async with opened(answer=lambda _: CODE) as (client, _, _):
        *told, last, end = events((await client.post(PATH, json=body)).text)
    assert end == "[DONE]"
    assert {each["object"] for each in [*told, last]} == {"text_completion"}
    assert "".join(each["choices"][0]["text"] for each in told) == CODE
    assert told[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any("usage" in each for each in told)
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], 4)


async def test_a_providers_own_completion_keeps_its_text(opened: Any) -> None:
    raw = {"id": "c", "object": "text_completion", "choices": [{"text": "x", "index": 0, "finish_reason": "stop"}]}
    async with opened(plugins=[Answers(ChatResponse(raw=raw, choices=[Choice(text="x")]))]) as (client, _, _):
        told = (await client.post(PATH, json={"model": MODEL, "prompt": "p"})).json()
    assert told["choices"] == [{"text": "x", "index": 0, "logprobs": None, "finish_reason": "stop"}]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        pytest.param({}, "prompt", id="no prompt"),
        pytest.param({"prompt": 3}, "prompt", id="a number"),
        pytest.param({"prompt": ["a", "b"]}, "prompt", id="two"),
        pytest.param({"prompt": [1, 2]}, "prompt", id="tokens"),
        pytest.param({"prompt": "a", "suffix": 3}, "suffix", id="suffix"),
        pytest.param({"prompt": "a", "echo": True}, "echo", id="no such field there"),
        pytest.param({"prompt": "a", "best_of": 2}, "best_of", id="nor this"),
    ],
)
async def test_what_can_not_be_given_is_refused_by_name(opened: Any, more: dict[str, Any], param: str) -> None:
    async with opened() as (client, provider, _):
        reply = await client.post(PATH, json={"model": MODEL, **more})
        assert not provider.journal
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
