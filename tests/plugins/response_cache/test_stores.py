"""Answers in a store: shared, with a secret of their own, and a miss where the store fails."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from bifrost_plugins.response_cache import ResponseCachePlugin
from bifrost_plugins.stores import MemoryStore, SqliteStore, Store, StoreError

from bifrost_core import PriceBook, Router
from bifrost_core.testing import FakeClock, Simulated

from .conftest import MODEL, slow_provider


def router_of(provider: Simulated, cache: ResponseCachePlugin) -> Router:
    return Router([provider], plugins=[cache], prices=PriceBook(provider.prices))


@pytest.fixture(params=["memory", "sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Store]:
    """Two ends of one store."""
    if request.param == "memory":
        store = MemoryStore()
        return store, store
    return SqliteStore(tmp_path / "s.db"), SqliteStore(tmp_path / "s.db")


@pytest.mark.parametrize("secret", [None, "a-secret-of-the-owner"], ids=["a secret in the store", "a secret given"])
async def test_two_routers_share_a_store(stores: tuple[Store, Store], provider: Simulated, secret: str | None) -> None:
    one, two = (ResponseCachePlugin(store, secret=secret) for store in stores)
    async with router_of(provider, one) as first, router_of(provider, two) as second:
        asked = await first.chat(MODEL, "hi")
        again = await second.chat(MODEL, "hi")
        assert (await first.chat(MODEL, "hi")).cached
    assert (again.cached, again.text, again.raw) == (True, asked.text, asked.raw)
    assert len(provider.journal) == 1
    assert (one.stats().stored, two.stats().saved) == (1, asked.cost)


async def test_answers_outlive_a_router_in_a_file(tmp_path: Path, provider: Simulated) -> None:
    for cached in (False, True):
        async with router_of(provider, ResponseCachePlugin(SqliteStore(tmp_path / "s.db"))) as router:
            assert (await router.chat(MODEL, "hi")).cached is cached


async def test_another_secret_finds_nothing_and_keys_say_nothing_of_prompts(provider: Simulated) -> None:
    store = MemoryStore()
    async with router_of(provider, ResponseCachePlugin(store, secret="secret-one")) as router:
        await router.chat(MODEL, "canary")
        async with router_of(provider, ResponseCachePlugin(store, secret="secret-two")) as other:
            assert not (await other.chat(MODEL, "canary")).cached
        keys = [key for key, _ in await store.items()]
    assert len(keys) == 2
    assert all(key.startswith("response_cache:") and len(key) == 15 + 64 for key in keys)


async def test_a_lifetime_is_the_stores(provider: Simulated) -> None:
    clock = FakeClock()
    cache = ResponseCachePlugin(MemoryStore(clock=clock), ttl=60, clock=clock)
    async with router_of(provider, cache) as router:
        await router.chat(MODEL, "hi")
        await router.chat(MODEL, "ho", cache={"ttl": 10})
        clock.advance(20)
        assert (await router.chat(MODEL, "hi")).cached
        assert not (await router.chat(MODEL, "ho")).cached
        clock.advance(41)
        assert not (await router.chat(MODEL, "hi")).cached


@pytest.mark.parametrize(
    "value",
    [b"", b"bifrost-response/9\n{}", b"bifrost-response/2\n{", b"\x00" * 40],
    ids=["empty", "newer", "cut", "junk"],
)
async def test_what_is_not_understood_in_a_store_is_a_miss_and_replaced(provider: Simulated, value: bytes) -> None:
    store = MemoryStore()
    async with router_of(provider, ResponseCachePlugin(store, secret="secret-one")) as router:
        await router.chat(MODEL, "hi")
        ((key, _),) = await store.items()
        await store.put(key, value)
        assert not (await router.chat(MODEL, "hi")).cached
        assert (await router.chat(MODEL, "hi")).cached


class Failing(MemoryStore):
    """Fails once it is open, or hangs."""

    failing = False
    hanging = False

    async def _fail(self) -> None:
        if self.hanging:
            await anyio.sleep_forever()
        if self.failing:
            raise StoreError("it is broken")

    async def get(self, key: str) -> bytes | None:
        await self._fail()
        return await super().get(key)

    async def put(
        self, key: str, value: bytes, *, ttl: float | None = None, if_absent: bool = False, expect: bytes | None = None
    ) -> bool:
        await self._fail()
        return await super().put(key, value, ttl=ttl, if_absent=if_absent, expect=expect)


@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_a_store_that_fails_is_a_miss_and_holds_nobody_up(provider: Simulated, how: str) -> None:
    store = Failing()
    cache = ResponseCachePlugin(store)
    async with router_of(provider, cache) as router:
        setattr(store, how, True)
        with anyio.fail_after(15):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(router.chat, MODEL, "hi")
        assert len(provider.journal) == 1  # those who waited have its answer all the same
        assert cache.stats().store_failures == 2
        setattr(store, how, False)
        assert not (await router.chat(MODEL, "hi")).cached
        assert (await router.chat(MODEL, "hi")).cached


async def test_a_store_that_keeps_failing_does_not_switch_the_plugin_off() -> None:
    provider, store = slow_provider(0.0), Failing()
    cache = ResponseCachePlugin(store)
    async with router_of(provider, cache) as router:
        store.failing = True
        for number in range(25):
            await router.chat(MODEL, f"{number}")
        store.failing = False
        await router.chat(MODEL, "hi")
        assert (await router.chat(MODEL, "hi")).cached


async def test_a_stampede_looks_into_the_store_once() -> None:
    class Counting(MemoryStore):
        looked = 0

        async def get(self, key: str) -> bytes | None:
            self.looked += key.startswith("response_cache:")
            await anyio.lowlevel.checkpoint()
            return await super().get(key)

    provider, store = slow_provider(0.05), Counting()
    async with router_of(provider, ResponseCachePlugin(store)) as router:
        for _ in range(2):
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(router.chat, MODEL, "hi")
    assert (len(provider.journal), store.looked) == (1, 2)
