"""What is set aside for one attempt, what it is charged in the end, and what is said when it is refused."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import attrs

from bifrost_core import Attempt, BudgetExceededError, Price, Usage
from bifrost_plugins._expectations import Expectations
from bifrost_plugins.stores import Claim, Denied, Hold

from .bounds import LEAST_OUTPUT
from .budget import Named
from .charges import Basis, is_counted
from .money import pico_cost, pico_of, usd_of
from .usage import measures

__all__ = ["Charge", "Share", "Taken", "charge_of", "exceeded", "refused"]

_log = logging.getLogger(__name__)


@attrs.frozen
class Share:
    """A budget that an attempt takes from.

    Attributes:
        named: The budget.
        instance: Whose counter.
        limit: Pico-USD that are its limit now.
    """

    named: Named
    instance: str
    limit: int

    @property
    def hard(self) -> bool:
        """Whether it refuses."""
        return self.named.budget.hard

    def claim(self, amount: int, now: float) -> Claim:
        """A claim of so many pico-USD on the period that runs now."""
        return self.named.claim(self.instance, amount, self.limit, now)


@attrs.define(eq=False)
class Taken:
    """What is set aside for one attempt.

    Attributes:
        hold: What the store was asked for.
        shares: The budgets, one per claim.
        amount: Pico-USD that are held in each of them.
        expected: Pico-USD that it will probably cost, at most ``amount``.
        price: What it is charged by; None where unknown.
        is_bounded: Whether it can not cost more than ``amount``.
        is_reserved: Whether the store has taken it.
    """

    hold: Hold
    shares: tuple[Share, ...]
    amount: int
    expected: int
    price: Price | None
    is_bounded: bool
    is_reserved: bool = False


@attrs.frozen
class Charge:
    """What an attempt is charged.

    Attributes:
        amounts: Pico-USD for each of its budgets.
        usage: What is counted as usage.
        excess: Whether it cost more than it could have: a price or a bound was wrong.
    """

    amounts: Sequence[int]
    usage: Mapping[str, int]
    excess: bool = False


def charge_of(attempt: Attempt, taken: Taken, basis: Basis, expectations: Expectations, *, first: bool) -> Charge:
    """What a finished attempt is charged.

    Args:
        attempt: How it ended.
        taken: What was set aside.
        basis: From the table of charges; not ``NOTHING``.
        expectations: Estimates for what was not counted.
        first: Whether it is the first attempt of its call that counts.
    """
    usage: Usage | None = attempt.usage
    cost: int | None = None
    if basis is Basis.UNBILLED:
        usage, cost = None, 0
    elif basis is Basis.PARTIAL and usage is None and attempt.input_upper is not None:
        usage = Usage(input_tokens=expectations.prompt(attempt), requests=1)
    if basis in (Basis.EXACT, Basis.PARTIAL) and usage is not None:
        cost = pico_cost(taken.price, usage) if attempt.cost is None else pico_of(attempt.cost)
        if cost is not None and basis is Basis.PARTIAL and taken.is_bounded:
            cost = min(cost, taken.amount)
    if cost is None:  # nobody can say: what was held or expected
        amounts = [taken.amount if share.hard else taken.expected for share in taken.shares]
        usage = usage if is_counted(usage) else expectations.usage(attempt)
        cost = max(amounts, default=taken.expected)
        uncertain, excess = True, False
    else:
        amounts = [cost] * len(taken.shares)
        uncertain, excess = basis is Basis.PARTIAL, taken.is_bounded and cost > taken.amount
    if excess:
        _log.error(
            "an attempt on %s/%s cost %s USD, more than its upper bound of %s; it is booked in full",
            attempt.route.provider,
            attempt.route.model,
            usd_of(cost),
            usd_of(taken.amount),
        )
    counts = measures(usage, pico=cost, uncertain=uncertain, first=first, priced=taken.price is not None)
    return Charge(amounts, counts, excess)


def refused(share: Share, why: str) -> BudgetExceededError:
    """The error for an attempt that a hard budget can not be held to."""
    return BudgetExceededError(
        f"the hard budget of {share.instance} refuses this attempt: {why}",
        scope=share.instance,
        limit=usd_of(share.limit),
    )


def exceeded(share: Share, denied: Denied, amount: int | None) -> BudgetExceededError:
    """The error for an attempt that a budget has too little left for.

    Args:
        share: The budget.
        denied: What the store says.
        amount: Pico-USD that were asked for; None: whatever the shortest answer costs.
    """
    limit, spent, held = usd_of(denied.limit), usd_of(denied.spent), usd_of(denied.held)
    left = usd_of(max(denied.limit - denied.spent - denied.held, 0))
    if amount is None:
        asked = f"what the prompt and {LEAST_OUTPUT} tokens of output may cost"
    else:
        asked = f"the {usd_of(amount)} that this attempt may cost"
    resets = denied.retry_after
    when = "it never resets" if resets is None else f"it resets in {math.ceil(resets)} s"
    return BudgetExceededError(
        f"the budget of {limit} USD of {share.instance} ({share.named.name}) has {left} USD left, less than {asked}: "
        f"{spent} spent, {held} held; {when}",
        scope=share.instance,
        spent=spent,
        held=held,
        limit=limit,
        resets_in=resets,
        retry_after=resets,
    )
