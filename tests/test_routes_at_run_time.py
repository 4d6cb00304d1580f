"""Routes opened and closed by hand, and keys that come and go while calls run."""

from __future__ import annotations

import random
from typing import Any

import anyio
import pytest

from bifrost_core import (
    ConfigError,
    Key,
    LatencyWeighted,
    Mistral,
    NoKeyAvailableError,
    RetryPolicy,
    RoundRobin,
    Route,
    Router,
    RouteRef,
    SyncRouter,
)
from bifrost_core.testing import FakeClock, Simulated, SimulatedKey, SimulatedMistral

MODEL = "simulated/one"
OTHER = "simulated/two"


def router_of(*, clock: FakeClock | None = None, groups: tuple[str | None, ...] = (None, None, None)) -> Router:
    keys = [SimulatedKey(name, quota_group=group) for name, group in zip("abc", groups, strict=True)]
    return Router(
        [Simulated(keys)],
        balancer=RoundRobin,
        retry=RetryPolicy(max_wait=0),
        rng=random.Random(7),
        clock=clock or FakeClock(),
    )


def open_ones(router: Router) -> set[str]:
    return {f"{row.route.model}/{row.route.key_id}" for row in router.health() if row.state == "open"}


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("route", {"one/a"}),
        ("key", {"one/a", "two/a"}),
        ("quota_group", {"one/a", "one/b"}),
        ("deployment", {"one/a", "one/b", "one/c"}),
        ("provider", {"one/a", "one/b", "one/c", "two/a", "two/b", "two/c"}),
    ],
)
async def test_a_scope_opened_by_hand_takes_no_attempts_until_it_is_closed(scope: str, expected: set[str]) -> None:
    async with router_of(groups=("g", "g", None)) as router:
        for model in (MODEL, OTHER):
            await router.chat(model, "hi")
        route = RouteRef("simulated", "one", "a")
        router.open_route(route, scope=scope)
        assert open_ones(router) == expected
        rows = {f"{row.route.model}/{row.route.key_id}": row for row in router.health()}
        assert {(rows[name].reason, rows[name].until) for name in expected} == {("manual", float("inf"))}
        if len(expected) >= 3:
            with pytest.raises(NoKeyAvailableError):
                await router.chat(MODEL, "hi")
        else:
            used = {(await router.chat(MODEL, "hi")).route.key_id for _ in range(30)}
            assert used == {"a", "b", "c"} - {name[-1] for name in expected if name.startswith("one")}
        router.close_route(route, scope=scope)
        assert open_ones(router) == set()
        assert {(await router.chat(MODEL, "hi")).route.key_id for _ in range(60)} == {"a", "b", "c"}


async def test_a_route_opened_for_some_time_comes_back_by_itself() -> None:
    clock = FakeClock()
    async with router_of(clock=clock) as router:
        router.open_route(RouteRef("simulated", "one", "a"), seconds=30)
        assert next((row.route.key_id, row.state, row.until) for row in router.health()) == ("a", "open", 30)
        clock.advance(31)
        assert router.health()[0].state == "half_open"
        while router.health()[0].state != "closed":
            await router.chat(MODEL, "hi")


@pytest.mark.parametrize(
    ("route", "options", "what"),
    [
        (RouteRef("nobody", "one", "a"), {}, "no provider 'nobody'"),
        (RouteRef("simulated", "one", "z"), {}, "no key 'z'"),
        (RouteRef("simulated", "one", "a"), {"scope": "world"}, "'world' is no scope"),
        (RouteRef("simulated", "one", "a"), {"seconds": -1}, "finite time > 0"),
        (RouteRef("simulated", "one", "a"), {"seconds": float("nan")}, "finite time > 0"),
    ],
    ids=["provider", "key", "scope", "seconds", "no number"],
)
async def test_what_names_no_route_is_refused_by_name(route: RouteRef, options: dict[str, Any], what: str) -> None:
    async with router_of() as router:
        with pytest.raises(ConfigError, match=what):
            router.open_route(route, **options)
        if "seconds" not in options:
            with pytest.raises(ConfigError, match=what):
                router.close_route(route, **options)
        assert open_ones(router) == set()


