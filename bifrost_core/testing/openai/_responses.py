"""Responses: the object, and the events that build it up.

Source:
    https://platform.openai.com/docs/api-reference/responses/object,
    https://platform.openai.com/docs/api-reference/responses-streaming and the types of the package ``openai``
    3.57. Hosted tools are accepted and never used.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from typing import Any, Final

import attrs
import msgspec

from bifrost_core.testing.serving._answers import Answer, Json, ToolCall, call_tokens, inner, pieces, tokenize
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import SSE, Event, Reply, named_event
from bifrost_core.testing.serving._wishes import Tool, Wish

from ._generations import Generated, generate, logprobs_of, random_id
from ._members import is_object, refused
from ._responses_members import check_pairs
from ._service import calls_before, remember

__all__ = ["answer_responses"]

_MOST_PIECE: Final = 2  # tokens of one event
_MOST_PADDING: Final = 16
_HEX: Final = 192  # bits of an id

_encode = msgspec.json.Encoder().encode


def answer_responses(question: Question) -> Reply:
    """One response, plain or streamed.

    Raises:
        ApiError: The model, a limit, or the test's own answer function refuses; or a call has no result.
    """
    body, rng = question.body, question.rng
    check_pairs(body["input"], calls_before(question))
    made = generate(question, _wish, count=1, context="input")
    answer = made.answers[0]
    response_id = _id(rng, "resp")
    remember(question, response_id, [call.id for call in answer.tool_calls])
    items = list(_items(answer, body, rng))
    head = _head(response_id, int(question.now), made, body)
    whole = _whole(head, [item.final for item in items], made)
    reply = made.reply
    if question.streams:
        reply.content_type = SSE
        reply.events = list(_Stream(body, rng).events(head, items, whole))
        reply.tail = 1
    else:
        reply.body = _encode(whole)
    return reply


def _id(rng: random.Random, kind: str) -> str:
    return f"{kind}_{rng.getrandbits(_HEX):048x}"


def _wish(body: Json, *, reasons: bool) -> Wish:
    """What a request wants."""
    form: Json = inner(body, "text", "format")
    wanted: Any = body.get("tool_choice") or "auto"
    name: str | None = None
    if is_object(wanted):
        name = wanted.get("name") if wanted["type"] == "function" else None
        wanted = wanted.get("mode", "auto") if wanted["type"] == "allowed_tools" else "required" if name else "auto"
    tools = [tool for tool in body.get("tools") or () if tool["type"] == "function"]
    if name is not None and all(tool["name"] != name for tool in tools):
        raise refused(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    effort = inner(body, "reasoning").get("effort")
    return Wish(
        tools=tuple(Tool(tool["name"], tool.get("parameters") or {}) for tool in tools),
        calls=wanted == "required",
        tool=name,
        schema=form["schema"] if form.get("type") == "json_schema" else None,
        is_json=form.get("type") == "json_object",
        most=body.get("max_output_tokens"),
        thinks=reasons and effort not in {"none", "minimal"},
    )


# -- the object --------------------------------------------------------------------------------------------------


def _head(response_id: str, created: int, made: Generated, body: Json) -> Json:
    """A response that has just begun."""
    reasoning: Json = body.get("reasoning") or {}
    words: Json = body.get("text") or {}
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": body.get("background") or False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "model": made.model,
        "output": [],
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": body.get("previous_response_id"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": body.get("service_tier") or "auto",
        "store": body.get("store") is not False,
        "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
        "text": {"format": words.get("format") or {"type": "text"}, "verbosity": words.get("verbosity") or "medium"},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": [_echo(tool) for tool in body.get("tools") or ()],
        "top_logprobs": body.get("top_logprobs") or 0,
        "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
        "truncation": body.get("truncation") or "disabled",
        "usage": None,
        "user": body.get("user"),
        "metadata": body.get("metadata") or {},
    }


def _echo(tool: Json) -> Json:
    """A tool as the response repeats it."""
    if tool["type"] != "function":
        return tool
    return {"description": None, "parameters": None, "strict": True, **tool}


def _whole(head: Json, output: list[Json], made: Generated) -> Json:
    """The response when all of it is there."""
    reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
    reason = reasons.get(made.answers[0].finish_reason)
    prompt, completion = made.prompt_tokens, made.completion_tokens
    return {
        **head,
        "status": "incomplete" if reason else "completed",
        "completed_at": None if reason else head["created_at"],
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "service_tier": made.tier,
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": made.cached_tokens},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": made.reasoning_tokens},
            "total_tokens": prompt + completion,
        },
    }


@attrs.frozen(kw_only=True)
class _Item:
    """One item of the output.

    Attributes:
        final: As it is at the end.
        tokens: Of the part that is streamed.
        hidden: Output tokens that are generated before it begins.
    """

    final: Json
    tokens: tuple[str, ...] = ()
    hidden: int = 0


def _items(answer: Answer, body: Json, rng: random.Random) -> Iterator[_Item]:
    """Reasoning, text and calls, in this order."""
    if answer.thinking:
        yield _reasoning(answer.thinking, body, rng)
    cut = answer.finish_reason in {"length", "content_filter"}
    status = "incomplete" if cut else "completed"
    if answer.text or answer.refusal or not (answer.tool_calls or cut):
        if answer.refusal:
            part: Json = {"type": "refusal", "refusal": "".join(answer.refusal)}
        else:
            wanted = "message.output_text.logprobs" in (body.get("include") or ())
            logprobs = logprobs_of(answer.text, body.get("top_logprobs") or 0, rng) if wanted else []
            part = {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": "".join(answer.text)}
        final = {"id": _id(rng, "msg"), "type": "message", "status": status, "content": [part], "role": "assistant"}
        yield _Item(final=final, tokens=answer.refusal or answer.text)
    for call in answer.tool_calls:
        yield _call(call, status, rng)


def _reasoning(thinking: tuple[str, ...], body: Json, rng: random.Random) -> _Item:
    """Reasoning: counted, and told in a summary where one is asked for."""
    wanted = inner(body, "reasoning").get("summary")
    summary = [{"type": "summary_text", "text": "".join(thinking)}] if wanted else []
    final: Json = {"id": _id(rng, "rs"), "type": "reasoning", "summary": summary}
    if "reasoning.encrypted_content" in (body.get("include") or ()):
        final["encrypted_content"] = base64.b64encode(rng.randbytes(96)).decode()
    if wanted:
        return _Item(final=final, tokens=thinking)
    return _Item(final=final, hidden=len(thinking))


def _call(call: ToolCall, status: str, rng: random.Random) -> _Item:
    final = {
        "id": _id(rng, "fc"),
        "type": "function_call",
        "status": status,
        "arguments": call.arguments,
        "call_id": call.id,
        "name": call.name,
    }
    tokens = tokenize(call.arguments)
    return _Item(final=final, tokens=tokens, hidden=call_tokens(call) - len(tokens))


# -- the events --------------------------------------------------------------------------------------------------


class _Stream:
    """Numbers events and counts the tokens that they stand for.

    Args:
        body: The request.
        rng: Source of the sizes of the pieces and of the padding.
    """

    def __init__(self, body: Json, rng: random.Random) -> None:
        self._rng = rng
        self._pads = inner(body, "stream_options").get("include_obfuscation") is not False
        self._number = 0
        self._tokens = 0

    def events(self, head: Json, items: list[_Item], whole: Json) -> Iterator[Event]:
        """All events of a response; no ``[DONE]`` follows."""
        yield self._event("created", {"response": head})
        yield self._event("in_progress", {"response": head})
        for index, item in enumerate(items):
            self._tokens += item.hidden
            final = item.final
            opening: dict[str, Json] = {
                "message": {"content": []},
                "function_call": {"arguments": ""},
                "reasoning": {"summary": []},
            }
            started = {**final, **opening[final["type"]]}
            if "status" in final:
                started["status"] = "in_progress"
            yield self._event("output_item.added", {"output_index": index, "item": started})
            at = {"item_id": final["id"], "output_index": index}
            if final["type"] == "message":
                yield from self._message(at, final["content"][0], item.tokens)
            elif final["type"] == "function_call":
                for delta in self._deltas(item.tokens):
                    yield self._event("function_call_arguments.delta", {**at, **delta})
                done = {**at, "name": final["name"], "arguments": final["arguments"]}
                yield self._event("function_call_arguments.done", done)
            elif final["summary"]:
                yield from self._summary({**at, "summary_index": 0}, final["summary"][0], item.tokens)
            yield self._event("output_item.done", {"output_index": index, "item": final})
        yield self._event("incomplete" if whole["status"] == "incomplete" else "completed", {"response": whole})

    def _message(self, at: Json, part: Json, tokens: tuple[str, ...]) -> Iterator[Event]:
        at = {**at, "content_index": 0}
        refuses = part["type"] == "refusal"
        member = "refusal" if refuses else "text"
        name = "refusal" if refuses else "output_text"
        empty: Json = {**part, member: ""}
        if not refuses:
            empty["logprobs"] = []
        yield self._event("content_part.added", {**at, "part": empty})
        logprobs: list[Json] = part.get("logprobs") or []
        done = 0
        for count, delta in self._counted(tokens):
            extra = {} if refuses else {"logprobs": logprobs[done : done + count]}
            done += count
            yield self._event(f"{name}.delta", {**at, **delta, **extra})
        extra = {} if refuses else {"logprobs": logprobs}
        yield self._event(f"{name}.done", {**at, member: part[member], **extra})
        yield self._event("content_part.done", {**at, "part": part})

    def _summary(self, at: Json, part: Json, tokens: tuple[str, ...]) -> Iterator[Event]:
        yield self._event("reasoning_summary_part.added", {**at, "part": {**part, "text": ""}})
        for delta in self._deltas(tokens):
            yield self._event("reasoning_summary_text.delta", {**at, **delta})
        yield self._event("reasoning_summary_text.done", {**at, "text": part["text"]})
        yield self._event("reasoning_summary_part.done", {**at, "part": part})

    def _counted(self, tokens: tuple[str, ...]) -> Iterator[tuple[int, Json]]:
        """How many tokens each delta stands for, and the delta."""
        for count, words in pieces(tokens, self._rng, _MOST_PIECE):
            self._tokens += count
            padding = random_id(self._rng, self._rng.randint(1, _MOST_PADDING)) if self._pads else None
            yield count, {"delta": words, **({"obfuscation": padding} if padding else {})}

    def _deltas(self, tokens: tuple[str, ...]) -> Iterator[Json]:
        return (delta for _, delta in self._counted(tokens))

    def _event(self, name: str, members: Json) -> Event:
        kind = f"response.{name}"
        data = _encode({"type": kind, "sequence_number": self._number, **members})
        self._number += 1
        return named_event(self._tokens, kind, data)
