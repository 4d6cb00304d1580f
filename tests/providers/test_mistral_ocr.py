"""OCR with bytes alone: the request's fields, pages, annotations, usage."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bifrost_core.errors import (
    BadRequestError,
    BifrostError,
    ProviderServerError,
    StructuredOutputError,
    UnsupportedParameterError,
)
from bifrost_core.kinds import Kind
from bifrost_core.providers import Mistral
from bifrost_core.responses import OcrPage, OcrResponse
from bifrost_core.types import Request, Usage
from bifrost_core.wire import HttpReply

KEY = "sk-ocr-0123456789abcdef"
DOCUMENT = {"type": "document_url", "document_url": "https://example.com/a.pdf"}
# https://docs.mistral.ai/api/endpoint/ocr: the members of an answer.
IMAGE = {"id": "img-0.jpeg", "top_left_x": 1, "top_left_y": 2, "bottom_right_x": 3, "bottom_right_y": 4}
DIMENSIONS = {"dpi": 200, "height": 2200, "width": 1700}
WHOLE: dict[str, Any] = {
    "pages": [
        {
            "index": 0,
            "markdown": "# Titel\n\n![img-0.jpeg](img-0.jpeg)",
            "images": [{**IMAGE, "image_base64": None, "image_annotation": '{"kind":"chart"}'}],
            "tables": [{"id": "tbl-0", "content": "| a |", "format": "markdown"}],
            "hyperlinks": [],
            "header": None,
            "footer": "1",
            "dimensions": DIMENSIONS,
            "confidence_scores": None,
            "blocks": None,
        },
        {"index": 1, "markdown": "Größe", "images": [], "dimensions": None},
    ],
    "model": "mistral-ocr-2512",
    "document_annotation": '{"title": "Titel", "pages": 2}',
    "usage_info": {"pages_processed": 2, "doc_size_bytes": 18810},
}


@attrs.frozen
class Summary:
    title: str
    pages: int


def ask(**body: Any) -> Request:
    return Request("ocr", "mistral-ocr-latest", {"document": DOCUMENT, **body})


def encode(**body: Any) -> dict[str, Any]:
    call = Mistral(KEY).encode(ask(**body))
    members: dict[str, Any] = json.loads(call.body)
    return members


def decode(value: Any, **body: Any) -> OcrResponse:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    response = Mistral(KEY).decode(ask(**body), HttpReply(200, {}, raw))
    assert isinstance(response, OcrResponse)
    return response


# -- the request ---------------------------------------------------------------------------------------------------

FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
FIELDS: dict[str, Any] = {
    "bbox_annotation_format": FORMAT,
    "confidence_scores_granularity": "word",
    "document_annotation_format": FORMAT,
    "document_annotation_prompt": "What is it?",
    "extract_footer": True,
    "extract_header": False,
    "image_limit": 3,
    "image_min_size": 100,
    "include_blocks": False,
    "include_image_base64": True,
    "pages": [0, 2],
    "table_format": "html",
}


def test_every_field_goes_as_it_is() -> None:
    call = Mistral(KEY).encode(ask(**FIELDS))
    assert (call.method, call.url) == ("POST", "https://api.mistral.ai/v1/ocr")
    assert dict(call.headers)[b"content-type"] == b"application/json"
    assert encode(**FIELDS) == {"model": "mistral-ocr-latest", "document": DOCUMENT, **FIELDS}


@pytest.mark.parametrize(
    ("pages", "sent"), [([0, 2], [0, 2]), ("0,2-4", "0,2-4"), (range(3), [0, 1, 2]), ((1,), [1])], ids=str
)
def test_pages_are_a_list_or_text(pages: Any, sent: Any) -> None:
    assert encode(pages=pages)["pages"] == sent


@pytest.mark.parametrize("field", ["document_annotation_format", "bbox_annotation_format"])
def test_a_class_is_sent_as_its_schema(field: str) -> None:
    sent = encode(**{field: Summary})[field]
    assert (sent["type"], sent["json_schema"]["name"], sent["json_schema"]["strict"]) == (
        "json_schema",
        "Summary",
        True,
    )
    assert sent["json_schema"]["schema"]["required"] == ["title", "pages"]
    with pytest.raises(BadRequestError, match=f"{field}: no JSON schema can be made of int"):
        encode(**{field: 7})


def test_what_is_no_field_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedParameterError, match="did you mean include_image_base64") as caught:
        encode(include_images_base64=True)
    assert caught.value.parameter == "include_images_base64"
    assert encode(extra_body={"new": 1})["new"] == 1


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        pytest.param(Request("ocr", "m", {}), "the field 'document' is missing", id="no document"),
        pytest.param(Request("ocr", "m", {"document": "x"}), "'document' is no object", id="a document that is text"),
        pytest.param(ask(model="other"), "names another model than the call", id="another model"),
        pytest.param(Request("ocr", "m", {"document": DOCUMENT}, stream=True), "ocr is not streamed", id="a stream"),
        pytest.param(
            Request("ocr", "m", {"document": {"document_url": "x" * 20_000_000}}), "more than 20000000", id="too large"
        ),
    ],
)
def test_what_can_not_be_sent_is_the_callers_mistake(request_: Request, problem: str) -> None:
    with pytest.raises(BadRequestError, match=problem):
        Mistral(KEY).encode(request_)


# -- the answer ----------------------------------------------------------------------------------------------------


def test_an_answer_is_typed_and_lossless() -> None:
    response = decode(WHOLE)
    assert response == OcrResponse(
        model="mistral-ocr-2512",
        usage=Usage(pages=2, requests=1),
        raw=WHOLE,
        pages=[
            OcrPage(
                index=0,
                markdown="# Titel\n\n![img-0.jpeg](img-0.jpeg)",
                images=WHOLE["pages"][0]["images"],
                tables=WHOLE["pages"][0]["tables"],
                dimensions=DIMENSIONS,
            ),
            OcrPage(index=1, markdown="Größe"),
        ],
        annotation={"title": "Titel", "pages": 2},
    )
    assert response.text == "# Titel\n\n![img-0.jpeg](img-0.jpeg)\n\nGröße"


@pytest.mark.parametrize(
    ("sent", "annotation"),
    [
        pytest.param(None, None, id="none"),
        pytest.param('{"a": [1]}', {"a": [1]}, id="JSON"),
        pytest.param("A report.", "A report.", id="text"),
        pytest.param('{"a": ', '{"a": ', id="JSON that is cut off"),
        pytest.param({"a": 1}, {"a": 1}, id="an object"),
    ],
)
def test_an_annotation_is_what_its_json_holds(sent: Any, annotation: Any) -> None:
    assert decode({**WHOLE, "document_annotation": sent}).annotation == annotation


def test_an_annotation_of_a_class_is_an_instance() -> None:
    assert decode(WHOLE, document_annotation_format=Summary).annotation == Summary("Titel", 2)
    assert decode({**WHOLE, "document_annotation": None}, document_annotation_format=Summary).annotation is None


def test_an_annotation_that_does_not_fit_its_class_leaves_the_pages_readable() -> None:
    response = decode({**WHOLE, "document_annotation": '{"title": 7}'}, document_annotation_format=Summary)
    assert response.text.endswith("Größe")
    with pytest.raises(StructuredOutputError, match=r"does not fit Summary at \$.title") as caught:
        _ = response.annotation
    assert caught.value.text == '{"title": 7}'


def test_changed_text_leaves_no_annotation_behind() -> None:
    changed = decode(WHOLE, document_annotation_format=Summary).with_text("[removed]")
    assert (changed.text.strip(), changed.annotation) == ("[removed]", None)
    assert "Titel" not in repr(attrs.asdict(changed))


def test_pages_without_a_usable_count_are_counted_as_none() -> None:
    odd: list[Any] = [None, {}, {"pages_processed": True}, {"pages_processed": -1}, []]
    for usage in odd:
        assert decode({**WHOLE, "usage_info": usage}).usage == Usage(requests=1)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        pytest.param({}, "there are no pages in it", id="no pages"),
        pytest.param({"pages": [{}]}, r"pages\[0\] has no markdown", id="a page without text"),
        pytest.param({"pages": [{"markdown": "", "index": "0"}]}, r"pages\[0\].index is no number", id="no index"),
        pytest.param({"pages": [{"markdown": "", "images": [1]}]}, r"pages\[0\].images is no list", id="odd images"),
        pytest.param({"pages": [{"markdown": "", "tables": {}}]}, r"pages\[0\].tables is no list", id="odd tables"),
        pytest.param(b"", "there is no body", id="nothing"),
    ],
)
def test_an_answer_that_is_none_is_the_providers_fault(value: Any, why: str) -> None:
    with pytest.raises(ProviderServerError, match=why) as caught:
        decode(value)
    assert caught.value.kind is Kind.BAD_RESPONSE


MEMBERS = st.sampled_from(
    [
        "pages",
        "markdown",
        "index",
        "images",
        "tables",
        "dimensions",
        "document_annotation",
        "usage_info",
        "pages_processed",
        "model",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(MEMBERS | st.text(max_size=3), inner, max_size=6),
    max_leaves=10,
)


@given(value=JSON, typed=st.booleans())
def test_any_json_is_an_answer_or_an_error_of_ours(value: Any, typed: bool) -> None:
    try:
        response = decode(json.dumps(value).encode(), **({"document_annotation_format": Summary} if typed else {}))
        assert isinstance(response.text, str)
        _ = response.annotation
    except BifrostError as exc:
        assert exc.message  # noqa: PT017 # either way is right
