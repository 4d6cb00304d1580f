from __future__ import annotations

import heapq
import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from types import MappingProxyType, SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bifrost_core.balancing as package
from bifrost_core.balancing import (
    Balancer,
    LatencyWeighted,
    LeastBusy,
    LowestLatency,
    Outcome,
    RoundRobin,
    WeightedRandom,
)

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class FakeClock:
    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Steady(random.Random):
    """Draws 0.5 always: jitter is exactly 1."""

    def random(self) -> float:
        return 0.5


def make(*ids: str, rng: random.Random | None = None, **options: Any) -> tuple[LatencyWeighted, FakeClock]:
    clock = FakeClock()
    balancer = LatencyWeighted(clock=clock, rng=rng or random.Random(7), **options)
    for key_id in ids:
        balancer.add(key_id)
    return balancer, clock


def one(
    balancer: Balancer, clock: FakeClock, key_id: str, outcome: Outcome = "ok", latency: float = 1.0, **more: Any
) -> None:
    """One whole attempt."""
    attempt = balancer.begin(key_id)
    clock.now += latency
    balancer.end(attempt, outcome, latency, **more)


def cost(balancer: LatencyWeighted, key_id: str) -> float:
    value = balancer.snapshot()[key_id].cost
    assert value is not None
    return value


def shares(balancer: Balancer, candidates: Any, picks: int = 2000, request: object = None) -> dict[str, float]:
    counts = Counter(balancer.pick(candidates, request) for _ in range(picks))
    return {key_id: counts[key_id] / picks for key_id in candidates}


def simulate(
    balancer: Balancer,
    clock: FakeClock,
    ids: Iterable[str],
    serve: Callable[[str, float, random.Random], tuple[Outcome, float, int]],
    *,
    seconds: float,
    rate: float,
    seed: int = 3,
    attempts: int = 4,
) -> tuple[list[tuple[float, str]], int]:
    """Poisson arrivals, retries on other keys; returns (time since start, key) of all picks, and failed requests."""
    rng = random.Random(seed)
    start = clock.now
    events: list[tuple[float, int, Any, tuple[str, ...]]] = []
    at, number = start, 0
    while (at := at + rng.expovariate(rate)) < start + seconds:
        events.append((at, number, None, ()))
        number += 1
    picks: list[tuple[float, str]] = []
    failed = 0
    while events:
        clock.now, _, ending, tried = heapq.heappop(events)
        if ending is not None:
            attempt, outcome, latency, tokens = ending
            balancer.end(attempt, outcome, latency, output_tokens=tokens)
            if outcome in ("ok", "client"):
                continue
            if len(tried) >= attempts or not [key_id for key_id in ids if key_id not in tried]:
                failed += 1
                continue
        left = [key_id for key_id in ids if key_id not in tried]
        key_id = balancer.pick(left, SimpleNamespace(attempt=len(tried)))
        attempt = balancer.begin(key_id)
        picks.append((clock.now - start, key_id))
        outcome, latency, tokens = serve(key_id, clock.now - start, rng)
        number += 1
        heapq.heappush(events, (clock.now + latency, number, (attempt, outcome, latency, tokens), (*tried, key_id)))
    return picks, failed


def part(picks: list[tuple[float, str]], key_id: str, start: float = 0.0, end: float = math.inf) -> float:
    window = [picked for at, picked in picks if start <= at < end]
    return window.count(key_id) / len(window)


def answer(speed: float, rng: random.Random, tokens: int | None = None) -> tuple[Outcome, float, int]:
    tokens = tokens or rng.randint(50, 250)
    return "ok", speed * (0.4 + 0.01 * tokens) * rng.lognormvariate(-0.08, 0.4), tokens


# Shares


def test_equal_keys_share_by_weight() -> None:
    balancer, clock = make("b")
    balancer.add("a", 3.0)
    picks, _ = simulate(balancer, clock, ["a", "b"], lambda _k, _t, rng: answer(1, rng), seconds=1500, rate=3)
    assert part(picks, "a") == pytest.approx(0.75, abs=0.05)


def test_a_key_twice_as_slow_gets_under_one_percent() -> None:
    balancer, clock = make("a", "b", "c")
    serve = lambda key, _t, rng: answer(2 if key == "c" else 1, rng)  # noqa: E731
    picks, _ = simulate(balancer, clock, ["a", "b", "c"], serve, seconds=1200, rate=5)
    assert part(picks, "c", 60) < 0.01


def test_keys_of_equal_speed_share_though_their_answers_differ_in_length() -> None:
    balancer, clock = make("long", "short")

    def serve(key: str, _t: float, _rng: random.Random) -> tuple[Outcome, float, int]:
        tokens = 1000 if key == "long" else 50
        return "ok", 0.4 + 0.01 * tokens, tokens

    picks, _ = simulate(balancer, clock, ["long", "short"], serve, seconds=3000, rate=0.4)
    assert part(picks, "long", 100) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("streams", [False, True], ids=["plain", "streams"])
def test_one_after_the_other_long_and_short_answers_count_the_same(streams: bool) -> None:
    # Of a plain answer only the sum is known, and a first token is taken to be worth 40 tokens.
    first, each = (2.0, 0.01) if streams else (0.4, 0.01)
    balancer, clock = make("long", "short")
    for _ in range(300):
        key_id = balancer.pick(["long", "short"])
        tokens = 1000 if key_id == "long" else 50
        ttft = first if streams else None
        one(balancer, clock, key_id, latency=first + each * tokens, ttft=ttft, output_tokens=tokens)
    assert [seen.rho for seen in balancer.snapshot().values()] == pytest.approx([1.0, 1.0], abs=0.05)
    assert shares(balancer, ["long", "short"])["long"] == pytest.approx(0.5, abs=0.04)


def test_beyond_the_band_shares_fall_steeply() -> None:
    balancer, clock = make("a", "b", "c", rng=random.Random(1))
    for key_id, ratio in (("a", 1.0), ("b", 1.05), ("c", 1.2)):
        key = balancer._keys[key_id]
        key.ratios, key.count, key.ratios_at = ratio * 1e9, 1e9, clock.now
    observed = shares(balancer, ["a", "b", "c"], 20_000)
    full = 1 / (2 + (1.1 / 1.2) ** 24)
    assert observed["a"] == pytest.approx(full, abs=0.01)
    assert observed["b"] == pytest.approx(full, abs=0.01)
    assert observed["c"] == pytest.approx(full * (1.1 / 1.2) ** 24, abs=0.01)


def test_the_band_is_an_option() -> None:
    balancer, clock = make("a", "b", band=0.0)
    for key_id, ratio in (("a", 1.0), ("b", 1.09)):
        key = balancer._keys[key_id]
        key.ratios, key.count, key.ratios_at = ratio * 1e9, 1e9, clock.now
    assert shares(balancer, ["a", "b"])["b"] == pytest.approx(0.112, abs=0.03)


def test_a_mapping_replaces_the_configured_weights_for_one_pick() -> None:
    balancer, _ = make("a", "b")
    assert shares(balancer, {"a": 1.0, "b": 3.0})["b"] == pytest.approx(0.75, abs=0.04)
    assert shares(balancer, MappingProxyType({"a": 3, "b": 1}))["a"] == pytest.approx(0.75, abs=0.04)
    assert shares(balancer, ["a", "b"])["a"] == pytest.approx(0.5, abs=0.04)


def test_a_weight_can_be_changed_and_adding_again_keeps_what_is_known() -> None:
    balancer, clock = make("a", "b")
    one(balancer, clock, "a")
    before = balancer.snapshot()["a"].observations
    balancer.add("a", 0.0)
    balancer.set_weight("b", 2.0)
    after = balancer.snapshot()
    assert (after["a"].weight, after["b"].weight, after["a"].observations) == (0.0, 2.0, before)


