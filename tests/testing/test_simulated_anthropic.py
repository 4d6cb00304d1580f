"""The simulated Anthropic service, seen by a plain HTTP client."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import httpx
import pytest

from bifrost_core.testing import FakeClock, Fault, SimulatedAnthropic, SimulatedKey, SimulatedModel
from bifrost_core.testing.anthropic.__main__ import main

Json: TypeAlias = dict[str, Any]
Serve: TypeAlias = Callable[..., tuple[SimulatedAnthropic, httpx.Client]]

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
SECRET = "sk-ant-test-0123456789"
HI: Json = {"role": "user", "content": "Hello"}
HELLO: Json = {"model": "claude-haiku-4-5", "max_tokens": 1_000, "messages": [HI]}
THINKING: Json = {**HELLO, "max_tokens": 4_000, "thinking": {"type": "enabled", "budget_tokens": 1_024}}
WEATHER: Json = {
    "name": "weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo"]}},
        "required": ["city"],
    },
}
CALL: Json = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
RESULT: Json = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
CALLED: Json = {**HELLO, "tools": [WEATHER], "messages": [HI, {"role": "assistant", "content": [CALL]}]}


def user(*blocks: Json) -> Json:
    """A turn of the user's."""
    return {"role": "user", "content": list(blocks)}


def text(words: str, **more: Any) -> Json:
    """A block of text."""
    return {"type": "text", "text": words, **more}


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server with one key (``SimulatedKey`` arguments in ``key``) and a client that uses it."""
    with contextlib.ExitStack() as stack:

        def start(*faults: Fault, key: Json | None = None, **options: Any) -> tuple[SimulatedAnthropic, httpx.Client]:
            simulated = SimulatedKey(SECRET, id="a", faults=faults, **(key or {}))
            server = stack.enter_context(SimulatedAnthropic([simulated], **options))
            headers = {"x-api-key": SECRET, "anthropic-version": "2023-06-01"}
            return server, stack.enter_context(httpx.Client(base_url=server.base_url, headers=headers, timeout=5))

        yield start


def events_of(reply: httpx.Response) -> list[Json]:
    """The JSON of a stream's events, whose names are checked on the way."""
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    *parts, rest = reply.text.split("\n\n")
    found: list[Json] = []
    for part in parts:
        name, data = part.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert rest == ""
    return found


def refusal(reply: httpx.Response) -> tuple[int, str, str]:
    """Status, type and words of a refusal, whose shape is checked on the way."""
    body = reply.json()
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["request_id"]) == ("error", reply.headers["request-id"])
    return reply.status_code, body["error"]["type"], body["error"]["message"]


# -- messages ------------------------------------------------------------------------------------------------------


def test_a_plain_message_has_anthropics_shape_and_headers(serve: Serve) -> None:
    limits = {"requests_per_minute": 60, "tokens_per_minute": 6_000}
    _, client = serve(clock=FakeClock(wall=1_780_000_000), answer="Bifrost, of course.", key=limits)
    reply = client.post(MESSAGES, json=HELLO)
    body = reply.json()
    assert re.fullmatch(r"msg_01[1-9A-Za-z]{22}", body.pop("id"))
    prompt = body["usage"]["input_tokens"]
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [{"type": "text", "text": "Bifrost, of course."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": prompt,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 5,
            "service_tier": "standard",
        },
    }
    headers = dict(reply.headers)
    assert re.fullmatch(r"req_01[1-9A-Za-z]{22}", headers.pop("request-id"))
    assert headers == {
        "date": "Thu, 28 May 2026 20:26:40 GMT",
        "content-type": "application/json",
        "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "59",
        "anthropic-ratelimit-requests-reset": "2026-05-28T20:26:41Z",
        "anthropic-ratelimit-tokens-limit": "6000",
        "anthropic-ratelimit-tokens-remaining": str(6_000 - prompt - 5),
        "anthropic-ratelimit-tokens-reset": "2026-05-28T20:26:41Z",
        "content-length": str(len(reply.content)),
        "connection": "keep-alive",
    }


