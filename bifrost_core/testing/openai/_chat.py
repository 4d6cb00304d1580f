"""Chat completions, member by member and event by event.

Source:
    https://platform.openai.com/docs/api-reference/chat/object and .../chat-streaming, and the types of the
    package ``openai`` 3.57.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, Final

import attrs
import msgspec

from bifrost_core.testing.serving._answers import Answer, Json, call_tokens, inner, pieces, tokenize
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import DONE, SSE, Event, Reply
from bifrost_core.testing.serving._wishes import Tool, Wish

from ._generations import Generated, generate, logprobs_of, random_id
from ._members import is_object, refused

__all__ = ["answer_chat"]

_MOST_PIECE: Final = 2  # tokens of one event
_MOST_PADDING: Final = 16

_encode = msgspec.json.Encoder().encode


def answer_chat(question: Question) -> Reply:
    """One or several choices, plain or streamed.

    Raises:
        ApiError: The model, a limit, or the test's own answer function refuses.
    """
    body, rng = question.body, question.rng
    made = generate(question, _wish, count=body.get("n") or 1, context="messages")
    head = {
        "id": f"chatcmpl-{random_id(rng, 29)}",
        "object": "chat.completion.chunk" if question.streams else "chat.completion",
        "created": int(question.now),
        "model": made.model,
    }
    tail = {"service_tier": made.tier, "system_fingerprint": "fp_simulated"}
    reply = made.reply
    if question.streams:
        options = inner(body, "stream_options")
        reply.content_type = SSE
        reply.events = list(_events(made, body, {**head, **tail}, rng, usage=options.get("include_usage") is True))
        reply.tail = 3 if options.get("include_usage") else 2
    else:
        choices = [_choice(index, answer, body, rng) for index, answer in enumerate(made.answers)]
        reply.body = _encode({**head, "choices": choices, "usage": _usage(made), **tail})
    return reply


def _wish(body: Json, *, reasons: bool) -> Wish:
    """What a chat request wants.

    Raises:
        OpenAIError: 400: the model does not take a member, or no tool has the name that was chosen.
    """
    if reasons and body.get("max_tokens") is not None:
        message = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        raise refused(f"Unsupported parameter: {message}", "max_tokens", "unsupported_parameter")
    form = inner(body, "response_format")
    schema: Json | None = form["json_schema"].get("schema") or {} if form.get("type") == "json_schema" else None
    stops: Any = body.get("stop") or ()
    wanted: Any = body.get("tool_choice") or "auto"
    name: str | None = None
    if is_object(wanted):
        name = wanted.get("function", {}).get("name")
        wanted = wanted["allowed_tools"]["mode"] if wanted["type"] == "allowed_tools" else "required"
    tools = [tool["function"] for tool in body.get("tools") or () if tool["type"] == "function"]
    if name is not None and all(tool["name"] != name for tool in tools):
        raise refused(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    return Wish(
        tools=tuple(Tool(tool["name"], tool.get("parameters") or {}) for tool in tools),
        calls=wanted == "required",
        tool=name,
        schema=schema,
        is_json=form.get("type") == "json_object",
        stops=(stops,) if isinstance(stops, str) else tuple(stops),
        most=body.get("max_completion_tokens") or body.get("max_tokens"),
        thinks=reasons and body.get("reasoning_effort") not in {"none", "minimal"},
    )


def _usage(made: Generated) -> Json:
    """The usage object; reasoning is counted and not shown."""
    prompt, completion = made.prompt_tokens, made.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": made.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": made.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _logprobs(tokens: tuple[str, ...], body: Json, rng: random.Random) -> Json | None:
    """How likely the tokens were; None where nobody asked."""
    if not body.get("logprobs"):
        return None
    return {"content": logprobs_of(tokens, body.get("top_logprobs") or 0, rng), "refusal": None}


def _choice(index: int, answer: Answer, body: Json, rng: random.Random) -> Json:
    """One choice of a plain reply."""
    silent = bool(answer.tool_calls or answer.refusal) and not answer.text
    message: Json = {
        "role": "assistant",
        "content": None if silent else "".join(answer.text),
        "refusal": "".join(answer.refusal) or None,
        "annotations": [],
    }
    if answer.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(answer.text, body, rng),
        "finish_reason": answer.finish_reason,
    }


@attrs.frozen
class _Step:
    """What one event of a choice carries: tokens generated for it, the delta, logprobs and the reason."""

    tokens: int
    delta: Json
    logprobs: Json | None = None
    reason: str | None = None


def _steps(answer: Answer, body: Json, rng: random.Random) -> Iterator[_Step]:
    """The events of one choice."""
    silent = bool(answer.tool_calls or answer.refusal) and not answer.text
    start: Json = {"role": "assistant", "content": None if silent else "", "refusal": None}
    hidden = len(answer.thinking)
    if answer.tool_calls and not answer.text:
        yield _Step(hidden, start)
    else:
        yield _Step(hidden, start, {"content": [], "refusal": None} if body.get("logprobs") else None)
    at = 0
    for count, words in pieces(answer.text, rng, _MOST_PIECE):
        yield _Step(count, {"content": words}, _logprobs(answer.text[at : at + count], body, rng))
        at += count
    for count, words in pieces(answer.refusal, rng, _MOST_PIECE):
        yield _Step(count, {"refusal": words})
    for index, call in enumerate(answer.tool_calls):
        tokens = tokenize(call.arguments)
        function = {"name": call.name, "arguments": ""}
        opening = {"index": index, "id": call.id, "type": "function", "function": function}
        yield _Step(call_tokens(call) - len(tokens), {"tool_calls": [opening]})
        for count, words in pieces(tokens, rng, _MOST_PIECE):
            yield _Step(count, {"tool_calls": [{"index": index, "function": {"arguments": words}}]})
    yield _Step(0, {}, None, answer.finish_reason)


def _events(made: Generated, body: Json, head: Json, rng: random.Random, *, usage: bool) -> Iterator[Event]:
    """The events of a streamed reply, ``[DONE]`` included; several choices take turns."""
    pads = inner(body, "stream_options").get("include_obfuscation") is not False
    extra: Json = {"usage": None} if usage else {}
    queues = [(index, _steps(answer, body, rng)) for index, answer in enumerate(made.answers)]
    total = 0
    while queues:
        for queue in tuple(queues):
            step = next(queue[1], None)
            if step is None:
                queues.remove(queue)
                continue
            total += step.tokens
            choice = {
                "index": queue[0],
                "delta": step.delta,
                "logprobs": step.logprobs,
                "finish_reason": step.reason,
            }
            padding = {"obfuscation": random_id(rng, rng.randint(1, _MOST_PADDING))} if pads else {}
            yield _event(total, {**head, "choices": [choice], **extra, **padding})
    if usage:
        yield _event(total, {**head, "choices": [], "usage": _usage(made)})
    yield Event(total, DONE)


def _event(tokens: int, members: Json) -> Event:
    return Event(tokens, b"data: " + _encode(members) + b"\n\n")
