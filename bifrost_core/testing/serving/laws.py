"""What a simulated key does: how fast it answers, how much it allows, and when and how it fails."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

import attrs
from attrs import validators

__all__ = ["ErrorShape", "Fault", "FaultKind", "Latency", "SimulatedKey"]

FaultKind: TypeAlias = Literal[
    "status",
    "hang",
    "hold",
    "reset",
    "close",
    "half_head",
    "half_body",
    "truncate",
    "no_done",
    "garbage",
    "html",
    "empty",
    "not_json",
    "error_event",
    "slow",
    "slow_drip",
    "wrong_length",
    "gzip",
    "gzip_bomb",
    "oversized",
    "comments_only",
    "crlf",
    "bom",
    "split",
    "wrong_type",
    "sse",
    "bad_usage",
]
ErrorShape: TypeAlias = Literal["A", "B", "C", "D", "E"]

_KINDS: tuple[str, ...] = get_args(FaultKind)


@attrs.frozen
class Latency:
    """How long an answer takes.

    The first token comes after ``first_token`` times a lognormal draw with median 1, the others at
    ``tokens_per_second``. A plain reply comes when its last token is there.

    Attributes:
        first_token: Median seconds from the request's last byte to the first token.
        sigma: Spread of the draw: the standard deviation of its logarithm. 0 means no spread; with
            0.5 the slowest in twenty takes about 2.3 times the median.
        tokens_per_second: Output speed after the first token; infinite by default.
        pace: Factor on all of this by seconds since the start (or last ``reset()``), such as
            ``lambda seconds: 1 + seconds / 600`` for a key that gets slower; above 0. None: it keeps its pace.
    """

    first_token: float = attrs.field(
        default=0.0, converter=float, validator=[validators.ge(0), validators.lt(math.inf)]
    )
    sigma: float = attrs.field(default=0.0, converter=float, kw_only=True, validator=validators.ge(0))
    tokens_per_second: float = attrs.field(default=math.inf, converter=float, kw_only=True, validator=validators.gt(0))
    pace: Callable[[float], float] | None = attrs.field(default=None, kw_only=True)

    def at(self, seconds: float, *, first_token: float = 1.0) -> Latency:
        """The law that holds at a moment.

        Args:
            seconds: Since the start.
            first_token: Further factor on the time to the first token.

        Returns:
            A law without ``pace``; this one when nothing changes it.
        """
        pace = 1.0 if self.pace is None else self.pace(seconds)
        if self.pace is None and first_token == 1.0:
            return self
        return Latency(
            self.first_token * pace * first_token,
            sigma=self.sigma,
            tokens_per_second=self.tokens_per_second / pace,
        )

    def mean(self, tokens: float) -> float:
        """Expected seconds of an answer of so many tokens, at a pace of 1."""
        return self.first_token * math.exp(self.sigma**2 / 2) + tokens / self.tokens_per_second

    def draw(self, rng: random.Random) -> float:
        """Seconds to the first token of one answer.

        Args:
            rng: Source of the draw; one normal deviate is taken whether or not there is a spread.

        Returns:
            Seconds, not negative.
        """
        deviate = rng.normalvariate()
        return self.first_token * math.exp(self.sigma * deviate) if self.sigma else self.first_token


def _to_latency(value: Latency | float) -> Latency:
    """Accept a number of seconds where a law is meant."""
    return value if isinstance(value, Latency) else Latency(value)


@attrs.frozen
class Fault:
    """Something a key does wrong, and when.

    A fault meets a request that fits all of ``start``/``end``, ``first``/``last`` and ``stream``.
    The first fitting fault of the key is played; ``slow`` faults multiply and leave room for
    another one. Request numbers make tests repeatable, times make demonstrations readable.

    ========================= ======================================================================
    kind                      what the client sees
    ========================= ======================================================================
    ``status``                an error reply: ``status``, ``shape``, ``error_type``, ``code``, ``message``
    ``hang``                  nothing more; before the head, or after ``after`` events
    ``hold``                  nothing until ``heal`` is called for the key, then the normal answer
    ``reset``, ``close``      RST or FIN; before the head, or after ``after`` events
    ``half_head``             part of a response head, then ``then``
    ``half_body``             part of the body (of an event, in a stream), then ``then``
    ``truncate``              a stream that ends in good order without ``finish_reason``;
                              a plain reply cut to half with the right length
    ``no_done``               a complete stream without its last ``[DONE]`` (``message_stop``, at
                              Anthropic); streams of sound and of OpenAI's responses have none
    ``garbage``               bytes that are no HTTP, then FIN
    ``html``                  a page in place of JSON, status 200 unless ``status`` says otherwise
    ``empty``                 the head of a success and no body
    ``not_json``              a success whose body, or one of whose events, is no JSON
    ``error_event``           an error object inside the stream, after ``after`` events
    ``slow``                  waits multiplied by ``factor``
    ``slow_drip``             the body in pieces of ``size`` bytes, ``pause`` seconds apart
    ``wrong_length``          a stated length ``size`` bytes off, then FIN
    ``gzip``                  the body compressed, asked for or not
    ``gzip_bomb``             a compressed body that unpacks to ``size`` bytes
    ``oversized``             a body (one event, in a stream) of ``size`` bytes
    ``comments_only``         after ``after`` events only comments, ``pause`` seconds apart
    ``crlf``, ``bom``         legal line ends or a byte-order mark that no vendor sends
    ``split``                 events cut anywhere, characters and line ends included
    ``wrong_type``            the right answer, stated to be ``text/plain``
    ``sse``                   a plain reply as events, as if a stream had been asked for
    ``bad_usage``             the right answer with another ``usage``: ``body``, or counts below zero
    ========================= ======================================================================

    Kinds about events do nothing to plain replies (``error_event``, ``no_done``, ``comments_only``,
    ``crlf``, ``bom`` and ``split``): they are passed over for those. ``sse`` does nothing to streams.

    Attributes:
        kind: See the table.
        start: Seconds since the server's start (or last ``reset()``) from which on the fault holds.
        end: Seconds at which it is over.
        first: Number of the key's first request that it meets, counted from 1.
        last: Number of the last one, or None for no end.
        count: At most so many requests are met, or None for no bound.
        probability: Of meeting a request that fits; drawn from the seed, the key and the number.
        stream: Only streamed requests, only plain ones, or both (None).
        delay: Seconds of waiting before the fault shows.
        status: HTTP status; None means 503 for ``status`` and 200 elsewhere.
        shape: Form of the error body: ``A`` the vendor's error object, ``B`` a detail string, ``C`` a
            detail list, ``D`` a gateway's message, ``E`` nothing. The vendors other than Mistral have
            only the first themselves; the others stand for what is in front of them.
        error_type: ``type`` of an error object; None means the usual one for the status.
        code: ``code`` of an error object; None means the usual one for the status.
        message: Text of the error; None means the usual one for the status.
        headers: Sent beside the usual ones by ``status`` and ``html``, such as ``retry-after``.
        body: Bytes to send in place of the built-in ones by ``garbage``, ``html`` and ``not_json``; JSON
            or what looks like it in place of the counts by ``bad_usage``.
        after: Events sent before a fault in mid-stream; None means before the head for ``hang``,
            ``reset`` and ``close``, and 2 elsewhere.
        then: What follows half a head or half a body.
        factor: Of ``slow``.
        pause: Seconds between the pieces of ``slow_drip`` and ``comments_only``.
        size: Bytes; None means 16 for ``slow_drip`` and ``wrong_length``, 64 MiB for ``gzip_bomb``
            and ``oversized``. Negative with ``wrong_length``: less is stated than sent.
        bills: Whether the journal bills the exchange. None means by kind: nothing where the fault
            strikes before the request is looked at, else the input and the output generated until
            then. True bills an early fault in full.
    """

    kind: FaultKind = attrs.field(validator=validators.in_(_KINDS))
    start: float = attrs.field(default=0.0, kw_only=True)
    end: float = attrs.field(default=math.inf, kw_only=True)
    first: int = attrs.field(default=1, kw_only=True)
    last: int | None = attrs.field(default=None, kw_only=True)
    count: int | None = attrs.field(default=None, kw_only=True)
    probability: float = attrs.field(default=1.0, kw_only=True, validator=[validators.ge(0), validators.le(1)])
    stream: bool | None = attrs.field(default=None, kw_only=True)
    delay: float = attrs.field(default=0.0, kw_only=True, validator=validators.ge(0))
    status: int | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional([validators.ge(200), validators.le(599)])
    )
    shape: ErrorShape = attrs.field(default="A", kw_only=True, validator=validators.in_(get_args(ErrorShape)))
    error_type: str | None = attrs.field(default=None, kw_only=True)
    code: str | None = attrs.field(default=None, kw_only=True)
    message: str | None = attrs.field(default=None, kw_only=True)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], kw_only=True)
    body: bytes | None = attrs.field(default=None, kw_only=True)
    after: int | None = attrs.field(default=None, kw_only=True, validator=validators.optional(validators.ge(0)))
    then: Literal["close", "reset", "hang"] = attrs.field(
        default="close", kw_only=True, validator=validators.in_(("close", "reset", "hang"))
    )
    factor: float = attrs.field(default=10.0, kw_only=True, validator=validators.ge(0))
    pause: float = attrs.field(default=0.05, kw_only=True, validator=validators.ge(0))
    size: int | None = attrs.field(default=None, kw_only=True)
    bills: bool | None = attrs.field(default=None, kw_only=True)


def _to_faults(value: Fault | tuple[Fault, ...] | list[Fault]) -> tuple[Fault, ...]:
    """Accept one fault or several."""
    return (value,) if isinstance(value, Fault) else tuple(value)


def _check_lengths(_instance: object, _attribute: object, value: tuple[int, int]) -> None:
    """Refuse lengths that are no range."""
    least, greatest = value
    if not 1 <= least <= greatest:
        msg = f"output_tokens must be a least and a greatest length, both at least 1: {value!r}"
        raise ValueError(msg)


@attrs.frozen
class SimulatedKey:
    """One credential that the simulated service accepts, and how it behaves.

    Attributes:
        secret: What clients send after ``Bearer``, or as ``x-api-key``. Never in ``repr`` nor in the journal.
        id: Name in the journal and the counters; ``key-N`` by position when it is None.
        latency: A ``Latency``, or a number of seconds.
        output_tokens: Least and greatest length of a made-up answer, in tokens.
        quota_group: Keys of one group share their limits, as keys of one organisation do, and the
            first of them says how high these are. None: the key has limits of its own.
        requests_per_minute: Of each model; None for no limit, 0 for a model outside the plan.
        tokens_per_minute: Input and output of each model; None for no limit.
        audio_seconds_per_minute: Seconds of sound to transcribe, of each model; None for no limit.
        pages_per_minute: Pages to read, of each model; None for no limit. Requests to read pages are
            not counted by ``requests_per_minute``, as Mistral does not either.
        characters_per_minute: Characters to speak, of each model; None for no limit. As for pages.
        retry_after: Seconds stated as ``retry-after`` on a reply with status 429. None sends no such
            header where the vendor does not, as Mistral and OpenAI do not.
        warm: Factor on the time to the first token of a request whose ``prompt_cache_key`` the key
            has answered in the last ten minutes: its prompt is in the cache. 1: there is no cache.
        slots: How many requests are worked on at once, as by a server of one's own; further ones wait
            in the order of arrival. None: no bound. The servers on loopback pay no heed to it.
        upstream: Keys of one upstream share their slots, as those of one self-hosted server do, and
            the first of them says how many. None: the key has slots of its own.
        faults: What goes wrong, in order of precedence.
    """

    secret: str = attrs.field(repr=False, validator=validators.min_len(1))
    id: str | None = attrs.field(default=None, kw_only=True)
    latency: Latency = attrs.field(factory=Latency, kw_only=True, converter=_to_latency)
    output_tokens: tuple[int, int] = attrs.field(default=(12, 48), kw_only=True, validator=_check_lengths)
    quota_group: str | None = attrs.field(default=None, kw_only=True)
    requests_per_minute: int | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.ge(0))
    )
    tokens_per_minute: int | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.ge(0))
    )
    audio_seconds_per_minute: int | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.ge(0))
    )
    pages_per_minute: int | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.ge(0))
    )
    characters_per_minute: int | None = attrs.field(
        default=None, kw_only=True, validator=validators.optional(validators.ge(0))
    )
    retry_after: float | None = attrs.field(default=None, kw_only=True)
    warm: float = attrs.field(default=1.0, kw_only=True, validator=[validators.gt(0), validators.lt(math.inf)])
    slots: int | None = attrs.field(default=None, kw_only=True, validator=validators.optional(validators.ge(1)))
    upstream: str | None = attrs.field(default=None, kw_only=True)
    faults: tuple[Fault, ...] = attrs.field(default=(), kw_only=True, converter=_to_faults)
