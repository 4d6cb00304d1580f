"""Server-sent events: any split of the bytes, every legal spelling, hard caps."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.providers._sse import SseParser


def parse(*pieces: bytes) -> list[tuple[bytes, bytes]]:
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"data: a\n\n", [(b"", b"a")], id="one-event"),
        pytest.param(b"data:a\n\n", [(b"", b"a")], id="no-space-after-the-colon"),
        pytest.param(b"data:  a\n\n", [(b"", b" a")], id="only-one-space-is-dropped"),
        pytest.param(b"data: a\ndata: b\n\n", [(b"", b"a\nb")], id="several-data-lines"),
        pytest.param(b"data\n\n", [(b"", b"")], id="data-without-a-colon"),
        pytest.param(b"event: x\ndata: a\n\ndata: b\n\n", [(b"x", b"a"), (b"", b"b")], id="a-name-is-for-one-event"),
        pytest.param(b"event: x\n\ndata: b\n\n", [(b"", b"b")], id="a-name-without-data-is-no-event"),
        pytest.param(b": hello\n\n:\ndata: a\n\n", [(b"", b"a")], id="comments"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [(b"", b"a")], id="byte-order-mark"),
        pytest.param(b"data: a\r\n\r\n", [(b"", b"a")], id="crlf"),
        pytest.param(b"data: a\r\rdata: b\r\r", [(b"", b"a"), (b"", b"b")], id="cr"),
        pytest.param(b"data: a\n\r\ndata: b\r\r\n", [(b"", b"a"), (b"", b"b")], id="mixed-line-ends"),
        pytest.param(
            "data: a\u2028b\x85c\x0bd\n\n".encode(), [(b"", "a\u2028b\x85c\x0bd".encode())], id="other-breaks"
        ),
        pytest.param(b"other: 1\nid: 2\nretry: 3\ndata: a\n\n", [(b"", b"a")], id="further-fields"),
        pytest.param(b"data: a\n", [], id="an-event-without-its-end"),
        pytest.param(b"data: a\n\n\n\n\n", [(b"", b"a")], id="further-empty-lines"),
    ],
)
def test_every_legal_spelling_is_read(stream: bytes, events: list[tuple[bytes, bytes]]) -> None:
    assert parse(stream) == events
    assert parse(*(stream[at : at + 1] for at in range(len(stream)))) == events


def test_id_and_retry_are_kept_when_they_are_valid() -> None:
    parser = SseParser()
    parser.feed(b"id: 7\nretry: 250\n\nid: a\0b\nretry: soon\n\n")
    assert (parser.last_id, parser.retry) == (b"7", 250)


_LINES = st.lists(
    st.one_of(
        st.binary(max_size=12).map(lambda text: b"data: " + text.replace(b"\r", b"").replace(b"\n", b"")),
        st.sampled_from([b"", b"", b": note", b"event: e", b"data", b"id: 1", b"\xef\xbb\xbfdata: x", b"junk"]),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(
    lines=_LINES,
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    mark=st.booleans(),
    cuts=st.lists(st.integers(0, 200), max_size=20),
)
def test_any_split_gives_the_same_events(lines: list[bytes], end: bytes, mark: bool, cuts: list[int]) -> None:
    stream = (b"\xef\xbb\xbf" if mark else b"") + end.join([*lines, b""])
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[begin:stop] for begin, stop in itertools.pairwise(places)]
    assert parse(*pieces) == parse(stream)
    if end != b"\n":
        plain = (b"\xef\xbb\xbf" if mark else b"") + b"\n".join([*lines, b""])
        assert parse(stream) == parse(plain)


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20], ids=lambda size: f"pieces-of-{size}")
def test_an_event_without_end_is_refused_at_the_cap(size: int) -> None:
    parser = SseParser(max_event=64 * 1024)
    fed = 0
    while not parser.overflow and fed < 8_000_000:
        assert parser.feed(b"x" * size) == []
        fed += size
    assert parser.overflow == "an event of more than 65536 bytes"
    assert fed <= 64 * 1024 + size
    assert parser.feed(b"\n\ndata: a\n\n") == []


def test_many_small_lines_of_one_event_count_together() -> None:
    parser = SseParser(max_event=1000)
    parser.feed(b"data: 12345\n" * 100)
    assert parser.overflow


def test_keep_alive_comments_may_go_on_for_ever() -> None:
    parser = SseParser(max_event=1000)
    parser.feed(b": still here\n" * 1000)
    assert parser.feed(b"data: a\n\n") == [(b"", b"a")]
    assert not parser.overflow


def test_events_before_the_cap_are_still_given() -> None:
    parser = SseParser(max_event=100)
    assert parser.feed(b"data: a\n\n" + b"x" * 200) == [(b"", b"a")]
    assert parser.overflow


def test_a_stream_is_capped_as_a_whole() -> None:
    parser = SseParser(max_total=100)
    for _ in range(20):
        parser.feed(b"data: abc\n\n")
    assert parser.overflow == "more than 100 bytes"


def test_eight_megabytes_without_an_event_end_cost_little() -> None:
    parser = SseParser()
    piece = b"x" * 16_384
    before = time.process_time()
    for _ in range(512):
        parser.feed(piece)
    assert time.process_time() - before < 0.2
    assert parser.overflow


def test_what_is_left_at_the_end_can_be_looked_at() -> None:
    parser = SseParser()
    parser.feed(b"event: e\ndata: a\ndata: b")
    assert parser.flush() == (b"e", b"a\nb")
    assert parser.flush() is None
