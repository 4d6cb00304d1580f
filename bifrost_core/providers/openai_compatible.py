"""Servers that speak like OpenAI: vLLM, Ollama, llama.cpp, Together, Groq and others.

Source:
    https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, https://docs.ollama.com/api/openai-compatibility,
    https://github.com/ggml-org/llama.cpp/tree/master/tools/server, https://docs.together.ai/docs/openai-api-compatibility,
    https://console.groq.com/docs/openai.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from bifrost_core.errors import ConfigError
from bifrost_core.keys import Key, Secret
from bifrost_core.types import Operation

from ._adapter import Codec, HttpProvider
from .base import Quota
from .openai import openai_quotas

__all__ = ["OpenAICompatible"]

_VERSION: Final = re.compile(r"v[0-9]+[a-z0-9]*")


class OpenAICompatible(HttpProvider):
    """A server that speaks like OpenAI.

    Fields are sent as they are, unknown ones too, as such servers have their own; rewritten are the words of other
    vendors that have an equal: ``random_seed`` (``seed``), ``tool_choice="any"`` (``"required"``), ``image_url`` as
    text, ``document_url`` with a data URL (a ``file`` part), and thoughts in the history, which go beside the
    content as ``reasoning_content``. Responses are served through chat. Streams of chat are asked for their usage.

    Args:
        name: First part of its models' names.
        keys: ``Key``s or plain strings. None at all: no credential is sent, and the one route has the key id
            ``anonymous``.
        base_url: With or without ``/v1``. A path that has a version of its own (``/api/paas/v4``,
            ``/v1beta/openai``) is taken as it is; else ``/v1`` is put behind it.
        stream_usage: False for a server that refuses ``stream_options``; its streams then cost what their text
            lets guess.
        **options: As of ``OpenAI``, without ``organization`` and ``project``.

    Raises:
        ConfigError: An argument is not usable; names it, and never shows a credential.
    """

    __slots__ = ("_asks_for_usage",)

    def table(self) -> Mapping[Operation, Codec]:
        """Its operations."""
        from ._openai_operations import COMPATIBLE, WITHOUT_USAGE  # noqa: PLC0415 # needed by those who have one

        return COMPATIBLE if self._asks_for_usage else WITHOUT_USAGE

    def __init__(
        self,
        name: str,
        keys: Iterable[Key | Secret | str] | Key | Secret | str = (),
        *,
        base_url: str,
        stream_usage: bool = True,
        **options: Any,
    ) -> None:
        self._asks_for_usage = bool(stream_usage)
        problem: ConfigError | None = None
        try:
            super().__init__(keys, base_url=base_url, name=name, **options)
        except ConfigError as exc:
            problem = exc
        if problem is not None:
            del keys, base_url, options  # the frames of the error must not hold a credential
            raise problem.with_traceback(None)
        if not self.keys:
            self.keys: tuple[Key, ...] = (Key.anonymous(),)
        if any(map(_VERSION.fullmatch, urlsplit(self.base_url).path.split("/"))):
            self._calls = {at: self.base_url + codec.path.removeprefix("/v1") for at, codec in self._table.items()}

    def knows(self, model: str) -> bool:  # noqa: ARG002 # any name may be one of its models
        """Never: a name does not tell on which server a model runs."""
        return False

    def quotas(self, headers: Mapping[str, str]) -> tuple[Quota, ...]:
        """What the headers say is left of the limits, where they have OpenAI's names."""
        return openai_quotas(headers)
