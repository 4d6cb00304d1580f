"""What a Router does with virtual keys: who passes, and what a key allows."""

from __future__ import annotations

import collections
import hmac
import logging
import random
import traceback
from collections.abc import Iterator
from typing import Any, cast

import attrs
import pytest
from bifrost_plugins.allow_list import AllowListPlugin, Grant
from bifrost_plugins.stores import MemoryStore, StoreError
from bifrost_plugins.virtual_keys import VirtualKeyPlugin
from bifrost_plugins.virtual_keys.failures import Failures
from bifrost_plugins.virtual_keys.format import new_id, new_key
from bifrost_plugins.virtual_keys.hashing import Peppers

from bifrost_core import (
    BifrostError,
    Call,
    CallRecord,
    ConfigError,
    Mistral,
    NoKeyAvailableError,
    Operation,
    PluginError,
    Principal,
    RateLimitError,
    RefusedError,
    Request,
    RetryPolicy,
    RoundRobin,
    Router,
    Secret,
    SyncRouter,
    VirtualKeyError,
    hookimpl,
)
from bifrost_core.testing import FakeClock, Fault, Simulated, SimulatedMistral
from bifrost_core.testing.plugins import check_plugin

PEPPER = "pepper-for-tests-0123456789abcdef"
NO_KEY = "the call has no valid virtual key; pass virtual_key=… with one that is neither expired nor revoked"