def test_the_events_of_a_message_come_in_order_and_build_it_up(serve: Serve) -> None:
    _, client = serve(answer="Over the rainbow bridge.")
    start, block, ping, *deltas, stop, ending, end = events_of(client.post(MESSAGES, json={**HELLO, "stream": True}))
    message = start["message"]
    assert (start["type"], message["content"], message["stop_reason"]) == ("message_start", [], None)
    assert message["usage"]["output_tokens"] == 1
    assert block == {"type": "content_block_start", "index": 0, "content_block": text("")}
    assert ping == {"type": "ping"}
    assert "".join(event["delta"]["text"] for event in deltas) == "Over the rainbow bridge."
    assert {(event["type"], event["index"], event["delta"]["type"]) for event in deltas} == {
        ("content_block_delta", 0, "text_delta")
    }
    assert stop == {"type": "content_block_stop", "index": 0}
    assert ending["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert ending["usage"] == {
        "input_tokens": message["usage"]["input_tokens"],
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 6,
    }
    assert end == {"type": "message_stop"}


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}], ids=["any", "tool"])
def test_a_demanded_call_is_made_with_input_that_fits(serve: Serve, choice: Json) -> None:
    _, client = serve()
    body = client.post(MESSAGES, json={**HELLO, "tools": [WEATHER], "tool_choice": choice}).json()
    (block,) = body["content"]
    assert re.fullmatch(r"toolu_01[1-9A-Za-z]{22}", block["id"])
    assert (block["type"], block["name"], block["input"], body["stop_reason"]) == (
        "tool_use",
        "weather",
        {"city": "Oslo"},
        "tool_use",
    )


def test_the_input_of_calls_is_streamed_in_pieces(serve: Serve) -> None:
    calls = [{"name": "weather", "arguments": {"city": city}} for city in ("Oslo", "Bergen by the sea")]
    _, client = serve(answer=lambda _: {"content": "Let me see.", "tool_calls": calls})
    events = events_of(client.post(MESSAGES, json={**HELLO, "tools": [WEATHER], "stream": True}))
    blocks = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [(block["type"], block.get("input")) for block in blocks] == [
        ("text", None),
        ("tool_use", {}),
        ("tool_use", {}),
    ]
    pieces: dict[int, list[str]] = {}
    for event in events:
        if event["type"] == "content_block_delta" and event["delta"]["type"] == "input_json_delta":
            pieces.setdefault(event["index"], []).append(event["delta"]["partial_json"])
    assert {index: json.loads("".join(each)) for index, each in pieces.items()} == {
        1: {"city": "Oslo"},
        2: {"city": "Bergen by the sea"},
    }
    assert (pieces[1][0], len(pieces[2]) > 2, events[-2]["delta"]["stop_reason"]) == ("", True, "tool_use")


def test_a_conversation_goes_on_behind_the_results_of_its_calls(serve: Serve) -> None:
    _, client = serve()
    reply = client.post(MESSAGES, json={**CALLED, "messages": [*CALLED["messages"], user(RESULT, text("and now?"))]})
    assert reply.json()["stop_reason"] == "end_turn"


def test_json_fits_the_format(serve: Serve) -> None:
    _, client = serve()
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 3}},
        "required": ["n"],
        "additionalProperties": False,
    }
    body = {**HELLO, "output_config": {"format": {"type": "json_schema", "schema": schema}}}
    assert json.loads(client.post(MESSAGES, json=body).json()["content"][0]["text"]) == {"n": 3}


def test_thinking_comes_with_a_signature_that_is_known_again(serve: Serve) -> None:
    _, client = serve()
    first = client.post(MESSAGES, json=THINKING).json()
    thought, said = first["content"]
    assert (thought["type"], said["type"]) == ("thinking", "text")
    assert first["usage"]["output_tokens_details"]["thinking_tokens"] == len(thought["thinking"].split())
    again = {**THINKING, "messages": [HI, {"role": "assistant", "content": [thought, said]}, HI]}
    assert client.post(MESSAGES, json=again).status_code == 200
    thought["thinking"] += " And more."
    assert refusal(client.post(MESSAGES, json=again)) == (
        400,
        "invalid_request_error",
        "messages.1.content.0: Invalid `signature` in `thinking` block",
    )


def test_thinking_is_streamed_before_the_text_with_its_signature_last(serve: Serve) -> None:
    _, client = serve(answer=lambda _: {"thinking": "Who guards it?", "content": "Heimdall."})
    events = events_of(client.post(MESSAGES, json={**THINKING, "stream": True}))
    deltas = [(event["index"], event["delta"]) for event in events if event["type"] == "content_block_delta"]
    kinds = list(dict.fromkeys((index, delta["type"]) for index, delta in deltas))
    assert kinds == [(0, "thinking_delta"), (0, "signature_delta"), (1, "text_delta")]
    assert "".join(delta["thinking"] for _, delta in deltas if "thinking" in delta) == "Who guards it?"
    assert next(event for event in events if event["type"] == "content_block_start")["content_block"] == {
        "type": "thinking",
        "thinking": "",
        "signature": "",
    }