def test_weight_zero_is_only_a_reserve() -> None:
    balancer, clock = make("a", "b")
    balancer.add("reserve", 0.0)
    everyone = ["a", "b", "reserve"]
    assert shares(balancer, everyone)["reserve"] == 0
    for key_id in ("a", "b"):
        one(balancer, clock, key_id, "rate_limit", 0.0, retry_after=10)
    assert balancer.pick(everyone) == "reserve"
    assert balancer.pick(["reserve"]) == "reserve"
    clock.now += 10.5
    assert shares(balancer, everyone)["reserve"] == 0


def test_keys_that_all_have_weight_zero_share_evenly() -> None:
    balancer, clock = make()
    for key_id in ("a", "b"):
        balancer.add(key_id, 0.0)
    one(balancer, clock, "a", latency=9.0)
    for _ in range(5):
        one(balancer, clock, "b", latency=1.0)
    assert shares(balancer, ["a", "b"])["a"] == pytest.approx(0.5, abs=0.04)


def test_a_fast_reserve_does_not_move_the_band_of_the_others() -> None:
    balancer, clock = make("a", "b")
    balancer.add("reserve", 0.0)
    for key_id, ratio in (("a", 1.0), ("b", 1.08), ("reserve", 0.2)):
        key = balancer._keys[key_id]
        key.ratios, key.count, key.ratios_at = ratio * 1e9, 1e9, clock.now
    observed = shares(balancer, ["a", "b", "reserve"])
    assert observed["b"] == pytest.approx(0.5, abs=0.04)
    assert observed["reserve"] == 0


# The cost


class Reference:
    """The cost formulas once more, written down one by one and slowly: an independent oracle."""

    def __init__(self, ids: Iterable[str], now: float) -> None:
        self.A, self.B, self.nbar = 0.5, 0.015, 150.0
        self.sT = self.cT = self.sG = self.sN = self.sL = self.sM = self.Suu = self.Suv = 0.0
        self.kappa, self.tau, self.gap = 0.3, 25.0, 0.0
        zero = dict.fromkeys(("S", "C", "E", "M", "r", "I", "sent"), 0.0)
        self.keys = {
            k: SimpleNamespace(
                **zero, F=1.0, u=None, v=0.0, ts=now, te=now, tr=now, t_end=now, t_first=now, live={}, pre={},
                cons=0, bo=0, ej_end=-1.0, trial=False,
            )
            for k in ids
        }  # fmt: skip

    def cost(self, key_id: str, t: float) -> float:
        k: Any = self.keys[key_id]
        mean = self.A + self.B * self.nbar
        d = math.exp(-(t - k.ts) / self.tau)
        rho = (k.S * d + 0.5 * 0.9) / (k.C * d + 0.5)
        c = rho
        if k.E > 0.01:
            d = math.exp(-(t - k.te) / self.tau)
            p = k.E * d / (k.M * d + 1)
            c = (1 - p) * rho + p * (k.F / mean + 4)
        if k.u is not None:
            c *= math.exp(self.kappa * (math.log(1 + len(k.live)) - k.u))
        for flight, last, unit in ((k.live, k.t_end, rho * mean), (k.pre, k.t_first, rho * self.A)):
            if flight:
                q = len(flight) * min(t - last, t - sum(flight.values()) / len(flight)) / unit
                if q > 3:
                    c *= 1 + q - 3
        if k.r > 0.01:
            c *= 1 + 0.3 * k.r * math.exp(-(t - k.tr) / 20)
        return float(c)

    def begin(self, key_id: str, number: int, t: float, stream: bool) -> tuple[str, int, float, int]:
        k = self.keys[key_id]
        token = (key_id, number, t, len(k.live))
        k.live[number] = t
        if stream:
            k.pre[number] = t
        return token

    def end(
        self,
        token: tuple[str, int, float, int],
        outcome: str,
        t: float,
        latency: float,
        ttft: float | None,
        n: int,
    ) -> None:
        key_id, number, t0, i0 = token
        k = self.keys[key_id]
        del k.live[number]
        k.pre.pop(number, None)
        if outcome == "client":
            return
        k.t_end = t
        if outcome == "rate_limit":
            k.r = k.r * math.exp(-(t - k.tr) / 20) + 1
            k.tr = t
            return
        d = math.exp(-(t - k.te) / self.tau) * (1 - 1 / 10)
        k.E, k.M, k.te = k.E * d, k.M * d + 1, t
        if outcome != "ok":
            k.E += 1
            k.F += 0.3 * (latency - k.F)
            k.cons += 1
            if t0 >= k.ej_end and (outcome == "auth" or k.trial or k.cons >= 3):
                lo = max(3.0, k.F)
                hi = max(15.0, lo, 200 * self.gap * min(1.0, k.F / (self.A + self.B * self.nbar)))
                if outcome == "auth":
                    lo, hi = 60.0, 600.0
                k.ej_end = t + min(hi, lo * 2**k.bo)
                k.bo += 1
                k.trial = True
            return
        if ttft is not None:
            self.sT, self.cT = 0.995 * self.sT + ttft, 0.995 * self.cT + 1
            self.sG, self.sN = 0.995 * self.sG + latency - ttft, 0.995 * self.sN + n
        self.sL, self.sM = 0.995 * self.sL + latency, 0.995 * self.sM + n + 40
        if self.cT >= 10:
            self.A, self.B = self.sT / self.cT, self.sG / self.sN
        else:
            self.B = self.sL / self.sM
            self.A = 40 * self.B
        self.nbar += 0.01 * (n - self.nbar)
        x = min(20.0, max(0.05, latency / (self.A + self.B * n)))
        d = math.exp(-(t - k.ts) / self.tau) * (1 - 1 / 25)
        k.S, k.C, k.ts = k.S * d + x, k.C * d + 1, t
        a, b = math.log(1 + i0), math.log(x)
        if k.u is None:
            k.u, k.v = a, b
        else:
            da, db = a - k.u, b - k.v
            k.u += 0.05 * da
            k.v += 0.05 * db
            self.Suu, self.Suv = 0.998 * self.Suu + da * da, 0.998 * self.Suv + da * db
            self.kappa = min(1.5, max(0, (0.3 * 20 + self.Suv) / (20 + self.Suu)))
        k.cons = 0
        if not k.trial:
            k.bo = 0
        elif t0 >= k.ej_end:
            k.trial = False
            k.bo = 0
            k.E = k.M = k.S = k.C = 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_costs_are_those_of_the_formulas(seed: int) -> None:
    rng = random.Random(seed)
    ids = ["a", "b", "c"]
    balancer, clock = make(*ids, rng=Steady())
    reference = Reference(ids, clock.now)
    flying: list[tuple[Any, tuple[str, int, float, int], bool]] = []
    gap = last = None
    for number in range(250):
        clock.now += rng.expovariate(1.0)
        act = rng.random()
        if act < 0.1:
            balancer.pick(ids, SimpleNamespace(attempt=rng.randint(0, 1)) if act < 0.02 else None)
            if act >= 0.02 or balancer._last == clock.now:
                if last is not None:
                    gap = clock.now - last if gap is None else gap + 0.05 * (clock.now - last - gap)
                    reference.tau, reference.gap = max(25.0, 6 * gap * 3), gap
                last = clock.now
        elif act < 0.55 or not flying:
            key_id, stream = rng.choice(ids), rng.random() < 0.5
            attempt = balancer.begin(key_id, stream=stream)
            flying.append((attempt, reference.begin(key_id, number, clock.now, stream), stream))
        elif act < 0.65:
            attempt, token, stream = rng.choice(flying)
            balancer.first_token(attempt)
            reference.keys[token[0]].pre.pop(token[1], None)
            reference.keys[token[0]].t_first = clock.now
        else:
            attempt, token, stream = flying.pop(rng.randrange(len(flying)))
            outcome: Any = rng.choices(OUTCOMES, (20, 4, 1, 8, 4))[0]
            latency, tokens = rng.lognormvariate(0.5, 1.0), rng.randint(1, 900)
            ttft = latency * rng.random() if stream else None
            balancer.end(attempt, outcome, latency, ttft, tokens)
            reference.end(token, outcome, clock.now, latency, ttft, tokens)
        for key_id, seen in balancer.snapshot().items():
            assert seen.cost == pytest.approx(reference.cost(key_id, clock.now), rel=1e-6)
            assert seen.is_trial == reference.keys[key_id].trial
    assert balancer.kappa == pytest.approx(reference.kappa)


