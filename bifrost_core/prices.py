"""What usage costs: exact decimals, unknown is None and never 0."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Context, Decimal, DecimalException
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

import attrs
import msgspec

from ._errors import ConfigError
from .name_rules import rule_matches
from .types import Usage

__all__ = ["Price", "PriceBook", "PriceRule", "PriceTable", "built_in_table"]

_MILLION = Decimal(1_000_000)
_MINUTE = Decimal(60)
_ONE = Decimal(1)
_FREE = Decimal(0)
_PICO = Decimal("1e-12")
_MICRO = Decimal("1e-6")
_MOST = Decimal(1_000_000_000)
_EXACT = Context(prec=50)  # our own: a host may have lowered the precision of its thread's


def _exact(value: Decimal | str | int, field: str) -> Decimal:
    """Exact decimals only: a float has already lost the number that was meant."""
    if isinstance(value, float):
        raise ConfigError(f"a {field} is a float ({value!r}); write it as a string: '{value}'", field=field)
    try:
        amount = Decimal(value)
    except (DecimalException, TypeError, ValueError):
        raise ConfigError(f"a {field} is not a number: {value!r}", field=field) from None
    if not amount.is_finite() or not 0 <= amount <= _MOST:
        raise ConfigError(f"a {field} must be a number from 0 to {_MOST:f}, not {value!r}", field=field)
    if amount != amount.quantize(_MICRO, context=_EXACT):
        raise ConfigError(f"a {field} has at most 6 decimals, not {value!r}", field=field)
    return amount


def _usd(value: Decimal | str | int | None) -> Decimal | None:
    return None if value is None else _exact(value, "price")


def _nested(value: Any) -> Any:
    return Price(**cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value


@attrs.frozen(kw_only=True)
class Price:
    """The price of a model in USD; each part ``Decimal``, ``str`` or ``int``, None where unknown.

    Attributes:
        input: Per million input tokens.
        output: Per million output tokens, reasoning included.
        cached_input: Per million input tokens read from the provider's cache; None: as ``input``. The
            built-in prices name it wherever the provider grants a discount.
        cache_write_input: Per million input tokens written to the provider's cache; None: as ``input``.
        long_cache_write_input: Per million of those written to be kept for long (with Anthropic, an hour); None: as
            ``cache_write_input``.
        per_page: Per page.
        per_annotated_page: Per page that was annotated too, in place of ``per_page``.
        per_audio_minute: Per minute of audio.
        per_million_characters: Per million characters.
        per_request: Per request; None: nothing.
        long_context_from: Input tokens beyond which ``long_context`` holds for the whole request; None: never.
        long_context: The price then, a ``Price`` or its parts as a mapping.

    Raises:
        ConfigError: A float, a negative number, or more than six decimals (a token would cost a
            fraction of a pico-USD).
    """

    input: Decimal | None = attrs.field(default=None, converter=_usd)
    output: Decimal | None = attrs.field(default=None, converter=_usd)
    cached_input: Decimal | None = attrs.field(default=None, converter=_usd)
    cache_write_input: Decimal | None = attrs.field(default=None, converter=_usd)
    long_cache_write_input: Decimal | None = attrs.field(default=None, converter=_usd)
    per_page: Decimal | None = attrs.field(default=None, converter=_usd)
    per_annotated_page: Decimal | None = attrs.field(default=None, converter=_usd)
    per_audio_minute: Decimal | None = attrs.field(default=None, converter=_usd)
    per_million_characters: Decimal | None = attrs.field(default=None, converter=_usd)
    per_request: Decimal | None = attrs.field(default=None, converter=_usd)
    long_context_from: int | None = None
    long_context: Price | None = attrs.field(default=None, converter=_nested)

    def __attrs_post_init__(self) -> None:
        if (self.long_context is None) is not (self.long_context_from is None):
            raise ConfigError("long_context and long_context_from belong together; give both", field="long_context")
        if self.long_context_from is not None and not (
            type(self.long_context_from) is int and self.long_context_from >= 0
        ):
            raise ConfigError("long_context_from is a number of tokens, 0 or more", field="long_context_from")
        if self.long_context is not None and (
            not isinstance(self.long_context, Price)  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
            or self.long_context.long_context is not None
        ):
            raise ConfigError("long_context is a Price without a further one", field="long_context")

    def cost(self, usage: Usage) -> Decimal | None:
        """What ``usage`` costs in USD, exactly; None when a part that was used has no price.

        Tokens read from a cache and tokens written to one are parts of the input tokens, and each is
        charged once, at its own price. A model that has no price for tokens at all and reads pages,
        audio or characters is paid by those: the tokens that are counted beside them are not charged,
        as with OCR and transcription. Tokens alone are never free that way, nor is an answered
        request of which nothing was counted.

        Audio is rounded up to a whole pico-USD (a minute's price need not divide by 60).

        Source:
            https://docs.mistral.ai/inference/pricing: units per model, cached input; Voxtral Small is
            paid by tokens and by minutes, the transcription models by minutes alone.
            https://platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing: writes for five
            minutes cost 1.25 times the input, those for an hour twice as much as it.
            https://platform.openai.com/docs/pricing: a prompt beyond the short context is paid at the
            long one's price as a whole, its output too.
        """
        if self.long_context is not None and usage.input_tokens > (self.long_context_from or 0):
            return self.long_context.cost(usage)
        cached = min(usage.cached_tokens, usage.input_tokens)
        written = min(usage.cache_write_tokens, usage.input_tokens - cached)
        kept_long = min(usage.long_cache_write_tokens, written)
        write_price = self.input if self.cache_write_input is None else self.cache_write_input
        annotated = min(usage.annotated_pages, usage.pages)
        media = (
            (usage.characters, self.per_million_characters, _MILLION),
            (usage.pages - annotated, self.per_page, _ONE),
            (annotated, self.per_annotated_page, _ONE),
            (usage.audio_seconds, self.per_audio_minute, _MINUTE),
        )
        tokens = (
            (usage.input_tokens - cached - written, self.input, _MILLION),
            (cached, self.input if self.cached_input is None else self.cached_input, _MILLION),
            (written - kept_long, write_price, _MILLION),
            (kept_long, write_price if self.long_cache_write_input is None else self.long_cache_write_input, _MILLION),
            (usage.output_tokens, self.output, _MILLION),
        )
        counted = any(count for count, _, _ in media)
        if not counted and not any(count for count, _, _ in tokens) and usage.requests and self.per_request is None:
            return None
        by_tokens = (self.input, self.output, self.cached_input, self.cache_write_input, self.long_cache_write_input)
        paid_by_media = counted and all(part is None for part in by_tokens)
        total = Decimal(0)
        for count, price, unit in (
            *media,
            *(() if paid_by_media else tokens),
            (usage.requests, self.per_request or _FREE, _ONE),
        ):
            if count:
                if price is None:
                    return None
                exact = count if isinstance(count, int) else Decimal(str(count))
                total = _EXACT.add(total, _EXACT.divide(_EXACT.multiply(price, exact), unit))
        rounded = total.quantize(_PICO, ROUND_CEILING, _EXACT)
        return total if total == rounded else rounded

    def scaled(self, factor: Decimal | str | int) -> Price:
        """The price with every part multiplied: half for a batch, ``"1.1"`` for a regional host.

        Args:
            factor: At least 0.

        Raises:
            ConfigError: The factor is no exact number, or a part would have more than six decimals.
        """
        by = _exact(factor, "factor")
        parts: dict[str, Any] = attrs.asdict(self, recurse=False)
        for name, part in parts.items():
            if isinstance(part, Decimal):
                parts[name] = _EXACT.multiply(part, by).normalize(_EXACT)
            elif isinstance(part, Price):
                parts[name] = part.scaled(factor)
        return Price(**parts)


class PriceBook:
    """Prices by ``"provider/model"``: the user's over the built-in ones.

    Args:
        prices: Entries that are added to the built-in ones or replace them.

    Raises:
        ConfigError: An entry is no ``Price``, or its name has no provider; names the entry.
    """

    __slots__ = ("_prices",)

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        for name, price in (prices or {}).items():
            if not isinstance(price, Price):  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
                raise ConfigError(f"the price of {name} is {type(price).__name__}; pass a Price", field=name)
            if "/" not in name:
                raise ConfigError(f"{name!r} names no provider; write 'provider/{name}'", field=name)
        self._prices: dict[str, Price] = dict(prices or {})

    @property
    def version(self) -> str:
        """Which built-in prices these are: their date and a digest; a hold of a budget keeps it."""
        return built_in_table().version

    def find(self, provider: str, model: str) -> Price | None:
        """The price of a model, or None where it is unknown.

        Of the built-in prices a name that is not listed may match a rule, as dated names of a model do.
        """
        found = self._prices.get(f"{provider}/{model}")
        return _built_in(provider, model) if found is None else found

    def names(self) -> tuple[str, ...]:
        """Every ``"provider/model"`` with a price, sorted."""
        return tuple(sorted({*self._prices, *built_in_table().prices}))


class PriceRule(NamedTuple):
    """The price of all names that match.

    Attributes:
        kind: ``equals``, ``starts_with``, ``contains`` or ``regex``.
        text: What names are compared with; in lower case but for ``regex``.
        price: None: it is known that none can be told.
    """

    kind: str
    text: str
    price: Price | None

    def matches(self, model: str) -> bool:
        """Whether a name is one of them."""
        return rule_matches(self.kind, self.text, model)


@attrs.frozen
class PriceTable:
    """The prices that ship with the package.

    Attributes:
        version: The date and a digest of the prices.
        date: The day on which they held, ``YYYY-MM-DD``.
        source: The library and its version that they were read from.
        prices: By ``"provider/model"``.
        rules: By provider, for names that are not in ``prices``: the first that matches counts.
    """

    version: str
    date: str
    source: str
    prices: Mapping[str, Price]
    rules: Mapping[str, tuple[PriceRule, ...]]


@cache
def built_in_table() -> PriceTable:
    """The prices that ship with the package, read at first use; ``bifrost prices refresh`` makes the file."""
    from importlib import resources  # noqa: PLC0415 # slow to import; needed by those who ask for a price

    text = resources.files(__package__ or "bifrost_core").joinpath("prices.json").read_bytes()
    table: dict[str, Any] = msgspec.json.decode(text)
    prices = {name: Price(**parts) for name, parts in table["prices"].items()}
    rules = {
        provider: tuple(
            PriceRule(kind, text, None if price is None else Price(**price)) for kind, text, price in listed
        )
        for provider, listed in table["rules"].items()
    }
    return PriceTable(table["version"], table["date"], table["source"], prices, rules)


@lru_cache(maxsize=1_024)  # names come from callers
def _built_in(provider: str, model: str) -> Price | None:
    table = built_in_table()
    found = table.prices.get(f"{provider}/{model}")
    if found is not None:
        return found
    return next((rule.price for rule in table.rules.get(provider, ()) if rule.matches(model)), None)
