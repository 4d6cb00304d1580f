"""Where events of the request log go. All of it runs in the writer's thread, so all of it may block."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import attrs

from bifrost_core import ConfigError

from ._events import Event

__all__ = ["Sink", "SinkError", "as_sink", "to_line"]


class Sink(Protocol):
    """Where events go. Called from one background thread, so it may block.

    One with a method ``close()`` is closed when the Router is; events that come later open it again.
    """

    def write_events(self, events: Sequence[Event]) -> None:
        """Write events, oldest first; they belong to the sink. What it raises is logged and counted."""
        ...


def to_line(event: Mapping[str, Any]) -> str:
    """An event as one line of JSON, without the line break.

    ASCII only: control characters, U+2028, U+2029 and direction marks appear as escapes, so that no
    text can begin a line of its own or turn one around.
    """
    line = json.dumps(event, separators=(",", ":"), allow_nan=False)
    return line.replace("\x7f", "\\u007f")


@attrs.define(eq=False)
class _LoggerSink:
    """Events as log records of level INFO: the line as message, the event as the attribute ``event``."""

    logger: logging.Logger

    def write_events(self, events: Sequence[Event]) -> None:
        if self.logger.isEnabledFor(logging.INFO):
            for event in events:
                self.logger.info("%s", to_line(event), extra={"event": event})


@attrs.define(eq=False)
class _CallableSink:
    """Events to a function, one call each; what it raises costs that event only."""

    function: Callable[[Event], object]

    def write_events(self, events: Sequence[Event]) -> None:
        failures: list[Exception] = []
        for event in events:
            try:
                self.function(event)
            except Exception as exc:
                failures.append(exc)
        if failures:
            raise SinkError(len(failures), failures[-1])


class SinkError(Exception):
    """Some events of a batch did not reach the sink: how many, and the last reason."""

    def __init__(self, events: int, cause: Exception) -> None:
        super().__init__(type(cause).__name__)
        self.events = events
        self.cause = cause


def as_sink(sink: object) -> Sink:
    if isinstance(sink, logging.Logger):
        return _LoggerSink(sink)
    if callable(getattr(sink, "write_events", None)):
        return cast("Sink", sink)
    if callable(sink):
        return _CallableSink(sink)
    raise ConfigError(
        f"a sink is a SqliteSink, a JsonlSink, a callable or a logging.Logger, not {type(sink).__name__}", field="sink"
    )