def test_client_ends_change_no_cost() -> None:
    balancer, clock = make("a", "b")
    one(balancer, clock, "a", latency=2.0, output_tokens=100)
    one(balancer, clock, "b", "error", 0.1)
    attempts = [balancer.begin(key_id) for key_id in ("a", "b", "b")]
    for attempt in attempts:
        balancer.end(attempt, "client", 0.001, ttft=0.0005, output_tokens=9, retry_after=99)
    clean, other = make("a", "b")
    one(clean, other, "a", latency=2.0, output_tokens=100)
    one(clean, other, "b", "error", 0.1)
    assert balancer.snapshot() == clean.snapshot()
    clock.now += 5
    other.now += 5
    assert balancer.snapshot() == clean.snapshot()


def test_a_failure_is_priced_and_never_counted_as_a_fast_answer() -> None:
    balancer, clock = make("a", "b")
    for key_id in ("a", "b", "a", "b"):
        one(balancer, clock, key_id, latency=2.0)
    before = balancer.snapshot()["a"]
    one(balancer, clock, "a", "error", 0.01)
    after = balancer.snapshot()["a"]
    assert after.rho == pytest.approx(before.rho, rel=0.01)
    assert after.cost is not None
    assert after.cost > 1.5
    assert after.error_rate == pytest.approx(1 / (2 * 0.9 + 1 + 1), rel=0.1)


def test_six_silent_attempts_drive_traffic_away() -> None:
    balancer, clock = make("a", "b")
    for _ in range(10):
        one(balancer, clock, "a", latency=1.0, output_tokens=60)
        one(balancer, clock, "b", latency=1.0, output_tokens=60)
    mean = balancer.snapshot()["b"].latency
    assert mean is not None
    for _ in range(6):
        balancer.begin("a")
    for _ in range(7):
        attempt = balancer.begin("b")
        clock.now += 3 * mean / 7
        balancer.end(attempt, "ok", 1.0, output_tokens=60)
    assert shares(balancer, ["a", "b"])["a"] < 0.01


def test_only_announced_streams_are_missed_when_first_tokens_fail_to_come() -> None:
    balancer, clock = make("plain", "stream", "told")
    for _ in range(6):
        for key_id in ("plain", "stream", "told"):
            one(balancer, clock, key_id, latency=30.0, ttft=0.2, output_tokens=150)
    base = {key_id: cost(balancer, key_id) for key_id in ("plain", "stream", "told")}
    balancer.begin("plain")
    balancer.begin("stream", stream=True)
    told = balancer.begin("told", stream=True)
    clock.now += 0.3
    balancer.first_token(told)
    clock.now += 1.2
    assert cost(balancer, "plain") / base["plain"] < 1.3
    assert cost(balancer, "told") / base["told"] < 1.3
    assert cost(balancer, "stream") / base["stream"] > 3
    balancer.first_token(told)
    assert balancer._keys["told"].waiting == 0


def test_a_refusal_makes_a_key_less_liked_and_is_forgotten() -> None:
    balancer, clock = make("a")
    base = cost(balancer, "a")
    for expected in (1.3, 1.6):
        one(balancer, clock, "a", "rate_limit", 0.0, retry_after=0)
        assert cost(balancer, "a") == pytest.approx(base * expected)
    clock.now += 20
    assert cost(balancer, "a") == pytest.approx(base * (1 + 0.6 / math.e))
    assert balancer.snapshot()["a"].error_rate == 0


@pytest.mark.parametrize(
    ("grow", "low", "high"), [(0.0, 0.0, 0.12), (1.0, 0.75, 1.5)], ids=["infinite servers", "self-hosted"]
)
def test_the_load_exponent_is_learned(grow: float, low: float, high: float) -> None:
    balancer, clock = make("a", "b")
    rng = random.Random(5)
    assert balancer.kappa == 0.3
    for _ in range(400):
        load = rng.choice([1, 2, 4, 8])
        attempts = [balancer.begin("a") for _ in range(load)]
        latency = load**grow * rng.lognormvariate(0, 0.1)
        clock.now += latency
        balancer.end(attempts[-1], "ok", latency, output_tokens=100)
        for attempt in attempts[:-1]:
            balancer.end(attempt, "client", latency)
    assert low <= balancer.kappa <= high


def test_a_loaded_key_costs_more() -> None:
    balancer, clock = make("a")
    one(balancer, clock, "a")
    idle = cost(balancer, "a")
    balancer.begin("a")
    assert cost(balancer, "a") == pytest.approx(idle * 2**0.3)


def test_a_slow_key_is_tried_again_within_400_s() -> None:
    balancer, clock = make("a", "b")
    serve = lambda key, t, rng: answer(8 if key == "b" and t < 100 else 1, rng)  # noqa: E731
    picks, _ = simulate(balancer, clock, ["a", "b"], serve, seconds=1000, rate=1)
    times = [at for at, key_id in picks if key_id == "b"]
    assert max(after - before for before, after in pairwise(times)) < 400
    assert part(picks, "b", 600) > 0.25


def test_memory_is_longer_where_requests_are_rare() -> None:
    balancer, clock = make("a", "b")
    for _ in range(50):
        balancer.pick(["a", "b"])
        clock.now += 20
    one(balancer, clock, "a", latency=1.0)
    clock.now += 6 * 20 * 2
    assert balancer.snapshot()["a"].observations == pytest.approx(1 / math.e, rel=0.02)


def test_retries_do_not_count_as_arrivals() -> None:
    balancer, clock = make("a", "b")
    for attempt in (0, 1, 2, 0, 1, 2, 0):
        balancer.pick(["a", "b"], SimpleNamespace(attempt=attempt))
        clock.now += 10 if attempt == 2 else 0
    assert balancer._gap == 10


# Failures


def test_three_fast_failures_close_a_key_then_one_trial_at_a_time_then_all() -> None:
    balancer, clock = make("a", "b")
    for _ in range(2):
        one(balancer, clock, "a", "error", 0.05)
    assert balancer.rest("a") == 0
    one(balancer, clock, "a", "error", 0.05)
    rest = balancer.rest("a")
    assert 2.25 <= rest <= 3.75
    assert balancer.snapshot()["a"].reason == "failing"
    assert shares(balancer, ["a", "b"])["a"] == 0
    clock.now += rest - 0.01
    assert shares(balancer, ["a", "b"])["a"] == 0
    clock.now += 0.02
    assert balancer.rest("a") == 0
    assert shares(balancer, ["a", "b"])["a"] == pytest.approx(0.5, abs=0.04)  # its weighted share of each pick
    trial = balancer.begin("a")
    assert shares(balancer, ["a", "b"])["a"] == 0  # one at a time
    assert (balancer.snapshot()["a"].reason, balancer.rest("a")) == ("trial", 0.0)
    clock.now += 1
    balancer.end(trial, "ok", 1.0)
    after = balancer.snapshot()["a"]
    assert (after.is_trial, after.reason, after.error_rate, after.observations) == (False, None, 0.0, 0.0)
    assert shares(balancer, ["a", "b"])["a"] == pytest.approx(0.5, abs=0.04)


