"""One deadline for a call, whatever happens in it: random chains of faults in virtual time.

``BIFROST_CHAINS`` sets the number of chains (the figure of the promise is for 1,000).
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import pytest
import trio.testing

from bifrost_core import Attempt, CallError, DeadlineExceededError, Hedge, RetryPolicy, Router, Timeout, hookimpl
from bifrost_core.retries import MIN_ATTEMPT
from bifrost_core.testing import Fault, Latency, LoopClock, Simulated, SimulatedKey

CHAINS = int(os.environ.get("BIFROST_CHAINS", "300"))
FOUND = (670036674,)  # a hedge was sent with less than the least time left
LATE = 0.001  # seconds of virtual time, in which only waiting takes any
_T = TypeVar("_T")


def virtual(main: Callable[[], Awaitable[_T]]) -> _T:
    clock = trio.testing.MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


class Watch:
    """When each attempt began, and slow hooks."""

    def __init__(self, rng: random.Random) -> None:
        self.begun: list[float] = []
        self._rng = rng

    @hookimpl
    async def bifrost_guard_request(self, request: Any, call: Any) -> Any:
        await anyio.sleep(self._rng.choice([0.0, 0.0, 0.1, 1.5]))
        return request

    @hookimpl
    async def bifrost_reserve(self, attempt: Attempt) -> None:
        self.begun.append(anyio.current_time())


def fault(rng: random.Random) -> Fault | None:
    """Any way to be late or broken."""
    delay = rng.choice([0.0, 0.0, 0.3, 2.0, 7.0])
    return rng.choice(
        [
            None,
            Fault("hang", delay=delay),
            Fault("hang", after=rng.randint(0, 6), delay=delay),
            Fault("half_head", then="hang"),
            Fault("half_body", then="hang", after=rng.randint(0, 5)),
            Fault("status", status=rng.choice([408, 429, 500, 503, 504, 409]), delay=delay),
            Fault("status", status=429, headers={"retry-after": rng.choice(["1", "3", "8"])}),
            Fault("reset", delay=delay),
            Fault("garbage", delay=delay),
            Fault("empty", delay=delay),
            Fault("truncate", after=rng.randint(0, 6)),
            Fault("not_json", delay=delay),
            Fault("slow_drip", size=rng.choice([1, 30]), pause=rng.choice([0.05, 0.9])),
            Fault("comments_only", after=rng.randint(0, 4), pause=0.2),
            Fault("slow", factor=20.0),
            Fault("gzip_bomb", size=200_000),
        ]
    )


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_call_never_outlives_its_deadline(stream: bool) -> None:
    rng = random.Random(11)
    kinds: set[str] = set()

    async def chain(number: int) -> None:
        draw = random.Random(number)
        providers = [
            Simulated(
                [
                    SimulatedKey(
                        f"{name}{key}",
                        latency=Latency(draw.choice([0.1, 1.0]), tokens_per_second=20),
                        faults=() if (found := fault(draw)) is None else (found,),
                        output_tokens=(4, 12),
                    )
                    for key in range(draw.randint(1, 3))
                ],
                name=name,
                seed=number,
            )
            for name in ("one", "two", "three")[: draw.randint(1, 3)]
        ]
        watch, total = Watch(draw), draw.choice([0.4, 1.0, 3.0, 10.0, 25.0])
        hedge = Hedge(0.5) if draw.random() < 0.2 else None
        others = [f"{each.name}/any" for each in providers[1:]]
        limits = Timeout(total=total, first_token=draw.choice([1.0, 30.0]), idle=draw.choice([1.0, 30.0]))
        retry = RetryPolicy(hedge=hedge, max_wait=draw.choice([0, 10]))
        async with Router(providers, plugins=[watch], clock=LoopClock(), rng=draw, retry=retry) as router:
            began = anyio.current_time()
            options: dict[str, Any] = {"fallbacks": others, "timeout": limits}
            try:
                if stream:
                    async with router.stream("one/any", "hi", resume=draw.random() < 0.3, **options) as reading:
                        async for _ in reading:
                            if draw.random() < 0.05:
                                await anyio.sleep(0.2)
                else:
                    await router.chat("one/any", "hi", **options)
                kinds.add("ok")
            except CallError as exc:
                kinds.add(str(exc.kind))
            ended = anyio.current_time()
            assert ended - began <= total + LATE + (0.2 if stream else 0.0)  # the reader's own pause
            assert all(row.in_flight == 0 for row in router.health())
            # The first attempt is made with any time left; no other starts with less than the least.
            assert all(began + total - at >= MIN_ATTEMPT - LATE for at in watch.begun[1:]), number

    async def main() -> None:
        for number in (*FOUND, *(rng.randrange(10**9) for _ in range(CHAINS))):
            await chain(number)

    virtual(main)
    assert {"ok", "deadline_exceeded", "rate_limited", "server_error"} <= kinds
    assert len(kinds) >= 6


@pytest.mark.parametrize("after", [0, 3])
def test_comments_are_no_content(after: int) -> None:
    """A stream that is kept open by comments alone is as silent as one that sends nothing."""
    only = Simulated([SimulatedKey("a", faults=Fault("comments_only", after=after, pause=0.1))])

    async def main() -> tuple[float, CallError]:
        limits = Timeout(first_token=2.0, idle=3.0)
        retry = RetryPolicy(max_attempts=1)
        async with Router([only], clock=LoopClock(), timeout=limits, retry=retry) as router:
            began = anyio.current_time()
            with pytest.raises(CallError) as caught:
                async with router.stream("simulated/any", "hi") as reading:
                    async for _ in reading:
                        continue
            return anyio.current_time() - began, caught.value

    seconds, error = virtual(main)
    assert seconds == pytest.approx(3.0 if after else 2.0, abs=0.3)  # the timer of a stream moves in steps
    assert error.kind == ("stream_stalled" if after else "read_timeout")


def test_content_now_and_then_keeps_a_stream_alive_for_as_long_as_it_takes() -> None:
    slow = SimulatedKey("a", latency=Latency(1.5, tokens_per_second=1), output_tokens=(60, 60))
    only = Simulated([slow])

    async def main() -> float:
        async with Router([only], clock=LoopClock(), timeout=Timeout(first_token=9.0, idle=6.0)) as router:
            began = anyio.current_time()
            async with router.stream("simulated/any", "hi") as reading:
                async for _ in reading:
                    continue
            return anyio.current_time() - began

    assert virtual(main) == pytest.approx(61.5, abs=3)


def test_a_hook_that_hangs_is_ended_by_the_deadline_and_named() -> None:
    class Hanging:
        @hookimpl
        async def bifrost_authorize(self, request: Any, call: Any) -> None:
            await anyio.sleep(math.inf)

    only = Simulated(["a"])

    async def main() -> tuple[float, str, int]:
        async with Router([only], plugins=[Hanging()], clock=LoopClock()) as router:
            began = anyio.current_time()
            with pytest.raises(CallError) as caught:
                await router.chat("simulated/any", "hi", timeout=0.3)
            error = caught.value
            phase = error.phase if isinstance(error, DeadlineExceededError) else str(error.kind)
            return anyio.current_time() - began, phase, len(only.journal)

    seconds, phase, requests = virtual(main)
    assert seconds == pytest.approx(0.3)
    assert (phase, requests) == ("hook:bifrost_authorize", 0)


def test_a_backoff_for_which_there_is_no_time_is_not_slept() -> None:
    only = Simulated([SimulatedKey("a", faults=Fault("status", status=503, delay=0.5))])

    async def main() -> tuple[float, CallError]:
        retry = RetryPolicy(backoff=8, backoff_max=8, max_wait=0)
        async with Router([only], clock=LoopClock(), retry=retry, rng=random.Random(1)) as router:
            began = anyio.current_time()
            with pytest.raises(CallError) as caught:
                await router.chat("simulated/any", "hi", timeout=1.0)
            return anyio.current_time() - began, caught.value

    seconds, error = virtual(main)
    assert seconds == pytest.approx(0.5)
    assert (error.kind, getattr(error, "deadline_limited", None)) == ("server_error", True)


HURRIES: dict[str, tuple[dict[str, Any], bool]] = {
    "less time than usual": ({"timeout": 4}, False),
    "a limit of the caller's own": ({"timeout": Timeout(attempt=1)}, False),
    "the usual time": ({}, True),
}


@pytest.mark.parametrize(("options", "counts"), HURRIES.values(), ids=HURRIES)
def test_a_caller_in_a_hurry_opens_no_breaker_for_others(options: dict[str, Any], counts: bool) -> None:
    """C4: too slow for a short deadline is not too slow; too slow for the Router's own limits is."""
    slow = Simulated([SimulatedKey("k1", latency=Latency(90.0))], name="slow")
    quick = Simulated([SimulatedKey("k2", latency=Latency(0.1))], name="quick")

    async def main() -> set[str]:
        async with Router([slow, quick], retry=RetryPolicy(max_attempts_per_deployment=1), clock=LoopClock()) as router:
            for _ in range(6):
                reply = await router.chat("slow/m", "hi", fallbacks=["quick/m"], **options)
                assert [attempt.kind for attempt in reply.attempts] in (["read_timeout", None], [None])
            return {row.state for row in router.health() if row.route.provider == "slow"}

    assert virtual(main) == ({"open"} if counts else {"closed"})
