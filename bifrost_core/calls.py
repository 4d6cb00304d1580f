"""One use of the Router: who calls, what for, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import attrs

from .attempts import Attempt
from .keys import Secret
from .kinds import Kind
from .responses import Response
from .types import Operation, Request, Usage

__all__ = ["Call", "CallRecord", "Principal"]


def _names(values: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several; a string is one name, not its letters."""
    return (values,) if isinstance(values, str) else tuple(values)


def _roles(values: str | Iterable[str]) -> frozenset[str]:
    return frozenset(_names(values))


@attrs.frozen(kw_only=True)
class Principal:
    """Who calls.

    Attributes:
        id: Stable name, safe to log.
        tenant: Callers of one tenant may share cached answers; nobody else's.
        virtual_key_id: Public id of the virtual key that was presented.
        team: Name of the team.
        customer: Name of the customer that the team belongs to.
        roles: Names of roles.
        claims: Further facts from whoever authenticated the caller.
    """

    id: str
    tenant: str | None = None
    virtual_key_id: str | None = None
    team: str | None = None
    customer: str | None = None
    roles: frozenset[str] = attrs.field(default=frozenset(), converter=_roles)
    claims: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


@attrs.define(eq=False)
class Call:
    """One use of a Router, from its first hook to its last.

    Attributes:
        id: Unique.
        operation: What is asked for.
        request: The request as it stands: hooks of phase 3 replace it.
        choices: Where the caller asked for a bare model name that several providers serve: each as
            ``"provider/model"``. Somebody decides in phase 1 by giving the request one of them for its
            model, and perhaps ``fallbacks`` others; else the call fails. Otherwise empty.
        virtual_key: What the caller presented; None when nothing was.
        headers: Headers of a call that came through a vendor's SDK, names in lower case.
        principal: Who calls, once phase 1 has answered.
        deadline: Instant on the event loop's clock (``anyio.current_time()``) at which the call's
            time is over; infinite without one.
        attempts: The attempts so far.
        fallbacks: Models to try after the request's own; hooks of phases 1 to 3 may replace them.
        metadata: What the caller wants plugins and logs to know.
        options: The other options of the call (``session``, ``cache``, ``effects`` …).
        state: What each plugin keeps for this call, by plugin: ``call.state[self]``.
        router: The Router.
    """

    id: str
    operation: Operation
    request: Request
    choices: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    virtual_key: Secret | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    principal: Principal | None = None
    deadline: float = float("inf")
    attempts: tuple[Attempt, ...] = ()
    fallbacks: tuple[str, ...] = attrs.field(default=(), converter=_names, on_setattr=attrs.setters.convert)
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    options: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    state: dict[Any, Any] = attrs.field(factory=dict[Any, Any], repr=False)
    router: Any = attrs.field(default=None, repr=False)

    @property
    def model(self) -> str:
        """``"provider/model"`` of the request as it stands."""
        return self.request.model


@attrs.frozen(kw_only=True)
class CallRecord:
    """How a call ended.

    Attributes:
        call_id: The call's id.
        operation: What was asked for.
        model: ``"provider/model"`` that was asked for.
        principal: Who called, if that was found out.
        outcome: ``ok``, ``failed``, ``refused`` or ``cancelled``.
        kind: Why it did not succeed.
        response: The answer, if there is one.
        error: The error that the caller got, if any.
        attempts: Every attempt, in order.
        usage: Over all attempts.
        cost: USD over all attempts; None when the cost of one is unknown.
        cached: Whether a cache answered.
        started_at: Seconds since 1970, UTC.
        latency: Seconds from start to end.
        time_to_first_token: Seconds to the first content, streams only.
        metadata: What the caller passed.
        rewritten: What plugins changed: ``request`` (phase 3), ``response`` (phases 8 and 9); ``recovered``: they made
            the answer of an error (phase 10).
    """

    call_id: str
    operation: Operation
    model: str
    principal: Principal | None
    outcome: str
    kind: Kind | None
    response: Response | None = attrs.field(repr=False)
    error: Exception | None
    attempts: tuple[Attempt, ...]
    usage: Usage
    cost: Decimal | None
    cached: bool
    started_at: float
    latency: float
    time_to_first_token: float | None
    metadata: Mapping[str, Any] = attrs.field(repr=False)
    rewritten: frozenset[str] = frozenset()
