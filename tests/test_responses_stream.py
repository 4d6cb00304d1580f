"""The Responses operation on a real server: conversations with tools, events, and what filters leave of them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs
import msgspec
import pytest

from bifrost_core import (
    Call,
    CallError,
    CallRecord,
    ChatResponse,
    Chunk,
    ConfigError,
    GuardrailError,
    Key,
    Message,
    Mistral,
    Operation,
    PluginError,
    Request,
    Response,
    ResponsesResponse,
    RetryPolicy,
    Route,
    Router,
    StreamBrokenError,
    StructuredOutputError,
    SyncRouter,
    ToolCall,
    UnsupportedParameterError,
    Usage,
    hookimpl,
)
from bifrost_core.replay import as_delivered, chunks_of
from bifrost_core.response_events import ResponseEvents
from bifrost_core.streams import ResponsesStream
from bifrost_core.testing import Fault, SimulatedKey, SimulatedMistral

SECRET = "sk-simulated-1"
MODEL = "mistral/mistral-small-latest"
WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


@attrs.frozen
class Number:
    n: int


@attrs.frozen
class Text:
    n: str


def model_of(body: dict[str, Any]) -> str | Mapping[str, Any]:
    """What the simulated model answers: it calls the tool that it is offered, then says what the tool said."""
    last = body["messages"][-1]
    if last["role"] == "tool":
        return f"The tool says {last['content']}."
    if body.get("tools"):
        calls = [{"name": "weather", "arguments": {"city": city}} for city in ("Oslo", "Bergen")]
        return {"thinking": "two calls will do", "content": "One moment.", "tool_calls": calls}
    if body.get("response_format"):
        return '{"n": 3}'
    return "My card is QWER ZXCV and that is all there is to say."


@pytest.fixture
async def server() -> AsyncIterator[SimulatedMistral]:
    async with SimulatedMistral([SimulatedKey(SECRET, id="a")], answer=model_of, keep_bodies=True) as running:
        yield running


def router_for(server: SimulatedMistral, *plugins: object) -> Router:
    retry = RetryPolicy(backoff=0, max_wait=0)
    return Router([Mistral([SECRET], base_url=server.base_url)], plugins=plugins, retry=retry)


def bodies(server: SimulatedMistral) -> list[dict[str, Any]]:
    return [msgspec.json.decode(request.body or b"") for request in server.requests]


def types(events: Iterable[Chunk]) -> list[str]:
    """The events' types, several deltas in a row as one."""
    names: list[str] = []
    for event in events:
        name = str(event.raw["type"]).removeprefix("response.")
        if not names or name != names[-1] or not name.endswith("delta"):
            names.append(name)
    return names


MESSAGE = ["output_item.added", "content_part.added", "output_text.delta"]
MESSAGE += ["output_text.done", "content_part.done", "output_item.done"]
REASONING = [name.replace("output_text", "reasoning_text") for name in MESSAGE]
CALL = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]


async def test_a_conversation_with_tools_goes_on_over_several_calls(server: SimulatedMistral) -> None:
    async with router_for(server) as router:
        history: list[Any] = [{"role": "user", "content": "Weather?"}]
        first = await router.responses(MODEL, history, instructions="Be brief.", tools=[WEATHER])
        assert first.reasoning == "two calls will do"
        assert first.output_text == "One moment."
        assert [call.parsed() for call in first.tool_calls] == [{"city": "Oslo"}, {"city": "Bergen"}]
        history += first.output
        history += [{"type": "function_call_output", "call_id": call.id, "output": "rain"} for call in first.tool_calls]
        second = await router.responses(MODEL, history, instructions="Be brief.", tools=[WEATHER])
    assert second.output_text == "The tool says rain."
    assert (second.status, second.model, second.route.key_id) == (
        "completed",
        "mistral-small-latest",
        second.attempts[0].route.key_id,
    )
    assert second.cost is not None
    assert second.raw["object"] == "chat.completion"
    assert second.to_openai()["instructions"] == "Be brief."
    sent = bodies(server)[1]["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "tool", "tool"]
    assert sent[2] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "two calls will do"}]},
            {"type": "text", "text": "One moment."},
        ],
        "tool_calls": [call.to_openai() for call in first.tool_calls],
    }


