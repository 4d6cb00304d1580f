"""What the library keeps in memory: of a Router, of a call in flight, of calls that are over, of what it remembers.

Everything is measured in processes of their own. *In use* is what Python's allocator has given out (tracemalloc),
*resident* is what the system counts (RSS), in another process without tracemalloc; it has grains of a page, and is
the larger by what C libraries keep and by what is free between objects. Both are what so many more of a thing take,
divided by their number: imports, and what a process has once, stand in rows of their own.

Against: a Router below 3 MB, a call in flight below 25 KB, no growth over a soak of plain and streamed calls with
failures and cancellations, and every map ends at its bound. Growth is by the million calls: a single small object
kept of each would be 1,000,000 blocks.

    python -m benchmarks.memory [--calls 8000] [--in-flight 500] [--routers 6]
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from typing import Any, Final

import anyio
import attrs

from benchmarks.machine import machine

from . import growth, in_flight, maps, routers

__all__ = ["main"]

ROUTER_GOAL: Final = 3e6  # bytes
CALL_GOAL: Final = 25e3
GROWTH_GOAL: Final = 10_000  # blocks or objects a million calls: one in a hundred calls, which is a few samples' noise
_SOCKETS: Final = 400  # connections at most, below the usual limit of files that a process may have open


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=8_000, help="of the soak (%(default)s); 0: left out")
    parser.add_argument("--in-flight", type=int, default=500, help="calls in flight (%(default)s); 0: left out")
    parser.add_argument("--routers", type=int, default=6, help="idle ones (%(default)s); 0: left out")
    parser.add_argument("--weigh", nargs=3, metavar=("WHAT", "COUNT", "TRACED"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.weigh:
        what, count, traced = options.weigh
        _work(what, int(count), traced=traced == "1")
        return
    _say(f"{machine()}\n")
    _say(_once())
    if options.routers:
        _say(_table("a Router, KB", routers.KINDS, options.routers, "routers", ROUTER_GOAL))
    if options.in_flight:
        _say(_table("a call in flight, KB", in_flight.KINDS, options.in_flight, "in_flight", CALL_GOAL))
    if options.calls:
        _say(_growth(options.calls))
    _say(_maps())


# In the children.


def _work(what: str, count: int, *, traced: bool) -> None:
    if traced:
        tracemalloc.start()
    found: Any
    kind, _, name = what.partition(":")
    if kind == "routers":
        found = anyio.run(routers.weigh, name, count)
    elif kind == "in_flight":
        found = anyio.run(in_flight.weigh, name, count)
    elif kind == "soak":
        found = [attrs.asdict(sample) for sample in anyio.run(growth.soak, count)]
    else:
        found = [attrs.asdict(row) for row in maps.weigh()]
    _say(json.dumps(found))


def _child(*arguments: str) -> Any:
    """What another process of this program found."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)  # noqa: S603 - our own
    return json.loads(done.stdout)


def _weighed(what: str, count: int, *, traced: bool) -> Any:
    return _child("benchmarks.memory", "--weigh", what, str(count), str(int(traced)))


# The tables.


def _once() -> str:
    found = _child("benchmarks.memory.imports")
    return (
        "| once in a process | resident, KB |\n|---|---:|\n"
        f"| import bifrost_core | {found['import'] / 1e3:.0f} |\n"
        f"| its first Router, with what it imports | {found['first'] / 1e3:.0f} |\n"
    )


def _table(title: str, kinds: dict[str, str], count: int, prefix: str, goal: float) -> str:
    lines = [f"| {title} | number | in use | resident | goal | |", "|---|---:|---:|---:|---:|---|"]
    for kind, about in kinds.items():
        number = min(count, _SOCKETS) if kind in {"socket", "client"} else count
        used, held = (_weighed(f"{prefix}:{kind}", number, traced=traced) / 1e3 for traced in (True, False))
        is_judged = kind not in in_flight.UNJUDGED
        bound = f"< {goal / 1e3:.0f}" if is_judged else "-"
        word = _word(used * 1e3 < goal) if is_judged else ""
        lines.append(f"| {about} | {number} | {used:.1f} | {held:.1f} | {bound} | {word} |")
    return "\n".join(lines) + "\n"


def _growth(calls: int) -> str:
    samples = [growth.Sample(**row) for row in _weighed("soak", calls, traced=False)]
    rise = functools.partial(growth.slope, samples)
    first, last = samples[0], samples[-1]
    lines = [
        f"| {calls} calls | before | after | a million calls | goal | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for what, about in (("objects", "objects that the collector tracks"), ("blocks", "blocks of memory")):
        before, after = getattr(first, what), getattr(last, what)
        word = _word(rise(what) < GROWTH_GOAL)
        lines.append(f"| {about} | {before} | {after} | {rise(what):+.0f} | no growth | {word} |")
    before, after = first.resident / 1e6, last.resident / 1e6
    lines.append(f"| resident, MB | {before:.1f} | {after:.1f} | {rise('resident') / 1e6:+.2f} | - | |")
    return "\n".join(lines) + "\n"


def _maps() -> str:
    rows = [maps.Full(**row) for row in _weighed("maps", 0, traced=True)]
    lines = ["| map | offered | kept | bound | in use, KB | each, KB | |", "|---|---:|---:|---:|---:|---:|---|"]
    lines += [
        f"| {row.name} | {row.offered} | {row.kept} | {row.bound} | {row.weight / 1e3:.0f} "
        f"| {row.weight / max(1, row.kept) / 1e3:.2f} | {_word(row.kept <= row.bound)} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _word(kept: bool) -> str:
    return "kept" if kept else "MISSED"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
