"""``bifrost virtual-keys``: issue, list, show, update, rotate, expire and revoke keys in a store."""

from __future__ import annotations

import datetime
import functools
import json
import re
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import anyio
import click

from bifrost_core import ConfigError, Secret, SystemClock
from bifrost_plugins.stores.urls import open_store

from .hashing import Peppers
from .plugin import VirtualKeyPlugin
from .records import Issued, VirtualKey

__all__ = ["virtual_keys"]

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_COLUMNS: Final = ("id", "name", "state", "customer", "team", "expires")


def _seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """A length of time, such as ``90d``, in seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no length of time; write such as 12h or 90d")
    return float(found[1]) * _UNITS[found[2]]


def _store(function: _F) -> _F:
    """The options ``--store`` and ``--pepper``."""
    store = click.option(
        "--store",
        envvar="BIFROST_STORE",
        required=True,
        show_envvar=True,
        metavar="ADDRESS",
        help="Where the keys are: sqlite:PATH or redis://HOST:PORT/NUMBER.",
    )
    pepper = click.option(
        "--pepper",
        "peppers",
        multiple=True,
        default=["env:BIFROST_PEPPER"],
        show_default=True,
        metavar="REFERENCE",
        help="env:NAME or file:PATH of what goes into the digests; repeat it with older ones.",
    )
    return store(pepper(function))


def _grant(function: _F) -> _F:
    """The options that say what a key may do."""
    lists = {
        "operation": "An operation, such as chat.",
        "provider": "A provider.",
        "model": "A model or a pattern: mistral/mistral-small-*.",
        "key-id": "One of the providers' keys.",
        "exclude-operation": "Not this operation.",
        "exclude-provider": "Not this provider.",
        "exclude-model": "Not these models.",
    }
    for name, text in reversed(lists.items()):
        excludes = name.startswith("exclude")
        default = "" if excludes else " '*' is all, '' is none; all unless named."
        function = click.option(
            f"--{name}", f"{name.replace('-', '_')}s", multiple=True, help=f"{text} May be repeated.{default}"
        )(function)
    for option in (
        click.option("--team", help="The team that it belongs to."),
        click.option("--customer", help="The customer that it belongs to."),
        click.option("--tenant", help="Keys of one tenant share cached answers."),
        click.option("--weight", "weights", multiple=True, metavar="PROVIDER=NUMBER", help="For bare model names."),
        click.option("--expires-in", callback=_seconds, metavar="TIME", help="Such as 12h or 90d."),
    ):
        function = option(function)
    return function


_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group("virtual-keys")
def virtual_keys() -> None:
    """Issue, list, change, rotate and revoke virtual keys."""


@virtual_keys.command()
@click.argument("name")
@_grant
@_store
@_json
def issue(name: str, store: str, peppers: Sequence[str], *, as_json: bool, **options: Any) -> None:
    """Issue a key named NAME and print it, once."""
    grant = _grants(options)
    _show_issued(_run(store, peppers, lambda plugin: plugin.issue(name, **grant)), as_json=as_json)


@virtual_keys.command("list")
@click.option("--team", help="Only those of a team.")
@click.option("--customer", help="Only those of a customer.")
@click.option("--state", type=click.Choice(["active", "expired", "revoked"]), help="Only those in a state.")
@_store
@_json
def list_(
    store: str, peppers: Sequence[str], team: str | None, customer: str | None, state: str | None, *, as_json: bool
) -> None:
    """List the keys; none of them is shown."""
    records = _run(store, peppers, lambda plugin: plugin.list(team=team, customer=customer, state=state))
    if as_json:
        _print_json([_described(record) for record in records])
        return
    rows = [_COLUMNS, *(_row(record) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@virtual_keys.command()
@click.argument("key_id", metavar="ID")
@_store
@_json
def show(key_id: str, store: str, peppers: Sequence[str], *, as_json: bool) -> None:
    """Show what is known of the key ID."""
    _show(_run(store, peppers, lambda plugin: plugin.get(key_id)), as_json=as_json)


@virtual_keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--name", help="Another name.")
@click.option("--never-expires", is_flag=True, help="It does not expire any more.")
@_grant
@_store
@_json
def update(
    key_id: str,
    store: str,
    peppers: Sequence[str],
    name: str | None,
    *,
    never_expires: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Change the key ID; what is not named stays. A list that is named replaces the one before."""
    changes = _grants(options)
    if name is not None:
        changes["name"] = name
    if never_expires:
        changes["expires_at"] = None
    if not changes:
        raise click.UsageError("nothing to change; name what is to be another")
    _show(_run(store, peppers, lambda plugin: plugin.update(key_id, **changes)), as_json=as_json)


