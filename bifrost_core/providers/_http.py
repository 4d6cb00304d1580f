"""What an HTTP answer that is no success means: status, code and text into a kind and an error.

Evidence in this order: status, the provider's code, its text (listed phrases only). A phrase never
makes a failure more worth repeating than its status does, but for two: a prompt that is too long
may fit another model, and an account that may spend no more is not the only one.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import re
from calendar import timegm
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from bifrost_core.kinds import Kind
from bifrost_core.wire import REQUEST_IDS

from ._json import JsonError, decode

__all__ = [
    "Problem",
    "date_of",
    "escape",
    "kind_of",
    "kind_of_status",
    "read_problem",
    "request_id",
    "retry_after",
    "wait_of",
]

# --- Retry-After -----------------------------------------------------------------------------------

MAX_WAIT: Final = 86_400.0
_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME: Final = r"(?P<h>[0-9]{2}):(?P<m>[0-9]{2}):(?P<s>[0-9]{2})"
_DATES: Final = (
    re.compile(
        rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<d>[0-9]{{2}}) (?P<mon>[A-Z][a-z]{{2}}) (?P<y>[0-9]{{4}}) {_TIME} GMT"
    ),
    re.compile(
        rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<d>[0-9]{{2}})-(?P<mon>[A-Z][a-z]{{2}})-(?P<y>[0-9]{{2}}) {_TIME} GMT"
    ),
    re.compile(
        rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?P<mon>[A-Z][a-z]{{2}}) (?P<d>[0-9]{{2}}| [0-9]) {_TIME} (?P<y>[0-9]{{4}})"
    ),
)


def _date(text: str, now: float) -> float | None:
    """Seconds since 1970 of an HTTP date in any of its three forms."""
    found = next((match for pattern in _DATES if (match := pattern.fullmatch(text))), None)
    if found is None or found["mon"] not in _MONTHS or int(found["s"]) > 60:
        return None
    year = int(found["y"])
    if len(found["y"]) == 2:
        # More than 50 years ahead means the last century (RFC 9110, section 5.6.7).
        this_year = datetime.fromtimestamp(now, UTC).year
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100
    try:
        day = datetime(
            year,
            _MONTHS.index(found["mon"]) + 1,
            int(found["d"]),
            int(found["h"]),
            int(found["m"]),
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return timegm(day.timetuple()) + int(found["s"])


def date_of(headers: Mapping[str, str]) -> float | None:
    """When the server sent the answer, by its own clock: seconds since 1970; None where it does not say.

    Source:
        RFC 9110, section 6.6.1.
    """
    text = headers.get("date", "")
    return _date(text, 0.0) if len(text) == 29 else None  # the one form that senders may use has as many characters


def _one(text: str, now: float) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    when = _date(text, now)
    return None if when is None else max(0.0, when - now)


def _stated(text: str, now: float) -> float | None:
    """One value, or several that agree: of a repeated header the values arrive joined."""
    whole = _one(text.strip(" \t"), now)
    if whole is not None:
        return whole
    pieces = [piece.strip(" \t") for piece in text.split(",")]
    values: set[float] = set()
    at = 0
    while at < len(pieces):
        value = _one(pieces[at], now)
        if value is None and at + 1 < len(pieces):  # two of the date forms hold a comma
            value = _one(f"{pieces[at]}, {pieces[at + 1]}", now)
            at += 1
        if value is None:
            return None
        values.add(value)
        at += 1
    return values.pop() if len(values) == 1 else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """How long the server says to wait.

    Args:
        headers: Names in lower case; of a repeated header the values joined with ``", "``.
        now: Seconds since 1970 at which they came: what dates are relative to.

    Returns:
        Seconds, 0 to 86,400; None where nothing usable is said. 0 states no wait.

    Source:
        RFC 9110, sections 10.2.3 and 5.6.7. The forms in milliseconds are OpenAI's and Azure's.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("x-ms-retry-after-ms", 1000.0)):
        text = headers.get(name)
        if text is not None and len(text) <= 64:
            parts = {part.strip(" \t") for part in text.split(",")}
            if len(parts) == 1 and _NUMBER.fullmatch(value := parts.pop()):
                return min(float(value) / unit, MAX_WAIT)
    text = headers.get("retry-after")
    if text is None or len(text) > 128:
        return None
    try:
        seconds = _stated(text, now)
    except (ValueError, OverflowError, OSError):  # `now` itself is no date
        return None
    return None if seconds is None else min(seconds, MAX_WAIT)


