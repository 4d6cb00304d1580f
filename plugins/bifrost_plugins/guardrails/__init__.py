"""Guardrails: rules on what goes to a provider and on what comes back, streams included.

Patterns find words, data and credentials, also in disguise. They do not solve prompt injection: whoever
can write to a model can ask it in words that no pattern knows.
"""

from __future__ import annotations

from .plugin import GuardrailPlugin, plugin
from .rules import Custom, JsonSchema, Length, Literals, Pii, Regex, Rule, Secrets, Topics
from .verdicts import Verdict, verdicts

__all__ = [
    "Custom",
    "GuardrailPlugin",
    "JsonSchema",
    "Length",
    "Literals",
    "Pii",
    "Regex",
    "Rule",
    "Secrets",
    "Topics",
    "Verdict",
    "plugin",
    "verdicts",
]
