"""Anthropic's API: https://platform.claude.com/docs/en/api.

Operations are rows of one table, each a function that writes and one that reads.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Final

import attrs

from bifrost_core.errors import ConfigError
from bifrost_core.keys import Key, Secret
from bifrost_core.types import Operation, Request
from bifrost_core.wire import Auth

from ._adapter import Codec, HttpProvider
from ._anthropic_answers import read_chat, read_responses
from ._anthropic_chat import beta_names, continued_chat, continued_responses, write_chat, write_responses
from ._anthropic_models import MODELS, read_models
from ._anthropic_stream import MessageStreamDecoder, responses_decoder
from ._http import date_of
from ._models import write_models
from .base import Quota

__all__ = ["Anthropic"]

_MODELS: Final = re.compile(r"claude-[a-z0-9][a-z0-9@:._-]*")
_VERSION: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NO_SAMPLING_FROM: Final = (
    "2026-10-21"  # temperature, top_p and top_k: https://platform.claude.com/docs/en/api/versioning
)
_HEADERS: Final = {"x-api-key": "keys", "anthropic-version": "version", "anthropic-beta": "beta"}
_LIMIT: Final = re.compile(r"anthropic-ratelimit-(requests|tokens|input-tokens|output-tokens)-limit")
_AMOUNT: Final = re.compile(r"[0-9]{1,15}")
_WINDOW: Final = 60.0
_LONGEST: Final = 86_400.0


class Anthropic(HttpProvider):
    """Anthropic's API.

    Requests may be written in OpenAI's shape or with Anthropic's own members. Renamed are ``stop``
    (``stop_sequences``), ``max_completion_tokens`` (``max_tokens``), ``reasoning_effort``
    (``output_config.effort``, with ``thinking`` switched on or off where the model needs it),
    ``response_format`` with a schema (``output_config.format``), ``parallel_tool_calls=False``
    (``disable_parallel_tool_use``), ``user`` and ``safety_identifier`` (``metadata.user_id``),
    ``service_tier="default"`` (``"standard_only"``); functions, calls, results, images and files become
    Anthropic's blocks; system messages become ``system``, unless the model takes them where they stand. Thoughts go
    back with the signature that they came with. Without an output limit, which Anthropic requires, the model's
    greatest is sent, and 4,096 where that is not known.

    Left out, as Anthropic refuses them and they do not change the answer, and noted in the log once: ``store``,
    ``stream_options``, ``prompt_cache_key``, ``prompt_cache_retention``, labels in ``metadata``, the ``detail`` of
    images; in messages ``name``, ``annotations``, empty texts and thoughts that no Claude has signed. Any other
    field that Anthropic would refuse raises ``UnsupportedParameterError`` with its path (``n``, ``seed``,
    ``logprobs``, penalties, ``temperature`` above 1, ``json_object``); what is newer than this list goes through
    ``extra_body``, which is merged last and wins.

    Args:
        keys: ``Key``s or plain strings; at least one.
        base_url: With or without ``/v1``, with a path in front or not.
        name: First part of its models' names.
        version: The API's version (``anthropic-version``). From ``2026-10-21`` on, ``temperature``, ``top_p`` and
            ``top_k`` are refused.
        beta: Names of beta features to switch on for every request (``anthropic-beta``); a request's own stand in
            its field ``betas``.
        **options: ``headers`` (extra ones for every request), ``proxy`` (URL), ``verify`` (True, a
            path to a CA bundle, or an ``ssl.SSLContext``), ``max_in_flight`` and
            ``max_in_flight_per_key`` (requests at once), ``allow_http`` (take an unencrypted URL of
            another machine).

    Raises:
        ConfigError: An argument is not usable; names it, and never shows a credential.
    """

    __slots__ = ("_table", "beta", "version")

    codecs: ClassVar[Mapping[Operation, Codec]] = MappingProxyType(
        {
            Operation.CHAT: Codec("/v1/messages", write_chat, read_chat, MessageStreamDecoder),
            Operation.RESPONSES: Codec("/v1/messages", write_responses, read_responses, responses_decoder),
            Operation.MODELS: Codec(MODELS, write_models, read_models, method="GET"),
        }
    )

    def __init__(
        self,
        keys: Iterable[Key | Secret | str] | Key | Secret | str,
        *,
        base_url: str = "https://api.anthropic.com",
        name: str = "anthropic",
        version: str = "2023-06-01",
        beta: Iterable[str] | str = (),
        **options: Any,
    ) -> None:
        problem: ConfigError | None = None
        features = beta_names(beta)
        try:
            super().__init__(keys, base_url=base_url, name=name, **options)
            if not self.keys:
                problem = ConfigError("Anthropic has no keys; pass at least one", field="keys")
            elif not isinstance(version, str) or _VERSION.fullmatch(version) is None:  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
                problem = ConfigError("version is a date such as 2023-06-01", field="version")
            elif features is None:
                problem = ConfigError("beta is a list of names of beta features", field="beta")
            else:
                for header in self.network.headers:
                    if header in _HEADERS:
                        problem = ConfigError(f"header {header!r} is set by {_HEADERS[header]}=…", field="headers")
        except ConfigError as exc:
            problem = exc
        if problem is not None:
            del keys, base_url, options  # the frames of the error must not hold a credential
            raise problem.with_traceback(None)
        self.version: str = version
        self.beta: tuple[str, ...] = features or ()
        self.auth = Auth(b"x-api-key", b"")
        how: dict[str, Any] = {"samples": version < _NO_SAMPLING_FROM, "beta": self.beta}
        self._table = {
            at: attrs.evolve(codec, write=functools.partial(codec.write, **how))
            if at is not Operation.MODELS
            else codec
            for at, codec in self.codecs.items()
        }
        ours = [(b"anthropic-version", version.encode())]
        if self.beta:
            ours.append((b"anthropic-beta", ",".join(self.beta).encode()))
        self._headers = {at: (*headers, *ours) for at, headers in self._headers.items()}

    def knows(self, model: str) -> bool:
        """Whether ``model`` is by its name one of Anthropic's."""
        return _MODELS.fullmatch(model) is not None

    def continued(self, request: Request, text: str, tokens: int) -> Request | None:
        """The request for the rest of an answer that broke off after ``text``; None where it has no such form.

        Models since Claude 4.6 have none: they take no answer that has begun.
        """
        if request.operation is Operation.RESPONSES:
            return continued_responses(request, text, tokens, self.reporter)
        return continued_chat(request, text, tokens) if request.operation is Operation.CHAT else None

    def quotas(self, headers: Mapping[str, str]) -> tuple[Quota, ...]:
        """What the headers say is left of the limits; unreadable ones are left out.

        ``reset`` is what the header says, a time, less the time of the answer, its ``date``; where either is
        missing it is chosen so that the limit fills again at ``limit`` a minute. Limits fill all the time: where
        nothing is left, something is again long before the reset, so that nothing rests until then.

        Source:
            https://platform.claude.com/docs/en/api/rate-limits (token bucket; the headers).
        """
        found: list[Quota] = []
        now = date_of(headers)
        for name, value in headers.items():
            match = _LIMIT.fullmatch(name)
            if match is None:
                continue
            kind = match[1]
            remaining = headers.get(f"anthropic-ratelimit-{kind}-remaining", "")
            if _AMOUNT.fullmatch(value) is None or _AMOUNT.fullmatch(remaining) is None or int(value) == 0:
                continue
            whole = float(value)
            left = min(float(remaining), whole)
            reset = _seconds_until(headers.get(f"anthropic-ratelimit-{kind}-reset", ""), now)
            found.append(Quota(kind, left, whole, _WINDOW * (whole - left) / whole if reset is None else reset))
        return tuple(found)

    def _codec(self, request: Request) -> Codec:
        codec = self._table.get(request.operation)
        return super()._codec(request) if codec is None else codec


def _seconds_until(when: str, now: float | None) -> float | None:
    """Seconds from ``now`` to a time in RFC 3339; None where one of them is not known, or it is no time near it."""
    if now is None or not 20 <= len(when) <= 40:
        return None
    try:
        moment = datetime.fromisoformat(when)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    seconds = moment.timestamp() - now
    return max(seconds, 0.0) if seconds <= _LONGEST else None
