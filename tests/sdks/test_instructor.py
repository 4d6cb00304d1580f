"""``instructor`` around OpenAI's SDK through the Router."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from bifrost_core import sdks
from bifrost_core.testing import Fault

instructor = pytest.importorskip("instructor")
core = pytest.importorskip("instructor.core")
openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")

World: TypeAlias = Any

MODEL = "mistral/mistral-small-latest"
HELLO = [{"role": "user", "content": "How warm is it in Oslo?"}]


class City(pydantic.BaseModel):  # type: ignore[name-defined,misc] # known when it runs
    """Weather of a city."""

    city: str
    degrees: int


OSLO = City(city="Oslo", degrees=7)
modes = pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])


def waiting(world: World, mode: str = "TOOLS", **options: Any) -> Any:
    return instructor.from_openai(sdks.async_openai(world.router, **options), mode=instructor.Mode[mode])


def blocking(world: World, mode: str = "TOOLS", **options: Any) -> Any:
    return instructor.from_openai(sdks.openai(world.blocking, **options), mode=instructor.Mode[mode])


@modes
async def test_an_answer_is_an_instance_of_the_class(world: World, mode: str) -> None:
    key = world.virtual_key
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "response_model": City}
    for made in (
        await waiting(world, mode, virtual_key=key).chat.completions.create(**asked),
        blocking(world, mode, virtual_key=key).chat.completions.create(**asked),
    ):
        assert isinstance(made, City)
        assert made.model_dump() == OSLO.model_dump()
    assert [record.principal.virtual_key_id for record in world.ledger.records] == ["vk_tests"] * 2


@modes
async def test_a_streamed_answer_grows_to_an_instance_of_the_class(world: World, mode: str) -> None:
    key = world.virtual_key
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "response_model": City}
    seen = [one async for one in waiting(world, mode, virtual_key=key).chat.completions.create_partial(**asked)]
    assert seen[-1].model_dump() == OSLO.model_dump()
    seen = list(blocking(world, mode, virtual_key=key).chat.completions.create_partial(**asked))
    assert seen[-1].model_dump() == OSLO.model_dump()


async def test_errors_are_the_sdks(world: World) -> None:
    world.server.fail("key-1", Fault("status", status=429))
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "response_model": City, "max_retries": 0}
    with pytest.raises(core.InstructorRetryException) as caught:
        await waiting(world, virtual_key=world.virtual_key).chat.completions.create(**asked)
    assert isinstance(caught.value.__cause__, openai.RateLimitError)
    with pytest.raises(core.InstructorRetryException):
        blocking(world, virtual_key=world.virtual_key).chat.completions.create(**asked)
    assert len(world.server.requests) == 2


async def test_nobody_gets_through_without_a_virtual_key(world: World) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": HELLO, "response_model": City, "max_retries": 0}
    with pytest.raises(core.InstructorRetryException) as caught:
        await waiting(world).chat.completions.create(**asked)
    assert "401" in str(caught.value)
