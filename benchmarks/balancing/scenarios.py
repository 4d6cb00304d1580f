"""The situations: what the keys do, when, and what traffic comes.

Each is a function of a ``Size`` that returns a ``Script``. Times in it are parts of the whole, so that a
situation keeps its shape at any length. Figures of the keys are those of public chat APIs: half a second to the
first token, seventy tokens a second, a spread of 0.4.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from bifrost_core.testing import Fault, Latency, SimulatedKey

from .traffic import MEAN_INPUT, MEAN_OUTPUT, Ask, draw_asks

__all__ = ["SITUATIONS", "Event", "Scenario", "Script", "Situation", "Size", "make_scenario"]

_FIRST, _SPREAD, _SPEED = 0.5, 0.4, 70.0
_MEAN_TOKENS: Final = MEAN_INPUT + MEAN_OUTPUT + 30  # the request's other members count as input
_BAD, _GOOD = 0.2, 0.5  # where in a situation a key turns bad and recovers


def _all_keys(keys: Iterable[SimulatedKey]) -> tuple[SimulatedKey, ...]:
    return tuple(keys)


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


def _by_time(events: Iterable[Event]) -> tuple[Event, ...]:
    return tuple(sorted(events, key=lambda event: event.at))


@attrs.frozen
class Event:
    """Something that happens to a key.

    Attributes:
        at: Seconds since the start.
        key: Its id.
        what: In a word or two.
        turns: ``bad``: traffic should leave the key; ``good``: it should come back; None: neither is measured.
    """

    at: float
    key: str
    what: str
    turns: str | None = None


@attrs.frozen(kw_only=True)
class Script:
    """What a situation consists of, beside its requests.

    Attributes:
        keys: What they do.
        events: What happens to them, for the picture and for the times to leave and to return.
        late: When keys join that are not there from the start, by id.
        equals: Ids of keys that are alike throughout and should get the same shares.
        sessions: How many conversations go on at a time; 0: every request stands alone.
        scale: Factor on the length of answers.
        stream: Whether answers are streamed.
    """

    keys: tuple[SimulatedKey, ...] = attrs.field(converter=_all_keys)
    events: tuple[Event, ...] = attrs.field(default=(), converter=_by_time)
    late: Mapping[str, float] = attrs.field(factory=dict[str, float])
    equals: tuple[str, ...] = attrs.field(default=(), converter=_names)
    sessions: int = 0
    scale: float = 1.0
    stream: bool = False


@attrs.frozen(kw_only=True)
class Scenario:
    """One situation, ready to run.

    Attributes:
        name: As on the command line.
        about: One line.
        script: What the keys do.
        asks: What comes.
        seconds: How long it lasts.
    """

    name: str
    about: str
    script: Script
    asks: tuple[Ask, ...]
    seconds: float


@attrs.frozen(kw_only=True)
class Size:
    """How large a situation is made.

    Attributes:
        count: Keys, at least 2.
        rate: Requests per second.
        seconds: Length.
        tokens: Mean tokens of a request and its answer.
        rng: For what a situation leaves to chance.
    """

    count: int
    rate: float
    seconds: float
    tokens: float
    rng: random.Random

    @property
    def bad(self) -> float:
        """When a key turns bad."""
        return self.seconds * _BAD

    @property
    def good(self) -> float:
        """When it recovers."""
        return self.seconds * _GOOD


@attrs.frozen
class Situation:
    """How a situation is made, and its usual size."""

    make: Callable[[Size], Script]
    about: str
    count: int
    rate: float
    seconds: float


SITUATIONS: Final[dict[str, Situation]] = {}
"""By name, in the order of the table."""


def _situation(
    *, keys: int = 4, rate: float = 8.0, seconds: float = 210.0
) -> Callable[[Callable[[Size], Script]], Callable[[Size], Script]]:
    """Enter a situation under its function's name, with its usual number of keys, requests per second and length."""

    def enter(make: Callable[[Size], Script]) -> Callable[[Size], Script]:
        name = make.__name__.replace("_", "-")
        SITUATIONS[name] = Situation(make, (make.__doc__ or "").strip(), keys, rate, seconds)
        return make

    return enter


