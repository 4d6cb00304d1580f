"""Vendors' SDKs and LangChain's models built so that they speak to a Router in this process.

Each function makes the object with what it needs: a client of ours in the flavour that it takes, a base URL that
never resolves (so that what goes around the client fails loudly), and no retries of its own (three tries of an SDK
would multiply the Router's). Options are those of the SDK's own class and win over these.

Functions whose objects wait (``async_…``) take a ``Router``; the others take a ``SyncRouter``, or a ``Router`` whose
event loop runs in another thread. Objects that can do both have their asynchronous half only with a ``Router``.

They import the SDK when they are called. ``Router.http_client`` serves everything that is not here.
"""

from __future__ import annotations

import functools
import importlib
import sys
from importlib.util import find_spec
from typing import Any, Final

from .clients import BASE_URL
from .errors import ConfigError
from .keys import Secret, presented
from .router import Router
from .sync import SyncRouter

__all__ = [
    "anthropic",
    "async_anthropic",
    "async_openai",
    "chat_anthropic",
    "chat_mistralai",
    "chat_openai",
    "mistral",
    "openai",
]

_ANY_KEY: Final = "in-process"  # SDKs demand a key; this one is none of ours, so nobody takes it for one
_OPENAI: Final = f"{BASE_URL}/openai/v1"
_ANTHROPIC: Final = f"{BASE_URL}/anthropic"
_MISTRAL: Final = f"{BASE_URL}/mistral"


def openai(router: Router | SyncRouter, *, virtual_key: str | Secret | None = None, **options: Any) -> Any:
    """An ``openai.OpenAI``, for blocking code.

    Args:
        router: Who answers.
        virtual_key: Who calls, where the SDK's own ``api_key`` is no virtual key.
        **options: Of ``openai.OpenAI``.

    Raises:
        ConfigError: The package is not installed.
    """
    virtual_key = presented(virtual_key)
    sdk = _package("openai")
    client = router.sync_http_client(virtual_key=virtual_key, flavour=_flavour(sdk.DefaultHttpxClient))
    return sdk.OpenAI(**{"api_key": _ANY_KEY, "base_url": _OPENAI, "max_retries": 0, "http_client": client, **options})


def async_openai(router: Router, *, virtual_key: str | Secret | None = None, **options: Any) -> Any:
    """As ``openai``, an ``openai.AsyncOpenAI``.

    Raises:
        ConfigError: The package is not installed, or the Router is a blocking one.
    """
    virtual_key = presented(virtual_key)
    sdk = _package("openai")
    client = _waiting(router).http_client(virtual_key=virtual_key, flavour=_flavour(sdk.DefaultHttpxClient))
    return sdk.AsyncOpenAI(
        **{"api_key": _ANY_KEY, "base_url": _OPENAI, "max_retries": 0, "http_client": client, **options}
    )


def anthropic(router: Router | SyncRouter, *, virtual_key: str | Secret | None = None, **options: Any) -> Any:
    """As ``openai``, an ``anthropic.Anthropic``.

    Raises:
        ConfigError: The package is not installed.
    """
    virtual_key = presented(virtual_key)
    sdk = _package("anthropic")
    client = router.sync_http_client(virtual_key=virtual_key, flavour=_flavour(sdk.DefaultHttpxClient))
    return sdk.Anthropic(
        **{"api_key": _ANY_KEY, "base_url": _ANTHROPIC, "max_retries": 0, "http_client": client, **options}
    )


def async_anthropic(router: Router, *, virtual_key: str | Secret | None = None, **options: Any) -> Any:
    """As ``openai``, an ``anthropic.AsyncAnthropic``.

    Raises:
        ConfigError: The package is not installed, or the Router is a blocking one.
    """
    virtual_key = presented(virtual_key)
    sdk = _package("anthropic")
    client = _waiting(router).http_client(virtual_key=virtual_key, flavour=_flavour(sdk.DefaultHttpxClient))
    return sdk.AsyncAnthropic(
        **{"api_key": _ANY_KEY, "base_url": _ANTHROPIC, "max_retries": 0, "http_client": client, **options}
    )


def mistral(router: Router | SyncRouter, *, virtual_key: str | Secret | None = None, **options: Any) -> Any:
    """As ``openai``, a ``mistralai`` client, which has blocking methods and, with a ``Router``, asynchronous ones.

    Raises:
        ConfigError: The package is not installed.
    """
    virtual_key = presented(virtual_key)
    sdk = _package("mistralai.client", "mistralai>=3")
    flavour = _flavour(sys.modules[sdk.Mistral.__module__].HttpClient)
    made = {"api_key": _ANY_KEY, "server_url": _MISTRAL, "retry_config": None}
    made |= _both(router, virtual_key, flavour, "client", "async_client")
    return sdk.Mistral(**made | options)


