"""A Router on a provider without a network, and a client whose bytes the dialects read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import httpx
import pytest

from bifrost_core import RetryPolicy, Router
from bifrost_core.testing import Fault, Simulated, SimulatedKey

Json: TypeAlias = dict[str, Any]
Opened: TypeAlias = AbstractAsyncContextManager[tuple[httpx.AsyncClient, Simulated, Router]]


@pytest.fixture
def opened() -> Callable[..., Opened]:
    """Opens a Router on ``Simulated`` with one key, named ``mistral``, and its client of httpx."""

    @asynccontextmanager
    async def open_router(
        *faults: Fault, plugins: Iterable[object] = (), router: Json | None = None, **options: Any
    ) -> AsyncIterator[tuple[httpx.AsyncClient, Simulated, Router]]:
        provider = Simulated([SimulatedKey("a", faults=faults)], name="mistral", keep_bodies=True, **options)
        made = Router([provider], plugins=plugins, retry=RetryPolicy(backoff=0, max_wait=0), **(router or {}))
        async with made, made.http_client(flavour="httpx") as client:
            yield client, provider, made

    return open_router


@pytest.fixture
def events() -> Callable[[str], list[Any]]:
    """Reads the data of a body of server-sent events: JSON, or the word ``[DONE]``."""

    def read(body: str) -> list[Any]:
        assert body.endswith("\n\n")
        lines = [line for block in body[:-2].split("\n\n") for line in block.split("\n")]
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        return [each if each == "[DONE]" else json.loads(each) for each in data]

    return read
