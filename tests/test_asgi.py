"""The ASGI application, driven as a server drives it: plain messages in and out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from bifrost_core import CallRecord, ConfigError, Key, Mistral, Router, asgi, hookimpl
from bifrost_core.testing import Fault, Simulated, SimulatedKey

PATH = "/openai/v1/chat/completions"
BODY: dict[str, Any] = {"model": "simulated/any", "messages": [{"role": "user", "content": "hi"}]}
SAID = "one two three four five six seven eight"


class Records:
    """Remembers how calls ended."""

    def __init__(self) -> None:
        self.all: list[CallRecord] = []

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.all.append(record)

    @property
    def outcomes(self) -> list[str]:
        return [record.outcome for record in self.all]


class Client:
    """What a server and its client do in one exchange.

    Args:
        messages: What the application receives; after the last one nothing comes until ``leave``.
    """

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.sent: list[dict[str, Any]] = []
        self.head = anyio.Event()
        self.left = anyio.Event()
        self._messages = list(messages)

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))
        if message["type"] == "http.response.body":
            self.head.set()
        await anyio.lowlevel.checkpoint()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def pieces(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:]]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def asked(body: Any, *, more: bool = False) -> dict[str, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {"type": "http.request", "body": data, "more_body": more}


def scope(path: str = PATH, method: str = "POST", *headers: tuple[bytes, bytes], query: bytes = b"") -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": list(headers),
    }


@pytest.fixture
async def routed() -> AsyncIterator[Any]:
    """Makes an application, its Router and what remembers how calls end."""
    routers: list[Router] = []

    def make(*faults: Fault) -> tuple[asgi.Application, Router, Records]:
        records = Records()
        provider = Simulated([SimulatedKey("a", faults=faults)], answer=lambda _: SAID)
        routers.append(Router([provider], plugins=[records]))
        return asgi.app(routers[-1]), routers[-1], records

    yield make
    for router in routers:
        await router.aclose()


async def test_a_plain_answer_is_one_message_with_its_length(routed: Any) -> None:
    app, _, records = routed()
    client = Client(asked(BODY))
    await app(scope(), client.receive, client.send)
    start, body = client.sent
    assert start["type"] == "http.response.start"
    assert body["type"] == "http.response.body"
    assert not body.get("more_body")
    assert client.status == 200
    assert client.headers["content-length"] == str(len(client.body))
    assert client.headers["content-type"] == "application/json"
    assert client.headers["x-request-id"] == records.all[0].call_id
    assert json.loads(client.body)["choices"][0]["message"]["content"] == SAID


async def test_a_stream_goes_out_piece_by_piece_and_ends(routed: Any) -> None:
    app, _, records = routed()
    client = Client(asked({**BODY, "stream": True}))
    await app(scope(), client.receive, client.send)
    assert client.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in client.headers
    *pieces, last = client.sent[1:]
    assert all(piece["more_body"] and piece["body"] for piece in pieces)
    assert last == {"type": "http.response.body", "body": b""}
    assert client.body.endswith(b"data: [DONE]\n\n")
    assert records.outcomes == ["ok"]


async def test_a_body_in_pieces_headers_and_query_are_read(routed: Any) -> None:
    app, _, records = routed()
    data = json.dumps(BODY).encode()
    client = Client(asked(data[:20], more=True), {"type": "http.request", "more_body": True}, asked(data[20:]))
    given = scope(PATH, "POST", (b"X-BF-Metadata", b'{"job": "nightly"}'), query=b"api-version=1")
    await app(given, client.receive, client.send)
    assert client.status == 200
    assert dict(records.all[0].metadata) == {"job": "nightly"}


async def test_a_path_without_its_raw_form_is_read(routed: Any) -> None:
    app, _, _ = routed()
    client = Client(asked(b""))
    given = scope("/openai/v1/models", "GET")
    del given["raw_path"], given["query_string"]
    await app(given, client.receive, client.send)
    assert client.status == 200


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nothing", "POST", 404), (PATH, "GET", 405), (PATH, "POST", 400)],
    ids=["no such path", "wrong method", "no JSON"],
)
async def test_errors_have_the_dialects_shape(routed: Any, path: str, method: str, status: int) -> None:
    app, _, _ = routed()
    client = Client(asked(b"{"))
    await app(scope(path, method), client.receive, client.send)
    assert client.status == status
    assert json.loads(client.body)["error"]["code"] == "invalid_request"


async def test_a_body_that_is_too_large_is_refused(routed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "MAX_UPLOAD", 10)
    app, _, records = routed()
    client = Client(asked(b"x" * 6, more=True), asked(b"x" * 6, more=True))
    await app(scope(), client.receive, client.send)
    assert client.status == 413
    assert records.all == []


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_client_that_leaves_ends_the_call(routed: Any, stream: bool) -> None:
    app, router, records = routed(Fault("hang", after=3 if stream else None))
    client = Client(asked({**BODY, "stream": stream}))
    async with anyio.create_task_group() as group:
        group.start_soon(app, scope(), client.receive, client.send)
        with anyio.fail_after(10):
            if stream:
                await client.head.wait()
            while not router._running:
                await anyio.sleep(0.005)
        client.left.set()
    assert records.outcomes == ["cancelled"]
    assert not router._running
    assert bool(client.sent) is stream  # nobody is there to be answered


async def test_a_client_that_leaves_before_its_body_is_whole_is_not_served(routed: Any) -> None:
    app, _, records = routed()
    client = Client(asked(b"{", more=True), {"type": "http.disconnect"})
    await app(scope(), client.receive, client.send)
    assert client.sent == []
    assert records.all == []


async def test_a_server_that_can_not_send_ends_the_call(routed: Any) -> None:
    app, router, records = routed(Fault("hang", after=3))
    client = Client(asked({**BODY, "stream": True}))

    async def send(message: Any) -> None:  # the connection is gone
        raise OSError("broken pipe")

    with pytest.raises(BaseExceptionGroup) as caught:
        await app(scope(), client.receive, send)
    assert caught.group_contains(OSError)
    assert records.outcomes == ["cancelled"]
    assert not router._running


async def test_the_router_lives_as_long_as_the_server(routed: Any) -> None:
    app, router, _ = routed()
    sent: list[dict[str, Any]] = []
    stop = anyio.Event()
    up = anyio.Event()
    messages = [{"type": "lifespan.startup"}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:
        sent.append(dict(message))
        up.set()
        await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(app, {"type": "lifespan"}, receive, send)
        with anyio.fail_after(10):
            await up.wait()
        client = Client(asked(BODY))
        await app(scope(), client.receive, client.send)
        assert client.status == 200
        stop.set()
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(ConfigError, match="closed"):
        await router.chat("simulated/any", "hi")


async def test_a_router_that_does_not_start_stops_the_server() -> None:
    router = Router([Mistral([Key("vault:secret/mistral", id="a")])])
    client = Client({"type": "lifespan.startup"})
    await asgi.app(router)({"type": "lifespan"}, client.receive, client.send)
    (told,) = client.sent
    assert told["type"] == "lifespan.startup.failed"
    assert "vault" in told["message"]


async def test_web_sockets_are_not_served(routed: Any) -> None:
    app, _, _ = routed()
    client = Client()
    with pytest.raises(NotImplementedError, match="websocket"):
        await app({"type": "websocket"}, client.receive, client.send)
