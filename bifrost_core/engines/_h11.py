"""h11's state machine for one connection, with the pieces of a body that have arrived given out as one.

A provider sends each event of a stream as an HTTP chunk of its own, and h11 gives out one piece per chunk.
When the network is faster than the reader, one read brings dozens. Each would then go by itself through
every layer above; joined here, in the lowest one, they go through once. Nothing waits for more to come.

Imported with the first connection, like httpcore itself.
"""

from __future__ import annotations

from typing import Any, Final

import h11

__all__ = ["join_pieces"]

_MACHINE: Final = "_h11_state"  # httpcore's and httpcore2's name for it


class _JoiningConnection(h11.Connection):
    """Joins neighbouring ``Data`` events. What follows them, a failure too, comes with the next call."""

    _following: h11.Event | type[h11.NEED_DATA | h11.PAUSED] | h11.RemoteProtocolError | None = None

    def receive_data(self, data: bytes) -> None:
        if self._following is h11.NEED_DATA:
            self._following = None
        super().receive_data(data)

    def next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        following, self._following = self._following, None
        if isinstance(following, h11.RemoteProtocolError):
            raise following
        if following is not None:
            return following
        event = super().next_event()
        if not isinstance(event, h11.Data):
            return event
        pieces = [event.data]
        try:
            while isinstance(after := super().next_event(), h11.Data):
                pieces.append(after.data)
            self._following = after
        except h11.RemoteProtocolError as exc:
            self._following = exc
        return event if len(pieces) == 1 else h11.Data(data=b"".join(pieces))

    def start_next_cycle(self) -> None:
        self._following = None
        super().start_next_cycle()


def join_pieces(connection: Any) -> None:
    """Give an ``AsyncHTTP11Connection`` that has not been used yet a state machine that joins pieces.

    The machine is a private attribute of httpcore's. Where a later version has none of that name, the
    connection stays as it is: streams then cost more and say the same.
    """
    machine = getattr(connection, _MACHINE, None)
    if type(machine) is h11.Connection:
        limit = connection.MAX_INCOMPLETE_EVENT_SIZE
        setattr(connection, _MACHINE, _JoiningConnection(our_role=h11.CLIENT, max_incomplete_event_size=limit))
