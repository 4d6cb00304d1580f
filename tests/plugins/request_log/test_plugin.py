"""``RequestLogPlugin``: one record per call, never in the caller's time."""

from __future__ import annotations

import json
import logging
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest
from bifrost_plugins.request_log import Event, JsonlSink, RequestLogPlugin, plugin, read_events, to_line
from bifrost_plugins.request_log import _writer as writer_module
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import (
    Attempt,
    BifrostError,
    Call,
    CallRecord,
    ChatResponse,
    Choice,
    ConfigError,
    Kind,
    Operation,
    Price,
    PriceBook,
    Principal,
    Request,
    Router,
    RouteRef,
    Secret,
    Usage,
    load_plugins,
)
from bifrost_core.testing import Fault, SimulatedKey
from bifrost_core.testing.simulated import Simulated

SECRET = "sk-bf-canary-0123456789abcdef"


def a_call(**changes: Any) -> Call:
    request = Request(Operation.CHAT, "simulated/small", {"messages": [{"role": "user", "content": "the question"}]})
    return Call("c1", request.operation, request, **changes)


def a_record(**changes: Any) -> CallRecord:
    fields: dict[str, Any] = {
        "call_id": "c1",
        "operation": Operation.CHAT,
        "model": "simulated/small",
        "principal": Principal(id="alice", tenant="acme"),
        "outcome": "ok",
        "kind": None,
        "response": ChatResponse(choices=(Choice(text="the answer"),)),
        "error": None,
        "attempts": (),
        "usage": Usage(input_tokens=3, output_tokens=5),
        "cost": Decimal("0.0000001"),
        "cached": False,
        "started_at": 1_767_225_600.25,
        "latency": 0.5,
        "time_to_first_token": None,
        "metadata": {},
    }
    return CallRecord(**{**fields, **changes})


