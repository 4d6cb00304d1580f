"""The page about the benchmarks names programs, flags and pictures that are there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "benchmarks" / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROGRAMS = ("balancing", "overhead", "hooks", "plugins", "faults", "governance", "memory", "scale")


def section(name: str) -> str:
    return TEXT.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def test_every_program_has_a_section_that_says_what_against_what_and_how_to_read_it() -> None:
    assert re.findall(r"^## (\w+)$", TEXT, re.MULTILINE) == list(PROGRAMS)
    assert sorted(re.findall(r"^\| `python -m benchmarks\.(\w+)`", TEXT, re.MULTILINE)) == sorted(PROGRAMS)
    parts = ["*What it measures.*", "*In which unit.*", "*Against what.*", "*How to read it.*", "*How to run it.*"]
    for name in PROGRAMS:
        assert re.findall(r"^\*[A-Z][\w ]+\.\*", section(name), re.MULTILINE) == parts


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_flag_that_the_page_names_is_one_of_the_program(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    package = pytest.importorskip(f"benchmarks.{name}")
    program = importlib.import_module(f"benchmarks.{name}.__main__") if hasattr(package, "__path__") else package
    with pytest.raises(SystemExit, match="0"):
        program.main(["--help"])
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section(name))) <= known


def test_the_columns_of_a_table_are_as_many_in_every_row() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", TEXT, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table[:200]


def test_pictures_are_there_and_small() -> None:
    shown = re.findall(r"!\[[^\]]+\]\((pictures/[\w-]+\.png)\)", TEXT)
    assert shown
    for name in shown:
        data = (PAGE.parent / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(data) < 150_000
