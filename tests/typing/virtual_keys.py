"""Virtual keys as users manage them: checked by mypy and pyright, never run."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import partial
from typing import assert_type

from bifrost_plugins.stores import SqliteStore
from bifrost_plugins.virtual_keys import Customer, Issued, Team, VirtualKey, VirtualKeyPlugin

from bifrost_core import Secret, SyncRouter


def plugins() -> list[VirtualKeyPlugin]:
    return [
        VirtualKeyPlugin(),
        VirtualKeyPlugin(required=False, cut_streams=True, cache_seconds=0.5, max_failures=5),
        VirtualKeyPlugin(SqliteStore("keys.db"), pepper="env:BIFROST_PEPPER"),
        VirtualKeyPlugin(SqliteStore("keys.db"), pepper=["env:NEW_PEPPER", b"0123456789abcdef0123456789abcdef"]),
        VirtualKeyPlugin(
            keys=[{"name": "search", "secret": "env:SEARCH_KEY", "models": "*"}],
            teams={"search": "acme"},
            customers=["acme"],
            source=lambda call: call.headers.get("x-peer"),
        ),
    ]


async def manage(plugin: VirtualKeyPlugin) -> None:
    assert_type(await plugin.add_customer("acme"), Customer)
    assert_type(await plugin.add_team("search", customer="acme"), Team)
    issued = await plugin.issue(
        "search",
        team="search",
        tenant="acme",
        operations=["chat"],
        models="mistral/*",
        exclude_models=("*-large",),
        key_ids={"mistral": ["k1"]},
        provider_weights={"mistral": 2, "other": 1},
        expires_in=datetime.timedelta(days=90),
        metadata={"owner": "ann"},
    )
    assert_type(issued, Issued)
    assert_type(issued.secret, Secret)
    assert_type(issued.record, VirtualKey)
    assert_type(issued.record.key_ids, tuple[str, ...] | Mapping[str, tuple[str, ...]])
    assert_type(await plugin.list(team="search", state="active"), Sequence[VirtualKey])
    assert_type(await plugin.update(issued.id, models=["*"]), VirtualKey)
    assert_type(await plugin.rotate(issued.id, grace=3600), Issued)
    assert_type(await plugin.expire(issued.id, after=60), VirtualKey)
    assert_type(await plugin.revoke(issued.id), VirtualKey)


def manage_blocking(router: SyncRouter, plugin: VirtualKeyPlugin) -> None:
    issued: Issued = router.portal().call(partial(plugin.issue, "search", team="search"))
    assert_type(issued.secret, Secret)
    assert_type(router.portal().call(plugin.revoke, "A" * 12), VirtualKey)
