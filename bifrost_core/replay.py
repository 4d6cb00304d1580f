"""Between whole answers and chunks: an answer told as chunks, and an answer as its reader got it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

from .blocks import folded, is_event, is_message
from .response_events import ResponseEvents
from .response_objects import is_silent_item, shell_of
from .responses import ChatResponse, Response, ResponsesResponse, Transcription
from .types import Choice, Chunk, JsonObject, ToolCall, rebuilt_raw

__all__ = ["as_delivered", "chat_as_delivered", "chunks_of"]

_OWN_BLOCKS: Final = frozenset({"thinking", "redacted_thinking", "tool_use"})  # told by chunks; or sealed


def chunks_of(response: Response) -> list[Chunk]:
    """A whole answer as the chunks of a stream: per choice one with its content and one with its end.

    The usage stands on the last chunk, as providers have it. ``raw`` is in the shape of an OpenAI
    chat completion chunk; of a transcription in that of its own events.
    """
    if isinstance(response, ResponsesResponse):
        return _chunks_of_items(response)
    if isinstance(response, Transcription):
        return _chunks_of_transcription(response)
    choices = response.choices if isinstance(response, ChatResponse) else (Choice(text=_text_of(response)),)
    head: JsonObject = {
        "id": response.raw.get("id") or response.call_id,
        "object": "chat.completion.chunk",
        "created": response.raw.get("created") or 0,
        "model": response.model,
    }
    chunks: list[Chunk] = []
    for position, choice in enumerate(choices):
        delta: JsonObject = {"role": "assistant", "content": choice.message.get("content", choice.text)}
        if choice.tool_calls:
            delta["tool_calls"] = [{"index": index, **call.to_openai()} for index, call in enumerate(choice.tool_calls)]
        chunks.append(
            Chunk(
                text=choice.text,
                reasoning=choice.reasoning,
                tool_calls=choice.tool_calls,
                index=choice.index,
                raw={**head, "choices": [{"index": choice.index, "delta": delta, "finish_reason": None}]},
            )
        )
        last = position == len(choices) - 1
        end: JsonObject = {
            **head,
            "choices": [{"index": choice.index, "delta": {}, "finish_reason": choice.finish_reason}],
        }
        if last and isinstance(response, ChatResponse):
            end["usage"] = response.to_openai()["usage"]
        chunks.append(
            Chunk(
                finish_reason=choice.finish_reason or "stop",
                usage=response.usage if last else None,
                index=choice.index,
                raw=end,
            )
        )
    return chunks


def _chunks_of_items(response: ResponsesResponse) -> list[Chunk]:
    """The items of a Responses answer as chunks, in their order; a call that was cut off is in none."""
    head: JsonObject = {
        "id": response.id.removeprefix("resp_") or response.call_id,
        "object": "chat.completion.chunk",
        "created": response.raw.get("created") or 0,
        "model": response.model,
    }

    def event(delta: JsonObject, finish_reason: str | None = None) -> JsonObject:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

    def event_of(item: JsonObject, what: str = "done") -> JsonObject:
        return {**head, "object": "response", "type": f"response.output_item.{what}", "item": item}

    chunks: list[Chunk] = []
    calls: list[ToolCall] = []
    is_own = isinstance(response.raw.get("output"), list)  # the provider's own shape: the names of its items are kept
    for item in response.output:
        one = ResponsesResponse(output=(item,))
        named = is_own and item.get("type") in {"function_call", "message", "reasoning"}
        if named:
            chunks.append(Chunk(raw=event_of(shell_of(item), "added")))
        if is_silent_item(item):
            chunks.append(Chunk(raw=event_of(item)))
        elif item.get("type") == "custom_tool_call":
            told = ToolCall(str(item.get("call_id")), str(item.get("name")), str(item.get("input")))
            chunks.append(Chunk(tool_calls=(told,), raw=event_of(item)))
            calls.append(told)
        elif text := _said(one):
            name = "content" if one.output_text else "refusal"
            chunks.append(Chunk(text=text, raw=event({"role": "assistant", name: text})))
        elif reasoning := one.reasoning:
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}
            chunks.append(Chunk(reasoning=reasoning, raw=event({"role": "assistant", "content": [thought]})))
        elif item.get("type") == "reasoning":  # sealed: no words to be told
            chunks.append(Chunk(raw=event_of(item)))
        elif item.get("status") != "incomplete":
            for call in one.tool_calls:
                delta = {"tool_calls": [{"index": len(calls), **call.to_openai()}]}
                chunks.append(Chunk(tool_calls=(call,), raw=event(delta)))
                calls.append(call)
        if named and (one.reasoning or _said(one)):
            chunks.append(Chunk(raw=event_of(shell_of(item))))
    if response.incomplete_reason is None:
        reason = "tool_calls" if calls else "stop"
    else:
        reason = "content_filter" if response.incomplete_reason == "content_filter" else "length"
    usage = ChatResponse(usage=response.usage).to_openai()["usage"]
    chunks.append(Chunk(finish_reason=reason, usage=response.usage, raw={**event({}, reason), "usage": usage}))
    return chunks


def _said(response: ResponsesResponse) -> str:
    """The words of a Responses answer, refusals among them."""
    return "".join(
        str(part.get("text") or part.get("refusal") or "")
        for item in response.output
        if item.get("type") == "message"
        for part in item.get("content") or ()
        if part.get("type") in {"output_text", "refusal"}
    )


def _chunks_of_transcription(response: Transcription) -> list[Chunk]:
    """The text as one delta, and the end, which has all of it once more.

    Source:
        https://docs.mistral.ai/capabilities/audio_transcription (streaming)
    """
    text = response.text
    said = [Chunk(text=text, raw={"type": "transcription.text.delta", "text": text})] if text else []
    whole = {"model": response.model, "text": text, "language": response.language, **response.raw}
    end: JsonObject = {**whole, "type": "transcription.done"}
    return [*said, Chunk(finish_reason="stop", usage=response.usage, raw=end)]


def _text_of(response: Response) -> str:
    text = getattr(response, "text", "")
    return text if isinstance(text, str) else ""


@attrs.define
class _Told:
    text: list[str] = attrs.field(factory=list[str])
    reasoning: list[str] = attrs.field(factory=list[str])
    tool_calls: list[ToolCall] = attrs.field(factory=list[ToolCall])
    finish_reason: str | None = None


def as_delivered(response: Response, delivered: Sequence[Chunk]) -> Response:
    """The answer that the reader of a filtered stream got: what a filter removed is nowhere in it.

    Args:
        response: As the provider sent it.
        delivered: Every chunk that was handed out, in order.
    """
    if isinstance(response, ChatResponse):
        return chat_as_delivered(response, delivered)
    if isinstance(response, ResponsesResponse):
        return _items_as_delivered(response, delivered)
    if isinstance(response, Transcription):
        text = "".join(chunk.text for chunk in delivered)
        return response if text == response.text else response.with_text(text)
    return response


def _items_as_delivered(response: ResponsesResponse, delivered: Sequence[Chunk]) -> ResponsesResponse:
    events = ResponseEvents(call_id=response.id.removeprefix("resp_"))
    events.feed(delivered)
    # A call that was cut off is in the answer and in no chunk: no filter has seen it, so nobody gets it.
    seen = [
        item for item in response.output if item.get("type") != "function_call" or item.get("status") != "incomplete"
    ]
    events.finish(attrs.evolve(response, output=seen))
    told = events.response
    if told is None or told.output == response.output or _same_words(told, response):
        blocks = _delivered_blocks(response, delivered)
        return response if blocks is None else attrs.evolve(response, raw={**response.raw, "content": blocks})
    if is_message(response.raw):
        said = Choice(text=told.output_text, reasoning=told.reasoning, tool_calls=told.tool_calls)
        return attrs.evolve(told, raw=rebuilt_raw(response.raw, (said,)))
    raw: JsonObject = {name: value for name, value in response.raw.items() if name not in {"choices", "output"}}
    if response.raw.get("choices"):
        message = _message(told.output_text, told.reasoning, told.tool_calls)
        reason = response.raw["choices"][0].get("finish_reason")
        raw["choices"] = [{"index": 0, "message": message, "finish_reason": reason}]
    elif response.raw:
        raw["output"] = list(told.output)
    return attrs.evolve(told, raw=raw)


def _same_words(told: ResponsesResponse, response: ResponsesResponse) -> bool:
    """Whether a provider's own response says what was delivered, under names and with members of its own."""
    if not isinstance(response.raw.get("output"), list):
        return False
    each = ((_said(one), one.reasoning, one.tool_calls) for one in (told, response))
    return next(each) == next(each)


