"""The events of a streamed message: Anthropic's own as they came, everybody else's made, and both in one sequence.

Events: https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.dialects._anthropic_events import MessageEvents
from bifrost_core.replay import chunks_of
from bifrost_core.responses import ChatResponse
from bifrost_core.types import Choice, Chunk, ToolCall, Usage

Json: TypeAlias = dict[str, Any]

CALL = ToolCall("a1B2c3D4e", "weather", '{"city":"Oslo"}')


def read(written: bytes) -> list[Json]:
    events: list[Json] = []
    for block in written.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def told(chunks: list[Chunk], response: ChatResponse | None = None, prefill: str = "") -> list[Json]:
    """All events, the chunks fed one by one."""
    events = MessageEvents("a-model", prefill)
    written = b"".join(events.feed([chunk]) for chunk in chunks)
    return read(written + events.finish(response or ChatResponse(model="a-model", raw={"id": "m1"})))


def message(events: list[Json]) -> Json:
    """The message that a reader makes of the events; sees that they come in the documented order."""
    events = [event for event in events if event["type"] not in ("ping", "what_is_newer")]
    assert events[0]["type"] == "message_start"
    whole: Json = {**events[0]["message"], "content": list(events[0]["message"]["content"])}
    content: list[Json] = whole["content"]
    is_open = False
    for event in events[1:]:
        kind = event["type"]
        if kind == "content_block_start":
            assert not is_open
            assert event["index"] == len(content)
            content.append(dict(event["content_block"]))
            is_open = True
        elif kind == "content_block_delta":
            assert is_open
            assert event["index"] == len(content) - 1
            _add(content[-1], event["delta"])
        elif kind == "content_block_stop":
            assert is_open
            assert event["index"] == len(content) - 1
            is_open = False
            if "pieces" in content[-1]:
                content[-1]["input"] = json.loads(content[-1].pop("pieces") or "{}")
        elif kind == "message_delta":
            assert not is_open
            whole.update(event["delta"])
            whole["usage"] = {**whole["usage"], **event.get("usage", {})}
        else:
            assert kind == "message_stop"
    assert [event["type"] for event in events].count("message_stop") == 1
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    return whole


def _add(block: Json, delta: Json) -> None:
    kind = delta["type"]
    if kind == "input_json_delta":
        block["pieces"] = block.get("pieces", "") + delta["partial_json"]
        return
    name = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}[kind]
    assert block["type"] == ("text" if name == "text" else "thinking")
    block[name] += delta[name]


def content(events: list[Json]) -> list[Json]:
    blocks: list[Json] = message(events)["content"]
    return blocks


# --- chunks of other providers


def openai(delta: Json, **fields: Any) -> Chunk:
    return Chunk(raw={"id": "cmpl-1", "model": "the-model", "choices": [{"index": 0, "delta": delta}]}, **fields)


def test_an_answer_of_another_provider_is_told_in_anthropics_events() -> None:
    usage = Usage(input_tokens=30, cached_tokens=20, output_tokens=9, reasoning_tokens=4)
    events = told(
        [
            openai({"role": "assistant", "content": ""}),
            openai({}, reasoning="Let me "),
            openai({}, reasoning="think."),
            openai({"content": "Look"}, text="Look"),
            openai({"content": "ing."}, text="ing."),
            openai({}, tool_calls=(CALL,), finish_reason="tool_calls"),
            openai({}, usage=usage),
        ],
        ChatResponse(usage=usage, raw={"id": "cmpl-1"}, choices=[Choice(tool_calls=[CALL])]),
    )
    assert events == [
        {
            "type": "message_start",
            "message": {
                "id": "cmpl-1",
                "type": "message",
                "role": "assistant",
                "model": "the-model",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 0,
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0,
                    "output_tokens": 0,
                },
            },
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "think."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Look"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "ing."}},
        {"type": "content_block_stop", "index": 1},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "a1B2c3D4e", "name": "weather", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 2,
            "delta": {"type": "input_json_delta", "partial_json": '{"city":"Oslo"}'},
        },
        {"type": "content_block_stop", "index": 2},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {
                "input_tokens": 10,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 20,
                "output_tokens": 9,
                "output_tokens_details": {"thinking_tokens": 4},
            },
        },
        {"type": "message_stop"},
    ]


def test_the_first_chunk_begins_the_message_and_the_last_words_wait_for_the_end() -> None:
    events = MessageEvents("a-model")
    assert [event["type"] for event in read(events.feed([openai({"role": "assistant"})]))] == ["message_start"]
    assert events.feed([openai({}, finish_reason="stop")]) == b""
    assert [event["type"] for event in read(events.finish(ChatResponse()))] == ["message_delta", "message_stop"]


@pytest.mark.parametrize(
    ("reason", "stop_reason"),
    [
        pytest.param("stop", "end_turn", id="stop"),
        pytest.param("length", "max_tokens", id="length"),
        pytest.param("content_filter", "refusal", id="filtered"),
        pytest.param("pause_turn", "pause_turn", id="its-own-word"),
    ],
)
def test_why_it_ended_is_told_in_anthropics_words(reason: str, stop_reason: str) -> None:
    assert message(told([openai({}, text="x"), openai({}, finish_reason=reason)]))["stop_reason"] == stop_reason


def test_calls_make_an_end_a_call_for_tools_and_follow_each_other() -> None:
    other = ToolCall("b", "time", "")
    whole = message(told([openai({}, tool_calls=(CALL, other), finish_reason="stop")]))
    assert whole["stop_reason"] == "tool_use"
    assert whole["content"] == [
        {"type": "tool_use", "id": "a1B2c3D4e", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "b", "name": "time", "input": {}},
    ]


@pytest.mark.parametrize("arguments", ["{bad", "[1]", '"x"'])
def test_arguments_that_are_no_object_are_told_in_one(arguments: str) -> None:
    blocks = content(told([openai({}, tool_calls=(ToolCall("a", "f", arguments),))]))
    assert blocks[0]["input"] == {"INVALID_JSON": arguments}


def test_a_call_that_was_cut_off_is_told_as_far_as_it_came() -> None:
    cut = ToolCall("a", "f", '{"city":"Os')
    response = ChatResponse(choices=[Choice(tool_calls=[cut], finish_reason="length")])
    events = told([openai({}, text="x"), openai({}, finish_reason="length")], response)
    assert [event.get("delta") for event in events if event["type"] == "content_block_delta"][-1] == {
        "type": "input_json_delta",
        "partial_json": '{"city":"Os',
    }
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_only_the_first_of_several_choices_has_a_place() -> None:
    assert content(told([Chunk(text="one"), Chunk(text="two", index=1)])) == [{"type": "text", "text": "one"}]


def test_a_prefill_that_a_provider_repeats_is_not_repeated() -> None:
    chunks = [openai({}, text="The answer"), openai({}, text=" is ("), openai({}, text="B)")]
    assert content(told(chunks, prefill="The answer is (")) == [{"type": "text", "text": "B)"}]
    assert content(told([openai({}, text="B)")], prefill="The answer is (")) == [{"type": "text", "text": "B)"}]


def test_an_empty_answer_is_a_message_without_blocks() -> None:
    whole = message(told([], ChatResponse(model="a-model", call_id="call_1", choices=[Choice(finish_reason="stop")])))
    assert (whole["content"], whole["stop_reason"], whole["model"]) == ([], "end_turn", "a-model")
    assert whole["id"].startswith("msg_")


# --- Anthropic's own events

START: Json = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 1, "service_tier": "standard"},
    },
}
END: Json = {
    "type": "message_delta",
    "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"},
    "usage": {"output_tokens": 12},
}


def own(event: Json, **fields: Any) -> Chunk:
    return Chunk(raw=event, **fields)


def begins(index: int, block: Json) -> Chunk:
    return own({"type": "content_block_start", "index": index, "content_block": block})


def goes_on(index: int, delta: Json, **fields: Any) -> Chunk:
    return own({"type": "content_block_delta", "index": index, "delta": delta}, **fields)


def says(index: int, text: str) -> Chunk:
    return goes_on(index, {"type": "text_delta", "text": text}, text=text)


def ends(index: int, **fields: Any) -> Chunk:
    return own({"type": "content_block_stop", "index": index}, **fields)


TEXT: Json = {"type": "text", "text": ""}
THOUGHT: Json = {"type": "thinking", "thinking": "", "signature": ""}
TOOL: Json = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
CALLED = ToolCall("toolu_1", "f", '{"a":1}')
LAST = [own(END, finish_reason="stop"), own({"type": "message_stop"})]


def anthropic() -> list[Chunk]:
    return [
        own(START),
        own({"type": "ping"}),
        own({"type": "what_is_newer", "is": "handed on"}),
        begins(0, THOUGHT),
        goes_on(0, {"type": "thinking_delta", "thinking": "hm"}, reasoning="hm"),
        goes_on(0, {"type": "signature_delta", "signature": "c2ln"}),
        ends(0),
        begins(1, TEXT),
        own({"type": "ping"}),
        says(1, "Look"),
        says(1, "ing"),
        ends(1),
        begins(2, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        goes_on(2, {"type": "input_json_delta", "partial_json": '{"q":1}'}),
        ends(2),
        begins(3, TOOL),
        goes_on(3, {"type": "input_json_delta", "partial_json": ""}),
        goes_on(3, {"type": "input_json_delta", "partial_json": '{"a":1}'}),
        ends(3, tool_calls=(CALLED,)),
        *LAST,
    ]


def test_anthropics_own_events_go_on_as_they_came() -> None:
    chunks = anthropic()
    whole = ChatResponse(choices=[Choice(text="Looking", tool_calls=[CALLED])])
    assert told(chunks, whole) == [chunk.raw for chunk in chunks]
    assert told(anthropic()[:2] + LAST) == [START, {"type": "ping"}, END, {"type": "message_stop"}]


def test_words_of_a_plugin_join_the_block_that_is_told() -> None:
    chunks = [own(START), begins(0, TEXT), says(0, "a"), Chunk(text="b"), says(0, "c"), ends(0), *LAST]
    assert content(told(chunks)) == [{"type": "text", "text": "abc"}]


def test_words_that_were_held_back_still_join_the_text_that_has_ended() -> None:
    chunks = [own(START), begins(0, TEXT), says(0, "a"), ends(0), own(END, finish_reason="stop"), Chunk(text="b")]
    assert content(told(chunks)) == [{"type": "text", "text": "ab"}]
    late = attrs_text(LAST[1], "b")
    assert content(told([own(START), begins(0, TEXT), says(0, "a"), ends(0), LAST[0], late])) == [
        {"type": "text", "text": "ab"}
    ]


def attrs_text(chunk: Chunk, text: str) -> Chunk:
    return Chunk(text=text, raw=chunk.raw, finish_reason=chunk.finish_reason)


def test_words_wait_until_a_block_of_another_kind_has_ended_and_numbers_move_on() -> None:
    chunks = [
        own(START),
        begins(0, THOUGHT),
        goes_on(0, {"type": "thinking_delta", "thinking": "hm"}, reasoning="hm"),
        Chunk(text="[checked] "),
        goes_on(0, {"type": "signature_delta", "signature": "c2ln"}),
        ends(0),
        begins(1, TOOL),
        goes_on(1, {"type": "input_json_delta", "partial_json": '{"a":1}'}),
        Chunk(tool_calls=(CALL,)),
        ends(1, tool_calls=(CALLED,)),
        *LAST,
    ]
    assert content(told(chunks)) == [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "[checked] "},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "a1B2c3D4e", "name": "weather", "input": {"city": "Oslo"}},
    ]


def test_what_a_chunk_says_counts_and_not_what_its_event_said() -> None:
    changed = Chunk(text="[gone]", raw=says(0, "secret").raw)
    bare = Chunk(text="!", raw={"type": "content_block_delta"})
    blocks = content(told([own(START), begins(0, TEXT), changed, bare, ends(0), *LAST]))
    assert blocks == [{"type": "text", "text": "[gone]!"}]


def test_a_call_whose_pieces_a_plugin_kept_is_told_whole() -> None:
    ping = own({"type": "ping"})
    chunks = [own(START), begins(0, TOOL), ping, ping, ends(0, tool_calls=(CALLED,)), *LAST]
    assert content(told(chunks)) == [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}]


def test_thoughts_that_a_plugin_has_changed_stay_in_their_block() -> None:
    changed = Chunk(reasoning="[gone]", raw={"type": "ping"})
    blocks = content(told([own(START), begins(0, THOUGHT), changed, ends(0), *LAST]))
    assert blocks == [{"type": "thinking", "thinking": "[gone]", "signature": ""}]


def test_another_attempt_goes_on_in_the_same_block() -> None:
    chunks = [own(START), begins(0, TEXT), says(0, "one "), own(START), begins(0, TEXT), says(0, "two"), ends(0), *LAST]
    assert content(told(chunks)) == [{"type": "text", "text": "one two"}]
    mixed = [own(START), begins(0, TEXT), says(0, "one "), openai({}, text="two"), openai({}, finish_reason="stop")]
    assert content(told([*mixed[:3], own(START), *mixed[3:]])) == [{"type": "text", "text": "one two"}]


def test_a_text_whose_words_are_held_back_begins_where_it_says_something() -> None:
    held = [Chunk(text="", raw=says(0, "").raw), ends(0)]
    chunks = [
        own(START),
        begins(0, TEXT),
        *held,
        begins(1, TOOL),
        ends(1, tool_calls=(CALLED,)),
        Chunk(text="a"),
        *LAST,
    ]
    assert content(told(chunks)) == [
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
        {"type": "text", "text": "a"},
    ]


def test_a_kept_answer_of_anthropics_is_told_with_its_seals() -> None:
    blocks: list[Json] = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "c2VhbGVk"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}},
        {"type": "text", "text": "Look", "citations": [{"type": "char_location"}]},
        {"type": "text", "text": "ing"},
    ]
    message_ = {"role": "assistant", "content": blocks}
    kept = ChatResponse(
        model="claude",
        raw={"type": "message", "id": "msg_1", "content": blocks},
        choices=[
            Choice(text="Looking", reasoning="hm", tool_calls=[CALLED], finish_reason="tool_calls", message=message_)
        ],
    )
    whole = message(told(chunks_of(kept), kept))
    assert whole["content"] == [*blocks, {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}]
    assert whole["stop_reason"] == "tool_use"


def test_words_put_on_an_event_of_another_block_are_a_block_of_their_own() -> None:
    put = goes_on(0, {"type": "text_delta", "text": "a"}, text="a")
    late = ends(7, tool_calls=(CALL,))  # of a block that nobody has seen
    blocks = content(told([own(START), begins(0, THOUGHT), put, ends(0), late, *LAST]))
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
    assert (blocks[1]["text"], blocks[2]["id"]) == ("a", CALL.id)


def test_parts_of_other_providers_are_told_by_their_words() -> None:
    parts = [{"type": "text", "text": "x"}, {"type": "reference", "reference_ids": [1]}]
    assert content(told([openai({"content": parts}, text="x")])) == [{"type": "text", "text": "x"}]
    empty = [own(START), begins(0, TEXT), says(0, ""), ends(0), *LAST]
    assert content(told(empty)) == []


def test_a_kept_answer_that_a_plugin_has_changed_is_told_by_its_fields() -> None:
    parts = [{"type": "thinking", "thinking": "secret", "signature": "c2ln"}, {"type": "text", "text": "x"}]
    chunk = openai({"content": parts}, text="x", reasoning="[gone]")
    assert content(told([chunk])) == [
        {"type": "thinking", "thinking": "[gone]", "signature": ""},
        {"type": "text", "text": "x"},
    ]


plugins_words = st.builds(Chunk, text=st.sampled_from(["p", "q"])) | st.builds(Chunk, reasoning=st.just("r"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), plugins_words), max_size=6))
def test_whatever_is_said_in_between_the_sequence_holds_and_nothing_is_lost(
    insertions: list[tuple[int, Chunk]],
) -> None:
    chunks = anthropic()
    for place, chunk in sorted(insertions, key=lambda each: each[0], reverse=True):
        chunks.insert(place, chunk)
    blocks = content(told(chunks))
    said = "".join(chunk.text for chunk in chunks)
    thought = "".join(chunk.reasoning or "" for chunk in chunks)
    assert sorted("".join(block.get("text", "") for block in blocks)) == sorted(said)
    assert sorted("".join(block.get("thinking", "") for block in blocks)) == sorted(thought)
    assert [block["id"] for block in blocks if block["type"] == "tool_use"] == ["toolu_1"]
