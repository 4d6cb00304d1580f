"""No answer crosses from one tenant to another.

``python -m tests.plugins.response_cache.test_tenants 100000`` does so many operations.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import anyio
import pytest
from bifrost_plugins.response_cache import ResponseCachePlugin
from bifrost_plugins.stores import MemoryStore
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import Call, Principal, ProviderServerError, RefusedError, Router, hookimpl
from bifrost_core.testing import Fault, Simulated, SimulatedKey
from tests.plugins.response_cache.conftest import MODEL, Tenants

TENANTS = ("acme", "umbrella", "none", "nobody")


class Visitors(Tenants):
    """As ``Tenants``; who presents nothing is nobody."""

    @hookimpl
    def bifrost_authenticate(self, call: Call) -> Principal | None:
        return None if call.virtual_key is None else super().bifrost_authenticate(call)


def party(tenant: str, user: int) -> str | None:
    """Who shares: users of a tenant; each user who has none; all who present nothing."""
    return f"none-{user}" if tenant == "none" else tenant


async def operations(count: int, seed: int, *, store: bool = False) -> tuple[int, int, int]:
    """Do so many random calls of several tenants, many at a time; count crossings, hits and provider requests."""
    rng = random.Random(seed)
    crossings = hits = 0
    served = 0
    owner: dict[str, str] = {}  # which party was given an answer first

    def law(body: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal served
        served += 1
        return {"content": f"answer-{served}"}  # no two are the same

    faults = Fault("status", status=500, probability=0.05)
    provider = Simulated([SimulatedKey("one", latency=0.0005, faults=faults)], answer=law, seed=seed)
    cache = ResponseCachePlugin(MemoryStore() if store else None, max_entries=20)

    async def worker(router: Router, number: int) -> None:
        nonlocal crossings, hits
        for _ in range(number):
            tenant, user = rng.choice(TENANTS), rng.randrange(2)
            virtual_key = None if tenant == "nobody" else f"sk-bf-{tenant}-{user}"
            mode = rng.choices(("use", "bypass", "refresh", "only"), (80, 5, 5, 10))[0]
            text = f"question {rng.randrange(8)}"
            try:
                with anyio.move_on_after(0.0003 if rng.random() < 0.03 else 30):
                    if rng.random() < 0.2:
                        async with router.stream(MODEL, text, virtual_key=virtual_key, cache=mode) as stream:
                            said = "".join([chunk.text async for chunk in stream])
                            cached = stream.response is not None and stream.response.cached
                    else:
                        answer = await router.chat(MODEL, text, virtual_key=virtual_key, cache=mode)
                        said, cached = answer.text, answer.cached
                    whose = f"{party(tenant, user)}: {text}"
                    crossings += owner.setdefault(said, whose) != whose
                    hits += cached
            except (RefusedError, ProviderServerError):  # "only", and nothing there; four failures in a row
                pass

    async with Router([provider], plugins=[Visitors(), cache]) as router, anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(worker, router, count // 20)
    assert cache.stats().waiting == 0
    return crossings, hits, len(provider.journal)


@pytest.mark.parametrize("store", [False, True], ids=["in memory", "in a store"])
async def test_no_answer_crosses_among_tenants_that_ask_the_same(*, store: bool) -> None:
    crossings, hits, requests = await operations(1_000, 11, store=store)
    assert crossings == 0
    assert hits > 100
    assert requests > 50


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(TENANTS), st.integers(0, 1), st.integers(0, 1), st.sampled_from(("use", "refresh"))),
        max_size=12,
    )
)
def test_a_call_is_a_hit_exactly_where_the_same_party_has_asked_the_same(
    asked: list[tuple[str, int, int, str]],
) -> None:
    async def main() -> None:
        provider = Simulated(["one"])
        seen: set[tuple[str | None, int]] = set()
        async with Router([provider], plugins=[ResponseCachePlugin(), Visitors()]) as router:
            for tenant, user, question, mode in asked:
                virtual_key = None if tenant == "nobody" else f"sk-bf-{tenant}-{user}"
                answer = await router.chat(MODEL, f"{question}", virtual_key=virtual_key, cache=mode)
                same = (party(tenant, user), question)
                assert answer.cached == (same in seen and mode == "use")
                seen.add(same)

    anyio.run(main)


async def test_the_server_counts_two_for_two_tenants_and_one_for_two_users() -> None:
    provider = Simulated(["one"])
    async with Router([provider], plugins=[Tenants(), ResponseCachePlugin()]) as router:
        for key in ("sk-bf-acme-1", "sk-bf-acme-2", "sk-bf-umbrella-1", "sk-bf-umbrella-2"):
            await router.chat(MODEL, "hi", virtual_key=key)
        with pytest.raises(RefusedError):
            await router.chat(MODEL, "hi", virtual_key="sk-bf-third-1", cache="only")
    assert len(provider.journal) == 2


async def test_without_authentication_two_virtual_keys_do_not_share() -> None:
    provider = Simulated(["one"])
    async with Router([provider], plugins=[ResponseCachePlugin()]) as router:
        await router.chat(MODEL, "hi", virtual_key="sk-bf-one")
        assert not (await router.chat(MODEL, "hi", virtual_key="sk-bf-two")).cached
        assert not (await router.chat(MODEL, "hi")).cached
        assert (await router.chat(MODEL, "hi", virtual_key="sk-bf-one")).cached


if __name__ == "__main__":
    print(anyio.run(operations, int(sys.argv[1]), 1))  # noqa: T201 # a program here
