"""The most that an attempt may cost, before it is sent; and how much output a remainder pays for."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from bifrost_core import Attempt, Call, Operation, Price
from bifrost_core.estimates import greatest_cost

from .money import pico_of

__all__ = ["LEAST_OUTPUT", "LIMITABLE", "affordable", "lower_output", "upper_bound"]

LEAST_OUTPUT: Final = 16
"""Tokens of output below which an answer is not worth sending for."""

LIMITABLE: Final = frozenset({Operation.CHAT, Operation.RESPONSES, Operation.FIM})
"""Operations whose output has a limit that can be sent."""

_MILLION: Final = 1_000_000


def upper_bound(price: Price | None, attempt: Attempt) -> int | None:
    """Pico-USD that the attempt can not go beyond; None where its price, prompt or output is not bounded."""
    cost = greatest_cost(price, attempt.input_upper, attempt.output_upper)
    return None if cost is None else pico_of(cost)


def affordable(price: Price, attempt: Attempt, room: int) -> int | None:
    """Output tokens of each choice that ``room`` pays for beside the prompt.

    Args:
        price: Of the attempt.
        attempt: With a bound of its prompt.
        room: Pico-USD.

    Returns:
        Tokens, 0 or more; None where output costs nothing or the price is not known.
    """
    prompt = greatest_cost(price, attempt.input_upper, 0)
    if prompt is None or price.output is None or price.output <= 0:
        return None
    left = room - pico_of(prompt)
    a_token = pico_of(Decimal(price.output)) // _MILLION  # whole: prices have at most six decimals
    return max(left, 0) // a_token // attempt.choices if a_token else None


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
