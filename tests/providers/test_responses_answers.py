"""Chat answers as Responses answers: items, status, usage and what is repeated; whole and streamed ones are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.errors import CallError, ProviderServerError, StreamBrokenError
from bifrost_core.kinds import Kind
from bifrost_core.providers import Mistral
from bifrost_core.response_events import ResponseEvents
from bifrost_core.responses import ChatResponse, ResponsesResponse
from bifrost_core.responses_bodies import echo_of
from bifrost_core.types import Chunk, Operation, Request, ToolCall, Usage
from bifrost_core.wire import HttpReply

KEY = "sk-answers-0123456789abcd"
FIXTURES = Path(__file__).parent.parent / "fixtures" / "mistral"
STREAMS = ["stream_text", "stream_reasoning", "stream_tool_pieces"]


@attrs.frozen
class Number:
    n: int


def ask(*, stream: bool = False, **body: Any) -> Request:
    return Request(Operation.RESPONSES, "m", {"input": "x", **body}, stream=stream)


def completion(message: dict[str, Any], reason: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason, **more}
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    return {"id": "c1", "object": "chat.completion", "created": 17, "model": "m-1", "choices": [choice], "usage": usage}


def read(body: dict[str, Any], **request: Any) -> ResponsesResponse:
    reply = HttpReply(200, {"mistral-correlation-id": "corr"}, json.dumps(body).encode(), 0.0)
    response = Mistral(KEY).decode(ask(**request), reply)
    assert isinstance(response, ResponsesResponse)
    return response


def streamed(data: bytes, *, size: int = 1 << 20, **request: Any) -> tuple[list[Chunk], ResponsesResponse]:
    decoder = Mistral(KEY).decoder(ask(stream=True, **request))
    chunks = [chunk for at in range(0, len(data), size) for chunk in decoder.feed(data[at : at + size])]
    response = decoder.finish()
    assert isinstance(response, ResponsesResponse)
    return chunks, response


def told(chunks: list[Chunk], response: ResponsesResponse) -> tuple[list[Chunk], ResponsesResponse]:
    """The events, and the answer as they tell it."""
    maker = ResponseEvents(call_id="call_0")
    events = [*maker.feed(chunks), *maker.finish(response)]
    assert maker.response is not None
    return events, maker.response


def text_item(text: str, place: int = 0, status: str = "completed") -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_c1_{place}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [part],
    }


def thought_item(text: str, place: int = 0, status: str = "completed") -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"id": f"rs_c1_{place}", "type": "reasoning", "status": status, "summary": [], "content": content}


def call_item(call: ToolCall, place: int = 0, status: str = "completed") -> dict[str, Any]:
    return {
        "id": f"fc_c1_{place}",
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
OSLO = ToolCall("aaaaaaaaa", "weather", '{"city": "Oslo"}')
CUT = ToolCall("bbbbbbbbb", "weather", '{"city": "Be')

ITEMS = [
    pytest.param({"content": "hi"}, "stop", [text_item("hi")], id="text"),
    pytest.param({"content": ""}, "stop", [], id="nothing"),
    pytest.param({"content": None}, "stop", [], id="null"),
    pytest.param(
        {"content": [THINKING, {"type": "text", "text": "yes"}]},
        "stop",
        [thought_item("hm"), text_item("yes", 1)],
        id="thought",
    ),
    pytest.param(
        {"content": [THINKING, "a", THINKING, {"type": "text", "text": "b"}]},
        "stop",
        [thought_item("hm"), text_item("a", 1), thought_item("hm", 2), text_item("b", 3)],
        id="thought-between-words",
    ),
    pytest.param(
        {"content": "yes", "reasoning_content": "hm"}, "stop", [thought_item("hm"), text_item("yes", 1)], id="beside-it"
    ),
    pytest.param(
        {"content": "", "tool_calls": [OSLO.to_openai(), {**OSLO.to_openai(), "id": "ccccccccc"}]},
        "tool_calls",
        [call_item(OSLO), call_item(attrs.evolve(OSLO, id="ccccccccc"), 1)],
        id="calls",
    ),
    pytest.param(
        {"content": "One moment.", "tool_calls": [OSLO.to_openai()]},
        "tool_calls",
        [text_item("One moment."), call_item(OSLO, 1)],
        id="words-and-a-call",
    ),
    pytest.param(
        {"tool_calls": [ToolCall("aaaaaaaaa", "now", "").to_openai()]},
        "tool_calls",
        [call_item(ToolCall("aaaaaaaaa", "now", "{}"))],
        id="a-call-without-arguments",
    ),
    pytest.param({"content": "and th"}, "length", [text_item("and th", status="incomplete")], id="cut-words"),
    pytest.param({"content": "and th"}, "model_length", [text_item("and th", status="incomplete")], id="full-window"),
    pytest.param({"content": [THINKING]}, "length", [thought_item("hm", status="incomplete")], id="cut-thought"),
    pytest.param(
        {"content": "a", "tool_calls": [OSLO.to_openai(), CUT.to_openai()]},
        "length",
        [text_item("a"), call_item(OSLO, 1), call_item(CUT, 2, "incomplete")],
        id="a-cut-call",
    ),
    pytest.param(
        {"tool_calls": [ToolCall("aaaaaaaaa", "now", "").to_openai()]},
        "length",
        [call_item(ToolCall("aaaaaaaaa", "now", ""), status="incomplete")],
        id="a-call-cut-before-its-arguments",
    ),
]


@pytest.mark.parametrize(("message", "reason", "output"), ITEMS)
def test_what_a_model_said_and_did_are_items(
    message: dict[str, Any], reason: str, output: list[dict[str, Any]]
) -> None:
    body = completion(message, reason)
    response = read(body)
    assert list(response.output) == output
    assert response.raw == body
    incomplete = reason in {"length", "model_length"}
    assert (response.status, response.incomplete_reason) == (
        ("incomplete", "max_output_tokens") if incomplete else ("completed", None)
    )


def as_stream(body: dict[str, Any]) -> bytes:
    """The same answer as Mistral streams it: a content part at a time, every call whole, the reason last."""
    head = {name: body[name] for name in ("id", "created", "model")}
    choice = body["choices"][0]
    message = choice["message"]
    content = message.get("content")
    pieces: list[Any] = [[part] for part in content] if isinstance(content, list) else [content or ""]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if message.get("reasoning_content"):
        deltas.append({"reasoning_content": message["reasoning_content"]})
    deltas += [{"content": piece} for piece in pieces]
    last: dict[str, Any] = {"content": ""}
    if message.get("tool_calls"):
        last["tool_calls"] = [{**call, "index": index} for index, call in enumerate(message["tool_calls"])]
    frames = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": last, "finish_reason": choice["finish_reason"]}], "usage": body["usage"]}
    lines = [json.dumps({**head, "object": "chat.completion.chunk", **frame}) for frame in [*frames, end]]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()


@pytest.mark.parametrize(("message", "reason", "output"), ITEMS)
def test_a_streamed_answer_is_the_plain_one(message: dict[str, Any], reason: str, output: list[dict[str, Any]]) -> None:
    body = completion(message, reason)
    plain = read(body)
    chunks, whole = streamed(as_stream(body))
    events, response = told(chunks, whole)
    assert list(response.output) == output
    assert response == whole
    assert response.to_openai() == plain.to_openai()
    assert events[-1].raw["response"] == plain.to_openai()
    assert events[-1].raw["type"] == f"response.{plain.status}"
    assert "".join(event.text for event in events) == plain.output_text
    assert "".join(event.reasoning or "" for event in events) == (plain.reasoning or "")
    whole_calls = [
        call for call, item in zip(plain.tool_calls, calls_of(output), strict=True) if item["status"] == "completed"
    ]
    assert [
        attrs.evolve(call, arguments=call.arguments or "{}") for event in events for call in event.tool_calls
    ] == whole_calls


def calls_of(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for item in output if item["type"] == "function_call"]


@pytest.mark.parametrize("name", STREAMS)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_any_split_of_the_bytes_gives_the_same_events(name: str, sizes: list[int]) -> None:
    data = (FIXTURES / f"{name}.sse").read_bytes()
    wanted = [event.raw for event in told(*streamed(data))[0]]
    decoder = Mistral(KEY).decoder(ask(stream=True))
    maker = ResponseEvents(call_id="call_0")
    events: list[Chunk] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        events += maker.feed(decoder.feed(data[at : at + size]))
        at, turn = at + size, turn + 1
    response = decoder.finish()
    assert isinstance(response, ResponsesResponse)
    assert [event.raw for event in [*events, *maker.finish(response)]] == wanted


def test_the_openai_shape_repeats_the_request_and_counts_as_the_provider_did() -> None:
    body = completion({"content": "hi"})
    body["usage"] = {
        "prompt_tokens": 3,
        "completion_tokens": 1,
        "total_tokens": 379,  # audio is in neither of the two
        "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 375},
    }
    tool = {"type": "function", "name": "f", "parameters": None, "strict": None}
    response = attrs.evolve(
        read(body),
        echo=echo_of(
            {
                "input": "x",
                "instructions": "Be brief.",
                "tools": [
                    tool,
                    {"type": "function", "function": {"name": "g"}},
                    test_the_openai_shape_repeats_the_request_and_counts_as_the_provider_did,
                ],
                "tool_choice": {"type": "function", "function": {"name": "g"}},
                "temperature": 0,
                "text": {"format": {"type": "json_object"}, "verbosity": "medium"},
                "extra_body": {"metadata": {"a": "b"}},
                "reasoning": {"effort": "high"},
                "top_p": None,
            }
        ),
    )
    assert response.usage == Usage(input_tokens=3, output_tokens=1, cached_tokens=2, requests=1)
    assert response.headers == {"mistral-correlation-id": "corr"}
    assert response.to_openai() == {
        "id": "resp_c1",
        "object": "response",
        "created_at": 17,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "max_output_tokens": None,
        "metadata": {"a": "b"},
        "model": "m-1",
        "output": [text_item("hi")],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": "high"},
        "temperature": 0,
        "text": {"format": {"type": "json_object"}, "verbosity": "medium"},
        "tool_choice": {"type": "function", "name": "g"},
        "tools": [
            tool,
            {"type": "function", "name": "g"},
            {
                "type": "function",
                "name": "test_the_openai_shape_repeats_the_request_and_counts_as_the_provider_did",
                "parameters": None,
            },
        ],
        "top_p": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
            "output_tokens": 1,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 379,
        },
    }


@pytest.mark.parametrize(
    ("body", "echo"),
    [
        pytest.param({}, {"text": {"format": {"type": "text"}}}, id="nothing"),
        pytest.param(
            {"tool_choice": "any"},
            {"tool_choice": "required", "text": {"format": {"type": "text"}}},
            id="mistrals-word",
        ),
        pytest.param({"text_format": int}, {"text": {"format": {"type": "text"}}}, id="no-class"),
        pytest.param({"tools": "all", "text": 3}, {"text": {"format": {"type": "text"}}}, id="no-shape"),
    ],
)
def test_only_what_can_be_repeated_is_repeated(body: dict[str, Any], echo: dict[str, Any]) -> None:
    assert echo_of(body) == echo


def test_a_class_is_repeated_as_its_schema() -> None:
    form = echo_of({"text_format": Number})["text"]["format"]
    assert (form["type"], form["name"], form["strict"]) == ("json_schema", "Number", True)
    assert form["schema"]["properties"] == {"n": {"type": "integer"}}


def test_a_parser_sees_the_text_as_it_stands() -> None:
    response = read(completion({"content": '{"n": 3}'}))
    assert response.parsed is None
    assert response.with_parser(json.loads).parsed == {"n": 3}
    assert response.with_parser(json.loads).with_text('{"n": 4}').parsed == {"n": 4}


def test_a_content_filter_is_a_reason_to_be_incomplete() -> None:
    response = read(completion({"content": "a"}, "content_filter"))
    assert response.to_openai()["incomplete_details"] == {"reason": "content_filter"}


LOGPROBS = {
    "content": [
        {"token": "h", "logprob": -0.1, "bytes": [104], "top_logprobs": [{"token": "j", "logprob": -2.0}]},
        {"token": "é", "logprob": -0.2},
    ]
}


def test_log_probabilities_go_with_their_words() -> None:
    told_ = [
        {
            "token": "h",
            "logprob": -0.1,
            "bytes": [104],
            "top_logprobs": [{"token": "j", "logprob": -2.0, "bytes": [106]}],
        },
        {"token": "é", "logprob": -0.2, "bytes": [195, 169], "top_logprobs": []},
    ]
    assert read(completion({"content": "hé"}, logprobs=LOGPROBS)).output[0]["content"][0]["logprobs"] == told_
    maker = ResponseEvents()
    chunk = Chunk(text="hé", raw={"id": "c1", "choices": [{"logprobs": LOGPROBS}]})
    assert maker.feed([chunk])[-1].raw["logprobs"] == told_
    assert maker.feed([attrs.evolve(chunk, text="other")])[-1].raw["logprobs"] == []  # they would quote old words


@pytest.mark.parametrize("body", [{"id": "c1"}, {"id": "c1", "choices": []}], ids=["no-choices", "an-empty-list"])
def test_an_answer_that_is_none_is_an_error(body: dict[str, Any]) -> None:
    with pytest.raises(ProviderServerError, match="no choices") as caught:
        read(body)
    assert caught.value.kind is Kind.BAD_RESPONSE


def test_a_stream_that_is_cut_off_leaves_what_was_said_as_chat() -> None:
    data = as_stream(completion({"content": "hello"}))
    decoder = Mistral(KEY).decoder(ask(stream=True))
    decoder.feed(data[: data.index(b'"finish_reason": "stop"')])
    with pytest.raises(StreamBrokenError) as caught:
        decoder.finish()
    assert isinstance(caught.value.partial, ChatResponse)
    assert caught.value.partial.text == "hello"
    partial = decoder.partial()
    assert isinstance(partial, ChatResponse)
    assert partial.text == "hello"


def test_an_error_inside_a_stream_is_the_decoders() -> None:
    decoder = Mistral(KEY).decoder(ask(stream=True))
    decoder.feed(b'data: {"object":"error","message":"Service unavailable.","code":"1000"}\n\n')
    assert isinstance(decoder.error, CallError)
    assert not decoder.done


def test_a_short_limit_bounds_the_events_of_a_stream() -> None:
    frame = {"id": "c1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "x"}}]}
    decoder = Mistral(KEY).decoder(ask(stream=True, max_output_tokens=1))
    decoder.feed(
        b"data: " + json.dumps(frame).encode() + b"\n\n" + (b"data: " + json.dumps(frame).encode() + b"\n\n") * 300
    )
    assert decoder.error is not None
    assert decoder.error.kind is Kind.RESPONSE_TOO_LARGE


def test_an_answer_goes_back_into_the_next_request_as_it_is() -> None:
    body = completion(
        {"content": [THINKING, {"type": "text", "text": "One moment."}], "tool_calls": [OSLO.to_openai()]}
    )
    response = read(body)
    again = ask(
        input=[
            {"role": "user", "content": "x"},
            *response.output,
            {"type": "function_call_output", "call_id": response.tool_calls[0].id, "output": "rain"},
        ]
    )
    written = json.loads(Mistral(KEY).encode(again).body)["messages"]
    assert written == [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": body["choices"][0]["message"]["content"], "tool_calls": [OSLO.to_openai()]},
        {"role": "tool", "tool_call_id": "aaaaaaaaa", "content": "rain"},
    ]
