"""The command line ``bifrost``, also ``python -m bifrost_core``; needs the extra ``cli``.

This module imports neither click nor rich, so that it can say in one line that they are missing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

__all__ = ["main"]

_EXTRA: Final = frozenset({"click", "rich"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        The exit status: 0; 1 when the command failed; 2 when it was called wrongly; 130 after Ctrl-C.
    """
    try:
        from .commands import run  # noqa: PLC0415 # what it needs may be missing
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(f"bifrost: {missing} is not installed; run: pip install 'bifrost-core[cli]'\n")
        return 1
    return run(arguments)
