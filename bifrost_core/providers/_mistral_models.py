"""The list of models on Mistral's wire.

Source:
    https://docs.mistral.ai/api/endpoint/models. Lists of 2024 have entries without ``capabilities``, ``name``
    and ``aliases``.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from typing import Any

from bifrost_core.responses import ModelInfo, ModelList
from bifrost_core.types import JsonObject, Request, Usage
from bifrost_core.wire import HttpReply

from ._adapter import Payload
from ._chat import read_object
from ._reporter import Reporter

__all__ = ["read_models", "write_models"]


def write_models(request: Request, max_output: int | None, reporter: Reporter) -> Payload:  # noqa: ARG001 # nothing is put out
    """A request for the list, which has no fields.

    Raises:
        UnsupportedParameterError: It has a field.
    """
    for name, value in request.body.items():
        if value is not None and not (name == "extra_body" and value == {}):
            raise reporter.unsupported(str(name), "a list of models takes no fields")
    return Payload(None, 0)


def read_models(request: Request, reply: HttpReply, reporter: Reporter) -> ModelList:  # noqa: ARG001 # the list is the same for all
    """Read the list: one ``ModelInfo`` per entry, that is per name by which a model can be asked for.

    Raises:
        ProviderServerError: It can not be used (``bad_response``): there is no list, or an entry has no ``id``.
    """
    data = read_object(reply, reporter)
    entries = data.get("data")
    if not isinstance(entries, list):
        raise reporter.unusable(reply, "there is no list of models in it")
    models: dict[str, ModelInfo] = {}
    for place, entry in enumerate(entries):
        name = _word(entry.get("id")) if isinstance(entry, dict) else None
        if name is None:
            raise reporter.unusable(reply, f"data[{place}] has no id")
        models.setdefault(name, _read_entry(entry, name, reporter.provider))
    return ModelList(usage=Usage(requests=1), raw=data, headers=reply.headers, models=models.values())


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _read_entry(entry: JsonObject, name: str, provider: str) -> ModelInfo:
    aliases, capabilities = entry.get("aliases"), entry.get("capabilities")
    context = entry.get("max_context_length")
    return ModelInfo(
        id=f"{provider}/{name}",
        provider=provider,
        name=_word(entry.get("name")) or name,
        aliases=[alias for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else (),
        capabilities=[word for word, has in capabilities.items() if has is True]
        if isinstance(capabilities, dict)
        else (),
        context_length=context if type(context) is int and context > 0 else None,
        deprecation=_word(entry.get("deprecation")),
        replacement=_word(entry.get("deprecation_replacement_model")),
        raw=entry,
    )
