"""Single flight: of identical calls at one time, one asks the provider and the others wait for its answer.

The one that asks *leads*. How its call ended decides:

- its answer is kept: all get it;
- it was cancelled or failed: the longest waiting one leads, the others wait on. A failure is not shared, and no herd
  of calls meets a provider that has just failed;
- it succeeded with an answer that may not be kept (cut off, or another model's): all go on by themselves, as without
  a cache: waiting in line for answers that can not be shared would only take longer.

No step waits, so nothing can come between two of them; a wake-up is a field set before the event.
"""

from __future__ import annotations

from enum import Enum, auto

import anyio
import attrs

from bifrost_core.cache_options import CacheOption

__all__ = ["Flight", "Flights", "Ticket", "Turn"]


class Turn(Enum):
    """What a waiting call does next."""

    ANSWER = auto()  # take the leader's answer
    LEAD = auto()  # ask the provider, for those who wait on
    GO = auto()  # ask the provider, for itself


@attrs.define(eq=False)
class Ticket:
    """What the cache knows about one call.

    Attributes:
        key: Key of its request.
        model: ``"provider/model"`` that it asks for.
        option: What it said about caching.
        is_stream: Its answer comes in chunks.
        may_lead: It may ask a provider.
        leads: The flight that it leads: whoever ends the call has to end or hand over that, too.
        place: The vector of its text and where that belongs, once embedded.
        turn: What it does next, once it is woken.
    """

    key: str
    model: str
    option: CacheOption
    is_stream: bool = False
    may_lead: bool = True
    leads: Flight | None = None
    place: object = None
    turn: Turn | None = None
    woken: anyio.Event | None = None
    scope: anyio.CancelScope | None = None

    def wake(self, turn: Turn) -> None:
        """Let the call go on."""
        self.turn = turn
        if self.woken is not None:
            self.woken.set()


@attrs.define(eq=False)
class Flight:
    """A call on its way to the provider, and who waits for its answer.

    Attributes:
        key: Key of the request.
        is_stream: The leader's answer comes in chunks, as slowly as its reader reads.
        data: The answer, at the end.
        waiting: In the order in which they came.
    """

    key: str
    is_stream: bool
    data: bytes | None = None
    waiting: dict[Ticket, None] = attrs.field(factory=dict[Ticket, None])


class Flights:
    """The flights of one cache.

    Args:
        max_waiting: Calls that may wait, over all flights; one more goes on by itself.
        patience: Seconds to wait for a leader that streams, whose reader may stop reading; the leader of a plain
            call has a deadline.
    """

    def __init__(self, max_waiting: int, patience: float) -> None:
        self._max_waiting = max_waiting
        self._patience = patience
        self._by_key: dict[str, Flight] = {}
        self.waiting = 0

    def find(self, key: str) -> Flight | None:
        """The flight that is under way for ``key``."""
        return self._by_key.get(key)

    def lead(self, ticket: Ticket) -> None:
        """Make the call the leader of a new flight. There is none for its key."""
        ticket.leads = self._by_key[ticket.key] = Flight(ticket.key, ticket.is_stream)

    async def follow(self, flight: Flight, ticket: Ticket) -> Turn:
        """Wait for one's turn. A call that is cancelled meanwhile waits no more, and may find that it leads."""
        if self.waiting >= self._max_waiting:
            return Turn.GO
        ticket.woken = anyio.Event()
        flight.waiting[ticket] = None
        self.waiting += 1
        try:
            with anyio.CancelScope() as ticket.scope:
                if flight.is_stream:
                    self._bound(ticket)
                await ticket.woken.wait()
        finally:
            self.waiting -= 1
            flight.waiting.pop(ticket, None)
            ticket.woken = ticket.scope = None
        return Turn.GO if ticket.turn is None else ticket.turn

    def land(self, flight: Flight, data: bytes) -> None:
        """The leader's answer is there for all."""
        flight.data = data
        self._end(flight, Turn.ANSWER)

    def scatter(self, flight: Flight) -> None:
        """There is no answer that could be shared."""
        self._end(flight, Turn.GO)

    def hand_over(self, flight: Flight, place: object = None) -> None:
        """The leader brings no answer: the next one leads, and need not find ``place`` again."""
        heir = next((ticket for ticket in flight.waiting if ticket.may_lead), None)
        if heir is None:
            self._end(flight, Turn.GO)
            return
        del flight.waiting[heir]
        # From here on the flight is the heir's, also if that is cancelled before it runs again.
        heir.leads, heir.place = flight, place
        flight.is_stream = heir.is_stream
        heir.wake(Turn.LEAD)
        if flight.is_stream:
            for ticket in flight.waiting:
                self._bound(ticket)

    def _end(self, flight: Flight, turn: Turn) -> None:
        self._by_key.pop(flight.key, None)
        waiting, flight.waiting = flight.waiting, {}
        for ticket in waiting:
            ticket.wake(turn)

    def _bound(self, ticket: Ticket) -> None:
        if ticket.scope is not None:
            ticket.scope.deadline = min(ticket.scope.deadline, anyio.current_time() + self._patience)