def test_a_recovered_key_may_have_two_in_flight_and_one_more_for_each_success() -> None:
    balancer, clock = make("a", "b")
    for _ in range(3):
        one(balancer, clock, "a", "error", 0.05)
    clock.now += 4
    one(balancer, clock, "a")
    first, second = balancer.begin("a"), balancer.begin("a")
    assert balancer.snapshot()["a"].reason == "capped"
    balancer.end(first, "ok", 1.0)
    balancer.end(second, "ok", 1.0)
    for _ in range(4):
        assert balancer.snapshot()["a"].reason is None
        balancer.begin("a")
    assert balancer.snapshot()["a"].reason == "capped"


def test_a_failed_trial_doubles_the_rest_up_to_15_s_and_a_success_starts_over() -> None:
    balancer, clock = make("a", rng=Steady())
    for _ in range(3):
        one(balancer, clock, "a", "error", 0.05)
    rests = []
    for _ in range(5):
        rests.append(round(balancer.rest("a"), 6))
        clock.now += balancer.rest("a")
        one(balancer, clock, "a", "error", 0.05)
    assert rests == [3, 6, 12, 15, 15]
    clock.now += balancer.rest("a")
    one(balancer, clock, "a")
    for _ in range(3):
        one(balancer, clock, "a", "error", 0.05)
    assert balancer.rest("a") == pytest.approx(3)


def test_a_client_end_leaves_the_trial_open() -> None:
    balancer, clock = make("a", "b")
    for _ in range(3):
        one(balancer, clock, "a", "error", 0.05)
    clock.now += 4
    one(balancer, clock, "a", "client", 0.1)
    assert balancer.snapshot()["a"].is_trial
    assert shares(balancer, ["a", "b"])["a"] == pytest.approx(0.5, abs=0.04)


def test_the_tail_of_one_outage_counts_once() -> None:
    balancer, clock = make("a", rng=Steady())
    stragglers = [balancer.begin("a") for _ in range(10)]
    late = balancer.begin("a")
    clock.now += 0.1
    for attempt in stragglers:
        balancer.end(attempt, "error", 0.1)
    assert balancer.rest("a") == pytest.approx(3)
    clock.now += 3
    balancer.end(late, "ok", 3.1)
    assert balancer.snapshot()["a"].is_trial  # an answer from before the outage proves nothing
    one(balancer, clock, "a", "error", 0.1)
    assert balancer.rest("a") == pytest.approx(6)


def test_slow_failures_are_tried_more_rarely() -> None:
    balancer, clock = make("a", "b", rng=Steady())
    for _ in range(200):
        balancer.pick(["b"])
        clock.now += 1
    for _ in range(3):
        one(balancer, clock, "a", "error", 30.0)
    fail_time = 1 + 29 * (1 - 0.7**3)
    assert balancer.rest("a") == pytest.approx(fail_time)
    for _ in range(12):
        clock.now += balancer.rest("a")
        one(balancer, clock, "a", "error", 30.0)
    assert balancer.rest("a") == pytest.approx(200 * 1.0)  # 200 mean gaps of 1 s
    assert balancer._gap == pytest.approx(1.0)


def test_a_rejected_credential_rests_60_s_doubling_to_600() -> None:
    balancer, clock = make("a", "b", rng=Steady())
    rests = []
    for _ in range(6):
        one(balancer, clock, "a", "auth", 0.05)
        rests.append(round(balancer.rest("a"), 6))
        assert balancer.snapshot()["a"].reason == "credentials"
        clock.now += balancer.rest("a")
    assert rests == [60, 120, 240, 480, 600, 600]


def test_rests_are_spread_by_a_quarter_either_way() -> None:
    rests = []
    for seed in range(200):
        balancer, clock = make("a", rng=random.Random(seed))
        one(balancer, clock, "a", "auth", 0.05)
        rests.append(balancer.rest("a"))
    assert 45 <= min(rests) < 48
    assert 72 < max(rests) <= 75


def test_when_all_are_blocked_the_refused_come_before_failing_before_rejected() -> None:
    balancer, clock = make("rejected", "failing", "refused", "refused longer")
    one(balancer, clock, "rejected", "auth", 0.0)
    for _ in range(3):
        one(balancer, clock, "failing", "error", 0.0)
    one(balancer, clock, "refused", "rate_limit", 0.0, retry_after=3000)
    one(balancer, clock, "refused longer", "rate_limit", 0.0, retry_after=3500)
    everyone = ["rejected", "failing", "refused longer", "refused"]
    order = []
    while everyone:
        order.append(balancer.pick(everyone))
        everyone.remove(order[-1])
    assert order == ["refused", "refused longer", "failing", "rejected"]


def test_a_key_on_trial_has_no_say_in_what_is_best() -> None:
    balancer, clock = make("trial", "a", "b")
    for _ in range(3):
        one(balancer, clock, "trial", "error", 0.0)
    clock.now += 4
    for key_id, ratio in (("trial", 0.1), ("a", 1.0), ("b", 1.08)):
        key = balancer._keys[key_id]
        key.ratios, key.count, key.ratios_at = ratio * 1e9, 1e9, clock.now
        key.failures = 0.0
    assert shares(balancer, ["trial", "a", "b"])["b"] == pytest.approx(1 / 3, abs=0.04)


def test_when_all_are_on_trial_they_share_by_weight() -> None:
    balancer, clock = make("a", "b")
    for key_id in ("a", "b"):
        one(balancer, clock, key_id, "auth", 0.0)
    clock.now += 80
    assert shares(balancer, {"a": 1.0, "b": 3.0})["b"] == pytest.approx(0.75, abs=0.04)


# Refusals and quotas


def test_retry_after_is_kept_to_the_tenth_of_a_second() -> None:
    balancer, clock = make("a", "b")
    one(balancer, clock, "a", "rate_limit", 0.0, retry_after=7.3)
    assert balancer.rest("a") == pytest.approx(7.3)
    assert balancer.snapshot()["a"].reason == "refused"
    clock.now += 7.2
    assert shares(balancer, ["a", "b"])["a"] == 0
    clock.now += 0.1001
    assert balancer.rest("a") == 0
    assert shares(balancer, ["a", "b"])["a"] > 0


def test_a_shorter_wait_or_an_outage_does_not_shorten_a_stated_one() -> None:
    balancer, clock = make("a")
    late = [balancer.begin("a") for _ in range(4)]
    one(balancer, clock, "a", "rate_limit", 0.0, retry_after=100)
    balancer.end(late[0], "rate_limit", 0.1, retry_after=5)
    for attempt in late[1:]:
        balancer.end(attempt, "error", 0.1)
    assert balancer.snapshot()["a"].is_trial
    assert balancer.rest("a") == pytest.approx(100)


@pytest.mark.parametrize(
    ("stated", "kept"), [(-5, 0.0), (1e9, 3600.0), (math.inf, 3600.0), (0, 0.0)], ids=["negative", "absurd", "inf", "0"]
)
def test_a_stated_wait_is_clamped(stated: float, kept: float) -> None:
    balancer, clock = make("a")
    one(balancer, clock, "a", "rate_limit", 0.0, retry_after=stated)
    assert balancer.rest("a") == pytest.approx(kept)


