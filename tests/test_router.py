"""The Router on real HTTP: a simulated Mistral on loopback, every floor of the house in between."""

from __future__ import annotations

import random
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from typing import Any

import anyio
import attrs
import msgspec
import pytest

from bifrost_core import (
    Attempt,
    BadRequestError,
    Call,
    CallError,
    CallRecord,
    ChatResponse,
    Choice,
    ConfigError,
    DeadlineExceededError,
    Key,
    Kind,
    Message,
    Mistral,
    ModelNotFoundError,
    NoKeyAvailableError,
    PluginError,
    Price,
    PriceBook,
    Principal,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderRateLimitError,
    ProviderServerError,
    ProviderTimeoutError,
    RefusedError,
    Request,
    Response,
    RetryPolicy,
    Route,
    Router,
    Timeout,
    VirtualKeyError,
    hookimpl,
)
from bifrost_core.providers.base import Quota
from bifrost_core.testing import Fault, SimulatedKey, SimulatedMistral

A, B, C = "sk-canary-aaaaaaaaaaaaaaaa", "sk-canary-bbbbbbbbbbbbbbbb", "sk-canary-cccccccccccccccc"
MODEL = "mistral/mistral-small-latest"


@pytest.fixture
def server() -> Iterator[SimulatedMistral]:
    with SimulatedMistral([SimulatedKey(A, id="a"), SimulatedKey(B, id="b"), SimulatedKey(C, id="c")]) as running:
        yield running


def router_for(server: SimulatedMistral, *secrets: str, name: str = "mistral", **options: Any) -> Router:
    keys = [Key(secret, id=secret[10]) for secret in secrets or (A,)]
    options.setdefault("rng", random.Random(7))
    return Router([Mistral(keys, base_url=server.base_url, name=name)], **options)