def wait_of(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """``retry_after`` where a wait can help after ``status``; None also for a stated 0, which is no wait."""
    if status in {408, 409, 425, 429} or status >= 500:
        return retry_after(headers, now) or None
    return None


# --- bodies ----------------------------------------------------------------------------------------


@attrs.frozen
class Problem:
    """What the body of an error says.

    Attributes:
        message: For people; ``""`` where there is none.
        code: The provider's code as text.
        type: Its word for the sort of error.
        param: The field at fault.
        request_id: Its id of the request, where the body has one.
        status: The status that the body itself states.
        is_blocked: It carries the verdict of guardrails that the request asked for.
        details: Of a refused body: (place, what is wrong, sort) per field.
    """

    message: str = ""
    code: str | None = None
    type: str | None = None
    param: str | None = None
    request_id: str | None = None
    status: int | None = None
    is_blocked: bool = False
    details: tuple[tuple[str, str, str], ...] = ()


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)[:64]
    return value if isinstance(value, str) and value else None


def _status(value: Any) -> int | None:
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else None


def _details(detail: Any) -> tuple[tuple[str, str, str], ...]:
    """The entries of a validation error: only place, words and sort; ``input`` quotes the request and stays out."""
    if not isinstance(detail, Sequence) or isinstance(detail, str):
        return ()
    entries: list[tuple[str, str, str]] = []
    for entry in detail[:20]:
        if isinstance(entry, Mapping) and isinstance(entry.get("msg"), str):
            place = entry.get("loc")
            where = ".".join(str(step)[:100] for step in place[:20]) if isinstance(place, list) else ""
            entries.append((where, entry["msg"], _text(entry.get("type")) or ""))
    return tuple(entries)


def _nested(message: Any) -> Any:
    """Older servers put the validation error into ``message``, as an object or as JSON in a string."""
    if isinstance(message, str) and message.startswith("{"):
        try:
            inner = decode(message.encode())
        except (JsonError, UnicodeEncodeError):
            return message
        return inner if isinstance(inner, dict) else message
    return message


def problem_of(data: Mapping[str, Any]) -> Problem:
    """Read an error object that is already parsed; every shape that Mistral, OpenAI and Anthropic use.

    Source:
        https://docs.mistral.ai/api (422), https://platform.openai.com/docs/guides/error-codes,
        https://docs.anthropic.com/en/api/errors, https://docs.mistral.ai/capabilities/guardrailing (the verdict
        beside ``error``); the other shapes are quoted in public reports.
    """
    request = _text(data.get("request_id"))
    blocked = isinstance(data.get("guardrails"), Mapping)
    inner = data.get("error")
    stable: Any = None
    if isinstance(inner, Mapping):
        data = inner
        stable = inner.get("details")  # Anthropic: the words may change, this code does not
    elif isinstance(inner, str) and inner and not data.get("message"):
        return Problem(inner, request_id=request)
    message = _nested(data.get("message"))
    details = _details(data.get("detail"))
    if isinstance(message, Mapping):
        details = _details(message.get("detail"))
        message = message.get("detail") if isinstance(message.get("detail"), str) else None
    if not isinstance(message, str) or not message:
        message = data.get("detail")
    if not isinstance(message, str):
        message = "; ".join(f"{where}: {what}" if where else what for where, what, _ in details)
    kind = _text(data.get("type"))
    return Problem(
        message,
        code=_text(data.get("code")) or (_text(stable.get("error_code")) if isinstance(stable, Mapping) else None),
        type=details[0][2] if details and kind is None else kind,
        param=_text(data.get("param")) or (details[0][0] if details and "message" not in data else None),
        request_id=request,
        status=_status(data.get("raw_status_code")) or _status(data.get("status")) or _status(data.get("code")),
        is_blocked=blocked,
        details=details,
    )


