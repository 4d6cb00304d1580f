"""Functions into the tools that are sent: names, descriptions, schemas; never a call."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import attrs
import msgspec
import pytest

from bifrost_core import Router
from bifrost_core.errors import ConfigError
from bifrost_core.testing import Simulated
from bifrost_core.tools import flat_tools_of, function_of, tool_of, tools_of


class Unit(enum.Enum):
    CELSIUS = "c"
    KELVIN = "k"


@attrs.frozen
class Place:
    town: str
    country: str | None = None


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Typed(TypedDict):
    a: int
    b: NotRequired[str]


class Model:
    """Stands for a pydantic model: the method that is used, with definitions of its own."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {
            "$defs": {"Part": {"type": "object", "properties": {"n": {"type": "integer"}}}},
            "type": "object",
            "properties": {"part": {"$ref": "#/$defs/Part"}},
        }


class Field:
    """Stands for pydantic's ``Field``: a mark with a description."""

    description = "From a field."


def weather(city: Annotated[str, "Its name."], days: int = 3) -> str:
    """Tell the weather.

    Args:
        city: Said already.
        days: How many.
    """
    raise AssertionError("a tool is never run")


async def later(city: str) -> str:
    """Tell it later."""
    raise AssertionError("a tool is never run")


class Station:
    """A weather station."""

    def measure(self, place: str) -> float:
        """Measure at a place."""
        raise AssertionError("a tool is never run")

    @staticmethod
    def calibrate() -> None:
        raise AssertionError("a tool is never run")

    @classmethod
    def find(cls, near: str) -> Station:
        raise AssertionError("a tool is never run")


class Thermometer:
    """Measures heat."""

    def __call__(self, unit: Unit) -> float:
        raise AssertionError("a tool is never run")


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return around