def test_newer_models_think_unasked_and_show_nothing_of_it(serve: Serve) -> None:
    _, client = serve()
    body = client.post(MESSAGES, json={**HELLO, "model": "claude-opus-5-5"}).json()
    assert [(block["type"], block.get("thinking")) for block in body["content"]] == [("thinking", ""), ("text", None)]
    shown = {"type": "adaptive", "display": "summarized"}
    body = client.post(MESSAGES, json={**HELLO, "model": "claude-opus-5-5", "thinking": shown}).json()
    assert body["content"][0]["thinking"]
    silent = client.post(MESSAGES, json={**HELLO, "model": "claude-opus-5-5", "thinking": {"type": "disabled"}}).json()
    assert [block["type"] for block in silent["content"]] == ["text"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"max_tokens": 2}, ("a quick", "max_tokens", None)),
        ({"stop_sequences": ["none", " fox"]}, ("a quick brown", "stop_sequence", " fox")),
    ],
    ids=["max_tokens", "stop_sequences"],
)
def test_an_answer_ends_where_the_request_says_so(serve: Serve, change: Json, expected: object) -> None:
    _, client = serve(answer="a quick brown fox jumps")
    body = client.post(MESSAGES, json={**HELLO, **change}).json()
    assert (body["content"][0]["text"], body["stop_reason"], body["stop_sequence"]) == expected


def test_a_law_may_refuse_or_pause(serve: Serve) -> None:
    said = iter(
        [{"content": "No.", "finish_reason": "content_filter"}, {"content": "…", "finish_reason": "pause_turn"}]
    )
    _, client = serve(answer=lambda _: next(said))
    assert [client.post(MESSAGES, json=HELLO).json()["stop_reason"] for _ in range(2)] == ["refusal", "pause_turn"]


# -- the cache of prompts ------------------------------------------------------------------------------------------

LONG = "word " * 1_000


def cached(client: httpx.Client, question: str, **mark: Any) -> tuple[int, int, int, int]:
    """Tokens read, written for five minutes and for an hour, and neither, of a prompt with a long beginning."""
    system = [text(LONG, cache_control={"type": "ephemeral", **mark})]
    body = {**HELLO, "system": system, "messages": [{"role": "user", "content": question}]}
    usage = client.post(MESSAGES, json=body).json()["usage"]
    assert usage["cache_creation_input_tokens"] == sum(usage["cache_creation"].values())
    written = usage["cache_creation"]
    return (
        usage["cache_read_input_tokens"],
        written["ephemeral_5m_input_tokens"],
        written["ephemeral_1h_input_tokens"],
        usage["input_tokens"],
    )


def test_a_marked_beginning_is_written_once_and_read_until_it_is_forgotten(serve: Serve) -> None:
    clock = FakeClock()
    _, client = serve(clock=clock)
    read, written, _, rest = cached(client, "one")
    assert (read, written > 1_024, rest < 20) == (0, True, True)
    clock.advance(200)
    assert cached(client, "two")[:3] == (written, 0, 0)
    clock.advance(200)  # the last use counts, not the first
    assert cached(client, "one")[:3] == (written, 0, 0)
    clock.advance(301)
    assert cached(client, "one") == (0, written, 0, rest)


def test_a_beginning_may_be_kept_for_an_hour_and_of_another_model_nothing_is_known(serve: Serve) -> None:
    clock = FakeClock()
    _, client = serve(clock=clock)
    _, _, written, _ = cached(client, "one", ttl="1h")
    clock.advance(3_000)
    assert (written > 0, cached(client, "one", ttl="1h")[0]) == (True, written)
    other = {**HELLO, "model": "claude-sonnet-4-5", "system": [text(LONG, cache_control={"type": "ephemeral"})]}
    assert client.post(MESSAGES, json=other).json()["usage"]["cache_read_input_tokens"] == 0


def test_a_conversation_that_grows_reads_what_it_wrote_before(serve: Serve) -> None:
    _, client = serve()
    mark = {"cache_control": {"type": "ephemeral"}}
    first = {**HELLO, "messages": [user(text(LONG, **mark))]}
    written = client.post(MESSAGES, json=first).json()["usage"]["cache_creation_input_tokens"]
    longer = {
        **HELLO,
        "messages": [user(text(LONG)), {"role": "assistant", "content": "Go on."}, user(text("x", **mark))],
    }
    usage = client.post(MESSAGES, json=longer).json()["usage"]
    assert (usage["cache_read_input_tokens"], 0 < usage["cache_creation_input_tokens"] < 50) == (written, True)


