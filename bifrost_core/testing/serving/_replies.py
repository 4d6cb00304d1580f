"""A successful reply before it is sent: bytes, times and what it bills."""

from __future__ import annotations

import math
from typing import Final

import attrs
import msgspec

from .journal import ServedRequest

__all__ = ["DONE", "JSON", "SSE", "TEXT", "Event", "Reply", "as_events", "named_event", "with_usage"]

DONE: Final = b"data: [DONE]\n\n"
JSON: Final = "application/json"
SSE: Final = "text/event-stream; charset=utf-8"
TEXT: Final = "text/plain; charset=utf-8"


@attrs.frozen
class Event:
    """One event of a stream.

    Attributes:
        tokens: Output tokens generated when it is sent, all earlier events included.
        data: The whole frame, blank line included.
    """

    tokens: int
    data: bytes


def named_event(tokens: int, name: str, data: bytes) -> Event:
    """An event that states its name, as those of audio streams do.

    Args:
        tokens: Output tokens generated when it is sent.
        name: Of the event.
        data: JSON without line ends.
    """
    return Event(tokens, b"event: %b\ndata: %b\n\n" % (name.encode(), data))


@attrs.define(eq=False, kw_only=True)
class Reply:
    """A successful reply, ready to send.

    Attributes:
        content_type: Of the body.
        headers: Beside the usual ones.
        body: Of a plain reply.
        events: Of a streamed one; empty for a plain one.
        tail: How many events from the end on the answer is complete.
        first_token: Seconds until the first token.
        tokens_per_second: Output speed.
        prompt_tokens: To bill.
        completion_tokens: To bill when all of it is generated.
        audio_seconds: Seconds of sound that came in, to bill.
        pages: Pages read, to bill.
        characters: Characters spoken, to bill.
    """

    content_type: str = JSON
    headers: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]])
    body: bytes = b""
    events: list[Event] = attrs.field(factory=list[Event])
    tail: int = 2
    first_token: float = 0.0
    tokens_per_second: float = math.inf
    prompt_tokens: int = 0
    completion_tokens: int = 0
    audio_seconds: int = 0
    pages: int = 0
    characters: int = 0

    def slow_down(self, factor: float) -> None:
        """Make it take so many times as long."""
        self.first_token *= factor
        self.tokens_per_second /= factor or 1.0

    def due(self, tokens: int) -> float:
        """Seconds until so many tokens are generated."""
        return self.first_token + tokens / self.tokens_per_second

    def generated(self, seconds: float) -> int:
        """Tokens generated after so many seconds."""
        if seconds < self.first_token:
            return 0
        if seconds >= self.due(self.completion_tokens):
            return self.completion_tokens
        return int((seconds - self.first_token) * self.tokens_per_second)

    def bill(self, record: ServedRequest, completion_tokens: int) -> None:
        """Enter into a record what is billed: the whole input and the output generated until now."""
        record.prompt_tokens = self.prompt_tokens
        record.completion_tokens = completion_tokens
        record.audio_seconds = self.audio_seconds
        record.pages = self.pages
        record.characters = self.characters


_BELOW_ZERO: Final = b'{"prompt_tokens":-7,"completion_tokens":-1,"total_tokens":-8}'
_BELOW_ZERO_TOO: Final = b'{"input_tokens":-7,"output_tokens":-1,"total_tokens":-8}'  # where they are called so
_INSIDE: Final = ("message", "response")  # members of events that hold a reply with its usage
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def with_usage(reply: Reply, usage: bytes | None) -> None:
    """Put other bytes where a reply or its events count tokens.

    Args:
        reply: Changed in place; only objects with a ``usage`` are.
        usage: The bytes; None for counts below zero.
    """

    def recounted(data: bytes) -> bytes:
        try:
            members = _OBJECT.decode(data)
        except msgspec.DecodeError:
            return data
        changed: dict[str, msgspec.Raw] = {}
        if "usage" in members:
            counts = bytes(members["usage"])
            below = _BELOW_ZERO_TOO if b'"output_tokens"' in counts else _BELOW_ZERO
            changed["usage"] = msgspec.Raw(below if usage is None else usage)
        for name in _INSIDE:
            if name in members and recounted(bytes(members[name])) != members[name]:
                changed[name] = msgspec.Raw(recounted(bytes(members[name])))
        return msgspec.json.encode({**members, **changed}) if changed else data

    reply.body = recounted(reply.body)
    for at, event in enumerate(reply.events):
        name, mark, payload = event.data.partition(b"data: ")
        payload = payload.removesuffix(b"\n\n")
        if recounted(payload) != payload:
            reply.events[at] = Event(event.tokens, name + mark + recounted(payload) + b"\n\n")


def as_events(reply: Reply) -> None:
    """Make events of a plain reply, all in one piece: what a service that streams unasked sends."""
    if not reply.events:
        reply.body = b"data: " + reply.body + b"\n\n" + DONE
        reply.content_type = SSE