def test_blocking_code_opens_and_closes_routes_too() -> None:
    with SyncRouter([Simulated(["a", "b"])]) as router:
        router.open_route(RouteRef("simulated", "one", "a"))
        assert {router.chat(MODEL, "hi").route.key_id for _ in range(10)} == {"b"}
        router.close_route(RouteRef("simulated", "one", "a"))
        assert {row.state for row in router.health()} == {"closed"}


async def test_keys_are_rotated_under_load_without_a_lost_call() -> None:
    """Every key is replaced by a new one, twice over, while 20 tasks call; what was in flight is answered."""
    secrets = [f"sk-simulated-{number:02}" for number in range(9)]
    answered: list[str] = []
    with SimulatedMistral([SimulatedKey(secret, latency=0.02) for secret in secrets]) as server:
        keys = [Key(secret, id=f"k{number}") for number, secret in enumerate(secrets)]
        async with Router([Mistral(keys[:3], base_url=server.base_url)], rng=random.Random(7)) as router:

            async def caller() -> None:
                for _ in range(10):
                    reply = await router.chat("mistral/mistral-small-latest", "hi", max_tokens=3)
                    assert len(reply.attempts) == 1
                    answered.append(reply.route.key_id)

            async def rotate() -> None:
                for number in range(3, 9):
                    await anyio.sleep(0.01)
                    router.add_key("mistral", keys[number])
                    router.remove_key("mistral", f"k{number - 3}")

            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(caller)
                group.start_soon(rotate)
            rows: list[Any] = router.health()
    assert len(answered) == 200
    assert {row.route.key_id for row in rows} == {"k6", "k7", "k8"}
    assert {row.in_flight for row in rows} == {0}
    assert set(answered[-20:]) <= {"k6", "k7", "k8"}


async def test_a_key_whose_quota_is_used_up_is_spared_and_health_says_so() -> None:
    """Two requests a minute: after them the headers say that none is left, before any refusal."""
    keys = [
        SimulatedKey("sk-simulated-1", id="tight", requests_per_minute=2),
        SimulatedKey("sk-simulated-2", id="wide"),
    ]
    with SimulatedMistral(keys) as server:
        provider = Mistral(
            [Key("sk-simulated-1", id="tight"), Key("sk-simulated-2", id="wide")], base_url=server.base_url
        )
        async with Router([provider], balancer=LatencyWeighted, rng=random.Random(7)) as router:
            for _ in range(30):
                await router.chat("mistral/mistral-small-latest", "hi", max_tokens=2)
            rows = {row.route.key_id: row for row in router.health()}
        assert server.counters["tight"].requests == 2
    assert (rows["tight"].state, rows["tight"].reason) == ("closed", "rate_limited")
    assert 0 < rows["tight"].until <= 60
    assert (rows["wide"].state, rows["wide"].reason, rows["wide"].until) == ("closed", None, 0)


async def test_a_first_call_makes_each_route_once_and_so_does_each_key_that_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a million, one list for each key, made the first call with a thousand keys take most of a second."""
    made: list[str] = []

    def counted(provider: str, model: str, key_id: str, *more: Any) -> Route:
        made.append(key_id)
        return Route(provider, model, key_id, *more)

    monkeypatch.setattr("bifrost_core.deployments.Route", counted)
    async with Router([Simulated([SimulatedKey(f"k{number}") for number in range(60)])], clock=FakeClock()) as router:
        await router.chat(MODEL, "hi")
        assert made == [f"k{number}" for number in range(60)]
        await router.chat(MODEL, "hi")
        assert len(made) == 60
        router.remove_key("simulated", "k7")
        assert "k7" not in made[60:]
        assert len(made[60:]) == 59
