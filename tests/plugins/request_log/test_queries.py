"""A request log, read again: filtered, followed, exported."""

from __future__ import annotations

import csv
import importlib
import json
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bifrost_plugins.request_log import Event, JsonlSink, Query, SqliteSink, export, read_events
from bifrost_plugins.request_log.exports import COLUMNS
from bifrost_plugins.request_log.queries import follow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bifrost_core import ConfigError

NOON = 1_767_268_800.0


@pytest.fixture(params=["sqlite", "jsonl"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Any]]:
    """A path and what writes there."""
    path = tmp_path / f"log.{request.param}"
    sink: Any = SqliteSink(path) if request.param == "sqlite" else JsonlSink(path)
    yield path, sink
    if isinstance(sink, SqliteSink):
        sink.close()


def some(an_event: Any) -> list[Event]:
    return [
        an_event(0),
        an_event(10, model="mistral/mistral-large-latest", tenant="umbrella"),
        an_event(20, outcome="failed", kind="rate_limited"),
        an_event(30, outcome="refused", kind="refused", tenant=None),
        an_event(40, model="openai/gpt-[5]"),
    ]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (Query(), "c0 c10 c20 c30 c40"),
        (Query(since=NOON + 10, until=NOON + 30), "c10 c20"),
        (Query(model="mistral/mistral-large-latest"), "c10"),
        (Query(model="mistral/*"), "c0 c10 c20 c30"),
        (Query(model="*-[5]"), "c40"),
        (Query(model="openai/gpt-5"), ""),
        (Query(tenant="umbrella"), "c10"),
        (Query(outcome="failed"), "c20"),
        (Query(kind="refused"), "c30"),
        (Query(call_id="c30"), "c30"),
        (Query(limit=2), "c30 c40"),
        (Query(tenant="acme", limit=2), "c20 c40"),
        (Query(tenant="x' OR 1=1 --"), ""),
    ],
    ids=str,
)
def test_a_query_finds_the_same_in_either_log(log: Any, an_event: Any, query: Query, wanted: str) -> None:
    path, sink = log
    sink.write_events(some(an_event))
    assert [event["call_id"] for event in read_events(path, query)] == wanted.split()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    pattern=st.text("ab*?[]^-.%_\n", max_size=6),
    names=st.lists(st.text("ab?[]^-.%_\n", min_size=1, max_size=5), max_size=8),
)
def test_patterns_mean_the_same_in_either_log(
    an_event: Any, tmp_path_factory: pytest.TempPathFactory, pattern: str, names: list[str]
) -> None:
    events = [an_event(number, model=name) for number, name in enumerate(names)]
    path = tmp_path_factory.mktemp("log") / "log.db"
    sink = SqliteSink(path)
    sink.write_events(events)
    sink.close()
    query = Query(model=pattern)
    assert list(read_events(path, query)) == [event for event in events if query.matches(event)]


def test_words_are_read_only_when_asked_for(log: Any, an_event: Any) -> None:
    path, sink = log
    event = an_event(0, prompt={"input": "the question"}, answer="the answer")
    sink.write_events([event])
    assert list(read_events(path)) == [an_event(0)]
    assert list(read_events(path, Query(content=True))) == [event]


def test_files_that_were_moved_aside_are_read_first_and_broken_lines_left_out(tmp_path: Path, an_event: Any) -> None:
    path = tmp_path / "log.jsonl"
    sink = JsonlSink(path, max_bytes=1500, keep=9)
    sink.write_events([an_event(number) for number in range(8)])
    with path.open("a") as file:
        file.write('{"call_id": "cut\n[]\n{"other": 1}\n')
    assert path.with_name("log.jsonl.2").exists()
    assert [event["call_id"] for event in read_events(path)] == [f"c{number}" for number in range(8)]


@pytest.mark.parametrize("content", [None, b"SQLite format 3\x00"], ids=["missing", "broken"])
def test_what_is_no_log_is_said_to_be_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "log.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="log"):
        list(read_events(path))


def test_a_database_of_something_else_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE things (id INTEGER)")
    with pytest.raises(ConfigError, match="without a request log"):
        list(read_events(path))


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ConfigError):
        Query(limit=0)


# -- followed ------------------------------------------------------------------------------------------------------


def steps(*actions: Callable[[], object]) -> Callable[[], bool]:
    """What happens each time that nothing new is there; then it ends."""
    left = list(actions)

    def wait() -> bool:
        if not left:
            return False
        left.pop(0)()
        return True

    return wait


def test_a_log_is_followed_from_where_it_is(log: Any, an_event: Any) -> None:
    path, sink = log
    sink.write_events([an_event(number) for number in range(3)])
    wait = steps(
        lambda: sink.write_events([an_event(3), an_event(4, tenant="umbrella")]),
        lambda: None,
        lambda: sink.write_events([an_event(5, answer="not asked for", prompt=None)]),
    )
    found = list(follow(path, Query(tenant="acme", limit=2), wait))
    assert found == [an_event(1), an_event(2), an_event(3), an_event(5)]


