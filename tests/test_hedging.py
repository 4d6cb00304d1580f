"""Hedges: when a second attempt is sent, which of the two answers, and what the loser leaves behind."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import pytest
import trio.testing

from bifrost_core import Attempt, CallRecord, ConfigError, Hedge, ProviderServerError, RetryPolicy, Router, hookimpl
from bifrost_core.hedging import AnswerTimes, Contender, race
from bifrost_core.retries import Plan, RetryBudget
from bifrost_core.testing import Fault, Latency, LoopClock, Simulated, SimulatedKey

MODEL = "simulated/any"
_T = TypeVar("_T")


def virtual(main: Callable[[], Awaitable[_T]]) -> _T:
    """Run in virtual time, in which only waiting takes any."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


class Ledger:
    """Every attempt as it was settled, and every call as it ended."""

    def __init__(self) -> None:
        self.settled: list[Attempt] = []
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_attempt_finished(self, attempt: Attempt) -> None:
        self.settled.append(attempt)

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


def keys(slow: float, fast: float, *, faults: tuple[Fault | None, Fault | None] = (None, None)) -> list[SimulatedKey]:
    return [
        SimulatedKey(name, latency=Latency(seconds), output_tokens=(5, 5), faults=() if fault is None else (fault,))
        for name, seconds, fault in zip(("slow", "fast"), (slow, fast), faults, strict=True)
    ]


