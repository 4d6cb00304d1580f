"""Every way a call or an attempt can fail, by name, and what each name implies.

The one table that the rest reads: an adapter says *which* kind a failure is; the router asks only
what that kind means. What the name alone does not settle (a 500 is the model's fault, a 503 the
provider's) is answered by the three functions at the end. Nothing here knows about time, keys or
providers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

import attrs

__all__ = ["FACTS", "Cooling", "Facts", "Kind", "Scope", "Step", "outcome_of", "scope_of", "steps_of"]


class Kind(StrEnum):
    """The name of a failure; equal to its string."""

    # the caller's own request
    INVALID_REQUEST = "invalid_request"
    CONTEXT_TOO_LONG = "context_too_long"
    REQUEST_TOO_LARGE = "request_too_large"
    CONTENT_FILTERED = "content_filtered"
    CONFLICT = "conflict"
    # our keys and accounts at the provider
    AUTH = "auth"
    NO_CREDENTIALS = "no_credentials"
    PAYMENT = "payment"
    PERMISSION = "permission"
    MODEL_NOT_FOUND = "model_not_found"
    # limits and capacity
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    MODEL_OVERLOADED = "model_overloaded"
    # the provider or the way to it
    SERVER_ERROR = "server_error"
    SERVER_TIMEOUT = "server_timeout"
    CONNECT_ERROR = "connect_error"
    CONNECTION_LOST = "connection_lost"
    READ_TIMEOUT = "read_timeout"
    PROTOCOL_ERROR = "protocol_error"
    REDIRECT = "redirect"
    BAD_RESPONSE = "bad_response"
    BAD_USAGE = "bad_usage"  # never raised: the answer is good, only its count is not
    RESPONSE_TOO_LARGE = "response_too_large"
    # streams
    STREAM_TRUNCATED = "stream_truncated"
    STREAM_ERROR = "stream_error"
    STREAM_MALFORMED = "stream_malformed"
    STREAM_STALLED = "stream_stalled"
    # the call itself
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CANCELLED = "cancelled"
    NO_ROUTE = "no_route"
    # policy
    UNAUTHENTICATED = "unauthenticated"
    REFUSED = "refused"
    BUDGET_EXCEEDED = "budget_exceeded"
    BUDGET_UNAVAILABLE = "budget_unavailable"
    RATE_EXCEEDED = "rate_exceeded"
    GUARDRAIL_BLOCKED = "guardrail_blocked"
    PLUGIN_ERROR = "plugin_error"


Outcome: TypeAlias = Literal["ok", "rate_limit", "auth", "error", "client"]
"""What a balancer is told of an attempt's end."""


class Scope(StrEnum):
    """What a state of health belongs to, from narrow to wide."""

    KEY = "key"
    ROUTE = "route"
    QUOTA_GROUP = "quota_group"
    DEPLOYMENT = "deployment"
    PROVIDER = "provider"


class Cooling(StrEnum):
    """How a scope is closed by a failure of a kind."""

    NOTHING = "nothing"
    BREAKER = "breaker"  # counted; opens after several
    THROTTLE = "throttle"  # opens until the stated or computed time
    FIXED = "fixed"  # opens for ``Facts.seconds``
    REJECTED = "rejected"  # the credential itself: opens long, doubling


class Step(StrEnum):
    """Where the next attempt of a call may go; tried in the order that ``Facts.steps`` gives."""

    SAME = "same"  # the same deployment after a backoff, any usable key
    KEY = "key"  # another key of the deployment, at once, outside the attempt count
    GROUP = "group"  # a key of another quota group, at once
    FRESH = "fresh"  # the same route once more on a new connection
    DEPLOYMENT = "deployment"  # the next deployment of the chain, at once


