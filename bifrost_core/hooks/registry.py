"""Registration: every mistake that a plugin can make is found here, named and explained, not in a call."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

import attrs
import pluggy

from bifrost_core import hookspecs
from bifrost_core.errors import PluginError
from bifrost_core.hookspecs import HOOKS, PROJECT, Hook

from .options import HookOptions, may_wrap, option_mistakes

__all__ = ["Registered", "register"]

_DEFAULT: Final = HookOptions()
_OPTIONS: Final = "hook_options"


@attrs.frozen(eq=False)
class Registered:
    """One implementation as the plugin manager has it, ready to be compiled.

    Attributes:
        plugin: Name of the plugin.
        plugin_object: The plugin.
        hook: The hook.
        invoke: Calls it with subject and call.
        options: What the plugin says about the hook.
        is_wrapper: It is a generator around the others.
        never_waits: It is a coroutine function without an ``await``.
    """

    plugin: str
    plugin_object: object
    hook: Hook
    invoke: Callable[[Any, Any], Any]
    options: HookOptions
    is_wrapper: bool
    never_waits: bool


@attrs.define
class _Mistakes:
    """What is wrong with one plugin."""

    plugin: str
    found: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]])

    def add(self, hook: str, text: str) -> None:
        self.found.append((hook, text))

    def check(self) -> None:
        if self.found:
            text = "; ".join(f"{hook} {text}" if hook else text for hook, text in self.found)
            raise PluginError(f"plugin {self.plugin}: {text}", plugin=self.plugin, hook=self.found[0][0])


def register(plugins: Iterable[object]) -> tuple[dict[str, object], dict[str, list[Registered]]]:
    """Register plugins with pluggy and check all that can be checked without a call.

    Args:
        plugins: Instances (or modules); the first is outermost.

    Returns:
        The plugins by name, in the order given; and the implementations by hook name in call order,
        wrappers first. Hooks that nobody implements are left out.

    Raises:
        PluginError: A plugin is not usable; names it, its hooks and its mistakes.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    named: dict[str, object] = {}
    options: dict[str, Mapping[str, HookOptions]] = {}
    for plugin in plugins:
        name = _unique_name(plugin, named)
        _check_identity(plugin, name, named)
        options[name] = _check_plugin(manager, plugin, name)
        named[name] = plugin
        _register(manager, plugin, name)
    places = {name: place for place, name in enumerate(named)}
    return named, {
        hook.name: ordered
        for hook in HOOKS.values()
        if (ordered := _ordered(getattr(manager.hook, hook.name).get_hookimpls(), hook, places, options))
    }


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Have pluggy check it too; what it refuses is said in the library's own error."""
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as exc:
        raise PluginError(f"plugin {name}: {exc}", plugin=name) from exc


def _ordered(
    found: Sequence[pluggy.HookImpl],
    hook: Hook,
    places: Mapping[str, int],
    options: Mapping[str, Mapping[str, HookOptions]],
) -> list[Registered]:
    """Wrappers first; in both parts ``tryfirst``, then by the plugin's place, then ``trylast``."""
    direction = -1 if hook.is_outward else 1

    def key(each: pluggy.HookImpl) -> tuple[bool, int, int]:
        return not each.wrapper, each.trylast - each.tryfirst, direction * places[each.plugin_name]

    return [
        Registered(
            plugin=each.plugin_name,
            plugin_object=each.plugin,
            hook=hook,
            invoke=_adapter(each.function, hook),
            options=options[each.plugin_name].get(hook.name, _DEFAULT),
            is_wrapper=each.wrapper,
            never_waits=_never_waits(each.function),
        )
        for each in sorted(found, key=key)
    ]


# Names and identity.


def _unique_name(plugin: object, taken: Mapping[str, object]) -> str:
    given = None if inspect.isclass(plugin) else getattr(plugin, "name", None)
    if not (isinstance(given, str) and given):
        given = getattr(plugin, "__name__", None)
    name = given if isinstance(given, str) and given else type(plugin).__name__
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"


