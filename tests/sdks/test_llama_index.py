"""LlamaIndex's ``OpenAILike`` through the Router."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from bifrost_core.testing import Fault

openai_like = pytest.importorskip("llama_index.llms.openai_like")
llms = pytest.importorskip("llama_index.core.llms")
tools = pytest.importorskip("llama_index.core.tools")
openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")

World: TypeAlias = Any

ANSWER = "The bridge is Bifrost."


class City(pydantic.BaseModel):  # type: ignore[name-defined,misc] # known when it runs
    """Weather of a city."""

    city: str
    degrees: int


def weather(city: str) -> str:
    """Weather of a city."""
    return f"7 in {city}"


def made(world: World, virtual_key: str | None) -> Any:
    return openai_like.OpenAILike(
        model="mistral/mistral-small-latest",
        api_base="http://bifrost.invalid/openai/v1",
        api_key="in-process",
        http_client=world.blocking.http_client(virtual_key=virtual_key, flavour="httpx"),
        async_http_client=world.router.http_client(virtual_key=virtual_key, flavour="httpx"),
        max_retries=0,
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=32_000,
    )


@pytest.fixture
def llm(world: World) -> Any:
    return made(world, world.virtual_key)


@pytest.fixture
def question() -> list[Any]:
    return [llms.ChatMessage(role="user", content="Name the bridge.")]


async def test_it_answers(llm: Any, question: list[Any], world: World) -> None:
    assert (await llm.achat(question)).message.content == ANSWER
    assert llm.chat(question).message.content == ANSWER
    assert llm.complete("Name the bridge.").text == ANSWER
    assert [record.principal.virtual_key_id for record in world.ledger.records] == ["vk_tests"] * 3


async def test_it_streams(llm: Any, question: list[Any]) -> None:
    pieces = [piece.delta or "" async for piece in await llm.astream_chat(question)]
    assert "".join(pieces) == ANSWER
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(piece.delta or "" for piece in llm.stream_chat(question)) == ANSWER


async def test_a_tool_is_called(llm: Any) -> None:
    tool = tools.FunctionTool.from_defaults(fn=weather)
    for reply in (
        await llm.achat_with_tools([tool], user_msg="How warm is it?"),
        llm.chat_with_tools([tool], user_msg="How warm is it?"),
    ):
        (call,) = llm.get_tool_calls_from_response(reply)
        assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Oslo"})


async def test_structured_output_is_an_instance_of_the_class(llm: Any, question: list[Any]) -> None:
    structured = llm.as_structured_llm(City)
    assert (await structured.achat(question)).raw == City(city="Oslo", degrees=7)
    assert structured.chat(question).raw == City(city="Oslo", degrees=7)


async def test_errors_are_the_sdks(llm: Any, question: list[Any], world: World) -> None:
    world.server.fail("key-1", Fault("status", status=429))
    with pytest.raises(openai.RateLimitError):
        await llm.achat(question)
    with pytest.raises(openai.RateLimitError):
        llm.chat(question)
    assert len(world.server.requests) == 2


async def test_nobody_gets_through_without_a_virtual_key(question: list[Any], world: World) -> None:
    with pytest.raises(openai.AuthenticationError):
        await made(world, None).achat(question)