def test_a_short_beginning_is_not_kept_and_one_mark_for_all_works_too(serve: Serve) -> None:
    _, client = serve()
    short = {**HELLO, "system": [text("Be kind.", cache_control={"type": "ephemeral"})]}
    long = {**HELLO, "system": LONG, "cache_control": {"type": "ephemeral"}}
    usages = [client.post(MESSAGES, json=body).json()["usage"] for body in (short, short, long, long)]
    assert [(usage["cache_creation_input_tokens"] > 0, usage["cache_read_input_tokens"] > 0) for usage in usages] == [
        (False, False),
        (False, False),
        (True, False),
        (False, True),
    ]


def test_counted_tokens_are_those_that_a_message_is_billed(serve: Serve) -> None:
    server, client = serve()
    body = {**CALLED, "system": LONG, "messages": [HI]}
    counted = client.post(COUNT, json={name: body[name] for name in ("model", "messages", "system", "tools")})
    assert counted.json() == {"input_tokens": client.post(MESSAGES, json=body).json()["usage"]["input_tokens"]}
    assert [record.prompt_tokens for record in server.requests] == [0, counted.json()["input_tokens"]]


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"max_tokens": 64_001}, "max_tokens: 64001 > 64000, which is the maximum allowed number of output tokens for"),
        ({"foo": 1}, "foo: Extra inputs are not permitted"),
        ({"context_management": {}}, "context_management: Extra inputs are not permitted"),
        ({"temperature": 1.5}, "temperature: Input should be less than or equal to 1"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": "hi"}, "messages: Input should be a valid list"),
        ({"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be 'user', 'assistant' or"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 'messages: first message must use the "user" role'),
        ({"messages": [HI, {"role": "system", "content": "x"}]}, "messages.1: role 'system' is not supported on this"),
        ({"messages": [user()]}, "messages.0: all messages must have non-empty content"),
        ({"messages": [user(text(""))]}, "messages: text content blocks must be non-empty"),
        ({"messages": [user({"type": "image_url"})]}, "messages.0.content.0: Input tag 'image_url' found using 'type'"),
        ({"messages": [user(text("x", name="y"))]}, "messages.0.content.0.text.name: Extra inputs are not permitted"),
        ({"messages": [user({"type": "image"})]}, "messages.0.content.0.image.source: Field required"),
        ({"messages": [HI, {"role": "assistant", "content": "So "}]}, "messages: final assistant content cannot end"),
        ({"system": [{"type": "image"}]}, "system.0: Input tag 'image' found using 'type'"),
        ({"system": [{"type": [None]}]}, "system.0: Input tag '[None]' found using 'type'"),
        ({"tools": [{"type": {}}]}, "tools.0.type: Input should be a valid string"),
        ({"system": [text("x", cache_control={"type": "x"})]}, "system.0.text.cache_control.type: Input should be"),
        ({"tool_choice": {"type": "any"}}, "tool_choice may only be specified while providing tools."),
        ({"tools": [{"name": "x"}]}, "tools.0.custom.input_schema: Field required"),
        ({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "tools.0.custom.name: String should match"),
        ({"tools": [WEATHER, WEATHER]}, "tools: Tool names must be unique."),
        ({"tools": [{"name": "x", "input_schema": {}}]}, "tools.0.custom.input_schema.type: Field required"),
        (
            {"tools": [{"name": "x", "input_schema": {"type": "array"}}]},
            "tools.0.custom.input_schema.type: Input should be",
        ),
        ({"tools": [7]}, "tools.0: Input should be a valid dictionary"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice.tool.name: Field required"),
        ({"messages": [user({"text": "x"})]}, "messages.0.content.0.type: Field required"),
        ({"messages": ["x"]}, "messages.0: Input should be a valid dictionary"),
        ({**THINKING, "temperature": 0.5}, "`temperature` may only be set to 1 when thinking is enabled."),
        (
            {**THINKING, "tools": [WEATHER], "tool_choice": {"type": "any"}},
            "Thinking may not be enabled when tool_choice",
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": []}}}},
            "output_config.format.schema: The",
        ),
        (
            {**CALLED, "messages": [*CALLED["messages"], {"role": "assistant", "content": "x"}, HI]},
            "messages.1: `tool_use`",
        ),
        (
            {
                "messages": [
                    HI,
                    {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "?"}]},
                    HI,
                ]
            },
            "messages.1.content.0: Invalid `signature`",
        ),
        ({"tools": [{**WEATHER, "strict": True}]}, "tools.0.custom: For 'object' type, 'additionalProperties' must be"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}, "Tool 'x' not found in provided tools"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            "output_config.format.schema: For",
        ),
        ({"thinking": {"type": "enabled"}}, "thinking.enabled.budget_tokens: Field required"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "thinking.budget_tokens: Input should be greater than"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1_024}}, "`max_tokens` must be greater than"),
        ({"thinking": {"type": "adaptive"}}, "adaptive thinking is not supported on this model"),
        ({"system": [text("x", cache_control={"type": "ephemeral"})] * 5}, "A maximum of 4 blocks with cache_control"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else ", ".join(value),
)
def test_messages_refuse_what_anthropic_refuses(serve: Serve, change: Json, words: str) -> None:
    server, client = serve()
    status, kind, message = refusal(client.post(MESSAGES, json={**HELLO, **change}))
    assert (status, kind, message[: len(words)]) == (400, "invalid_request_error", words)
    assert server.requests[0].completion_tokens == 0


