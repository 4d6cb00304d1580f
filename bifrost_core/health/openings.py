"""The states of a Router's health that are not closed, found by the deployment they concern.

A deployment may have thousands of routes of which a few rest. So what rests is looked at once for all of them, and
a route that nothing speaks of costs one look into a set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from bifrost_core.kinds import Scope
from bifrost_core.types import Route, RouteRef

from .scopes import ScopeId, scope_id, scope_ids
from .states import ScopeState

__all__ = ["Closing", "Openings"]

_NOTHING: Final[dict[ScopeId, ScopeState]] = {}


def _place(name: ScopeId) -> tuple[str, str | None]:
    """Provider and model that a scope is about; None: all models."""
    scope = name[0]
    if scope == Scope.DEPLOYMENT or scope == Scope.ROUTE:  # noqa: PLR1714 # a set would hash an enum
        return name[1], name[2]
    return name[1], name[4] if len(name) == 5 else None


def _whose(name: ScopeId) -> tuple[str, str | None]:
    """Key and quota group that a scope is about; the key is ``""`` where it is none's, or a group's."""
    scope = name[0]
    if scope == Scope.QUOTA_GROUP:
        return name[3], name[2]
    if scope == Scope.KEY or scope == Scope.ROUTE:  # noqa: PLR1714 # as above
        return name[-1], None
    return "", None


@attrs.frozen
class Closing:
    """What keeps routes of one deployment closed.

    Attributes:
        everywhere: States of the deployment and of its provider.
        keys: Those of single keys and routes, by key id.
        groups: Those of quota groups, by name.
    """

    everywhere: list[ScopeState]
    keys: dict[str, list[ScopeState]]
    groups: dict[str, list[ScopeState]]

    def rest(self, route: Route, now: float, *, ignore_breakers: bool = False) -> float:
        """Seconds until a route of the deployment is usable; 0: now."""
        return max((state.rest(now, ignore_breakers=ignore_breakers) for state in self.of(route)), default=0.0)

    def of(self, route: Route) -> list[ScopeState]:
        """The states that concern a route of the deployment."""
        group = route.quota_group
        in_group = () if group is None else self.groups.get(group, ())
        return [*self.everywhere, *self.keys.get(route.key_id, ()), *in_group]


class Openings:
    """States that are not closed: open or half-open."""

    __slots__ = ("_count", "_places")

    def __init__(self) -> None:
        self._places: dict[tuple[str, str | None], dict[ScopeId, ScopeState]] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._places)

    def __len__(self) -> int:
        return self._count

    def put(self, state: ScopeState) -> None:
        """Take in a state; again for one that is there changes nothing."""
        states = self._places.setdefault(_place(state.id), {})
        self._count += state.id not in states
        states[state.id] = state

    def drop(self, state: ScopeState) -> None:
        """Forget a state, if it is there."""
        place = _place(state.id)
        states = self._places.get(place)
        if states is None or states.pop(state.id, None) is None:
            return
        self._count -= 1
        if not states:
            del self._places[place]

    def of(self, route: Route) -> Sequence[ScopeState]:
        """The states that concern ``route``, from wide to narrow."""
        anywhere, here = self._around(route)
        if not anywhere and not here:
            return ()
        names = scope_ids(route)
        return [state for name in names if (state := anywhere.get(name) or here.get(name)) is not None]

    def wide(self, route: RouteRef) -> Iterator[ScopeState]:
        """Those of the route's deployment and provider."""
        anywhere, here = self._around(route)
        for scope, states in ((Scope.DEPLOYMENT, here), (Scope.PROVIDER, anywhere)):
            state = states.get(scope_id(route, scope)) if states else None
            if state is not None:
                yield state

    def awake(self, routes: Sequence[Route], now: float, *, ignore_breakers: bool) -> Sequence[Route]:
        """Those of one deployment's ``routes`` that are usable; ``routes`` itself when all are.

        One look at each state that concerns the deployment, and then one at each route.
        """
        keys: set[str] = set()
        groups: set[str] = set()
        for states in self._around(routes[0]):
            for name, state in states.items():
                if state.rest(now, ignore_breakers=ignore_breakers) <= 0.0:
                    continue
                key, group = _whose(name)
                if key:
                    keys.add(key)
                elif group is not None:
                    groups.add(group)
                else:
                    return []
        if groups:
            left = [route for route in routes if route.key_id not in keys and route.quota_group not in groups]
        elif keys:
            left = [route for route in routes if route.key_id not in keys]
        else:
            return routes
        return routes if len(left) == len(routes) else left

    def closing(self, route: RouteRef) -> Closing | None:
        """What is not closed of the route's deployment, for all its routes; None: nothing."""
        anywhere, here = self._around(route)
        if not anywhere and not here:
            return None
        closing = Closing([], {}, {})
        for states in (anywhere, here):
            for name, state in states.items():
                key, group = _whose(name)
                if key:
                    closing.keys.setdefault(key, []).append(state)
                elif group is not None:
                    closing.groups.setdefault(group, []).append(state)
                else:
                    closing.everywhere.append(state)
        return closing

    def _around(self, route: RouteRef) -> tuple[dict[ScopeId, ScopeState], dict[ScopeId, ScopeState]]:
        places = self._places
        return places.get((route.provider, None), _NOTHING), places.get((route.provider, route.model), _NOTHING)
