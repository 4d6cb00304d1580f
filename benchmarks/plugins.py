"""What each built-in plugin costs a call, hook by hook, and what a call costs that the cache answers.

*Hooks*: microseconds in each hook of a call, by plugin: every plugin alone on a Router of ten keys over an engine
without a network, and all of them together. With one call in flight and nothing to wait for that is CPU; each round
brings the median of its calls. A figure holds the compiled chain, time caps included, and not what the plugins'
stores take: their operations are clocked apart and have a line of their own, as they depend on which store it is
(here one in memory). For the measurement the Router's chains are wrapped; what that costs a hook that does nothing
is taken off.

*Calls*: what plugins add to a whole call, by another pair of Routers without any wrapper: in each round every
Router makes the same calls in turn, and the difference to the one without plugins is formed in that round. Beside
it the Python functions that a call enters, which do not depend on the machine, and the CPU of other threads (the
request log writes in one).

*Hits*: whole calls that the response cache answers, beside the least that a Router can do for a call: a plugin
that answers at once with an answer it has (``ready``), so that the difference is the cache's own work.

    python -m benchmarks.plugins [--calls 25] [--rounds 31]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType
from typing import Any, Final
from unittest import mock

import anyio
import attrs
from bifrost_plugins.budgets import Budget, BudgetPlugin
from bifrost_plugins.guardrails import GuardrailPlugin
from bifrost_plugins.guardrails.rules import Length, Literals, Pii, Regex, Secrets
from bifrost_plugins.rate_limits import RateLimit, RateLimitPlugin
from bifrost_plugins.request_log import RequestLogPlugin, SqliteSink
from bifrost_plugins.response_cache import ResponseCachePlugin
from bifrost_plugins.stores import MemoryStore
from bifrost_plugins.virtual_keys import VirtualKeyPlugin

from benchmarks.canned import MESSAGES, MODEL
from benchmarks.machine import machine
from benchmarks.null_engine import NullEngine
from bifrost_core import Mistral, Principal, Response, Router, Secret, hookimpl, router
from bifrost_core.hooks import Hooks, compile_hooks

__all__ = ["PLUGINS", "full_set", "main"]

_KEYS: Final = tuple(f"sk-simulated-{number:04d}" for number in range(10))
_ASKED: Final = f"mistral/{MODEL}"
_LONG: Final = 24 * 3600.0  # seconds: no deadline comes up while this runs
_NO_VIRTUAL_KEY: Final = Secret("nobody-asks-what-this-is", "virtual key")
_COUNTED: Final = 4  # calls whose functions are counted
_READINGS: Final = 400
_ONCE: Final = frozenset({"lifespan", "providers", "resolve_secret"})  # not of a call

# Of hooks. Not the thread's CPU clock, the reading of which is a system call that leaves caches cold: what other
# processes take shows in single calls, of which the median does not know.
_clock: Final = time.perf_counter_ns

_LEVELS: Final = ("router", "customer", "team", "virtual_key", "model")
_RULES: Final = (
    lambda: Literals(["project hagall", "codename ymir"]),
    lambda: Regex(r"INV-[0-9]{6}", action="redact"),
    lambda: Pii(action="redact"),
    Secrets,
    lambda: Length(max_characters=100_000),
)


class _Caller:
    """Says who calls where no virtual keys do: budgets of teams need to know."""

    _ann: Final = Principal(id="vk_ann", tenant="vk_ann", virtual_key_id="vk_ann", team="search", customer="acme")

    @hookimpl
    def bifrost_authenticate(self) -> Principal:
        return self._ann


class _Ready:
    """Answers every call at once, with the answer of the first."""

    def __init__(self) -> None:
        self.answer: Response | None = None

    @hookimpl
    def bifrost_cached_response(self) -> Response | None:
        return self.answer


@attrs.define(eq=False)
class _Spent:
    """Nanoseconds in a store, and in how many of its operations."""

    store: int = 0
    operations: int = 0


class _ClockedStore(MemoryStore):
    """A store that notes what its operations take."""

    never_waits = True

    def __init__(self, spent: _Spent) -> None:
        super().__init__()
        self._spent = spent


async def _timed(spent: _Spent, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    began = _clock()
    try:
        return await operation(*args, **kwargs)
    finally:
        spent.store += _clock() - began
        spent.operations += 1


def _clocked(name: str) -> Callable[..., Any]:
    operation = getattr(MemoryStore, name)

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _timed(self._spent, operation, self, *args, **kwargs)

    return run


for _name in ("reserve", "settle", "release", "read", "get", "put"):
    setattr(_ClockedStore, _name, _clocked(_name))


@attrs.frozen
class _Bench:
    """What plugins are made with.

    Attributes:
        store: Makes a store.
        folder: For the request log.
    """

    store: Callable[[], MemoryStore]
    folder: Path


def _virtual_keys(bench: _Bench) -> list[object]:
    return [VirtualKeyPlugin(bench.store(), teams={"search": "acme"}, customers=["acme"])]


def _budgets(bench: _Bench) -> list[object]:
    return [BudgetPlugin(bench.store(), [Budget("9000000", period="1M", scope=level) for level in _LEVELS])]


def _rate_limits(bench: _Bench) -> list[object]:
    limit = RateLimit(requests=10**9, tokens=10**12, concurrency=1000, per="1s", scope="virtual_key")
    return [RateLimitPlugin(bench.store(), [limit])]


def _response_cache(bench: _Bench) -> list[object]:  # noqa: ARG001 # in the process's memory, no store
    return [ResponseCachePlugin()]


def _guardrails(bench: _Bench) -> list[object]:  # noqa: ARG001 # needs nothing
    return [GuardrailPlugin([make() for make in _RULES])]


def _request_log(bench: _Bench) -> list[object]:
    return [RequestLogPlugin(SqliteSink(bench.folder / f"{time.monotonic_ns()}.db"))]


PLUGINS: Final[Mapping[str, Callable[[_Bench], list[object]]]] = {
    "virtual_keys": _virtual_keys,
    "budgets": _budgets,
    "rate_limits": _rate_limits,
    "response_cache": _response_cache,
    "guardrails": _guardrails,
    "request_log": _request_log,
}
"""The plugins, as a service would configure them; README.md says how."""


def full_set(folder: Path) -> list[object]:
    """All of them, each with a store in memory of its own; the request log writes into ``folder``."""
    return _plugins(PLUGINS, _Bench(MemoryStore, folder))


_CALLED: Final = frozenset({"budgets", "rate_limits"})  # alone they do not know who calls


def _plugins(names: Iterable[str], bench: _Bench) -> list[object]:
    made = [plugin for name in names for plugin in PLUGINS[name](bench)]
    return [_Caller(), *made] if set(names) <= _CALLED and names else made


async def _asking(stack: AsyncExitStack, plugins: Sequence[object]) -> _Asking:
    """A Router with these plugins, open, and a virtual key that one of them has issued."""
    made = Router([Mistral(list(_KEYS))], engine=NullEngine(), plugins=plugins, timeout=_LONG)
    await stack.enter_async_context(made)
    key = _NO_VIRTUAL_KEY
    for plugin in plugins:
        if isinstance(plugin, VirtualKeyPlugin):
            key = (await plugin.issue("ann", team="search")).secret
    return _Asking(made, key)


class _Asking:
    """Calls.

    Args:
        asked: The Router.
        key: The virtual key that they present.
    """

    _numbers: Final = itertools.count()

    def __init__(self, asked: Router, key: Secret) -> None:
        self._asked = asked
        self._key = key

    async def anew(self) -> Response:
        """A call that was never made before."""
        text = f"{next(self._numbers)} {MESSAGES[0]['content']}"
        return await self._ask([{"role": "user", "content": text}])

    async def again(self) -> Response:
        """The same call each time."""
        return await self._ask(MESSAGES)

    async def _ask(self, messages: Sequence[Mapping[str, str]]) -> Response:
        return await self._asked.chat(_ASKED, messages, virtual_key=self._key, max_tokens=20)


Ask = Callable[[], Any]


async def _entered(ask: Ask) -> float:
    """Python functions entered per call."""
    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        for _ in range(_COUNTED):
            await ask()
    finally:
        sys.setprofile(before)
    return count / _COUNTED


# Hooks, one by one.


class _HookClock:
    """Nanoseconds by hook, without what stores and the telling itself took."""

    def __init__(self) -> None:
        self.hooks: dict[str, float] = {}
        self.inside = _Spent()
        self._reading = 0.0  # of the clock, within what is told
        self._operation = 0.0  # what telling of a store's operation costs beside that

    def compile(self, *args: Any, **kwargs: Any) -> Hooks:
        """In place of ``compile_hooks``: chains that tell."""
        hooks = compile_hooks(*args, **kwargs)
        changes: dict[str, Any] = {}
        for field in attrs.fields(Hooks):
            chain = getattr(hooks, field.name)
            if callable(chain) and field.name not in _ONCE | {"pick_route", "stream_filter"}:
                changes[field.name] = self._told(field.name, chain)
        return attrs.evolve(hooks, **changes)

    async def calibrate(self) -> None:
        """Find out what telling costs: of a hook that does nothing, and of one that has a store do nothing."""
        self._reading = self._operation = 0.0

        async def nothing() -> None:
            """Does nothing."""

        async def nothing_in_store() -> None:
            await _timed(self.inside, nothing)

        costs: dict[str, float] = {}
        for name, chain in (("nothing", nothing), ("stored", nothing_in_store)):
            told, goes = self._told(name, chain), list[float]()
            for _ in range(9):
                self.take()
                for _ in range(_READINGS):
                    await told()
                found = self.take()
                goes.append((found[name] + found.get("store", 0.0)) / _READINGS)
            costs[name] = statistics.median(goes)
        self._reading = costs["nothing"]
        self._operation = costs["stored"] - costs["nothing"]
        self.inside.store = self.inside.operations = 0

    def take(self) -> dict[str, float]:
        """What was spent since the last time."""
        found, self.hooks = self.hooks, {}
        if self.inside.operations:  # a round without any counts as one
            found.setdefault("store", 0.0)
        return found

    def _told(self, name: str, chain: Callable[..., Any]) -> Callable[..., Any]:
        inside = self.inside

        async def run(*args: Any) -> Any:
            store, operations = inside.store, inside.operations
            began = _clock()
            try:
                return await chain(*args)
            finally:
                took = _clock() - began - self._reading
                stored, times = inside.store - store, inside.operations - operations
                # Of what telling of an operation costs, about one reading is in the operation's own time.
                own = min(self._reading, self._operation)
                took -= stored + times * (self._operation - own)
                self.hooks[name] = self.hooks.get(name, 0.0) + took
                if times:
                    self.hooks["store"] = self.hooks.get("store", 0.0) + stored - times * own

        return run


Figures = dict[str, list[float]]  # by row: one per round


async def hooks(names: Mapping[str, Sequence[str]], folder: Path, *, calls: int, rounds: int) -> dict[str, Figures]:
    """Microseconds per call in each hook, by column of ``names``."""
    async with AsyncExitStack() as stack:
        columns: dict[str, tuple[_HookClock, Ask]] = {}
        for column, chosen in names.items():
            clock = _HookClock()
            await clock.calibrate()
            bench = _Bench(functools.partial(_ClockedStore, clock.inside), folder)
            with mock.patch.object(router, "compile_hooks", clock.compile):
                asking = await _asking(stack, _plugins(chosen, bench))
            columns[column] = clock, asking.anew
        found: dict[str, Figures] = {column: {} for column in columns}
        for number in range(rounds + 1):
            for column, (clock, ask) in columns.items():
                told: dict[str, list[float]] = {}
                for _ in range(calls):
                    clock.take()
                    await ask()
                    for hook, spent in clock.take().items():
                        told.setdefault(hook, []).append(spent / 1e3)
                if number:  # the first round warms up
                    for hook, figures in told.items():
                        found[column].setdefault(hook, []).append(statistics.median(figures))
    for column, chosen in names.items():
        if set(chosen) <= _CALLED:  # asked who calls, and nothing else
            found[column].pop("authenticate", None)
    return found


# Whole calls.


@attrs.define(eq=False)
class _Way:
    """One kind of call, and what it cost.

    Attributes:
        ask: Makes one.
        cpu: Microseconds of CPU of this thread per call, by round.
        beside: The same of other threads.
        entered: Python functions per call.
    """

    ask: Ask
    cpu: list[float] = attrs.field(factory=list[float])
    beside: list[float] = attrs.field(factory=list[float])
    entered: float = 0.0


async def _in_turn(ways: Iterable[_Way], *, calls: int, rounds: int) -> None:
    listed = list(ways)
    for way in listed:
        for _ in range(2 * len(_KEYS)):
            await way.ask()
        way.entered = await _entered(way.ask)
    for _ in range(rounds):
        for way in listed:
            mine, all_ = time.thread_time_ns(), time.process_time_ns()
            for _ in range(calls):
                await way.ask()
            mine, all_ = time.thread_time_ns() - mine, time.process_time_ns() - all_
            way.cpu.append(mine / calls / 1e3)
            way.beside.append(max(0.0, (all_ - mine) / calls / 1e3))


async def whole(
    names: Mapping[str, Sequence[str]], folder: Path, *, calls: int, rounds: int
) -> tuple[dict[str, _Way], dict[str, _Way]]:
    """Calls that go to a provider by column of ``names``, the plugin-less ones first; and calls that none answers."""
    bench = _Bench(MemoryStore, folder)
    async with AsyncExitStack() as stack:
        misses = {"no plugins": _Way((await _asking(stack, ())).anew)}
        for column, chosen in names.items():
            misses[column] = _Way((await _asking(stack, _plugins(chosen, bench))).anew)
        ready = _Ready()
        hits = {"ready": _Way((await _asking(stack, [ready])).again)}
        for column, chosen in (("response_cache", ["response_cache"]), ("all plugins", list(PLUGINS))):
            hits[column] = _Way((await _asking(stack, _plugins(chosen, bench))).again)
        ready.answer = await hits["ready"].ask()
        await _in_turn([*misses.values(), *hits.values()], calls=calls, rounds=rounds)
    return misses, hits


# Markdown.


def _quartiles(figures: Sequence[float]) -> str:
    if len(figures) < 2:
        return f"{figures[0]:.1f}"
    low, middle, high = statistics.quantiles(figures, n=4, method="inclusive")
    return f"{middle:.1f} ({low:.1f}-{high:.1f})"


def _hooks_table(found: Mapping[str, Figures]) -> str:
    rows = [row for row in attrs.fields_dict(Hooks) if any(row in figures for figures in found.values())]
    lines = ["| hook | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for row in rows:
        cells = [_quartiles(figures[row]) if row in figures else "-" for figures in found.values()]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    sums = [
        [sum(parts) for parts in zip(*(figures[row] for row in rows if row in figures), strict=True)]
        for figures in found.values()
    ]
    lines.append("| **all hooks** | " + " | ".join(map(_quartiles, sums)) + " |")
    stored = [_quartiles(figures["store"]) if "store" in figures else "-" for figures in found.values()]
    lines.append("| its store | " + " | ".join(stored) + " |")
    return "\n".join(lines)


def _calls_table(corner: str, ways: Mapping[str, _Way]) -> str:
    first = next(iter(ways.values()))
    lines = [f"| {corner} | CPU | adds | other threads | Python calls | adds |", "|---|" + "---:|" * 5]
    for name, way in ways.items():
        added = [mine - other for mine, other in zip(way.cpu, first.cpu, strict=True)]
        more = "-" if way is first else _quartiles(added)
        functions = "-" if way is first else f"{way.entered - first.entered:.0f}"
        lines.append(
            f"| {name} | {_quartiles(way.cpu)} | {more} | {statistics.median(way.beside):.1f} "
            f"| {way.entered:.0f} | {functions} |"
        )
    return "\n".join(lines)


async def _report(calls: int, rounds: int) -> str:
    names: dict[str, Sequence[str]] = {name: (name,) for name in PLUGINS} | {"all plugins": tuple(PLUGINS)}
    with tempfile.TemporaryDirectory() as folder:
        one = await hooks(names, Path(folder), calls=calls, rounds=rounds)
        misses, hits = await whole(names, Path(folder), calls=calls, rounds=rounds)
    return "\n\n".join(
        (
            "Each hook per call, its store's work apart, us: median (quartiles) of the rounds.",
            _hooks_table(one),
            "A whole call without a network, us of CPU: median (quartiles); what plugins add, by round.",
            _calls_table("plugins", misses),
            "The same where no provider is asked: an answer that is ready, and hits of the cache.",
            _calls_table("answered by", hits),
        )
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plugins", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=25, help="calls of each Router in a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=31, help="(%(default)s)")
    options = parser.parse_args(arguments)
    print(machine(), end="\n\n")
    print(anyio.run(_report, options.calls, options.rounds))


if __name__ == "__main__":
    main()
