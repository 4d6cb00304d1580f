"""What a call says about cached answers: its option ``cache``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, cast

import attrs

from ._errors import ConfigError

__all__ = ["LONGEST_TTL", "CacheMode", "CacheOption", "cache_option", "checked_ttl"]

LONGEST_TTL: Final = 3600.0
"""Seconds that a cached answer lives at most."""

_FORMS: Final = '"use", "bypass", "refresh", "only", or {"mode": one of them, "ttl": seconds}'


class CacheMode(StrEnum):
    """How a call uses a cache; equal to its string."""

    USE = "use"  # take an answer, or store one; as without the option
    BYPASS = "bypass"  # neither take nor store
    REFRESH = "refresh"  # take none, store anew
    ONLY = "only"  # take one or fail; no provider is asked


@attrs.frozen
class CacheOption:
    """The option ``cache`` of a call, understood.

    Attributes:
        mode: How the cache is used.
        ttl: Seconds that an answer may be old to be taken, and that one lives which this call stores; None: as
            the cache has it.
    """

    mode: CacheMode = CacheMode.USE
    ttl: float | None = None


_USE: Final = CacheOption()
_BY_NAME: Final[dict[str, CacheOption]] = {str(mode): CacheOption(mode) for mode in CacheMode}


def cache_option(value: Any) -> CacheOption:
    """Understand the option ``cache``: None, a mode, or a mapping with ``mode`` and ``ttl``.

    Raises:
        ConfigError: It is none of these, or ``ttl`` is not in (0, 3600] seconds.
    """
    if value is None:
        return _USE
    if isinstance(value, str):
        return _mode(value)
    if not isinstance(value, Mapping):
        raise ConfigError(f"cache is {type(value).__name__}; pass {_FORMS}", field="cache")
    members = cast("Mapping[str, Any]", value)
    if unknown := sorted(str(name) for name in members if name not in {"mode", "ttl"}):
        raise ConfigError(f"cache has an unknown member {unknown[0]!r}; pass {_FORMS}", field=f"cache.{unknown[0]}")
    mode, ttl = members.get("mode"), members.get("ttl")
    if mode is not None and not isinstance(mode, str):
        raise ConfigError(f"cache.mode is {type(mode).__name__}; pass {_FORMS}", field="cache.mode")
    return CacheOption(CacheMode.USE if mode is None else _mode(mode).mode, checked_ttl(ttl, "cache.ttl"))


def checked_ttl(ttl: Any, field: str) -> float | None:
    """A lifetime in seconds, or None.

    Raises:
        ConfigError: It is no number in (0, 3600].
    """
    if ttl is None:
        return None
    if (
        isinstance(ttl, bool)
        or not isinstance(ttl, (int, float))
        or not (math.isfinite(ttl) and 0 < ttl <= LONGEST_TTL)
    ):
        raise ConfigError(f"{field} is a number of seconds > 0, at most {LONGEST_TTL:g}, not {ttl!r}", field=field)
    return float(ttl)


def _mode(name: str) -> CacheOption:
    found = _BY_NAME.get(name)
    if found is None:
        raise ConfigError(f"cache={name!r} is not known; pass {_FORMS}", field="cache")
    return found
