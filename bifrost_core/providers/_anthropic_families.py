"""What Claude's models differ in, as far as a request has to be written differently; by the beginning of their names.

A name that no row covers is taken for a newer model: it thinks unless told otherwise, takes no prefill, and
nobody knows its greatest output.

Source:
    https://platform.claude.com/docs/en/about-claude/models/overview (greatest output),
    https://platform.claude.com/docs/en/build-with-claude/thinking and
    https://platform.claude.com/docs/en/build-with-claude/effort (who thinks when, and how it is steered),
    https://platform.claude.com/docs/en/api/errors (prefill is not supported from Claude 4.6 on),
    https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages.
"""

from __future__ import annotations

import functools
from typing import Final, Literal

import attrs

__all__ = ["DEFAULT_OUTPUT", "Family", "family_of"]

DEFAULT_OUTPUT: Final = 4_096
"""Output limit that is sent for a model whose greatest is not known: every model has at least that."""


@attrs.frozen
class Family:
    """Models that take the same requests.

    Attributes:
        output: Their greatest ``max_tokens``; None where it is not known.
        thinking: Whether they think unasked: ``always``, ``on`` (it can be switched off), ``off`` (it can be
            switched on), or ``budget`` (only within a number of tokens, which the request has to name).
        quiet: The ``thinking.type`` that switches it off.
        effort: Whether they take ``output_config.effort``.
        prefill: Whether an answer can go on from a last assistant message.
        late_system: Whether system messages may stand inside the conversation.
    """

    output: int | None
    thinking: Literal["always", "on", "off", "budget"] = "always"
    quiet: str = "disabled"
    effort: bool = True
    prefill: bool = False
    late_system: bool = True


_NEWER: Final = Family(None, "on")
_OLD: Final = Family(64_000, "budget", effort=False, prefill=True, late_system=False)
_FAMILIES: Final = {
    "claude-fable-5": Family(128_000),
    "claude-mythos-5": Family(128_000),
    "claude-mythos-preview": Family(128_000, late_system=False),
    "claude-opus-5-5": Family(128_000),
    "claude-opus-5": Family(128_000, "on"),
    "claude-sonnet-5-5": Family(128_000, "on", quiet="between_tools"),
    "claude-sonnet-5": Family(128_000, "on", late_system=False),
    "claude-haiku-5-5": Family(128_000, "on"),
    "claude-opus-4-8": Family(128_000, "off"),
    "claude-opus-4-7": Family(128_000, "off", late_system=False),
    "claude-opus-4-6": Family(128_000, "off", late_system=False),
    "claude-sonnet-4-6": Family(128_000, "off", late_system=False),
    "claude-opus-4-5": attrs.evolve(_OLD, effort=True),
    "claude-sonnet-4-5": _OLD,
    "claude-haiku-4-5": _OLD,
    "claude-opus-4-1": attrs.evolve(_OLD, output=32_000),
    "claude-opus-4-0": attrs.evolve(_OLD, output=32_000),
    "claude-opus-4-20250514": attrs.evolve(_OLD, output=32_000),
    "claude-sonnet-4-0": _OLD,
    "claude-sonnet-4-20250514": _OLD,
    "claude-3-7-sonnet": _OLD,
    "claude-3-5": attrs.evolve(_OLD, output=8_192),
    "claude-3": attrs.evolve(_OLD, output=4_096),
}


@functools.lru_cache(maxsize=256)
def family_of(model: str) -> Family:
    """The family of a model; of several rows the one with the longest name."""
    rows = [name for name in _FAMILIES if model == name or model.startswith((f"{name}-", f"{name}@", f"{name}:"))]
    return _FAMILIES[max(rows, key=len)] if rows else _NEWER
