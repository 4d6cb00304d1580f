"""What the demo counts, with an attempt and a clock made for it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bifrost_core import Attempt, CallRecord, Kind, Operation, Router, RouteRef, SyncRouter, Usage
from bifrost_core.balancing import KeySnapshot
from bifrost_core.cli.display import story
from bifrost_core.cli.scoreboard import Outage, Rest, Scoreboard, percentile
from bifrost_core.health import RouteHealth
from bifrost_core.providers.mistral import Mistral
from bifrost_core.testing import FakeClock, SimulatedMistral
from bifrost_core.testing.plugins import check_plugin

ROUTES = {key_id: RouteRef("mistral", "mistral-small-latest", key_id) for key_id in ("one", "two")}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=100.0)


@pytest.fixture
def board(clock: FakeClock) -> Scoreboard:
    return Scoreboard(["one", "two"], clock=clock)


def finish(board: Scoreboard, key_id: str, *, kind: Kind | None = None, latency: float = 0.0) -> None:
    outcome = "ok" if kind is None else "failed"
    board.bifrost_attempt_finished(Attempt("a", ROUTES[key_id], outcome=outcome, kind=kind, latency=latency))


def end(board: Scoreboard, outcome: str, *, cost: str | None = "0", kind: Kind | None = None) -> None:
    board.bifrost_call_finished(
        CallRecord(
            call_id="c",
            operation=Operation.CHAT,
            model="mistral/mistral-small-latest",
            principal=None,
            outcome=outcome,
            kind=kind,
            response=None,
            error=None,
            attempts=(),
            usage=Usage(input_tokens=3, output_tokens=4),
            cost=None if cost is None else Decimal(cost),
            cached=False,
            started_at=0.0,
            latency=1.0,
            time_to_first_token=None,
            metadata={},
        )
    )


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        pytest.param([], 0.5, None, id="nothing"),
        pytest.param([3.0], 0.95, 3.0, id="one"),
        pytest.param([4.0, 1.0, 3.0, 2.0], 0.5, 2.0, id="median-of-four"),
        pytest.param([float(n) for n in range(100, 0, -1)], 0.95, 95.0, id="p95-of-a-hundred"),
        pytest.param([1.0, 2.0], 0.0, 1.0, id="least"),
        pytest.param([1.0, 2.0], 1.0, 2.0, id="greatest"),
    ],
)
def test_a_percentile_is_a_value_that_occurred(values: list[float], part: float, expected: float | None) -> None:
    assert percentile(values, part) == expected


def test_it_is_a_plugin_with_two_hooks(board: Scoreboard) -> None:
    assert check_plugin(board) == ["bifrost_attempt_finished", "bifrost_call_finished"]


def test_answers_and_errors_are_counted_per_key(board: Scoreboard) -> None:
    finish(board, "one", latency=0.4)
    finish(board, "one", latency=0.2)
    finish(board, "two", kind=Kind.RATE_LIMITED)
    assert (board.keys["one"].answers, board.keys["one"].latencies) == (2, [0.4, 0.2])
    assert dict(board.keys["two"].errors) == {"rate_limited": 1}
    assert (board.answers, dict(board.errors)) == (2, {"rate_limited": 1})


def test_a_cancelled_attempt_is_neither_an_answer_nor_an_error(board: Scoreboard) -> None:
    board.bifrost_attempt_finished(Attempt("a", ROUTES["one"], outcome="cancelled", kind=Kind.CANCELLED))
    assert (board.answers, board.errors.total()) == (0, 0)


def test_calls_are_summed_with_exact_costs(board: Scoreboard) -> None:
    for _ in range(10):
        end(board, "ok", cost="0.1")
    end(board, "failed", kind=Kind.SERVER_ERROR, cost=None)
    end(board, "cancelled", kind=Kind.CANCELLED)
    assert board.cost == Decimal("1.0")
    assert (board.calls, board.failed, board.unpriced) == (12, 1, 1)
    assert dict(board.failures) == {"server_error": 1}
    assert board.usage == Usage(input_tokens=36, output_tokens=48)


def test_only_the_last_five_seconds_are_recent(board: Scoreboard, clock: FakeClock) -> None:
    finish(board, "one")
    clock.advance(3.0)
    finish(board, "one")
    assert board.keys["one"].recent(board.elapsed) == 2
    clock.advance(2.5)
    assert board.keys["one"].recent(board.elapsed) == 1


def test_an_outage_lasts_until_an_answer_that_was_asked_for_later(board: Scoreboard, clock: FakeClock) -> None:
    score = board.keys["one"]
    for _ in range(3):
        clock.advance(1.0)
        finish(board, "one", kind=Kind.SERVER_ERROR)
    clock.advance(0.5)
    finish(board, "one", latency=2.0)  # asked for before the last failure: says nothing about now
    assert score.worst is not None
    assert score.worst.ended is None
    clock.advance(3.0)
    finish(board, "one", latency=1.0)
    (outage,) = score.outages
    assert (outage.began, outage.last, outage.failures, outage.kind) == (1.0, 3.0, 3, "server_error")
    assert outage.ended == pytest.approx(5.5)
    assert score.worst is outage


@pytest.mark.parametrize("kind", [Kind.RATE_LIMITED, Kind.INVALID_REQUEST, Kind.MODEL_OVERLOADED])
def test_a_refusal_is_no_outage(kind: Kind, board: Scoreboard) -> None:
    for _ in range(5):
        finish(board, "one", kind=kind)
    assert board.keys["one"].outages == []


def test_a_rest_is_counted_once_and_shown_with_its_reason(board: Scoreboard) -> None:
    route, other = ROUTES["one"], ROUTES["two"]
    finish(board, "two", kind=Kind.CONNECTION_LOST)
    for seconds in (3.0, 2.0):
        board.watch(
            [RouteHealth(route, "open", seconds, Kind.RATE_LIMITED, in_flight=2), RouteHealth(other)],
            [KeySnapshot(key_id="two", weight=1.0, in_flight=0, share=0.5, rest=seconds, reason="failing")],
        )
    assert board.keys["one"].rest == Rest(2.0, "rate_limited")
    assert board.keys["one"].in_flight == 2
    assert board.keys["two"].rest == Rest(2.0, "connection_lost")
    board.watch([RouteHealth(route), RouteHealth(other)], [])
    assert [score.rest for score in board.keys.values()] == [None, None]
    assert [dict(score.rests) for score in board.keys.values()] == [{"rate_limited": 1}, {"connection_lost": 1}]


def test_the_clock_stands_still_after_the_end(board: Scoreboard, clock: FakeClock) -> None:
    clock.advance(2.0)
    board.stop()
    clock.advance(5.0)
    board.stop()
    assert board.elapsed == 2.0


def test_the_story_tells_who_answered_who_broke_and_who_saw_it(board: Scoreboard) -> None:
    assert story(board) == "No key gave an answer."
    for _ in range(3):
        finish(board, "one")
    finish(board, "two")
    board.keys["two"].outages.append(Outage(1.0, 2.0, "server_error", failures=4, ended=3.5))
    end(board, "ok")
    assert story(board) == (
        "one gave 75% of the answers; two broke at 1.0 s (server_error), failed 4 attempts and was back at 3.5 s; "
        "no caller saw an error."
    )
    board.keys["two"].outages[0].ended = None
    end(board, "failed", kind=Kind.SERVER_ERROR)
    assert story(board).endswith("failed 4 attempts and had not come back at the end; 1 of 2 calls failed.")


def test_it_agrees_with_what_the_server_saw() -> None:
    board = Scoreboard([])
    with SimulatedMistral(["sk-simulated-1"]) as server:
        router = Router([Mistral(["sk-simulated-1"], base_url=server.base_url)], plugins=[board])
        with SyncRouter.of(router) as blocking:
            for _ in range(3):
                blocking.chat("mistral/mistral-small-latest", "hello")
            with blocking.stream("mistral/mistral-small-latest", "hello") as stream:
                assert "".join(stream.text())
        server.wait_idle()
        (counters,) = server.counters.values()
    (score,) = board.keys.values()
    assert (score.answers, len(score.first_tokens), board.calls) == (counters.requests, 1, 4)
    assert board.usage.input_tokens == counters.prompt_tokens
    assert board.usage.output_tokens == counters.completion_tokens
