"""Who chooses: the library's balancers, one of the user's own, and one that knows everything."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from bifrost_core import (
    Balancer,
    Call,
    LatencyWeighted,
    LeastBusy,
    LowestLatency,
    RoundRobin,
    Route,
    WeightedRandom,
    hookimpl,
)
from bifrost_core.testing import Outlook, Simulated

__all__ = ["ALL_KNOWING", "BALANCERS", "AllKnowing", "ChooserError", "find_balancer"]

ALL_KNOWING: Final = "all-knowing"

BALANCERS: Final[dict[str, Callable[..., Balancer]]] = {
    cls.__name__: cls for cls in (LatencyWeighted, RoundRobin, WeightedRandom, LeastBusy, LowestLatency)
}

_REFUSED: Final = 1e6  # seconds: any key that lets the request in is better
_PAUSE: Final = 0.125  # seconds: mean backoff before the first repeat
_ALIKE: Final = 1e-9


class ChooserError(Exception):
    """There is no such balancer; says why in one line."""


def find_balancer(name: str) -> Callable[..., Balancer]:
    """The balancer of that name.

    Args:
        name: One of the library's, or ``module:Class`` of anything a ``Router`` takes as ``balancer``.

    Raises:
        ChooserError: There is none.
    """
    if name in BALANCERS:
        return BALANCERS[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise ChooserError(f"no balancer {name!r}: give one of {', '.join(BALANCERS)}, or module:Class")
    try:
        found: object = importlib.import_module(module_name)
    except ImportError as exc:
        raise ChooserError(f"no balancer {name!r}: {exc}") from exc
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ChooserError(f"no balancer {name!r}: {module_name} has no class {attribute!r}")
    return found


@attrs.define(eq=False)
class AllKnowing:
    """A plugin that chooses greedily by what each key would do with this request now, chance left out.

    It knows every key's law, its faults and the windows in which they hold, what is left of its limits, who waits for
    a slot and whose prompt is in which cache. It does not know what a draw will bring, and it does not plan ahead:
    each request goes where it will cost least. Of equal keys the one with fewer requests in flight is taken, then the
    one that was taken less often.

    Attributes:
        simulated: The provider that it sees through.
        patience: Seconds that the caller waits for an attempt.
    """

    simulated: Simulated
    patience: float
    _taken: Counter[str] = attrs.field(factory=Counter[str], init=False)

    @hookimpl
    def bifrost_pick_route(self, routes: tuple[Route, ...], call: Call) -> Route:
        """The route of the least expected cost in seconds."""
        body = call.request.body
        looks = [
            self.simulated.outlook(
                route.key_id,
                route.model,
                output_tokens=body["max_tokens"],
                prompt_cache_key=body.get("prompt_cache_key"),
                stream=call.request.stream,
            )
            for route in routes
        ]
        costs = [self._cost(looks, place) for place in range(len(looks))]
        least = min(costs) * (1.0 + _ALIKE)
        best = [place for place, cost in enumerate(costs) if cost <= least or math.isinf(least)]
        chosen = min(best, key=lambda place: (looks[place].in_flight, self._taken[routes[place].key_id]))
        self._taken[routes[chosen].key_id] += 1
        return routes[chosen]

    def _cost(self, looks: Sequence[Outlook], place: int) -> float:
        """Expected seconds of a request that is sent to one of the keys first and, if that fails, to another."""
        look = looks[place]
        cost = min(look.seconds, self.patience)
        if look.failure:
            lost = min(look.failure_seconds, self.patience)
            others = [
                (1.0 - other.failure) * other.seconds + other.failure * self.patience
                for at, other in enumerate(looks)
                if at != place
            ]
            lost += _PAUSE + min(others, default=self.patience)
            cost = (1.0 - look.failure) * cost + look.failure * lost
        return cost + (_REFUSED + look.refused_for if look.refused_for else 0.0)
