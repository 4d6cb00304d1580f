"""Fault by fault: what closes, what the balancer is told, where the call goes, and what that counts.

One table, written from the failure taxonomy; the code has to satisfy it. The world of each row: ``small``
and ``large`` at one provider with the keys k1 and k2 of one quota group and k3 of another; the fault
happens on ``small`` with k1.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs
import pytest

from bifrost_core.health import Health
from bifrost_core.kinds import Kind, Step, outcome_of
from bifrost_core.retries import Failure, Plan, RetryBudget, RetryPolicy
from bifrost_core.testing import FakeClock
from bifrost_core.types import Route

GROUPS = {"k1": "g1", "k2": "g1", "k3": "g2"}
SMALL = tuple(Route("mistral", "small", key, quota_group=group) for key, group in GROUPS.items())
LARGE = tuple(Route("mistral", "large", key, quota_group=group) for key, group in GROUPS.items())
ELSEWHERE = (Route("openai", "mini", "k1"),)

# which routes a scope holds
CLOSED = {
    "nothing": set[str](),
    "key": {"small/k1", "large/k1"},
    "route": {"small/k1"},
    "quota": {"small/k1", "small/k2"},
    "spend": {"small/k1", "small/k2", "large/k1", "large/k2"},
    "deployment": {"small/k1", "small/k2", "small/k3"},
    "provider": {"small/k1", "small/k2", "small/k3", "large/k1", "large/k2", "large/k3"},
}

HOUR = 3600.0
BREAKER = "breaker"


@attrs.frozen
class Row:
    """One fault and everything that follows from it.

    Attributes:
        kind: The fault.
        status: HTTP status that it is seen as.
        closes: The scope that is closed.
        seconds: For how long, (least, most), or "breaker": after five in a row, for 5 s.
        balancer: What the balancer is told.
        rich: Next step with every other key and deployment at hand.
        lone: Next step without another key, with another deployment.
        last: Next step with neither.
        counts: What ``rich`` adds to the attempts of (the call, the deployment).
        wait: Seconds that the provider asked for.
        how: Further arguments of ``Health.end``.
        seen: Further facts of the failure.
        acts_as: The kind that it is acted on as, where that is another.
    """

    kind: str
    status: int | None
    closes: str
    seconds: tuple[float, float] | str | None
    balancer: str
    rich: str | None
    lone: str | None
    last: str | None
    counts: tuple[int, int]
    wait: float | None = None
    how: Mapping[str, bool] = attrs.field(factory=dict[str, bool])
    seen: Mapping[str, object] = attrs.field(factory=dict[str, object])
    acts_as: str | None = None


REUSED = {"reused": True}
DELIVERED = {"delivered": True}
ON = (1, 0)  # the next deployment's own first attempt: one of the call's, none of this deployment's
SAME = (1, 1)
FREE = (0, 0)
NONE = (0, 0)

# fmt: off
TABLE = {
    # the caller's
    "400":                 Row("invalid_request", 400, "nothing", None, "client", None, None, None, NONE),
    "too long":            Row("context_too_long", 400, "nothing", None, "client", "deployment", "deployment", None, ON),
    "413":                 Row("request_too_large", 413, "nothing", None, "client", None, None, None, NONE),
    "policy code":         Row("content_filtered", 403, "nothing", None, "client", None, None, None, NONE),
    "409":                 Row("conflict", 409, "nothing", None, "client", "same", "same", "same", SAME),
    # ours at the provider
    "401":                 Row("auth", 401, "key", (300, 300), "auth", "key", "deployment", None, FREE),
    "402":                 Row("payment", 402, "spend", (HOUR, HOUR), "auth", "group", "deployment", None, FREE),
    "402, wait 2 h":       Row("payment", 402, "spend", (7200, 7200), "auth", "group", "deployment", None, FREE, wait=7200),
    "403":                 Row("permission", 403, "route", (600, 600), "auth", "key", "deployment", None, FREE),
    "404":                 Row("model_not_found", 404, "deployment", (300, 300), "client", "deployment", "deployment", None, ON),
    "no credentials":      Row("no_credentials", None, "nothing", None, "client", None, None, None, NONE),
    # limits and capacity
    "429":                 Row("rate_limited", 429, "quota", (0.8, 1.2), "rate_limit", "group", "deployment", None, (1, 0)),
    "429, wait 0":         Row("rate_limited", 429, "quota", (0.8, 1.2), "rate_limit", "group", "deployment", None, (1, 0), wait=0.0),
    "429, wait 20":        Row("rate_limited", 429, "quota", (20, 20.25), "rate_limit", "group", "deployment", None, (1, 0), wait=20),
    "429, wait 0.5":       Row("rate_limited", 429, "quota", (0.5, 0.55), "rate_limit", "group", "deployment", None, (1, 0), wait=0.5),
    "429, wait 2 h":       Row("rate_limited", 429, "quota", (7200, 7200.25), "rate_limit", "group", "deployment", None, (1, 0),
                               wait=7200, acts_as="quota_exhausted"),
    "429, limit 0":        Row("quota_exhausted", 429, "quota", (HOUR, HOUR), "rate_limit", "group", "deployment", None, (1, 0)),
    "429, month used up":  Row("quota_exhausted", 429, "spend", (HOUR, HOUR), "rate_limit", "group", "deployment", None, (1, 0),
                               how={"every_model": True}),
    "429, quota, wait 60": Row("quota_exhausted", 429, "quota", (60, 60.25), "rate_limit", "group", "deployment", None, (1, 0), wait=60),
    "429, wait of days":   Row("rate_limited", 429, "quota", (86400, 86400.25), "rate_limit", "group", "deployment", None, (1, 0),
                               wait=9e5, acts_as="quota_exhausted"),
    "3505":                Row("model_overloaded", 429, "deployment", (5, 5), "client", "deployment", "deployment", None, ON),
    "529":                 Row("model_overloaded", 529, "deployment", (5, 5), "client", "deployment", "deployment", None, ON),
    "529, wait 2":         Row("model_overloaded", 529, "deployment", (2, 2.2), "rate_limit", "deployment", "deployment", None, ON, wait=2),
    # the provider, or the way to it
    "500":                 Row("server_error", 500, "deployment", BREAKER, "error", "same", "same", "same", SAME),
    "502":                 Row("server_error", 502, "provider", BREAKER, "error", "same", "same", "same", SAME),
    "503":                 Row("server_error", 503, "provider", BREAKER, "error", "same", "same", "same", SAME),
    "503, wait 7":         Row("server_error", 503, "provider", (7, 7.25), "rate_limit", "deployment", "deployment", None, ON, wait=7),
    "500, wait 7":         Row("server_error", 500, "deployment", BREAKER, "error", "same", "same", "same", SAME, wait=7),
    "504":                 Row("server_timeout", 504, "provider", BREAKER, "error", "same", "same", "same", SAME),
    "refused":             Row("connect_error", None, "provider", BREAKER, "error", "same", "same", "same", SAME, seen={"sent": False}),
    "untrusted":           Row("connect_error", None, "provider", (300, 300), "error", "deployment", "deployment", None, ON,
                               how={"insecure": True}, seen={"sent": False}),
    "lost":                Row("connection_lost", None, "provider", BREAKER, "error", "same", "same", "same", SAME),
    "lost, reused":        Row("connection_lost", None, "provider", BREAKER, "error", "fresh", "fresh", "fresh", FREE, seen=REUSED),
    "silence":             Row("read_timeout", None, "deployment", BREAKER, "error", "same", "same", "same", SAME),
    "not HTTP":            Row("protocol_error", None, "provider", BREAKER, "error", "deployment", "deployment", None, ON),
    "301":                 Row("redirect", 301, "provider", (300, 300), "error", "deployment", "deployment", None, ON),
    "garbled":             Row("bad_response", 200, "deployment", BREAKER, "error", "deployment", "deployment", "same", ON),
    "HTML":                Row("bad_response", 200, "provider", BREAKER, "error", "deployment", "deployment", "same", ON,
                               how={"html": True}),
    "too large":           Row("response_too_large", 200, "deployment", BREAKER, "error", "deployment", "deployment", None, ON),
    "too large, late":     Row("response_too_large", 200, "deployment", BREAKER, "error", None, None, None, NONE, seen=DELIVERED),
    # streams
    "cut":                 Row("stream_truncated", 200, "deployment", BREAKER, "error", "same", "same", "same", SAME),
    "cut, late":           Row("stream_truncated", 200, "deployment", BREAKER, "error", None, None, None, NONE, seen=DELIVERED),
    "error event":         Row("stream_error", 200, "deployment", BREAKER, "error", "same", "same", "same", SAME),
    "malformed":           Row("stream_malformed", 200, "deployment", BREAKER, "error", "same", "same", "same", SAME),
    "malformed, late":     Row("stream_malformed", 200, "deployment", BREAKER, "error", None, None, None, NONE, seen=DELIVERED),
    "stalled":             Row("stream_stalled", 200, "deployment", BREAKER, "error", None, None, None, NONE, seen=DELIVERED),
    # the call itself, and policy
    "deadline":            Row("deadline_exceeded", None, "nothing", None, "client", None, None, None, NONE),
    "cancelled":           Row("cancelled", None, "nothing", None, "client", None, None, None, NONE),
    "no route":            Row("no_route", None, "nothing", None, "client", None, None, None, NONE),
    "unauthenticated":     Row("unauthenticated", None, "nothing", None, "client", None, None, None, NONE),
    "refused by policy":   Row("refused", None, "nothing", None, "client", None, None, None, NONE),
    "budget":              Row("budget_exceeded", None, "nothing", None, "client", None, None, None, NONE),
    "ledger down":         Row("budget_unavailable", None, "nothing", None, "client", None, None, None, NONE),
    "own limit":           Row("rate_exceeded", None, "nothing", None, "client", None, None, None, NONE),
    "guardrail":           Row("guardrail_blocked", None, "nothing", None, "client", None, None, None, NONE),
    "plugin":              Row("plugin_error", None, "nothing", None, "client", None, None, None, NONE),
    "usage unreadable":    Row("bad_usage", 200, "nothing", None, "ok", None, None, None, NONE),
}
# fmt: on

ROWS = pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in TABLE.items()])


def fault(health: Health, row: Row, times: int = 1) -> Kind:
    kind: Kind | None = None
    for _ in range(times):
        ticket = health.begin(SMALL[0])
        kind = health.end(ticket, Kind(row.kind), status=row.status, retry_after=row.wait, **row.how)
    assert kind is not None
    return kind


def closed(health: Health) -> set[str]:
    everywhere = (*SMALL, *LARGE, *ELSEWHERE)
    awake = set(health.usable(everywhere))
    return {f"{route.model}/{route.key_id}" for route in everywhere if route not in awake}


def test_every_kind_has_a_row() -> None:
    assert {row.kind for row in TABLE.values()} == set(Kind)


@ROWS
def test_a_fault_closes_its_scope_and_nothing_else(row: Row) -> None:
    health = Health(FakeClock(), random.Random(7))
    if row.seconds == BREAKER:
        fault(health, row, times=4)
        assert closed(health) == set()
        fault(health, row)
        assert closed(health) == CLOSED[row.closes]
        assert 5.0 <= health.opens_in(SMALL[0]) <= 5.5
        return
    assert fault(health, row) == Kind(row.acts_as or row.kind)
    assert closed(health) == CLOSED[row.closes]
    if isinstance(row.seconds, tuple):
        least, most = row.seconds
        assert least <= health.opens_in(SMALL[0]) <= most
        assert health.reason(SMALL[0]) == (row.acts_as or row.kind)


@ROWS
def test_a_fault_tells_the_balancer(row: Row) -> None:
    assert outcome_of(Kind(row.kind), row.status, row.wait) == row.balancer


@ROWS
@pytest.mark.parametrize("choice", ["rich", "lone", "last"])
def test_after_a_fault_the_call_goes_on(row: Row, choice: str) -> None:
    health = Health(FakeClock(), random.Random(7))
    policy = RetryPolicy()
    plan = Plan(policy, RetryBudget(policy), random.Random(7))
    assert plan.enter("mistral/small")
    kind = fault(health, row)
    routes = SMALL if choice == "rich" else SMALL[:1]
    move = plan.next(
        Failure(SMALL[0], kind, status=row.status, retry_after=row.wait, **row.seen),  # type: ignore[arg-type] # facts by name
        usable=health.usable(routes),
        more=choice != "last",
    )
    expected = getattr(row, choice)
    assert move.step == (None if expected is None else Step(expected))


@ROWS
def test_a_step_counts(row: Row) -> None:
    health = Health(FakeClock(), random.Random(7))
    policy = RetryPolicy()
    budget = RetryBudget(policy)
    plan = Plan(policy, budget, random.Random(7))
    plan.enter("mistral/small")
    kind = fault(health, row)
    move = plan.next(
        Failure(SMALL[0], kind, status=row.status, retry_after=row.wait, **row.seen),  # type: ignore[arg-type] # facts by name
        usable=health.usable(SMALL),
        more=True,
    )
    if move.step is Step.DEPLOYMENT:
        plan.enter("openai/mini")
    total, here = row.counts
    assert plan.attempts == 1 + total
    assert plan.may_enter("mistral/small") == (here == 0)  # two counted attempts on one deployment are the limit
    is_timeout = row.kind in ("read_timeout", "server_timeout")
    repeated = move.step is Step.SAME or (move.step is Step.GROUP and total == 1)
    assert budget.left("mistral/small") == 10 - (0 if not repeated else 2 if is_timeout else 1)


def test_the_code_inside_a_streams_error_event_decides() -> None:
    health = Health(FakeClock(), random.Random(7))
    ticket = health.begin(SMALL[0])
    assert health.end(ticket, Kind.RATE_LIMITED, status=200, retry_after=3.0) is Kind.RATE_LIMITED
    assert closed(health) == CLOSED["quota"]


def test_the_fifth_429_in_a_row_without_a_time_is_a_quota() -> None:
    clock = FakeClock()
    health = Health(clock, random.Random(7))
    row = TABLE["429"]
    waits = []
    for _ in range(4):
        assert fault(health, row) is Kind.RATE_LIMITED
        waits.append(health.opens_in(SMALL[0]))
        clock.advance(waits[-1])
    assert [0.8 <= wait / 2**n <= 1.2 for n, wait in enumerate(waits)] == [True] * 4
    assert fault(health, row) is Kind.QUOTA_EXHAUSTED
    assert health.opens_in(SMALL[0]) == pytest.approx(HOUR)
    clock.advance(HOUR)
    assert fault(health, row) is Kind.QUOTA_EXHAUSTED  # one probe an hour
    assert health.opens_in(SMALL[0]) == pytest.approx(HOUR)
