"""What a call may still try, decided without a clock, a loop or a network."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core._errors import ConfigError
from bifrost_core.health import Health
from bifrost_core.kinds import FACTS, Kind, Scope, Step
from bifrost_core.retries import MIN_ATTEMPT, Failure, Move, Plan, RetryBudget, RetryPolicy
from bifrost_core.testing import FakeClock
from bifrost_core.types import Route

A, B, C = (Route("mistral", "small", key) for key in "abc")
ORG1, ORG2 = (Route("mistral", "small", key, quota_group="org") for key in "de")
LARGE_A = Route("mistral", "large", "a")
SMALL, LARGE = "mistral/small", "mistral/large"


class Longest(random.Random):
    """Draws the upper end of every range, so that backoffs show their bound."""

    def uniform(self, a: float, b: float) -> float:
        return b


def make(effects: Any = "none", rng: random.Random | None = None, **policy: Any) -> tuple[Plan, RetryBudget]:
    limits = RetryPolicy(**policy)
    budget = RetryBudget(limits)
    plan = Plan(limits, budget, rng or random.Random(5), effects=effects)
    assert plan.enter(SMALL)
    return plan, budget


def fail(
    plan: Plan,
    kind: Kind,
    route: Route = A,
    usable: Sequence[Route] = (A,),
    *,
    more: bool = False,
    time_left: float = 60.0,
    **facts: Any,
) -> Move:
    return plan.next(Failure(route, kind, **facts), usable=usable, more=more, time_left=time_left)


# the policy


def test_the_defaults_are_the_contracts() -> None:
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.max_attempts_per_deployment, policy.max_wait) == (4, 2, 10)
    assert (policy.backoff, policy.backoff_max, policy.budget, policy.budget_ratio) == (0.25, 8, 10, 0.2)
    assert policy.hedge is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 2.5),
        ("max_attempts", True),
        ("max_attempts_per_deployment", 0),
        ("max_wait", -1),
        ("max_wait", "10"),
        ("backoff", float("nan")),
        ("backoff_max", float("inf")),
        ("budget", -0.1),
        ("budget_ratio", None),
        ("hedge", "p95"),
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_names_the_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field if field != "hedge" else "hedg") as caught:
        RetryPolicy(**{field: value})
    assert caught.value.field == field


# the budget


def test_a_budget_starts_whole_and_never_holds_more() -> None:
    budget = RetryBudget(RetryPolicy(budget=3))
    budget.put(SMALL)
    assert [budget.take(SMALL, 1) for _ in range(4)] == [True, True, True, False]
    assert budget.left(LARGE) == 3


def test_five_calls_earn_one_repeat() -> None:
    budget = RetryBudget(RetryPolicy(budget=1))
    assert budget.take(SMALL, 1)
    for _ in range(4):
        budget.put(SMALL)
    assert not budget.take(SMALL, 1)
    budget.put(SMALL)
    assert budget.take(SMALL, 1)


def test_a_whole_budget_takes_no_memory_and_others_are_bounded() -> None:
    budget = RetryBudget(RetryPolicy(), limit=100)
    for n in range(1000):
        budget.take(f"mistral/{n}", 1)
    assert len(budget._spent) == 100
    for n in range(1000):
        budget.put(f"mistral/{n}", 1)
    assert not budget._spent


def test_a_call_puts_in_once_for_each_deployment() -> None:
    policy = RetryPolicy()
    budget = RetryBudget(policy)
    budget.take(SMALL, 5)
    plan = Plan(policy, budget, random.Random(5))
    plan.enter(SMALL)
    assert budget.left(SMALL) == pytest.approx(5.2)
    fail(plan, Kind.SERVER_ERROR)
    assert budget.left(SMALL) == pytest.approx(4.2)


@pytest.mark.parametrize(
    ("kind", "left"),
    [(Kind.SERVER_ERROR, 9), (Kind.READ_TIMEOUT, 8), (Kind.SERVER_TIMEOUT, 8)],
    ids=str,
)
def test_a_repeat_takes_one_token_and_two_after_a_timeout(kind: Kind, left: float) -> None:
    plan, budget = make()
    assert fail(plan, kind).step is Step.SAME
    assert budget.left(SMALL) == left


def test_without_tokens_there_is_no_repeat_but_the_next_deployment() -> None:
    plan, budget = make()
    budget.take(SMALL, 9.5)
    assert fail(plan, Kind.SERVER_ERROR, more=True).step is Step.DEPLOYMENT
    assert plan.enter(LARGE)
    assert budget.left(SMALL) == 0.5
    assert budget.left(LARGE) == 10


def test_a_timeout_needs_two_tokens() -> None:
    plan, budget = make()
    budget.take(SMALL, 9)
    assert fail(plan, Kind.READ_TIMEOUT).step is None


# the counts


def test_two_attempts_on_one_deployment_are_the_limit() -> None:
    plan, _ = make()
    assert fail(plan, Kind.SERVER_ERROR).step is Step.SAME
    assert fail(plan, Kind.SERVER_ERROR).step is None
    assert plan.attempts == 2


def test_four_attempts_in_all_are_the_limit() -> None:
    plan, _ = make()
    fail(plan, Kind.SERVER_ERROR, more=True)
    assert fail(plan, Kind.SERVER_ERROR, more=True).step is Step.DEPLOYMENT
    assert plan.enter(LARGE)
    assert fail(plan, Kind.SERVER_ERROR, LARGE_A, (LARGE_A,), more=True).step is Step.SAME
    assert fail(plan, Kind.SERVER_ERROR, LARGE_A, (LARGE_A,), more=True) == Move(None)
    assert plan.attempts == 4
    assert not plan.enter("openai/mini")
    assert plan.wait(1.0) is None


def test_rejected_keys_are_rotated_outside_the_counts_each_once() -> None:
    keys = [Route("mistral", "small", f"k{n}") for n in range(12)]
    plan, budget = make()
    asked = [keys[0]]
    while (move := fail(plan, Kind.AUTH, asked[-1], keys)).step is Step.KEY:
        asked.append(move.routes[0])
    assert asked == keys
    assert move.step is None
    assert plan.attempts == 1
    assert budget.left(SMALL) == 10


def test_a_rotated_attempt_may_be_repeated_like_a_first_one() -> None:
    plan, _ = make()
    assert fail(plan, Kind.AUTH, A, (B,)).step is Step.KEY
    move = fail(plan, Kind.SERVER_ERROR, B, (A, B))
    assert move.step is Step.SAME
    assert move.routes == (B,)  # never again the rejected one, though the health of routes might admit it
    assert plan.attempts == 2


@pytest.mark.parametrize("kind", [Kind.AUTH, Kind.PERMISSION, Kind.PAYMENT], ids=str)
def test_a_rejected_key_is_no_candidate_again(kind: Kind) -> None:
    plan, _ = make()
    fail(plan, kind, A, (A, B))
    assert plan.candidates((A, B)) == (B,)
    assert plan.candidates((A,)) == ()
    assert plan.candidates((LARGE_A,)) == ((LARGE_A,) if kind is Kind.PERMISSION else ())


def test_a_payment_failure_leaves_its_whole_group_out() -> None:
    plan, budget = make()
    move = fail(plan, Kind.PAYMENT, ORG1, (ORG1, ORG2, C))
    assert (move.step, move.routes) == (Step.GROUP, (C,))
    assert plan.candidates((ORG1, ORG2, C)) == (C,)
    assert (plan.attempts, budget.left(SMALL)) == (1, 10)


def test_a_key_that_failed_is_asked_again_only_when_no_untried_one_is_left() -> None:
    plan, _ = make()
    assert plan.candidates((A, B)) == (A, B)
    assert fail(plan, Kind.SERVER_ERROR, A, (A, B)).routes == (B,)
    fail(plan, Kind.SERVER_ERROR, B, (A, B))
    assert plan.candidates((A, B)) == (A, B)


def test_a_refused_call_moves_through_groups_up_to_four_attempts() -> None:
    plan, budget = make()
    routes = [Route("mistral", "small", f"k{n}") for n in range(9)]
    asked = [routes[0]]
    while (move := fail(plan, Kind.RATE_LIMITED, asked[-1], routes, more=True)).step is Step.GROUP:
        asked.append(move.routes[0])
        assert move.delay == 0.0
    assert asked == routes[:4]
    assert move.step is None
    assert budget.left(SMALL) == 7
    assert not plan.may_enter("openai/mini")


def test_keys_of_the_refused_group_are_left_out() -> None:
    plan, _ = make()
    assert fail(plan, Kind.RATE_LIMITED, ORG1, (ORG2,), more=True).step is Step.DEPLOYMENT


def test_a_group_refused_for_one_model_is_free_for_another() -> None:
    plan, _ = make()
    fail(plan, Kind.RATE_LIMITED, ORG1, (ORG2,), more=True)
    plan.enter(LARGE)
    other = Route("mistral", "large", "d", quota_group="org")
    assert fail(plan, Kind.RATE_LIMITED, LARGE_A, (other,)).routes == (other,)


@pytest.mark.parametrize("kind", [Kind.CONFLICT, Kind.SERVER_TIMEOUT, Kind.CONNECT_ERROR], ids=str)
def test_what_is_tried_again_once_is_tried_again_once(kind: Kind) -> None:
    plan, _ = make(max_attempts=9, max_attempts_per_deployment=9)
    assert fail(plan, kind).step is Step.SAME
    assert fail(plan, kind).step is None


def test_an_attempt_that_sent_nothing_and_took_no_time_does_not_count() -> None:
    plan, budget = make()
    assert fail(plan, Kind.CONNECT_ERROR, sent=False, elapsed=0.001, more=True).step is Step.SAME
    assert plan.attempts == 1
    assert fail(plan, Kind.CONNECT_ERROR, sent=False, elapsed=0.001, more=True).step is Step.DEPLOYMENT
    assert plan.attempts == 0
    assert budget.left(SMALL) == 10


def test_a_step_of_which_nothing_came_is_neither_counted_nor_paid() -> None:
    plan, budget = make()
    assert fail(plan, Kind.RATE_LIMITED, A, [A, B]) == Move(Step.GROUP, (B,), 0.0)
    assert (plan.attempts, budget.left(SMALL)) == (2, 9)
    plan.withdraw(SMALL)
    assert (plan.attempts, budget.left(SMALL)) == (1, 10)
    plan.withdraw(SMALL)
    assert (plan.attempts, budget.left(SMALL)) == (1, 10)
    assert fail(plan, Kind.RATE_LIMITED, A, [A, C]) == Move(Step.GROUP, (C,), 0.0)
    assert (plan.attempts, budget.left(SMALL)) == (2, 9)


def test_an_attempt_that_waited_for_a_connection_counts() -> None:
    plan, _ = make()
    fail(plan, Kind.CONNECT_ERROR, sent=False, elapsed=2.0, more=True)
    assert plan.attempts == 2


# the pause


def test_the_backoff_doubles_up_to_its_longest() -> None:
    plan, _ = make(rng=Longest(), max_attempts=9, max_attempts_per_deployment=9)
    delays = [fail(plan, Kind.SERVER_ERROR).delay for _ in range(8)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_the_backoff_is_drawn_from_the_whole_range() -> None:
    rng = random.Random(1)
    delays = []
    for _ in range(2000):
        plan, _ = make(rng=rng)
        delays.append(fail(plan, Kind.SERVER_ERROR).delay)
    assert min(delays) < 0.002
    assert max(delays) > 0.248
    assert sum(delays) / len(delays) == pytest.approx(0.125, abs=0.005)


def test_after_a_wait_was_asked_for_the_backoff_starts_at_a_second() -> None:
    plan, _ = make(rng=Longest())
    assert fail(plan, Kind.SERVER_ERROR, status=503, retry_after=2.0).delay == 1.0


@pytest.mark.parametrize(
    ("kind", "routes", "more"),
    [
        pytest.param(Kind.AUTH, (A, B), False, id="another key"),
        pytest.param(Kind.RATE_LIMITED, (A, B), False, id="another group"),
        pytest.param(Kind.MODEL_OVERLOADED, (A, B), True, id="another deployment"),
    ],
)
def test_there_is_no_pause_before(kind: Kind, routes: tuple[Route, ...], more: bool) -> None:
    plan, _ = make(rng=Longest())
    move = fail(plan, kind, A, routes, more=more)
    assert move.step is not None
    assert move.delay == 0.0


def test_a_pause_that_ends_too_close_to_the_deadline_is_not_made() -> None:
    plan, budget = make(rng=Longest())
    assert fail(plan, Kind.SERVER_ERROR, time_left=0.49) == Move(None, deadline_limited=True)
    assert (plan.attempts, budget.left(SMALL)) == (1, 10)
    plan, _ = make(rng=Longest())
    assert fail(plan, Kind.SERVER_ERROR, time_left=0.51).step is Step.SAME


def test_a_pause_that_does_not_fit_gives_way_to_the_next_deployment() -> None:
    plan, _ = make(rng=Longest())
    assert fail(plan, Kind.SERVER_ERROR, time_left=0.49, more=True).step is Step.DEPLOYMENT


def test_no_attempt_starts_with_less_than_a_quarter_of_a_second() -> None:
    plan, _ = make()
    late = MIN_ATTEMPT - 0.01
    assert fail(plan, Kind.AUTH, A, (B,), more=True, time_left=late) == Move(None, deadline_limited=True)


def test_a_failure_without_a_next_step_is_not_the_deadlines_fault() -> None:
    plan, _ = make()
    assert fail(plan, Kind.INVALID_REQUEST, time_left=0.0) == Move(None)


# was it processed?

UNSURE = [kind for kind in Kind if FACTS[kind].processed != "no"]


@pytest.mark.parametrize("kind", UNSURE, ids=str)
def test_what_may_have_been_carried_out_is_not_repeated_where_that_may_do_harm(kind: Kind) -> None:
    plan, _ = make(effects="possible")
    assert fail(plan, kind, A, (A, B, C), more=True, reused=True).step is None
    assert plan.wait(1.0) is None


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Kind.RATE_LIMITED, Step.GROUP),
        (Kind.AUTH, Step.KEY),
        (Kind.MODEL_OVERLOADED, Step.DEPLOYMENT),
        (Kind.CONNECT_ERROR, Step.SAME),
    ],
    ids=str,
)
def test_what_was_not_carried_out_is_repeated_all_the_same(kind: Kind, step: Step) -> None:
    plan, _ = make(effects="possible")
    assert fail(plan, kind, A, (A, B), more=True, sent=kind is not Kind.CONNECT_ERROR).step is step


@pytest.mark.parametrize("kind", list(Kind), ids=str)
def test_nothing_is_repeated_once_content_is_delivered(kind: Kind) -> None:
    plan, _ = make()
    assert fail(plan, kind, A, (A, B, C), more=True, delivered=True) == Move(None)


def test_a_reused_connection_is_replaced_once_a_call() -> None:
    plan, budget = make()
    move = fail(plan, Kind.CONNECTION_LOST, A, (A, B), reused=True)
    assert move == Move(Step.FRESH, (A,))
    assert (plan.attempts, budget.left(SMALL)) == (1, 10)
    assert fail(plan, Kind.CONNECTION_LOST, A, (A, B), reused=True).step is Step.SAME


@pytest.mark.parametrize(
    "facts", [{"reused": False}, {"reused": True, "received": True}], ids=["a new connection", "half a head"]
)
def test_a_fresh_resend_needs_a_reused_connection_without_an_answer(facts: dict[str, Any]) -> None:
    plan, _ = make()
    assert fail(plan, Kind.CONNECTION_LOST, **facts).step is Step.SAME


def test_a_fresh_resend_goes_nowhere_but_to_the_same_route() -> None:
    plan, _ = make()
    assert fail(plan, Kind.CONNECTION_LOST, A, (B,), reused=True).step is Step.SAME


def test_an_answer_that_was_made_and_is_of_no_use_is_asked_for_once_more() -> None:
    plan, _ = make(max_attempts=9, max_attempts_per_deployment=9)
    assert fail(plan, Kind.BAD_RESPONSE, more=True).step is Step.DEPLOYMENT
    plan.enter(LARGE)
    assert fail(plan, Kind.RESPONSE_TOO_LARGE, LARGE_A, (LARGE_A,), more=True).step is None


# waiting


def wait(opens_in: float | None, time_left: float = 60.0, **policy: Any) -> float | None:
    limits = RetryPolicy(**policy)
    return Plan(limits, RetryBudget(limits), random.Random(0)).wait(opens_in, time_left)


@pytest.mark.parametrize(
    ("opens_in", "time_left", "policy", "expected"),
    [
        pytest.param(3.0, 60.0, {}, 3.0, id="soon enough"),
        pytest.param(10.0, 60.0, {}, 10.0, id="just soon enough"),
        pytest.param(10.1, 60.0, {}, None, id="too far off"),
        pytest.param(3.0, 3.2, {}, None, id="no time for an attempt after it"),
        pytest.param(3.0, 3.25, {}, 3.0, id="just enough time"),
        pytest.param(0.1, 60.0, {"max_wait": 0}, None, id="never waits"),
        pytest.param(30.0, 60.0, {"max_wait": 30}, 30.0, id="more patient"),
        pytest.param(None, 60.0, {}, None, id="nothing opens"),
    ],
)
def test_a_call_waits(opens_in: float | None, time_left: float, policy: dict[str, Any], expected: float | None) -> None:
    assert wait(opens_in, time_left, **policy) == expected


def test_a_refused_call_with_one_key_waits_and_tries_once_more() -> None:
    plan, budget = make()
    assert fail(plan, Kind.RATE_LIMITED, A, ()).step is None
    assert plan.wait(4.0) == 4.0
    assert plan.enter(SMALL)
    assert (plan.attempts, budget.left(SMALL)) == (2, 9)
    fail(plan, Kind.RATE_LIMITED, A, ())
    assert not plan.may_enter(SMALL)


def test_a_callers_mistake_is_not_waited_for() -> None:
    plan, _ = make()
    fail(plan, Kind.INVALID_REQUEST, A, ())
    assert plan.wait(1.0) is None


def test_our_own_limit_on_a_key_sends_the_call_to_another() -> None:
    plan, _ = make()
    move = fail(plan, Kind.RATE_EXCEEDED, A, (A, B), sent=False, elapsed=1.0, limit=Scope.ROUTE)
    assert (move.step, move.routes) == (Step.KEY, (B,))


# any sequence

ROUTES = tuple(
    Route(provider, "m", f"k{n}", quota_group=f"g{n // 2}") for provider in ("p0", "p1", "p2") for n in range(4)
)
FAULTS = st.tuples(st.sampled_from(list(Kind)), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.1, 3.0]))


@settings(max_examples=100, deadline=None)
@given(faults=st.lists(FAULTS, min_size=40, max_size=40), seed=st.integers(0, 99))
def test_whatever_fails_a_call_ends_within_its_counts(faults: list[tuple[Kind, bool, bool, float]], seed: int) -> None:
    policy = RetryPolicy()
    budget = RetryBudget(policy)
    plan = Plan(policy, budget, random.Random(seed))
    counted: Counter[str] = Counter()
    rejected: set[tuple[str, str]] = set()
    sent = 0
    script = iter(faults)
    for position, provider in enumerate(("p0", "p1", "p2")):
        here = tuple(route for route in ROUTES if route.provider == provider)
        routes: Sequence[Route] = plan.candidates(here)
        if not plan.enter(f"{provider}/m"):
            break
        how = Step.DEPLOYMENT
        while True:
            route = routes[0]
            assert (route.provider, route.key_id) not in rejected
            sent += 1
            if how in (Step.SAME, Step.DEPLOYMENT):
                counted[provider] += 1
            kind, is_reused, is_sent, elapsed = next(script)
            if kind is Kind.AUTH:
                rejected.add((route.provider, route.key_id))
            before = budget.left(f"{provider}/m")
            move = plan.next(
                Failure(route, kind, sent=is_sent, reused=is_reused, elapsed=elapsed),
                usable=here,
                more=position < 2,
                time_left=30.0,
            )
            if not is_sent and elapsed < 0.05 and how in (Step.SAME, Step.DEPLOYMENT):
                counted[provider] -= 1
            assert plan.attempts <= policy.max_attempts
            assert counted[provider] <= policy.max_attempts_per_deployment
            assert move.step is not Step.SAME or budget.left(f"{provider}/m") <= before + 2
            assert move.delay == 0.0 or move.step is Step.SAME
            if move.step is None or move.step is Step.DEPLOYMENT:
                break
            routes, how = move.routes, move.step
        if move.step is None:
            break
    assert sent <= 4 + len(ROUTES) + 1 + 6  # counted, rotations, one fresh resend, attempts that were none


# an outage, call by call


def simulate(
    chain: Sequence[Sequence[Route]],
    answer: Callable[[Route, random.Random], Kind | None],
    calls: int = 2000,
    at_once: int = 50,
) -> tuple[Counter[str], Counter[str], list[int], int]:
    """Run ``calls`` calls, ``at_once`` in flight, each attempt 50 ms; returns requests, calls routed, attempts, successes."""
    clock, rng = FakeClock(), random.Random(3)
    policy = RetryPolicy()
    budget, health = RetryBudget(policy), Health(clock, rng)
    requests: Counter[str] = Counter()
    routed: Counter[str] = Counter()
    attempts: list[int] = []
    successes = 0

    def call() -> Any:
        nonlocal successes
        plan = Plan(policy, budget, rng)
        panic = health.panic(chain)
        order = health.least_bad(chain) if panic else chain
        for position, routes in enumerate(order):
            name = routes[0].deployment
            awake = plan.candidates(health.usable(routes, ignore_breakers=panic))
            if not awake or not plan.enter(name):
                continue
            routed[name] += 1
            while True:
                route = rng.choice(awake)
                requests[name] += 1
                ticket = health.begin(route)
                yield 0.05
                kind = health.end(ticket, answer(route, rng), status=503)
                if kind is None:
                    successes += 1
                    attempts.append(plan.attempts)
                    return
                move = plan.next(
                    Failure(route, kind, status=503),
                    usable=health.usable(routes, ignore_breakers=panic),
                    more=any(health.usable(other, ignore_breakers=panic) for other in order[position + 1 :]),
                )
                if move.step is None or move.step is Step.DEPLOYMENT:
                    break
                yield move.delay
                awake = move.routes
            if move.step is None:
                break
        attempts.append(plan.attempts)

    waiting = [call() for _ in range(calls)]
    queue = [(0.0, number, waiting[number]) for number in range(at_once)]
    started = at_once
    while queue:
        now, number, running = heapq.heappop(queue)
        clock.advance(max(0.0, now - clock()))
        pause = next(running, None)
        if pause is not None:
            heapq.heappush(queue, (clock() + pause, number, running))
        elif started < calls:
            heapq.heappush(queue, (clock(), started, waiting[started]))
            started += 1
    return requests, routed, attempts, successes


CHAIN = [tuple(Route(provider, "m", f"k{n}") for n in range(3)) for provider in ("p0", "p1", "p2")]


@pytest.mark.parametrize("deployments", [1, 2, 3])
@pytest.mark.parametrize("rate", [1.0, 0.5], ids=["everything fails", "half fails"])
def test_retries_do_not_multiply_an_outage(deployments: int, rate: float) -> None:
    requests, routed, attempts, _ = simulate(
        CHAIN[:deployments], lambda route, rng: Kind.SERVER_ERROR if rng.random() < rate else None
    )
    assert len(attempts) == 2000
    assert max(attempts) <= 4
    for name, count in requests.items():
        assert count <= 1.2 * routed[name] + 10 + 1e-9
    assert requests["p0/m"] > 1.1 * routed["p0/m"] or deployments > 1  # the budget is used, not only kept


def test_without_failures_each_call_is_one_request() -> None:
    requests, _, attempts, successes = simulate(CHAIN, lambda route, rng: None)
    assert requests == {"p0/m": 2000}
    assert attempts == [1] * 2000
    assert successes == 2000


def test_one_dead_deployment_costs_no_call() -> None:
    requests, _, _, successes = simulate(
        CHAIN, lambda route, rng: Kind.SERVER_ERROR if route.provider == "p0" else None
    )
    assert successes == 2000
    assert requests["p0/m"] <= 10 + 50


def test_an_attempt_that_was_granted_and_can_not_be_made_is_given_back() -> None:
    plan, budget = make()
    move = fail(plan, Kind.SERVER_ERROR)
    assert (move.step, plan.attempts, budget.left(SMALL)) == (Step.SAME, 2, 9)
    plan.withdraw(SMALL)
    assert (plan.attempts, budget.left(SMALL), plan.may_enter(SMALL)) == (1, 10, True)
    plan.withdraw(SMALL)
    assert (plan.attempts, budget.left(SMALL)) == (1, 10)
