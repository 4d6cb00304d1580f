"""By which rules a name means a model: for tables of what is known of models whose names are too many to list."""

from __future__ import annotations

from re import search

__all__ = ["rule_matches"]


def rule_matches(kind: str, text: str, model: str) -> bool:
    """Whether a rule is about a model of that name.

    Args:
        kind: ``equals``, ``starts_with``, ``contains`` or ``regex``.
        text: What the name is compared with; in lower case but for ``regex``.
        model: The name, in any case.

    Source:
        https://github.com/pydantic/genai-prices (the rules by which names mean models).
    """
    if kind == "regex":
        return search(text, model) is not None
    model = model.lower()
    if kind == "starts_with":
        return model.startswith(text)
    return text in model if kind == "contains" else text == model
