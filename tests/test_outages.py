"""Outages in virtual time: what a dead provider costs, what it still sees, and how it comes back.

Three simulated providers, tried in order; each serves ``any`` with two keys. ``BIFROST_OUTAGE_CALLS`` sets
the number of calls of each outage (the figures of the promise are for 2,000).
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio
import attrs
import pytest
import trio.testing

from bifrost_core import Attempt, CallError, RetryPolicy, Router, Timeout, hookimpl
from bifrost_core.engines.base import Exchange, HttpStream, TransportError
from bifrost_core.kinds import Kind
from bifrost_core.runs import Run
from bifrost_core.testing import Fault, Latency, LoopClock, Simulated, SimulatedKey
from bifrost_core.types import Operation, Request

CALLS = int(os.environ.get("BIFROST_OUTAGE_CALLS", "160"))
WORKERS = 20
NAMES = ("one", "two", "three")
CHAIN = {"one/any": ["two/any", "three/any"]}
QUICK = Latency(0.2, sigma=0.3, tokens_per_second=100)
_T = TypeVar("_T")


def virtual(main: Callable[[], Awaitable[_T]]) -> _T:
    """Run in virtual time, in which only waiting takes any."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


@attrs.define
class Seen:
    """One attempt, as it went out and as it ended."""

    provider: str
    key: str
    at: float
    ended: float
    kind: str | None
    call: str


class Watch:
    """Remembers every attempt, and when each provider's first route was seen to rest."""

    def __init__(self) -> None:
        self.router: Router | None = None
        self.attempts: list[Seen] = []
        self.rests: dict[str, float] = {}
        self._at: dict[str, float] = {}

    @hookimpl
    async def bifrost_reserve(self, attempt: Attempt) -> None:
        self._at[attempt.id] = anyio.current_time()

    @hookimpl
    async def bifrost_attempt_finished(self, attempt: Attempt) -> None:
        now, route = anyio.current_time(), attempt.route
        kind = None if attempt.kind is None else str(attempt.kind)
        call = attempt.id.rpartition("-")[0]
        self.attempts.append(Seen(route.provider, route.key_id, self._at.pop(attempt.id), now, kind, call))
        assert self.router is not None
        for row in self.router.health():
            if row.state == "open":
                self.rests.setdefault(row.route.provider, now)

    def of(self, provider: str) -> list[Seen]:
        return sorted((seen for seen in self.attempts if seen.provider == provider), key=lambda seen: seen.at)


class Refusing(Simulated):
    """A provider whose connections are refused from second 2 on."""

    @property
    def engine(self) -> Any:
        return _Refused(super().engine)


class _Refused:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    async def open(self, exchange: Exchange) -> HttpStream:
        if anyio.current_time() < 2:
            answer: HttpStream = await self._engine.open(exchange)
            return answer
        await anyio.sleep(0.001)
        raise TransportError(Kind.CONNECT_ERROR, "refused", phase="connect", sent=False)

    async def aclose(self) -> None:
        await self._engine.aclose()


def provider(name: str, *faults: Fault, keys: int = 2, made: type[Simulated] = Simulated, **law: Any) -> Simulated:
    law = {"latency": QUICK, "output_tokens": (5, 9), **law}
    return made([SimulatedKey(f"{name}-{n}", faults=faults, **law) for n in range(keys)], name=name, seed=3)


def router_of(providers: Sequence[Any], watch: Watch | None = None, **options: Any) -> Router:
    options.setdefault("fallbacks", CHAIN if len(providers) > 1 else {})
    watch = Watch() if watch is None else watch
    made = Router(providers, plugins=[watch], clock=LoopClock(), rng=random.Random(5), **options)
    watch.router = made
    return made


async def ask(router: Router, stream: bool, model: str = "one/any", **options: Any) -> None:
    if not stream:
        await router.chat(model, "hi", **options)
        return
    async with router.stream(model, "hi", **options) as reading:
        async for _ in reading:
            continue


async def workers(
    router: Router, calls: int, *, stream: bool, count: int = WORKERS, pause: float = 0.0
) -> list[CallError]:
    """So many calls by so many workers, each of which rests for ``pause`` seconds after a call; what failed."""
    failed: list[CallError] = []
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            try:
                await ask(router, stream)
            except CallError as exc:
                failed.append(exc)
            await anyio.sleep(pause)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(work)
    return failed


