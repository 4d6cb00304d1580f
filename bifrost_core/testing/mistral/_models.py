"""The model list."""

from __future__ import annotations

import msgspec

from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import Reply
from bifrost_core.testing.serving.catalogue import SimulatedModel

from ._errors import MistralError

__all__ = ["answer_model", "answer_models"]

_CAPABILITIES = (
    "completion_chat",
    "function_calling",
    "reasoning",
    "completion_fim",
    "fine_tuning",
    "vision",
    "ocr",
    "classification",
    "moderation",
    "audio",
    "audio_transcription",
    "audio_transcription_realtime",
    "audio_speech",
    "unified_resources",
)

_encode = msgspec.json.Encoder().encode


def answer_models(question: Question) -> Reply:
    """All models, one entry for each of their names.

    Source:
        https://docs.mistral.ai/api/endpoint/models, and lists as they come since 2026.
    """
    listed = [_entry(model, name) for name, model in question.service.models.items()]
    return Reply(body=_encode({"object": "list", "data": listed}))


def answer_model(question: Question) -> Reply:
    """One entry.

    Raises:
        MistralError: 404 in the gateway's shape: no model has that name.
    """
    model = question.service.models.get(question.path_id)
    if model is None:
        raise MistralError.gateway(404, f"Model {question.path_id} was not found.", None)
    return Reply(body=_encode(_entry(model, question.path_id)))


def _entry(model: SimulatedModel, name: str) -> dict[str, object]:
    """A model's entry in the list under one of its names."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "mistralai",
        "capabilities": {each: each in model.capabilities for each in _CAPABILITIES},
        "name": model.name,
        "description": None,
        "max_context_length": model.context,
        "aliases": [other for other in model.names if other != name],
        "deprecation": model.deprecation,
        "deprecation_replacement_model": model.replacement,
        "default_model_temperature": model.temperature,
        "type": "base",
    }