def read_problem(body: bytes) -> Problem:
    """What an error body of any shape says: JSON of several kinds, plain text, HTML, nothing."""
    data: Any = None
    try:
        data = decode(body)
    except JsonError:
        return Problem(body[:4096].decode("utf-8", "replace").strip())
    return problem_of(data) if isinstance(data, dict) else Problem(body[:4096].decode("utf-8", "replace").strip())


def request_id(headers: Mapping[str, str], problem: Problem | None = None) -> str | None:
    """The provider's id of the request, to be quoted to its support."""
    for name in REQUEST_IDS:
        value = headers.get(name)
        if value:
            return escape(value, 200)
    if problem is not None and problem.request_id:
        return escape(problem.request_id, 200)
    return None


# Controls, line and paragraph separators, and what reorders or hides text in a log.
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_WORD: Final = re.compile(r"\S+\Z")


def escape(text: str, limit: int = 500) -> str:
    """``text`` as one harmless line of at most ``limit`` characters; never cut inside a word, which may be a secret."""
    text = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text[: limit * 4])
    if len(text) > limit:
        kept = text[: limit - 1]
        if not text[limit - 1].isspace():
            kept = _WORD.sub("", kept)
        text = kept.rstrip() + "…"
    return text


# --- kinds -----------------------------------------------------------------------------------------

_BY_STATUS: Final = {
    401: Kind.AUTH,
    402: Kind.PAYMENT,
    403: Kind.PERMISSION,
    404: Kind.MODEL_NOT_FOUND,
    408: Kind.SERVER_TIMEOUT,
    409: Kind.CONFLICT,
    413: Kind.REQUEST_TOO_LARGE,
    425: Kind.SERVER_ERROR,
    429: Kind.RATE_LIMITED,
    498: Kind.MODEL_OVERLOADED,  # Groq: no capacity on the flex tier (https://console.groq.com/docs/errors)
    501: Kind.INVALID_REQUEST,
    504: Kind.SERVER_TIMEOUT,
    529: Kind.MODEL_OVERLOADED,
}


def kind_of_status(status: int) -> Kind:
    """What a status says by itself."""
    kind = _BY_STATUS.get(status)
    if kind is not None:
        return kind
    if 400 <= status < 500:
        return Kind.INVALID_REQUEST
    if 300 <= status < 400:
        return Kind.REDIRECT
    return Kind.SERVER_ERROR if status >= 500 else Kind.BAD_RESPONSE


_REFUSED: Final = frozenset({400, 403, 404, 413, 422})
_LENGTH: Final = frozenset({400, 413, 422})
_POLICY: Final = frozenset({400, 403})
_FULL: Final = frozenset({429, 503, 529})
_KEY: Final = frozenset({400, 401, 403})

