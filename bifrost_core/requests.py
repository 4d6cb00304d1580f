"""What callers write, as a ``Request`` and the options of the call: one function per operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .errors import ConfigError
from .types import Messages, Operation, Request, message_dicts

__all__ = ["CALL_OPTIONS", "STREAM_OPTIONS", "chat", "fim"]

CALL_OPTIONS: Final = frozenset({"session", "cache", "effects", "extra_body"})
STREAM_OPTIONS: Final = CALL_OPTIONS | {"resume", "drain"}

Made = tuple[Request, dict[str, Any]]


def made(
    operation: Operation, model: str, body: dict[str, Any], params: Mapping[str, Any], *, stream: bool = False
) -> Made:
    """The request, and the call's options told from the provider's fields.

    Args:
        operation: What is asked for.
        model: As the caller wrote it.
        body: Members that the operation names itself; the fields of ``params`` are added.
        params: What the caller passed by keyword.
        stream: Whether the answer comes in chunks.

    Raises:
        ConfigError: ``stream`` is among the fields.
    """
    options: dict[str, Any] = {}
    known = STREAM_OPTIONS if stream else CALL_OPTIONS
    for name, value in params.items():
        if name in known:
            options[name] = value
        elif name == "stream":
            raise ConfigError(
                "stream is no parameter here: an operation answers whole, its stream_ twin in chunks", field="stream"
            )
        else:
            body[name] = value
    return Request(operation, model, body, stream=stream), options


def chat(model: str, messages: Messages, params: Mapping[str, Any], *, stream: bool) -> Made:
    """A conversation to be answered.

    Raises:
        ConfigError: ``messages`` has none of the accepted forms.
    """
    return made(Operation.CHAT, model, {"messages": message_dicts(messages)}, params, stream=stream)


def fim(model: str, prompt: str, suffix: str | None, params: Mapping[str, Any], *, stream: bool) -> Made:
    """A gap to be filled between ``prompt`` and ``suffix``.

    Raises:
        ConfigError: One of the two is no string.
    """
    body: dict[str, Any] = {"prompt": prompt}
    if suffix is not None:
        body["suffix"] = suffix
    for name, value in body.items():
        if not isinstance(value, str):
            raise ConfigError(f"{name} is {type(value).__name__}; pass a string", field=name)
    return made(Operation.FIM, model, body, params, stream=stream)
