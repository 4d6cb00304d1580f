"""Lists of models: every provider asked once, by any key, and nothing that happens to it touches the work."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from bifrost_core import (
    Attempt,
    CallError,
    CallRecord,
    ConfigError,
    Key,
    Kind,
    Mistral,
    ModelList,
    ModelNotFoundError,
    Operation,
    ProviderAuthError,
    Request,
    RetryPolicy,
    Route,
    Router,
    Timeout,
    Usage,
    hookimpl,
)
from bifrost_core.testing import FakeClock, Fault, SimulatedKey, SimulatedMistral, SimulatedModel

SMALL = "mistral/mistral-small-latest"


@pytest.fixture
async def server() -> AsyncIterator[SimulatedMistral]:
    async with SimulatedMistral(
        [SimulatedKey("sk-simulated-a", id="a"), SimulatedKey("sk-simulated-b", id="b")]
    ) as running:
        yield running


def provider(server: SimulatedMistral, name: str = "mistral", *ids: str) -> Mistral:
    keys = [Key(f"sk-simulated-{key_id}", id=key_id) for key_id in ids or ("a", "b")]
    return Mistral(keys, base_url=server.base_url, name=name)


class FirstChoice:
    """Picks one key as long as it may be used."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_pick_route(self, routes: tuple[Route, ...]) -> Route | None:
        return next((route for route in routes if route.key_id == self.key_id), None)

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


async def test_every_name_of_every_model_is_listed(server: SimulatedMistral) -> None:
    async with Router([provider(server)]) as router:
        listed = await router.models()
    by_id = {model.id: model for model in listed}
    assert len(by_id) == len(listed)
    small, canonical = by_id[SMALL], by_id["mistral/mistral-small-2603"]
    assert (small.name, canonical.name, small.provider) == ("mistral-small-2603", "mistral-small-2603", "mistral")
    assert set(small.aliases) == {"mistral-small-2603", "magistral-small-latest"}
    assert small.capabilities == {"completion_chat", "function_calling", "vision", "reasoning"}
    assert (small.context_length, small.deprecation, small.replacement) == (262_144, None, None)
    devstral = by_id["mistral/devstral-latest"]
    assert (devstral.deprecation, devstral.replacement) == ("2026-08-31T12:00:00Z", "mistral-medium-3-5")
    assert by_id["mistral/mistral-embed"].capabilities == frozenset()
    assert small.raw["id"] == "mistral-small-latest"
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/v1/models")


async def test_all_providers_are_asked_once_and_listed_in_their_order(server: SimulatedMistral) -> None:
    other = SimulatedMistral([SimulatedKey("sk-simulated-c", id="c")], models=[SimulatedModel("tiny")])
    async with other, Router([provider(other, "own", "c"), provider(server)]) as router:
        both = await router.models()
        own = await router.models("own")
        assert [len(server.requests), len(other.requests)] == [1, 2]
    assert [model.id for model in own] == ["own/tiny"]
    assert both[:1] == own
    assert {model.provider for model in both[1:]} == {"mistral"}


async def test_a_provider_that_does_not_exist_is_named_with_those_that_look_like_it(server: SimulatedMistral) -> None:
    async with Router([provider(server), provider(server, "eu")]) as router:
        with pytest.raises(ConfigError, match="no provider 'mistrl'; did you mean mistral\\?") as caught:
            await router.models("mistrl")
        assert caught.value.field == "provider"
        with pytest.raises(ConfigError, match="no provider 'zzz'; did you mean eu, mistral\\?"):
            await router.models("zzz")
    assert server.requests == ()


async def test_a_list_with_a_part_missing_is_none(server: SimulatedMistral) -> None:
    server.fail("b", Fault("status", status=403))
    async with Router([provider(server, "good", "a"), provider(server, "bad", "b")]) as router:
        with pytest.raises(ProviderAuthError) as caught:
            await router.models()
        assert (caught.value.provider, caught.value.model) == ("bad", "bad/*")
        assert await router.models("good")


@pytest.mark.parametrize(
    "allowed",
    [{"models": ["mistral-large-*"]}, {"models": ()}, {"exclude_models": "*"}],
    ids=["another model", "none at all", "all excluded"],
)
async def test_any_enabled_key_may_ask(server: SimulatedMistral, allowed: dict[str, object]) -> None:
    keys = [
        Key("sk-simulated-a", id="a", **allowed),  # type: ignore[arg-type] # options by name
        Key("sk-simulated-b", id="b", enabled=False),
    ]
    async with Router([Mistral(keys, base_url=server.base_url)]) as router:
        assert await router.models()
        with pytest.raises(ModelNotFoundError):
            await router.chat(SMALL, "hi")
    assert [request.key_id for request in server.requests] == ["a"]


@pytest.mark.parametrize("name", ["mistral/*", "*"])
async def test_work_is_done_by_a_model_with_a_name(server: SimulatedMistral, name: str) -> None:
    says = "names no model, which only a list of models may do"
    async with Router([provider(server)]) as router:
        with pytest.raises(ModelNotFoundError, match=says):
            await router.chat(name, "hi")
        with pytest.raises(ModelNotFoundError, match=says):
            await router.embed(name, "hi")
        with pytest.raises(ModelNotFoundError, match=says):
            await router.chat(SMALL, "hi", fallbacks=[name])
        with pytest.raises(ModelNotFoundError, match=says):
            router.estimate(name, "hi")
    with pytest.raises(ModelNotFoundError, match=says):
        Router([provider(server)], fallbacks={SMALL: [name]})
    assert server.requests == ()


