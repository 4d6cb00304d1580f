"""``ResponseCachePlugin`` in a Router: hits, modes, lifetimes, what is never kept, guardrails, money."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any

import attrs
import pytest
from bifrost_plugins.response_cache import CacheStats, ResponseCachePlugin, plugin

from bifrost_core import (
    BadRequestError,
    Call,
    CallError,
    CallRecord,
    ChatResponse,
    Choice,
    ConfigError,
    GuardrailError,
    PriceBook,
    ProviderServerError,
    RefusedError,
    Request,
    Response,
    RetryPolicy,
    Router,
    SyncRouter,
    hookimpl,
)
from bifrost_core.providers import Mistral
from bifrost_core.testing import FakeClock, Fault, Simulated, SimulatedKey, SimulatedMistral
from bifrost_core.testing.plugins import check_plugin

from .conftest import MODEL, PRICES, Answers, Tenants


class Records:
    """Keeps how calls ended."""

    def __init__(self) -> None:
        self.seen: list[CallRecord] = []

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.seen.append(record)


def router_of(provider: Simulated, *plugins: object, **options: Any) -> Router:
    return Router([provider], plugins=plugins, prices=PriceBook(provider.prices), **options)


async def test_the_same_call_is_answered_from_memory(provider: Simulated) -> None:
    cache, records = ResponseCachePlugin(), Records()
    async with router_of(provider, records, cache) as router:
        first = await router.chat(MODEL, "hi", temperature=0.5)
        second = await router.chat(MODEL, "hi", temperature=0.5)
    assert len(provider.journal) == 1
    assert (first.cached, second.cached) == (False, True)
    assert first.cost is not None
    assert first.cost > 0
    assert (second.cost, second.attempts) == (Decimal(0), ())
    for name in ("text", "usage", "route", "raw", "model", "finish_reason", "message"):
        assert getattr(second, name) == getattr(first, name), name
    assert second.call_id == records.seen[1].call_id != first.call_id
    assert (records.seen[1].cached, records.seen[1].cost, records.seen[1].outcome) == (True, Decimal(0), "ok")
    assert 0 < second.latency < 10
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.stored, stats.entries, stats.saved) == (1, 1, 1, 1, first.cost)
    assert stats.hit_rate == 0.5
    assert stats.bytes > 0


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"messages": "ho"}, id="other words"),
        pytest.param({"temperature": 1}, id="a temperature"),
        pytest.param({"model": "simulated/large"}, id="another model"),
        pytest.param({"extra_body": {"safe_prompt": True}}, id="a field beside the shape"),
    ],
)
async def test_what_differs_in_anything_is_asked_anew(provider: Simulated, changes: dict[str, Any]) -> None:
    async with router_of(provider, ResponseCachePlugin()) as router:
        await router.chat(MODEL, "hi")
        other = await router.chat(**{"model": MODEL, "messages": "hi", **changes})
    assert not other.cached
    assert len(provider.journal) == 2


async def test_an_alias_and_the_forms_of_messages_make_no_difference(provider: Simulated) -> None:
    async with router_of(provider, ResponseCachePlugin(), aliases={"fast": MODEL}) as router:
        await router.chat(MODEL, "hi")
        again = await router.chat("fast", [{"content": "hi", "role": "user"}], session="s", metadata={"a": 1})
    assert again.cached


async def test_an_answer_that_its_owner_changes_stays_as_it_is_for_others(provider: Simulated) -> None:
    async with router_of(provider, ResponseCachePlugin()) as router:
        first = await router.chat(MODEL, "hi")
        first.raw.clear()
        first.message["content"] = "poison"
        second = await router.chat(MODEL, "hi")
        second.raw["choices"][0]["message"]["content"] = "poison"
        third = await router.chat(MODEL, "hi")
    assert third.text == "1: hi"
    assert third.raw["choices"][0]["message"]["content"] == "1: hi"


async def test_bypass_neither_takes_nor_stores(provider: Simulated) -> None:
    cache = ResponseCachePlugin()
    async with router_of(provider, cache) as router:
        texts = [(await router.chat(MODEL, "hi", cache=mode)).text for mode in ("bypass", "use", "bypass", "use")]
    assert texts == ["1: hi", "2: hi", "3: hi", "2: hi"]
    assert (cache.stats().hits, cache.stats().misses) == (1, 1)


async def test_refresh_asks_and_stores_anew(provider: Simulated) -> None:
    async with router_of(provider, ResponseCachePlugin()) as router:
        texts = [(await router.chat(MODEL, "hi", cache=mode)).text for mode in (None, "refresh", None)]
    assert texts == ["1: hi", "2: hi", "2: hi"]


async def test_only_takes_what_is_there_and_asks_nobody(provider: Simulated) -> None:
    async with router_of(provider, ResponseCachePlugin()) as router:
        with pytest.raises(RefusedError):
            await router.chat(MODEL, "hi", cache="only")
        assert provider.journal == ()
        await router.chat(MODEL, "hi")
        assert (await router.chat(MODEL, "hi", cache="only")).cached


async def test_an_answer_lives_as_long_as_the_cache_or_the_call_says(provider: Simulated) -> None:
    clock = FakeClock()
    async with router_of(provider, ResponseCachePlugin(ttl=60, clock=clock)) as router:

        async def cached(text: str, **options: Any) -> bool:
            return (await router.chat(MODEL, text, **options)).cached

        await cached("a")
        await cached("b", cache={"ttl": 10})
        await cached("c", cache={"ttl": 100})
        clock.advance(9.9)
        assert [await cached(each, cache="only") for each in "abc"] == [True, True, True]
        clock.advance(0.2)
        assert [await cached("a"), await cached("c")] == [True, True]
        assert not await cached("b", cache={"ttl": 10})
        assert not await cached("a", cache={"ttl": 5})  # older than this call takes: asked anew
        clock.advance(5)
        assert not await cached("a")  # that one was stored with five seconds to live
        clock.advance(59.9)
        assert await cached("a")
        clock.advance(0.1)
        assert [await cached("a"), await cached("c")] == [False, True]


async def test_the_bounds_of_the_memory_hold(provider: Simulated) -> None:
    cache = ResponseCachePlugin(max_entries=3)
    async with router_of(provider, cache) as router:
        for number in range(10):
            await router.chat(MODEL, f"{number}")
        assert [(await router.chat(MODEL, f"{number}")).cached for number in (9, 8, 7, 6)] == [True, True, True, False]
    assert (cache.stats().entries, cache.stats().evicted) == (3, 8)
    small = ResponseCachePlugin(max_bytes=100)
    async with router_of(provider, small) as router:
        await router.chat(MODEL, "hi")
    assert (small.stats().entries, small.stats().stored, small.stats().not_stored) == (0, 0, 1)


# -- what is never kept -------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["length", "content_filter", "model_length", "error"])
async def test_an_answer_that_is_cut_off_is_not_kept(provider: Simulated, answers: Answers, reason: str) -> None:
    answers.more = {"finish_reason": reason}
    cache = ResponseCachePlugin()
    async with router_of(provider, cache) as router:
        first: ChatResponse | None = None
        with suppress(CallError):  # "error" is a failure to the adapter
            first = await router.chat(MODEL, "hi")
        assert first is None or (first.finish_reason != "stop" and not first.cached)
        answers.more = {}
        second = await router.chat(MODEL, "hi")
        assert (second.cached, second.finish_reason) == (False, "stop")
        assert (await router.chat(MODEL, "hi")).text == second.text


async def test_a_failure_is_not_kept() -> None:
    provider = Simulated([SimulatedKey("one", faults=Fault("status", status=500, last=1))], prices=PRICES)
    cache = ResponseCachePlugin()
    async with router_of(provider, cache, retry=RetryPolicy(max_attempts=1)) as router:
        with pytest.raises(ProviderServerError):
            await router.chat(MODEL, "hi")
        assert not (await router.chat(MODEL, "hi")).cached
        assert (await router.chat(MODEL, "hi")).cached


async def test_a_stream_that_breaks_or_is_left_is_not_kept() -> None:
    fault = Fault("close", after=2, last=1, stream=True)
    provider = Simulated([SimulatedKey("one", faults=fault)], prices=PRICES)
    async with router_of(provider, ResponseCachePlugin(), retry=RetryPolicy(max_attempts=1)) as router:
        with pytest.raises(CallError):
            async with router.stream(MODEL, "hi") as stream:
                async for _ in stream:
                    pass
        async with router.stream(MODEL, "hi") as stream:
            async for _ in stream:
                break
        assert not (await router.chat(MODEL, "hi")).cached
    assert len(provider.journal) == 3


async def test_what_a_guardrail_blocks_is_not_kept(provider: Simulated) -> None:
    class Blocks:
        blocking = True

        @hookimpl
        def bifrost_guard_response(self, response: Response) -> None:
            if self.blocking:
                raise GuardrailError("no", side="output")

    guard = Blocks()
    async with router_of(provider, guard, ResponseCachePlugin()) as router:
        with pytest.raises(GuardrailError):
            await router.chat(MODEL, "hi")
        guard.blocking = False
        assert not (await router.chat(MODEL, "hi")).cached


async def test_what_a_plugin_made_of_an_error_is_not_kept() -> None:
    class Apology:
        @hookimpl
        def bifrost_recover(self, error: CallError) -> ChatResponse:
            return ChatResponse(choices=[Choice(text="sorry", finish_reason="stop")])

    provider = Simulated([SimulatedKey("one", faults=Fault("status", status=500, last=1))], prices=PRICES)
    async with router_of(provider, Apology(), ResponseCachePlugin(), retry=RetryPolicy(max_attempts=1)) as router:
        assert (await router.chat(MODEL, "hi")).text == "sorry"
        second = await router.chat(MODEL, "hi")
    assert second.text != "sorry"
    assert not second.cached


async def test_the_answer_of_a_fallback_is_not_kept_for_the_model_that_was_asked() -> None:
    broken = Simulated([SimulatedKey("one", faults=Fault("status", status=500, last=1))], name="broken")
    sound = Simulated(["one"], name="sound")
    cache = ResponseCachePlugin()
    retry = RetryPolicy(max_attempts_per_deployment=1)
    async with Router([broken, sound], plugins=[cache], retry=retry) as router:
        first = await router.chat("broken/m", "hi", fallbacks=["sound/m"])
        assert first.route.provider == "sound"
        assert not (await router.chat("sound/m", "hi")).cached
    assert cache.stats().not_stored == 1


async def test_calls_with_effects_take_no_part(provider: Simulated) -> None:
    async with router_of(provider, ResponseCachePlugin()) as router:
        await router.chat(MODEL, "hi")
        assert not (await router.chat(MODEL, "hi", effects="possible")).cached


async def test_temperature_plays_a_role_only_where_it_is_told_to(provider: Simulated) -> None:
    async with router_of(provider, ResponseCachePlugin(max_temperature=0.2)) as router:

        async def cached(**params: Any) -> bool:
            await router.chat(MODEL, "hi", **params)
            return (await router.chat(MODEL, "hi", **params)).cached

        assert [await cached(temperature=0), await cached(temperature=0.2)] == [True, True]
        assert [await cached(temperature=0.3), await cached()] == [False, False]


# -- guardrails ---------------------------------------------------------------------------------


class Redacts:
    """Replaces a word in answers, and counts."""

    def __init__(self, word: str, by: str) -> None:
        self.word, self.by, self.looked = word, by, 0

    @hookimpl
    def bifrost_guard_response(self, response: Response) -> Response | None:
        self.looked += 1
        text = getattr(response, "text", "")
        return response.with_text(text.replace(self.word, self.by)) if self.word in text else None


async def test_output_guardrails_look_at_every_hit_and_what_they_removed_is_nowhere(provider: Simulated) -> None:
    cache, guard = ResponseCachePlugin(), Redacts("canary", "[removed]")
    async with router_of(provider, guard, cache) as router:
        first = await router.chat(MODEL, "the canary sings")
        second = await router.chat(MODEL, "the canary sings")
    assert (first.text, second.text) == ("1: the [removed] sings",) * 2
    assert (second.cached, guard.looked) == (True, 2)
    assert "canary" not in str(second.raw)
    assert not [data for data in cache._memory if b"canary" in data]


async def test_a_guardrail_that_is_newer_than_the_answer_sees_it(provider: Simulated) -> None:
    cache = ResponseCachePlugin()
    async with router_of(provider, cache) as router:
        await router.chat(MODEL, "the canary sings")
    async with router_of(provider, Redacts("canary", "[removed]"), cache) as router:
        again = await router.chat(MODEL, "the canary sings")
        async with router.stream(MODEL, "the canary sings") as stream:
            streamed = "".join([chunk.text async for chunk in stream])
    assert (again.cached, again.text, streamed) == (True, "1: the [removed] sings", "1: the [removed] sings")


async def test_what_a_guardrail_puts_back_in_for_one_caller_is_not_given_to_another(provider: Simulated) -> None:
    class Masks:
        """Reversible redaction: the provider never sees the name, the caller does."""

        @hookimpl
        def bifrost_guard_request(self, request: Request, call: Call) -> Request:
            text = request.body["messages"][0]["content"].replace(call.metadata["name"], "<NAME>")
            return request.with_body(messages=[{"role": "user", "content": text}])

        @hookimpl
        def bifrost_guard_response(self, response: ChatResponse, call: Call) -> Response:
            return response.with_text(response.text.replace("<NAME>", call.metadata["name"]))

    async with router_of(provider, Masks(), ResponseCachePlugin()) as router:
        first = await router.chat(MODEL, "I am Alice", metadata={"name": "Alice"})
        second = await router.chat(MODEL, "I am Bob", metadata={"name": "Bob"})
    assert (first.text, second.text) == ("1: I am Alice", "2: I am Bob")


async def test_the_request_counts_as_the_guardrails_left_it(provider: Simulated) -> None:
    class Trims:
        @hookimpl
        def bifrost_guard_request(self, request: Request) -> Request:
            return request.with_body(messages=[{"role": "user", "content": "hi"}])

    async with router_of(provider, Trims(), ResponseCachePlugin()) as router:
        await router.chat(MODEL, "hi ")
        assert (await router.chat(MODEL, "hi  ")).cached


async def test_authentication_comes_before_every_hit(provider: Simulated) -> None:
    class Revokes(Tenants):
        revoked = False

        @hookimpl
        def bifrost_authorize(self) -> None:
            if self.revoked:
                raise RefusedError("revoked")

    auth = Revokes()
    async with router_of(provider, ResponseCachePlugin(), auth) as router:
        await router.chat(MODEL, "hi", virtual_key="sk-bf-acme-1")
        assert (await router.chat(MODEL, "hi", virtual_key="sk-bf-acme-2")).cached
        auth.revoked = True
        with pytest.raises(RefusedError):
            await router.chat(MODEL, "hi", virtual_key="sk-bf-acme-1")


# -- every operation ----------------------------------------------------------------------------


async def test_every_operation_is_answered_the_same_from_the_cache() -> None:
    cache = ResponseCachePlugin(operations=[*map(str, OPERATIONS)])
    provider = Simulated(["one"], prices=PRICES)
    async with router_of(provider, cache) as router:
        for ask in (
            lambda: router.chat("simulated/m", "hi", n=2),
            lambda: router.fim("simulated/m", "def f(", "return 1"),
            lambda: router.responses("simulated/m", "hi", instructions="be brief"),
            lambda: router.embed("simulated/m", ["a", "b"]),
            lambda: router.embed("simulated/m", ["a", "b"], encoding_format="base64"),
            lambda: router.moderate("simulated/m", ["a", "b"]),
            lambda: router.transcribe("simulated/m", b"ID3" + b"\0" * 4_000, timestamp_granularities=["segment"]),
            lambda: router.ocr("simulated/m", b"%PDF-1.7" + b" " * 4_000),
        ):
            first, second = await ask(), await ask()
            assert (first.cached, second.cached) == (False, True)
            own = {"cached", "cost", "attempts", "latency", "time_to_first_token", "call_id", "headers"}
            for field in attrs.fields(type(first)):
                if field.name not in own:
                    assert getattr(second, field.name) == getattr(first, field.name), (type(first), field.name)
        models = [await router.models(), await router.models()]
    assert models[0] == models[1]
    assert [request.path for request in provider.journal].count("/v1/models") == 1


OPERATIONS = ("chat", "fim", "responses", "embeddings", "moderation", "transcription", "ocr", "models")


async def test_lists_of_models_are_asked_anew_unless_told_otherwise() -> None:
    provider = Simulated(["one"])
    async with router_of(provider, ResponseCachePlugin()) as router:
        await router.models()
        await router.models()
    assert len(provider.journal) == 2


async def test_large_files_are_compared_by_their_bytes_too() -> None:
    provider = Simulated(["one"])
    cache = ResponseCachePlugin()
    sound = b"ID3" + b"\0" * (2 << 20)
    async with router_of(provider, cache) as router:
        assert not (await router.transcribe("simulated/m", sound)).cached
        assert (await router.transcribe("simulated/m", sound)).cached
        assert not (await router.transcribe("simulated/m", sound + b"\0")).cached
        with pytest.raises(BadRequestError):  # too much for this provider; not even looked at by the cache
            await router.transcribe("simulated/m", sound + b"\0" * (32 << 20))
    assert cache.stats().not_comparable == 1


# -- making one ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        pytest.param({"ttl": 3601}, "ttl", id="more than an hour"),
        pytest.param({"ttl": 0}, "ttl", id="no time"),
        pytest.param({"ttl": None}, "ttl", id="no lifetime"),
        pytest.param({"max_entries": 0}, "max_entries", id="no entries"),
        pytest.param({"max_bytes": 1.5}, "max_bytes", id="half a byte"),
        pytest.param({"max_waiting": True}, "max_waiting", id="a boolean"),
        pytest.param({"scope": "team"}, "scope", id="an unknown scope"),
        pytest.param({"operations": ["chats"]}, "operations", id="an unknown operation"),
        pytest.param({"patience": 0}, "patience", id="no patience"),
        pytest.param({"secret": "short"}, "the response cache's secret", id="a short secret"),
    ],
)
def test_a_wrong_argument_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ResponseCachePlugin(**options)
    assert caught.value.field == field


def test_it_passes_the_checks_of_plugins_and_loads_by_name() -> None:
    assert check_plugin(plugin()) == ["bifrost_cached_response", "bifrost_call_finished", "bifrost_lifespan"]
    assert plugin().stats() == CacheStats()


def test_it_works_from_blocking_code_and_over_a_real_connection() -> None:
    with SimulatedMistral(["sk-simulated-1"]) as server:
        provider = Mistral(["sk-simulated-1"], base_url=server.base_url)
        with SyncRouter([provider], plugins=[ResponseCachePlugin()]) as router:
            first = router.chat("mistral/mistral-small-latest", "hi")
            second = router.chat("mistral/mistral-small-latest", "hi")
        assert (second.cached, second.text, len(server.requests)) == (True, first.text, 1)