def test_refusals_without_a_stated_wait_double_from_1_to_30_s_and_a_success_starts_over() -> None:
    balancer, clock = make("a", rng=Steady())
    rests = []
    for stated in (None, math.nan, None, None, None, None, None):
        one(balancer, clock, "a", "rate_limit", 0.0, retry_after=stated)
        rests.append(round(balancer.rest("a"), 6))
        clock.now += balancer.rest("a")
    assert rests == [1, 2, 4, 8, 16, 30, 30]
    one(balancer, clock, "a")
    one(balancer, clock, "a", "rate_limit", 0.0)
    assert balancer.rest("a") == pytest.approx(1)


def test_a_key_without_quota_left_is_avoided_until_it_refills() -> None:
    balancer, clock = make("a", "b")
    attempt = balancer.begin("a")
    clock.now += 0.2
    balancer.quota(attempt, "requests", 2, 60, 29.0)  # 2 a second
    balancer.end(attempt, "ok", 0.2)
    assert balancer.rest("a") == 0
    for _ in range(2):
        one(balancer, clock, "a", latency=0.01)
    clock.now -= 0.02
    # 2 left at the start of the first attempt, 0.2 s of refill, two sent since
    assert balancer.rest("a") == pytest.approx((1 - (2 + 0.2 * 2 - 2)) / 2)
    assert balancer.snapshot()["a"].reason == "dry"
    assert shares(balancer, ["a", "b"])["a"] == 0
    clock.now += balancer.rest("a")
    assert balancer.rest("a") == 0
    assert shares(balancer, ["a", "b"])["a"] > 0


def test_tokens_are_counted_with_the_request() -> None:
    balancer, clock = make("a", "b")
    attempt = balancer.begin("a")
    balancer.quota(attempt, "tokens", 1000, 10_000, 90.0)
    balancer.end(attempt, "client", 0.0)
    small, large = SimpleNamespace(input_tokens=500), SimpleNamespace(input_tokens=900)
    assert shares(balancer, ["a", "b"], request=small)["a"] > 0
    assert shares(balancer, ["a", "b"], request=large)["a"] == 0
    clock.now += 0.51  # 900 + 150 needed, 100 a second
    assert shares(balancer, ["a", "b"], request=large)["a"] > 0
    huge = SimpleNamespace(input_tokens=10**6)  # never more than the limit is asked for
    assert shares(balancer, ["a", "b"], request=huge)["a"] == 0
    clock.now += 90
    assert shares(balancer, ["a", "b"], request=huge)["a"] > 0


def test_the_report_of_the_attempt_that_began_last_counts() -> None:
    balancer, clock = make("a")
    older = balancer.begin("a")
    clock.now += 1
    newer = balancer.begin("a")
    clock.now += 1
    balancer.quota(newer, "requests", 0, 10, 10)
    balancer.quota(older, "requests", 9, 10, 10)
    balancer.end(older, "ok", 2.0)
    balancer.end(newer, "ok", 1.0)
    balancer.quota(newer, "requests", 10, 10, 10)  # after its end: too late
    assert balancer._keys["a"].quotas["requests"].remaining == 0


@pytest.mark.parametrize("kind", ["ocr-pages", "audio-seconds", "input-characters", "ocr-pages-month"])
def test_a_quota_of_anything_but_tokens_is_counted_in_attempts(kind: str) -> None:
    balancer, clock = make("a", "b")
    long = SimpleNamespace(input_tokens=10**6)  # a document in the body says nothing about its pages
    attempt = balancer.begin("a")
    balancer.quota(attempt, kind, 1, 60, 59.0)  # one a second
    balancer.end(attempt, "client", 0.0)
    assert shares(balancer, ["a", "b"], request=long)["a"] > 0
    attempt = balancer.begin("a")
    balancer.quota(attempt, kind, 0, 60, 60.0)
    balancer.end(attempt, "client", 0.0)
    assert shares(balancer, ["a", "b"], request=long)["a"] == 0
    assert (balancer.rest("a"), balancer.snapshot()["a"].reason) == (1, "dry")
    clock.now += 1
    assert balancer.rest("a") == 0
    assert shares(balancer, ["a", "b"], request=long)["a"] > 0


def test_a_refusal_empties_every_quota() -> None:
    balancer, clock = make("a", "b")
    attempt = balancer.begin("a")
    balancer.quota(attempt, "requests", 50, 60, 10)  # 1 a second
    clock.now += 0.5
    balancer.end(attempt, "rate_limit", 0.5, retry_after=0.2)
    assert balancer.rest("a") == pytest.approx(1.0)
    clock.now += 0.5
    assert balancer.snapshot()["a"].reason == "dry"


def test_attempts_refused_together_are_paid_for_once() -> None:
    balancer, clock = make("a", "b")
    first = balancer.begin("a")
    balancer.quota(first, "requests", 1000, 2000, 1000)  # 1 a second
    others = [balancer.begin("a") for _ in range(20)]
    for attempt in (first, *others):
        balancer.end(attempt, "rate_limit", 0.0, retry_after=0)
    assert balancer.rest("a") == pytest.approx(1.0)
    assert balancer.pick({"a": 1.0, "b": 0.0}) == "b"
    clock.now += 1.0
    assert balancer.rest("a") == 0


def test_an_unknown_refill_never_leaves_a_key_dry_for_ever() -> None:
    balancer, clock = make("a", "b")
    attempt = balancer.begin("a")
    balancer.quota(attempt, "requests", 0, 60, 0)
    balancer.end(attempt, "rate_limit", 0.0, retry_after=1)
    clock.now += 1.01
    assert balancer.rest("a") == 0

    balancer, clock = make("a", "b")
    attempt = balancer.begin("a")
    balancer.quota(attempt, "requests", 30, 60, 30)
    balancer.quota(attempt, "requests", 0, 60, 0)  # keeps the known rate of 1 a second
    balancer.end(attempt, "ok", 0.0)
    assert balancer.rest("a") == pytest.approx(1.0)


def test_more_attempts_than_the_limit_without_headers_do_not_leave_a_key_dry_for_ever() -> None:
    balancer, clock = make("a", "b")
    attempt = balancer.begin("a")
    balancer.quota(attempt, "requests", 0, 5, 60)
    balancer.end(attempt, "ok", 0.0)
    for _ in range(8):
        one(balancer, clock, "a", latency=0.0)
    clock.now += 200
    assert balancer.rest("a") == 0


def test_a_burst_after_a_pause_is_counted_in_full() -> None:
    balancer, clock = make("a", "b")
    attempt = balancer.begin("a")
    balancer.quota(attempt, "requests", 4, 5, 1)
    balancer.end(attempt, "ok", 0.0)
    clock.now += 1000
    for _ in range(5):
        assert balancer.snapshot()["a"].reason is None
        balancer.begin("a")
    assert balancer.snapshot()["a"].reason == "dry"


@pytest.mark.parametrize(
    ("remaining", "limit", "reset"),
    [(-1, 60, 1), (0, 0, 1), (0, -1, 1), (math.nan, 60, 1), (0, math.nan, 1), (math.inf, 60, 1), (0, math.inf, 1)],
    ids=str,
)
def test_nonsense_about_a_quota_is_ignored(remaining: float, limit: float, reset: float) -> None:
    balancer, _ = make("a")
    attempt = balancer.begin("a")
    balancer.quota(attempt, "requests", remaining, limit, reset)
    balancer.end(attempt, "ok", 1.0)
    assert balancer._keys["a"].quotas == {}
    assert balancer.rest("a") == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_the_shortcut_for_ample_quotas_agrees_with_the_full_count(seed: int) -> None:
    rng = random.Random(seed)
    balancer, clock = make("a", "b")
    key = balancer._keys["a"]
    for _ in range(60):
        attempt = balancer.begin("a")
        clock.now += rng.random()
        if rng.random() < 0.3:
            balancer.quota(attempt, rng.choice(["requests", "tokens"]), rng.randint(0, 20_000) ** rng.random(), 20_000,
                           rng.choice([0, 5, 60]))  # fmt: skip
        if rng.random() < 0.7:
            balancer.end(attempt, "ok", 0.5)
        tokens = rng.choice([0, 100, 6000])
        opened = balancer._scan(["a"], None, clock.now, tokens + balancer._tokens)[0]
        is_dry = balancer._dry(key, clock.now, tokens + balancer._tokens) > clock.now
        assert bool(opened) is not is_dry


