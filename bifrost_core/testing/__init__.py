"""Stand-ins for the world outside: clocks that tests move and providers that cost nothing.

Public and for users' own tests, not only for this library's.
"""

from __future__ import annotations

from .anthropic import SimulatedAnthropic
from .clocks import FakeClock, LoopClock
from .mistral import (
    Fault,
    FaultKind,
    KeyCounters,
    Latency,
    Outlook,
    ServedPart,
    ServedRequest,
    SimulatedKey,
    SimulatedMistral,
    SimulatedModel,
)
from .openai import SimulatedOpenAI
from .plugins import check_plugin
from .simulated import Simulated

__all__ = [
    "FakeClock",
    "Fault",
    "FaultKind",
    "KeyCounters",
    "Latency",
    "LoopClock",
    "Outlook",
    "ServedPart",
    "ServedRequest",
    "Simulated",
    "SimulatedAnthropic",
    "SimulatedKey",
    "SimulatedMistral",
    "SimulatedModel",
    "SimulatedOpenAI",
    "check_plugin",
]