async def test_events_come_in_the_order_of_the_api_and_say_what_the_answer_says(server: SimulatedMistral) -> None:
    async with router_for(server) as router, router.stream_responses(MODEL, "Weather?", tools=[WEATHER]) as stream:
        events = [event async for event in stream]
    assert types(events) == ["created", "in_progress", *REASONING, *MESSAGE, *CALL, *CALL, "completed"]
    assert [event.raw["sequence_number"] for event in events] == list(range(len(events)))
    response = stream.response
    assert events[-1].raw["response"] == response.to_openai()
    assert events[0].raw["response"] == {
        **response.to_openai(),
        "status": "in_progress",
        "output": [],
        "usage": None,
    }
    assert "".join(event.text for event in events) == response.output_text == "One moment."
    assert "".join(event.reasoning or "" for event in events) == response.reasoning
    assert tuple(call for event in events for call in event.tool_calls) == response.tool_calls
    assert (events[-1].finish_reason, events[-1].usage) == ("tool_calls", response.usage)
    done = [event.raw["item"] for event in events if event.raw["type"] == "response.output_item.done"]
    assert done == list(response.output)


async def test_a_streamed_answer_is_the_plain_one_but_for_its_ids(server: SimulatedMistral) -> None:
    async with router_for(server) as router:
        plain = await router.responses(MODEL, [Message("user", "hi")], temperature=0, max_output_tokens=4)
        async with router.stream_responses(MODEL, "hi", temperature=0, max_output_tokens=4) as stream:
            text = [piece async for piece in stream.text()]
    assert "".join(text) == stream.response.output_text == plain.output_text
    assert (plain.status, plain.incomplete_reason) == ("incomplete", "max_output_tokens")

    def without_ids(response: ResponsesResponse) -> dict[str, Any]:
        written = json.dumps(response.to_openai()).replace(response.id.removeprefix("resp_"), "ID")
        told: dict[str, Any] = json.loads(written)
        return {**told, "created_at": 0, "usage": None}  # the simulated server counts the word "stream" too

    assert without_ids(stream.response) == without_ids(plain)
    assert stream.response.time_to_first_token is not None


@pytest.mark.parametrize("asked", [{"text_format": Number}, {"text": {"format": Number}}], ids=["own", "in-text"])
async def test_the_text_is_read_into_the_class_that_was_asked_for(
    server: SimulatedMistral, asked: dict[str, Any]
) -> None:
    seen: list[Request] = []

    class Cache:
        kept: Response | None = None

        @hookimpl
        def bifrost_cached_response(self, request: Request) -> Response | None:
            seen.append(request)
            return self.kept

        @hookimpl
        def bifrost_call_finished(self, record: CallRecord) -> None:
            self.kept = record.response

    async with router_for(server, Cache()) as router:
        assert (await router.responses(MODEL, "a number", **asked)).parsed == Number(3)
        async with router.stream_responses(MODEL, "a number", **asked) as stream:
            assert [event async for event in stream]
        assert stream.response.parsed == Number(3)
        other = await router.responses(MODEL, "a number", text_format=Text)
        with pytest.raises(StructuredOutputError, match="does not fit Text") as caught:
            _ = other.parsed
    assert caught.value.text == other.output_text == '{"n": 3}'
    assert other.to_openai()["text"]["format"]["name"] == "Text"
    assert len(server.requests) == 1
    assert seen[0].body == seen[1].body
    assert seen[0].body["text"] == stream.response.to_openai()["text"]
    assert seen[0].body["text"]["format"]["name"] == "Number"
    assert "text_format" not in seen[0].body


