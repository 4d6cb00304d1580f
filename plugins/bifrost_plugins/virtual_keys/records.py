"""What is known of a virtual key, a team and a customer, and what a key allows."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast

import attrs
import msgspec

from bifrost_core import ConfigError, Operation, Secret

__all__ = ["GRANT_FIELDS", "Customer", "Issued", "Team", "VirtualKey", "epoch_seconds", "from_json", "to_json"]

EVERY: Final = "*"
_SCHEMA: Final = 1
_MAX_NAME: Final = 200
_OPERATIONS: Final = (*map(str, Operation), EVERY)

_T = TypeVar("_T", "VirtualKey", "Team", "Customer")


def _wrong(what: str, field: str) -> ConfigError:
    return ConfigError(f"a virtual key's {what}", field=field)


def _strings(field: attrs.Attribute[Any], value: object) -> tuple[str, ...]:
    """One name or several; a string is one, not its letters."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise _wrong(f"{field.name} is neither a name nor a list of names", field.name)
    names = tuple(cast("Iterable[object]", value))
    if not all(isinstance(name, str) and name for name in names):
        raise _wrong(f"{field.name} holds something that is no name", field.name)
    return cast("tuple[str, ...]", names)


def _operations(field: attrs.Attribute[Any], value: object) -> tuple[str, ...]:
    names = _strings(field, value)
    for name in names:
        if name not in _OPERATIONS:
            raise _wrong(f"{field.name} names {name!r}; there are {', '.join(_OPERATIONS)}", field.name)
    return names


