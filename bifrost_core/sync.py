"""``SyncRouter``: the same calls from blocking code, over one event loop in a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio.from_thread import BlockingPortal

from .estimates import Estimate
from .file_requests import Document, Sound
from .health import RouteHealth
from .keys import Key, Secret, presented
from .kinds import Scope
from .portals import LoopThread
from .requests import Moderated, Texts
from .responses import (
    ChatResponse,
    EmbeddingResponse,
    ModelInfo,
    ModerationResponse,
    OcrResponse,
    Response,
    ResponsesResponse,
    Transcription,
)
from .router import Router
from .sync_streams import SyncChatStream, SyncResponsesStream, SyncResponseStream, SyncTranscriptionStream
from .timeouts import Timeout
from .types import Input, Messages, Request, RouteRef

__all__ = ["SyncRouter"]

_T = TypeVar("_T")


class SyncRouter:
    """A ``Router`` for blocking code; takes the same arguments and may be used from any thread.

    Its event loop starts with the first call, in a daemon thread. ``close`` it, or use ``with``.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._adopt(Router(*args, **options))

    def _adopt(self, router: Router) -> None:
        self._router = router
        self._loop = LoopThread("SyncRouter")

    @classmethod
    def of(cls, router: Router) -> Self:
        """The blocking face of a Router that no event loop has used yet."""
        made = cls.__new__(cls)
        made._adopt(router)  # noqa: SLF001 # its own constructor
        return made

    @classmethod
    def from_env(cls, **options: Any) -> Self:
        """As ``Router.from_env``."""
        return cls.of(Router.from_env(**options))

    @classmethod
    def from_config(cls, source: str | os.PathLike[str] | Mapping[str, Any], **options: Any) -> Self:
        """As ``Router.from_config``."""
        return cls.of(Router.from_config(source, **options))

    def portal(self) -> BlockingPortal:
        """The way onto the event loop; starts it at first.

        Raises:
            ConfigError: Closed, used after a fork, or called on its own event loop.
        """
        return self._loop.portal()

    def _call(self, function: Callable[..., Coroutine[Any, Any, _T]], *args: Any, **options: Any) -> _T:
        return self._loop.call(function, *args, **options)

    def chat(
        self,
        model: str,
        messages: Messages,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> ChatResponse:
        """As ``Router.chat``."""
        virtual_key = presented(virtual_key)
        return self._call(
            self._router.chat,
            model,
            messages,
            virtual_key=virtual_key,
            fallbacks=fallbacks,
            timeout=timeout,
            metadata=metadata,
            **params,
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
    ) -> SyncChatStream:
        """As ``Router.stream``: ``with router.stream(…) as stream: for chunk in stream``."""
        virtual_key = presented(virtual_key)
        return SyncChatStream(
            self.portal,
            partial(
                self._router.stream,
                model,
                messages,
                virtual_key=virtual_key,
                fallbacks=fallbacks,
                timeout=timeout,
                metadata=metadata,
                **params,
            ),
        )

    def fim(
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
    ) -> ChatResponse:
        """As ``Router.fim``."""
        virtual_key = presented(virtual_key)
        return self._call(
            self._router.fim,
            model,
            prompt,
            suffix,
            virtual_key=virtual_key,
            fallbacks=fallbacks,
            timeout=timeout,
            metadata=metadata,
            **params,
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
    ) -> SyncChatStream:
        """As ``Router.stream_fim``."""
        virtual_key = presented(virtual_key)
        return SyncChatStream(
            self.portal,
            partial(
                self._router.stream_fim,
                model,
                prompt,
                suffix,
                virtual_key=virtual_key,
                fallbacks=fallbacks,
                timeout=timeout,
                metadata=metadata,
                **params,
            ),
        )

    def responses(
        self,
        model: str,
        input: Input,  # noqa: A002 # the API's own name
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> ResponsesResponse:
        """As ``Router.responses``."""
        virtual_key = presented(virtual_key)
        return self._call(
            self._router.responses,
            model,
            input,
            virtual_key=virtual_key,
            fallbacks=fallbacks,
            timeout=timeout,
            metadata=metadata,
            **params,
        )

    def stream_responses(
        self,
        model: str,
        input: Input,  # noqa: A002 # the API's own name
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> SyncResponsesStream:
        """As ``Router.stream_responses``."""
        virtual_key = presented(virtual_key)
        return SyncResponsesStream(
            self.portal,
            partial(
                self._router.stream_responses,
                model,
                input,
                virtual_key=virtual_key,
                fallbacks=fallbacks,
                timeout=timeout,
                metadata=metadata,
                **params,
            ),
        )

    def transcribe(
        self,
        model: str,
        file: Sound,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Transcription:
        """As ``Router.transcribe``."""
        virtual_key = presented(virtual_key)
        return self._call(
            self._router.transcribe,
            model,
            file,
            virtual_key=virtual_key,
            fallbacks=fallbacks,
            timeout=timeout,
            metadata=metadata,
            **params,
        )

    def stream_transcribe(
        self,
        model: str,
        file: Sound,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> SyncTranscriptionStream:
        """As ``Router.stream_transcribe``."""
        virtual_key = presented(virtual_key)
        return SyncTranscriptionStream(
            self.portal,
            partial(
                self._router.stream_transcribe,
                model,
                file,
                virtual_key=virtual_key,
                fallbacks=fallbacks,
                timeout=timeout,
                metadata=metadata,
                **params,
            ),
        )

    def ocr(
        self,
        model: str,
        document: Document,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> OcrResponse:
        """As ``Router.ocr``."""
        virtual_key = presented(virtual_key)
        return self._call(
            self._router.ocr,
            model,
            document,
            virtual_key=virtual_key,
            fallbacks=fallbacks,
            timeout=timeout,
            metadata=metadata,
            **params,
        )

    def embed(
        self,
        model: str,
        input: Texts,  # noqa: A002 # the API's own word
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> EmbeddingResponse:
        """As ``Router.embed``."""
        virtual_key = presented(virtual_key)
        return self._call(
            self._router.embed,
            model,
            input,
            virtual_key=virtual_key,
            fallbacks=fallbacks,
            timeout=timeout,
            metadata=metadata,
            **params,
        )

    def moderate(
        self,
        model: str,
        input: Moderated,  # noqa: A002 # the API's own word
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> ModerationResponse:
        """As ``Router.moderate``."""
        virtual_key = presented(virtual_key)
        return self._call(
            self._router.moderate,
            model,
            input,
            virtual_key=virtual_key,
            fallbacks=fallbacks,
            timeout=timeout,
            metadata=metadata,
            **params,
        )

    def models(
        self,
        provider: str | None = None,
        *,
        virtual_key: str | Secret | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[ModelInfo]:
        """As ``Router.models``."""
        virtual_key = presented(virtual_key)
        return self._call(self._router.models, provider, virtual_key=virtual_key, timeout=timeout, metadata=metadata)

    def send(self, request: Request, **options: Any) -> Response:
        """As ``Router.send``."""
        return self._call(self._router.send, request, **options)

    def send_stream(self, request: Request, **options: Any) -> SyncResponseStream:
        """As ``Router.send_stream``."""
        return SyncResponseStream(self.portal, partial(self._router.send_stream, request, **options))

    def add_key(self, provider: str, key: Key) -> None:
        """As ``Router.add_key``."""
        self.portal().call(self._router.add_key, provider, key)

    def remove_key(self, provider: str, key_id: str) -> None:
        """As ``Router.remove_key``."""
        self.portal().call(self._router.remove_key, provider, key_id)

    def open_route(self, route: RouteRef, *, seconds: float | None = None, scope: Scope | str = Scope.ROUTE) -> None:
        """As ``Router.open_route``."""
        self.portal().call(partial(self._router.open_route, route, seconds=seconds, scope=scope))

    def close_route(self, route: RouteRef, *, scope: Scope | str | None = None) -> None:
        """As ``Router.close_route``."""
        self.portal().call(partial(self._router.close_route, route, scope=scope))

    def health(self) -> list[RouteHealth]:
        """As ``Router.health``."""
        return self.portal().call(self._router.health)

    def estimate(self, model: str, messages: Messages, **params: Any) -> Estimate:
        """As ``Router.estimate``."""
        params.pop("virtual_key", None)  # no frame of an error is to hold it
        return self._router.estimate(model, messages, **params)

    def describe(self) -> str:
        """As ``Router.describe``."""
        return self._router.describe()

    def http_client(self, *, virtual_key: str | Secret | None = None, flavour: str | None = None) -> Any:
        """As ``Router.sync_http_client``: an ``httpx.Client`` or ``httpx2.Client``, for vendors' SDKs."""
        virtual_key = presented(virtual_key)
        from . import clients  # noqa: PLC0415 # costs nothing until somebody wants one

        return clients.sync_client(clients.Door(self._router, virtual_key), self._call, flavour)

    sync_http_client = http_client

    def close(self) -> None:
        """As ``Router.aclose``; ends the event loop and its thread. Safe to repeat."""
        self._loop.close(self._router.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
