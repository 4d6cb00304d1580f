"""The benchmark runs, tiny, and has a figure for every hook and plugin."""

from __future__ import annotations

import math

import pytest

from benchmarks.plugins import PLUGINS, main

HOOKS = {
    "virtual_keys": ["authenticate", "authorize", "select_routes"],
    "budgets": ["reserve", "attempt_finished", "call_finished"],
    "rate_limits": ["reserve", "attempt_finished"],
    "response_cache": ["cached_response", "call_finished"],
    "guardrails": ["guard_request", "guard_response"],
    "request_log": ["call_finished"],
}
WITH_A_STORE = {"virtual_keys", "budgets", "rate_limits", "all plugins"}


def tables(out: str) -> list[list[list[str]]]:
    """The cells of each table, head first."""
    found: list[list[list[str]]] = []
    for block in out.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|") and not line.startswith("|-")]
        if lines:
            found.append([[cell.strip() for cell in line.strip("|").split("|")] for line in lines])
    return found


def median(cell: str) -> float:
    """The figure in front of its quartiles."""
    middle, _, quartiles = cell.partition(" ")
    low, _, high = quartiles.strip("()").rpartition("-")
    assert float(low) <= float(middle) <= float(high) < math.inf
    return float(middle)


def test_every_plugin_has_figures_for_its_hooks_its_store_and_its_calls(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--calls", "2", "--rounds", "3"])
    hooks, calls, hits = tables(capsys.readouterr().out)
    head, *rows = hooks
    assert head == ["hook", *PLUGINS, "all plugins"]
    assert list(PLUGINS) == list(HOOKS)
    by_hook = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    for plugin, names in HOOKS.items():
        told = [hook for hook in by_hook if by_hook[hook][plugin] != "-" and hook not in {"**all hooks**", "its store"}]
        assert told == names
    assert {plugin for plugin, cell in by_hook["its store"].items() if cell != "-"} == WITH_A_STORE
    assert all(median(cell) > 0 for cell in by_hook["**all hooks**"].values())
    assert [row[0] for row in calls[1:]] == ["no plugins", *PLUGINS, "all plugins"]
    assert [row[0] for row in hits[1:]] == ["ready", "response_cache", "all plugins"]
    for first, *others in (calls[1:], hits[1:]):
        assert [first[2], first[5]] == ["-", "-"]
        for _, cpu, _, _, entered, more in others:
            assert median(cpu) > 0
            assert abs(int(entered) - int(more) - int(first[4])) <= 1  # each is rounded
            assert int(more) > 0


def test_a_hit_enters_fewer_functions_than_a_call_that_goes_to_a_provider(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--calls", "1", "--rounds", "2"])
    _, calls, hits = tables(capsys.readouterr().out)
    asked = {row[0]: int(row[4]) for row in calls[1:]}
    answered = {row[0]: int(row[4]) for row in hits[1:]}
    assert answered["response_cache"] < asked["no plugins"]
    assert answered["all plugins"] < asked["all plugins"]
