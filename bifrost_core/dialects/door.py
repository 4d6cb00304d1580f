"""The one door behind which every dialect lies: an SDK's bytes in, the Router's answer as the SDK's bytes out.

The transports inside the SDKs' clients and the ASGI application are two ways to this door.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol, cast
from urllib.parse import parse_qsl, unquote

import anyio
import attrs
import msgspec

from bifrost_core.cache_options import cache_option
from bifrost_core.errors import BifrostError, CallError, ConfigError, VirtualKeyError
from bifrost_core.keys import Secret
from bifrost_core.responses import ModelInfo, ModelList, Response
from bifrost_core.streams import ResponseStream
from bifrost_core.timeouts import Timeout
from bifrost_core.types import Operation, Request

from ._bodies import invalid
from .anthropic import AnthropicDialect
from .base import SSE, Dialect, Inbound, LastWords, Order, Renderer, Reply, StreamedReply
from .mistral import MistralDialect
from .openai import OpenAIDialect

__all__ = ["Door", "Routes"]

_SPOKEN: Final[tuple[Dialect, ...]] = (OpenAIDialect(), AnthropicDialect(), MistralDialect())
_DIALECTS: Final[Mapping[str, Dialect]] = {dialect.name: dialect for dialect in _SPOKEN}
_OWN_PATHS: Final[Mapping[str, str]] = {
    "messages": "anthropic",
    "messages/count_tokens": "anthropic",
    "fim/completions": "mistral",
    "ocr": "mistral",
    "chat/moderations": "mistral",
    "classifications": "mistral",
    "chat/classifications": "mistral",
}
_VIRTUAL_KEY: Final = re.compile(r"sk-bf-[!-~]+|[\w-]+\.[\w-]+\.[\w-]*")  # ours, or a JSON Web Token (RFC 7519)
_VERSION: Final = re.compile(r"v1(?:/|$)")
# What hooks may see of a caller's headers: who asks by which way, never a credential.
_SHOWN: Final = frozenset(
    {
        "anthropic-beta",
        "anthropic-version",
        "baggage",
        "openai-organization",
        "openai-project",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-client-request-id",
        "x-request-id",
    }
)
_OWN: Final = "x-bf-"
_KEY_HEADER: Final = "x-bf-vk"
_MAX_HEADER: Final = 8192
_FIELD_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")


class Routes(Protocol):
    """What the door needs of a Router."""

    async def send(
        self,
        request: Request,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the call's own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Response:
        """Send a request."""
        ...

    def send_stream(
        self,
        request: Request,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> ResponseStream:
        """Send a request whose answer streams."""
        ...

    async def models(self, provider: str | None = None, *, virtual_key: str | Secret | None = None) -> list[ModelInfo]:
        """What can be called."""
        ...


class Door:
    """Answers what SDKs send.

    Args:
        router: The Router.
        virtual_key: Who calls where the headers do not say it.
    """

    __slots__ = ("_router", "_virtual_key")

    def __init__(self, router: Routes, virtual_key: Secret | None = None) -> None:
        self._router = router
        self._virtual_key = virtual_key

    async def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, *, limit: float | None = None
    ) -> Reply | StreamedReply:
        """Answer one HTTP request.

        Args:
            method: In capitals.
            target: Path and query as they were sent.
            headers: Names in lower case.
            body: The whole body.
            limit: Seconds that the caller waits for the answer, of a stream for each piece of it; None: as long as
                the Router's own limits allow.

        Raises:
            TimeoutError: Nothing came within ``limit``.
        """
        dialect, inbound = _addressed(method, target, headers, body)
        problem: BifrostError
        try:
            order = dialect.parse(inbound)
            options = _options_of(headers)
            options["virtual_key"] = _key_of(headers) or self._virtual_key
            return await self._serve(order, options, limit)
        except BifrostError as exc:
            problem = exc
        request_id = getattr(problem, "call_id", "") or "call_" + os.urandom(12).hex()
        reply = dialect.refusal(problem, request_id)
        return attrs.evolve(reply, headers={**reply.headers, **_facts_of_error(problem, request_id)})

    async def _serve(self, order: Order, options: dict[str, Any], limit: float | None) -> Reply | StreamedReply:
        request = order.request
        if request.operation is Operation.MODELS:
            with _within(limit):
                models = await self._router.models(virtual_key=options["virtual_key"])
            return order.renderer.whole(ModelList(models=tuple(models)))
        if order.fallbacks is not None:
            options["fallbacks"] = order.fallbacks
        if request.stream:
            stream = await self._router.send_stream(request, **options).open(limit=limit)
            return StreamedReply(200, _stream_headers(stream), _Pieces(stream, order.renderer, limit), stream.aclose)
        with _within(limit):
            response = await self._router.send(request, **options)
        reply = order.renderer.whole(response)
        return attrs.evolve(reply, headers={**reply.headers, **_facts_of(response)})


class _Pieces:
    """The bytes of a streamed answer, as many as there are at a time."""

    __slots__ = ("_breaks", "_done", "_limit", "_renderer", "_stream")

    def __init__(self, stream: ResponseStream, renderer: Renderer, limit: float | None) -> None:
        self._stream = stream
        self._renderer = renderer
        self._limit = limit
        self._done = False
        self._breaks: BifrostError | None = None

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        while not self._done:
            piece = await self._next()
            if piece:
                return piece
        if self._breaks is not None:
            raise self._breaks
        raise StopAsyncIteration

    async def _next(self) -> bytes:
        try:
            with _within(self._limit):
                chunks = await self._stream.take()
            if chunks:
                return self._renderer.feed(chunks)
            self._done = True
            return self._renderer.finish(self._stream.response)
        except BifrostError as exc:
            self._done = True
            told = self._renderer.fail(exc)
            if told is None:
                raise
            if isinstance(told, LastWords):
                self._breaks = exc
            return told
        except BaseException:
            self._done = True
            raise
        finally:
            if self._done:
                await self._stream.aclose()


_UNLIMITED: Final = nullcontext()  # a scope without a deadline costs as much as one with it


def _within(limit: float | None) -> AbstractContextManager[object]:
    return _UNLIMITED if limit is None else anyio.fail_after(limit)


def _addressed(method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[Dialect, Inbound]:
    """The dialect that a path names, or else tells by what it asks for, and the rest of the path."""
    path, _, query = target.partition("?")
    first, _, rest = path.strip("/").partition("/")
    dialect = _DIALECTS.get(first)
    if dialect is None:
        rest = path.strip("/")
    version = _VERSION.match(rest)
    if version is not None:
        rest = rest[version.end() :]
    rest = unquote(rest)
    if dialect is None:
        dialect = _told_by(rest)
    return dialect, Inbound(method.upper(), rest, headers, body, dict(parse_qsl(query, keep_blank_values=True)))


def _told_by(path: str) -> Dialect:
    """The dialect that has such a path alone; OpenAI's, which others copy, has all that are shared."""
    return _DIALECTS[_OWN_PATHS.get(path, "openai")]


