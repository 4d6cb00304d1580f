"""``check_plugin`` says what a Router would say, without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from bifrost_core.calls import Call
from bifrost_core.errors import PluginError
from bifrost_core.hooks import HookOptions
from bifrost_core.hookspecs import hookimpl
from bifrost_core.testing.plugins import check_plugin
from bifrost_core.types import Request


class Budgets:
    @hookimpl
    async def bifrost_attempt_finished(self) -> None: ...

    @hookimpl
    def bifrost_reserve(self, call: Call) -> None: ...

    @hookimpl
    def bifrost_authorize(self, request: Request) -> None:
        raise AssertionError("no hook is called")


def test_a_plugin_without_mistakes_gives_its_hooks_in_the_order_of_a_call() -> None:
    assert check_plugin(Budgets()) == ["bifrost_authorize", "bifrost_reserve", "bifrost_attempt_finished"]


def test_the_same_plugin_may_be_checked_again() -> None:
    budgets = Budgets()
    assert check_plugin(budgets) == check_plugin(budgets)


def test_all_mistakes_are_told_at_once() -> None:
    class Broken(Budgets):
        hook_options: ClassVar[Mapping[str, HookOptions]] = {"bifrost_authorize": HookOptions(on_error="open")}

        @hookimpl
        async def bifrost_pick_route(self) -> None: ...

        @hookimpl
        def bifrost_recover(self, mistake: Any) -> None: ...

    with pytest.raises(PluginError) as caught:
        check_plugin(Broken())
    message = caught.value.message
    assert message.startswith("plugin Broken: ")
    for hook in ("bifrost_pick_route never waits", "bifrost_recover has an argument", "bifrost_authorize can not be"):
        assert hook in message


def test_a_class_is_not_a_plugin() -> None:
    with pytest.raises(PluginError, match=r"pass an instance, Budgets\(…\)"):
        check_plugin(Budgets)
