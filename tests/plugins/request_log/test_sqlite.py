"""The request log in a database of SQLite."""

from __future__ import annotations

import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bifrost_plugins.request_log import Query, RequestLogPlugin, SqliteSink, read_events

from bifrost_core import ConfigError, Router
from bifrost_core.testing import FakeClock
from bifrost_core.testing.simulated import Simulated

NOON = 1_767_268_800.0
DAY = 86_400


def ids(path: Path) -> list[str]:
    return [event["call_id"] for event in read_events(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def test_an_event_comes_back_as_it_was_written(path: Path, an_event: Any) -> None:
    events = [
        an_event(0),
        an_event(1, usage=None, cost=None, tenant=None, latency=None, kind="no_route", outcome="failed"),
    ]
    sink = SqliteSink(path)
    sink.write_events(events)
    assert list(read_events(path)) == events  # while it is open
    sink.close()
    assert list(read_events(path)) == events
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_event_that_is_written_twice_is_there_once(path: Path, an_event: Any) -> None:
    sink = SqliteSink(path)
    sink.write_events([an_event(0, prompt={"input": "a"}, answer="b"), an_event(1)])
    sink.write_events([an_event(1), an_event(2)])
    sink.close()
    assert ids(path) == ["c0", "c1", "c2"]


def test_words_have_a_table_that_is_made_when_they_come(path: Path, an_event: Any) -> None:
    sink = SqliteSink(path)
    sink.write_events([an_event(0)])
    with closing(sqlite3.connect(path)) as database:
        assert [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE name = 'contents'")] == []
    prompt = {"messages": [{"role": "user", "content": "the question"}]}
    sink.write_events([an_event(1, prompt=prompt, answer="half \ud800"), an_event(2, prompt=None, answer=None)])
    sink.close()
    with_words = list(read_events(path, Query(content=True)))
    assert with_words == [
        an_event(0),
        an_event(1, prompt=prompt, answer="half ?"),
        an_event(2, prompt=None, answer=None),
    ]
    assert list(read_events(path)) == [an_event(0), an_event(1), an_event(2)]


@pytest.mark.parametrize("column", ["started_at", "tenant", "model", "outcome", "call_id"])
def test_a_question_about_one_column_is_answered_from_an_index(path: Path, an_event: Any, column: str) -> None:
    sink = SqliteSink(path)
    sink.write_events([an_event(0)])
    sink.close()
    with closing(sqlite3.connect(path)) as database:
        plan = database.execute(f"EXPLAIN QUERY PLAN SELECT * FROM calls WHERE {column} = ?", ("x",)).fetchall()
    assert "USING INDEX" in plan[0][3]


def test_what_is_older_than_the_retention_is_deleted_with_its_words(path: Path, an_event: Any) -> None:
    clock = FakeClock(wall=NOON)
    sink = SqliteSink(path, retention_days=7, clock=clock)
    sink.write_events(
        [an_event(0, prompt=None, answer="the old answer"), an_event(3 * DAY, prompt=None, answer="young")]
    )
    assert ids(path) == ["c0", f"c{3 * DAY}"]
    clock.advance(8 * DAY)
    sink.write_events([an_event(8 * DAY)])
    assert ids(path) == [f"c{3 * DAY}", f"c{8 * DAY}"]
    sink.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT answer FROM contents").fetchall() == [("young",)]
    assert b"the old answer" not in b"".join(each.read_bytes() for each in path.parent.iterdir())


def test_only_the_newest_rows_stay_and_their_pages_are_given_back(path: Path, an_event: Any) -> None:
    sink = SqliteSink(path, max_rows=10)
    sink.write_events([an_event(number, metadata={"text": "x" * 1000}) for number in range(12_000)])
    sink.close()
    assert ids(path) == [f"c{number}" for number in range(11_990, 12_000)]
    assert path.stat().st_size < 1_000_000


def test_tidying_happens_once_a_minute(path: Path, an_event: Any) -> None:
    clock = FakeClock(wall=NOON)
    sink = SqliteSink(path, max_rows=1, clock=clock)
    sink.write_events([an_event(0)])
    sink.write_events([an_event(1)])
    assert ids(path) == ["c0", "c1"]
    clock.advance(60)
    sink.write_events([an_event(2)])
    assert ids(path) == ["c2"]
    sink.close()


def test_a_batch_that_fails_leaves_nothing_behind(path: Path, an_event: Any) -> None:
    sink = SqliteSink(path)
    with pytest.raises(KeyError):
        sink.write_events([an_event(0, prompt=None, answer="a"), {"call_id": "c1"}])
    sink.write_events([an_event(2, prompt=None, answer="b")])
    sink.close()
    assert ids(path) == ["c2"]


def test_a_database_of_a_newer_version_is_left_alone(path: Path, an_event: Any) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="newer"):
        SqliteSink(path).write_events([an_event(0)])
    with pytest.raises(ConfigError, match="newer"):
        list(read_events(path))


@pytest.mark.parametrize("options", [{"retention_days": 0}, {"max_rows": 0}, {"max_rows": -1}], ids=str)
def test_limits_that_are_none_are_refused(path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        SqliteSink(path, **options)
    assert caught.value.field in options


def test_two_processes_may_write(path: Path, an_event: Any) -> None:
    one, other = SqliteSink(path), SqliteSink(path)
    for number in range(0, 100, 2):
        one.write_events([an_event(number)])
        other.write_events([an_event(number + 1)])
    one.close()
    other.close()
    assert ids(path) == [f"c{number}" for number in range(100)]


WRITER = """
import sys
from datetime import UTC, datetime
from bifrost_plugins.request_log import SqliteSink
event = {"operation": "chat", "model": "m/m", "principal": None, "tenant": None, "virtual_key": None, "outcome": "ok",
         "kind": None, "started_at": datetime.now(UTC).isoformat(), "latency": 0.1, "time_to_first_token": None,
         "cached": False, "usage": None, "cost": None, "attempts": [], "verdicts": [], "metadata": {"text": "x" * 500}}
sink, number = SqliteSink(sys.argv[1]), 0
while True:
    sink.write_events([{**event, "call_id": f"c{number + offset}"} for offset in range(50)])
    number += 50
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_loses_its_last_batch_at_most(path: Path, an_event: Any) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        reported = [int(writer.stdout.readline()) for _ in range(10)]
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
    told = int(rest[-1]) if rest else reported[-1]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    found = ids(path)
    assert found == [f"c{number}" for number in range(len(found))]
    assert len(found) in {told, told + 50}
    sink = SqliteSink(path)
    sink.write_events([an_event(10**6)])
    sink.close()
    assert ids(path)[-1] == "c1000000"


async def test_a_router_logs_into_a_database_and_flushes_when_it_closes(path: Path) -> None:
    log = RequestLogPlugin(SqliteSink(path), content=True)
    async with Router([Simulated(["k"])], plugins=[log]) as router:
        replies = [await router.chat("simulated/small", f"question {number}") for number in range(20)]
    assert [each.name for each in path.parent.iterdir()] == ["log.db"]  # closed: the write-ahead log is folded in
    events = list(read_events(path, Query(content=True)))
    assert [(event["call_id"], event["answer"]) for event in events] == [(each.call_id, each.text) for each in replies]
    assert events[3]["prompt"] == {"messages": [{"role": "user", "content": "question 3"}]}
    assert (log.written, log.dropped, log.failed) == (20, 0, 0)
