"""A bare model name that several providers serve: phase 1 may decide what it means."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from bifrost_core import Call, CallRecord, ModelNotFoundError, Principal, Request, Router, hookimpl
from bifrost_core.testing import Simulated


def providers() -> list[Simulated]:
    return [Simulated(["k1"], name=name, models=["small", f"only-{name}"]) for name in ("a", "b", "c")]


class Decides:
    """Takes one of the choices and names fallbacks."""

    def __init__(self, model: str | None = None, fallbacks: tuple[str, ...] = ()) -> None:
        self.model = model
        self.fallbacks = fallbacks
        self.seen: list[tuple[str, tuple[str, ...], Any]] = []
        self.authorized: list[str] = []
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_authenticate(self, call: Call) -> Principal:
        self.seen.append((call.request.model, call.choices, call.request.body["messages"]))
        if call.choices and self.model is not None:
            call.request = attrs.evolve(call.request, model=self.model)
            call.fallbacks = call.fallbacks or self.fallbacks
        return Principal(id="somebody")

    @hookimpl
    def bifrost_authorize(self, request: Request, call: Call) -> None:
        assert call.request is request or request.model in call.fallbacks
        self.authorized.append(request.model)

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


SHAPED = [{"role": "user", "content": "hello"}]


async def test_somebody_decides_and_everybody_sees_the_full_name() -> None:
    decides = Decides("b/small", ("c/small",))
    async with Router(providers(), plugins=[decides]) as router:
        response = await router.chat("small", "hello")
    assert response.route.provider == "b"
    assert decides.seen == [("small", ("a/small", "b/small", "c/small"), SHAPED)]
    assert decides.authorized == ["b/small"]
    assert [record.model for record in decides.records] == ["b/small"]


async def test_streams_are_decided_on_too() -> None:
    async with Router(providers(), plugins=[Decides("c/small")]) as router, router.stream("small", "hello") as stream:
        assert [chunk.text async for chunk in stream]
        assert stream.response.route.provider == "c"


async def test_an_alias_of_a_bare_name_is_one() -> None:
    decides = Decides("b/small")
    async with Router(providers(), plugins=[decides], aliases={"quick": "fast", "fast": "small"}) as router:
        assert (await router.chat("quick", "hello")).route.provider == "b"
    assert [choices for _, choices, _ in decides.seen] == [("a/small", "b/small", "c/small")]


@pytest.mark.parametrize(
    "model", ["a/small", "only-b", "quick"], ids=["full-name", "one-provider-has-it", "alias-of-a-full-name"]
)
async def test_a_name_that_means_one_thing_leaves_no_choice(model: str) -> None:
    decides = Decides("c/small")
    async with Router(providers(), plugins=[decides], aliases={"quick": "a/small"}) as router:
        await router.chat(model, "hello")
    ((name, choices, _),) = decides.seen
    assert choices == ()
    assert name == {"a/small": "a/small", "only-b": "b/only-b", "quick": "a/small"}[model]


@pytest.mark.parametrize("plugins", [[], [Decides()]], ids=["nobody-could", "nobody-did"])
async def test_without_a_decision_the_name_is_refused(plugins: list[Decides]) -> None:
    async with Router(providers(), plugins=plugins) as router:
        with pytest.raises(ModelNotFoundError, match=r"several .* name one: a/small, b/small, c/small"):
            await router.chat("small", "hello")
    assert [plugin.authorized for plugin in plugins] == [[]] * len(plugins)


async def test_a_decision_for_what_nobody_serves_is_refused() -> None:
    async with Router(providers(), plugins=[Decides("d/small")]) as router:
        with pytest.raises(ModelNotFoundError):
            await router.chat("small", "hello")


@pytest.mark.parametrize(
    ("asked_for", "named", "expected"),
    [
        pytest.param(None, ("c/small",), ("c/small", "a/only-a"), id="the-plugins-before-the-standing-ones"),
        pytest.param(None, (), ("a/only-a",), id="the-standing-ones"),
        pytest.param(["a/small"], ("c/small",), ("a/small",), id="the-callers-alone"),
    ],
)
async def test_fallbacks_of_a_name_that_was_in_question(
    asked_for: list[str] | None, named: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    seen: list[tuple[str, ...]] = []

    class Looks:
        @hookimpl
        def bifrost_guard_request(self, call: Call) -> None:
            seen.append(call.fallbacks)

    standing = {"b/small": ["a/only-a"]}
    async with Router(providers(), plugins=[Decides("b/small", named), Looks()], fallbacks=standing) as router:
        await router.chat("small", "hello", fallbacks=asked_for)
    assert seen == [expected]


async def test_a_list_of_models_leaves_no_choice() -> None:
    class Looks:
        @hookimpl
        def bifrost_authenticate(self, call: Call) -> None:
            assert call.choices == ()

    async with Router(providers(), plugins=[Looks()]) as router:
        assert {model.provider for model in await router.models()} == {"a", "b", "c"}
