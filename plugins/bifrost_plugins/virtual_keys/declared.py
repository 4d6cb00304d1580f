"""Keys, teams and customers that stand in the configuration instead of the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from bifrost_core import ConfigError, Secret

from .hashing import Peppers, is_digest
from .records import GRANT_FIELDS, Customer, Team, VirtualKey, epoch_seconds

__all__ = ["MIN_KEY", "declared_customers", "declared_keys", "declared_teams"]

MIN_KEY: Final = 22  # base64url characters of 128 random bits

_FIELDS: Final = (*GRANT_FIELDS, "id", "secret", "hash", "expires_at")


def declared_customers(names: str | Iterable[str]) -> dict[str, Customer]:
    """Customers by name."""
    listed = (names,) if isinstance(names, str) else tuple(names)
    return {name: Customer(name=name) for name in listed}


def declared_teams(
    teams: Mapping[str, str | None] | Iterable[str], customers: Mapping[str, Customer]
) -> dict[str, Team]:
    """Teams by name; of a mapping the values are their customers.

    Raises:
        ConfigError: A customer is not declared.
    """
    table = cast("Mapping[str, str | None]", teams) if isinstance(teams, Mapping) else dict.fromkeys(teams)
    for name, customer in table.items():
        if customer and customer not in customers:
            raise ConfigError(f"team {name!r} is of customer {customer!r}, whom nobody declares", field="teams")
    return {name: Team(name=name, customer=customer or None) for name, customer in table.items()}


def declared_keys(
    tables: Iterable[Mapping[str, Any]],
    peppers: Peppers,
    teams: Mapping[str, Team],
    customers: Mapping[str, Customer],
) -> dict[str, VirtualKey]:
    """Keys by id.

    Raises:
        ConfigError: An entry is unknown or wrong, or two keys are the same; names it, never shows a key.
    """
    keys: dict[str, VirtualKey] = {}
    for index, table in enumerate(tables):
        record = _key(table, f"keys[{index}]", peppers, teams, customers)
        if record.id in keys:
            raise ConfigError(f"two declared virtual keys have the id {record.id!r}", field=f"keys[{index}].id")
        if record.digest in {other.digest for other in keys.values()}:
            raise ConfigError(f"keys[{index}] is declared twice", field=f"keys[{index}]")
        keys[record.id] = record
    return keys


def _key(
    table: Mapping[str, Any],
    where: str,
    peppers: Peppers,
    teams: Mapping[str, Team],
    customers: Mapping[str, Customer],
) -> VirtualKey:
    fields = {**table}
    unknown = sorted(set(fields) - {*_FIELDS})
    if unknown:
        raise ConfigError(
            f"{where} has no entry {unknown[0]!r}; there are {', '.join(_FIELDS)}", field=f"{where}.{unknown[0]}"
        )
    digest = _digest(fields.pop("secret", None), fields.pop("hash", None), where, peppers)
    del table  # the frame of an error must not hold a key
    team, customer = fields.get("team"), fields.get("customer")
    if team is not None:
        if team not in teams:
            raise ConfigError(f"{where}.team is {team!r}, which nobody declares", field=f"{where}.team")
        if customer not in {None, teams[team].customer}:
            raise ConfigError(f"{where}: team {team!r} is not of customer {customer!r}", field=f"{where}.customer")
        fields["customer"] = teams[team].customer
    elif customer is not None and customer not in customers:
        raise ConfigError(f"{where}.customer is {customer!r}, whom nobody declares", field=f"{where}.customer")
    if "name" not in fields:
        raise ConfigError(f"{where} has no name", field=f"{where}.name")
    fields["id"] = str(fields.get("id") or fields["name"])
    fields["expires_at"] = epoch_seconds(fields.get("expires_at"))
    return VirtualKey(digest=digest, declared=True, **fields)


def _digest(secret: Any, stored: Any, where: str, peppers: Peppers) -> str:
    """What a declared key is checked against: its ``hash``, or the digest of its ``secret``."""
    if (secret is None) == (stored is None):
        raise ConfigError(f"{where} needs either secret, a reference to the key, or its hash", field=where)
    if stored is not None:
        if not isinstance(stored, str) or not is_digest(stored):
            del secret, stored
            raise ConfigError(f"{where}.hash is none; bifrost virtual-keys hash makes one", field=f"{where}.hash")
        if peppers.pepper_of(stored) is None:
            raise ConfigError(f"{where}.hash was made with another pepper; add that to pepper=…", field=f"{where}.hash")
        return stored
    if not isinstance(secret, (str, Secret)) or (isinstance(secret, str) and not secret.startswith(("env:", "file:"))):
        del secret, stored
        raise ConfigError(
            f"{where}.secret is no reference; write env:NAME or file:PATH, or pass a Secret", field=f"{where}.secret"
        )
    key = Secret.read(secret) if isinstance(secret, str) else secret
    if len(key.reveal()) < MIN_KEY:
        raise ConfigError(
            f"{where}.secret has less than {MIN_KEY} characters; take 16 random bytes or more", field=where
        )
    return peppers.digest(key)
