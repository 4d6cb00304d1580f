"""Where the price library is wrong or silent: what is right, why, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Final

import attrs

__all__ = ["CACHED_SHARES", "CONTEXT_ALIASES", "CORRECTIONS", "CachedShare", "Correction"]

_PRICING: Final = "https://docs.mistral.ai/inference/pricing"
_MODELS: Final = "https://docs.mistral.ai/getting-started/models"
_LIBRARY: Final = "https://github.com/pydantic/genai-prices/blob/main/prices/providers/mistral.yml"
_OPENAI: Final = "https://platform.openai.com/docs/pricing"
_OPENAI_MODERATION: Final = "https://platform.openai.com/docs/guides/moderation"
_DOCS: Final = "2026-08-21"  # the release of the documentation that was read


@attrs.frozen
class Correction:
    """One change to what the library says.

    Attributes:
        model: ``"provider/model"``.
        field: A field of ``Price``; ``same_as`` (the value is the model whose price it has); ``entry``
            (the value is None: the model has no price that can be known).
        value: USD as text; None takes the field out.
        reason: What the library has instead, and why that is wrong.
        source: Public address of what is right.
        date: The day of the source, ``YYYY-MM-DD``.
    """

    model: str
    field: str
    value: str | None
    reason: str
    source: str
    date: str = _DOCS


@attrs.frozen
class CachedShare:
    """What part of the input price a provider takes for cached tokens, where the library names no price."""

    share: Decimal
    source: str
    date: str = _DOCS


CACHED_SHARES: Final[Mapping[str, CachedShare]] = MappingProxyType(
    {"mistral": CachedShare(Decimal("0.1"), _PRICING)},
)

CORRECTIONS: Final[tuple[Correction, ...]] = (
    Correction(
        "mistral/mistral-large-latest",
        "same_as",
        "mistral/mistral-large-2512",
        "the library has the price of Large 2, four times as much; the name means Large 3",
        _MODELS,
    ),
    Correction(
        "mistral/ministral-3b-latest",
        "same_as",
        "mistral/ministral-3b-2512",
        "the library does not have the name",
        _MODELS,
    ),
    Correction(
        "mistral/ministral-14b-latest",
        "same_as",
        "mistral/ministral-14b-2512",
        "the library does not have the name",
        _MODELS,
    ),
    Correction(
        "mistral/devstral-latest",
        "same_as",
        "mistral/devstral-2512",
        "the library does not have the name; deprecated since 2026-05-22",
        _MODELS,
    ),
    Correction(
        "mistral/devstral-medium-latest",
        "same_as",
        "mistral/devstral-2512",
        "the library does not have the name; the card of the retired model has this price",
        _MODELS,
    ),
    Correction(
        "mistral/magistral-small-latest",
        "same_as",
        "mistral/mistral-small-2603",
        "the library has the retired Magistral; the model list has the name as an alias of Small 4",
        _MODELS,
    ),
    Correction(
        "mistral/magistral-medium-latest",
        "input",
        "2",
        "the library has a prefix and not the name; last price on the card, retired 2026-07-31",
        _MODELS,
    ),
    Correction("mistral/magistral-medium-latest", "output", "5", "as for its input", _MODELS),
    Correction(
        "mistral/mistral-embed",
        "output",
        None,
        "the library has a price for output; embeddings have no output tokens",
        _PRICING,
    ),
    Correction("mistral/mistral-embed-2312", "output", None, "as mistral-embed", _PRICING),
    Correction(
        "mistral/voxtral-mini-tts-latest",
        "per_million_characters",
        "16",
        "the library does not have the model; speech is paid by the characters of its input",
        _PRICING,
    ),
    Correction("mistral/zai-glm-5-2", "input", "1.4", "the library does not have the model", _PRICING),
    Correction("mistral/zai-glm-5-2", "cached_input", "0.14", "the library does not have the model", _PRICING),
    Correction("mistral/zai-glm-5-2", "output", "4.4", "the library does not have the model", _PRICING),
    Correction(
        "mistral/mistral-small-24b-instruct-2501",
        "entry",
        None,
        "a name of the open weights with another host's price, as the library itself remarks",
        _LIBRARY,
        "2026-11-25",
    ),
    Correction(
        "mistral/mistral-small-3.1-24b-instruct",
        "entry",
        None,
        "a name of the open weights with another host's price, as the library itself remarks",
        _LIBRARY,
        "2026-11-25",
    ),
    *(
        Correction(
            f"openai/{model}",
            "per_request",
            "0",
            "the library has the model without a price; the endpoint is free",
            _OPENAI_MODERATION,
            "2026-11-25",
        )
        for model in ("omni-moderation-latest", "omni-moderation-2024-09-26")
    ),
    *(
        Correction(
            f"openai/{model}",
            "entry",
            None,
            "the library has the price of its text tokens alone; those of sound cost many times as much",
            _OPENAI,
            "2026-11-25",
        )
        for model in ("gpt-4o-audio-preview", "gpt-4o-mini-audio-preview")
    ),
    *(
        Correction(
            f"openai/{model}",
            "entry",
            None,
            "open weights, which other hosts serve at this price; OpenAI's own API does not",
            _OPENAI,
            "2026-11-25",
        )
        for model in ("gpt-oss-120b", "gpt-oss-20b", "gpt-oss-safeguard-20b")
    ),
)

CONTEXT_ALIASES: Final[tuple[Correction, ...]] = (
    *(
        Correction(
            f"mistral/{alias}",
            "same_as",
            f"mistral/{model}",
            "the library has the name apart, for what it cost before it meant this model, and without a context",
            _MODELS,
        )
        for alias, model in (
            ("mistral-small-latest", "mistral-small-2603"),
            ("mistral-medium-latest", "mistral-medium-3-5"),
            ("ministral-8b-latest", "ministral-8b-2512"),
            ("mistral-ocr-latest", "mistral-ocr-4-1"),
        )
    ),
)
"""Names that have the context of a model, beside those that have its price too."""
