"""HTTP clients with no network behind them: which library, whose event loop, and how they end."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest

from bifrost_core import CallRecord, ConfigError, RetryPolicy, Router, SyncRouter, clients, hookimpl
from bifrost_core.testing import Fault, Simulated, SimulatedKey

PATH = "/openai/v1/chat/completions"
BODY: dict[str, Any] = {
    "model": "simulated/any",
    "messages": [{"role": "user", "content": "hi"}],
}
SAID = "one two three four five six seven eight"


class Records:
    """Remembers how calls ended."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.ended = threading.Event()

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.outcomes.append(record.outcome)
        self.ended.set()


def provider(*faults: Fault) -> Simulated:
    return Simulated([SimulatedKey("a", faults=faults)], answer=lambda _: SAID)


@pytest.fixture
def started() -> Iterator[Callable[..., tuple[SyncRouter, Records]]]:
    """Makes a ``SyncRouter`` and what remembers how its calls end."""
    made: list[SyncRouter] = []

    def start(*faults: Fault) -> tuple[SyncRouter, Records]:
        records = Records()
        made.append(SyncRouter([provider(*faults)], plugins=[records], retry=RetryPolicy(backoff=0, max_wait=0)))
        return made[-1], records

    yield start
    for router in made:
        router.close()


# --- which library


async def test_a_client_of_httpx_points_where_no_name_resolves() -> None:
    async with Router([provider()]) as router, router.http_client(flavour="httpx") as client:
        assert type(client) is httpx.AsyncClient
        assert client.base_url == httpx.URL("http://bifrost.invalid")
        assert client.timeout == httpx.Timeout(None)
        assert (await client.post(PATH, json=BODY)).json()["choices"][0]["message"]["content"] == SAID
    with SyncRouter([provider()]) as blocking:
        assert type(blocking.http_client(flavour="httpx")) is httpx.Client


