"""The benchmark runs, tiny, and has a figure for every store."""

from __future__ import annotations

import math

import pytest

from benchmarks.governance import main


def test_every_store_has_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--attempts", "3", "--rounds", "2"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|") and "---" not in line]
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert head == ["store", "bare increment", "reserve + settle", "times as much", "among four processes"]
    assert [row[0] for row in rows] == ["memory", "sqlite", "redis"]
    for name, bare, one, ratio, four in rows:
        for cell in (bare, one) if name == "memory" else (bare, one, four):
            best, _, median = cell.partition(" / ")
            assert 0 <= float(best) <= float(median) < math.inf
        assert float(ratio) > 0
    assert rows[0][4] == "-"
