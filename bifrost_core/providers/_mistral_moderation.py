"""Moderation and classification on Mistral's wire: of texts on one path, of conversations on another.

Source:
    https://docs.mistral.ai/api/endpoint/classifiers and https://docs.mistral.ai/capabilities/guardrailing.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bifrost_core.errors import ConfigError
from bifrost_core.responses import ClassificationResponse, ModerationResponse
from bifrost_core.types import JsonObject, Message, Request, message_dicts
from bifrost_core.wire import HttpReply

from ._adapter import Payload
from ._chat import MalformedError
from ._embeddings import sent_value, write_texts
from ._members import Writer, leave_out, model_name, stream_flag, write_members
from ._mistral_messages import write_messages
from ._moderation import facts_of, read_results, read_scores, read_verdict
from ._reporter import Reporter

__all__ = ["read_classification", "read_moderation", "write_classification", "write_moderation"]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _is_message(value: Any) -> bool:
    return isinstance(value, (Mapping, Message))


def _conversations(value: Any) -> list[Any] | None:
    """The conversations that an ``input`` holds: one, or a list of them; None where it holds texts.

    A conversation is a list of messages, or an object with such a list as ``messages``.
    """
    if _is_message(value):
        return [value]
    if not _is_list(value) or not value:
        return None
    if all(_is_message(each) and not _is_wrapped(each) for each in value):
        return [value]
    return list(value) if all(_is_list(each) or _is_wrapped(each) for each in value) else None


def _is_wrapped(value: Any) -> bool:
    return isinstance(value, Mapping) and "messages" in value


def _write_conversation(given: Any, reporter: Reporter) -> list[Any]:
    """The messages of one conversation in Mistral's words."""
    if isinstance(given, Mapping) and "messages" in given:
        strange = sorted(str(name) for name in given if name != "messages")
        if strange:
            raise reporter.unsupported(f"input.{strange[0]}", "a conversation has messages and nothing else")
        given = given["messages"]
    problem = ""
    written: JsonObject = {}
    try:
        write_messages(written, "messages", message_dicts(given), reporter)
    except ConfigError as exc:
        problem = exc.message
    if problem:
        raise reporter.invalid(problem)
    messages: list[Any] = written["messages"]
    return messages


def _keep(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    members[name] = value  # written once all of it is known: its shape decides over the path


_FIELDS: Final[Mapping[str, Writer | None]] = {
    "input": _keep,
    "metadata": None,
    "model": model_name,
    "stream": stream_flag,
    "user": leave_out,
}


def _write(request: Request, reporter: Reporter, path: str, shape: Callable[[list[Any]], Any]) -> Payload:
    """The payload: of texts for the operation's own path, of conversations for ``path``."""
    members, extra = write_members(_FIELDS, "input", request, reporter)
    value: Any = extra.get("input", members.get("input"))
    conversations = _conversations(value)
    if conversations is None:
        if "input" not in extra:
            write_texts(members, "input", value, reporter)
        path = ""
    else:
        if "metadata" in members:
            raise reporter.unsupported("metadata", "Mistral takes it with texts, not with conversations")
        if "input" not in extra:
            written = [_write_conversation(each, reporter) for each in conversations]
            is_one = _is_message(value) or not (_is_list(value[0]) or _is_wrapped(value[0]))
            members["input"] = shape(written)[0] if is_one else shape(written)
    members.update(extra)
    return Payload(members, 0, path)


def _count(request: Request) -> int:
    """How many inputs the request has."""
    value = sent_value(request, "input")
    conversations = _conversations(value)
    if conversations is not None:
        return len(conversations)
    return len(value) if _is_list(value) else 1


def write_moderation(request: Request, max_output: int | None, reporter: Reporter) -> Payload:  # noqa: ARG001 # nothing is put out
    """A moderation request: ``input`` is a text, a list of texts, a conversation or a list of conversations.

    Raises:
        BadRequestError: It can not be put into Mistral's shape; names the field.
    """
    return _write(request, reporter, "/v1/chat/moderations", lambda conversations: conversations)


def write_classification(request: Request, max_output: int | None, reporter: Reporter) -> Payload:  # noqa: ARG001 # nothing is put out
    """A classification request; ``input`` as of ``write_moderation``.

    By the document alone: no real exchange of this operation has been seen.

    Raises:
        BadRequestError: It can not be put into Mistral's shape; names the field.
    """
    return _write(
        request,
        reporter,
        "/v1/chat/classifications",
        lambda conversations: [{"messages": messages} for messages in conversations],
    )


def read_moderation(request: Request, reply: HttpReply, reporter: Reporter) -> ModerationResponse:
    """Read the verdicts, one per input. ``total_tokens`` counts hidden instructions too: it is no sum.

    Raises:
        ProviderServerError: It can not be used (``bad_response``); a verdict that can not be read is none.
    """
    data, results = read_results(reply, reporter, _count(request), read_verdict)
    return ModerationResponse(results=results, **facts_of(request, reply, reporter, data))


def read_classification(request: Request, reply: HttpReply, reporter: Reporter) -> ClassificationResponse:
    """Read the classes, one mapping per input. By the document alone, as ``write_classification``.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    data, results = read_results(reply, reporter, _count(request), _read_classes)
    return ClassificationResponse(results=results, **facts_of(request, reply, reporter, data))


def _read_classes(result: Any, path: str) -> dict[str, dict[str, float]]:
    if not isinstance(result, dict) or not all(isinstance(target, dict) for target in result.values()):
        raise MalformedError(f"{path} is no object of targets")
    return {name: read_scores(target.get("scores"), f"{path}.{name}") for name, target in result.items()}
