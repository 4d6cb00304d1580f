"""Plugins of other distributions, by name and only by name: an installed package hears of no call by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bifrost_core._errors import ConfigError
from bifrost_core.errors import PluginError
from bifrost_core.hookspecs import PROJECT

__all__ = ["load_plugins"]


def load_plugins(*names: str) -> list[object]:
    """Make installed plugins: ``Router(providers, plugins=[*load_plugins("request_log"), …])``.

    A distribution offers a plugin as an entry point of the group ``bifrost`` whose value is a factory
    without arguments.

    Args:
        names: Names of entry points; the plugins come in this order.

    Returns:
        What the factories made.

    Raises:
        ConfigError: A name is not installed (the message lists those that are), or two distributions have it.
        PluginError: The plugin can not be imported, or its factory fails.

    Source:
        https://packaging.python.org/en/latest/specifications/entry-points/
    """
    from importlib.metadata import EntryPoint, entry_points  # noqa: PLC0415 # slow to import, and only needed here

    installed: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=PROJECT):
        installed.setdefault(entry.name, []).append(entry)
    plugins: list[object] = []
    for name in names:
        entries = installed.get(name, [])
        if not entries:
            known = ", ".join(sorted(installed)) or "none"
            raise ConfigError(f"plugin {name!r} is not installed; installed are: {known}", field="plugins")
        if len({entry.value for entry in entries}) > 1:
            where = " and ".join(f"{entry.dist.name if entry.dist else '?'} ({entry.value})" for entry in entries)
            raise ConfigError(f"plugin {name!r} is offered by {where}; uninstall one", field="plugins")
        plugins.append(_make(name, entries[0].value, entries[0].load))
    return plugins


def _make(name: str, value: str, load: Callable[[], Any]) -> object:
    try:
        return load()()
    except Exception as exc:
        raise PluginError(
            f"plugin {name}: {value} failed with {type(exc).__name__}; it must name a factory without arguments",
            plugin=name,
        ) from exc
