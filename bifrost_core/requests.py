"""What callers write, as a ``Request`` and the options of the call: one function per operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from .errors import ConfigError
from .keys import ANY_MODEL
from .structured import parser_of, response_format_of
from .tools import flat_tools_of, tools_of
from .types import Input, Message, Messages, Operation, Request, input_items, message_dicts

__all__ = [
    "CALL_OPTIONS",
    "STREAM_OPTIONS",
    "Moderated",
    "Texts",
    "chat",
    "embed",
    "fim",
    "models",
    "moderate",
    "responses",
]

CALL_OPTIONS: Final = frozenset({"session", "cache", "effects", "extra_body"})
STREAM_OPTIONS: Final = CALL_OPTIONS | {"resume", "drain"}

Made = tuple[Request, dict[str, Any]]
Texts = str | Iterable[str]
Moderated = (
    Texts
    | Message
    | Mapping[str, Any]
    | Iterable[Mapping[str, Any] | Message]
    | Iterable[Iterable[Mapping[str, Any] | Message]]
)


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

    What is Python in it becomes JSON here, once: functions among ``tools`` are described, and a class given as
    ``response_format`` is its schema. So hooks, caches and logs see plain values, equal where they say the same.
    What reads the class back from the answer is the option ``parse``.

    Raises:
        ConfigError: ``messages`` has none of the accepted forms, a tool or the class can not be described.
    """
    request, options = made(
        Operation.CHAT, model, {"messages": message_dicts(messages)}, plain_fields(params), stream=stream
    )
    wanted = params.get("response_format")
    if wanted is not None and not isinstance(wanted, Mapping):
        options["parse"] = parser_of(wanted)
    return request, options


def plain_fields(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields with functions and classes in them as JSON.

    Raises:
        ConfigError: One can not be described.
    """
    changed: dict[str, Any] = {}
    if (tools := params.get("tools")) is not None:
        changed["tools"] = tools_of(tools)
    wanted = params.get("response_format")
    if wanted is not None and not isinstance(wanted, Mapping):
        changed["response_format"] = response_format_of(wanted)
    return {**params, **changed} if changed else params


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


def responses(model: str, given: Input, params: Mapping[str, Any], *, stream: bool) -> Made:
    """Input items to be answered in the OpenAI Responses shape.

    Raises:
        ConfigError: ``given`` has none of the accepted forms, or a tool can not be described.
    """
    if (tools := params.get("tools")) is not None:
        params = {**params, "tools": flat_tools_of(tools)}
    return made(Operation.RESPONSES, model, {"input": input_items(given)}, params, stream=stream)


def embed(model: str, texts: Texts, params: Mapping[str, Any]) -> Made:
    """Texts to be turned into vectors.

    Raises:
        ConfigError: ``texts`` is neither a string nor an iterable of strings, or empty.
    """
    if isinstance(texts, str):
        given: str | list[str] = texts
    else:
        given = cast("list[str]", _listed(texts, "a string or a list of strings"))
        for place, text in enumerate(given):
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
                raise ConfigError(
                    f"input[{place}] is {type(text).__name__}; pass text (tokens are not taken)",
                    field=f"input[{place}]",
                )
    return made(Operation.EMBEDDINGS, model, {"input": given}, params)


def moderate(model: str, given: Moderated, params: Mapping[str, Any]) -> Made:
    """Texts or conversations to be judged.

    Raises:
        ConfigError: ``given`` has none of the accepted forms.
    """
    return made(Operation.MODERATION, model, {"input": _moderated(given)}, params)


def models(provider: str) -> Made:
    """The models that a provider offers, asked of no model: hooks see ``"provider/*"``."""
    return Request(Operation.MODELS, f"{provider}/{ANY_MODEL}"), {}


def _listed(given: object, wanted: str) -> list[Any]:
    """What an iterable holds; not of text, bytes or a mapping, which are iterable and hold something else."""
    kind = type(given).__name__
    if isinstance(given, (bytes, bytearray, Mapping)) or not isinstance(given, Iterable):
        raise ConfigError(f"input is {kind}; pass {wanted}", field="input")
    held: list[Any] = list(cast("Iterable[object]", given))
    if not held:
        raise ConfigError(f"input is empty; pass {wanted}", field="input")
    return held


def _moderated(given: Moderated) -> Any:
    """Every accepted form in one of four: a text, texts, a conversation or conversations, as lists and dicts."""
    if isinstance(given, str):
        return given
    if isinstance(given, (Message, Mapping)):
        return _conversation(given, "input")
    held = _listed(given, "a text, texts, messages or lists of messages")
    if all(isinstance(each, str) for each in held):
        return held
    if any(isinstance(each, (Message, Mapping)) for each in held):
        return _conversation(held, "input")
    for place, each in enumerate(held):
        if isinstance(each, (str, bytes, bytearray)) or not isinstance(each, Iterable):
            raise ConfigError(
                f"input[{place}] is {type(each).__name__}; pass texts alone, messages alone or lists of messages",
                field=f"input[{place}]",
            )
    return [_conversation(each, f"input[{place}]") for place, each in enumerate(held)]


def _conversation(messages: Any, path: str) -> list[dict[str, Any]]:
    """The messages as dicts; a mistake is told by its place in the input."""
    try:
        return message_dicts(messages)
    except ConfigError as exc:
        field = (exc.field or "messages").replace("messages", path, 1)
        raise ConfigError(exc.message.replace("messages", path, 1), field=field) from None
