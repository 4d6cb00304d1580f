"""Every mistake of a plugin is found when it is registered, by name, with what to do about it."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Callable, Generator
from importlib import metadata
from typing import Any, NoReturn

import attrs
import pytest

from bifrost_core.calls import Call
from bifrost_core.config import options_from_config
from bifrost_core.errors import ConfigError, PluginError
from bifrost_core.hooks import HookOptions, compile_hooks, load_plugins
from bifrost_core.hookspecs import HOOKS, hookimpl
from bifrost_core.types import Request


def made(hook: str, implementation: Callable[..., Any], options: Any = None, **marks: Any) -> Any:
    copy = types.FunctionType(implementation.__code__, globals(), hook)  # marks stay on a function
    members: dict[str, Any] = {hook: hookimpl(copy, **marks)}
    if options is not None:
        members["hook_options"] = {hook: options}
    return type("Made", (), members)()


def fine(self: object) -> None: ...


async def fine_async(self: object) -> None: ...


def wraps(self: object) -> Generator[None, Any, Any]:
    return (yield)


class Works:
    @hookimpl
    def bifrost_authorize(self, request: Request, call: Call) -> None: ...


class Unmarked(Works):
    def bifrost_reserve(self) -> None: ...


class ForgotTheMark(Works):
    def bifrost_authorize(self, request: Request, call: Call) -> None: ...


class NotAFunction(Works):
    class bifrost_reserve:  # noqa: N801 # that is the point
        pass


class Nothing:
    def authorize(self) -> None: ...


def generates(self: object) -> Generator[Any, Any, Any]:
    yield 1


async def generates_async(self: object) -> AsyncIterator[Any]:
    yield 1


def takes_more(self: object, request: Request, response: object) -> None: ...


def takes_what_comes(self: object, *rest: object) -> None: ...


def takes_any_name(self: object, **rest: object) -> None: ...


def needs_a_keyword(self: object, *, log: object) -> None: ...


A, G, N = "bifrost_authorize", "bifrost_guard_response", "bifrost_call_finished"
MISTAKES: dict[str, tuple[Any, str, str]] = {
    # a plugin, the hook that the error names, and words of its message
    "unknown": (made("bifrost_frobnicate", fine), "bifrost_frobnicate", "is no hook; the hooks are bifrost_auth"),
    "misspelt": (made("bifrost_authorise", fine), "bifrost_authorise", "did you mean bifrost_authorize"),
    "without the prefix": (made("authorize", fine), "authorize", "did you mean bifrost_authorize"),
    "unknown specname": (made("check", fine, specname="bifrost_autorize"), "bifrost_autorize", "bifrost_authorize?"),
    "unmarked": (Unmarked(), "bifrost_reserve", "put @hookimpl on it"),
    "mark lost by overriding": (ForgotTheMark(), A, "put @hookimpl on it"),
    "not a function": (NotAFunction(), "bifrost_reserve", "put @hookimpl on it"),
    "no hook": (Nothing(), "", "implements no hook"),
    "optional hooks only": (made("bifrost_frob", fine, optionalhook=True), "", "optional and unknown"),
    "none": (None, "", "None is not a plugin"),
    "a name": ("budgets", "", "load_plugins('budgets')"),
    "a class": (Works, "", "pass an instance, Works(…)"),
    "async where nothing waits": (made("bifrost_pick_route", fine_async), "bifrost_pick_route", "not async def"),
    "async stream filter": (made("bifrost_stream_filter", fine_async), "bifrost_stream_filter", "not async def"),
    "generator": (made(A, generates), A, "mark it wrapper=True"),
    "generator of a notify": (made(N, generates), N, "is a generator; return a value"),
    "async generator": (made(A, generates_async), A, "is an async generator"),
    "bare lifespan": (made("bifrost_lifespan", generates_async), "bifrost_lifespan", "asynccontextmanager"),
    "unknown argument": (made(A, takes_more), A, "'response' that is unknown; it takes request and call"),
    "open arguments": (made(A, takes_what_comes), A, "must name its arguments"),
    "open keywords": (made(A, takes_any_name), A, "must name its arguments"),
    "unknown keyword": (made(A, needs_a_keyword), A, "'log' that is unknown"),
    "wrapper of a notify": (made(N, wraps, wrapper=True), N, "can not be wrapped (notify hook)"),
    "wrapper of a collect": (
        made("bifrost_stream_filter", wraps, wrapper=True), "bifrost_stream_filter", "can not be wrapped"
    ),
    "wrapper without yield": (made(A, fine, wrapper=True), A, "is not a generator"),
    "async wrapper": (made(A, generates_async, wrapper=True), A, "is an async generator"),
    "old-style wrapper": (made(A, wraps, hookwrapper=True), A, "use wrapper=True"),
    "first and last": (made(A, fine, tryfirst=True, trylast=True), A, "choose one"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_named_with_plugin_hook_and_remedy(mistake: str) -> None:
    plugin, hook, said = MISTAKES[mistake]
    with pytest.raises(PluginError) as caught:
        compile_hooks([plugin])
    error = caught.value
    assert said in error.message
    assert error.hook == hook
    assert hook in error.message
    assert error.plugin
    assert f"plugin {error.plugin}: " in error.message
    assert error.call_id == ""


def test_all_mistakes_of_a_plugin_are_listed() -> None:
    class Many:
        @hookimpl
        def bifrost_authorise(self) -> None: ...

        @hookimpl(hookwrapper=True)
        def bifrost_reserve(self, budget: object) -> Generator[None, None, None]:
            yield

    with pytest.raises(PluginError) as caught:
        compile_hooks([Many()])
    for word in ("bifrost_authorise is no hook", "use wrapper=True", "'budget'"):
        assert word in caught.value.message


def test_a_hook_of_a_later_version_may_be_optional() -> None:
    class Ahead(Works):
        @hookimpl(optionalhook=True)
        def bifrost_teleport(self) -> None: ...

    assert list(compile_hooks([Ahead()]).describe()) == ["bifrost_authorize"]


def test_a_property_is_not_a_hook() -> None:
    class Lazy(Works):
        @property
        def bifrost_reserve(self) -> NoReturn:
            raise AssertionError("evaluated")

    assert list(compile_hooks([Lazy()]).describe()) == ["bifrost_authorize"]


# -- identity ---------------------------------------------------------------------------------------


def test_a_plugin_is_registered_once() -> None:
    works = Works()
    with pytest.raises(PluginError, match="registered already, as Works; pass it once"):
        compile_hooks([works, works])


def test_a_plugin_that_can_not_be_hashed_is_refused() -> None:
    @attrs.define
    class Compared(Works):
        limit: int = 3

    with pytest.raises(PluginError, match=r"can not be hashed.*eq=False"):
        compile_hooks([Compared()])


def test_plugins_that_compare_equal_are_refused() -> None:
    @attrs.frozen
    class Compared(Works):
        limit: int = 3

    with pytest.raises(PluginError, match="compares equal to Compared; make the class eq=False"):
        compile_hooks([Compared(), Compared()])
    assert list(compile_hooks([Compared(), Compared(4)]).plugins) == ["Compared", "Compared#2"]


def test_plugins_whose_comparison_fails_are_refused() -> None:
    class Odd(Works):
        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

        __hash__ = object.__hash__

    with pytest.raises(PluginError, match="comparing it fails with ZeroDivisionError"):
        compile_hooks([Odd(), Odd()])


def test_names_are_readable_and_unique() -> None:
    class Named(Works):
        def __init__(self, name: Any) -> None:
            self.name = name

    module = types.ModuleType("my_module")
    module.bifrost_authorize = hookimpl(lambda request: None)  # type: ignore[attr-defined] # made by hand
    plugins = [Works(), Works(), Named("mine"), Named("mine"), Named("mine"), Named(3), Named(""), module]
    assert list(compile_hooks(plugins).plugins) == [
        "Works", "Works#2", "mine", "mine#2", "mine#3", "Named", "Named#2", "my_module",
    ]  # fmt: skip


def test_what_pluggy_itself_refuses_is_a_plugin_error_too() -> None:
    class Sly(Works):
        """Compares unequal at first: to our check, then equal, to pluggy's."""

        asked = 0

        def __eq__(self, other: object) -> bool:
            self.asked += 1
            return self.asked > 1

        __hash__ = object.__hash__

    with pytest.raises(PluginError, match="already registered") as caught:
        compile_hooks([Sly(), Sly()])
    assert caught.value.plugin == "Sly#2"


