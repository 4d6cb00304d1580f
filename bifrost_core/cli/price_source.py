"""From the library ``genai-prices`` to the file of built-in prices: exact, or left out and said so.

Source:
    https://github.com/pydantic/genai-prices: prices per unit with dates from which they hold; of several
    periods the last that has begun counts.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Context, Decimal
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

import attrs
import msgspec

from bifrost_core.errors import ConfigError
from bifrost_core.prices import Price

from .price_corrections import CachedShare, Correction

__all__ = ["RULED", "Entries", "LibraryModel", "Made", "Period", "convert", "file_text", "installed", "make", "read"]

Entries = dict[str, dict[str, Any]]
Rules = dict[str, list[tuple[str, str, dict[str, Any] | None]]]

# The library's units: the field of ``Price``, and how many of ours are in one of theirs.
_UNITS: Final[Mapping[str, tuple[str, int]]] = {
    "input_mtok": ("input", 1),
    "output_mtok": ("output", 1),
    "cache_read_mtok": ("cached_input", 1),
    "cache_write_mtok": ("cache_write_input", 1),
    "cache_write_1h_mtok": ("long_cache_write_input", 1),
    "input_document_kpages": ("per_page", 1000),
    "input_annotated_document_kpages": ("per_annotated_page", 1000),
    "audio_hours": ("per_audio_minute", 60),
    "input_audio_hours": ("per_audio_minute", 60),
    "input_mchars": ("per_million_characters", 1),
    "requests_kcount": ("per_request", 1000),
}
# Units of which no usage tells how many were used; a model is not left out for them.
_UNCHARGED: Final[Mapping[str, str]] = {
    "storage_searches_kcount": "searches in stored files are not charged",
    "web_searches_kcount": "web searches are not charged",
}
RULED: Final = frozenset({"anthropic", "openai"})
"""Whose rules for names are right; Mistral's name models that are retired."""
_MICRO: Final = Decimal("1e-6")
_NOISE: Final = Decimal(2) ** -50  # relative: four units in the last place of a binary double
_EXACT: Final = Context(prec=60)


@attrs.frozen
class Period:
    """Prices from a day on.

    Attributes:
        start: The day; None: since ever.
        parts: The library's unit to a ``Decimal``, or to something that is no plain price.
        condition: What else decides, such as the time of day; ``""``: nothing.
    """

    start: datetime.date | None
    parts: Mapping[str, object]
    condition: str = ""


@attrs.frozen
class LibraryModel:
    """A model as the library has it.

    Attributes:
        names: Names that mean it and no other.
        periods: In the library's order.
        patterns: Rules that names are matched with, as kind and text; such names can not be listed.
        context: Tokens of its context; None: the library does not say.
    """

    names: tuple[str, ...]
    periods: tuple[Period, ...]
    patterns: tuple[tuple[str, str], ...] = ()
    context: int | None = None


@attrs.frozen
class Made:
    """A table of prices and what was not put into it.

    Attributes:
        prices: By ``"provider/model"``, fields of ``Price`` as text.
        notes: What was left out or corrected for nothing, a sentence each.
        rules: By provider, in the order in which they are tried: kind, text, and the price or None.
    """

    prices: Entries
    notes: tuple[str, ...]
    rules: Rules = attrs.field(factory=dict[str, list[tuple[str, str, dict[str, Any] | None]]])


# -- the library -----------------------------------------------------------------------------------


def installed(providers: Collection[str]) -> tuple[str, dict[str, list[LibraryModel]]]:
    """The name and version of the installed library, and its models of these providers.

    Raises:
        ConfigError: It is not installed, or has no such provider.
    """
    try:
        data = import_module("genai_prices.data")
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "genai_prices":
            raise
        raise ConfigError("genai-prices is not installed; run: pip install 'bifrost-core[prices]'") from None
    found = {provider.id: read(provider.models) for provider in data.providers if provider.id in providers}
    missing = sorted(set(providers) - set(found))
    if missing:
        raise ConfigError(f"genai-prices has no provider {', '.join(missing)}", field="provider")
    return f"genai-prices {version('genai-prices')}", found


def read(models: Sequence[Any]) -> list[LibraryModel]:
    """The library's model objects as plain values; a name belongs to the first model that it matches."""
    found: list[LibraryModel] = []
    for model in models:
        names, patterns = _matched(model.match)
        if model.match.is_match(model.id):
            names.add(model.id)
        mine = sorted(name for name in names if next(each for each in models if each.match.is_match(name)) is model)
        given: Sequence[Any] = (model,) if hasattr(model.prices, "__dict__") else model.prices  # one price, or a list
        periods = tuple(_period(getattr(each, "constraint", None), each.prices) for each in given)
        context = getattr(model, "context_window", None)
        found.append(LibraryModel(tuple(mine), periods, tuple(sorted(patterns)), context))
    return found


