"""``bifrost chat``, on real HTTP over loopback."""

from __future__ import annotations

import io
import json
import sys

import pytest

from bifrost_core.cli import main
from bifrost_core.testing import Fault, SimulatedMistral

from .conftest import ONE, TWO

QUESTION = "What is the name of the bridge?"


def test_the_answer_is_printed_and_nothing_else(server: SimulatedMistral, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", QUESTION]) == 0
    out, err = capsys.readouterr()
    (request,) = server.requests
    assert request.stream
    assert err == ""
    assert out.endswith(".\n")
    assert out.count("\n") == 1
    assert request.body is not None
    assert json.loads(request.body)["messages"] == [{"role": "user", "content": QUESTION}]


def test_the_answer_is_written_while_it_comes(server: SimulatedMistral, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Screen())
    assert main(["chat", QUESTION]) == 0
    assert len([text for text in written if text.strip()]) > 3


def test_a_system_prompt_comes_first_and_the_prompt_may_come_from_standard_input(
    server: SimulatedMistral, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Where is it?\n"))
    assert main(["chat", "--system", "Be brief.", "-", "--model", "mistral/ministral-8b-latest"]) == 0
    (request,) = server.requests
    assert request.body is not None
    body = json.loads(request.body)
    assert body["model"] == "ministral-8b-latest"
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where is it?\n"},
    ]


def test_verbose_says_which_key_answered_and_for_how_much(
    server: SimulatedMistral, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "-v", QUESTION]) == 0
    (request,) = server.requests
    err = capsys.readouterr().err
    name = {"one": "MISTRAL_API_KEY", "two": "MISTRAL_API_KEY_2"}[request.key_id or ""]
    assert f"on {name}: " in err
    assert f"{request.prompt_tokens} + {request.completion_tokens} tokens, cost 0.0000" in err
    assert err.count("\n") == 1
    assert ONE not in err
    assert TWO not in err


def test_a_key_that_fails_is_not_the_callers_matter(
    server: SimulatedMistral, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fail("one", Fault("status", status=401, shape="B"))
    for _ in range(6):
        assert main(["chat", QUESTION]) == 0
    assert capsys.readouterr().err == ""


def test_a_stream_that_breaks_shows_what_there_was_and_then_one_line(
    server: SimulatedMistral, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("one", "two"):
        server.fail(key, Fault("reset", after=5))
    assert main(["chat", QUESTION]) == 1
    out, err = capsys.readouterr()
    assert out.strip()
    assert out.endswith("\n")
    assert err.startswith("bifrost: ")
    assert err.count("\n") == 1


def test_without_a_key_one_line_says_which_variable_to_set(no_keys: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "hello"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "bifrost: no key in the environment; set MISTRAL_API_KEY or OPENAI_API_KEY or ANTHROPIC_API_KEY\n",
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        pytest.param(["--model", "mistral/no-such-model"], "no-such-model", id="unknown-model"),
        pytest.param(["--model", "nobody/model"], "nobody/model", id="unknown-provider"),
        pytest.param(["--base-url", "http://127.0.0.1:9"], "mistral can not be reached", id="nobody-listens"),
        pytest.param(["--base-url", "http://example.com"], "http", id="unencrypted"),
    ],
)
def test_an_error_is_one_line_without_a_secret(
    arguments: list[str], part: str, server: SimulatedMistral, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "hello", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("bifrost: ")
    assert part in err
    assert err.count("\n") == 1
    assert ONE not in err
    assert TWO not in err


def test_a_key_that_can_not_be_one_is_named_and_not_shown(
    no_keys: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "copied with a space")
    assert main(["chat", "hello"]) == 1
    err = capsys.readouterr().err
    assert "MISTRAL_API_KEY" in err
    assert "copied" not in err


@pytest.mark.parametrize("place", ["before", "after"])
def test_debug_shows_the_traceback(place: str, server: SimulatedMistral) -> None:
    arguments = ["chat", "hello", "--model", "nobody/model"]
    with pytest.raises(Exception, match="nobody/model"):
        main(["--debug", *arguments] if place == "before" else [*arguments, "--debug"])


class Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("screen", "expected"),
    [
        pytest.param(Terminal(), "calm[2J and\n\ttabbed\n", id="terminal"),
        pytest.param(io.StringIO(), "calm\x1b[2J\x9b\x07 and\n\ttabbed\n", id="pipe"),
    ],
)
def test_an_answer_can_not_steer_a_terminal(
    screen: io.StringIO, expected: str, monkeypatch: pytest.MonkeyPatch, no_keys: None
) -> None:
    with SimulatedMistral([ONE], answer=lambda _: "calm\x1b[2J\x9b\x07 and\n\ttabbed") as server:
        monkeypatch.setenv("MISTRAL_API_KEY", ONE)
        monkeypatch.setattr(sys, "stdout", screen)
        assert main(["chat", "hello", "--base-url", server.base_url]) == 0
    assert screen.getvalue() == expected


def test_a_model_of_another_provider_wants_that_providers_key(
    server: SimulatedMistral, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "--model", "openai/gpt-4.1-mini", "hello"]) == 1
    assert capsys.readouterr().err == (
        "bifrost: no key for openai/gpt-4.1-mini in the environment; set OPENAI_API_KEY\n"
    )
