"""Chat answers of OpenAI and of servers like it, whole and streamed: nothing is lost, whatever way the bytes are split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.errors import CallError, ProviderRateLimitError, StreamBrokenError
from bifrost_core.providers import OpenAI
from bifrost_core.providers.base import StreamDecoder
from bifrost_core.responses import ChatResponse
from bifrost_core.types import Chunk, Request, ToolCall, Usage
from bifrost_core.wire import HttpReply

KEY = "sk-openai-answers-0123456789"
FIXTURES = Path(__file__).parent.parent / "fixtures" / "openai"
USAGE = Usage(
    input_tokens=1117, output_tokens=46, cached_tokens=1024, cache_write_tokens=64, reasoning_tokens=32, requests=1
)


def ask(**body: Any) -> Request:
    return Request("chat", "gpt-4o", {"messages": [{"role": "user", "content": "x"}], **body})


def body_of(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))["body"]
    return body


def read(body: dict[str, Any]) -> ChatResponse:
    response = OpenAI(KEY).decode(ask(), HttpReply(200, {}, json.dumps(body).encode()))
    assert isinstance(response, ChatResponse)
    return response


# -- whole ---------------------------------------------------------------------------------------------------------


def test_a_plain_answer() -> None:
    body = body_of("chat")
    response = read(body)
    assert (response.text, response.finish_reason, response.model) == (
        "Bifröst burns between the worlds.",
        "stop",
        "gpt-4o-2024-11-20",
    )
    assert response.usage == USAGE
    assert response.raw == body
    assert response.message == body["choices"][0]["message"]


def test_function_and_custom_calls() -> None:
    response = read(body_of("chat_tool_calls"))
    assert response.tool_calls == (
        ToolCall("call_a", "weather", '{"place":"Oslo"}'),
        ToolCall("call_b", "shell", "ls -l"),
    )
    written = json.loads(OpenAI(KEY).encode(ask(messages=[response.message])).body)["messages"][0]
    assert written["tool_calls"] == response.raw["choices"][0]["message"]["tool_calls"]


def test_a_refusal_is_what_the_model_said() -> None:
    response = read(body_of("chat_refusal"))
    assert response.text == "I can not help with that."
    assert response.message["refusal"] == response.text
    message = response.to_openai()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": None, "refusal": response.text}


def test_sound_stays_in_raw_and_goes_back_by_its_id() -> None:
    response = read(body_of("chat_audio"))
    assert response.raw == body_of("chat_audio")
    written = json.loads(OpenAI(KEY).encode(ask(messages=[response.message])).body)["messages"][0]
    assert written == {"role": "assistant", "content": None, "audio": {"id": "audio_1"}}


@pytest.mark.parametrize("name", ["chat", "chat_refusal", "chat_audio"])
def test_replaced_words_are_nowhere_in_the_answer(name: str) -> None:
    response = read(body_of(name)).with_text("new words")
    assert response.text == response.message["content"] == "new words"
    shown = json.dumps([response.raw, response.message, response.to_openai()], ensure_ascii=False)
    assert "new words" in shown
    for old in ("Bifröst", "Bif", "can not help", "Hello there", "UklGRg"):
        assert old not in shown


@pytest.mark.parametrize(
    "member", [pytest.param("reasoning_content", id="reasoning_content"), pytest.param("reasoning", id="reasoning")]
)
def test_reasoning_of_compatible_servers(member: str) -> None:
    body = body_of("chat")
    body["choices"][0]["message"][member] = "thought"
    assert read(body).reasoning == "thought"


# -- streamed ------------------------------------------------------------------------------------------------------

NAMES = ["stream_text", "stream_tools", "stream_refusal"]


def stream_of(name: str) -> bytes:
    return (FIXTURES / f"{name}.sse").read_bytes()


def events_of(name: str) -> list[dict[str, Any]]:
    lines = stream_of(name).decode().splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def decode(stream: bytes, *cuts: int) -> tuple[list[Chunk], StreamDecoder]:
    made = OpenAI(KEY).decoder(ask())
    chunks: list[Chunk] = []
    for start, end in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        chunks += made.feed(stream[start:end])
    return chunks, made


@pytest.mark.parametrize("name", NAMES)
def test_every_event_is_a_chunk_with_the_event_as_it_came(name: str) -> None:
    chunks, made = decode(stream_of(name))
    assert [chunk.raw for chunk in chunks] == events_of(name)
    assert made.done
    assert chunks[-1].usage == USAGE
    response = made.finish()
    assert isinstance(response, ChatResponse)
    assert response.usage == USAGE
    assert "".join(chunk.text for chunk in chunks) == response.text
    assert tuple(call for chunk in chunks for call in chunk.tool_calls) == response.tool_calls
    assert response.raw["system_fingerprint"] == "fp_1"
    assert "obfuscation" not in response.raw


@pytest.mark.parametrize("name", NAMES)
def test_any_single_split_gives_the_same_chunks(name: str) -> None:
    stream = stream_of(name)
    whole, made = decode(stream)
    for cut in range(1, len(stream)):
        chunks, twin = decode(stream, cut)
        assert chunks == whole
        assert twin.finish() == made.finish()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_splits_give_the_same_chunks(name: str, data: st.DataObject) -> None:
    stream = stream_of(name)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=40)))
    assert decode(stream, *cuts)[0] == decode(stream)[0]


def test_the_text_and_its_log_probabilities() -> None:
    _, made = decode(stream_of("stream_text"))
    response = made.finish()
    assert isinstance(response, ChatResponse)
    assert (response.text, response.finish_reason) == ("Three colours: röd", "stop")
    tokens = [entry["token"] for entry in response.raw["choices"][0]["logprobs"]["content"]]
    assert tokens == ["Three", " colours: röd"]


def test_parallel_calls_are_put_together_by_their_index() -> None:
    chunks, made = decode(stream_of("stream_tools"))
    response = made.finish()
    assert isinstance(response, ChatResponse)
    wanted = (ToolCall("call_a", "weather", '{"place":"Oslo"}'), ToolCall("call_b", "clock", "{}"))
    assert response.tool_calls == wanted
    assert tuple(call for chunk in chunks for call in chunk.tool_calls) == wanted


def test_a_streamed_refusal_is_text_and_stays_a_refusal_in_the_message() -> None:
    chunks, made = decode(stream_of("stream_refusal"))
    assert [chunk.text for chunk in chunks if chunk.text] == ["I can not", " help."]
    response = made.finish()
    assert isinstance(response, ChatResponse)
    assert (response.text, response.message) == (
        "I can not help.",
        {"role": "assistant", "content": None, "refusal": "I can not help."},
    )
    assert response.raw["choices"][0]["logprobs"]["refusal"][0]["token"] == "I can not"
    assert "can not" not in str(chunks[1].with_text("new").raw)


def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return (
        b"data: " + json.dumps({"id": "e", "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
    )


END = event({}, "stop") + b"data: [DONE]\n\n"


def finished(stream: bytes) -> ChatResponse:
    response = decode(stream)[1].finish()
    assert isinstance(response, ChatResponse)
    return response


def test_sound_and_other_members_come_in_pieces_and_are_put_together() -> None:
    pieces: list[dict[str, Any]] = [
        {"audio": {"id": "audio_1", "transcript": "Hel"}},
        {"audio": {"transcript": "lo", "data": "UklG"}},
        {"audio": {"data": "Rg==", "expires_at": 5}, "annotations": [{"type": "url_citation"}]},
    ]
    message = finished(b"".join(map(event, pieces)) + END).message
    assert message["audio"] == {"id": "audio_1", "transcript": "Hello", "data": "UklGRg==", "expires_at": 5}
    assert message["annotations"] == [{"type": "url_citation"}]


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning"])
def test_streamed_reasoning_stays_under_its_own_name(member: str) -> None:
    response = finished(event({member: "thou"}) + event({member: "ght"}) + event({"content": "x"}) + END)
    assert (response.reasoning, response.text) == ("thought", "x")
    assert response.message == {"role": "assistant", "content": "x", member: "thought"}


def test_the_input_of_a_custom_tool_is_whole_at_the_end_of_the_answer() -> None:
    pieces: list[dict[str, Any]] = [
        {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls"}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": " -l"}}]},
    ]
    chunks, made = decode(b"".join(map(event, pieces)) + event({}, "tool_calls") + b"data: [DONE]\n\n")
    assert [chunk.tool_calls for chunk in chunks] == [(), (), (ToolCall("c", "shell", "ls -l"),)]
    response = made.finish()
    assert isinstance(response, ChatResponse)
    (call,) = response.message["tool_calls"]
    assert (call["type"], call["custom"]) == ("custom", {"name": "shell", "input": "ls -l"})


def test_an_event_without_choices_is_a_chunk_too() -> None:
    first = b'data: {"id":"","choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n'
    chunks, _ = decode(first + event({"content": "x"}) + END)
    assert chunks[0] == Chunk(raw={"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_is_cut_is_no_answer(name: str) -> None:
    stream = stream_of(name)
    with pytest.raises(StreamBrokenError):
        decode(stream[: stream.index(b'"finish_reason":"')])[1].finish()


def test_an_error_in_the_stream_before_any_content_is_what_its_code_says() -> None:
    error = {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    _, made = decode(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
    assert isinstance(made.error, ProviderRateLimitError)


def test_an_error_after_content_breaks_the_stream_with_what_there_was() -> None:
    error = {"message": "no more", "type": "server_error", "param": None, "code": None}
    _, made = decode(event({"content": "so far"}) + b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
    assert isinstance(made.error, StreamBrokenError)
    assert made.error.partial is not None
    assert made.error.partial.text == "so far"


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_no_bytes_make_a_decoder_raise_before_its_end(data: bytes) -> None:
    made = OpenAI(KEY).decoder(ask())
    made.feed(data)
    with pytest.raises(CallError):
        made.finish()
