"""HTTP libraries behind one protocol; imported when a Router first needs one."""

from __future__ import annotations

from importlib.util import find_spec

from bifrost_core._errors import ConfigError

from ._upload import Upload
from .base import Exchange, HttpEngine, HttpStream, TransportError

__all__ = ["Exchange", "HttpEngine", "HttpStream", "TransportError", "Upload", "make_engine"]

_NAMES = ("auto", "httpx", "httpx2", "aiohttp")


def make_engine(choice: object = "auto") -> HttpEngine:
    """The engine for what a user wrote as ``engine=…``.

    Args:
        choice: ``"auto"`` (httpx2 where it is installed, else httpx), ``"httpx"``, ``"httpx2"``, ``"aiohttp"``
            (on asyncio only), an
            ``httpx.AsyncClient`` or ``httpx2.AsyncClient`` (it stays the user's: it is not closed
            here), or an engine of the user's own.

    Raises:
        ConfigError: It is none of these, or the library is not installed.
    """
    if isinstance(choice, str):
        if choice not in _NAMES:
            raise ConfigError(f"engine {choice!r} is not known; use one of {', '.join(_NAMES)}", field="engine")
        flavour = choice if choice != "auto" else ("httpx2" if find_spec("httpx2") else "httpx")
        if find_spec(flavour) is None:
            raise ConfigError(f"engine {flavour!r} is not installed; `pip install {flavour}`", field="engine")
        if flavour == "aiohttp":
            from ._aiohttp import AiohttpEngine  # noqa: PLC0415 # costs nothing until a Router needs it

            return AiohttpEngine()
        from ._httpx import HttpxEngine  # noqa: PLC0415 # costs nothing until a Router needs it

        return HttpxEngine(flavour)
    if callable(getattr(choice, "open", None)) and callable(getattr(choice, "aclose", None)):
        return choice  # type: ignore[return-value] # checked as far as one can: the protocol's two methods
    if callable(getattr(choice, "build_request", None)) and callable(getattr(choice, "send", None)):
        from ._client import ClientEngine  # noqa: PLC0415 # as above

        return ClientEngine(choice)
    raise ConfigError(
        f"engine must be a name, an AsyncClient or an object with `open` and `aclose`, not {type(choice).__name__}",
        field="engine",
    )
