"""``BudgetPlugin``: reserve the most that an attempt may cost, settle what it did cost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from types import MappingProxyType
from typing import Any, ClassVar, Final

import attrs

from bifrost_core import (
    Attempt,
    BudgetExceededError,
    Call,
    CallRecord,
    Clock,
    ConfigError,
    HookOptions,
    Kind,
    Operation,
    Price,
    RouteRef,
    hookimpl,
)
from bifrost_plugins._expectations import Expectations
from bifrost_plugins._holding import Holder
from bifrost_plugins.stores import (
    Claims,
    Crossing,
    Denied,
    Ended,
    Hold,
    LedgerConflictError,
    Store,
    StoreError,
)

from .bounds import LIMITABLE, lower_output, upper_bound
from .budget import Budget, BudgetAlert
from .charges import Basis, basis_of
from .desk import BudgetDesk, instant_of
from .money import Usd, exact_pico, usd_of
from .plans import Plan, Plans
from .reservations import Share, Taken, charge_of, exceeded, refused

__all__ = ["BudgetPlugin"]

_CLAMPS: Final = 8  # times that an attempt is lowered while others take what it was lowered to

_NOTHING: Final = Claims()
_CACHED: Final[Mapping[str, int]] = MappingProxyType({"cached_calls": 1})

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class _CallState:
    taken: dict[str, Taken] = attrs.field(factory=dict[str, Taken])
    is_counted: bool = False


class BudgetPlugin(BudgetDesk):
    """Budgets in USD that hold: of everything together, of keys, teams, customers, providers, models.

    Before an attempt is sent, the most that it may cost is held in every budget that it belongs to, in
    all of them or none; when it has ended, what it did cost is booked and the rest given back. What may
    not fit under a hard budget is refused with ``BudgetExceededError``, which says which budget, what is
    spent and held, the limit and when it turns. An attempt without an upper bound is refused as well, as
    it could not be held to anything; the options say what to do instead.

    What was cancelled or broke after it was sent is charged as the provider will probably bill it: the
    whole hold under a hard budget, an estimate under a soft one, and what had arrived of a stream.

    Args:
        store: Where budgets are counted; None: in memory, for this process.
        budgets: Any number, in any mix. Without any, usage is counted all the same.
        max_output: Output limit in tokens (of each choice) that is sent with requests that set none.
            None: under a hard budget they are refused.
        ceiling: Price for models whose price is unknown, which are refused under a hard budget otherwise.
        unbounded: USD that are held under a hard budget for an attempt whose prompt has no bound (images,
            documents, audio). None: it is refused.
        on_threshold: Told of every threshold that is reached, once per budget, threshold and period, by
            one of those who share the store. A plain function; what it raises is logged. None: a line
            in the log.
        clock: Where the time comes from.

    Raises:
        ConfigError: An option makes no sense, or two budgets of one scope have one name.
    """

    # The time cap is the call's own: a busy store is waited for, and one that hangs counts as failed before.
    hook_options: ClassVar[Mapping[str, HookOptions]] = {"bifrost_reserve": HookOptions(timeout=None)}

    def __init__(
        self,
        store: Store | None = None,
        budgets: Iterable[Budget] = (),
        *,
        max_output: int | None = None,
        ceiling: Price | None = None,
        unbounded: Usd | None = None,
        on_threshold: Callable[[BudgetAlert], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if max_output is not None and (type(max_output) is not int or max_output < 1):
            raise ConfigError(f"max_output is 1 token or more, not {max_output!r}", field="max_output")
        super().__init__(store, budgets, clock=clock)
        self._max_output = max_output
        self._ceiling = ceiling
        self._unbounded = None if unbounded is None else exact_pico(unbounded, "unbounded")
        self._on_threshold = on_threshold
        self._holder = Holder(self._store, on_ended=self._announce)
        self._expectations = Expectations()
        self._plans = Plans(self._budgets, self._overrides)
        self._unreserved = 0
        self._excesses = 0

    @property
    def unreserved(self) -> int:
        """Attempts that went out although the store had failed, as only soft budgets were theirs."""
        return self._unreserved

    @property
    def excesses(self) -> int:
        """Attempts that cost more than their upper bound: a price or a bound was wrong. Booked all the same."""
        return self._excesses

    @property
    def waiting(self) -> int:
        """Ends of attempts that a failing store has not taken yet; they are tried again."""
        return self._holder.outbox.waiting

    # -- hooks ----------------------------------------------------------------------------------

    @hookimpl
    def bifrost_lifespan(self) -> AbstractAsyncContextManager[object]:
        """Keep the store open as long as the Router runs, and bring late ends home."""
        return self._holder.lifespan()

    @hookimpl
    def bifrost_reserve(self, attempt: Attempt, call: Call) -> Coroutine[Any, Any, None] | None:
        """Hold the most that the attempt may cost in all of its budgets.

        Raises:
            BudgetExceededError: One has too little left, or the cost has no bound; kind
                ``budget_unavailable`` when the store of a hard budget fails.
        """
        if call.operation is Operation.MODELS:  # a list of models costs nothing
            return None
        return self._holder.drive(self._reserve(attempt, call))

    @hookimpl
    def bifrost_attempt_finished(self, attempt: Attempt, call: Call) -> Coroutine[Any, Any, None] | None:
        """Book what the attempt cost, or give back what was held."""
        state: _CallState | None = call.state.get(self)
        taken = None if state is None else state.taken.pop(attempt.id, None)
        return None if state is None or taken is None else self._holder.drive(self._end(attempt, state, taken))

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord, call: Call) -> Coroutine[Any, Any, None] | None:
        """Count calls that a cache answered; they cost nothing."""
        return self._holder.drive(self._count_cached(record, call)) if record.cached else None

    # -- after an attempt -------------------------------------------------------------------------

    async def _end(self, attempt: Attempt, state: _CallState, taken: Taken) -> None:
        self._expectations.learn(attempt)
        ended: Ended | None = None
        basis = basis_of(attempt)
        if basis is Basis.NOTHING:
            ended = await self._holder.release(taken.hold.id)
        elif await self._is_held(taken):
            first, state.is_counted = not state.is_counted, True
            charge = charge_of(attempt, taken, basis, self._expectations, first=first)
            if charge.excess:
                self._excesses += 1
            ended = await self._holder.settle(taken.hold.id, charge.amounts, charge.usage)
        if ended is not None:
            self._announce(ended)

    async def _count_cached(self, record: CallRecord, call: Call) -> None:
        provider, _, model = call.request.model.partition("/")
        plan = self._plans.find(record.principal, RouteRef(provider, model, ""), self._now())
        hold = Hold(f"{call.id}/budgets/cached", _NOTHING, call_id=call.id, labels=plan.labels, dispatched=True)
        try:
            await self._holder.ask(self._store.reserve(hold))
        except StoreError as exc:
            _log.warning("a call that a cache answered was not counted: %s", exc)
        else:
            await self._holder.settle(hold.id, (), _CACHED)

    # -- before an attempt ------------------------------------------------------------------------

    async def _reserve(self, attempt: Attempt, call: Call) -> None:
        state: _CallState | None = call.state.get(self)
        if state is None:
            state = call.state[self] = _CallState()
        now = self._now()
        if self._budgets and self._overrides.is_stale(now):
            await self._refresh(now)
        plan = self._plans.find(call.principal, attempt.route, now)
        price = self._ceiling if attempt.price is None else attempt.price
        bound = plan.bound(price, attempt)
        if bound is None and plan.hard is not None:
            await self._bound(attempt, call, plan, plan.hard, price, now)
            bound = plan.bound(price, attempt)
        for tries in count():
            taken = self._taken(attempt, call, plan, price, bound, first=not state.is_counted)
            state.taken[attempt.id] = taken
            try:
                answer = await self._holder.reserve(taken.hold, call)
            except StoreError as exc:
                self._fail(exc, plan.hard)
                return
            if not isinstance(answer, Denied):
                taken.is_reserved = True
                return
            del state.taken[attempt.id]
            short = plan.shares[answer.index]
            room = answer.limit - answer.spent - answer.held
            may_lower = short.named.budget.clamp and tries < _CLAMPS
            if not (may_lower and lower_output(attempt, call, price, room)):
                raise exceeded(short, answer, taken.amount)
            bound = plan.bound(price, attempt)

    async def _refresh(self, now: float) -> None:
        try:
            await self._holder.ask(self._overrides.refresh(now))
        except StoreError as exc:  # the reservation will say what that means
            _log.warning("overrides of budgets could not be read: %s", exc)

    async def _bound(
        self, attempt: Attempt, call: Call, plan: Plan, hard: Share, price: Price | None, now: float
    ) -> None:
        """See to it that an attempt under a hard budget has an upper bound, or refuse it."""
        model = f"{attempt.route.provider}/{attempt.route.model}"
        if price is None:
            raise refused(
                hard,
                f"the price of {model} is unknown, so that nothing bounds its cost; add it to the Router's "
                "prices=PriceBook(…), or give BudgetPlugin a ceiling",
            )
        can_limit = call.operation in LIMITABLE
        if attempt.output_upper is None and can_limit and self._max_output is not None:
            attempt.limit_output(self._max_output)
        if attempt.input_upper is None:
            if self._unbounded is None:
                raise refused(
                    hard,
                    "the size of images, documents and audio does not bound what they cost; give BudgetPlugin "
                    "unbounded='…', the USD to hold for such a request",
                )
            return
        if attempt.output_upper is None and can_limit and any(share.named.budget.clamp for share in plan.shares):
            await self._limit_to_rest(attempt, call, plan.shares, hard, price, now)
        if attempt.output_upper is None:
            raise refused(
                hard,
                "the request sets no output limit, so that nothing bounds its cost; set max_tokens, or give "
                "BudgetPlugin max_output",
            )
        if upper_bound(price, attempt) is None:
            raise refused(
                hard,
                f"the price of {model} lacks a part that it needs (input or output); complete it in prices=PriceBook(…)",
            )

    async def _limit_to_rest(
        self, attempt: Attempt, call: Call, shares: Sequence[Share], hard: Share, price: Price, now: float
    ) -> None:
        """Let a request without an output limit have what the tightest hard budget pays for."""
        bound = [share for share in shares if share.hard]
        try:
            states = await self._holder.ask(self._store.read([share.claim(0, now) for share in bound]))
        except StoreError as exc:
            self._fail(exc, hard)
            return
        rooms = [share.limit - state.spent - state.held for share, state in zip(bound, states, strict=True)]
        tightest = min(range(len(bound)), key=rooms.__getitem__)
        if not lower_output(attempt, call, price, rooms[tightest]):
            share, state = bound[tightest], states[tightest]
            wait = None if state.ends_at is None else max(0.0, state.ends_at - now)
            denied = Denied(0, state.bucket, share.limit, state.spent, state.held, state.ends_at, wait)
            raise exceeded(share, denied, None)

    def _taken(
        self, attempt: Attempt, call: Call, plan: Plan, price: Price | None, bound: int | None, *, first: bool
    ) -> Taken:
        """What is to be held for an attempt as it stands."""
        rates = plan.rates(price)
        prompt, output = self._expectations.tokens(attempt)
        expected = 0 if rates is None else rates.cost(prompt, output) or 0
        amount = bound
        if amount is None:
            amount = self._unbounded or 0 if plan.hard is not None else expected
        expected = min(expected, amount)
        # Of what a crash leaves behind the whole hold counts, under a hard budget.
        booked = expected if plan.hard is None else amount
        usage = {"attempts": 1, "calls": 1} if first else {"attempts": 1}
        if booked:
            usage["pico_usd"] = usage["uncertain_pico_usd"] = booked
        if prompt:
            usage["input_tokens"] = prompt
        if output:
            usage["output_tokens"] = output
        if price is None:
            usage["unpriced"] = 1
        count_ = len(plan.shares)
        amounts = (amount,) * count_
        hold = Hold(
            f"{attempt.id}/budgets/{count_}",
            plan.claims,
            call_id=call.id,
            amounts=amounts,
            estimate=amounts if plan.all_hard else tuple(amount if share.hard else expected for share in plan.shares),
            expires_in=self._holder.seconds(call),
            dispatched=True,  # what is found after a crash counts as sent
            labels=plan.labels,
            usage=MappingProxyType(usage),
        )
        return Taken(hold, plan.shares, amount, expected, price, is_bounded=bound is not None)

    def _fail(self, exc: StoreError, hard: Share | None) -> None:
        """The store failed: a hard budget refuses, soft ones let the attempt go and count that."""
        if hard is not None:
            raise BudgetExceededError(
                f"the store of the budget of {hard.instance} failed, so nothing is sent: {exc}",
                kind=Kind.BUDGET_UNAVAILABLE,
                scope=hard.instance,
                limit=usd_of(hard.limit),
            ) from exc
        self._unreserved += 1
        _log.warning("the store of soft budgets failed; the attempt goes out without a reservation: %s", exc)

    async def _is_held(self, taken: Taken) -> bool:
        """Whether there is a hold to end; what a failing store did not take before is tried again now."""
        if not taken.is_reserved:
            try:
                await self._holder.ask(self._store.reserve(taken.hold))
            except (StoreError, LedgerConflictError) as exc:
                _log.error("an attempt under soft budgets was not counted: %s", exc)
                return False
        return True

    def _announce(self, ended: Ended) -> None:
        """Tell of the thresholds that an end reached."""
        for crossing in ended.crossings:
            alert = self._alert(crossing)
            if alert is None:
                continue
            if self._on_threshold is None:
                _log.warning(
                    "%s has spent %s of its budget of %s USD (%s)", alert.scope, alert.spent, alert.limit, alert.name
                )
                continue
            try:
                self._on_threshold(alert)
            except Exception:
                _log.exception("on_threshold failed")

    def _alert(self, crossing: Crossing) -> BudgetAlert | None:
        for each in self._budgets:
            instance = each.instance_of(crossing.bucket)
            if instance is None:
                continue
            limit = self._overrides.limit(crossing.bucket, each.limit, self._seen[1])
            parts = {**each.marks(each.limit), **each.marks(limit)}
            return BudgetAlert(
                scope=instance,
                name=each.name,
                threshold=parts.get(crossing.threshold, crossing.threshold / limit if limit else 0.0),
                spent=usd_of(crossing.spent),
                limit=usd_of(limit),
                since=instant_of(crossing.epoch or None),
                hard=each.budget.hard,
            )
        return None
