"""A call that goes on to another model: what it takes along, and what a fallback can not be asked."""

from __future__ import annotations

from typing import Any

import pytest

from bifrost_core import (
    CallError,
    NoKeyAvailableError,
    ProviderServerError,
    RefusedError,
    Request,
    Router,
    RouteRef,
    UnsupportedParameterError,
    hookimpl,
)
from bifrost_core.testing import Fault, Simulated, SimulatedKey
from bifrost_core.wire import HttpCall

FAILING = Fault("status", status=500)


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


async def chat(router: Router, *, stream: bool, **params: Any) -> str:
    if not stream:
        return (await router.chat("one/small", "hello", **params)).route.provider
    async with router.stream("one/small", "hello", **params) as answer:
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
