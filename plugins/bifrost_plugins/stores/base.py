"""What every store can do: one protocol, the values that go in and out, and its two errors.

A store keeps three things that several calls, tasks, processes or machines share: a **ledger** (what
is held for attempts in flight and what was spent), **usage** (settled amounts per hour and label) and
**keys with values** that may end by themselves. Every operation is atomic and may be repeated after a
lost acknowledgement, as it is idempotent by the id of its hold.

A hold goes one way only::

    reserve -> HELD -> release, or the end of its time before dispatch -> RELEASED (0)
                    -> settle ----------------------------------------> SETTLED (actual)
                    -> the end of its time after dispatch ------------> SETTLED (estimate, uncertain)
                                                                         -> one late settle or release

All amounts are whole numbers of one unit that the bucket's owner chooses: pico-USD (10**-12 USD),
tokens, requests, places. The store never looks at what they mean.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Final, Protocol, Self

import attrs

from bifrost_core import BifrostError, ConfigError

__all__ = [
    "MAX_AMOUNT",
    "BucketState",
    "Claim",
    "ClaimKind",
    "Claims",
    "Correction",
    "Crossing",
    "Denied",
    "Ended",
    "Granted",
    "Hold",
    "HoldState",
    "LedgerConflictError",
    "OpenHold",
    "Store",
    "StoreError",
    "UsageCell",
]

MAX_AMOUNT: Final = 2**63 - 1
"""Greatest amount, limit and sum: what 64 bits hold, 9.2 million USD in pico-USD."""

MAX_HOLDS: Final = 100_000
"""Holds that may be open at once; more are refused with ``StoreError``."""
MAX_RESULTS: Final = 100_000
"""Ends of holds that are remembered whatever their age."""
RESULT_SECONDS: Final = 24 * 3600.0
"""How long ends of holds are remembered at least while there are no more than ``MAX_RESULTS``, in seconds."""
MAX_BUCKETS: Final = 100_000
"""Windows and counters that may exist at once in memory; idle ones go first, then new ones are refused."""
MAX_KEYS: Final = 100_000
"""Keys of the key-value part in memory; more are refused with ``StoreError``."""
MAX_SERIES: Final = 1_000
"""Different label sets in one hour of usage; the rest is counted under labels that all say ``other``."""
MAX_CORRECTIONS: Final = 10_000
"""Corrections and adjustments that are kept, the newest."""
PAST_EPOCHS: Final = 48
"""Epochs of a counter that are kept for late settlements, beside the running one."""
USAGE_HOURS: Final = 24 * 400
"""How long usage is kept, in hours."""

HOUR: Final = 3600


class StoreError(BifrostError):
    """The store can not be reached, is full or broken; nothing is known to have changed.

    Whether the operation took place is unknown: repeat it with the same id, or release the hold.
    A hard limit refuses on it, a soft one admits and counts.
    """


class LedgerConflictError(BifrostError):
    """The ledger was asked for what contradicts an earlier entry; nothing has changed.

    A hold was reserved again after its end or with other claims, settled again with other amounts,
    or a correction would make spending negative. A mistake of the caller, not a failure of the store.
    """


def _whole(instance: object, attribute: attrs.Attribute[int], value: object) -> None:  # noqa: ARG001 - attrs' signature
    if type(value) is not int or not 0 <= value <= MAX_AMOUNT:
        raise ConfigError(
            f"{attribute.name} is a whole number from 0 to 2**63 - 1, not {value!r}", field=attribute.name
        )


def check_text(text: str, field: str) -> str:
    """A name that every store can keep: it has a form in UTF-8.

    Raises:
        ConfigError: It has none (half of a surrogate pair, as JSON can smuggle in). Does not show it.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{field} holds half of a surrogate pair, which no store can keep", field=field) from None
    return text


def _text(instance: object, attribute: attrs.Attribute[str], value: str) -> None:  # noqa: ARG001 - attrs' signature
    check_text(value, attribute.name)


