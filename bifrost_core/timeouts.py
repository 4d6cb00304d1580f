"""How long the parts of a call may take."""

from __future__ import annotations

from typing import Any, Final

import attrs

from ._errors import ConfigError

__all__ = ["Timeout"]

_DEFAULT_TOTAL: Final = float("60")  # told from a 60 that the user gives by its identity


def _seconds(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is None and attribute.name in {"total", "attempt"}:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise ConfigError(f"timeout.{attribute.name} must be seconds > 0, not {value!r}", field=attribute.name)


@attrs.frozen(kw_only=True)
class Timeout:
    """Limits of time in seconds.

    Attributes:
        total: The whole call, over all attempts. The default of 60 is for plain calls: a stream has no
            total unless one is given. None: no limit.
        connect: TCP and TLS.
        attempt: One attempt of a plain call. None: half of what remains while another deployment is
            left to try, else all that remains.
        first_token: From sending to the first content of a stream.
        idle: Between two pieces of content of a stream.
        pool: Waiting for a free place to send.
    """

    total: float | None = attrs.field(default=_DEFAULT_TOTAL, validator=_seconds)
    connect: float = attrs.field(default=2.0, validator=_seconds)
    attempt: float | None = attrs.field(default=None, validator=_seconds)
    first_token: float = attrs.field(default=30.0, validator=_seconds)
    idle: float = attrs.field(default=30.0, validator=_seconds)
    pool: float = attrs.field(default=1.0, validator=_seconds)

    @classmethod
    def of(cls, value: Timeout | float) -> Timeout:
        """``value`` itself, or a ``Timeout`` whose total it is."""
        return value if isinstance(value, Timeout) else cls(total=value)

    def with_total(self, seconds: float) -> Timeout:
        """The same limits with another total."""
        return attrs.evolve(self, total=seconds)

    def total_for(self, *, stream: bool) -> float | None:
        """The total in force: a stream takes only one that somebody gave."""
        if stream and self.total is _DEFAULT_TOTAL:
            return None
        return self.total
