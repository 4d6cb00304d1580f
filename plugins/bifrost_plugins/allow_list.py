"""A static allow-list: who may call which models and operations, from configuration alone.

For services whose callers are known when they start. Presented keys are compared as keyed hashes,
so neither a dump nor a debugger's view of this plugin shows one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NoReturn

import attrs
from cachetools import LRUCache

from bifrost_core import (
    Call,
    ConfigError,
    Operation,
    Principal,
    RefusedError,
    Request,
    Secret,
    VirtualKeyError,
    hookimpl,
)

__all__ = ["AllowListPlugin", "Grant"]

_MIN_KEY = 22  # base64url characters of 128 random bits
_REMEMBERED = 10_000  # verdicts; callers choose the models, so there is a bound
_WRONG_KEY = "the call has no valid virtual key; pass virtual_key=… with one that is in the allow-list"


def _principal(value: Principal | str) -> Principal:
    return Principal(id=value) if isinstance(value, str) else value


def _names(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _operations(value: str | Iterable[str]) -> tuple[str, ...]:
    names = _names(value)
    known = [*map(str, Operation), "*"]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no operation; known are {', '.join(known)}", field="operations")
    return names


def _secrets(value: str | Secret | Iterable[str | Secret]) -> tuple[Secret, ...]:
    values = (value,) if isinstance(value, (str, Secret)) else tuple(value)
    return tuple(Secret(each, "an allow-list's key") for each in values)


@attrs.frozen
class Grant:
    """What one caller may do. What is not named is refused.

    Attributes:
        principal: The caller; a string is its id.
        keys: Virtual keys that prove it, 22 characters at least. Without one, the grant is for a
            principal of that id whom another plugin has authenticated (and only then).
        models: ``"provider/model"`` with ``*`` as wildcard; a name without ``/`` is the model's alone,
            at any provider. Empty: none at all.
        exclude_models: The same for what is refused; wins over ``models``.
        operations: Names of operations, or ``*``. Empty: none at all.
        exclude_operations: Wins over ``operations``.

    Raises:
        ConfigError: A key is too short or unusable (never shows it), or an operation is unknown.
    """

    principal: Principal = attrs.field(converter=_principal)
    keys: tuple[Secret, ...] = attrs.field(default=(), converter=_secrets, kw_only=True, repr=False)
    models: tuple[str, ...] = attrs.field(default=(), converter=_names, kw_only=True)
    exclude_models: tuple[str, ...] = attrs.field(default=(), converter=_names, kw_only=True)
    operations: tuple[str, ...] = attrs.field(default=("*",), converter=_operations, kw_only=True)
    exclude_operations: tuple[str, ...] = attrs.field(default=(), converter=_operations, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if any(len(key.reveal()) < _MIN_KEY for key in self.keys):
            raise ConfigError(f"a key of {self.principal.id!r} has less than {_MIN_KEY} characters", field="keys")

    def allows(self, operation: str, model: str) -> bool:
        """Whether ``operation`` on ``model`` (``"provider/model"``) is granted."""
        if operation in self.exclude_operations or "*" in self.exclude_operations:
            return False
        if operation not in self.operations and "*" not in self.operations:
            return False
        if operation == Operation.MODELS:  # a list of models is asked of no model
            return True
        return _matches(model, self.models) and not _matches(model, self.exclude_models)


def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    bare = model.partition("/")[2] or model
    return any(fnmatchcase(model if "/" in pattern else bare, pattern) for pattern in patterns)


class AllowListPlugin:
    """Lets known callers do what they are granted, and nobody anything else.

    Args:
        grants: One per caller.
        required: Whether a call without a virtual key is refused. With False it goes on without a
            principal and may do everything; a key that is presented must be right all the same.

    Raises:
        ConfigError: Two grants share a key.
    """

    def __init__(self, grants: Iterable[Grant], *, required: bool = True) -> None:
        self._required = required
        self._pepper = secrets.token_bytes(32)  # digests mean nothing outside this object
        self._verdicts: LRUCache[tuple[int, str, str], bool] = LRUCache(_REMEMBERED)
        self._by_digest: dict[bytes, tuple[bytes, Grant]] = {}
        self._by_principal: dict[str, list[Grant]] = {}
        for grant in grants:
            kept = attrs.evolve(grant, keys=())
            for key in grant.keys:
                digest = self._digest(key)
                if digest in self._by_digest:
                    raise ConfigError(f"a key of {grant.principal.id!r} is granted twice", field="keys")
                self._by_digest[digest] = digest, kept
            if not grant.keys:
                self._by_principal.setdefault(grant.principal.id, []).append(kept)
        self._nobody: tuple[bytes, Grant | None] = self._digest(Secret(secrets.token_urlsafe(32))), None

    def _digest(self, key: Secret) -> bytes:
        return hashlib.blake2b(key.reveal().encode(), key=self._pepper, digest_size=32).digest()

    @hookimpl
    def bifrost_authenticate(self, call: Call) -> Principal | None:
        """Find out who calls.

        Raises:
            VirtualKeyError: The key is unknown, or there is none where one is required: one error
                for every case.
        """
        if call.virtual_key is None:
            if self._required:
                raise VirtualKeyError(_WRONG_KEY)
            return None
        presented = self._digest(call.virtual_key)
        digest, grant = self._by_digest.get(presented, self._nobody)
        if not hmac.compare_digest(digest, presented) or grant is None:
            raise VirtualKeyError(_WRONG_KEY)
        call.state[self] = grant
        return grant.principal

    @hookimpl
    def bifrost_authorize(self, request: Request, call: Call) -> None:
        """Let the call pass or refuse it.

        Raises:
            RefusedError: The caller is not granted this operation on this model.
        """
        principal = call.principal
        granted: Grant | None = call.state.get(self)
        if granted is not None:
            grants = [granted]
        elif principal is not None:
            grants = self._by_principal.get(principal.id, [])
        elif self._required:
            grants = []
        else:
            return
        if not any(self._allows(grant, request.operation, request.model) for grant in grants):
            _refuse(request)

    def _allows(self, grant: Grant, operation: str, model: str) -> bool:
        """``grant.allows``, remembered: matching patterns costs more than the rest together."""
        asked = (id(grant), operation, model)  # the plugin keeps its grants, so no id is used twice
        verdict = self._verdicts.get(asked)
        if verdict is None:
            verdict = self._verdicts[asked] = grant.allows(operation, model)
        return verdict


def _refuse(request: Request) -> NoReturn:
    what = f"{request.operation} on {request.model}" if request.model else str(request.operation)
    raise RefusedError(f"{what} is not granted to this caller; add it to the allow-list")
