"""The one door: which dialect a path means, which options and keys headers give, and when it gives up waiting."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import anyio
import httpx
import pytest
import trio
import trio.testing

from bifrost_core import Call, CallRecord, Price, PriceBook, Router, Timeout, hookimpl
from bifrost_core.dialects import Door, Reply, StreamedReply
from bifrost_core.testing import Fault, Latency, Simulated, SimulatedKey

MODEL = "mistral/mistral-small-latest"
PATH = "/openai/v1/chat/completions"
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
VIRTUAL_KEY = "sk-bf-0123456789abcdef"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


class Seen:
    """Remembers the calls, and how they ended."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_authenticate(self, call: Call) -> None:
        self.calls.append(call)

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)

    @property
    def keys(self) -> list[str | None]:
        return [None if call.virtual_key is None else call.virtual_key.reveal() for call in self.calls]


# --- addresses


@pytest.mark.parametrize(
    "path",
    [
        "/openai/v1/chat/completions",
        "/openai/chat/completions",
        "/v1/chat/completions",
        "/chat/completions",
        "//openai/v1/chat/completions/",
        "/openai/v1/chat%2Fcompletions",
        "/openai/v1/chat/completions?api-version=1&empty=",
    ],
)
async def test_the_first_segment_names_the_dialect_and_without_one_the_path_tells(opened: Any, path: str) -> None:
    async with opened() as (client, _, _):
        reply = await client.post("http://any.host.at.all" + path, json=BODY)
    assert reply.status_code == 200
    assert reply.json()["object"] == "chat.completion"


@pytest.mark.parametrize("path", ["/", "", "/openai", "/openai/v2/chat/completions", "/v1", "/v1beta/chat/completions"])
async def test_what_no_dialect_has_is_not_found(opened: Any, path: str) -> None:
    async with opened() as (client, _, _):
        reply = await client.post(path, json=BODY)
    assert reply.status_code == 404
    assert reply.json()["error"]["type"] == "not_found_error"


# --- options


async def test_headers_give_the_options_and_no_credential_is_shown(opened: Any) -> None:
    seen = Seen()
    headers = {
        "x-bf-session": "s1",
        "x-bf-cache": '{"mode": "refresh", "ttl": 5}',
        "x-bf-metadata": '{"job": "nightly"}',
        "x-bf-vk": VIRTUAL_KEY,
        "x-bf-note": "mine",
        "authorization": "Bearer sk-other",
        "cookie": "secret",
        "traceparent": "00-1-2-03",
        "baggage": "a" * 9000,
        "user-agent": "sdk/1",
    }
    async with opened(plugins=[seen]) as (client, _, _):
        assert (await client.post(PATH, json=BODY, headers=headers)).status_code == 200
    (call,) = seen.calls
    assert call.options == {"session": "s1", "cache": {"mode": "refresh", "ttl": 5}}
    assert dict(call.metadata) == {"job": "nightly"}
    assert dict(call.headers) == {
        "traceparent": "00-1-2-03",
        "user-agent": "sdk/1",
        **{name: headers[name] for name in ("x-bf-session", "x-bf-cache", "x-bf-metadata", "x-bf-note")},
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("x-bf-metadata", "{", id="metadata is no JSON"),
        pytest.param("x-bf-metadata", "[]", id="metadata is a list"),
        pytest.param("x-bf-cache", "sometimes", id="no such mode"),
        pytest.param("x-bf-cache", "{", id="cache is no JSON"),
        pytest.param("x-bf-cache", '{"mode": "use", "ttl": -1}', id="no such time"),
    ],
)
async def test_an_option_that_can_not_be_read_is_refused_by_name(opened: Any, name: str, value: str) -> None:
    async with opened() as (client, provider, _):
        reply = await client.post(PATH, json=BODY, headers={name: value})
        assert not provider.journal
    assert reply.status_code == 400
    assert name in reply.json()["error"]["message"]