def _delivered_blocks(response: Response, delivered: Sequence[Chunk]) -> list[JsonObject] | None:
    """The blocks of Anthropic's message without those beside words, calls and thoughts that a filter has held back.

    None where none was, and where the reader got no events of Anthropic's.
    """
    events = [chunk.raw for chunk in delivered if is_event(chunk.raw)]
    if not events or not is_message(response.raw):
        return None
    told = folded(events)
    kept: list[JsonObject] = []
    for block in response.raw["content"]:
        if block["type"] in _OWN_BLOCKS or block in told:
            kept.append(block)
        elif block["type"] == "text":  # its quotations
            kept.append({"type": "text", "text": block["text"]})
    return None if kept == response.raw["content"] else kept


def chat_as_delivered(response: ChatResponse, delivered: Sequence[Chunk]) -> ChatResponse:
    """As ``as_delivered``, of a chat answer."""
    told: dict[int, _Told] = {}
    for chunk in delivered:
        entry = told.setdefault(chunk.index, _Told())
        if chunk.text:
            entry.text.append(chunk.text)
        if chunk.reasoning:
            entry.reasoning.append(chunk.reasoning)
        entry.tool_calls.extend(chunk.tool_calls)
        entry.finish_reason = chunk.finish_reason or entry.finish_reason
    choices = tuple(_retold(choice, told.get(choice.index, _Told())) for choice in response.choices)
    if choices == response.choices:
        blocks = _delivered_blocks(response, delivered)
        if blocks is None:
            return response
        (choice,) = choices
        content: Any = choice.message.get("content")
        if isinstance(content, list):
            parts = [block for block in blocks if block["type"] != "tool_use"]
            choice = attrs.evolve(choice, message={**choice.message, "content": parts})
        return attrs.evolve(response, choices=(choice,), raw={**response.raw, "content": blocks})
    return attrs.evolve(response, choices=choices, raw=rebuilt_raw(response.raw, choices))


def _retold(choice: Choice, told: _Told) -> Choice:
    text, reasoning = "".join(told.text), "".join(told.reasoning) or None
    calls = tuple(told.tool_calls)
    # A call that was cut off is in the answer and in no chunk: no filter has seen it, so nobody gets it.
    if text == choice.text and reasoning == choice.reasoning and calls == choice.tool_calls:
        return choice
    return Choice(
        index=choice.index,
        text=text,
        reasoning=reasoning,
        tool_calls=calls,
        finish_reason=choice.finish_reason,
        message=_message(text, reasoning, calls),
    )


def _message(text: str, reasoning: str | None, calls: Iterable[ToolCall]) -> JsonObject:
    content: Any = text
    if reasoning:
        content = [{"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}]
        content.append({"type": "text", "text": text})
    message: JsonObject = {"role": "assistant", "content": content}
    if sent := [call.to_openai() for call in calls]:
        message["tool_calls"] = sent
    return message
