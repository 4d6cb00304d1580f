"""``Router``: the object that a service holds. It gathers the parts; a ``Run`` takes each call through them."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import anyio
import attrs

from . import requests
from .balancing import Balancer, LatencyWeighted
from .cache_options import cache_option
from .calls import Call
from .catalog import Catalog
from .clocks import Clock, SystemClock
from .config import options_from_config, options_from_env
from .deployments import Deployments
from .engines.base import HttpEngine
from .errors import CallError, ConfigError, PluginError
from .estimates import Estimate, estimated
from .flights import Machinery
from .health import Health, RouteHealth
from .hooks import compile_hooks
from .keys import ANY_MODEL, Key, Secret, presented
from .kinds import Scope
from .lifespans import Lifespans
from .operations import Operations
from .prices import PriceBook
from .providers.base import Provider
from .requests import CALL_OPTIONS, STREAM_OPTIONS
from .responses import Response
from .retries import RetryBudget, RetryPolicy
from .roots import Home, run_beside
from .runs import Run
from .sender import Sender
from .stream_runs import StreamRun
from .streams import ResponsesStream, ResponseStream, StreamSource
from .timeouts import Timeout
from .types import Messages, Operation, Request, RouteRef

__all__ = ["Router"]

_DRAIN_SECONDS: Final = 10.0
_WITHOUT_COST: Final = frozenset({"virtual_key", "fallbacks", "timeout", "metadata"})


class Router(Operations):
    """Routes LLM calls over the keys of providers, inside this process.

    Nothing is opened, read or started before the first call or ``async with``. A Router works on asyncio
    and trio and belongs to the event loop of its first call.

    Args:
        providers: Adapters with their keys.
        plugins: Objects with hooks (``bifrost_core.hookimpl``); the first is outermost.
        balancer: Makes the balancer of each deployment; called with ``clock=`` and ``rng=`` where it takes them.
        retry: How often and where a call is tried again.
        timeout: Limits of time; a number is the total in seconds.
        fallbacks: Models to try, in order, when a model can not answer.
        aliases: Names of your own for models.
        prices: Over the built-in ones.
        engine: ``"auto"``, ``"httpx"``, ``"httpx2"``, ``"aiohttp"`` (the extra ``fast``; asyncio only), an ``HttpEngine`` or an ``httpx.AsyncClient``.
        clock: Time for health, limits, caches and budgets; sleeps and deadlines are the event loop's.
        rng: Source of every random choice; a seeded one makes them repeatable.
        require: Hooks that some plugin must implement.

    Raises:
        ConfigError: An argument is wrong; names it.
        PluginError: A plugin breaks its contract; names plugin, hook and mistake.
    """

    def __init__(
        self,
        providers: Iterable[Provider],
        *,
        plugins: Iterable[object] = (),
        balancer: Callable[..., Balancer] = LatencyWeighted,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 # frozen
        timeout: Timeout | float = Timeout(),  # noqa: B008 # frozen
        fallbacks: Mapping[str, Sequence[str]] | None = None,
        aliases: Mapping[str, str] | None = None,
        prices: PriceBook | None = None,
        engine: str | HttpEngine | Any = "auto",
        clock: Clock | None = None,
        rng: random.Random | None = None,
        require: Collection[str] = (),
    ) -> None:
        self._clock: Clock = SystemClock() if clock is None else clock
        self._rng = random.Random() if rng is None else rng
        self._timeout = Timeout.of(timeout)
        self._hooks = compile_hooks(plugins, require=require, clock=self._clock)
        self._deployments = Deployments(providers, balancer, self._clock, self._rng)
        if self._hooks.providers is not None:
            for provider in self._hooks.providers(self):
                self._deployments.add_provider(provider)
        if not self._deployments.providers:
            raise ConfigError("a Router needs at least one provider, such as Mistral([key])", field="providers")
        self._prices = PriceBook() if prices is None else prices
        self._catalog = Catalog(
            self._deployments.providers, self._deployments.keys_of, dict(aliases or {}), self._prices
        )
        self._sender = Sender(engine, clock=self._clock)
        for provider in self._deployments.providers.values():
            self._sender.prepare(provider)
        self._health = Health(self._clock, self._rng)
        self._machinery = Machinery(
            hooks=self._hooks,
            sender=self._sender,
            health=self._health,
            deployments=self._deployments,
            catalog=self._catalog,
            retry=retry,
            budget=RetryBudget(retry),
            prices=self._prices,
            clock=self._clock,
            rng=self._rng,
            fallbacks=self._named_fallbacks(fallbacks or {}),
            timeout=self._timeout,
        )
        self._running: set[Run] = set()
        self._home: Home | None = None  # the event loop that it belongs to, from its first call on
        self._blocking: Any = None  # the way onto the event loop, once a blocking client wants it
        self._lifespans: Lifespans | None = None
        self._starting: anyio.Event | None = None
        self._started = False
        self._closed = False

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """A Router over the keys in the environment: ``MISTRAL_API_KEY``, ``MISTRAL_API_KEY_2``, ``OPENAI_API_KEY`` and so on.

        Raises:
            ConfigError: No such variable is set.
        """
        return cls(**options_from_env(os.environ), **options)

    @classmethod
    def from_config(cls, source: str | os.PathLike[str] | Mapping[str, Any], **options: Any) -> Self:
        """A Router from a TOML or JSON file, or from a mapping of the same shape.

        Secrets stand in it as references (``env:NAME``, ``file:PATH``). ``options`` win over the file.

        Raises:
            ConfigError: The file can not be read, or an entry is wrong; names the entry.
        """
        return cls(**{**options_from_config(source), **options})

    def _named_fallbacks(self, fallbacks: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """Fallbacks by full model name; a deployment twice in one chain is a mistake."""
        named: dict[str, tuple[str, ...]] = {}
        for model, chain in fallbacks.items():
            if isinstance(chain, str):
                raise ConfigError(f"fallbacks of {model!r} is a string; pass a list of models", field="fallbacks")
            first = "/".join(self._catalog.resolve(model))
            rest = tuple("/".join(self._catalog.resolve(name)) for name in chain)
            if len({first, *rest}) != 1 + len(rest):
                raise ConfigError(f"fallbacks of {model!r} name a deployment twice", field="fallbacks")
            named[first] = rest
        return named

    # -- calls ----------------------------------------------------------------------------------

    async def send(
        self,
        request: Request,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the call's own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Response:
        """Send a request of any operation; what ``chat`` and its like call.

        Args:
            request: What to send.
            virtual_key: As for ``chat``, like the other options.
            fallbacks: Models to try, in order.
            timeout: Seconds for the whole call, or a ``Timeout``.
            metadata: For plugins and logs; not sent.
            headers: What hooks see as ``call.headers``; not sent.
            **options: ``session``, ``cache``, ``effects``, ``extra_body``.

        Raises:
            CallError: Any way in which the call can fail; see ``errors.py``.
            ConfigError: The request is a stream (use ``send_stream``), or an option is unknown.
        """
        virtual_key = presented(virtual_key)
        if request.stream:
            raise ConfigError("the request is a stream; use send_stream", field="stream")
        await self._begin()
        timeout_ = self._limits(timeout)
        call = self._call(request, timeout_, virtual_key, fallbacks, metadata, headers, options)
        run = Run(self._machinery, call, timeout_)
        self._running.add(run)
        try:
            await run_beside(run.main, run.stop)
        finally:
            self._running.discard(run)
        return run.result()

    def send_stream(
        self,
        request: Request,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> ResponseStream:
        """Send a request of any operation that streams; what ``stream`` and its like call."""
        virtual_key = presented(virtual_key)
        if not request.stream:
            raise ConfigError("the request is no stream; use send", field="stream")
        begin = self._opener(
            request,
            virtual_key=virtual_key,
            fallbacks=fallbacks,
            timeout=timeout,
            metadata=metadata,
            headers=headers,
            **options,
        )
        return (ResponsesStream if request.operation is Operation.RESPONSES else ResponseStream)(begin)

    def _opener(
        self,
        request: Request,
        *,
        virtual_key: Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Callable[[], Awaitable[StreamSource]]:
        async def open_run() -> StreamSource:
            await self._begin()
            limits = self._limits(timeout)
            call = self._call(request, limits, virtual_key, fallbacks, metadata, headers, options)
            run = StreamRun(self._machinery, call, limits)
            run.on_finished = self._running.discard
            self._running.add(run)
            return run

        _check_options(options)
        return open_run

    def _providers_of(self, operation: Operation, named: str | None) -> Sequence[str]:
        providers = self._deployments.providers
        if named is None:
            return [name for name, provider in providers.items() if operation in provider.operations]
        if named in providers:
            return [named]
        near = get_close_matches(named, providers) or sorted(providers)
        raise ConfigError(f"no provider {named!r}; did you mean {', '.join(near)}?", field="provider")

    def _limits(self, timeout: Timeout | float | None) -> Timeout:
        if timeout is None:
            return self._timeout
        return timeout if isinstance(timeout, Timeout) else self._timeout.with_total(timeout)

    def _call(
        self,
        request: Request,
        timeout: Timeout,
        virtual_key: Secret | None,
        fallbacks: Sequence[str] | None,
        metadata: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        options: Mapping[str, Any],
    ) -> Call:
        _check_options(options)
        if isinstance(fallbacks, str):
            raise ConfigError("fallbacks is a string; pass a list of models", field="fallbacks")
        total = timeout.total_for(stream=request.stream)
        deadline = anyio.current_effective_deadline()
        if total is not None:
            deadline = min(deadline, anyio.current_time() + total)
        return Call(
            id="call_" + os.urandom(12).hex(),
            operation=request.operation,
            request=_with_extra_body(request, options),
            virtual_key=virtual_key,
            deadline=deadline,
            fallbacks=() if fallbacks is None else tuple(fallbacks),
            metadata={} if metadata is None else metadata,
            headers={} if headers is None else headers,
            options=options,
            router=self,
        )

    # -- for vendors' SDKs ----------------------------------------------------------------------

    def http_client(self, *, virtual_key: str | Secret | None = None, flavour: str | None = None) -> Any:
        """An HTTP client that reaches this Router and no network, for a vendor's SDK to be built with.

        The first segment of a path names the dialect (``/openai``, ``/anthropic``, ``/mistral``); the host
        is ignored. The SDK's api key is the virtual key, where it is one; it is never sent to a provider.

        Args:
            virtual_key: Who calls, where a request does not say it.
            flavour: ``"httpx"`` or ``"httpx2"``; None: httpx2 where it is installed.

        Returns:
            An ``httpx.AsyncClient`` or ``httpx2.AsyncClient``.

        Raises:
            ConfigError: There is no such flavour, or it is not installed.
        """
        virtual_key = presented(virtual_key)
        from . import clients  # noqa: PLC0415 # costs nothing until somebody wants one

        return clients.async_client(clients.Door(self, virtual_key), flavour)

    def sync_http_client(self, *, virtual_key: str | Secret | None = None, flavour: str | None = None) -> Any:
        """As ``http_client``, an ``httpx.Client`` or ``httpx2.Client`` for blocking code, for use from any thread.

        It runs calls on the event loop that the Router belongs to, which has to run in another thread; where
        there is none yet, on one in a daemon thread that stays. (Blocking code that wants an end to it holds a
        ``SyncRouter``.)
        """
        virtual_key = presented(virtual_key)
        from . import clients  # noqa: PLC0415 # costs nothing until somebody wants one

        if self._blocking is None:
            self._blocking = clients.LoopElsewhere(lambda: self._home)
        return clients.sync_client(clients.Door(self, virtual_key), self._blocking, flavour)

    # -- keys and health ------------------------------------------------------------------------

    def add_key(self, provider: str, key: Key) -> None:
        """Take a key into use; calls in flight are not touched.

        Raises:
            ConfigError: No such provider, or the id is taken.
        """
        self._deployments.add_key(provider, key)
        self._catalog.forget()

    def remove_key(self, provider: str, key_id: str) -> None:
        """Choose a key no more; attempts in flight on it go on.

        Raises:
            ConfigError: No such provider or key.
        """
        self._deployments.remove_key(provider, key_id)
        self._catalog.forget()
        self._health.forget_key(provider, key_id)

    def open_route(self, route: RouteRef, *, seconds: float | None = None, scope: Scope | str = Scope.ROUTE) -> None:
        """Let nothing through on a route, as its breaker does when it opens (``RouteHealth.state``).

        Args:
            route: Such as a ``RouteHealth.route``; ``RouteRef("mistral", "mistral-small-latest", "k1")``.
            seconds: How long; None: until ``close_route``.
            scope: How much: the ``route``, its ``key``, ``quota_group``, ``deployment`` or ``provider``.

        Raises:
            ConfigError: No such route or scope, or ``seconds`` is no time.
        """
        if seconds is not None and not 0 < seconds < math.inf:
            raise ConfigError(f"seconds is a finite time > 0, or None, not {seconds!r}", field="seconds")
        self._health.open(self._deployments.route(route), seconds or math.inf, scope=_scope(scope))

    def close_route(self, route: RouteRef, *, scope: Scope | str | None = None) -> None:
        """Let attempts through again, whatever had opened it, and forget how often that happened.

        Args:
            route: Such as a ``RouteHealth.route``.
            scope: As for ``open_route``; None: everything that keeps the route from being used.

        Raises:
            ConfigError: No such route or scope.
        """
        self._health.close(self._deployments.route(route), scope=None if scope is None else _scope(scope))

    @property
    def providers(self) -> Mapping[str, Provider]:
        """The providers by name, those that plugins brought included."""
        return MappingProxyType(self._deployments.providers)

    def health(self) -> list[RouteHealth]:
        """The state of every route of every model that calls have asked for."""
        report: list[RouteHealth] = []
        for deployment in self._deployments.live():
            if deployment.model != ANY_MODEL:  # lists of models: no work is done there
                report.extend(deployment.report(self._health))
        return report

    def estimate(self, model: str, messages: Messages, **params: Any) -> Estimate:
        """What ``chat`` with the same arguments may use and cost in one attempt; nothing is sent, no hook runs.

        Args:
            model: As for ``chat``; fallbacks are not looked at.
            messages: As for ``chat``.
            **params: As for ``chat``, options included.

        Raises:
            ConfigError: An argument is wrong; names it.
            CallError: ``chat`` would fail for the same reason before anything is sent.
        """
        params = {name: value for name, value in params.items() if name not in _WITHOUT_COST}
        request, options = requests.chat(model, messages, params, stream=False)
        request = _with_extra_body(request, options)
        provider, name = self._catalog.resolve(request.model)
        request = attrs.evolve(request, model=name)
        full = f"{provider}/{name}"
        try:
            encoded = self._deployments.providers[provider].encode(request)
        except CallError as exc:
            exc.model = exc.model or full
            raise
        return estimated(full, request, encoded, self._prices.find(provider, name))

    def describe(self) -> str:
        """Providers, keys (ids only) and plugins per hook in call order, for people."""
        lines: list[str] = []
        for name, provider in self._deployments.providers.items():
            operations = ", ".join(sorted(provider.operations))
            lines.append(f"provider {name}: {operations}")
            for key in self._deployments.keys_of(name):
                models = ", ".join(key.models) or "none"
                state = "" if key.enabled else ", disabled"
                lines.append(f"  key {key.id}: weight {key.weight:g}, models {models}{state}")
        lines.extend(
            f"hook {hook}: {' -> '.join(plugins)}" for hook, plugins in self._hooks.describe().items() if plugins
        )
        return "\n".join(lines)

    # -- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Admit no more calls, wait up to 10 s for those that run, end the rest, close everything. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        if self._running:
            with anyio.move_on_after(_DRAIN_SECONDS):
                for run in list(self._running):
                    await run.finished.wait()
            for run in list(self._running):
                run.stop()
        with anyio.CancelScope(shield=True):
            for run in list(self._running):
                await run.finished.wait()
            if self._lifespans is not None:
                await self._lifespans.stop()
            await self._sender.aclose()

    async def _begin(self) -> None:
        """Make sure that the Router runs, on this event loop."""
        if self._closed:
            raise ConfigError("the Router is closed; make another")
        if self._home is None:
            self._sender.check_event_loop()
            self._home = Home()
            self._machinery.now = self._home.time
        elif not self._home.is_here():
            raise ConfigError("the Router belongs to another event loop; make one per event loop, or use SyncRouter")
        if not self._started:
            await self._start()

    async def _start(self) -> None:
        """Resolve secrets and enter lifespans, once; who comes meanwhile waits."""
        while self._starting is not None:
            await self._starting.wait()
        if self._started:
            return
        self._starting = anyio.Event()
        try:
            await self._resolve_secrets()
            lifespans = Lifespans(() if self._hooks.lifespan is None else self._hooks.lifespan(self))
            await lifespans.start()
            self._lifespans = lifespans
            self._started = True
        finally:
            self._starting.set()
            self._starting = None

    async def _resolve_secrets(self) -> None:
        for provider in self._deployments.providers:
            for key in list(self._deployments.keys_of(provider)):
                if key.secret is not None or key.reference is None:
                    continue
                resolve = self._hooks.resolve_secret
                try:
                    answer = None if resolve is None else await resolve(key.reference)
                except PluginError as exc:
                    raise ConfigError(f"key {key.id}: {exc.message}", field=key.id) from exc
                if answer is None:
                    scheme = key.reference.partition(":")[0]
                    raise ConfigError(
                        f"key {key.id}: no plugin resolves {scheme}: references; add one to plugins=[…]",
                        field=key.id,
                    )
                self._deployments.replace_key(provider, key.resolve(answer))


def _scope(name: Scope | str) -> Scope:
    try:
        return Scope(name)
    except ValueError:
        raise ConfigError(f"{name!r} is no scope; there are {', '.join(Scope)}", field="scope") from None


def _with_extra_body(request: Request, options: Mapping[str, Any]) -> Request:
    """The request with the fields of the option ``extra_body``, for the adapter to merge."""
    extra = options.get("extra_body")
    if extra is None:
        return request
    if not isinstance(extra, Mapping):
        raise ConfigError("extra_body is no mapping of names to values", field="extra_body")
    return request.with_body(extra_body={**extra})


def _check_options(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name not in STREAM_OPTIONS:
            raise ConfigError(f"unknown option {name!r}; there are {', '.join(sorted(CALL_OPTIONS))}", field=name)
        if name == "cache":
            cache_option(value)
