"""The default balancer: a weighted draw among the keys whose expected cost is near the least.

The cost of a key is the time the next answer is expected to take on it, in mean latencies of the pool. It is built from

- the latency of its answers relative to what the pool would have needed for as many tokens, pulled to an optimistic
  prior as the data grow old: an avoided key is tried again without anybody scheduling it (Peak-EWMA of Finagle and
  Linkerd; gRPC proposal A58; Raj and Kalyani, "Taming non-stationary bandits", 2017);
- its load now against the load it was measured at, with an exponent learned from the answers, because a public API is
  an infinite server to one client and a self-hosted one is not (Suresh et al., "C3", NSDI 2015; Wydrowski et al.,
  "Load is not what you should balance: Introducing Prequal", NSDI 2024);
- silence: answers, or first tokens, that should have come by now;
- failures, priced as the time lost plus a retry and never averaged in as latencies: a key that fails fast would look
  like a quick one;
- recent refusals.

Keys within ``band`` of the least cost cannot be told apart and share by weight; beyond it shares fall off steeply.
Drawing among near-equals keeps clients with old information from moving in a herd (Mitzenmacher, "How useful is old
information?", IEEE TPDS 11(1), 2000). Outages double in length with a trial after each (as in Envoy's outlier
detection), recovered and late keys ramp up by successes (Envoy's slow start), and quotas known from headers are counted
down so that most refusals are avoided.
"""

from __future__ import annotations

import math
import random
import time
from bisect import bisect_right
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from math import exp, log

import attrs

from .base import MAX_WEIGHT, BlockReason, Candidates, KeySnapshot, Outcome, checked_weight, unpack

__all__ = ["LatencyWeighted"]

# Memory. Times are seconds.
_MEMORY = 25.0  # tau: how fast idle knowledge fades
_MEMORY_GAPS = 6.0  # mem: or so many mean gaps between requests per key, where traffic is sparse
_RATIO_KEEP = 1.0 - 1.0 / 25.0  # nmax = 25 answers: about 10 % error at the usual spread of latencies
_PRIOR_COUNT = 0.5  # n0
_PRIOR_SUM = 0.5 * 0.9  # n0 * prior: the unknown is taken to be 10 % better than the pool
_RATIO_MIN, _RATIO_MAX = 0.05, 20.0  # what one answer may say
_POOL_KEEP = 0.995  # forgetting per answer in the pool's latency model
_FIRST_TOKEN_WORTH = 40.0  # tokens a first token is worth while no streams have been seen

# The draw.
_STEEPNESS = 24.0  # gamma
_SAMPLE_ABOVE, _SAMPLE = 100, 32
_SESSIONS, _SESSION_IDLE = 10_000, 600.0

# Load.
_KAPPA, _KAPPA_MAX = 0.3, 1.5
_KAPPA_PRIOR = 20.0  # km: evidence the first guess is worth
_KAPPA_KEEP = 0.998  # kq

# Failures.
_FREE = 3.0  # overdue answers that raise no suspicion: 5 % chance of none when three are expected
_FAILURE_PRICE = 4.0  # lam: mean latencies a failed attempt costs above its own duration
_ATTEMPT_KEEP = 1.0 - 1.0 / 10.0  # en
_ATTEMPT_PRIOR = 1.0  # e0
_SEEN = 0.01  # decayed failures or refusals below this are over
_OUT_AFTER = 3  # ej_n: failures in a row that are an outage
_OUT_BASE, _OUT_MAX = 3.0, 15.0
_OUT_GAPS = 200.0  # ej_gap: trials of a slowly failing key are at most one in so many requests
_AUTH_BASE, _AUTH_MAX = 60.0, 600.0
_MAX_DOUBLINGS = 30

# Refusals.
_REFUSED_BASE, _REFUSED_MAX = 1.0, 30.0
_REFUSED_PRICE, _REFUSED_MEMORY = 0.3, 20.0
_RETRY_AFTER_MAX = 3600.0

# Slow start.
_CAP_FIRST, _CAP_STEP, _CAP_FREE = 1, 1, 32

# Small enough for CPython's fast comparison of integers, and out of reach.
_NO_CAP = 1 << 29
_MAX_QUOTAS = 32  # kinds of quota of a key

