"""Mistral's API: https://docs.mistral.ai/api.

Operations are rows of one table, each a function that writes and one that reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

import attrs

from bifrost_core.errors import ConfigError
from bifrost_core.keys import Key, Secret
from bifrost_core.types import Operation, Request

from ._adapter import Codec, HttpProvider
from ._chat import read_chat
from ._chat_stream import ChatStreamDecoder
from ._embeddings import read_embeddings
from ._mistral_audio import write_transcription
from ._mistral_chat import continued_chat, continued_responses, write_chat, write_fim, write_responses
from ._mistral_embeddings import write_embeddings
from ._mistral_moderation import read_classification, read_moderation, write_classification, write_moderation
from ._mistral_ocr import read_ocr, write_ocr
from ._mistral_speech import read_speech, write_speech
from ._models import read_models, write_models
from ._responses import read_responses, responses_decoder
from ._transcription import TranscriptionStreamDecoder, read_transcription
from .base import Quota

__all__ = ["Mistral"]

_MODELS: Final = re.compile(
    r"(?:open-|labs-)?(?:mistral|mixtral|ministral|magistral|codestral|devstral|pixtral|voxtral|mathstral|leanstral)"
    r"(?:-[a-z0-9._-]+)?"
)

_LIMIT: Final = re.compile(
    r"x-ratelimit-limit-(req|tokens|ocr-pages|audio-seconds|input-characters)-(minute|10-second|month)"
)
# Names of 2024: tokens per minute in two spellings, of which only the short one has a reset, and per month.
_BY_SIZE: Final = (
    ("tokens", "ratelimitbysize-limit", "ratelimitbysize-remaining", "minute"),
    ("tokens", "x-ratelimitbysize-limit-minute", "x-ratelimitbysize-remaining-minute", "minute"),
    ("tokens-month", "x-ratelimitbysize-limit-month", "x-ratelimitbysize-remaining-month", "month"),
)
_WINDOWS: Final = {"minute": 60.0, "10-second": 10.0, "month": 2_592_000.0}
_KINDS: Final = {"req": "requests"}
_AMOUNT: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")


class Mistral(HttpProvider):
    """Mistral's API.

    Requests may be written in OpenAI's shape or in Mistral's own. Renamed are ``seed`` (``random_seed``),
    ``max_completion_tokens`` (``max_tokens``), the role ``developer`` (``system``), ``service_tier="default"``
    (``"standard_only"``), ``reasoning_content`` (a thinking part), ``refusal`` (text), OpenAI's ``file`` parts,
    and ids of tool calls that are not nine letters and digits, the same way in call and result. Left out, as
    Mistral refuses them and they do not change the answer, and noted in the log once: ``user``, ``store``,
    ``stream_options`` (usage comes unasked), ``safety_identifier``, ``prompt_cache_retention``; in messages
    ``name`` (but of a tool), ``metadata``, ``annotations``, ``cache_control``, ``provider_specific_fields``,
    ``extra_content``, and sealed or signed thoughts' seals of other providers. Any other field that Mistral
    would refuse raises ``UnsupportedParameterError`` with its path; what is newer than this list goes through
    ``extra_body``, which is merged last and wins.

    Args:
        keys: ``Key``s or plain strings; at least one.
        base_url: With or without ``/v1``, with a path in front or not. Regional hosts are
            ``https://api.eu.mistral.ai`` and ``https://api.us.mistral.ai``.
        name: First part of its models' names.
        **options: ``headers`` (extra ones for every request), ``proxy`` (URL), ``verify`` (True, a
            path to a CA bundle, or an ``ssl.SSLContext``), ``max_in_flight`` and
            ``max_in_flight_per_key`` (requests at once), ``allow_http`` (take an unencrypted URL of
            another machine).

    Raises:
        ConfigError: An argument is not usable; names it, and never shows a credential.
    """

    __slots__ = ()

    codecs: ClassVar[Mapping[Operation, Codec]] = MappingProxyType(
        {
            Operation.CHAT: Codec("/v1/chat/completions", write_chat, read_chat, ChatStreamDecoder),
            Operation.FIM: Codec("/v1/fim/completions", write_fim, read_chat, ChatStreamDecoder),
            Operation.RESPONSES: Codec("/v1/chat/completions", write_responses, read_responses, responses_decoder),
            Operation.TRANSCRIPTION: Codec(
                "/v1/audio/transcriptions", write_transcription, read_transcription, TranscriptionStreamDecoder
            ),
            Operation.OCR: Codec("/v1/ocr", write_ocr, read_ocr),
            Operation.EMBEDDINGS: Codec("/v1/embeddings", write_embeddings, read_embeddings),
            Operation.MODERATION: Codec("/v1/moderations", write_moderation, read_moderation),
            Operation.CLASSIFICATION: Codec("/v1/classifications", write_classification, read_classification),
            Operation.SPEECH: Codec("/v1/audio/speech", write_speech, read_speech),
            Operation.MODELS: Codec("/v1/models", write_models, read_models, method="GET"),
        }
    )

    def __init__(
        self,
        keys: Iterable[Key | Secret | str] | Key | Secret | str,
        *,
        base_url: str = "https://api.mistral.ai",
        name: str = "mistral",
        **options: Any,
    ) -> None:
        problem: ConfigError | None = None
        try:
            super().__init__(keys, base_url=base_url, name=name, **options)
            if not self.keys:
                problem = ConfigError("Mistral has no keys; pass at least one", field="keys")
        except ConfigError as exc:
            problem = exc
        if problem is not None:
            del keys, base_url, options  # the frames of the error must not hold a credential
            raise problem.with_traceback(None)

    def knows(self, model: str) -> bool:
        """Whether ``model`` is by its name one of Mistral's."""
        return _MODELS.fullmatch(model) is not None

    def continued(self, request: Request, text: str, tokens: int) -> Request | None:
        """The request for the rest of an answer that broke off after ``text``; None where it has no such form."""
        if request.operation is Operation.RESPONSES:
            return continued_responses(request, text, tokens, self.reporter)
        return continued_chat(request, text, tokens) if request.operation is Operation.CHAT else None

    def quotas(self, headers: Mapping[str, str]) -> tuple[Quota, ...]:
        """What the headers say is left of the limits, current and older names; unreadable ones are left out.

        The windows slide and have no reset: ``reset`` is chosen so that ``(limit - remaining) / reset``
        is the rate at which the limit fills again, ``limit / window``. Streams carry no such headers, nor do
        lists of models; OCR has ``ocr-pages``, transcription ``requests`` and ``audio-seconds``, speech
        ``input-characters``, embeddings and moderations ``requests``.

        ``rest`` is set where nothing is left and a reset is stated, which only the names of 2024 do; of all
        others the balancer foresees how they fill again.
        """
        found: list[Quota] = []
        for name, value in headers.items():
            if not name.startswith("x-ratelimit-limit-"):
                if "ratelimitbysize-limit" in name and not found:
                    found.extend(_by_size(headers))
                continue
            match = _LIMIT.fullmatch(name)
            if match is not None:
                what, window = match[1], match[2]
                kind = _KINDS.get(what, what)
                if window != "minute" and f"x-ratelimit-limit-{what}-minute" in headers:
                    kind = f"{kind}-{window}"
                elif window == "month":
                    kind = f"{kind}-month"
                add_quota(found, kind, value, headers.get(name.replace("-limit-", "-remaining-", 1)), _WINDOWS[window])
        return tuple(found)


def _by_size(headers: Mapping[str, str]) -> list[Quota]:
    """What the names of 2024 say; each kind once."""
    found: list[Quota] = []
    for kind, limit, remaining, window in _BY_SIZE:
        if limit in headers and all(quota.kind != kind for quota in found):
            add_quota(found, kind, headers[limit], headers.get(remaining), _WINDOWS[window])
            stated = headers.get("ratelimitbysize-reset", "")
            if found and limit == "ratelimitbysize-limit" and _AMOUNT.fullmatch(stated) and float(stated) <= 60.0:
                reset = float(stated)
                found[0] = attrs.evolve(found[0], reset=reset, rest=0.0 if found[0].remaining else reset)
    return found


def add_quota(found: list[Quota], kind: str, limit: str, remaining: str | None, window: float) -> None:
    """Note one pair of headers, if it is one."""
    if remaining is None or _AMOUNT.fullmatch(limit) is None or _AMOUNT.fullmatch(remaining) is None:
        return
    whole, left = float(limit), float(remaining)
    if whole > 0:
        left = min(left, whole)
        found.append(Quota(kind, left, whole, window * (whole - left) / whole))
