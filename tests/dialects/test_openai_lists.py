"""Embeddings, moderation and models in OpenAI's dialect, byte by byte, without an SDK."""

from __future__ import annotations

import array
import base64
import json
from typing import Any

import pytest

from bifrost_core import EmbeddingResponse, ModerationResponse, ModerationResult, Usage, hookimpl

EMBED = "mistral/mistral-embed"
MODERATE = "mistral/mistral-moderation-latest"
NUMBERS = [0.5, -0.25, 1.0]


class Answers:
    """Answers every call itself, as a plugin may."""

    def __init__(self, response: Any) -> None:
        self.response = response

    @hookimpl
    def bifrost_cached_response(self) -> Any:
        return self.response


def in_base64(numbers: list[float]) -> str:
    return base64.b64encode(array.array("f", numbers).tobytes()).decode()


async def test_vectors_come_in_the_form_that_was_asked_for(opened: Any) -> None:
    body = {"model": EMBED, "input": ["a", "b"]}
    async with opened() as (client, provider, _):
        plain = (await client.post("/openai/v1/embeddings", json=body)).json()
        packed = (await client.post("/openai/v1/embeddings", json={**body, "encoding_format": "base64"})).json()
        assert json.loads(provider.journal[-1].body)["encoding_format"] == "base64"
    assert [item["index"] for item in plain["data"]] == [0, 1]
    for item, same in zip(plain["data"], packed["data"], strict=True):
        read = array.array("f", base64.b64decode(same["embedding"]))
        assert read == pytest.approx(array.array("f", item["embedding"]))
    assert plain["object"] == "list"
    assert plain["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("asked", "sent", "told"),
    [
        pytest.param("base64", NUMBERS, in_base64(NUMBERS), id="numbers as base64"),
        pytest.param("base64", in_base64(NUMBERS), in_base64(NUMBERS), id="base64 as it is"),
        pytest.param("float", in_base64(NUMBERS), NUMBERS, id="base64 as numbers"),
        pytest.param(None, NUMBERS, NUMBERS, id="numbers as they are"),
    ],
)
@pytest.mark.parametrize("has_raw", [True, False], ids=["of a provider", "made by hand"])
async def test_whatever_a_provider_sends_is_told_as_asked(
    opened: Any, asked: str | None, sent: Any, told: Any, has_raw: bool
) -> None:
    raw: dict[str, Any] = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": sent}]}
    answer = EmbeddingResponse(raw=raw if has_raw else {}, model="m", embeddings=[NUMBERS], usage=Usage(input_tokens=2))
    async with opened(plugins=[Answers(answer)]) as (client, _, _):
        body = {"model": EMBED, "input": "a", "encoding_format": asked}
        reply = (await client.post("/openai/v1/embeddings", json=body)).json()
    assert reply["data"] == [{"object": "embedding", "index": 0, "embedding": told}]
    if not has_raw:
        assert (reply["model"], reply["usage"]) == ("m", {"prompt_tokens": 2, "total_tokens": 2})


async def test_whole_numbers_stay_what_they_are(opened: Any) -> None:
    raw = {"data": [{"index": 0, "embedding": [1, -2]}]}
    async with opened(plugins=[Answers(EmbeddingResponse(raw=raw, embeddings=[[1, -2]]))]) as (client, _, _):
        body = {"model": EMBED, "input": "a", "encoding_format": "base64", "output_dtype": "int8"}
        assert (await client.post("/openai/v1/embeddings", json=body)).json() == raw


async def test_verdicts_say_whether_any_category_applies(opened: Any) -> None:
    async with opened() as (client, _, _):
        reply = (await client.post("/openai/v1/moderations", json={"model": MODERATE, "input": ["a", "b"]})).json()
    assert [result["flagged"] for result in reply["results"]] == [False, False]
    assert set(reply["results"][0]) == {"flagged", "categories", "category_scores"}
    assert reply["model"] == "mistral-moderation-latest"


async def test_one_text_part_is_the_text_that_it_holds(opened: Any) -> None:
    async with opened() as (client, provider, _):
        body = {"model": MODERATE, "input": [{"type": "text", "text": "a"}]}
        assert (await client.post("/openai/v1/moderations", json=body)).status_code == 200
        assert json.loads(provider.journal[-1].body)["input"] == "a"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param({}, id="made by hand"),
        pytest.param(
            {"id": "modr-1", "model": "m", "results": [{"flagged": True, "categories": {"a": True}}]}, id="of OpenAI"
        ),
    ],
)
async def test_a_verdict_is_written_on_where_it_is_openais_and_made_where_not(opened: Any, raw: Any) -> None:
    made = ModerationResponse(raw=raw, model="m", results=[ModerationResult(categories={"a": True}, scores={"a": 0.9})])
    async with opened(plugins=[Answers(made)]) as (client, _, _):
        reply = (await client.post("/openai/v1/moderations", json={"model": MODERATE, "input": "a"})).json()
    if raw:
        assert reply == raw
    else:
        assert reply["id"].startswith("modr-")
        assert reply["results"] == [{"flagged": True, "categories": {"a": True}, "category_scores": {"a": 0.9}}]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        pytest.param("embeddings", {"model": EMBED}, "input", id="no text to embed"),
        pytest.param("embeddings", {"model": EMBED, "input": "a", "stream": True}, "stream", id="vectors in pieces"),
        pytest.param("embeddings", {"model": EMBED, "input": "a", "dimensions": "3"}, "dimensions", id="dimensions"),
        pytest.param("embeddings", {"model": EMBED, "input": [[1, 2]]}, "input[0]", id="tokens"),
        pytest.param("moderations", {"model": MODERATE, "input": 3}, "input", id="nothing to judge"),
        pytest.param("moderations", {"input": "a"}, "model", id="nobody to judge"),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused_by_the_name_of_its_field(
    opened: Any, path: str, body: dict[str, Any], param: str
) -> None:
    async with opened() as (client, _, _):
        reply = await client.post(f"/openai/v1/{path}", json=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


async def test_models_are_listed_and_found_by_the_name_that_a_call_takes(opened: Any) -> None:
    async with opened(models=["one", "two"]) as (client, _, _):
        listed = (await client.get("/openai/v1/models")).json()
        found = await client.get("/openai/v1/models/mistral%2Ftwo")
        plain = await client.get("/openai/v1/models/mistral/two")
        missing = await client.get("/openai/v1/models/mistral%2Fthree")
    assert listed["object"] == "list"
    assert {model["id"] for model in listed["data"]} == {"mistral/one", "mistral/two"}
    assert all(model["object"] == "model" and type(model["created"]) is int for model in listed["data"])
    assert found.json() == plain.json() == next(each for each in listed["data"] if each["id"] == "mistral/two")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"
