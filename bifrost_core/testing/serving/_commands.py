"""The command that runs a simulated service until it is interrupted."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Protocol, get_args

from ._server import SimulatedServer
from .laws import Fault, FaultKind, Latency, SimulatedKey

__all__ = ["run"]


class Make(Protocol):
    """How a server is made from what the command line says."""

    def __call__(self, keys: list[SimulatedKey], *, seed: int, host: str, port: int) -> SimulatedServer:
        """The server, not started."""
        ...


def _parser(name: str, title: str) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bifrost_core.testing.{name}",
        description=f"A server on loopback that speaks {title}'s API and makes its answers up.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=1, help="how many keys to make up (default: %(default)s)")
    parser.add_argument("--key", action="append", default=[], metavar="SECRET", help="accept this key; repeatable")
    parser.add_argument("--latency", type=float, default=0.0, metavar="S", help="median seconds to the first token")
    parser.add_argument("--sigma", type=float, default=0.0, help="spread of the latency, as of a lognormal law")
    parser.add_argument("--speed", type=float, default=float("inf"), metavar="T", help="tokens per second")
    parser.add_argument("--rpm", type=int, metavar="N", help="requests per minute of each key and model")
    parser.add_argument("--tpm", type=int, metavar="N", help="tokens per minute of each key and model")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND[:P[:STATUS]]",
        help="let every key fail so with probability P (default 1); repeatable. Kinds: "
        + ", ".join(get_args(FaultKind)),
    )
    return parser


def _fault(text: str) -> Fault:
    """Read ``KIND[:P[:STATUS]]``."""
    kind, _, rest = text.partition(":")
    probability, _, status = rest.partition(":")
    return Fault(kind, probability=float(probability or 1), status=int(status) if status else None)  # type: ignore[arg-type]  # checked by Fault


def run(name: str, title: str, make: Make, arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM.

    Args:
        name: Of the vendor's package.
        title: The vendor's name as it writes it.
        make: Makes the server.
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        The exit status: 0, or 1 when the server could not start.
    """
    parser = _parser(name, title)
    options = parser.parse_args(arguments)
    secrets: list[str] = options.key or [f"sk-simulated-{number}" for number in range(1, options.keys + 1)]
    try:
        latency = Latency(options.latency, sigma=options.sigma, tokens_per_second=options.speed)
        faults = [_fault(text) for text in options.fault]
        keys = [
            SimulatedKey(
                secret, latency=latency, requests_per_minute=options.rpm, tokens_per_minute=options.tpm, faults=faults
            )
            for secret in secrets
        ]
        server = make(keys, seed=options.seed, host=options.host, port=options.port)
    except ValueError as exc:
        parser.error(str(exc.args[0] if exc.args else exc))
    try:
        server.start()
    except OSError as exc:
        sys.stderr.write(f"cannot listen on {options.host}:{options.port}: {exc.strerror}\n")
        return 1
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    sys.stdout.write(f"{server.base_url}\n" + "".join(f"key {secret}\n" for secret in secrets))
    sys.stdout.flush()
    stop.wait()
    server.stop()
    return 0
