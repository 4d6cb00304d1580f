"""The exception tree.

::

    BifrostError                     message
    |- ConfigError                   wrong arguments or configuration; before any call
    `- CallError                     any way in which a call can fail
       |- PluginError                a plugin broke its contract, at registration or in a call
       |- RefusedError               policy said no, before a provider was asked or about its answer
       |  |- VirtualKeyError
       |  |- BudgetExceededError
       |  |- RateLimitError
       |  `- GuardrailError
       |- ProviderError              a provider, or the way to it, failed
       |  |- ProviderAuthError
       |  |- ProviderRateLimitError
       |  |- ProviderServerError
       |  |- ProviderConnectionError
       |  |- ProviderTimeoutError
       |  |- StreamBrokenError       partial
       |  `- BadRequestError
       |     |- ContextLengthError
       |     `- UnsupportedParameterError
       |- ModelNotFoundError         candidates
       |- NoKeyAvailableError        retry_after: when the first route opens
       |- DeadlineExceededError      phase
       `- StructuredOutputError      the answer does not fit the class that was asked for

When a call has tried everything, the error of its last attempt is raised, with every attempt on it.
``kind`` is finer than the class; what a kind implies stands in ``kinds.py``.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import ClassVar

import attrs

from ._errors import BifrostError, ConfigError
from .attempts import Attempt
from .kinds import FACTS, Kind, Scope, scope_of
from .responses import ChatResponse

__all__ = [
    "BadRequestError",
    "BifrostError",
    "BudgetExceededError",
    "CallError",
    "ConfigError",
    "ContextLengthError",
    "DeadlineExceededError",
    "GuardrailError",
    "ModelNotFoundError",
    "NoKeyAvailableError",
    "PluginError",
    "ProviderAuthError",
    "ProviderConnectionError",
    "ProviderError",
    "ProviderRateLimitError",
    "ProviderServerError",
    "ProviderTimeoutError",
    "RateLimitError",
    "RefusedError",
    "StreamBrokenError",
    "StructuredOutputError",
    "UnsupportedParameterError",
    "VirtualKeyError",
    "error_class",
]


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class CallError(BifrostError):
    """A call failed. Every field but the message has a default; the Router fills in what it knows.

    Attributes:
        call_id: The call's id; ``""`` outside a call.
        model: ``"provider/model"`` that was asked for.
        kind: The name of the failure (``kinds.py``).
        attempts: Every attempt of the call, in order.
        retry_after: Seconds after which trying again makes sense; None where nothing says so.
        http_status: The status that a gateway would answer with.
    """

    default_kind: ClassVar[Kind] = Kind.REFUSED

    call_id: str = ""
    model: str = ""
    kind: Kind = attrs.field(default=None, converter=attrs.converters.optional(Kind))
    attempts: tuple[Attempt, ...] = ()
    retry_after: float | None = None
    http_status: int = 0

    def __attrs_post_init__(self) -> None:
        if self.kind is None:  # pyright: ignore[reportUnnecessaryComparison] # the default, see default_kind
            self.kind = self.default_kind
        if not self.http_status:
            self.http_status = self._gateway_status()

    def _gateway_status(self) -> int:
        return FACTS[self.kind].http_status or 400

    @property
    def scope_at_fault(self) -> Scope | None:
        """What the failure is held against: a key, a route, a quota group, a deployment, a provider."""
        return scope_of(self.kind, getattr(self, "status", None))

    @property
    def retryable(self) -> bool:
        """Whether a new call may succeed."""
        return FACTS[self.kind].retryable or self.retry_after is not None

    @property
    def processed(self) -> str:
        """Whether the provider did the work: ``no``, ``unknown`` or ``yes``."""
        return FACTS[self.kind].processed

    @property
    def billed(self) -> str:
        """What the provider probably charges: ``none``, ``unknown``, ``partial`` or ``full``."""
        return FACTS[self.kind].billed


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class PluginError(CallError):
    """A plugin broke its contract, at registration (no ``call_id``) or in a call.

    Attributes:
        plugin: Name of the plugin.
        hook: Name of the hook.
    """

    default_kind = Kind.PLUGIN_ERROR

    plugin: str = ""
    hook: str = ""


class RefusedError(CallError):
    """Policy said no."""

    default_kind = Kind.REFUSED


class VirtualKeyError(RefusedError):
    """Nobody, or somebody unknown, calls."""

    default_kind = Kind.UNAUTHENTICATED


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class BudgetExceededError(RefusedError):
    """A budget has too little left.

    Attributes:
        scope: Which budget (``"team:search"``).
        spent: USD spent in the running period.
        held: USD held for attempts in flight.
        limit: USD of the budget.
        resets_in: Time until the period turns; None when it never does.
    """

    default_kind = Kind.BUDGET_EXCEEDED

    scope: str = ""
    spent: Decimal | None = None
    held: Decimal | None = None
    limit: Decimal | None = None
    resets_in: timedelta | float | None = None


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class RateLimitError(RefusedError):
    """One of our own limits is reached (not the provider's).

    Attributes:
        scope: Which limit.
    """

    default_kind = Kind.RATE_EXCEEDED

    scope: str = ""


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class GuardrailError(RefusedError):
    """A guardrail blocked the request or the answer.

    Attributes:
        rule: Name of the rule; never the text that matched.
        side: ``"input"`` or ``"output"``.
    """

    default_kind = Kind.GUARDRAIL_BLOCKED

    rule: str = ""
    side: str = ""


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class ProviderError(CallError):
    """A provider, or the way to it, failed.

    Attributes:
        provider: Name of the provider.
        key_id: Id of the key that was used.
        status: HTTP status of the answer, if there was one.
        request_id: The provider's id of the request.
        code: The provider's own code.
        excerpt: At most 500 characters of what the provider said, secrets masked.
        deadline_limited: A retry was not made because the call's deadline left no room for it.
    """

    default_kind = Kind.SERVER_ERROR

    provider: str = ""
    key_id: str = ""
    status: int | None = None
    request_id: str | None = None
    code: str | None = None
    excerpt: str | None = None
    deadline_limited: bool = False

    def _gateway_status(self) -> int:
        fixed = FACTS[self.kind].http_status
        if fixed is not None:
            return fixed
        return self.status if self.status is not None and self.status >= 400 else 400


class ProviderAuthError(ProviderError):
    """One of our keys is rejected, out of money or not allowed; the caller's own key is fine."""

    default_kind = Kind.AUTH


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class ProviderRateLimitError(ProviderError):
    """The provider's limit on our keys is reached.

    Attributes:
        every_model: It is the account's limit (spend, month), for all its models, not the rate limit of one.
    """

    default_kind = Kind.RATE_LIMITED

    every_model: bool = False


class ProviderServerError(ProviderError):
    """The provider failed, is overloaded, or its answer is unusable."""

    default_kind = Kind.SERVER_ERROR


class ProviderConnectionError(ProviderError):
    """The provider can not be reached, or the connection was lost."""

    default_kind = Kind.CONNECT_ERROR


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class ProviderTimeoutError(ProviderError):
    """The provider did not answer in time.

    Attributes:
        phase: Where the time went: ``connect``, ``first_byte`` or ``idle``.
    """

    default_kind = Kind.READ_TIMEOUT

    phase: str = "first_byte"


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class StreamBrokenError(ProviderError):
    """A stream ended before its answer was complete.

    Attributes:
        partial: What had arrived, assembled; None when nothing had.
        inner: Of an error inside the stream: the kind that its code stands for, if any.
    """

    default_kind = Kind.STREAM_TRUNCATED

    partial: ChatResponse | None = None
    inner: Kind | None = None


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class BadRequestError(ProviderError):
    """The request itself is at fault; sending it again changes nothing.

    ``http_status`` is the provider's where it gave one, else 400, or 413 for ``request_too_large``.

    Attributes:
        parameter: Name or path of the field at fault (``messages[0].role``); ``""`` where it is not known.
    """

    default_kind = Kind.INVALID_REQUEST

    parameter: str = ""

    def _gateway_status(self) -> int:
        if self.status is not None and self.status >= 400:
            return self.status
        return FACTS[self.kind].http_status or 400


class ContextLengthError(BadRequestError):
    """The prompt is too long for the model."""

    default_kind = Kind.CONTEXT_TOO_LONG


class UnsupportedParameterError(BadRequestError):
    """A field that this provider does not take and that can not be left out without changing the answer."""


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class ModelNotFoundError(CallError):
    """No provider of the Router serves the model, or the provider does not know it.

    Attributes:
        candidates: Names that are close to it.
        provider: Name of the provider that was asked, if one was.
        key_id: Id of the key that was used.
        status: HTTP status of the provider's answer.
        request_id: The provider's id of the request.
        code: The provider's own code.
        excerpt: At most 500 characters of what the provider said, secrets masked.
    """

    default_kind = Kind.MODEL_NOT_FOUND

    candidates: tuple[str, ...] = ()
    provider: str = ""
    key_id: str = ""
    status: int | None = None
    request_id: str | None = None
    code: str | None = None
    excerpt: str | None = None


class NoKeyAvailableError(CallError):
    """No attempt was possible; ``retry_after`` is the time until the first route opens."""

    default_kind = Kind.NO_ROUTE


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class DeadlineExceededError(CallError):
    """The call's own time ran out.

    Attributes:
        phase: Where it went: ``total``, ``queue``, ``connect``, ``first_byte``, ``idle`` or ``hook:NAME``.
    """

    default_kind = Kind.DEADLINE_EXCEEDED

    phase: str = "total"


@attrs.define(eq=False, kw_only=True, slots=False, repr=False)
class StructuredOutputError(CallError):
    """The answer does not fit the class given as ``response_format``.

    Attributes:
        text: The answer as it came.
    """

    default_kind = Kind.BAD_RESPONSE

    text: str = ""


_CLASSES: dict[Kind, type[CallError]] = {
    Kind.CONTEXT_TOO_LONG: ContextLengthError,
    Kind.INVALID_REQUEST: BadRequestError,
    Kind.REQUEST_TOO_LARGE: BadRequestError,
    Kind.CONTENT_FILTERED: BadRequestError,
    Kind.CONFLICT: BadRequestError,
    Kind.MODEL_NOT_FOUND: ModelNotFoundError,
    Kind.AUTH: ProviderAuthError,
    Kind.NO_CREDENTIALS: ProviderAuthError,
    Kind.PAYMENT: ProviderAuthError,
    Kind.PERMISSION: ProviderAuthError,
    Kind.RATE_LIMITED: ProviderRateLimitError,
    Kind.QUOTA_EXHAUSTED: ProviderRateLimitError,
    Kind.CONNECT_ERROR: ProviderConnectionError,
    Kind.CONNECTION_LOST: ProviderConnectionError,
    Kind.SERVER_TIMEOUT: ProviderTimeoutError,
    Kind.READ_TIMEOUT: ProviderTimeoutError,
    Kind.STREAM_TRUNCATED: StreamBrokenError,
    Kind.STREAM_ERROR: StreamBrokenError,
    Kind.STREAM_MALFORMED: StreamBrokenError,
    Kind.STREAM_STALLED: StreamBrokenError,
    Kind.DEADLINE_EXCEEDED: DeadlineExceededError,
    Kind.NO_ROUTE: NoKeyAvailableError,
    Kind.UNAUTHENTICATED: VirtualKeyError,
    Kind.REFUSED: RefusedError,
    Kind.BUDGET_EXCEEDED: BudgetExceededError,
    Kind.BUDGET_UNAVAILABLE: BudgetExceededError,
    Kind.RATE_EXCEEDED: RateLimitError,
    Kind.GUARDRAIL_BLOCKED: GuardrailError,
    Kind.PLUGIN_ERROR: PluginError,
}


def error_class(kind: Kind) -> type[CallError]:
    """The class that a failure of ``kind`` is raised as."""
    return _CLASSES.get(kind, ProviderServerError)
