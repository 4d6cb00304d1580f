"""The faults that are measured, each on one key of three or in part of all requests."""

from __future__ import annotations

from typing import Final

import attrs

from bifrost_core.testing import Fault, Latency, SimulatedKey

__all__ = ["KEYS", "SITUATIONS", "TEXT", "Situation"]

KEYS: Final = ("sk-simulated-one", "sk-simulated-two", "sk-simulated-three")
TEXT: Final = " ".join(f"word{number}" for number in range(12)) + " end."
_LATENCY: Final = Latency(0.02, sigma=0.2, tokens_per_second=2_000)


@attrs.frozen
class Situation:
    """One kind of failure.

    Attributes:
        name: In the table.
        fault: What the service does; None: nothing, which is what the others are compared with.
        stream: Whether streams are asked for.
    """

    name: str
    fault: Fault | None
    stream: bool = False

    def keys(self, share: float | None) -> list[SimulatedKey]:
        """The service's keys.

        Args:
            share: Part of all keys' requests that meet the fault; None: all requests of the first key, and no other.
        """
        made: list[SimulatedKey] = []
        for number, secret in enumerate(KEYS):
            faults: tuple[Fault, ...] = ()
            if self.fault is not None and share is not None:
                faults = (attrs.evolve(self.fault, probability=share),)
            elif self.fault is not None and number == 0:
                faults = (self.fault,)
            made.append(SimulatedKey(secret, id=secret, latency=_LATENCY, faults=faults))
        return made


def _status(status: int, **more: object) -> Fault:
    return Fault("status", status=status, **more)  # type: ignore[arg-type] # fields of a fault by name


SITUATIONS: Final = (
    Situation("nothing", None),
    Situation("401", _status(401)),
    Situation("402", _status(402)),
    Situation("403", _status(403)),
    Situation("429", _status(429)),
    Situation("429, wait 2 s", _status(429, headers={"retry-after": "2"})),
    Situation("429, limit 0", _status(429, headers={"x-ratelimit-limit-req-minute": "0"})),
    Situation("500", _status(500)),
    Situation("503", _status(503)),
    Situation("504", _status(504)),
    Situation("302", _status(302, headers={"location": "/elsewhere"})),
    Situation("silence", Fault("hang")),
    Situation("reset", Fault("reset")),
    Situation("closed", Fault("close")),
    Situation("half a head", Fault("half_head")),
    Situation("not HTTP", Fault("garbage")),
    Situation("web page", Fault("html")),
    Situation("empty", Fault("empty")),
    Situation("not JSON", Fault("not_json")),
    Situation("half a body", Fault("half_body")),
    Situation("gzip unasked", Fault("gzip")),
    Situation("nothing, stream", None, stream=True),
    Situation("503, stream", _status(503), stream=True),
    Situation("silence, stream", Fault("hang"), stream=True),
    Situation("only comments", Fault("comments_only", after=0), stream=True),
    Situation("error event at first", Fault("error_event", after=0), stream=True),
    Situation("cut at first", Fault("truncate", after=0), stream=True),
    Situation("cut later", Fault("truncate", after=5), stream=True),
    Situation("reset later", Fault("reset", after=5), stream=True),
    Situation("silence later", Fault("hang", after=5), stream=True),
    Situation("error event later", Fault("error_event", after=5), stream=True),
)
