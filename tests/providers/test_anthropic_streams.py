"""Streamed messages: a chunk for each event, any split of the bytes, complete and cut ones, errors inside.

Facts: https://platform.claude.com/docs/en/build-with-claude/streaming.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.errors import (
    BadRequestError,
    CallError,
    ModelNotFoundError,
    ProviderAuthError,
    ProviderRateLimitError,
    ProviderServerError,
    ProviderTimeoutError,
    StreamBrokenError,
)
from bifrost_core.kinds import Kind
from bifrost_core.providers import Anthropic
from bifrost_core.providers.base import StreamDecoder
from bifrost_core.responses import ChatResponse, ResponsesResponse
from bifrost_core.types import Chunk, Request, ToolCall, Usage
from bifrost_core.wire import HttpReply

KEY = "sk-ant-streams-0123456789"
ANTHROPIC = Anthropic(KEY)
FIXTURES = Path(__file__).parent.parent / "fixtures" / "anthropic"
NAMES = ["stream_text", "stream_tools", "stream_server_tools"]
ASK = Request("chat", "claude-opus-4-8", {"messages": [{"role": "user", "content": "x"}]}, stream=True)


def fixture(name: str) -> bytes:
    return (FIXTURES / f"{name}.sse").read_bytes()


def events_of(stream: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in stream.decode().split("\n") if line.startswith("data: ")]


def sse(*events: Any) -> bytes:
    return b"".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in events)


def read(stream: bytes, *, size: int = 1 << 20, ask: Request = ASK) -> tuple[list[Chunk], StreamDecoder]:
    made = ANTHROPIC.decoder(ask)
    return [chunk for at in range(0, len(stream), size) for chunk in made.feed(stream[at : at + size])], made


def finished(made: StreamDecoder) -> ChatResponse:
    response = made.finish()
    assert isinstance(response, ChatResponse)
    return response


def plain(message: Any) -> ChatResponse:
    response = ANTHROPIC.decode(ASK, HttpReply(200, {}, json.dumps(message).encode()))
    assert isinstance(response, ChatResponse)
    return response


@pytest.mark.parametrize("name", NAMES)
def test_every_event_becomes_a_chunk(name: str) -> None:
    stream = fixture(name)
    chunks, made = read(stream)
    assert [chunk.raw for chunk in chunks] == events_of(stream)
    assert made.done


def test_text_comes_in_pieces_and_as_one_at_the_end() -> None:
    chunks, made = read(fixture("stream_text"))
    assert [chunk.text for chunk in chunks if chunk.text] == ["Grüße, 東", "京 🌈", "!"]
    begun = Usage(input_tokens=16, output_tokens=1, cached_tokens=3, cache_write_tokens=4, requests=1)
    ended = Usage(input_tokens=16, output_tokens=8, cached_tokens=3, cache_write_tokens=4, requests=1)
    assert [chunk.usage for chunk in chunks if chunk.usage is not None] == [begun, ended]
    assert [chunk.finish_reason for chunk in chunks if chunk.usage is not None] == [None, "stop"]
    response = finished(made)
    assert (response.text, response.usage, response.finish_reason) == ("Grüße, 東京 🌈!", ended, "stop")
    assert response.message == {"role": "assistant", "content": "Grüße, 東京 🌈!"}
    assert response.raw == {
        "id": "msg_01Text",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [{"type": "text", "text": "Grüße, 東京 🌈!"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 4,
            "cache_read_input_tokens": 3,
            "output_tokens": 8,
            "service_tier": "standard",
        },
    }


def test_a_call_is_on_the_event_that_ends_it_and_thoughts_keep_their_signature() -> None:
    chunks, made = read(fixture("stream_tools"))
    first, second = ToolCall("toolu_01A", "weather", '{"city":"Oslo","days":2.0}'), ToolCall("toolu_01B", "clock", "{}")
    assert [(chunk.tool_calls, chunk.raw["index"]) for chunk in chunks if chunk.tool_calls] == [
        ((first,), 3),
        ((second,), 4),
    ]
    assert [chunk.reasoning for chunk in chunks if chunk.reasoning] == ["Two cities, ", "two calls."]
    response = finished(made)
    assert response.message == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Two cities, two calls.", "signature": "EqQBCgIYAhIk"},
            {"type": "redacted_thinking", "data": "EmwKAhgBEgy3"},
            {"type": "text", "text": "I look."},
        ],
        "tool_calls": [first.to_openai(), second.to_openai()],
    }
    assert response.raw["content"][3:] == [
        {"type": "tool_use", "id": "toolu_01A", "name": "weather", "input": {"city": "Oslo", "days": 2.0}, "caller": {"type": "direct"}},
        {"type": "tool_use", "id": "toolu_01B", "name": "clock", "input": {}},
    ]  # fmt: skip
    assert response.usage == Usage(input_tokens=20, output_tokens=89, reasoning_tokens=30, requests=1)
    assert (response.finish_reason, response.reasoning) == ("tool_calls", "Two cities, two calls.")


def test_what_servers_did_is_kept_with_quotations_and_summaries() -> None:
    _, made = read(fixture("stream_server_tools"))
    response = finished(made)
    search, result, text, summary = response.raw["content"]
    assert search["input"] == {"query": "weather bergen"}
    assert result["content"][0]["encrypted_content"] == "EqgfCioI"
    assert (text["text"], [each["cited_text"] for each in text["citations"]]) == (
        "In Bergen it rains.",
        ["It rains in Bergen."],
    )
    assert summary == {"type": "compaction", "content": "They asked for the weather.", "encrypted_content": "Ev8B"}
    assert response.message["content"] == response.raw["content"]
    assert response.raw["container"] == {"id": "container_01", "expires_at": "2026-11-25T20:00:00Z"}
    assert response.raw["context_management"] == {"applied_edits": []}
    assert response.raw["usage"] == {
        "input_tokens": 230,
        "output_tokens": 51,
        "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
    }
    assert (response.finish_reason, response.usage.input_tokens) == ("pause_turn", 230)


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_of_a_stream_is_that_of_a_plain_call(name: str) -> None:
    _, made = read(fixture(name))
    response = finished(made)
    assert plain(response.raw) == response


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(data=st.data())
def test_any_split_of_the_bytes_gives_the_same(name: str, data: st.DataObject) -> None:
    stream = fixture(name)
    if data.draw(st.booleans(), label="CRLF"):
        stream = stream.replace(b"\n", b"\r\n")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=12)))
    made = ANTHROPIC.decoder(ASK)
    chunks = [chunk for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True) for chunk in made.feed(stream[begin:end])]  # fmt: skip
    whole, other = read(fixture(name))
    assert chunks == whole
    assert finished(made) == finished(other)


def test_bytes_one_by_one_give_the_same() -> None:
    for name in NAMES:
        assert read(fixture(name), size=1)[0] == read(fixture(name))[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_is_cut_anywhere_is_truncated_until_it_has_said_why_it_ended(name: str) -> None:
    stream = fixture(name)
    ended = stream.index(b"event: message_stop")  # all is said by then, but that this was all
    for cut in range(0, ended - 2, 7):
        _, made = read(stream[:cut])
        with pytest.raises(StreamBrokenError) as caught:
            made.finish()
        assert caught.value.kind is Kind.STREAM_TRUNCATED
        said = caught.value.partial
        assert (said is None) is (made.partial() is None)
    assert finished(read(stream[:ended])[1]).text == finished(read(stream)[1]).text


def test_a_cut_stream_has_what_was_said_and_counted_until_then() -> None:
    stream = fixture("stream_tools")
    _, made = read(stream[: stream.index(b'lo\\"')])
    with pytest.raises(StreamBrokenError) as caught:
        made.finish()
    partial = caught.value.partial
    assert partial is not None
    assert (partial.text, partial.reasoning, partial.usage.input_tokens) == ("I look.", "Two cities, two calls.", 20)
    assert partial.finish_reason is None


def message(*blocks: Any, reason: str | None = "end_turn", **usage: Any) -> tuple[Any, Any, Any]:
    """The first events, the change that ends the message, and its end."""
    start = {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-opus-4-8",
            "content": list(blocks),
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 5, "output_tokens": 1, **usage},
        },
    }
    change = {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None},
        "usage": {"output_tokens": 7},
    }
    return start, change, {"type": "message_stop"}


def begun(index: int, **block: Any) -> Any:
    return {"type": "content_block_start", "index": index, "content_block": block}


def moved(index: int, **delta: Any) -> Any:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def over(index: int) -> Any:
    return {"type": "content_block_stop", "index": index}


def test_a_call_that_is_cut_off_is_in_the_answer_and_on_no_chunk() -> None:
    start, change, end = message(reason="max_tokens")
    call = [
        begun(0, type="tool_use", id="toolu_1", name="f", input={}),
        moved(0, type="input_json_delta", partial_json='{"a": [1,'),
    ]
    chunks, made = read(sse(start, *call, over(0), change, end))
    assert [chunk.tool_calls for chunk in chunks if chunk.tool_calls] == []
    response = finished(made)
    assert response.tool_calls == (ToolCall("toolu_1", "f", '{"a": [1,'),)
    assert (response.finish_reason, response.raw["content"][0]["input"]) == ("length", {})


def test_a_block_may_begin_with_words() -> None:
    start, change, end = message()
    chunks, made = read(
        sse(start, begun(0, type="text", text="He"), moved(0, type="text_delta", text="llo"), over(0), change, end)
    )
    assert "".join(chunk.text for chunk in chunks) == finished(made).text == "Hello"


def test_a_message_may_begin_with_blocks() -> None:
    start, change, end = message({"type": "text", "text": "Begun"})
    _, made = read(sse(start, over(0), change, end))
    assert finished(made).text == "Begun"


def test_a_delta_of_a_new_type_is_handed_on_and_its_members_are_kept() -> None:
    start, change, end = message()
    block = [
        begun(0, type="text", text=""),
        moved(0, type="tone_delta", tone="warm"),
        moved(0, type="text_delta", text="Hi"),
        over(0),
    ]
    chunks, made = read(sse(start, *block, change, end))
    assert len(chunks) == 7
    assert finished(made).raw["content"] == [{"type": "text", "text": "Hi", "tone": "warm"}]


START, CHANGE, END = message()
TEXT = begun(0, type="text", text="")


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        pytest.param([TEXT], Kind.STREAM_MALFORMED, id="a-block-before-the-message"),
        pytest.param([START, START], Kind.STREAM_MALFORMED, id="a-message-twice"),
        pytest.param([START, TEXT, TEXT], Kind.STREAM_MALFORMED, id="a-block-twice"),
        pytest.param([START, moved(0, type="text_delta", text="x")], Kind.STREAM_MALFORMED, id="of-no-block"),
        pytest.param([START, TEXT, over(0), moved(0, type="text_delta", text="x")], Kind.STREAM_MALFORMED, id="after-its-end"),
        pytest.param([START, TEXT, moved(0, type="text_delta")], Kind.STREAM_MALFORMED, id="no-text"),
        pytest.param([START, TEXT, {**moved(0), "delta": "x"}], Kind.STREAM_MALFORMED, id="no-delta"),
        pytest.param([START, begun(0)], Kind.STREAM_MALFORMED, id="a-block-without-a-type"),
        pytest.param([START, begun(0, type="tool_use", input={}), over(0)], Kind.STREAM_MALFORMED, id="a-call-without-a-name"),
        pytest.param([CHANGE], Kind.STREAM_MALFORMED, id="a-change-of-nothing"),
        pytest.param([START, {"type": "message_delta", "delta": None}], Kind.STREAM_MALFORMED, id="a-change-without-one"),
        pytest.param([{"type": "message_start"}], Kind.STREAM_MALFORMED, id="no-message"),
        pytest.param([START, END], Kind.STREAM_MALFORMED, id="an-end-without-a-reason"),
        pytest.param([START, TEXT, CHANGE, END], Kind.STREAM_MALFORMED, id="an-end-inside-a-block"),
        pytest.param([], Kind.STREAM_TRUNCATED, id="nothing"),
        pytest.param([{"type": "ping"}], Kind.STREAM_TRUNCATED, id="a-ping-alone"),
    ],
)  # fmt: skip
def test_a_stream_out_of_order_is_broken(events: list[Any], kind: Kind) -> None:
    _, made = read(sse(*events))
    with pytest.raises(StreamBrokenError) as caught:
        made.finish()
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"data: {nonsense\n\n", Kind.STREAM_MALFORMED, id="no-json"),
        pytest.param(b"data: [1]\n\n", Kind.STREAM_MALFORMED, id="no-object"),
        pytest.param(b"<html>oops", Kind.BAD_RESPONSE, id="html"),
        pytest.param(b"{}", Kind.BAD_RESPONSE, id="an-empty-object"),
        pytest.param(b"[]", Kind.BAD_RESPONSE, id="an-array"),
        pytest.param(b'{"type":', Kind.BAD_RESPONSE, id="cut-json"),
        pytest.param(b'{"type":nonsense}', Kind.BAD_RESPONSE, id="unreadable-json"),
        pytest.param(b'{"type":"message","content":[3]}', Kind.BAD_RESPONSE, id="no-blocks"),
        pytest.param(b'{"type":"message","content":[]}', Kind.STREAM_TRUNCATED, id="no-reason"),
        pytest.param(b'{"type":"message","x":"' + b"x" * (1 << 26), Kind.RESPONSE_TOO_LARGE, id="json-without-end"),
        pytest.param(b"data: " + b"x" * (1 << 21), Kind.RESPONSE_TOO_LARGE, id="an-event-without-end"),
    ],
)
def test_what_is_no_stream_of_events_is_named(data: bytes, kind: Kind) -> None:
    _, made = read(data)
    with pytest.raises(CallError) as caught:
        made.finish()
    assert caught.value.kind is kind


def failing(type_: str, **more: Any) -> bytes:
    return sse({"type": "error", "error": {"type": type_, "message": "It went wrong", **more}, "request_id": "req_9"})


@pytest.mark.parametrize(
    ("type_", "cls", "kind", "status"),
    [
        ("invalid_request_error", BadRequestError, Kind.INVALID_REQUEST, 400),
        ("authentication_error", ProviderAuthError, Kind.AUTH, 401),
        ("billing_error", ProviderAuthError, Kind.PAYMENT, 402),
        ("permission_error", ProviderAuthError, Kind.PERMISSION, 403),
        ("not_found_error", ModelNotFoundError, Kind.MODEL_NOT_FOUND, 404),
        ("conflict_error", BadRequestError, Kind.CONFLICT, 409),
        ("request_too_large", BadRequestError, Kind.REQUEST_TOO_LARGE, 413),
        ("rate_limit_error", ProviderRateLimitError, Kind.RATE_LIMITED, 429),
        ("api_error", ProviderServerError, Kind.SERVER_ERROR, 500),
        ("timeout_error", ProviderTimeoutError, Kind.SERVER_TIMEOUT, 504),
        ("overloaded_error", ProviderServerError, Kind.MODEL_OVERLOADED, 529),
    ],
)
def test_an_error_before_any_word_is_what_its_type_says(
    type_: str, cls: type[CallError], kind: Kind, status: int
) -> None:
    _, made = read(sse(START, {"type": "ping"}) + failing(type_))
    with pytest.raises(cls) as caught:
        made.finish()
    error: Any = caught.value
    assert (error.kind, error.status, error.request_id) == (kind, status, "req_9")


def test_an_error_after_words_is_a_broken_stream_that_knows_what_broke_it() -> None:
    _, made = read(sse(START, TEXT, moved(0, type="text_delta", text="Hel")) + failing("overloaded_error"))
    with pytest.raises(StreamBrokenError) as caught:
        made.finish()
    assert (caught.value.kind, caught.value.inner) == (Kind.STREAM_ERROR, Kind.MODEL_OVERLOADED)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"


def test_an_error_that_is_no_json_is_one_all_the_same() -> None:
    _, made = read(b"event: error\ndata: upstream gone\n\n")
    with pytest.raises(StreamBrokenError, match="upstream gone"):
        made.finish()


def test_a_stream_of_more_events_than_its_limit_allows_is_cut_off() -> None:
    ask = Request("chat", "claude-opus-4-8", {"messages": [], "max_completion_tokens": 3}, stream=True)
    pings = [{"type": "ping"}] * 300
    chunks, made = read(sse(START, *pings), ask=ask)
    assert len(chunks) == 2 * 3 + 256
    with pytest.raises(CallError) as caught:
        made.finish()
    assert caught.value.kind is Kind.RESPONSE_TOO_LARGE
    assert len(read(sse(START, *pings))[0]) == 301


def test_nothing_is_read_after_the_end_nor_after_an_error() -> None:
    chunks, made = read(fixture("stream_text") + fixture("stream_text"))
    assert len(chunks) == len(read(fixture("stream_text"))[0])
    assert made.feed(b"data: x\n\n") == []
    _, broken = read(failing("api_error"))
    assert broken.feed(fixture("stream_text")) == []


def test_the_last_event_counts_without_its_empty_line() -> None:
    stream = fixture("stream_text").rstrip(b"\n")
    assert finished(read(stream)[1]).text == "Grüße, 東京 🌈!"
    before = stream[: stream.index(b"event: message_stop")].rstrip(b"\n")
    assert finished(read(before)[1]).finish_reason == "stop"


def test_a_plain_answer_to_a_request_for_a_stream_is_read_in_any_pieces() -> None:
    whole = finished(read(fixture("stream_tools"))[1])
    body = json.dumps(whole.raw).encode()
    for size in (1, 7, 1 << 20):
        chunks, made = read(body, size=size)
        (chunk,) = chunks
        assert (chunk.text, chunk.reasoning, chunk.tool_calls) == (whole.text, whole.reasoning, whole.tool_calls)
        assert (chunk.finish_reason, chunk.usage, chunk.raw) == ("tool_calls", whole.usage, whole.raw)
        assert finished(made) == whole


def test_a_plain_error_in_place_of_a_stream_is_one() -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    _, made = read(json.dumps(body).encode())
    with pytest.raises(ProviderServerError) as caught:
        made.finish()
    assert caught.value.kind is Kind.MODEL_OVERLOADED


def test_a_responses_answer_is_told_by_the_same_events() -> None:
    ask = Request("responses", "claude-opus-4-8", {"input": [{"role": "user", "content": "x"}]}, stream=True)
    chunks, made = read(fixture("stream_tools"), ask=ask)
    assert [chunk.raw for chunk in chunks] == events_of(fixture("stream_tools"))
    response = made.finish()
    assert isinstance(response, ResponsesResponse)
    assert (response.output_text, response.reasoning) == ("I look.", "Two cities, two calls.")
    assert [call.name for call in response.tool_calls] == ["weather", "clock"]
    partial = made.partial()
    assert isinstance(partial, ChatResponse)
    assert partial.text == "I look."


# --- any message, told in any pieces, is the message

Draw = Callable[[st.SearchStrategy[Any]], Any]
WORDS = st.text(st.sampled_from('aé東🌈\u2028\n"\\ :{'), max_size=10)
INPUTS = st.dictionaries(
    st.sampled_from("abc"), WORDS | st.integers(-(2**53), 2**53) | st.none() | st.booleans(), max_size=3
)


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "other"]))
    if kind == "text":
        block: dict[str, Any] = {"type": kind, "text": draw(WORDS)}
        if cited := draw(
            st.lists(st.fixed_dictionaries({"type": st.just("char_location"), "cited_text": WORDS}), max_size=2)
        ):
            block["citations"] = cited
        return block
    if kind == "thinking":
        return {"type": kind, "thinking": draw(WORDS), "signature": draw(WORDS)}
    if kind == "redacted_thinking":
        return {"type": kind, "data": draw(WORDS)}
    if kind == "other":
        return {"type": "web_search_tool_result", "tool_use_id": "s", "content": [draw(INPUTS)]}
    return {"type": kind, "id": f"toolu_{draw(st.integers(0, 9))}", "name": "f", "input": draw(INPUTS)}


def pieces(text: str, draw: Draw) -> Iterable[str]:
    cut = draw(st.integers(0, len(text)))
    return (text[:cut], text[cut:])


def told(block: dict[str, Any], index: int, draw: Draw) -> list[Any]:
    kind = block["type"]
    if kind == "text":
        start = {name: value for name, value in block.items() if name != "citations"} | {"text": ""}
        quotes = [moved(index, type="citations_delta", citation=each) for each in block.get("citations", ())]
        said = [moved(index, type="text_delta", text=piece) for piece in pieces(block["text"], draw)]
        return [begun(index, **start), said[0], *quotes, said[1], over(index)]
    if kind == "thinking":
        said = [moved(index, type="thinking_delta", thinking=piece) for piece in pieces(block["thinking"], draw)]
        sealed = moved(index, type="signature_delta", signature=block["signature"])
        return [begun(index, type=kind, thinking="", signature=""), *said, sealed, over(index)]
    if kind.endswith("tool_use"):
        written = json.dumps(block["input"]) if block["input"] or draw(st.booleans()) else ""
        said = [moved(index, type="input_json_delta", partial_json=piece) for piece in pieces(written, draw)]
        return [begun(index, **{**block, "input": {}}), *said, over(index)]
    return [begun(index, **block), over(index)]


@settings(max_examples=150)
@given(
    st.data(),
    st.lists(blocks(), max_size=6),
    st.sampled_from(["end_turn", "tool_use", "max_tokens", "refusal", "pause_turn"]),
)
def test_any_message_told_as_events_is_the_message_again(data: st.DataObject, content: list[Any], reason: str) -> None:
    start, change, end = message(reason=reason)
    events = [event for index, block in enumerate(content) for event in told(block, index, data.draw)]
    for _ in range(data.draw(st.integers(0, 2))):
        events.insert(data.draw(st.integers(0, len(events))), {"type": "ping"})
    stream = sse(start, *events, change, end)
    chunks, made = read(stream, size=data.draw(st.integers(1, 400)))
    response = finished(made)
    usage = {"input_tokens": 5, "output_tokens": 7}
    whole = {**start["message"], "content": content, "stop_reason": reason, "usage": usage}
    assert response.raw == whole
    assert response == plain(whole)
    assert "".join(chunk.text for chunk in chunks) == response.text
    assert "".join(chunk.reasoning or "" for chunk in chunks) == (response.reasoning or "")
    assert tuple(call for chunk in chunks for call in chunk.tool_calls) == response.tool_calls