async def test_a_list_is_an_answer_like_others_and_costs_nothing(server: SimulatedMistral) -> None:
    upper: list[tuple[str, Decimal | None]] = []

    class Watch(FirstChoice):
        @hookimpl
        def bifrost_reserve(self, attempt: Attempt) -> None:
            upper.append((attempt.route.deployment, attempt.cost_upper))

    watch = Watch("b")
    async with Router([provider(server)], plugins=[watch]) as router:
        answer = await router.send(Request(Operation.MODELS, "mistral/*"), metadata={"page": "admin"})
    assert isinstance(answer, ModelList)
    assert answer.raw["object"] == "list"
    assert len(answer.models) == len(answer.raw["data"])
    assert (answer.route.deployment, answer.route.key_id) == ("mistral/*", "b")
    assert (answer.usage, answer.cost, upper) == (Usage(requests=1), Decimal(0), [("mistral/*", Decimal(0))])
    (record,) = watch.records
    assert (record.operation, record.model, record.cost, record.metadata) == (
        "models",
        "mistral/*",
        Decimal(0),
        {"page": "admin"},
    )


async def test_a_list_asked_of_a_model_is_still_asked_of_none(server: SimulatedMistral) -> None:
    for key_id in ("a", "b"):
        server.fail(key_id, Fault("status", status=500, first=2))
    async with Router([provider(server)], clock=FakeClock(), retry=RetryPolicy(backoff=0)) as router:
        await router.chat(SMALL, "hi", max_tokens=5)
        before = router.health()
        with pytest.raises(CallError) as caught:
            for _ in range(3):
                await router.send(Request("models", SMALL), fallbacks=["mistral/mistral-large-latest"])
        assert caught.value.model == "mistral/*"
        assert {attempt.route.model for attempt in caught.value.attempts} == {"*"}
        assert router.health() == before


async def test_a_rejected_key_is_passed_over_within_the_call(server: SimulatedMistral) -> None:
    server.fail("a", Fault("status", status=401))
    watch = FirstChoice("a")
    async with Router([provider(server)], plugins=[watch]) as router:
        assert await router.models()
    (record,) = watch.records
    assert [(attempt.route.key_id, attempt.outcome, attempt.kind) for attempt in record.attempts] == [
        ("a", "failed", Kind.AUTH),
        ("b", "ok", None),
    ]


FAULTS = [
    pytest.param(Fault("status", status=401), Kind.AUTH, id="401"),
    pytest.param(Fault("status", status=402), Kind.PAYMENT, id="402"),
    pytest.param(Fault("status", status=403), Kind.PERMISSION, id="403"),
    pytest.param(Fault("status", status=404), Kind.MODEL_NOT_FOUND, id="404"),
    pytest.param(Fault("status", status=429, headers={"retry-after": "7200"}), Kind.RATE_LIMITED, id="429"),
    pytest.param(Fault("status", status=500), Kind.SERVER_ERROR, id="500"),
    pytest.param(Fault("status", status=503, headers={"retry-after": "60"}), Kind.SERVER_ERROR, id="503"),
    pytest.param(Fault("garbage"), Kind.PROTOCOL_ERROR, id="garbage"),
    pytest.param(Fault("html"), Kind.BAD_RESPONSE, id="html"),
    pytest.param(Fault("reset"), Kind.CONNECTION_LOST, id="reset"),
    pytest.param(Fault("hang"), Kind.READ_TIMEOUT, id="hang"),
]


@pytest.mark.parametrize(("fault", "kind"), FAULTS)
async def test_however_a_list_fails_the_work_goes_on_as_before(
    server: SimulatedMistral, fault: Fault, kind: Kind
) -> None:
    clock = FakeClock()  # stands still, so that no figure of health moves by itself
    async with Router(
        [provider(server)],
        clock=clock,
        rng=random.Random(5),
        retry=RetryPolicy(backoff=0, max_attempts=8),
        timeout=Timeout(total=20, attempt=0.1 if kind is Kind.READ_TIMEOUT else 10),
    ) as router:
        for _ in range(4):
            await router.chat(SMALL, "hi", max_tokens=5)
        before = router.health()
        for key_id in ("a", "b"):
            server.fail(key_id, fault)
        for _ in range(6):  # more than any breaker takes
            with pytest.raises(CallError) as caught:
                await router.models()
            assert caught.value.attempts
            if kind is not Kind.RATE_LIMITED:  # a wait of two hours is a quota's
                assert caught.value.kind is kind
        assert router.health() == before
        for key_id in ("a", "b"):
            server.heal(key_id)
        assert (await router.chat(SMALL, "hi", max_tokens=5)).text
        assert len((await router.chat(SMALL, "hi", max_tokens=5)).attempts) == 1
        assert await router.models()
    assert {row.route.model for row in before} == {"mistral-small-latest"}


async def test_a_list_brings_nothing_back_either(server: SimulatedMistral) -> None:
    clock = FakeClock()
    async with Router([provider(server, "mistral", "a")], clock=clock, retry=RetryPolicy(max_wait=0)) as router:
        server.fail("a", Fault("status", status=401))
        with pytest.raises(ProviderAuthError):
            await router.chat(SMALL, "hi")
        server.heal("a")
        clock.advance(router.health()[0].until)
        (half_open,) = router.health()
        assert half_open.state == "half_open"
        assert await router.models()
        assert router.health() == [half_open]
        assert (await router.chat(SMALL, "hi", max_tokens=5)).text
        assert [row.state for row in router.health()] == ["closed"]