# every way to be dead, from second 2 on
STORM = {"retry-after": "7"}
DEAD = {
    "refuse": (None, (False, True)),
    "hang": (Fault("hang", start=2), (False, True)),
    "503": (Fault("status", status=503, start=2), (False, True)),
    "500": (Fault("status", status=500, start=2), (False,)),
    "504": (Fault("status", status=504, start=2), (False,)),
    "529": (Fault("status", status=529, start=2), (False,)),
    "garbage": (Fault("garbage", start=2), (False, True)),
    "reset": (Fault("reset", start=2), (False, True)),
    "half a head": (Fault("half_head", start=2), (False,)),
    "HTML": (Fault("html", start=2), (False, True)),
    "empty": (Fault("empty", start=2), (False, True)),
    "half a body": (Fault("half_body", start=2), (False,)),
    "truncated streams": (Fault("truncate", start=2, after=0), (True,)),
    "malformed streams": (Fault("not_json", start=2, after=0), (True,)),
    "error events": (Fault("error_event", start=2, after=0), (True,)),
    "only comments": (Fault("comments_only", start=2, after=0, pause=2), (True,)),
    "429 storm": (Fault("status", status=429, start=2), (False, True)),
    "429 storm, wait 7": (Fault("status", status=429, start=2, headers=STORM), (False,)),
    "401": (Fault("status", status=401, start=2), (False,)),
    "302": (Fault("status", status=302, start=2), (False,)),
}
# refusals that cool a key's quota group, a key, or a scope at once: no breaker counts them
AT_ONCE = {"429 storm", "429 storm, wait 7", "401", "302", "529"}


@pytest.mark.parametrize(
    ("way", "stream"),
    [
        pytest.param(way, stream, id=f"{way}-{'stream' if stream else 'plain'}")
        for way, (_, hows) in DEAD.items()
        for stream in hows
    ],
)
def test_one_dead_provider_of_three_costs_no_call(way: str, stream: bool) -> None:
    fault = DEAD[way][0]
    dead = provider("one", made=Refusing) if fault is None else provider("one", fault)
    watch = Watch()

    async def main() -> list[CallError]:
        async with router_of([dead, provider("two"), provider("three")], watch) as router:
            return await workers(router, CALLS, stream=stream, pause=1.0)

    assert virtual(main) == []
    seen = watch.of("one")
    bad = [each for each in seen if each.kind is not None]
    assert bad, "the outage was met"
    onset, opened = bad[0].at, watch.rests["one"]
    in_flight = sum(each.at <= onset < each.ended for each in seen)
    until_open = [each for each in bad if each.at <= opened]
    assert len(until_open) <= 10 + max(in_flight, WORKERS)
    later = [each.at for each in bad if each.at > opened]
    if way not in AT_ONCE:
        # One probe for each interval, and the n-th interval is n times 5 s.
        gaps = [after - before for before, after in zip([opened, *later], later, strict=False)]
        assert all(gap >= 5 * number - 1 for number, gap in enumerate(gaps, 1)), gaps
    if way == "429 storm, wait 7":
        for key in ("one-0", "one-1"):
            asked = [each for each in bad if each.key == key and each.at > opened]
            assert all(other.at - each.ended >= 7 for each, other in itertools.pairwise(asked))
    else:
        assert len(later) <= 12
    # Repeats are paid for: no deployment sees more than 1.2 requests for each call that is sent there, and 10.
    for name in NAMES:
        requests = watch.of(name)
        free = sum(each.kind in ("auth", "payment", "permission") for each in requests)
        calls = len({each.call for each in requests})
        assert len(requests) - free <= 1.2 * calls + 10
    assert max(map(_length, _by_call(watch))) <= 4


def _by_call(watch: Watch) -> list[list[Seen]]:
    calls: dict[str, list[Seen]] = {}
    for each in watch.attempts:
        calls.setdefault(each.call, []).append(each)
    return list(calls.values())


def _length(tries: list[Seen]) -> int:
    return len(tries)


@pytest.mark.parametrize("probability", [1.0, 0.5], ids=["all", "half"])
def test_repeats_never_multiply_an_outage_of_the_only_provider(probability: float) -> None:
    watch = Watch()
    only = provider("one", Fault("status", status=503, probability=probability))

    async def main() -> int:
        async with router_of([only], watch, retry=RetryPolicy(max_wait=0)) as router:
            return len(await workers(router, 2 * CALLS, stream=False, count=50))

    failed = virtual(main)
    assert 0 < failed <= 2 * CALLS
    calls = len({each.call for each in watch.attempts})
    assert len(watch.attempts) <= 1.2 * calls + 10
    assert len(only.journal) == len(watch.attempts)


def test_when_nothing_fails_every_call_is_one_request() -> None:
    watch = Watch()
    providers = [provider(name) for name in NAMES]

    async def main() -> list[CallError]:
        async with router_of(providers, watch) as router:
            return await workers(router, CALLS, stream=False)

    assert virtual(main) == []
    assert [len(each.journal) for each in providers] == [CALLS, 0, 0]


