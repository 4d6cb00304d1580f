"""Transcription and OCR through the Router, in every form in which a file is given, on the simulated service."""

from __future__ import annotations

import base64
import io
import wave
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx
import msgspec
import pytest

from bifrost_core import (
    BadRequestError,
    CallError,
    Chunk,
    ConfigError,
    GuardrailError,
    Kind,
    Mistral,
    Router,
    Segment,
    StreamBrokenError,
    SyncRouter,
    Transcription,
    Usage,
    hookimpl,
)
from bifrost_core.file_requests import Document, Sound
from bifrost_core.media import HEAD, is_image, media_type_of, named_type
from bifrost_core.testing import Fault, Simulated, SimulatedKey, SimulatedMistral

SECRET = "sk-simulated-media-1"
VOXTRAL = "mistral/voxtral-mini-latest"
OCR = "mistral/mistral-ocr-latest"
UUID = "01890a5d-ac96-774b-bcce-b302099a8057"
WORDS = "The bridge burns, and Heimdall blows his horn."


def sound(seconds: int = 2) -> bytes:
    """Silence as a WAVE file of 8 kHz."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16_000 * seconds))
    return made.getvalue()


PDF = b"%PDF-1.4\n1 0 obj <</Type /Page>> endobj\n2 0 obj <</Type /Page>> endobj\n%%EOF"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def archive(member: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr(member, "<document/>")
    return made.getvalue()


@attrs.define
class Service:
    """A server on loopback, and the forms that it has heard."""

    server: SimulatedMistral
    heard: list[Mapping[str, Any]]

    def provider(self) -> Mistral:
        return Mistral([SECRET], base_url=self.server.base_url)

    def upload(self, content: bytes, name: str) -> str:
        """The id of a file that was uploaded before."""
        answer = httpx.post(
            f"{self.server.base_url}/v1/files",
            headers={"authorization": f"Bearer {SECRET}"},
            files={"file": (name, content)},
            data={"purpose": "ocr"},
        )
        file_id: str = answer.json()["id"]
        return file_id

    def documents(self) -> list[Any]:
        return [
            msgspec.json.decode(request.body or b"{}").get("document")
            for request in self.server.requests
            if request.path == "/v1/ocr"
        ]


@pytest.fixture
def service() -> Iterable[Service]:
    heard: list[Mapping[str, Any]] = []

    def transcript(form: Mapping[str, Any]) -> str:
        heard.append(form)
        return WORDS

    keys = [SimulatedKey(SECRET, id="a")]
    with SimulatedMistral(keys, keep_bodies=True, transcript=transcript) as server:
        yield Service(server, heard)


# -- transcription -------------------------------------------------------------------------------------------------


def as_bytes(path: Path) -> Sound:
    return path.read_bytes()


def as_bytearray(path: Path) -> Sound:
    return bytearray(path.read_bytes())


def as_path(path: Path) -> Sound:
    return path


def as_text(path: Path) -> Sound:
    return str(path)


def as_open_file(path: Path) -> Sound:
    return io.BytesIO(path.read_bytes())


FORMS = [as_bytes, as_bytearray, as_path, as_text, as_open_file]


@pytest.mark.parametrize("form", FORMS)
async def test_a_recording_is_written_down(service: Service, form: Callable[[Path], Sound], tmp_path: Path) -> None:
    path = tmp_path / "Horn „1“.wav"
    path.write_bytes(sound())
    async with Router([service.provider()]) as router:
        reply = await router.transcribe(VOXTRAL, form(path), language="en", context_bias=["Heimdall"])
    assert isinstance(reply, Transcription)
    assert (reply.text, reply.language, reply.segments) == (WORDS, None, ())
    assert reply.usage == Usage(
        input_tokens=reply.raw["usage"]["prompt_tokens"],
        output_tokens=reply.raw["usage"]["completion_tokens"],
        audio_seconds=2.0,
        requests=1,
    )
    (heard,) = service.heard
    assert heard["file"].data == sound()
    assert heard["file"].filename == ("Horn „1“.wav" if form in (as_path, as_text) else "audio.wav")
    assert heard["file"].content_type == "audio/wav"
    assert {name: heard[name] for name in heard if name != "file"} == {
        "model": "voxtral-mini-latest",
        "language": "en",
        "context_bias": ["Heimdall"],
    }


async def test_an_open_file_keeps_its_name(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "horn.mp3"
    path.write_bytes(b"\x00\x01 no sound that anybody knows")
    with path.open("rb") as opened:
        async with Router([service.provider()]) as router:
            await router.transcribe(VOXTRAL, opened)
    assert (service.heard[0]["file"].filename, service.heard[0]["file"].content_type) == ("horn.mp3", "audio/mpeg")


async def test_a_recording_elsewhere_is_named(service: Service) -> None:
    file_id = service.upload(sound(3), "horn.wav")
    async with Router([service.provider()]) as router:
        by_url = await router.transcribe(VOXTRAL, "HTTPS://example.com/horn.mp3?a=1")
        by_id = await router.transcribe(VOXTRAL, file_id)
    assert [heard.get("file_url") for heard in service.heard] == ["HTTPS://example.com/horn.mp3?a=1", None]
    assert [heard.get("file_id") for heard in service.heard] == [None, file_id]
    assert (by_url.usage.audio_seconds, by_id.usage.audio_seconds) == (10.0, 3.0)


@pytest.mark.parametrize("many", [1, 40], ids=["short", "long"])
async def test_a_stream_brings_the_text_in_pieces_and_the_same_answer(service: Service, many: int) -> None:
    async with Router([service.provider()]) as router:
        whole = await router.transcribe(VOXTRAL, sound(many), timestamp_granularities=["segment"], diarize=True)
        async with router.stream_transcribe(
            VOXTRAL, sound(many), timestamp_granularities=["segment"], diarize=True
        ) as stream:
            chunks = [chunk async for chunk in stream]
    assert "".join(chunk.text for chunk in chunks) == WORDS
    assert len([chunk for chunk in chunks if chunk.text]) > 1
    kinds = [chunk.raw["type"] for chunk in chunks]
    assert (kinds[0], kinds[-1]) == ("transcription.language", "transcription.done")
    assert kinds.count("transcription.segment") == len(whole.segments) >= 1
    told = stream.response
    assert (told.text, told.segments, told.usage, told.raw) == (whole.text, whole.segments, whole.usage, whole.raw)
    assert isinstance(whole.segments[0], Segment)
    assert whole.segments[0].speaker == "speaker_1"
    assert told.time_to_first_token is not None


def test_blocking_code_transcribes_and_reads(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(PNG)
    with SyncRouter([service.provider()]) as router:
        assert router.transcribe(VOXTRAL, sound()).text == WORDS
        with router.stream_transcribe(VOXTRAL, sound()) as stream:
            assert "".join(stream.text()) == WORDS
        assert stream.response.usage.audio_seconds == 2.0
        assert router.ocr(OCR, path).usage.pages == 1


async def test_without_a_network_it_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "horn.wav"
    path.write_bytes(sound())
    provider = Simulated([SimulatedKey("one")], name="mistral", transcript=lambda _: WORDS)
    async with Router([provider]) as router:
        assert (await router.transcribe(VOXTRAL, path)).text == WORDS
        async with router.stream_transcribe(VOXTRAL, path) as stream:
            assert [piece async for piece in stream.text()]
        assert stream.response.text == WORDS
        assert (await router.ocr(OCR, PDF)).usage.pages == 2


async def test_a_retry_hears_the_same_recording(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "horn.wav"
    path.write_bytes(sound(5))
    service.server.fail("a", Fault("status", status=503, last=1))
    async with Router([service.provider()]) as router:
        reply = await router.transcribe(VOXTRAL, path)
    assert [attempt.status for attempt in reply.attempts] == [503, 200]
    assert reply.usage.audio_seconds == 5.0
    assert service.heard[-1]["file"].data == sound(5)


async def test_a_stream_that_is_cut_has_no_partial_answer(service: Service) -> None:
    service.server.fail("a", Fault("truncate", after=2))
    async with Router([service.provider()]) as router:
        async with router.stream_transcribe(VOXTRAL, sound(40)) as stream:
            with pytest.raises(StreamBrokenError) as caught:
                async for _ in stream:
                    continue
    assert (caught.value.kind, caught.value.partial) == (Kind.STREAM_TRUNCATED, None)


async def test_a_combination_that_mistral_refuses_is_the_providers_word(service: Service) -> None:
    async with Router([service.provider()]) as router:
        with pytest.raises(BadRequestError, match="cannot be combined") as caught:
            await router.transcribe(VOXTRAL, sound(), language="en", timestamp_granularities=["segment"])
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "file", ["no file", "", "a\0b", "x" * 5000, "ftp://example.com/a.wav", UUID[:-1]], ids=range(6)
)
async def test_a_string_that_is_nothing_says_what_it_could_be(file: str) -> None:
    async with Router([Mistral([SECRET])]) as router:
        with pytest.raises(ConfigError, match="file is a string, but no http") as caught:
            await router.transcribe(VOXTRAL, file)
        with pytest.raises(ConfigError, match="document is a string, but no http"):
            await router.ocr(OCR, file)
    assert caught.value.field == "file"


async def test_what_is_no_file_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    empty.touch()
    odd: Any = 7
    async with Router([Mistral([SECRET])]) as router:
        for file, problem in ((empty, "file is empty"), (b"", "file is empty"), (odd, "file: a file is int")):
            with pytest.raises(ConfigError, match=problem):
                await router.transcribe(VOXTRAL, file)
            with pytest.raises(ConfigError, match=problem.replace("file", "document", 1)):
                await router.ocr(OCR, file)
        with pytest.raises(ConfigError, match="stream is no parameter"):
            await router.transcribe(VOXTRAL, b"x", stream=True)


async def test_a_file_that_fails_to_be_read_is_told() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if size:
                raise OSError(5, "Input/output error")
            return b""

    async with Router([Mistral([SECRET])]) as router:
        with pytest.raises(ConfigError, match="the file can not be read: Input/output error") as caught:
            await router.transcribe(VOXTRAL, Broken(b"x"))
        assert caught.value.__context__ is None
        with pytest.raises(ConfigError, match="the document can not be read: OSError"):
            await router.ocr(OCR, Broken(b"x"))


# -- what hooks see and change -------------------------------------------------------------------------------------


class Redacts:
    """Takes a name out of streams, however it is cut."""

    @hookimpl
    def bifrost_stream_filter(self) -> Redacts:
        self.held = ""
        return self

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        self.held += chunk.text
        return [chunk.with_text("")] if chunk.text else [chunk]

    def finish(self) -> Iterable[Chunk]:
        return [Chunk(text=self.held.replace("Heimdall", "[removed]"))]


async def test_what_a_filter_removed_is_nowhere_behind_it(service: Service) -> None:
    async with Router([service.provider()], plugins=[Redacts()]) as router:
        async with router.stream_transcribe(VOXTRAL, sound(40), timestamp_granularities=["segment"]) as stream:
            chunks = [chunk async for chunk in stream]
        response = stream.response
    assert "".join(chunk.text for chunk in chunks) == WORDS.replace("Heimdall", "[removed]")
    assert response.text == WORDS.replace("Heimdall", "[removed]")
    assert (response.segments, response.usage.audio_seconds) == ((), 40.0)
    assert b"Heimdall" not in msgspec.json.encode([chunk.raw for chunk in chunks])
    assert b"Heimdall" not in msgspec.json.encode(response.raw)
    assert chunks[0].raw["type"] == "transcription.language"


async def test_a_filter_that_changes_nothing_leaves_the_answer_whole(service: Service) -> None:
    class Looks:
        @hookimpl
        def bifrost_stream_filter(self) -> Looks:
            return self

        def feed(self, chunk: Chunk) -> Iterable[Chunk]:
            return [chunk]

        def finish(self) -> Iterable[Chunk]:
            return []

    async with Router([service.provider()], plugins=[Looks()]) as router:
        async with router.stream_transcribe(VOXTRAL, sound(), timestamp_granularities=["segment"]) as stream:
            text = "".join([piece async for piece in stream.text()])
    assert text == stream.response.text == stream.response.raw["text"] == WORDS
    assert stream.response.segments


async def test_a_guardrail_that_blocks_a_transcription_holds_it_back(service: Service) -> None:
    class Blocks:
        @hookimpl
        def bifrost_guard_response(self, response: Transcription) -> None:
            raise GuardrailError(f"{len(response.text)} characters of it", rule="words", side="output")

    async with Router([service.provider()], plugins=[Blocks()]) as router:
        with pytest.raises(GuardrailError):
            async with router.stream_transcribe(VOXTRAL, sound()):
                pytest.fail("nothing of it is handed out")


async def test_a_cached_transcription_is_streamed(service: Service) -> None:
    class Remembers:
        @hookimpl
        def bifrost_cached_response(self) -> Transcription:
            return Transcription(model="voxtral-mini-latest", text=WORDS, usage=Usage(audio_seconds=2.0))

    async with Router([service.provider()], plugins=[Remembers()]) as router:
        async with router.stream_transcribe(VOXTRAL, sound()) as stream:
            chunks = [chunk async for chunk in stream]
    assert [(chunk.text, chunk.raw["type"]) for chunk in chunks] == [
        (WORDS, "transcription.text.delta"),
        ("", "transcription.done"),
    ]
    assert (stream.response.text, stream.response.cached) == (WORDS, True)
    assert service.heard == []


# -- OCR -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
async def test_a_document_is_read(service: Service, form: Callable[[Path], Document], tmp_path: Path) -> None:
    path = tmp_path / "saga.pdf"
    path.write_bytes(PDF)
    async with Router([service.provider()]) as router:
        reply = await router.ocr(OCR, form(path), table_format="html", include_blocks=False)
    assert [page.index for page in reply.pages] == [0, 1]
    assert reply.text == "\n\n".join(page.markdown for page in reply.pages)
    assert reply.pages[0].dimensions
    assert (reply.usage, reply.annotation) == (Usage(pages=2, requests=1), None)
    url = "data:application/pdf;base64," + base64.b64encode(PDF).decode()
    named = {"document_name": "saga.pdf"} if form in (as_path, as_text) else {}
    assert service.documents() == [{"type": "document_url", "document_url": url, **named}]


@pytest.mark.parametrize(
    ("document", "sent"),
    [
        pytest.param(
            "https://example.com/a.pdf",
            {"type": "document_url", "document_url": "https://example.com/a.pdf"},
            id="a document's URL",
        ),
        pytest.param(
            "https://example.com/b.JPG?size=1#top",
            {"type": "image_url", "image_url": "https://example.com/b.JPG?size=1#top"},
            id="an image's URL",
        ),
        pytest.param(
            "https://example.com/png",
            {"type": "document_url", "document_url": "https://example.com/png"},
            id="no ending",
        ),
        pytest.param(
            "data:image/png;base64,iVBORw0KGgo=",
            {"type": "image_url", "image_url": "data:image/png;base64,iVBORw0KGgo="},
            id="an image's data",
        ),
        pytest.param(
            {"type": "image_url", "image_url": "https://example.com/scan"},
            {"type": "image_url", "image_url": "https://example.com/scan"},
            id="the API's own",
        ),
        pytest.param(
            PNG,
            {"type": "image_url", "image_url": "data:image/png;base64," + base64.b64encode(PNG).decode()},
            id="an image's bytes",
        ),
    ],
)
async def test_a_document_is_told_by_what_it_is(service: Service, document: Document, sent: Any) -> None:
    async with Router([service.provider()]) as router:
        assert (await router.ocr(OCR, document)).text
    assert service.documents() == [sent]


async def test_a_document_that_was_uploaded_is_named(service: Service) -> None:
    file_id = service.upload(PDF, "saga.pdf")
    async with Router([service.provider()]) as router:
        assert (await router.ocr(OCR, file_id, pages="1")).usage.pages == 1
    assert service.documents() == [{"type": "file", "file_id": file_id}]


@attrs.frozen
class Summary:
    title: str
    pages: int


async def test_an_annotation_comes_as_an_instance(service: Service) -> None:
    async with Router([service.provider()]) as router:
        typed = await router.ocr(OCR, PDF, document_annotation_format=Summary, document_annotation_prompt="Short.")
        sent = msgspec.json.decode(service.server.requests[0].body or b"")["document_annotation_format"]
        plain = await router.ocr(OCR, PDF, document_annotation_format=sent)
    assert isinstance(typed.annotation, Summary)
    assert plain.annotation == attrs.asdict(typed.annotation)


async def test_a_document_over_the_cap_names_its_size_and_a_way(tmp_path: Path) -> None:
    path = tmp_path / "huge.pdf"
    with path.open("wb") as file:
        file.truncate(15_000_000)
    async with Router([Mistral([SECRET])]) as router:
        with pytest.raises(
            BadRequestError, match=r"has 15000000 bytes, more than the 14803392 .* pass its URL"
        ) as caught:
            await router.ocr(OCR, path)
    assert isinstance(caught.value, CallError)
    assert (caught.value.kind, caught.value.http_status) == (Kind.REQUEST_TOO_LARGE, 413)


async def test_the_largest_document_that_is_taken_fits(service: Service) -> None:
    async with Router([service.provider()]) as router:
        reply = await router.ocr(OCR, PDF + bytes(14_803_392 - len(PDF)))
    assert reply.usage.pages == 2


async def test_a_document_of_an_unknown_type_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "horn.wav"
    path.write_bytes(sound())
    async with Router([Mistral([SECRET])]) as router:
        for document in (b"just words", path):
            with pytest.raises(ConfigError, match="is neither PDF, DOCX, PPTX nor an image") as caught:
                await router.ocr(OCR, document)
            assert caught.value.field == "document"


# -- what files are ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (sound(), "audio/wav"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90\x00", "audio/mpeg"),
        (b"\xff\xf1\x50\x80", None),  # AAC in its own frames: layer 0
        (b"fLaC", "audio/flac"),
        (b"OggS", "audio/ogg"),
        (b"\x00\x00\x00\x20ftypM4A \x00", "audio/mp4"),
        (b"\x1aE\xdf\xa3", "audio/webm"),
        (PDF, "application/pdf"),
        (b"junk\n" * 200 + PDF, "application/pdf"),
        (b"junk\n" * 210 + PDF, None),
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"II*\x00", "image/tiff"),
        (b"MM\x00*", "image/tiff"),
        (b"\x00\x00\x00\x20ftypavif", "image/avif"),
        (b"\x00\x00\x00\x20ftypheic", "image/heic"),
        (b"\x00\x00\x00\x20ftypmif1", "image/heif"),
        (archive("word/document.xml"), "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (
            archive("ppt/presentation.xml"),
            "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ),
        (archive("other.xml"), None),
        (b"RIFF\x00\x00\x00\x00AVI ", None),
        (b"", None),
        (b"words", None),
    ],
    ids=range(26),
)
def test_a_file_is_told_by_its_first_bytes(data: bytes, media_type: str | None) -> None:
    assert media_type_of(data) == media_type
    if media_type is not None and "openxml" not in media_type:
        assert media_type_of(data[:HEAD]) == media_type


def test_a_name_tells_where_the_bytes_do_not() -> None:
    assert [named_type(name) for name in ("a.MP3", "b.tar.docx", "mp3", "c.exe", "")] == [
        "audio/mpeg",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        None,
        None,
        None,
    ]
    assert not is_image("http://[broken/a.png")
