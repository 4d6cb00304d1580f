"""The list of models on Anthropic's wire.

Source:
    https://platform.claude.com/docs/en/api/models/list. Lists of 2025 have entries without ``capabilities``,
    ``max_input_tokens`` and ``retires_at``.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from collections.abc import Iterator
from typing import Any, Final

from bifrost_core.responses import ModelInfo, ModelList
from bifrost_core.types import JsonObject, Request, Usage
from bifrost_core.wire import HttpReply

from ._chat import read_object
from ._reporter import Reporter

__all__ = ["MODELS", "read_models"]

MODELS: Final = "/v1/models?limit=1000"
"""Path of the list; without a limit it has twenty entries."""


def read_models(request: Request, reply: HttpReply, reporter: Reporter) -> ModelList:  # noqa: ARG001 # the list is the same for all
    """Read the list: one ``ModelInfo`` per entry.

    A capability is a word of Anthropic's (``image_input``), or two where it has kinds (``effort.low``,
    ``thinking.types.adaptive``).

    Raises:
        ProviderServerError: It can not be used (``bad_response``): there is no list, or an entry has no ``id``.
    """
    data = read_object(reply, reporter)
    entries = data.get("data")
    if not isinstance(entries, list):
        raise reporter.unusable(reply, "there is no list of models in it")
    models: dict[str, ModelInfo] = {}
    for place, entry in enumerate(entries):
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise reporter.unusable(reply, f"data[{place}] has no id")
        models.setdefault(name, _read_entry(entry, name, reporter.provider))
    if data.get("has_more") is True:
        reporter.note("the list of models has more than 1000 entries; the others are left out")
    return ModelList(usage=Usage(requests=1), raw=data, headers=reply.headers, models=models.values())


def _read_entry(entry: JsonObject, name: str, provider: str) -> ModelInfo:
    context, retires = entry.get("max_input_tokens"), entry.get("retires_at")
    return ModelInfo(
        id=f"{provider}/{name}",
        provider=provider,
        name=name,
        capabilities=_supported(entry.get("capabilities"), ""),
        context_length=context if type(context) is int and context > 0 else None,
        deprecation=retires if isinstance(retires, str) and retires else None,
        raw=entry,
    )


def _supported(capabilities: Any, prefix: str, room: int = 4) -> Iterator[str]:
    """The names of what is supported, those inside others after a dot."""
    if not isinstance(capabilities, dict) or not room:
        return
    for name, told in capabilities.items():
        if isinstance(told, dict):
            if told.get("supported") is True:
                yield prefix + name
            yield from _supported(told, f"{prefix}{name}.", room - 1)
