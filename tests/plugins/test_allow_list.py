"""``AllowListPlugin``: known callers do what they are granted, nobody anything else."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import attrs
import pytest
from bifrost_plugins.allow_list import AllowListPlugin, Grant

from bifrost_core import (
    BifrostError,
    Call,
    ConfigError,
    Operation,
    Principal,
    RefusedError,
    Request,
    Router,
    Secret,
    VirtualKeyError,
)
from bifrost_core.testing.simulated import Simulated

ALICE = "sk-bf-alice-0123456789abcdef"
BOB = "sk-bf-bob-0123456789abcdefgh"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def call(key: str | None = None, model: str = "mistral/small", operation: str = "chat") -> Call:
    request = Request(Operation(operation), model, ASK)
    return Call("c1", request.operation, request, virtual_key=None if key is None else Secret(key))


def admitted(plugin: AllowListPlugin, made: Call) -> bool:
    """Both phases, as the Router runs them."""
    made.principal = plugin.bifrost_authenticate(made)
    try:
        plugin.bifrost_authorize(made.request, made)
    except RefusedError:
        return False
    return True


def test_a_known_key_is_its_principal() -> None:
    team = Principal(id="alice", tenant="acme", team="search", roles=frozenset({"dev"}))
    plugin = AllowListPlugin([Grant(team, keys=ALICE, models="*"), Grant("bob", keys=[BOB], models="*")])
    assert plugin.bifrost_authenticate(call(ALICE)) == team
    assert plugin.bifrost_authenticate(call(BOB)) == Principal(id="bob")


@pytest.mark.parametrize(
    "key",
    [None, BOB, ALICE[:-1], ALICE + "x", ALICE.upper(), "another-virtual-key-0123456789"],
    ids=["none", "unknown", "shorter", "longer", "other-case", "stranger"],
)
def test_every_wrong_key_is_the_same_error(key: str | None) -> None:
    plugin = AllowListPlugin([Grant("alice", keys=ALICE, models="*")])
    with pytest.raises(VirtualKeyError) as caught:
        plugin.bifrost_authenticate(call(key))
    with pytest.raises(VirtualKeyError) as other:
        plugin.bifrost_authenticate(call("quite-another-key-0123456789"))
    assert str(caught.value) == str(other.value)
    assert caught.value.http_status == 401


def test_a_digest_in_place_of_a_key_opens_nothing() -> None:
    plugin = AllowListPlugin([Grant("alice", keys=ALICE, models="*")])
    for digest in plugin._by_digest:
        with pytest.raises(VirtualKeyError):
            plugin.bifrost_authenticate(call(digest.hex()))


@pytest.mark.parametrize(
    ("grant", "model", "operation", "allowed"),
    [
        pytest.param({"models": "*"}, "mistral/small", "chat", True, id="star"),
        pytest.param({}, "mistral/small", "chat", False, id="nothing-named"),
        pytest.param({"models": []}, "mistral/small", "chat", False, id="empty"),
        pytest.param({"models": ["mistral/*"]}, "mistral/small", "chat", True, id="provider"),
        pytest.param({"models": ["mistral/*"]}, "openai/small", "chat", False, id="other-provider"),
        pytest.param({"models": ["small"]}, "openai/small", "chat", True, id="bare-name-at-any-provider"),
        pytest.param({"models": ["mistral/small"]}, "mistral/smaller", "chat", False, id="no-prefix-match"),
        pytest.param({"models": "*", "exclude_models": "*large*"}, "mistral/large-2", "chat", False, id="excluded"),
        pytest.param(
            {"models": "mistral/large", "exclude_models": "mistral/large"}, "mistral/large", "chat", False, id="both"
        ),
        pytest.param({"models": "*", "operations": "embeddings"}, "mistral/small", "chat", False, id="operation"),
        pytest.param({"models": "*", "operations": []}, "mistral/small", "chat", False, id="no-operation"),
        pytest.param({"models": "*", "exclude_operations": "chat"}, "mistral/small", "chat", False, id="not-this"),
        pytest.param({"models": "*", "exclude_operations": "*"}, "mistral/small", "chat", False, id="not-any"),
        pytest.param({"models": "*", "exclude_operations": "ocr"}, "mistral/small", "chat", True, id="not-another"),
        pytest.param({}, "", "models", True, id="list-of-models"),
        pytest.param({"exclude_operations": "models"}, "", "models", False, id="no-list-of-models"),
    ],
)
def test_what_is_granted(grant: dict[str, Any], model: str, operation: str, allowed: bool) -> None:
    plugin = AllowListPlugin([Grant("alice", keys=ALICE, **grant)])
    assert admitted(plugin, call(ALICE, model, operation)) is allowed


def test_a_refusal_names_model_and_operation_but_no_key() -> None:
    plugin = AllowListPlugin([Grant("alice", keys=ALICE)])
    made = call(ALICE)
    made.principal = plugin.bifrost_authenticate(made)
    with pytest.raises(RefusedError, match=r"chat on mistral/small") as caught:
        plugin.bifrost_authorize(made.request, made)
    assert caught.value.http_status == 403
    assert ALICE not in repr(caught.value) + str(pickle.dumps(caught.value))


def test_two_keys_of_one_caller_have_grants_of_their_own() -> None:
    plugin = AllowListPlugin([Grant("alice", keys=ALICE, models="small"), Grant("alice", keys=BOB, models="large")])
    assert admitted(plugin, call(ALICE, "mistral/small"))
    assert not admitted(plugin, call(ALICE, "mistral/large"))
    assert admitted(plugin, call(BOB, "mistral/large"))


def test_a_principal_of_another_plugin_has_the_grant_without_keys_only() -> None:
    plugin = AllowListPlugin([Grant("jwt-user", models="small"), Grant("alice", keys=ALICE, models="*")])
    made = call()
    for principal, allowed in (("jwt-user", True), ("alice", False), ("nobody", False)):
        made.principal = Principal(id=principal)
        if allowed:
            plugin.bifrost_authorize(made.request, made)
        else:
            with pytest.raises(RefusedError):
                plugin.bifrost_authorize(made.request, made)


def test_without_a_key_anonymous_callers_pass_where_none_is_required() -> None:
    plugin = AllowListPlugin([Grant("alice", keys=ALICE, models="small")], required=False)
    assert admitted(plugin, call())
    assert not admitted(plugin, call(ALICE, "mistral/large"))
    with pytest.raises(VirtualKeyError):
        plugin.bifrost_authenticate(call(BOB))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Grant("a", keys="sk-0123456789abcde"), id="guessable"),
        pytest.param(lambda: Grant("a", keys=["sk-0123456789 abcdefghij"]), id="unusable"),
        pytest.param(lambda: Grant("a", operations="chatt"), id="misspelt"),
        pytest.param(
            lambda: AllowListPlugin([Grant("a", keys=ALICE), Grant("b", keys=ALICE)]), id="two-owners-of-a-key"
        ),
    ],
)
def test_a_wrong_list_is_refused_without_showing_a_key(make: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert "0123456789" not in str(caught.value)


def test_no_key_stays_in_the_plugin() -> None:
    plugin = AllowListPlugin([Grant("alice", keys=ALICE, models="*")])
    seen: set[int] = set()
    waiting: list[object] = [vars(plugin)]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        assert not isinstance(item, Secret)
        assert ALICE not in str(item) if isinstance(item, (str, bytes)) else True
        if isinstance(item, (dict, list, tuple)) or attrs.has(type(item)):
            waiting += gc.get_referents(item)
    assert len(seen) > 5


async def test_a_router_asks_it_before_anything_is_sent() -> None:
    provider = Simulated(["key"])
    plugin = AllowListPlugin([Grant("alice", keys=ALICE, models="simulated/small")])
    outcomes: list[str] = []
    async with Router([provider], plugins=[plugin]) as router:
        for key, model in (
            (ALICE, "simulated/small"),
            (ALICE, "simulated/large"),
            (BOB, "simulated/small"),
            (None, "simulated/small"),
        ):
            try:
                await router.chat(model, "hello", virtual_key=key)
                outcomes.append("ok")
            except BifrostError as error:
                outcomes.append(type(error).__name__)
    assert outcomes == ["ok", "RefusedError", "VirtualKeyError", "VirtualKeyError"]
    assert len(provider.journal) == 1


async def test_a_fallback_that_is_not_granted_is_skipped() -> None:
    provider = Simulated(["key"], models=["small", "tiny"])
    plugin = AllowListPlugin([Grant("alice", keys=ALICE, models=["missing", "tiny"])])
    async with Router(
        [provider], plugins=[plugin], fallbacks={"simulated/missing": ["simulated/small", "simulated/tiny"]}
    ) as router:
        reply = await router.chat("simulated/missing", "hello", virtual_key=ALICE)
    assert reply.route.model == "tiny"
    assert [record.model for record in provider.journal] == ["missing", "tiny"]
