"""What a simulated model says: made-up words, tool calls, and JSON that fits a schema."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, cast

import attrs
import msgspec

from ._errors import ApiError

__all__ = ["Answer", "AnswerLaw", "PageLaw", "ToolCall", "TranscriptLaw", "make_answer", "make_text", "tokenize"]

Json: TypeAlias = dict[str, Any]
FinishReason: TypeAlias = Literal["stop", "length", "model_length", "tool_calls", "error"]
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
_ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_MAX_DEPTH = 32
_THINKS = frozenset({"high", "xhigh", "max"})
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


@attrs.frozen
class ToolCall:
    """One call of a function.

    Attributes:
        id: Nine letters and digits.
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
    """

    text: tuple[str, ...] = ()
    thinking: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    prefix: str = ""

    @property
    def tokens(self) -> int:
        """Output tokens."""
        return len(self.text) + len(self.thinking) + sum(call_tokens(call) for call in self.tool_calls)


def call_tokens(call: ToolCall) -> int:
    """Output tokens of a tool call."""
    return len(tokenize(call.arguments)) + len(tokenize(call.name)) + 2


def tokenize(text: str) -> tuple[str, ...]:
    """Cut a text into pieces that stand for tokens; together they are the text."""
    return tuple(_TOKEN.findall(text))


def make_text(rng: random.Random, least: int, greatest: int) -> tuple[str, ...]:
    """Made-up words, one token each."""
    count = rng.randint(least, greatest)
    words = rng.choices(_SPACED, k=count)
    words[0] = words[0][1:].capitalize()
    if count > 1:
        words[-1] += "."
    return tuple(words)


def make_answer(body: Json, rng: random.Random, lengths: tuple[int, int], law: AnswerLaw | None) -> Answer:
    """Answer a chat or FIM request.

    Args:
        body: The request, already checked.
        rng: Source of words, lengths and ids.
        lengths: Least and greatest number of tokens of made-up text.
        law: The test's own answers: request in, text out, or a mapping with any of ``content``,
            ``thinking``, ``tool_calls`` (each with ``name``, ``arguments`` and maybe ``id``) and
            ``finish_reason``.

    Returns:
        The answer, within the request's ``stop`` and ``max_tokens``.
    """
    if law is not None:
        return _limit(_scripted(law(body), rng), body)
    call = _forced_call(body, rng)
    if call is not None:
        return _limit(Answer(tool_calls=(call,), finish_reason="tool_calls"), body)
    form: Json = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = form["json_schema"].get("schema", {})
        text = tokenize(example(schema, rng))
    elif form.get("type") == "json_object":
        text = tokenize(msgspec.json.encode({"answer": "".join(make_text(rng, *lengths))}).decode())
    else:
        text = make_text(rng, *lengths)
    thinking = make_text(rng, *lengths) if _reasons(body) else ()
    return _limit(Answer(text=text, thinking=thinking, prefix=_prefix(body)), body)


def _reasons(body: Json) -> bool:
    """Whether the model thinks before it answers."""
    return str(body.get("model", "")).startswith("magistral") or body.get("reasoning_effort") in _THINKS


def _prefix(body: Json) -> str:
    """The text the answer has to begin with."""
    messages = body.get("messages")
    if not messages or not messages[-1].get("prefix"):
        return ""
    content = messages[-1].get("content") or ""
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content)


def _call_id(rng: random.Random) -> str:
    """An id as Mistral makes them."""
    return "".join(rng.choices(_ID_LETTERS, k=9))


def _forced_call(body: Json, rng: random.Random) -> ToolCall | None:
    """The tool call that ``tool_choice`` demands, if it demands one."""
    tools: list[Json] = body.get("tools") or []
    choice: Any = body.get("tool_choice") or "auto"
    if not tools or choice in ("auto", "none"):
        return None
    functions: list[Json] = [tool["function"] for tool in tools]
    if isinstance(choice, dict):
        wanted = cast("Json", choice)["function"]["name"]
        functions = [function for function in functions if function["name"] == wanted] or functions
    function = functions[0]
    arguments = example(function.get("parameters") or {}, rng)
    return ToolCall(_call_id(rng), function["name"], arguments)


def _scripted(said: str | Mapping[str, Any], rng: random.Random) -> Answer:
    """The answer that a test's own law gave."""
    if isinstance(said, str):
        return Answer(text=tokenize(said))
    calls: list[ToolCall] = []
    for call in said.get("tool_calls") or ():
        arguments = call.get("arguments", {})
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        calls.append(ToolCall(call.get("id") or _call_id(rng), call["name"], text))
    return Answer(
        text=tokenize(said.get("content") or ""),
        thinking=tokenize(said.get("thinking") or ""),
        tool_calls=tuple(calls),
        finish_reason=said.get("finish_reason") or ("tool_calls" if calls else "stop"),
    )


def _limit(answer: Answer, body: Json) -> Answer:
    """Apply ``stop`` and ``max_tokens``."""
    stops: Any = body.get("stop")
    if stops:
        text = "".join(answer.text)
        marks = [stops] if isinstance(stops, str) else cast("list[str]", stops)
        cuts = [at for mark in marks if (at := text.find(mark)) >= 0]
        if cuts:
            answer = attrs.evolve(answer, text=tokenize(text[: min(cuts)]), finish_reason="stop")
    most: int | None = body.get("max_tokens")
    if most is None or answer.tokens <= most:
        return answer
    thinking = answer.thinking[:most]
    words = answer.text[: most - len(thinking)]
    left = most - len(thinking) - len(words)
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
    return attrs.evolve(answer, text=words, thinking=thinking, tool_calls=tuple(calls), finish_reason="length")


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
        ApiError: 400: it is no schema. How Mistral refuses these is documented nowhere.
    """
    root = cast("Json", schema) if isinstance(schema, dict) else {}
    try:
        return msgspec.json.encode(_example(root or {"type": "object"}, root, rng, 0)).decode()
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        message = "The JSON schema of the request is not valid."
        raise ApiError.object(400, "invalid_request_invalid_args", "3051", message) from None


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
