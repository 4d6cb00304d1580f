"""Anthropic behind a Router, over real HTTP: answers, streams, failures, money and what goes back in the next turn."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bifrost_plugins.guardrails import GuardrailPlugin, Literals

from bifrost_core import (
    Anthropic,
    Chunk,
    Key,
    Kind,
    Price,
    PriceBook,
    ProviderAuthError,
    RetryPolicy,
    Router,
    StreamBrokenError,
    Usage,
)
from bifrost_core.testing import Fault, Simulated, SimulatedKey

FIXTURES = Path(__file__).parent.parent / "fixtures" / "anthropic"
MODEL = "anthropic/claude-opus-4-8"
PRICES = PriceBook({MODEL: Price(input=5, output=25, cached_input="0.5", cache_write_input="6.25")})
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "EqQB"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}


def message(*blocks: Any, reason: str = "end_turn", **usage: int) -> bytes:
    counted = {"input_tokens": 10, "output_tokens": 4, **usage}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-8"}
    return json.dumps(
        {**head, "content": blocks, "stop_reason": reason, "stop_sequence": None, "usage": counted}
    ).encode()


def failure(type_: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": type_, "message": "no"}, "request_id": "req_1"}).encode()


HELLO = message({"type": "text", "text": "Hello"}, cache_creation_input_tokens=100, cache_read_input_tokens=40)


class Server:
    """Gives the answers that it is told, one after the other, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer()

            def do_POST(self) -> None:
                self.answer()

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.seen.append((self.path, headers, json.loads(body or b"null")))
                status, data = outer.answers.pop(0)
                self.send_response(status)
                is_stream = data.startswith((b"event", b": "))
                self.send_header("content-type", "text/event-stream" if is_stream else "application/json")
                self.send_header("content-length", str(len(data)))
                self.send_header("request-id", f"req_{len(outer.seen)}")
                self.send_header("anthropic-ratelimit-requests-limit", "50")
                self.send_header("anthropic-ratelimit-requests-remaining", "49")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # its name
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def router(server: Server, *more: Any, **options: Any) -> Router:
    keys = [Key(f"sk-ant-canary-{name * 10}", id=name) for name in "ab"]
    how = {"prices": PRICES, "retry": RetryPolicy(backoff=0.001), **options}
    return Router([Anthropic(keys, base_url=server.url), *more], **how)


async def test_a_call_is_answered_counted_and_charged(server: Server) -> None:
    server.answers = [(200, HELLO)]
    async with router(server) as asking:
        reply = await asking.chat(MODEL, "hi", max_tokens=50)
    assert (reply.text, reply.headers["request-id"]) == ("Hello", "req_1")
    assert reply.usage == Usage(input_tokens=150, output_tokens=4, cached_tokens=40, cache_write_tokens=100, requests=1)
    assert reply.cost == (10 * 5 + Decimal("0.5") * 40 + Decimal("6.25") * 100 + 25 * 4) / 10**6
    ((path, headers, body),) = server.seen
    assert (path, body["max_tokens"]) == ("/v1/messages", 50)
    assert headers["x-api-key"].startswith("sk-ant-canary-")
    assert (headers["anthropic-version"], "authorization" in headers) == ("2023-06-01", False)


async def test_what_a_call_may_cost_is_bounded_by_the_dearest_of_its_input_prices(server: Server) -> None:
    server.answers = [(200, HELLO)]
    async with router(server) as asking:
        found = asking.estimate(MODEL, "x" * 400, max_tokens=50)
        reply = await asking.chat(MODEL, "x" * 400, max_tokens=50)
    assert found.input_upper is not None
    assert found.greatest == (Decimal("6.25") * found.input_upper + 25 * 50) / 10**6
    assert reply.cost is not None
    assert reply.cost <= found.greatest


async def test_what_servers_bring_does_not_take_the_place_of_the_text(server: Server) -> None:
    async with router(server) as asking:
        alone = asking.estimate(MODEL, "x" * 400, max_tokens=5).input_tokens
        assert alone > 100
        assert abs(asking.estimate(MODEL, "x" * 400, max_tokens=5, container="c").input_tokens - alone) < 10