# -- options ----------------------------------------------------------------------------------------

WRONG_OPTIONS: dict[str, tuple[str, Any, str]] = {
    "open authenticate": ("bifrost_authenticate", HookOptions(on_error="open"), "on_error='open'"),
    "open authorize": (A, HookOptions(on_error="open"), "say 'closed'"),
    "open resolve_secret": ("bifrost_resolve_secret", HookOptions(on_error="open"), "on_error='open'"),
    "open lifespan": ("bifrost_lifespan", HookOptions(on_error="open"), "on_error='open'"),
    "open providers": ("bifrost_providers", HookOptions(on_error="open"), "on_error='open'"),
    "open rewriting guard": ("bifrost_guard_request", HookOptions(on_error="open"), "add checks=True"),
    "closed settling": ("bifrost_attempt_finished", HookOptions(on_error="closed"), "say 'open'"),
    "closed recover": ("bifrost_recover", HookOptions(on_error="closed"), "say 'open'"),
    "closed end": (N, HookOptions(on_error="closed"), "say 'open'"),
    "no such setting": (G, HookOptions(on_error="shut"), "on_error='shut'"),  # type: ignore[arg-type] # a user's
    "checking gate": (A, HookOptions(checks=True), "leave checks out"),
    "thread where nothing waits": ("bifrost_pick_route", HookOptions(thread=True), "leave thread out"),
    "cap where nothing waits": ("bifrost_stream_filter", HookOptions(timeout=1), "leave timeout out"),
    "no cap where nothing waits": ("bifrost_stream_filter", HookOptions(timeout=None), "leave timeout out"),
    "zero": (A, HookOptions(timeout=0), "more than 0"),
    "endless": (A, HookOptions(timeout=float("inf")), "finite"),
    "not a number": (A, HookOptions(timeout=float("nan")), "finite"),
    "text": (A, HookOptions(timeout="1"), "pass seconds or None"),  # type: ignore[arg-type] # a user's
    "truth": (A, HookOptions(timeout=True), "pass seconds or None"),
    "stream of a gate": (A, HookOptions(stream="off"), "belongs to bifrost_guard_response"),
    "no such stream": (G, HookOptions(stream="window"), 'say "buffer" or "off"'),  # type: ignore[arg-type] # a user's
    "not options": (A, {"timeout": 1}, "has dict as its hook_options"),
}


