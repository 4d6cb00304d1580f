"""Virtual keys, teams and customers in a store: one value each, changed by compare-and-set."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from bifrost_core import BifrostError, Clock, ConfigError
from bifrost_plugins.stores import Store

from .format import new_id, new_key
from .hashing import Peppers
from .records import GRANT_FIELDS, Customer, Issued, Team, VirtualKey, epoch_seconds, from_json, to_json

__all__ = ["Registry", "expiry"]

_KEYS: Final = "virtual_keys/key/"
_TEAMS: Final = "virtual_keys/team/"
_CUSTOMERS: Final = "virtual_keys/customer/"
_MAX_TRIES: Final = 1_000  # each lost one means that somebody else's change went through


def expiry(
    expires_in: datetime.timedelta | float | None, expires_at: datetime.datetime | float | None, now: float
) -> float | None:
    """When a key expires, in seconds since 1970, UTC; None: never.

    Raises:
        ConfigError: Both are given, or one is no time.
    """
    if expires_in is None:
        return epoch_seconds(expires_at)
    if expires_at is not None:
        raise ConfigError("a key expires in a time or at one; drop expires_in or expires_at", field="expires_in")
    return now + seconds_of(expires_in, "expires_in")


def seconds_of(value: datetime.timedelta | float, field: str) -> float:
    """A length of time in seconds.

    Raises:
        ConfigError: It is negative, infinite or no time at all.
    """
    seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
        raise ConfigError(f"{field} is {value!r}; it is a timedelta or seconds, 0 or more", field=field)
    return float(seconds)


@attrs.frozen(eq=False)
class Registry:
    """What a store and the configuration know of keys, teams and customers.

    A key that names a team or customer is written first and looks for it again then; who deletes one
    deletes it first and looks for keys then. So of two at the same time one sees the other, whatever
    the order of their steps, and no key is left whose team is gone.

    Attributes:
        store: Started by whoever calls.
        peppers: For new digests.
        clock: ``time()`` is read.
        teams: Those that the configuration declares, by name.
        customers: The same.
        keys: The same, by id.
    """

    store: Store
    peppers: Peppers
    clock: Clock
    teams: Mapping[str, Team]
    customers: Mapping[str, Customer]
    keys: Mapping[str, VirtualKey]

    # -- virtual keys ---------------------------------------------------------------------------

    async def find(self, key_id: str) -> VirtualKey | None:
        """The record of a key in the store."""
        value = await self.store.get(_KEYS + key_id)
        return None if value is None else from_json(VirtualKey, value)

    async def get(self, key_id: str) -> VirtualKey:
        """The record of a key, declared or stored.

        Raises:
            ConfigError: There is none.
        """
        found = self.keys.get(key_id) or await self.find(key_id)
        if found is None:
            raise _unknown("virtual key", key_id, "id")
        return found

    async def all(self) -> list[VirtualKey]:
        """Every record: the declared ones, then the stored ones, the oldest first."""
        stored = [from_json(VirtualKey, value) for _, value in await self.store.items(_KEYS)]
        return [*self.keys.values(), *sorted(stored, key=lambda record: (record.created_at, record.id))]

    async def issue(self, grant: Mapping[str, Any], expires_at: float | None) -> Issued:
        """Make a key.

        Args:
            grant: Some of ``GRANT_FIELDS``, ``name`` among them.
            expires_at: Seconds since 1970, UTC; None: never.
        """
        now = self.clock.time()
        while True:
            identity = new_id()
            secret = new_key(identity)
            record = VirtualKey(
                id=identity,
                digest=self.peppers.digest(secret),
                created_at=now,
                expires_at=expires_at,
                **grant,
            )
            record = attrs.evolve(record, customer=await self._customer_of(record.team, record.customer))
            if await self._write(record, None):
                return Issued(id=identity, secret=secret, record=record)

    async def update(self, key_id: str, changes: Mapping[str, Any]) -> VirtualKey:
        """Change what a key allows, whom it belongs to, or when it expires.

        Raises:
            ConfigError: A field is unknown or wrong, or the key is unknown, revoked or declared.
        """
        changes = {**changes}
        unknown = sorted(set(changes) - {*GRANT_FIELDS, "expires_in", "expires_at"})
        if unknown:
            known = ", ".join((*GRANT_FIELDS, "expires_in", "expires_at"))
            raise ConfigError(
                f"{unknown[0]!r} of a virtual key can not be changed; what can is {known}", field=unknown[0]
            )
        if "expires_in" in changes:
            now = self.clock.time()
            changes["expires_at"] = expiry(changes.pop("expires_in"), changes.get("expires_at"), now)
        elif "expires_at" in changes:
            changes["expires_at"] = epoch_seconds(changes["expires_at"])
        moves = not {"team", "customer"}.isdisjoint(changes)
        if moves:
            present = await self.get(key_id)
            team = changes.setdefault("team", present.team)
            customer = changes.get("customer", present.customer if team is None else None)
            changes["customer"] = await self._customer_of(team, customer)
        return await self._change(key_id, lambda record: attrs.evolve(record, **changes), moves=moves)

    async def rotate(self, key_id: str, grace: float) -> Issued:
        """Give a key a new secret; the one before is good for ``grace`` seconds more."""
        secret = new_key(key_id)
        digest = self.peppers.digest(secret)

        def rotated(record: VirtualKey) -> VirtualKey:
            now = self.clock.time()
            if not record.is_live(now):
                raise ConfigError(f"virtual key {key_id} has expired; give it another expires_at first", field="id")
            return attrs.evolve(
                record,
                digest=digest,
                previous=record.digest if grace else None,
                previous_until=now + grace if grace else None,
                rotated_at=now,
            )

        return Issued(id=key_id, secret=secret, record=await self._change(key_id, rotated))

    async def revoke(self, key_id: str) -> VirtualKey:
        """End a key for good; to do it again changes nothing."""
        record = await self.get(key_id)
        if record.revoked_at is not None:
            return record
        now = self.clock.time()
        try:
            return await self._change(
                key_id, lambda each: attrs.evolve(each, previous=None, previous_until=None, revoked_at=now)
            )
        except _RevokedError:
            return await self.get(key_id)

    async def delete(self, key_id: str) -> None:
        """Forget a key that is revoked or expired."""
        record = await self.get(key_id)
        self._check_stored(record)
        if record.is_live(self.clock.time()):
            raise ConfigError(f"virtual key {key_id} is in use; revoke it first", field="id")
        await self.store.delete(_KEYS + key_id, expect=to_json(record))

    async def _change(
        self, key_id: str, change: Callable[[VirtualKey], VirtualKey], *, moves: bool = False
    ) -> VirtualKey:
        """Read, change, write unless somebody else has written meanwhile, else again."""
        for _ in range(_MAX_TRIES):
            record = await self.get(key_id)
            self._check_stored(record)
            if record.revoked_at is not None:
                raise _RevokedError(f"virtual key {key_id} is revoked for good; issue another", field="id")
            changed = attrs.evolve(change(record), version=record.version + 1)
            if await self._write(changed, record, moves=moves):
                return changed
        raise BifrostError(f"virtual key {key_id} is changed by others all the time; try again")

    async def _write(self, record: VirtualKey, before: VirtualKey | None, *, moves: bool = True) -> bool:
        """Write over ``before`` and see that team and customer are there still; False: it is not ``before`` any more."""
        name, value = _KEYS + record.id, to_json(record)
        old = None if before is None else to_json(before)
        if not await self.store.put(name, value, if_absent=old is None, expect=old):
            return False
        if moves:
            try:
                await self._customer_of(record.team, record.customer)
            except ConfigError:
                if old is None:
                    await self.store.delete(name, expect=value)
                else:
                    await self.store.put(name, old, expect=value)
                raise
        return True

    def _check_stored(self, record: VirtualKey) -> None:
        if record.declared:
            raise ConfigError(f"virtual key {record.id} stands in the configuration; change it there", field="id")

    # -- teams and customers --------------------------------------------------------------------

    async def team(self, name: str) -> Team:
        """A team by its name.

        Raises:
            ConfigError: There is none.
        """
        if name in self.teams:
            return self.teams[name]
        value = await self.store.get(_TEAMS + name)
        if value is None:
            raise _unknown("team", name, "team")
        return from_json(Team, value)

    async def customer(self, name: str) -> Customer:
        """A customer by its name.

        Raises:
            ConfigError: There is none.
        """
        if name in self.customers:
            return self.customers[name]
        value = await self.store.get(_CUSTOMERS + name)
        if value is None:
            raise _unknown("customer", name, "customer")
        return from_json(Customer, value)

    async def all_teams(self) -> list[Team]:
        """Every team, by name."""
        stored = [from_json(Team, value) for _, value in await self.store.items(_TEAMS)]
        return sorted([*self.teams.values(), *stored], key=lambda team: team.name)

    async def all_customers(self) -> list[Customer]:
        """Every customer, by name."""
        stored = [from_json(Customer, value) for _, value in await self.store.items(_CUSTOMERS)]
        return sorted([*self.customers.values(), *stored], key=lambda customer: customer.name)

    async def add_customer(self, name: str) -> Customer:
        """Add a customer."""
        customer = Customer(name=name, created_at=self.clock.time())
        taken = name in self.customers
        if taken or not await self.store.put(_CUSTOMERS + name, to_json(customer), if_absent=True):
            raise ConfigError(f"there is a customer {name!r} already", field="customer")
        return customer

    async def add_team(self, name: str, customer: str | None) -> Team:
        """Add a team of a customer that there is, or of none."""
        team = Team(name=name, customer=customer, created_at=self.clock.time())
        if customer is not None:
            await self.customer(customer)
        if name in self.teams or not await self.store.put(_TEAMS + name, to_json(team), if_absent=True):
            raise ConfigError(f"there is a team {name!r} already", field="team")
        if customer is not None:
            try:
                await self.customer(customer)
            except ConfigError:
                await self.store.delete(_TEAMS + name, expect=to_json(team))
                raise
        return team

    async def delete_team(self, name: str) -> None:
        """Delete a team that no live key belongs to."""
        if name in self.teams:
            raise ConfigError(f"team {name!r} stands in the configuration; change it there", field="team")
        team = await self.team(name)
        await self._delete_unused(_TEAMS + name, to_json(team), f"team {name!r}", lambda key: key.team == name)

    async def delete_customer(self, name: str) -> None:
        """Delete a customer that neither a team nor a live key belongs to."""
        if name in self.customers:
            raise ConfigError(f"customer {name!r} stands in the configuration; change it there", field="customer")
        customer = await self.customer(name)
        value = to_json(customer)
        await self._delete_unused(
            _CUSTOMERS + name,
            value,
            f"customer {name!r}",
            lambda key: key.customer == name,
            lambda team: team.customer == name,
        )

    async def _delete_unused(
        self,
        name: str,
        value: bytes,
        what: str,
        has_key: Callable[[VirtualKey], bool],
        has_team: Callable[[Team], bool] = lambda team: False,  # noqa: ARG005
    ) -> None:
        if not await self.store.delete(name, expect=value):
            return
        now = self.clock.time()
        users = [f"virtual key {key.id}" for key in await self.all() if has_key(key) and key.is_live(now)]
        users += [f"team {team.name!r}" for team in await self.all_teams() if has_team(team)]
        if users:
            await self.store.put(name, value, if_absent=True)
            raise ConfigError(f"{what} is in use by {', '.join(users[:3])}; move or revoke that first", field="name")

    async def _customer_of(self, team: str | None, customer: str | None) -> str | None:
        """The customer of a key: its team's, or the one that is named.

        Raises:
            ConfigError: Team or customer are unknown, or do not belong together.
        """
        if team is None:
            return None if customer is None else (await self.customer(customer)).name
        found = await self.team(team)
        if customer not in {None, found.customer}:
            whose = "no customer" if found.customer is None else f"customer {found.customer!r}"
            raise ConfigError(
                f"team {team!r} belongs to {whose}, not to {customer!r}; leave customer out", field="customer"
            )
        return found.customer


class _RevokedError(ConfigError):
    """A revoked key was to be changed."""


def _unknown(what: str, name: str, field: str) -> ConfigError:
    return ConfigError(f"there is no {what} {name!r}; list what there is", field=field)