def check_amounts(amounts: Sequence[int], claims: int) -> tuple[int, ...]:
    """The amounts of a settlement, checked.

    Args:
        amounts: One per claim of the hold.
        claims: How many claims the hold has.

    Raises:
        LedgerConflictError: There are more or fewer of them than claims.
        ConfigError: One is no whole number from 0 to ``MAX_AMOUNT``.
    """
    if len(amounts) != claims:
        raise LedgerConflictError(f"the hold has {claims} claims, but {len(amounts)} amounts were given; give one each")
    for amount in amounts:
        if type(amount) is not int or not 0 <= amount <= MAX_AMOUNT:
            raise ConfigError(f"an amount is a whole number from 0 to 2**63 - 1, not {amount!r}", field="amounts")
    return tuple(amounts)


class ClaimKind(enum.StrEnum):
    """How a bucket counts."""

    COUNTER = "counter"
    WINDOW = "window"
    PLACES = "places"


@attrs.frozen
class Claim:
    """What a hold takes from one bucket; make one with ``counter``, ``window`` or ``places``.

    A bucket is known by its kind and name; nothing has to be declared beforehand. Its limit comes
    with every claim, so changing a limit needs no migration and never loses what was spent.

    Attributes:
        bucket: Name of the bucket, such as ``"team:search"``. One name has one period or length.
        amount: What is taken, 0 or more.
        limit: Most that may be spent and held together; None counts and never refuses.
        kind: How the bucket counts.
        epoch: Counters: UTC second at which the running period began; 0 for one that never turns.
        ends_at: Counters: UTC second at which the running period ends; None for never.
        seconds: Windows: their length. Rolling counters: the length of the period, 1 or more.
        thresholds: Counters: amounts of spending that are announced when reached, once per epoch.
    """

    bucket: str = attrs.field(validator=_text)
    amount: int = attrs.field(validator=_whole)
    limit: int | None = attrs.field(default=None, kw_only=True, validator=attrs.validators.optional(_whole))
    kind: ClaimKind = attrs.field(default=ClaimKind.COUNTER, kw_only=True)
    epoch: int = attrs.field(default=0, kw_only=True, validator=_whole)
    ends_at: float | None = attrs.field(default=None, kw_only=True)
    seconds: float | None = attrs.field(default=None, kw_only=True)
    thresholds: tuple[int, ...] = attrs.field(default=(), kw_only=True)

    @classmethod
    def counter(
        cls,
        bucket: str,
        amount: int,
        *,
        limit: int | None,
        epoch: int = 0,
        ends_at: float | None = None,
        rolling: float | None = None,
        thresholds: Sequence[int] = (),
    ) -> Claim:
        """A claim on a counter: what is settled stays until its period turns.

        The store decides which epoch it belongs to: it never goes back to an earlier one, whatever
        a caller's clock says, and a running epoch whose period or zone was changed keeps its spending
        and ends at the new ``ends_at``.

        Args:
            bucket: Name of the bucket.
            amount: Upper bound of what the attempt may cost.
            limit: Most that may be spent and held together in an epoch; None counts only.
            epoch: UTC second at which the running calendar period began; 0 never turns.
            ends_at: UTC second at which it ends; None never.
            rolling: Instead of both: seconds that a period lasts, from the whole second of its first
                use; 1 or more.
            thresholds: Amounts of spending to announce, once per epoch each.

        Raises:
            ConfigError: ``rolling`` is less than 1 or comes with an epoch, or a number is out of range.
        """
        if rolling is not None and (epoch or ends_at is not None or not 1 <= rolling < 1e10):
            raise ConfigError("rolling is 1 second or more, without epoch and ends_at", field="rolling")
        if (epoch == 0) != (ends_at is None):
            raise ConfigError("epoch and ends_at come together; give neither for a period without end", field="epoch")
        marks = tuple(sorted(set(thresholds)))
        return cls(bucket, amount, limit=limit, epoch=epoch, ends_at=ends_at, seconds=rolling, thresholds=marks)

    @classmethod
    def window(cls, bucket: str, amount: int, *, limit: int | None, seconds: float) -> Claim:
        """A claim on a sliding window: what was held or settled less than ``seconds`` ago counts.

        Every entry keeps the moment at which it was reserved, so ``Denied.retry_after`` is exact.

        Raises:
            ConfigError: ``seconds`` is not positive, or a number is out of range.
        """
        if not 0 < seconds < 1e10:
            raise ConfigError(f"a window is longer than 0 seconds, not {seconds!r}", field="seconds")
        return cls(bucket, amount, limit=limit, kind=ClaimKind.WINDOW, seconds=float(seconds))

    @classmethod
    def places(cls, bucket: str, amount: int = 1, *, limit: int | None) -> Claim:
        """A claim on places (concurrency): given back whole when the hold ends, however it ends."""
        return cls(bucket, amount, limit=limit, kind=ClaimKind.PLACES)