def test_a_provider_that_comes_back_gets_its_share_little_by_little() -> None:
    dead = provider("one", Fault("status", status=503, end=8.0))
    watch = Watch()

    async def main() -> list[float]:
        async with router_of([dead, provider("two")], watch, fallbacks={"one/any": ["two/any"]}) as router:
            while not (watch.rests and router.health()[0].state == "closed"):
                await ask(router, False)
            closed = watch.of("one")[-1].ended
            limits = Timeout()
            call = router._call(
                Request(Operation.CHAT, "one/any", {"messages": []}), limits, None, ["two/any"], None, None, {}
            )
            run = Run(router._machinery, call, limits)
            chain = run._chain()
            shares: list[float] = []
            for tick in range(1, 17):
                await anyio.sleep(closed + tick - anyio.current_time())
                order = [run._in_slow_start(chain) for _ in range(5_000)]
                assert all(sorted(each, key=id) == sorted(chain, key=id) for each in order)  # nobody is left out
                shares.append(sum(each[0] is chain[0] for each in order) / len(order))
            return shares

    shares = virtual(main)
    assert all(share <= max(0.1, second / 15) + 0.05 for second, share in enumerate(shares, 1))
    assert shares[0] <= 0.12
    assert shares[11] >= 0.75
    assert shares[14:] == [1.0, 1.0]


class Slow:
    """Takes its time to select routes."""

    @hookimpl
    async def bifrost_select_routes(self, routes: Any, call: Any) -> Any:
        await anyio.sleep(0.3)
        return routes


def test_a_plugin_that_takes_its_time_lets_nobody_past_a_half_open_place() -> None:
    watch = Watch()
    dead = provider("one", Fault("status", status=503, end=4, delay=0.5), latency=1.0)

    async def main() -> None:
        watch.router = router = Router(
            [dead, provider("two"), provider("three")],
            plugins=[watch, Slow()],
            clock=LoopClock(),
            rng=random.Random(5),
            fallbacks=CHAIN,
        )
        async with router:
            assert await workers(router, 20, stream=False) == []
            await anyio.sleep(10)
            assert {row.state for row in router.health() if row.route.provider == "one"} == {"half_open"}
            before = len(dead.journal)
            assert await workers(router, 20, stream=False) == []
            assert len(dead.journal) == before + 1

    virtual(main)


def test_a_probe_is_alone_when_an_open_provider_may_be_asked_again() -> None:
    watch = Watch()
    dead = provider("one", Fault("status", status=503, end=60, delay=1.0))

    async def main() -> None:
        async with router_of([dead, provider("two"), provider("three")], watch) as router:
            await workers(router, 2 * CALLS, stream=False, pause=1.0)

    virtual(main)
    opened = watch.rests["one"]
    probes = [each for each in watch.of("one") if each.at > opened and each.kind is not None]
    assert probes
    assert all(one.ended <= other.at for one, other in itertools.pairwise(probes))


# -- waits that were stated ------------------------------------------------------------------------


def test_no_request_is_sent_inside_a_stated_wait() -> None:
    waits = {"one-0": 7.0, "one-1": 3.0, "two-0": 11.0, "two-1": 2.5}
    providers = [
        Simulated(
            [
                SimulatedKey(
                    key,
                    latency=Latency(0.05),
                    output_tokens=(1, 1),
                    requests_per_minute=120,
                    faults=Fault("status", status=429, probability=0.2, headers={"retry-after": f"{waits[key]:g}"}),
                    retry_after=waits[key],
                )
                for key in waits
                if key.startswith(name)
            ],
            name=name,
            seed=9,
        )
        for name in ("one", "two")
    ]
    watch = Watch()

    async def main() -> list[CallError]:
        async with router_of(providers, watch, fallbacks={"one/any": ["two/any"]}) as router:
            return await workers(router, 2 * CALLS, stream=False, count=4)

    failed = virtual(main)  # all others have waited for the first to open
    assert len(failed) < CALLS / 20
    assert {len(error.attempts) for error in failed} <= {3, 4}
    refused = [each for each in watch.attempts if each.kind == "rate_limited"]
    assert len(refused) > 20
    early = [
        (each.key, other.at - each.ended)
        for each in refused
        for other in watch.attempts
        if other.key == each.key and each.ended < other.at < each.ended + waits[each.key]
    ]
    assert early == []


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_when_nothing_is_available_the_call_fails_at_once_and_says_when(stream: bool) -> None:
    waits = {"one": "60", "two": "20", "three": "40"}
    providers = [
        provider(name, Fault("status", status=429, headers={"retry-after": waits[name]}), keys=1, latency=0.0)
        for name in NAMES
    ]

    async def main() -> None:
        async with router_of(providers, retry=RetryPolicy(max_wait=0)) as router:
            with pytest.raises(CallError):
                await ask(router, stream)
            began = anyio.current_time()
            for _ in range(100):
                with pytest.raises(CallError) as caught:
                    await ask(router, stream)
                assert (caught.value.kind, caught.value.http_status, caught.value.attempts) == ("no_route", 429, ())
                assert caught.value.retry_after == pytest.approx(20.125, abs=0.126)
            assert anyio.current_time() == began
            await anyio.sleep(5)
            with pytest.raises(CallError) as caught:
                await ask(router, stream)
            assert caught.value.retry_after == pytest.approx(15.125, abs=0.126)

    virtual(main)
    assert [len(each.journal) for each in providers] == [1, 1, 1]


