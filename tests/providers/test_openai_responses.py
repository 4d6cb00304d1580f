"""Responses at OpenAI itself: requests and objects as they are, events as they came, and told anew behind a filter."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import Call, Chunk, OpenAI, Response, ResponsesResponse, RetryPolicy, Router, hookimpl
from bifrost_core.errors import (
    BadRequestError,
    ContextLengthError,
    ProviderRateLimitError,
    ProviderServerError,
    StreamBrokenError,
    UnsupportedParameterError,
)
from bifrost_core.kinds import Kind
from bifrost_core.providers.base import StreamDecoder
from bifrost_core.replay import chunks_of
from bifrost_core.response_events import ResponseEvents
from bifrost_core.types import Request, ToolCall, Usage
from bifrost_core.wire import HttpReply

KEY = "sk-openai-responses-0123456789"
FIXTURES = Path(__file__).parent.parent / "fixtures" / "openai"
STREAM = (FIXTURES / "responses_stream.sse").read_bytes()
WHOLE: dict[str, Any] = json.loads((FIXTURES / "responses.json").read_text(encoding="utf-8"))["body"]
EVENTS: list[dict[str, Any]] = [
    json.loads(line[6:]) for line in STREAM.decode().splitlines() if line.startswith("data: {")
]
USAGE = Usage(
    input_tokens=300, output_tokens=90, cached_tokens=128, cache_write_tokens=32, reasoning_tokens=64, requests=1
)
SAVE = ToolCall("call_1", "save", '{"note":"bridge"}')
TEXT = "Bifröst is a bridge."


def ask(*, stream: bool = False, **body: Any) -> Request:
    return Request("responses", "gpt-5.1", {"input": [{"role": "user", "content": "x"}], **body}, stream=stream)


def sent(*, max_output: int | None = None, **body: Any) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(OpenAI(KEY).encode(ask(**body), max_output).body)
    return members


# -- requests ------------------------------------------------------------------------------------------------------

# Every field of https://platform.openai.com/docs/api-reference/responses/create.
GOLDEN: dict[str, Any] = {
    "background": True,
    "context_management": [{"type": "compaction", "compact_threshold": 9}],
    "conversation": "conv_1",
    "include": ["reasoning.encrypted_content"],
    "instructions": "Be brief.",
    "max_output_tokens": 64,
    "max_tool_calls": 3,
    "metadata": {"a": "b"},
    "parallel_tool_calls": False,
    "previous_response_id": "resp_0",
    "prompt": {"id": "pmpt_1"},
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "reasoning": {"effort": "low", "summary": "auto"},
    "safety_identifier": "s",
    "service_tier": "flex",
    "store": False,
    "stream_options": {"include_obfuscation": False},
    "temperature": 0.5,
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "tool_choice": {"type": "function", "name": "f"},
    "tools": [{"type": "web_search"}, {"type": "function", "name": "f", "parameters": {}, "strict": True}],
    "top_logprobs": 3,
    "top_p": 0.9,
    "truncation": "auto",
    "user": "u",
}


def test_every_documented_field_is_sent_as_it_is() -> None:
    items = [{"role": "user", "content": "x"}, WHOLE["output"][0], WHOLE["output"][3]]
    assert sent(**GOLDEN, input=items) == {"model": "gpt-5.1", **GOLDEN, "input": items}
    call = OpenAI(KEY).encode(ask(stream=True))
    assert (call.url, json.loads(call.body)["stream"]) == ("https://api.openai.com/v1/responses", True)


@attrs.frozen
class Size:
    width: int


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param({"tool_choice": "any"}, {"tool_choice": "required"}, id="any"),
        pytest.param(
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            {"tools": [{"type": "function", "name": "f", "strict": True}]},
            id="a-chat-tool",
        ),
        pytest.param(
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "function", "name": "f"}},
            id="a-chat-choice",
        ),
        pytest.param({"extra_body": {"new": 1}}, {"new": 1}, id="extra"),
        pytest.param({"user": None}, {}, id="null"),
    ],
)
def test_a_word_with_an_equal_is_rewritten(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sent(**given) == {"model": "gpt-5.1", "input": ask().body["input"], **wanted}


def test_a_class_is_its_schema_beside_other_members_of_text() -> None:
    bodies: list[dict[str, Any]] = [
        {"text": {"verbosity": "low"}, "text_format": Size},
        {"text_format": Size, "text": {"verbosity": "low"}},
    ]
    for body in bodies:
        text = sent(**body)["text"]
        assert (text["verbosity"], text["format"]["type"], text["format"]["name"]) == ("low", "json_schema", "Size")
    for format_first in ({"text_format": Size, "text": GOLDEN["text"]}, {"text": GOLDEN["text"], "text_format": Size}):
        with pytest.raises(BadRequestError, match="both given"):
            sent(**format_first)


@pytest.mark.parametrize(
    ("body", "parameter", "hint"),
    [
        pytest.param({"max_tokens": 5}, "max_tokens", "max_output_tokens", id="chats-limit"),
        pytest.param({"messages": []}, "messages", "input", id="messages"),
        pytest.param({"n": 2}, "n", "one answer", id="n"),
        pytest.param({"random_seed": 2}, "random_seed", "extra_body", id="seed"),
        pytest.param({"max_output_token": 2}, "max_output_token", "max_output_tokens", id="near"),
    ],
)
def test_a_field_of_another_shape_is_refused_by_its_name(body: dict[str, Any], parameter: str, hint: str) -> None:
    with pytest.raises(UnsupportedParameterError, match=hint) as caught:
        sent(**body)
    assert caught.value.parameter == parameter


def test_an_output_limit_is_held() -> None:
    assert sent(max_output=50)["max_output_tokens"] == 50
    assert sent(max_output=50, max_output_tokens=80)["max_output_tokens"] == 50
    assert OpenAI(KEY).encode(ask(max_output_tokens=20), 50).output_upper == 20


def test_something_has_to_be_asked() -> None:
    with pytest.raises(BadRequestError, match="input"):
        OpenAI(KEY).encode(Request("responses", "gpt-5.1", {"temperature": 1}))
    stored = Request("responses", "gpt-5.1", {"prompt": {"id": "pmpt_1"}})
    assert json.loads(OpenAI(KEY).encode(stored).body) == {"model": "gpt-5.1", "prompt": {"id": "pmpt_1"}}


# -- whole answers -------------------------------------------------------------------------------------------------


def read(body: dict[str, Any]) -> ResponsesResponse:
    response = OpenAI(KEY).decode(ask(), HttpReply(200, {}, json.dumps(body).encode()))
    assert isinstance(response, ResponsesResponse)
    return response


def test_a_whole_answer_is_the_object_as_it_came() -> None:
    response = read(WHOLE)
    assert response.raw == response.to_openai() == WHOLE
    assert response.output == tuple(WHOLE["output"])
    assert (response.id, response.status, response.output_text, response.reasoning) == (
        "resp_1",
        "completed",
        TEXT,
        "Look it up.",
    )
    assert (response.tool_calls, response.usage, response.model) == ((SAVE,), USAGE, "gpt-5.1-2025-11-13")


def test_an_answer_may_be_incomplete_or_still_to_come() -> None:
    cut = read({**WHOLE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}})
    assert (cut.status, cut.incomplete_reason) == ("incomplete", "max_output_tokens")
    queued = read({**WHOLE, "status": "queued", "output": [], "usage": None})
    assert (queued.status, queued.output, queued.usage) == ("queued", (), Usage(requests=1))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param("rate_limit_exceeded", Kind.RATE_LIMITED, id="rate"),
        pytest.param("server_error", Kind.SERVER_ERROR, id="server"),
        pytest.param("invalid_prompt", Kind.INVALID_REQUEST, id="prompt"),
        pytest.param("image_content_policy_violation", Kind.CONTENT_FILTERED, id="policy"),
        pytest.param("insufficient_quota", Kind.QUOTA_EXHAUSTED, id="quota"),
    ],
)
def test_an_answer_that_failed_is_the_error_that_it_tells(code: str, kind: Kind) -> None:
    failed = {**WHOLE, "status": "failed", "output": [], "error": {"code": code, "message": "why"}}
    with pytest.raises(Exception, match="why") as caught:
        read(failed)
    assert getattr(caught.value, "kind", None) is kind


@pytest.mark.parametrize("body", [{**WHOLE, "output": None}, {**WHOLE, "output": ["x"]}, {}])
def test_an_object_without_items_is_no_answer(body: dict[str, Any]) -> None:
    with pytest.raises(ProviderServerError, match="output items"):
        read(body)


def test_replaced_words_are_nowhere_in_the_object() -> None:
    told = read(WHOLE).with_text("new words")
    assert told.output_text == "new words"
    assert told.to_openai() == {**told.raw, "output": list(told.output)}
    assert [item["type"] for item in told.output] == ["reasoning", "web_search_call", "message", "function_call"]
    assert "is a bridge" not in json.dumps(told.raw)


# -- events --------------------------------------------------------------------------------------------------------


def decode(stream: bytes, *cuts: int) -> tuple[list[Chunk], StreamDecoder]:
    made = OpenAI(KEY).decoder(ask(stream=True))
    chunks: list[Chunk] = []
    for start, end in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        chunks += made.feed(stream[start:end])
    return chunks, made


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def test_every_event_is_a_chunk_with_the_event_as_it_came() -> None:
    chunks, made = decode(STREAM)
    assert [chunk.raw for chunk in chunks] == EVENTS
    assert made.finish() == read(WHOLE)
    assert "".join(chunk.text for chunk in chunks) == TEXT
    assert "".join(chunk.reasoning or "" for chunk in chunks) == "Look it up."
    assert [(chunk.raw["type"], chunk.tool_calls) for chunk in chunks if chunk.tool_calls] == [
        ("response.function_call_arguments.done", (SAVE,))
    ]
    assert (chunks[-1].finish_reason, chunks[-1].usage) == ("tool_calls", USAGE)
    assert all(chunk.finish_reason is None for chunk in chunks[:-1])


def test_any_single_split_gives_the_same_chunks() -> None:
    whole = decode(STREAM)[0]
    for cut in range(1, len(STREAM), 7):
        assert decode(STREAM, cut)[0] == whole


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, len(STREAM) - 1), max_size=40))
def test_any_splits_give_the_same_chunks(cuts: set[int]) -> None:
    assert decode(STREAM, *sorted(cuts))[0] == decode(STREAM)[0]


def test_bytes_one_by_one_give_the_same_chunks() -> None:
    assert decode(STREAM, *range(1, len(STREAM)))[0] == decode(STREAM)[0]


def test_refusals_and_custom_tools() -> None:
    item = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_2", "name": "shell", "input": "ls -l"}
    refusal = {"type": "refusal", "refusal": "No."}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [refusal]}
    whole = {**WHOLE, "output": [message, item]}
    chunks, made = decode(
        sse(
            EVENTS[0],
            {"type": "response.refusal.delta", "output_index": 0, "delta": "No."},
            {"type": "response.output_item.done", "output_index": 1, "item": item},
            {"type": "response.completed", "response": whole},
        )
    )
    assert [(chunk.text, chunk.tool_calls) for chunk in chunks] == [
        ("", ()),
        ("No.", ()),
        ("", (ToolCall("call_2", "shell", "ls -l"),)),
        ("", ()),
    ]
    assert made.finish().raw == whole


def test_an_answer_that_reached_its_limit() -> None:
    cut = {**WHOLE, "status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    chunks, _ = decode(sse(EVENTS[0], {"type": "response.incomplete", "response": cut}))
    assert chunks[-1].finish_reason == "content_filter"


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None}, id="flat"),
        pytest.param({"type": "error", "error": {"code": "rate_limit_exceeded", "message": "slow"}}, id="nested"),
        pytest.param(
            {
                "type": "response.failed",
                "response": {**WHOLE, "error": {"code": "rate_limit_exceeded", "message": "slow"}},
            },
            id="failed",
        ),
    ],
)
def test_an_error_before_any_words_is_what_its_code_says_and_later_breaks_the_stream(event: dict[str, Any]) -> None:
    _, made = decode(sse(EVENTS[0], event))
    assert isinstance(made.error, ProviderRateLimitError)
    _, made = decode(sse(*EVENTS[:16], event))
    assert isinstance(made.error, StreamBrokenError)
    assert made.error.partial is not None
    assert TEXT.startswith(made.error.partial.text)
    assert made.error.partial.reasoning == "Look it up."


def test_an_error_of_length_is_one() -> None:
    _, made = decode(sse({"type": "error", "code": "context_length_exceeded", "message": "too long"}))
    assert isinstance(made.error, ContextLengthError)


@pytest.mark.parametrize("last", range(1, len(EVENTS)))
def test_a_stream_that_is_cut_is_no_answer(last: int) -> None:
    with pytest.raises(StreamBrokenError):
        decode(sse(*EVENTS[:last]))[1].finish()


def test_the_last_event_counts_without_its_empty_line() -> None:
    assert decode(STREAM.rstrip())[1].finish() == read(WHOLE)


def test_a_plain_answer_to_a_stream_is_told_as_one_piece() -> None:
    chunks, made = decode(json.dumps(WHOLE).encode())
    assert [(chunk.text, chunk.finish_reason) for chunk in chunks] == [(TEXT, None), ("", "tool_calls")]
    assert made.finish() == read(WHOLE)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"<html>", id="html"),
        pytest.param(b"data: {]\n\n", id="no-json"),
        pytest.param(b"data: []\n\n", id="no-object"),
        pytest.param(sse({"type": "response.output_text.delta", "delta": 1}), id="no-text"),
        pytest.param(sse({"type": "response.completed"}), id="no-response"),
        pytest.param(b'{"object":"response"', id="cut-json"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_can_not_be_used_is_told(stream: bytes) -> None:
    with pytest.raises((ProviderServerError, StreamBrokenError)):
        decode(stream)[1].finish()


# -- through the Router --------------------------------------------------------------------------------------------


class Shouting:
    """A stream filter that changes every text; it holds each one back until the next chunk comes."""

    def __init__(self) -> None:
        self.seen: list[Chunk] = []
        self._held: list[Chunk] = []

    @hookimpl
    def bifrost_stream_filter(self, call: Call) -> Shouting:  # as the hook has it
        return self

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        self.seen.append(chunk)
        out, self._held = self._held, [chunk.with_text(chunk.text.upper()) if chunk.text else chunk]
        return out

    def finish(self) -> Iterable[Chunk]:
        return self._held


class Watching(Shouting):
    """A stream filter that changes nothing."""

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        self.seen.append(chunk)
        return [chunk]

    def finish(self) -> Iterable[Chunk]:
        return []


class Withholding(Shouting):
    """A stream filter that gives out text and reasoning at the end, as one that judges them whole does."""

    def __init__(self) -> None:
        super().__init__()
        self.text = self.reasoning = ""

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        self.text += chunk.text
        self.reasoning += chunk.reasoning or ""
        if chunk.text or chunk.reasoning:
            return []
        if chunk.finish_reason is None:
            return [chunk]
        return [attrs.evolve(chunk.with_text(self.text), reasoning=self.reasoning)]

    def finish(self) -> Iterable[Chunk]:
        return []


def serve(request: httpx.Request) -> httpx.Response:
    if json.loads(request.content).get("stream"):
        return httpx.Response(200, stream=httpx.ByteStream(STREAM), headers={"content-type": "text/event-stream"})
    return httpx.Response(200, stream=httpx.ByteStream(json.dumps(WHOLE).encode()))


def router(*plugins: object) -> Router:
    client = httpx.AsyncClient(transport=httpx.MockTransport(serve))
    return Router([OpenAI(KEY)], plugins=plugins, engine=client, retry=RetryPolicy(max_attempts=1))


async def told(*plugins: object) -> tuple[list[Chunk], ResponsesResponse]:
    async with (
        router(*plugins) as made,
        made.stream_responses("openai/gpt-5.1", "x", store=False) as stream,
    ):
        chunks = [chunk async for chunk in stream]
        response = stream.response
        assert isinstance(response, ResponsesResponse)
        return chunks, response


async def test_without_a_filter_the_events_go_on_as_they_came() -> None:
    chunks, response = await told()
    assert [chunk.raw for chunk in chunks] == EVENTS
    assert response.to_openai() == WHOLE
    assert response.usage == USAGE


async def test_a_whole_answer_through_the_router_is_the_object_as_it_came() -> None:
    async with router() as made:
        response = await made.responses("openai/gpt-5.1", "x")
    assert response.to_openai() == WHOLE
    assert response.cost is not None


@pytest.mark.parametrize("plugin", [Watching, Shouting, Withholding])
async def test_behind_a_filter_the_events_are_told_anew_and_keep_what_is_no_text(plugin: type[Shouting]) -> None:
    chunks, response = await told(plugin())
    raws = [chunk.raw for chunk in chunks]
    assert [raw["sequence_number"] for raw in raws] == list(range(len(raws)))
    text = TEXT.upper() if plugin is Shouting else TEXT
    final = raws[-1]["response"]
    assert (raws[-1]["type"], final) == ("response.completed", response.to_openai())
    assert response.output_text == "".join(chunk.text for chunk in chunks) == text
    assert [item["type"] for item in final["output"]] == ["reasoning", "web_search_call", "message", "function_call"]
    assert [item["id"] for item in final["output"]] == ["rs_1", "ws_1", "msg_1", "fc_1"]
    reasoning, search, message, call = final["output"]
    assert search == WHOLE["output"][1]
    assert (reasoning["summary"], reasoning["encrypted_content"]) == (WHOLE["output"][0]["summary"], "gAAA")
    assert message["content"][0]["text"] == text
    assert call == WHOLE["output"][3]
    assert {name: value for name, value in final.items() if name != "output"} == {
        name: value for name, value in WHOLE.items() if name != "output"
    }
    if plugin is Shouting:
        assert "is a bridge" not in json.dumps(raws)
    done = {raw["output_index"]: raw["item"] for raw in raws if raw["type"] == "response.output_item.done"}
    assert [done[index] for index in sorted(done)] == final["output"]
    assert chunks[-1].usage == USAGE
    assert [call for chunk in chunks for call in chunk.tool_calls] == [SAVE]


async def test_a_filter_sees_each_word_once() -> None:
    plugin = Watching()
    await told(plugin)
    shown = json.dumps([chunk.raw for chunk in plugin.seen], ensure_ascii=False)
    assert "".join(chunk.text for chunk in plugin.seen) == TEXT
    for words in (" is a", " bridge.", "Look "):
        assert shown.count(words) <= 1
    assert "Look it up" not in shown
    assert TEXT not in shown


async def test_a_guardrail_on_the_whole_answer_lets_the_events_pass_or_tells_another() -> None:
    class Guard:
        text: str | None = None

        @hookimpl
        async def bifrost_guard_response(self, response: Response) -> Response | None:
            return None if self.text is None else response.with_text(self.text)

    guard = Guard()
    chunks, _ = await told(guard)
    assert [chunk.raw for chunk in chunks] == EVENTS
    guard.text = "new words"
    chunks, response = await told(guard)
    assert response.output_text == "new words"
    assert "is a bridge" not in json.dumps([chunk.raw for chunk in chunks])
    assert [item["type"] for item in chunks[-1].raw["response"]["output"]] == [
        "reasoning",
        "web_search_call",
        "message",
        "function_call",
    ]


def test_a_cached_answer_is_told_with_all_its_items_under_their_names() -> None:
    response = read(WHOLE)
    sealed = {"id": "rs_2", "type": "reasoning", "summary": [], "encrypted_content": "gBBB"}
    custom = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_2", "name": "shell", "input": "ls -l"}
    refused = {**WHOLE["output"][2], "id": "msg_2", "content": [{"type": "refusal", "refusal": "No."}]}
    output = [*response.output, sealed, custom, refused]
    events = ResponseEvents()
    response = attrs.evolve(response, output=output, raw={**WHOLE, "output": output})
    events.feed(chunks_of(response))
    events.finish(response)
    assert events.response is not None
    kept = [item for item in events.response.output if item["type"] != "reasoning" or not item.get("summary")]
    assert [item["id"] for item in events.response.output] == [item["id"] for item in output]
    assert kept[-1]["content"] == refused["content"]
    assert kept[-2] == custom
    assert sealed in kept
    assert events.response.output_text == TEXT
