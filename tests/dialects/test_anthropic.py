"""Anthropic's dialect through a Router: bytes in, bytes out, without its SDK."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TypeAlias

import httpx
import pytest
from bifrost_plugins.virtual_keys import VirtualKeyPlugin

from bifrost_core import Call, RetryPolicy, Router, Secret, SyncRouter, hookimpl
from bifrost_core.testing import Fault, Simulated, SimulatedKey

Json: TypeAlias = dict[str, Any]

MODEL = "mistral/mistral-small-latest"
VIRTUAL_KEY = "sk-bf-tests-0123456789abcdef"
BODY: Json = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
PATH = "/anthropic/v1/messages"


class Watcher:
    """Keeps the calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    @hookimpl
    def bifrost_authorize(self, call: Call) -> None:
        self.calls.append(call)


def gate() -> VirtualKeyPlugin:
    return VirtualKeyPlugin(keys=[{"id": "vk_tests", "name": "tests", "secret": Secret(VIRTUAL_KEY)}])


def made(*faults: Fault, plugins: Iterable[object] = (), **options: Any) -> tuple[Simulated, Router]:
    provider = Simulated([SimulatedKey("a", faults=faults)], name="mistral", keep_bodies=True, **options)
    return provider, Router([provider], plugins=plugins, retry=RetryPolicy(max_attempts=1))


def events_of(body: str) -> list[Json]:
    return [json.loads(line.removeprefix("data: ")) for line in body.split("\n") if line.startswith("data: ")]


@pytest.mark.parametrize("path", [PATH, "/anthropic/messages", "/v1/messages", "/v1/messages?beta=true", "/messages"])
async def test_a_message_is_served_under_each_of_its_paths(path: str) -> None:
    _, router = made(answer=lambda _: "Hi.")
    async with router, router.http_client(flavour="httpx") as client:
        reply = await client.post(path, json=BODY)
    message = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert (message["type"], message["content"]) == ("message", [{"type": "text", "text": "Hi."}])
    assert reply.headers["request-id"] == reply.headers["x-bf-call-id"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"x-api-key": VIRTUAL_KEY}, id="x-api-key"),
        pytest.param({"authorization": f"Bearer {VIRTUAL_KEY}"}, id="bearer"),
        pytest.param({"x-bf-vk": VIRTUAL_KEY, "x-api-key": "sk-ant-somebodys"}, id="our-own-header"),
    ],
)
async def test_a_virtual_key_is_read_and_goes_no_further(headers: dict[str, str]) -> None:
    watcher = Watcher()
    provider, router = made(plugins=[gate(), watcher])
    async with router, router.http_client(flavour="httpx") as client:
        reply = await client.post(PATH, json=BODY, headers={**headers, "anthropic-version": "2023-06-01"})
    assert reply.status_code == 200
    principal = watcher.calls[0].principal
    assert principal is not None
    assert principal.virtual_key_id == "vk_tests"
    assert watcher.calls[0].headers["anthropic-version"] == "2023-06-01"
    assert VIRTUAL_KEY not in str(watcher.calls[0].headers) + str(provider.journal)
    assert [request.key_id for request in provider.journal] == ["a"]


async def test_a_key_of_anthropics_is_nobodys_here() -> None:
    provider, router = made(plugins=[gate()])
    async with router, router.http_client(flavour="httpx") as client:
        reply = await client.post(PATH, json=BODY, headers={"x-api-key": "sk-ant-api03-0123456789"})
    told = reply.json()
    assert (reply.status_code, told["error"]["type"]) == (401, "authentication_error")
    assert told["request_id"] == reply.headers["request-id"]
    assert reply.headers["x-should-retry"] == "false"
    assert not provider.journal


async def test_a_streamed_message_is_written_as_it_comes() -> None:
    _, router = made(answer=lambda _: {"thinking": "hm", "content": "Hi there."})
    async with router, router.http_client(flavour="httpx") as client:
        reply = await client.post(PATH, json={**BODY, "stream": True})
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.text.startswith("event: message_start\ndata: ")
    events = events_of(reply.text)
    starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert starts == ["thinking", "text"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == "hm"
    assert "".join(delta.get("text", "") for delta in deltas) == "Hi there."
    assert [event["type"] for event in events[-3:]] == ["content_block_stop", "message_delta", "message_stop"]


async def test_a_stream_that_breaks_off_ends_with_an_error() -> None:
    _, router = made(Fault("error_event", after=3))
    async with router, router.http_client(flavour="httpx") as client:
        reply = await client.post(PATH, json={**BODY, "stream": True})
    last = events_of(reply.text)[-1]
    assert (reply.status_code, last["type"], last["error"]["type"]) == (200, "error", "api_error")
    assert last["request_id"] == reply.headers["request-id"]
    assert "\nevent: error\n" in reply.text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b"[]", "JSON object", id="no-object"),
        pytest.param(b"{", "JSON object", id="no-json"),
        pytest.param(b'{"messages": []}', "'model'", id="no-model"),
        pytest.param(json.dumps({**BODY, "stream": 1}).encode(), "'stream'", id="stream"),
        pytest.param(json.dumps({**BODY, "fallbacks": "x"}).encode(), "'fallbacks'", id="fallbacks"),
        pytest.param(json.dumps({**BODY, "mcp_servers": [{}]}).encode(), "'mcp_servers'", id="not-the-providers"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_in_anthropics_words(body: bytes, said: str) -> None:
    provider, router = made()
    async with router, router.http_client(flavour="httpx") as client:
        reply = await client.post(PATH, content=body)
    told = reply.json()
    assert (reply.status_code, told["type"], told["error"]["type"]) == (400, "error", "invalid_request_error")
    assert said in told["error"]["message"]
    assert not provider.journal


async def test_models_are_asked_of_the_router() -> None:
    _, router = made()
    async with router, router.http_client(flavour="httpx") as client:
        page = await client.get("/anthropic/v1/models?limit=1")
        missing = await client.get("/anthropic/v1/models/mistral%2Fnone")
    assert page.json() == {"data": [], "has_more": False, "first_id": None, "last_id": None}  # it lists none
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
    assert "'mistral/none'" in missing.json()["error"]["message"]


def test_a_blocking_stream_may_be_closed_again_and_after_its_router() -> None:
    provider, _ = made()
    with SyncRouter([provider]) as router:
        client = router.http_client(flavour="httpx")
        replies = [
            client.send(client.build_request("POST", PATH, json={**BODY, "stream": True}), stream=True)
            for _ in range(2)
        ]
        replies[0].close()
        replies[0].close()
    raw: Any = replies[0].stream
    for response in (raw, replies[1]):
        response.close()
    assert isinstance(replies[1], httpx.Response)
    assert replies[1].is_closed
