"""Structured output: a class into the JSON schema that is sent, and the answer's text into an instance of it."""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (JSON schemas: nested mappings of any members)
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from .errors import ConfigError, StructuredOutputError

__all__ = ["parser_of", "response_format_of", "schema_of"]

_PLACE: Final = re.compile(r"at `([^`]*)`\Z")
_SCHEMAS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")


def response_format_of(cls: Any, field: str = "response_format") -> dict[str, Any]:
    """The ``response_format`` member that asks for an instance of ``cls``.

    Args:
        cls: See ``schema_of``.
        field: What the caller gave it as, for the error.

    Raises:
        ConfigError: No JSON schema can be made of it.

    Source:
        https://docs.mistral.ai/capabilities/structured_output/custom, https://platform.openai.com/docs/guides/structured-outputs
    """
    return {
        "type": "json_schema",
        "json_schema": {"name": _name_of(cls), "schema": schema_of(cls, field), "strict": True},
    }


def schema_of(cls: Any, field: str = "response_format") -> dict[str, Any]:
    """The JSON schema of an attrs class, dataclass, TypedDict, ``msgspec.Struct`` or pydantic model, made strict.

    Strict: every property is required and no others are allowed, as the providers ask for.

    Raises:
        ConfigError: ``cls`` is none of these, or has a field that JSON can not hold.
    """
    problem = ""
    schema: dict[str, Any] = {}
    try:
        schema = _schema_of(cls)
    except (TypeError, ValueError, NameError, RuntimeError) as exc:
        problem = f"{type(exc).__name__}: {exc}"
    if not problem and not (schema.get("type") == "object" and "properties" in schema):
        problem = "it does not describe an object with named fields"
    if problem:
        raise ConfigError(
            f"{field}: no JSON schema can be made of {_name_of(cls)} ({problem}); "
            "pass an attrs class, dataclass, TypedDict, msgspec.Struct, pydantic model, or the dict that the API takes",
            field=field,
        )
    return schema


def parser_of(cls: Any) -> Callable[[str], Any]:
    """What turns an answer's text into an instance of ``cls``, or raises ``StructuredOutputError``."""
    try:
        return _cached_parser(cls)
    except TypeError:  # not hashable
        return _parser(cls)


def _name_of(cls: Any) -> str:
    name = getattr(cls, "__name__", type(cls).__name__)
    return re.sub(r"[^A-Za-z0-9_-]", "_", str(name))[:64] or "answer"


def _is_pydantic(cls: Any) -> bool:
    return callable(getattr(cls, "model_json_schema", None)) and callable(getattr(cls, "model_validate_json", None))


@functools.lru_cache(maxsize=256)
def _schema_of(cls: Any) -> dict[str, Any]:
    if not isinstance(cls, type) and not hasattr(cls, "__origin__"):
        raise TypeError(f"{type(cls).__name__} is not a class")
    schema: dict[str, Any] = cls.model_json_schema() if _is_pydantic(cls) else msgspec.json.schema(cls)
    definitions: dict[str, Any] = dict(schema.get("$defs", {}))
    root = schema
    if isinstance(reference := schema.get("$ref"), str):
        name = reference.rpartition("/")[2]
        root = definitions[name]
        if not _refers(definitions, reference):  # else a class that holds itself: its definition stays
            definitions.pop(name)
    strict: dict[str, Any] = _strict({name: value for name, value in root.items() if name != "$defs"})
    if definitions:
        strict["$defs"] = {name: _strict(definition) for name, definition in definitions.items()}
    return strict


def _refers(value: Any, reference: str) -> bool:
    if isinstance(value, dict):
        return value.get("$ref") == reference or any(_refers(member, reference) for member in value.values())
    return isinstance(value, list) and any(_refers(member, reference) for member in value)


def _strict(schema: Any) -> Any:
    """A schema whose objects have all their properties and no others; defaults, which then mean nothing, go."""
    if not isinstance(schema, Mapping):
        return schema
    strict: dict[str, Any] = {name: value for name, value in schema.items() if name != "default"}
    properties = strict.get("properties")
    if isinstance(properties, Mapping):
        strict["properties"] = {name: _strict(member) for name, member in properties.items()}
        strict["required"] = list(properties)
        strict["additionalProperties"] = False
    elif isinstance(strict.get("additionalProperties"), Mapping):
        strict["additionalProperties"] = _strict(strict["additionalProperties"])
    if isinstance(strict.get("items"), Mapping):
        strict["items"] = _strict(strict["items"])
    for word in _SCHEMAS:
        if isinstance(strict.get(word), list):
            strict[word] = [_strict(member) for member in strict[word]]
    return strict


def _where(exc: Exception) -> str:
    """The place in the answer that does not fit, as a path; never a value."""
    errors = getattr(exc, "errors", None)
    if callable(errors):  # pydantic's ValidationError
        found: Any = errors()
        if isinstance(found, list) and found and isinstance(found[0], Mapping):
            steps = found[0].get("loc", ())
            return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    place = _PLACE.search(str(exc))
    return place[1] if place else "$"


def _parser(cls: Any) -> Callable[[str], Any]:
    name = _name_of(cls)
    read: Callable[[str], Any] = cls.model_validate_json if _is_pydantic(cls) else msgspec.json.Decoder(cls).decode

    def parse(text: str) -> Any:
        problem = ""
        value: Any = None
        try:
            value = read(text)
        except Exception as exc:  # validators of the class are the user's own and may raise anything
            problem = _where(exc)
        if problem:
            raise StructuredOutputError(
                f"the answer does not fit {name} at {problem}; its text is kept in `text`", text=text
            )
        return value

    return parse


_cached_parser = functools.lru_cache(maxsize=256)(_parser)
