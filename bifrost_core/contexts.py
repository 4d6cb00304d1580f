"""How long the contexts of models are: what is known of them, and None where nothing is.

Apart from the prices: a length is no price, a ``PriceBook`` of one's own says nothing about it, and it is looked up
only when a prompt was too long for one model and others could be asked.
"""

from __future__ import annotations

from functools import cache, lru_cache

import msgspec

from .name_rules import rule_matches

__all__ = ["context_length"]


class _Table(msgspec.Struct, frozen=True):
    contexts: dict[str, int]  # by "provider/model"
    rules: dict[str, list[tuple[str, str, int | None]]]  # by provider, for other names: the first that matches counts


@lru_cache(maxsize=1_024)  # names come from callers
def context_length(provider: str, model: str) -> int | None:
    """How many tokens a prompt and its answer may have together; None where that is not known.

    Args:
        provider: The provider's name.
        model: The model's name there; dated names of a model may be known by a rule.

    Source:
        https://github.com/pydantic/genai-prices (``context_window``); ``bifrost prices refresh`` makes the file.
    """
    table = _built_in()
    found = table.contexts.get(f"{provider}/{model}")
    if found is not None:
        return found
    rules = table.rules.get(provider, ())
    return next((length for kind, text, length in rules if rule_matches(kind, text, model)), None)


@cache
def _built_in() -> _Table:
    """The lengths that ship with the package, read at first use."""
    from importlib import resources  # noqa: PLC0415 # slow to import; needed when a prompt was too long

    text = resources.files(__package__ or "bifrost_core").joinpath("contexts.json").read_bytes()
    return msgspec.json.decode(text, type=_Table)