@pytest.mark.parametrize(
    ("max_wait", "timeout", "waits"),
    [(10, 60, True), (10, 4.9, False), (3, 60, False), (0, 60, False)],
    ids=["in time", "deadline too near", "too long", "never"],
)
def test_a_call_waits_for_a_reopening_that_is_near(max_wait: float, timeout: float, waits: bool) -> None:
    only = provider("one", Fault("status", status=429, headers={"retry-after": "5"}, count=1), keys=1, latency=0.0)

    async def main() -> float:
        async with router_of([only], retry=RetryPolicy(max_wait=max_wait)) as router:
            began = anyio.current_time()
            if waits:
                await ask(router, False, timeout=timeout)
            else:
                with pytest.raises(CallError) as caught:
                    await ask(router, False, timeout=timeout)
                assert caught.value.kind == "rate_limited"
            return anyio.current_time() - began

    seconds = virtual(main)
    assert 5.0 <= seconds <= 5.3 if waits else seconds == 0.0
    assert len(only.journal) == (2 if waits else 1)


# -- a fault hits only what is at fault -------------------------------------------------------------


def test_one_revoked_key_of_ten_costs_no_call_and_is_asked_once_in_five_minutes() -> None:
    keys = [SimulatedKey(f"k{n}", latency=QUICK, output_tokens=(3, 3)) for n in range(10)]
    keys[4] = attrs.evolve(keys[4], faults=(Fault("status", status=401),))
    only = Simulated(keys, name="one")
    watch = Watch()

    async def main() -> None:
        async with router_of([only], watch) as router:
            for _ in range(300):
                await ask(router, False)
                await anyio.sleep(4.0)

    virtual(main)
    asked = [each.at for each in watch.attempts if each.key == "k4"]
    assert 1 <= len(asked) <= 3  # 20 minutes: at 0, 5 and 15 at the earliest
    assert all(after - before >= 300 for before, after in itertools.pairwise(asked))
    assert {each.kind for each in watch.attempts if each.key != "k4"} == {None}


def test_bad_requests_change_no_state() -> None:
    only = provider("one", Fault("status", status=400), latency=0.0)

    async def main() -> None:
        async with router_of([only]) as router:
            failed = await workers(router, 2 * CALLS, stream=False)
            assert len(failed) == 2 * CALLS
            assert {(row.state, row.reason, row.in_flight) for row in router.health()} == {("closed", None, 0)}
            assert not router._health._states

    virtual(main)
    assert len(only.journal) == 2 * CALLS


def test_an_overloaded_model_rests_for_all_keys_and_no_other_model_does() -> None:
    overloaded = Fault("status", status=429, code="3505", error_type="service_tier_capacity_exceeded", first=2)
    only = Simulated([SimulatedKey(name, faults=overloaded) for name in "ab"], name="one")

    async def main() -> dict[str, str]:
        async with router_of([only], retry=RetryPolicy(max_wait=0)) as router:
            await ask(router, False, "one/other")
            with pytest.raises(CallError) as caught:
                for _ in range(3):
                    await ask(router, False)
            assert [attempt.kind for attempt in caught.value.attempts] == ["model_overloaded"]
            return {f"{row.route.model}/{row.route.key_id}": row.state for row in router.health()}

    assert virtual(main) == {"any/a": "open", "any/b": "open", "other/a": "closed", "other/b": "closed"}


def test_the_failure_that_shuts_the_only_way_lets_its_call_go_on() -> None:
    faults = Fault("status", status=503)
    only = Simulated(
        [SimulatedKey("dead", latency=QUICK, faults=faults), SimulatedKey("good", latency=QUICK)], name="one"
    )
    seconds: list[float] = []

    async def main() -> None:
        async with router_of([only]) as router:

            async def call() -> None:
                began = anyio.current_time()
                await ask(router, False)
                seconds.append(anyio.current_time() - began)

            async with anyio.create_task_group() as group:
                for _ in range(16):
                    group.start_soon(call)

    virtual(main)
    assert only.counters["dead"].requests >= 5  # enough to open the provider's breaker
    assert len(seconds) == 16
    assert max(seconds) < 2.5  # nobody waits the 5 s for it to close
