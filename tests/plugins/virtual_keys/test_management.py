"""Issuing, changing and ending keys, teams and customers."""

from __future__ import annotations

import datetime
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from anyio.lowlevel import checkpoint
from bifrost_plugins.stores import MemoryStore, SqliteStore, Store
from bifrost_plugins.virtual_keys import Issued, Team, VirtualKey, VirtualKeyPlugin
from bifrost_plugins.virtual_keys.records import from_json, to_json

from bifrost_core import BifrostError, ConfigError
from bifrost_core.testing import FakeClock

PEPPER = "pepper-for-tests-0123456789abcdef"


async def refused(work: Awaitable[object], why: str | None, field: str | None = None) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        await work
    if field is not None:
        assert caught.value.field == field


async def dump(plugin: VirtualKeyPlugin) -> bytes:
    return b"\n".join(name.encode() + b"=" + value for name, value in await plugin._store.items())


# -- keys ----------------------------------------------------------------------------------------------------------


async def test_an_issued_key_is_seen_once(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("search", models=["mistral/*"], metadata={"who": "ann"})
    key = issued.secret.reveal()
    assert key[6:18] == issued.id == issued.record.id
    assert await plugin.get(issued.id) == issued.record
    assert list(await plugin.list()) == [issued.record]
    shown = f"{issued!r} {issued.record!r} {issued.record.describe()} {attrs.asdict(issued.record)} {vars(plugin)!r}"
    assert key not in shown
    assert key[18:61] not in shown
    assert "digest" not in issued.record.describe()
    with pytest.raises(TypeError):
        pickle.dumps(issued)


async def test_a_dump_of_the_store_holds_no_key(plugin: VirtualKeyPlugin) -> None:
    secrets = []
    for _ in range(20):
        issued = await plugin.issue("k")
        rotated = await plugin.rotate(issued.id, grace=60)
        secrets += [issued.secret.reveal(), rotated.secret.reveal()]
    content = (await dump(plugin)).decode()
    assert content.count("v1$") == 40
    for secret in secrets:
        assert secret not in content
        assert secret[18:61] not in content


async def test_what_is_stored_is_what_is_read() -> None:
    record = VirtualKey(
        id="A" * 12,
        name="everything",
        digest="v1$d",
        previous="v1$p",
        previous_until=2.0,
        team="t",
        customer="c",
        tenant="x",
        operations=("chat",),
        exclude_operations=("ocr",),
        providers=("mistral",),
        exclude_providers=("openai",),
        models=("a*",),
        exclude_models=("ab",),
        key_ids={"mistral": ("k1",), "openai": ("k2", "k3")},
        provider_weights={"mistral": 2},
        created_at=1.0,
        expires_at=3.0,
        rotated_at=2.0,
        revoked_at=2.5,
        metadata={"a": [1, {"b": None}]},
        version=7,
    )
    assert from_json(VirtualKey, to_json(record)) == record
    assert set(to_json(record)) == set(to_json(from_json(VirtualKey, to_json(record))))


@pytest.mark.parametrize(
    "value",
    [b"{", b"[]", b'{"schema":2,"name":"x"}', b'{"schema":1,"id":"a","name":"x","digest":"d","curfew":"22:00"}'],
    ids=["torn", "other", "newer", "restriction-of-a-newer-version"],
)
async def test_a_record_that_is_not_understood_is_no_permission(plugin: VirtualKeyPlugin, value: bytes) -> None:
    await plugin._store.put("virtual_keys/key/" + "A" * 12, value)
    await refused(plugin.get("A" * 12), "the store")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        pytest.param({"operations": ["chatt"]}, "operations", id="operation"),
        pytest.param({"models": 7}, "models", id="models"),
        pytest.param({"models": [""]}, "models", id="empty-model"),
        pytest.param({"key_ids": {"mistral": 3}}, "key_ids", id="key-ids"),
        pytest.param({"provider_weights": {"mistral": -1}}, "provider_weights", id="weight"),
        pytest.param({"provider_weights": ["mistral"]}, "provider_weights", id="weights"),
        pytest.param({"expires_in": -1}, "expires_in", id="past"),
        pytest.param({"expires_in": 1, "expires_at": 5}, "expires_in", id="twice"),
        pytest.param({"expires_at": datetime.datetime(2030, 1, 1)}, "expires_at", id="no-zone"),  # noqa: DTZ001
        pytest.param({"expires_at": "soon"}, "expires_at", id="no-instant"),
        pytest.param({"metadata": {"a": object()}}, "metadata", id="metadata"),
        pytest.param({"metadata": 3}, "metadata", id="no-metadata"),
        pytest.param({"name": "two\nlines"}, "name", id="name"),
        pytest.param({"name": ""}, "name", id="no-name"),
        pytest.param({"tenant": ""}, "tenant", id="tenant"),
        pytest.param({"team": "nobody"}, "team", id="team"),
        pytest.param({"customer": "nobody"}, "customer", id="customer"),
    ],
)
async def test_a_wrong_argument_is_named_and_changes_nothing(
    plugin: VirtualKeyPlugin, arguments: dict[str, Any], field: str
) -> None:
    await refused(plugin.issue(**{"name": "k", **arguments}), None, field)
    assert list(await plugin.list()) == []
    issued = await plugin.issue("k")
    await refused(plugin.update(issued.id, **arguments), None, field)
    assert await plugin.get(issued.id) == issued.record


