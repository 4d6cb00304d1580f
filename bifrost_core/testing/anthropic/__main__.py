"""Run the simulated service until it is interrupted: ``python -m bifrost_core.testing.anthropic``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bifrost_core.testing.serving._commands import run

from .server import SimulatedAnthropic

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM.

    Args:
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        The exit status: 0, or 1 when the server could not start.
    """
    return run("anthropic", "Anthropic", SimulatedAnthropic, arguments)


if __name__ == "__main__":
    sys.exit(main())
