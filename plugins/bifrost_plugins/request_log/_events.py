"""What a call leaves behind, and the event that is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias, cast

import attrs

from bifrost_core import Call, Principal, RouteRef, Secret, Usage
from bifrost_core.types import message_text

from ._masking import masker

__all__ = ["Event", "Snapshot", "answer_text", "to_event", "verdicts_of"]

Event: TypeAlias = dict[str, Any]

MAX_TEXT = 65_536
"""Characters kept of any one text in an event."""

_MAX_DEPTH = 8
_MAX_MEMBERS = 256
_MAX_NAME = 256

_AttemptRow = tuple[
    str, RouteRef, str | None, str | None, int | None, float | None, float | None, Usage | None, Decimal | None
]


@attrs.define(eq=False)
class Snapshot:
    """What a call leaves behind, taken when it ends.

    Values only: an answer or the traceback of an error would be kept alive by the queue.
    """

    call_id: str
    operation: str
    model: str
    principal: Principal | None
    outcome: str
    kind: str | None
    started_at: float
    latency: float | None
    time_to_first_token: float | None
    cached: bool
    usage: Usage
    cost: Decimal | None
    attempts: list[_AttemptRow]
    metadata: dict[str, Any]
    virtual_key: Secret | None
    verdicts: Sequence[object]
    prompt: Mapping[str, Any] | None
    answer: str | None
    content: bool


def _money(cost: Decimal | None) -> str | None:
    return None if cost is None else format(cost, "f")


def _usage(usage: Usage | None) -> dict[str, int | float] | None:
    """The counts that are not zero, by name."""
    if usage is None:
        return None
    counts: dict[str, int | float] = attrs.asdict(usage)
    return {name: count for name, count in counts.items() if count}


def _name(value: str | None) -> str | None:
    """The plain string of an enumeration's member."""
    return None if value is None else str(value)


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plain(value: object, mask: Callable[[str], str], depth: int = 0) -> object:
    """A value of the caller's as JSON: bounded in depth, width and length, secrets masked."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= 64 else "<int>"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (str, Decimal, Secret)):
        return mask(str(value))[:MAX_TEXT]
    name = type(value).__name__
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        members = list(cast("Mapping[object, object]", value).items())[:_MAX_MEMBERS]
        return {mask(str(name))[:MAX_TEXT]: _plain(member, mask, depth + 1) for name, member in members}
    if isinstance(value, (list, tuple, set, frozenset)) and depth < _MAX_DEPTH:
        return [_plain(member, mask, depth + 1) for member in list(cast("Sequence[object]", value))[:_MAX_MEMBERS]]
    return f"<{name}>"  # its repr could hold anything


def _attempt(row: _AttemptRow) -> Event:
    name, route, outcome, kind, status, latency, first, usage, cost = row
    return {
        "id": name,
        "provider": route.provider,
        "model": route.model,
        "key_id": route.key_id,
        "outcome": outcome,
        "kind": _name(kind),
        "status": status,
        "latency": _number(latency),
        "time_to_first_token": _number(first),
        "usage": _usage(usage),
        "cost": _money(cost),
    }


def _verdict(verdict: object, mask: Callable[[str], str]) -> Event:
    """What a guardrail found, in names alone: what it was is content."""
    found: Event = {}
    for name in ("plugin", "rule", "side", "action", "label"):
        value = getattr(verdict, name, None)
        found[name] = mask(value)[:_MAX_NAME] if isinstance(value, str) else None
    count = getattr(verdict, "count", None)
    found["count"] = count if isinstance(count, int) else 1
    return found


def _prompt(body: Mapping[str, Any]) -> Event:
    """The words of a request: its messages as role and text, its other texts by their names."""
    words: Event = {name: body[name] for name in ("input", "prompt", "suffix") if name in body}
    if "messages" in body:
        words["messages"] = [
            {"role": message.get("role"), "content": message_text(message.get("content"))}
            for message in body["messages"]
        ]
    return words


def to_event(snapshot: Snapshot) -> Event:
    mask = masker(snapshot.virtual_key)
    principal = snapshot.principal
    event: Event = {
        "call_id": snapshot.call_id,
        "operation": _name(snapshot.operation),
        "model": mask(snapshot.model)[:MAX_TEXT],
        "principal": None if principal is None else principal.id,
        "tenant": None if principal is None else principal.tenant,
        "virtual_key": None if principal is None else principal.virtual_key_id,
        "outcome": snapshot.outcome,
        "kind": _name(snapshot.kind),
        "started_at": datetime.fromtimestamp(snapshot.started_at, UTC).isoformat(timespec="milliseconds"),
        "latency": _number(snapshot.latency),
        "time_to_first_token": _number(snapshot.time_to_first_token),
        "cached": snapshot.cached,
        "usage": _usage(snapshot.usage),
        "cost": _money(snapshot.cost),
        "attempts": [_attempt(row) for row in snapshot.attempts],
        "verdicts": [_verdict(verdict, mask) for verdict in snapshot.verdicts[:_MAX_MEMBERS]],
        "metadata": _plain(snapshot.metadata, mask),
    }
    if snapshot.content:
        event["prompt"] = None if snapshot.prompt is None else _plain(_prompt(snapshot.prompt), mask)
        event["answer"] = None if snapshot.answer is None else mask(snapshot.answer)[:MAX_TEXT]
    return event


def answer_text(response: object) -> str | None:
    """The text of an answer of any kind; None where it has none."""
    for name in ("text", "output_text"):
        text = getattr(response, name, None)
        if isinstance(text, str):
            return text
    return None


def verdicts_of(call: Call) -> list[object]:
    """What guardrails found in a call: what any plugin keeps as ``verdicts`` of its state for the call."""
    found: list[object] = []
    for state in call.state.values():
        verdicts: object = getattr(state, "verdicts", None)
        if isinstance(verdicts, (list, tuple)):
            found += cast("Sequence[object]", verdicts)
    return found
