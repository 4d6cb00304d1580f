"""How each kind of fault looks on the wire."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
import anyio.lowlevel
import anyio.to_thread

from ._exchange import END, Exchange, chunk
from ._http import response_head
from ._replies import JSON, SSE, TEXT, Event, Reply, as_events, with_usage
from .laws import Fault

__all__ = ["play"]

_Player: TypeAlias = Callable[[Exchange, Fault, Reply], Awaitable[bool]]

_AFTER = 2  # events before a fault in mid-stream
_BLOCK = 64 * 1024
_BIG = 64 * 2**20
_GZIP = 31  # zlib's wbits for a gzip header
_CHUNKED = ("transfer-encoding", "chunked")
_NOISE = b"\x16\x03\x01\x00\x05 220 not the protocol you expected\r\n\r\n"
_PAGE = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>Bad gateway</h1></body></html>\n"
_BROKEN = b'{"id":"0","object":"chat.completion","choices":[{"index":0,"mess'


async def play(exchange: Exchange, fault: Fault, make_reply: Callable[[], Reply]) -> bool:
    """Play a fault.

    Args:
        exchange: The exchange it meets.
        fault: What to do.
        make_reply: Makes the reply that would have been sent; a request that is refused on its own
            account is refused here, unless the fault strikes before the request is looked at.

    Returns:
        Whether the connection can carry another request.

    Raises:
        ApiError: The fault is an error reply, or the request is refused.
        ClientLeftError: The client left.
    """
    early = _EARLY.get(fault.kind)
    if early is None and fault.after is None:
        early = _EARLY_UNLESS_AFTER.get(fault.kind)
    if early is None:
        reply = make_reply()
        exchange.bills = fault.bills is not False
    elif fault.bills:
        reply = make_reply()
        exchange.bill_all(reply)
    else:
        reply = Reply()
    if fault.delay:
        await exchange.conn.pause(fault.delay)
    return await (early or _LATE[fault.kind])(exchange, fault, reply)


# -- before anything is generated --------------------------------------------------------------------------------


async def _status(exchange: Exchange, fault: Fault, _reply: Reply) -> bool:
    raise exchange.fault_error(fault)


async def _hang(exchange: Exchange, _fault: Fault, _reply: Reply) -> bool:
    await exchange.conn.pause(math.inf)
    return False


async def _reset(exchange: Exchange, _fault: Fault, _reply: Reply) -> bool:
    exchange.conn.set_reset()
    return False


async def _close(_exchange: Exchange, _fault: Fault, _reply: Reply) -> bool:
    return False


async def _half_head(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    await exchange.conn.send(response_head(200, [("content-type", "application/json")])[:-12])
    return await _ENDS[fault.then](exchange, fault, reply)


async def _garbage(exchange: Exchange, fault: Fault, _reply: Reply) -> bool:
    await exchange.conn.send(_NOISE if fault.body is None else fault.body)
    return False


async def _html(exchange: Exchange, fault: Fault, _reply: Reply) -> bool:
    page = _PAGE if fault.body is None else fault.body
    headers = [*fault.headers.items(), ("content-length", str(len(page)))]
    await exchange.finish(exchange.head(fault.status or 200, "text/html; charset=UTF-8", headers) + page)
    return True


async def _empty(exchange: Exchange, fault: Fault, _reply: Reply) -> bool:
    kind = SSE if exchange.record.stream else JSON
    status = fault.status or 200
    length = [] if status in {204, 304} else [("content-length", "0")]
    await exchange.finish(exchange.head(status, kind, [*fault.headers.items(), *length]))
    return True


_ENDS: dict[str, _Player] = {"hang": _hang, "reset": _reset, "close": _close}
_EARLY: dict[str, _Player] = {
    "status": _status,
    "half_head": _half_head,
    "garbage": _garbage,
    "html": _html,
    "empty": _empty,
}
_EARLY_UNLESS_AFTER = _ENDS

# -- in the course of an answer ----------------------------------------------------------------------------------


def _before(fault: Fault, reply: Reply) -> list[Event]:
    """The events sent before a fault in mid-stream: never the one with the finish reason."""
    return reply.events[: min(_AFTER if fault.after is None else fault.after, max(0, len(reply.events) - reply.tail))]


def _length(size: int) -> tuple[str, str]:
    """The header that states a body's length."""
    return "content-length", str(max(0, size))


