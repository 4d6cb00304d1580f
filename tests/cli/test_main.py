"""The program itself: how it starts, what it needs, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points, version

import pytest

from bifrost_core.cli import main
from bifrost_core.testing import SimulatedMistral


def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    how = ["-m", "bifrost_core"] if code is None else ["-c", code]
    return subprocess.run([sys.executable, *how, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_package_can_be_run_as_a_program() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"bifrost, version {version('bifrost-core')}\n", "")


def test_the_script_is_the_same_function() -> None:
    (script,) = entry_points(group="console_scripts", name="bifrost")
    assert script.load() is main


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_one_line_says_what_to_install(missing: str) -> None:
    done = run(
        "demo",
        code=f"import sys; sys.modules[{missing!r}] = None; from bifrost_core.cli import main; sys.exit(main())",
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"bifrost: {missing} is not installed; run: pip install 'bifrost-core[cli]'\n"


def test_a_module_that_is_missing_for_another_reason_is_not_blamed_on_the_extra() -> None:
    done = run(
        "demo", code="import sys; sys.modules['anyio'] = None; from bifrost_core.cli import main; sys.exit(main())"
    )
    assert done.returncode == 1
    assert "bifrost-core[cli]" not in done.stderr
    assert "anyio" in done.stderr


def test_neither_click_nor_rich_is_imported_before_a_command_runs() -> None:
    done = run(code="import sys, bifrost_core.cli; print({'click', 'rich'} & set(sys.modules))")
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=["none", "long", "short"])
def test_help_lists_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "chat" in out
    assert "demo" in out


@pytest.mark.parametrize("command", ["chat", "demo"])
def test_every_command_has_help_that_names_the_variables(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "MISTRAL_API_KEY" in out
    assert "MISTRAL_BASE_URL" in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(["paint"], "bifrost: No such command 'paint'. (bifrost --help shows how)\n", id="command"),
        pytest.param(
            ["chat"], "bifrost chat: Missing argument 'PROMPT'. (bifrost chat --help shows how)\n", id="no-prompt"
        ),
        pytest.param(["chat", " "], "bifrost chat: the prompt is empty (bifrost chat --help shows how)\n", id="empty"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", line)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT goes to a whole console there")
def test_an_interrupt_ends_the_demo_with_the_totals_so_far() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bifrost_core", "demo", "--plain", "--calls", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline() for _ in range(3)]  # the heading, the start, one second later
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        errors = process.stderr.read()
    assert " of 1000 calls, 0 failed; fast " in lines[2]
    assert process.returncode == 130
    assert errors.strip() == "bifrost: interrupted"
    assert " cancelled; " in rest
    assert "0 failed" in rest


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently there")
def test_a_reader_that_has_left_ends_it_quietly(server: SimulatedMistral) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "bifrost_core", "chat", "hello"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
