"""What does not change between the calls of one caller to one model: made once, used until a period turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from bifrost_core import Attempt, Price, Principal, RouteRef
from bifrost_plugins._remembered import Remembered
from bifrost_plugins._scopes import instance_labels
from bifrost_plugins.stores import MAX_AMOUNT, Claims
from bifrost_plugins.stores.base import checked_labels

from .bounds import Rates, rates_of, upper_bound
from .budget import Named
from .overrides import Overrides
from .reservations import Share

__all__ = ["Plan", "Plans"]

_REMEMBERED: Final = 10_000


@attrs.define(eq=False)
class Plan:
    """The budgets that an attempt takes from, ready to be claimed from.

    Attributes:
        labels: What its usage is counted under.
        shares: The budgets, in the order of their configuration.
        claims: One for each, of no amount.
        hard: The first that refuses; None where none does.
        all_hard: Whether all of them do.
        until: UTC second from which on it has to be made again.
        version: Of the overrides that it was made by.
    """

    labels: Mapping[str, str]
    shares: tuple[Share, ...]
    claims: Claims
    hard: Share | None
    all_hard: bool
    until: float
    version: int
    _price: Price | None = None
    _rates: Rates | None = None

    def rates(self, price: Price | None) -> Rates | None:
        """The rates of a price: mostly that of the attempt before, by the same object."""
        if price is not self._price:
            self._price, self._rates = price, None if price is None else rates_of(price)
        return self._rates

    def bound(self, price: Price | None, attempt: Attempt) -> int | None:
        """``upper_bound`` of an attempt, by the rates that are at hand."""
        if price is not None and price.long_context is not None:  # the size of the prompt decides which rates hold
            return upper_bound(price, attempt)
        rates = self.rates(price)
        if rates is None or attempt.input_upper is None or attempt.output_upper is None:
            return None
        cost = rates.cost(attempt.input_upper, attempt.output_upper)
        return cost if cost is None or cost < MAX_AMOUNT else MAX_AMOUNT


class Plans:
    """Plans by caller and model. Bounded; belongs to one plugin.

    Args:
        budgets: As they are configured.
        overrides: Of their limits.
    """

    def __init__(self, budgets: Sequence[Named], overrides: Overrides) -> None:
        self._budgets = budgets
        self._overrides = overrides
        self._plans: Remembered[tuple[str | None, ...], Plan] = Remembered(_REMEMBERED)

    def find(self, principal: Principal | None, route: RouteRef, now: float) -> Plan:
        """The plan for an attempt at a UTC second."""
        key: tuple[str | None, ...]
        if principal is None:
            key = route.provider, route.model
        else:
            key = (
                *(route.provider, route.model, principal.id, principal.virtual_key_id),
                *(principal.team, principal.customer, principal.tenant),
            )
        plan = self._plans.get(key)
        if plan is None or plan.until <= now or plan.version != self._overrides.version:
            plan = self._plans.keep(key, self._made(principal, route, now))
        return plan

    def _made(self, principal: Principal | None, route: RouteRef, now: float) -> Plan:
        labels = instance_labels(principal, route)
        shares = list[Share]()
        until = math.inf
        for each in self._budgets:
            instance = each.scope.instance(labels)
            if instance is not None:
                bucket = each.bucket(instance)
                shares.append(Share(each, instance, self._overrides.limit(bucket, each.limit, now)))
                until = min(until, each.turns_at(now), self._overrides.ends_at(bucket, now))
        return Plan(
            checked_labels(labels),
            tuple(shares),
            Claims(share.claim(0, now) for share in shares),
            next((share for share in shares if share.hard), None),
            all(share.hard for share in shares),
            until,
            self._overrides.version,
        )