def _check_identity(plugin: object, name: str, named: Mapping[str, object]) -> None:
    def refuse(text: str) -> PluginError:
        return PluginError(f"plugin {name}: {text}", plugin=name)

    if plugin is None:
        raise refuse("None is not a plugin; leave it out")
    if isinstance(plugin, str):
        raise refuse(f"a name is not a plugin; pass *load_plugins({plugin!r})")
    if inspect.isclass(plugin):
        raise refuse(f"this is the class; pass an instance, {name}(…)")
    try:
        hash(plugin)
    except TypeError:
        raise refuse(
            "it can not be hashed, and a call keeps state by plugin; make the class eq=False (attrs) or "
            "give it back object's __hash__"
        ) from None
    for other_name, other in named.items():
        if other is plugin:
            raise refuse(f"it is registered already, as {other_name}; pass it once")
        try:
            is_equal = bool(other == plugin)
        except Exception as exc:
            raise refuse(f"comparing it fails with {type(exc).__name__}; make the class eq=False") from exc
        if is_equal:
            raise refuse(f"it compares equal to {other_name}; make the class eq=False, or pass one of them")


# Hooks.


def _check_plugin(manager: pluggy.PluginManager, plugin: object, name: str) -> Mapping[str, HookOptions]:
    """Look at every attribute that is, or looks like, a hook; then at the options. Returns the options."""
    mistakes = _Mistakes(name)
    implemented: dict[str, list[bool]] = {}  # whether it is a plain, waiting-free function, by hook
    looks_like_one = False
    for attribute in dir(plugin):
        options: Any = manager.parse_hookimpl_opts(plugin, attribute)
        if options is None:
            if attribute.startswith(f"{PROJECT}_") and _is_function(inspect.getattr_static(plugin, attribute, None)):
                looks_like_one = True
                near = "" if attribute in HOOKS else _suggestion(attribute).replace("; did you mean", " and call it")
                mistakes.add(attribute, f"is not marked and would never run; put @hookimpl on it{near.rstrip('?')}")
            continue
        looks_like_one = True
        hook_name = options.get("specname") or attribute
        hook = HOOKS.get(hook_name)
        if hook is None:
            if not options.get("optionalhook"):
                mistakes.add(hook_name, f"is no hook{_suggestion(hook_name)}")
            continue
        function = getattr(plugin, attribute)
        _check_marks(mistakes, hook, options)
        _check_colour(mistakes, hook, function, is_wrapper=bool(options.get("wrapper") or options.get("hookwrapper")))
        _check_arguments(mistakes, hook, function)
        is_plain = not options.get("wrapper") and not inspect.iscoroutinefunction(function)
        implemented.setdefault(hook.name, []).append(is_plain)
    if not implemented and not mistakes.found:
        what = "every hook of it is optional and unknown" if looks_like_one else "it implements no hook"
        mistakes.add("", f"{what}; mark methods such as bifrost_authorize with @hookimpl")
    found = _check_options(mistakes, plugin, implemented)
    mistakes.check()
    return found


def _is_function(value: object) -> bool:
    return callable(value) or isinstance(value, (staticmethod, classmethod))


def _holds_options(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, HookOptions) for each in value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] # of anything


def _suggestion(name: str) -> str:
    fields = [hook.field for hook in HOOKS.values()]
    close = get_close_matches(name.removeprefix(f"{PROJECT}_"), fields, n=1, cutoff=0.7)
    return f"; did you mean {PROJECT}_{close[0]}?" if close else f"; the hooks are {', '.join(HOOKS)}"


def _check_marks(mistakes: _Mistakes, hook: Hook, options: Mapping[str, Any]) -> None:
    if options.get("hookwrapper"):
        mistakes.add(hook.name, "is marked hookwrapper=True, pluggy's old style; use wrapper=True")
    if options.get("wrapper") and not may_wrap(hook.rule):
        mistakes.add(hook.name, f"can not be wrapped ({hook.rule} hook); leave wrapper=True out")
    if options.get("tryfirst") and options.get("trylast"):
        mistakes.add(hook.name, "is marked both tryfirst and trylast; choose one")