class Recorder:
    """Writes down what it is told, in order."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.records: list[CallRecord] = []

    @hookimpl
    async def bifrost_attempt_finished(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)

    def outcomes(self) -> list[tuple[str, str | None, Kind | None]]:
        return [(attempt.route.key_id, attempt.outcome, attempt.kind) for attempt in self.attempts]


async def test_a_chat_is_answered_with_usage_cost_and_route(server: SimulatedMistral) -> None:
    recorder = Recorder()
    async with router_for(server, plugins=[recorder]) as router:
        reply = await router.chat(MODEL, "Name a bridge.", max_tokens=12, metadata={"team": "x"})
    assert reply.text
    assert reply.route.deployment == MODEL
    assert reply.route.key_id == "a"
    assert reply.usage.output_tokens == 12
    price = PriceBook().find("mistral", "mistral-small-latest")
    assert price is not None
    assert reply.cost == price.cost(reply.usage)
    assert [attempt.outcome for attempt in reply.attempts] == ["ok"]
    assert reply.attempts == tuple(recorder.attempts)
    record = recorder.records[0]
    assert (record.outcome, record.kind, record.response, record.error) == ("ok", None, reply, None)
    assert (record.usage, record.cost, dict(record.metadata)) == (reply.usage, reply.cost, {"team": "x"})
    assert len(recorder.records) == 1
    assert reply.call_id == record.call_id


async def test_a_router_starts_at_its_first_call_without_async_with(server: SimulatedMistral) -> None:
    router = router_for(server)
    reply = await router.chat("mistral-small-latest", [Message("user", "hi")], max_tokens=3)
    assert reply.text
    await router.aclose()
    await router.aclose()
    with pytest.raises(ConfigError, match="closed"):
        await router.chat(MODEL, "hi")


async def test_aliases_mean_models_and_unknown_names_list_near_ones(server: SimulatedMistral) -> None:
    recorder = Recorder()
    async with router_for(server, plugins=[recorder], aliases={"fast": MODEL}) as router:
        assert (await router.chat("fast", "hi", max_tokens=2)).route.model == "mistral-small-latest"
        with pytest.raises(ModelNotFoundError) as caught:
            await router.chat("nowhere/mistral-small-latest", "hi")
        assert MODEL in caught.value.candidates
    # A call that finds no model is a call all the same.
    assert [record.outcome for record in recorder.records] == ["ok", "failed"]
    assert caught.value.call_id == recorder.records[1].call_id


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "messages"),
        (3, "messages"),
        ([{"content": "x"}], "messages[0].role"),
        (["x"], "messages[0]"),
    ],
    ids=["empty", "number", "no role", "string in a list"],
)
async def test_messages_of_a_wrong_shape_are_refused_by_name(
    server: SimulatedMistral, messages: Any, field: str
) -> None:
    async with router_for(server) as router:
        with pytest.raises(ConfigError) as caught:
            await router.chat(MODEL, messages)
    assert caught.value.field == field


FAULTS: list[tuple[str, Fault, type[CallError], Kind, int]] = [
    ("rejected key", Fault("status", status=401, shape="B"), ProviderAuthError, Kind.AUTH, 1),
    ("server error", Fault("status", status=500), ProviderServerError, Kind.SERVER_ERROR, 2),
    ("bad gateway", Fault("status", status=502, shape="E"), ProviderServerError, Kind.SERVER_ERROR, 2),
    ("not JSON", Fault("not_json"), ProviderServerError, Kind.BAD_RESPONSE, 2),
    ("web page", Fault("html"), ProviderServerError, Kind.BAD_RESPONSE, 2),
    ("closed before the head", Fault("close"), ProviderConnectionError, Kind.CONNECTION_LOST, 2),
    ("reset before the head", Fault("reset"), ProviderConnectionError, Kind.CONNECTION_LOST, 2),
    ("not HTTP", Fault("garbage"), ProviderServerError, Kind.PROTOCOL_ERROR, 1),
    ("bad request", Fault("status", status=400), BadRequestError, Kind.INVALID_REQUEST, 1),
]


@pytest.mark.parametrize(
    ("fault", "cls", "kind", "attempts"),
    [(fault, cls, kind, attempts) for _, fault, cls, kind, attempts in FAULTS],
    ids=[name for name, *_ in FAULTS],
)
async def test_a_fault_of_the_only_key_is_raised_as_its_class_with_every_attempt(
    server: SimulatedMistral, fault: Fault, cls: type[CallError], kind: Kind, attempts: int
) -> None:
    server.fail("a", fault)
    recorder = Recorder()
    policy = RetryPolicy(backoff=0, max_wait=0)
    async with router_for(server, plugins=[recorder], retry=policy) as router:
        with pytest.raises(cls) as caught:
            await router.chat(MODEL, "hi")
    error = caught.value
    assert type(error) is cls
    assert error.kind == kind
    assert len(error.attempts) == attempts
    assert error.attempts == tuple(recorder.attempts)
    assert error.call_id
    assert error.model == MODEL
    assert error.__cause__ is None
    assert error.__context__ is None
    assert [record.outcome for record in recorder.records] == ["failed"]
    assert recorder.records[0].error is error
    assert server.counters["a"].requests == attempts


async def test_a_rejected_key_is_left_alone_and_costs_no_call(server: SimulatedMistral) -> None:
    server.fail("a", Fault("status", status=401, shape="B"))
    async with router_for(server, A, B) as router:
        for _ in range(20):
            assert (await router.chat(MODEL, "hi", max_tokens=2)).route.key_id == "b"
        health = {state.route.key_id: state for state in router.health()}
    assert server.counters["a"].requests == 1
    assert (health["a"].state, health["a"].reason) == ("open", "auth")
    assert health["b"].state == "closed"


async def test_a_refusal_moves_on_at_once_to_another_quota_group(server: SimulatedMistral) -> None:
    for key in ("a", "b"):
        server.fail(key, Fault("status", status=429, headers={"retry-after": "30"}))
    async with router_for(server, A, B, C) as router:
        reply = await router.chat(MODEL, "hi", max_tokens=2)
        assert reply.route.key_id == "c"
        for _ in range(10):
            assert (await router.chat(MODEL, "hi", max_tokens=2)).route.key_id == "c"
    assert server.counters["a"].requests <= 1
    assert server.counters["b"].requests <= 1


async def test_one_limited_key_is_waited_for_when_it_opens_soon(server: SimulatedMistral) -> None:
    server.fail("a", Fault("status", status=429, headers={"retry-after-ms": "150"}, last=1))
    async with router_for(server) as router:
        reply = await router.chat(MODEL, "hi", max_tokens=2)
    assert [attempt.outcome for attempt in reply.attempts] == ["failed", "ok"]


async def test_what_rests_longer_than_max_wait_fails_at_once_and_says_when_it_opens(server: SimulatedMistral) -> None:
    server.fail("a", Fault("status", status=429, headers={"retry-after": "60"}))
    async with router_for(server) as router:
        with pytest.raises(ProviderRateLimitError) as first:
            await router.chat(MODEL, "hi")
        assert first.value.retry_after == pytest.approx(60, abs=0.5)
        with pytest.raises(NoKeyAvailableError) as second:
            await router.chat(MODEL, "hi")
    assert second.value.http_status == 429
    assert second.value.retry_after == pytest.approx(60, abs=0.5)
    assert second.value.attempts == ()
    assert server.counters["a"].requests == 1


async def test_a_dead_model_falls_back_to_the_next(server: SimulatedMistral) -> None:
    with SimulatedMistral([SimulatedKey(B, id="b")]) as other:
        server.fail("a", Fault("status", status=503))
        router = Router(
            [
                Mistral([Key(A, id="a")], base_url=server.base_url, name="first"),
                Mistral([Key(B, id="b")], base_url=other.base_url, name="second"),
            ],
            fallbacks={"first/mistral-small-latest": ["second/mistral-small-latest"]},
            retry=RetryPolicy(backoff=0),
        )
        async with router:
            reply = await router.chat("first/mistral-small-latest", "hi", max_tokens=2)
    assert reply.route.provider == "second"
    assert [attempt.route.provider for attempt in reply.attempts] == ["first", "first", "second"]


async def test_a_fallback_that_is_refused_is_skipped(server: SimulatedMistral) -> None:
    class OnlySmall:
        @hookimpl
        async def bifrost_authorize(self, request: Request) -> None:
            if "small" not in request.model:
                raise RefusedError("not for you")

    server.fail("a", Fault("status", status=500))
    async with router_for(server, plugins=[OnlySmall()], retry=RetryPolicy(backoff=0)) as router:
        with pytest.raises(ProviderServerError):
            await router.chat(MODEL, "hi", fallbacks=["mistral/mistral-large-latest"])
    assert {attempt.model for attempt in server.requests} == {"mistral-small-latest"}


async def test_a_deployment_twice_in_a_chain_is_a_configuration_error(server: SimulatedMistral) -> None:
    with pytest.raises(ConfigError, match="twice"):
        router_for(server, fallbacks={MODEL: ["mistral-small-latest"]})


async def test_the_deadline_ends_a_call_that_hangs(server: SimulatedMistral) -> None:
    server.fail("a", Fault("hang"))
    recorder = Recorder()
    async with router_for(server, plugins=[recorder]) as router:
        with pytest.raises(DeadlineExceededError) as caught:
            await router.chat(MODEL, "hi", timeout=0.4)
    assert caught.value.phase == "first_byte"
    assert recorder.outcomes() == [("a", "failed", Kind.DEADLINE_EXCEEDED)]
    assert recorder.records[0].kind == Kind.DEADLINE_EXCEEDED


async def test_an_attempt_that_takes_too_long_goes_on_elsewhere(server: SimulatedMistral) -> None:
    server.fail("a", Fault("hang"))
    async with router_for(server, A, B, timeout=Timeout(attempt=0.3), retry=RetryPolicy(backoff=0)) as router:
        replies = [await router.chat(MODEL, "hi", max_tokens=2) for _ in range(4)]
    assert {reply.route.key_id for reply in replies} == {"b"}
    slow = [attempt for reply in replies for attempt in reply.attempts if attempt.outcome == "failed"]
    assert {attempt.kind for attempt in slow} == {Kind.READ_TIMEOUT}
    assert isinstance(slow[0].error, ProviderTimeoutError)


async def test_a_scope_of_the_callers_own_ends_a_call_as_a_scope_does(server: SimulatedMistral) -> None:
    server.fail("a", Fault("hang"))
    recorder = Recorder()
    async with router_for(server, plugins=[recorder]) as router:
        with anyio.move_on_after(0.2) as scope:
            await router.chat(MODEL, "hi")
        assert scope.cancelled_caught
        assert router.health()[0].in_flight == 0
    assert recorder.outcomes() == [("a", "cancelled", Kind.CANCELLED)]
    assert [record.outcome for record in recorder.records] == ["cancelled"]


# -- hooks --------------------------------------------------------------------------------------


class Everything:
    """One implementation of every phase; writes down the order."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl
    async def bifrost_authenticate(self, call: Call) -> Principal:
        self.seen.append("authenticate")
        assert call.request.model == MODEL
        assert call.request.body["messages"] == [{"role": "user", "content": "hi"}]
        return Principal(id="ann", tenant="t")

    @hookimpl
    async def bifrost_authorize(self, request: Request, call: Call) -> None:
        self.seen.append("authorize")
        assert call.principal is not None

    @hookimpl
    async def bifrost_guard_request(self, request: Request) -> Request:
        self.seen.append("guard_request")
        return request.with_body(max_tokens=3)

    @hookimpl
    async def bifrost_cached_response(self) -> None:
        self.seen.append("cached_response")

    @hookimpl
    async def bifrost_select_routes(self, routes: tuple[Route, ...]) -> list[Route]:
        self.seen.append("select_routes")
        return [route for route in routes if route.key_id == "b"]

    @hookimpl
    def bifrost_pick_route(self, routes: tuple[Route, ...]) -> Route:
        self.seen.append("pick_route")
        return routes[0]

    @hookimpl
    async def bifrost_reserve(self, attempt: Attempt, call: Call) -> None:
        self.seen.append("reserve")
        assert attempt.price is not None
        assert attempt.output_upper == 3
        assert attempt.cost_upper is not None
        attempt.limit_output(2)
        call.state[self] = attempt.id

    @hookimpl
    async def bifrost_attempt_finished(self, attempt: Attempt, call: Call) -> None:
        self.seen.append(f"attempt_finished {attempt.outcome}")
        assert call.state[self] == attempt.id

    @hookimpl
    async def bifrost_guard_response(self, response: Response) -> Response:
        self.seen.append("guard_response")
        return response.with_text("guarded")

    @hookimpl
    async def bifrost_call_finished(self, record: CallRecord) -> None:
        self.seen.append(f"call_finished {record.outcome}")