@pytest.mark.parametrize("field", ["budget", "digest", "id", "revoked_at", "version", "declared"])
async def test_an_unknown_field_is_an_error(plugin: VirtualKeyPlugin, field: str) -> None:
    issued = await plugin.issue("k")
    await refused(plugin.update(issued.id, **{field: 1}), f"{field!r} of a virtual key can not be changed", field)


async def test_an_update_changes_what_it_names(plugin: VirtualKeyPlugin, clock: FakeClock) -> None:
    issued = await plugin.issue("k", models="a", operations="chat")
    updated = await plugin.update(issued.id, models=["b"], expires_in=datetime.timedelta(hours=1))
    assert updated == attrs.evolve(issued.record, models=("b",), expires_at=clock.time() + 3600, version=2)
    assert await plugin.get(issued.id) == updated
    assert (await plugin.update(issued.id, expires_at=None)).expires_at is None
    instant = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    assert (await plugin.update(issued.id, expires_at=instant)).expires_at == 1_893_456_000


async def test_a_key_expires_and_comes_back_and_is_revoked_for_good(plugin: VirtualKeyPlugin, clock: FakeClock) -> None:
    issued = await plugin.issue("k", expires_in=10)
    assert [record.state(clock.time()) for record in await plugin.list(state="active")] == ["active"]
    clock.advance(10)
    assert (await plugin.get(issued.id)).state(clock.time()) == "expired"
    await refused(plugin.rotate(issued.id), "has expired")
    await plugin.update(issued.id, expires_at=None)
    assert (await plugin.expire(issued.id, after=5)).expires_at == clock.time() + 5
    assert (await plugin.expire(issued.id)).state(clock.time()) == "expired"
    revoked = await plugin.revoke(issued.id)
    assert revoked.state(clock.time()) == "revoked"
    clock.advance(1)
    assert await plugin.revoke(issued.id) == revoked
    await refused(plugin.update(issued.id, expires_at=None), "revoked for good")
    await refused(plugin.rotate(issued.id), "revoked for good")
    assert [len(await plugin.list(state=state)) for state in ("active", "expired", "revoked")] == [0, 0, 1]