def arguments(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


STRING = {"type": "string"}
WEATHER = {
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Its name."},
            "days": {"type": "integer", "description": "How many.", "default": 3},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize(
    ("function", "described"),
    [
        pytest.param(weather, WEATHER, id="plain"),
        pytest.param(decorated(weather), WEATHER, id="decorated"),
        pytest.param(
            later,
            {"name": "later", "description": "Tell it later.", "parameters": arguments(city=STRING), "strict": True},
            id="async",
        ),
        pytest.param(
            Station().measure,
            {"name": "measure", "description": "Measure at a place.", "parameters": arguments(place=STRING), "strict": True},
            id="bound-method",
        ),
        pytest.param(Station.calibrate, {"name": "calibrate", "parameters": arguments()}, id="static-method"),
        pytest.param(
            Station.find, {"name": "find", "parameters": arguments(near=STRING), "strict": True}, id="class-method"
        ),
        pytest.param(
            Thermometer(),
            {
                "name": "Thermometer",
                "description": "Measures heat.",
                "parameters": {
                    **arguments(unit={"$ref": "#/$defs/Unit"}),
                    "$defs": {"Unit": {"title": "Unit", "enum": ["c", "k"]}},
                },
                "strict": True,
            },
            id="callable-object",
        ),
        pytest.param(
            functools.partial(weather, days=5),
            {
                "name": "weather",
                "description": "Tell the weather.",
                "parameters": arguments(city={"type": "string", "description": "Its name."}),
                "strict": True,
            },
            id="partial-by-name",
        ),
        pytest.param(
            functools.partial(functools.partial(weather, "Oslo"), days=5),
            {"name": "weather", "description": "Tell the weather.", "parameters": arguments()},
            id="partial-of-everything",
        ),
    ],
)  # fmt: skip
def test_a_function_is_described_by_name_docstring_and_signature(
    function: Callable[..., Any], described: dict[str, Any]
) -> None:
    assert function_of(function) == described
    assert tool_of(function) == {"type": "function", "function": described}


def typed(annotation: Any, *default: Any) -> dict[str, Any]:
    """The schema of one parameter, with the definitions that it needs."""

    def tool(one: Any = None) -> None:
        raise AssertionError("a tool is never run")

    tool.__annotations__ = {"one": annotation}
    tool.__defaults__ = default
    made = function_of(tool)["parameters"]
    definitions = {"$defs": made["$defs"]} if "$defs" in made else {}
    return {**made["properties"]["one"], **definitions}


POINT = {"title": "Point", "type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "required": ["x", "y"]}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        pytest.param(typed(str), STRING, id="str"),
        pytest.param(typed(int), {"type": "integer"}, id="int"),
        pytest.param(typed(float), {"type": "number"}, id="float"),
        pytest.param(typed(bool), {"type": "boolean"}, id="bool"),
        pytest.param(typed(None), {"type": "null"}, id="none"),
        pytest.param(typed(list[int]), {"type": "array", "items": {"type": "integer"}}, id="list"),
        pytest.param(typed(dict[str, int]), {"type": "object", "additionalProperties": {"type": "integer"}}, id="dict"),
        pytest.param(typed(Literal["a", "b"]), {"enum": ["a", "b"]}, id="literal"),
        pytest.param(typed(str | None), {"anyOf": [STRING, {"type": "null"}]}, id="optional"),
        pytest.param(typed("str | None"), {"anyOf": [STRING, {"type": "null"}]}, id="text-of-an-annotation"),
        pytest.param(typed(int | list[str]), {"anyOf": [{"type": "integer"}, {"type": "array", "items": STRING}]}, id="union"),
        pytest.param(typed(Any), {}, id="any"),
        pytest.param(typed(Annotated[int, msgspec.Meta(ge=1, description="From 1.")]), {"type": "integer", "minimum": 1, "description": "From 1."}, id="meta"),
        pytest.param(typed(Annotated[int, Field()]), {"type": "integer", "description": "From a field."}, id="field"),
        pytest.param(typed(Unit, Unit.KELVIN), {"$ref": "#/$defs/Unit", "default": "k", "$defs": {"Unit": {"title": "Unit", "enum": ["c", "k"]}}}, id="enum"),
        pytest.param(typed(Point), {"$ref": "#/$defs/Point", "$defs": {"Point": {**POINT, "additionalProperties": False}}}, id="dataclass"),
        pytest.param(typed(Point | None, None), {"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}], "$defs": {"Point": POINT}}, id="default-of-none"),
        pytest.param(typed(Any, object()), {}, id="default-without-json"),
        pytest.param(
            typed(Place),
            {"$ref": "#/$defs/Place", "$defs": {"Place": {"title": "Place", "type": "object", "properties": {"town": STRING, "country": {"anyOf": [STRING, {"type": "null"}], "default": None}}, "required": ["town"]}}},
            id="attrs",
        ),
        pytest.param(
            typed(Typed),
            {"$ref": "#/$defs/Typed", "$defs": {"Typed": {"title": "Typed", "type": "object", "properties": {"a": {"type": "integer"}, "b": STRING}, "required": ["a"]}}},
            id="TypedDict",
        ),
        pytest.param(
            typed(list[Model]),
            {"type": "array", "items": {"type": "object", "properties": {"part": {"$ref": "#/$defs/Part"}}}, "$defs": {"Part": {"type": "object", "properties": {"n": {"type": "integer"}}}}},
            id="pydantic-model",
        ),
    ],
)  # fmt: skip
def test_an_annotation_becomes_a_schema(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    assert schema == expected


def test_a_parameter_without_annotation_may_be_anything() -> None:
    def tool(one, *, two="x"):  # type: ignore[no-untyped-def] # the point
        raise AssertionError("a tool is never run")

    made = function_of(tool)
    assert made["parameters"] == {
        "type": "object",
        "properties": {"one": {}, "two": {"default": "x"}},
        "required": ["one"],
        "additionalProperties": False,
    }
    assert "strict" not in made


@pytest.mark.parametrize(
    ("annotation", "default", "strict"),
    [
        pytest.param(str, (), True, id="a-type"),
        pytest.param(Point, (), True, id="an-object-with-every-member-required"),
        pytest.param(list[Point], (), True, id="a-list-of-them"),
        pytest.param(str, ("x",), False, id="a-default"),
        pytest.param(Any, (), False, id="anything"),
        pytest.param(list, (), False, id="a-list-of-anything"),
        pytest.param(dict[str, int], (), False, id="a-mapping"),
        pytest.param(Place, (), False, id="an-object-with-a-default"),
        pytest.param(Annotated[int, msgspec.Meta(ge=1)], (), False, id="a-word-that-strict-mode-does-not-know"),
        pytest.param(Annotated[Point, "Where."], (), False, id="words-beside-a-reference"),
    ],
)
def test_strict_is_set_where_nothing_is_open(annotation: Any, default: tuple[Any, ...], strict: bool) -> None:
    def tool(one: Any = None) -> None:
        raise AssertionError("a tool is never run")

    tool.__annotations__ = {"one": annotation}
    tool.__defaults__ = default
    assert function_of(tool).get("strict", False) is strict


def any_number(*cities: str) -> None: ...
def any_names(**cities: str) -> None: ...
def by_place(city: str, /) -> None: ...
def of_nowhere(city: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821 # the point
def of_no_form(city: complex) -> None: ...
def of_two(city: Place | Point) -> None: ...


def of_another() -> Callable[..., None]:
    other = attrs.make_class("Point", {"z": attrs.field(type=int)})

    def tool(one: Any, two: Any) -> None: ...

    tool.__annotations__ = {"one": Point, "two": other}
    return tool


def named(name: str) -> Callable[..., None]:
    def tool() -> None: ...

    tool.__name__ = name
    return tool


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        pytest.param(any_number, r"'\*cities' of 'any_number'", id="args"),
        pytest.param(any_names, r"'\*\*cities' of 'any_names'", id="kwargs"),
        pytest.param(by_place, "'city' of 'by_place' is positional-only", id="positional-only"),
        pytest.param(of_nowhere, "'city' of 'of_nowhere' can not be resolved.*Nowhere", id="unknown-name"),
        pytest.param(of_no_form, "'city' of 'of_no_form' has no JSON form", id="no-json-form"),
        pytest.param(of_two, "'city' of 'of_two' has no JSON form", id="two-objects-in-one-union"),
        pytest.param(of_another(), "'two' of 'tool' brings a second type called 'Point'", id="two-types-of-one-name"),
        pytest.param(lambda city: city, "called '<lambda>'", id="lambda"),
        pytest.param(named("a b"), "called 'a b'", id="blank-in-the-name"),
        pytest.param(named("x" * 65), "64 letters", id="long-name"),
        pytest.param(dict.fromkeys, "signature|positional-only", id="builtin"),
        pytest.param(Point, "is the class Point", id="class"),
        pytest.param(7, "is int", id="number"),
        pytest.param("weather", "is str", id="text"),
    ],
)
def test_what_can_not_be_described_is_refused_by_name(tool: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        tools_of([weather, tool])
    assert caught.value.field == "tools[1]"
    assert str(caught.value).startswith("tools[1]")


def test_tools_of_all_forms_may_be_mixed() -> None:
    wrapped = {"type": "function", "function": {"name": "f", "parameters": {}}}
    bare = {"name": "g", "parameters": {}}
    built_in = {"type": "web_search"}
    assert tools_of((weather, wrapped, bare, built_in)) == [
        {"type": "function", "function": WEATHER},
        wrapped,
        {"type": "function", "function": bare},
        built_in,
    ]


@pytest.mark.parametrize("tools", ["weather", 7, None, {"name": "f"}], ids=str)
def test_what_is_no_collection_is_left_to_the_provider(tools: Any) -> None:
    assert tools_of(tools) == tools


def test_a_description_is_a_fresh_one_every_time() -> None:
    function_of(weather)["parameters"]["properties"].clear()
    assert function_of(weather) == WEATHER


def test_an_object_that_can_not_be_hashed_is_described() -> None:
    class Listing(list[int]):
        """A list that can be called."""

        def __call__(self, place: int) -> int:
            raise AssertionError("a tool is never run")

    made = function_of(Listing())
    assert (made["name"], made["parameters"]) == ("Listing", arguments(place={"type": "integer"}))


def test_functions_for_responses_are_flat_and_other_tools_stay_as_they_are() -> None:
    def weather(city: str) -> str:
        """The weather in a city."""
        raise AssertionError("a tool is never run")

    given = {"type": "function", "name": "clock"}
    flat, other = flat_tools_of([weather, given])
    assert flat == {"type": "function", **function_of(weather)}
    assert other is given
    assert flat_tools_of("none of it") == "none of it"
    with pytest.raises(ConfigError, match=r"tools\[1\]"):
        flat_tools_of([weather, 3])


async def test_a_function_reaches_the_provider_through_responses() -> None:
    def weather(city: str) -> str:
        """The weather in a city."""
        raise AssertionError("a tool is never run")

    provider = Simulated(["one"], keep_bodies=True)
    async with Router([provider]) as router:
        reply = await router.responses("simulated/any", "Weather in Bergen?", tools=[weather], tool_choice="required")
    assert [call.name for call in reply.tool_calls] == ["weather"]
    sent = msgspec.json.decode(provider.journal[0].body or b"")
    assert sent["tools"] == [{"type": "function", "function": function_of(weather)}]
    assert reply.to_openai()["tools"] == [{"type": "function", **function_of(weather)}]