async def test_the_phases_of_a_call_come_in_their_order(server: SimulatedMistral) -> None:
    plugin = Everything()
    async with router_for(server, A, B, plugins=[plugin]) as router:
        reply = await router.chat(MODEL, "hi")
    assert plugin.seen == [
        "authenticate",
        "authorize",
        "guard_request",
        "cached_response",
        "select_routes",
        "pick_route",
        "reserve",
        "attempt_finished ok",
        "guard_response",
        "call_finished ok",
    ]
    assert reply.text == "guarded"
    assert reply.raw["choices"][0]["message"]["content"] == "guarded"
    assert reply.route.key_id == "b"
    assert reply.usage.output_tokens == 2  # the limit that reserve asked for was sent


async def test_a_cached_answer_needs_no_provider_and_costs_nothing(server: SimulatedMistral) -> None:
    class Cache:
        stored: Response | None = None

        @hookimpl
        async def bifrost_cached_response(self) -> Response | None:
            return self.stored

        @hookimpl
        async def bifrost_call_finished(self, record: CallRecord) -> None:
            self.stored = record.response

    async with router_for(server, plugins=[Cache()]) as router:
        first = await router.chat(MODEL, "hi", max_tokens=4)
        second = await router.chat(MODEL, "hi", max_tokens=4)
        async with router.stream(MODEL, "hi", max_tokens=4) as stream:
            text = "".join([piece async for piece in stream.text()])
    assert second.text == first.text == text
    assert (second.cached, second.cost, second.attempts) == (True, Decimal(0), ())
    assert stream.response.cached
    assert second.call_id != first.call_id
    assert server.counters["a"].requests == 1


