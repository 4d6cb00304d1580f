"""What usage costs: exact decimals, unknown is None and never 0."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

import attrs
import msgspec

from ._errors import ConfigError
from .types import Usage

__all__ = ["Price", "PriceBook"]

_MILLION = Decimal(1_000_000)
_MINUTE = Decimal(60)
_PICO = Decimal("1e-12")


def _usd(value: Decimal | str | int | None) -> Decimal | None:
    """Exact decimals only: a float has already lost the price that was meant."""
    if value is None:
        return None
    if isinstance(value, float):
        raise ConfigError(f"a price is a float ({value!r}); write it as a string: '{value}'", field="price")
    try:
        amount = Decimal(value)
    except ArithmeticError:
        raise ConfigError(f"a price is not a number: {value!r}", field="price") from None
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"a price must be a number >= 0, not {value!r}", field="price")
    if amount != (amount / _MILLION).quantize(_PICO) * _MILLION:
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
        """What ``usage`` costs in USD, exactly; None when a part that was used has no price."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        total = Decimal(0)
        for count, price in (
            (usage.input_tokens - cached, self.input),
            (cached, self.input if self.cached_input is None else self.cached_input),
            (usage.output_tokens, self.output),
            (usage.characters, self.per_million_characters),
        ):
            if count:
                if price is None:
                    return None
                total += price * count / _MILLION
        if usage.pages:
            if self.per_page is None:
                return None
            total += self.per_page * usage.pages
        if usage.audio_seconds:
            if self.per_audio_minute is None:
                return None
            total += self.per_audio_minute * Decimal(str(usage.audio_seconds)) / _MINUTE
        if self.per_request is not None:
            total += self.per_request * usage.requests
        return total


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
    text = resources.files(__package__ or "bifrost_core").joinpath("prices.json").read_bytes()
    table: dict[str, Any] = msgspec.json.decode(text)
    return {name: Price(**parts) for name, parts in table["prices"].items()}
