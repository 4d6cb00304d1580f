"""Embeddings with bytes alone: every field sent, renamed or refused by name; vectors in input order or none at all.

Facts: https://docs.mistral.ai/api/endpoint/embeddings.
"""

from __future__ import annotations

import array
import base64
import json
import logging
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import (
    BadRequestError,
    EmbeddingResponse,
    Kind,
    Mistral,
    ProviderServerError,
    Request,
    UnsupportedParameterError,
    Usage,
)
from bifrost_core.errors import CallError
from bifrost_core.wire import HttpReply

MISTRAL = Mistral(["sk-canary-aaaaaaaaaaaaaaaa"])
USAGE = {"prompt_tokens": 5, "total_tokens": 5, "completion_tokens": 0, "request_count": None}


def asked(text: Any = ("one", "two"), **body: Any) -> Request:
    return Request("embeddings", "mistral-embed", {"input": text, **body})


def sent(**body: Any) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(MISTRAL.encode(Request("embeddings", "mistral-embed", body)).body)
    return written


def answer(*vectors: Any, order: tuple[int, ...] | None = None) -> dict[str, Any]:
    order = tuple(range(len(vectors))) if order is None else order
    data = [{"object": "embedding", "embedding": vectors[index], "index": index} for index in order]
    return {"id": "e-1", "object": "list", "data": data, "model": "mistral-embed-2312", "usage": USAGE}


def read(body: Any, request: Request | None = None) -> EmbeddingResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = MISTRAL.decode(asked() if request is None else request, HttpReply(200, {"x-a": "b"}, data, 0.0))
    assert isinstance(response, EmbeddingResponse)
    return response


# -- what is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "wire"),
    [
        pytest.param({"input": "one"}, {"input": "one"}, id="a text"),
        pytest.param({"input": ["one", ""]}, {"input": ["one", ""]}, id="texts"),
        pytest.param({"input": ("one",)}, {"input": ["one"]}, id="a tuple"),
        pytest.param(
            {"input": "one", "dimensions": 256}, {"input": "one", "output_dimension": 256}, id="OpenAI's dimensions"
        ),
        pytest.param(
            {"input": "one", "dimensions": 8, "output_dimension": 8},
            {"input": "one", "output_dimension": 8},
            id="both names agree",
        ),
        pytest.param(
            {"input": "one", "output_dtype": "int8", "encoding_format": "base64", "metadata": {"a": 1}},
            {"input": "one", "output_dtype": "int8", "encoding_format": "base64", "metadata": {"a": 1}},
            id="Mistral's fields",
        ),
        pytest.param({"input": "one", "user": "ann", "output_dtype": None}, {"input": "one"}, id="user is left out"),
        pytest.param({"input": "one", "extra_body": {"new": [1]}}, {"input": "one", "new": [1]}, id="extra_body"),
    ],
)
def test_fields_keep_their_names_or_get_mistrals(body: dict[str, Any], wire: dict[str, Any]) -> None:
    assert sent(**body) == {"model": "mistral-embed", **wire}


def test_a_request_goes_to_its_path_and_puts_out_no_tokens() -> None:
    call = MISTRAL.encode(asked())
    assert (call.method, call.url, call.output_upper) == ("POST", "https://api.mistral.ai/v1/embeddings", 0)


