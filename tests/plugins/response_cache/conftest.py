"""What the tests of the response cache share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import pytest

from bifrost_core import Call, Price, Principal, VirtualKeyError, hookimpl
from bifrost_core.testing import SimulatedKey
from bifrost_core.testing.simulated import Simulated

MODEL = "simulated/small"
PRICES = {"small": Price(input="1", output="2"), "embed": Price(input="0.1", output="0")}


class Tenants:
    """Whoever presents ``sk-bf-TENANT-USER`` is that user of that tenant."""

    @hookimpl
    def bifrost_authenticate(self, call: Call) -> Principal | None:
        if call.virtual_key is None:
            raise VirtualKeyError("no key")
        _, _, tenant, user = call.virtual_key.reveal().split("-")
        return Principal(id=f"{tenant}-{user}", tenant=None if tenant == "none" else tenant)


class Answers:
    """Numbered answers, each with what was asked: whose answer it is can be seen."""

    def __init__(self) -> None:
        self.number = 0
        self.more: dict[str, Any] = {}

    def __call__(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        self.number += 1
        asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        return {"content": f"{self.number}: {asked}", **self.more}


@pytest.fixture
def answers() -> Answers:
    """The law of answers."""
    return Answers()


@pytest.fixture
def provider(answers: Answers) -> Simulated:
    """A provider that answers at once."""
    return Simulated(["one"], prices=PRICES, answer=answers, keep_bodies=True)


def slow_provider(seconds: float = 0.05, **options: Any) -> Simulated:
    """A provider whose answers take a while."""
    return Simulated([SimulatedKey("one", latency=seconds)], prices=PRICES, **options)


async def until(reached: Callable[[], bool]) -> None:
    """Let others run until something is so."""
    with anyio.fail_after(10):
        while not reached():
            await anyio.sleep(0.001)
