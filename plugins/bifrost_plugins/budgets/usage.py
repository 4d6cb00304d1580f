"""Who spent what on which model: rows of usage, in decimals that add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Final

import attrs

from bifrost_core import ConfigError, Usage
from bifrost_plugins._scopes import parse_instance
from bifrost_plugins.stores import Store, UsageCell

from .money import usd_of

__all__ = ["LABELS", "UsageRow", "measures", "rows_of"]

LABELS: Final = ("model", "provider", "virtual_key", "team", "customer", "tenant", "principal", "hour")
"""What usage can be told apart by."""


@attrs.frozen(kw_only=True)
class UsageRow:
    """What was used under one combination of labels.

    Attributes:
        labels: By the names that were asked for; ``""`` where a call had none. ``hour`` is the time at
            which it began, ISO 8601, UTC.
        cost: USD that were booked, exactly.
        uncertain: The part of ``cost`` that nobody has confirmed: of attempts that were cancelled or broke
            after they had been sent.
        calls: Calls with at least one attempt that counts.
        attempts: Attempts that were sent and not refused by the provider.
        cached_calls: Calls that a cache answered; they are in no other column.
        unpriced: Attempts whose price is unknown; ``cost`` has nothing of them.
        input_tokens: Tokens of prompts, cached ones included.
        cached_tokens: The part of them that came from the provider's cache.
        cache_write_tokens: The part of them that was written to it.
        long_cache_write_tokens: The part of those that is kept for long, at a higher price.
        output_tokens: Tokens of answers, reasoning included.
        reasoning_tokens: The part of them that was reasoning.
        pages: Pages read.
        characters: Characters spoken.
        audio_seconds: Seconds of audio read.
    """

    labels: Mapping[str, str]
    cost: Decimal
    uncertain: Decimal
    calls: int
    attempts: int
    cached_calls: int
    unpriced: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    long_cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    pages: int
    characters: int
    audio_seconds: Decimal


def measures(usage: Usage | None, *, pico: int, uncertain: bool, first: bool, priced: bool) -> Mapping[str, int]:
    """What one attempt adds to the store's usage, in whole numbers.

    Args:
        usage: Tokens and the like; None: not known.
        pico: Pico-USD that were booked.
        uncertain: Whether nobody has confirmed them.
        first: Whether it is the first attempt of its call that counts.
        priced: Whether its price is known.
    """
    counts = {"attempts": 1}
    if first:
        counts["calls"] = 1
    if not priced:
        counts["unpriced"] = 1
    if pico:
        counts["pico_usd"] = pico
        if uncertain:
            counts["uncertain_pico_usd"] = pico
    if usage is not None:
        _count(usage, counts)
    return MappingProxyType(counts)


def _count(usage: Usage, counts: dict[str, int]) -> None:
    """Add what was used, but for what was not: a mapping of all would be made and sifted at every attempt."""
    if usage.input_tokens:
        counts["input_tokens"] = usage.input_tokens
    if usage.output_tokens:
        counts["output_tokens"] = usage.output_tokens
    if usage.cached_tokens:
        counts["cached_tokens"] = usage.cached_tokens
    if usage.cache_write_tokens:
        counts["cache_write_tokens"] = usage.cache_write_tokens
    if usage.long_cache_write_tokens:
        counts["long_cache_write_tokens"] = usage.long_cache_write_tokens
    if usage.reasoning_tokens:
        counts["reasoning_tokens"] = usage.reasoning_tokens
    if usage.pages:
        counts["pages"] = usage.pages
    if usage.characters:
        counts["characters"] = usage.characters
    if milliseconds := round(usage.audio_seconds * 1000):
        counts["audio_ms"] = milliseconds


def _second(value: datetime | float, field: str) -> float:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigError(f"{field} has no time zone; write datetime(…, tzinfo=UTC)", field=field)
        return value.timestamp()
    return float(value)


async def rows_of(
    store: Store,
    *,
    now: float,
    scope: str | Sequence[str] | None,
    since: datetime | float | None,
    until: datetime | float | None,
    by: Sequence[str],
) -> list[UsageRow]:
    """See ``BudgetPlugin.usage``; ``now`` is a UTC second."""
    wanted = [by] if isinstance(by, str) else list(by)
    for label in wanted:
        if label not in LABELS:
            raise ConfigError(f"usage is not kept by {label!r}; by {', '.join(LABELS)}", field="by")
    where = {} if scope is None else {kind: name or "" for kind, name in parse_instance(scope).parts}
    month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    first = month.timestamp() if since is None else _second(since, "since")
    last = now + 1.0 if until is None else _second(until, "until")
    return [_row(cell, wanted) for cell in await store.usage(first, last, by=wanted, where=where)]


def _row(cell: UsageCell, by: Sequence[str]) -> UsageRow:
    values = cell.values

    def count(name: str) -> int:
        return values.get(name, 0)

    labels = {name: cell.labels.get(name, "") for name in by}
    if "hour" in labels:
        labels["hour"] = datetime.fromtimestamp(int(labels["hour"]), UTC).isoformat()
    return UsageRow(
        labels=MappingProxyType(labels),
        cost=usd_of(count("pico_usd")),
        uncertain=usd_of(count("uncertain_pico_usd")),
        calls=count("calls"),
        attempts=count("attempts"),
        cached_calls=count("cached_calls"),
        unpriced=count("unpriced"),
        input_tokens=count("input_tokens"),
        cached_tokens=count("cached_tokens"),
        cache_write_tokens=count("cache_write_tokens"),
        long_cache_write_tokens=count("long_cache_write_tokens"),
        output_tokens=count("output_tokens"),
        reasoning_tokens=count("reasoning_tokens"),
        pages=count("pages"),
        characters=count("characters"),
        audio_seconds=Decimal(f"{count('audio_ms')}E-3"),
    )
