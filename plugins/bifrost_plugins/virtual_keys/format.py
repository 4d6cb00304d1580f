"""The text of a virtual key: who it says it is, what proves it, and a check against typing errors.

``sk-bf-`` + 12 characters public id + 43 characters secret + 6 characters check. The id is letters and
digits; the secret is 32 random bytes in base64url (RFC 4648, 5) without padding; the check is the CRC-32
(ISO 3309, as in zlib) of everything before it, in base62 with leading zeros. The check proves nothing: it
refuses slips of the keyboard without a look-up, and lets scanners for leaked secrets tell a key from noise.
"""

from __future__ import annotations

import re
import secrets
import zlib
from typing import Final

from bifrost_core import Secret

__all__ = ["ID_LENGTH", "PREFIX", "claimed_id", "new_id", "new_key", "public_id"]

PREFIX: Final = "sk-bf-"
ID_LENGTH: Final = 12

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHECK_LENGTH: Final = 6  # 62 ** 6 > 2 ** 32
_SHAPE: Final = re.compile(r"sk-bf-[0-9A-Za-z]{12}[0-9A-Za-z_-]{43}[0-9A-Za-z]{6}")
_ID: Final = slice(len(PREFIX), len(PREFIX) + ID_LENGTH)


def new_id() -> str:
    """A public id: 71 random bits, safe to log."""
    return "".join(secrets.choice(_BASE62) for _ in range(ID_LENGTH))


def new_key(identity: str) -> Secret:
    """A virtual key with the public id ``identity`` and 256 random bits of its own."""
    return Secret(_checked(f"{PREFIX}{identity}{secrets.token_urlsafe(32)}"), "virtual key")


def claimed_id(key: Secret) -> str | None:
    """What stands where a virtual key of this make has its public id; None for credentials of another make."""
    text = key.reveal()
    return text[_ID] if text.startswith(PREFIX) else None


def public_id(key: Secret) -> str | None:
    """The public id in a well-formed key; None for any other text."""
    text = key.reveal()
    if _SHAPE.fullmatch(text) is None or _checked(text[:-_CHECK_LENGTH]) != text:
        return None
    return text[_ID]


def _checked(body: str) -> str:
    """``body`` with its check behind it."""
    rest = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECK_LENGTH):
        rest, digit = divmod(rest, 62)
        digits = _BASE62[digit] + digits
    return body + digits
