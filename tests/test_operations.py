"""Every operation of the Router, from blocking and from async code, on a real server."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from bifrost_core import (
    BadRequestError,
    Call,
    ClassificationResponse,
    ConfigError,
    Key,
    Message,
    Mistral,
    Operation,
    PluginError,
    Request,
    Response,
    Router,
    SpeechResponse,
    SyncRouter,
    UnsupportedParameterError,
    Usage,
    hookimpl,
)
from bifrost_core.testing import FakeClock, SimulatedKey, SimulatedMistral

SECRET = "sk-simulated-1"
MODEL = "mistral/codestral-latest"
EMBED = "mistral/mistral-embed"
MODERATE = "mistral/mistral-moderation-latest"
LIMITS = (("small", 20), ("large", 100_000))


@pytest.fixture
async def server() -> AsyncIterator[SimulatedMistral]:
    async with SimulatedMistral([SECRET], keep_bodies=True) as running:
        yield running


async def test_a_gap_is_filled(server: SimulatedMistral) -> None:
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        reply = await router.fim(MODEL, "def add(a, b):\n", "\nprint(add(1, 2))", max_tokens=20, temperature=0)
        async with router.stream_fim(MODEL, "def add(a, b):\n") as stream:
            text = "".join([piece async for piece in stream.text()])
    assert reply.text
    assert text == stream.response.text
    first, second = server.requests
    assert [first.path, second.path] == ["/v1/fim/completions"] * 2
    assert msgspec.json.decode(first.body or b"") == {
        "model": "codestral-latest",
        "prompt": "def add(a, b):\n",
        "suffix": "\nprint(add(1, 2))",
        "max_tokens": 20,
        "temperature": 0,
    }
    assert msgspec.json.decode(second.body or b"") == {
        "model": "codestral-latest",
        "prompt": "def add(a, b):\n",
        "stream": True,
    }


def test_a_gap_is_filled_from_blocking_code() -> None:
    with SimulatedMistral([SECRET]) as server, SyncRouter([Mistral([SECRET], base_url=server.base_url)]) as router:
        assert router.fim(MODEL, "def add(a, b):\n", max_tokens=20).usage.output_tokens <= 20
        with router.stream_fim(MODEL, "def add(a, b):\n") as stream:
            text = "".join(stream.text())
        assert text == stream.response.text


async def test_a_prompt_that_is_no_string_is_refused_by_name(server: SimulatedMistral) -> None:
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        with pytest.raises(ConfigError, match="suffix is int; pass a string"):
            await router.fim(MODEL, "x", 3)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="stream is no parameter"):
            await router.fim(MODEL, "x", stream=True)
    assert server.requests == ()


async def test_an_answer_of_the_wrong_kind_is_the_plugins_fault(server: SimulatedMistral) -> None:
    class Confused:
        @hookimpl
        def bifrost_cached_response(self) -> Response:
            return Response(model="codestral-latest")

    async with Router([Mistral([SECRET], base_url=server.base_url)], plugins=[Confused()]) as router:
        with pytest.raises(PluginError, match="a plugin answered fim with Response; return a ChatResponse"):
            await router.fim(MODEL, "x")
    assert Operation("classification") is Operation.CLASSIFICATION


def bodies(server: SimulatedMistral) -> list[tuple[str, Any]]:
    return [(request.path, msgspec.json.decode(request.body or b"null")) for request in server.requests]


async def test_texts_become_vectors(server: SimulatedMistral) -> None:
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        one = await router.embed(EMBED, "Bifröst")
        many = await router.embed(EMBED, (word for word in ("Bifröst", "Heimdall")), user="ann")
        packed = await router.embed(EMBED, ["Heimdall"], encoding_format="base64")
        small = await router.embed("mistral/codestral-embed", ["x"], dimensions=16, output_dtype="int8")
    assert [len(vector) for vector in many.embeddings] == [1024, 1024]
    assert many.embeddings[0] == one.embeddings[0]
    assert list(packed.embeddings[0]) == many.embeddings[1]
    assert isinstance(packed.raw["data"][0]["embedding"], str)
    assert [type(number) for number in small.embeddings[0]] == [int] * 16
    assert many.usage == Usage(input_tokens=many.raw["usage"]["prompt_tokens"], requests=1)
    assert many.cost == Decimal("0.1") * many.usage.input_tokens / 1_000_000
    assert bodies(server)[1:] == [
        ("/v1/embeddings", {"model": "mistral-embed", "input": ["Bifröst", "Heimdall"]}),
        ("/v1/embeddings", {"model": "mistral-embed", "input": ["Heimdall"], "encoding_format": "base64"}),
        (
            "/v1/embeddings",
            {"model": "codestral-embed", "input": ["x"], "output_dimension": 16, "output_dtype": "int8"},
        ),
    ]


@pytest.mark.parametrize(
    ("given", "says", "field"),
    [
        pytest.param(7, "input is int; pass a string or a list of strings", "input", id="a number"),
        pytest.param(b"x", "input is bytes", "input", id="bytes"),
        pytest.param({"text": "x"}, "input is dict", "input", id="an object"),
        pytest.param(None, "input is NoneType", "input", id="nothing"),
        pytest.param([], "input is empty", "input", id="empty"),
        pytest.param(["a", 3], r"input\[1\] is int; pass text \(tokens are not taken\)", "input[1]", id="tokens"),
        pytest.param([[1, 2]], r"input\[0\] is list", "input[0]", id="token arrays"),
        pytest.param(["a", b"b"], r"input\[1\] is bytes", "input[1]", id="bytes in a list"),
    ],
)
async def test_what_is_no_text_is_refused_by_name(server: SimulatedMistral, given: Any, says: str, field: str) -> None:
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        with pytest.raises(ConfigError, match=says) as caught:
            await router.embed(EMBED, given)
        assert caught.value.field == field
        with pytest.raises(ConfigError, match="stream is no parameter"):
            await router.embed(EMBED, "x", stream=True)
        with pytest.raises(UnsupportedParameterError, match="did you mean dimensions"):
            await router.embed(EMBED, "x", dimension=3)
    assert server.requests == ()


async def test_texts_are_moderated_one_by_one(server: SimulatedMistral) -> None:
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        reply = await router.moderate(MODERATE, ["about sexual things", "about flowers"])
        single = await router.moderate(MODERATE, "about pii")
    assert [result.flagged for result in reply.results] == [True, False]
    assert [name for name, applies in reply.results[0].categories.items() if applies] == ["sexual"]
    assert reply.results[0].scores["sexual"] == 0.97
    assert [result.flagged for result in single.results] == [True]
    counted = reply.raw["usage"]
    assert counted["total_tokens"] > counted["prompt_tokens"]
    assert reply.usage == Usage(input_tokens=counted["prompt_tokens"], requests=1)
    assert [path for path, _ in bodies(server)] == ["/v1/moderations"] * 2


@pytest.mark.parametrize(
    ("given", "body"),
    [
        pytest.param("a", "a", id="a text"),
        pytest.param(("a", "b"), ["a", "b"], id="texts"),
        pytest.param(Message("user", "a"), [{"role": "user", "content": "a"}], id="a message"),
        pytest.param({"role": "user", "content": "a"}, [{"role": "user", "content": "a"}], id="a message as a dict"),
        pytest.param(
            [Message("user", "a"), {"role": "assistant", "content": "b"}],
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            id="a conversation",
        ),
        pytest.param(
            ([Message("user", "a")], [{"role": "user", "content": "b"}]),
            [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]],
            id="conversations",
        ),
    ],
)
async def test_hooks_see_what_is_moderated_in_one_shape(server: SimulatedMistral, given: Any, body: Any) -> None:
    seen: list[Request] = []

    class Watch:
        @hookimpl
        def bifrost_cached_response(self, request: Request) -> Response:
            seen.append(request)
            return Response()

    async with Router([Mistral([SECRET], base_url=server.base_url)], plugins=[Watch()]) as router:
        with pytest.raises(PluginError, match="answered moderation with Response; return a ModerationResponse"):
            await router.moderate(MODERATE, given)
    assert seen == [Request(Operation.MODERATION, MODERATE, {"input": body})]


@pytest.mark.parametrize(
    ("given", "says", "field"),
    [
        pytest.param(7, "input is int", "input", id="a number"),
        pytest.param([], "input is empty", "input", id="empty"),
        pytest.param(
            ["a", Message("user", "b")], r"input\[0\] is str; pass a dict", "input[0]", id="texts and messages"
        ),
        pytest.param([["a"]], r"input\[0\]\[0\] is str; pass a dict", "input[0][0]", id="texts in texts"),
        pytest.param([[Message("user", "b")], "a"], r"input\[1\] is str; pass texts alone", "input[1]", id="mixed"),
        pytest.param([{"content": "a"}], r"input\[0\] has no role", "input[0].role", id="no role"),
    ],
)
async def test_what_can_not_be_moderated_is_refused_by_name(
    server: SimulatedMistral, given: Any, says: str, field: str
) -> None:
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        with pytest.raises(ConfigError, match=says) as caught:
            await router.moderate(MODERATE, given)
    assert (caught.value.field, server.requests) == (field, ())


async def test_an_operation_that_a_provider_does_not_do_is_named(server: SimulatedMistral) -> None:
    class Only(Mistral):
        codecs = {Operation.CHAT: Mistral.codecs[Operation.CHAT]}  # noqa: RUF012 # read only

    async with Router([Only([SECRET], base_url=server.base_url)]) as router:
        with pytest.raises(BadRequestError, match="provider 'mistral' does not do embeddings; it does chat"):
            await router.embed(EMBED, "x")
        with pytest.raises(BadRequestError, match="does not do models"):
            await router.models("mistral")
        assert await router.models() == []
    assert server.requests == ()


def test_vectors_verdicts_and_models_from_blocking_code() -> None:
    with SimulatedMistral([SECRET]) as server, SyncRouter([Mistral([SECRET], base_url=server.base_url)]) as router:
        assert len(router.embed(EMBED, ["a", "b"]).embeddings) == 2
        assert [result.flagged for result in router.moderate(MODERATE, ["a", "selfharm"]).results] == [False, True]
        names = {model.id for model in router.models("mistral")}
        assert {EMBED, MODERATE, MODEL} <= names
        assert names == {model.id for model in router.models()}


async def test_every_operation_passes_the_hooks_and_is_recorded(server: SimulatedMistral) -> None:
    seen: list[tuple[str, str, str]] = []

    class Watch:
        @hookimpl
        def bifrost_authorize(self, request: Request, call: Call) -> None:
            seen.append((call.operation, request.model, "asked"))

        @hookimpl
        def bifrost_call_finished(self, record: Any) -> None:
            seen.append((record.operation, record.model, record.outcome))

    async with Router([Mistral([SECRET], base_url=server.base_url)], plugins=[Watch()]) as router:
        await router.embed(EMBED, "x")
        await router.moderate(MODERATE, "x")
        await router.models()
    assert seen == [
        ("embeddings", EMBED, "asked"),
        ("embeddings", EMBED, "ok"),
        ("moderation", MODERATE, "asked"),
        ("moderation", MODERATE, "ok"),
        ("models", "mistral/*", "asked"),
        ("models", "mistral/*", "ok"),
    ]


async def test_conversations_are_moderated_as_a_whole(server: SimulatedMistral) -> None:
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        one = await router.moderate(MODERATE, [Message("user", "hi"), Message("assistant", "about selfharm")])
        both = await router.moderate(MODERATE, [[Message("user", "about pii")], [Message("user", "hi")]])
    assert [result.flagged for result in one.results] == [True]
    assert [result.flagged for result in both.results] == [True, False]
    assert [path for path, _ in bodies(server)] == ["/v1/chat/moderations"] * 2


@pytest.mark.parametrize("form", ["float", "int8", "uint8", "binary", "ubinary"])
async def test_base64_and_lists_hold_the_same_numbers(server: SimulatedMistral, form: str) -> None:
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        wanted: dict[str, Any] = {"dimensions": 64, "output_dtype": form}
        listed = await router.embed("mistral/codestral-embed", ["a", "b"], **wanted)
        packed = await router.embed("mistral/codestral-embed", ["a", "b"], encoding_format="base64", **wanted)
    assert [list(vector) for vector in packed.embeddings] == list(listed.embeddings)
    assert len(listed.embeddings[0]) == (8 if "binary" in form else 64)


async def test_texts_and_conversations_are_classified(server: SimulatedMistral) -> None:
    talk = {"messages": [{"role": "user", "content": "hi"}]}
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        texts = await router.send(Request("classification", MODERATE, {"input": ["a", "b"]}))
        talks = await router.send(Request("classification", MODERATE, {"input": talk}))
    assert isinstance(texts, ClassificationResponse)
    assert isinstance(talks, ClassificationResponse)
    assert [len(texts.results), len(talks.results)] == [2, 1]
    for result in (*texts.results, *talks.results):
        assert result
        assert all(isinstance(score, float) for labels in result.values() for score in labels.values())
    assert [path for path, _ in bodies(server)] == ["/v1/classifications", "/v1/chat/classifications"]
    assert bodies(server)[1][1]["input"] == talk


async def test_text_is_spoken_and_its_characters_are_counted(server: SimulatedMistral) -> None:
    said = {"input": "Good evening.", "voice": "en_paul_neutral", "response_format": "wav"}
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        reply = await router.send(Request("speech", "mistral/voxtral-mini-tts-latest", said))
        with pytest.raises(UnsupportedParameterError, match="speech is not streamed"):
            async with router.send_stream(Request("speech", "mistral/voxtral-mini-tts-latest", said, stream=True)):
                pass
    assert isinstance(reply, SpeechResponse)
    assert reply.audio.startswith(b"RIFF")
    assert (reply.format, reply.usage) == ("wav", Usage(characters=len("Good evening."), requests=1))
    assert bodies(server) == [("/v1/audio/speech", {"model": "voxtral-mini-tts-latest", **said})]


async def test_a_key_without_characters_left_is_avoided() -> None:
    keys = [
        SimulatedKey(f"sk-simulated-{each}", id=each, characters_per_minute=each_limit) for each, each_limit in LIMITS
    ]
    async with SimulatedMistral(keys) as server:
        provider = Mistral([Key(key.secret, id=key.id) for key in keys], base_url=server.base_url)
        async with Router([provider], clock=FakeClock(), rng=random.Random(3)) as router:
            for _ in range(12):
                await router.send(Request("speech", "mistral/voxtral-mini-tts-latest", {"input": "x" * 20}))
        assert [request.status for request in server.requests] == [200] * 12
        asked = Counter(request.key_id for request in server.requests)
    assert asked["small"] == 1