async def test_a_format_is_given_once_and_by_a_class_that_has_a_schema(server: SimulatedMistral) -> None:
    async with router_for(server) as router:
        with pytest.raises(ConfigError, match="both given"):
            await router.responses(MODEL, "hi", text_format=Number, text={"format": {"type": "json_object"}})
        with pytest.raises(ConfigError, match="text_format: no JSON schema can be made of int"):
            await router.responses(MODEL, "hi", text_format=int)
    assert server.requests == ()


async def test_any_responses_request_can_be_sent_as_such(server: SimulatedMistral) -> None:
    request = Request(Operation.RESPONSES, MODEL, {"input": "hi"})
    async with router_for(server) as router:
        plain = await router.send(request, extra_body={"metadata": {"a": "b"}})
        async with router.send_stream(
            attrs.evolve(request, stream=True), extra_body={"metadata": {"a": "b"}}
        ) as stream:
            events = [event async for event in stream]
    assert isinstance(plain, ResponsesResponse)
    assert isinstance(stream, ResponsesStream)
    assert plain.to_openai()["metadata"] == events[0].raw["response"]["metadata"] == {"a": "b"}
    assert [body["metadata"] for body in bodies(server)] == [{"a": "b"}, {"a": "b"}]


def test_the_same_calls_from_blocking_code() -> None:
    with (
        SimulatedMistral([SECRET], answer=model_of) as server,
        SyncRouter([Mistral([SECRET], base_url=server.base_url)]) as router,
    ):
        reply = router.responses(MODEL, "Weather?", tools=[WEATHER])
        with router.stream_responses(MODEL, "Weather?", tools=[WEATHER]) as stream:
            with pytest.raises(ConfigError, match="not been read"):
                _ = stream.response
            events = list(stream)
        with router.send_stream(Request(Operation.RESPONSES, MODEL, {"input": "hi"}, stream=True)) as other:
            text = "".join(other.text())
    assert stream.response.output_text == reply.output_text == "One moment."
    assert types(events)[-1] == "completed"
    assert isinstance(other.response, ResponsesResponse)
    assert text == other.response.output_text


async def test_hooks_see_the_input_as_items(server: SimulatedMistral) -> None:
    class Guard:
        @hookimpl
        def bifrost_guard_request(self, request: Request) -> Request:
            assert request.body["input"] == [{"role": "user", "content": "hi"}]
            return request.with_body(input="bye", instructions="changed")

    async with router_for(server, Guard()) as router:
        reply = await router.send(Request(Operation.RESPONSES, MODEL, {"input": "hi", "instructions": "mine"}))
    assert bodies(server)[0]["messages"] == [
        {"role": "system", "content": "changed"},
        {"role": "user", "content": "bye"},
    ]
    assert isinstance(reply, ResponsesResponse)
    assert reply.to_openai()["instructions"] == "mine"  # the caller's own words


async def test_what_can_not_be_served_is_refused_before_anything_is_sent(server: SimulatedMistral) -> None:
    async with router_for(server) as router:
        with pytest.raises(UnsupportedParameterError, match="previous_response_id"):
            await router.responses(MODEL, "hi", previous_response_id="resp_1")
        with pytest.raises(ConfigError, match="input is empty"):
            await router.responses(MODEL, [])
        with pytest.raises(ConfigError, match=r"input\[0\] is int"):
            router.stream_responses(MODEL, [1])  # type: ignore[list-item]
        with pytest.raises(ConfigError, match="stream is no parameter"):
            await router.responses(MODEL, "hi", stream=True)
    assert server.requests == ()


# --- what a guardrail removes


class Redactor:
    """Holds text back until a word is whole, and blots out what is in capitals; over chunk borders."""

    def __init__(self) -> None:
        self.rest = ""

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        if not chunk.text:
            return [chunk]
        text, mark, self.rest = (self.rest + chunk.text).rpartition(" ")
        if not mark:
            return []
        return [chunk.with_text(self.blotted(text + mark))]

    def finish(self) -> Iterable[Chunk]:
        rest, self.rest = self.rest, ""
        return [Chunk(text=self.blotted(rest))] if rest else []

    @staticmethod
    def blotted(text: str) -> str:
        return re.sub(r"\b[A-Z]{2,}\b", lambda found: "#" * len(found[0]), text)


