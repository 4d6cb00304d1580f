"""What a member of a request may be, and in which words anything else is refused: the first finding only.

Source:
    https://platform.openai.com/docs/api-reference (types and ranges of members) and refusals quoted in public
    reports: codes such as ``unknown_parameter``, ``missing_required_parameter``, ``invalid_type``,
    ``invalid_value`` and ``integer_below_min_value``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

from bifrost_core.testing.serving._answers import Json
from bifrost_core.testing.serving._shapes import is_list, is_object

from ._errors import OpenAIError

__all__ = [
    "Check",
    "anything",
    "boolean",
    "check_members",
    "choice",
    "integer",
    "is_list",
    "is_object",
    "list_of",
    "mapping",
    "members",
    "number",
    "refused",
    "text",
    "texts",
]

Check: TypeAlias = Callable[[str, object], None]
"""Refuses the value at a path, such as ``messages[0].content``."""


def refused(message: str, param: str | None, code: str | None = None) -> OpenAIError:
    """400 for one member."""
    return OpenAIError.of(400, message, param=param, code=code)


def check_members(body: Json, known: Mapping[str, Check], required: tuple[str, ...] = (), *, path: str = "") -> None:
    """Refuse unknown members, missing ones and those that are not what they should be; null stands for none.

    Args:
        body: The object.
        known: What it may hold.
        required: What it must hold.
        path: Where the object is in the body.

    Raises:
        OpenAIError: 400 for the first finding.
    """
    inside = f"{path}." if path else ""
    for name in required:
        if name not in body:
            where = inside + name
            raise refused(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
    for name, value in body.items():
        where = inside + name
        if name not in known:
            raise refused(f"Unknown parameter: '{where}'.", where, "unknown_parameter")
        if value is not None or name in required:
            known[name](where, value)


def members(known: Mapping[str, Check], *required: str) -> Check:
    """An object with these members."""

    def check(path: str, value: object) -> None:
        if not is_object(value):
            raise _wrong_type(path, "an object", value)
        check_members(value, known, required, path=path)

    return check


def anything(_path: str, _value: object) -> None:
    """Whatever it is."""


def text(path: str, value: object) -> None:
    """A text."""
    if not isinstance(value, str):
        raise _wrong_type(path, "a string", value)


def texts(path: str, value: object) -> None:
    """A text or a list of texts."""
    if not isinstance(value, str) and not (is_list(value) and all(isinstance(each, str) for each in value)):
        raise _wrong_type(path, "one of a string or array of strings", value)


def boolean(path: str, value: object) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong_type(path, "a boolean", value)


def mapping(path: str, value: object) -> None:
    """An object."""
    if not is_object(value):
        raise _wrong_type(path, "an object", value)


def integer(least: int, greatest: float = math.inf) -> Check:
    """A whole number within bounds."""

    def check(path: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(path, "an integer", value)
        _check_range(path, value, least, greatest, "integer")

    return check


def number(least: float, greatest: float) -> Check:
    """A number within bounds."""

    def check(path: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(path, "a decimal", value)
        _check_range(path, value, least, greatest, "decimal")

    return check


def choice(*known: str) -> Check:
    """One of some words."""

    def check(path: str, value: object) -> None:
        text(path, value)
        if value not in known:
            *first, last = [f"'{word}'" for word in known]
            names = f"{', '.join(first)} and {last}" if first else last
            raise refused(f"Invalid value: '{value}'. Supported values are: {names}.", path, "invalid_value")

    return check


def list_of(check: Check) -> Check:
    """A list of them."""

    def check_list(path: str, value: object) -> None:
        if not is_list(value):
            raise _wrong_type(path, "an array", value)
        for index, item in enumerate(value):
            check(f"{path}[{index}]", item)

    return check_list


def _check_range(path: str, value: float, least: float, greatest: float, kind: str) -> None:
    if least <= value <= greatest:
        return
    side, sign, bound = ("below minimum", ">=", least) if value < least else ("above maximum", "<=", greatest)
    message = f"Invalid '{path}': {kind} {side} value. Expected a value {sign} {bound:g}, but got {value} instead."
    raise refused(message, path, f"{kind}_{'below_min' if value < least else 'above_max'}_value")


def _wrong_type(path: str, wanted: str, value: object) -> OpenAIError:
    names: dict[type, str] = {
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        str: "a string",
        list: "an array",
    }
    given = "null" if value is None else names.get(_type_of(value), "an object")
    return refused(f"Invalid type for '{path}': expected {wanted}, but got {given} instead.", path, "invalid_type")


def _type_of(value: object) -> type:
    return type(value)
