"""Limits that hold for a while in place of the configured ones; shared by everybody who uses the store."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from bifrost_plugins.stores import Store, StoreError

__all__ = ["Overrides"]

_KEY: Final = "budgets/overrides"
_TRIES: Final = 16
_FRESH: Final = 1.0  # seconds for which what was read is used

_decode = msgspec.json.Decoder(dict[str, tuple[int, float]]).decode


class Overrides:
    """Limits by counter, in one value of a store: read once a second, whoever changed it.

    Args:
        store: Where it is.

    Attributes:
        version: Another one after every change that was read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._limits = dict[str, tuple[int, float]]()
        self._read_at = float("-inf")
        self.version = 0

    def is_stale(self, now: float) -> bool:
        """Whether ``refresh`` is due."""
        return not 0.0 <= now - self._read_at < _FRESH

    async def refresh(self, now: float) -> None:
        """Read them.

        Raises:
            StoreError: The store failed; what was known stays.
        """
        value = await self._store.get(_KEY)
        self._keep({} if value is None else _read(value), now)

    def _keep(self, limits: dict[str, tuple[int, float]], now: float) -> None:
        if limits != self._limits:
            self._limits = limits
            self.version += 1
        self._read_at = now

    def limit(self, bucket: str, limit: int, now: float) -> int:
        """The limit of a counter that holds now: its override's, else ``limit``."""
        found = self._limits.get(bucket) if self._limits else None
        return limit if found is None or found[1] <= now else found[0]

    def ends_at(self, bucket: str, now: float) -> float:
        """UTC second until which ``limit`` says the same if nobody changes anything."""
        found = self._limits.get(bucket) if self._limits else None
        return math.inf if found is None or found[1] <= now else found[1]

    async def change(self, bucket: str, limit: int | None, until: float, now: float) -> None:
        """Set a counter's limit until a UTC second, or with None take the override away.

        Raises:
            StoreError: The store failed, or too many change it at once.
        """
        for _ in range(_TRIES):
            before = await self._store.get(_KEY)
            limits = {} if before is None else _read(before)
            limits = {name: each for name, each in limits.items() if each[1] > now and name != bucket}
            if limit is not None:
                limits[bucket] = (limit, until)
            after = msgspec.json.encode(limits)
            if await self._store.put(_KEY, after, if_absent=before is None, expect=before):
                self._keep(limits, now)
                return
        raise StoreError("too many change the overrides of budgets at once; try again")


def _read(value: bytes) -> dict[str, tuple[int, float]]:
    try:
        return _decode(value)
    except (msgspec.DecodeError, msgspec.ValidationError) as exc:
        raise StoreError(f"the store's overrides of budgets can not be read: {exc}") from exc
