"""Base URLs: what is accepted, and the one form that the adapters build on."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from bifrost_core.errors import ConfigError

__all__ = ["base_of"]

_URL: Final = re.compile(r"[!-~]+")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _problem(url: str, allow_http: bool) -> str:
    if _URL.fullmatch(url) is None:
        return "is empty or holds a space, a control character or one outside ASCII"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in {"http", "https"}:
        return "must begin with https:// (or http:// on this machine)"
    if not host or port == 0:
        return "has no usable host and port"
    if "@" in parts.netloc:
        return "holds a user name or a password; pass keys as keys"
    if "?" in url or "#" in url:
        return "holds a query or a fragment; leave them out"
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        return "is not encrypted and the key would be readable on the way: use https, or allow_http=True"
    return ""


def base_of(url: str, *, allow_http: bool = False) -> str:
    """Bring a base URL into one form: without a slash at the end and without a last segment ``v1``.

    Args:
        url: With or without ``/v1``, with a path in front or not.
        allow_http: Take ``http`` for hosts other than this machine too.

    Raises:
        ConfigError: It can not be used. Never shows it, as it may hold a password.
    """
    problem = _problem(url, allow_http) if isinstance(url, str) else "is not a string"  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
    if problem:
        del url
        raise ConfigError(f"base_url {problem}", field="base_url")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
