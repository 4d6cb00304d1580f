"""One budget: how much, for whom, per what period; and what is told of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import attrs

from bifrost_core import ConfigError
from bifrost_plugins._scopes import Scope, parse_scope
from bifrost_plugins.stores import MAX_AMOUNT, Claim

from .money import Usd, exact_pico, usd_of
from .periods import CalendarPeriod, RollingPeriod, make_period

__all__ = ["Budget", "BudgetAlert", "BudgetState", "Named", "named"]

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def _limit(value: Usd) -> Decimal:
    return usd_of(exact_pico(value, "limit"))


def _thresholds(values: Iterable[float]) -> tuple[float, ...]:
    marks = tuple(sorted(set(values)))
    if not all(0 < mark <= 1_000 for mark in marks):
        raise ConfigError("thresholds are parts of the limit, such as 0.8 and 1.0", field="thresholds")
    return marks


def _scope(value: str | Iterable[str]) -> str | tuple[str, ...]:
    return value if isinstance(value, str) else tuple(value)


@attrs.frozen
class Budget:
    """An amount of USD that a scope may spend in a period.

    Attributes:
        limit: USD, as a string, an int or a Decimal; at most twelve decimals and 9.2 million.
        period: ``1h 1d 1w 1M 1Q 1Y`` (month, quarter, year); None never turns. Without ``calendar`` it
            rolls: it lasts so long from its first use (a month 30 days, a quarter 91, a year 365), and
            more than one may be written (``12h``).
        calendar: Periods begin with the hour, the day, Monday, the month, the quarter or the year on the
            clocks of ``time_zone``.
        time_zone: IANA name, such as ``Europe/Berlin``.
        fiscal_start: Month in which the year and its first quarter begin, 1 to 12.
        scope: Whose it is: ``"router"`` (all calls together), ``"virtual_key"``, ``"team"``,
            ``"customer"``, ``"tenant"``, ``"principal"``, ``"provider"``, ``"model"`` (each one has its
            own), ``"team:search"`` (that one), or a tuple (each combination). A call that belongs to none
            of them is not counted.
        hard: It is never exceeded: what may not fit is refused. Soft: it only counts and announces.
        clamp: Where too little is left for the output that was asked for, lower the limit that is sent to
            what is affordable, if that is 16 tokens or more, rather than refuse.
        thresholds: Parts of the limit whose reaching is announced, once per period.
        name: What tells budgets of one scope apart. Without one the first of a scope has none and the
            others are called by their period; spending stays with the name when anything else is changed.

    Raises:
        ConfigError: A setting makes no sense; ``field`` names it.
    """

    limit: Decimal = attrs.field(converter=_limit)
    period: str | None = attrs.field(default=None, kw_only=True)
    calendar: bool = attrs.field(default=False, kw_only=True)
    time_zone: str = attrs.field(default="UTC", kw_only=True)
    fiscal_start: int = attrs.field(default=1, kw_only=True)
    scope: str | tuple[str, ...] = attrs.field(default="router", kw_only=True, converter=_scope)
    hard: bool = attrs.field(default=True, kw_only=True)
    clamp: bool = attrs.field(default=False, kw_only=True)
    thresholds: tuple[float, ...] = attrs.field(default=(0.8, 1.0), kw_only=True, converter=_thresholds)
    name: str | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        parse_scope(self.scope)
        make_period(self.period, calendar=self.calendar, time_zone=self.time_zone, fiscal_start=self.fiscal_start)
        if self.clamp and not self.hard:
            raise ConfigError(
                "a soft budget refuses nothing, so it has nothing to clamp; leave out clamp", field="clamp"
            )
        if self.name is not None and _NAME.fullmatch(self.name) is None:
            raise ConfigError("a budget's name has 1 to 64 letters, digits, dots, dashes and underscores", field="name")


@attrs.define(eq=False)
class Named:
    """A budget of a plugin, ready to be claimed from.

    Attributes:
        budget: As configured.
        scope: Whose it is.
        name: Name for people: the budget's own, else its period.
        limit: Pico-USD.
    """

    budget: Budget
    scope: Scope
    name: str
    limit: int
    _suffix: str
    _period: RollingPeriod | CalendarPeriod | None

    def bucket(self, instance: str) -> str:
        """Name of the counter of one instance."""
        return f"{self._prefix}{instance}{self._suffix}"

    @property
    def _prefix(self) -> str:
        """Differs between every team's budget and the one of a team that has its own beside it."""
        mask = "".join("~" if name is None else "=" for _, name in self.scope.parts)
        return f"budget{mask}/" if "=" in mask else "budget/"

    def instance_of(self, bucket: str) -> str | None:
        """The instance whose counter that is; None: it is none of this budget's."""
        if not bucket.startswith(self._prefix):
            return None
        instance, _, name = bucket.removeprefix(self._prefix).partition("#")
        if (f"#{name}" if name else "") != self._suffix:
            return None
        parts = [] if instance == "router" else [part.partition(":")[0] for part in instance.split("+")]
        return instance if parts == [kind for kind, _ in self.scope.parts] else None

    def claim(self, instance: str, amount: int, limit: int, now: float) -> Claim:
        """A claim on the period that runs now.

        Args:
            instance: Whose counter.
            amount: Pico-USD to take.
            limit: Pico-USD that count as the limit at the moment.
            now: UTC second.
        """
        most = limit if self.budget.hard else None
        marks = self.marks(limit)
        period = self._period
        if isinstance(period, CalendarPeriod):
            begin, end = period.at(now)
            return Claim.counter(
                self.bucket(instance), amount, limit=most, epoch=begin, ends_at=float(end), thresholds=tuple(marks)
            )
        rolling = None if period is None else float(period.seconds)
        return Claim.counter(self.bucket(instance), amount, limit=most, rolling=rolling, thresholds=tuple(marks))

    def turns_at(self, now: float) -> float:
        """UTC second until which ``claim`` says the same; infinite where the store alone knows the period."""
        return self._period.at(now)[1] if isinstance(self._period, CalendarPeriod) else math.inf

    def marks(self, limit: int) -> dict[int, float]:
        """Pico-USD that are announced, each with its part of the limit."""
        marks = dict[int, float]()
        for part in self.budget.thresholds:
            parts, whole = Decimal(str(part)).as_integer_ratio()
            amount = -(-limit * parts // whole)
            if 0 < amount <= MAX_AMOUNT:
                marks[amount] = part
        return marks


def named(budgets: Sequence[Budget]) -> list[Named]:
    """Give every budget a counter of its own.

    Raises:
        ConfigError: Two of one scope can not be told apart.
    """
    found = list[Named]()
    taken = set[tuple[str, str]]()
    for budget in budgets:
        scope = parse_scope(budget.scope)
        name = budget.name or budget.period or "total"
        is_first = budget.name is None and all(each.scope != scope or each.budget.name for each in found)
        if budget.name is None:
            number = 1
            while (scope.label, name) in taken:
                number += 1
                name = f"{budget.period or 'total'}-{number}"
        elif (scope.label, name) in taken:
            raise ConfigError(f"two budgets of {scope.label} are called {name!r}; give each its own name", field="name")
        taken.add((scope.label, name))
        period = make_period(
            budget.period, calendar=budget.calendar, time_zone=budget.time_zone, fiscal_start=budget.fiscal_start
        )
        suffix = "" if is_first else f"#{name}"
        found.append(Named(budget, scope, name, exact_pico(budget.limit, "limit"), suffix, period))
    return found


@attrs.frozen(kw_only=True)
class BudgetState:
    """How a budget stands. All amounts are USD.

    Attributes:
        scope: The instance (``"team:search"``).
        name: Name of the budget, else its period.
        limit: What may be spent now, an override included.
        spent: What was spent in the running period.
        held: What is held for attempts in flight.
        resets_at: When the period turns, UTC; None when it never does or has not begun.
        hard: Whether it refuses.
    """

    scope: str
    name: str
    limit: Decimal
    spent: Decimal
    held: Decimal
    resets_at: datetime | None
    hard: bool

    @property
    def left(self) -> Decimal:
        """What is neither spent nor held; below 0 where a soft budget is overdrawn."""
        return self.limit - self.spent - self.held


@attrs.frozen(kw_only=True)
class BudgetAlert:
    """Spending reached a threshold, for the first time in its period.

    Attributes:
        scope: The instance (``"team:search"``).
        name: Name of the budget, else its period.
        threshold: Part of the limit (0.8).
        spent: USD spent now.
        limit: USD of the budget.
        since: When the period began, UTC; None for one that never turns.
        hard: Whether the budget refuses.
    """

    scope: str
    name: str
    threshold: float
    spent: Decimal
    limit: Decimal
    since: datetime | None
    hard: bool
