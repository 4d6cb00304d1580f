"""What only a file of SQLite has: versions, damage, rights, other writers, slow disks."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import anyio
import pytest
from bifrost_plugins.stores import (
    BucketState,
    Claim,
    Granted,
    Hold,
    LedgerConflictError,
    SqliteStore,
    StoreError,
    _sqlite_tables,
)

from bifrost_core import ConfigError
from bifrost_core.testing import FakeClock

CLAIM = Claim.counter("b", 1, limit=10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def content(path: Path) -> bytes:
    return path.read_bytes()


def damage(path: Path, content: bytes, *, at: int = 0) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(at)
        file.write(content)


async def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.put("k", b"v")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 2")
    before = content(path)
    with pytest.raises(StoreError, match=r"written by a newer version of this library \(schema 2, known is 1\)"):
        await SqliteStore(path).start()
    assert content(path) == before


async def test_a_database_of_something_else_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE songs (name TEXT)")
    with pytest.raises(StoreError, match="is a database of something else"):
        await SqliteStore(path).start()


async def test_what_is_no_database_is_refused(path: Path) -> None:
    damage(path, b"Name,Amount\n" * 1000)
    with pytest.raises(StoreError, match=r"is damaged or no database \(SQLITE_NOTADB\)"):
        await SqliteStore(path).start()


async def test_a_damaged_file_is_an_error_not_an_answer(path: Path) -> None:
    async with SqliteStore(path) as store:
        for number in range(200):
            await store.put(f"k{number}", bytes(500))
    damage(path, b"\xff" * 60_000, at=4096)
    with pytest.raises(StoreError, match="is damaged"):
        async with SqliteStore(path) as store:
            await store.items()


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can not be opened"):
        await SqliteStore(tmp_path / "no" / "store.db").start()


@pytest.mark.parametrize("wrong", ["", ":memory:"])
def test_a_store_is_a_file(wrong: str) -> None:
    with pytest.raises(ConfigError, match="is a file"):
        SqliteStore(wrong)


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
async def test_a_new_file_is_readable_by_its_owner_only(path: Path) -> None:
    async with SqliteStore(path) as store:
        await store.put("k", b"v")
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


@pytest.mark.parametrize(("full", "level"), [(False, 1), (True, 2)], ids=["normal", "full"])
async def test_the_file_is_in_wal_mode_and_synchronous_as_asked(path: Path, full: bool, level: int) -> None:
    async with SqliteStore(path, full=full) as store:
        assert isinstance(await store.reserve(Hold("a", [CLAIM])), Granted)
        tables = store._tables
        assert tables is not None
        assert tables.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert tables.db.execute("PRAGMA synchronous").fetchone() == (level,)


async def test_in_threads_many_calls_at_once_wait_their_turn(path: Path) -> None:
    granted = 0

    async def take(name: int) -> None:
        nonlocal granted
        if isinstance(await store.reserve(Hold(str(name), [CLAIM])), Granted):
            granted += 1

    async with SqliteStore(path, full=True, busy_timeout=5) as store:
        async with anyio.create_task_group() as tasks:
            for name in range(60):
                tasks.start_soon(take, name)
    assert granted == 10


async def test_while_another_writes_the_loop_goes_on_and_the_operation_waits(path: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.001)
            ticks += 1

    async with SqliteStore(path, busy_timeout=10) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tick)

                async def end_soon() -> None:
                    while ticks < 20:  # the loop runs
                        await anyio.sleep(0.001)
                    other.execute("COMMIT")

                tasks.start_soon(end_soon)
                assert isinstance(await store.reserve(Hold("a", [CLAIM])), Granted)
                tasks.cancel_scope.cancel()
    assert ticks >= 20


async def test_one_who_never_ends_is_given_up_on_and_nothing_has_changed(path: Path) -> None:
    async with SqliteStore(path, busy_timeout=0.05) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match=r"was busy for 0\.05 s"):
                await store.reserve(Hold("a", [CLAIM]))
            other.execute("ROLLBACK")
        assert await store.read([CLAIM]) == [BucketState("b", 0, 0)]


async def test_a_cancelled_wait_has_changed_nothing(path: Path) -> None:
    async with SqliteStore(path, busy_timeout=10) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with anyio.move_on_after(0.02) as scope:
                await store.reserve(Hold("a", [CLAIM]))
            assert scope.cancelled_caught
            other.execute("ROLLBACK")
        assert await store.holds() == []


async def test_a_slow_disk_moves_operations_to_a_thread_for_a_while(path: Path) -> None:
    class Slow(FakeClock):
        """Each reading takes 20 ms: an operation seems to last that long."""

        def __call__(self) -> float:
            return self.advance(0.02)

    clock = Slow()
    async with SqliteStore(path, clock=clock) as store:
        for _ in range(2):  # opening was the first
            assert store._aside_until < clock.now
            await store.get("k")
        assert store._aside_until > clock.now
        assert await store.put("k", b"v") is True  # in a thread, with the same result
        assert await store.get("k") == b"v"
        clock.advance(6)
        await store.get("k")
        assert store._aside_until < clock.now


async def test_old_rows_are_tidied_away(path: Path) -> None:
    clock = FakeClock()
    daily = Claim.counter("daily", 1, limit=10, rolling=86_400, thresholds=(1,))
    async with SqliteStore(path, clock=clock) as store:
        await store.reserve(Hold("old", [daily, Claim.window("w", 1, limit=9, seconds=60)]))
        await store.settle("old", [1, 1])
        await store.reserve(Hold("open", [Claim.counter("kept", 1, limit=9, rolling=60)], expires_in=1e7))
        await store.put("k", b"v", ttl=60)
        clock.advance(3 * 86_400)
        await store.expire_due()
        with closing(sqlite3.connect(path)) as db:
            counts = {
                table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("holds", "counters", "periods", "announced", "windows", "entries", "pairs")
            }
    assert counts == {
        "holds": 1, "counters": 1, "periods": 1, "announced": 0, "windows": 0, "entries": 0, "pairs": 0,
    }  # fmt: skip


async def test_results_beyond_the_bound_go_the_oldest_first(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite_tables, "MAX_RESULTS", 2)
    clock = FakeClock()
    async with SqliteStore(path, clock=clock) as store:
        for name in "abcd":
            await store.reserve(Hold(name, [CLAIM]))
            await store.settle(name, [1])
            clock.advance(1)
        await store.expire_due()
        with pytest.raises(LedgerConflictError, match="is not known"):
            await store.settle("b", [1])
        assert (await store.settle("c", [1])).repeated is True


async def test_a_store_that_several_share_is_closed_by_the_last(path: Path) -> None:
    store = SqliteStore(path)
    await store.start()
    async with store:
        pass
    assert store._tables is not None
    await store.aclose()
    assert store._tables is None
    assert await store.get("k") is None  # and opens again when used
    await store.aclose()


def test_what_a_store_is_says_where(path: Path) -> None:
    assert repr(SqliteStore(path)) == f"SqliteStore({str(path)!r})"