def test_max_tokens_has_to_be_stated_and_is_none_of_countings(serve: Serve) -> None:
    _, client = serve()
    body = {"model": "claude-haiku-4-5", "messages": [HI]}
    assert refusal(client.post(MESSAGES, json=body))[2] == "max_tokens: Field required"
    assert client.post(COUNT, json=body).status_code == 200
    assert refusal(client.post(COUNT, json=HELLO))[2] == "max_tokens: Extra inputs are not permitted"


UNANSWERED = (
    "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1. Each `tool_use` "
    "block must have a corresponding `tool_result` block in the next message."
)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (CALLED["messages"], UNANSWERED),
        ([*CALLED["messages"], HI], UNANSWERED),
        ([*CALLED["messages"], user(text("first"), RESULT)], UNANSWERED),
        (
            [user(RESULT)],
            "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_1. Each ",
        ),
        ([*CALLED["messages"], user(RESULT, RESULT)], "messages.2.content.1: each tool_use must have a single result."),
        ([HI, {"role": "assistant", "content": [CALL, CALL]}], "messages: `tool_use` ids must be unique"),
        (
            [HI, {"role": "assistant", "content": [RESULT]}, HI],
            "messages.1: `tool_result` blocks can only be in `user`",
        ),
    ],
    ids=["at the end", "none", "not first", "no call", "twice", "same id", "of the assistant"],
)
def test_calls_and_results_come_in_pairs(serve: Serve, messages: list[Json], words: str) -> None:
    _, client = serve()
    status, kind, message = refusal(client.post(MESSAGES, json={**CALLED, "messages": messages}))
    assert (status, kind, message[: len(words)]) == (400, "invalid_request_error", words)


def test_calls_need_tools_and_thinking_in_front_where_it_is_enabled(serve: Serve) -> None:
    _, client = serve()
    messages = [*CALLED["messages"], user(RESULT)]
    words = refusal(client.post(MESSAGES, json={**HELLO, "messages": messages}))[2]
    assert words == "Requests which include `tool_use` or `tool_result` blocks must define tools."
    words = refusal(client.post(MESSAGES, json={**THINKING, "tools": [WEATHER], "messages": messages}))[2]
    assert words.startswith(
        "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`."
    )


def test_a_result_may_hold_blocks_and_a_cut_call_has_no_input(serve: Serve) -> None:
    _, client = serve(answer=lambda _: {"tool_calls": [{"name": "weather", "arguments": {"city": "Oslo by the sea"}}]})
    result = {**RESULT, "content": [text("rain")], "is_error": True}
    messages = [*CALLED["messages"], user(result)]
    body = client.post(MESSAGES, json={**CALLED, "messages": messages, "max_tokens": 7, "inference_geo": "eu"}).json()
    assert (body["content"][0]["input"], body["stop_reason"], body["usage"]["inference_geo"]) == (
        {},
        "max_tokens",
        "eu",
    )


def test_a_failing_law_is_a_500_and_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    _, client = serve(answer=lambda body: body["nothing"])
    assert refusal(client.post(MESSAGES, json=HELLO)) == (500, "api_error", "Internal server error")
    assert "KeyError" in caplog.text


@pytest.mark.parametrize(("shape", "body"), [("B", '{"detail":"Overloaded"}'), ("E", "")], ids=["detail", "nothing"])
def test_what_stands_in_front_may_refuse_in_its_own_shape(serve: Serve, shape: Any, body: str) -> None:
    _, client = serve(Fault("status", status=529, shape=shape))
    reply = client.post(MESSAGES, json=HELLO)
    assert (reply.status_code, reply.text) == (529, body)


