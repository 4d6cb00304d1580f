"""Files of the simulated service and the forms they come in."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.forms import FormError, Upload, read_form
from bifrost_core.testing import FakeClock, Simulated, SimulatedKey, SimulatedMistral

Json: TypeAlias = dict[str, Any]
Serve: TypeAlias = Callable[..., tuple[SimulatedMistral, httpx.Client]]
Send: TypeAlias = Callable[..., Awaitable[tuple[int, dict[str, str], bytes]]]

FILES = "/v1/files"
HEAR = "/v1/audio/transcriptions"
PDF = b"%PDF-1.4\n<</Type/Page>>\n<</Type/Page>>\n"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def send(client: httpx.Client, data: bytes = PDF, name: str = "report.pdf", **fields: str) -> Json:
    reply = client.post(FILES, data=fields, files={"file": (name, data, "application/pdf")})
    assert reply.status_code == 200, reply.text
    return reply.json()  # type: ignore[no-any-return]


# -- files ---------------------------------------------------------------------------------------------------------


def test_an_upload_has_mistrals_shape(serve: Serve) -> None:
    server, client = serve(clock=FakeClock(wall=1_780_000_000), key={"requests_per_minute": 0})
    reply = client.post(
        FILES, data={"purpose": "ocr", "expiry": "2"}, files={"file": ("é.pdf", PDF, "application/pdf")}
    )
    body = reply.json()
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", body.pop("id"))
    assert re.fullmatch(r"[0-9a-f]{32}", body.pop("signature"))
    assert body == {
        "object": "file",
        "bytes": len(PDF),
        "created_at": 1_780_000_000,
        "filename": "é.pdf",
        "purpose": "ocr",
        "sample_type": "ocr_input",
        "num_lines": 0,
        "mimetype": "application/pdf",
        "source": "upload",
        "expires_at": 1_780_007_200,
        "visibility": "workspace",
    }
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert not [name for name in reply.headers if "ratelimit" in name]
    assert server.counters["a"].statuses == {200: 1}  # no limit holds for files


def test_files_are_listed_told_read_and_deleted(serve: Serve) -> None:
    _, client = serve()
    first, second = send(client, purpose="ocr"), send(client, b"{}\n{}\n", "lines.jsonl", purpose="batch")
    assert second["num_lines"] == 2
    assert client.get(FILES).json() == {"data": [second, first], "object": "list", "total": 2}
    assert client.get(FILES, params={"purpose": "ocr"}).json()["data"] == [first]
    assert client.get(FILES, params={"search": "lines"}).json()["data"] == [second]
    assert client.get(FILES, params={"page": 1, "page_size": 1}).json() == {
        "data": [first], "object": "list", "total": 2
    }  # fmt: skip
    path = f"{FILES}/{first['id']}"
    assert client.get(path).json() == {**first, "deleted": False}
    content = client.get(f"{path}/content")
    assert (content.content, content.headers["content-type"]) == (PDF, "application/octet-stream")
    assert client.delete(path).json() == {"id": first["id"], "object": "file", "deleted": True}
    assert client.get(path).status_code == 404
    assert client.get(FILES).json()["total"] == 1


def test_an_uploaded_file_can_be_read_and_heard(serve: Serve) -> None:
    _, client = serve()
    file_id = send(client)["id"]
    url = client.get(f"{FILES}/{file_id}/url").json()["url"]
    assert client.get(url).content == PDF
    for document in ({"type": "file", "file_id": file_id}, {"type": "document_url", "document_url": url}):
        body = client.post("/v1/ocr", json={"model": "mistral-ocr-latest", "document": document}).json()
        assert body["usage_info"] == {"pages_processed": 2, "doc_size_bytes": len(PDF)}
    talk = send(client, bytes(64_000), "talk.mp3")["id"]
    form = {"model": (None, "voxtral-mini-latest"), "file_id": (None, talk)}
    assert client.post(HEAR, files=form).json()["usage"]["prompt_audio_seconds"] == 4


def test_an_address_holds_for_its_time_and_cannot_be_made_up(serve: Serve) -> None:
    clock = FakeClock()
    _, client = serve(clock=clock)
    file_id = send(client)["id"]
    url = client.get(f"{FILES}/{file_id}/url", params={"expiry": 1}).json()["url"]

    def size(address: str) -> int | None:
        document = {"type": "document_url", "document_url": address}
        reply = client.post("/v1/ocr", json={"model": "mistral-ocr-latest", "document": document})
        return reply.json()["usage_info"]["doc_size_bytes"]  # type: ignore[no-any-return]

    assert size(url) == len(PDF)
    assert size(url[:-1] + ("0" if url[-1] != "0" else "1")) is None  # one like any other address
    assert size(url.replace("expires=", "expires=9")) is None
    clock.advance(3_601)
    assert size(url) is None


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("GET", f"{FILES}/{UNKNOWN}", {}, id="entry"),
        pytest.param("DELETE", f"{FILES}/{UNKNOWN}", {}, id="delete"),
        pytest.param("GET", f"{FILES}/{UNKNOWN}/content", {}, id="content"),
        pytest.param("GET", f"{FILES}/{UNKNOWN}/url", {}, id="url"),
        pytest.param(
            "POST",
            "/v1/ocr",
            {"json": {"model": "mistral-ocr-latest", "document": {"type": "file", "file_id": UNKNOWN}}},
            id="ocr",
        ),
        pytest.param(
            "POST",
            HEAR,
            {"files": {"model": (None, "voxtral-mini-latest"), "file_id": (None, "what-file")}},
            id="transcription",
        ),
    ],
)
def test_an_unknown_file_is_a_404(serve: Serve, method: str, path: str, body: Json) -> None:
    _, client = serve()
    reply = client.request(method, path, **body)
    assert (reply.status_code, reply.json()) == (404, {"detail": "File not found"})


def test_an_id_that_is_none_and_odd_parameters_are_a_422(serve: Serve) -> None:
    _, client = serve()
    reply = client.get(f"{FILES}/report.pdf")
    assert (reply.status_code, reply.json()["detail"][0]["loc"]) == (422, ["path", "file_id"])
    reply = client.get(FILES, params={"page_size": "0"})
    assert (reply.status_code, reply.json()["detail"][0]["loc"]) == (422, ["query", "page_size"])


def test_files_are_of_the_quota_group_that_sent_them() -> None:
    keys = [
        SimulatedKey("one", quota_group="ours"),
        SimulatedKey("two", quota_group="ours"),
        SimulatedKey("three", quota_group="theirs"),
    ]
    with SimulatedMistral(keys) as server, httpx.Client(base_url=server.base_url) as client:

        def asks(secret: str, path: str = "") -> httpx.Response:
            return client.get(FILES + path, headers={"authorization": f"Bearer {secret}"})

        made = client.post(FILES, files={"file": ("a", b"x")}, headers={"authorization": "Bearer one"}).json()
        assert [asks(secret).json()["total"] for secret in ("one", "two", "three")] == [1, 1, 0]
        assert asks("three", f"/{made['id']}").status_code == 404
        server.reset()
        assert asks("one").json()["total"] == 0


def test_a_file_goes_when_its_hours_are_over(serve: Serve) -> None:
    clock = FakeClock()
    _, client = serve(clock=clock)
    made = send(client, expiry="1")
    clock.advance(3_599)
    assert client.get(FILES).json()["total"] == 1
    clock.advance(1)
    assert client.get(FILES).json()["total"] == 0
    assert client.get(f"{FILES}/{made['id']}").status_code == 404


def test_there_is_room_for_so_much_and_no_more(serve: Serve) -> None:
    _, client = serve()
    big = bytes(30 * 2**20)
    first = send(client, big)
    send(client, big)
    reply = client.post(FILES, files={"file": ("big", big)})
    assert (reply.status_code, reply.json()["code"]) == (400, "3310")
    assert "delete some" in reply.json()["message"]
    client.delete(f"{FILES}/{first['id']}")
    send(client, big)


@pytest.mark.parametrize(
    ("fields", "kind", "loc"),
    [
        pytest.param({"purpose": "ocr", "name": "x"}, "extra_forbidden", ["name"], id="extra"),
        pytest.param({"purpose": "audio"}, "enum", ["purpose"], id="purpose"),
        pytest.param({"expiry": "soon"}, "int_type", ["expiry"], id="expiry"),
        pytest.param({"expiry": "0"}, "greater_than_equal", ["expiry"], id="no-time"),
        pytest.param({"visibility": "all"}, "enum", ["visibility"], id="visibility"),
    ],
)
def test_a_bad_upload_is_a_422(serve: Serve, fields: Json, kind: str, loc: list[object]) -> None:
    _, client = serve()
    reply = client.post(FILES, data=fields, files={"file": ("a", b"x")})
    (finding,) = reply.json()["detail"]
    assert (reply.status_code, finding["type"], finding["loc"]) == (422, kind, ["body", *loc])
    assert client.get(FILES).json()["total"] == 0


def test_a_file_that_has_to_be_there_is_missing(serve: Serve) -> None:
    _, client = serve()
    reply = client.post(FILES, files={"purpose": (None, "ocr"), "extra": ("b.txt", b"secret words")})
    assert [(each["type"], each["loc"][-1]) for each in reply.json()["detail"]] == [
        ("missing", "file"),
        ("extra_forbidden", "extra"),
    ]
    assert "secret words" not in reply.text


async def test_without_a_network_a_file_is_kept_and_read(exchange: Send) -> None:
    provider = Simulated(["one"])
    _, _, data = await exchange(provider, "POST", FILES, files={"file": ("a.pdf", PDF, "application/pdf")})
    file_id = json.loads(data)["id"]
    _, _, data = await exchange(provider, "GET", f"{FILES}/{file_id}/url?expiry=1")
    url = json.loads(data)["url"]
    assert url.startswith(f"https://simulated.invalid/v1/files/{file_id}/content?expires=")
    asked = {"model": "any", "document": {"type": "document_url", "document_url": url}}
    _, _, data = await exchange(provider, "POST", "/v1/ocr", json=asked)
    assert json.loads(data)["usage_info"]["pages_processed"] == 2


# -- forms ---------------------------------------------------------------------------------------------------------

FORM = "multipart/form-data; boundary=sep"


def part(head: str, content: bytes = b"x") -> bytes:
    return b"--sep\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


NAMED = 'content-disposition: form-data; name="model"'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param("application/json", b"{}", id="json"),
        pytest.param("", b"", id="no-type"),
        pytest.param("multipart/form-data", part(NAMED) + b"--sep--", id="no-boundary-named"),
        pytest.param("multipart/mixed; boundary=sep", part(NAMED) + b"--sep--", id="mixed"),
        pytest.param(f"multipart/form-data; boundary={'x' * 71}", b"", id="long-boundary"),
        pytest.param(FORM, b"", id="empty"),
        pytest.param(FORM, b"--other\r\n", id="other-boundary"),
        pytest.param(FORM, b"--sep", id="nothing-after-it"),
        pytest.param(FORM, b"--sepx\r\n" + part(NAMED) + b"--sep--", id="something-after-it"),
        pytest.param(FORM, part(NAMED), id="not-closed"),
        pytest.param(FORM, part(NAMED)[:-2], id="cut-off"),
        pytest.param(FORM, b"--sep\r\n" + NAMED.encode() + b"\r\n--sep--", id="no-end-of-head"),
        pytest.param(FORM, part("content-disposition: form-data") + b"--sep--", id="no-name"),
        pytest.param(FORM, part("content-type: text/plain") + b"--sep--", id="no-disposition"),
        pytest.param(FORM, part('content-disposition: attachment; name="a"') + b"--sep--", id="attachment"),
        pytest.param(FORM, part(NAMED, b"\xff") + b"--sep--", id="not-utf-8"),
        pytest.param(FORM, part(NAMED + "\r\nx: " + "y" * 20_000) + b"--sep--", id="long-head"),
        pytest.param(FORM, part(NAMED, bytes(2**20 + 1)) + b"--sep--", id="long-text"),
        pytest.param(FORM, part(NAMED) * 1_001 + b"--sep--", id="many-parts"),
    ],
)
def test_a_body_that_is_no_form_is_a_422(serve: Serve, kind: str, body: bytes) -> None:
    with pytest.raises(FormError):
        read_form(kind, body)
    server, client = serve(keep_bodies=True)
    reply = client.post(HEAR, content=body, headers={"content-type": kind})
    assert (reply.status_code, reply.json()["detail"][0]["type"]) == (422, "value_error")
    assert server.requests[0].parts == ()


def test_a_form_may_have_a_preamble_an_epilogue_and_any_bytes_in_files() -> None:
    head = 'Content-Disposition: form-data; name="file"; filename="C:\\a; b.wav"\r\nContent-Type: Audio/WAV'
    inside = b"\r\n\r\n--se\r\n\n--sep\x00\xff" + bytes(range(256))
    bare = 'content-disposition: form-data; name="file"; filename=b'
    body = b"hello\r\n" + part(NAMED, b"") + part(head, inside) + part(bare, b"") + b"--sep-- \r\nbye"
    assert read_form('Multipart/Form-Data; charset=utf-8; boundary="sep"', body) == [
        ("model", ""),
        ("file", Upload("C:a; b.wav", "audio/wav", inside)),
        ("file", Upload("b", "application/octet-stream", b"")),
    ]


def test_a_form_as_httpx_writes_it_is_read_back() -> None:
    files: list[Any] = [
        ("file", ('ü "q".bin', bytes(range(256)) * 40, "audio/x")),
        ("terms", (None, "æ")),
        ("terms", (None, "b")),
    ]
    written = httpx.Request("POST", "http://a.invalid", files=files)
    assert read_form(written.headers["content-type"], written.read()) == [
        ("file", Upload('ü "q".bin'.replace('"', "%22"), "audio/x", bytes(range(256)) * 40)),
        ("terms", "æ"),
        ("terms", "b"),
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("abc_", min_size=1, max_size=8), st.one_of(st.text(max_size=40), st.binary(max_size=300))),
        min_size=1,
    )
)
def test_whatever_httpx_writes_is_read_back(fields: list[tuple[str, str | bytes]]) -> None:
    files: list[Any] = [
        (name, (None, value)) if isinstance(value, str) else (name, ("f.bin", value, "audio/x"))
        for name, value in fields
    ]
    written = httpx.Request("POST", "http://a.invalid", files=files)
    assert read_form(written.headers["content-type"], written.read()) == [
        (name, value if isinstance(value, str) else Upload("f.bin", "audio/x", value)) for name, value in fields
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"--sep", b"--", b"\r\n", b"\r", b"x", NAMED.encode(), b": ", b";", b"\xff", b'"'])))
def test_no_bytes_break_the_reading_of_forms(pieces: list[bytes]) -> None:
    try:
        fields = read_form(FORM, b"".join(pieces))
    except FormError:
        return
    assert all(name == "model" for name, _ in fields)