@pytest.mark.parametrize("make", ["http_client", "sync_http_client"])
def test_a_flavour_that_is_none_or_not_there_is_refused(make: str, monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router([provider()])
    with pytest.raises(ConfigError, match="there are httpx and httpx2") as caught:
        getattr(router, make)(flavour="requests")
    assert caught.value.field == "flavour"
    monkeypatch.setattr(clients, "find_spec", lambda name: None if name == "httpx2" else object())
    with pytest.raises(ConfigError, match="pip install httpx2"):
        getattr(router, make)(flavour="httpx2")
    assert type(getattr(router, make)()).__module__.partition(".")[0] == "httpx"  # the one that is there


async def test_headers_and_bodies_pass_as_they_are() -> None:
    async with Router([provider()]) as router, router.http_client(flavour="httpx") as client:

        async def pieces() -> Any:
            yield b'{"model": "simulated/any", '
            yield '"messages": [{"role": "user", "content": "schön"}]}'.encode()

        reply = await client.post(PATH, content=pieces(), headers={"X-BF-Session": "s1"})
        assert reply.status_code == 200
        assert reply.http_version == "HTTP/1.1"
        assert reply.is_closed


# --- whose event loop


def test_a_blocking_client_of_a_blocking_router_reads_whole_and_in_pieces(
    started: Callable[..., tuple[SyncRouter, Records]],
) -> None:
    router, records = started()
    with router.http_client(flavour="httpx") as client:
        assert client.post(PATH, json=BODY).json()["choices"][0]["message"]["content"] == SAID
        with client.stream("POST", PATH, json={**BODY, "stream": True}) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            body = "".join(reply.iter_text())
    assert body.endswith("data: [DONE]\n\n")
    assert records.outcomes == ["ok", "ok"]


def test_a_blocking_client_of_a_router_that_runs_nowhere_brings_an_event_loop() -> None:
    records = Records()
    router = Router([provider()], plugins=[records])
    with router.sync_http_client(flavour="httpx") as one, router.sync_http_client(flavour="httpx") as two:
        assert one.post(PATH, json=BODY).status_code == 200
        with two.stream("POST", PATH, json={**BODY, "stream": True}) as reply:
            assert reply.read().endswith(b"data: [DONE]\n\n")
    assert records.outcomes == ["ok", "ok"]


async def test_a_blocking_client_calls_on_the_routers_loop_from_another_thread() -> None:
    async with Router([provider()]) as router, router.http_client(flavour="httpx") as waiting:
        assert (await waiting.post(PATH, json=BODY)).status_code == 200
        with router.sync_http_client(flavour="httpx") as client:

            def run() -> tuple[int, bytes]:
                with client.stream("POST", PATH, json={**BODY, "stream": True}) as reply:
                    return client.post(PATH, json=BODY).status_code, reply.read()

            status, body = await anyio.to_thread.run_sync(run)
            with pytest.raises(ConfigError, match="would block the Router's own event loop"):
                client.post(PATH, json=BODY)
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")


def test_an_error_of_the_door_is_the_librarys_own(started: Callable[..., tuple[SyncRouter, Records]]) -> None:
    router, records = started(Fault("hang"))
    with router.http_client(flavour="httpx") as client:
        with pytest.raises(httpx.ReadTimeout, match="nothing came"):
            client.post(PATH, json=BODY, timeout=0.05)
        with pytest.raises(httpx.ReadTimeout, match="nothing came"):
            client.post(PATH, json={**BODY, "stream": True}, timeout=0.05)
    assert records.ended.wait(10)


# --- how they end


def test_leaving_a_blocking_stream_ends_the_call(started: Callable[..., tuple[SyncRouter, Records]]) -> None:
    router, records = started(Fault("hang", after=3))
    with router.http_client(flavour="httpx") as client:
        with client.stream("POST", PATH, json={**BODY, "stream": True}) as reply:
            next(reply.iter_raw())
    assert records.outcomes == ["cancelled"]
    assert router.health()[0].in_flight == 0


def test_a_dropped_blocking_stream_ends_the_call(started: Callable[..., tuple[SyncRouter, Records]]) -> None:
    router, records = started(Fault("hang", after=3))
    client = router.http_client(flavour="httpx")
    request = client.build_request("POST", PATH, json={**BODY, "stream": True})
    reply = client.send(request, stream=True)
    assert reply.status_code == 200
    del reply, request
    gc.collect()
    assert records.ended.wait(10)
    assert records.outcomes == ["cancelled"]


def test_a_stream_that_is_closed_behind_its_router_says_nothing(
    started: Callable[..., tuple[SyncRouter, Records]],
) -> None:
    router, records = started(Fault("hang", after=3))
    client = router.http_client(flavour="httpx")
    request = client.build_request("POST", PATH, json={**BODY, "stream": True})
    reply = client.send(request, stream=True)
    reply.close()
    router.close()
    reply.close()
    late = client.build_request("POST", PATH, json=BODY)
    with pytest.raises(ConfigError, match="is closed"):
        client.send(late)
    assert records.outcomes == ["cancelled"]


async def test_a_stream_that_another_thread_drops_ends_on_its_own_event_loop() -> None:
    """As a garbage collector does, which runs wherever it is due."""
    records = Records()
    async with Router([provider(Fault("hang", after=3))], plugins=[records]) as router:
        door = clients.Door(router)
        body = b'{"model": "simulated/any", "messages": [{"role": "user", "content": "x"}], "stream": true}'
        held = [await door.answer("POST", PATH, {}, body)]

        def drop() -> None:
            held.clear()
            gc.collect()

        await anyio.to_thread.run_sync(drop)
        with anyio.fail_after(10):
            while router._running:
                await anyio.sleep(0.005)
        assert [route.in_flight for route in router.health()] == [0]
    assert records.outcomes == ["cancelled"]


def test_closing_on_the_routers_own_event_loop_waits_for_nothing(
    started: Callable[..., tuple[SyncRouter, Records]],
) -> None:
    """As a garbage collector may that runs there: it would wait for itself."""
    router, records = started(Fault("hang", after=3))
    client = router.http_client(flavour="httpx")
    held = [client.send(client.build_request("POST", PATH, json={**BODY, "stream": True}), stream=True)]
    router.portal().call(held[0].close)
    held.clear()
    gc.collect()
    assert records.ended.wait(10)
    assert records.outcomes == ["cancelled"]