def test_turns_of_one_role_in_a_row_are_one_turn(serve: Serve) -> None:
    _, client = serve()
    split = [HI, {"role": "assistant", "content": "So"}, {"role": "assistant", "content": [CALL]}, user(RESULT), HI]
    assert client.post(MESSAGES, json={**CALLED, "messages": split}).status_code == 200


@pytest.mark.parametrize(
    ("model", "change", "words"),
    [
        ("claude-opus-4-6", {"messages": [HI, {"role": "assistant", "content": "So"}]}, "This model does not support assistant message prefill."),
        ("claude-opus-4-8", {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "max_tokens": 2_000}, '"thinking.type.enabled" is not supported'),
        ("claude-opus-4-8", {"temperature": 0.5}, "`temperature` is deprecated for this model."),
        ("claude-opus-4-8", {"messages": [{"role": "system", "content": "x"}, HI]}, "messages.0: a message of the role 'system' must"),
    ],
    ids=["prefill", "budget", "sampling", "system first"],
)  # fmt: skip
def test_newer_models_refuse_what_older_ones_took(serve: Serve, model: str, change: Json, words: str) -> None:
    _, client = serve()
    assert refusal(client.post(MESSAGES, json={**HELLO, "model": model, **change}))[2].startswith(words)


def test_newer_models_take_system_messages_inside_and_older_ones_prefill(serve: Serve) -> None:
    _, client = serve()
    inside = [HI, {"role": "system", "content": "Be brief."}]
    assert client.post(MESSAGES, json={**HELLO, "model": "claude-opus-4-8", "messages": inside}).status_code == 200
    assert (
        client.post(MESSAGES, json={**HELLO, "messages": [HI, {"role": "assistant", "content": "So"}]}).status_code
        == 200
    )


DOCUMENT: Json = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"temperature": 1}, "temperature: Extra inputs are not permitted"),
        (
            {"messages": [HI, {"role": "assistant", "content": [DOCUMENT]}, HI]},
            "messages.1.content.0: `document` blocks",
        ),
        (
            {"messages": [user(text("x", citations=[{"type": "char_location"}]))]},
            "messages.0.content.0: `citations` are",
        ),
    ],
    ids=["sampling", "document", "citations"],
)
def test_the_newer_version_refuses_what_the_older_one_took(serve: Serve, change: Json, words: str) -> None:
    _, client = serve()
    newer = {"anthropic-version": "2026-10-21"}
    assert refusal(client.post(MESSAGES, json={**HELLO, **change}, headers=newer))[2].startswith(words)
    assert client.post(MESSAGES, json={**HELLO, **change}).status_code == 200
    assert client.post(MESSAGES, json=HELLO, headers=newer).status_code == 200


def test_members_of_beta_features_need_the_header(serve: Serve) -> None:
    _, client = serve()
    beta = {"anthropic-beta": "context-management-2025-06-27"}
    assert client.post(MESSAGES, json={**HELLO, "context_management": {}}, headers=beta).status_code == 200


def test_a_thread_is_kept_for_five_minutes_and_continued_with_what_is_new(serve: Serve) -> None:
    clock = FakeClock()
    _, client = serve(clock=clock, answer=lambda body: f"{len(body['messages'])} of {body['system']}")
    client.headers["anthropic-beta"] = "message-threads-2026-08-12"
    first = client.post(MESSAGES, json={**HELLO, "system": "Odin", "thread": {"type": "create"}}).json()
    more = {**HELLO, "thread": {"type": "continue", "previous_message_id": first["id"]}}
    clock.advance(299)
    second = client.post(MESSAGES, json=more).json()
    assert [body["content"][0]["text"] for body in (first, second)] == ["1 of Odin", "3 of Odin"]
    assert refusal(client.post(MESSAGES, json={**more, "system": "x"}))[0] == 400
    clock.advance(1)
    gone = client.post(MESSAGES, json=more)
    assert (gone.status_code, gone.json()["error"]["details"]) == (404, {"error_code": "thread_not_found"})


def test_models_and_prompts_that_do_not_fit_are_refused(serve: Serve) -> None:
    _, client = serve(models=[SimulatedModel("small", capabilities={"completion_chat"}, context=20)])
    assert refusal(client.post(MESSAGES, json=HELLO)) == (404, "not_found_error", "model: claude-haiku-4-5")
    long = {**HELLO, "model": "small", "messages": [{"role": "user", "content": "x" * 200}]}
    words = r"prompt is too long: \d+ tokens > 20 maximum"
    assert re.fullmatch(words, refusal(client.post(MESSAGES, json=long))[2])


