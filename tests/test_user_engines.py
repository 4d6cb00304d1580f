"""Engines that a user brings: a client with its own settings, or an object with the protocol's two methods."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import httpx
import pytest

from bifrost_core import ConfigError, Mistral, ProviderConnectionError, RetryPolicy, Router
from bifrost_core.testing import Fault, SimulatedKey, SimulatedMistral

A = "sk-canary-aaaaaaaaaaaaaaaa"
MODEL = "mistral/mistral-small-latest"


@pytest.fixture
def server() -> Iterator[SimulatedMistral]:
    with SimulatedMistral([SimulatedKey(A, id="a")]) as running:
        yield running


async def test_a_client_of_the_users_own_carries_the_calls_and_stays_open(server: SimulatedMistral) -> None:
    async with httpx.AsyncClient(headers={"x-own": "1"}) as client:
        router = Router(
            [Mistral([A], base_url=server.base_url)], engine=client, retry=RetryPolicy(max_attempts=1, max_wait=0)
        )
        async with router:
            assert (await router.chat(MODEL, "hi", max_tokens=2)).text
            async with router.stream(MODEL, "hi", max_tokens=5) as stream:
                assert [piece async for piece in stream.text()]
            server.fail("a", Fault("reset"))
            with pytest.raises(ProviderConnectionError) as caught:
                await router.chat(MODEL, "hi")
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert not client.is_closed


# httpx leaves the generator of a request's body suspended when it is cancelled; trio tells when it is collected.
@pytest.mark.filterwarnings("ignore:.*async_generator object ByteStream:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")
async def test_a_cancelled_call_over_the_users_client_leaves_its_pool_usable(server: SimulatedMistral) -> None:
    limits = httpx.Limits(max_connections=4)
    async with httpx.AsyncClient(limits=limits) as client:
        async with Router([Mistral([A], base_url=server.base_url)], engine=client) as router:
            server.fail("a", Fault("slow", delay=0.05, last=40))

            async def one(seconds: float) -> None:
                with anyio.move_on_after(seconds):
                    await router.chat(MODEL, "hi", max_tokens=2)

            for _ in range(10):
                async with anyio.create_task_group() as group:
                    for number in range(4):
                        group.start_soon(one, number * 0.004)
            server.heal("a")
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(one, 5)
            assert router.health()[0].in_flight == 0
            assert (await router.chat(MODEL, "hi", max_tokens=2)).text


def test_an_engine_that_is_none_is_refused_by_name(server: SimulatedMistral) -> None:
    for engine in ("requests", 3):
        with pytest.raises(ConfigError) as caught:
            Router([Mistral([A], base_url=server.base_url)], engine=engine)
        assert caught.value.field == "engine"
