"""One limit: how many requests, tokens or places, for whom, in how long."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

import attrs

from bifrost_core import ConfigError
from bifrost_plugins._scopes import parse_scope
from bifrost_plugins.stores import MAX_AMOUNT

__all__ = ["RateLimit", "window_seconds"]

_WRITTEN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_LONGEST: Final = 31 * 86_400.0


def window_seconds(per: str | float) -> float:
    """Seconds of a window.

    Args:
        per: ``"10s"``, ``"1m"``, ``"1h"``, ``"1d"``, or seconds.

    Raises:
        ConfigError: It is neither, or not from just above 0 seconds to 31 days.
    """
    match = _WRITTEN.fullmatch(per) if isinstance(per, str) else None
    seconds = int(match[1]) * _UNITS[match[2]] if match else math.nan if isinstance(per, (str, bool)) else float(per)
    if not 0 < seconds <= _LONGEST:
        raise ConfigError(f"per is a time such as 10s, 1m, 1h or 1d, at most 31 days, not {per!r}", field="per")
    return seconds


def _most(_: object, field: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None and (type(value) is not int or not 0 <= value <= MAX_AMOUNT):
        raise ConfigError(f"{field.name} is a whole number, 0 or more, not {value!r}", field=field.name)


def _scope(value: str | Iterable[str]) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


@attrs.frozen(kw_only=True)
class RateLimit:
    """What a scope may use in a time; any of the three.

    Attributes:
        requests: Calls in any ``per``. A call counts once, at its first attempt, however often it is
            retried; one that a cache answers or a gate refuses does not.
        tokens: Input and output tokens in any ``per``.
        concurrency: Attempts in flight at once.
        per: Length of the sliding window: ``"10s"``, ``"1m"``, ``"1h"``, ``"1d"``, or seconds.
        scope: Whose it is, as of budgets: ``"router"``, ``"virtual_key"``, ``"team"``, ``"customer"``,
            ``"tenant"``, ``"principal"``, ``"provider"``, ``"model"`` (each has its own), ``"team:search"``
            (that one), or a tuple (each combination).

    Raises:
        ConfigError: A setting makes no sense, or nothing is limited.
    """

    requests: int | None = attrs.field(default=None, validator=_most)
    tokens: int | None = attrs.field(default=None, validator=_most)
    concurrency: int | None = attrs.field(default=None, validator=_most)
    per: str | float = "1m"
    scope: str | tuple[str, ...] = attrs.field(default="router", converter=_scope)

    def __attrs_post_init__(self) -> None:
        parse_scope(self.scope)
        window_seconds(self.per)
        if self.requests is None and self.tokens is None and self.concurrency is None:
            raise ConfigError("a limit limits requests, tokens or concurrency; give one", field="requests")
