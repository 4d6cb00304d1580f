"""The operations of a Router: each makes a ``Request`` of what the caller wrote and sends it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import anyio

from . import file_requests, requests
from .errors import PluginError
from .keys import Secret, presented
from .responses import (
    ChatResponse,
    EmbeddingResponse,
    ModelInfo,
    ModelList,
    ModerationResponse,
    OcrResponse,
    Response,
    ResponsesResponse,
    Transcription,
)
from .streams import ChatStream, ResponsesStream, ResponseStream, StreamSource, TranscriptionStream
from .timeouts import Timeout
from .types import Input, Messages, Operation, Request

__all__ = ["Operations"]

_R = TypeVar("_R", bound=Response)
_S = TypeVar("_S", bound=ResponseStream)


class Operations(ABC):
    """What can be asked of a Router, one method per operation and one more where it streams.

    All take the options of a call by keyword: ``virtual_key`` (who calls, for the authentication plugins; never
    sent to a provider), ``fallbacks`` (models to try, in order, when ``model`` can not answer; wins over the
    Router's), ``timeout`` (seconds for the whole call, or a ``Timeout``), ``metadata`` (for plugins and logs; not
    sent), and among ``params`` ``session``, ``cache`` (how cached answers are used: see ``cache_options.py``),
    ``effects``, ``extra_body``, and on streams ``resume`` (another key goes on where the answer broke off) and
    ``drain`` (one that is left early is read on for what was used, 10 s at most). All other ``params`` are fields of
    the OpenAI shape or the provider's own.

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

    @abstractmethod
    def _providers_of(self, operation: Operation, named: str | None) -> Sequence[str]:
        """Names of the providers that do ``operation``; of the one that is named, which must exist."""

    async def _answer(self, kind: type[_R], made: requests.Made, **options: Any) -> _R:
        """Send a request whose answer is of one kind."""
        request, more = made
        parse = more.pop("parse", None)
        response = await self.send(request, **options, **more)
        if not isinstance(response, kind):
            # A plugin has made it: an adapter's answers are of their operation's kind.
            raise PluginError(
                f"a plugin answered {request.operation} with {type(response).__name__}; return a {kind.__name__}",
                call_id=response.call_id,
            )
        if parse is not None and isinstance(response, ChatResponse):
            return cast("_R", response.with_parser(parse))
        return response

    def _stream(self, kind: type[_S], made: requests.Made, **options: Any) -> _S:
        """The stream of a request, of one kind."""
        request, more = made
        parse = more.pop("parse", None)
        return kind(self._opener(request, **options, **more), parse)

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

    async def responses(
        self,
        model: str,
        input: Input,  # noqa: A002 # the API's own name
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the call's own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> ResponsesResponse:
        """Answer in the OpenAI Responses shape, on providers that have only chat too.

        Args:
            model: ``"provider/model"``, an alias, or a bare name that one provider serves.
            input: A string (one user message), or input items as dicts: messages, ``reasoning``,
                ``function_call`` and ``function_call_output``. The ``output`` of an earlier answer fits in.
            virtual_key: Who calls, for the authentication plugins; never sent to a provider.
            fallbacks: Models to try, in order, when ``model`` can not answer; wins over the Router's.
            timeout: Seconds for the whole call, or a ``Timeout``.
            metadata: For plugins and logs; not sent (the API's own goes through ``extra_body``).
            **params: Fields of the Responses shape and of the provider's own; ``text_format`` may be a
                class, whose instance ``parsed`` then is. Nothing is stored between calls:
                ``previous_response_id`` and its like are refused.

        Raises:
            CallError: Any way in which the call can fail; see ``errors.py``.
        """
        virtual_key = presented(virtual_key)
        made = requests.responses(model, input, params, stream=False)
        return await self._answer(
            ResponsesResponse, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
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
    ) -> ResponsesStream:
        """As ``responses``, event by event: ``chunk.raw`` is the event, ``chunk.text`` the text that it brings."""
        virtual_key = presented(virtual_key)
        made = requests.responses(model, input, params, stream=True)
        return self._stream(
            ResponsesStream, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
        )

    async def transcribe(
        self,
        model: str,
        file: file_requests.Sound,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the call's own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Transcription:
        """Write down what is said.

        Args:
            model: ``"provider/model"``, an alias, or a bare name that one provider serves.
            file: Bytes; a path; a file open for reading bytes, which has to be seekable; an http(s) URL that the
                provider fetches; or the id of an uploaded file. A string is taken for a URL if it is one, else
                for an id if it has the form of a UUID, else for a path, which has to exist. Files are read in
                pieces while they are sent, at most 512 MB, and once more for each retry.
            virtual_key: Who calls, for the authentication plugins; never sent to a provider.
            fallbacks: Models to try, in order, when ``model`` can not answer; wins over the Router's.
            timeout: Seconds for the whole call, the upload included, or a ``Timeout``.
            metadata: For plugins and logs; not sent.
            **params: The provider's fields: ``language``, ``temperature``, ``diarize``, ``context_bias`` (a list
                of terms, or a text with commas between them), ``timestamp_granularities`` (``segment`` or
                ``word``; Mistral does not combine it with ``language``).

        Raises:
            CallError: Any way in which the call can fail; see ``errors.py``.
            ConfigError: ``file`` is none of these, can not be read, or is empty.
        """
        virtual_key = presented(virtual_key)
        made = file_requests.transcribe(model, file, params, stream=False)
        return await self._answer(
            Transcription, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
        )

    def stream_transcribe(
        self,
        model: str,
        file: file_requests.Sound,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> TranscriptionStream:
        """As ``transcribe``, piece by piece; ``Timeout.first_token`` counts from the upload's begin."""
        virtual_key = presented(virtual_key)
        made = file_requests.transcribe(model, file, params, stream=True)
        return self._stream(
            TranscriptionStream, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
        )

    async def ocr(
        self,
        model: str,
        document: file_requests.Document,
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the call's own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> OcrResponse:
        """Read a document or an image as Markdown.

        Args:
            model: ``"provider/model"``, an alias, or a bare name that one provider serves.
            document: Bytes; a path; a file open for reading bytes; a URL; the id of an uploaded file; or the API's
                own dict, which is sent as it is. Of bytes and files their first bytes tell the type (PDF, DOCX,
                PPTX or an image), else the name does; they go into the request, up to 14.8 MB. A string is taken
                for a URL (http, https, data), else for an id if it has the form of a UUID, else for a path, which
                has to exist. A URL leads to an image if its media type or its path's ending says so, else to a
                document: where that is wrong, pass the dict.
            virtual_key: Who calls, for the authentication plugins; never sent to a provider.
            fallbacks: Models to try, in order, when ``model`` can not answer; wins over the Router's.
            timeout: Seconds for the whole call, or a ``Timeout``.
            metadata: For plugins and logs; not sent.
            **params: The provider's fields: ``pages`` (from 0: a list, a range or ``"0,2-4"``),
                ``include_image_base64``, ``image_limit``, ``image_min_size``, ``table_format``,
                ``extract_header``, ``extract_footer``, ``include_blocks``, ``confidence_scores_granularity``,
                ``document_annotation_prompt``, and ``bbox_annotation_format`` and ``document_annotation_format``:
                the API's dict or a class, whose instance ``annotation`` then is.

        Raises:
            CallError: Any way in which the call can fail; see ``errors.py``.
            ConfigError: ``document`` is none of these, can not be read, or is of an unknown type.
        """
        virtual_key = presented(virtual_key)
        made = await file_requests.ocr(model, document, params)
        return await self._answer(
            OcrResponse, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
        )

    async def embed(
        self,
        model: str,
        input: requests.Texts,  # noqa: A002 # the API's own word
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the call's own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> EmbeddingResponse:
        """Turn texts into vectors.

        Args:
            model: As for ``chat``; a fallback has to be a model whose vectors can stand beside this one's.
            input: A text, or any iterable of texts.
            virtual_key: As for ``chat``, like the other options.
            fallbacks: Models to try, in order.
            timeout: Seconds for the whole call, or a ``Timeout``.
            metadata: For plugins and logs; not sent.
            **params: ``dimensions`` (Mistral's ``output_dimension``), ``encoding_format`` (``float`` or ``base64``: a
                smaller answer, the same vectors), ``output_dtype`` (``float``, ``int8``, ``uint8``, ``binary``,
                ``ubinary``) and the provider's other fields. OpenAI's ``user`` is not sent to Mistral.
        """
        virtual_key = presented(virtual_key)
        made = requests.embed(model, input, params)
        return await self._answer(
            EmbeddingResponse, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
        )

    async def moderate(
        self,
        model: str,
        input: requests.Moderated,  # noqa: A002 # the API's own word
        *,
        virtual_key: str | Secret | None = None,
        fallbacks: Sequence[str] | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the call's own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> ModerationResponse:
        """Judge texts, or what is said last in conversations.

        Args:
            model: As for ``chat``.
            input: A text or any iterable of texts; a conversation (messages as dicts or ``Message``) or an iterable of
                conversations. There is one verdict per text or conversation.
            virtual_key: As for ``chat``, like the other options.
            fallbacks: Models to try, in order.
            timeout: Seconds for the whole call, or a ``Timeout``.
            metadata: For plugins and logs; not sent.
            **params: The provider's other fields.
        """
        virtual_key = presented(virtual_key)
        made = requests.moderate(model, input, params)
        return await self._answer(
            ModerationResponse, made, virtual_key=virtual_key, fallbacks=fallbacks, timeout=timeout, metadata=metadata
        )

    async def models(
        self,
        provider: str | None = None,
        *,
        virtual_key: str | Secret | None = None,
        timeout: Timeout | float | None = None,  # noqa: ASYNC109 # the calls' own deadline, not one await's
        metadata: Mapping[str, Any] | None = None,
    ) -> list[ModelInfo]:
        """What can be called: the models of one provider, or of all that have a list.

        One call per provider, all at once; hooks see the model ``"provider/*"``. Any enabled key may ask. However these
        calls end, they change nothing for others: no route rests because of them.

        Args:
            provider: Its name; None: all.
            virtual_key: As for ``chat``.
            timeout: Seconds for each call, or a ``Timeout``.
            metadata: For plugins and logs; not sent.

        Returns:
            Provider by provider in the Router's order, each list in the provider's.

        Raises:
            ConfigError: There is no such provider.
            CallError: A provider could not be asked: a list with a part missing would look like a whole one.
        """
        virtual_key = presented(virtual_key)
        names = self._providers_of(Operation.MODELS, provider)
        found: dict[str, tuple[ModelInfo, ...]] = {}
        failed: list[Exception] = []

        async def ask(name: str) -> None:
            try:
                answer = await self._answer(
                    ModelList, requests.models(name), virtual_key=virtual_key, timeout=timeout, metadata=metadata
                )
            except Exception as exc:  # raised outside the task group, which would wrap it
                failed.append(exc)
                group.cancel_scope.cancel()
            else:
                found[name] = answer.models

        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(ask, name)
        if failed:
            raise failed[0]
        return [model for name in names for model in found[name]]
