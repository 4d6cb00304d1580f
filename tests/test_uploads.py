"""Files on a real wire: streamed, sent again by a retry, cut short by an early answer, given up by a cancellation."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import anyio
import attrs
import httpx
import msgspec
import pytest
import trustme

from bifrost_core import (
    BadRequestError,
    File,
    Mistral,
    ProviderConnectionError,
    ProviderServerError,
    Request,
    Router,
    SyncRouter,
    hookimpl,
)
from bifrost_core.bodies import Multipart, Part, source_of
from bifrost_core.engines import TransportError, make_engine
from bifrost_core.engines.base import Exchange, HttpEngine
from bifrost_core.kinds import Kind
from bifrost_core.wire import Network

SECRET = "sk-canary-uploads-0123456789"
MODEL = "mistral/voxtral-mini-latest"
SOUND = b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(range(256)) * 1200  # 307,216 bytes: more than one piece
AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("127.0.0.1")


def trusting() -> ssl.SSLContext:
    """What trusts the test's own authority and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    return context


ANSWER = msgspec.json.encode(
    {
        "model": "voxtral-mini-2602",
        "text": "Hello.",
        "language": None,
        "segments": [],
        "usage": {"prompt_audio_seconds": 2, "prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 132},
    }
)
BUSY = b'{"object":"error","message":"busy","type":"unreachable_backend","param":null,"code":"1100"}'


@attrs.define
class Got:
    """One request as it came over the wire."""

    head: bytes
    length: int
    size: int
    digest: bytes
    body: bytes  # its first mebibyte
    is_cut: bool

    @property
    def parts(self) -> bytes:
        """The body with its boundary, which is new each time, written as ``B``."""
        boundary = self.head.partition(b"boundary=")[2].partition(b"\r\n")[0]
        return self.body.replace(boundary, b"B")


class RawServer:
    """A server of bytes: reads whole requests and answers by a list; ``early`` answers after the head."""

    def __init__(self, *replies: tuple[int, bytes], early: bool = False, tls: bool = False) -> None:
        self.requests: list[Got] = []
        self.network = Network(verify=trusting())
        self.hold_at: int | None = None  # bytes of a body after which the rest is not read
        self.cut_at: int | None = None  # bytes of a body after which the connection is closed
        self.noticed = threading.Event()
        self.left = threading.Event()
        self._replies = list(replies) or [(200, ANSWER)]
        self._early = early
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            CERTIFICATE.configure_cert(self._context)
        self._socket = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if tls else "http"
        self.base_url = f"{scheme}://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.left.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread where it waits for a connection
        self._thread.join(10)
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with suppress(OSError), connection:
                connection.settimeout(10)
                if self._context is None:
                    self._serve(connection)
                else:
                    with self._context.wrap_socket(connection, server_side=True) as secured:
                        self._serve(secured)

    def _serve(self, connection: socket.socket) -> None:
        while True:
            data = b""
            while b"\r\n\r\n" not in data:
                more = connection.recv(4096)
                if not more:
                    return
                data += more
            head, _, rest = data.partition(b"\r\n\r\n")
            head = head.lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if self._early:
                self._answer(connection)
                self.requests.append(Got(head, length, len(rest), b"", rest, is_cut=True))
                self.left.wait(5)
                return
            got = self._read(connection, head, length, rest)
            self.requests.append(got)
            if got.is_cut:
                self.left.set()
                return
            self._answer(connection)

    def _read(self, connection: socket.socket, head: bytes, length: int, rest: bytes) -> Got:
        digest, size, kept = hashlib.sha256(rest), len(rest), rest
        while size < length:
            if self.hold_at is not None and size >= self.hold_at:
                self.noticed.set()
                self.left.wait(5)  # the client is waited for, with a full window
                self.hold_at = None
            piece = b"" if self.cut_at is not None and size >= self.cut_at else connection.recv(65536)
            if not piece:
                break
            digest.update(piece)
            size += len(piece)
            if len(kept) < 1 << 20:
                kept += piece
        return Got(head, length, size, digest.digest(), kept, is_cut=size < length)

    def _answer(self, connection: socket.socket) -> None:
        status, body = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)


def provider(server: RawServer) -> Mistral:
    return Mistral([SECRET], base_url=server.base_url, verify=trusting())


def form_of(content: Any) -> Multipart:
    return Multipart.of([Part("model", "m"), Part("file", source_of(content), "a.wav", "audio/wav")])


def exchange(server: RawServer, body: bytes | Multipart) -> Exchange:
    kind = b"application/json" if isinstance(body, bytes) else body.content_type.encode()
    return Exchange(
        "POST",
        f"{server.base_url}/v1/audio/transcriptions",
        [(b"content-type", kind)],
        body,
        server.network,
        connect=2.0,
        read=5.0,
    )


