"""Streams on real HTTP: order, failover before the first content, what is left behind after leaving."""

from __future__ import annotations

import gc
import random
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import anyio
import pytest

from bifrost_core import (
    Call,
    CallRecord,
    ChatResponse,
    Chunk,
    ConfigError,
    DeadlineExceededError,
    GuardrailError,
    Key,
    Kind,
    Mistral,
    ProviderServerError,
    ProviderTimeoutError,
    Response,
    RetryPolicy,
    Router,
    StreamBrokenError,
    Timeout,
    hookimpl,
)
from bifrost_core.testing import Fault, Latency, SimulatedKey, SimulatedMistral

A, B = "sk-canary-aaaaaaaaaaaaaaaa", "sk-canary-bbbbbbbbbbbbbbbb"
MODEL = "mistral/mistral-small-latest"


@pytest.fixture
def server() -> Iterator[SimulatedMistral]:
    with SimulatedMistral([SimulatedKey(A, id="a"), SimulatedKey(B, id="b")]) as running:
        yield running


def router_for(server: SimulatedMistral, *secrets: str, **options: Any) -> Router:
    keys = [Key(secret, id=secret[10]) for secret in secrets or (A,)]
    options.setdefault("retry", RetryPolicy(backoff=0, max_wait=0))
    return Router([Mistral(keys, base_url=server.base_url)], rng=random.Random(7), **options)


class Recorder:
    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


async def test_chunks_and_the_assembled_answer_say_the_same(server: SimulatedMistral) -> None:
    recorder = Recorder()
    async with router_for(server, plugins=[recorder]) as router:
        async with router.stream(MODEL, "hi", max_tokens=30) as stream:
            chunks = [chunk async for chunk in stream]
            assert recorder.records  # exhausted: the call has finished
        reply = stream.response
    assert "".join(chunk.text for chunk in chunks) == reply.text
    assert chunks[-1].finish_reason == reply.finish_reason == "length"
    assert chunks[-1].usage == reply.usage
    assert reply.usage.output_tokens == 30
    assert reply.cost is not None
    assert reply.time_to_first_token is not None
    assert reply.time_to_first_token <= reply.latency
    assert recorder.records[0].response is reply
    assert recorder.records[0].time_to_first_token is not None


async def test_chunks_arrive_when_the_provider_sends_them(server: SimulatedMistral) -> None:
    with SimulatedMistral([SimulatedKey(A, latency=Latency(0.0, tokens_per_second=100))]) as slow:
        async with router_for(slow) as router, router.stream(MODEL, "hi", max_tokens=40) as stream:
            async for chunk in stream:
                if chunk.text:
                    break
            # The server is still writing: the first words did not wait for the last.
            assert slow.requests[0].ended_after is None


async def test_a_stream_fails_over_until_content_has_come(server: SimulatedMistral) -> None:
    server.fail("a", Fault("truncate", after=1))
    async with router_for(server, A, B) as router:
        for _ in range(6):
            async with router.stream(MODEL, "hi", max_tokens=5) as stream:
                text = "".join([piece async for piece in stream.text()])
            assert text == stream.response.text
            assert stream.response.route.key_id == "b"
    assert server.counters["a"].requests >= 1


async def test_a_stream_that_breaks_later_is_an_error_with_what_there_was(server: SimulatedMistral) -> None:
    server.fail("a", Fault("truncate", after=4))
    recorder = Recorder()
    pieces: list[str] = []
    async with router_for(server, A, B, plugins=[recorder]) as router:
        router.remove_key("mistral", "b")
        with pytest.raises(StreamBrokenError) as caught:
            async with router.stream(MODEL, "hi") as stream:
                async for chunk in stream:
                    pieces.append(chunk.text)
        assert router.health()[0].in_flight == 0
    error = caught.value
    assert error.kind == Kind.STREAM_TRUNCATED
    assert error.partial is not None
    assert error.partial.text == "".join(pieces) != ""
    assert [attempt.outcome for attempt in error.attempts] == ["failed"]
    assert recorder.records[0].outcome == "failed"
    with pytest.raises(ConfigError, match="not been read"):
        _ = stream.response


@pytest.mark.parametrize(
    "fault",
    [Fault("status", status=500), Fault("html"), Fault("empty"), Fault("reset")],
    ids=["500", "web page", "empty", "reset"],
)
async def test_what_fails_before_the_first_content_is_raised_on_entering(
    server: SimulatedMistral, fault: Fault
) -> None:
    server.fail("a", fault)
    async with router_for(server) as router:
        entered = False
        with pytest.raises((ProviderServerError, StreamBrokenError, Exception)) as caught:
            async with router.stream(MODEL, "hi"):
                entered = True
    assert not entered
    assert getattr(caught.value, "call_id", "")


