"""The benchmark of the balancers: repeatable, honest about what it can not read, and drawn."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from benchmarks.balancing.__main__ import Job, main, measure
from benchmarks.balancing.choosers import ALL_KNOWING, BALANCERS, ChooserError, find_balancer
from benchmarks.balancing.cpu import cpu_table
from benchmarks.balancing.pictures import place_names
from benchmarks.balancing.runs import Served, Try, run
from benchmarks.balancing.scenarios import SITUATIONS, Event, make_scenario
from benchmarks.balancing.scores import Figures, percentile, score, to_figures
from benchmarks.balancing.tables import goals
from benchmarks.balancing.traffic import Ask, TraceError, read_trace
from bifrost_core import LatencyWeighted, RoundRobin

TINY = 0.05


class FirstOnly(RoundRobin):
    """A user's own balancer: always the first candidate."""

    def pick(self, candidates: object, request: object = None) -> str:
        return min(candidates)  # type: ignore[call-overload, no-any-return]  # ids


# -- running -----------------------------------------------------------------------------------------------------


def test_there_are_at_least_twelve_situations_with_a_line_about_each() -> None:
    assert len(SITUATIONS) >= 12
    assert all(made.about.endswith(".") for made in SITUATIONS.values())


@pytest.mark.parametrize("name", ["one-hangs", "self-hosted", "request-limits", "at-random"])
def test_a_run_repeats_to_the_last_digit(name: str) -> None:
    job = Job(situation=name, chooser="LatencyWeighted", seed=3, length=TINY)
    first, second = (run(job.scenario(), job.chooser, job.seed) for _ in range(2))
    assert first == second
    assert len(first) == len(job.scenario().asks)


def test_another_seed_is_another_run() -> None:
    runs = [measure(Job(situation="equal-keys", chooser="RoundRobin", seed=seed, length=TINY)) for seed in (1, 2)]
    assert runs[0][1] != runs[1][1]


def test_all_choosers_meet_the_same_requests_and_the_same_draws() -> None:
    scenario = make_scenario("equal-keys", seed=5, length=TINY)
    rows = {name: run(scenario, name, 5) for name in (*BALANCERS, ALL_KNOWING)}
    latencies = [[(row.at, round(row.seconds, 9)) for row in each] for each in rows.values()]
    assert all(each == latencies[0] for each in latencies)
    assert len({tuple(row.tries[0].key for row in each) for each in rows.values()}) == len(rows)


def test_the_all_knowing_choice_never_meets_a_key_that_hangs() -> None:
    scenario = make_scenario("one-hangs", seed=1, length=TINY)
    rows = run(scenario, ALL_KNOWING, 1)
    bad, good = (event.at for event in scenario.script.events)
    assert all(each.outcome == "ok" for row in rows for each in row.tries)
    assert not [each for row in rows for each in row.tries if each.key == "key-1" and bad <= each.at < good]


def test_a_late_key_is_not_asked_before_it_joins() -> None:
    scenario = make_scenario("key-joins", seed=1, length=0.1)
    first = min(each.at for row in run(scenario, "RoundRobin", 1) for each in row.tries if each.key == "key-4")
    assert first >= scenario.script.late["key-4"]


# -- figures -----------------------------------------------------------------------------------------------------


def served(at: float, key: str, error: str | None = None, seconds: float = 1.0) -> Served:
    return Served(at, seconds, error, (Try(key, at, seconds, "failed" if error else "ok"),))


def test_figures_of_a_run_that_is_written_down() -> None:
    scenario = make_scenario("one-turns-slow", seed=1, keys=2, length=1.0)  # bad from 42 to 105
    times = [float(at) for at in range(210)]
    # Half of the traffic until 18 s after it turned bad; the last of that is one in the next twenty, which is a tenth
    # of its former share. Again from 20 s after it is well.
    keys = ["key-1" if at % 2 == 0 and not 60 < at < 125 else "key-2" for at in range(210)]
    rows = [served(at, key, "server_error" if at == 10 else None) for at, key in zip(times, keys, strict=True)]
    figures = to_figures(scenario, rows)
    assert figures == Figures(
        requests=210,
        mean=(209 * 1.0 + 31.0) / 210,
        p50=1.0,
        p95=1.0,
        p99=1.0,
        errors=1 / 210,
        leave=16.0,
        come_back=21.0,
        fairness=None,
    )


