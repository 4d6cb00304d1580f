"""The requests of a situation: drawn from a law, or replayed from a trace.

A trace is a text file with one JSON object per line, in any order. Two forms are understood:

- ``{"at": 12.5, "input_tokens": 300, "output_tokens": 120, "session": "s1", "model": "m"}``: ``at`` is seconds
  from any origin, or an ISO 8601 time; ``session`` and ``model`` may be missing;
- what the plugin ``request_log`` writes: ``started_at``, ``usage`` and ``model`` are read, and ``session`` from its
  ``metadata``. Calls that a cache answered are left out, as no key saw them. Where the log has no count (a call
  that failed), 300 input and 120 output tokens are taken.

The replay starts at the first request. Each model is a pool of its own, as in the Router.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import attrs
import msgspec

__all__ = ["MEAN_INPUT", "MEAN_OUTPUT", "Ask", "TraceError", "draw_asks", "read_trace"]

MODEL: Final = "model"
_INPUT, _OUTPUT = 300.0, 120.0  # medians, in tokens
_SPREAD: Final = 0.6  # standard deviation of the logarithm of both
_LEAST, _MOST = 8, 600
MEAN_INPUT: Final = _INPUT * math.exp(_SPREAD**2 / 2)
MEAN_OUTPUT: Final = _OUTPUT * math.exp(_SPREAD**2 / 2)
_TRACE_MOST: Final = 100_000  # tokens of one request


class TraceError(Exception):
    """A trace can not be read; says where and why in one line."""


@attrs.frozen
class Ask:
    """One request.

    Attributes:
        at: Seconds since the start.
        input_tokens: Of the prompt.
        output_tokens: Of the answer.
        session: Requests of one session share the beginning of their prompts.
        model: Its name at the provider.
    """

    at: float
    input_tokens: int
    output_tokens: int
    session: str | None = None
    model: str = MODEL


def draw_asks(rng: random.Random, *, rate: float, seconds: float, sessions: int = 0, scale: float = 1.0) -> list[Ask]:
    """Requests at random times with lognormal lengths.

    Args:
        rng: Source of everything.
        rate: Requests per second, a Poisson process.
        seconds: How long they come.
        sessions: How many sessions are open at a time, each of some fifteen requests; 0: there are none.
        scale: Factor on the length of answers.
    """
    asks: list[Ask] = []
    names = [f"session-{number}" for number in range(sessions)]
    at = rng.expovariate(rate)
    while at < seconds:
        session = None
        if names:
            place = rng.randrange(len(names))
            if rng.random() < 1 / 15:
                names[place] = f"session-{len(asks) + sessions}"
            session = names[place]
        asks.append(Ask(at, _tokens(rng, _INPUT), _tokens(rng, _OUTPUT * scale), session))
        at += rng.expovariate(rate)
    return asks


def _tokens(rng: random.Random, median: float) -> int:
    return min(_MOST, max(_LEAST, round(median * math.exp(rng.normalvariate(0.0, _SPREAD)))))


def read_trace(path: Path) -> list[Ask]:
    """The requests of a trace, in order of time, the first at 0.

    Raises:
        TraceError: The file can not be read, or a line is wrong: names line and field.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8"
        raise TraceError(f"{path}: can not be read: {reason}") from None
    asks: list[Ask] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            ask = _read_line(line, f"{path}, line {number}")
            if ask is not None:
                asks.append(ask)
    if not asks:
        raise TraceError(f"{path}: holds no request")
    start = min(ask.at for ask in asks)
    return sorted((attrs.evolve(ask, at=ask.at - start) for ask in asks), key=lambda ask: ask.at)


def _read_line(line: str, where: str) -> Ask | None:
    try:
        found: Any = msgspec.json.decode(line)
    except msgspec.DecodeError:
        raise TraceError(f"{where}: is no JSON") from None
    if not isinstance(found, dict):
        raise TraceError(f"{where}: is no JSON object")
    entry = cast("dict[str, Any]", found)
    is_logged = "started_at" in entry and "at" not in entry
    if is_logged and entry.get("cached"):
        return None
    counts: Mapping[str, Any] = entry
    session = entry.get("session")
    if is_logged:
        usage = _mapping(entry, "usage", where)
        counts = {
            "input_tokens": usage.get("input_tokens", _INPUT),
            "output_tokens": usage.get("output_tokens", _OUTPUT),
        }
        session = _mapping(entry, "metadata", where).get("session")
    if session is not None and not isinstance(session, str):
        raise TraceError(f"{where}: session is no text")
    model = entry.get("model", MODEL)
    if not isinstance(model, str) or not model:
        raise TraceError(f"{where}: model is no text")
    return Ask(
        _time(entry, "started_at" if is_logged else "at", where),
        _count(counts, "input_tokens", where),
        _count(counts, "output_tokens", where),
        session,
        model.replace("/", "-"),  # the simulated provider's own models have no slash
    )


def _mapping(entry: Mapping[str, Any], field: str, where: str) -> Mapping[str, Any]:
    value = entry.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TraceError(f"{where}: {field} is no object")
    return cast("dict[str, Any]", value)


def _time(entry: Mapping[str, Any], field: str, where: str) -> float:
    value = entry.get(field)
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise TraceError(f"{where}: {field} is no ISO 8601 time: {value[:40]!r}") from None
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TraceError(f"{where}: {field} is missing or neither seconds nor an ISO 8601 time")
    return float(value)


def _count(entry: Mapping[str, Any], field: str, where: str) -> int:
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _TRACE_MOST:
        raise TraceError(f"{where}: {field} is no number from 0 to {_TRACE_MOST}")
    return max(1, round(value))
