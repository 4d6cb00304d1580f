"""The dialects behind an ASGI server, for clients that are no Python: ``uvicorn.run(bifrost_core.asgi.app(router))``.

Source:
    https://asgi.readthedocs.io/en/latest/specs/www.html and …/specs/lifespan.html.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

import anyio

from .bodies import MAX_UPLOAD
from .dialects import Door, Reply, Routes

__all__ = ["Application", "app"]

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]

_TOO_LARGE: Final = Reply(413, {"content-type": "text/plain"}, b"the body is too large\n")


class _Served(Routes, Protocol):
    """A Router, as the application holds it."""

    async def __aenter__(self) -> Any: ...

    async def aclose(self) -> None:
        """End it."""
        ...


class _DisconnectedError(Exception):
    """The client has left."""


def app(router: _Served) -> Application:
    """An ASGI 3 application that answers every dialect's paths (``/openai/v1/chat/completions`` …).

    It starts the Router with the server and closes it with it. Nothing is authenticated unless a plugin
    does: a virtual key is ``x-bf-vk``, or the bearer token or ``x-api-key`` of the SDK.

    Args:
        router: A ``Router``; it then belongs to the server's event loop.
    """
    door = Door(router)

    async def application(scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _live(router, receive, send)
        elif scope["type"] == "http":
            await _answer(door, scope, receive, send)
        else:
            # As the specification has it: servers take an exception for "not served".
            raise NotImplementedError(f"there is no {scope['type']} here, only HTTP")

    return application


async def _live(router: _Served, receive: _Receive, send: _Send) -> None:
    await receive()
    try:
        await router.__aenter__()
    except Exception as exc:  # the server's protocol: it shows the message and stops
        await send({"type": "lifespan.startup.failed", "message": str(exc)})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await router.aclose()
    await send({"type": "lifespan.shutdown.complete"})


async def _answer(door: Door, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
    try:
        body = await _body(receive)
    except _DisconnectedError:
        return
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    path = (scope.get("raw_path") or scope["path"].encode()).decode("ascii", "replace")
    target = path + ("?" + query if (query := scope.get("query_string", b"").decode("ascii", "replace")) else "")

    async def leave_with_client() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(leave_with_client)
        reply = _TOO_LARGE if body is None else await door.answer(scope["method"], target, headers, body)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
        if isinstance(reply, Reply):
            raw.append((b"content-length", str(len(reply.body)).encode()))
            await send({"type": "http.response.start", "status": reply.status, "headers": raw})
            await send({"type": "http.response.body", "body": reply.body})
        else:
            try:
                await send({"type": "http.response.start", "status": reply.status, "headers": raw})
                async for piece in reply.pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                with anyio.CancelScope(shield=True):
                    await reply.aclose()
        group.cancel_scope.cancel()


async def _body(receive: _Receive) -> bytes | None:
    """The whole body; None where it is larger than any provider takes."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_UPLOAD:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
