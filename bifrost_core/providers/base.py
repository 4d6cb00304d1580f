"""What a provider's adapter is: values in, values out. No client, no clock, no event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import attrs

from bifrost_core.engines.base import HttpEngine
from bifrost_core.errors import CallError
from bifrost_core.keys import Key
from bifrost_core.responses import Response
from bifrost_core.types import Chunk, Operation, Request
from bifrost_core.wire import Auth, HttpCall, HttpReply, Network

__all__ = ["Continues", "Provider", "Quota", "StreamDecoder"]


@attrs.frozen
class Quota:
    """What a provider says is left of one of its limits.

    Attributes:
        kind: ``requests`` or ``tokens`` (other words are passed on as they are).
        remaining: How many are left.
        limit: How many there are in a window.
        reset: Seconds until the limit is whole again; 0 when the provider does not say.
        rest: Seconds until the reset that the provider states, where nothing is left until then; else 0.
    """

    kind: str
    remaining: float
    limit: float
    reset: float = 0.0
    rest: float = 0.0


class StreamDecoder(Protocol):
    """Turns the bytes of one streamed answer into chunks, for any split of the bytes.

    Attributes:
        done: The terminal event has been read: read no further.
        error: What is wrong with the stream, once something is; chunks decoded before it still count.
    """

    done: bool
    error: CallError | None

    def feed(self, data: bytes) -> list[Chunk]:
        """Take the next bytes; return the chunks that they complete. Never raises on bad bytes: sets ``error``."""
        ...

    def finish(self) -> Response:
        """The assembled answer, after the last byte.

        Raises:
            StreamBrokenError: The stream was cut short.
        """
        ...

    def partial(self) -> Response | None:
        """What has arrived so far, assembled; None when nothing has."""
        ...


class Provider(Protocol):
    """One provider's wire format and the keys for it.

    Attributes:
        name: First part of its models' names.
        keys: Its credentials.
        operations: What the adapter maps. Asked once, when the Router is built.
        auth: Where the key goes.
        network: How it is reached.
        engine: An engine of its own instead of the Router's (a provider without a network); else None.
    """

    @property
    def name(self) -> str:
        """First part of its models' names."""
        ...

    @property
    def keys(self) -> tuple[Key, ...]:
        """Its credentials."""
        ...

    @property
    def operations(self) -> frozenset[Operation]:
        """What the adapter maps."""
        ...

    @property
    def auth(self) -> Auth:
        """Where the key goes."""
        ...

    @property
    def network(self) -> Network:
        """How it is reached."""
        ...

    @property
    def engine(self) -> HttpEngine | None:
        """An engine of its own, or None."""
        ...

    def knows(self, model: str) -> bool:
        """Whether ``model`` is by its name one of this provider's (used for bare model names)."""
        ...

    def encode(self, request: Request, max_output: int | None = None) -> HttpCall:
        """Write the request as one HTTP exchange, without the credential.

        Args:
            request: ``request.model`` is the name at the provider, without the provider's own name.
            max_output: Output limit in tokens to send instead of a higher one, or of none.

        Raises:
            BadRequestError: The request can not be put into the provider's shape; names the field.
        """
        ...

    def decode(self, request: Request, reply: HttpReply) -> Response:
        """Read a whole answer.

        Raises:
            CallError: The status is no success, or the body is unusable; with its ``kind``.
        """
        ...

    def decoder(self, request: Request) -> StreamDecoder:
        """A decoder for one streamed answer to ``request``."""
        ...

    def quotas(self, headers: Mapping[str, str]) -> tuple[Quota, ...]:
        """What the headers of an answer say is left of the limits; unreadable ones are left out."""
        ...


@runtime_checkable
class Continues(Protocol):
    """A provider that can go on with an answer that broke off. Optional, beside ``Provider``."""

    def continued(self, request: Request, text: str, tokens: int) -> Request | None:
        """The request for the rest of an answer.

        Args:
            request: As it was first sent; ``request.model`` is the name at the provider.
            text: What was received of the answer; not empty.
            tokens: Output tokens that were received, at least; an output limit is lowered by them.

        Returns:
            None where an answer to this request can not be continued from its text alone.
        """
        ...
