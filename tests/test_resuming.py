"""``resume=True``: the next route goes on where a stream broke off, with a seam that nobody sees."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bifrost_core import (
    Call,
    CallRecord,
    Chunk,
    Key,
    Mistral,
    Price,
    PriceBook,
    Request,
    RetryPolicy,
    Router,
    StreamBrokenError,
    Timeout,
    hookimpl,
)
from bifrost_core.resuming import Seam
from bifrost_core.testing import Fault, SimulatedKey, SimulatedMistral

MODEL = "mistral/mistral-small-latest"
IDS = ("a", "b", "c")
TEXT = "".join(f"word{number} " for number in range(30)) + "end."


def continuing(*, repeats: bool) -> Any:
    """An answer law: TEXT, or the rest of it behind the prefix, with the prefix again or without."""

    def law(body: dict[str, Any]) -> str:
        last = body["messages"][-1]
        if last["role"] != "assistant":
            return TEXT
        assert last["prefix"] is True
        assert TEXT.startswith(last["content"])
        return TEXT if repeats else TEXT[len(last["content"]) :]

    return law


@pytest.fixture(params=[True, False], ids=["repeats the prefix", "goes on"])
def server(request: pytest.FixtureRequest) -> Iterator[SimulatedMistral]:
    listed = [SimulatedKey(f"sk-canary-{name * 12}", id=name) for name in IDS]
    with SimulatedMistral(listed, answer=continuing(repeats=request.param), keep_bodies=True) as running:
        yield running


class Recorder:
    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


class InOrder:
    """Asks the keys in the order of their names."""

    @hookimpl
    def bifrost_pick_route(self, routes: Sequence[Any]) -> Any:
        return min(routes, key=lambda route: route.key_id)


def router_for(server: SimulatedMistral, *plugins: object, **options: Any) -> Router:
    listed = [Key(f"sk-canary-{name * 12}", id=name) for name in IDS]
    options.setdefault("retry", RetryPolicy(backoff=0, max_wait=0, max_attempts_per_deployment=3))
    provider = Mistral(listed, base_url=server.base_url)
    return Router([provider], plugins=[InOrder(), *plugins], rng=random.Random(7), **options)


BREAKS = {
    "cut": Fault("truncate", after=6),
    "reset": Fault("reset", after=6),
    "closed": Fault("close", after=6),
    "not JSON": Fault("not_json", after=6),
    "error event": Fault("error_event", after=6),
    "silence": Fault("hang", after=6),
    "half an event": Fault("half_body", after=6),
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
async def test_a_broken_answer_is_continued_without_a_seam(server: SimulatedMistral, fault: Fault) -> None:
    server.fail("a", fault)
    recorder = Recorder()
    prices = PriceBook({MODEL: Price(input="1", output="1000000")})
    async with router_for(server, recorder, prices=prices, timeout=Timeout(idle=0.3)) as router:
        async with router.stream(MODEL, "count", resume=True) as stream:
            text = "".join([piece async for piece in stream.text()])
        assert router.health()[0].in_flight == 0
    reply = stream.response
    assert text == reply.text == TEXT
    assert reply.message["content"] == TEXT
    assert reply.raw["choices"][0]["message"]["content"] == TEXT
    assert reply.resumed
    assert reply.finish_reason == "stop"
    assert [(attempt.route.key_id, attempt.outcome) for attempt in reply.attempts] == [("a", "failed"), ("b", "ok")]
    first, second = reply.attempts
    assert first.usage is not None
    assert second.usage is not None
    assert first.usage.output_tokens > 0
    assert reply.usage.output_tokens == first.usage.output_tokens + second.usage.output_tokens
    assert reply.usage.input_tokens == first.usage.input_tokens + second.usage.input_tokens
    assert first.cost is not None
    assert second.cost is not None
    assert reply.cost == first.cost + second.cost > Decimal(reply.usage.output_tokens)
    assert recorder.records[0].outcome == "ok"
    assert recorder.records[0].cost == reply.cost
    assert recorder.records[0].response is reply


async def test_an_answer_may_break_twice(server: SimulatedMistral) -> None:
    server.fail("a", Fault("truncate", after=5))
    server.fail("b", Fault("reset", after=9))
    async with router_for(server) as router:
        async with router.stream(MODEL, "count", resume=True) as stream:
            text = "".join([piece async for piece in stream.text()])
    assert text == stream.response.text == TEXT
    assert [attempt.route.key_id for attempt in stream.response.attempts] == ["a", "b", "c"]


async def test_a_refusal_on_the_way_is_no_end(server: SimulatedMistral) -> None:
    server.fail("a", Fault("truncate", after=5))
    server.fail("b", Fault("status", status=401, shape="B"))
    async with router_for(server) as router:
        async with router.stream(MODEL, "count", resume=True) as stream:
            text = "".join([piece async for piece in stream.text()])
    assert text == TEXT
    assert [attempt.kind for attempt in stream.response.attempts] == ["stream_truncated", "auth", None]


async def test_where_nothing_is_left_to_go_on_the_error_holds_everything_that_was_said(
    server: SimulatedMistral,
) -> None:
    server.fail("a", Fault("truncate", after=5))
    server.fail("b", Fault("truncate", after=7))
    server.fail("c", Fault("status", status=503))
    pieces: list[str] = []
    async with router_for(server) as router:
        with pytest.raises(StreamBrokenError) as caught:
            async with router.stream(MODEL, "count", resume=True) as stream:
                async for chunk in stream:
                    pieces.append(chunk.text)
    partial = caught.value.partial
    assert partial is not None
    assert partial.text == "".join(pieces)
    assert TEXT.startswith(partial.text)
    assert [attempt.route.key_id for attempt in caught.value.attempts] == ["a", "b", "c"]


ASKS: dict[str, dict[str, Any]] = {
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "none"},
    "JSON": {"response_format": {"type": "json_object"}},
    "two choices": {"n": 2},
    "a field that is not known": {"extra_body": {"n": 1}},
}


@pytest.mark.parametrize("asked", ASKS.values(), ids=ASKS)
async def test_what_a_text_alone_can_not_continue_is_not_resumed(
    server: SimulatedMistral, asked: dict[str, Any]
) -> None:
    server.fail("a", Fault("truncate", after=5))
    async with router_for(server) as router:
        with pytest.raises(StreamBrokenError):
            async with router.stream(MODEL, "count", resume=True, **asked) as stream:
                async for _ in stream:
                    pass
    assert [request.key_id for request in server.requests] == ["a"]


@pytest.mark.parametrize("options", [{}, {"resume": False}, {"resume": True, "effects": "possible"}], ids=str)
async def test_nothing_is_resumed_unasked(server: SimulatedMistral, options: dict[str, Any]) -> None:
    server.fail("a", Fault("truncate", after=5))
    async with router_for(server) as router:
        with pytest.raises(StreamBrokenError):
            async with router.stream(MODEL, "count", **options) as stream:
                async for _ in stream:
                    pass
    assert [request.key_id for request in server.requests] == ["a"]


async def test_an_output_limit_is_what_is_left_of_it(server: SimulatedMistral) -> None:
    server.fail("a", Fault("truncate", after=6))
    async with router_for(server) as router:
        async with router.stream(MODEL, "count", resume=True, max_tokens=500) as stream:
            heard = len([chunk async for chunk in stream if chunk.text])
    first, second = (msgspec.json.decode(request.body or b"") for request in server.requests)
    assert first["max_tokens"] == 500
    assert 500 - heard < second["max_tokens"] < 500


async def test_a_filter_goes_on_over_the_seam(server: SimulatedMistral) -> None:
    class Shout:
        """Holds one chunk back, and shouts."""

        def __init__(self) -> None:
            self.held: list[Chunk] = []

        def feed(self, chunk: Chunk) -> list[Chunk]:
            self.held.append(chunk.with_text(chunk.text.upper()))
            return [self.held.pop(0)] if len(self.held) > 1 else []

        def finish(self) -> list[Chunk]:
            return self.held

    class Plugin:
        @hookimpl
        def bifrost_stream_filter(self, call: Call) -> Shout:
            return Shout()

    server.fail("a", Fault("truncate", after=6))
    async with router_for(server, Plugin()) as router:
        async with router.stream(MODEL, "count", resume=True) as stream:
            text = "".join([piece async for piece in stream.text()])
    assert text == stream.response.text == TEXT.upper()


@pytest.mark.parametrize("repeats", [True, False])
@given(data=st.data())
def test_a_seam_is_where_it_should_be_for_any_split(repeats: bool, data: st.DataObject) -> None:
    said = data.draw(st.text("ab c", min_size=1, max_size=12))
    new = data.draw(st.text("ab c", max_size=12))
    whole = said + new if repeats else new
    if not repeats and (whole.startswith(said)):
        return  # nobody could tell
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    seam = Seam(said)
    out = [seam.feed([Chunk(text=piece)])[0].text for piece in pieces]
    out.append(seam.feed([Chunk(finish_reason="stop")])[0].text)
    assert "".join(out) == new
    assert seam.whole(whole) == said + new


def test_a_seam_keeps_every_chunk_and_what_is_beside_the_text() -> None:
    seam = Seam("one two")
    chunks = [Chunk(text="one"), Chunk(text=" two"), Chunk(text=" three", finish_reason="stop")]
    assert [(chunk.text, chunk.finish_reason) for chunk in seam.feed(chunks)] == [
        ("", None),
        ("", None),
        (" three", "stop"),
    ]
    assert Seam("").feed(chunks) is chunks


def test_a_request_for_the_rest_ends_with_what_was_said() -> None:
    adapter = Mistral(["sk-simulated-1"])
    request = Request("chat", "m", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}, stream=True)
    continued = adapter.continued(request, "so far", 5)
    assert continued is not None
    assert continued.body["messages"][-1] == {"role": "assistant", "content": "so far", "prefix": True}
    assert continued.body["max_tokens"] == 1
    assert adapter.continued(Request("fim", "m", {"prompt": "x"}, stream=True), "so far", 5) is None
    own = request.with_body(messages=[*request.body["messages"], {"role": "assistant", "content": "I", "prefix": True}])
    assert adapter.continued(own, "so far", 5) is None