async def test_only_what_has_ended_is_deleted(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("k")
    await refused(plugin.delete(issued.id), "revoke it first")
    await plugin.revoke(issued.id)
    await plugin.delete(issued.id)
    await refused(plugin.get(issued.id), "there is no virtual key")
    await refused(plugin.delete(issued.id), "there is no virtual key")


async def test_keys_of_a_team_or_customer_are_listed(plugin: VirtualKeyPlugin) -> None:
    await plugin.add_customer("acme")
    await plugin.add_team("search", customer="acme")
    one = await plugin.issue("one", team="search")
    two = await plugin.issue("two", customer="acme")
    three = await plugin.issue("three")
    names = [record.name for record in await plugin.list()]
    assert sorted(names) == ["one", "three", "two"]
    assert [record.id for record in await plugin.list(team="search")] == [one.id]
    assert {record.id for record in await plugin.list(customer="acme")} == {one.id, two.id}
    assert three.record.customer is None


# -- teams and customers -------------------------------------------------------------------------------------------


async def test_a_teams_key_belongs_to_its_customer(plugin: VirtualKeyPlugin) -> None:
    await refused(plugin.add_team("search", customer="acme"), "no customer 'acme'", "customer")
    assert list(await plugin.teams()) == []
    acme = await plugin.add_customer("acme")
    search = await plugin.add_team("search", customer="acme")
    free = await plugin.add_team("free")
    assert list(await plugin.customers()) == [acme]
    assert list(await plugin.teams()) == [free, search]
    await refused(plugin.add_customer("acme"), "already", "customer")
    await refused(plugin.add_team("search"), "already", "team")
    issued = await plugin.issue("k", team="search")
    assert (issued.record.team, issued.record.customer) == ("search", "acme")
    await refused(plugin.issue("k", team="free", customer="acme"), "belongs to no customer", "customer")
    await plugin.add_customer("other")
    await refused(plugin.issue("k", team="search", customer="other"), "not to 'other'", "customer")
    await refused(plugin.update(issued.id, customer="other"), "not to 'other'", "customer")
    assert (await plugin.update(issued.id, team=None)).customer == "acme"
    assert (await plugin.update(issued.id, customer="other")).customer == "other"
    moved = await plugin.update(issued.id, team="search")
    assert (moved.team, moved.customer) == ("search", "acme")
    assert (await plugin.update(issued.id, team="free")).customer is None


async def test_what_is_in_use_is_not_deleted(plugin: VirtualKeyPlugin) -> None:
    await plugin.add_customer("acme")
    await plugin.add_team("search", customer="acme")
    issued = await plugin.issue("k", team="search")
    await refused(plugin.delete_customer("acme"), f"in use by virtual key {issued.id}, team 'search'")
    await refused(plugin.delete_team("search"), f"in use by virtual key {issued.id}")
    assert [len(await plugin.teams()), len(await plugin.customers())] == [1, 1]
    await plugin.revoke(issued.id)
    await plugin.delete_team("search")
    await plugin.delete_customer("acme")
    assert [len(await plugin.teams()), len(await plugin.customers())] == [0, 0]
    await refused(plugin.delete_team("search"), "no team")


# -- at the same time ----------------------------------------------------------------------------------------------


class Yielding(MemoryStore):
    """Lets other tasks run before and after each operation, as a store on a disk or a network does."""

    async def get(self, key: str) -> bytes | None:
        await checkpoint()
        value = await super().get(key)
        await checkpoint()
        return value

    async def put(self, key: str, value: bytes, **options: Any) -> bool:
        await checkpoint()
        done = await super().put(key, value, **options)
        await checkpoint()
        return done

    async def delete(self, key: str, **options: Any) -> bool:
        await checkpoint()
        done = await super().delete(key, **options)
        await checkpoint()
        return done


async def test_no_update_is_lost() -> None:
    plugin = VirtualKeyPlugin(Yielding(), pepper=PEPPER)
    issued = await plugin.issue("k")
    fields: list[tuple[str, Any]] = [
        ("name", "other"),
        ("tenant", "t"),
        ("operations", ("chat",)),
        ("models", ("m",)),
        ("exclude_models", ("n",)),
        ("providers", ("mistral",)),
        ("key_ids", ("k1",)),
        ("expires_at", 2_000_000_000.0),
    ]

    async def update(name: str, value: Any) -> None:
        await plugin.update(issued.id, **{name: value})

    async with anyio.create_task_group() as group:
        for name, value in fields:
            group.start_soon(update, name, value)
    record = await plugin.get(issued.id)
    assert {name: getattr(record, name) for name, _ in fields} == dict(fields)
    assert record.version == 1 + len(fields)


async def together(*works: Callable[[], Awaitable[object]]) -> list[object]:
    """What each of them came to, in this order; a ``ConfigError`` where it was refused."""
    results: dict[int, object] = {}

    async def work(number: int) -> None:
        try:
            results[number] = await works[number]()
        except ConfigError as error:
            results[number] = error

    async with anyio.create_task_group() as group:
        for number in range(len(works)):
            group.start_soon(work, number)
    return [results[number] for number in range(len(works))]


async def test_a_revoked_key_stays_revoked_whoever_changes_it_meanwhile() -> None:
    plugin = VirtualKeyPlugin(Yielding(), pepper=PEPPER)
    key_id = (await plugin.issue("k")).id
    results = await together(
        lambda: plugin.update(key_id, name="a"),
        lambda: plugin.rotate(key_id),
        lambda: plugin.revoke(key_id),
        lambda: plugin.update(key_id, name="b"),
        lambda: plugin.revoke(key_id),
    )
    assert {error.message for error in results if isinstance(error, ConfigError)} <= {
        f"virtual key {key_id} is revoked for good; issue another"
    }
    record = await plugin.get(key_id)
    assert record.revoked_at is not None
    assert [isinstance(results[number], VirtualKey) for number in (2, 4)] == [True, True]


@pytest.mark.parametrize("delay", range(12))
async def test_no_key_is_left_in_a_team_that_is_deleted_meanwhile(delay: int) -> None:
    plugin = VirtualKeyPlugin(Yielding(), pepper=PEPPER)
    await plugin.add_team("search")

    async def issue() -> Issued:
        for _ in range(delay):
            await checkpoint()
        return await plugin.issue("k", team="search")

    issued, deleted = await together(issue, lambda: plugin.delete_team("search"))
    teams = {team.name for team in await plugin.teams()}
    assert {record.team for record in await plugin.list()} <= teams
    assert [record.id for record in await plugin.list()] == ([issued.id] if isinstance(issued, Issued) else [])
    assert teams == ({"search"} if isinstance(deleted, ConfigError) else set())


@pytest.mark.parametrize("delay", range(12))
async def test_no_key_moves_into_a_team_that_is_deleted_meanwhile(delay: int) -> None:
    plugin = VirtualKeyPlugin(Yielding(), pepper=PEPPER)
    await plugin.add_team("search")
    key_id = (await plugin.issue("k")).id

    async def move() -> VirtualKey:
        for _ in range(delay):
            await checkpoint()
        return await plugin.update(key_id, team="search")

    moved, deleted = await together(move, lambda: plugin.delete_team("search"))
    record = await plugin.get(key_id)
    assert [team.name for team in await plugin.teams()] == (["search"] if isinstance(deleted, ConfigError) else [])
    assert record.team == ("search" if isinstance(moved, VirtualKey) else None)
    assert not isinstance(moved, VirtualKey) or isinstance(deleted, ConfigError)


@pytest.mark.parametrize("delay", range(12))
async def test_no_team_is_left_of_a_customer_that_is_deleted_meanwhile(delay: int) -> None:
    plugin = VirtualKeyPlugin(Yielding(), pepper=PEPPER)
    await plugin.add_customer("acme")

    async def add() -> Team:
        for _ in range(delay):
            await checkpoint()
        return await plugin.add_team("search", customer="acme")

    added, deleted = await together(add, lambda: plugin.delete_customer("acme"))
    customers = [customer.name for customer in await plugin.customers()]
    assert customers == (["acme"] if isinstance(deleted, ConfigError) else [])
    assert [team.customer for team in await plugin.teams()] == (["acme"] if isinstance(added, Team) else [])
    assert not isinstance(added, Team) or isinstance(deleted, ConfigError)


async def test_an_id_that_is_taken_is_not_taken_again(
    plugin: VirtualKeyPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter(["A" * 12, "A" * 12, "B" * 12])
    monkeypatch.setattr("bifrost_plugins.virtual_keys.registry.new_id", lambda: next(ids))
    one, two = await plugin.issue("one"), await plugin.issue("two")
    assert [one.id, two.id] == ["A" * 12, "B" * 12]
    assert two.secret.reveal()[6:18] == two.id
    assert (await plugin.get(one.id)).name == "one"


async def test_who_never_gets_a_turn_gives_up(plugin: VirtualKeyPlugin, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = await plugin.issue("k")
    tries: list[str] = []

    async def lose(self: MemoryStore, key: str, value: bytes, **_: Any) -> bool:
        tries.append(key)
        return False

    monkeypatch.setattr(MemoryStore, "put", lose)
    with pytest.raises(BifrostError, match="changed by others all the time"):
        await plugin.update(issued.id, name="other")
    assert len(tries) == 1_000


# -- stores --------------------------------------------------------------------------------------------------------


async def test_two_processes_share_the_keys_of_a_store(shared: Callable[[], Store]) -> None:
    one, two = VirtualKeyPlugin(shared(), pepper=PEPPER), VirtualKeyPlugin(shared(), pepper=[b"n" * 32, PEPPER])
    async with one._store, two._store:
        issued = await one.issue("k", models="m")
        assert await two.get(issued.id) == issued.record
        fields: dict[str, Any] = {"name": "other", "tenant": "t", "models": ("n",), "operations": ("chat",)}
        await together(
            *(
                lambda plugin=plugin, name=name: plugin.update(issued.id, **{name: fields[name]})
                for plugin, name in zip((one, two, one, two), fields, strict=True)
            )
        )
        record = await two.get(issued.id)
        assert {name: getattr(record, name) for name in fields} == fields
        assert record.version == 1 + len(fields)
        await two.revoke(issued.id)
        assert (await one.get(issued.id)).revoked_at is not None
        content = await dump(one)
        assert issued.id.encode() in content
        assert issued.secret.reveal()[18:61].encode() not in content


async def test_a_file_holds_no_key(tmp_path: Path) -> None:
    plugin = VirtualKeyPlugin(SqliteStore(tmp_path / "keys.db"), pepper=PEPPER)
    issued = await plugin.issue("k")
    content = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))  # noqa: ASYNC240 # a small file
    assert issued.id.encode() in content
    assert issued.secret.reveal()[18:61].encode() not in content
    assert PEPPER.encode() not in content


def test_a_shared_store_needs_a_shared_pepper(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pepper") as caught:
        VirtualKeyPlugin(SqliteStore(tmp_path / "keys.db"))
    assert caught.value.field == "pepper"
    VirtualKeyPlugin(MemoryStore())


@pytest.mark.parametrize(("name", "value"), [("cache_seconds", 2), ("cache_seconds", -1), ("max_failures", 0)])
def test_a_setting_out_of_bounds_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        VirtualKeyPlugin(**{name: value})
    assert caught.value.field == name