async def test_a_refusal_at_the_gate_sends_nothing_and_is_recorded(server: SimulatedMistral) -> None:
    class Gate:
        @hookimpl
        async def bifrost_authenticate(self, call: Call) -> Principal | None:
            raise VirtualKeyError("unknown virtual key")

    recorder = Recorder()
    async with router_for(server, plugins=[Gate(), recorder]) as router:
        with pytest.raises(VirtualKeyError) as caught:
            await router.chat(MODEL, "hi", virtual_key="sk-bf-nobody-knows-this")
    assert (caught.value.kind, caught.value.http_status) == (Kind.UNAUTHENTICATED, 401)
    assert caught.value.call_id == recorder.records[0].call_id
    assert recorder.records[0].outcome == "refused"
    assert list(server.requests) == []


async def test_a_later_gate_that_refuses_still_settles_what_an_earlier_one_took(server: SimulatedMistral) -> None:
    held: list[str] = []

    class Budget:
        @hookimpl
        async def bifrost_reserve(self, attempt: Attempt) -> None:
            held.append(attempt.id)

        @hookimpl
        async def bifrost_attempt_finished(self, attempt: Attempt) -> None:
            held.remove(attempt.id)
            assert attempt.outcome == "refused"

    class Limit:
        @hookimpl
        async def bifrost_reserve(self) -> None:
            raise RefusedError("enough")

    async with router_for(server, plugins=[Budget(), Limit()]) as router:
        with pytest.raises(RefusedError, match="enough"):
            await router.chat(MODEL, "hi")
        assert router.health()[0].in_flight == 0
    assert held == []
    assert list(server.requests) == []


