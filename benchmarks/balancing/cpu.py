"""What choosing costs: microseconds of CPU per pick and per attempt, without a Router."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from bifrost_core import Balancer
from bifrost_core.testing import FakeClock

from .choosers import find_balancer

__all__ = ["cpu_table", "microseconds"]

_COUNTS: Final = (4, 10)
_ROUNDS, _PICKS = 15, 2000


class _Request:
    """What the Router tells a balancer of a request."""

    session = None
    input_tokens = 300
    attempt = 0


def cpu_table(names: Sequence[str], *, rounds: int = _ROUNDS, picks: int = _PICKS) -> str:
    """A row per balancer and number of keys: best and median of the rounds, interleaved."""
    cases = {(name, count): _prepare(name, count) for name in names for count in _COUNTS}
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, work in cases.items():
            seen[case].append(work(picks))
    lines = [
        "| balancer | keys | pick us, best | median | whole attempt us, best | median |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for (name, count), pairs in seen.items():
        pick, whole = zip(*pairs, strict=True)
        lines.append(f"| {name} | {count} | {_two(pick)} | {_two(whole)} |")
    return "\n".join(lines)


def microseconds(name: str, count: int, *, rounds: int = _ROUNDS, picks: int = _PICKS) -> float:
    """Best of the rounds for one pick among ``count`` keys in use."""
    work = _prepare(name, count)
    return min(work(picks)[0] for _ in range(rounds))


def _two(values: Iterable[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[0]:.2f} | {statistics.median(ordered):.2f}"


def _prepare(name: str, count: int) -> Callable[[int], tuple[float, float]]:
    """A pool in use: every key has answered, failed once and has a few attempts in flight."""
    clock, rng = FakeClock(), random.Random(1)
    factory: Any = find_balancer(name)
    arguments = {"clock": clock, "rng": random.Random(2)}
    try:
        balancer: Balancer = factory(**arguments)
    except TypeError:
        balancer = factory()
    ids = [f"key-{number}" for number in range(count)]
    for key_id in ids:
        balancer.add(key_id)
    for key_id in ids:
        for _ in range(20):
            attempt = balancer.begin(key_id)
            clock.advance(0.01)
            balancer.end(attempt, "ok", rng.uniform(1.0, 3.0), output_tokens=100)
        balancer.end(balancer.begin(key_id), "error", 0.1)
        for _ in range(3):
            balancer.begin(key_id)

    def work(picks: int) -> tuple[float, float]:
        """Microseconds of a pick, and of pick, begin and end together."""
        request = _Request()
        began = time.process_time()
        for _ in range(picks):
            balancer.pick(ids, request)
        middle = time.process_time()
        for _ in range(picks):
            balancer.end(balancer.begin(balancer.pick(ids, request)), "ok", 2.0, output_tokens=100)
        return (middle - began) / picks * 1e6, (time.process_time() - middle) / picks * 1e6

    return work
