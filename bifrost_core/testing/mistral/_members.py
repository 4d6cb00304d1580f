"""What a member of a request may be, and in which words anything else is refused.

Source:
    https://docs.mistral.ai/api (types and ranges of members) and refusals quoted in public reports,
    which are those of Pydantic: https://docs.pydantic.dev/latest/errors/validation_errors/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from bifrost_core.forms import Upload
from bifrost_core.testing.serving._answers import Json
from bifrost_core.testing.serving._shapes import is_list, is_object

from ._errors import MistralError, detail_item

__all__ = [
    "Check",
    "Findings",
    "Loc",
    "anything",
    "boolean",
    "check_members",
    "choice",
    "integer",
    "is_list",
    "is_object",
    "list_of",
    "mapping",
    "number",
    "optional",
    "pattern",
    "refuse",
    "schema_format",
    "text",
    "texts",
]

Findings: TypeAlias = list[dict[str, Any]]
Loc: TypeAlias = list[str | int]
Check: TypeAlias = Callable[[Loc, object], Findings]


def refuse(findings: Findings) -> None:
    """Raise what was found, if anything was.

    Raises:
        MistralError: 422 with the findings.
    """
    if findings:
        raise MistralError.detail(422, [{**finding, "input": _describe(finding["input"])} for finding in findings])


def check_members(
    body: Json,
    members: Mapping[str, Check],
    required: tuple[str, ...],
    *,
    is_open: bool = False,
    loc: Loc | None = None,
) -> Findings:
    """Missing members, unknown ones and those that are not what they should be.

    Args:
        body: The object.
        members: What it may hold.
        required: What it must hold.
        is_open: Unknown members are let through.
        loc: Where the object is in the body.
    """
    at: Loc = loc or []
    found: Findings = []
    for name, check in members.items():
        if name in body:
            found += check([*at, name], body[name])
        elif name in required:
            found.append(detail_item("missing", [*at, name], "Field required", body))
    if not is_open:
        found += [
            detail_item("extra_forbidden", [*at, name], "Extra inputs are not permitted", value)
            for name, value in body.items()
            if name not in members
        ]
    return found


def anything(_loc: Loc, _value: object) -> Findings:
    """Whatever it is."""
    return []


def optional(check: Check) -> Check:
    """The same, or null."""
    return lambda loc, value: [] if value is None else check(loc, value)


def text(loc: Loc, value: object) -> Findings:
    """A text."""
    return [] if isinstance(value, str) else [detail_item("string_type", loc, "Input should be a valid string", value)]


def pattern(form: str) -> Check:
    """A text of a form, given as a regular expression."""
    expression = re.compile(form)

    def check(loc: Loc, value: object) -> Findings:
        if isinstance(value, str) and expression.fullmatch(value) is None:
            words = f"String should match pattern '^{form}$'"
            return [detail_item("string_pattern_mismatch", loc, words, value)]
        return text(loc, value)

    return check


def texts(loc: Loc, value: object) -> Findings:
    """A text or a list of texts."""
    return [] if is_list(value) and all(isinstance(each, str) for each in value) else text(loc, value)


def boolean(loc: Loc, value: object) -> Findings:
    """True or false."""
    return [] if isinstance(value, bool) else [detail_item("bool_type", loc, "Input should be a valid boolean", value)]


def mapping(loc: Loc, value: object) -> Findings:
    """An object."""
    if is_object(value):
        return []
    return [detail_item("dict_type", loc, "Input should be a valid dictionary", value)]


def integer(least: int) -> Check:
    """A whole number from ``least`` on."""

    def check(loc: Loc, value: object) -> Findings:
        if isinstance(value, bool) or not isinstance(value, int):
            return [detail_item("int_type", loc, "Input should be a valid integer", value)]
        if value < least:
            words = f"Input should be greater than or equal to {least}"
            return [detail_item("greater_than_equal", loc, words, value)]
        return []

    return check


def number(loc: Loc, value: object) -> Findings:
    """A number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return []
    return [detail_item("float_type", loc, "Input should be a valid number", value)]


def choice(*known: str, kind: str = "enum") -> Check:
    """One of some words."""
    *first, last = [repr(word) for word in known]
    words = f"Input should be {', '.join(first)} or {last}" if first else f"Input should be {last}"

    def check(loc: Loc, value: object) -> Findings:
        return [] if isinstance(value, str) and value in known else [detail_item(kind, loc, words, value)]

    return check


def list_of(check: Check) -> Check:
    """A list of them."""

    def check_list(loc: Loc, value: object) -> Findings:
        if not is_list(value):
            return [detail_item("list_type", loc, "Input should be a valid list", value)]
        return [finding for index, item in enumerate(value) for finding in check([*loc, index], item)]

    return check_list


def schema_format(loc: Loc, value: object) -> Findings:
    """A ``response_format`` of the type ``json_schema``."""
    if not is_object(value):
        return mapping(loc, value)
    found = check_members(
        value, {"type": choice("json_schema", kind="literal_error"), "json_schema": mapping}, ("type",), loc=loc
    )
    inner: object = value.get("json_schema")
    if found or not is_object(inner):
        return found or [detail_item("missing", [*loc, "json_schema"], "Field required", value)]
    members: dict[str, Check] = {
        "name": text,
        "schema": mapping,
        "description": optional(text),
        "strict": optional(boolean),
    }
    return check_members(inner, members, ("name", "schema"), loc=[*loc, "json_schema"])


def _describe(value: object) -> object:
    """A value as a refusal repeats it: of a file the name only, in objects too."""
    if isinstance(value, Upload):
        return value.filename
    if isinstance(value, dict):
        return {name: _describe(each) for name, each in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_describe(each) for each in cast("list[object]", value)]
    return value