async def test_an_error_can_be_turned_into_an_answer(server: SimulatedMistral) -> None:
    class Sorry:
        @hookimpl
        async def bifrost_recover(self, error: CallError) -> Response:
            return ChatResponse(model="none", choices=(Choice(text=f"sorry: {error.kind}", finish_reason="stop"),))

    recorder = Recorder()
    server.fail("a", Fault("status", status=400))
    async with router_for(server, plugins=[Sorry(), recorder]) as router:
        assert (await router.chat(MODEL, "hi")).text == "sorry: invalid_request"
        async with router.stream(MODEL, "hi") as stream:
            assert [chunk.text async for chunk in stream] == ["sorry: invalid_request", ""]
    assert [record.outcome for record in recorder.records] == ["ok", "ok"]


async def test_a_plugin_that_breaks_at_a_gate_fails_closed(server: SimulatedMistral) -> None:
    class Broken:
        @hookimpl
        async def bifrost_authorize(self) -> None:
            raise ZeroDivisionError

    async with router_for(server, plugins=[Broken()]) as router:
        with pytest.raises(PluginError) as caught:
            await router.chat(MODEL, "hi")
    assert caught.value.hook == "bifrost_authorize"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert list(server.requests) == []


async def test_lifespans_are_entered_and_left_by_one_task(server: SimulatedMistral) -> None:
    seen: list[str] = []

    class Worker:
        @hookimpl
        def bifrost_lifespan(self) -> AbstractAsyncContextManager[None]:
            return self.life()

        @asynccontextmanager
        async def life(self) -> AsyncIterator[None]:
            async with anyio.create_task_group() as group:  # only the task that entered may leave it
                group.start_soon(anyio.sleep_forever)
                seen.append("entered")
                yield
                group.cancel_scope.cancel()
            seen.append("left")

    router = router_for(server, plugins=[Worker()])

    async def first_call() -> None:
        await router.chat(MODEL, "hi", max_tokens=2)

    async with anyio.create_task_group() as group:
        group.start_soon(first_call)
        group.start_soon(first_call)
    assert seen == ["entered"]
    await router.aclose()
    assert seen == ["entered", "left"]


