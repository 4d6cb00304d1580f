"""One plugin's implementation of one hook: how it is called, how long it may take, what its failure means.

The chains drive these. What is done here happens on slow paths only: when an implementation waits,
fails or has failed.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from inspect import iscoroutine
from typing import Any, Final

import anyio
import anyio.lowlevel
import attrs

from bifrost_core.calls import Call
from bifrost_core.clocks import Clock
from bifrost_core.errors import CallError, DeadlineExceededError, PluginError
from bifrost_core.hookspecs import Hook, Rule
from bifrost_core.interruptions import is_interruption
from bifrost_core.kinds import Kind

from .options import HookOptions, Policy

__all__ = ["FAILURES_IN_A_ROW", "REST", "Implementation", "WrongTypeError"]

FAILURES_IN_A_ROW: Final = 20
"""So many failures in a row switch an open implementation off."""

REST: Final = 60.0
"""Seconds that it stays off."""

_DECIDING: Final = frozenset({Rule.GATE, Rule.PIPE})

_logger = logging.getLogger(__name__)


class WrongTypeError(TypeError):
    """An implementation returned what its hook does not take. Names types, never values."""


class _TookTooLongError(TimeoutError):
    """An implementation's own time is up."""


class _CallOverError(TimeoutError):
    """The call's deadline came before the implementation's own."""


def _place(error: BaseException) -> str:
    """Where ``error`` was raised. Its text may hold a prompt or a secret, so a log gets this instead."""
    if isinstance(error, (WrongTypeError, _TookTooLongError)):  # raised here
        return ""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f" (raised at {frame.f_code.co_filename}:{line})"