@attrs.frozen
class Facts:
    """What a kind implies.

    Attributes:
        cooling: How ``scope`` is closed.
        scope: What is at fault; None when nothing of the provider's is.
        steps: Where the call may go on, in order; empty: the error goes to the caller.
        http_status: What a gateway would answer; None: the provider's own status, else 400.
        processed: Whether the provider did the work: ``no``, ``unknown`` or ``yes``.
        billed: What the provider probably charges: ``none``, ``unknown``, ``partial`` or ``full``.
        seconds: Length of a ``FIXED`` or the start of a ``REJECTED`` closing, in seconds.
        balancer: The outcome that the balancer is told.
        repeats: How often ``SAME`` may be taken for this kind in one call on one deployment.
        resent_once: The answer was made and charged but is of no use: a call sends its request again at most
            once for all kinds that say so, wherever to.
        passes: It passes by itself, though it is no fault of the provider's.
    """

    cooling: Cooling
    scope: Scope | None
    steps: tuple[Step, ...]
    http_status: int | None
    processed: str = "no"
    billed: str = "none"
    seconds: float = 0.0
    balancer: Outcome = "client"
    repeats: int = 16
    resent_once: bool = False
    passes: bool = False

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later without anybody changing anything."""
        return self.passes or self.cooling in (Cooling.BREAKER, Cooling.THROTTLE)


_NOTHING = Cooling.NOTHING
_BREAKER = Cooling.BREAKER
_SAME_ON = (Step.SAME, Step.DEPLOYMENT)
_ON = (Step.DEPLOYMENT,)
_KEY_ON = (Step.KEY, Step.DEPLOYMENT)
_GROUP_ON = (Step.GROUP, Step.DEPLOYMENT)


def _breaker(scope: Scope, steps: tuple[Step, ...], status: int, **more: object) -> Facts:
    facts: dict[str, object] = {"processed": "unknown", "billed": "unknown", "balancer": "error", **more}
    return Facts(_BREAKER, scope, steps, status, **facts)  # type: ignore[arg-type] # one row per keyword below


FACTS: dict[Kind, Facts] = {
    Kind.INVALID_REQUEST: Facts(_NOTHING, None, (), None),
    Kind.CONTEXT_TOO_LONG: Facts(_NOTHING, None, _ON, None),
    Kind.REQUEST_TOO_LARGE: Facts(_NOTHING, None, (), 413),
    Kind.CONTENT_FILTERED: Facts(_NOTHING, None, (), None),
    Kind.CONFLICT: Facts(_NOTHING, None, (Step.SAME,), None, repeats=1, passes=True),
    Kind.AUTH: Facts(Cooling.REJECTED, Scope.KEY, _KEY_ON, 502, seconds=300.0, balancer="auth"),
    Kind.NO_CREDENTIALS: Facts(_NOTHING, None, (), 502),
    Kind.PAYMENT: Facts(Cooling.FIXED, Scope.QUOTA_GROUP, _GROUP_ON, 502, seconds=3600.0, balancer="auth"),
    Kind.PERMISSION: Facts(Cooling.FIXED, Scope.ROUTE, _KEY_ON, 502, seconds=600.0, balancer="auth"),
    Kind.MODEL_NOT_FOUND: Facts(Cooling.FIXED, Scope.DEPLOYMENT, _ON, 404, seconds=300.0),
    Kind.RATE_LIMITED: Facts(Cooling.THROTTLE, Scope.QUOTA_GROUP, _GROUP_ON, 429, balancer="rate_limit"),
    Kind.QUOTA_EXHAUSTED: Facts(
        Cooling.FIXED, Scope.QUOTA_GROUP, _GROUP_ON, 429, seconds=3600.0, balancer="rate_limit", passes=True
    ),
    Kind.MODEL_OVERLOADED: Facts(Cooling.THROTTLE, Scope.DEPLOYMENT, _ON, 503),
    Kind.SERVER_ERROR: _breaker(Scope.PROVIDER, _SAME_ON, 502),
    Kind.SERVER_TIMEOUT: _breaker(Scope.PROVIDER, _SAME_ON, 504, repeats=1),
    Kind.CONNECT_ERROR: _breaker(Scope.PROVIDER, _SAME_ON, 502, processed="no", billed="none", repeats=1),
    Kind.CONNECTION_LOST: _breaker(Scope.PROVIDER, (Step.FRESH, *_SAME_ON), 502),
    Kind.READ_TIMEOUT: _breaker(Scope.DEPLOYMENT, _SAME_ON, 504),
    Kind.PROTOCOL_ERROR: _breaker(Scope.PROVIDER, _ON, 502),
    Kind.REDIRECT: Facts(Cooling.FIXED, Scope.PROVIDER, _ON, 502, seconds=300.0, balancer="error"),
    Kind.BAD_RESPONSE: _breaker(
        Scope.DEPLOYMENT, (Step.DEPLOYMENT, Step.SAME), 502, processed="yes", billed="full", resent_once=True
    ),
    Kind.BAD_USAGE: Facts(_NOTHING, None, (), 502, processed="yes", billed="full", balancer="ok"),
    Kind.RESPONSE_TOO_LARGE: _breaker(Scope.DEPLOYMENT, _ON, 502, processed="yes", resent_once=True),
    Kind.STREAM_TRUNCATED: _breaker(Scope.DEPLOYMENT, _SAME_ON, 502, processed="yes", billed="partial"),
    Kind.STREAM_ERROR: _breaker(Scope.DEPLOYMENT, _SAME_ON, 502, processed="yes", billed="partial"),
    Kind.STREAM_MALFORMED: _breaker(Scope.DEPLOYMENT, _SAME_ON, 502, processed="yes", billed="partial"),
    Kind.STREAM_STALLED: _breaker(Scope.DEPLOYMENT, (), 502, processed="yes", billed="partial"),
    Kind.DEADLINE_EXCEEDED: Facts(_NOTHING, None, (), 504, processed="unknown", billed="unknown", passes=True),
    Kind.CANCELLED: Facts(_NOTHING, None, (), 499, processed="unknown", billed="unknown", passes=True),
    Kind.NO_ROUTE: Facts(_NOTHING, None, (), 503, passes=True),
    Kind.UNAUTHENTICATED: Facts(_NOTHING, None, (), 401),
    Kind.REFUSED: Facts(_NOTHING, None, (), 403),
    Kind.BUDGET_EXCEEDED: Facts(_NOTHING, None, (), 402),
    Kind.BUDGET_UNAVAILABLE: Facts(_NOTHING, None, (), 503, passes=True),
    Kind.RATE_EXCEEDED: Facts(_NOTHING, None, (), 429, passes=True),
    Kind.GUARDRAIL_BLOCKED: Facts(_NOTHING, None, (), 446),
    Kind.PLUGIN_ERROR: Facts(_NOTHING, None, (), 503),
}


def scope_of(kind: Kind, status: int | None = None, *, html: bool = False) -> Scope | None:
    """What a failure is held against.

    Args:
        kind: The failure; of a stream's error event the kind of the code inside it.
        status: HTTP status of the answer, if there was one.
        html: The body was a web page: some proxy answered, not the model.

    Returns:
        The scope, or None when nothing of the provider's is at fault.
    """
    if kind is Kind.SERVER_ERROR and status == 500:
        return Scope.DEPLOYMENT
    if kind is Kind.BAD_RESPONSE and html:
        return Scope.PROVIDER
    return FACTS[kind].scope


def steps_of(kind: Kind, limit: Scope | None = None) -> tuple[Step, ...]:
    """Where a call may go on after a failure, in order; empty: the error goes to the caller.

    Args:
        kind: The failure.
        limit: Of ``budget_exceeded`` and ``rate_exceeded``: what the budget or limit belongs to, when it
            is one of the route, its key, its deployment or its provider; None: the caller's or the Router's own.
    """
    if limit is not None and kind in (Kind.BUDGET_EXCEEDED, Kind.RATE_EXCEEDED):
        return _ON if limit in (Scope.DEPLOYMENT, Scope.PROVIDER) else _KEY_ON
    return FACTS[kind].steps


def outcome_of(kind: Kind | None, status: int | None = None, retry_after: float | None = None) -> Outcome:
    """What the balancer is told: ``ok``, ``rate_limit``, ``auth``, ``error`` or ``client``.

    Args:
        kind: The failure; None: a good answer.
        status: HTTP status of the answer.
        retry_after: Seconds that the provider asked to wait, if it did; 0 is no wait.
    """
    if kind is None:
        return "ok"
    if status in (503, 529) and retry_after is not None and retry_after > 0:
        return "rate_limit"
    return FACTS[kind].balancer
