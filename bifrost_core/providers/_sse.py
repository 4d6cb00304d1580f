"""Server-sent events: bytes in, events out, whatever way the bytes are split.

Source:
    WHATWG HTML, "Server-sent events", sections 9.2.5 and 9.2.6 (https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_EVENT", "MAX_TOTAL", "SseParser"]

MAX_EVENT: Final = 1024 * 1024
MAX_TOTAL: Final = 64 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"


class SseParser:
    """Reads an event stream piece by piece. Pure: holds what is not complete yet and nothing else.

    Every byte is looked at once, however the stream is split. Data stays bytes, so that characters
    are decoded per event and a line ends at CR, LF and CRLF alone.

    Attributes:
        overflow: Which cap was passed, in words; ``""`` while none was. Nothing is read after that.
        last_id: The last ``id`` field.
        retry: The last ``retry`` field in milliseconds.
    """

    __slots__ = (
        "_after_cr",
        "_begun",
        "_data",
        "_event",
        "_head",
        "_max_event",
        "_max_total",
        "_size",
        "_tail",
        "_tail_size",
        "_total",
        "last_id",
        "overflow",
        "retry",
    )

    def __init__(self, *, max_event: int = MAX_EVENT, max_total: int = MAX_TOTAL) -> None:
        self.overflow = ""
        self.last_id = b""
        self.retry: int | None = None
        self._max_event = max_event
        self._max_total = max_total
        self._begun = False
        self._head = b""  # of a byte-order mark
        self._after_cr = False
        self._tail: list[bytes] = []  # the line that is not complete yet
        self._tail_size = 0
        self._event = b""
        self._data: list[bytes] = []
        self._size = 0  # of the event so far
        self._total = 0

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Take the next bytes; return the events that they complete, as pairs of ``event`` and ``data``."""
        if self.overflow or not data:
            return []
        self._total += len(data)
        if self._total > self._max_total:
            self.overflow = f"more than {self._max_total} bytes"
            return []
        if not self._begun:
            data = self._head + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._head = data
                return []
            self._begun = True
            data = data.removeprefix(_BOM)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")  # the second half of a CRLF
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        events: list[tuple[bytes, bytes]] = []
        if lines:
            if self._tail:
                self._tail.append(lines[0])
                lines[0] = b"".join(self._tail)
                self._tail.clear()
                self._tail_size = 0
            self._take(lines, events)
        if rest and not self.overflow:
            self._tail.append(rest)
            self._tail_size += len(rest)
            if self._size + self._tail_size > self._max_event:
                self._burst()
        return events

    def flush(self) -> tuple[bytes, bytes] | None:
        """The event that was begun and not ended; a reader that follows the standard drops it."""
        events: list[tuple[bytes, bytes]] = []
        if not self.overflow:
            self._take([b"".join(self._tail), b""], events)
            self._tail.clear()
        return events[0] if events else None

    def _take(self, lines: list[bytes], events: list[tuple[bytes, bytes]]) -> None:
        for line in lines:
            if not line:
                if self._data:
                    events.append((self._event, self._data[0] if len(self._data) == 1 else b"\n".join(self._data)))
                    self._data = []
                self._event = b""
                self._size = 0
                continue
            if self._size + len(line) > self._max_event:
                self._burst()
                return
            if line.startswith(b"data:"):
                self._size += len(line)
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line.startswith(b":"):
                self._size += len(line)
                self._field(line)

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id":
            if b"\0" not in value:
                self.last_id = value
        elif name == b"retry" and value.isdigit() and len(value) <= 9:
            self.retry = int(value)

    def _burst(self) -> None:
        self.overflow = f"an event of more than {self._max_event} bytes"
        self._tail.clear()
        self._data.clear()
