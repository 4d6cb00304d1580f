"""What a member of a request may be, and in which words anything else is refused: the first finding only.

Source:
    https://platform.claude.com/docs/en/api/messages/create (types and ranges of members) and refusals quoted in
    public reports, which are those of Pydantic behind the path of the member:
    https://docs.pydantic.dev/latest/errors/validation_errors/.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from bifrost_core.testing.serving._answers import Json
from bifrost_core.testing.serving._shapes import is_list, is_object

from ._errors import AnthropicError

__all__ = [
    "Check",
    "anything",
    "boolean",
    "check_members",
    "choice",
    "is_list",
    "is_object",
    "list_of",
    "mapping",
    "members",
    "number",
    "optional",
    "pattern",
    "text",
]

Check: TypeAlias = Callable[[str, object], None]
"""Refuses the value at a path, such as ``messages.0.content``."""


def check_members(body: Json, known: Mapping[str, Check], required: tuple[str, ...] = (), *, path: str = "") -> None:
    """Refuse missing members, unknown ones and those that are not what they should be.

    Args:
        body: The object.
        known: What it may hold.
        required: What it must hold.
        path: Where the object is in the body.

    Raises:
        AnthropicError: 400 for the first finding.
    """
    inside = f"{path}." if path else ""
    for name in required:
        if name not in body:
            raise AnthropicError.bad(f"{inside}{name}: Field required")
    for name, value in body.items():
        if name not in known:
            raise AnthropicError.bad(f"{inside}{name}: Extra inputs are not permitted")
        known[name](inside + name, value)


def members(known: Mapping[str, Check], *required: str) -> Check:
    """An object with these members."""

    def check(path: str, value: object) -> None:
        mapping(path, value)
        if is_object(value):
            check_members(value, known, required, path=path)

    return check


def anything(_path: str, _value: object) -> None:
    """Whatever it is."""


def optional(check: Check) -> Check:
    """The same, or null."""

    def check_given(path: str, value: object) -> None:
        if value is not None:
            check(path, value)

    return check_given


def text(path: str, value: object) -> None:
    """A text."""
    if not isinstance(value, str):
        raise AnthropicError.bad(f"{path}: Input should be a valid string")


def pattern(form: str) -> Check:
    """A text of a form, given as a regular expression."""
    expression = re.compile(form)

    def check(path: str, value: object) -> None:
        text(path, value)
        if isinstance(value, str) and expression.fullmatch(value) is None:
            raise AnthropicError.bad(f"{path}: String should match pattern '^{form}$'")

    return check


def boolean(path: str, value: object) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise AnthropicError.bad(f"{path}: Input should be a valid boolean")


def mapping(path: str, value: object) -> None:
    """An object."""
    if not is_object(value):
        raise AnthropicError.bad(f"{path}: Input should be a valid dictionary")


def number(least: float, greatest: float = math.inf, *, whole: bool = False) -> Check:
    """A number within bounds."""

    def check(path: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise AnthropicError.bad(f"{path}: Input should be a valid {'integer' if whole else 'number'}")
        if value < least:
            raise AnthropicError.bad(f"{path}: Input should be greater than or equal to {least:g}")
        if value > greatest:
            raise AnthropicError.bad(f"{path}: Input should be less than or equal to {greatest:g}")

    return check


def choice(*known: str) -> Check:
    """One of some words."""
    *first, last = [repr(word) for word in known]
    words = f"{', '.join(first)} or {last}" if first else last

    def check(path: str, value: object) -> None:
        if not isinstance(value, str) or value not in known:
            raise AnthropicError.bad(f"{path}: Input should be {words}")

    return check


def list_of(check: Check) -> Check:
    """A list of them."""

    def check_list(path: str, value: object) -> None:
        if not is_list(value):
            raise AnthropicError.bad(f"{path}: Input should be a valid list")
        for index, item in enumerate(value):
            check(f"{path}.{index}", item)

    return check_list