def _matched(clause: Any) -> tuple[set[str], set[tuple[str, str]]]:
    """The names that a rule lists, and the parts of it that list none."""
    if hasattr(clause, "equals"):
        return {clause.equals}, set()
    if not hasattr(clause, "or_"):
        return set(), {(kind, str(text)) for kind, text in _members(clause).items()}
    names: set[str] = set()
    patterns: set[tuple[str, str]] = set()
    for each in clause.or_:
        more_names, more_patterns = _matched(each)
        names |= more_names
        patterns |= more_patterns
    return names, patterns


def _members(value: object) -> dict[str, object]:
    return vars(value)


def _period(constraint: Any, prices: Any) -> Period:
    parts = {name: value for name, value in _members(prices).items() if value is not None}
    if constraint is None:
        return Period(None, parts)
    start = getattr(constraint, "start_date", None)
    if isinstance(start, datetime.date):
        return Period(start, parts)
    return Period(None, parts, condition=type(constraint).__name__)


# -- the table -------------------------------------------------------------------------------------


def make(
    library: Mapping[str, Iterable[LibraryModel]],
    day: datetime.date,
    corrections: Iterable[Correction] = (),
    cached_shares: Mapping[str, CachedShare] | None = None,
) -> Made:
    """The table of prices that hold on a day.

    Args:
        library: Models by provider.
        day: Decides between a model's periods.
        corrections: In the order in which they are made.
        cached_shares: By provider.

    Raises:
        ConfigError: A correction names a field or a model that is not there, or makes a wrong price.
    """
    prices: Entries = {}
    notes: list[str] = []
    targets: dict[str, list[tuple[str, str, str | dict[str, Any] | None]]] = {}
    for provider, models in library.items():
        listed = list(models)
        made = convert(provider, listed, day)
        prices.update(made.prices)
        notes += made.notes
        if provider in RULED:
            targets[provider] = _rules(provider, listed, made.prices, day)
    for correction in corrections:
        if not _correct(prices, correction):
            notes.append(f"{correction.model}: the correction of {correction.field} is needed no more")
    for name, parts in prices.items():
        share = (cached_shares or {}).get(name.partition("/")[0])
        if share is not None and "input" in parts and "cached_input" not in parts:
            parts["cached_input"] = _text(_EXACT.multiply(Decimal(parts["input"]), share.share))
    for name, parts in prices.items():
        try:
            Price(**parts)
        except (ConfigError, TypeError) as exc:
            raise ConfigError(f"{name}: {exc}", field=name) from None
    rules: Rules = {
        provider: [
            (kind, text, prices.get(target) if isinstance(target, str) else target) for kind, text, target in found
        ]
        for provider, found in targets.items()
    }
    return Made(dict(sorted(prices.items())), tuple(notes), rules)


def _rules(
    provider: str, models: Iterable[LibraryModel], prices: Entries, day: datetime.date
) -> list[tuple[str, str, str | dict[str, Any] | None]]:
    """How names that are not listed mean models: kind, text, and a listed name that has the price, or the price.

    Of a model without a usable price the listed names are here too: no rule of another may take them.
    """
    found: list[tuple[str, str, str | dict[str, Any] | None]] = []
    for model in models:
        target = f"{provider}/{model.names[0]}" if model.names else None
        is_priced = target in prices
        price = target if is_priced else None if model.names else _parts(model.periods, day)[0] or None
        if not is_priced and model.names:
            found += [("equals", name.lower(), None) for name in model.names]
        found += [(kind, text if kind == "regex" else text.lower(), price) for kind, text in model.patterns]
    return found


def convert(provider: str, models: Iterable[LibraryModel], day: datetime.date) -> Made:
    """A provider's prices on a day, without those that a ``Price`` can not say exactly."""
    prices: Entries = {}
    notes: list[str] = []
    for model in models:
        names = [f"{provider}/{name}" for name in model.names]
        shown = ", ".join(names)
        if provider not in RULED:
            notes += [f"{provider}: names that match {kind} {text!r} are not listed" for kind, text in model.patterns]
        parts, problem = _parts(model.periods, day)
        if not names:
            continue
        if problem:
            notes.append(f"{shown}: left out, {problem}")
            continue
        notes += [
            f"{shown}: other prices from {period.start} on"
            for period in model.periods
            if period.start is not None and period.start > day
        ]
        notes += [
            f"{shown}: {why}"
            for unit, why in _UNCHARGED.items()
            if any(unit in period.parts for period in model.periods)
        ]
        prices.update({name: dict(parts) for name in names})
    return Made(prices, tuple(notes))


