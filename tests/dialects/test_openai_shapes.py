"""What providers say that OpenAI's clients can not read, brought into the shape that they can."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bifrost_core import ChatResponse, Choice, Chunk, ToolCall, Usage
from bifrost_core.dialects._openai_chat import ChatRenderer
from bifrost_core.dialects._openai_shapes import ChunkShaper, completion_of

NOW = 1_800_000_000
HEAD: dict[str, Any] = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m"}


def event(delta: dict[str, Any], reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": reason}], **more}


def whole(message: dict[str, Any], reason: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {"id": "c1", "object": "chat.completion", "created": 5, "model": "m", "choices": [choice], **more}


# --- whole answers


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"role": "assistant", "content": "hi", "refusal": None, "annotations": []}, id="text"),
        pytest.param({"role": "assistant", "content": "hi", "reasoning_content": "hm"}, id="reasoning of its own"),
        pytest.param(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            id="calls",
        ),
        pytest.param(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}],
            },
            id="custom calls",
        ),
    ],
)
def test_a_completion_of_openais_own_shape_is_the_very_same(message: dict[str, Any]) -> None:
    raw = whole(message, usage={"prompt_tokens": 1}, system_fingerprint="fp")
    choice = Choice(text="", finish_reason="stop", message=message)
    assert completion_of(ChatResponse(raw=raw, choices=[choice]), NOW) is raw


def test_thinking_beside_text_becomes_reasoning_content() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "reference", "reference_ids": [1]}]},
        {"type": "thinking", "thinking": "m"},
        {"type": "text", "text": "yes"},
        {"type": "text", "text": "!"},
    ]
    message = {"role": "assistant", "content": content}
    response = ChatResponse(raw=whole(message), choices=[Choice(text="yes!", finish_reason="stop", message=message)])
    assert completion_of(response, NOW) == whole({"role": "assistant", "content": "yes!", "reasoning_content": "hm"})
    assert message["content"] is content  # the response itself is not changed


def test_calls_without_type_id_or_text_of_arguments_get_them() -> None:
    raw_calls = [{"id": "null", "function": {"name": "f", "arguments": {"a": 1}, "strict": True}, "index": 0}]
    raw = whole({"role": "assistant", "content": "", "tool_calls": raw_calls}, "tool_calls")
    choice = Choice(tool_calls=[ToolCall("abcdefghi", "f", '{"a":1}')], finish_reason="tool_calls")
    told = completion_of(ChatResponse(raw=raw, choices=[choice]), NOW)
    assert told["choices"][0]["message"]["tool_calls"] == [
        {
            "id": "abcdefghi",
            "type": "function",
            "index": 0,
            "function": {"name": "f", "arguments": '{"a":1}', "strict": True},
        }
    ]


def test_the_providers_word_for_an_end_becomes_openais() -> None:
    raw = whole({"role": "assistant", "content": "x"}, "model_length")
    told = completion_of(ChatResponse(raw=raw, choices=[Choice(text="x", finish_reason="length")]), NOW)
    assert told["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param({}, id="made by hand"),
        pytest.param(
            {"id": "msg_1", "type": "message", "content": [{"type": "text", "text": "old"}], "role": "assistant"},
            id="of Anthropic",
        ),
    ],
)
def test_an_answer_of_another_family_is_made_of_its_fields(raw: dict[str, Any]) -> None:
    choices = [
        Choice(text="a", reasoning="r", finish_reason="tool_calls", tool_calls=[ToolCall("t", "f", "{}")]),
        Choice(index=1, text="b", finish_reason="stop"),
    ]
    usage = Usage(input_tokens=5, output_tokens=2, cached_tokens=3)
    told = completion_of(ChatResponse(raw=raw, model="m", choices=choices, usage=usage, call_id="call_1"), NOW)
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert told["id"] == raw.get("id", "call_1")
    assert (told["object"], told["created"], told["model"]) == ("chat.completion", NOW, "m")
    assert [choice["message"] for choice in told["choices"]] == [
        {"role": "assistant", "content": "a", "reasoning_content": "r", "tool_calls": [call]},
        {"role": "assistant", "content": "b"},
    ]
    assert [choice["finish_reason"] for choice in told["choices"]] == ["tool_calls", "stop"]
    assert told["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    assert "old" not in str(told)


# --- chunks


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(event({"role": "assistant", "content": ""}, logprobs=None), id="begin"),
        pytest.param(event({"role": "assistant", "content": "x"}, usage=None, system_fingerprint="fp"), id="text"),
        pytest.param({**HEAD, "choices": [], "usage": {"prompt_tokens": 1}}, id="usage alone"),
    ],
)
def test_an_event_of_openais_own_shape_is_the_very_same(raw: dict[str, Any]) -> None:
    assert ChunkShaper(NOW).shape(Chunk(raw=raw)) is raw


def test_pieces_of_calls_of_openais_own_shape_are_the_very_same() -> None:
    shaper = ChunkShaper(NOW)
    first = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    raws = [
        event({"role": "assistant", "content": None, "tool_calls": [first]}),
        event({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
        event({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        event({"tool_calls": [{**first, "index": 1, "id": "b"}]}),
        event({}, "tool_calls"),
    ]
    told = [shaper.shape(Chunk(raw=raw, finish_reason=raw["choices"][0]["finish_reason"])) for raw in raws]
    assert all(new is old for new, old in zip(told, raws, strict=True))


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    """As Mistral has sent them: each call whole, all of them with the index 0, and without a type."""
    shaper = ChunkShaper(NOW)
    told: list[Any] = []
    for name in ("a", "b"):
        piece = {"id": name, "function": {"name": "f", "arguments": {"of": name}}, "index": 0}
        shaped = shaper.shape(Chunk(raw=event({"role": "assistant", "tool_calls": [piece]})))
        assert shaped is not None
        told += shaped["choices"][0]["delta"]["tool_calls"]
    assert told == [
        {"id": "a", "function": {"name": "f", "arguments": '{"of":"a"}'}, "index": 0, "type": "function"},
        {"id": "b", "function": {"name": "f", "arguments": '{"of":"b"}'}, "index": 1, "type": "function"},
    ]


def test_a_call_without_an_id_has_the_one_that_the_router_gave_it() -> None:
    pieces = [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "f", "arguments": "{}"}}]
    calls = (ToolCall("one", "f", "{}"), ToolCall("two", "f", "{}"))
    chunk = Chunk(tool_calls=calls, raw=event({"role": "assistant", "tool_calls": pieces}))
    shaped = ChunkShaper(NOW).shape(chunk)
    assert shaped is not None
    assert [(call["id"], call["index"]) for call in shaped["choices"][0]["delta"]["tool_calls"]] == [
        ("one", 0),
        ("two", 1),
    ]


def test_a_call_of_which_nothing_is_known_yet_gets_an_id_and_keeps_it() -> None:
    shaper = ChunkShaper(NOW)
    pieces = [{"function": {"name": "f", "arguments": "{"}}, {"function": {"arguments": "}"}}]
    told: list[Any] = []
    for piece in pieces:
        shaped = shaper.shape(Chunk(raw=event({"role": "assistant", "tool_calls": [piece]})))
        assert shaped is not None
        told += shaped["choices"][0]["delta"]["tool_calls"]
    assert len(told[0].pop("id")) == 9
    assert told == [
        {"function": {"name": "f", "arguments": "{"}, "type": "function", "index": 0},
        {"function": {"arguments": "}"}, "index": 0},
    ]


def test_a_whole_answer_in_place_of_a_stream_is_told_as_one_chunk() -> None:
    raw = whole({"role": "assistant", "content": "x"}, usage={"prompt_tokens": 1})
    assert ChunkShaper(NOW).shape(Chunk(text="x", finish_reason="stop", raw=raw)) == event(
        {"role": "assistant", "content": "x"}, "stop", usage={"prompt_tokens": 1}
    )


def test_thinking_in_a_chunk_becomes_reasoning_content() -> None:
    part = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    raw = event({"role": "assistant", "content": [part]})
    assert ChunkShaper(NOW).shape(Chunk(reasoning="hm", raw=raw)) == event(
        {"role": "assistant", "content": "", "reasoning_content": "hm"}
    )


def test_events_of_another_family_are_made_of_their_fields() -> None:
    """As Anthropic's: one event each, those that say nothing here are left out, the first names the answer."""
    shaper = ChunkShaper(NOW)
    begin = {"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": {"input_tokens": 3}}}
    usage = Usage(input_tokens=3, output_tokens=4)
    calls = ToolCall("t1", "f", "{}"), ToolCall("t2", "g", "{}")
    chunks = [
        Chunk(raw=begin),
        Chunk(raw={"type": "ping"}),
        Chunk(reasoning="hm", raw={"type": "content_block_delta"}),
        Chunk(text="x", raw={"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}}),
        Chunk(tool_calls=calls[:1], raw={"type": "content_block_stop"}),
        Chunk(tool_calls=calls[1:], raw={"type": "content_block_stop"}),
        Chunk(finish_reason="tool_calls", usage=usage, raw={"type": "message_delta"}),
        Chunk(raw={"type": "message_stop"}),
    ]
    told = [each for chunk in chunks if (each := shaper.shape(chunk)) is not None]
    head = {"id": "msg_1", "object": "chat.completion.chunk", "created": NOW, "model": "claude"}
    assert all({name: each[name] for name in head} == head for each in told)
    assert [each["choices"][0]["delta"] for each in told] == [
        {"role": "assistant", "content": "", "reasoning_content": "hm"},
        {"content": "x"},
        {"tool_calls": [{"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 1, "id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
        {},
    ]
    assert [each["choices"][0]["finish_reason"] for each in told] == [None, None, None, None, "tool_calls"]
    assert [each.get("usage", {}).get("total_tokens") for each in told] == [None, None, None, None, 7]


def test_chunks_without_a_name_share_one_that_is_made() -> None:
    shaper = ChunkShaper(NOW)
    told = [shaper.shape(Chunk(text="x")), shaper.shape(Chunk(finish_reason="stop"))]
    assert len({each["id"] for each in told if each is not None}) == 1
    assert told[0] is not None
    assert told[0]["id"].startswith("chatcmpl-")


# --- the bytes of a stream


def written(renderer: ChatRenderer, chunks: list[Chunk], response: ChatResponse | None = None) -> list[Any]:
    """The events that a renderer writes, the end left out."""
    body = renderer.feed(chunks) + renderer.finish(response or ChatResponse(call_id="call_1", model="m"))
    *told, end = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    assert end == "[DONE]"
    return [json.loads(each) for each in told]


COUNTED: dict[str, Any] = {**HEAD, "choices": [], "usage": {"total_tokens": 3}, "service_tier": "default"}


def test_usage_that_comes_alone_is_written_on_at_the_end_where_it_was_asked_for() -> None:
    chunks = [Chunk(raw=COUNTED), Chunk(text="x", raw=event({"role": "assistant", "content": "x"}, usage=None))]
    told = written(ChatRenderer(NOW, wants_usage=True), chunks)
    assert told == [chunks[1].raw, COUNTED]


def test_usage_that_comes_alone_is_nothing_to_who_did_not_ask_for_it() -> None:
    """Clients look at ``choices[0]`` of every chunk."""
    chunks = [Chunk(text="x", raw=event({"role": "assistant", "content": "x"})), Chunk(raw=COUNTED)]
    assert written(ChatRenderer(NOW), chunks) == [chunks[0].raw]


def test_usage_beside_a_choice_moves_to_the_end_where_it_was_asked_for() -> None:
    chunk = Chunk(finish_reason="stop", raw={**event({"role": "assistant"}, "stop"), "usage": {"total_tokens": 3}})
    assert written(ChatRenderer(NOW, wants_usage=True), [chunk]) == [
        event({"role": "assistant"}, "stop"),
        {**HEAD, "choices": [], "usage": {"total_tokens": 3}},
    ]


def test_usage_of_another_family_is_that_of_the_whole_answer() -> None:
    chunks = [
        Chunk(usage=Usage(input_tokens=3), raw={"type": "message_start"}),
        Chunk(text="x", raw={"type": "content_block_delta"}),
        Chunk(finish_reason="stop", usage=Usage(output_tokens=4), raw={"type": "message_delta"}),
    ]
    answer = ChatResponse(usage=Usage(input_tokens=3, output_tokens=4), model="m")
    *told, last = written(ChatRenderer(NOW, wants_usage=True), chunks, answer)
    assert [each["choices"][0]["finish_reason"] for each in told] == [None, "stop"]
    assert not any("usage" in each for each in told)
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 7)


def test_a_stream_that_told_nothing_has_usage_under_the_calls_name() -> None:
    (last,) = written(ChatRenderer(NOW, wants_usage=True), [])
    assert (last["id"], last["model"], last["created"]) == ("call_1", "m", NOW)


def test_a_call_and_the_end_in_one_event_become_two() -> None:
    piece = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    raw = event({"role": "assistant", "tool_calls": [piece]}, "tool_calls", usage={"total_tokens": 3})
    assert written(ChatRenderer(NOW), [Chunk(finish_reason="tool_calls", raw=raw)]) == [
        event({"role": "assistant", "tool_calls": [piece]}),
        event({}, "tool_calls", usage={"total_tokens": 3}),
    ]


def test_log_probabilities_are_written_on() -> None:
    logprobs = {"content": [{"token": "x", "logprob": -0.1, "bytes": [120], "top_logprobs": []}], "refusal": None}
    raw = event({"role": "assistant", "content": "x"})
    raw["choices"][0]["logprobs"] = logprobs
    assert written(ChatRenderer(NOW), [Chunk(text="x", raw=raw)])[0]["choices"][0]["logprobs"] == logprobs
    message = {"role": "assistant", "content": "x"}
    answer = whole(message)
    answer["choices"][0]["logprobs"] = logprobs
    assert completion_of(ChatResponse(raw=answer, choices=[Choice(text="x", finish_reason="stop")]), NOW) is answer
