"""Pieces of a body that have arrived together are given out as one, and nothing else changes."""

from __future__ import annotations

from typing import Any

import h11
import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bifrost_core.engines._h11 import join_pieces

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n"
END = b"0\r\n\r\n"


class Unused(httpcore.AsyncNetworkStream):
    """A socket that nobody asks for anything."""


def machine() -> Any:
    """The state machine of a new connection, joined, with a request on its way."""
    connection = httpcore.AsyncHTTP11Connection(origin=httpcore.Origin(b"http", b"x", 80), stream=Unused())
    join_pieces(connection)
    made = connection._h11_state
    ask(made)
    return made


def ask(made: Any) -> None:
    made.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    made.send(h11.EndOfMessage())


def events(made: Any) -> list[Any]:
    """What h11 says until it wants more bytes or the answer is over."""
    found: list[Any] = []
    while (event := made.next_event()) is not h11.NEED_DATA:
        found.append(event)
        if type(event) is h11.EndOfMessage:
            break
    return found


def data(found: list[Any]) -> list[bytes]:
    return [bytes(event.data) for event in found if type(event) is h11.Data]


def test_the_pieces_of_one_read_come_as_one() -> None:
    made = machine()
    made.receive_data(HEAD + BODY + END)
    found = events(made)
    assert [type(event) for event in found] == [h11.Response, h11.Data, h11.EndOfMessage]
    assert data(found) == [b"onetwothree"]


def test_nothing_waits_for_what_has_not_come() -> None:
    made = machine()
    made.receive_data(HEAD + BODY[:8])
    assert data(events(made)) == [b"one"]
    made.receive_data(BODY[8:])
    assert data(events(made)) == [b"twothree"]
    made.receive_data(END)
    assert [type(event) for event in events(made)] == [h11.EndOfMessage]


def test_what_came_before_a_break_is_given_out_before_it_is_told() -> None:
    made = machine()
    made.receive_data(HEAD + BODY + b"no size\r\n")
    assert type(made.next_event()) is h11.Response
    assert bytes(made.next_event().data) == b"onetwothree"
    for _ in range(2):  # and it stays broken
        with pytest.raises(h11.RemoteProtocolError):
            made.next_event()


def test_the_next_exchange_on_the_connection_starts_afresh() -> None:
    made = machine()
    for _ in range(2):
        made.receive_data(HEAD + BODY + END)
        assert data(events(made)) == [b"onetwothree"]
        made.start_next_cycle()
        ask(made)
    made.receive_data(HEAD + BODY + END)
    assert data([made.next_event(), made.next_event()]) == [b"onetwothree"]
    made.start_next_cycle()  # the end was read and not asked for
    ask(made)
    made.receive_data(HEAD)
    assert [type(event) for event in events(made)] == [h11.Response]


def test_a_body_that_ends_with_the_connection_ends() -> None:
    made = machine()
    made.receive_data(b"HTTP/1.0 200 OK\r\n\r\nall of it")
    found = [made.next_event(), made.next_event()]
    made.receive_data(b"")
    found += events(made)
    assert [type(event) for event in found] == [h11.Response, h11.Data, h11.EndOfMessage]


@given(cuts=st.sets(st.integers(1, len(HEAD + BODY + END) - 1)))
def test_any_split_of_the_bytes_says_what_h11_alone_says(cuts: set[int]) -> None:
    whole = HEAD + BODY + END
    ours, theirs = machine(), h11.Connection(our_role=h11.CLIENT)
    ask(theirs)
    ends = [*sorted(cuts), len(whole)]
    for start, end in zip([0, *ends], ends, strict=False):
        for made in (ours, theirs):
            made.receive_data(whole[start:end])
        mine, plain = events(ours), events(theirs)
        assert b"".join(data(mine)) == b"".join(data(plain))
        assert len(data(mine)) == bool(data(plain))
        assert [type(e) for e in mine if type(e) is not h11.Data] == [type(e) for e in plain if type(e) is not h11.Data]
        assert ours.their_state == theirs.their_state


def test_a_connection_without_such_a_machine_stays_as_it_is() -> None:
    class Later:
        """httpcore as it may be one day."""

    connection = Later()
    join_pieces(connection)
    assert vars(connection) == {}
