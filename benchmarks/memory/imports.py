"""Resident memory that imports and a process's first Router take. A program of its own: nothing is imported before."""

from __future__ import annotations

import importlib
import json
import sys

from .weighing import resident

__all__ = ["main"]


def main() -> None:
    """Print both as JSON, in bytes."""
    begin = resident()
    core = importlib.import_module("bifrost_core")
    imported = resident()
    router = core.Router([core.Mistral("sk-simulated-1")])
    first = resident()
    sys.stdout.write(json.dumps({"import": imported - begin, "first": first - imported, "keys": len(router.health())}))


if __name__ == "__main__":
    main()
