"""What the health of routes shows (``RouteHealth``) and hands out (``Ticket``)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from bifrost_core.kinds import Kind
from bifrost_core.types import Route, RouteRef

from .scopes import Reason
from .states import ScopeState

__all__ = ["RouteHealth", "RouteState", "Ticket"]

RouteState: TypeAlias = Literal["closed", "open", "half_open"]


@attrs.frozen
class RouteHealth:
    """How one route stands.

    Attributes:
        route: Which.
        state: ``closed`` (usable), ``open`` (rests) or ``half_open`` (one attempt may try it).
        until: Seconds until it is usable; 0 when it is. Of a closed route: until it gets its share again, when the
            balancer spares it because the headers of its last answers say that a quota is used up.
        reason: The kind of failure that opened it, or ``"manual"``; ``rate_limited`` of a closed one that is spared;
            else None.
        latency: Expected seconds of an answer; None while unknown.
        time_to_first_token: Expected seconds until a stream's first content; None while unknown.
        in_flight: Attempts under way.
        share: Part of its deployment's recent attempts, 0 to 1.
    """

    route: RouteRef
    state: RouteState = "closed"
    until: float = 0.0
    reason: Reason | None = None
    latency: float | None = None
    time_to_first_token: float | None = None
    in_flight: int = 0
    share: float = 0.0


@attrs.define(eq=False)
class Ticket:
    """One attempt, from ``Health.begin`` to ``Health.end``.

    Attributes:
        route: What it is sent on.
        started: When it began, seconds on the Health's clock.
        places: States whose half-open place it took.
        is_helper: Its end says nothing about the routes (see ``Health.begin``).
        is_ended: ``Health.end`` has been called.
        kind: How it ended, after that.
    """

    route: Route
    started: float
    places: tuple[ScopeState, ...] = attrs.field(default=(), repr=False)
    is_helper: bool = False
    is_ended: bool = False
    kind: Kind | None = None

    @property
    def is_probe(self) -> bool:
        """Whether it holds a half-open place: the one attempt that is let through to see."""
        return any(state.probe is self for state in self.places)

    def leave(self) -> tuple[ScopeState, ...]:
        """Give the half-open places back; returns those that it still held."""
        self.is_ended = True
        if not self.places:
            return ()
        held = tuple(state for state in self.places if state.probe is self)
        for state in held:
            state.probe = None
        return held
