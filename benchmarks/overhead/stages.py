"""Where the time of a routed call goes: microseconds of CPU per stage, one call in flight.

How it is told: for the measurement only, the functions that make up a stage are wrapped (``FUNCTIONS``,
and every compiled hook). A wrapper reads the thread's CPU clock when its function begins and ends, and the
time between two readings belongs to the innermost stage that is open then, so that stages add up to the
whole: the event loop's work while an exchange is awaited is ``send``, a function that ``send`` calls for
another stage is not. With one call in flight nothing else runs, and waiting is no CPU. What no stage claims
is ``rest``: the arguments, the ``Call``, its deadline, its task, the plan of attempts.

Reading the clock costs about as much as a small stage, so what the readings of each stage cost is taken
off it, and each column is scaled to the CPU of the same calls without wrappers, measured in turn with them;
its last line says by how much wrappers slowed them.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Final
from unittest import mock

import attrs

from benchmarks.canned import MESSAGES, MODEL
from benchmarks.null_engine import NullEngine
from benchmarks.watchers import watcher
from bifrost_core import Mistral, Router, requests, router
from bifrost_core.health import Health
from bifrost_core.hooks import Hooks, compile_hooks
from bifrost_core.runs import Run
from bifrost_core.sender import Sender

from .targets import Target

__all__ = ["FUNCTIONS", "STAGES", "StageCosts", "measure", "table"]

_GOES: Final = 20
_READINGS: Final = 200
STAGES: Final = ("admit", "hooks", "pick", "encode", "send", "decode", "settle", "rest")

FUNCTIONS: Final[Sequence[tuple[Any, str, str]]] = (
    (requests, "chat", "admit"),
    (router.Router, "_call", "admit"),
    (Run, "__init__", "admit"),
    (Run, "_shaped", "admit"),
    (Run, "_chain", "admit"),
    (Health, "usable", "pick"),
    (Run, "_picked", "pick"),
    (Run, "_encode", "encode"),
    (Sender, "send", "send"),
    (Mistral, "decode", "decode"),
    (Run, "_note_quotas", "decode"),
    (Run, "_settle", "settle"),
    (Run, "_stamped", "settle"),
    (Run, "_record", "settle"),
)
"""Owner, name and stage; what none of these claims is ``rest``."""

_ONCE: Final = frozenset({"lifespan", "providers", "resolve_secret"})  # not of a call


@attrs.frozen
class StageCosts:
    """One column: a Router over one engine.

    Attributes:
        name: Of the column.
        stages: Microseconds of CPU per call and stage, scaled to ``total``.
        total: Microseconds of CPU per call without wrappers.
        slowed: What wrappers multiplied it by.
    """

    name: str
    stages: dict[str, float]
    total: float
    slowed: float


def _reading() -> float:
    """Nanoseconds that reading the clock takes, the best of some goes."""
    goes: list[float] = []
    for _ in range(_GOES):
        began = time.thread_time_ns()
        for _ in range(_READINGS):
            time.thread_time_ns()
        goes.append((time.thread_time_ns() - began) / _READINGS)
    return min(goes)


class _Meter:
    """CPU nanoseconds by stage; the innermost open stage gets what passes."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(STAGES, 0)
        self._readings = dict.fromkeys(STAGES, 0)
        self._open = ["rest"]
        self._since = 0

    def restart(self) -> None:
        """From zero, from now."""
        self.spent = dict.fromkeys(STAGES, 0)
        self._readings = dict.fromkeys(STAGES, 0)
        self._since = time.thread_time_ns()

    def stop(self) -> None:
        """What has passed since the last reading goes to the stage that is open."""
        self._pass()

    def net(self, reading: float) -> dict[str, float]:
        """What each stage took, without the readings in it."""
        return {stage: max(0.0, spent - self._readings[stage] * reading) for stage, spent in self.spent.items()}

    def begin(self, stage: str) -> None:
        self._pass()
        self._open.append(stage)

    def end(self) -> None:
        self._pass()
        self._open.pop()

    def _pass(self) -> None:
        now = time.thread_time_ns()
        self.spent[self._open[-1]] += now - self._since
        self._readings[self._open[-1]] += 1
        self._since = now

    def wrapped(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """``function``, its time told."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def waiting(*args: Any, **kwargs: Any) -> Any:
                self.begin(stage)
                try:
                    return await function(*args, **kwargs)
                finally:
                    self.end()

            return waiting

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            self.begin(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.end()

        return plain

    def hooks(self, hooks: Hooks) -> Hooks:
        """``hooks``, each of a call wrapped."""
        changes: dict[str, Any] = {}
        for field in attrs.fields(Hooks):
            chain = getattr(hooks, field.name)
            if callable(chain) and field.name not in _ONCE:
                changes[field.name] = self.wrapped(_as_coroutine(chain), "hooks")
        return attrs.evolve(hooks, **changes)


def _as_coroutine(chain: Callable[..., Any]) -> Callable[..., Any]:
    """``chain`` as a function whose colour can be seen: some return the coroutine of another."""
    if inspect.iscoroutinefunction(chain) or chain.__name__ in {"chain", "stream_filter"}:
        return chain

    async def run(*args: Any) -> Any:
        return await chain(*args)

    return run


@contextmanager
def _told(meter: _Meter) -> Iterator[None]:
    """Wrap the functions of all stages while this is open."""
    with ExitStack() as stack:
        for owner, name, stage in FUNCTIONS:
            shim = meter.wrapped(getattr(owner, name), stage)
            stack.enter_context(mock.patch.object(owner, name, shim))
        yield


@asynccontextmanager
async def _routers(
    target: Target, engine: Callable[[], object], plugins: Sequence[object]
) -> AsyncGenerator[tuple[Router, Router, _Meter]]:
    """A Router as it is, and one whose hooks are wrapped."""
    meter = _Meter()

    def wrapping(*args: Any, **kwargs: Any) -> Hooks:
        return meter.hooks(compile_hooks(*args, **kwargs))

    def made() -> Router:
        provider = Mistral(list(target.secrets), base_url=target.base_url)
        return Router([provider], engine=engine(), plugins=plugins, timeout=60)

    with mock.patch.object(router, "compile_hooks", wrapping):
        second = made()
    async with made() as first, second:
        yield first, second, meter


async def _calls(asked: Router, times: int) -> float:
    """Microseconds of CPU per call."""
    began = time.thread_time_ns()
    for _ in range(times):
        await asked.chat(f"mistral/{MODEL}", MESSAGES, max_tokens=20)
    return (time.thread_time_ns() - began) / times / 1e3


async def _column(
    name: str, target: Target, engine: Callable[[], object], plugins: Sequence[object], *, calls: int, rounds: int
) -> StageCosts:
    reading = _reading()
    plain: list[float] = []
    told: list[float] = []
    shares: dict[str, list[float]] = {stage: [] for stage in STAGES}
    async with _routers(target, engine, plugins) as (first, second, meter):
        for asked in (first, second):
            await _calls(asked, 2 * len(target.secrets))
        for _ in range(rounds):
            plain.append(await _calls(first, calls))
            with _told(meter):
                meter.restart()
                told.append(await _calls(second, calls))
                meter.stop()
            net = meter.net(reading)
            whole = sum(net.values())
            for stage, spent in net.items():
                shares[stage].append(spent / whole)
    total = statistics.median(plain)
    medians = {stage: statistics.median(values) for stage, values in shares.items()}
    scale = total / sum(medians.values())
    return StageCosts(
        name,
        {stage: share * scale for stage, share in medians.items()},
        total,
        statistics.median(mine / other for mine, other in zip(told, plain, strict=True)),
    )


async def measure(target: Target, *, calls: int, rounds: int) -> list[StageCosts]:
    """The columns: no network, no network and a plugin in every phase, then each engine that is installed."""
    engines = [library for library in ("httpx", "httpx2") if importlib.util.find_spec(library) is not None]
    columns: list[tuple[str, Callable[[], object], Sequence[object]]] = [
        ("null engine", NullEngine, ()),
        ("null engine, a plugin in every phase", NullEngine, (watcher(),)),
        *((library, functools.partial(str, library), ()) for library in engines),
    ]
    return [
        await _column(name, target, engine, plugins, calls=calls, rounds=rounds) for name, engine, plugins in columns
    ]


def table(costs: Sequence[StageCosts]) -> str:
    """The columns as Markdown: microseconds of CPU per call, and the share of the whole."""
    lines = [
        "CPU of one Router call by stage, in us (share of the call), one call in flight.",
        "",
        "| stage | " + " | ".join(column.name for column in costs) + " |",
        "|---|" + "---:|" * len(costs),
    ]
    for stage in STAGES:
        cells = (f"{column.stages[stage]:.1f} ({column.stages[stage] / column.total:.0%})" for column in costs)
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    lines.append("| all | " + " | ".join(f"{column.total:.1f}" for column in costs) + " |")
    lines.append("| slowed by telling | " + " | ".join(f"{column.slowed:.2f} x" for column in costs) + " |")
    return "\n".join(lines)
