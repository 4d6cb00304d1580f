"""The same calls from blocking code, from any thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import attrs
import pytest

from bifrost_core import ConfigError, Key, Mistral, ProviderAuthError, Request, RetryPolicy, SyncRouter
from bifrost_core.testing import Fault, Latency, SimulatedKey, SimulatedMistral

A = "sk-canary-aaaaaaaaaaaaaaaa"
MODEL = "mistral/mistral-small-latest"


@pytest.fixture
def server() -> Iterator[SimulatedMistral]:
    with SimulatedMistral([SimulatedKey(A, id="a", output_tokens=(400, 400))]) as running:
        yield running


@pytest.fixture
def router(server: SimulatedMistral) -> Iterator[SyncRouter]:
    mistral = Mistral([Key(A, id="a")], base_url=server.base_url)
    with SyncRouter([mistral], retry=RetryPolicy(backoff=0, max_wait=0)) as made:
        yield made


def test_a_blocking_chat_and_stream_say_what_the_async_ones_do(router: SyncRouter) -> None:
    reply = router.chat(MODEL, "hi", max_tokens=9)
    assert reply.usage.output_tokens == 9
    with router.stream(MODEL, "hi", max_tokens=400) as stream:
        pieces = list(stream.text())
    assert "".join(pieces) == stream.response.text
    assert len(pieces) > 64  # more than the buffer between the threads holds
    assert router.send(Request("chat", MODEL, {"messages": "hi", "max_tokens": 2})).usage.output_tokens == 2
    assert router.health()[0].in_flight == 0
    assert "provider mistral" in router.describe()


def test_errors_arrive_in_the_calling_thread(router: SyncRouter, server: SimulatedMistral) -> None:
    server.fail("a", Fault("status", status=401, shape="B"))
    with pytest.raises(ProviderAuthError):
        router.chat(MODEL, "hi")
    server.heal("a")
    router.remove_key("mistral", "a")
    router.add_key("mistral", Key(A, id="again"))
    with router.stream(MODEL, "hi", max_tokens=3) as stream:
        assert list(stream)
    with pytest.raises(ConfigError, match="inside"):
        next(router.stream(MODEL, "hi"))


def test_a_stream_that_fails_on_entering_raises_there(router: SyncRouter, server: SimulatedMistral) -> None:
    server.fail("a", Fault("status", status=401, shape="B"))
    with pytest.raises(ProviderAuthError), router.stream(MODEL, "hi"):
        raise AssertionError("entered")


def test_leaving_a_stream_early_ends_the_call() -> None:
    with SimulatedMistral([SimulatedKey(A, latency=Latency(0.0, tokens_per_second=50))]) as slow:
        with SyncRouter([Mistral([A], base_url=slow.base_url)]) as router:
            with router.stream(MODEL, "hi", max_tokens=1000) as stream:
                for chunk in stream:
                    if chunk.text:
                        break
            assert router.health()[0].in_flight == 0
            stream.close()


def test_many_threads_share_one_router(router: SyncRouter) -> None:
    texts: list[str] = []

    def work() -> None:
        for _ in range(5):
            texts.append(router.chat(MODEL, "hi", max_tokens=2).text)
            with router.stream(MODEL, "hi", max_tokens=3) as stream:
                texts.append("".join(stream.text()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 80
    assert all(texts)


def test_a_closed_or_forked_router_says_so(server: SimulatedMistral, monkeypatch: pytest.MonkeyPatch) -> None:
    router = SyncRouter([Mistral([A], base_url=server.base_url)])
    assert router.chat(MODEL, "hi", max_tokens=1).text
    with monkeypatch.context() as patch:
        real = os.getpid()
        patch.setattr(os, "getpid", lambda: real + 1)
        with pytest.raises(ConfigError, match="fork"):
            router.chat(MODEL, "hi")
    router.close()
    router.close()
    with pytest.raises(ConfigError, match="closed"):
        router.chat(MODEL, "hi")


@attrs.frozen
class Bridge:
    name: str


def measure(bridge: str) -> float:
    """Measure a bridge."""
    raise AssertionError("a tool is never run")


def test_classes_and_functions_work_from_blocking_code(router: SyncRouter) -> None:
    assert isinstance(router.chat(MODEL, "Name one.", response_format=Bridge).parsed, Bridge)
    with router.stream(MODEL, "Name one.", response_format=Bridge) as stream:
        assert list(stream)
    assert isinstance(stream.response.parsed, Bridge)
    (call,) = router.chat(MODEL, "How long?", tools=[measure], tool_choice="any").tool_calls
    assert (call.name, list(call.parsed())) == ("measure", ["bridge"])
