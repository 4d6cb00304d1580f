"""A store by its address, as configuration files and command lines have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from bifrost_core import ConfigError
from bifrost_plugins import stores

from .base import Store
from .memory import MemoryStore
from .sqlite import SqliteStore

__all__ = ["open_store"]

_SHAPES: Final = "memory, sqlite:PATH or redis://HOST:PORT/NUMBER"


def open_store(address: str) -> Store:
    """The store at an address; nothing is opened yet.

    Args:
        address: ``memory``; ``sqlite:PATH``; ``redis://…`` or ``rediss://…``, also with ``redis:`` before it.

    Raises:
        ConfigError: It is none of these. Does not quote it, as it may hold a password.
    """
    scheme, _, rest = address.partition(":")
    if address == "memory":
        return MemoryStore()
    if scheme == "sqlite" and rest:
        return SqliteStore(rest)
    if scheme in {"redis", "rediss"} and rest:
        make = cast("Callable[[str], Store] | None", getattr(stores, "RedisStore", None))
        if make is None:
            raise ConfigError("this version has no store in Redis; use sqlite:PATH", field="store")
        return make(address if rest.startswith("//") else rest)
    raise ConfigError(f"the store's address is none; write {_SHAPES}", field="store")
