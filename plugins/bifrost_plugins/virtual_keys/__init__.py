"""Virtual keys: credentials that you issue to callers, with what each of them may do.

A key belongs to nobody, to a team or to a customer (customer > team > virtual key) and names the
operations, providers, models and keys that it may use. It is seen once, when it is issued; what is kept is
a digest that a stolen store can not be used with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bifrost_plugins.stores.urls import open_store

from .plugin import VirtualKeyPlugin
from .records import Customer, Issued, Team, VirtualKey

__all__ = ["Customer", "Issued", "Team", "VirtualKey", "VirtualKeyPlugin", "plugin"]


def plugin(
    *,
    store: str = "memory",
    pepper: str | Sequence[str] | None = None,
    required: bool = True,
    keys: Sequence[Mapping[str, Any]] = (),
    teams: Mapping[str, str | None] | Sequence[str] = (),
    customers: Sequence[str] = (),
    cache_seconds: float = 1.0,
    cut_streams: bool = False,
    max_failures: int = 20,
) -> VirtualKeyPlugin:
    """The plugin as ``load_plugins("virtual_keys")`` and configuration files make it.

    ``store`` is ``memory``, ``sqlite:PATH`` or ``redis://…``; the rest as for ``VirtualKeyPlugin``.
    """
    return VirtualKeyPlugin(
        open_store(store),
        pepper=pepper,
        required=required,
        keys=keys,
        teams=teams,
        customers=customers,
        cache_seconds=cache_seconds,
        cut_streams=cut_streams,
        max_failures=max_failures,
    )
