"""Streamed answers: any split of the bytes, complete and cut ones, tool calls in pieces, errors inside."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.errors import (
    BadRequestError,
    CallError,
    ProviderRateLimitError,
    ProviderServerError,
    StreamBrokenError,
)
from bifrost_core.providers import Mistral
from bifrost_core.providers.base import StreamDecoder
from bifrost_core.responses import ChatResponse
from bifrost_core.types import Chunk, Request, ToolCall, Usage
from bifrost_core.wire import HttpReply

KEY = "sk-streams-0123456789abcd"
FIXTURES = Path(__file__).parent.parent / "fixtures" / "mistral"
NAMES = ["stream_text", "stream_reasoning", "stream_tool_pieces", "stream_two_choices"]


def fixture(name: str) -> bytes:
    return (FIXTURES / f"{name}.sse").read_bytes()


def ask(**body: Any) -> Request:
    return Request("chat", "m", {"messages": [{"role": "user", "content": "x"}], **body}, stream=True)


def decoder(**body: Any) -> StreamDecoder:
    return Mistral(KEY).decoder(ask(**body))


def read(stream: bytes, *, size: int = 1 << 20, **body: Any) -> tuple[list[Chunk], StreamDecoder]:
    made = decoder(**body)
    chunks = [chunk for at in range(0, len(stream), size) for chunk in made.feed(stream[at : at + size])]
    return chunks, made


def finished(made: StreamDecoder) -> ChatResponse:
    response = made.finish()
    assert isinstance(response, ChatResponse)
    return response


def event(delta: Any = None, reason: str | None = None, *, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": reason}
    return sse({"id": "e", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more})


def sse(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def test_text_comes_in_pieces_and_as_one_at_the_end() -> None:
    chunks, made = read(fixture("stream_text"))
    assert [chunk.text for chunk in chunks] == ["", "Grüße, 東", "京 🌈", "!"]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, None, "stop"]
    usage = Usage(input_tokens=11, output_tokens=8, cached_tokens=3, requests=1)
    assert [chunk.usage for chunk in chunks] == [None, None, None, usage]
    assert made.done
    response = finished(made)
    assert (response.text, response.usage, response.model) == ("Grüße, 東京 🌈!", usage, "mistral-small-latest")
    assert chunks[1].raw["p"] == "abc"
    assert response.raw == {
        "id": "a1",
        "object": "chat.completion",
        "created": 1785000003,
        "model": "mistral-small-latest",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Grüße, 東京 🌈!"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 8, "total_tokens": 19, "num_cached_tokens": 3},
    }


def test_reasoning_comes_apart_from_the_text() -> None:
    chunks, made = read(fixture("stream_reasoning"))
    assert [(chunk.text, chunk.reasoning) for chunk in chunks] == [
        ("", None),
        ("", "Two and "),
        ("It ", "two."),
        ("is 4", None),
        (".", None),
    ]
    response = finished(made)
    assert (response.text, response.reasoning) == ("It is 4.", "Two and two.")
    assert response.message == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Two and two."}], "closed": True},
            {"type": "text", "text": "It is 4."},
        ],
    }


def test_a_call_in_pieces_is_handed_on_when_it_is_whole() -> None:
    chunks, made = read(fixture("stream_tool_pieces"))
    first = ToolCall("chatcmpl-tool-1", "weather", '{"city":"Oslo"}')
    second = ToolCall("chatcmpl-tool-2", "clock", "")
    assert [chunk.tool_calls for chunk in chunks] == [(), (), (), (first,), (second,)]
    assert finished(made).tool_calls == (first, second)


def test_whole_calls_beside_the_reason_are_handed_on_at_once() -> None:
    calls = [
        {"id": "AAAAAAAA1", "function": {"name": "f", "arguments": '{"a": 1}'}, "index": 0},
        {"id": "null", "function": {"name": "g", "arguments": {"b": 2}}, "index": 1},
    ]
    chunks, made = read(event({"tool_calls": calls}, "tool_calls") + DONE)
    (chunk,) = chunks
    assert [call.name for call in chunk.tool_calls] == ["f", "g"]
    assert chunk.tool_calls[1].parsed() == {"b": 2}
    assert len(chunk.tool_calls[1].id) == 9
    assert finished(made).tool_calls == chunk.tool_calls


def test_pieces_of_two_calls_may_alternate() -> None:
    def piece(index: int, arguments: str, **more: Any) -> bytes:
        return event({"tool_calls": [{"index": index, "function": {"arguments": arguments, **more}}]})

    stream = (
        piece(0, "", name="f") + piece(1, "", name="g") + piece(0, '{"a"') + piece(1, '{"b"') + piece(0, ":1}")
    ) + (piece(1, ":2}") + event(reason="tool_calls") + DONE)
    chunks, _ = read(stream)
    assert [call.arguments for chunk in chunks for call in chunk.tool_calls] == ['{"a":1}', '{"b":2}']


def test_a_call_that_was_cut_is_only_in_the_whole_answer() -> None:
    call = {"id": "AAAAAAAA1", "function": {"name": "f", "arguments": '{"a": '}, "index": 0}
    chunks, made = read(event({"tool_calls": [call]}) + event(reason="length") + DONE)
    assert [chunk.tool_calls for chunk in chunks] == [(), ()]
    assert finished(made).tool_calls == (ToolCall("AAAAAAAA1", "f", '{"a": '),)


def test_a_call_cut_before_its_arguments_is_not_handed_on() -> None:
    call = {"id": "AAAAAAAA1", "function": {"name": "f", "arguments": ""}, "index": 0}
    chunks, made = read(event({"tool_calls": [call]}, "length") + DONE)
    assert [chunk.tool_calls for chunk in chunks] == [()]
    assert len(finished(made).tool_calls) == 1


def test_choices_that_alternate_are_kept_apart() -> None:
    chunks, made = read(fixture("stream_two_choices"), n=2)
    assert [(chunk.index, chunk.text, chunk.finish_reason) for chunk in chunks] == [
        (1, "B", None),
        (0, "A", None),
        (1, "b", "stop"),
        (0, "a", "length"),
    ]
    assert all(len(chunk.raw["choices"]) == 1 for chunk in chunks)
    assert [(one.index, one.text, one.finish_reason) for one in finished(made).choices] == [
        (0, "Aa", "length"),
        (1, "Bb", "stop"),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_answer_reads_like_a_plain_one(name: str) -> None:
    _, made = read(fixture(name))
    response = finished(made)
    plain = Mistral(KEY).decode(ask(), HttpReply(200, {}, json.dumps(response.raw).encode()))
    assert isinstance(plain, ChatResponse)
    assert (plain.choices, plain.usage, plain.model) == (response.choices, response.usage, response.model)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_split_gives_the_same_chunks(name: str, data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf", b"\r\n: hello\n\n"])) + fixture(name)
    end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    stream = stream.replace(b"\r\n", b"\n").replace(b"\n", end)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=40)))
    made = decoder()
    chunks = [chunk for begin, stop in pairwise([0, *cuts, len(stream)]) for chunk in made.feed(stream[begin:stop])]
    expected, whole = read(fixture(name))
    assert chunks == expected
    assert finished(made) == finished(whole)


@pytest.mark.parametrize("name", NAMES)
def test_single_bytes_give_the_same_chunks(name: str) -> None:
    assert read(fixture(name), size=1)[0] == read(fixture(name))[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_cut_anywhere_is_never_taken_for_a_whole_one(name: str) -> None:
    stream = fixture(name)
    whole, _ = read(stream)
    text = "".join(chunk.text for chunk in whole if chunk.index == 0)
    finishing = stream.index(b"\n\n", stream.rindex(b'"usage":{')) + 1  # the last event's own line end
    for cut in range(0, len(stream), 3):
        chunks, made = read(stream[:cut], n=2 if "two" in name else 1)
        said = "".join(chunk.text for chunk in chunks if chunk.index == 0)
        assert text.startswith(said)
        if cut > finishing:
            assert finished(made).text == text
            continue
        if cut == finishing or stream[cut : cut + 2] == b"\n\n":
            continue  # the last line may count without its empty one, where it holds no words
        with pytest.raises(StreamBrokenError) as caught:
            made.finish()
        assert caught.value.kind == "stream_truncated"
        assert caught.value.processed == "yes"
        if said:
            assert caught.value.partial is not None
            assert caught.value.partial.text == said


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        pytest.param(event({"content": "a"}, "stop"), "a", id="no-terminal-event"),
        pytest.param(event({"content": "a"}) + event(reason="stop").rstrip(), "a", id="no-line-end-and-no-words"),
        pytest.param(event({"content": "a"}, "stop") + b"data: [DONE]", "a", id="no-line-end-after-done"),
        pytest.param(event({"content": "a"}, "stop") + DONE + b"data: {junk", "a", id="more-after-done"),
        pytest.param(event({"content": "a"}, "model_length") + DONE, "a", id="context-window-ended"),
        pytest.param(
            event({"content": "a"}, "stop")
            + sse({"object": "chat.completion.chunk", "choices": [], "usage": {}})
            + DONE,
            "a",
            id="a-last-event-without-choices",
        ),
    ],
)
def test_oddities_that_do_no_harm_are_complete(stream: bytes, text: str) -> None:
    _, made = read(stream)
    assert finished(made).text == text


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b": keep-alive\n\n" * 5, id="comments-only"),
        pytest.param(DONE, id="done-only"),
        pytest.param(event({"content": "a"}), id="no-reason"),
        pytest.param(event({"content": "a"}) + DONE, id="done-without-reason"),
        pytest.param(event({"content": "a"}, "stop") + event({"content": "b"}, index=1), id="one-choice-of-two"),
        pytest.param(event({"content": "a"}) + event({"content": "b"}, "stop").rstrip(), id="words-without-line-end"),
        pytest.param(b'{"id": "x", "choices": [{"message": {"content": "a"}', id="cut-json-body"),
    ],
)
def test_an_unfinished_stream_is_broken(stream: bytes) -> None:
    _, made = read(stream)
    with pytest.raises(CallError) as caught:
        made.finish()
    assert caught.value.kind in {"stream_truncated", "bad_response"}


def test_fewer_choices_than_asked_for_are_not_complete_without_the_terminal_event() -> None:
    assert finished(read(event({"content": "a"}, "stop") + DONE, n=2)[1]).text == "a"
    with pytest.raises(StreamBrokenError):
        read(event({"content": "a"}, "stop"), n=2)[1].finish()


def test_the_last_usage_wins_and_none_are_added_up() -> None:
    counts = [{"prompt_tokens": 5, "completion_tokens": n} for n in (1, 2, 3)]
    stream = event({"content": "a"}, usage=counts[0]) + event({"content": "b"}, usage=counts[1])
    _, made = read(stream + event(reason="stop", usage=counts[2]) + DONE)
    assert finished(made).usage == Usage(input_tokens=5, output_tokens=3, requests=1)


# --- errors inside


@pytest.mark.parametrize(
    ("bad", "kind", "code"),
    [
        pytest.param(
            sse({"object": "error", "message": "m", "type": "x", "code": None}), "stream_error", "x", id="object-error"
        ),
        pytest.param(sse({"error": {"message": "m"}}), "stream_error", None, id="error-member"),
        pytest.param(sse({"error": "m"}), "stream_error", None, id="error-text"),
        pytest.param(b'event: error\ndata: {"message": "m"}\n\n', "stream_error", None, id="named-event"),
        pytest.param(b"event: error\ndata: overloaded\n\n", "stream_error", None, id="named-event-without-json"),
        pytest.param(sse({"hello": 1}), "stream_error", None, id="neither-choices-nor-type"),
        pytest.param(event({}, "error"), "stream_error", None, id="finish-reason-error"),
        pytest.param(sse({"object": "error", "message": "m", "code": "1300"}), "rate_limited", "1300", id="rate-limit"),
        pytest.param(sse({"object": "error", "message": "m", "code": 3505}), "model_overloaded", "3505", id="capacity"),
        pytest.param(sse({"error": {"message": "m", "code": 503}}), "server_error", "503", id="status-as-code"),
        pytest.param(sse({"object": "error", "message": "m", "raw_status_code": 401}), "auth", None, id="raw-status"),
        pytest.param(b"data: {not json}\n\n", "stream_malformed", None, id="no-json"),
        pytest.param(b'data: {"choices": "\xff"}\n\n', "stream_malformed", None, id="no-utf-8"),
        pytest.param(b"data: [1]\n\n", "stream_malformed", None, id="no-object"),
        pytest.param(b"data: " + b"[" * 5000 + b"]" * 5000 + b"\n\n", "stream_malformed", None, id="too-deep"),
        pytest.param(event("words"), "stream_malformed", None, id="delta-as-text"),
        pytest.param(event({"content": 7}), "stream_malformed", None, id="content-as-a-number"),
        pytest.param(event({"tool_calls": 7}), "stream_malformed", None, id="calls-as-a-number"),
    ],
)
def test_an_error_in_the_stream_is_seen_and_what_came_before_is_kept(bad: bytes, kind: str, code: str | None) -> None:
    chunks, made = read(bad + event({"content": "never"}, "stop"))
    assert chunks == []
    assert made.error is not None
    assert made.error.kind == kind
    assert getattr(made.error, "code", None) == code
    with pytest.raises(CallError) as caught:
        made.finish()
    assert caught.value is made.error
    # After the first words a caller has them: the stream is broken whatever the code says.
    chunks, made = read(event({"content": "some"}) + bad + event({"content": "never"}, "stop"))
    assert [chunk.text for chunk in chunks] == ["some"]
    assert isinstance(made.error, StreamBrokenError)
    assert made.error.kind == (kind if kind == "stream_malformed" else "stream_error")
    assert made.error.partial is not None
    assert made.error.partial.text == "some"
    assert made.feed(event({"content": "more"})) == []


def test_an_error_before_any_word_has_the_class_of_its_code() -> None:
    _, made = read(
        event({"role": "assistant", "content": ""})
        + sse({"object": "error", "message": "m", "code": "1300", "retry_after": 3})
    )
    assert isinstance(made.error, ProviderRateLimitError)
    assert (made.error.retry_after, made.error.status, made.error.provider) == (3.0, 429, "mistral")


def test_a_null_error_beside_choices_is_none() -> None:
    assert finished(read(event({"content": "a"}, "stop", error=None) + DONE)[1]).text == "a"


def test_an_echoed_key_is_masked_in_a_stream_too() -> None:
    _, made = read(sse({"object": "error", "message": f"key {KEY} is over its limit", "code": KEY}))
    assert KEY not in str(made.error) + repr(vars(made.error))


# --- no event stream at all


def body(content: str = 'a [{\\" b') -> bytes:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    ).encode()


@pytest.mark.parametrize("size", [1, 7, 1 << 20], ids=lambda size: f"pieces-of-{size}")
@pytest.mark.parametrize("around", [b"%b", b" \n%b\n", b"\xef\xbb\xbf%b"], ids=["bare", "blanks", "byte-order-mark"])
def test_a_json_answer_is_one_chunk(size: int, around: bytes) -> None:
    chunks, made = read(around % body(), size=size)
    assert [(chunk.text, chunk.finish_reason) for chunk in chunks] == [('a [{\\" b', "stop")]
    assert made.done
    assert (finished(made).text, finished(made).usage.output_tokens) == ('a [{\\" b', 2)


@pytest.mark.parametrize(
    ("stream", "cls", "kind"),
    [
        pytest.param(b"<html>sorry</html>", ProviderServerError, "bad_response", id="html"),
        pytest.param(b"  \n<!DOCTYPE html>", ProviderServerError, "bad_response", id="html-after-blanks"),
        pytest.param(b'{"choices": []}', ProviderServerError, "bad_response", id="no-choices"),
        pytest.param(b"[1, 2]", ProviderServerError, "bad_response", id="array"),
        pytest.param(b'{"choices": }', ProviderServerError, "bad_response", id="junk"),
        pytest.param(
            b'{"object":"error","message":"m","code":"1300"}', ProviderRateLimitError, "rate_limited", id="error"
        ),
        pytest.param(
            b'{"object":"error","message":"m","code":"3230"}', BadRequestError, "invalid_request", id="caller"
        ),
    ],
)
def test_another_body_than_events_is_an_error(stream: bytes, cls: type[CallError], kind: str) -> None:
    chunks, made = read(stream)
    assert chunks == []
    assert type(made.error) is cls
    assert made.error.kind == kind


# --- caps


def test_more_events_than_the_limit_allows_are_refused() -> None:
    _, made = read(event({"content": "a"}) * 300, max_tokens=10)
    assert made.error is not None
    assert made.error.kind == "response_too_large"
    _, made = read(event({"content": "a"}) * 300 + event(reason="stop"), max_tokens=100)
    assert made.error is None


def test_an_event_over_the_cap_is_refused_and_what_came_before_is_kept() -> None:
    chunks, made = read(event({"content": "a"}) + b"data: " + b"x" * 1_100_000)
    assert [chunk.text for chunk in chunks] == ["a"]
    assert made.error is not None
    assert made.error.kind == "response_too_large"


# --- anything anywhere


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = ["choices", "usage", "model", "object", "error", "index", "delta", "finish_reason", "content", "tool_calls"]


@settings(max_examples=300, deadline=None)
@given(
    events=st.lists(
        st.one_of(
            JUNK,
            st.dictionaries(st.sampled_from(MEMBERS), JUNK, max_size=4),
            st.builds(
                lambda delta, more: {"choices": [{"index": 0, "delta": delta, **more}]},
                st.dictionaries(st.sampled_from(MEMBERS), JUNK, max_size=3),
                st.dictionaries(st.sampled_from(MEMBERS), JUNK, max_size=2),
            ),
        ),
        max_size=4,
    )
)
def test_junk_in_any_place_sets_an_error_and_raises_nothing(events: list[Any]) -> None:
    chunks, made = read(b"".join(sse(one) for one in events))
    assert all(isinstance(chunk.text, str) for chunk in chunks)
    made.partial()
    try:
        made.finish()
    except CallError as error:
        problem: CallError | None = error
    else:
        problem = None
    assert problem is made.error


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_raise_nothing_but_call_errors(data: bytes) -> None:
    _, made = read(data)
    with pytest.raises(CallError):
        made.finish()
