"""What the guardrails found out about a call: for logs and metrics, never with the text that matched."""

from __future__ import annotations

import attrs

from bifrost_core import Call

from .vault import Vault

__all__ = ["State", "Verdict", "verdicts"]


@attrs.frozen
class Verdict:
    """One rule's finding on one side of a call.

    Attributes:
        rule: Name of the rule.
        side: ``"input"`` or ``"output"``.
        action: What was done: ``"block"``, ``"redact"`` or ``"flag"``.
        label: What was found (``"email"``).
        count: How often, at least 1.
        plugin: Name of the plugin.
    """

    rule: str
    side: str
    action: str
    label: str
    count: int = 1
    plugin: str = ""


@attrs.define(eq=False)
class State:
    """What a plugin keeps for one call.

    Attributes:
        vault: What was taken out of the request and may come back.
        verdicts: So far.
        is_judged: Whether the whole answer has been judged.
    """

    vault: Vault
    verdicts: list[Verdict] = attrs.field(factory=list[Verdict])
    is_judged: bool = False


def verdicts(call: Call) -> tuple[Verdict, ...]:
    """What all guardrails have found in a call so far, in order; for other plugins' ``bifrost_call_finished``."""
    found: list[Verdict] = []
    for state in call.state.values():
        if isinstance(state, State):
            found += state.verdicts
    return tuple(found)
