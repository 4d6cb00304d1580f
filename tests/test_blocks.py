"""Anthropic's messages and events whose words are replaced: nothing of the old ones stays, what names and counts does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bifrost_core.blocks import Block, blocks_of, folded
from bifrost_core.replay import as_delivered, chunks_of
from bifrost_core.response_events import responses_of
from bifrost_core.responses import ChatResponse, ResponsesResponse
from bifrost_core.types import Choice, Chunk, ToolCall, rebuilt_raw, retold_raw

OLD = "the old words"
CITED = {"type": "char_location", "cited_text": OLD, "document_title": OLD}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
SEALED = [{"type": "thinking", "thinking": "thought", "signature": "EqQB"}, {"type": "redacted_thinking", "data": "Em"}]
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": OLD, "signature": "EqQB"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": OLD}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"title": OLD}]},
        {"type": "text", "text": OLD, "citations": [CITED]},
        CALL,
    ],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 5},
}
KEPT = {name: MESSAGE[name] for name in ("id", "type", "role", "model", "stop_reason", "usage")}


def start(**block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 2, "content_block": block}


def delta(**told: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 2, "delta": told}


NEW_DELTA = delta(type="text_delta", text="new")
NEW_START = start(type="text", text="new")
PING = {"type": "ping"}


def test_a_message_says_the_new_words_and_keeps_its_calls() -> None:
    assert retold_raw(MESSAGE, "new", 0) == {**KEPT, "content": [{"type": "text", "text": "new"}, CALL]}
    assert retold_raw(MESSAGE, "", 0) == {**KEPT, "content": [CALL]}


@pytest.mark.parametrize(
    ("event", "text", "expected"),
    [
        pytest.param(delta(type="text_delta", text=OLD), "new", NEW_DELTA, id="text"),
        pytest.param(delta(type="text_delta", text=OLD), "", delta(type="text_delta", text=""), id="text-out"),
        pytest.param(delta(type="thinking_delta", thinking=OLD), "new", NEW_DELTA, id="thought"),
        pytest.param(delta(type="thinking_delta", thinking=OLD), "", PING, id="thought-out"),
        pytest.param(delta(type="citations_delta", citation=CITED), "", PING, id="citation-out"),
        pytest.param(delta(type="input_json_delta", partial_json=OLD), "", PING, id="input-out"),
        pytest.param(delta(type="compaction_delta", content=OLD), "", PING, id="compaction-out"),
        pytest.param({**delta(), "delta": OLD}, "", PING, id="no-delta"),
        pytest.param(start(type="text", text=OLD, citations=[CITED]), "new", NEW_START, id="begun"),
        pytest.param(start(type="thinking", thinking=OLD, signature="E"), "", start(type="text", text=""), id="thought-begun"),
        pytest.param(start(type="web_search_tool_result", content=[{"title": OLD}]), "", start(type="text", text=""), id="result"),
        pytest.param(start(**CALL | {"input": {"a": OLD}}), "", start(**CALL | {"input": {}}), id="call"),
        pytest.param({"type": "content_block_stop", "index": 2}, "", {"type": "content_block_stop", "index": 2}, id="block-end"),
        pytest.param({"type": "message_start", "message": MESSAGE}, "", {"type": "message_start", "message": {**KEPT, "content": []}}, id="message"),
        pytest.param(
            {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_sequence": None, "stop_details": {"explanation": OLD}}, "usage": {"output_tokens": 5}, "context_management": {"x": OLD}},
            "new",
            {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_sequence": None}, "usage": {"output_tokens": 5}},
            id="change",
        ),
        pytest.param({"type": "message_delta", "delta": {}}, "", {"type": "message_delta", "delta": {}}, id="change-without-usage"),
        pytest.param({"type": "message_stop", "x": OLD}, "", {"type": "message_stop"}, id="end"),
        pytest.param({"type": "ping", "x": OLD}, "", PING, id="ping"),
        pytest.param({"type": "of_tomorrow", "index": 2, "words": {"x": OLD}}, "new", {"type": "of_tomorrow"}, id="unknown"),
    ],
)  # fmt: skip
def test_an_event_says_the_new_words_and_nothing_of_the_old(event: dict[str, Any], text: str, expected: Any) -> None:
    before = json.dumps(event)
    changed = Chunk(text=OLD, raw=event).with_text(text)
    assert (changed.text, changed.raw) == (text, expected)
    assert OLD not in json.dumps(changed.raw)
    assert json.dumps(event) == before


@pytest.mark.parametrize("event", [delta(type="thinking_delta", thinking="x"), start(type="text", text=""), {"type": "message_stop"}, MESSAGE], ids=["delta", "start", "end", "message"])  # fmt: skip
def test_a_filter_sees_an_event_as_it_is(event: dict[str, Any]) -> None:
    chunk = Chunk(raw=event)
    assert chunk.as_said() is chunk


def answer(*parts: Any, raw: dict[str, Any] = MESSAGE) -> ChatResponse:
    message = {"role": "assistant", "content": list(parts)}
    choice = Choice(text=OLD, tool_calls=(ToolCall("toolu_1", "f", '{"a":1}'),), finish_reason="stop", message=message)
    return ChatResponse(model="claude-x", choices=(choice,), raw=raw)


def test_an_answer_with_new_words_keeps_the_seals_for_the_next_turn() -> None:
    changed = answer(*SEALED, {"type": "text", "text": OLD, "citations": [CITED]}).with_text("new")
    assert changed.message["content"] == [*SEALED, {"type": "text", "text": "new"}]
    assert changed.raw == {**KEPT, "content": [{"type": "text", "text": "new"}, CALL]}
    assert OLD not in json.dumps([changed.raw, changed.message, changed.to_openai()])


def test_a_responses_answer_with_new_words_has_none_of_the_old() -> None:
    changed = responses_of(answer({"type": "text", "text": OLD})).with_text("new")
    assert (changed.output_text, changed.raw) == ("new", {**KEPT, "content": [{"type": "text", "text": "new"}, CALL]})
    assert OLD not in json.dumps([changed.to_openai(), changed.raw])


def test_an_answer_is_rebuilt_from_what_it_says() -> None:
    choice = Choice(text="new", reasoning="hm", tool_calls=(ToolCall("t", "f", '{"a":1}'), ToolCall("u", "g", '{"cut')))
    assert rebuilt_raw(MESSAGE, [choice]) == {
        **KEPT,
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "new"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "u", "name": "g", "input": {}},
        ],
    }
    assert rebuilt_raw({}, [choice]) == {}
    assert blocks_of("", None, ()) == []


def test_blocks_are_folded_as_far_as_events_tell_them() -> None:
    events = [
        start(type="text", text="He"),
        delta(type="text_delta", text="llo"),
        delta(type="citations_delta", citation=CITED),
        {**delta(type="text_delta", text="of none"), "index": 9},
        PING,
        {**start(type="server_tool_use", id="s", input={}), "index": 3},
        {**delta(type="input_json_delta", partial_json='{"q":1}'), "index": 3},
    ]
    assert folded(events) == [
        {"type": "text", "text": "Hello", "citations": [CITED]},
        {"type": "server_tool_use", "id": "s", "input": {"q": 1}},
    ]
    assert Block({"type": "text"}).take({"type": "text_delta"}) is None


EVENTS = [
    {"type": "message_start", "message": {**KEPT, "content": []}},
    start(type="server_tool_use", id="s", name="web_search", input={}),
    delta(type="input_json_delta", partial_json=json.dumps({"query": OLD})),
    {**start(type="text", text=""), "index": 3},
    {**delta(type="text_delta", text="said"), "index": 3},
    {**delta(type="citations_delta", citation=CITED), "index": 3},
]
SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": OLD}}
QUOTED = {"type": "text", "text": "said", "citations": [CITED]}


def told(events: list[Any]) -> list[Chunk]:
    return [Chunk(text=event.get("delta", {}).get("text", ""), raw=event) for event in events]


def spoken() -> ChatResponse:
    choice = Choice(text="said", finish_reason="stop", message={"role": "assistant", "content": [SEARCH, QUOTED]})
    return ChatResponse(choices=(choice,), raw={**KEPT, "content": [SEARCH, QUOTED]})


def test_what_a_filter_held_back_beside_the_words_is_not_in_the_answer() -> None:
    response = spoken()
    assert as_delivered(response, told(EVENTS)) is response
    without = [
        event for event in EVENTS if event.get("delta", {}).get("type") not in ("input_json_delta", "citations_delta")
    ]
    changed = as_delivered(response, told(without))
    assert isinstance(changed, ChatResponse)
    assert changed.raw["content"] == changed.message["content"] == [{"type": "text", "text": "said"}]
    assert (changed.text, OLD in json.dumps([changed.raw, changed.message])) == ("said", False)
    items = as_delivered(responses_of(response), told(without))
    assert isinstance(items, ResponsesResponse)
    assert (items.output_text, items.raw["content"]) == ("said", [{"type": "text", "text": "said"}])


def test_what_a_filter_changed_of_the_words_is_not_in_the_answer() -> None:
    for response in (spoken(), responses_of(spoken())):
        changed = as_delivered(response, [Chunk(text="new", raw=NEW_DELTA)])
        assert changed.raw["content"] == [{"type": "text", "text": "new"}]


def test_an_answer_from_a_cache_is_told_in_chunks_and_stays_whole() -> None:
    response = spoken()
    chunks = chunks_of(response)
    assert "".join(chunk.text for chunk in chunks) == "said"
    assert as_delivered(response, chunks) is response
