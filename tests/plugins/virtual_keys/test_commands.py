"""``bifrost virtual-keys``, and the plugin from a configuration file."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import anyio
import pytest
from bifrost_plugins.stores import MemoryStore, SqliteStore
from bifrost_plugins.stores.urls import open_store
from bifrost_plugins.virtual_keys import VirtualKeyPlugin, plugin
from bifrost_plugins.virtual_keys.commands import virtual_keys
from bifrost_plugins.virtual_keys.format import new_id, new_key, public_id

from bifrost_core import ConfigError, RefusedError, Router, Secret, VirtualKeyError
from bifrost_core.cli import main
from bifrost_core.testing import SimulatedMistral

PEPPER = "pepper-for-tests-0123456789abcdef"
MODEL = "mistral/mistral-small-latest"


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's entry points as its pyproject.toml has them, whatever was installed when."""
    points = {
        "bifrost": [metadata.EntryPoint("virtual_keys", "bifrost_plugins.virtual_keys:plugin", "bifrost")],
        "bifrost.cli": [
            metadata.EntryPoint("virtual-keys", "bifrost_plugins.virtual_keys.commands:virtual_keys", "bifrost.cli")
        ],
    }

    def entry_points(*, group: str) -> list[metadata.EntryPoint]:
        return points[group]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    monkeypatch.setattr("bifrost_core.cli.commands.entry_points", entry_points)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "keys.db"
    monkeypatch.setenv("BIFROST_STORE", f"sqlite:{path}")
    monkeypatch.setenv("BIFROST_PEPPER", PEPPER)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    done = main(["virtual-keys", *arguments])
    out, err = capsys.readouterr()
    assert (done, err if done else "") == (status, err if status else "")
    return out, err


def test_pyproject_names_the_plugin_and_its_command() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["bifrost"]["virtual_keys"] == "bifrost_plugins.virtual_keys:plugin"
    command = project["entry-points"]["bifrost.cli"]["virtual-keys"]
    assert command == "bifrost_plugins.virtual_keys.commands:virtual_keys"


