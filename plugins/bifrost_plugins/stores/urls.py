"""A store by its address, as configuration files and command lines have it."""

from __future__ import annotations

from typing import Final

from bifrost_core import ConfigError

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
        from .redis import RedisStore  # noqa: PLC0415 # needs the package redis

        return RedisStore(address if rest.startswith("//") else rest)
    raise ConfigError(f"the store's address is none; write {_SHAPES}", field="store")
