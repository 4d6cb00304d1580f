"""OpenAI's API on loopback, for tests, demonstrations and benchmarks without a network.

``python -m bifrost_core.testing.openai --port 8080 --seed 7`` runs it on its own.
"""

from __future__ import annotations

from .catalogue import DEFAULT_MODELS
from .server import SimulatedOpenAI

__all__ = ["DEFAULT_MODELS", "SimulatedOpenAI"]
