"""Anthropic's dialect in front of Anthropic: what the SDK gets is what the provider said, and what it asked is asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import httpx
import pytest

from bifrost_core import Anthropic, Router

Json: TypeAlias = dict[str, Any]

SECRET = "sk-ant-tests-0123456789"
VIRTUAL_KEY = "sk-bf-tests-0123456789abcdef"
PATH = "/anthropic/v1/messages"
BODY: Json = {"max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
MESSAGE: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-4-8",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "Look.", "citations": None},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 9, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2, "output_tokens": 5},
    "what_is_newer": {"kept": [1]},
}
EVENTS: list[Json] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "what_is_newer", "is": "handed on"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " there."}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"},
        "usage": {"output_tokens": 5},
    },
    {"type": "message_stop"},
]


class Server:
    """Answers as Anthropic would, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if json.loads(request.content).get("stream"):
            body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS)
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=_pieces(body.encode()))
        return httpx.Response(
            200, headers={"content-type": "application/json"}, content=_pieces(json.dumps(MESSAGE).encode())
        )


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 50):
        yield body[start : start + 50]


async def test_a_message_is_what_the_provider_said() -> None:
    server = Server()
    engine = httpx.AsyncClient(transport=httpx.MockTransport(server))
    async with Router([Anthropic([SECRET])], engine=engine) as router, router.http_client(flavour="httpx") as client:
        reply = await client.post(
            PATH, json={"model": "anthropic/claude-opus-4-8", **BODY}, headers={"x-api-key": VIRTUAL_KEY}
        )
    assert reply.json() == MESSAGE
    asked = server.asked[0]
    assert json.loads(asked.content) == {"model": "claude-opus-4-8", **BODY}
    assert asked.headers["x-api-key"] == SECRET
    assert VIRTUAL_KEY not in str(asked.headers.multi_items())


async def test_a_stream_is_what_the_provider_said() -> None:
    server = Server()
    engine = httpx.AsyncClient(transport=httpx.MockTransport(server))
    async with Router([Anthropic([SECRET])], engine=engine) as router, router.http_client(flavour="httpx") as client:
        reply = await client.post(PATH, json={"model": "anthropic/claude-opus-4-8", "stream": True, **BODY})
    data = [line.removeprefix("data: ") for line in reply.text.split("\n") if line.startswith("data: ")]
    assert [json.loads(each) for each in data] == EVENTS


async def test_betas_are_a_header_again() -> None:
    server = Server()
    engine = httpx.AsyncClient(transport=httpx.MockTransport(server))
    async with Router([Anthropic([SECRET])], engine=engine) as router, router.http_client(flavour="httpx") as client:
        body = {"model": "anthropic/claude-opus-4-8", **BODY}
        await client.post(PATH, json=body, headers={"anthropic-beta": "skills-2025-10-02,files-api-2025-04-14"})
    asked = server.asked[0]
    assert asked.headers["anthropic-beta"].replace(" ", "") == "skills-2025-10-02,files-api-2025-04-14"
    assert json.loads(asked.content) == {"model": "claude-opus-4-8", **BODY}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_overloaded_provider_is_told_as_such(stream: bool) -> None:
    def overloaded(request: httpx.Request) -> httpx.Response:
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return httpx.Response(
            529, headers={"content-type": "application/json"}, content=_pieces(json.dumps(error).encode())
        )

    engine = httpx.AsyncClient(transport=httpx.MockTransport(overloaded))
    async with Router([Anthropic([SECRET])], engine=engine) as router, router.http_client(flavour="httpx") as client:
        reply = await client.post(PATH, json={"model": "anthropic/claude-opus-4-8", "stream": stream, **BODY})
    assert (reply.status_code, reply.json()["error"]["type"]) == (529, "overloaded_error")
