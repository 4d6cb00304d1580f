"""What is served where."""

from __future__ import annotations

import re
from typing import Final

from bifrost_core.testing.serving._endpoints import Endpoint

from ._audio import answer_speech, answer_transcription, check_speech, check_transcription, fold_transcription
from ._chat import answer_chat
from ._chat_members import check_chat
from ._embeddings import answer_embeddings, check_embeddings
from ._models import answer_model, answer_models
from ._moderations import answer_moderations, check_moderations
from ._responses import answer_responses
from ._responses_members import check_responses

__all__ = ["find_endpoint"]

_POST: Final[dict[str, Endpoint]] = {
    "/v1/chat/completions": Endpoint(answer=answer_chat, check=check_chat),
    "/v1/responses": Endpoint(answer=answer_responses, check=check_responses),
    "/v1/embeddings": Endpoint(answer=answer_embeddings, check=check_embeddings),
    "/v1/moderations": Endpoint(answer=answer_moderations, check=check_moderations),
    "/v1/audio/transcriptions": Endpoint(
        answer=answer_transcription, check=check_transcription, fold=fold_transcription
    ),
    "/v1/audio/speech": Endpoint(answer=answer_speech, check=check_speech),
}
_MODEL: Final = re.compile(r"/v1/models/(.+)")


def find_endpoint(method: str, path: str) -> tuple[Endpoint, str] | None:
    """What answers a method and a path, and the id in the path; None: nothing does."""
    if method == "POST":
        found = _POST.get(path)
        return None if found is None else (found, "")
    if method != "GET":
        return None
    if path == "/v1/models":
        return Endpoint(answer=answer_models, has_body=False), ""
    match = _MODEL.fullmatch(path)
    return None if match is None else (Endpoint(answer=answer_model, has_body=False), match[1])
