"""What a cache has done: figures to read."""

from __future__ import annotations

from decimal import Decimal

import attrs

__all__ = ["CacheStats"]


@attrs.define
class CacheStats:
    """What a cache has done since it was made.

    Attributes:
        hits: Calls that it answered.
        waited: Of these, those that had waited for the answer of an identical call.
        semantic_hits: Of these, those that got the answer to a similar question.
        misses: Calls that had to ask a provider; those that bypass the cache are not counted.
        stored: Answers that it has kept.
        not_stored: Answers that it may not keep: cut off, blocked, recovered, of a fallback, or too large.
        not_comparable: Requests that have no key: with files on disk, or NaN.
        evicted: Answers that had to go before their time, as there was no room.
        store_failures: Times that the store failed or was too slow; each was a miss.
        entries: Answers in memory now; 0 where they are in a store.
        bytes: What they take.
        waiting: Calls that wait now for the answer of an identical one.
        vectors: Vectors of the semantic layer now.
        saved: USD that the answers had cost which were given again.
        unpriced_hits: Hits whose answer had a cost that nobody knows; nothing of them is in ``saved``.
        embeddings: Texts that were embedded for the semantic layer.
        embedding_failures: Times that this failed.
        embedding_cost: USD that they cost.
        unpriced_embeddings: Of them, those whose cost nobody knows.
    """

    hits: int = 0
    waited: int = 0
    semantic_hits: int = 0
    misses: int = 0
    stored: int = 0
    not_stored: int = 0
    not_comparable: int = 0
    evicted: int = 0
    store_failures: int = 0
    entries: int = 0
    bytes: int = 0
    waiting: int = 0
    vectors: int = 0
    saved: Decimal = Decimal(0)
    unpriced_hits: int = 0
    embeddings: int = 0
    embedding_failures: int = 0
    embedding_cost: Decimal = Decimal(0)
    unpriced_embeddings: int = 0

    @property
    def hit_rate(self) -> float:
        """Hits of all calls that asked the cache, 0 to 1."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else 0.0
