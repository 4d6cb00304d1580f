"""What people do with budgets by hand: look, override, correct, adjust, and ask who spent what."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import uuid4

from bifrost_core import Clock, ConfigError, SystemClock
from bifrost_plugins._scopes import Scope, parse_instance
from bifrost_plugins.stores import Correction, LedgerConflictError, MemoryStore, Store

from .budget import Budget, BudgetState, Named, named
from .money import Usd, exact_pico, usd_of
from .overrides import Overrides
from .reservations import Share
from .usage import UsageRow, rows_of

__all__ = ["BudgetDesk", "instant_of"]

_JUMP: Final = 3_600.0  # seconds that the wall clock may run ahead of the monotonic one without a word

_log = logging.getLogger(__name__)


class BudgetDesk:
    """Budgets in a store, for people; no Router is needed. ``BudgetPlugin`` is one too.

    Args:
        store: Where budgets are counted; None: in memory.
        budgets: As the plugin has them.
        clock: Where the time comes from.

    Raises:
        ConfigError: Two budgets of one scope have one name.
    """

    def __init__(
        self, store: Store | None = None, budgets: Iterable[Budget] = (), *, clock: Clock | None = None
    ) -> None:
        self._clock: Clock = SystemClock() if clock is None else clock
        self._store: Store = MemoryStore(clock=self._clock) if store is None else store
        self._budgets = named(list(budgets))
        self._overrides = Overrides(self._store)
        self._seen = (0.0, 0.0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r}, {[each.scope.label for each in self._budgets]!r})"

    def _now(self) -> float:
        """UTC second; never goes back, as a period that was left is not entered again."""
        steady, wall = self._clock(), self._clock.time()
        last_steady, last_wall = self._seen
        if last_wall and wall - last_wall - (steady - last_steady) > _JUMP:
            _log.error("the clock went forward by %.0f s; periods of budgets may turn early", wall - last_wall)
        self._seen = steady, max(wall, last_wall)
        return self._seen[1]

    async def read(self, *scopes: str | Sequence[str]) -> list[BudgetState]:
        """How budgets stand.

        Args:
            scopes: Instances, such as ``"team:search"`` or ``("team:search", "model:mistral/x")``; without
                any, every budget that has only one.

        Raises:
            ConfigError: An instance is none, or no budget is its.
            StoreError: The store failed.
        """
        now = self._now()
        wanted = [
            (each, scope.instance(dict(_names(scope.parts))))
            for scope in map(parse_instance, scopes)
            for each in self._of(scope)
        ]
        if not scopes:
            wanted = [(each, each.scope.label) for each in self._budgets if each.scope.is_single]
        async with self._store:
            await self._overrides.refresh(now)
            shares = [
                Share(each, label, self._overrides.limit(each.bucket(label), each.limit, now))
                for each, label in wanted
                if label is not None
            ]
            states = await self._store.read([share.claim(0, now) for share in shares])
        return [
            BudgetState(
                scope=share.instance,
                name=share.named.name,
                limit=usd_of(share.limit),
                spent=usd_of(state.spent),
                held=usd_of(state.held),
                resets_at=instant_of(state.ends_at),
                hard=share.hard,
            )
            for share, state in zip(shares, states, strict=True)
        ]

    async def override(
        self, scope: str | Sequence[str], limit: Usd | None, until: datetime | float, *, name: str | None = None
    ) -> None:
        """Let another limit hold for a while, for everybody who shares the store, within a second.

        Args:
            scope: The instance, such as ``"team:search"``.
            limit: USD; None takes an override away.
            until: When it ends: an aware datetime or a UTC second.
            name: Which budget of the scope, where it has several.

        Raises:
            ConfigError: No budget is meant, or several, or ``until`` has no time zone.
            StoreError: The store failed.
        """
        each, instance = self._one(scope, name)
        if isinstance(until, datetime) and until.tzinfo is None:
            raise ConfigError("until has no time zone; write datetime(…, tzinfo=UTC)", field="until")
        end = until.timestamp() if isinstance(until, datetime) else float(until)
        pico = None if limit is None else exact_pico(limit, "limit")
        async with self._store:
            await self._overrides.change(each.bucket(instance), pico, end, self._now())

    async def correct(
        self,
        scope: str | Sequence[str],
        *,
        reason: str,
        delta: Usd | None = None,
        to: Usd | None = None,
        name: str | None = None,
        correction_id: str | None = None,
    ) -> None:
        """Change what a budget has spent in its running period, by an entry of its own.

        Args:
            scope: The instance, such as ``"team:search"``.
            reason: Why, and who says so; kept with the entry.
            delta: USD to add; may be negative.
            to: Instead: what shall have been spent, USD.
            name: Which budget of the scope, where it has several.
            correction_id: Makes repeating it safe; made up by default.

        Raises:
            ConfigError: No budget is meant, or several, there is no reason, or not one of the amounts.
            LedgerConflictError: Spending would become negative.
            StoreError: The store failed.
        """
        each, instance = self._one(scope, name)
        if not reason.strip():
            raise ConfigError("a correction has a reason", field="reason")
        if (delta is None) == (to is None):
            raise ConfigError("give either delta or to", field="delta")
        change = None
        if delta is not None:
            change = exact_pico(abs(Decimal(delta)) if not isinstance(delta, float) else delta, "delta")
            change = -change if Decimal(delta) < 0 else change
        async with self._store:
            await self._store.correct(
                each.claim(instance, 0, each.limit, self._now()),
                correction_id=correction_id or uuid4().hex,
                reason=reason,
                delta=change,
                to=None if to is None else exact_pico(to, "to"),
            )

    async def adjust(self, attempt_id: str, cost: Usd, *, reason: str) -> None:
        """Replace what an ended attempt was charged, from the provider's bill; in all of its budgets.

        What ``usage`` says is left as it is.

        Args:
            attempt_id: ``attempt.id``.
            cost: USD that it should have cost.
            reason: Why; kept with an entry for each budget.

        Raises:
            LedgerConflictError: The attempt has not ended, or ended longer ago than the store remembers.
            StoreError: The store failed.
        """
        pico = exact_pico(cost, "cost")
        refusal: LedgerConflictError | None = None
        async with self._store:
            for number in range(len(self._budgets), -1, -1):  # the hold's id says how many budgets it has
                try:
                    await self._store.adjust(f"{attempt_id}/budgets/{number}", [pico] * number, reason=reason)
                except LedgerConflictError as exc:
                    refusal = exc
                else:
                    return
        assert refusal is not None  # noqa: S101 - the loop ran at least once
        raise refusal

    async def corrections(self, limit: int = 1_000) -> list[Correction]:
        """The latest corrections and adjustments, newest first; amounts in pico-USD, buckets as in the store.

        Raises:
            StoreError: The store failed.
        """
        async with self._store:
            entries = await self._store.corrections(limit)
        return [entry for entry in entries if entry.bucket.startswith("budget")]

    async def usage(
        self,
        *,
        scope: str | Sequence[str] | None = None,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        by: Sequence[str] = ("model",),
    ) -> list[UsageRow]:
        """Who spent what on which model.

        Args:
            scope: Only this one: ``"team:search"``, or several as a tuple; None: everybody.
            since: An aware datetime or a UTC second, rounded down to the hour; None: the first of this
                month, UTC.
            until: Not included, rounded up to the hour; None: now.
            by: What to tell apart: any of ``model, provider, virtual_key, team, customer, tenant,
                principal, hour``. None of them: one row of everything.

        Returns:
            One row for each combination that occurs, ordered by it. Their sums are exact.

        Raises:
            ConfigError: A label or the scope is not known, or a time has no zone.
            StoreError: The store failed.
        """
        async with self._store:
            return await rows_of(self._store, now=self._now(), scope=scope, since=since, until=until, by=by)

    def _of(self, scope: Scope) -> list[Named]:
        found = [each for each in self._budgets if each.scope.covers(scope)]
        if not found:
            known = ", ".join(sorted({each.scope.label for each in self._budgets})) or "none"
            raise ConfigError(f"no budget is that of {scope.label}; there are those of {known}", field="scope")
        return found

    def _one(self, scope: str | Sequence[str], name: str | None) -> tuple[Named, str]:
        instance = parse_instance(scope)
        found = [each for each in self._of(instance) if name in (None, each.name)]
        if len(found) != 1:
            names = ", ".join(repr(each.name) for each in self._of(instance))
            raise ConfigError(
                f"{instance.label} has the budgets {names}; give them different names and say which by name=",
                field="name",
            )
        return found[0], instance.label


def _names(parts: Iterable[tuple[str, str | None]]) -> Iterable[tuple[str, str]]:
    return ((kind, name) for kind, name in parts if name is not None)


def instant_of(second: float | None) -> datetime | None:
    """A UTC second as a datetime."""
    return None if second is None else datetime.fromtimestamp(second, UTC)
