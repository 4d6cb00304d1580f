"""What becomes of a call's cost when there is more of everything: keys, calls in flight, virtual keys.

All figures are microseconds of CPU of this process, the best of the rounds; no network is used.

keys: one call over an engine that answers at once, with all keys awake, with one in ten at rest, with virtual keys
checked by a plugin, and when the provider refuses the request (400). ``first call`` is a Router's first, for which
its imports are made and every key becomes a route; it is shown, not judged.

calls in flight: one more call while the others wait for their provider, and what each of so many takes from its
beginning to its end.

virtual keys: who presents a key, looked up in a file of SQLite by a process that has not seen it before, and again
while its record is fresh; and what it took to write each into the file (as rows, not through the plugin).

Against: ten times as many may cost 1.5 times as much at most, on average over the sizes. Flat is 1, linear is 10.

    python -m benchmarks.scale [--keys 10 100 1000] [--in-flight 1 100 10000] [--virtual-keys 1000 1000000] [--plot out.png]
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import anyio

from benchmarks.machine import machine

from . import in_flight, keys, virtual_keys
from .curves import Curve, goals, table
from .pictures import draw

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes: dict[str, Any] = {"type": int, "nargs": "*", "metavar": "N"}
    parser.add_argument("--keys", default=[10, 100, 1_000], help="of a provider (10 100 1000); none: left out", **sizes)
    parser.add_argument("--in-flight", default=[1, 100, 10_000], help="calls at one time (1 100 10000)", **sizes)
    parser.add_argument(
        "--virtual-keys", default=[10**3, 10**4, 10**5, 10**6], help="in the file (1000 to 1000000, by tens)", **sizes
    )
    parser.add_argument("--calls", type=int, default=100, help="calls of each kind in a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of keys; others have half as many (%(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them there as PNG, too (extra: bench)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    fewer = max(1, options.rounds // 2)
    parts: list[Callable[[], Coroutine[Any, Any, list[Curve]]]] = []
    if options.keys:
        parts.append(functools.partial(keys.measure, options.keys, calls=options.calls, rounds=options.rounds))
    if options.in_flight:
        parts.append(functools.partial(in_flight.measure, options.in_flight, calls=options.calls, rounds=fewer))
    sys.stdout.write(f"{machine()}\n\n")
    with tempfile.TemporaryDirectory() as folder:
        if options.virtual_keys:
            parts.append(functools.partial(virtual_keys.measure, options.virtual_keys, Path(folder), rounds=fewer))
        curves: list[Curve] = []
        for part in parts:
            found = anyio.run(part)
            sys.stdout.write(f"{table(found)}\n")
            sys.stdout.flush()
            curves += found
    sys.stdout.write(f"{goals(curves)}\n")
    if options.plot is not None:
        draw(curves, options.plot)


if __name__ == "__main__":
    main()
