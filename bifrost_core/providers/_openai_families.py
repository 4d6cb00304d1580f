"""OpenAI's models by their names: which are its own, which think, and what each family serves.

Source:
    https://platform.openai.com/docs/models.
"""

from __future__ import annotations

import functools
import re
from typing import Final

__all__ = ["capabilities_of", "is_known", "is_reasoning"]

_REASONING: Final = r"(?:o[1-9]|gpt-[5-9]|gpt-[1-9][0-9]|codex|computer-use)(?:[.-].*)?"
_OWN: Final = r"[a-z0-9][a-z0-9._:-]*"


@functools.cache
def _families() -> tuple[tuple[re.Pattern[str], frozenset[str]], ...]:
    """Patterns and what the models serve, in the order in which they are tried; made at first use, not at import."""
    return tuple(
        (re.compile(pattern), frozenset(capabilities))
        for pattern, capabilities in (
            (r"text-embedding-.+", {"embeddings"}),
            (r"(?:omni|text)-moderation-.+", {"moderation"}),
            (r"whisper-.+", {"transcription"}),
            (r"tts-.+|gpt-(?:[a-z0-9.-]+-)?tts(?:-.+)?", {"speech"}),
            (r"gpt-(?:[a-z0-9.-]+-)?transcribe(?:-.+)?", {"transcription"}),
            (r"gpt-(?:image|realtime)(?:-.+)?|gpt-[a-z0-9.-]+-realtime(?:-.+)?|dall-e-.+|sora-.+", set[str]()),
            (r"o[1-9](?:-[a-z0-9]+)*-(?:pro|deep-research)(?:-.+)?|gpt-[5-9][0-9.]*-pro(?:-.+)?", {"responses"}),
            (r"(?:codex|computer-use)-.+|gpt-[5-9][0-9.]*-codex(?:-.+)?", {"responses"}),
            (r"gpt-[a-z0-9.-]+-(?:audio|search)(?:-.+)?|gpt-audio(?:-.+)?", {"chat"}),
            (r"gpt-3\.5-turbo-instruct(?:-.+)?|(?:babbage|davinci)-002", set[str]()),
            (r"gpt-(?!oss)[a-z0-9.-]+|o[1-9](?:-.+)?|chatgpt-.+", {"chat", "responses"}),
        )
    )


def _base(model: str) -> str:
    """The model that a fine-tuned one was made of (``ft:gpt-4.1-mini:org::id``); any other name as it is."""
    return model.split(":")[1] if model.startswith("ft:") and model.count(":") > 1 else model


def is_known(model: str) -> bool:
    """Whether a model is by its name one of OpenAI's."""
    base = _base(model)
    return re.fullmatch(_OWN, base) is not None and any(pattern.fullmatch(base) for pattern, _ in _families())


def is_reasoning(model: str) -> bool:
    """Whether a model thinks before it answers: it takes ``max_completion_tokens`` and no ``max_tokens``.

    Source:
        https://platform.openai.com/docs/guides/reasoning
    """
    return re.fullmatch(_REASONING, _base(model)) is not None


def capabilities_of(model: str) -> frozenset[str]:
    """What a model serves, as names of operations; nothing where its name does not tell."""
    base = _base(model)
    return next((words for pattern, words in _families() if pattern.fullmatch(base)), frozenset[str]())