def _check_colour(mistakes: _Mistakes, hook: Hook, function: Callable[..., object], *, is_wrapper: bool) -> None:
    if is_wrapper:
        if not inspect.isgeneratorfunction(function):
            kind = "an async generator" if inspect.isasyncgenfunction(function) else "not a generator"
            mistakes.add(hook.name, f"is marked as a wrapper but is {kind}; write a plain def with one yield")
    elif inspect.isasyncgenfunction(function):
        hint = "put @contextlib.asynccontextmanager under @hookimpl" if hook.field == "lifespan" else "return a value"
        mistakes.add(hook.name, f"is an async generator; {hint}")
    elif inspect.isgeneratorfunction(function) and hook.field != "providers":
        hint = "mark it wrapper=True or return a value" if may_wrap(hook.rule) else "return a value"
        mistakes.add(hook.name, f"is a generator; {hint}")
    elif inspect.iscoroutinefunction(function) and not hook.is_async:
        mistakes.add(hook.name, "never waits, so its implementations are plain functions; write def, not async def")


def _check_arguments(mistakes: _Mistakes, hook: Hook, function: Callable[..., object]) -> None:
    takes = f"it takes {' and '.join(hook.arguments)}, or fewer"
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            mistakes.add(hook.name, f"must name its arguments instead of *{parameter.name}; {takes}")
        elif parameter.name not in hook.arguments and parameter.default is parameter.empty:
            mistakes.add(hook.name, f"has an argument {parameter.name!r} that is unknown; {takes}")


def _check_options(
    mistakes: _Mistakes, plugin: object, implemented: Mapping[str, Sequence[bool]]
) -> Mapping[str, HookOptions]:
    stated: Any = getattr(plugin, _OPTIONS, None)
    if stated is None:
        for attribute in get_close_matches(
            _OPTIONS, [name for name in dir(plugin) if name != _OPTIONS], n=1, cutoff=0.8
        ):
            if _holds_options(getattr(plugin, attribute)):
                mistakes.add("", f"{attribute} is never looked at; call it {_OPTIONS}")
        return {}
    if not isinstance(stated, Mapping):
        mistakes.add("", f"hook_options is {type(stated).__name__}; make it a dict of hook name to HookOptions")
        return {}
    found: dict[str, HookOptions] = {}
    entries: Mapping[Any, Any] = stated  # pyright: ignore[reportUnknownVariableType] # anything may be in it
    for hook_name, options in entries.items():
        if hook_name not in HOOKS:
            mistakes.add(str(hook_name), f"in hook_options is no hook{_suggestion(str(hook_name))}")
            continue
        if hook_name not in implemented:
            mistakes.add(hook_name, "has hook_options but is not implemented; leave one out or add the other")
            continue
        for text in option_mistakes(hook_name, options, has_filter="bifrost_stream_filter" in implemented):
            mistakes.add(hook_name, text)
        if isinstance(options, HookOptions):
            if options.thread and not all(implemented[hook_name]):
                mistakes.add(hook_name, "says thread=True but is async or a wrapper; only a plain function blocks")
            found[hook_name] = options
    return found


# How an implementation is called.


def _adapter(function: Callable[..., Any], hook: Hook) -> Callable[[Any, Any], Any]:
    """A function of subject and call that passes what ``function`` takes; ``function`` itself where that is all."""
    positions: list[int] = []
    keywords: dict[str, int] = {}
    skipped = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in hook.arguments:
            skipped = True  # has a default; what stands behind it is passed by name
        elif skipped or parameter.kind is parameter.KEYWORD_ONLY:
            keywords[parameter.name] = hook.arguments.index(parameter.name)
        else:
            positions.append(hook.arguments.index(parameter.name))
    if keywords:

        def by_name(*given: Any) -> Any:
            return function(
                *(given[place] for place in positions), **{name: given[place] for name, place in keywords.items()}
            )

        return by_name
    direct: dict[tuple[int, ...], Callable[[Any, Any], Any]] = {
        (): lambda _, __: function(),
        (0,): lambda subject, _: function(subject),
        (1,): lambda _, call: function(call),
        (0, 1): function,
        (1, 0): lambda subject, call: function(call, subject),
    }
    return direct[tuple(positions)]


def _never_waits(function: Callable[..., object]) -> bool:
    """Whether ``function`` is a coroutine function that can not suspend: no ``await`` anywhere in it.

    Every ``await``, ``async for`` and ``async with`` compiles to a SEND instruction on CPython 3.11 and
    later; where there is no such instruction nothing is assumed.
    """
    code = getattr(function, "__code__", None)
    if code is None or not code.co_flags & inspect.CO_COROUTINE or "SEND" not in dis.opmap:
        return False
    return not any(step.opname == "SEND" for step in dis.get_instructions(code))
