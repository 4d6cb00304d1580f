"""What a plugin may say about each of its hooks, and which of it a hook allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import attrs

from bifrost_core.hookspecs import HOOKS, Rule

__all__ = ["POLICIES", "HookOptions", "Policy"]

OnError = Literal["closed", "open"]


@attrs.frozen(kw_only=True)
class HookOptions:
    """How one hook of one plugin is treated.

    A plugin has them by hook name::

        hook_options: ClassVar[Mapping[str, HookOptions]] = {"bifrost_reserve": HookOptions(on_error="open")}

    Attributes:
        timeout: Seconds that the hook may take when it waits; None: as long as the call's deadline. A hook
            that does not wait is never interrupted. Of ``bifrost_lifespan``: for entering, and for leaving.
        on_error: ``"closed"``: a failure fails the call; ``"open"``: it is logged and the call goes on. None:
            as the hook has it.
        checks: The plugin only looks: returning something changed is a failure.
        thread: The implementation blocks: run it in a worker thread.
        stream: Of ``bifrost_guard_response`` in a plugin without a stream filter: ``"buffer"`` holds a
            streamed answer back until it is judged, ``"off"`` lets it through unjudged.
    """

    timeout: float | Literal["default"] | None = "default"
    on_error: OnError | None = None
    checks: bool = False
    thread: bool = False
    stream: Literal["buffer", "off"] = "buffer"


@attrs.frozen
class Policy:
    """What a hook does when a plugin fails, and what a plugin may choose.

    Attributes:
        on_error: What a failure does.
        may: What a plugin may set it to.
        timeout: Seconds that an implementation may wait; None where it can not.
        may_check: Whether ``checks`` means anything.
        may_rest: Whether it is switched off for a while after many failures in a row, when open.
    """

    on_error: OnError
    may: tuple[OnError, ...]
    timeout: float | None = 0.5
    may_check: bool = False
    may_rest: bool = True


_CLOSED: Final[tuple[OnError, ...]] = ("closed",)
_OPEN: Final[tuple[OnError, ...]] = ("open",)
_EITHER: Final[tuple[OnError, ...]] = ("closed", "open")

POLICIES: Final[Mapping[str, Policy]] = MappingProxyType(
    {
        "bifrost_authenticate": Policy("closed", _CLOSED),
        "bifrost_authorize": Policy("closed", _CLOSED),
        "bifrost_guard_request": Policy("closed", _EITHER, timeout=5.0, may_check=True),  # open: only checking ones
        "bifrost_cached_response": Policy("open", _EITHER),
        "bifrost_select_routes": Policy("open", _EITHER),
        "bifrost_pick_route": Policy("open", _EITHER, timeout=None),
        "bifrost_reserve": Policy("closed", _EITHER),
        "bifrost_attempt_finished": Policy("open", _OPEN, timeout=2.0, may_rest=False),  # settles what was held
        "bifrost_stream_filter": Policy("closed", _EITHER, timeout=None),
        "bifrost_guard_response": Policy("closed", _EITHER, timeout=5.0, may_check=True),
        "bifrost_recover": Policy("open", _OPEN),
        "bifrost_call_finished": Policy("open", _OPEN),
        "bifrost_lifespan": Policy("closed", _CLOSED, timeout=10.0),  # entering what it returns, and leaving
        "bifrost_providers": Policy("closed", _CLOSED, timeout=None),
        "bifrost_resolve_secret": Policy("closed", _CLOSED),
    }
)
"""By hook name."""


def option_mistakes(hook: str, options: Any, *, has_filter: bool) -> list[str]:
    """What is wrong with ``options`` for ``hook``, in words that complete "plugin X: hook …"."""
    if not isinstance(options, HookOptions):
        return [f"has {type(options).__name__} as its hook_options; pass HookOptions(…)"]
    policy = POLICIES[hook]
    mistakes: list[str] = []
    if options.on_error is not None and options.on_error not in policy.may:
        allowed = " or ".join(repr(value) for value in policy.may)
        mistakes.append(f"can not be set to on_error={options.on_error!r}; leave it out or say {allowed}")
    elif hook == "bifrost_guard_request" and options.on_error == "open" and not options.checks:
        # Going on with a request that was to be rewritten would send what the plugin takes out.
        mistakes.append('can be on_error="open" only where it just checks; add checks=True or leave on_error out')
    if options.checks and not policy.may_check:
        mistakes.append("neither checks nor rewrites anything; leave checks out")
    if options.thread and not HOOKS[hook].is_async:
        mistakes.append("never waits, not for a thread either; leave thread out")
    return [
        *mistakes,
        *_timeout_mistakes(hook, options.timeout),
        *_stream_mistakes(hook, options.stream, has_filter=has_filter),
    ]


def _stream_mistakes(hook: str, stream: str, *, has_filter: bool) -> list[str]:
    if stream == "buffer":
        return []
    if stream != "off":
        return [f'has stream={stream!r}; say "buffer" or "off"']
    if hook != "bifrost_guard_response":
        return ['knows no stream="off"; it belongs to bifrost_guard_response']
    if has_filter:
        return ['says stream="off" beside a bifrost_stream_filter, which sees the stream; drop one of them']
    return []


def _timeout_mistakes(hook: str, timeout: object) -> list[str]:
    if timeout == "default":
        return []
    if POLICIES[hook].timeout is None:
        return ["never waits and can not be interrupted; leave timeout out"]
    if timeout is None:
        return []
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        return [f"has timeout={timeout!r}; pass seconds or None"]
    if not (math.isfinite(timeout) and timeout > 0):
        return [f"has timeout={timeout!r}; seconds are finite and more than 0; None: as long as the call's deadline"]
    return []


def may_wrap(rule: Rule) -> bool:
    """Whether an implementation of such a hook may be a wrapper."""
    return rule in {Rule.GATE, Rule.PIPE, Rule.FIRST}