@virtual_keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--grace", callback=_seconds, default="0s", metavar="TIME", help="How long the old one is good as well.")
@_store
@_json
def rotate(key_id: str, store: str, peppers: Sequence[str], grace: float, *, as_json: bool) -> None:
    """Give the key ID another secret and print it, once."""
    _show_issued(_run(store, peppers, lambda plugin: plugin.rotate(key_id, grace=grace)), as_json=as_json)


@virtual_keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--after", callback=_seconds, default="0s", metavar="TIME", help="In a time; at once unless named.")
@_store
@_json
def expire(key_id: str, store: str, peppers: Sequence[str], after: float, *, as_json: bool) -> None:
    """Let the key ID expire; another time for that takes it back."""
    _show(_run(store, peppers, lambda plugin: plugin.expire(key_id, after=after)), as_json=as_json)


@virtual_keys.command()
@click.argument("key_id", metavar="ID")
@_store
@_json
def revoke(key_id: str, store: str, peppers: Sequence[str], *, as_json: bool) -> None:
    """End the key ID for good."""
    _show(_run(store, peppers, lambda plugin: plugin.revoke(key_id)), as_json=as_json)


@virtual_keys.command("add-team")
@click.argument("name")
@click.option("--customer", help="The customer that it belongs to.")
@_store
def add_team(name: str, store: str, peppers: Sequence[str], customer: str | None) -> None:
    """Add the team NAME."""
    team = _run(store, peppers, lambda plugin: plugin.add_team(name, customer=customer))
    click.echo(f"team {team.name}" + ("" if team.customer is None else f" of {team.customer}"))


@virtual_keys.command("add-customer")
@click.argument("name")
@_store
def add_customer(name: str, store: str, peppers: Sequence[str]) -> None:
    """Add the customer NAME."""
    click.echo(f"customer {_run(store, peppers, lambda plugin: plugin.add_customer(name)).name}")


@virtual_keys.command("hash")
@click.option("--pepper", default="env:BIFROST_PEPPER", show_default=True, metavar="REFERENCE")
def hash_(pepper: str) -> None:
    """Read a key from standard input and print its hash, for a configuration file."""
    click.echo(Peppers(_reference(pepper)).digest(Secret(sys.stdin.read().strip(), "the key")))


def _run(address: str, peppers: Sequence[str], work: Callable[[VirtualKeyPlugin], Awaitable[_T]]) -> _T:
    """Do something with the plugin that a Router with this store would have."""
    if address == "memory":
        raise click.UsageError("what is in memory ends with this command; name sqlite:PATH or redis://…")
    plugin = VirtualKeyPlugin(open_store(address), pepper=[_reference(pepper) for pepper in peppers])
    return anyio.run(functools.partial(work, plugin))


def _reference(pepper: str) -> str:
    """A pepper's reference; the pepper itself has no place on a command line, where others can read it."""
    if not pepper.startswith(("env:", "file:")):
        raise ConfigError("a pepper is named by env:NAME or file:PATH on the command line", field="pepper")
    return pepper


def _grants(options: Mapping[str, Any]) -> dict[str, Any]:
    """What was named, as arguments of ``issue`` and ``update``."""
    weights = options["weights"]
    grant: dict[str, Any] = {}
    for name, value in options.items():
        if name != "weights" and value not in {None, ()}:
            grant[name] = [each for each in value if each] if name.endswith("s") else value
    if weights:
        grant["provider_weights"] = dict(_weight(each) for each in weights)
    return grant


def _weight(text: str) -> tuple[str, float]:
    provider, _, number = text.partition("=")
    try:
        return provider, float(number)
    except ValueError:
        raise click.UsageError(f"{text!r} is no weight; write such as mistral=2") from None


def _show_issued(issued: Issued, *, as_json: bool) -> None:
    key = issued.secret.reveal()
    if as_json:
        _print_json({**_described(issued.record), "key": key})
        return
    click.echo(key)
    sys.stderr.write(f"virtual key {issued.record.name!r}, id {issued.id}; this is the only time that it is shown\n")


def _show(record: VirtualKey, *, as_json: bool) -> None:
    described = _described(record)
    if as_json:
        _print_json(described)
        return
    for name, value in described.items():
        if value is not None:
            click.echo(f"{name}: {_words(name, value)}")


def _words(name: str, value: Any) -> str:
    if name.endswith(("_at", "_until")):
        return _instant(value)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _described(record: VirtualKey) -> dict[str, Any]:
    return {"state": record.state(SystemClock().time()), **record.describe()}


def _row(record: VirtualKey) -> tuple[str, ...]:
    expires = "never" if record.expires_at is None else _instant(record.expires_at)
    state = record.state(SystemClock().time())
    return (record.id, record.name, state, record.customer or "-", record.team or "-", expires)


def _instant(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))
