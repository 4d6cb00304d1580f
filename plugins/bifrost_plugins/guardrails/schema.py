"""JSON Schema, as much of it as answers are held to; what is not known is refused and never ignored.

Source:
    https://json-schema.org/draft/2020-12/json-schema-validation and .../json-schema-core.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (schemas and values are JSON: their members are untyped until this module has read them)
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from bifrost_core import ConfigError

from .patterns import check

__all__ = ["Schema"]

_DEPTH: Final = 64
_TYPES: Final[Mapping[str, Any]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
    "integer": (int, float),
}
_NOTES: Final = frozenset(
    {"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "format"}
    | {"readOnly", "writeOnly", "discriminator"}
)  # of these "format" is an annotation unless a vocabulary says otherwise (validation, 7.2.1)
_CHECKED: Final = frozenset(
    {"$ref", "$defs", "definitions", "type", "enum", "const", "allOf", "anyOf", "oneOf", "not", "properties"}
    | {"required", "additionalProperties", "minProperties", "maxProperties", "items", "prefixItems", "minItems"}
    | {"maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "minimum", "maximum", "exclusiveMinimum"}
    | {"exclusiveMaximum", "multipleOf"}
)


class Schema:
    """A schema, read once.

    Args:
        schema: As JSON.

    Raises:
        ConfigError: It has a keyword that is not known here, a reference that leads nowhere, or an unsafe pattern.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root: Any = msgspec.json.decode(msgspec.json.encode(dict(schema)))  # a copy, and JSON for sure
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._read(self._root, "schema")

    def _read(self, schema: Any, place: str) -> None:
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise ConfigError(f"{place} is no schema; a schema is an object or a boolean", field="schema")
        for name, value in schema.items():
            inside = f"{place}.{name}"
            if name in {"properties", "$defs", "definitions"}:
                for member, each in value.items():
                    self._read(each, f"{inside}.{member}")
            elif name in {"allOf", "anyOf", "oneOf", "prefixItems"}:
                for number, each in enumerate(value):
                    self._read(each, f"{inside}[{number}]")
            elif name in {"not", "items", "additionalProperties"}:
                self._read(value, inside)
            elif name == "pattern":
                self._patterns[value] = check(value).pattern
            elif name == "$ref":
                self._resolved(value, inside)
            elif name not in _CHECKED and name not in _NOTES:
                raise ConfigError(f"{inside}: this keyword is not supported", field="schema")

    def _resolved(self, reference: Any, place: str) -> Any:
        found: Any = self._root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise ConfigError(f"{place} points outside of the schema; put what it means into $defs", field="schema")
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                raise ConfigError(f"{place} points at nothing", field="schema")
            found = found[name]
        return found

    def fits(self, text: str) -> bool:
        """Whether ``text`` is JSON of this schema."""
        try:
            value: Any = msgspec.json.decode(text)
        except (ValueError, RecursionError):
            return False
        return self._fits(value, self._root, _DEPTH)

    def _fits(self, value: Any, schema: Any, depth: int) -> bool:
        if isinstance(schema, bool):
            return schema
        if depth == 0:
            return False
        return (
            self._fits_type(value, schema)
            and ("const" not in schema or _equal(value, schema["const"]))
            and ("enum" not in schema or any(_equal(value, each) for each in schema["enum"]))
            and self._fits_others(value, schema, depth - 1)
            and (not isinstance(value, str) or self._fits_text(value, schema))
            and (isinstance(value, bool) or not isinstance(value, (int, float)) or _fits_number(value, schema))
            and (not isinstance(value, list) or self._fits_items(value, schema, depth - 1))
            and (not isinstance(value, dict) or self._fits_members(value, schema, depth - 1))
        )

    def _fits_type(self, value: Any, schema: Mapping[str, Any]) -> bool:
        if "type" not in schema:
            return True
        wanted = schema["type"]
        for name in (wanted,) if isinstance(wanted, str) else wanted:
            if isinstance(value, bool) and name != "boolean":
                continue
            if isinstance(value, _TYPES[name]) and (name != "integer" or value == int(value)):
                return True
        return False

    def _fits_others(self, value: Any, schema: Mapping[str, Any], depth: int) -> bool:
        if "$ref" in schema and not self._fits(value, self._resolved(schema["$ref"], "$ref"), depth):
            return False
        if not all(self._fits(value, each, depth) for each in schema.get("allOf", ())):
            return False
        if "anyOf" in schema and not any(self._fits(value, each, depth) for each in schema["anyOf"]):
            return False
        if "oneOf" in schema and sum(self._fits(value, each, depth) for each in schema["oneOf"]) != 1:
            return False
        return "not" not in schema or not self._fits(value, schema["not"], depth)

    def _fits_text(self, value: str, schema: Mapping[str, Any]) -> bool:
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            return False
        return "pattern" not in schema or self._patterns[schema["pattern"]].search(value) is not None

    def _fits_items(self, value: list[Any], schema: Mapping[str, Any], depth: int) -> bool:
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return False
        if schema.get("uniqueItems") and any(_equal(a, b) for n, a in enumerate(value) for b in value[:n]):
            return False
        first = schema.get("prefixItems", ())
        if not all(self._fits(each, one, depth) for each, one in zip(value, first, strict=False)):
            return False
        rest = schema.get("items", True)
        return rest is True or all(self._fits(each, rest, depth) for each in value[len(first) :])

    def _fits_members(self, value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> bool:
        if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
            return False
        if any(name not in value for name in schema.get("required", ())):
            return False
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        return all(self._fits(each, known.get(name, others), depth) for name, each in value.items())


def _fits_number(value: float, schema: Mapping[str, Any]) -> bool:
    return (
        ("minimum" not in schema or value >= schema["minimum"])
        and ("maximum" not in schema or value <= schema["maximum"])
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        and ("multipleOf" not in schema or value % schema["multipleOf"] == 0)
    )


def _equal(one: Any, other: Any) -> bool:
    """Equality of JSON values: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    return bool(one == other)
