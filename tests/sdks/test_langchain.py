"""LangChain's chat models through the Router: ``ChatOpenAI``, ``ChatAnthropic`` and ``ChatMistralAI``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import attrs
import pytest

from bifrost_core import sdks
from bifrost_core.testing import Fault

messages = pytest.importorskip("langchain_core.messages")
pydantic = pytest.importorskip("pydantic")

World: TypeAlias = Any

MODEL = "mistral/mistral-small-latest"
QUESTION = "Name the bridge."
ANSWER = "The bridge is Bifrost."


class City(pydantic.BaseModel):  # type: ignore[name-defined,misc] # known when it runs
    """Weather of a city."""

    city: str
    degrees: int


def weather(city: str) -> str:
    """Weather of a city.

    Args:
        city: Which.
    """
    return f"7 in {city}"


@attrs.frozen
class Package:
    """One of LangChain's, and the errors that its users know.

    Attributes:
        make: A chat model of a Router.
        library: That the errors are of: a vendor's SDK, or the HTTP library where the package has none beneath it.
        limited: The error for too many requests.
        broken: That for a stream that ends too soon.
        denied: That for a caller without a key.
    """

    make: Callable[..., Any]
    library: str
    limited: str = "RateLimitError"
    broken: str = "APIError"
    denied: str = "AuthenticationError"

    def error(self, name: str) -> type[Exception]:
        found: type[Exception] = getattr(pytest.importorskip(self.library), name)
        return found


PACKAGES = {
    "langchain_anthropic": Package(sdks.chat_anthropic, "anthropic"),
    "langchain_mistralai": Package(
        sdks.chat_mistralai, "httpx", "HTTPStatusError", "RemoteProtocolError", "HTTPStatusError"
    ),
    "langchain_openai": Package(sdks.chat_openai, "openai"),
}


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> Package:
    """Each of those that are installed."""
    pytest.importorskip(request.param)
    return PACKAGES[request.param]


@pytest.fixture
def chat(package: Package, world: World) -> Any:
    """For asynchronous code."""
    return package.make(world.router, model=MODEL, virtual_key=world.virtual_key)


@pytest.fixture
def blocking(package: Package, world: World) -> Any:
    """For blocking code."""
    return package.make(world.blocking, model=MODEL, virtual_key=world.virtual_key)


async def test_it_answers(chat: Any, blocking: Any, world: World) -> None:
    for reply in (await chat.ainvoke(QUESTION), blocking.invoke(QUESTION)):
        assert reply.content == ANSWER
        assert reply.usage_metadata["total_tokens"] == world.raw["usage"]["total_tokens"]
    assert [record.principal.virtual_key_id for record in world.ledger.records] == ["vk_tests"] * 2


async def test_it_streams(chat: Any, blocking: Any) -> None:
    pieces = [piece.content async for piece in chat.astream(QUESTION)]
    assert "".join(pieces) == ANSWER
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(piece.content for piece in blocking.stream(QUESTION)) == ANSWER


async def test_a_tool_is_called_and_its_result_answered(chat: Any, blocking: Any) -> None:
    history: list[Any] = [messages.HumanMessage(QUESTION)]
    asked = await chat.bind_tools([weather]).ainvoke(history)
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Oslo"})
    assert blocking.bind_tools([weather]).invoke(history).tool_calls == asked.tool_calls
    history += [asked, messages.ToolMessage("7", tool_call_id=call["id"])]
    assert (await chat.bind_tools([weather]).ainvoke(history)).content == "It is 7 degrees in Oslo."


async def test_a_streamed_tool_call_is_put_together(chat: Any) -> None:
    whole: Any = None
    async for piece in chat.bind_tools([weather]).astream(QUESTION):
        whole = piece if whole is None else whole + piece
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("weather", {"city": "Oslo"})]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output_is_an_instance_of_the_class(chat: Any, blocking: Any, method: str) -> None:
    expected = City(city="Oslo", degrees=7)
    assert await chat.with_structured_output(City, method=method).ainvoke(QUESTION) == expected
    assert blocking.with_structured_output(City, method=method).invoke(QUESTION) == expected


async def test_errors_are_those_of_the_library_beneath(
    package: Package, chat: Any, blocking: Any, world: World
) -> None:
    limited = package.error(package.limited)
    world.server.fail("key-1", Fault("status", status=429))
    with pytest.raises(limited):
        await chat.ainvoke(QUESTION)
    with pytest.raises(limited):
        blocking.invoke(QUESTION)
    assert len(world.server.requests) == 2  # LangChain and the SDK ask once each


async def test_a_stream_that_breaks_off_raises(package: Package, chat: Any, blocking: Any, world: World) -> None:
    broken = package.error(package.broken)
    world.server.fail("key-1", Fault("close", after=3))
    with pytest.raises(broken):
        async for _ in chat.astream(QUESTION):
            continue
    with pytest.raises(broken):
        for _ in blocking.stream(QUESTION):
            continue


async def test_nobody_gets_through_without_a_virtual_key(package: Package, world: World) -> None:
    with pytest.raises(package.error(package.denied)):
        await package.make(world.router, model=MODEL).ainvoke(QUESTION)
    told = package.make(world.router, model=MODEL, api_key=world.virtual_key)
    assert (await told.ainvoke(QUESTION)).content == ANSWER