def _parts(periods: Sequence[Period], day: datetime.date) -> tuple[dict[str, Any], str]:
    """The fields of a price, or why there is none."""
    if any(period.condition for period in periods):
        return {}, f"its price depends on a {next(period.condition for period in periods if period.condition)}"
    begun = [period for period in periods if period.start is None or period.start <= day]
    if not begun:
        return {}, "no price has begun"
    parts: dict[str, Any] = {}
    far: dict[str, Any] = {}  # beyond a number of input tokens
    starts: set[int] = set()
    for unit, value in sorted(begun[-1].parts.items()):
        if unit in _UNCHARGED:
            continue
        if unit not in _UNITS:
            return {}, f"it has a price per {unit}"
        near, beyond = value, value
        tiers: Any = getattr(value, "tiers", None)
        if tiers is not None and len(tiers) == 1:
            near, beyond = getattr(value, "base", None), tiers[0].price
            starts.add(tiers[0].start)
        if not isinstance(near, Decimal) or not isinstance(beyond, Decimal):
            return {}, f"its price per {unit} is no single number ({type(value).__name__})"
        field, size = _UNITS[unit]
        for told, amount in ((parts, near), (far, beyond)):
            price = _plain(amount, size)
            if price is None:
                return {}, f"its price per {unit} ({amount}) is not whole pico-USD"
            if told.setdefault(field, price) != price:
                return {}, f"it has two prices for {field}"
    if len(starts) > 1:
        return {}, "its prices change at more than one number of tokens"
    if starts:
        parts |= {"long_context": far, "long_context_from": starts.pop()}
    return parts, "" if parts else "it has no price"


def _plain(value: Decimal, size: int) -> str | None:
    """A price in our unit; the noise of binary numbers is taken off, anything else must be exact."""
    if not value.is_finite() or value < 0:
        return None
    near = value.quantize(_MICRO, context=_EXACT)
    if value != near:
        if near == 0 or abs(_EXACT.subtract(value, near)) > _EXACT.multiply(near, _NOISE):
            return None
        value = near
    price = _EXACT.divide(value, Decimal(size))
    return _text(price) if price == price.quantize(_MICRO, context=_EXACT) else None


def _text(value: Decimal) -> str:
    return f"{value.normalize(_EXACT):f}"


def _correct(prices: Entries, correction: Correction) -> bool:
    """Make one correction; whether it changed anything."""
    model, field, value = correction.model, correction.field, correction.value
    before = prices.get(model)
    if field == "entry":
        prices.pop(model, None)
    elif field == "same_as":
        if value is None or value not in prices:
            raise ConfigError(f"the correction of {model} names {value}, which has no price", field=model)
        prices[model] = dict(prices[value])
    else:
        if field not in attrs.fields_dict(Price):
            raise ConfigError(f"the correction of {model} names {field!r}, which no price has", field=model)
        parts = dict(before or {})
        if value is None:
            parts.pop(field, None)
        else:
            parts[field] = value
        prices[model] = parts
    return prices.get(model) != before


def file_text(prices: Entries, rules: Rules | None = None, *, day: datetime.date, source: str) -> str:
    """The file of built-in prices, a line per model and per rule; the same for the same prices."""
    encoder = msgspec.json.Encoder(order="sorted")
    known = rules or {}
    digest = hashlib.sha256(encoder.encode([prices, known] if known else prices)).hexdigest()[:8]
    head = {
        "about": "USD: per million tokens, page, minute of audio, million characters, request. "
        "Made by 'bifrost prices refresh'; corrections with their sources in bifrost_core/cli/price_corrections.py.",
        "version": f"{day}.{digest}",
        "date": str(day),
        "source": source,
    }
    lines = [f' "{name}": {encoder.encode(value).decode()},' for name, value in head.items()]
    rows = [f'  "{name}": {encoder.encode(prices[name]).decode()}' for name in sorted(prices)]
    ruled = [
        f'  "{provider}": [\n' + ",\n".join(f"   {encoder.encode(rule).decode()}" for rule in known[provider]) + "\n  ]"
        for provider in sorted(known)
        if known[provider]
    ]
    table = [' "prices": {', ",\n".join(rows), " },", ' "rules": {', *([",\n".join(ruled)] if ruled else []), " }"]
    return "\n".join(["{", *lines, *table, "}", ""])
