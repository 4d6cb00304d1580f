"""Answers that were given before: exact or similar, per tenant, in memory or in a store that others share.

``ResponseCachePlugin()`` alone keeps 1,024 answers in up to 64 MiB for ten minutes.
"""

from __future__ import annotations

from ._plugin import ResponseCachePlugin
from ._semantic import Semantic
from ._stats import CacheStats

__all__ = ["CacheStats", "ResponseCachePlugin", "Semantic", "plugin"]


def plugin() -> ResponseCachePlugin:
    """The plugin as ``load_plugins("response_cache")`` makes it: in memory, with its defaults."""
    return ResponseCachePlugin()
