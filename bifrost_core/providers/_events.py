"""What all decoders of streamed answers share: bytes into events, every way a stream can go wrong, and how it ends.

A vendor's decoder says what one event means, and when the answer is whole.

Source:
    WHATWG HTML "Server-sent events" (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

# pyright: reportUnknownArgumentType=false
# (wire JSON: its members are untyped until a decoder has read them)
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from bifrost_core.errors import CallError
from bifrost_core.kinds import Kind
from bifrost_core.responses import ChatResponse, Response
from bifrost_core.types import Chunk, JsonObject, Request

from ._chat import MalformedError
from ._json import JsonError, decode
from ._opening import Opening
from ._reporter import Reporter
from ._sse import MAX_EVENT, MAX_TOTAL, SseParser

__all__ = ["EventDecoder", "event_type", "most_events"]

_Answer = TypeVar("_Answer", bound=Response)


def most_events(request: Request, choices: int = 1) -> int | None:
    """How many events a chat answer may have at most, by the output limit that was asked for; None without one.

    Args:
        request: In the chat shape.
        choices: How many answers were asked for at once, each with that limit; at least 1.
    """
    body = request.body
    limit = body.get("max_tokens")
    if limit is None:
        limit = body.get("max_completion_tokens")
    if type(limit) is not int or limit < 0 or body.get("extra_body"):  # which may say otherwise
        return None
    return 2 * limit * choices + 256


def event_type(name: bytes, event: JsonObject) -> str:
    """The type of an event: its own member, else the ``event`` field in front of it."""
    kind = event.get("type")
    return kind if isinstance(kind, str) else name.decode("utf-8", "replace")


class EventDecoder(ABC, Generic[_Answer]):
    """Decodes one streamed answer (``StreamDecoder``); a subclass knows the events of a vendor.

    Args:
        request: That is answered.
        reporter: Of the provider.
        most: Events that the answer may have; None: any number.
        max_event: Bytes that an event may have.

    Attributes:
        text_errors: What an event named ``error`` holds is the vendor's message where it is no JSON.
        done: The terminal event has been read.
        error: What is wrong with the stream, once something is.
    """

    text_errors: ClassVar[bool] = False

    __slots__ = ("_events", "_most", "_opening", "_reporter", "_request", "_sse", "done", "error")

    def __init__(
        self, request: Request, reporter: Reporter, *, most: int | None = None, max_event: int = MAX_EVENT
    ) -> None:
        self.done = False
        self.error: CallError | None = None
        self._request = request
        self._reporter = reporter
        self._opening = Opening()
        self._sse = SseParser(max_event=max_event)
        self._events = 0
        self._most = most

    def feed(self, data: bytes) -> list[Chunk]:
        """Take the next bytes; return the chunks that they complete."""
        chunks: list[Chunk] = []
        if self.done or self.error is not None:
            return chunks
        if not self._opening.is_events:
            data = self._opening.look(data)
            if self._opening.is_json:
                self._plain(data, chunks)
            elif self._opening.is_html:
                self._break(Kind.BAD_RESPONSE, "is a page of HTML")
            if not self._opening.is_events:
                return chunks
        for name, payload in self._sse.feed(data):
            self._event(name, payload, chunks)
            if self.done or self.error is not None:
                return chunks
        if self._sse.overflow:
            self._break(Kind.RESPONSE_TOO_LARGE, f"has {self._sse.overflow}")
        return chunks

    def finish(self) -> _Answer:
        """The assembled answer, after the last byte.

        Raises:
            CallError: The stream was cut short (``StreamBrokenError``), or ``error``.
        """
        if self.error is None and not self.done:
            self._last_words()
        answer = self._answer() if self.error is None else None
        if answer is None:
            raise self.error or self._break(Kind.STREAM_TRUNCATED, "ended before its answer did")
        return answer

    # --- what differs between vendors

    @abstractmethod
    def partial(self) -> Response | None:
        """What has arrived so far, assembled; None when nothing has."""

    @abstractmethod
    def _take(self, name: bytes, event: JsonObject, chunks: list[Chunk]) -> None:
        """One event, whose ``event`` field is ``name``: add its chunks; ``_fail`` where it tells of an error.

        Raises:
            MalformedError: It can not be used.
        """

    @abstractmethod
    def _take_whole(self, answer: JsonObject, chunks: list[Chunk]) -> None:
        """A plain answer that came to a request for a stream; else as ``_take``."""

    @abstractmethod
    def _take_last(self, name: bytes, event: JsonObject) -> None:
        """An event that lacks its empty line at the end: it counts when it only says how the answer ended."""

    @abstractmethod
    def _answer(self) -> _Answer | None:
        """The whole answer; None as long as it is not complete."""

    def _is_complete(self) -> bool:
        return self._answer() is not None

    def _take_mark(self) -> bool:
        """``[DONE]`` in place of an event; returns whether it is more than an event that can not be read."""
        return True  # most vendors send none, a proxy may

    # --- events

    def _event(self, name: bytes, payload: bytes, chunks: list[Chunk]) -> None:
        if payload[:6] == b"[DONE]" and self._take_mark():
            return
        if self._most is not None:
            self._events += 1
            if self._events > self._most:
                self._break(Kind.RESPONSE_TOO_LARGE, f"has more than {self._most} events")
                return
        problem = ""
        try:
            event = decode(payload)
            if isinstance(event, dict):
                self._take(name, event, chunks)
            else:
                problem = "an event that is no object"
        except JsonError as exc:
            if self.text_errors and name == b"error":
                self._fail({"message": payload[:4096].decode("utf-8", "replace")})
            else:
                problem = f"an event that can not be read: {exc}"
        except MalformedError as exc:
            problem = f"an event that can not be used: {exc}"
        if problem:
            self._break(Kind.STREAM_MALFORMED, f"holds {problem}")

    def _plain(self, data: bytes, chunks: list[Chunk]) -> None:
        whole = self._opening.collect(data)
        if whole is None:
            if self._opening.is_too_large:
                self._break(Kind.RESPONSE_TOO_LARGE, f"has more than {MAX_TOTAL} bytes")
            return
        problem = ""
        try:
            answer = decode(whole)
            if isinstance(answer, dict):
                self._take_whole(answer, chunks)
            else:
                problem = "a JSON answer that is no object"
        except JsonError as exc:
            problem = f"a JSON answer that can not be read: {exc}"
        except MalformedError as exc:
            problem = f"an answer that can not be used: {exc}"
        if problem:
            self._break(Kind.BAD_RESPONSE, f"holds {problem}")
        elif self.error is None:
            self.done = True
            if not self._is_complete():
                self._break(Kind.STREAM_TRUNCATED, "ended before its answer did")

    def _last_words(self) -> None:
        if self._opening.is_json:
            self._break(Kind.BAD_RESPONSE, "holds a JSON answer that is cut off")
            return
        pending = self._sse.flush()
        if pending is None:
            return
        try:
            event = decode(pending[1])
            if isinstance(event, dict):
                self._take_last(pending[0], event)
        except (JsonError, MalformedError):
            return

    # --- errors

    def _fail(self, told: JsonObject) -> None:
        """The provider itself told of an error."""
        come = self.partial()
        chat = come if isinstance(come, ChatResponse) else None
        self.error = self._reporter.stream_error(told, chat, model=self._request.model, has_begun=come is not None)

    def _break(self, kind: Kind, why: str) -> CallError:
        """Something is wrong with the stream: ``error`` from here on."""
        come = self.partial()
        self.error = error = self._reporter.broken(kind, why, come if isinstance(come, ChatResponse) else None)
        return error
