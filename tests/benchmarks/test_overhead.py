"""The benchmark runs, tiny."""

from __future__ import annotations

import pytest

from benchmarks.overhead import main


def test_overhead_prints_a_row_per_way_and_concurrency(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--calls", "4", "--rounds", "1", "--concurrency", "1", "2", "--keys", "2"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| 1 ", "| 2 "))]
    assert [row.split("|")[2].strip() for row in rows] == ["httpx.AsyncClient.post", "Router.chat"] * 2