def test_a_field_that_is_left_out_is_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    adapter = Mistral(["sk-canary-aaaaaaaaaaaaaaaa"])
    with caplog.at_level(logging.DEBUG, "bifrost_core"):
        for _ in range(3):
            adapter.encode(asked(user="ann"))
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "provider mistral: the field 'user', which it does not take and which does not change the answer, is left out"
    ]


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        pytest.param({"input": [1, 2]}, "input[0]", id="tokens"),
        pytest.param({"input": [[1, 2], [3]]}, "input[0]", id="token arrays"),
        pytest.param({"input": ["a", True]}, "input[1]", id="a boolean"),
        pytest.param({"input": "a", "dimension": 3}, "dimension", id="misspelt"),
        pytest.param(
            {"input": "a", "dimensions": 3, "output_dimension": 4}, "output_dimension", id="names that differ"
        ),
        pytest.param({"input": "a", "temperature": 0}, "temperature", id="another operation's field"),
    ],
)
def test_what_can_not_be_sent_is_refused_by_name(body: dict[str, Any], parameter: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        sent(**body)
    assert caught.value.parameter == parameter


def test_a_near_name_is_proposed() -> None:
    with pytest.raises(UnsupportedParameterError, match="did you mean dimensions or output_dimension"):
        sent(input="a", dimension=3)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param({}, "'input' is missing", id="no input"),
        pytest.param({"input": 7}, "'input' is neither text nor a list", id="a number"),
        pytest.param({"input": b"a"}, "'input' is neither text nor a list", id="bytes"),
        pytest.param({"input": ["a", {"text": "b"}]}, r"input\[1\] is no text", id="an object"),
        pytest.param({"input": "a", "stream": True}, "'stream'", id="a stream"),
        pytest.param({"input": "a", "model": "other"}, "'model'", id="another model"),
        pytest.param({"input": "a", "extra_body": {"model": "other"}}, "'model'", id="another model by extra_body"),
    ],
)
def test_a_request_that_makes_no_sense_is_not_sent(body: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        sent(**body)


# -- what is read -------------------------------------------------------------------------------


def test_vectors_come_out_in_the_order_of_the_inputs() -> None:
    reply = read(answer([1.0, 0.0], [0.5, -0.5], order=(1, 0)))
    assert reply.embeddings == ([1.0, 0.0], [0.5, -0.5])
    assert (reply.model, reply.usage, reply.headers) == (
        "mistral-embed-2312",
        Usage(input_tokens=5, requests=1),
        {"x-a": "b"},
    )
    assert reply.raw == answer([1.0, 0.0], [0.5, -0.5], order=(1, 0))


def test_a_vector_is_held_once() -> None:
    reply = read(answer([1.0, 0.0]), asked("one"))
    assert reply.embeddings[0] is reply.raw["data"][0]["embedding"]


def test_base64_becomes_numbers_and_stays_text_in_raw() -> None:
    floats = [0.25, -1.5, 3.0]
    text = base64.b64encode(struct.pack("<3f", *floats)).decode()
    reply = read(answer(text), asked("one", encoding_format="base64"))
    assert reply.embeddings == (array.array("f", floats),)
    assert reply.raw == answer(text)


@pytest.mark.parametrize(
    ("form", "numbers", "code"),
    [
        pytest.param("int8", [-128, 0, 127], "3b", id="int8"),
        pytest.param("binary", [-128, -1], "2b", id="binary"),
        pytest.param("uint8", [0, 255], "2B", id="uint8"),
        pytest.param("ubinary", [0, 255], "2B", id="ubinary"),
    ],
)
def test_whole_numbers_stay_whole(form: str, numbers: list[int], code: str) -> None:
    text = base64.b64encode(struct.pack(f"<{code}", *numbers)).decode()
    for vector in (numbers, text):
        (read_vector,) = read(answer(vector), asked("one", output_dtype=form)).embeddings
        assert list(read_vector) == numbers
        assert set(map(type, read_vector)) == {int}


def test_the_format_may_be_asked_for_by_extra_body() -> None:
    request = Request("embeddings", "m", {"extra_body": {"input": ["a", "b"], "output_dtype": "int8"}})
    assert read(answer([1], [2]), request).embeddings == ([1], [2])


LONG = int("9" * 400)
BAD: list[tuple[str, Any, dict[str, Any]]] = [
    ("too few", answer([1.0]), {}),
    ("too many", answer([1.0], [1.0], [1.0]), {}),
    ("an index twice", {**answer([1.0], [1.0]), "data": answer([1.0], [2.0])["data"][:1] * 2}, {}),
    (
        "an index out of range",
        {**answer(), "data": [{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [1]}]},
        {},
    ),
    ("no index", {**answer(), "data": [{"embedding": [1.0]}, {"embedding": [1.0]}]}, {}),
    (
        "a boolean index",
        {**answer(), "data": [{"index": False, "embedding": [1.0]}, {"index": 1, "embedding": [1]}]},
        {},
    ),
    ("items that are none", {**answer(), "data": [1, 2]}, {}),
    ("no data", {"usage": USAGE}, {}),
    ("a vector that is none", answer([1.0], None), {}),
    ("an empty vector", answer([1.0], []), {}),
    ("text among numbers", answer([1.0], [1.0, "2"]), {}),
    ("a boolean among numbers", answer([1.0], [1.0, True]), {}),
    ("null among numbers", answer([1.0], [None]), {}),
    ("a number without end", answer([1.0], [LONG]), {}),
    ("fractions for int8", answer([1], [0.5]), {"output_dtype": "int8"}),
    ("too large for int8", answer([1], [128]), {"output_dtype": "int8"}),
    ("negative for uint8", answer([1], [-1]), {"output_dtype": "uint8"}),
    ("no base64", answer("AACAPw==", "?"), {}),
    ("not ASCII", answer("AACAPw==", "é"), {}),
    ("half a number", answer("AACAPw==", "AACA"), {}),
    ("NaN in base64", answer("AACAPw==", base64.b64encode(struct.pack("<f", float("nan"))).decode()), {}),
    ("infinity in base64", answer("AACAPw==", base64.b64encode(struct.pack("<f", float("inf"))).decode()), {}),
]


@pytest.mark.parametrize(("body", "wanted"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_vectors_that_can_not_be_trusted_are_none(body: Any, wanted: dict[str, Any]) -> None:
    with pytest.raises(ProviderServerError) as caught:
        read(body, asked(**wanted))
    assert caught.value.kind is Kind.BAD_RESPONSE


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_no_answer(text: str) -> None:
    body = json.dumps(answer([1.0], [7.25])).replace("7.25", text).encode()
    with pytest.raises(ProviderServerError) as caught:
        read(body)
    assert caught.value.kind is Kind.BAD_RESPONSE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_no_json_raises_anything_but_a_call_error(data: Any) -> None:
    item = {"index": 0, "embedding": data}
    for body in (
        data,
        {"data": data},
        {"data": [item]},
        {"data": [data]},
        {**answer([1.0]), "usage": data, "model": data},
    ):
        for form in ("float", "int8"):
            try:
                reply = read(body, asked("one", output_dtype=form))
            except CallError:
                continue
            assert reply.raw == body
            assert len(reply.embeddings) == 1
