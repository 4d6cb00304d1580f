"""For authors of plugins: is this object a plugin, and does it do what a Router expects of one?"""

from __future__ import annotations

import copy
import threading
import time
from typing import Any, Final

import anyio

from bifrost_core.errors import PluginError
from bifrost_core.hooks import compile_hooks

from ._driving import Driver

__all__ = ["check_plugin"]

_STUCK: Final = 10.0  # seconds after which a hook that keeps the event loop is given up
_POLL: Final = 0.05


def check_plugin(plugin: object, *, drive: bool = True, backend: str = "asyncio") -> list[str]:
    """Tell every mistake of a plugin, or the hooks that it implements.

    First come the checks that a Router makes when it is built: names, marks, colours, arguments, options. Then each
    hook is driven with what a Router hands out in three calls without a network, one answered, one streamed, one
    failing: what it returns, how long it takes, whether it keeps the event loop or changes what it was given. A
    ``CallError`` that it raises is a decision and no mistake.

    It is a copy of the plugin that is driven (``copy.deepcopy``), so that what the plugin counts stays as it is; one
    that can not be copied, as it holds a lock or a connection, is driven itself. Call it from a test, also from an
    ``async`` one: the hooks run in an event loop of their own.

    Args:
        plugin: An instance (or a module) with functions marked ``@hookimpl``.
        drive: Whether hooks are called. Leave that out for a plugin that needs a world which is not there.
        backend: Event loop to drive it on, ``"asyncio"`` or ``"trio"``.

    Returns:
        The names of the hooks that it implements, in the order of a call.

    Raises:
        PluginError: The message lists every mistake and what to do about it.
    """
    hooks = compile_hooks([plugin])
    if drive:
        (name,) = hooks.plugins
        _drive(name, Driver(compile_hooks([_copied(plugin)]).implementations), backend)
    return list(hooks.describe())


def _copied(plugin: Any) -> Any:
    try:
        return copy.deepcopy(plugin)
    except Exception:  # whatever is in it that does not like to be copied
        return plugin


def _drive(name: str, driver: Driver, backend: str) -> None:
    failed: list[BaseException] = []

    def main() -> None:
        try:
            anyio.run(driver.run, backend=backend)
        except BaseException as exc:
            failed.append(exc)

    # A thread of its own: the caller's may have an event loop already, and a hook may never come back.
    thread = threading.Thread(target=main, name="check_plugin", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL)
        since = driver.since
        if since is not None and time.perf_counter() - since[1] > _STUCK:
            driver.mistakes.append((since[0], f"keeps the event loop and has not come back for {_STUCK:g} s"))
            break
    if driver.mistakes:
        text = "; ".join(f"{hook} {said}" for hook, said in driver.mistakes)
        raise PluginError(f"plugin {name}: {text}", plugin=name, hook=driver.mistakes[0][0])
    if failed:
        raise failed[0]
