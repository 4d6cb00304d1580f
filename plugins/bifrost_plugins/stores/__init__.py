"""Where plugins keep what they share: in memory, in a file of SQLite or in Redis; one protocol.

``MemoryStore()`` is the default and lives as long as the process. ``SqliteStore(path)`` is shared by
the processes of one machine and survives their crashes. ``RedisStore(url)``, for Redis or Valkey, is
shared by many machines.
"""

from __future__ import annotations

from .base import (
    MAX_AMOUNT,
    BucketState,
    Claim,
    ClaimKind,
    Claims,
    Correction,
    Crossing,
    Denied,
    Ended,
    Granted,
    Hold,
    HoldState,
    LedgerConflictError,
    OpenHold,
    Store,
    StoreError,
    UsageCell,
)
from .memory import MemoryStore
from .outbox import Outbox
from .redis import RedisStore
from .sqlite import SqliteStore

__all__ = [
    "MAX_AMOUNT",
    "BucketState",
    "Claim",
    "ClaimKind",
    "Claims",
    "Correction",
    "Crossing",
    "Denied",
    "Ended",
    "Granted",
    "Hold",
    "HoldState",
    "LedgerConflictError",
    "MemoryStore",
    "OpenHold",
    "Outbox",
    "RedisStore",
    "SqliteStore",
    "Store",
    "StoreError",
    "UsageCell",
]
