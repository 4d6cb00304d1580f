"""The operations of a Router: each makes a ``Request`` of what the caller wrote and sends it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from . import requests
from .errors import PluginError
from .keys import Secret, presented
from .responses import ChatResponse, Response
from .streams import ChatStream, ResponseStream, StreamSource
from .timeouts import Timeout
from .types import Messages, Request

__all__ = ["Operations"]

_R = TypeVar("_R", bound=Response)
_S = TypeVar("_S", bound=ResponseStream)


class Operations(ABC):
    """What can be asked of a Router, one method per operation and one more where it streams.

    All take the options of a call by keyword: ``virtual_key`` (who calls, for the authentication plugins; never
    sent to a provider), ``fallbacks`` (models to try, in order, when ``model`` can not answer; wins over the
    Router's), ``timeout`` (seconds for the whole call, or a ``Timeout``), ``metadata`` (for plugins and logs; not
    sent), and among ``params`` ``session``, ``cache``, ``effects``, ``extra_body``, and on streams ``resume`` and
    ``drain``. All other ``params`` are fields of the OpenAI shape or the provider's own.

    All raise ``CallError``, any way in which a call can fail (see ``errors.py``), and ``ConfigError`` for arguments
    that no provider could take.
    """

    @abstractmethod
    async def send(
        self,
        request: Request,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the call's own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Response:
        """Send a request of any operation and wait for its whole answer."""

    @abstractmethod
    def _opener(
        self,
        request: Request,
        *,
        virtual_key: Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Callable[[], Awaitable[StreamSource]]:
        """What begins a streamed call once its stream is entered."""

    async def _answer(self, kind: type[_R], made: requests.Made, **options: Any) -> _R:
        """Send a request whose answer is of one kind."""
        request, more = made
        response = await self.send(request, **options, **more)
        if not isinstance(response, kind):
            # A plugin has made it: an adapter's answers are of their operation's kind.
            raise PluginError(
                f"a plugin answered {request.operation} with {type(response).__name__}; return a {kind.__name__}",
                call_id=response.call_id,
            )
        return response

    def _stream(self, kind: type[_S], made: requests.Made, **options: Any) -> _S:
        """The stream of a request, of one kind."""
        request, more = made
        return kind(self._opener(request, **options, **more))

    async def chat(
        self,
        model: str,
        messages: Messages,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the call's own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> ChatResponse:
        """Answer a conversation.

        Args:
            model: ``"provider/model"``, an alias, or a bare name that one provider serves.
            messages: A string (one user message), or messages as dicts or ``Message``.
            virtual_key: Who calls, for the authentication plugins; never sent to a provider.
            fallbacks: Models to try, in order, when ``model`` can not answer; wins over the Router's.
            timeout: Seconds for the whole call, or a ``Timeout``.
            metadata: For plugins and logs; not sent.
            **params: Fields of the OpenAI chat shape and of the provider's own; also the options
                ``session``, ``cache``, ``effects`` and ``extra_body``, which are not sent as such.

        Raises:
            CallError: Any way in which the call can fail; see ``errors.py``.
        """
        virtual_key = presented(virtual_key)
        made = requests.chat(model, messages, params, stream=False)
        return await self._answer(
            ChatResponse, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
        )

    def stream(
        self,
        model: str,
        messages: Messages,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> ChatStream:
        """Answer a conversation piece by piece: ``async with router.stream(…) as stream: async for chunk in stream``.

        Arguments as for ``chat``. Fails over until the first content has been handed out.
        """
        virtual_key = presented(virtual_key)
        made = requests.chat(model, messages, params, stream=True)
        return self._stream(
            ChatStream, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
        )

    async def fim(
        self,
        model: str,
        prompt: str,
        suffix: str | None = None,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the call's own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> ChatResponse:
        """Write what belongs between ``prompt`` and ``suffix`` (fill in the middle, for code)."""
        virtual_key = presented(virtual_key)
        made = requests.fim(model, prompt, suffix, params, stream=False)
        return await self._answer(
            ChatResponse, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
        )

    def stream_fim(
        self,
        model: str,
        prompt: str,
        suffix: str | None = None,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> ChatStream:
        """As ``fim``, piece by piece."""
        virtual_key = presented(virtual_key)
        made = requests.fim(model, prompt, suffix, params, stream=True)
        return self._stream(
            ChatStream, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
        )
