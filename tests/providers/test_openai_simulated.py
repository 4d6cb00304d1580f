"""OpenAI and servers like it against a server that checks what it is asked, over a real socket."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from bifrost_core import (
    BadRequestError,
    Key,
    ModelNotFoundError,
    OpenAI,
    OpenAICompatible,
    Request,
    ResponsesResponse,
    RetryPolicy,
    Router,
    SpeechResponse,
)
from bifrost_core.testing import Fault, SimulatedKey, SimulatedOpenAI

SECRET, OTHER = "sk-simulated-openai-1", "sk-simulated-openai-2"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@attrs.frozen
class Number:
    n: int


def model_of(body: dict[str, Any]) -> dict[str, Any] | str:
    """The simulated model calls the tool that it is offered, refuses what is rude, and then says something."""
    shown = str(body.get("messages") or body.get("input"))
    if "rude" in shown:
        return {"refusal": "I would rather not."}
    if body.get("tools") and "12 degrees" not in shown:
        return {"tool_calls": [{"name": "weather", "arguments": {"city": city}} for city in ("Oslo", "Bergen")]}
    if body.get("response_format") or "format" in (body.get("text") or {}):
        return '{"n": 3}'
    return {"thinking": "Norway, so", "content": "It is cold."} if body["model"] == "o3" else "It is cold."


@pytest.fixture
def server() -> Iterator[SimulatedOpenAI]:
    with SimulatedOpenAI([SimulatedKey(SECRET, id="a"), SimulatedKey(OTHER, id="b")], answer=model_of) as running:
        yield running


@pytest.fixture(params=["openai", "local"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def router(server: SimulatedOpenAI, **options: Any) -> Router:
    keys = [Key(SECRET, id="a"), Key(OTHER, id="b")]
    return Router(
        [OpenAI(keys, base_url=server.base_url), OpenAICompatible("local", keys, base_url=f"{server.base_url}/v1")],
        **options,
    )


def recording() -> bytes:
    """Two seconds of silence."""
    data = io.BytesIO()
    with wave.open(data, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8_000)
        sound.writeframes(bytes(32_000))
    return data.getvalue()


async def test_a_conversation_with_tools(server: SimulatedOpenAI, provider: str) -> None:
    async with router(server) as asking:
        model = f"{provider}/gpt-4o"
        messages: list[Any] = [{"role": "user", "content": "How is the weather?"}]
        asked = await asking.chat(model, messages, tools=[WEATHER], tool_choice="any", random_seed=1)
        assert [call.parsed() for call in asked.tool_calls] == [{"city": "Oslo"}, {"city": "Bergen"}]
        messages.append(asked.message)
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "12 degrees"} for call in asked.tool_calls]
        answered = await asking.chat(model, messages, tools=[WEATHER], max_tokens=20)
    assert (asked.finish_reason, answered.text) == ("tool_calls", "It is cold.")


async def test_a_streamed_conversation_with_tools(server: SimulatedOpenAI, provider: str) -> None:
    async with router(server) as asking:
        model = f"{provider}/gpt-4o"
        async with asking.stream(model, "How is the weather?", tools=[WEATHER]) as stream:
            calls = [call async for chunk in stream for call in chunk.tool_calls]
            asked = stream.response
        messages: list[Any] = [{"role": "user", "content": "x"}, asked.message]
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "12 degrees"} for call in calls]
        async with asking.stream(model, messages, tools=[WEATHER]) as stream:
            text = "".join([piece async for piece in stream.text()])
            usage = stream.response.usage
    assert [call.parsed()["city"] for call in calls] == ["Oslo", "Bergen"]
    assert text == "It is cold."
    assert usage.output_tokens > 0


async def test_structured_output_and_a_refusal(server: SimulatedOpenAI, provider: str) -> None:
    async with router(server) as asking:
        reply = await asking.chat(f"{provider}/gpt-4o", "A number, please.", response_format=Number)
        refused = await asking.chat(f"{provider}/gpt-4o", "Be rude.")
    assert reply.parsed == Number(3)
    assert (refused.text, refused.message["refusal"]) == ("I would rather not.",) * 2


async def test_responses_with_tools_plain_and_streamed(server: SimulatedOpenAI, provider: str) -> None:
    tool = {"type": "function", "strict": False, **WEATHER["function"]}
    async with router(server) as asking:
        model = f"{provider}/gpt-4o"
        asked = await asking.responses(model, "How is the weather?", tools=[tool])
        given: list[Any] = [{"role": "user", "content": "x"}, *asked.output]
        given += [
            {"type": "function_call_output", "call_id": call.id, "output": "12 degrees"} for call in asked.tool_calls
        ]
        async with asking.stream_responses(model, given, tools=[tool]) as stream:
            events = [chunk.raw["type"] async for chunk in stream]
            answered = stream.response
    assert isinstance(answered, ResponsesResponse)
    assert [call.parsed()["city"] for call in asked.tool_calls] == ["Oslo", "Bergen"]
    assert answered.output_text == "It is cold."
    assert (events[0], events[-1]) == ("response.created", "response.completed")
    assert answered.usage.output_tokens > 0


async def test_every_other_operation(server: SimulatedOpenAI, provider: str) -> None:
    async with router(server) as asking:
        plain = await asking.embed(f"{provider}/text-embedding-3-small", ["a", "b"], dimensions=4)
        packed = await asking.embed(
            f"{provider}/text-embedding-3-small", ["a", "b"], dimensions=4, encoding_format="base64"
        )
        verdicts = await asking.moderate(f"{provider}/omni-moderation-latest", ["a line", "another"])
        heard = await asking.transcribe(f"{provider}/whisper-1", recording())
        async with asking.stream_transcribe(f"{provider}/gpt-4o-transcribe", recording()) as stream:
            words = "".join([piece async for piece in stream.text()])
            written = stream.response
        speech = Request("speech", f"{provider}/tts-1", {"input": "Good evening.", "voice": "alloy"})
        said = await asking.send(speech)
        models = await asking.models(provider)
    assert [len(vector) for vector in plain.embeddings] == [4, 4]
    for vector, same in zip(plain.embeddings, packed.embeddings, strict=True):
        assert list(same) == pytest.approx(list(vector), abs=1e-6)
    assert len(verdicts.results) == 2
    assert heard.usage.audio_seconds == pytest.approx(2.0)
    assert words == written.text != ""
    assert isinstance(said, SpeechResponse)
    assert said.audio
    assert f"{provider}/gpt-4o" in {model.id for model in models}


async def test_a_model_that_thinks_is_sent_its_limit_by_the_newer_name(server: SimulatedOpenAI) -> None:
    async with router(server) as asking:
        reply = await asking.chat("openai/o3", "hi", max_tokens=500)
        assert reply.usage.reasoning_tokens > 0
        with pytest.raises(BadRequestError, match="max_completion_tokens"):
            await asking.chat("local/o3", "hi", max_tokens=500)  # sent as it is: the server may be anybody's


async def test_mistakes_come_back_as_what_they_are(server: SimulatedOpenAI, provider: str) -> None:
    async with router(server) as asking:
        with pytest.raises(BadRequestError):
            await asking.chat(f"{provider}/gpt-4o", "hi", temperature=9)
        with pytest.raises(ModelNotFoundError):
            await asking.chat(f"{provider}/no-such-model", "hi")


async def test_a_key_that_is_limited_or_rejected_gives_way_to_the_other(server: SimulatedOpenAI) -> None:
    for fault in (Fault("status", status=429), Fault("status", status=401), Fault("status", status=500)):
        server.heal("a")
        server.fail("a", fault)
        async with router(server, retry=RetryPolicy(backoff=0.01)) as asking:
            replies = [await asking.chat("openai/gpt-4o", "hi") for _ in range(4)]
        assert {reply.route.key_id for reply in replies} == {"b"}
