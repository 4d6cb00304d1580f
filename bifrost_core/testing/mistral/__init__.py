"""Mistral's API on loopback, for tests, demonstrations and benchmarks without a network.

``python -m bifrost_core.testing.mistral --port 8080 --seed 7`` runs it on its own. ``Simulated`` answers
from the same table without a network.

=============================== ======================================================================
``/v1/…``                       what is made up
=============================== ======================================================================
``chat/completions``,           words, or what ``answer`` says; JSON that fits a given schema
``fim/completions``
``embeddings``                  a vector that depends on the text, the model and the seed
``moderations``,                a category is flagged when the text holds, as a whole word in any case,
``chat/moderations``            a word of its name other than ``and`` and ``content``
``classifications``,            the same for the labels of ``SimulatedModel.targets``
``chat/classifications``
``audio/transcriptions``        2.5 words for a second of sound, or what ``transcript`` says; equal sounds
                                have equal texts. Seconds: of a WAVE file those of its header, of others
                                one in 16,000 bytes, of an address ten
``audio/speech``                silence, 0.06 seconds for a character, ten at most: pcm, wav or mp3
``ocr``                         a title, a paragraph, a table and a picture on each page, or what ``page``
                                says. Pages: of a PDF its objects of type ``/Page``, of an address two,
                                else one
``files``                       nothing: uploads are kept in memory, 1,000 files and 64 MiB at most
``models``                      one entry for each name of ``models``
=============================== ======================================================================

No address is ever asked; those that ``files/{id}/url`` gives are known and stand for their file.
"""

from __future__ import annotations

from bifrost_core.testing.serving.journal import KeyCounters, Outlook, ServedPart, ServedRequest
from bifrost_core.testing.serving.laws import Fault, FaultKind, Latency, SimulatedKey

from .catalogue import DEFAULT_MODELS, SimulatedModel
from .server import SimulatedMistral

__all__ = [
    "DEFAULT_MODELS",
    "Fault",
    "FaultKind",
    "KeyCounters",
    "Latency",
    "Outlook",
    "ServedPart",
    "ServedRequest",
    "SimulatedKey",
    "SimulatedMistral",
    "SimulatedModel",
]