@pytest.mark.parametrize("mistake", list(WRONG_OPTIONS))
def test_an_option_that_a_hook_does_not_allow_is_refused(mistake: str) -> None:
    hook, options, said = WRONG_OPTIONS[mistake]
    with pytest.raises(PluginError) as caught:
        compile_hooks([made(hook, fine, options)])
    assert said in caught.value.message
    assert (caught.value.plugin, caught.value.hook) == ("Made", hook)


@pytest.mark.parametrize(
    ("hook", "options"),
    [
        pytest.param(A, HookOptions(on_error="closed", timeout=3, thread=True), id="gate"),
        pytest.param("bifrost_guard_request", HookOptions(on_error="open", checks=True), id="checking guard"),
        pytest.param("bifrost_reserve", HookOptions(on_error="open"), id="soft budget"),
        pytest.param("bifrost_cached_response", HookOptions(on_error="closed", timeout=None), id="cache only"),
        pytest.param("bifrost_pick_route", HookOptions(on_error="closed"), id="residency"),
        pytest.param(G, HookOptions(on_error="open", stream="off"), id="guard of answers"),
        pytest.param("bifrost_stream_filter", HookOptions(on_error="open"), id="filter"),
        pytest.param("bifrost_lifespan", HookOptions(), id="nothing said"),
        pytest.param("bifrost_lifespan", HookOptions(timeout=30), id="slow start"),
    ],
)
def test_an_option_that_a_hook_allows_is_taken(hook: str, options: HookOptions) -> None:
    compile_hooks([made(hook, fine, options)])


@pytest.mark.parametrize(
    "implementation", [pytest.param((fine_async, {}), id="async"), pytest.param((wraps, {"wrapper": True}), id="wraps")]
)
def test_only_a_plain_function_runs_in_a_thread(implementation: tuple[Any, dict[str, Any]]) -> None:
    function, marks = implementation
    with pytest.raises(PluginError, match="only a plain function blocks"):
        compile_hooks([made(A, function, HookOptions(thread=True), **marks)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"bifrost_reserve": HookOptions()}, "is not implemented", id="not implemented"),
        pytest.param({"bifrost_authorise": HookOptions()}, "did you mean bifrost_authorize", id="misspelt"),
        pytest.param([HookOptions()], "hook_options is list", id="no mapping"),
        pytest.param({3: HookOptions()}, "is no hook", id="a number"),
    ],
)
def test_options_belong_to_hooks_that_the_plugin_has(options: Any, said: str) -> None:
    works = Works()
    works.hook_options = options  # type: ignore[attr-defined] # options of one instance
    with pytest.raises(PluginError, match=said):
        compile_hooks([works])


def test_a_plugin_with_a_filter_does_not_say_that_it_skips_streams() -> None:
    class Both:
        hook_options = {G: HookOptions(stream="off")}  # noqa: RUF012 # as users write it

        @hookimpl
        def bifrost_guard_response(self) -> None: ...

        @hookimpl
        def bifrost_stream_filter(self) -> None: ...

    with pytest.raises(PluginError, match="drop one of them"):
        compile_hooks([Both()])


# -- installed plugins ------------------------------------------------------------------------------


def entry(name: str, value: str) -> metadata.EntryPoint:
    return metadata.EntryPoint(name, value, "bifrost")


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[metadata.EntryPoint]:
    """Entry points that are installed, as far as the library can tell."""
    entries: list[metadata.EntryPoint] = []

    def entry_points(*, group: str) -> list[metadata.EntryPoint]:
        assert group == "bifrost"
        return entries

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    return entries


