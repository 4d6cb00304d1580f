"""OCR of the simulated service, seen by a plain HTTP client."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import httpx
import pytest

from bifrost_core.testing import Fault, Simulated, SimulatedMistral

Json: TypeAlias = dict[str, Any]
Serve: TypeAlias = Callable[..., tuple[SimulatedMistral, httpx.Client]]
Send: TypeAlias = Callable[..., Awaitable[tuple[int, dict[str, str], bytes]]]

OCR = "/v1/ocr"
ELSEWHERE = {"type": "document_url", "document_url": "https://nowhere.invalid/report.pdf"}


def pdf(pages: int) -> bytes:
    """As much of a PDF as counts: its header and one object for each page."""
    kids = b"".join(b"%d 0 obj\n<</Type /Page/MediaBox[0 0 612 792]>>\nendobj\n" % (at + 3) for at in range(pages))
    return b"%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages>>\nendobj\n" + kids


def inline(data: bytes, kind: str = "application/pdf") -> Json:
    return {"type": "document_url", "document_url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}


def ask(document: Json = ELSEWHERE, **more: object) -> Json:
    return {"model": "mistral-ocr-latest", "document": document, **more}


def schema(**properties: Json) -> Json:
    """A format for annotations, all of whose properties are required."""
    inner = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "json_schema", "json_schema": {"name": "facts", "schema": inner, "strict": True}}


def test_a_page_has_mistrals_shape_and_is_billed(serve: Serve) -> None:
    server, client = serve(key={"pages_per_minute": 625, "requests_per_minute": 60})
    data = pdf(1)
    reply = client.post(OCR, json=ask(inline(data), include_blocks=False))
    body = reply.json()
    (page,) = body.pop("pages")
    assert body == {
        "model": "mistral-ocr-latest",
        "document_annotation": None,
        "usage_info": {"pages_processed": 1, "doc_size_bytes": len(data)},
    }
    title, words, table, picture = page.pop("markdown").split("\n\n")
    assert title.startswith("# ")
    assert words.endswith(".")
    assert table.startswith("| a | b |\n| --- | --- |\n| ")
    assert picture == "![img-0.png](img-0.png)"
    assert page == {
        "index": 0,
        "images": [
            {
                "id": "img-0.png",
                "top_left_x": 100,
                "top_left_y": 1600,
                "bottom_right_x": 340,
                "bottom_right_y": 1760,
                "image_base64": None,
                "image_annotation": None,
            }
        ],
        "tables": [],
        "hyperlinks": [],
        "header": None,
        "footer": None,
        "dimensions": {"dpi": 200, "height": 2200, "width": 1700},
        "confidence_scores": None,
        "blocks": None,
    }
    assert {name: value for name, value in reply.headers.items() if "ratelimit" in name} == {
        "x-ratelimit-limit-ocr-pages-minute": "625",
        "x-ratelimit-remaining-ocr-pages-minute": "624",
        "x-ratelimit-ocr-pages-query-cost": "1",
    }
    assert (server.counters["a"].pages, server.counters["a"].prompt_tokens) == (1, 0)


@pytest.mark.parametrize(
    ("document", "pages", "size"),
    [
        pytest.param(inline(pdf(3)), 3, len(pdf(3)), id="pdf"),
        pytest.param(inline(b"%PDF-1.7 with its pages in a stream"), 1, 35, id="pdf-compressed"),
        pytest.param(inline(b"PK", "application/msword"), 1, 2, id="other-document"),
        pytest.param({"document_url": "data:text/plain,a%20word"}, 1, 6, id="data-without-base64"),
        pytest.param(ELSEWHERE, 2, None, id="elsewhere"),
        pytest.param({"type": "image_url", "image_url": "data:image/png;base64,aGk="}, 1, 2, id="image"),
        pytest.param({"image_url": {"url": "data:image/png;base64,aGk=", "detail": "low"}}, 1, 2, id="image-object"),
    ],
)
def test_the_document_says_how_many_pages_there_are(serve: Serve, document: Json, pages: int, size: int | None) -> None:
    _, client = serve()
    body = client.post(OCR, json=ask(document)).json()
    assert [page["index"] for page in body["pages"]] == list(range(pages))
    assert body["usage_info"] == {"pages_processed": pages, "doc_size_bytes": size}


@pytest.mark.parametrize(
    ("pages", "indexes"),
    [([0], [0]), ([4, 1, 1], [1, 4]), ("0,2-4", [0, 2, 3, 4]), (" 3 - 3, 9", None), ("3-99999", [3, 4]), ([7], [])],
    ids=str,
)
def test_only_the_pages_that_were_asked_for_are_read(serve: Serve, pages: object, indexes: list[int] | None) -> None:
    server, client = serve()
    reply = client.post(OCR, json=ask(inline(pdf(5)), pages=pages))
    if indexes is None:
        assert (reply.status_code, reply.json()["detail"][0]["loc"]) == (422, ["body", "pages"])
        return
    whole = client.post(OCR, json=ask(inline(pdf(5)))).json()["pages"]
    read = reply.json()["pages"]
    assert [page["index"] for page in read] == indexes
    assert [page["blocks"][1] for page in read] == [whole[index]["blocks"][1] for index in indexes]
    assert server.requests[0].pages == len(indexes)


def test_equal_documents_have_equal_pages(serve: Serve) -> None:
    _, client = serve()
    one, again, other = (
        client.post(OCR, json=ask({"document_url": url})).json()["pages"]
        for url in ("https://a.invalid/1", "https://a.invalid/1", "https://a.invalid/2")
    )
    assert one == again != other
    assert one[0]["markdown"] != one[1]["markdown"]


def test_pictures_can_be_had_and_bounded(serve: Serve) -> None:
    _, client = serve()
    pages = client.post(OCR, json=ask(inline(pdf(3)), include_image_base64=True, image_limit=2)).json()["pages"]
    assert [[image["id"] for image in page["images"]] for page in pages] == [["img-0.png"], ["img-1.png"], []]
    kind, data = pages[0]["images"][0]["image_base64"].split(",")
    picture = base64.b64decode(data)
    assert kind == "data:image/png;base64"
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert [int.from_bytes(picture[at : at + 4]) for at in (16, 20)] == [240, 160]
    for least, there in ((160, 1), (161, 0)):
        (page,) = client.post(OCR, json=ask(inline(pdf(1)), image_min_size=least)).json()["pages"]
        assert (len(page["images"]), "img-0" in page["markdown"]) == (there, bool(there))


@pytest.mark.parametrize(("form", "begin"), [("markdown", "| a | b |"), ("html", "<table><tr><th>a")])
def test_tables_stand_apart_when_they_have_a_format(serve: Serve, form: str, begin: str) -> None:
    _, client = serve()
    (page,) = client.post(OCR, json=ask(inline(pdf(1)), table_format=form)).json()["pages"]
    (table,) = page["tables"]
    assert table["content"].startswith(begin)
    assert table["format"] == form
    assert f"[{table['id']}]({table['id']})" in page["markdown"]
    assert table["content"] not in page["markdown"]
    assert [block["table_id"] for block in page["blocks"] if block["type"] == "table"] == [table["id"]]


def test_headers_and_footers_come_when_asked_for(serve: Serve) -> None:
    _, client = serve()
    (page,) = client.post(OCR, json=ask(inline(pdf(1)), extract_header=True, extract_footer=True)).json()["pages"]
    assert (page["header"], page["footer"]) == ("Header of page 0", "Footer of page 0")


def test_blocks_together_are_the_page(serve: Serve) -> None:
    _, client = serve()
    (page,) = client.post(OCR, json=ask(inline(pdf(1)))).json()["pages"]
    assert [block["type"] for block in page["blocks"]] == ["title", "text", "table", "image"]
    assert "\n\n".join(block["content"] for block in page["blocks"]) == page["markdown"]
    assert page["blocks"][3]["image_id"] == page["images"][0]["id"]


def test_confidence_comes_as_fine_as_asked_for(serve: Serve) -> None:
    _, client = serve()

    def page(granularity: str) -> Json:
        asked = ask(inline(pdf(1)), confidence_scores_granularity=granularity)
        return client.post(OCR, json=asked).json()["pages"][0]  # type: ignore[no-any-return]

    coarse, words, blocks = page("page"), page("word"), page("block")
    assert coarse["confidence_scores"]["word_confidence_scores"] == []
    assert 0.9 <= coarse["confidence_scores"]["minimum_page_confidence_score"] <= 1
    found = words["confidence_scores"]["word_confidence_scores"]
    assert [each["text"] for each in found] == words["markdown"].split()
    assert all(words["markdown"][each["start_index"] :].startswith(each["text"]) for each in found)
    assert all(block["confidence_scores"] is None for block in words["blocks"])
    assert all(0.9 <= block["confidence_scores"]["block_type_confidence_score"] <= 1 for block in blocks["blocks"])


def test_annotations_are_json_texts_that_fit_their_schemas(serve: Serve) -> None:
    _, client = serve()
    asked = ask(
        inline(pdf(1)),
        document_annotation_format=schema(title={"type": "string"}, pages={"type": "integer", "minimum": 1}),
        document_annotation_prompt="What is it about?",
        bbox_annotation_format=schema(kind={"enum": ["chart", "photo"]}),
    )
    body = client.post(OCR, json=asked).json()
    annotation = json.loads(body["document_annotation"])
    assert annotation == {"title": annotation["title"], "pages": 1}
    assert isinstance(annotation["title"], str)
    assert json.loads(body["pages"][0]["images"][0]["image_annotation"]) == {"kind": "chart"}


def test_the_test_can_write_the_pages(serve: Serve) -> None:
    _, client = serve(page=lambda body, index: f"Page {index} of {body['model']}")
    asked = ask(inline(pdf(2)), table_format="html", confidence_scores_granularity="word")
    pages = client.post(OCR, json=asked).json()["pages"]
    assert [page["markdown"] for page in pages] == ["Page 0 of mistral-ocr-latest", "Page 1 of mistral-ocr-latest"]
    assert [(page["images"], page["tables"]) for page in pages] == [([], []), ([], [])]
    assert [block["type"] for block in pages[0]["blocks"]] == ["text"]


def test_a_model_of_null_is_the_latest(serve: Serve) -> None:
    _, client = serve()
    assert client.post(OCR, json={**ask(), "model": None}).json()["model"] == "mistral-ocr-latest"


@pytest.mark.parametrize(
    ("change", "kind", "loc"),
    [
        pytest.param({"language": "en"}, "extra_forbidden", ["language"], id="extra"),
        pytest.param({"stream": True}, "extra_forbidden", ["stream"], id="stream"),
        pytest.param({"document": "report.pdf"}, "dict_type", ["document"], id="text"),
        pytest.param({"document": {"type": "page"}}, "union_tag_invalid", ["document"], id="kind"),
        pytest.param({"document": {}}, "union_tag_invalid", ["document"], id="nothing"),
        pytest.param(
            {"document": {"type": "document_url"}}, "missing", ["document", "document_url", "document_url"], id="no-url"
        ),
        pytest.param(
            {"document": {"file_id": "7"}}, "uuid_parsing", ["document", "file", "file_id"], id="file-id"
        ),
        pytest.param(
            {"document": {"type": "image_url", "image_url": "x", "document_name": "y"}},
            "extra_forbidden",
            ["document", "image_url", "document_name"],
            id="name-of-an-image",
        ),
        pytest.param({"pages": [-1]}, "greater_than_equal", ["pages", 0], id="page"),
        pytest.param({"pages": ["1"]}, "int_type", ["pages", 0], id="page-in-words"),
        pytest.param({"pages": 1}, "list_type", ["pages"], id="one-page"),
        pytest.param({"pages": "1;2"}, "value_error", ["pages"], id="pages"),
        pytest.param({"image_limit": 1.5}, "int_type", ["image_limit"], id="limit"),
        pytest.param({"include_blocks": None}, "bool_type", ["include_blocks"], id="blocks"),
        pytest.param({"table_format": "csv"}, "literal_error", ["table_format"], id="table"),
        pytest.param(
            {"confidence_scores_granularity": "line"}, "literal_error", ["confidence_scores_granularity"], id="scores"
        ),
        pytest.param(
            {"document_annotation_format": {"type": "json_object"}},
            "literal_error",
            ["document_annotation_format", "type"],
            id="annotation",
        ),
        pytest.param(
            {"bbox_annotation_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "missing",
            ["bbox_annotation_format", "json_schema", "schema"],
            id="schema",
        ),
        pytest.param(
            {"bbox_annotation_format": {"type": "json_schema"}},
            "missing",
            ["bbox_annotation_format", "json_schema"],
            id="no-schema",
        ),
    ],
)  # fmt: skip
def test_bad_members_are_a_422(serve: Serve, change: Json, kind: str, loc: list[object]) -> None:
    server, client = serve()
    reply = client.post(OCR, json={**ask(), **change})
    (finding,) = reply.json()["detail"]
    assert (reply.status_code, finding["type"], finding["loc"]) == (422, kind, ["body", *loc])
    assert server.counters["a"].pages == 0


def test_missing_members_are_told_together(serve: Serve) -> None:
    _, client = serve()
    assert [each["loc"][-1] for each in client.post(OCR, json={}).json()["detail"]] == ["model", "document"]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        pytest.param(ask(inline(b"not a PDF")), "3740", id="no-pdf"),
        pytest.param(ask({"document_url": "file:///etc/hostname"}), "3310", id="scheme"),
        pytest.param(ask({"document_url": "data:application/pdf;base64,=="}), "3310", id="base64"),
        pytest.param(ask({"document_url": "data:application/pdf"}), "3310", id="no-data"),
        pytest.param({**ask(), "model": "mistral-small-latest"}, "1500", id="model"),
        pytest.param(ask(document_annotation_format=schema(title=[])), "3051", id="schema"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_read_is_a_400(serve: Serve, asked: Json, code: str) -> None:
    _, client = serve()
    reply = client.post(OCR, json=asked)
    assert (reply.status_code, reply.json()["code"]) == (400, code)


def test_the_page_limit_refuses(serve: Serve) -> None:
    _, client = serve(key={"pages_per_minute": 2})
    assert client.post(OCR, json=ask(inline(pdf(2)))).status_code == 200
    reply = client.post(OCR, json=ask(inline(pdf(1))))
    assert (reply.status_code, reply.json()["code"]) == (429, "1300")
    assert reply.headers["x-ratelimit-limit-ocr-pages-minute"] == "2"


@pytest.mark.parametrize("kind", ["not_json", "truncate", "html"])
def test_faults_meet_ocr(serve: Serve, kind: Any) -> None:
    server, client = serve(Fault(kind))
    with pytest.raises(json.JSONDecodeError):
        client.post(OCR, json=ask()).json()
    assert server.counters["a"].pages == (0 if kind == "html" else 2)


async def test_without_a_network_it_answers_the_same(serve: Serve, exchange: Send) -> None:
    asked = ask(inline(pdf(2)), table_format="markdown")
    provider = Simulated(["one"])
    status, headers, data = await exchange(provider, "POST", OCR, json=asked)
    _, client = serve()
    assert status == 200
    assert json.loads(data) == client.post(OCR, json=asked).json()
    assert headers["x-ratelimit-ocr-pages-query-cost"] == "2"
    assert provider.counters["one"].pages == 2