def test_traffic_that_never_leaves_or_returns_is_called_that() -> None:
    scenario = make_scenario("one-turns-slow", seed=1, keys=2)
    stays = [served(float(at), "key-1") for at in range(80)] + [served(float(at), "key-2") for at in range(80, 210)]
    figures = to_figures(scenario, stays)
    assert (figures.leave, figures.come_back) == (35.0, math.inf)
    figures = to_figures(scenario, [served(at / 2, f"key-{at % 2 + 1}") for at in range(420)])
    assert figures.leave == math.inf


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, part) for part in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([3.0], 0.5) == 3.0


def test_a_score_is_the_geometric_mean_of_two_ratios() -> None:
    def figures(mean: float, p99: float) -> Figures:
        return Figures(
            requests=500, mean=mean, p50=1.0, p95=1.0, p99=p99, errors=0.002, leave=None, come_back=None, fairness=1.0
        )

    assert score(figures(2.0, 9.0), figures(1.0, 2.0)) == pytest.approx(3.0)
    table = {("one", ALL_KNOWING): figures(1.0, 2.0), ("one", "mine"): figures(2.0, 9.0)}
    found = {goal.name: (goal.value, goal.holds) for goal in goals(table, "mine", {"one": 8.0})}
    assert found["worst score"] == (3.0, False)
    assert found["errors seen, of all requests"] == (0.2, False)
    assert found["leave a bad key"] == (None, True)
    assert found["fairness"] == (1.0, True)


# -- the command line --------------------------------------------------------------------------------------------


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main([*arguments, "--jobs", "1"])
    return capsys.readouterr().out


def test_the_same_seed_prints_the_same_table(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--scenario", "flapping", "--quick", "--rate", "2", "--balancer", "LatencyWeighted", "LeastBusy")
    first = output(capsys, *arguments)
    assert first == output(capsys, *arguments)
    rows = [line.split("|")[1:3] for line in first.splitlines() if line.startswith("| flapping")]
    assert [name.strip() for _, name in rows] == [ALL_KNOWING, "LatencyWeighted", "LeastBusy"]


def test_a_balancer_of_the_users_own_is_named_by_module_and_class(capsys: pytest.CaptureFixture[str]) -> None:
    sys.modules["mine"] = sys.modules[__name__]
    try:
        text = output(capsys, "--scenario", "equal-keys", "--quick", "--rate", "1", "--balancer", "mine:FirstOnly")
    finally:
        del sys.modules["mine"]
    assert "| equal-keys | mine:FirstOnly | 1.00 |" in text


def test_goals_are_judged_at_full_length(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--scenario", "equal-keys", "--rate", "0.5", "--balancer", "RoundRobin")
    assert "| geometric mean of scores | 1.10 | 1.00 ok |" in output(capsys, *arguments)
    assert "geometric mean" not in output(capsys, *arguments, "--quick")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("Nothing", "give one of LatencyWeighted", id="no such name"),
        pytest.param("no_such_module:Class", "No module named 'no_such_module'", id="no such module"),
        pytest.param("bifrost_core:NoSuch", "bifrost_core has no class 'NoSuch'", id="no such class"),
    ],
)
def test_a_balancer_that_is_not_there_is_one_line(name: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ChooserError, match=reason):
        find_balancer(name)
    with pytest.raises(SystemExit) as stopped:
        main(["--balancer", name])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


def test_balancers_are_found_by_either_name() -> None:
    assert (
        find_balancer("LatencyWeighted") is find_balancer("bifrost_core.balancing:LatencyWeighted") is LatencyWeighted
    )


def test_the_cpu_table_has_a_row_per_balancer_and_number_of_keys() -> None:
    lines = cpu_table(["RoundRobin", "LatencyWeighted"], rounds=1, picks=5).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["RoundRobin"] * 2 + ["LatencyWeighted"] * 2


# -- traces ------------------------------------------------------------------------------------------------------