def make_scenario(
    name: str,
    *,
    seed: int,
    keys: int | None = None,
    rate: float | None = None,
    length: float = 1.0,
    trace: Sequence[Ask] | None = None,
) -> Scenario:
    """Make a situation.

    Args:
        name: One of ``SITUATIONS``.
        seed: Of its traffic and of what else it leaves to chance.
        keys: How many in place of the usual number.
        rate: Requests per second in place of the usual rate.
        length: Factor on its length.
        trace: Requests in place of drawn ones; the situation is as long as they are.
    """
    usual = SITUATIONS[name]
    count, rng = keys or usual.count, random.Random(f"{seed}/{name}")
    if trace:
        seconds = trace[-1].at + 1.0
        tokens = sum(ask.input_tokens + ask.output_tokens for ask in trace) / len(trace)
        size = Size(count=count, rate=len(trace) / seconds, seconds=seconds, tokens=tokens, rng=rng)
        script, asks = usual.make(size), trace
    else:
        size = Size(count=count, rate=rate or usual.rate, seconds=usual.seconds * length, tokens=_MEAN_TOKENS, rng=rng)
        script = usual.make(size)
        asks = draw_asks(rng, rate=size.rate, seconds=size.seconds, sessions=script.sessions, scale=script.scale)
    return Scenario(name=name, about=usual.about, script=script, asks=tuple(asks), seconds=size.seconds)


# -- the parts they are made of ------------------------------------------------------------------------------------


def _ids(size: Size) -> list[str]:
    return [f"key-{number}" for number in range(1, size.count + 1)]


def _key(key_id: str, slowness: float = 1.0, *faults: Fault, **more: Any) -> SimulatedKey:
    law = Latency(_FIRST * slowness, sigma=_SPREAD, tokens_per_second=_SPEED / slowness)
    return SimulatedKey(key_id, faults=faults, **{"latency": law, **more})


def _first_and_alike(size: Size, *faults: Fault) -> list[SimulatedKey]:
    """Keys that are alike but for the faults of the first."""
    first, *others = _ids(size)
    return [_key(first, 1.0, *faults), *(_key(key_id) for key_id in others)]


def _spell(size: Size, bad: str, good: str = "well again") -> list[Event]:
    """The first key turns bad and recovers."""
    return [Event(size.bad, "key-1", bad, "bad"), Event(size.good, "key-1", good, "good")]


def _mean_seconds() -> float:
    """Expected seconds of an answer of the usual traffic from a key of the usual speed."""
    return Latency(_FIRST, sigma=_SPREAD, tokens_per_second=_SPEED).mean(MEAN_OUTPUT)


# -- nothing happens -------------------------------------------------------------------------------------------------


@_situation()
def equal_keys(size: Size) -> Script:
    """All keys are alike."""
    keys = tuple(_key(key_id) for key_id in _ids(size))
    return Script(keys=keys, equals=_ids(size))


@_situation()
def different_speed(size: Size) -> Script:
    """Two keys are alike, the others 1.5, 2, 2.5 ... times as slow."""
    keys = tuple(_key(key_id, max(1.0, 1.0 + (place - 1) / 2)) for place, key_id in enumerate(_ids(size)))
    return Script(keys=keys, equals=("key-1", "key-2"))


# -- one key turns bad and recovers ----------------------------------------------------------------------------------


@_situation()
def one_turns_slow(size: Size) -> Script:
    """One key takes five times as long for a while."""
    slow = Fault("slow", factor=5.0, start=size.bad, end=size.good)
    return Script(
        keys=_first_and_alike(size, slow),
        events=_spell(size, "slow"),
        equals=_ids(size)[1:],
    )


@_situation()
def one_fails_fast(size: Size) -> Script:
    """One key answers 503 within 50 ms for a while: the fastest of all, to whoever counts failures as answers."""
    fault = Fault("status", status=503, delay=0.05, start=size.bad, end=size.good)
    return Script(
        keys=_first_and_alike(size, fault),
        events=_spell(size, "503"),
        equals=_ids(size)[1:],
    )


