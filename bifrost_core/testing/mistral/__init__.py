"""Mistral's API on loopback, for tests, demonstrations and benchmarks without a network.

``python -m bifrost_core.testing.mistral --port 8080 --seed 7`` runs it on its own.
"""

from __future__ import annotations

from .catalogue import DEFAULT_MODELS, SimulatedModel
from .journal import KeyCounters, ServedPart, ServedRequest
from .laws import Fault, FaultKind, Latency, SimulatedKey
from .server import SimulatedMistral

__all__ = [
    "DEFAULT_MODELS",
    "Fault",
    "FaultKind",
    "KeyCounters",
    "Latency",
    "ServedPart",
    "ServedRequest",
    "SimulatedKey",
    "SimulatedMistral",
    "SimulatedModel",
]
