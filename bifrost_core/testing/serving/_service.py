"""The simulated service without its sockets: keys, limits, models, faults and journal."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from typing import Protocol

import anyio
import attrs

from ._answers import AnswerLaw, TranscriptLaw
from ._prompts import PromptCache
from ._upstreams import Upstream
from ._vendors import Vendor
from .catalogue import SimulatedModel
from .journal import KeyCounters, Outlook, ServedRequest
from .laws import Fault, Latency, SimulatedKey
from .quotas import LimitName, Quota

__all__ = ["Clock", "KeyState", "Service", "WallClock"]

_WARM_SECONDS = 600.0  # how long a prompt stays in a key's cache
_WARM_MOST = 10_000  # prompts that are kept
_HARMLESS = frozenset({"no_done", "gzip", "crlf", "bom", "split", "slow_drip", "wrong_type", "bad_usage"})
_ENDLESS = frozenset({"hang", "hold", "comments_only"})
_STREAM_ONLY = frozenset({"no_done", "error_event", "comments_only", "crlf", "bom", "split"})


class Clock(Protocol):
    """Seconds for limits and faults."""

    def __call__(self) -> float:
        """Monotonic seconds."""
        ...

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...


class WallClock:
    """The machine's clocks."""

    __slots__ = ()

    def __call__(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()


@attrs.define(eq=False)
class ActiveFault:
    """A fault, its serial number at the key, and how many requests it has met."""

    fault: Fault
    serial: int
    met: int = 0


@attrs.define(eq=False)
class KeyState:
    """What the service knows of one key.

    Attributes:
        key: As configured.
        id: Its name in the journal.
        faults: In order of precedence; replaced, never changed in place.
        counters: Sums.
        given: How many faults it was ever given.
        held: Scopes of the requests that a ``hold`` keeps waiting.
        upstream: The slots that it shares with the other keys of its upstream; None: no bound.
        cached: When each prompt in the cache was last used, least recently used first.
    """

    key: SimulatedKey
    id: str
    faults: tuple[ActiveFault, ...] = ()
    given: int = 0
    counters: KeyCounters = attrs.field(factory=KeyCounters)
    held: set[anyio.CancelScope] = attrs.field(factory=set[anyio.CancelScope])
    upstream: Upstream | None = None
    cached: OrderedDict[str, float] = attrs.field(factory=OrderedDict[str, float])


class Service:
    """Everything that outlives one connection.

    Only the server's thread calls it, except where a method says otherwise.

    Args:
        vendor: Whose API it speaks.
        keys: Those that are accepted.
        models: Those that are listed.
        seed: Of everything random.
        clock: Time for limits, faults and the journal.
        answer: The test's own answers to chat.
        transcript: The test's own transcripts.
        journal_size: How many requests the journal keeps.
        keep_bodies: Whether it keeps their bodies.
        only_listed: Whether there are no other models than those listed.
        all_capable: Whether every model can do everything.
        paired: Whether requests that state a seed draw by that.
    """

    def __init__(
        self,
        vendor: Vendor,
        keys: Iterable[SimulatedKey],
        models: Iterable[SimulatedModel],
        *,
        seed: int,
        clock: Clock,
        answer: AnswerLaw | None,
        transcript: TranscriptLaw | None = None,
        journal_size: int,
        keep_bodies: bool,
        only_listed: bool = True,
        all_capable: bool = False,
        paired: bool = False,
    ) -> None:
        self.vendor = vendor
        self.seed = seed
        self.paired = paired
        self.clock = clock
        self.answer = answer
        self.transcript = transcript
        self.keep_bodies = keep_bodies
        self.prompts = PromptCache()
        self._only_listed = only_listed
        self._all_capable = all_capable
        self.keys: dict[str, SimulatedKey] = {}
        self.models: dict[str, SimulatedModel] = {name: model for model in models for name in model.names}
        self._states: dict[str, KeyState] = {}
        self._by_secret: dict[str, KeyState] = {}
        self._journal: deque[ServedRequest] = deque(maxlen=journal_size)
        self._idle = threading.Condition()
        self._busy = 0
        self._strangers = 0
        self._date = (0, "")
        for number, key in enumerate(keys, 1):
            name = key.id or f"key-{number}"
            if name in self.keys or any(key.secret == other.secret for other in self.keys.values()):
                msg = f"two keys have the same id or the same secret: {name!r}"
                raise ValueError(msg)
            self.keys[name] = attrs.evolve(key, id=name)
        self.reset()

    def reset(self) -> None:
        """Begin anew: journal, counters, request numbers, limits, faults and the start of time."""
        for state in self._states.values():
            self.release(state)
        self.started = self.clock()
        self._states = {
            name: KeyState(
                key, name, tuple(ActiveFault(fault, at) for at, fault in enumerate(key.faults)), len(key.faults)
            )
            for name, key in self.keys.items()
        }
        shared: dict[str, Upstream | None] = {}
        for state in self._states.values():
            key = state.key
            made = None if key.slots is None else Upstream.of(key.slots)
            state.upstream = made if key.upstream is None else shared.setdefault(key.upstream, made)
        self._by_secret = {state.key.secret: state for state in self._states.values()}
        self._quotas: dict[tuple[str, str], Quota] = {}
        self._limits: dict[str, SimulatedKey] = {}
        for name, key in self.keys.items():
            self._limits.setdefault(_group(name, key), key)
        self._strangers = 0
        self.prompts.clear()
        with self._idle:
            self._journal.clear()

    # -- from any thread -----------------------------------------------------------------------------------------

    def journal(self) -> tuple[ServedRequest, ...]:
        """The records, oldest first. Safe from any thread."""
        with self._idle:
            return tuple(self._journal)

    def counters(self) -> dict[str, KeyCounters]:
        """Counters of every key as they are now. Safe from any thread."""
        with self._idle:
            return {name: state.counters.copy() for name, state in self._states.items()}

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no request is being served. Safe from any other thread than the server's.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether that came in time.
        """
        with self._idle:
            return self._idle.wait_for(lambda: self._busy == 0, timeout)

    # -- keys and faults -----------------------------------------------------------------------------------------

    def state(self, key_id: str) -> KeyState:
        """The state of a key.

        Raises:
            KeyError: There is no such key.
        """
        return self._states[key_id]

    def authenticate(self, headers: Mapping[str, str]) -> KeyState:
        """The key that a request shows.

        Args:
            headers: Of the request, names in lower case.

        Raises:
            ApiError: It shows none, or one that nobody knows.
        """
        secret = self.vendor.secret(headers)
        if secret is None:
            raise self.vendor.no_key(lambda: f"{self.stranger().getrandbits(128):032x}")
        state = self._by_secret.get(secret)
        if state is None:
            raise self.vendor.wrong_key(secret)
        return state

    def stranger(self) -> random.Random:
        """Random numbers for a request without a known key."""
        self._strangers += 1
        return random.Random(f"{self.seed}//{self._strangers}")

    def add_fault(self, state: KeyState, fault: Fault) -> None:
        """Put a fault in front of the key's others."""
        state.faults = (ActiveFault(fault, state.given), *state.faults)
        state.given += 1

    def heal(self, state: KeyState) -> None:
        """Take all faults from a key and let its held requests go on."""
        state.faults = ()
        self.release(state)

    def release(self, state: KeyState) -> None:
        """Let the held requests of a key go on."""
        for scope in state.held:
            scope.cancel()

    def latency(self, state: KeyState, prompt: object) -> Latency:
        """The law of a key at this moment, for a request with this ``prompt_cache_key``."""
        now = self.clock() - self.started
        warm = state.key.warm != 1.0 and now - state.cached.get(str(prompt), -math.inf) <= _WARM_SECONDS
        return state.key.latency.at(now, first_token=state.key.warm if warm else 1.0)

    def keep_warm(self, state: KeyState, prompt: object) -> None:
        """Put the prompt of an answer into the key's cache."""
        if state.key.warm == 1.0 or not isinstance(prompt, str):
            return
        state.cached[prompt] = self.clock() - self.started
        state.cached.move_to_end(prompt)
        if len(state.cached) > _WARM_MOST:
            state.cached.popitem(last=False)

    def pick_fault(
        self, state: KeyState, number: int, stream: bool, *, draw: object = None
    ) -> tuple[Fault | None, float]:
        """The fault that meets a request.

        Args:
            state: The key's.
            number: The request's number.
            stream: Whether it asks for a stream.
            draw: What chance depends on beside the seed and the key; None: on the number.

        Returns:
            The fault to play or None, and the factor by which the answer is slower.
        """
        now = self.clock() - self.started
        factor = 1.0
        for active in state.faults:
            fault = active.fault
            if not self._fits(active, now, number, stream):
                continue
            if fault.probability < 1:
                name = number if draw is None else draw
                if random.Random(f"{self.seed}/{state.id}/{name}/{active.serial}").random() >= fault.probability:
                    continue
            active.met += 1
            if fault.kind != "slow":
                return fault, factor
            factor *= fault.factor
        return None, factor

    @staticmethod
    def _fits(active: ActiveFault, now: float, number: int, stream: bool) -> bool:
        """Whether a fault can meet a request."""
        fault = active.fault
        return (
            fault.start <= now < fault.end
            and number >= fault.first
            and (fault.last is None or number <= fault.last)
            and (fault.count is None or active.met < fault.count)
            and (fault.stream is None or fault.stream is stream)
            and (stream or fault.kind not in _STREAM_ONLY)
            and not (stream and fault.kind == "sse")
        )

    # -- models and limits ---------------------------------------------------------------------------------------

    def model(self, name: str, capability: str) -> SimulatedModel:
        """The model of that name.

        Raises:
            ApiError: There is none, or it cannot do this.
        """
        found = self.models.get(name)
        if found is None and not self._only_listed:
            found = SimulatedModel(name)
        able = found is not None and (capability in found.capabilities if capability else "embed" in found.name)
        if found is None or not (able or self._all_capable):
            raise self.vendor.no_model(name)
        return found

    def group(self, state: KeyState) -> str:
        """Name of a key's quota group; one of its own where none is given."""
        return _group(state.id, state.key)

    def admit(self, state: KeyState, model: SimulatedModel, *limits: LimitName) -> Quota:
        """Let a request in under some limits of its key's quota group.

        Raises:
            ApiError: 429: one of them is used up.
        """
        group = self.group(state)
        now = self.clock()
        quota = self._quotas.get((group, model.name))
        if quota is None:
            key = self._limits[group]
            allowed: dict[LimitName, int | None] = {
                "req": key.requests_per_minute,
                "tokens": key.tokens_per_minute,
                "ocr-pages": key.pages_per_minute,
                "audio-seconds": key.audio_seconds_per_minute,
                "input-characters": key.characters_per_minute,
            }
            quota = Quota.of(allowed, now)
            self._quotas[group, model.name] = quota
        refused = quota.admit(now, *limits)
        if refused is not None:
            raise self.vendor.exhausted(quota, refused[0], self.clock.time())
        return quota

    def outlook(self, state: KeyState, model: str, tokens: float, prompt: object, *, stream: bool) -> Outlook:
        """What a request would meet on a key if it came now, chance left out. See ``Outlook``."""
        now = self.clock()
        law = self.latency(state, prompt)
        factor, passes, strikes = 1.0, 1.0, 0.0
        for active in state.faults:
            fault = active.fault
            if not self._fits(active, now - self.started, state.counters.requests + 1, stream):
                continue
            if fault.kind == "slow":
                factor *= 1.0 + fault.probability * (fault.factor - 1.0)
            elif fault.kind not in _HARMLESS:
                strikes += passes * fault.probability * (math.inf if fault.kind in _ENDLESS else fault.delay)
                passes *= 1.0 - fault.probability
        seconds = law.mean(tokens) * factor
        wait = 0.0 if state.upstream is None else state.upstream.wait(now, seconds)
        quota = self._quotas.get((self.group(state), model))
        return Outlook(
            seconds=wait + seconds,
            failure=1.0 - passes,
            failure_seconds=strikes / (1.0 - passes) if passes < 1.0 else 0.0,
            refused_for=0.0 if quota is None else quota.opens_in(now),
            in_flight=state.counters.in_flight,
        )

    # -- journal -------------------------------------------------------------------------------------------------

    def begin(self, record: ServedRequest, state: KeyState | None) -> None:
        """Enter a request into the journal."""
        with self._idle:
            self._busy += 1
            self._journal.append(record)
            if state is not None:
                state.counters.begin()
                record.number = state.counters.requests

    def end(self, record: ServedRequest, state: KeyState | None) -> None:
        """Close a request's record."""
        with self._idle:
            self._busy -= 1
            if state is not None:
                state.counters.end(record)
            if self._busy == 0:
                self._idle.notify_all()

    def left_late(self, state: KeyState | None) -> None:
        """Count a client that left when the request's record was already closed."""
        if state is not None:
            with self._idle:
                state.counters.left += 1

    def date(self) -> str:
        """The ``date`` header."""
        now = int(self.clock.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]


def _group(key_id: str, key: SimulatedKey) -> str:
    """Name of the quota group of a key; one of its own where none is given."""
    return f"key {key_id}" if key.quota_group is None else f"group {key.quota_group}"
