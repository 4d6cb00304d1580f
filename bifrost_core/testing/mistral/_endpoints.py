"""What is served where: one table for the server and for ``Simulated``.

``/v1/responses`` is not in it, so the gateway's 404 answers: nobody should come to rely on it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs

from . import _files as files
from . import _moderation as moderation
from ._answers import Json
from ._completions import answer_chat, answer_fim
from ._embeddings import answer_embeddings, check_embeddings
from ._errors import ApiError, detail_item
from ._models import answer_model, answer_models
from ._multipart import Field, FormError, Upload, read_form
from ._ocr import answer_ocr, check_ocr
from ._questions import Question, read_query
from ._replies import Reply
from ._service import KeyState, Service
from ._speech import answer_speech, check_speech
from ._transcription import answer_transcription, check_transcription, fold_transcription
from ._validation import check_chat, check_fim, parse_body
from .journal import ServedPart, ServedRequest
from .laws import Latency

__all__ = ["Asked", "Endpoint", "find_endpoint"]

Fold: TypeAlias = Callable[[Sequence[Field]], Json]


def _allow(_body: Json) -> None:
    """Refuse nothing: there is no body."""


@attrs.frozen(kw_only=True)
class Endpoint:
    """How one kind of request is answered.

    Attributes:
        answer: Makes the reply.
        check: Refuses bodies; may fill in what was left out.
        fold: Makes an object of a form's parts; None where the body is JSON.
        has_body: Whether there is one.
    """

    answer: Callable[[Question], Reply]
    check: Callable[[Json], None] = _allow
    fold: Fold | None = None
    has_body: bool = True


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


@attrs.define(eq=False, kw_only=True)
class Asked:
    """A request that has come and whose answer is about to be made.

    Attributes:
        service: What it is answered from.
        state: Its key's.
        record: The journal's, which it fills in as far as it understands the request.
        rng: The random numbers of this request.
        endpoint: What answers it.
        path_id: The id in its path.
        query: What follows the ``?`` in its address.
        base_url: Where the service is reached, without ``/v1``.
        content_type: Of its body.
        content: Its body.
        draw: What chance depends on in place of the request's number; None: on the number.
    """

    service: Service
    state: KeyState
    record: ServedRequest
    rng: random.Random
    endpoint: Endpoint
    path_id: str
    query: str
    base_url: str
    content_type: str
    content: bytes
    draw: object = attrs.field(default=None, init=False)
    _law: Latency = attrs.field(factory=Latency, init=False)
    _first_token: float = attrs.field(default=0.0, init=False)
    _body: Json = attrs.field(factory=dict[str, object], init=False)
    _malformed: ApiError | None = attrs.field(default=None, init=False)

    def read(self) -> None:
        """Read the body and draw how long the answer takes.

        A body that cannot be read is refused by ``answer`` only, as faults come before.
        """
        if self.endpoint.has_body:
            try:
                self._body = self._parse()
            except ApiError as exc:
                self._malformed = exc
        self.draw = self._body.get("random_seed") if self.service.paired else None
        if self.draw is not None:
            self.rng = random.Random(f"{self.service.seed}//{self.draw}")
        self._law = self.service.latency(self.state, self._body.get("prompt_cache_key"))
        self._first_token = self._law.draw(self.rng)
        if not self.endpoint.has_body:
            return
        self.record.stream = self._body.get("stream") is True
        model = self._body.get("model")
        self.record.model = model if isinstance(model, str) else None

    def answer(self) -> Reply:
        """The reply.

        Raises:
            ApiError: The request is refused.
        """
        if self._malformed is not None:
            raise self._malformed
        self.endpoint.check(self._body)
        return self.endpoint.answer(
            Question(
                service=self.service,
                state=self.state,
                rng=self.rng,
                body=self._body,
                size=len(self.content),
                path_id=self.path_id,
                query=read_query(self.query),
                base_url=self.base_url,
                first_token=self._first_token,
                tokens_per_second=self._law.tokens_per_second,
            )
        )

    def _parse(self) -> Json:
        """The body as an object.

        Raises:
            ApiError: 422: it is none.
        """
        fold = self.endpoint.fold
        if fold is None:
            return parse_body(self.content)
        try:
            fields = read_form(self.content_type, self.content)
        except FormError as exc:
            raise ApiError.detail(422, [detail_item("value_error", [], f"Value error, {exc}", None)]) from None
        if self.service.keep_bodies:
            self.record.parts = tuple(map(_describe, fields))
        return fold(fields)


def _describe(field: Field) -> ServedPart:
    """A part for the journal."""
    name, value = field
    if isinstance(value, Upload):
        return ServedPart(name, len(value.data), value.filename, value.content_type)
    return ServedPart(name, len(value.encode()))
