"""Speech: silence, as long as the text.

Source:
    https://docs.mistral.ai/api/endpoint/audio/speech (members, events) and replies as they come since 2026:
    JSON with the sound in base64, no usage in plain replies, and a schema that lets unknown members through.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec

from bifrost_core.testing.serving._answers import Json, count_tokens
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import SSE, Event, Reply, named_event
from bifrost_core.testing.serving._sounds import FORMATS, silence

from ._errors import MistralError
from ._members import Check, boolean, check_members, choice, mapping, optional, refuse, text
from ._vendor import limit_headers

__all__ = ["answer_speech", "check_speech"]

_MEMBERS: Final[dict[str, Check]] = {
    "model": optional(text),
    "input": text,
    "voice_id": optional(text),
    "ref_audio": optional(text),
    "response_format": choice("pcm", "wav", "mp3", "flac", "opus"),
    "stream": boolean,
    "metadata": optional(mapping),
    "prompt_cache_key": optional(text),
}
_DEFAULT_MODEL: Final = "voxtral-mini-tts-latest"
_DELTA: Final = 16 * 1024  # bytes of sound in one event

_encode = msgspec.json.Encoder().encode


def check_speech(body: Json) -> None:
    """Refuse what speech refuses; unknown members are none of it.

    Raises:
        MistralError: 422; 400 for the formats that this service cannot make.
    """
    refuse(check_members(body, _MEMBERS, ("input",), is_open=True))
    if body.get("response_format", "mp3") not in FORMATS:
        message = f"The simulated service speaks {', '.join(FORMATS)} only."
        raise MistralError.object(400, "invalid_request_invalid_args", "3051", message)
    body["model"] = body.get("model") or _DEFAULT_MODEL


def answer_speech(question: Question) -> Reply:
    """Silence in the format asked for, plain or streamed.

    Raises:
        MistralError: The model or a limit refuses.
    """
    body = question.body
    said: str = body["input"]
    quota = question.admit("audio_speech", "input-characters").quota
    quota.charge("input-characters", len(said))
    sound, tokens = silence(said, body.get("response_format", "mp3"))
    reply = question.reply()
    reply.characters = len(said)
    reply.completion_tokens = tokens
    if question.streams:
        reply.content_type = SSE
        reply.events = _events(sound, count_tokens(said), reply.completion_tokens)
    else:
        reply.headers = [
            *limit_headers(quota, "input-characters"),
            ("x-ratelimit-input-characters-query-cost", str(len(said))),
        ]
        reply.body = _encode({"audio_data": base64.b64encode(sound).decode()})
    return reply


def _events(sound: bytes, prompt: int, completion: int) -> list[Event]:
    """The events of a streamed answer, as documented; no ``[DONE]`` follows."""
    pieces = [sound[at : at + _DELTA] for at in range(0, len(sound), _DELTA)]
    events: list[Event] = []
    for number, piece in enumerate(pieces, 1):
        data = _encode({"type": "speech.audio.delta", "audio_data": base64.b64encode(piece).decode()})
        events.append(named_event(completion * number // len(pieces), "speech.audio.delta", data))
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    data = _encode({"type": "speech.audio.done", "usage": usage})
    return [*events, named_event(completion, "speech.audio.done", data)]