def _key_ids(field: attrs.Attribute[Any], value: object) -> tuple[str, ...] | Mapping[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        return _strings(field, value)
    table = cast("Mapping[str, object]", value)
    return MappingProxyType({str(provider): _strings(field, ids) for provider, ids in table.items()})


def _weights(field: attrs.Attribute[Any], value: object) -> Mapping[str, float] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise _wrong(f"{field.name} is no table of providers and numbers", field.name)
    weights: dict[str, float] = {}
    for provider, weight in cast("Mapping[str, object]", value).items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise _wrong(f"{field.name} of {provider!r} is {weight!r}; a weight is a number >= 0", field.name)
        weights[str(provider)] = float(weight)
    return MappingProxyType(weights)


def _metadata(field: attrs.Attribute[Any], value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(f"{field.name} is no table", field.name)
    table = cast("Mapping[str, Any]", value)
    try:
        return MappingProxyType(cast("dict[str, Any]", msgspec.json.decode(msgspec.json.encode(dict(table)))))
    except (TypeError, ValueError) as exc:
        raise _wrong(f"{field.name} can not be written as JSON ({type(exc).__name__})", field.name) from None


def _name(field: attrs.Attribute[Any], value: object) -> str | None:
    if value is None and field.default is None:
        return None
    if not isinstance(value, str) or not value or len(value) > _MAX_NAME or not value.isprintable():
        raise ConfigError(f"{field.name} is no printable text of 1 to {_MAX_NAME} characters", field=field.name)
    return value


def _field(convert: Callable[[attrs.Attribute[Any], object], Any], **options: Any) -> Any:
    """A field whose value a function of its description and the value makes."""

    def converted(value: object, field: attrs.Attribute[Any]) -> Any:
        return convert(field, value)

    return attrs.field(converter=attrs.Converter(converted, takes_field=True), **options)


def epoch_seconds(value: datetime.datetime | float | None, field: str = "expires_at") -> float | None:
    """An instant as seconds since 1970, UTC.

    Raises:
        ConfigError: It has no time zone, or is no instant.
    """
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            raise ConfigError(f"{field} has no time zone; say which, such as datetime.UTC", field=field)
        return value.timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
        raise ConfigError(f"{field} is neither a datetime nor seconds since 1970", field=field)
    return float(value)


@attrs.frozen(kw_only=True)
class Customer:
    """Whom teams and virtual keys belong to.

    Attributes:
        name: Unique.
        created_at: Seconds since 1970, UTC.
    """

    name: str = _field(_name)
    created_at: float = 0.0


@attrs.frozen(kw_only=True)
class Team:
    """Whom virtual keys belong to.

    Attributes:
        name: Unique.
        customer: Name of the customer that it belongs to, if any.
        created_at: Seconds since 1970, UTC.
    """

    name: str = _field(_name)
    customer: str | None = _field(_name, default=None)
    created_at: float = 0.0


@attrs.frozen(kw_only=True)
class VirtualKey:
    """What is stored of a virtual key: who has it, what it allows, and a digest. Never the key itself.

    Of ``operations``, ``providers`` and ``models``: ``"*"`` is everything, an empty list is nothing, and
    what is excluded is refused even where it is allowed as well.

    Attributes:
        id: Public id, part of the key; safe to log.
        name: For people; need not be unique.
        digest: What the key is checked against; of keyed HMAC, worthless without the pepper.
        previous: The digest of the key before the last rotation.
        previous_until: When that one stops; seconds since 1970, UTC.
        team: Name of the team.
        customer: Name of the customer; a team's key has the team's.
        tenant: Callers of one tenant share cached answers. None: this key is a tenant by itself.
        operations: Names of operations (``"chat"``).
        exclude_operations: Wins over ``operations``.
        providers: Names of providers.
        exclude_providers: Wins over ``providers``.
        models: Patterns with ``*``: ``"provider/model"``, or a model's name at any provider.
        exclude_models: Wins over ``models``.
        key_ids: Ids of the providers' keys that calls may go out on; a mapping says it per provider, and
            providers that are not in it are not restricted.
        provider_weights: How often which provider is chosen for a bare model name that several serve; the
            others become fallbacks, the heaviest first. One with weight 0, or without one, is a fallback
            only. None: such a name has to be written in full.
        created_at: Seconds since 1970, UTC.
        expires_at: From then on it is refused; None: never.
        rotated_at: When it was last given a new secret.
        revoked_at: When it was revoked; it never comes back.
        metadata: What you want to know of it; reaches plugins as ``principal.claims``.
        version: Counts its changes.
        declared: It stands in the configuration, not in the store.
    """

    id: str
    name: str = _field(_name)
    digest: str = attrs.field(repr=False)
    previous: str | None = attrs.field(default=None, repr=False)
    previous_until: float | None = None
    team: str | None = _field(_name, default=None)
    customer: str | None = _field(_name, default=None)
    tenant: str | None = _field(_name, default=None)
    operations: tuple[str, ...] = _field(_operations, default=(EVERY,))
    exclude_operations: tuple[str, ...] = _field(_operations, default=())
    providers: tuple[str, ...] = _field(_strings, default=(EVERY,))
    exclude_providers: tuple[str, ...] = _field(_strings, default=())
    models: tuple[str, ...] = _field(_strings, default=(EVERY,))
    exclude_models: tuple[str, ...] = _field(_strings, default=())
    key_ids: tuple[str, ...] | Mapping[str, tuple[str, ...]] = _field(_key_ids, default=(EVERY,))
    provider_weights: Mapping[str, float] | None = _field(_weights, default=None)
    created_at: float = 0.0
    expires_at: float | None = None
    rotated_at: float | None = None
    revoked_at: float | None = None
    metadata: Mapping[str, Any] = _field(_metadata, factory=dict[str, Any])
    version: int = 1
    declared: bool = False

    def is_live(self, now: float) -> bool:
        """Whether it may be used at ``now`` (seconds since 1970, UTC)."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def state(self, now: float) -> str:
        """``active``, ``expired`` or ``revoked``."""
        return "revoked" if self.revoked_at is not None else "active" if self.is_live(now) else "expired"

    def refusal(self, operation: str, model: str) -> str | None:
        """What of a call the key does not allow, in words that complete "it does not allow …"; None: nothing.

        Args:
            operation: Name of the operation.
            model: ``"provider/model"``; ``"provider/*"`` for an operation on no model.
        """
        provider, _, bare = model.partition("/")
        if not _has(operation, self.operations) or _has(operation, self.exclude_operations):
            return f"the operation {operation}"
        if not _has(provider, self.providers) or _has(provider, self.exclude_providers):
            return f"provider {provider}"
        if self.keys_of(provider) == ():
            return f"any key of provider {provider}"
        if operation == Operation.MODELS:  # a list of models is asked of no model
            return None
        # With a provider in it a pattern allows that provider's models alone, but excludes more than it must:
        # a model's own name may hold a stroke.
        allowed = any(fnmatchcase(model if "/" in pattern else bare, pattern) for pattern in self.models)
        excluded = any(fnmatchcase(name, pattern) for name in (model, bare) for pattern in self.exclude_models)
        return None if allowed and not excluded else f"model {model}"

    def keys_of(self, provider: str) -> tuple[str, ...] | None:
        """Ids of the provider's keys that may be used; None: all."""
        ids = self.key_ids if isinstance(self.key_ids, tuple) else self.key_ids.get(provider, (EVERY,))
        return None if EVERY in ids else ids

    def describe(self) -> dict[str, Any]:
        """What may be shown of it: every field but the digests."""
        return _table(self, without=("digest", "previous"))


GRANT_FIELDS: Final = (
    "name",
    "team",
    "customer",
    "tenant",
    "operations",
    "exclude_operations",
    "providers",
    "exclude_providers",
    "models",
    "exclude_models",
    "key_ids",
    "provider_weights",
    "metadata",
)
"""What the owner of a key decides, beside when it expires."""


@attrs.frozen(kw_only=True)
class Issued:
    """A virtual key at the one moment at which it can be seen.

    Attributes:
        id: Public id.
        secret: The key. ``secret.reveal()`` is what the caller gets; it is stored nowhere.
        record: What is stored.
    """

    id: str
    secret: Secret = attrs.field(repr=False)
    record: VirtualKey


def _has(name: str, names: Sequence[str]) -> bool:
    return EVERY in names or name in names


def _table(record: VirtualKey | Team | Customer, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        field.name: _plain(getattr(record, field.name))
        for field in attrs.fields(type(record))
        if field.name not in without
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in cast("Mapping[str, Any]", value).items()}
    return list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value


def to_json(record: VirtualKey | Team | Customer) -> bytes:
    """The one value that a store keeps of a record."""
    return msgspec.json.encode({"schema": _SCHEMA, **_table(record)})


def from_json(cls: type[_T], value: bytes) -> _T:
    """The record in a store's value.

    Raises:
        ConfigError: It was written by a newer version, or is none.
    """
    try:
        table = msgspec.json.decode(value, type=dict[str, Any])
    except msgspec.DecodeError:
        raise ConfigError("the store holds something else under the name of a virtual key", field="store") from None
    schema = table.pop("schema", None)
    known = {field.name for field in attrs.fields(cls)}
    if schema != _SCHEMA or not set(table) <= known:
        # What an older version would not see may be a restriction.
        raise ConfigError("the store's virtual keys are of a newer version; update this process", field="store")
    return cls(**table)
