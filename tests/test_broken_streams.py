"""Whatever breaks, the reader has the words of one attempt, each once, and a cut stream is never taken for a whole one.

Every answer carries a number of its own and numbered words, so that crossed, repeated or lost words show.
``BIFROST_STREAMS`` sets the number of streams (the figure of the promise is for 10,000).
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio
import pytest
import trio.testing

from bifrost_core import (
    Anthropic,
    CallError,
    Hedge,
    Mistral,
    ProviderTimeoutError,
    RetryPolicy,
    Router,
    StreamBrokenError,
    Timeout,
)
from bifrost_core.engines import Exchange, HttpStream
from bifrost_core.testing import Fault, Latency, LoopClock, Simulated, SimulatedKey

STREAMS = int(os.environ.get("BIFROST_STREAMS", "160"))
MODEL = "simulated/any"
TEXT = " ".join(f"word{number}" for number in range(24)) + " end."
_T = TypeVar("_T")


class Drip:
    """An engine that sends one piece of a stream every five seconds."""

    status = 200
    headers = ((b"content-type", b"text/event-stream"),)

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    async def open(self, exchange: Exchange) -> HttpStream:
        if exchange.on_sent is not None:
            exchange.on_sent()
        return self

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await anyio.sleep(5)
            yield piece

    async def aclose(self) -> None:
        """Nothing is open."""


def virtual(main: Callable[[], Awaitable[_T]]) -> _T:
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


def faults(rng: random.Random) -> list[Fault]:
    """Ways to break at any place of a stream, each in a few per cent of the requests."""
    made = [
        Fault("reset", after=at, probability=0.05)
        if rng.random() < 0.3
        else Fault(
            rng.choice(["close", "half_body", "truncate", "not_json", "error_event", "wrong_length", "hang"]),
            after=at,
            probability=0.05,
        )
        for at in (0, 1, 2, 3, 5, 8, 13, 20)
    ]
    made += [Fault("status", status=503, probability=0.05), Fault("empty", probability=0.03)]
    made += [Fault("split", probability=0.3), Fault("crlf", probability=0.3), Fault("bom", probability=0.3)]
    return made


def router_of(provider: Simulated, **policy: Any) -> Router:
    retry = RetryPolicy(budget=10_000, backoff=0, **policy)
    limits = Timeout(first_token=5, idle=5)
    return Router([provider], clock=LoopClock(), rng=random.Random(2), retry=retry, timeout=limits)


def keys(seed: int) -> list[SimulatedKey]:
    rng = random.Random(seed)
    return [
        SimulatedKey(name, latency=Latency(0.2, sigma=0.8, tokens_per_second=40), faults=tuple(faults(rng)))
        for name in "abc"
    ]


async def read(router: Router, **options: Any) -> tuple[str, CallError | None, str | None]:
    """The delivered text, the error and the text of the assembled answer."""
    pieces: list[str] = []
    try:
        async with router.stream(MODEL, "hi", **options) as stream:
            async for chunk in stream:
                pieces.append(chunk.text)
            return "".join(pieces), None, stream.response.text
    except CallError as exc:
        return "".join(pieces), exc, None


def as_event(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def of_anthropic(pieces: Sequence[str]) -> list[bytes]:
    message: dict[str, Any] = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "x",
        "content": [],
        "stop_reason": None,
    }
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": call},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    return [as_event(event) for event in events]


def of_openai(pieces: Sequence[str]) -> list[bytes]:
    call = {"index": 0, "id": "toolu_1", "function": {"name": "f", "arguments": ""}}
    deltas = [{"tool_calls": [call]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
    return [as_event({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}) for choice in choices]


@pytest.mark.parametrize(
    ("provider", "made"),
    [
        pytest.param(Anthropic(["sk-canary-1"], name="slow"), of_anthropic, id="anthropic"),
        pytest.param(Mistral(["sk-canary-1"], name="slow"), of_openai, id="openai"),
    ],
)
def test_a_call_that_is_long_in_the_writing_is_no_silence(provider: Any, made: Any) -> None:
    """Two minutes of arguments, of which no piece is content by itself."""

    async def main() -> tuple[list[Any], float]:
        began = anyio.current_time()
        engine, limits = Drip(made(["[", *(["1,"] * 22), "1]"])), Timeout(first_token=20, idle=20)
        async with Router([provider], engine=engine, clock=LoopClock(), timeout=limits) as router:
            async with router.stream("slow/any", "hi") as stream:
                calls = [call.parsed() async for chunk in stream for call in chunk.tool_calls]
        return calls, anyio.current_time() - began

    calls, seconds = virtual(main)
    assert calls == [[1] * 23]
    assert seconds > 100


def test_events_that_bring_nothing_are_a_silence() -> None:
    pings = [of_anthropic([])[0], *([as_event({"type": "ping"})] * 30)]

    async def main() -> float:
        began = anyio.current_time()
        limits, once = Timeout(first_token=20, idle=20), RetryPolicy(max_attempts=1)
        provider = Anthropic(["sk-canary-1"], name="slow")
        async with Router([provider], engine=Drip(pings), clock=LoopClock(), timeout=limits, retry=once) as router:
            with pytest.raises(ProviderTimeoutError):
                async with router.stream("slow/any", "hi") as stream:
                    assert [chunk async for chunk in stream] == []
        return anyio.current_time() - began

    assert virtual(main) < 30


@pytest.mark.parametrize("hedge", [None, Hedge(0.3)], ids=["alone", "hedged"])
def test_the_reader_gets_the_words_of_one_attempt_each_once(hedge: Hedge | None) -> None:
    said: list[str] = []

    def answer(body: dict[str, Any]) -> str:
        said.append(f"answer{len(said)}: " + " ".join(f"{len(said)}.{number}" for number in range(24)))
        return said[-1]

    provider = Simulated(keys(3), answer=answer)
    kinds: Counter[str] = Counter()

    async def main() -> None:
        async with router_of(provider, hedge=hedge) as router:
            for _ in range(STREAMS):
                text, error, whole = await read(router)
                kinds["ok" if error is None else str(error.kind)] += 1
                if text:
                    (own,) = [each for each in said if each.startswith(text)] if " " in text else [text]
                if error is None:
                    assert text == own == whole
                elif isinstance(error, StreamBrokenError) and text:
                    assert error.partial is not None
                    assert error.partial.text == text
                assert all(row.in_flight == 0 for row in router.health())
                said.clear()

    virtual(main)
    assert kinds["ok"] > STREAMS // 3
    assert kinds["stream_truncated"] > STREAMS // 50
    assert {"stream_malformed", "stream_error", "stream_stalled"} <= kinds.keys()


@pytest.mark.parametrize("repeats", [False, True], ids=["goes on", "repeats the prefix"])
def test_a_resumed_stream_is_the_whole_text_without_a_seam(repeats: bool) -> None:
    def answer(body: dict[str, Any]) -> str:
        last = body["messages"][-1]
        if last["role"] != "assistant":
            return TEXT
        assert TEXT.startswith(last["content"])
        return TEXT if repeats else TEXT[len(last["content"]) :]

    provider = Simulated(keys(5), answer=answer)
    kinds: Counter[str] = Counter()

    async def main() -> None:
        policy = {"max_attempts": 8, "max_attempts_per_deployment": 8}
        async with router_of(provider, **policy) as router:
            for _ in range(STREAMS):
                text, error, whole = await read(router, resume=True)
                kinds["ok" if error is None else str(error.kind)] += 1
                if error is None:
                    assert text == whole == TEXT
                else:
                    assert TEXT.startswith(text)

    virtual(main)
    assert kinds["ok"] > STREAMS * 0.9


FLAGGED = {
    "cut": Fault("truncate", after=5),
    "nothing": Fault("empty"),
    "no events but the head": Fault("truncate", after=0),
    "[DONE] alone": Fault("not_json", after=0, body=b"[DONE]"),
    "[DONE] too early": Fault("not_json", after=5, body=b"[DONE]"),
    "comments": Fault("comments_only", after=0),
    "comments later": Fault("comments_only", after=5),
    "error": Fault("error_event", after=5),
    "closed": Fault("close", after=5),
}


@pytest.mark.parametrize("fault", FLAGGED.values(), ids=FLAGGED)
def test_a_stream_that_is_not_whole_is_never_taken_for_one(fault: Fault) -> None:
    provider = Simulated([SimulatedKey("a", faults=fault)])

    async def main() -> None:
        async with router_of(provider, max_attempts=1) as router:
            for _ in range(3):
                _, error, whole = await read(router)
                assert (whole, error is None) == (None, False)

    virtual(main)


class Lingering:
    """Sends a whole stream and then keeps the connection open."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces

    async def open(self, exchange: Exchange) -> Any:
        return _Lingering(self._pieces)

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


class _Lingering:
    status = 200
    headers = ((b"content-type", b"text/event-stream"),)

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._left = iter(pieces)

    def __aiter__(self) -> _Lingering:
        return self

    async def __anext__(self) -> bytes:
        await anyio.lowlevel.checkpoint()
        for piece in self._left:
            return piece
        await anyio.sleep_forever()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


_SAID = b'data: {"id":"1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":%b}]}\n\n'


async def test_a_connection_held_open_after_done_is_a_whole_answer() -> None:
    pieces = [_SAID % (b"a ", b"null"), _SAID % (b"b", b'"stop"'), b"data: [DONE]\n\n"]
    async with Router([Mistral("sk-0123456789")], engine=Lingering(pieces), timeout=Timeout(idle=20)) as router:
        with anyio.fail_after(5):
            async with router.stream("mistral/mistral-small-latest", "hi") as stream:
                text = "".join([piece async for piece in stream.text()])
    assert text == stream.response.text == "a b"
