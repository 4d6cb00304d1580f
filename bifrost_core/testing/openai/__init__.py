"""OpenAI's API on loopback, for tests, demonstrations and benchmarks without a network.

``python -m bifrost_core.testing.openai --port 8080 --seed 7`` runs it on its own.

=============================== ======================================================================
``/v1/…``                       what is made up
=============================== ======================================================================
``chat/completions``,           words, or what ``answer`` says; JSON that fits a given schema; a call
``responses``                   where ``tool_choice`` demands one; reasoning, counted and hidden, of models
                                that reason
``embeddings``                  a vector that depends on the input, the model and the seed
``moderations``                 a category is flagged when the text holds, as a whole word in any case, a
                                word of its name
``audio/transcriptions``        2.5 words for a second of sound, or what ``transcript`` says; equal sounds
                                have equal texts. Seconds: of a WAVE file those of its header, of others
                                one in 16,000 bytes
``audio/speech``                silence, 0.06 seconds for a character, ten at most: pcm, wav or mp3
``models``                      one entry for each name of ``models``
=============================== ======================================================================

Prompts of 1,024 tokens and more are cached for ten minutes. Hosted and custom tools are accepted and never used;
files, batches, conversations and the other endpoints are not served.
"""

from __future__ import annotations

from .catalogue import DEFAULT_MODELS
from .server import SimulatedOpenAI

__all__ = ["DEFAULT_MODELS", "SimulatedOpenAI"]