@pytest.fixture(params=["httpx", "aiohttp", "client"])
def engine(request: pytest.FixtureRequest, anyio_backend_name: str) -> Callable[[], HttpEngine]:
    """The Router's own engines, and a client of the user's."""
    if (request.param, anyio_backend_name) == ("aiohttp", "trio"):
        pytest.skip("aiohttp runs on asyncio alone")
    context = trusting()
    return lambda: make_engine(httpx.AsyncClient(verify=context) if request.param == "client" else request.param)


async def close(engine: HttpEngine) -> None:
    await engine.aclose()
    client = getattr(engine, "_client", None)
    if client is not None:
        await client.aclose()


# -- what is sent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", ["bytes", "path", "open file"])
async def test_a_file_arrives_whole_over_every_engine(
    engine: Callable[[], HttpEngine], kind: str, tls: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(SOUND)
    with RawServer(tls=tls) as server, path.open("rb") as opened:
        form = form_of({"bytes": SOUND, "path": path, "open file": opened}[kind])
        used = engine()
        answer = await used.open(exchange(server, form))
        assert answer.status == 200
        assert b"".join([data async for data in answer]) == ANSWER
        await answer.aclose()
        await close(used)
    (got,) = server.requests
    assert got.length == got.size == len(form)
    assert b"transfer-encoding" not in got.head
    assert SOUND in got.body


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_large_body_of_bytes_arrives_whole_on_a_new_connection(tls: bool) -> None:
    # TLS 1.3 sends session tickets after the handshake: they make the socket readable, and are no answer.
    with RawServer(tls=tls) as server:
        used = make_engine("httpx")
        for _ in range(2):
            answer = await used.open(exchange(server, b"x" * 5_000_000))
            assert b"".join([data async for data in answer]) == ANSWER
            await answer.aclose()
        await used.aclose()
    assert [(got.size, got.is_cut) for got in server.requests] == [(5_000_000, False)] * 2


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", ["bytes", "form"])
async def test_an_answer_before_the_end_of_the_body_is_read_and_the_rest_stays_unsent(kind: str, tls: bool) -> None:
    body: bytes | Multipart = bytes(30_000_000) if kind == "bytes" else form_of(bytes(30_000_000))
    with RawServer((413, b"{}"), early=True, tls=tls) as server:
        used = make_engine("httpx")
        answer = await used.open(exchange(server, body))
        assert answer.status == 413
        await answer.aclose()
        assert used.idle == 0  # type: ignore[attr-defined] # a connection with half a request is not kept
        server.left.set()
        await used.aclose()


async def test_a_large_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.truncate(32_000_000)
    with RawServer() as server:
        async with Router([provider(server)]) as router:
            await router.transcribe(MODEL, path)  # imports and connections are not what is measured
            tracemalloc.start()
            try:
                reply = await router.transcribe(MODEL, path)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert reply.text == "Hello."
    assert server.requests[1].size > 32_000_000
    assert peak < 6_000_000  # the server's own mebibyte among them


# -- again ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "path", "open file"])
async def test_a_retry_sends_the_same_bytes_again(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(b"skipped" * (kind == "open file") + SOUND)
    with RawServer((503, BUSY), (200, ANSWER)) as server, path.open("rb") as opened:
        opened.seek(7 * (kind == "open file"))
        async with Router([provider(server)]) as router:
            file: Any = {"bytes": SOUND, "path": path, "open file": opened}[kind]
            reply = await router.transcribe(MODEL, file, language="en")
    assert [attempt.outcome for attempt in reply.attempts] == ["failed", "ok"]
    first, second = server.requests
    assert first.parts == second.parts
    assert (first.digest, first.size) == (second.digest, second.size)
    assert first.parts.endswith(SOUND + b"\r\n--B--\r\n")
    name = b"audio.wav" if kind == "bytes" else b"speech.wav"
    assert b'name="file"; filename="' + name + b'"\r\nContent-Type: audio/wav\r\n\r\nRIFF' in first.parts


async def test_a_refused_upload_is_the_callers_affair_and_tried_once() -> None:
    with RawServer((413, b'{"message":"too large"}'), early=True) as server:
        async with Router([provider(server)]) as router:
            with pytest.raises(BadRequestError) as caught:
                await router.transcribe(MODEL, bytes(20_000_000))
            server.left.set()
    assert (caught.value.kind, len(caught.value.attempts)) == (Kind.REQUEST_TOO_LARGE, 1)


async def test_a_file_that_changes_under_way_is_told_and_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "live.wav"
    path.write_bytes(SOUND)

    class Shortens:
        @hookimpl
        def bifrost_reserve(self) -> None:
            os.truncate(path, 10)

    with RawServer() as server:
        async with Router([provider(server)], plugins=[Shortens()]) as router:
            with pytest.raises(
                BadRequestError, match="was not asked: a file can not be read: it has become shorter"
            ) as caught:
                await router.transcribe(MODEL, path)
    assert [attempt.kind for attempt in caught.value.attempts] == [Kind.INVALID_REQUEST]


async def test_the_bytes_of_a_file_bound_no_tokens_and_teach_nothing_about_them() -> None:
    seen: list[int | None] = []

    class Bounds:
        @hookimpl
        def bifrost_reserve(self, attempt: Any) -> None:
            seen.append(attempt.input_upper)

    with RawServer() as server:
        async with Router([provider(server)], plugins=[Bounds()]) as router:
            reply = await router.transcribe(MODEL, SOUND)
    assert seen == [None]
    assert reply.usage.input_tokens == 4
    call = provider(server).encode(Request("transcription", "m", {}, [File("file", "a.wav", SOUND)]))
    assert call.text_length == len(call.content) - len(SOUND) < 1000


async def test_a_body_over_the_cap_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    with path.open("wb") as file:
        file.truncate(512_000_001)
    with RawServer() as server:
        async with Router([provider(server)]) as router:
            with pytest.raises(BadRequestError, match="more than 512000000; pass the file by URL") as caught:
                await router.transcribe(MODEL, path)
    assert (caught.value.kind, caught.value.http_status) == (Kind.REQUEST_TOO_LARGE, 413)
    assert server.requests == []


# -- the end of it -------------------------------------------------------------------------------------------------


async def test_a_call_that_is_cancelled_while_it_sends_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.truncate(64_000_000)
    with RawServer() as server:
        server.hold_at = 1_000_000
        async with Router([provider(server)]) as router:
            async with anyio.create_task_group() as group:
                group.start_soon(router.transcribe, MODEL, path)
                await anyio.to_thread.run_sync(server.noticed.wait, 5)
                group.cancel_scope.cancel()
            server.left.set()
            assert router.health()[0].in_flight == 0
            server.left.clear()
            assert (await router.transcribe(MODEL, SOUND)).text == "Hello."
    assert [got.is_cut for got in server.requests] == [True, False]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_connection_that_breaks_while_it_sends_is_a_lost_connection(tls: bool) -> None:
    with RawServer(tls=tls) as server:
        server.cut_at = 500_000
        used = make_engine("httpx")
        with pytest.raises(TransportError) as caught:
            await used.open(exchange(server, form_of(bytes(20_000_000))))
        await used.aclose()
    assert (caught.value.kind, caught.value.sent, caught.value.received) == (Kind.CONNECTION_LOST, True, False)
    assert [got.is_cut for got in server.requests] == [True]


async def test_a_broken_upload_is_tried_again() -> None:
    with RawServer() as server:
        server.cut_at = 100_000
        async with Router([provider(server)]) as router:
            with pytest.raises(ProviderConnectionError) as caught:
                await router.transcribe(MODEL, bytes(20_000_000))
    assert len(caught.value.attempts) == len(server.requests) > 1


async def test_a_peer_that_takes_no_more_bytes_is_waited_for_no_longer_than_for_an_answer() -> None:
    with RawServer() as server:
        server.hold_at = 0
        used = make_engine("httpx")
        made = exchange(server, form_of(bytes(50_000_000)))
        made.read = 0.3
        with pytest.raises(TransportError, match=r"the peer took no byte for 0\.3 s") as caught:
            await used.open(made)
        await used.aclose()
    assert caught.value.kind is Kind.READ_TIMEOUT


def test_blocking_code_sends_an_open_file_from_where_it_stands() -> None:
    opened = io.BytesIO(b"skipped" + SOUND)
    opened.seek(7)
    with RawServer() as server, SyncRouter([provider(server)]) as router:
        assert router.transcribe(MODEL, opened).text == "Hello."
        assert server.requests[0].parts.endswith(SOUND + b"\r\n--B--\r\n")
        assert b'filename="audio.wav"' in server.requests[0].parts
        assert not opened.closed


async def test_a_user_client_tells_of_a_file_that_is_gone(engine: Callable[[], HttpEngine], tmp_path: Path) -> None:
    path = tmp_path / "gone.wav"
    path.write_bytes(SOUND)
    form = form_of(path)
    path.unlink()
    with RawServer() as server:
        used = engine()
        with pytest.raises(TransportError, match="a file can not be read: No such file or directory") as caught:
            await used.open(exchange(server, form))
        await close(used)
    assert caught.value.kind is Kind.INVALID_REQUEST


async def test_an_unusable_answer_to_an_upload_is_the_providers_fault() -> None:
    with RawServer((200, b"[]")) as server:
        async with Router([provider(server)]) as router:
            with pytest.raises(ProviderServerError):
                await router.transcribe(MODEL, SOUND)
