"""The maps that remember models, sessions and failures: how much they keep when they are full, and that they end there."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sized
from typing import Any, Final

import attrs

from bifrost_core import Key, Mistral, RetryPolicy, Router
from bifrost_core.balancing import LatencyWeighted
from bifrost_core.health import Health
from bifrost_core.kinds import Kind
from bifrost_core.retries import RetryBudget
from bifrost_core.testing import FakeClock
from bifrost_core.types import Route

from .weighing import in_use

__all__ = ["MAPS", "Full", "weigh"]


@attrs.frozen
class Full:
    """A map after more was put into it than it keeps.

    Attributes:
        name: What it remembers.
        bound: How many at most.
        offered: How many were put in.
        kept: How many it has then.
        weight: Bytes in use by all of it.
    """

    name: str
    bound: int
    offered: int
    kept: int
    weight: float


@attrs.frozen
class _Map:
    name: str
    bound: int
    make: Callable[[], Any]
    put: Callable[[Any, int], None]
    kept: Callable[[Any], Sized]


def _router() -> Router:
    return Router([Mistral([Key(f"sk-simulated-{number}", id=f"k{number}") for number in range(3)])])


def _health() -> Health:
    return Health(FakeClock(), random.Random(7))


def _fail(health: Health, number: int) -> None:
    ticket = health.begin(Route("mistral", f"model-{number}", "k0"))
    health.end(ticket, Kind.RATE_LIMITED, status=429)


def _succeed(health: Health, number: int) -> None:
    health.end(health.begin(Route("mistral", f"model-{number}", "k0")), None)


def _balancer() -> LatencyWeighted:
    balancer = LatencyWeighted(clock=FakeClock(), rng=random.Random(7))
    for key in "abc":
        balancer.add(key)
    return balancer


@attrs.define
class _Asked:
    session: str
    input_tokens: int = 0
    attempt: int = 0


def _name(router: Router, number: int) -> None:
    router._catalog.resolve(f"mistral/model-{number}")


def _find(router: Router, number: int) -> None:
    router._deployments.find("mistral", f"model-{number}")


MAPS: Final = (
    _Map("deployments (models), of 3 keys each", 10_000, _router, _find, lambda router: router._deployments.live()),
    _Map("names of models", 4_096, _router, _name, lambda router: router._catalog._known),
    _Map(
        "sessions of a deployment",
        10_000,
        _balancer,
        lambda balancer, number: balancer.pick(["a", "b", "c"], _Asked(f"session-{number}")),
        lambda balancer: balancer._sessions,
    ),
    _Map("states of health, all of them open", 10_000, _health, _fail, lambda health: health._states),
    _Map("counts of attempts", 10_000, _health, _succeed, lambda health: health._traffic),
    _Map(
        "retry budgets",
        10_000,
        lambda: RetryBudget(RetryPolicy()),
        lambda budget, number: budget.take(f"mistral/model-{number}", 1.0),
        lambda budget: budget._spent,
    ),
    _Map(
        "oddities of a provider's answers",
        1_001,
        lambda: Mistral("sk-simulated-1").reporter,
        lambda reporter, number: reporter.note(f"field {number}"),
        lambda reporter: reporter.counts,
    ),
)


def weigh(names: Collection[str] = (), *, share: float = 1.02) -> list[Full]:
    """Fill maps.

    Args:
        names: Which; all without any.
        share: With so many times as many as one keeps.
    """
    rows: list[Full] = []
    for each in MAPS:
        if names and each.name not in names:
            continue
        made = each.make()
        base = in_use()
        offered = int(each.bound * share)
        for number in range(offered):
            each.put(made, number)
        rows.append(Full(each.name, each.bound, offered, len(each.kept(made)), in_use() - base))
    return rows