class Redacting:
    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_stream_filter(self, call: Call) -> Redactor:
        assert call.operation is Operation.RESPONSES
        return Redactor()

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


BLOTTED = "My card is #### #### and that is all there is to say."


async def test_what_a_filter_removes_is_in_no_event_and_not_in_the_answer(server: SimulatedMistral) -> None:
    plugin = Redacting()
    async with router_for(server, plugin) as router, router.stream_responses(MODEL, "hi") as stream:
        events = [event async for event in stream]
    assert not re.search("QWER|ZXCV", json.dumps([event.raw for event in events]))
    assert "".join(event.text for event in events) == stream.response.output_text == BLOTTED
    assert types(events) == ["created", "in_progress", *MESSAGE, "completed"]
    done = {event.raw["type"]: event.raw for event in events}
    assert done["response.output_text.done"]["text"] == BLOTTED
    assert events[-1].raw["response"] == stream.response.to_openai()
    recorded = plugin.records[0].response
    assert isinstance(recorded, ResponsesResponse)
    for response in (stream.response, recorded):
        assert response.raw["choices"][0]["message"] == {"role": "assistant", "content": BLOTTED}
        assert not re.search("QWER|ZXCV", json.dumps([response.raw, response.to_openai()]))


async def test_what_a_filter_lets_out_late_is_told_late(server: SimulatedMistral) -> None:
    async with router_for(server, Redacting()) as router:
        async with router.stream_responses(MODEL, "Weather?", tools=[WEATHER]) as stream:
            events = [event async for event in stream]
    assert types(events) == ["created", "in_progress", *REASONING, *MESSAGE, *CALL, *CALL, *MESSAGE, "completed"]
    assert [item["type"] for item in stream.response.output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "message",
    ]
    assert stream.response.output_text == "One moment."
    assert (events[-1].finish_reason, events[-1].usage) == ("tool_calls", stream.response.usage)


async def test_a_filter_that_lets_nothing_out_leaves_an_empty_answer(server: SimulatedMistral) -> None:
    class Mute:
        def feed(self, chunk: Chunk) -> Iterable[Chunk]:
            return [] if chunk.has_content else [chunk]

        def finish(self) -> Iterable[Chunk]:
            return []

    class Plugin:
        @hookimpl
        def bifrost_stream_filter(self) -> Mute:
            return Mute()

    async with router_for(server, Plugin()) as router, router.stream_responses(MODEL, "x", tools=[WEATHER]) as stream:
        events = [event async for event in stream]
    assert types(events)[:2] == ["created", "in_progress"]
    assert "Oslo" not in json.dumps([event.raw["response"]["output"] for event in events if "response" in event.raw])
    assert stream.response.output_text == ""
    assert stream.response.reasoning is None


async def test_a_guard_without_a_filter_changes_every_event(server: SimulatedMistral) -> None:
    class Judge:
        @hookimpl
        def bifrost_guard_response(self, response: Response) -> Response:
            return response.with_text("Withheld.")

    async with router_for(server, Judge()) as router:
        plain = await router.responses(MODEL, "x", tools=[WEATHER])
        async with router.stream_responses(MODEL, "x", tools=[WEATHER]) as stream:
            events = [event async for event in stream]
    assert plain.output_text == stream.response.output_text == "Withheld."
    assert types(events) == ["created", "in_progress", *REASONING, *MESSAGE, *CALL, *CALL, "completed"]
    assert "One moment" not in json.dumps([event.raw for event in events] + [plain.raw, plain.to_openai()])
    assert stream.response.tool_calls[0].parsed() == {"city": "Oslo"}


async def test_a_guard_that_blocks_lets_no_event_out(server: SimulatedMistral) -> None:
    class Judge:
        @hookimpl
        def bifrost_guard_response(self) -> None:
            raise GuardrailError("no", rule="all", side="output")

    events: list[Chunk] = []
    async with router_for(server, Judge()) as router:
        with pytest.raises(GuardrailError):
            async with router.stream_responses(MODEL, "hi") as stream:
                events += [event async for event in stream]
    assert events == []


