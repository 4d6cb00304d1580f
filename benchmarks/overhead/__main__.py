"""What routing costs: the Router beside plain ``AsyncClient`` of the same HTTP library, SDKs and LiteLLM.

Every way sends the same 1 KB of JSON to a server in another process and reads the answer as its users do,
whole (about 1 KB) or streamed (200 events of 200 bytes, each parsed). Ways take turns in rounds; each is
compared with the plain client of the HTTP library below it, httpx with httpx and httpx2 with httpx2, in the
same round. LiteLLM, which has a transport of its own, is set beside httpx.

CPU is that of this process per call (a stream: for all of it), in microseconds. Throughput is calls per
second of wall time with so many calls in flight all the time; a way that is too slow for so many has no row.
Latency is from asking to the whole answer.
Python calls are functions entered per call, counted in a pass of its own. Read the ratios: the machine's
speed cancels out of them.

    python -m benchmarks.overhead [--plain] [--stream] [--pace 0.001] [--only httpx2] [--json out.json] [--plot out.png]
    python -m benchmarks.overhead --stages
    python -m benchmarks.overhead --dialects [--plain] [--stream] [--concurrency 1]

``--stages`` shows where the Router's own time goes instead; ``stages`` says how that is told. ``--dialects`` sets
each SDK through the Router beside itself straight to the server; ``dialects`` says more.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import attrs

from benchmarks.machine import machine

from . import dialects, stages
from .plot import draw
from .rounds import Figure, Plan, measure
from .server import canned_server
from .table import goals, tables
from .targets import Target
from .ways import installed_ways

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", type=int, default=400, help="plain calls of a way in each round (%(default)s)")
    parser.add_argument("--streams", type=int, default=50, help="the same for streams (%(default)s)")
    parser.add_argument("--tokens", type=int, default=200, help="words of a stream, an event each (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32, 256], help="calls in flight (1 32 256)")
    parser.add_argument("--keys", type=int, default=10, help="keys that the Router balances over (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="longest turn of a way in a round (%(default)s)")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two events of a stream (0: a burst)")
    parser.add_argument("--plain", action="store_true", help="plain calls only")
    parser.add_argument("--stream", action="store_true", help="streams only; with --plain: both, as without either")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="ways with such a name, and their bases")
    parser.add_argument("--stages", action="store_true", help="where the Router's own time goes, instead")
    parser.add_argument("--dialects", action="store_true", help="SDKs through the Router, beside themselves, instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them there as PNG, too (extra: bench)")
    return parser


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = _parser()
    options = parser.parse_args(arguments)
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or its import asks the network for prices
    secrets = [f"sk-simulated-{number:04d}" for number in range(options.keys)]
    modes = [mode for mode in ("plain", "stream") if getattr(options, mode)] or ["plain", "stream"]
    entries = (dialects.installed_dialects if options.dialects else installed_ways)(options.only)
    if not entries:
        parser.error(f"nothing that is installed is called {' or '.join(options.only)}")
    plan = Plan(
        calls=options.calls,
        streams=options.streams,
        tokens=options.tokens,
        rounds=options.rounds,
        in_flight=options.concurrency,
        seconds=options.seconds,
    )
    print(machine(), end="\n\n")
    with canned_server(pace=options.pace) as url:
        target = Target(url, secrets)
        if options.stages:
            costs = anyio.run(functools.partial(stages.measure, target, calls=options.calls, rounds=options.rounds))
            print(stages.table(costs))
            return
        figures: list[Figure] = []
        for mode in modes:
            found = anyio.run(measure, entries, target, plan, [mode], _progress)
            _progress("")
            print(dialects.table(found) if options.dialects else tables(found), end="\n\n", flush=True)
            figures += found
    if not options.dialects:  # whose bases are others
        print(goals(figures))
    if options.json is not None:
        kept = {"machine": machine(), "pace": options.pace, "figures": [attrs.asdict(figure) for figure in figures]}
        options.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if options.plot is not None:
        draw(figures, options.plot)


if __name__ == "__main__":
    main()
