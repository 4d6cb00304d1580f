"""The models the simulated Mistral service knows."""

from __future__ import annotations

from bifrost_core.testing.serving.catalogue import SimulatedModel

__all__ = ["DEFAULT_MODELS", "SimulatedModel"]

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