class Claims(tuple[Claim, ...]):
    """Claims of one hold, or of many that take other amounts from the same buckets: looked at once.

    Args:
        claims: In any order; one bucket of a kind at most once.

    Raises:
        ConfigError: A bucket is claimed twice.
    """

    __slots__ = ()

    def __new__(cls, claims: Iterable[Claim] = ()) -> Self:
        """Look at them."""
        made = super().__new__(cls, claims)
        if len({(claim.kind, claim.bucket) for claim in made}) != len(made):
            raise ConfigError("a hold claims each bucket once; add the amounts up", field="claims")
        return made


def _check_whole(numbers: Sequence[int], claims: int, what: str, field: str) -> None:
    if len(numbers) != claims:
        raise ConfigError(f"give one {what} for each of the {claims} claims", field=field)
    for number in numbers:
        if type(number) is not int or not 0 <= number <= MAX_AMOUNT:
            raise ConfigError(f"an {what} is a whole number from 0 to 2**63 - 1, not {number!r}", field=field)


_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})
_NO_USAGE: Final[Mapping[str, int]] = MappingProxyType({})


def checked_labels(value: Mapping[str, str] | None) -> Mapping[str, str]:
    """Labels in their order, each of which every store can keep; those that came through here are not looked at again.

    Raises:
        ConfigError: One holds half of a surrogate pair.
    """
    if not value:
        return _NO_LABELS
    if isinstance(value, MappingProxyType):  # came through here before
        return value
    for name, text in value.items():
        check_text(name + text, "labels")
    return MappingProxyType(dict(sorted(value.items())))


def _measures(value: Mapping[str, int] | None) -> Mapping[str, int]:
    if not value:
        return _NO_USAGE
    if isinstance(value, MappingProxyType):  # made of whole numbers by whom made it read-only
        return value
    for name, number in value.items():
        if type(number) is not int or abs(number) > MAX_AMOUNT:
            raise ConfigError(f"usage is counted in whole numbers; {name} is {number!r}", field="usage")
    return MappingProxyType(dict(value))


