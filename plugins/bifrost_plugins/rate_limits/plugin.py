"""``RateLimitPlugin``: hold before an attempt, give back or correct after it."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, ClassVar, Final

import attrs

from bifrost_core import (
    Attempt,
    Call,
    Clock,
    HookOptions,
    Operation,
    Principal,
    RateLimitError,
    RouteRef,
    hookimpl,
)
from bifrost_plugins._expectations import Expectations
from bifrost_plugins._holding import Holder
from bifrost_plugins._remembered import Remembered
from bifrost_plugins._scopes import Scope, instance_labels, parse_scope
from bifrost_plugins.stores import Claim, Claims, Denied, Hold, MemoryStore, Store

from .limit import RateLimit, window_seconds

__all__ = ["RateLimitPlugin"]

_REMEMBERED: Final = 10_000  # callers and models


class _What(StrEnum):
    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"


@attrs.frozen
class _Limit:
    """One thing that is limited."""

    what: _What
    most: int
    scope: Scope
    seconds: float

    def bucket(self, instance: str) -> str:
        """Name of the counter of an instance; another window is another counter."""
        mask = "".join("~" if name is None else "=" for _, name in self.scope.parts)
        own = mask if "=" in mask else ""
        window = "" if self.what is _What.CONCURRENCY else f"/{self.seconds:g}"
        return f"limit{own}/{self.what}{window}/{instance}"

    def claim(self, instance: str) -> Claim:
        """A claim on it, of one."""
        if self.what is _What.CONCURRENCY:
            return Claim.places(self.bucket(instance), limit=self.most)
        return Claim.window(self.bucket(instance), 1, limit=self.most, seconds=self.seconds)


@attrs.frozen
class _Share:
    """What an attempt takes of a limit."""

    limit: _Limit
    instance: str
    claim: Claim


@attrs.frozen(eq=False)
class _Plan:
    """The limits of one caller's attempts on one model, ready to be claimed from.

    Attributes:
        shares: What is taken of each; of tokens that is another amount each time.
        claims: Those of the shares.
        tokens: Which of them are claims of tokens.
        requests: Counters of requests.
    """

    shares: tuple[_Share, ...]
    claims: Claims
    tokens: tuple[bool, ...]
    requests: frozenset[str]

    @classmethod
    def of(cls, shares: Iterable[_Share]) -> _Plan:
        listed = tuple(shares)
        return cls(
            listed,
            Claims(share.claim for share in listed),
            tuple(share.limit.what is _What.TOKENS for share in listed),
            frozenset(share.claim.bucket for share in listed if share.limit.what is _What.REQUESTS),
        )

    def amounts(self, tokens: int) -> tuple[int, ...]:
        """What an attempt takes that may use so many tokens."""
        return tuple([tokens if is_tokens else 1 for is_tokens in self.tokens])


@attrs.define(eq=False)
class _Taken:
    hold_id: str
    plan: _Plan
    amounts: tuple[int, ...]


@attrs.define(eq=False)
class _CallState:
    taken: dict[str, _Taken] = attrs.field(factory=dict[str, _Taken])
    counted: set[str] = attrs.field(factory=set[str])  # counters of requests that have this call


class RateLimitPlugin:
    """Limits of requests, tokens and concurrency, any number at once, exact under any concurrency.

    Requests and tokens are counted on sliding windows without steps: what was begun less than ``per``
    ago counts. Tokens are held before an attempt, at the most that it may use, and settled after it at
    what it did use. Where the request sets no output limit, or its prompt has no bound (media), an
    average answer of the model is held: then one answer of each call in flight may go beyond the limit.

    What does not fit is refused with ``RateLimitError``: ``scope`` says whose limit, and ``retry_after``
    the seconds until the same attempt fits every window if nothing else comes; it is None where only a
    place is missing, or where the attempt needs more than the limit itself.

    Args:
        store: Where limits are counted; None: in memory, for this process.
        limits: Any number, in any mix.
        clock: Where the store in memory takes the time from.

    Raises:
        ConfigError: A limit makes no sense.
    """

    # The time cap is the call's own: a busy store is waited for, and one that hangs counts as failed before.
    hook_options: ClassVar[Mapping[str, HookOptions]] = {"bifrost_reserve": HookOptions(timeout=None)}

    def __init__(
        self, store: Store | None = None, limits: Iterable[RateLimit] = (), *, clock: Clock | None = None
    ) -> None:
        self._store: Store = MemoryStore(clock=clock) if store is None else store
        self._limits = _listed(limits)
        self._holder = Holder(self._store)
        self._expectations = Expectations()
        self._plans: Remembered[tuple[str | None, ...], _Plan] = Remembered(_REMEMBERED)

    def __repr__(self) -> str:
        return f"RateLimitPlugin({self._store!r}, {[f'{each.scope.label}: {each.what}' for each in self._limits]!r})"

    @hookimpl
    def bifrost_lifespan(self) -> AbstractAsyncContextManager[object]:
        """Keep the store open as long as the Router runs, and bring late ends home."""
        return self._holder.lifespan()

    @hookimpl
    def bifrost_reserve(self, attempt: Attempt, call: Call) -> Coroutine[Any, Any, None] | None:
        """Hold what the attempt may use up of all its limits, or of none.

        Raises:
            RateLimitError: One has too little left.
            StoreError: The store failed: nothing is sent.
        """
        if call.operation is Operation.MODELS or not self._limits:
            return None
        plan = self._plan(call.principal, attempt.route)
        return self._holder.drive(self._reserve(attempt, call, plan)) if plan.shares else None

    @hookimpl
    def bifrost_attempt_finished(self, attempt: Attempt, call: Call) -> Coroutine[Any, Any, None] | None:
        """Give places back, and book the tokens that were used."""
        state: _CallState | None = call.state.get(self)
        taken = None if state is None else state.taken.pop(attempt.id, None)
        return None if state is None or taken is None else self._holder.drive(self._end(attempt, state, taken))

    async def _reserve(self, attempt: Attempt, call: Call, plan: _Plan) -> None:
        state: _CallState | None = call.state.get(self)
        if state is None:
            state = call.state[self] = _CallState()
        if not state.counted.isdisjoint(plan.requests):  # it has been counted as a request there
            plan = _Plan.of(share for share in plan.shares if share.claim.bucket not in state.counted)
            if not plan.shares:
                return
        tokens = self._tokens(attempt) if True in plan.tokens else 0
        denials = dict[str, tuple[_Share, Denied, int]]()
        while True:
            taken = _Taken(f"{attempt.id}/limits", plan, plan.amounts(tokens))
            state.taken[attempt.id] = taken
            hold = Hold(
                taken.hold_id,
                plan.claims,
                call_id=call.id,
                amounts=taken.amounts,
                expires_in=self._holder.seconds(call),
                dispatched=True,
            )
            answer = await self._holder.reserve(hold, call)
            if not isinstance(answer, Denied):
                state.counted |= plan.requests
                return
            short = plan.shares[answer.index]
            is_known = answer.bucket in denials
            denials[answer.bucket] = short, answer, taken.amounts[answer.index]
            if is_known:
                del state.taken[attempt.id]
                raise _exceeded(list(denials.values()))
            # A store names the first claim that does not fit. Asked again with that one at the end it names
            # the next, if there is one, and still takes nothing: the longest of their waits is the true one.
            plan = _Plan.of([*plan.shares[: answer.index], *plan.shares[answer.index + 1 :], short])

    async def _end(self, attempt: Attempt, state: _CallState, taken: _Taken) -> None:
        self._expectations.learn(attempt)
        if not attempt.sent:
            state.counted -= taken.plan.requests
            await self._holder.release(taken.hold_id)
            return
        used = _used_tokens(attempt)
        await self._holder.settle(taken.hold_id, taken.amounts if used is None else taken.plan.amounts(used))

    def _plan(self, principal: Principal | None, route: RouteRef) -> _Plan:
        """The limits that a call belongs to."""
        key: tuple[str | None, ...] = (route.provider, route.model)
        if principal is not None:
            names = principal.id, principal.virtual_key_id, principal.team, principal.customer, principal.tenant
            key = (*key, *names)
        plan = self._plans.get(key)
        if plan is None:
            labels = instance_labels(principal, route)
            found = [(limit, limit.scope.instance(labels)) for limit in self._limits]
            shares = [
                _Share(limit, instance, limit.claim(instance)) for limit, instance in found if instance is not None
            ]
            plan = self._plans.keep(key, _Plan.of(shares))
        return plan

    def _tokens(self, attempt: Attempt) -> int:
        """The most tokens that an attempt may use; an estimate of what has no bound."""
        prompt, output = self._expectations.tokens(attempt)
        prompt = prompt if attempt.input_upper is None else attempt.input_upper
        return prompt + (output if attempt.output_upper is None else attempt.output_upper)


def _listed(limits: Iterable[RateLimit]) -> list[_Limit]:
    """Everything that is limited; of two limits on one counter the lower one holds."""
    found = dict[tuple[_What, str, float], _Limit]()
    for limit in limits:
        scope, seconds = parse_scope(limit.scope), window_seconds(limit.per)
        for what, most in (
            (_What.REQUESTS, limit.requests),
            (_What.TOKENS, limit.tokens),
            (_What.CONCURRENCY, limit.concurrency),
        ):
            if most is None:
                continue
            key = what, scope.label, 0.0 if what is _What.CONCURRENCY else seconds
            if key not in found or most < found[key].most:
                found[key] = _Limit(what, most, scope, seconds)
    return list(found.values())


def _used_tokens(attempt: Attempt) -> int | None:
    """The tokens that a sent attempt used; None: nobody knows, so what was held."""
    if attempt.usage is not None and attempt.usage.total_tokens:
        return attempt.usage.total_tokens
    # Refused or failed at the provider, which counts nothing then.
    return 0 if attempt.status is not None and attempt.status >= 400 else None


def _exceeded(denials: Sequence[tuple[_Share, Denied, int]]) -> RateLimitError:
    """The error for what was refused; of several limits it names the one that is to be waited for longest."""

    def patience(denial: tuple[_Share, Denied, int]) -> tuple[bool, float]:
        share, denied, _ = denial
        never = denied.retry_after is None and share.limit.what is not _What.CONCURRENCY
        return never, denied.retry_after or 0.0

    share, denied, amount = max(denials, key=patience)
    limit, wait = share.limit, denied.retry_after
    if limit.what is _What.CONCURRENCY:
        return RateLimitError(
            f"{share.instance} has {denied.held} of {limit.most} attempts in flight; wait for one to end",
            scope=share.instance,
        )
    what = f"{limit.most} {limit.what} per {limit.seconds:g} s of {share.instance}"
    if wait is None:
        return RateLimitError(
            f"this attempt may use {amount} {limit.what}, more than all of the limit of {what}; "
            "ask for fewer tokens or raise it",
            scope=share.instance,
        )
    return RateLimitError(
        f"the limit of {what} is reached ({denied.spent} used or held); room in {wait:.3f} s",
        scope=share.instance,
        retry_after=wait,
    )