# -- keys, limits and faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"anthropic-version": "2023-06-01"}, (401, "authentication_error", "x-api-key header is required")),
        ({"x-api-key": "sk-wrong"}, (401, "authentication_error", "invalid x-api-key")),
        ({"x-api-key": "sk-right"}, (400, "invalid_request_error", "anthropic-version: header is required")),
        (
            {"x-api-key": "sk-right", "anthropic-version": "2020-01-01"},
            (400, "invalid_request_error", 'anthropic-version: "2020-01-01" is not a valid version'),
        ),
    ],
    ids=["no key", "unknown key", "no version", "unknown version"],
)
def test_a_request_needs_a_key_and_a_version(headers: dict[str, str], expected: object) -> None:
    with SimulatedAnthropic(["sk-right"]) as server:
        assert refusal(httpx.get(f"{server.base_url}/v1/models", headers=headers)) == expected


def test_a_token_stands_for_the_key(serve: Serve) -> None:
    server, _ = serve()
    headers = {"authorization": f"Bearer {SECRET}", "anthropic-version": "2023-06-01"}
    assert httpx.post(server.base_url + MESSAGES, json=HELLO, headers=headers).status_code == 200


def test_a_used_up_limit_says_when_to_come_again(serve: Serve) -> None:
    clock = FakeClock(wall=1_780_000_000)
    _, client = serve(clock=clock, key={"requests_per_minute": 2})
    assert [client.post(MESSAGES, json=HELLO).status_code for _ in range(2)] == [200, 200]
    reply = client.post(MESSAGES, json=HELLO)
    assert refusal(reply)[:2] == (429, "rate_limit_error")
    shown = {name: reply.headers[name] for name in ("retry-after", "anthropic-ratelimit-requests-reset")}
    assert shown == {"retry-after": "30", "anthropic-ratelimit-requests-reset": "2026-05-28T20:27:40Z"}
    clock.advance(30)
    assert client.post(MESSAGES, json=HELLO).status_code == 200


def test_a_key_may_state_another_time_to_come_again(serve: Serve) -> None:
    _, client = serve(key={"requests_per_minute": 0, "retry_after": 7.5})
    assert client.post(MESSAGES, json=HELLO).headers.get_list("retry-after") == ["7.5"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("status", status=529), (529, "overloaded_error", "Overloaded")),
        (Fault("status", status=500), (500, "api_error", "Internal server error")),
        (
            Fault("status", status=402),
            (402, "billing_error", "Your credit balance is too low to access the Anthropic API."),
        ),
        (Fault("status", status=403, message="No."), (403, "permission_error", "No.")),
    ],
    ids=["529", "500", "402", "403"],
)
def test_faults_speak_anthropics_errors(serve: Serve, fault: Fault, expected: object) -> None:
    _, client = serve(fault)
    assert refusal(client.post(MESSAGES, json=HELLO)) == expected


