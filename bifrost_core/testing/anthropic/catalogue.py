"""The models the simulated Anthropic service knows.

Source:
    https://platform.claude.com/docs/en/about-claude/models/overview.
"""

from __future__ import annotations

import re
from typing import Final

from bifrost_core.testing.serving.catalogue import SimulatedModel

__all__ = ["CAPABILITIES", "DEFAULT_MODELS", "takes_prefill"]

CAPABILITIES: Final = ("completion_chat", "function_calling", "reasoning", "vision")
_VERSION: Final = re.compile(r"claude-(?P<line>[a-z]+)-(?P<major>\d)(?:-(?P<minor>\d))?(?!\d)")


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


def takes_prefill(model: str) -> bool:
    """Whether a conversation may end with an assistant's turn: not with Opus from 4.6 on, nor with models from 5 on.

    Source:
        https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-6 for Opus; for later models
        it is taken to have stayed so.
    """
    found = _VERSION.match(model)
    if found is None:
        return True
    version = int(found["major"]), int(found["minor"] or 0)
    return version < ((4, 6) if found["line"] == "opus" else (5, 0))
