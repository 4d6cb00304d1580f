"""Memory is bounded: every map has its size, however many models, keys, sessions and callers there are."""

from __future__ import annotations

import pytest

from benchmarks.faults.soak import soak
from bifrost_core import Mistral, Router
from bifrost_core.balancing import LatencyWeighted
from bifrost_core.testing import FakeClock

LIMIT = 50  # in place of 10,000, so that a short run reaches it


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=False)
async def test_calls_that_have_nothing_in_common_leave_nothing_but_maps_of_their_size(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bifrost_core.deployments._MAX_DEPLOYMENTS", LIMIT)
    monkeypatch.setattr("bifrost_core.router.Health", _small(Router.__init__.__globals__["Health"]))
    monkeypatch.setattr("bifrost_core.router.RetryBudget", _small(Router.__init__.__globals__["RetryBudget"]))
    sizes: dict[str, int] = {}

    def look(router: Router) -> None:
        health, sender = router._health, router._sender
        sizes.update(
            states=len(health._states),
            traffic=len(health._traffic),
            opened=len(health._open),
            spent=len(router._machinery.budget._spent),
            deployments=len(router._deployments.live()),
            keys=len(list(router._deployments.keys_of("mistral"))),
            balanced=max(len(each.keys) for each in router._deployments.live()),
            running=len(router._running),
            lanes=len(sender._lanes),
            credentials=max(len(lane.credentials) for lane in sender._lanes.values()),
            limiters=max(len(lane.keys) for lane in sender._lanes.values()),
        )

    grown = await soak(2_500, warm_up=1_500, look=look)
    assert (grown.tasks, grown.descriptors) == (0, 0)
    assert grown.objects < 1_500  # less than one for each call, were anything kept of each
    assert sizes.pop("credentials") <= 1_024
    assert sizes.pop("keys") <= 4
    assert sizes.pop("balanced") <= 4
    assert sizes.pop("running") == sizes.pop("limiters") == 0
    assert sizes.pop("lanes") == 1
    assert sizes == {name: min(size, LIMIT) for name, size in sizes.items()}
    assert sizes["deployments"] == LIMIT


def _small(made: type) -> object:
    return lambda *arguments, **options: made(*arguments, **options, limit=LIMIT)


def test_what_was_tolerated_is_counted_under_a_bounded_number_of_names() -> None:
    reporter = Mistral("sk-0123456789").reporter
    for number in range(5_000):
        reporter.note(f"field {number}")
    reporter.note("field 7")
    assert len(reporter.counts) == 1_001
    assert (reporter.counts["field 7"], reporter.counts["other"]) == (2, 4_000)


def test_a_key_has_a_bounded_number_of_quotas() -> None:
    balancer = LatencyWeighted(clock=FakeClock())
    balancer.add("a")
    token = balancer.begin("a")
    for number in range(1_000):
        balancer.quota(token, f"made-up-{number}", 5, 10, 60)
    balancer.quota(token, "made-up-0", 4, 10, 60)
    quotas = balancer._keys["a"].quotas
    assert len(quotas) == 32
    assert quotas["made-up-0"].remaining == 4


def test_a_balancer_remembers_a_bounded_number_of_sessions() -> None:
    balancer = LatencyWeighted(clock=FakeClock())
    for key in "ab":
        balancer.add(key)

    class Asked:
        input_tokens = 0

        def __init__(self, session: str) -> None:
            self.session = session

    for number in range(12_000):
        balancer.pick(["a", "b"], Asked(f"s{number}"))
    assert len(balancer._sessions) <= 10_000