def test_an_error_inside_a_stream_is_an_event_of_its_own(serve: Serve) -> None:
    _, client = serve(Fault("error_event", after=3))
    *_, last = events_of(client.post(MESSAGES, json={**HELLO, "stream": True}))
    assert last == {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def test_a_stream_may_lack_its_end_or_its_reason(serve: Serve) -> None:
    _, client = serve(Fault("no_done", last=1), Fault("truncate", after=99))
    whole, cut = (events_of(client.post(MESSAGES, json={**HELLO, "stream": True})) for _ in range(2))
    assert (whole[-1]["type"], cut[-1]["type"]) == ("message_delta", "content_block_stop")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_usage_may_be_nonsense_wherever_it_stands(serve: Serve, stream: bool) -> None:
    _, client = serve(Fault("bad_usage"))
    words = client.post(MESSAGES, json={**HELLO, "stream": stream}).text
    assert words.count('"usage":{"input_tokens":-7,"output_tokens":-1,"total_tokens":-8}') == (2 if stream else 1)


HARMLESS = [
    Fault("crlf"),
    Fault("bom"),
    Fault("split"),
    Fault("gzip"),
    Fault("slow_drip", size=64, pause=0.0),
    Fault("oversized", size=20_000),
    Fault("gzip_bomb", size=20_000),
]


@pytest.mark.parametrize("fault", HARMLESS, ids=lambda fault: fault.kind)
def test_faults_of_form_change_the_bytes_and_not_what_is_said(serve: Serve, fault: Fault) -> None:
    _, client = serve(fault, answer="Smörgås over the bridge")
    body = client.post(MESSAGES, json={**HELLO, "stream": True}).content.decode("utf-8-sig").replace("\r\n", "\n")
    data = [json.loads(line.removeprefix("data: ")) for line in body.split("\n") if line.startswith("data: ")]
    said = "".join(event["delta"]["text"] for event in data if event["type"] == "content_block_delta")
    assert (said, data[-1]["type"]) == ("Smörgås over the bridge", "message_stop")


@pytest.mark.parametrize("kind", ["reset", "close", "half_head", "half_body", "garbage"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_faults_of_the_connection_cut_it(serve: Serve, kind: str, stream: bool) -> None:
    server, client = serve(Fault(kind, after=2 if stream and kind != "garbage" else None))  # type: ignore[arg-type]
    with pytest.raises(httpx.TransportError):
        client.post(MESSAGES, json={**HELLO, "stream": stream})
    assert server.wait_idle()
    assert server.counters["a"].faults == {kind: 1}


def test_equal_seeds_give_equal_answers(serve: Serve) -> None:
    texts = [serve(seed=seed)[1].post(MESSAGES, json={**THINKING, "stream": True}).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_journal_counts_cached_tokens_too(serve: Serve) -> None:
    server, client = serve()
    for question in ("one", "two"):
        cached(client, question)
    first, second = server.requests
    assert (first.key_id, first.model, first.prompt_tokens) == ("a", "claude-haiku-4-5", second.prompt_tokens)
    assert server.counters["a"].prompt_tokens == 2 * first.prompt_tokens


# -- models, paths and the command ---------------------------------------------------------------------------------


def test_models_come_page_by_page(serve: Serve) -> None:
    _, client = serve(models=["one", "two", SimulatedModel("claude-haiku-4-5-20251001", ["claude-haiku-4-5"])])
    first = client.get("/v1/models", params={"limit": 2}).json()
    assert ([entry["id"] for entry in first["data"]], first["has_more"], first["last_id"]) == (
        ["one", "two"],
        True,
        "two",
    )
    last = client.get("/v1/models", params={"after_id": "two"}).json()
    assert ([entry["id"] for entry in last["data"]], last["has_more"]) == (["claude-haiku-4-5-20251001"], False)
    before = client.get("/v1/models", params={"before_id": "two", "limit": 1}).json()
    assert ([entry["id"] for entry in before["data"]], before["has_more"]) == (["one"], False)
    found = client.get("/v1/models/claude-haiku-4-5").json()
    assert {name: found[name] for name in ("type", "id", "line", "max_tokens")} == {
        "type": "model",
        "id": "claude-haiku-4-5-20251001",
        "line": "haiku",
        "max_tokens": 64_000,
    }
    assert refusal(client.get("/v1/models/x")) == (404, "not_found_error", "model: x")
    assert refusal(client.get("/v1/models", params={"limit": 0}))[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "content", "expected"),
    [
        ("POST", "/v1/complete", b"{}", (404, "not_found_error")),
        ("GET", MESSAGES, b"", (404, "not_found_error")),
        ("POST", MESSAGES, b"{", (400, "invalid_request_error")),
        ("POST", MESSAGES, b"[]", (400, "invalid_request_error")),
    ],
    ids=["path", "method", "json", "object"],
)
def test_what_is_no_request_is_refused(serve: Serve, method: str, path: str, content: bytes, expected: object) -> None:
    _, client = serve()
    assert refusal(client.request(method, path, content=content))[:2] == expected


def test_a_body_that_is_too_large_is_refused_by_name(serve: Serve) -> None:
    _, client = serve(max_body=100)
    reply = client.post(MESSAGES, content=b"x" * 101)
    error = {"type": "request_too_large", "message": "request body too large"}
    assert (reply.status_code, reply.json()) == (413, {"type": "error", "error": error})


def test_the_command_line_serves_until_it_is_told_to_stop() -> None:
    command = [sys.executable, "-m", "bifrost_core.testing.anthropic", "--seed", "7", "--key", "sk-cli"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url, key = process.stdout.readline().strip(), process.stdout.readline().strip()
            headers = {"x-api-key": "sk-cli", "anthropic-version": "2023-06-01"}
            reply = httpx.post(base_url + MESSAGES, json=HELLO, headers=headers)
            assert (key, reply.status_code, reply.json()["type"]) == ("key sk-cli", 200, "message")
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
        finally:
            process.kill()


def test_the_command_line_names_its_own_module(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "python -m bifrost_core.testing.anthropic" in capsys.readouterr().out
