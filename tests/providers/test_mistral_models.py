"""Lists of models with bytes alone: one entry per name, whatever the entry leaves out.

Facts: https://docs.mistral.ai/api/endpoint/models; lists of 2024 have entries without ``capabilities``.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import (
    Kind,
    Mistral,
    ModelInfo,
    ModelList,
    ProviderServerError,
    Request,
    UnsupportedParameterError,
    Usage,
)
from bifrost_core.errors import CallError
from bifrost_core.wire import HttpReply

MISTRAL = Mistral(["sk-canary-aaaaaaaaaaaaaaaa"])
ASKED = Request("models", "*")


def read(body: Any) -> ModelList:
    response = MISTRAL.decode(ASKED, HttpReply(200, {"x-a": "b"}, json.dumps(body).encode(), 0.0))
    assert isinstance(response, ModelList)
    return response


def entry(name: str, /, **members: Any) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": 1,
        "owned_by": "mistralai",
        "name": "devstral-2512",
        "aliases": [other for other in ("devstral-2512", "devstral-latest") if other != name],
        "capabilities": {"completion_chat": True, "vision": False, "function_calling": True},
        "max_context_length": 262144,
        "deprecation": "2026-08-31T12:00:00Z",
        "deprecation_replacement_model": "mistral-medium-3-5",
        "default_model_temperature": 0.2,
        "type": "base",
        **members,
    }


def test_the_list_is_fetched_without_a_body() -> None:
    call = MISTRAL.encode(ASKED)
    assert (call.method, call.url, call.body, call.output_upper) == ("GET", "https://api.mistral.ai/v1/models", b"", 0)
    assert b"content-type" not in dict(call.headers)


def test_there_is_one_entry_for_each_name_of_a_model() -> None:
    body: dict[str, Any] = {"object": "list", "data": [entry("devstral-2512"), entry("devstral-latest")]}
    reply = read(body)
    same: dict[str, Any] = {
        "provider": "mistral",
        "name": "devstral-2512",
        "capabilities": {"completion_chat", "function_calling"},
        "context_length": 262144,
        "deprecation": "2026-08-31T12:00:00Z",
        "replacement": "mistral-medium-3-5",
    }
    assert reply.models == (
        ModelInfo(id="mistral/devstral-2512", aliases=["devstral-latest"], raw=body["data"][0], **same),
        ModelInfo(id="mistral/devstral-latest", aliases=["devstral-2512"], raw=body["data"][1], **same),
    )
    assert (reply.raw, reply.usage, reply.headers) == (body, Usage(requests=1), {"x-a": "b"})


def test_an_entry_of_2024_says_little_and_is_read() -> None:
    old = {"id": "open-mistral-7b", "object": "model", "created": 1, "owned_by": "mistralai", "root": None}
    assert read({"data": [old]}).models == (
        ModelInfo(id="mistral/open-mistral-7b", provider="mistral", name="open-mistral-7b", raw=old),
    )


def test_a_name_that_comes_twice_is_listed_once() -> None:
    first, second = entry("a"), entry("a", max_context_length=1)
    assert [model.raw for model in read({"data": [first, second]}).models] == [first]


def test_ids_carry_the_providers_own_name() -> None:
    eu = Mistral(["sk-canary-aaaaaaaaaaaaaaaa"], name="eu", base_url="https://api.eu.mistral.ai")
    reply = eu.decode(ASKED, HttpReply(200, {}, json.dumps({"data": [entry("a")]}).encode(), 0.0))
    assert isinstance(reply, ModelList)
    assert [(model.id, model.provider) for model in reply.models] == [("eu/a", "eu")]


@pytest.mark.parametrize(
    ("members", "read_as"),
    [
        pytest.param({"capabilities": ["vision"]}, {"capabilities": frozenset()}, id="capabilities in a list"),
        pytest.param({"capabilities": {"vision": 1}}, {"capabilities": frozenset()}, id="a flag that is no boolean"),
        pytest.param({"aliases": None}, {"aliases": ()}, id="no aliases"),
        pytest.param({"aliases": ["b", 7]}, {"aliases": ("b",)}, id="an alias that is no name"),
        pytest.param({"max_context_length": "x"}, {"context_length": None}, id="a length that is none"),
        pytest.param({"max_context_length": True}, {"context_length": None}, id="a boolean as length"),
        pytest.param({"name": ""}, {"name": "a"}, id="an empty name"),
        pytest.param({"deprecation": None}, {"deprecation": None}, id="not deprecated"),
    ],
)
def test_what_an_entry_says_badly_it_does_not_say(members: dict[str, Any], read_as: dict[str, Any]) -> None:
    (model,) = read({"data": [entry("a", **members)]}).models
    assert {name: getattr(model, name) for name in read_as} == read_as
    assert model.raw == entry("a", **members)


@pytest.mark.parametrize(
    "body",
    [{}, {"data": {}}, {"data": [1]}, {"data": [{"object": "model"}]}, {"data": [{"id": ""}]}, []],
    ids=["nothing", "an object", "a number", "no id", "an empty id", "a list"],
)
def test_a_list_without_names_is_none(body: Any) -> None:
    with pytest.raises(ProviderServerError) as caught:
        read(body)
    assert caught.value.kind is Kind.BAD_RESPONSE


@pytest.mark.parametrize("body", [{"limit": 3}, {"extra_body": {"limit": 3}}], ids=["a field", "extra_body"])
def test_a_field_is_refused_by_name(body: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        MISTRAL.encode(Request("models", "*", body))
    assert caught.value.parameter == next(iter(body))
    assert MISTRAL.encode(Request("models", "*", {"limit": None, "extra_body": {}})).body == b""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON, st.sampled_from(["aliases", "capabilities", "name", "max_context_length", "deprecation", "id"]))
def test_no_json_raises_anything_but_a_call_error(data: Any, member: str) -> None:
    for body in (data, {"data": data}, {"data": [data]}, {"data": [entry("a", **{member: data})]}):
        try:
            reply = read(body)
        except CallError:
            continue
        assert reply.raw == body
