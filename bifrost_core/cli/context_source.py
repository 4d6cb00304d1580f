"""From the library ``genai-prices`` to the file of the lengths of contexts.

Source:
    https://github.com/pydantic/genai-prices: ``context_window``, tokens of prompt and answer together.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping

import attrs
import msgspec

from .price_corrections import Correction
from .price_source import RULED, Entries, LibraryModel

__all__ = ["Contexts", "contexts_text", "make_contexts"]

Rules = dict[str, list[tuple[str, str, int | None]]]


@attrs.frozen
class Contexts:
    """A table of lengths and what was not put into it.

    Attributes:
        lengths: Tokens by ``"provider/model"``.
        rules: By provider, in the order in which they are tried: kind, text, and the tokens or None.
        notes: What was left out, a sentence each.
    """

    lengths: dict[str, int]
    rules: Rules
    notes: tuple[str, ...]


def make_contexts(
    library: Mapping[str, Iterable[LibraryModel]], prices: Entries, corrections: Iterable[Correction] = ()
) -> Contexts:
    """The table of all lengths that can be relied on.

    A length up to which a model has one price, and another beyond, is not that of its context: a longer one can be
    asked for.

    Args:
        library: Models by provider.
        prices: Made of the same library.
        corrections: Of these those that tell which model a name means (``same_as``).
    """
    lengths: dict[str, int] = {}
    rules: Rules = {}
    notes: list[str] = []
    for provider, models in library.items():
        listed: list[tuple[str, str, int | None]] = []
        for model in models:
            names = [f"{provider}/{name}" for name in model.names]
            length = model.context
            if length is not None and any(length <= prices.get(name, {}).get("long_context_from", 0) for name in names):
                notes.append(f"{', '.join(names)}: a context of {length} left out, there is a price beyond it")
                length = None
            if length is not None:
                lengths.update(dict.fromkeys(names, length))
            elif provider in RULED:  # no rule of another may take them
                listed += [("equals", name.lower(), None) for name in model.names]
            listed += [(kind, text if kind == "regex" else text.lower(), length) for kind, text in model.patterns]
        if provider in RULED:
            rules[provider] = listed
    for correction in corrections:
        if correction.field == "same_as" and correction.value in lengths:
            lengths[correction.model] = lengths[correction.value]
    return Contexts(dict(sorted(lengths.items())), rules, tuple(notes))


def contexts_text(made: Contexts, *, day: datetime.date, source: str) -> str:
    """The file of the lengths of contexts, a line per model and per rule; the same for the same lengths."""
    encode = msgspec.json.Encoder().encode
    head = {
        "about": "Tokens of prompt and answer together. Made by 'bifrost prices refresh'.",
        "date": str(day),
        "source": source,
    }
    lines = [f' "{name}": {encode(value).decode()},' for name, value in head.items()]
    rows = [f"  {encode(name).decode()}: {length}" for name, length in made.lengths.items()]
    ruled = [
        f'  "{provider}": [\n' + ",\n".join(f"   {encode(rule).decode()}" for rule in made.rules[provider]) + "\n  ]"
        for provider in sorted(made.rules)
        if made.rules[provider]
    ]
    table = [' "contexts": {', *([",\n".join(rows)] if rows else []), " },"]
    table += [' "rules": {', *([",\n".join(ruled)] if ruled else []), " }"]
    return "\n".join(["{", *lines, *table, "}", ""])
