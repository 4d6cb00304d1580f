"""A changed copy of a frozen value, for values that are checked already."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import attrs

__all__ = ["changed"]

_T = TypeVar("_T", bound=attrs.AttrsInstance)


@functools.cache
def _names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(attribute.name for attribute in attrs.fields(cls))


def changed(value: _T, /, **changes: Any) -> _T:
    """As ``attrs.evolve`` by the names of attributes, without converters and validators: at a third of its cost.

    Args:
        value: A frozen attrs value.
        **changes: By name, of the type that the attribute holds.
    """
    cls = type(value)
    made = cls.__new__(cls)
    put = object.__setattr__
    for name in _names(cls):
        put(made, name, changes[name] if name in changes else getattr(value, name))
    return made
