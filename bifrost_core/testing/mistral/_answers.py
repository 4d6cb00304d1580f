"""What a simulated Mistral model says to chat and FIM requests."""

from __future__ import annotations

import random
from typing import Any, cast

import msgspec

from bifrost_core.testing.serving._answers import (
    Answer,
    AnswerLaw,
    Json,
    SchemaError,
    ToolCall,
    example,
    limited,
    make_text,
    scripted,
    tokenize,
)

from ._errors import MistralError

__all__ = ["fitting", "make_answer"]

_ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_THINKS = frozenset({"high", "xhigh", "max"})


def fitting(schema: object, rng: random.Random) -> str:
    """The JSON of the least value that fits a JSON Schema.

    Raises:
        MistralError: 400: it is no schema. How Mistral refuses these is documented nowhere.
    """
    try:
        return example(schema, rng)
    except SchemaError as exc:
        raise MistralError.object(400, "invalid_request_invalid_args", "3051", str(exc)) from None


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
        return limited(scripted(law(body), lambda: _call_id(rng)), body.get("stop"), body.get("max_tokens"))
    call = _forced_call(body, rng)
    if call is not None:
        return limited(Answer(tool_calls=(call,), finish_reason="tool_calls"), body.get("stop"), body.get("max_tokens"))
    form: Json = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = form["json_schema"].get("schema", {})
        text = tokenize(fitting(schema, rng))
    elif form.get("type") == "json_object":
        text = tokenize(msgspec.json.encode({"answer": "".join(make_text(rng, *lengths))}).decode())
    else:
        text = make_text(rng, *lengths)
    thinking = make_text(rng, *lengths) if _reasons(body) else ()
    return limited(Answer(text=text, thinking=thinking, prefix=_prefix(body)), body.get("stop"), body.get("max_tokens"))


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
    arguments = fitting(function.get("parameters") or {}, rng)
    return ToolCall(_call_id(rng), function["name"], arguments)