async def test_a_cached_answer_is_told_as_events_and_repeats_the_request_that_it_answers(
    server: SimulatedMistral,
) -> None:
    class Cache:
        def __init__(self) -> None:
            self.kept: Response | None = None

        @hookimpl
        def bifrost_cached_response(self) -> Response | None:
            return self.kept

        @hookimpl
        def bifrost_call_finished(self, record: CallRecord) -> None:
            self.kept = record.response

    async with router_for(server, Cache()) as router:
        first = await router.responses(MODEL, "x", tools=[WEATHER], user="first")
        second = await router.responses(MODEL, "x", tools=[WEATHER], user="second")
        async with router.stream_responses(MODEL, "x", tools=[WEATHER], user="third") as stream:
            events = [event async for event in stream]
    assert len(server.requests) == 1
    assert (first.cached, second.cached, stream.response.cached) == (False, True, True)
    assert stream.response.cost == Decimal(0)
    assert second.output == stream.response.output == first.output
    assert [response.to_openai()["user"] for response in (first, second, stream.response)] == [
        "first",
        "second",
        "third",
    ]
    assert types(events) == ["created", "in_progress", *REASONING, *MESSAGE, *CALL, *CALL, "completed"]
    assert events[-1].usage == first.usage


async def test_a_recovered_answer_is_told_as_events(server: SimulatedMistral) -> None:
    class Sorry:
        @hookimpl
        def bifrost_recover(self, error: CallError) -> Response:
            assert error.http_status == 502
            part = {"type": "output_text", "text": "Later, please.", "annotations": []}
            message = {
                "id": "msg_sorry",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [part],
            }
            return ResponsesResponse(model="none", output=[message])

    server.fail("a", Fault("status", status=401, shape="B"))
    async with router_for(server, Sorry()) as router:
        plain = await router.responses(MODEL, "hi", user="u")
        async with router.stream_responses(MODEL, "hi", user="u") as stream:
            events = [event async for event in stream]
    assert plain.output_text == "".join(event.text for event in events) == stream.response.output_text
    assert plain.to_openai()["user"] == "u"
    assert plain.to_openai()["id"] == f"resp_{plain.call_id.removeprefix('call_')}"
    assert (
        stream.response.id == events[0].raw["response"]["id"] == f"resp_{stream.response.call_id.removeprefix('call_')}"
    )
    assert types(events) == ["created", "in_progress", *MESSAGE, "completed"]


async def test_an_answer_of_the_wrong_kind_is_the_plugins_fault(server: SimulatedMistral) -> None:
    class Confused:
        @hookimpl
        def bifrost_cached_response(self) -> Response:
            return ChatResponse(model="m")

    async with router_for(server, Confused()) as router:
        with pytest.raises(PluginError, match="a plugin answered responses with ChatResponse"):
            await router.responses(MODEL, "hi")
        with pytest.raises(PluginError, match="return a ResponsesResponse"):
            async with router.stream_responses(MODEL, "hi") as stream:
                assert [event async for event in stream]
        with pytest.raises(ConfigError, match="not been read"):
            _ = stream.response


async def test_a_stream_that_breaks_has_no_last_event_and_leaves_what_was_said(server: SimulatedMistral) -> None:
    server.fail("a", Fault("truncate", after=4))
    events: list[Chunk] = []
    async with router_for(server) as router:
        with pytest.raises(StreamBrokenError) as caught:
            async with router.stream_responses(MODEL, "hi") as stream:
                async for event in stream:
                    events.append(event)  # what came before the break counts
    assert types(events) == ["created", "in_progress", *MESSAGE[:3]]
    assert caught.value.partial is not None
    assert caught.value.partial.text == "".join(event.text for event in events) != ""
    with pytest.raises(ConfigError, match="not been read"):
        _ = stream.response