# Candidates


def test_an_unknown_key_is_accepted() -> None:
    balancer, _ = make()
    assert balancer.pick(["new"]) == "new"
    assert balancer.snapshot()["new"].weight == 1.0
    assert balancer.begin("another").key.id == "another"


def test_keys_of_the_first_pick_are_there_from_the_start_and_later_ones_ramp_up() -> None:
    balancer, clock = make("added")
    balancer.pick(["seen", "added"])
    balancer.add("late")
    for _ in range(50):
        balancer.begin("seen")
        balancer.begin("added")
    attempt = balancer.begin("late")
    reasons = {key_id: seen.reason for key_id, seen in balancer.snapshot().items()}
    assert reasons == {"added": None, "seen": None, "late": "capped"}
    assert shares(balancer, ["seen", "late"])["late"] == 0
    assert balancer.pick(["late"]) == "late"
    clock.now += 1
    balancer.end(attempt, "ok", 1.0)
    flying = [balancer.begin("late"), balancer.begin("late")]
    assert balancer.snapshot()["late"].reason == "capped"
    for attempt in flying:
        balancer.end(attempt, "ok", 1.0)
    for _ in range(29):
        one(balancer, clock, "late", latency=0.1)
    for _ in range(500):
        balancer.begin("late")
    assert balancer.snapshot()["late"].reason is None


@pytest.mark.parametrize("empty", [[], (), {}, set(), frozenset(), ""], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("kind", [LatencyWeighted, RoundRobin, WeightedRandom, LeastBusy, LowestLatency])
def test_no_candidates_is_a_clear_error(kind: type[Any], empty: Any) -> None:
    with pytest.raises(ValueError, match="candidates"):
        kind().pick(empty)


def test_a_single_string_is_not_a_collection_of_keys() -> None:
    with pytest.raises(ValueError, match="not the string"):
        LatencyWeighted().pick("key")


def test_one_open_key_is_taken_without_a_random_number() -> None:
    balancer, clock = make("a", "b")
    one(balancer, clock, "a", "rate_limit", 0.0, retry_after=9)
    state = balancer._rng.getstate()
    assert {balancer.pick(["a", "b"]) for _ in range(20)} == {"b"}
    assert balancer._rng.getstate() == state


def test_of_many_candidates_a_sample_of_32_is_looked_at() -> None:
    ids = [f"k{i}" for i in range(400)]
    balancer, _ = make()
    balancer.pick(ids)
    assert len(balancer.snapshot()) == 32
    assert shares(balancer, ids, 4000)[ids[-1]] < 0.02
    assert len(balancer.snapshot()) == 400


def test_sampling_finds_the_one_open_key_among_many() -> None:
    ids = [f"k{i}" for i in range(150)]
    balancer, clock = make(*ids)
    for key_id in ids[:-1]:
        one(balancer, clock, key_id, "rate_limit", 0.0, retry_after=60)
    assert {balancer.pick(ids) for _ in range(30)} == {"k149"}
    weights = dict.fromkeys(ids, 1.0) | {"k149": 0.0}
    clock.now += 61
    assert shares(balancer, weights)["k149"] == 0


def test_sampling_finds_the_one_weighted_key_among_many_reserves() -> None:
    ids = [f"k{i}" for i in range(150)]
    balancer, _ = make(*ids)
    weights = dict.fromkeys(ids, 0.0) | {"k77": 1.0}
    assert {balancer.pick(weights) for _ in range(30)} == {"k77"}


def test_of_keys_at_their_cap_the_least_loaded_weighted_one_is_taken() -> None:
    balancer, _ = make()
    balancer.begin("start")
    for key_id in ("reserve", "a", "b"):
        balancer.add(key_id, 0.0 if key_id == "reserve" else 1.0)
    for key_id in ("reserve", "a", "a", "b", "b", "b"):
        balancer.begin(key_id)
    assert balancer.pick(["reserve", "b", "a"]) == "a"
    balancer.begin("a")
    balancer.begin("a")
    assert balancer.pick(["reserve", "b", "a"]) == "b"


def test_a_begin_starts_the_pool_too() -> None:
    balancer, _ = make()
    balancer.begin("a")
    balancer.add("late")
    balancer.begin("late")
    assert balancer.snapshot()["late"].reason == "capped"


@pytest.mark.parametrize("shape", [list, tuple, set, frozenset, dict.fromkeys])
def test_any_collection_of_ids_will_do(shape: Any) -> None:
    ids = ["a", "b", "c"]
    candidates = shape(ids, 1.0) if shape == dict.fromkeys else shape(ids)
    balancer, _ = make()
    assert set(shares(balancer, candidates, 200)) == set(ids)


def test_the_same_seed_and_clock_give_the_same_picks() -> None:
    def run() -> list[tuple[float, str]]:
        balancer, clock = make("a", "b", "c", rng=random.Random(11))

        def serve(key: str, _t: float, rng: random.Random) -> tuple[Outcome, float, int]:
            if rng.random() < 0.1:
                return rng.choice(OUTCOMES), 0.2, 10
            return answer(1.5 if key == "c" else 1, rng)

        return simulate(balancer, clock, ["a", "b", "c"], serve, seconds=200, rate=3)[0]

    assert run() == run()


def test_picks_do_not_depend_on_the_order_of_hashes() -> None:
    code = (
        "import random; from bifrost_core.balancing import LatencyWeighted as L;"
        "b = L(clock=lambda: 0.0, rng=random.Random(3)); ids = {f'key{i}' for i in range(150)};"
        "print([b.pick(ids) for _ in range(20)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


# Sessions


def session_of(ratio: float) -> tuple[LatencyWeighted, FakeClock, SimpleNamespace, str]:
    """A session on a key that then costs ``ratio`` times the other one."""
    balancer, clock = make("a", "b")
    request = SimpleNamespace(session="s")
    home = balancer.pick(["a", "b"], request)
    for key_id in ("a", "b"):
        key = balancer._keys[key_id]
        key.ratios, key.count, key.ratios_at = (ratio if key_id == home else 1.0) * 1e9, 1e9, clock.now
    return balancer, clock, request, home


def test_a_session_stays_on_its_key_at_one_and_a_half_times_the_best() -> None:
    balancer, _, request, home = session_of(1.49)
    assert shares(balancer, ["a", "b"], 200, request)[home] == 1


def test_a_session_leaves_a_key_at_four_times_the_best_and_stays_where_it_went() -> None:
    balancer, _, request, home = session_of(4.0)
    other = "b" if home == "a" else "a"
    assert shares(balancer, ["a", "b"], 200, request) == {other: 1.0, home: 0.0}


def test_a_session_leaves_a_closed_key_and_follows_the_last_pick() -> None:
    balancer, clock, request, home = session_of(1.0)
    other = "b" if home == "a" else "a"
    one(balancer, clock, home, "rate_limit", 0.0, retry_after=5)
    assert balancer.pick(["a", "b"], request) == other
    clock.now += 6
    assert shares(balancer, ["a", "b"], 100, request)[other] == 1


def test_a_session_does_not_stay_on_a_reserve_key() -> None:
    balancer, clock = make("a")
    balancer.add("reserve", 0.0)
    request = SimpleNamespace(session="s")
    one(balancer, clock, "a", "rate_limit", 0.0, retry_after=5)
    assert balancer.pick(["a", "reserve"], request) == "reserve"
    clock.now += 60
    assert balancer.pick(["a", "reserve"], request) == "a"


def test_a_session_is_forgotten_after_ten_idle_minutes() -> None:
    balancer, clock, request, home = session_of(1.0)
    clock.now += 601
    seen = set()
    for _ in range(40):
        seen.add(balancer.pick(["a", "b"], request))
        clock.now += 601
    assert seen == {"a", "b"}
    assert home in seen


def test_sessions_are_at_most_ten_thousand_and_the_least_recent_go_first() -> None:
    balancer, _ = make("a", "b")
    for number in range(10_000):
        balancer.pick(["a", "b"], SimpleNamespace(session=number))
    balancer.pick(["a", "b"], SimpleNamespace(session=0))
    for number in range(10_000, 10_100):
        balancer.pick(["a", "b"], SimpleNamespace(session=number))
    assert len(balancer._sessions) == 10_000
    assert 0 in balancer._sessions
    assert 1 not in balancer._sessions


def test_a_session_finds_its_key_among_many() -> None:
    ids = [f"k{i}" for i in range(300)]
    balancer, _ = make(*ids)
    request = SimpleNamespace(session="s")
    assert len({balancer.pick(ids, request) for _ in range(50)}) == 1


# Bookkeeping


def test_nothing_leaks_after_many_random_begins_ends_and_cancels() -> None:
    rng = random.Random(1)
    balancer, clock = make("a", "b", "c")
    ids = ["a", "b", "c"]
    flying: list[Any] = []
    for _ in range(100_000):
        clock.now += rng.random() * 0.1
        if rng.random() < 0.5 or not flying:
            flying.append(balancer.begin(balancer.pick(ids), stream=rng.random() < 0.5))
        else:
            attempt = flying.pop(rng.randrange(len(flying)))
            if rng.random() < 0.3:
                balancer.first_token(attempt)
            outcome = rng.choice(OUTCOMES)
            balancer.end(attempt, outcome, rng.random(), output_tokens=rng.randint(0, 300))
            if rng.random() < 0.05:
                balancer.end(attempt, "ok", 1.0)
    assert sum(seen.in_flight for seen in balancer.snapshot().values()) == len(flying)
    for attempt in flying:
        balancer.end(attempt, "client", 1.0)
    for key in balancer._keys.values():
        assert (key.in_flight, key.starts, key.waiting, key.waiting_starts, key.log_load) == (0, 0.0, 0, 0.0, 0.0)


def test_a_second_end_is_ignored() -> None:
    balancer, _ = make("a")
    attempt = balancer.begin("a")
    balancer.end(attempt, "ok", 1.0)
    before = balancer.snapshot()
    balancer.end(attempt, "error", 1.0)
    balancer.first_token(attempt)
    assert balancer.snapshot() == before


def test_attempts_of_a_removed_key_end_quietly_and_do_not_touch_its_successor() -> None:
    balancer, clock = make("a", "b")
    old = [balancer.begin("a", stream=True) for _ in range(4)]
    balancer.remove("a")
    balancer.remove("a")
    assert set(balancer.snapshot()) == {"b"}
    balancer.add("a")
    fresh = balancer.snapshot()["a"]
    clock.now += 1
    outcomes: tuple[Outcome, ...] = ("ok", "auth", "rate_limit", "client")
    for attempt, outcome in zip(old, outcomes, strict=True):
        balancer.first_token(attempt)
        balancer.quota(attempt, "requests", 0, 10, 10)
        balancer.end(attempt, outcome, 1.0)
    assert balancer.snapshot()["a"] == fresh
    assert old[0].key.in_flight == 0


def test_an_unknown_outcome_is_an_error_and_leaks_nothing() -> None:
    balancer, _ = make("a")
    attempt = balancer.begin("a")
    wrong: Any = "success"
    with pytest.raises(ValueError, match="'success'"):
        balancer.end(attempt, wrong, 1.0)
    assert balancer.snapshot()["a"].in_flight == 0


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("kind", [LatencyWeighted, RoundRobin, WeightedRandom, LeastBusy, LowestLatency])
def test_a_weight_that_is_none_is_an_error(kind: type[Any], weight: float) -> None:
    balancer = kind()
    balancer.add("a")
    with pytest.raises(ValueError, match="weight"):
        balancer.add("b", weight)
    with pytest.raises(ValueError, match="weight"):
        balancer.set_weight("a", weight)
    with pytest.raises(ValueError, match="weight"):
        balancer.pick({"a": weight, "b": 1.0})
    with pytest.raises(ValueError, match="no key 'x'"):
        balancer.set_weight("x", 1.0)


@pytest.mark.parametrize("option", [{"band": -0.1}, {"band": math.nan}, {"sticky": -1}, {"sticky": math.inf}], ids=str)
def test_options_out_of_range_are_errors(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="finite number >= 0"):
        LatencyWeighted(**option)


NUMBERS = st.one_of(st.floats(), st.integers(-(10**6), 10**9), st.just(0.0))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(OUTCOMES), NUMBERS, st.none() | NUMBERS, st.none() | NUMBERS,
                          st.none() | NUMBERS, st.floats(0, 1e6)), max_size=30),
       st.floats(0, 1e300))  # fmt: skip
