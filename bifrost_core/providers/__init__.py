"""Adapters: one module per provider, values in and values out."""

from __future__ import annotations

from .anthropic import Anthropic
from .mistral import Mistral
from .openai import OpenAI
from .openai_compatible import OpenAICompatible

__all__ = ["Anthropic", "Mistral", "OpenAI", "OpenAICompatible"]
