"""What the documentation promises is run: every block of code, every command of ours, every table of names."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
import wave
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bifrost_core import Mistral, hookspecs
from bifrost_core.cli import main
from bifrost_core.hooks.options import POLICIES
from bifrost_core.hookspecs import HOOKS
from bifrost_core.kinds import FACTS, Kind
from bifrost_core.testing import SimulatedKey, SimulatedMistral, check_plugin

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "plugins" / "README.md")
FILE = re.compile(r"# (\w+)\.py\n")  # the first line of a block that the reader is to put into a file
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


def files() -> dict[str, str]:
    """The blocks that are files, by the module's name."""
    found = [(FILE.match(block.values[0]), block.values[0]) for block in blocks("python")]
    return {match[1]: source for match, source in found if match}


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


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """The files that the pages have the reader write, to be imported."""
    for name, source in files().items():
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield files()
    for name in files():
        sys.modules.pop(name, None)


def run(program: list[str], folder: Path, *paths: Path) -> str:
    """What a program prints that a reader would start, with this project and ``paths`` to import from."""
    path = os.pathsep.join(map(str, [ROOT, ROOT / "plugins", *paths]))
    done = subprocess.run(
        [sys.executable, *program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_files_of_tests_pass(written: Mapping[str, str], tmp_path: Path) -> None:
    tests = [name for name in written if name.startswith("test_")]
    told = run(
        ["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *(f"{name}.py" for name in tests)], tmp_path
    )
    assert f"{sum(written[name].count('def test_') for name in tests)} passed" in told


def test_a_file_that_is_no_test_has_one() -> None:
    names = set(files())
    assert names
    assert names == {
        *(name.removeprefix("test_") for name in names),
        *(f"test_{name.removeprefix('test_')}" for name in names),
    }


def printing() -> list[Any]:
    """The blocks of which the page says what they print."""
    found: list[Any] = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        pattern = r"^```python\n((?:(?!^```).*\n)*)```\n\nIt prints:\n\n```text\n((?:(?!^```).*\n)*)```$"
        for match in re.finditer(pattern, text, re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 2
            found.append(pytest.param(match[1], match[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


@pytest.mark.parametrize(("source", "shown"), printing())
def test_a_block_prints_what_the_page_says(
    source: str, shown: str, world: SimulatedMistral, written: Mapping[str, str]
) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(source, "a page", "exec", dont_inherit=True), {"__name__": "__main__"})
    assert out.getvalue() == shown


@pytest.mark.parametrize(("source", "name"), [block for block in blocks("python") if not FILE.match(block.values[0])])
def test_a_block_of_python_runs_and_shows_something(
    source: str, name: str, world: SimulatedMistral, written: Mapping[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _, line = name.partition(":")
    code = compile("\n" * (int(line) - 1) + source, str(ROOT / path), "exec", dont_inherit=True)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)  # the point
    out, err = capsys.readouterr()
    assert err == ""
    if not out:  # then it defines a plugin
        made = [value for value in names.values() if inspect.isclass(value) and value.__module__ == "__main__"]
        assert [check_plugin(object.__new__(each), drive=False) for each in made] != []


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
    assert command.endswith(".venv/bin/python -m pytest -n 2 --dist worksteal")


# Names.


def test_every_hook_stands_in_the_guide_with_its_arguments_and_its_rule_in_the_order_of_a_call() -> None:
    guide = PAGES[1].read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(bifrost_\w+)\(([\w, ]*)\)`\]\(#(\w+)\) \| ([^|]*) \|", guide, re.MULTILINE)
    shown = [(name, tuple(arguments.split(", ")), anchor, rule) for name, arguments, anchor, rule in rows]
    assert shown == [
        (name, hook.arguments, name, hook.rule if hook.is_async else f"{hook.rule}, `def` only")
        for name, hook in HOOKS.items()
    ]


def page_of(hook: str) -> dict[str, str]:
    """The table at the head of a hook's page, by the name of its rows."""
    guide = PAGES[1].read_text(encoding="utf-8")
    (page,) = re.findall(rf"^### `{hook}`\n(.*?)(?=^##)", guide, re.DOTALL | re.MULTILINE)
    assert "```python" in page, "with an example"
    head, _, table = page.lstrip().partition("\n|---|---|\n")
    assert head == "| | |"
    rows = table.partition("\n\n")[0].splitlines()
    return {name.strip(): text.strip() for name, text in (row[1:-1].split("|", 1) for row in rows)}


ROWS = ["signature", "phase and rule", "runs", "may return", "to refuse", "failure", "time", "options"]


@pytest.mark.parametrize("name", list(HOOKS))
def test_the_page_of_a_hook_says_what_holds(name: str) -> None:
    hook, policy, page = HOOKS[name], POLICIES[name], page_of(name)
    assert list(page) == ROWS
    returned = inspect.signature(getattr(hookspecs, name)).return_annotation.replace("Any", "Provider")
    arguments = ", ".join(hook.arguments)
    signature = f"{'async ' if hook.is_async else ''}def {name}({arguments}) -> {returned}"
    assert page["signature"] == f"`{signature}`".replace("|", "\\|")
    assert page["phase and rule"].rpartition(", ")[2] == hook.rule
    assert page["failure"].startswith(f"{policy.on_error}: ")
    for kind, status in re.findall(r"kind `(\w+)`, status (\d+)", page["failure"]):
        assert FACTS[Kind(kind)].http_status == int(status)
    if policy.timeout is None:
        assert page["time"] == "never waits"
    else:
        assert re.match(rf"{policy.timeout:g} s\b", page["time"])
    allowed = {
        "timeout": policy.timeout is not None,
        "on_error": len(policy.may) > 1,
        "checks": policy.may_check,
        "thread": hook.is_async,
        "stream": name == "bifrost_guard_response",
    }
    assert page["options"] == (", ".join(f"`{option}`" for option, is_one in allowed.items() if is_one) or "none")


# Shipping.


def pyproject() -> tuple[str, dict[str, Any]]:
    """The page's ``pyproject.toml`` of a plugin's distribution, as text and as values."""
    (source,) = [block.values[0] for block in blocks("toml") if "[project.entry-points.bifrost]" in block.values[0]]
    return source, tomllib.loads(source)


def wheel(folder: Path, written: Mapping[str, str]) -> Path:
    """The wheel that a build backend makes of the page's project.

    Source:
        https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    _, project = pyproject()
    name, version = project["project"]["name"].replace("-", "_"), project["project"]["version"]
    info = f"{name}-{version}.dist-info"
    entries = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in project["project"]["entry-points"].items()
    )
    members = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project['project']['name']}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": entries,
    }
    for file in project["tool"]["hatch"]["build"]["targets"]["wheel"]["include"]:
        members[file] = written[file.removesuffix(".py")]
    members[f"{info}/RECORD"] = "".join(f"{member},,\n" for member in [*members, f"{info}/RECORD"])
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return made


def test_a_plugin_that_is_shipped_as_the_page_says_is_loaded_by_its_name(
    written: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "sk-simulated-env-1")
    target = tmp_path / "installed"
    install = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    run([*install, "--disable-pip-version-check", str(wheel(tmp_path, written))], tmp_path)
    (table,) = [block.values[0] for block in blocks("toml") if block.values[0].startswith("plugins =")]
    (tmp_path / "router.toml").write_text(
        f"{table}\n[[providers]]\ntype = 'mistral'\nkeys = ['env:MISTRAL_API_KEY']\n", encoding="utf-8"
    )
    program = """
from bifrost_core import Router, load_plugins
from bifrost_core.testing import check_plugin
(plugin,) = load_plugins("house_rules")
print(type(plugin).__module__, check_plugin(plugin))
print(Router.from_config("router.toml").describe().splitlines()[-1])
"""
    elsewhere = tmp_path / "elsewhere"  # where no house_rules.py lies about
    elsewhere.mkdir()
    (tmp_path / "router.toml").rename(elsewhere / "router.toml")
    assert run(["-c", program], elsewhere, target).splitlines() == [
        "house_rules ['bifrost_authorize']",
        "hook bifrost_lifespan: RequestLogPlugin",
    ]
    with pytest.raises(AssertionError, match="plugin 'house_rules' is not installed"):
        run(["-c", program], elsewhere)


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


def anchors(page: Path) -> set[str]:
    """What a link into a page may name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_into_a_page_lead_to_a_heading(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        assert anchor in anchors((page.parent / target).resolve() if target else page), anchor


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
