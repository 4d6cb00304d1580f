"""USD outside, whole pico-USD (10**-12 USD) inside; exact both ways, or an error.

A price per million tokens with six decimals is a whole number of pico-USD a token; with coarser units
most published prices are not.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, DecimalException
from typing import Final

from bifrost_core import ConfigError, Price, Usage
from bifrost_plugins.stores import MAX_AMOUNT

__all__ = ["Usd", "exact_pico", "pico_cost", "pico_of", "usd_of"]

Usd = Decimal | str | int
"""An amount in USD as people write it; never a float, which has already lost the number that was meant."""

_PLACES: Final = 12
_EXACT: Final = Context(prec=60)  # our own: a host may have lowered the precision of its thread's
_ONE: Final = Decimal(1)


def exact_pico(value: Usd, field: str) -> int:
    """Whole pico-USD of an amount in USD, 0 or more.

    Raises:
        ConfigError: It is a float, no number, negative, too great or has more than twelve decimals.
    """
    amount = _decimal(value, field)
    pico = _EXACT.scaleb(amount, _PLACES)
    if pico != pico.to_integral_value():
        raise ConfigError(f"{field} has at most 12 decimals, not {value!r}", field=field)
    if not 0 <= pico <= MAX_AMOUNT:
        raise ConfigError(f"{field} is from 0 to {usd_of(MAX_AMOUNT)} USD, not {value!r}", field=field)
    return int(pico)


def _decimal(value: Usd, field: str) -> Decimal:
    if isinstance(value, (float, bool)):
        raise ConfigError(f"{field} is USD as a string, an int or a Decimal, not {value!r}", field=field)
    try:
        amount = Decimal(value)
    except (DecimalException, TypeError, ValueError):
        raise ConfigError(f"{field} is no amount of USD: {value!r}", field=field) from None
    if not amount.is_finite():
        raise ConfigError(f"{field} is a finite amount of USD, not {value!r}", field=field)
    return amount


def pico_of(cost: Decimal) -> int:
    """Whole pico-USD of a cost, rounded up where it is none; at most what a store can count."""
    pico = _EXACT.scaleb(cost, _PLACES).to_integral_value(ROUND_CEILING)
    return min(max(int(pico), 0), MAX_AMOUNT)


def pico_cost(price: Price | None, usage: Usage) -> int | None:
    """Whole pico-USD of what was used; None where the price, or a part of it, is unknown."""
    cost = None if price is None else price.cost(usage)
    return None if cost is None else pico_of(cost)


def usd_of(pico: int) -> Decimal:
    """USD of whole pico-USD, exactly, without zeros at the end."""
    amount = _EXACT.scaleb(Decimal(pico), -_PLACES).normalize(_EXACT)
    exponent = amount.as_tuple().exponent
    return amount.quantize(_ONE, context=_EXACT) if isinstance(exponent, int) and exponent > 0 else amount
