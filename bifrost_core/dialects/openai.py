"""OpenAI's wire shape, as its SDKs speak it to us.

Source:
    https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from bifrost_core.clocks import Clock, SystemClock
from bifrost_core.errors import BifrostError

from ._bodies import encode, no_endpoint
from ._openai_audio import read_speech, read_transcription
from ._openai_chat import read_chat
from ._openai_completions import read_completion
from ._openai_errors import problem_of, status_of
from ._openai_lists import read_embeddings, read_models, read_moderation
from ._openai_responses import read_responses
from .base import JSON, Inbound, Order, Reply

__all__ = ["OpenAIDialect"]

_Reader = Callable[[Inbound, int], Order]

_ENDPOINTS: Final[Mapping[str, tuple[str, _Reader]]] = {
    "audio/speech": ("POST", read_speech),
    "audio/transcriptions": ("POST", read_transcription),
    "chat/completions": ("POST", read_chat),
    "completions": ("POST", read_completion),
    "embeddings": ("POST", read_embeddings),
    "models": ("GET", read_models),
    "moderations": ("POST", read_moderation),
    "responses": ("POST", read_responses),
}


class OpenAIDialect:
    """Chat completions, Responses, completions of a text, embeddings, transcription, speech, moderation and models.

    Args:
        clock: Dates answers that do not say when they were made.
    """

    name: ClassVar[str] = "openai"

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = SystemClock() if clock is None else clock

    def parse(self, inbound: Inbound) -> Order:
        """What the bytes ask for.

        Raises:
            CallError: They make no sense in this dialect; names the field.
        """
        path = "models" if inbound.path.startswith("models/") else inbound.path
        found = _ENDPOINTS.get(path)
        if found is None:
            raise no_endpoint(self.name, inbound)
        method, read = found
        if inbound.method != method:
            raise no_endpoint(self.name, inbound, (method,))
        return read(inbound, int(self._clock.time()))

    def refusal(self, error: BifrostError, request_id: str) -> Reply:  # noqa: ARG002 # the body has no place for it
        """An error as OpenAI tells it."""
        return Reply(status_of(error), {"content-type": JSON}, encode(problem_of(error)))
