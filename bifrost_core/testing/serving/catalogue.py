"""A model that a simulated service knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

__all__ = ["SimulatedModel"]


def _to_names(value: Iterable[str]) -> tuple[str, ...]:
    """Accept any iterable of names."""
    return tuple(value)


def _to_name_set(value: Iterable[str]) -> frozenset[str]:
    """Accept any iterable of names."""
    return frozenset(value)


@attrs.frozen
class SimulatedModel:
    """One model under all its names.

    Attributes:
        name: The canonical name.
        aliases: Other names that reach it; they share its rate limits.
        capabilities: What the model list says it can do; embedding models have none.
        context: Tokens of context.
        temperature: Default temperature, or None.
        deprecation: ISO time at which it stops working, or None.
        replacement: Name of the model to use instead, or None.
        targets: What a classifier decides: the labels of each target. Without any it has one target,
            ``category``, whose labels are the categories of moderation.
    """

    name: str
    aliases: tuple[str, ...] = attrs.field(default=(), converter=_to_names)
    capabilities: frozenset[str] = attrs.field(
        default=frozenset({"completion_chat", "function_calling"}), converter=_to_name_set
    )
    context: int = attrs.field(default=262_144, kw_only=True)
    temperature: float | None = attrs.field(default=0.3, kw_only=True)
    deprecation: str | None = attrs.field(default=None, kw_only=True)
    replacement: str | None = attrs.field(default=None, kw_only=True)
    targets: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]], kw_only=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The canonical name and the aliases."""
        return (self.name, *self.aliases)
