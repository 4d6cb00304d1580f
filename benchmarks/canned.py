"""Answers made once: a plain one of about 1 KB, and streams of one event per token; in Mistral's shape and Anthropic's.

Standard library only, so that the server that sends them starts at once.

Source:
    https://docs.mistral.ai/api/endpoint/chat (answers and events);
    https://docs.anthropic.com/en/api/messages and https://docs.anthropic.com/en/docs/build-with-claude/streaming.
"""

from __future__ import annotations

import functools
import itertools
import json
from typing import Any, Final

__all__ = [
    "ANTHROPIC_PLAIN",
    "HEADERS",
    "MESSAGES",
    "MODEL",
    "PLAIN",
    "TEXT",
    "anthropic_events",
    "stream_events",
    "stream_text",
]

MODEL: Final = "mistral-small-latest"

MESSAGES: Final = [{"role": "user", "content": "word " * 160}]
"""About 1 KB of request."""

TEXT: Final = "Bifrost is the burning rainbow bridge between Midgard and Asgard. " * 10
"""What every plain answer says."""

HEADERS: Final = (
    (b"x-ratelimit-limit-req-minute", b"600000"),
    (b"x-ratelimit-remaining-req-minute", b"599999"),
    (b"x-ratelimit-limit-tokens-minute", b"500000000"),
    (b"x-ratelimit-remaining-tokens-minute", b"499999000"),
    (b"mistral-correlation-id", b"01930e5a-7f5b-7c1e-9d42-0123456789ab"),
)
"""What comes with every answer beside its type and length: the limits, which a Router reads."""

_WORDS: Final = ("Bifrost ", "trembles ", "when ", "the ", "gods ", "ride ", "over ", "it. ")
_HEAD: Final = {"id": "5b3f0e6c2a1d4c7f9e8b7a6d5c4b3a21", "created": 1_764_000_000, "model": MODEL}


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def _plain() -> bytes:
    message = {"role": "assistant", "content": TEXT, "tool_calls": None}
    return _json(
        {
            **_HEAD,
            "object": "chat.completion",
            "usage": {"prompt_tokens": 164, "completion_tokens": 120, "total_tokens": 284},
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
    )


PLAIN: Final = _plain()
"""The body of every plain answer."""


def _said(tokens: int) -> list[str]:
    return list(itertools.islice(itertools.cycle(_WORDS), tokens))


def stream_text(tokens: int) -> str:
    """What a stream of so many tokens says."""
    return "".join(_said(tokens))


@functools.cache
def stream_events(tokens: int) -> tuple[bytes, ...]:
    """The events of a streamed answer, each of about 200 bytes: the role, one per token, the usage, the end."""

    def event(delta: dict[str, str], reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return b"data: " + _json({**_HEAD, "object": "chat.completion.chunk", "choices": [choice], **more}) + b"\n\n"

    usage = {"prompt_tokens": 164, "completion_tokens": tokens, "total_tokens": 164 + tokens}
    return (
        event({"role": "assistant", "content": ""}),
        *(event({"content": word}) for word in _said(tokens)),
        event({"content": ""}, "stop", usage=usage),
        b"data: [DONE]\n\n",
    )


_MESSAGE: Final = {
    "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "stop_sequence": None,
}

ANTHROPIC_PLAIN: Final = _json(
    {
        **_MESSAGE,
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 164, "output_tokens": 120},
    }
)
"""The body of every plain answer in Anthropic's shape."""


@functools.cache
def anthropic_events(tokens: int) -> tuple[bytes, ...]:
    """The same stream in Anthropic's shape: what opens it, one event per token, what closes it."""

    def event(kind: str, **members: Any) -> bytes:
        return b"event: " + kind.encode() + b"\ndata: " + _json({"type": kind, **members}) + b"\n\n"

    opened: dict[str, Any] = {
        **_MESSAGE,
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 164, "output_tokens": 0},
    }
    return (
        event("message_start", message=opened),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in _said(tokens)),
        event("content_block_stop", index=0),
        event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"input_tokens": 164, "output_tokens": tokens},
        ),
        event("message_stop"),
    )
