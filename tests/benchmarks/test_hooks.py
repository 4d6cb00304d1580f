"""The benchmark runs, tiny, and its plugins are in every phase."""

from __future__ import annotations

import math

import pytest

from benchmarks.hooks import COLUMNS, main
from benchmarks.watchers import KINDS, PHASES, Kind, watcher
from bifrost_core.hooks import compile_hooks
from bifrost_core.testing import check_plugin


def tables(out: str) -> list[list[list[str]]]:
    """The cells of each table, head first."""
    found: list[list[list[str]]] = []
    for block in out.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|") and not line.startswith("|-")]
        if lines:
            found.append([[cell.strip() for cell in line.strip("|").split("|")] for line in lines])
    return found


def test_every_way_every_phase_and_every_kind_of_call_has_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--times", "20", "--calls", "2", "--rounds", "2"])
    one, phases, calls = tables(capsys.readouterr().out)
    assert one[0][1:] == phases[0][1:] == list(COLUMNS)
    assert [row[0] for row in one[1:]] == ["pm.hook.x(…)", "pluggy, then await", "compiled chain"]
    assert [row[0] for row in phases[1:]] == [hook.name for hook in PHASES]
    assert [row[0] for row in calls[1:]] == [*COLUMNS, "1 stream filter"]
    assert calls[0][1:] == ["Router.chat", "adds", "Router.stream", "adds"]
    for row in [*phases[1:], one[3]]:
        for cell in row[1:]:
            best, _, median = cell.partition(" / ")
            assert 0 <= float(best) <= float(median) < math.inf
    assert calls[1][2] == calls[1][4] == "0.0"


@pytest.mark.parametrize("kind", KINDS)
def test_a_watcher_is_a_plugin_with_every_hook_of_a_call(kind: Kind) -> None:
    plugin = watcher(kind)
    assert check_plugin(plugin) == [hook.name for hook in PHASES]
    assert len(PHASES) == 12


@pytest.mark.parametrize(
    ("kind", "never_waits"),
    [
        pytest.param("sync", False, id="sync"),
        pytest.param("async", True, id="async"),
        pytest.param("waiting", False, id="waiting"),
    ],
)
def test_only_a_coroutine_without_an_await_is_known_not_to_wait(kind: Kind, never_waits: bool) -> None:
    (implementation,) = compile_hooks([watcher(kind)]).implementations["bifrost_authorize"]
    assert implementation.never_waits is never_waits
