"""What ``import bifrost_core`` costs: no file, no thread, no look at the environment, little time."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

LIMIT = 1.35  # times the import of the libraries that this one stands on; 1.2 where nothing else runs
DEPENDENCIES = "anyio, attrs, cachetools, httpx, msgspec, pluggy, sniffio"
LEAST_ROUNDS, MOST_ROUNDS = 7, 28

_WATCHED = """
import json, os, sys, threading
seen = {"files": [], "events": [], "environment": []}

def watch(event, args):
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        path = os.fsdecode(args[0])
        if not path.endswith((".py", ".pyc", ".so", ".pyd")) and "__pycache__" not in path:
            seen["files"].append(path)
    elif event.split(".")[0] in {"socket", "subprocess", "urllib"} or event in {"_thread.start_new_thread", "os.fork"}:
        seen["events"].append(event)

real = os._Environ.__getitem__

def read(self, key):
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.split(".")[0] == "bifrost_core":
            seen["environment"].append([name, key])
        frame = frame.f_back
    return real(self, key)

os._Environ.__getitem__ = read
sys.addaudithook(watch)
import bifrost_core
os._Environ.__getitem__ = real
seen["threads"] = threading.active_count()
seen["modules"] = sorted(sys.modules)
print(json.dumps(seen))
"""


def environment(cache: Path) -> dict[str, str]:
    """Ours, with byte code kept in a folder of the test's own, as an installed package has it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(cache)}


def run(program: str, env: Mapping[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=env)
    return done.stdout


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    made = environment(tmp_path_factory.mktemp("bytecode"))
    run(f"import bifrost_core, {DEPENDENCIES}", made)  # compiles
    return made


@pytest.fixture(scope="module")
def seen(env: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(_WATCHED, env))
    return found


def test_importing_opens_no_file_but_modules(seen: dict[str, Any]) -> None:
    assert seen["files"] == []


def test_importing_starts_nothing(seen: dict[str, Any]) -> None:
    assert (seen["events"], seen["threads"]) == ([], 1)


def test_importing_does_not_look_at_the_environment(seen: dict[str, Any]) -> None:
    assert seen["environment"] == []


@pytest.mark.parametrize("module", ["asyncio", "httpx", "httpcore", "trio", "rich", "click", "bifrost_plugins"])
def test_what_one_call_may_never_need_is_not_imported(seen: dict[str, Any], module: str) -> None:
    assert module not in seen["modules"]


def test_importing_takes_little_longer_than_the_libraries_below(env: dict[str, str]) -> None:
    timed = "import time; began = time.process_time(); import {}; print(time.process_time() - began)"
    ours: list[float] = []
    theirs: list[float] = []
    while len(ours) < MOST_ROUNDS:  # more rounds only where the machine is noisy
        ours.append(float(run(timed.format("bifrost_core"), env)))
        theirs.append(float(run(timed.format(DEPENDENCIES), env)))
        if len(ours) >= LEAST_ROUNDS and statistics.median(ours) <= LIMIT * statistics.median(theirs):
            break
    assert statistics.median(ours) <= LIMIT * statistics.median(theirs), sorted(zip(ours, theirs, strict=True))
