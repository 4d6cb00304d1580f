"""Messages: the object, and the events that build it up.

Source:
    https://platform.claude.com/docs/en/api/messages/create, https://platform.claude.com/docs/en/build-with-claude/streaming
    and the types of the package ``anthropic`` 2.14. Server tools are accepted and never used.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator
from typing import Final

import attrs
import msgspec

from bifrost_core.testing.serving._answers import Answer, Json, SchemaError, call_tokens, inner, pieces, tokenize
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import SSE, Event, Reply, named_event
from bifrost_core.testing.serving._wishes import Tool, Wish, make_answer

from ._blocks import check_order
from ._errors import AnthropicError
from ._prompts import PromptTokens, count_prompt, read_prompt
from ._service import keep_thread, resume_thread
from ._validation import check_body
from ._vendor import limit_headers, random_id
from .catalogue import traits_of

__all__ = ["answer_count", "answer_messages"]

_MOST_PIECE: Final = 4  # tokens of one event
_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_NONCE: Final = 16  # bytes
_TOLD: Final = (  # members of the usage object that the last but one event repeats
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
)

_encode = msgspec.json.Encoder().encode


def answer_count(question: Question) -> Reply:
    """Input tokens of a prompt, which costs nothing.

    Raises:
        ApiError: The prompt or the model is refused.
    """
    _check(question, counts=True)
    question.service.model(question.body["model"], "completion_chat")
    return Reply(body=_encode({"input_tokens": count_prompt(question.body)}))


def answer_messages(question: Question) -> Reply:
    """One message, plain or streamed.

    Raises:
        ApiError: The model, a limit, or the test's own answer function refuses.
    """
    body, rng, service = question.body, question.rng, question.service
    resume_thread(question)
    _check(question, counts=False)
    admission = question.admit("completion_chat", "req", "tokens")
    count, most = count_prompt(body), admission.model.context
    if count > most:
        raise AnthropicError.bad(f"prompt is too long: {count} tokens > {most} maximum")
    wish, lengths = _wish(body), question.state.key.output_tokens

    def made() -> Answer:
        return make_answer(body, wish, rng, lengths, service.answer, lambda: f"toolu_{random_id(rng)}")

    try:
        answer = question.ask(made)
    except SchemaError as exc:
        raise AnthropicError.bad(f"output_config.format.schema: {exc}") from None
    prompt = read_prompt(question)
    reply = question.reply()
    reply.prompt_tokens, reply.completion_tokens = prompt.total, answer.tokens
    admission.quota.charge("tokens", prompt.total - prompt.read + answer.tokens)
    reply.headers = limit_headers(admission.quota, question.now)
    message = {
        "id": f"msg_{random_id(rng)}",
        "type": "message",
        "role": "assistant",
        "model": admission.model.name,
        "content": list(_content(answer, body, rng, service.seed)),
        "stop_reason": "stop_sequence"
        if answer.stopped_by
        else _REASONS.get(answer.finish_reason, answer.finish_reason),
        "stop_sequence": answer.stopped_by,
        "usage": _usage(prompt, answer, body),
    }
    keep_thread(question, message)
    if question.streams:
        reply.content_type = SSE
        reply.events = list(_events(message, answer, rng))
    else:
        reply.body = _encode(message)
    return reply


def _check(question: Question, *, counts: bool) -> None:
    body = question.body
    check_body(
        body, counts=counts, beta="anthropic-beta" in question.headers, version=question.headers["anthropic-version"]
    )
    seed, traits = question.service.seed, traits_of(body["model"])
    check_order(
        body,
        lambda block: _is_signed(block["thinking"], block["signature"], seed),
        prefill=traits.prefill,
        late_system=traits.late_system,
    )


def _wish(body: Json) -> Wish:
    """What a request wants."""
    choice = inner(body, "tool_choice")
    tools = [tool for tool in body.get("tools") or () if tool.get("type") in {None, "custom"}]
    thinking = inner(body, "thinking").get("type")
    unasked = traits_of(body["model"]).thinks and choice.get("type") not in {"any", "tool"}
    form = inner(body, "output_config", "format") or inner(body, "output_format")
    return Wish(
        tools=tuple(Tool(tool["name"], tool["input_schema"]) for tool in tools),
        calls=choice.get("type") in {"any", "tool"},
        tool=choice.get("name"),
        schema=form.get("schema"),
        stops=tuple(body.get("stop_sequences") or ()),
        most=body["max_tokens"],
        thinks=thinking in {"enabled", "adaptive"} or (unasked and thinking is None),
    )


def _usage(prompt: PromptTokens, answer: Answer, body: Json) -> Json:
    """The usage object."""
    usage = {**prompt.usage(), "output_tokens": answer.tokens, "service_tier": "standard"}
    if answer.thinking:
        usage["output_tokens_details"] = {"thinking_tokens": len(answer.thinking)}
    if body.get("inference_geo"):
        usage["inference_geo"] = body["inference_geo"]
    return usage


# -- thinking ----------------------------------------------------------------------------------------------------


def _sign(thinking: str, seed: int, rng: random.Random) -> str:
    """A signature that belongs to a text of thinking."""
    nonce = rng.randbytes(_NONCE)
    return base64.b64encode(nonce + _digest(thinking, seed, nonce)).decode()


def _is_signed(thinking: str, signature: str, seed: int) -> bool:
    """Whether the service made a signature for a text."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError:
        return False
    return raw[_NONCE:] == _digest(thinking, seed, raw[:_NONCE])


