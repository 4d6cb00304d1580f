"""What OpenAI and servers like it serve: operations are rows, each a function that writes and one that reads.

Apart from the providers, so that importing those costs little.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from bifrost_core.types import Operation

from ._adapter import Codec
from ._chat import read_chat
from ._chat_stream import ChatStreamDecoder
from ._embeddings import read_embeddings
from ._models import write_models
from ._openai_audio import (
    OpenAITranscriptionDecoder,
    read_openai_speech,
    read_openai_transcription,
    write_open_speech,
    write_open_transcription,
    write_openai_speech,
    write_openai_transcription,
)
from ._openai_chat import write_chat, write_open_chat, write_open_responses
from ._openai_responses import NativeResponsesDecoder, read_native_responses, write_native_responses
from ._openai_texts import (
    read_open_models,
    read_openai_models,
    read_openai_moderation,
    write_open_embeddings,
    write_open_moderation,
    write_openai_embeddings,
    write_openai_moderation,
)
from ._responses import read_responses, responses_decoder

__all__ = ["COMPATIBLE", "OPENAI", "WITHOUT_USAGE"]

_CHAT: Final = "/v1/chat/completions"

OPENAI: Final[Mapping[Operation, Codec]] = MappingProxyType(
    {
        Operation.CHAT: Codec(_CHAT, write_chat, read_chat, ChatStreamDecoder),
        Operation.RESPONSES: Codec(
            "/v1/responses", write_native_responses, read_native_responses, NativeResponsesDecoder
        ),
        Operation.EMBEDDINGS: Codec("/v1/embeddings", write_openai_embeddings, read_embeddings),
        Operation.TRANSCRIPTION: Codec(
            "/v1/audio/transcriptions",
            write_openai_transcription,
            read_openai_transcription,
            OpenAITranscriptionDecoder,
        ),
        Operation.MODERATION: Codec("/v1/moderations", write_openai_moderation, read_openai_moderation),
        Operation.SPEECH: Codec("/v1/audio/speech", write_openai_speech, read_openai_speech, accept="*/*"),
        Operation.MODELS: Codec("/v1/models", write_models, read_openai_models, method="GET"),
    }
)

COMPATIBLE: Final[Mapping[Operation, Codec]] = MappingProxyType(
    {
        Operation.CHAT: Codec(_CHAT, write_open_chat, read_chat, ChatStreamDecoder),
        Operation.RESPONSES: Codec(_CHAT, write_open_responses, read_responses, responses_decoder),
        Operation.EMBEDDINGS: Codec("/v1/embeddings", write_open_embeddings, read_embeddings),
        Operation.TRANSCRIPTION: Codec(
            "/v1/audio/transcriptions",
            write_open_transcription,
            read_openai_transcription,
            OpenAITranscriptionDecoder,
        ),
        Operation.MODERATION: Codec("/v1/moderations", write_open_moderation, read_openai_moderation),
        Operation.SPEECH: Codec("/v1/audio/speech", write_open_speech, read_openai_speech, accept="*/*"),
        Operation.MODELS: Codec("/v1/models", write_models, read_open_models, method="GET"),
    }
)

# For servers that refuse to be asked for the usage of streams.
WITHOUT_USAGE: Final[Mapping[Operation, Codec]] = MappingProxyType(
    {
        **COMPATIBLE,
        Operation.CHAT: Codec(
            _CHAT, functools.partial(write_open_chat, stream_usage=False), read_chat, ChatStreamDecoder
        ),
        Operation.RESPONSES: Codec(
            _CHAT, functools.partial(write_open_responses, stream_usage=False), read_responses, responses_decoder
        ),
    }
)
