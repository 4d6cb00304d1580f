"""Embeddings, moderation and lists of models at OpenAI and at servers that speak like it.

Source:
    https://platform.openai.com/docs/api-reference/embeddings, https://platform.openai.com/docs/api-reference/moderations
    and https://platform.openai.com/docs/api-reference/models.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from bifrost_core.responses import ModelList, ModerationResponse
from bifrost_core.types import JsonObject, Message, Request
from bifrost_core.wire import HttpReply

from ._embeddings import sent_value
from ._members import Writer, leave_out, model_name, refuse, rename, same, stream_flag, writer_of
from ._models import read_models
from ._moderation import facts_of, read_results, read_verdict
from ._openai_families import capabilities_of
from ._reporter import Reporter

__all__ = [
    "read_open_models",
    "read_openai_models",
    "read_openai_moderation",
    "write_open_embeddings",
    "write_open_moderation",
    "write_openai_embeddings",
    "write_openai_moderation",
]


# --- embeddings

_EMBEDDINGS: Final[Mapping[str, Writer | None]] = {
    "dimensions": same,
    "encoding_format": None,
    "input": None,  # text, texts, tokens, or lists of tokens
    "model": model_name,
    "output_dimension": rename("dimensions"),  # Mistral's name
    "output_dtype": refuse("float"),
    "stream": stream_flag,
    "user": None,
}
_OPEN: Final[Mapping[str, Writer | None]] = {"model": model_name, "stream": stream_flag}


write_openai_embeddings = writer_of(_EMBEDDINGS, "input")
"""An embeddings request."""


write_open_embeddings = writer_of(_OPEN, "input", is_open=True)
"""As ``write_openai_embeddings``, for a server that has fields of its own."""


# --- moderation


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _is_conversation(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "role" in value or "messages" in value
    return isinstance(value, Message) or (_is_list(value) and any(_is_conversation(each) for each in value))


def _judged(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if _is_conversation(value):
        raise reporter.unsupported(name, "OpenAI judges texts and images, no conversations; pass the texts")
    members[name] = value


_MODERATION: Final[Mapping[str, Writer | None]] = {
    "input": _judged,
    "metadata": refuse({}),
    "model": model_name,
    "stream": stream_flag,
    "user": leave_out,
}


write_openai_moderation = writer_of(_MODERATION, "input")
"""A moderation request: a text, texts, or one input of text and image parts."""


write_open_moderation = writer_of(_OPEN, "input", is_open=True)
"""As ``write_openai_moderation``, for a server that has fields of its own."""


def read_openai_moderation(request: Request, reply: HttpReply, reporter: Reporter) -> ModerationResponse:
    """Read the verdicts, one per text; parts of text and images are one input together.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    given = sent_value(request, "input")
    count = len(given) if _is_list(given) and not any(isinstance(each, Mapping) for each in given) else 1
    data, results = read_results(reply, reporter, count, read_verdict)
    # OpenAI's endpoint is free and counts nothing.
    counted = {**data, "usage": data.get("usage") or {"prompt_tokens": 0}}
    facts: dict[str, Any] = {**facts_of(request, reply, reporter, counted), "raw": data}
    return ModerationResponse(results=results, **facts)


# --- models


def read_openai_models(request: Request, reply: HttpReply, reporter: Reporter) -> ModelList:
    """Read OpenAI's list, which says of its models little more than their names.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    listed = read_models(request, reply, reporter)
    models = [
        attrs.evolve(info, capabilities=info.capabilities or capabilities_of(info.name)) for info in listed.models
    ]
    return attrs.evolve(listed, models=models)


def read_open_models(request: Request, reply: HttpReply, reporter: Reporter) -> ModelList:
    """Read a server's list, which at Together comes without an object around it.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).

    Source:
        https://docs.together.ai/reference/models-1
    """
    if reply.body.lstrip().startswith(b"["):
        reply = attrs.evolve(reply, body=b'{"object":"list","data":' + reply.body + b"}")
    return read_models(request, reply, reporter)
