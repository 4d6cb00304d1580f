"""A call that goes on to another model: what it takes along, and what a fallback can not be asked."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from bifrost_core import (
    CallError,
    ContextLengthError,
    Mistral,
    NoKeyAvailableError,
    OpenAI,
    ProviderServerError,
    RefusedError,
    Request,
    RetryPolicy,
    Router,
    RouteRef,
    UnsupportedParameterError,
    hookimpl,
)
from bifrost_core.contexts import context_length
from bifrost_core.testing import Fault, Latency, LoopClock, Simulated, SimulatedKey, SimulatedMistral, SimulatedOpenAI
from bifrost_core.wire import HttpCall

FAILING = Fault("status", status=500)
TOO_LONG = Fault("status", status=400, code="context_length_exceeded")


class Plain(Simulated):
    """A provider whose shape has no place for ``safe_prompt``."""

    def encode(self, request: Request, max_output: int | None = None) -> HttpCall:
        if request.body.get("safe_prompt"):
            raise UnsupportedParameterError("it does not take 'safe_prompt'", parameter="safe_prompt")
        return super().encode(request, max_output)


def failing(name: str, kind: type[Simulated] = Simulated) -> Simulated:
    return kind([SimulatedKey("k1", faults=[FAILING])], name=name)


def asked(*providers: Simulated) -> list[int]:
    return [len(provider.journal) for provider in providers]


async def chat(router: Router, *, stream: bool, model: str = "one/small", **params: Any) -> str:
    if not stream:
        return (await router.chat(model, "hello", **params)).route.provider
    async with router.stream(model, "hello", **params) as answer:
        async for _ in answer:
            continue
        return answer.response.route.provider


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_fallback_that_can_not_carry_a_field_is_passed_over(stream: bool) -> None:
    one, two, three = failing("one"), Plain(["k1"], name="two"), Simulated(["k1"], name="three")
    async with Router([one, two, three], fallbacks={"one/small": ["two/small", "three/small"]}) as router:
        assert await chat(router, stream=stream, safe_prompt=True) == "three"
        assert asked(two, three) == [0, 1]
        assert await chat(router, stream=stream) == "two"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_where_no_fallback_can_carry_it_the_first_models_own_error_is_raised(stream: bool) -> None:
    one, two = failing("one"), Plain(["k1"], name="two")
    async with Router([one, two], fallbacks={"one/small": ["two/small"]}) as router:
        with pytest.raises(ProviderServerError) as caught:
            await chat(router, stream=stream, safe_prompt=True)
    assert [attempt.route.provider for attempt in caught.value.attempts] == ["one", "one"]
    assert asked(one, two) == [2, 0]  # it is tried again as if there were no fallback


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_field_that_the_first_model_can_not_carry_is_the_callers_mistake(stream: bool) -> None:
    one, two = Plain(["k1"], name="one"), Simulated(["k1"], name="two")
    async with Router([one, two], fallbacks={"one/small": ["two/small"]}) as router:
        with pytest.raises(UnsupportedParameterError) as caught:
            await chat(router, stream=stream, safe_prompt=True)
    assert caught.value.parameter == "safe_prompt"
    assert asked(one, two) == [0, 0]


class Refuses:
    """Lets nobody use one provider."""

    @hookimpl
    def bifrost_authorize(self, request: Request) -> None:
        if request.model.startswith("two/"):
            raise RefusedError("two is not for you")


@pytest.mark.parametrize("plugins", [[], [Refuses()]], ids=["not-carried", "refused"])
async def test_a_fallback_that_is_out_of_the_question_does_not_keep_a_call_from_waiting(plugins: list[object]) -> None:
    one = Simulated(["k1"], name="one")
    two = Plain(["k1"], name="two") if not plugins else Simulated(["k1"], name="two")
    async with Router([one, two], plugins=plugins, fallbacks={"one/small": ["two/small"]}) as router:
        router.open_route(RouteRef("one", "small", "k1"), seconds=0.2)
        assert await chat(router, stream=False, safe_prompt=True) == "one"
        router.open_route(RouteRef("one", "small", "k1"), seconds=3600.0)
        with pytest.raises(NoKeyAvailableError):
            await chat(router, stream=False, safe_prompt=True)
    assert asked(two) == [0]


async def test_fallbacks_of_the_call_win_over_the_routers() -> None:
    one, two, three = failing("one"), Simulated(["k1"], name="two"), Simulated(["k1"], name="three")
    async with Router([one, two, three], fallbacks={"one/small": ["two/small"]}) as router:
        assert await chat(router, stream=False) == "two"
        assert await chat(router, stream=False, fallbacks=["three/other"]) == "three"


@pytest.mark.parametrize(
    ("fault", "goes_on"),
    [
        pytest.param(Fault("status", status=500), True, id="server-error"),
        pytest.param(Fault("status", status=503), True, id="unavailable"),
        pytest.param(Fault("status", status=429), True, id="rate-limited"),
        pytest.param(Fault("status", status=401), True, id="rejected-key"),
        pytest.param(Fault("status", status=404), True, id="no-such-model"),
        pytest.param(Fault("status", status=400), False, id="callers-mistake"),
        pytest.param(Fault("status", status=422), False, id="unprocessable"),
        pytest.param(Fault("status", status=413), False, id="too-large"),
    ],
)
async def test_the_class_of_a_failure_says_whether_another_model_is_asked(fault: Fault, goes_on: bool) -> None:
    one = Simulated([SimulatedKey("k1", faults=[fault])], name="one")
    two = Simulated(["k1"], name="two")
    async with Router([one, two], fallbacks={"one/small": ["two/small"]}) as router:
        if goes_on:
            assert await chat(router, stream=False) == "two"
        else:
            with pytest.raises(CallError):
                await chat(router, stream=False)
    assert asked(two) == [int(goes_on)]


# -- too long a prompt ---------------------------------------------------------------------------------------------

VOXTRAL, HAIKU, LARGE = "mistral/voxtral-small-latest", "anthropic/claude-haiku-4-5", "mistral/mistral-large-latest"
GPT4, GPT5, LOCAL = "openai/gpt-4o", "openai/gpt-5", "local/any"


def test_the_models_of_the_tests_below_are_known_and_in_this_order() -> None:
    models = [VOXTRAL, GPT4, HAIKU, LARGE, GPT5]
    lengths = [context_length(*model.split("/")) for model in models]
    assert lengths == [32_768, 128_000, 200_000, 262_144, 400_000]
    assert context_length(*LOCAL.split("/")) is None


def providers(*too_long: str, fault: Fault = TOO_LONG) -> list[Simulated]:
    """Four providers; those that are named find every prompt too long."""
    return [
        Simulated([SimulatedKey("k1", faults=[fault] if name in too_long else [])], name=name)
        for name in ("openai", "anthropic", "mistral", "local")
    ]


def asked_in_order(error: CallError) -> list[str]:
    return [f"{attempt.route.provider}/{attempt.route.model}" for attempt in error.attempts]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("chain", "too_long", "answers"),
    [
        pytest.param([GPT4, VOXTRAL, HAIKU], ["openai"], "anthropic", id="a-longer-one-behind-a-shorter"),
        pytest.param([GPT4, LARGE, HAIKU], ["openai"], "mistral", id="the-first-that-is-longer-not-the-next-best"),
        pytest.param([LARGE, LOCAL, GPT5], ["mistral"], "local", id="an-unknown-one-in-its-turn"),
        pytest.param([LARGE, HAIKU, LOCAL, GPT5], ["mistral", "local"], "openai", id="behind-an-unknown-that-failed"),
        pytest.param([LOCAL, VOXTRAL], ["local"], "mistral", id="nothing-known-of-the-first"),
    ],
)
async def test_a_prompt_that_was_too_long_goes_to_a_model_with_a_longer_context(
    stream: bool, chain: list[str], too_long: list[str], answers: str
) -> None:
    made = providers(*too_long)
    async with Router(made) as router:
        assert await chat(router, stream=stream, model=chain[0], fallbacks=chain[1:]) == answers
    served = {provider.name: len(provider.journal) for provider in made if provider.journal}
    assert served == dict.fromkeys([*too_long, answers], 1)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("chain", "too_long", "asked_models"),
    [
        pytest.param([LARGE, HAIKU, GPT4], ["mistral"], [LARGE], id="all-shorter"),
        pytest.param([LARGE, "mistral/mistral-medium-latest"], ["mistral"], [LARGE], id="as-long"),
        pytest.param([GPT4, GPT5, LARGE], ["openai"], [GPT4, GPT5], id="shorter-than-the-longest-that-was-asked"),
        pytest.param([LOCAL, GPT5, LARGE], ["local", "openai"], [LOCAL, GPT5], id="behind-an-unknown-one"),
        pytest.param([LARGE, LOCAL, HAIKU], ["mistral", "local"], [LARGE, LOCAL], id="an-unknown-one-between"),
        pytest.param([LARGE], ["mistral"], [LARGE], id="no-fallback"),
    ],
)
async def test_where_no_longer_context_is_left_the_prompt_was_too_long(
    stream: bool, chain: list[str], too_long: list[str], asked_models: list[str]
) -> None:
    made = providers(*too_long)
    async with Router(made) as router:
        with pytest.raises(ContextLengthError) as caught:
            await chat(router, stream=stream, model=chain[0], fallbacks=chain[1:])
    assert asked_in_order(caught.value) == asked_models
    assert sum(asked(*made)) == len(asked_models)


async def test_a_failure_of_another_kind_goes_to_a_model_with_a_shorter_context_too() -> None:
    async with Router(providers("mistral", fault=FAILING)) as router:
        assert await chat(router, stream=False, model=LARGE, fallbacks=[HAIKU]) == "anthropic"


@pytest.mark.parametrize(("fallback", "waits"), [(GPT5, 3.0), (GPT4, 0.0)], ids=["longer", "shorter"])
def test_a_call_whose_prompt_was_too_long_waits_for_a_longer_context_alone(fallback: str, waits: float) -> None:
    made = providers("mistral")
    model = fallback.partition("/")[2]
    policy = RetryPolicy(max_attempts_per_deployment=1)

    async def seconds() -> float:
        async with Router(made, retry=policy, clock=LoopClock()) as router:
            router.open_route(RouteRef("openai", model, "k1"), seconds=3.0)
            begun = trio.current_time()
            try:
                assert await chat(router, stream=False, model=LARGE, fallbacks=[fallback]) == "openai"
            except ContextLengthError:
                assert not waits
            return trio.current_time() - begun

    spent = trio.run(seconds, clock=trio.testing.MockClock(autojump_threshold=0))
    assert spent == pytest.approx(waits, abs=2.0)  # and what the answers take
    openai, _, mistral, _ = made
    assert asked(mistral, openai) == [1, int(waits > 0)]


def test_an_attempt_leaves_no_time_for_models_whose_context_is_too_short() -> None:
    made = providers("anthropic")
    made[2] = Simulated([SimulatedKey("k1", latency=Latency(40.0))], name="mistral")

    async def answered_by() -> str:
        async with Router(made, timeout=60.0, clock=LoopClock()) as router:
            return await chat(router, stream=False, model=HAIKU, fallbacks=[LARGE, GPT4])

    assert trio.run(answered_by, clock=trio.testing.MockClock(autojump_threshold=0)) == "mistral"
    assert asked(*made) == [0, 1, 1, 0]


async def test_no_prompt_is_held_to_be_too_long_before_a_provider_has_said_so() -> None:
    made = providers()
    async with Router(made) as router:
        reply = await router.chat(VOXTRAL, "word " * 100_000, fallbacks=[GPT5])
    assert (reply.route.model, len(reply.attempts)) == ("voxtral-small-latest", 1)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_that_finds_a_prompt_too_long_is_followed_by_one_that_takes_it() -> None:
    key = "sk-canary-aaaaaaaaaaaa"
    with SimulatedOpenAI([SimulatedKey(key, id="a")]) as short, SimulatedMistral([SimulatedKey(key, id="b")]) as long:
        made = [OpenAI(key, base_url=short.base_url), Mistral(key, base_url=long.base_url)]
        async with Router(made) as router:
            reply = await router.chat(GPT4, "word " * 130_000, max_tokens=20, fallbacks=["openai/gpt-4o-mini", LARGE])
    assert [(attempt.route.model, attempt.kind) for attempt in reply.attempts] == [
        ("gpt-4o", "context_too_long"),
        ("mistral-large-latest", None),
    ]