@attrs.define(eq=False)
class Implementation:
    """One implementation of one hook.

    Attributes:
        plugin: Name of the plugin.
        hook: The hook.
        invoke: Calls it with subject and call, whatever it takes of them.
        never_waits: It is a coroutine function without an ``await``: awaiting it needs no time cap.
        closed: A failure fails the call.
        timeout: Seconds that it may wait; None: until the call's deadline.
        accept: Takes a result that is not None and the subject; gives the result to go on with, or raises
            ``WrongTypeError``.
        may_rest: It is switched off for a while when it keeps failing.
        clock: Measures that while.
        is_wrapper: It is a generator around the others.
        least: Seconds that settling may always take.
        streak: Failures in a row. Chains reset it on a success.
        failures: Failures ever.
    """

    plugin: str
    hook: Hook
    invoke: Callable[[Any, Any], Any]
    never_waits: bool
    closed: bool
    timeout: float | None
    accept: Callable[[Any, Any], Any]
    may_rest: bool
    clock: Clock
    is_wrapper: bool = False
    least: float = 0.0
    streak: int = 0
    failures: int = 0
    _off_until: float = float("-inf")

    @classmethod
    def build(
        cls,
        plugin: str,
        hook: Hook,
        invoke: Callable[[Any, Any], Any],
        *,
        accept: Callable[[Any, Any], Any],
        never_waits: bool,
        options: HookOptions,
        policy: Policy,
        clock: Clock,
        is_wrapper: bool = False,
    ) -> Implementation:
        """Put together what the plugin says and what the hook says."""
        closed = (options.on_error or policy.on_error) == "closed"
        return cls(
            plugin=plugin,
            hook=hook,
            invoke=invoke,
            never_waits=never_waits,
            closed=closed,
            timeout=policy.timeout if options.timeout == "default" else options.timeout,
            accept=accept,
            may_rest=policy.may_rest and not closed,
            clock=clock,
            is_wrapper=is_wrapper,
            least=policy.timeout or 0.0,
        )

    def is_off(self) -> bool:
        """Whether it is switched off at the moment."""
        return self.may_rest and self.streak >= FAILURES_IN_A_ROW and self.clock() < self._off_until

    async def wait(self, awaitable: Awaitable[Any], call: Call | None) -> Any:
        """Wait for what the implementation returned, within its time cap.

        Raises:
            TimeoutError: The implementation's time, or the call's, is up.
        """
        last = call.deadline if call is not None else float("inf")
        settles = self.hook.rule is Rule.NOTIFY
        now = anyio.current_time()
        if self.timeout is not None:
            deadline = now + self.timeout
            if not settles:
                deadline = min(deadline, last)
        elif settles:
            deadline = max(last, now + self.least)
        else:
            deadline = last
        # What settles and what is told how a call ended runs to its end in a cancelled call as well.
        with anyio.CancelScope(deadline=deadline, shield=settles) as scope:
            result = await awaitable
            if not scope.cancel_called:  # one that held up its own cancellation is late all the same
                await anyio.lowlevel.checkpoint_if_cancelled()  # and so is one that held up the call's
                return result
        if deadline == last and not settles:
            raise _CallOverError
        raise _TookTooLongError

    def must_raise(self, error: BaseException, call: Call | None) -> bool:
        """Judge what the implementation raised.

        Returns:
            True: ``error`` is to go on as it is. False: it has been logged; go on as if the
            implementation were not there.

        Raises:
            PluginError: It is a failure, and the hook closes.
            DeadlineExceededError: The call's time is up.
        """
        if is_interruption(error):
            return True
        if self._is_decision(error, call):
            self.streak = 0
            return True
        if isinstance(error, _CallOverError):
            if self.hook.name == "bifrost_recover":  # mostly called because that time is up: no fault of the plugin's
                _logger.info("plugin %s: %s had no time left", self.plugin, self.hook.name)
                return False
            raise DeadlineExceededError(
                f"the call's time was up while plugin {self.plugin} was in {self.hook.name}",
                phase=f"hook:{self.hook.name}",
            ) from None
        if not self.closed:
            self.note(error)
            return False
        self._count()
        raise PluginError(  # quotes nothing of ``error``, which may hold a prompt
            f"{self._what(error)}; the hook fails closed",
            plugin=self.plugin,
            hook=self.hook.name,
            kind=Kind.GUARDRAIL_BLOCKED if self.hook.name == "bifrost_stream_filter" else Kind.PLUGIN_ERROR,
        ) from error

    def note(self, error: BaseException) -> None:
        """Count and log a failure that changes nothing for the call."""
        self._count()
        _logger.warning("%s; left out%s", self._what(error), _place(error))

    def _what(self, error: BaseException) -> str:
        return f"plugin {self.plugin}: {self.hook.name} {self.fault(error)}"

    def fault(self, error: BaseException) -> str:
        """What ``error`` says about the implementation, in words that follow the hook's name."""
        if isinstance(error, WrongTypeError):
            return str(error)
        if isinstance(error, _TookTooLongError):
            return f"took longer than {self.timeout or self.least:g} s (HookOptions(timeout=…) changes that)"
        return f"failed with {type(error).__name__}"

    def _is_decision(self, error: BaseException, call: Call | None) -> bool:
        """Whether ``error`` is what the plugin decided about this call, not a failure of its own."""
        if not isinstance(error, CallError) or call is None:
            return False
        if not (self.closed or self.hook.rule in _DECIDING or self.hook.name == "bifrost_stream_filter"):
            return False
        # The error of another call that the plugin made itself (a moderation, an embedding) is a failure.
        return not error.call_id or error.call_id == call.id

    def _count(self) -> None:
        self.failures += 1
        self.streak += 1
        if self.streak < FAILURES_IN_A_ROW:
            return
        if not self.may_rest:
            if self.streak == FAILURES_IN_A_ROW:
                _logger.error("plugin %s: %s failed %d times in a row", self.plugin, self.hook.name, FAILURES_IN_A_ROW)
        elif self.clock() >= self._off_until:  # calls that were under way then do not prolong it
            self._off_until = self.clock() + REST
            _logger.error(
                "plugin %s: %s failed %d times in a row and is switched off for %g s",
                self.plugin,
                self.hook.name,
                self.streak,
                REST,
            )


def drop(result: Any) -> None:
    """Close a coroutine that nobody will await, so that Python does not warn about it."""
    if iscoroutine(result):
        result.close()
