"""What the documentation promises is run: every block of code, every command of ours, every table of names."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import tomllib
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bifrost_core import Mistral
from bifrost_core.cli import main
from bifrost_core.hookspecs import HOOKS
from bifrost_core.testing import SimulatedKey, SimulatedMistral
from bifrost_core.testing.plugins import check_plugin

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "plugins" / "README.md")
KEYS = {"MISTRAL_API_KEY": "sk-simulated-env-1", "MISTRAL_API_KEY_2": "sk-simulated-env-2"}
VENV = re.compile(r"python3 -m venv \.venv && \.venv/bin/pip install --quiet (?:-e )?'\.\[(\w+)\]' && \S.*")


def blocks(language: str) -> list[Any]:
    """The code blocks of a language on every page, by page and line."""
    found: list[Any] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 2
            name = f"{page.relative_to(ROOT)}:{line}"
            found.append(pytest.param(match[1], name, id=name))
    return found


def commands() -> list[str]:
    return [line for block in blocks("console") for line in block.values[0].splitlines()]


def _write_media(folder: Path) -> None:
    """The files that a reader would have: three seconds of silence and two empty pages."""
    with wave.open(str(folder / "talk.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
        sound.writeframes(bytes(3 * 2 * 16_000))
    page = b"1 0 obj << /Type /Page >> endobj\n"
    (folder / "saga.pdf").write_bytes(b"%PDF-1.7\n" + page * 2 + b"%%EOF\n")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedMistral]:
    """The world as the reader's, except that Mistral is on this machine."""
    with SimulatedMistral([SimulatedKey(secret, id=name) for name, secret in KEYS.items()]) as server:
        defaults = Mistral.__init__.__kwdefaults__
        assert defaults is not None
        monkeypatch.setitem(defaults, "base_url", server.base_url)
        monkeypatch.setenv("MISTRAL_BASE_URL", server.base_url)
        for name, secret in KEYS.items():
            monkeypatch.setenv(name, secret)
        monkeypatch.chdir(tmp_path)
        _write_media(tmp_path)
        yield server


@pytest.mark.parametrize(("source", "name"), blocks("python"))
def test_a_block_of_python_runs_and_shows_something(
    source: str, name: str, world: SimulatedMistral, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _, line = name.partition(":")
    code = compile("\n" * (int(line) - 1) + source, str(ROOT / path), "exec", dont_inherit=True)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)  # the point
    out, err = capsys.readouterr()
    assert err == ""
    if not out:  # then it defines a plugin
        made = [value for value in names.values() if inspect.isclass(value) and value.__module__ == "__main__"]
        assert [check_plugin(object.__new__(each)) for each in made] != []


def test_the_first_block_is_answered_by_the_provider_and_logged(
    world: SimulatedMistral, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = blocks("python")[0].values[0]
    exec(compile(source, "README.md", "exec", dont_inherit=True), {"__name__": "__main__"})
    (request,) = world.requests
    assert f"input_tokens={request.prompt_tokens}" in capsys.readouterr().out
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(("source", "name"), blocks("toml"))
def test_a_block_of_toml_is_valid(source: str, name: str) -> None:
    assert tomllib.loads(source)


def test_no_block_is_in_a_language_that_nothing_checks() -> None:
    for page in PAGES:
        opened = re.findall(r"^```(\w*)$", page.read_text(encoding="utf-8"), re.MULTILINE)[::2]
        assert set(opened) <= {"python", "console", "text", "toml"}


# Commands.


@pytest.mark.parametrize("command", [pytest.param(line, id=line[-40:]) for line in commands() if "bifrost" in line])
def test_a_command_of_ours_runs(command: str, world: SimulatedMistral, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = shlex.split(command.rpartition(" && ")[2])
    assert program == ".venv/bin/bifrost"
    if arguments[0] == "demo":
        arguments += ["--plain", "--calls", "12"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    if arguments == ["demo", "--plain", "--calls", "12"]:
        headings = [line.split() for line in out.splitlines() if line.startswith("| key")]
        shown = [line.split() for line in PAGES[0].read_text(encoding="utf-8").splitlines() if line[:5] == "| key"]
        assert headings == shown, "the table in the README is of another version"
    assert out.strip()


def test_the_two_commands_work_alone_with_what_is_declared() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    starting = [command for command in commands() if command.startswith("python3 ")]
    found = [VENV.fullmatch(command) for command in starting]
    assert all(found)
    assert [match[1] for match in found if match] == ["cli", "test"]
    assert {"cli", "test", "lint"} <= set(extras)


def test_ci_finds_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"grep -E '([^']+)' README\.md", script)
    assert pattern is not None
    lines = PAGES[0].read_text(encoding="utf-8").splitlines()
    (command,) = [line for line in lines if re.search(pattern[1], line)]
    assert command.endswith(".venv/bin/python -m pytest")


# Names.


def test_every_hook_stands_in_the_guide_with_its_arguments_and_its_rule() -> None:
    guide = PAGES[1].read_text(encoding="utf-8")
    told = re.findall(r"`(bifrost_\w+)\(([\w, ]*)\)`(?: \| |[^(]*\()([^|)]*)", guide)
    assert sorted({name for name, _, _ in told}) == sorted(HOOKS)
    for name, arguments, rule in told:
        hook = HOOKS[name]
        assert tuple(arguments.split(", ")) == hook.arguments, name
        assert rule.split(",")[0].strip() == hook.rule, name
        assert ("`def` only" in " ".join(rule.split()) or "`def`\nonly" in rule) is not hook.is_async, name


def test_the_phases_stand_in_the_guide_in_the_order_of_a_call() -> None:
    rows = re.findall(r"^\| `(bifrost_\w+)\(", PAGES[1].read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [name for name in HOOKS if name in rows]


def test_every_plugin_that_ships_stands_in_the_guide() -> None:
    package = ROOT / "plugins" / "bifrost_plugins"
    shipped = {
        path.stem for path in package.iterdir() if not path.name.startswith(("_", ".")) and path.suffix != ".typed"
    }
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)\(([^)]*)\)`", PAGES[1].read_text(encoding="utf-8"), re.MULTILINE)
    assert {module for module, _, _ in rows} == shipped
    for module, name, arguments in rows:
        plugin = getattr(importlib.import_module(f"bifrost_plugins.{module}"), name)
        shown = [part.split("=")[0].strip() for part in arguments.split(",") if part.strip() != "*"]
        known = list(inspect.signature(plugin).parameters)
        if shown[-1:] == ["…"]:  # and more, which its docstring tells
            assert set(shown[:-1]) < set(known), name
        else:
            assert shown == known, name


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