def chat_openai(router: Router | SyncRouter, *, virtual_key: str | Secret | None = None, **options: Any) -> Any:
    """A ``langchain_openai.ChatOpenAI``; ``model`` is ``"provider/model"``.

    Raises:
        ConfigError: The package is not installed.
    """
    virtual_key = presented(virtual_key)
    package = _package("langchain_openai", "langchain-openai")
    flavour = _flavour(_package("openai").DefaultHttpxClient)
    made = {"api_key": _ANY_KEY, "base_url": _OPENAI, "max_retries": 0}
    made |= _both(router, virtual_key, flavour, "http_client", "http_async_client")
    return package.ChatOpenAI(**made | options)


def chat_mistralai(router: Router | SyncRouter, *, virtual_key: str | Secret | None = None, **options: Any) -> Any:
    """A ``langchain_mistralai.ChatMistralAI``; ``model`` is ``"provider/model"``.

    It speaks HTTP itself, by ``httpx``, and leaves base URL and key to the client that it is given.

    Raises:
        ConfigError: The package is not installed.
    """
    virtual_key = presented(virtual_key)
    package = _package("langchain_mistralai", "langchain-mistralai")
    url = f"{_MISTRAL}/v1"
    clients = _both(router, virtual_key, "httpx", "client", "async_client")
    told = options.get("api_key") or options.get("mistral_api_key")
    for client in clients.values():
        client.base_url = url
        if told is not None:
            client.headers["authorization"] = f"Bearer {_revealed(told)}"
    return package.ChatMistralAI(**{"api_key": _ANY_KEY, "base_url": url, "max_retries": 1} | clients | options)


def chat_anthropic(router: Router | SyncRouter, *, virtual_key: str | Secret | None = None, **options: Any) -> Any:
    """A ``langchain_anthropic.ChatAnthropic``; ``model`` is ``"provider/model"``.

    It has no option for a client. The two that it would make and keep are put where it keeps them.

    Raises:
        ConfigError: The package is not installed, or keeps its clients elsewhere.
    """
    virtual_key = presented(virtual_key)
    package = _package("langchain_anthropic", "langchain-anthropic")
    made = package.ChatAnthropic(
        **{"api_key": _ANY_KEY, "base_url": _ANTHROPIC, "max_retries": 0, "default_request_timeout": None} | options
    )
    for name in ("_client", "_async_client"):
        if not isinstance(getattr(package.ChatAnthropic, name, None), functools.cached_property):
            raise ConfigError(
                "this version of langchain-anthropic keeps its clients elsewhere; use a version that is tested",
                field="langchain-anthropic",
            )
    same = {"api_key": _revealed(made.anthropic_api_key), "default_headers": made.default_headers}
    made.__dict__["_client"] = anthropic(router, virtual_key=virtual_key, **same)
    if isinstance(router, Router):
        made.__dict__["_async_client"] = async_anthropic(router, virtual_key=virtual_key, **same)
    return made


def _revealed(key: Any) -> str:
    """A key as text: LangChain holds keys in pydantic's ``SecretStr``."""
    return str(key.get_secret_value() if hasattr(key, "get_secret_value") else key)


def _package(name: str, distribution: str = "") -> Any:
    """The package, imported.

    Raises:
        ConfigError: It is not installed.
    """
    distribution = distribution or name
    top = name.partition(".")[0]
    if find_spec(top) is None or find_spec(name) is None:
        raise ConfigError(f"{top} is not installed; run: pip install '{distribution}'", field=top)
    return importlib.import_module(name)


def _flavour(made_for: Any) -> str:
    """Which of httpx and httpx2: what a class of an SDK's is derived from, or its module names so."""
    for base in made_for.__mro__:
        library = base.__module__.partition(".")[0]
        if library in {"httpx", "httpx2"}:
            return str(library)
    return str(sys.modules[made_for.__module__].httpx.__name__)


def _waiting(router: Any) -> Router:
    """The Router, which is no blocking one: an SDK's asynchronous client would be handed a blocking transport."""
    if not isinstance(router, Router):
        raise ConfigError("an asynchronous client needs a Router; a SyncRouter serves blocking ones", field="router")
    return router


def _both(
    router: Router | SyncRouter, virtual_key: Secret | None, flavour: str, blocking: str, waiting: str
) -> dict[str, Any]:
    """Clients by the names of the options that take them; with a blocking Router one of them."""
    made: dict[str, Any] = {blocking: router.sync_http_client(virtual_key=virtual_key, flavour=flavour)}
    if isinstance(router, Router):
        made[waiting] = router.http_client(virtual_key=virtual_key, flavour=flavour)
    return made
