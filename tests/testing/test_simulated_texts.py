"""Embeddings, moderation, classification and the model list of the simulated service."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import httpx
import pytest

from bifrost_core.testing import Fault, Simulated, SimulatedMistral, SimulatedModel
from bifrost_core.types import Operation

Json: TypeAlias = dict[str, Any]
Serve: TypeAlias = Callable[..., tuple[SimulatedMistral, httpx.Client]]
Send: TypeAlias = Callable[..., Awaitable[tuple[int, dict[str, str], bytes]]]

EMBED = "/v1/embeddings"
NEW, OLD = "mistral-moderation-2603", "mistral-moderation-2411"
COMMON = ["sexual", "hate_and_discrimination", "violence_and_threats", "selfharm", "health", "financial", "law", "pii"]
NOTHING_ELSE = {
    "prompt_audio_seconds": None,
    "completion_tokens": 0,
    "prompt_tokens_details": None,
    "completion_tokens_details": None,
    "service_tier": None,
    "prompt_token_details": None,
}


def say(*texts: str) -> list[Json]:
    return [{"role": "user", "content": text} for text in texts]


# -- embeddings ----------------------------------------------------------------------------------------------------


def test_a_list_of_vectors_has_mistrals_shape(serve: Serve) -> None:
    server, client = serve()
    body = client.post(EMBED, json={"model": "mistral-embed", "input": "seven letters"}).json()
    assert len(body.pop("id")) == 32
    (vector,) = body.pop("data")
    assert len(vector.pop("embedding")) == 1024
    assert vector == {"object": "embedding", "index": 0}
    assert body == {
        "object": "list",
        "model": "mistral-embed",
        "usage": {**NOTHING_ELSE, "prompt_tokens": 4, "total_tokens": 4, "request_count": None},
    }
    assert (server.counters["a"].prompt_tokens, server.counters["a"].completion_tokens) == (4, 0)


@pytest.mark.parametrize(
    ("form", "code", "count"),
    [("float", "<20f", 20), ("int8", "<20b", 20), ("uint8", "<20B", 20), ("binary", "<3b", 3), ("ubinary", "<3B", 3)],
)
def test_base64_holds_the_same_numbers(serve: Serve, form: str, code: str, count: int) -> None:
    _, client = serve()
    wanted = {"model": "codestral-embed", "input": "one", "output_dimension": 20, "output_dtype": form}

    def vector(**more: str) -> Any:
        return client.post(EMBED, json={**wanted, **more}).json()["data"][0]["embedding"]

    numbers = vector(encoding_format="float")
    assert len(numbers) == count
    assert list(struct.unpack(code, base64.b64decode(vector(encoding_format="base64")))) == pytest.approx(numbers)


def test_all_number_formats_say_the_same(serve: Serve) -> None:
    _, client = serve()

    def vector(form: str) -> list[float]:
        asked = {"model": "codestral-embed", "input": "one", "output_dimension": 20, "output_dtype": form}
        return client.post(EMBED, json=asked).json()["data"][0]["embedding"]  # type: ignore[no-any-return]

    floats, small = vector("float"), vector("int8")
    bits = "".join("1" if value >= 0 else "0" for value in floats).ljust(24, "0")
    assert vector("uint8") == [value + 128 for value in small]
    assert vector("ubinary") == [int(bits[at : at + 8], 2) for at in (0, 8, 16)]
    assert vector("binary") == [value - 128 for value in vector("ubinary")]
    top = max(map(abs, floats))
    assert [value / max(map(abs, small)) for value in small] == pytest.approx(
        [value / top for value in floats], abs=0.01
    )


def test_fewer_dimensions_are_the_first_ones_of_length_one(serve: Serve) -> None:
    _, client = serve()

    def vector(**more: int) -> list[float]:
        asked = {"model": "codestral-embed", "input": "one", **more}
        return client.post(EMBED, json=asked).json()["data"][0]["embedding"]  # type: ignore[no-any-return]

    whole, few = vector(), vector(output_dimension=64)
    length = math.sqrt(sum(value * value for value in whole[:64]))
    assert (len(whole), len(vector(output_dimension=3_072))) == (1_536, 3_072)
    assert few == pytest.approx([value / length for value in whole[:64]])


@pytest.mark.parametrize(
    ("model", "dimensions", "status"),
    [
        ("mistral-embed", 1_024, 200),
        ("mistral-embed", 512, 400),
        ("codestral-embed", 3_073, 400),
        ("codestral-embed", 0, 422),
        ("codestral-embed", "8", 422),
    ],
)
def test_dimensions_that_a_model_does_not_have_are_refused(
    serve: Serve, model: str, dimensions: object, status: int
) -> None:
    _, client = serve()
    asked = {"model": model, "input": "x", "output_dimension": dimensions}
    assert client.post(EMBED, json=asked).status_code == status


@pytest.mark.parametrize("count", [256, 257])
def test_so_many_inputs_go_and_no_more(serve: Serve, count: int) -> None:
    _, client = serve()
    reply = client.post(EMBED, json={"model": "mistral-embed", "input": ["x"] * count, "output_dtype": "ubinary"})
    if count == 256:
        assert [each["index"] for each in reply.json()["data"]] == list(range(256))
    else:
        assert (reply.status_code, reply.json()["code"], reply.json()["type"]) == (
            400,
            "3210",
            "invalid_request_prompt",
        )


@pytest.mark.parametrize("name", ["dimensions", "user", "encoding"])
def test_members_of_other_services_are_refused(serve: Serve, name: str) -> None:
    _, client = serve()
    reply = client.post(EMBED, json={"model": "mistral-embed", "input": "x", name: 1})
    assert reply.json()["detail"] == [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 1}
    ]


# -- moderation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "extra", "hidden"),
    [(NEW, ["dangerous", "criminal", "jailbreaking"], 61), (OLD, ["dangerous_and_criminal_content"], 91)],
)
@pytest.mark.parametrize(
    ("path", "given"),
    [("/v1/moderations", "harmless"), ("/v1/moderations", ["harmless"]), ("/v1/chat/moderations", say("harmless"))],
    ids=["text", "texts", "chat"],
)
def test_a_moderation_has_mistrals_shape(
    serve: Serve, path: str, given: object, model: str, extra: list[str], hidden: int
) -> None:
    server, client = serve(key={"requests_per_minute": 500, "tokens_per_minute": 9_000})
    reply = client.post(path, json={"model": model, "input": given})
    body = reply.json()
    (result,) = body.pop("results")
    assert len(body.pop("id")) == 32
    assert body == {
        "model": model,
        "usage": {**NOTHING_ELSE, "prompt_tokens": 3, "total_tokens": 3 + hidden, "request_count": 1},
    }
    assert result["categories"] == dict.fromkeys([*COMMON, *extra], False)
    assert list(result["category_scores"]) == [*COMMON, *extra]
    assert all(0 < score < 0.01 for score in result["category_scores"].values())
    assert {name: value for name, value in reply.headers.items() if "ratelimit" in name} == {
        "x-ratelimit-limit-req-minute": "500",
        "x-ratelimit-remaining-req-minute": "499",
        "x-ratelimit-tokens-query-cost": "3",
    }
    assert server.counters["a"].prompt_tokens == 3


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("Threats!", ["violence_and_threats"]),
        ("hate, and LAW", ["hate_and_discrimination", "law"]),
        ("the content of a flawed lawn and its outlaws", []),
        ("a selfharm and pii text", ["selfharm", "pii"]),
        ("dangerous jailbreaking", ["dangerous", "jailbreaking"]),
        ("", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_text_that_holds_a_word_of_a_category_is_flagged(serve: Serve, text: str, flags: list[str]) -> None:
    _, client = serve()
    for path, given in (("/v1/moderations", [text, "calm"]), ("/v1/chat/moderations", [say(text), say("calm")])):
        results = client.post(path, json={"model": NEW, "input": given}).json()["results"]
        assert [[name for name, flag in each["categories"].items() if flag] for each in results] == [flags, []]
        assert [name for name, score in results[0]["category_scores"].items() if score == 0.97] == flags


def test_all_of_a_chat_is_looked_at(serve: Serve) -> None:
    _, client = serve()
    chat = [*say("calm"), {"role": "assistant", "content": [{"type": "text", "text": "some hate"}]}, *say("bye")]
    (result,) = client.post("/v1/chat/moderations", json={"model": NEW, "input": chat}).json()["results"]
    assert result["categories"]["hate_and_discrimination"]


@pytest.mark.parametrize(
    ("path", "change", "kind", "loc"),
    [
        pytest.param("/v1/moderations", {"input": 5}, "string_type", ["input"], id="number"),
        pytest.param("/v1/moderations", {"user": "x"}, "extra_forbidden", ["user"], id="extra"),
        pytest.param("/v1/moderations", {"metadata": 5}, "dict_type", ["metadata"], id="metadata"),
        pytest.param("/v1/classifications", {"model": None}, "string_type", ["model"], id="model"),
        pytest.param("/v1/chat/moderations", {"input": "x"}, "list_type", ["input"], id="text"),
        pytest.param("/v1/chat/moderations", {"input": ["x"]}, "union_tag_invalid", ["input", 0], id="texts"),
        pytest.param("/v1/chat/moderations", {"input": [[5]]}, "union_tag_invalid", ["input", 0, 0], id="numbers"),
        pytest.param(
            "/v1/chat/moderations",
            {"input": [{"role": "user", "content": 5}]},
            "list_type",
            ["input", 0, "user", "content"],
            id="content",
        ),
        pytest.param("/v1/chat/classifications", {"input": "x"}, "dict_type", ["input"], id="class-text"),
        pytest.param("/v1/chat/classifications", {"input": [{}]}, "missing", ["input", 0, "messages"], id="no-messages"),
    ],
)  # fmt: skip
def test_bad_members_are_a_422(serve: Serve, path: str, change: Json, kind: str, loc: list[object]) -> None:
    _, client = serve()
    good: Json = {"model": NEW, "input": "x"}
    reply = client.post(path, json={**good, **change})
    (finding,) = reply.json()["detail"]
    assert (reply.status_code, finding["type"], finding["loc"]) == (422, kind, ["body", *loc])


@pytest.mark.parametrize("path", ["/v1/moderations", "/v1/classifications"])
def test_a_model_that_only_chats_judges_nothing(serve: Serve, path: str) -> None:
    _, client = serve()
    reply = client.post(path, json={"model": "mistral-small-latest", "input": "x"})
    assert (reply.status_code, reply.json()["code"]) == (400, "1500")


# -- classification ------------------------------------------------------------------------------------------------


def test_a_classifier_has_the_targets_and_labels_it_is_given(serve: Serve) -> None:
    moods = SimulatedModel(
        "moods", (), {"classification"}, targets={"mood": ("happy", "sad"), "size": ("big", "small")}
    )
    _, client = serve(models=[moods])
    for path, given in (
        ("/v1/classifications", ["Happy days", "a big sad bear"]),
        ("/v1/chat/classifications", [{"messages": say("Happy days")}, {"messages": say("a big", "sad bear")}]),
    ):
        body = client.post(path, json={"model": "moods", "input": given}).json()
        assert list(body) == ["id", "usage", "model", "results"]
        best = [
            {target: max(each["scores"], key=each["scores"].get) for target, each in result.items()}
            for result in body["results"]
        ]
        assert best[0]["mood"] == "happy"
        assert best[1] == {"mood": "sad", "size": "big"}
        assert sum(body["results"][0]["mood"]["scores"].values()) == pytest.approx(1)


def test_without_targets_a_classifier_tells_moderations_categories(serve: Serve) -> None:
    _, client = serve()
    asked = {"model": NEW, "input": {"messages": say("the law")}}
    (result,) = client.post("/v1/chat/classifications", json=asked).json()["results"]
    assert list(result) == ["category"]
    assert max(result["category"]["scores"], key=result["category"]["scores"].get) == "law"


# -- models and what is not there ----------------------------------------------------------------------------------


def test_the_models_that_come_with_it_say_what_they_can_do(serve: Serve) -> None:
    _, client = serve()
    listed = {entry["id"]: entry for entry in client.get("/v1/models").json()["data"]}

    def able(name: str) -> list[str]:
        return [each for each, there in listed[name]["capabilities"].items() if there]

    assert able("mistral-embed") == able("codestral-embed") == []
    assert able("voxtral-mini-latest") == ["audio_transcription"]
    assert able("mistral-ocr-latest") == ["function_calling", "vision", "ocr"]
    assert able("voxtral-mini-tts-latest") == ["audio_speech"]
    assert (listed["devstral-latest"]["deprecation"], listed["devstral-latest"]["deprecation_replacement_model"]) == (
        "2026-08-31T12:00:00Z",
        "mistral-medium-3-5",
    )
    assert {entry["name"] for entry in listed.values()} <= listed.keys()


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens", "/v1/agents/completions"])
def test_an_endpoint_that_nobody_should_rely_on_is_not_there(serve: Serve, path: str) -> None:
    _, client = serve()
    reply = client.post(path, json={"model": "mistral-small-latest", "input": "hi"})
    assert reply.status_code == 404
    assert reply.json() == {"message": "no Route matched with those values", "request_id": reply.json()["request_id"]}


# -- faults, and without a network ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (EMBED, {"model": "mistral-embed", "input": "x"}),
        ("/v1/moderations", {"model": NEW, "input": "x"}),
        ("/v1/chat/moderations", {"model": NEW, "input": say("x")}),
        ("/v1/classifications", {"model": NEW, "input": "x"}),
        ("/v1/audio/speech", {"input": "x"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_faults_meet_every_endpoint(serve: Serve, path: str, asked: Json) -> None:
    server, client = serve(Fault("not_json", first=2, last=2), Fault("status", status=429, last=1))
    assert client.post(path, json=asked).status_code == 429
    with pytest.raises(json.JSONDecodeError):
        client.post(path, json=asked).json()
    assert client.post(path, json=asked).status_code == 200
    assert server.counters["a"].faults == {"status": 1, "not_json": 1}


async def test_without_a_network_it_answers_the_same(serve: Serve, exchange: Send) -> None:
    provider, (_, client) = Simulated(["one"]), serve()
    for path, asked in (
        (EMBED, {"model": "mistral-embed", "input": ["a", "b"], "output_dtype": "int8"}),
        ("/v1/chat/moderations", {"model": OLD, "input": say("hate")}),
        ("/v1/classifications", {"model": NEW, "input": "law"}),
    ):
        status, headers, data = await exchange(provider, "POST", path, json=asked)
        here, there = json.loads(data), client.post(path, json=asked).json()
        assert (status, here.pop("id") != there.pop("id")) == (200, True)
        assert here == there
        assert headers["x-ratelimit-tokens-query-cost"] == str(there["usage"]["prompt_tokens"])


def test_it_serves_what_its_adapter_writes() -> None:
    operations = Simulated(["one"]).operations
    assert operations >= {Operation.CHAT}
    assert operations == Simulated(["one"])._adapter.operations
