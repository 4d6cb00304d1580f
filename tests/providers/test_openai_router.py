"""OpenAI through a Router over a real socket: plain, streamed, forms and sound; failing over, also between providers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bifrost_core import (
    Key,
    Mistral,
    ModelNotFoundError,
    OpenAI,
    OpenAICompatible,
    ProviderRateLimitError,
    Request,
    ResponsesResponse,
    RetryPolicy,
    Router,
    SpeechResponse,
    StreamBrokenError,
)
from bifrost_core.testing import Fault, SimulatedKey, SimulatedMistral

FIXTURES = Path(__file__).parent.parent / "fixtures" / "openai"
GOOD, SPENT = "sk-openai-good-0123456789", "sk-openai-spent-0123456789"
MISTRAL_KEY = "sk-simulated-mistral-1"


def body_of(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))["body"]


def sse_of(name: str) -> bytes:
    return (FIXTURES / f"{name}.sse").read_bytes()


class Handler(BaseHTTPRequestHandler):
    """Answers from the fixtures; a stream goes out in small pieces."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        served: Served = self.server  # type: ignore[assignment] # made below
        served.seen.append((self.path, dict(self.headers.items()), body))
        if self.headers.get("authorization") == f"Bearer {SPENT}":
            error = {"message": "slow down", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
            self._send(429, json.dumps({"error": error}).encode(), {"retry-after": "30"})
            return
        asked = json.loads(body) if body.startswith(b"{") else {}
        if asked.get("model") == "missing":
            error = {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}
            self._send(404, json.dumps({"error": error}).encode())
        elif self.path == "/v1/audio/speech":
            self._send(200, b"ID3sound", {"content-type": "audio/mpeg"})
        elif self.path == "/v1/audio/transcriptions":
            self._send(200, b'{"text":"Hi.","usage":{"type":"duration","seconds":2}}')
        elif self.path == "/v1/responses":
            self._answer(asked, "responses", "responses_stream")
        else:
            self._answer(asked, "chat", "stream_tools" if asked.get("tools") else "stream_text")

    def _answer(self, asked: dict[str, Any], plain: str, streamed: str) -> None:
        if not asked.get("stream"):
            limits = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59"}
            self._send(200, json.dumps(body_of(plain)).encode(), limits)
            return
        stream = sse_of(streamed)
        if asked.get("model") == "cut":
            stream = stream[: stream.index(b'"finish_reason":"')]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for at in range(0, len(stream), 97):
            piece = stream[at : at + 97]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # as the base has it
        """Say nothing."""


class Served(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Served]:
    with Served() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def router(server: Served, *keys: Key | str, **options: Any) -> Router:
    return Router([OpenAI(keys or [GOOD], base_url=server.base_url)], **options)


async def test_a_plain_call(server: Served) -> None:
    async with router(server) as asking:
        reply = await asking.chat("openai/gpt-4o", "hi", max_tokens=9)
    assert reply.text == "Bifröst burns between the worlds."
    assert reply.raw == body_of("chat")
    assert str(reply.cost) == "0.0019725"  # 29 and 64 written at 2.5, 1024 cached at 1.25, 46 out at 10, by the million
    ((path, headers, body),) = server.seen
    assert (path, headers["authorization"]) == ("/v1/chat/completions", f"Bearer {GOOD}")
    assert json.loads(body) == {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}


async def test_a_streamed_call_and_its_cost(server: Served) -> None:
    async with (
        router(server) as asking,
        asking.stream("openai/gpt-4o", "hi", tools=[{"type": "function", "function": {"name": "weather"}}]) as stream,
    ):
        chunks = [chunk async for chunk in stream]
        assert [call.name for call in stream.response.tool_calls] == ["weather", "clock"]
        assert str(stream.response.cost) == "0.0019725"
    assert chunks[-1].usage is not None
    assert json.loads(server.seen[0][2])["stream_options"] == {"include_usage": True}


async def test_responses_plain_and_streamed(server: Served) -> None:
    async with router(server) as asking:
        whole = await asking.responses("openai/gpt-5.1", "hi")
        async with asking.stream_responses("openai/gpt-5.1", "hi") as stream:
            chunks = [chunk async for chunk in stream]
            told = stream.response
    assert isinstance(told, ResponsesResponse)
    assert whole.to_openai() == told.to_openai() == chunks[-1].raw["response"] == body_of("responses")
    assert [path for path, _, _ in server.seen] == ["/v1/responses"] * 2


async def test_a_form_and_a_sound(server: Served) -> None:
    async with router(server) as asking:
        heard = await asking.transcribe("openai/whisper-1", b"RIFFxxxxWAVEfmt ")
        said = await asking.send(Request("speech", "openai/tts-1", {"input": "Hi.", "voice": "alloy"}))
    assert (heard.text, str(heard.cost)) == ("Hi.", "0.0002")
    assert isinstance(said, SpeechResponse)
    assert (said.audio, str(said.cost)) == (b"ID3sound", "0.000045")
    assert b'name="file"; filename="audio.wav"' in server.seen[0][2]


async def test_a_limited_key_gives_way_to_the_next_and_rests(server: Served) -> None:
    keys = [Key(SPENT, id="spent", quota_group="a"), Key(GOOD, id="good", quota_group="b", weight=0)]
    async with router(server, *keys) as asking:
        first = await asking.chat("openai/gpt-4o", "hi")
        second = await asking.chat("openai/gpt-4o", "hi")
        health = {each.route.key_id: (each.state, each.reason) for each in asking.health()}
    assert [attempt.route.key_id for attempt in first.attempts] == ["spent", "good"]
    assert [attempt.route.key_id for attempt in second.attempts] == ["good"]
    assert health["spent"] == ("open", "rate_limited")


async def test_when_every_key_is_limited_the_caller_hears_of_it(server: Served) -> None:
    async with router(server, SPENT, retry=RetryPolicy(max_attempts=1, max_wait=0)) as asking:
        with pytest.raises(ProviderRateLimitError) as caught:
            await asking.chat("openai/gpt-4o", "hi")
    assert caught.value.retry_after == pytest.approx(30, abs=1)


async def test_a_model_that_is_not_there(server: Served) -> None:
    async with router(server) as asking:
        with pytest.raises(ModelNotFoundError):
            await asking.chat("openai/missing", "hi")


async def test_a_stream_that_is_cut_is_told_with_what_came(server: Served) -> None:
    async with router(server) as asking:
        with pytest.raises(StreamBrokenError) as caught:
            async with asking.stream("openai/cut", "hi") as stream:
                async for _ in stream:
                    pass
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Three colours: röd"


async def test_a_local_server_needs_no_key(server: Served) -> None:
    local = OpenAICompatible("local", base_url=server.base_url)
    async with Router([local]) as asking:
        reply = await asking.chat("local/any", "hi")
        async with asking.stream_responses("local/any", "hi") as stream:
            events = [chunk.raw["type"] async for chunk in stream]
    assert (reply.route.key_id, reply.cost) == ("anonymous", None)
    assert (events[0], events[-1]) == ("response.created", "response.completed")
    assert all("authorization" not in headers for _, headers, _ in server.seen)
    assert [path for path, _, _ in server.seen] == ["/v1/chat/completions"] * 2


@pytest.mark.parametrize("is_streamed", [False, True], ids=["plain", "streamed"])
async def test_a_call_to_mistral_falls_back_to_openai_in_its_own_words(server: Served, is_streamed: bool) -> None:
    with SimulatedMistral([SimulatedKey(MISTRAL_KEY, id="m", faults=[Fault("status", status=503)])]) as mistral:
        providers = [Mistral([MISTRAL_KEY], base_url=mistral.base_url), OpenAI([GOOD], base_url=server.base_url)]
        model = "mistral/mistral-small-latest"
        params: dict[str, Any] = {"random_seed": 7, "max_tokens": 5, "fallbacks": ["openai/o3"]}
        async with Router(providers, retry=RetryPolicy(backoff=0.01, max_attempts_per_deployment=1)) as asking:
            if is_streamed:
                async with asking.stream(model, "hi", **params) as stream:
                    assert [piece async for piece in stream.text()]
                    reply = stream.response
            else:
                reply = await asking.chat(model, "hi", **params)
    assert [attempt.route.provider for attempt in reply.attempts] == ["mistral", "openai"]
    members = json.loads(server.seen[0][2])
    assert (members["seed"], members["max_completion_tokens"]) == (7, 5)
