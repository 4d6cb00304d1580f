"""What a simulated model says: made-up words, tool calls, and JSON that fits a schema."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import attrs
import msgspec

__all__ = [
    "Answer",
    "AnswerLaw",
    "Json",
    "PageLaw",
    "SchemaError",
    "ToolCall",
    "TranscriptLaw",
    "call_tokens",
    "count_tokens",
    "example",
    "inner",
    "limited",
    "make_text",
    "pieces",
    "scripted",
    "tokenize",
]

Json: TypeAlias = dict[str, Any]
AnswerLaw: TypeAlias = Callable[[Json], str | Mapping[str, Any]]
TranscriptLaw: TypeAlias = Callable[[Json], str]
PageLaw: TypeAlias = Callable[[Json, int], str]

_WORDS: tuple[str, ...] = tuple(
    re.findall(
        r"\w+",
        "amber arch ash bay beam bell birch bridge bright calm cedar clear cliff cloud coast copper crest dawn "
        "deep dew drift dune east elm ember far fern field fjord flint fog ford frost gale glade glow grain grove "
        "harbour hazel heath high hill horn ice iron isle ivy keel lake lantern leaf light loom marsh meadow mild "
        "mist moon moss north oak oar open pale path pine plain quiet rain raven reed ridge river road root rune "
        "sail salt sand sea silver sky slate slow snow south spark spring star still stone storm stream summer "
        "sun tall thorn tide timber vale water wave west wheat white wide willow wind winter wood",
    )
)
_SPACED = [" " + word for word in _WORDS]
_TOKEN = re.compile(r"\s*\S{1,6}|\s+\Z")
_MAX_DEPTH = 32
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


@attrs.frozen
class ToolCall:
    """One call of a function.

    Attributes:
        id: As the vendor makes them.
        name: Of the function.
        arguments: JSON text.
    """

    id: str
    name: str
    arguments: str


@attrs.frozen(kw_only=True)
class Answer:
    """What one choice says.

    Attributes:
        text: Visible tokens, in order.
        thinking: Tokens of the reasoning before them.
        tool_calls: Calls in place of text, or beside it.
        finish_reason: Why it ends.
        prefix: Text that was given and is repeated in front; not generated, so not counted.
        refusal: Tokens of a refusal in place of the text, at vendors who tell them apart.
        stopped_by: The text of the request's before which it ends, or None.
    """

    text: tuple[str, ...] = ()
    thinking: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"
    prefix: str = ""
    refusal: tuple[str, ...] = ()
    stopped_by: str | None = None

    @property
    def tokens(self) -> int:
        """Output tokens."""
        return (
            len(self.text) + len(self.refusal) + len(self.thinking) + sum(call_tokens(call) for call in self.tool_calls)
        )


def call_tokens(call: ToolCall) -> int:
    """Output tokens of a tool call."""
    return len(tokenize(call.arguments)) + len(tokenize(call.name)) + 2


def tokenize(text: str) -> tuple[str, ...]:
    """Cut a text into pieces that stand for tokens; together they are the text."""
    return tuple(_TOKEN.findall(text))


def inner(body: Json, *names: str) -> Json:
    """The object behind some names, one inside the other; an empty one where there is none."""
    for name in names:
        found: Any = body.get(name)
        body = cast("Json", found) if isinstance(found, dict) else {}
    return body


def count_tokens(words: str) -> int:
    """Input tokens of a text: about one in four bytes."""
    return 1 + len(words.encode()) // 4


def pieces(tokens: Sequence[str], rng: random.Random, most: int) -> Iterator[tuple[int, str]]:
    """Group tokens as they come in events of at most ``most``: number of tokens, text."""
    at = 0
    while at < len(tokens):
        size = min(rng.randint(1, most), len(tokens) - at)
        yield size, "".join(tokens[at : at + size])
        at += size


def make_text(rng: random.Random, least: int, greatest: int) -> tuple[str, ...]:
    """Made-up words, one token each."""
    count = rng.randint(least, greatest)
    words = rng.choices(_SPACED, k=count)
    words[0] = words[0][1:].capitalize()
    if count > 1:
        words[-1] += "."
    return tuple(words)


class SchemaError(ValueError):
    """What a request gives as its JSON Schema is none."""


def scripted(said: str | Mapping[str, Any], new_id: Callable[[], str]) -> Answer:
    """The answer that a test's own law gave.

    Args:
        said: Text, or a mapping with any of ``content``, ``thinking``, ``tool_calls`` (each with ``name``,
            ``arguments`` and maybe ``id``), ``refusal`` and ``finish_reason``.
        new_id: Makes the ids of calls that have none.
    """
    if isinstance(said, str):
        return Answer(text=tokenize(said))
    calls: list[ToolCall] = []
    for call in said.get("tool_calls") or ():
        arguments = call.get("arguments", {})
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        calls.append(ToolCall(call.get("id") or new_id(), call["name"], text))
    return Answer(
        text=tokenize(said.get("content") or ""),
        thinking=tokenize(said.get("thinking") or ""),
        refusal=tokenize(said.get("refusal") or ""),
        tool_calls=tuple(calls),
        finish_reason=said.get("finish_reason") or ("tool_calls" if calls else "stop"),
    )


def limited(answer: Answer, stops: str | Sequence[str] | None, most: int | None) -> Answer:
    """Cut an answer where a request says so.

    Args:
        answer: The whole answer.
        stops: Texts before which it ends.
        most: Most output tokens; None: no bound.
    """
    if stops:
        text = "".join(answer.text)
        marks = [stops] if isinstance(stops, str) else stops
        cuts = [(at, mark) for mark in marks if (at := text.find(mark)) >= 0]
        if cuts:
            at, mark = min(cuts)
            answer = attrs.evolve(answer, text=tokenize(text[:at]), finish_reason="stop", stopped_by=mark)
    if most is None or answer.tokens <= most:
        return answer
    thinking = answer.thinking[:most]
    words = answer.text[: most - len(thinking)]
    refusal = answer.refusal[: most - len(thinking) - len(words)]
    left = most - len(thinking) - len(words) - len(refusal)
    calls: list[ToolCall] = []
    for call in answer.tool_calls:
        whole = call_tokens(call)
        if left < whole:
            overhead = whole - len(tokenize(call.arguments))
            if left > overhead:
                cut = "".join(tokenize(call.arguments)[: left - overhead])
                calls.append(ToolCall(call.id, call.name, cut))
            break
        left -= whole
        calls.append(call)
    return attrs.evolve(
        answer,
        text=words,
        thinking=thinking,
        refusal=refusal,
        tool_calls=tuple(calls),
        finish_reason="length",
        stopped_by=None,
    )


def example(schema: object, rng: random.Random) -> str:
    """The JSON of the least value that fits a JSON Schema, as far as its common keywords go.

    Objects get their required properties only. ``pattern``, ``format``, ``not`` and conditions are
    not looked at.

    Args:
        schema: The schema; anything that is none is taken for "any object".
        rng: Source of words for texts.

    Returns:
        JSON text.

    Raises:
        SchemaError: It is no schema.
    """
    root = cast("Json", schema) if isinstance(schema, dict) else {}
    try:
        return msgspec.json.encode(_example(root or {"type": "object"}, root, rng, 0)).decode()
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        raise SchemaError("The JSON schema of the request is not valid.") from None


def _resolve(schema: Json, root: Json) -> Json:
    """Follow one reference inside the document."""
    found: Any = root
    for part in str(schema["$ref"]).lstrip("#").strip("/").split("/"):
        if part:
            name = part.replace("~1", "/").replace("~0", "~")
            found = cast("Json", found).get(name, {}) if isinstance(found, dict) else {}
    return cast("Json", found) if isinstance(found, dict) else {}


def _example(schema: Json, root: Json, rng: random.Random, depth: int) -> object:
    """The least value for a part of the document ``root``."""
    if depth > _MAX_DEPTH:
        return None
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "$ref" in schema:
        return _example(_resolve(schema, root), root, rng, depth + 1)
    if schema.get("allOf"):
        merged: Json = {"properties": {}, "required": []}
        for part in [*schema["allOf"], {k: v for k, v in schema.items() if k != "allOf"}]:
            whole = _resolve(part, root) if "$ref" in part else part
            properties = {**merged["properties"], **whole.get("properties", {})}
            required = [*merged["required"], *whole.get("required", [])]
            merged = {**merged, **whole, "properties": properties, "required": required}
        if not merged["properties"]:
            del merged["properties"], merged["required"]
        return _example(merged, root, rng, depth + 1)
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            return _example(schema[word][0], root, rng, depth + 1)
    return _example_of_type(schema, root, rng, depth)


def _example_of_type(schema: Json, root: Json, rng: random.Random, depth: int) -> object:
    """The least value for a schema that names a type, or whose keywords imply one."""
    kind: Any = schema.get("type")
    if isinstance(kind, list):
        kind = cast("list[str]", kind)[0]
    if kind == "object" or (kind is None and "properties" in schema):
        properties: Json = schema.get("properties", {})
        return {name: _example(properties.get(name, {}), root, rng, depth + 1) for name in schema.get("required", [])}
    if kind == "array":
        items = schema.get("items", {})
        return [_example(items, root, rng, depth + 1) for _ in range(schema.get("minItems", 0))]
    if kind in {"integer", "number"}:
        return _least_number(schema, whole=kind == "integer")
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    text = rng.choice(_WORDS)
    text = text.ljust(schema.get("minLength", 0), "x")
    return text[: schema.get("maxLength", len(text))]


def _least_number(schema: Json, *, whole: bool) -> float:
    """The number next to zero, or to the lower bound, that the bounds allow."""
    bounds: dict[str, float] = {name: schema[name] for name in _BOUNDS if isinstance(schema.get(name), int | float)}
    low = bounds.get("minimum", -math.inf)
    high = bounds.get("maximum", math.inf)
    above = bounds.get("exclusiveMinimum", -math.inf)
    below = bounds.get("exclusiveMaximum", math.inf)
    step = bounds.get("multipleOf", 1.0 if whole else 0.0)
    if max(low, above) < 0 < min(high, below) or (low == 0 < below) or (high == 0 > above):
        value = 0.0
    elif max(low, above) >= 0:
        value = _next_above(low, above, min(high, below), step)
    else:
        value = -_next_above(-high, -below, -max(low, above), step)
    return int(value) if whole else value


def _next_above(low: float, above: float, roof: float, step: float) -> float:
    """The least number that is at least ``low``, over ``above`` and, if there is a step, a multiple of it."""
    floor = max(low, above)
    if step:
        value = math.ceil(floor / step) * step
        return value if value > above else value + step
    if floor > above:
        return floor
    return floor + 1 if floor + 1 < roof else (floor + roof) / 2
