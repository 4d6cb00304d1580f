"""Scopes close, rest, admit one attempt and come back; on a clock that stands still until told."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core._errors import ConfigError
from bifrost_core.health import Health, RouteHealth, scope_id
from bifrost_core.kinds import Kind, Scope
from bifrost_core.testing import FakeClock
from bifrost_core.types import Route, RouteRef

A = Route("mistral", "small", "a", quota_group="org")
B = Route("mistral", "small", "b", quota_group="org")
C = Route("mistral", "small", "c")
LARGE = Route("mistral", "large", "a", quota_group="org")
OTHER = Route("openai", "mini", "a")
THIRD = Route("anthropic", "haiku", "a")
ROUTES = (A, B, C, LARGE, OTHER)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


@pytest.fixture
def health(clock: FakeClock) -> Health:
    return Health(clock, random.Random(11))


def end(health: Health, route: Route, kind: Kind | None, times: int = 1, **how: object) -> Kind | None:
    result = None
    for _ in range(times):
        result = health.end(health.begin(route), kind, **how)  # type: ignore[arg-type] # options by name
    return result


def names(routes: Sequence[Route]) -> str:
    return " ".join(f"{route.model}/{route.key_id}" for route in routes)


def pass_rest(health: Health, clock: FakeClock, route: Route) -> None:
    clock.advance(health.opens_in(route))


# what never failed


def test_healthy_routes_come_back_as_they_were_given(health: Health) -> None:
    for _ in range(1000):
        end(health, A, None)
    assert health.usable(ROUTES) is ROUTES
    assert health.opens_in(A) == 0.0
    assert health.earliest(ROUTES) is None
    assert health.reason(A) is None
    assert health.share(A) == 1.0
    assert health.describe(A) == RouteHealth(A.ref)
    assert not health._states


def test_other_routes_are_returned_as_given_while_one_rests(health: Health) -> None:
    end(health, OTHER, Kind.AUTH)
    mistral = (A, B)
    assert health.usable(mistral) is mistral


def test_ten_thousand_bad_requests_change_nothing(health: Health) -> None:
    for _ in range(10_000):
        end(health, A, Kind.INVALID_REQUEST, status=400)
    assert health.usable(ROUTES) is ROUTES
    assert not health._states
    assert health.failure_rate(A) == 0.0


# what a breaker counts


def test_a_breaker_opens_after_five_faults_in_a_row(health: Health) -> None:
    end(health, A, Kind.READ_TIMEOUT, 4)
    end(health, B, None)  # the deployment's fifth attempt, on another key, is fine
    end(health, A, Kind.READ_TIMEOUT, 4)
    assert health.opens_in(A) == 0.0
    end(health, B, Kind.READ_TIMEOUT)
    assert names(health.usable(ROUTES)) == "large/a mini/a"


def test_a_breaker_opens_when_half_of_ten_attempts_fail_within_ten_seconds(health: Health, clock: FakeClock) -> None:
    for _ in range(4):
        end(health, A, None)
        end(health, A, Kind.READ_TIMEOUT)
        clock.advance(1.0)
    end(health, A, None)
    assert health.opens_in(A) == 0.0
    end(health, A, Kind.READ_TIMEOUT)
    assert health.opens_in(A) >= 5.0
    assert health.failure_rate(A) == 0.5


def test_a_breaker_counts_what_went_well_before_the_first_fault(health: Health) -> None:
    end(health, A, None, 11)
    for _ in range(10):
        end(health, A, Kind.READ_TIMEOUT)
        end(health, A, None)
    assert health.opens_in(A) == 0.0  # 10 of 31


def test_a_breaker_forgets_what_is_older_than_ten_seconds(health: Health, clock: FakeClock) -> None:
    for _ in range(30):
        end(health, A, Kind.READ_TIMEOUT)
        end(health, A, None)
        clock.advance(3.0)  # at most eight attempts within ten seconds
    assert health.opens_in(A) == 0.0


def test_a_providers_breaker_counts_the_attempts_of_all_its_deployments(health: Health) -> None:
    for _ in range(12):
        end(health, LARGE, None, 2)
        end(health, A, Kind.SERVER_ERROR, status=503)
    for _ in range(5):
        end(health, A, Kind.SERVER_ERROR, 3, status=503)
        end(health, LARGE, None)
    assert health.usable(ROUTES) is ROUTES  # 27 of 56, though 27 of 27 on the deployment that fails
    end(health, A, Kind.SERVER_ERROR, 2, status=503)
    assert health.usable(ROUTES) == [OTHER]


def test_a_breaker_stays_open_longer_each_time_and_never_above_five_minutes(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.READ_TIMEOUT, 5)
    for times in range(1, 80):
        longest = min(300.0, 5.0 * times)
        assert longest - 1e-6 <= health.opens_in(A) <= min(300.0, longest * 1.1) + 1e-6
        pass_rest(health, clock, A)
        end(health, A, Kind.READ_TIMEOUT)  # the half-open attempt fails


@pytest.mark.parametrize(
    ("quiet", "expected"),
    [
        pytest.param(9.0, 15.0, id="less than an interval: nothing"),
        pytest.param(11.0, 10.0, id="one interval: one step"),
        pytest.param(25.0, 5.0, id="two intervals: two steps"),
        pytest.param(500.0, 5.0, id="many intervals: never below none"),
    ],
)
def test_a_breaker_forgets_a_step_for_each_quiet_interval(
    health: Health, clock: FakeClock, quiet: float, expected: float
) -> None:
    end(health, A, Kind.READ_TIMEOUT, 5)
    pass_rest(health, clock, A)
    end(health, A, Kind.READ_TIMEOUT)  # the second time: 10 s
    pass_rest(health, clock, A)
    end(health, A, None)
    clock.advance(quiet)
    end(health, A, Kind.READ_TIMEOUT, 5)
    assert expected <= health.opens_in(A) <= expected * 1.1


def test_attempts_that_began_before_the_opening_do_not_count_again(health: Health, clock: FakeClock) -> None:
    late = [health.begin(A) for _ in range(50)]
    clock.advance(1.0)
    for ticket in late:
        health.end(ticket, Kind.READ_TIMEOUT)
    assert 5.0 <= health.opens_in(A) <= 5.5
    pass_rest(health, clock, A)
    end(health, A, None)
    later = health.begin(A)
    assert health.opens_in(A) == 0.0
    health.end(later, Kind.READ_TIMEOUT)
    assert health.opens_in(A) == 0.0  # one fault after coming back is one fault


def test_an_old_answer_does_not_close_what_has_opened_since(health: Health, clock: FakeClock) -> None:
    old = health.begin(A)
    clock.advance(1.0)
    end(health, A, Kind.READ_TIMEOUT, 5)
    health.end(old, None)
    assert health.opens_in(A) >= 5.0


def test_callers_deadlines_and_cancels_say_nothing(health: Health) -> None:
    end(health, A, Kind.DEADLINE_EXCEEDED, 50)
    end(health, A, Kind.CANCELLED, 50)
    assert health.usable(ROUTES) is ROUTES
    assert not health._states


# half-open


def test_a_half_open_scope_admits_one_attempt(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.READ_TIMEOUT, 5)
    pass_rest(health, clock, A)
    assert health.usable((A, B)) == (A, B)
    probe = health.begin(A)
    assert probe.is_probe
    assert not health.usable((A, B))
    assert health.opens_in(B) == 1.0
    assert health.earliest((A, B)) == 1.0
    health.end(probe, None)
    assert health.usable((A, B)) == (A, B)


@pytest.mark.parametrize(
    "kind", [Kind.CANCELLED, Kind.DEADLINE_EXCEEDED, Kind.INVALID_REQUEST, Kind.BUDGET_EXCEEDED], ids=str
)
def test_a_probe_that_shows_nothing_gives_its_place_back(health: Health, clock: FakeClock, kind: Kind) -> None:
    end(health, A, Kind.AUTH)
    pass_rest(health, clock, A)
    probe = health.begin(A)
    assert health.end(probe, kind) is kind
    assert health.opens_in(A) == 0.0
    assert health.describe(A).state == "half_open"
    assert health.begin(A).is_probe


@pytest.mark.parametrize("kind", [None, *Kind], ids=lambda kind: str(kind or "ok"))
def test_the_end_of_a_helper_changes_nothing(health: Health, clock: FakeClock, kind: Kind | None) -> None:
    def state() -> list[object]:
        routes = (A, B, C, LARGE)
        return [[health.describe(route), health.failure_rate(route), health.share(route)] for route in routes]

    end(health, B, Kind.AUTH, status=401)
    end(health, LARGE, Kind.SERVER_ERROR, 4, status=503)  # one more, and the provider's breaker opens
    before = state()
    for route in (A, B, LARGE):
        ticket = health.begin(route, helper=True)
        assert health.end(ticket, kind, status=503, retry_after=7200.0, insecure=True, html=True) is kind
        assert (ticket.is_ended, ticket.kind) == (True, kind)
    assert state() == before
    clock.advance(400.0)  # past the rest of B's key
    assert health.opens_in(B) == 0.0


def test_a_helper_takes_no_half_open_place(health: Health, clock: FakeClock) -> None:
    end(health, C, Kind.AUTH, status=401)
    pass_rest(health, clock, C)
    helper = health.begin(C, helper=True)
    assert not helper.is_probe
    probe = health.begin(C)
    assert probe.is_probe
    health.end(helper, None)
    assert health.describe(C).state == "half_open"
    health.end(probe, None)
    assert health.describe(C).state == "closed"


def test_a_ticket_ends_once(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.AUTH)
    pass_rest(health, clock, A)
    probe = health.begin(A)
    assert health.end(probe, Kind.CANCELLED) is Kind.CANCELLED
    second = health.begin(A)
    assert health.end(probe, None) is Kind.CANCELLED
    assert second.is_probe
    assert health.opens_in(A) == 1.0


def test_one_attempt_takes_every_half_open_place_on_its_way(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.PERMISSION)
    end(health, A, Kind.REDIRECT)
    clock.advance(700.0)
    probe = health.begin(A)
    assert {state.id[0] for state in probe.places} == {"route", "provider"}
    assert not health.usable((A, B, LARGE))
    health.end(probe, None)
    assert health.usable(ROUTES) is ROUTES


def test_a_probe_that_fails_elsewhere_leaves_the_scope_half_open(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.AUTH)
    pass_rest(health, clock, A)
    end(health, A, Kind.SERVER_ERROR, status=503)
    assert health.describe(A).state == "half_open"
    assert health.describe(A).reason is Kind.AUTH


# stated and computed waits


def test_a_stated_wait_is_kept_and_stretched_by_at_most_250_ms(clock: FakeClock) -> None:
    for seed in range(200):
        health = Health(clock, random.Random(seed))
        end(health, A, Kind.RATE_LIMITED, status=429, retry_after=20.0)
        assert 20.0 <= health.opens_in(A) <= 20.25


def test_the_longer_of_two_waits_holds(health: Health, clock: FakeClock) -> None:
    late = health.begin(B)
    end(health, A, Kind.RATE_LIMITED, status=429, retry_after=60.0)
    clock.advance(1.0)
    health.end(late, Kind.RATE_LIMITED, status=429, retry_after=2.0)
    assert 59.0 <= health.opens_in(A) <= 59.25


def test_an_answer_in_flight_does_not_shorten_a_wait(health: Health, clock: FakeClock) -> None:
    other = health.begin(B)
    end(health, A, Kind.RATE_LIMITED, status=429, retry_after=60.0)
    clock.advance(1.0)
    health.end(other, None)
    assert health.opens_in(B) >= 59.0


def test_fifty_refusals_at_once_are_one_refusal(health: Health, clock: FakeClock) -> None:
    tickets = [health.begin(A) for _ in range(50)]
    clock.advance(0.1)
    kinds = {health.end(ticket, Kind.RATE_LIMITED, status=429) for ticket in tickets}
    assert kinds == {Kind.RATE_LIMITED}
    assert health.opens_in(A) <= 1.2


def test_a_success_starts_the_doubling_again(health: Health, clock: FakeClock) -> None:
    for _ in range(3):
        end(health, A, Kind.RATE_LIMITED, status=429)
        pass_rest(health, clock, A)
    end(health, A, None)
    end(health, A, Kind.RATE_LIMITED, status=429)
    assert 0.8 <= health.opens_in(A) <= 1.2


@pytest.mark.parametrize(
    "nonsense", [-5.0, 0.0, math.nan, math.inf, None], ids=["negative", "zero", "nan", "inf", "none"]
)
def test_a_wait_that_makes_no_sense_is_no_wait(health: Health, nonsense: float | None) -> None:
    assert end(health, A, Kind.RATE_LIMITED, status=429, retry_after=nonsense) is Kind.RATE_LIMITED
    assert 0.8 <= health.opens_in(A) <= 1.2


def test_an_overloaded_model_rests_twice_as_long_each_time(health: Health, clock: FakeClock) -> None:
    for expected in (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0):
        end(health, A, Kind.MODEL_OVERLOADED, status=529)
        assert health.opens_in(A) == pytest.approx(expected)
        assert health.opens_in(LARGE) == 0.0
        pass_rest(health, clock, A)


def test_a_rejected_key_is_asked_at_five_minutes_doubling_to_an_hour(health: Health, clock: FakeClock) -> None:
    for expected in (300.0, 600.0, 1200.0, 2400.0, 3600.0, 3600.0):
        end(health, A, Kind.AUTH, status=401)
        assert health.opens_in(A) == pytest.approx(expected)
        assert health.opens_in(B) == 0.0
        pass_rest(health, clock, A)
    end(health, A, None)
    end(health, A, Kind.AUTH, status=401)
    assert health.opens_in(A) == pytest.approx(300.0)


def test_ten_rejections_at_once_are_one(health: Health, clock: FakeClock) -> None:
    tickets = [health.begin(A) for _ in range(10)]
    clock.advance(0.2)
    for ticket in tickets:
        health.end(ticket, Kind.AUTH, status=401)
        clock.advance(0.1)
    assert health.opens_in(A) == pytest.approx(299.0)


def test_an_untrusted_certificate_turns_the_provider_off(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.CONNECT_ERROR, insecure=True)
    assert health.usable(ROUTES) == [OTHER]
    pass_rest(health, clock, A)
    end(health, A, Kind.CONNECT_ERROR, insecure=True)
    assert health.opens_in(A) == pytest.approx(600.0)
    assert not health.usable((A,), ignore_breakers=True)


# coming back


def test_a_deployment_that_comes_back_gets_its_share_over_15_seconds(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.READ_TIMEOUT, 5)
    pass_rest(health, clock, A)
    assert health.share(A) == 1.0  # the half-open place limits it, not the share
    end(health, A, None)
    shares = []
    for _ in range(6):
        shares.append(round(health.share(B), 3))
        clock.advance(3.0)
    assert shares == [0.1, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert health.share(OTHER) == 1.0


def test_a_provider_that_comes_back_limits_all_its_deployments(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.CONNECT_ERROR, 5)
    pass_rest(health, clock, A)
    end(health, LARGE, None)
    clock.advance(7.5)
    assert health.share(A) == health.share(LARGE) == 0.5


def test_a_key_that_comes_back_is_at_once_whole(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.RATE_LIMITED, status=429)
    pass_rest(health, clock, A)
    end(health, A, None)
    assert health.share(A) == 1.0
    assert not health._states


def test_what_came_back_leaves_no_state_behind(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.READ_TIMEOUT, 5)
    pass_rest(health, clock, A)
    end(health, A, None)
    clock.advance(30.0)
    end(health, A, None)
    assert not health._states


# panic


def test_a_breaker_never_closes_the_only_way(health: Health) -> None:
    end(health, A, Kind.READ_TIMEOUT, 5)
    assert health.panic([(A, B, C)])
    assert health.usable((A, B), ignore_breakers=True) == (A, B)


def test_half_of_the_deployments_down_is_no_panic(health: Health) -> None:
    end(health, A, Kind.READ_TIMEOUT, 5)
    assert not health.panic([(A, B), (OTHER,)])
    end(health, OTHER, Kind.READ_TIMEOUT, 5)
    assert health.panic([(A, B), (OTHER,)])
    assert not health.panic([(A, B), (OTHER,), (LARGE,), (THIRD,)])


@pytest.mark.parametrize("kind", [Kind.AUTH, Kind.RATE_LIMITED, Kind.MODEL_OVERLOADED, Kind.REDIRECT], ids=str)
def test_stated_waits_and_rejected_keys_hold_in_a_panic(health: Health, kind: Kind) -> None:
    end(health, A, kind, retry_after=3.0)
    assert not health.panic([(A,)])
    end(health, A, Kind.READ_TIMEOUT, 5)
    assert health.panic([(A,)])
    assert not health.usable((A,), ignore_breakers=True)
    assert health.opens_in(A, ignore_breakers=True) > 0.0


def test_an_attempt_let_through_in_a_panic_closes_the_breaker_when_it_succeeds(
    health: Health, clock: FakeClock
) -> None:
    end(health, A, Kind.READ_TIMEOUT, 5)
    clock.advance(0.5)
    ticket = health.begin(A)
    assert not ticket.is_probe
    health.end(ticket, None)
    assert health.opens_in(A) == 0.0


def test_the_least_bad_deployment_comes_first(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.READ_TIMEOUT, 5)  # all fail
    for _ in range(6):  # half fail
        end(health, OTHER, None)
        end(health, OTHER, Kind.READ_TIMEOUT)
    chain = [(A, B), (OTHER,)]
    assert health.least_bad(chain) == [(OTHER,), (A, B)]
    clock.advance(60.0)  # the counts are gone, what they showed is not
    assert health.least_bad(chain) == [(OTHER,), (A, B)]


def test_of_two_equally_bad_deployments_the_one_that_opens_first_comes_first(health: Health, clock: FakeClock) -> None:
    end(health, OTHER, Kind.READ_TIMEOUT, 5)
    clock.advance(2.0)
    end(health, A, Kind.READ_TIMEOUT, 5)
    assert health.least_bad([(A,), (OTHER,)]) == [(OTHER,), (A,)]


# what to say


def test_only_rate_limits_is_said_only_when_nothing_else_keeps_routes_closed(health: Health) -> None:
    assert not health.only_rate_limits(())
    end(health, A, Kind.RATE_LIMITED, status=429)
    assert health.only_rate_limits((A, B))
    assert not health.only_rate_limits((A, B, C))
    end(health, C, Kind.QUOTA_EXHAUSTED, status=429)
    assert health.only_rate_limits((A, B, C))
    end(health, C, Kind.AUTH, status=401)
    assert not health.only_rate_limits((A, B, C))


def test_only_rejected_is_said_when_every_key_is(health: Health) -> None:
    end(health, A, Kind.AUTH)
    end(health, B, Kind.AUTH)
    assert health.only_rejected((A, B))
    assert not health.only_rejected((A, B, C))


def test_the_earliest_reopening_is_that_of_the_first_to_open(health: Health) -> None:
    end(health, A, Kind.RATE_LIMITED, status=429, retry_after=30.0)
    end(health, C, Kind.RATE_LIMITED, status=429, retry_after=4.0)
    found = health.earliest((A, B, C))
    assert found is not None
    assert 4.0 <= found <= 4.25


def test_a_route_is_described_with_the_figures_of_the_balancer(health: Health, clock: FakeClock) -> None:
    end(health, A, Kind.PERMISSION, status=403)
    clock.advance(200.0)
    shown = health.describe(A, latency=0.5, time_to_first_token=0.2, in_flight=3, share=0.25)
    assert shown == RouteHealth(A.ref, "open", 400.0, Kind.PERMISSION, 0.5, 0.2, 3, 0.25)
    clock.advance(400.0)
    assert health.describe(A).state == "half_open"
    assert health.describe(A).until == 0.0


# by hand


def test_a_route_closed_by_hand_opens_by_hand(health: Health, clock: FakeClock) -> None:
    health.open(A)
    clock.advance(1e6)
    assert health.describe(A) == RouteHealth(A.ref, "open", math.inf, "manual")
    assert health.usable((A, B)) == [B]
    health.close(A)
    assert health.usable((A, B)) == (A, B)


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        pytest.param(Scope.ROUTE, "small/b small/c large/a mini/a", id="route"),
        pytest.param(Scope.KEY, "small/b small/c mini/a", id="key"),
        pytest.param(Scope.QUOTA_GROUP, "small/c large/a mini/a", id="quota group"),
        pytest.param(Scope.DEPLOYMENT, "large/a mini/a", id="deployment"),
        pytest.param(Scope.PROVIDER, "mini/a", id="provider"),
    ],
)
def test_every_scope_can_be_closed_by_hand(health: Health, clock: FakeClock, scope: Scope, left: str) -> None:
    health.open(A, 30.0, scope=scope)
    assert names(health.usable(ROUTES)) == left
    health.close(A, scope=scope)
    assert health.usable(ROUTES) is ROUTES


def test_closing_one_scope_by_hand_leaves_the_others(health: Health) -> None:
    health.open(A, scope=Scope.KEY)
    health.open(A, scope=Scope.DEPLOYMENT)
    health.close(A, scope=Scope.DEPLOYMENT)
    assert health.usable(ROUTES) == [B, C, OTHER]


def test_a_quota_said_to_be_used_up_rests_its_group(health: Health) -> None:
    health.open(A, 12.0, scope=Scope.QUOTA_GROUP, reason=Kind.RATE_LIMITED)
    assert health.opens_in(B) == 12.0
    assert health.only_rate_limits((A, B))


def test_a_quota_group_is_not_named_by_a_bare_reference() -> None:
    with pytest.raises(ConfigError, match="quota group"):
        scope_id(RouteRef("mistral", "small", "a"), Scope.QUOTA_GROUP)


def test_a_key_and_a_group_of_the_same_name_are_not_the_same(health: Health) -> None:
    grouped = Route("mistral", "small", "x", quota_group="c")
    end(health, grouped, Kind.RATE_LIMITED, status=429)
    assert health.usable((C, grouped)) == [C]


def test_a_forgotten_key_leaves_nothing_to_its_successor(health: Health) -> None:
    for kind in (Kind.AUTH, Kind.PERMISSION, Kind.RATE_LIMITED, Kind.PAYMENT):
        end(health, C, kind)
    end(health, A, Kind.AUTH)
    end(health, C, Kind.MODEL_OVERLOADED)
    health.forget_key("mistral", "c")
    assert health.reason(C) is Kind.MODEL_OVERLOADED
    health.close(C)
    assert health.usable((A, C)) == [C]


# bounds


def test_states_are_bounded_and_closed_ones_go_first(clock: FakeClock) -> None:
    health = Health(clock, random.Random(0), limit=100)
    end(health, A, Kind.AUTH)
    for n in range(1000):
        end(health, Route(f"p{n}", "m", "k"), Kind.SERVER_ERROR, status=503)  # counted, not open
    assert len(health._states) == 100
    assert len(health._traffic) == 100
    assert health.opens_in(A) > 0.0


def test_of_open_states_the_oldest_goes(clock: FakeClock) -> None:
    health = Health(clock, random.Random(0), limit=100)
    routes = [Route("mistral", f"m{n}", "k") for n in range(150)]
    for route in routes:
        end(health, route, Kind.MODEL_NOT_FOUND, status=404)
    assert len(health._states) == len(health._open) == 100
    assert health.usable(routes) == routes[:50]


# any sequence

KINDS = st.sampled_from([None, *Kind])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, len(ROUTES) - 1), st.none()),
        st.tuples(st.just("end"), st.integers(0, 50), KINDS),
        st.tuples(st.just("advance"), st.sampled_from([0.0, 0.3, 1.0, 5.0, 60.0, 400.0, 4000.0]), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 9), wait=st.sampled_from([None, 0.0, 2.0, 90.0, 5000.0]))
def test_no_sequence_leaves_a_place_taken_or_lets_anybody_in_early(
    steps: list[tuple[str, float, Kind | None]], seed: int, wait: float | None
) -> None:
    clock = FakeClock()
    health = Health(clock, random.Random(seed))
    running = []
    told: dict[tuple[str, ...], float] = {}
    for what, number, kind in steps:
        if what == "begin":
            route = ROUTES[int(number)]
            usable = route in health.usable(ROUTES)
            assert usable == (health.opens_in(route) == 0.0)
            if not usable:
                continue
            assert clock() >= told.get(_quota(route), 0.0) - 1e-5
            running.append(health.begin(route))
        elif what == "end" and running:
            ticket = running.pop(int(number) % len(running))
            result = health.end(ticket, kind, status=503, retry_after=wait)
            if wait and kind in (Kind.RATE_LIMITED, Kind.QUOTA_EXHAUSTED):
                assert result in (Kind.RATE_LIMITED, Kind.QUOTA_EXHAUSTED)
                scope = _quota(ticket.route)
                told[scope] = max(told.get(scope, 0.0), clock() + wait)
        elif what == "advance":
            clock.advance(number)
        places = [state for ticket in running for state in ticket.places if state.probe is ticket]
        assert len(places) == len({id(state) for state in places})  # one attempt per half-open scope
    for ticket in running:
        health.end(ticket, Kind.CANCELLED)
    assert all(state.probe is None for state in health._states.values())
    clock.advance(1e6)
    assert health.usable(ROUTES) == ROUTES
    for route in ROUTES:
        end(health, route, None)
    assert not health._open


def _quota(route: Route) -> tuple[str, ...]:
    return scope_id(route, Scope.QUOTA_GROUP)


# of many routes


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), events=st.integers(1, 120))
def test_what_is_usable_of_many_routes_is_what_is_usable_one_by_one(seed: int, events: int) -> None:
    rng, clock = random.Random(seed), FakeClock(1000.0)
    health = Health(clock, random.Random(seed))
    groups = (None, None, "org", "lab")
    routes = [
        Route(provider, model, f"k{key}", quota_group=groups[key % 4])
        for provider in ("mistral", "openai")
        for model in ("small", "large")
        for key in range(8)
    ]
    kinds = [kind for kind in Kind if kind not in (Kind.CANCELLED, Kind.DEADLINE_EXCEEDED)]
    for _ in range(events):
        ticket = health.begin(rng.choice(routes))
        clock.advance(rng.choice((0.0, 0.0, 0.5, 6.0)))
        if rng.random() < 0.2:
            continue  # still under way, perhaps on a half-open place
        end_kind = rng.choice([None, *rng.sample(kinds, 3)])
        health.end(ticket, end_kind, retry_after=rng.choice((None, 3.0)), every_model=rng.random() < 0.3)
    for ignore in (False, True):
        rests = [health.opens_in(route, ignore_breakers=ignore) for route in routes]
        awake = [route for route, rest in zip(routes, rests, strict=True) if rest == 0.0]
        assert list(health.usable(routes, ignore_breakers=ignore)) == awake
        assert list(health.usable(routes[:8], ignore_breakers=ignore)) == [each for each in awake if each in routes[:8]]
        assert health.earliest(routes, ignore_breakers=ignore) == min((rest for rest in rests if rest), default=None)
    for few in (routes[:1], routes[:4], routes[8:16]):
        shut = all(health.opens_in(route) > 0.0 for route in few)
        assert not health.only_rate_limits(few) or shut
        if shut and {health.reason(route) for route in few} <= {Kind.AUTH}:
            assert not health.only_rate_limits(few)
        assert not (health.only_rate_limits(few) and health.only_rejected(few))