# Codes and types. Mistral's as seen in public reports; OpenAI's and Anthropic's from their error guides.
_CODES: Final[Mapping[str, tuple[tuple[frozenset[int], Kind], ...]]] = {
    "1500": ((_REFUSED, Kind.MODEL_NOT_FOUND),),
    "invalid_model": ((_REFUSED, Kind.MODEL_NOT_FOUND),),
    "model_not_found": ((_REFUSED, Kind.MODEL_NOT_FOUND),),
    "3505": ((_FULL, Kind.MODEL_OVERLOADED),),
    "service_tier_capacity_exceeded": ((_FULL, Kind.MODEL_OVERLOADED),),
    "overloaded_error": ((_FULL, Kind.MODEL_OVERLOADED),),
    "context_length_exceeded": ((_LENGTH, Kind.CONTEXT_TOO_LONG),),
    "exceed_context_size_error": ((_LENGTH, Kind.CONTEXT_TOO_LONG),),  # llama.cpp
    "invalid_api_key": ((_KEY, Kind.AUTH),),
    "content_filter": ((_POLICY, Kind.CONTENT_FILTERED),),
    "content_policy_violation": ((_POLICY, Kind.CONTENT_FILTERED),),
    "image_content_policy_violation": ((_POLICY, Kind.CONTENT_FILTERED),),
    "insufficient_quota": ((frozenset({429}), Kind.QUOTA_EXHAUSTED), (_POLICY, Kind.PAYMENT)),
    "billing_hard_limit_reached": ((frozenset({429}), Kind.QUOTA_EXHAUSTED), (_POLICY, Kind.PAYMENT)),
    "billing_not_active": ((frozenset({429}), Kind.QUOTA_EXHAUSTED), (_POLICY, Kind.PAYMENT)),
    "enforced_spend_limit_reached": ((frozenset({429}), Kind.QUOTA_EXHAUSTED), (_POLICY, Kind.PAYMENT)),
    "contract_spend_limit_reached": ((frozenset({429}), Kind.QUOTA_EXHAUSTED), (_POLICY, Kind.PAYMENT)),
    "organization_on_hold": ((_POLICY, Kind.PERMISSION),),
}

# Phrases, in lower case.
_PHRASES: Final = (
    ("too large for model with", _LENGTH, Kind.CONTEXT_TOO_LONG),  # Mistral: "… with 32768 maximum context length"
    ("maximum context length", _LENGTH, Kind.CONTEXT_TOO_LONG),  # OpenAI, vLLM, Mistral
    ("exceed context limit", _LENGTH, Kind.CONTEXT_TOO_LONG),  # Anthropic
    ("prompt is too long", _LENGTH, Kind.CONTEXT_TOO_LONG),  # Anthropic
    ("blocked by guardrail", _POLICY, Kind.CONTENT_FILTERED),  # Mistral's guardrails
    ("specified api usage limits", frozenset({400}), Kind.PAYMENT),  # Anthropic: a spend limit of the account's own
    ("specified workspace api usage limits", frozenset({400}), Kind.PAYMENT),  # … and of the workspace's
    ("credit balance is too low", frozenset({400}), Kind.PAYMENT),  # Anthropic
    ("tier capacity exceeded", frozenset({429, 503}), Kind.MODEL_OVERLOADED),  # Mistral, older bodies without a code
)

_SPENT: Final = re.compile(
    r"x-ratelimit-(?:limit-[a-z-]+?-[0-9a-z-]*(?:minute|second|month)|remaining-[a-z-]+-month)"
    r"|x-ratelimitbysize-(?:limit-(?:minute|month)|remaining-month)"
)


def _is_spent(headers: Mapping[str, str]) -> bool:
    """A limit of 0, or a month's quota that is used up: waiting a minute does not help."""
    return any(
        value.strip() == "0" and _SPENT.fullmatch(name) is not None
        for name, value in headers.items()
        if name.startswith("x-ratelimit")
    )


_SPENDING: Final = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "enforced_spend_limit_reached"}
    | {"contract_spend_limit_reached"}
)
_MONTHLY: Final = re.compile(r"x-ratelimit-remaining-[a-z-]+-month")


def is_of_account(problem: Problem, headers: Mapping[str, str]) -> bool:
    """Whether a quota that is used up is the account's, for all its models: what it may spend, or the month's.

    Args:
        problem: What the body says.
        headers: Names in lower case.

    Source:
        https://platform.openai.com/docs/guides/error-codes (``insufficient_quota``);
        https://docs.mistral.ai/deployment/ai-studio/tier (limits of a month are a workspace's).
    """
    if not _SPENDING.isdisjoint((problem.code, problem.type)):
        return True
    return any(value.strip() == "0" and _MONTHLY.fullmatch(name) is not None for name, value in headers.items())


