"""Mistral's answers to chat and FIM, member by member.

Source:
    https://docs.mistral.ai/api (chat completions, FIM) and replies as they come since 2026: usage beside
    the last ``finish_reason``, a padding member ``p`` in most events.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import attrs
import msgspec

from bifrost_core.testing.serving._answers import Answer, Json, ToolCall, call_tokens, pieces
from bifrost_core.testing.serving._replies import DONE, Event

__all__ = ["Generation", "chat_body", "chat_events"]

_PADDING = "abcdefghijklmnopqrstuvwxyz0123456789"
_MAX_PIECE = 4  # tokens of one event

_encode = msgspec.json.Encoder().encode


@attrs.frozen(kw_only=True)
class Generation:
    """One chat or FIM answer, before it is put on the wire.

    Attributes:
        id: 32 hexadecimal digits.
        created: Seconds since 1970-01-01 UTC.
        model: The name that was asked for.
        prompt_tokens: Input tokens.
        answers: One per choice.
    """

    id: str
    created: int
    model: str
    prompt_tokens: int
    answers: tuple[Answer, ...]

    @property
    def completion_tokens(self) -> int:
        """Output tokens of all choices."""
        return sum(answer.tokens for answer in self.answers)

    def usage(self) -> Json:
        """The usage object."""
        completion = self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + completion,
            "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": 0},
            "service_tier": "standard",
        }


def _calls(calls: tuple[ToolCall, ...]) -> list[Json]:
    """The ``tool_calls`` member."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
            "index": index,
        }
        for index, call in enumerate(calls)
    ]


def _thinking(text: str) -> Json:
    """A content chunk with reasoning."""
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}], "closed": True}


def chat_body(generation: Generation) -> bytes:
    """The body of a plain reply."""
    choices: list[Json] = []
    for index, answer in enumerate(generation.answers):
        text = answer.prefix + "".join(answer.text)
        content: object = text
        if answer.thinking:
            content = [_thinking("".join(answer.thinking)), *([{"type": "text", "text": text}] if text else [])]
        choices.append(
            {
                "index": index,
                "finish_reason": answer.finish_reason,
                "message": {
                    "role": "assistant",
                    "tool_calls": _calls(answer.tool_calls) if answer.tool_calls else None,
                    "content": content,
                },
            }
        )
    return _encode(
        {
            "id": generation.id,
            "created": generation.created,
            "model": generation.model,
            "usage": generation.usage(),
            "object": "chat.completion",
            "choices": choices,
        }
    )


def _deltas(answer: Answer, rng: random.Random) -> Iterator[tuple[int, Json, str | None]]:
    """Tokens, delta and finish reason of the events of one choice."""
    yield 0, {"role": "assistant", "content": ""}, None
    for tokens, text in pieces(answer.thinking, rng, _MAX_PIECE):
        yield tokens, {"content": [_thinking(text)]}, None
    if answer.prefix:
        yield 0, {"content": answer.prefix}, None
    texts: list[tuple[int, Json]] = [
        (tokens, {"content": text}) for tokens, text in pieces(answer.text, rng, _MAX_PIECE)
    ]
    if answer.tool_calls:
        texts.append((sum(map(call_tokens, answer.tool_calls)), {"tool_calls": _calls(answer.tool_calls)}))
    elif not texts or rng.random() < 0.75:  # the last words come with the finish reason, or before it
        texts.append((0, {"content": ""}))
    for at, (tokens, delta) in enumerate(texts, 1):
        yield tokens, delta, answer.finish_reason if at == len(texts) else None


def chat_events(generation: Generation, rng: random.Random) -> list[Event]:
    """The events of a streamed reply, ``[DONE]`` included.

    Args:
        generation: What to send. Several choices take turns, one event each.
        rng: Source of the sizes of the pieces and of the padding.
    """
    head = b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
        generation.id.encode(),
        generation.created,
        _encode(generation.model),
    )
    queues = [(index, _deltas(answer, rng)) for index, answer in enumerate(generation.answers)]
    rows: list[tuple[int, int, Json, str | None]] = []
    while queues:
        for queue in tuple(queues):
            row = next(queue[1], None)
            if row is None:
                queues.remove(queue)
            else:
                rows.append((queue[0], *row))
    events: list[Event] = []
    total = 0
    last = len(rows) - 1
    for at, (index, tokens, delta, reason) in enumerate(rows):
        total += tokens
        frame = head + b'{"index":%d,"delta":%b,"finish_reason":%b}]' % (index, _encode(delta), _encode(reason))
        if at == last:
            frame += b',"usage":' + _encode(generation.usage())
        if "role" not in delta:
            frame += b',"p":"%b"' % _PADDING[: rng.randint(1, len(_PADDING))].encode()
        events.append(Event(total, frame + b"}\n\n"))
    events.append(Event(total, DONE))
    return events
