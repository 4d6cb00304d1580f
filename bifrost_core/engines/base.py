"""The protocol between the sender and an HTTP library: one exchange, bytes out, bytes in, cancel-safe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import attrs

from bifrost_core.bodies import Multipart
from bifrost_core.kinds import Kind
from bifrost_core.wire import Network

__all__ = ["Exchange", "HttpEngine", "HttpStream", "TransportError"]


@attrs.define(eq=False, repr=False)
class Exchange:
    """One request, credential included; made by the sender as its last step and shown to engines only.

    Attributes:
        method: ``GET`` or ``POST``.
        url: Absolute URL.
        headers: Raw headers, credential included; without ``host`` and ``content-length``.
        body: The bytes to send, or a form with files: ``Upload(body)`` gives its bytes piece by piece. Either has a
            length, which is the ``content-length``.
        network: How the provider is reached; engines keep pools per network.
        connect: Seconds for TCP and TLS.
        read: Seconds of silence between two reads.
        fresh: Use a new connection, not one from the pool.
        idle: Seconds of silence between two reads of the body; None: as ``read``.
        on_sent: Called once, right before the first byte of the request goes out; must not raise.
    """

    method: str
    url: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes | Multipart
    network: Network
    connect: float
    read: float
    fresh: bool = False
    idle: float | None = None
    on_sent: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"Exchange({self.method} {self.url}, {len(self.body)} bytes)"


class TransportError(Exception):
    """An exchange failed below HTTP. Holds words and numbers only: no request, no exception of the library.

    Args:
        kind: ``connect_error``, ``connection_lost``, ``read_timeout``, ``protocol_error`` …
        message: Class name and masked text of what the library raised.
        phase: ``connect``, ``first_byte`` or ``idle``.
        sent: Whether any byte of the request may have reached the provider.
        received: Whether any byte of the answer had arrived.
        reused: Whether the connection came from the pool.
        insecure: The certificate is not trusted or names another host.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        phase: str = "first_byte",
        sent: bool = True,
        received: bool = False,
        reused: bool = False,
        insecure: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.phase = phase
        self.sent = sent
        self.received = received
        self.reused = reused
        self.insecure = insecure


class HttpStream(Protocol):
    """An answer whose head has arrived."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Raw headers, as they came."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body as it arrives, not decompressed. Raises ``TransportError``."""
        ...

    async def aclose(self) -> None:
        """Give the connection back, or drop it when the body was not read to its end. Safe to repeat."""
        ...


class HttpEngine(Protocol):
    """Moves exchanges. Belongs to one event loop; opens nothing before its first exchange."""

    async def open(self, exchange: Exchange) -> HttpStream:
        """Send the request and wait for the head of the answer.

        Cancel-safe: a cancellation at any await leaves no connection in an unusable state.

        Raises:
            TransportError: And nothing else of its own.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection. Safe to repeat."""
        ...
