"""Stand-ins for the world outside: clocks that tests move and providers that cost nothing.

Public and for users' own tests, not only for this library's.
"""

from __future__ import annotations

from .clocks import FakeClock
from .mistral import (
    Fault,
    FaultKind,
    KeyCounters,
    Latency,
    ServedRequest,
    SimulatedKey,
    SimulatedMistral,
    SimulatedModel,
)

__all__ = [
    "FakeClock",
    "Fault",
    "FaultKind",
    "KeyCounters",
    "Latency",
    "ServedRequest",
    "SimulatedKey",
    "SimulatedMistral",
    "SimulatedModel",
]
