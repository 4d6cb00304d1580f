"""Sound in both directions: how long it is, what is said in it, and silence that stands for speech."""

from __future__ import annotations

import hashlib
import io
import random
import wave
from collections.abc import Callable
from typing import Final

from ._answers import make_text

__all__ = ["FORMATS", "seconds_of", "silence", "spoken_words"]

_BYTES_PER_SECOND: Final = 16_000
_WORDS_PER_SECOND: Final = 2.5
_MAX_WORDS: Final = 5_000
_RATE: Final = 24_000  # samples per second
_SECONDS_PER_CHARACTER: Final = 0.06
_MAX_SECONDS: Final = 10.0
# MPEG-2, layer III, 32 kbit/s, 24 kHz, one channel: 96 bytes for 576 samples. All zeros decode to silence.
# Header: ISO/IEC 13818-3 with ISO/IEC 11172-3, section 2.4.1.3.
_MP3_FRAME: Final = bytes.fromhex("fff344c4").ljust(96, b"\0")
_MP3_SAMPLES: Final = 576
_TOKENS_PER_SECOND: Final = 12.5


def seconds_of(data: bytes) -> float:
    """Seconds of sound: those of a WAVE file's header; other files have one in 16,000 bytes (128 kbit/s)."""
    try:
        with wave.open(io.BytesIO(data)) as sound:
            frame = sound.getnchannels() * sound.getsampwidth()
            # a header written before the sound was known may promise more than there is
            frames, rate = min(sound.getnframes(), len(data) // frame), sound.getframerate()
    except (wave.Error, EOFError, RuntimeError):  # the last of seeking beyond the end of a chunk
        return len(data) / _BYTES_PER_SECOND
    return float(frames) / rate if rate else len(data) / _BYTES_PER_SECOND


def spoken_words(identity: bytes, seconds: float, seed: int) -> tuple[str, ...]:
    """As many words as fit into the time, one token each; equal sounds have equal words."""
    count = min(_MAX_WORDS, max(1, round(seconds * _WORDS_PER_SECOND)))
    return make_text(random.Random(f"{seed}/{hashlib.sha256(identity).hexdigest()}"), count, count)


def silence(said: str, form: str) -> tuple[bytes, int]:
    """Silence as long as a text takes to say.

    Args:
        said: The text: 0.06 seconds for a character, ten seconds at most.
        form: One of ``FORMATS``.

    Returns:
        The bytes, and the output tokens that they count as.
    """
    seconds = min(_MAX_SECONDS, len(said) * _SECONDS_PER_CHARACTER)
    return FORMATS[form](int(seconds * _RATE)), max(1, round(seconds * _TOKENS_PER_SECOND))


def _pcm(samples: int) -> bytes:
    """Samples of 16 bits."""
    return bytes(2 * samples)


def _wav(samples: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_RATE)
        sound.writeframes(_pcm(samples))
    return file.getvalue()


def _mp3(samples: int) -> bytes:
    return _MP3_FRAME * max(1, -(-samples // _MP3_SAMPLES))


FORMATS: Final[dict[str, Callable[[int], bytes]]] = {"pcm": _pcm, "wav": _wav, "mp3": _mp3}
