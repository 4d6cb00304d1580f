"""Whose a budget or limit is: scopes as they are configured, and the instances that a call belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from bifrost_core import ConfigError, Principal, RouteRef

__all__ = ["ROUTER", "Scope", "instance_labels", "parse_instance", "parse_scope"]

ROUTER: Final = "router"
"""The scope of all calls together, and its only instance."""

# What decides where a call may go on comes first: a limit of a model or provider is no reason to give up on others.
_KINDS: Final = ("model", "provider", "customer", "team", "tenant", "virtual_key", "principal")


@attrs.frozen
class Scope:
    """A scope: for each of its kinds either one name or, where that is None, every name by itself.

    Attributes:
        parts: Kind and name, in a fixed order of kinds; none for the whole Router.
    """

    parts: tuple[tuple[str, str | None], ...]

    @property
    def label(self) -> str:
        """As it is configured: ``"team"``, ``"team:search"``, ``"model+team"``."""
        return "+".join(kind if name is None else f"{kind}:{_safe(name)}" for kind, name in self.parts) or ROUTER

    @property
    def is_single(self) -> bool:
        """Whether there is exactly one instance of it."""
        return all(name is not None for _, name in self.parts)

    def instance(self, labels: dict[str, str]) -> str | None:
        """The instance that a call belongs to; None: it belongs to none.

        Args:
            labels: Of the call, from ``instance_labels``.
        """
        found = list[str]()
        for kind, wanted in self.parts:
            name = labels.get(kind)
            if name is None or (wanted is not None and name != wanted):
                return None
            found.append(f"{kind}:{_safe(name)}")
        return "+".join(found) or ROUTER

    def covers(self, instance: Scope) -> bool:
        """Whether ``instance``, which names everything, is an instance of this scope."""
        return len(self.parts) == len(instance.parts) and all(
            kind == other and name in (None, named)
            for (kind, name), (other, named) in zip(self.parts, instance.parts, strict=True)
        )


def _safe(name: str) -> str:
    """A name without the characters that join and number instances."""
    return name.replace("%", "%25").replace("+", "%2B").replace("#", "%23")


def parse_scope(value: str | Iterable[str]) -> Scope:
    """A scope from configuration.

    Args:
        value: ``"router"``; a kind (each name by itself); ``"kind:name"``; or several, which makes each
            combination.

    Raises:
        ConfigError: A kind is not known, comes twice, or a name is empty.
    """
    parts = dict[str, str | None]()
    listed = [value] if isinstance(value, str) else list(value)
    if not listed:
        raise ConfigError("a scope is not empty; write 'router' for all calls together", field="scope")
    for part in listed:
        kind, colon, name = part.partition(":")
        if part == ROUTER:
            continue
        if kind not in _KINDS or (colon and not name):
            known = ", ".join((ROUTER, *_KINDS))
            raise ConfigError(f"{part!r} is no scope; write one of {known}, or kind:name", field="scope")
        if kind in parts:
            raise ConfigError(f"a scope has {kind} once", field="scope")
        parts[kind] = name if colon else None
    return Scope(tuple((kind, parts[kind]) for kind in _KINDS if kind in parts))


def parse_instance(value: str | Sequence[str]) -> Scope:
    """One instance, by its names: ``"team:search"``, ``"router"``, ``("team:search", "model:mistral/x")``.

    Raises:
        ConfigError: It is no scope, or leaves a name open.
    """
    scope = parse_scope(value)
    if not scope.is_single:
        raise ConfigError(f"{scope.label!r} stands for many; name one, as in 'team:search'", field="scope")
    return scope


def instance_labels(principal: Principal | None, route: RouteRef) -> dict[str, str]:
    """What a call is counted under, by kind: only what is known."""
    labels = {"model": f"{route.provider}/{route.model}", "provider": route.provider}
    if principal is not None:
        named = (
            ("customer", principal.customer),
            ("team", principal.team),
            ("tenant", principal.tenant),
            ("virtual_key", principal.virtual_key_id),
            ("principal", principal.id),
        )
        labels.update((kind, name) for kind, name in named if name)
    return labels
