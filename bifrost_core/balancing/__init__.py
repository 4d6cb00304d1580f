"""Choosing a key: one protocol, the default balancer and four plain ones to compare it with."""

from __future__ import annotations

from .base import Balancer, BlockReason, Candidates, KeySnapshot, Outcome
from .latency_weighted import LatencyWeighted
from .simple import LeastBusy, LowestLatency, RoundRobin, WeightedRandom

__all__ = [
    "Balancer",
    "BlockReason",
    "Candidates",
    "KeySnapshot",
    "LatencyWeighted",
    "LeastBusy",
    "LowestLatency",
    "Outcome",
    "RoundRobin",
    "WeightedRandom",
]
