"""The models the simulated OpenAI service knows.

Source:
    https://platform.openai.com/docs/models (names, contexts).
"""

from __future__ import annotations

from bifrost_core.testing.serving.catalogue import SimulatedModel

__all__ = ["DEFAULT_MODELS", "capabilities_of"]

_KINDS: tuple[tuple[str, frozenset[str]], ...] = (  # the first that is in the name
    ("embed", frozenset({"embeddings"})),
    ("moderation", frozenset({"moderation"})),
    ("transcribe", frozenset({"audio_transcription"})),
    ("whisper", frozenset({"audio_transcription"})),
    ("tts", frozenset({"audio_speech"})),
)
_REASONING = ("o1", "o3", "o4", "gpt-5", "gpt-6")
_CHAT = frozenset({"completion_chat", "function_calling", "vision"})


def capabilities_of(name: str) -> frozenset[str]:
    """What a model can do, by its name."""
    for mark, able in _KINDS:
        if mark in name:
            return able
    return _CHAT | {"reasoning"} if name.startswith(_REASONING) and "chat" not in name else _CHAT


def _model(name: str, *aliases: str, context: int = 400_000) -> SimulatedModel:
    return SimulatedModel(name, aliases, capabilities_of(name), context=context)


DEFAULT_MODELS: tuple[SimulatedModel, ...] = (
    _model("gpt-4o-2024-08-06", "gpt-4o", context=128_000),
    _model("gpt-4o-mini-2024-07-18", "gpt-4o-mini", context=128_000),
    _model("gpt-4.1-2025-04-14", "gpt-4.1", context=1_047_576),
    _model("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini", context=1_047_576),
    _model("gpt-4.1-nano-2025-04-14", "gpt-4.1-nano", context=1_047_576),
    _model("o3-2025-04-16", "o3", context=200_000),
    _model("o4-mini-2025-04-16", "o4-mini", context=200_000),
    _model("gpt-5-2025-08-07", "gpt-5"),
    _model("gpt-5-mini-2025-08-07", "gpt-5-mini"),
    _model("gpt-5-nano-2025-08-07", "gpt-5-nano"),
    _model("gpt-5.4-mini-2026-03-17", "gpt-5.4-mini"),
    _model("text-embedding-3-small", context=8_192),
    _model("text-embedding-3-large", context=8_192),
    _model("text-embedding-ada-002", context=8_192),
    _model("omni-moderation-2024-09-26", "omni-moderation-latest", context=32_768),
    _model("whisper-1", context=448),
    _model("gpt-4o-transcribe", context=16_000),
    _model("gpt-4o-mini-transcribe", context=16_000),
    _model("gpt-4o-mini-tts", context=2_000),
    _model("tts-1", context=2_000),
    _model("tts-1-hd", context=2_000),
)