WORDS = "one two three four five six"


def counting(body: dict[str, Any]) -> str:
    """Counts, or goes on from where it was."""
    last = body["messages"][-1]
    return WORDS.removeprefix(last["content"]) if last["role"] == "assistant" else WORDS


class InOrder:
    """Asks the keys in the order of their names."""

    @hookimpl
    def bifrost_pick_route(self, routes: Sequence[Route]) -> Route:
        return min(routes, key=lambda route: route.key_id)


@pytest.fixture
async def breaking() -> AsyncIterator[Router]:
    """A Router whose first key breaks off in the middle of an answer."""
    keys = [Key(f"sk-simulated-{name}", id=name) for name in ("a", "b")]
    listed = [SimulatedKey(f"sk-simulated-{name}", id=name) for name in ("a", "b")]
    async with SimulatedMistral(listed, answer=counting) as server:
        server.fail("a", Fault("truncate", after=4))
        retry = RetryPolicy(backoff=0, max_wait=0)
        async with Router([Mistral(keys, base_url=server.base_url)], plugins=[InOrder()], retry=retry) as router:
            yield router


async def test_a_stream_of_words_alone_goes_on_where_it_broke_off(breaking: Router) -> None:
    async with breaking.stream_responses(MODEL, "count", instructions="Count.", resume=True) as stream:
        events = [event async for event in stream]
    response = stream.response
    assert types(events) == ["created", "in_progress", *MESSAGE, "completed"]
    assert "".join(event.text for event in events) == response.output_text == WORDS
    assert events[-1].raw["response"] == response.to_openai()
    assert response.resumed
    assert [(attempt.route.key_id, attempt.outcome) for attempt in response.attempts] == [("a", "failed"), ("b", "ok")]
    assert response.cost == sum(attempt.cost or 0 for attempt in response.attempts)
    assert response.to_openai()["instructions"] == "Count."


async def test_what_is_more_than_words_is_not_gone_on_with(breaking: Router) -> None:
    with pytest.raises(StreamBrokenError) as caught:
        async with breaking.stream_responses(MODEL, "count", tools=[WEATHER], resume=True) as stream:
            assert [event async for event in stream]
    assert caught.value.partial is not None
    assert WORDS.startswith(caught.value.partial.text)


# --- answers as chunks, and chunks as answers

THOUGHT = {
    "id": "rs_c_0",
    "type": "reasoning",
    "status": "completed",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "hm"}],
}
SAID = {
    "id": "msg_c_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "yes", "annotations": [], "logprobs": []}],
}
DONE = {
    "id": "fc_c_2",
    "type": "function_call",
    "status": "completed",
    "call_id": "aaaaaaaaa",
    "name": "f",
    "arguments": "{}",
}
CUT = {**DONE, "id": "fc_c_3", "status": "incomplete", "call_id": "bbbbbbbbb", "arguments": '{"a'}
RAW = {
    "id": "c",
    "created": 5,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "yes", "reasoning_content": "hm"},
            "finish_reason": "length",
            "logprobs": {"content": []},
        }
    ],
}
ANSWER = ResponsesResponse(
    id="resp_c",
    model="m",
    usage=Usage(input_tokens=1, output_tokens=2),
    status="incomplete",
    incomplete_reason="max_output_tokens",
    output=[THOUGHT, SAID, DONE, CUT],
    raw=RAW,
)


