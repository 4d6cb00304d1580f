"""The hooks are those of the design, each with its rule, colour, arguments and an explanation."""

from __future__ import annotations

import inspect

import attrs
import pytest

from bifrost_core import hookspecs
from bifrost_core.hooks.options import POLICIES
from bifrost_core.hookspecs import HOOKS, Hook, Rule, StreamFilter
from bifrost_core.types import Chunk

# name, rule, is_async, arguments, on the way out
DESIGN = [
    ("bifrost_authenticate", "first", True, ("call",), False),
    ("bifrost_authorize", "gate", True, ("request", "call"), False),
    ("bifrost_guard_request", "pipe", True, ("request", "call"), False),
    ("bifrost_cached_response", "first", True, ("request", "call"), False),
    ("bifrost_select_routes", "pipe", True, ("routes", "call"), False),
    ("bifrost_pick_route", "first", False, ("routes", "call"), False),
    ("bifrost_reserve", "gate", True, ("attempt", "call"), False),
    ("bifrost_attempt_finished", "notify", True, ("attempt", "call"), True),
    ("bifrost_stream_filter", "collect", False, ("call",), True),
    ("bifrost_guard_response", "pipe", True, ("response", "call"), True),
    ("bifrost_recover", "first", True, ("error", "call"), True),
    ("bifrost_call_finished", "notify", True, ("record", "call"), True),
    ("bifrost_lifespan", "collect", False, ("router",), False),
    ("bifrost_providers", "collect", False, ("router",), False),
    ("bifrost_resolve_secret", "first", True, ("reference",), False),
]


def test_the_hooks_are_those_of_the_design_in_the_order_of_a_call() -> None:
    assert list(HOOKS.values()) == [
        Hook(name, Rule(rule), is_async, arguments, outward) for name, rule, is_async, arguments, outward in DESIGN
    ]


def test_every_hook_says_what_its_failure_does() -> None:
    assert set(POLICIES) == set(HOOKS)


@pytest.mark.parametrize("name", [row[0] for row in DESIGN])
def test_every_hook_is_explained_and_typed(name: str) -> None:
    spec = getattr(hookspecs, name)
    lines = (inspect.getdoc(spec) or "").splitlines()
    assert len(lines) >= 3, "one line that fits, and what returning and raising mean"
    assert lines[0].endswith(".")
    assert "failure" in " ".join(lines)
    signature = inspect.signature(spec)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(each.annotation is not inspect.Parameter.empty for each in signature.parameters.values())


def test_a_field_is_named_without_the_prefix() -> None:
    assert HOOKS["bifrost_pick_route"].field == "pick_route"


def test_hooks_can_not_be_changed() -> None:
    with pytest.raises(TypeError):
        HOOKS["bifrost_new"] = HOOKS["bifrost_recover"]  # type: ignore[index] # that is the point
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        HOOKS["bifrost_recover"].rule = Rule.GATE  # type: ignore[misc] # that is the point


def test_an_object_with_feed_and_finish_is_a_stream_filter() -> None:
    class Through:
        def feed(self, chunk: Chunk) -> list[Chunk]:
            return [chunk]

        def finish(self) -> list[Chunk]:
            return []

    assert isinstance(Through(), StreamFilter)
    assert not isinstance(object(), StreamFilter)
