"""``Simulated``: keys with a script, on the event loop's own time."""

from __future__ import annotations

import gzip
import math
import random
import zlib
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeVar, cast

import anyio
import attrs
import msgspec
import pytest
from trio.testing import MockClock

from bifrost_core import Router
from bifrost_core.engines.base import Exchange, HttpStream, TransportError
from bifrost_core.errors import CallError, ConfigError
from bifrost_core.kinds import Kind
from bifrost_core.prices import Price, PriceBook
from bifrost_core.providers.base import Provider
from bifrost_core.responses import ChatResponse
from bifrost_core.testing import FakeClock, Fault, Latency, LoopClock, SimulatedKey
from bifrost_core.testing.simulated import Simulated
from bifrost_core.types import Chunk, Operation, Request, Usage
from bifrost_core.wire import HttpReply

T = TypeVar("T")
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def virtual(main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` on trio with a clock that jumps over every wait."""
    return anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


def request(stream: bool = False, model: str = "small", **body: Any) -> Request:
    return Request(Operation.CHAT, model, {**ASK, **body}, stream=stream)


def exchange(provider: Simulated, asked: Request, key: int = 0, **limits: Any) -> Exchange:
    """What the sender would send."""
    call = provider.encode(asked)
    secret = provider.keys[key].secret
    assert secret is not None
    headers = [*call.headers, (provider.auth.header, provider.auth.prefix + secret.reveal().encode())]
    made = Exchange(call.method, call.url, headers, call.body, provider.network, connect=2.0, read=30.0)
    for name, value in limits.items():
        setattr(made, name, value)
    return made


async def read(stream: HttpStream) -> bytes:
    try:
        return b"".join([data async for data in stream])
    finally:
        await stream.aclose()


async def plain(provider: Simulated, key: int = 0, **body: Any) -> ChatResponse:
    asked = request(**body)
    answer = await provider.engine.open(exchange(provider, asked, key))
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    reply = HttpReply(answer.status, headers, await read(answer))
    return cast("ChatResponse", provider.decode(asked, reply))


async def streamed(provider: Simulated, key: int = 0, **body: Any) -> tuple[list[tuple[float, Chunk]], ChatResponse]:
    """Every chunk with its time after the request, and the whole."""
    asked = request(stream=True, **body)
    began = anyio.current_time()
    decoder = provider.decoder(asked)
    answer = await provider.engine.open(exchange(provider, asked, key))
    chunks: list[tuple[float, Chunk]] = []
    async for data in answer:
        chunks += [(anyio.current_time() - began, chunk) for chunk in decoder.feed(data)]
        if decoder.done or decoder.error:
            break
    await answer.aclose()
    return chunks, cast("ChatResponse", decoder.finish())


async def transport_error(provider: Simulated, stream: bool, **limits: Any) -> tuple[TransportError, bytes, float]:
    """The error that an exchange ends with, the bytes before it and the time it took."""
    began = anyio.current_time()
    received = b""
    answer: HttpStream | None = None
    try:
        answer = await provider.engine.open(exchange(provider, request(stream=stream), **limits))
        async for data in answer:
            received += data
    except TransportError as error:
        return error, received, anyio.current_time() - began
    finally:
        if answer is not None:
            await answer.aclose()
    pytest.fail("the exchange went well")


# -- answers and time --------------------------------------------------------------------------------------------


async def test_it_answers_on_both_event_loops() -> None:
    provider = Simulated(["one"])
    reply = await plain(provider)
    chunks, whole = await streamed(provider)
    assert reply.finish_reason == "stop"
    assert reply.text
    assert "".join(chunk.text for _, chunk in chunks) == whole.text != ""
    assert provider.counters["one"].requests == 2


def test_a_plain_answer_comes_when_its_last_token_is_there() -> None:
    provider = Simulated([SimulatedKey("one", latency=Latency(0.5, tokens_per_second=10), output_tokens=(20, 20))])

    async def main() -> float:
        began = anyio.current_time()
        reply = await plain(provider)
        assert reply.usage.output_tokens == 20
        return anyio.current_time() - began

    assert virtual(main) == pytest.approx(0.5 + 20 / 10)


def test_a_stream_gives_each_token_at_its_time() -> None:
    provider = Simulated([SimulatedKey("one", latency=Latency(0.5, tokens_per_second=10), output_tokens=(20, 20))])
    chunks, whole = virtual(lambda: streamed(provider))
    assert chunks[0][0] == pytest.approx(0.5)
    assert chunks[-1][0] == pytest.approx(0.5 + 20 / 10)
    assert whole.usage.output_tokens == 20
    times = [at for at, _ in chunks]
    assert times == sorted(times)


def test_an_hour_of_traffic_takes_no_hour() -> None:
    provider = Simulated([SimulatedKey("slow", latency=20.0)])

    async def main() -> float:
        began = anyio.current_time()
        for _ in range(180):
            await plain(provider)
        return anyio.current_time() - began

    assert virtual(main) == pytest.approx(3600)


def test_latencies_are_lognormal_around_the_median() -> None:
    provider = Simulated([SimulatedKey("one", latency=Latency(1.0, sigma=0.5))], seed=3)

    async def main() -> list[float]:
        spent = []
        for _ in range(400):
            began = anyio.current_time()
            await plain(provider)
            spent.append(anyio.current_time() - began)
        return spent

    logs = [math.log(seconds) for seconds in virtual(main)]
    mean = sum(logs) / len(logs)
    sigma = math.sqrt(sum((value - mean) ** 2 for value in logs) / len(logs))
    assert abs(mean) < 4 * 0.5 / math.sqrt(400)
    assert sigma == pytest.approx(0.5, rel=0.15)


def test_the_nth_answer_of_a_key_does_not_depend_on_the_others() -> None:
    keys = [SimulatedKey(name, latency=Latency(1.0, sigma=0.5)) for name in ("a", "b")]

    async def texts(provider: Simulated, order: list[int]) -> list[tuple[int, str, float]]:
        found = []
        for key in order:
            began = anyio.current_time()
            text = (await plain(provider, key)).text
            found.append((key, text, round(anyio.current_time() - began, 6)))
        return found

    mixed = virtual(lambda: texts(Simulated(keys, seed=7), [0, 1, 1, 0, 1, 0]))
    alone = virtual(lambda: texts(Simulated(keys, seed=7), [0, 0, 0]))
    other = virtual(lambda: texts(Simulated(keys, seed=8), [0, 0, 0]))
    assert [row for row in mixed if row[0] == 0] == alone
    assert other != alone


def test_the_test_can_write_the_answers() -> None:
    provider = Simulated(["one"], answer=lambda body: f"you said {body['messages'][-1]['content']}")
    assert virtual(lambda: plain(provider)).text == "you said hello"


def test_tools_and_limits_of_a_request_are_kept() -> None:
    provider = Simulated(["one"])
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    reply = virtual(lambda: plain(provider, tools=[tool], tool_choice="any"))
    short = virtual(lambda: plain(provider, max_tokens=3))
    assert [call.name for call in reply.tool_calls] == ["add"]
    assert (short.usage.output_tokens, short.finish_reason) == (3, "length")


# -- limits --------------------------------------------------------------------------------------------------------


def test_a_key_over_its_limit_is_told_so_until_the_minute_has_passed() -> None:
    provider = Simulated([SimulatedKey("one", requests_per_minute=2, retry_after=30)])

    async def main() -> list[str]:
        outcomes = []
        for _ in range(3):
            try:
                await plain(provider)
                outcomes.append("ok")
            except CallError as error:
                outcomes.append(f"{error.kind} {error.retry_after:g}")
        await anyio.sleep(30)
        await plain(provider)
        return [*outcomes, "ok"]

    assert virtual(main) == ["ok", "ok", "rate_limited 30", "ok"]
    assert provider.counters["one"].statuses == {200: 3, 429: 1}


def test_keys_of_a_quota_group_share_their_limit_and_say_so() -> None:
    provider = Simulated(
        [SimulatedKey("a", quota_group="org", requests_per_minute=1), SimulatedKey("b", quota_group="org")]
    )

    async def main() -> None:
        await plain(provider, 0)
        with pytest.raises(CallError) as caught:
            await plain(provider, 1)
        assert caught.value.kind is Kind.RATE_LIMITED

    virtual(main)
    assert [key.quota_group for key in provider.keys] == ["org", "org"]


def test_a_clock_of_ones_own_rules_limits_and_faults() -> None:
    clock = FakeClock()
    provider = Simulated([SimulatedKey("one", requests_per_minute=1, faults=Fault("status", start=100))], clock=clock)

    async def main() -> list[Kind | None]:
        kinds: list[Kind | None] = []
        for step in (0.0, 1.0, 60.0, 60.0):
            clock.advance(step)
            try:
                await plain(provider)
                kinds.append(None)
            except CallError as error:
                kinds.append(error.kind)
        return kinds

    assert virtual(main) == [None, Kind.RATE_LIMITED, None, Kind.SERVER_ERROR]


def test_the_headers_tell_what_is_left() -> None:
    provider = Simulated([SimulatedKey("one", requests_per_minute=5)])

    async def main() -> tuple[float, float]:
        answer = await provider.engine.open(exchange(provider, request()))
        await read(answer)
        quota = provider.quotas({name.decode(): value.decode() for name, value in answer.headers})
        return quota[0].remaining, quota[0].limit

    assert virtual(main) == (4, 5)


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "stream", "kind", "received", "phase"),
    [
        pytest.param(Fault("reset"), False, Kind.CONNECTION_LOST, False, "first_byte", id="reset"),
        pytest.param(Fault("close"), True, Kind.CONNECTION_LOST, False, "first_byte", id="close"),
        pytest.param(Fault("half_head"), False, Kind.PROTOCOL_ERROR, True, "first_byte", id="half-head"),
        pytest.param(Fault("garbage"), False, Kind.PROTOCOL_ERROR, True, "first_byte", id="garbage"),
        pytest.param(Fault("hang"), False, Kind.READ_TIMEOUT, False, "first_byte", id="hang"),
        pytest.param(Fault("half_head", then="hang"), True, Kind.READ_TIMEOUT, True, "first_byte", id="half-hang"),
        pytest.param(Fault("hold"), False, Kind.READ_TIMEOUT, False, "first_byte", id="hold"),
        pytest.param(Fault("hang", after=3), True, Kind.READ_TIMEOUT, True, "idle", id="hang-in-stream"),
        pytest.param(Fault("reset", after=3), True, Kind.BAD_RESPONSE, True, "idle", id="reset-in-stream"),
        pytest.param(Fault("half_body"), True, Kind.BAD_RESPONSE, True, "idle", id="half-event"),
        pytest.param(Fault("half_body"), False, Kind.BAD_RESPONSE, True, "idle", id="half-body"),
        pytest.param(Fault("wrong_length"), False, Kind.BAD_RESPONSE, True, "idle", id="wrong-length"),
        pytest.param(Fault("wrong_length"), True, Kind.BAD_RESPONSE, True, "idle", id="wrong-length-in-stream"),
    ],
)
def test_a_broken_exchange_is_a_transport_error(
    fault: Fault, stream: bool, kind: Kind, received: bool, phase: str
) -> None:
    provider = Simulated([SimulatedKey("one", latency=0.2, faults=fault)])
    error, data, spent = virtual(lambda: transport_error(provider, stream, read=5.0))
    assert (error.kind, error.received, error.phase, error.sent) == (kind, received, phase, True)
    assert bool(data) is (phase == "idle")
    if kind is Kind.READ_TIMEOUT:
        assert spent == pytest.approx(5.0 + (0.2 if phase == "idle" else 0.0))
    record = provider.journal[-1]
    assert record.fault == fault.kind
    assert record.ended_after is not None
    assert provider.counters["one"].in_flight == 0


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(Fault("status", status=429), Kind.RATE_LIMITED, id="429"),
        pytest.param(Fault("status", status=401), Kind.AUTH, id="401"),
        pytest.param(Fault("status", status=503), Kind.SERVER_ERROR, id="503"),
        pytest.param(Fault("html"), Kind.BAD_RESPONSE, id="html"),
        pytest.param(Fault("empty"), Kind.BAD_RESPONSE, id="empty"),
        pytest.param(Fault("not_json"), Kind.BAD_RESPONSE, id="not-json"),
        pytest.param(Fault("truncate"), Kind.BAD_RESPONSE, id="truncate"),
        pytest.param(Fault("sse"), Kind.BAD_RESPONSE, id="sse"),
        pytest.param(Fault("wrong_length", size=-9), Kind.BAD_RESPONSE, id="too-short-a-length"),
    ],
)
def test_an_unusable_answer_reaches_the_adapter(fault: Fault, kind: Kind) -> None:
    provider = Simulated([SimulatedKey("one", faults=fault)])

    async def main() -> Kind:
        with pytest.raises(CallError) as caught:
            await plain(provider)
        return caught.value.kind

    assert virtual(main) is kind


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(Fault("truncate"), Kind.STREAM_TRUNCATED, id="truncate"),
        pytest.param(Fault("not_json"), Kind.STREAM_MALFORMED, id="not-json"),
        pytest.param(Fault("error_event"), Kind.STREAM_ERROR, id="error-event"),
    ],
)
def test_a_broken_stream_reaches_the_decoder(fault: Fault, kind: Kind) -> None:
    provider = Simulated([SimulatedKey("one", faults=fault)])

    async def main() -> Kind:
        with pytest.raises(CallError) as caught:
            await streamed(provider)
        return caught.value.kind

    assert virtual(main) is kind


@pytest.mark.parametrize("kind", ["no_done", "crlf", "bom", "split", "wrong_type", "sse"])
def test_a_harmless_oddity_changes_no_word(kind: Any) -> None:
    odd = Simulated([SimulatedKey("one", faults=Fault(kind))])
    even = Simulated(["one"])
    assert virtual(lambda: streamed(odd))[1].text == virtual(lambda: streamed(even))[1].text


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_gzip_is_the_same_answer_compressed(stream: bool) -> None:
    packed = Simulated([SimulatedKey("one", faults=Fault("gzip"))])
    open_ = Simulated(["one"])

    async def body(provider: Simulated) -> tuple[bytes, bytes | None]:
        answer = await provider.engine.open(exchange(provider, request(stream=stream)))
        return await read(answer), dict(answer.headers).get(b"content-encoding")

    compressed, coding = virtual(lambda: body(packed))
    assert coding == b"gzip"
    assert (gzip.decompress(compressed), None) == virtual(lambda: body(open_))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("kind", ["oversized", "gzip_bomb"])
def test_an_oversized_answer_has_its_size(kind: Any, stream: bool) -> None:
    provider = Simulated([SimulatedKey("one", faults=Fault(kind, size=300_000))])

    async def main() -> bytes:
        return await read(await provider.engine.open(exchange(provider, request(stream=stream))))

    data = virtual(main)
    whole = zlib.decompress(data, 31) if kind == "gzip_bomb" else data
    assert len(whole) == 300_000
    assert kind != "gzip_bomb" or len(data) < 10_000


def test_comments_alone_keep_a_stream_open_for_ever() -> None:
    provider = Simulated([SimulatedKey("one", faults=Fault("comments_only", pause=1.0))])

    async def main() -> bytes:
        data = b""
        with anyio.move_on_after(100):
            answer = await provider.engine.open(exchange(provider, request(stream=True)))
            async for piece in answer:
                data += piece
        await answer.aclose()
        return data

    assert virtual(main).count(b": still here") in {99, 100}
    assert provider.counters["one"].left == 1


def test_a_dripping_body_takes_its_time() -> None:
    provider = Simulated([SimulatedKey("one", faults=Fault("slow_drip", size=50, pause=2.0))])

    async def main() -> tuple[int, float]:
        began = anyio.current_time()
        data = await read(await provider.engine.open(exchange(provider, request())))
        return len(data), anyio.current_time() - began

    size, spent = virtual(main)
    assert spent == pytest.approx(2.0 * ((size - 1) // 50))


def test_a_slow_key_answers_at_a_fraction_of_its_speed_while_the_fault_lasts() -> None:
    provider = Simulated([SimulatedKey("one", latency=1.0, faults=Fault("slow", factor=5.0, start=10, end=20))])

    async def main() -> list[float]:
        start = anyio.current_time()
        spent = []
        for at in (0.0, 12.0, 25.0):
            await anyio.sleep_until(start + at)
            began = anyio.current_time()
            await plain(provider)
            spent.append(anyio.current_time() - began)
        return spent

    assert virtual(main) == pytest.approx([1.0, 5.0, 1.0])


def test_a_held_request_goes_on_when_its_key_is_healed() -> None:
    provider = Simulated([SimulatedKey("one", faults=Fault("hold"))])

    async def main() -> float:
        began = anyio.current_time()

        async def heal() -> None:
            await anyio.sleep(7)
            provider.heal("one")

        async with anyio.create_task_group() as group:
            group.start_soon(heal)
            assert (await plain(provider)).text
        return anyio.current_time() - began

    assert virtual(main) == pytest.approx(7.0)


def test_a_fault_given_later_holds_from_then_on() -> None:
    provider = Simulated(["one"])

    async def main() -> None:
        await plain(provider)
        provider.add_fault("one", Fault("status", status=500, count=1))
        with pytest.raises(CallError):
            await plain(provider)
        await plain(provider)

    virtual(main)
    assert provider.counters["one"].statuses == {200: 2, 500: 1}


# -- journal, prices, names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_what_was_generated_until_the_client_left_is_billed(stream: bool) -> None:
    provider = Simulated([SimulatedKey("one", latency=Latency(1.0, tokens_per_second=10), output_tokens=(40, 40))])

    async def main() -> None:
        with anyio.move_on_after(3.0):
            await read(await provider.engine.open(exchange(provider, request(stream=stream))))

    virtual(main)
    record = provider.journal[-1]
    assert record.left_after == pytest.approx(3.0)
    assert 16 <= record.completion_tokens <= 20
    assert record.prompt_tokens > 0
    counters = provider.counters["one"]
    assert (counters.left, counters.in_flight) == (1, 0)


def test_the_journal_is_complete_when_the_answer_is_there() -> None:
    provider = Simulated(["one"], keep_bodies=True)

    async def main() -> tuple[int, int]:
        reply = await plain(provider)
        record = provider.journal[-1]
        assert record.ended_after is not None
        assert record.left_after is None
        assert record.body is not None
        assert b"hello" in record.body
        return record.completion_tokens - reply.usage.output_tokens, record.prompt_tokens - reply.usage.input_tokens

    assert virtual(main) == (0, 0)


def test_the_busiest_moment_is_counted() -> None:
    provider = Simulated([SimulatedKey("one", latency=1.0)])

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(9):
                group.start_soon(plain, provider)

    virtual(main)
    assert (provider.counters["one"].most_in_flight, provider.counters["one"].in_flight) == (9, 0)


def test_prices_fit_a_price_book() -> None:
    price = Price(input="1", output="3")
    provider = Simulated(["one"], name="fake", prices={"small": price})
    book = PriceBook(provider.prices)
    assert book.find("fake", "small") == price
    assert price.cost(Usage(input_tokens=10, output_tokens=10)) == Decimal("0.00004")


def test_models_that_do_not_exist_are_refused_where_some_are_named() -> None:
    provider = Simulated(["one"], models=["small"])

    async def main() -> Kind:
        await plain(provider, model="small")
        with pytest.raises(CallError) as caught:
            await plain(provider, model="huge")
        return caught.value.kind

    assert virtual(main) is Kind.MODEL_NOT_FOUND
    assert (provider.knows("small"), provider.knows("huge"), Simulated(["x"]).knows("huge")) == (True, False, True)


def test_a_credential_that_is_not_of_its_keys_is_refused() -> None:
    provider = Simulated(["one"])

    async def main() -> int:
        made = exchange(provider, request())
        made.headers = [(b"authorization", b"Bearer another-credential")]
        answer = await provider.engine.open(made)
        await read(answer)
        return answer.status

    assert virtual(main) == 401
    assert provider.journal[-1].key_id is None


def test_reset_begins_anew() -> None:
    provider = Simulated([SimulatedKey("one", latency=Latency(1.0, sigma=0.4))], seed=5)
    before = virtual(lambda: plain(provider)).text
    virtual(lambda: plain(provider))
    provider.reset()
    assert provider.journal == ()
    assert virtual(lambda: plain(provider)).text == before


def test_a_key_has_the_name_it_is_given() -> None:
    provider: Provider = Simulated([SimulatedKey("first"), SimulatedKey("x", id="second"), "third"])
    assert [key.id for key in provider.keys] == ["first", "second", "third"]
    assert provider.name == "simulated"
    assert provider.engine is not None
    assert Operation.CHAT in provider.operations


@pytest.mark.parametrize("keys", [[], ["a", "a"], ["a", SimulatedKey("b", id="a")]], ids=["none", "twice", "same-id"])
def test_names_that_are_not_clear_are_refused(keys: list[Any]) -> None:
    with pytest.raises(ConfigError):
        Simulated(keys)


def test_the_request_is_told_sent_before_anything_else() -> None:
    provider = Simulated(["one"])
    told: list[float] = []

    async def main() -> None:
        began = anyio.current_time()
        made = exchange(provider, request())
        made.on_sent = lambda: told.append(anyio.current_time() - began)
        await read(await provider.engine.open(made))

    virtual(main)
    assert told == [0.0]


def test_a_router_in_virtual_time_leaves_the_key_that_grew_slow() -> None:
    slow = Fault("slow", factor=20.0, start=60)
    provider = Simulated(
        [
            SimulatedKey("a", latency=Latency(0.5, sigma=0.2), faults=slow),
            SimulatedKey("b", latency=Latency(0.5, sigma=0.2)),
        ]
    )

    async def main() -> tuple[dict[str, int], dict[str, int]]:
        async with Router([provider], rng=random.Random(1), clock=LoopClock()) as router:

            async def share(until: float) -> dict[str, int]:
                before = {name: counted.requests for name, counted in provider.counters.items()}
                while anyio.current_time() < until:
                    await router.chat("simulated/small", "hello")
                return {name: counted.requests - before[name] for name, counted in provider.counters.items()}

            start = anyio.current_time()
            return await share(start + 60), await share(start + 180)

    even, moved = virtual(main)
    assert 0.3 < even["a"] / sum(even.values()) < 0.7
    assert moved["a"] / sum(moved.values()) < 0.15


def test_a_law_can_be_changed_by_evolving_a_key() -> None:
    key = SimulatedKey("one", latency=1.0)
    assert attrs.evolve(key, latency=2.0).latency == Latency(2.0)


@pytest.mark.parametrize(
    ("path", "body", "status", "member"),
    [
        pytest.param("/v1/embeddings", {"model": "e", "input": ["a", "b"]}, 200, "data", id="embeddings"),
        pytest.param("/v1/moderations", {"model": "m", "input": "hate"}, 200, "results", id="moderations"),
        pytest.param(
            "/v1/fim/completions", {"model": "f", "prompt": "def f", "max_tokens": 3}, 200, "choices", id="fim"
        ),
        pytest.param("/v1/chat/completions", {"model": "m"}, 422, "detail", id="no-messages"),
        pytest.param("/v1/models", None, 200, "data", id="models"),
        pytest.param("/v1/agents", {}, 404, "message", id="unknown-path"),
    ],
)
def test_the_other_endpoints_answer_in_mistrals_shapes(path: str, body: Any, status: int, member: str) -> None:
    provider = Simulated(["one"], prices={"m": Price(input=1)})
    secret = provider.keys[0].secret
    assert secret is not None
    made = Exchange(
        "POST" if body is not None else "GET",
        f"https://simulated.invalid{path}",
        [(b"authorization", b"Bearer " + secret.reveal().encode())],
        b"" if body is None else msgspec.json.encode(body),
        provider.network,
        connect=2.0,
        read=30.0,
    )

    async def main() -> tuple[int, dict[str, Any]]:
        answer = await provider.engine.open(made)
        return answer.status, msgspec.json.decode(await read(answer))

    got, reply = virtual(main)
    assert got == status
    assert reply[member]


def test_a_fault_may_show_after_a_while() -> None:
    provider = Simulated([SimulatedKey("one", faults=Fault("reset", delay=4.0))])
    error, _, spent = virtual(lambda: transport_error(provider, stream=False))
    assert error.kind is Kind.CONNECTION_LOST
    assert spent == pytest.approx(4.0)


def test_an_idle_limit_of_its_own_bounds_the_silence_inside_a_body() -> None:
    provider = Simulated([SimulatedKey("one", latency=10.0, faults=Fault("hang", after=1))])
    error, _, spent = virtual(lambda: transport_error(provider, stream=True, read=30.0, idle=2.0))
    assert (error.kind, error.phase) == (Kind.READ_TIMEOUT, "idle")
    assert spent == pytest.approx(12.0)


def test_without_a_limit_a_hanging_key_hangs_until_the_caller_leaves() -> None:
    provider = Simulated([SimulatedKey("one", faults=Fault("hang"))])

    async def main() -> bool:
        with anyio.move_on_after(86_400) as scope:
            await provider.engine.open(exchange(provider, request(), read=math.inf))
        return scope.cancelled_caught

    assert virtual(main)
    assert provider.journal[-1].left_after == pytest.approx(86_400)


async def test_an_engine_has_nothing_to_close() -> None:
    provider = Simulated(["one"])
    await provider.engine.aclose()
    assert (await plain(provider)).text
    await provider.engine.aclose()


def test_an_answer_with_nonsense_for_usage_is_a_good_one() -> None:
    odd = Simulated([SimulatedKey("one", faults=Fault("bad_usage", body=b'{"prompt_tokens":1e99}'))])
    even = Simulated(["one"])
    assert virtual(lambda: plain(odd)).text == virtual(lambda: plain(even)).text
    assert virtual(lambda: plain(odd)).usage == Usage(requests=1)