async def test_a_lifespan_that_fails_keeps_the_router_from_starting(server: SimulatedMistral) -> None:
    class Broken:
        @hookimpl
        def bifrost_lifespan(self) -> AbstractAsyncContextManager[None]:
            return self.life()

        @asynccontextmanager
        async def life(self) -> AsyncIterator[None]:
            raise OSError("no disk")
            yield

    router = router_for(server, plugins=[Broken()])
    with pytest.raises(PluginError, match="does not start"):
        await router.chat(MODEL, "hi")


async def test_references_are_resolved_by_a_plugin_before_the_first_call(server: SimulatedMistral) -> None:
    class Vault:
        @hookimpl
        async def bifrost_resolve_secret(self, reference: str) -> str | None:
            return {"vault:mistral": A}.get(reference)

    mistral = Mistral([Key("vault:mistral", id="v")], base_url=server.base_url)
    async with Router([mistral], plugins=[Vault()]) as router:
        assert (await router.chat(MODEL, "hi", max_tokens=2)).route.key_id == "v"
    lonely = Router([mistral])
    with pytest.raises(ConfigError, match="vault"):
        await lonely.chat(MODEL, "hi")


# -- keys, prices, life -------------------------------------------------------------------------


async def test_keys_come_and_go_while_calls_run(server: SimulatedMistral) -> None:
    async with router_for(server) as router:
        await router.chat(MODEL, "hi", max_tokens=2)
        router.add_key("mistral", Key(B, id="b"))
        router.remove_key("mistral", "a")
        replies = [await router.chat(MODEL, "hi", max_tokens=2) for _ in range(3)]
        with pytest.raises(ConfigError, match="no key"):
            router.remove_key("mistral", "a")
        with pytest.raises(ConfigError, match="no provider"):
            router.add_key("nobody", Key(C))
    assert {reply.route.key_id for reply in replies} == {"b"}


async def test_prices_of_ones_own_are_used_and_unknown_ones_are_none(server: SimulatedMistral) -> None:
    book = PriceBook({MODEL: Price(input="1", output=2)})
    async with router_for(server, prices=book) as router:
        reply = await router.chat(MODEL, "hi", max_tokens=5)
    usage = reply.usage
    assert reply.cost == (Decimal(usage.input_tokens) + 2 * Decimal(usage.output_tokens)) / 1_000_000


async def test_options_are_told_from_fields_and_unknown_ones_refused(server: SimulatedMistral) -> None:
    async with router_for(server) as router:
        reply = await router.chat(
            MODEL, "hi", session="s", extra_body={"metadata": {"x": 1}}, cache="bypass", max_tokens=2
        )
        assert reply.text
        with pytest.raises(ConfigError, match="stream"):
            await router.chat(MODEL, "hi", stream=True)
        request = Request("chat", MODEL, {"messages": "hi", "max_tokens": 2})
        assert (await router.send(request)).usage.output_tokens == 2
        with pytest.raises(ConfigError, match="unknown option"):
            await router.send(request, sesion="typo")
        with pytest.raises(ConfigError, match="send_stream"):
            await router.send(attrs.evolve(request, stream=True))