# Quotas that last at this rate need no closer look: tokens per attempt.
_AMPLE_TOKENS = 4000.0

# Bounds on what callers report, and floors of the latency model, so that no figure overflows or divides by zero.
_LATENCY_MAX, _TOKENS_MAX = 86_400.0, 1e7
_FLOOR, _TOKEN_FLOOR = 1e-6, 1e-9

# Classes of being blocked, from the first to be used when nothing is open to the last.
_REFUSED, _FAILING, _CREDENTIALS = 0, 1, 2
_REASONS: tuple[BlockReason, ...] = ("refused", "failing", "credentials")

_OUTCOMES = frozenset(("ok", "rate_limit", "auth", "error", "client"))


@attrs.define(eq=False)
class _Quota:
    """One quota of a key, as last reported or as emptied by a refusal."""

    remaining: float
    at: float
    rate: float  # units per second; 0: unknown
    sent: int  # the key's count of attempts that ``remaining`` includes
    limit: float
    is_requests: bool  # or pages and the like: an attempt takes one at least

    def unit(self, tokens: float) -> float:
        """Return what one attempt takes."""
        return min(self.limit, 1.0 if self.is_requests else tokens)

    def left(self, sent: int, now: float, unit: float, *, is_idle: bool) -> float:
        """Return what should be left after ``sent`` attempts.

        The refill stops at the limit and attempts made since count in full, so a burst after a pause is seen at once.
        When all of them have ended and none brought a newer figure, the refill is counted against them instead:
        otherwise more attempts than the limit, all without headers, would leave the key dry for ever.
        """
        used = (sent - self.sent) * unit
        full = self.remaining + (now - self.at) * self.rate
        return min(self.limit, full - used) if is_idle else min(self.limit, full) - used


@attrs.define(eq=False)
class _Key:
    """What is known about one key. Decayed figures are as of the time beside them."""

    id: str
    weight: float
    cap: int  # attempts it may have in flight
    ratios_at: float
    attempts_at: float
    ended_at: float  # last end of an attempt that says something about the key
    first_at: float  # last first token
    refused_at: float
    ratios: float = 0.0  # decayed sum of latency ratios, and
    count: float = 0.0  # of their number
    failures: float = 0.0
    attempts: float = 0.0
    fail_time: float = 1.0  # mean duration of failures
    in_flight: int = 0
    log_load: float = 0.0  # log(1 + in_flight)
    starts: float = 0.0  # sum of the start times of what is in flight
    waiting: int = 0  # streams without a first token, and
    waiting_starts: float = 0.0  # the sum of their start times
    failed_in_row: int = 0
    refused_in_row: int = 0
    outages: int = 0
    until: float = -math.inf
    block: int = _REFUSED
    is_trial: bool = False
    out_until: float = -math.inf
    load: float | None = None  # mean log(1 + in flight) its answers were measured at
    log_ratio: float = 0.0  # mean log of its ratios
    refusals: float = 0.0
    sent: int = 0
    quotas: dict[str, _Quota] = attrs.field(factory=dict[str, _Quota])
    ample: int = _NO_CAP  # until ``sent`` is this much no quota can be dry, refill or not

    def count_ample(self) -> None:
        """Work out ``ample`` after a change of the quotas."""
        self.ample = min(
            quota.sent + int(quota.remaining / (1.0 if quota.is_requests else _AMPLE_TOKENS))
            for quota in self.quotas.values()
        )


@attrs.define(eq=False)
class _Attempt:
    """One attempt, from ``begin`` to ``end``."""

    key: _Key
    started: float
    log_load: float  # of the key, before this attempt
    number: int
    is_waiting: bool
    is_over: bool = False


