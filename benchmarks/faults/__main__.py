"""What each kind of failure costs: the Router beside a plain client with three retries.

Both call one simulated Mistral on loopback with the same three keys; the first of them has the fault, or part of
all requests do (``--share``). ``right`` is the part of the calls that brought the whole answer, ``cut, unnoticed``
the part that brought less and raised nothing. Latencies are what is added to the same client's own when nothing
fails, over all calls, failed ones too; ``requests a call`` is what the service saw.

    python -m benchmarks.faults [--calls 200] [--in-flight 16] [--share 0.1] [--only NAME ...]
    python -m benchmarks.faults --churn 10000
    python -m benchmarks.faults --soak 1000000

With ``--churn`` calls are cancelled at random moments instead, and what they leave behind is counted. With
``--soak`` calls that have nothing in common are made without a network, and what stays in memory is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import anyio

from .churn import Left, churn
from .clients import CLIENTS
from .runs import Outcome, head, row, run
from .situations import SITUATIONS
from .soak import Grown, soak

__all__ = ["main"]


def _remains(native: bool, left: Left) -> str:
    closings = left.closings or (0.0,)
    late = [f"{closings[int((len(closings) - 1) * part)] * 1000:.1f}" for part in (0.5, 0.99, 1.0)]
    return (
        f"| {'task.cancel()' if native else 'scope'} | {left.calls} | {left.outcomes.get('cancelled', 0)} "
        f"| {sum(left.in_flight)} | {left.places} of 10 | {left.tasks} | {left.descriptors} | {left.unseen} "
        f"| {len(left.closings)} | {' / '.join(late)} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200, help="calls of each client in each situation")
    parser.add_argument("--in-flight", type=int, default=16, help="calls at one time")
    parser.add_argument("--share", type=float, help="part of all requests that fail; by default one key always does")
    parser.add_argument("--only", nargs="+", help="names of situations; those without a fault always run")
    parser.add_argument("--churn", type=int, help="cancel so many calls, half of them in each way")
    parser.add_argument(
        "--soak", type=int, help="make so many calls, after a fifth as many, at least 12,000, to warm up"
    )
    options = parser.parse_args(arguments)
    if options.soak:
        grown = anyio.run(_soak, options.soak)
        print("| calls | memory + MiB | objects + | tasks + | fds + |")
        print("|---:|---:|---:|---:|---:|")
        megabytes = grown.rss / 2**20
        print(f"| {grown.calls} | {megabytes:.1f} | {grown.objects} | {grown.tasks} | {grown.descriptors} |")
        return
    if options.churn:
        print(
            "| cancelled by | calls | cancelled | in flight | places | tasks + | fds + | unseen | closed | late ms: p50 / p99 / max |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|")
        for native in (False, True):
            print(_remains(native, anyio.run(_churn, options.churn // 2, native)))
        return
    print(head())
    calm: dict[tuple[str, bool], Outcome] = {}
    for situation in SITUATIONS:
        if options.only and situation.fault is not None and situation.name not in options.only:
            continue
        for client in CLIENTS:
            outcome = anyio.run(_run, situation.name, client, options.calls, options.in_flight, options.share)
            print(row(outcome, calm.setdefault((client, situation.stream), outcome)), flush=True)


async def _soak(calls: int) -> Grown:
    return await soak(calls, warm_up=max(12_000, calls // 5))


async def _churn(calls: int, native: bool) -> Left:
    return await churn(calls, native=native)


async def _run(name: str, client: str, calls: int, in_flight: int, share: float | None) -> Outcome:
    situation = next(each for each in SITUATIONS if each.name == name)
    return await run(situation, client, calls=calls, in_flight=in_flight, share=share)


if __name__ == "__main__":
    main()