@attrs.frozen(init=False)
class Hold:
    """What is set aside for one attempt, in all buckets at once or not at all.

    Attributes:
        id: The hold's id, unique for ever: the attempt's id with the plugin's name. At most 200 characters.
        claims: What it takes; one bucket of a kind at most once. Many holds may share one ``Claims``.
        call_id: Id of the call.
        amounts: What it takes of each claim, in place of the claims' own amounts.
        estimate: What is booked for each claim when its time runs out after dispatch; the whole
            amounts by default.
        expires_in: Seconds after which it ends by itself; the store's clock counts them, so that
            callers with other clocks agree.
        dispatched: Whether it counts as dispatched from the start, which saves the call of ``dispatch``.
        labels: Whose usage this is (``model``, ``virtual_key``, ``team`` …); bounded sets only,
            never text of users.
        usage: What is counted as usage when its time runs out after dispatch.
        note: Kept with the hold, for people: the version of the prices, say.

    Raises:
        ConfigError: A bucket is claimed twice, an amount or estimate is missing, a number is out of range, or a
            text has no form in UTF-8.
    """

    id: str
    claims: Claims
    call_id: str
    amounts: tuple[int, ...]
    estimate: tuple[int, ...]
    expires_in: float
    dispatched: bool
    labels: Mapping[str, str]
    usage: Mapping[str, int]
    note: str

    def __init__(
        self,
        id: str,  # noqa: A002 - as of every record here
        claims: Iterable[Claim],
        *,
        call_id: str = "",
        amounts: Iterable[int] = (),
        estimate: Iterable[int] = (),
        expires_in: float = 120.0,
        dispatched: bool = False,
        labels: Mapping[str, str] | None = None,
        usage: Mapping[str, int] | None = None,
        note: str = "",
    ) -> None:
        """One is made for every attempt: written out, as a converter and a validator for each field take longer."""
        if not 0 < len(id) <= 200:
            raise ConfigError("the id of a hold has 1 to 200 characters", field="id")
        if not 0 < expires_in < 1e10:
            raise ConfigError(f"a hold lasts longer than 0 seconds, not {expires_in!r}", field="expires_in")
        if not (id.isascii() and call_id.isascii() and note.isascii()):
            for text, field in ((id, "id"), (call_id, "call_id"), (note, "note")):
                check_text(text, field)
        if type(claims) is not Claims:
            claims = Claims(claims)
        taken = tuple(amounts) or tuple([claim.amount for claim in claims])
        _check_whole(taken, len(claims), "amount", "amounts")
        booked = tuple(estimate) or taken
        if booked is not taken:
            _check_whole(booked, len(claims), "estimate", "estimate")
        put = object.__setattr__
        put(self, "id", id)
        put(self, "claims", claims)
        put(self, "call_id", call_id)
        put(self, "amounts", taken)
        put(self, "estimate", booked)
        put(self, "expires_in", expires_in)
        put(self, "dispatched", dispatched)
        put(self, "labels", labels if type(labels) is MappingProxyType else checked_labels(labels))
        put(self, "usage", usage if type(usage) is MappingProxyType else _measures(usage))
        put(self, "note", note)


@attrs.frozen
class Granted:
    """The hold is taken in every bucket.

    Attributes:
        expires_at: UTC second at which it ends by itself, on the store's clock.
        repeated: It was taken before, with the same claims.
    """

    expires_at: float
    repeated: bool = False


@attrs.frozen
class Denied:
    """One bucket has too little left; nothing was taken anywhere.

    Attributes:
        index: Which claim: the first in the hold's order that does not fit.
        bucket: Its bucket.
        limit: Its limit.
        spent: What is spent in the running epoch; in windows, all that counts now.
        held: What is held for attempts in flight; 0 in windows.
        resets_at: Counters: UTC second at which the epoch ends; None when it never does.
        retry_after: Windows: seconds until the amount fits if nothing else comes, exact; None when it
            is greater than the limit itself. Counters: seconds until ``resets_at``.
    """

    index: int
    bucket: str
    limit: int
    spent: int
    held: int
    resets_at: float | None = None
    retry_after: float | None = None


class HoldState(enum.StrEnum):
    """How a hold ended."""

    RELEASED = "released"
    SETTLED = "settled"
    EXPIRED = "expired"  # its time ran out: 0 before dispatch, else the estimate, which is uncertain
    ADJUSTED = "adjusted"  # settled late, after it had expired, or corrected by ``adjust``


@attrs.frozen
class Crossing:
    """Spending reached a threshold for the first time in an epoch.

    Attributes:
        bucket: Name of the counter.
        epoch: UTC second at which its period began.
        threshold: The amount that was reached.
        spent: What is spent now.
    """

    bucket: str
    epoch: int
    threshold: int
    spent: int


@attrs.frozen
class Ended:
    """How a hold ended.

    Attributes:
        id: The hold's id.
        state: In which way.
        amounts: What was booked for each claim; 0 for places.
        dispatched: Whether it had been dispatched.
        crossings: Thresholds that this end reached: announced by no other. They come again when the
            same end is asked for again, so that none is lost with an acknowledgement.
        repeated: The hold had ended before; this is that result.
        call_id: Id of the call.
        labels: Labels of the hold.
    """

    id: str
    state: HoldState
    amounts: tuple[int, ...]
    dispatched: bool = False
    crossings: tuple[Crossing, ...] = ()
    repeated: bool = False
    call_id: str = ""
    labels: Mapping[str, str] = attrs.field(default=None, converter=checked_labels)

    @property
    def uncertain(self) -> bool:
        """Whether nobody has said what was really spent."""
        return self.state is HoldState.EXPIRED and self.dispatched