class LatencyWeighted:
    """Sends each attempt to one of the keys expected to answer soonest.

    One instance serves one pool: keys that can answer the same requests. Plain string ids will do, everything happens
    inside the calls (no tasks, no timers, no I/O), and with the same ``clock`` and ``rng`` the picks repeat. State is
    in memory. An instance is not locked; with threads, put one lock around each call.

    Keys added before the first ``pick`` or ``begin``, and those in the candidates of that first pick, are there from
    the start and may have any number of attempts in flight. A key that comes later starts with one, and is allowed one
    more for each success.

    Costs are compared as ratios to the pool, so a pool that is slow as a whole is none of its business.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        band: float = 0.10,
        sticky: float = 0.5,
    ) -> None:
        """Make an empty pool.

        Args:
            clock: Monotonic seconds.
            rng: Source of the draws and of the jitter on rests. A seeded one makes picks repeatable.
            band: Part by which a key may cost more than the best and still get its full share, >= 0.
            sticky: Part by which the key of a session may cost more than the best and keep the session, >= 0.

        Raises:
            ValueError: ``band`` or ``sticky`` is negative or not a finite number.
        """
        if not 0.0 <= band < math.inf:
            raise ValueError(f"band is a finite number >= 0, not {band!r}")
        if not 0.0 <= sticky < math.inf:
            raise ValueError(f"sticky is a finite number >= 0, not {sticky!r}")
        self._clock = clock
        self._rng = random.Random() if rng is None else rng
        self._random = self._rng.random
        self._band = 1.0 + band
        self._sticky = 1.0 + sticky
        self._keys: dict[str, _Key] = {}
        self._has_started = False
        self._sessions: OrderedDict[object, tuple[str, float]] = OrderedDict()
        self._picks: deque[str] = deque(maxlen=1000)
        # Arrivals.
        self._last: float | None = None
        self._gap: float | None = None
        self._fade = 1.0 / _MEMORY
        # The pool's latency model: first token + tokens * per token.
        self._first = 0.5
        self._per_token = 0.015
        self._tokens = 150.0
        self._mean = self._first + self._per_token * self._tokens
        self._answers = 0
        self._first_sum = self._first_count = 0.0
        self._rest_sum = self._rest_tokens = 0.0
        self._latency_sum = self._worth_sum = 0.0
        # The load exponent.
        self._kappa = _KAPPA
        self._load_squares = self._load_products = 0.0

    # Keys

    def add(self, key_id: str, weight: float = 1.0) -> None:
        """Make a key known, or change the weight of a known one and leave all else as it is.

        Args:
            key_id: Any string.
            weight: Share among keys that perform alike, >= 0. 0 means reserve: used when no weighted key is open.

        Raises:
            ValueError: ``weight`` is negative or not a finite number.
        """
        weight = checked_weight(weight)
        key = self._keys.get(key_id)
        if key is None:
            self._new(key_id, weight, self._clock())
        else:
            key.weight = weight

    def remove(self, key_id: str) -> None:
        """Forget a key; unknown ids are fine.

        Attempts still in flight on it may be ended as usual and change nothing, not even a key added again under the
        same id.
        """
        self._keys.pop(key_id, None)

    def set_weight(self, key_id: str, weight: float) -> None:
        """Change the weight of a known key.

        Raises:
            ValueError: The key is unknown, or ``weight`` is negative or not a finite number.
        """
        key = self._keys.get(key_id)
        if key is None:
            raise ValueError(f"there is no key {key_id!r}; add it first")
        key.weight = checked_weight(weight)

    def _new(self, key_id: str, weight: float, now: float) -> _Key:
        cap = _CAP_FIRST if self._has_started else _NO_CAP
        key = self._keys[key_id] = _Key(key_id, weight, cap, now, now, now, now, now)
        return key

    # Choosing

    def pick(self, candidates: Candidates, request: object = None) -> str:
        """Choose the key for the next attempt.

        There is always an answer: when no key is open it is the one that opens first, told-to-wait before failing
        before rejected; ask ``rest`` whether to wait or go elsewhere. Ids not seen before are added with weight 1.

        Args:
            candidates: Ids of the keys that may be used and have not failed for this request, or a mapping id -> weight
                whose weights replace the configured ones for this pick. Not empty. Of more than 100, 32 are looked at.
            request: None, or any object; read are ``session`` (hashable, default None), ``input_tokens`` (default 0)
                and ``attempt`` (default 0, the first of its request).

        Returns:
            One of ``candidates``.

        Raises:
            ValueError: There are no candidates, or a weight is negative or not a finite number.
        """
        now = self._clock()
        ids, given = unpack(candidates)
        session: object = None
        tokens = self._tokens
        if request is None:
            self._arrive(now)
        else:
            session = getattr(request, "session", None)
            input_tokens = getattr(request, "input_tokens", None) or 0
            if 0 < input_tokens < math.inf:
                tokens += input_tokens
            if not getattr(request, "attempt", None):
                self._arrive(now)

        seen = ids if len(ids) <= _SAMPLE_ABOVE else self._sample(ids, session)
        opened, weights, is_plain = self._scan(seen, given, now, tokens)
        if seen is not ids and not any(weights):  # unlucky: all of the sample are blocked or reserve
            opened, weights, is_plain = self._scan(ids, given, now, tokens)
        self._has_started = True

        if not opened:
            key = self._first_to_open(ids, given, now, tokens)
        elif len(opened) == 1:
            key = opened[0]
        else:
            key = self._draw(opened, weights, now, session, is_plain=is_plain)
        if session is not None:
            self._remember(session, key.id, now)
        self._picks.append(key.id)
        return key.id

    def _arrive(self, now: float) -> None:
        """Note the first attempt of a request."""
        if self._last is not None:
            gap = now - self._last
            if self._gap is not None:
                gap = self._gap + 0.05 * (gap - self._gap)
            self._gap = gap
            memory = _MEMORY_GAPS * gap * len(self._keys)
            self._fade = 1.0 / max(_MEMORY, memory)
        self._last = now

    def _sample(self, ids: Collection[str], session: object) -> list[str]:
        """Return 32 of many ids, with the one that the session is on among them."""
        sample = self._rng.sample(ids if isinstance(ids, (list, tuple)) else list(ids), _SAMPLE)
        if session is not None:
            entry = self._sessions.get(session)
            if entry is not None and entry[0] in ids and entry[0] not in sample:
                sample[0] = entry[0]
        return sample

    def _scan(
        self, ids: Iterable[str], given: Mapping[str, float] | None, now: float, tokens: float
    ) -> tuple[list[_Key], list[float], bool]:
        """Return the open keys, their weights, and whether none is reserve or on trial."""
        keys = self._keys
        opened: list[_Key] = []
        weights: list[float] = []
        is_plain = True
        is_big = tokens > _AMPLE_TOKENS
        for key_id in ids:
            try:
                key = keys[key_id]
            except KeyError:
                key = self._new(key_id, 1.0, now)
            if given is None:
                weight = key.weight
            else:
                weight = given[key_id]
                if not 0.0 <= weight <= MAX_WEIGHT:
                    weight = checked_weight(weight)
            if now < key.until:
                continue
            in_flight = key.in_flight
            if key.is_trial:
                if in_flight:
                    continue
                is_plain = False
            elif in_flight >= key.cap:
                continue
            if (key.sent >= key.ample or is_big) and self._dry(key, now, tokens) > now:
                continue
            if weight <= 0.0:
                is_plain = False
            opened.append(key)
            weights.append(weight)
        return opened, weights, is_plain

    def _dry(self, key: _Key, now: float, tokens: float) -> float:
        """Return when the key has enough of every quota for an attempt that takes ``tokens``; ``now`` if it has."""
        until = now
        sent = key.sent
        for quota in key.quotas.values():
            if quota.remaining >= (sent - quota.sent + 1) * (1.0 if quota.is_requests else tokens):
                continue  # the common case: plenty left without any refill
            rate = quota.rate
            if rate <= 0.0:
                continue  # nobody knows when it would end, so it would never
            unit = quota.unit(tokens)
            left = quota.left(sent, now, unit, is_idle=not key.in_flight)
            if left < unit * (1.0 - 1e-9):  # the slack: rounding must not leave a rest of 1e-13 s
                until = max(until, now + (unit - left) / rate)
        return until

    def _blocked(self, key: _Key, now: float, tokens: float) -> tuple[int, float, BlockReason] | None:
        """Return class, time of opening and reason of a blocked key. The time is ``now`` if nobody can know it."""
        dry = self._dry(key, now, tokens)
        if now < key.until:
            return key.block, max(key.until, dry), _REASONS[key.block]
        if key.is_trial and key.in_flight:
            return _FAILING, dry, "trial"
        if dry > now:
            return _REFUSED, dry, "dry"
        if key.in_flight >= key.cap:
            return _REFUSED, now, "capped"
        return None

    def _first_to_open(self, ids: Iterable[str], given: Mapping[str, float] | None, now: float, tokens: float) -> _Key:
        """Return the blocked key with the least class, then time; of equals a weighted one, then the least loaded."""

        def rank(key: _Key) -> tuple[int, float, bool, int]:
            block, at, _ = self._blocked(key, now, tokens) or (_REFUSED, now, "")
            weight = key.weight if given is None else given[key.id]
            return block, at, weight <= 0.0, key.in_flight

        return min((self._keys[key_id] for key_id in ids), key=rank)

    def _costs(self, keys: Iterable[_Key], now: float) -> list[float]:
        """Return the expected cost of an attempt on each key, in mean latencies of the pool.

        The hot loop of the library: everything is inlined, and terms that do not apply cost one comparison.
        """
        fade = self._fade
        kappa = self._kappa
        mean = self._mean
        first = self._first
        costs: list[float] = []
        for key in keys:
            decay = exp((key.ratios_at - now) * fade)
            rho = (key.ratios * decay + _PRIOR_SUM) / (key.count * decay + _PRIOR_COUNT)
            cost = rho
            if key.failures > _SEEN:
                decay = exp((key.attempts_at - now) * fade)
                rate = key.failures * decay / (key.attempts * decay + _ATTEMPT_PRIOR)
                cost += rate * (key.fail_time / mean + _FAILURE_PRICE - rho)
            load = key.load
            if load is not None:
                cost *= exp(kappa * (key.log_load - load))
            in_flight = key.in_flight
            if in_flight:
                time_each = rho * mean
                free = _FREE * time_each
                overdue = in_flight * now - key.starts
                if overdue > free:
                    silent = in_flight * (now - key.ended_at)
                    if silent < overdue:  # noqa: PLR1730  min() takes thrice as long
                        overdue = silent
                    if overdue > free:
                        cost *= 1.0 + (overdue - free) / time_each
                waiting = key.waiting
                if waiting:
                    time_each = rho * first
                    free = _FREE * time_each
                    overdue = waiting * now - key.waiting_starts
                    if overdue > free:
                        silent = waiting * (now - key.first_at)
                        if silent < overdue:  # noqa: PLR1730  min() takes thrice as long
                            overdue = silent
                        if overdue > free:
                            cost *= 1.0 + (overdue - free) / time_each
            if key.refusals > _SEEN:
                cost *= 1.0 + _REFUSED_PRICE * key.refusals * exp((key.refused_at - now) / _REFUSED_MEMORY)
            costs.append(cost)
        return costs

    def _draw(self, keys: list[_Key], weights: list[float], now: float, session: object, *, is_plain: bool) -> _Key:
        """Draw one of several open keys: by weight near the best cost, ever more rarely beyond."""
        costs = self._costs(keys, now)
        best = min(costs) if is_plain else _level(keys, weights, costs)
        if session is not None:
            entry = self._sessions.get(session)
            if entry is not None and now - entry[1] <= _SESSION_IDLE:
                for key, cost, weight in zip(keys, costs, weights, strict=True):
                    if key.id == entry[0] and cost <= best * self._sticky and (weight > 0.0 or not any(weights)):
                        return key
        edge = best * self._band
        total = 0.0
        sums: list[float] = []
        for cost, weight in zip(costs, weights):  # noqa: B905  strict= is slow, and both are from _scan
            total += weight if cost <= edge else weight * (edge / cost) ** _STEEPNESS
            sums.append(total)
        if total <= 0.0:
            return keys[int(self._random() * len(keys))]
        return keys[bisect_right(sums, self._random() * total)]

    def _remember(self, session: object, key_id: str, now: float) -> None:
        """Note where a session is; for a new one forget the least recent beyond 10 000, and some of the idle."""
        sessions = self._sessions
        is_known = session in sessions
        sessions[session] = (key_id, now)
        if is_known:
            sessions.move_to_end(session)
            return
        for _ in range(2):
            oldest = next(iter(sessions))
            if len(sessions) <= _SESSIONS and now - sessions[oldest][1] <= _SESSION_IDLE:
                break
            del sessions[oldest]

    def rest(self, key_id: str) -> float:
        """Return the seconds until a key is open.

        0 when it is open or unknown, and when it waits only for an attempt of its own to end (a trial, or the few that
        a young key may have in flight), whose time nobody knows.
        """
        key = self._keys.get(key_id)
        if key is None:
            return 0.0
        now = self._clock()
        blocked = self._blocked(key, now, self._tokens)
        return 0.0 if blocked is None else blocked[1] - now

    # Attempts

    def begin(self, key_id: str, *, stream: bool = False) -> _Attempt:
        """Note that an attempt starts now; call it right after ``pick``. An unknown key is added with weight 1.

        Args:
            key_id: The key it is sent with.
            stream: ``first_token`` will be called when the first content arrives. Only attempts announced this way
                count when first tokens are missed.

        Returns:
            An opaque token for ``first_token``, ``quota`` and ``end``.
        """
        now = self._clock()
        key = self._keys.get(key_id)
        if key is None:
            key = self._new(key_id, 1.0, now)
        self._has_started = True
        key.sent += 1
        attempt = _Attempt(key, now, key.log_load, key.sent, stream)
        key.in_flight += 1
        key.log_load = log(1.0 + key.in_flight)
        key.starts += now
        if stream:
            key.waiting += 1
            key.waiting_starts += now
        return attempt

    def first_token(self, attempt: _Attempt) -> None:
        """Note that the first content of a stream has arrived. After ``end`` it does nothing."""
        if not attempt.is_over:
            attempt.key.first_at = self._clock()
            self._stop_waiting(attempt)

    @staticmethod
    def _stop_waiting(attempt: _Attempt) -> None:
        if attempt.is_waiting:
            attempt.is_waiting = False
            key = attempt.key
            key.waiting -= 1
            key.waiting_starts = key.waiting_starts - attempt.started if key.waiting else 0.0

    def quota(self, attempt: _Attempt, kind: str, remaining: float, limit: float, reset_s: float) -> None:
        """Note what the answer's headers say about a quota.

        Of several reports the one whose attempt began last counts. The refill is taken to be continuous. Nonsense (no
        positive limit, less than nothing remaining, not a number) is ignored, as is a report after ``end``.

        Args:
            attempt: The attempt whose answer carried the headers.
            kind: A name with the word ``token`` is counted in tokens, every other in attempts: ``"requests"``, and
                pages, seconds or characters, of which nobody knows before how many an attempt takes.
            remaining: What is left, >= 0.
            limit: What there is when nothing is used, > 0.
            reset_s: Seconds until it is full again. Where it is 0 or unusable the last known rate of refill is kept.
        """
        if attempt.is_over or not (0.0 < limit < math.inf and 0.0 <= remaining < math.inf):
            return
        key = attempt.key
        old = key.quotas.get(kind)
        if old is None and len(key.quotas) >= _MAX_QUOTAS:  # kinds come from headers
            return
        if old is not None and (attempt.started, attempt.number) < (old.at, old.sent):
            return
        remaining = min(remaining, limit)
        rate = (limit - remaining) / reset_s if 0.0 < reset_s < math.inf else 0.0
        if not 0.0 < rate < math.inf:
            rate = 0.0 if old is None else old.rate
        key.quotas[kind] = _Quota(remaining, attempt.started, rate, attempt.number, limit, "token" not in kind.lower())
        key.count_ample()

    def end(
        self,
        attempt: _Attempt,
        outcome: Outcome,
        latency: float,
        ttft: float | None = None,
        output_tokens: float | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Note how an attempt ended; for each one, cancelled ones included. A second end of the same one is ignored.

        The attempt is out of flight even when this raises.

        Args:
            attempt: What ``begin`` returned.
            outcome: See ``Outcome``.
            latency: Seconds from ``begin`` to the last byte, without the time a slow reader took. Negative or not
                finite: the time since ``begin`` is taken.
            ttft: Seconds from ``begin`` to the first content, streams only; clamped to 0-``latency``.
            output_tokens: As billed, reasoning included, or the number of chunks; None: the pool's mean. At least 1.
            retry_after: Seconds the provider asked us to wait, clamped to 0-3600; None: doubling from 1 to 30.
                Read with ``rate_limit`` only.

        Raises:
            ValueError: ``outcome`` is not one of the five; the attempt then ends as ``client``.
        """
        if attempt.is_over:
            return
        attempt.is_over = True
        key = attempt.key
        key.in_flight -= 1
        key.log_load = log(1.0 + key.in_flight)
        key.starts = key.starts - attempt.started if key.in_flight else 0.0
        self._stop_waiting(attempt)
        if outcome not in _OUTCOMES:
            raise ValueError(f"an outcome is one of {', '.join(sorted(_OUTCOMES))}, not {outcome!r}")
        if outcome == "client" or self._keys.get(key.id) is not key:
            return

        now = self._clock()
        key.ended_at = now
        if outcome == "rate_limit":
            self._refuse(key, now, retry_after)
            return
        if not 0.0 <= latency < math.inf:
            latency = max(0.0, now - attempt.started)
        latency = min(latency, _LATENCY_MAX)
        decay = exp((key.attempts_at - now) * self._fade) * _ATTEMPT_KEEP
        key.failures *= decay
        key.attempts = key.attempts * decay + 1.0
        key.attempts_at = now
        if outcome == "ok":
            tokens = self._tokens
            if output_tokens is not None and -math.inf < output_tokens < math.inf:
                tokens = min(max(1.0, output_tokens), _TOKENS_MAX)
            self._learn(latency, ttft, tokens)
            self._succeed(attempt, now, latency / (self._first + self._per_token * tokens))
        else:
            self._fail(attempt, now, latency, is_auth=outcome == "auth")

    def _learn(self, latency: float, ttft: float | None, tokens: float) -> None:
        """Update what the pool needs for a first token and for each token."""
        keep = _POOL_KEEP
        self._answers += 1
        if ttft is not None and -math.inf < ttft < math.inf:
            ttft = min(max(0.0, ttft), latency)
            self._first_sum = keep * self._first_sum + ttft
            self._first_count = keep * self._first_count + 1.0
            self._rest_sum = keep * self._rest_sum + latency - ttft
            self._rest_tokens = keep * self._rest_tokens + tokens
        self._latency_sum = keep * self._latency_sum + latency
        self._worth_sum = keep * self._worth_sum + tokens + _FIRST_TOKEN_WORTH
        if self._first_count >= 10.0:
            self._first = max(_FLOOR, self._first_sum / self._first_count)
            self._per_token = max(_TOKEN_FLOOR, self._rest_sum / self._rest_tokens)
        else:
            self._per_token = max(_TOKEN_FLOOR, self._latency_sum / self._worth_sum)
            self._first = max(_FLOOR, _FIRST_TOKEN_WORTH * self._per_token)
        self._tokens += 0.01 * (tokens - self._tokens)
        self._mean = self._first + self._per_token * self._tokens

    def _succeed(self, attempt: _Attempt, now: float, ratio: float) -> None:
        """Take in an answer: the key's latency relative to the pool, the load exponent, the end of its troubles."""
        key = attempt.key
        ratio = min(max(_RATIO_MIN, ratio), _RATIO_MAX)
        decay = exp((key.ratios_at - now) * self._fade) * _RATIO_KEEP
        key.ratios = key.ratios * decay + ratio
        key.count = key.count * decay + 1.0
        key.ratios_at = now

        load, log_ratio = attempt.log_load, log(ratio)
        if key.load is None:
            key.load, key.log_ratio = load, log_ratio
        else:
            more_load, more_time = load - key.load, log_ratio - key.log_ratio
            key.load += 0.05 * more_load
            key.log_ratio += 0.05 * more_time
            self._load_squares = _KAPPA_KEEP * self._load_squares + more_load * more_load
            self._load_products = _KAPPA_KEEP * self._load_products + more_load * more_time
            kappa = (_KAPPA * _KAPPA_PRIOR + self._load_products) / (_KAPPA_PRIOR + self._load_squares)
            self._kappa = min(max(0.0, kappa), _KAPPA_MAX)

        key.failed_in_row = key.refused_in_row = 0
        if not key.is_trial:
            key.outages = 0
            key.cap += _CAP_STEP
            if key.cap > _CAP_FREE:
                key.cap = _NO_CAP
        elif attempt.started >= key.out_until:  # the trial itself, not a straggler from before the outage
            key.is_trial = False
            key.outages = 0
            key.failures = key.attempts = key.ratios = key.count = 0.0
            key.cap = _CAP_FIRST + _CAP_STEP

    def _fail(self, attempt: _Attempt, now: float, latency: float, *, is_auth: bool) -> None:
        """Take in a failure: price it, and put the key out when it is an outage."""
        key = attempt.key
        key.failures += 1.0
        key.fail_time += 0.3 * (latency - key.fail_time)
        key.failed_in_row += 1
        if attempt.started < key.out_until:
            return  # the tail of an outage already counted
        if is_auth:
            low, high = _AUTH_BASE, _AUTH_MAX
        elif key.is_trial or key.failed_in_row >= _OUT_AFTER:
            low = max(_OUT_BASE, key.fail_time)
            high = max(_OUT_MAX, low, _OUT_GAPS * (self._gap or 0.0) * min(1.0, key.fail_time / self._mean))
        else:
            return
        key.block = _CREDENTIALS if is_auth else _FAILING
        key.out_until = now + min(high, low * 2.0**key.outages) * self._jitter()
        key.until = max(key.until, key.out_until)  # a stated wait is kept though the outage be shorter
        key.outages = min(key.outages + 1, _MAX_DOUBLINGS)
        key.is_trial = True

    def _refuse(self, key: _Key, now: float, retry_after: float | None) -> None:
        """Take in a refusal: wait as told, lean towards other keys, and count every quota as used up."""
        if retry_after is None or math.isnan(retry_after):
            wait = min(_REFUSED_MAX, _REFUSED_BASE * 2.0**key.refused_in_row) * self._jitter()
            key.refused_in_row = min(key.refused_in_row + 1, _MAX_DOUBLINGS)
        else:
            wait = min(max(0.0, retry_after), _RETRY_AFTER_MAX)
        key.until = max(key.until, now + wait)
        key.block = _REFUSED
        key.refusals = key.refusals * exp((key.refused_at - now) / _REFUSED_MEMORY) + 1.0
        key.refused_at = now
        for quota in key.quotas.values():
            quota.remaining = 0.0
            quota.at = now
            quota.sent = key.sent
        if key.quotas:
            key.count_ample()

    def _jitter(self) -> float:
        return 0.75 + 0.5 * self._random()

    # Showing

    @property
    def kappa(self) -> float:
        """The learned load exponent, 0-1.5: 0 for a pool of infinite servers, 1 where latency grows with the load."""
        return self._kappa

    def snapshot(self) -> dict[str, KeySnapshot]:
        """Return what is known about each key now, in the order in which they were added. Nothing is changed."""
        now = self._clock()
        picked = Counter(self._picks)
        keys = self._keys.values()
        return {
            key.id: self._show(key, cost, picked[key.id] / max(1, len(self._picks)), now)
            for key, cost in zip(keys, self._costs(keys, now), strict=True)
        }

    def _show(self, key: _Key, cost: float, share: float, now: float) -> KeySnapshot:
        decay = exp((key.ratios_at - now) * self._fade)
        rho = (key.ratios * decay + _PRIOR_SUM) / (key.count * decay + _PRIOR_COUNT)
        errors = exp((key.attempts_at - now) * self._fade)
        blocked = self._blocked(key, now, self._tokens)
        return KeySnapshot(
            key_id=key.id,
            weight=key.weight,
            in_flight=key.in_flight,
            share=share,
            is_trial=key.is_trial,
            rest=0.0 if blocked is None else blocked[1] - now,
            reason=None if blocked is None else blocked[2],
            rho=rho,
            observations=key.count * decay,
            error_rate=key.failures * errors / (key.attempts * errors + _ATTEMPT_PRIOR),
            cost=cost,
            latency=rho * self._mean if self._answers else None,
            time_to_first_token=rho * self._first if self._first_count >= 10.0 else None,
        )


def _level(keys: list[_Key], weights: list[float], costs: list[float]) -> float:
    """Return the best cost and give it to the keys on trial, which have no say in it.

    Nor has a reserve key as long as a weighted one is open: it gets nothing, and must not move the band.
    """
    is_reserve = not any(weights)
    best = math.inf
    for key, weight, cost in zip(keys, weights, costs, strict=True):
        if cost < best and not key.is_trial and (is_reserve or weight > 0.0):
            best = cost
    if best == math.inf:
        best = 1.0
    for index, key in enumerate(keys):
        if key.is_trial:
            costs[index] = best
    return best
