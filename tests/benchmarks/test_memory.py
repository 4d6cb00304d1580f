"""The benchmark runs, tiny; maps end at their bounds, and growth is what it says."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from benchmarks.memory import growth, in_flight, maps, routers
from benchmarks.memory.__main__ import main
from benchmarks.memory.growth import Sample, slope


def rows(out: str) -> list[list[str]]:
    lines = [line for line in out.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_each_thing_has_its_weight_beside_its_goal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one thing of each kind: each is weighed in two processes of its own."""
    idle, plain = routers.KINDS["built"], in_flight.KINDS["plain"]
    monkeypatch.setattr(routers, "KINDS", {"built": idle})
    monkeypatch.setattr(in_flight, "KINDS", {"plain": plain})
    main(["--calls", "0", "--in-flight", "200", "--routers", "4"])
    found = {row[0]: row[1:] for row in rows(capsys.readouterr().out)}
    assert all(float(found[name][0]) > 0 for name in ("import bifrost_core", "its first Router, with what it imports"))
    for about, number, goal in ((idle, "4", "< 3000"), (plain, "200", "< 25")):
        assert found[about][0] == number
        assert found[about][3:] == [goal, "kept"]
        assert float(found[about][1]) > 1.0  # KB; what the system counts is coarser, and may be nothing for so few
    for each in maps.MAPS:
        assert 0 < int(found[each.name][1]) <= each.bound
        assert found[each.name][-1] == "kept"


def test_the_growth_of_a_soak_has_its_rows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.memory.__main__._maps", lambda: "")
    main(["--calls", "60", "--in-flight", "0", "--routers", "0"])
    (*_, objects, blocks, resident) = rows(capsys.readouterr().out)
    assert [objects[0], blocks[0], resident[0]] == [
        "objects that the collector tracks",
        "blocks of memory",
        "resident, MB",
    ]
    for row in (objects, blocks):
        assert min(int(row[1]), int(row[2])) > 10_000
        assert row[3][0] in "+-"
        assert row[4] == "no growth"


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kind", routers.KINDS)
async def test_an_idle_router_is_small(kind: str, anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routers, "_CALLS", 4)
    assert 1_000 < await routers.weigh(kind, 3) < 3e6


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kind", in_flight.KINDS)
async def test_a_call_in_flight_is_more_than_a_task_and_of_its_size(kind: str, anyio_backend: str) -> None:
    task = await in_flight.weigh("task", 30)
    weight = await in_flight.weigh(kind, 30)
    assert 1_000 < task < 10_000
    if kind != "task":
        assert task < weight < 100_000


@pytest.mark.parametrize("name", [each.name for each in maps.MAPS])
def test_a_map_ends_at_its_bound(name: str) -> None:
    (full,) = maps.weigh([name], share=1.01)
    assert full.offered > full.bound
    assert full.kept <= full.bound


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_soak_looks_twelve_times_while_it_makes_its_calls(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    one = growth._one

    async def counted(router: object, number: int) -> None:
        made.append(number)
        await one(router, number)  # type: ignore[arg-type] # a Router

    monkeypatch.setattr(growth, "_one", counted)
    monkeypatch.setattr(growth, "_WARM_UP", 10)
    samples = await growth.soak(330)
    assert [sample.calls for sample in samples] == [30 * place for place in range(12)]
    assert made == [*range(10), *range(330)]


@pytest.mark.parametrize(
    ("objects", "rise"),
    [
        pytest.param([500, 500, 500, 500], 0.0, id="nothing"),
        pytest.param([500, 600, 700, 800], 1e6, id="one object a call"),
        pytest.param([500, 501, 502, 503], 1e4, id="one in a hundred calls"),
        pytest.param([500, 500, 900, 900, 900, 900, 900], 0.0, id="a map that grew once"),
        pytest.param([800, 700, 600, 500], -1e6, id="less"),
    ],
)
def test_growth_is_by_the_million_calls_and_no_single_step(objects: list[int], rise: float) -> None:
    samples = [Sample(100 * place, count, 0, 0) for place, count in enumerate(objects)]
    assert slope(samples, "objects") == pytest.approx(rise)
    assert slope(samples, "blocks") == 0.0