@attrs.frozen
class BucketState:
    """What a bucket holds now.

    Attributes:
        bucket: Its name.
        spent: What is spent in the running epoch; in windows, all that counts now; in places 0.
        held: What is held for attempts in flight; in windows 0, as both count alike.
        epoch: UTC second at which the running epoch began; 0 where there are none.
        ends_at: UTC second at which it ends; None when never.
    """

    bucket: str
    spent: int
    held: int
    epoch: int = 0
    ends_at: float | None = None


@attrs.frozen
class OpenHold:
    """A hold that has not ended.

    Attributes:
        id: The hold's id.
        call_id: Id of the call.
        amounts: What it holds, in the order of its claims.
        buckets: Names of its buckets, in that order.
        dispatched: Whether its request may have been sent.
        expires_at: UTC second at which it ends by itself.
        labels: Its labels.
        note: Its note.
    """

    id: str
    call_id: str
    amounts: tuple[int, ...]
    buckets: tuple[str, ...]
    dispatched: bool
    expires_at: float
    labels: Mapping[str, str] = attrs.field(converter=checked_labels)
    note: str = ""


@attrs.frozen
class Correction:
    """An entry of the ledger that no attempt made.

    Attributes:
        id: Its id; that of the hold for an adjustment.
        bucket: Name of the counter.
        epoch: Epoch that it belongs to.
        delta: What it added to spending; may be negative.
        reason: Why, in the words of who made it.
        at: UTC second.
    """

    id: str
    bucket: str
    epoch: int
    delta: int
    reason: str
    at: float


@attrs.frozen
class UsageCell:
    """Usage of one combination of labels.

    Attributes:
        labels: The labels that were asked for; ``hour`` is the UTC second at which it began, in digits.
        values: Sums by name (``pico_usd``, ``input_tokens``, ``calls`` …), exact.
    """

    labels: Mapping[str, str] = attrs.field(converter=checked_labels)
    values: Mapping[str, int] = attrs.field(converter=_measures)


