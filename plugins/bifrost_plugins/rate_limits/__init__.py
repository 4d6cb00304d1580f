"""Limits of requests, tokens and concurrency per caller, team, provider or model, on sliding windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bifrost_core import ConfigError
from bifrost_plugins.stores.urls import open_store

from .limit import RateLimit
from .plugin import RateLimitPlugin

__all__ = ["RateLimit", "RateLimitPlugin", "plugin"]


def plugin(*, store: str = "memory", limits: Sequence[Mapping[str, Any]] = ()) -> RateLimitPlugin:
    """The plugin as ``load_plugins("rate_limits")`` and configuration files make it.

    ``store`` is ``memory``, ``sqlite:PATH`` or ``redis://…``; a limit is a table of ``RateLimit``'s arguments.

    Raises:
        ConfigError: An entry is wrong; names it.
    """
    made = list[RateLimit]()
    for index, table in enumerate(limits):
        try:
            made.append(RateLimit(**table))
        except TypeError as exc:
            raise ConfigError(f"limits[{index}]: {exc}", field=f"limits[{index}]") from exc
    return RateLimitPlugin(open_store(store), made)
