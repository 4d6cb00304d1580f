"""``RateLimitPlugin``: hold before an attempt, give back or correct after it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import ClassVar

import attrs

from bifrost_core import (
    Attempt,
    Call,
    Clock,
    HookOptions,
    Operation,
    RateLimitError,
    hookimpl,
)
from bifrost_plugins._expectations import Expectations
from bifrost_plugins._holding import Holder
from bifrost_plugins._scopes import Scope, instance_labels, parse_scope
from bifrost_plugins.stores import Claim, Denied, Hold, MemoryStore, Store

from .limit import RateLimit, window_seconds

__all__ = ["RateLimitPlugin"]

_log = logging.getLogger(__name__)


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


@attrs.frozen
class _Share:
    """What an attempt takes of a limit."""

    limit: _Limit
    instance: str
    claim: Claim


@attrs.define(eq=False)
class _Taken:
    hold_id: str
    shares: tuple[_Share, ...]


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

    def __repr__(self) -> str:
        return f"RateLimitPlugin({self._store!r}, {[f'{each.scope.label}: {each.what}' for each in self._limits]!r})"

    @hookimpl
    def bifrost_lifespan(self) -> AbstractAsyncContextManager[object]:
        """Keep the store open as long as the Router runs, and bring late ends home."""
        return self._holder.lifespan()

    @hookimpl
    async def bifrost_reserve(self, attempt: Attempt, call: Call) -> None:
        """Hold what the attempt may use up of all its limits, or of none.

        Raises:
            RateLimitError: One has too little left.
            StoreError: The store failed: nothing is sent.
        """
        if call.operation is Operation.MODELS or not self._limits:
            return
        state: _CallState = call.state.setdefault(self, _CallState())
        shares = self._shares(attempt, call, state)
        if not shares:
            return
        denials = dict[str, tuple[_Share, Denied]]()
        while True:
            taken = _Taken(f"{attempt.id}/limits", tuple(shares))
            state.taken[attempt.id] = taken
            hold = Hold(
                taken.hold_id,
                tuple(share.claim for share in shares),
                call_id=call.id,
                expires_in=self._holder.seconds(call),
                dispatched=True,
            )
            answer = await self._holder.reserve(hold, call)
            if not isinstance(answer, Denied):
                state.counted.update(share.claim.bucket for share in shares if share.limit.what is _What.REQUESTS)
                return
            short = shares[answer.index]
            is_known = answer.bucket in denials
            denials[answer.bucket] = short, answer
            if is_known:
                del state.taken[attempt.id]
                raise _exceeded(list(denials.values()))
            # A store names the first claim that does not fit. Asked again with that one at the end it names
            # the next, if there is one, and still takes nothing: the longest of their waits is the true one.
            shares = [*shares[: answer.index], *shares[answer.index + 1 :], short]

    @hookimpl
    async def bifrost_attempt_finished(self, attempt: Attempt, call: Call) -> None:
        """Give places back, and book the tokens that were used."""
        state: _CallState | None = call.state.get(self)
        taken = None if state is None else state.taken.pop(attempt.id, None)
        if state is None or taken is None:
            return
        self._expectations.learn(attempt)
        if not attempt.sent:
            state.counted.difference_update(share.claim.bucket for share in taken.shares)
            await self._holder.release(taken.hold_id)
            return
        await self._holder.settle(taken.hold_id, [_used(share, attempt) for share in taken.shares])

    def _shares(self, attempt: Attempt, call: Call, state: _CallState) -> list[_Share]:
        labels = instance_labels(call.principal, attempt.route)
        tokens: int | None = None
        shares = list[_Share]()
        for limit in self._limits:
            instance = limit.scope.instance(labels)
            if instance is None:
                continue
            bucket = limit.bucket(instance)
            if limit.what is _What.CONCURRENCY:
                claim = Claim.places(bucket, limit=limit.most)
            elif limit.what is _What.TOKENS:
                tokens = self._tokens(attempt) if tokens is None else tokens
                claim = Claim.window(bucket, tokens, limit=limit.most, seconds=limit.seconds)
            elif bucket in state.counted:
                continue
            else:
                claim = Claim.window(bucket, 1, limit=limit.most, seconds=limit.seconds)
            shares.append(_Share(limit, instance, claim))
        return shares

    def _tokens(self, attempt: Attempt) -> int:
        """The most tokens that an attempt may use; an estimate of what has no bound."""
        expected = self._expectations.usage(attempt)
        prompt = expected.input_tokens if attempt.input_upper is None else attempt.input_upper
        output = expected.output_tokens if attempt.output_upper is None else attempt.output_upper
        return prompt + output


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


def _used(share: _Share, attempt: Attempt) -> int:
    """What a sent attempt used of a limit."""
    if share.limit.what is _What.TOKENS and attempt.usage is not None and attempt.usage.total_tokens:
        return attempt.usage.total_tokens
    if share.limit.what is _What.TOKENS and attempt.status is not None and attempt.status >= 400:
        return 0  # refused or failed at the provider, which counts nothing then
    return share.claim.amount


def _exceeded(denials: Sequence[tuple[_Share, Denied]]) -> RateLimitError:
    """The error for what was refused; of several limits it names the one that is to be waited for longest."""

    def patience(denial: tuple[_Share, Denied]) -> tuple[bool, float]:
        share, denied = denial
        never = denied.retry_after is None and share.limit.what is not _What.CONCURRENCY
        return never, denied.retry_after or 0.0

    share, denied = max(denials, key=patience)
    limit, wait = share.limit, denied.retry_after
    if limit.what is _What.CONCURRENCY:
        return RateLimitError(
            f"{share.instance} has {denied.held} of {limit.most} attempts in flight; wait for one to end",
            scope=share.instance,
        )
    what = f"{limit.most} {limit.what} per {limit.seconds:g} s of {share.instance}"
    if wait is None:
        return RateLimitError(
            f"this attempt may use {share.claim.amount} {limit.what}, more than all of the limit of {what}; "
            "ask for fewer tokens or raise it",
            scope=share.instance,
        )
    return RateLimitError(
        f"the limit of {what} is reached ({denied.spent} used or held); room in {wait:.3f} s",
        scope=share.instance,
        retry_after=wait,
    )