class Slow:
    """A sink that takes no events until it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()
        self.events: list[Event] = []

    def write_events(self, events: Sequence[Event]) -> None:
        self.entered.set()
        self.go.wait(10)
        self.events += events


def logged(*records: CallRecord, content: Any = False, call: Call | None = None) -> list[Event]:
    """What reaches a sink for some records."""
    events: list[Event] = []
    log = RequestLogPlugin(events.append, content=content)
    for record in records:
        log.bifrost_call_finished(record, call or a_call())
    log._writer.stop()
    return events


# -- what an event says --------------------------------------------------------------------------------------------


def test_an_event_says_how_the_call_went() -> None:
    attempts = (
        Attempt(
            "a1",
            RouteRef("simulated", "small", "k1"),
            outcome="failed",
            kind=Kind.SERVER_ERROR,
            status=503,
            error=ValueError("not in the log"),
            latency=0.1,
        ),
        Attempt(
            "a2",
            RouteRef("simulated", "small", "k2"),
            outcome="ok",
            status=200,
            usage=Usage(input_tokens=3, output_tokens=5),
            cost=Decimal("0.0000001"),
            latency=0.4,
            time_to_first_token=0.2,
        ),
    )
    (event,) = logged(a_record(attempts=attempts, metadata={"feature": "search", "n": 3}))
    assert event == {
        "call_id": "c1",
        "operation": "chat",
        "model": "simulated/small",
        "principal": "alice",
        "tenant": "acme",
        "virtual_key": None,
        "outcome": "ok",
        "kind": None,
        "started_at": "2026-01-01T00:00:00.250+00:00",
        "latency": 0.5,
        "time_to_first_token": None,
        "cached": False,
        "usage": {"input_tokens": 3, "output_tokens": 5},
        "cost": "0.0000001",
        "attempts": [
            {
                "id": "a1",
                "provider": "simulated",
                "model": "small",
                "key_id": "k1",
                "outcome": "failed",
                "kind": "server_error",
                "status": 503,
                "latency": 0.1,
                "time_to_first_token": None,
                "usage": None,
                "cost": None,
            },
            {
                "id": "a2",
                "provider": "simulated",
                "model": "small",
                "key_id": "k2",
                "outcome": "ok",
                "kind": None,
                "status": 200,
                "latency": 0.4,
                "time_to_first_token": 0.2,
                "usage": {"input_tokens": 3, "output_tokens": 5},
                "cost": "0.0000001",
            },
        ],
        "verdicts": [],
        "metadata": {"feature": "search", "n": 3},
    }


def test_words_are_recorded_only_when_asked_for() -> None:
    (without,) = logged(a_record())
    (with_content,) = logged(a_record(), content=True)
    assert "the question" not in str(without)
    assert "the answer" not in str(without)
    assert with_content["prompt"] == {"messages": [{"role": "user", "content": "the question"}]}
    assert with_content["answer"] == "the answer"


def of_tenant(name: str | None) -> Call:
    return a_call(principal=Principal(id="alice", tenant=name))


@pytest.mark.parametrize(
    ("content", "tenant", "kept"),
    [
        (True, None, True),
        ({"acme": True}, "acme", True),
        ({"acme": True}, "umbrella", False),
        ({"acme": True}, None, False),
        ({"acme": False}, "acme", False),
        (lambda call: call.principal.tenant == "acme", "acme", True),
        (lambda call: call.principal.tenant == "acme", "umbrella", False),
        (lambda call: 1 / 0, "acme", False),
    ],
    ids=["all", "named", "another", "nobody", "denied", "by a function", "not by it", "a failing function"],
)
def test_words_are_recorded_by_tenant(content: Any, tenant: str | None, *, kept: bool) -> None:
    (event,) = logged(a_record(), content=content, call=of_tenant(tenant))
    assert ("prompt" in event, "answer" in event) == (kept, kept)


@attrs.frozen
class Verdict:
    rule: Any
    side: str = "input"
    action: str = "flag"
    label: str = "email"
    count: int = 2
    plugin: str = "house rules"
    text: str = "a@b.example"


@attrs.frozen
class Found:
    verdicts: list[Any]


def test_what_guardrails_found_is_recorded_without_what_it_was() -> None:
    call = a_call(virtual_key=Secret(SECRET))
    call.state |= {"one": Found([Verdict("addresses"), Verdict(SECRET)]), "two": object(), "three": Found([None])}
    (event,) = logged(a_record(), call=call)
    rest = {"plugin": "house rules", "side": "input", "action": "flag", "label": "email", "count": 2}
    assert event["verdicts"] == [
        {"rule": "addresses", **rest},
        {"rule": "Secret(…cdef)", **rest},
        {"plugin": None, "rule": None, "side": None, "action": None, "label": None, "count": 1},
    ]


@pytest.mark.parametrize(
    "credential",
    [
        "sk-proj-0123456789abcdefghij",
        "AKIAIOSFODNN7EXAMPLE",
        "AIza" + "x" * 35,
        "ghp_" + "a" * 36,
        "xoxb-123456789012-abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----",
    ],
    ids=["provider", "aws", "google", "github", "slack", "jwt", "pem"],
)
def test_what_looks_like_a_credential_is_masked(credential: str) -> None:
    call = a_call()
    call.request = call.request.with_body(messages=[{"role": "user", "content": f"use {credential} please"}])
    (event,) = logged(a_record(metadata={"note": credential}), content=True, call=call)
    assert event["prompt"]["messages"][0]["content"] == "use [credential] please"
    assert event["metadata"] == {"note": "[credential]"}


def test_the_words_behind_the_guardrails_are_recorded() -> None:
    call = a_call()
    call.request = call.request.with_body(messages=[{"role": "user", "content": "[masked]"}])
    (event,) = logged(a_record(response=None), content=True, call=call)
    assert event["prompt"] == {"messages": [{"role": "user", "content": "[masked]"}]}
    assert event["answer"] is None


def test_the_callers_key_is_masked_wherever_it_turns_up() -> None:
    call = a_call(virtual_key=Secret(SECRET))
    call.request = call.request.with_body(messages=[{"role": "user", "content": f"my key is {SECRET}"}])
    response = ChatResponse(choices=(Choice(text=f"you said {SECRET}"),))
    metadata = {"key": Secret(SECRET), SECRET: [SECRET]}
    (event,) = logged(a_record(response=response, metadata=metadata, model=SECRET), content=True, call=call)
    assert SECRET not in to_line(event)
    assert "my key is Secret(…cdef)" in str(event)


def test_what_is_no_json_is_named_and_everything_is_bounded() -> None:
    loop: list[Any] = []
    loop.append(loop)
    metadata = {
        "object": object(),
        "loop": loop,
        "nan": float("nan"),
        "huge": 10**5000,
        "long": "x" * 100_000,
        "wide": list(range(10_000)),
        "decimal": Decimal("0.10"),
        "set": {1},
        7: True,
    }
    (event,) = logged(a_record(metadata=metadata, latency=float("inf")))
    made = json.loads(to_line(event))["metadata"]
    assert (made["object"], made["nan"], made["huge"], made["decimal"], made["set"], made["7"]) == (
        "<object>",
        "nan",
        "<int>",
        "0.10",
        [1],
        True,
    )
    assert len(made["long"]) == 65_536
    assert len(made["wide"]) == 256
    assert event["latency"] is None


def test_metadata_changed_after_the_call_does_not_change_its_record() -> None:
    metadata = {"step": 1}
    events: list[Event] = []
    log = RequestLogPlugin(events.append)
    log.bifrost_call_finished(a_record(metadata=metadata), a_call())
    metadata["step"] = 2
    log._writer.stop()
    assert events[0]["metadata"] == {"step": 1}


@settings(max_examples=200)
@given(st.text())
def test_one_event_is_one_line_whatever_it_says(text: str) -> None:
    line = to_line({"text": text, text: 1})
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["text"] == (1 if text == "text" else text)


@pytest.mark.parametrize(
    "character",
    ["\n", "\r", "\x00", "\x1b", "\x7f", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\u200f", "\ud800"],
    ids=lambda value: f"U+{ord(value):04X}",
)
def test_a_character_that_could_forge_a_line_is_escaped(character: str) -> None:
    line = to_line({"text": f"a{character}b"})
    assert character not in line
    assert line.isprintable()
    assert json.loads(line) == {"text": f"a{character}b"}


# -- sinks ---------------------------------------------------------------------------------------------------------


def test_a_file_gets_one_line_per_event(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    log = RequestLogPlugin(JsonlSink(path))
    for number in range(3):
        log.bifrost_call_finished(a_record(call_id=f"c{number}"), a_call())
    log._writer.stop()
    lines = path.read_text(encoding="ascii").splitlines()
    assert [json.loads(line)["call_id"] for line in lines] == ["c0", "c1", "c2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (log.written, log.dropped, log.failed) == (3, 0, 0)


def test_a_line_that_a_crash_cut_off_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b'{"call_id": "c0"}\n{"call')
    JsonlSink(path).write_events([{"call_id": "c2"}])
    JsonlSink(path).write_events([{"call_id": "c3"}])
    assert path.read_text().splitlines() == ['{"call_id": "c0"}', '{"call', '{"call_id":"c2"}', '{"call_id":"c3"}']


def test_a_rotated_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    sink = JsonlSink(path)
    sink.write_events([{"n": 1}])
    path.rename(tmp_path / "requests.1.jsonl")
    sink.write_events([{"n": 2}])
    assert path.read_text() == '{"n":2}\n'


def test_a_file_that_is_full_is_moved_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    sink = JsonlSink(path, max_bytes=20, keep=2)
    sink.write_events([{"n": number} for number in range(7)])  # 8 bytes each, line break included: two a file
    sink.write_events([{"n": 7}])
    sink.write_events([{"long": "x" * 50}])  # a line of its own, however long
    sink.write_events([{"n": 8}])
    files = {each.name: each.read_text().split() for each in tmp_path.iterdir()}
    assert files == {
        "requests.jsonl": ['{"n":8}'],
        "requests.jsonl.1": [f'{{"long":"{"x" * 50}"}}'],
        "requests.jsonl.2": ['{"n":6}', '{"n":7}'],
    }
    assert stat.S_IMODE((tmp_path / "requests.jsonl").stat().st_mode) == 0o600


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"max_bytes": 1, "keep": 0}], ids=["no bytes", "no files"])
def test_limits_of_a_file_that_are_none_are_refused(options: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        JsonlSink(tmp_path / "requests.jsonl", **options)


def test_a_logger_gets_one_record_per_event(caplog: pytest.LogCaptureFixture) -> None:
    log = plugin()
    with caplog.at_level(logging.INFO, logger="bifrost.requests"):
        log.bifrost_call_finished(a_record(), a_call())
        log._writer.stop()
    (record,) = [each for each in caplog.records if each.name == "bifrost.requests"]
    assert json.loads(record.getMessage())["call_id"] == "c1"
    assert vars(record)["event"]["model"] == "simulated/small"


def test_a_failing_callable_costs_that_event_only(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []

    def sink(event: Event) -> None:
        if event["call_id"] == "c1":
            raise OSError("the disk said the answer")
        events.append(event["call_id"])

    log = RequestLogPlugin(sink)
    for number in range(3):
        log.bifrost_call_finished(a_record(call_id=f"c{number}"), a_call())
    log._writer.stop()
    assert events == ["c0", "c2"]
    assert (log.written, log.failed) == (2, 1)
    assert "OSError" in caplog.text
    assert "the answer" not in caplog.text


def test_a_failing_file_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RequestLogPlugin(JsonlSink(tmp_path / "missing" / "requests.jsonl"))
    log.bifrost_call_finished(a_record(), a_call())
    log._writer.stop()
    assert (log.written, log.failed) == (0, 1)
    assert "FileNotFoundError" in caplog.text


@pytest.mark.parametrize("sink", [None, "requests.jsonl", 3], ids=["none", "path", "number"])
def test_what_is_no_sink_is_refused(sink: Any) -> None:
    with pytest.raises(ConfigError):
        RequestLogPlugin(sink)


# -- never in the caller's time ------------------------------------------------------------------------------------


def test_a_slow_sink_keeps_nobody_waiting_and_loses_the_oldest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer_module, "QUEUE_SIZE", 100)
    sink = Slow()
    log = RequestLogPlugin(sink)
    log.bifrost_call_finished(a_record(call_id="first"), a_call())
    assert sink.entered.wait(5)
    began = time.perf_counter()
    for number in range(250):
        log.bifrost_call_finished(a_record(call_id=f"c{number}"), a_call())
    spent = time.perf_counter() - began
    sink.go.set()
    log._writer.stop()
    assert spent < 1.0  # the sink alone would have taken ten seconds
    assert [event["call_id"] for event in sink.events] == ["first", *(f"c{number}" for number in range(150, 250))]
    assert (log.written, log.dropped) == (101, 150)
    assert "150 records were dropped" in caplog.text


def test_a_sink_that_hangs_ends_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_SECONDS", 0.05)
    sink = Slow()
    log = RequestLogPlugin(sink)
    log.bifrost_call_finished(a_record(), a_call())
    assert sink.entered.wait(5)
    log.bifrost_call_finished(a_record(), a_call())
    thread = log._writer._thread
    began = time.perf_counter()
    log._writer.stop()
    spent = time.perf_counter() - began
    sink.go.set()
    assert thread is not None
    thread.join(5)
    assert spent < 5
    assert log.dropped == 1
    assert "did not finish" in caplog.text


def test_an_answer_does_not_wait_in_the_queue() -> None:
    sink = Slow()
    log = RequestLogPlugin(sink)
    log.bifrost_call_finished(a_record(), a_call())
    assert sink.entered.wait(5)
    tracemalloc.start()
    for _ in range(20):
        log.bifrost_call_finished(a_record(response=ChatResponse(raw={"text": "x" * 1_000_000})), a_call())
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sink.go.set()
    log._writer.stop()
    assert held < 1_000_000


def test_a_record_after_the_end_is_written_too() -> None:
    events: list[Event] = []
    log = RequestLogPlugin(events.append)
    log._writer.stop()
    for number in range(2):
        log.bifrost_call_finished(a_record(call_id=f"c{number}"), a_call())
        log._writer.stop()
    assert [event["call_id"] for event in events] == ["c0", "c1"]


def test_an_interpreter_that_ends_writes_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); from test_plugin import *;"
        "log = RequestLogPlugin(JsonlSink(sys.argv[1])); log.bifrost_call_finished(a_record(), a_call())"
    )
    subprocess.run([sys.executable, "-c", program, str(path), str(Path(__file__).parent)], check=True, timeout=60)
    assert json.loads(path.read_text())["call_id"] == "c1"


# -- in a Router ---------------------------------------------------------------------------------------------------


async def test_a_router_logs_every_call_once_and_flushes_when_it_closes(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    provider = Simulated(
        [SimulatedKey("k", faults=Fault("status", last=1))],
        prices={"small": Price(input="1", output="2")},
    )
    log = RequestLogPlugin(JsonlSink(path))
    async with Router([provider], plugins=[log], prices=PriceBook(provider.prices)) as router:
        replies = [await router.chat("simulated/small", "hello", metadata={"n": n}) for n in range(4)]
        async with router.stream("simulated/small", "hello") as stream:
            async for _ in stream:
                pass
        with pytest.raises(BifrostError):
            await router.chat("nowhere/small", "hello")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["outcome"] for event in events[:5]] == ["ok"] * 5
    assert [event["call_id"] for event in events[:4]] == [reply.call_id for reply in replies]
    assert [event["cost"] for event in events[:4]] == [format(reply.cost or 0, "f") for reply in replies]
    assert [event["metadata"] for event in events[:4]] == [{"n": n} for n in range(4)]
    assert [attempt["outcome"] for attempt in events[0]["attempts"]] == ["failed", "ok"]
    assert "hello" not in path.read_text()
    assert log.failed == 0


async def test_a_cancelled_call_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    provider = Simulated([SimulatedKey("slow", faults=Fault("hang"))])
    router = Router([provider], plugins=[RequestLogPlugin(JsonlSink(path))])
    async with router, anyio.create_task_group() as group:
        group.start_soon(router.chat, "simulated/small", "hello")
        while not provider.journal:
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    (event,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert event["outcome"] == "cancelled"
    assert [attempt["outcome"] for attempt in event["attempts"]] == ["cancelled"]


def test_a_sink_is_closed_with_the_router_and_opened_again() -> None:
    class Closing(Slow):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    sink = Closing()
    sink.go.set()
    log = RequestLogPlugin(sink)
    for _ in range(2):
        log.bifrost_call_finished(a_record(), a_call())
        log._writer.stop()
    assert (len(sink.events), sink.closed) == (2, 2)


def test_a_configuration_chooses_where_the_log_is(tmp_path: Path) -> None:
    db, file = tmp_path / "log.db", tmp_path / "log.jsonl"
    for log in (plugin(db=db), plugin(file=file)):
        log.bifrost_call_finished(a_record(), a_call())
        log._writer.stop()
    assert [[event["call_id"] for event in read_events(path)] for path in (db, file)] == [["c1"], ["c1"]]
    with pytest.raises(ConfigError):
        plugin(db=db, file=file)


def test_it_is_found_by_its_name() -> None:
    (found,) = load_plugins("request_log")
    assert isinstance(found, RequestLogPlugin)
