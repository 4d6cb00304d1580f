"""``bifrost logs``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from bifrost_plugins.request_log import JsonlSink, SqliteSink, read_events
from bifrost_plugins.request_log.commands import logs
from click.testing import CliRunner

from bifrost_core.cli import main

ROOT = Path(__file__).parents[3]


@pytest.fixture
def db(tmp_path: Path, an_event: Any) -> Path:
    path = tmp_path / "log.db"
    sink = SqliteSink(path)
    sink.write_events(
        [
            an_event(0),
            an_event(60, model="mistral/mistral-large-latest", outcome="failed", kind="rate_limited", cost=None),
            an_event(120, tenant="umbrella", cached=True, cost="0", attempts=[]),
            an_event(180, model="evil\n\x1b[2Jmodel\u202e", prompt={"input": "the question"}, answer="the answer"),
        ]
    )
    sink.close()
    return path


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(logs, arguments)
    assert result.exit_code == status, result.output
    return result.output


def ids(output: str) -> list[str]:
    return [json.loads(line)["call_id"] for line in output.splitlines()]


def test_a_call_is_a_line(db: Path) -> None:
    heading, *lines = run("--db", str(db)).splitlines()
    assert heading.split() == [
        "started_at",
        "outcome",
        "model",
        "tenant",
        "latency",
        "tokens",
        "cost",
        "tries",
        "kind",
        "call_id",
    ]
    assert [line.split() for line in lines[:3]] == [
        [
            "2026-01-01T12:00:00.000",
            "ok",
            "mistral/mistral-small-latest",
            "acme",
            "0.500",
            "s",
            "3+5",
            "$0.0000025",
            "1",
            "-",
            "c0",
        ],
        [
            "2026-01-01T12:01:00.000",
            "failed",
            "mistral/mistral-large-latest",
            "acme",
            "0.500",
            "s",
            "3+5",
            "-",
            "1",
            "rate_limited",
            "c60",
        ],
        [
            "2026-01-01T12:02:00.000",
            "ok",
            "mistral/mistral-small-latest",
            "umbrella",
            "0.500",
            "s",
            "3+5",
            "cached",
            "0",
            "-",
            "c120",
        ],
    ]
    assert len(lines) == 4
    assert lines[3].isprintable()
    assert "evil\\n\\u001b[2Jmodel\\u202e" in lines[3]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--model", "mistral/*-large-*"], "c60"),
        (["--tenant", "umbrella"], "c120"),
        (["--outcome", "failed"], "c60"),
        (["--kind", "rate_limited"], "c60"),
        (["--call-id", "c120"], "c120"),
        (["--limit", "2"], "c120 c180"),
        (["--since", "2026-01-01T12:01", "--until", "2026-01-01T13:02:00+01:00"], "c60"),
        (["--since", "1h"], ""),
        (["--until", "2h"], "c0 c60 c120 c180"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_calls_are_filtered(db: Path, options: list[str], wanted: str) -> None:
    assert ids(run("--db", str(db), "--json", *options)) == wanted.split()


def test_a_file_of_lines_is_read_too(tmp_path: Path, an_event: Any) -> None:
    path = tmp_path / "log.jsonl"
    JsonlSink(path).write_events([an_event(number) for number in range(60)])
    assert ids(run("--file", str(path), "--json")) == [f"c{number}" for number in range(10, 60)]


def test_the_place_of_the_log_may_stand_in_the_environment(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIFROST_LOG_DB", str(db))
    assert len(run().splitlines()) == 5


def test_words_are_shown_only_when_asked_for(db: Path) -> None:
    assert "the question" not in run("--db", str(db), "--json")
    assert "the question" in run("--db", str(db), "--json", "--content")


@pytest.mark.parametrize("name", ["calls.csv", "calls.jsonl", "calls.parquet"])
def test_calls_are_exported(db: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    assert run("--db", str(db), "--export", str(target), "--tenant", "acme") == f"3 calls written to {target}\n"
    assert target.stat().st_size > 0


def test_the_format_of_an_export_may_be_said(db: Path, tmp_path: Path) -> None:
    target = tmp_path / "calls.txt"
    run("--db", str(db), "--export", str(target), "--format", "jsonl")
    assert len(list(read_events(target))) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "where is the log"),
        (["--db", "a", "--file", "b"], "one place"),
        (["--db", "DB", "--follow", "--export", "x.csv"], "leave out --follow"),
        (["--file", "DB"], "name it with --db"),
        (["--db", "DB", "--since", "yesterday"], "no time"),
    ],
    ids=["nowhere", "two places", "an endless export", "a database as a file", "no time"],
)
def test_wrong_arguments_are_named(db: Path, arguments: list[str], message: str) -> None:
    assert message in run(*[str(db) if each == "DB" else each for each in arguments], status=2)


FOLLOW = "import sys; from bifrost_plugins.request_log.commands import logs; logs(sys.argv[1:])"


def test_a_log_is_followed_until_it_is_interrupted(db: Path, an_event: Any) -> None:
    command = [sys.executable, "-u", "-c", FOLLOW, "--db", str(db), "--follow", "--json", "--limit", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())["call_id"] == "c180"
            sink = SqliteSink(db)
            sink.write_events([an_event(200), an_event(201)])
            sink.close()
            assert [json.loads(process.stdout.readline())["call_id"] for _ in range(2)] == ["c200", "c201"]
        finally:
            process.send_signal(signal.SIGINT)
        process.wait(30)


def test_it_is_a_command_of_bifrost(
    db: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    points = [metadata.EntryPoint(name, value, "bifrost.cli") for name, value in declared["bifrost.cli"].items()]

    def entry_points(*, group: str) -> list[metadata.EntryPoint]:
        return points if group == "bifrost.cli" else []

    monkeypatch.setattr("bifrost_core.cli.commands.entry_points", entry_points)
    assert main(["logs", "--db", str(db), "--limit", "1", "--json"]) == 0
    assert ids(capsys.readouterr().out) == ["c180"]
    assert main(["logs", "--db", str(db.with_name("missing.db"))]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "can not be read" in error
    assert main(["--help"]) == 0
    assert "Show calls of a request log" in capsys.readouterr().out
