"""What every engine does alike: what breaks has one name, connections come back, nothing outlives a cancellation."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import anyio.abc
import httpx
import msgspec
import pytest

from bifrost_core import CallError, ConfigError, Key, Kind, Mistral, RetryPolicy, Router, Timeout
from bifrost_core.testing import Fault, Latency, SimulatedKey, SimulatedMistral

A = "sk-canary-aaaaaaaaaaaaaaaa"
MODEL = "mistral/mistral-small-latest"
ONCE = RetryPolicy(max_attempts=1, max_wait=0)

ENGINES = [
    pytest.param(engine, backend, id=f"{engine}-{backend}")
    for engine in ("httpx", "client", "aiohttp")
    for backend in ("asyncio", "trio")
    # aiohttp runs on asyncio alone; on trio httpx's clients leave generators of theirs to the collector, which warns
    if backend == "asyncio" or engine == "httpx"
]
on_every_engine = pytest.mark.parametrize(("engine", "anyio_backend"), ENGINES)


@pytest.fixture
def server() -> Iterator[SimulatedMistral]:
    with SimulatedMistral([SimulatedKey(A, id="a", latency=Latency(0.0))]) as running:
        yield running


@asynccontextmanager
async def routed(server: SimulatedMistral, engine: str, **options: object) -> AsyncIterator[Router]:
    providers = [Mistral([Key(A, id="a")], base_url=server.base_url)]
    if engine != "client":
        async with Router(providers, engine=engine, **options) as router:  # type: ignore[arg-type] # options of a Router
            yield router
        return
    async with httpx.AsyncClient() as client, Router(providers, engine=client, **options) as router:  # type: ignore[arg-type] # as above
        yield router


async def is_sound(router: Router) -> None:
    """Nothing is in flight, and calls are answered."""
    assert router._sender.in_flight == 0
    assert all(route.in_flight == 0 for route in router.health())
    assert (await router.chat(MODEL, "hi", max_tokens=3)).usage.output_tokens == 3


@on_every_engine
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(Fault("close"), Kind.CONNECTION_LOST, id="closed"),
        pytest.param(Fault("reset"), Kind.CONNECTION_LOST, id="reset"),
        pytest.param(Fault("half_head"), Kind.PROTOCOL_ERROR, id="half-a-head"),
        pytest.param(Fault("garbage"), Kind.PROTOCOL_ERROR, id="not-HTTP"),
        pytest.param(Fault("status", status=503), Kind.SERVER_ERROR, id="503"),
        pytest.param(Fault("status", status=307), Kind.REDIRECT, id="redirect"),
        pytest.param(Fault("html"), Kind.BAD_RESPONSE, id="a-page"),
    ],
)
async def test_what_breaks_before_the_answer_has_one_name(
    server: SimulatedMistral, engine: str, anyio_backend: str, stream: bool, fault: Fault, kind: Kind
) -> None:
    async with routed(server, engine, retry=ONCE) as router:
        await is_sound(router)  # so that the next exchange finds a connection that was used
        server.fail("a", fault)
        with pytest.raises(CallError) as caught:
            if stream:
                async with router.stream(MODEL, "hi"):
                    raise AssertionError
            await router.chat(MODEL, "hi")
        server.heal("a")
        router.close_route(router.health()[0].route)
        await is_sound(router)
    if engine == "client" and kind is Kind.PROTOCOL_ERROR:
        assert caught.value.kind in {kind, Kind.CONNECTION_LOST}  # httpx does not tell one from the other
    else:
        assert caught.value.kind == kind
    assert A not in str(caught.value)


@on_every_engine
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(Fault("half_body"), Kind.BAD_RESPONSE, id="half-a-body"),
        pytest.param(Fault("gzip_bomb", size=70 * 2**20), Kind.RESPONSE_TOO_LARGE, id="bomb"),
        pytest.param(Fault("empty"), Kind.BAD_RESPONSE, id="nothing"),
    ],
)
async def test_what_breaks_inside_the_answer_has_one_name(
    server: SimulatedMistral, engine: str, anyio_backend: str, fault: Fault, kind: Kind
) -> None:
    async with routed(server, engine, retry=ONCE) as router:
        server.fail("a", fault)
        with pytest.raises(CallError) as caught:
            await router.chat(MODEL, "hi")
        server.heal("a")
        router.close_route(router.health()[0].route)
        await is_sound(router)
    assert caught.value.kind == kind


@on_every_engine
@pytest.mark.parametrize("kind", ["truncate", "reset", "half_body"])
async def test_a_stream_that_is_cut_keeps_what_was_said(
    server: SimulatedMistral, engine: str, anyio_backend: str, kind: str
) -> None:
    server.fail("a", Fault(kind, after=4))  # type: ignore[arg-type] # of the parameters above
    async with routed(server, engine, retry=ONCE) as router:
        heard = ""
        with pytest.raises(CallError) as caught:
            async with router.stream(MODEL, "hi", max_tokens=40) as stream:
                async for text in stream.text():
                    heard += text
        server.heal("a")
        router.close_route(router.health()[0].route)
        await is_sound(router)
    assert heard
    assert caught.value.kind == Kind.STREAM_TRUNCATED


@on_every_engine
async def test_silence_is_noticed(server: SimulatedMistral, engine: str, anyio_backend: str) -> None:
    server.fail("a", Fault("hang"))
    async with routed(server, engine, retry=ONCE) as router:
        with pytest.raises(CallError) as caught:
            await router.chat(MODEL, "hi", timeout=Timeout(attempt=0.2))
        server.heal("a")
        await is_sound(router)
    assert caught.value.kind == Kind.READ_TIMEOUT


@on_every_engine
async def test_nobody_listens(server: SimulatedMistral, engine: str, anyio_backend: str) -> None:
    async with routed(server, engine, retry=ONCE) as router:
        server.stop()
        with pytest.raises(CallError) as caught:
            await router.chat(MODEL, "hi")
    assert caught.value.kind == Kind.CONNECT_ERROR
    assert {attempt.sent for attempt in caught.value.attempts} == {False}


ANSWER = msgspec.json.encode(
    {
        "id": "cmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mistral-small-latest",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }
)


class Counting:
    """A server that counts connections, and closes each unasked after so many answers."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.connections = 0
        self.requests = 0

    async def serve(self, *, task_status: anyio.abc.TaskStatus[int]) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener:
            task_status.started(listener.extra(anyio.abc.SocketAttribute.local_port))
            await listener.serve(self._connection)

    async def _connection(self, stream: anyio.abc.SocketStream) -> None:
        self.connections += 1
        async with stream:
            for _ in range(self.answers):
                data = b""
                while not (end := data.find(b"\r\n\r\n") + 4) > 4 or len(data) - end < _length(data):
                    try:
                        data += await stream.receive()
                    except anyio.EndOfStream:
                        return
                self.requests += 1
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
                await stream.send(head + ANSWER)