def _key_of(headers: Mapping[str, str]) -> Secret | None:
    """The virtual key that the caller presents. What an SDK demands as a key and is none of ours, nobody gets."""
    stated = headers.get(_KEY_HEADER)
    if stated:
        return _secret(stated)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    for given in (token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")):
        if given and _VIRTUAL_KEY.fullmatch(given) is not None:
            return _secret(given)
    return None


def _secret(presented: str) -> Secret:
    """The virtual key, kept out of sight.

    Raises:
        VirtualKeyError: It can be none.
    """
    problem = ""
    try:
        return Secret(presented)
    except ConfigError as exc:
        problem = exc.message
    del presented
    raise VirtualKeyError(f"the virtual key is not usable: {problem}")


def _options_of(headers: Mapping[str, str]) -> dict[str, Any]:
    """The options of the call that headers give, and the headers that hooks may see.

    Raises:
        CallError: One of them is not usable; names it.
    """
    options: dict[str, Any] = {"headers": _shown(headers)}
    if session := headers.get("x-bf-session"):
        options["session"] = session
    if cache := headers.get("x-bf-cache"):
        options["cache"] = _cache(cache)
    if metadata := headers.get("x-bf-metadata"):
        options["metadata"] = _json_object("x-bf-metadata", metadata)
    return options


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in headers.items()
        if (name in _SHOWN or (name.startswith(_OWN) and name != _KEY_HEADER))
        and len(value) <= _MAX_HEADER
        and _FIELD_VALUE.fullmatch(value) is not None
    }


def _cache(stated: str) -> Any:
    """A mode, or an object with ``mode`` and ``ttl``, as the option has it."""
    value: Any = _json_object("x-bf-cache", stated) if stated.startswith("{") else stated
    problem = ""
    try:
        cache_option(value)
    except ConfigError as exc:
        problem = exc.message
    if problem:
        raise invalid(f"x-bf-cache: {problem}")
    return value


def _json_object(name: str, stated: str) -> dict[str, Any]:
    value: Any = None
    try:
        value = msgspec.json.decode(stated)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise invalid(f"the header {name} is no JSON object")
    return cast("dict[str, Any]", value)


def _facts_of(response: Response) -> dict[str, str]:
    """What the Router knows of an answer and no vendor's shape has a place for."""
    facts = {
        "x-bf-call-id": response.call_id,
        "x-bf-provider": response.route.provider,
        "x-bf-model": response.route.model,
        "x-bf-key-id": response.route.key_id,
        "x-bf-attempts": str(len(response.attempts)),
        "x-bf-cached": "true" if response.cached else "false",
    }
    if response.cost is not None:
        facts["x-bf-cost-usd"] = format(response.cost, "f")
    return {name: value for name, value in facts.items() if value} | _ids(response.call_id)


def _stream_headers(stream: ResponseStream) -> dict[str, str]:
    return {"content-type": SSE, "cache-control": "no-cache", "x-bf-call-id": stream.call_id} | _ids(stream.call_id)


def _facts_of_error(error: BifrostError, request_id: str) -> dict[str, str]:
    facts = {"x-bf-call-id": request_id, "x-should-retry": "false"} | _ids(request_id)
    if isinstance(error, CallError):
        facts["x-bf-kind"] = str(error.kind)
        facts["x-bf-attempts"] = str(len(error.attempts))
        if error.retry_after is not None:
            facts["retry-after"] = format(max(0.0, error.retry_after), ".3f").rstrip("0").rstrip(".")
    return facts


def _ids(call_id: str) -> dict[str, str]:
    """The call's id where SDKs look for the id of a request."""
    return {"x-request-id": call_id, "request-id": call_id} if call_id else {}
