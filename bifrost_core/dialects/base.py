"""What a dialect is: the wire shape that a vendor's SDK speaks to us. Bytes in, a request out; an answer in, bytes out.

No client, no clock, no event loop: whoever has the bytes (a transport inside an SDK, an ASGI server)
hands them to the ``Door``, which asks the dialect what they say and the Router for the answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

import attrs

from bifrost_core.errors import BifrostError
from bifrost_core.responses import Response
from bifrost_core.types import Chunk, Request

__all__ = ["JSON", "SSE", "Dialect", "Inbound", "LastWords", "Order", "Renderer", "Reply", "StreamedReply"]

JSON: Final = "application/json"
SSE: Final = "text/event-stream; charset=utf-8"


@attrs.frozen
class Inbound:
    """What a vendor's SDK sends.

    Attributes:
        method: ``POST`` or ``GET``, in capitals.
        path: Behind the dialect's name and ``v1``, percent-decoded, without a slash in front (``chat/completions``).
        headers: Names in lower case.
        body: The whole body.
        query: Parameters behind the path; of a repeated name the last.
    """

    method: str
    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    query: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)


@attrs.frozen
class Reply:
    """A whole answer to an SDK: status, headers without ``content-length``, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class StreamedReply:
    """An answer that comes piece by piece.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        pieces: The body's bytes as they come. Raises ``BifrostError`` where the answer breaks off and the dialect has no
            words for that.
        aclose: Ends the call; safe to repeat, and to be left out once ``pieces`` is at its end.
    """

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes] = attrs.field(repr=False)
    aclose: Callable[[], Any] = attrs.field(repr=False)


class LastWords(bytes):
    """Bytes that tell of an error, after which the connection breaks all the same, for readers that skip them."""

    __slots__ = ()


class Renderer(Protocol):
    """Writes the answer to one order in the dialect's shape."""

    def whole(self, response: Response) -> Reply:
        """A plain answer; of an order for models a ``ModelList`` of all that can be called."""
        ...

    def feed(self, chunks: Sequence[Chunk]) -> bytes:
        """The bytes that tell these chunks; ``b""`` where they say nothing in this dialect."""
        ...

    def finish(self, response: Response) -> bytes:
        """The last bytes, after the last chunk of an answer that is whole."""
        ...

    def fail(self, error: BifrostError) -> bytes | None:
        """The bytes that tell of an error inside a stream; None where the dialect has none: the connection breaks.

        It breaks behind ``LastWords`` too.
        """
        ...


@attrs.frozen
class Order:
    """What an SDK wants, in the Router's terms.

    Attributes:
        request: Operation, model and body; ``body`` has neither ``model`` nor ``stream`` nor ``fallbacks``.
        renderer: Writes the answer.
        fallbacks: Models to try, where the body named some.
    """

    request: Request
    renderer: Renderer
    fallbacks: tuple[str, ...] | None = None


class Dialect(Protocol):
    """One vendor's wire shape."""

    name: ClassVar[str]
    """First segment of its paths."""

    def parse(self, inbound: Inbound) -> Order:
        """What the bytes ask for.

        Raises:
            CallError: They make no sense in this dialect; names the field. Of kind ``invalid_request``, with
                ``http_status`` 404 or 405 where there is no such endpoint.
        """
        ...

    def refusal(self, error: BifrostError, request_id: str) -> Reply:
        """An error in the dialect's shape and status, so that the SDK raises its own exception class."""
        ...