async def test_closing_waits_for_calls_that_run(server: SimulatedMistral) -> None:
    server.fail("a", Fault("slow", delay=0.2))
    router = router_for(server)
    replies: list[ChatResponse] = []

    async def call() -> None:
        replies.append(await router.chat(MODEL, "hi", max_tokens=2))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        await router.aclose()
        assert len(replies) <= 1
    assert len(replies) == 1


def test_a_router_belongs_to_one_event_loop(server: SimulatedMistral) -> None:
    router = router_for(server)

    async def call() -> None:
        await router.chat(MODEL, "hi", max_tokens=2)

    async def first() -> None:
        await call()
        await router._sender.aclose()

    anyio.run(first)
    with pytest.raises(ConfigError, match="another event loop"):
        anyio.run(call)


async def test_no_secret_is_in_any_error_or_its_traceback(server: SimulatedMistral) -> None:
    echo = Fault("status", status=400, message=f"your key {A} is wrong", shape="A")
    for fault in [echo, *(fault for _, fault, *_ in FAULTS)]:
        server.heal("a")
        server.fail("a", fault)
        async with router_for(server, retry=RetryPolicy(max_attempts=1, max_wait=0)) as router:
            with pytest.raises(CallError) as caught:
                await router.chat(MODEL, "hi", virtual_key=C)
        report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        ours = [frame for frame in report.stack if "bifrost_core" in frame.filename]
        assert ours
        shown = repr(vars(caught.value)) + str(caught.value) + "".join(str(frame.locals) for frame in ours)
        assert A not in shown
        assert C not in shown


def test_describe_names_providers_keys_and_hooks_and_no_secret(server: SimulatedMistral) -> None:
    text = router_for(server, A, B, plugins=[Recorder()]).describe()
    assert "provider mistral: chat" in text
    assert "key a: weight 1" in text
    assert "bifrost_call_finished: " in text
    assert "canary" not in text


