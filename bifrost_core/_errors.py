"""The two roots of the exception tree that values raise about themselves.

They live below every other module so that a key or a price can refuse bad input; users import them
from ``bifrost_core`` (``errors.py`` has the whole tree).
"""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["BifrostError", "ConfigError"]


def rebuild(cls: type[BifrostError], message: str) -> BifrostError:
    """Make an error for unpickling that knows its message only; its state follows (so that cycles work)."""
    return cls.__new__(cls, message)


@attrs.define(eq=False, kw_only=True, slots=False)
class BifrostError(Exception):
    """Everything that this package raises on purpose.

    Attributes:
        message: What happened, then what to do. Holds no secret and no prompt.
    """

    message: str = attrs.field(kw_only=False)

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # State after construction: an error is reachable from its own ``attempts``.
        return rebuild, (type(self), self.message), dict(self.__dict__)


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class ConfigError(BifrostError):
    """Wrong arguments or configuration; raised before any call.

    Attributes:
        field: The argument or configuration entry at fault, where there is one.
    """

    field: str | None = None