def _length(data: bytes) -> int:
    return int(data.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


@on_every_engine
@pytest.mark.parametrize(("answers", "connections"), [(100, 1), (2, 3)], ids=["kept-open", "closed-after-two"])
async def test_connections_are_used_again_as_long_as_they_are_open(
    engine: str, anyio_backend: str, answers: int, connections: int
) -> None:
    served = Counting(answers)
    async with anyio.create_task_group() as group:
        port = await group.start(served.serve)
        providers = [Mistral([Key(A, id="a")], base_url=f"http://127.0.0.1:{port}")]
        async with AsyncExitStack() as stack:
            chosen: object = engine
            if engine == "client":
                chosen = await stack.enter_async_context(httpx.AsyncClient())
            router = await stack.enter_async_context(Router(providers, engine=chosen))
            for _ in range(6):
                assert (await router.chat(MODEL, "hi")).text == "Hello."
                await anyio.sleep(0.01)  # so that the end of a connection is seen
        group.cancel_scope.cancel()
    assert (served.connections, served.requests) == (connections, 6)


@on_every_engine
async def test_a_compressed_answer_that_nobody_asked_for_is_read(
    server: SimulatedMistral, engine: str, anyio_backend: str
) -> None:
    server.fail("a", Fault("gzip"))
    async with routed(server, engine) as router:
        await is_sound(router)


@on_every_engine
async def test_a_stream_left_early_frees_its_place(server: SimulatedMistral, engine: str, anyio_backend: str) -> None:
    server.fail("a", Fault("slow_drip", size=40, pause=0.01))
    async with routed(server, engine) as router:
        async with router.stream(MODEL, "hi", max_tokens=200) as stream:
            await anext(stream)
        server.heal("a")
        await is_sound(router)


@on_every_engine
async def test_nothing_is_left_of_calls_that_were_cancelled_anywhere(
    server: SimulatedMistral, engine: str, anyio_backend: str
) -> None:
    server.fail("a", Fault("slow", delay=0.01))
    rng = random.Random(11)

    async def one(router: Router, seconds: float, stream: bool) -> None:
        with anyio.move_on_after(seconds):
            if not stream:
                await router.chat(MODEL, "hi", max_tokens=20)
                return
            async with router.stream(MODEL, "hi", max_tokens=20) as answer:
                async for _ in answer:
                    continue

    async with routed(server, engine) as router:
        for _ in range(6):
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(one, router, rng.uniform(0.0, 0.03), number % 2 == 0)
        server.heal("a")
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one, router, 30.0, False)
        await is_sound(router)


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_aiohttp_says_that_it_runs_on_asyncio_alone(anyio_backend: str) -> None:
    router = Router([Mistral([A])], engine="aiohttp")
    with pytest.raises(ConfigError, match="runs on asyncio alone, not on trio") as caught:
        await router.chat(MODEL, "hi")
    assert caught.value.field == "engine"
