"""A client of the user's own as an engine: their proxy, certificates and event hooks stay in force."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import anyio

from bifrost_core.kinds import Kind

from ._upload import Upload
from .base import Exchange, TransportError

__all__ = ["ClientEngine"]

_CLOSE: Final = 2.0  # seconds that closing an answer may take, whatever happens to the call
# httpx's exception classes by name (httpx and httpx2 do not share them): kind, phase, whether bytes went out.
_FAILURES: Final = {
    "ConnectError": (Kind.CONNECT_ERROR, "connect", False),
    "ConnectTimeout": (Kind.CONNECT_ERROR, "connect", False),
    "PoolTimeout": (Kind.RATE_EXCEEDED, "queue", False),
    "ProxyError": (Kind.CONNECT_ERROR, "connect", False),
    "UnsupportedProtocol": (Kind.CONNECT_ERROR, "connect", False),
    "ReadTimeout": (Kind.READ_TIMEOUT, "first_byte", True),
    "WriteTimeout": (Kind.READ_TIMEOUT, "first_byte", True),
    "RemoteProtocolError": (Kind.CONNECTION_LOST, "first_byte", True),
    "ReadError": (Kind.CONNECTION_LOST, "first_byte", True),
    "WriteError": (Kind.CONNECTION_LOST, "first_byte", True),
    "CloseError": (Kind.CONNECTION_LOST, "first_byte", True),
    "LocalProtocolError": (Kind.INVALID_REQUEST, "connect", False),
}


def _failure(exc: Exception, *, in_body: bool = False) -> TransportError:
    """What the client raised, by its class alone: its text may quote the request."""
    name = type(exc).__name__
    kind, phase, sent = _FAILURES.get(name, (Kind.PROTOCOL_ERROR, "first_byte", True))
    if in_body:
        timed_out = kind is Kind.READ_TIMEOUT
        return TransportError(kind if timed_out else Kind.BAD_RESPONSE, name, phase="idle", received=True)
    return TransportError(kind, name, phase=phase, sent=sent)


class _Answer:
    """An answer whose head has arrived. See ``HttpStream``."""

    def __init__(self, response: Any) -> None:
        self.status: int = response.status_code
        self.headers: Sequence[tuple[bytes, bytes]] = response.headers.raw
        self._response = response
        self._body = response.aiter_raw()

    def __aiter__(self) -> _Answer:
        return self

    async def __anext__(self) -> bytes:
        try:
            data: bytes = await self._body.__anext__()
        except StopAsyncIteration:
            raise
        except Exception as exc:
            failure = _failure(exc, in_body=True)
        else:
            return data
        raise failure

    async def aclose(self) -> None:
        with anyio.move_on_after(_CLOSE, shield=True), suppress(Exception):
            await self._response.aclose()
            await self._body.aclose()  # left suspended it would be finished by the collector, in another task


class ClientEngine:
    """Sends over an ``httpx.AsyncClient`` or ``httpx2.AsyncClient``. See ``HttpEngine``.

    The client stays the user's: its pool, its limits, and its end. A cancellation is held off until the
    pool has assigned a connection, because httpcore's pools lose a slot to one that comes earlier
    (https://github.com/encode/httpcore/issues/1093). ``fresh`` is not in a client's power and is ignored.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    async def open(self, exchange: Exchange) -> _Answer:
        """See ``HttpEngine.open``."""
        answer: _Answer | None = None
        failure: TransportError | None = None
        headers = list(exchange.headers)
        upload = None if isinstance(exchange.body, bytes) else Upload(exchange.body)
        if upload is not None:
            headers.append((b"content-length", b"%d" % len(exchange.body)))  # else a client sends it in chunks
        with anyio.CancelScope(shield=True) as scope:

            async def trace(_name: str, _info: object) -> None:
                scope.shield = False
                if exchange.on_sent is not None:
                    exchange.on_sent()

            timeout = {"connect": exchange.connect, "read": exchange.read, "write": exchange.read, "pool": 1.0}
            try:
                request = self._client.build_request(
                    exchange.method,
                    exchange.url,
                    headers=headers,
                    content=exchange.body if upload is None else upload,
                    extensions={"timeout": timeout, "trace": trace},
                )
                response = await self._client.send(request, stream=True, follow_redirects=False, auth=None)
                answer = _Answer(response)
            except TransportError as exc:  # of ours: a file can not be read
                failure = exc
            except Exception as exc:
                failure = _failure(exc)
            finally:
                if upload is not None:
                    upload.close()
        if answer is not None:
            return answer
        assert failure is not None  # noqa: S101 # one of the two is always there; for the type checker
        raise failure.with_traceback(None)

    async def aclose(self) -> None:
        """Nothing: the client is the user's to close."""
