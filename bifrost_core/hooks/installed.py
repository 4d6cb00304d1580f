"""Plugins of other distributions, by name and only by name: an installed package hears of no call by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bifrost_core._errors import ConfigError
from bifrost_core.errors import PluginError
from bifrost_core.hookspecs import PROJECT

__all__ = ["configured_plugins", "load_plugins"]


def load_plugins(*names: str) -> list[object]:
    """Make installed plugins: ``Router(providers, plugins=[*load_plugins("request_log"), …])``.

    A distribution offers a plugin as an entry point of the group ``bifrost`` whose value is a factory
    that needs no argument; those that it takes by keyword are options for ``Router.from_config``.

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
    return configured_plugins((name, {}) for name in names)


def configured_plugins(wanted: Iterable[tuple[str, Mapping[str, Any]]]) -> list[object]:
    """Make installed plugins with options, which their factories take by keyword.

    Args:
        wanted: Name of the entry point and options of each plugin, in order.

    Raises:
        ConfigError: As ``load_plugins``; or the factory takes no such option, or refuses its value.
        PluginError: As ``load_plugins``.
    """
    from importlib.metadata import EntryPoint, entry_points  # noqa: PLC0415 # slow to import, and only needed here

    installed: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=PROJECT):
        installed.setdefault(entry.name, []).append(entry)
    plugins: list[object] = []
    for name, options in wanted:
        entries = installed.get(name, [])
        if not entries:
            known = ", ".join(sorted(installed)) or "none"
            raise ConfigError(f"plugin {name!r} is not installed; installed are: {known}", field="plugins")
        if len({entry.value for entry in entries}) > 1:
            where = " and ".join(f"{entry.dist.name if entry.dist else '?'} ({entry.value})" for entry in entries)
            raise ConfigError(f"plugin {name!r} is offered by {where}; uninstall one", field="plugins")
        plugins.append(_make(name, entries[0].value, entries[0].load, options))
    return plugins


def _make(name: str, value: str, load: Callable[[], Any], options: Mapping[str, Any]) -> object:
    try:
        factory = load()
        if options:
            _check_options(name, factory, options)
        return factory(**options)
    except ConfigError:
        raise
    except Exception as exc:
        what = "that takes these options" if options else "without arguments"
        raise PluginError(
            f"plugin {name}: {value} failed with {type(exc).__name__}; it must name a factory {what}", plugin=name
        ) from exc


def _check_options(name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = [
        parameter.name
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind in {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    ]
    unknown = [option for option in options if option not in known]
    if unknown:
        what = f"there are {', '.join(known)}" if known else "it takes none"
        raise ConfigError(f"plugin {name!r} has no option {unknown[0]!r}; {what}", field=f"plugins.{name}.{unknown[0]}")
