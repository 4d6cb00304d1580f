"""The benchmark runs, tiny, has a figure for each size, and judges growth by what it is."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from benchmarks.canned import MESSAGES, MODEL
from benchmarks.holding_engine import HoldingEngine
from benchmarks.scale import keys, virtual_keys
from benchmarks.scale.__main__ import main
from benchmarks.scale.curves import Curve, goals, table, times_per_tenfold
from bifrost_core import Mistral, Router

TINY = ["--keys", "2", "12", "--in-flight", "1", "6", "--virtual-keys", "200", "300", "--calls", "6", "--rounds", "2"]


def tables(out: str) -> list[list[list[str]]]:
    """The cells of each table, row by row, heads included and rules not."""
    found: list[list[list[str]]] = []
    is_inside = False
    for line in out.splitlines():
        if not line.startswith("|"):
            is_inside = False
            continue
        if not is_inside:
            found.append([])
            is_inside = True
        if not line.startswith("|---"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_there_is_a_table_for_each_subject_and_a_row_for_each_size(capsys: pytest.CaptureFixture[str]) -> None:
    main(TINY)
    out = capsys.readouterr().out
    of_keys, in_flight, of_virtual_keys = tables(out)
    assert of_keys[0] == ["keys", *(f"{name}, us" for name in (*keys.SITUATIONS, "first call"))]
    assert [row[0] for row in of_keys[1:-1]] == ["2", "12"]
    assert [row[0] for row in in_flight] == ["calls in flight", "1", "6", "times as much for ten times as many"]
    assert [row[0] for row in of_virtual_keys[:3]] == ["virtual keys in SQLite", "200", "300"]
    assert of_virtual_keys[1][3] == "-"  # so many had been issued one by one
    for each in (of_keys, in_flight):
        assert all(float(cell) > 0 for row in each[1:] for cell in row[1:])
    judged = [line.partition(":")[0] for line in out.splitlines() if line.endswith(("kept", "MISSED"))]
    assert judged == [
        *(f"keys, {name}" for name in keys.SITUATIONS),
        *(f"calls in flight, {name}" for name in ("one more call", "each of them, begin to end")),
        *(f"virtual keys in SQLite, {name}" for name in ("first look-up", "again within a second")),
    ]


def test_parts_can_be_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--keys", "--in-flight", "2", "--virtual-keys", "--calls", "4", "--rounds", "1"])
    (only,) = tables(capsys.readouterr().out)
    assert [row[0] for row in only[:2]] == ["calls in flight", "2"]


def test_the_picture_is_a_small_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    main([*TINY, "--plot", str(tmp_path / "out.png")])
    capsys.readouterr()
    data = (tmp_path / "out.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(data) < 150_000


# What is said about it.


@pytest.mark.parametrize(
    ("costs", "growth", "word"),
    [
        pytest.param([100, 100, 100], 1.0, "kept", id="flat"),
        pytest.param([100, 1_000, 10_000], 10.0, "MISSED", id="linear"),
        pytest.param([100, 140, 180], math.sqrt(1.8), "kept", id="logarithmic"),
        pytest.param([100, 316, 1_000], math.sqrt(10), "MISSED", id="root"),
        pytest.param([100, 50, 25], 0.5, "kept", id="falling"),
    ],
)
def test_growth_is_by_the_tenfold(costs: Sequence[float], growth: float, word: str) -> None:
    by_size = dict(zip((10, 100, 1_000), costs, strict=True))
    assert times_per_tenfold(by_size) == pytest.approx(growth)
    assert goals([Curve("keys", "a call", "us", by_size)]).rpartition(" ")[2] == word


def test_one_size_alone_is_not_judged() -> None:
    assert math.isnan(times_per_tenfold({10: 4.0}))
    assert goals([Curve("keys", "a call", "us", {10: 4.0})]) == ""
    assert goals([Curve("keys", "first call", "us", {1: 1.0, 10: 9.0}, is_judged=False)]) == ""


def test_a_size_that_one_cost_has_and_another_has_not_is_left_open() -> None:
    (shown,) = tables(table([Curve("keys", "a", "us", {10: 1.0, 1_000: 4.0}), Curve("keys", "b", "us", {1_000: 2.0})]))
    assert shown == [
        ["keys", "a, us", "b, us"],
        ["10", "1.0", "-"],
        ["1,000", "4.0", "2.0"],
        ["times as much for ten times as many", "2.00", "nan"],
    ]


# What is measured.


async def test_calls_are_in_flight_until_they_are_let_go() -> None:
    engine = HoldingEngine()
    async with Router([Mistral("sk-simulated-1")], engine=engine) as router:
        engine.is_holding = True
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(router.chat, f"mistral/{MODEL}", MESSAGES)
            await engine.until_held(5)
            assert [row.in_flight for row in router.health()] == [5]
            engine.is_holding = False
            assert (await router.chat(f"mistral/{MODEL}", MESSAGES)).attempts[0].outcome == "ok"
            assert engine.held == 5
            engine.release()
        assert [row.in_flight for row in router.health()] == [0]


async def test_a_stream_can_be_held_after_its_first_piece() -> None:
    engine = HoldingEngine(begins=True)
    async with Router([Mistral("sk-simulated-1")], engine=engine) as router:
        engine.is_holding = True
        said: list[str] = []

        async def read() -> None:
            async with router.stream(f"mistral/{MODEL}", MESSAGES) as reading:
                said.extend([chunk.text async for chunk in reading])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await engine.until_held(1)
            assert "".join(said) == ""
            engine.release()
        assert "".join(said) == "Bifrost trembles "


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_virtual_keys_are_as_many_as_were_asked_for(tmp_path: Path, anyio_backend: str) -> None:
    await virtual_keys.measure([300, 1_000, 2_500], tmp_path, rounds=1)
    with sqlite3.connect(tmp_path / "virtual-keys.db") as database:
        rows = database.execute("SELECT key, value FROM pairs").fetchall()
    database.close()
    ids = [key.rpartition("/")[2] for key, _ in rows]
    assert len(set(ids)) == 2_500
    assert {len(each) for each in ids} == {12}
    assert all(f'"id":"{identity}"'.encode() in value for identity, (_, value) in zip(ids, rows, strict=True))
    middle = sum(each < "V" for each in ids)  # the middle of base62
    assert 1_000 < middle < 1_500
