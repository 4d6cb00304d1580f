"""The benchmark runs, tiny, and says what it measured."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import pytest

from benchmarks.canned import PLAIN, TEXT, stream_events, stream_text
from benchmarks.overhead import stages
from benchmarks.overhead.__main__ import main
from benchmarks.overhead.dialects import installed_dialects
from benchmarks.overhead.rounds import Figure, Plan, Spread, Turn, compared, measure, percentile
from benchmarks.overhead.server import canned_server
from benchmarks.overhead.table import goals, tables
from benchmarks.overhead.targets import Target, Way, WayEntry
from benchmarks.overhead.ways import installed_ways

ROOT = Path(__file__).parents[2]
TINY = ["--calls", "4", "--streams", "2", "--tokens", "30", "--rounds", "1", "--concurrency", "1", "2", "--keys", "2"]
HTTPX = ["httpx.AsyncClient", "httpx.AsyncClient, no limits", "Router on httpx", "Router on httpx, 2 plugins"]


def rows(out: str) -> list[list[str]]:
    """The cells of every row of every table, without heads."""
    lines = [
        line for line in out.splitlines() if line.startswith("|") and not line.startswith(("| in", "| stage", "|-"))
    ]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def figure(way: str, *, mode: str = "plain", in_flight: int = 1, cpu: float = 1.0, rate: float = 1.0) -> Figure:
    one = Spread(1.0, 1.0, 1.0)
    return Figure(
        mode, in_flight, way, "base", one, one, Spread(cpu, cpu, cpu), Spread(rate, rate, rate), 1.0, 2.0, 9.0, None
    )


# The program.


def test_there_is_a_row_per_mode_concurrency_and_way(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main([*TINY, "--only", "on httpx", "--json", str(tmp_path / "out.json")])
    out = capsys.readouterr().out
    expected = [entry.name for entry in installed_ways(["on httpx"])]
    assert expected[:3] == ["httpx.AsyncClient", "Router on httpx", "Router on httpx, 2 plugins"]
    found = rows(out)
    assert [(row[0], row[1]) for row in found] == [(level, way) for level in "12" for way in expected] * 2
    assert {len(row) for row in found[: len(found) // 2]} == {9}  # plain
    assert {len(row) for row in found[len(found) // 2 :]} == {10}  # streams, with the calls per chunk
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [(f["mode"], str(f["in_flight"]), f["way"]) for f in written["figures"]] == [
        (mode, level, way) for mode in ("plain", "stream") for level in "12" for way in expected
    ]
    assert all(f["cpu"]["median"] > 0 and 0 < f["p50"] <= f["p99"] for f in written["figures"])
    assert all(f["python_calls"] > 100 for f in written["figures"])
    assert all((f["per_chunk"] is None) == (f["mode"] == "plain") for f in written["figures"])
    assert "Router on httpx, plain, 1 in flight: CPU" in out


def test_sdks_through_the_router_stand_beside_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TINY, "--dialects"])
    expected = [entry for entry in installed_dialects() if entry.base != entry.name]
    assert [entry.name for entry in expected][:2] == ["Router's transport", "Router's HTTP client"]
    found = rows(capsys.readouterr().out)
    assert [row[:3] + row[4:5] for row in found if row[0] != "mode"] == [
        [mode, level, entry.base, entry.name] for mode in ("plain", "stream") for level in "12" for entry in expected
    ]
    assert all(float(row[3]) > 0 and float(row[5]) > 0 and float(row[8]) > 0 for row in found if row[0] != "mode")


@pytest.mark.parametrize(("flag", "title"), [("--plain", "Plain calls"), ("--stream", "Streams")])
def test_one_mode_can_be_asked_for(flag: str, title: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([*TINY, flag, "--only", "no limits", "--pace", "0.0001"])
    out = capsys.readouterr().out
    assert [line.partition(":")[0] for line in out.splitlines() if "ratio =" in line] == [title]
    assert {row[1] for row in rows(out)} >= set(HTTPX[:2])


def test_a_way_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*TINY, "--only", "carrier pigeon"])
    assert "nothing that is installed is called carrier pigeon" in capsys.readouterr().err


def test_stages_have_a_row_each_and_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--stages", "--calls", "4", "--rounds", "2", "--keys", "2"])
    found = rows(capsys.readouterr().out)
    assert [row[0] for row in found] == [*stages.STAGES, "all", "slowed by telling"]
    *parts, whole, _ = found
    for column in range(1, len(whole)):
        total = sum(float(row[column].split()[0]) for row in parts)
        assert total == pytest.approx(float(whole[column]), abs=0.1 * len(parts))
    assert [row[1] for row in found if row[0] == "hooks"] == ["0.0 (0%)"]  # nobody implements one
    assert all(float(row[1].split()[0]) > 0 for row in parts if row[0] != "hooks")
    assert all(float(row[2].split()[0]) > 0 for row in parts)  # with a plugin in every phase


def test_a_stage_is_told_only_while_it_is_measured() -> None:
    before = [getattr(owner, name) for owner, name, _ in stages.FUNCTIONS]
    with canned_server() as url:
        anyio.run(lambda: stages.measure(Target(url, ["sk-simulated-1"]), calls=1, rounds=1))
    assert [getattr(owner, name) for owner, name, _ in stages.FUNCTIONS] == before


def test_the_picture_is_a_small_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    main([*TINY, "--only", "on httpx", "--plot", str(tmp_path / "out.png")])
    capsys.readouterr()
    data = (tmp_path / "out.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(data) < 150_000


# What is measured, and what is said about it.


@asynccontextmanager
async def told(target: Target) -> AsyncGenerator[Way]:
    """A way that knows the answers."""

    async def plain() -> str:
        return TEXT

    async def stream(tokens: int) -> str:
        return stream_text(tokens)

    yield Way(plain, stream)


def test_a_ratio_is_against_the_base_in_the_same_round() -> None:
    """Rounds that are slow for everybody do not move it."""
    turns = {
        "base": [Turn(1.0, 8.0, [0.1]), Turn(2.0, 4.0, [0.2]), Turn(4.0, 2.0, [0.4])],
        "own": [Turn(2.0, 4.0, [0.3]), Turn(4.0, 2.0, [0.5]), Turn(8.0, 1.0, [0.7])],
    }
    found = compared("plain", 8, WayEntry("own", "base", (), told), turns, python_calls=5.0, per_chunk=None)
    assert found == Figure(
        "plain",
        8,
        "own",
        "base",
        cpu=Spread(4.0, 3.0, 6.0),
        rate=Spread(2.0, 1.5, 3.0),
        cpu_ratio=Spread(2.0, 2.0, 2.0),
        rate_ratio=Spread(0.5, 0.5, 0.5),
        p50=500.0,
        p99=700.0,
        python_calls=5.0,
        per_chunk=None,
    )


def test_every_way_has_its_turn_at_every_concurrency() -> None:
    entries = [WayEntry(name, "base", (), told) for name in ("base", "other")]
    plan = Plan(calls=6, streams=3, tokens=5, rounds=1, in_flight=[1, 4], seconds=5.0)
    figures = anyio.run(measure, entries, Target("", ["k"]), plan, ["plain", "stream"], lambda _: None)
    assert [(f.mode, f.in_flight, f.way) for f in figures] == [
        (mode, level, way) for mode in ("plain", "stream") for level in (1, 4) for way in ("base", "other")
    ]


def test_a_way_that_is_too_slow_for_so_many_in_flight_has_no_figure_there() -> None:
    @asynccontextmanager
    async def slow(target: Target) -> AsyncGenerator[Way]:
        async def plain() -> str:
            end = time.process_time() + 0.02
            while time.process_time() < end:
                await anyio.lowlevel.checkpoint()
            return TEXT

        async def stream(tokens: int) -> str:
            return stream_text(tokens)

        yield Way(plain, stream)

    entries = [WayEntry("base", "base", (), told), WayEntry("slow", "base", (), slow)]
    plan = Plan(calls=1, streams=1, tokens=5, rounds=1, in_flight=[1, 1000], seconds=0.02)
    figures = anyio.run(measure, entries, Target("", ["k"]), plan, ["plain"], lambda _: None)
    assert [(f.in_flight, f.way) for f in figures] == [(1, "base"), (1, "slow"), (1000, "base")]


def test_a_way_that_fails_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    @asynccontextmanager
    async def failing(target: Target) -> AsyncGenerator[Way]:
        asked = 0

        async def plain() -> str:
            nonlocal asked
            asked += 1
            if asked > 12:
                raise ConnectionError
            return TEXT

        async def stream(tokens: int) -> str:
            return stream_text(tokens)

        yield Way(plain, stream)

    entries = [WayEntry(name, "base", (), told if name == "base" else failing) for name in ("base", "worn out")]
    plan = Plan(calls=2, streams=1, tokens=5, rounds=2, in_flight=[1, 4], seconds=5.0)
    figures = anyio.run(measure, entries, Target("", ["k"]), plan, ["plain"], lambda _: None)
    assert [(f.in_flight, f.way) for f in figures] == [(1, "base"), (1, "worn out"), (4, "base")]
    assert [record.getMessage() for record in caplog.records] == [
        "worn out, plain, 4 in flight: left out, ConnectionError"
    ]


def test_a_base_that_fails_ends_it() -> None:
    @asynccontextmanager
    async def failing(target: Target) -> AsyncGenerator[Way]:
        answers = iter([TEXT] * 4)

        async def plain() -> str:
            return next(answers)

        async def stream(tokens: int) -> str:
            return stream_text(tokens)

        yield Way(plain, stream)

    plan = Plan(calls=2, streams=1, tokens=5, rounds=2, in_flight=[1], seconds=5.0)
    with pytest.raises(ExceptionGroup):
        anyio.run(measure, [WayEntry("base", "base", (), failing)], Target("", ["k"]), plan, ["plain"], lambda _: None)


def test_a_way_that_reads_something_else_is_not_measured() -> None:
    @asynccontextmanager
    async def opened(target: Target) -> AsyncGenerator[Way]:
        async def plain() -> str:
            return TEXT[1:]

        async def stream(tokens: int) -> str:
            return ""

        yield Way(plain, stream)

    plan = Plan(calls=1, streams=1, tokens=5, rounds=1, in_flight=[1], seconds=1.0)
    with pytest.raises(ValueError, match="the figures would mean nothing"):
        anyio.run(measure, [WayEntry("x", "x", (), opened)], Target("", ["k"]), plan, ["plain"], lambda _: None)


@pytest.mark.parametrize(
    ("share", "expected"),
    [pytest.param(0.5, 50, id="median"), pytest.param(0.99, 99, id="p99"), pytest.param(0.0, 1, id="least")],
)
def test_a_percentile_is_a_value_that_was_seen(share: float, expected: int) -> None:
    assert percentile(list(range(1, 101)), share) == expected
    assert percentile([7], share) == 7


def test_a_spread_is_the_median_between_the_quartiles() -> None:
    assert Spread.of([4.0]) == Spread(4.0, 4.0, 4.0)
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0)


def test_goals_are_judged_by_the_median() -> None:
    judged = goals(
        [
            figure("plain client", cpu=9.0),
            figure("Router on x", cpu=0.85),
            figure("Router on x", cpu=0.86),
            figure("Router on x, 6 plugins", cpu=1.0),
            figure("Router on aiohttp", cpu=1.51),
            figure("Router on x", mode="stream", cpu=1.16),
            figure("Router on x", in_flight=8, rate=0.5),
            figure("Router on x", in_flight=32, rate=1.01),
            figure("Router on x", in_flight=256, rate=1.0),
            figure("Router on httpx", in_flight=32, rate=3.0),
            figure("Router on httpx", in_flight=256, rate=8.1),
            figure("Router on aiohttp", in_flight=256, rate=0.1),
        ]
    )
    assert [line.rpartition(" ")[2] for line in judged.splitlines()] == [
        "kept", "MISSED", "kept", "MISSED", "MISSED", "kept", "MISSED", "MISSED", "kept"
    ]  # fmt: skip


def test_a_table_says_ratio_and_spread() -> None:
    shown = rows(tables([figure("way", cpu=0.5, rate=2.0)]))
    assert shown == [["1", "way", "1", "0.50 (0.50-0.50)", "1", "2.00 (2.00-2.00)", "1.00", "2.00", "9"]]


# The server.


def ask(url: str, body: bytes, cuts: tuple[int, ...] = ()) -> bytes:
    """The raw answer to a request that is sent in pieces, on a connection of its own."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    received = bytearray()
    with socket.create_connection((host, port), timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in zip((0, *cuts), (*cuts, len(request)), strict=True):
            sock.sendall(request[start:end])
        while not received.endswith((PLAIN, b"0\r\n\r\n")):
            data = sock.recv(65536)
            assert data, received
            received += data
    return bytes(received)


@pytest.mark.parametrize("cuts", [(), (10,), (70, 80, 90)], ids=["whole", "in the head", "in pieces"])
def test_a_plain_request_is_answered_however_it_arrives(cuts: tuple[int, ...]) -> None:
    with canned_server() as url:
        head, _, body = ask(url, b'{"model": "x", "stream": false}', cuts).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: %d" % len(PLAIN) in head
    assert body == PLAIN


@pytest.mark.parametrize("pace", [0.0, 0.0001], ids=["burst", "paced"])
def test_a_stream_has_an_http_chunk_per_event(pace: float) -> None:
    with canned_server(pace=pace) as url:
        _, _, body = ask(url, b'{"stream":true,"max_tokens":7}').partition(b"\r\n\r\n")
    assert body == b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in stream_events(7)) + b"0\r\n\r\n"


def test_an_answer_that_is_larger_than_the_sockets_take_is_written_whole() -> None:
    with canned_server() as url:
        body = ask(url, b'{"stream":true,"max_tokens":30000}')
    assert len(body) > 4_000_000
    assert body.count(b"data: {") == 30_002


def test_the_server_does_not_outlive_who_started_it() -> None:
    program = "import time\nfrom benchmarks.overhead.server import canned_server\nwith canned_server() as url:\n    print(url, flush=True)\n    time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert ask(url, b"{}").endswith(PLAIN)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for _ in range(500):
        try:
            ask(url, b"{}")
        except (ConnectionError, AssertionError):
            break
        time.sleep(0.01)
    else:
        pytest.fail("the server still answers")