@_situation()
def one_hangs(size: Size) -> Script:
    """One key says nothing at all for a while."""
    fault = Fault("hang", start=size.bad, end=size.good)
    return Script(
        keys=_first_and_alike(size, fault),
        events=_spell(size, "hangs"),
        equals=_ids(size)[1:],
    )


@_situation()
def one_hangs_streams(size: Size) -> Script:
    """The same with short streamed answers, whose first tokens are missed sooner."""
    fault = Fault("hang", start=size.bad, end=size.good)
    return Script(
        keys=_first_and_alike(size, fault),
        scale=0.2,
        events=_spell(size, "hangs"),
        equals=_ids(size)[1:],
        stream=True,
    )


@_situation()
def one_is_rejected(size: Size) -> Script:
    """One key is revoked: 401 from then on."""
    fault = Fault("status", status=401, shape="B", delay=0.05, start=size.bad)
    return Script(
        keys=_first_and_alike(size, fault),
        events=(Event(size.bad, "key-1", "401", "bad"),),
        equals=_ids(size)[1:],
    )


@_situation(rate=0.1, seconds=12_000.0)
def few_a_minute(size: Size) -> Script:
    """Six requests a minute; one key takes five times as long for a while."""
    slow = Fault("slow", factor=5.0, start=size.bad, end=size.good)
    return Script(
        keys=_first_and_alike(size, slow),
        events=_spell(size, "slow"),
        equals=_ids(size)[1:],
    )


# -- gray failure ----------------------------------------------------------------------------------------------------


@_situation()
def gray_errors(size: Size) -> Script:
    """Three in ten requests of one key fail after a second, for most of the time."""
    fault = Fault("status", status=500, delay=1.0, probability=0.3, start=size.bad)
    return Script(
        keys=_first_and_alike(size, fault),
        events=(Event(size.bad, "key-1", "30 % fail"),),
        equals=_ids(size)[1:],
    )


@_situation()
def gray_slowness(size: Size) -> Script:
    """One in four requests of one key takes eight times as long, for most of the time."""
    fault = Fault("slow", factor=8.0, probability=0.25, start=size.bad)
    return Script(
        keys=_first_and_alike(size, fault),
        events=(Event(size.bad, "key-1", "25 % slow"),),
        equals=_ids(size)[1:],
    )


@_situation()
def flapping(size: Size) -> Script:
    """One key answers 503 for an eleventh of the time, is well for the next, and so on."""
    step = size.seconds / 11
    starts = [step * number for number in range(1, 11, 2)]
    faults = [Fault("status", status=503, delay=0.2, start=start, end=start + step) for start in starts]
    events = [
        event for start in starts for event in (Event(start, "key-1", "503"), Event(start + step, "key-1", "well"))
    ]
    return Script(
        keys=_first_and_alike(size, *faults),
        events=events,
        equals=_ids(size)[1:],
    )


# -- limits ----------------------------------------------------------------------------------------------------------


@_situation()
def request_limits(size: Size) -> Script:
    """Each key has a limit of requests, the first a third of the others'; together a quarter more than what comes."""
    fair = size.rate * 60 * 1.25 / (size.count - 2 / 3)
    keys = tuple(
        _key(key_id, requests_per_minute=max(1, round(fair / 3 if key_id == "key-1" else fair)))
        for key_id in _ids(size)
    )
    return Script(keys=keys, equals=_ids(size)[1:])


@_situation()
def token_limits(size: Size) -> Script:
    """Each key has a limit of tokens, the first a third of the others'; together a quarter more than what comes."""
    used = size.rate * 60 * size.tokens
    fair = used * 1.25 / (size.count - 2 / 3)
    keys = tuple(
        _key(key_id, tokens_per_minute=max(1, round(fair / 3 if key_id == "key-1" else fair))) for key_id in _ids(size)
    )
    return Script(keys=keys, equals=_ids(size)[1:])