def test_a_key_is_printed_once_and_is_good(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    out, err = run(capsys, "issue", "search", "--model", "mistral/*", "--expires-in", "90d", "--weight", "mistral=2")
    key = out.removesuffix("\n")
    identity = public_id(Secret(key))
    assert identity is not None
    assert err == f"virtual key 'search', id {identity}; this is the only time that it is shown\n"
    for command in (["list"], ["show", identity], ["list", "--json"], ["show", identity, "--json"]):
        out, err = run(capsys, *command)
        assert identity in out
        assert key not in out + err
        assert "v1$" not in out
    (record,) = json.loads(run(capsys, "list", "--json")[0])
    assert (record["state"], record["models"], record["provider_weights"]) == ("active", ["mistral/*"], {"mistral": 2})
    assert record["expires_at"] - record["created_at"] == pytest.approx(90 * 86_400, abs=5)
    rows = sqlite3.connect(store).execute("SELECT name FROM sqlite_master").fetchall()
    assert rows
    assert key[18:61].encode() not in b"".join(path.read_bytes() for path in store.parent.iterdir())


def test_a_key_is_changed_rotated_expired_and_revoked(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    issued = json.loads(run(capsys, "issue", "k", "--operation", "chat", "--json")[0])
    identity = issued["id"]
    assert public_id(Secret(issued["key"])) == identity
    changed = json.loads(run(capsys, "update", identity, "--operation", "", "--name", "other", "--json")[0])
    assert (changed["operations"], changed["name"], changed["version"]) == ([], "other", 2)
    out, _ = run(capsys, "update", identity, "--operation", "*", "--expires-in", "1h")
    assert "operations: *\n" in out
    assert re.search(r"^expires_at: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$", out, re.MULTILINE)
    assert "expires_at" not in run(capsys, "update", identity, "--never-expires")[0]
    rotated, _ = run(capsys, "rotate", identity, "--grace", "5m")
    assert rotated.strip() != issued["key"]
    assert public_id(Secret(rotated.strip())) == identity
    assert "state: expired\n" in run(capsys, "expire", identity)[0]
    assert "state: active\n" in run(capsys, "expire", identity, "--after", "1h")[0]
    assert "state: revoked\n" in run(capsys, "revoke", identity)[0]
    assert [len(json.loads(run(capsys, "list", "--state", s, "--json")[0])) for s in ("active", "revoked")] == [0, 1]


def test_teams_and_customers_are_added(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    assert run(capsys, "add-customer", "acme")[0] == "customer acme\n"
    assert run(capsys, "add-team", "search", "--customer", "acme")[0] == "team search of acme\n"
    assert run(capsys, "add-team", "free")[0] == "team free\n"
    run(capsys, "issue", "k", "--team", "search")
    out, _ = run(capsys, "list", "--customer", "acme")
    assert re.fullmatch(r"id +name +state +customer +team +expires\n\w{12} +k +active +acme +search +never\n", out)
    assert run(capsys, "list", "--team", "free")[0] == "id  name  state  customer  team  expires\n"


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        pytest.param(["revoke", "nobody"], 1, "there is no virtual key 'nobody'", id="unknown"),
        pytest.param(["issue", "k", "--operation", "chatt"], 1, "names 'chatt'", id="operation"),
        pytest.param(["issue", "k", "--weight", "mistral"], 2, "'mistral' is no weight", id="weight"),
        pytest.param(["issue", "k", "--expires-in", "soon"], 2, "'soon' is no length of time", id="time"),
        pytest.param(["update", "nobody"], 2, "nothing to change", id="nothing"),
        pytest.param(["list", "--store", "memory"], 2, "ends with this command", id="memory"),
        pytest.param(["list", "--store", "/some/where"], 1, "address is none", id="address"),
        pytest.param(["list", "--pepper", PEPPER], 1, "named by env:NAME or file:PATH", id="pepper-in-the-open"),
        pytest.param(["list", "--pepper", "env:BIFROST_NONE"], 1, "BIFROST_NONE is not set", id="no-pepper"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], store: Path, arguments: list[str], status: int, why: str
) -> None:
    out, err = run(capsys, *arguments, status=status)
    assert (out, err.count("\n"), err.startswith("bifrost")) == ("", 1, True)
    assert why in err
    assert PEPPER not in err


def test_without_a_store_it_says_which_option_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BIFROST_STORE", raising=False)
    assert "--store" in run(capsys, "list", status=2)[1]


def test_a_hash_is_made_for_a_configuration_file(
    capsys: pytest.CaptureFixture[str], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key(new_id())
    monkeypatch.setattr("sys.stdin", io.StringIO(key.reveal() + "\n"))
    out, _ = run(capsys, "hash")
    made = VirtualKeyPlugin(pepper=PEPPER, keys=[{"name": "k", "hash": out.strip()}])
    assert made._peppers.digest(key) == out.strip()


# -- commands that distributions bring -----------------------------------------------------------------------------


def test_help_lists_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  virtual-keys +Issue, list, change, rotate and revoke virtual keys\.$", out, re.MULTILINE)
    assert re.search(r"^  chat ", out, re.MULTILINE)
    assert set(virtual_keys.commands) == {
        "issue", "list", "show", "update", "rotate", "expire", "revoke", "add-team", "add-customer", "hash",
    }  # fmt: skip


def test_a_command_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    points = [metadata.EntryPoint("odd", "collections:Counter", "bifrost.cli")]
    monkeypatch.setattr("bifrost_core.cli.commands.entry_points", lambda group: points)
    assert main(["odd"]) == 1
    assert "collections:Counter is no command of click" in capsys.readouterr().err
    assert main(["even"]) == 2
    assert "No such command 'even'" in capsys.readouterr().err


def test_a_brought_command_is_imported_only_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [metadata.EntryPoint("broken", "no_such_module_at_all:command", "bifrost.cli")]
    monkeypatch.setattr("bifrost_core.cli.commands.entry_points", lambda group: points)
    assert main(["prices", "--filter", "mistral-small-latest"]) == 0
    assert main(["broken"]) == 1


# -- from configuration --------------------------------------------------------------------------------------------


def test_a_configuration_file_names_store_pepper_and_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = run(capsys, "issue", "stored", "--model", "mistral-small-*")[0].strip()
    monkeypatch.setenv("SEARCH_KEY", "search-key-0123456789abcdef")
    with SimulatedMistral(["sk-simulated-1"]) as server:
        monkeypatch.setenv("KEY_ONE", "sk-simulated-1")
        file = tmp_path / "bifrost.toml"
        file.write_text(
            f"""
            [[providers]]
            type = "mistral"
            base_url = "{server.base_url}"
            keys = ["env:KEY_ONE"]

            [[plugins]]
            name = "virtual_keys"
            store = "sqlite:{store}"
            pepper = ["env:BIFROST_PEPPER"]
            customers = ["acme"]
            teams = {{ search = "acme" }}
            [[plugins.keys]]
            name = "search"
            secret = "env:SEARCH_KEY"
            team = "search"
            models = ["{MODEL}"]
            """
        )

        async def main_() -> None:
            async with Router.from_config(file) as router:
                for right in (key, "search-key-0123456789abcdef"):
                    await router.chat(MODEL, "hello", virtual_key=right)
                    with pytest.raises(RefusedError):
                        await router.chat("mistral/mistral-large-latest", "hello", virtual_key=right)
                with pytest.raises(VirtualKeyError):
                    await router.chat(MODEL, "hello")

        anyio.run(main_)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        pytest.param({"budget": "10.00"}, "no option 'budget'; there are store, pepper, required, keys", id="option"),
        pytest.param({"store": "sqlite:x.db"}, "needs a pepper", id="pepper"),
        pytest.param({"keys": [{"name": "k", "secret": "a-key-0123456789abcdefgh"}]}, "no reference", id="key"),
        pytest.param({"store": "nowhere"}, "address is none", id="store"),
    ],
)
def test_a_wrong_option_in_a_configuration_is_named(options: dict[str, Any], why: str) -> None:
    config = {"providers": [], "plugins": [{"name": "virtual_keys", **options}]}
    with pytest.raises(ConfigError, match=why):
        Router.from_config(config)


def test_by_name_alone_it_is_in_memory() -> None:
    assert isinstance(plugin(), VirtualKeyPlugin)
    assert isinstance(open_store("memory"), MemoryStore)
    assert isinstance(open_store("sqlite:x.db"), SqliteStore)


@pytest.mark.parametrize("address", ["", "sqlite:", "redis", "mysql://root:secret-word@host"])
def test_an_address_that_is_none_is_not_quoted(address: str) -> None:
    with pytest.raises(ConfigError, match="address is none") as caught:
        open_store(address)
    assert "secret-word" not in str(caught.value)