def _digest(thinking: str, seed: int, nonce: bytes) -> bytes:
    return hashlib.sha256(f"{seed}/{thinking}".encode() + nonce).digest()


# -- the object --------------------------------------------------------------------------------------------------


def _content(answer: Answer, body: Json, rng: random.Random, seed: int) -> Iterator[Json]:
    """Thinking, text and calls, in this order."""
    if answer.thinking:
        usual = "summarized" if traits_of(body["model"]).shows else "omitted"
        display = inner(body, "thinking").get("display") or usual
        shown = "" if display == "omitted" else "".join(answer.thinking)
        yield {"type": "thinking", "thinking": shown, "signature": _sign(shown, seed, rng)}
    said = "".join(answer.text or answer.refusal)
    if said:
        yield {"type": "text", "text": said}
    for call in answer.tool_calls:
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": _arguments(call.arguments)}


def _arguments(text: str) -> Json:
    """The input of a call; one that was cut short, or is no object, is empty."""
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError:
        return {}


# -- the events --------------------------------------------------------------------------------------------------


def _event(tokens: int, kind: str, members: Json) -> Event:
    return named_event(tokens, kind, _encode({"type": kind, **members}))


@attrs.frozen(kw_only=True)
class _Part:
    """How one block comes.

    Attributes:
        opening: The block as it begins.
        deltas: What is added to it, each with the tokens that it stands for.
        hidden: Output tokens that are generated before it begins.
    """

    opening: Json
    deltas: list[tuple[int, Json]]
    hidden: int = 0


def _parts(content: list[Json], answer: Answer, rng: random.Random) -> Iterator[_Part]:
    """How the blocks of an answer come."""
    calls = iter(answer.tool_calls)
    for block in content:
        if block["type"] == "thinking":
            shown = answer.thinking if block["thinking"] else ()
            deltas = _pieces("thinking_delta", "thinking", shown, rng)
            deltas.append((0, {"type": "signature_delta", "signature": block["signature"]}))
            opening = {"type": "thinking", "thinking": "", "signature": ""}
            yield _Part(opening=opening, deltas=deltas, hidden=len(answer.thinking) - len(shown))
        elif block["type"] == "text":
            deltas = _pieces("text_delta", "text", answer.text or answer.refusal, rng)
            yield _Part(opening={"type": "text", "text": ""}, deltas=deltas)
        else:
            call = next(calls)
            tokens = tokenize(call.arguments)
            deltas = [(0, {"type": "input_json_delta", "partial_json": ""})]
            deltas += _pieces("input_json_delta", "partial_json", tokens, rng)
            yield _Part(opening={**block, "input": {}}, deltas=deltas, hidden=call_tokens(call) - len(tokens))


def _pieces(kind: str, member: str, tokens: tuple[str, ...], rng: random.Random) -> list[tuple[int, Json]]:
    """Deltas of one kind, with the tokens that each stands for."""
    return [(count, {"type": kind, member: said}) for count, said in pieces(tokens, rng, _MOST_PIECE)]


def _events(message: Json, answer: Answer, rng: random.Random) -> Iterator[Event]:
    """All events of a message."""
    usage: Json = message["usage"]
    begun = {name: value for name, value in usage.items() if name != "output_tokens_details"}
    empty: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": {**begun, "output_tokens": 1}}
    yield _event(0, "message_start", {"message": {**message, **empty}})
    total = 0
    for index, part in enumerate(_parts(message["content"], answer, rng)):
        total += part.hidden
        yield _event(total, "content_block_start", {"index": index, "content_block": part.opening})
        if index == 0:
            yield _event(total, "ping", {})
        for count, delta in part.deltas:
            total += count
            yield _event(total, "content_block_delta", {"index": index, "delta": delta})
        yield _event(total, "content_block_stop", {"index": index})
    ending = {name: message[name] for name in ("stop_reason", "stop_sequence")}
    counts = {name: usage[name] for name in _TOLD if name in usage}
    yield _event(total, "message_delta", {"delta": ending, "usage": counts})
    yield _event(total, "message_stop", {})
