"""``VirtualKeyPlugin``: who presents which key, and what that key allows."""

from __future__ import annotations

import datetime
import random
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any, ClassVar, Final

import attrs

from bifrost_core import (
    Call,
    Chunk,
    Clock,
    ConfigError,
    HookOptions,
    Principal,
    RefusedError,
    Request,
    Route,
    Secret,
    SystemClock,
    VirtualKeyError,
    hookimpl,
)
from bifrost_plugins._remembered import Remembered
from bifrost_plugins.stores import MemoryStore, Store

from .declared import declared_customers, declared_keys, declared_teams
from .failures import Failures
from .format import claimed_id, public_id
from .hashing import Expected, Pepper, Peppers
from .records import Customer, Issued, Team, VirtualKey
from .registry import Registry, expiry, seconds_of

__all__ = ["VirtualKeyPlugin"]

_REMEMBERED: Final = 10_000  # records and verdicts
_NO_KEY: Final = "the call has no valid virtual key; pass virtual_key=… with one that is neither expired nor revoked"


class VirtualKeyPlugin:
    """Issues virtual keys and lets calls do what their key allows.

    The methods that manage keys are ``async``; from blocking code go through the Router's own event loop:
    ``router.portal().call(plugin.revoke, key_id)`` on a ``SyncRouter``.

    A principal has the key's public id as ``id`` and ``virtual_key_id``, its ``team``, ``customer`` and
    ``tenant``, and its metadata and ``name`` as ``claims``. A key without a tenant is one by itself: callers
    share cached answers where a tenant says that they may, not because they have a customer in common.

    Credentials that are no virtual keys are left to other plugins. Who is required to have a key may as
    well be a principal of theirs; such principals are not restricted here.

    Where the caller's bare model name may mean several providers, the key decides: the one provider that it
    allows, or one drawn by its ``provider_weights``, with the others as fallbacks.

    Args:
        store: Where keys are kept; None: in memory, until the process ends.
        required: Whether a call that nobody has authenticated is refused. With False it goes on without a
            principal and may do everything; a credential that is presented must be right all the same.
        pepper: What goes into the digests of keys beside the keys: at least 32 bytes, or ``env:NAME``,
            ``file:PATH``. Several: the first makes new digests, the others check old ones. None: a random
            one, for a store in memory only, as no other process could check its digests.
        keys: Keys that you declare instead of issuing them; tables of ``VirtualKey``'s fields with
            ``secret`` (a ``Secret``, ``env:NAME`` or ``file:PATH``; 22 characters or more) or ``hash``.
        teams: Teams beside those in the store; of a mapping the values are their customers.
        customers: Customers beside those in the store.
        cache_seconds: How long a record is used without a look at the store, 0 to 1: so long a change in
            another process may go unseen. Changes through this object are seen at once.
        cut_streams: Whether a stream that runs ends at its next piece when its key is revoked or expires,
            as far as this process has heard of it.
        max_failures: Failed authentications of one source in a minute, from which on it is refused.
        source: Says where a call comes from, for ``max_failures``; None: ``metadata["source"]``, which is
            for the host to set. Failures of calls from nowhere are counted and not limited.
        clock: ``time()`` for expiry, seconds for the cache.
        rng: Draws providers by weight.

    Raises:
        ConfigError: An argument is wrong; names it, never shows a key or a pepper.
    """

    hook_options: ClassVar[Mapping[str, HookOptions]] = {
        "bifrost_select_routes": HookOptions(on_error="closed"),  # it restricts
    }

    def __init__(
        self,
        store: Store | None = None,
        *,
        required: bool = True,
        pepper: Pepper | Iterable[Pepper] | None = None,
        keys: Iterable[Mapping[str, Any]] = (),
        teams: Mapping[str, str | None] | Iterable[str] = (),
        customers: str | Iterable[str] = (),
        cache_seconds: float = 1.0,
        cut_streams: bool = False,
        max_failures: int = 20,
        source: Callable[[Call], str | None] | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._clock: Clock = SystemClock() if clock is None else clock
        self._store: Store = MemoryStore(clock=self._clock) if store is None else store
        if pepper is None:
            if not isinstance(self._store, MemoryStore):
                raise ConfigError(
                    "a store that others share needs a pepper that they share too; pass pepper='env:NAME'",
                    field="pepper",
                )
            pepper = secrets.token_bytes(32)
        problem: ConfigError | None = None
        try:
            self._peppers = Peppers(pepper)
        except ConfigError as exc:
            problem = exc
        del pepper  # the frame of an error must not hold it
        if problem is not None:
            raise problem.with_traceback(None)
        if not 0 <= cache_seconds <= 1:
            raise ConfigError(f"cache_seconds is {cache_seconds!r}; it is 0 to 1", field="cache_seconds")
        if max_failures < 1:
            raise ConfigError(f"max_failures is {max_failures!r}; it is 1 or more", field="max_failures")
        declared_to = declared_customers(customers)
        declared_in = declared_teams(teams, declared_to)
        self._registry = Registry(
            self._store,
            self._peppers,
            self._clock,
            teams=declared_in,
            customers=declared_to,
            keys=declared_keys(keys, self._peppers, declared_in, declared_to),
        )
        self._declared = {record.digest: self._known(record) for record in self._registry.keys.values()}
        self._declared_with = tuple({self._peppers.pepper_of(digest) for digest in self._declared})
        self._no_proof = secrets.token_bytes(32)
        self._nobody = self._peppers.expect(self._peppers.dummy, self._peppers.dummy)
        self._required = required
        self._cache_seconds = cache_seconds
        self._cut_streams = cut_streams
        self._failures = Failures(max_failures, self._clock)
        self._source = _named_source if source is None else source
        self._rng = random.Random() if rng is None else rng
        self._changes = 0
        self._records: Remembered[str, _Known] = Remembered(_REMEMBERED)
        self._verdicts: Remembered[tuple[str, int, str, str], str | None] = Remembered(_REMEMBERED)

    @property
    def failed(self) -> int:
        """Failed authentications since the start."""
        return self._failures.total

    # -- keys -----------------------------------------------------------------------------------

    async def issue(
        self,
        name: str,
        *,
        team: str | None = None,
        customer: str | None = None,
        tenant: str | None = None,
        operations: str | Iterable[str] = ("*",),
        exclude_operations: str | Iterable[str] = (),
        providers: str | Iterable[str] = ("*",),
        exclude_providers: str | Iterable[str] = (),
        models: str | Iterable[str] = ("*",),
        exclude_models: str | Iterable[str] = (),
        key_ids: str | Iterable[str] | Mapping[str, str | Iterable[str]] = ("*",),
        provider_weights: Mapping[str, float] | None = None,
        expires_in: datetime.timedelta | float | None = None,
        expires_at: datetime.datetime | float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Issued:
        """Make a virtual key; the answer is the only time that it is seen.

        Args:
            name: For people.
            team: A team that there is; its customer is the key's.
            customer: A customer that there is, for a key of no team.
            tenant: As for ``VirtualKey``, like all that follow.
            operations: Names of operations, ``"*"``, or nothing.
            exclude_operations: Wins over ``operations``.
            providers: Names of providers, ``"*"``, or nothing.
            exclude_providers: Wins over ``providers``.
            models: Patterns of models, ``"*"``, or nothing.
            exclude_models: Wins over ``models``.
            key_ids: Ids of the providers' keys, or a mapping of providers to ids.
            provider_weights: For bare model names.
            expires_in: Time from now; a timedelta or seconds.
            expires_at: Instant; a datetime with a time zone, or seconds since 1970.
            metadata: Anything that JSON can say.

        Raises:
            ConfigError: An argument is wrong, or there is no such team or customer.
            StoreError: The store failed; no key was made that anybody knows.
        """
        grant: dict[str, Any] = {
            "name": name,
            "team": team,
            "customer": customer,
            "tenant": tenant,
            "operations": operations,
            "exclude_operations": exclude_operations,
            "providers": providers,
            "exclude_providers": exclude_providers,
            "models": models,
            "exclude_models": exclude_models,
            "key_ids": key_ids,
            "provider_weights": provider_weights,
            "metadata": {} if metadata is None else metadata,
        }
        ends = expiry(expires_in, expires_at, self._clock.time())
        async with self._store:
            return await self._registry.issue(grant, ends)

    async def list(
        self, *, team: str | None = None, customer: str | None = None, state: str | None = None
    ) -> Sequence[VirtualKey]:
        """The records of all keys, declared ones first, then the oldest.

        Args:
            team: Only those of that team.
            customer: Only those of that customer.
            state: Only those that are ``active``, ``expired`` or ``revoked``.
        """
        async with self._store:
            records = await self._registry.all()
        now = self._clock.time()
        return [
            record
            for record in records
            if team in {None, record.team}
            and customer in {None, record.customer}
            and state in {None, record.state(now)}
        ]

    async def get(self, key_id: str) -> VirtualKey:
        """The record of one key.

        Raises:
            ConfigError: There is none.
        """
        async with self._store:
            return await self._registry.get(key_id)

    async def update(self, key_id: str, **changes: Any) -> VirtualKey:
        """Change what ``issue`` was told; what is not named stays. Concurrent changes are all kept.

        Args:
            key_id: Public id.
            **changes: Arguments of ``issue``. Another team brings its customer along.

        Raises:
            ConfigError: A name or value is wrong, or the key is unknown, revoked or declared.
        """
        async with self._store:
            return self._note(await self._registry.update(key_id, changes))

    async def rotate(self, key_id: str, *, grace: datetime.timedelta | float = 0) -> Issued:
        """Give a key another secret under the same id; what counts for the id goes on counting.

        Args:
            key_id: Public id.
            grace: Seconds for which the secret before is good as well; of several before, the last one.

        Raises:
            ConfigError: The key is unknown, declared, expired or revoked.
        """
        seconds = seconds_of(grace, "grace")
        async with self._store:
            issued = await self._registry.rotate(key_id, seconds)
        self._note(issued.record)
        return issued

    async def expire(self, key_id: str, *, after: datetime.timedelta | float = 0) -> VirtualKey:
        """Let a key expire, now or after some time; ``update(key_id, expires_at=None)`` takes it back.

        Raises:
            ConfigError: The key is unknown, declared or revoked.
        """
        return await self.update(key_id, expires_in=after)

    async def revoke(self, key_id: str) -> VirtualKey:
        """End a key for good, from the next call on. Its record stays.

        Raises:
            ConfigError: The key is unknown or declared.
        """
        async with self._store:
            return self._note(await self._registry.revoke(key_id))

    async def delete(self, key_id: str) -> None:
        """Forget a key that is revoked or expired.

        Raises:
            ConfigError: It is in use, unknown or declared.
        """
        async with self._store:
            await self._registry.delete(key_id)
        self._changes += 1
        self._records.pop(key_id, None)

    # -- teams and customers --------------------------------------------------------------------

    async def add_customer(self, name: str) -> Customer:
        """Add a customer.

        Raises:
            ConfigError: There is one of that name.
        """
        async with self._store:
            return await self._registry.add_customer(name)

    async def add_team(self, name: str, *, customer: str | None = None) -> Team:
        """Add a team.

        Raises:
            ConfigError: There is one of that name, or no such customer.
        """
        async with self._store:
            return await self._registry.add_team(name, customer)

    async def customers(self) -> Sequence[Customer]:
        """All customers, by name."""
        async with self._store:
            return await self._registry.all_customers()

    async def teams(self) -> Sequence[Team]:
        """All teams, by name."""
        async with self._store:
            return await self._registry.all_teams()

    async def delete_team(self, name: str) -> None:
        """Delete a team.

        Raises:
            ConfigError: A key that is neither expired nor revoked belongs to it, or there is none.
        """
        async with self._store:
            await self._registry.delete_team(name)

    async def delete_customer(self, name: str) -> None:
        """Delete a customer.

        Raises:
            ConfigError: A team, or a key that is neither expired nor revoked, belongs to it, or there is none.
        """
        async with self._store:
            await self._registry.delete_customer(name)

    # -- hooks ----------------------------------------------------------------------------------

    @hookimpl
    def bifrost_lifespan(self) -> AbstractAsyncContextManager[object]:
        """Keep the store open as long as the Router runs."""
        return self._lifespan()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncGenerator[None]:
        async with self._store:
            yield

    @hookimpl
    def bifrost_authenticate(self, call: Call) -> Principal | Coroutine[Any, Any, Principal] | None:
        """Find out whose key is presented; waits only where the store has to be asked.

        Raises:
            VirtualKeyError: It is unknown, wrong, expired or revoked: one error for all.
            RateLimitError: Its source has failed too often.
        """
        key = call.virtual_key
        if key is None:
            return None
        if self._failures.is_watching:
            self._failures.check(self._source(call))
        known = self._declared_key(key) if self._declared else None
        if known is not None:
            return self._admitted(call, key, known)
        identity = claimed_id(key)
        if identity is None:
            return None
        known = self._records.get(identity)
        if known is not None and self._clock() - known.read_at < self._cache_seconds:
            return self._admitted(call, key, known)
        if public_id(key) is None:  # a slip of the keyboard
            raise self._refusal(call)
        return self._look_up(call, key, identity)

    @hookimpl
    def bifrost_authorize(self, request: Request, call: Call) -> None:
        """Let a call or a fallback pass, or refuse it.

        Raises:
            RefusedError: The key does not allow it; names what.
            VirtualKeyError: Nobody has authenticated the call.
        """
        record: VirtualKey | None = call.state.get(self)
        if record is None:
            if call.principal is None and (self._required or call.virtual_key is not None):
                raise self._refusal(call)
            return
        what = self._verdict(record, request.operation, request.model)
        if what is not None:
            raise RefusedError(
                f"virtual key {record.name!r} ({record.id}) does not allow {what}; update it or ask less"
            )

    @hookimpl
    def bifrost_select_routes(self, routes: tuple[Route, ...], call: Call) -> Sequence[Route] | None:
        """Leave the providers' keys that the virtual key may use."""
        record: VirtualKey | None = call.state.get(self)
        if record is None or record.key_ids == ("*",):
            return None
        return [route for route in routes if (ids := record.keys_of(route.provider)) is None or route.key_id in ids]

    @hookimpl
    def bifrost_stream_filter(self, call: Call) -> _Cut | None:
        """Watch over the key of a stream that runs, where that is asked for."""
        record: VirtualKey | None = call.state.get(self)
        return _Cut(self._latest, record, self._clock) if self._cut_streams and record is not None else None

    # -- inside ---------------------------------------------------------------------------------

    async def _look_up(self, call: Call, key: Secret, identity: str) -> Principal:
        changes = self._changes
        record = await self._registry.find(identity)
        known = None if record is None else self._known(record)
        if known is not None and changes == self._changes:  # else it may have been read before a change
            self._records.keep(identity, known)
        return self._admitted(call, key, known)

    def _known(self, record: VirtualKey) -> _Known:
        """A record as it was just read, ready for the calls to come."""
        principal = Principal(
            id=record.id,
            tenant=record.tenant or record.id,
            virtual_key_id=record.id,
            team=record.team,
            customer=record.customer,
            claims=MappingProxyType({**record.metadata, "name": record.name}),
        )
        previous = self._peppers.dummy if record.previous is None else record.previous
        return _Known(record, principal, self._peppers.expect(record.digest, previous), self._clock())

    def _admitted(self, call: Call, key: Secret, known: _Known | None) -> Principal:
        """The principal of a key that is right. Takes the same steps for one that is not, or that nobody has."""
        now = self._clock.time()
        if not self._peppers.is_same(key, self._no_proof if known is None or known.proof is None else known.proof):
            is_it, was_it = self._peppers.compare(key, self._nobody if known is None else known.expected)
            if known is None or not (is_it | (was_it & known.has_grace(now))):
                raise self._refusal(call)
            if is_it:
                known.proof = self._peppers.proof(key)
        if known is None or not known.record.is_live(now):
            raise self._refusal(call)
        call.state[self] = known.record
        if call.choices:
            self._choose(call, known.record)
        return known.principal

    def _refusal(self, call: Call) -> VirtualKeyError:
        """The one error, counted."""
        self._failures.count(self._source(call))
        return VirtualKeyError(_NO_KEY)

    def _declared_key(self, key: Secret) -> _Known | None:
        """A declared key. What is looked up is a digest, which a caller can not steer."""
        for pepper in self._declared_with:
            known = self._declared.get(self._peppers.digest(key, pepper))
            if known is not None:
                return known
        return None

    def _verdict(self, record: VirtualKey, operation: str, model: str) -> str | None:
        """``record.refusal``, remembered: matching patterns costs more than the rest together."""
        asked = (record.id, record.version, operation, model)
        try:
            return self._verdicts[asked]
        except KeyError:
            return self._verdicts.keep(asked, record.refusal(operation, model))

    def _choose(self, call: Call, record: VirtualKey) -> None:
        """Decide what a bare model name means, where the key says so."""
        if call.request.model in call.choices:
            return  # somebody has
        allowed = [model for model in call.choices if record.refusal(call.operation, model) is None]
        weights = record.provider_weights
        if not allowed:
            allowed = [call.choices[0]]  # for phase 2 to refuse, with the reason
        elif len(allowed) > 1:
            if weights is None:
                return
            weighed = {model: weights.get(model.partition("/")[0], 0.0) for model in allowed}
            allowed.sort(key=weighed.__getitem__, reverse=True)
            if weighed[allowed[0]] > 0:
                (first,) = self._rng.choices(allowed, [weighed[model] for model in allowed])
                allowed.remove(first)
                allowed.insert(0, first)
        call.request = attrs.evolve(call.request, model=allowed[0])
        call.fallbacks = call.fallbacks or tuple(allowed[1:])

    def _note(self, record: VirtualKey) -> VirtualKey:
        """Let the next call see a change."""
        self._changes += 1
        known = self._records.get(record.id)
        if known is None or known.record.version <= record.version:
            self._records.keep(record.id, self._known(record))
        return record

    def _latest(self, record: VirtualKey) -> VirtualKey:
        """What this process knows last of a key."""
        known = self._records.get(record.id)
        return record if known is None or known.record.version < record.version else known.record


@attrs.define(eq=False)
class _Known:
    """A record with what calls need of it, made once for each reading.

    Attributes:
        record: As it was read.
        principal: Of every call with the key.
        expected: The digests of the key and of the one before.
        read_at: Monotonic seconds.
        proof: Of the key that was right, so that the next call with it need not be checked by its digest. As old as
            the record at most: a key that is rotated or revoked is gone with it.
    """

    record: VirtualKey
    principal: Principal
    expected: Expected
    read_at: float
    proof: bytes | None = None

    def has_grace(self, now: float) -> bool:
        """Whether the key before the last rotation is good still."""
        return self.record.previous_until is not None and now < self.record.previous_until


class _Cut:
    """Ends a stream whose key has ended."""

    def __init__(self, latest: Callable[[VirtualKey], VirtualKey], record: VirtualKey, clock: Clock) -> None:
        self._latest = latest
        self._record = record
        self._clock = clock

    def feed(self, chunk: Chunk) -> tuple[Chunk]:
        """Let a piece through as long as the key is good."""
        if not self._latest(self._record).is_live(self._clock.time()):
            raise VirtualKeyError("the virtual key has expired or was revoked while the answer was written")
        return (chunk,)

    def finish(self) -> tuple[()]:
        """Nothing is held back."""
        return ()


def _named_source(call: Call) -> str | None:
    source = call.metadata.get("source")
    return source if isinstance(source, str) and source else None
