"""Keys: equal exactly where requests and callers are the same."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import pytest
from bifrost_plugins.response_cache._keys import Keys, NotComparableError, canonical, file_bytes
from hypothesis import given
from hypothesis import strategies as st

from bifrost_core import Call, Operation, Principal, Request, Secret
from bifrost_core.structured import response_format_of
from bifrost_core.types import File

KEYS = Keys(b"k" * 32)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def typed(value: Any) -> Any:
    """The value as plain data that says the types too: an oracle that shares nothing with the encoder."""
    if isinstance(value, dict):
        return ("object", tuple(sorted((name, typed(each)) for name, each in value.items())))
    if isinstance(value, list):
        return ("array", tuple(typed(each) for each in value))
    return (type(value).__name__, repr(value))


def request(body: dict[str, Any] | None = None, **changes: Any) -> Request:
    fields = {"operation": Operation.CHAT, "model": "mistral/m", "body": body or {"a": 1}, **changes}
    return Request(**fields)


def call_of(principal: Principal | None = None, virtual_key: str | None = None) -> Call:
    made = request()
    return Call(
        "c", made.operation, made, principal=principal, virtual_key=None if virtual_key is None else Secret(virtual_key)
    )


@given(VALUES, VALUES)
def test_two_values_have_the_same_bytes_exactly_where_they_say_the_same(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == (typed(one) == typed(other))


@given(VALUES)
def test_the_order_of_members_plays_no_role_and_nothing_is_lost(value: Any) -> None:
    def turned(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {name: turned(each) for name, each in reversed(inner.items())}
        return [turned(each) for each in inner] if isinstance(inner, list) else inner

    assert canonical(turned(value)) == canonical(value)
    assert typed(json.loads(canonical(value))) == typed(value)


def test_numbers_texts_and_booleans_that_look_alike_differ() -> None:
    alike = [1, 1.0, "1", True, "true", None, "null", [1], {"1": 1}, 0, -0.0, 0.0, False, ""]
    assert len({canonical({"a": value}) for value in alike}) == len(alike)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize(
    "around", [lambda x: x, lambda x: {"a": [x]}, lambda x: [{"b": x}]], ids=["bare", "in an object", "in an array"]
)
def test_nan_is_refused_wherever_it_stands(value: float, around: Any) -> None:
    with pytest.raises(NotComparableError):
        canonical(around(value))


@pytest.mark.parametrize(
    "value",
    [object(), {"a": {1, object()}}, "\ud800", lambda: 1],
    ids=["object", "set", "half a pair", "function"],
)
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(NotComparableError):
        canonical(value)


def variants() -> Iterator[tuple[str, Request, Call]]:
    yield "as it is", request(), call_of()
    yield "model", request(model="mistral/n"), call_of()
    yield "operation", request(operation=Operation.FIM), call_of()
    yield "a new field", request({"a": 1, "new_field": None}), call_of()
    yield "a field's type", request({"a": 1.0}), call_of()
    yield "a file", request(files=[File("file", "a.mp3", b"abc")]), call_of()
    yield "a file's bytes", request(files=[File("file", "a.mp3", b"abd")]), call_of()
    yield "a file's name", request(files=[File("file", "b.mp3", b"abc")]), call_of()
    yield "two files", request(files=[File("file", "a.mp3", b"ab"), File("file", "a.mp3", b"c")]), call_of()
    yield "a virtual key", request(), call_of(virtual_key="sk-bf-0001")
    yield "another virtual key", request(), call_of(virtual_key="sk-bf-0002")
    yield "a principal", request(), call_of(Principal(id="acme"))
    yield "a tenant of that name", request(), call_of(Principal(id="x", tenant="acme"))
    yield "another tenant", request(), call_of(Principal(id="x", tenant="umbrella"))
    yield "an empty tenant", request(), call_of(Principal(id="x", tenant=""))
    yield "another principal with an empty tenant", request(), call_of(Principal(id="y", tenant=""))
    yield "a principal named tenant", request(), call_of(Principal(id="tenant"))


def test_whatever_differs_gives_another_key() -> None:
    keys = {name: KEYS.key(made, call) for name, made, call in variants()}
    same = [(one, two) for one, two in itertools.combinations(keys, 2) if keys[one] == keys[two]]
    assert same == []


def test_a_stream_has_the_key_of_the_plain_request() -> None:
    assert KEYS.key(request(stream=True), call_of()) == KEYS.key(request(), call_of())


def test_two_principals_of_one_tenant_share_and_what_else_they_are_plays_no_role() -> None:
    one = call_of(Principal(id="alice", tenant="acme", team="a"), "sk-bf-0001")
    two = call_of(Principal(id="bob", tenant="acme", team="b"), "sk-bf-0002")
    assert KEYS.key(request(), one) == KEYS.key(request(), two)
    own = Keys(b"k" * 32, scope="principal")
    assert own.key(request(), one) != own.key(request(), two)
    wide = Keys(b"k" * 32, scope="router")
    assert wide.key(request(), one) == wide.key(request(), call_of())


def test_another_secret_or_version_gives_other_keys() -> None:
    made = {
        Keys(secret, version=version).key(request(), call_of())
        for secret in (b"k" * 32, b"l" * 32)
        for version in ("", "2")
    }
    assert len(made) == 4


class Found(TypedDict):
    total: int


def test_a_class_is_equal_to_itself_and_told_from_its_schema_and_from_others() -> None:
    class Other(TypedDict):
        total: str

    class NoSchema:
        def __init__(self) -> None: ...

    schema = response_format_of(Found)
    assert canonical({"text_format": Found}) == canonical({"text_format": Found})
    assert len({canonical({"text_format": each}) for each in (Found, Other, schema)}) == 3
    with pytest.raises(NotComparableError):
        canonical({"text_format": NoSchema})


def test_a_file_on_disk_is_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(b"abc")
    with pytest.raises(NotComparableError):
        file_bytes(request(files=[File("file", "a.mp3", path)]), 10)
    with pytest.raises(NotComparableError):
        file_bytes(request(files=[File("file", "a.mp3", b"abc")]), 2)
    assert file_bytes(request(files=[File("file", "a.mp3", b"abc")]), 3) == 3


def test_neither_keys_nor_their_maker_show_a_secret() -> None:
    keys = Keys(b"canary-secret".ljust(32))
    made = keys.key(request(), call_of(virtual_key="sk-bf-canary"))
    assert "canary" not in repr(keys)
    assert "canary" not in made