OWN = '{"at": 7.5, "input_tokens": 300, "output_tokens": 20, "session": "s", "model": "a/b"}'
LOGGED = (
    '{"call_id": "c", "operation": "chat", "model": "mistral/small", "started_at": "2026-01-01T00:00:05.000+00:00", '
    '"cached": false, "usage": {"input_tokens": 11, "output_tokens": 22}, "metadata": {"session": "s"}}'
)


def trace(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_trace_is_read_in_order_of_time_from_its_first_request(tmp_path: Path) -> None:
    asks = read_trace(
        trace(tmp_path / "t", OWN, "", '{"at": "1970-01-01T00:00:05Z", "input_tokens": 1.0, "output_tokens": 2}')
    )
    assert asks == [Ask(0.0, 1, 2), Ask(2.5, 300, 20, "s", "a-b")]


def test_a_request_log_is_a_trace(tmp_path: Path) -> None:
    cached = LOGGED.replace("false", "true")
    failed = LOGGED.replace('{"input_tokens": 11, "output_tokens": 22}', "null").replace("05.000", "06.500")
    asks = read_trace(trace(tmp_path / "t", LOGGED, cached, failed))
    assert asks == [Ask(0.0, 11, 22, "s", "mistral-small"), Ask(1.5, 300, 120, "s", "mistral-small")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param("{", "is no JSON", id="no JSON"),
        pytest.param("[]", "is no JSON object", id="no object"),
        pytest.param('{"input_tokens": 1, "output_tokens": 1}', "at is missing", id="no time"),
        pytest.param('{"at": true, "input_tokens": 1, "output_tokens": 1}', "at is missing or neither", id="odd time"),
        pytest.param('{"at": "noon", "input_tokens": 1, "output_tokens": 1}', "at is no ISO 8601 time", id="no ISO"),
        pytest.param('{"at": 1, "output_tokens": 1}', "input_tokens is no number", id="no input"),
        pytest.param('{"at": 1, "input_tokens": 1, "output_tokens": -1}', "output_tokens is no number", id="negative"),
        pytest.param(
            '{"at": 1, "input_tokens": 1, "output_tokens": 1, "session": 5}', "session is no text", id="session"
        ),
        pytest.param('{"at": 1, "input_tokens": 1, "output_tokens": 1, "model": ""}', "model is no text", id="model"),
        pytest.param('{"started_at": "2026-01-01T00:00:00Z", "usage": 3}', "usage is no object", id="usage"),
    ],
)
def test_an_error_in_a_trace_names_line_and_field(
    line: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trace(tmp_path / "t.jsonl", OWN, line)
    with pytest.raises(SystemExit) as stopped:
        main(["--trace", str(path)])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith(f"{path}, line 2: {reason}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("content", [pytest.param("\n", id="empty"), pytest.param(None, id="missing")])
def test_a_trace_without_requests_is_refused(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "t"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TraceError, match="holds no request" if content else "can not be read"):
        read_trace(path)


def test_a_trace_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f'{{"at": {at}, "input_tokens": 10, "output_tokens": 10}}' for at in range(30)]
    path = trace(tmp_path / "t", *lines)
    text = output(capsys, "--trace", str(path), "--scenario", "one-turns-slow", "--balancer", "RoundRobin", "--quick")
    assert "| one-turns-slow | RoundRobin |" in text


# -- pictures ----------------------------------------------------------------------------------------------------


def test_a_picture_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.png"
    main(["--scenario", "at-random", "--quick", "--balancer", "LeastBusy", "--plot", str(path)])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in capsys.readouterr().out


def test_names_of_events_do_not_overlap() -> None:
    events = [Event(at, "key-1", "slow") for at in (0.0, 1.0, 2.0, 50.0)]
    assert [line for _, line in place_names(events, 100.0)] == [0, 1, 2, 0]


def test_a_picture_shows_one_situation(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--plot", "out.png"])
    assert stopped.value.code == 2
    assert "give --scenario NAME" in capsys.readouterr().err


def test_without_matplotlib_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.balancing.pictures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as stopped:
        main(["--scenario", "equal-keys", "--plot", "out.png"])
    assert stopped.value.code == 2
    assert 'pip install "bifrost-core[bench]"' in capsys.readouterr().err
