"""Classes into schemas that are sent, and texts into instances."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, TypedDict

import attrs
import msgspec
import pytest

from bifrost_core.errors import ConfigError, StructuredOutputError
from bifrost_core.structured import parser_of, response_format_of, schema_of


@attrs.frozen
class Place:
    town: str
    country: str | None = None


@attrs.frozen
class Bridge:
    name: str
    place: Place
    kind: Literal["arch", "beam"] = "arch"
    tags: list[str] = attrs.field(factory=list[str])


@dataclasses.dataclass
class Data:
    place: Place
    counts: dict[str, int]


class Typed(TypedDict, total=False):
    name: str
    length: float


class Record(msgspec.Struct):
    """A record."""

    name: str
    inner: list[Typed]


class Tree(msgspec.Struct):
    value: int
    children: list[Tree]


class Model:
    """Stands for a pydantic model: the two methods that are used, with its errors' shape."""

    class RefusalError(ValueError):
        def errors(self) -> list[dict[str, Any]]:
            return [{"loc": ("items", 0, "name"), "msg": "m", "input": "private"}]

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {
            "$defs": {"Part": {"type": "object", "properties": {"default": {"type": "string", "default": "x"}}}},
            "type": "object",
            "properties": {"name": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Part"}], "default": None}},
        }

    @classmethod
    def model_validate_json(cls, text: str) -> Model:
        name = json.loads(text).get("name")
        if not isinstance(name, str):
            raise cls.RefusalError
        return cls(name)


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every object with named properties in a schema."""
    if isinstance(schema, list):
        return [found for member in schema for found in objects(member)]
    if not isinstance(schema, dict):
        return []
    here = [schema] if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" else []
    return here + [found for member in schema.values() for found in objects(member)]


@pytest.mark.parametrize("cls", [Place, Bridge, Data, Typed, Record, Tree, Model], ids=lambda cls: cls.__name__)
def test_every_object_of_a_schema_is_strict(cls: Any) -> None:
    schema = schema_of(cls)
    assert schema["type"] == "object"
    assert objects(schema)
    for found in objects(schema):
        assert found["required"] == list(found["properties"])
        assert found["additionalProperties"] is False
    references = json.dumps(schema).count("#/$defs/")
    assert (references > 0) == ("$defs" in schema)


def test_a_schema_is_what_the_providers_document() -> None:
    assert response_format_of(Place) == {
        "type": "json_schema",
        "json_schema": {
            "name": "Place",
            "schema": {
                "title": "Place",
                "type": "object",
                "properties": {
                    "town": {"type": "string"},
                    "country": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["town", "country"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    }


def test_a_field_named_default_is_not_taken_for_a_default() -> None:
    part = schema_of(Model)["$defs"]["Part"]
    assert part["properties"] == {"default": {"type": "string"}}


def test_a_class_that_holds_itself_keeps_its_definition() -> None:
    schema = schema_of(Tree)
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert schema["$defs"]["Tree"]["additionalProperties"] is False


def test_a_mapping_of_any_names_stays_one() -> None:
    assert schema_of(Data)["properties"]["counts"] == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_the_name_has_only_what_the_providers_allow() -> None:
    made = attrs.make_class("Brücke[1]", {"name": attrs.field(type=str)})
    assert response_format_of(made)["json_schema"]["name"] == "Br_cke_1_"


@attrs.frozen
class Unusable:
    value: complex


@pytest.mark.parametrize("cls", [int, list[int], 7, "Place", Unusable, Place("x")], ids=str)
def test_what_has_no_schema_is_refused(cls: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        schema_of(cls)
    assert caught.value.field == "response_format"


@pytest.mark.parametrize(
    ("cls", "text", "value"),
    [
        pytest.param(
            Bridge,
            '{"name": "B", "place": {"town": "Asgard", "country": null}, "kind": "beam", "tags": ["a"]}',
            Bridge("B", Place("Asgard"), "beam", ["a"]),
            id="attrs",
        ),
        pytest.param(Data, '{"place": {"town": "x"}, "counts": {"a": 1}}', Data(Place("x"), {"a": 1}), id="dataclass"),
        pytest.param(Typed, '{"name": "x", "length": 1}', {"name": "x", "length": 1.0}, id="TypedDict"),
        pytest.param(Record, '{"name": "x", "inner": []}', Record("x", []), id="Struct"),
    ],
)
def test_a_text_becomes_an_instance(cls: Any, text: str, value: Any) -> None:
    assert parser_of(cls)(text) == value


def test_a_text_becomes_a_model() -> None:
    assert parser_of(Model)('{"name": "x"}').name == "x"


@pytest.mark.parametrize(
    ("cls", "text", "said"),
    [
        pytest.param(Bridge, '{"name": "B", "place": {"town": 7}}', r"Bridge at \$\.place\.town", id="deep-inside"),
        pytest.param(Record, '{"name": "x", "inner": [{}, {"name": 1}]}', r"Record at \$\.inner\[1\]\.name", id="list"),
        pytest.param(Bridge, '{"name": "B"', r"Bridge at \$;", id="cut"),
        pytest.param(Bridge, "", r"Bridge at \$;", id="empty"),
        pytest.param(
            Bridge, '{"name": "B", "place": {"town": "x"}, "kind": "private"}', r"Bridge at \$\.kind", id="enum"
        ),
        pytest.param(Model, '{"name": ["private"]}', r"Model at \$\.items\[0\]\.name", id="model"),
        pytest.param(Tree, '{"value": 1, "children": ' + "[" * 5000, "Tree at", id="too-deep"),
    ],
)
def test_a_text_that_does_not_fit_says_where_and_keeps_the_text(cls: Any, text: str, said: str) -> None:
    with pytest.raises(StructuredOutputError, match=said) as caught:
        parser_of(cls)(text)
    assert caught.value.text == text
    assert "private" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_validator_of_the_users_own_counts() -> None:
    @dataclasses.dataclass
    class Positive:
        n: int

        def __post_init__(self) -> None:
            if self.n < 1:
                raise RuntimeError("private")

    with pytest.raises(StructuredOutputError, match="Positive"):
        parser_of(Positive)('{"n": 0}')