class First:
    """Sends the first attempt of every call on one key."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id

    @hookimpl
    def bifrost_pick_route(self, routes: Any, call: Any) -> Any:
        if len(call.attempts) == 0:
            return next((route for route in routes if route.key_id == self.key_id), None)
        return None


def router_of(provider: Simulated, *plugins: object, hedge: Hedge | None = Hedge(1.0), **policy: Any) -> Router:  # noqa: B008 # frozen
    policy.setdefault("backoff", 0)
    return Router(
        [provider],
        plugins=[First("slow"), *plugins],
        retry=RetryPolicy(hedge=hedge, **policy),
        rng=random.Random(7),
        clock=LoopClock(),
    )


# -- when -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "after", ["p0", "p100", "95", "", "p", 0, -1, True, None, float("inf"), float("nan")], ids=repr
)
def test_a_hedge_that_makes_no_sense_is_refused(after: Any) -> None:
    with pytest.raises(ConfigError, match=r"percentile such as 'p95', or seconds") as caught:
        Hedge(after=after)
    assert caught.value.field == "hedge.after"


def test_a_percentile_is_the_nearest_rank_of_the_last_200_answers() -> None:
    times = AnswerTimes()
    for number in range(19):
        times.add(float(number))
    assert Hedge("p95").seconds(times) is None
    times.add(19.0)
    assert Hedge("p95").seconds(times) == 18.0
    assert Hedge("p50").seconds(times) == 9.0
    assert Hedge("p99.9").seconds(times) == 19.0
    assert Hedge(2.5).seconds(times) == 2.5
    for number in range(1000, 1200):
        times.add(float(number))
    assert [Hedge(after).seconds(times) for after in ("p1", "p95")] == [1001.0, 1189.0]


def test_a_percentile_agrees_with_sorting() -> None:
    rng = random.Random(3)
    times = AnswerTimes()
    seen: list[float] = []
    for _ in range(700):
        value = rng.choice([0.1, 0.2, rng.random()])
        times.add(value)
        seen.append(value)
        last = sorted(seen[-200:])
        if len(last) >= 20:
            assert times.percentile(95) == last[-(-len(last) * 95 // 100) - 1]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_slow_attempt_gets_a_second_beside_it_and_the_first_to_answer_is_the_answer(stream: bool) -> None:
    ledger = Ledger()
    provider = Simulated(keys(20.0, 0.5))

    async def main() -> tuple[Any, float]:
        async with router_of(provider, ledger) as router:
            began = anyio.current_time()
            if stream:
                async with router.stream(MODEL, "hi") as reading:
                    text = "".join([piece async for piece in reading.text()])
                reply = reading.response
                assert reply.text == text
            else:
                reply = await router.chat(MODEL, "hi")
            assert [row.in_flight for row in router.health()] == [0, 0]
            return reply, anyio.current_time() - began

    reply, seconds = virtual(main)
    assert seconds == pytest.approx(1.5, abs=0.1)
    assert reply.route.key_id == "fast"
    assert [(attempt.route.key_id, attempt.outcome) for attempt in reply.attempts] == [
        ("slow", "cancelled"),
        ("fast", "ok"),
    ]
    assert sorted(attempt.id for attempt in ledger.settled) == sorted(attempt.id for attempt in reply.attempts)
    assert [record.outcome for record in ledger.records] == ["ok"]
    # The loser's request was ended, and is on the provider's books as one that the client left.
    assert [request.left_after is not None for request in provider.journal] == [True, False]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_first_attempt_that_still_wins_ends_the_second(stream: bool) -> None:
    provider = Simulated(keys(1.5, 9.0))

    async def main() -> Any:
        async with router_of(provider) as router:
            if not stream:
                return await router.chat(MODEL, "hi")
            async with router.stream(MODEL, "hi") as reading:
                async for _ in reading:
                    pass
            return reading.response

    reply = virtual(main)
    assert [(attempt.route.key_id, attempt.outcome) for attempt in reply.attempts] == [
        ("slow", "ok"),
        ("fast", "cancelled"),
    ]
    assert reply.route.key_id == "slow"


@pytest.mark.parametrize(
    "what",
    ["no hedge", "quick enough", "one key", "effects", "no attempts left", "no budget left", "too few answers"],
)
def test_no_second_attempt_is_sent(what: str) -> None:
    listed = keys(0.5 if what == "quick enough" else 5.0, 0.5)
    provider = Simulated(listed[:1] if what == "one key" else listed)
    hedge = None if what == "no hedge" else Hedge("p95") if what == "too few answers" else Hedge(1.0)
    policy: dict[str, Any] = {}
    if what == "no attempts left":
        policy["max_attempts"] = 1
    if what == "no budget left":
        policy["budget"] = 0
    options: dict[str, Any] = {"effects": "possible"} if what == "effects" else {}

    async def main() -> Any:
        async with router_of(provider, hedge=hedge, **policy) as router:
            return await router.chat(MODEL, "hi", **options)

    assert [attempt.route.key_id for attempt in virtual(main).attempts] == ["slow"]


def test_a_percentile_hedges_the_slowest_calls_only() -> None:
    """Of 400 answers like one another, about one in twenty is hedged: no stampede."""
    same = Latency(1.0, sigma=0.3)
    provider = Simulated([SimulatedKey(name, latency=same, output_tokens=(5, 5)) for name in ("slow", "fast")])

    async def main() -> int:
        policy = RetryPolicy(hedge=Hedge("p95"))
        async with Router([provider], retry=policy, rng=random.Random(7), clock=LoopClock()) as router:
            return sum([len((await router.chat(MODEL, "hi")).attempts) - 1 for _ in range(400)])

    assert 8 <= virtual(main) <= 40


def test_a_hedge_is_paid_from_the_retry_budget() -> None:
    provider = Simulated(keys(20.0, 0.5))

    async def main() -> list[int]:
        async with router_of(provider, budget=2, budget_ratio=0) as router:
            return [len((await router.chat(MODEL, "hi")).attempts) for _ in range(4)]

    assert virtual(main) == [2, 2, 1, 1]
    policy = RetryPolicy()
    plan = Plan(policy, RetryBudget(policy), random.Random(1))
    plan.enter("a/b")
    assert [plan.hedge("a/b"), plan.hedge("a/b"), plan.attempts] == [True, False, 2]  # two on a deployment


# -- what fails -----------------------------------------------------------------------------------


def test_when_the_first_fails_the_second_goes_on() -> None:
    provider = Simulated(keys(0.0, 3.0, faults=(Fault("status", status=503, delay=2.0), None)))

    async def main() -> Any:
        async with router_of(provider) as router:
            return await router.chat(MODEL, "hi")

    reply = virtual(main)
    assert [(attempt.route.key_id, attempt.outcome, attempt.status) for attempt in reply.attempts] == [
        ("slow", "failed", 503),
        ("fast", "ok", 200),
    ]


def test_when_both_fail_the_call_fails_with_both_on_its_error() -> None:
    provider = Simulated(
        keys(0, 0, faults=(Fault("status", status=503, delay=2.0), Fault("status", status=500, delay=2.0)))
    )

    async def main() -> ProviderServerError:
        async with router_of(provider) as router:
            with pytest.raises(ProviderServerError) as caught:
                await router.chat(MODEL, "hi")
            return caught.value

    error = virtual(main)
    assert [(attempt.route.key_id, attempt.status) for attempt in error.attempts] == [("slow", 503), ("fast", 500)]
    assert error.status == 500


def test_a_rejected_key_is_not_asked_again_after_a_race() -> None:
    broken = Fault("status", status=500, delay=2.0)
    rejected = Fault("status", status=401, shape="B", delay=2.0)
    provider = Simulated([*keys(0, 0, faults=(rejected, broken)), SimulatedKey("third", faults=(broken,))])

    async def main() -> None:
        async with router_of(provider, max_attempts_per_deployment=4) as router:
            with pytest.raises(ProviderServerError):
                await router.chat(MODEL, "hi", timeout=30)

    virtual(main)
    assert [request.key_id for request in provider.journal].count("slow") == 1
    assert len(provider.journal) == 4


async def test_what_an_attempt_raises_is_raised_when_no_other_wins() -> None:
    async def broken(place: Contender[str]) -> str:
        raise ValueError("mine")

    async def nobody() -> None:
        return None

    with pytest.raises(ValueError, match="mine"):
        await race(broken, nobody, 10)

    async def well(place: Contender[str]) -> str:
        await place.claim()
        return "well"

    async def late(place: Contender[str]) -> str:
        await anyio.sleep(0.01)
        raise ValueError("late")

    async def challenge() -> Callable[[Contender[str]], Awaitable[str]]:
        return well

    assert await race(late, challenge, 0.0) == ["well"]


async def test_of_two_that_claim_at_once_one_wins() -> None:
    ended: list[str] = []

    def attempt(name: str) -> Callable[[Contender[str]], Awaitable[str]]:
        async def run(place: Contender[str]) -> str:
            try:
                await ready.wait()
                await place.claim()
            except BaseException:
                ended.append(name)
                raise
            return name

        return run

    ready = anyio.Event()

    async def challenge() -> Callable[[Contender[str]], Awaitable[str]]:
        ready.set()
        return attempt("second")

    (won,) = await race(attempt("first"), challenge, 0.0)
    assert {won, *ended} == {"first", "second"}


# -- cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0.5, 1.4, 3.0])
def test_a_cancelled_race_leaves_nothing_behind(at: float) -> None:
    ledger = Ledger()
    provider = Simulated(keys(20.0, 20.0))

    async def main() -> None:
        async with router_of(provider, ledger) as router:
            with anyio.move_on_after(at):
                await router.chat(MODEL, "hi")
            assert [row.in_flight for row in router.health()] == [0, 0]

    virtual(main)
    assert [record.outcome for record in ledger.records] == ["cancelled"]
    assert len(ledger.settled) == (1 if at < 1 else 2)
    assert {attempt.outcome for attempt in ledger.settled} == {"cancelled"}
    assert all(request.ended_after is not None for request in provider.journal)
