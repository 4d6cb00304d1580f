"""What usage costs: exact decimals, unknown is None and never 0."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal, DecimalException
from functools import cache
from typing import Any

import attrs
import msgspec

from ._errors import ConfigError
from .types import Usage

__all__ = ["Price", "PriceBook"]

_MILLION = Decimal(1_000_000)
_MINUTE = Decimal(60)
_ONE = Decimal(1)
_FREE = Decimal(0)
_PICO = Decimal("1e-12")
_MICRO = Decimal("1e-6")
_MOST = Decimal(1_000_000_000)
_EXACT = Context(prec=50)  # our own: a host may have lowered the precision of its thread's


def _usd(value: Decimal | str | int | None) -> Decimal | None:
    """Exact decimals only: a float has already lost the price that was meant."""
    if value is None:
        return None
    if isinstance(value, float):
        raise ConfigError(f"a price is a float ({value!r}); write it as a string: '{value}'", field="price")
    try:
        amount = Decimal(value)
    except (DecimalException, TypeError, ValueError):
        raise ConfigError(f"a price is not a number: {value!r}", field="price") from None
    if not amount.is_finite() or not 0 <= amount <= _MOST:
        raise ConfigError(f"a price must be a number from 0 to {_MOST:f}, not {value!r}", field="price")
    if amount != amount.quantize(_MICRO, context=_EXACT):
        raise ConfigError(f"a price has at most 6 decimals, not {value!r}", field="price")
    return amount


@attrs.frozen(kw_only=True)
class Price:
    """The price of a model in USD; each part ``Decimal``, ``str`` or ``int``, None where unknown.

    Attributes:
        input: Per million input tokens.
        output: Per million output tokens.
        cached_input: Per million input tokens read from the provider's cache; None: a tenth of
            ``input`` when the price is built in, else the price of ``input``.
        per_page: Per page.
        per_audio_minute: Per minute of audio.
        per_million_characters: Per million characters.
        per_request: Per request.

    Raises:
        ConfigError: A float, a negative number, or more than six decimals (a token would cost a
            fraction of a pico-USD).
    """

    input: Decimal | None = attrs.field(default=None, converter=_usd)
    output: Decimal | None = attrs.field(default=None, converter=_usd)
    cached_input: Decimal | None = attrs.field(default=None, converter=_usd)
    per_page: Decimal | None = attrs.field(default=None, converter=_usd)
    per_audio_minute: Decimal | None = attrs.field(default=None, converter=_usd)
    per_million_characters: Decimal | None = attrs.field(default=None, converter=_usd)
    per_request: Decimal | None = attrs.field(default=None, converter=_usd)

    def cost(self, usage: Usage) -> Decimal | None:
        """What ``usage`` costs in USD, exactly; None when a part that was used has no price.

        Audio is rounded up to a whole pico-USD (a minute's price need not divide by 60). Where pages or
        audio have a price and tokens have none, tokens are counted but not charged, as the providers do.
        """
        tokens = self.input is not None or self.output is not None or not self.is_open_ended
        cached = min(usage.cached_tokens, usage.input_tokens)
        total = Decimal(0)
        for count, price, unit in (
            ((usage.input_tokens - cached) * tokens, self.input, _MILLION),
            (cached * tokens, self.input if self.cached_input is None else self.cached_input, _MILLION),
            (usage.output_tokens * tokens, self.output, _MILLION),
            (usage.characters, self.per_million_characters, _MILLION),
            (usage.pages, self.per_page, _ONE),
            (usage.audio_seconds, self.per_audio_minute, _MINUTE),
            (usage.requests, self.per_request or _FREE, _ONE),
        ):
            if count:
                if price is None:
                    return None
                exact = count if isinstance(count, int) else Decimal(str(count))
                total = _EXACT.add(total, _EXACT.divide(_EXACT.multiply(price, exact), unit))
        rounded = total.quantize(_PICO, ROUND_CEILING, _EXACT)
        return total if total == rounded else rounded

    @property
    def is_open_ended(self) -> bool:
        """Whether something is charged that tokens do not bound: pages, audio or characters."""
        return (self.per_page, self.per_audio_minute, self.per_million_characters) != (None, None, None)


class PriceBook:
    """Prices by ``"provider/model"``: the user's over the built-in ones.

    Args:
        prices: Entries that are added to the built-in ones or replace them.
    """

    __slots__ = ("_prices",)

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        for name, price in (prices or {}).items():
            if not isinstance(price, Price):  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
                raise ConfigError(f"the price of {name} is {type(price).__name__}; pass a Price", field=name)
            if "/" not in name:
                raise ConfigError(f"{name!r} names no provider; write 'provider/{name}'", field=name)
        self._prices: dict[str, Price] = dict(prices or {})

    def find(self, provider: str, model: str) -> Price | None:
        """The price of a model, or None where it is unknown."""
        name = f"{provider}/{model}"
        found = self._prices.get(name)
        return built_in_prices().get(name) if found is None else found

    def names(self) -> tuple[str, ...]:
        """Every ``"provider/model"`` with a price, sorted."""
        return tuple(sorted({*self._prices, *built_in_prices()}))


@cache
def built_in_prices() -> dict[str, Price]:
    """The prices that ship with the package, read at first use; the file names its sources and date."""
    from importlib import resources  # noqa: PLC0415 # slow to import; needed by those who ask for a price

    text = resources.files(__package__ or "bifrost_core").joinpath("prices.json").read_bytes()
    table: dict[str, Any] = msgspec.json.decode(text)
    return {name: Price(**parts) for name, parts in table["prices"].items()}
