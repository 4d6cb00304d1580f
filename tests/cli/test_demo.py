"""``bifrost demo``, on real HTTP over loopback."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from decimal import Decimal

import pytest

from bifrost_core import Price, PriceBook
from bifrost_core.cli import main
from bifrost_core.cli.demo import MAX_TOKENS, chats, dearest, prompts
from bifrost_core.testing import Fault, SimulatedMistral

from .conftest import ONE, TWO

MODEL = "mistral/mistral-small-latest"


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the last table by the key's name."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_there_are_many_prompts_and_no_two_alike() -> None:
    assert len(prompts()) >= 40
    assert len(set(prompts())) == len(prompts())
    assert all(prompt == prompt.strip() for prompt in prompts())


def test_half_of_the_chats_are_streamed_and_a_seed_repeats_them() -> None:
    first = list(chats(300, random.Random(7)))
    assert sum(chat.stream for chat in first) == 150
    assert first == list(chats(300, random.Random(7)))
    assert first != list(chats(300, random.Random(8)))


def test_the_bound_on_the_cost_holds_for_every_prompt() -> None:
    price = PriceBook().find("mistral", "mistral-small-latest")
    assert isinstance(price, Price)
    assert price.output is not None
    bound = dearest(MODEL, 300)
    assert bound is not None
    assert Decimal(bound) > 300 * MAX_TOKENS * price.output / 1_000_000
    assert dearest("mistral/unknown", 300) is None


def test_the_simulated_demo_answers_every_call_in_plain_lines(
    no_keys: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--plain", "--calls", "24", "--concurrency", "24", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert re.fullmatch(r"[ -~\n]*", out), "nothing but printable ASCII and line breaks"
    table = rows(out)
    assert {"fast", "slow", "limited", "breaks"} < set(table)
    assert sum(int(cells[1]) for name, cells in table.items() if name not in ("", "key")) == 24
    assert "24 answered, 0 failed" in out
    assert "no caller saw an error" in out


def test_the_live_demo_uses_every_key_of_the_environment_and_counts_as_the_server_does(
    server: SimulatedMistral, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--live", "--plain", "--calls", "60", "--concurrency", "4"]) == 0
    out = capsys.readouterr().out
    table = rows(out)
    server.wait_idle()
    for name, key_id in (("MISTRAL_API_KEY", "one"), ("MISTRAL_API_KEY_2", "two")):
        assert int(table[name][1]) == server.counters[key_id].requests > 0
    assert sum(request.stream for request in server.requests) == 30
    price = PriceBook().find("mistral", "mistral-small-latest")
    assert isinstance(price, Price)
    assert price.input is not None
    assert price.output is not None
    read = sum(counters.prompt_tokens for counters in server.counters.values())
    written = sum(counters.completion_tokens for counters in server.counters.values())
    assert f"{read} input and {written} output tokens" in out
    found = re.search(r"cost ([0-9.]+) USD\.", out)
    assert found is not None
    assert Decimal(found[1]) == (read * price.input + written * price.output) / 1_000_000
    assert ONE not in out
    assert TWO not in out


def test_a_rejected_key_is_told_and_costs_no_call(server: SimulatedMistral, capsys: pytest.CaptureFixture[str]) -> None:
    server.fail("two", Fault("status", status=401, shape="B"))
    assert main(["demo", "--live", "--plain", "--calls", "20", "--concurrency", "1"]) == 0
    out = capsys.readouterr().out
    assert rows(out)["MISTRAL_API_KEY_2"][-2:] == ["1x auth", "1x auth"]
    assert "20 answered, 0 failed; 21 attempts, of which failed 1 (1x auth)" in out


def test_calls_that_fail_make_the_exit_status(server: SimulatedMistral, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("one", "two"):
        server.fail(key, Fault("truncate", after=3, stream=True))
    assert main(["demo", "--live", "--plain", "--calls", "4", "--concurrency", "1"]) == 1
    assert "2 answered, 2 failed (2x stream_truncated)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "part"),
    [
        pytest.param(["--model", "mistral/no-such-model"], 1, "no-such-model", id="unknown-model"),
        pytest.param(["--calls", "0"], 2, "--calls", id="no-calls"),
        pytest.param(["--concurrency", "many"], 2, "--concurrency", id="no-number"),
        pytest.param(["--colour"], 2, "--colour", id="unknown-option"),
    ],
)
def test_what_can_not_work_ends_at_once_with_one_line(
    arguments: list[str], status: int, part: str, server: SimulatedMistral, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--live", "--plain", *arguments]) == status
    err = capsys.readouterr().err
    assert err.startswith("bifrost")
    assert part in err
    assert err.count("\n") == 1
    assert len(server.requests) <= 16


def test_keys_that_are_all_rejected_end_the_demo_with_one_line(
    server: SimulatedMistral, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("one", "two"):
        server.fail(key, Fault("status", status=401, shape="B"))
    assert main(["demo", "--live", "--plain"]) == 1
    err = capsys.readouterr().err
    assert "401" in err or "rejected" in err
    assert err.count("\n") == 1


def test_live_without_a_key_says_which_variable_to_set(no_keys: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--live"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "bifrost: no key in the environment; set MISTRAL_API_KEY or OPENAI_API_KEY or ANTHROPIC_API_KEY\n",
    )


def test_on_a_terminal_a_table_changes_in_its_place(server: SimulatedMistral) -> None:
    pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(
        [sys.executable, "-m", "bifrost_core", "demo", "--live", "--calls", "30"],
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side is closed
                break
            if not data:
                break
            seen += data
    os.close(ours)
    text = seen.decode()
    assert process.returncode == 0
    assert "\x1b[?25l" in text, "the cursor is hidden while the table changes"
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"), "and comes back"
    assert "of 30 calls" in text
    assert "p95" in text
    assert "30 answered, 0 failed" in text
