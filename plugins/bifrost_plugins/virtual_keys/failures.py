"""Failed authentications: counted, and held against the source that they come from."""

from __future__ import annotations

import logging
from typing import Final

import attrs
from cachetools import LRUCache

from bifrost_core import Clock, RateLimitError

__all__ = ["Failures"]

_SECONDS: Final = 60.0
_MAX_SOURCES: Final = 100_000
_MAX_SOURCE: Final = 200  # characters that are kept of a source's name

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class _Window:
    started: float
    failures: int = 0


@attrs.define(eq=False)
class Failures:
    """How often authentication failed, in all and per source.

    A source that fails ``limit`` times within a minute is refused until that minute is over, with right
    credentials too, and without a look at the store. Failures from nowhere are counted only: to refuse
    on their account would let one caller lock out all others.

    Attributes:
        limit: Failures of a source in a minute.
        clock: Monotonic seconds.
        total: Failures since the start.
        is_watching: Whether a source has failed yet.
    """

    limit: int
    clock: Clock
    total: int = 0
    is_watching: bool = False
    _windows: LRUCache[str, _Window] = attrs.field(factory=lambda: LRUCache[str, _Window](_MAX_SOURCES), init=False)

    def check(self, source: str | None) -> None:
        """Let a source try.

        Raises:
            RateLimitError: It has failed too often; ``retry_after`` says how long it has to wait.
        """
        window = None if source is None else self._window(source)
        if window is not None and window.failures >= self.limit:
            raise RateLimitError(
                "too many failed authentications from this source; wait, then try with a valid virtual key",
                scope="authentication",
                retry_after=max(0.0, window.started + _SECONDS - self.clock()),
            )

    def count(self, source: str | None) -> None:
        """Note that authentication failed."""
        self.total += 1
        if source is None:
            return
        window = self._window(source)
        if window is None:
            window = self._windows[source[:_MAX_SOURCE]] = _Window(self.clock())
            self.is_watching = True
        window.failures += 1
        if window.failures == self.limit:
            _log.warning("%d failed authentications from %.200r; it is refused for a while", self.limit, source)

    def of(self, source: str) -> int:
        """Failures of a source in the running minute."""
        window = self._window(source)
        return 0 if window is None else window.failures

    @property
    def sources(self) -> int:
        """How many sources are remembered."""
        return len(self._windows)

    def _window(self, source: str) -> _Window | None:
        window = self._windows.get(source[:_MAX_SOURCE])
        return None if window is None or self.clock() - window.started >= _SECONDS else window
