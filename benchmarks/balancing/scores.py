"""What a run comes to, in figures.

=========== ==========================================================================================================
cost        of a request: its latency in seconds, repeats included, and 30 more if the caller saw an error
score       square root of (mean cost x p99 of the cost), over the same of the all-knowing choice; 1 is as good
errors      part of the requests whose caller saw one
leave       seconds from a key's turn to the bad until at most a tenth of its former share goes to it, both over the
            next ten seconds or twenty requests and over all of its bad time that is left
return      seconds from its turn to the good until it has, over ten seconds or twenty requests, half of its former
            share again
fairness    largest share of keys that are alike, over the smallest
=========== ==========================================================================================================
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs

from .runs import Served
from .scenarios import Event, Scenario

__all__ = ["Figures", "percentile", "ratio", "score", "to_figures"]

_ERROR_COST: Final = 30.0
_LEFT: Final = 0.10
_BACK: Final = 0.50
_WINDOW, _WINDOW_REQUESTS = 10.0, 20


@attrs.frozen(kw_only=True)
class Figures:
    """What a run came to; see the module. Times are in seconds; None: there is nothing to measure it by.

    Attributes:
        requests: How many.
        mean: Of the cost.
        p50: Median of the cost.
        p95: Of the cost.
        p99: Of the cost.
        errors: Part of the requests, 0 to 1.
        leave: The longest, where several keys turned bad; infinite: traffic never left.
        come_back: The longest; infinite: it never came back.
        fairness: Of keys that are alike.
    """

    requests: int
    mean: float
    p50: float
    p95: float
    p99: float
    errors: float
    leave: float | None
    come_back: float | None
    fairness: float | None


def to_figures(scenario: Scenario, rows: Sequence[Served]) -> Figures:
    """Work out the figures of a run; ``rows`` are not empty."""
    costs = sorted(row.seconds + (_ERROR_COST if row.error else 0.0) for row in rows)
    picks = sorted((each.at, each.key) for row in rows for each in row.tries)
    script = scenario.script
    leaves = [_leave(event, _end_of(event, scenario), picks) for event in script.events if event.turns == "bad"]
    returns = [_return(event, script.events, picks) for event in script.events if event.turns == "good"]
    return Figures(
        requests=len(rows),
        mean=sum(costs) / len(costs),
        p50=percentile(costs, 0.50),
        p95=percentile(costs, 0.95),
        p99=percentile(costs, 0.99),
        errors=sum(row.error is not None for row in rows) / len(rows),
        leave=max(leaves, default=None),
        come_back=max(returns, default=None),
        fairness=_fairness(script.equals, picks),
    )


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value that ``part`` of the values do not exceed.

    Args:
        ordered: Not empty, ascending.
        part: 0 to 1.
    """
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def score(figures: Figures, best: Figures) -> float:
    """How much worse than the all-knowing choice; see the module."""
    return math.sqrt(ratio(figures.mean, best.mean) * ratio(figures.p99, best.p99))


def ratio(value: float, base: float) -> float:
    """``value / base``; 1 where both are 0."""
    return value / base if base else 1.0 if not value else math.inf


_Picks = Sequence[tuple[float, str]]


def _share(picks: _Picks, key: str, start: float, end: float) -> float:
    """Part of the attempts from ``start`` to before ``end`` that went to a key; 0 without any."""
    part = picks[bisect_left(picks, (start, "")) : bisect_left(picks, (end, ""))]
    return sum(name == key for _, name in part) / len(part) if part else 0.0


def _end_of(event: Event, scenario: Scenario) -> float:
    """When the key's next event is, or the end of everything."""
    later = (other.at for other in scenario.script.events if other.key == event.key and other.at > event.at)
    return min(later, default=scenario.seconds)


def _leave(event: Event, end: float, picks: _Picks) -> float:
    part = picks[bisect_left(picks, (event.at, "")) : bisect_left(picks, (end, ""))]
    allowed = _LEFT * _share(picks, event.key, 0.0, event.at)
    here = [0]  # attempts on the key among the first so many
    for _, name in part:
        here.append(here[-1] + (name == event.key))
    for place in range(len(part) - _WINDOW_REQUESTS + 1):
        at = event.at if not place else part[place - 1][0]
        if place and part[place - 1][1] != event.key:
            continue
        last = min(len(part), max(bisect_left(part, (at + _WINDOW, "")), place + _WINDOW_REQUESTS))
        is_gone = here[last] - here[place] <= allowed * (last - place)
        if is_gone and here[-1] - here[place] <= allowed * (len(part) - place):
            return at - event.at
    return math.inf


def _return(event: Event, events: Sequence[Event], picks: _Picks) -> float:
    bad = max(other.at for other in events if other.key == event.key and other.turns == "bad" and other.at < event.at)
    wanted = _BACK * _share(picks, event.key, 0.0, bad)
    first = bisect_left(picks, (event.at, ""))
    for place in range(first, len(picks)):
        at, name = picks[place]
        if name != event.key:
            continue
        last = max(bisect_left(picks, (at + _WINDOW, "")), place + _WINDOW_REQUESTS)
        if last > len(picks):
            break
        if sum(other == event.key for _, other in picks[place:last]) >= wanted * (last - place):
            return at - event.at
    return math.inf


def _fairness(alike: Sequence[str], picks: _Picks) -> float | None:
    if len(alike) < 2:
        return None
    counts = Counter(name for _, name in picks)
    least = min(counts[key] for key in alike)
    return max(counts[key] for key in alike) / least if least else math.inf
