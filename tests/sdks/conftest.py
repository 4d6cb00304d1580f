"""What the tests of every vendor's SDK use: a server that speaks Mistral's API, a Router before it, the SDK on top.

An SDK that is not installed is skipped by its own module (``pytest.importorskip``).
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import attrs
import pytest

from bifrost_core import CallRecord, Key, Mistral, RetryPolicy, Router, SyncRouter, hookimpl
from bifrost_core.testing import Fault, Latency, SimulatedKey, SimulatedMistral

PROVIDER_KEY = "sk-canary-of-the-provider"  # no vendor's SDK may see it
QUICK = RetryPolicy(backoff=0, max_wait=0)

Build: TypeAlias = Callable[[Any, bool], Any]
"""Makes an SDK's client of an HTTP client; of an asynchronous one where the second argument is true."""


@pytest.fixture
def anyio_backend() -> str:
    """The SDKs are written for asyncio."""
    return "asyncio"


class Records:
    """Remembers how calls ended."""

    def __init__(self) -> None:
        self.all: list[CallRecord] = []

    @property
    def outcomes(self) -> list[str]:
        return [record.outcome for record in self.all]

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.all.append(record)


@attrs.define(eq=False)
class Caller:
    """An SDK's client, asynchronous or blocking, behind one face.

    Attributes:
        sdk: The client itself.
        server: The provider, on loopback.
        router: The Router between them; of a blocking client the one inside its ``SyncRouter``.
        records: How calls ended.
        is_async: Which of the two.
    """

    sdk: Any
    server: SimulatedMistral
    router: Router
    records: Records
    is_async: bool

    async def call(self, path: str, /, *arguments: Any, **named: Any) -> Any:
        """Call a method by its path (``chat.completions.create``); a blocking one in another thread."""
        method = operator.attrgetter(path)(self.sdk)
        if self.is_async:
            return await method(*arguments, **named)
        return await anyio.to_thread.run_sync(lambda: method(*arguments, **named))

    async def read(self, path: str, /, *arguments: Any, **named: Any) -> list[Any]:
        """All that a stream brings, which a method returns."""
        stream = await self.call(path, *arguments, **named)
        if self.is_async:
            return [each async for each in stream]
        return await anyio.to_thread.run_sync(lambda: list(stream))

    async def within(self, path: str, look: Callable[[Any], Any], /, **named: Any) -> tuple[list[Any], Any]:
        """All that a stream brings, which a method returns as a context manager, and what ``look`` finds at its end."""
        manager = operator.attrgetter(path)(self.sdk)(**named)
        if self.is_async:
            async with manager as stream:
                return [each async for each in stream], await look(stream)

        def run() -> tuple[list[Any], Any]:
            with manager as stream:
                return list(stream), look(stream)

        return await anyio.to_thread.run_sync(run)

    async def settled(self) -> None:
        """Wait until nothing is under way any more, and see that nothing is held."""
        with anyio.fail_after(10):
            while self.router._running or not await anyio.to_thread.run_sync(self.server.wait_idle):
                await anyio.sleep(0.005)
        assert all(route.in_flight == 0 for route in self.router.health())
        assert self.router._sender.in_flight == 0


@pytest.fixture(params=["async", "blocking"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Tests of an SDK run with its asynchronous and with its blocking client."""
    return bool(request.param == "async")


@pytest.fixture
async def connect(is_async: bool) -> AsyncIterator[Callable[..., Any]]:
    """Connects an SDK to a Router: ``await connect(build, …)`` gives a ``Caller``.

    Options: faults of the provider's one key, ``plugins``, ``latency``, ``output_tokens``, ``client`` (of
    ``http_client``), and those of ``SimulatedMistral``.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def make(
            build: Build,
            *faults: Fault,
            plugins: Iterable[object] = (),
            latency: Latency | float = 0.0,
            output_tokens: tuple[int, int] = (8, 64),
            client: dict[str, Any] | None = None,
            **options: Any,
        ) -> Caller:
            key = SimulatedKey(PROVIDER_KEY, id="a", faults=faults, latency=latency, output_tokens=output_tokens)
            server = await stack.enter_async_context(SimulatedMistral([key], keep_bodies=True, **options))
            records = Records()
            provider = Mistral([Key(PROVIDER_KEY, id="a")], base_url=server.base_url)
            given = {"plugins": [*plugins, records], "retry": QUICK}
            if is_async:
                router = await stack.enter_async_context(Router([provider], **given))
                http = await stack.enter_async_context(router.http_client(**(client or {})))
                return Caller(build(http, True), server, router, records, True)
            blocking = SyncRouter([provider], **given)
            stack.push_async_callback(anyio.to_thread.run_sync, blocking.close)
            http = stack.enter_context(blocking.http_client(**(client or {})))
            return Caller(build(http, False), server, blocking._router, records, False)

        yield make
