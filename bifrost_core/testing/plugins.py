"""For authors of plugins: is this object a plugin, as a Router would see it?"""

from __future__ import annotations

from bifrost_core.hooks import compile_hooks

__all__ = ["check_plugin"]


def check_plugin(plugin: object) -> list[str]:
    """Register ``plugin`` alone, with every check that a Router makes, and call none of its hooks.

    Args:
        plugin: An instance (or a module) with functions marked ``@hookimpl``.

    Returns:
        The names of the hooks that it implements, in the order of a call.

    Raises:
        PluginError: A Router would refuse it; the message lists every mistake and what to do about it.
    """
    return list(compile_hooks([plugin]).describe())
