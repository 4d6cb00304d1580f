"""Python functions as the tools a model may call: a signature and a docstring into the JSON that is sent.

Functions are only described. The library never runs one: the model's calls come back as ``ToolCall``.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (JSON schemas: nested mappings of any members)
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import msgspec

from .docstrings import described
from .errors import ConfigError

__all__ = ["flat_tools_of", "function_of", "tool_of", "tools_of"]

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_VARIADIC: Final[Mapping[Any, str]] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
# What a strict schema may hold (https://platform.openai.com/docs/guides/structured-outputs#supported-schemas).
_STRICT_WORDS: Final = frozenset(
    {"$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "items", "properties"}
    | {"required", "title", "type"}
)


def tools_of(tools: object) -> Any:
    """A list of tools with every function in it described; anything but a collection is returned as it is.

    Raises:
        ConfigError: A member is neither a dict nor a function that can be described.
    """
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Iterable):
        return tools
    return [tool_of(tool, f"tools[{place}]") for place, tool in enumerate(cast("Iterable[object]", tools))]


def flat_tools_of(tools: object) -> Any:
    """As ``tools_of``, with functions in the flat form of the Responses shape; other tools are returned as they are.

    Raises:
        ConfigError: A function can not be described.

    Source:
        https://platform.openai.com/docs/guides/function-calling
    """
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Iterable):
        return tools
    return [
        tool if isinstance(tool, Mapping) else {"type": "function", **function_of(tool, f"tools[{place}]")}
        for place, tool in enumerate(tools)
    ]


def tool_of(tool: object, path: str = "tools") -> Any:
    """One tool as a dict: a function is described, a bare ``{"name": …}`` wrapped, any other dict is left as it is.

    Args:
        tool: A dict, or a function: plain, async, bound method, ``functools.partial`` or callable object.
        path: Where it stands, for the error.

    Raises:
        ConfigError: It is neither, or can not be described (see ``function_of``).

    Source:
        https://docs.mistral.ai/capabilities/function_calling, https://platform.openai.com/docs/guides/function-calling
    """
    if isinstance(tool, Mapping):
        if "name" in tool and "type" not in tool and "function" not in tool:
            return {"type": "function", "function": dict(cast("Mapping[str, Any]", tool))}
        return cast("Mapping[str, Any]", tool)
    return {"type": "function", "function": function_of(tool, path)}


def function_of(function: object, path: str = "tools") -> dict[str, Any]:
    """Name, description and parameters of a function.

    The name is ``__name__``, the description the docstring's first paragraph. A parameter's schema is made of
    its annotation (without one: anything), its description comes from ``Annotated[…, "words"]`` or from the
    docstring, and it is required unless it has a default. What a ``functools.partial`` has bound is not the
    model's to choose and stays out. ``strict`` is set where the schema fits the providers' strict mode, that is
    where every parameter is required and nothing in it is open.

    Args:
        function: See ``tool_of``.
        path: Where it stands, for the error.

    Raises:
        ConfigError: It is no function; has a name that providers refuse; or has a parameter that can not be
            filled by name (``*args``, ``**kwargs``, positional-only) or has no JSON form. Names both.
    """
    if isinstance(function, type) or not callable(function):
        what = f"the class {function.__name__}" if isinstance(function, type) else type(function).__name__
        raise ConfigError(f"{path} is {what}; pass a dict or a function", field=path)
    try:
        written = _cached(function)
    except TypeError:  # not hashable
        written = _written(function)
    if isinstance(written, str):
        raise ConfigError(f"{path}: {written}", field=path)
    made: dict[str, Any] = msgspec.json.decode(written)  # a fresh one: hooks may change what they are given
    return made


def _written(function: Callable[..., Any]) -> bytes | str:
    """The description as JSON, or what is wrong with the function."""
    try:
        return msgspec.json.encode(_described(function))
    except _UnusableError as exc:
        return str(exc)


_cached = functools.lru_cache(maxsize=256)(_written)


class _UnusableError(Exception):
    """A function that can not be described. Says why."""


def _described(function: Callable[..., Any]) -> dict[str, Any]:
    plain, bound = _unwrapped(function)
    name = getattr(plain, "__name__", type(plain).__name__)
    if _NAME.fullmatch(name) is None:
        raise _UnusableError(f"the function is called {name!r}; give it a name of 1 to 64 letters, digits, '_' and '-'")
    parameters = _parameters(function, name, bound)
    call, docstring = plain, plain.__doc__
    if not hasattr(plain, "__name__"):  # an object that can be called
        call = type(plain).__call__
        docstring = call.__doc__ or docstring
    summary, said = described(docstring, parameters)
    schema, is_closed = _schema(name, call, parameters, said)
    made: dict[str, Any] = {"name": name}
    if summary:
        made["description"] = summary
    made["parameters"] = schema
    if is_closed and parameters:
        made["strict"] = True
    return made


def _unwrapped(function: Callable[..., Any]) -> tuple[Callable[..., Any], frozenset[str]]:
    """The function behind decorators and partials, and the parameters that the partials have bound by name."""
    bound: set[str] = set()
    while True:
        if isinstance(function, functools.partial):
            bound.update(function.keywords)
            function = function.func
        elif callable(inner := getattr(function, "__wrapped__", None)):
            function = inner
        else:
            return function, frozenset(bound)


def _parameters(function: Callable[..., Any], name: str, bound: frozenset[str]) -> dict[str, inspect.Parameter]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise _UnusableError(f"the function {name!r} does not tell its signature; wrap it in one that does") from None
    for parameter in signature.parameters.values():
        if (stars := _VARIADIC.get(parameter.kind)) is not None:
            raise _UnusableError(
                f"the parameter {stars + parameter.name!r} of {name!r} takes any number of arguments; name each of them"
            )
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise _UnusableError(
                f"the parameter {parameter.name!r} of {name!r} is positional-only; a model's arguments come by name"
            )
    return {one: parameter for one, parameter in signature.parameters.items() if one not in bound}


# --- schemas


def _schema(
    name: str, call: Callable[..., Any], parameters: Mapping[str, inspect.Parameter], said: Mapping[str, str]
) -> tuple[dict[str, Any], bool]:
    """The schema of the arguments, and whether it fits the providers' strict mode."""
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for one, parameter in parameters.items():
        hint = _hint(name, call, one, parameter.annotation)
        member = _member(name, one, hint, definitions)
        if words := _words(hint) or member.get("description") or said.get(one):
            member["description"] = words
        if parameter.default is not parameter.empty:
            member.update(_default(parameter.default))
        properties[one] = member
    required = [one for one, parameter in parameters.items() if parameter.default is parameter.empty]
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    if definitions:
        schema["$defs"] = definitions
    is_closed = all(map(_is_closed, (*properties.values(), *definitions.values()))) and len(required) == len(properties)
    return (_sealed(schema) if is_closed else {**schema, "additionalProperties": False}), is_closed