async def test_the_first_token_and_silence_in_between_have_limits_of_their_own(server: SimulatedMistral) -> None:
    server.fail("a", Fault("hang"))
    async with router_for(server, timeout=Timeout(first_token=0.3), retry=RetryPolicy(max_attempts=1)) as router:
        with pytest.raises(ProviderTimeoutError) as first:
            async with router.stream(MODEL, "hi"):
                pass
    assert (first.value.kind, first.value.phase) == (Kind.READ_TIMEOUT, "first_byte")
    server.heal("a")
    server.fail("a", Fault("hang", after=4))
    async with router_for(server, timeout=Timeout(idle=0.3)) as router:
        with pytest.raises(StreamBrokenError) as second:
            async with router.stream(MODEL, "hi") as stream:
                async for _ in stream:
                    continue
    assert second.value.kind == Kind.STREAM_STALLED
    assert second.value.partial is not None


async def test_a_total_holds_for_a_stream_only_when_given(server: SimulatedMistral) -> None:
    server.fail("a", Fault("hang", after=4))
    recorder = Recorder()
    async with router_for(server, plugins=[recorder]) as router:
        with pytest.raises(DeadlineExceededError):
            async with router.stream(MODEL, "hi", timeout=0.4) as stream:
                async for _ in stream:
                    continue
        assert router.health()[0].in_flight == 0
    assert recorder.records[0].kind == Kind.DEADLINE_EXCEEDED


async def test_a_reader_that_waits_is_not_the_providers_silence(server: SimulatedMistral) -> None:
    async with router_for(server, timeout=Timeout(idle=0.2)) as router:
        async with router.stream(MODEL, "hi", max_tokens=40) as stream:
            count = 0
            async for _ in stream:
                count += 1
                if count == 1:
                    await anyio.sleep(0.4)
        assert count > 10
        assert stream.response.text


async def test_leaving_early_closes_upstream_and_settles_now(server: SimulatedMistral) -> None:
    recorder = Recorder()
    with SimulatedMistral([SimulatedKey(A, latency=Latency(0.0, tokens_per_second=50))]) as slow:
        async with router_for(slow, plugins=[recorder]) as router:
            async with router.stream(MODEL, "hi", max_tokens=400) as stream:
                async for chunk in stream:
                    if chunk.text:
                        break
            assert [record.outcome for record in recorder.records] == ["cancelled"]
            assert router.health()[0].in_flight == 0
            with anyio.fail_after(2):
                while slow.requests[0].left_after is None:
                    await anyio.sleep(0.01)
            reply = await router.chat(MODEL, "hi", max_tokens=2)
            assert reply.text


async def test_an_exception_of_the_readers_own_passes_unchanged(server: SimulatedMistral) -> None:
    async with router_for(server) as router:
        with pytest.raises(ZeroDivisionError):
            async with router.stream(MODEL, "hi"):
                raise ZeroDivisionError
        assert router.health()[0].in_flight == 0


async def test_a_stream_can_be_closed_from_another_task(server: SimulatedMistral) -> None:
    with SimulatedMistral([SimulatedKey(A, latency=Latency(0.0, tokens_per_second=20))]) as slow:
        async with router_for(slow) as router, anyio.create_task_group() as group:
            async with router.stream(MODEL, "hi", max_tokens=400) as stream:
                count = 0
                async for _ in stream:
                    count += 1
                    if count == 2:
                        group.start_soon(stream.aclose)
            assert 2 <= count < 400
            await stream.aclose()


async def test_a_stream_is_entered_once_and_read_inside(server: SimulatedMistral) -> None:
    async with router_for(server) as router:
        stream = router.stream(MODEL, "hi", max_tokens=3)
        with pytest.raises(ConfigError, match="inside"):
            await anext(stream)
        async with stream:
            assert [chunk async for chunk in stream]
        with pytest.raises(ConfigError, match="once"):
            async with stream:
                pass


async def test_a_dropped_stream_frees_what_it_holds(server: SimulatedMistral) -> None:
    recorder = Recorder()
    with SimulatedMistral([SimulatedKey(A, latency=Latency(0.0, tokens_per_second=20))]) as slow:
        async with router_for(slow, plugins=[recorder]) as router:
            async with anyio.create_task_group() as group:
                stream = router.stream(MODEL, "hi", max_tokens=400)
                entered = anyio.Event()

                async def hold() -> None:
                    nonlocal stream
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", ResourceWarning)
                        with anyio.CancelScope():
                            async with stream:
                                entered.set()
                                await anyio.sleep_forever()

                group.start_soon(hold)
                await entered.wait()
                group.cancel_scope.cancel()
            assert [record.outcome for record in recorder.records] == ["cancelled"]
            assert router.health()[0].in_flight == 0
    gc.collect()


