"""Speaks for one provider: makes its errors and notes what was tolerated, without showing a key."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.errors import BadRequestError, CallError, StreamBrokenError, UnsupportedParameterError, error_class
from bifrost_core.keys import Key, Masks
from bifrost_core.kinds import Kind
from bifrost_core.responses import ChatResponse
from bifrost_core.wire import HttpReply

from . import _http

__all__ = ["Reporter"]

_log = logging.getLogger(__name__)

_MAX_COUNTS: Final = 1_000  # names of fields come from callers
_MESSAGE_LIMIT = 240


class Reporter:
    """Makes the errors of one provider.

    Args:
        provider: Its name.
        keys: Its keys: their values are masked before a provider's text is cut to size.
    """

    __slots__ = ("_masks", "counts", "provider")

    def __init__(self, provider: str, keys: Sequence[Key]) -> None:
        self.provider = provider
        self.counts: dict[str, int] = {}
        self._masks = Masks(key.secret for key in keys if key.secret is not None)

    def note(self, what: str, level: int = logging.DEBUG) -> None:
        """Count something that was tolerated; logged the first time. What is beyond 1,000 things counts as one."""
        if what not in self.counts and len(self.counts) >= _MAX_COUNTS:
            what = "other"
        count = self.counts.get(what, 0) + 1
        self.counts[what] = count
        if count == 1:
            _log.log(level, "provider %s: %s (said once, counted from here on)", self.provider, what)

    def quote(self, text: str, limit: int = 500) -> str:
        """What the provider said, as one line without our keys."""
        return _http.escape(self._masks.mask(text), limit)

    # --- before anything is sent

    def unsupported(self, parameter: str, why: str) -> UnsupportedParameterError:
        """A field that can neither be sent nor be left out."""
        return UnsupportedParameterError(
            f"{self.provider} does not take {parameter!r}: {why}", provider=self.provider, parameter=parameter
        )

    def invalid(self, what: str, *, kind: Kind = Kind.INVALID_REQUEST) -> BadRequestError:
        """A request that can not be written."""
        return BadRequestError(
            f"the request to {self.provider} was not sent: {what}", provider=self.provider, kind=kind
        )

    # --- about an answer

    def failure(self, reply: HttpReply, model: str) -> CallError:
        """The error for an answer whose status is no success."""
        problem = _http.read_problem(reply.body)
        wait = _http.wait_of(reply.status, reply.headers, reply.received_at)
        kind = _http.kind_of(reply.status, problem, headers=reply.headers, wait=wait, model=model)
        more: dict[str, Any] = {}
        if kind is Kind.QUOTA_EXHAUSTED:
            more["every_model"] = _http.is_of_account(problem, reply.headers)
        return self._make(
            kind,
            f"{self.provider} answered {reply.status}",
            problem,
            retry_after=wait,
            status=reply.status,
            request_id=_http.request_id(reply.headers, problem),
            **more,
        )

    def unusable(self, reply: HttpReply, why: str, *, quote: bool = False) -> CallError:
        """The error for a success that can not be used."""
        excerpt = self.quote(reply.body[:4096].decode("utf-8", "replace").strip()) if quote else None
        return error_class(Kind.BAD_RESPONSE)(
            f"{self.provider} answered {reply.status}, but {why}; {_http.ADVICE[Kind.BAD_RESPONSE]}",
            kind=Kind.BAD_RESPONSE,
            **self._facts(status=reply.status, request_id=_http.request_id(reply.headers), excerpt=excerpt or None),
        )

    def denied(self, reply: HttpReply, data: Mapping[str, Any], model: str) -> CallError:
        """The error for an error object under a status of success; its own code decides the kind."""
        problem = _http.problem_of(data)
        status = _http.inner_status(problem)
        kind = Kind.BAD_RESPONSE
        if status is not None:
            kind = _http.kind_of(status, problem, headers=reply.headers, model=model)
        return self._make(
            kind,
            f"{self.provider} answered {reply.status}, but with an error",
            problem,
            retry_after=_stated_wait(data) or _http.wait_of(status or 500, reply.headers, reply.received_at),
            status=reply.status if status is None else status,
            request_id=_http.request_id(reply.headers, problem),
        )

    def broken(self, kind: Kind, why: str, partial: ChatResponse | None) -> CallError:
        """The error for a stream that went wrong."""
        cls = error_class(kind)
        more: dict[str, Any] = {"partial": partial} if issubclass(cls, StreamBrokenError) else {}
        return cls(f"the stream of {self.provider} {why}", kind=kind, status=200, provider=self.provider, **more)  # type: ignore[call-arg] # every class of these kinds has them

    def stream_error(
        self, data: Mapping[str, Any], partial: ChatResponse | None, *, model: str, has_begun: bool = False
    ) -> CallError:
        """The error for an error object inside a stream; before any content its own code decides the kind.

        Args:
            data: The object.
            partial: What had come of a chat answer.
            model: That was asked.
            has_begun: Content of an answer of another kind had come.
        """
        problem = _http.problem_of(data)
        status = _http.inner_status(problem)
        inner = None if status is None else _http.kind_of(status, problem, headers={}, model=model)
        has_begun = has_begun or partial is not None
        kind = Kind.STREAM_ERROR if has_begun or inner is None else inner
        more: dict[str, Any] = {"partial": partial, "inner": inner} if kind is Kind.STREAM_ERROR else {}
        if kind is Kind.QUOTA_EXHAUSTED:
            more["every_model"] = _http.is_of_account(problem, {})
        return self._make(
            kind,
            f"{self.provider} sent an error in the stream",
            problem,
            retry_after=_stated_wait(data),
            status=status,
            request_id=_http.request_id({}, problem),
            **more,
        )

    def _make(
        self, kind: Kind, what: str, problem: _http.Problem, *, retry_after: float | None, **fields: Any
    ) -> CallError:
        said = self.quote(problem.message, _MESSAGE_LIMIT) if problem.message else ""
        if said.startswith("<"):
            said = "a page of HTML"
        advice = _http.ADVICE.get(kind)
        message = what + (f": {said}" if said else "") + (f" ({advice})" if advice else "")
        fields["excerpt"] = self.quote(problem.message) or None
        code = problem.code or problem.type
        fields["code"] = self.quote(code, 64) if code else None
        return error_class(kind)(message, kind=kind, retry_after=retry_after, **self._facts(**fields))

    def _facts(self, **fields: Any) -> dict[str, Any]:
        return {"provider": self.provider, **fields}


def _stated_wait(data: Mapping[str, Any]) -> float | None:
    """A ``retry_after`` member of an error object, in seconds."""
    inner: Any = data.get("error")
    places: list[Any] = [data, inner] if isinstance(inner, Mapping) else [data]
    for place in places:
        value: Any = place.get("retry_after")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= _http.MAX_WAIT:
            return float(value)
    return None
