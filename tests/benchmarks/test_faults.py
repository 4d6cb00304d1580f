"""The benchmark runs, tiny."""

from __future__ import annotations

import pytest

from benchmarks.faults.__main__ import main
from benchmarks.faults.churn import churn
from benchmarks.faults.clients import CLIENTS
from benchmarks.faults.situations import SITUATIONS


def test_faults_prints_a_row_for_each_client_and_situation(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--calls", "6", "--in-flight", "3", "--only", "401", "cut later"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    names = ["nothing", "401", "nothing, stream", "cut later"]
    assert [(row[0], row[1]) for row in rows] == [(name, client) for name in names for client in CLIENTS]
    found = {(row[0], row[1]): row for row in rows}
    assert {row[2] for row in rows if row[1] == "Router"} == {"100.0%"}
    assert {found["nothing", client][-1] for client in CLIENTS} == {"1.00"}
    # A plain client is told of the key's rejection, and takes a cut stream for a whole one.
    assert found["401", "httpx, 3 retries"][2:4] == ["66.7%", "0.0%"]
    assert found["cut later", "httpx, 3 retries"][2:4] == ["66.7%", "33.3%"]


def test_a_share_of_all_requests_may_fail(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--calls", "6", "--in-flight", "3", "--only", "500", "--share", "0.5"])
    assert "| 500 | Router |" in capsys.readouterr().out


def test_situations_are_named_once() -> None:
    names = [situation.name for situation in SITUATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("native", "anyio_backend"), [(False, "asyncio"), (True, "asyncio")], ids=["scope", "task"], indirect=False
)
async def test_calls_cancelled_at_random_leave_nothing_behind(native: bool, anyio_backend: str) -> None:
    left = await churn(200, native=native)
    assert left.is_clean, left
    assert left.outcomes["cancelled"] > 50
    assert set(left.outcomes) <= {"ok", "cancelled", "stream_truncated"}  # one key cuts a few streams


def test_churn_prints_a_row_for_each_way_of_cancelling(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--churn", "40"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| scope", "| task"))]
    assert [row.split("|")[2].strip() for row in rows] == ["20", "20"]