class Store(Protocol):
    """Where budgets, rate limits and virtual keys keep what they share.

    Use it as ``async with store`` or with ``start`` and ``aclose``; both may be repeated, and several
    plugins may share one store: the last to close it closes it. All operations raise ``StoreError``
    when the store fails; what then happened is unknown, and repeating the operation is safe.

    A store none of whose operations ever waits may say so with an attribute ``never_waits = True``: plugins
    then run them on the spot, without a limit of time.
    """

    async def start(self) -> None:
        """Open it; counts how often.

        Raises:
            StoreError: It can not be reached, or its data are of a newer version or broken.
        """
        ...

    async def aclose(self) -> None:
        """Close it once it was closed as often as it was started. What was acknowledged is kept."""
        ...

    async def __aenter__(self) -> Self:
        """Start."""
        ...

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        ...

    # The ledger.

    async def reserve(self, hold: Hold) -> Granted | Denied:
        """Take all claims of a hold, or none of them.

        Raises:
            LedgerConflictError: A hold of this id has ended, or is open with other claims.
        """
        ...

    async def dispatch(self, hold_id: str) -> None:
        """Say that the first byte is about to be written: from now on its end by time books the estimate.

        Raises:
            LedgerConflictError: The hold has ended or never was; do not send.
        """
        ...

    async def extend(self, hold_id: str, expires_in: float) -> bool:
        """Let a hold last at least ``expires_in`` seconds from now; False when it has ended or never was."""
        ...

    async def settle(self, hold_id: str, amounts: Sequence[int], usage: Mapping[str, int] | None = None) -> Ended:
        """End a hold with what was really used, in the epoch in which it was taken.

        Never refuses because of a limit or the time: what was used is booked. After the hold's own
        end by time, the first settlement books the difference.

        Args:
            hold_id: Id of the hold.
            amounts: One per claim, in order; more than was held is booked too. Places ignore theirs.
            usage: What to count under the hold's labels in the running hour; None counts nothing.

        Raises:
            LedgerConflictError: It ended before with other amounts, or never was.
        """
        ...

    async def release(self, hold_id: str) -> Ended:
        """End a hold with 0: the request was not processed.

        Of an id that is unknown it is remembered, so that a reservation whose acknowledgement was lost
        and that arrives late takes nothing.

        Raises:
            LedgerConflictError: It was settled before with amounts other than 0.
        """
        ...

    async def adjust(
        self, hold_id: str, amounts: Sequence[int], *, reason: str, usage: Mapping[str, int] | None = None
    ) -> Ended:
        """Replace what an ended hold booked, from the provider's bill; an entry says so.

        Args:
            hold_id: Id of a hold that has ended and is remembered.
            amounts: What it should have booked, one per claim.
            reason: Why, for the entry.
            usage: What it should have counted as usage; None leaves that as it is.

        Raises:
            LedgerConflictError: The hold is open or not known.
        """
        ...

    async def expire_due(self, limit: int = 1_000) -> list[Ended]:
        """End holds whose time has run out, at most ``limit``, the longest overdue first.

        What was not dispatched is released, the rest is booked with its estimate. Each hold is
        returned to one caller only. Call it every few seconds.
        """
        ...

    async def read(self, claims: Sequence[Claim]) -> list[BucketState]:
        """What the buckets of ``claims`` hold now, at one moment; amounts and limits are not looked at."""
        ...

    async def correct(
        self, claim: Claim, *, correction_id: str, reason: str, delta: int | None = None, to: int | None = None
    ) -> BucketState:
        """Change the spending of a counter by an entry of its own: the only way to lower it by hand.

        Args:
            claim: Names the counter and its period; its amount and limit are not looked at.
            correction_id: Makes repeating it safe.
            reason: Why, for the entry.
            delta: What to add; may be negative.
            to: Instead: what spending shall be.

        Raises:
            LedgerConflictError: Spending would become negative.
            ConfigError: Not exactly one of ``delta`` and ``to``, or the claim is no counter's.
        """
        ...

    async def holds(self, limit: int = 1_000) -> list[OpenHold]:
        """Holds that are open, at most ``limit``, those that end first first."""
        ...

    async def corrections(self, limit: int = 1_000) -> list[Correction]:
        """The latest corrections and adjustments, newest first."""
        ...

    # Usage.

    async def usage(
        self,
        since: float,
        until: float,
        *,
        by: Sequence[str] = (),
        where: Mapping[str, str] | None = None,
    ) -> list[UsageCell]:
        """Sums of usage, ordered by their labels.

        Args:
            since: UTC second; rounded down to the hour.
            until: UTC second, not included; rounded up to the hour.
            by: Labels to keep apart; ``"hour"`` is one of them. None: one sum of everything.
            where: Only what has these labels.
        """
        ...

    # Keys and values.

    async def get(self, key: str) -> bytes | None:
        """The value of a key; None when there is none, or its time has run out.

        Raises:
            ConfigError: The key has no form in UTF-8; ``put`` and ``delete`` refuse it, too.
        """
        ...

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl: float | None = None,
        if_absent: bool = False,
        expect: bytes | None = None,
    ) -> bool:
        """Set a value; False when the condition did not hold and nothing was changed.

        Args:
            key: Name of it.
            value: Its bytes.
            ttl: Seconds after which it is gone; None keeps it. A new value has the new ``ttl``.
            if_absent: Only if there is no value.
            expect: Only if the value is this one: read, change and try again, and no update is lost.
        """
        ...

    async def delete(self, key: str, *, expect: bytes | None = None) -> bool:
        """Remove a key; whether there was one (and it had the value ``expect``)."""
        ...

    async def items(self, prefix: str = "") -> list[tuple[str, bytes]]:
        """All keys that begin with ``prefix`` and their values, ordered by key."""
        ...
