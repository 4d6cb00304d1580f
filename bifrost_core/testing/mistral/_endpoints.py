"""What is served where: one table for the server and for ``Simulated``.

``/v1/responses`` is not in it, so the gateway's 404 answers: nobody should come to rely on it.
"""

from __future__ import annotations

import re
from typing import Final

from bifrost_core.testing.serving._endpoints import Endpoint

from . import _files as files
from . import _moderation as moderation
from ._completions import answer_chat, answer_fim
from ._embeddings import answer_embeddings, check_embeddings
from ._models import answer_model, answer_models
from ._ocr import answer_ocr, check_ocr
from ._speech import answer_speech, check_speech
from ._transcription import answer_transcription, check_transcription, fold_transcription
from ._validation import check_chat, check_fim

__all__ = ["find_endpoint"]

_POST: Final[dict[str, Endpoint]] = {
    "/v1/chat/completions": Endpoint(answer=answer_chat, check=check_chat),
    "/v1/fim/completions": Endpoint(answer=answer_fim, check=check_fim),
    "/v1/embeddings": Endpoint(answer=answer_embeddings, check=check_embeddings),
    "/v1/moderations": Endpoint(answer=moderation.answer_moderations, check=moderation.check_texts),
    "/v1/chat/moderations": Endpoint(
        answer=moderation.answer_chat_moderations, check=moderation.check_chat_moderations
    ),
    "/v1/classifications": Endpoint(answer=moderation.answer_classifications, check=moderation.check_texts),
    "/v1/chat/classifications": Endpoint(
        answer=moderation.answer_chat_classifications, check=moderation.check_chat_classifications
    ),
    "/v1/audio/transcriptions": Endpoint(
        answer=answer_transcription, check=check_transcription, fold=fold_transcription
    ),
    "/v1/audio/speech": Endpoint(answer=answer_speech, check=check_speech),
    "/v1/ocr": Endpoint(answer=answer_ocr, check=check_ocr),
    "/v1/files": Endpoint(answer=files.answer_upload, check=files.check_upload, fold=files.fold_upload),
}
_OTHERS: Final[tuple[tuple[str, re.Pattern[str], Endpoint], ...]] = tuple(
    (method, re.compile(path), Endpoint(answer=answer, has_body=False))
    for method, path, answer in (
        ("GET", r"/v1/models/?()", answer_models),
        ("GET", r"/v1/models/(.+)", answer_model),
        ("GET", r"/v1/files()", files.answer_list),
        ("GET", r"/v1/files/([^/]+)", files.answer_retrieve),
        ("DELETE", r"/v1/files/([^/]+)", files.answer_delete),
        ("GET", r"/v1/files/([^/]+)/content", files.answer_content),
        ("GET", r"/v1/files/([^/]+)/url", files.answer_url),
    )
)


def find_endpoint(method: str, path: str) -> tuple[Endpoint, str] | None:
    """What answers a method and a path, and the id in the path; None: nothing does."""
    if method == "POST":
        found = _POST.get(path)
        return None if found is None else (found, "")
    for verb, pattern, endpoint in _OTHERS:
        match = pattern.fullmatch(path) if verb == method else None
        if match is not None:
            return endpoint, match[1]
    return None