def test_plugins_are_made_by_name_in_the_order_asked_for(offered: list[metadata.EntryPoint]) -> None:
    offered += [entry("ordered", "collections:OrderedDict"), entry("counter", "collections:Counter")]
    assert [type(each).__name__ for each in load_plugins("counter", "ordered", "counter")] == [
        "Counter", "OrderedDict", "Counter",
    ]  # fmt: skip
    assert load_plugins() == []


def test_an_unknown_name_lists_what_is_installed(offered: list[metadata.EntryPoint]) -> None:
    with pytest.raises(ConfigError, match="'budgets' is not installed; installed are: none"):
        load_plugins("budgets")
    offered += [entry("b", "x:y"), entry("a", "x:y")]
    with pytest.raises(ConfigError, match="installed are: a, b"):
        load_plugins("budgets")


def test_a_name_that_two_distributions_offer_is_refused(offered: list[metadata.EntryPoint]) -> None:
    offered += [entry("a", "collections:Counter"), entry("a", "tapping:factory")]
    with pytest.raises(ConfigError, match=r"\? \(collections:Counter\) and \? \(tapping:factory\); uninstall one"):
        load_plugins("a")


def test_one_distribution_that_is_found_twice_is_no_conflict(offered: list[metadata.EntryPoint]) -> None:
    offered += [entry("a", "collections:Counter"), entry("a", "collections:Counter")]
    assert len(load_plugins("a")) == 1


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        pytest.param("no_such_module_at_all:factory", ModuleNotFoundError, id="not there"),
        pytest.param("collections:abc_xyz", AttributeError, id="no such name"),
        pytest.param("string:digits", TypeError, id="not callable"),
        pytest.param("operator:truediv", TypeError, id="wants arguments"),
    ],
)
def test_a_plugin_that_can_not_be_made_is_named(
    value: str, cause: type[Exception], offered: list[metadata.EntryPoint]
) -> None:
    offered.append(entry("broken", value))
    with pytest.raises(PluginError, match=f"plugin broken: {value} failed with {cause.__name__}") as caught:
        load_plugins("broken")
    assert caught.value.plugin == "broken"
    assert isinstance(caught.value.__cause__, cause)


# -- plugins with options, as configuration names them ---------------------------------------------


def test_configuration_gives_a_plugin_its_options(offered: list[metadata.EntryPoint]) -> None:
    offered += [entry("counter", "collections:Counter"), entry("named", "collections:namedtuple")]
    made = options_from_config(
        {
            "providers": [],
            "plugins": ["counter", {"name": "named", "typename": "Limits", "field_names": ["a"], "defaults": [7]}],
        }
    )["plugins"]
    assert [type(made[0]).__name__, made[1].__name__, made[1]().a] == ["Counter", "Limits", 7]


@pytest.mark.parametrize(
    ("plugins", "why", "field"),
    [
        pytest.param("counter", "no list of names and tables", "plugins", id="a-string"),
        pytest.param({"counter": {}}, "no list of names and tables", "plugins", id="a-table"),
        pytest.param([7], r"plugins\[0\] is neither a name nor a table", "plugins[0]", id="a-number"),
        pytest.param(["named", {"x": 1}], r"plugins\[1\] has no name", "plugins[1].name", id="nameless"),
        pytest.param(
            [{"name": "named", "colour": "red"}],
            "'named' has no option 'colour'; there are typename, field_names, rename, defaults, module",
            "plugins.named.colour",
            id="unknown-option",
        ),
        pytest.param([{"name": "late", "a": 1}], "'late' is not installed", "plugins", id="not-installed"),
    ],
)
def test_a_wrong_entry_for_a_plugin_is_named(
    plugins: object, why: str, field: str, offered: list[metadata.EntryPoint]
) -> None:
    offered.append(entry("named", "collections:namedtuple"))
    with pytest.raises(ConfigError, match=why) as caught:
        options_from_config({"providers": [], "plugins": plugins})
    assert caught.value.field == field


def test_what_a_factory_says_of_its_options_reaches_the_user(offered: list[metadata.EntryPoint]) -> None:
    offered += [entry("key", "bifrost_core:Key"), entry("named", "collections:namedtuple")]
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE is not set"):
        options_from_config({"providers": [], "plugins": [{"name": "key", "secret": "env:NO_SUCH_VARIABLE"}]})
    with pytest.raises(PluginError, match="collections:namedtuple failed with TypeError; it must name a factory that"):
        options_from_config({"providers": [], "plugins": [{"name": "named", "typename": "X"}]})


def test_every_hook_is_in_the_message_that_lists_them() -> None:
    with pytest.raises(PluginError) as caught:
        compile_hooks([MISTAKES["unknown"][0]])
    assert all(hook in caught.value.message for hook in HOOKS)