class Seen:
    """Notes how calls ended."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)

    @property
    def last(self) -> Principal | None:
        return self.records[-1].principal


def router(plugin: object, *more: object, keys: tuple[str, ...] = ("k1",), **options: Any) -> Router:
    return Router([Simulated(keys), Simulated(keys, name="other")], plugins=[plugin, *more], **options)


async def ask(to: Router, key: str | Secret | None, model: str = "simulated/small", **options: Any) -> str:
    """The model that answered."""
    response = await to.chat(model, "hello", virtual_key=key, **options)
    return f"{response.route.provider}/{response.route.model}"


def test_its_hooks_are_in_order() -> None:
    assert check_plugin(VirtualKeyPlugin()) == [
        "bifrost_authenticate",
        "bifrost_authorize",
        "bifrost_select_routes",
        "bifrost_stream_filter",
        "bifrost_lifespan",
    ]


# -- who passes ----------------------------------------------------------------------------------------------------


async def test_a_key_makes_a_principal(plugin: VirtualKeyPlugin) -> None:
    await plugin.add_customer("acme")
    await plugin.add_team("search", customer="acme")
    one = await plugin.issue("one", team="search", tenant="acme-tenant", metadata={"who": "ann", "name": "x"})
    two = await plugin.issue("two", team="search")
    seen = Seen()
    async with router(plugin, seen) as to:
        assert await ask(to, one.secret) == "simulated/small"
        assert seen.last == Principal(
            id=one.id,
            tenant="acme-tenant",
            virtual_key_id=one.id,
            team="search",
            customer="acme",
            claims={"who": "ann", "name": "one"},
        )
        await ask(to, two.secret.reveal())
        assert seen.last is not None
        assert seen.last.tenant == two.id  # nobody said that the team's keys share anything


async def test_every_wrong_key_is_one_error(plugin: VirtualKeyPlugin, clock: FakeClock) -> None:
    good = await plugin.issue("good", expires_in=3600)
    revoked, expired = await plugin.issue("revoked"), await plugin.issue("expired", expires_in=5)
    await plugin.revoke(revoked.id)
    clock.advance(5)
    rotated = await plugin.issue("rotated")
    await plugin.rotate(rotated.id)
    text = good.secret.reveal()
    wrong = {
        "none": None,
        "unknown": new_key(new_id()),
        "another secret": new_key(good.id),
        "typing error": text[:20] + ("A" if text[20] != "A" else "B") + text[21:],
        "cut": text[:-1],
        "foreign": "another-credential-0123456789",
        "digest": good.record.digest,
        "expired": expired.secret,
        "revoked": revoked.secret,
        "rotated": rotated.secret,
        "no header value": "spaces and\nlines",
    }
    async with router(plugin) as to:
        for name, key in wrong.items():
            with pytest.raises(VirtualKeyError) as caught:
                await ask(to, key)
            assert (name, caught.value.message, caught.value.http_status) == (name, NO_KEY, 401)
        assert plugin.failed == len(wrong)
        assert await ask(to, good.secret) == "simulated/small"
        clock.advance(3595)
        with pytest.raises(VirtualKeyError, match=NO_KEY):  # a record in the cache expires all the same
            await ask(to, good.secret)


async def test_unknown_keys_are_compared_like_known_ones(
    plugin: VirtualKeyPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    hashed: list[int] = []
    compare, mac = hmac.compare_digest, Peppers._mac

    def counted(one: Any, two: Any) -> bool:
        compared.append((len(one), len(two)))
        return compare(one, two)

    def counted_mac(self: Peppers, key: Secret, pepper: str) -> bytes:
        hashed.append(len(key.reveal()))
        return mac(self, key, pepper)

    issued = await plugin.issue("k")
    monkeypatch.setattr(hmac, "compare_digest", counted)
    monkeypatch.setattr(Peppers, "_mac", counted_mac)
    work: list[tuple[list[tuple[int, int]], list[int]]] = []
    for key in (issued.secret, new_key(issued.id), new_key(new_id())):
        request = Request(Operation.CHAT, "simulated/small", {})
        call = Call("c", request.operation, request, virtual_key=key)
        compared.clear()
        hashed.clear()
        try:
            answer = plugin.bifrost_authenticate(call)
            assert answer is not None
            assert not isinstance(answer, Principal)
            await answer
        except VirtualKeyError:
            assert key is not issued.secret
        work.append(([*compared], [*hashed]))
    assert work == [([(32, 32)] * 3, [67])] * 3


async def test_a_key_that_was_right_is_told_again_without_its_digest_until_its_record_is_another(
    plugin: VirtualKeyPlugin, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    hashed: list[str] = []
    mac = Peppers._mac

    def counted_mac(self: Peppers, key: Secret, pepper: str) -> bytes:
        hashed.append(pepper)
        return mac(self, key, pepper)

    async def admits(key: Secret) -> int:
        """Digests that it took to admit the key."""
        request = Request(Operation.CHAT, "simulated/small", {})
        hashed.clear()
        answer = plugin.bifrost_authenticate(Call("c", request.operation, request, virtual_key=key))
        assert isinstance(answer if isinstance(answer, Principal) else await cast("Any", answer), Principal)
        return len(hashed)

    first = await plugin.issue("k")
    monkeypatch.setattr(Peppers, "_mac", counted_mac)
    assert [await admits(first.secret) for _ in range(3)] == [1, 0, 0]
    second = await plugin.rotate(first.id)
    with pytest.raises(VirtualKeyError, match=NO_KEY):
        await admits(first.secret)
    assert [await admits(second.secret) for _ in range(2)] == [1, 0]
    clock.advance(2)  # the record is read anew
    assert [await admits(second.secret) for _ in range(2)] == [1, 0]
    third = await plugin.rotate(first.id, grace=60)
    assert [await admits(second.secret) for _ in range(2)] == [1, 1]  # in its grace, by its digest each time
    assert [await admits(third.secret) for _ in range(2)] == [1, 0]
    await plugin.revoke(first.id)
    for key in (second.secret, third.secret):
        with pytest.raises(VirtualKeyError, match=NO_KEY):
            await admits(key)


async def test_an_old_secret_is_good_for_its_grace(plugin: VirtualKeyPlugin, clock: FakeClock) -> None:
    first = await plugin.issue("k")
    second = await plugin.rotate(first.id, grace=60)
    assert second.id == first.id
    async with router(plugin) as to:
        await ask(to, first.secret)
        await ask(to, second.secret)
        clock.advance(60)
        with pytest.raises(VirtualKeyError):
            await ask(to, first.secret)
        await ask(to, second.secret)
        await plugin.rotate(first.id, grace=60)
        await plugin.rotate(first.id)  # what is lost now is lost at once
        with pytest.raises(VirtualKeyError):
            await ask(to, second.secret)


async def test_a_pepper_is_changed_while_keys_live(clock: FakeClock) -> None:
    store = MemoryStore()
    before = VirtualKeyPlugin(store, pepper=PEPPER, clock=clock)
    after = VirtualKeyPlugin(store, pepper=["the-next-" + PEPPER, PEPPER], clock=clock)
    last = VirtualKeyPlugin(store, pepper="the-next-" + PEPPER, clock=clock)
    old = await before.issue("old")
    new = await after.rotate((await before.issue("new")).id)
    async with router(after) as to:
        await ask(to, old.secret)
        await ask(to, new.secret)
    async with router(last) as to:
        await ask(to, new.secret)
        with pytest.raises(VirtualKeyError, match=NO_KEY):
            await ask(to, old.secret)


async def test_without_a_key_callers_are_anonymous_where_none_is_required() -> None:
    plugin, seen = VirtualKeyPlugin(required=False), Seen()
    issued = await plugin.issue("k", models="none")
    async with router(plugin, seen) as to:
        await ask(to, None)
        assert seen.last is None
        for wrong in ("another-credential-0123456789", new_key(new_id())):
            with pytest.raises(VirtualKeyError, match=NO_KEY):
                await ask(to, wrong)
        with pytest.raises(RefusedError):
            await ask(to, issued.secret)


async def test_other_plugins_answer_for_other_credentials(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("k", models="small")

    class Badges:
        @hookimpl
        def bifrost_authenticate(self, call: Call) -> Principal | None:
            key = call.virtual_key
            return Principal(id="badge") if key is not None and key.reveal().startswith("badge-") else None

    seen = Seen()
    async with router(plugin, Badges(), seen) as to:
        await ask(to, "badge-0123456789", model="simulated/large")
        assert seen.last == Principal(id="badge")
        await ask(to, issued.secret)
        with pytest.raises(VirtualKeyError, match=NO_KEY):
            await ask(to, "ticket-0123456789")
        with pytest.raises(VirtualKeyError, match=NO_KEY):
            await ask(to, None)


# -- what a key allows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "model", "what"),
    [
        pytest.param({}, "simulated/small", None, id="everything"),
        pytest.param({"operations": []}, "simulated/small", "the operation chat", id="no-operation"),
        pytest.param({"operations": "embeddings"}, "simulated/small", "the operation chat", id="another-operation"),
        pytest.param({"operations": ["ocr", "chat"]}, "simulated/small", None, id="this-operation"),
        pytest.param({"exclude_operations": "chat"}, "simulated/small", "the operation chat", id="not-this-operation"),
        pytest.param({"exclude_operations": "*"}, "simulated/small", "the operation chat", id="not-any-operation"),
        pytest.param({"providers": []}, "simulated/small", "provider simulated", id="no-provider"),
        pytest.param({"providers": "other"}, "simulated/small", "provider simulated", id="another-provider"),
        pytest.param({"providers": "simulated"}, "simulated/small", None, id="this-provider"),
        pytest.param(
            {"providers": "simulated", "exclude_providers": "simulated"},
            "simulated/small",
            "provider simulated",
            id="provider-both",
        ),
        pytest.param({"models": []}, "simulated/small", "model simulated/small", id="no-model"),
        pytest.param({"models": "small"}, "simulated/small", None, id="bare-model"),
        pytest.param({"models": "small"}, "simulated/smaller", "model simulated/smaller", id="no-prefix"),
        pytest.param({"models": "sm*"}, "simulated/smaller", None, id="pattern"),
        pytest.param({"models": "simulated/*"}, "simulated/small", None, id="provider-pattern"),
        pytest.param({"models": "other/*"}, "simulated/small", "model simulated/small", id="other-pattern"),
        pytest.param(
            {"models": "simulated/*"}, "other/simulated/x", "model other/simulated/x", id="a-provider-in-a-models-name"
        ),
        pytest.param({"exclude_models": "*all"}, "simulated/small", "model simulated/small", id="excluded"),
        pytest.param({"exclude_models": "lab/*"}, "other/lab/x", "model other/lab/x", id="excluded-by-its-own-name"),
        pytest.param(
            {"models": "small", "exclude_models": "simulated/small"},
            "simulated/small",
            "model simulated/small",
            id="model-both",
        ),
        pytest.param({"key_ids": []}, "simulated/small", "any key of provider simulated", id="no-key"),
        pytest.param(
            {"key_ids": {"simulated": []}}, "simulated/small", "any key of provider simulated", id="none-here"
        ),
        pytest.param({"key_ids": {"other": []}}, "simulated/small", None, id="none-elsewhere"),
    ],
)
async def test_what_is_not_allowed_is_named(
    plugin: VirtualKeyPlugin, grant: dict[str, Any], model: str, what: str | None
) -> None:
    issued = await plugin.issue("k", **grant)
    async with router(plugin) as to:
        if what is None:
            assert await ask(to, issued.secret, model) == model
            return
        with pytest.raises(RefusedError) as caught:
            await ask(to, issued.secret, model)
        assert caught.value.message == f"virtual key 'k' ({issued.id}) does not allow {what}; update it or ask less"
        assert caught.value.http_status == 403


async def test_every_operation_passes_the_same_gate(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("k", operations="chat", models="small")
    async with router(plugin) as to:
        for operation in Operation:
            for model in ("simulated/small", "simulated/large"):
                request = Request(operation, model, {"messages": [{"role": "user", "content": "x"}]})
                if (operation, model) == (Operation.CHAT, "simulated/small"):
                    await to.send(request, virtual_key=issued.secret)
                    continue
                with pytest.raises(RefusedError, match="does not allow"):
                    await to.send(request, virtual_key=issued.secret)
        with pytest.raises(RefusedError, match="does not allow"):
            async with to.stream("simulated/large", "x", virtual_key=issued.secret) as stream:
                await anext(aiter(stream))


async def test_a_list_of_models_is_asked_of_no_model(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("k", operations="models", models=[])
    nothing = await plugin.issue("none", operations="models", providers=[])
    async with router(plugin) as to:
        await to.models("simulated", virtual_key=issued.secret)
        with pytest.raises(RefusedError, match="provider simulated"):
            await to.models("simulated", virtual_key=nothing.secret)


async def test_a_fallback_that_is_not_allowed_is_skipped(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("k", exclude_models="large", key_ids={"simulated": "nobody"})
    async with router(plugin) as to:
        answered = await ask(to, issued.secret, fallbacks=["other/large", "other/medium"])
        assert answered == "other/medium"


async def test_calls_go_out_on_the_keys_that_are_allowed(plugin: VirtualKeyPlugin) -> None:
    every = await plugin.issue("every")
    one = await plugin.issue("one", key_ids="k2")
    two = await plugin.issue("two", key_ids={"simulated": ["k1", "k3"]})
    stranger = await plugin.issue("stranger", key_ids="k9")
    async with router(plugin, keys=("k1", "k2", "k3"), balancer=RoundRobin) as to:

        async def used(key: Secret, provider: str = "simulated") -> set[str]:
            answers = [await to.chat(f"{provider}/small", "x", virtual_key=key) for _ in range(6)]
            return {answer.route.key_id for answer in answers}

        assert await used(every.secret) == {"k1", "k2", "k3"}
        assert await used(one.secret) == {"k2"}
        assert await used(two.secret) == {"k1", "k3"}
        assert await used(two.secret, "other") == {"k1", "k2", "k3"}
        with pytest.raises(NoKeyAvailableError, match="has no key that the plugins leave to this call"):
            await ask(to, stranger.secret)


async def test_a_call_waits_for_the_key_that_it_may_use(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("one", key_ids="k1")
    async with router(plugin, keys=("k1", "k2")) as to:
        await ask(to, issued.secret)
        (route,) = [each.route for each in to.health() if each.route.key_id == "k1"]
        to.open_route(route, seconds=0.2)
        response = await to.chat("simulated/small", "x", virtual_key=issued.secret)
        assert (response.route.key_id, len(response.attempts)) == ("k1", 1)
        to.open_route(route, seconds=600)
        with pytest.raises(NoKeyAvailableError, match=r"rests on every key; the first opens in [56]\d\d\.\d s"):
            await ask(to, issued.secret)


async def test_a_key_that_fails_once_is_asked_again_where_no_other_is_allowed(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("one", key_ids="k1")
    provider = Simulated(["k1", "k2"])
    async with Router([provider], plugins=[plugin], retry=RetryPolicy(backoff=0)) as to:
        provider.add_fault("k1", Fault("status", status=500, count=1))
        response = await to.chat("simulated/small", "x", virtual_key=issued.secret)
        assert [attempt.route.key_id for attempt in response.attempts] == ["k1", "k1"]
        assert [attempt.outcome for attempt in response.attempts] == ["failed", "ok"]


async def test_a_refused_key_is_left_for_a_fallback_where_no_other_is_allowed(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("one", key_ids="k1")
    provider, other = Simulated(["k1", "k2"]), Simulated(["k1"], name="other")
    async with Router([provider, other], plugins=[plugin]) as to:
        provider.add_fault("k1", Fault("status", status=429))
        response = await to.chat("simulated/small", "x", virtual_key=issued.secret, fallbacks=["other/small"])
        assert [(attempt.route.provider, attempt.route.key_id) for attempt in response.attempts] == [
            ("simulated", "k1"),
            ("other", "k1"),
        ]


async def test_a_failure_to_select_closes(plugin: VirtualKeyPlugin, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = await plugin.issue("k", key_ids="k1")

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with router(plugin) as to:
        await ask(to, issued.secret)
        monkeypatch.setattr("bifrost_plugins.virtual_keys.records.VirtualKey.keys_of", broken)
        monkeypatch.setattr(VirtualKeyPlugin, "_verdict", lambda *_: None)
        with pytest.raises(PluginError, match="bifrost_select_routes"):
            await ask(to, issued.secret)


# -- bare names ----------------------------------------------------------------------------------------------------


def served(*names: str) -> list[Simulated]:
    return [Simulated(["k1"], name=name, models=["small"]) for name in names]


async def test_weights_choose_the_provider_of_a_bare_name(clock: FakeClock) -> None:
    plugin = VirtualKeyPlugin(clock=clock, rng=random.Random(7))
    issued = await plugin.issue("k", provider_weights={"a": 3, "b": 1})
    providers = served("a", "b", "c")
    async with Router(providers, plugins=[plugin]) as to:
        count = collections.Counter([await ask(to, issued.secret, "small") for _ in range(400)])
    assert set(count) == {"a/small", "b/small"}
    assert 260 <= count["a/small"] <= 340  # 300 expected, sigma 8.7


async def test_the_other_providers_are_fallbacks_the_heaviest_first(clock: FakeClock) -> None:
    plugin, asked = VirtualKeyPlugin(clock=clock, rng=random.Random(7)), list[tuple[str, tuple[str, ...]]]()

    class Asked:
        @hookimpl
        def bifrost_guard_request(self, request: Request, call: Call) -> None:
            asked.append((request.model, call.fallbacks))

    issued = await plugin.issue("k", provider_weights={"a": 1, "b": 2, "c": 4}, exclude_providers="d")
    idle = await plugin.issue("idle", provider_weights={})
    providers = served("a", "b", "c", "d", "e")
    standing = {"a/small": ["d/small"]}
    async with Router(providers, plugins=[plugin, Asked()], fallbacks=standing) as to:
        for _ in range(40):
            await ask(to, issued.secret, "small")
        assert {model: fallbacks for model, fallbacks in asked} == {  # noqa: C416 # the last of each
            "a/small": ("c/small", "b/small", "e/small", "d/small"),
            "b/small": ("c/small", "a/small", "e/small"),
            "c/small": ("b/small", "a/small", "e/small"),
        }
        asked.clear()
        await ask(to, issued.secret, "small", fallbacks=["e/small"])
        await ask(to, idle.secret, "small")
    assert [fallbacks for _, fallbacks in asked] == [
        ("e/small",),
        ("b/small", "c/small", "d/small", "e/small", "d/small"),
    ]


async def test_the_only_provider_that_is_allowed_is_meant(plugin: VirtualKeyPlugin) -> None:
    one = await plugin.issue("one", providers=["b"])
    two = await plugin.issue("two", providers=["a", "b"])
    none = await plugin.issue("none", models="other")
    providers = served("a", "b", "c")
    async with Router(providers, plugins=[plugin], aliases={"quick": "small"}) as to:
        assert await ask(to, one.secret, "small") == "b/small"
        assert await ask(to, one.secret, "quick") == "b/small"
        with pytest.raises(BifrostError, match="several providers serve model 'small'"):
            await ask(to, two.secret, "small")
        with pytest.raises(RefusedError, match="does not allow model a/small"):
            await ask(to, none.secret, "small")
        with pytest.raises(VirtualKeyError):
            await ask(to, new_key(new_id()), "small")


async def test_what_another_plugin_has_decided_stays(plugin: VirtualKeyPlugin) -> None:
    class Fixed:
        @hookimpl
        def bifrost_authenticate(self, call: Call) -> None:
            call.request = attrs.evolve(call.request, model="c/small")

    issued = await plugin.issue("k", provider_weights={"a": 1})
    providers = served("a", "b", "c")
    async with Router(providers, plugins=[Fixed(), plugin]) as to:
        assert await ask(to, issued.secret, "small") == "c/small"


# -- the store -----------------------------------------------------------------------------------------------------


class Counting(MemoryStore):
    """Counts reads, and fails while it is told to."""

    reads = 0
    is_down = False

    async def get(self, key: str) -> bytes | None:
        self.reads += 1
        if self.is_down:
            raise StoreError("the store is away")
        return await super().get(key)


async def test_a_record_is_read_once_a_second(clock: FakeClock) -> None:
    store = Counting()
    plugin, elsewhere = (VirtualKeyPlugin(store, pepper=PEPPER, clock=clock) for _ in range(2))
    issued = await elsewhere.issue("k")
    async with router(plugin) as to:
        store.reads = 0
        for _ in range(5):
            await ask(to, issued.secret)
        assert store.reads == 1
        await elsewhere.revoke(issued.id)
        clock.advance(0.9)
        await ask(to, issued.secret)
        clock.advance(0.1)
        with pytest.raises(VirtualKeyError):
            await ask(to, issued.secret)


async def test_a_change_here_acts_on_the_next_call(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("k")
    async with router(plugin) as to:
        await ask(to, issued.secret)
        await plugin.update(issued.id, models="large")
        with pytest.raises(RefusedError):
            await ask(to, issued.secret)
        await plugin.update(issued.id, models="small")
        await ask(to, issued.secret)
        await plugin.revoke(issued.id)
        with pytest.raises(VirtualKeyError):
            await ask(to, issued.secret)
        await plugin.delete(issued.id)
        with pytest.raises(VirtualKeyError):
            await ask(to, issued.secret)


async def test_a_record_read_before_a_change_is_not_kept(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("k")
    find = type(plugin._registry).find

    async def slow(self: Any, key_id: str) -> Any:
        record = await find(self, key_id)
        await plugin.revoke(key_id)  # between the reading and the use of what was read
        return record

    request = Request(Operation.CHAT, "simulated/small", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(plugin._registry), "find", slow)
        patch.setattr(type(plugin._registry), "get", find)
        answer = plugin.bifrost_authenticate(Call("c", request.operation, request, virtual_key=issued.secret))
        assert answer is not None
        assert not isinstance(answer, Principal)
        await answer
    with pytest.raises(VirtualKeyError):
        plugin.bifrost_authenticate(Call("c", request.operation, request, virtual_key=issued.secret))


async def test_without_its_store_nobody_passes(clock: FakeClock) -> None:
    store = Counting()
    plugin = VirtualKeyPlugin(store, pepper=PEPPER, clock=clock)
    issued = await plugin.issue("k")
    async with router(plugin) as to:
        store.is_down = True
        with pytest.raises(PluginError) as caught:
            await ask(to, issued.secret)
        assert caught.value.http_status == 503
        store.is_down = False
        await ask(to, issued.secret)


async def test_no_more_than_ten_thousand_records_are_remembered(plugin: VirtualKeyPlugin) -> None:
    assert plugin._records.maxsize == plugin._verdicts.maxsize == 10_000
    issued = await plugin.issue("k")
    async with router(plugin) as to:
        for _ in range(30):
            with pytest.raises(VirtualKeyError):
                await ask(to, new_key(new_id()))  # whoever is unknown takes no place
        await ask(to, issued.secret)
    assert list(plugin._records) == [issued.id]


async def test_a_running_stream_is_cut_where_that_is_asked_for(clock: FakeClock) -> None:
    store = MemoryStore()
    cutting = VirtualKeyPlugin(store, pepper=PEPPER, clock=clock, cut_streams=True)
    letting = VirtualKeyPlugin(store, pepper=PEPPER, clock=clock)
    for end in ("revoke", "expire"):
        for plugin in (cutting, letting):
            issued = await plugin.issue("k")
            async with router(plugin) as to, to.stream("simulated/small", "x", virtual_key=issued.secret) as stream:
                pieces = aiter(stream)
                await anext(pieces)
                await getattr(plugin, end)(issued.id)
                if plugin is letting:
                    assert len([piece async for piece in pieces]) > 1
                    continue
                with pytest.raises(VirtualKeyError, match="while the answer was written"):
                    [piece async for piece in pieces]


async def test_a_stream_whose_key_is_good_is_whole(plugin: VirtualKeyPlugin) -> None:
    cutting = VirtualKeyPlugin(cut_streams=True)
    texts: list[str] = []
    for each in (plugin, cutting):
        issued = await each.issue("k")
        async with router(each) as to, to.stream("simulated/small", "x", virtual_key=issued.secret) as stream:
            texts.append("".join([text async for text in stream.text()]))
    assert texts[0] == texts[1] != ""


# -- failures ------------------------------------------------------------------------------------------------------


async def test_a_source_that_fails_too_often_is_refused_for_a_while(clock: FakeClock) -> None:
    plugin = VirtualKeyPlugin(clock=clock, max_failures=3)
    issued = await plugin.issue("k")
    async with router(plugin) as to:
        bad, good = {"source": "198.51.100.7"}, {"source": "203.0.113.9"}
        for _ in range(3):
            with pytest.raises(VirtualKeyError):
                await ask(to, new_key(new_id()), metadata=bad)
        clock.advance(20)
        with pytest.raises(RateLimitError) as caught:
            await ask(to, issued.secret, metadata=bad)
        assert (caught.value.http_status, caught.value.retry_after, caught.value.scope) == (429, 40, "authentication")
        await ask(to, issued.secret, metadata=good)
        await ask(to, issued.secret)
        clock.advance(40)
        await ask(to, issued.secret, metadata=bad)
        for _ in range(10):  # from nowhere: counted, and nobody else is locked out
            with pytest.raises(VirtualKeyError):
                await ask(to, new_key(new_id()))
        await ask(to, issued.secret)
    assert plugin.failed == 13


async def test_where_calls_come_from_is_the_hosts_to_say(clock: FakeClock) -> None:
    plugin = VirtualKeyPlugin(clock=clock, max_failures=1, source=lambda call: call.headers.get("x-peer", "one"))
    issued = await plugin.issue("k")
    async with router(plugin) as to:
        with pytest.raises(VirtualKeyError):
            await ask(to, None)
        with pytest.raises(RateLimitError):
            await ask(to, issued.secret)


def test_sources_are_remembered_in_a_bounded_map(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures(2, clock)
    for number in range(100_050):
        failures.count(f"source-{number}")
    assert failures.sources == 100_000
    assert failures.total == 100_050
    failures.count("x" * 10_000 + "\n")
    with caplog.at_level(logging.WARNING):
        failures.count("x" * 10_000 + "\n")
    assert failures.of("x" * 10_000) == 2
    assert len(caplog.records) == 1
    assert len(caplog.records[0].getMessage()) < 300
    assert "\n" not in caplog.records[0].getMessage()


# -- declared keys -------------------------------------------------------------------------------------------------

DECLARED = "declared-key-0123456789abcdef"


async def test_a_declared_key_needs_no_store(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    monkeypatch.setenv("BIFROST_TEST_KEY", DECLARED)
    issued = new_key(new_id())
    helper = VirtualKeyPlugin(pepper=PEPPER)
    plugin = VirtualKeyPlugin(
        pepper=PEPPER,
        clock=clock,
        customers=["acme"],
        teams={"search": "acme"},
        keys=[
            {"name": "one", "secret": "env:BIFROST_TEST_KEY", "models": "small", "team": "search", "tenant": "t"},
            {"name": "two", "id": "second", "hash": helper._peppers.digest(issued), "expires_at": clock.time() + 60},
            {"name": "three", "secret": Secret("sk-bf-not-of-our-making-0123456789")},
        ],
    )
    seen = Seen()
    async with router(plugin, seen) as to:
        await ask(to, DECLARED)
        assert seen.last == Principal(
            id="one",
            tenant="t",
            virtual_key_id="one",
            team="search",
            customer="acme",
            claims={"name": "one"},
        )
        with pytest.raises(RefusedError, match="model simulated/large"):
            await ask(to, DECLARED, "simulated/large")
        await ask(to, issued)
        await ask(to, "sk-bf-not-of-our-making-0123456789")
        clock.advance(60)
        with pytest.raises(VirtualKeyError, match=NO_KEY):
            await ask(to, issued)
        with pytest.raises(VirtualKeyError, match=NO_KEY):
            await ask(to, DECLARED + "0")
    assert [record.id for record in await plugin.list()] == ["one", "second", "three"]
    assert (await plugin.issue("four", team="search")).record.customer == "acme"
    for work in (plugin.revoke("one"), plugin.update("one", models="*"), plugin.rotate("one"), plugin.delete("one")):
        with pytest.raises(ConfigError, match="stands in the configuration"):
            await work
    for work in (plugin.delete_team("search"), plugin.delete_customer("acme")):
        with pytest.raises(ConfigError, match="stands in the configuration"):
            await work


@pytest.mark.parametrize(
    ("table", "why"),
    [
        pytest.param({"secret": DECLARED}, "no reference", id="a-key-in-a-file"),
        pytest.param({"secret": Secret("canary-key-0123456789")}, "less than 22", id="guessable"),
        pytest.param({"secret": "env:BIFROST_NO_SUCH_KEY"}, "BIFROST_NO_SUCH_KEY is not set", id="not-set"),
        pytest.param({}, "either secret", id="neither"),
        pytest.param({"secret": Secret(DECLARED), "hash": "v1$"}, "either secret", id="both"),
        pytest.param({"hash": "sha256:0123456789"}, "hash is none", id="no-hash"),
        pytest.param({"hash": "v1$00000000$" + "0" * 64}, "another pepper", id="other-pepper"),
        pytest.param({"secret": Secret(DECLARED), "budget": "10.00"}, "no entry 'budget'", id="unknown-entry"),
        pytest.param({"secret": Secret(DECLARED), "team": "nobody"}, "nobody declares", id="team"),
        pytest.param({"secret": Secret(DECLARED), "customer": "nobody"}, "nobody declares", id="customer"),
        pytest.param({"secret": Secret(DECLARED), "team": "free", "customer": "acme"}, "is not of", id="team-of-other"),
        pytest.param({"secret": Secret(DECLARED), "operations": "chatt"}, "names 'chatt'", id="operation"),
        pytest.param({"secret": Secret(DECLARED), "expires_at": "soon"}, "neither a datetime", id="expires-at"),
        pytest.param({"secret": Secret(DECLARED), "name": None}, "name is no printable", id="no-name"),
    ],
)
def test_a_wrong_declaration_is_refused_without_showing_a_key(table: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        VirtualKeyPlugin(pepper=PEPPER, keys=[{"name": "k", **table}], teams=["free"], customers=["acme"])
    assert DECLARED not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_two_declarations_of_one_key_or_id_are_refused() -> None:
    one = {"name": "k", "secret": Secret(DECLARED)}
    with pytest.raises(ConfigError, match="have the id 'k'"):
        VirtualKeyPlugin(keys=[one, {"name": "k", "secret": Secret("x" * 30)}])
    with pytest.raises(ConfigError, match=r"keys\[0\] has no name"):
        VirtualKeyPlugin(keys=[{"secret": Secret(DECLARED)}])
    with pytest.raises(ConfigError, match="declared twice"):
        VirtualKeyPlugin(keys=[one, {**one, "name": "l"}])
    with pytest.raises(ConfigError, match="whom nobody declares"):
        VirtualKeyPlugin(teams={"search": "acme"})


# -- secrets -------------------------------------------------------------------------------------------------------


def everything(error: BaseException) -> str:
    """What a debugger or an error tracker may see of an error: every chained one, every frame's locals."""
    seen: list[str] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None:
            continue
        seen += [repr(current), str(current), repr(vars(current))]
        seen += traceback.format_exception(current)
        for frame, _ in traceback.walk_tb(current.__traceback__):
            if frame.f_code.co_filename != __file__:
                seen += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
        waiting += [current.__cause__, current.__context__]
    return "\n".join(seen)