def test_no_report_makes_the_state_anything_but_finite(reports: list[Any], weight: float) -> None:
    balancer, clock = make("a", "b")
    balancer.add("c", weight)
    for outcome, latency, ttft, tokens, wait, gap in reports:
        key_id = balancer.pick(["a", "b", "c"], SimpleNamespace(input_tokens=tokens, session=None, attempt=None))
        attempt = balancer.begin(key_id, stream=ttft is not None)
        clock.now += gap
        balancer.quota(attempt, "tokens", latency, tokens or 0, wait or 0)
        balancer.end(attempt, outcome, latency, ttft, tokens, wait)
        for seen in balancer.snapshot().values():
            figures = (seen.rho, seen.cost, seen.observations, seen.error_rate, seen.rest, balancer.kappa)
            assert all(figure is not None and 0 <= figure < math.inf for figure in figures)
            assert seen.latency is None or 0 < seen.latency < math.inf


def test_a_first_token_after_the_end_is_taken_to_be_the_end() -> None:
    balancer, clock = make("a")
    for _ in range(20):
        one(balancer, clock, "a", latency=1.0, ttft=50.0, output_tokens=100)
    assert balancer.snapshot()["a"].latency == pytest.approx(1.0, rel=0.01)


def test_absurd_figures_do_not_overflow() -> None:
    balancer, clock = make("a")
    for _ in range(600):
        one(balancer, clock, "a", latency=0.0)
        balancer.end(balancer.begin("a"), "ok", 1e308, ttft=1e308, output_tokens=1e308)
        balancer.end(balancer.begin("a"), "error", 1e308)
    assert cost(balancer, "a") < math.inf


# Showing


def test_a_snapshot_shows_each_key_and_changes_nothing() -> None:
    balancer, clock = make("a", "b")
    for _ in range(1500):
        balancer.pick(["a"])
    for _ in range(250):
        balancer.pick(["b"])
    for _ in range(20):
        one(balancer, clock, "a", latency=2.0, ttft=0.5, output_tokens=150)
    one(balancer, clock, "b", "auth", 0.0)
    state = balancer._rng.getstate()
    first, second = balancer.snapshot(), balancer.snapshot()
    assert first == second
    assert balancer._rng.getstate() == state
    assert [(seen.key_id, seen.share, seen.in_flight) for seen in first.values()] == [("a", 0.75, 0), ("b", 0.25, 0)]
    assert first["a"].latency == pytest.approx(2.0, rel=0.01)
    assert first["a"].time_to_first_token == pytest.approx(0.5, rel=0.01)
    assert (first["b"].reason, first["b"].is_trial) == ("credentials", True)
    assert make("x")[0].snapshot()["x"].latency is None


