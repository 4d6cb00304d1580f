"""Mistral's API: https://docs.mistral.ai/api.

Operations are rows of one table, each a function that writes and one that reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from bifrost_core.errors import ConfigError
from bifrost_core.keys import Key, Secret
from bifrost_core.types import Operation, Request

from ._adapter import Codec, HttpProvider
from ._chat import read_chat
from ._chat_stream import ChatStreamDecoder
from ._mistral_chat import continued_chat, write_chat, write_fim
from .base import Quota

__all__ = ["Mistral"]

_MODELS: Final = re.compile(
    r"(?:open-|labs-)?(?:mistral|mixtral|ministral|magistral|codestral|devstral|pixtral|voxtral|mathstral|leanstral)"
    r"(?:-[a-z0-9._-]+)?"
)

_LIMIT: Final = re.compile(
    r"x-ratelimit-limit-(req|tokens|ocr-pages|audio-seconds|input-characters)-(minute|10-second|month)"
)
_WINDOWS: Final = {"minute": 60.0, "10-second": 10.0, "month": 2_592_000.0}
_KINDS: Final = {"req": "requests"}
_AMOUNT: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")


class Mistral(HttpProvider):
    """Mistral's API.

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
        """The request for the rest of a chat answer that broke off after ``text``; None where it has no such form."""
        return continued_chat(request, text, tokens) if request.operation is Operation.CHAT else None

    def quotas(self, headers: Mapping[str, str]) -> tuple[Quota, ...]:
        """What the headers say is left of the limits, current and older names; unreadable ones are left out.

        The windows slide and have no reset: ``reset`` is chosen so that ``(limit - remaining) / reset``
        is the rate at which the limit fills again, ``limit / window``. Streams carry no such headers.
        """
        found: list[Quota] = []
        for name, value in headers.items():
            if not name.startswith("x-ratelimit"):
                if name == "ratelimitbysize-limit":  # names of 2024
                    add_quota(found, "tokens", value, headers.get("ratelimitbysize-remaining"), 60.0)
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


def add_quota(found: list[Quota], kind: str, limit: str, remaining: str | None, window: float) -> None:
    """Note one pair of headers, if it is one."""
    if remaining is None or _AMOUNT.fullmatch(limit) is None or _AMOUNT.fullmatch(remaining) is None:
        return
    whole, left = float(limit), float(remaining)
    if whole > 0:
        left = min(left, whole)
        found.append(Quota(kind, left, whole, window * (whole - left) / whole))
