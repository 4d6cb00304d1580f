"""What a hook costs: asked by itself, phase by phase, and over a whole call.

*One hook*: nanoseconds of CPU to ask everybody who implements ``bifrost_authorize``: by pluggy itself
(``pm.hook.x(…)``), by pluggy with its results awaited afterwards (what one would write to have coroutines),
and by the Router's compiled chain. *Phases*: the same for the compiled chain of every hook of a call. Both
are net of the loop around them.

*A call*: microseconds of CPU for ``Router.chat`` and ``Router.stream`` (200 chunks) over an engine without a
network, with plugins that implement every phase and do nothing, and what they add to the same call without
plugins.

Columns: nobody implements the hook; plain functions; coroutines without an ``await``; a coroutine that does
await, and so gets a time cap; a plain function inside a wrapper. A hook that takes no coroutines, or no
wrapper, has plain functions in that place. Cases take turns; each cell is the best round / the median.

    python -m benchmarks.hooks [--times 20000] [--calls 200] [--rounds 9]
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio
import attrs
import pluggy

from benchmarks.canned import MESSAGES, MODEL
from benchmarks.machine import machine
from benchmarks.null_engine import NullEngine
from benchmarks.watchers import PHASES, watcher
from bifrost_core import Call, CallError, CallRecord, Chunk, Mistral, Route, Router, hookimpl, hookspecs
from bifrost_core.hooks import compile_hooks

__all__ = ["COLUMNS", "main"]

COLUMNS: Final[Mapping[str, Callable[[], list[object]]]] = {
    "nobody": list,
    "1 sync": lambda: [watcher("sync")],
    "3 sync": lambda: [watcher("sync") for _ in range(3)],
    "1 async": lambda: [watcher("async")],
    "3 async": lambda: [watcher("async") for _ in range(3)],
    "1 waiting": lambda: [watcher("waiting")],
    "1 + wrapper": lambda: [watcher("sync"), watcher("wrapper")],
}
"""What the tables compare, and the plugins of each."""

_KEYS: Final = tuple(f"sk-simulated-{number:04d}" for number in range(10))
_LONG: Final = 24 * 3600.0  # seconds: no deadline comes up while this runs
_TOKENS: Final = 200

Timed = Callable[[int], Awaitable[float]]
Cells = dict[str, dict[str, list[float]]]  # by row and column: a figure per round


@attrs.frozen
class _Subjects:
    """What hooks are given: taken from a real call.

    Attributes:
        call: The call.
        by_name: Their subjects by argument name.
    """

    call: Call
    by_name: Mapping[str, object]

    def arguments(self, names: Sequence[str]) -> tuple[object, ...]:
        return tuple(self.call if name == "call" else self.by_name[name] for name in names)


class _Recorder:
    """Keeps the last call and how it ended."""

    def __init__(self) -> None:
        self.seen: tuple[CallRecord, Call] | None = None

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord, call: Call) -> None:
        self.seen = record, call


class _Filtering:
    """A plugin whose stream filter lets every chunk through."""

    @hookimpl
    def bifrost_stream_filter(self) -> _Unchanged:
        return _Unchanged()


class _Unchanged:
    """See ``StreamFilter``."""

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        return (chunk,)

    def finish(self) -> Iterable[Chunk]:
        return ()


def _router(plugins: Iterable[object]) -> Router:
    return Router([Mistral(list(_KEYS))], engine=NullEngine(_TOKENS), plugins=plugins, timeout=_LONG)


async def _subjects() -> _Subjects:
    recorder = _Recorder()
    async with _router([recorder]) as router:
        await router.chat(f"mistral/{MODEL}", MESSAGES)
    assert recorder.seen is not None  # noqa: S101 # a hook that runs exactly once
    record, call = recorder.seen
    routes = tuple(Route("mistral", MODEL, f"key_{number}") for number in range(len(_KEYS)))
    return _Subjects(
        call,
        {
            "request": call.request,
            "routes": routes,
            "attempt": call.attempts[0],
            "response": record.response,
            "error": CallError("for bifrost_recover"),
            "record": record,
        },
    )


# Ways to ask. Each gives nanoseconds per time, net of an empty loop.


def _net(began: int, ended: int, times: int) -> float:
    """Nanoseconds per time, less what as many turns of an empty loop take."""
    for _ in itertools.repeat(None, times):
        pass
    return (2 * ended - began - time.thread_time_ns()) / times


def _chain(chain: Any, arguments: tuple[object, ...], *, is_async: bool) -> Timed:
    """As the Router asks: a comparison with None, then the chain."""

    async def waiting(times: int) -> float:
        began = time.thread_time_ns()
        for _ in itertools.repeat(None, times):
            if chain is not None:
                await chain(*arguments)
        return _net(began, time.thread_time_ns(), times)

    async def plain(times: int) -> float:
        began = time.thread_time_ns()
        for _ in itertools.repeat(None, times):
            if chain is not None:
                chain(*arguments)
        return _net(began, time.thread_time_ns(), times)

    return waiting if is_async else plain


def _pluggy(plugins: Sequence[object], request: object, call: object, *, awaits: bool) -> Timed:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for plugin in plugins:
        manager.register(plugin)
    hook = manager.hook.bifrost_authorize

    async def plain(times: int) -> float:
        began = time.thread_time_ns()
        for _ in itertools.repeat(None, times):
            hook(request=request, call=call)
        return _net(began, time.thread_time_ns(), times)

    async def awaited(times: int) -> float:
        began = time.thread_time_ns()
        for _ in itertools.repeat(None, times):
            for result in hook(request=request, call=call):
                if inspect.isawaitable(result):
                    await result
        return _net(began, time.thread_time_ns(), times)

    return awaited if awaits else plain


# The three tables.


async def _in_turn(cases: Mapping[tuple[str, str], Timed], times: int, rounds: int) -> Cells:
    """Every case once a round; the first round warms up and does not count."""
    cells: Cells = {}
    for number in range(rounds + 1):
        for (row, column), timed in cases.items():
            figure = await timed(times)
            if number:
                cells.setdefault(row, {}).setdefault(column, []).append(figure)
    return cells


async def one_hook(subjects: _Subjects, *, times: int, rounds: int) -> Cells:
    """Nanoseconds to ask ``bifrost_authorize``, in three ways."""
    request, call = subjects.arguments(("request", "call"))
    cases: dict[tuple[str, str], Timed] = {}
    for column, make in COLUMNS.items():
        if "async" not in column and "waiting" not in column:  # coroutines would stay un-awaited
            cases["pm.hook.x(…)", column] = _pluggy(make(), request, call, awaits=False)
        if "wrapper" not in column:  # it would have been left before anything is awaited
            cases["pluggy, then await", column] = _pluggy(make(), request, call, awaits=True)
        chain = compile_hooks(make()).authorize
        cases["compiled chain", column] = _chain(chain, (request, call), is_async=True)
    return await _in_turn(cases, times, rounds)


async def phases(subjects: _Subjects, *, times: int, rounds: int) -> Cells:
    """Nanoseconds to ask the compiled chain of each hook of a call."""
    cases: dict[tuple[str, str], Timed] = {}
    for column, make in COLUMNS.items():
        hooks = compile_hooks(make())
        for hook in PHASES:
            arguments = subjects.arguments(hook.arguments)
            cases[hook.name, column] = _chain(getattr(hooks, hook.field), arguments, is_async=hook.is_async)
    return await _in_turn(cases, times, rounds)


def _chat(router: Router) -> Timed:
    async def timed(times: int) -> float:
        began = time.thread_time_ns()
        for _ in range(times):
            await router.chat(f"mistral/{MODEL}", MESSAGES)
        return (time.thread_time_ns() - began) / times / 1e3

    return timed


def _stream(router: Router) -> Timed:
    async def timed(times: int) -> float:
        times = max(1, times // 20)
        began = time.thread_time_ns()
        for _ in range(times):
            async with router.stream(f"mistral/{MODEL}", MESSAGES) as stream:
                async for _ in stream:
                    pass
        return (time.thread_time_ns() - began) / times / 1e3

    return timed


async def calls(*, times: int, rounds: int) -> Cells:
    """Microseconds of CPU for whole calls, and what plugins add to them, by column."""
    async with AsyncExitStack() as stack:
        cases: dict[tuple[str, str], Timed] = {}
        for column, make in COLUMNS.items():
            router = await stack.enter_async_context(_router(make()))
            cases["Router.chat", column] = _chat(router)
            cases["Router.stream", column] = _stream(router)
        router = await stack.enter_async_context(_router([_Filtering()]))
        cases["Router.stream", "1 stream filter"] = _stream(router)
        return await _in_turn(cases, times, rounds)


# Markdown.


def _cell(figures: Sequence[float] | None, digits: int) -> str:
    if not figures:
        return "-"
    return f"{max(0.0, min(figures)):.{digits}f} / {max(0.0, statistics.median(figures)):.{digits}f}"


def _table(corner: str, cells: Cells, columns: Iterable[str]) -> str:
    columns = list(columns)
    lines = [f"| {corner} | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for row, found in cells.items():
        lines.append(f"| {row} | " + " | ".join(_cell(found.get(column), 0) for column in columns) + " |")
    return "\n".join(lines)


def _calls_table(cells: Cells) -> str:
    lines = ["| plugins in every phase | " + " | ".join(f"{row} | adds" for row in cells) + " |"]
    lines.append("|---|" + "---:|---:|" * len(cells))
    for column in dict.fromkeys(column for found in cells.values() for column in found):
        shown = [column]
        for found in cells.values():
            figures, alone = found.get(column), found["nobody"]
            added = None if figures is None else [mine - other for mine, other in zip(figures, alone, strict=True)]
            shown.append(_cell(figures, 0))
            shown.append("-" if added is None else f"{statistics.median(added):.1f}")
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


async def _report(times: int, calls_: int, rounds: int) -> str:
    subjects = await _subjects()
    one = await one_hook(subjects, times=times, rounds=rounds)
    each = await phases(subjects, times=times, rounds=rounds)
    whole = await calls(times=calls_, rounds=rounds)
    return "\n\n".join(
        (
            "One hook, ns (best / median):",
            _table("way to ask", one, COLUMNS),
            "Every phase of a call, compiled chain, ns (best / median):",
            _table("phase", each, COLUMNS),
            f"A whole call without a network, us of CPU (best / median), a stream of {_TOKENS} chunks; "
            "what plugins add is the median over the rounds:",
            _calls_table(whole),
        )
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hooks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=20_000, help="how often a hook is asked in a round (%(default)s)")
    parser.add_argument("--calls", type=int, default=200, help="calls of a round, streams a 20th (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    options = parser.parse_args(arguments)
    print(machine(), end="\n\n")
    print(anyio.run(_report, options.times, options.calls, options.rounds))


if __name__ == "__main__":
    main()