def _hint(name: str, call: Callable[..., Any], parameter: str, annotation: Any) -> Any:
    """The annotation as a type, strings resolved in the function's module."""
    if annotation is inspect.Parameter.empty:
        return Any
    place = getattr(inspect.unwrap(call), "__globals__", {})
    holder = types.SimpleNamespace(__annotations__={parameter: annotation})
    try:
        return typing.get_type_hints(holder, globalns=place, include_extras=True)[parameter]
    except Exception as exc:  # a string may hold any expression
        raise _UnusableError(
            f"the annotation of the parameter {parameter!r} of {name!r} can not be resolved "
            f"({type(exc).__name__}: {exc}); define what it names where the function's module can see it"
        ) from None


def _member(name: str, parameter: str, hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one parameter; what it refers to goes into ``definitions``."""

    def model(cls: type) -> dict[str, Any]:
        """A pydantic model, which msgspec does not know."""
        write = getattr(cls, "model_json_schema", None)
        if not callable(write):
            raise NotImplementedError  # what msgspec's schema_hook says of a type it does not know
        schema = cast("dict[str, Any]", write())
        for one, definition in schema.pop("$defs", {}).items():
            _define(name, parameter, definitions, one, definition)
        return schema

    try:
        (schema,), found = msgspec.json.schema_components((hint,), ref_template="#/$defs/{name}", schema_hook=model)
    except (TypeError, ValueError, NameError, RuntimeError, NotImplementedError) as exc:
        raise _UnusableError(
            f"the parameter {parameter!r} of {name!r} has no JSON form ({type(exc).__name__}: {exc}); annotate it "
            "with plain types, Literal, Enum, a dataclass, an attrs class, a TypedDict or a pydantic model"
        ) from None
    for one, definition in found.items():
        _define(name, parameter, definitions, one, definition)
    return dict(schema)


def _define(name: str, parameter: str, definitions: dict[str, Any], one: str, definition: Any) -> None:
    if definitions.setdefault(one, definition) != definition:
        raise _UnusableError(f"the parameter {parameter!r} of {name!r} brings a second type called {one!r}; rename one")


def _words(hint: Any) -> str | None:
    """What ``Annotated`` says of a parameter: a string, or anything with a description (pydantic's ``Field``)."""
    for mark in getattr(hint, "__metadata__", ()):
        for words in (mark, getattr(mark, "description", None), getattr(mark, "documentation", None)):
            if isinstance(words, str) and words:
                return words
    return None


def _default(value: Any) -> dict[str, Any]:
    """The default as the schema states it; nothing for None, and for what JSON can not hold."""
    if value is None:
        return {}
    try:
        written: Any = msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, NotImplementedError, RecursionError, msgspec.MsgspecError):
        return {}
    return {} if written is None else {"default": written}


def _parts(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas directly inside a schema."""
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    return [*inner, schema["items"]] if "items" in schema else inner


def _is_closed(schema: Any) -> bool:
    """Whether nothing in a schema is left open: every value has a type, every object all of its members."""
    if not isinstance(schema, Mapping) or not schema.keys() <= _STRICT_WORDS:
        return False
    if "$ref" in schema:
        return len(schema) == 1  # strict mode takes no words beside a reference
    if not schema.keys() & {"type", "anyOf", "enum", "const"}:
        return False
    properties = schema.get("properties")
    if schema.get("type") == "object" and (properties is None or set(schema.get("required", ())) != set(properties)):
        return False
    if schema.get("type") == "array" and "items" not in schema:
        return False
    return all(map(_is_closed, _parts(schema)))


def _sealed(schema: Any) -> Any:
    """A closed schema with ``additionalProperties: false`` in every object."""
    if isinstance(schema, list):
        return [_sealed(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    sealed: dict[str, Any] = {}
    for name, value in schema.items():
        if name in {"properties", "$defs"}:
            sealed[name] = {one: _sealed(member) for one, member in value.items()}
        else:
            sealed[name] = _sealed(value) if name in {"items", "anyOf"} else value
    if sealed.get("type") == "object":
        sealed["additionalProperties"] = False
    return sealed
