"""The sender on a real wire: what each way of breaking is called, limits of concurrency, connections kept."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from bifrost_core import CallError, ConfigError, Key, Kind, Mistral, RateLimitError, RetryPolicy, Router, Timeout
from bifrost_core.testing import Fault, SimulatedKey, SimulatedMistral

A, B = "sk-canary-aaaaaaaaaaaaaaaa", "sk-canary-bbbbbbbbbbbbbbbb"
MODEL = "mistral/mistral-small-latest"
ONCE = RetryPolicy(max_attempts=1, max_wait=0)


@pytest.fixture
def server() -> Iterator[SimulatedMistral]:
    with SimulatedMistral([SimulatedKey(A, id="a"), SimulatedKey(B, id="b")]) as running:
        yield running


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("close"), Kind.CONNECTION_LOST),
        (Fault("reset"), Kind.CONNECTION_LOST),
        (Fault("half_head"), Kind.PROTOCOL_ERROR),
        (Fault("garbage"), Kind.PROTOCOL_ERROR),
        (Fault("half_body"), Kind.BAD_RESPONSE),
        (Fault("gzip_bomb", size=80 * 2**20), Kind.RESPONSE_TOO_LARGE),
        (Fault("empty"), Kind.BAD_RESPONSE),
    ],
    ids=["close", "reset", "half a head", "garbage", "half a body", "bomb", "empty"],
)
async def test_each_way_of_breaking_has_its_name_and_gives_everything_back(
    server: SimulatedMistral, fault: Fault, kind: Kind
) -> None:
    server.fail("a", fault)
    async with Router([Mistral([A], base_url=server.base_url)], retry=ONCE) as router:
        with pytest.raises(CallError) as caught:
            await router.chat(MODEL, "hi")
        assert router._sender.in_flight == 0
    assert caught.value.kind == kind
    assert A not in str(caught.value)


async def test_a_compressed_answer_that_nobody_asked_for_is_read_all_the_same(server: SimulatedMistral) -> None:
    server.fail("a", Fault("gzip"))
    async with Router([Mistral([A], base_url=server.base_url)], retry=ONCE) as router:
        assert (await router.chat(MODEL, "hi", max_tokens=4)).usage.output_tokens == 4


async def test_a_key_has_no_more_in_flight_than_it_may(server: SimulatedMistral) -> None:
    server.fail("a", Fault("slow", delay=0.02))
    mistral = Mistral([Key(A, id="a")], base_url=server.base_url, max_in_flight_per_key=2, max_in_flight=3)
    replies: list[str] = []

    async def one(router: Router) -> None:
        replies.append((await router.chat(MODEL, "hi", max_tokens=2)).text)

    async with Router([mistral], timeout=Timeout(pool=30)) as router:
        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(one, router)
        assert router._sender.in_flight == 0
    assert len(replies) == 12
    assert server.counters["a"].most_in_flight <= 2


async def test_who_waits_too_long_for_a_place_is_told_so(server: SimulatedMistral) -> None:
    server.fail("a", Fault("hang"))
    mistral = Mistral([Key(A, id="a")], base_url=server.base_url, max_in_flight=1)
    async with Router([mistral], timeout=Timeout(pool=0.1), retry=ONCE) as router, anyio.create_task_group() as group:
        group.start_soon(router.chat, MODEL, "hi")
        with anyio.fail_after(5):
            while not server.counters["a"].in_flight:
                await anyio.sleep(0.005)
        with pytest.raises(RateLimitError) as caught:
            await router.chat(MODEL, "hi")
        group.cancel_scope.cancel()
    assert (caught.value.kind, caught.value.scope) == (Kind.RATE_EXCEEDED, "queue")


def test_headers_that_can_not_be_sent_are_refused_before_any_call() -> None:
    with pytest.raises(ConfigError):
        Router([Mistral([A], headers={"x-own": "a\r\nb: c"})])