def kind_of(
    status: int, problem: Problem, *, headers: Mapping[str, str], wait: float | None = None, model: str = ""
) -> Kind:
    """The kind of a failed answer.

    Args:
        status: HTTP status, no success.
        problem: What the body says.
        headers: Names in lower case.
        wait: Seconds that the answer says to wait.
        model: Name of the model that was asked; a 503 that names it is about the model alone.
    """
    kind = kind_of_status(status)
    for word in (problem.code, problem.type):
        for statuses, meant in _CODES.get(word or "", ()):
            if status in statuses:
                return meant
    if problem.is_blocked and status in _POLICY:
        return Kind.CONTENT_FILTERED
    text = problem.message[:4096].lower()
    for phrase, statuses, meant in _PHRASES:
        if status in statuses and phrase in text:
            return meant
    if kind is Kind.RATE_LIMITED and (_is_spent(headers) or (wait is not None and wait > 3600)):
        return Kind.QUOTA_EXHAUSTED
    if status == 503 and len(model) > 2 and model.lower() in text:
        return Kind.MODEL_OVERLOADED
    return kind


# The status that a code stands for where there is no status: in the middle of a stream.
_STATUS_OF: Final[Mapping[str, int]] = {
    "1000": 500,
    "1100": 503,
    "1300": 429,
    "1500": 400,
    "1910": 403,
    "1913": 403,
    "3051": 400,
    "3210": 400,
    "3230": 400,
    "3280": 400,
    "3310": 400,
    "3505": 429,
    "3740": 400,
    "3800": 503,
    "3810": 429,
    "api_error": 500,
    "authentication_error": 401,
    "billing_error": 402,
    "billing_hard_limit_reached": 429,
    "billing_not_active": 429,
    "conflict_error": 409,
    "content_filter": 400,
    "content_policy_violation": 400,
    "context_length_exceeded": 400,
    "image_content_policy_violation": 400,
    "insufficient_quota": 429,
    "internal_server_error": 500,
    "invalid_api_key": 401,
    "invalid_model": 400,
    "invalid_prompt": 400,
    "model_not_found": 404,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded_error": 529,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "rate_limited": 429,
    "request_too_large": 413,
    "server_error": 500,
    "service_tier_capacity_exceeded": 429,
    "timeout_error": 504,
    "unreachable_backend": 503,
}


def inner_status(problem: Problem) -> int | None:
    """The status that an error inside a stream stands for; None where nothing says so."""
    if problem.status is not None:
        return problem.status
    return next(
        (_STATUS_OF[word] for word in (problem.code, problem.type) if word is not None and word in _STATUS_OF), None
    )


ADVICE: Final[Mapping[Kind, str]] = {
    Kind.AUTH: "check that the key is right and active, and that its plan's budget is not used up",
    Kind.BAD_RESPONSE: "another deployment may answer; the request was probably billed",
    Kind.CONFLICT: "try again",
    Kind.CONTENT_FILTERED: "the provider's policy refuses this content; change the request",
    Kind.CONTEXT_TOO_LONG: "shorten the messages or use a model with a larger context",
    Kind.INVALID_REQUEST: "change the request; sent again as it is it fails again",
    Kind.MODEL_NOT_FOUND: "check the model's name and the provider's base_url",
    Kind.MODEL_OVERLOADED: "the provider's capacity for this model is used up; use another model or try later",
    Kind.PAYMENT: "check the account's balance and billing at the provider",
    Kind.PERMISSION: "the account may not use this; use another model or key, or change the plan",
    Kind.QUOTA_EXHAUSTED: "the quota is used up or not in the plan; a short wait does not help",
    Kind.RATE_LIMITED: "wait, or use a key of another quota group",
    Kind.REDIRECT: "redirects are not followed; check base_url",
    Kind.REQUEST_TOO_LARGE: "make the request smaller",
    Kind.SERVER_ERROR: "the provider failed; try again later",
    Kind.SERVER_TIMEOUT: "the provider took too long; try again later",
}
