"""Lists of models in the shape that OpenAI, Mistral and the servers that speak like them share.

Source:
    https://platform.openai.com/docs/api-reference/models (``shutdown_date``),
    https://docs.mistral.ai/api/endpoint/models (lists of 2024 have entries without ``capabilities``, ``name`` and
    ``aliases``); the context length is ``max_model_len`` at vLLM (https://docs.vllm.ai), ``context_window`` at Groq
    (https://console.groq.com/docs/models), ``context_length`` at Together and OpenRouter.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from typing import Any, Final

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


_CONTEXT: Final = ("max_context_length", "context_window", "context_length", "max_model_len")


def _read_entry(entry: JsonObject, name: str, provider: str) -> ModelInfo:
    aliases, capabilities = entry.get("aliases"), entry.get("capabilities")
    context = next((entry[word] for word in _CONTEXT if type(entry.get(word)) is int), None)
    return ModelInfo(
        id=f"{provider}/{name}",
        provider=provider,
        name=_word(entry.get("name")) or name,
        aliases=[alias for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else (),
        capabilities=_capabilities(capabilities),
        context_length=context if context is not None and context > 0 else None,
        deprecation=_word(entry.get("deprecation")) or _word(entry.get("shutdown_date")),
        replacement=_word(entry.get("deprecation_replacement_model")),
        raw=entry,
    )


def _capabilities(given: Any) -> list[str]:
    """The provider's words, which come as an object of booleans."""
    return [word for word, has in given.items() if has is True] if isinstance(given, dict) else []
