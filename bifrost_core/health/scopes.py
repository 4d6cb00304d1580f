"""Names of scope instances: what exactly is closed when "the key" or "the deployment" is.

Rate limits are kept per quota group *and* model, spend limits per quota group, so that a quota group
has one name with a model and one without. A key without a group is a group of its own.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from bifrost_core._errors import ConfigError
from bifrost_core.kinds import Kind, Scope
from bifrost_core.types import Route, RouteRef

__all__ = ["Reason", "ScopeId", "quota_of", "scope_id", "scope_ids"]

ScopeId: TypeAlias = tuple[str, ...]
"""The scope's name, then the provider, then what else it takes. Safe to log."""

Reason: TypeAlias = Kind | Literal["manual"]
"""Why a scope is closed: a failure's kind, or somebody closed it by hand."""


def quota_of(route: RouteRef) -> tuple[str, str]:
    """Name of the route's quota group: ``(group, "")``, or ``("", key id)`` for a key without one."""
    group = route.quota_group if isinstance(route, Route) else None
    return ("", route.key_id) if group is None else (group, "")


def scope_id(route: RouteRef, scope: Scope, *, every_model: bool = False) -> ScopeId:
    """The instance of ``scope`` that ``route`` belongs to.

    Args:
        route: For a quota group a ``Route``, which knows its group.
        scope: Which of the five.
        every_model: Of a quota group: its spend limit, which holds for all models, not its rate limit for one.

    Raises:
        ConfigError: A quota group is asked for by a bare ``RouteRef``.
    """
    if scope is Scope.KEY:
        return (scope, route.provider, route.key_id)
    if scope is Scope.ROUTE:
        return (scope, route.provider, route.model, route.key_id)
    if scope is Scope.DEPLOYMENT:
        return (scope, route.provider, route.model)
    if scope is Scope.PROVIDER:
        return (scope, route.provider)
    if not isinstance(route, Route):
        raise ConfigError("a quota group is named by a Route: a RouteRef does not know its group", field="route")
    group, alone = quota_of(route)
    return (scope, route.provider, group, alone) if every_model else (scope, route.provider, group, alone, route.model)


def scope_ids(route: Route) -> tuple[ScopeId, ...]:
    """Every instance that has to be open for ``route`` to be usable, from wide to narrow."""
    provider, model, key_id, group = route.provider, route.model, route.key_id, route.quota_group
    alone = ""
    if group is None:
        group, alone = "", key_id
    return (
        (Scope.PROVIDER, provider),
        (Scope.DEPLOYMENT, provider, model),
        (Scope.QUOTA_GROUP, provider, group, alone, model),
        (Scope.QUOTA_GROUP, provider, group, alone),
        (Scope.KEY, provider, key_id),
        (Scope.ROUTE, provider, model, key_id),
    )