def test_the_calls_made_by_a_pick_are_few_and_grow_by_a_few_per_key() -> None:
    def calls(count: int) -> tuple[int, int]:
        ids = [f"k{i}" for i in range(count)]
        balancer, clock = make(*ids)
        for key_id in ids:
            for outcome in ("ok", "error", "rate_limit"):
                one(balancer, clock, key_id, outcome, 0.1, retry_after=0)
            attempt = balancer.begin(key_id, stream=True)
            balancer.quota(attempt, "requests", 500, 1000, 60)
            balancer.quota(attempt, "tokens", 500_000, 1_000_000, 60)
        request = SimpleNamespace(session="s", input_tokens=100, attempt=0)
        balancer.pick(ids, request)
        seen: Counter[str] = Counter()
        sys.setprofile(lambda _frame, event, _arg: seen.update([event]))
        try:
            balancer.pick(ids, request)
        finally:
            sys.setprofile(None)
        return seen["call"], seen["c_call"]

    python_4, c_4 = calls(4)
    python_10, c_10 = calls(10)
    assert python_10 == python_4 <= 9
    assert c_4 <= 20 + 8 * 4
    assert c_10 - c_4 <= 8 * 6


# The whole in virtual time


def test_identical_keys_get_nearly_the_same() -> None:
    ids = ["a", "b", "c", "d"]
    balancer, clock = make(*ids)
    picks, failed = simulate(balancer, clock, ids, lambda _k, _t, rng: answer(1, rng), seconds=600, rate=5)
    counts = Counter(key_id for _, key_id in picks)
    assert max(counts.values()) / min(counts.values()) <= 1.4
    assert failed == 0


def test_a_key_that_turns_slow_is_left_within_12_s_and_used_again_within_60_s() -> None:
    ids = ["a", "b", "c", "d"]
    balancer, clock = make(*ids)
    serve = lambda key, t, rng: answer(5 if key == "a" and 200 <= t < 400 else 1, rng)  # noqa: E731
    picks, _ = simulate(balancer, clock, ids, serve, seconds=600, rate=8)
    assert part(picks, "a", 100, 200) > 0.18
    assert part(picks, "a", 212, 400) < 0.025
    assert part(picks, "a", 460, 600) > 0.15


@pytest.mark.parametrize("duration", [0.05, 5.0], ids=["at once", "after 5 s"])
def test_a_key_that_fails_is_left_callers_see_no_error_and_it_is_used_again_within_60_s(duration: float) -> None:
    ids = ["a", "b", "c", "d"]
    balancer, clock = make(*ids)

    def serve(key: str, t: float, rng: random.Random) -> tuple[Outcome, float, int]:
        return ("error", duration, 0) if key == "a" and 200 <= t < 400 else answer(1, rng)

    picks, failed = simulate(balancer, clock, ids, serve, seconds=600, rate=5)
    assert failed / len(picks) <= 0.001
    assert part(picks, "a", 212, 400) < 0.025
    assert part(picks, "a", 460, 600) > 0.15


def test_a_key_that_fails_a_fifth_of_the_time_is_avoided() -> None:
    ids = ["a", "b", "c"]
    balancer, clock = make(*ids)

    def serve(key: str, _t: float, rng: random.Random) -> tuple[Outcome, float, int]:
        return ("error", 0.05, 0) if key == "a" and rng.random() < 0.2 else answer(1, rng)

    picks, failed = simulate(balancer, clock, ids, serve, seconds=600, rate=5)
    assert part(picks, "a") < 0.12
    assert failed == 0


# The simple ones


SIMPLE: list[Callable[[], Any]] = [
    RoundRobin,
    lambda: WeightedRandom(rng=random.Random(4)),
    lambda: LeastBusy(rng=random.Random(4)),
    lambda: LowestLatency(rng=random.Random(4)),
]


@pytest.mark.parametrize("kind", [*SIMPLE, LatencyWeighted], ids=["round", "random", "busy", "lowest", "default"])
def test_every_balancer_follows_the_protocol(kind: Callable[[], Any]) -> None:
    balancer: Balancer = kind()
    assert isinstance(balancer, Balancer)
    balancer.add("a")
    balancer.add("b", 2.0)
    attempt = balancer.begin(balancer.pick(["a", "b"], SimpleNamespace(attempt=0)))
    balancer.first_token(attempt)
    balancer.quota(attempt, "requests", 5, 10, 1)
    balancer.end(attempt, "ok", 1.0, ttft=0.2, output_tokens=10, retry_after=None)
    balancer.end(attempt, "ok", 1.0)
    balancer.remove("b")
    balancer.remove("b")
    assert balancer.pick(["a"]) == "a"


@pytest.mark.parametrize("kind", SIMPLE, ids=["round", "random", "busy", "lowest"])
def test_simple_balancers_share_by_weight_keep_a_reserve_and_count(kind: Callable[[], Any]) -> None:
    balancer = kind()
    for key_id, weight in (("a", 3.0), ("b", 1.0), ("reserve", 0.0)):
        balancer.add(key_id, weight)
    observed = shares(balancer, ["a", "b", "reserve"])
    assert observed["reserve"] == 0
    assert observed["a"] == pytest.approx(0.75, abs=0.04)
    assert shares(balancer, {"a": 1.0, "b": 1.0})["a"] == pytest.approx(0.5, abs=0.04)
    assert shares(balancer, {"a": 0.0, "b": 0.0})["a"] == pytest.approx(0.5, abs=0.04)
    assert balancer.pick(["reserve"]) == "reserve"
    attempts = [balancer.begin("a"), balancer.begin("a")]
    balancer.end(attempts[0], "client", 1.0)
    balancer.end(attempts[0], "client", 1.0)
    seen = balancer.snapshot()
    assert {key_id: state.in_flight for key_id, state in seen.items()} == {"a": 1, "b": 0, "reserve": 0}
    assert sum(state.share for state in seen.values()) == pytest.approx(1.0)
    assert balancer.rest("a") == 0
    balancer.set_weight("a", 7.0)
    assert balancer.snapshot()["a"].weight == 7.0


def test_round_robin_takes_turns_without_runs() -> None:
    balancer = RoundRobin()
    assert [balancer.pick(["a", "b", "c"]) for _ in range(6)] == ["a", "b", "c"] * 2
    weighted = RoundRobin()
    assert [weighted.pick({"a": 2.0, "b": 1.0}) for _ in range(6)] == ["a", "b", "a"] * 2


def test_least_busy_takes_the_key_with_the_fewest_in_flight() -> None:
    balancer = LeastBusy()
    first = balancer.begin("a")
    balancer.begin("b")
    balancer.begin("a")
    assert balancer.pick(["a", "b"]) == "b"
    balancer.begin("b")
    balancer.end(first, "error", 1.0)
    assert balancer.pick(["a", "b"]) == "a"


def test_lowest_latency_tries_all_then_takes_the_lowest_mean() -> None:
    balancer, clock = LowestLatency(), FakeClock()
    one(balancer, clock, "a", latency=1.0)
    assert balancer.pick(["a", "b"]) == "b"
    one(balancer, clock, "b", latency=2.0)
    one(balancer, clock, "b", "error", latency=0.01)
    assert balancer.pick(["a", "b"]) == "a"
    for _ in range(10):
        one(balancer, clock, "a", latency=3.0)
    assert balancer.pick(["a", "b"]) == "b"


def test_the_public_names_are_sorted_and_exist() -> None:
    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)
