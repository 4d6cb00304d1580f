"""How well the balancers choose among keys, beside a choice that knows everything.

Every situation is played in virtual time by a real ``Router`` over ``Simulated`` keys, once for each balancer and
once for an all-knowing greedy choice, on the same traffic and the same draws. Latencies are seconds. A request's cost
is its latency with all repeats plus 30 s if the caller sees an error; a score is sqrt(ratio of mean costs x ratio of
their p99) to the all-knowing choice, so 1.00 is as good as knowing everything. See ``scores.py`` for the other
columns, ``scenarios.py`` for the situations and ``traffic.py`` for the form of traces. The same seed prints the same
tables; ``--cpu``, the time of a pick in microseconds, is the machine's.

    python -m benchmarks.balancing [--seed 7] [--quick] [--scenario NAME ...] [--keys N] [--rate R]
    python -m benchmarks.balancing --balancer my_module:MyBalancer
    python -m benchmarks.balancing --scenario one-hangs --plot out.png [--balancer RoundRobin]
    python -m benchmarks.balancing --trace requests.jsonl
    python -m benchmarks.balancing --cpu
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import attrs

from .choosers import ALL_KNOWING, BALANCERS, ChooserError, find_balancer
from .cpu import cpu_table
from .runs import run
from .scenarios import SITUATIONS, Scenario, make_scenario
from .scores import Figures, to_figures
from .tables import Cell, details, summary
from .traffic import Ask, TraceError, read_trace

__all__ = ["Job", "main", "measure"]

_QUICK: Final = 0.12  # of the usual length
_FOR_TRACES: Final = ("different-speed", "one-turns-slow", "one-hangs")


@attrs.frozen(kw_only=True)
class Job:
    """One situation for one chooser; everything that decides the outcome."""

    situation: str
    chooser: str
    seed: int
    keys: int | None = None
    rate: float | None = None
    length: float = 1.0
    trace: tuple[Ask, ...] | None = None

    def scenario(self) -> Scenario:
        """The situation, the same for every chooser."""
        return make_scenario(
            self.situation, seed=self.seed, keys=self.keys, rate=self.rate, length=self.length, trace=self.trace
        )


def measure(job: Job) -> tuple[Cell, Figures, float]:
    """Play a job; gives its cell, its figures and its requests per second."""
    scenario = job.scenario()
    figures = to_figures(scenario, run(scenario, job.chooser, job.seed))
    return (job.situation, job.chooser), figures, len(scenario.asks) / scenario.seconds


def _play(jobs: Sequence[Job], processes: int) -> Iterable[tuple[Cell, Figures, float]]:
    """The results of all jobs in their order, which does not depend on who works when."""
    if processes == 1:
        yield from map(measure, jobs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(measure, jobs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.balancing",
        description=__doc__,
        epilog="situations:\n" + "\n".join(f"  {name:18} {made.about}" for name, made in SITUATIONS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="an eighth of the requests: a look, not a measurement")
    parser.add_argument("--scenario", nargs="+", choices=list(SITUATIONS), metavar="NAME", help="only these")
    parser.add_argument("--balancer", nargs="+", metavar="NAME", help="only these: a name or module:Class")
    parser.add_argument("--keys", type=_at_least_two, metavar="N", help="keys in every situation")
    parser.add_argument("--rate", type=_positive, metavar="R", help="requests per second in every situation")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="requests from a file of JSON lines")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw one situation with one balancer")
    parser.add_argument("--cpu", action="store_true", help="microseconds of CPU per pick, and nothing else")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    return parser


def _at_least_two(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError("there is nothing to choose with less than 2 keys")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("a rate is above 0")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.cpu:
        print(cpu_table(options.balancer or list(BALANCERS)))
        return
    try:
        trace = None if options.trace is None else tuple(read_trace(options.trace))
        for name in options.balancer or ():
            find_balancer(name)
    except (TraceError, ChooserError) as exc:
        parser.exit(2, f"{exc}\n")
    situations = options.scenario or list(_FOR_TRACES if trace else SITUATIONS)
    balancers = list(dict.fromkeys(options.balancer or BALANCERS))
    jobs = [
        Job(
            situation=situation,
            chooser=chooser,
            seed=options.seed,
            keys=options.keys,
            rate=options.rate,
            length=_QUICK if options.quick else 1.0,
            trace=trace,
        )
        for situation in situations
        for chooser in (ALL_KNOWING, *balancers)
    ]
    if options.plot is not None:
        _plot(parser, options, jobs)
        return
    figures: dict[Cell, Figures] = {}
    rates: dict[str, float] = {}
    for done, (cell, got, rate) in enumerate(_play(jobs, max(1, options.jobs)), 1):
        figures[cell], rates[cell[0]] = got, rate
        if sys.stderr.isatty():
            print(f"\r{done} of {len(jobs)}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    print(f"Seed {options.seed}. Scores are against an all-knowing choice on the same draws; less is better.\n")
    print(details(figures))
    if not options.quick:  # the goals are about minutes: a spell of trouble fills too much of a short run
        print()
        print(summary(figures, balancers, rates))


def _plot(parser: argparse.ArgumentParser, options: argparse.Namespace, jobs: Sequence[Job]) -> None:
    if not options.scenario or len(options.scenario) != 1 or len(options.balancer or [""]) != 1:
        parser.exit(
            2, "--plot draws one situation with one balancer: give --scenario NAME and, if any, one --balancer\n"
        )
    try:
        from .pictures import draw  # noqa: PLC0415  # only this needs matplotlib
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "matplotlib":
            raise
        parser.exit(2, '--plot needs matplotlib: pip install "bifrost-core[bench]"\n')
    job = jobs[1]
    scenario = job.scenario()
    rows = run(scenario, job.chooser, job.seed)
    draw(scenario, rows, title=f"{job.situation}, {job.chooser}, seed {job.seed}", path=options.plot)
    print(f"{options.plot}: {len(rows)} requests in {scenario.seconds:.0f} virtual seconds. {scenario.about}")


if __name__ == "__main__":
    main()
