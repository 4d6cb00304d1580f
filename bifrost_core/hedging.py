"""Two attempts of one call beside each other: when the second is sent, and which of them answers.

A hedge trades money for the tail of the latency: a second attempt, sent only when the first is slower than nearly
all of its like, costs one more answer in a few per cent of the calls.

Source:
    Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013 (hedged requests).
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

import anyio
import attrs

from ._errors import ConfigError

__all__ = ["AnswerTimes", "Contender", "Hedge", "race"]

_T = TypeVar("_T")

_PERCENTILE: Final = re.compile(r"p([1-9][0-9]?(?:\.[0-9]{1,3})?)")
_KEPT: Final = 200  # answers that a percentile is taken of
_LEAST: Final = 20  # answers before there is one: the 95th percentile of fewer is their greatest


def _patience(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, str) and _PERCENTILE.fullmatch(value):
        return
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf:
        return
    raise ConfigError(
        f"hedge: after is a percentile such as 'p95', or seconds > 0, not {value!r}", field=f"hedge.{field.name}"
    )


@attrs.frozen
class Hedge:
    """A second attempt on another key when the first is slow to answer.

    It is sent at most once a call, never where a second execution may do harm (``effects="possible"``), and paid
    with a token of the deployment's retry budget. Whichever attempt answers first is the answer (of a stream: its
    first content; of a plain call: the whole answer); the other is cancelled, and the provider may charge it.

    Attributes:
        after: When to send it: a percentile (``"p95"``) of the times to first token that the deployment's last
            200 answers took (of plain calls: of their latencies), from the twentieth answer on; or seconds.

    Raises:
        ConfigError: ``after`` is neither.
    """

    after: str | float = attrs.field(default="p95", validator=_patience)

    def seconds(self, times: AnswerTimes) -> float | None:
        """Seconds to wait for the first attempt; None while too few answers are known."""
        if not isinstance(self.after, str):
            return float(self.after)
        return times.percentile(float(self.after[1:]))


class AnswerTimes:
    """How long the last answers took, in seconds; bounded."""

    __slots__ = ("_last", "_sorted")

    def __init__(self) -> None:
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """One more answer; past 200 the oldest is forgotten."""
        if len(self._last) >= _KEPT:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]
        self._last.append(seconds)
        insort(self._sorted, seconds)

    def percentile(self, percent: float) -> float | None:
        """The nearest-rank percentile, ``percent`` in 0 to 100; None of fewer than 20 answers."""
        count = len(self._sorted)
        if count < _LEAST:
            return None
        return self._sorted[min(count, max(1, math.ceil(count * percent / 100))) - 1]


@attrs.define(eq=False)
class _Race:
    """What the attempts of one race share."""

    contenders: list[Contender[Any]] = attrs.field(factory=list["Contender[Any]"])
    winner: Contender[Any] | None = None
    begun: anyio.Event = attrs.field(factory=anyio.Event)


class Contender(Generic[_T]):
    """One attempt in a race.

    Attributes:
        result: What it came to; None while it runs, and when it lost.
    """

    def __init__(self, race: _Race, attempt: Callable[[Contender[_T]], Awaitable[_T]]) -> None:
        self.result: _T | None = None
        self.error: Exception | None = None
        self._race = race
        self._attempt = attempt
        self._scope = anyio.CancelScope()
        race.contenders.append(self)

    @property
    def has_lost(self) -> bool:
        """Whether another attempt answers."""
        return self._race.winner not in (None, self)

    async def claim(self) -> None:
        """Say that this attempt answers: the others are ended. Does not return where another was first."""
        race = self._race
        if race.winner is None:
            race.winner = self
            race.begun.set()
            for other in race.contenders:
                if other is not self:
                    other._scope.cancel()  # noqa: SLF001 # of the same race
        elif race.winner is not self:
            await anyio.sleep_forever()  # its scope is cancelled

    async def run(self) -> None:
        """Run the attempt; cancelled when another wins. Raises nothing but a cancellation from outside."""
        with self._scope:
            try:
                self.result = await self._attempt(self)
            except Exception as exc:  # told by whoever asks for the results
                self.error = exc
        self._race.begun.set()


async def race(
    attempt: Callable[[Contender[_T]], Awaitable[_T]],
    challenge: Callable[[], Awaitable[Callable[[Contender[_T]], Awaitable[_T]] | None]],
    after: float,
) -> list[_T]:
    """Run an attempt, and a second one beside it when the first has not begun to answer in time.

    Args:
        attempt: The first. It calls ``claim`` of its contender when it begins to answer.
        challenge: Makes the second, or None when there is nothing to send it on; asked at most once.
        after: Seconds to wait for the first.

    Returns:
        What those attempts came to that were not ended by the other: the winner's, last of the list; without a
        winner those of all, in the order of their start.

    Raises:
        Exception: What an attempt raised, where no other won.
    """
    shared = _Race()
    first = Contender(shared, attempt)
    async with anyio.create_task_group() as group:
        group.start_soon(first.run)
        with anyio.move_on_after(after):
            await shared.begun.wait()
        if not shared.begun.is_set():
            second = await challenge()
            # The first may have begun to answer, or have failed, while the second was being chosen.
            if second is not None and not shared.begun.is_set():
                group.start_soon(Contender(shared, second).run)
    ended = [one for one in shared.contenders if one is not shared.winner]
    results = [one.result for one in ended if one.result is not None]
    if shared.winner is not None:
        if shared.winner.error is not None:
            raise shared.winner.error
        if shared.winner.result is not None:
            return [*results, shared.winner.result]
    for one in ended:
        if one.error is not None:
            raise one.error
    return results
