"""The most that an attempt may cost, before it is sent; and how much output a remainder pays for."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import Final

import attrs

from bifrost_core import Attempt, Call, Operation, Price
from bifrost_plugins.stores import MAX_AMOUNT

from .money import pico_of

__all__ = ["LEAST_OUTPUT", "LIMITABLE", "Rates", "affordable", "lower_output", "rates_of", "upper_bound"]

LEAST_OUTPUT: Final = 16
"""Tokens of output below which an answer is not worth sending for."""

LIMITABLE: Final = frozenset({Operation.CHAT, Operation.RESPONSES, Operation.FIM})
"""Operations whose output has a limit that can be sent."""

_MILLION: Final = 1_000_000


@attrs.frozen
class Rates:
    """A price in whole pico-USD, for tokens alone; None where a part is unknown.

    Attributes:
        input: Of an input token, past the cache, read from it or written to it for whatever time: the dearest.
        output: Of an output token.
        request: Of the request itself.
    """

    input: int | None
    output: int | None
    request: int

    def cost(self, input_tokens: int, output_tokens: int) -> int | None:
        """Pico-USD that so many tokens cost at most; None where a part that is used is unknown."""
        if (input_tokens and self.input is None) or (output_tokens and self.output is None):
            return None
        return (self.input or 0) * input_tokens + (self.output or 0) * output_tokens + self.request


@lru_cache(maxsize=1_024)
def rates_of(price: Price) -> Rates:
    """The rates of a price: whole numbers, as prices per million tokens have at most six decimals."""
    written = price.input if price.cache_write_input is None else price.cache_write_input
    kept_long = written if price.long_cache_write_input is None else price.long_cache_write_input
    parts = (price.input, price.input if price.cached_input is None else price.cached_input, written, kept_long)
    known = [part for part in parts if part is not None]
    return Rates(
        _per_token(max(known)) if len(known) == len(parts) else None,
        None if price.output is None else _per_token(price.output),
        0 if price.per_request is None else pico_of(price.per_request),
    )


def _rates_within(price: Price, input_upper: int) -> Rates:
    """The dearest rates of a request of at most so many input tokens, which decide over the price of long contexts."""
    rates = rates_of(price)
    if price.long_context is None or input_upper <= (price.long_context_from or 0):
        return rates
    far = rates_of(price.long_context)
    return Rates(
        None if rates.input is None or far.input is None else max(rates.input, far.input),
        None if rates.output is None or far.output is None else max(rates.output, far.output),
        max(rates.request, far.request),
    )


def _per_token(price: Decimal) -> int:
    return pico_of(price) // _MILLION


def upper_bound(price: Price | None, attempt: Attempt) -> int | None:
    """Pico-USD that the attempt can not go beyond; None where its price, prompt or output is not bounded."""
    if price is None or attempt.input_upper is None or attempt.output_upper is None:
        return None
    cost = _rates_within(price, attempt.input_upper).cost(attempt.input_upper, attempt.output_upper)
    return None if cost is None else min(cost, MAX_AMOUNT)


def affordable(price: Price, attempt: Attempt, room: int) -> int | None:
    """Output tokens of each choice that ``room`` pays for beside the prompt.

    Args:
        price: Of the attempt.
        attempt: With a bound of its prompt.
        room: Pico-USD.

    Returns:
        Tokens, 0 or more; None where output costs nothing or the price is not known.
    """
    rates = _rates_within(price, attempt.input_upper or 0)
    prompt = rates.cost(attempt.input_upper or 0, 0)
    if prompt is None or not rates.output:
        return None
    return max(room - prompt, 0) // rates.output // attempt.choices


def lower_output(attempt: Attempt, call: Call, price: Price | None, room: int) -> bool:
    """Lower the output limit that is sent to what ``room`` (pico-USD) pays for; whether that was possible.

    Fewer than 16 tokens are not worth sending for.
    """
    if price is None or attempt.input_upper is None or call.operation not in LIMITABLE:
        return False
    tokens = affordable(price, attempt, room)
    if tokens is None or tokens < LEAST_OUTPUT:
        return False
    before = attempt.output_upper
    attempt.limit_output(tokens)
    return before is None or (attempt.output_upper or 0) < before