@pytest.mark.parametrize("body", [{"mcp_servers": [{"url": "https://example.org"}]}, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, {"container": "c"}], ids=["mcp", "search", "container"])  # fmt: skip
async def test_what_servers_bring_by_themselves_has_no_bound(server: Server, body: dict[str, Any]) -> None:
    async with router(server) as asking:
        assert asking.estimate(MODEL, "hi", max_tokens=5, **body).input_upper is None


async def test_thoughts_and_calls_go_back_in_the_next_turn_as_they_came(server: Server) -> None:
    server.answers = [(200, message(THOUGHT, CALL, reason="tool_use")), (200, HELLO)]
    asked: list[Any] = [{"role": "user", "content": "weather?"}]
    async with router(server) as asking:
        reply = await asking.chat(MODEL, asked)
        (call,) = reply.tool_calls
        asked += [reply.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
        await asking.chat(MODEL, asked)
    assert server.seen[1][2]["messages"] == [
        asked[0],
        {"role": "assistant", "content": [THOUGHT, CALL]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}]},
    ]


async def test_a_stream_is_told_chunk_by_chunk(server: Server) -> None:
    server.answers = [(200, (FIXTURES / "stream_tools.sse").read_bytes())]
    async with router(server) as asking, asking.stream(MODEL, "weather?") as stream:
        chunks = [chunk async for chunk in stream]
    assert [call.name for chunk in chunks for call in chunk.tool_calls] == ["weather", "clock"]
    assert stream.response is not None
    assert (stream.response.text, stream.response.reasoning) == ("I look.", "Two cities, two calls.")
    assert stream.response.raw["content"][0]["signature"] == "EqQBCgIYAhIk"
    assert stream.response.cost == Decimal(20 * 5 + 89 * 25) / 10**6
    assert server.seen[0][1]["accept"] == "text/event-stream"


async def test_responses_are_served_through_messages(server: Server) -> None:
    stream_bytes = (FIXTURES / "stream_tools.sse").read_bytes()
    server.answers = [
        (200, message(THOUGHT, {"type": "text", "text": "Hello"}, CALL, reason="tool_use")),
        (200, stream_bytes),
    ]
    async with router(server) as asking:
        reply = await asking.responses(MODEL, "hi", instructions="Be brief.")
        async with asking.stream_responses(MODEL, "hi") as stream:
            events = [chunk.raw async for chunk in stream]
    assert (reply.output_text, reply.reasoning, [call.name for call in reply.tool_calls]) == (
        "Hello",
        "Hm.",
        ["weather"],
    )
    assert server.seen[0][2]["system"] == "Be brief."
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    assert {event["response"]["id"] for event in events if "response" in event} == {"resp_msg_01Tool"}
    assert events[0]["response"]["model"] == "claude-opus-4-8"
    told = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert told == "I look."


async def test_a_model_that_is_overloaded_is_not_the_keys_fault(server: Server) -> None:
    server.answers = [(529, failure("overloaded_error")), (200, HELLO)]
    async with router(server) as asking:
        reply = await asking.chat(MODEL, "hi")
    assert [(attempt.kind, attempt.status) for attempt in reply.attempts] == [(Kind.MODEL_OVERLOADED, 529), (None, 200)]


async def test_a_key_that_is_refused_is_not_asked_again(server: Server) -> None:
    server.answers = [(401, failure("authentication_error")), (200, HELLO), (200, HELLO)]
    async with router(server) as asking:
        first, second = await asking.chat(MODEL, "hi"), await asking.chat(MODEL, "hi")
    refused, used = (attempt.route.key_id for attempt in first.attempts)
    assert refused != used
    assert second.route.key_id == used


