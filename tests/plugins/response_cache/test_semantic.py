"""The second layer: similar questions, in the same surroundings, of the same party."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

import anyio
import numpy as np
import pytest
import trio.testing
from bifrost_plugins.response_cache import ResponseCachePlugin, Semantic
from bifrost_plugins.response_cache._semantic import question_of
from bifrost_plugins.response_cache._vectors import Vectors
from bifrost_plugins.stores import MemoryStore

from bifrost_core import (
    CallRecord,
    ChatResponse,
    ConfigError,
    Operation,
    PriceBook,
    ProviderServerError,
    RefusedError,
    Request,
    RetryPolicy,
    Router,
    hookimpl,
)
from bifrost_core.providers import Mistral
from bifrost_core.testing import FakeClock, Fault, Simulated, SimulatedKey, SimulatedMistral

from .conftest import MODEL, PRICES, Tenants, until

EMBED = "simulated/embed"


def said(text: str, how: int = 0) -> list[dict[str, Any]]:
    """The same words in two forms: different requests, equal vectors."""
    return [{"role": "user", "content": [text, [{"type": "text", "text": text}]][how]}]


def requests_of(provider: Simulated, path: str) -> int:
    return sum(request.path == path for request in provider.journal)


def router_of(provider: Simulated, *plugins: object) -> Router:
    return Router([provider], plugins=plugins, prices=PriceBook(provider.prices))


async def test_a_similar_question_gets_the_answer_that_is_there(provider: Simulated) -> None:
    records: list[CallRecord] = []

    class Records:
        @hookimpl
        def bifrost_call_finished(self, record: CallRecord) -> None:
            records.append(record)

    cache = ResponseCachePlugin(semantic=Semantic(EMBED))
    async with router_of(provider, cache, Records()) as router:
        first = await router.chat(MODEL, said("hi"))
        second = await router.chat(MODEL, said("hi", 1))
        other = await router.chat(MODEL, said("something else"))
    assert (second.cached, second.text, second.cost) == (True, first.text, Decimal(0))
    assert not other.cached
    stats = cache.stats()
    assert (stats.hits, stats.semantic_hits, stats.embeddings, stats.vectors) == (1, 1, 3, 2)
    embedded = [record for record in records if record.operation is Operation.EMBEDDINGS]
    assert len(embedded) == 3
    assert stats.embedding_cost == sum(record.cost or 0 for record in embedded) > 0
    assert embedded[0].metadata == {"response_cache": first.call_id}
    assert requests_of(provider, "/v1/chat/completions") == 2


async def test_an_exact_hit_embeds_nothing_and_nor_does_a_stampede_more_than_once(provider: Simulated) -> None:
    cache = ResponseCachePlugin(semantic=Semantic(EMBED))
    async with router_of(provider, cache) as router:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(router.chat, MODEL, said("hi"))
        await router.chat(MODEL, said("hi"))
    assert requests_of(provider, "/v1/embeddings") == 1
    assert requests_of(provider, "/v1/chat/completions") == 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"model": "simulated/large"}, id="model"),
        pytest.param({"temperature": 0.1}, id="parameters"),
        pytest.param({"messages": [{"role": "system", "content": "be rude"}, *said("hi", 1)]}, id="system prompt"),
        pytest.param(
            {"messages": [*said("a"), {"role": "assistant", "content": "b"}, *said("hi", 1)]}, id="conversation"
        ),
        pytest.param({"virtual_key": "sk-bf-umbrella-1"}, id="tenant"),
    ],
)
async def test_other_surroundings_are_another_partition(provider: Simulated, changes: dict[str, Any]) -> None:
    cache = ResponseCachePlugin(semantic=Semantic(EMBED))
    async with router_of(provider, Tenants(), cache) as router:
        asked: dict[str, Any] = {"model": MODEL, "messages": said("hi", 1), "virtual_key": "sk-bf-acme-1"}
        await router.chat(**{**asked, "messages": said("hi")})
        assert not (await router.chat(**{**asked, **changes})).cached
        assert (await router.chat(**{**asked, "virtual_key": "sk-bf-acme-2"})).cached


async def test_embedding_passes_authentication_with_the_callers_key(provider: Simulated) -> None:
    class NoEmbeddings:
        @hookimpl
        def bifrost_authorize(self, request: Request) -> None:
            if request.operation is Operation.EMBEDDINGS:
                raise RefusedError("not for you")

    cache = ResponseCachePlugin(semantic=Semantic(EMBED))
    async with router_of(provider, Tenants(), NoEmbeddings(), cache) as router:
        answers = [await router.chat(MODEL, said("hi", n % 2), virtual_key="sk-bf-acme-1") for n in range(3)]
    assert [answer.cached for answer in answers] == [False, False, True]  # the third is an exact hit
    assert (cache.stats().embedding_failures, cache.stats().embeddings) == (2, 0)


def test_an_embedding_that_takes_too_long_is_a_miss() -> None:
    async def main() -> tuple[list[bool], int, float]:
        provider = Simulated([SimulatedKey("one")], prices=PRICES)
        slow = Simulated([SimulatedKey("two", faults=Fault("hang", count=1))], name="slow")
        cache = ResponseCachePlugin(semantic=Semantic("slow/embed", timeout=3))
        async with Router([provider, slow], plugins=[cache]) as router:
            began = anyio.current_time()
            cached = [(await router.chat(MODEL, said("hi", n))).cached for n in (0, 1)]  # no vector of the first
            return cached, cache.stats().embedding_failures, anyio.current_time() - began

    cached, failures, seconds = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert (cached, failures) == ([False, False], 1)
    assert 3 <= seconds < 4


async def test_a_leader_that_is_cancelled_while_its_text_is_embedded_hands_over() -> None:
    provider = Simulated([SimulatedKey("one")], prices=PRICES)
    slow = Simulated([SimulatedKey("two", faults=Fault("hang"))], name="slow")
    cache = ResponseCachePlugin(semantic=Semantic("slow/embed", timeout=60))
    answers: list[ChatResponse] = []
    async with Router([provider, slow], plugins=[cache]) as router:

        async def ask(scope: anyio.CancelScope) -> None:
            with scope:
                answers.append(await router.chat(MODEL, said("hi")))

        scopes = [anyio.CancelScope() for _ in range(3)]
        async with anyio.create_task_group() as group:
            group.start_soon(ask, scopes[0])
            await until(lambda: len(slow.journal) == 1)
            for scope in scopes[1:]:
                group.start_soon(ask, scope)
            await until(lambda: cache.stats().waiting == 2)
            scopes[0].cancel()
    assert sorted(answer.cached for answer in answers) == [False, True]
    assert (len(provider.journal), len(slow.journal)) == (1, 1)


async def test_an_heir_keeps_what_its_leader_had_embedded() -> None:
    fault = Fault("status", status=500, count=1, delay=1.0)
    provider = Simulated([SimulatedKey("one", faults=fault)], prices=PRICES)
    embedder = Simulated(["two"], name="embedder")
    cache = ResponseCachePlugin(semantic=Semantic("embedder/embed"))
    async with Router([provider, embedder], plugins=[cache], retry=RetryPolicy(max_attempts=1)) as router:

        async def fail() -> None:
            with pytest.raises(ProviderServerError):
                await router.chat(MODEL, said("hi"))

        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await until(lambda: len(provider.journal) == 1)
            assert not (await router.chat(MODEL, said("hi"))).cached
        assert (await router.chat(MODEL, said("hi", 1))).cached
    assert len(embedder.journal) == 2


async def test_a_vector_whose_answer_is_gone_is_forgotten(provider: Simulated) -> None:
    clock = FakeClock()
    cache = ResponseCachePlugin(ttl=60, semantic=Semantic(EMBED), clock=clock)
    async with router_of(provider, cache) as router:
        await router.chat(MODEL, said("hi"))
        clock.advance(61)
        assert not (await router.chat(MODEL, said("hi", 1))).cached
    assert cache.stats().vectors == 1


async def test_it_works_over_a_store_on_streams_and_responses(provider: Simulated) -> None:
    cache = ResponseCachePlugin(MemoryStore(), semantic=Semantic(EMBED))
    async with router_of(provider, cache) as router:
        first = await router.chat(MODEL, said("hi"))
        async with router.stream(MODEL, said("hi", 1)) as stream:
            assert "".join([chunk.text async for chunk in stream]) == first.text
        item = {"role": "user", "content": [{"type": "input_text", "text": "ho"}]}
        told = await router.responses(MODEL, "ho")
        again = await router.responses(MODEL, [item])
    assert (told.cached, again.cached, again.output_text) == (False, True, told.output_text)
    assert cache.stats().semantic_hits == 2


async def test_it_works_on_a_real_server() -> None:
    with SimulatedMistral(["sk-simulated-1"]) as server:
        provider = Mistral(["sk-simulated-1"], base_url=server.base_url)
        cache = ResponseCachePlugin(semantic=Semantic("mistral/mistral-embed"))
        async with Router([provider], plugins=[cache]) as router:
            first = await router.chat("mistral/mistral-small-latest", said("hi"))
            second = await router.chat("mistral/mistral-small-latest", said("hi", 1))
        assert (second.cached, second.text) == (True, first.text)
        assert [request.path for request in server.requests].count("/v1/embeddings") == 2


# -- which text is compared ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        pytest.param(said("hi"), "hi", id="text"),
        pytest.param(said("hi", 1), "hi", id="one part"),
        pytest.param([{"role": "system", "content": "x"}, *said("hi")], "hi", id="the last one"),
        pytest.param([*said("hi"), {"role": "assistant", "content": "x"}], None, id="a prefix"),
        pytest.param([*said("hi"), {"role": "tool", "content": "x"}], None, id="a tool's result"),
        pytest.param(
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "b"}]}],
            None,
            id="an image",
        ),
        pytest.param(said(" "), None, id="nothing said"),
        pytest.param(said("x" * 101), None, id="too long"),
        pytest.param([], None, id="no messages"),
    ],
)
def test_only_the_text_of_a_last_user_message_is_compared(messages: list[Any], text: str | None) -> None:
    question = question_of(Request(Operation.CHAT, MODEL, {"messages": messages}), 100)
    assert (None if question is None else question.text) == text
    assert question_of(Request(Operation.FIM, MODEL, {"prompt": "hi"}), 100) is None


# -- vectors ------------------------------------------------------------------------------------


def test_the_nearest_vector_is_found_among_many() -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal((40, 256))
    rows = np.repeat(base, 20, axis=0) + 0.3 * rng.standard_normal((800, 256))  # in clusters, as texts are
    vectors = Vectors(1_000, 1_000)
    for number, row in enumerate(rows):
        vectors.add(b"p", row.tolist(), str(number))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for number in range(0, 800, 7):
        query = rows[number] + 0.05 * rng.standard_normal(256)
        cosines = units @ (query / np.linalg.norm(query))
        found = vectors.nearest(b"p", query.tolist())
        assert found is not None
        assert found[0] == str(int(np.argmax(cosines)))
        assert found[1] == pytest.approx(float(cosines.max()), abs=1e-5)
    assert vectors.nearest(b"q", rows[0].tolist()) is None


def test_the_bounds_hold_in_each_partition_and_over_all() -> None:
    rng = np.random.default_rng(4)
    vectors = Vectors(20, 8)
    last: dict[bytes, str] = {}
    for number in range(300):
        partition = b"%d" % rng.integers(5)
        vectors.add(partition, rng.standard_normal(16).tolist(), f"{number}")
        last[partition] = f"{number}"
        assert vectors.count <= 20
        assert vectors.count == sum(len(rows.keys) for rows in vectors._partitions.values())
        assert all(len(rows.keys) <= 8 for rows in vectors._partitions.values())
    assert all(key in vectors._partitions[name].keys for name, key in last.items() if name in vectors._partitions)


def test_the_least_recently_used_vector_goes_first_and_one_can_be_taken_out() -> None:
    vectors = Vectors(10, 2)
    vectors.add(b"p", [1.0, 0.0], "a")
    vectors.add(b"p", [0.0, 1.0], "b")
    found = vectors.nearest(b"p", [2.0, 0.1])
    assert found is not None
    assert (found[0], round(found[1], 4)) == ("a", 0.9988)
    vectors.add(b"p", [-1.0, 0.0], "c")
    assert vectors.nearest(b"p", [0.0, 1.0])[0] != "b"  # type: ignore[index]
    vectors.remove(b"p", "a")
    vectors.remove(b"p", "a")
    assert vectors.nearest(b"p", [1.0, 0.0]) == ("c", -1.0)
    vectors.remove(b"p", "c")
    assert (vectors.nearest(b"p", [1.0, 0.0]), vectors.count) == (None, 0)


@pytest.mark.parametrize(
    "vector", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]], ids=["zero", "NaN", "infinite"]
)
def test_what_has_no_direction_is_neither_kept_nor_found(vector: list[float]) -> None:
    vectors = Vectors(10, 10)
    vectors.add(b"p", vector, "a")
    assert vectors.count == 0
    vectors.add(b"p", [1.0, 0.0], "b")
    assert vectors.nearest(b"p", vector) is None
    assert vectors.nearest(b"p", [1.0, 0.0, 0.0]) is None  # of another model
    vectors.add(b"p", [1.0, 0.0, 0.0], "c")
    assert vectors.count == 1


# -- making one ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        pytest.param({"threshold": 0}, "threshold", id="threshold 0"),
        pytest.param({"threshold": 1.1}, "threshold", id="threshold over 1"),
        pytest.param({"max_vectors": 0}, "max_vectors", id="no vectors"),
        pytest.param({"partition_vectors": 1.5}, "partition_vectors", id="half a vector"),
        pytest.param({"max_characters": -1}, "max_characters", id="no characters"),
        pytest.param({"timeout": 0}, "timeout", id="no time"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Semantic(EMBED, **options)
    assert caught.value.field == field


def test_without_numpy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bifrost_plugins.response_cache._vectors")
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ConfigError, match=r"bifrost-core\[semantic\]"):
        Semantic(EMBED)
