"""Anthropic's API on loopback, for tests, demonstrations and benchmarks without a network.

``python -m bifrost_core.testing.anthropic --port 8080 --seed 7`` runs it on its own.

=============================== ======================================================================
``/v1/…``                       what is made up
=============================== ======================================================================
``messages``                    words, or what ``answer`` says; JSON that fits ``output_config.format``;
                                a call where ``tool_choice`` demands one; thinking, with a signature that
                                the service knows again, where it is enabled or adaptive
``messages/count_tokens``       a quarter of the bytes of tools, system and messages, as JSON
``models``                      one entry for each model, page by page
=============================== ======================================================================

Beginnings of prompts that ``cache_control`` marks are kept, for as long as it says, from 1,024 tokens on. Message threads
(beta) are kept for five minutes.
Server tools, MCP servers and containers are accepted and never used.
"""

from __future__ import annotations

from .catalogue import DEFAULT_MODELS
from .server import SimulatedAnthropic

__all__ = ["DEFAULT_MODELS", "SimulatedAnthropic"]
