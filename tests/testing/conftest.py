"""A simulated service with one key, and the two ways to it: HTTP on loopback, and an engine without a network."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import httpx
import pytest

from bifrost_core.engines.base import Exchange
from bifrost_core.testing import Fault, Simulated, SimulatedKey, SimulatedMistral

Json: TypeAlias = dict[str, Any]
SECRET = "sk-test-0123456789"


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[SimulatedMistral, httpx.Client]]]:
    """Starts a server with one key (``SimulatedKey`` arguments in ``key``) and a client that uses it."""
    with contextlib.ExitStack() as stack:

        def start(*faults: Fault, key: Json | None = None, **options: Any) -> tuple[SimulatedMistral, httpx.Client]:
            simulated = SimulatedKey(SECRET, id="a", faults=faults, **(key or {}))
            server = stack.enter_context(SimulatedMistral([simulated], **options))
            client = httpx.Client(base_url=server.base_url, headers={"authorization": f"Bearer {SECRET}"}, timeout=5)
            return server, stack.enter_context(client)

        yield start


@pytest.fixture
def exchange() -> Callable[..., Awaitable[tuple[int, dict[str, str], bytes]]]:
    """Sends a request that httpx wrote through the engine of ``Simulated``: status, headers and body."""

    async def send(
        provider: Simulated, method: str, path: str, *, body: Any = None, **content: Any
    ) -> tuple[int, dict[str, str], bytes]:
        secret = provider.keys[0].secret
        assert secret is not None
        written = httpx.Request(method, f"https://simulated.invalid{path}", **content)
        headers = [(name.lower(), value) for name, value in written.headers.raw]
        made = Exchange(
            method,
            str(written.url),
            [*headers, (b"authorization", b"Bearer " + secret.reveal().encode())],
            written.read() if body is None else body(written.read()),
            provider.network,
            connect=2.0,
            read=30.0,
        )
        answer = await provider.engine.open(made)
        try:
            data = b"".join([piece async for piece in answer])
        finally:
            await answer.aclose()
        return answer.status, {name.decode(): value.decode() for name, value in answer.headers}, data

    return send
