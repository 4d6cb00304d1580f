"""One line about where a benchmark ran and on what, so that a pasted table says it."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Final

__all__ = ["machine"]

_PACKAGES: Final = (
    "anyio",
    "pluggy",
    "msgspec",
    "h11",
    "httpx",
    "httpcore",
    "httpx2",
    "httpcore2",
    "anthropic",
    "mistralai",
    "openai",
    "litellm",
)


def machine() -> str:
    """Interpreter, system, cores that may be used, and the versions of what is compared, where installed."""
    found: list[str] = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {platform.system()}, {cores} cores; {', '.join(found)}"
