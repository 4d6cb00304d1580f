"""What an attempt tells those who hold money for it: whether it was sent, and how many answers it asks for."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from bifrost_core import Attempt, CallError, Mistral, RefusedError, RetryPolicy, Router, RouteRef, hookimpl
from bifrost_core.balancing import RoundRobin
from bifrost_core.deployments import Deployment
from bifrost_core.testing import Fault, Latency, Simulated, SimulatedKey


class Watches:
    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    @hookimpl
    def bifrost_attempt_finished(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)


class Refuses:
    @hookimpl
    def bifrost_reserve(self, attempt: Attempt) -> None:
        assert not attempt.sent
        raise RefusedError("no")


class Nowhere:
    """An engine that waits for a connection that nobody accepts."""

    async def open(self, exchange: Any) -> Any:
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


async def test_an_attempt_that_was_answered_or_failed_at_the_provider_was_sent() -> None:
    watch = Watches()
    sim = Simulated(
        [SimulatedKey("one", faults=[Fault("status", status=500, last=1), Fault("reset", first=2, last=2)])]
    )
    async with Router(
        [sim], plugins=[watch], retry=RetryPolicy(backoff=0.001, max_attempts_per_deployment=3)
    ) as router:
        await router.chat("simulated/m", "hello")
        async with router.stream("simulated/m", "hello") as stream:
            async for _ in stream:
                break
    assert [(attempt.outcome, attempt.sent) for attempt in watch.attempts] == [
        ("failed", True),
        ("failed", True),
        ("ok", True),
        (watch.attempts[3].outcome, True),
    ]


async def test_an_attempt_that_was_refused_or_never_had_a_connection_was_not_sent() -> None:
    watch = Watches()
    async with Router([Simulated(["one"])], plugins=[watch, Refuses()]) as router:
        with pytest.raises(RefusedError):
            await router.chat("simulated/m", "hello")
    closed = Mistral(["sk-simulated-1"], base_url="http://127.0.0.1:9/v1")  # nobody listens on the discard port
    async with Router([closed], plugins=[watch], retry=RetryPolicy(max_attempts=1)) as router:
        with pytest.raises(CallError):
            await router.chat("mistral/m", "hello")
    async with Router([Mistral(["sk-simulated-1"])], plugins=[watch], engine=Nowhere()) as router:
        with anyio.move_on_after(0.05):
            await router.chat("mistral/m", "hello")
    assert {(attempt.outcome, attempt.sent) for attempt in watch.attempts} == {
        ("refused", False),
        ("failed", False),
        ("cancelled", False),
    }


async def test_an_attempt_cancelled_while_it_waits_for_its_answer_was_sent() -> None:
    watch = Watches()
    async with Router([Simulated([SimulatedKey("one", latency=5.0)])], plugins=[watch]) as router:
        with anyio.move_on_after(0.05):
            await router.chat("simulated/m", "hello")
    assert [(attempt.outcome, attempt.sent) for attempt in watch.attempts] == [("cancelled", True)]


def test_the_output_limit_is_that_of_each_choice() -> None:
    attempt = Attempt("a", RouteRef("p", "m", "k"), output_upper=300, choices=3)
    attempt.open_reservation()
    attempt.limit_output(100)
    assert (attempt.output_upper, attempt.close_reservation()) == (300, None)
    attempt.open_reservation()
    attempt.limit_output(20)
    assert (attempt.output_upper, attempt.close_reservation()) == (60, 20)


@pytest.mark.parametrize("options", [{"n": 3}, {"extra_body": {"n": 3}}], ids=["n", "extra"])
async def test_the_choices_of_a_request_are_known_before_it_is_sent(options: dict[str, Any]) -> None:
    watch = Watches()

    class Limits:
        @hookimpl
        def bifrost_reserve(self, attempt: Attempt) -> None:
            attempt.limit_output(7)
            assert attempt.output_upper == 21

    sim = Simulated([SimulatedKey("one", output_tokens=(50, 50))])
    async with Router([sim], plugins=[watch, Limits()]) as router:
        response = await router.chat("simulated/m", "hello", max_tokens=500, **options)
    assert (response.usage.output_tokens, watch.attempts[0].choices) == (21, 3)


async def test_what_a_broken_stream_said_is_counted_by_its_bytes() -> None:
    watch = Watches()
    key = SimulatedKey(
        "one", latency=Latency(tokens_per_second=10_000), output_tokens=(60, 60), faults=Fault("truncate", after=8)
    )
    sim = Simulated([key])
    async with Router([sim], plugins=[watch], retry=RetryPolicy(max_attempts=1)) as router:
        with pytest.raises(CallError):
            async with router.stream("simulated/m", "hello") as stream:
                async for _ in stream:
                    continue
    usage = watch.attempts[0].usage
    assert usage is not None
    assert sim.journal[0].completion_tokens <= usage.output_tokens < 60


def test_a_model_teaches_how_many_tokens_its_bytes_are() -> None:
    deployment = Deployment(Simulated(["one"]), "m", (), RoundRobin())
    assert deployment.output_tokens(100, 3) == 35
    assert deployment.output_tokens(2, 7) == 7  # a piece has a token at least
    deployment.learn_output(100, 90)
    assert deployment.output_tokens(100, 3) == 90  # at once upwards
    for _ in range(500):
        deployment.learn_output(100, 20)
    assert deployment.output_tokens(100, 3) in (20, 21)  # slowly downwards
    deployment.learn_output(1, 1_000_000)
    assert deployment.output_tokens(10, 1) == 80  # reasoning that is counted and not shown, within bounds