def test_a_file_is_followed_across_its_ends(tmp_path: Path, an_event: Any) -> None:
    path = tmp_path / "log.jsonl"
    sink = JsonlSink(path, max_bytes=1500)
    sink.write_events([an_event(number) for number in range(4)])  # one file has been moved aside already
    line = json.dumps(an_event(5))

    def begin() -> None:
        with path.open("a") as file:
            file.write(line[:40])

    def end() -> None:
        with path.open("a") as file:
            file.write(line[40:] + "\n")

    wait = steps(
        lambda: sink.write_events([an_event(4)]), begin, end, lambda: sink.write_events([an_event(6)]), lambda: None
    )
    found = [event["call_id"] for event in follow(path, Query(), wait)]
    assert found == [f"c{number}" for number in range(7)]


@pytest.mark.parametrize("end", ["removed", "emptied"])
def test_a_file_that_somebody_else_ends_is_followed_in_its_successor(tmp_path: Path, an_event: Any, end: str) -> None:
    path = tmp_path / "log.jsonl"
    sink = JsonlSink(path)
    sink.write_events([an_event(0), an_event(1)])
    wait = steps(
        path.unlink if end == "removed" else lambda: path.write_bytes(b""),
        lambda: sink.write_events([an_event(2)]),
        lambda: sink.write_events([an_event(3)]),
    )
    assert [event["call_id"] for event in follow(path, Query(), wait)] == ["c0", "c1", "c2", "c3"]


# -- exported ------------------------------------------------------------------------------------------------------


def test_an_export_tells_what_of_a_prompt_was_read_from_a_cache_and_written_to_it(
    an_event: Any, tmp_path: Path
) -> None:
    counts = {"input_tokens": 9, "cached_tokens": 4, "cache_write_tokens": 3, "long_cache_write_tokens": 2}
    target = tmp_path / "calls.csv"
    assert export([an_event(0, usage=counts)], target) == 1
    with target.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert {name: row[name] for name in counts} == {name: str(count) for name, count in counts.items()}


def test_an_export_as_csv_has_a_row_per_call(log: Any, an_event: Any, tmp_path: Path) -> None:
    path, sink = log
    sink.write_events([an_event(0), an_event(1, attempts=[], usage=None, cost=None, principal='=HYPERLINK("x")')])
    target = tmp_path / "calls.csv"
    assert export(path, target) == 2
    with target.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert tuple(first) == COLUMNS
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert {name: first[name] for name in ("call_id", "cached", "input_tokens", "cost", "key_id", "attempt_count")} == {
        "call_id": "c0",
        "cached": "false",
        "input_tokens": "3",
        "cost": "0.0000025",
        "key_id": "k1",
        "attempt_count": "1",
    }
    assert json.loads(first["attempts"]) == an_event(0)["attempts"]
    assert (second["principal"], second["cost"], second["key_id"]) == ('\'=HYPERLINK("x")', "", "")


def test_an_export_as_lines_is_a_log_again(log: Any, an_event: Any, tmp_path: Path) -> None:
    path, sink = log
    sink.write_events(some(an_event))
    target = tmp_path / "calls.jsonl"
    assert export(path, target, query=Query(tenant="acme")) == 3
    assert list(read_events(target)) == list(read_events(path, Query(tenant="acme")))


def test_an_export_as_parquet_has_types(log: Any, an_event: Any, tmp_path: Path) -> None:
    path, sink = log
    words = {"prompt": {"input": "the question"}, "answer": "the answer"}
    sink.write_events([an_event(0, **words), an_event(1, cost=None, latency=None, **words)])
    target = tmp_path / "calls.parquet"
    assert export(path, target, query=Query(content=True)) == 2
    parquet: Any = importlib.import_module("pyarrow.parquet")
    first, second = parquet.read_table(target).to_pylist()
    assert (first["started_at"], first["cost"], first["latency"], first["input_tokens"], first["cached"]) == (
        datetime.fromtimestamp(NOON, UTC),
        Decimal("0.0000025"),
        0.5,
        3,
        False,
    )
    assert (json.loads(first["prompt"]), first["answer"]) == ({"input": "the question"}, "the answer")
    assert (second["cost"], second["latency"]) == (None, None)


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_events_of_any_kind_are_exported_and_words_left_out(an_event: Any, tmp_path: Path, format_: Any) -> None:
    events = [an_event(number, prompt={"input": "the question"}, answer="half \ud800") for number in range(3)]
    target = tmp_path / "calls"
    assert export(iter(events), target, format=format_, query=Query(limit=2)) == 2
    assert b"the question" not in target.read_bytes()
    assert export(events, target, format=format_, query=Query(content=True)) == 3
    assert export([], target, format=format_) == 0


def test_an_export_that_fails_leaves_the_file_that_was_there(an_event: Any, tmp_path: Path) -> None:
    target = tmp_path / "calls.csv"
    target.write_text("before")

    def events() -> Iterator[Event]:
        yield an_event(0)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        export(events(), target)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("calls.csv", "before")]


def test_an_unknown_format_is_refused(an_event: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        export([an_event()], tmp_path / "calls.xlsx")
    assert caught.value.field == "format"


def test_without_pyarrow_parquet_says_what_to_install(
    an_event: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'bifrost-core\[parquet\]'"):
        export([an_event()], tmp_path / "calls.parquet")
    assert list(tmp_path.iterdir()) == []
