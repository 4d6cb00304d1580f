"""The models the simulated service knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

__all__ = ["DEFAULT_MODELS", "SimulatedModel"]

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


def _to_names(value: Iterable[str]) -> tuple[str, ...]:
    """Accept any iterable of names."""
    return tuple(value)


def _to_name_set(value: Iterable[str]) -> frozenset[str]:
    """Accept any iterable of names."""
    return frozenset(value)


@attrs.frozen
class SimulatedModel:
    """One model under all its names.

    Attributes:
        name: The canonical name.
        aliases: Other names that reach it; they share its rate limits.
        capabilities: What the model list says it can do; embedding models have none.
        context: Tokens of context.
        temperature: Default temperature, or None.
        deprecation: ISO time at which it stops working, or None.
        replacement: Name of the model to use instead, or None.
        targets: What a classifier decides: the labels of each target. Without any it has one target,
            ``category``, whose labels are the categories of moderation.
    """

    name: str
    aliases: tuple[str, ...] = attrs.field(default=(), converter=_to_names)
    capabilities: frozenset[str] = attrs.field(
        default=frozenset({"completion_chat", "function_calling"}), converter=_to_name_set
    )
    context: int = attrs.field(default=262_144, kw_only=True)
    temperature: float | None = attrs.field(default=0.3, kw_only=True)
    deprecation: str | None = attrs.field(default=None, kw_only=True)
    replacement: str | None = attrs.field(default=None, kw_only=True)
    targets: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict[str, tuple[str, ...]], kw_only=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The canonical name and the aliases."""
        return (self.name, *self.aliases)

    def entry(self, name: str) -> dict[str, object]:
        """Its entry in the model list under one of its names."""
        return {
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "mistralai",
            "capabilities": {each: each in self.capabilities for each in _CAPABILITIES},
            "name": self.name,
            "description": None,
            "max_context_length": self.context,
            "aliases": [other for other in self.names if other != name],
            "deprecation": self.deprecation,
            "deprecation_replacement_model": self.replacement,
            "default_model_temperature": self.temperature,
            "type": "base",
        }


_CHAT = frozenset({"completion_chat", "function_calling", "vision"})
_OCR = frozenset({"function_calling", "ocr", "vision"})
_NOTHING: frozenset[str] = frozenset()

DEFAULT_MODELS: tuple[SimulatedModel, ...] = (
    SimulatedModel("mistral-small-2603", ("mistral-small-latest", "magistral-small-latest"), _CHAT | {"reasoning"}),
    SimulatedModel(
        "mistral-medium-latest", ("mistral-medium-3-5", "mistral-medium-2604"), _CHAT | {"reasoning"}, temperature=1.0
    ),
    SimulatedModel("mistral-large-2512", ("mistral-large-latest",), _CHAT),
    SimulatedModel("ministral-3b-2512", ("ministral-3b-latest",), _CHAT, context=131_072),
    SimulatedModel("ministral-8b-2512", ("ministral-8b-latest",), _CHAT),
    SimulatedModel(
        "codestral-2508",
        ("codestral-latest",),
        {"completion_chat", "completion_fim", "function_calling"},
        context=256_000,
    ),
    SimulatedModel(
        "devstral-2512",
        ("devstral-latest",),
        temperature=0.2,
        deprecation="2026-08-31T12:00:00Z",
        replacement="mistral-medium-3-5",
    ),
    SimulatedModel("mistral-embed-2312", ("mistral-embed",), _NOTHING, context=8_192, temperature=None),
    SimulatedModel("codestral-embed", ("codestral-embed-2505",), _NOTHING, context=8_192, temperature=None),
    SimulatedModel(
        "mistral-moderation-2603",
        ("mistral-moderation-latest",),
        {"classification", "moderation"},
        context=131_072,
        temperature=None,
    ),
    SimulatedModel("mistral-moderation-2411", (), {"classification", "moderation"}, temperature=None),
    SimulatedModel(
        "voxtral-mini-2602", ("voxtral-mini-latest",), {"audio_transcription"}, context=16_384, temperature=0.0
    ),
    SimulatedModel("voxtral-mini-tts-2603", ("voxtral-mini-tts-latest",), {"audio_speech"}, context=4_096),
    SimulatedModel("mistral-ocr-2512", ("mistral-ocr-3",), _OCR, context=16_384, temperature=0.0),
    SimulatedModel("mistral-ocr-latest", ("mistral-ocr-4", "mistral-ocr-4-1"), _OCR, context=16_384, temperature=0.0),
)