def test_an_answer_told_as_chunks_is_the_same_answer() -> None:
    chunks = chunks_of(ANSWER)
    assert [(chunk.reasoning, chunk.text, chunk.tool_calls, chunk.finish_reason) for chunk in chunks] == [
        ("hm", "", (), None),
        (None, "yes", (), None),
        (None, "", (ToolCall("aaaaaaaaa", "f", "{}"),), None),
        (None, "", (), "length"),
    ]
    assert [chunk.usage for chunk in chunks] == [None, None, None, ANSWER.usage]
    assert {chunk.raw["id"] for chunk in chunks} == {"c"}
    whole = attrs.evolve(ANSWER, output=[THOUGHT, SAID, DONE])
    assert as_delivered(whole, chunks) is whole
    events = ResponseEvents()
    events.feed(chunks)
    events.finish(ANSWER)
    assert events.response is ANSWER


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "completed", "incomplete_reason": None, "output": [SAID]}, "stop"),
        ({"status": "completed", "incomplete_reason": None, "output": [DONE]}, "tool_calls"),
        ({"incomplete_reason": "content_filter"}, "content_filter"),
    ],
    ids=["stop", "tool_calls", "content_filter"],
)
def test_a_replayed_answer_says_why_it_ended(changes: dict[str, Any], reason: str) -> None:
    assert chunks_of(attrs.evolve(ANSWER, **changes))[-1].finish_reason == reason


def test_what_was_not_delivered_is_nowhere_in_the_answer() -> None:
    kept = [chunk.with_text("no") if chunk.text else chunk for chunk in chunks_of(ANSWER) if not chunk.tool_calls]
    told = as_delivered(ANSWER, kept)
    assert isinstance(told, ResponsesResponse)
    assert (told.output_text, told.reasoning, told.incomplete_reason) == ("no", "hm", "max_output_tokens")
    assert told.tool_calls == ()  # the one that was cut off is in no chunk: nothing could judge it
    assert "yes" not in str(told.output) + str(told.raw)
    assert told.raw["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "no"},
                ],
            },
            "finish_reason": "length",
        }
    ]
    assert (told.id, told.raw["created"]) == ("resp_c", 5)


def test_what_was_not_delivered_is_not_in_a_providers_own_responses_json_either() -> None:
    own = attrs.evolve(
        ANSWER, raw={"id": "resp_c", "object": "response", "output": [SAID], "status": "completed"}, output=[SAID]
    )
    told = as_delivered(own, [chunk.with_text("no") if chunk.text else chunk for chunk in chunks_of(own)])
    assert "yes" not in json.dumps(told.raw)
    assert isinstance(told, ResponsesResponse)
    assert told.to_openai()["output"] == told.raw["output"] == list(told.output)


def test_new_words_leave_nothing_of_the_old_ones() -> None:
    changed = ANSWER.with_text("no")
    assert changed.output_text == "no"
    assert changed.raw["choices"][0]["message"] == {"role": "assistant", "content": "no", "reasoning_content": "hm"}
    assert "yes" not in json.dumps([changed.raw, changed.to_openai(), list(changed.output)])
    assert attrs.evolve(ANSWER, output=[DONE]).with_text("no").output == (
        DONE,
        {
            "id": "msg_c_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "no", "annotations": [], "logprobs": []}],
        },
    )


def test_events_take_their_name_from_the_call_where_no_chunk_has_one() -> None:
    events = ResponseEvents(call_id="call_77", model="m")
    assert events.feed([Chunk(), Chunk(index=1, text="another choice")]) == []
    begun = events.feed([Chunk(text="a")])
    assert [event.raw["type"] for event in begun][:2] == ["response.created", "response.in_progress"]
    assert (begun[0].raw["response"]["id"], begun[0].raw["response"]["model"]) == ("resp_77", "m")
    assert begun[2].raw["item"]["id"] == "msg_77_0"
    last = events.finish(attrs.evolve(ANSWER, output=[SAID]))[-1]
    assert last.raw["response"]["id"] == "resp_77"
    assert events.response is not None
    assert events.response.output[0]["id"] == "msg_77_0"


def test_a_call_whose_arguments_are_no_json_is_incomplete() -> None:
    events = ResponseEvents(call_id="c")
    told = events.feed([Chunk(tool_calls=(ToolCall("bbbbbbbbb", "f", '{"a'),), finish_reason="length")])
    assert told[-1].raw["item"]["status"] == "incomplete"
    assert all(event.tool_calls == () for event in told)
    assert [event.raw["type"] for event in events.finish(ANSWER)] == ["response.incomplete"]  # it is told already
