"""The tests of SDKs with pinned releases, in as few virtual environments as those can share.

The vendors' newest SDKs, LangChain and pydantic-ai are one; instructor holds OpenAI's SDK back by a dependency
(``jiter``), LlamaIndex by a major version (2, which is built on ``httpx`` and not on ``httpx2``).

    python tests/sdks/matrix.py ~/.cache/bifrost-matrix [--only current] [--fresh]

An environment is made below the folder when it is not there or its pins have changed; bifrost-core is installed
from this checkout, in place. Printed is one row per package; the exit status is 1 if any test failed, or if a file
was skipped because its package could not be imported.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import attrs

__all__ = ["ENVIRONMENTS", "Environment", "main"]

_ROOT: Final = Path(__file__).resolve().parents[2]
_FOLDER: Final = Path(__file__).resolve().parent
_TOOLS: Final = ("pytest>=9", "trio>=0.32")
_README: Final = "test_readme.py"  # the lines of the README whose package is there


@attrs.frozen
class Environment:
    """Packages that can be installed together.

    Attributes:
        name: Of its folder.
        pins: Requirements, exact ones.
        tests: By package the files that belong to it, and which of their tests, as pytest is told.
    """

    name: str
    pins: tuple[str, ...]
    tests: dict[str, tuple[str, ...]]


ENVIRONMENTS: Final = (
    Environment(
        "current",
        (
            "anthropic==2.14.0",
            "langchain-anthropic==1.7.10",
            "langchain-mistralai==1.1.6",
            "langchain-openai==1.7.4",
            "mistralai==3.7.0",
            "openai==3.57.0",
            "pydantic-ai-slim[anthropic,mistral,openai]==2.68.0",
        ),
        {
            "anthropic": ("test_anthropic.py", "test_anthropic_native.py"),
            "langchain-anthropic": ("test_langchain.py", "-k", "langchain_anthropic"),
            "langchain-mistralai": ("test_langchain.py", "-k", "langchain_mistralai"),
            "langchain-openai": ("test_langchain.py", "-k", "langchain_openai"),
            "mistralai": ("test_mistralai.py",),
            "openai": ("test_openai.py", "test_openai_native.py"),
            "pydantic-ai-slim": ("test_pydantic_ai.py",),
            "bifrost-core": (_README,),
        },
    ),
    Environment(
        "instructor",
        ("instructor==1.17.0", "openai==3.3.0"),
        {"instructor": ("test_instructor.py",), "openai": ("test_openai.py",), "bifrost-core": (_README,)},
    ),
    Environment(
        "llama-index",
        ("llama-index-llms-openai-like==0.8.1", "openai==2.54.0"),
        {
            "llama-index-llms-openai-like": ("test_llama_index.py",),
            "openai": ("test_openai.py",),
            "bifrost-core": (_README,),
        },
    ),
)


@attrs.frozen
class _Row:
    environment: str
    package: str
    version: str
    tests: int
    failed: int
    skipped: int

    @property
    def result(self) -> str:
        if self.failed or not self.tests or self.skipped == self.tests:
            return "FAILED"
        return "ok"


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _made(environment: Environment, cache: Path, *, fresh: bool) -> Path:
    """The environment's interpreter; installs what is not there.

    Raises:
        CalledProcessError: pip found no way.
    """
    folder = cache / environment.name
    stamp = folder / "pins.json"
    wanted = json.dumps([str(_ROOT), sys.version, *environment.pins])
    if not fresh and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return _python(folder)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([_python(folder), *install, "-e", _ROOT, *_TOOLS, *environment.pins], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return _python(folder)


def _version(python: Path, package: str) -> str:
    told = subprocess.run(
        [python, "-c", f"import importlib.metadata as m; print(m.version({package!r}))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return told.stdout.strip()


def _tested(environment: Environment, python: Path, package: str, report: Path) -> _Row:
    """Run the tests of one package."""
    chosen = [_FOLDER / word if word.endswith(".py") else word for word in environment.tests[package]]
    report.unlink(missing_ok=True)
    command: list[str | Path] = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += chosen
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, check=False, cwd=_ROOT, env=outside, capture_output=True, text=True)
    if ended.returncode not in {0, 5}:
        sys.stderr.write(ended.stdout + ended.stderr)
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    if report.is_file():
        for suite in ET.parse(report).getroot().iter("testsuite"):
            counts = {name: counts[name] + int(suite.get(name, 0)) for name in counts}
    failed = counts["failures"] + counts["errors"]
    return _Row(environment.name, package, _version(python, package), counts["tests"], failed, counts["skipped"])


def _table(rows: Sequence[_Row]) -> str:
    lines = ["| environment | package | version | tests | failed | result |", "|---|---|---|---:|---:|---|"]
    lines += [
        f"| {row.environment} | {row.package} | {row.version} | {row.tests} | {row.failed} | {row.result} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the environments, run their tests, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder for the environments")
    parser.add_argument("--only", nargs="+", default=[], choices=[one.name for one in ENVIRONMENTS])
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    options = parser.parse_args(arguments)
    cache = options.cache.expanduser().resolve()
    cache.mkdir(parents=True, exist_ok=True)
    rows: list[_Row] = []
    for environment in ENVIRONMENTS:
        if options.only and environment.name not in options.only:
            continue
        python = _made(environment, cache, fresh=options.fresh)
        for package in environment.tests:
            rows.append(_tested(environment, python, package, cache / f"{environment.name}-{package}.xml"))
            print(rows[-1], file=sys.stderr, flush=True)
    print(_table(rows))
    return int(any(row.result != "ok" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