async def test_an_account_without_credit_is_left_for_another(server: Server) -> None:
    poor = json.dumps(
        {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low."}}
    )
    server.answers = [(400, poor.encode()), (400, poor.encode())]
    async with router(server) as asking:
        with pytest.raises(ProviderAuthError) as caught:
            await asking.chat(MODEL, "hi")
    assert (caught.value.kind, len(caught.value.attempts)) == (Kind.PAYMENT, 2)


async def test_another_provider_falls_back_to_it_and_it_to_another(server: Server) -> None:
    failing = Simulated([SimulatedKey("sk-simulated-1", faults=Fault("status", status=503))], name="mistral")
    server.answers = [(200, HELLO), (529, failure("overloaded_error")), (529, failure("overloaded_error"))]
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    async with router(server, failing, Simulated(["sk-simulated-2"], name="other")) as asking:
        first = await asking.chat("mistral/small", asked, fallbacks=[MODEL])
        second = await asking.chat(MODEL, asked, fallbacks=["other/small"])
    assert (first.route.provider, second.route.provider) == ("anthropic", "other")


async def test_a_stream_that_breaks_is_charged_for_what_was_heard(server: Server) -> None:
    whole = (FIXTURES / "stream_text.sse").read_bytes()
    long = whole.replace("京 🌈".encode(), b"word " * 400)
    server.answers = [(200, long[: long.index(b"event: content_block_stop")])]
    async with router(server) as asking:
        with pytest.raises(StreamBrokenError) as caught:
            async with asking.stream(MODEL, "hi") as stream:
                async for _ in stream:
                    pass
    (attempt,) = caught.value.attempts
    assert attempt.usage is not None
    assert (attempt.usage.input_tokens, attempt.usage.cached_tokens, attempt.usage.cache_write_tokens) == (16, 3, 4)
    assert attempt.usage.output_tokens > 100


async def test_models_are_listed(server: Server) -> None:
    server.answers = [
        (200, b'{"data":[{"type":"model","id":"claude-opus-4-8","max_input_tokens":1000000}],"has_more":false}')
    ]
    async with router(server) as asking:
        (model,) = await asking.models("anthropic")
    assert (model.id, model.context_length, server.seen[0][0]) == (MODEL, 1_000_000, "/v1/models?limit=1000")


async def test_an_answer_goes_on_after_a_break_where_the_model_takes_a_begun_one(server: Server) -> None:
    whole = (FIXTURES / "stream_text.sse").read_bytes()
    rest = whole.replace("Grüße, 東".encode(), b"").replace("京 🌈".encode(), "京".encode())
    server.answers = [(200, whole[: whole.index("京 🌈".encode())]), (200, rest)]
    async with router(server) as asking, asking.stream("anthropic/claude-haiku-4-5", "hi", resume=True) as stream:
        said = "".join([text async for text in stream.text()])
    assert said == "Grüße, 東京!"
    assert server.seen[1][2]["messages"][-1] == {"role": "assistant", "content": "Grüße, 東"}
    assert stream.response is not None
    assert stream.response.resumed


def shown(chunks: list[Chunk]) -> str:
    return json.dumps(
        [[chunk.raw, chunk.text, chunk.reasoning, [call.arguments for call in chunk.tool_calls]] for chunk in chunks]
    )


async def test_what_a_guardrail_takes_out_is_in_no_event_of_the_stream(server: Server) -> None:
    server.answers = [
        (200, (FIXTURES / "stream_tools.sse").read_bytes()),
        (200, (FIXTURES / "stream_server_tools.sse").read_bytes()),
    ]
    plugin = GuardrailPlugin(
        rules=[Literals(["Oslo", "two calls", "I look", "Bergen", "weather bergen"], side="output", action="redact")]
    )
    async with router(server, plugins=[plugin]) as asking:
        for _ in range(2):
            async with asking.stream(MODEL, "weather?") as stream:
                chunks = [chunk async for chunk in stream]
            assert stream.response is not None
            seen = shown(chunks) + json.dumps(
                [stream.response.raw, stream.response.message, stream.response.to_openai()]
            )
            for word in ("Oslo", "two calls", "I look", "Bergen", "bergen"):
                assert word not in seen, word
