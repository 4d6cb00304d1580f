"""pydantic-ai's models of three vendors through the Router."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, TypeAlias

import pytest

from bifrost_core import sdks
from bifrost_core.testing import Fault, SimulatedMistral

pydantic_ai = pytest.importorskip("pydantic_ai")
pydantic = pytest.importorskip("pydantic")
exceptions = pytest.importorskip("pydantic_ai.exceptions")

World: TypeAlias = Any

MODEL = "mistral/mistral-small-latest"
QUESTION = "Name the bridge."
ANSWER = "The bridge is Bifrost."


class City(pydantic.BaseModel):  # type: ignore[name-defined,misc] # known when it runs
    """Weather of a city."""

    city: str
    degrees: int


def openai_model(router: Any, **options: Any) -> Any:
    models = pytest.importorskip("pydantic_ai.models.openai")
    providers = pytest.importorskip("pydantic_ai.providers.openai")
    return models.OpenAIChatModel(
        MODEL, provider=providers.OpenAIProvider(openai_client=sdks.async_openai(router, **options))
    )


def mistral_model(router: Any, **options: Any) -> Any:
    models = pytest.importorskip("pydantic_ai.models.mistral")
    providers = pytest.importorskip("pydantic_ai.providers.mistral")
    return models.MistralModel(
        MODEL, provider=providers.MistralProvider(mistral_client=sdks.mistral(router, **options))
    )


def anthropic_model(router: Any, **options: Any) -> Any:
    models = pytest.importorskip("pydantic_ai.models.anthropic")
    providers = pytest.importorskip("pydantic_ai.providers.anthropic")
    return models.AnthropicModel(
        MODEL, provider=providers.AnthropicProvider(anthropic_client=sdks.async_anthropic(router, **options))
    )


@pytest.fixture(params=[openai_model, mistral_model, anthropic_model], ids=["openai", "mistral", "anthropic"])
def make(request: pytest.FixtureRequest) -> Any:
    """Makes the model of one vendor's shape."""
    return request.param


@pytest.fixture
def model(make: Any, world: World) -> Any:
    return make(world.router, virtual_key=world.virtual_key)


async def test_it_answers(model: Any, world: World) -> None:
    result = await pydantic_ai.Agent(model).run(QUESTION)
    assert result.output == ANSWER
    assert world.ledger.records[-1].principal.virtual_key_id == "vk_tests"
    used = world.ledger.records[-1].usage
    assert (result.usage.input_tokens, result.usage.output_tokens) == (used.input_tokens, used.output_tokens)


async def test_it_streams(model: Any) -> None:
    async with pydantic_ai.Agent(model).run_stream(QUESTION) as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == ANSWER
    assert len(pieces) > 1


async def test_a_tool_is_called_and_its_result_answered(model: Any, world: World) -> None:
    agent = pydantic_ai.Agent(model)
    asked: list[str] = []

    @agent.tool_plain  # type: ignore[untyped-decorator,unused-ignore] # typed where the package is
    def weather(city: str) -> str:
        asked.append(city)
        return f"7 in {city}"

    result = await agent.run(QUESTION)
    assert (result.output, asked) == ("It is 7 degrees in Oslo.", ["Oslo"])
    assert len(world.server.requests) == 2


async def test_structured_output_is_an_instance_of_the_class(model: Any) -> None:
    result = await pydantic_ai.Agent(model, output_type=City).run(QUESTION)
    assert result.output == City(city="Oslo", degrees=7)


async def test_errors_are_its_own(model: Any, world: World) -> None:
    world.server.fail("key-1", Fault("status", status=429))
    with pytest.raises(exceptions.ModelHTTPError) as caught:
        await pydantic_ai.Agent(model).run(QUESTION)
    assert caught.value.status_code == 429
    assert len(world.server.requests) == 1


async def test_a_stream_that_breaks_off_raises(model: Any, world: World) -> None:
    world.server.fail("key-1", Fault("close", after=3))
    with pytest.raises(Exception) as caught:  # noqa: PT011 # the SDK's, which it does not wrap everywhere
        async with pydantic_ai.Agent(model).run_stream(QUESTION) as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                continue
    assert type(caught.value).__module__.partition(".")[0] in {"pydantic_ai", "openai", "mistralai", "anthropic"}


async def test_nobody_gets_through_without_a_virtual_key(make: Any, world: World) -> None:
    with pytest.raises(exceptions.ModelHTTPError) as caught:
        await pydantic_ai.Agent(make(world.router)).run(QUESTION)
    assert caught.value.status_code == 401


BLOCKING = """
import sys

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from bifrost_core import Mistral, Router, sdks

router = Router([Mistral(["sk-simulated-0123456789"], base_url=sys.argv[1])])
provider = OpenAIProvider(openai_client=sdks.async_openai(router))
agent = Agent(OpenAIChatModel("mistral/mistral-small-latest", provider=provider))
print([agent.run_sync("Name the bridge.").output for _ in range(2)])
"""


def test_blocking_code_runs_it_on_an_event_loop_that_is_never_closed(server: SimulatedMistral) -> None:
    pytest.importorskip("pydantic_ai.models.openai")
    program = [sys.executable, "-c", BLOCKING, server.base_url]  # the loop stays: so it has a process of its own
    ended = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.strip() == str([ANSWER] * 2)
