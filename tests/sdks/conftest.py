"""What the tests of SDKs share: a simulated Mistral on loopback, a Router and a blocking one in front of it.

Both have a virtual key plugin, so nobody gets through without the key of ``World``; and one that keeps the
records of all calls, so that what an SDK says can be held against what the provider said.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

import attrs
import pytest
from bifrost_plugins.virtual_keys import VirtualKeyPlugin

from bifrost_core import CallRecord, Mistral, RetryPolicy, Router, Secret, SyncRouter, hookimpl
from bifrost_core.testing import SimulatedMistral

Json: TypeAlias = dict[str, Any]

SECRET = "sk-simulated-0123456789"
VIRTUAL_KEY = "sk-bf-tests-0123456789abcdef"
HELD: Json = {"city": "Oslo", "degrees": 7}


class Ledger:
    """Keeps the record of every call."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.records.append(record)


@attrs.define(eq=False)
class World:
    """What a test of an SDK has.

    Attributes:
        server: The provider.
        router: For asynchronous code.
        blocking: For blocking code.
        virtual_key: Of both.
        ledger: The records of both.
    """

    server: SimulatedMistral
    router: Router
    blocking: SyncRouter
    virtual_key: str
    ledger: Ledger

    @property
    def raw(self) -> Json:
        """The provider's JSON of the last call."""
        response = self.ledger.records[-1].response
        assert response is not None
        return response.raw


def answer(body: Json) -> Json | str:
    """What the simulated model says: it calls the first tool until it has a result, and fills in any schema."""
    messages: list[Json] = body.get("messages") or []
    if messages and messages[-1]["role"] == "tool":
        return "It is 7 degrees in Oslo."
    if tools := body.get("tools"):
        function = tools[0]["function"]
        wanted = function["parameters"].get("properties", {})
        arguments = {name: value for name, value in HELD.items() if name in wanted}
        call = {"id": "a1B2c3D4e", "name": function["name"], "arguments": json.dumps(arguments)}
        return {"content": "", "tool_calls": [call], "finish_reason": "tool_calls"}
    if (body.get("response_format") or {}).get("type") == "json_schema":
        return json.dumps(HELD)
    return "The bridge is Bifrost."


@pytest.fixture
def anyio_backend() -> str:
    """SDKs and frameworks are written for asyncio."""
    return "asyncio"


@pytest.fixture
def server() -> Iterator[SimulatedMistral]:
    with SimulatedMistral([SECRET], answer=answer, keep_bodies=True) as running:
        yield running


def provider(server: SimulatedMistral) -> Mistral:
    return Mistral([SECRET], base_url=server.base_url)


def gate() -> VirtualKeyPlugin:
    return VirtualKeyPlugin(keys=[{"id": "vk_tests", "name": "tests", "secret": Secret(VIRTUAL_KEY)}])


@pytest.fixture
async def world(server: SimulatedMistral) -> AsyncIterator[World]:
    ledger = Ledger()
    once = RetryPolicy(max_attempts=1)
    with SyncRouter([provider(server)], plugins=[gate(), ledger], retry=once) as blocking:
        async with Router([provider(server)], plugins=[gate(), ledger], retry=once) as router:
            yield World(server, router, blocking, VIRTUAL_KEY, ledger)