async def test_no_key_is_in_logs_errors_or_frames(plugin: VirtualKeyPlugin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    issued = await plugin.issue("k", models="small")
    stranger, revoked = new_key(new_id()), await plugin.issue("revoked")
    await plugin.revoke(revoked.id)
    canaries = [
        issued.secret.reveal(),
        stranger.reveal(),
        revoked.secret.reveal(),
        "foreign-canary-0123456789-0123456789abcdef",
    ]
    seen = Seen()
    shown = ""
    async with router(plugin, seen) as to:
        for key in (stranger, revoked.secret, canaries[0][:-1] + "-", canaries[3]):
            with pytest.raises(VirtualKeyError) as caught:
                await ask(to, key)
            shown += everything(caught.value)
        with pytest.raises(RefusedError) as refusal:
            await ask(to, issued.secret, "simulated/large")
        shown += everything(refusal.value)
        await ask(to, issued.secret)
        shown += to.describe()
    shown += "".join(f"{record!r}" for record in seen.records) + repr(plugin) + repr(vars(plugin))
    shown += "".join(f"{record.getMessage()} {record.__dict__!r}" for record in caplog.records)
    shown += repr(await plugin._store.items())
    assert len(shown) > 5_000
    for canary in canaries:
        assert canary not in shown
        assert canary[18:-6] not in shown


def test_a_pepper_that_is_too_short_is_in_no_frame() -> None:
    pepper = "canary-pepper"
    with pytest.raises(ConfigError, match="has 13 bytes") as caught:
        VirtualKeyPlugin(pepper=pepper)
    assert pepper not in everything(caught.value)


# -- blocking code -------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[SimulatedMistral]:
    with SimulatedMistral(["sk-simulated-1"]) as running:
        yield running


def test_blocking_code_manages_keys_on_the_routers_own_event_loop(server: SimulatedMistral) -> None:
    plugin = VirtualKeyPlugin()
    provider = Mistral(["sk-simulated-1"], base_url=server.base_url)
    with SyncRouter([provider], plugins=[plugin]) as to:
        issued = to.portal().call(plugin.issue, "k")
        assert to.chat("mistral/mistral-small-latest", "hello", virtual_key=issued.secret).text
        to.portal().call(plugin.revoke, issued.id)
        with pytest.raises(VirtualKeyError):
            to.chat("mistral/mistral-small-latest", "hello", virtual_key=issued.secret)


async def test_it_stands_beside_an_allow_list(plugin: VirtualKeyPlugin) -> None:
    issued = await plugin.issue("k")
    grants = AllowListPlugin([Grant(issued.id, models="small")])
    async with Router([Simulated(["k1"])], plugins=[plugin, grants]) as to:
        await ask(to, issued.secret)
        with pytest.raises(RefusedError):
            await ask(to, issued.secret, "simulated/large")