# -- load ------------------------------------------------------------------------------------------------------------


@_situation()
def self_hosted(size: Size) -> Script:
    """Each key is a server with slots and a queue, the last with half as many; 70 % of all slots are busy."""
    busy = size.rate * _mean_seconds() / 0.7
    fair = busy / (size.count - 0.5)
    keys = tuple(
        _key(key_id, slots=max(1, round(fair / 2 if place == size.count else fair)))
        for place, key_id in enumerate(_ids(size), 1)
    )
    return Script(keys=keys, equals=_ids(size)[:-1])


@_situation()
def shared_upstream(size: Size) -> Script:
    """All keys but the last two share one server with slots, which is 70 % busy if keys are used evenly."""
    ids = _ids(size)
    crowd = max(1, size.count - 2)
    slots = max(1, round(size.rate * crowd / size.count * _mean_seconds() / 0.7))
    shared = {key_id: _key(key_id, slots=slots, upstream="server") for key_id in ids[:crowd]}
    keys = tuple(shared.get(key_id) or _key(key_id) for key_id in ids)
    return Script(keys=keys)


# -- change ----------------------------------------------------------------------------------------------------------


@_situation()
def key_joins(size: Size) -> Script:
    """The keys at hand are slow; a fast one is added."""
    *ids, last = _ids(size)
    keys = (*(_key(key_id, 2.0) for key_id in ids), _key(last))
    return Script(
        keys=keys,
        events=(Event(size.bad, last, "joins"),),
        late={last: size.bad},
    )


@_situation()
def sessions(size: Size) -> Script:
    """Conversations whose prompts are in the cache of the key that answered last: a fifth of the time to first token."""
    law = Latency(4 * _FIRST, sigma=_SPREAD, tokens_per_second=_SPEED)
    keys = tuple(_key(key_id, warm=0.2, latency=law) for key_id in _ids(size))
    return Script(
        keys=keys,
        sessions=40,
        scale=0.5,
    )


@_situation(seconds=420.0, rate=4.0)
def drifting(size: Size) -> Script:
    """Every key swings between its speed and half of it, each at a time of its own."""

    def pace(phase: float) -> Callable[[float], float]:
        return lambda seconds: 1.5 - 0.5 * math.cos(2 * math.pi * (seconds / size.seconds + phase))

    keys = tuple(
        _key(key_id, latency=Latency(_FIRST, sigma=_SPREAD, tokens_per_second=_SPEED, pace=pace(place / size.count)))
        for place, key_id in enumerate(_ids(size))
    )
    return Script(keys=keys)


@_situation(keys=6, rate=4.0, seconds=800.0)
def at_random(size: Size) -> Script:
    """Keys of random speed, each but the first with two spells of random trouble."""
    rng = size.rng
    keys: list[SimulatedKey] = []
    events: list[Event] = []
    for key_id in _ids(size):
        faults: list[Fault] = []
        for _ in range(0 if key_id == "key-1" else 2):
            start = rng.uniform(0.05, 0.8) * size.seconds
            end = start + rng.uniform(0.05, 0.15) * size.seconds
            kind = rng.choice(("slow", "503", "hang", "gray"))
            faults.append(_random_fault(kind, rng, start, end))
            events += [Event(start, key_id, kind), Event(end, key_id, "well")]
        keys.append(_key(key_id, math.exp(rng.uniform(0.0, 0.7)), *faults))
    return Script(
        keys=keys,
        events=events,
    )


def _random_fault(kind: str, rng: random.Random, start: float, end: float) -> Fault:
    if kind == "slow":
        return Fault("slow", factor=rng.uniform(2.0, 5.0), start=start, end=end)
    if kind == "hang":
        return Fault("hang", start=start, end=end)
    if kind == "gray":
        return Fault("status", status=500, delay=1.0, probability=rng.uniform(0.1, 0.5), start=start, end=end)
    return Fault("status", status=503, delay=0.05, start=start, end=end)
