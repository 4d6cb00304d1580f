"""Messages, requests, chunks, usage and routes: the values that go in and come out."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import (
    Choice,
    Chunk,
    ConfigError,
    File,
    Message,
    Operation,
    Request,
    Route,
    RouteRef,
    ToolCall,
    Usage,
)
from bifrost_core.types import message_dicts, message_text

CALL = ToolCall("abc123def", "add", '{"a": 1}')


@pytest.mark.parametrize(
    ("messages", "shaped"),
    [
        pytest.param("hi", [{"role": "user", "content": "hi"}], id="text"),
        pytest.param({"role": "user", "content": "hi"}, [{"role": "user", "content": "hi"}], id="one-dict"),
        pytest.param(Message("system", "be brief"), [{"role": "system", "content": "be brief"}], id="one-message"),
        pytest.param(
            ({"role": "user", "content": "hi"}, Message("assistant", tool_calls=(CALL,))),
            [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": None, "tool_calls": [CALL.to_openai()]},
            ],
            id="mixed",
        ),
        pytest.param(
            iter([Message("tool", "2", tool_call_id="abc123def", name="add")]),
            [{"role": "tool", "content": "2", "name": "add", "tool_call_id": "abc123def"}],
            id="iterator",
        ),
        pytest.param(
            [Message("assistant", "It is", prefix=True)],
            [{"role": "assistant", "content": "It is", "prefix": True}],
            id="prefix",
        ),
        pytest.param(
            [{"role": "user", "content": "hi", "vendor_field": 1}],
            [{"role": "user", "content": "hi", "vendor_field": 1}],
            id="fields-of-a-provider-stay",
        ),
    ],
)
def test_every_form_of_messages_becomes_one(messages: Any, shaped: list[dict[str, Any]]) -> None:
    assert message_dicts(messages) == shaped


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        pytest.param(3, "messages", id="number"),
        pytest.param([], "messages", id="empty"),
        pytest.param(None, "messages", id="none"),
        pytest.param(b"hi", "messages[0]", id="bytes"),
        pytest.param(["hi"], "messages[0]", id="list-of-strings"),
        pytest.param([{"role": "user"}, {"content": "hi"}], "messages[1].role", id="no-role"),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(messages: Any, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        message_dicts(messages)
    assert caught.value.field == field


def test_the_callers_messages_stay_as_they_are() -> None:
    given_ = [{"role": "user", "content": "hi"}]
    message_dicts(given_)[0]["content"] = "changed"
    assert given_ == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param("hi", "hi", id="text"),
        pytest.param(None, "", id="none"),
        pytest.param([], "", id="empty"),
        pytest.param([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab", id="parts"),
        pytest.param([{"text": "a"}, "b"], "ab", id="loose-parts"),
        pytest.param([{"type": "image_url", "image_url": "x", "text": "no"}], "", id="image"),
        pytest.param([{"type": "thinking", "thinking": [{"type": "text", "text": "no"}]}], "", id="thinking"),
        pytest.param([{"type": "text", "text": None}], "", id="null"),
    ],
)
def test_the_text_of_content(content: Any, text: str) -> None:
    assert message_text(content) == text


# -- requests ------------------------------------------------------------------------------------------------------


def test_requests_are_equal_by_value() -> None:
    one = Request(Operation.CHAT, "m", {"messages": [{"role": "user", "content": "hi"}]})
    same = Request("chat", "m", {"messages": [{"role": "user", "content": "hi"}]})
    assert one == same
    assert one != attrs.evolve(one, stream=True)
    assert one != one.with_body(temperature=0)
    assert one.operation is same.operation is Operation.CHAT


def test_a_requests_body_can_not_be_set() -> None:
    body: dict[str, Any] = {"input": "a"}
    request = Request(Operation.EMBEDDINGS, "m", body)
    body["input"] = "b"
    with pytest.raises(TypeError):
        request.body["input"] = "c"  # type: ignore[index] # that is the point
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        request.model = "n"  # type: ignore[misc] # that is the point
    assert request.body == {"input": "a"}


def test_a_changed_body_leaves_the_old_request() -> None:
    request = Request(Operation.CHAT, "m", {"a": 1, "b": 2})
    assert dict(request.with_body(b=None, c=3).body) == {"a": 1, "b": None, "c": 3}
    assert dict(request.body) == {"a": 1, "b": 2}


def test_an_unknown_operation_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="chatt") as caught:
        Request("chatt", "m")
    assert caught.value.field == "operation"


def test_neither_words_nor_bytes_are_in_a_requests_repr() -> None:
    request = Request(
        Operation.TRANSCRIPTION, "m", {"prompt": "secret words"}, [File("file", "a.mp3", b"secret bytes")]
    )
    assert "secret" not in repr(request)
    assert isinstance(request.files, tuple)


# -- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "value"),
    [pytest.param('{"a": [1, 2.5]}', {"a": [1, 2.5]}, id="object"), pytest.param("", {}, id="empty")],
)
def test_the_arguments_of_a_tool_call(arguments: str, value: Any) -> None:
    assert ToolCall("i", "f", arguments).parsed() == value


@pytest.mark.parametrize(
    "arguments", ['{"a": ', "no", "[" * 100_000, '"\ud800"'], ids=["cut", "words", "deep", "surrogate"]
)
def test_arguments_that_are_no_json_are_a_value_error_that_quotes_nothing(arguments: str) -> None:
    with pytest.raises(ValueError, match="tool call 'add'") as caught:
        ToolCall("i", "add", arguments).parsed()
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 100


def test_a_choice_makes_the_message_for_the_next_request() -> None:
    choice = Choice(text="hi", tool_calls=(CALL,))
    assert choice.message == {"role": "assistant", "content": "hi", "tool_calls": [CALL.to_openai()]}
    kept = {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}
    assert Choice(text="hi", message=kept).message is kept


@pytest.mark.parametrize(
    ("chunk", "has_content"),
    [
        pytest.param(Chunk(), False, id="nothing"),
        pytest.param(Chunk(finish_reason="stop", usage=Usage(input_tokens=1)), False, id="end"),
        pytest.param(Chunk(text="a"), True, id="text"),
        pytest.param(Chunk(reasoning="a"), True, id="reasoning"),
        pytest.param(Chunk(tool_calls=(CALL,)), True, id="tool-call"),
    ],
)
def test_what_a_caller_waits_for(chunk: Chunk, has_content: bool) -> None:
    assert chunk.has_content is has_content


OLD = "the old words"
RAW_EVENTS: dict[str, dict[str, Any]] = {
    "chat": {
        "id": "x",
        "model": "m",
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": OLD}, "logprobs": {"content": [{"token": OLD}]}}
        ],
    },
    "chat-parts": {
        "choices": [
            {
                "index": 0,
                "delta": {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": OLD}]},
            }
        ]
    },
    "transcription": {"type": "transcription.text.delta", "text": OLD},
    "transcription-end": {"type": "transcription.done", "text": OLD, "segments": [{"text": OLD}], "model": "m"},
    "responses": {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "delta": OLD},
    "responses-end": {"type": "response.completed", "response": {"output": [{"content": [{"text": OLD}]}]}},
    "nothing": {},
}


@pytest.mark.parametrize("event", RAW_EVENTS)
def test_words_that_are_replaced_are_nowhere_in_the_chunk(event: str) -> None:
    chunk = Chunk(text=OLD, reasoning="thought", raw=RAW_EVENTS[event]).with_text("new")
    assert chunk.text == "new"
    assert chunk.reasoning == "thought"
    assert OLD not in str(chunk.raw)
    assert set(chunk.raw) <= set(RAW_EVENTS[event])
    if event not in {"nothing", "responses-end"}:
        assert "new" in str(chunk.raw)
    assert not RAW_EVENTS[event] or OLD in str(RAW_EVENTS[event])


def test_another_choice_keeps_its_words() -> None:
    raw = {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}
    changed = Chunk(text="b", index=1, raw=raw).with_text("c")
    assert [choice["delta"]["content"] for choice in changed.raw["choices"]] == ["a", "c"]


# -- routes and usage ----------------------------------------------------------------------------------------------


def test_a_route_knows_its_names() -> None:
    route = Route("mistral", "small", "k1", weight=0.5, quota_group="org")
    assert route.deployment == "mistral/small"
    assert route.ref == RouteRef("mistral", "small", "k1")
    assert type(route.ref) is RouteRef
    assert attrs.evolve(route, weight=0).ref == route.ref


COUNTS = st.builds(
    Usage,
    **{
        field.name: st.integers(0, 10**12) if field.name != "audio_seconds" else st.integers(0, 10**6).map(float)
        for field in attrs.fields(Usage)
    },
)


@settings(max_examples=50)
@given(COUNTS, COUNTS)
def test_usages_add_field_by_field(one: Usage, other: Usage) -> None:
    both = one + other
    for field in attrs.fields(Usage):
        assert getattr(both, field.name) == getattr(one, field.name) + getattr(other, field.name)
    assert both.total_tokens == both.input_tokens + both.output_tokens
    assert one + Usage() == one
