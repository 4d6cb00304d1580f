"""The models the simulated Anthropic service knows.

Source:
    https://platform.claude.com/docs/en/about-claude/models/overview.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from bifrost_core.testing.serving.catalogue import SimulatedModel

__all__ = ["CAPABILITIES", "DEFAULT_MODELS", "Traits", "traits_of"]

CAPABILITIES: Final = ("completion_chat", "function_calling", "reasoning", "vision")
_VERSION: Final = re.compile(r"claude-(?P<line>[a-z]+)-(?P<major>\d)(?:-(?P<minor>\d))?(?!\d)")
_LATE_SYSTEM: Final = {"opus": (4, 8), "sonnet": (5, 5), "haiku": (5, 5)}  # the first versions that take it


def _model(name: str, *aliases: str, context: int = 200_000) -> SimulatedModel:
    return SimulatedModel(name, aliases, CAPABILITIES, context=context)


DEFAULT_MODELS: tuple[SimulatedModel, ...] = (
    _model("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
    _model("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
    _model("claude-opus-4-5-20251101", "claude-opus-4-5"),
    _model("claude-sonnet-4-6", context=1_000_000),
    _model("claude-opus-4-6", context=1_000_000),
    _model("claude-opus-4-8", context=1_000_000),
    _model("claude-haiku-5-5"),
    _model("claude-sonnet-5-5", context=1_000_000),
    _model("claude-opus-5-5", context=1_000_000),
)


@attrs.frozen(kw_only=True)
class Traits:
    """What a model takes that others do not.

    Attributes:
        output: Greatest ``max_tokens``.
        prefill: A conversation that ends with an assistant's turn: until 4.5.
        sampling: Values of ``temperature``, ``top_p`` and ``top_k`` other than the defaults: until 4.6.
        budget: ``thinking`` of the type ``enabled``: until 4.6.
        adaptive: ``thinking`` of the type ``adaptive``: from 4.6 on.
        thinks: Whether it thinks unasked: from 5 on.
        shows: Whether its thinking is shown where the request does not say so: until 4.6.
        late_system: System messages inside the conversation.

    Source:
        https://platform.claude.com/docs/en/api/errors (prefill), .../docs/en/build-with-claude/adaptive-thinking,
        .../docs/en/api/migration-2026-10-21 (sampling), .../docs/en/about-claude/models/overview (output) and
        .../docs/en/build-with-claude/mid-conversation-system-messages.
    """

    output: int = 128_000
    prefill: bool = True
    sampling: bool = True
    budget: bool = True
    adaptive: bool = True
    thinks: bool = False
    shows: bool = True
    late_system: bool = True


def traits_of(model: str) -> Traits:
    """What a model takes, by its name; one whose name has no version takes everything."""
    found = _VERSION.match(model)
    if found is None:
        return Traits()
    version = int(found["major"]), int(found["minor"] or 0)
    return Traits(
        output=128_000 if version >= (4, 6) else 64_000,
        prefill=version < (4, 6),
        sampling=version < (4, 7),
        budget=version < (4, 7),
        adaptive=version >= (4, 6),
        thinks=version >= (5, 0),
        shows=version < (4, 7),
        late_system=version >= _LATE_SYSTEM.get(found["line"], (5, 0)),
    )
