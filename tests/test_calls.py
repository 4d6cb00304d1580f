"""``Call``, ``Principal`` and ``CallRecord``: what hooks are handed."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from bifrost_core import Call, Operation, Principal, Request


def call(**changes: Any) -> Call:
    return Call("c1", Operation.CHAT, Request(Operation.CHAT, "mistral/small"), **changes)


def test_a_calls_model_is_that_of_its_request_as_it_stands() -> None:
    made = call()
    made.request = attrs.evolve(made.request, model="mistral/large")
    assert made.model == "mistral/large"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param(["a/b", "c/d"], ("a/b", "c/d"), id="list"),
        pytest.param("a/b", ("a/b",), id="one-name"),
        pytest.param((), (), id="none"),
    ],
)
def test_fallbacks_are_a_tuple_of_names_however_they_are_set(given: Any, kept: tuple[str, ...]) -> None:
    made = call(fallbacks=given)
    assert made.fallbacks == kept
    made.fallbacks = ("x/y",)
    made.fallbacks = given
    assert made.fallbacks == kept


def test_each_plugin_has_a_state_of_its_own() -> None:
    made, one, other = call(), object(), object()
    made.state[one] = 1
    made.state[other] = 2
    assert (made.state[one], made.state[other]) == (1, 2)
    assert call().state == {}


def test_calls_are_themselves_and_principals_are_values() -> None:
    assert call() != call()
    assert Principal(id="a", roles={"x"}) == Principal(id="a", roles=["x"])
    assert Principal(id="a") != Principal(id="b")


def test_one_role_is_one_role() -> None:
    assert Principal(id="a", roles="admin").roles == frozenset({"admin"})


def test_words_and_headers_are_not_in_a_calls_repr() -> None:
    made = call(headers={"authorization": "hidden"}, metadata={"hidden": 1}, options={"session": "hidden"})
    assert "hidden" not in repr(made)
