"""One HTTP exchange as plain values, between adapters (which write and read them) and engines (which move them)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from .bodies import Multipart

__all__ = ["REQUEST_IDS", "Auth", "HttpCall", "HttpReply", "Network", "request_id"]

RawHeaders = tuple[tuple[bytes, bytes], ...]

# Where providers put their id of a request: Mistral (and its gateway), OpenAI, Anthropic.
REQUEST_IDS: Final = ("mistral-correlation-id", "x-kong-request-id", "x-request-id", "request-id")
_SAFE_ID: Final = re.compile(r"[!-~]{1,200}")


def request_id(headers: Mapping[str, str]) -> str | None:
    """The provider's id of a request by its answer's headers, to be quoted to its support; None without one."""
    found = (headers[name] for name in REQUEST_IDS if headers.get(name))
    return next((value for value in found if _SAFE_ID.fullmatch(value)), None)


@attrs.frozen
class Auth:
    """Where a provider wants its key: the name of a header and what stands before the key in it."""

    header: bytes = b"authorization"
    prefix: bytes = b"Bearer "


@attrs.frozen
class HttpCall:
    """A request as an adapter makes it: everything but the credential, which the sender adds last.

    Attributes:
        method: ``GET`` or ``POST``.
        url: Absolute URL.
        headers: Raw headers without ``host``, ``content-length`` and the credential; names in lower case.
        body: The bytes; ``b""`` without a body, or where it is a form.
        stream: Whether the answer comes as server-sent events.
        output_upper: The output limit that the body carries, in tokens over all choices; None without.
        form: The body, where it is a form: its files are read while they are sent.
        hidden_tokens: Tokens that the provider may add to the prompt beyond what is sent, and charge.
    """

    method: str
    url: str
    headers: RawHeaders
    body: bytes = attrs.field(default=b"", repr=False)
    stream: bool = False
    output_upper: int | None = None
    form: Multipart | None = None
    hidden_tokens: int = 0

    @property
    def content(self) -> bytes | Multipart:
        """What is sent: the bytes, or the form."""
        return self.body if self.form is None else self.form

    @property
    def text_length(self) -> int:
        """Bytes of what is sent; the content of files is not counted."""
        return len(self.body) if self.form is None else self.form.text_length


@attrs.frozen
class HttpReply:
    """A whole answer.

    Attributes:
        status: HTTP status.
        headers: Names in lower case; of a repeated header the values joined with ``", "``.
        body: Bytes, decompressed.
        received_at: Seconds since 1970, UTC: what dates in headers are relative to.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    received_at: float = 0.0


@attrs.frozen(eq=False)
class Network:
    """How a provider is reached; one object per provider, by identity.

    Attributes:
        headers: Extra headers for every request.
        proxy: URL of a proxy; None: no proxy, whatever the environment says.
        verify: True, or a path to a CA bundle, or an ``ssl.SSLContext`` (own CA, client certificate).
        max_in_flight: Requests in flight to the provider at once; None: no limit of its own.
        max_in_flight_per_key: The same for each key.
    """

    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], repr=False)
    proxy: str | None = attrs.field(default=None, repr=False)
    verify: object = True
    max_in_flight: int | None = None
    max_in_flight_per_key: int | None = None