def test_config_makes_a_router_from_a_mapping_or_a_file(
    server: SimulatedMistral, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_ONE", A)
    file = tmp_path / "bifrost.toml"
    file.write_text(
        f"""
        timeout = 5
        [aliases]
        fast = "{MODEL}"
        [[providers]]
        type = "mistral"
        base_url = "{server.base_url}"
        keys = ["env:KEY_ONE"]
        [retry]
        max_attempts = 2
        """
    )

    async def main() -> None:
        async with Router.from_config(file) as router:
            assert (await router.chat("fast", "hi", max_tokens=2)).route.key_id == "KEY_ONE"

    anyio.run(main)
    with pytest.raises(ConfigError, match="no keys"):
        Router.from_config({"providers": [{"type": "mistral", "keys": [A]}]})
    with pytest.raises(ConfigError, match="unknown entry 'provider'"):
        Router.from_config({"provider": []})
    monkeypatch.setenv("MISTRAL_API_KEY", A)
    monkeypatch.setenv("MISTRAL_API_KEY_2", B)
    assert "key MISTRAL_API_KEY_2" in Router.from_env().describe()


# --- structured output and tools


@attrs.frozen
class Bridge:
    name: str
    length: int


def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Its name.
    """
    raise AssertionError("a tool is never run")


class Seen:
    """Keeps the requests that hooks see."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    @hookimpl
    def bifrost_guard_request(self, request: Request) -> None:
        self.requests.append(request)


async def test_an_answer_becomes_an_instance_plain_and_streamed_and_hooks_see_json(server: SimulatedMistral) -> None:
    seen = Seen()
    async with router_for(server, plugins=[seen]) as router:
        reply = await router.chat(MODEL, "Name one.", response_format=Bridge)
        async with router.stream(MODEL, "Name one.", response_format=Bridge) as stream:
            text = "".join([chunk.text async for chunk in stream])
    assert isinstance(reply.parsed, Bridge)
    assert isinstance(stream.response.parsed, Bridge)
    assert msgspec.json.decode(text, type=Bridge) == stream.response.parsed
    plain, streamed = seen.requests
    assert plain.body == streamed.body
    assert plain.body["response_format"]["json_schema"]["name"] == "Bridge"
    assert msgspec.json.encode(dict(plain.body))


async def test_a_cached_answer_is_parsed_too(server: SimulatedMistral) -> None:
    class Cache:
        @hookimpl
        def bifrost_cached_response(self) -> ChatResponse:
            return ChatResponse(choices=(Choice(text='{"name": "Bifrost", "length": 7}'),))

    async with router_for(server, plugins=[Cache()]) as router:
        reply = await router.chat(MODEL, "Name one.", response_format=Bridge)
        async with router.stream(MODEL, "Name one.", response_format=Bridge) as stream:
            assert "".join([chunk.text async for chunk in stream]) == reply.text
    assert reply.parsed == stream.response.parsed == Bridge("Bifrost", 7)
    assert server.requests == ()


async def test_functions_are_described_once_and_calls_come_back_unrun(server: SimulatedMistral) -> None:
    seen = Seen()
    async with router_for(server, plugins=[seen]) as router:
        reply = await router.chat(MODEL, "Weather?", tools=[weather], tool_choice="any")
        async with router.stream(MODEL, "Weather?", tools=(weather,), tool_choice="any") as stream:
            chunks = [chunk async for chunk in stream]
    described = {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tell the weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Its name."}},
                "required": ["city"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    }
    assert [request.body["tools"] for request in seen.requests] == [[described], [described]]
    (call,) = reply.tool_calls
    assert (call.name, list(call.parsed())) == ("weather", ["city"])
    assert [one.name for chunk in chunks for one in chunk.tool_calls] == ["weather"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("tools", [lambda city: city], id="lambda"),
        pytest.param("response_format", 7, id="no-class"),
    ],
)
async def test_what_can_not_be_described_is_refused_before_the_call(
    server: SimulatedMistral, field: str, value: Any
) -> None:
    async with router_for(server) as router:
        with pytest.raises(ConfigError, match=field):
            await router.chat(MODEL, "hi", **{field: value})
        with pytest.raises(ConfigError, match=field):
            router.stream(MODEL, "hi", **{field: value})


# --- what headers say


async def test_headers_and_the_providers_id_arrive_plain_and_streamed(server: SimulatedMistral) -> None:
    async with router_for(server) as router:
        reply = await router.chat(MODEL, "hi")
        async with router.stream(MODEL, "hi") as stream:
            async for _ in stream:
                pass
    ids = [reply.headers["mistral-correlation-id"], stream.response.headers["mistral-correlation-id"]]
    assert all(ids)
    assert ids[0] != ids[1]


async def test_an_error_inside_a_stream_has_the_providers_id(server: SimulatedMistral) -> None:
    server.fail("a", Fault("error_event"))
    async with router_for(server) as router:
        with pytest.raises(CallError) as caught:
            async with router.stream(MODEL, "hi") as stream:
                async for _ in stream:
                    pass
    assert caught.value.request_id  # type: ignore[attr-defined] # a provider's error


async def test_a_quota_with_nothing_left_rests_its_group_until_the_stated_reset(server: SimulatedMistral) -> None:
    spent = {"ratelimitbysize-limit": "9", "ratelimitbysize-remaining": "0", "ratelimitbysize-reset": "15"}

    class Spent(Mistral):
        def quotas(self, headers: Mapping[str, str]) -> tuple[Quota, ...]:  # older headers than the server sends
            return super().quotas(spent)

    provider = Spent([Key(A, id="a")], base_url=server.base_url)
    async with Router([provider], retry=RetryPolicy(max_wait=0)) as router:
        await router.chat(MODEL, "hi")
        (health,) = router.health()
        assert (health.state, health.reason) == ("open", Kind.RATE_LIMITED)
        assert 0 < health.until <= 15.0
        with pytest.raises(NoKeyAvailableError) as caught:
            await router.chat(MODEL, "hi")
    assert caught.value.http_status == 429
    assert len(server.requests) == 1
