"""Moderation and classification with bytes alone: texts to one path, conversations to the other, one verdict each.

Facts: https://docs.mistral.ai/api/endpoint/classifiers. Classification follows the document alone.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import (
    BadRequestError,
    ClassificationResponse,
    Kind,
    Message,
    Mistral,
    ModerationResponse,
    ModerationResult,
    ProviderServerError,
    Request,
    Response,
    UnsupportedParameterError,
    Usage,
)
from bifrost_core.errors import CallError
from bifrost_core.wire import HttpReply

MISTRAL = Mistral(["sk-canary-aaaaaaaaaaaaaaaa"])
BASE = "https://api.mistral.ai"
MODEL = "mistral-moderation-2603"
HI = {"role": "user", "content": "hi"}
HO = {"role": "assistant", "content": "ho"}


def sent(operation: str, given_: Any, **body: Any) -> tuple[str, dict[str, Any]]:
    call = MISTRAL.encode(Request(operation, MODEL, {"input": given_, **body}))
    assert (call.method, call.output_upper) == ("POST", 0)
    written: dict[str, Any] = json.loads(call.body)
    assert written.pop("model") == MODEL
    return call.url.removeprefix(BASE), written


def read(operation: str, given_: Any, body: Any) -> Response:
    request = Request(operation, MODEL, {"input": given_})
    return MISTRAL.decode(request, HttpReply(200, {}, json.dumps(body).encode(), 0.0))


MODERATED = [
    pytest.param("a", "/v1/moderations", "a", id="a text"),
    pytest.param(["a", "b"], "/v1/moderations", ["a", "b"], id="texts"),
    pytest.param([HI, HO], "/v1/chat/moderations", [HI, HO], id="a conversation"),
    pytest.param([Message("user", "hi")], "/v1/chat/moderations", [HI], id="a conversation of Messages"),
    pytest.param([[HI], [HI, HO]], "/v1/chat/moderations", [[HI], [HI, HO]], id="conversations"),
    pytest.param([[HI]], "/v1/chat/moderations", [[HI]], id="one conversation in a list"),
    pytest.param({"messages": [HI]}, "/v1/chat/moderations", [HI], id="an object with messages"),
    pytest.param(
        [{"role": "developer", "content": "x"}],
        "/v1/chat/moderations",
        [{"role": "system", "content": "x"}],
        id="roles",
    ),
]


@pytest.mark.parametrize(("given_", "path", "wire"), MODERATED)
def test_what_is_moderated_decides_over_the_path(given_: Any, path: str, wire: Any) -> None:
    assert sent("moderation", given_) == (path, {"input": wire})


@pytest.mark.parametrize(
    ("given_", "path", "wire"),
    [
        pytest.param("a", "/v1/classifications", "a", id="a text"),
        pytest.param(["a", "b"], "/v1/classifications", ["a", "b"], id="texts"),
        pytest.param({"messages": [HI]}, "/v1/chat/classifications", {"messages": [HI]}, id="an object with messages"),
        pytest.param([{"messages": [HI]}], "/v1/chat/classifications", [{"messages": [HI]}], id="a list of objects"),
        pytest.param([HI, HO], "/v1/chat/classifications", {"messages": [HI, HO]}, id="a conversation"),
        pytest.param([[HI], [HO]], "/v1/chat/classifications", [{"messages": [HI]}, {"messages": [HO]}], id="several"),
    ],
)
def test_what_is_classified_decides_over_the_path(given_: Any, path: str, wire: Any) -> None:
    assert sent("classification", given_) == (path, {"input": wire})


def test_extra_body_decides_too_and_is_sent_as_it_is() -> None:
    call = MISTRAL.encode(Request("moderation", MODEL, {"extra_body": {"input": [[HI]], "new": 1}}))
    assert call.url == f"{BASE}/v1/chat/moderations"
    assert json.loads(call.body) == {"model": MODEL, "input": [[HI]], "new": 1}


@pytest.mark.parametrize(
    ("given_", "body", "says"),
    [
        pytest.param(["a", HI], {}, r"input\[1\] is no text", id="texts and messages"),
        pytest.param(7, {}, "'input' is neither text nor a list", id="a number"),
        pytest.param([HI, {"content": "x"}], {}, r"messages\[1\] has no role", id="no role"),
        pytest.param([{**HI, "colour": 1}], {}, r"messages\[0\].colour", id="an unknown member"),
        pytest.param({"messages": [HI], "temperature": 1}, {}, r"input.temperature", id="more than messages"),
        pytest.param([[1, 2]], {}, r"messages\[0\] is int", id="tokens"),
        pytest.param([HI], {"metadata": {"a": 1}}, "'metadata'", id="metadata of a conversation"),
        pytest.param("a", {"threshold": 1}, "'threshold'", id="an unknown field"),
        pytest.param("a", {"stream": True}, "'stream'", id="a stream"),
    ],
)
@pytest.mark.parametrize("operation", ["moderation", "classification"])
def test_what_can_not_be_sent_is_refused_by_name(operation: str, given_: Any, body: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequestError, match=says):
        sent(operation, given_, **body)


def test_metadata_goes_with_texts() -> None:
    assert sent("moderation", "a", metadata={"a": 1}, user="ann")[1] == {"input": "a", "metadata": {"a": 1}}
    with pytest.raises(UnsupportedParameterError, match="did you mean metadata"):
        sent("moderation", "a", metadat={})


VERDICT = {"categories": {"sexual": False, "pii": True}, "category_scores": {"sexual": 0.001, "pii": 1}}
CLEAR = {"categories": {"sexual": False, "pii": False}, "category_scores": {"sexual": 0.001, "pii": 0.0}}
USAGE = {"prompt_tokens": 12, "total_tokens": 73, "completion_tokens": 0, "request_count": 1}


@pytest.mark.parametrize("given_", [["a", "b"], [[HI], [HI, HO]]], ids=["texts", "conversations"])
def test_verdicts_come_in_input_order_with_the_usage_as_it_came(given_: Any) -> None:
    body = {"id": "m-1", "model": MODEL, "results": [CLEAR, VERDICT], "usage": USAGE}
    reply = read("moderation", given_, body)
    assert isinstance(reply, ModerationResponse)
    assert reply.results == (
        ModerationResult(categories={"sexual": False, "pii": False}, scores={"sexual": 0.001, "pii": 0.0}),
        ModerationResult(categories={"sexual": False, "pii": True}, scores={"sexual": 0.001, "pii": 1.0}),
    )
    assert [result.flagged for result in reply.results] == [False, True]
    assert (reply.model, reply.usage, reply.raw) == (MODEL, Usage(input_tokens=12, requests=1), body)


def test_classes_come_per_target_and_label() -> None:
    body = {"id": "c-1", "model": "ft:classifier", "results": [{"intent": {"scores": {"buy": 0.75, "ask": 0.25}}}]}
    reply = read("classification", "a", body)
    assert isinstance(reply, ClassificationResponse)
    assert reply.results == ({"intent": {"buy": 0.75, "ask": 0.25}},)
    assert (reply.model, reply.raw) == ("ft:classifier", body)


BAD: list[tuple[str, str, Any]] = [
    ("too few verdicts", "moderation", {"results": [VERDICT]}),
    ("too many verdicts", "moderation", {"results": [VERDICT] * 3}),
    ("no verdicts", "moderation", {"usage": USAGE}),
    ("a verdict that is none", "moderation", {"results": [VERDICT, 1]}),
    ("no categories", "moderation", {"results": [VERDICT, {"category_scores": {}}]}),
    ("a category between yes and no", "moderation", {"results": [VERDICT, {**VERDICT, "categories": {"pii": 1}}]}),
    ("no scores", "moderation", {"results": [VERDICT, {"categories": {"pii": True}}]}),
    ("a score that is a word", "moderation", {"results": [VERDICT, {**VERDICT, "category_scores": {"pii": "1"}}]}),
    (
        "a score without end",
        "moderation",
        {"results": [VERDICT, {**VERDICT, "category_scores": {"a": int("9" * 400)}}]},
    ),
    ("too few classes", "classification", {"results": [{"a": {"scores": {}}}]}),
    ("a target that is none", "classification", {"results": [{"a": 1}, {"a": {"scores": {}}}]}),
    ("a target without scores", "classification", {"results": [{"a": {}}, {"a": {"scores": {}}}]}),
]


@pytest.mark.parametrize(("operation", "body"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_verdict_that_can_not_be_read_is_none(operation: str, body: Any) -> None:
    with pytest.raises(ProviderServerError) as caught:
        read(operation, ["a", "b"], body)
    assert caught.value.kind is Kind.BAD_RESPONSE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_no_json_raises_anything_but_a_call_error(data: Any) -> None:
    for operation in ("moderation", "classification"):
        for body in (
            data,
            {"results": data},
            {"results": [data], "usage": data, "model": data},
            {"results": [{"categories": data, "category_scores": data}]},
            {"results": [{"a": {"scores": data}}]},
        ):
            try:
                reply = read(operation, "a", body)
            except CallError:
                continue
            assert reply.raw == body


@settings(max_examples=150, deadline=None)
@given(JSON)
def test_no_input_raises_anything_but_a_refusal(data: Any) -> None:
    for operation in ("moderation", "classification"):
        try:
            path, wire = sent(operation, data)
        except BadRequestError:
            continue
        assert set(wire) == {"input"}
        assert path.startswith(("/v1/moderations", "/v1/classifications", "/v1/chat/"))