# --- who calls


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        pytest.param({"authorization": f"Bearer {VIRTUAL_KEY}"}, VIRTUAL_KEY, id="bearer"),
        pytest.param({"authorization": f"bearer  {VIRTUAL_KEY} "}, VIRTUAL_KEY, id="bearer, spelled otherwise"),
        pytest.param({"x-api-key": VIRTUAL_KEY}, VIRTUAL_KEY, id="x-api-key"),
        pytest.param({"authorization": f"Bearer {TOKEN}"}, TOKEN, id="JSON Web Token"),
        pytest.param({"x-bf-vk": "anything-at-all"}, "anything-at-all", id="our own header"),
        pytest.param({"x-bf-vk": "one-key-1", "authorization": f"Bearer {VIRTUAL_KEY}"}, "one-key-1", id="it wins"),
        pytest.param(
            {"authorization": "Bearer sk-proj-foreign", "x-api-key": VIRTUAL_KEY}, VIRTUAL_KEY, id="the one of ours"
        ),
        pytest.param({"authorization": "Bearer sk-proj-foreign"}, None, id="a foreign key"),
        pytest.param({"x-api-key": "sk-ant-foreign"}, None, id="another foreign key"),
        pytest.param({"authorization": f"Basic {VIRTUAL_KEY}"}, None, id="another scheme"),
        pytest.param({"authorization": "Bearer"}, None, id="nothing"),
        pytest.param({}, None, id="nobody"),
    ],
)
async def test_the_virtual_key_is_where_sdks_put_their_keys(
    opened: Any, headers: dict[str, str], key: str | None
) -> None:
    seen = Seen()
    async with opened(plugins=[seen]) as (client, provider, _):
        assert (await client.post(PATH, json=BODY, headers=headers)).status_code == 200
        assert [served.key_id for served in provider.journal] == ["a"]
    assert seen.keys == [key]


async def test_a_client_may_have_a_virtual_key_of_its_own(opened: Any) -> None:
    seen = Seen()
    async with opened(plugins=[seen]) as (_, _, router):
        async with router.http_client(virtual_key="sk-bf-of-the-client", flavour="httpx") as client:
            await client.post(PATH, json=BODY)
            await client.post(PATH, json=BODY, headers={"authorization": f"Bearer {VIRTUAL_KEY}"})
            await client.get("/openai/v1/models")
    assert seen.keys == ["sk-bf-of-the-client", VIRTUAL_KEY, "sk-bf-of-the-client"]


async def test_a_key_that_can_be_none_is_refused_without_being_told(opened: Any) -> None:
    async with opened() as (client, _, _):
        reply = await client.post(PATH, json=BODY, headers={"x-bf-vk": "sk-bf-" + "x" * 5000})
    assert reply.status_code == 401
    assert "xxxx" not in reply.text + str(reply.headers)


# --- what is told beside the answer


async def test_what_the_router_knows_stands_in_headers(opened: Any) -> None:
    seen = Seen()
    prices = PriceBook({MODEL: Price(input="1000000", output="1000000")})
    async with opened(plugins=[seen], router={"prices": prices}, answer=lambda _: "one two") as (client, _, _):
        reply = await client.post(PATH, json=BODY)
        models = await client.get("/openai/v1/models")
    record = seen.records[0]
    assert {name: value for name, value in reply.headers.items() if name.startswith("x-")} == {
        "x-bf-call-id": record.call_id,
        "x-bf-provider": "mistral",
        "x-bf-model": "mistral-small-latest",
        "x-bf-key-id": "a",
        "x-bf-attempts": "1",
        "x-bf-cached": "false",
        "x-bf-cost-usd": format(Decimal(record.usage.total_tokens), "f"),
        "x-request-id": record.call_id,
    }
    assert reply.headers["request-id"] == record.call_id
    assert models.status_code == 200


