"""What a chat request wants, whosever words it is in, and an answer that fits."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs
import msgspec

from ._answers import Answer, AnswerLaw, Json, ToolCall, example, limited, make_text, scripted, tokenize

__all__ = ["Tool", "Wish", "make_answer"]


@attrs.frozen
class Tool:
    """A function that may be called.

    Attributes:
        name: Of the function.
        parameters: The JSON Schema of its arguments.
    """

    name: str
    parameters: Json


@attrs.frozen(kw_only=True)
class Wish:
    """What a request wants.

    Attributes:
        tools: What may be called.
        calls: Whether one of them has to be called.
        tool: Which one; None: any.
        schema: What the text has to fit; None: it is free.
        is_json: Whether the text is any JSON object.
        stops: Texts before which it ends.
        most: Most output tokens; None: no bound.
        thinks: Whether there is reasoning in front.
    """

    tools: tuple[Tool, ...] = ()
    calls: bool = False
    tool: str | None = None
    schema: Json | None = None
    is_json: bool = False
    stops: tuple[str, ...] = ()
    most: int | None = None
    thinks: bool = False


def make_answer(
    body: Json,
    wish: Wish,
    rng: random.Random,
    lengths: tuple[int, int],
    law: AnswerLaw | None,
    new_id: Callable[[], str],
) -> Answer:
    """Answer a chat request.

    Args:
        body: The request, already checked; what the law gets to see.
        wish: What it wants.
        rng: Source of words, lengths and ids.
        lengths: Least and greatest number of tokens of made-up text.
        law: The test's own answers; see ``scripted``.
        new_id: Makes the ids of tool calls.

    Raises:
        SchemaError: A JSON Schema of the request is none.
    """
    if law is not None:
        return limited(scripted(law(body), new_id), wish.stops, wish.most)
    thinking = make_text(rng, *lengths) if wish.thinks else ()
    if wish.calls and wish.tools:
        tool = next((each for each in wish.tools if each.name == wish.tool), wish.tools[0])
        call = ToolCall(new_id(), tool.name, example(tool.parameters, rng))
        made = Answer(thinking=thinking, tool_calls=(call,), finish_reason="tool_calls")
        return limited(made, (), wish.most)
    if wish.schema is not None:
        text = tokenize(example(wish.schema, rng))
    elif wish.is_json:
        text = tokenize(msgspec.json.encode({"answer": "".join(make_text(rng, *lengths))}).decode())
    else:
        text = make_text(rng, *lengths)
    return limited(Answer(text=text, thinking=thinking), wish.stops, wish.most)
