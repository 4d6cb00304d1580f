"""Who calls, with few virtual keys in a file of SQLite and with a million."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
from bifrost_plugins.stores import SqliteStore
from bifrost_plugins.virtual_keys import VirtualKeyPlugin

from benchmarks.canned import MODEL
from bifrost_core import Call, Operation, Request, Secret
from bifrost_core.testing import FakeClock

from .curves import Curve

__all__ = ["measure"]

_PEPPER: Final = b"a pepper of this benchmark, no secret"
_SUBJECT: Final = "virtual keys in SQLite"
_PER_ROUND: Final = 200  # keys that are looked up
_APART: Final = 1_000_003  # so that no two batches meet in an id
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX, _ID_LENGTH = "sk-bf-", 12  # of a virtual key: what it begins with, and its public id


@attrs.frozen
class _Template:
    """A key that was issued, by which others are made: a row of the store with its id and digest to be replaced."""

    name: str
    value: str
    identity: str
    digest: str

    def rows(self, first: int, count: int) -> Iterator[tuple[str, bytes]]:
        """Rows like it, in the order of their ids, which are spread over all that there can be as random ones are."""
        step = len(_DIGITS) ** _ID_LENGTH // count
        for number in range(count):
            identity = _in_base62(number * step + first * _APART)
            value = self.value.replace(self.identity, identity).replace(self.digest, f"{first + number:064x}")
            yield self.name.replace(self.identity, identity), value.encode()


async def measure(sizes: Sequence[int], folder: Path, *, rounds: int) -> list[Curve]:
    """Measure; one file grows from size to size.

    Args:
        sizes: Numbers of keys, rising.
        folder: Where the file goes: half a gigabyte for a million keys.
        rounds: How often keys are looked up at each size; the figure is the best.
    """
    path = folder / "virtual-keys.db"
    known = await _issued(path)
    template = _template(path, known[0])
    cold: dict[int, float] = {}
    warm: dict[int, float] = {}
    added: dict[int, float] = {}
    stored = len(known)
    for size in sorted(sizes):
        begun = time.process_time()
        if size > stored:
            _insert(path, template.rows(stored, size - stored))
            added[size] = (time.process_time() - begun) / (size - stored)
        stored = max(stored, size)
        for _ in range(rounds):
            first, again = await _looked_up(path, known)
            cold[size] = min(first, cold.get(size, first))
            warm[size] = min(again, warm.get(size, again))
    return [
        Curve(_SUBJECT, "first look-up", "us", {size: cost * 1e6 for size, cost in cold.items()}),
        Curve(_SUBJECT, "again within a second", "us", {size: cost * 1e6 for size, cost in warm.items()}),
        Curve(_SUBJECT, "bulk insert, each", "us", {size: cost * 1e6 for size, cost in added.items()}),
    ]


@contextlib.asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[VirtualKeyPlugin]:
    # A clock that stands still: what was looked up stays fresh, however slow the machine.
    async with SqliteStore(path) as store:
        yield VirtualKeyPlugin(store, pepper=_PEPPER, clock=FakeClock())


async def _issued(path: Path) -> list[Secret]:
    """Keys as users make them: those that are looked up."""
    async with _opened(path) as plugin:
        return [
            (await plugin.issue(f"service {number}", metadata={"owner": "search"})).secret
            for number in range(_PER_ROUND)
        ]


def _template(path: Path, key: Secret) -> _Template:
    identity = key.reveal()[len(_PREFIX) :][:_ID_LENGTH]
    with contextlib.closing(sqlite3.connect(path)) as database:
        name, value = database.execute("SELECT key, value FROM pairs WHERE key LIKE ?", (f"%{identity}",)).fetchone()
    text = bytes(value).decode()
    digest = text.partition('"digest":"')[2].partition('"')[0].rpartition("$")[2]
    return _Template(name, text, identity, digest)


def _in_base62(number: int) -> str:
    digits = ""
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits


def _insert(path: Path, rows: Iterator[tuple[str, bytes]]) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=OFF")  # one writer, and a file that nobody needs afterwards
        database.execute("PRAGMA synchronous=OFF")
        database.execute("BEGIN")
        database.executemany("INSERT INTO pairs VALUES (?, ?, NULL)", rows)
        database.execute("COMMIT")


async def _looked_up(path: Path, keys: Sequence[Secret]) -> tuple[float, float]:
    """Seconds of CPU of a look-up by a process that has just started, and of the next one of the same key."""
    keys = random.Random(7).sample(keys, len(keys))
    async with _opened(path) as plugin:
        times: list[float] = []
        for _ in range(2):
            calls = [_call(key) for key in keys]
            begun = time.process_time()
            for call in calls:
                found = plugin.bifrost_authenticate(call)
                principal = await found if isinstance(found, Coroutine) else found
                assert principal is not None  # noqa: S101 # somebody else's key would be quick
            times.append((time.process_time() - begun) / len(keys))
    return times[0], times[1]


def _call(key: Secret) -> Call:
    request = Request(Operation.CHAT, f"mistral/{MODEL}", {"messages": [{"role": "user", "content": "hello"}]})
    return Call("call", Operation.CHAT, request, virtual_key=key)
