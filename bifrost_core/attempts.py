"""One request to one provider within a call."""

from __future__ import annotations

from decimal import Decimal

import attrs

from ._errors import ConfigError
from .estimates import greatest_cost
from .kinds import Kind
from .prices import Price
from .types import RouteRef, Usage

__all__ = ["Attempt"]


@attrs.define(eq=False)
class Attempt:
    """One request to one provider: what it may cost, and at its end how it went.

    Attributes:
        id: Unique; the id of what plugins hold for it.
        route: Provider, model and key id.
        price: The model's price; None where unknown.
        input_upper: Upper bound of the input tokens: the bytes of the body as sent; None where they bound
            nothing (images, documents, audio).
        output_upper: Upper bound of the output tokens over all choices; None when the request sets no limit.
        choices: Answers that are asked for at once (``n``), each with a limit of its own.
        outcome: ``ok``, ``failed``, ``refused`` or ``cancelled``; None while it runs.
        kind: Why it failed.
        status: HTTP status of the answer.
        error: What it failed with.
        usage: What the provider counted.
        cost: USD of ``usage``; None where the price is unknown.
        sent: Whether any byte of the request may have reached the provider; False while it is being reserved.
        started_at: Seconds since 1970, UTC.
        latency: Seconds from sending to the last byte.
        time_to_first_token: Seconds from sending to the first content, streams only.
    """

    id: str
    route: RouteRef
    price: Price | None = None
    input_upper: int | None = None
    output_upper: int | None = None
    choices: int = 1
    outcome: str | None = None
    kind: Kind | None = None
    status: int | None = None
    error: Exception | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    sent: bool = False
    started_at: float = 0.0
    latency: float | None = None
    time_to_first_token: float | None = None
    _limit: int | None = attrs.field(default=None, init=False, repr=False)
    _reserving: bool = attrs.field(default=False, init=False, repr=False)

    @property
    def cost_upper(self) -> Decimal | None:
        """The most that it can cost in USD; None when the price or a bound is unknown."""
        return greatest_cost(self.price, self.input_upper, self.output_upper)

    def open_reservation(self) -> None:
        """From now on ``limit_output`` counts; for the Router."""
        self._reserving = True

    def close_reservation(self) -> int | None:
        """From now on it does not; the limit to send, if somebody lowered it."""
        self._reserving = False
        return self._limit

    def limit_output(self, tokens: int) -> None:
        """Lower the output limit that will be sent; the smallest of all callers wins.

        Args:
            tokens: The new limit of each choice, at least 1.

        Raises:
            ConfigError: Called outside ``bifrost_reserve``, or with less than 1.
        """
        if not self._reserving:
            raise ConfigError("limit_output works in bifrost_reserve only: the request is already encoded")
        if tokens < 1:
            raise ConfigError(f"an output limit is at least 1 token, not {tokens}", field="tokens")
        upper = tokens * self.choices
        if self.output_upper is None or upper < self.output_upper:
            self.output_upper = upper
            self._limit = tokens
