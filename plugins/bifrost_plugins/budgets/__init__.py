"""Budgets in USD that hold: reserved before an attempt, settled after it, per key, team, model and period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bifrost_core import ConfigError, Price
from bifrost_plugins.stores.urls import open_store

from .budget import Budget, BudgetAlert, BudgetState
from .plugin import BudgetPlugin
from .usage import UsageRow

__all__ = ["Budget", "BudgetAlert", "BudgetPlugin", "BudgetState", "UsageRow", "plugin"]


def plugin(
    *,
    store: str = "memory",
    budgets: Sequence[Mapping[str, Any]] = (),
    max_output: int | None = None,
    ceiling: Mapping[str, Any] | None = None,
    unbounded: str | int | None = None,
) -> BudgetPlugin:
    """The plugin as ``load_plugins("budgets")`` and configuration files make it.

    ``store`` is ``memory``, ``sqlite:PATH`` or ``redis://…``; a budget is a table of ``Budget``'s arguments,
    ``ceiling`` one of ``Price``'s; the rest as for ``BudgetPlugin``.

    Raises:
        ConfigError: An entry is wrong; names it.
    """
    made = list[Budget]()
    for index, table in enumerate(budgets):
        try:
            made.append(Budget(**table))
        except TypeError as exc:
            raise ConfigError(f"budgets[{index}]: {exc}", field=f"budgets[{index}]") from exc
    price = None if ceiling is None else Price(**ceiling)
    return BudgetPlugin(open_store(store), made, max_output=max_output, ceiling=price, unbounded=unbounded)
