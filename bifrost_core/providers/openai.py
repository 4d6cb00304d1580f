"""OpenAI's API: https://platform.openai.com/docs/api-reference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from bifrost_core.errors import ConfigError
from bifrost_core.keys import Key, Secret
from bifrost_core.types import Operation

from ._adapter import Codec, HttpProvider
from ._openai_families import is_known
from .base import Quota

__all__ = ["OpenAI", "openai_quotas"]

_LIMIT: Final = re.compile(r"x-ratelimit-limit-([a-z][a-z0-9-]{0,40})")
_AMOUNT: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")
_STEP: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|us|µs|ns|d|h|m|s)")
_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_MAX_RESET: Final = 86_400.0 * 31
_ROUND: Final = 9  # digits behind the point: a nanosecond


class OpenAI(HttpProvider):
    """OpenAI's API.

    Known fields are sent as they are, whichever model they are for. Of other vendors' words those that have an
    equal are rewritten: ``random_seed`` (``seed``), ``max_tokens`` for models that think
    (``max_completion_tokens``), ``tool_choice="any"`` (``"required"``), ``service_tier="standard_only"``
    (``"default"``), ``image_url`` as text, ``document_url`` with a data URL (a ``file`` part), ids of tool calls of
    more than 40 characters, the same way in call and result; ``output_dimension`` (``dimensions``), ``voice_id``
    (``voice``), ``context_bias`` (``keywords``). Left out, as they do not change the answer, and noted in the log
    once: ``cache_control``, in tool messages ``name`` and ``is_error``, of the assistant ``annotations``, and
    sealed thoughts of other providers. Any other field that no version of the API knows raises
    ``UnsupportedParameterError`` with its path, thoughts in the history of a chat too, which has no place for
    them; what is newer than this list goes through ``extra_body``, which is merged last and wins. Streams of chat
    are always asked for their usage.

    Args:
        keys: ``Key``s or plain strings; at least one.
        base_url: With or without ``/v1``, with a path in front or not.
        name: First part of its models' names.
        organization: Sent as ``openai-organization``, for keys that belong to several.
        project: Sent as ``openai-project``.
        **options: ``headers`` (extra ones for every request), ``proxy`` (URL), ``verify`` (True, a
            path to a CA bundle, or an ``ssl.SSLContext``), ``max_in_flight`` and
            ``max_in_flight_per_key`` (requests at once), ``allow_http`` (take an unencrypted URL of
            another machine).

    Raises:
        ConfigError: An argument is not usable; names it, and never shows a credential.
    """

    __slots__ = ()

    def table(self) -> Mapping[Operation, Codec]:
        """Its operations."""
        from ._openai_operations import OPENAI  # noqa: PLC0415 # needed by those who have such a provider

        return OPENAI

    def __init__(
        self,
        keys: Iterable[Key | Secret | str] | Key | Secret | str,
        *,
        base_url: str = "https://api.openai.com",
        name: str = "openai",
        organization: str | None = None,
        project: str | None = None,
        **options: Any,
    ) -> None:
        problem: ConfigError | None = None
        stated = {"openai-organization": organization, "openai-project": project}
        own = {header: value for header, value in stated.items() if value is not None}
        if own and isinstance(options.get("headers", {}), Mapping):
            options["headers"] = {**options.get("headers", {}), **own}
        try:
            super().__init__(keys, base_url=base_url, name=name, **options)
            if not self.keys:
                problem = ConfigError("OpenAI has no keys; pass at least one", field="keys")
        except ConfigError as exc:
            problem = exc
        if problem is not None:
            del keys, base_url, options  # the frames of the error must not hold a credential
            raise problem.with_traceback(None)

    def knows(self, model: str) -> bool:
        """Whether ``model`` is by its name one of OpenAI's."""
        return is_known(model)

    def quotas(self, headers: Mapping[str, str]) -> tuple[Quota, ...]:
        """What the headers say is left of the limits (``requests``, ``tokens`` and whatever else is named there)."""
        return openai_quotas(headers)


def openai_quotas(headers: Mapping[str, str]) -> tuple[Quota, ...]:
    """The limits that ``x-ratelimit-limit-*`` and its companions tell; unreadable ones are left out.

    ``rest`` is the reset, where nothing is left: until then the limit is not whole, and as a rule not one request
    of the usual size fits.

    Source:
        https://platform.openai.com/docs/guides/rate-limits (``x-ratelimit-reset-requests: 1s``,
        ``x-ratelimit-reset-tokens: 6m0s``), https://console.groq.com/docs/rate-limits.
    """
    found: list[Quota] = []
    for name, value in headers.items():
        match = _LIMIT.fullmatch(name)
        if match is None:
            continue
        kind = match[1]
        remaining = headers.get(f"x-ratelimit-remaining-{kind}")
        if remaining is None or _AMOUNT.fullmatch(value) is None or _AMOUNT.fullmatch(remaining) is None:
            continue
        limit, left = float(value), float(remaining)
        if limit > 0:
            reset = duration_of(headers.get(f"x-ratelimit-reset-{kind}", ""))
            found.append(Quota(kind, min(left, limit), limit, reset, 0.0 if left else reset))
    return tuple(found)


def duration_of(text: str) -> float:
    """Seconds of a duration such as ``6m0s``, ``1s``, ``20ms`` or ``12.5``; 0 where it is none.

    Source:
        https://pkg.go.dev/time#Duration.String (the notation), https://platform.openai.com/docs/guides/rate-limits.
    """
    text = text.strip()
    if len(text) > 64 or (not text.isascii() and "µ" not in text):
        return 0.0
    if _AMOUNT.fullmatch(text):
        return min(float(text), _MAX_RESET)
    seconds, place = 0.0, 0
    for step in _STEP.finditer(text):
        if step.start() != place:
            return 0.0
        seconds, place = seconds + float(step[1]) * _SECONDS[step[2]], step.end()
    return min(round(seconds, _ROUND), _MAX_RESET) if place == len(text) and place else 0.0
