"""One call from its first hook to its last: who calls, what is asked, the answer, how it ended.

A run lives in a task of its own inside the caller's task group, so that even a native cancellation of
the caller arrives as one that respects shields: connections are closed, holds settled and
``bifrost_call_finished`` called before the caller's task goes on its way. ``StreamRun`` differs in one
step only: what an attempt brings is handed out while it arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, cast

import anyio
import attrs

from .attempts import Attempt
from .cache_options import CacheMode, cache_option
from .calls import Call, CallRecord
from .errors import CallError, DeadlineExceededError, RefusedError
from .flights import SETTLE_SECONDS, Machinery
from .interruptions import ends_process
from .kinds import Kind
from .responses import Response, ResponsesResponse
from .responses_bodies import answer_to, shaped_body
from .routing import Routing
from .timeouts import Timeout
from .types import Operation, Request, Usage, message_dicts

__all__ = ["Run"]

_SCOPE_GRACE: Final = 0.1  # for a cancellation that is due to arrive


class Run(Routing):
    """One plain call.

    Args:
        machinery: Of the Router.
        call: Fresh; its request as the caller wrote it.
        timeout: Limits in force.

    Attributes:
        asked: The request as the caller wrote it.
        is_finished: Whether the call is over, its last hook included.
    """

    __slots__ = ("_finished", "_rewritten", "_started_at", "asked", "failure", "is_finished", "response")

    def __init__(self, machinery: Machinery, call: Call, timeout: Timeout) -> None:
        super().__init__(machinery, call, timeout)
        self.failure: BaseException | None = None
        self.response: Response | None = None
        self.is_finished = False
        self._finished: anyio.Event | None = None  # there once somebody waits for it
        self.asked = call.request
        self._rewritten: set[str] = set()  # what plugins changed, see ``CallRecord``
        self._started_at = machinery.clock.time()

    # -- life -----------------------------------------------------------------------------------

    async def main(self) -> None:
        """Run the call to its end; ``response`` or ``failure`` has the result. Raises cancellation only."""
        cancelled = False
        try:
            await self._run()
            if self.failure is not None:
                await self._recover()
        except BaseException:
            cancelled = True
            raise
        finally:
            if not cancelled and self.failure is None:  # hooks that are told of it are shielded where they wait
                if self.machinery.hooks.call_finished is not None:
                    await self._finish(cancelled=self._stopped)
            else:
                with anyio.CancelScope(shield=True, deadline=anyio.current_time() + SETTLE_SECONDS):
                    await self._finish(cancelled=cancelled)
            self.is_finished = True
            if self._finished is not None:
                self._finished.set()

    async def _run(self) -> None:
        try:
            with self._scope:
                self.response = self._echoed(await self._answer())
            if self.response is None:
                self.failure = self._cut_short()
        except Exception as exc:
            self.failure = exc
            now = anyio.current_time()
            if isinstance(exc, DeadlineExceededError) and self.call.deadline <= now < self._own_deadline:
                # The time of a scope of the caller's is up, not the call's: let that scope have its way.
                await anyio.sleep(_SCOPE_GRACE)
        except BaseException as exc:
            if not ends_process(exc):
                raise
            self._end_with(exc)

    def stop(self) -> None:
        """End the call now."""
        if not self.is_finished:
            self._stopped = True
            self._scope.cancel()

    @property
    def finished(self) -> anyio.Event:
        """Set when the call is over."""
        if self._finished is None:
            self._finished = anyio.Event()
            if self.is_finished:
                self._finished.set()
        return self._finished

    def result(self) -> Response:
        """The answer; raises what the call failed with."""
        if self.failure is not None:
            raise self.failure
        assert self.response is not None  # noqa: S101 # main sets one of the two
        return self.response

    # -- phases ---------------------------------------------------------------------------------

    async def _answer(self) -> Response:
        hooks, call = self.machinery.hooks, self.call
        if hooks.authenticate is None:
            call.request = self._shaped(call.request)
            call.fallbacks = call.fallbacks or self._standing_fallbacks()
        else:
            await self._authenticate()
        if hooks.authorize is not None:
            self._phase = "hook:bifrost_authorize"
            await hooks.authorize(call.request, call)
        if hooks.guard_request is not None:
            self._phase = "hook:bifrost_guard_request"
            await self._guard_request()
        if hooks.cached_response is not None:
            self._phase = "hook:bifrost_cached_response"
            cached = await hooks.cached_response(call.request, call)
            if cached is not None:
                cached = attrs.evolve(
                    cached,
                    cached=True,
                    cost=Decimal(0),
                    attempts=(),
                    latency=self.machinery.clock() - self._started,
                    time_to_first_token=None,
                    call_id=call.id,
                )
                return await self._guarded_cached(cached)
        if call.options and cache_option(call.options.get("cache")).mode is CacheMode.ONLY:
            # Here and not in a plugin, so that it holds without a cache and when the cache fails, too. 504 as in HTTP:
            # https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.7 (only-if-cached)
            raise RefusedError(
                'no cached answer, and cache="only" asks no provider; leave it out to ask one', http_status=504
            )
        return await self._guarded(await self._attempts())

    async def _authenticate(self) -> None:
        """Phase 1, in which a plugin may decide what a bare model name means that several providers serve."""
        hooks, call = self.machinery.hooks, self.call
        assert hooks.authenticate is not None  # noqa: S101 # asked before
        call.choices = () if self._is_helper else self.machinery.catalog.choices(call.request.model)
        call.request = self._shaped(call.request, named=not call.choices)
        self._phase = "hook:bifrost_authenticate"
        if not call.choices:
            call.fallbacks = call.fallbacks or self._standing_fallbacks()
            call.principal = await hooks.authenticate(call)
            return
        asked_for = call.fallbacks
        call.principal = await hooks.authenticate(call)
        call.request = self._shaped(call.request)
        if not asked_for:
            call.fallbacks = (*call.fallbacks, *self._standing_fallbacks())

    def _shaped(self, request: Request, *, named: bool = True) -> Request:
        """The request with its model's full name, where it is certain, and its messages or input items as a list of dicts."""
        name = "/".join(self._resolved(request.model)) if named else request.model
        body = request.body
        messages = body.get("messages")
        if messages is not None and not _is_shaped(messages):
            body = {**body, "messages": message_dicts(messages)}
        if request.operation is Operation.RESPONSES:
            body = shaped_body(body)
        return Request(request.operation, name, body, request.files, request.stream)

    def _standing_fallbacks(self) -> tuple[str, ...]:
        return self.machinery.fallbacks.get(self.call.request.model, ())

    async def _guard_request(self) -> None:
        hooks, call = self.machinery.hooks, self.call
        assert hooks.guard_request is not None  # noqa: S101 # asked before
        before = call.request
        after = await hooks.guard_request(before, call)
        if after is before:
            return
        self._rewritten.add("request")
        call.request = self._shaped(after)
        if call.request.model != before.model and hooks.authorize is not None:
            await hooks.authorize(call.request, call)

    async def _guarded_cached(self, response: Response) -> Response:
        """Phase 9 of an answer from a cache."""
        return await self._guarded(response)

    async def _guarded(self, response: Response) -> Response:
        """Phase 9."""
        guard = self.machinery.hooks.guard_response
        if guard is None:
            return response
        self._phase = "hook:bifrost_guard_response"
        return self._seen(response, await guard(response, self.call))

    def _seen(self, before: Response, after: Response) -> Response:
        """The answer that plugins gave back; notes whether they changed it."""
        if after is not before:
            self._rewritten.add("response")
        return after

    # -- the end --------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Phase 10: plugins may make an answer of an error, as long as nothing of another is out."""
        hooks, error = self.machinery.hooks, self.failure
        if not isinstance(error, CallError):
            return
        self._stamp(error)
        if hooks.recover is None or self._stopped or self._has_delivered():
            return
        try:
            with anyio.CancelScope() as self._scope:  # which ``stop`` ends, as it does the one before
                recovered = await hooks.recover(error, self.call)
                if recovered is not None:
                    self.failure = None
                    self._rewritten.add("recovered")
                    self.response = self._echoed(self._stamped(recovered))
                    await self._recovered(self.response)
        except BaseException as exc:
            if not ends_process(exc):
                raise
            self._end_with(exc)
        if self._scope.cancelled_caught:
            self.failure, self.response = self._cut_short(), None

    async def _finish(self, *, cancelled: bool) -> None:
        """Phase 11."""
        call_finished = self.machinery.hooks.call_finished
        if isinstance(self.failure, CallError):
            self._stamp(self.failure)
        if call_finished is None:
            return
        try:
            await call_finished(self._record(cancelled=cancelled or self._stopped), self.call)
        except BaseException as exc:
            if cancelled or not ends_process(exc):
                raise
            self._end_with(exc)

    def _end_with(self, end: BaseException) -> None:
        """The end of the process goes on in the caller's task, once this call is settled."""
        self.failure = end
        self._stopped = True

    def _has_delivered(self) -> bool:
        """Whether the caller has been given a part of an answer."""
        return False

    async def _recovered(self, response: Response) -> None:
        """Hand out an answer that a plugin made of an error; a plain call returns it."""

    def _stamp(self, error: CallError) -> None:
        call = self.call
        error.call_id = error.call_id or call.id
        error.model = error.model or call.request.model
        error.attempts = call.attempts
        if error.retry_after is None and call.attempts:
            error.retry_after = self._opens_in()

    def _echoed(self, response: Response) -> Response:
        """The answer with what the Responses shape owes to the request: this caller's own, a cached answer too."""
        if not isinstance(response, ResponsesResponse):
            return response
        return answer_to(self.asked.body, response)

    def _record(self, *, cancelled: bool) -> CallRecord:
        call, error, response = self.call, self.failure, self.response
        kind = error.kind if isinstance(error, CallError) else None
        if cancelled:
            outcome, kind = "cancelled", Kind.CANCELLED
        elif error is None:
            outcome = "ok"
        else:
            outcome = "refused" if isinstance(error, RefusedError) else "failed"
        usage, cost = _sum(call.attempts)
        first = self.first_token_at
        return CallRecord(
            call_id=call.id,
            operation=call.operation,
            model=call.request.model if "/" in call.request.model else self.asked.model,
            principal=call.principal,
            outcome=outcome,
            kind=kind,
            response=response,
            error=error if isinstance(error, Exception) else None,
            attempts=call.attempts,
            usage=usage,
            cost=cost,
            cached=response is not None and response.cached,
            started_at=self._started_at,
            latency=self.machinery.clock() - self._started,
            time_to_first_token=None if first is None else first - self._started,
            metadata=call.metadata,
            rewritten=frozenset(self._rewritten),
        )


def _is_shaped(messages: object) -> bool:
    """Whether it is a list of messages as dicts already."""
    if type(messages) is not list or not messages:
        return False
    return all(type(message) is dict and "role" in message for message in cast("list[object]", messages))


def _sum(attempts: Sequence[Attempt]) -> tuple[Usage, Decimal | None]:
    """Usage and cost over all attempts; the cost of one unknown, the sum unknown."""
    usage, cost = Usage(), Decimal(0)
    known = True
    for attempt in attempts:
        if attempt.usage is None:
            continue
        usage = usage + attempt.usage if usage != Usage() else attempt.usage
        if attempt.cost is None:
            known = False
        else:
            cost += attempt.cost
    return usage, cost if known else None