async def _cut(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    """Send a part and end there, in the way of the fault's kind."""
    if reply.events:
        sent = _before(fault, reply)
        await exchange.send_events(reply, sent)
        if fault.kind == "half_body":
            following = chunk(reply.events[len(sent)].data)
            await exchange.conn.send(following[: len(following) // 2])
    else:
        await exchange.send_plain(reply, _length(len(reply.body)), reply.body[: len(reply.body) // 2], last=False)
    return await _ENDS[fault.then if fault.kind == "half_body" else fault.kind](exchange, fault, reply)


async def _hold(exchange: Exchange, _fault: Fault, reply: Reply) -> bool:
    await exchange.hold()
    await exchange.send(reply)
    return True


async def _truncate(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    if reply.events:
        await exchange.send_events(reply, _before(fault, reply), end=END)
    else:
        reply.body = reply.body[: len(reply.body) // 2]
        await exchange.send(reply)
    return True


async def _no_done(exchange: Exchange, _fault: Fault, reply: Reply) -> bool:
    if exchange.service.vendor.is_end(reply.events[-1].data):
        reply.events.pop()
    await exchange.send(reply)
    return True


async def _not_json(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    broken = _BROKEN if fault.body is None else fault.body
    if reply.events:
        at = len(_before(fault, reply))
        reply.events.insert(at, Event(reply.events[at - 1].tokens if at else 0, b"data: " + broken + b"\n\n"))
    else:
        reply.body = broken
    await exchange.send(reply)
    return True


async def _error_event(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    frame = exchange.service.vendor.error_event(fault, reply.events[0].data)
    sent = _before(fault, reply)
    await exchange.send_events(reply, [*sent, Event(sent[-1].tokens if sent else 0, frame)], end=END)
    return True


async def _comments_only(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    await exchange.send_events(reply, _before(fault, reply))
    while True:
        await exchange.conn.pause(fault.pause)
        await exchange.conn.send(chunk(b": still here\n\n"))


async def _slow_drip(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    size = max(1, fault.size or 16)
    if reply.events:
        data = b"".join(event.data for event in reply.events)
        await exchange.send_plain(reply, _CHUNKED, b"", last=False)
    else:
        data = reply.body
        await exchange.send_plain(reply, _length(len(data)), b"", last=False)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    if reply.events:
        pieces = [*map(chunk, pieces), END]
    for piece in pieces[:-1]:
        await exchange.conn.send(piece)
        await exchange.conn.pause(fault.pause)
    await exchange.finish(pieces[-1])
    return True


async def _wrong_length(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    off = 16 if fault.size is None else fault.size
    if reply.events:
        sent = _before(fault, reply)
        await exchange.send_events(reply, sent)
        following = reply.events[len(sent)].data
        await exchange.finish(b"%x\r\n%b\r\n" % (max(1, len(following) + off), following))
    else:
        await exchange.send_plain(reply, _length(len(reply.body) + off), reply.body, last=True)
    return False


async def _gzip(exchange: Exchange, _fault: Fault, reply: Reply) -> bool:
    packer = zlib.compressobj(wbits=_GZIP)
    reply.headers.append(("content-encoding", "gzip"))
    if not reply.events:
        reply.body = packer.compress(reply.body) + packer.flush()
        await exchange.send(reply)
        return True

    def frame(data: bytes) -> list[bytes]:
        return [chunk(packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))]

    await exchange.send_events(reply, reply.events, frame=frame)
    await exchange.finish(chunk(packer.flush()) + END)
    return True


def _around(fault: Fault, reply: Reply) -> tuple[bytes, int, bytes]:
    """A body that stays right with any number of blanks inside: before, how many, after."""
    size = _BIG if fault.size is None else fault.size
    if not reply.events:
        return reply.body, max(0, size - len(reply.body)), b""
    at = len(_before(fault, reply))
    before = b"".join(event.data for event in reply.events[: at + 1]).removesuffix(b"\n\n")
    after = b"\n\n" + b"".join(event.data for event in reply.events[at + 1 :])
    return before, max(0, size - len(before) - len(after)), after


async def _gzip_bomb(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    before, blanks, after = _around(fault, reply)

    def pack() -> bytes:
        packer = zlib.compressobj(wbits=_GZIP)
        parts = [packer.compress(before)]
        parts += [packer.compress(b" " * min(_BLOCK, blanks - at)) for at in range(0, blanks, _BLOCK)]
        parts += [packer.compress(after), packer.flush()]
        return b"".join(parts)

    body = await anyio.to_thread.run_sync(pack)
    reply.headers.append(("content-encoding", "gzip"))
    await exchange.send_plain(reply, _length(len(body)), body, last=True)
    return True


async def _oversized(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    before, blanks, after = _around(fault, reply)
    await exchange.send_plain(reply, _CHUNKED, chunk(before), last=False)
    for at in range(0, blanks, _BLOCK):
        await exchange.conn.send(chunk(b" " * min(_BLOCK, blanks - at)))
        await anyio.lowlevel.checkpoint()
    await exchange.finish((chunk(after) if after else b"") + END)
    return True


async def _crlf(exchange: Exchange, _fault: Fault, reply: Reply) -> bool:
    reply.events = [Event(event.tokens, event.data.replace(b"\n", b"\r\n")) for event in reply.events]
    await exchange.send(reply)
    return True


async def _bom(exchange: Exchange, _fault: Fault, reply: Reply) -> bool:
    first, *rest = reply.events
    reply.events = [Event(first.tokens, b"\xef\xbb\xbf" + first.data), *rest]
    await exchange.send(reply)
    return True


async def _split(exchange: Exchange, _fault: Fault, reply: Reply) -> bool:
    rng: random.Random = exchange.rng

    def frame(data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        while data:
            size = rng.randint(1, 9)
            pieces.append(chunk(data[:size]))
            data = data[size:]
        return pieces

    await exchange.send_events(reply, reply.events, frame=frame, end=END)
    return True


async def _wrong_type(exchange: Exchange, _fault: Fault, reply: Reply) -> bool:
    reply.content_type = TEXT
    await exchange.send(reply)
    return True


async def _sse(exchange: Exchange, _fault: Fault, reply: Reply) -> bool:
    as_events(reply)
    await exchange.send(reply)
    return True


async def _bad_usage(exchange: Exchange, fault: Fault, reply: Reply) -> bool:
    with_usage(reply, fault.body)
    await exchange.send(reply)
    return True


_LATE: dict[str, _Player] = {
    "hang": _cut,
    "reset": _cut,
    "close": _cut,
    "half_body": _cut,
    "hold": _hold,
    "truncate": _truncate,
    "no_done": _no_done,
    "not_json": _not_json,
    "error_event": _error_event,
    "comments_only": _comments_only,
    "slow_drip": _slow_drip,
    "wrong_length": _wrong_length,
    "gzip": _gzip,
    "gzip_bomb": _gzip_bomb,
    "oversized": _oversized,
    "crlf": _crlf,
    "bom": _bom,
    "split": _split,
    "wrong_type": _wrong_type,
    "sse": _sse,
    "bad_usage": _bad_usage,
}
