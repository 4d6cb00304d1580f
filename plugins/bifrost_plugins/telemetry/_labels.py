"""What may be a label of a metric, and how many different ones there may be."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final, TypeAlias

from bifrost_core import Attempt, CallRecord

from .conventions import OTHER

__all__ = ["Labels", "Names", "Series"]

Labels: TypeAlias = dict[str, str | bool]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+-]{0,127}")


class Names:
    """The models that are known to exist: only these are labels.

    A caller may ask for a model of any name, which could be a text of anybody's. A name counts when it has
    a price, or once it has answered.

    Args:
        limit: How many there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._models: set[tuple[str, str]] = set()

    def learn(self, attempt: Attempt) -> None:
        """Take in how an attempt ended."""
        if (attempt.outcome == "ok" or attempt.price is not None) and len(self._models) < self._limit:
            self._models.add((attempt.route.provider, attempt.route.model))

    def model(self, provider: str, model: str) -> str:
        """The model's name as a label."""
        return name(model) if (provider, model) in self._models else OTHER

    def answering(self, record: CallRecord) -> str | None:
        """The name of the model that answered, as a label; None without an answer."""
        response = record.response
        return name(response.model) if response is not None and response.model else None


def name(value: str) -> str:
    """A name as a label; ``other`` for what does not look like one."""
    return value if _NAME.fullmatch(value) else OTHER


class Series:
    """The combinations of values that one metric has been given, never more than a number.

    The last quarter of them is kept for combinations whose open values are ``other``, so that errors can
    still be told from answers when a metric is full.

    Args:
        names: Of the labels.
        open_: Those of them whose values are not from a list of our own.
        limit: How many combinations there may be, at least 4.
    """

    def __init__(self, names: Sequence[str], open_: Collection[str], limit: int) -> None:
        self._names = tuple(names)
        self._is_open = tuple(each in open_ for each in names)
        self._limit = limit
        self._known: dict[tuple[str | bool | None, ...], Labels] = {}

    def __len__(self) -> int:
        return len(self._known)

    def labels(self, *values: str | bool | None) -> Labels:
        """The labels of a combination, in the order of the names; those that are None are left out."""
        found = self._known.get(values)
        if found is not None:
            return found
        if len(self._known) >= self._limit * 3 // 4:
            values = tuple(
                OTHER if is_open and value is not None else value
                for is_open, value in zip(self._is_open, values, strict=True)
            )
            if values not in self._known and len(self._known) >= self._limit - 1:
                values = (OTHER,) * len(values)
            found = self._known.get(values)
        if found is None:
            found = {each: value for each, value in zip(self._names, values, strict=True) if value is not None}
            self._known[values] = found
        return found
