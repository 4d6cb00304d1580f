"""JSON Schemas of requests, where ``strict`` holds them to OpenAI's subset.

Source:
    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas: the root is an object, every
    object says ``additionalProperties: false`` and requires all of its properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from bifrost_core.testing.serving._answers import Json

from ._members import Check, boolean, is_list, is_object, mapping, refused, text

__all__ = ["SCHEMA_FORMAT", "check_strict", "function_name"]

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_BRANCHES: Final = ("anyOf", "allOf", "oneOf")
_MAPS: Final = ("properties", "$defs", "definitions")


def function_name(path: str, value: object) -> None:
    """A name of letters, digits, underscores and dashes, 64 at most."""
    text(path, value)
    if isinstance(value, str) and _NAME.fullmatch(value) is None:
        message = f"Invalid '{path}': string does not match pattern. Expected a string that matches the pattern "
        raise refused(message + "'^[a-zA-Z0-9_-]+$'.", path, "invalid_value")


SCHEMA_FORMAT: Final[dict[str, Check]] = {
    "name": function_name,
    "schema": mapping,
    "description": text,
    "strict": boolean,
}


def check_strict(schema: object, what: str, path: str, code: str | None = None) -> None:
    """Refuse a schema that ``strict`` does not allow.

    Args:
        schema: The schema.
        what: Whose it is, for the words: ``response_format 'x'`` or ``function 'x'``.
        path: Where it is in the body.
        code: Of the refusal.

    Raises:
        OpenAIError: 400.
    """
    if not is_object(schema) or (schema.get("type") != "object" and "$ref" not in schema):
        kind = schema.get("type") if is_object(schema) else None
        message = f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
        raise refused(f"Invalid schema for {what}: {message}", path, code)
    for context, part in _objects(schema, ()):
        words = ", ".join(repr(each) for each in context)
        said = f"Invalid schema for {what}: In context=({words}), "
        if part.get("additionalProperties") is not False:
            said += "'additionalProperties' is required to be supplied and to be false."
            raise refused(said, path, code)
        properties: object = part.get("properties")
        required: object = part.get("required")
        missing = [
            name
            for name in (properties if is_object(properties) else {})
            if not is_list(required) or name not in required
        ]
        if missing:
            said += "'required' is required to be supplied and to be an array including every key in properties. "
            raise refused(f"{said}Missing '{missing[0]}'.", path, code)


def _objects(schema: object, context: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Json]]:
    """All schemas of objects inside a schema, itself included."""
    if not is_object(schema):
        return
    if schema.get("type") == "object" or "properties" in schema:
        yield context, schema
    for name in _MAPS:
        inner: object = schema.get(name)
        if is_object(inner):
            for key, each in inner.items():
                yield from _objects(each, (*context, name, key))
    for name in _BRANCHES:
        branches: object = schema.get(name)
        if is_list(branches):
            for index, each in enumerate(branches):
                yield from _objects(each, (*context, name, str(index)))
    yield from _objects(schema.get("items"), (*context, "items"))