# -- guardrails on streams ------------------------------------------------------------------------


class Upper:
    """Changes every word, one chunk behind."""

    def __init__(self) -> None:
        self.held: Chunk | None = None

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        before, self.held = self.held, chunk.with_text(chunk.text.upper()) if chunk.text else chunk
        return [] if before is None else [before]

    def finish(self) -> Iterable[Chunk]:
        return [] if self.held is None else [self.held]


class Shouting:
    @hookimpl
    def bifrost_stream_filter(self, call: Call) -> Upper:
        return Upper()


async def test_a_stream_filter_sees_every_chunk_and_the_answer_holds_what_it_let_out(server: SimulatedMistral) -> None:
    recorder = Recorder()
    async with router_for(server, plugins=[Shouting(), recorder]) as router:
        async with router.stream(MODEL, "hi", max_tokens=20) as stream:
            text = "".join([piece async for piece in stream.text()])
    assert text
    assert text == text.upper() == stream.response.text
    assert stream.response.raw["choices"][0]["message"]["content"] == text
    assert stream.response.finish_reason == "length"
    assert recorder.records[0].response == stream.response


async def test_a_guard_without_a_filter_judges_the_whole_answer_before_a_word_is_out(server: SimulatedMistral) -> None:
    class Judge:
        @hookimpl
        async def bifrost_guard_response(self, response: Response) -> Response:
            assert isinstance(response, ChatResponse)
            return response.with_text(f"[{len(response.text) > 0}]")

    async with router_for(server, plugins=[Judge()]) as router:
        async with router.stream(MODEL, "hi", max_tokens=20) as stream:
            text = "".join([piece async for piece in stream.text()])
    assert text == stream.response.text == "[True]"


async def test_a_guard_that_blocks_a_stream_lets_nothing_out(server: SimulatedMistral) -> None:
    class Judge:
        @hookimpl
        async def bifrost_guard_response(self, response: Response) -> Response | None:
            raise GuardrailError("not this", rule="no", side="output")

    async with router_for(server, plugins=[Judge()]) as router:
        with pytest.raises(GuardrailError) as caught:
            async with router.stream(MODEL, "hi", max_tokens=20) as stream:
                async for _ in stream:
                    raise AssertionError("a word got out")
    assert caught.value.http_status == 446
    assert [attempt.outcome for attempt in caught.value.attempts] == ["ok"]


async def test_a_filter_that_breaks_ends_the_stream_closed(server: SimulatedMistral) -> None:
    class Broken:
        def feed(self, chunk: Chunk) -> Iterable[Chunk]:
            raise ZeroDivisionError

        def finish(self) -> Iterable[Chunk]:
            return []

    class Plugin:
        @hookimpl
        def bifrost_stream_filter(self) -> Broken:
            return Broken()

    async with router_for(server, plugins=[Plugin()]) as router:
        with pytest.raises(Exception, match="Plugin") as caught:
            async with router.stream(MODEL, "hi", max_tokens=20) as stream:
                async for _ in stream:
                    raise AssertionError("a word got out")
        assert router.health()[0].in_flight == 0
    assert getattr(caught.value, "call_id", "")


class Redact:
    """Replaces every text."""

    def feed(self, chunk: Chunk) -> list[Chunk]:
        return [chunk.with_text("*")] if chunk.text else [chunk]

    def finish(self) -> list[Chunk]:
        return []


class Redacting:
    @hookimpl
    def bifrost_stream_filter(self) -> Redact:
        return Redact()


@pytest.mark.parametrize("kind", ["truncate", "reset", "not_json", "error_event", "hang"])
async def test_what_a_filter_removed_is_not_in_the_error_of_a_broken_stream(
    server: SimulatedMistral, kind: Any
) -> None:
    server.fail("a", Fault(kind, after=4))
    async with router_for(server, plugins=[Redacting()], timeout=Timeout(idle=0.3)) as router:
        with pytest.raises(StreamBrokenError) as caught:
            async with router.stream(MODEL, "hi") as stream:
                async for chunk in stream:
                    assert set(chunk.text) <= {"*"}
    partial = caught.value.partial
    assert partial is not None
    assert set(partial.text) == {"*"}
    assert set(partial.message["content"]) == {"*"}
    assert set(partial.raw["choices"][0]["message"]["content"]) == {"*"}
