"""The first look at a streamed answer: events, one JSON value in their place, or a page of HTML."""

from __future__ import annotations

from typing import Final

from ._json import JsonExtent
from ._sse import MAX_TOTAL

__all__ = ["Opening"]

_BOM: Final = b"\xef\xbb\xbf"
_MAX_PREFACE: Final = 1024


class Opening:
    """Finds out from the first bytes what is to be read, and collects it where it is one JSON value.

    The bytes decide, as content types lie.

    Attributes:
        is_events: It is a stream of events. None of the three is true as long as too few bytes are there to tell.
        is_json: A plain answer came to a request for a stream.
        is_html: It is a web page.
        is_too_large: The JSON value has more bytes than a stream may have.
    """

    __slots__ = ("_began", "_extent", "_parts", "_size", "is_events", "is_html", "is_json", "is_too_large")

    def __init__(self) -> None:
        self.is_events = self.is_json = self.is_html = False
        self.is_too_large = False
        self._began = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._extent = JsonExtent()

    def look(self, data: bytes) -> bytes:
        """Take the next bytes as long as they are no events; returns what is to be read."""
        if self.is_events or self.is_json or self.is_html:
            return data
        self._began += data
        head = self._began.removeprefix(_BOM).lstrip(b" \t\r\n")
        if head[:1] == b"<":
            self.is_html = True
        elif head[:1] in (b"{", b"["):
            self.is_json = True
        elif (head and not _BOM.startswith(head)) or len(self._began) > _MAX_PREFACE:
            self.is_events = True
        else:
            return b""
        began, self._began = self._began, b""
        return began

    def collect(self, data: bytes) -> bytes | None:
        """Take the next bytes of a JSON value; returns the whole of it once it is complete."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_TOTAL:
            self.is_too_large = True
        elif self._extent.feed(data):
            return b"".join(self._parts).strip().removeprefix(_BOM)
        return None