async def test_a_stream_names_its_call_in_the_head_and_takes_its_pieces_in_turn(opened: Any) -> None:
    seen = Seen()
    async with opened(plugins=[seen], answer=lambda _: "one two three four") as (_, _, router):
        body = (
            b'{"model": "mistral/mistral-small-latest", "messages": [{"role": "user", "content": "x"}], "stream": true}'
        )
        reply = await Door(router).answer("POST", PATH, {}, body)
        assert isinstance(reply, StreamedReply)
        assert reply.status == 200
        pieces = [piece async for piece in reply.pieces]
        assert [piece async for piece in reply.pieces] == []
        await reply.aclose()
        await reply.aclose()
    assert all(pieces)
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")
    assert reply.headers["x-request-id"] == seen.records[0].call_id
    assert [record.outcome for record in seen.records] == ["ok"]


async def test_a_whole_reply_is_bytes(opened: Any) -> None:
    async with opened() as (_, _, router):
        reply = await Door(router).answer("GET", "/openai/v1/models", {}, b"")
    assert isinstance(reply, Reply)
    assert "content-length" not in reply.headers
    assert reply.body.startswith(b'{"object":"list"')


# --- how long it waits


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_client_that_waits_no_longer_ends_the_call(opened: Any, stream: bool) -> None:
    seen = Seen()
    async with opened(Fault("hang"), plugins=[seen]) as (client, _, router):
        with pytest.raises(httpx.ReadTimeout):
            await client.post(PATH, json={**BODY, "stream": stream}, timeout=0.05)
        with anyio.fail_after(10):
            while router._running:
                await anyio.sleep(0.005)
        assert [route.in_flight for route in router.health()] == [0]
    assert [record.outcome for record in seen.records] == ["cancelled"]


async def test_a_stream_that_falls_silent_for_longer_than_the_client_waits_is_ended(opened: Any) -> None:
    seen = Seen()
    law = "one two three four five six seven eight nine ten"
    async with opened(Fault("hang", after=3), plugins=[seen], answer=lambda _: law) as (client, _, router):
        pieces: list[str] = []
        with pytest.raises(httpx.ReadTimeout):
            async with client.stream("POST", PATH, json={**BODY, "stream": True}, timeout=0.2) as reply:
                async for piece in reply.aiter_text():
                    pieces.append(piece)
        assert pieces
        assert not router._running
    assert [record.outcome for record in seen.records] == ["cancelled"]


def test_a_client_without_a_time_out_has_the_routers_own_limits() -> None:
    """The answer takes longer than the Router allows, in virtual time."""

    async def ask() -> tuple[int, str]:
        provider = Simulated([SimulatedKey("a", latency=Latency(100.0))], name="mistral")
        async with (
            Router([provider], timeout=Timeout(total=60)) as router,
            router.http_client(flavour="httpx") as client,
        ):
            reply = await client.post(PATH, json=BODY)
            return reply.status_code, reply.json()["error"]["code"]

    assert trio.run(ask, clock=trio.testing.MockClock(autojump_threshold=0)) == (504, "deadline_exceeded")


# --- leaving


async def test_leaving_a_stream_early_ends_the_call(opened: Any) -> None:
    seen = Seen()
    async with opened(Fault("hang", after=3), plugins=[seen], answer=lambda _: "a b c d e f g h") as (
        client,
        _,
        router,
    ):
        async with client.stream("POST", PATH, json={**BODY, "stream": True}) as reply:
            assert reply.status_code == 200
        assert not router._running
    assert [record.outcome for record in seen.records] == ["cancelled"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_cancelled_reader_leaves_nothing_behind(opened: Any, stream: bool) -> None:
    seen = Seen()
    async with opened(Fault("hang", after=3 if stream else None), plugins=[seen], answer=lambda _: "a b c d e f g") as (
        client,
        _,
        router,
    ):
        with anyio.move_on_after(0.1) as scope:
            await client.post(PATH, json={**BODY, "stream": stream})
        assert scope.cancelled_caught
        with anyio.fail_after(10):
            while router._running:
                await anyio.sleep(0.005)
        assert [route.in_flight for route in router.health()] == [0]
    assert [record.outcome for record in seen.records] == ["cancelled"]
