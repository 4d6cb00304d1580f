"""Answers in Mistral's shape, made once: a plain one of about 1 KB, and streams of one event per token.

Standard library only, so that the server that sends them starts at once.

Source:
    https://docs.mistral.ai/api/endpoint/chat (answers and events).
"""

from __future__ import annotations

import functools
import itertools
import json
from typing import Any, Final

__all__ = ["HEADERS", "MESSAGES", "MODEL", "PLAIN", "TEXT", "stream_events", "stream_text"]

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
